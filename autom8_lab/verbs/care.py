"""Verbs that look after the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import backups, care, exchange
from ..care import told_of
from ..records import Condition, Report
from ..validation import path_value
from .parts import Parts

if TYPE_CHECKING:
    import os

    import pandas as pd


class CareVerbs(Parts):
    """Look after the file."""

    def stats(self) -> Report:
        """Return how much the lab holds, which model and engine answer, the size of the file, and its connections.

        `connection_waits` counts the calls that had to wait for a connection or a lock, `…_wait_ms_p50` and `…_p99`
        tell how long (the last 4,096 of them), `connection_timeouts` how often in vain, `connection_retries` the tries
        after the first one.
        """
        self._access.flush()
        health = self._storage.health(["path", "vector_engine", "file_bytes"])
        active = self._index.active_set()
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
            **self._storage.connection_figures(),
        )

    def health(self) -> Report:
        """Return the state of the file and its engines, quickly, changing nothing; `check` looks at every row.

        Sizes in bytes, journal and safety settings, `quick_check` (for half a second), the last backup, SQLite and
        whether it has the WAL-reset bug, migrations, the model and how much of the lab has its vectors, what runs it
        and why (once this process has used it), the vector engine and why that one, and which applied settings are to
        be tuned again, because the vectors or the searches are no longer those they were chosen for. What a damaged file does not let
        see says so in its line; nothing is raised.
        """
        storage = self._storage

        def migrations() -> str:
            status = storage.migration_status()
            return f"{status['applied_count']}/{status['total_migrations']}"

        def without_vectors() -> int:
            active = self._index.active_set()
            return storage.count_without_chunks(active.set_key if active else None)

        return Report(
            storage.health(),
            **Report.gathered(
                {
                    "migrations": migrations,
                    "embedding_model": lambda: getattr(self._index.active_set(), "model_id", None),
                    "embedding_backend": lambda: self._index.backend()[0],
                    "embedding_backend_reason": lambda: self._index.backend()[1],
                    "contexts": lambda: storage.count("context_registry"),
                    "without_vectors": without_vectors,
                    "applied_settings": lambda: len(self._applied.in_force()),
                    "settings_to_tune_again": lambda: "; ".join(self._watch.to_tune_again()) or "none",
                }
            ),
        )

    def check(self, *, progress: bool | None = None) -> pd.DataFrame:
        """Look at everything in the file, changing nothing, and return what is wrong: a row each, none when sound.

        The structure of the file and of its full-text index, the schema, every checksum and content hash, what every
        value may be, references, chunks against their texts, vectors and what is derived from them, and what is in
        the write-ahead log. `severity` is "error" (damage or loss) or "warning"; `table` and `key` say where, `remedy`
        what to do. Takes as long as reading the file a few times; nothing is raised for what cannot be read.

        >>> lab.check()
        Empty DataFrame
        Columns: [severity, table, key, finding, remedy]
        Index: []
        """
        return care.check(self._storage, progress=progress)

    def backup(self, path: str | os.PathLike[str], *, keep: int | None = None, progress: bool | None = None) -> Report:
        """Copy the lab while others read and write it, check the copy, and only then let it count.

        `path` is a file, whose older backup is replaced; or a folder (one that exists, or a name without an ending),
        which gets a file named by lab and time, such as autom8-20260501T120000000000Z.db, and of which the newest
        `keep` stay (7). The copy is made aside, checked as `check` does, put on the disk and renamed; only its owner
        may read it. A damaged copy raises `DamagedLab` and leaves all older ones. `health` tells of the last backup.

        >>> lab.backup("copy.db")["verified"]
        True
        """
        self._access.flush()
        with told_of(path_value(path)):
            return backups.backup(self._storage, path, keep=keep, at=self._clock(), progress=progress)

    def export(self, path: str | os.PathLike[str], *, vectors: bool = True, progress: bool | None = None) -> Report:
        """Write everything in the lab into a file of JSON lines, as of one moment, compressed where it ends in .gz.

        The same lab always gives the same bytes, whichever back end it is on. `vectors=False` leaves the vectors out:
        `embed_contexts` makes them again. An older export at `path` is replaced, any other file refused. The format
        is in docs/export-format.md. Raises `DamagedLab` where a text does not fit its hash.

        >>> lab.export("lab.jsonl")["rows"]
        0
        """
        self._access.flush()
        with told_of(path_value(path)):
            return exchange.export(self._storage, path, vectors=vectors, progress=progress)

    def import_export(self, path: str | os.PathLike[str], *, progress: bool | None = None) -> Report:
        """Read what `export` wrote into this lab, which has to be empty: all of it or nothing.

        Every line is checked, and the whole by its SHA-256. Raises `InvalidValue` naming the line, and `NewerSchema`
        for the export of a newer version.

        >>> exported = lab.export("lab.jsonl")
        >>> lab.import_export("lab.jsonl")["rows"]
        0
        """
        with told_of(path_value(path)):
            return exchange.import_export(self._storage, path, at=self._clock(), progress=progress)
