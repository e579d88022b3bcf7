"""Pictures of routing: the cost-quality plane with models, routers and free alternatives, and replays with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InvalidValue, did_you_mean
from .drawing import (
    GREY,
    MARKERS,
    PALETTE,
    SMALL,
    axes_of,
    constant,
    finish,
    groups_of,
    label_points,
    legend,
    no_data,
    require,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MODELS = ["model", "role", "cost_usd_mean", "quality_mean", "quality_low", "quality_high", "on_hull"]
CURVES = ["router", "share", "cost_usd", "quality"]
POINTS = ["router", "strong_share", "cost_usd", "quality", "quality_low", "quality_high"]
ESTIMATES = ["measure", "estimator", "estimate", "low", "high", "logged", "verdict"]
MEASURE_LABELS = {"quality_score": "Mean quality (0 to 1)", "cost_usd": "Cost per decision (USD)"}


def cost_quality_plane(
    frame: pd.DataFrame,
    *,
    curves: pd.DataFrame | None = None,
    points: pd.DataFrame | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw models and routers by what a prompt costs and how good its answer is, with 95 % intervals of quality.

    Takes `models` of `al.routing_report()`, its `curves` (a router at every threshold; the dashed line is what mixing
    models by lot reaches), and the `operating_points` of `al.fit_router()`. The oracle is drawn where it chooses the best
    answer to each prompt. Where costs are not known the share of prompts at the strong model takes their place.
    """
    import numpy as np

    require(frame, MODELS, "cost_quality_plane", "al.routing_report().models")
    for given, columns, verb in (
        (curves, CURVES, "al.routing_report().curves"),
        (points, POINTS, "al.fit_router().operating_points"),
    ):
        if given is not None:
            require(given, columns, "cost_quality_plane", verb)
    ax = axes_of(ax)
    models = frame.dropna(subset=["quality_mean"])
    if models.empty:
        return no_data(ax, "no model with a quality")
    by_cost = bool(models["cost_usd_mean"].notna().all())
    models = models if by_cost else models[models["role"] != ""]
    x = 1_000 * models["cost_usd_mean"] if by_cost else models["role"].map({"weak": 0.0, "strong": 100.0})
    places, quality = (np.asarray(values, dtype=np.float64) for values in (x, models["quality_mean"]))
    corners = models["on_hull"].to_numpy(dtype=bool) if by_cost else np.ones(len(models), dtype=bool)
    handles = [_mixing(ax, places[corners], quality[corners], end=places.max())]
    if curves is not None:
        handles += _curves(ax, curves, points, by_cost)
    errors = [
        quality - models["quality_low"].fillna(models["quality_mean"]),
        models["quality_high"].fillna(models["quality_mean"]) - quality,
    ]
    ax.errorbar(places, quality, yerr=errors, fmt="o", color="black", markersize=6, capsize=3, zorder=4)
    ax.margins(x=0.1, y=0.12)
    ax.set_xlabel("Cost per 1,000 prompts (USD)" if by_cost else "Prompts at the strong model (%)")
    ax.set_ylabel("Mean quality, 95 % interval")
    finish(ax, grid="both")
    legend(ax, handles)
    label_points(ax, places, quality, models["model"].astype(str).tolist(), steps=[])
    return ax


def _mixing(ax: Axes, x: Floats, y: Floats, *, end: float) -> Any:
    """Draw what lots between models reach: the hull through its corners, going on flat to the right."""
    import numpy as np

    order = np.argsort(x, kind="stable")
    across, up = [*x[order], end], [*y[order], y.max()]
    return ax.plot(across, up, color=GREY, linestyle="--", linewidth=1.2, label="mixing by lot", zorder=2)[0]


def _curves(ax: Axes, curves: pd.DataFrame, points: pd.DataFrame | None, by_cost: bool) -> list[Any]:
    """Draw each router's curve, with its operating point, and the oracle; return the legend's entries."""
    column, factor = ("cost_usd", 1_000.0) if by_cost else ("share", 100.0)
    known = curves.dropna(subset=[column, "quality"])
    routers = known[~known["router"].isin(["oracle", "length"])]
    _, groups = groups_of(routers["router"], constant(routers, 1), "router") if len(routers) else (None, [])
    looks = [("length", GREY, "-.")] + [(group.name, group.colour, "-") for group in groups]
    handles = []
    for number, (name, colour, style) in enumerate(looks):
        own = known[known["router"] == name]
        if own.empty:
            continue
        line = ax.plot(
            factor * own[column], own["quality"], color=colour, linestyle=style, linewidth=1.8, label=name, zorder=3
        )
        handles.append(line[0])
        if points is not None:
            _point(ax, points[points["router"] == name], by_cost, colour, MARKERS[number % len(MARKERS)])
    best = known[known["router"] == "oracle"]
    if len(best):
        top = best.iloc[int(best["quality"].argmax())]
        star: dict[str, Any] = {"color": "black", "markerfacecolor": "white", "markersize": 12, "linestyle": ""}
        handles += ax.plot(factor * top[column], top["quality"], "*", label="oracle", zorder=3, **star)
    return handles


def _point(ax: Axes, rows: pd.DataFrame, by_cost: bool, colour: str, marker: str) -> None:
    for row in rows.to_dict("records"):
        x = 1_000 * row["cost_usd"] if by_cost else 100 * row["strong_share"]
        error = [[row["quality"] - row["quality_low"]], [row["quality_high"] - row["quality"]]]
        style: dict[str, Any] = {"color": colour, "markersize": 7, "markeredgecolor": "white", "capsize": 2}
        ax.errorbar(x, row["quality"], yerr=error, fmt=marker, zorder=5, **style)


def replay_intervals(
    frame: pd.DataFrame, *, measure: str = "quality_score", by: str = "policy", ax: Axes | None = None
) -> Axes:
    """Draw what policies would have achieved on logged decisions, by estimator, with 95 % intervals.

    Takes `estimates` of `al.replay()`, of several policies joined with a column `by` that names them. The line is what
    was logged. Where nothing can be told, it is said.
    """
    require(frame, ESTIMATES, "replay_intervals", "al.replay().estimates")
    known = sorted(frame["measure"].dropna().unique())
    ax = axes_of(ax)
    if not known:
        return no_data(ax, "no estimates")
    if measure not in known:
        raise InvalidValue(f"measure={measure!r} is not in the frame{did_you_mean(measure, known)}")
    rows = frame[frame["measure"] == measure]
    names = rows[by].astype(str) if by in rows else rows["estimator"]
    order, estimators = list(dict.fromkeys(names)), list(dict.fromkeys(rows["estimator"]))
    for place, name in enumerate(order):
        own = rows[names == name]
        for number, row in enumerate(own.to_dict("records")):
            _estimate(ax, row, place + 0.8 * ((number + 0.5) / len(own) - 0.5), estimators.index(row["estimator"]))
        if (own["verdict"] == "not identifiable").all():
            behind = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            ax.text(
                0.5, place, "not identifiable", transform=ax.get_yaxis_transform(), ha="center", bbox=behind, **SMALL
            )
    line = ax.axvline(rows["logged"].iloc[0], color=GREY, linestyle="--", linewidth=1.2, label="logged", zorder=1)
    ax.set_yticks(range(len(order)), order)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(order) - 0.5, -0.5)
    ax.margins(x=0.08)
    ax.set_xlabel(f"{MEASURE_LABELS.get(measure, measure)}, 95 % interval")
    finish(ax, grid="x")
    return legend(ax, [*(_markers(estimators) if by in rows else []), line], above=True)


def _estimate(ax: Axes, row: dict[Any, Any], y: float, number: int) -> None:
    if row["estimate"] != row["estimate"]:
        return
    colour = PALETTE[number % len(PALETTE)]
    ax.hlines(y, row["low"], row["high"], color=colour, linewidth=1.5, zorder=2)
    ax.plot(
        row["estimate"],
        y,
        MARKERS[number % len(MARKERS)],
        color=colour,
        markeredgecolor="white",
        markersize=7,
        zorder=3,
    )


def _markers(estimators: Sequence[str]) -> list[Any]:
    from matplotlib.lines import Line2D

    return [
        Line2D(
            [], [], linestyle="", marker=MARKERS[place % len(MARKERS)], color=PALETTE[place % len(PALETTE)], label=name
        )
        for place, name in enumerate(estimators)
    ]
