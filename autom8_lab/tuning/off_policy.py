"""Off-policy estimates: what a policy would have achieved on choices that another one made.

Sources: Horvitz & Thompson 1952 (IPS); Swaminathan & Joachims 2015 (SNIPS); Dudík, Langford & Li 2011 (doubly robust);
Kong 1992 (effective sample size). Their intervals are those of means of the terms below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..statistics import bootstrap_mean_intervals, skewed_mean_interval
from .intervals import clustered
from .outcome_models import cross_fitted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

ESTIMATORS = ("direct", "ips", "snips", "doubly robust")
BOOTSTRAP_UP_TO = 5_000  # terms; above, the skewness-corrected interval answers
FEWEST_EFFECTIVE = 30
LEAST_SUPPORT = 0.99
SURE = 1 - 1e-9  # a propensity that leaves nothing for the other actions


class Overlap(NamedTuple):
    """How well the logged choices cover the policy's: see `overlap_of`."""

    effective_sample_size: float
    largest_weight: float
    mean_weight: float
    support_share: float
    reason: str | None


def weights_of(action: IntArray, propensity: FloatArray, target: FloatArray) -> FloatArray:
    """Return each row's importance weight: how much likelier the policy was to choose what was chosen."""
    import numpy as np

    weights: FloatArray = target[np.arange(len(action)), action] / propensity
    return weights


def overlap_of(action: IntArray, propensity: FloatArray, target: FloatArray, possible: FloatArray) -> Overlap:
    """Judge whether the logged choices can tell about the policy; `reason` says why not, None where they can.

    `possible` (rows, actions) is 0 where an action could not be chosen. The support share is the part of the policy's
    choices that the log could have made too: where it was sure of its choice, or never made one, it could not.
    Weights must average to 1: their mean far off means propensities that do not fit, or choices never seen.
    """
    import numpy as np

    weights = weights_of(action, propensity, target)
    rows = np.arange(len(action))
    could = possible * np.isin(np.arange(target.shape[1]), action)[None, :]
    could[propensity >= SURE] = 0
    could[rows, action] = 1
    support = float((target * could).sum(axis=1).mean())
    total = float(weights.sum())
    effective = total**2 / float((weights**2).sum()) if total else 0.0
    return Overlap(effective, float(weights.max()), total / len(rows), support, _reason(weights, effective, support))


def _reason(weights: FloatArray, effective: float, support: float) -> str | None:
    if support < LEAST_SUPPORT:
        return (
            f"only {100 * support:.3g} % of what the policy would choose could have been chosen when the log was made: "
            "log decisions of a policy that explores"
        )
    if effective < FEWEST_EFFECTIVE:
        return (
            f"{len(weights):,} decisions are worth {effective:.3g} (effective sample size): at least "
            f"{FEWEST_EFFECTIVE} are needed; the policy differs too much from the one that was logged"
        )
    low, high = interval_of(weights, confidence=0.999)
    if not low <= 1 <= high:
        return (
            f"weights average {weights.mean():.3g} [{low:.3g}, {high:.3g}] where they must average 1: "
            "the logged propensities do not fit the choices"
        )
    return None


class Terms(NamedTuple):
    """An estimator's value for each row; their mean is the estimate, their spread its interval."""

    direct: FloatArray
    ips: FloatArray
    snips: FloatArray
    doubly_robust: FloatArray


def terms_of(
    reward: FloatArray,
    action: IntArray,
    propensity: FloatArray,
    target: FloatArray,
    *,
    features: FloatArray,
    fold: IntArray,
) -> Terms:
    """Return the terms of the four estimators.

    The direct method's take up what its model's own error adds, but not that a model may be wrong; the ratio of
    SNIPS is linearised.
    """
    import numpy as np

    weights = weights_of(action, propensity, target)
    fitted = cross_fitted(reward, action, target, features, fold)
    modelled = (target * fitted.predicted).sum(axis=1)
    residual = reward - fitted.predicted[np.arange(len(action)), action]
    error = fitted.influence * residual
    ratio = float((weights * reward).sum() / weights.sum())
    return Terms(
        direct=modelled + error - error.mean(),
        ips=weights * reward,
        snips=ratio + weights * (reward - ratio) / weights.mean(),
        doubly_robust=modelled + weights * residual,
    )


def interval_of(terms: FloatArray, *, confidence: float) -> tuple[float, float]:
    """Return the interval of the mean of terms."""
    low, high = intervals_of(terms[:, None], confidence=confidence)[0]
    return float(low), float(high)


def intervals_of(terms: FloatArray, *, confidence: float, groups: IntArray | None = None) -> FloatArray:
    """Return the interval of the mean of each column of terms, equal prompts as one draw; shape (columns, 2)."""
    import numpy as np

    values = terms if groups is None else np.column_stack([clustered(column, groups) for column in terms.T])
    if len(values) <= BOOTSTRAP_UP_TO:
        return bootstrap_mean_intervals(values, confidence=confidence)
    return np.array([skewed_mean_interval(column, confidence=confidence) for column in values.T])
