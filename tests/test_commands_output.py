"""Tables in a terminal."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import click
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autom8_lab.commands.output import NARROWEST, Output, cell, cells_wide, fitted, table_lines

VALUES = st.one_of(
    st.none(),
    st.text(max_size=60),
    st.floats(),
    st.integers(-(10**12), 10**12),
    st.booleans(),
    st.lists(st.text(max_size=5)),
)
ROWS = st.lists(
    st.fixed_dictionaries(dict.fromkeys(("first", "second_column", "third"), VALUES)), min_size=1, max_size=8
)


@given(rows=ROWS, width=st.integers(NARROWEST, 120))
def test_a_table_is_never_wider_than_the_terminal(rows: list[dict[str, object]], width: int) -> None:
    lines = [click.unstyle(line) for line in table_lines(rows, list(rows[0]), width=width)]
    table = [line for line in lines if not line.startswith("(no room for")]
    assert len(table) == len(rows) + 1
    assert all(cells_wide(line) <= width for line in table)
    assert all(line.isprintable() for line in table)


@given(rows=ROWS)
def test_in_a_pipe_nothing_is_cut(rows: list[dict[str, object]]) -> None:
    lines = table_lines(rows, list(rows[0]), width=None)
    for line, row in zip(lines[1:], rows, strict=True):
        for value in row.values():
            assert not isinstance(value, str) or cell(value) in line


def test_flags_of_a_frame_are_words(capsys: pytest.CaptureFixture[str]) -> None:
    Output("table").frame(pd.DataFrame({"call": [1, 2, 3], "success": pd.array([True, False, None], dtype="boolean")}))
    assert [line.split() for line in capsys.readouterr().out.splitlines()[1:]] == [["1", "yes"], ["2", "no"], ["3"]]


@given(text=st.text(max_size=40), width=st.integers(1, 30))
def test_a_cell_has_exactly_its_width(text: str, width: int) -> None:
    assert cells_wide(fitted(cell(text), width)) == width


def test_wide_characters_count_as_two() -> None:
    assert cells_wide("日本") == 4
    assert fitted("日本語", 5) == "日本…"
    assert fitted("日本語", 4) == "日… "
    assert cells_wide("e\u0301") == 1


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (float("nan"), ""),
        (pd.NA, ""),
        (pd.NaT, ""),
        (True, "yes"),
        (False, "no"),
        (0, "0"),
        (1_234_567, "1,234,567"),
        (float("inf"), "inf"),
        (0.5, "0.500"),
        (12.3456, "12.35"),
        (-0.00000001, "-0.000000"),
        (datetime(2026, 5, 1, 10, 30, 59, tzinfo=UTC), "2026-05-01 10:30"),
        (("a", "b"), "a, b"),
        ({}, ""),
        ({"a": [1, "ü"]}, '{"a": [1, "ü"]}'),
        ("a\n\tb  c\x1b[31m", "a b c [31m"),
    ],
)
def test_a_value_is_one_line(value: object, shown: str) -> None:
    assert cell(value) == shown


@pytest.mark.parametrize(
    ("name", "numbers", "shown"),
    [
        ("success_rate", [0.976, 1.0, 0.84], ["0.976", "1.000", "0.840"]),
        ("cost_usd", [2.13, 0.000382], ["2.130000", "0.000382"]),
        ("cost_usd", [152.5, 0.0004], ["152.5000", "0.0004"]),
        ("cost_usd", [12_000.5, 3.25], ["12,000.50", "3.25"]),
        ("p50_ms", [1617.7, 932.3], ["1,618", "932"]),
        ("calls", [1200, 3], ["1,200", "3"]),
        ("calls", [1200, None], ["1,200", ""]),
    ],
)
def test_the_numbers_of_a_column_have_the_same_decimals(name: str, numbers: list[float], shown: list[str]) -> None:
    lines = table_lines([{name: number} for number in numbers], [name], width=None)
    assert [line.strip() for line in lines[1:]] == shown
    assert len({len(line) for line in lines[1:] if line}) == 1, "they stand right-aligned"


def test_what_has_no_room_is_named() -> None:
    row = dict.fromkeys(["a", "b", "c", "d", "e"], "a long text here")
    lines = table_lines([row], list(row), width=20)
    assert lines[-1] == "(no room for c, d, e: use a wider terminal, --csv or --json)"


def test_json_and_csv_hold_everything(capsys: pytest.CaptureFixture[str]) -> None:
    frame = pd.DataFrame(
        {
            "at": pd.to_datetime(["2026-05-01T10:00:00.123456Z"]),
            "n": [0.1 + 0.2],
            "o": [{"a": 1}],
            "t": ["ü\n"],
            "x": [None],
        }
    )
    Output("json").frame(frame, columns=["n"])
    printed = json.loads(capsys.readouterr().out)
    assert printed == [{"at": "2026-05-01T10:00:00.123456+00:00", "n": 0.1 + 0.2, "o": {"a": 1}, "t": "ü\n", "x": None}]
    Output("csv").frame(frame)
    assert (
        capsys.readouterr().out
        == "at,n,o,t,x\n2026-05-01 10:00:00.123456+00:00,0.30000000000000004,{'a': 1},\"ü\n\",\n"
    )
    Output("json").record({"at": datetime(2026, 5, 1, tzinfo=UTC), "list": ["a"], "none": None})
    assert json.loads(capsys.readouterr().out) == {"at": "2026-05-01T00:00:00+00:00", "list": ["a"], "none": None}
    Output("csv").record({"a": 1, "b": ["x"]})
    assert capsys.readouterr().out == "a,b\n1,['x']\n"


def test_a_record_shows_each_item_of_a_list_on_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    Output("table").record({"problems": ["one", "two"], "ok": False, "nothing": []})
    assert click.unstyle(capsys.readouterr().out) == "problems  one\n          two\nok        no\nnothing\n"
