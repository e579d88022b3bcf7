"""A copy of an SQLite database while others read and write it, which counts only when it has been checked."""

from __future__ import annotations

import os
from contextlib import closing, suppress
from pathlib import Path

from sqlite_utils.utils import sqlite3

from ..errors import DamagedLab, StorageError
from .driver import translated
from .migrations import APPLICATION_ID
from .pages import MAGIC
from .pool import ConnectionPool
from .sqlite_check import Progress, check_file

PAGES_AT_ONCE = 2_000


def copy_database(pool: ConnectionPool, path: str, *, progress: Progress | None = None) -> None:
    """See `Storage.copy_to`."""
    if pool.current_transaction is not None:
        raise StorageError("a copy inside a transaction would hold what may be taken back: leave the block first")
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with closing(sqlite3.connect(path, isolation_level=None)) as copy:
        for pragma in ("journal_mode = OFF", "synchronous = OFF"):  # nobody has it yet, and it is synchronized below
            copy.execute(f"PRAGMA {pragma}")
        try:
            _copy(pool, copy, progress)
        except sqlite3.Error as exc:
            raise translated(exc, path) from exc
    _verify(path, progress)
    synchronize(path)


def _copy(pool: ConnectionPool, copy: sqlite3.Connection, progress: Progress | None) -> None:
    def tell(status: int, left: int, total: int) -> None:
        if progress is not None:
            progress(total - left, total)

    with pool.reader() as database:
        # What the connection has begun to read stays as it is: others may write meanwhile, and nothing starts anew.
        database.conn.execute("BEGIN")
        try:
            database.conn.execute("SELECT 1 FROM sqlite_master").fetchone()
            database.conn.backup(copy, pages=PAGES_AT_ONCE, progress=tell)
        finally:
            with suppress(sqlite3.Error):
                database.conn.execute("ROLLBACK")


def _verify(path: str, progress: Progress | None) -> None:
    errors = [item for item in check_file(path, writable=True, progress=progress) if item.severity == "error"]
    if errors:
        first = f"{errors[0].table} {errors[0].key}: {errors[0].finding}"
        raise DamagedLab(
            f"the copy has {len(errors)} errors ({first}), so it does not count, and older backups stay: "
            "al.check() looks at the lab itself, al.repair(path, to=…) saves what is whole"
        )


def synchronize(path: str | Path) -> None:
    """Make sure that a file, or the names in a folder, are on the disk and not only on their way."""
    if os.name == "nt" and Path(path).is_dir():
        return  # Windows has no such call for a folder
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_lab(path: Path) -> bool:
    """Whether a file that nobody has open is marked as a lab."""
    with path.open("rb") as file:
        header = file.read(72)
    return header.startswith(MAGIC) and int.from_bytes(header[68:72], "big") == APPLICATION_ID
