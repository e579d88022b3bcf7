"""Connections: one writer, several readers, and the one place where the driver's errors become ours."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import tenacity
from sqlite_utils import Database
from sqlite_utils.utils import sqlite3

from ..errors import (
    DamagedLab,
    LabBusy,
    LabClosed,
    LabError,
    NotALab,
    ReadOnlyLab,
    StorageError,
    StorageFull,
)

MEMORY = ":memory:"
Result = TypeVar("Result")


@dataclass
class Transaction:
    """A write transaction in progress; `journal` holds its operations, for whoever wants to repeat them.

    `lock` keeps apart the threads that work in one transaction, which share its connection.
    """

    database: Database
    owner: ConnectionPool
    vectors_changed: bool = False
    suspended: bool = False
    finished: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)
    journal: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)


# Follows the caller, not the thread: a transaction is found again after asyncio.to_thread.
_transactions: ContextVar[tuple[Transaction, ...]] = ContextVar("autom8_lab_transactions", default=())


def _code(error: BaseException) -> int:
    # The primary result code; the extended one has the detail in its upper bits.
    return int(getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


_NO_PLACE = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)


def is_busy(error: BaseException) -> bool:
    """Whether another connection's lock was in the way, so that trying again can help."""
    return isinstance(error, LabBusy) or (
        isinstance(error, sqlite3.Error) and _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    )


def translated(error: Exception, path: str) -> StorageError:
    """Return our error for the driver's."""
    kinds: dict[int, tuple[type[StorageError], str]] = {
        sqlite3.SQLITE_BUSY: (LabBusy, "another writer holds it: try again, or raise deadline_seconds"),
        sqlite3.SQLITE_LOCKED: (LabBusy, "another writer holds it: try again, or raise deadline_seconds"),
        sqlite3.SQLITE_READONLY: (ReadOnlyLab, "open it once for writing, where it may be written to"),
        sqlite3.SQLITE_NOTADB: (NotALab, "give the path of a lab, or of a file that does not exist yet"),
        sqlite3.SQLITE_CORRUPT: (DamagedLab, "keep the file as it is and restore a backup"),
        sqlite3.SQLITE_FULL: (StorageFull, "free some space: nothing of this call was kept"),
        sqlite3.SQLITE_CANTOPEN: (StorageError, "check that the folder exists and may be written to"),
    }
    kind, remedy = kinds.get(_code(error), (StorageError, "nothing of this call was kept"))
    return kind(f"{path}: {error}: {remedy}")


class ConnectionPool:
    """Hands out connections to one database file, or to one private in-memory database.

    Readers are pooled and may run beside the writer (WAL). `transaction` gives the only writing connection after
    `BEGIN IMMEDIATE`, retried with exponential backoff and jitter while other processes write. Inside a transaction
    every read of the same caller sees its own writes. `read_only` says why nothing may be written, where that is so.
    """

    def __init__(
        self,
        path: str,
        *,
        read_only: str | None = None,
        max_readers: int = 8,
        busy_timeout_ms: int = 1_000,
        deadline_seconds: float = 30.0,
        pragmas: dict[str, str | int] | None = None,
        prepare: Callable[[sqlite3.Connection], None] | None = None,
    ) -> None:
        self.path = path
        self.read_only = read_only
        self.in_memory = path == MEMORY
        self._place = Path(path).absolute()  # the working directory may change while the lab is open
        self._deadline_seconds = deadline_seconds
        self._busy_timeout_ms = busy_timeout_ms
        self._pragmas = pragmas or {}
        self._prepare = prepare
        self._immutable = False
        self._closed = False
        self._write_lock = threading.RLock()
        self._idle: list[Database] = []
        self._slots = threading.BoundedSemaphore(max_readers)
        self._guard = threading.Lock()
        self._writer: Database | None = None
        self._observing = threading.Lock()
        self._observer: Database | None = None
        self._active: Transaction | None = None

    def _connect(self, *, writing: bool) -> Database:
        if self.in_memory:
            connection = sqlite3.connect(MEMORY, check_same_thread=False)
        else:
            mode = "rwc" if writing else "ro&immutable=1" if self._immutable else "ro" if self.read_only else "rw"
            connection = sqlite3.connect(
                f"{self._place.as_uri()}?mode={mode}",
                uri=True,
                timeout=self._busy_timeout_ms / 1000,
                check_same_thread=False,
                cached_statements=256,
            )
        try:
            return self._set_up(connection, writing=writing)
        except BaseException:
            connection.close()
            raise

    def _set_up(self, connection: sqlite3.Connection, *, writing: bool) -> Database:
        if self._prepare:
            self._prepare(connection)
        database = Database(connection, execute_plugins=False)
        # An older SQLite takes FTS5 in our own triggers for unsafe, too.
        trusted = int(sqlite3.sqlite_version_info < (3, 51))
        for name, value in {"foreign_keys": 1, "trusted_schema": trusted, **self._pragmas}.items():
            connection.execute(f"PRAGMA {name} = {value}")
        if not writing and not self.in_memory:
            connection.execute("PRAGMA query_only = 1")
        return database

    def _current(self) -> Transaction | None:
        for item in reversed(_transactions.get()):
            if item.owner is self and not item.suspended and not item.finished:
                return item
        return None

    @contextmanager
    def reader(self) -> Iterator[Database]:
        """Lend a connection for reading: the transaction's own inside one, else one from the pool."""
        current = self._current()
        if current is not None:
            with current.lock, self._door():
                yield current.database
            return
        if self.in_memory:
            with self._writer_lock(), self._door():
                self._refuse_another_task()
                yield self._open_writer()
            return
        if not self._slots.acquire(timeout=self._deadline_seconds):
            raise LabBusy(
                f"no reading connection to {self.path} came free in {self._deadline_seconds} s: "
                "raise max_connections or deadline_seconds"
            )
        try:
            with self._door():
                database = self.retry(self._take_reader)
                try:
                    yield database
                finally:
                    self._give_back(database)
        finally:
            self._slots.release()

    def _take_reader(self) -> Database:
        with self._guard:
            if self._closed:
                raise LabClosed
            if self._idle:
                return self._idle.pop()
        try:
            database = self._connect(writing=False)
            database.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as exc:
            # A WAL database in a folder that may not be written to has no place for its shared-memory file.
            if not self.read_only or _code(exc) not in _NO_PLACE or self._is_unfinished():
                raise
            self._immutable = True
            database = self._connect(writing=False)
        return database

    def _is_unfinished(self) -> bool:
        # What stands in these belongs to the database: whoever reads without them reads something else.
        beside = [Path(f"{self._place}{ending}") for ending in ("-wal", "-journal")]
        return any(place.exists() and place.stat().st_size > 0 for place in beside)

    def _give_back(self, database: Database) -> None:
        with self._guard:
            if not self._closed and not database.conn.in_transaction:
                self._idle.append(database)
                return
        database.close()

    @contextmanager
    def transaction(self, *, waiting: bool = True) -> Iterator[Transaction]:
        """Group writes: all of them land at the end of the block, or none. Nested blocks are savepoints.

        With `waiting=False` a writer that is at work, here or in another process, means `LabBusy` at once.
        """
        current = self._current()
        if current is not None:
            with current.lock:
                mark = len(current.journal)
                try:
                    with self._door(), current.database.atomic():
                        yield current
                except BaseException:
                    del current.journal[mark:]
                    raise
            return
        if self.read_only:
            raise ReadOnlyLab(f"{self.path} {self.read_only}")
        with self._writer_lock(waiting=waiting), self._door():
            database = self._open_writer()
            self._refuse_another_task()
            outer, transaction = self._active, Transaction(database, self)
            self._active = transaction
            token = _transactions.set((*_transactions.get(), transaction))
            try:
                self.begin(transaction, waiting=waiting)
                try:
                    yield transaction
                    self.retry(lambda: database.conn.execute("COMMIT"))
                except BaseException:
                    database.rollback()
                    raise
            finally:
                transaction.finished = True
                self._active = outer
                _transactions.reset(token)

    def begin(self, transaction: Transaction, *, waiting: bool = True) -> None:
        """Take the database's write lock for this transaction."""
        execute = transaction.database.conn.execute
        if waiting:
            self.retry(lambda: execute("BEGIN IMMEDIATE"))
            return
        execute("PRAGMA busy_timeout = 0")
        try:
            execute("BEGIN IMMEDIATE")
        finally:
            execute(f"PRAGMA busy_timeout = {self._busy_timeout_ms}")

    def retry(self, action: Callable[[], Result]) -> Result:
        """Repeat an action while the database is busy, until the deadline."""
        try:
            return action()  # the usual case, without what a retry costs to set up
        except sqlite3.Error as exc:
            if not is_busy(exc):
                raise
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_busy),
            wait=tenacity.wait_random_exponential(multiplier=0.005, max=0.5),
            stop=tenacity.stop_after_delay(self._deadline_seconds),
            reraise=True,
        )(action)

    @contextmanager
    def _writer_lock(self, *, waiting: bool = True) -> Iterator[None]:
        started = time.monotonic()
        if not self._write_lock.acquire(timeout=self._deadline_seconds if waiting else 0):
            waited = time.monotonic() - started
            raise LabBusy(
                f"another thread kept the writing connection to {self.path} for {waited:.1f} s: "
                "end its transaction sooner, or raise deadline_seconds"
            )
        try:
            yield
        finally:
            self._write_lock.release()

    def _refuse_another_task(self) -> None:
        # The lock is a thread's; two tasks of one thread are told apart here.
        if self._active is not None and not self._active.suspended:
            raise LabBusy(f"another task of this thread is in a transaction on {self.path}: await it first")

    def _open_writer(self) -> Database:
        if self._closed:
            raise LabClosed
        if self._writer is None:
            self._writer = self.retry(lambda: self._connect(writing=True))
        return self._writer

    def stamp(self) -> int | None:
        """Return a number that is another one after every commit of anyone; None inside a transaction."""
        if self._current() is not None:
            return None
        if self.in_memory:
            with self._writer_lock(), self._door():
                return int(self._open_writer().conn.total_changes)
        with self._observing, self._door():
            # A connection of its own, which writes nothing: data_version leaves out what its connection wrote.
            if self._closed:
                raise LabClosed
            if self._observer is None:
                self._observer = self._connect(writing=False)
            return int(self._observer.execute("PRAGMA data_version").fetchone()[0])

    @contextmanager
    def exclusive(self) -> Iterator[Database]:
        """Lend the writing connection outside a transaction, for statements that cannot run inside one."""
        with self._writer_lock(), self._door():
            yield self._open_writer()

    @contextmanager
    def _door(self) -> Iterator[None]:
        try:
            yield
        except LabError:
            raise
        except sqlite3.Error as exc:
            raise translated(exc, self.path) from exc

    @property
    def current_transaction(self) -> Transaction | None:
        """The transaction that the caller is in, or None."""
        return self._current()

    def close(self) -> None:
        """Close every connection; the last one checkpoints the WAL. Closing twice is fine."""
        with self._writer_lock():
            with self._guard:
                self._closed = True
                idle, self._idle = self._idle, []
            with self._observing:
                idle += [self._observer] if self._observer is not None else []
                self._observer = None
            for database in idle:
                database.close()
            if self._writer is not None:
                self._writer.close()
                self._writer = None
