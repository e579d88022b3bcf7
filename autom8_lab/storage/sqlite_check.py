"""A look at everything in an SQLite file, which changes nothing and goes on after what cannot be read."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path

from sqlite_utils import Database
from sqlite_utils.utils import sqlite3

from ..errors import LabBusy, ReadOnlyLab, StorageError
from ..records import Finding
from . import checksums, cross_checks, migrations, row_rules
from .checksums import COLUMN, plain_tables, seal_of
from .lending import FOR_EVER_SECONDS
from .migrations import APPLICATION_ID
from .opening import Guard, PooledDatabase
from .pool import ConnectionPool
from .row_rules import Rule
from .sqlite_text import FTS, renew
from .sqlite_vec import load_extension
from .wal import read_log

Progress = Callable[[int, int], None]  # rows looked at, and how many there are
Step = Callable[[], Iterator[Finding]]

RANGE_ROWS = 5_000
PATIENCE_SECONDS, SLOW_BYTES_PER_SECOND = 3, 5_000_000  # for each look at a table whose tree is damaged
MOST_OF_A_KIND = 100  # findings that are listed one by one
MOST_MESSAGES = 100
_TREE = re.compile(r"^(?:On tree page|Tree) (\d+)\b")
_INDEX = re.compile(r"index (\S+)$")


class Check:
    """Looks at one file through its own connections."""

    def __init__(self, pool: ConnectionPool, *, progress: Progress | None = None) -> None:
        self._pool = pool
        self._progress = progress or (lambda done, total: None)
        self._done = self._total = 0
        self._limit_seconds = FOR_EVER_SECONDS
        self._tables = set(own_tables()) | {FTS}  # those of the file's version, as soon as it is known
        place = "path" if pool.in_memory else repr(pool.path)
        self.repair = f"al.repair({place}, to=…) saves what is whole; or restore a backup"

    def findings(self) -> Iterator[Finding]:
        """Yield what is wrong, at most `MOST_OF_A_KIND` of each kind one by one."""
        seen: Counter[tuple[str, str]] = Counter()
        kinds: dict[tuple[str, str], Finding] = {}
        for finding in self._all():
            kind = (finding.table, finding.finding)
            seen[kind] += 1
            if seen[kind] <= MOST_OF_A_KIND:
                kinds[kind] = finding
                yield finding
        for kind, count in seen.items():
            if count > MOST_OF_A_KIND:
                first = kinds[kind]
                more = f"{first.finding} ({count - MOST_OF_A_KIND:,} more)"
                yield Finding(first.severity, first.table, "", more, first.remedy)

    def _all(self) -> Iterator[Finding]:
        yield from self._guarded("the write-ahead log", self._log)
        try:
            with self._snapshot() as database:
                yield from self._look(database)
        except StorageError as exc:
            yield self._error("", "", f"cannot be opened: {exc}")
            return
        if FTS in self._tables:
            yield from self._guarded(FTS, self._text_index)

    @contextmanager
    def _snapshot(self) -> Iterator[PooledDatabase]:
        with self._pool.reader() as database:
            database.guard.renew(FOR_EVER_SECONDS)
            row_rules.register(database.conn)
            outer = database.conn.in_transaction
            if not outer:
                database.conn.execute("BEGIN")
            try:
                yield database
            finally:
                if not outer:
                    with suppress(sqlite3.Error):
                        database.conn.execute("ROLLBACK")

    def _look(self, database: PooledDatabase) -> Iterator[Finding]:
        for finding in self._guarded("", lambda: self._structure(database)):
            # In a damaged tree a page can come up many times over, and a scan go on for ever.
            self._limit_seconds = PATIENCE_SECONDS + self._size() / SLOW_BYTES_PER_SECOND
            yield finding
        yield from self._guarded("sqlite_master", lambda: self._schema(database))
        tables = [name for name in plain_tables(database) if name in own_tables() & self._tables]
        for table in tables:
            database.guard.renew(self._limit_seconds)
            with suppress(sqlite3.Error):
                self._total += database.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0]
        for table in tables:
            database.guard.renew(self._limit_seconds)
            yield from self._guarded(table, partial(self._rows, database, table))
        for check in cross_checks.CHECKS:
            if check.needs <= self._tables:
                database.guard.renew(self._limit_seconds)
                yield from self._guarded(check.table, partial(check.findings, database, self.repair))

    def _guarded(self, table: str, step: Step) -> Iterator[Finding]:
        try:
            yield from step()
        except (sqlite3.Error, StorageError, OSError) as exc:
            yield self._error(table, "", f"cannot be read: {exc}")

    def _error(self, table: str, key: str, finding: str) -> Finding:
        return Finding("error", table, key, finding, self.repair)

    # The file

    def _size(self) -> int:
        return 0 if self._pool.in_memory else Path(self._pool.path).stat().st_size

    def _log(self) -> Iterator[Finding]:
        if self._pool.in_memory:
            return
        log = read_log(Path(f"{Path(self._pool.path).absolute()}-wal"))
        if not log.header_whole:
            yield self._error("", "-wal", "the beginning of the write-ahead log is damaged: nothing in it is read")
        elif log.lost_commits and log.torn:
            end = "the write-ahead log ends in a transaction that is not whole, and is not read"
            yield Finding("warning", "", "-wal", end, "nothing, where a write was interrupted: it was not acknowledged")
        elif log.lost_commits:
            # What a process leaves that is killed between writing a commit and announcing it looks the same.
            lost = (
                f"the write-ahead log is damaged, or a process was killed while it wrote: {log.lost_commits} "
                "transactions after that are not read"
            )
            yield self._error("", "-wal", lost)

    def _structure(self, database: Database) -> Iterator[Finding]:
        roots = dict(database.execute("SELECT rootpage, tbl_name FROM sqlite_master WHERE rootpage > 0").fetchall())
        tables = dict(database.execute("SELECT name, tbl_name FROM sqlite_master").fetchall())
        renew(database)
        said = [row[0] for row in database.execute(f"PRAGMA integrity_check({MOST_MESSAGES})")]
        for message in [line for text in said for line in text.splitlines() if text != "ok"]:
            if message.startswith("***"):
                continue  # names the database; what is wrong follows
            tree, index = _TREE.search(message), _INDEX.search(message)
            table = roots.get(int(tree[1])) if tree else tables.get(index[1]) if index else None
            yield self._error(table or "", "", message)

    def _schema(self, database: Database) -> Iterator[Finding]:
        if (given := database.execute("PRAGMA application_id").fetchone()[0]) != APPLICATION_ID:
            yield self._error("", "application_id", f"the file's mark of a lab is {given:#x}, not {APPLICATION_ID:#x}")
        names = [name for name, _ in migrations.applied(database)]
        if names != migrations.names()[: len(names)]:
            yield self._error("_sqlite_migrations", "", f"the record of migrations is {', '.join(names)}")
            names = names[: len(migrations.names())]
        expected = expected_schema(len(names))
        self._tables = {table for table, _ in expected.values()}
        rows = database.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
        present = {(kind, name): (table, sql) for kind, name, table, sql in rows}
        for (kind, name), (table, sql) in expected.items():
            there = present.get((kind, name))
            if there is None:
                yield self._error(table, name, f"the {kind} is missing")
            elif there != (table, sql):
                yield self._error(table, name, f"the {kind} is not defined as the lab defines it")
        ours = {table for table, _ in expected.values()}
        for (kind, name), (table, _) in present.items():
            if kind == "trigger" and table in ours and (kind, name) not in expected:
                remedy = f"if nobody put it there: DROP TRIGGER {name}"
                yield Finding("warning", table, name, "the trigger is not one of the lab's", remedy)

    # Rows

    def _rows(self, database: Database, table: str) -> Iterator[Finding]:
        info = database.execute(f'PRAGMA table_info("{table}")').fetchall()
        columns = {row[1]: row[2] for row in info if row[1] != COLUMN}
        rules = row_rules.rules_of(table, columns, seal_of(database, table))
        key = "id" if "id" in columns else next((row[1] for row in info if row[5] == 1), "rowid")
        after: int | None = -(2**63)
        while after is not None:
            found, last = row_rules.broken_rows(database, table, rules, after=after, limit=RANGE_ROWS)
            for rowid, rule in found:
                yield self._of_row(database, table, key, rowid, rule)
            self._done += RANGE_ROWS if last is not None else 0
            self._progress(min(self._done, self._total), self._total)
            after = last

    def _of_row(self, database: Database, table: str, key: str, rowid: int, rule: Rule) -> Finding:
        # A damaged tree may show a row in a scan and not where its rowid should be.
        row = database.execute(f'SELECT CAST("{key}" AS BLOB) FROM "{table}" WHERE rowid = ?', [rowid]).fetchone()
        text = str(rowid) if row is None or row[0] is None else row[0].decode("utf-8", "replace")
        if not rule.damage:
            return Finding("warning", table, text, rule.finding, "correct the row where it came from")
        return self._error(table, text, rule.finding)

    # What is derived

    def _text_index(self) -> Iterator[Finding]:
        """Compare the full-text index with the texts.

        FTS5 has a command for it, which is an INSERT that writes nothing. It runs in a transaction that is taken back;
        where nobody may write, or somebody else does, on a copy.
        """
        try:
            with suppress(_TakeBack), self._pool.transaction(waiting=False) as transaction:
                transaction.database.guard.renew(self._limit_seconds)
                transaction.database.conn.execute(COMPARE_TEXT)
                raise _TakeBack
        except (LabBusy, ReadOnlyLab):
            with self._pool.reader() as database, tempfile.TemporaryDirectory() as folder:
                with closing(sqlite3.connect(Path(folder) / "copy.db")) as copy:
                    database.conn.backup(copy)
                    Guard(self._limit_seconds).arm(copy)
                    yield from self._compare_text(copy)
        except StorageError as exc:
            yield self._error(FTS, "", f"the full-text index does not fit the texts: {exc.__cause__ or exc}")

    def _compare_text(self, connection: sqlite3.Connection) -> Iterator[Finding]:
        try:
            connection.execute(COMPARE_TEXT)
        except sqlite3.DatabaseError as exc:
            yield self._error(FTS, "", f"the full-text index does not fit the texts: {exc}")


def check_file(path: str, *, writable: bool = False, progress: Progress | None = None) -> Iterator[Finding]:
    """Yield what is wrong with a file, whether or not it can be opened as a lab.

    Of one that is `writable` nothing is written either, but no copy is needed to look at its full-text index.
    """
    pool = ConnectionPool(path, read_only=None if writable else "is only looked at", prepare=_prepare)
    try:
        yield from Check(pool, progress=progress).findings()
    finally:
        pool.close()


def _prepare(connection: sqlite3.Connection) -> None:
    checksums.register(connection)
    load_extension(connection)


COMPARE_TEXT = f"INSERT INTO {FTS} ({FTS}, rank) VALUES ('integrity-check', 1)"


class _TakeBack(Exception):
    """Ends a transaction that was not meant to last."""


@lru_cache(maxsize=4)
def expected_schema(count: int) -> dict[tuple[str, str], tuple[str, str]]:
    """Return table and definition of all that the first `count` migrations make, by kind and name."""
    with closing(sqlite3.connect(":memory:")) as connection:
        database = Database(connection, execute_plugins=False)
        for _ in range(count):
            migrations.apply_next(database)
        rows: Sequence[tuple[str, str, str, str]] = database.execute(
            "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
        ).fetchall()
    return {(kind, name): (table, sql) for kind, name, table, sql in rows}


@lru_cache(maxsize=1)
def own_tables() -> frozenset[str]:
    """Return the tables of the newest schema, without those that belong to the full-text index."""
    tables = (table for table, _ in expected_schema(len(migrations.names())).values())
    return frozenset(table for table in tables if not table.startswith(FTS))
