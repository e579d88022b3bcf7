"""The plots: what is drawn equals the frame, labels have units, and nothing outside the Axes changes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.container import BarContainer

import autom8_lab as al
from autom8_lab.errors import InvalidValue
from autom8_lab.mockdata import MODELS
from autom8_lab.statistics import quantiles_with_intervals, wilson_interval

mpl.use("Agg")
import matplotlib.pyplot as plt

CLASSES = ["input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens"]


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


@functools.cache
def ledger(days: int = 14, *, models: int = 6, seed: int = 1, calls_per_day: int = 100) -> pd.DataFrame:
    profiles = [
        dataclasses.replace(MODELS[place % 6], model=f"model-{place:02}" if models > 6 else MODELS[place].model)
        for place in range(models)
    ]
    calls = al.mockdata.traffic(days, calls_per_day=calls_per_day, seed=seed, models=profiles, decisions=False).usage
    return calls.assign(cost_usd=calls["input_tokens"] * 2e-6 + calls["output_tokens"] * 8e-6)


def usage(calls: pd.DataFrame) -> pd.DataFrame:
    day = calls["at"].dt.floor("D")
    return calls.assign(period=day).groupby(["model", "period"])[[*CLASSES, "cost_usd"]].sum().reset_index()


def performance(calls: pd.DataFrame) -> pd.DataFrame:
    groups = calls.groupby("model")
    quality = groups["quality_score"].mean()
    return pd.DataFrame(
        {
            "calls": groups.size(),
            "cost_per_call_usd": groups["cost_usd"].mean(),
            "quality_mean": quality,
            "quality_low": quality - 0.02,
            "quality_high": quality + 0.01,
        }
    ).reset_index()


PLOTS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "spend_over_time": usage,
    "latency_distribution": lambda calls: calls,
    "quality_against_cost": performance,
    "success_over_time": lambda calls: calls,
    "tokens_by_class": usage,
    "calls_heatmap": lambda calls: calls,
}
each_plot = pytest.mark.parametrize("name", PLOTS)


def draw(name: str, calls: pd.DataFrame, **options: Any) -> plt.Axes:
    return getattr(al.plots, name)(PLOTS[name](calls), **options)


def legend_texts(ax: plt.Axes) -> list[str]:
    legend = ax.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def stacks(ax: plt.Axes) -> dict[str, list[Any]]:
    """The bars of each group, by its name in the legend."""
    return {bars.get_label(): list(bars) for bars in ax.containers if isinstance(bars, BarContainer)}


@each_plot
def test_a_given_axes_is_drawn_into_and_returned(name: str) -> None:
    figure, (left, right) = plt.subplots(1, 2, layout="constrained")
    assert draw(name, ledger(), ax=right) is right
    assert not left.has_data()
    assert plt.get_fignums() == [figure.number]


@each_plot
def test_without_axes_a_figure_is_made(name: str) -> None:
    ax = draw(name, ledger())
    assert plt.get_fignums() == [ax.figure.number]
    assert ax.has_data()


@each_plot
def test_no_global_setting_changes(name: str) -> None:
    before = dict(mpl.rcParams)
    draw(name, ledger()).figure.canvas.draw()
    assert dict(mpl.rcParams) == before


@each_plot
def test_the_frame_stays_as_it_was(name: str) -> None:
    frame = PLOTS[name](ledger())
    before = frame.copy(deep=True)
    getattr(al.plots, name)(frame)
    pd.testing.assert_frame_equal(frame, before)


@each_plot
@pytest.mark.parametrize(
    ("size", "days", "models"), [((5, 3), 1, 1), ((5, 3), 1, 6), ((5, 3), 28, 12), ((8, 4), 28, 12), ((5, 3), 365, 6)]
)
def test_every_size_of_data_is_drawn_without_a_warning(
    name: str, size: tuple[int, int], days: int, models: int
) -> None:
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    draw(name, ledger(days, models=models, calls_per_day=20), ax=ax)
    figure.canvas.draw()
    inside = figure.bbox.padded(1)
    for text in [ax.xaxis.label, ax.yaxis.label, *(ax.get_legend().get_texts() if ax.get_legend() else [])]:
        if not text.get_text():
            continue
        box = text.get_window_extent()
        assert inside.x0 <= box.x0, text
        assert box.x1 <= inside.x1, text


@each_plot
def test_an_empty_frame_says_that_there_is_no_data(name: str) -> None:
    frame = PLOTS[name](ledger()).iloc[:0]
    ax = getattr(al.plots, name)(frame)
    (text,) = ax.texts
    assert text.get_text().startswith("no data: ")
    assert not ax.get_xticks().size


@each_plot
def test_a_missing_column_is_named_with_the_verb_that_has_it(name: str) -> None:
    column = {"spend_over_time": "cost_usd", "quality_against_cost": "quality_low", "success_over_time": "success"}
    column |= {"latency_distribution": "latency_ms", "tokens_by_class": "reasoning_tokens", "calls_heatmap": "at"}
    frame = PLOTS[name](ledger()).drop(columns=column[name])
    with pytest.raises(InvalidValue, match=rf"{name} needs the column '{column[name]}'.*give al\.\w+_df\("):
        getattr(al.plots, name)(frame)
    assert not plt.get_fignums()


@each_plot
def test_what_is_no_frame_is_refused(name: str) -> None:
    with pytest.raises(InvalidValue, match=rf"{name} was given a list: give the frame of al\."):
        getattr(al.plots, name)([{"model": "m"}])


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("spend_over_time", "(USD)"),
        ("latency_distribution", "(ms)"),
        ("quality_against_cost", "(USD)"),
        ("success_over_time", "(%)"),
        ("tokens_by_class", "Tokens"),
        ("calls_heatmap", "(UTC)"),
    ],
)
def test_labels_have_units(name: str, label: str) -> None:
    ax = draw(name, ledger())
    assert label in ax.get_xlabel() + ax.get_ylabel()


def test_the_stack_of_spend_is_as_high_as_the_sums() -> None:
    calls = ledger()
    bars = stacks(draw("spend_over_time", calls))
    by_model = calls.groupby("model")["cost_usd"].sum()
    assert list(bars) == sorted(by_model.index)
    for model, rectangles in bars.items():
        assert sum(bar.get_height() for bar in rectangles) == pytest.approx(by_model[model])
    by_day = calls.groupby(calls["at"].dt.floor("D"))["cost_usd"].sum()
    top = list(bars.values())[-1]
    assert [bar.get_y() + bar.get_height() for bar in top] == pytest.approx(by_day.tolist())
    assert [bar.get_x() for bar in top] == (by_day.index - pd.Timestamp(0, tz="UTC")).days.tolist()


def test_the_highest_bar_of_spend_does_not_touch_the_top() -> None:
    days = pd.to_datetime(["2026-05-01", "2026-05-02"], utc=True)
    frame = pd.DataFrame({"period": days, "model": ["a", "b"], "cost_usd": [0.4, 0.1]})
    assert al.plots.spend_over_time(frame).get_ylim() == pytest.approx((0, 0.42))


def test_the_legend_of_spend_reads_as_the_stack_does() -> None:
    ax = draw("spend_over_time", ledger())
    assert legend_texts(ax) == sorted((model.model for model in MODELS), reverse=True)


@pytest.mark.parametrize(
    ("freq", "name"), [("h", "hour"), ("D", "day"), ("W", "week"), ("M", "month"), ("Q", "quarter"), ("Y", "year")]
)
def test_the_label_of_spend_names_the_period(freq: str, name: str) -> None:
    periods = pd.period_range("2024-01-01", periods=4, freq=freq).start_time.tz_localize("UTC")
    frame = pd.DataFrame({"period": periods, "model": "m", "cost_usd": 1.0})
    assert al.plots.spend_over_time(frame).get_ylabel() == f"Spend per {name} (USD)"


def test_calls_without_a_price_are_no_part_of_the_stack_and_counted() -> None:
    frame = usage(ledger()).assign(unpriced_calls=0)
    frame.loc[:4, "cost_usd"] = np.nan
    frame.loc[:5, "unpriced_calls"] = 300
    ax = al.plots.spend_over_time(frame)
    drawn = sum(bar.get_height() for bars in stacks(ax).values() for bar in bars)
    assert drawn == pytest.approx(frame["cost_usd"].sum())
    assert legend_texts(ax)[-1] == "1,800 calls unpriced"
    assert legend_texts(draw("spend_over_time", ledger())) == legend_texts(ax)[:-1]


def test_of_twelve_models_the_seven_dearest_are_shown_and_five_are_joined() -> None:
    calls = ledger(models=12)
    bars = stacks(draw("spend_over_time", calls))
    totals = calls.groupby("model")["cost_usd"].sum().sort_values(ascending=False)
    assert list(bars) == [*sorted(totals.index[:7]), "5 others"]
    assert sum(bar.get_height() for bar in bars["5 others"]) == pytest.approx(totals.iloc[7:].sum())
    assert len({bar[0].get_facecolor() for bar in bars.values()}) == 8


def test_eight_models_are_all_shown() -> None:
    assert len(stacks(draw("spend_over_time", ledger(models=8)))) == 8


def test_a_group_without_a_name_is_called_so() -> None:
    frame = usage(ledger())
    frame.loc[frame["model"] == "gpt-4.1", "model"] = None
    assert "no model" in stacks(al.plots.spend_over_time(frame))


def test_spend_can_be_stacked_by_another_column() -> None:
    calls = ledger().assign(period=lambda frame: frame["at"].dt.floor("D"))
    ax = al.plots.spend_over_time(calls, by="agent")
    assert list(stacks(ax)) == ["developer-agent", "helpdesk-agent", "triage-agent"]
    assert ax.get_legend().get_title().get_text() == "agent"


def test_percentiles_of_latency_stand_where_they_belong() -> None:
    calls = ledger(28, calls_per_day=200)
    ax = draw("latency_distribution", calls)
    rows = {tick.get_text(): place for place, tick in enumerate(ax.get_yticklabels())}
    marks = [(line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines]
    for model, own in calls.groupby("model")["latency_ms"]:
        expected = quantiles_with_intervals(own, [0.5, 0.95, 0.99]).estimate
        assert [x for x, y in marks if y == rows[model]] == pytest.approx(expected[np.isfinite(expected)].tolist())
    assert ax.get_xscale() == "log"
    assert list(rows) == sorted(rows, reverse=True)


def test_a_percentile_that_few_calls_do_not_support_is_not_drawn_and_says_what_it_needs() -> None:
    calls = ledger(1, models=1, calls_per_day=100)
    ax = draw("latency_distribution", calls, percentiles=(50, 99, 1))
    assert len(ax.lines) == 1
    assert legend_texts(ax) == ["p50", "p99 (from 368 calls on)", "p1 (from 368 calls on)"]
    many = draw("latency_distribution", ledger(2, models=1, calls_per_day=184), percentiles=(99,))
    assert legend_texts(many) == ["p99"]


def test_each_row_of_latency_says_how_many_calls_it_has() -> None:
    calls = ledger()
    counts = calls["model"].value_counts().sort_index(ascending=False)
    texts = [text.get_text() for text in draw("latency_distribution", calls).texts]
    assert texts == [f"n = {count:,}" for count in counts]


def test_all_calls_can_share_one_row_and_zeros_have_no_place_on_a_log_axis() -> None:
    frame = pd.DataFrame({"latency_ms": [0.0, np.nan, *range(1, 101)]})
    ax = al.plots.latency_distribution(frame, by=None, percentiles=(50,))
    assert [text.get_text() for text in ax.texts] == ["n = 100"]
    assert ax.lines[0].get_xdata() == pytest.approx([50.5])


def test_one_latency_is_drawn() -> None:
    ax = al.plots.latency_distribution(pd.DataFrame({"latency_ms": [250.0], "model": ["m"]}))
    ax.figure.canvas.draw()
    assert [text.get_text() for text in ax.texts] == ["n = 1"]


@pytest.mark.parametrize("percentiles", [(), (0,), (50, 100), (-1,), (float("nan"),)])
def test_impossible_percentiles_are_refused(percentiles: tuple[float, ...]) -> None:
    with pytest.raises(InvalidValue, match="between 0 and 100"):
        draw("latency_distribution", ledger(), percentiles=percentiles)


def frontier_of(ax: plt.Axes) -> list[tuple[float, float]]:
    (line,) = [line for line in ax.lines if line.get_label() == "Pareto frontier"]
    return list(zip(line.get_xdata(), line.get_ydata(), strict=True))


def models_frame(*rows: tuple[str, float, float]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["model", "cost_per_call_usd", "quality_mean"])
    return frame.assign(quality_low=frame["quality_mean"] - 0.05, quality_high=frame["quality_mean"] + 0.02)


def test_the_frontier_has_the_models_that_no_other_beats() -> None:
    frame = models_frame(
        ("dear and best", 0.009, 0.95),
        ("cheap", 0.001, 0.70),
        ("as cheap and worse", 0.001, 0.60),
        ("as good and dearer", 0.002, 0.70),
        ("middle", 0.003, 0.90),
        ("beaten", 0.004, 0.80),
    )
    assert frontier_of(al.plots.quality_against_cost(frame)) == [(1.0, 0.7), (3.0, 0.9), (9.0, 0.95)]


def test_every_model_has_its_point_its_interval_and_its_name() -> None:
    frame = models_frame(("a", 0.001, 0.7), ("b", 0.02, 0.9))
    ax = al.plots.quality_against_cost(frame)
    assert [text.get_text() for text in ax.texts] == ["a", "b"]
    spans = [segment[:, 1].tolist() for bars in ax.collections for segment in bars.get_segments()]
    assert spans == [pytest.approx([0.65, 0.72]), pytest.approx([0.85, 0.92])]
    points = [
        (float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in ax.lines if len(line.get_xdata()) == 1
    ]
    assert {(1.0, 0.7), (20.0, 0.9)} <= set(points)
    assert ax.get_xscale() == "log"


@pytest.mark.parametrize("size", [(8, 4), (5, 3)])
def test_the_names_of_twelve_models_hide_no_other_name(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    costs, qualities = rng.lognormal(-6, 1.3, 12), rng.uniform(0.6, 0.95, 12)
    rows = [(f"provider-model-{n}", *pair) for n, pair in enumerate(zip(costs, qualities, strict=True))]
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    al.plots.quality_against_cost(models_frame(*rows), ax=ax)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts]
    # An annotation's extent includes its leader line, so compare the texts that have none.
    plain = [box for text, box in zip(ax.texts, boxes, strict=True) if text.arrow_patch is None]
    assert len(plain) >= 8
    assert not any(one.overlaps(other) for n, one in enumerate(plain) for other in plain[:n])


def test_a_free_model_is_drawn_on_a_linear_axis() -> None:
    ax = al.plots.quality_against_cost(models_frame(("free", 0.0, 0.7), ("paid", 0.02, 0.9)))
    assert ax.get_xscale() == "linear"
    assert frontier_of(ax) == [(0.0, 0.7), (20.0, 0.9)]


def test_a_model_without_quality_or_price_is_named_in_the_legend() -> None:
    frame = models_frame(("a", 0.001, 0.7), ("embedder", 0.02, np.nan), ("local", np.nan, 0.9))
    ax = al.plots.quality_against_cost(frame)
    assert [text.get_text() for text in ax.texts] == ["a"]
    assert legend_texts(ax)[-1] == "no quality or cost: embedder, local"


def test_quality_against_cost_wants_one_row_for_each_model() -> None:
    frame = models_frame(("a", 0.001, 0.7), ("a", 0.002, 0.8))
    with pytest.raises(InvalidValue, match="several rows of model='a'"):
        al.plots.quality_against_cost(frame)


@pytest.mark.parametrize("freq", ["D", "W"])
def test_success_and_its_band_are_the_rate_and_wilsons_interval(freq: str) -> None:
    calls = ledger(21)
    ax = draw("success_over_time", calls, freq=freq)
    period = calls["at"].dt.tz_localize(None).dt.to_period(freq)
    counts = calls.groupby(period)["success"].agg(["sum", "size"])
    assert ax.lines[0].get_ydata() == pytest.approx((counts["sum"] / counts["size"]).tolist())
    (band,) = [item for item in ax.collections if isinstance(item, PolyCollection)]
    low, high = wilson_interval(counts["sum"], counts["size"])
    drawn = band.get_paths()[0].vertices[:, 1]
    assert set(np.round(drawn, 9)) == set(np.round([*low, *high], 9))
    bottom, top = ax.get_ylim()
    assert bottom < low[counts["size"] > 30].min()
    assert top > 1


def test_an_incident_shows_in_the_success_of_its_day() -> None:
    traffic = al.mockdata.traffic(28, calls_per_day=1_000, seed=2, incidents=1)
    incident = traffic.events[traffic.events["event"] == "incident"].iloc[0]
    ax = al.plots.success_over_time(traffic.usage[traffic.usage["model"] == incident["model"]])
    line = ax.lines[0]
    worst = line.get_xdata()[np.argmin(line.get_ydata())]
    assert worst == (incident["at"] - pd.Timestamp(0, tz="UTC")).days


def test_more_than_four_groups_have_no_bands_and_the_legend_says_so() -> None:
    few = draw("success_over_time", ledger(models=4), by="model")
    many = draw("success_over_time", ledger(models=5), by="model")
    assert len(few.collections) == 4
    assert not many.collections
    assert legend_texts(few)[-1] == "band: 95 % interval"
    assert legend_texts(many)[-1] == "more than 4: no bands"


def test_calls_of_unknown_success_do_not_count() -> None:
    calls = ledger(2).assign(success=lambda frame: frame["success"].astype("boolean"))
    calls.loc[calls["at"] < calls["at"].dt.floor("D").max(), "success"] = pd.NA
    assert len(draw("success_over_time", calls).lines[0].get_xdata()) == 1


def test_an_unknown_frequency_is_refused() -> None:
    with pytest.raises(InvalidValue, match="freq='minute': give one of 'h', 'D', 'W', 'M'"):
        draw("success_over_time", ledger(), freq="minute")


def test_a_bar_of_tokens_is_as_long_as_input_plus_output() -> None:
    calls = ledger()
    ax = draw("tokens_by_class", calls)
    bars = stacks(ax)
    assert list(bars) == ["input, not cached", "input, cache read", "input, cache write", "output", "output, reasoning"]
    models = [tick.get_text() for tick in ax.get_yticklabels()]
    sums = calls.groupby("model")[CLASSES].sum().loc[models]
    lengths = np.array([[bar.get_width() for bar in rectangles] for rectangles in bars.values()])
    assert lengths.sum(axis=0).tolist() == (sums["input_tokens"] + sums["output_tokens"]).tolist()
    assert lengths[1].tolist() == sums["cache_read_tokens"].tolist()
    assert lengths[4].tolist() == sums["reasoning_tokens"].tolist()
    assert lengths.min() >= 0
    assert (np.diff(lengths.sum(axis=0)) >= 0).all()


def test_the_joined_rest_is_the_lowest_bar() -> None:
    ax = draw("tokens_by_class", ledger(models=12))
    assert ax.get_yticklabels()[0].get_text() == "5 others"
    assert len(ax.get_yticklabels()) == 8


def test_the_heat_map_counts_every_call_in_its_hour_and_weekday() -> None:
    calls = ledger()
    ax = draw("calls_heatmap", calls)
    counts = ax.collections[0].get_array().reshape(7, 24)
    assert counts.sum() == len(calls)
    monday_ten = (calls["at"].dt.day_of_week == 0) & (calls["at"].dt.hour == 10)
    assert counts[0, 10] == monday_ten.sum()
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    assert ax.yaxis_inverted()


def test_the_heat_map_can_be_in_another_time_zone() -> None:
    at = pd.to_datetime(pd.Series(["2026-05-31T23:30:00+00:00"]))
    ax = al.plots.calls_heatmap(pd.DataFrame({"at": at}), timezone="Europe/Berlin")
    counts = ax.collections[0].get_array().reshape(7, 24)
    assert counts[0, 1] == 1
    assert ax.get_xlabel() == "Hour of day (Europe/Berlin)"


def test_an_unknown_time_zone_is_refused() -> None:
    with pytest.raises(InvalidValue, match="timezone='Mars/Olympus' is not known"):
        draw("calls_heatmap", ledger(), timezone="Mars/Olympus")


def test_without_a_layout_engine_the_legend_stays_inside_the_axes() -> None:
    _, ax = plt.subplots()
    draw("spend_over_time", ledger(), ax=ax)
    ax.figure.canvas.draw()
    box = ax.get_legend().get_window_extent()
    assert ax.bbox.x0 <= box.x0
    assert box.x1 <= ax.bbox.x1
