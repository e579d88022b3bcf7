"""Learned routers: plain parameters that predict what scikit-learn predicts, and calibration that keeps its word."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import KNeighborsRegressor

from autom8_lab.tuning.learners import (
    LEARNERS,
    RIDGE_PENALTIES,
    TREES,
    Inputs,
    _design,
    available,
    calibrate,
    calibrated,
    fit,
    predict,
)


def problem(count: int = 300, seed: int = 0, *, models: int = 2) -> tuple[Inputs, np.ndarray]:
    draw = np.random.default_rng(seed)
    vectors = draw.normal(size=(count, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    features = np.column_stack([draw.lognormal(size=count), draw.integers(0, 5, count), np.ones(count)])
    logit = 2 * vectors[:, :models] + 0.3 * features[:, [1]] - 0.5
    return Inputs(features, vectors), (draw.random((count, models)) < 1 / (1 + np.exp(-logit))).astype(float)


def plain(parameters: dict[str, object]) -> dict[str, object]:
    """What is left after a way through JSON; vectors stay arrays, see test_tuning_policies."""
    return json.loads(json.dumps({name: value for name, value in parameters.items() if name != "vectors"}))


def test_boosted_trees_predict_as_scikit_learn_does_to_1e_9() -> None:
    inputs, quality = problem()
    new = problem(200, 5)[0]
    parameters = fit("boosted", inputs, quality, seed=3)
    predicted = predict("boosted", plain(parameters), new)
    table, later = _design(inputs, parameters), _design(new, parameters)
    for place in range(2):
        model = GradientBoostingRegressor(**TREES, random_state=3).fit(table, quality[:, place])
        assert np.abs(predicted[:, place] - model.predict(later)).max() < 1e-9


def test_boosted_trees_split_at_the_threshold_as_scikit_learn_does() -> None:
    # Values that 32 bits cannot hold: what is compared is what was rounded.
    draw = np.random.default_rng(1)
    values = draw.choice([0.1, 0.2, 0.3, 0.7], size=(200, 1))
    inputs = Inputs(np.empty((200, 0)), values)
    quality = (values > 0.25).astype(float)
    parameters = fit("boosted", inputs, quality, seed=0)
    model = GradientBoostingRegressor(**TREES, random_state=0).fit(values, quality[:, 0])
    assert np.abs(predict("boosted", plain(parameters), inputs)[:, 0] - model.predict(values)).max() < 1e-9


def test_linear_predicts_as_scikit_learns_ridge_does() -> None:
    inputs, quality = problem()
    parameters = fit("linear", inputs, quality, seed=0)
    table = _design(inputs, parameters)
    model = RidgeCV(RIDGE_PENALTIES, alpha_per_target=True).fit(table, quality)
    assert predict("linear", plain(parameters), inputs) == pytest.approx(model.predict(table), abs=1e-9)


def test_neighbours_predict_as_scikit_learns_do() -> None:
    inputs, quality = problem()
    new = problem(50, 6)[0]
    parameters = fit("knn", inputs, quality, seed=0)
    model = KNeighborsRegressor(parameters["neighbours"], metric="cosine").fit(inputs.vectors, quality)
    assert predict("knn", parameters, new) == pytest.approx(model.predict(new.vectors))
    assert plain(parameters)["quality"] == quality.tolist()


def test_neighbours_that_are_equally_near_share_the_last_places() -> None:
    rng = np.random.default_rng(3)
    vectors = np.repeat(rng.normal(size=(12, 8)), 15, axis=0)
    quality = (rng.random((180, 2)) < 0.6).astype(float)
    parameters = fit("knn", Inputs(np.empty((180, 0)), vectors), quality, seed=0)
    expected = predict("knn", {**parameters, "neighbours": 10}, Inputs(np.empty((12, 0)), vectors[::15]))
    assert expected == pytest.approx(quality.reshape(12, 15, 2).mean(axis=1))
    order = rng.permutation(180)
    other = fit("knn", Inputs(np.empty((180, 0)), vectors[order] * (1 + 1e-13)), quality[order], seed=0)
    assert other["neighbours"] == parameters["neighbours"]
    asked = Inputs(np.empty((20, 0)), rng.normal(size=(20, 8)))
    assert predict("knn", other, asked) == pytest.approx(predict("knn", parameters, asked), abs=1e-12)


def test_few_prompts_have_as_many_neighbours_as_there_are() -> None:
    inputs, quality = problem(6)
    parameters = fit("knn", inputs, quality, seed=0)
    assert parameters["neighbours"] == 5
    assert predict("knn", parameters, inputs).shape == (6, 2)


def test_features_that_do_not_vary_do_no_harm() -> None:
    inputs, quality = problem()
    assert inputs.features[:, 2].std() == 0
    for name in ("linear", "boosted"):
        assert np.isfinite(predict(name, fit(name, inputs, quality, seed=0), inputs)).all()


@pytest.mark.parametrize("name", LEARNERS)
def test_a_model_that_is_always_right_is_expected_to_be(name: str) -> None:
    inputs, quality = problem(80)
    quality[:, 1] = 1.0
    parameters = fit(name, inputs, quality, seed=0)
    assert predict(name, parameters, inputs)[:, 1] == pytest.approx(np.ones(80), abs=1e-6)


def test_what_can_be_learned_depends_on_what_is_seen() -> None:
    inputs, _ = problem(20)
    nothing = np.empty((20, 0))
    assert available(inputs) == list(LEARNERS)
    assert available(Inputs(inputs.features, nothing)) == ["linear", "boosted"]
    assert available(Inputs(nothing, inputs.vectors)) == list(LEARNERS)
    assert available(Inputs(nothing, nothing)) == []


def test_platts_curve_finds_the_true_one() -> None:
    draw = np.random.default_rng(2)
    expected = draw.uniform(0.3, 0.7, 20_000)
    truth = 1 / (1 + np.exp(-(8 * expected - 4)))
    found = calibrate(expected, (draw.random(20_000) < truth).astype(float))
    assert found.logistic
    assert (found.intercept, found.slope) == pytest.approx((-4, 8), rel=0.1)
    assert calibrated(expected[:, None], [found])[:, 0] == pytest.approx(truth, abs=0.02)


def test_grades_are_calibrated_by_a_line() -> None:
    draw = np.random.default_rng(3)
    expected = draw.random(500)
    found = calibrate(expected, 0.2 + 0.5 * expected)
    assert (found.logistic, round(found.intercept, 6), round(found.slope, 6)) == (False, 0.2, 0.5)


@pytest.mark.parametrize(
    ("expected", "quality"),
    [
        (np.linspace(0, 1, 50), np.linspace(1, 0, 50)),  # falling
        (np.full(50, 0.4), np.linspace(0, 1, 50)),  # constant
        (np.linspace(0, 1, 50), np.ones(50)),  # one class
    ],
)
def test_where_nothing_was_learned_the_mean_is_expected(expected: np.ndarray, quality: np.ndarray) -> None:
    found = calibrate(expected, quality)
    assert found == (False, pytest.approx(quality.mean()), 0.0)
    assert calibrated(expected[:, None], [found])[:, 0] == pytest.approx(np.full(50, quality.mean()))
