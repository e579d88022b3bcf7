"""When a difference counts: the interval leaves out zero, and enough cases differ at all.

The best of many settings needs a wider interval than one that was named before. Intervals of cross-validated gains are
too narrow for that: with no real difference such a 95 % interval lies above zero in 5 to 8 of 100 draws instead of 2.5,
since the folds share their training data. `best_of` bounds all settings at once instead; see `benchmarks/false_alarms.py`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from ..statistics import paired_bootstrap_interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# With fewer cases that differ even a sign test, which all of them point one way, stays above 5 %: 2 * 0.5**5 = 6.25 %.
FEWEST_DIFFERING = 6
RESAMPLES = 2_000
NORMAL_ABOVE = 2_000  # cases; from there on the means are as good as normal


class Difference(NamedTuple):
    """The mean of paired differences with its interval; NaN where there are too few. `sign` is 1, -1 or 0: not told."""

    mean: float
    low: float
    high: float
    n: int
    sign: int


def difference_of(differences: NDArray[np.float64], *, confidence: float = 0.95, seed: int = 0) -> Difference:
    """Return the mean of paired differences with a bootstrap interval, and whether it can be told from zero.

    >>> import numpy as np
    >>> difference_of(np.array([0.1, 0.2, 0.1, 0.3, 0.1, 0.2, 0.4])).sign
    1
    >>> difference_of(np.array([0.1] * 5)).sign
    0
    """
    low, high = paired_bootstrap_interval(differences, confidence=confidence, seed=seed)
    n = int(differences.size)
    mean = float(differences.mean()) if n else math.nan
    told = int((differences != 0).sum()) >= FEWEST_DIFFERING
    return Difference(mean, low, high, n, (1 if low > 0 else -1 if high < 0 else 0) if told else 0)


def best_of(
    differences: NDArray[np.float64], *, confidence: float = 0.95, seed: int = 0
) -> tuple[int | None, Difference]:
    """Return which of many settings is the best, and its difference with bounds that hold for all of them at once.

    `differences` has a row per setting and a column per case: the setting's measure minus that of what is in force.
    The bounds are mean ± c · standard error, where c is the quantile of the largest studentised mean of all settings
    over bootstrap samples of the cases (max-t; Romano & Wolf 2005, Econometrica 73), so that with no real difference
    the best of them counts as better with a probability of (1 - confidence) / 2. Among settings that can be told from
    zero the one with the largest mean is chosen, else the one with the largest mean of all; None where no case differs.

    >>> import numpy as np
    >>> place, found = best_of(np.array([[0.0] * 40, [0.1, 0.3] * 20, [0.1, -0.1] * 20]))
    >>> place, found.sign
    (1, 1)
    """
    import numpy as np

    n = differences.shape[1]
    differing = (differences != 0).sum(axis=1)
    means = differences.mean(axis=1) if n else np.zeros(len(differences))
    if n < 2 or not differing.any():
        return None, Difference(0.0, math.nan, math.nan, n, 0)
    errors = differences.std(axis=1, ddof=1) / math.sqrt(n)
    # A setting that changes every case by the same amount has no error that could be estimated.
    usable = (differing >= FEWEST_DIFFERING) & (errors > 1e-12 * np.abs(means).max())
    critical = _largest_studentised(differences[usable], means[usable], errors[usable], confidence, seed)
    low, high = means - critical * errors, means + critical * errors
    told = usable & (low > 0)
    candidates = np.where(told, means, -np.inf) if told.any() else np.where(differing > 0, means, -np.inf)
    place = int(candidates.argmax())
    sign = 1 if told[place] else -1 if usable[place] and high[place] < 0 else 0
    return place, Difference(float(means[place]), float(low[place]), float(high[place]), n, sign)


def _largest_studentised(
    values: NDArray[np.float64], means: NDArray[np.float64], errors: NDArray[np.float64], confidence: float, seed: int
) -> float:
    """Return the quantile of the largest studentised mean, one-sided at (1 + confidence) / 2."""
    import numpy as np

    if not len(values):
        return math.nan
    generator = np.random.default_rng(seed)
    n = values.shape[1]
    if n > NORMAL_ABOVE:
        centred = (values - means[:, None]) / (errors[:, None] * n)
        correlation = centred @ centred.T
        drawn = generator.multivariate_normal(np.zeros(len(values)), correlation, size=RESAMPLES, method="eigh")
    else:
        weights = generator.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n
        drawn = (weights @ values.T - means) / errors
    return float(np.quantile(drawn.max(axis=1), (1 + confidence) / 2))


def more_needed(difference: Difference) -> int | None:
    """Return about how many more cases would tell a difference of this size from zero; None where none would.

    The interval's half-width shrinks with the square root of the number of cases.
    """
    if difference.n < 2 or not difference.mean > 0 or difference.sign:
        return None
    half = (difference.high - difference.low) / 2
    return max(1, math.ceil(difference.n * ((half / difference.mean) ** 2 - 1)))
