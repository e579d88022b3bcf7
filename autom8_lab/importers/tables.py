"""Tables: rows from a DataFrame, dicts, or a CSV, JSON, JSON lines or Parquet file, each with where it stands."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..drafts import rows_of
from ..errors import InvalidValue, LabError
from .files import LINE_BYTES, json_values, lines, opened

if TYPE_CHECKING:
    import pandas as pd

    Told = Callable[[int], Any] | None

SLICE_ROWS = 10_000
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
        yield from _numbered(_of_parquet(path))
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
