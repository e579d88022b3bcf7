"""The lowest threshold that provably keeps a budget of false hits.

One part of the labels proposes thresholds in a fixed order, the other part tests them in that order and stops at the
first that fails. Because the order does not depend on the testing part, the chance that the true false-hit rate of
the last threshold that passed is above the budget is at most 1 - confidence, however many were tested (fixed-sequence
testing; Angelopoulos et al. 2021, arXiv:2110.01052, section 3). Taking the best of many on the same data, as is usual,
has no such bound.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from ..statistics import clopper_pearson_interval
from .curve import counts

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .curve import Flags, Floats

MOST_LABELS = 10**8


class Certificate(NamedTuple):
    """A threshold that keeps the budget, with what the testing part showed; `threshold` is None where none does.

    `upper` is the one-sided bound; without a threshold, `hits`, `false_hits` and `upper` are of the first that was
    tested, and `labels_needed` says about how many more labels would do, None where more of the same would not help.
    """

    threshold: float | None
    labels: int
    hits: int
    false_hits: int
    upper: float
    labels_needed: int | None = None


def upper_bound(false_hits: ArrayLike, hits: ArrayLike, confidence: float) -> Floats:
    """Return the one-sided exact upper bound of a false-hit rate; 1 where there are no hits."""
    import numpy as np

    # A two-sided interval of this confidence has the one-sided tail on its upper side.
    high = clopper_pearson_interval(false_hits, hits, confidence=2 * confidence - 1)[1]
    return np.nan_to_num(high, nan=1.0)


def split(right: Flags, *, share: float, seed: int) -> tuple[Flags, Flags]:
    """Return which rows propose and which test; right and wrong ones are divided alike."""
    import numpy as np

    testing = np.zeros(right.size, dtype=bool)
    generator = np.random.default_rng(seed)
    for value in (True, False):
        own = generator.permutation(np.flatnonzero(right == value))
        testing[own[: round(share * own.size)]] = True
    return ~testing, testing


def certify(
    scores: Floats, right: Flags, *, budget: float, confidence: float = 0.95, share: float = 0.5, seed: int = 0
) -> Certificate:
    """Return the lowest threshold whose upper bound on held-out labels keeps the budget."""
    import numpy as np

    proposing, testing = split(right, share=share, seed=seed)
    proposed = counts(scores[proposing], right[proposing])
    # First the threshold that is most likely to pass, then one after the other downwards.
    likely = upper_bound(proposed.hits - proposed.right_hits, proposed.hits, confidence)
    first = int(np.flatnonzero(likely == likely.min())[-1])
    thresholds = proposed.thresholds[first:]
    ordered = np.sort(scores[testing])
    order = np.argsort(scores[testing], kind="stable")
    wrong_from = np.append(np.cumsum((~right[testing][order])[::-1])[::-1], 0)
    places = np.searchsorted(ordered, thresholds, side="left")
    hits, false_hits = ordered.size - places, wrong_from[places]
    bounds = upper_bound(false_hits, hits, confidence)
    passed = int(np.argmin(np.append(bounds <= budget, False)))  # how many pass before the first that fails
    tested = max(passed - 1, 0)
    found = int(ordered.size), int(hits[tested]), int(false_hits[tested]), float(bounds[tested])
    if passed:
        return Certificate(float(thresholds[tested]), *found)
    return Certificate(None, *found, labels_needed(scores, right, budget=budget, confidence=confidence, share=share))


def labels_needed(scores: Floats, right: Flags, *, budget: float, confidence: float, share: float) -> int | None:
    """Return about how many more labels of the same kind would certify some threshold; None where more would not help.

    It is the smallest number for which the rates that were measured would pass, over all thresholds.
    """
    import numpy as np

    found = counts(scores, right)
    rates = (found.hits - found.right_hits) / found.hits
    # Of the thresholds with the same number of false hits, the one with the most hits needs the fewest labels.
    candidates = np.flatnonzero((rates < budget) & np.append(np.diff(found.hits - found.right_hits) > 0, True))
    needed = _hits_needed(rates[candidates], budget, confidence)
    fewest = (needed * scores.size / found.hits[candidates] / share).min(initial=math.inf)
    return None if fewest > MOST_LABELS else max(1, math.ceil(fewest) - scores.size)


def _hits_needed(rates: Floats, budget: float, confidence: float) -> Floats:
    """Return for each measured rate about how many hits would pass: the bound falls as they grow, but for rounding."""
    import numpy as np

    low, high = np.ones(rates.size), np.full(rates.size, float(MOST_LABELS))
    out_of_reach = upper_bound(np.ceil(rates * high), high, confidence) > budget
    while (high - low).max(initial=0) > 1:
        middle = np.floor((low + high) / 2)
        passing = upper_bound(np.ceil(rates * middle - 1e-9), middle, confidence) <= budget
        low, high = np.where(passing, low, middle), np.where(passing, middle, high)
    return np.where(out_of_reach, np.inf, high)
