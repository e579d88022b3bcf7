"""Intervals, quantiles and rates over plain arrays: thin on NumPy and SciPy, no frame and no database.

Every function refuses input it cannot use (`InvalidValue`) and answers NaN where the sample is too small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .errors import InvalidValue

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    FloatArray = NDArray[np.float64]

NORMAL_APPROXIMATION_ABOVE = 5_000
RESAMPLE_BLOCK_VALUES = 100_000


class QuantileIntervals(NamedTuple):
    """Quantiles and their interval bounds, one value per probability; NaN where the sample is too small."""

    estimate: FloatArray
    low: FloatArray
    high: FloatArray


def wilson_interval(successes: ArrayLike, n: ArrayLike, *, confidence: float = 0.95) -> tuple[FloatArray, FloatArray]:
    """Return the Wilson score interval (low, high) of each success rate.

    `successes` and `n` are whole numbers that broadcast; the bounds are arrays of the broadcast shape, NaN
    where n is 0. Raises InvalidValue. Source: Wilson 1927, JASA 22; `scipy.stats.binomtest(k, n)` with
    `proportion_ci(method="wilson")` gives the same.

    >>> low, high = wilson_interval([9, 0], [10, 0])
    >>> low.round(3), high.round(3)
    (array([0.596,   nan]), array([0.982,   nan]))
    """
    import numpy as np
    from scipy.special import ndtri  # type: ignore[import-untyped, unused-ignore]

    k, trials = _successes_of_trials(successes, n)
    z = ndtri(1 - _tail(confidence))
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = (k + z**2 / 2) / (trials + z**2)
        half = z / (trials + z**2) * np.sqrt(k * (trials - k) / trials + z**2 / 4)
    low = np.where(k == 0, 0.0, centre - half)
    high = np.where(k == trials, 1.0, centre + half)
    return np.where(trials == 0, np.nan, low), np.where(trials == 0, np.nan, high)


def clopper_pearson_interval(
    successes: ArrayLike, n: ArrayLike, *, confidence: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Return the exact binomial interval (low, high) of each success rate; it covers at least `confidence`.

    Shapes, NaN and errors as in `wilson_interval`. Source: Clopper & Pearson 1934, Biometrika 26; the bounds
    are quantiles of beta distributions.

    >>> low, high = clopper_pearson_interval(9, 10)
    >>> low.round(3), high.round(3)
    (np.float64(0.555), np.float64(0.997))
    """
    import numpy as np
    from scipy.special import betaincinv  # type: ignore[import-untyped, unused-ignore]

    k, trials = _successes_of_trials(successes, n)
    tail = _tail(confidence)
    # betaincinv wants positive parameters; the clamped entries are the ones replaced by 0, 1 or NaN.
    low = np.where(k == 0, 0.0, betaincinv(np.maximum(k, 1), trials - k + 1, tail))
    high = np.where(k == trials, 1.0, betaincinv(k + 1, np.maximum(trials - k, 1), 1 - tail))
    return np.where(trials == 0, np.nan, low), np.where(trials == 0, np.nan, high)


def bootstrap_mean_interval(
    values: ArrayLike, *, confidence: float = 0.95, resamples: int = 2_000, seed: int = 0
) -> tuple[float, float]:
    """Return a bootstrap interval (low, high) of the mean of independent values, in their unit.

    The method is BCa (Efron 1987, JASA 82) with its levels widened for small samples (Hesterberg 2015, The
    American Statistician 69). The plain percentile interval is too narrow (92.6 % of nominal 95 % intervals
    cover, exponential values, n = 50) and the studentised one has infinite bounds on scores with few distinct
    values; this one covers 93 to 97 % of ordinary data from n = 50 on and stays within the data's range. It
    falls short for very heavy tails (log-normal with sigma 1: 91 % at n = 50, 94 % at n = 200). Above 5,000
    values the normal approximation of the central limit theorem answers.

    NaN for fewer than two values; a constant sample has an interval of no width. For successes and failures
    use `wilson_interval`. Raises InvalidValue, also for NaN among the values. One seed gives one interval.

    >>> low, high = bootstrap_mean_interval([0.2, 0.4, 0.6, 0.8, 1.0] * 20)
    >>> round(low, 2), round(high, 2)
    (0.55, 0.66)
    """
    sample = _finite("values", values)
    low, high = bootstrap_mean_intervals(sample[:, None], confidence=confidence, resamples=resamples, seed=seed)[0]
    return float(low), float(high)


def bootstrap_mean_intervals(
    columns: FloatArray, *, confidence: float = 0.95, resamples: int = 2_000, seed: int = 0
) -> FloatArray:
    """Return what `bootstrap_mean_interval` does for each column of finite values, shape (columns, 2).

    `columns` has shape (values, columns). All columns have the same resamples, which are drawn once.
    """
    import numpy as np

    tail = _tail(confidence)
    if resamples < 100:
        raise InvalidValue(f"resamples is {resamples}: use at least 100, 2,000 for a published interval")
    n = len(columns)
    if n < 2:
        return np.full((columns.shape[1], 2), np.nan)
    least, most = columns.min(axis=0), columns.max(axis=0)
    if n > NORMAL_APPROXIMATION_ABOVE:
        bounds = np.array([_normal_interval(sample, tail) for sample in columns.T])
    else:
        bounds = np.column_stack([least, most])
        varied = np.flatnonzero(least < most)
        means = _resampled_means(columns[:, varied], resamples, seed)
        for place, own in zip(varied.tolist(), means.T, strict=True):
            bounds[place] = np.quantile(own, _bca_levels(columns[:, place], own, tail))
        # A mean of equal values may be off by a rounding, and so outside the data.
        bounds = np.clip(bounds, least[:, None], most[:, None])
    return bounds


def paired_bootstrap_interval(
    differences: ArrayLike, *, confidence: float = 0.95, resamples: int = 2_000, seed: int = 0
) -> tuple[float, float]:
    """Return a bootstrap interval (low, high) of the mean difference between two systems on the same prompts.

    `differences` holds one value per prompt (a minus b). Prompts are resampled, not calls: average repeated
    calls of a prompt first. Method, NaN and errors as in `bootstrap_mean_interval`. Source: Koehn 2004.

    >>> low, high = paired_bootstrap_interval([0.1, 0.2, 0.0, 0.3, 0.1] * 10)
    >>> low > 0
    True
    """
    sample = _finite("differences", differences)
    return bootstrap_mean_interval(sample, confidence=confidence, resamples=resamples, seed=seed)


def mean_interval(values: ArrayLike, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return Student's t interval (low, high) of the mean of independent values, in their unit.

    Quick, and right for means of many values; of few skewed ones `bootstrap_mean_interval` is the better. NaN for
    fewer than two values. Raises InvalidValue.

    >>> low, high = mean_interval([1.0, 2.0, 3.0])
    >>> round(low, 2), round(high, 2)
    (-0.48, 4.48)
    """
    from scipy.special import stdtrit  # type: ignore[import-untyped, unused-ignore]

    sample, tail = _finite("values", values), _tail(confidence)
    if sample.size < 2:
        return float("nan"), float("nan")
    half = -float(stdtrit(sample.size - 1, tail)) * float(sample.std(ddof=1)) / float(sample.size) ** 0.5
    return float(sample.mean()) - half, float(sample.mean()) + half


def skewed_mean_interval(values: ArrayLike, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return an interval (low, high) of the mean of many independent values that may be skewed, in their unit.

    The normal interval with its skewness removed by a cubic transformation: as accurate as BCa at the cost of a mean,
    for rare events among many values. Not below the least value nor above the greatest. NaN for fewer than two
    values. Raises InvalidValue. Source: Hall 1992, JRSS B 54, "On the removal of skewness by transformation".

    >>> low, high = skewed_mean_interval([0.0] * 9_950 + [1.0] * 50)
    >>> round(low, 5), round(high, 5)
    (0.00374, 0.00655)
    """
    import numpy as np
    from scipy.special import ndtri  # type: ignore[import-untyped, unused-ignore]

    sample, tail = _finite("values", values), _tail(confidence)
    if sample.size < 2:
        return float("nan"), float("nan")
    mean, spread = float(sample.mean()), float(sample.std())
    if spread == 0:
        return mean, mean
    skewness = float((((sample - mean) / spread) ** 3).mean()) / float(sample.size) ** 0.5
    z = np.array([-float(ndtri(tail)), float(ndtri(tail))])
    if abs(skewness) > 1e-9:
        z = 3 / skewness * (np.cbrt(1 + skewness * (z - skewness / 6)) - 1)
    low, high = np.clip(mean - z * spread / float(sample.size) ** 0.5, sample.min(), sample.max())
    return float(low), float(high)


def difference_interval(
    a: tuple[ArrayLike, ArrayLike, ArrayLike], b: tuple[ArrayLike, ArrayLike, ArrayLike]
) -> tuple[FloatArray, FloatArray]:
    """Return the interval (low, high) of a difference a - b of independent estimates from their own intervals.

    `a` and `b` are (estimate, low, high), each a number or an array; NaN where one of them is. From two Wilson
    intervals this is Newcombe's. Source: Newcombe 1998, Statistics in Medicine 17 (method 10); Zou & Donner 2008,
    Statistics in Medicine 27 (MOVER).

    >>> low, high = difference_interval((0.9, 0.85, 0.94), (0.8, 0.74, 0.85))
    >>> low.round(3), high.round(3)
    (np.float64(0.029), np.float64(0.172))
    """
    import numpy as np

    (mean_a, low_a, high_a), (mean_b, low_b, high_b) = (
        [np.asarray(value, dtype=np.float64) for value in estimate] for estimate in (a, b)
    )
    difference = mean_a - mean_b
    return (
        difference - np.hypot(mean_a - low_a, high_b - mean_b),
        difference + np.hypot(high_a - mean_a, mean_b - low_b),
    )


def quantiles_with_intervals(
    values: ArrayLike, probabilities: ArrayLike, *, confidence: float = 0.95, assume_sorted: bool = False
) -> QuantileIntervals:
    """Return quantiles with distribution-free intervals, in the unit of the values.

    The estimate is NumPy's "linear" method. The bounds are order statistics: with B ~ Binomial(n, p), the
    interval from the l-th to the u-th smallest value covers with probability P(l <= B < u); the equal-tailed
    ranks are tightened by one where the coverage stays at least `confidence`. Source: Conover 1999, Practical
    Nonparametric Statistics, section 3.2; David & Nagaraja 2003, Order Statistics, section 7.1.

    A probability is supported when the sample is likely enough to reach beyond the quantile on both sides:
    p**n and (1 - p)**n are at most (1 - confidence) / 2. Estimate and bounds are NaN where it is not: at
    95 %, p50 needs 6 values, p90 36, p95 72, p99 368. `assume_sorted=True` saves the sort (the order is
    checked). Raises InvalidValue, also for NaN among the values.

    >>> quantiles_with_intervals(range(1, 101), [0.5, 0.99])
    QuantileIntervals(estimate=array([50.5,  nan]), low=array([40., nan]), high=array([60., nan]))
    """
    import numpy as np

    ordered = _finite("values", values)
    if not assume_sorted:
        ordered = np.sort(ordered)
    elif (np.diff(ordered) < 0).any():
        raise InvalidValue("the values are not in ascending order: sort them, or leave out assume_sorted=True")
    ranks = quantile_ranks(ordered.size, probabilities, confidence=confidence)
    return ranks.quantiles(ordered[ranks.ranks - 1])


class QuantileRanks(NamedTuple):
    """Which of n ordered values quantiles and their bounds are made of, for the probabilities that n supports.

    `ranks` has four rows, from 1 for the smallest: the values on both sides of the estimate, whose place between them is
    `fraction`, and the low and the high bound.
    """

    ranks: NDArray[np.int64]
    fraction: FloatArray
    supported: NDArray[np.bool_]

    def quantiles(self, values: FloatArray) -> QuantileIntervals:
        """Return the quantiles from the values at these ranks, in the shape of `ranks`."""
        import numpy as np

        bounds = np.full((3, self.supported.size), np.nan)
        a, b, bounds[1, self.supported], bounds[2, self.supported] = values
        # As np.quantile does.
        near, far = a + (b - a) * self.fraction, b - (b - a) * (1 - self.fraction)
        bounds[0, self.supported] = np.where(self.fraction < 0.5, near, far)
        return QuantileIntervals(*bounds)


def quantile_ranks(n: int, probabilities: ArrayLike, *, confidence: float = 0.95) -> QuantileRanks:
    """Return which of n ordered values `quantiles_with_intervals` looks at. Raises InvalidValue.

    >>> quantile_ranks(100, [0.5, 0.99]).ranks.T
    array([[50, 51, 40, 60]])
    """
    import numpy as np

    p = np.atleast_1d(_numbers("probabilities", probabilities))
    _refuse("probabilities", p, ~((p >= 0) & (p <= 1)), "give probabilities from 0 to 1, 0.95 for p95")
    tail = _tail(confidence)
    supported = (n > 0) & (p**n <= tail) & ((1 - p) ** n <= tail)
    if not supported.any():
        return QuantileRanks(np.zeros((4, 0), dtype=np.int64), np.zeros(0), supported)
    position = (n - 1) * p[supported]
    left = np.floor(position).astype(np.int64)
    bounds = _quantile_ranks(n, p[supported], tail)
    ranks = np.array([left + 1, np.minimum(left + 2, n), *bounds])
    return QuantileRanks(ranks, position - left, supported)


def tokens_per_second(output_tokens: ArrayLike, latency_ms: ArrayLike, ttft_ms: ArrayLike | None = None) -> FloatArray:
    """Return output tokens per second of each call.

    Where the time to first token is known the rate is the generation's, output_tokens / (latency - TTFT),
    else the whole call's, output_tokens / latency. (Time per output token as serving benchmarks report it
    leaves the first token out of the count; this rate keeps it.) NaN where the tokens or the latency are
    missing, and where no time is left to divide by. Raises InvalidValue for negative or infinite values.

    >>> tokens_per_second([100, 100, 100], [2_000, 2_000, 0], [1_000, float("nan"), 0])
    array([100.,  50.,  nan])
    """
    import numpy as np

    tokens = _not_negative("output_tokens", output_tokens)
    latency = _not_negative("latency_ms", latency_ms)
    waited = np.zeros(()) if ttft_ms is None else np.nan_to_num(_not_negative("ttft_ms", ttft_ms), nan=0.0)
    duration_ms = latency - waited
    with np.errstate(all="ignore"):
        rate = tokens * 1_000 / duration_ms
    return np.where((duration_ms > 0) & np.isfinite(rate), rate, np.nan)


def _normal_interval(sample: FloatArray, tail: float) -> tuple[float, float]:
    from scipy.special import ndtri  # type: ignore[import-untyped, unused-ignore]

    mean = float(sample.mean())
    half = -float(ndtri(tail)) * float(sample.std(ddof=1)) / float(sample.size) ** 0.5
    return mean - half, mean + half


def _resampled_means(columns: FloatArray, resamples: int, seed: int) -> FloatArray:
    """Draw the means of bootstrap samples, shape (resamples, columns), a block at a time to save memory."""
    import numpy as np

    generator, n = np.random.default_rng(seed), len(columns)
    block = max(1, RESAMPLE_BLOCK_VALUES // n)
    means = np.empty((resamples, columns.shape[1]))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = generator.integers(0, n, size=(rows, n), dtype=np.int32)
        drawn += n * np.arange(rows, dtype=np.int32)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        means[start : start + rows] = counts.astype(np.float64) @ columns / n
    return means


def _bca_levels(sample: FloatArray, means: FloatArray, tail: float) -> FloatArray:
    """Return the two levels at which the BCa interval cuts the bootstrap means."""
    import numpy as np
    from scipy.special import ndtr, ndtri, stdtrit  # type: ignore[import-untyped, unused-ignore]

    n, mean = sample.size, sample.mean()
    spread = np.abs(sample - mean).max()
    deviation = (sample - mean) / spread
    acceleration = (deviation**3).sum() / (6 * (deviation**2).sum() ** 1.5)
    # Among few distinct values many means equal the sample's but for rounding: half of them count as below.
    distance = (means - mean) / spread
    below = (distance < -1e-9).mean() + (np.abs(distance) <= 1e-9).mean() / 2
    bias = ndtri(np.clip(below, 0.5 / means.size, 1 - 0.5 / means.size))
    # Student's t and sqrt(n / (n - 1)) undo the bootstrap's narrowness: its variance divides by n, not n - 1.
    z = np.sqrt(n / (n - 1)) * stdtrit(n - 1, [tail, 1 - tail])
    shifted = bias + z
    # Past the pole of the BCa formula the level is the extreme one on that side.
    levels: FloatArray = ndtr(bias + shifted / np.maximum(1 - acceleration * shifted, 1e-12))
    return levels


def _quantile_ranks(n: int, p: FloatArray, tail: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the 1-based ranks (low, high) of the narrowest neighbouring pair that covers 1 - 2 * tail."""
    import numpy as np
    from scipy.special import bdtr  # type: ignore[import-untyped, unused-ignore]

    low = np.maximum(_binomial_quantile(n, p, tail), 1)
    high = np.minimum(_binomial_quantile(n, p, 1 - tail) + 1, n)
    pairs = np.array([(low + up, high - down) for up in (0, 1) for down in (0, 1)])
    coverage = bdtr(pairs[:, 1] - 1, n, p) - bdtr(pairs[:, 0] - 1, n, p)
    coverage[1:][coverage[1:] < 1 - 2 * tail] = np.inf
    best = coverage.argmin(axis=0)
    chosen = pairs[best, :, np.arange(p.size)].astype(np.int64)
    # With a low confidence the pair may leave out one of the two values that the estimate lies between.
    position = (n - 1) * p
    low, high = np.floor(position).astype(np.int64) + 1, np.ceil(position).astype(np.int64) + 1
    return np.minimum(chosen[:, 0], low), np.maximum(chosen[:, 1], high)


def _binomial_quantile(n: int, p: FloatArray, level: float) -> FloatArray:
    """Return the smallest whole k with P(Binomial(n, p) <= k) >= level."""
    import numpy as np
    from scipy.special import bdtr, bdtrik  # type: ignore[import-untyped, unused-ignore]

    k = np.ceil(bdtrik(level, n, p))
    lower = np.maximum(k - 1, 0)
    quantile: FloatArray = np.where(bdtr(lower, n, p) >= level, lower, k)
    return quantile


def _tail(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise InvalidValue(f"confidence is {confidence}: give a value between 0 and 1, such as 0.95")
    return (1 - confidence) / 2


def _successes_of_trials(successes: ArrayLike, n: ArrayLike) -> tuple[FloatArray, FloatArray]:
    import numpy as np

    k, trials = np.broadcast_arrays(_whole("successes", successes), _whole("n", n))
    _refuse("successes", k, k > trials, "there can be at most n of them")
    return k, trials


def _whole(name: str, values: ArrayLike) -> FloatArray:
    import numpy as np

    array = _numbers(name, values)
    bad = ~(np.isfinite(array) & (array >= 0) & (array == np.floor(array)))
    return _refuse(name, array, bad, "give whole numbers of at least 0")


def _not_negative(name: str, values: ArrayLike) -> FloatArray:
    import numpy as np

    array = _numbers(name, values)
    return _refuse(name, array, (array < 0) | np.isinf(array), "give finite numbers of at least 0, NaN if unknown")


def _finite(name: str, values: ArrayLike) -> FloatArray:
    import numpy as np

    array = _numbers(name, values).ravel()
    return _refuse(name, array, ~np.isfinite(array), "drop missing values first, so that n is what was measured")


def _numbers(name: str, values: ArrayLike) -> FloatArray:
    import numpy as np

    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidValue(f"{name} cannot be read as numbers ({error}): give an array of numbers") from error


def _refuse(name: str, array: FloatArray, bad: NDArray[np.bool_], remedy: str) -> FloatArray:
    if bad.any():
        raise InvalidValue(f"{name} contains {float(array[bad].flat[0])}: {remedy}")
    return array
