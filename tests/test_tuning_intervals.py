"""Intervals over prompts: equal prompts are one draw."""

from __future__ import annotations

import numpy as np
import pytest

from autom8_lab.statistics import bootstrap_mean_interval, wilson_interval
from autom8_lab.tuning.intervals import (
    clustered,
    mean_interval_of,
    more_needed,
    percentile_interval,
    resampled_weights,
)


def test_different_prompts_are_their_own_groups() -> None:
    values = np.array([0.1, 0.5, 0.9])
    assert clustered(values, np.arange(3)).tolist() == values.tolist()


def test_groups_keep_the_mean_and_widen_its_interval() -> None:
    draw = np.random.default_rng(1)
    groups = np.repeat(np.arange(60), draw.integers(1, 8, 60))
    values = draw.normal(size=60)[groups]  # equal prompts have equal outcomes
    shares = clustered(values, groups)
    assert len(shares) == 60
    assert shares.mean() == pytest.approx(values.mean())
    alone = np.diff(bootstrap_mean_interval(values))
    together = np.diff(mean_interval_of(values, groups, confidence=0.95))
    assert together > 1.5 * alone


def test_the_interval_of_grouped_values_covers() -> None:
    draw = np.random.default_rng(2)
    hits = 0
    for _ in range(300):
        sizes = draw.integers(1, 6, 80)
        groups = np.repeat(np.arange(80), sizes)
        values = (draw.normal(size=80) + 0.2 * sizes)[groups]
        low, high = mean_interval_of(values, groups, confidence=0.95)
        hits += low < 0.2 * 11 / 3 < high  # E[size²] / E[size] = 11 / 3
    assert 0.92 <= hits / 300 <= 0.98


def test_successes_have_wilsons_interval() -> None:
    values = np.array([1.0] * 9 + [0.0])
    expected = tuple(float(bound) for bound in wilson_interval(9, 10))
    assert mean_interval_of(values, np.arange(10), confidence=0.95) == expected


def test_weights_draw_groups_whole() -> None:
    groups = np.array([0, 0, 1, 2])
    blocks = list(resampled_weights(groups, resamples=1_000, seed=3))
    weights = np.concatenate(blocks)
    assert weights.shape == (1_000, 4)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 1:].sum(axis=1) == 3).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(4), abs=0.1)


def test_resamples_without_a_figure_leave_no_interval() -> None:
    values = np.linspace(0, 1, 101)
    assert percentile_interval(values, confidence=0.9) == pytest.approx((0.05, 0.95))
    values[:10] = np.nan
    assert np.isnan(percentile_interval(values, confidence=0.9)).all()


def test_the_bias_of_a_figure_is_taken_back() -> None:
    # The largest of ten normal means is biased upwards, its resamples once more.
    draw = np.random.default_rng(4)
    plain = corrected = 0
    for _ in range(300):
        means = draw.normal(size=10) + np.linspace(0, 1.5, 10)
        resampled = (means + draw.normal(size=(400, 10))).max(axis=1)
        low, high = percentile_interval(resampled, confidence=0.9)
        plain += low <= 1.5 <= high
        low, high = percentile_interval(resampled, confidence=0.9, estimate=float(means.max()))
        corrected += low <= 1.5 <= high
    assert corrected > plain + 20
    symmetric = np.linspace(0, 1, 1_001)
    assert percentile_interval(symmetric, confidence=0.9, estimate=0.5) == pytest.approx((0.05, 0.95))


def test_how_many_more_prompts_gives_power_four_times_in_five() -> None:
    # sd 1, mean 0.2, 100 prompts: z = 2; for 80 % power (1.96 + 0.84)² / 0.2² = 196 are needed.
    half = 1.959964 / 10
    assert more_needed(0.2, 0.2 - half, 0.2 + half, 100, confidence=0.95) is None  # shown already
    half = 1.959964 / 50**0.5
    assert more_needed(0.2, 0.2 - half, 0.2 + half, 50, confidence=0.95) == pytest.approx(146, abs=1)
    assert more_needed(-0.2, -0.5, 0.1, 50, confidence=0.95) is None
    assert more_needed(1e-5, -0.2, 0.2, 50, confidence=0.95) is None
