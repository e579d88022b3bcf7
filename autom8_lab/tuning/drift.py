"""What has moved: a measure now against a reference period, and when it changed.

A change is looked for with ranks, so that long tails and yes-or-no values need no model: the largest deviation of the
summed ranks from what they would be without a change (Pettitt 1979, Applied Statistics 28), scaled by the ranks' own
spread, which ties make smaller. Its null distribution is Kolmogorov's; calls are taken as independent. Over the rows of
one frame the significance is Holm's, so that many models and measures do not raise false alarms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Any, NamedTuple

from ..frames import TIME, frame
from ..statistics import bootstrap_mean_interval, difference_interval, wilson_interval

if TYPE_CHECKING:
    from datetime import datetime

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Times = NDArray[np.datetime64]

FEWEST = 20  # values in either period
MOST = 5_000  # values that a change point is looked for in; more are thinned evenly
MOST_RESAMPLED = 2_000
RESAMPLES = 200

DRIFT_COLUMNS = {
    "measure": "str",
    "group": "str",
    "reference_n": "int64",
    "recent_n": "int64",
    "reference_mean": "float64",
    "recent_mean": "float64",
    "change": "float64",
    "change_low": "float64",
    "change_high": "float64",
    "reference_median": "float64",
    "recent_median": "float64",
    "distance": "float64",
    "changed_at": TIME,
    "changed_at_low": TIME,
    "changed_at_high": TIME,
    "p_value": "float64",
    "verdict": "str",
}


class Sample(NamedTuple):
    """The values of one measure of one group with their times, in UTC and ascending."""

    measure: str
    group: str
    times: Times
    values: Floats


class ChangePoint(NamedTuple):
    """Where a series most likely changed: the place of the first value after it, and how sure."""

    place: int
    p_value: float


def drift(samples: Sequence[Sample], *, since: datetime, confidence: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """Return `DRIFT_COLUMNS` for each sample: the time from `since` on against the time before.

    `change` is the difference of the means with its interval, `distance` Kolmogorov and Smirnov's between the two
    distributions, `changed_at` when the series changed, with an interval. The verdict is "moved" where a change is
    significant among all rows, "no change seen", or "cannot tell yet" below 20 values in either period.
    """
    rows = [_row(sample, since, confidence) for sample in samples]
    tested = sorted((row for row in rows if row["verdict"] is None), key=lambda row: row["p_value"])
    smallest = 0.0
    for place, row in enumerate(tested):
        smallest = max(smallest, min(1.0, row["p_value"] * (len(tested) - place)))
        row["p_value"] = smallest
        row["verdict"] = "moved" if smallest < 1 - confidence else "no change seen"
        looked, times, place = row.pop("series")
        if row["verdict"] == "moved":
            bounds = change_interval(looked, place, confidence=confidence, seed=seed)
            row |= {
                f"changed_at{name}": _moment(times[at])
                for name, at in zip(("", "_low", "_high"), (place, *bounds), strict=True)
            }
    rows.sort(key=lambda row: (row["measure"], row["group"]))
    return frame(rows, DRIFT_COLUMNS, attrs={"since": since, "confidence": confidence})


def _row(sample: Sample, since: datetime, confidence: float) -> dict[str, Any]:
    import numpy as np

    start = np.datetime64(since.replace(tzinfo=None), "us")
    recent = sample.times >= start
    before, after = sample.values[~recent], sample.values[recent]
    row: dict[str, Any] = {"measure": sample.measure, "group": sample.group}
    row |= {"reference_n": before.size, "recent_n": after.size, "verdict": None}
    for name, part in (("reference", before), ("recent", after)):
        row |= {f"{name}_mean": float(part.mean()), f"{name}_median": float(np.median(part))} if part.size else {}
    if min(before.size, after.size) < FEWEST:
        return {**row, "verdict": "cannot tell yet"}
    low, high = difference_interval(_estimate(after, confidence), _estimate(before, confidence))
    row |= {"change": float(after.mean() - before.mean()), "change_low": float(low), "change_high": float(high)}
    kept = np.unique(np.linspace(0, sample.values.size - 1, min(sample.values.size, MOST)).round().astype(np.int64))
    looked = sample.values[kept]
    found = change_point(looked)
    row["series"] = (looked, sample.times[kept], found.place)
    return {**row, "distance": distance(before, after), "p_value": found.p_value}


def _estimate(values: Floats, confidence: float) -> tuple[float, Any, Any]:
    if set(values[:10].tolist()) <= {0.0, 1.0} and ((values == 0) | (values == 1)).all():
        return float(values.mean()), *wilson_interval(values.sum(), values.size, confidence=confidence)
    return float(values.mean()), *bootstrap_mean_interval(values, confidence=confidence)


def distance(one: Floats, other: Floats) -> float:
    """Return the largest difference of the two distribution functions.

    >>> import numpy as np
    >>> distance(np.array([1.0, 2.0]), np.array([2.0, 3.0]))
    0.5
    """
    import numpy as np

    one, other = np.sort(one), np.sort(other)
    places = np.concatenate([one, other])
    shares = [np.searchsorted(part, places, side="right") / part.size for part in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())


def change_point(values: Floats) -> ChangePoint:
    """Return where a series most likely changed.

    >>> import numpy as np
    >>> found = change_point(np.repeat([0.0, 1.0], 100) + np.tile([0.0, 0.1], 100))
    >>> found.place, found.p_value < 0.001
    (100, True)
    """
    from scipy.special import kolmogorov  # type: ignore[import-untyped, unused-ignore]

    place, height = _largest_deviation(values)
    return ChangePoint(place, float(kolmogorov(height)))


def change_interval(values: Floats, place: int, *, confidence: float = 0.95, seed: int = 0) -> tuple[int, int]:
    """Return the interval of a change point, both segments drawn anew around it.

    The place is pulled towards the middle of the series; so the interval reaches to both sides as far as the farther of
    the two percentiles of the drawn places.
    """
    import numpy as np

    step = max(1, -(-values.size // MOST_RESAMPLED))
    thinned = values[::step]
    at = min(max(1, place // step), thinned.size - 1)
    generator = np.random.default_rng(seed)
    drawn = [
        _largest_deviation(
            np.concatenate([generator.choice(part, part.size) for part in (thinned[:at], thinned[at:])])
        )[0]
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    reach = math.ceil(max(at - low, high - at)) * step
    return max(0, place - reach), min(values.size - 1, place + reach)


def _largest_deviation(values: Floats) -> tuple[int, float]:
    """Return the first place after the most likely change and its height, in units of a Brownian bridge."""
    import numpy as np
    from scipy.stats import rankdata  # type: ignore[import-untyped, unused-ignore]

    ranks = rankdata(values)
    spread = ranks.std()
    if spread == 0:
        return 0, 0.0
    sums = np.abs(np.cumsum(ranks - ranks.mean()))[:-1]
    place = int(sums.argmax())
    return place + 1, float(sums[place] / (spread * math.sqrt(values.size)))


def _moment(value: Any) -> Any:
    import numpy as np

    return np.datetime64(value, "us").item().replace(tzinfo=UTC)
