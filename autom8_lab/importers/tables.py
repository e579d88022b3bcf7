"""Tables: rows from a DataFrame, dicts, or a CSV, JSON, JSON lines or Parquet file, each with where it stands."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..drafts import rows_of
from ..errors import InvalidValue, LabError
from ..validation import shortened
from .files import CHUNK_BYTES, LINE_BYTES, json_values, lines, opened

if TYPE_CHECKING:
    import pandas as pd

    Told = Callable[[int], Any] | None

SLICE_ROWS = 10_000
BATCH_ROWS = 1_000  # of Parquet, whose columns may be whole prompts
ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
CSV_ENDINGS = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
Placed = tuple[str, Any]  # where a row stands, and the row or an InvalidValue


def placed_rows(rows: Any) -> Iterator[Placed]:
    """Yield the rows of a frame or of an iterable. Raises `InvalidValue` for what is neither."""
    return _numbered(_of_frame(rows) if hasattr(rows, "iloc") else rows_of(rows))


def _numbered(rows: Iterable[Any]) -> Iterator[Placed]:
    for position, row in enumerate(rows):
        yield f"row {position}", row


def _of_frame(frame: pd.DataFrame) -> Iterator[Any]:
    if frame.columns.has_duplicates:
        raise InvalidValue(f"the frame has two columns {frame.columns[frame.columns.duplicated()][0]!r}: drop one")
    for start in range(0, len(frame), SLICE_ROWS):
        yield from frame.iloc[start : start + SLICE_ROWS].to_dict("records")


def placed_in(path: Path, *, told: Told = None) -> Iterator[Placed]:
    """Yield the rows of a file and where they stand; `told` hears how many bytes were read."""
    name = path.name.lower()
    if name.endswith(CSV_ENDINGS):
        yield from _of_csv(path, told)
    elif name.endswith((".parquet", ".pq")):
        yield from _of_parquet(path)
    else:
        with opened(path, told=told) as file:
            try:
                yield from json_values(file)
            except InvalidValue as exc:
                yield "", exc


def _of_csv(path: Path, told: Told) -> Iterator[Placed]:
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
        with opened(path, told=told) as file:
            source = texts()
            head = next((line for line in source if line.strip()), "")
            delimiter = max(",;\t|", key=head.count)
            header = [name.strip() for name in next(csv.reader([head], delimiter=delimiter), [])]
            _refuse_twice(path, header)
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


def _refuse_twice(path: Path, names: list[str]) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidValue(f"{path.name} has two columns {twice!r}: rename one")


def _of_parquet(path: Path) -> Iterator[Placed]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as exc:
        raise LabError("reading Parquet needs pyarrow: pip install 'autom8_lab[parquet]'") from exc
    unreadable = (ArrowException, ArithmeticError, LookupError, OSError, ValueError)
    try:
        # So a group of rows is read page by page; as it is by default, all of it at once.
        file = ParquetFile(path, buffer_size=CHUNK_BYTES, pre_buffer=False)
    except unreadable as exc:
        raise InvalidValue(f"{path.name} cannot be read as Parquet ({_first_line(exc)}): write it again") from exc
    with file:
        _refuse_twice(path, file.schema_arrow.names)
        before = 0
        for group in range(file.num_row_groups):
            position = before
            before += file.metadata.row_group(group).num_rows
            try:
                for batch in file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], use_threads=False):
                    for row in _of_batch(batch, unreadable):
                        yield f"row {position}", row
                        position += 1
            except unreadable as exc:
                reason = f"cannot be read from here to row {before - 1} ({_first_line(exc)})"
                yield f"row {position}", InvalidValue(reason)


def _of_batch(batch: Any, unreadable: tuple[type[Exception], ...]) -> Iterator[Any]:
    """Yield the rows of a batch; one with a value that Python cannot hold comes as an `InvalidValue`."""
    try:
        yield from batch.to_pylist()
        return
    except unreadable:
        names, columns = batch.schema.names, batch.columns
    for place in range(batch.num_rows):
        row: dict[str, Any] = {}
        try:
            for name, column in zip(names, columns, strict=True):
                row[name] = column[place].as_py()
        except unreadable as exc:
            yield InvalidValue(f"{name}={shortened(column[place])} cannot be read ({_first_line(exc)})")
        else:
            yield row


def _first_line(exc: Exception) -> str:
    return next(iter(str(exc).splitlines()), type(exc).__name__)
