"""Intervals for sums over prompts: equal prompts are one draw, and every figure of a report shares its resamples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..statistics import bootstrap_mean_interval, wilson_interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

BLOCK_CELLS = 400_000
POWER_Z = 0.8416  # of 80 % power
MOST_PROMPTS = 1_000_000  # needing more than this is as good as never


def clustered(values: FloatArray, groups: IntArray) -> FloatArray:
    """Return a value per group whose mean, and the mean's variance, are those of the values drawn in groups.

    The mean of unequal groups is a ratio, linearised here; with groups of one these are the values themselves.
    Source: Cameron & Miller 2015, "A practitioner's guide to cluster-robust inference", section II.
    """
    import numpy as np

    count = int(groups.max()) + 1
    if count == len(values):
        return values
    mean = values.mean()
    sizes = np.bincount(groups, minlength=count)
    sums = np.bincount(groups, weights=values, minlength=count)
    shares: FloatArray = mean + (sums - mean * sizes) * count / len(values)
    return shares


def mean_interval_of(values: FloatArray, groups: IntArray, *, confidence: float) -> tuple[float, float]:
    """Return an interval of the mean: Wilson's for successes and failures of different prompts, else by bootstrap."""
    import numpy as np

    if int(groups.max()) + 1 == len(values) and np.isin(values, (0.0, 1.0)).all():
        low, high = wilson_interval(values.sum(), len(values), confidence=confidence)
        return float(low), float(high)
    return bootstrap_mean_interval(clustered(values, groups), confidence=confidence)


def resampled_weights(groups: IntArray, *, resamples: int, seed: int) -> Iterator[FloatArray]:
    """Yield blocks of bootstrap weights, a row per resample and a column per prompt: how often its group was drawn."""
    import numpy as np

    count = int(groups.max()) + 1
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK_CELLS // len(groups))
    for start in range(0, resamples, block):
        drawn = generator.multinomial(count, np.full(count, 1 / count), size=min(block, resamples - start))
        yield drawn[:, groups].astype(np.float64)


def percentile_interval(values: FloatArray, *, confidence: float, estimate: float | None = None) -> tuple[float, float]:
    """Return the middle `confidence` of resampled values; NaN where a twentieth of them are not finite.

    With an `estimate` that is biased, as that of a hull over noisy points, the levels are corrected for it: resamples
    are biased against the estimate as the estimate is against the truth. Source: Efron 1981, Canadian J. of Statistics 9.
    """
    import numpy as np
    from scipy.special import ndtr, ndtri  # type: ignore[import-untyped, unused-ignore]

    finite = values[np.isfinite(values)]
    if finite.size < 0.95 * values.size or not finite.size:
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    below = 0.5 if estimate is None else float((finite < estimate).mean() + (finite == estimate).mean() / 2)
    bias = 2 * ndtri(np.clip(below, 1 / finite.size, 1 - 1 / finite.size))
    low, high = np.quantile(finite, ndtr(bias + ndtri([tail, 1 - tail])))
    return float(low), float(high)


def more_needed(estimate: float, low: float, high: float, draws: int, *, confidence: float) -> int | None:
    """Return about how many more prompts would show a difference of this size, four times of five.

    None where it is shown already, points the other way, or would take more than a million.
    """
    from scipy.special import ndtri  # type: ignore[import-untyped, unused-ignore]

    if not (low <= 0 < estimate):
        return None
    z = float(ndtri((1 + confidence) / 2))
    error = (high - low) / (2 * z)
    needed = draws * ((z + POWER_Z) * error / estimate) ** 2
    return None if needed > MOST_PROMPTS else max(1, round(needed) - draws)
