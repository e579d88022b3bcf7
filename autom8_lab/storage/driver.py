"""The driver's errors: which of them pass when one waits, and what they are in our words."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

from sqlite_utils.utils import sqlite3

from ..errors import (
    DamagedLab,
    LabBusy,
    LabMoved,
    NotALab,
    ReadOnlyLab,
    StorageError,
    StorageFull,
)

# Extended codes, which pysqlite3 does not name.
BUSY_SNAPSHOT = 517  # a read transaction that has seen an old state can never write, however long it waits
READONLY_DBMOVED = 1032
# After these a connection is not used again: what it holds in memory may be wrong.
BREAKING = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}
NO_PLACE = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
ROOM_BYTES = 256 * 1024  # with less than this free, a failing disk is a full one

BUSY = (LabBusy, "another writer holds it: try again, or raise deadline_seconds")
REFUSALS: dict[int, tuple[type[StorageError], str]] = {
    sqlite3.SQLITE_BUSY: BUSY,
    sqlite3.SQLITE_LOCKED: BUSY,
    sqlite3.SQLITE_PROTOCOL: BUSY,
    sqlite3.SQLITE_READONLY: (ReadOnlyLab, "open it once for writing, where the file and its folder may be written to"),
    sqlite3.SQLITE_NOTADB: (NotALab, "give the path of a lab, or of a file that does not exist yet"),
    sqlite3.SQLITE_CORRUPT: (DamagedLab, "keep the file as it is and restore a backup"),
    sqlite3.SQLITE_FULL: (StorageFull, "free some space: nothing of this call was kept"),
    sqlite3.SQLITE_CANTOPEN: (StorageError, "check that the folder exists and may be read and written to"),
    sqlite3.SQLITE_IOERR: (StorageError, "check the disk or the network: nothing of this call was kept"),
}


# What copies one database into another raises its errors without their codes.
CODES = {
    "database or disk is full": sqlite3.SQLITE_FULL,
    "database disk image is malformed": sqlite3.SQLITE_CORRUPT,
    "database is locked": sqlite3.SQLITE_BUSY,
    "disk I/O error": sqlite3.SQLITE_IOERR,
}


def extended_code(error: BaseException) -> int:
    """Return SQLite's extended result code, 0 where the error has none."""
    known = CODES.get(str(error), 0) if isinstance(error, sqlite3.Error) else 0
    return int(getattr(error, "sqlite_errorcode", None) or known)


def code(error: BaseException) -> int:
    """Return SQLite's primary result code, 0 where the error has none."""
    return extended_code(error) & 0xFF


def is_busy(error: BaseException) -> bool:
    """Whether another connection's lock was in the way, so that trying again can help."""
    if isinstance(error, LabBusy):
        return True
    busy = code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return busy and isinstance(error, sqlite3.Error) and extended_code(error) != BUSY_SNAPSHOT


def is_breaking(error: BaseException | None) -> bool:
    """Whether the connection that raised this must not be used again."""
    return isinstance(error, sqlite3.Error) and code(error) in BREAKING


def is_swallowed_signal(error: BaseException) -> bool:
    """Whether Ctrl-C came while SQLite was calling a Python function of ours: none of them raises by itself."""
    in_a_function = str(error) == "user-defined function raised exception"
    return in_a_function and threading.current_thread() is threading.main_thread()


def translated(error: Exception, path: str) -> StorageError:
    """Return our error for the driver's."""
    if extended_code(error) == READONLY_DBMOVED:
        return moved(path)
    kind, remedy = REFUSALS.get(code(error), (StorageError, "nothing of this call was kept"))
    if code(error) in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and _is_full(path):
        kind, remedy = REFUSALS[sqlite3.SQLITE_FULL]
    return kind(f"{path}: {error}: {remedy}")


def moved(path: str, *, what: str = "the file was deleted or moved away") -> LabMoved:
    """Return the error for a file that is not at its place any more."""
    return LabMoved(f"{path}: {what} while the lab was open: put it back, or close the lab and open another")


def _is_full(path: str) -> bool:
    # A full disk shows in many ways: no room for the shared memory, for a page, for a name in the folder.
    try:
        return shutil.disk_usage(Path(path).absolute().parent).free < ROOM_BYTES
    except OSError:
        return False
