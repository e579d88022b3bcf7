"""When a difference counts: the interval leaves out zero, and enough cases differ at all."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from ..statistics import paired_bootstrap_interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# With fewer cases that differ even a sign test, which all of them point one way, stays above 5 %: 2 * 0.5**5 = 6.25 %.
FEWEST_DIFFERING = 6


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


def more_needed(difference: Difference) -> int | None:
    """Return about how many more cases would tell a difference of this size from zero; None where none would.

    The interval's half-width shrinks with the square root of the number of cases.
    """
    if difference.n < 2 or not difference.mean > 0 or difference.sign:
        return None
    half = (difference.high - difference.low) / 2
    return max(1, math.ceil(difference.n * ((half / difference.mean) ** 2 - 1)))
