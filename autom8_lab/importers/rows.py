"""Any table of calls: a DataFrame, rows, or a CSV, JSON or Parquet file, with a mapping of its columns."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ..drafts import rows_of
from ..errors import InvalidValue, LabError, NotFound
from ..validation import shortened
from .files import LINE_BYTES, json_values, lines, log_files, opened
from .mapping import REQUIRED, checked, columns_of, guessed
from .recording import Entry
from .values import amount, document, first, instant, label, milliseconds, number, outcome, text, token_counts

if TYPE_CHECKING:
    import pandas as pd

    from .jobs import Job
    from .report import ImportReport

SAMPLE_ROWS = 200
SLICE_ROWS = 10_000
# Rows without an id that say the same are told apart as far as they stand near one another.
REMEMBERED_ROWS = 100_000
ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
CSV_ENDINGS = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
Placed = tuple[str, Any]  # where a row stands, and the row or an InvalidValue


def import_rows(
    job: Job, rows: Any, *, mapping: Mapping[str, str] | str | None, source: str, timezone: str
) -> ImportReport:
    """Import the calls in a table; without a mapping, say which one would be used."""
    zone = zone_of(timezone)
    file, placed = _placed(rows)
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
    reader = RowReader(chosen, source=source, zone=zone, texts=job.store_texts)
    for place, row in chain(sample, placed):
        if isinstance(row, InvalidValue):
            job.recorder.refuse(row, file=file, place=place)
        else:
            job.take(reader, row, file=file, place=place)
        job.flush_if_full()
    return job.finished()


def zone_of(name: str) -> ZoneInfo:
    """Return a time zone by its name. Raises `InvalidValue`."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError) as exc:
        raise InvalidValue(f"timezone={shortened(name)}: give a name such as 'UTC' or 'Europe/Berlin'") from exc


# Where rows come from


def _placed(rows: Any) -> tuple[str | None, Iterator[Placed]]:
    if isinstance(rows, str | Path):
        path = Path(rows).expanduser()
        if not path.is_file():
            raise NotFound(f"no file at {path}: check the path")
        return path.name, _of_file(path)
    return None, _numbered(_of_frame(rows) if hasattr(rows, "iloc") else rows_of(rows))


def sources(rows: Any, *, endings: Sequence[str]) -> Iterator[tuple[str | None, Iterator[Placed]]]:
    """Yield the files that are given, or the one table, each with its rows and where they stand."""
    if isinstance(rows, str | Path):
        for path in log_files(rows, endings=endings):
            yield path.name, _of_file(path)
    else:
        yield _placed([rows] if isinstance(rows, Mapping) else rows)


def _numbered(rows: Iterable[Any]) -> Iterator[Placed]:
    for position, row in enumerate(rows):
        yield f"row {position}", row


def _of_frame(frame: pd.DataFrame) -> Iterator[Any]:
    if frame.columns.has_duplicates:
        raise InvalidValue(f"the frame has two columns {frame.columns[frame.columns.duplicated()][0]!r}: drop one")
    for start in range(0, len(frame), SLICE_ROWS):
        yield from frame.iloc[start : start + SLICE_ROWS].to_dict("records")


def _of_file(path: Path) -> Iterator[Placed]:
    name = path.name.lower()
    if name.endswith(CSV_ENDINGS):
        yield from _of_csv(path)
    elif name.endswith((".parquet", ".pq")):
        yield from _numbered(_of_parquet(path))
    else:
        with opened(path) as file:
            try:
                yield from json_values(file)
            except InvalidValue as exc:
                yield "", exc


def _of_csv(path: Path) -> Iterator[Placed]:
    refused: list[Placed] = []

    def texts() -> Iterator[str]:
        try:
            for line in lines(file):
                if line.content is None:
                    refused.append((f"line {line.number}", InvalidValue(line.refusal())))
                else:
                    yield line.content.decode("utf-8", errors="replace").removesuffix("\r") + "\n"
        except InvalidValue as exc:
            refused.append(("", exc))

    limit = csv.field_size_limit(LINE_BYTES)
    try:
        with opened(path) as file:
            source = texts()
            head = next((line for line in source if line.strip()), "")
            delimiter = max(",;\t|", key=head.count)
            header = [name.strip() for name in next(csv.reader([head], delimiter=delimiter), [])]
            if len(set(header)) < len(header):
                twice = next(name for name in header if header.count(name) > 1)
                raise InvalidValue(f"{path.name} has two columns {twice!r}: rename one")
            yield from _csv_rows(csv.reader(source, delimiter=delimiter), header, refused)
    finally:
        csv.field_size_limit(limit)


def _csv_rows(reader: Any, header: list[str], refused: list[Placed]) -> Iterator[Placed]:
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            yield from refused
            return
        except csv.Error as exc:
            yield f"line {reader.line_num + 1}", InvalidValue(f"not valid CSV: {exc}")
            continue
        if len(cells) == len(header):
            yield f"line {reader.line_num + 1}", dict(zip(header, cells, strict=True))
        elif cells:
            message = f"{len(cells)} cells where the header has {len(header)}"
            yield f"line {reader.line_num + 1}", InvalidValue(message)


def _of_parquet(path: Path) -> Iterator[Any]:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as exc:
        raise LabError("reading Parquet needs pyarrow: pip install 'autom8_lab[parquet]'") from exc
    try:
        with ParquetFile(path) as parquet:
            for batch in parquet.iter_batches(batch_size=SLICE_ROWS):
                yield from batch.to_pylist()
    except (OSError, ValueError) as exc:
        raise InvalidValue(f"{path.name} cannot be read as Parquet ({exc})") from exc


# What a row says


class RowReader:
    """Turns rows into calls by a mapping of fields to columns."""

    def __init__(self, mapping: Mapping[str, str], *, source: str, zone: ZoneInfo, texts: bool) -> None:
        self._mapping = dict(mapping)
        self._metadata = [(field[9:], column) for field, column in mapping.items() if field.startswith("metadata.")]
        self._source = source
        self._zone = zone
        self._texts = texts
        self._recent: deque[str] = deque()
        self._counts: dict[str, int] = {}

    def __call__(self, row: Any) -> Iterator[Entry]:
        """Yield the call of a row. Raises `InvalidValue`."""
        if not isinstance(row, Mapping):
            raise InvalidValue(f"a row is {shortened(row)}: give a dict, or a DataFrame")
        given = {field: cell(row, column) for field, column in self._mapping.items()}
        at = instant(given.get("at"), "at", zone=self._zone)
        call = {
            "at": at,
            **{name: text(given.get(name), name) for name in ("model", "provider", "agent", "decision_id")},
            "operation": text(given.get("operation"), "operation") or "chat",
            **_tokens(given),
            "latency_ms": self._duration(given, at, "latency_ms", "latency_s", "ended_at"),
            "ttft_ms": self._duration(given, at, "ttft_ms", "ttft_s", "first_token_at"),
            "cost_actual_usd": amount(given.get("cost_actual_usd"), "cost_actual_usd"),
            "quality_score": amount(given.get("quality_score"), "quality_score"),
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
        found = amount(given.get(millis), millis)
        if found is None and (length := amount(given.get(seconds), seconds)) is not None:
            found = length * 1_000
        return milliseconds(at, instant(given.get(moment), moment, zone=self._zone)) if found is None else found

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
    uncached = given.get("uncached_input_tokens")
    found = token_counts(
        input_tokens=first(uncached, given.get("input_tokens")),
        input_without_cache=first(uncached) is not None,
        **{
            name: given.get(name)
            for name in ("output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
        },
    )
    total = token_counts(input_tokens=given.get("total_tokens")).get("input_tokens")
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
