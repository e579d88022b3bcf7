"""Opening connections to one database: all alike, and none that trusts what the file says."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

from sqlite_utils import Database
from sqlite_utils.utils import sqlite3

from .. import forking
from ..errors import DamagedLab, LabForked, StatementTimeout, StorageError
from .driver import NO_PLACE, code, moved

MEMORY = ":memory:"
GUARD_STEPS = 1_000  # SQLite's steps between two looks at the clock
MODES = {"read": "rw", "write": "rw", "lend": "ro"}

FileId = tuple[int, int]
Use = Literal["read", "write", "lend"]

# Files whose connections a forked child has inherited: SQLite in this process believes that it holds their locks.
inherited: set[FileId] = set()


def file_id(path: str) -> FileId:
    """Return what tells a file from every other one: its device and its inode."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


class Guard:
    """Stops what runs for too long on one connection, and lets Ctrl-C through while it runs."""

    __slots__ = ("_dead", "_limit_seconds", "_raised", "_until")

    def __init__(self, limit_seconds: float) -> None:
        self._limit_seconds = limit_seconds
        self._raised: BaseException | None = None
        self.renew()

    def arm(self, connection: sqlite3.Connection) -> None:
        """Let SQLite ask this guard, every so many steps, whether to go on."""
        # A generator, because a signal that comes while it is entered is raised inside its try; in a function it would
        # be raised before, and the driver would swallow it.
        self._dead = False
        watch = self._watch()
        next(watch)
        connection.set_progress_handler(watch.__next__, GUARD_STEPS)

    def renew(self, limit_seconds: float | None = None) -> None:
        """Begin to count anew, for another piece of work."""
        self._until = time.monotonic() + (limit_seconds or self._limit_seconds)

    def _watch(self) -> Iterator[bool]:
        stop = False
        try:
            while True:
                try:
                    while True:  # its way back is inside the try, too
                        yield stop
                        stop = time.monotonic() > self._until
                except GeneratorExit:
                    return
                except BaseException as exc:
                    self._raised, stop = exc, True
        finally:
            self._dead = True

    def overran(self) -> bool:
        """Whether the time is up, and no signal came."""
        return self._raised is None and time.monotonic() > self._until

    def reason(self, path: str, connection: sqlite3.Connection) -> BaseException | None:
        """Return why a statement was interrupted, once: a signal's exception, or that it took too long."""
        overran, raised, self._raised = self.overran(), self._raised, None
        if self._dead:  # a second signal came while the first one was noted
            self.arm(connection)
            return raised or KeyboardInterrupt()
        if overran:
            return StatementTimeout(
                f"{path}: a statement ran for more than statement_seconds={self._limit_seconds:g} and was stopped: "
                "ask for less, or raise the setting; a file of unknown origin may be made to do this"
            )
        return raised


class Slot:
    """Room for one reading connection; it is free again when the connection is gone."""

    __slots__ = ("__weakref__",)


class PooledDatabase(Database):
    """A connection with what the pool knows about it: its guard, its file, its process."""

    def __init__(self, connection: sqlite3.Connection, *, guard: Guard, file: FileId | None) -> None:
        super().__init__(connection, execute_plugins=False)
        self.guard = guard
        self.file = file
        self.wal: FileId | None = None
        self.process = forking.process
        self.epoch: object = None
        self.slot: Slot | None = None


class Opener:
    """Opens the connections to one database file, or to one private in-memory database."""

    def __init__(
        self,
        path: str,
        *,
        read_only: bool,
        busy_timeout_ms: int,
        deadline_seconds: float,
        statement_seconds: float,
        pragmas: Mapping[str, str | int],
        prepare: Callable[[sqlite3.Connection], None] | None,
    ) -> None:
        self.path = path
        self.in_memory = path == MEMORY
        place = Path(path).absolute()  # the working directory may change while the lab is open
        self.place = str(place)
        self.wal_path = f"{place}-wal"  # where SQLite keeps the commits that are not in the file yet
        self._uri = place.as_uri()
        self._read_only = read_only
        self._immutable = False
        self._statement_seconds = statement_seconds
        # One try ends well before the deadline. A read cannot be tried again from outside, so its one try is long.
        self.write_timeout_ms = min(busy_timeout_ms, int(deadline_seconds * 500))
        self._timeout_ms = {"read": int(deadline_seconds * 1000), "write": self.write_timeout_ms}
        self._pragmas = pragmas
        self._prepare = prepare

    def open(self, use: Use) -> PooledDatabase:
        """Open a connection for the pool's reading or writing, or for lending to a user."""
        if self.in_memory:
            return self._set_up(sqlite3.connect(MEMORY, check_same_thread=False), use, file=None)
        try:
            return self._open_file(use)
        except sqlite3.OperationalError as exc:
            # A WAL database in a folder that may not be written to has no place for its shared-memory file.
            if not self._read_only or code(exc) not in NO_PLACE or self._is_unfinished():
                raise
            self._immutable = True
            return self._open_file(use)

    def _open_file(self, use: Use) -> PooledDatabase:
        file = self.present_file()
        self.wal_path = f"{os.path.realpath(self.place)}-wal"
        if file in inherited:
            raise LabForked(
                f"{self.path}: this process was forked while the lab was in use: open it after the fork, "
                "or start processes with spawn"
            )
        mode = "ro&immutable=1" if self._immutable else "ro" if self._read_only else MODES[use]
        connection = sqlite3.connect(
            f"{self._uri}?mode={mode}",
            uri=True,
            timeout=self._timeout_ms.get(use, self._timeout_ms["read"]) / 1000,
            check_same_thread=False,
            cached_statements=256,
        )
        database = self._set_up(connection, use, file=file)
        if self.present_file() != file:
            database.close()
            raise moved(self.path, what="the file was replaced")
        if use != "write":
            database.wal = self.present_wal()
        return database

    def _set_up(self, connection: sqlite3.Connection, use: Use, *, file: FileId | None) -> PooledDatabase:
        try:
            if self._prepare:
                self._prepare(connection)
            guard = Guard(self._statement_seconds)
            guard.arm(connection)
            database = PooledDatabase(connection, guard=guard, file=file)
            harden(connection)
            for name, value in {"foreign_keys": 1, **self._pragmas}.items():
                connection.execute(f"PRAGMA {name} = {value}")
            if use != "write" and not self.in_memory:
                connection.execute("PRAGMA query_only = 1")
                connection.execute("SELECT 1 FROM sqlite_master").fetchone()  # whether it can be read at all
            return database
        except UnicodeDecodeError as exc:  # what SQLite says of a damaged schema quotes it
            connection.close()
            raise DamagedLab(f"{self.path}: its schema is damaged: al.repair(path, to=…) saves what is whole") from exc
        except BaseException:
            connection.close()
            raise

    def present_file(self) -> FileId:
        """Return which file is at the lab's place now. Raises `LabMoved`."""
        try:
            return file_id(self.place)
        except FileNotFoundError:
            raise moved(self.path) from None
        except OSError as exc:
            raise StorageError(f"{self.path}: {exc.strerror}: check that its folder may be read") from exc

    def present_wal(self) -> FileId | None:
        """Return which WAL is beside the file now, None where there is none."""
        try:
            return file_id(self.wal_path)
        except FileNotFoundError:
            return None

    def set_wal_aside(self, wal: FileId | None, *, read_only: bool) -> str | None:
        """Rename the WAL of a file that is gone, so that its commits are not taken for those of the next file.

        Its other users go on with it. Returns the new name if there was something in it.
        """
        if wal is None or self.present_wal() != wal:
            return None
        name = self.wal_path
        if read_only and os.stat(name).st_size:
            raise moved(self.path, what=f"the file was replaced, and {name} is that of the old one")
        with suppress(FileNotFoundError):
            os.unlink(f"{name[: -len('wal')]}shm")
        if os.stat(name).st_size == 0:
            os.unlink(name)
            return None
        os.rename(name, f"{name}.replaced")
        return f"{name}.replaced"

    def _is_unfinished(self) -> bool:
        # What stands in these belongs to the database: whoever reads without them reads something else.
        beside = [Path(f"{self.place}{ending}") for ending in ("-wal", "-journal")]
        return any(place.exists() and place.stat().st_size > 0 for place in beside)


def leave_to_parent(database: PooledDatabase) -> None:
    """Keep a connection that a fork brought here for as long as this process lives, without ever touching it.

    To close it would write to memory and files that the parent goes on using; so would Python, when it ends, if the
    last reference went with it.
    """
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(database.conn))
    if database.file is not None:
        inherited.add(database.file)


def harden(connection: sqlite3.Connection) -> None:
    """Make a connection distrust the file: its schema runs no unsafe function, its pages are checked.

    Defensive mode, which forbids SQL to write to the shadow tables of indexes, exists from Python 3.12 on.
    See https://sqlite.org/security.html.
    """
    # An older SQLite takes FTS5 in our own triggers for unsafe, too.
    trusted = int(sqlite3.sqlite_version_info < (3, 51))
    connection.execute(f"PRAGMA trusted_schema = {trusted}")
    connection.execute("PRAGMA cell_size_check = 1")
    set_defensive(connection, True)


def set_defensive(connection: sqlite3.Connection, on: bool) -> None:
    """Switch defensive mode, where the driver has the switch."""
    option = getattr(sqlite3, "SQLITE_DBCONFIG_DEFENSIVE", None)
    if option is not None:
        connection.setconfig(option, on)  # type: ignore[attr-defined]
