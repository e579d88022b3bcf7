"""What the plots share: checks, colours, groups, axes, labels and legends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import InvalidValue
from ..statistics import quantiles_with_intervals

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.transforms import BboxBase
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# Okabe & Ito 2008, "Color Universal Design"; yellow, the faintest on white, comes last.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000", "#F0E442")
GREY = "#8C8C8C"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MAX_GROUPS = 8
FIGURE_INCHES = (8, 4)
PERIODS = {"h": "hour", "D": "day", "W": "week", "M": "month"}
LABEL_PLACES = [(6, 8, "left"), (6, -8, "left"), (-6, 8, "right"), (-6, -8, "right"), (9, 0, "left"), (-9, 0, "right")]
LABEL_PLACES += [(dx, dy, side) for dy in (17, -17, 26, -26) for dx, side in ((6, "left"), (-6, "right"))]
# As matplotlib's own, but a day always with its month.
DATE_FORMATS = {
    "formats": ["%Y", "%b", "%d %b", "%H:%M", "%H:%M", "%S.%f"],
    "zero_formats": ["", "%Y", "%d %b", "%d %b", "%H:%M", "%H:%M"],
    "offset_formats": ["", "%Y", "%Y", "%d %b %Y", "%d %b %Y", "%d %b %Y %H:%M"],
}
SMALL: Mapping[str, Any] = {"fontsize": "x-small", "color": "0.35", "va": "center"}


class Group(NamedTuple):
    """A name in the legend and how it looks."""

    name: str
    colour: str
    marker: str


def require(frame: Any, columns: Iterable[str], plot: str, verb: str) -> None:
    """Raise `InvalidValue` naming the first column that is missing and the verb whose frame has it."""
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise InvalidValue(f"{plot} was given a {type(frame).__name__}: give the frame of {verb}")
    for column in columns:
        if column not in frame:
            raise InvalidValue(f"{plot} needs the column {column!r}, which the frame does not have: give {verb}")


def axes_of(ax: Axes | None) -> Axes:
    """Return the given Axes, or those of a new figure."""
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=FIGURE_INCHES, layout="constrained")[1] if ax is None else ax


def no_data(ax: Axes, what: str) -> Axes:
    """Say in the Axes that there is nothing to show."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_color("0.8")
    ax.text(0.5, 0.5, f"no data: {what}", transform=ax.transAxes, ha="center", va="center", color="0.35")
    return ax


def constant(frame: pd.DataFrame, value: Any) -> pd.Series[Any]:
    """Return a column of one value."""
    import pandas as pd

    return pd.Series(value, index=frame.index)


def groups_of(names: pd.Series[Any], sizes: pd.Series[Any], by: str) -> tuple[pd.Series[Any], list[Group]]:
    """Return each row's name in the legend, and the groups sorted by name, the joined rest last."""
    labels = names.astype(object).where(names.notna(), f"no {by}").astype(str)
    totals = sizes.groupby(labels).sum().sort_index().sort_values(ascending=False, kind="stable")
    kept = sorted(totals.index if len(totals) <= MAX_GROUPS else totals.index[: MAX_GROUPS - 1])
    groups = [Group(name, PALETTE[place], MARKERS[place]) for place, name in enumerate(kept)]
    if len(totals) > MAX_GROUPS:
        rest = f"{len(totals) - len(kept)} others"
        labels = labels.where(labels.isin(kept), rest)
        groups.append(Group(rest, GREY, "."))
    return labels, groups


def rest_of(groups: Sequence[Group]) -> str | None:
    """Return the name of the joined rest, None where nothing was joined."""
    return groups[-1].name if groups[-1].colour == GREY else None


def frontier(cost: Floats, quality: Floats) -> list[int]:
    """Return the positions of the points that no other beats in both, from the cheapest on."""
    import numpy as np

    best, kept = -1.0, []
    for place in np.lexsort((-quality, cost)).tolist():
        if quality[place] > best:
            best = float(quality[place])
            kept.append(place)
    return kept


def mark_percentiles(ax: Axes, ordered: Floats, percentiles: Sequence[float], place: int) -> set[float]:
    """Mark the percentiles of one row with their intervals, and return those that so few values do not support."""
    import numpy as np

    found = quantiles_with_intervals(ordered, np.array(percentiles) / 100, assume_sorted=True)
    for number, (at, low, high) in enumerate(zip(*found, strict=True)):
        if np.isfinite(at):
            ax.hlines(place, low, high, color="black", linewidth=1.2, zorder=3)
            ax.plot(at, place, MARKERS[number % 8], color="black", markeredgecolor="white", markersize=7, zorder=4)
    return {percentile for percentile, at in zip(percentiles, found.estimate, strict=True) if np.isnan(at)}


def percentile_handles(percentiles: Sequence[float], missing: set[float]) -> list[Artist]:
    """Return the legend's entries for the markers of percentiles; one that is missing in a row says what it needs."""
    from math import ceil, log

    from matplotlib.lines import Line2D

    style: Mapping[str, Any] = {"linestyle": "", "color": "black", "markersize": 7, "markeredgecolor": "white"}
    handles: list[Artist] = []
    for number, percentile in enumerate(percentiles):
        farthest = max(percentile, 100 - percentile) / 100
        needs = f" (from {ceil(log(0.025) / log(farthest))} calls on)" if percentile in missing else ""
        handles.append(Line2D([], [], marker=MARKERS[number % 8], label=f"p{percentile:g}{needs}", **style))
    return handles


def utc_times(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return times in UTC; those without a zone are taken as UTC."""
    import pandas as pd

    return pd.to_datetime(column, utc=True)


def days_of(times: pd.Series[Any]) -> Floats:
    """Return times as matplotlib's days since 1970, in UTC."""
    import numpy as np

    microseconds = utc_times(times).dt.as_unit("us").astype("int64").to_numpy()
    days: Floats = microseconds.astype(np.float64) / 86_400_000_000
    return days


def period_days(starts: Floats) -> float:
    """Return the length of the periods that begin at these times, one day for a single one."""
    import numpy as np

    return float(np.diff(starts).min()) if len(starts) > 1 else 1.0


def period_name(days: float) -> str:
    """Return what a period of so many days is called."""
    for name, longest in {"hour": 0.9, "day": 6, "week": 27, "month": 80, "quarter": 360}.items():
        if days < longest:
            return name
    return "year"


def date_axis(ax: Axes, starts: Floats, width: float) -> None:
    """Label the x axis with dates; a single period gets its date alone."""
    import matplotlib.dates

    dates: Any = matplotlib.dates  # it has no types
    if len(starts) == 1:
        middle = starts[0] + width / 2
        ax.set_xlim(middle - 2, middle + 2)
        ax.set_xticks([middle], [f"{dates.num2date(starts[0]):%Y-%m-%d}"])
    else:
        locator = dates.AutoDateLocator(minticks=3, maxticks=7 if _inches(ax) > 4.5 else 5)
        ax.xaxis.set_major_locator(locator)
        formatter = dates.ConciseDateFormatter(locator, **DATE_FORMATS)
        ax.xaxis.set_major_formatter(formatter)
    # The year stands at the right end of this line.
    ax.set_xlabel("Date (UTC)", loc="left")


def _inches(ax: Axes) -> float:
    """Return about how wide the Axes are; what the layout takes from them is not known yet."""
    return float(ax.figure.get_figure(root=True).get_figwidth() * ax.get_position().width)


def log_axis(axis: Any, ratio: float) -> None:
    """Put plain numbers on a log axis, at 1, 2 and 5 where it is short."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if ratio < 500 else (1,)))
    axis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axis.set_minor_formatter(NullFormatter())


def short_number(value: float) -> str:
    """Return a count with k, M or G for thousands, millions and billions."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def label_points(ax: Axes, x: Floats, y: Floats, names: Sequence[str], *, steps: Sequence[int]) -> None:
    """Write each point's name beside it, where it hides the least of names, points and lines.

    `steps` are the positions of the points that a line joins, first to the right and then up.
    """
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import Bbox

    # The layout has to be settled before it can be said what lies where.
    ax.figure.get_figure(root=True).draw_without_rendering()
    size, pixels = 8.0, ax.figure.dpi / 72
    points = ax.transData.transform(list(zip(x, y, strict=True)))
    taken = [(4, Bbox.from_bounds(px - 5 * pixels, py - 5 * pixels, 10 * pixels, 10 * pixels)) for px, py in points]
    taken += [(2, bars.get_window_extent().padded(pixels)) for bars in ax.collections]
    for (left, low), (right, high) in pairwise(points[list(steps)]):
        taken += [(2, Bbox.from_extents(left, low - pixels, right, low + pixels))]
        taken += [(2, Bbox.from_extents(right - pixels, low, right + pixels, high))]
    for place in points[:, 1].argsort():
        width, height = 0.58 * size * len(names[place]) * pixels, 1.2 * size * pixels
        places = []
        for dx, dy, side in LABEL_PLACES:
            left = points[place][0] + dx * pixels - (width if side == "right" else 0)
            box = Bbox.from_bounds(left, points[place][1] + dy * pixels - height / 2, width, height)
            outside = box.width * box.height - _shared_area(box, ax.bbox)
            hidden = sum(weight * _shared_area(box, other) for weight, other in taken) + 9 * outside
            hidden += 0.3 * max(0, abs(dy) - 8) * pixels * width
            places.append((hidden, dx, dy, side, box))
        _, dx, dy, side, box = min(places, key=lambda candidate: candidate[0])
        taken.append((8, box))
        stroke = [withStroke(linewidth=2.5, foreground="white")]
        leader = (
            {"arrowstyle": "-", "color": GREY, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 3} if abs(dy) > 8 else None
        )
        at = {"xy": (x[place], y[place]), "xytext": (dx, dy), "textcoords": "offset points", "va": "center", "ha": side}
        ax.annotate(names[place], **at, fontsize=size, path_effects=stroke, zorder=5, arrowprops=leader)  # type: ignore[arg-type]


def _shared_area(one: BboxBase, other: BboxBase) -> float:
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return max(0.0, width) * max(0.0, height)


def finish(ax: Axes, *, grid: str) -> None:
    """Draw the grid behind the data and leave out the frame's top and right."""
    ax.grid(axis=grid, color="0.9", linewidth=0.8)  # type: ignore[arg-type]
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def legend(
    ax: Axes, handles: Sequence[Any], *, title: str | None = None, notes: Sequence[str] = (), above: bool = False
) -> Axes:
    """Add the legend: beside or above the axes where a layout engine makes room for it, else inside."""
    from matplotlib.lines import Line2D

    entries = [*handles, *(Line2D([], [], linestyle="", label=note) for note in notes)]
    style: dict[str, Any] = {"loc": "best"}
    if ax.figure.get_figure(root=True).get_layout_engine() is not None:
        style = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "frameon": False}
        if above:
            widths = [0.45 + 0.065 * len(str(entry.get_label())) for entry in entries]
            columns = len(entries) if sum(widths) <= _inches(ax) else max(1, int(_inches(ax) / max(widths)))
            style |= {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "ncols": columns, "columnspacing": 1.2}
    ax.legend(handles=entries, title=title, fontsize="small", title_fontsize="small", **style)
    return ax
