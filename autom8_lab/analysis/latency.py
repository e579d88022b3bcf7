"""How long calls take: quantiles with distribution-free intervals, time to first token, tokens per second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from ..frames import column_frame
from ..ledger import groups
from ..statistics import quantiles_with_intervals, tokens_per_second
from .grouping import Grouped, frame_dtypes, numbers, ordered

if TYPE_CHECKING:
    import pandas as pd

    from ..statistics import FloatArray

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


def latency(
    calls: pd.DataFrame, *, by: str | Sequence[str] = "model", freq: str | None = None, confidence: float = 0.95
) -> pd.DataFrame:
    """Return how long each group's calls took, in milliseconds; the columns of `Lab.latency_df`.

    `n` calls have a latency; a percentile that n does not support is NaN (see `quantiles_with_intervals`).
    `output_tokens_per_second` is the median of the generation's rate: where the time to first token is known,
    reasoning tokens, which come before it, do not count.
    """
    import numpy as np

    by_groups = groups(by, freq)
    grouped = Grouped(calls, by_groups)
    latency_ms, ttft_ms = numbers(calls, "latency_ms"), numbers(calls, "ttft_ms")
    rates = tokens_per_second(_visible_tokens(calls, ttft_ms), latency_ms, ttft_ms)
    columns = {name: np.full(grouped.count, np.nan) for name in LATENCY_COLUMNS}
    for place, part in enumerate(grouped.parts(latency_ms)):
        columns["n"][place] = len(part)
        found = quantiles_with_intervals(
            part, [percent / 100 for percent in PERCENTS], confidence=confidence, assume_sorted=True
        )
        for bound, values in zip(BOUNDS, found, strict=True):
            for percent, value in zip(PERCENTS, values, strict=True):
                columns[f"p{percent}_{bound}ms"][place] = value
    for place, part in enumerate(grouped.parts(ttft_ms)):
        found = quantiles_with_intervals(part, [0.5, 0.95], confidence=confidence, assume_sorted=True)
        columns["ttft_n"][place] = len(part)
        columns["ttft_p50_ms"][place], columns["ttft_p95_ms"][place] = found.estimate
    for place, part in enumerate(grouped.parts(rates)):
        columns["output_tokens_per_second"][place] = np.median(part) if len(part) else np.nan
    return ordered(column_frame({**grouped.keys, **columns}, frame_dtypes(by_groups, LATENCY_COLUMNS)), by_groups)


def _visible_tokens(calls: pd.DataFrame, ttft_ms: FloatArray) -> FloatArray:
    import numpy as np

    output, reasoning = numbers(calls, "output_tokens"), np.nan_to_num(numbers(calls, "reasoning_tokens"))
    return cast("FloatArray", np.where(np.isfinite(ttft_ms), np.maximum(output - reasoning, 0), output))
