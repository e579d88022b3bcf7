"""The ledger beside the bill: what differs, in which class of tokens, and which class explains most of it.

Token counts are compared class by class and their differences priced at the lab's prices; what is left at equal counts is
the price. Tokens that one side has as one class of input and the other as another are the cache class's difference: a
cache read that was logged as fresh input is a missing cache read, and no surplus of input.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InvalidValue, did_you_mean
from ..frames import TIME, column_frame
from ..ledger import TABLE
from ..price_tables import find_entry, provider_id
from ..records import Condition, Frequency, Group, Measure

if TYPE_CHECKING:
    import pandas as pd

    from ..pricing import PriceBook
    from ..storage import Storage

BILL = "billing"
CLASSES = ("uncached_input", "cache_read", "cache_write", "output", "reasoning")
PERIODS: dict[str, Frequency] = {"hour": "h", "day": "D", "week": "W", "month": "M"}
PERIOD_HOURS = {
    "hour": 1,
    "day": 25,
    "week": 7 * 24 + 1,
    "month": 31 * 24 + 1,
}  # with the hour that clocks are put back
# Up to this the sides agree: a twentieth of a cent, or a thousandth of the bill.
AGREED_USD, AGREED_SHARE = 0.0005, 0.001
PROBE_TOKENS = 1_000
# Where tokens of the one class on one side are of the other class on the other, the first one's count is wrong.
EXCHANGED = (
    ("cache_read", "uncached_input"),
    ("cache_write", "uncached_input"),
    ("cache_read", "cache_write"),
    ("reasoning", "output"),
)
# What the ledger sums up, by what it is here.
LEDGER_SUMS = {
    "input_tokens": ("input_tokens",),
    "cache_read_tokens": ("cache_read_tokens",),
    "cache_write_tokens": ("cache_write_tokens",),
    "output_tokens": ("output_tokens",),
    "reasoning_tokens": ("reasoning_tokens",),
    "uncached_input_cost": ("input_cost_usd",),
    "cache_read_cost": ("cache_read_cost_usd",),
    "cache_write_cost": ("cache_write_cost_usd",),
    "output_cost": ("output_cost_usd",),
    "reasoning_cost": ("reasoning_cost_usd",),
    "estimated_usd": ("cost_estimated_usd",),
    "recorded_usd": ("cost_actual_usd", "cost_estimated_usd"),
}
SUMS = ("calls", "unpriced_calls", "estimated_usd", "recorded_usd", "billed_amount", "billed_usd", "difference_usd")
EFFECTS = (*(f"{name}_usd" for name in CLASSES), "price_usd", "unexplained_usd")
COUNTS = tuple(f"{name}_tokens_difference" for name in CLASSES)


def reconciliation_columns(by: Sequence[str]) -> dict[str, str]:
    """Return the columns of `reconcile_df` and their dtypes."""
    keys = {name: TIME if name in PERIODS else "str" for name in by}
    return {
        **keys,
        "currency": "str",
        **dict.fromkeys(SUMS[:2], "int64"),
        **dict.fromkeys(SUMS[2:], "float64"),
        **dict.fromkeys(EFFECTS, "float64"),
        "explained_by": "str",
        "explained_share": "float64",
        **dict.fromkeys(COUNTS, "float64"),
    }


def reconciled(
    storage: Storage,
    price_book: PriceBook,
    *,
    by: str | Sequence[str],
    rates: Mapping[str, float] | None,
    bill_where: Sequence[Condition],
    call_where: Sequence[Condition],
) -> pd.DataFrame:
    """Return the ledger beside the bill, by period, provider and model as `by` says."""
    keys = [by] if isinstance(by, str) else list(by)
    period = _checked(keys)
    lines = _bill_lines(storage, bill_where, period, rates or {})
    modelled = all(line["model"] for line in lines)
    names = ["period", "provider", "currency", *(["model"] if modelled else [])]
    if "model" in keys and not modelled:
        raise InvalidValue("the bill has lines without a model: leave 'model' out of by")
    sides = _sums(lines, names, _BILL_SUMS)
    currencies = _currencies(lines)
    for place, row in _sums(_call_sums(storage, call_where, period, lines, currencies), names, _CALL_SUMS).items():
        sides.setdefault(place, {}).update(row)
    compared = [{**dict(zip(names, place, strict=True)), **_compared(row, price_book)} for place, row in sides.items()]
    return _frame(compared, keys, period)


def _checked(keys: Sequence[str]) -> str | None:
    known = [*PERIODS, "provider", "model"]
    for name in keys:
        if name not in known:
            raise InvalidValue(f"by={name!r} is nothing that a bill is split by{did_you_mean(str(name), known)}")
    periods = [name for name in keys if name in PERIODS]
    if len(periods) > 1 or len(set(keys)) < len(keys):
        raise InvalidValue(f"by={list(keys)!r}: give each name once, and at most one of {', '.join(PERIODS)}")
    return periods[0] if periods else None


# The two sides

TOLD = ("input_tokens", *(f"{name}_tokens" for name in CLASSES))
_BILL_SUMS = ("billed_amount", "billed_usd", *(f"billed_{name}" for name in (*TOLD, *CLASSES)), "by_class")
_CALL_SUMS = ("calls", "unpriced_calls", *LEDGER_SUMS)


def _bill_lines(
    storage: Storage, where: Sequence[Condition], period: str | None, rates: Mapping[str, float]
) -> list[dict[str, Any]]:
    rows = storage.rows(BILL, where=where, order_by=["at", "bill_key"])
    lines = []
    for row in rows:
        hours = (row["ends_at"] - row["at"]).total_seconds() / 3_600
        if period is not None and hours > PERIOD_HOURS[period]:
            longer = next((name for name, most in PERIOD_HOURS.items() if hours <= most), None)
            remedy = f"by=['{longer}', …]" if longer else "by=['provider', 'model']"
            raise InvalidValue(f"the bill of {row['provider']} has lines of {hours / 24:.0f} days: give {remedy}")
        rate = 1.0 if row["currency"] == "USD" else rates.get(row["currency"], float("nan"))
        model, provider = _canonical(row["model"], row["provider"])
        told = {f"billed_{name}": row[name] for name in TOLD}
        if row["token_class"] is not None:
            told |= {"by_class": 1, f"billed_{row['token_class']}": row["amount"] * rate}
        lines.append(
            {
                "period": _period(row["at"], period),
                "provider": provider,
                "model": model,
                "currency": row["currency"],
                "billed_amount": row["amount"],
                "billed_usd": row["amount"] * rate,
                "at": row["at"],
                "ends_at": row["ends_at"],
                **told,
            }
        )
    return lines


def _canonical(model: str | None, provider: str | None) -> tuple[str | None, str]:
    """Return the name under which both sides know a model, and whose it is."""
    place = "unknown" if provider is None else provider_id(provider) or provider.lower()
    if model is None:
        return None, place
    entry, found = find_entry(model, provider)
    if entry is not None:
        return entry.id, found or place
    entry, _ = find_entry(model, None)
    return (model.rpartition("/")[2].lower() if entry is None else entry.id), place


def _period(at: Any, period: str | None) -> Any:
    import pandas as pd

    if period is None:
        return None
    stamp = pd.Timestamp(at)
    if period == "hour":
        return stamp.floor("h")
    day = stamp.normalize()
    if period == "day":
        return day
    return day - pd.Timedelta(days=day.weekday()) if period == "week" else day.replace(day=1)


def _currencies(lines: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the currency of each provider's bill; of one in several the first."""
    found: dict[str, str] = {}
    for line in lines:
        found.setdefault(line["provider"], line["currency"])
    return found


def _call_sums(
    storage: Storage,
    where: Sequence[Condition],
    period: str | None,
    lines: Sequence[Mapping[str, Any]],
    currencies: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Return the sums of the calls that the bill is about: those of its providers in the time that it covers."""
    found = []
    spans = {
        name: (min(own, key=lambda line: line["at"])["at"], max(line["ends_at"] for line in own))
        for name in currencies
        if (own := [line for line in lines if line["provider"] == name])
    }
    groups = [Group("provider"), Group("model"), *([Group("at", freq=PERIODS[period])] if period else [])]
    measures = [
        Measure("calls", "count"),
        Measure("priced", "count", ("cost_actual_usd", "cost_estimated_usd")),
        Measure("last_at", "max", ("at",)),
    ]
    measures += [Measure(name, "sum", columns) for name, columns in LEDGER_SUMS.items()]
    for span in sorted(set(spans.values())):
        within = [*where, Condition("at", ">=", span[0]), Condition("at", "<", span[1])]
        sums = storage.aggregate(TABLE, by=groups, measures=measures, where=within)
        for cells in zip(*sums.values(), strict=True):
            row = dict(zip(sums, cells, strict=True))
            model, provider = _canonical(row["model"], row["provider"])
            if spans.get(provider) == span:
                place = {
                    "period": _period(row["period"], period) if period else None,
                    "model": model,
                    "provider": provider,
                }
                unpriced = row["calls"] - row["priced"]
                found.append({**row, **place, "currency": currencies[provider], "unpriced_calls": unpriced})
    return found


def _sums(
    rows: Iterable[Mapping[str, Any]], names: Sequence[str], measures: Sequence[str]
) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Add rows up by their names; a sum of nothing is None. `at` is one of the times."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        sums = found.setdefault(tuple(row[name] for name in names), dict.fromkeys(measures))
        for name in measures:
            if row.get(name) is not None:
                sums[name] = row[name] if sums[name] is None else sums[name] + row[name]
        sums["at"] = row.get("at") or row.get("last_at")
        sums["priced_as"] = (row["model"], row["provider"])
    return found


# The difference


def _compared(row: Mapping[str, Any], price_book: PriceBook) -> dict[str, Any]:
    nothing = float("nan")
    on_bill, in_ledger = "billed_usd" in row, "calls" in row
    recorded = (row.get("recorded_usd") or 0.0) if in_ledger else 0.0
    billed = row["billed_usd"] if on_bill else 0.0
    difference = billed - recorded
    effects, counts = _effects(row, price_book) if on_bill else _missing(row)
    known = not any(value != value for value in effects.values())
    rest = difference - sum(effects.values()) if known else nothing
    return {
        "calls": row.get("calls") or 0,
        "unpriced_calls": row.get("unpriced_calls") or 0,
        "estimated_usd": row.get("estimated_usd") if in_ledger else 0.0,
        "recorded_usd": recorded,
        "billed_amount": row["billed_amount"] if on_bill else 0.0,
        "billed_usd": billed,
        "difference_usd": difference,
        **{f"{name}_usd": value for name, value in effects.items()},
        "price_usd": rest,
        "unexplained_usd": 0.0 if known else difference,
        **{f"{name}_tokens_difference": value for name, value in counts.items()},
        "on_bill": on_bill,
        "in_ledger": in_ledger,
    }


def _missing(row: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the effects where the bill has nothing: all that was estimated, and minus all tokens."""
    ours = _classes(row)
    return {name: -(row.get(f"{name}_cost") or 0.0) for name in CLASSES}, {name: -ours[name] for name in CLASSES}


def _classes(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the ledger's tokens by class; its input has the cache in it."""
    counted = {
        name: float(row.get(name) or 0)
        for name in ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
    }
    read, write, thought = counted["cache_read_tokens"], counted["cache_write_tokens"], counted["reasoning_tokens"]
    return {
        "uncached_input": counted["input_tokens"] - read - write,
        "cache_read": read,
        "cache_write": write,
        "output": counted["output_tokens"] - thought,
        "reasoning": thought,
    }


def _billed_classes(
    row: Mapping[str, Any], ours: Mapping[str, float], prices: Mapping[str, float]
) -> dict[str, float] | None:
    """Return the bill's tokens by class, None where it tells none; a class that it leaves open is as in the ledger."""
    found = {name: row.get(f"billed_{name}_tokens") for name in CLASSES}
    if row.get("by_class"):
        # A line for each class: what has no line was not billed, and an amount without a count stands for tokens.
        for name in CLASSES:
            amount = row.get(f"billed_{name}")
            if found[name] is None:
                found[name] = 0.0 if not amount else amount / prices[name] if prices[name] else float("nan")
        if row.get("billed_reasoning") is None:
            found["reasoning"] = ours["reasoning"]
            found["output"] = (found["output"] or 0.0) - ours["reasoning"]
        return {name: float(value or 0.0) for name, value in found.items()}
    total = row.get("billed_input_tokens")
    if total is None and all(value is None for value in found.values()):
        return None
    theirs = {name: ours[name] if value is None else float(value) for name, value in found.items()}
    if found["uncached_input"] is None and total is not None:
        theirs["uncached_input"] = float(total) - theirs["cache_read"] - theirs["cache_write"]
    if found["output"] is not None:
        theirs["output"] -= theirs["reasoning"]
    return theirs


def _effects(row: Mapping[str, Any], price_book: PriceBook) -> tuple[dict[str, float], dict[str, float]]:
    """Return what each class's difference in tokens costs, and the differences; NaN where the bill has no counts."""
    ours = _classes(row)
    prices = _prices(row, ours, price_book)
    theirs = _billed_classes(row, ours, prices)
    if theirs is None:
        return dict.fromkeys(CLASSES, float("nan")), dict.fromkeys(CLASSES, float("nan"))
    more = {name: theirs[name] - ours[name] for name in CLASSES}
    effects, left = dict.fromkeys(CLASSES, 0.0), dict(more)
    for taken, given in EXCHANGED:
        moved = _moved(left[taken], left[given])
        left[taken], left[given] = left[taken] - moved, left[given] + moved
        if moved:
            effects[taken] += moved * (prices[taken] - prices[given])
    for name, tokens in left.items():
        if tokens:
            effects[name] += tokens * prices[name]
    return effects, more


def _moved(taken: float, given: float) -> float:
    """Return how many tokens one side has in the one class, and the other in the other."""
    if taken * given >= 0:
        return 0.0
    return min(taken, -given) if taken > 0 else max(taken, -given)


def _prices(row: Mapping[str, Any], ours: Mapping[str, float], price_book: PriceBook) -> dict[str, float]:
    """Return USD per token by class: what the ledger's estimate took, else the price of the time; NaN if unknown."""
    found: dict[str, float] = {}
    model, provider = row["priced_as"]
    for name in CLASSES:
        cost = row.get(f"{name}_cost")
        if ours[name] and cost:
            found[name] = cost / ours[name]
            continue
        whole = "input_tokens" if name in CLASSES[:3] else "output_tokens"
        tokens = {"input_tokens": 0, whole: PROBE_TOKENS}
        if name not in ("uncached_input", "output"):
            tokens[f"{name}_tokens"] = PROBE_TOKENS
        price = price_book.price(model=model, provider=provider, at=row["at"], **tokens) if model else None
        found[name] = float("nan") if price is None else price.cost_usd / PROBE_TOKENS
    return found


# The frame


def _frame(compared: Sequence[Mapping[str, Any]], keys: Sequence[str], period: str | None) -> pd.DataFrame:
    import pandas as pd

    columns = reconciliation_columns(keys)
    if not compared:
        return column_frame({}, columns)
    rows = pd.DataFrame(compared).rename(columns={"period": period or "period"})
    places = rows.groupby([*keys, "currency"], dropna=False, sort=True)
    # What is unknown in one part is in unexplained_usd, and does not hide the rest.
    sums = places[[*SUMS, *EFFECTS, *COUNTS]].sum(min_count=1).reset_index()
    flags = places[["on_bill", "in_ledger"]].any().reset_index(drop=True)
    sums[list(EFFECTS)] = sums[list(EFFECTS)].fillna(0.0).where(sums["difference_usd"].notna(), float("nan"))
    verdicts = [
        _verdict(row, flag) for row, flag in zip(sums.to_dict("records"), flags.to_dict("records"), strict=True)
    ]
    sums["explained_by"], sums["explained_share"] = zip(*verdicts, strict=True)
    return column_frame({name: sums[name] for name in columns}, columns)


def _verdict(row: Mapping[Any, Any], flags: Mapping[Any, Any]) -> tuple[str, float]:
    difference = row["difference_usd"]
    if difference != difference:
        return f"no rate for {row['currency']}", float("nan")
    agreed = abs(difference) <= max(AGREED_USD, AGREED_SHARE * abs(row["billed_usd"]))
    if not (flags["on_bill"] and flags["in_ledger"]) and not (agreed and not row["unpriced_calls"]):
        return "not in the ledger" if flags["on_bill"] else "not on the bill", 1.0
    if agreed:
        return "agrees", float("nan")
    largest = max(EFFECTS, key=lambda name: abs(row[name]))
    if largest == "unexplained_usd":
        return ("calls without a price" if row["unpriced_calls"] else "no token counts on the bill"), float("nan")
    return largest.removesuffix("_usd").replace("_", " "), row[largest] / difference
