"""Many rows at once on PostgreSQL: columns into a table and out of it, packed by the server."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Any

from ..records import Group
from .base import Coded, Storage, Where
from .filters import quoted, refuse_unknown
from .postgres_driver import Connection
from .postgres_partitions import PARTITIONED, Partitions, month_of
from .postgres_pool import PostgresPool
from .postgres_sql import encoded, listed, order_clause, where_clause

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .base import Columnar

# The numbers that the server gives rows, by table.
KEYS = {
    "context_registry": "context_key",
    "context_chunks": "chunk_key",
    "embedding_sets": "set_key",
    "embeddings": "embedding_key",
    "usage_ledger": "usage_key",
    "settings_log": "settings_key",
    "care_log": "care_key",
    "billing": "bill_key",
}
# Those that others speak of: a transaction that is repeated gives the same ones again.
SPOKEN_OF = {"embedding_sets", "usage_ledger", "settings_log", "billing"}
SOURCES = "usage_sources"
COPY_ROWS = 8
IDS = {"id", "source_id"}  # texts that hardly repeat: to code them would only cost
EPOCH_2000_US = 946_684_800_000_000  # PostgreSQL counts from the year 2000
NOTHING_AT = -(2**63)  # NaT, and also PostgreSQL's -infinity
NUMBERS, TIME = ("bigint", "integer", "double precision", "boolean"), "timestamp with time zone"


class PostgresColumns(Storage):
    """The operations of `PostgresStorage` that move whole columns."""

    _pool: PostgresPool
    _partitions: Partitions

    @abstractmethod
    def _columns(self, table: str) -> dict[str, str]: ...

    def append(
        self, table: str, columns: Mapping[str, Columnar], *, unique: Sequence[str]
    ) -> tuple[list[int], list[bool]]:
        """See `Storage.append`."""
        known = self._columns(table)
        refuse_unknown(table, [*columns, *unique], known)
        cells = {name: _cells(column, known[name]) for name, column in columns.items()}
        rows = len(next(iter(cells.values())))
        if not rows:
            return [], []
        if table not in KEYS:
            return _append_unnumbered(self, table, cells)
        months = {month_of(at) for at in set(cells["at"])} if table in PARTITIONED else set()
        kept: list[int] = []

        def action(connection: Connection) -> tuple[list[int], list[bool]]:
            if months:
                self._partitions.make(connection, table, months)
            numbered(connection, table, kept, rows)
            return _append(connection, table, {KEYS[table]: kept, **cells}, known, unique)

        return self._pool.write(action)

    def update_each(self, table: str, columns: Mapping[str, Columnar], *, key: str) -> int:
        """See `Storage.update_each`."""
        known = self._columns(table)
        refuse_unknown(table, [*columns, key], known)
        names = [name for name in columns if name != key]
        arrays = ", ".join(f"%s::{known[name]}[]" for name in [key, *names])
        assignments = ", ".join(f"{quoted(name)} = given.{quoted(name)}" for name in names)
        sql = (
            f"UPDATE {quoted(table)} t SET {assignments} FROM unnest({arrays}) given({listed([key, *names])})"
            f" WHERE t.{quoted(key)} = given.{quoted(key)}"
        ).encode()
        cells = [_cells(columns[name], known[name]) for name in [key, *names]]
        return self._pool.write(lambda connection: connection.execute(sql, cells).rowcount)

    def columns(
        self,
        table: str,
        names: Sequence[str],
        *,
        keys: Sequence[Group] = (),
        where: Where = (),
        order_by: Sequence[str] = (),
        limit: int | None = None,
    ) -> dict[str, NDArray[Any] | Coded]:
        """See `Storage.columns`: each column comes as one value, packed by the server."""
        known = self._columns(table)
        refuse_unknown(table, [*names, *(key.column for key in keys)], known)
        filters, parameters = where_clause(where, known)
        end = f"{filters}{order_clause(order_by, known)}" + ("" if limit is None else f" LIMIT {limit:d}")
        terms = [quoted(name) for name in names]
        given: list[Any] = []
        for group in keys:
            term, values = json_value(group)
            terms.append(term)
            given += values
        kinds = [known[name] for name in names] + ["text"] * len(keys)
        inner = ", ".join(f"{term} AS c{place}" for place, term in enumerate(terms))
        packed = ", ".join(_packed(kind, f"c{place}") for place, kind in enumerate(kinds))
        sql = f"SELECT {packed} FROM (SELECT {inner} FROM {quoted(table)}{end}) rows".encode()

        def action(connection: Connection) -> dict[str, NDArray[Any] | Coded]:
            with connection.cursor(binary=True) as cursor:
                cells = list(cursor.execute(sql, [*given, *parameters]).fetchall()[0])
            labels = [*names, *(group.label for group in keys)]
            for place in range(len(names), len(labels)):
                shown = {text: key_text(text) for text in set(cells[place] or ())}
                cells[place] = [shown[text] for text in cells[place] or ()]
            return {
                label: _unpacked(kind, cell, plain=label in IDS)
                for label, kind, cell in zip(labels, kinds, cells, strict=True)
            }

        return self._pool.read(action)


def numbered(connection: Connection, table: str, kept: list[int], count: int) -> None:
    """Take numbers for so many rows; those that were taken already when this is repeated, for others may know them."""
    if not kept:
        sql = "SELECT nextval(pg_get_serial_sequence(%s, %s)) FROM generate_series(1, %s)"
        kept.extend(row[0] for row in connection.execute(sql, [table, KEYS[table], count]))


def count_on(connection: Connection, table: str, highest: int) -> None:
    """Let the next number come after the highest one that somebody brought along."""
    connection.execute(
        "SELECT setval(s, %s) FROM pg_get_serial_sequence(%s, %s) s"
        " WHERE coalesce((SELECT last_value FROM pg_sequences WHERE format('%%I.%%I', schemaname, sequencename) = s), 0)"
        " < %s",
        [highest, table, KEYS[table], highest],
    )


def _append_unnumbered(
    storage: PostgresColumns, table: str, cells: Mapping[str, list[Any]]
) -> tuple[list[int], list[bool]]:
    rows = [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]
    with storage.transaction():
        new = [bool(storage.insert(table, [row], ignore_existing=True)) for row in rows]
    return list(range(1, len(rows) + 1)), new


def _append(
    connection: Connection,
    table: str,
    cells: Mapping[str, list[Any]],
    known: Mapping[str, str],
    unique: Sequence[str],
) -> tuple[list[int], list[bool]]:
    keys, key = cells[KEYS[table]], KEYS[table]
    rows = list(zip(*cells.values(), strict=True))
    given = list(zip(*(cells[name] for name in unique), strict=True))
    if len(rows) < COPY_ROWS or table not in PARTITIONED:
        marks = ", ".join(f"%s::{known[name]}" for name in cells)
        conflict = "" if table in PARTITIONED else f" ON CONFLICT ({listed(unique)}) DO NOTHING"
        sql = f"INSERT INTO {quoted(table)} ({listed(cells)}) VALUES ({marks}){conflict}".encode()
        added = 0
        for row in rows:
            added += connection.execute(sql, row).rowcount
    else:
        with connection.cursor() as cursor:
            with cursor.copy(f"COPY {quoted(table)} ({listed(cells)}) FROM STDIN".encode()) as copy:
                for row in rows:
                    copy.write_row(row)
            added = cursor.rowcount
    if added == len(rows):
        return list(keys), [True] * added
    holder = SOURCES if table in PARTITIONED else table
    arrays = ", ".join(f"%s::{known[name]}[]" for name in unique)
    sql = (
        f"SELECT {quoted(key)}, {listed(unique)} FROM {holder} t JOIN unnest({arrays}) wanted({listed(unique)})"
        f" USING ({listed(unique)})"
    ).encode()
    taken = {
        tuple(name): number
        for number, *name in connection.execute(sql, [list(column) for column in zip(*given, strict=True)])
    }
    found = [taken.get(name, own) if None not in name else own for name, own in zip(given, keys, strict=True)]
    return found, [number == own for number, own in zip(found, keys, strict=True)]


def _cells(column: Columnar, kind: str) -> list[Any]:
    """Return a column's values as the driver takes them (NaN and NaT are nothing)."""
    import numpy as np

    if not isinstance(column, np.ndarray) or column.dtype.kind == "O":
        known: dict[int, Any] = {}  # in a JSON column most rows share what they have
        cells = []
        for value in column:
            if value is None or type(value) is str:
                cells.append(value)
                continue
            if id(value) not in known:
                known[id(value)] = encoded(value, kind)
            cells.append(known[id(value)])
        return cells
    if column.dtype.kind == "M":
        return [None if value is None else value.replace(tzinfo=UTC) for value in column.astype("M8[us]").tolist()]
    if column.dtype.kind == "f":
        whole = kind in ("bigint", "integer")
        number: Any = int if whole else float
        if kind == "boolean":
            number = bool
        return [None if value != value else number(value) for value in column.tolist()]
    return [encoded(value, kind) for value in column.tolist()]


def _packed(kind: str, column: str) -> str:
    if kind in NUMBERS:
        number = f"{column}::integer::float8" if kind == "boolean" else f"{column}::float8"
        return f"string_agg(float8send(coalesce({number}, 'NaN')), '')"
    if kind == TIME:
        return f"string_agg(timestamptz_send(coalesce({column}, '-infinity')), '')"
    return f"array_agg({column}::text)"


def _unpacked(kind: str, cell: Any, *, plain: bool) -> NDArray[Any] | Coded:
    import numpy as np

    if kind in NUMBERS:
        return np.frombuffer(cell or b"", dtype=">f8").astype(np.float64)
    if kind == TIME:
        instants = np.frombuffer(cell or b"", dtype=">i8").astype(np.int64)
        instants = np.where(instants == NOTHING_AT, NOTHING_AT, instants + EPOCH_2000_US)
        return instants.view("datetime64[us]")
    texts = cell or []
    if plain or kind == "jsonb":
        cells = np.empty(len(texts), dtype=object)
        cells[:] = texts
        return cells
    codes: dict[str | None, int] = {None: -1}
    for text in texts:
        if text not in codes:
            codes[text] = len(codes) - 1
    found = np.fromiter((codes[text] for text in texts), dtype=np.int32, count=len(texts))
    return Coded(found, [text for text in codes if text is not None])


def json_value(group: Group) -> tuple[str, list[Any]]:
    """Return SQL for a JSON column's top-level key: "t" and a text, "j" and another value's JSON, null as NULL."""
    value = f"({quoted(group.column)} -> %s::text)"
    own = f"({quoted(group.column)} ->> %s::text)"
    sql = f"CASE jsonb_typeof({value}) WHEN 'string' THEN 't' || {own} WHEN 'null' THEN NULL ELSE 'j' || {value}::text END"
    return f'({sql}) COLLATE "C"', [group.key] * 3


def key_text(value: str | None) -> str | None:
    """Return the text that a key's value is shown as: JSON without spaces, as SQLite writes it."""
    if value is None or value[0] == "t":
        return value and value[1:]
    if value[1] in "[{":
        return json.dumps(json.loads(value[1:]), ensure_ascii=False, separators=(",", ":"))
    return value[1:]
