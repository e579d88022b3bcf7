"""How well models do: success, quality, cost per success and latency, with intervals, and what has changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..frames import column_frame
from ..ledger import COST, groups
from ..statistics import (
    bootstrap_mean_interval,
    difference_interval,
    mean_interval,
    quantiles_with_intervals,
    wilson_interval,
)
from ..validation import is_missing
from .grouping import Grouped, frame_dtypes, numbers, ordered

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Columns = dict[str, NDArray[np.float64]]

CHANGES = ("success_rate", "quality", "cost_per_call")
PERFORMANCE_COLUMNS = {
    "calls": "int64",
    "success_rate": "float64",
    "success_low": "float64",
    "success_high": "float64",
    "quality_n": "int64",
    "quality_mean": "float64",
    "quality_low": "float64",
    "quality_high": "float64",
    "cost_per_call_usd": "float64",
    "cost_per_success_usd": "float64",
    "unpriced_calls": "int64",
    "latency_p50_ms": "float64",
    "latency_p95_ms": "float64",
    "calls_before": "int64",
    **{
        f"{name}_{figure}{'_usd' if name == 'cost_per_call' else ''}": "float64"
        for name in CHANGES
        for figure in ("change", "change_low", "change_high")
    },
}


def model_performance(
    calls: pd.DataFrame,
    *,
    by: str | Sequence[str] = "model",
    freq: str | None = None,
    before: pd.DataFrame | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Return how well each group did, and with `before` (the calls of an earlier time) how that has changed.

    The columns are those of `Lab.model_performance_df`. Intervals: Wilson for the success rate, bootstrap for
    the mean quality, Student's t for the cost per call; of a change, those of both times joined (see
    `statistics.difference_interval`). NaN where a group has too few calls to tell.
    """
    import numpy as np

    by_groups = groups(by, freq)
    if before is not None and any(group.freq for group in by_groups):
        before = None  # a period's predecessor is the row above it
    grouped = Grouped(calls, by_groups)
    now = _figures(grouped, confidence)
    earlier = {name: np.full(grouped.count, np.nan) for name in now}
    if before is not None and len(before):
        former = Grouped(before, by_groups)
        places = _places(grouped, former)
        figures = _figures(former, confidence)
        earlier = {name: np.where(places >= 0, figures[name][places], np.nan) for name in now}
    columns = {**grouped.keys, **now, **_changes(now, earlier), "calls_before": np.nan_to_num(earlier["calls"])}
    return ordered(column_frame(columns, frame_dtypes(by_groups, PERFORMANCE_COLUMNS)), by_groups)


def _figures(grouped: Grouped, confidence: float) -> Columns:
    import numpy as np

    calls, count = grouped.calls, grouped.count
    success, cost = numbers(calls, "success"), numbers(calls, COST[0])
    cost = np.where(np.isnan(cost), numbers(calls, COST[1]), cost)

    def sums(values: NDArray[np.float64]) -> Any:
        known = ~np.isnan(values)
        return np.bincount(grouped.codes[known], weights=values[known], minlength=count)

    known, priced = sums(np.where(np.isnan(success), np.nan, 1.0)), sums(np.where(np.isnan(cost), np.nan, 1.0))
    total = sums(np.ones(len(calls)))
    low, high = wilson_interval(sums(success), known, confidence=confidence)
    found = {"calls": total, "success_low": low, "success_high": high, "unpriced_calls": total - priced}
    with np.errstate(invalid="ignore", divide="ignore"):
        found["success_rate"] = np.where(known > 0, sums(success) / known, np.nan)
        found["cost_per_call_usd"] = np.where(priced > 0, sums(cost) / priced, np.nan)
        # Over the calls whose cost is known: what the failures cost is paid for by the successes.
        successes = sums(np.where(np.isnan(cost), np.nan, success))
        found["cost_per_success_usd"] = np.where(successes > 0, sums(cost) / successes, np.nan)
    names = ("quality_n", "quality_mean", "quality_low", "quality_high")
    found |= dict(zip(names, _means(grouped.parts(numbers(calls, "quality_score")), confidence, True), strict=True))
    names = ("cost_n", "cost_mean", "cost_low", "cost_high")
    found |= dict(zip(names, _means(grouped.parts(cost), confidence, False), strict=True))
    quantiles = [
        quantiles_with_intervals(part, [0.5, 0.95], confidence=confidence, assume_sorted=True).estimate
        for part in grouped.parts(numbers(calls, "latency_ms"))
    ]
    table = np.array(quantiles).reshape(-1, 2)
    return {**found, "latency_p50_ms": table[:, 0], "latency_p95_ms": table[:, 1]}


def _means(parts: Sequence[NDArray[np.float64]], confidence: float, bootstrap: bool) -> NDArray[np.float64]:
    """Return n, mean, low and high of each part as four rows."""
    import numpy as np

    interval = bootstrap_mean_interval if bootstrap else mean_interval
    rows = [(len(part), part.mean() if len(part) else np.nan, *interval(part, confidence=confidence)) for part in parts]
    return np.array(rows, dtype=np.float64).reshape(-1, 4).T


def _places(now: Grouped, former: Grouped) -> NDArray[np.int64]:
    """Return for each group its place among the former ones, or -1."""
    import numpy as np

    if not now.keys:
        return np.zeros(now.count, dtype=np.int64)
    places = {_name(row): place for place, row in enumerate(zip(*former.keys.values(), strict=True))}
    return np.array([places.get(_name(row), -1) for row in zip(*now.keys.values(), strict=True)], dtype=np.int64)


def _name(row: tuple[Any, ...]) -> tuple[str | None, ...]:
    return tuple(None if is_missing(value) else str(value) for value in row)


def _changes(now: Columns, earlier: Columns) -> Columns:
    changes: Columns = {}
    sources = {
        "success_rate": ("success_rate", "success_low", "success_high", ""),
        "quality": ("quality_mean", "quality_low", "quality_high", ""),
        "cost_per_call": ("cost_mean", "cost_low", "cost_high", "_usd"),
    }
    for name, (mean, low, high, unit) in sources.items():
        after, before = ((figures[mean], figures[low], figures[high]) for figures in (now, earlier))
        changes[f"{name}_change{unit}"] = now[mean] - earlier[mean]
        changes[f"{name}_change_low{unit}"], changes[f"{name}_change_high{unit}"] = difference_interval(after, before)
    return changes
