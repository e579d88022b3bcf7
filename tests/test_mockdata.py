"""The mock traffic: one seed gives one traffic, what is promised is really in it, and it is labelled as mock."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import autom8_lab as al
from autom8_lab.errors import InvalidValue
from autom8_lab.lab import Lab
from autom8_lab.mockdata import MODELS, Traffic, fill, traffic
from autom8_lab.mockdata.profiles import HOUR_WEIGHTS, OPERATIONS, POLICY_SHARPNESS, WEEKDAY_WEIGHTS
from autom8_lab.pricing import PriceBook

BOTH_BACKENDS = True

TOKENS = ["input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens"]
DRIFTING = MODELS[-1].model


@pytest.fixture(scope="module")
def made() -> Traffic:
    return traffic(28, calls_per_day=2_000, seed=11)


def event(made: Traffic, name: str) -> pd.Series:
    return made.events[made.events["event"] == name].iloc[0]


def during(calls: pd.DataFrame, span: pd.Series) -> pd.Series:
    return (calls["model"] == span["model"]) & (calls["at"] >= span["at"]) & (calls["at"] < span["until"])


def prompts(calls: pd.DataFrame) -> pd.Series:
    return calls["metadata"].map(lambda values: values["prompt_id"])


def test_one_seed_gives_one_traffic_and_another_seed_another() -> None:
    one, same, other = (traffic(3, calls_per_day=50, seed=seed) for seed in (5, 5, 6))
    for left, right in zip(one, same, strict=True):
        pd.testing.assert_frame_equal(left, right)
    assert not one.usage["latency_ms"].equals(other.usage["latency_ms"])
    assert not set(one.usage["source_id"]) & set(other.usage["source_id"])


@pytest.mark.parametrize(
    "changed", [{"days": 4}, {"calls_per_day": 51}, {"until": "2026-06-02"}, {"drift": 0.2}, {"incidents": 1}]
)
def test_other_arguments_give_other_ids(changed: dict[str, object]) -> None:
    arguments = {"days": 3, "calls_per_day": 50, "seed": 5}
    one, other = traffic(**arguments).usage, traffic(**{**arguments, **changed}).usage
    assert not set(one["source_id"]) & set(other["source_id"])


def test_there_are_as_many_calls_as_asked_for_in_the_days_before_until() -> None:
    calls = traffic(10, calls_per_day=123, until="2026-03-01").usage
    assert len(calls) == 1_230
    assert calls["at"].is_monotonic_increasing
    assert calls["at"].min() >= pd.Timestamp("2026-02-19", tz="UTC")
    assert calls["at"].max() < pd.Timestamp("2026-03-01", tz="UTC")


def test_every_row_is_labelled_as_mock(made: Traffic) -> None:
    for frame in made[:3]:
        assert set(frame["source"]) == {"mock"}
    assert made.usage["source_id"].is_unique
    assert made.decisions["source_id"].is_unique


@pytest.mark.parametrize("days", [1, 2, 28])
def test_without_decisions_the_columns_stay_and_the_calls_are_the_same(days: int) -> None:
    full, bare = (traffic(days, calls_per_day=40, decisions=wanted) for wanted in (True, False))
    assert bare.decisions.empty
    assert bare.decisions.columns.tolist() == full.decisions.columns.tolist()
    assert bare.usage["decision_id"].isna().all()
    pd.testing.assert_frame_equal(bare.usage.drop(columns="decision_id"), full.usage.drop(columns="decision_id"))


def test_calls_follow_the_hours_and_weekdays(made: Traffic) -> None:
    at = made.usage["at"]
    for observed, weights in [
        (at.dt.hour.value_counts().sort_index(), HOUR_WEIGHTS),
        (at.dt.day_of_week.value_counts().sort_index(), WEEKDAY_WEIGHTS),
    ]:
        expected = len(at) * np.array(weights) / sum(weights)
        assert np.abs(observed.to_numpy() / expected - 1).max() < 0.25
        assert np.corrcoef(observed, expected)[0, 1] > 0.99


def test_every_model_and_operation_has_calls_at_a_real_price(made: Traffic) -> None:
    calls = made.usage
    assert set(calls["model"]) == {profile.model for profile in MODELS}
    assert set(calls["operation"]) == {item.name for item in OPERATIONS}
    assert "cost_usd" not in calls
    used = {name: calls[name] for name in ("model", "provider", "at", *TOKENS)}
    costs = PriceBook().price_rows(**used)["cost_usd"]
    assert costs.notna().all()
    assert costs.groupby(calls["model"]).sum().min() > 0


def test_tokens_are_parts_of_what_includes_them(made: Traffic) -> None:
    calls = made.usage
    assert (calls[TOKENS] >= 0).all(axis=None)
    assert (calls["cache_read_tokens"] + calls["cache_write_tokens"] <= calls["input_tokens"]).all()
    assert (calls["reasoning_tokens"] <= calls["output_tokens"]).all()
    reasoning = calls.groupby("model")["reasoning_tokens"].sum()
    assert set(reasoning.index[reasoning > 0]) == {"gpt-5-mini"}


def test_the_cache_serves_a_prefix_that_was_used_within_the_hour(made: Traffic) -> None:
    calls = made.usage[made.usage["success"] & (made.usage["operation"] == "answer")]
    everything = made.usage[made.usage["operation"] == "answer"]
    gap = everything.groupby("model")["at"].diff().reindex(calls.index)
    hits = calls["cache_read_tokens"] > 0
    assert hits.equals(gap < pd.Timedelta(hours=1))
    assert set(calls.loc[hits, "cache_read_tokens"]) == {2_400}
    writes = calls["cache_write_tokens"] > 0
    assert (writes == (~hits & (calls["provider"] == "anthropic"))).all()
    short = made.usage[made.usage["operation"] == "summarize"]
    assert short["cache_read_tokens"].sum() == 0


def test_time_to_first_token_is_log_normal_about_each_models_median() -> None:
    quiet = traffic(28, calls_per_day=2_000, seed=3, incidents=0).usage
    for profile in MODELS:
        if not profile.reasoning_tokens:
            logs = np.log(quiet.loc[quiet["success"] & (quiet["model"] == profile.model), "ttft_ms"] / profile.ttft_ms)
            assert stats.kstest(logs, "norm", args=(0, 0.35)).pvalue > 0.001, profile.model
    answered = quiet[quiet["success"]]
    assert (answered["latency_ms"] >= answered["ttft_ms"]).all()


def test_quality_falls_with_complexity_and_the_order_of_the_models_is_their_skill(made: Traffic) -> None:
    judged = made.decisions.dropna(subset="quality_score")
    assert judged["quality_score"].between(0, 1).all()
    for model, own in judged.groupby("chosen"):
        assert stats.spearmanr(own["complexity_score"], own["quality_score"]).statistic < -0.25, model
    hard = judged[judged["complexity_score"] > 0.7].groupby("chosen")["quality_score"].mean()
    assert hard["claude-sonnet-4-5"] > hard["gpt-4.1"] > hard["gpt-4o-mini"] + 0.1


def test_seven_of_ten_calls_are_judged_and_no_failed_one(made: Traffic) -> None:
    calls = made.usage
    assert calls.loc[~calls["success"], "quality_score"].isna().all()
    plain = calls[calls["success"] & calls["decision_id"].notna()]
    pairs = prompts(calls).duplicated(keep=False)
    assert plain.loc[~pairs, "quality_score"].notna().mean() == pytest.approx(0.7, abs=0.01)
    assert calls.loc[pairs & calls["success"], "quality_score"].notna().all()


def test_a_failed_call_has_a_type_of_error_and_only_a_timeout_has_used_tokens(made: Traffic) -> None:
    calls = made.usage
    assert (calls["error_type"].notna() == ~calls["success"]).all()
    failed = calls[~calls["success"]]
    assert {"RateLimitError", "APITimeoutError", "InternalServerError", "BadRequestError"} == set(failed["error_type"])
    timeouts = failed["error_type"] == "APITimeoutError"
    assert (failed["output_tokens"] == 0).all()
    assert ((failed["input_tokens"] > 0) == timeouts).all()
    assert (failed.loc[timeouts, "latency_ms"] == 60_000).all()
    assert failed["ttft_ms"].isna().all()


def test_failures_come_at_the_models_rates() -> None:
    quiet = traffic(28, calls_per_day=5_000, seed=4, incidents=0).usage
    rate = 1 - quiet.groupby("model")["success"].mean()
    for profile in MODELS:
        assert profile.failure_rate < rate[profile.model] < 1.6 * profile.failure_rate, profile.model


def test_an_incident_slows_its_model_and_lets_three_in_ten_calls_fail(made: Traffic) -> None:
    calls, span = made.usage, event(made, "incident")
    struck = calls[during(calls, span)]
    usual = calls[(calls["model"] == span["model"]) & ~during(calls, span)]
    assert span["at"].hour == 13
    assert span["at"].day_of_week < 5
    assert len(struck) > 30
    assert 1 - struck["success"].mean() == pytest.approx(0.3, abs=0.12)
    slowdown = struck["ttft_ms"].median() / usual["ttft_ms"].median()
    assert slowdown == pytest.approx(6, rel=0.2)
    others = calls[(calls["model"] != span["model"]) & (calls["at"] >= span["at"]) & (calls["at"] < span["until"])]
    assert others["success"].mean() > 0.95


def test_the_incidents_strike_different_models_on_different_days(made: Traffic) -> None:
    incidents = made.events[made.events["event"] == "incident"]
    assert incidents["model"].nunique() == incidents["at"].dt.date.nunique() == 2
    assert DRIFTING not in set(incidents["model"])


def test_the_drift_lowers_one_models_quality_from_its_date_on(made: Traffic) -> None:
    judged = made.decisions.dropna(subset="quality_score")
    easy = judged[judged["complexity_score"].between(0.1, 0.5)]
    after = easy["at"] >= event(made, "drift")["at"]
    for model, own in easy.groupby("chosen"):
        change = own.loc[after, "quality_score"].mean() - own.loc[~after, "quality_score"].mean()
        assert change == pytest.approx(-0.15 if model == DRIFTING else 0.0, abs=0.03), model


def test_without_drift_and_incidents_there_are_none() -> None:
    made = traffic(14, calls_per_day=20, drift=0, incidents=0)
    assert made.events["event"].tolist() == ["policy 2"]
    assert set(made.contexts["topic"]) == {"guidelines", "models", "policies"}


def test_decisions_have_a_call_each_with_the_model_that_was_chosen(made: Traffic) -> None:
    calls = made.usage.dropna(subset="decision_id").set_index("decision_id")
    decisions = made.decisions.set_index("decision_id")
    assert calls.index.is_unique
    assert calls.index.tolist() == decisions.index.tolist()
    for column, other in [("model", "chosen"), ("at", "at"), ("quality_score", "quality_score"), ("agent", "agent")]:
        pd.testing.assert_series_equal(calls[column], decisions[other], check_names=False)
    assert not (decisions["success"] & ~calls["success"]).any()


def test_what_was_chosen_is_a_candidate_and_its_propensity_is_how_often_it_is_chosen(made: Traffic) -> None:
    decisions = made.decisions
    assert all(choice in scores for choice, scores in zip(decisions["chosen"], decisions["candidates"], strict=True))
    assert decisions["propensity"].between(0.1 / len(MODELS) - 1e-6, 1).all()
    # Recompute every model's probability from the recorded scores: its mean is how often the model is chosen.
    scores = np.array([list(row.values()) for row in decisions["candidates"]])
    sharpness = decisions["policy_version"].map(dict(zip("12", POLICY_SHARPNESS, strict=True))).to_numpy()[:, None]
    weights = np.exp((scores - scores.max(axis=1, keepdims=True)) * sharpness)
    probability = 0.9 * weights / weights.sum(axis=1, keepdims=True) + 0.1 / len(MODELS)
    names = list(decisions["candidates"].iloc[0])
    chosen = decisions["chosen"].map(names.index).to_numpy()
    own = probability[np.arange(len(chosen)), chosen]
    assert np.abs(own - decisions["propensity"]).max() < 0.001
    expected, observed = probability.sum(axis=0), np.bincount(chosen, minlength=len(names))
    assert stats.chisquare(observed, expected).pvalue > 0.001


def test_the_second_policy_version_takes_over_halfway_and_is_sharper(made: Traffic) -> None:
    decisions, start = made.decisions, event(made, "policy 2")["at"]
    assert ((decisions["policy_version"] == "2") == (decisions["at"] >= start)).all()
    best = [max(scores, key=scores.get) for scores in decisions["candidates"]]
    follows = (decisions["chosen"] == best).groupby(decisions["policy_version"]).mean()
    assert follows["2"] > follows["1"] + 0.1


def test_one_in_ten_calls_answers_a_prompt_again_with_another_model(made: Traffic) -> None:
    calls = made.usage.assign(prompt=prompts(made.usage))
    sizes = calls.groupby("prompt").size()
    assert (sizes == 2).sum() == len(calls) // 10
    assert sizes.max() == 2
    pairs = calls[calls["prompt"].isin(sizes.index[sizes == 2])].groupby("prompt")
    assert (pairs["model"].nunique() == 2).all()
    assert (pairs["operation"].nunique() == 1).all()
    assert (pairs["decision_id"].count() == 1).all()


def test_two_answers_to_one_prompt_are_alike_so_that_pairing_helps(made: Traffic) -> None:
    calls = made.usage.assign(prompt=prompts(made.usage)).dropna(subset="quality_score")
    wide = calls.groupby("prompt")["quality_score"].agg(["first", "last", "size"])
    pairs = wide[wide["size"] == 2]
    assert np.corrcoef(pairs["first"], pairs["last"])[0, 1] > 0.4


def test_decisions_saw_contexts_that_exist_and_that_were_known_by_then(made: Traffic) -> None:
    known = made.contexts.set_index("context_id")["created_at"]
    assert known.index.is_unique
    seen = made.decisions[["at", "context_ids"]].explode("context_ids")
    assert (seen["context_ids"].map(known) <= seen["at"]).all()
    notes = made.contexts.loc[made.contexts["topic"] == "incidents", "context_id"]
    assert seen["context_ids"].isin(notes).any()


def test_the_contexts_tell_the_same_story(made: Traffic) -> None:
    span = event(made, "incident")
    (note,) = [
        text
        for text in made.contexts["content"]
        if text.startswith(f"{span['model']}, {span['at']:%Y-%m-%d} from 13:00")
    ]
    assert "6 times as long" in note
    assert made.contexts["content"].is_unique
    assert "mock-policy-1" in made.contexts["supersedes"].tolist()


@pytest.mark.parametrize("count", [1, 2, 12])
def test_any_number_of_models_works(count: int) -> None:
    models = [dataclasses.replace(MODELS[n % 6], model=f"model-{n}") for n in range(count)]
    calls = traffic(7, calls_per_day=100, models=models).usage
    assert calls["model"].nunique() == count
    assert len(calls) == 700


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"days": 0}, "days=0"),
        ({"calls_per_day": -1}, "calls_per_day=-1"),
        ({"models": ()}, "models is empty"),
        ({"drift": 1.5}, r"drift=1\.5: give how much quality is lost"),
        ({"until": datetime(2026, 1, 1)}, "no time zone"),
        ({"seed": -1}, "seed=-1: give a whole number of at least 0"),
        ({"seed": "one"}, "seed='one'"),
        ({"incidents": -1}, "incidents=-1: give a whole number of at least 0"),
    ],
)
def test_impossible_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        traffic(**{"days": 2, "calls_per_day": 5, **arguments})


def test_a_hundred_thousand_calls_can_be_made() -> None:
    calls = traffic(100, calls_per_day=1_000, decisions=False).usage
    assert len(calls) == 100_000


def test_fill_stores_contexts_decisions_and_calls_that_belong_together(lab: Lab) -> None:
    report = fill(lab, days=7, calls_per_day=30, seed=1, until="2026-06-01")
    assert report == {"contexts": lab.stats()["contexts"], "decisions": len(lab.decisions_df()), "usage_rows": 210}
    decisions, calls = lab.decisions_df(), lab.ledger_df()
    assert len(calls) == 210
    assert set(calls["decision_id"].dropna()) == set(decisions["decision_id"])
    assert (decisions["calls"] == 1).all()
    known = set(lab.contexts_df(include_superseded=True)["context_id"])
    assert all(set(ids) <= known and ids for ids in decisions["context_ids"])
    assert calls["cost_usd"].notna().all()
    assert calls["cost_estimated_usd"].equals(calls["cost_usd"])


def test_what_fill_stored_is_what_traffic_made(lab: Lab) -> None:
    fill(lab, days=2, calls_per_day=40, seed=1, until="2026-06-01")
    made = traffic(2, calls_per_day=40, seed=1, until="2026-06-01")
    calls = lab.ledger_df().set_index("source_id").loc[made.usage["source_id"]]
    for name in ("at", "model", "metadata", *TOKENS):
        assert calls[name].tolist() == made.usage[name].tolist(), name
    for name in ("latency_ms", "ttft_ms", "quality_score"):
        assert np.array_equal(calls[name], made.usage[name], equal_nan=True), name
    decisions = lab.decisions_df().set_index("source_id").loc[made.decisions["source_id"]]
    for name in ("at", "chosen", "candidates", "propensity", "success", "policy_version", "context_ids", "outcome_at"):
        assert decisions[name].tolist() == made.decisions[name].tolist(), name


def test_every_stored_row_is_labelled_as_mock(lab: Lab) -> None:
    fill(lab, days=2, calls_per_day=20)
    for frame in (lab.contexts_df(), lab.decisions_df(), lab.ledger_df()):
        assert set(frame["source"]) == {"mock"}


def test_filling_twice_changes_nothing(lab: Lab) -> None:
    frames = []
    for _ in range(2):
        fill(lab, days=2, calls_per_day=20, seed=3, until="2026-06-01")
        frames.append([lab.contexts_df(), lab.decisions_df(), lab.ledger_df()])
    for first, second in zip(*frames, strict=True):
        pd.testing.assert_frame_equal(first, second)


def test_a_mock_lab_can_be_filled_with_more_mock_data(lab: Lab) -> None:
    fill(lab, days=2, calls_per_day=20, seed=3, until="2026-06-01")
    fill(lab, days=2, calls_per_day=20, seed=4, until="2026-06-01")
    assert len(lab.ledger_df()) == 80


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (lambda lab: lab.store_context("Real."), "1 contexts"),
        (lambda lab: lab.record_decision(decision_type="route", chosen="m"), "1 decisions"),
        (lambda lab: lab.record_usage(model="gpt-4o-mini", input_tokens=1, output_tokens=1), "1 calls"),
        (lambda lab: lab.record_usage(model="m", source="otel", input_tokens=1, output_tokens=1), "1 calls"),
    ],
)
def test_a_lab_with_real_rows_is_refused_unless_mixing_is_allowed(lab: Lab, record, message: str) -> None:
    record(lab)
    with pytest.raises(InvalidValue, match=f"{message} that are not mock data: fill a lab of its own, or"):
        fill(lab, days=2, calls_per_day=20)
    stats = lab.stats()
    assert stats["contexts"] + stats["decisions"] + stats["usage_rows"] == 1
    assert fill(lab, days=2, calls_per_day=20, allow_mixed=True)["usage_rows"] == 40
    assert len(lab.ledger_df(source="mock")) == 40


def test_fill_ends_at_the_labs_today() -> None:
    clock = datetime(2026, 3, 5, 15, tzinfo=UTC)
    with al.open(preset="testing", clock=lambda: clock) as lab:
        fill(lab, days=3, calls_per_day=50)
        assert lab.ledger_df()["at"].max() < pd.Timestamp("2026-03-05", tz="UTC")
        assert lab.usage_df(since="4d")["calls"].sum() == 150


@pytest.mark.only_sqlite
def test_the_paired_comparison_finds_the_shadow_calls(lab: Lab) -> None:
    fill(lab, days=14, calls_per_day=150, seed=1)
    compared = lab.compare_models("gpt-4o-mini", "claude-sonnet-4-5").set_index("measure")
    assert compared["paired"].all()
    assert compared.loc["quality", "n_a"] >= 5


# Paired runs


def test_every_model_answers_every_prompt_and_one_seed_gives_one_run() -> None:
    first, second = (al.mockdata.paired_runs(80, models=MODELS[:3], seed=4) for _ in range(2))
    pd.testing.assert_frame_equal(first.prompts, second.prompts)
    pd.testing.assert_frame_equal(first.usage, second.usage)
    assert len(first.usage) == 240
    assert first.usage.groupby("model")["source_id"].nunique().tolist() == [80, 80, 80]
    assert first.prompts["prompt_id"].is_unique
    texts = dict(zip(first.prompts["prompt_id"], first.prompts["prompt"], strict=True))
    assert all(texts[row["prompt_id"]] == row["prompt"] for row in first.usage["metadata"])
    assert al.mockdata.paired_runs(80, seed=5).prompts["prompt"].tolist() != first.prompts["prompt"].tolist()


def test_a_model_is_right_as_often_as_its_profile_says() -> None:
    runs = al.mockdata.paired_runs(4_000, seed=1)
    complexity = runs.prompts["complexity"].to_numpy()
    for model in (MODELS[0], MODELS[4]):
        expected = 1 / (1 + np.exp(model.complexity_loss * complexity - model.skill))
        right = runs.usage.loc[runs.usage["model"] == model.model, "quality_score"].to_numpy()
        assert right.mean() == pytest.approx(expected.mean(), abs=0.02)
        assert np.corrcoef(right, expected)[0, 1] > 0.15


def test_long_summaries_are_easy_and_short_rules_are_hard() -> None:
    prompts = al.mockdata.paired_runs(400, seed=2).prompts
    prompts = prompts.assign(length=prompts["prompt"].str.len())
    kinds = prompts.groupby("kind")[["complexity", "length"]].mean()
    assert kinds.loc["summary", "length"] > 2 * kinds.loc["rule", "length"]
    assert kinds.loc["summary", "complexity"] < 0.5 * kinds.loc["rule", "complexity"]
    assert ((prompts["complexity"] >= 0) & (prompts["complexity"] <= 1)).all()


def test_paired_runs_are_recorded_once_and_can_be_compared(lab: Lab) -> None:
    runs = al.mockdata.paired_runs(60, seed=3)
    assert lab.record_usages(runs.usage)["outcome"].tolist() == ["recorded"] * 120
    assert set(lab.record_usages(runs.usage)["outcome"]) == {"already there"}
    compared = lab.compare_models("claude-sonnet-4-5", "gpt-4o-mini").set_index("measure")
    assert compared.loc["quality", "paired"]
    assert compared.loc["quality", "n_a"] == 60
    assert lab.unpriced_df().empty


@pytest.mark.parametrize(
    ("options", "message"),
    [({"prompts": 0}, "prompts=0"), ({"seed": -1}, "seed=-1"), ({"models": ()}, "models is empty")],
)
def test_runs_of_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(al.InvalidValue, match=message):
        al.mockdata.paired_runs(**options)
