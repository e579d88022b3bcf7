"""The routing plots: what is drawn equals the frames, with costs and without, from 2 to 8 models."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import autom8_lab as al
from autom8_lab.tuning.replay import replay
from autom8_lab.tuning.routing import RoutingReport, routing_report

mpl.use("Agg")
import matplotlib.pyplot as plt


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


@functools.cache
def report(models: int = 2, *, costs: bool = True) -> RoutingReport:
    draw = np.random.default_rng(models)
    ids = [f"p{n:03}" for n in range(120)]
    parts = [
        pd.DataFrame(
            {
                "prompt_id": ids,
                "model": f"model-{place}",
                "quality_score": (draw.random(120) < 0.4 + 0.06 * place).astype(float),
                "cost_usd": (1 + place) * draw.lognormal(sigma=0.2, size=120) / 1_000,
            }
        )
        for place in range(models)
    ]
    frame = pd.concat(parts) if costs else pd.concat(parts).drop(columns="cost_usd")
    scores = {"router": pd.Series(draw.random(120), index=ids)}
    texts = {name: "x" * int(draw.integers(3, 80)) for name in ids}
    return routing_report(frame, scores=scores, texts=texts, resamples=100)


POINTS = pd.DataFrame(
    {"router": ["length", "router"], "strong_share": [0.4, 0.6], "cost_usd": [0.0014, 0.0016]}
    | {"quality": [0.42, 0.45], "quality_low": [0.4, 0.43], "quality_high": [0.44, 0.47]}
)


def line(ax: plt.Axes, label: str) -> np.ndarray:
    (found,) = [item for item in ax.lines if item.get_label() == label]
    return np.column_stack([found.get_xdata(), found.get_ydata()])


def points_at(ax: plt.Axes) -> set[tuple[float, float]]:
    return {
        (round(float(x), 6), round(float(y), 6))
        for container in ax.containers
        for x, y in zip(*container.lines[0].get_data(), strict=True)
    }


@pytest.mark.parametrize("models", [2, 5, 8])
def test_models_stand_at_their_cost_and_quality(models: int) -> None:
    frame = report(models).models
    ax = al.plots.cost_quality_plane(frame)
    expected = {
        (round(1_000 * row.cost_usd_mean, 6), round(row.quality_mean, 6)) for row in frame.itertuples(index=False)
    }
    assert points_at(ax) == expected
    assert {text.get_text() for text in ax.texts} == set(frame["model"])
    hull = line(ax, "mixing by lot")
    corners = frame[frame["on_hull"]]
    assert set(hull[:, 0].round(6)) >= set((1_000 * corners["cost_usd_mean"]).round(6))
    assert (np.diff(hull[:, 1]) >= 0).all()
    assert hull[-1, 0] == pytest.approx(1_000 * frame["cost_usd_mean"].max())


def test_routers_are_lines_and_their_operating_points_markers() -> None:
    found = report()
    ax = al.plots.cost_quality_plane(found.models, curves=found.curves, points=POINTS)
    own = found.curves[found.curves["router"] == "router"]
    assert line(ax, "router") == pytest.approx(np.column_stack([1_000 * own["cost_usd"], own["quality"]]))
    assert {(1.4, 0.42), (1.6, 0.45)} <= points_at(ax)
    best = found.curves[found.curves["router"] == "oracle"]["quality"].max()
    assert line(ax, "oracle")[0, 1] == pytest.approx(best)
    legend = ax.get_legend()
    assert legend is not None
    assert {text.get_text() for text in legend.get_texts()} == {"mixing by lot", "length", "router", "oracle"}
    assert "USD" in ax.get_xlabel()


def test_without_costs_the_share_of_prompts_takes_their_place() -> None:
    found = report(costs=False)
    ax = al.plots.cost_quality_plane(found.models, curves=found.curves, points=POINTS)
    assert ax.get_xlabel() == "Prompts at the strong model (%)"
    assert {x for x, _ in points_at(ax)} == {0.0, 100.0, 40.0, 60.0}
    assert line(ax, "router")[[0, -1], 0].tolist() == [0, 100]


def test_a_given_axes_is_drawn_into_and_nothing_else_is_opened() -> None:
    _, ax = plt.subplots()
    assert al.plots.cost_quality_plane(report().models, ax=ax) is ax
    assert len(plt.get_fignums()) == 1


def test_nothing_is_said_to_be_nothing() -> None:
    ax = al.plots.cost_quality_plane(report().models.iloc[:0])
    assert ax.texts[0].get_text() == "no data: no model with a quality"
    assert al.plots.replay_intervals(replays().iloc[:0]).texts[0].get_text() == "no data: no estimates"


def replays() -> pd.DataFrame:
    draw = np.random.default_rng(0)
    log = pd.DataFrame({"chosen": draw.choice(["a", "b"], 200), "propensity": 0.5, "cost_usd": draw.random(200)})
    log["quality_score"] = draw.random(200)
    parts = [replay(log, policy).estimates.assign(policy=name) for name, policy in POLICIES.items()]
    return pd.concat(parts, ignore_index=True)


POLICIES: dict[str, Any] = {"all a": "a", "mostly b": {"a": 0.2, "b": 0.8}, "another": {"c": 1.0}}


@pytest.mark.parametrize("measure", ["quality_score", "cost_usd"])
def test_each_estimate_stands_with_its_interval_in_its_policys_row(measure: str) -> None:
    frame = replays()
    ax = al.plots.replay_intervals(frame, measure=measure)
    rows = frame[(frame["measure"] == measure) & frame["estimate"].notna()]
    drawn = {round(float(item.get_xdata()[0]), 6) for item in ax.lines if item.get_marker() not in ("", "None", None)}
    assert drawn == set(rows["estimate"].round(6))
    spans = {tuple(np.round(path.vertices[[0, 1], 0], 6)) for item in ax.collections for path in item.get_paths()}
    assert spans == set(zip(rows["low"].round(6), rows["high"].round(6), strict=True))
    assert [label.get_text() for label in ax.get_yticklabels()] == list(POLICIES)
    assert line(ax, "logged")[0, 0] == pytest.approx(rows["logged"].iloc[0])
    assert [text.get_text() for text in ax.texts] == ["not identifiable"]


def test_one_policy_has_a_row_per_estimator() -> None:
    frame = replays()
    ax = al.plots.replay_intervals(frame[frame["policy"] == "all a"].drop(columns="policy"))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["direct", "ips", "snips", "doubly robust"]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: al.plots.cost_quality_plane([1]), "was given a list"),
        (lambda: al.plots.cost_quality_plane(report().models.drop(columns="role")), "needs the column 'role'"),
        (lambda: al.plots.cost_quality_plane(report().models, curves=POINTS), "needs the column 'share'"),
        (lambda: al.plots.cost_quality_plane(report().models, points=report().curves), "operating_points"),
        (lambda: al.plots.replay_intervals(POINTS), "needs the column 'measure'"),
        (lambda: al.plots.replay_intervals(replays(), measure="cost"), "did you mean 'cost_usd'"),
    ],
)
def test_a_frame_of_another_kind_is_refused(draw: Any, message: str) -> None:
    with pytest.raises(al.InvalidValue, match=message):
        draw()
