"""A checksum for every row: a bit that flips on the disk is found wherever it is.

A context's text has its SHA-256 besides; the checksum covers everything else. It is a CRC-32 (undetected damage:
one in four billion), a guard against accidents, not against intent. Whoever changes a row with another program
empties its checksum (a trigger does), and the lab's next write gives it a new one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from struct import pack
from typing import TYPE_CHECKING, Any
from zlib import crc32

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sqlite_utils import Database
    from sqlite_utils.utils import sqlite3

COLUMN = "checksum"
FUNCTION = "autom8_checksum"
EMPTY = "SET NULL"
CONTEXTS = "context_registry"
UNCOVERED = {(CONTEXTS, "content")}  # content_hash is its checksum
# A read changes only these two, and must not cost a look at the whole row: they have the upper half of the checksum.
LAST_ACCESS, ACCESS_COUNT = "accessed_at", "access_count"
_MIXER, _MASK = 2_654_435_761, 0x7FFF_FFFF
_NOTHING = math.nan


class Seal:
    """Computes the checksums of one table, whose columns are given as `PRAGMA table_info` has them.

    The cells are taken in the order of the columns, the empty ones at the end left out: a column that a later
    migration adds changes no checksum.
    """

    def __init__(self, table: str, info: Sequence[Sequence[Any]], defaults: Mapping[str, Any]) -> None:
        apart = {LAST_ACCESS, ACCESS_COUNT} if table == CONTEXTS else set()
        number = rowid_column(info)
        self.table = table
        self.columns = [
            name for _, name, *_ in info if name not in {COLUMN, number} | apart and (table, name) not in UNCOVERED
        ]
        self.apart = [LAST_ACCESS, ACCESS_COUNT] if apart else []
        self._defaults = [defaults.get(name) for name in [*self.columns, *self.apart]]
        self.empty_by_default = {
            name for name, default in zip([*self.columns, *self.apart], self._defaults, strict=True) if default is None
        }
        kinds = {name: kind for _, name, kind, *_ in info}
        self._kinds = [kinds[name] for name in [*self.columns, *self.apart]]
        self._start = crc32(table.encode())

    def of(self, cells: Sequence[Any]) -> int:
        """Return the checksum of a row: the cells of `columns` and `apart`, as SQLite stores them or as bytes."""
        count = len(self.columns)
        upper = _access(*cells[count:]) << 32 if self.apart else 0
        return upper | _digest([_number(cell) for cell in cells[:count]], self._start)

    def of_rows(self, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[int]:
        """Return a checksum for each row of cells under these names; the others have their defaults."""
        place = {name: position for position, name in enumerate(names)}
        places = [place.get(name) for name in [*self.columns, *self.apart]]
        if None not in places:
            return [self.of([row[position] for position in places]) for row in rows]  # type: ignore[index]
        pairs = list(zip(places, self._defaults, strict=True))
        return [self.of([default if at is None else row[at] for at, default in pairs]) for row in rows]

    def of_columns(self, names: Sequence[str], columns: Sequence[Any], stored: Sequence[Sequence[Any]]) -> list[int]:
        """Do what `of_rows` does for columns: as they were given (numbers in arrays), and as they are stored."""
        import numpy as np

        length = len(stored[0])
        table = np.empty((length, len(self.columns)))
        given = {name: (column, cells) for name, column, cells in zip(names, columns, stored, strict=True)}
        for place, name in enumerate(self.columns):
            column, cells = given.get(name, (None, [self._defaults[place]]))
            table[:, place] = _numbers(column, cells)
        filled = ~np.isnan(table)
        lengths = np.where(filled.any(axis=1), table.shape[1] - filled[:, ::-1].argmax(axis=1), 0) * 8
        buffer, width = memoryview(table.tobytes()), table.shape[1] * 8
        starts = range(0, length * width, width)
        lower = [crc32(buffer[at : at + size], self._start) for at, size in zip(starts, lengths.tolist(), strict=True)]
        if not self.apart:
            return lower
        accesses = [given[name][1] if name in given else [None] * length for name in self.apart]
        return [_access(last, count) << 32 | value for value, last, count in zip(lower, *accesses, strict=True)]

    @property
    def expression(self) -> str:
        """SQL for the checksum of a row, by the function that `register` adds."""
        # As bytes, because a damaged text need not be one.
        cells = ", ".join(
            f'CAST("{name}" AS BLOB)' if kind == "TEXT" else f'"{name}"'
            for name, kind in zip([*self.columns, *self.apart], self._kinds, strict=True)
        )
        return f"{FUNCTION}('{self.table}', {cells})"

    def renew(self, database: Database, *, all_rows: bool = False) -> None:
        """Seal the rows that have no checksum, or all, inside the caller's transaction."""
        # One that is right already stays untouched: the trigger would take the row for changed by others.
        which = f"{COLUMN} IS NOT {self.expression}" if all_rows else f"{COLUMN} IS NULL"
        database.conn.execute(f'UPDATE "{self.table}" SET {COLUMN} = {self.expression} WHERE {which}')


def _number(cell: Any) -> float:
    kind = type(cell)
    if kind is float or kind is int:
        return cell or 0.0  # -0.0 is stored as 0
    if cell is None:
        return _NOTHING
    return crc32(cell.encode() if kind is str else cell)


def _numbers(column: Any, cells: Sequence[Any]) -> NDArray[Any]:
    import numpy as np

    if getattr(getattr(column, "dtype", None), "kind", "O") in "fiub":
        numbers: NDArray[Any] = column.astype(np.float64) + 0.0
        numbers[np.isnan(numbers)] = np.nan  # there are many NaNs; this is the one that is meant
        return numbers
    distinct = set(cells)
    if len(distinct) == 1:
        return np.full(len(cells), _number(cells[0]))
    if len(distinct) > len(cells) // 2:
        return np.array([crc32(cell.encode()) if type(cell) is str else _number(cell) for cell in cells], np.float64)
    known = {cell: _number(cell) for cell in distinct}
    return np.array([known[cell] for cell in cells], dtype=np.float64)


def _digest(numbers: list[float], start: int) -> int:
    while numbers and numbers[-1] != numbers[-1]:
        numbers.pop()
    return crc32(pack(f"<{len(numbers)}d", *numbers), start)


def _access(last: Any, count: Any) -> int:
    return (int(count or 0) * _MIXER + access_code(last)) & _MASK


def access_code(last: str | bytes | None) -> int:
    """Return what a last access adds to the upper half of a checksum."""
    return 0 if last is None else crc32(last.encode() if isinstance(last, str) else last)


# What a read does to the checksum in SQL; ?2 is how many accesses there were, ?3 the `access_code` of the last.
AFTER_ACCESS = f"({COLUMN} & 4294967295) | (((({ACCESS_COUNT} + ?2) * {_MIXER} + ?3) & {_MASK}) << 32)"


class Seals:
    """The seals of one database, and what has to be sealed again after a change."""

    def __init__(self) -> None:
        self._of: dict[str, Seal | None] = {}
        self._references: list[tuple[str, str, str, str, str]] = []

    def clear(self) -> None:
        """Forget what was read from the schema, which has changed."""
        self._of.clear()
        self._references.clear()

    @contextmanager
    def kept(self, database: Database) -> Iterator[None]:
        """Keep the checksums right while a migration changes tables and rows."""
        before = {table: seal_of(database, table) for table in plain_tables(database)}
        yield
        self.clear()
        for table in plain_tables(database):
            seal, old = seal_of(database, table), before.get(table)
            if seal is not None:
                seal.renew(database, all_rows=old is not None and old.columns != seal.columns)

    def of(self, database: Database, table: str) -> Seal | None:
        """Return what computes the checksums of a table, or None where its rows have none."""
        if table not in self._of:
            self._of[table] = seal_of(database, table)
        return self._of[table]

    def after_update(self, database: Database, table: str, changed: Iterable[str]) -> None:
        """Seal the rows of a table that were changed, and those that a change of their key went on to."""
        names = set(changed)
        followers = {child for child, parent, key, _, _ in self._all(database) if parent == table and key in names}
        for name in {table} | followers:
            self._reseal(database, name)

    def after_delete(self, database: Database, table: str) -> None:
        """Seal the rows whose reference to a deleted one was emptied."""
        for name in {
            child for child, parent, _, _, action in self._all(database) if (parent, action) == (table, EMPTY)
        }:
            self._reseal(database, name)

    def _reseal(self, database: Database, table: str) -> None:
        seal = self.of(database, table)
        if seal is not None:
            seal.renew(database)

    def _all(self, database: Database) -> list[tuple[str, str, str, str, str]]:
        if not self._references:
            self._references = [
                (table, parent, key, on_update, on_delete)
                for table in plain_tables(database)
                for _, _, parent, _, key, on_update, on_delete, _ in database.execute(
                    f'PRAGMA foreign_key_list("{table}")'
                )
            ]
        return self._references


def rowid_column(info: Sequence[Sequence[Any]]) -> str | None:
    """Return the column that is the rowid under another name, by what `PRAGMA table_info` says of a table."""
    keys = [row for row in info if row[5]]
    return keys[0][1] if len(keys) == 1 and keys[0][2] == "INTEGER" else None


def plain_tables(database: Database) -> list[str]:
    """Return the tables that need no extension to be read."""
    sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL TABLE%' ORDER BY rowid"
    return [name for (name,) in database.execute(sql)]


def seal_of(database: Database, table: str) -> Seal | None:
    """Return what computes the checksums of a table, or None where its rows have none."""
    info = database.execute(f'PRAGMA table_info("{table}")').fetchall()
    if not any(row[1] == COLUMN for row in info):
        return None
    literals = {row[1]: row[4] for row in info if row[4] is not None}
    defaults = {name: database.execute(f"SELECT {literal}").fetchone()[0] for name, literal in literals.items()}
    return Seal(table, info, defaults)


def register(connection: sqlite3.Connection) -> None:
    """Give a connection the SQL function that `Seal.renew` uses."""

    def checksum(table: str, *cells: Any) -> int:
        start = crc32(table.encode())
        if table != CONTEXTS:
            return _digest([_number(cell) for cell in cells], start)
        return _access(*cells[-2:]) << 32 | _digest([_number(cell) for cell in cells[:-2]], start)

    connection.create_function(FUNCTION, -1, checksum, deterministic=True)


def add_checksums(database: Database, table: str) -> None:
    """Give a table its column of checksums: a step of a migration."""
    register(database.conn)
    database.table(table).add_column(COLUMN, int)
    database.execute(f'CREATE INDEX "idx_{table}_unsealed" ON "{table}"({COLUMN}) WHERE {COLUMN} IS NULL')
    database.execute(
        f"""
        CREATE TRIGGER "{table}_unseal" AFTER UPDATE ON "{table}"
        WHEN new.{COLUMN} IS old.{COLUMN} AND new.{COLUMN} IS NOT NULL BEGIN
            UPDATE "{table}" SET {COLUMN} = NULL WHERE rowid = new.rowid;
        END
        """
    )
    seal = seal_of(database, table)
    assert seal is not None
    seal.renew(database)


def drop_checksums(database: Database, table: str) -> None:
    """Take `add_checksums` back."""
    database.execute(f'DROP TRIGGER "{table}_unseal"')
    database.execute(f'DROP INDEX "idx_{table}_unsealed"')
    database.execute(f'ALTER TABLE "{table}" DROP COLUMN {COLUMN}')
