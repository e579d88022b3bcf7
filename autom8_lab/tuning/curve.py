"""What each threshold would do: a row for every distinct score, with exact bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..frames import column_frame
from ..statistics import clopper_pearson_interval

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Flags = NDArray[np.bool_]

RATES = ("hit_rate", "false_hit_rate", "precision", "recall")
CURVE_COLUMNS = {
    "threshold": "float64",
    "labels": "int64",
    "hits": "int64",
    "false_hits": "int64",
    "misses": "int64",
    **{f"{rate}{bound}": "float64" for rate in RATES for bound in ("", "_low", "_high")},
    "f_beta": "float64",
    "cost": "float64",
}


class Costs(NamedTuple):
    """What a wrong answer and a missed right one cost, in any unit."""

    false_hit: float
    miss: float


class Counts(NamedTuple):
    """For each threshold, in descending order: hits (score >= threshold), and those of them that are right."""

    thresholds: Floats
    hits: Floats
    right_hits: Floats


EVEN_COSTS = Costs(1.0, 1.0)


def counts(scores: Floats, right: Flags) -> Counts:
    """Count hits at every distinct score.

    >>> import numpy as np
    >>> counts(np.array([0.5, 0.9, 0.5]), np.array([True, True, False])).right_hits
    array([1., 2.])
    """
    import numpy as np

    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), scores.size - 1)
    hits = (last + 1).astype(np.float64)
    return Counts(scores[order][last], hits, np.cumsum(right[order])[last].astype(np.float64))


def f_beta(hits: Floats, right_hits: Floats, positives: Floats | float, beta: float) -> Floats:
    """Return F-beta: (1 + b²) · right hits / (hits + b² · positives); 0 where nothing is there to find."""
    import numpy as np

    with np.errstate(invalid="ignore", divide="ignore"):
        value = (1 + beta**2) * right_hits / (hits + beta**2 * positives)
    return np.nan_to_num(value, nan=0.0)


def cost_per_row(hits: Floats, right_hits: Floats, positives: float, n: int, costs: Costs) -> Floats:
    """Return the mean cost of a request: wrong answers and missed right ones."""
    return (costs.false_hit * (hits - right_hits) + costs.miss * (positives - right_hits)) / n


def curve(
    scores: Floats, right: Flags, *, beta: float = 1.0, costs: Costs = EVEN_COSTS, confidence: float = 0.95
) -> pd.DataFrame:
    """Return what every distinct score would do as a threshold, the highest first.

    A hit is a score of at least the threshold. `hit_rate` is the share of hits among all rows, `false_hit_rate` that of
    wrong ones among the hits (1 - precision), `recall` that of hits among the right ones. Bounds are Clopper and
    Pearson's, each for its own threshold: they do not hold together for the best of many.

    >>> import numpy as np
    >>> curve(np.array([0.9, 0.8, 0.1]), np.array([True, False, True]))["false_hit_rate"].round(2).tolist()
    [0.0, 0.5, 0.33]
    """
    import numpy as np

    found = counts(scores, right)
    n, positives = scores.size, float(right.sum())
    rates = {
        "hit_rate": (found.hits, np.full_like(found.hits, n)),
        "false_hit_rate": (found.hits - found.right_hits, found.hits),
        "precision": (found.right_hits, found.hits),
        "recall": (found.right_hits, np.full_like(found.hits, positives)),
    }
    columns: dict[str, Floats] = {}
    for name, (successes, trials) in rates.items():
        low, high = clopper_pearson_interval(successes, trials, confidence=confidence)
        with np.errstate(invalid="ignore", divide="ignore"):
            columns |= {name: successes / trials, f"{name}_low": low, f"{name}_high": high}
    columns |= {
        "threshold": found.thresholds,
        "labels": np.full_like(found.hits, n),
        "hits": found.hits,
        "false_hits": found.hits - found.right_hits,
        "misses": positives - found.right_hits,
        "f_beta": f_beta(found.hits, found.right_hits, positives, beta),
        "cost": cost_per_row(found.hits, found.right_hits, positives, n, costs),
    }
    return column_frame(columns, CURVE_COLUMNS)
