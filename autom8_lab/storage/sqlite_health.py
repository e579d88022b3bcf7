"""What an SQLite file says about its own state, quickly and without changing anything."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlite_utils import Database
from sqlite_utils.utils import sqlite3

from ..records import Report
from .driver import code
from .opening import PooledDatabase
from .pool import ConnectionPool
from .sql import decoded
from .sqlite_chunks import current_position
from .sqlite_text import renew
from .sqlite_vec import VEC_TABLE
from .sqlite_vectors import NO_CHUNKS, Choice, SQLiteVectors

Line = Callable[[], Any]

QUICK_SECONDS = 0.5  # how long a line that looks at many pages may take
SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")
# https://sqlite.org/wal.html#walresetbug: fixed in 3.51.3 and, for those who stay there, in 3.44.6 and 3.50.7.
BUG_FIRST, BUG_LAST, BUG_FIXED = (3, 7, 0), (3, 51, 2), ((3, 44, 6), (3, 50, 7))
ACTIVE_SET = "SELECT set_key FROM embedding_sets WHERE state = 'active'"
UNUSED_VECTORS = (
    "SELECT count(*) FROM embeddings e WHERE NOT EXISTS"
    " (SELECT 1 FROM context_chunks k WHERE k.chunk_hash = e.chunk_hash)"
)
LAST_BACKUP = "SELECT at, details FROM care_log WHERE kind = 'backup' ORDER BY care_key DESC LIMIT 1"


def health(pool: ConnectionPool, vectors: SQLiteVectors, names: Collection[str] | None) -> dict[str, Any]:
    """See `Storage.health`."""
    lines = _lines(_Eye(pool), vectors)
    return Report.gathered(lines if names is None else {name: lines[name] for name in names})


class _Eye:
    """Reads single values of one database."""

    def __init__(self, pool: ConnectionPool) -> None:
        self.pool = pool
        self.place = Path(pool.path).absolute()

    def value(self, sql: str) -> Any:
        with self.pool.reader() as database:
            row = database.execute(sql).fetchone()
        return None if row is None else row[0]

    def quickly(self, sql: str, *, prepare: Callable[[Database], None] | None = None) -> list[Any] | None:
        """Return the first column of a query, or None where that takes too long."""
        with self.pool.reader() as database, limited(database, QUICK_SECONDS) as found:
            if prepare:
                prepare(database)
            found += [row[0] for row in database.execute(sql).fetchall()]
        return found or None


def _lines(eye: _Eye, vectors: SQLiteVectors) -> dict[str, Line]:
    pool, value = eye.pool, eye.value

    @functools.cache
    def choice() -> Choice:
        with pool.reader() as database:
            active = database.execute(ACTIVE_SET).fetchone()
            return vectors.choose(database, vectors.seen(database, active[0]).now if active else NO_CHUNKS)

    return {
        "path": lambda: pool.path,
        "file_bytes": lambda: value("PRAGMA page_count") * value("PRAGMA page_size"),
        "wal_bytes": lambda: size_of(f"{eye.place}-wal"),
        "free_bytes": lambda: value("PRAGMA freelist_count") * value("PRAGMA page_size"),
        "disk_free_bytes": lambda: None if pool.in_memory else shutil.disk_usage(eye.place.parent).free,
        "read_only": lambda: pool.read_only is not None,
        "journal_mode": lambda: value("PRAGMA journal_mode"),
        "synchronous": lambda: SYNCHRONOUS[value("PRAGMA synchronous")],
        "foreign_keys": lambda: "on" if value("PRAGMA foreign_keys") else "off",
        "quick_check": lambda: _quick_check(eye),
        "last_backup": lambda: _last_backup(pool),
        "sqlite_version": lambda: sqlite3.sqlite_version,
        "wal_reset_bug": _wal_reset_bug,
        "driver": lambda: sqlite3.__name__,
        "sqlite_vec": lambda: vectors.vec.missing or value("SELECT vec_version()"),
        "vector_engine": lambda: choice().engine,
        "vector_engine_reason": lambda: choice().reason,
        "sqlite_vec_lag": lambda: _vec_lag(pool, vectors),
        "hnsw_vectors": lambda: ready.facts["vectors"] if (ready := choice().ready) else None,
        "hnsw_recall_at_10": lambda: ready.facts["recall_at_10"] if (ready := choice().ready) else None,
        "hnsw_lag": lambda: ready.lag if (ready := choice().ready) else None,
        "unused_vectors": lambda: _unused_vectors(eye),
    }


@contextmanager
def limited(database: PooledDatabase, seconds: float) -> Iterator[list[Any]]:
    """Break off what runs in the block after so many seconds; the list that it fills is then empty."""
    found = list[Any]()
    database.guard.renew(seconds)
    try:
        yield found
    except sqlite3.OperationalError as exc:
        if code(exc) != sqlite3.SQLITE_INTERRUPT or not database.guard.overran():
            raise
        found.clear()
    finally:
        database.guard.renew()


def has_wal_reset_bug(version: tuple[int, ...]) -> bool:
    """Whether this SQLite can damage a file that two connections write and checkpoint at one instant.

    >>> has_wal_reset_bug((3, 50, 4)), has_wal_reset_bug((3, 50, 7)), has_wal_reset_bug((3, 53, 4))
    (True, False, False)
    """
    repaired = any(version[:2] == fixed[:2] and version >= fixed for fixed in BUG_FIXED)
    return BUG_FIRST <= version <= BUG_LAST and not repaired


def size_of(path: str) -> int:
    """Return how many bytes a file has; 0 where there is none."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def _wal_reset_bug() -> str:
    if has_wal_reset_bug(sqlite3.sqlite_version_info[:3]):
        return f"SQLite {sqlite3.sqlite_version} has it: install pysqlite3, or a Python with SQLite 3.51.3 or newer"
    return "fixed in this version"


def _quick_check(eye: _Eye) -> str:
    said = eye.quickly("PRAGMA quick_check(3)", prepare=renew)
    return "; ".join(said) if said else f"not finished in {QUICK_SECONDS} s: al.check() looks at everything"


def _unused_vectors(eye: _Eye) -> Any:
    counted = eye.quickly(UNUSED_VECTORS)
    return counted[0] if counted else f"not counted in {QUICK_SECONDS} s"


def _vec_lag(pool: ConnectionPool, vectors: SQLiteVectors) -> int | None:
    """Return how many changes of chunks `vec_embeddings` has not seen yet; None where there is no such table."""
    with pool.reader() as database:
        row = database.execute(ACTIVE_SET).fetchone()
        if row is None or not database.table(VEC_TABLE).exists():
            return None
        at, now = vectors.vec.position(database), current_position(database, row[0])
    if at.set_key != now.set_key:
        return now.chunk_key
    return max(now.chunk_key - at.chunk_key, 0) + max(now.deletion_key - at.deletion_key, 0)


def _last_backup(pool: ConnectionPool) -> str:
    with pool.reader() as database:
        row = database.execute(LAST_BACKUP).fetchone()
    if row is None:
        return "none: al.backup(path) makes one"
    at, details = decoded("at", row[0]), decoded("details", row[1])
    place = str(details.get("path"))
    return f"{at:%Y-%m-%d %H:%M:%S} UTC, {place}{'' if Path(place).exists() else ' (no longer there)'}"
