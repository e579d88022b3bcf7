"""Entries: what a call may say, one by one and as a batch, with the same words about what is wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autom8_lab.entries import TOKENS, USAGE, UsageBatch, decision_entry, usage_entry
from autom8_lab.errors import InvalidValue

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BAD: list[tuple[dict[str, Any], str]] = [
    ({"input_tokens": -1}, "input_tokens=-1: give a whole number of at least 0"),
    ({"output_tokens": 1.5}, r"output_tokens=1\.5"),
    ({"cache_read_tokens": 2**31}, "cache_read_tokens=2147483648"),
    ({"reasoning_tokens": True}, "reasoning_tokens=True"),
    ({"input_tokens": "5"}, "input_tokens='5'"),
    ({"input_tokens": 10**400}, "input_tokens=1000"),
    ({"input_tokens": float("nan")}, "input_tokens=nan"),
    ({"cost_actual_usd": float("nan")}, "cost_actual_usd=nan: give a finite number of at least 0"),
    ({"cost_actual_usd": -0.01}, r"cost_actual_usd=-0\.01"),
    ({"cost_actual_usd": float("inf")}, "cost_actual_usd=inf"),
    ({"quality_score": 1.2}, r"quality_score=1\.2: give a number from 0 to 1"),
    ({"quality_score": -0.1}, r"quality_score=-0\.1"),
    ({"latency_ms": -1}, "latency_ms=-1"),
    ({"latency_ms": False}, "latency_ms=False"),
    ({"ttft_ms": "fast"}, "ttft_ms='fast'"),
    ({"at": datetime(2026, 1, 1)}, "at=2026-01-01T00:00:00 has no time zone"),
    ({"at": "yesterday"}, "at='yesterday'"),
    ({"at": 5}, "at=5"),
    ({"modle": "m"}, "unknown field 'modle'; did you mean 'model'"),
    ({"tokens_in": 1}, "unknown field 'tokens_in'"),
    ({"model": ""}, "model='' is empty"),
    ({"model": None}, "model is missing"),
    ({"model": ["m"]}, r"model=\['m'\] is a list"),
    ({"provider": " openai"}, "provider=' openai'"),
    ({"operation": 5}, "operation=5 is a int"),
    ({"success": "yes"}, "success='yes'"),
    ({"success": 2}, "success=2"),
    ({"metadata": "text"}, "metadata='text'"),
    ({"metadata": {"x": float("nan")}}, r"metadata\['x'\]=nan"),
    ({"source_id": "1"}, "source_id='1' has no source"),
    (
        {"input_tokens": 5, "cache_read_tokens": 4, "cache_write_tokens": 2},
        r"cache_read_tokens \+ cache_write_tokens=6 is more than inp",
    ),
    ({"output_tokens": 5, "reasoning_tokens": 6}, "reasoning_tokens=6 is more than output_tokens=5"),
]


def batch(rows: Any) -> UsageBatch:
    return UsageBatch(rows, now=NOW, agent="me", first_row=0)


def entry_of(columns: dict[str, Any], place: int) -> dict[str, Any]:
    """A row of a batch as `usage_entry` would return it."""
    row = {}
    for name, column in columns.items():
        value = column[place].item() if isinstance(column, np.ndarray) else column[place]
        if value is None or value != value:
            continue
        if name == "success":
            value = bool(value)
        row[name] = value.replace(tzinfo=UTC) if name == "at" else value
    return row


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_a_bad_value_is_named_with_its_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        usage_entry({"model": "m", **fields}, now=NOW, agent=None)


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_in_a_batch_the_row_is_named_too(fields: dict[str, Any], message: str) -> None:
    good = {"model": "m"}
    with pytest.raises(InvalidValue, match=f"row 12: {message}"):
        UsageBatch([good, good, {**good, **fields}, good], now=NOW, agent=None, first_row=10)


def test_what_is_not_said_has_a_default() -> None:
    assert usage_entry({"model": "m"}, now=NOW, agent="me") == {
        "at": NOW,
        "operation": "chat",
        "metadata": {},
        "model": "m",
        "agent": "me",
        "success": True,
    }
    assert usage_entry({"model": "m", "error_type": "Timeout"}, now=NOW, agent=None)["success"] is False
    assert usage_entry({"model": "m", "operation": "embeddings"}, now=NOW, agent=None)["output_tokens"] == 0
    assert "output_tokens" not in usage_entry({"model": "m"}, now=NOW, agent=None)


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "at": st.sampled_from([NOW, datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2))), "2026-01-01", "noon"]),
    "provider": st.sampled_from(["openai", "", " x"]),
    "model": st.sampled_from(["m", "n", "\0", "a\nb", "ü"]),
    "operation": st.sampled_from(["chat", "embeddings", 5]),
    "agent": st.sampled_from(["a", "x" * 256]),
    "error_type": st.just("Timeout"),
    "decision_id": st.just("d"),
    "source": st.just("s"),
    "source_id": st.text(max_size=3),
    **dict.fromkeys(TOKENS, st.one_of(st.integers(-2, 20), st.floats(0, 20), st.sampled_from([2**31, np.int64(3)]))),
    **dict.fromkeys(
        ("latency_ms", "ttft_ms", "cost_actual_usd"),
        st.one_of(st.floats(), st.integers(-1, 9), st.sampled_from([np.float32(0.5), Decimal("0.5"), "1"])),
    ),
    "quality_score": st.floats(-0.1, 1.1),
    "success": st.sampled_from([True, False, 0, 1, 1.0, np.True_, "yes"]),
    "metadata": st.dictionaries(st.sampled_from(["a", "b"]), st.one_of(st.integers(), st.floats(), st.none())),
}


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.fixed_dictionaries({}, optional={k: st.none() | v for k, v in VALUES.items()}), min_size=1, max_size=4)
)
def test_a_batch_says_of_its_rows_what_one_by_one_says(rows: list[dict[str, Any]]) -> None:
    rows = [{"model": "m", **row} for row in rows]
    singles, problems = [], []
    for row in rows:
        try:
            singles.append(usage_entry(row, now=NOW, agent="me"))
        except InvalidValue as exc:
            problems.append(str(exc))
    if problems:
        with pytest.raises(InvalidValue, match=r"^row [0-3]: "):
            batch(rows)
        return
    columns = batch(rows).columns
    assert list(columns) == list(USAGE)
    assert [entry_of(columns, place) for place in range(len(rows))] == singles


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"model": st.sampled_from("ab")},
            optional={
                "input_tokens": st.integers(5, 9),
                "quality_score": st.floats(0, 1),
                "success": st.booleans(),
                "source": st.just("s"),
                "at": st.datetimes(timezones=st.just(UTC)),
                "metadata": st.just({"k": 1}),
            },
        ),
        max_size=4,
    )
)
def test_a_frame_says_what_a_list_says_and_its_empty_cells_mean_nothing(rows: list[dict[str, Any]]) -> None:
    frame = pd.DataFrame(rows, columns=sorted({name for row in rows for name in row}))
    ours, theirs = batch(frame).columns, batch(rows).columns
    assert [entry_of(ours, n) for n in range(len(rows))] == [entry_of(theirs, n) for n in range(len(rows))]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"model": ["m"], "modle": ["m"]}), "did you mean 'model'"),
        (pd.DataFrame([["m", "n"]], columns=["model", "model"]), "two columns 'model'"),
        (
            pd.DataFrame({"model": ["m", "m"], "at": pd.to_datetime(["2026-01-01", "2026-01-02"])}),
            "row 0: at=.*time zone",
        ),
        (pd.DataFrame({"model": ["m", "m"], "quality_score": [0.5, 1.2]}), r"row 1: quality_score=1\.2"),
        (pd.DataFrame({"model": ["m", None]}), "row 1: model is missing"),
        (pd.DataFrame({"model": pd.Categorical(["m", " "])}), "row 1: model=' ' is empty"),
        (pd.DataFrame({"model": ["m"], "input_tokens": pd.array([-5], dtype="Int64")}), "row 0: input_tokens=-5"),
    ],
)
def test_a_frame_that_cannot_be_used_is_told_where(frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        batch(frame)


def test_a_row_must_be_a_mapping() -> None:
    with pytest.raises(InvalidValue, match="row 1: a row is 'm': give a dict"):
        batch([{"model": "m"}, "m"])
    with pytest.raises(InvalidValue, match="a row is 5"):
        usage_entry(5, now=NOW, agent=None)  # type: ignore[arg-type]


DECISION = {"decision_type": "route", "chosen": "a", "candidates": {"a": 1, "b": -0.5}}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"decision_type": None}, "decision_type is missing"),
        ({"decision_type": " "}, "decision_type=' ' is empty"),
        ({"chosen": "c"}, "chosen='c' is none of the candidates"),
        ({"candidates": ["a", "b"]}, r"candidates=\['a', 'b'\] is a list"),
        ({"candidates": {"a": float("nan")}}, r"candidates\['a'\]=nan"),
        ({"candidates": {"a": "high"}}, r"candidates\['a'\]='high'"),
        ({"candidates": {"a": True}}, r"candidates\['a'\]=True"),
        ({"candidates": {1: 0.5, "a": 1}}, "name of a candidate=1"),
        ({"propensity": 0}, "propensity=0: what was chosen had a probability above 0"),
        ({"propensity": 1.01}, r"propensity=1\.01"),
        ({"propensity": 0.5, "chosen": None}, "give chosen too"),
        ({"complexity_score": 2}, "complexity_score=2"),
        ({"at": datetime(2026, 1, 1)}, "no time zone"),
        ({"source_id": "1"}, "has no source"),
        ({"metadata": 5}, "metadata=5"),
    ],
)
def test_a_decision_that_cannot_be_used_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        decision_entry({**DECISION, **fields}, now=NOW, agent=None)


def test_a_decision_keeps_scores_as_numbers() -> None:
    entry = decision_entry({**DECISION, "propensity": 1}, now=NOW, agent="me")
    assert entry["candidates"] == {"a": 1.0, "b": -0.5}
    assert (entry["propensity"], entry["agent"], entry["at"], entry["metadata"]) == (1.0, "me", NOW, {})
