"""Frames: exactly the columns and dtypes that were promised, with and without rows and values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import pytest

from autom8_lab.frames import TIME, column_frame, frame

DTYPES = {
    "name": "str",
    "count": "int64",
    "maybe_count": "Int64",
    "score": "float64",
    "flag": "bool",
    "maybe_flag": "boolean",
    "at": TIME,
    "anything": "object",
}
FULL: dict[str, Any] = {
    "name": "text",
    "count": 1,
    "maybe_count": 2,
    "score": 0.5,
    "flag": True,
    "maybe_flag": False,
    "at": datetime(2026, 3, 1, 12, tzinfo=UTC),
    "anything": [1, "two", None],
}
MISSING = {"name", "maybe_count", "score", "maybe_flag", "at", "anything"}


def dtypes(result: pd.DataFrame) -> dict[str, str]:
    return result.dtypes.astype(str).to_dict()


def test_an_empty_frame_has_its_columns_and_dtypes() -> None:
    result = frame([], DTYPES)
    assert dtypes(result) == DTYPES
    assert list(result.columns) == list(DTYPES)
    assert len(result) == 0
    assert result.index.equals(pd.RangeIndex(0))


@pytest.mark.parametrize("rows", [[FULL], [FULL, FULL], [FULL, {**FULL, **dict.fromkeys(MISSING)}]])
def test_rows_change_no_dtype(rows: list[dict[str, Any]]) -> None:
    result = frame(rows, DTYPES)
    assert dtypes(result) == DTYPES
    assert result.index.equals(pd.RangeIndex(len(rows)))


def test_values_come_out_as_they_went_in() -> None:
    row = frame([FULL], DTYPES).iloc[0]
    assert (row["name"], row["count"], row["maybe_count"], row["score"]) == ("text", 1, 2, 0.5)
    assert bool(row["flag"]) is True
    assert bool(row["maybe_flag"]) is False
    assert row["at"] == pd.Timestamp("2026-03-01T12:00:00Z")
    assert row["anything"] == [1, "two", None]


@pytest.mark.parametrize("row", [dict.fromkeys(MISSING), {}])
def test_missing_values_and_missing_keys_are_missing_in_the_frame(row: dict[str, Any]) -> None:
    result = frame([{"count": 1, "flag": False, **row}], DTYPES)
    assert dtypes(result) == DTYPES
    assert {name for name in DTYPES if result[name].isna()[0]} == MISSING


def test_a_column_of_nothing_but_missing_values_keeps_its_dtype() -> None:
    names = {name: dtype for name, dtype in DTYPES.items() if name in MISSING}
    result = frame([{}, {}, {}], names)
    assert dtypes(result) == names
    assert result.isna().all(axis=None)


def test_keys_that_are_no_columns_are_left_out() -> None:
    assert frame([{"a": 1, "b": 2}], {"b": "int64"}).to_dict("list") == {"b": [2]}


def test_times_keep_their_microseconds_in_utc_over_all_years() -> None:
    times = [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=timezone(timedelta(hours=2))),
        None,
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    ]
    at = frame([{"at": time} for time in times], {"at": TIME})["at"]
    assert str(at.dtype) == TIME
    assert [None if pd.isna(value) else value.to_pydatetime() for value in at] == times


def test_lists_and_dicts_stay_what_they_are() -> None:
    values = [[], ("a",), {"k": [1]}, {}, None]
    result = frame([{"x": value} for value in values], {"x": "object"})
    assert result["x"].tolist()[:4] == values[:4]
    assert len(result) == 5


def test_numbers_of_numpy_are_fine() -> None:
    result = frame([{"count": np.int64(3), "score": np.float32(0.5)}], {"count": "int64", "score": "float64"})
    assert dtypes(result) == {"count": "int64", "score": "float64"}
    assert result.loc[0, "score"] == 0.5


def test_a_whole_number_that_is_missing_where_it_must_not_be_raises() -> None:
    with pytest.raises(TypeError):
        frame([{"count": None}], {"count": "int64"})


def test_attrs_tell_about_the_whole_frame() -> None:
    assert frame([], {"a": "str"}).attrs == {}
    given = {"method": "text", "degraded": None}
    result = frame([], {"a": "str"}, attrs=given)
    assert result.attrs == given
    result.attrs["method"] = "changed"
    assert given["method"] == "text"


def test_frames_of_several_calls_can_be_joined_without_losing_dtypes() -> None:
    joined = pd.concat([frame([FULL], DTYPES), frame([FULL], DTYPES)], ignore_index=True)
    assert dtypes(joined) == DTYPES


def test_columns_make_the_frame_that_their_rows_make() -> None:
    rows = [FULL, {**FULL, **dict.fromkeys(MISSING)}]
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in DTYPES}
    pd.testing.assert_frame_equal(column_frame(columns, DTYPES), frame(rows, DTYPES))
    columns["name"] = pd.Categorical.from_codes([0, -1], ["text"])
    columns["at"] = np.array(["2026-03-01T12:00", "NaT"], dtype="datetime64[us]")
    columns |= {"maybe_count": np.array([2.0, np.nan]), "maybe_flag": np.array([0.0, np.nan])}
    columns |= {"score": np.array([0.5, np.nan]), "flag": np.array([True, True]), "count": np.array([1.0, 1.0])}
    pd.testing.assert_frame_equal(column_frame(columns, DTYPES), frame(rows, DTYPES))


def test_columns_that_are_absent_or_empty_keep_their_dtypes() -> None:
    assert dtypes(column_frame({}, DTYPES)) == DTYPES
    assert dtypes(column_frame({name: [] for name in DTYPES}, DTYPES)) == DTYPES
    assert column_frame({"score": [1.0]}, {"score": "float64", "name": "str"})["name"].isna().all()
    assert column_frame({}, {"a": "str"}, attrs={"k": 1}).attrs == {"k": 1}
