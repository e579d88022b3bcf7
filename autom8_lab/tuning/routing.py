"""The routing report: what models and routers achieve on the same prompts, what it costs, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InvalidValue
from ..frames import frame
from ..recommendation import Verdict
from ..records import Report
from ..validation import positive_integer
from .contenders import LENGTH, MIXING, ORACLE, Contender, Figures, Roles, contenders_of, roles_of, thinned
from .curves import pgr
from .hulls import non_decreasing_hull
from .intervals import mean_interval_of, more_needed, percentile_interval
from .outcomes import Outcomes, outcomes_of

if TYPE_CHECKING:
    import pandas as pd

FEWEST_PROMPTS = 30
MODEL_COLUMNS = {
    "model": "str",
    "role": "str",
    "prompts": "int64",
    **dict.fromkeys(("quality_mean", "quality_low", "quality_high"), "float64"),
    **dict.fromkeys(("cost_usd_mean", "cost_usd_low", "cost_usd_high"), "float64"),
    "on_frontier": "boolean",
    "on_hull": "boolean",
    "frontier_share": "float64",
}
BOUNDED = ("apgr", "cpt50", "cpt80", "aiq", "gain", "apgr_over_length", "gain_over_length")
ROUTER_COLUMNS = {
    "router": "str",
    "kind": "str",
    **{f"{name}{end}": "float64" for name in BOUNDED for end in ("", "_low", "_high")},
    **dict.fromkeys(("aiq_code", "apgr_ten_bins", "cpt50_ten_bins", "cpt80_ten_bins"), "float64"),
    "verdict": "str",
    "more_prompts": "Int64",
}
CURVE_COLUMNS = {"router": "str", **dict.fromkeys(("threshold", "share", "cost_usd", "quality", "pgr"), "float64")}


@dataclass(frozen=True, repr=False)
class RoutingReport:
    """What models and routers achieve on the same prompts.

    `models`, `routers` and `curves` are frames; `verdict` and `because` say what follows. `gap`, `gap_low` and `gap_high`
    are the strong model's mean quality less the weak one's. `oracle_quality` is what choosing the best answer to
    each prompt would reach, at `oracle_cost_usd`. `prompts` took part, `different_prompts` counts equal texts once, and
    `left_out` tells how many did not, and why.
    """

    verdict: Verdict
    because: str
    best: str | None
    weak: str
    strong: str
    gap: float
    gap_low: float
    gap_high: float
    oracle_quality: float
    oracle_cost_usd: float
    prompts: int
    different_prompts: int
    left_out: Mapping[str, int]
    length_unit: str | None
    confidence: float
    data_hash: str
    models: pd.DataFrame
    routers: pd.DataFrame
    curves: pd.DataFrame

    def _shown(self) -> Report:
        gap = f"{self.gap:.4f} [{self.gap_low:.4f}, {self.gap_high:.4f}], {self.strong} over {self.weak}"
        left_out = ", ".join(f"{count:,} {reason}" for reason, count in self.left_out.items())
        rows = {name: _in_a_line(row) for name, row in self.routers.set_index("router").iterrows()}
        named = {str(name): text for name, text in rows.items()}
        return Report(
            verdict=self.verdict,
            because=self.because,
            prompts=self.prompts,
            left_out=left_out or "none",
            gap=gap,
            **named,
        )

    def __repr__(self) -> str:
        return repr(self._shown())

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return self._shown()._repr_html_()


def _in_a_line(row: Any) -> str:
    parts = []
    for name, label in (("apgr", "APGR"), ("gain", "gain"), ("aiq", "AIQ")):
        if row[name] == row[name]:
            bounds = (
                f" [{row[name + '_low']:.3f}, {row[name + '_high']:.3f}]"
                if row[f"{name}_low"] == row[f"{name}_low"]
                else ""
            )
            parts.append(f"{label} {row[name]:.3f}{bounds}")
    return ", ".join([*parts, row["verdict"]] if row["verdict"] == row["verdict"] and row["verdict"] else parts)


def routing_report(
    outcomes: pd.DataFrame | Outcomes,
    *,
    prompt: str = "prompt_id",
    texts: Mapping[str, str] | None = None,
    scores: Mapping[str, Any] | None = None,
    models: Sequence[str] | None = None,
    weak: str | None = None,
    strong: str | None = None,
    confidence: float = 0.95,
    resamples: int = 1_000,
    seed: int = 0,
) -> RoutingReport:
    """Compare models, routers and the free alternatives on the same prompts; see `Lab.routing_report`."""
    if not 0 < confidence < 1:
        raise InvalidValue(f"confidence is {confidence}: give a value between 0 and 1, such as 0.95")
    resamples = positive_integer(resamples, "resamples", at_most=100_000)
    if resamples < 100:
        raise InvalidValue(f"resamples={resamples}: use at least 100, 1,000 for a published interval")
    if not isinstance(outcomes, Outcomes):
        outcomes = outcomes_of(outcomes, prompt=prompt, models=models, texts=texts)
    roles = roles_of(outcomes, weak=weak, strong=strong)
    if len(outcomes.models) > 2 and not outcomes.cost_known:
        names = ", ".join(outcomes.models)
        raise InvalidValue(f"the costs of {names} are not known: give cost_usd, or models=[two of them]")
    contenders = contenders_of(outcomes, roles, scores)
    figures = Figures(outcomes, roles, contenders, resamples=resamples, seed=seed)
    return _report(outcomes, roles, contenders, figures, confidence)


def _report(
    outcomes: Outcomes, roles: Roles, contenders: list[Contender], figures: Figures, confidence: float
) -> RoutingReport:
    enough = outcomes.draws >= FEWEST_PROMPTS
    gap = outcomes.quality[:, roles.strong] - outcomes.quality[:, roles.weak]
    bounds = mean_interval_of(gap, outcomes.groups, confidence=confidence) if enough else (float("nan"),) * 2
    rows = _router_rows(figures, confidence, enough=enough, gap_low=bounds[0])
    names = outcomes.models[roles.weak], outcomes.models[roles.strong]
    verdict, because, best = _verdict(outcomes, rows, names, (float(gap.mean()), *bounds), confidence)
    quality, cost = _oracle(outcomes)
    return RoutingReport(
        verdict=verdict,
        because=because,
        best=best,
        weak=names[0],
        strong=names[1],
        gap=float(gap.mean()),
        gap_low=bounds[0],
        gap_high=bounds[1],
        oracle_quality=quality,
        oracle_cost_usd=cost,
        prompts=len(outcomes),
        different_prompts=outcomes.draws,
        left_out=outcomes.left_out,
        length_unit=outcomes.length_unit,
        confidence=confidence,
        data_hash=outcomes.data_hash,
        models=_model_frame(outcomes, roles, figures, confidence, enough=enough),
        routers=frame(rows, ROUTER_COLUMNS),
        curves=frame([row for contender in contenders for row in _curve_rows(contender, figures)], CURVE_COLUMNS),
    )


def _oracle(outcomes: Outcomes) -> tuple[float, float]:
    """Return what the best answer to each prompt reaches, and its cost: the cheapest of equally good ones."""
    import numpy as np

    cost = np.nan_to_num(outcomes.cost)
    best = outcomes.quality.max(axis=1, keepdims=True)
    chosen = np.where(outcomes.quality == best, cost, np.inf).argmin(axis=1)
    rows = np.arange(len(outcomes))
    return float(best.mean()), float(outcomes.cost[rows, chosen].mean())


def _model_frame(
    outcomes: Outcomes, roles: Roles, figures: Figures, confidence: float, *, enough: bool
) -> pd.DataFrame:
    quality, cost = outcomes.quality.mean(axis=0), outcomes.cost.mean(axis=0)
    corners = {tuple(corner) for corner in non_decreasing_hull(cost, quality)} if outcomes.cost_known else set()
    rows = []
    for place, model in enumerate(outcomes.models):
        row: dict[str, Any] = {"model": model, "prompts": len(outcomes), "role": ""}
        row["role"] = {roles.weak: "weak", roles.strong: "strong"}.get(place, "")
        for name, values in (("quality", outcomes.quality[:, place]), ("cost_usd", outcomes.cost[:, place])):
            row[f"{name}_mean"] = float(values.mean())
            if enough and (name == "quality" or outcomes.cost_known):
                low, high = mean_interval_of(values, outcomes.groups, confidence=confidence)
                row |= {f"{name}_low": low, f"{name}_high": high}
        if outcomes.cost_known:
            row["on_frontier"] = bool(figures.estimates["models"][f"{place} on frontier"])
            row["on_hull"] = (float(cost[place]), float(quality[place])) in corners
            row["frontier_share"] = (
                float(figures.resampled["models"][f"{place} on frontier"].mean()) if enough else None
            )
        rows.append(row)
    return frame(rows, MODEL_COLUMNS)


def _router_rows(figures: Figures, confidence: float, *, enough: bool, gap_low: float) -> list[dict[str, Any]]:
    """Return the rows of the routers: mixing first, the oracle last."""
    mixing = {"router": MIXING, "kind": "free", "apgr": 0.5 if gap_low > 0 else None, "gain": 0.0}
    bound = 0.5 if gap_low > 0 else None
    mixing |= {"cpt50": bound, "cpt80": 0.8 if bound else None, "verdict": "", **figures.estimates[MIXING]}
    if enough:
        mixing |= _bounds("aiq", figures.resampled[MIXING], figures.estimates[MIXING], confidence)
    tested = [contender.name for contender in figures.contenders if contender.kind != "bound"]
    adjusted = 1 - (1 - confidence) / max(1, len(tested))
    rows = [mixing]
    for contender in figures.contenders:
        row: dict[str, Any] = {"router": contender.name, "kind": contender.kind, "verdict": ""}
        row |= dict(zip(("apgr_ten_bins", "cpt50_ten_bins", "cpt80_ten_bins"), figures.single(contender), strict=True))
        estimates, resampled = dict(figures.estimates[contender.name]), dict(figures.resampled[contender.name])
        if contender.kind == "router" and LENGTH in figures.estimates:
            for name in ("apgr", "gain"):
                estimates[f"{name}_over_length"] = estimates[name] - figures.estimates[LENGTH][name]
                resampled[f"{name}_over_length"] = resampled[name] - figures.resampled[LENGTH][name]
        row |= estimates
        if enough:
            for name in BOUNDED:
                row |= _bounds(name, resampled, estimates, confidence) if name in resampled else {}
            if contender.kind != "bound":
                row |= _judged(estimates, resampled, figures.outcomes.draws, adjusted)
        elif contender.kind != "bound":
            row["verdict"] = "cannot tell yet"
        rows.append(row if gap_low > 0 else _without_gap(row))
    return rows


def _bounds(
    name: str, resampled: Mapping[str, Any], estimates: Mapping[str, float], confidence: float
) -> dict[str, float]:
    """Return the interval of a figure as its two columns; that of AIQ is corrected for the hull's bias."""
    estimate = estimates[name] if name == "aiq" else None
    bounds = percentile_interval(resampled[name], confidence=confidence, estimate=estimate)
    return dict(zip((f"{name}_low", f"{name}_high"), bounds, strict=True))


def _without_gap(row: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is measured in parts of a gap that may not exist."""
    return {name: value for name, value in row.items() if not name.startswith(("apgr", "cpt"))}


def _judged(estimates: dict[str, float], resampled: dict[str, Any], draws: int, confidence: float) -> dict[str, Any]:
    """Return whether a router is better than the free alternatives, and how many more prompts may tell."""
    tests = [name for name in ("gain", "gain_over_length") if name in estimates]
    found = {name: percentile_interval(resampled[name], confidence=confidence) for name in tests}
    if all(low > 0 for low, _ in found.values()):
        return {"verdict": "better than free"}
    if any(high < 0 for _, high in found.values()):
        return {"verdict": "worse than free"}
    needed = [
        more_needed(estimates[name], *found[name], draws, confidence=confidence)
        for name in tests
        if found[name][0] <= 0
    ]
    known = [count for count in needed if count is not None]
    return {"verdict": "cannot tell yet", "more_prompts": max(known) if needed and len(known) == len(needed) else None}


def _verdict(
    outcomes: Outcomes,
    rows: list[dict[str, Any]],
    names: tuple[str, str],
    gap: tuple[float, float, float],
    confidence: float,
) -> tuple[Verdict, str, str | None]:
    weak, strong = names
    estimate, low, high = gap
    between = f"{estimate:+.3f} [{low:+.3f}, {high:+.3f}]"
    if outcomes.draws < FEWEST_PROMPTS:
        some = f"{outcomes.draws} different prompts: at least {FEWEST_PROMPTS} are needed for an interval"
        return "cannot tell yet", some, None
    if high < 0:
        dearer = ", which costs more" if outcomes.cost_known else ""
        return "recommend", f"{weak} is better than {strong}{dearer}: {between}; use {weak} alone", weak
    if low <= 0:
        needed = more_needed(abs(estimate), low, high, outcomes.draws, confidence=confidence)
        reason = f"whether {strong} is better than {weak} is not known: {between}{_more(needed)}"
        return "cannot tell yet", reason, None
    tested = [row for row in rows if row["kind"] != "bound" and row["router"] != MIXING]
    better = [row for row in tested if row["verdict"] == "better than free"]
    if better:
        # A router is chosen before the length of the prompt, which it has beaten.
        best = max(better, key=lambda row: (row["kind"] == "router", row["gain"]))
        free = "mixing models" if best["router"] == LENGTH else "every free alternative"
        return "recommend", f"{best['router']} is better than {free} at equal {_axis(outcomes)}", best["router"]
    if not tested:
        return "cannot tell yet", "there is no router to judge: give scores, or the prompts' texts", None
    first = max(tested, key=lambda row: row["gain"])
    reason = f"no router is better than the free alternatives beyond its interval; the best is {first['router']}"
    return "cannot tell yet", reason + _more(first.get("more_prompts")), None


def _axis(outcomes: Outcomes) -> str:
    return "cost" if outcomes.cost_known else "share of calls"


def _more(count: int | None) -> str:
    return "" if count is None else f", about {count:,} more prompts needed"


def _curve_rows(contender: Contender, figures: Figures) -> list[dict[str, Any]]:
    curve = figures.curve(contender)
    recovered = pgr(curve.quality)
    columns = (curve.threshold, curve.share, curve.cost, curve.quality, recovered)
    names = list(CURVE_COLUMNS)[1:]
    return [
        {"router": contender.name, **dict(zip(names, (float(column[place]) for column in columns), strict=True))}
        for place in thinned(len(curve.share))
    ]


__all__ = ["LENGTH", "MIXING", "ORACLE", "RoutingReport", "routing_report"]
