"""Routers that are compared on the same prompts, and their figures: of the prompts as they are, and of every resample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..errors import InvalidValue, did_you_mean
from ..validation import name_value, shortened
from .curves import BINS, Curve, Path, apgr, binned_curve, cpt, cpt_interpolated, curve_of, path_of
from .hulls import aiq_of_hull, hull_area, non_decreasing_hull
from .intervals import resampled_weights
from .outcomes import Outcomes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

Kind = Literal["free", "router", "bound"]
DRAWN_POINTS = 101  # of a curve
HULL_POINTS = 11  # of a curve, for AIQ: among many more the hull would pick out those that chance favours
MIXING, LENGTH, ORACLE = "mixing", "length", "oracle"
FREE_NAMES = (MIXING, LENGTH, ORACLE)


@dataclass(frozen=True)
class Roles:
    """The positions of the two models that a gap is measured between."""

    weak: int
    strong: int


@dataclass(frozen=True)
class Contender:
    """A router with the path that its scores give; `needs` are the scores where it decides between two models."""

    name: str
    kind: Kind
    path: Path
    start: int
    needs: FloatArray | None

    @property
    def two_models(self) -> bool:
        """Whether its path goes from the weak model to the strong one."""
        return self.needs is not None


def roles_of(outcomes: Outcomes, *, weak: str | None, strong: str | None) -> Roles:
    """Return which model is the weak one (by default the cheapest) and which the strong one (the best of the others)."""
    for name, value in (("weak", weak), ("strong", strong)):
        if value is not None and value not in outcomes.models:
            raise InvalidValue(f"{name}={value!r} is none of the models{did_you_mean(value, outcomes.models)}")
    if weak is not None and weak == strong:
        raise InvalidValue(f"weak and strong are both {weak!r}: name two models")
    means = outcomes.quality.mean(axis=0)
    places = range(len(outcomes.models))
    best = outcomes.models.index(strong) if strong else None
    first = outcomes.models.index(weak) if weak else next(place for place in places if place != best)
    if best is None:
        best = max((place for place in places if place != first), key=lambda place: float(means[place]))
    return Roles(first, best)


def expenses(outcomes: Outcomes) -> FloatArray:
    """Return how dear each model is, 0 for the cheapest and 1 for the dearest; two models are 0 and 1."""
    import numpy as np

    if len(outcomes.models) == 2:
        return np.array([0.0, 1.0])
    means = outcomes.cost.mean(axis=0)
    spread: FloatArray = (means - means.min()) / max(float(means.max() - means.min()), 1e-300)
    return spread


def contenders_of(outcomes: Outcomes, roles: Roles, scores: Mapping[str, Any] | None) -> list[Contender]:
    """Return the free baselines, the given routers, and the oracle."""
    found = []
    if scores is not None and not isinstance(scores, Mapping):
        raise InvalidValue(
            f"scores is a {type(scores).__name__}: give a mapping of router and scores, {{'mine': scores}}"
        )
    if outcomes.lengths is not None:
        found.append(_of_pair(LENGTH, "free", outcomes.lengths, roles))
    for name, given in (scores or {}).items():
        if name_value(name, "the name of a router") in FREE_NAMES:
            raise InvalidValue(f"scores has a router {name!r}, which the report has already: name yours otherwise")
        values = aligned_scores(given, outcomes, name)
        found.append(_contender(name, "router", values, outcomes, roles))
    found.append(_contender(ORACLE, "bound", outcomes.quality, outcomes, roles))
    return found


def _contender(name: str, kind: Kind, values: FloatArray, outcomes: Outcomes, roles: Roles) -> Contender:
    if values.ndim == 1:
        return _of_pair(name, kind, values, roles)
    if len(outcomes.models) == 2:
        return _of_pair(name, kind, values[:, roles.strong] - values[:, roles.weak], roles)
    return Contender(name, kind, path_of(values, expense=expenses(outcomes)), int(expenses(outcomes).argmin()), None)


def _of_pair(name: str, kind: Kind, needs: FloatArray, roles: Roles) -> Contender:
    import numpy as np

    path = path_of(needs)
    full = np.full(len(path.prompt), roles.weak), np.full(len(path.prompt), roles.strong)
    return Contender(name, kind, Path(path.prompt, path.threshold, *full, path.ends), roles.weak, needs)


def aligned_scores(given: Any, outcomes: Outcomes, name: str) -> FloatArray:
    """Return a router's scores in the order of the prompts: a number each, or a column per model.

    `given` goes by prompt id: a Series or mapping of numbers, or a frame with a column per model. Raises `InvalidValue`.
    """
    import numpy as np
    import pandas as pd

    if isinstance(given, Mapping):
        given = pd.Series(given)
    if not isinstance(given, pd.Series | pd.DataFrame):
        kind = type(given).__name__
        raise InvalidValue(f"scores[{name!r}] is a {kind}: give a Series, mapping or frame that goes by prompt id")
    if isinstance(given, pd.DataFrame):
        missing = [model for model in outcomes.models if model not in given]
        if missing:
            raise InvalidValue(f"scores[{name!r}] has no column {missing[0]!r}: give a column per model")
        given = given[list(outcomes.models)]
    given = given.set_axis(given.index.astype("str"))
    if given.index.has_duplicates:
        raise InvalidValue(f"scores[{name!r}] has {shortened(given.index[given.index.duplicated()][0])} twice")
    try:
        values = given.reindex(list(outcomes.prompt_ids)).to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidValue(f"scores[{name!r}] cannot be read as numbers ({error})") from error
    bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if bad.any():
        which = shortened(outcomes.prompt_ids[int(bad.argmax())])
        raise InvalidValue(f"scores[{name!r}] has no finite score for {int(bad.sum()):,} prompts, {which} among them")
    return np.asarray(values, dtype=np.float64)


class Figures:
    """The figures of every contender, on the prompts as they are and on resamples of them.

    `estimates[name]` has a number per figure, `resampled[name]` an array: apgr, cpt50, cpt80 (two models alone), `gain`
    (mean quality above what mixing single models reaches at the same cost, or at the same share of calls where costs
    are not known), aiq and aiq_code. `gaps` and `means` are the resampled qualities of the models.
    """

    def __init__(
        self, outcomes: Outcomes, roles: Roles, contenders: list[Contender], *, resamples: int, seed: int
    ) -> None:
        import numpy as np

        self.outcomes, self.roles, self.contenders = outcomes, roles, contenders
        whole = self._of_weights(np.ones((1, len(outcomes))))
        self.estimates = {
            name: {key: float(values[0]) for key, values in found.items()} for name, found in whole.items()
        }
        blocks = [
            self._of_weights(weights) for weights in resampled_weights(outcomes.groups, resamples=resamples, seed=seed)
        ]
        self.resampled = {
            name: {key: np.concatenate([block[name][key] for block in blocks]) for key in found}
            for name, found in whole.items()
        }

    def _of_weights(self, weights: FloatArray) -> dict[str, dict[str, FloatArray]]:
        total = weights.sum(axis=1, keepdims=True)
        quality, cost = (weights @ values / total for values in (self.outcomes.quality, self.outcomes.cost))
        found = {"models": {str(place): quality[:, place] for place in range(quality.shape[1])}}
        found["models"] |= {f"{place} on frontier": on for place, on in enumerate(_on_frontier(cost, quality).T)}
        found["models"]["gap"] = quality[:, self.roles.strong] - quality[:, self.roles.weak]
        hulls = (
            [non_decreasing_hull(*row) for row in zip(cost, quality, strict=True)] if self.outcomes.cost_known else []
        )
        found[MIXING] = self._mixing(hulls, cost)
        for contender in self.contenders:
            curve = curve_of(
                contender.path, self.outcomes.quality, self.outcomes.cost, start=contender.start, weights=weights
            )
            found[contender.name] = self._of_curve(contender, curve, hulls, cost)
        return found

    def _mixing(self, hulls: list[FloatArray], cost: FloatArray) -> dict[str, FloatArray]:
        rows = zip(hulls, cost.max(axis=1).tolist(), strict=bool(hulls))
        pairs = [aiq_of_hull(hull, float(hull[0, 0]), dear) for hull, dear in rows]
        return dict(zip(("aiq", "aiq_code"), _columns(pairs, 2, len(cost)), strict=True))

    def _of_curve(
        self, contender: Contender, curve: Curve, hulls: list[FloatArray], cost: FloatArray
    ) -> dict[str, FloatArray]:
        import numpy as np

        none = np.full(len(curve.quality), np.nan)
        figures = {"apgr": none, "cpt50": none, "cpt80": none}
        if contender.two_models:
            figures["apgr"] = apgr(curve.share, curve.quality)
            figures |= {f"cpt{target}": cpt(curve.share, curve.quality, target / 100) for target in (50, 80)}
        if not hulls:
            chord = (curve.quality[:, 0] + curve.quality[:, -1]) / 2
            return {
                **figures,
                "gain": np.trapezoid(curve.quality, curve.share, axis=1) - chord,
                "aiq": none,
                "aiq_code": none,
            }
        rows, some = zip(curve.cost, curve.quality, hulls, cost, strict=True), thinned(curve.cost.shape[1], HULL_POINTS)
        columns = _columns([self._on_cost(*row, some) for row in rows], 3, len(cost))
        return figures | dict(zip(("gain", "aiq", "aiq_code"), columns, strict=True))

    def _on_cost(
        self, cost: FloatArray, quality: FloatArray, hull: FloatArray, singles: FloatArray, some: IntArray
    ) -> tuple[float, float, float]:
        """Return gain, AIQ and AIQ as RouterBench's program has it, of one curve; the hull is that of `some` points."""
        import numpy as np

        dear = float(singles.max())
        spread = dear - hull[0, 0]
        if not spread > 0:
            return (float("nan"),) * 3
        above = float(np.trapezoid(quality, cost)) - hull_area(hull, float(cost[0]), float(cost[-1]))
        return (above / spread, *aiq_of_hull(non_decreasing_hull(cost[some], quality[some]), float(hull[0, 0]), dear))

    def single(self, contender: Contender) -> tuple[float, float, float]:
        """Return what RouteLLM's program computes: APGR over ten bins, and CPT 50 % and 80 % interpolated on them.

        NaN for scores with too few distinct values for ten bins.
        """
        if contender.needs is None:
            return (float("nan"),) * 3
        pair = self.outcomes.quality[:, [self.roles.weak, self.roles.strong]]
        binned = binned_curve(contender.needs, pair)
        if len(binned.share) <= BINS:
            return (float("nan"),) * 3
        crossings = [cpt_interpolated(binned.share, binned.quality, target) for target in (0.5, 0.8)]
        return float(apgr(binned.share, binned.quality)), crossings[0], crossings[1]

    def curve(self, contender: Contender) -> Curve:
        """Return the contender's curve on the prompts as they are."""
        return curve_of(contender.path, self.outcomes.quality, self.outcomes.cost, start=contender.start)


def thinned(points: int, count: int = DRAWN_POINTS) -> IntArray:
    """Return the positions of at most so many of a curve's points in equal steps, first and last among them."""
    import numpy as np

    return np.unique(np.linspace(0, points - 1, count).round().astype(np.int64))


def _columns(rows: Sequence[tuple[float, ...]], count: int, length: int) -> list[FloatArray]:
    import numpy as np

    table = np.array(rows, dtype=np.float64) if rows else np.full((length, count), np.nan)
    return list(table.T)


def _on_frontier(cost: FloatArray, quality: FloatArray) -> FloatArray:
    """Return 1 where no other model is as good and as cheap, better in one; shape (rows, models). NaN without costs."""
    import numpy as np

    cheaper = cost[:, :, None] <= cost[:, None, :]
    better = quality[:, :, None] >= quality[:, None, :]
    truly = (cost[:, :, None] < cost[:, None, :]) | (quality[:, :, None] > quality[:, None, :])
    beaten = (cheaper & better & truly).any(axis=1)
    return np.where(np.isfinite(cost), ~beaten, np.nan).astype(np.float64)
