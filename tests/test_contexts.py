"""Contexts: stored, changed, joined with their duplicates, superseded, expired and removed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sqlite_utils import Database
from sqlite_utils.utils import sqlite3

import autom8_lab as al
from autom8_lab.embedding import HashEncoder
from autom8_lab.lab import Lab
from autom8_lab.storage.sqlite_vec import load_extension

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
TIME = "datetime64[us, UTC]"
CONTEXT_DTYPES = {
    "context_id": "str",
    "topic": "str",
    "content": "str",
    "summary": "str",
    "source": "str",
    "priority": "int64",
    "pinned": "bool",
    "expires_at": TIME,
    "superseded_by": "str",
    "token_count": "Int64",
    "content_hash": "str",
    "metadata": "object",
    "created_at": TIME,
    "updated_at": TIME,
    "accessed_at": TIME,
    "access_count": "int64",
    "aliases": "object",
}
OUTCOME_DTYPES = {
    "context_id": "str",
    "outcome": "str",
    "duplicate_of": "str",
    "chunks": "int64",
    "token_count": "Int64",
}
CLEANUP_DTYPES = {
    "context_id": "str",
    "reason": "str",
    "topic": "str",
    "priority": "int64",
    "expires_at": TIME,
    "last_used_at": TIME,
    "age_days": "float64",
}


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **length: float) -> None:
        self.now += timedelta(**length)


class RecordingEncoder:
    """A hash encoder that remembers the texts it was given."""

    name = "recording"
    model_id = "recording@1"
    max_tokens = 1_000_000
    tokenizer = None

    def __init__(self) -> None:
        self._inner = HashEncoder(dimensions=64)
        self.dimensions = 64
        self.texts: list[str] = []
        self.calls = 0

    def encode_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.texts += texts
        self.calls += 1
        return self._inner.encode_documents(texts)

    def encode_query(self, text: str) -> npt.NDArray[np.float32]:
        return self._inner.encode_query(text)


BOTH_BACKENDS = True


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def any_lab(any_place: Callable[[str], str], clock: Clock) -> Iterator[Lab]:
    """A lab with a clock that stands still."""
    path = any_place("any.db")
    with al.open(path, embedding_model="hash-64", clock=clock, synchronous="OFF") as opened:
        yield opened


@pytest.fixture
def empty() -> Iterator[Lab]:
    """A lab in memory, for values that are refused before anything is stored."""
    with al.open(":memory:", embedding_model="hash-64") as opened:
        yield opened


@pytest.fixture
def encoder() -> RecordingEncoder:
    return RecordingEncoder()


@pytest.fixture
def recorded(place: Callable[[str], str], encoder: RecordingEncoder, clock: Clock) -> Iterator[Lab]:
    """A lab with small chunks, whose encoder remembers what it was given."""
    path = place("recorded.db")
    options: dict[str, Any] = {"chunk_tokens": 8, "chunk_overlap_tokens": 0, "synchronous": "OFF"}
    with al.open(path, encoder=encoder, clock=clock, **options) as opened:
        yield opened


def ids(contexts: Sequence[al.Context]) -> list[str]:
    return [context.id for context in contexts]


def found(lab: Lab, query: str, **options: Any) -> list[str]:
    return [hit.context.id for hit in lab.search(query, **options)]


def dtypes(frame: pd.DataFrame) -> dict[str, str]:
    return frame.dtypes.astype(str).to_dict()


def in_the_file(path: str | Path, *tables: str) -> dict[str, int]:
    """Count the rows of these tables, seen by another program with sqlite-vec."""
    connection = sqlite3.connect(path)
    assert load_extension(connection) is None
    database = Database(connection)
    # Raises where the text index and the contexts differ in any word.
    database.execute("INSERT INTO context_registry_fts (context_registry_fts, rank) VALUES ('integrity-check', 1)")
    counts = {table: database.table(table).count for table in tables}
    database.close()
    return counts


TRACES = ("context_registry", "context_registry_fts", "context_chunks", "embeddings", "vec_embeddings")


# Storing and reading


def test_a_stored_context_comes_back_with_everything_that_was_given(any_lab: Lab) -> None:
    given = any_lab.store_context(
        "Refunds over 500 EUR need a second approval.",
        context_id="refund-limit",
        topic="policies",
        summary="Two people approve large refunds.",
        source="handbook",
        priority=7,
        pinned=True,
        expires_at="2027-01-01T01:00:00+01:00",
        metadata={"owner": "finance", "tags": ["refund", "limit"], "limit": {"eur": 500.0}, "draft": False},
    )

    context = any_lab.get_context("refund-limit")

    assert given == context.id == "refund-limit"
    assert context.content == "Refunds over 500 EUR need a second approval."
    assert (context.topic, context.source) == ("policies", "handbook")
    assert context.summary == "Two people approve large refunds."
    assert (context.priority, context.pinned) == (7, True)
    assert context.expires_at == datetime(2027, 1, 1, tzinfo=UTC)
    assert context.metadata == {
        "owner": "finance",
        "tags": ["refund", "limit"],
        "limit": {"eur": 500.0},
        "draft": False,
    }
    assert context.created_at == context.updated_at == START
    assert context.aliases == ()


def test_a_text_alone_gets_an_id_and_plain_defaults(any_lab: Lab) -> None:
    context = any_lab.get_context(any_lab.store_context("Only a text."))

    assert len(context.id) >= 16
    assert (context.topic, context.summary, context.source) == (None, None, None)
    assert (context.priority, context.pinned, context.metadata) == (0, False, {})
    assert (context.expires_at, context.superseded_by, context.accessed_at) == (None, None, None)
    assert context.access_count == 0


def test_a_context_keeps_the_time_of_its_creation_elsewhere(any_lab: Lab) -> None:
    any_lab.store_context("Imported.", context_id="old", created_at="2020-05-01")
    assert any_lab.get_context("old").created_at == datetime(2020, 5, 1, tzinfo=UTC)


def test_an_unknown_id_says_how_to_find_the_known_ones(any_lab: Lab) -> None:
    for verb in (any_lab.get_context, any_lab.delete_context, any_lab.pin_context, any_lab.unpin_context):
        with pytest.raises(al.ContextNotFound, match=r"no context 'nobody': al\.contexts_df\(\) lists the ids"):
            verb("nobody")
    with pytest.raises(LookupError):
        any_lab.update_context("nobody", topic="policies")


def test_tokens_are_counted_when_a_text_is_stored_and_when_it_changes(any_lab: Lab) -> None:
    any_lab.store_context("Three words here", context_id="counted")
    assert any_lab.get_context("counted").token_count == 3
    assert any_lab.update_context("counted", content="Now there are five words").token_count == 5


def test_a_ttl_becomes_a_time_of_expiry(any_lab: Lab) -> None:
    any_lab.store_context("Text.", context_id="text", ttl="30d")
    any_lab.store_context("Length.", context_id="length", ttl=timedelta(hours=2))
    assert any_lab.get_context("text").expires_at == START + timedelta(days=30)
    assert any_lab.get_context("length").expires_at == START + timedelta(hours=2)


def test_a_ttl_beside_a_time_of_expiry_is_refused(any_lab: Lab) -> None:
    any_lab.store_context("There.", context_id="there")
    with pytest.raises(al.InvalidValue, match=r"ttl='1d' and expires_at='2027-01-01': give one of the two"):
        any_lab.store_context("Both.", ttl="1d", expires_at="2027-01-01")
    with pytest.raises(al.InvalidValue, match=r"ttl and expires_at .*give one of the two"):
        any_lab.update_context("there", ttl="1d", expires_at="2027-01-01")
    assert ids(any_lab.list_contexts()) == ["there"]


# Listing


@pytest.fixture
def four(any_lab: Lab, clock: Clock) -> Lab:
    """Four contexts, a day apart, the newest stored first."""
    rows: list[dict[str, Any]] = [
        {"id": "b", "topic": "tools", "source": "wiki", "priority": 1, "metadata": {"level": 1, "done": True}},
        {"id": "d", "topic": "tools", "source": "chat", "priority": 5, "metadata": {"level": 2, "done": None}},
        {"id": "a", "topic": "people", "source": "wiki", "pinned": True, "metadata": {"level": "1"}},
        {"id": "c"},
    ]
    for day, row in reversed(list(enumerate(rows))):
        created_at = START + timedelta(days=day)
        any_lab.store_contexts([{**row, "content": f"Text number {day}", "created_at": created_at}])
    clock.advance(days=10)
    return any_lab


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, "bdac"),
        ({"topic": "tools"}, "bd"),
        ({"topic": ["tools", "people"]}, "bda"),
        ({"topic": []}, ""),
        ({"topic": "nothing"}, ""),
        ({"source": "wiki"}, "ba"),
        ({"topic": "tools", "source": "wiki"}, "b"),
        ({"pinned": True}, "a"),
        ({"pinned": False}, "bdc"),
        ({"min_priority": 1}, "bd"),
        ({"metadata": {"level": 1}}, "b"),
        ({"metadata": {"level": [1, 2]}}, "bd"),
        ({"metadata": {"level": "1"}}, "a"),
        ({"metadata": {"done": True}}, "b"),
        ({"metadata": {"done": None}}, "d"),
        ({"metadata": {"level": 1, "done": True}}, "b"),
        ({"since": START + timedelta(days=1)}, "dac"),
        ({"until": START + timedelta(days=1)}, "b"),
        ({"since": "9d", "until": "2026-03-03T13:00:00+00:00"}, "da"),
        ({"limit": 2}, "bd"),
    ],
)
def test_a_listing_has_what_passes_every_filter_the_oldest_first(
    four: Lab, filters: dict[str, Any], expected: str
) -> None:
    assert ids(four.list_contexts(**filters)) == list(expected)
    assert four.contexts_df(**filters)["context_id"].tolist() == list(expected)


def test_the_frame_of_contexts_has_its_columns_and_dtypes_empty_or_not(any_lab: Lab) -> None:
    assert dtypes(any_lab.contexts_df()) == CONTEXT_DTYPES
    any_lab.store_context("Bare.", context_id="bare")
    any_lab.store_context("Full.", topic="t", ttl="1d", metadata={"a": 1}, context_id="full")
    frame = any_lab.contexts_df()
    assert dtypes(frame) == CONTEXT_DTYPES
    assert frame.index.tolist() == [0, 1]
    bare, full = frame.to_dict("records")
    assert pd.isna(bare["topic"])
    assert pd.isna(bare["expires_at"])
    assert (bare["metadata"], bare["aliases"]) == ({}, ())
    assert (full["topic"], full["metadata"]) == ("t", {"a": 1})
    assert full["expires_at"] == pd.Timestamp(START + timedelta(days=1))


def test_the_frame_has_the_contexts_of_the_list(any_lab: Lab, clock: Clock) -> None:
    any_lab.store_context("Old way.", context_id="old")
    any_lab.store_context("New way.", context_id="new", supersedes="old")
    any_lab.store_context("Gone soon.", context_id="gone", ttl="1h")
    clock.advance(days=1)
    for options in ({}, {"include_superseded": True}, {"include_expired": True}):
        frame = any_lab.contexts_df(**options)  # type: ignore[arg-type]
        assert frame["context_id"].tolist() == ids(any_lab.list_contexts(**options)), options  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("topic", 5),
        ("topic", ""),
        ("topic", [5]),
        ("source", object()),
        ("pinned", "yes"),
        ("min_priority", "high"),
        ("metadata", "key"),
        ("metadata", {"key": {"nested": 1}}),
        ("since", "yesterday"),
        ("until", datetime(2026, 1, 1)),
        ("limit", -1),
        ("limit", "ten"),
    ],
)
def test_a_filter_that_cannot_be_used_is_named(empty: Lab, name: str, value: Any) -> None:
    with pytest.raises(al.InvalidValue, match=name):
        empty.list_contexts(**{name: value})


# Batches


def test_a_frame_with_missing_cells_is_stored_as_rows_without_those_fields(any_lab: Lab) -> None:
    frame = pd.DataFrame(
        {
            "id": ["first", None, float("nan"), pd.NA],
            "content": ["One.", "Two.", "Three.", "Four."],
            "topic": ["t", None, float("nan"), pd.NA],
            "priority": [3.0, float("nan"), None, 4.0],
            "pinned": [True, None, float("nan"), pd.NA],
            "expires_at": pd.to_datetime(["2027-01-01", None, None, "2027-02-01"], utc=True),
            "metadata": [{"a": 1}, None, float("nan"), pd.NaT],
        }
    )

    outcomes = any_lab.store_contexts(frame)

    assert outcomes["outcome"].tolist() == ["stored"] * 4
    one, two, three, four = (any_lab.get_context(name) for name in outcomes["context_id"])
    assert (one.id, one.topic, one.priority, one.pinned, one.metadata) == ("first", "t", 3, True, {"a": 1})
    assert one.expires_at == datetime(2027, 1, 1, tzinfo=UTC)
    assert four.priority == 4
    for context in (two, three):
        assert (context.topic, context.priority, context.pinned) == (None, 0, False)
        assert (context.expires_at, context.metadata) == (None, {})


def test_a_frame_may_have_lengths_of_time_and_whole_numbers_of_numpy(any_lab: Lab) -> None:
    frame = pd.DataFrame(
        {"id": ["a", "b"], "content": ["One.", "Two."], "ttl": pd.to_timedelta(["2h", None]), "priority": [1, 2]}
    )
    any_lab.store_contexts(frame)
    assert any_lab.get_context("a").expires_at == START + timedelta(hours=2)
    assert any_lab.get_context("b").expires_at is None
    assert any_lab.get_context("b").priority == 2


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(lambda texts: [{"content": text} for text in texts], id="dicts"),
        pytest.param(list, id="texts"),
        pytest.param(tuple, id="tuple"),
        pytest.param(lambda texts: ({"content": text} for text in texts), id="generator of dicts"),
        pytest.param(iter, id="iterator of texts"),
        pytest.param(lambda texts: pd.DataFrame({"content": texts}), id="frame"),
        pytest.param(lambda texts: pd.DataFrame({"content": texts}, index=[5, 5, 5]), id="odd index"),
        pytest.param(lambda texts: pd.Series(texts), id="series of texts"),
    ],
)
def test_rows_may_come_in_any_shape(any_lab: Lab, rows: Callable[[list[str]], Any]) -> None:
    texts = ["One apple.", "Two pears.", "Three plums."]
    outcomes = any_lab.store_contexts(rows(texts))
    assert [any_lab.get_context(name).content for name in outcomes["context_id"]] == texts
    assert found(any_lab, "pears", k=1) == [outcomes["context_id"][1]]


def test_the_contexts_of_a_batch_are_listed_in_its_order(any_lab: Lab) -> None:
    texts = [f"Text number {number}" for number in range(30)]
    any_lab.store_contexts(texts)
    assert any_lab.contexts_df()["content"].tolist() == texts


def test_the_frame_of_outcomes_has_its_columns_and_dtypes_empty_or_not(any_lab: Lab) -> None:
    for nothing in ([], pd.DataFrame(), pd.DataFrame({"content": []}), iter([])):
        outcomes = any_lab.store_contexts(nothing)
        assert (dtypes(outcomes), len(outcomes)) == (OUTCOME_DTYPES, 0)
    outcomes = any_lab.store_contexts([{"id": "a", "content": "One word"}, {"id": "b", "content": "One word"}])
    assert dtypes(outcomes) == OUTCOME_DTYPES
    assert outcomes["outcome"].tolist() == ["stored", "duplicate"]
    assert outcomes["duplicate_of"].isna().tolist() == [True, False]
    assert outcomes["duplicate_of"][1] == "a"
    assert outcomes["chunks"].tolist() == [1, 0]  # what was made: nothing for a duplicate
    assert outcomes["token_count"].tolist() == [2, 2]


@pytest.mark.parametrize("shape", [list, pd.DataFrame])
def test_a_bad_row_is_named_by_its_number_and_nothing_lands(empty: Lab, shape: Callable[..., Any]) -> None:
    rows = [{"content": "Good.", "topic": "t"}, {"content": "Bad.", "topic": " t"}, {"content": "", "topic": "t"}]
    with pytest.raises(al.InvalidValue, match=r"row 1: topic=' t' starts or ends with white space: give 't'"):
        empty.store_contexts(shape(rows), batch_size=1)
    assert empty.list_contexts() == []
    assert empty.stats()["chunks"] == empty.stats()["embeddings"] == 0


def test_a_generator_lands_in_whole_batches_up_to_the_bad_row(any_lab: Lab) -> None:
    rows = ({"id": f"row-{number}", "content": f"Text {number}" if number != 5 else 5} for number in range(8))
    with pytest.raises(al.InvalidValue, match=r"row 5: content=5 is a int: give a str"):
        any_lab.store_contexts(rows, batch_size=2)
    assert ids(any_lab.list_contexts()) == ["row-0", "row-1", "row-2", "row-3"]
    assert found(any_lab, "Text 3", k=1) == ["row-3"]


def test_a_row_that_is_in_the_way_keeps_its_batch_out(any_lab: Lab) -> None:
    any_lab.store_context("Taken.", context_id="taken")
    rows = [{"id": "new", "content": "New."}, {"id": "taken", "content": "Another."}]
    with pytest.raises(al.ContextExists, match="'taken'"):
        any_lab.store_contexts(rows)
    assert ids(any_lab.list_contexts()) == ["taken"]
    assert found(any_lab, "New.", method="text") == []


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"content": "x", "topik": "t"}, "row 0: unknown field 'topik'; did you mean 'topic'"),
        ({"topic": "t"}, "row 0: content=None"),
        (5, "row 0: .*int.*give a dict"),
        (["content"], "row 0: .*list.*give a dict"),
        (None, "row 0: .*NoneType.*give a dict"),
        (b"text", "row 0: .*bytes.*give a dict"),
        ({"content": "x", "supersedes": 5}, "row 0: supersedes=5"),
        ({"content": "x", "context_id": "a", "id": "b"}, "row 0: .*'a'.*'b'"),
    ],
)
def test_a_row_that_is_no_context_says_what_is_wrong(empty: Lab, row: Any, message: str) -> None:
    with pytest.raises(al.InvalidValue, match=message):
        empty.store_contexts([row])
    assert empty.list_contexts() == []


@pytest.mark.parametrize("source", ["a text", b"bytes", {"content": "x"}, None, 5])
def test_a_source_that_holds_no_rows_says_what_to_give(empty: Lab, source: Any) -> None:
    with pytest.raises(al.InvalidValue, match="give a DataFrame or a list of dicts"):
        empty.store_contexts(source)
    assert empty.list_contexts() == []


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "10", 10**9])
def test_a_batch_size_has_to_be_a_whole_number_above_zero(empty: Lab, size: Any) -> None:
    with pytest.raises(al.InvalidValue, match="batch_size"):
        empty.store_contexts(["text"], batch_size=size)


def test_a_batch_is_embedded_in_one_pass_each_text_once(recorded: Lab, encoder: RecordingEncoder) -> None:
    recorded.store_contexts(["same", "same", "other", {"content": "same", "topic": "t"}])  # type: ignore[list-item]
    assert encoder.calls == 1
    assert sorted(encoder.texts) == ["other", "same"]


def test_the_progress_bar_is_shown_when_asked_for(empty: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    empty.store_contexts(["silent"], progress=False)
    assert capsys.readouterr().err == ""
    empty.store_contexts(["one", "two"], progress=True)
    assert "chunks" in capsys.readouterr().err


# The same id again


def test_an_id_taken_by_another_text_is_refused_and_nothing_changes(any_lab: Lab) -> None:
    any_lab.store_context("First.", context_id="a", topic="t")
    before = any_lab.get_context("a")
    message = r"context 'a' exists already with another content: use update_context, or if_exists='update' or 'skip'"
    with pytest.raises(al.ContextExists, match=message):
        any_lab.store_context("Second.", context_id="a")
    with pytest.raises(al.ContextExists, match="with another topic"):
        any_lab.store_context("First.", context_id="a", topic="u")
    assert any_lab.list_contexts() == [before]


def test_the_same_context_again_changes_nothing(any_lab: Lab, clock: Clock) -> None:
    row = {"id": "a", "content": "First.", "topic": "t", "priority": 2, "metadata": {"k": [1, 2]}}
    any_lab.store_contexts([row])
    before = any_lab.get_context("a")
    clock.advance(days=1)
    assert any_lab.store_contexts([row])["outcome"].tolist() == ["unchanged"]
    assert any_lab.store_context("First.", context_id="a") == "a"
    assert any_lab.list_contexts() == [before]


def test_a_context_stored_again_with_its_ttl_lives_from_now(any_lab: Lab, clock: Clock) -> None:
    # An agent that repeats its own call must not fail over the seconds in between.
    any_lab.store_context("Seen today.", context_id="a", ttl="1d")
    clock.advance(hours=1)
    assert any_lab.store_context("Seen today.", context_id="a", ttl="1d") == "a"
    assert any_lab.get_context("a").expires_at == START + timedelta(hours=25)


@pytest.mark.parametrize("if_exists", ["fail", "update"])
def test_an_expired_context_stored_again_is_found_again(any_lab: Lab, clock: Clock, if_exists: Any) -> None:
    any_lab.store_context("Seen today.", context_id="a", ttl="1d")
    clock.advance(days=2)
    any_lab.store_context("Seen today.", context_id="a", if_exists=if_exists)
    assert found(any_lab, "seen today") == ["a"]


def test_a_weaker_wish_for_a_context_that_is_there_changes_nothing(any_lab: Lab, clock: Clock) -> None:
    any_lab.store_context("Kept.", context_id="a", pinned=True, priority=5, ttl="9d")
    before = any_lab.get_context("a")
    clock.advance(hours=1)
    rows = [{"id": "a", "content": "Kept.", "pinned": False, "priority": 1, "ttl": "1d"}]
    assert any_lab.store_contexts(rows)["outcome"].tolist() == ["unchanged"]
    assert any_lab.list_contexts() == [before]


def test_an_id_that_exists_can_be_updated_by_storing_it(any_lab: Lab, clock: Clock) -> None:
    any_lab.store_context("First words.", context_id="a", topic="t", priority=3)
    clock.advance(days=1)
    outcome = any_lab.store_contexts([{"id": "a", "content": "Changed sentence.", "topic": "u"}], if_exists="update")
    context = any_lab.get_context("a")
    assert outcome["outcome"].tolist() == ["updated"]
    assert (context.content, context.topic, context.priority) == ("Changed sentence.", "u", 3)
    assert (context.created_at, context.updated_at) == (START, START + timedelta(days=1))
    assert found(any_lab, "first", method="text") == []
    assert any_lab.search("Changed sentence.", method="semantic")[0].similarity == pytest.approx(1)


def test_an_id_that_exists_can_be_skipped(any_lab: Lab) -> None:
    any_lab.store_context("First.", context_id="a")
    rows = [{"id": "a", "content": "Second."}, {"id": "b", "content": "Third."}]
    assert any_lab.store_contexts(rows, if_exists="skip")["outcome"].tolist() == ["skipped", "stored"]
    assert any_lab.get_context("a").content == "First."


def test_the_last_of_two_rows_with_one_id_wins_when_updating(any_lab: Lab) -> None:
    rows = [{"id": "a", "content": "First."}, {"id": "a", "content": "Second."}]
    assert any_lab.store_contexts(rows, if_exists="update")["outcome"].tolist() == ["stored", "updated"]
    assert any_lab.get_context("a").content == "Second."
    with pytest.raises(al.ContextExists):
        any_lab.store_contexts([{"id": "b", "content": "First."}, {"id": "b", "content": "Second."}])


def test_an_unknown_way_to_treat_what_exists_is_refused(empty: Lab) -> None:
    for value in ("replace", None, True):
        with pytest.raises(al.InvalidValue, match=r"if_exists=.*'fail', 'update' or 'skip'"):
            empty.store_context("x", if_exists=value)  # type: ignore[arg-type]


# Duplicates


@pytest.fixture
def twins(any_lab: Lab) -> Lab:
    """One text under the ids "first" and "second"."""
    any_lab.store_context("Restart the worker after a deploy.", context_id="first")
    any_lab.store_context("Restart the worker after a deploy.", context_id="second")
    return any_lab


def test_a_second_id_of_the_same_text_stays_usable_as_an_alias(twins: Lab) -> None:
    assert ids(twins.list_contexts()) == ["first"]
    assert twins.get_context("second") == twins.get_context("first")
    assert twins.get_context("second").aliases == ("second",)
    assert twins.update_context("second", topic="runbooks").id == "first"
    assert twins.pin_context("second").pinned
    assert twins.get_context("first").topic == "runbooks"
    assert not twins.unpin_context("second").pinned
    twins.delete_context("second")
    assert twins.get_context("first").aliases == ()
    with pytest.raises(al.ContextNotFound):
        twins.get_context("second")


def test_search_and_frames_name_the_aliases(twins: Lab) -> None:
    twins.store_context("Restart the worker after a deploy.", context_id="another")
    assert twins.search_df("worker")["aliases"].tolist() == [("another", "second")]
    assert twins.contexts_df()["aliases"].tolist() == [("another", "second")]
    assert twins.stats()["aliases"] == 2


def test_the_same_text_without_an_id_returns_the_id_that_is_there(twins: Lab) -> None:
    outcome = twins.store_contexts(["Restart the worker after a deploy."]).iloc[0]
    assert (outcome["context_id"], outcome["outcome"]) == ("first", "duplicate")
    assert twins.store_context("Restart the worker after a deploy.") == "first"


def test_an_alias_stored_again_is_unchanged(twins: Lab) -> None:
    rows = [{"id": "second", "content": "Restart the worker after a deploy."}]
    assert twins.store_contexts(rows)["outcome"].tolist() == ["unchanged"]
    with pytest.raises(al.ContextExists, match="'second'"):
        twins.store_context("Another text.", context_id="second")


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({}, {"pinned": True}, {"pinned": True}),
        ({"pinned": True}, {"pinned": False}, {"pinned": True}),
        ({"priority": 2}, {"priority": 5}, {"priority": 5}),
        ({"priority": 5}, {"priority": 2}, {"priority": 5}),
        ({"priority": -1}, {}, {"priority": -1}),
        ({"ttl": "1d"}, {"ttl": "9d"}, {"expires_at": START + timedelta(days=9)}),
        ({"ttl": "9d"}, {"ttl": "1d"}, {"expires_at": START + timedelta(days=9)}),
        ({"ttl": "1d"}, {}, {"expires_at": None}),
        ({}, {"ttl": "1d"}, {"expires_at": None}),
    ],
)
def test_the_stronger_wish_to_keep_a_text_wins(
    any_lab: Lab, first: dict[str, Any], second: dict[str, Any], expected: dict[str, Any]
) -> None:
    any_lab.store_context("Kept.", context_id="a", **first)
    any_lab.store_context("Kept.", context_id="b", **second)
    context = any_lab.get_context("a")
    assert context.aliases == ("b",)
    assert {name: getattr(context, name) for name in expected} == expected


def test_the_strongest_wish_wins_among_all_duplicates_of_a_batch(any_lab: Lab) -> None:
    any_lab.store_context("Kept.", context_id="a", ttl="1d")
    any_lab.store_contexts(
        [
            {"id": "b", "content": "Kept.", "priority": 10, "pinned": True},
            {"id": "c", "content": "Kept.", "priority": 5, "pinned": False, "ttl": "9d"},
        ]
    )
    context = any_lab.get_context("a")
    assert (context.priority, context.pinned, context.expires_at) == (10, True, None)


@pytest.mark.parametrize("about", [{"topic": "u"}, {"source": "u"}, {"summary": "Another."}, {"metadata": {"k": 2}}])
def test_the_same_text_about_something_else_is_a_context_of_its_own(any_lab: Lab, about: dict[str, Any]) -> None:
    first = {"topic": "t", "source": "s", "summary": "One.", "metadata": {"k": 1}}
    any_lab.store_context("Same.", context_id="a", **first)
    any_lab.store_context("Same.", context_id="b", **{**first, **about})
    assert ids(any_lab.list_contexts()) == ["a", "b"]
    # What is not said is no difference.
    any_lab.store_context("Same.", context_id="c", topic="t", metadata={"k": 1}, source="s", summary="One.")
    assert any_lab.get_context("c").id == "a"


def test_a_duplicate_of_an_expired_or_superseded_text_is_stored_anew(any_lab: Lab, clock: Clock) -> None:
    any_lab.store_context("Expires.", context_id="expired", ttl="1h")
    any_lab.store_context("Replaced.", context_id="replaced")
    any_lab.store_context("Better.", context_id="better", supersedes="replaced")
    clock.advance(hours=1)
    any_lab.store_context("Expires.", context_id="fresh")
    any_lab.store_context("Replaced.", context_id="again")
    assert set(ids(any_lab.list_contexts())) == {"better", "fresh", "again"}
    assert found(any_lab, "expires", method="text") == ["fresh"]
    assert found(any_lab, "replaced", method="semantic", k=1) == ["again"]
    assert any_lab.get_context("expired").aliases == any_lab.get_context("replaced").aliases == ()


def test_duplicates_inside_one_batch_are_joined(any_lab: Lab) -> None:
    rows: list[Any] = ["Anonymous.", {"id": "a", "content": "Named."}, {"id": "b", "content": "Named."}]
    outcomes = any_lab.store_contexts([*rows, "Named.", "Anonymous."])
    anonymous = outcomes["context_id"][0]
    assert outcomes["outcome"].tolist() == ["stored", "stored", "duplicate", "duplicate", "duplicate"]
    assert outcomes["context_id"].tolist() == [anonymous, "a", "b", "a", anonymous]
    assert set(ids(any_lab.list_contexts())) == {anonymous, "a"}
    assert any_lab.get_context("b").id == "a"


def test_a_text_that_was_changed_earlier_in_the_batch_is_nobodys_twin(any_lab: Lab) -> None:
    any_lab.store_context("Old text.", context_id="a")
    rows = [{"id": "a", "content": "New text."}, {"id": "b", "content": "Old text."}]
    any_lab.store_contexts(rows, if_exists="update")
    assert any_lab.get_context("a").content == "New text."
    assert any_lab.get_context("b").content == "Old text."


def test_a_text_that_was_superseded_earlier_in_the_batch_is_stored_anew(any_lab: Lab) -> None:
    any_lab.store_context("Old text.", context_id="a")
    rows = [{"id": "b", "content": "New text.", "supersedes": "a"}, {"id": "c", "content": "Old text."}]
    any_lab.store_contexts(rows)
    assert set(found(any_lab, "text", method="text")) == {"b", "c"}


def test_deleting_the_first_id_leaves_the_text_to_its_alias(twins: Lab) -> None:
    twins.store_context("The earlier way.", context_id="earlier")
    twins.update_context("earlier", superseded_by="first")
    twins.store_context("Restart the worker after a deploy.", context_id="third")
    created_at = twins.get_context("first").created_at

    twins.delete_context("first")

    heir = twins.get_context("second")
    assert (heir.id, heir.aliases, heir.created_at) == ("second", ("third",), created_at)
    assert twins.get_context("third").id == twins.get_context("earlier").superseded_by == "second"
    for method in ("text", "semantic", "hybrid"):
        assert found(twins, "restart worker", method=method) == ["second"]
    with pytest.raises(al.ContextNotFound):
        twins.get_context("first")


@pytest.mark.parametrize(("changed", "kept"), [("first", "second"), ("second", "first")])
def test_a_new_content_through_one_of_several_ids_is_for_this_id_alone(twins: Lab, changed: str, kept: str) -> None:
    twins.update_context("first", topic="runbooks", priority=4)
    context = twins.update_context(changed, content="Drain the queue.")
    assert (context.id, context.content, context.aliases) == (changed, "Drain the queue.", ())
    assert (context.topic, context.priority) == ("runbooks", 4)
    other = twins.get_context(kept)
    assert (other.id, other.content, other.aliases) == (kept, "Restart the worker after a deploy.", ())
    for method in ("text", "semantic"):
        assert found(twins, "drain queue", method=method, k=1) == [changed]
        assert found(twins, "restart worker deploy", method=method, k=1) == [kept]
    assert twins.stats()["without_vectors"] == 0


def test_the_same_content_through_an_alias_keeps_the_ids_together(twins: Lab) -> None:
    twins.update_context("second", content="Restart the worker after a deploy.", topic="t")
    assert ids(twins.list_contexts()) == ["first"]
    assert twins.get_context("first").topic == "t"


def test_storing_under_an_alias_with_update_gives_it_a_text_of_its_own(twins: Lab) -> None:
    twins.store_context("Drain the queue.", context_id="second", if_exists="update")
    assert twins.get_context("first").content == "Restart the worker after a deploy."
    assert twins.get_context("second").content == "Drain the queue."


def test_an_alias_that_leaves_with_a_new_text_may_be_superseded_by_the_old(twins: Lab) -> None:
    changed = twins.update_context("second", content="Restart everything.", superseded_by="first")
    assert (changed.id, changed.superseded_by) == ("second", "first")


def test_a_text_may_supersede_the_same_text_by_any_of_its_ids(twins: Lab) -> None:
    twins.store_context("Restart the worker after a deploy.", context_id="renewed", supersedes="second")
    assert ids(twins.list_contexts()) == ["renewed"]


# What is embedded


def paragraphs(*words: str) -> str:
    # Seven words and no mark: with eight tokens a chunk, each paragraph is one.
    return "\n\n".join(f"{word} two three four five six seven" for word in words)


def test_an_update_embeds_only_the_chunks_that_changed(recorded: Lab, encoder: RecordingEncoder) -> None:
    recorded.store_context(paragraphs("alpha", "beta", "gamma", "delta"), context_id="long")
    assert len(encoder.texts) == recorded.stats()["chunks"] == 4
    encoder.texts.clear()

    recorded.update_context("long", content=paragraphs("alpha", "beta", "changed", "delta"))

    assert [text.strip() for text in encoder.texts] == ["changed two three four five six seven"]
    assert recorded.stats()["chunks"] == recorded.stats()["embeddings"] == 4
    assert found(recorded, "gamma", method="text") == []
    assert recorded.search("changed two three four five six seven", method="semantic")[0].chunk.startswith("changed")


def test_an_update_of_anything_but_the_text_embeds_nothing(recorded: Lab, encoder: RecordingEncoder) -> None:
    recorded.store_context("One text.", context_id="a")
    encoder.texts.clear()
    recorded.update_context("a", content="One text.", topic="t", priority=3, metadata={"k": 1}, ttl="1d")
    recorded.pin_context("a")
    recorded.store_context("Another topic", context_id="a", if_exists="skip")
    encoder.texts.remove("Another topic")
    assert encoder.texts == []


def test_the_same_text_is_embedded_once_for_ever(recorded: Lab, encoder: RecordingEncoder) -> None:
    recorded.store_context("One text.", context_id="a", topic="t")
    recorded.store_context("One text.", context_id="b", topic="u")
    recorded.store_contexts([{"id": "c", "content": "One text.", "topic": "v"}])
    with recorded.transaction():
        recorded.store_context("One text.", context_id="d", topic="w")
    assert encoder.texts == ["One text."]
    assert (recorded.stats()["contexts"], recorded.stats()["embeddings"]) == (4, 1)


def test_a_second_lab_on_the_file_embeds_nothing_again(recorded: Lab, encoder: RecordingEncoder) -> None:
    recorded.store_context("One text.", topic="t")
    second = RecordingEncoder()
    with al.open(recorded.config.db_path, encoder=second, chunk_tokens=8, chunk_overlap_tokens=0) as other:
        other.store_context("One text.", topic="u")
    assert (encoder.texts, second.texts) == (["One text."], [])


# Updating


def test_an_update_changes_what_is_given_and_nothing_else(any_lab: Lab, clock: Clock) -> None:
    any_lab.store_context("Text.", context_id="a", topic="t", source="s", priority=1, metadata={"k": 1, "l": 2})
    clock.advance(hours=1)
    context = any_lab.update_context("a", priority=9, metadata={"m": 3}, summary="Short.")
    assert context == any_lab.get_context("a")
    assert (context.content, context.topic, context.source) == ("Text.", "t", "s")
    assert (context.priority, context.metadata, context.summary) == (9, {"m": 3}, "Short.")
    assert (context.created_at, context.updated_at) == (START, START + timedelta(hours=1))


def test_none_empties_a_field(any_lab: Lab) -> None:
    any_lab.store_context("New.", context_id="new")
    any_lab.store_context(
        "Text.", context_id="a", topic="t", source="s", summary="Short.", ttl="1d", metadata={"k": 1}, priority=3
    )
    any_lab.update_context("a", superseded_by="new")
    empty = ("topic", "source", "summary", "ttl", "metadata", "superseded_by", "priority", "pinned")
    context = any_lab.update_context("a", **dict.fromkeys(empty))
    assert (context.topic, context.source, context.summary, context.expires_at) == (None, None, None, None)
    assert (context.metadata, context.superseded_by, context.priority, context.pinned) == ({}, None, 0, False)
    any_lab.update_context("a", ttl="1d")
    assert any_lab.update_context("a", expires_at=None).expires_at is None


def test_an_emptied_or_changed_field_leaves_the_text_index(any_lab: Lab) -> None:
    any_lab.store_context("Text.", context_id="a", topic="quinces", summary="About medlars.")
    assert found(any_lab, "quinces", method="text") == found(any_lab, "medlars", method="text") == ["a"]
    any_lab.update_context("a", topic=None, summary="About sloes.")
    assert found(any_lab, "quinces", method="text") == found(any_lab, "medlars", method="text") == []
    assert found(any_lab, "sloes", method="text") == ["a"]


@pytest.mark.parametrize("content", [None, "", "  ", 5, "nul\0", "half \ud800"])
def test_a_text_cannot_be_emptied_or_made_illegal(any_lab: Lab, content: Any) -> None:
    any_lab.store_context("Text.", context_id="a")
    with pytest.raises(al.InvalidValue, match="content"):
        any_lab.update_context("a", content=content, topic="t")
    assert (any_lab.get_context("a").content, any_lab.get_context("a").topic) == ("Text.", None)


# Deleting


@pytest.mark.only_sqlite
def test_a_deleted_context_leaves_nothing_behind(place: Callable[[str], str]) -> None:
    path = place("deleted.db")
    chunks = {"chunk_tokens": 8, "chunk_overlap_tokens": 2}
    with al.open(path, embedding_model="hash-64", **chunks, synchronous="OFF", vector_engine="sqlite-vec") as lab:
        text = paragraphs("secret", "hidden", "covert")
        lab.store_context(text, context_id="a", topic="classified", metadata={"k": 1})
        lab.store_context(text, context_id="alias")
        lab.search("secret")  # which builds vec_embeddings
        counts = in_the_file(path, *TRACES)
        assert min(counts.values()) >= 1
        assert counts["vec_embeddings"] == counts["context_chunks"] >= 3
        lab.delete_context("a")
        assert in_the_file(path, *TRACES) == counts
        lab.delete_context("alias")
        assert in_the_file(path, *TRACES, "context_aliases") == dict.fromkeys((*TRACES, "context_aliases"), 0)
        assert found(lab, "secret") == found(lab, "secret", include_expired=True, include_superseded=True) == []


@pytest.mark.only_sqlite
def test_a_replaced_text_leaves_nothing_behind(place: Callable[[str], str]) -> None:
    path = place("replaced.db")
    with al.open(path, embedding_model="hash-64", synchronous="OFF", vector_engine="sqlite-vec") as lab:
        lab.store_context("secret", context_id="a")
        lab.search("secret")
        lab.update_context("a", content="harmless")
        assert in_the_file(path, *TRACES) == dict.fromkeys(TRACES, 1)
        assert found(lab, "secret", method="text") == []
        assert lab.search("harmless", method="semantic")[0].similarity == pytest.approx(1)


def test_a_vector_that_two_contexts_share_stays_until_the_second_goes(any_lab: Lab) -> None:
    any_lab.store_context("Shared.", context_id="a", topic="t")
    any_lab.store_context("Shared.", context_id="b", topic="u")
    any_lab.delete_context("a")
    assert found(any_lab, "shared", method="semantic") == ["b"]
    assert any_lab.stats()["embeddings"] == 1
    any_lab.delete_context("b")
    assert any_lab.stats()["embeddings"] == any_lab.stats()["chunks"] == 0


def test_a_deleted_id_may_be_used_again(any_lab: Lab) -> None:
    any_lab.store_context("First.", context_id="a")
    any_lab.delete_context("a")
    with pytest.raises(al.ContextNotFound):
        any_lab.delete_context("a")
    any_lab.store_context("Second.", context_id="a")
    assert any_lab.get_context("a").content == "Second."


# Pinning and expiry


def test_a_context_is_pinned_and_unpinned(any_lab: Lab, clock: Clock) -> None:
    any_lab.store_context("Text.", context_id="a")
    clock.advance(hours=1)
    pinned = any_lab.pin_context("a")
    assert pinned.pinned
    assert pinned.updated_at == clock.now
    assert ids(any_lab.list_contexts(pinned=True)) == found(any_lab, "text", pinned=True) == ["a"]
    assert not any_lab.unpin_context("a").pinned
    assert any_lab.contexts_df(pinned=True).empty


def test_an_expired_context_is_left_out_but_can_be_read(any_lab: Lab, clock: Clock) -> None:
    any_lab.store_context("Short notice.", context_id="a", ttl="1h")
    clock.advance(minutes=59, seconds=59)
    assert found(any_lab, "notice") == ids(any_lab.list_contexts()) == ["a"]
    clock.advance(seconds=1)
    assert found(any_lab, "notice") == found(any_lab, "notice", method="semantic") == []
    assert any_lab.list_contexts() == []
    assert any_lab.contexts_df().empty
    assert any_lab.get_context("a").content == "Short notice."
    assert found(any_lab, "notice", include_expired=True) == ids(any_lab.list_contexts(include_expired=True)) == ["a"]
    assert any_lab.stats()["expired"] == 1
    any_lab.update_context("a", ttl=None)
    assert found(any_lab, "notice") == ["a"]


# Superseding


def test_a_superseded_context_stays_readable_and_search_prefers_the_new(any_lab: Lab) -> None:
    any_lab.store_context("The limit is 100 euros.", context_id="old")
    any_lab.store_context("The limit is 200 euros.", context_id="new", supersedes="old")
    for method in ("text", "semantic", "hybrid"):
        assert found(any_lab, "limit euros", method=method) == ["new"]
        assert set(found(any_lab, "limit euros", method=method, include_superseded=True)) == {"old", "new"}
    assert ids(any_lab.list_contexts()) == ["new"]
    assert any_lab.get_context("old").superseded_by == "new"
    assert any_lab.stats()["superseded"] == 1


def test_one_context_may_supersede_several(any_lab: Lab) -> None:
    for name in "abc":
        any_lab.store_context(f"Version {name}.", context_id=name)
    any_lab.store_context("Version d.", context_id="d", supersedes=["a", "b", "c"])
    assert ids(any_lab.list_contexts()) == ["d"]


@pytest.fixture
def chain(any_lab: Lab) -> Lab:
    """Three versions, each superseded by the next."""
    any_lab.store_context("Version one.", context_id="a")
    any_lab.store_context("Version two.", context_id="b", supersedes="a")
    any_lab.store_context("Version three.", context_id="c", supersedes="b")
    return any_lab


def test_of_a_chain_only_the_last_is_found(chain: Lab) -> None:
    assert found(chain, "version") == ids(chain.list_contexts()) == ["c"]


def test_a_circle_is_refused_and_shown(chain: Lab) -> None:
    with pytest.raises(al.InvalidValue, match="closes a circle: c → a → b → c"):
        chain.update_context("c", superseded_by="a")
    with pytest.raises(al.InvalidValue, match="closes a circle: a → a"):
        chain.update_context("a", superseded_by="a")
    with pytest.raises(al.InvalidValue, match="circle"):
        chain.store_context("Itself.", context_id="d", supersedes="d")
    assert found(chain, "version") == ["c"]
    with pytest.raises(al.ContextNotFound):
        chain.get_context("d")


def test_deleting_the_successor_brings_the_old_back(chain: Lab) -> None:
    chain.delete_context("c")
    assert found(chain, "version") == ["b"]
    assert chain.get_context("b").superseded_by is None


def test_deleting_a_version_in_the_middle_leaves_the_first_superseded(chain: Lab) -> None:
    chain.delete_context("b")
    assert found(chain, "version") == ["c"]


def test_cleaning_up_versions_in_the_middle_leaves_the_first_superseded(chain: Lab, clock: Clock) -> None:
    chain.store_context("Version four.", context_id="d", supersedes="c")
    chain.update_context("b", ttl="1h")
    chain.update_context("c", ttl="1h")
    clock.advance(hours=1)
    assert sorted(chain.cleanup(dry_run=False)["context_id"]) == ["b", "c"]
    assert chain.get_context("a").superseded_by == "d"
    assert found(chain, "version") == ["d"]


def test_a_context_is_superseded_and_restored_by_an_update(any_lab: Lab) -> None:
    any_lab.store_context("Old.", context_id="old")
    any_lab.store_context("New.", context_id="new")
    any_lab.store_context("New.", context_id="alias")
    assert any_lab.update_context("old", superseded_by="alias").superseded_by == "new"
    assert any_lab.update_context("old", superseded_by=None).superseded_by is None
    assert set(ids(any_lab.list_contexts())) == {"new", "old"}


def test_an_unknown_predecessor_or_successor_stops_the_call(any_lab: Lab) -> None:
    any_lab.store_context("There.", context_id="there")
    with pytest.raises(al.ContextNotFound, match="'nobody'"):
        any_lab.store_context("New.", supersedes="nobody")
    with pytest.raises(al.ContextNotFound, match="'nobody'"):
        any_lab.update_context("there", superseded_by="nobody", topic="t")
    assert ids(any_lab.list_contexts()) == ["there"]
    assert any_lab.get_context("there").topic is None


@pytest.mark.parametrize("value", [5, [5], [None], {"a": 1}, "", object()])
def test_a_predecessor_that_is_no_id_is_refused(empty: Lab, value: Any) -> None:
    with pytest.raises(al.InvalidValue, match="supersedes"):
        empty.store_context("New.", supersedes=value)
    assert empty.list_contexts() == []


# Retention


@pytest.fixture
def kept(place: Callable[[str], str], clock: Clock) -> Iterator[Lab]:
    """Contexts that are 40 days old, in a lab that keeps what was used in the last 30."""
    with al.open(
        place("kept.db"),
        embedding_model="hash-64",
        clock=clock,
        auto_cleanup_days=30,
        access_log_days=20,
        synchronous="OFF",
    ) as lab:
        lab.store_context("Pinned and expired.", context_id="pinned", pinned=True, ttl="1d")
        lab.store_context("Expired.", context_id="expired", ttl="2d", topic="t", priority=3)
        lab.store_context("Unused quince.", context_id="unused")
        lab.store_context("Shown medlar.", context_id="shown")
        lab.store_context("Read sloe.", context_id="read")
        lab.store_context("Changed plum.", context_id="changed")
        lab.search("quince", method="text")
        clock.advance(days=15)
        lab.search("medlar", method="text")
        lab.get_context("read")
        lab.update_context("changed", priority=1)
        clock.advance(days=25)
        yield lab


def test_cleanup_first_shows_what_it_would_remove(kept: Lab) -> None:
    frame = kept.cleanup()
    assert dtypes(frame) == CLEANUP_DTYPES
    assert frame["context_id"].tolist() == ["expired", "unused"]
    assert frame["reason"].tolist() == ["expired", "unused for more than 30 days"]
    assert frame["age_days"].tolist() == [40.0, 40.0]
    assert frame["last_used_at"].tolist() == [pd.Timestamp(START)] * 2
    expired = frame.iloc[0]
    assert (expired["topic"], expired["priority"]) == ("t", 3)
    assert expired["expires_at"] == pd.Timestamp(START + timedelta(days=2))
    assert kept.stats()["contexts"] == 6


@pytest.mark.only_sqlite
def test_cleanup_removes_what_it_showed_and_never_what_is_pinned(kept: Lab) -> None:
    shown = kept.cleanup()
    removed = kept.cleanup(dry_run=False)
    pd.testing.assert_frame_equal(removed, shown)
    left = kept.contexts_df(include_expired=True)["context_id"].tolist()
    assert sorted(left) == ["changed", "pinned", "read", "shown"]
    assert kept.cleanup(dry_run=False).empty
    assert dtypes(kept.cleanup()) == CLEANUP_DTYPES
    assert in_the_file(kept.config.db_path, "context_registry", "context_chunks", "embeddings") == {
        "context_registry": 4,
        "context_chunks": 4,
        "embeddings": 4,
    }


def test_cleanup_drops_old_entries_of_the_access_log(kept: Lab) -> None:
    kept.search("plum", method="text")
    assert len(kept.searches_df()) == 3
    kept.cleanup()
    assert len(kept.searches_df()) == 3
    kept.cleanup(dry_run=False)
    assert kept.searches_df()["query"].tolist() == ["plum"]
    assert kept.accesses_df("read").empty


def test_the_age_at_which_contexts_go_can_be_given(kept: Lab, clock: Clock) -> None:
    everything = ["changed", "expired", "read", "shown", "unused"]
    assert sorted(kept.cleanup(older_than="20d")["context_id"]) == everything
    assert kept.cleanup(older_than=timedelta(days=50))["context_id"].tolist() == ["expired"]
    assert kept.cleanup(older_than="36h")["reason"].str.contains(r"36h|36 hours|1\.5 days").sum() == 4
    for hostile in ("soon", 30, "-1d", True):
        with pytest.raises(al.InvalidValue, match="older_than"):
            kept.cleanup(older_than=hostile, dry_run=False)  # type: ignore[arg-type]
    assert len(kept.contexts_df(include_expired=True)) == 6


def test_an_old_text_that_was_imported_today_is_not_removed_today(kept: Lab) -> None:
    kept.store_context("From last year.", context_id="imported", created_at="2025-01-01")
    assert "imported" not in kept.cleanup()["context_id"].tolist()


def test_without_a_policy_only_the_expired_go(any_lab: Lab, clock: Clock) -> None:
    any_lab.store_context("Stays.", context_id="stays")
    any_lab.store_context("Goes.", context_id="goes", ttl="1d")
    any_lab.store_context("Goes.", context_id="alias", ttl="1d")
    clock.advance(days=1_000)
    assert any_lab.cleanup(dry_run=False)["context_id"].tolist() == ["goes"]
    assert ids(any_lab.list_contexts(include_expired=True)) == ["stays"]
    with pytest.raises(al.ContextNotFound):
        any_lab.get_context("alias")


def test_a_read_only_lab_shows_what_cleanup_would_remove_but_keeps_it(kept: Lab, clock: Clock) -> None:
    with al.open(kept.config.db_path, read_only=True, clock=clock, auto_cleanup_days=30) as reader:
        kept.cleanup()  # writes what is left of the access log
        assert reader.cleanup()["context_id"].tolist() == ["expired", "unused"]
        with pytest.raises(al.ReadOnlyLab):
            reader.cleanup(dry_run=False)


@pytest.mark.only_sqlite
def test_metadata_is_kept_as_readable_json(lab: Lab) -> None:
    # Other programs read this file: they should find "Zürich", not escapes.
    lab.store_context("Text.", context_id="a", metadata={"city": "Zürich"})
    connection = sqlite3.connect(lab.config.db_path)
    stored = connection.execute("SELECT metadata FROM context_registry").fetchone()[0]
    connection.close()
    assert json.loads(stored) == {"city": "Zürich"}
    assert "Zürich" in stored
