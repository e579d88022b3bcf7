"""The frames of analysis against plain pandas, on any frame and on the file: both ways give the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlite_utils.utils import sqlite3

import autom8_lab as al
from autom8_lab import analysis
from autom8_lab.analysis.checks import view_differences
from autom8_lab.analysis.comparison import COMPARISON_COLUMNS
from autom8_lab.analysis.latency import LATENCY_COLUMNS, PERCENTS
from autom8_lab.analysis.of_lab import DECISION_COLUMNS
from autom8_lab.analysis.performance import PERFORMANCE_COLUMNS
from autom8_lab.analysis.usage import COST_COLUMNS, PARTS, USAGE_COLUMNS
from autom8_lab.entries import TOKENS
from autom8_lab.frames import TIME
from autom8_lab.lab import Lab
from autom8_lab.ledger import LEDGER_COLUMNS
from autom8_lab.statistics import (
    bootstrap_mean_interval,
    quantiles_with_intervals,
    tokens_per_second,
    wilson_interval,
)

BOTH_BACKENDS = True
START = datetime(2026, 3, 1, tzinfo=UTC)
NOW = START + timedelta(days=30)


@pytest.fixture
def lab(place: Callable[[str], str]) -> Iterator[Lab]:
    with al.open(place("lab.db"), embedding_model="hash-64", synchronous="OFF", clock=lambda: NOW) as opened:
        yield opened


def traffic(count: int, *, seed: int = 0) -> pd.DataFrame:
    """Calls with every kind of gap: no provider, unknown model, no tokens, not judged, billed, failed."""
    draw = np.random.default_rng(seed)

    def some(values: Any, share: float) -> Any:
        return np.where(draw.random(count) < share, values, np.nan)

    inputs = draw.integers(0, 5_000, count)
    latency = np.exp(draw.normal(6, 1, count)).round(3)
    return pd.DataFrame(
        {
            "at": pd.Series([START + timedelta(minutes=int(m)) for m in draw.integers(0, 60 * 24 * 30, count)]),
            "model": draw.choice(["gpt-4o", "gpt-4o-mini", "house-7b"], count),
            "provider": np.where(draw.random(count) < 0.7, "openai", None),
            "operation": draw.choice(["chat", "summary"], count),
            "input_tokens": some(inputs, 0.95),
            "cache_read_tokens": some(0, 0.5),
            "output_tokens": some(draw.integers(0, 900, count), 0.95),
            "cost_actual_usd": some(draw.random(count).round(4), 0.2),
            "latency_ms": some(latency, 0.9),
            "ttft_ms": some((latency * draw.uniform(0, 1.1, count)).round(3), 0.5),
            "quality_score": some(draw.random(count).round(3), 0.4),
            "success": draw.random(count) < 0.9,
            "metadata": [
                {"team": team, "prompt_id": f"p{prompt}"} if team else {}
                for team, prompt in zip(
                    draw.choice(["core", "ops", ""], count), draw.integers(0, 40, count), strict=True
                )
            ],
        }
    )


def dtypes(frame: pd.DataFrame) -> dict[str, str]:
    return frame.dtypes.astype(str).to_dict()


def same(ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-9, atol=1e-12)


# The same columns with and without rows

FRAMES: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    ("ledger_df", {}, LEDGER_COLUMNS),
    ("usage_df", {}, {"model": "str", **USAGE_COLUMNS}),
    ("usage_df", {"by": []}, USAGE_COLUMNS),
    ("usage_df", {"by": [], "freq": "h"}, {"period": TIME, **USAGE_COLUMNS}),
    (
        "usage_df",
        {"by": ["metadata.team", "success", "at", "latency_ms", "decision_id"], "freq": "M"},
        {
            "period": TIME,
            "metadata.team": "str",
            "success": "boolean",
            "at": TIME,
            "latency_ms": "float64",
            "decision_id": "str",
            **USAGE_COLUMNS,
        },
    ),
    ("cost_df", {"by": "provider", "freq": "W"}, {"period": TIME, "provider": "str", **COST_COLUMNS}),
    ("latency_df", {"by": ["D", "operation"]}, {"period": TIME, "operation": "str", **LATENCY_COLUMNS}),
    ("model_performance_df", {"since": "7d"}, {"model": "str", **PERFORMANCE_COLUMNS}),
    ("decisions_df", {}, DECISION_COLUMNS),
]


@pytest.mark.parametrize(("verb", "options", "columns"), FRAMES)
def test_a_frame_has_its_columns_and_dtypes_with_and_without_rows(
    lab: Lab, verb: str, options: dict[str, Any], columns: dict[str, str]
) -> None:
    empty = getattr(lab, verb)(**options)
    assert dtypes(empty) == columns
    assert len(empty) == 0
    lab.record_usages(traffic(50))
    lab.record_decision("route")
    full = getattr(lab, verb)(**options)
    assert dtypes(full) == columns
    assert full.index.equals(pd.RangeIndex(len(full)))
    assert len(full) > 0
    nothing = getattr(lab, verb)(**{**options, "since": NOW + timedelta(days=1)} | ({"until": NOW + timedelta(days=2)}))
    assert dtypes(nothing) == columns
    assert len(nothing) == 0


# On the file and on a frame

BY: list[dict[str, Any]] = [
    {"by": "model"},
    {"by": ["provider", "model"]},
    {"by": [], "freq": "D"},
    {"by": "model", "freq": "W"},
    {"by": ["metadata.team"], "freq": "M"},
    {"by": ["success", "operation"], "freq": "h"},
    {"by": ["h"]},
    {"by": []},
]


@pytest.mark.parametrize("options", BY)
@pytest.mark.parametrize("name", ["usage", "cost", "latency", "model_performance"])
def test_the_file_and_a_frame_of_ones_own_give_the_same(lab: Lab, name: str, options: dict[str, Any]) -> None:
    lab.record_usages(traffic(300))
    same(getattr(lab, f"{name}_df")(**options), getattr(analysis, name)(lab.ledger_df(), **options))


def test_a_frame_needs_only_what_it_is_asked_about() -> None:
    calls = pd.DataFrame({"model": ["a", "b", "a"], "latency_ms": [1, 2, 3]})
    assert analysis.usage(calls)["calls"].tolist() == [2, 1]
    assert analysis.usage(calls)["input_tokens"].isna().all()
    assert analysis.latency(calls)["n"].tolist() == [2, 1]
    assert analysis.model_performance(calls)["success_rate"].isna().all()
    with pytest.raises(al.InvalidValue, match="no column 'provider'"):
        analysis.usage(calls, by="provider")


REFERENCE = st.integers(0, 200).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, 10_000)))


@settings(max_examples=25, deadline=None)
@given(REFERENCE)
def test_usage_and_cost_are_pandas_sums(drawn: tuple[int, int]) -> None:
    calls = traffic(drawn[0], seed=drawn[1])
    for name in (*PARTS, "cost_estimated_usd"):
        calls[name] = np.random.default_rng(drawn[1]).random(len(calls))
    calls.loc[calls["model"] == "house-7b", [*PARTS, "cost_estimated_usd"]] = np.nan
    cost = calls["cost_actual_usd"].astype(float).fillna(calls["cost_estimated_usd"].astype(float))
    grouped = calls.assign(cost=cost, one=1, failed=~calls["success"].astype(bool)).groupby("model")
    usage = analysis.usage(calls).set_index("model")
    expected = grouped["one"].sum()
    assert usage["calls"].to_dict() == expected.to_dict()
    assert usage["failed_calls"].to_dict() == grouped["failed"].sum().to_dict()
    for name in TOKENS[:3]:
        want = grouped[name].sum(min_count=1)
        np.testing.assert_array_equal(usage[name].to_numpy(float, na_value=np.nan), want.to_numpy(float))
    np.testing.assert_allclose(usage["cost_usd"], grouped["cost"].sum(min_count=1), rtol=1e-12)
    assert usage["unpriced_calls"].to_dict() == (expected - grouped["cost"].count()).to_dict()
    spent = analysis.cost(calls)
    assert spent["cost_usd"].dropna().is_monotonic_decreasing
    spent = spent.set_index("model").sort_index()
    for name in (*PARTS, "cost_estimated_usd", "cost_actual_usd"):
        np.testing.assert_allclose(spent[name], grouped[name].sum(min_count=1).astype(float), rtol=1e-12)
    if len(calls):
        np.testing.assert_allclose(spent["share"], spent["cost_usd"] / np.nansum(cost), rtol=1e-12)
        assert spent["cumulative_usd"].max() == pytest.approx(np.nansum(cost))
    billed = calls[calls["cost_actual_usd"].notna()]
    assert spent["estimate_of_billed_usd"].sum() == pytest.approx(billed["cost_estimated_usd"].sum())
    assert spent["billed_calls"].sum() == len(billed)


def test_running_totals_follow_each_group_through_time(lab: Lab) -> None:
    lab.record_usages(traffic(400))
    frame = lab.cost_df(by="model", freq="D")
    assert frame.sort_values(["period", "model"]).index.tolist() == frame.index.tolist()
    running = frame["cost_usd"].fillna(0).groupby(frame["model"]).cumsum()
    np.testing.assert_allclose(frame["cumulative_usd"], running)
    assert frame["share"].sum() == pytest.approx(1)
    alone = lab.cost_df(by=[], freq="D")
    np.testing.assert_allclose(alone["cumulative_usd"], alone["cost_usd"].cumsum())


def test_latency_is_numpys_quantiles_and_intervals(lab: Lab) -> None:
    lab.record_usages(traffic(2_000))
    calls = lab.ledger_df()
    for row in lab.latency_df(by=["model", "operation"]).to_dict("records"):
        own = calls[(calls["model"] == row["model"]) & (calls["operation"] == row["operation"])]
        values = own["latency_ms"].dropna().to_numpy()
        assert row["n"] == len(values)
        found = quantiles_with_intervals(values, [percent / 100 for percent in PERCENTS])
        for percent, estimate, low, high in zip(PERCENTS, *found, strict=True):
            bounds = [row[f"p{percent}_{bound}ms"] for bound in ("", "low_", "high_")]
            np.testing.assert_array_equal(bounds, [estimate, low, high])
            assert math.isnan(estimate) or estimate == np.quantile(values, percent / 100)
        first = own["ttft_ms"].dropna()
        assert (row["ttft_n"], row["ttft_p50_ms"]) == (len(first), np.quantile(first, 0.5))
        tokens = own["output_tokens"].to_numpy(float, na_value=np.nan)
        # Reasoning comes before the first token: it is no part of what was generated after it.
        reasoning = own["reasoning_tokens"].to_numpy(float, na_value=0)
        spoken = np.where(own["ttft_ms"].notna(), tokens - reasoning, tokens)
        rates = tokens_per_second(spoken, own["latency_ms"], own["ttft_ms"])
        assert row["output_tokens_per_second"] == np.nanmedian(rates)


def test_reasoning_is_no_part_of_what_comes_after_the_first_token(lab: Lab) -> None:
    call = {"model": "m", "output_tokens": 1_100, "reasoning_tokens": 1_000, "latency_ms": 11_000}
    lab.record_usages([{**call, "ttft_ms": 10_000}, {**call, "model": "unknown start"}])
    rates = lab.latency_df().set_index("model")["output_tokens_per_second"]
    assert rates.to_dict() == {"m": 100.0, "unknown start": 100.0}


def test_performance_is_rates_means_and_their_intervals(lab: Lab) -> None:
    lab.record_usages(traffic(1_000))
    calls = lab.ledger_df()
    for row in lab.model_performance_df().to_dict("records"):
        own = calls[calls["model"] == row["model"]]
        low, high = wilson_interval(own["success"].sum(), len(own))
        assert (row["calls"], row["success_low"], row["success_high"]) == (len(own), low, high)
        assert row["success_rate"] == pytest.approx(own["success"].mean())
        judged = np.sort(own["quality_score"].dropna())
        assert (row["quality_n"], row["quality_mean"]) == (len(judged), pytest.approx(judged.mean()))
        assert (row["quality_low"], row["quality_high"]) == pytest.approx(bootstrap_mean_interval(judged))
        priced = own.dropna(subset=["cost_usd"])
        assert row["cost_per_call_usd"] == pytest.approx(priced["cost_usd"].mean())
        assert row["cost_per_success_usd"] == pytest.approx(priced["cost_usd"].sum() / priced["success"].sum())
        assert row["unpriced_calls"] == len(own) - len(priced)
        assert row["latency_p95_ms"] == pytest.approx(own["latency_ms"].quantile(0.95))
        assert row["calls_before"] == 0
        assert math.isnan(row["success_rate_change"])


def test_a_change_is_measured_against_the_period_of_the_same_length_before(lab: Lab) -> None:
    def day(back: float, success: bool, quality: float | None) -> dict[str, Any]:
        at = NOW - timedelta(days=back)
        return {"model": "m", "at": at, "success": success, "quality_score": quality, "cost_actual_usd": 2.0 - success}

    rows = [day(1 + n / 100, n % 10 > 0, 0.8 + n % 3 / 100) for n in range(100)]
    rows += [day(8 + n / 100, n % 2 > 0, 0.5 + n % 3 / 100) for n in range(50)]
    rows += [day(20, False, 0.0)] * 7 + [{**day(1, True, None), "model": "new"}]
    lab.record_usages(rows)
    new, row = lab.model_performance_df(since="7d").sort_values("model", ascending=False).to_dict("records")
    assert (row["calls"], row["calls_before"], new["calls"], new["calls_before"]) == (100, 50, 1, 0)
    assert row["success_rate_change"] == pytest.approx(0.9 - 0.5)
    low, high = row["success_rate_change_low"], row["success_rate_change_high"]
    assert 0.2 < low < 0.4 < high < 0.6
    assert row["quality_change"] == pytest.approx(0.3, abs=0.001)
    assert row["quality_change_low"] < row["quality_change"] < row["quality_change_high"]
    assert row["cost_per_call_change_usd"] == pytest.approx(1.1 - 1.5)
    assert row["cost_per_call_change_high_usd"] < 0
    assert all(math.isnan(value) for name, value in new.items() if "change" in name)
    with pytest.raises(al.InvalidValue, match="is not before"):
        lab.model_performance_df(since=NOW, until=NOW)


# Two models


def paired_rows(prompts: int, *, gain: float) -> list[dict[str, Any]]:
    draw = np.random.default_rng(1)
    rows = []
    for prompt in range(prompts):
        hard = draw.random() * 0.5
        for model, extra in (("a", gain), ("b", 0.0)):
            quality = float(np.clip(hard + extra + draw.normal(0, 0.02), 0, 1))
            call = {"model": model, "quality_score": quality, "cost_actual_usd": 0.5 - extra, "latency_ms": 100}
            rows.append({**call, "metadata": {"prompt_id": prompt}})
    return rows


def test_on_the_same_prompts_a_small_difference_shows(lab: Lab) -> None:
    lab.record_usages([*paired_rows(60, gain=0.05), {"model": "a", "quality_score": 0}])
    frame = lab.compare_models("a", "b")
    assert dtypes(frame) == COMPARISON_COLUMNS
    assert frame["measure"].tolist() == ["success_rate", "quality", "cost_usd", "latency_ms"]
    by_measure = frame.set_index("measure")
    quality = by_measure.loc["quality"]
    assert (quality["paired"], quality["n_a"], quality["n_b"], quality["verdict"]) == (True, 60, 60, "a better")
    assert 0 < quality["difference_low"] < quality["difference"] < quality["difference_high"]
    assert quality["difference"] == pytest.approx(0.05, abs=0.01)
    assert by_measure.loc["cost_usd", "verdict"] == "a better"
    assert by_measure.loc["latency_ms", ["difference", "verdict"]].tolist() == [0, "cannot tell yet"]
    swapped = lab.compare_models("b", "a").set_index("measure")
    assert swapped.loc["quality", "verdict"] == "a better"
    assert swapped.loc["quality", "difference"] == pytest.approx(-quality["difference"])
    assert frame.attrs["prompt"] == "metadata.prompt_id"


def test_without_common_prompts_calls_are_compared_as_independent_and_it_says_so(lab: Lab) -> None:
    lab.record_usages(paired_rows(60, gain=0.03))
    frame = lab.compare_models("a", "b", prompt=None).set_index("measure")
    assert not frame["paired"].any()
    assert frame.loc["quality", "verdict"] == "cannot tell yet"
    assert frame.loc["quality", "difference"] == pytest.approx(0.03, abs=0.01)
    assert lab.compare_models("a", "b", prompt="metadata.other")["paired"].tolist() == [False] * 4
    assert lab.compare_models("a", "b", prompt="operation").set_index("measure").loc["quality", "n_a"] == 60


def test_repeated_answers_to_a_prompt_count_once(lab: Lab) -> None:
    rows = paired_rows(10, gain=0.1)
    lab.record_usages([*rows, *[row for row in rows if row["model"] == "a"] * 3])
    quality = lab.compare_models("a", "b").set_index("measure").loc["quality"]
    assert (quality["n_a"], quality["n_b"]) == (10, 10)


def test_models_without_calls_cannot_be_told_apart(lab: Lab) -> None:
    frame = lab.compare_models("a", "b")
    assert dtypes(frame) == COMPARISON_COLUMNS
    assert set(frame["verdict"]) == {"cannot tell yet"}
    assert frame["n_a"].tolist() == [0] * 4
    lab.record_usage("a", latency_ms=3)
    assert set(lab.compare_models("a", "b")["verdict"]) == {"cannot tell yet"}
    with pytest.raises(al.InvalidValue, match="prompt='D'"):
        lab.compare_models("a", "b", prompt="D")


# Filters and groups

VERBS = ["ledger_df", "usage_df", "cost_df", "latency_df", "model_performance_df"]


def counted(lab: Lab, verb: str, **filters: Any) -> int:
    frame = getattr(lab, verb)(**filters)
    return len(frame) if verb == "ledger_df" else int(frame["n" if verb == "latency_df" else "calls"].sum())


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("filters", "chosen"),
    [
        ({"model": "gpt-4o"}, lambda f: f["model"] == "gpt-4o"),
        ({"model": ["gpt-4o", "house-7b"]}, lambda f: f["model"] != "gpt-4o-mini"),
        (
            {"provider": "openai", "operation": "chat"},
            lambda f: (f["provider"] == "openai") & (f["operation"] == "chat"),
        ),
        ({"success": False}, lambda f: ~f["success"]),
        ({"since": "7d"}, lambda f: f["at"] >= NOW - timedelta(days=7)),
        (
            {"since": "2026-03-10", "until": START + timedelta(days=20)},
            lambda f: f["at"].between("2026-03-10", "2026-03-21", "left"),
        ),
        ({"metadata": {"team": ["core", "ops"]}}, lambda f: f["metadata"].map(lambda m: bool(m.get("team")))),
        ({"model": None, "since": None}, lambda f: f["at"].notna()),
    ],
)
def test_filters_choose_the_calls(lab: Lab, verb: str, filters: dict[str, Any], chosen: Callable[..., Any]) -> None:
    lab.record_usages(traffic(200))
    calls = lab.ledger_df()
    if verb == "latency_df":
        calls = calls.dropna(subset=["latency_ms"])
    assert counted(lab, verb, **filters) == int(chosen(calls).astype(bool).sum())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modle": "m"}, "unknown filter 'modle'; did you mean 'model'"),
        ({"since": datetime(2026, 1, 1)}, "no time zone"),
        ({"success": "yes"}, "success='yes'"),
        ({"by": "modle"}, "by='modle' is no column of the ledger; did you mean 'model'"),
        ({"by": "metadata."}, "by='metadata.'"),
        ({"by": ["model", "model"]}, "names something twice"),
        ({"by": ["D"], "freq": "h"}, "give one time frequency"),
        ({"freq": "Q"}, "freq='Q': give 'h', 'D', 'W' or 'M'"),
        ({"by": "input_tokens"}, "by='input_tokens' is a figure of the frame"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(lab: Lab, options: dict[str, Any], message: str) -> None:
    with pytest.raises(al.InvalidValue, match=message):
        lab.usage_df(**options)


def test_the_newest_calls_come_with_a_limit_and_in_the_order_of_time(lab: Lab) -> None:
    lab.record_usages(traffic(50))
    whole = lab.ledger_df()
    assert whole.sort_values(["at", "usage_key"]).index.tolist() == whole.index.tolist()
    same(lab.ledger_df(limit=7), whole.tail(7).reset_index(drop=True))
    with pytest.raises(al.InvalidValue, match="limit=0"):
        lab.ledger_df(limit=0)


# Remembered, never stale


@pytest.mark.only_sqlite
def test_a_repeated_question_is_answered_from_memory_until_anyone_writes(lab: Lab, tmp_path: Path) -> None:
    lab.record_usages(traffic(100))
    first = lab.usage_df()
    asked: list[str] = []
    storage = lab._storage
    aggregate = storage.aggregate

    def spied(*arguments: Any, **options: Any) -> Any:
        asked.append("aggregate")
        return aggregate(*arguments, **options)

    storage.aggregate = spied  # type: ignore[method-assign]
    same(lab.usage_df(), first)
    same(lab.usage_df(by=["model"]), first)
    assert asked == []
    other = sqlite3.connect(tmp_path / "lab.db")
    other.execute("DELETE FROM usage_ledger WHERE model = 'gpt-4o'")
    other.commit()
    other.close()
    assert lab.usage_df()["model"].tolist() == ["gpt-4o-mini", "house-7b"]
    lab.record_usage("gpt-4o", at=START)
    assert lab.usage_df()["calls"].tolist()[0] == 1
    with lab.transaction():
        lab.record_usage("gpt-4o", at=START)
        assert lab.usage_df()["calls"].tolist()[0] == 2
    assert lab.usage_df()["calls"].tolist()[0] == 2
    with pytest.raises(RuntimeError), lab.transaction():
        lab.record_usage("gpt-4o", at=START)
        lab.usage_df()
        raise RuntimeError
    assert lab.usage_df()["calls"].tolist()[0] == 2


def test_what_a_user_does_to_an_answer_does_not_reach_the_next(lab: Lab) -> None:
    lab.record_usages(traffic(20))
    for _ in range(2):
        frame = lab.usage_df()
        assert frame["calls"].sum() == 20
        frame.loc[:, "calls"] = -1
        frame.attrs["note"] = "mine"
        assert lab.usage_df().attrs == {}


# Derived and never drifting


def test_the_view_agrees_with_the_ledger_whatever_was_recorded(lab: Lab) -> None:
    assert view_differences(lab._storage).empty
    lab.record_usages(traffic(300))
    assert view_differences(lab._storage).empty
    lab.use_prices([{"model": "house-7b", "input_usd_per_mtok": 1, "output_usd_per_mtok": 1}])
    assert len(lab.reprice_usage(dry_run=False)) > 0
    lab.record_usage("gpt-4o", cost_actual_usd=1.0, at=START)
    assert view_differences(lab._storage).empty


@pytest.mark.only_sqlite
def test_a_view_that_was_tampered_with_is_told(lab: Lab, tmp_path: Path) -> None:
    lab.record_usages(traffic(30))
    other = sqlite3.connect(tmp_path / "lab.db")
    (sql,) = other.execute("SELECT sql FROM sqlite_master WHERE name = 'model_performance'").fetchone()
    other.execute("DROP VIEW model_performance")
    other.execute(sql.replace("avg(quality_score)", "max(quality_score)"))
    other.commit()
    other.close()
    assert set(view_differences(lab._storage)["figure"]) == {"quality_mean"}
