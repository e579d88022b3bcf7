"""What `SQLiteStorage` does to look after its file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlite_utils.utils import sqlite3

from .sqlite_columns import SQLiteColumns

if TYPE_CHECKING:
    from .sqlite_vectors import SQLiteVectors


class SQLiteCare(SQLiteColumns):
    """The operations of `SQLiteStorage` that look after the file."""

    _vectors: SQLiteVectors

    def health(self) -> dict[str, Any]:
        """See `Storage.health`."""
        engine, reason = self._vectors.chosen_engine()
        with self._pool.reader() as database:
            pages, size, free = (
                database.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "page_size", "freelist_count")
            )
            mode = database.execute("PRAGMA journal_mode").fetchone()[0]
        return {
            "path": self.path,
            "file_bytes": pages * size,
            "free_bytes": free * size,
            "journal_mode": mode,
            "sqlite_version": sqlite3.sqlite_version,
            "driver": sqlite3.__name__,
            "vector_engine": engine,
            "vector_engine_reason": reason,
            "read_only": self.read_only,
        }
