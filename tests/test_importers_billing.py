"""The bill: its lines with their currencies, known again when it is exported anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import autom8_lab as al
from autom8_lab.lab import Lab

BOTH_BACKENDS = True

OPENAI = [  # the shape of OpenAI's export of costs
    {
        "start_time_iso": "2026-05-01T00:00:00+00:00",
        "end_time_iso": "2026-05-02T00:00:00+00:00",
        "amount_value": amount,
        "amount_currency": "usd",
        "line_item": f"gpt-4o-2024-08-06, {item}",
        "project_id": "proj-1",
    }
    for item, amount in (("input", 1.25), ("cached input", 0.25), ("output", 5.0))
]
ANTHROPIC = {  # the shape of Anthropic's export of usage and cost
    "usage_date_utc": "2026-05-01",
    "model": "claude-sonnet-4-5",
    "workspace": "Default",
    "usage_input_tokens_no_cache": 1_000,
    "usage_input_tokens_cache_read": 9_000,
    "usage_output_tokens": 500,
    "cost_usd": 0.0132,
}
BY_TYPE = {
    "usage_date_utc": "2026-05-01",
    "model": "claude-sonnet-4-5",
    "token_type": "input_cache_write_5m",
    "cost_usd": 2.0,
}


def lines(lab: Lab) -> pd.DataFrame:
    return pd.DataFrame(lab._storage.rows("billing", order_by=["bill_key"]))


@pytest.mark.parametrize("form", ["rows", "frame", "csv"])
def test_exports_of_providers_are_read_as_they_are(lab: Lab, tmp_path: Path, form: str) -> None:
    source: Any = OPENAI
    if form == "frame":
        source = pd.DataFrame(OPENAI)
    elif form == "csv":
        source = tmp_path / "costs.csv"
        pd.DataFrame(OPENAI).to_csv(source, index=False)
    report = lab.import_billing(source, provider="openai")
    assert (report["read"], report["new"], report["refused"]) == (3, 3, 0)
    assert report.mapping["amount"] == "amount_value"
    frame = lines(lab)
    assert frame["model"].tolist() == ["gpt-4o-2024-08-06"] * 3
    assert frame["token_class"].tolist() == ["uncached_input", "cache_read", "output"]
    assert frame["amount"].tolist() == [1.25, 0.25, 5.0]
    assert set(frame["currency"]) == {"USD"}
    assert frame["metadata"].tolist() == [{"project_id": "proj-1"}] * 3
    assert (frame["ends_at"] - frame["at"]).unique().tolist() == [pd.Timedelta(days=1)]


def test_usage_and_token_types_of_anthropic_are_read(lab: Lab) -> None:
    lab.import_billing([ANTHROPIC], provider="anthropic")
    lab.import_billing([BY_TYPE], provider="anthropic")
    first, second = lines(lab).to_dict("records")
    assert (first["uncached_input_tokens"], first["cache_read_tokens"], first["output_tokens"]) == (1_000, 9_000, 500)
    assert (second["token_class"], second["currency"]) == ("cache_write", "USD")


def test_a_bill_that_is_exported_again_renews_its_lines(lab: Lab) -> None:
    lab.import_billing(OPENAI, provider="openai")
    again = lab.import_billing(OPENAI, provider="openai")
    assert (again["new"], again["updated"], again["already_there"]) == (0, 0, 3)
    more = [{**OPENAI[0], "amount_value": 2.5}, *OPENAI[1:], {**OPENAI[0], "project_id": "proj-2"}]
    planned = lab.import_billing(more, provider="openai", dry_run=True)
    assert lines(lab)["amount"].sum() == 6.5
    report = lab.import_billing(more, provider="openai")
    assert {**planned, "dry_run": False} == report
    assert (report["new"], report["updated"], report["already_there"]) == (1, 1, 2)
    assert lines(lab)["amount"].tolist() == [2.5, 0.25, 5.0, 1.25]
    assert lab.import_billing(OPENAI, provider="azure")["new"] == 3  # another provider's is another bill
    lab.import_billing([*OPENAI, OPENAI[0]], provider="twice")  # lines that say the same are two lines
    assert (lines(lab)["provider"] == "twice").sum() == 4


def test_amounts_keep_their_currency_and_one_without_is_refused(lab: Lab) -> None:
    line = {"date": "2026-05-01", "amount": 3, "model": "gpt-4o"}
    report = lab.import_billing([line], provider="openai")
    assert (report["new"], report["refused"]) == (0, 1)
    assert "currency" in report.refused_df()["reason"].iloc[0]
    lab.import_billing([line], provider="openai", currency="eur")
    lab.import_billing([{**line, "currency": "GBP"}], provider="openai", currency="EUR")
    assert lines(lab)["currency"].tolist() == ["EUR", "GBP"]


def test_a_day_is_a_day_of_the_bills_zone(lab: Lab) -> None:
    days = [{"date": day, "cost_usd": 1, "model": "gpt-4o"} for day in ("2026-03-29", "2026-05-01")]
    lab.import_billing(days, provider="openai", timezone="Europe/Berlin")
    frame = lines(lab)
    assert (frame["ends_at"] - frame["at"]).tolist() == [pd.Timedelta(hours=23), pd.Timedelta(hours=24)]
    assert frame["at"].iloc[1] == pd.Timestamp("2026-04-30T22:00:00Z")


def test_credits_are_negative_and_bad_lines_are_listed(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "bill.csv"
    path.write_text(
        "date,model,cost_usd,input_tokens\n2026-05-01,gpt-4o,-5,\nsoon,gpt-4o,1,\n2026-05-01,gpt-4o,many,\n,,,\n2026-05-01,gpt-4o,1,-5\n2026-05-01\n"
    )
    report = lab.import_billing(path, provider="openai")
    assert (report["new"], report["refused"]) == (1, 5)
    assert lines(lab)["amount"].tolist() == [-5]
    assert lab.import_billing([], provider="openai")["read"] == 0
    assert lab.import_billing([{**ANTHROPIC}, 5], provider="anthropic")["refused"] == 1


def test_a_mapping_of_ones_own(lab: Lab) -> None:
    odd = [{"Tag": "2026-05-01", "Betrag": 3, "Modell": "gpt-4o", "Stück": 10}]
    mapping = {"at": "Tag", "amount": "Betrag", "model": "Modell", "calls": "Stück"}
    lab.import_billing(odd, provider="openai", mapping=mapping, currency="EUR")
    assert lines(lab).loc[0, ["amount", "currency", "calls"]].tolist() == [3, "EUR", 10]
    for bad, message in (
        ({"at": "Tag"}, "amount"),
        ({**mapping, "modell": "Tag"}, "did you mean 'model'"),
        ({**mapping, "model": "x"}, "no column"),
    ):
        with pytest.raises(al.InvalidValue, match=message):
            lab.import_billing(odd, provider="openai", mapping=bad)
    with pytest.raises(al.InvalidValue, match="no column looks like at or amount"):
        lab.import_billing(odd, provider="openai")
    with pytest.raises(al.InvalidValue, match="provider"):
        lab.import_billing(odd, provider="")
