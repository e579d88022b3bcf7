"""A lab to a file of JSON lines: everything, as of one moment; the same lab always gives the same bytes."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ..care import Bar
from ..contexts import text_is_sound
from ..errors import DamagedLab, InvalidValue, UnusablePath
from ..records import Condition, Report
from ..validation import flag_value, path_value, shortened
from .lines import (
    CHUNKS,
    CONTEXTS,
    EMBEDDINGS,
    FORMAT,
    IDENTITY,
    SETS,
    VECTOR_TABLES,
    VERSION,
    fields_of,
    header_of,
    line_of,
    ordered,
    written,
)

if TYPE_CHECKING:
    from ..storage import Storage
    from ..storage.base import Row, TableShape

ROWS_AT_ONCE = 1_000
TEXTS_AT_ONCE = 50  # of contexts, which may be books


def export(storage: Storage, path: str | os.PathLike[str], *, vectors: bool, progress: bool | None) -> Report:
    """See `Lab.export`."""
    started = time.perf_counter()
    target, vectors = path_value(path), flag_value(vectors, "vectors")
    _refuse(storage, target)
    with (
        tempfile.TemporaryDirectory(prefix=".export-", dir=target.absolute().parent) as workplace,
        storage.snapshot(),
        Bar(progress, unit="rows") as bar,
    ):
        aside = Path(workplace) / target.name
        os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        writing = _Writing(storage, vectors=vectors)
        writing.write(aside, bar)
        os.replace(aside, target)
    return Report(
        path=os.fspath(target),
        file_bytes=target.stat().st_size,
        sha256=writing.digest.hexdigest(),
        rows=sum(writing.counts.values()),
        seconds=round(time.perf_counter() - started, 3),
    )


def _refuse(storage: Storage, target: Path) -> None:
    if target.is_dir():
        raise InvalidValue(f"path={os.fspath(target)!r} is a folder: give the path of a file, such as lab.jsonl.gz")
    if not target.absolute().parent.is_dir():
        raise UnusablePath(f"no folder {target.absolute().parent}: create it first, then export to {target}")
    if target.exists() and target.stat().st_size:
        header_of(target)  # nothing but an older export is replaced


class Lines:
    """The lines of a lab's rows, table by table; the sets of vectors have to come before the chunks."""

    def __init__(self, storage: Storage, *, vectors: bool) -> None:
        shapes = storage.tables()
        self._storage = storage
        self._shapes = {name: shapes[name] for name in ordered(shapes) if vectors or name not in VECTOR_TABLES}
        self._sets: dict[int, int] = {}

    @property
    def tables(self) -> set[str]:
        """The tables that there are."""
        return set(self._shapes)

    @property
    def total(self) -> int:
        """How many rows there are in all of them."""
        return sum(self._storage.count(table) for table in self._shapes)

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        """Yield each row's table and line, a table after those that it refers to."""
        for table in self._shapes:
            for line in self.of_table(table):
                yield table, line

    def of_table(self, table: str) -> Iterator[bytes]:
        """Yield the lines of one table."""
        shape = self._shapes[table]
        names = list(fields_of(table, shape))
        if table == CHUNKS and not self._sets:
            self._number_sets()
        for row in self._rows(table, shape):
            values = {name: written(row[name], table=table, column=name) for name in names}
            yield line_of({"table": table, **values})

    def _number_sets(self) -> None:
        for row in self._storage.rows(SETS, order_by=list(IDENTITY[SETS])):
            self._sets[row["set_key"]] = len(self._sets) + 1

    def _rows(self, table: str, shape: TableShape) -> Iterator[Row]:
        if table == CHUNKS:
            yield from self._chunks()
            return
        by = IDENTITY.get(table, shape.key)
        size = TEXTS_AT_ONCE if table == CONTEXTS else ROWS_AT_ONCE
        for batch in self._storage.batches(table, by=by, size=size):
            for row in batch:
                yield self._checked(table, row)

    def _checked(self, table: str, row: Row) -> Row:
        if table == CONTEXTS and not text_is_sound(row["content"], row["content_hash"]):
            raise DamagedLab(
                f"the text of context {shortened(row['id'])} does not fit its hash, and an export has to be sound: "
                "al.check() lists all that is damaged, al.repair(path, to=…) makes a lab that can be exported"
            )
        if table == EMBEDDINGS and len(row["vector"]) != 4 * row["dimensions"]:
            raise DamagedLab(f"vector {row['embedding_key']} is damaged: al.check() lists all that is")
        if table == SETS:
            if row["set_key"] not in self._sets:
                self._sets[row["set_key"]] = len(self._sets) + 1
            row["set"] = self._sets[row["set_key"]]
        return row

    def _chunks(self) -> Iterator[Row]:
        for batch in self._storage.batches(CONTEXTS, by=("id",), columns=("id", "context_key"), size=ROWS_AT_ONCE):
            of_context: dict[int, list[Row]] = {row["context_key"]: [] for row in batch}
            where = [Condition("context_key", "in", list(of_context))]
            for chunk in self._storage.rows(CHUNKS, where=where):
                of_context[chunk["context_key"]].append(chunk)
            for row in batch:
                chunks = [
                    {**c, "set": self._sets[c["set_key"]], "context_id": row["id"]}
                    for c in of_context[row["context_key"]]
                ]
                yield from sorted(chunks, key=lambda chunk: (chunk["set"], chunk["position"]))


class _Writing:
    """One export, inside a snapshot."""

    def __init__(self, storage: Storage, *, vectors: bool) -> None:
        self.counts: Counter[str] = Counter()
        self.digest = hashlib.sha256()
        self._lines = Lines(storage, vectors=vectors)
        schema = storage.migration_status()["applied"][-1][0]
        self._header = {"format": FORMAT, "version": VERSION, "schema": schema, "vectors": vectors}

    def write(self, path: Path, bar: Bar) -> None:
        """Write header, rows and end."""
        from ..storage.sqlite_backup import synchronize
        from .lines import opened

        total = self._lines.total
        with opened(path, "wb") as file:
            self._write(file, line_of(self._header))
            for table, line in self._lines:
                self._write(file, line)
                self.counts[table] += 1
                if (done := self.counts.total()) % 500 == 0:
                    bar.tell(min(done, total), total)
            end = {"end": dict(sorted(self.counts.items())), "sha256": self.digest.hexdigest()}
            file.write(line_of(end))
        synchronize(path)

    def _write(self, file: IO[bytes], line: bytes) -> None:
        self.digest.update(line)
        file.write(line)
