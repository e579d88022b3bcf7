"""Thresholds: recommended where the labels show it, refused with a reason where they do not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

import autom8_lab as al
from autom8_lab.lab import Lab
from autom8_lab.recommendation import Binding, Recommendation
from autom8_lab.tuning.labels import Labels, read_labels
from autom8_lab.tuning.thresholds import SLICE_COLUMNS, Goal, best_threshold_choice, goal_of, tune
from autom8_lab.tuning.verdicts import best_of

NOW = datetime(2026, 5, 1, tzinfo=UTC)
COSTS = {"false_hit_cost": 5.0, "miss_cost": 1.0}


def goal(**given: Any) -> Goal:
    names = ("objective", "max_false_hit_rate", "false_hit_cost", "miss_cost")
    return goal_of(**{**dict.fromkeys(names), **given})


def advise(labels: Labels, *, in_force: float | None = None, by: str | None = None, **given: Any) -> Recommendation:
    return tune(labels, goal(**given), setting="cache_threshold", in_force=in_force, bound_to=Binding(), now=NOW, by=by)


def draw(n: int, *, seed: int = 0, steepness: float = 12.0) -> Labels:
    """Scores of which one is right with probability 1 / (1 + exp(-steepness (score - 0.5)))."""
    generator = np.random.default_rng(seed)
    scores = generator.random(n)
    right = generator.random(n) < 1 / (1 + np.exp(-steepness * (scores - 0.5)))
    groups = np.where(generator.random(n) < 0.3, "de", "en")
    return Labels(scores, right, [{"language": group} for group in groups])


def test_a_budget_that_the_labels_support_gives_a_certified_threshold() -> None:
    found = advise(draw(3_000), max_false_hit_rate=0.05)
    threshold = found.settings["cache_threshold"]
    assert found.verdict == "recommend"
    # From 0.57 on less than 5 % of the hits are false.
    assert 0.57 < threshold < 0.72
    assert found.evidence.held_out
    assert (found.evidence.high or 1) <= 0.05
    assert found.evidence.details["held_out_labels"] == 1_500 == found.evidence.sample_size
    assert "within 5.00%" in found.because


def test_a_budget_that_they_do_not_support_is_refused_with_how_many_more() -> None:
    found = advise(draw(200), max_false_hit_rate=0.01)
    assert (found.verdict, found.settings) == ("cannot tell yet", {})
    assert found.evidence.details["labels_needed"] > 500
    assert f"about {found.evidence.details['labels_needed']:,} more labels are needed" in found.because


def test_unequal_costs_move_the_threshold() -> None:
    dear, cheap = (advise(draw(2_000), false_hit_cost=cost, miss_cost=1.0) for cost in (9.0, 1 / 9))
    # The best thresholds are where the probability of being right is 0.9 and 0.1.
    assert dear.settings["cache_threshold"] == pytest.approx(0.5 + np.log(9) / 12, abs=0.06)
    assert cheap.settings["cache_threshold"] == pytest.approx(0.5 - np.log(9) / 12, abs=0.06)
    assert dear.verdict == "recommend"
    assert dear.evidence.metric == "cost per request"
    assert 0 < (dear.evidence.low or 0) < (dear.evidence.estimate or 0)


def test_beta_moves_the_threshold_of_an_f_measure() -> None:
    precise, thorough = (advise(draw(2_000), objective=name).settings["cache_threshold"] for name in ("f0.5", "f2"))
    assert precise > thorough + 0.1


def test_what_is_in_force_is_kept_where_it_is_the_best() -> None:
    found = advise(draw(400), in_force=0.5, false_hit_cost=1, miss_cost=1)
    assert found.verdict in ("keep", "cannot tell yet")
    certified = advise(draw(3_000), max_false_hit_rate=0.05).settings["cache_threshold"]
    assert advise(draw(3_000), in_force=certified, max_false_hit_rate=0.05).verdict == "keep"


@pytest.mark.parametrize("noise", [True, False])
def test_without_a_real_difference_at_most_5_percent_recommend(noise: bool) -> None:
    # Labels that the scores know nothing of; and scores whose best threshold is the one in force.
    made = [draw(60, seed=seed, steepness=0.0 if noise else 12.0) for seed in range(200)]
    verdicts = [advise_quickly(labels, in_force=0.5) for labels in made]
    assert sum(verdict == "recommend" for verdict in verdicts) <= 10


def advise_quickly(labels: Labels, *, in_force: float) -> str:
    return best_threshold_choice(labels, goal(false_hit_cost=1, miss_cost=1), in_force).verdict


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (Labels(np.linspace(0, 1, 30), np.ones(30, dtype=bool)), "all 30 labels are True"),
        (Labels(np.linspace(0, 1, 30), np.zeros(30, dtype=bool)), "all 30 labels are False"),
        (Labels(np.linspace(0, 1, 10), np.arange(10) > 4), "10 labels are too few"),
        (Labels(np.linspace(0, 1, 40), np.arange(40) > 36), "3 of 40 labels are right"),
        (Labels(np.full(40, 0.5), np.arange(40) > 20), "all scores are 0.5"),
    ],
)
@pytest.mark.parametrize("given", [{"max_false_hit_rate": 0.1}, {"objective": "f1"}, COSTS])
def test_labels_that_cannot_carry_a_threshold_give_cannot_tell_and_no_number(
    labels: Labels, reason: str, given: dict[str, Any]
) -> None:
    found = advise(labels, **given)
    assert (found.verdict, found.settings, found.evidence.estimate) == ("cannot tell yet", {}, None)
    assert reason in found.because


def test_scores_that_fall_where_labels_rise_recommend_nothing_within_a_budget() -> None:
    labels = draw(1_000)
    found = advise(Labels(-labels.scores, labels.right), max_false_hit_rate=0.05)
    assert found.verdict == "cannot tell yet"
    assert "more labels of the same kind would not help" in found.because


def test_the_errors_are_listed_with_what_is_known_about_them() -> None:
    frame = pd.DataFrame({"query": [f"q{n}" for n in range(60)], "score": np.linspace(0, 1, 60)})
    frame["label"] = frame["score"] > 0.5
    frame.loc[[5, 50], "label"] = [True, False]
    found = advise(read_labels(frame), objective="f1")
    errors = found.tables["errors"]
    assert errors["query"].tolist() == ["q50", "q5"]
    assert errors["error"].tolist() == ["false hit", "miss"]
    assert errors.columns.tolist() == ["error", "row", "score", "query"]


def test_slices_tell_each_group_on_rows_that_had_no_part_in_the_choice() -> None:
    found = advise(draw(3_000), max_false_hit_rate=0.05, by="language")
    slices = found.tables["slices"]
    assert slices.dtypes.astype(str).to_dict() == dict(SLICE_COLUMNS)
    assert slices["group"].tolist() == ["de", "en"]
    assert slices["labels"].sum() == 1_500
    assert slices["hits"].sum() == found.evidence.details["held_out_hits"]
    assert slices["false_hits"].sum() == found.evidence.details["held_out_false_hits"]
    everything = advise(draw(3_000), objective="f1", by="language").tables["slices"]
    assert everything["labels"].sum() == 3_000


def test_the_recommendation_survives_yaml_and_shows_its_tables() -> None:
    import yaml

    found = advise(draw(500), objective="f1")
    assert Recommendation.from_dict(yaml.safe_load(yaml.safe_dump(found.to_dict()))) == found
    assert "curve, calibration, reliability, errors" in repr(found)
    assert found.evidence.details["calibration"]["ece"] < 0.1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"objective": "f0"}, "objective='f0'"),
        ({"objective": "accuracy"}, "objective='accuracy'"),
        ({"objective": "recall"}, "objective='recall'"),
        ({"objective": "cost"}, "needs both"),
        ({"false_hit_cost": 1.0}, "needs both"),
        ({"false_hit_cost": -1.0, "miss_cost": 1.0}, "false_hit_cost=-1.0"),
        ({"max_false_hit_rate": 1.5}, "max_false_hit_rate=1.5"),
        ({"max_false_hit_rate": 0}, "max_false_hit_rate=0"),
        ({"max_false_hit_rate": 0.1, "objective": "f1"}, "give one of"),
        ({"max_false_hit_rate": 0.1, **COSTS}, "give one of"),
        ({"confidence": 0.4}, "confidence=0.4"),
        ({"held_out": 1.0}, "held_out=1.0"),
    ],
)
def test_a_goal_that_means_nothing_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(al.InvalidValue, match=message):
        goal(**given)


def test_bounds_for_the_best_of_many_are_wider_than_for_one() -> None:
    values = np.random.default_rng(4).normal(0.1, 1, (40, 300))
    place, many = best_of(values)
    assert place is not None
    _, one = best_of(values[place : place + 1])
    assert many.mean == one.mean
    assert many.low < one.low - 0.02
    assert best_of(np.zeros((3, 50)))[0] is None
    assert best_of(np.zeros((3, 0)))[0] is None


def test_many_cases_use_the_normal_approximation_and_agree_with_the_bootstrap() -> None:
    values = np.random.default_rng(4).normal(0.03, 1, (10, 2_001))
    few, many = best_of(values[:, :2_000])[1], best_of(values)[1]
    assert many.high - many.low == pytest.approx(few.high - few.low, rel=0.05)


# In a lab


@pytest.fixture
def shop(lab: Lab) -> Lab:
    for place in range(60):
        lab.store_context(f"item number {place} costs {place} euros in shop {place % 7}", context_id=f"item-{place}")
    return lab


def test_pairs_are_scored_by_the_labs_own_encoder_and_bound_to_it(shop: Lab) -> None:
    pairs = [(f"item number {n} in blue", f"number {n} item in blue", True) for n in range(40)]
    pairs += [(f"item number {n} in blue", f"{n} unrelated words here stand", False) for n in range(40)]
    found = shop.tune_threshold(pairs, setting="duplicate_threshold")
    assert found.verdict == "recommend"
    assert 0.3 < found.settings["duplicate_threshold"] <= 1.0 + 1e-9
    assert found.bound_to == Binding("hash-64@1", 64, "cosine")
    shop.apply(found)
    assert shop.setting("duplicate_threshold") == found.settings["duplicate_threshold"]
    shop.embed_contexts("hash-32")
    with pytest.warns(al.SettingMismatchWarning, match="tune it again"):
        shop.setting("duplicate_threshold")


def test_judged_searches_give_a_threshold_that_searches_then_use(shop: Lab) -> None:
    judgments: dict[str, dict[str, int]] = {f"item number {n} costs": {f"item-{n}": 1} for n in range(0, 60, 2)}
    judgments |= {f"weather report {n} of tomorrow evening": {} for n in range(30)}
    found = shop.tune_threshold(list(judgments), judgments=judgments)
    assert found.verdict == "recommend"
    threshold = found.settings["similarity_threshold"]
    assert found.tables["errors"].columns.tolist() == ["error", "row", "score", "query", "context_id"]
    shop.apply(found)
    assert shop.search("weather report 3 of tomorrow evening", method="semantic") == []
    assert all(hit.similarity >= threshold for hit in shop.search("item number 4 costs", method="semantic"))
    assert shop.tune_threshold(list(judgments), judgments=judgments).evidence.details["value_in_force"] == threshold


def test_first_results_without_a_grade_are_counted(shop: Lab) -> None:
    judgments = {f"item number {n} costs": {"item-0": 1} for n in range(1, 30)} | {"item number 0 costs": {"item-0": 1}}
    found = shop.tune_threshold(list(judgments), judgments=judgments)
    assert found.verdict == "cannot tell yet"
    assert "first results have no grade and count as wrong" in found.because
