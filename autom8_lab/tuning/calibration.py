"""Scores to probabilities, and how far those are from what happened, measured out of fold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..frames import frame
from ..statistics import clopper_pearson_interval

if TYPE_CHECKING:
    import pandas as pd

    from .curve import Flags, Floats

    Model = Callable[[Floats], Floats]

BINS = 10
FOLDS = 5
CALIBRATION_COLUMNS = {
    "method": "str",
    "labels": "int64",
    "ece": "float64",
    "brier": "float64",
    "brier_of_base_rate": "float64",
}
RELIABILITY_COLUMNS = {
    "method": "str",
    "bin_low": "float64",
    "bin_high": "float64",
    "labels": "int64",
    "predicted": "float64",
    "observed": "float64",
    "observed_low": "float64",
    "observed_high": "float64",
}


def platt(scores: Floats, right: Flags) -> tuple[Model, dict[str, float]]:
    """Fit p = 1 / (1 + exp(-(intercept + slope · score))) with Platt's smoothed targets.

    Source: Platt 1999, in Advances in Large Margin Classifiers; Lin, Lin & Weng 2007, Machine Learning 68.
    """
    import numpy as np

    values = scores[:, None]
    positives, n = float(right.sum()), right.size
    sure = np.where(right, (positives + 1) / (positives + 2), 1 / (n - positives + 2))
    centre, spread = float(scores.mean()), float(scores.std()) or 1.0
    standard = np.vstack([(values - centre) / spread] * 2)
    weighed = logistic(standard, np.repeat([1, 0], n), np.concatenate([sure, 1 - sure]))
    slope = float(weighed.coef_[0, 0]) / spread
    intercept = float(weighed.intercept_[0]) - slope * centre
    return (lambda x: 1 / (1 + np.exp(-(intercept + slope * x)))), {"slope": slope, "intercept": intercept}


def logistic(features: Floats, labels: Any, weights: Floats | None = None, *, strength: float = 1e6) -> Any:
    """Return scikit-learn's logistic regression, in effect without a penalty."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=1_000).fit(features, labels, sample_weight=weights)


def isotonic(scores: Floats, right: Flags) -> tuple[Model, dict[str, float]]:
    """Fit a rising step function (pool adjacent violators), kept off 0 and 1 by one part in n + 2."""
    from sklearn.isotonic import IsotonicRegression

    edge = 1 / (right.size + 2)
    fitted = IsotonicRegression(y_min=edge, y_max=1 - edge, out_of_bounds="clip").fit(scores, right)
    return fitted.predict, {}


METHODS = {"platt": platt, "isotonic": isotonic}


def folds_of(right: Flags, *, folds: int = FOLDS, seed: int = 0, units: Sequence[Any] | None = None) -> Any:
    """Return the fold of each row: right and wrong ones divided alike, rows of one unit together."""
    import numpy as np
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    fold = np.zeros(right.size, dtype=np.int64)
    kind = StratifiedKFold if units is None else StratifiedGroupKFold
    rows = kind(folds, shuffle=True, random_state=seed).split(np.zeros(right.size), right, units)
    for number, (_, testing) in enumerate(rows):
        fold[testing] = number
    return fold


def out_of_fold(scores: Floats, right: Flags, method: str, *, seed: int = 0) -> Floats:
    """Return each row's probability from a fit that has not seen it."""
    import numpy as np

    fold = folds_of(right, seed=seed)
    result = np.empty(scores.size)
    for number in range(FOLDS):
        model, _ = METHODS[method](scores[fold != number], right[fold != number])
        result[fold == number] = model(scores[fold == number])
    return result


def expected_calibration_error(predicted: Floats, right: Flags) -> float:
    """Return the ECE over ten bins of equal width: how far predictions are from what happened, on average.

    Source: Naeini, Cooper & Hauskrecht 2015, AAAI.

    >>> import numpy as np
    >>> expected_calibration_error(np.array([0.75, 0.75, 0.75, 0.75]), np.array([True, True, True, False]))
    0.0
    """
    import numpy as np

    place = np.minimum((predicted * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(place, weights=predicted - right, minlength=BINS)
    return float(np.abs(gaps).sum() / right.size)


def reliability(predicted: Floats, right: Flags, *, method: str, confidence: float = 0.95) -> pd.DataFrame:
    """Return what happened in each tenth of the predictions that has any, with exact intervals."""
    import numpy as np

    place = np.minimum((predicted * BINS).astype(np.int64), BINS - 1)
    rows = []
    for number in np.unique(place).tolist():
        own = place == number
        low, high = clopper_pearson_interval(right[own].sum(), own.sum(), confidence=confidence)
        row = {"method": method, "bin_low": number / BINS, "bin_high": (number + 1) / BINS, "labels": int(own.sum())}
        means = {"predicted": float(predicted[own].mean()), "observed": float(right[own].mean())}
        rows.append({**row, **means, "observed_low": float(low), "observed_high": float(high)})
    return frame(rows, RELIABILITY_COLUMNS)


def calibration(scores: Floats, right: Flags, *, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return how well each method is calibrated out of fold, the best first, and the reliability of that one.

    Both frames are empty where a fold would have rows of one kind only.
    """
    import numpy as np

    if min(right.sum(), (~right).sum()) < FOLDS:
        return frame([], CALIBRATION_COLUMNS), frame([], RELIABILITY_COLUMNS)
    base = right.mean()
    predicted = {method: out_of_fold(scores, right, method, seed=seed) for method in METHODS}
    rows = [
        {
            "method": method,
            "labels": right.size,
            "ece": expected_calibration_error(values, right),
            "brier": float(np.mean((values - right) ** 2)),
            "brier_of_base_rate": float(base * (1 - base)),
        }
        for method, values in predicted.items()
    ]
    rows.sort(key=lambda row: (row["brier"], row["method"]))
    best = str(rows[0]["method"])
    return frame(rows, CALIBRATION_COLUMNS), reliability(predicted[best], right, method=best)
