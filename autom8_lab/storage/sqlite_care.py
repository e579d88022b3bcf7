"""What `SQLiteStorage` does to look after its file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from ..records import Finding
from . import migrations, sqlite_health
from .base import TableShape
from .checksums import plain_tables
from .snapshots import snapshot
from .sql import kind_of
from .sqlite_backup import copy_database
from .sqlite_check import Check, own_tables
from .sqlite_columns import SQLiteColumns

# What can be made again, and what is about this file and not about the lab in it.
DERIVED = {"chunk_deletions", "index_state", "care_log", migrations.migrations.migrations_table}

if TYPE_CHECKING:
    from sqlite_utils import Database

    from .sqlite_vectors import SQLiteVectors


class SQLiteCare(SQLiteColumns):
    """The operations of `SQLiteStorage` that look after the file."""

    _vectors: SQLiteVectors

    def health(self, names: Collection[str] | None = None) -> dict[str, Any]:
        """See `Storage.health`."""
        return sqlite_health.health(self._pool, self._vectors, names)

    def check(self, *, progress: Callable[[int, int], None] | None = None) -> Iterator[Finding]:
        """See `Storage.check`."""
        return Check(self._pool, progress=progress).findings()

    def copy_to(self, path: str, *, progress: Callable[[int, int], None] | None = None) -> None:
        """See `Storage.copy_to`."""
        copy_database(self._pool, path, progress=progress)

    def tables(self) -> dict[str, TableShape]:
        """See `Storage.tables`."""
        with self._pool.reader() as database:
            present = [name for name in plain_tables(database) if name in own_tables() - DERIVED]
            return {name: self._table_shape(database, name) for name in present}

    def _table_shape(self, database: Database, table: str) -> TableShape:
        info = database.execute(f'PRAGMA table_info("{table}")').fetchall()
        keys = sorted((row[5], row[1]) for row in info if row[5])
        references = database.execute(f'PRAGMA foreign_key_list("{table}")').fetchall()
        return TableShape(
            columns={name: kind_of(name, type_name) for name, type_name in self._columns(database, table).items()},
            key=tuple(name for _, name in keys),
            references=frozenset(row[2] for row in references),
        )

    def snapshot(self) -> AbstractContextManager[None]:
        """See `Storage.snapshot`."""
        return snapshot(self._pool)
