"""Frontier, hull and AIQ against cases worked by hand and against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import autom8_lab as al
from autom8_lab.tuning.hulls import aiq, hull_area, non_decreasing_hull, pareto_frontier

points = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=8)


def best_mixture(cost: np.ndarray, quality: np.ndarray, budget: float) -> float:
    """The best quality that a lottery over at most two points buys: tries every pair."""
    best = quality[cost <= budget].max(initial=-np.inf)
    for a in range(len(cost)):
        for b in range(len(cost)):
            if cost[a] <= budget < cost[b]:
                part = (budget - cost[a]) / (cost[b] - cost[a])
                best = max(best, (1 - part) * quality[a] + part * quality[b])
    return float(best)


@given(points)
def test_the_hull_is_what_the_best_mixture_of_two_points_reaches(drawn: list[tuple[int, int]]) -> None:
    cost, quality = np.array(drawn, dtype=float).T
    hull = non_decreasing_hull(cost, quality)
    for budget in np.linspace(cost.min(), cost.max(), 13):
        assert np.interp(budget, *hull.T) == pytest.approx(best_mixture(cost, quality, budget), abs=1e-9)
    assert (np.diff(hull[:, 1]) > 0).all()


@given(points)
def test_no_point_beats_one_on_the_frontier(drawn: list[tuple[int, int]]) -> None:
    kept = pareto_frontier(*np.array(drawn, dtype=float).T)
    for place, (cost, quality) in enumerate(drawn):
        beaten = any(c <= cost and q >= quality and (c, q) != (cost, quality) for c, q in drawn)
        assert (not beaten and drawn.index((cost, quality)) == place) == (place in kept)


def test_aiq_of_two_models_is_the_middle_of_the_line_between_them() -> None:
    # From (1, 0.4) to (3, 0.8): the area is 2 × 0.6; RouterBench's program divides by 3.
    assert aiq([1, 3], [0.4, 0.8]) == pytest.approx(0.6)
    assert aiq([1, 3], [0.4, 0.8], normalise="code") == pytest.approx(1.2 / 3)


def test_aiq_leaves_out_points_below_the_hull_and_goes_on_flat_after_the_best_one() -> None:
    # Corners (0, 0.2), (2, 0.6); (1, 0.3) lies below, and (4, 0.5) is dearer and worse: 0.8 + 1.2 over 4.
    assert aiq([0, 1, 2, 4], [0.2, 0.3, 0.6, 0.5]) == pytest.approx(2.0 / 4)
    # A router that begins at 2 of a range from 1 to 5: "code" integrates from there, "paper" knows nothing before it.
    assert aiq([2, 4], [0.5, 0.7], cost_range=(1, 5), normalise="code") == pytest.approx((1.2 + 0.7) / 5)
    assert np.isnan(aiq([2, 4], [0.5, 0.7], cost_range=(1, 5)))


def test_aiq_is_unknown_where_all_cost_the_same() -> None:
    assert np.isnan(aiq([2, 2], [0.1, 0.9]))
    assert np.isnan(aiq([0, 0], [0.1, 0.9], normalise="code"))


def test_the_area_is_that_of_the_part_asked_for() -> None:
    hull = non_decreasing_hull([0, 2], [0.0, 1.0])
    assert hull_area(hull, 1, 3) == pytest.approx(0.75 + 1.0)
    assert np.isnan(hull_area(hull, -1, 1))


@pytest.mark.parametrize(
    ("cost", "quality", "message"),
    [([1], [0.1, 0.2], "shapes"), ([], [], "shapes"), ([1, float("nan")], [0.1, 0.2], "not finite")],
)
def test_points_that_mean_nothing_are_refused(cost: list[float], quality: list[float], message: str) -> None:
    with pytest.raises(al.InvalidValue, match=message):
        pareto_frontier(cost, quality)
    with pytest.raises(al.InvalidValue, match=message):
        aiq(cost, quality)


def test_an_unknown_normalisation_is_refused() -> None:
    with pytest.raises(al.InvalidValue, match="'paper' or 'code'"):
        aiq([1, 2], [0.1, 0.2], normalise="papr")  # type: ignore[arg-type]
