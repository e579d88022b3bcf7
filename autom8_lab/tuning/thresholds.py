"""A threshold from labelled scores: the lowest that keeps a budget of false hits, or the best for an objective."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..errors import InvalidValue
from ..frames import frame
from ..recommendation import Binding, Evidence, Recommendation, Verdict
from ..statistics import clopper_pearson_interval
from ..validation import amount_value, name_value, shortened
from .calibration import FOLDS, calibration, folds_of, platt
from .certificates import Certificate, certify, split
from .curve import Costs, cost_per_row, counts, curve, f_beta
from .verdicts import best_of, more_needed

if TYPE_CHECKING:
    import pandas as pd

    from .curve import Flags, Floats
    from .labels import Labels

FEWEST_LABELS = 20
MOST_TRIED = 200
QUANTILES = 101

SLICE_COLUMNS = {
    "group": "str",
    "labels": "int64",
    "hits": "int64",
    "false_hits": "int64",
    "false_hit_rate": "float64",
    "false_hit_rate_low": "float64",
    "false_hit_rate_high": "float64",
    "misses": "int64",
    "recall": "float64",
    "recall_low": "float64",
    "recall_high": "float64",
}


@dataclass(frozen=True)
class Goal:
    """What a threshold is to achieve: a budget of false hits, or the best F-beta or cost.

    `confidence` is that of the bounds, `share` the part of the labels that is held out for a budget.
    """

    budget: float | None = None
    beta: float | None = 1.0
    costs: Costs | None = None
    confidence: float = 0.95
    share: float = 0.5
    seed: int = 0

    @property
    def measure(self) -> str:
        """The name of what is measured."""
        if self.budget is not None:
            return "false-hit rate"
        return "cost per request" if self.costs is not None else f"F{self.beta:g}"


def goal_of(
    *,
    objective: str | None,
    max_false_hit_rate: float | None,
    false_hit_cost: float | None,
    miss_cost: float | None,
    confidence: float = 0.95,
    held_out: float = 0.5,
    seed: int = 0,
) -> Goal:
    """Return what the arguments ask for, checked. Raises `InvalidValue`.

    >>> goal_of(objective="f0.5", max_false_hit_rate=None, false_hit_cost=None, miss_cost=None).beta
    0.5
    """
    if not 0.5 < confidence < 1:
        raise InvalidValue(f"confidence={confidence}: give a value above 0.5 and below 1, such as 0.95")
    if not 0 < held_out < 1:
        raise InvalidValue(f"held_out={held_out}: give the share that is held out, between 0 and 1, such as 0.5")
    costed = false_hit_cost is not None or miss_cost is not None
    asked = [objective not in (None, "cost"), max_false_hit_rate is not None, costed or objective == "cost"]
    if sum(asked) > 1:
        raise InvalidValue(
            "give one of objective='f1' (f0.5, f2, …), max_false_hit_rate, or false_hit_cost and miss_cost"
        )
    common: dict[str, Any] = {"confidence": confidence, "share": held_out, "seed": seed}
    if max_false_hit_rate is not None:
        if not 0 < amount_value(max_false_hit_rate, "max_false_hit_rate") < 1:
            raise InvalidValue(f"max_false_hit_rate={max_false_hit_rate}: give a rate between 0 and 1, such as 0.01")
        return Goal(budget=float(max_false_hit_rate), beta=None, **common)
    if costed or objective == "cost":
        if false_hit_cost is None or miss_cost is None:
            raise InvalidValue("objective='cost' needs both: give false_hit_cost=… and miss_cost=…")
        costs = Costs(amount_value(false_hit_cost, "false_hit_cost"), amount_value(miss_cost, "miss_cost"))
        return Goal(beta=None, costs=costs, **common)
    return Goal(beta=_beta(objective or "f1"), **common)


def _beta(objective: str) -> float:
    try:
        beta = float(str(objective).lower().removeprefix("f")) if str(objective).lower().startswith("f") else math.nan
    except ValueError:
        beta = math.nan
    if not 0 < beta < math.inf:
        raise InvalidValue(f"objective={shortened(objective)}: give 'f1', 'f0.5', 'f2' …, or 'cost'")
    return beta


@dataclass(frozen=True)
class Choice:
    """What was found, before it becomes a recommendation."""

    threshold: float | None
    verdict: Verdict
    because: str
    sample_size: int
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    details: Mapping[str, Any] | None = None
    held_out: Flags | None = None  # the rows that had no part in the choice; all where it was cross-validated


def tune(
    labels: Labels,
    goal: Goal,
    *,
    setting: str,
    in_force: float | None,
    bound_to: Binding,
    now: datetime,
    by: str | None = None,
    origin: str = "labels",
) -> Recommendation:
    """Recommend a threshold, or say why not.

    `in_force` is the value that is used now, None where everything counts as a hit. The tables: "curve" over every
    distinct score, "errors" at the threshold, "calibration" and "reliability" out of fold, and with `by` "slices".
    """
    name_value(setting, "setting")
    groups = labels.group(by) if by else None
    refusal = _useless(labels)
    if refusal:
        choice = Choice(None, "cannot tell yet", refusal, len(labels))
    elif goal.budget is not None:
        choice = _within_budget(labels, goal, in_force)
    else:
        choice = best_threshold_choice(labels, goal, in_force)
    calibrated = calibration(labels.scores, labels.right, seed=goal.seed)
    tables = {"curve": _curve(labels, goal), "calibration": calibrated[0], "reliability": calibrated[1]}
    if choice.threshold is not None:
        tables["errors"] = _errors(labels, choice.threshold)
        if groups is not None:
            tables["slices"] = _slices(labels, choice, groups, goal.confidence)
    evidence = Evidence(
        sample_size=choice.sample_size,
        metric=goal.measure,
        estimate=choice.estimate,
        low=choice.low,
        high=choice.high,
        held_out=choice.estimate is not None,
        data_hash=labels.data_hash,
        details={**(choice.details or {}), **_details(labels, calibrated[0], in_force, origin)},
    )
    because = " ".join([choice.because, *(f"{note}." for note in labels.notes)])
    values = {} if choice.threshold is None else {setting: choice.threshold}
    return Recommendation(
        "threshold", values, choice.verdict, because, evidence, bound_to, created_at=now, tables=tables
    )


def _useless(labels: Labels) -> str | None:
    import numpy as np

    positives = int(labels.right.sum())
    if positives in (0, len(labels)):
        return f"all {len(labels)} labels are {bool(positives)}: a threshold needs right and wrong ones."
    if len(labels) < FEWEST_LABELS:
        return f"{len(labels)} labels are too few: at least {FEWEST_LABELS}, and {FOLDS} of each kind."
    if min(positives, len(labels) - positives) < FOLDS:
        return f"{positives} of {len(labels)} labels are right: at least {FOLDS} of each kind are needed."
    if np.ptp(labels.scores) == 0:
        return f"all scores are {labels.scores[0]:g}: no threshold divides them."
    return None


def _within_budget(labels: Labels, goal: Goal, in_force: float | None) -> Choice:
    assert goal.budget is not None
    options: dict[str, Any] = {"confidence": goal.confidence, "share": goal.share, "seed": goal.seed}
    found = certify(labels.scores, labels.right, budget=goal.budget, **options)
    details: dict[str, Any] = {
        "max_false_hit_rate": goal.budget,
        "confidence": goal.confidence,
        "held_out_labels": found.labels,
        "held_out_hits": found.hits,
        "held_out_false_hits": found.false_hits,
    }
    rate = found.false_hits / found.hits if found.hits else None
    shown: dict[str, Any] = {"estimate": rate, "low": 0.0, "high": found.upper} if found.hits else {}
    shown |= {"details": details, "sample_size": found.labels}
    shown["held_out"] = split(labels.right, share=goal.share, seed=goal.seed)[1]
    if found.threshold is None:
        details["labels_needed"] = found.labels_needed
        return Choice(None, "cannot tell yet", _refusal(found, goal), **shown)
    because = (
        f"on held-out labels {found.false_hits} of {found.hits} hits were false: with {goal.confidence:.0%} confidence "
        f"at most {found.upper:.2%}, within {goal.budget:.2%}."
    )
    if in_force == found.threshold:
        return Choice(found.threshold, "keep", f"{because} It is in force.", **shown)
    return Choice(found.threshold, "recommend", because, **shown)


def _refusal(found: Certificate, goal: Goal) -> str:
    tested = f"the best threshold had {found.false_hits} false of {found.hits} hits on held-out labels, at most {found.upper:.2%}"
    if found.labels_needed is None:
        return f"no threshold keeps {goal.budget:.2%}: {tested}; more labels of the same kind would not help."
    return (
        f"the labels do not support {goal.budget:.2%}: {tested}; about {found.labels_needed:,} more labels are needed."
    )


def best_threshold_choice(labels: Labels, goal: Goal, in_force: float | None) -> Choice:
    """Return the threshold with the best measure, and whether it can be told from the one in force."""
    import numpy as np

    scores, right = labels.scores, labels.right
    now = scores >= (-math.inf if in_force is None else in_force)
    tried = _tried(scores, right, goal)
    hits = scores >= tried[:, None]
    place, gain = best_of(_gains(hits, now, right, goal), confidence=goal.confidence, seed=goal.seed)
    threshold = float(tried[place]) if place is not None else _best_threshold(scores, right, goal)
    tuned = _out_of_fold(scores, right, goal)
    held_out, before = _measure(tuned, right, goal), _measure(now, right, goal)
    better = (before - held_out) if goal.costs is not None else (held_out - before)
    measured = f"{goal.measure} is {held_out:.4g} out of fold and {before:.4g} with what is in force"
    bounds = {"low": _plain(gain.low), "high": _plain(gain.high)}
    details = {"out_of_fold": held_out, "with_value_in_force": before, "thresholds_tried": len(tried)}
    shown: dict[str, Any] = {"estimate": better, **bounds, "details": details, "sample_size": len(labels)}
    interval = f"the interval of the gain, over all thresholds tried, is [{gain.low:.4g}, {gain.high:.4g}]"
    if gain.sign > 0 and better > 0:
        return Choice(threshold, "recommend", f"{measured}; {interval}.", **shown)
    if place is None or better <= 0 or np.array_equal(hits[place], now):
        return Choice(in_force, "keep", f"{measured}: nothing that was tried is better.", **shown)
    more = more_needed(gain)
    hint = f"; about {more:,} more labels would tell" if more else ""
    return Choice(threshold, "cannot tell yet", f"{measured}; {interval}{hint}.", **shown)


def _tried(scores: Floats, right: Flags, goal: Goal) -> Floats:
    """Return the thresholds that are compared: the best of all distinct scores, and up to 200 spread over them."""
    import numpy as np

    distinct = np.unique(scores)
    spread = distinct[np.unique(np.linspace(0, distinct.size - 1, MOST_TRIED).round().astype(np.int64))]
    return np.union1d(spread, [_best_threshold(scores, right, goal)])


def _out_of_fold(scores: Floats, right: Flags, goal: Goal) -> Flags:
    """Return which rows are hits by the threshold that the other folds choose."""
    import numpy as np

    fold = folds_of(right, seed=goal.seed)
    tuned = np.zeros_like(right)
    for number in range(FOLDS):
        own = fold == number
        tuned[own] = scores[own] >= _best_threshold(scores[~own], right[~own], goal)
    return tuned


def _best_threshold(scores: Floats, right: Flags, goal: Goal) -> float:
    """Return the distinct score with the best measure; of equals the highest."""
    found = counts(scores, right)
    if goal.costs is not None:
        values = -cost_per_row(found.hits, found.right_hits, float(right.sum()), right.size, goal.costs)
    else:
        values = f_beta(found.hits, found.right_hits, float(right.sum()), goal.beta or 1.0)
    return float(found.thresholds[int(values.argmax())])


def _measure(hit: Flags, right: Flags, goal: Goal) -> float:
    import numpy as np

    hits, right_hits = np.array(float(hit.sum())), np.array(float((hit & right).sum()))
    if goal.costs is not None:
        return float(cost_per_row(hits, right_hits, float(right.sum()), right.size, goal.costs))
    return float(f_beta(hits, right_hits, float(right.sum()), goal.beta or 1.0))


def _gains(hits: Flags, now: Flags, right: Flags, goal: Goal) -> Floats:
    """Return for each threshold and row how much better it is than what is in force.

    A cost is a mean over rows. F is a ratio of means: each row has its part in the difference to first order.
    """
    import numpy as np

    if goal.costs is not None:
        costs = goal.costs
        each = [costs.false_hit * (hit & ~right) + costs.miss * (~hit & right) for hit in (now[None], hits)]
        return np.asarray(each[0] - each[1])
    weight = (goal.beta or 1.0) ** 2

    def parts(hit: Flags) -> Floats:
        above, below = (1 + weight) * (hit & right), hit + weight * right
        ratio = above.mean(axis=1, keepdims=True) / below.mean(axis=1, keepdims=True)
        return np.asarray(ratio + (above - ratio * below) / below.mean(axis=1, keepdims=True))

    return parts(hits) - parts(now[None])


def _curve(labels: Labels, goal: Goal) -> pd.DataFrame:
    costs = {} if goal.costs is None else {"costs": goal.costs}
    return curve(labels.scores, labels.right, beta=goal.beta or 1.0, confidence=goal.confidence, **costs)


def _errors(labels: Labels, threshold: float) -> pd.DataFrame:
    """Return the rows that the threshold gets wrong: false hits, the highest score first, then misses, the lowest."""
    import pandas as pd

    rows = []
    for place, (score, right) in enumerate(zip(labels.scores.tolist(), labels.right.tolist(), strict=True)):
        if (score >= threshold) != right:
            kind = "miss" if right else "false hit"
            extra = {key: value for key, value in labels.rows[place].items() if key not in ("score", "label")}
            rows.append({"error": kind, "row": place, "score": score, **extra})
    rows.sort(
        key=lambda row: (row["error"], -row["score"] if row["error"] == "false hit" else row["score"], row["row"])
    )
    names = dict.fromkeys(["error", "row", "score", *(key for row in labels.rows for key in row if key != "label")])
    return pd.DataFrame(rows, columns=list(names))


def _slices(labels: Labels, choice: Choice, groups: list[str], confidence: float) -> pd.DataFrame:
    """Return what the threshold does to each group, on rows that had no part in its choice where some were held out."""
    import numpy as np

    own = np.ones(len(labels), dtype=bool) if choice.held_out is None else choice.held_out
    names, hit = np.array(groups, dtype=object), labels.scores >= (choice.threshold or 0.0)
    rows = []
    for name in sorted(set(groups)):
        here = own & (names == name)
        hits, false_hits = int((hit & here).sum()), int((hit & here & ~labels.right).sum())
        positives = int((labels.right & here).sum())
        row: dict[str, Any] = {"group": name, "labels": int(here.sum()), "hits": hits, "false_hits": false_hits}
        row["misses"] = positives - (hits - false_hits)
        for rate, successes, trials in (("false_hit_rate", false_hits, hits), ("recall", hits - false_hits, positives)):
            low, high = clopper_pearson_interval(successes, trials, confidence=confidence)
            value = successes / trials if trials else math.nan
            row |= {rate: value, f"{rate}_low": float(low), f"{rate}_high": float(high)}
        rows.append(row)
    return frame(rows, SLICE_COLUMNS)


def _details(labels: Labels, calibrated: pd.DataFrame, in_force: float | None, origin: str) -> dict[str, Any]:
    import numpy as np

    quantiles = np.quantile(labels.scores, np.linspace(0, 1, QUANTILES))
    details: dict[str, Any] = {"labels": len(labels), "right": int(labels.right.sum()), "value_in_force": in_force}
    details |= {"origin": origin, "score_quantiles": [round(float(value), 6) for value in quantiles]}
    if len(calibrated):
        best = calibrated.iloc[0]
        details["calibration"] = {"method": best["method"], "ece": float(best["ece"]), "brier": float(best["brier"])}
        details["platt"] = platt(labels.scores, labels.right)[1]
    return details


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value
