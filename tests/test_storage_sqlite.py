"""The storage's operations against what they promise, row by row; SQL stays behind this door."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backends import Places
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlite_utils.utils import sqlite3

import autom8_lab as al
from autom8_lab.config import LabConfig
from autom8_lab.records import Chunk, Condition
from autom8_lab.storage import Storage
from autom8_lab.storage import open_storage as storage_at

CONTEXTS = "context_registry"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
quick = settings(derandomize=True, deadline=None, max_examples=150, database=None)


BOTH_BACKENDS = True


@pytest.fixture
def storage(place: Callable[[str], str]) -> Iterator[Storage]:
    with_storage = open_storage(place("lab.db"))
    yield with_storage
    with_storage.close()


def open_storage(path: Path | str, **settings: Any) -> Storage:
    return storage_at(LabConfig.load(db_path=str(path), synchronous="OFF", **settings))


def context(context_id: str, content: str = "", **fields: Any) -> dict[str, Any]:
    required = {"content_hash": context_id, "metadata": {}, "created_at": NOON, "updated_at": NOON}
    return {"id": context_id, "content": content or f"Text {context_id}.", **required, **fields}


def insert(storage: Storage, *rows: dict[str, Any]) -> None:
    for row in rows:
        storage.insert(CONTEXTS, [row])


def ids(storage: Storage, *where: Condition) -> set[str]:
    return {row["id"] for row in storage.rows(CONTEXTS, where=where, columns=["id"])}


def is_id(context_id: str) -> list[Condition]:
    return [Condition("id", "=", context_id)]


# Conditions

PRIORITIES = {"a": -5, "b": 0, "c": 3, "d": 3, "e": 2**31 - 1}
TOPICS = {"a": None, "b": "x", "c": "y'; DROP TABLE", "d": 'qu"ote', "e": "Ünïcode 🙂"}
EXPIRES = {"a": None, "b": NOON - HOUR, "c": NOON, "d": NOON + timedelta(microseconds=1), "e": NOON.replace(year=9999)}


@pytest.fixture
def five(storage: Storage) -> Storage:
    for name in PRIORITIES:
        row = {"priority": PRIORITIES[name], "topic": TOPICS[name], "expires_at": EXPIRES[name], "pinned": name in "ab"}
        insert(storage, context(name, **row))
    return storage


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Condition("priority", "=", 3), "cd"),
        (Condition("priority", "!=", 3), "abe"),
        (Condition("priority", "<", 3), "ab"),
        (Condition("priority", "<=", 3), "abcd"),
        (Condition("priority", ">", 0), "cde"),
        (Condition("priority", ">=", 0), "bcde"),
        (Condition("priority", "in", [0, 3, 99]), "bcd"),
        (Condition("priority", "in", []), ""),
        (Condition("topic", "=", "y'; DROP TABLE"), "c"),
        (Condition("topic", "=", 'qu"ote'), "d"),
        (Condition("topic", "in", ["x", "Ünïcode 🙂", 'qu"ote']), "bde"),
        (Condition("topic", "!=", "x"), "cde"),  # as in SQL: unknown is neither equal nor different
        (Condition("topic", "is null"), "a"),
        (Condition("topic", "is not null"), "bcde"),
        (Condition("expires_at", "null or >", NOON), "ade"),
        (Condition("expires_at", "null or <", NOON), "ab"),
        (Condition("expires_at", "<=", NOON), "bc"),
        (Condition("expires_at", "=", NOON.astimezone(timezone(timedelta(hours=9)))), "c"),
        (Condition("pinned", "=", True), "ab"),
        (Condition("pinned", "=", False), "cde"),
        (Condition("pinned", "in", [True, False]), "abcde"),
        (Condition("created_at", ">=", date(2026, 3, 1)), "abcde"),
        (Condition("created_at", "<", date(2026, 3, 1)), ""),
    ],
    ids=str,
)
def test_every_operator_selects_counts_updates_and_deletes_the_same_rows(
    five: Storage, condition: Condition, expected: str
) -> None:
    assert ids(five, condition) == set(expected)
    assert five.count(CONTEXTS, where=[condition]) == len(expected)
    assert five.update(CONTEXTS, [condition], {"summary": "chosen"}) == len(expected)
    assert ids(five, Condition("summary", "=", "chosen")) == set(expected)
    assert five.delete(CONTEXTS, [condition]) == len(expected)
    assert ids(five) == set("abcde") - set(expected)


def test_conditions_are_joined_by_and_and_no_condition_means_every_row(five: Storage) -> None:
    assert ids(
        five, Condition("priority", ">=", 0), Condition("topic", "is not null"), Condition("priority", "<", 9)
    ) == {*"bcd"}
    assert ids(five) == set("abcde")
    assert five.count(CONTEXTS) == 5


@quick
@given(
    st.lists(st.datetimes(timezones=st.timezones()), min_size=2, max_size=2),
    st.sampled_from(["<", "<=", "=", ">=", ">", "!="]),
)
@example([datetime(999, 12, 31, tzinfo=UTC), datetime(1000, 1, 1, tzinfo=UTC)], "<")
@example([datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, microsecond=1, tzinfo=UTC)], "<")
def test_times_compare_as_times_whatever_their_zone(memory: Storage, pair: list[datetime], operator: Any) -> None:
    stored, asked = pair
    try:
        left, right = stored.astimezone(UTC), asked.astimezone(UTC)
    except OverflowError:  # before year 1 or after 9999 in UTC, which validation refuses
        return
    tests: dict[str, Callable[[datetime, datetime], bool]] = {
        "<": lambda a, b: a < b,
        "<=": lambda a, b: a <= b,
        "=": lambda a, b: a == b,
        ">=": lambda a, b: a >= b,
        ">": lambda a, b: a > b,
        "!=": lambda a, b: a != b,
    }
    with undone(memory):
        insert(memory, context("t", created_at=stored))
        assert memory.count(CONTEXTS, where=[Condition("created_at", operator, asked)]) == tests[operator](left, right)
        assert memory.rows(CONTEXTS, columns=["created_at"]) == [{"created_at": left}]


class _Undone(Exception):
    pass


class undone:
    """A transaction that is always taken back, so that examples do not see each other's rows."""

    def __init__(self, storage: Storage) -> None:
        self._transaction = storage.transaction()

    def __enter__(self) -> None:
        self._transaction.__enter__()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            self._transaction.__exit__(kind or _Undone, error or _Undone(), trace)
        except _Undone:
            return


@pytest.fixture(scope="module")
def memory(backend: str) -> Iterator[Storage]:
    """A storage for tests that try many values: in memory, or in a database."""
    places = Places(backend, Path())
    with_storage = open_storage(":memory:" if backend == "sqlite" else places("lab"))
    yield with_storage
    with_storage.close()
    places.close()


# Conditions on keys of a JSON column

VALUES = [
    True,
    False,
    None,
    0,
    1,
    -1,
    1.0,
    1.5,
    2**53 + 1,
    "",
    "1",
    "true",
    "null",
    "it's",
    'a "b"',
    "🙂",
    "a\nb",
    "Ä",
    "a",
]
KEYS = [
    "n",
    "",
    "a.b",
    "a b",
    "$.n",
    "$",
    "[0]",
    "a[1]",
    'qu"ote',
    "it's",
    "back\\slash",
    "new\nline",
    "🙂",
    "Ä",
    "%",
    "N",
]


def same(left: Any, right: Any) -> bool:
    """Whether two JSON scalars are the same: 1 is 1.0, true is not 1, and no text is a number."""
    if isinstance(left, bool) or isinstance(right, bool) or left is None or right is None:
        return left is right
    return isinstance(left, str) == isinstance(right, str) and bool(left == right)


@pytest.mark.parametrize("asked", VALUES, ids=repr)
def test_a_json_key_finds_its_value_and_no_lookalike(memory: Storage, asked: Any) -> None:
    with undone(memory):
        insert(memory, *(context(str(place), metadata={"n": value}) for place, value in enumerate(VALUES)))
        insert(
            memory, context("missing"), context("list", metadata={"n": [asked]}), context("dict", metadata={"n": {}})
        )
        expected = {str(place) for place, value in enumerate(VALUES) if same(value, asked)}
        assert ids(memory, Condition("metadata", "=", asked, key="n")) == expected
        assert ids(memory, Condition("metadata", "in", [asked], key="n")) == expected


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_any_text_is_a_json_key_and_means_only_itself(memory: Storage, key: str) -> None:
    with undone(memory):
        insert(memory, *(context(str(place), metadata={name: "here"}) for place, name in enumerate(KEYS)))
        insert(memory, context("nested", metadata={"n": {"n": "here"}, "a": {"b": "here"}}))
        assert ids(memory, Condition("metadata", "=", "here", key=key)) == {str(KEYS.index(key))}


def test_a_json_key_may_have_one_of_several_values(memory: Storage) -> None:
    with undone(memory):
        insert(memory, *(context(str(place), metadata={"n": value}) for place, value in enumerate(VALUES)))
        for asked in ([], [None], [True, "1"], [1, "true", None, False]):
            expected = {str(place) for place, value in enumerate(VALUES) if any(same(value, item) for item in asked)}
            assert ids(memory, Condition("metadata", "in", asked, key="n")) == expected


@pytest.mark.parametrize("operator", ["!=", "<", "<=", ">", ">=", "is null", "is not null", "null or >", "null or <"])
def test_an_operator_that_json_keys_do_not_have_is_refused_and_not_taken_for_another(
    storage: Storage, operator: Any
) -> None:
    insert(storage, context("five", metadata={"n": 5}))
    with pytest.raises(al.InvalidValue, match=r"metadata.*'n'"):
        storage.rows(CONTEXTS, where=[Condition("metadata", operator, 5, key="n")])


# Tables and columns by name


@pytest.mark.parametrize(
    "operation",
    [
        lambda storage: storage.rows("context_registri"),
        lambda storage: storage.count("context_registri"),
        lambda storage: storage.insert("context_registri", [{"id": "a"}]),
        lambda storage: storage.update("context_registri", [], {"id": "a"}),
        lambda storage: storage.delete("context_registri", []),
    ],
)
def test_an_unknown_table_is_refused_with_the_nearest_name(
    storage: Storage, operation: Callable[[Storage], object]
) -> None:
    with pytest.raises(al.InvalidValue, match=r"no table 'context_registri'; did you mean 'context_registry'\?"):
        operation(storage)


@pytest.mark.parametrize(
    "operation",
    [
        lambda storage: storage.rows(CONTEXTS, columns=["topik"]),
        lambda storage: storage.rows(CONTEXTS, where=[Condition("topik", "=", 1)]),
        lambda storage: storage.rows(CONTEXTS, order_by=["topik"]),
        lambda storage: storage.rows(CONTEXTS, order_by=["-topik"]),
        lambda storage: storage.count(CONTEXTS, where=[Condition("topik", "=", 1, key="a")]),
        lambda storage: storage.insert(CONTEXTS, [{"topik": "a"}]),
        lambda storage: storage.update(CONTEXTS, [], {"topik": "a"}),
        lambda storage: storage.update(CONTEXTS, [Condition("topik", "=", 1)], {"topic": "a"}),
        lambda storage: storage.delete(CONTEXTS, [Condition("topik", "=", 1)]),
        lambda storage: storage.match_text(["a"], k=1, where=[Condition("topik", "=", 1)]),
    ],
)
def test_an_unknown_column_is_refused_with_the_nearest_name_and_nothing_is_written(
    five: Storage, operation: Callable[[Storage], object]
) -> None:
    before = five.rows(CONTEXTS)
    with pytest.raises(al.InvalidValue, match=r"'topik'; did you mean 'topic'\?"):
        operation(five)
    assert five.rows(CONTEXTS) == before


@pytest.mark.parametrize(
    "name", ['topic" = 1 OR "1', "topic; DROP TABLE context_registry", "", "rowid", "*", "id, topic"]
)
def test_a_column_name_is_never_sql(five: Storage, name: str) -> None:
    for operation in (
        lambda: five.rows(CONTEXTS, columns=[name]),
        lambda: five.rows(CONTEXTS, order_by=[name]),
        lambda: five.delete(CONTEXTS, [Condition(name, "is not null")]),
        lambda: five.update(CONTEXTS, [], {name: 1}),
    ):
        with pytest.raises(al.InvalidValue):
            operation()
    assert five.count(CONTEXTS) == 5


def test_rows_are_sorted_by_each_column_in_its_direction(five: Storage) -> None:
    def order(*columns: str, limit: int | None = None) -> str:
        rows = five.rows(CONTEXTS, columns=["id"], order_by=columns, limit=limit)
        return "".join(row["id"] for row in rows)

    assert order("id") == "abcde"
    assert order("-id") == "edcba"
    assert order("priority", "-id") == "abdce"
    assert order("-priority", "id") == "ecdba"
    assert order("-pinned", "-priority", "id") == "baecd"
    assert order("id", limit=2) == "ab"
    assert order("id", limit=0) == ""


def test_rows_have_the_columns_asked_for_in_that_order(five: Storage) -> None:
    (row,) = five.rows(CONTEXTS, where=is_id("b"), columns=["topic", "id"])
    assert list(row.items()) == [("topic", "x"), ("id", "b")]


# Values there and back


@quick
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
        # Half a surrogate pair and NUL are refused by validation.
        | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
        lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text("aé🙂\"'\\\n", max_size=3), children, max_size=3),
        max_leaves=8,
    )
)  # fmt: skip
def test_documents_come_back_as_they_went_in(memory: Storage, value: Any) -> None:
    with undone(memory):
        insert(memory, context("t", metadata={"value": value}))
        assert memory.rows(CONTEXTS, columns=["metadata"]) == [{"metadata": {"value": value}}]


def test_values_come_back_with_their_types(storage: Storage) -> None:
    row = {
        "id": "d1",
        "at": datetime(2026, 3, 1, 14, 30, 0, 123456, tzinfo=timezone(timedelta(hours=2))),
        "decision_type": "route",
        "candidates": {"a": 0.1, "b": None},
        "propensity": 0.1 + 0.2,
        "success": False,
        "outcome_at": None,
        "metadata": {},
    }
    storage.insert("agent_decisions", [row])
    (back,) = storage.rows("agent_decisions")
    assert back["at"] == datetime(2026, 3, 1, 12, 30, 0, 123456, tzinfo=UTC)
    assert back["at"].utcoffset() == timedelta(0)
    assert (back["candidates"], back["propensity"]) == ({"a": 0.1, "b": None}, 0.1 + 0.2)
    assert back["success"] is False
    assert (back["outcome_at"], back["policy"]) == (None, None)
    storage.update("agent_decisions", is_id("d1"), {"success": True, "outcome_at": NOON, "candidates": ["a", "b"]})
    (back,) = storage.rows("agent_decisions")
    assert (back["success"], back["outcome_at"], back["candidates"]) == (True, NOON, ["a", "b"])


def test_text_comes_back_as_it_went_in(memory: Storage) -> None:
    texts = [
        "'",
        '"',
        "%_",
        "\\",
        "a\r\nb\tc",
        "\u202eright to left",
        "🙂👩‍👩‍👧‍👦",
        "x" * 100_000,
        "\ufeffbom",
        "é",
        "e\u0301",
    ]
    with undone(memory):
        insert(memory, *(context(str(place), text) for place, text in enumerate(texts)))
        rows = memory.rows(CONTEXTS, columns=["id", "content"])
        assert [row["content"] for row in sorted(rows, key=lambda row: int(row["id"]))] == texts


# Inserting, changing, deleting


def test_insert_counts_what_it_added_and_takes_any_iterable(storage: Storage) -> None:
    assert storage.insert(CONTEXTS, (context(str(number)) for number in range(5))) == 5
    assert storage.insert(CONTEXTS, []) == 0
    assert storage.count(CONTEXTS) == 5


def test_insert_can_skip_rows_whose_key_is_taken(storage: Storage) -> None:
    insert(storage, context("a", "First."))
    assert storage.insert(CONTEXTS, [context("a", "Second."), context("b")], ignore_existing=True) == 1
    assert storage.rows(CONTEXTS, where=is_id("a"), columns=["content"]) == [{"content": "First."}]


def test_an_import_that_is_repeated_adds_nothing(storage: Storage) -> None:
    call = {"at": NOON, "model": "m", "operation": "chat", "source": "log.csv", "source_id": "1", "metadata": {}}
    assert storage.insert("usage_ledger", [call], ignore_existing=True) == 1
    assert storage.insert("usage_ledger", [call, {**call, "source_id": "2"}], ignore_existing=True) == 1
    # Without a source there is nothing to compare: two equal calls are two calls.
    live = {**call, "source": None, "source_id": None}
    assert storage.insert("usage_ledger", [live, live], ignore_existing=True) == 2


@pytest.mark.parametrize(
    "rows",
    [
        [context("new"), context("a")],
        [context("new"), context("b", superseded_by="nobody")],
        [context("new"), context("b", priority="high")],
        [context("new"), context("b", created_at=None)],
    ],
    ids=["taken key", "unknown reference", "wrong type", "missing value"],
)
def test_rows_that_break_a_rule_of_the_schema_are_refused_with_all_the_others(
    storage: Storage, rows: list[dict[str, Any]]
) -> None:
    insert(storage, context("a"))
    with pytest.raises(al.StorageError, match=r"lab.*nothing of this call was kept"):
        storage.insert(CONTEXTS, [{"priority": 0, "superseded_by": None, **row} for row in rows])
    assert ids(storage) == {"a"}


def test_rows_of_different_columns_are_refused_and_not_cut_to_the_first_ones(storage: Storage) -> None:
    for rows in ([context("a"), context("b", topic="x")], [context("a", topic="x"), context("b")]):
        with pytest.raises(al.InvalidValue, match="column"):
            storage.insert(CONTEXTS, rows)
    assert ids(storage) == set()


def put(storage: Storage, context_id: str, *texts: str, set_key: int = 1, changed: bool = False) -> None:
    """Give a context chunks with vectors made from their first letter."""
    chunks = [Chunk(place, place, place + len(text), f"hash of {text}") for place, text in enumerate(texts)]
    vectors = {f"hash of {text}": np.array([1.0, ord(text[0])], dtype=np.float32) for text in texts}
    storage.put_chunks({context_id: chunks}, set_key=set_key, vectors=vectors, content_changed=changed)


def new_set(storage: Storage, model_id: str = "m@1", state: str = "active") -> None:
    row = {"model_id": model_id, "model_name": "m", "dimensions": 2, "chunk_tokens": 8, "chunk_overlap_tokens": 0}
    storage.insert("embedding_sets", [{**row, "state": state, "created_at": NOON}])


def test_deleting_a_context_deletes_everything_that_hangs_on_it_and_nothing_else(storage: Storage) -> None:
    new_set(storage)
    insert(storage, context("a", "Alpha only."), context("b", "Beta.", superseded_by="a"))
    put(storage, "a", "alpha", "shared")
    put(storage, "b", "shared")
    alias = {"context_id": "a", "created_at": NOON}
    storage.insert("context_aliases", [{**alias, "alias": "a2"}, {**alias, "alias": "a3"}])
    assert storage.delete(CONTEXTS, is_id("a")) == 1
    assert storage.count("context_aliases") == 0
    assert storage.count("context_chunks") == 1
    assert storage.rows("embeddings", columns=["chunk_hash"]) == [{"chunk_hash": "hash of shared"}]
    assert storage.match_text(["alpha"], k=5) == []
    assert storage.rows(CONTEXTS, columns=["id", "superseded_by"]) == [{"id": "b", "superseded_by": None}]


def test_deleting_a_models_set_deletes_its_vectors_and_keeps_the_other_models(storage: Storage) -> None:
    new_set(storage, "old@1", "retired")
    new_set(storage, "new@1", "active")
    insert(storage, context("a"))
    put(storage, "a", "alpha", set_key=1)
    put(storage, "a", "alpha", set_key=2)
    storage.delete("embedding_sets", [Condition("state", "=", "retired")])
    assert storage.rows("embeddings", columns=["model_id"]) == [{"model_id": "new@1"}]


def test_changing_an_id_takes_its_aliases_and_successors_along(storage: Storage) -> None:
    insert(storage, context("a"), context("b", superseded_by="a"))
    storage.insert("context_aliases", [{"alias": "a2", "context_id": "a", "created_at": NOON}])
    storage.update(CONTEXTS, is_id("a"), {"id": "z"})
    assert storage.rows("context_aliases", columns=["context_id"]) == [{"context_id": "z"}]
    assert storage.rows(CONTEXTS, where=is_id("b"), columns=["superseded_by"]) == [{"superseded_by": "z"}]


def test_deleting_a_decision_keeps_the_calls_that_it_made(storage: Storage) -> None:
    storage.insert(
        "agent_decisions", [{"id": "d", "at": NOON, "decision_type": "route", "candidates": {}, "metadata": {}}]
    )
    storage.insert("decision_contexts", [{"decision_id": "d", "position": 0, "context_id": "a"}])
    storage.insert("usage_ledger", [{"at": NOON, "model": "m", "operation": "chat", "decision_id": "d"}])
    storage.delete("agent_decisions", is_id("d"))
    assert storage.count("decision_contexts") == 0
    assert storage.rows("usage_ledger", columns=["decision_id"]) == [{"decision_id": None}]


def test_touch_notes_the_last_access_and_adds_up(storage: Storage) -> None:
    insert(storage, context("a"), context("b"), context("c"))
    storage.touch({"a": (NOON, 2), "b": (NOON + HOUR, 1), "gone": (NOON, 1)})
    storage.touch({"a": (NOON + HOUR, 3)})
    storage.touch({})
    rows = storage.rows(CONTEXTS, columns=["id", "accessed_at", "access_count", "updated_at"], order_by=["id"])
    assert [(row["accessed_at"], row["access_count"]) for row in rows] == [
        (NOON + HOUR, 5),
        (NOON + HOUR, 1),
        (None, 0),
    ]
    assert {row["updated_at"] for row in rows} == {NOON}


# Text


def raw(storage: Storage, sql: str) -> list[tuple[Any, ...]]:
    """Look at the file from outside, through the same SQLite library."""
    connection = sqlite3.connect(storage.path)
    try:
        rows: list[tuple[Any, ...]] = connection.execute(sql).fetchall()
        connection.commit()
        return rows
    finally:
        connection.close()


def index_is_in_step(storage: Storage) -> None:
    if "://" in storage.path:
        assert [finding for finding in storage.check() if "text index" in finding.finding] == []
        return
    # Compares the index with the content table, and raises where they differ.
    raw(storage, "INSERT INTO context_registry_fts (context_registry_fts, rank) VALUES ('integrity-check', 1)")


def found(storage: Storage, *terms: str) -> list[str]:
    return [match.context_id for match in storage.match_text(terms, k=10)]


@pytest.mark.parametrize("column", ["content", "topic", "summary"])
def test_text_search_follows_a_change_of_each_column_that_it_covers(storage: Storage, column: str) -> None:
    insert(storage, context("a", "Alpha.", topic="beta", summary="gamma"))
    old = {"content": "alpha", "topic": "beta", "summary": "gamma"}[column]
    assert found(storage, old) == ["a"]
    storage.update(CONTEXTS, is_id("a"), {column: "Delta epsilon."})
    assert (found(storage, old), found(storage, "epsilon")) == ([], ["a"])
    if column != "content":
        storage.update(CONTEXTS, is_id("a"), {column: None})
        assert found(storage, "epsilon") == []
    index_is_in_step(storage)
    storage.delete(CONTEXTS, is_id("a"))
    assert found(storage, "alpha", "beta", "gamma", "epsilon") == []
    index_is_in_step(storage)


@pytest.mark.only_sqlite
def test_changes_of_other_columns_leave_the_text_index_alone(storage: Storage) -> None:
    insert(storage, context("a", "Alpha."))
    before = raw(storage, "SELECT id, block FROM context_registry_fts_data ORDER BY id")
    other = {"priority": 3, "pinned": True, "source": "s", "expires_at": NOON, "metadata": {"a": 1}, "token_count": 1}
    storage.update(CONTEXTS, is_id("a"), {**other, "updated_at": NOON, "content_hash": "x", "superseded_by": None})
    storage.touch({"a": (NOON, 1)})
    storage.update(CONTEXTS, is_id("a"), {"id": "b"})
    assert raw(storage, "SELECT id, block FROM context_registry_fts_data ORDER BY id") == before
    assert found(storage, "alpha") == ["b"]
    storage.update(CONTEXTS, is_id("b"), {"summary": "Now."})
    assert raw(storage, "SELECT id, block FROM context_registry_fts_data ORDER BY id") != before


def test_text_search_is_in_step_after_a_transaction_that_was_taken_back(storage: Storage) -> None:
    insert(storage, context("a", "Alpha."))
    with undone(storage):
        storage.update(CONTEXTS, is_id("a"), {"content": "Beta."})
        insert(storage, context("b", "Beta."))
        assert found(storage, "beta") == ["a", "b"]
    assert (found(storage, "alpha"), found(storage, "beta")) == (["a"], [])
    index_is_in_step(storage)


def test_text_matches_are_ranked_by_score_and_ties_by_id(storage: Storage) -> None:
    for context_id in "dbac":
        insert(storage, context(context_id, "The same words."))
    insert(storage, context("z", "Words words words."))
    matches = storage.match_text(["words"], k=4)
    assert [match.context_id for match in matches] == ["z", "a", "b", "c"]
    assert [match.rank for match in matches] == [1, 2, 3, 4]
    scores = [match.score for match in matches]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] > 0


def test_text_search_gives_k_results_when_k_pass_the_filter(storage: Storage) -> None:
    storage.insert(
        CONTEXTS, [context(f"{n:03}", "word " * (300 - n), topic="rare" if n > 296 else "x") for n in range(300)]
    )
    matches = storage.match_text(["word"], k=3, where=[Condition("topic", "=", "rare")])
    assert sorted(match.context_id for match in matches) == ["297", "298", "299"]


def test_text_search_tells_the_scores_of_named_contexts_that_ranked_lower(storage: Storage) -> None:
    storage.insert(CONTEXTS, [context(f"{n}", "word " + "other " * n) for n in range(9)])
    every = storage.match_text(["word"], k=9)
    some = storage.match_text(["word"], k=2, include=["8", "4", "0", "nobody"])
    assert some[:2] == every[:2]
    assert [(match.context_id, match.score) for match in some[2:]] == [
        (match.context_id, pytest.approx(match.score, rel=1e-12)) for match in every if match.context_id in ("4", "8")
    ]
    where = [Condition("id", "!=", "8")]
    assert "8" not in [match.context_id for match in storage.match_text(["word"], k=2, include=["8"], where=where)]


@pytest.mark.parametrize(
    "term", ["NEAR(", "a-b", "C++?", 'foo"bar', "*", "col:x", "AND", "OR", "NOT", "^", "{a b}", "", " ", "'", "🙂"]
)
def test_a_term_is_only_ever_text(storage: Storage, term: str) -> None:
    insert(storage, context("1", "Plain words."), context("2", "More of them."))
    assert storage.match_text([term], k=5) == []
    assert storage.matched_terms([term], ["1", "2"]) == {"1": (), "2": ()}
    assert storage.passages([term], ["1"]) == {}


def test_matched_terms_are_found_after_stemming(storage: Storage) -> None:
    insert(storage, context("a", "Running ships.", topic="harbours"), context("b", "A ship ran."))
    assert storage.matched_terms(["ship", "run", "harbour", "crane"], ["a", "b", "nobody"]) == {
        "a": ("ship", "run", "harbour"),
        "b": ("ship",),
    }


def test_passages_are_cut_from_the_content_around_the_terms(storage: Storage) -> None:
    text = "filler " * 500 + "the needle lies here " + "filler " * 500
    insert(storage, context("a", text), context("b", "Nothing.", topic="needle"))
    passages = storage.passages(["needle"], ["a", "b"])
    assert "needle" in passages["a"]
    assert passages["a"] in text
    assert len(passages["a"].split()) <= 64


# The ledger's view


def test_model_performance_is_the_ledger_summed_up_and_follows_it(storage: Storage) -> None:
    def check() -> None:
        rows = storage.rows("usage_ledger")
        view = {(row["model"], row["operation"]): row for row in storage.rows("model_performance")}
        assert set(view) == {(row["model"], row["operation"]) for row in rows}
        for key, line in view.items():
            calls = [row for row in rows if (row["model"], row["operation"]) == key]

            def known(name: str, calls: list[dict[str, Any]] = calls) -> list[float]:
                return [float(row[name]) for row in calls if row[name] is not None]

            costs = [
                row["cost_estimated_usd"] if row["cost_actual_usd"] is None else row["cost_actual_usd"] for row in calls
            ]
            priced = [cost for cost in costs if cost is not None]
            assert line["calls"] == len(calls)
            assert line["unpriced_calls"] == len(costs) - len(priced)
            assert line["cost_usd"] == (pytest.approx(sum(priced)) if priced else None)
            for name, column in (("input_tokens", "input_tokens"), ("output_tokens", "output_tokens")):
                assert line[name] == (sum(known(column)) if known(column) else None)
            for name, column in (
                ("success_rate", "success"),
                ("latency_ms_mean", "latency_ms"),
                ("quality_mean", "quality_score"),
            ):
                assert line[name] == (pytest.approx(statistics.mean(known(column))) if known(column) else None)
            times = [row["at"] for row in calls]
            assert (line["first_at"], line["last_at"]) == (min(times), max(times))

    call = dict.fromkeys(
        (
            "input_tokens",
            "output_tokens",
            "cost_estimated_usd",
            "cost_actual_usd",
            "latency_ms",
            "quality_score",
            "success",
        )
    )
    chat = {**call, "model": "m", "operation": "chat"}
    storage.insert(
        "usage_ledger",
        [
            {**chat, "at": NOON, "input_tokens": 10, "cost_estimated_usd": 0.5, "latency_ms": 100.0, "success": True},
            {**chat, "at": NOON + HOUR, "cost_estimated_usd": 9.0, "cost_actual_usd": 0.25, "success": False},
            {**chat, "at": NOON - HOUR, "output_tokens": 7, "quality_score": 0.75, "latency_ms": 50.0},
            {**chat, "at": NOON, "cost_actual_usd": 0.0},
            {**chat, "at": NOON, "operation": "embed"},
            {**chat, "at": NOON, "model": "other", "success": True},
        ],
    )
    check()
    (embed,) = storage.rows("model_performance", where=[Condition("operation", "=", "embed")])
    assert (embed["cost_usd"], embed["unpriced_calls"]) == (None, 1)
    storage.update("usage_ledger", [Condition("usage_key", "=", 3)], {"cost_actual_usd": 1.5, "success": True})
    check()
    storage.delete("usage_ledger", [Condition("model", "=", "other")])
    check()
    storage.delete("usage_ledger", [])
    assert storage.rows("model_performance") == []


# Taking a transaction back and repeating it


def snapshot(path: str) -> dict[str, list[dict[str, Any]]]:
    """Every row that another storage on the file sees."""
    other = open_storage(path)
    try:
        tables = (CONTEXTS, "context_aliases", "context_chunks", "embeddings", "embedding_sets", "usage_ledger")
        return without_gaps({table: other.rows(table) for table in tables})
    finally:
        other.close()


def without_gaps(found: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Number the rows from 1 on: what was taken back may leave gaps on a server."""
    for name in ("context_key", "chunk_key", "set_key", "embedding_key", "usage_key"):
        numbers = sorted({row[name] for rows in found.values() for row in rows if name in row})
        for rows in found.values():
            for row in rows:
                if name in row:
                    row[name] = numbers.index(row[name])
    return found


def every_kind_of_write(storage: Storage) -> None:
    new_set(storage)
    storage.insert(CONTEXTS, (context(name, f"{name} text.") for name in ("a", "b", "c")))
    storage.insert(CONTEXTS, [context("a", "Ignored.")], ignore_existing=True)
    storage.update(CONTEXTS, is_id("a"), {"priority": 7, "content": "Changed."})
    storage.delete(CONTEXTS, is_id("c"))
    storage.touch({"a": (NOON, 2)})
    put(storage, "a", "alpha", "beta")
    put(storage, "a", "beta", "gamma", changed=True)
    with storage.transaction():
        storage.insert("context_aliases", [{"alias": "b2", "context_id": "b", "created_at": NOON}])
        with pytest.raises(al.StorageError), storage.transaction():
            storage.insert("context_aliases", [{"alias": "b3", "context_id": "b", "created_at": NOON}])
            storage.insert(CONTEXTS, [context("a")])
    with pytest.raises(ZeroDivisionError), storage.transaction():
        storage.insert("usage_ledger", [{"at": NOON, "model": "m", "operation": "chat"}])
        raise ZeroDivisionError


def test_a_transaction_taken_back_lets_others_write_and_repeated_lands_as_if_never_interrupted(
    place: Callable[[str], str],
) -> None:
    plain = open_storage(place("plain.db"))
    with plain.transaction():
        every_kind_of_write(plain)
    plain.close()
    path = place("interrupted.db")
    storage, other = open_storage(path), open_storage(path, deadline_seconds=1)
    with storage.transaction() as unit:
        every_kind_of_write(storage)
        unit.undo()
        assert not storage.in_transaction
        assert (storage.count(CONTEXTS), other.count(CONTEXTS)) == (0, 0)
        other.insert(
            "agent_decisions", [{"id": "d", "at": NOON, "decision_type": "x", "candidates": {}, "metadata": {}}]
        )
        unit.redo()
        assert storage.in_transaction
        assert (storage.count(CONTEXTS), other.count(CONTEXTS)) == (2, 0)
        assert storage.count("agent_decisions") == 1
    storage.close()
    other.close()
    assert snapshot(path) == snapshot(place("plain.db"))


def test_writes_after_a_repetition_belong_to_the_transaction_and_can_be_repeated_too(
    place: Callable[[str], str],
) -> None:
    storage = open_storage(place("lab.db"))
    with storage.transaction() as unit:
        insert(storage, context("a"))
        unit.undo()
        unit.redo()
        insert(storage, context("b"))
        unit.undo()
        unit.redo()
        assert ids(storage) == {"a", "b"}
    assert ids(storage) == {"a", "b"}
    with pytest.raises(_Undone), storage.transaction() as unit:
        insert(storage, context("c"))
        unit.undo()
        unit.redo()
        raise _Undone
    assert ids(storage) == {"a", "b"}
    storage.close()


def test_a_transaction_that_fails_while_it_is_taken_back_leaves_nothing(storage: Storage) -> None:
    with pytest.raises(_Undone), storage.transaction() as unit:
        insert(storage, context("a"))
        unit.undo()
        insert(storage, context("meanwhile"))  # its own transaction
        raise _Undone
    assert ids(storage) == {"meanwhile"}


def test_a_repetition_that_meets_another_writers_rows_fails_and_leaves_nothing(place: Callable[[str], str]) -> None:
    path = place("lab.db")
    storage, other = open_storage(path), open_storage(path)
    with pytest.raises(al.StorageError, match=r"(?i)unique"), storage.transaction() as unit:
        insert(storage, context("first"), context("taken"))
        unit.undo()
        insert(other, context("taken"))
        unit.redo()
    assert ids(storage) == {"taken"}
    insert(storage, context("after"))
    assert ids(other) == {"taken", "after"}
    storage.close()
    other.close()


@pytest.mark.only_sqlite
def test_health_tells_the_state_of_the_file_without_changing_it(storage: Storage) -> None:
    insert(storage, context("a"))
    before = Path(storage.path).read_bytes()
    health = storage.health()
    assert health["path"] == storage.path
    assert health["journal_mode"] == "wal"
    assert health["sqlite_version"] == sqlite3.sqlite_version
    assert (health["vector_engine"], health["read_only"]) == ("exact", False)
    assert health["file_bytes"] > 0
    assert Path(storage.path).read_bytes() == before
    json.dumps(health)
