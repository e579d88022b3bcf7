"""Replay: what a policy would have achieved on decisions that another policy made, or why that cannot be known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InvalidValue, did_you_mean
from ..frames import frame
from ..records import Report
from ..validation import is_missing, name_value, shortened
from .off_policy import ESTIMATORS, Overlap, intervals_of, overlap_of, terms_of
from .outcome_models import folds_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

    Probabilities = str | Mapping[str, float] | pd.DataFrame | Callable[[pd.DataFrame], pd.DataFrame]

MEASURES = ("quality_score", "cost_usd")
FOLDS = 5
ESTIMATE_COLUMNS = {
    "measure": "str",
    "estimator": "str",
    "decisions": "int64",
    **dict.fromkeys(
        ("estimate", "low", "high", "logged", "difference", "difference_low", "difference_high"), "float64"
    ),
    "verdict": "str",
    "note": "str",
}


@dataclass(frozen=True, repr=False)
class ReplayReport:
    """What a policy would have achieved on logged decisions.

    `estimates` is a frame with a row per measure and estimator; `logged` there is the mean of what did happen, and
    `difference` how far the policy is from it. Where `identifiable` is False `reason` says why, and there are no numbers.
    `effective_sample_size` is what the decisions are worth after weighting, `largest_weight` the most that one counts,
    `mean_weight` is 1 but for chance, and `support_share` the part of the policy's choices that the log could hold.
    """

    identifiable: bool
    reason: str | None
    decisions: int
    effective_sample_size: float
    largest_weight: float
    mean_weight: float
    support_share: float
    least_propensity: float
    unmeasured: Mapping[str, int]
    confidence: float
    estimates: pd.DataFrame

    def _shown(self) -> Report:
        shown = Report(
            decisions=f"{self.decisions:,}",
            effective_sample_size=f"{self.effective_sample_size:,.1f}",
            largest_weight=f"{self.largest_weight:.4g}",
            mean_weight=f"{self.mean_weight:.4g}",
            support_share=f"{self.support_share:.4g}",
        )
        if not self.identifiable:
            return Report(verdict=f"not identifiable: {self.reason}", **shown)
        for row in self.estimates.to_dict("records"):
            name = f"{row['measure']}, {row['estimator']}"
            if row["verdict"] == "not identifiable":
                shown[name] = f"not identifiable: {row['note']}"
                continue
            bounds = f"{row['estimate']:.4g} [{row['low']:.4g}, {row['high']:.4g}]"
            shown[name] = f"{bounds}, logged {row['logged']:.4g}: {row['verdict']}"
        return shown

    def __repr__(self) -> str:
        return repr(self._shown())

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return self._shown()._repr_html_()


def replay(
    log: pd.DataFrame,
    policy: Probabilities,
    *,
    action: str = "chosen",
    propensity: str = "propensity",
    measures: str | Sequence[str] | None = None,
    features: Sequence[str] = (),
    group: str | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> ReplayReport:
    """Judge a policy on logged choices; see `Lab.replay`.

    `log` has a row per choice: what was chosen, with which probability, and what came of it (`measures`: any columns
    of numbers, by default those of quality_score and cost_usd that are there). `policy` is the name of one action, a
    mapping of probabilities, a frame with a column of probabilities per action and a row per choice, or a function
    that makes such a frame from the log. A column "candidates" (names, or a mapping by name) says what could be chosen.
    `features` are columns of numbers from which the outcome models learn; rows equal in `group` count as one draw.
    Raises `InvalidValue`, also for propensities that are missing or not above 0, with their count.
    """
    import numpy as np

    if not 0 < confidence < 1:
        raise InvalidValue(f"confidence is {confidence}: give a value between 0 and 1, such as 0.95")
    propensities = _checked_log(log, action, propensity)
    names, target = target_of(policy, log, action)
    chosen = np.array([names.index(str(name)) for name in log[action]], dtype=np.int64)
    groups = np.arange(len(log)) if group is None else _group_codes(log, group)
    whole = _Sample(
        reward=np.zeros(len(log)),
        action=chosen,
        propensity=propensities,
        target=target,
        possible=_possible(log, names),
        features=_filled(_numbers(log, features)),
        fold=folds_of(groups, FOLDS, seed),
        groups=groups,
    )
    overlap = whole.overlap()
    rewards = {measure: _rewards(log, measure) for measure in _measures(log, measures)}
    unmeasured = {measure: int(np.isnan(reward).sum()) for measure, reward in rewards.items()}
    rows = [row for measure, reward in rewards.items() for row in _rows(measure, whole, reward, overlap, confidence)]
    return ReplayReport(
        identifiable=overlap.reason is None,
        reason=overlap.reason,
        decisions=len(log),
        effective_sample_size=overlap.effective_sample_size,
        largest_weight=overlap.largest_weight,
        mean_weight=overlap.mean_weight,
        support_share=overlap.support_share,
        least_propensity=float(propensities.min()),
        unmeasured={measure: count for measure, count in unmeasured.items() if count},
        confidence=confidence,
        estimates=frame(rows, ESTIMATE_COLUMNS),
    )


@dataclass(frozen=True)
class _Sample:
    """Choices with what came of them, row by row."""

    reward: FloatArray
    action: IntArray
    propensity: FloatArray
    target: FloatArray
    possible: FloatArray
    features: FloatArray
    fold: IntArray
    groups: IntArray

    def overlap(self) -> Overlap:
        """Judge whether the choices can tell about the policy."""
        return overlap_of(self.action, self.propensity, self.target, self.possible)

    def known(self, reward: FloatArray) -> _Sample:
        """Return the choices whose outcome is known, with it."""
        import numpy as np

        some = np.isfinite(reward)
        columns = {name: value[some] for name, value in vars(self).items()}
        codes = np.unique(columns["groups"], return_inverse=True)[1].astype(np.int64)
        return _Sample(**columns | {"reward": reward[some], "groups": codes})


def _rows(
    measure: str, whole: _Sample, reward: FloatArray, overlap: Overlap, confidence: float
) -> list[dict[str, Any]]:
    """Return the rows of one measure, without numbers where the choices cannot tell."""
    import numpy as np

    sample = whole.known(reward)
    count = len(sample.reward)
    base = {
        "measure": measure,
        "decisions": count,
        "logged": float(sample.reward.mean()) if count else None,
        "note": "",
    }
    reason = overlap.reason or ("no outcome is known" if count < 2 else sample.overlap().reason)
    if reason is not None:
        return [{**base, "estimator": name, "verdict": "not identifiable", "note": reason} for name in ESTIMATORS]
    terms = terms_of(
        sample.reward, sample.action, sample.propensity, sample.target, features=sample.features, fold=sample.fold
    )
    # The estimates, how far each is from what was logged, and whether the model of the direct one is wrong.
    estimates = np.column_stack(terms)
    columns = np.column_stack([estimates, estimates - sample.reward[:, None], terms.doubly_robust - terms.direct])
    bounds = intervals_of(columns, confidence=confidence, groups=sample.groups).tolist()
    means, count = columns.mean(axis=0).tolist(), len(ESTIMATORS)
    rows = [
        {**base, "estimator": name, **_figures(*found)}
        for name, *found in zip(ESTIMATORS, means, bounds, means[count:], bounds[count:], strict=False)
    ]
    low, high = bounds[-1]
    if not low <= 0 <= high:
        rows[0]["note"] = "its model is wrong: the doubly robust estimate differs beyond its interval"
    return rows


def _figures(estimate: float, bounds: list[float], difference: float, apart: list[float]) -> dict[str, Any]:
    """Return an estimate with its interval, and how far it is from what was logged."""
    less, more = apart
    return {
        "estimate": estimate,
        "low": bounds[0],
        "high": bounds[1],
        "difference": difference,
        "difference_low": less,
        "difference_high": more,
        "verdict": "more" if less > 0 else "less" if more < 0 else "cannot tell yet",
    }


def _rewards(log: pd.DataFrame, measure: str) -> FloatArray:
    """Return the outcomes of every row, NaN where one is not known."""
    reward: FloatArray = _numbers(log, [measure])[:, 0]
    if measure == "cost_usd" and (reward < 0).any():
        raise InvalidValue(f"cost_usd contains {reward[reward < 0][0]}: give amounts of at least 0, NaN where unknown")
    return reward


def _checked_log(log: pd.DataFrame, action: str, propensity: str) -> FloatArray:
    """Return the propensities, each above 0 and up to 1, or refuse them with their count."""
    import numpy as np
    import pandas as pd

    if not isinstance(log, pd.DataFrame):
        raise InvalidValue(f"log={shortened(log)} is a {type(log).__name__}: give a DataFrame, a row per choice")
    for name in (action, propensity):
        if name not in log:
            raise InvalidValue(f"the log has no column {name!r}{did_you_mean(name, map(str, log.columns))}")
    if len(log) < 2:
        raise InvalidValue(
            f"there are {len(log)} decisions to replay: at least 2 are needed, and a few hundred to tell"
        )
    unnamed = int(log[action].isna().sum())
    if unnamed:
        raise InvalidValue(f"{unnamed:,} of {len(log):,} decisions do not say what was chosen: leave them out")
    values = _numbers(log, [propensity])[:, 0]
    missing, wrong = int(np.isnan(values).sum()), int((~np.isnan(values) & ~((values > 0) & (values <= 1))).sum())
    if missing or wrong:
        raise InvalidValue(
            f"{missing:,} of {len(log):,} decisions have no propensity and {wrong:,} have one that is not above 0, up to "
            "1: without the probability of each choice nothing can be replayed; leave out what was logged without it"
        )
    return values


def target_of(policy: Any, log: pd.DataFrame, action: str) -> tuple[list[str], FloatArray]:
    """Return the names of all actions, and the policy's probability of each in each row. Raises `InvalidValue`."""
    import numpy as np
    import pandas as pd

    names = sorted({str(name) for name in log[action]})
    if isinstance(policy, str):
        if policy not in names:
            raise InvalidValue(f"policy={policy!r} was never chosen{did_you_mean(policy, names)}")
        policy = {policy: 1.0}
    if callable(policy):
        policy = policy(log)
    if isinstance(policy, Mapping):
        wanted = {name_value(str(name), "an action of the policy"): float(share) for name, share in policy.items()}
        policy = pd.DataFrame([wanted] * len(log), index=log.index)
    if not isinstance(policy, pd.DataFrame):
        raise InvalidValue(
            f"policy={shortened(policy)} is a {type(policy).__name__}: give an action's name, a mapping of probabilities, "
            "a frame with a column per action, or a function that makes one"
        )
    if len(policy) != len(log):
        raise InvalidValue(
            f"the policy has probabilities for {len(policy):,} rows, but {len(log):,} choices are logged"
        )
    policy = policy.set_axis([str(name) for name in policy.columns], axis=1)
    names = sorted({*names, *policy.columns})
    absent = {name: 0.0 for name in names if name not in policy.columns}
    target = policy.assign(**absent)[names].to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = ~(
        np.isfinite(target).all(axis=1) & (target >= 0).all(axis=1) & np.isclose(target.sum(axis=1), 1, atol=1e-6)
    )
    if wrong.any():
        row = dict(zip(names, target[int(wrong.argmax())].tolist(), strict=True))
        raise InvalidValue(
            f"the policy's probabilities must be at least 0 and add up to 1; {int(wrong.sum()):,} rows: {shortened(row)}"
        )
    return names, target


def _possible(log: pd.DataFrame, names: Sequence[str]) -> FloatArray:
    """Return 1 where an action was among a row's candidates; where none are noted all were."""
    import numpy as np

    if "candidates" not in log:
        return np.ones((len(log), len(names)))
    rows = [
        {str(name) for name in row} if not is_missing(row) and len(row) else set(names) for row in log["candidates"]
    ]
    return np.array([[name in row for name in names] for row in rows], dtype=np.float64)


def _measures(log: pd.DataFrame, measures: str | Sequence[str] | None) -> list[str]:
    if measures is None:
        found = [name for name in MEASURES if name in log]
        if not found:
            raise InvalidValue(f"the log has none of {', '.join(MEASURES)}: name its columns of outcomes in measures")
        return found
    return [measures] if isinstance(measures, str) else list(measures)


def _numbers(log: pd.DataFrame, names: Sequence[str]) -> FloatArray:
    """Return columns as float64, NaN where unknown; shape (rows, names)."""
    import numpy as np

    columns = []
    for name in names:
        if name not in log:
            raise InvalidValue(f"the log has no column {name!r}{did_you_mean(name, map(str, log.columns))}")
        try:
            values = log[name].astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
        except (TypeError, ValueError) as error:
            raise InvalidValue(f"{name} cannot be read as numbers ({error})") from error
        if np.isinf(values).any():
            raise InvalidValue(f"{name} contains {values[np.isinf(values)][0]}: give finite numbers, NaN where unknown")
        columns.append(values)
    return np.column_stack(columns) if columns else np.empty((len(log), 0))


def _filled(columns: FloatArray) -> FloatArray:
    """Put each column's mean where it is not known."""
    import numpy as np

    known = np.isfinite(columns)
    means = np.where(known, columns, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.where(known, columns, means)


def _group_codes(log: pd.DataFrame, group: str) -> IntArray:
    import numpy as np
    import pandas as pd

    if group not in log:
        raise InvalidValue(f"the log has no column {group!r}{did_you_mean(group, map(str, log.columns))}")
    codes = pd.factorize(log[group])[0].astype(np.int64)
    alone = codes < 0
    # A row without a group is one of its own.
    codes[alone] = codes.max() + 1 + np.arange(alone.sum())
    return codes


__all__ = ["ESTIMATE_COLUMNS", "ReplayReport", "replay"]
