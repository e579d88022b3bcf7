"""Where prices come from: the entries of genai-prices and the rows of the user's table, as exact rates."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InvalidValue, did_you_mean
from .plain_yaml import plain_yaml
from .validation import is_missing, moment, name_value, shortened

if TYPE_CHECKING:
    import pandas as pd
    from genai_prices.types import ModelInfo, ModelPrice

    UserPrices = str | Path | Iterable[Mapping[str, Any]] | pd.DataFrame

RATES = ("input", "cache_read", "cache_write", "output", "reasoning")
RATE_COLUMNS = tuple(f"{name}_usd_per_mtok" for name in RATES)
LIBRARY_RATES = ("input_mtok", "cache_read_mtok", "cache_write_mtok", "output_mtok", "output_reasoning_mtok")
USER_COLUMNS = ("model", *RATE_COLUMNS, "provider", "valid_from", "currency")
# Names of OpenTelemetry, LiteLLM and others that the library does not know: by the library's.
PROVIDER_NAMES = {
    "gcp.gen_ai": "google",
    "vertex_ai_beta": "google",
    "models": "google",
    "azure.ai.inference": "azure",
    "az.ai.inference": "azure",
    "azure_ai": "azure",
    "x_ai": "x-ai",
    "fireworks_ai": "fireworks",
    "bedrock_converse": "aws",
    "text-completion-openai": "openai",
    "cohere_chat": "cohere",
}
# Whose model it is that comes without a provider.
MAKERS = (
    (re.compile(r"(text-embedding-(3|ada)|chatgpt-|codex-|tts-|whisper-)"), "openai"),
    (re.compile(r"((us|eu|apac|global|us-gov)\.)?(anthropic|meta|amazon|mistral|cohere|deepseek)\."), "aws"),
)
SAYS_FREE = re.compile(r"\bfree\b|zero token cost", re.IGNORECASE)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Rates:
    """What a token of each class in RATES, and last a call, costs in 1/scale dollars; None if not priced."""

    units: tuple[int | None, ...]
    scale: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The prices of one model in one period: `brackets[i]` holds up to `starts[i]` input tokens."""

    starts: tuple[int, ...]
    brackets: tuple[Rates, ...]
    source: str
    price_date: str | None
    provider: str | None
    model: str


@dataclass(frozen=True, slots=True)
class UserRow:
    """One row of the user's table: an exact model name or a prefix and `*`, in lower case."""

    provider: str | None
    pattern: str
    valid_from: date
    plan: Plan

    def matches(self, model: str, providers: set[str | None]) -> bool:
        """Whether the row holds for a model (lower case) of a provider known under these names."""
        prefix = self.pattern.removesuffix("*")
        named = model == prefix if prefix == self.pattern else model.startswith(prefix)
        return named and (self.provider is None or self.provider in providers)

    def precedence(self) -> tuple[bool, int, bool, date]:
        """Sort by exact name, then longer prefix, then having a provider, then later date."""
        return not self.pattern.endswith("*"), len(self.pattern), self.provider is not None, self.valid_from


def read_user_prices(table: UserPrices | None) -> list[UserRow]:
    """Read the user's prices from a YAML path, rows or a frame; the row that wins comes first.

    Raises InvalidValue for an unknown column, a row that cannot be used, and two rows for the same thing.
    """
    rows: Any = [] if table is None else table
    if isinstance(rows, (str, Path)):
        rows = plain_yaml(Path(rows).expanduser()) or []
    elif hasattr(rows, "to_dict"):
        rows = rows.to_dict("records")
    if not isinstance(rows, Iterable) or isinstance(rows, Mapping):
        raise InvalidValue(f"the price table is {shortened(rows)}: give a list of rows, each with a model")
    parsed = [_user_row(row, f"price row {place}") for place, row in enumerate(rows, start=1)]
    seen: dict[tuple[str | None, str, date], int] = {}
    for place, row in enumerate(parsed, start=1):
        earlier = seen.setdefault((row.provider, row.pattern, row.valid_from), place)
        if earlier != place:
            raise InvalidValue(
                f"price rows {earlier} and {place} both say what model={row.pattern!r} costs: "
                "remove one, or give it a provider or a valid_from of its own"
            )
    return sorted(parsed, key=UserRow.precedence, reverse=True)


def find_entry(model: str, provider: str | None) -> tuple[ModelInfo | None, str | None]:
    """Return genai-prices' entry for a model and the provider's id there; None and None if it has none.

    A name with its provider before it, "openai/gpt-4o", is looked up at that provider; a name without one that the
    library cannot place, "text-embedding-3-small", at its maker.
    """
    from genai_prices import Usage, calc_price

    for name, place in _candidates(model, provider):
        try:
            found = calc_price(Usage(), name, provider_id=place, genai_request_timestamp=EPOCH)
        except LookupError:
            continue
        return found.model, found.provider.id
    return None, None


def _candidates(model: str, provider: str | None) -> Iterator[tuple[str, str | None]]:
    """Yield the names and providers to look a model up by, in the order of trust."""
    place = None if provider is None else provider_id(provider) or provider
    yield model, place
    prefix, slash, rest = model.partition("/")
    named = provider_id(prefix) if slash and rest else None
    if named is not None and place in (None, named):
        yield rest, named
    if place is None:
        yield from ((model, maker) for pattern, maker in MAKERS if pattern.match(model))


@functools.lru_cache(maxsize=256)
def provider_id(name: str) -> str | None:
    """Return the library's id for a provider by any of its names, None for an unknown one."""
    from genai_prices.data_snapshot import get_snapshot

    wanted = PROVIDER_NAMES.get(name.lower(), name.lower())
    try:
        return str(get_snapshot().find_provider(None, wanted, None).id)
    except LookupError:
        return None


def library_plan(entry: ModelInfo, provider: str | None, prices: ModelPrice) -> Plan | None:
    """Return a period's prices of an entry as a plan, None where the library has no rate per token.

    An entry without any rate counts as free only where the library says so in words: others are models whose
    price was never found.
    """
    import genai_prices
    from genai_prices.types import ModelPrice, StartDateConstraint, TieredPrices

    given = {key: price for key, price in vars(prices).items() if price is not None}
    described = " ".join(filter(None, (entry.id, entry.name, entry.price_comments)))
    if not given and SAYS_FREE.search(described):
        given = {"input_mtok": Decimal(0), "output_mtok": Decimal(0)}
    if given.keys().isdisjoint(LIBRARY_RATES):
        return None
    tiered = [price for price in given.values() if isinstance(price, TieredPrices)]
    starts = sorted({tier.start for price in tiered for tier in price.tiers})
    brackets = tuple(_bracket(given, above) for above in (-1, *starts))
    periods = [] if isinstance(entry.prices, ModelPrice) else entry.prices
    constraints = [period.constraint for period in periods if period.prices is prices]
    dates = [item.start_date for item in constraints if isinstance(item, StartDateConstraint)]
    source = f"genai-prices {genai_prices.__version__}"
    return Plan(tuple(starts), brackets, source, str(dates[0]) if dates else None, provider, entry.id)


def _bracket(given: Mapping[str, Any], above: int) -> Rates:
    """Return the rates of calls with more than `above` input tokens; a tier prices the whole call."""

    def rate(key: str) -> Decimal | None:
        price = given.get(key)
        if price is None or isinstance(price, Decimal):
            return price
        reached: list[Decimal] = [tier.price for tier in price.tiers if tier.start <= above]
        return reached[-1] if reached else price.base

    return _rates([rate(key) for key in LIBRARY_RATES], (rate("requests_kcount") or Decimal(0)) * 1_000)


def _rates(usd_per_mtok: Sequence[Decimal | None], usd_per_million_calls: Decimal = Decimal(0)) -> Rates:
    """Scale rates to integers; a class without a rate costs what the class that includes it costs."""
    base, read, write, output, reasoning = usd_per_mtok
    read, write = base if read is None else read, base if write is None else write
    reasoning = output if reasoning is None else reasoning
    rates = [base, read, write, output, reasoning, usd_per_million_calls]
    exact = [None if rate is None else Fraction(rate) for rate in rates]
    scale = 1
    while any(rate is not None and (rate * scale).denominator > 1 for rate in exact):
        scale *= 10
    return Rates(tuple(None if rate is None else int(rate * scale) for rate in exact), scale * 1_000_000)


def _user_row(row: Any, where: str) -> UserRow:
    if not isinstance(row, Mapping):
        raise InvalidValue(f"{where} is {shortened(row)}: give a mapping with {', '.join(USER_COLUMNS[:2])} …")
    for key in row:
        if key not in USER_COLUMNS:
            raise InvalidValue(f"{where} has the column {key!r}{did_you_mean(str(key), USER_COLUMNS)}")
    cells = {key: value for key, value in row.items() if not is_missing(value)}
    for key in ("model", "input_usd_per_mtok", "output_usd_per_mtok"):
        if key not in cells:
            raise InvalidValue(f"{where} has no {key}: add it ({shortened(dict(row))})")
    if cells.get("currency", "USD") != "USD":
        raise InvalidValue(f"{where} has currency={cells['currency']!r}: convert its rates to USD")
    pattern = name_value(cells["model"], f"{where}: model").lower()
    if "*" in pattern[:-1]:
        raise InvalidValue(f"{where} has model={pattern!r}: a `*` may only be the last character")
    provider = name_value(cells["provider"], f"{where}: provider").lower() if "provider" in cells else None
    valid_from = _day(cells["valid_from"], f"{where}: valid_from") if "valid_from" in cells else date.min
    rates = _rates([_rate(cells[key], f"{where}: {key}") if key in cells else None for key in RATE_COLUMNS])
    start = str(valid_from) if "valid_from" in cells else None
    return UserRow(provider, pattern, valid_from, Plan((), (rates,), "user", start, provider, pattern))


def _rate(value: object, where: str) -> Decimal:
    try:
        rate = Decimal(str(value))
    except InvalidOperation:
        rate = Decimal("NaN")
    if not rate.is_finite() or rate < 0 or rate.adjusted() > 9:
        raise InvalidValue(f"{where}={shortened(value)}: give US dollars per million tokens, 0 for a free model")
    return rate


def _day(value: object, where: str) -> date:
    """Read a date; a frame's dates are naive midnights, which stand for the day."""
    if isinstance(value, datetime) and value.tzinfo is None and value.time() == datetime.min.time():
        return value.date()
    return moment(value, where).date()
