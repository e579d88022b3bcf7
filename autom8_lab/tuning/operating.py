"""Operating points: the threshold that reaches a goal, and what a router does there, on prompts that had no part in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InvalidValue
from ..statistics import wilson_interval
from ..validation import amount_value
from .contenders import LENGTH, expenses
from .curves import curve_of, path_of
from .intervals import mean_interval_of
from .outcomes import Outcomes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .routing import RoutingReport

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

DEFAULT_TARGET = 0.8


@dataclass(frozen=True)
class Goal:
    """What a threshold is chosen for: to recover a part of the gap in quality, or to spend at most so much a prompt."""

    target_pgr: float | None = None
    max_cost_usd: float | None = None

    def __post_init__(self) -> None:
        if self.target_pgr is not None and self.max_cost_usd is not None:
            raise InvalidValue("target_pgr and max_cost_usd are two goals: give one")
        if self.target_pgr is not None and not 0 < self.target_pgr <= 1:
            raise InvalidValue(f"target_pgr={self.target_pgr}: give the part of the gap to recover, above 0, up to 1")
        if self.max_cost_usd is not None:
            amount_value(self.max_cost_usd, "max_cost_usd")

    def __str__(self) -> str:
        if self.max_cost_usd is not None:
            return f"at most {self.max_cost_usd:g} USD per prompt"
        return f"recover {100 * self._part:g} % of the gap in quality"

    @property
    def _part(self) -> float:
        return DEFAULT_TARGET if self.target_pgr is None else self.target_pgr

    def threshold(self, outcomes: Outcomes, scores: FloatArray, slopes: FloatArray, gap: tuple[int, int]) -> float:
        """Return the highest threshold that recovers the part, or the lowest one that keeps to the amount.

        It lies above all others where no prompt may leave the cheapest model, and below where no goal is reached.
        """
        import numpy as np

        path = path_of(scores, expense=slopes)
        curve = curve_of(path, outcomes.quality, outcomes.cost, start=int(slopes.argmin()))
        if self.max_cost_usd is not None:
            kept = np.flatnonzero(curve.cost <= self.max_cost_usd)
            place = int(kept[-1]) if kept.size else 0
        else:
            means = outcomes.quality.mean(axis=0)
            reached = curve.quality >= means[gap[0]] + self._part * (means[gap[1]] - means[gap[0]]) - 1e-12
            place = int(reached.argmax()) if reached.any() else len(reached) - 1
        following = curve.threshold[place + 1] if place + 1 < len(curve.threshold) else None
        if place == 0:
            # Where no score ever calls for a dearer model every threshold does.
            return 1.0 if following is None else float(following) + _step(float(following))
        # Between two thresholds, so that a rounding puts no prompt on the other side.
        here = float(curve.threshold[place])
        return here - _step(here) if following is None else (here + float(following)) / 2


def _step(value: float) -> float:
    return 1e-6 * max(1.0, abs(value))


def operate(
    outcomes: Outcomes,
    tables: Mapping[str, FloatArray],
    fold: IntArray,
    goal: Goal,
    report: RoutingReport,
    confidence: float,
) -> list[dict[str, Any]]:
    """Return a row per router: its threshold from all prompts, and what thresholds from the other folds do to each fold."""
    import numpy as np

    if goal.max_cost_usd is not None and not outcomes.cost_known:
        raise InvalidValue(
            "max_cost_usd needs the costs of the prompts, which are not known: give cost_usd or a target_pgr"
        )
    gap = outcomes.models.index(report.weak), outcomes.models.index(report.strong)
    rows = []
    for name, (scores, slopes, places) in _routers(outcomes, tables, gap).items():
        part = _columns(outcomes, places)
        inner = places.index(gap[0]), places.index(gap[1])
        chosen = np.empty(len(outcomes), dtype=np.int64)
        for number in range(int(fold.max()) + 1):
            inside, others = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
            limit = goal.threshold(part.take(others), scores[others], slopes, inner)
            chosen[inside] = best_of(scores[inside], slopes, limit)
        whole = goal.threshold(part, scores, slopes, inner)
        rows.append({"router": name, "threshold": whole, **_figures(part, chosen, inner, goal, confidence)})
    return rows


def best_of(scores: FloatArray, slopes: FloatArray, threshold: float) -> IntArray:
    """Return the position of the best score - threshold × expense in each row; of equal ones the dearest."""
    import numpy as np

    order = np.argsort(slopes, kind="stable")[::-1]
    chosen: IntArray = order[(scores - slopes * threshold)[:, order].argmax(axis=1)]
    return chosen


def _routers(
    outcomes: Outcomes, tables: Mapping[str, FloatArray], gap: tuple[int, int]
) -> dict[str, tuple[FloatArray, FloatArray, list[int]]]:
    """Return each router's scores, its models' expenses and their positions."""
    import numpy as np

    found = {}
    if outcomes.lengths is not None:
        scores = np.column_stack([np.zeros(len(outcomes)), outcomes.lengths])
        found[LENGTH] = (scores, np.array([0.0, 1.0]), list(gap))
    for name, table in tables.items():
        found[name] = (table, expenses(outcomes), list(range(len(outcomes.models))))
    return found


def _columns(outcomes: Outcomes, places: list[int]) -> Outcomes:
    from dataclasses import replace

    models = tuple(outcomes.models[place] for place in places)
    return replace(outcomes, models=models, quality=outcomes.quality[:, places], cost=outcomes.cost[:, places])


def _figures(
    outcomes: Outcomes, chosen: IntArray, gap: tuple[int, int], goal: Goal, confidence: float
) -> dict[str, Any]:
    import numpy as np

    rows = np.arange(len(outcomes))
    quality, cost = outcomes.quality[rows, chosen], outcomes.cost[rows, chosen]
    strong = chosen == gap[1]
    columns = {
        "quality": quality,
        "cost_usd": cost,
        "quality_change": quality - outcomes.quality[:, gap[1]],
        "cost_change_usd": cost - outcomes.cost[:, gap[1]],
    }
    figures: dict[str, Any] = {"strong_share": float(strong.mean())}
    low, high = wilson_interval(strong.sum(), len(strong), confidence=confidence)
    figures |= {"strong_share_low": float(low), "strong_share_high": float(high)}
    for name, values in columns.items():
        figures[name] = float(values.mean())
        if np.isfinite(values).all():
            bounds = mean_interval_of(values, outcomes.groups, confidence=confidence)
            figures |= dict(zip((f"{name}_low", f"{name}_high"), bounds, strict=True))
    figures["reaches_goal"] = _reached(outcomes, figures, gap, goal)
    return figures


def _reached(outcomes: Outcomes, figures: Mapping[str, Any], gap: tuple[int, int], goal: Goal) -> bool:
    """Return whether the goal lies within the interval of what was reached, or is surpassed."""
    if goal.max_cost_usd is not None:
        return bool(figures["cost_usd_low"] <= goal.max_cost_usd)
    means = outcomes.quality.mean(axis=0)
    wanted = means[gap[0]] + (goal.target_pgr or DEFAULT_TARGET) * (means[gap[1]] - means[gap[0]])
    return bool(figures["quality_high"] >= wanted)
