"""A file of JSON lines to an empty lab: all of it, checked line by line, or nothing."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..care import Bar
from ..contexts import text_is_sound
from ..errors import InvalidValue, LabNotFound, NewerSchema
from ..records import Condition, Report
from ..validation import path_value
from .lines import CHUNKS, CONTEXTS, EMBEDDINGS, IDENTITY, SETS, VERSION, fields_of, header_of, opened, row_of

if TYPE_CHECKING:
    from ..storage import Storage
    from ..storage.base import Row, Unit

ROWS_AT_ONCE = 1_000
BYTES_AT_ONCE = 4_000_000
MOST_BYTES_OF_A_LINE = 512 * 2**20
Line = tuple[int, dict[str, Any], int]  # number, content, bytes


def import_export(storage: Storage, path: str | os.PathLike[str], *, at: datetime, progress: bool | None) -> Report:
    """See `Lab.import_export`."""
    started = time.perf_counter()
    source = path_value(path)
    if not source.is_file():
        raise LabNotFound(f"no export at {source}: al.export(path) makes one")
    reading = _Reading(storage, source)
    reading.refuse()
    with storage.transaction() as unit, Bar(progress, unit="bytes") as bar:
        reading.read(unit, bar)
        details = {"path": os.fspath(source.absolute()), "sha256": reading.digest.hexdigest()}
        storage.insert("care_log", [{"at": at, "kind": "import", "details": details}])
    seconds = round(time.perf_counter() - started, 3)
    return Report(
        path=os.fspath(source), rows=reading.counts.total(), seconds=seconds, **dict(sorted(reading.counts.items()))
    )


class _Reading:
    """One import, inside a transaction."""

    def __init__(self, storage: Storage, source: Path) -> None:
        self.counts: Counter[str] = Counter()
        self.digest = hashlib.sha256()
        self._storage = storage
        self._source = source
        self._shapes = storage.tables()
        self._fields = {table: fields_of(table, shape) for table, shape in self._shapes.items()}
        self._sets: dict[int, int] = {}
        self._superseded = False

    def refuse(self) -> None:
        """Refuse a newer export, and a lab that is not empty."""
        header = header_of(self._source)
        version, schema = header.get("version"), header.get("schema")
        known = [name for name, _ in self._storage.migration_status()["applied"]]
        if not isinstance(version, int) or version > VERSION or schema not in known:
            raise NewerSchema(
                f"{self._source} is an export of version {version} after {schema}, and this autom8_lab reads version "
                f"{VERSION} up to {known[-1]}: pip install -U autom8_lab"
            )
        for table in self._shapes:
            if count := self._storage.count(table):
                raise InvalidValue(
                    f"the lab at {self._storage.path} has {count:,} rows in {table}: import into an empty one, "
                    "such as al.open('new.db')"
                )

    def read(self, unit: Unit, bar: Bar) -> None:
        """Read all lines into the lab. Raises `InvalidValue` naming the line."""
        done = 0
        for table, batch in self._batches():
            rows = []
            for number, line, size in batch:
                done += size
                rows.append(self._row(table, number, line))
            self._insert(table, rows)
            self.counts[table] += len(rows)
            unit.forget()
            bar.tell(done, max(done, self._source.stat().st_size))
        if self._superseded:
            self._supersede(unit)

    def _row(self, table: str, number: int, line: dict[str, Any]) -> Row:
        try:
            row = row_of(line, self._fields[table])
            if table == CONTEXTS and not text_is_sound(row["content"], row["content_hash"]):
                raise InvalidValue(f"the text of {row['id']!r} does not fit its hash")
            if table == EMBEDDINGS:
                _refuse_vector(row)
        except (InvalidValue, KeyError) as exc:
            what = f"{exc} is missing" if isinstance(exc, KeyError) else str(exc)
            raise InvalidValue(f"{self._source}, line {number}: {what}") from exc
        return row

    def _insert(self, table: str, rows: list[Row]) -> None:
        if table == CONTEXTS:
            # One may be superseded by a context that comes later: these links are made at the end.
            self._superseded = self._superseded or any(row.get("superseded_by") for row in rows)
            rows = [{**row, "superseded_by": None} for row in rows]
        elif table == SETS:
            self._insert_sets(rows)
            return
        elif table == CHUNKS:
            rows = self._with_keys(rows)
        # Lines of an older version may lack columns: each kind of line is inserted on its own.
        for _, alike in groupby(rows, key=lambda row: row.keys()):
            self._storage.insert(table, list(alike))

    def _insert_sets(self, rows: list[Row]) -> None:
        for row in rows:
            ordinal = row.pop("set")
            self._storage.insert(SETS, [row])
            where = [Condition(name, "=", row[name]) for name in IDENTITY[SETS]]
            self._sets[ordinal] = self._storage.rows(SETS, where=where, columns=["set_key"])[0]["set_key"]

    def _with_keys(self, rows: list[Row]) -> list[Row]:
        ids = sorted({row["context_id"] for row in rows})
        where = [Condition("id", "in", ids)]
        found = self._storage.rows(CONTEXTS, where=where, columns=["id", "context_key"])
        keys = {row["id"]: row["context_key"] for row in found}
        ready = []
        for row in rows:
            context_id, ordinal = row.pop("context_id"), row.pop("set")
            if context_id not in keys or ordinal not in self._sets:
                raise InvalidValue(f"{self._source}: a chunk of {context_id!r} in set {ordinal}, which are not there")
            ready.append({**row, "context_key": keys[context_id], "set_key": self._sets[ordinal]})
        return ready

    def _supersede(self, unit: Unit) -> None:
        pairs: list[tuple[str, str]] = []
        for _, line, _ in self._lines():
            if line.get("table") == CONTEXTS and line.get("superseded_by") is not None:
                pairs.append((line["id"], line["superseded_by"]))
            if len(pairs) >= ROWS_AT_ONCE or "end" in line:
                columns = {"id": [pair[0] for pair in pairs], "superseded_by": [pair[1] for pair in pairs]}
                self._storage.update_each(CONTEXTS, columns, key="id")
                unit.forget()
                pairs = []

    # Lines

    def _batches(self) -> Iterator[tuple[str, list[Line]]]:
        """Yield lines of one table, so many that they are no burden; see that the export is whole."""
        batch: list[Line] = []
        size, ended = 0, False
        for number, line, length in self._lines(digest=True):
            table = line.get("table")
            if batch and (table != batch[0][1]["table"] or len(batch) >= ROWS_AT_ONCE or size > BYTES_AT_ONCE):
                yield batch[0][1]["table"], batch
                batch, size = [], 0
            if "end" in line:
                self._compare(line)
                ended = True
            elif table not in self._fields:
                raise InvalidValue(f"{self._source}, line {number}: there is no table {table!r} in this version")
            else:
                batch.append((number, line, length))
                size += length
        if not ended:
            raise InvalidValue(f"{self._source} ends in the middle: copy or export it again")

    def _compare(self, end: dict[str, Any]) -> None:
        if end.get("sha256") != self.digest.hexdigest():
            raise InvalidValue(
                f"{self._source} is not as it was written (its SHA-256 is another): copy or export it again"
            )

    def _lines(self, *, digest: bool = False) -> Iterator[Line]:
        """Yield the lines after the header, the end included."""
        try:
            with opened(self._source, "rb") as file:
                header = file.readline()
                if digest:
                    self.digest.update(header)
                number = 1
                while text := file.readline(MOST_BYTES_OF_A_LINE):
                    number += 1
                    line = json.loads(text)
                    if not isinstance(line, dict):
                        raise InvalidValue(f"{self._source}, line {number}: a line is a JSON object")
                    if digest and "end" not in line:
                        self.digest.update(text)
                    yield number, line, len(text)
                    if "end" in line:
                        return
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise InvalidValue(f"{self._source}, line {number}: {exc}: copy or export it again") from exc
        except (EOFError, gzip.BadGzipFile, zlib.error, OSError) as exc:
            raise InvalidValue(
                f"{self._source} ends in the middle or is damaged ({exc}): copy or export it again"
            ) from exc


def _refuse_vector(row: Row) -> None:
    import numpy as np

    from ..vectors.similarity import checked

    if len(row["vector"]) != 4 * row["dimensions"]:
        raise InvalidValue(f"vector has {len(row['vector'])} bytes, and {row['dimensions']} dimensions need four each")
    checked(np.frombuffer(row["vector"], dtype="<f4"), dimensions=row["dimensions"])
