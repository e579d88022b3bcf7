"""Verbs that look after the file."""

from __future__ import annotations

from ..records import Condition, Report
from .parts import Parts


class CareVerbs(Parts):
    """Look after the file."""

    def stats(self) -> Report:
        """Return how much the lab holds, which model and engine answer, and the size of the file."""
        self._access.flush()
        health, active = self._storage.health(), self._index.active_set()
        count = self._storage.count
        now = self._clock()
        return Report(
            path=health["path"],
            contexts=count("context_registry"),
            aliases=count("context_aliases"),
            pinned=count("context_registry", where=[Condition("pinned", "=", True)]),
            expired=count("context_registry", where=[Condition("expires_at", "<=", now)]),
            superseded=count("context_registry", where=[Condition("superseded_by", "is not null")]),
            chunks=count("context_chunks"),
            embeddings=count("embeddings"),
            without_vectors=self._storage.count_without_chunks(active.set_key if active else None),
            decisions=count("agent_decisions"),
            usage_rows=count("usage_ledger"),
            searches=count("access_log", where=[Condition("kind", "=", "search")]),
            embedding_model=active.model_id if active else None,
            vector_engine=health["vector_engine"],
            file_bytes=health["file_bytes"],
        )

    def health(self) -> Report:
        """Return the state of the file and its engines: sizes, SQLite, migrations, which vector engine and why."""
        status, active = self._storage.migration_status(), self._index.active_set()
        return Report(
            self._storage.health(),
            embedding_model=active.model_id if active else None,
            without_vectors=self._storage.count_without_chunks(active.set_key if active else None),
            migrations=f"{status['applied_count']}/{status['total_migrations']}",
        )
