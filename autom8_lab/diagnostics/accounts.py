"""Checks: usage and decisions are recorded, priced, read and summed."""

from __future__ import annotations

from ..errors import DecisionNotFound, InvalidValue
from .workbench import Workbench, check, expect, expect_error

SOURCE = "self-test"


@check("ledger")
def a_call_is_recorded_priced_and_read_back(bench: Workbench) -> None:
    """Usage and cost."""
    with bench.fresh("usage") as lab:
        lab.use_prices([{"model": "self-test-*", "input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0}])
        lab.record_usage("self-test-1", input_tokens=1_000, output_tokens=500, latency_ms=12.5, quality_score=0.5)
        with lab.track_usage("self-test-1") as call:
            call.input_tokens, call.output_tokens = 1_000, 0
        lab.record_usage("nobody knows its price", input_tokens=1, output_tokens=1)
        ledger = lab.ledger_df()
        expect(len(ledger) == 3, f"3 calls were recorded, {len(ledger)} are there")
        costs = ledger["cost_usd"].tolist()
        expect(abs(costs[0] - 0.002) < 1e-12 and abs(costs[1] - 0.001) < 1e-12, f"the costs are {costs}")
        expect(costs[2] != costs[2], f"an unknown price counts as {costs[2]}")
        expect(ledger["latency_ms"].tolist()[1] > 0, "the tracked call has no latency")
        expect(len(lab.unpriced_df()) == 1, "the unpriced model is not listed")


@check("ledger")
def recording_again_changes_nothing(bench: Workbench) -> None:
    """Idempotent batches."""
    with bench.fresh("again") as lab:
        rows = [{"model": "m", "input_tokens": n, "source": SOURCE, "source_id": str(n)} for n in range(200)]
        first = lab.record_usages(rows)["outcome"].value_counts().to_dict()
        second = lab.record_usages(rows)["outcome"].value_counts().to_dict()
        expect(first == {"recorded": 200}, f"the first time: {first}")
        expect(second == {"already there": 200}, f"the second time: {second}")
        expect(int(lab.usage_df()["input_tokens"].sum()) == sum(range(200)), "the tokens do not add up")


@check("ledger")
def the_frames_agree_with_the_rows(bench: Workbench) -> None:
    """Usage, cost, latency and model performance are sums of the ledger."""
    from .. import mockdata

    with bench.fresh("frames") as lab:
        mockdata.fill(lab, days=2, calls_per_day=100, seed=1, until="2026-06-01")
        ledger = lab.ledger_df()
        by_model = ledger.groupby("model", observed=True)
        for frame, column, expected in (
            (lab.usage_df(), "calls", by_model.size()),
            (lab.cost_df().sort_values("model"), "cost_usd", by_model["cost_usd"].sum()),
            (lab.model_performance_df(), "success_rate", by_model["success"].mean()),
        ):
            expect(set(frame["model"]) == set(expected.index), f"{column}: models are missing")
            difference = (frame.set_index("model")[column].astype(float) - expected.astype(float)).abs().max()
            expect(difference < 1e-9, f"{column} differs from the ledger by {difference}")
        expect(lab.latency_df()["n"].sum() == ledger["latency_ms"].notna().sum(), "latency leaves calls out")


@check("ledger")
def a_decision_is_recorded_with_what_it_saw_and_how_it_went(bench: Workbench) -> None:
    """Decisions and outcomes."""
    lab = bench.lab
    context_id = lab.store_context("Decided upon.", context_id="self-test/seen", topic="self-test")
    scores = {"small": 0.7, "large": 0.3}
    decision = lab.record_decision(
        "self-test", chosen="small", candidates=scores, propensity=0.9, complexity_score=0.4, context_ids=[context_id]
    )
    lab.record_outcome(decision, quality_score=0.8, success=True)
    row = lab.decisions_df(decision_type="self-test").set_index("decision_id").loc[decision]
    expect(row["candidates"] == scores, f"the candidates came back as {row['candidates']}")
    expect((row["chosen"], row["propensity"]) == ("small", 0.9), "choice or propensity came back changed")
    expect((row["quality_score"], bool(row["success"])) == (0.8, True), "the outcome is lost")
    expect(list(row["context_ids"]) == [context_id], f"it saw {row['context_ids']}")
    with expect_error(DecisionNotFound, "an outcome of no decision"):
        lab.record_outcome("self-test/none", success=True)
    with expect_error(InvalidValue, "a quality of 2"):
        lab.record_outcome(decision, quality_score=2)
