"""Fitting a router: learned ones and free ones on the same prompts, out of fold, and the one that evidence supports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..errors import InvalidValue, did_you_mean
from ..frames import frame
from ..recommendation import Binding, Evidence, Recommendation
from ..records import Report
from ..validation import positive_integer, shortened
from .contenders import LENGTH, expenses
from .features import FEATURES, feature_table
from .learners import LEARNERS, Calibration, Inputs, available, calibrate, calibrated, fit, predict
from .operating import Goal, operate
from .outcome_models import folds_of
from .outcomes import Outcomes
from .policies import SETTING, make_policy, plain_vectors
from .routing import FEWEST_PROMPTS, RoutingReport, routing_report

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

POLICY_COLUMNS = {
    "router": "str",
    "threshold": "float64",
    "reaches_goal": "bool",
    **{
        f"{name}{end}": "float64"
        for name in ("strong_share", "quality", "cost_usd", "quality_change", "cost_change_usd")
        for end in ("", "_low", "_high")
    },
}
CALIBRATION_COLUMNS = {
    "router": "str",
    "model": "str",
    "brier": "float64",
    "brier_of_mean": "float64",
    "ece": "float64",
}
ECE_BINS = 10


@dataclass(frozen=True)
class Vectors:
    """The prompts' vectors, and what they are: `stored` names them in the lab, None where the lab does not keep them."""

    values: FloatArray
    model: str | None = None
    stored: tuple[str, ...] | None = None


@dataclass(frozen=True, repr=False)
class RouterFit:
    """Routers fitted to the same prompts, and what follows.

    `recommendation` is what `al.apply` takes. `report` compares the routers by predictions for prompts that they did not
    see. `policies` has every router as a policy, and the frame `operating_points` what each does at the threshold that
    reaches the goal, chosen on other prompts than those it is judged on: shares, quality and cost with intervals, and
    the changes against sending every prompt to the strong model. `calibration` tells how far expected qualities can be
    taken at their word: Brier score (`brier_of_mean` is that of always saying the mean) and expected calibration error.
    """

    recommendation: Recommendation
    report: RoutingReport
    policies: Mapping[str, dict[str, Any]]
    operating_points: pd.DataFrame
    calibration: pd.DataFrame
    scores: Mapping[str, pd.DataFrame] = field(repr=False)

    def _shown(self) -> Report:
        shown = Report(verdict=self.recommendation.verdict, because=self.recommendation.because)
        for row in self.operating_points.to_dict("records"):
            quality = f"quality {row['quality']:.3f} [{row['quality_low']:.3f}, {row['quality_high']:.3f}]"
            share = f"{100 * row['strong_share']:.0f} % of prompts to {self.report.strong}"
            shown[row["router"]] = f"{share}, {quality}" + ("" if row["reaches_goal"] else ", misses the goal")
        return shown

    def __repr__(self) -> str:
        return repr(self._shown())

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return self._shown()._repr_html_()


def fit_router(
    outcomes: Outcomes,
    *,
    created_at: datetime,
    vectors: Vectors | None = None,
    learners: Sequence[str] | None = None,
    goal: Goal | None = None,
    epsilon: float = 0.0,
    folds: int = 10,
    confidence: float = 0.95,
    resamples: int = 1_000,
    seed: int = 0,
) -> RouterFit:
    """Fit routers and choose the one that evidence supports; see `Lab.fit_router`."""
    goal = goal or Goal()
    folds = positive_integer(folds, "folds", at_most=1_000)
    if folds < 2:
        raise InvalidValue("folds=1: give at least 2, so that predictions are for prompts that were not learned from")
    inputs = _inputs(outcomes, vectors)
    names = _wanted(learners, inputs)
    if outcomes.draws < max(FEWEST_PROMPTS, folds):
        names = []  # the report says that there are too few
    fold = folds_of(outcomes.groups, folds, seed)
    fitted = {name: _out_of_fold(name, inputs, outcomes.quality, fold, seed) for name in names}
    scores = {name: _scores_frame(outcomes, found.expected) for name, found in fitted.items()}
    report = routing_report(outcomes, scores=scores, confidence=confidence, resamples=resamples, seed=seed)
    tables = {name: found.expected for name, found in fitted.items()}
    points = operate(outcomes, tables, fold, goal, report, confidence)
    build = _Builder(outcomes, inputs, vectors, fitted, report, epsilon, seed)
    policies = build.policies({row["router"]: row["threshold"] for row in points})
    return RouterFit(
        recommendation=_recommendation(report, policies, points, goal, created_at, folds, seed),
        report=report,
        policies=policies,
        operating_points=frame(points, POLICY_COLUMNS),
        calibration=frame(_calibration_rows(outcomes, fitted), CALIBRATION_COLUMNS),
        scores=scores,
    )


def _inputs(outcomes: Outcomes, vectors: Vectors | None) -> Inputs:
    import numpy as np

    features = np.empty((len(outcomes), 0)) if outcomes.texts is None else feature_table(outcomes.texts)
    if vectors is None:
        return Inputs(features, np.empty((len(outcomes), 0)))
    values = np.asarray(vectors.values, dtype=np.float64)
    if values.ndim != 2 or len(values) != len(outcomes):
        raise InvalidValue(f"vectors have the shape {values.shape}: give a row for each of {len(outcomes):,} prompts")
    if not np.isfinite(values).all():
        raise InvalidValue(f"{int((~np.isfinite(values)).any(axis=1).sum()):,} vectors are not finite: leave them out")
    return Inputs(features, values)


def _wanted(learners: Sequence[str] | None, inputs: Inputs) -> list[str]:
    possible = available(inputs)
    if learners is None:
        return possible
    if isinstance(learners, str):
        raise InvalidValue(f"learners={learners!r} is a text: give a list, such as ['linear']")
    for name in learners:
        if name not in LEARNERS:
            raise InvalidValue(f"there is no learner {shortened(name)}{did_you_mean(str(name), LEARNERS)}")
        if name not in possible:
            raise InvalidValue(
                f"{name!r} has nothing to learn from: it needs vectors{'' if name == 'knn' else ' or texts'}"
            )
    return list(dict.fromkeys(learners))


@dataclass(frozen=True)
class _Fitted:
    """A learner's calibrated expectations for prompts it did not see, and the calibration for those to come."""

    expected: FloatArray
    calibration: list[Calibration]


def _out_of_fold(name: str, inputs: Inputs, quality: FloatArray, fold: IntArray, seed: int) -> _Fitted:
    import numpy as np

    raw = np.empty(quality.shape)
    for part in range(int(fold.max()) + 1):
        inside, outside = np.flatnonzero(fold == part), np.flatnonzero(fold != part)
        parameters = fit(name, inputs.take(outside), quality[outside], seed=seed)
        raw[inside] = predict(name, parameters, inputs.take(inside))
    expected = np.empty(quality.shape)
    for part in range(int(fold.max()) + 1):
        inside, outside = fold == part, fold != part
        expected[inside] = calibrated(raw[inside], _calibrations(raw[outside], quality[outside]))
    return _Fitted(expected, _calibrations(raw, quality))


def _calibrations(expected: FloatArray, quality: FloatArray) -> list[Calibration]:
    return [calibrate(*columns) for columns in zip(expected.T, quality.T, strict=True)]


def _scores_frame(outcomes: Outcomes, expected: FloatArray) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(expected, index=list(outcomes.prompt_ids), columns=list(outcomes.models))


def _calibration_rows(outcomes: Outcomes, fitted: Mapping[str, _Fitted]) -> list[dict[str, Any]]:
    rows = []
    for name, found in fitted.items():
        for place, model in enumerate(outcomes.models):
            quality, expected = outcomes.quality[:, place], found.expected[:, place]
            brier = float(((expected - quality) ** 2).mean())
            row = {"router": name, "model": model, "brier": brier, "brier_of_mean": float(quality.var())}
            rows.append({**row, "ece": expected_calibration_error(expected, quality)})
    return rows


def expected_calibration_error(expected: FloatArray, quality: FloatArray, *, bins: int = ECE_BINS) -> float:
    """Return how far expectations are from what came, averaged over bins of equal size (Naeini et al. 2015)."""
    import numpy as np

    parts = np.array_split(np.argsort(expected, kind="stable"), min(bins, len(expected)))
    gaps = [len(part) * abs(expected[part].mean() - quality[part].mean()) for part in parts]
    return float(sum(gaps) / len(expected))


@dataclass(frozen=True)
class _Builder:
    """Makes policies of what was fitted."""

    outcomes: Outcomes
    inputs: Inputs
    vectors: Vectors | None
    fitted: Mapping[str, _Fitted]
    report: RoutingReport
    epsilon: float
    seed: int

    def policies(self, thresholds: Mapping[str, float]) -> dict[str, dict[str, Any]]:
        """Return every policy that can be written down, by router."""
        report, made = self.report, {}
        for model in dict.fromkeys((report.weak, report.strong)):
            made[model] = make_policy("always", [model], evidence=self._evidence(model))
        if self.outcomes.length_unit == "characters" and LENGTH in thresholds:
            pair = [report.weak, report.strong]
            options: dict[str, Any] = {"threshold": thresholds[LENGTH], "epsilon": self.epsilon}
            made[LENGTH] = make_policy("length", pair, evidence=self._evidence(LENGTH), **options)
        for name in self.fitted:
            policy = self._learned(name, thresholds[name])
            if policy is not None:
                made[name] = policy
        return made

    def _learned(self, name: str, threshold: float) -> dict[str, Any] | None:
        parameters = fit(name, self.inputs, self.outcomes.quality, seed=self.seed)
        if name == "knn":
            vectors = self.vectors or Vectors(self.inputs.vectors)
            stored = None if vectors.stored is None or vectors.model is None else (vectors.model, vectors.stored)
            parameters["vectors"] = plain_vectors(self.inputs.vectors, stored)
            if parameters["vectors"] is None:
                return None
        parameters["features"] = list(FEATURES) if self.inputs.features.shape[1] else []
        parameters["calibration"] = [list(item) for item in self.fitted[name].calibration]
        dimensions = self.inputs.vectors.shape[1]
        model = None if self.vectors is None else self.vectors.model
        return make_policy(
            name,
            self.outcomes.models,
            threshold=threshold,
            expense=expenses(self.outcomes).tolist(),
            parameters=parameters,
            embedding={"model": model, "dimensions": dimensions} if dimensions else None,
            epsilon=self.epsilon,
            evidence=self._evidence(name),
        )

    def _evidence(self, name: str) -> dict[str, Any]:
        """Return what a policy says of itself, for a reader of the settings."""
        report = self.report
        rows = report.routers[report.routers["router"] == name].to_dict("records")
        kept = ("apgr", "apgr_low", "apgr_high", "gain", "gain_low", "gain_high", "verdict")
        figures = {key: plain_number(rows[0][key]) for key in kept} if rows else {}
        return {"prompts": report.different_prompts, "data_hash": report.data_hash, **figures}


def plain_number(value: Any) -> Any:
    """Return a figure as JSON has it: NaN is None, and six digits are enough."""
    if isinstance(value, float):
        return None if value != value else float(f"{value:.6g}")
    return value


def _recommendation(
    report: RoutingReport,
    policies: Mapping[str, dict[str, Any]],
    points: Sequence[Mapping[str, Any]],
    goal: Goal,
    created_at: datetime,
    folds: int,
    seed: int,
) -> Recommendation:
    tested = report.routers[report.routers["kind"] != "bound"].iloc[1:]
    candidate = report.best
    if candidate is None and len(tested):
        candidate = str(tested["router"].iloc[int(tested["gain"].argmax())])
    policy = policies.get(candidate) if candidate is not None else None
    verdict, because = report.verdict, report.because
    if verdict == "recommend" and policy is None:
        verdict = "cannot tell yet"
        because = f"{because}; but {candidate} cannot be written down as a policy: give the prompts' texts"
    kept = ("router", "apgr", "apgr_low", "apgr_high", "gain", "gain_low", "gain_high", "verdict", "more_prompts")
    routers = report.routers[list(kept)].astype(object).where(report.routers[list(kept)].notna(), None)
    point = next((dict(row) for row in points if row["router"] == candidate), {})
    details = {
        "goal": str(goal),
        "routers": [{key: plain_number(value) for key, value in row.items()} for row in routers.to_dict("records")],
        "operating_point": {key: plain_number(value) for key, value in point.items()},
        "folds": folds,
        "seed": seed,
    }
    binding = policy["embedding"] if policy else None
    return Recommendation(
        "routing",
        {SETTING: policy} if policy else {},
        verdict,
        because,
        Evidence(
            report.different_prompts,
            *_measured(report, candidate),
            held_out=True,
            data_hash=report.data_hash,
            details=details,
        ),
        Binding(binding["model"], binding["dimensions"]) if binding and binding["model"] else Binding(),
        created_at=created_at,
    )


def _measured(report: RoutingReport, candidate: str | None) -> tuple[str, float | None, float | None, float | None]:
    """Return what the evidence for a candidate measures: its gain over the free alternatives, or a gap of models."""
    rows = report.routers[report.routers["router"] == candidate].to_dict("records")
    if not rows:
        bounds = (report.gap, report.gap_low, report.gap_high)
        return (f"quality of {report.strong} over {report.weak}", *map(plain_number, bounds))
    over = "gain_over_length" if rows[0]["gain_over_length"] == rows[0]["gain_over_length"] else "gain"
    against = "routing by length" if over != "gain" else "mixing models"
    axis = "cost" if report.models["on_frontier"].notna().all() else "share of calls"
    figures = [plain_number(rows[0][f"{over}{end}"]) for end in ("", "_low", "_high")]
    return (f"quality gained over {against} at equal {axis}", *figures)
