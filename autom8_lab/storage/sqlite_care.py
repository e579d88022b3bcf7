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
        with self._pool.reader() as database:
            active = database.execute("SELECT set_key FROM embedding_sets WHERE state = 'active'").fetchone()
            choice = self._vectors.choose(database, active[0] if active else None)
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
            "vector_engine": choice.engine,
            "vector_engine_reason": choice.reason,
            "sqlite_vec": self._vectors.vec.missing or "loaded",
            "hnsw_vectors": choice.ready.facts["vectors"] if choice.ready else None,
            "hnsw_recall_at_10": choice.ready.facts["recall_at_10"] if choice.ready else None,
            "hnsw_lag": choice.ready.lag if choice.ready else None,
            "read_only": self.read_only,
        }
