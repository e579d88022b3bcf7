"""A new lab of what a damaged file still holds.

The damaged file is only read, page by page and not by SQLite (`pages`, `salvage`), with its write-ahead log. Every row
has to prove itself: by its checksum, the hash of its text, what its values may be, and what it refers to. Rows that
are as they were written go into the new lab; doubtful ones are written beside it and not into it; full-text index and
vectors are made anew from what they are derived from.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from itertools import groupby, islice
from math import isfinite
from pathlib import Path
from typing import IO, Any

from sqlite_utils import Database
from sqlite_utils.utils import sqlite3

from ..errors import DamagedLab, NewerSchema, NotALab
from . import checksums, cross_checks, migrations, row_rules
from .pages import PageFile, Text
from .salvage import Salvage, Shape
from .sql import encoded
from .sqlite_check import Progress, own_tables

CONTEXTS, CHUNKS = "context_registry", "context_chunks"
MIGRATIONS = migrations.migrations.migrations_table
# What is made anew: which chunks an index has read, and the steps of the schema.
DERIVED = {"chunk_deletions", "index_state", MIGRATIONS}
ROWS_AT_ONCE = 500


@dataclass
class Outcome:
    """How many rows of each table were saved, are doubtful, and at least are lost; and what else there is to say."""

    saved: Counter[str] = field(default_factory=Counter)
    doubtful: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    cleared: Counter[str] = field(default_factory=Counter)
    uncounted: set[str] = field(default_factory=set)  # tables of which nothing says how many rows there were
    tables: list[str] = field(default_factory=list)
    other_tables: list[str] = field(default_factory=list)
    without_vectors: int = 0


def repair_file(path: Path, copy: Path, doubtful: IO[str], *, progress: Progress | None = None) -> Outcome:
    """Write what can be saved of the file at `path` into a new lab at `copy`, and doubtful rows as JSON lines.

    Raises `NotALab` for a file of another program, `NewerSchema`, and `DamagedLab` where nothing can be read.
    """
    with PageFile(path) as file:
        version = _version_of(file)
        shapes = shapes_of(version)
        salvage = Salvage(file, shapes)
        _refuse_others(salvage, path)
        os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
            loading = Loading(connection, salvage, doubtful, version=version, progress=progress)
            loading.load()
            loading.mend()
    return loading.outcome


def finish_file(path: Path, *, at: datetime, details: Mapping[str, Any]) -> None:
    """Bring a repaired file to the newest schema, and note in it where it comes from."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        checksums.register(connection)
        database = Database(connection, execute_plugins=False)
        seals = checksums.Seals()
        while len(migrations.applied(database)) < len(migrations.names()):
            with seals.kept(database):
                migrations.apply_next(database)
        connection.execute(
            "INSERT INTO care_log (at, kind, details) VALUES (?, 'repair', ?)", [encoded(at), encoded(details)]
        )


def shapes_of(version: int) -> dict[str, Shape]:
    """Return what the rows of each table look like after so many migrations."""
    with closing(_new_schema(sqlite3.connect(":memory:"), version)) as connection:
        database = Database(connection, execute_plugins=False)
        present = checksums.plain_tables(database)
        wanted = [name for name in present if name in own_tables()]
        return {name: _shape(database, name) for name in [*wanted, MIGRATIONS]}


def _shape(database: Database, table: str) -> Shape:
    info = database.execute(f'PRAGMA table_info("{table}")').fetchall()
    listed = database.execute(f'PRAGMA index_list("{table}")').fetchall()
    names = [name for _, name, _, _, partial in listed if not partial]
    return Shape(
        table=table,
        columns={name: kind for _, name, kind, *_ in info},
        key=checksums.rowid_column(info),
        seal=checksums.seal_of(database, table),
        indexes={name: [row[2] for row in database.execute(f'PRAGMA index_info("{name}")')] for name in names},
    )


def _new_schema(connection: sqlite3.Connection, version: int) -> sqlite3.Connection:
    database = Database(connection, execute_plugins=False)
    connection.execute(f"PRAGMA application_id = {migrations.APPLICATION_ID}")
    for _ in range(version):
        migrations.apply_next(database)
    return connection


def _version_of(file: PageFile) -> int:
    """Return how many migrations the file has; the newest where their record cannot be read. Raises `NewerSchema`."""
    newest = len(migrations.names())
    with closing(_new_schema(sqlite3.connect(":memory:"), 1)) as connection:
        shape = _shape(Database(connection, execute_plugins=False), MIGRATIONS)
    record = Salvage(file, {MIGRATIONS: shape})
    done = [
        bytes(found.row["name"]).decode("utf-8", "replace")
        for found in record.rows(MIGRATIONS)
        if found.row["migration_set"] == migrations.SET_NAME.encode() and isinstance(found.row["name"], Text)
    ]
    known = migrations.names()
    unknown = [name for name in done if name not in known]
    if unknown and not record.tables[MIGRATIONS].damaged and set(known) <= set(done):
        raise NewerSchema(f"{file.path} has migrations that this version does not know ({', '.join(unknown)}): upgrade")
    # A name that a damaged byte made unknown counts too.
    last = max((known.index(name) + 1 for name in done if name in known), default=0)
    return max(last, min(len(done), newest)) if last and not record.tables[MIGRATIONS].damaged else newest


def _refuse_others(salvage: Salvage, path: Path) -> None:
    names = {name for kind, name, _, _ in salvage.schema if kind == "table"}
    ours = names & set(salvage.tables)
    if names and not ours:
        raise NotALab(
            f"{path} is of another program (it has {', '.join(sorted(names)[:3])}): there is no lab to repair"
        )
    if not ours and not any(rows.pages or rows.strays for rows in salvage.tables.values()):
        raise DamagedLab(f"{path}: nothing of a lab can be read in it: restore a backup")


class Loading:
    """Puts what is salvaged into a new file."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        salvage: Salvage,
        doubtful: IO[str],
        *,
        version: int,
        progress: Progress | None,
    ) -> None:
        self.outcome = Outcome()
        self._salvage = salvage
        self._doubtful = doubtful
        self._progress = progress or (lambda done, total: None)
        checksums.register(connection)
        row_rules.register(connection)
        for pragma in ("journal_mode = MEMORY", "synchronous = OFF"):  # it counts only when it is whole
            connection.execute(f"PRAGMA {pragma}")
        self._database = Database(_new_schema(connection, version), execute_plugins=False)
        connection.execute("PRAGMA foreign_keys = OFF")
        ours = set(salvage.tables) | {MIGRATIONS, "sqlite_sequence"}
        self.outcome.other_tables = sorted(
            name
            for kind, name, _, _ in salvage.schema
            if kind == "table" and name not in ours and not name.startswith(("sqlite_", f"{CONTEXTS}_fts", "vec_"))
        )
        self.outcome.tables = [name for name in salvage.tables if name not in DERIVED]

    def load(self) -> None:
        """Insert every row that is as it was written."""
        self._database.conn.execute("BEGIN")
        total = sum(len(rows.pages) + len(rows.strays) for rows in self._salvage.tables.values())
        done = 0
        for table in self.outcome.tables:
            rows = self._sound_rows(table)
            while batch := list(islice(rows, ROWS_AT_ONCE)):
                self._insert(table, batch)
            self.outcome.lost[table], complete = self._salvage.lost(table)
            if not complete:
                self.outcome.uncounted.add(table)
            done += len(self._salvage.tables[table].pages) + len(self._salvage.tables[table].strays)
            self._progress(done, total)

    def _sound_rows(self, table: str) -> Iterator[dict[str, Any]]:
        for found in self._salvage.rows(table):
            row, doubt = _decoded(found.row)
            doubt = found.doubt or doubt
            if doubt is None and table == CONTEXTS and not _text_fits(row):
                doubt = "content does not fit its hash"
            if doubt is None:
                yield row
            else:
                self._doubt(table, row, doubt)

    def _insert(self, table: str, rows: list[dict[str, Any]]) -> None:
        names = list(rows[0])
        quoted, marks = ", ".join(f'"{name}"' for name in names), ", ".join("?" * len(names))
        sql = f'INSERT INTO "{table}" ({quoted}) VALUES ({marks})'
        execute = self._database.conn.execute
        execute("SAVEPOINT batch")
        try:
            self._database.conn.executemany(sql, [list(row.values()) for row in rows])
            self.outcome.saved[table] += len(rows)
        except sqlite3.Error:  # one of them is not a row of this table after all
            execute("ROLLBACK TO batch")
            for row in rows:
                try:
                    execute(sql, list(row.values()))
                    self.outcome.saved[table] += 1
                except sqlite3.Error as exc:
                    self._doubt(table, row, str(exc))
        execute("RELEASE batch")

    def _doubt(self, table: str, row: Mapping[str, Any], reason: str) -> None:
        self.outcome.doubtful[table] += 1
        shown = {name: _shown(value) for name, value in row.items() if name != checksums.COLUMN}
        line = {"table": table, "doubt": reason, "row": shown}
        self._doubtful.write(json.dumps(line, ensure_ascii=False) + "\n")

    # What the rows have to do with each other

    def mend(self) -> None:
        """Take out what is not sound together with the rest, and finish the file."""
        connection = self._database.conn
        # A vector without chunks stays: the text that gets its chunks again finds it.
        trigger = connection.execute(f"SELECT sql FROM sqlite_master WHERE name = '{CHUNKS}_ad'").fetchone()
        if trigger:
            connection.execute(f"DROP TRIGGER {CHUNKS}_ad")
        for table in self.outcome.tables:
            self._apply_rules(table)
        if trigger:
            self._mend_chunks()
        self._mend_references()
        if trigger:
            self._mend_chunks()  # those of a set or context that went with a reference
            self._count_vectors()
            connection.execute(trigger[0])
        for table in self.outcome.tables:
            seal = checksums.seal_of(self._database, table)
            if seal is not None:
                seal.renew(self._database)
        connection.execute("COMMIT")

    def _count_vectors(self) -> None:
        count = "SELECT count(*) FROM"
        self.outcome.saved["embeddings"] = self._database.execute(f"{count} embeddings").fetchone()[0]
        active = "SELECT set_key FROM embedding_sets WHERE state = 'active'"
        self.outcome.without_vectors = self._database.execute(
            f"{count} {CONTEXTS} c WHERE NOT EXISTS"
            f" (SELECT 1 FROM {CHUNKS} k WHERE k.context_key = c.context_key AND k.set_key IN ({active}))"
        ).fetchone()[0]

    def _apply_rules(self, table: str) -> None:
        columns = {name: kind for name, kind in self._shape(table).columns.items() if name != checksums.COLUMN}
        rules = [rule for rule in row_rules.rules_of(table, columns, None) if rule.damage]
        after: int | None = -(2**63)
        while after is not None:
            found, last = row_rules.broken_rows(self._database, table, rules, after=after, limit=5_000)
            for rowid, rule in found:
                self._take_out(table, rowid, rule.finding)
            after = last

    def _mend_references(self) -> None:
        while True:
            found = self._database.execute("PRAGMA foreign_key_check").fetchall()
            if not found:
                return
            for table, rowid, parent, number in found:
                listed = self._database.execute(f'PRAGMA foreign_key_list("{table}")').fetchall()
                columns = [row[3] for row in listed if row[0] == number]
                action = next(row[6] for row in listed if row[0] == number)
                if action == checksums.EMPTY:
                    cleared = ", ".join(f'"{column}" = NULL' for column in columns)
                    self._database.conn.execute(f'UPDATE "{table}" SET {cleared} WHERE rowid = ?', [rowid])
                    self.outcome.cleared[f"{table}.{columns[0]}"] += 1
                else:
                    self._take_out(table, rowid, f"refers to a row of {parent} that is lost or doubtful")

    def _mend_chunks(self) -> None:
        """Take out the chunks of every context of which not all are whole: the text gets new ones from its model."""
        incomplete: set[tuple[int, int]] = set()
        for content, rows in _chunks_of_contexts(self._database):
            if content is None or cross_checks.wrong_chunks(content, rows):
                incomplete.add(rows[0][:2])
        lacking = """
            SELECT DISTINCT context_key, set_key FROM context_chunks k LEFT JOIN embedding_sets s USING (set_key)
            WHERE NOT EXISTS (SELECT 1 FROM embeddings e WHERE e.chunk_hash = k.chunk_hash AND e.model_id = s.model_id)
        """
        incomplete.update(self._database.execute(lacking).fetchall())
        for context_key, set_key in incomplete:
            cursor = self._database.conn.execute(
                f"DELETE FROM {CHUNKS} WHERE context_key = ? AND set_key = ?", [context_key, set_key]
            )
            self.outcome.saved[CHUNKS] -= cursor.rowcount
            self.outcome.lost[CHUNKS] += cursor.rowcount

    def _take_out(self, table: str, rowid: int, reason: str) -> None:
        cursor = self._database.execute(f'SELECT * FROM "{table}" WHERE rowid = ?', [rowid])
        row = cursor.fetchone()
        if row is None:
            return  # taken out already, for another reason
        self._doubt(table, dict(zip([column[0] for column in cursor.description], row, strict=True)), reason)
        self._database.conn.execute(f'DELETE FROM "{table}" WHERE rowid = ?', [rowid])
        self.outcome.saved[table] -= 1

    def _shape(self, table: str) -> Shape:
        return self._salvage.tables[table].shape


def _chunks_of_contexts(database: Database) -> Iterator[tuple[bytes | None, list[tuple[Any, ...]]]]:
    rows = database.execute(
        "SELECT context_key, set_key, position, start_char, end_char, CAST(chunk_hash AS BLOB), chunk_key"
        " FROM context_chunks ORDER BY 1, 2, 3"
    )
    for context_key, group in groupby(rows, key=lambda row: row[0]):
        text = database.execute(
            f"SELECT CAST(content AS BLOB) FROM {CONTEXTS} WHERE context_key = ?", [context_key]
        ).fetchone()
        for _, of_set in groupby(group, key=lambda row: row[1]):
            yield None if text is None else text[0], list(of_set)


def _decoded(row: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Return a row with its texts as str, and why it is doubtful if they are none."""
    found, doubt = {}, None
    for name, value in row.items():
        if isinstance(value, Text):
            try:
                found[name] = value.decode("utf-8")
            except UnicodeDecodeError:
                found[name], doubt = value.decode("utf-8", "backslashreplace"), f"{name} is not UTF-8"
        else:
            found[name] = value
    return found, doubt


def _text_fits(row: Mapping[str, Any]) -> bool:
    return isinstance(row["content"], str) and sha256(row["content"].encode()).hexdigest() == row["content_hash"]


def _shown(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return value if not isinstance(value, float) or isfinite(value) else str(value)
