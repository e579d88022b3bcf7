"""The ledger beside the bill: both totals, the difference by class, and the class that explains it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import autom8_lab as al
from autom8_lab.analysis.reconciliation import CLASSES, EFFECTS, reconciliation_columns
from autom8_lab.lab import Lab

BOTH_BACKENDS = True
DAY = "2026-05-01"
PRICES = [
    {
        "model": "house",
        "provider": "acme",
        "input_usd_per_mtok": 5,
        "cache_read_usd_per_mtok": 0.5,
        "cache_write_usd_per_mtok": 6.25,
        "output_usd_per_mtok": 30,
        "reasoning_usd_per_mtok": 40,
    }
]


@pytest.fixture
def lab(lab: Lab) -> Lab:
    lab.use_prices(PRICES)
    return lab


def call(lab: Lab, number: int = 0, **given: Any) -> None:
    row = {"model": "house", "provider": "acme", "at": f"{DAY}T12:00:00Z", "input_tokens": 0, "output_tokens": 0}
    lab.record_usage(**{**row, "source": "log", "source_id": str(number), **given})


def bill(lab: Lab, amount: float, **given: Any) -> None:
    line = {"date": DAY, "model": "house", "amount": amount, "currency": "USD"}
    assert lab.import_billing([{**line, **given}], provider="acme")["new"] == 1


def only(frame: pd.DataFrame) -> dict[str, Any]:
    (row,) = frame.to_dict("records")
    assert sum(row[name] for name in EFFECTS) == pytest.approx(row["difference_usd"], abs=1e-9)
    return {str(name): value for name, value in row.items()}


def litellm_34801(lab: Lab, facts: dict[str, Any]) -> dict[str, Any]:
    """The reconciliation of BerriAI/litellm issue 34801: calls as the proxy logged them, and what OpenAI billed."""
    count = facts["requests"]

    def share(total: int, place: int) -> int:
        return total * (place + 1) // count - total * place // count

    rows = [
        {
            "request_id": f"chatcmpl-{place:012}",
            "call_type": "acompletion",
            "spend": facts["litellm"]["cost"] / count,
            "prompt_tokens": share(facts["input_tokens"], place),
            "completion_tokens": share(facts["output_tokens"], place),
            "metadata": {
                "usage_object": {
                    "prompt_tokens_details": {"cached_tokens": share(facts["litellm"]["cached_tokens"], place)}
                }
            },
            "startTime": f"2026-07-27T10:{place:02}:00Z",
            "endTime": f"2026-07-27T10:{place:02}:09Z",
            "model": "gpt-5.6-sol",
            "custom_llm_provider": "openai",
            "status": "success",
        }
        for place in range(count)
    ]
    assert lab.import_litellm(rows)["new"] == count
    billed = facts["openai_billed"]
    line = {
        "date": "2026-07-27",
        "model": "gpt-5.6-sol",
        "num_model_requests": count,
        "input_tokens": facts["input_tokens"],
    }
    line |= {
        "input_cached_tokens": billed["cached_tokens"],
        "output_tokens": facts["output_tokens"],
        "cost_usd": billed["cost"],
    }
    lab.import_billing([line], provider="openai")
    return only(lab.reconcile_df(by=["day", "model"]))


FACTS = {
    "requests": 40,
    "input_tokens": 73_550,
    "output_tokens": 20_480,
    "litellm": {"cached_tokens": 49_563, "cost": 0.939487},
    "openai_billed": {"cached_tokens": 65_304, "cost": 0.865846},
}


@pytest.mark.parametrize("published", [False, True])
def test_the_reconciliation_of_litellm_34801_names_the_cached_input(
    lab: Lab, request: pytest.FixtureRequest, published: bool
) -> None:
    facts = FACTS
    if published:
        shared: Path = request.getfixturevalue("shared_data")
        facts = json.loads((shared / "published" / "reconciliation_litellm_34801.json").read_text(encoding="utf-8"))
    row = litellm_34801(lab, facts)
    assert (row["calls"], row["model"]) == (40, "gpt-5.6-sol")
    assert row["recorded_usd"] == pytest.approx(0.939487)
    assert row["billed_usd"] == pytest.approx(0.865846)
    assert row["difference_usd"] == pytest.approx(-0.073641)
    assert row["explained_by"] == "cache read"
    assert row["explained_share"] > 0.9
    assert row["cache_read_usd"] == pytest.approx(15_741 * (0.5 - 5) / 1e6)
    assert (row["cache_read_tokens_difference"], row["uncached_input_tokens_difference"]) == (15_741, -15_741)
    assert (row["uncached_input_usd"], row["output_usd"], row["output_tokens_difference"]) == (0, 0, 0)
    assert row["estimated_usd"] == pytest.approx((23_987 * 5 + 49_563 * 0.5 + 20_480 * 30) / 1e6)


@pytest.mark.parametrize(
    ("billed", "named", "effect"),
    [
        ({"uncached_input_tokens": 1_100_000}, "uncached input", 0.1 * 5),
        ({"cache_read_tokens": 1_500_000}, "cache read", 0.5 * 0.5),
        ({"cache_write_tokens": 300_000}, "cache write", 0.1 * 6.25),
        ({"output_tokens": 150_000}, "output", 0.05 * 30),
        ({"output_tokens": 140_000, "reasoning_tokens": 60_000}, "reasoning", 0.04 * 40),
        # The same tokens in another class.
        ({"uncached_input_tokens": 900_000, "cache_read_tokens": 1_100_000}, "cache read", 0.1 * (0.5 - 5)),
        ({"uncached_input_tokens": 900_000, "cache_write_tokens": 300_000}, "cache write", 0.1 * (6.25 - 5)),
        ({"cache_read_tokens": 1_100_000, "cache_write_tokens": 100_000}, "cache read", 0.1 * (0.5 - 6.25)),
        ({"reasoning_tokens": 60_000}, "reasoning", 0.04 * (40 - 30)),
        ({}, "price", 1.0),
    ],
)
def test_each_class_is_named_where_it_is_the_cause(lab: Lab, billed: dict[str, int], named: str, effect: float) -> None:
    ours = {"cache_read_tokens": 1_000_000, "cache_write_tokens": 200_000, "reasoning_tokens": 20_000}
    call(lab, input_tokens=2_200_000, output_tokens=100_000, **ours)
    cost = 1.0 * 5 + 1.0 * 0.5 + 0.2 * 6.25 + 0.08 * 30 + 0.02 * 40
    told = {"uncached_input_tokens": 1_000_000, "output_tokens": 100_000, **ours, **billed}
    bill(lab, cost + effect, **told)
    row = only(lab.reconcile_df())
    assert row["recorded_usd"] == row["estimated_usd"] == pytest.approx(cost)
    assert (row["explained_by"], row["explained_share"]) == (named, pytest.approx(1))
    assert row[f"{named.replace(' ', '_')}_usd"] == pytest.approx(effect)


tokens = st.integers(0, 10**7)


@settings(max_examples=15, deadline=None)
@given(
    ours=st.lists(tokens, min_size=5, max_size=5),
    theirs=st.lists(tokens, min_size=5, max_size=5),
    amount=st.floats(0, 1e4),
)
def test_the_parts_add_up_to_the_difference(ours: list[int], theirs: list[int], amount: float) -> None:
    with al.open(":memory:", embedding_model="hash-64") as lab:
        lab.use_prices(PRICES)
        uncached, read, write, output, reasoning = ours
        call(
            lab,
            input_tokens=uncached + read + write,
            output_tokens=output + reasoning,
            cache_read_tokens=read,
            cache_write_tokens=write,
            reasoning_tokens=reasoning,
        )
        told = dict(zip([f"{name}_tokens" for name in CLASSES], theirs, strict=True))
        told["output_tokens"] += told["reasoning_tokens"]
        bill(lab, amount, **told)
        row = only(lab.reconcile_df())
        assert [row[f"{name}_tokens_difference"] for name in CLASSES] == [
            b - a for a, b in zip(ours, theirs, strict=True)
        ]
        assert row["unexplained_usd"] == 0
        # At equal prices nothing is left: the effects are exactly what other tokens cost.
        prices = (5, 0.5, 6.25, 30, 40)
        exact = sum((b - a) * price for a, b, price in zip(ours, theirs, prices, strict=True)) / 1e6
        assert sum(row[f"{name}_usd"] for name in CLASSES) == pytest.approx(exact, abs=1e-6)


def test_a_bill_with_a_line_for_each_class_is_compared_by_its_amounts(lab: Lab) -> None:
    call(lab, input_tokens=2_000_000, cache_read_tokens=1_000_000, output_tokens=100_000)
    for item, amount in (("input", 4.0), ("cached input", 0.6), ("output", 3.0)):
        bill(lab, amount, line_item=item)
    row = only(lab.reconcile_df())
    assert (row["recorded_usd"], row["billed_usd"]) == (pytest.approx(8.5), pytest.approx(7.6))
    assert row["explained_by"] == "cache read"
    assert row["cache_read_usd"] == pytest.approx(0.2 * (0.5 - 5))
    assert row["uncached_input_usd"] == pytest.approx(0)
    assert row["price_usd"] == pytest.approx(0)


def test_sides_that_agree_say_so_and_what_only_one_side_has(lab: Lab) -> None:
    call(lab, 1, input_tokens=1_000_000)
    bill(lab, 5.004, uncached_input_tokens=1_000_000)
    call(lab, 2, model="claude-opus-4-5", provider="acme", input_tokens=100_000, output_tokens=1)
    bill(lab, 2.0, model="other", input_tokens=5)
    frame = lab.reconcile_df(by="model").set_index("model")
    assert frame["explained_by"].to_dict() == {
        "house": "agrees",
        "claude-opus-4-5": "not on the bill",
        "other": "not in the ledger",
    }
    assert frame.loc["other", ["calls", "recorded_usd", "difference_usd"]].tolist() == [0, 0, 2]


def test_only_calls_that_the_bill_is_about_take_part(lab: Lab) -> None:
    call(lab, 1, input_tokens=1_000_000)
    call(lab, 2, input_tokens=1_000_000, at="2026-05-02T00:00:00Z")  # after what the bill covers
    call(lab, 3, input_tokens=1_000_000, provider="elsewhere")
    bill(lab, 5, uncached_input_tokens=1_000_000)
    call(lab, 4, input_tokens=1_000_000, source="another log")
    assert only(lab.reconcile_df(source="log"))["calls"] == 1
    assert only(lab.reconcile_df(source=["log", "another log"]))["calls"] == 2
    assert len(lab.reconcile_df(provider="nobody")) == 0
    assert len(lab.reconcile_df(since="2026-05-02")) == 0
    assert len(lab.reconcile_df(until="2026-05-02")) == 1


def test_names_of_models_and_providers_meet(lab: Lab) -> None:
    call(lab, 1, model="openai/gpt-4o", provider=None, input_tokens=1_000_000)
    call(lab, 2, model="gpt-4o-2024-08-06", provider="OpenAI", input_tokens=1_000_000)
    lab.import_billing([{"date": DAY, "model": "gpt-4o", "cost_usd": 5, "input_tokens": 2_000_000}], provider="openai")
    row = only(lab.reconcile_df(by=["month", "provider", "model"]))
    assert (row["model"], row["provider"], row["calls"], row["explained_by"]) == ("gpt-4o", "openai", 2, "agrees")
    assert row["month"] == pd.Timestamp("2026-05-01", tz="UTC")


def test_periods_are_added_up_and_too_long_lines_are_refused(lab: Lab) -> None:
    for day in (1, 4, 5, 11):
        call(lab, day, input_tokens=1_000_000, at=f"2026-05-{day:02}T12:00:00Z")
        bill(lab, 5.5, date=f"2026-05-{day:02}", uncached_input_tokens=1_100_000)
    assert lab.reconcile_df(by="day")["difference_usd"].tolist() == pytest.approx([0.5] * 4)
    weeks = lab.reconcile_df(by=["week"])
    assert weeks["week"].dt.day.tolist() == [27, 4, 11]
    assert weeks["uncached_input_usd"].tolist() == pytest.approx([0.5, 1, 0.5])
    assert only(lab.reconcile_df(by=["month", "model"]))["explained_by"] == "uncached input"
    assert only(lab.reconcile_df(by="provider"))["difference_usd"] == pytest.approx(2)
    bill(lab, 9, date="2026-05-01", end_time="2026-06-01")
    with pytest.raises(al.InvalidValue, match=r"lines of 31 days: give by=\['month'"):
        lab.reconcile_df(by=["day", "model"])
    assert len(lab.reconcile_df(by="month")) == 1


def test_other_currencies_need_a_rate(lab: Lab) -> None:
    call(lab, input_tokens=1_000_000)
    bill(lab, 4.6, currency="EUR", uncached_input_tokens=1_000_000)
    (row,) = lab.reconcile_df().to_dict("records")
    assert (row["billed_amount"], row["currency"], row["explained_by"]) == (4.6, "EUR", "no rate for EUR")
    assert np.isnan(row["billed_usd"])
    assert np.isnan(row["difference_usd"])
    row = only(lab.reconcile_df(rates={"EUR": 1.1}))
    assert row["billed_usd"] == pytest.approx(5.06)
    assert row["explained_by"] == "price"


def test_a_bill_without_counts_and_calls_without_a_price_stay_unexplained(lab: Lab) -> None:
    call(lab, 1, input_tokens=1_000_000)
    bill(lab, 9)
    row = only(lab.reconcile_df())
    assert (row["unexplained_usd"], row["explained_by"]) == (pytest.approx(4), "no token counts on the bill")
    lab.use_prices(None)
    call(lab, 2, model="nobody-knows", input_tokens=1_000_000)
    bill(lab, 9, model="nobody-knows", uncached_input_tokens=2_000_000)
    frame = lab.reconcile_df(by="model").set_index("model")
    assert frame.loc["nobody-knows", ["unpriced_calls", "explained_by"]].tolist() == [1, "calls without a price"]


def test_a_bill_without_models_is_compared_as_a_whole(lab: Lab) -> None:
    call(lab, 1, input_tokens=1_000_000)
    call(lab, 2, model="gpt-4o", provider="acme", input_tokens=1_000_000, cost_actual_usd=2.5)
    bill(lab, 8.5, model=None, input_tokens=2_000_000)
    assert only(lab.reconcile_df(by="day"))["difference_usd"] == pytest.approx(1)
    with pytest.raises(al.InvalidValue, match="leave 'model' out"):
        lab.reconcile_df()


def test_a_price_that_is_corrected_is_applied_once(lab: Lab) -> None:
    lab.use_prices([{**PRICES[0], "input_usd_per_mtok": 4}])
    call(lab, input_tokens=1_000_000)
    bill(lab, 5, uncached_input_tokens=1_000_000)
    assert only(lab.reconcile_df())["explained_by"] == "price"
    lab.use_prices(PRICES)
    assert len(lab.reprice_usage(dry_run=False)) == 1
    before = lab.reconcile_df()
    assert only(before)["explained_by"] == "agrees"
    assert len(lab.reprice_usage(dry_run=False)) == 0
    pd.testing.assert_frame_equal(lab.reconcile_df(), before)


@pytest.mark.parametrize("by", [["day", "model"], "month", ["provider"], ["week", "provider", "model"]])
def test_an_empty_frame_has_its_columns(lab: Lab, by: Any) -> None:
    frame = lab.reconcile_df(by=by)
    assert frame.dtypes.astype(str).to_dict() == reconciliation_columns([by] if isinstance(by, str) else by)
    call(lab, input_tokens=1)
    bill(lab, 1, input_tokens=5)
    assert lab.reconcile_df(by=by).dtypes.astype(str).to_dict() == frame.dtypes.astype(str).to_dict()


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("days", "did you mean 'day'"),
        (["day", "month"], "at most one"),
        (["model", "model"], "once"),
        ("operation", "nothing that a bill"),
    ],
)
def test_what_a_bill_is_not_split_by(lab: Lab, by: Any, message: str) -> None:
    with pytest.raises(al.InvalidValue, match=message):
        lab.reconcile_df(by=by)
