"""Any table of calls: a DataFrame, rows, or a CSV, JSON or Parquet file, with a mapping of its columns."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import UTC, tzinfo
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ..collecting import seldom_collected
from ..errors import InvalidValue, NotFound
from ..validation import shortened
from .mapping import REQUIRED, checked, columns_of, guessed
from .recording import Entry
from .tables import Placed, placed_in, placed_rows
from .values import amount, count, counts_of, document, first, instant, label, milliseconds, number, outcome, text

if TYPE_CHECKING:
    from .jobs import Job
    from .report import ImportReport

SAMPLE_ROWS = 200
NAMES = ("model", "provider", "agent", "decision_id")
# Rows without an id that say the same are told apart as far as they stand near one another.
REMEMBERED_ROWS = 100_000


@seldom_collected()
def import_rows(
    job: Job, rows: Any, *, mapping: Mapping[str, str] | str | None, source: str, timezone: str
) -> ImportReport:
    """Import the calls in a table; without a mapping, say which one would be used."""
    zone = zone_of(timezone)
    path = Path(rows).expanduser() if isinstance(rows, str | Path) else None
    if path is not None and not path.is_file():
        raise NotFound(f"no file at {path}: check the path")
    size = path.stat().st_size if path is not None else 0
    with job.bar(size, "B") as bar:
        placed = placed_rows(rows) if path is None else placed_in(path, told=bar.update)
        return _import(job, path, placed, mapping=mapping, source=source, zone=zone)


def _import(
    job: Job, path: Path | None, placed: Iterator[Placed], *, mapping: Any, source: str, zone: tzinfo
) -> ImportReport:
    sample = list(islice(placed, SAMPLE_ROWS))
    columns = columns_of(row for _, row in sample)
    guess = guessed(columns)
    own = bool(columns) and all(field == column for field, column in guess.items()) and len(guess) == len(columns)
    chosen = guess if mapping is None or mapping == "guess" else checked(mapping, columns)
    job.report.mapping = dict(chosen)
    job.report.unused_columns = [name for name in columns if name not in chosen.values()]
    if mapping is None and not own and columns:
        job.preview("nothing was imported: call again with mapping='guess', or with a mapping of your own")
    missing = [field for field in REQUIRED if field not in chosen] if columns else []
    if missing:
        raise InvalidValue(
            f"no column looks like {' or '.join(missing)}: give mapping={{'{missing[0]}': …}} with the columns {columns}"
        )
    if path is not None:
        job.report.add("files")
        job.cursors = job.cursors.about([source, chosen, str(zone)])
        if not job.report["dry_run"] and job.is_done(path):
            return job.finished()
    reader = RowReader(chosen, source=source, zone=zone, texts=job.store_texts)
    file = None if path is None else path.name
    for place, row in chain(sample, placed):
        if isinstance(row, InvalidValue):
            job.recorder.refuse(row, file=file, place=place)
        else:
            job.take(reader, row, file=file, place=place)
        job.flush_if_full()
    if path is not None:
        job.done(path)
    return job.finished()


def zone_of(name: str) -> tzinfo:
    """Return a time zone by its name. Raises `InvalidValue`."""
    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError) as exc:
        raise InvalidValue(f"timezone={shortened(name)}: give a name such as 'UTC' or 'Europe/Berlin'") from exc


# What a row says


class RowReader:
    """Turns rows into calls by a mapping of fields to columns."""

    def __init__(self, mapping: Mapping[str, str], *, source: str, zone: tzinfo, texts: bool) -> None:
        self._mapping = dict(mapping)
        self._metadata = [(field[9:], column) for field, column in mapping.items() if field.startswith("metadata.")]
        self._source = source
        self._zone = zone
        self._texts = texts
        self._recent: deque[str] = deque()
        self._counts: dict[str, int] = {}

    def __call__(self, row: Any) -> Iterator[Entry]:
        """Yield the call of a row. Raises `InvalidValue`."""
        if type(row) is not dict and not isinstance(row, Mapping):
            raise InvalidValue(f"a row is {shortened(row)}: give a dict, or a DataFrame")
        given = {field: row[column] if column in row else cell(row, column) for field, column in self._mapping.items()}
        at = instant(given.get("at"), "at", zone=self._zone)
        call: dict[str, Any] = {
            "at": at,
            **{name: text(given[name], name) for name in NAMES if name in given},
            "operation": (text(given["operation"], "operation") if "operation" in given else None) or "chat",
            **_tokens(given),
            "latency_ms": self._duration(given, at, "latency_ms", "latency_s", "ended_at"),
            "ttft_ms": self._duration(given, at, "ttft_ms", "ttft_s", "first_token_at"),
            **{name: amount(given[name], name) for name in ("cost_actual_usd", "quality_score") if name in given},
            **_success(given),
            "metadata": self._notes(row) if self._metadata else None,
        }
        call = {name: value for name, value in call.items() if value is not None}
        call["source_id"] = text(given.get("source_id"), "source_id") or self._content_id(call)
        call["source"] = self._source
        yield Entry(call, {role: _spoken(given.get(role)) for role in ("prompt", "response")} if self._texts else {})

    def _notes(self, row: Mapping[Any, Any]) -> dict[str, Any]:
        found = {name: _note(cell(row, column)) for name, column in self._metadata}
        return {name: value for name, value in found.items() if value is not None}

    def _duration(self, given: Mapping[str, Any], at: Any, millis: str, seconds: str, moment: str) -> float | None:
        if millis in given and (found := amount(given[millis], millis)) is not None:
            return found
        if seconds in given and (found := amount(given[seconds], seconds)) is not None:
            return found * 1_000
        return milliseconds(at, instant(given[moment], moment, zone=self._zone)) if moment in given else None

    def _content_id(self, call: Mapping[str, Any]) -> str:
        """Return an id made of what a row says, which is the same whenever the row is imported."""
        content = json.dumps(call, sort_keys=True, default=str)
        name = hashlib.sha256(content.encode(errors="replace")).hexdigest()[:24]
        self._counts[name] = self._counts.get(name, 0) + 1
        self._recent.append(name)
        if len(self._recent) > REMEMBERED_ROWS:
            oldest = self._recent.popleft()
            self._counts[oldest] -= 1
            if not self._counts[oldest]:
                del self._counts[oldest]
        return name if self._counts[name] == 1 else f"{name}-{self._counts[name]}"


def cell(row: Mapping[Any, Any], column: str) -> Any:
    """Return a row's value in a column, or under a path of keys."""
    if column in row:
        return row[column]
    found: Any = row
    for key in column.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _tokens(given: Mapping[str, Any]) -> dict[str, int]:
    uncached = first(given.get("uncached_input_tokens"))
    if uncached is not None:
        given = {**given, "input_tokens": uncached}
    found = counts_of(given, input_without_cache=uncached is not None)
    total = count(given.get("total_tokens"), "total_tokens")
    for one, other in (("input_tokens", "output_tokens"), ("output_tokens", "input_tokens")):
        if total is not None and one not in found and found.get(other, total + 1) <= total:
            found[one] = total - found[other]
    return found


def _success(given: Mapping[str, Any]) -> dict[str, Any]:
    error = given.get("error_type")
    failed = label(error) if isinstance(error, str) else None if error is None else text(error, "error_type")
    said = outcome(first(given.get("success"), given.get("status")))
    return {"success": said, "error_type": failed if said is not True else None}


def _note(value: Any) -> Any:
    if isinstance(value, str):
        return label(value)
    return value if isinstance(value, bool | int) else None if number(value, "metadata") is None else float(value)


def _spoken(value: Any) -> Any:
    """Return the text of a prompt or answer; of a list of messages the last one's."""
    if isinstance(value, str) and not value.lstrip().startswith(("[", "{")):
        return value
    found = document(value) or value
    if isinstance(found, list) and found and isinstance(found[-1], Mapping) and "content" in found[-1]:
        return found[-1]["content"]
    if isinstance(found, Mapping):
        return found.get("content")
    return value if isinstance(value, str) else found
