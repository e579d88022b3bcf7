"""The plot of a benchmark's frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .drawing import FIGURE_INCHES, GREY, MARKERS, PALETTE, SMALL, axes_of, finish, log_axis, no_data, require

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

ROW_INCHES = 0.38
COLUMNS = ("what", "against", "better", "ratio", "ratio_low", "ratio_high", "bar_on", "bar", "held")
# What a bar says of a row, how that is drawn, and what the legend calls it.
LOOKS = (
    (True, PALETTE[2], MARKERS[0], "bar held"),
    (False, PALETTE[3], MARKERS[1], "bar missed"),
    (None, PALETTE[0], MARKERS[3], "no bar"),
)
BAR: dict[str, Any] = {"linestyle": "", "marker": "|", "color": "black", "markersize": 11, "markeredgewidth": 1.6}


def benchmark(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw how fast each figure is against its bare alternative, on a log axis: right of 1 is faster.

    Takes `al.benchmark()`: the medians of the ratios with their quartiles, and the bars that are set for ratios. A
    figure that has no alternative, or whose bar is on the figure itself, says so in the legend or by its colour.
    """
    require(frame, COLUMNS, "benchmark", "al.benchmark()")
    known = frame.dropna(subset=["ratio"])
    if known.empty:
        return no_data(axes_of(ax), "no figure with an alternative")
    if ax is None:
        import matplotlib.pyplot as plt

        inches = (FIGURE_INCHES[0], max(FIGURE_INCHES[1], 1.2 + ROW_INCHES * len(known)))
        ax = plt.subplots(figsize=inches, layout="constrained")[1]
    rows = known.to_dict("records")
    for place, row in enumerate(rows):
        _draw_row(ax, place, row)
    ax.axvline(1, color=GREY, linestyle="--", linewidth=1, zorder=1)
    ax.set_xscale("log")
    low, high = ax.dataLim.intervalx
    log_axis(ax.xaxis, high / low)
    ax.margins(x=0.08)
    ax.set_ylim(len(rows) - 0.4, -0.8)
    _name_rows(ax, rows)
    ax.set_xlabel("Speed, bare = 1 (log scale)")
    finish(ax, grid="x")
    return _legend(ax, rows, alone=len(frame) - len(rows))


def _draw_row(ax: Axes, place: int, row: dict[Any, Any]) -> None:
    from matplotlib.patheffects import withStroke

    colour, marker, _ = _look(row["held"])
    at, *ends = (_speed(row[name], row["better"]) for name in ("ratio", "ratio_low", "ratio_high"))
    ax.hlines(place, min(ends), max(ends), color=colour, linewidth=1.8, zorder=3)
    ax.plot(at, place, marker, color=colour, markersize=7, markeredgecolor="white", zorder=4)
    if row["bar_on"] == "ratio":
        ends.append(_speed(row["bar"], row["better"]))
        ax.plot(ends[-1], place, **BAR)
    number = f"{at:.2g}" if at < 100 else f"{at:,.0f}"
    beside: dict[str, Any] = {"xytext": (7, 0), "textcoords": "offset points", "zorder": 5, **SMALL}
    ax.annotate(number, (max(at, *ends), place), path_effects=[withStroke(linewidth=2.5, foreground="white")], **beside)


def _name_rows(ax: Axes, rows: list[dict[Any, Any]]) -> None:
    """Write what each row is, and below it in grey what it is compared with."""
    places = range(len(rows))
    ax.yaxis.remove_overlapping_locs = False  # or there would be no second label
    ax.set_yticks(places, [row["what"] for row in rows], fontsize="small", va="bottom")
    ax.set_yticks(
        places, [f"/ {row['against']}" for row in rows], minor=True, va="top", color="0.35", fontsize="x-small"
    )
    ax.tick_params(axis="y", which="both", length=0)


def _speed(ratio: float, better: str) -> float:
    return float(ratio if better == "higher" else 1 / ratio)


def _look(held: Any) -> tuple[str, str, str]:
    import pandas as pd

    known = None if pd.isna(held) else bool(held)
    return next((colour, marker, label) for value, colour, marker, label in LOOKS if value is known)


def _legend(ax: Axes, rows: list[dict[Any, Any]], *, alone: int) -> Axes:
    from matplotlib.lines import Line2D

    shown = {_look(row["held"]) for row in rows}
    style: dict[str, Any] = {"linestyle": "", "markersize": 7, "markeredgecolor": "white"}
    handles = [
        Line2D([], [], marker=marker, color=colour, label=label, **style)
        for _, colour, marker, label in LOOKS
        if (colour, marker, label) in shown
    ]
    if any(row["bar_on"] == "ratio" for row in rows):
        handles.append(Line2D([], [], label="the bar", **BAR))
    if alone:
        handles.append(Line2D([], [], linestyle="", label=f"{alone} without alternative"))
    # Above and to the left, where the rows' names leave room.
    wide = ax.figure.get_figure(root=True).get_figwidth() >= FIGURE_INCHES[0]
    place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "frameon": False}
    ax.legend(handles=handles, fontsize="small", ncols=len(handles) if wide else 2, columnspacing=1.2, **place)
    return ax
