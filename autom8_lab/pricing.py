"""What a call costs: the dated prices of genai-prices with the user's own table on top, and no network.

Costs are exact: a price is held as whole fractions of a dollar per token, multiplied and summed as integers, and
rounded once, to the float that is handed out. An unknown price is None or NaN, never 0.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InvalidValue, did_you_mean
from .validation import INTEGER_LIMIT, integer_value, is_missing, moment, name_value, shortened

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from genai_prices.types import ModelInfo, ModelPrice
    from numpy.typing import ArrayLike, NDArray

    UserPrices = str | Path | Iterable[Mapping[str, Any]] | pd.DataFrame

TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
RATES = ("input", "cache_read", "cache_write", "output", "reasoning")
RATE_COLUMNS = tuple(f"{name}_usd_per_mtok" for name in RATES)
USER_COLUMNS = ("provider", "model", "valid_from", "currency", *RATE_COLUMNS)
SAYS_FREE = re.compile(r"\bfree\b|zero token cost", re.IGNORECASE)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_MICROSECONDS = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """The cost of one call in USD, by token class, and where the price comes from.

    `input_usd` is the input outside the cache, `output_usd` the output without reasoning, `request_usd` a fee per
    call. `provider` and `model` name the entry that priced the call, `source` its table ("user" or genai-prices
    and its version), `price_date` the day in UTC from which that price holds, None where the table has none.
    """

    cost_usd: float
    input_usd: float
    cache_read_usd: float
    cache_write_usd: float
    output_usd: float
    reasoning_usd: float
    request_usd: float
    source: str
    price_date: str | None
    provider: str | None
    model: str


class PriceBook:
    """Prices calls: by the user's own table first, then by the prices that genai-prices carries.

    `user_prices` is the path of a YAML file, a DataFrame or a list of dicts. Columns: model (a name, or a prefix
    and `*`), input_usd_per_mtok, output_usd_per_mtok; and optionally provider, valid_from (an ISO date, in UTC),
    cache_read_usd_per_mtok and cache_write_usd_per_mtok (else the input's), reasoning_usd_per_mtok (else the
    output's), currency (USD). Of the rows that are valid at the call's time the most exact one wins, then the
    latest. A row with a provider holds for calls of that provider, given or known from the model's name.
    Raises InvalidValue for a row that cannot be used.

    >>> book = PriceBook([{"model": "llama*", "input_usd_per_mtok": 0.1, "output_usd_per_mtok": 0.2}])
    >>> book.price(model="llama3.1:8b", at="2026-01-01", input_tokens=1_000, output_tokens=500).cost_usd
    0.0002
    """

    def __init__(self, user_prices: UserPrices | None = None) -> None:
        self._user_rows = _read_table(user_prices)
        self._schedules: dict[tuple[str, str | None], _Schedule] = {}

    def price(
        self,
        *,
        model: str,
        provider: str | None = None,
        at: datetime | date | str,
        input_tokens: int,
        output_tokens: int = 0,
        cache_read_tokens: int = 0,
        cache_write_tokens: int = 0,
        reasoning_tokens: int = 0,
    ) -> Price | None:
        """Return the price of one call, None where no table knows it.

        As OpenTelemetry defines them, `input_tokens` includes what was read from and written to the cache, and
        `output_tokens` the reasoning. `at` is aware. None also where the model's entry has no price for a class
        that was used. Raises InvalidValue for counts that are negative, not whole, or more than what includes them.
        """
        used = (input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens)
        if not all(type(count) is int and 0 <= count < INTEGER_LIMIT for count in used):
            used = _checked_counts(used)
        total, output, read, write, reasoning = used
        if read + write > total or reasoning > output:
            raise _excess(total, output, read, write, reasoning)
        plan = self._schedule(model, provider).plan(moment(at, "at"))
        counts = (total - read - write, read, write, output - reasoning, reasoning, 1)
        return None if plan is None else plan.price(counts)

    def price_rows(
        self,
        *,
        model: Sequence[str] | pd.Series[Any],
        provider: Any = None,
        at: Any,
        input_tokens: ArrayLike,
        output_tokens: ArrayLike = 0,
        cache_read_tokens: ArrayLike = 0,
        cache_write_tokens: ArrayLike = 0,
        reasoning_tokens: ArrayLike = 0,
    ) -> pd.DataFrame:
        """Return the prices of many calls: a row per call, the fields of `Price` as columns.

        Takes columns of equal length (or one value for all but `model`) as `price` takes values, and answers with
        the same floats. Unknown prices are NaN in every column. Raises InvalidValue as `price` does.
        """
        import numpy as np
        import pandas as pd

        used = (input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens)
        columns = {"model": model, "provider": provider, "at": at, **dict(zip(TOKENS, used, strict=True))}
        calls = pd.DataFrame(columns)
        counts = _count_columns(calls)
        plans, codes = self._plan_codes(calls)
        costs = np.full((7, len(calls)), np.nan)
        for code, plan in enumerate(plans):
            rows = np.flatnonzero(codes == code)
            costs[:, rows] = plan.price_columns(counts[:, rows])
        codes[np.isnan(costs[0])] = -1
        names = [field.name for field in fields(Price)]
        labels = {
            name: pd.array([getattr(plan, name) for plan in plans], dtype="str").take(codes, allow_fill=True)
            for name in names[7:]
        }
        return pd.DataFrame({**dict(zip(names, costs, strict=False)), **labels}, index=calls.index)

    def _plan_codes(self, calls: pd.DataFrame) -> tuple[list[_Plan], NDArray[np.int64]]:
        """Return the different plans of some calls, and for each call the position of its own, -1 for none."""
        import numpy as np

        microseconds = _microseconds(calls["at"])
        group = calls.groupby(["model", "provider"], dropna=False, sort=False).ngroup().to_numpy()
        _, first, inverse = np.unique(group, return_index=True, return_inverse=True)
        codes = np.full(len(calls), -1)
        known: dict[int, tuple[int, _Plan]] = {}
        for place, row in enumerate(first):
            provider = calls["provider"].iloc[row]
            schedule = self._schedule(calls["model"].iloc[row], None if is_missing(provider) else provider)
            rows = np.flatnonzero(inverse == place)
            periods, period = np.unique(microseconds[rows] // schedule.step, return_inverse=True)
            plans = [schedule.plan(EPOCH + timedelta(microseconds=int(step * schedule.step))) for step in periods]
            found = [-1 if plan is None else known.setdefault(id(plan), (len(known), plan))[0] for plan in plans]
            codes[rows] = np.array(found)[period]
        return [plan for _, plan in known.values()], codes

    def _schedule(self, model: str, provider: str | None) -> _Schedule:
        key = (model, provider)
        if key not in self._schedules:
            name_value(model, "model")
            self._schedules[key] = _Schedule(model, provider, self._user_rows)
        return self._schedules[key]


@dataclass(frozen=True, slots=True)
class _Rates:
    """Prices per token in whole 1/scale dollars, None for a class without one; the last is the fee per call."""

    units: tuple[int | None, ...]
    scale: int

    @classmethod
    def per_mtok(cls, usd: Sequence[Decimal | None]) -> _Rates:
        scale = 1
        exact = [None if rate is None else Fraction(rate) for rate in usd]
        while any(rate is not None and (rate * scale).denominator > 1 for rate in exact):
            scale *= 10
        return cls(tuple(None if rate is None else int(rate * scale) for rate in exact), scale * 1_000_000)


@dataclass(frozen=True, slots=True)
class _Plan:
    """The prices of one model in one period: `brackets[i]` holds while the input is at most `starts[i]` tokens."""

    starts: tuple[int, ...]
    brackets: tuple[_Rates, ...]
    source: str
    price_date: str | None
    provider: str | None
    model: str

    def price(self, counts: Sequence[int]) -> Price | None:
        rates = self.brackets[bisect_left(self.starts, counts[0] + counts[1] + counts[2])]
        if any(unit is None and count for count, unit in zip(counts, rates.units, strict=True)):
            return None
        parts = [count * (unit or 0) for count, unit in zip(counts, rates.units, strict=True)]
        costs = (part / rates.scale for part in (sum(parts), *parts))
        return Price(*costs, self.source, self.price_date, self.provider, self.model)

    def price_columns(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the sum and the six parts of `price` as rows of an array, a column per call."""
        import numpy as np

        bracket = np.searchsorted(np.array(self.starts, dtype=np.int64), counts[:3].sum(axis=0))
        costs = np.empty((7, counts.shape[1]))
        for place, rates in enumerate(self.brackets):
            rows = np.flatnonzero(bracket == place)
            units = np.array([[unit or 0] for unit in rates.units], dtype=object)
            # Below 2**53 and 10**22 float division is correctly rounded; Python's integers are above it too.
            fits = rates.scale <= 10**22 and units.max() * (2 * INTEGER_LIMIT) * 6 < 2**53
            parts = counts[:, rows] * units.astype(np.int64) if fits else counts[:, rows].astype(object) * units
            costs[:, rows] = np.vstack([parts.sum(axis=0), parts]) / (float(rates.scale) if fits else rates.scale)
            missing = [place for place, unit in enumerate(rates.units) if unit is None]
            costs[:, rows[counts[missing][:, rows].any(axis=0)]] = np.nan
        return costs
