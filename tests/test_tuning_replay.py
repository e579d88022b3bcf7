"""Replay: estimates that equal their definitions, intervals that cover, and no number without overlap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import autom8_lab as al
from autom8_lab.statistics import wilson_interval
from autom8_lab.tuning.off_policy import interval_of, overlap_of, terms_of, weights_of
from autom8_lab.tuning.outcome_models import cross_fitted, folds_of
from autom8_lab.tuning.replay import ESTIMATE_COLUMNS, replay

ACTIONS = ["large", "middle", "small"]


def softmax(scores: np.ndarray) -> np.ndarray:
    weight = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weight / weight.sum(axis=1, keepdims=True)


def world(
    count: int, seed: int, *, exploration: float = 0.3, curved: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame, float]:
    """A log of choices by a softmax, a sharper policy, and what it truly achieves."""
    draw = np.random.default_rng(seed)
    hard = draw.normal(size=count)
    scores = np.column_stack([0.5 * hard, 0 * hard, -0.5 * hard])
    logged = (1 - exploration) * softmax(2 * scores) + exploration / 3
    target = 0.9 * softmax(4 * scores) + 0.1 / 3
    quality = np.clip(np.column_stack([0.8 - 0.05 * hard, 0.6 - 0.1 * hard, 0.5 - 0.2 * hard]), 0.02, 0.98)
    if curved:
        quality = 1 / (1 + np.exp(-np.column_stack([1.5 - 0.2 * hard**2, 0.5 - 0.5 * hard, 1 - hard**2])))
    chosen = (draw.random(count)[:, None] > logged.cumsum(axis=1)).sum(axis=1).clip(0, 2)
    rows = np.arange(count)
    log = pd.DataFrame(
        {
            "chosen": np.array(ACTIONS)[chosen],
            "propensity": logged[rows, chosen],
            "quality_score": (draw.random(count) < quality[rows, chosen]).astype(float),
            "cost_usd": np.array([0.01, 0.003, 0.001])[chosen] * draw.lognormal(sigma=0.3, size=count),
            "hard": hard,
        }
    )
    return log, pd.DataFrame(target, columns=ACTIONS), float((target * quality).sum(axis=1).mean())


def row_of(report: Any, estimator: str, measure: str = "quality_score") -> pd.Series:
    found = report.estimates.set_index(["measure", "estimator"])
    return found.loc[(measure, estimator)]


def test_ips_and_snips_are_their_formulas() -> None:
    log, target, _ = world(400, 1)
    report = replay(log, target)
    weight = target.to_numpy()[np.arange(400), log["chosen"].map(ACTIONS.index)] / log["propensity"]
    assert row_of(report, "ips")["estimate"] == pytest.approx((weight * log["quality_score"]).mean())
    ratio = (weight * log["quality_score"]).sum() / weight.sum()
    assert row_of(report, "snips")["estimate"] == pytest.approx(ratio)
    assert report.effective_sample_size == pytest.approx(weight.sum() ** 2 / (weight**2).sum())
    assert report.largest_weight == pytest.approx(weight.max())
    assert report.mean_weight == pytest.approx(weight.mean())
    assert report.least_propensity == log["propensity"].min()
    assert row_of(report, "ips", "cost_usd")["logged"] == pytest.approx(log["cost_usd"].mean())


def test_replaying_the_logging_policy_gives_what_happened() -> None:
    log = world(300, 2)[0].assign(propensity=1 / 3)
    log["chosen"] = np.random.default_rng(0).choice(ACTIONS, 300)
    report = replay(log, dict.fromkeys(ACTIONS, 1 / 3))
    for estimator in ("ips", "snips"):
        assert row_of(report, estimator)["difference"] == pytest.approx(0, abs=1e-12)
    assert row_of(report, "doubly robust")["difference"] == pytest.approx(0, abs=0.02)
    assert report.effective_sample_size == pytest.approx(300)


def test_a_case_worked_by_hand() -> None:
    # Uniform over two actions: "a" gave 1 and 0, "b" gave 0.5 and 0.5. Always "a": weights 2, 2, 0, 0.
    action, propensity = np.array([0, 0, 1, 1]), np.full(4, 0.5)
    target = np.array([[1.0, 0.0]] * 4)
    assert weights_of(action, propensity, target).tolist() == [2, 2, 0, 0]
    overlap = overlap_of(action, propensity, target, np.ones((4, 2)))
    assert (overlap.effective_sample_size, overlap.mean_weight, overlap.support_share) == (2, 1, 1)
    reward = np.array([1.0, 0.0, 0.5, 0.5])
    terms = terms_of(reward, action, propensity, target, features=np.empty((4, 0)), fold=np.array([0, 1, 0, 1]))
    assert terms.ips.mean() == pytest.approx(0.5)
    assert terms.snips.mean() == pytest.approx(0.5)
    # Fold 0 learns from (a: 0), (b: 0.5), overall 0.25 counted once: a → (0.25 + 0) / 2; fold 1: a → (0.75 + 1) / 2.
    assert terms.direct.mean() == pytest.approx((0.125 + 0.875) / 2)
    corrections = [2 * (1 - 0.125), 2 * (0 - 0.875), 0, 0]
    assert terms.doubly_robust.mean() == pytest.approx(0.5 + np.mean(corrections))


@pytest.mark.parametrize("rows", [60, 600])  # with so many the model bends
def test_the_direct_estimates_influence_is_its_derivative(rows: int) -> None:
    draw = np.random.default_rng(3)
    reward, action = draw.random(rows), draw.integers(0, 3, rows)
    target, features = softmax(draw.normal(size=(rows, 3))), draw.normal(size=(rows, 2))
    fold = folds_of(np.arange(rows), 4, 0)

    def direct(values: np.ndarray) -> float:
        return float((target * cross_fitted(values, action, target, features, fold).predicted).sum(axis=1).mean())

    influence = cross_fitted(reward, action, target, features, fold).influence
    # One outcome up and one of the same fold down: no fold's overall mean moves.
    first, second, *_ = np.flatnonzero(fold == 2)
    moved = reward.copy()
    moved[first] += 1e-4
    moved[second] -= 1e-4
    slope = (direct(moved) - direct(reward)) / 1e-4 * rows
    assert slope == pytest.approx(influence[first] - influence[second], rel=1e-6)


@pytest.mark.parametrize(("rows", "curved"), [(400, False), (2_000, True)])
def test_intervals_cover_what_the_policy_truly_achieves(rows: int, curved: bool) -> None:
    """The long run with its figures is benchmarks/routing_simulation.py."""
    truth = np.mean([world(200_000, seed, curved=curved)[2] for seed in range(3)])
    hits = dict.fromkeys(("direct", "ips", "snips", "doubly robust"), 0)
    for seed in range(50):
        log, target, _ = world(rows, 1_000 + seed, curved=curved)
        report = replay(log, target, features=["hard"], measures="quality_score")
        for name in hits:
            row = row_of(report, name)
            hits[name] += row["low"] <= truth <= row["high"]
    assert all(count >= 43 for count in hits.values()), hits


def test_no_difference_is_seldom_called_one() -> None:
    draw = np.random.default_rng(7)
    called = 0
    for _ in range(60):
        chosen = draw.choice(["a", "b"], 200)
        log = pd.DataFrame(
            {"chosen": chosen, "propensity": 0.5, "quality_score": (draw.random(200) < 0.7).astype(float)}
        )
        called += row_of(replay(log, {"a": 0.9, "b": 0.1}), "doubly robust")["verdict"] != "cannot tell yet"
    assert called <= 6


def test_features_narrow_the_doubly_robust_interval() -> None:
    draw = np.random.default_rng(4)
    hard = draw.normal(size=800)
    chosen = draw.choice(["a", "b"], 800)
    log = pd.DataFrame({"chosen": chosen, "propensity": 0.5, "hard": hard})
    log["quality_score"] = 0.5 + 0.2 * hard + 0.1 * (chosen == "a") + 0.05 * draw.normal(size=800)
    widths = []
    for features in ([], ["hard"]):
        row = row_of(replay(log, "a", features=features), "doubly robust")
        widths.append(row["high"] - row["low"])
    assert widths[1] < 0.85 * widths[0]


def test_a_model_that_is_wrong_is_called_so() -> None:
    draw = np.random.default_rng(5)
    hard = draw.normal(size=3_000)
    logged = np.where(hard > 0, 0.9, 0.1)
    large = draw.random(3_000) < logged
    log = pd.DataFrame({"chosen": np.where(large, "a", "b"), "propensity": np.where(large, logged, 1 - logged)})
    log["quality_score"] = np.where(large, 0.5 + 0.4 * np.sign(hard), 0.5) + 0.05 * draw.normal(size=3_000)
    found = replay(log, "a")
    assert "model is wrong" in row_of(found, "direct")["note"]
    assert row_of(found, "doubly robust")["low"] < 0.5 < row_of(found, "doubly robust")["high"]


def test_equal_prompts_count_as_one_draw() -> None:
    log, target, _ = world(200, 6)
    ten = pd.concat([log.assign(prompt=range(200))] * 10, ignore_index=True)
    tens = pd.concat([target] * 10, ignore_index=True)
    single = row_of(replay(log, target), "ips")
    grouped = row_of(replay(ten, tens, group="prompt"), "ips")
    alone = row_of(replay(ten, tens), "ips")
    width = single["high"] - single["low"]
    assert grouped["high"] - grouped["low"] == pytest.approx(width, rel=0.1)
    assert alone["high"] - alone["low"] < width / 2
    part = ten.assign(prompt=ten["prompt"].where(ten["prompt"] > 3))
    assert replay(part, tens, group="prompt").identifiable


# Where nothing can be known


def test_a_log_without_exploration_identifies_nothing_else() -> None:
    log = world(500, 8)[0].assign(propensity=1.0)
    report = replay(log, "small")
    assert not report.identifiable
    assert "policy that explores" in str(report.reason)
    assert report.estimates[["estimate", "low", "high", "difference"]].isna().all(axis=None)
    assert set(report.estimates["verdict"]) == {"not identifiable"}
    assert "not identifiable" in repr(report)


def test_what_was_always_chosen_is_identified_without_exploration() -> None:
    log = world(500, 8)[0].assign(propensity=1.0, chosen="small")
    report = replay(log, "small")
    assert report.identifiable
    assert row_of(report, "ips")["estimate"] == pytest.approx(log["quality_score"].mean())


def test_an_action_that_was_never_chosen_or_was_no_candidate_has_no_support() -> None:
    log = world(500, 9)[0]
    report = replay(log, {"small": 0.5, "huge": 0.5})
    assert report.support_share == pytest.approx(0.5)
    assert not report.identifiable
    only = [["small", "middle"] if place % 2 else {"small": 0.1, "large": 0.2} for place in range(500)]
    assert replay(log.assign(candidates=only), "large").support_share < 0.8
    assert replay(log.assign(candidates=[None] * 500), "large").support_share == 1


def test_a_policy_that_differs_too_much_is_not_identified_and_the_count_is_said() -> None:
    log, _, _ = world(400, 10)
    rare = pd.DataFrame({name: np.where(log["chosen"] == name, 0.002, 0.499) for name in ACTIONS})
    report = replay(log, rare.div(rare.sum(axis=1), axis=0))
    assert not report.identifiable
    some = {"large": 0, "middle": 0, "small": 1}
    few = log.assign(propensity=np.where(log["chosen"] == "small", 0.001, 0.9))
    few = pd.concat([few[few["chosen"] != "small"], few[few["chosen"] == "small"].head(12)])
    report = replay(few, some)
    assert "worth 12 (effective sample size): at least 30" in str(report.reason)


def test_propensities_that_do_not_fit_the_choices_are_found() -> None:
    log, target, _ = world(2_000, 11)
    report = replay(log.assign(propensity=log["propensity"] / 2), target)
    assert "do not fit the choices" in str(report.reason)


def test_unknown_outcomes_are_left_out_and_counted() -> None:
    log, target, _ = world(500, 12)
    log.loc[:99, "quality_score"] = np.nan
    log.loc[:, "cost_usd"] = np.nan
    report = replay(log, target)
    assert report.unmeasured == {"quality_score": 100, "cost_usd": 500}
    assert row_of(report, "ips")["decisions"] == 400
    assert row_of(report, "ips", "cost_usd")["note"] == "no outcome is known"
    assert "no outcome is known" in repr(report)


def test_the_frame_has_its_columns() -> None:
    log, target, _ = world(100, 13)
    for policy in (target, "small"):
        assert replay(log, policy).estimates.dtypes.astype(str).to_dict() == ESTIMATE_COLUMNS


def test_a_function_and_a_mapping_are_policies_too() -> None:
    log, target, _ = world(300, 14)

    def policy(rows: pd.DataFrame) -> pd.DataFrame:
        return target.loc[rows.index]

    pd.testing.assert_frame_equal(replay(log, policy).estimates, replay(log, target).estimates)
    mapped = replay(log, {"small": 1.0})
    pd.testing.assert_frame_equal(mapped.estimates, replay(log, "small").estimates)


LOG = world(50, 15)[0]


@pytest.mark.parametrize(
    ("log", "policy", "options", "message"),
    [
        (
            LOG.assign(propensity=[None] * 3 + [0.0] * 2 + [0.5] * 45),
            "small",
            {},
            "3 of 50 .* no propensity and 2 have",
        ),
        (LOG.assign(propensity=1.5), "small", {}, "0 of 50 .* no propensity and 50 have"),
        (LOG.assign(propensity=-0.1), "small", {}, "50 have one that is not above 0"),
        (LOG.drop(columns="propensity"), "small", {}, "no column 'propensity'"),
        (LOG.assign(chosen=None), "small", {}, "50 of 50 decisions do not say"),
        (LOG.head(1), "small", {}, "1 decisions to replay"),
        ([1], "small", {}, "is a list"),
        (LOG, "smal", {}, "did you mean 'small'"),
        (LOG, {"small": 0.4}, {}, "add up to 1; 50 rows"),
        (LOG, {"small": 1.5, "large": -0.5}, {}, "at least 0 and add up to 1"),
        (LOG, pd.DataFrame({"small": [1.0]}), {}, "probabilities for 1 rows, but 50"),
        (LOG, pd.DataFrame({"small": [np.nan] * 50}), {}, "add up to 1"),
        (LOG, 7, {}, "is a int: give an action's name"),
        (LOG.drop(columns=["quality_score", "cost_usd"]), "small", {}, "name its columns of outcomes"),
        (LOG, "small", {"measures": "qualty_score"}, "did you mean 'quality_score'"),
        (LOG.assign(quality_score="good"), "small", {}, "cannot be read as numbers"),
        (LOG.assign(quality_score=np.inf), "small", {}, "quality_score contains inf"),
        (LOG.assign(cost_usd=-1.0), "small", {}, "cost_usd contains -1.0"),
        (LOG, "small", {"group": "promt"}, "no column 'promt'"),
        (LOG, "small", {"confidence": 0}, "confidence is 0"),
    ],
)
def test_what_means_nothing_is_refused(log: Any, policy: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(al.InvalidValue, match=message):
        replay(log, policy, **options)


# Open Bandit: two policies ran side by side, so that each one's click rate is known


@pytest.fixture(scope="module")
def bandit(shared_data: Path) -> dict[str, pd.DataFrame]:
    columns = ["item_id", "position", "click", "propensity_score"]
    return {
        name: pd.read_csv(shared_data / "open_bandit" / f"{name}_men.csv", usecols=columns).assign(
            item_id=lambda rows: rows["item_id"].astype("str")
        )
        for name in ("random", "bts")
    }


OPTIONS: dict[str, Any] = {"action": "item_id", "propensity": "propensity_score", "measures": "click"}


def test_the_click_rate_of_thompson_sampling_is_estimated_from_the_uniform_log(
    bandit: dict[str, pd.DataFrame], shared_data: Path
) -> None:
    shown = pd.crosstab(bandit["bts"]["position"], bandit["bts"]["item_id"], normalize="index")
    policy = shown.loc[bandit["random"]["position"]]
    report = replay(bandit["random"], policy, features=["position"], **OPTIONS)
    on_policy = bandit["bts"]["click"].mean()
    assert report.effective_sample_size > 2_500
    for estimator in ("ips", "snips", "doubly robust"):
        row = row_of(report, estimator, "click")
        assert row["low"] < on_policy < row["high"]
    published = json.loads((shared_data / "published" / "obp_quickstart_outputs.json").read_text(encoding="utf-8"))
    low, high = published["ci95"]["ipw"]
    ours = row_of(report, "ips", "click")
    # The library's own interval, over all campaigns, is about as wide for a log of as many rows.
    assert 0.5 < (ours["high"] - ours["low"]) / (high - low) < 2


def test_the_uniform_click_rate_is_estimated_from_the_thompson_sampling_log(bandit: dict[str, pd.DataFrame]) -> None:
    items = sorted(bandit["bts"]["item_id"].unique())
    report = replay(bandit["bts"], dict.fromkeys(items, 1 / len(items)), features=["position"], **OPTIONS)
    assert report.effective_sample_size == pytest.approx(656, abs=1)
    on_policy = bandit["random"]["click"].mean()
    low, high = wilson_interval(bandit["random"]["click"].sum(), len(bandit["random"]))
    assert round(row_of(report, "ips", "click")["estimate"], 4) == 0.0030
    for estimator in ("direct", "ips", "snips", "doubly robust"):
        row = row_of(report, estimator, "click")
        assert row["low"] < on_policy < row["high"]
        assert row["low"] < high
        assert low < row["high"]


def test_an_item_that_the_log_hardly_shows_is_not_identified(bandit: dict[str, pd.DataFrame]) -> None:
    counts = bandit["bts"]["item_id"].value_counts()
    report = replay(bandit["bts"], str(counts.index[-1]), **OPTIONS)
    assert not report.identifiable
    assert "effective sample size" in str(report.reason)


def test_the_interval_of_many_terms_is_skewness_corrected() -> None:
    clicks = np.zeros(10_000)
    clicks[:46] = 1
    low, high = interval_of(clicks, confidence=0.95)
    expected = [float(bound) for bound in wilson_interval(46, 10_000)]
    assert [low, high] == pytest.approx(expected, rel=0.02)
