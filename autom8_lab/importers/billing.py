"""What a provider billed: its export of costs, line by line, each amount with its currency.

A line is known by what it is about (time, model, description, project …), not by its amount: a bill that is exported
again when more has been billed renews its lines.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, tzinfo
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from ..errors import InvalidValue, did_you_mean
from ..records import Condition
from ..validation import shortened
from .mapping import columns_of, plain
from .rows import SAMPLE_ROWS, cell, zone_of
from .tables import ENDINGS
from .values import EARLIEST, count, first, instant, label, number, text

if TYPE_CHECKING:
    from ..storage import Storage
    from .jobs import Job
    from .report import ImportReport

TABLE = "billing"
BATCH_ROWS = 5_000
FAR_AHEAD = timedelta(days=366)  # what is paid in advance is billed before it begins
CLASSES = ("uncached_input", "cache_read", "cache_write", "output", "reasoning")
TOKENS = ("input_tokens", *(f"{name}_tokens" for name in CLASSES))
# The names of OpenAI's, Anthropic's, OpenRouter's and FOCUS exports among them (https://focus.finops.org).
COMMON = {
    "at": "at date day usage_date usage_date_utc start_time_iso start_time bucket_start period_start charge_period_start",
    "ends_at": "ends_at end_time_iso end_time bucket_end period_end charge_period_end",
    "model": "model model_id model_name sku sku_id",
    "description": "description line_item charge_description usage_type item",
    "token_class": "token_class token_type",
    "amount": "amount amount_value cost_usd amount_usd billed_cost cost total_cost total usd spend value",
    "currency": "currency amount_currency billing_currency",
    "calls": "calls requests num_model_requests n_requests request_count",
    "quantity": "quantity consumed_quantity usage_quantity token_count tokens",
    "input_tokens": "input_tokens prompt_tokens",
    "uncached_input_tokens": "uncached_input_tokens input_uncached_tokens usage_input_tokens_no_cache",
    "cache_read_tokens": "cache_read_tokens cached_tokens input_cached_tokens cache_read_input_tokens"
    " usage_input_tokens_cache_read",
    "cache_write_tokens": "cache_write_tokens cache_creation_input_tokens input_cache_write_tokens",
    "output_tokens": "output_tokens completion_tokens usage_output_tokens",
    "reasoning_tokens": "reasoning_tokens",
}
FIELDS = tuple(COMMON)
# Cached before input: "cached input" is a read. A word of these in a line's class or description says what it is about.
WORDS = (
    ("cache_write", re.compile(r"cache[ _-]?(write|creation)")),
    ("cache_read", re.compile(r"cache[ _-]?(read|hit)|cached")),
    ("reasoning", re.compile(r"reasoning|thinking")),
    ("output", re.compile(r"output|completion")),
    ("uncached_input", re.compile(r"input|prompt")),
)
LINE_ITEM = re.compile(
    r"(?P<model>[^,|]+?)\s*[,|]\s*(?P<item>.+)"
)  # as OpenAI writes "gpt-4o-2024-08-06, cached input"


def import_bill(
    job: Job, bill: Any, *, provider: str, mapping: Mapping[str, str] | None, currency: str | None, timezone: str
) -> ImportReport:
    """Import the lines of a bill, or renew those that are there."""
    zone = zone_of(timezone)
    for file, rows in job.tables(bill, endings=ENDINGS):
        sample = list(islice(rows, SAMPLE_ROWS))
        columns = columns_of(row for _, row in sample)
        if not columns and not sample:
            continue
        chosen = _mapping(mapping, columns)
        job.report.mapping = chosen
        job.report.unused_columns = [name for name in columns if name not in chosen.values()]
        latest = job.now() + FAR_AHEAD
        reader = _BillReader(chosen, columns, provider=provider, currency=currency, zone=zone, latest=latest)
        lines = _lines(job, chain(sample, rows), reader, file)
        while batch := list(islice(lines, BATCH_ROWS)):
            _record(job, batch)
    return job.report


def _mapping(given: Mapping[str, str] | None, columns: list[str]) -> dict[str, str]:
    if given is None:
        known = {plain(name): name for name in reversed(columns)}
        places = {
            field: next((known[name] for name in names.split() if name in known), None)
            for field, names in COMMON.items()
        }
        chosen = {field: name for field, name in places.items() if name is not None}
    else:
        chosen = {str(field): str(column) for field, column in given.items()}
    for field, column in chosen.items():
        if field not in FIELDS:
            raise InvalidValue(f"mapping has the field {field!r}{did_you_mean(field, FIELDS)}")
        if column not in columns:
            raise InvalidValue(f"mapping[{field!r}]={shortened(column)} is no column{did_you_mean(column, columns)}")
    missing = [field for field in ("at", "amount") if field not in chosen]
    if missing:
        raise InvalidValue(
            f"no column looks like {' or '.join(missing)}: give mapping={{'{missing[0]}': …}} with the columns {columns}"
        )
    return chosen


def _lines(job: Job, rows: Any, reader: _BillReader, file: str | None) -> Iterator[dict[str, Any]]:
    for place, row in rows:
        job.report.add("read")
        try:
            if isinstance(row, InvalidValue):
                raise row
            yield reader(row)
        except InvalidValue as exc:
            job.report.refuse(file, place, str(exc))


class _BillReader:
    def __init__(
        self,
        mapping: Mapping[str, str],
        columns: list[str],
        *,
        provider: str,
        currency: str | None,
        zone: tzinfo,
        latest: datetime,
    ) -> None:
        self._mapping = mapping
        self._others = [name for name in columns if name not in mapping.values()]
        self._provider = provider
        self._currency = currency or ("USD" if plain(mapping["amount"]).endswith("usd") else None)
        self._zone = zone
        self._latest = latest
        self._seen: Counter[str] = Counter()

    def __call__(self, row: Any) -> dict[str, Any]:
        if not isinstance(row, Mapping):
            raise InvalidValue(f"a line is {shortened(row)}: give a dict, or a DataFrame")
        given = {field: cell(row, column) for field, column in self._mapping.items()}
        start = instant(given.get("at"), "at", zone=self._zone)
        amount = number(given.get("amount"), "amount")
        if start is None or amount is None:
            raise InvalidValue("a line without a time or an amount")
        if not EARLIEST <= start <= self._latest:
            raise InvalidValue(f"at={start.isoformat()} is no time of a bill: its writer's clock or format is another")
        ends = instant(given.get("ends_at"), "ends_at", zone=self._zone)
        model, item = _model_and_item(given)
        what = _class_of(first(label(str(given["token_class"])) if given.get("token_class") else None, item))
        line = {
            "at": start,
            "ends_at": ends if ends is not None and ends > start else _day_after(start, self._zone),
            "provider": self._provider,
            "model": model,
            "description": item,
            "token_class": what,
            "currency": self._currency_of(given),
            "metadata": {name: value for name in self._others if (value := _note(cell(row, name))) is not None},
        }
        line["source_id"] = self._identity(line)
        return {**line, "amount": amount, "calls": count(given.get("calls"), "calls"), **_tokens(given, what)}

    def _currency_of(self, given: Mapping[str, Any]) -> str:
        found = text(given.get("currency"), "currency") or self._currency
        if found is None:
            raise InvalidValue("an amount without a currency: give currency='USD', or whichever it is")
        return found.upper()

    def _identity(self, line: Mapping[str, Any]) -> str:
        about = json.dumps({**line, "at": str(line["at"]), "ends_at": str(line["ends_at"])}, sort_keys=True)
        name = hashlib.sha256(about.encode(errors="replace")).hexdigest()[:24]
        self._seen[name] += 1
        return name if self._seen[name] == 1 else f"{name}-{self._seen[name]}"


def _day_after(start: datetime, zone: tzinfo) -> datetime:
    """Return the end of a line that says only when it begins: a day later, as the clocks of its zone go."""
    local = start.astimezone(zone).replace(tzinfo=None) + timedelta(days=1)
    return local.replace(tzinfo=zone).astimezone(start.tzinfo)


def _model_and_item(given: Mapping[str, Any]) -> tuple[str | None, str | None]:
    model, item = text(given.get("model"), "model"), given.get("description")
    item = label(str(item)) if item not in (None, "") and item == item else None
    found = LINE_ITEM.fullmatch(item) if item and model is None else None
    if found is not None and _class_of(found["item"]) is not None:
        return text(found["model"], "model"), found["item"]
    return model, item


def _class_of(words: str | None) -> str | None:
    return next((name for name, pattern in WORDS if words and pattern.search(words.lower())), None)


def _note(value: Any) -> Any:
    """Return what tells a line from others; numbers are measures, and may change."""
    return label(value) if isinstance(value, str) and not _is_number(value) else None


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _tokens(given: Mapping[str, Any], what: str | None) -> dict[str, int | None]:
    found = {name: count_of(given.get(name), name) for name in TOKENS}
    quantity = count_of(given.get("quantity"), "quantity")
    if quantity is not None and what is not None and found[f"{what}_tokens"] is None:
        found[f"{what}_tokens"] = quantity
    return found


def count_of(value: Any, name: str) -> int | None:
    """Return a number of tokens of many calls; None for nothing. Raises `InvalidValue`."""
    found = number(value, name)
    if found is not None and (found < 0 or found > 2**62):
        raise InvalidValue(f"{name}={shortened(value)} is no number of tokens")
    return None if found is None else round(found)


# Recording


def _record(job: Job, lines: list[dict[str, Any]]) -> None:
    storage, measures = job.storage, ["amount", "calls", *TOKENS]
    stored = {
        row["source_id"]: row
        for row in storage.rows(
            TABLE,
            where=[
                Condition("provider", "=", lines[0]["provider"]),
                Condition("source_id", "in", [line["source_id"] for line in lines]),
            ],
            columns=["source_id", *measures],
        )
    }
    new = [line for line in lines if line["source_id"] not in stored]
    changed = [
        line
        for line in lines
        if line["source_id"] in stored and any(stored[line["source_id"]][name] != line[name] for name in measures)
    ]
    job.report.add("new", len(new))
    job.report.add("updated", len(changed))
    job.report.add("already_there", len(lines) - len(new) - len(changed))
    if not job.report["dry_run"]:
        _write(storage, new, changed, measures, job.now())


def _write(
    storage: Storage, new: list[dict[str, Any]], changed: list[dict[str, Any]], measures: list[str], now: datetime
) -> None:
    with storage.transaction():
        storage.insert(TABLE, [{**line, "updated_at": now} for line in new], ignore_existing=True)
        for line in changed:
            where = [Condition("provider", "=", line["provider"]), Condition("source_id", "=", line["source_id"])]
            storage.update(TABLE, where, {**{name: line[name] for name in measures}, "updated_at": now})
