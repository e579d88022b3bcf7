"""Tokens and money per group: sums, shares and running totals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..entries import TOKENS
from ..frames import column_frame
from ..ledger import COST, PRICED, groups
from ..records import Group, Measure
from .grouping import Grouped, frame_dtypes, ordered

if TYPE_CHECKING:
    import pandas as pd

PARTS = tuple(name for name in PRICED if name.endswith("_cost_usd"))
ESTIMATED, ACTUAL = "cost_estimated_usd", "cost_actual_usd"

USAGE_MEASURES = [
    Measure("calls", "count"),
    Measure("known_calls", "count", ("success",)),
    Measure("succeeded_calls", "sum", ("success",)),
    *(Measure(name, "sum", (name,)) for name in TOKENS),
    Measure("cost_usd", "sum", COST),
    Measure("priced_calls", "count", COST),
]
USAGE_COLUMNS = {
    "calls": "int64",
    "failed_calls": "int64",
    **dict.fromkeys(TOKENS, "Int64"),
    "cost_usd": "float64",
    "unpriced_calls": "int64",
}
COST_MEASURES = [
    Measure("calls", "count"),
    *(Measure(name, "sum", (name,)) for name in (*PARTS, ESTIMATED, ACTUAL)),
    Measure("cost_usd", "sum", COST),
    Measure("priced_calls", "count", COST),
    Measure("billed_calls", "count", (ACTUAL,)),
    Measure("estimate_of_billed_usd", "sum", (ESTIMATED,), given=ACTUAL),
]
COST_COLUMNS = {
    "calls": "int64",
    **dict.fromkeys(PARTS, "float64"),
    ESTIMATED: "float64",
    ACTUAL: "float64",
    "billed_calls": "int64",
    "estimate_of_billed_usd": "float64",
    "cost_usd": "float64",
    "share": "float64",
    "cumulative_usd": "float64",
    "unpriced_calls": "int64",
}


def usage(calls: pd.DataFrame, *, by: str | Sequence[str] = "model", freq: str | None = None) -> pd.DataFrame:
    """Return calls, failures, tokens by class and cost of each group; the columns of `Lab.usage_df`.

    >>> import pandas as pd
    >>> calls = pd.DataFrame({"model": ["a", "a"], "input_tokens": [10, 20], "success": [True, False]})
    >>> usage(calls)[["model", "calls", "failed_calls", "input_tokens"]].to_dict("records")
    [{'model': 'a', 'calls': 2, 'failed_calls': 1, 'input_tokens': 30}]
    """
    return usage_of_sums(_sums(calls, groups(by, freq), USAGE_MEASURES), groups(by, freq))


def cost(calls: pd.DataFrame, *, by: str | Sequence[str] = "model", freq: str | None = None) -> pd.DataFrame:
    """Return what each group cost, by token class, estimated beside actual; the columns of `Lab.cost_df`."""
    return cost_of_sums(_sums(calls, groups(by, freq), COST_MEASURES), groups(by, freq))


def _sums(calls: pd.DataFrame, by: Sequence[Group], measures: Sequence[Measure]) -> dict[str, Any]:
    grouped = Grouped(calls, by)
    return {**grouped.keys, **{measure.name: grouped.figure(measure) for measure in measures}}


def usage_of_sums(sums: Mapping[str, Any], by: Sequence[Group]) -> pd.DataFrame:
    """Return the frame of `usage` from the sums of `USAGE_MEASURES` by group."""
    frame = _frame(sums, by, USAGE_MEASURES)
    frame["failed_calls"] = frame["known_calls"] - frame["succeeded_calls"].fillna(0)
    frame["unpriced_calls"] = frame["calls"] - frame["priced_calls"]
    return _finished(ordered(frame, by), by, USAGE_COLUMNS)


def cost_of_sums(sums: Mapping[str, Any], by: Sequence[Group]) -> pd.DataFrame:
    """Return the frame of `cost` from the sums of `COST_MEASURES` by group."""
    frame = _frame(sums, by, COST_MEASURES)
    timed = any(group.freq for group in by)
    frame = ordered(frame, by, first=None if timed else {"cost_usd": False})
    frame["unpriced_calls"] = frame["calls"] - frame["priced_calls"]
    total = frame["cost_usd"].sum()
    frame["share"] = frame["cost_usd"] / (total if total > 0 else float("nan"))
    spent, others = frame["cost_usd"].fillna(0.0), [group.label for group in by if not group.freq]
    running = timed and bool(others) and len(frame) > 0
    frame["cumulative_usd"] = (
        spent.groupby([frame[name] for name in others], dropna=False).cumsum() if running else spent.cumsum()
    )
    return _finished(frame, by, COST_COLUMNS)


def _frame(sums: Mapping[str, Any], by: Sequence[Group], measures: Sequence[Measure]) -> pd.DataFrame:
    return column_frame(sums, frame_dtypes(by, {measure.name: "float64" for measure in measures}))


def _finished(frame: pd.DataFrame, by: Sequence[Group], dtypes: Mapping[str, str]) -> pd.DataFrame:
    names = frame_dtypes(by, dtypes)
    return frame[list(names)].astype(names).reset_index(drop=True)
