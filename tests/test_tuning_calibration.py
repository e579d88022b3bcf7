"""Probabilities from scores, and how far they are from what happened."""

from __future__ import annotations

import numpy as np
import pytest

from autom8_lab.tuning.calibration import (
    CALIBRATION_COLUMNS,
    RELIABILITY_COLUMNS,
    calibration,
    expected_calibration_error,
    folds_of,
    isotonic,
    out_of_fold,
    platt,
)


def draw(n: int, *, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Scores of which one is right with probability 1 / (1 + exp(-(8 score - 4)))."""
    generator = np.random.default_rng(seed)
    scores = generator.random(n)
    return scores, generator.random(n) < 1 / (1 + np.exp(4 - 8 * scores))


def test_platt_finds_the_slope_and_intercept_that_made_the_data() -> None:
    _, found = platt(*draw(20_000))
    assert found["slope"] == pytest.approx(8, rel=0.05)
    assert found["intercept"] == pytest.approx(-4, rel=0.05)


def test_platt_stays_off_0_and_1_where_the_scores_divide_the_labels() -> None:
    model, _ = platt(np.array([0.0, 0.1, 0.9, 1.0]), np.array([False, False, True, True]))
    assert 0.01 < model(np.array([0.0]))[0] < 0.3
    assert 0.7 < model(np.array([1.0]))[0] < 0.99


def test_isotonic_rises_and_stays_off_0_and_1() -> None:
    scores, right = draw(500)
    values = isotonic(scores, right)[0](np.linspace(-1, 2, 50))
    assert (np.diff(values) >= 0).all()
    assert (values[0], values[-1]) == (1 / 502, 501 / 502)


def test_the_error_of_calibration_is_that_worked_by_hand() -> None:
    predicted, right = np.array([0.05, 0.05, 0.95, 0.95]), np.array([False, True, True, True])
    assert expected_calibration_error(predicted, right) == pytest.approx((0.9 + 0.1) / 4)
    assert expected_calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0.0


def test_calibration_is_measured_on_rows_that_the_fit_has_not_seen() -> None:
    generator = np.random.default_rng(0)
    scores, right = generator.random(300), generator.random(300) < 0.5
    inside = isotonic(scores, right)[0](scores)
    outside = out_of_fold(scores, right, "isotonic")
    assert expected_calibration_error(inside, right) < 0.005 < 0.03 < expected_calibration_error(outside, right)


def test_each_row_is_in_one_fold_and_the_rows_of_a_unit_in_the_same() -> None:
    right = np.arange(200) % 4 == 0
    fold = folds_of(right)
    assert [right[fold == number].sum() for number in range(5)] == [10] * 5
    units = [place // 4 for place in range(200)]
    together = folds_of(right, units=units)
    assert all(len(set(together[start : start + 4])) == 1 for start in range(0, 200, 4))


def test_the_frames_tell_the_better_method_and_its_reliability() -> None:
    methods, bins = calibration(*draw(2_000))
    assert methods.dtypes.astype(str).to_dict() == dict(CALIBRATION_COLUMNS)
    assert bins.dtypes.astype(str).to_dict() == dict(RELIABILITY_COLUMNS)
    assert methods["method"].tolist() == ["platt", "isotonic"]
    assert methods.loc[0, "ece"] < 0.03
    assert (methods["brier"] < methods["brier_of_base_rate"] - 0.05).all()
    assert bins["labels"].sum() == 2_000
    inside = (bins["observed_low"] <= bins["predicted"]) & (bins["predicted"] <= bins["observed_high"])
    assert inside.mean() >= 0.8


def test_too_few_of_a_kind_give_empty_frames_with_their_columns() -> None:
    methods, bins = calibration(np.linspace(0, 1, 50), np.arange(50) >= 46)
    assert (len(methods), len(bins)) == (0, 0)
    assert bins.dtypes.astype(str).to_dict() == dict(RELIABILITY_COLUMNS)
