"""How long calls take: quantiles with distribution-free intervals, time to first token, tokens per second."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ..frames import column_frame
from ..ledger import groups
from ..records import Group, Rate
from ..statistics import QuantileIntervals, quantile_ranks, tokens_per_second
from .grouping import Grouped, frame_dtypes, numbers, ordered

if TYPE_CHECKING:
    import pandas as pd

    from ..statistics import FloatArray
    from ..storage.base import Ranked

PERCENTS = (50, 90, 95, 99)
BOUNDS = ("", "low_", "high_")
LATENCY_COLUMNS = {
    "n": "int64",
    **{f"p{percent}_{bound}ms": "float64" for percent in PERCENTS for bound in BOUNDS},
    "ttft_n": "int64",
    "ttft_p50_ms": "float64",
    "ttft_p95_ms": "float64",
    "output_tokens_per_second": "float64",
}
PROBABILITIES = {"latency_ms": [percent / 100 for percent in PERCENTS], "ttft_ms": [0.5, 0.95]}
RATE = "output_tokens_per_second"
LATENCY_VALUES: dict[str, str | Rate] = {
    "latency_ms": "latency_ms",
    "ttft_ms": "ttft_ms",
    RATE: Rate("output_tokens", apart="reasoning_tokens", duration_ms="latency_ms", waited_ms="ttft_ms"),
}


def latency(
    calls: pd.DataFrame, *, by: str | Sequence[str] = "model", freq: str | None = None, confidence: float = 0.95
) -> pd.DataFrame:
    """Return how long each group's calls took, in milliseconds; the columns of `Lab.latency_df`.

    `n` calls have a latency; a percentile that n does not support is NaN (see `quantiles_with_intervals`).
    `output_tokens_per_second` is the median of the generation's rate: where the time to first token is known,
    reasoning tokens, which come before it, do not count.
    """
    by_groups = groups(by, freq)
    grouped = Grouped(calls, by_groups)
    latency_ms, ttft_ms = numbers(calls, "latency_ms"), numbers(calls, "ttft_ms")
    values = {
        "latency_ms": latency_ms,
        "ttft_ms": ttft_ms,
        RATE: tokens_per_second(_visible_tokens(calls, ttft_ms), latency_ms, ttft_ms),
    }
    parts = {name: [Sorted(len(part), part.take) for part in grouped.parts(of)] for name, of in values.items()}
    return _frame(grouped.keys, parts, by_groups, confidence)


def latency_of_ranked(found: Ranked, by: Sequence[Group], *, confidence: float) -> pd.DataFrame:
    """Return the frame of `latency` from the values at the ranks that `latency_ranks` names."""
    import numpy as np

    def part(n: int, values: Mapping[int, float]) -> Sorted:
        return Sorted(n, np.vectorize(lambda place: values[place + 1], otypes=[np.float64]))

    parts = {name: [part(*of) for of in groups_] for name, groups_ in found.values.items()}
    return _frame(found.keys, parts, by, confidence)


def latency_ranks(name: str, n: int, *, confidence: float) -> list[int]:
    """Return which of n values of one of `LATENCY_VALUES`, in ascending order, the frame is made of; 1 is the least."""
    if name == RATE:
        return [place + 1 for place in _middle(n)]
    ranks: list[int] = quantile_ranks(n, PROBABILITIES[name], confidence=confidence).ranks.ravel().tolist()
    return ranks


class Sorted(NamedTuple):
    """A group's values in ascending order: how many there are, and what tells those at some places, from 0."""

    n: int
    take: Callable[[Any], FloatArray]


def _middle(n: int) -> list[int]:
    return [(n - 1) // 2, n // 2]


def _frame(
    keys: Mapping[str, Any], parts: Mapping[str, Sequence[Sorted]], by: Sequence[Group], confidence: float
) -> pd.DataFrame:
    import numpy as np

    columns = {name: np.full(len(parts[RATE]), np.nan) for name in LATENCY_COLUMNS}
    for place, part in enumerate(parts["latency_ms"]):
        columns["n"][place] = part.n
        for bound, values in zip(BOUNDS, _quantiles("latency_ms", part, confidence), strict=True):
            for percent, value in zip(PERCENTS, values, strict=True):
                columns[f"p{percent}_{bound}ms"][place] = value
    for place, part in enumerate(parts["ttft_ms"]):
        columns["ttft_n"][place] = part.n
        found = _quantiles("ttft_ms", part, confidence).estimate
        columns["ttft_p50_ms"][place], columns["ttft_p95_ms"][place] = found
    for place, part in enumerate(parts[RATE]):
        if part.n:
            columns[RATE][place] = part.take(_middle(part.n)).mean()
    return ordered(column_frame({**keys, **columns}, frame_dtypes(by, LATENCY_COLUMNS)), by)


def _quantiles(name: str, part: Sorted, confidence: float) -> QuantileIntervals:
    ranks = quantile_ranks(part.n, PROBABILITIES[name], confidence=confidence)
    return ranks.quantiles(part.take(ranks.ranks - 1))


def _visible_tokens(calls: pd.DataFrame, ttft_ms: FloatArray) -> FloatArray:
    import numpy as np

    output, reasoning = numbers(calls, "output_tokens"), np.nan_to_num(numbers(calls, "reasoning_tokens"))
    return cast("FloatArray", np.where(np.isfinite(ttft_ms), np.maximum(output - reasoning, 0), output))
