"""The format of an export: which columns a line has, how its values are written, and how they are read again.

A line is a JSON object: first a header, then a row each, at last the end with counts and a SHA-256 of all before it.
Row numbers that a back end gives and nobody knows stay behind; what they stood for is written in their place.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from ..errors import DamagedLab, InvalidValue, did_you_mean
from ..validation import shortened

if TYPE_CHECKING:
    from ..storage.base import TableShape

FORMAT, VERSION = "autom8_lab export", 1
CONTEXTS, CHUNKS, SETS, EMBEDDINGS = "context_registry", "context_chunks", "embedding_sets", "embeddings"
VECTOR_TABLES = (SETS, CHUNKS, EMBEDDINGS)
# Numbers of the back end's own, and what identifies the rows instead.
OWN_NUMBERS = {
    CONTEXTS: {"context_key"},
    CHUNKS: {"chunk_key", "context_key", "set_key"},
    SETS: {"set_key"},
    EMBEDDINGS: {"embedding_key"},
}
IDENTITY = {
    CONTEXTS: ("id",),
    SETS: ("model_id", "chunk_tokens", "chunk_overlap_tokens"),
    EMBEDDINGS: ("chunk_hash", "model_id"),
}
INSTEAD = {CHUNKS: {"context_id": "text", "set": "number"}, SETS: {"set": "number"}}


def ordered(tables: Mapping[str, TableShape]) -> list[str]:
    """Return the tables so that each comes after those that it refers to; else by name."""
    sorter = TopologicalSorter({name: sorted(shape.references - {name}) for name, shape in tables.items()})
    sorter.prepare()
    found: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        found += ready
        sorter.done(*ready)
    return found


def fields_of(table: str, shape: TableShape) -> dict[str, str]:
    """Return the fields of a table's lines with their kinds."""
    own = OWN_NUMBERS.get(table, set())
    return {**{name: kind for name, kind in shape.columns.items() if name not in own}, **INSTEAD.get(table, {})}


def line_of(content: Mapping[str, Any]) -> bytes:
    """Return a line: the keys in the order of the alphabet, but for the first one that is given."""
    first = next(iter(content))
    rest = {name: value for name, value in content.items() if name != first}
    text = json.dumps({first: content[first]}, ensure_ascii=False, allow_nan=False)
    if rest:
        body = json.dumps(rest, ensure_ascii=False, allow_nan=False, sort_keys=True)
        text = f"{text[:-1]}, {body[1:]}"
    return text.encode("utf-8") + b"\n"


def written(value: Any, *, table: str, column: str) -> Any:
    """Return a stored value as JSON has it."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, float) and not math.isfinite(value):
        raise DamagedLab(f"{table}.{column} holds {value}, which JSON has no word for: al.check() says where")
    return value


def read(value: Any, kind: str, *, field: str) -> Any:
    """Return a value of a line as it is stored. Raises `InvalidValue`."""
    if value is None:
        return None
    fits = {
        "text": isinstance(value, str),
        "number": isinstance(value, int | float) and not isinstance(value, bool),
        "flag": isinstance(value, bool),
        "document": isinstance(value, dict | list),
        "time": isinstance(value, str),
        "bytes": isinstance(value, str),
    }[kind]
    try:
        if fits and kind == "time":
            value = datetime.fromisoformat(value)
            fits = value.tzinfo is not None
        elif fits and kind == "bytes":
            value = base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        fits = False
    if not fits:
        raise InvalidValue(f"{field}={shortened(value)} is no {kind}")
    return value


def row_of(line: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
    """Return the row that a line holds. Raises `InvalidValue` for a field that is unknown or of the wrong kind."""
    for name in line:
        if name != "table" and name not in fields:
            raise InvalidValue(f"{line['table']} has no {name!r}{did_you_mean(name, fields)}")
    return {name: read(value, fields[name], field=name) for name, value in line.items() if name != "table"}


@contextmanager
def opened(path: Path, mode: str) -> Iterator[IO[bytes]]:
    """Open a file of lines, compressed where its name ends in .gz; the same lines always make the same bytes."""
    with path.open(mode) as file:
        if path.suffix != ".gz":
            yield file
            return
        with gzip.GzipFile(filename="", mode=mode, fileobj=file, mtime=0) as compressed:
            yield cast("IO[bytes]", compressed)


def header_of(path: Path) -> dict[str, Any]:
    """Return the first line of an export. Raises `InvalidValue` for another file."""
    try:
        with opened(path, "rb") as file:
            header = json.loads(file.readline(10_000))
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as exc:
        raise InvalidValue(f"{path} is no export of a lab: al.export(path) makes one") from exc
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise InvalidValue(f"{path} is no export of a lab: al.export(path) makes one")
    return header
