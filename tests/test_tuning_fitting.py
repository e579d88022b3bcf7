"""Fitting routers: out of fold, honest thresholds, and a recommendation only where the evidence is."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import autom8_lab as al
from autom8_lab.recommendation import Recommendation
from autom8_lab.tuning.fitting import (
    CALIBRATION_COLUMNS,
    POLICY_COLUMNS,
    RouterFit,
    Vectors,
    expected_calibration_error,
    fit_router,
)
from autom8_lab.tuning.operating import Goal, best_of
from autom8_lab.tuning.outcomes import Outcomes, outcomes_of
from autom8_lab.tuning.policies import SETTING, Router

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)


def problem(
    count: int = 300, *, seed: int = 0, signal: float = 2.0, costs: bool = True, models: int = 2, texts: bool = True
) -> tuple[Outcomes, Vectors]:
    """Prompts whose hardness lies in the first dimension of their vectors, and in nothing else."""
    draw = np.random.default_rng(seed)
    vectors = draw.normal(size=(count, 6))
    ids = [f"p{n:04}" for n in range(count)]
    words = {name: " ".join(["word"] * int(draw.integers(3, 40))) + f" {name}" for name in ids}
    rows = []
    for place in range(models):
        share = 1 / (1 + np.exp(signal / (1 + 2 * place) * vectors[:, 0] - 1.2 * place))
        quality = (draw.random(count) < share).astype(float)
        cost = (1 + 3.0 * place) * draw.lognormal(sigma=0.1, size=count)
        names = ["small", "large", "huge"]
        rows.append(pd.DataFrame({"prompt_id": ids, "model": names[place], "quality_score": quality, "cost_usd": cost}))
    frame = pd.concat(rows, ignore_index=True)
    frame = frame if costs else frame.drop(columns="cost_usd")
    return outcomes_of(frame, texts=words if texts else None), Vectors(vectors)


def fitted(outcomes: Outcomes, vectors: Vectors | None, **options: Any) -> RouterFit:
    return fit_router(outcomes, vectors=vectors, created_at=AT, **{"resamples": 300, "learners": ["linear"], **options})


@pytest.fixture(scope="module")
def good() -> tuple[Outcomes, Vectors, RouterFit]:
    outcomes, vectors = problem(400)
    return outcomes, vectors, fitted(outcomes, vectors, learners=None)


def test_a_learned_router_is_recommended_with_its_evidence(good: tuple[Outcomes, Vectors, RouterFit]) -> None:
    outcomes, _, fit = good
    assert fit.recommendation.verdict == "recommend"
    assert fit.report.best in ("knn", "linear", "boosted")
    policy = fit.recommendation.settings[SETTING]
    assert policy["candidates"] == ["small", "large"]
    assert policy["evidence"]["prompts"] == 400
    evidence = fit.recommendation.evidence
    assert evidence.metric == "quality gained over routing by length at equal cost"
    assert evidence.held_out
    assert evidence.data_hash == outcomes.data_hash
    assert evidence.low is not None
    assert 0 < evidence.low < evidence.estimate < evidence.high  # type: ignore[operator]
    assert evidence.details["goal"] == "recover 80 % of the gap in quality"
    plain = yaml.safe_load(yaml.safe_dump(fit.recommendation.to_dict()))
    assert Recommendation.from_dict(json.loads(json.dumps(plain))) == fit.recommendation


def test_every_router_is_a_policy_that_routes_as_it_was_judged(good: tuple[Outcomes, Vectors, RouterFit]) -> None:
    outcomes, vectors, fit = good
    assert set(fit.policies) == {"small", "large", "length", "knn", "linear", "boosted"}
    assert outcomes.texts is not None
    for name in ("knn", "linear", "boosted"):
        router = Router(fit.policies[name])
        scores = router.scores(outcomes.texts, vectors.values)
        # On the prompts it learned from it expects about what it expected of them unseen.
        unseen = fit.scores[name].to_numpy()
        assert np.corrcoef(scores[:, 0], unseen[:, 0])[0, 1] > 0.7
        share = (router.best(scores) == 1).mean()
        point = fit.operating_points.set_index("router").loc[name]
        assert abs(share - point["strong_share"]) < 0.12


def test_the_frames_have_their_columns_and_the_fit_shows_itself(good: tuple[Outcomes, Vectors, RouterFit]) -> None:
    fit = good[2]
    assert fit.operating_points.dtypes.astype(str).to_dict() == POLICY_COLUMNS
    assert fit.calibration.dtypes.astype(str).to_dict() == CALIBRATION_COLUMNS
    assert "recommend" in repr(fit)
    assert "prompts to large" in fit._repr_html_()
    assert (fit.operating_points["quality_low"] < fit.operating_points["quality"]).all()
    assert (fit.operating_points["cost_change_usd_high"] < 0).all()


def test_expected_qualities_keep_their_word(good: tuple[Outcomes, Vectors, RouterFit]) -> None:
    table = good[2].calibration.set_index(["router", "model"])
    assert (table["ece"] < 0.1).all()
    assert (table.loc["linear", "brier"] < table.loc["linear", "brier_of_mean"]).all()


def test_predictions_are_for_prompts_that_were_not_learned_from() -> None:
    # Noise alone: whoever has seen the outcomes predicts them, whoever has not cannot.
    outcomes, vectors = problem(200, signal=0.0)
    draw = np.random.default_rng(1)
    wide = Vectors(draw.normal(size=(200, 150)))
    found = fitted(outcomes, wide)
    gain = outcomes.quality[:, 1] - outcomes.quality[:, 0]
    expected = found.scores["linear"].to_numpy()
    assert np.corrcoef(expected[:, 1] - expected[:, 0], gain)[0, 1] < 0.2
    assert vectors.values.shape == (200, 6)


def test_equal_prompts_are_in_one_fold() -> None:
    # Each text three times with one outcome: split up, the copies would tell it.
    draw = np.random.default_rng(2)
    single = np.repeat(draw.normal(size=(80, 120)), 3, axis=0)
    right = np.repeat(draw.random((80, 2)) < 0.6, 3, axis=0).astype(float)
    ids = [f"p{n:03}" for n in range(240)]
    rows = pd.concat(
        [pd.DataFrame({"prompt_id": ids, "model": m, "quality_score": right[:, n]}) for n, m in enumerate(["a", "b"])]
    )
    texts = {name: f"text {place // 3}" for place, name in enumerate(ids)}
    outcomes = outcomes_of(rows, texts=texts)
    places = [outcomes.models.index(name) for name in ("a", "b")]
    together = fitted(outcomes, Vectors(single)).scores["linear"].to_numpy()[:, places]
    assert abs(np.corrcoef(together[:, 0], right[:, 0])[0, 1]) < 0.35
    apart = outcomes_of(rows, texts={name: name for name in ids})
    split = fitted(apart, Vectors(single)).scores["linear"].to_numpy()[:, places]
    assert np.corrcoef(split[:, 0], right[:, 0])[0, 1] > 0.4


def test_where_the_length_is_the_best_that_is_known_it_is_recommended() -> None:
    draw = np.random.default_rng(5)
    lengths = draw.integers(10, 300, 400)
    ids = [f"p{n:03}" for n in range(400)]
    rows = []
    for model, slope in (("small", -0.02), ("large", -0.002)):
        right = draw.random(400) < 1 / (1 + np.exp(-(1.5 + slope * (lengths - 60))))
        rows.append(pd.DataFrame({"prompt_id": ids, "model": model, "quality_score": right.astype(float)}))
    outcomes = outcomes_of(pd.concat(rows), texts={name: "x" * int(n) for name, n in zip(ids, lengths, strict=True)})
    found = fitted(outcomes, Vectors(draw.normal(size=(400, 5))), learners=["knn"])
    assert found.report.best == "length"
    policy = found.recommendation.settings[SETTING]
    assert policy["kind"] == "length"
    assert 10 < policy["threshold"] < 300
    assert found.recommendation.bound_to.embedding_model is None


def test_noise_is_not_recommended() -> None:
    """The long run is benchmarks/routing_simulation.py."""
    recommended = 0
    for seed in range(15):
        outcomes, vectors = problem(120, seed=seed, signal=0.0)
        recommended += fitted(outcomes, vectors, folds=5).recommendation.verdict == "recommend"
    assert recommended <= 1


def test_ten_prompts_are_too_few_to_learn_from() -> None:
    outcomes, vectors = problem(10)
    found = fitted(outcomes, vectors)
    assert found.recommendation.verdict == "cannot tell yet"
    assert "10 different prompts" in found.recommendation.because
    assert set(found.policies) == {"small", "large", "length"}


def test_one_class_only_gives_no_router() -> None:
    outcomes, vectors = problem(120)
    outcomes = dataclasses.replace(outcomes, quality=np.ones((120, 2)))
    found = fitted(outcomes, vectors, learners=None)
    assert found.recommendation.verdict == "cannot tell yet"
    assert found.report.routers["apgr"].isna().all()


def test_a_cheap_model_that_is_better_is_the_policy() -> None:
    outcomes, vectors = problem(200)
    quality = np.column_stack([np.ones(200), outcomes.quality[:, 1]])
    outcomes = dataclasses.replace(outcomes, quality=quality)
    found = fitted(outcomes, vectors)
    assert found.recommendation.settings[SETTING]["kind"] == "always"
    assert found.recommendation.settings[SETTING]["candidates"] == ["small"]
    assert found.recommendation.evidence.metric == "quality of large over small"


def test_three_models_are_routed_by_expected_quality_less_price() -> None:
    outcomes, vectors = problem(500, models=3, seed=3)
    found = fitted(outcomes, vectors)
    policy = found.policies["linear"]
    assert policy["expense"][0] == 0
    assert policy["expense"][-1] == 1
    assert 0.3 < policy["expense"][1] < 0.7
    row = found.report.routers.set_index("router").loc["linear"]
    assert np.isnan(row["apgr"])
    assert row["gain"] > 0


def test_without_texts_the_vectors_alone_teach_and_without_both_nothing_does() -> None:
    outcomes, vectors = problem(300, texts=False)
    found = fitted(outcomes, vectors)
    assert found.policies["linear"]["parameters"]["features"] == []
    assert "length" not in found.policies
    assert fitted(outcomes, None, learners=None).scores == {}


def test_a_budget_is_kept() -> None:
    outcomes, vectors = problem(400)
    found = fitted(outcomes, vectors, goal=Goal(max_cost_usd=2.0))
    point = found.operating_points.set_index("router").loc["linear"]
    assert point["cost_usd"] == pytest.approx(2.0, abs=0.25)
    assert point["reaches_goal"]
    assert found.recommendation.evidence.details["goal"] == "at most 2 USD per prompt"
    tight = fitted(outcomes, vectors, goal=Goal(max_cost_usd=0.01)).operating_points.set_index("router")
    assert tight.loc["linear", "strong_share"] < 0.02
    assert not tight.loc["linear", "reaches_goal"]


def test_a_higher_target_takes_more_of_the_strong_model() -> None:
    outcomes, vectors = problem(400)
    shares = [
        fitted(outcomes, vectors, goal=Goal(target_pgr=part)).operating_points.set_index("router").loc["linear"]
        for part in (0.3, 0.6, 0.95)
    ]
    assert shares[0]["strong_share"] < shares[1]["strong_share"] < shares[2]["strong_share"]
    assert shares[0]["quality"] < shares[2]["quality"]
    assert shares[0]["threshold"] > shares[1]["threshold"] > shares[2]["threshold"]


def test_the_threshold_reaches_its_goal_on_the_prompts_it_was_chosen_on() -> None:
    outcomes, _ = problem(300)
    draw = np.random.default_rng(8)
    scores, slopes = draw.random((300, 2)), np.array([0.0, 1.0])
    means = outcomes.quality.mean(axis=0)
    wanted = means[0] + 0.5 * (means[1] - means[0])
    limit = Goal(target_pgr=0.5).threshold(outcomes, scores, slopes, (0, 1))

    def quality(threshold: float) -> float:
        chosen = best_of(scores, slopes, threshold)
        return float(outcomes.quality[np.arange(300), chosen].mean())

    assert quality(limit) >= wanted - 1e-9
    gains = np.sort(scores[:, 1] - scores[:, 0])
    above = gains[gains > limit]
    assert quality((above[0] + above[1]) / 2) < wanted  # one prompt fewer at the strong model misses it


def test_vectors_that_the_lab_keeps_are_named_and_others_written_down() -> None:
    outcomes, vectors = problem(120)
    names = tuple(f"hash-{n}" for n in range(120))
    kept = Vectors(vectors.values, "minilm@1", names)
    policy = fitted(outcomes, kept, learners=["knn"]).policies["knn"]
    assert policy["parameters"]["vectors"] == {"model": "minilm@1", "stored": list(names)}
    assert policy["embedding"] == {"model": "minilm@1", "dimensions": 6}
    given = fitted(outcomes, vectors, learners=["knn"]).policies["knn"]
    assert given["parameters"]["vectors"]["shape"] == [120, 6]
    assert given["embedding"]["model"] is None


def test_the_calibration_error_is_the_mean_gap_of_ten_equal_bins() -> None:
    expected = np.linspace(0, 1, 100)
    assert expected_calibration_error(expected, expected) == pytest.approx(0)
    assert expected_calibration_error(expected, np.full(100, 0.5)) == pytest.approx(0.25, abs=0.01)
    assert expected_calibration_error(np.full(10, 0.5), np.arange(10) % 2.0) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learners": ["lineer"]}, "did you mean 'linear'"),
        ({"learners": "linear"}, "give a list"),
        ({"folds": 1}, "at least 2"),
        ({"vectors": Vectors(np.zeros((3, 2)))}, "row for each of 60 prompts"),
        ({"vectors": Vectors(np.full((60, 2), np.nan))}, "60 vectors are not finite"),
        ({"vectors": None, "learners": ["knn"]}, "it needs vectors"),
        ({"goal": Goal(max_cost_usd=1.0)}, "needs the costs"),
    ],
)
def test_what_means_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    outcomes, vectors = problem(60, costs=False)
    with pytest.raises(al.InvalidValue, match=message):
        fitted(outcomes, **{"vectors": vectors, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_pgr": 0.5, "max_cost_usd": 1.0}, "two goals"),
        ({"target_pgr": 0.0}, "target_pgr=0.0"),
        ({"target_pgr": 1.5}, "target_pgr=1.5"),
        ({"max_cost_usd": -1.0}, "max_cost_usd=-1.0"),
    ],
)
def test_a_goal_that_means_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(al.InvalidValue, match=message):
        Goal(**options)
