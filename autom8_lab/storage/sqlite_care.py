"""What `SQLiteStorage` does to look after its file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

from ..records import Finding
from . import sqlite_health
from .sqlite_backup import copy_database
from .sqlite_check import Check
from .sqlite_columns import SQLiteColumns

if TYPE_CHECKING:
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
