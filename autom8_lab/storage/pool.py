"""Connections: one writer, several readers, and the one place where the driver's errors become ours."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, TypeVar

from sqlite_utils import Database
from sqlite_utils.utils import sqlite3

from .. import forking
from ..errors import LabBusy, LabClosed, LabForked, LabMoved, ReplacedLabWarning, StorageError
from ..forking import Forkable, follow_forks
from ..leaks import place_of_thread
from .driver import code, is_breaking, is_swallowed_signal, moved, translated
from .lending import Lending, LendingInside, Reading
from .opening import FileId, Opener, PooledDatabase, Use, leave_to_parent
from .questions import asking, question_of
from .readers import Readers, discard
from .transactions import Kept, Savepoint, Transaction, Writing, is_suspended, level_of
from .waiting import Figures, Gate, Holder, Turn, retry

Result = TypeVar("Result")
NO_FILE = (-1, -1)
LOOK_SECONDS = 0.05  # who read an instant before the file was replaced would have seen the same
FORK_PATIENCE_SECONDS = 0.5  # a fork waits for connections that are in use, but not for long


class Visit:
    """A turn that is neither a transaction nor a read."""

    def __init__(self) -> None:
        self.thread: int | None = threading.get_ident()


class Moment(NamedTuple):
    """What tells, after a commit, whether it was the only one: the stamp, and a count of what others committed."""

    stamp: Any
    others_version: int


class ConnectionPool(Forkable):
    """Hands out connections to one database file, or to one private in-memory database.

    Readers are pooled and may run beside the writer (WAL). `transaction` gives the only writing connection after
    `BEGIN IMMEDIATE`, retried with exponential backoff and jitter while other processes write. Inside a transaction
    every read of the same caller sees its own writes. `read_only` says why nothing may be written, where that is so.

    The file at the path is compared with the one that was opened, before use (twenty times a second at most) and after
    every commit: one that is gone means `LabMoved`; another one is taken up, after `on_replaced` has looked at it.
    """

    def __init__(
        self,
        path: str,
        *,
        read_only: str | None = None,
        max_readers: int = 8,
        busy_timeout_ms: int = 1_000,
        deadline_seconds: float = 30.0,
        statement_seconds: float = 600.0,
        pragmas: dict[str, str | int] | None = None,
        prepare: Callable[[sqlite3.Connection], None] | None = None,
        on_replaced: Callable[[], None] | None = None,
    ) -> None:
        self.path = path
        self.read_only = read_only
        self.opener = Opener(
            path,
            read_only=read_only is not None,
            busy_timeout_ms=busy_timeout_ms,
            deadline_seconds=deadline_seconds,
            statement_seconds=statement_seconds,
            pragmas=pragmas or {},
            prepare=prepare,
        )
        self.in_memory = self.opener.in_memory
        self.turn = Turn()
        self.inside = Gate()  # of the turns inside a transaction
        self._deadline_seconds = deadline_seconds
        self._figures = Figures()
        self.readers = Readers(
            lambda: self.open("read"),
            path=path,
            limit=max_readers,
            deadline_seconds=deadline_seconds,
            figures=self._figures,
        )
        self._writer: PooledDatabase | None = None
        self._observing = threading.Lock()
        self._observer: PooledDatabase | None = None
        self._file: FileId | None = None  # None in memory
        self._looked = 0.0
        self._wal: FileId | None = None
        self._on_replaced = on_replaced
        self._renewing = threading.RLock()
        self._renewed_by: int | None = None
        self._process = forking.process
        self._fork_visit: Visit | None = None
        self._fork_observing = False
        follow_forks(self)

    # What is lent

    def reader(self) -> Reading:
        """Lend a connection for reading: the transaction's own inside one, else one from the pool."""
        return Reading(self)

    def lend(self) -> AbstractContextManager[Database]:
        """Lend a connection for somebody's own SQL, for reading alone: the transaction's inside one, else a new one."""
        outer = level_of(self)
        return Lending(self) if outer is None else LendingInside(self, outer)

    def transaction(
        self, *, waiting: bool = True, whole: bool = False, kept: Kept | None = None
    ) -> AbstractContextManager[Transaction]:
        """Group writes: all of them land at the end of the block, or none. Nested blocks are savepoints.

        With `waiting=False` a writer that is at work, here or in another process, means `LabBusy` at once. In a
        `whole` block what fails ends the block, see `Level.part`. `kept` is told the stamp before the commit and the
        one after it, if nobody else committed meanwhile.
        """
        outer = level_of(self)
        if outer is not None:
            return Savepoint(self, outer, whole=whole)
        return Writing(self, waiting=waiting, whole=whole, kept=kept)

    @contextmanager
    def exclusive(self) -> Iterator[PooledDatabase]:
        """Lend the writing connection outside a transaction, for statements that cannot run inside one."""
        self.look_at_place()
        visit = Visit()
        self.take_turn(self.turn, visit)
        database = None
        try:
            database = self.writer()
            yield database
        except sqlite3.Error as exc:
            if database is not None and is_breaking(exc):
                self.drop_writer(database)
            raise self.ours(exc, database) from exc
        finally:
            self.turn.give_back(visit)

    def stamp(self) -> Any:
        """Return a value that is another one after every commit of anyone; None inside a transaction."""
        if level_of(self) is not None:
            return None
        question = question_of(self)
        return self._stamp_now() if question is None else question.stamp

    def _stamp_now(self) -> Any:
        if self.in_memory:
            if self._writer is not None:  # counted without a turn: who asks may be reading, and then has it
                return self._writer.conn.total_changes
            with self.reader() as database:
                return database.conn.total_changes
        self.look_at_place()
        return self._observed()

    def _observed(self) -> Any:
        with self._observing:
            # A connection of its own, which writes nothing: data_version leaves out what its connection wrote.
            if self.readers.closed:
                raise LabClosed
            try:
                if self._observer is None:
                    self._observer = self.open("read")
                self._observer.guard.renew()  # it lives as long as the lab, and each question is a statement of its own
                version = self._observer.conn.execute("PRAGMA data_version").fetchone()[0]
            except sqlite3.Error as exc:
                raise self.ours(exc, self._observer) from exc
            return self._observer.file, version

    def asking(self) -> AbstractContextManager[None]:
        """Let the block go by the stamp of its beginning."""
        return nullcontext() if level_of(self) is not None else asking(self, self._stamp_now())

    def before_commit(self, database: PooledDatabase) -> Moment | None:
        """Return the moment before the caller's commit, which must be the next one of all; None in memory."""
        return None if self.in_memory else Moment(self._observed(), _others_version(database))

    def after_commit(self, before: Moment, database: PooledDatabase) -> Any:
        """Return the stamp after the caller's commit, or None where somebody else has committed too."""
        stamp = self._observed()
        # Asked last: what others commit after this question, the next stamp tells.
        return stamp if _others_version(database) == before.others_version else None

    @property
    def current_transaction(self) -> Transaction | None:
        """The transaction that the caller is in, or None."""
        level = level_of(self)
        return None if level is None else level.transaction

    def figures(self) -> dict[str, Any]:
        """Return how many connections there are and how much callers had to wait for them."""
        writing = self._writer is not None
        return {
            "connections_open": self.readers.open_count + writing + (self._observer is not None),
            "connections_in_use": self.readers.used_count + (writing and self.turn.holder is not None),
            "connection_waits": self._figures.waits,
            "connection_retries": self._figures.retries,
            "connection_timeouts": self._figures.timeouts,
            "connection_wait_ms_p50": self._figures.quantile_ms(0.5),
            "connection_wait_ms_p99": self._figures.quantile_ms(0.99),
        }

    # What those who borrow need

    def deadline(self, *, waiting: bool = True) -> float:
        """Return when to give up, on the monotonic clock."""
        return time.monotonic() + (self._deadline_seconds if waiting else 0)

    def take_turn(self, turn: Turn, holder: Holder, *, until: float | None = None) -> bool:
        """Wait for a turn; False where the caller has it already.

        That is so inside a read of its own, and in a transaction that let the database go.
        """
        if turn.take(holder, until=0):
            return True
        if is_suspended(self):
            return False
        if turn.is_of_this_thread:
            if isinstance(turn.holder, Reading):
                return False
            raise LabBusy(f"another task of this thread is in a transaction on {self.path}: await it first")
        started, other = time.monotonic(), getattr(turn.holder, "thread", None)
        got = turn.take(holder, until=self.deadline() if until is None else until)
        self._figures.waited(started, in_vain=not got)
        if not got:
            raise LabBusy(
                f"another thread{place_of_thread(other)} kept the writing connection to {self.path} for "
                f"{time.monotonic() - started:.1f} s: end its transaction sooner, or raise deadline_seconds"
            )
        return True

    def begin(self, transaction: Transaction, *, waiting: bool = True, until: float | None = None) -> None:
        """Take the database's write lock for this transaction."""
        database = transaction.database
        execute = database.conn.execute
        database.guard.renew()  # the connection may have rested for long
        if waiting:
            self.retry(lambda: execute("BEGIN IMMEDIATE"), until=until)
        else:
            execute("PRAGMA busy_timeout = 0")
            try:
                execute("BEGIN IMMEDIATE")
            finally:
                execute(f"PRAGMA busy_timeout = {self.opener.write_timeout_ms}")
        database.guard.renew()
        if database.wal is None and not self.in_memory:
            self._wal = database.wal = self.opener.present_wal()

    def retry(self, action: Callable[[], Result], *, until: float | None = None) -> Result:
        """Repeat an action while the database is busy, until the deadline."""
        return retry(
            action,
            until=self.deadline() if until is None else until,
            patience_seconds=self.opener.write_timeout_ms / 1000,
            figures=self._figures,
        )

    def ours(self, error: sqlite3.Error, database: PooledDatabase | None = None) -> BaseException:
        """Return our error for the driver's; for an interruption, what interrupted."""
        if database is not None and code(error) == sqlite3.SQLITE_INTERRUPT:
            return database.guard.reason(self.path, database.conn) or translated(error, self.path)
        if is_swallowed_signal(error):
            return KeyboardInterrupt()
        return translated(error, self.path)

    def open(self, use: Use) -> PooledDatabase:
        """Open a connection to the file that the pool is about."""
        try:
            database = self.retry(lambda: self.opener.open(use))
        except sqlite3.Error as exc:
            raise self.ours(exc) from exc
        if self._file is None:
            self._file = database.file
        elif database.file != self._file and self._renewed_by != threading.get_ident():
            database.close()
            raise moved(self.path, what="the file was replaced")
        self._wal = database.wal or self._wal
        return database

    def writer(self) -> PooledDatabase:
        """Return the writing connection to whoever has the turn."""
        if self.readers.closed:
            raise LabClosed
        if self._process != forking.process:
            raise LabForked(f"{self.path} is in the memory of the process that opened it: open a lab in this one")
        if self._writer is None:
            self._writer = self.open("write")
        if self._writer.conn.in_transaction:
            self._writer.rollback()  # left by somebody who was interrupted before he could
        return self._writer

    def drop_writer(self, database: PooledDatabase) -> None:
        """Close a writing connection that must not be used again; what is in memory has no other place."""
        if not self.in_memory:
            if self._writer is database:
                self._writer = None
            discard(database)

    # The file at the path

    def look_at_place(self) -> None:
        """Make sure that the file at the path is the one that is open; take up another one. Raises `LabMoved`."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS or self._file is None:
            return
        if self.opener.present_file() != self._file and self._renewed_by != threading.get_ident():
            self._take_up_new_file()
        self._looked = now

    def _take_up_new_file(self) -> None:
        with self._renewing:
            present = self.opener.present_file()
            if present == self._file:
                return  # another thread did it
            aside = self.opener.set_wal_aside(self._wal, read_only=self.read_only is not None)
            kept = "" if aside is None else f"; commits that were only in its WAL are now in {aside}"
            warnings.warn(
                f"{self.path} was replaced by another file, with which the lab goes on{kept}",
                ReplacedLabWarning,
                stacklevel=5,
            )
            self._renewed_by = threading.get_ident()
            try:
                self._renew()
                if self._on_replaced is not None:
                    self._on_replaced()
                self._file = present
            except BaseException:
                self._renew()
                self._file = NO_FILE  # the next caller looks at it again
                raise
            finally:
                self._renewed_by = None

    def _renew(self) -> None:
        self.readers.renew()
        with self._observing:
            if self._observer is not None:
                discard(self._observer)
            self._observer = None
        # Somebody may be using the writer: whoever ends a transaction on another one than this closes it.
        self._writer, writer = None, self._writer
        if writer is not None and self.turn.holder is None:
            discard(writer)

    def done_with(self, database: PooledDatabase) -> None:
        """Close a writing connection whose place another one took while it was in use."""
        if database is not self._writer:
            discard(database)

    def verify(self, database: PooledDatabase) -> None:
        """Make sure that what was committed just now is where the path leads. Raises `LabMoved`, `StorageError`."""
        if self.in_memory:
            return
        try:
            there = self.opener.present_file() == database.file
        except LabMoved:
            there = False
        if not there:
            raise LabMoved(
                f"{self.path}: the file was deleted or replaced during this transaction, which is lost with it: repeat it"
            )
        if database.wal is None or (wal := self.opener.present_wal()) == database.wal:
            return
        # Somebody deleted the WAL under us: while it is open, its commits can still go into the file.
        checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)"
        if wal is None and not database.conn.execute(checkpoint).fetchone()[0]:
            self._renew()
            self.drop_writer(database)
            return
        raise StorageError(
            f"{self.opener.wal_path} was deleted or replaced while the lab was open, and this transaction may be lost: "
            "close every program that uses the lab, and repeat it"
        )

    def close(self) -> None:
        """Close every connection; the last one checkpoints the WAL. Closing twice is fine."""
        visit = Visit()
        self.take_turn(self.turn, visit)
        try:
            self.readers.renew(closed=True)
            with self._observing:
                for database in (self._observer, self._writer):
                    if database is not None:
                        discard(database)
                self._observer = self._writer = None
        finally:
            self.turn.give_back(visit)

    # Forks

    def before_fork(self) -> None:
        """See `Forkable`: close what is open, because SQLite in the child would take the parent's locks for its own."""
        until = time.monotonic() + FORK_PATIENCE_SECONDS
        self._fork_visit = visit = Visit()
        rested = self.readers.rest(until=until)
        has_turn = self.turn.take(visit, until=until)
        self._fork_observing = self._observing.acquire(timeout=FORK_PATIENCE_SECONDS)
        if rested and has_turn and self._fork_observing and not self.in_memory:
            for database in (self._observer, self._writer):
                if database is not None:
                    database.close()
            self._observer = self._writer = None

    def after_fork_in_parent(self) -> None:
        """See `Forkable`."""
        if self._fork_observing:
            self._observing.release()
        if self._fork_visit is not None:
            self.turn.give_back(self._fork_visit)
        self.readers.go_on()

    def after_fork_in_child(self) -> None:
        """See `Forkable`: open connections of one's own, or none at all if the parent's are still here."""
        for database in (self._observer, self._writer):
            if database is not None:
                leave_to_parent(database)
        if not self.in_memory:
            self._observer = self._writer = None
            self._process = forking.process
        self.readers.begin_anew()
        self.turn, self.inside = Turn(), Gate()
        self._observing, self._renewing = threading.Lock(), threading.RLock()
        self._renewed_by = None


def _others_version(database: PooledDatabase) -> int:
    # It leaves out what its own connection commits.
    return int(database.conn.execute("PRAGMA data_version").fetchone()[0])
