"""What a call costs: by the user's own prices first, then by the dated prices of genai-prices; no network.

Costs are exact: a price is held as whole fractions of a dollar per token, multiplied and summed as integers,
and rounded once, to the float that is handed out. An unknown price is None or NaN, never 0.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from .errors import InvalidValue
from .price_tables import EPOCH, Plan, UserRow, find_entry, library_plan, read_user_prices
from .validation import INTEGER_LIMIT, integer_value, is_missing, moment, name_value, shortened

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from .price_tables import UserPrices

TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
DAY_MICROSECONDS = 86_400_000_000
FOREVER_MICROSECONDS = 2**62


@dataclass(frozen=True, slots=True)
class Price:
    """The cost of one call in USD, by token class, and where the price comes from.

    `input_usd` is the input outside the cache, `output_usd` the output without reasoning, `request_usd` a fee
    per call. `provider` and `model` name the entry that priced the call, `source` its table ("user", or
    genai-prices and its version), `price_date` the UTC day from which it holds, None if the table has none.
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

    `user_prices` is the path of a YAML file, a DataFrame or a list of dicts. Columns: model (a name, or a
    prefix and `*`), input_usd_per_mtok, output_usd_per_mtok; and optionally provider, valid_from (an ISO
    date, in UTC), cache_read_usd_per_mtok and cache_write_usd_per_mtok (else the input's),
    reasoning_usd_per_mtok (else the output's), currency (USD). Of the rows valid at the call's time the most
    exact one wins, then the latest. A row with a provider holds for calls of that provider, given or known
    from the model's name. Raises InvalidValue for a row that cannot be used.

    >>> book = PriceBook([{"model": "llama*", "input_usd_per_mtok": 0.1, "output_usd_per_mtok": 0.2}])
    >>> book.price(model="llama3.1:8b", at="2026-01-01", input_tokens=1_000, output_tokens=500).cost_usd
    0.0002
    """

    def __init__(self, user_prices: UserPrices | None = None) -> None:
        self._user_rows = read_user_prices(user_prices)
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

        As OpenTelemetry defines them, `input_tokens` includes what was read from and written to the cache,
        and `output_tokens` the reasoning. `at` is aware. Without a provider it is inferred from the model's
        name: give it for a local model that bears a known name. None also where the model's entry has no
        price for a class that was used. Audio and images are priced as text and searches not at all: the bill
        has those. Raises InvalidValue for counts that are negative, not whole, or above what includes them.
        """
        counts = _counts(input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens)
        plan = self._schedule(model, provider).plan(moment(at, "at"))
        return None if plan is None else _price(plan, counts)

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

        Takes columns of what `price` takes, of equal length (all but `model` may be one value for every
        call), and answers with the same floats. An unknown price is NaN in every column; the index is that
        of the columns. Raises InvalidValue as `price` does.
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
            costs[:, rows] = _cost_columns(plan, counts[:, rows])
        codes[np.isnan(costs[0])] = -1
        names = [field.name for field in fields(Price)]
        labels = {
            name: pd.array([getattr(plan, name) for plan in plans], dtype="str").take(codes, allow_fill=True)
            for name in names[7:]
        }
        return pd.DataFrame({**dict(zip(names, costs, strict=False)), **labels}, index=calls.index)

    def _plan_codes(self, calls: pd.DataFrame) -> tuple[list[Plan], NDArray[np.int64]]:
        """Return the different plans of some calls, and for each call the position of its own or -1."""
        import numpy as np

        microseconds = _microseconds(calls["at"])
        group = calls.groupby(["model", "provider"], dropna=False, sort=False).ngroup().to_numpy()
        _, firsts, group = np.unique(group, return_index=True, return_inverse=True)
        codes = np.full(len(calls), -1)
        plans: dict[int, tuple[int, Plan]] = {}
        for place, first in enumerate(firsts):
            schedule = self._schedule(calls["model"].iloc[first], calls["provider"].iloc[first])
            rows = np.flatnonzero(group == place)
            periods, period = np.unique(microseconds[rows] // schedule.step_us, return_inverse=True)
            found = [schedule.plan(EPOCH + timedelta(microseconds=int(p) * schedule.step_us)) for p in periods]
            numbers = [-1 if plan is None else plans.setdefault(id(plan), (len(plans), plan))[0] for plan in found]
            codes[rows] = np.array(numbers)[period]
        return [plan for _, plan in plans.values()], codes

    def _schedule(self, model: str, provider: str | None) -> _Schedule:
        key = (model, None if is_missing(provider) else provider)
        if key not in self._schedules:
            name_value(model, "model")
            if key[1] is not None:
                name_value(key[1], "provider")
            self._schedules[key] = _Schedule(*key, self._user_rows)
        return self._schedules[key]


class _Schedule:
    """How the prices of one (provider, model) move with time: they change at multiples of `step_us`."""

    def __init__(self, model: str, provider: str | None, user_rows: Sequence[UserRow]) -> None:
        from genai_prices.types import ModelPrice, TimeOfDateConstraint

        self._entry, self._provider = find_entry(model, provider)
        providers = {(provider or "").lower(), self._provider}
        self._user_rows = [row for row in user_rows if row.matches(model.lower(), providers)]
        dated = any(row.valid_from > date.min for row in self._user_rows)
        self.step_us = DAY_MICROSECONDS if dated else FOREVER_MICROSECONDS
        if self._entry is not None and not isinstance(self._entry.prices, ModelPrice):
            constraints = [period.constraint for period in self._entry.prices]
            hourly = any(isinstance(constraint, TimeOfDateConstraint) for constraint in constraints)
            self.step_us = 1 if hourly else DAY_MICROSECONDS
        self._by_period: dict[int, Plan | None] = {}
        self._by_entry: dict[int, Plan | None] = {}

    def plan(self, at: datetime) -> Plan | None:
        """Return the prices that hold at an instant in UTC, None where they are not known."""
        if self.step_us == 1:
            return self._resolve(at)
        period = at.toordinal() if self.step_us == DAY_MICROSECONDS else 0
        if period not in self._by_period:
            self._by_period[period] = self._resolve(at)
        return self._by_period[period]

    def _resolve(self, at: datetime) -> Plan | None:
        for row in self._user_rows:
            if row.valid_from <= at.date():
                return row.plan
        if self._entry is None:
            return None
        prices = self._entry.get_prices(at)
        # The library's price objects live as long as its entry, so their ids are theirs alone.
        if id(prices) not in self._by_entry:
            self._by_entry[id(prices)] = library_plan(self._entry, self._provider, prices)
        return self._by_entry[id(prices)]


def _price(plan: Plan, counts: Sequence[int]) -> Price | None:
    """Price the counts of uncached input, cache read, cache write, visible output, reasoning, calls."""
    rates = plan.brackets[bisect_left(plan.starts, counts[0] + counts[1] + counts[2])]
    parts = []
    for count, unit in zip(counts, rates.units, strict=True):
        if unit is None and count:
            return None
        parts.append(count * (unit or 0))
    cost, *costs = (part / rates.scale for part in (sum(parts), *parts))
    names = (plan.source, plan.price_date, plan.provider, plan.model)
    return Price(cost, costs[0], costs[1], costs[2], costs[3], costs[4], costs[5], *names)


def _cost_columns(plan: Plan, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Do what `_price` does for an array of 6 counts by calls: the sum and its 6 parts, NaN where unknown."""
    import numpy as np

    bracket = np.searchsorted(np.array(plan.starts, dtype=np.int64), counts[:3].sum(axis=0))
    costs = np.empty((7, counts.shape[1]))
    for place, rates in enumerate(plan.brackets):
        rows = np.flatnonzero(bracket == place)
        units = np.array([[unit or 0] for unit in rates.units], dtype=object)
        most_tokens = int(counts[:, rows].sum(axis=0).max(initial=0))
        # Float division rounds correctly up to 2**53 and 10**22; beyond, Python's integers still do.
        fits = rates.scale <= 10**22 and int(units.max()) * most_tokens <= 2**53
        parts = counts[:, rows] * units.astype(np.int64) if fits else counts[:, rows].astype(object) * units
        costs[:, rows] = np.vstack([parts.sum(axis=0), parts]) / (float(rates.scale) if fits else rates.scale)
        missing = [index for index, unit in enumerate(rates.units) if unit is None]
        costs[:, rows[counts[missing][:, rows].any(axis=0)]] = np.nan
    return costs


def _counts(*used: int) -> tuple[int, ...]:
    """Check the counts in the order of TOKENS and take the classes apart."""
    if not all(type(count) is int and 0 <= count < INTEGER_LIMIT for count in used):
        used = tuple(integer_value(count, name) for name, count in zip(TOKENS, used, strict=True))
    for name, count in zip(TOKENS, used, strict=True):
        if count < 0:
            raise InvalidValue(f"{name}={count}: give a whole number of at least 0")
    total, output, read, write, reasoning = used
    if read + write > total:
        raise _excess("cache_read_tokens + cache_write_tokens", read + write, "input_tokens", total)
    if reasoning > output:
        raise _excess("reasoning_tokens", reasoning, "output_tokens", output)
    return total - read - write, read, write, output - reasoning, reasoning, 1


def _excess(part: str, count: int, whole: str, total: int) -> InvalidValue:
    return InvalidValue(f"{part}={count} is more than {whole}={total}: {whole} includes them, add them to it")


def _count_columns(calls: pd.DataFrame) -> NDArray[np.int64]:
    """Do what `_counts` does for columns: an array of 6 counts by calls."""
    import numpy as np

    used = np.empty((len(TOKENS), len(calls)), dtype=np.int64)
    for place, name in enumerate(TOKENS):
        column = calls[name]
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan) if column.dtype.kind in "iuf" else None
        if numbers is None:
            numbers = np.array([integer_value(value, name) for value in column], dtype=np.float64)
        bad = ~((numbers >= 0) & (numbers < INTEGER_LIMIT) & (numbers == np.floor(numbers)))
        if bad.any():
            row = int(bad.argmax())
            value = shortened(column.iloc[row : row + 1].tolist()[0])
            raise InvalidValue(f"{name}={value} in row {row}: give a whole number from 0 to 2**31")
        used[place] = numbers
    total, output, read, write, reasoning = used
    wrong = np.flatnonzero((read + write > total) | (reasoning > output))
    if wrong.size:
        _counts(*(int(count) for count in used[:, wrong[0]]))
    return np.stack([total - read - write, read, write, output - reasoning, reasoning, np.ones_like(total)])


def _microseconds(at: pd.Series[Any]) -> NDArray[np.int64]:
    """Return instants as microseconds since 1970, earlier ones as 0: there was nothing to price."""
    import numpy as np
    import pandas as pd

    if not isinstance(at.dtype, pd.DatetimeTZDtype) or at.isna().any():
        at = pd.to_datetime(pd.Series([moment(value, "at") for value in at], dtype=object), utc=True)
    microseconds: NDArray[np.int64] = at.dt.as_unit("us").astype("int64").to_numpy(dtype=np.int64)
    return np.maximum(microseconds, np.int64(0))
