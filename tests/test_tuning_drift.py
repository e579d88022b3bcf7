"""Drift: what moved is found with its time, what did not is not, and what cannot be told is said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from autom8_lab.tuning.drift import DRIFT_COLUMNS, Sample, change_interval, change_point, distance, drift

START = datetime(2026, 5, 1, tzinfo=UTC)


def sample(values: np.ndarray, *, measure: str = "latency_ms", group: str = "all") -> Sample:
    """Values an hour apart."""
    times = np.datetime64("2026-05-01", "us") + np.arange(values.size) * np.timedelta64(1, "h")
    return Sample(measure, group, times, values.astype(np.float64))


def hours(count: int) -> datetime:
    return START + timedelta(hours=count)


@pytest.mark.parametrize("kind", ["normal", "long tail", "yes or no"])
def test_a_change_is_found_with_its_time(kind: str) -> None:
    generator = np.random.default_rng(3)
    made: dict[str, Any] = {
        "normal": (generator.normal(5, 1, 300), generator.normal(6, 1, 200)),
        "long tail": (generator.lognormal(0, 1, 300), 2.5 * generator.lognormal(0, 1, 200)),
        "yes or no": (generator.random(300) < 0.95, generator.random(200) < 0.7),
    }
    row = drift([sample(np.concatenate(made[kind]))], since=hours(400)).iloc[0]
    assert row["verdict"] == "moved"
    assert row["changed_at_low"] <= hours(300) <= row["changed_at_high"]
    assert abs(row["changed_at"] - hours(300)) < timedelta(hours=40)
    assert row["changed_at_high"] - row["changed_at_low"] < timedelta(hours=120)
    assert (row["reference_n"], row["recent_n"]) == (400, 100)
    assert row["change_low"] < row["change"] < row["change_high"]
    assert row["change"] == pytest.approx(row["recent_mean"] - row["reference_mean"])
    assert 0.05 < row["distance"] < 1


def test_without_a_change_at_most_5_percent_of_frames_have_one_that_moved() -> None:
    generator = np.random.default_rng(4)
    alarms = 0
    for _ in range(100):
        rows = drift([sample(generator.exponential(size=120), group=str(g)) for g in range(4)], since=hours(80))
        alarms += (rows["verdict"] == "moved").any()
    assert alarms <= 5


def test_the_interval_of_the_time_covers_it_in_most_draws() -> None:
    generator = np.random.default_rng(5)
    covered = 0
    for _ in range(60):
        values = np.concatenate([generator.normal(0, 1, 120), generator.normal(1.2, 1, 80)])
        low, high = change_interval(values, change_point(values).place)
        covered += low <= 120 <= high
    assert covered >= 54


def test_few_values_or_none_in_a_period_cannot_be_told() -> None:
    rows = drift([sample(np.arange(30.0)), sample(np.arange(10.0), group="b")], since=hours(25))
    assert rows["verdict"].tolist() == ["cannot tell yet"] * 2
    assert rows["p_value"].isna().all()
    assert rows["changed_at"].isna().all()
    assert rows["recent_n"].tolist() == [5, 0]
    empty = drift([], since=START)
    assert empty.dtypes.astype(str).to_dict() == dict(DRIFT_COLUMNS) == rows.dtypes.astype(str).to_dict()


def test_constant_values_have_not_moved() -> None:
    row = drift([sample(np.full(100, 0.5))], since=hours(50)).iloc[0]
    assert (row["verdict"], row["p_value"], row["change"], row["distance"]) == ("no change seen", 1.0, 0.0, 0.0)


def test_many_values_are_thinned_and_the_time_is_still_right() -> None:
    generator = np.random.default_rng(6)
    values = np.concatenate([generator.normal(0, 1, 60_000), generator.normal(0.5, 1, 40_000)])
    row = drift([sample(values)], since=hours(90_000)).iloc[0]
    assert abs(row["changed_at"] - hours(60_000)) < timedelta(hours=2_000)
    assert row["changed_at_low"] <= hours(60_000) <= row["changed_at_high"]


def test_the_distance_is_the_largest_gap_of_the_distributions() -> None:
    from scipy.stats import ks_2samp

    generator = np.random.default_rng(7)
    one, other = generator.integers(0, 9, 50).astype(float), generator.integers(2, 12, 70).astype(float)
    assert distance(one, other) == pytest.approx(ks_2samp(one, other).statistic)
