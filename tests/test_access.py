"""The access log: every search and read, what came back, and what never reaches the file."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sqlite_utils.utils import sqlite3

import autom8_lab as al
from autom8_lab.config import LabConfig
from autom8_lab.lab import Lab
from autom8_lab.storage import open_storage

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
TIME = "datetime64[us, UTC]"
SEARCH_DTYPES = {
    "access_id": "str",
    "at": TIME,
    "agent": "str",
    "query": "str",
    "method": "str",
    "k": "int64",
    "filters": "object",
    "result_count": "int64",
    "context_ids": "object",
    "engine": "str",
    "degraded": "str",
    "duration_ms": "float64",
    "top_similarity": "float64",
}
ACCESS_DTYPES = {
    "access_id": "str",
    "at": TIME,
    "kind": "str",
    "agent": "str",
    "context_id": "str",
    "query": "str",
    "method": "str",
    "rank": "Int64",
    "score": "float64",
}


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **length: float) -> None:
        self.now += timedelta(**length)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def open_logged(path: str | Path, clock: Clock, **settings: Any) -> Lab:
    return al.open(path, embedding_model="hash-64", clock=clock, synchronous="OFF", **settings)


def store_three(lab: Lab) -> None:
    rows = {"apples": "Apples keep for months.", "pears": "Pears keep for weeks.", "plums": "Plums keep for days."}
    lab.store_contexts([{"id": name, "content": text, "topic": "fruit"} for name, text in rows.items()])


BOTH_BACKENDS = True


@pytest.fixture
def logged(any_place: Callable[[str], str], clock: Clock) -> Iterator[Lab]:
    """A lab with three contexts and an agent."""
    path = any_place("logged.db")
    with open_logged(path, clock, agent="planner") as lab:
        store_three(lab)
        yield lab


def dtypes(frame: pd.DataFrame) -> dict[str, str]:
    return frame.dtypes.astype(str).to_dict()


def rows_in(path: str | Path, table: str) -> int:
    """Count a table's rows as another process sees them."""
    storage = open_storage(LabConfig.load(db_path=str(path), read_only=True))
    try:
        return storage.count(table)
    finally:
        storage.close()


def test_the_frames_of_the_log_have_their_columns_and_dtypes_empty_or_not(logged: Lab) -> None:
    assert dtypes(logged.searches_df()) == SEARCH_DTYPES
    assert dtypes(logged.accesses_df()) == ACCESS_DTYPES
    assert dtypes(logged.accesses_df("apples")) == ACCESS_DTYPES
    logged.search("nothing like it", method="text")
    assert dtypes(logged.searches_df()) == SEARCH_DTYPES
    assert dtypes(logged.accesses_df()) == ACCESS_DTYPES
    logged.search("apples")
    logged.get_context("pears")
    assert dtypes(logged.searches_df()) == SEARCH_DTYPES
    assert dtypes(logged.accesses_df()) == ACCESS_DTYPES


def test_a_search_is_kept_with_what_came_back(logged: Lab) -> None:
    answer = logged.search_df(
        "months of apples?", k=2, topic="fruit", min_priority=0, pinned=False, include_expired=True
    )
    row = logged.searches_df().iloc[0]
    assert row["query"] == "months of apples?"
    assert (row["method"], row["k"], row["agent"]) == ("hybrid", 2, "planner")
    given = {"topic": "fruit", "min_priority": "0", "pinned": "False", "include_expired": "True"}
    assert row["filters"] == given
    assert row["result_count"] == len(answer) == 2
    assert row["context_ids"] == answer["context_id"].tolist()
    assert row["engine"] == answer.attrs["engine"]
    assert pd.isna(row["degraded"])
    assert row["duration_ms"] == answer.attrs["duration_ms"] > 0
    assert row["at"] == pd.Timestamp(START)


def test_a_search_without_results_is_kept_too(logged: Lab) -> None:
    for query in ("", "nothing like it", "\0", "a-b NEAR( *", "👩‍👩‍👧‍👦", "x" * 100_000):
        assert logged.search(query, method="text") == []
    searches = logged.searches_df()
    assert searches["result_count"].tolist() == [0] * 6
    assert searches["context_ids"].tolist() == [[]] * 6
    assert set(searches["query"]) == {"", "nothing like it", " ", "a-b NEAR( *", "👩‍👩‍👧‍👦", "x" * 100_000}
    assert logged.accesses_df().empty


def test_half_a_surrogate_pair_in_a_query_does_not_spoil_the_log(logged: Lab) -> None:
    # json.loads('"\\ud83d"') gives such a text: a query may hold it like any other.
    assert [hit.context.id for hit in logged.search("\ud83d pears", method="text")] == ["pears"]
    logged.search("plums", method="text")
    assert logged.searches_df()["result_count"].tolist() == [1, 1]
    assert logged.searches_df()["query"].str.contains("pears|plums").all()


def test_a_count_of_numpy_does_not_spoil_the_log(logged: Lab) -> None:
    logged.search("pears", method="text", k=np.int64(3))  # type: ignore[arg-type]
    logged.search("plums", method="text", k=2.0)  # type: ignore[arg-type]
    assert logged.searches_df()["k"].tolist() == [2, 3]


def test_a_search_that_is_refused_is_not_kept(logged: Lab) -> None:
    for options in ({"k": 0}, {"method": "magic"}, {"topic": ""}, {"min_similarity": float("nan")}):
        with pytest.raises(al.InvalidValue):
            logged.search("apples", **options)  # type: ignore[arg-type]
    assert logged.searches_df().empty


def test_searches_come_back_the_newest_first(logged: Lab, clock: Clock) -> None:
    for query in ("one", "two", "three"):
        logged.search(query, method="text")
        clock.advance(hours=1)
    assert logged.searches_df()["query"].tolist() == ["three", "two", "one"]
    assert logged.searches_df(limit=2)["query"].tolist() == ["three", "two"]
    assert logged.searches_df(since=START + timedelta(hours=1))["query"].tolist() == ["three", "two"]
    assert logged.searches_df(until=START + timedelta(hours=1))["query"].tolist() == ["one"]
    assert logged.searches_df(since="2h")["query"].tolist() == ["three", "two"]
    for name in ("since", "until"):
        with pytest.raises(al.InvalidValue, match=name):
            logged.searches_df(**{name: "yesterday"})
    with pytest.raises(al.InvalidValue, match="limit"):
        logged.searches_df(limit=-1)


def test_searches_of_one_moment_come_back_in_a_fixed_order(logged: Lab) -> None:
    queries = [f"query {number}" for number in range(20)]
    for query in queries:
        logged.search(query, method="text")
    assert logged.searches_df()["query"].tolist() == queries[::-1]


def test_accesses_tell_which_search_or_read_showed_a_context(logged: Lab, clock: Clock) -> None:
    hits = logged.search("keep for months", k=3)
    clock.advance(minutes=1)
    logged.get_context("pears")
    frame = logged.accesses_df()
    assert frame["kind"].tolist() == ["read", "search", "search", "search"]
    assert frame["context_id"].tolist() == ["pears", *(hit.context.id for hit in hits)]
    assert frame["rank"].tolist() == [1, 1, 2, 3]
    assert frame["score"].tolist()[1:] == [hit.score for hit in hits]
    assert frame["agent"].tolist() == ["planner"] * 4
    read, *searched = frame.to_dict("records")
    assert pd.isna(read["query"])
    assert pd.isna(read["method"])
    assert pd.isna(read["score"])
    assert {(row["query"], row["method"]) for row in searched} == {("keep for months", "hybrid")}
    assert len({row["access_id"] for row in searched}) == 1


def test_accesses_of_one_context_are_its_own(logged: Lab, clock: Clock) -> None:
    logged.search("months", method="text")
    clock.advance(minutes=1)
    logged.search("weeks", method="text")
    logged.get_context("apples")
    assert logged.accesses_df("apples")["kind"].tolist() == ["read", "search"]
    assert logged.accesses_df("pears")["query"].tolist() == ["weeks"]
    assert logged.accesses_df("plums").empty
    assert logged.accesses_df("unknown").empty
    assert logged.accesses_df("apples", since=START + timedelta(minutes=1))["kind"].tolist() == ["read"]
    assert logged.accesses_df(until=START + timedelta(minutes=1))["query"].tolist() == ["months"]
    with pytest.raises(al.InvalidValue, match="context_id"):
        logged.accesses_df("")


def test_accesses_of_an_alias_are_those_of_its_text(logged: Lab) -> None:
    logged.store_context("Plums keep for days.", context_id="prunes")
    logged.get_context("prunes")
    assert len(logged.accesses_df("prunes")) == len(logged.accesses_df("plums")) == 1


def test_last_access_and_number_of_accesses_follow(logged: Lab, clock: Clock) -> None:
    logged.search("months", method="text")
    clock.advance(days=1)
    logged.get_context("apples")
    logged.get_context("apples")
    logged.searches_df()  # which writes what was collected
    context = logged.get_context("apples")
    assert (context.accessed_at, context.access_count) == (START + timedelta(days=1), 3)
    assert logged.get_context("plums").access_count == 0
    assert logged.get_context("plums").accessed_at is None
    frame = logged.contexts_df().set_index("context_id")
    assert frame["access_count"].to_dict() == {"apples": 3, "pears": 0, "plums": 0}


def test_an_answer_that_is_remembered_knows_the_accesses_since(logged: Lab, clock: Clock) -> None:
    for count in range(3):
        hit = logged.search("months", method="text")[0]
        last = START + timedelta(days=count - 1) if count else None
        assert (hit.context.id, hit.context.access_count, hit.context.accessed_at) == ("apples", count, last)
        logged.searches_df()  # which writes what was collected
        clock.advance(days=1)


@pytest.mark.only_sqlite
def test_the_log_of_a_search_does_not_make_the_lab_forget_its_answer(
    place: Callable[[str], str], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, asked = place("lab.db"), []
    with open_logged(path, clock) as lab, open_logged(path, clock) as other:
        store_three(lab)
        find = lab._retrieval.find
        monkeypatch.setattr(
            lab._retrieval, "find", lambda query, **options: asked.append(query) or find(query, **options)
        )

        def found() -> set[str]:
            hits = lab.search("months", method="text")
            lab.searches_df()  # which writes what was collected
            return {hit.context.id for hit in hits}

        assert [found(), found(), found(), asked] == [{"apples"}, {"apples"}, {"apples"}, ["months"]]
        lab.store_context("Quinces keep for months.", context_id="quinces")
        assert [found(), found(), len(asked)] == [{"apples", "quinces"}, {"apples", "quinces"}, 2]
        lab.search("weeks")
        other.delete_context("quinces")
        lab.searches_df()  # what is written now was searched before the other's commit
        assert [found(), asked[2:]] == [{"apples"}, ["weeks", "months"]]


def test_an_access_is_no_change(logged: Lab, clock: Clock) -> None:
    clock.advance(days=1)
    logged.search("months")
    logged.searches_df()
    assert logged.get_context("apples").updated_at == START


def test_a_deleted_contexts_accesses_remain_readable(logged: Lab) -> None:
    logged.search("months", method="text")
    logged.get_context("apples")
    logged.delete_context("apples")
    assert logged.accesses_df("apples")["kind"].tolist() in (["read", "search"], ["search", "read"])
    assert logged.searches_df()["context_ids"].tolist() == [["apples"]]


def test_the_accesses_of_an_id_that_left_its_text_to_an_alias_remain(logged: Lab) -> None:
    logged.store_context("Plums keep for days.", context_id="prunes")
    logged.get_context("plums")
    logged.delete_context("plums")
    assert len(logged.accesses_df("plums")) == 1
    logged.get_context("prunes")
    logged.store_context("Plums keep for days.", context_id="plums")
    assert logged.accesses_df("prunes")["context_id"].value_counts().to_dict() == {"plums": 1, "prunes": 1}


def test_a_log_that_is_switched_off_writes_nothing(place: Callable[[str], str], clock: Clock) -> None:
    path = place("silent.db")
    with open_logged(path, clock, access_log=False) as lab:
        store_three(lab)
        assert len(lab.search("apples")) > 0
        lab.get_context("apples")
        assert lab.searches_df().empty
        assert lab.accesses_df().empty
        assert lab.get_context("apples").access_count == 0
    assert rows_in(path, "access_log") == rows_in(path, "access_results") == 0


@pytest.mark.only_sqlite
def test_a_read_only_lab_can_be_searched_and_writes_nothing(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "read.db"
    with open_logged(path, clock) as lab:
        store_three(lab)
        lab.search("apples")
    before = path.read_bytes()
    with open_logged(path, clock, read_only=True) as reader:
        for method in ("hybrid", "text", "semantic"):
            assert reader.search("months apples", method=method, k=1)[0].context.id == "apples"
        assert reader.get_context("pears").access_count >= 0
        assert reader.searches_df()["query"].tolist() == ["apples"]
        assert len(reader.accesses_df("apples")) == 1
        assert reader.stats()["contexts"] == 3
        for write in (
            lambda: reader.store_context("New."),
            lambda: reader.update_context("apples", topic="t"),
            lambda: reader.delete_context("apples"),
            lambda: reader.pin_context("apples"),
            lambda: reader.embed_contexts("hash-32"),
        ):
            with pytest.raises(al.ReadOnlyLab, match="read-only"):
                write()
    assert path.read_bytes() == before


def test_entries_wait_in_memory_and_are_there_after_reopening(place: Callable[[str], str], clock: Clock) -> None:
    path = place("buffered.db")
    with open_logged(path, clock) as lab:
        store_three(lab)
        for number in range(5):
            lab.search(f"apples {number}", method="text")
        lab.get_context("pears")
        # A read does not wait for the disk, so nothing is in the file yet.
        assert rows_in(path, "access_log") == 0
    assert rows_in(path, "access_log") == 6
    with open_logged(path, clock) as again:
        assert len(again.searches_df()) == 5
        assert again.get_context("pears").access_count == 1


def test_many_entries_are_written_without_being_asked_for(
    place: Callable[[str], str], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autom8_lab.access.FLUSH_ENTRIES", 256)
    path = place("many.db")
    with open_logged(path, clock) as lab:
        store_three(lab)
        for _ in range(600):
            lab.get_context("pears")
        assert rows_in(path, "access_log") >= 512
        assert lab.stats()["searches"] == 0
    assert rows_in(path, "access_results") == 600


def test_a_search_inside_a_transaction_that_is_taken_back_stays_in_the_log(logged: Lab) -> None:
    with pytest.raises(RuntimeError), logged.transaction():
        logged.search("months", method="text")
        logged.get_context("pears")
        logged.store_context("Quinces keep for long.")
        raise RuntimeError
    assert logged.searches_df()["query"].tolist() == ["months"]
    assert logged.accesses_df("pears")["kind"].tolist() == ["read"]
    assert len(logged.list_contexts()) == 3


@pytest.mark.parametrize("verb", ["stats", "searches_df", "accesses_df", "cleanup", "health", "contexts_df"])
def test_no_verb_inside_a_transaction_ties_the_log_to_it(logged: Lab, verb: str) -> None:
    with pytest.raises(RuntimeError), logged.transaction():
        logged.search("months", method="text")
        getattr(logged, verb)()
        raise RuntimeError
    assert logged.searches_df()["query"].tolist() == ["months"]


def test_threads_share_one_log(place: Callable[[str], str], clock: Clock) -> None:
    with open_logged(place("threads.db"), clock) as lab:
        store_three(lab)

        def work() -> None:
            for _ in range(50):
                lab.get_context("apples")
                lab.search("pears", method="text")

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(lab.searches_df()) == 200
        assert lab.get_context("apples").access_count == lab.get_context("pears").access_count == 200


def test_a_reader_does_not_wait_for_a_writer_to_log_what_it_read(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "busy.db"
    with open_logged(path, clock, deadline_seconds=2, busy_timeout_ms=50) as lab:
        store_three(lab)
        lab.search("apples")
        for _ in range(254):  # one entry more, and the log is due
            lab.get_context("pears")
        writer = sqlite3.connect(path, isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        started = time.perf_counter()
        assert lab.search("apples", k=1)[0].context.id == "apples"
        assert lab.get_context("pears").id == "pears"
        waited = time.perf_counter() - started
        writer.execute("ROLLBACK")
        writer.close()
        assert waited < 1
        assert len(lab.searches_df()) == 2


def test_after_a_writer_is_done_the_log_is_soon_written(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autom8_lab.access.FLUSH_SECONDS", 3_600)
    monkeypatch.setattr("autom8_lab.access.FLUSH_ENTRIES", 256)
    path = tmp_path / "busy.db"
    with open_logged(path, clock, deadline_seconds=2, busy_timeout_ms=50) as lab, sqlite3.connect(path) as other:
        other.isolation_level = None
        store_three(lab)
        other.execute("BEGIN IMMEDIATE")
        for _ in range(256):
            lab.get_context("pears")
        other.execute("ROLLBACK")
        for _ in range(255):
            lab.get_context("pears")
        count = "SELECT count(*) FROM access_log WHERE kind = 'read'"
        assert other.execute(count).fetchone() == (0,)
        lab.get_context("pears")
        assert other.execute(count).fetchone() == (512,)
    other.close()
