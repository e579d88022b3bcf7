"""The SQLite back end: one file, thin over sqlite-utils."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlite_utils import Database
from sqlite_utils.utils import sqlite3

from ..errors import (
    ConfigurationError,
    InvalidValue,
    NewerSchema,
    NotALab,
    ReadOnlyLab,
    did_you_mean,
)
from . import checksums, migrations
from .base import Row, Unit, Where
from .filters import refuse_unknown
from .migrations import APPLICATION_ID
from .opening import MEMORY
from .places import look_at, why_read_only
from .pool import ConnectionPool
from .sql import ILLEGIBLE, Selection, encoded, order_clause, refuse_illegible, where_clause
from .sqlite_care import SQLiteCare
from .sqlite_columns import stored_rows
from .sqlite_names import KeptNames
from .sqlite_search import CONTEXTS, SQLiteSearch
from .sqlite_text import TextIndex
from .sqlite_vec import load_extension
from .sqlite_vectors import SQLiteVectors
from .transactions import Transaction, level_of

if TYPE_CHECKING:
    from ..config import LabConfig


class _SQLiteUnit(Unit):
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def undo(self) -> None:
        self._transaction.refuse_if_lost()
        self._transaction.database.rollback()
        self._transaction.suspended = True

    def redo(self) -> None:
        operations, self._transaction.journal = self._transaction.journal, []
        self._transaction.suspended = False
        self._transaction.owner.begin(self._transaction)
        for operation, arguments, options in operations:
            operation(*arguments, **options)

    def forget(self) -> None:
        self._transaction.journal.clear()


class SQLiteStorage(SQLiteCare, SQLiteSearch):
    """A lab in one SQLite file, or in memory. Opening migrates an older file and refuses a newer or foreign one."""

    def __init__(self, config: LabConfig, *, migrate: bool = True) -> None:
        self.path = config.db_path
        self._columns_of: dict[str, dict[str, Any]] = {}
        self._selections: dict[tuple[str, tuple[str, ...] | None], Selection] = {}
        self._seals = checksums.Seals()
        self._names = KeptNames(self.remember)
        self._text = TextIndex(self.remember, self._names)
        look_at(self.path, read_only=config.read_only)
        refusal = why_read_only(self.path, asked=config.read_only)
        self.read_only = refusal is not None
        self._vectors = SQLiteVectors(
            metric=config.metric,
            engine=config.vector_engine,
            hnsw_from_chunks=config.hnsw_from_chunks,
            index_beside=None if self.read_only or self.path == MEMORY else Path(self.path).absolute(),
            read=lambda: self._pool.reader(),
            remember=self.remember,
            names=self._names,
        )
        self._pool = ConnectionPool(
            self.path,
            read_only=refusal,
            max_readers=config.max_connections,
            busy_timeout_ms=config.busy_timeout_ms,
            deadline_seconds=config.deadline_seconds,
            statement_seconds=config.statement_seconds,
            pragmas={"cache_size": config.cache_size, "synchronous": config.synchronous},
            prepare=self._prepare,
            on_replaced=self._begin_anew,
        )
        try:
            self._open(migrate=migrate)
            if config.vector_engine == "sqlite-vec" and self._vectors.vec.missing:
                raise ConfigurationError(f"vector_engine='sqlite-vec': {self._vectors.vec.missing}; or choose 'auto'")
        except BaseException:
            self._pool.close()
            raise

    def _prepare(self, connection: sqlite3.Connection) -> None:
        self._vectors.vec.missing = load_extension(connection)
        checksums.register(connection)

    def _begin_anew(self) -> None:
        self._forget_columns()
        self._seals.clear()
        self._vectors.forget()
        self._text.forget()
        self._names.forget()
        self._open(migrate=True)

    def _open(self, *, migrate: bool) -> None:
        if not self.read_only and (self._pool.in_memory or Path(self.path).stat().st_size == 0):
            with self._pool.exclusive() as database:
                self._pool.retry(lambda: database.execute(f"PRAGMA application_id = {APPLICATION_ID}"))
        # Before it is a WAL file, whoever makes or migrates it keeps readers out too.
        status = self._pool.retry(self.migration_status)
        if not migrate:
            return
        if self.read_only:
            if status["pending"]:
                raise ReadOnlyLab(f"{self.path} has pending migrations {status['pending']}: open it once for writing")
            return
        if not self._pool.in_memory:
            with self._pool.exclusive() as database:
                self._pool.retry(lambda: database.execute("PRAGMA journal_mode = WAL").fetchone())
        if status["pending"]:
            self.migrate()

    # Rows

    def _forget_columns(self) -> None:
        self._columns_of.clear()
        self._selections.clear()

    def _columns(self, database: Database, table: str) -> dict[str, Any]:
        if table not in self._columns_of:
            known = {
                row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
            }
            if table not in known:
                raise InvalidValue(f"no table {table!r}{did_you_mean(table, known)}")
            info = database.execute(f'PRAGMA table_info("{table}")')
            self._columns_of[table] = {row[1]: row[2] for row in info if row[1] != checksums.COLUMN}
        return self._columns_of[table]

    @contextmanager
    def _write(self, operation: Callable[..., Any], *arguments: Any, **options: Any) -> Iterator[Transaction]:
        # Nested operations of one operation are part of it: only the outermost goes into the journal.
        outer = level_of(self._pool)
        with outer.part() if outer is not None and outer.whole else self._transaction() as transaction:
            mark = len(transaction.journal)
            yield transaction
            if outer:
                transaction.journal[mark:] = [(operation, arguments, options)]

    @contextmanager
    def _transaction(
        self, *, waiting: bool = True, whole: bool = False, keeping: bool = False
    ) -> Iterator[Transaction]:
        nested = self._pool.current_transaction is not None
        kept = self._go_on_remembering if keeping else None
        with self._pool.transaction(waiting=waiting, whole=whole, kept=kept) as transaction:
            yield transaction
            if not nested and transaction.vectors_changed:
                transaction.database.guard.renew()
                self._vectors.vec.sync(transaction.database, create=False)

    def insert(self, table: str, rows: Iterable[Mapping[str, Any]], *, ignore_existing: bool = False) -> int:
        """See `Storage.insert`."""
        rows = list(rows)
        if not rows:
            return 0
        names = list(rows[0])
        if odd := next((row for row in rows if row.keys() != rows[0].keys()), None):
            raise InvalidValue(f"rows for {table} differ in their columns: {sorted(set(odd) ^ set(names))}")
        with self._write(self.insert, table, rows, ignore_existing=ignore_existing) as transaction:
            columns = self._columns(transaction.database, table)
            refuse_unknown(table, names, columns)
            cells = stored_rows(rows, names, self._seals.of(transaction.database, table))
            names = names if len(names) == len(cells[0]) else [*names, checksums.COLUMN]
            quoted, marks = ", ".join(f'"{name}"' for name in names), ", ".join("?" * len(names))
            verb = "INSERT OR IGNORE" if ignore_existing else "INSERT"
            cursor = transaction.database.conn.executemany(f'{verb} INTO "{table}" ({quoted}) VALUES ({marks})', cells)
            return int(cursor.rowcount)

    def update(self, table: str, where: Where, changes: Mapping[str, Any]) -> int:
        """See `Storage.update`."""
        with self._write(self.update, table, where, changes) as transaction:
            columns = self._columns(transaction.database, table)
            refuse_unknown(table, changes, columns)
            filters, parameters = where_clause(where, columns)
            assignments = ", ".join(f'"{name}" = ?' for name in changes)
            values = [encoded(value) for value in changes.values()]
            cursor = transaction.database.conn.execute(
                f'UPDATE "{table}" SET {assignments}{filters}', [*values, *parameters]
            )
            self._seals.after_update(transaction.database, table, changes)
            return int(cursor.rowcount)

    def delete(self, table: str, where: Where) -> int:
        """See `Storage.delete`."""
        with self._write(self.delete, table, where) as transaction:
            filters, parameters = where_clause(where, self._columns(transaction.database, table))
            cursor = transaction.database.conn.execute(f'DELETE FROM "{table}"{filters}', parameters)
            self._seals.after_delete(transaction.database, table)
            transaction.vectors_changed |= table in (CONTEXTS, "context_chunks", "embedding_sets")
            return int(cursor.rowcount)

    def rows(
        self,
        table: str,
        *,
        where: Where = (),
        columns: Sequence[str] | None = None,
        order_by: Sequence[str] = (),
        limit: int | None = None,
    ) -> list[Row]:
        """See `Storage.rows`."""
        with self._pool.reader() as database:
            known = self._columns(database, table)
            selection = self._selection(database, table, columns)
            filters, parameters = where_clause(where, known)
            sql = f"{selection.sql}{filters}{order_clause(order_by, known)}"
            if limit is not None:
                sql, parameters = f"{sql} LIMIT ?", [*parameters, limit]
            return self._decoded(database, table, selection, sql, parameters)

    def _selection(self, database: Database, table: str, columns: Sequence[str] | None) -> Selection:
        key = (table, None if columns is None else tuple(columns))
        if key not in self._selections:
            known = self._columns(database, table)
            names = list(columns or known)
            refuse_unknown(table, names, known)
            self._selections[key] = Selection.of(table, names, known)
        return self._selections[key]

    def _decoded(
        self, database: Database, table: str, selection: Selection, sql: str, parameters: Sequence[Any]
    ) -> list[Row]:
        names, sound, special = selection.names, selection.sound, selection.special
        found = []
        try:
            for row in database.conn.execute(sql, parameters):
                cells = list(row)
                for place, kinds in sound:
                    if type(cells[place]) not in kinds:
                        raise TypeError(f"{names[place]} is of the type {type(cells[place]).__name__}")
                for place, decoder in special:
                    if cells[place] is not None:
                        cells[place] = decoder(cells[place])
                found.append(dict(zip(names, cells, strict=True)))
        except ILLEGIBLE as exc:
            refuse_illegible(exc, self.path, table)
            raise
        return found

    def batches(
        self, table: str, *, by: Sequence[str], size: int, columns: Sequence[str] | None = None
    ) -> Iterator[list[Row]]:
        """See `Storage.batches`."""
        after: list[Any] = []
        while True:
            with self._pool.reader() as database:
                selection = self._selection(database, table, columns)
                refuse_unknown(table, by, self._columns(database, table))
                key = ", ".join(f'"{name}"' for name in by)
                where = f" WHERE ({key}) > ({', '.join('?' * len(by))})" if after else ""
                sql = f"{selection.sql}{where} ORDER BY {key} LIMIT ?"
                batch = self._decoded(database, table, selection, sql, [*after, size])
            if batch:
                yield batch
            if len(batch) < size:
                return
            after = [encoded(batch[-1][name]) for name in by]

    def count(self, table: str, *, where: Where = ()) -> int:
        """See `Storage.count`."""
        with self._pool.reader() as database:
            filters, parameters = where_clause(where, self._columns(database, table))
            return int(database.execute(f'SELECT count(*) FROM "{table}"{filters}', parameters).fetchone()[0])

    def touch(self, accesses: Mapping[str, tuple[datetime, int]]) -> None:
        """See `Storage.touch`."""
        with self._write(self.touch, accesses) as transaction:
            transaction.database.conn.executemany(
                f"UPDATE {CONTEXTS} SET accessed_at = ?1, access_count = access_count + ?2,"
                f" {checksums.COLUMN} = {checksums.AFTER_ACCESS} WHERE id = ?4",
                [
                    (encoded(at), count, checksums.access_code(encoded(at)), context_id)
                    for context_id, (at, count) in accesses.items()
                ],
            )

    # Transactions, schema, state

    @contextmanager
    def transaction(self, *, waiting: bool = True, whole: bool = False, keeping: bool = False) -> Iterator[Unit]:
        """See `Storage.transaction`."""
        with self._transaction(waiting=waiting, whole=whole, keeping=keeping) as transaction:
            yield _SQLiteUnit(transaction)

    def connection(self) -> AbstractContextManager[Database]:
        """See `Storage.connection`."""
        return self._pool.lend()

    def connection_figures(self) -> dict[str, Any]:
        """See `Storage.connection_figures`."""
        return self._pool.figures()

    @property
    def in_transaction(self) -> bool:
        """See `Storage.in_transaction`."""
        return self._pool.current_transaction is not None

    def migration_status(self) -> dict[str, Any]:
        """See `Storage.migration_status`; raises `NewerSchema` or `NotALab` for a file that is not ours to change."""
        with self._pool.reader() as database:
            done = migrations.applied(database)
            names = migrations.names()
            unknown = [name for name, _ in done if name not in names]
            if unknown:
                raise NewerSchema(
                    f"{self.path} has migrations that this version does not know ({', '.join(unknown)}): "
                    "upgrade with pip install -U autom8_lab; the file was not touched"
                )
            tables = set(database.table_names()) - {migrations.migrations.migrations_table, "sqlite_sequence"}
            application_id = database.execute("PRAGMA application_id").fetchone()[0]
            if not done and application_id != APPLICATION_ID and (tables or application_id):
                raise NotALab(
                    f"{self.path} is an SQLite file of another program (it has "
                    f"{', '.join(sorted(tables)[:3]) or f'application_id {application_id}'}): "
                    "give another path; the file was not touched"
                )
        return {
            "applied_count": len(done),
            "total_migrations": len(names),
            "applied": done,
            "pending": names[len(done) :],
        }

    def migrate(self, to: int | str | None = None) -> None:
        """Apply or revert migrations until the schema is at `to`: a count, a migration's name, or None for the newest.

        Each step is one transaction with its record, so a crash leaves the step before it.
        """
        target = migrations.count_until(to)
        self._forget_columns()
        while True:
            with self._pool.transaction() as transaction:
                # Counted inside the lock: another process may be migrating the same file.
                count = len(migrations.applied(transaction.database))
                if count == target:
                    break
                step = migrations.apply_next if count < target else migrations.revert_last
                with self._seals.kept(transaction.database):
                    step(transaction.database)
        self._forget_columns()

    def close(self) -> None:
        """See `Storage.close`."""
        self._vectors.close()
        self._pool.close()
