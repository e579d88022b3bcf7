"""Two models side by side: on the same prompts where there are some, with intervals and a verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..frames import frame
from ..ledger import COST, groups
from ..statistics import (
    bootstrap_mean_interval,
    difference_interval,
    paired_bootstrap_interval,
    wilson_interval,
)
from ..validation import is_missing
from .grouping import Grouped, numbers

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

COMPARISON_COLUMNS = {
    "measure": "str",
    "paired": "bool",
    "n_a": "int64",
    "n_b": "int64",
    "mean_a": "float64",
    "mean_b": "float64",
    "difference": "float64",
    "difference_low": "float64",
    "difference_high": "float64",
    "verdict": "str",
}
# The measures, and whether more of one is better.
MEASURES = {"success_rate": True, "quality": True, "cost_usd": False, "latency_ms": False}


def compare(
    calls: pd.DataFrame, a: str, b: str, *, prompt: str | None = "metadata.prompt_id", confidence: float = 0.95
) -> pd.DataFrame:
    """Return the differences a - b between two models, a row per measure; the columns of `Lab.compare_models`.

    `prompt` names what tells that two calls answered the same prompt: a column or a metadata key. Where at least
    two prompts were answered by both models, these alone count: repeated answers of a model to a prompt are averaged,
    and prompts are resampled (paired bootstrap). Else all calls count, and the difference has the intervals of
    both means joined.
    """
    import numpy as np

    calls = calls[calls["model"].isin([a, b])]
    prompts = None
    if prompt is not None and len(calls):
        grouped = Grouped(calls, groups(prompt, None))
        named = np.array([not is_missing(value) for value in next(iter(grouped.keys.values()))], dtype=bool)
        prompts = (grouped.codes, named)
    rows = []
    for measure, more_is_better in MEASURES.items():
        values = _measured(calls, measure)
        row = _paired(values, calls, a, b, prompts, confidence) or _unpaired(values, calls, a, b, measure, confidence)
        rows.append({"measure": measure, **row, "verdict": _verdict(row, a, b, more_is_better)})
    return frame(rows, COMPARISON_COLUMNS, attrs={"a": a, "b": b, "prompt": prompt, "confidence": confidence})


def _measured(calls: pd.DataFrame, measure: str) -> NDArray[np.float64]:
    import numpy as np

    if measure == "cost_usd":
        billed = numbers(calls, COST[0])
        return np.where(np.isnan(billed), numbers(calls, COST[1]), billed)
    return numbers(calls, {"success_rate": "success", "quality": "quality_score"}.get(measure, measure))


def _paired(
    values: NDArray[np.float64], calls: pd.DataFrame, a: str, b: str, prompts: Any, confidence: float
) -> dict[str, Any] | None:
    import numpy as np

    if prompts is None:
        return None
    codes, named = prompts
    means = []
    for model in (a, b):
        own = (calls["model"] == model).to_numpy() & ~np.isnan(values) & named[codes]
        counts = np.bincount(codes[own], minlength=len(named))
        sums = np.bincount(codes[own], weights=values[own], minlength=len(named))
        with np.errstate(invalid="ignore"):
            means.append(np.where(counts > 0, sums / counts, np.nan))
    both = ~(np.isnan(means[0]) | np.isnan(means[1]))
    if both.sum() < 2:
        return None
    first, second = means[0][both], means[1][both]
    # In order, so that the interval does not depend on the one in which the calls come.
    low, high = paired_bootstrap_interval(np.sort(first - second), confidence=confidence)
    return _row(True, len(first), len(second), first.mean(), second.mean(), low, high)


def _unpaired(
    values: NDArray[np.float64], calls: pd.DataFrame, a: str, b: str, measure: str, confidence: float
) -> dict[str, Any]:
    import numpy as np

    parts = [np.sort(values[(calls["model"] == model).to_numpy() & ~np.isnan(values)]) for model in (a, b)]
    bounds = []
    for part in parts:
        mean = part.mean() if len(part) else np.nan
        if measure == "success_rate":
            low, high = wilson_interval(part.sum(), len(part), confidence=confidence)
        else:
            low, high = bootstrap_mean_interval(part, confidence=confidence)  # type: ignore[assignment]
        bounds.append((np.asarray(mean), np.asarray(low), np.asarray(high)))
    low, high = difference_interval(*bounds)
    return _row(False, len(parts[0]), len(parts[1]), bounds[0][0], bounds[1][0], low, high)


def _row(paired: bool, n_a: int, n_b: int, mean_a: Any, mean_b: Any, low: Any, high: Any) -> dict[str, Any]:
    difference = float(mean_a) - float(mean_b)
    interval = {"difference_low": float(low), "difference_high": float(high)}
    means = {"mean_a": float(mean_a), "mean_b": float(mean_b), "difference": difference}
    return {"paired": paired, "n_a": n_a, "n_b": n_b, **means, **interval}


def _verdict(row: dict[str, Any], a: str, b: str, more_is_better: bool) -> str:
    if row["difference_low"] > 0:
        return f"{a if more_is_better else b} better"
    if row["difference_high"] < 0:
        return f"{b if more_is_better else a} better"
    return "cannot tell yet"
