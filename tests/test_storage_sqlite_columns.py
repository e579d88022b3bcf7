"""Columns into the file and out of it, sums by group, and the stamp that changes with every commit."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlite_utils.utils import sqlite3

from autom8_lab.config import LabConfig
from autom8_lab.errors import InvalidValue, LabClosed, StorageError
from autom8_lab.records import Condition, Group, Measure
from autom8_lab.storage import Storage, open_storage
from autom8_lab.storage.base import Coded
from autom8_lab.storage.sqlite_columns import FETCH_ROWS, FEW_VALUES

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)  # a Sunday
TABLE = "usage_ledger"
UNIQUE = ("source", "source_id")


BOTH_BACKENDS = True


@pytest.fixture
def storage(place: Callable[[str], str]) -> Iterator[Storage]:
    opened = open_storage(LabConfig.load(db_path=place("lab.db"), synchronous="OFF"))
    yield opened
    opened.close()


def dense(*found: tuple[list[int], list[bool]]) -> list[tuple[list[int], list[bool]]]:
    """Number keys without gaps: a server's may have some."""
    place = {key: number for number, key in enumerate(sorted({key for keys, _ in found for key in keys}), 1)}
    return [([place[key] for key in keys], new) for keys, new in found]


def call_columns(count: int, **given: Any) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "at": np.array([NOON.replace(tzinfo=None)] * count, dtype="datetime64[us]"),
        "model": ["m"] * count,
        "operation": ["chat"] * count,
        "source": [None] * count,
        "source_id": [None] * count,
    }
    return {**columns, **given}


def texts(column: Any) -> list[str | None]:
    return [None if code < 0 else column.values[code] for code in column.codes]


def test_appended_columns_come_back_as_rows(storage: Storage) -> None:
    columns = call_columns(
        2,
        input_tokens=np.array([5, np.nan]),
        latency_ms=[1.5, None],
        success=np.array([True, False]),
        metadata=[{"team": "ü"}, {}],
    )
    assert storage.append(TABLE, columns, unique=UNIQUE) == ([1, 2], [True, True])
    names = ["usage_key", "at", "input_tokens", "latency_ms", "success", "metadata", "cost_actual_usd"]
    assert storage.rows(TABLE, columns=names) == [
        dict(zip(names, (1, NOON, 5, 1.5, True, {"team": "ü"}, None), strict=True)),
        dict(zip(names, (2, NOON, None, None, False, {}, None), strict=True)),
    ]


def test_times_without_a_value_and_numbers_of_every_kind_are_stored(storage: Storage) -> None:
    at = np.array(["2026-03-01T12:00:00.000001", "NaT"], dtype="datetime64[us]")
    columns = {"id": ["a", "b"], "at": [NOON, NOON], "decision_type": ["x", "x"], "outcome_at": at}
    columns |= {"success": np.array([1.0, np.nan]), "source": [None, None], "source_id": [None, None]}
    storage.append("agent_decisions", columns, unique=UNIQUE)
    rows = storage.rows("agent_decisions", columns=["outcome_at", "success"])
    assert rows == [
        {"outcome_at": NOON + timedelta(microseconds=1), "success": True},
        {"outcome_at": None, "success": None},
    ]


def test_a_row_that_is_there_already_keeps_its_key_and_its_values(storage: Storage) -> None:
    first = call_columns(2, source=["s", "s"], source_id=["1", "2"], latency_ms=[1.0, 2.0])
    before = storage.append(TABLE, first, unique=UNIQUE)
    assert before == ([1, 2], [True, True])
    again = call_columns(
        5, source=["s", None, "s", "s", "t"], source_id=["2", None, "3", "3", "2"], latency_ms=[9.0] * 5
    )
    after = storage.append(TABLE, again, unique=UNIQUE)
    assert dense(before, after)[1] == ([2, 3, 4, 4, 5], [False, True, True, False, True])
    assert [row["latency_ms"] for row in storage.rows(TABLE, order_by=["usage_key"])] == [1.0, 2.0, 9.0, 9.0, 9.0]


def test_ids_with_quotes_brackets_and_accents_are_found_again(storage: Storage) -> None:
    ids = ['"', "[1]", "é", "\\", "a'b", "1"]
    columns = call_columns(len(ids), source=["s"] * len(ids), source_id=ids)
    keys, _ = storage.append(TABLE, columns, unique=UNIQUE)
    assert storage.append(TABLE, columns, unique=UNIQUE) == (keys, [False] * len(ids))


def test_what_the_schema_refuses_lands_not_at_all(storage: Storage) -> None:
    with pytest.raises(StorageError, match=r"(?i)not.null"):
        storage.append(TABLE, call_columns(2, model=["m", None]), unique=UNIQUE)
    with pytest.raises(InvalidValue, match="did you mean 'latency_ms'"):
        storage.append(TABLE, call_columns(1, latency=[1.0]), unique=UNIQUE)
    assert storage.count(TABLE) == 0


def test_an_append_is_repeated_with_the_transaction_it_is_part_of(storage: Storage) -> None:
    with storage.transaction() as unit:
        storage.append(TABLE, call_columns(1), unique=UNIQUE)
        unit.undo()
        unit.redo()
    assert storage.count(TABLE) == 1


def test_many_rows_are_changed_each_by_its_key(storage: Storage) -> None:
    storage.append(TABLE, call_columns(3), unique=UNIQUE)
    changes = {"usage_key": np.array([3, 1]), "latency_ms": np.array([30.0, 10.0]), "provider": ["c", None]}
    assert storage.update_each(TABLE, changes, key="usage_key") == 2
    rows = storage.rows(TABLE, columns=["latency_ms", "provider"], order_by=["usage_key"])
    assert [(row["latency_ms"], row["provider"]) for row in rows] == [(10.0, None), (None, None), (30.0, "c")]


def test_columns_come_back_in_their_kinds(storage: Storage) -> None:
    columns = call_columns(3, model=["b", "a", "b"], latency_ms=[1.0, None, 3.0], success=[True, None, False])
    columns |= {"provider": ["p", None, "q"], "metadata": [{"k": "x"}, {"k": None}, {"k": [1, 2]}]}
    storage.append(TABLE, columns, unique=UNIQUE)
    names = ["usage_key", "at", "model", "provider", "latency_ms", "success", "metadata"]
    found = storage.columns(TABLE, names, keys=[Group("metadata", key="k")], order_by=["usage_key"])
    assert list(found) == [*names, "metadata.k"]
    assert found["usage_key"].tolist() == [1, 2, 3]
    assert found["at"].dtype == "datetime64[us]"
    assert found["at"].tolist() == [NOON.replace(tzinfo=None)] * 3
    assert (texts(found["model"]), texts(found["provider"])) == (["b", "a", "b"], ["p", None, "q"])
    np.testing.assert_array_equal(found["latency_ms"], [1.0, np.nan, 3.0])
    np.testing.assert_array_equal(found["success"], [1.0, np.nan, 0.0])
    assert [json.loads(text) for text in found["metadata"]] == columns["metadata"]
    assert texts(found["metadata.k"]) == ["x", None, "[1,2]"]


def test_columns_of_numbers_alone_come_back_as_they_do_among_others(storage: Storage) -> None:
    count = 2 * FETCH_ROWS + 7
    draw = np.random.default_rng(0)
    latency = np.where(draw.random(count) < 0.2, np.nan, draw.random(count))
    models = [f"m{number}" for number in draw.integers(0, 5, count)]
    storage.append(TABLE, call_columns(count, model=models, latency_ms=latency), unique=UNIQUE)
    quick = storage.columns(TABLE, ["model", "latency_ms"], order_by=["usage_key"])
    mixed = storage.columns(TABLE, ["model", "latency_ms", "operation"], order_by=["usage_key"])
    for found in (quick, mixed):
        np.testing.assert_array_equal(found["latency_ms"], latency)
        assert texts(found["model"]) == models


@pytest.mark.parametrize("count", [1, FEW_VALUES, FEW_VALUES + 1, 3 * FEW_VALUES])
def test_a_text_is_read_rightly_whether_its_values_are_few_or_many(storage: Storage, count: int) -> None:
    models = [f"m{number}" for number in range(count)]
    storage.append(TABLE, call_columns(count, model=models), unique=UNIQUE)
    found = storage.columns(TABLE, ["model"], order_by=["-usage_key"], where=[Condition("usage_key", ">", 0)])
    assert texts(found["model"]) == models[::-1]


def test_columns_of_no_rows_keep_their_kinds(storage: Storage) -> None:
    found = storage.columns(TABLE, ["at", "model", "provider", "latency_ms", "metadata"])
    assert [len(column.codes if isinstance(column, Coded) else column) for column in found.values()] == [0] * 5
    assert found["at"].dtype == "datetime64[us]"
    assert found["latency_ms"].dtype == np.float64


def test_a_limit_takes_the_first_in_order(storage: Storage) -> None:
    storage.append(TABLE, call_columns(5, latency_ms=[3.0, 1.0, 2.0, 5.0, 4.0]), unique=UNIQUE)
    found = storage.columns(TABLE, ["latency_ms"], order_by=["-latency_ms"], limit=2)
    assert found["latency_ms"].tolist() == [5.0, 4.0]


def test_a_time_that_another_program_wrote_differently_is_read_all_the_same(tmp_path: Path) -> None:
    storage = open_storage(LabConfig.load(db_path=str(tmp_path / "lab.db")))
    storage.append(TABLE, call_columns(1), unique=UNIQUE)
    with storage.transaction():
        storage.update(TABLE, [], {"at": "2026-03-01T14:00:00+02:00"})
    assert storage.columns(TABLE, ["at"])["at"].tolist() == [NOON.replace(tzinfo=None)]
    storage.close()


def test_sums_by_group_leave_out_what_is_missing(storage: Storage) -> None:
    columns = call_columns(4, model=["b", "a", "b", "b"], provider=["p", None, "p", None])
    columns |= {"cost_actual_usd": [None, None, 2.0, None], "cost_estimated_usd": [1.0, None, 9.0, 4.0]}
    storage.append(TABLE, columns, unique=UNIQUE)
    cost = ("cost_actual_usd", "cost_estimated_usd")
    measures = [
        Measure("calls", "count"),
        Measure("cost", "sum", cost),
        Measure("priced", "count", cost),
        Measure("estimate", "sum", ("cost_estimated_usd",), given="cost_actual_usd"),
        Measure("first", "min", ("at",)),
    ]
    assert storage.aggregate(TABLE, by=[Group("model"), Group("provider")], measures=measures) == {
        "model": ["a", "b", "b"],
        "provider": [None, None, "p"],
        "calls": [1, 1, 2],
        "cost": [None, 4.0, 3.0],
        "priced": [0, 1, 2],
        "estimate": [None, None, 9.0],
        "first": [NOON] * 3,
    }
    assert storage.aggregate(TABLE, by=[], measures=measures[:1]) == {"calls": [4]}
    nothing = [Condition("model", "=", "c")]
    assert storage.aggregate(TABLE, by=[], measures=measures[:1], where=nothing) == {"calls": []}
    assert storage.aggregate(TABLE, by=[Group("model")], measures=[], where=nothing) == {"model": []}


@pytest.mark.parametrize(
    ("freq", "period"),
    [
        ("h", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("D", datetime(2026, 3, 1, tzinfo=UTC)),
        ("W", datetime(2026, 2, 23, tzinfo=UTC)),
        ("M", datetime(2026, 3, 1, tzinfo=UTC)),
    ],
)
def test_a_period_begins_at_its_first_instant(storage: Storage, freq: Any, period: datetime) -> None:
    at = np.array([(NOON + timedelta(minutes=59)).replace(tzinfo=None)], dtype="datetime64[us]")
    storage.append(TABLE, call_columns(1, at=at), unique=UNIQUE)
    found = storage.aggregate(TABLE, by=[Group("at", freq=freq)], measures=[Measure("calls", "count")])
    assert found == {"period": [period], "calls": [1]}


def test_a_monday_begins_its_own_week(storage: Storage) -> None:
    days = np.datetime64("2025-12-29", "us") + np.arange(15) * np.timedelta64(1, "D").astype("m8[us]")
    storage.append(TABLE, call_columns(15, at=days), unique=UNIQUE)
    found = storage.aggregate(TABLE, by=[Group("at", freq="W")], measures=[Measure("calls", "count")])
    assert [(f"{day:%Y-%m-%d}", count) for day, count in zip(*found.values(), strict=True)] == [
        ("2025-12-29", 7),
        ("2026-01-05", 7),
        ("2026-01-12", 1),
    ]


@pytest.mark.parametrize("key", ["team", "a b", "a.b", "$", "[0]", "é", 'quo"te', "back\\slash", ""])
def test_every_key_of_a_document_can_be_a_group(storage: Storage, key: str) -> None:
    values = ["core", None, True, 3, 0.5, [1, "x"], "core"]
    documents: list[dict[str, Any]] = [{key: value, "other": 1} for value in values] + [{}]
    storage.append(TABLE, call_columns(len(documents), metadata=documents), unique=UNIQUE)
    group = Group("metadata", key=key)
    found = storage.aggregate(TABLE, by=[group], measures=[Measure("calls", "count")])
    counted = dict(zip(found[group.label], found["calls"], strict=True))
    assert counted == {None: 2, "0.5": 1, "3": 1, '[1,"x"]': 1, "core": 2, "true": 1}
    column = storage.columns(TABLE, ["usage_key"], keys=[group], order_by=["usage_key"])[group.label]
    assert texts(column) == ["core", None, "true", "3", "0.5", '[1,"x"]', "core", None]


def test_unknown_columns_are_refused_by_name(storage: Storage) -> None:
    with pytest.raises(InvalidValue, match="did you mean 'model'"):
        storage.aggregate(TABLE, by=[Group("modle")], measures=[])
    with pytest.raises(InvalidValue, match="did you mean 'latency_ms'"):
        storage.aggregate(TABLE, by=[], measures=[Measure("x", "sum", ("latency",))])
    with pytest.raises(InvalidValue, match="did you mean 'success'"):
        storage.aggregate(TABLE, by=[], measures=[Measure("x", "count", given="sucess")])
    with pytest.raises(InvalidValue, match="did you mean 'metadata'"):
        storage.columns(TABLE, ["metadat"])


def test_the_stamp_changes_with_a_commit_and_with_nothing_else(storage: Storage) -> None:
    before = storage.stamp()
    storage.rows(TABLE)
    assert storage.stamp() == before
    storage.append(TABLE, call_columns(1), unique=UNIQUE)
    after = storage.stamp()
    assert after != before
    assert storage.stamp() == after
    with storage.transaction():
        assert storage.stamp() is None


def test_the_stamp_sees_what_another_connection_and_another_thread_write(tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    storage = open_storage(LabConfig.load(db_path=str(path)))
    stamps = [storage.stamp()]
    thread = threading.Thread(target=lambda: storage.append(TABLE, call_columns(1), unique=UNIQUE))
    thread.start()
    thread.join()
    stamps.append(storage.stamp())
    other = sqlite3.connect(path)
    other.execute("UPDATE usage_ledger SET model = 'other'")
    other.commit()
    other.close()
    stamps.append(storage.stamp())
    assert len(set(stamps)) == 3
    storage.close()
    with pytest.raises(LabClosed):
        storage.stamp()
