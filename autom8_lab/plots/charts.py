"""The six plots. Each checks its frame, draws, and labels with units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import InvalidValue
from ..statistics import wilson_interval
from ..validation import shortened
from .drawing import (
    GREY,
    PALETTE,
    PERIODS,
    SMALL,
    Group,
    axes_of,
    constant,
    date_axis,
    days_of,
    finish,
    frontier,
    groups_of,
    label_points,
    legend,
    log_axis,
    mark_percentiles,
    no_data,
    percentile_handles,
    period_days,
    period_name,
    require,
    rest_of,
    short_number,
    utc_times,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MAX_BANDS = 4
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
TOKEN_CLASSES = {
    "input, not cached": PALETTE[0],
    "input, cache read": PALETTE[4],
    "input, cache write": PALETTE[2],
    "output": PALETTE[3],
    "output, reasoning": PALETTE[1],
}


def spend_over_time(frame: pd.DataFrame, *, by: str = "model", ax: Axes | None = None) -> Axes:
    """Draw what was spent in each period, in USD, as bars stacked by model or another column.

    Takes `al.usage_df(freq="D")` or `al.cost_df(freq="D")`: period, cost_usd and the column `by`. Calls without a
    price are no part of the bars; the legend tells how many there are.

    >>> import pandas as pd
    >>> days = pd.date_range("2026-05-01", periods=3, tz="UTC")
    >>> ax = spend_over_time(pd.DataFrame({"period": days, "model": "gpt-4o-mini", "cost_usd": [0.5, 0.7, 0.2]}))
    >>> ax.get_ylabel(), [float(bar.get_height()) for bar in ax.patches]
    ('Spend per day (USD)', [0.5, 0.7, 0.2])
    """
    import pandas as pd

    require(frame, ["period", by, "cost_usd"], "spend_over_time", f'al.usage_df(by=["{by}"], freq="D")')
    ax = axes_of(ax)
    priced = frame.dropna(subset=["period", "cost_usd"])
    if priced.empty:
        return no_data(ax, "no priced calls")
    labels, groups = groups_of(priced[by], priced["cost_usd"], by)
    period = pd.Series(days_of(priced["period"]), index=priced.index)
    table = priced["cost_usd"].groupby([period, labels]).sum().unstack().fillna(0.0)
    starts, width = table.index.to_numpy(), period_days(table.index.to_numpy())
    shown = width if len(starts) > 60 else 0.85 * width
    bottom = 0.0 * starts
    for group in groups:
        heights = table[group.name].to_numpy()
        ax.bar(starts, heights, shown, bottom, align="edge", color=group.colour, label=group.name)
        bottom = bottom + heights
    if bottom.max() > 0:
        ax.set_ylim(0, 1.05 * bottom.max())  # a bar of no height at the top would take the margin away
    date_axis(ax, starts, width)
    ax.set_ylabel(f"Spend per {period_name(width)} (USD)")
    finish(ax, grid="y")
    unpriced = int(frame["unpriced_calls"].sum()) if "unpriced_calls" in frame else len(frame) - len(priced)
    notes = [f"{unpriced:,} call{'s' * (unpriced > 1)} unpriced"] if unpriced else []
    # The legend reads as the stack does, from top to bottom.
    return legend(ax, list(reversed(ax.get_legend_handles_labels()[0])), notes=notes, title=by)


def latency_distribution(
    frame: pd.DataFrame,
    *,
    by: str | None = "model",
    percentiles: Sequence[float] = (50, 95, 99),
    ax: Axes | None = None,
) -> Axes:
    """Draw the distribution of latency on a log axis, a row per model, with percentiles and their 95 % intervals.

    Takes `al.ledger_df()`: latency_ms and the column `by`; None joins all calls. A percentile that the number of
    calls does not support (see `statistics.quantiles_with_intervals`) is not drawn.
    """
    import numpy as np

    wanted = ["latency_ms"] if by is None else ["latency_ms", by]
    require(frame, wanted, "latency_distribution", "al.ledger_df()")
    if not percentiles or not all(0 < percentile < 100 for percentile in percentiles):
        raise InvalidValue(f"percentiles={shortened(percentiles)}: give numbers between 0 and 100, such as (50, 95)")
    ax = axes_of(ax)
    measured = frame[frame["latency_ms"] > 0]
    if measured.empty:
        return no_data(ax, "no latencies")
    names = constant(measured, "all calls") if by is None else measured[by]
    labels, groups = groups_of(names, constant(measured, 1), by or "")
    values = measured["latency_ms"].to_numpy(dtype=np.float64)
    low, high = values.min(), values.max()
    edges = np.geomspace(low / 1.02, high * 1.02, 61)
    ax.set_xscale("log")
    rows: list[str] = []
    small: set[float] = set()
    for place, group in enumerate(reversed(groups)):
        own = np.sort(values[labels.to_numpy() == group.name])
        counts = np.histogram(own, edges)[0]
        ax.stairs(place + 0.8 * counts / counts.max(), edges, baseline=place, fill=True, color=group.colour, alpha=0.55)
        small |= mark_percentiles(ax, own, percentiles, place)
        rows.append(group.name)
        ax.text(0.01, place + 0.35, f"n = {own.size:,}", transform=ax.get_yaxis_transform(), **SMALL)
    ax.set_yticks([place + 0.35 for place in range(len(rows))], rows)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(-0.25, len(rows) - 0.1)
    log_axis(ax.xaxis, high / low)
    ax.set_xlim(low / (high / low) ** 0.14 / 1.05, high * 1.1)
    ax.set_xlabel("Latency (ms), log scale; lines are 95 % intervals")
    finish(ax, grid="x")
    return legend(ax, percentile_handles(percentiles, small), above=True)


def quality_against_cost(frame: pd.DataFrame, *, by: str = "model", ax: Axes | None = None) -> Axes:
    """Draw each model's mean quality, with its interval, against its cost, and the Pareto frontier.

    Takes `al.model_performance_df()`: model, cost_per_call_usd, quality_mean, quality_low, quality_high. A model is
    on the frontier when none is as good and cheaper, or as cheap and better. Models without quality or price are
    named in the legend.
    """
    columns = [by, "cost_per_call_usd", "quality_mean", "quality_low", "quality_high"]
    require(frame, columns, "quality_against_cost", "al.model_performance_df()")
    if frame[by].duplicated().any():
        twice = frame[by][frame[by].duplicated()].iloc[0]
        raise InvalidValue(f"quality_against_cost has several rows of {by}={twice!r}: give a frame with one row each")
    ax = axes_of(ax)
    known = frame.dropna(subset=["cost_per_call_usd", "quality_mean"]).sort_values(by)
    if known.empty:
        return no_data(ax, "no model with both quality and cost")
    cost = 1_000 * known["cost_per_call_usd"].to_numpy(dtype=float)
    quality = known["quality_mean"].to_numpy(dtype=float)
    edge = frontier(cost, quality)
    names = known[by].astype(str).tolist()
    _, groups = groups_of(known[by], known["calls"] if "calls" in known else constant(known, 1), by)
    looks = {group.name: group for group in groups}
    rest = Group("", GREY, "o")
    for place, name in enumerate(names):
        look = looks.get(name, rest)
        below = quality[place] - known["quality_low"].fillna(known["quality_mean"]).iloc[place]
        above = known["quality_high"].fillna(known["quality_mean"]).iloc[place] - quality[place]
        ax.errorbar(
            cost[place],
            quality[place],
            yerr=[[below], [above]],
            fmt=look.marker,
            color=look.colour,
            markersize=7,
            capsize=3,
            zorder=3,
        )
    line = ax.plot(
        cost[edge],
        quality[edge],
        drawstyle="steps-post",
        color=GREY,
        linestyle="--",
        label="Pareto frontier",
        zorder=2,
    )
    if cost.min() > 0 and cost.max() / cost.min() > 5:
        ax.set_xscale("log")
        log_axis(ax.xaxis, cost.max() / cost.min())
    ax.margins(x=0.12, y=0.12)
    ax.set_xlabel("Cost per 1,000 calls (USD)")
    ax.set_ylabel("Mean quality (0 to 1), 95 % interval")
    finish(ax, grid="both")
    left_out = sorted(set(frame[by].astype(str)) - set(names))
    notes = [f"no quality or cost: {', '.join(left_out)}"] if left_out else []
    legend(ax, line, notes=notes, above=True)
    label_points(ax, cost, quality, names, steps=edge)
    return ax


def success_over_time(frame: pd.DataFrame, *, by: str | None = None, freq: str = "D", ax: Axes | None = None) -> Axes:
    """Draw the share of calls that succeeded in each period, with its 95 % Wilson interval as a band.

    Takes `al.ledger_df()`: at, success, and the column `by` if given. `freq` is "h", "D", "W" or "M", in UTC. More
    than four groups are drawn without their bands, which would hide one another.
    """
    wanted = ["at", "success"] if by is None else ["at", "success", by]
    require(frame, wanted, "success_over_time", "al.ledger_df()")
    if freq not in PERIODS:
        raise InvalidValue(f"freq={freq!r}: give one of {', '.join(map(repr, PERIODS))}")
    ax = axes_of(ax)
    known = frame.dropna(subset=["at", "success"])
    if known.empty:
        return no_data(ax, "no calls whose success is known")
    names = constant(known, "all calls") if by is None else known[by]
    labels, groups = groups_of(names, constant(known, 1), by or "")
    starts = utc_times(known["at"]).dt.tz_localize(None).dt.to_period(freq).dt.start_time
    counts = known["success"].astype(int).groupby([labels, starts]).agg(["sum", "size"])
    lowest, banded = 1.0, len(groups) <= MAX_BANDS
    for group in groups:
        own = counts.loc[group.name]
        days = days_of(own.index.to_series())
        low, high = wilson_interval(own["sum"], own["size"])
        # A period with a call or two has an interval from 20 to 100 %, which must not set the scale.
        full = own["size"].to_numpy() >= 0.2 * own["size"].median()
        lowest = min(lowest, float((own["sum"] / own["size"]).min()), float(low[full].min() if banded else 1.0))
        marker = group.marker if len(days) <= 60 else ""
        ax.plot(days, own["sum"] / own["size"], color=group.colour, marker=marker, markersize=4, label=group.name)
        if banded:
            ax.fill_between(days, low, high, color=group.colour, alpha=0.18, linewidth=0)
        if len(days) == 1:
            ax.vlines(days, low, high, color=group.colour)
    date_axis(ax, days_of(starts.drop_duplicates().sort_values()), 0.0)
    ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    ax.set_ylim(max(0.0, lowest - 0.02), 1.005)
    ax.set_ylabel(f"Successful calls per {PERIODS[freq]} (%)")
    finish(ax, grid="y")
    notes = ["band: 95 % interval" if banded else f"more than {MAX_BANDS}: no bands"]
    return legend(ax, ax.get_legend_handles_labels()[0], title=by, notes=notes, above=by is None)


def tokens_by_class(frame: pd.DataFrame, *, by: str = "model", ax: Axes | None = None) -> Axes:
    """Draw how many tokens each model took and gave, stacked by class.

    Takes `al.usage_df()`: the column `by` and the five counts of tokens. Input includes the cache and output the
    reasoning; the classes here are apart, so that a bar's length is input plus output.
    """
    counts = ["input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens"]
    require(frame, [by, *counts], "tokens_by_class", f'al.usage_df(by=["{by}"])')
    ax = axes_of(ax)
    sums = frame[counts].fillna(0).astype("int64")
    total = sums["input_tokens"] + sums["output_tokens"]
    if total.sum() == 0:
        return no_data(ax, "no tokens")
    labels, groups = groups_of(frame[by], total, by)
    table = sums.groupby(labels).sum()
    table["total"] = total.groupby(labels).sum()
    order = table["total"].sort_values(kind="stable").index.tolist()
    order.sort(key=lambda name: name != rest_of(groups))
    table = table.loc[order]
    widths = [
        table["input_tokens"] - table["cache_read_tokens"] - table["cache_write_tokens"],
        table["cache_read_tokens"],
        table["cache_write_tokens"],
        table["output_tokens"] - table["reasoning_tokens"],
        table["reasoning_tokens"],
    ]
    left = 0 * table["total"]
    for (name, colour), width in zip(TOKEN_CLASSES.items(), widths, strict=True):
        ax.barh(table.index.tolist(), width, 0.75, left, color=colour, label=name)
        left = left + width
    ax.xaxis.set_major_formatter(lambda value, _: short_number(value))
    ax.set_ylim(-max(0.5, 1.5 - len(table) / 2), len(table) - min(0.5, len(table) / 2 - 0.5))
    ax.set_xlabel("Tokens")
    finish(ax, grid="x")
    return legend(ax, ax.get_legend_handles_labels()[0], title="class")


def calls_heatmap(frame: pd.DataFrame, *, timezone: str = "UTC", ax: Axes | None = None) -> Axes:
    """Draw how many calls there were in each hour of each day of the week.

    Takes `al.ledger_df()`: at. `timezone` is a name such as "Europe/Berlin".
    """
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    require(frame, ["at"], "calls_heatmap", "al.ledger_df()")
    ax = axes_of(ax)
    at = frame["at"].dropna()
    if at.empty:
        return no_data(ax, "no calls")
    try:
        local = utc_times(at).dt.tz_convert(timezone)
    except (KeyError, ValueError, OSError) as error:
        raise InvalidValue(f"timezone={timezone!r} is not known: give a name such as 'Europe/Berlin'") from error
    counts = np.bincount(local.dt.day_of_week * 24 + local.dt.hour, minlength=7 * 24).reshape(7, 24)
    mesh = ax.pcolormesh(np.arange(25), np.arange(8), counts, cmap="cividis", vmin=0, edgecolors="white", linewidth=0.4)
    ax.invert_yaxis()
    ax.set_yticks(np.arange(7) + 0.5, WEEKDAYS)
    ax.set_xticks(np.arange(0, 25, 3), [f"{hour:02}" for hour in range(0, 25, 3)])
    ax.set_xlabel(f"Hour of day ({timezone})")
    ax.tick_params(length=0, axis="y")
    ax.spines[:].set_visible(False)
    bar = ax.figure.colorbar(mesh, ax=ax, label="Calls", ticks=MaxNLocator(integer=True, nbins=6))
    bar.outline.set_visible(False)
    return ax
