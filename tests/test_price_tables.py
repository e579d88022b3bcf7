"""The user's own prices: what a table may say, which row wins, and what is refused."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest

from autom8_lab.errors import InvalidValue
from autom8_lab.price_tables import find_entry, read_user_prices
from autom8_lab.pricing import Price, PriceBook

ROW = {"model": "house-model", "input_usd_per_mtok": 1, "output_usd_per_mtok": 2}
TABLE = """
- model: house-model
  provider: basement
  input_usd_per_mtok: 0.10
  output_usd_per_mtok: 0.40
  cache_read_usd_per_mtok: 0.01
  valid_from: 2026-02-01
  currency: USD
- model: llama*
  input_usd_per_mtok: 0
  output_usd_per_mtok: 0
"""


def _price(book: PriceBook, model: str = "house-model", **changed: object) -> Price | None:
    call = {"at": "2026-05-01", "input_tokens": 1_000_000, "output_tokens": 1_000_000, **changed}
    return book.price(model=model, **call)


def _cost(*rows: dict, model: str = "house-model", **changed: object) -> float | None:
    price = _price(PriceBook(rows), model, **changed)
    return None if price is None else price.cost_usd


def test_a_yaml_file_a_list_and_a_frame_say_the_same(tmp_path: Path):
    path = tmp_path / "prices.yaml"
    path.write_text(TABLE, encoding="utf-8")
    rows = [
        {
            "model": "house-model",
            "provider": "basement",
            "valid_from": "2026-02-01",
            "currency": "USD",
            "input_usd_per_mtok": 0.1,
            "output_usd_per_mtok": 0.4,
            "cache_read_usd_per_mtok": 0.01,
        },
        {"model": "llama*", "input_usd_per_mtok": 0, "output_usd_per_mtok": 0},
    ]
    frame = pd.DataFrame(rows)
    frame["valid_from"] = pd.to_datetime(frame["valid_from"])
    assert read_user_prices(path) == read_user_prices(str(path)) == read_user_prices(rows) == read_user_prices(frame)
    price = _price(PriceBook(path), provider="basement", cache_read_tokens=600_000)
    assert price == Price(0.446, 0.04, 0.006, 0.0, 0.4, 0.0, 0.0, "user", "2026-02-01", "basement", "house-model")


def test_an_empty_table_is_no_table(tmp_path: Path):
    path = tmp_path / "prices.yaml"
    path.write_text("# nothing yet\n", encoding="utf-8")
    assert read_user_prices(path) == read_user_prices([]) == read_user_prices(pd.DataFrame()) == []


def test_classes_without_a_rate_cost_what_the_class_around_them_costs():
    book = PriceBook([ROW])
    price = _price(book, cache_read_tokens=300_000, cache_write_tokens=200_000, reasoning_tokens=250_000)
    assert price is not None
    assert (price.input_usd, price.cache_read_usd, price.cache_write_usd) == (0.5, 0.3, 0.2)
    assert (price.output_usd, price.reasoning_usd) == (1.5, 0.5)
    own = {**ROW, "cache_write_usd_per_mtok": 4, "reasoning_usd_per_mtok": Decimal("8")}
    price = _price(PriceBook([own]), cache_write_tokens=200_000, reasoning_tokens=250_000)
    assert price is not None
    assert (price.cache_write_usd, price.reasoning_usd) == (0.8, 2.0)


def test_the_latest_price_that_is_valid_at_the_calls_time_wins():
    old, new = (
        {**ROW, "valid_from": "2026-01-01"},
        {**ROW, "input_usd_per_mtok": 5, "valid_from": "2026-04-01"},
    )
    for rows in ([old, new], [new, old]):
        assert _cost(*rows, at="2025-12-31T23:59:59+00:00") is None
        assert _cost(*rows, at="2026-03-31T23:59:59+00:00") == 3.0
        assert _cost(*rows, at="2026-04-01T00:00:00+00:00") == 7.0
        assert _cost(*rows, at="2026-04-01T01:00:00+02:00") == 3.0
    always = {**ROW, "output_usd_per_mtok": 10}
    assert _cost(old, always, at="2025-01-01") == 11.0
    assert _cost(old, always, at="2026-01-01") == 3.0


def test_the_most_exact_row_wins_before_the_latest():
    rows = [
        {**ROW, "model": "*", "input_usd_per_mtok": 100, "valid_from": "2026-03-01"},
        {**ROW, "model": "house-*", "input_usd_per_mtok": 50, "valid_from": "2026-02-01"},
        {**ROW, "model": "house-model", "provider": "attic", "input_usd_per_mtok": 10},
        ROW,
    ]
    assert _cost(*rows) == 3.0
    assert _cost(*rows, provider="attic") == 12.0
    assert _cost(*rows, provider="Attic", model="House-Model") == 12.0
    assert _cost(*rows, model="house-other") == 52.0
    assert _cost(*rows, model="elsewhere") == 102.0
    assert _cost(*rows[:2], at="2026-02-15") == 52.0


def test_a_row_with_a_provider_holds_for_that_provider_alone_given_or_known_from_the_name():
    row = {**ROW, "model": "gpt-4o-mini", "provider": "openai"}
    assert _cost(row, model="gpt-4o-mini", provider="openai") == 3.0
    assert _cost(row, model="gpt-4o-mini") == 3.0
    azure = _price(PriceBook([row]), "gpt-4o-mini", provider="azure")
    assert azure is not None
    assert azure.source.startswith("genai-prices")
    assert _cost({**ROW, "provider": "basement"}) is None


def test_the_users_price_stands_above_the_librarys_only_from_its_date_on():
    book = PriceBook([{**ROW, "model": "gpt-4o-mini", "valid_from": "2026-01-01"}])
    before, after = (_price(book, "gpt-4o-mini", at=day) for day in ("2025-12-31", "2026-01-01"))
    assert before is not None
    assert after is not None
    assert (before.source.split()[0], after.source) == ("genai-prices", "user")
    assert after.price_date == "2026-01-01"


def test_a_model_that_is_free_in_the_table_costs_zero():
    assert _cost({"model": "llama*", "input_usd_per_mtok": 0, "output_usd_per_mtok": "0.0"}, model="llama3:8b") == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"input_usd_per_mtoken": 1},
            r"row 2 has the column 'input_usd_per_mtoken'.*did you mean 'input_usd_per_mtok'",
        ),
        ({"input_usd_per_mtok": -1}, r"row 2: input_usd_per_mtok=-1: give US dollars per million tokens"),
        ({"output_usd_per_mtok": "cheap"}, r"row 2: output_usd_per_mtok='cheap'"),
        ({"output_usd_per_mtok": float("inf")}, r"row 2: output_usd_per_mtok=inf"),
        ({"output_usd_per_mtok": float("nan")}, r"row 2 has no output_usd_per_mtok: add it"),
        ({"cache_read_usd_per_mtok": True}, r"row 2: cache_read_usd_per_mtok=True"),
        ({"input_usd_per_mtok": None}, r"row 2 has no input_usd_per_mtok: add it"),
        ({"model": None}, r"row 2 has no model: add it"),
        ({"model": "gpt*mini"}, r"row 2 has model='gpt\*mini': a `\*` may only be the last"),
        ({"model": 7}, r"row 2: model=7 is a int"),
        ({"provider": " "}, r"row 2: provider=' ' is empty"),
        ({"currency": "EUR"}, r"row 2 has currency='EUR': convert its rates to USD"),
        ({"valid_from": "spring"}, r"row 2: valid_from='spring'"),
        ({"valid_from": pd.Timestamp("2026-01-01 12:00")}, r"row 2: valid_from=.*has no time zone"),
        ({"model": "first"}, r"rows 1 and 2 both say what model='first' costs"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused_by_number_column_and_value(change, message):
    with pytest.raises(InvalidValue, match=message):
        PriceBook([{**ROW, "model": "first"}, {**ROW, **change}])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: gpt", "give a list of rows"),
        ("- gpt", "row 1 is 'gpt'"),
        ("- [", "is not valid YAML"),
        ("7", "is 7: give"),
    ],
)
def test_a_file_that_is_not_a_list_of_rows_is_refused(tmp_path: Path, text, message):
    path = tmp_path / "prices.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidValue, match=message):
        PriceBook(path)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(InvalidValue, match=r"prices\.yaml cannot be read .*check the path"):
        PriceBook(tmp_path / "prices.yaml")


def test_yaml_cannot_run_code(tmp_path: Path):
    path = tmp_path / "prices.yaml"
    path.write_text("- !!python/object/apply:os.getcwd []", encoding="utf-8")
    with pytest.raises(InvalidValue, match="is not valid YAML"):
        PriceBook(path)


@pytest.mark.parametrize(
    ("model", "provider", "expected"),
    [
        ("openai/gpt-4o", None, ("gpt-4o", "openai")),
        ("openai/gpt-4o", "openai", ("gpt-4o", "openai")),
        ("anthropic/claude-sonnet-4-5", None, ("claude-sonnet-4-5", "anthropic")),
        ("gemini/gemini-2.5-flash", None, ("gemini-2.5-flash", "google")),
        ("models/gemini-2.5-pro", None, ("gemini-2.5-pro", "google")),
        ("openrouter/openai/gpt-4o", None, ("openai/gpt-4o", "openrouter")),
        ("text-embedding-3-small", None, ("text-embedding-3-small", "openai")),
        (
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            None,
            ("regional.anthropic.claude-sonnet-4-5-20250929-v1:0", "aws"),
        ),
        ("gemini-2.5-flash", "gcp.gen_ai", ("gemini-2.5-flash", "google")),
        ("gpt-4o", "azure.ai.inference", ("gpt-4o", "azure")),
        ("grok-4", "x_ai", ("grok-4-0709", "x-ai")),
        ("accounts/fireworks/models/deepseek-v3p2", "fireworks_ai", ("deepseek-v3p2", "fireworks")),
        ("anthropic/gpt-4o", "openai", None),
        ("acme/gpt-4o", None, None),
        ("gpt-4o", "basement", None),
        ("our-llama", None, None),
        ("openai/", None, None),
    ],
)
def test_names_of_telemetry_and_gateways_are_found(
    model: str, provider: str | None, expected: tuple[str, str] | None
) -> None:
    entry, found = find_entry(model, provider)
    assert (None if entry is None else (entry.id, found)) == expected
