"""The PostgreSQL back end: a lab in a schema of a database, with pgvector."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from ..addresses import Address
from ..errors import InvalidValue, ReadOnlyLab, StorageError, did_you_mean
from . import postgres_schema
from .base import Row, Unit, Where
from .filters import quoted, refuse_unknown
from .postgres_binary import copy_rows, packed_vectors, vector_bytes
from .postgres_care import PostgresCare
from .postgres_columns import KEYS, SPOKEN_OF, count_on, numbered
from .postgres_driver import Connection
from .postgres_partitions import PARTITIONED, Partitions, month_of
from .postgres_pool import PostgresPool
from .postgres_search import PostgresSearch
from .postgres_sql import encoded, encoded_column, instant, listed, order_clause, where_clause
from .postgres_text import PostgresText
from .postgres_transactions import PostgresUnit
from .postgres_vectors import PostgresVectors

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ..config import LabConfig

COPY_ROWS = 8  # from so many rows on they are copied in
USAGE = "usage_ledger"


class PostgresStorage(PostgresCare, PostgresSearch):
    """A lab on a PostgreSQL server. Opening migrates an older schema and refuses a newer or foreign one."""

    def __init__(self, config: LabConfig, *, migrate: bool = True) -> None:
        address = Address.of(config.db_path)
        self.path = str(address)
        self.read_only = config.read_only
        self._schema: dict[str, dict[str, str]] = {}
        self._partitions = Partitions()
        refusal = "is open read-only: open it without read_only=True to write" if config.read_only else None
        self._pool = PostgresPool(
            address,
            read_only=refusal,
            max_connections=config.max_connections,
            deadline_seconds=config.deadline_seconds,
            statement_seconds=config.statement_seconds,
            durable=config.synchronous == "FULL",
        )
        self._text = PostgresText(self.remember)
        self._vectors = PostgresVectors(
            metric=config.metric,
            engine=config.vector_engine,
            hnsw_from_chunks=config.hnsw_from_chunks,
            remember=self.remember,
        )
        try:
            self._open(migrate=migrate)
        except BaseException:
            self._pool.close()
            raise

    def _open(self, *, migrate: bool) -> None:
        connection = self._pool.connect()
        try:
            with self._pool.translating():
                self._pool.search_path = postgres_schema.search_path(connection)
                status = postgres_schema.status(connection, self.path)
                if not migrate:
                    return
                if self.read_only:
                    if status["pending"]:
                        raise ReadOnlyLab(
                            f"{self.path} has pending migrations {status['pending']}: open it once for writing"
                        )
                    return
                if status["pending"]:
                    postgres_schema.migrate(connection, self.path)
                    self._pool.search_path = postgres_schema.search_path(connection)
                postgres_schema.refuse_old_extension(connection, self.path)
                postgres_schema.tidy(connection, self._partitions, datetime.now(UTC))
        finally:
            connection.close()

    # Rows

    def _columns_known(self) -> None:
        if not self._schema:
            self._schema = self._pool.read(postgres_schema.columns)

    def _columns(self, table: str) -> dict[str, str]:
        self._columns_known()
        if table not in self._schema:
            raise InvalidValue(f"no table {table!r}{did_you_mean(table, self._schema)}")
        return self._schema[table]

    def insert(self, table: str, rows: Iterable[Mapping[str, Any]], *, ignore_existing: bool = False) -> int:
        """See `Storage.insert`."""
        rows = list(rows)
        if not rows:
            return 0
        names = list(rows[0])
        if odd := next((row for row in rows if row.keys() != rows[0].keys()), None):
            raise InvalidValue(f"rows for {table} differ in their columns: {sorted(set(odd) ^ set(names))}")
        known = self._columns(table)
        refuse_unknown(table, names, known)
        months = {month_of(row["at"]) for row in rows if "at" in row} if table in PARTITIONED else set()

        number = KEYS.get(table, "")
        highest = max((row[number] for row in rows), default=0) if number in names else 0
        kept: list[int] = []

        def action(connection: Connection) -> int:
            columns = {name: encoded_column([row[name] for row in rows], known[name]) for name in names}
            if months:
                self._partitions.make(connection, table, months)
            if table in SPOKEN_OF and not highest:
                numbered(connection, table, kept, len(rows))
                columns = {number: kept, **columns}
            kinds = [known[name] for name in columns]
            count = insert_rows(connection, table, columns, kinds, ignore=ignore_existing)
            if highest:
                count_on(connection, table, highest)
            return count

        count = self._pool.write(action)
        if count < len(rows) and not ignore_existing:
            raise StorageError(f"{self.path}: a row of {table} has a source and source_id that another one has")
        return count

    def update(self, table: str, where: Where, changes: Mapping[str, Any]) -> int:
        """See `Storage.update`."""
        known = self._columns(table)
        refuse_unknown(table, changes, known)
        filters, parameters = where_clause(where, known)
        values = [encoded(value, known[name]) for name, value in changes.items()]
        assignments = ", ".join(f"{quoted(name)} = %s::{known[name]}" for name in changes)
        sql = f"UPDATE {quoted(table)} SET {assignments}{filters}".encode()
        return self._pool.write(lambda connection: connection.execute(sql, [*values, *parameters]).rowcount)

    def delete(self, table: str, where: Where) -> int:
        """See `Storage.delete`."""
        filters, parameters = where_clause(where, self._columns(table))
        sql = f"DELETE FROM {quoted(table)}{filters}".encode()
        return self._pool.write(lambda connection: connection.execute(sql, parameters).rowcount)

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
        known = self._columns(table)
        names = list(columns or known)
        refuse_unknown(table, names, known)
        filters, parameters = where_clause(where, known)
        sql = f"{filters}{order_clause(order_by, known)}"
        if limit is not None:
            sql, parameters = f"{sql} LIMIT %s", [*parameters, limit]
        return self._pool.read(lambda connection: _select(connection, table, names, known, sql, parameters))

    def batches(
        self, table: str, *, by: Sequence[str], size: int, columns: Sequence[str] | None = None
    ) -> Iterator[list[Row]]:
        """See `Storage.batches`."""
        known = self._columns(table)
        names = list(columns or known)
        refuse_unknown(table, [*names, *by], known)
        key = listed(by)
        after: list[Any] = []
        while True:
            marks = ", ".join(f"%s::{known[name]}" for name in by)
            sql = (f" WHERE ({key}) > ({marks})" if after else "") + f" ORDER BY {key} LIMIT %s"
            given = [*after, size]
            batch = self._pool.read(partial(_select, table=table, names=names, known=known, end=sql, parameters=given))
            if batch:
                yield batch
            if len(batch) < size:
                return
            after = [encoded(batch[-1][name], known[name]) for name in by]

    def count(self, table: str, *, where: Where = ()) -> int:
        """See `Storage.count`."""
        filters, parameters = where_clause(where, self._columns(table))
        sql = f"SELECT count(*) FROM {quoted(table)}{filters}".encode()
        return int(self._pool.read(lambda connection: connection.execute(sql, parameters).fetchall()[0][0]))

    def touch(self, accesses: Mapping[str, tuple[datetime, int]]) -> None:
        """See `Storage.touch`."""
        names = sorted(accesses)  # in one order for everyone: two who touch the same never wait for each other
        sql = (
            "UPDATE context_registry c SET accessed_at = t.at, access_count = access_count + t.count FROM"
            " (SELECT r.context_key, t.at, t.count FROM unnest(%s::text[], %s::timestamptz[], %s::bigint[])"
            " t(id, at, count) JOIN context_registry r ON r.id = t.id ORDER BY r.id FOR UPDATE OF r) t"
            " WHERE c.context_key = t.context_key"
        )
        times, counts = [instant(accesses[name][0]) for name in names], [accesses[name][1] for name in names]
        self._pool.write(lambda connection: connection.execute(sql, [names, times, counts]).rowcount)

    # Transactions, schema, state

    @contextmanager
    def transaction(self, *, waiting: bool = True, whole: bool = False, keeping: bool = False) -> Iterator[Unit]:
        """See `Storage.transaction`; nothing is kept: a server does not tell whose commits there were."""
        try:
            with self._pool.transaction(waiting=waiting, whole=whole) as transaction:
                yield PostgresUnit(transaction)
        except BaseException:
            self._partitions.forget()
            raise

    def connection(self) -> AbstractContextManager[Connection]:
        """See `Storage.connection`: psycopg's, in autocommit."""
        return self._pool.lend()

    def connection_figures(self) -> dict[str, Any]:
        """See `Storage.connection_figures`."""
        return self._pool.told()

    @property
    def in_transaction(self) -> bool:
        """See `Storage.in_transaction`."""
        return self._pool.current_transaction is not None

    def stamp(self) -> Any:
        """See `Storage.stamp`."""
        return self._pool.stamp()

    def migration_status(self) -> dict[str, Any]:
        """See `Storage.migration_status`; raises `NewerSchema` or `NotALab` for a schema that is not ours to change."""
        return self._pool.read(lambda connection: postgres_schema.status(connection, self.path))

    def migrate(self, to: int | str | None = None) -> None:
        """See `SQLiteStorage.migrate`."""
        connection = self._pool.connect()
        try:
            with self._pool.translating():
                postgres_schema.migrate(connection, self.path, to)
        finally:
            connection.close()
        self._schema.clear()
        self._partitions.forget()

    def close(self) -> None:
        """See `Storage.close`."""
        self._pool.close()


def insert_rows(
    connection: Connection,
    table: str,
    columns: Mapping[str, Sequence[Any]],
    kinds: Sequence[str],
    *,
    ignore: bool,
) -> int:
    """Insert columns of encoded cells and return how many rows were added; `ignore` skips those whose key is taken."""
    names, vectors, rows = listed(columns), "vector" in kinds, len(next(iter(columns.values())))
    if rows >= COPY_ROWS and not (ignore or vectors):
        with connection.cursor() as cursor:
            copy_rows(cursor, f"{quoted(table)} ({names})", list(columns.values()), kinds)
            return cursor.rowcount
    if rows == 1 and not vectors:
        marks = ", ".join(f"%s::{kind}" for kind in kinds)
        parameters = [column[0] for column in columns.values()]
        source = f"VALUES ({marks})"
    else:
        arrays = ", ".join(f"%s::{kind}[]" for kind in kinds)
        parameters = [list(column) for column in columns.values()]
        if vectors:
            number = connection.execute("SELECT 'vector'::regtype::oid::bigint").fetchall()[0][0]
            for place, kind in enumerate(kinds):
                if kind == "vector":
                    parameters[place] = packed_vectors(parameters[place], type_number=number)
        source = f"SELECT * FROM unnest({arrays})"
    end = " ON CONFLICT DO NOTHING" if ignore else ""
    return connection.execute(f"INSERT INTO {quoted(table)} ({names}) {source}{end}".encode(), parameters).rowcount


def _select(
    connection: Connection,
    table: str,
    names: Sequence[str],
    known: Mapping[str, str],
    end: str,
    parameters: Sequence[Any],
) -> list[Row]:
    # pgvector's type is unknown to the driver, which gives its binary form as it is.
    places = [place for place, name in enumerate(names) if known[name] == "vector"]
    sql = f"SELECT {listed(names)} FROM {quoted(table)}{end}".encode()
    with connection.cursor(binary=bool(places)) as cursor:
        cursor.execute(sql, parameters)
        if not places:
            return [dict(zip(names, row, strict=True)) for row in cursor]
        found = []
        for row in cursor:
            cells = list(row)
            for place in places:
                cells[place] = vector_bytes(cells[place])
            found.append(dict(zip(names, cells, strict=True)))
        return found
