"""Routing on a real lab: from the ledger to a report, a policy, a logged route and its replay."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

import autom8_lab as al
from autom8_lab.lab import Lab
from autom8_lab.mockdata import MODELS
from autom8_lab.tuning.policies import SETTING

BOTH_BACKENDS = True
NOW = datetime(2026, 6, 1, tzinfo=UTC)
PAIR = ["gpt-4o-mini", "claude-sonnet-4-5"]
LENGTH: dict[str, Any] = {"kind": "length", "candidates": PAIR, "threshold": 100}


@pytest.fixture(scope="module")
def runs() -> al.mockdata.PairedRuns:
    return al.mockdata.paired_runs(400, seed=7)


@pytest.fixture(scope="module")
def filled(runs: al.mockdata.PairedRuns, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab with paired runs, which no test changes."""
    path = tmp_path_factory.mktemp("routing") / "lab.db"
    with al.open(path, embedding_model="hash-64", synchronous="OFF", clock=lambda: NOW) as lab:
        lab.record_usages(runs.usage)
        yield lab


@pytest.fixture(scope="module")
def fit(filled: Lab) -> Any:
    return filled.fit_router(learners=["linear"], resamples=300)


# Outcomes


def test_the_ledger_is_reported_as_the_same_frame_is(filled: Lab, runs: al.mockdata.PairedRuns) -> None:
    report = filled.routing_report(resamples=100)
    calls = filled.ledger_df()
    ids = [row["prompt_id"] for row in calls["metadata"]]
    texts = [row["prompt"] for row in calls["metadata"]]
    same = filled.routing_report(calls.assign(prompt_id=ids, prompt=texts), resamples=100)
    pd.testing.assert_frame_equal(report.routers, same.routers)
    assert report.prompts == 400
    assert (report.weak, report.strong) == tuple(PAIR)
    assert report.length_unit == "characters"
    means = runs.usage.groupby("model")["quality_score"].mean()
    assert report.models.set_index("model")["quality_mean"].to_dict() == pytest.approx(means.to_dict())


def test_filters_and_models_choose_the_calls(lab: Lab) -> None:
    runs = al.mockdata.paired_runs(60, models=MODELS[:3], seed=1)
    lab.record_usages(runs.usage.assign(agent=["a" if n < 90 else "b" for n in range(180)]))
    assert lab.routing_report(models=[*PAIR[:1], "gpt-4.1"]).prompts == 60
    assert lab.routing_report(agent="a").prompts == 30
    assert len(lab.routing_report(resamples=100).models) == 3
    with pytest.raises(al.InvalidValue, match="filters the ledger"):
        lab.routing_report(runs.usage, agent="a")
    with pytest.raises(al.InvalidValue, match="did you mean"):
        lab.routing_report(agnt="a")  # type: ignore[call-arg]
    with pytest.raises(al.InvalidValue, match="metadata key"):
        lab.routing_report(prompt="D")


def test_an_empty_ledger_says_what_is_missing(lab: Lab) -> None:
    with pytest.raises(al.InvalidValue, match="nothing to route between"):
        lab.routing_report()
    with pytest.raises(al.InvalidValue, match="no decision passes the filters"):
        lab.replay("small")


def test_prompts_come_from_the_argument_the_metadata_the_contexts_or_tokens_stand_for_them(
    lab: Lab, runs: al.mockdata.PairedRuns
) -> None:
    usage = runs.usage.head(120)
    lab.record_usages(usage.assign(metadata=[{"prompt_id": row["prompt_id"]} for row in usage["metadata"]]))
    assert lab.routing_report(resamples=100).length_unit == "input tokens"
    texts = dict(zip(runs.prompts["prompt_id"], runs.prompts["prompt"], strict=True))
    for given in (texts, pd.Series(texts), runs.prompts):
        assert lab.routing_report(texts=given, resamples=100).length_unit == "characters"
    with pytest.raises(al.InvalidValue, match="is a list"):
        lab.routing_report(texts=["a"])
    with pytest.raises(al.InvalidValue, match="prompt_id and prompt"):
        lab.routing_report(texts=pd.DataFrame({"id": [1]}))
    rows = [{"context_id": name, "content": text} for name, text in texts.items()][:60]
    lab.store_contexts(rows)
    assert lab.routing_report(resamples=100).length_unit == "characters"


# Fitting


def test_a_router_is_fitted_on_the_labs_vectors_and_applied(lab: Lab, filled: Lab, fit: Any) -> None:
    advice = fit.recommendation
    assert advice.verdict == "recommend"
    assert advice.bound_to.embedding_model == "hash-64@1"
    assert advice.settings[SETTING]["embedding"] == {"model": "hash-64@1", "dimensions": 64}
    assert advice.created_at == NOW
    row = lab.apply(advice).iloc[0]
    assert (row["setting"], row["in_force"], row["version"]) == (SETTING, True, advice.version)
    route = lab.route("Returns end after 30 days unless damaged. Why or why not?")
    assert route.policy == "linear"
    assert route.policy_version == advice.settings[SETTING]["version"]
    lab.revert(SETTING)
    with pytest.raises(al.NotFound, match="no routing policy is in force"):
        lab.route("And now?")


def test_prompts_that_are_contexts_are_neighbours_by_reference(lab: Lab, runs: al.mockdata.PairedRuns) -> None:
    unique = runs.prompts[runs.prompts["kind"] != "summary"].drop_duplicates("prompt").head(80)
    lab.store_contexts([{"context_id": r.prompt_id, "content": r.prompt} for r in unique.itertuples()])
    ids = set(unique["prompt_id"])
    lab.record_usages(runs.usage[[row["prompt_id"] in ids for row in runs.usage["metadata"]]])
    policy = lab.fit_router(learners=["knn"], resamples=100).policies["knn"]
    held = policy["parameters"]["vectors"]
    assert held["model"] == "hash-64@1"
    assert len(held["stored"]) == 80
    assert lab.route("Why or why not?", policy=policy).chosen in PAIR
    lab.delete_context(str(unique["prompt_id"].iloc[0]))
    with pytest.raises(al.InvalidValue, match="1 of 80 prompts that the policy compares with have no vector"):
        lab.route("Why or why not?", policy={**policy, "threshold": 0.3})


def test_vectors_of_ones_own_are_taken_and_the_route_wants_one_too(filled: Lab, runs: al.mockdata.PairedRuns) -> None:
    draw = np.random.default_rng(0)
    vectors = {name: draw.normal(size=3) for name in runs.prompts["prompt_id"]}
    options: dict[str, Any] = {"learners": ["linear"], "resamples": 100}
    policy = filled.fit_router(vectors=vectors, **options).policies["linear"]
    assert policy["embedding"] == {"model": None, "dimensions": 3}
    assert filled.route("a", policy=policy, vector=[0.1, 0.2, 0.3], record=False).chosen in PAIR
    with pytest.raises(al.InvalidValue, match="give the prompt's vector"):
        filled.route("a", policy=policy, record=False)
    with pytest.raises(al.InvalidValue, match="none for 399 prompts"):
        filled.fit_router(vectors=dict(list(vectors.items())[:1]), **options)
    with pytest.raises(al.InvalidValue, match="go by prompt id"):
        filled.fit_router(vectors=[[1.0]], **options)
    plain = filled.fit_router(embed=False, **options).policies["linear"]
    assert plain["embedding"] is None


# Routes


def test_a_route_is_a_decision_with_candidates_scores_and_probability(lab: Lab) -> None:
    context_id = lab.store_context("The shop in Bergen opens at nine.")
    fields: dict[str, Any] = {
        "summary": "a short one",
        "complexity_score": 0.2,
        "context_ids": [context_id],
        "agent": "desk",
    }
    route = lab.route("When does it open?", policy=LENGTH, metadata={"team": "core"}, **fields)
    assert (route.chosen, route.propensity, route.scores) == (PAIR[0], 1.0, {PAIR[0]: 0.0, PAIR[1]: 18.0})
    row = lab.decisions_df().iloc[0]
    assert row["decision_id"] == route.decision_id
    assert (row["decision_type"], row["chosen"], row["propensity"]) == ("route", PAIR[0], 1.0)
    assert row["candidates"] == route.scores
    assert (row["policy"], row["policy_version"]) == ("length", route.policy_version)
    assert (row["content"], row["summary"], row["complexity_score"], row["agent"]) == (
        "When does it open?",
        "a short one",
        0.2,
        "desk",
    )
    assert row["context_ids"] == [context_id]
    assert row["metadata"] == {"team": "core", "characters": 18, "probabilities": route.probabilities}
    assert "gpt-4o-mini" in route._repr_html_()


def test_exploration_is_logged_with_the_probability_of_what_was_drawn(lab: Lab) -> None:
    rng = random.Random(5)
    routes = [lab.route("short", policy=LENGTH, epsilon=0.4, rng=rng) for _ in range(200)]
    strong = sum(route.chosen == PAIR[1] for route in routes)
    assert 25 <= strong <= 55
    assert {(route.chosen, round(route.propensity, 9)) for route in routes} == {(PAIR[0], 0.8), (PAIR[1], 0.2)}
    again = [lab.route("short", policy=LENGTH, epsilon=0.4, rng=random.Random(5), record=False) for _ in range(3)]
    assert {route.chosen for route in again} == {routes[0].chosen}
    assert len(lab.decisions_df()) == 200
    own = {**LENGTH, "epsilon": 0.5}
    assert lab.route("short", policy=own, rng=np.random.default_rng(1), record=False).propensity in (0.25, 0.75)


def test_a_prompt_need_not_be_kept(lab: Lab) -> None:
    route = lab.route("a secret", policy=LENGTH, keep_prompt=False)
    row = lab.decisions_df().iloc[0]
    assert pd.isna(row["content"])
    assert row["metadata"]["characters"] == 8
    assert lab.route("a secret", policy=LENGTH, record=False).decision_id is None
    assert route.decision_id is not None


def test_a_policy_in_force_is_noticed_and_one_that_is_edited_gets_another_version(
    place: Callable[[str], str], fit: Any
) -> None:
    with al.open(place("a.db"), embedding_model="hash-64") as first:
        first.apply(fit.recommendation)
        before = first.route("Is it open?")
        with al.open(place("a.db"), embedding_model="hash-64") as second:
            policy = fit.recommendation.settings[SETTING]
            other = al.recommendation.Recommendation.from_dict(
                {**fit.recommendation.to_dict(), "settings": {SETTING: {**policy, "threshold": 9.0}}, "version": ""}
            )
            second.apply(other)
        after = first.route("Is it open?")
    assert before.policy_version != after.policy_version
    assert after.chosen == PAIR[0]


def test_vectors_of_another_model_are_refused(place: Callable[[str], str], fit: Any) -> None:
    policy = fit.recommendation.settings[SETTING]
    with al.open(place("b.db"), embedding_model="hash-32") as other:
        with pytest.raises(al.ModelUnavailable, match="fitted to vectors of hash-64@1, but the lab's are of hash-32@1"):
            other.route("Is it open?", policy=policy)


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("", {}, "prompt='' is empty"),
        ("a", {"policy": {**LENGTH, "kind": "size"}}, "kind is 'size'"),
        ("a", {"policy": "gpt-4o"}, "is a str: give a policy"),
        ("a", {"policy": {**LENGTH, "threshold": object()}}, "policy"),
        ("a", {"epsilon": 1.5}, "epsilon=1.5"),
        ("a", {"rng": type("Bad", (), {"random": lambda self: 2.0})()}, "returned 2.0"),
        ("a", {"metadata": [1]}, r"metadata=\[1\] is a list"),
    ],
)
def test_what_cannot_be_routed_is_refused(lab: Lab, prompt: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(al.InvalidValue, match=message):
        lab.route(prompt, **{"policy": LENGTH, **options})
    assert len(lab.decisions_df()) == 0


# Replay


def logged(lab: Lab, count: int, *, seed: int = 0, keep_prompt: bool = True, epsilon: float = 0.5) -> None:
    """Route prompts of two lengths, and note how good the answers were: long ones are hard for the small model."""
    rng = random.Random(seed)
    for number in range(count):
        long = number % 2 == 0
        prompt = f"{'a long question ' * 10 if long else 'short'} {number}"
        route = lab.route(prompt, policy=LENGTH, epsilon=epsilon, rng=rng, keep_prompt=keep_prompt)
        small = route.chosen == PAIR[0]
        quality = 0.2 if long and small else 0.9
        options: dict[str, Any] = {"cost_actual_usd": 0.001 if small else 0.01, "decision_id": route.decision_id}
        if number % 3:
            lab.record_usage(route.chosen, quality_score=quality, **options)
        else:
            lab.record_usage(route.chosen, **options)
            lab.record_outcome(str(route.decision_id), quality_score=quality)


def estimates(report: Any, measure: str) -> pd.DataFrame:
    return report.estimates[report.estimates["measure"] == measure].set_index("estimator")


def test_a_policy_is_replayed_on_what_was_logged(lab: Lab) -> None:
    logged(lab, 240)
    always = lab.replay(PAIR[0])
    assert always.decisions == 240
    quality, cost = estimates(always, "quality_score"), estimates(always, "cost_usd")
    # The small model alone: right nine times of ten on short prompts, twice on long ones.
    assert (quality["low"] <= 0.55).all()
    assert (quality["high"] >= 0.55).all()
    assert cost.loc["snips", "estimate"] == pytest.approx(0.001)
    assert cost.loc["snips", "verdict"] == "less"
    assert quality.loc["doubly robust", "verdict"] == "less"
    followed = lab.replay({**LENGTH, "epsilon": 0.0})
    assert estimates(followed, "quality_score").loc["snips", "estimate"] == pytest.approx(0.9)
    assert estimates(followed, "quality_score").loc["doubly robust", "verdict"] == "more"


def test_the_policy_in_force_and_a_recommendation_can_be_replayed(lab: Lab, fit: Any) -> None:
    logged(lab, 120)
    lab.apply(fit.recommendation)
    pd.testing.assert_frame_equal(lab.replay().estimates, lab.replay(fit.recommendation).estimates)
    policy = fit.recommendation.settings[SETTING]
    pd.testing.assert_frame_equal(lab.replay().estimates, lab.replay(policy).estimates)


def test_filters_choose_the_decisions(lab: Lab) -> None:
    logged(lab, 120)
    lab.record_decision("route", chosen=PAIR[0])
    with pytest.raises(al.InvalidValue, match=r"1 of 121 decisions have no propensity"):
        lab.replay(PAIR[0])
    assert lab.replay(PAIR[0], made_by="length").decisions == 120
    with pytest.raises(al.InvalidValue, match="no decision passes"):
        lab.replay(PAIR[0], until="2020-01-01")
    with pytest.raises(al.InvalidValue, match="no decision passes"):
        lab.replay(PAIR[0], decision_type="other")


def test_lengths_are_replayed_without_the_prompts_and_a_learned_policy_is_not(lab: Lab, fit: Any) -> None:
    logged(lab, 100, keep_prompt=False)
    assert lab.replay({**LENGTH, "threshold": 50}).identifiable
    assert lab.replay({"kind": "always", "candidates": PAIR[:1]}).identifiable
    with pytest.raises(al.InvalidValue, match="100 of 100 decisions do not hold the prompt"):
        lab.replay(fit.recommendation)


def test_a_candidate_without_a_chance_could_not_have_been_chosen(lab: Lab) -> None:
    shares = {"kind": "mixing", "candidates": [*PAIR, "gpt-4.1"], "parameters": {"shares": [0.5, 0.5, 0.0]}}
    for number in range(80):
        lab.route("short", policy=shares, rng=random.Random(number), metadata={"prompt_id": str(number)})
    lab.route("short", policy={"kind": "always", "candidates": ["gpt-4.1"]})
    report = lab.replay({PAIR[0]: 0.5, "gpt-4.1": 0.5}, measures="complexity_score")
    assert report.support_share == pytest.approx(0.5, abs=0.02)
    assert lab.replay(dict.fromkeys(PAIR, 0.5), measures="complexity_score").support_share > 0.98


def test_decisions_without_exploration_tell_nothing_about_another_policy(lab: Lab) -> None:
    logged(lab, 100, epsilon=0.0)
    report = lab.replay(PAIR[0])
    assert not report.identifiable
    assert report.support_share == pytest.approx(0.5)
    assert report.estimates["estimate"].isna().all()


def test_a_decision_with_an_unpriced_call_has_no_known_cost(lab: Lab) -> None:
    logged(lab, 60)
    route = lab.route("one more", policy=LENGTH, epsilon=0.5)
    lab.record_usage("house-7b", input_tokens=5, output_tokens=5, decision_id=route.decision_id, quality_score=0.5)
    report = lab.replay(dict.fromkeys(PAIR, 0.5))
    assert report.unmeasured == {"cost_usd": 1}


def test_mock_traffic_can_be_replayed(lab: Lab) -> None:
    al.mockdata.fill(lab, days=7, calls_per_day=150, seed=3, until=NOW)
    report = lab.replay({"gpt-4o-mini": 0.5, "gemini-2.5-flash": 0.5})
    assert report.identifiable
    assert report.least_propensity < 0.1
    assert set(report.estimates["measure"]) == {"quality_score", "cost_usd"}
    assert estimates(report, "cost_usd").loc["doubly robust", "verdict"] == "less"


def test_a_frame_is_replayed_too(lab: Lab) -> None:
    draw = np.random.default_rng(1)
    arm = draw.choice(["a", "b"], 300)
    rows = pd.DataFrame({"arm": arm, "p": 0.5, "reward": (arm == "a") * 0.5 + 0.2, "text": "x"})
    report = lab.replay("a", log=rows, action="arm", propensity="p", measures="reward", features=[])
    assert estimates(report, "reward").loc["snips", "estimate"] == pytest.approx(0.7)
    policy = {"kind": "length", "candidates": ["a", "b"], "threshold": 5}
    named = rows.rename(columns={"arm": "chosen", "text": "content", "p": "propensity"})
    assert estimates(lab.replay(policy, log=named, measures="reward"), "reward").loc[
        "snips", "estimate"
    ] == pytest.approx(0.7)
    with pytest.raises(al.InvalidValue, match="300 of 300 decisions do not hold the prompt"):
        lab.replay(policy, log=rows, action="arm", propensity="p", measures="reward")
