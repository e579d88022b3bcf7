"""Transactions on PostgreSQL and the savepoints in them: whole or not at all, also when the server goes away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any

import psycopg

from ..errors import LabBusy, ReadOnlyLab, StorageError
from ..leaks import place_of_thread
from .base import Unit
from .postgres_driver import Connection, is_lost, is_passing

if TYPE_CHECKING:
    from .postgres_pool import PostgresPool

ONLY_READING = b"SAVEPOINT lent; SET LOCAL transaction_read_only = on"


class _Visit:
    """Somebody's turn inside a transaction."""

    def __init__(self) -> None:
        self.thread: int | None = threading.get_ident()


class Transaction:
    """A transaction in progress; `journal` holds what it wrote, so that it can be written again."""

    def __init__(
        self, connection: Connection, owner: PostgresPool, *, reading: bool = False, waiting: bool = True
    ) -> None:
        self.connection = connection
        self.owner = owner
        self.reading = reading
        self.waiting = waiting
        self.journal: list[Callable[[Connection], Any]] = []
        self.levels: list[Level] = []
        self.complete = True  # whether the journal has everything
        self.suspended = False
        self.finished = False
        self.query_only = False
        self.failure: str | None = None
        self.thread = threading.get_ident()

    def allow_writing(self, allowed: bool) -> None:
        """Let the connection write, or only read while somebody has it for his own SQL.

        Only the end of a savepoint makes a connection writable again; what was read in it needs no keeping.
        """
        if allowed == self.query_only:
            self.connection.execute(b"ROLLBACK TO lent; RELEASE lent" if allowed else ONLY_READING)
            self.query_only = not allowed

    def refuse_if_lost(self) -> None:
        """Raise where the server took everything back: what is written now would land alone."""
        if self.failure is not None:
            raise StorageError(
                f"{self.owner.path}: the whole transaction was taken back ({self.failure}): leave its block and repeat it"
            )

    def revive(self, error: BaseException) -> None:
        """Take another connection for one that was lost, and write again what the journal has, until the deadline."""
        self.connection.close()
        if self.reading or not self.complete:
            self.failure = str(error).strip().partition("\n")[0]
            raise self.owner.ours(error) from error
        until = self.owner.deadline()
        self.query_only = False
        while True:
            old = self.connection
            self.owner.give_back(old)
            try:
                self.connection = self.owner.take(until)
                self.begin_again()
                return
            except psycopg.Error as exc:
                if not (is_lost(exc) or is_passing(exc)) or time.monotonic() >= until:
                    self.failure = str(exc).strip().partition("\n")[0]
                    raise self.owner.ours(exc) from exc
                self.connection.close()
                time.sleep(0.05)
            except StorageError as exc:
                self.failure = str(exc)
                raise

    def begin_again(self) -> None:
        """Begin anew, with the savepoints that are open, and repeat the journal."""
        self.owner.begin(self.connection)
        marks = [(level.mark, level.depth) for level in self.levels]
        for place in range(len(self.journal) + 1):
            for mark, depth in marks:
                if mark == place:
                    self.connection.execute(f"SAVEPOINT level_{depth}".encode())
            if place < len(self.journal):
                self.journal[place](self.connection)


class Level:
    """A transaction, or a savepoint in it, as those inside see it: they use its connection one at a time."""

    def __init__(self, transaction: Transaction, depth: int, *, whole: bool = False, lent: bool = False) -> None:
        self.transaction = transaction
        self.depth = depth
        self.whole = whole
        self.lent = lent
        self.broken: str | None = None
        self.mark = len(transaction.journal)
        self.turn = transaction.owner.new_turn()
        self.finished = False

    def refuse_if_broken(self) -> None:
        """Raise where a whole block went on after one of its operations had failed."""
        if self.broken is not None:
            raise StorageError(
                f"{self.transaction.owner.path}: an operation of this block failed ({self.broken}), and the block went "
                "on: everything in it was taken back"
            )

    @classmethod
    @contextmanager
    def entered(cls, transaction: Transaction) -> Iterator[None]:
        """Make whoever asks in the block use this transaction."""
        level = cls(transaction, depth=0)
        token = _levels.set((*_levels.get(), level))
        try:
            yield
        finally:
            level.finished = transaction.finished = True
            with suppress(ValueError):
                _levels.reset(token)

    @contextmanager
    def having(self) -> Iterator[None]:
        """Use the connection alone for a while."""
        visit = _Visit()
        self.take_turn(visit)
        try:
            yield
        finally:
            self.turn.give_back(visit)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Use the connection alone to write with it, also while it is lent."""
        with self.having():
            if not self.lent:
                yield
                return
            self.transaction.allow_writing(True)
            try:
                yield
            finally:
                if not self.transaction.connection.closed:
                    self.transaction.allow_writing(False)

    def take_turn(self, holder: Any) -> None:
        """Wait for the connection. Raises `LabBusy`."""
        owner = self.transaction.owner
        if self.turn.take(holder, until=0):
            return
        if self.turn.is_of_this_thread:
            raise LabBusy(f"another task of this thread is in a transaction on {owner.path}: await it first")
        if not self.turn.take(holder, until=owner.deadline()):
            raise LabBusy(f"another thread kept the transaction on {owner.path}: end its block sooner")


# Follows the caller, not the thread: a transaction is found again after asyncio.to_thread.
_levels: ContextVar[tuple[Level, ...]] = ContextVar("autom8_lab_postgres_transactions", default=())


def level_of(owner: PostgresPool) -> Level | None:
    """Return the innermost level of a pool that the caller is in, None outside of its transactions."""
    for level in reversed(_levels.get()):
        transaction = level.transaction
        if transaction.owner is owner and not (level.finished or transaction.finished or transaction.suspended):
            return level
    return None


class Block:
    """What a transaction and a savepoint have in common as context managers; one that is dropped takes itself back."""

    def __init__(self, pool: PostgresPool, *, whole: bool = False) -> None:
        self._pool = pool
        self._whole = whole
        self._level: Level | None = None
        self._token: Token[tuple[Level, ...]] | None = None
        self.thread: int | None = threading.get_ident()

    def _enter(self, level: Level) -> Transaction:
        self._level = level
        self._token = _levels.set((*(item for item in _levels.get() if not item.finished), level))
        return level.transaction

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        level = self._level
        if level is None:
            return
        try:
            if not level.transaction.finished:
                self._end(level, error)
        except psycopg.Error as exc:
            raise self._pool.ours(exc) from exc
        finally:
            level.finished = True
            self._level = None
            self._leave(level)
            if self._token is not None:
                with suppress(ValueError):  # left in another context: there the mark above has to do
                    _levels.reset(self._token)

    def _end(self, level: Level, error: BaseException | None) -> None:
        raise NotImplementedError

    def _leave(self, level: Level) -> None:
        raise NotImplementedError

    def __del__(self) -> None:
        if getattr(self, "_level", None) is not None:
            with suppress(psycopg.Error, StorageError):
                self.__exit__(GeneratorExit, GeneratorExit(), None)


class Writing(Block):
    """A transaction of its own: what `PostgresPool.transaction` returns."""

    def __init__(self, pool: PostgresPool, *, waiting: bool, whole: bool) -> None:
        super().__init__(pool, whole=whole)
        self._waiting = waiting

    def __enter__(self) -> Transaction:
        pool = self._pool
        if pool.read_only:
            raise ReadOnlyLab(f"{pool.path} {pool.read_only}")
        if _thread_that_writes(pool) == threading.get_ident():
            # To wait for it here would keep it from going on.
            raise LabBusy(f"another task of this thread is in a transaction on {pool.path}: await it first")
        started, until = time.monotonic(), pool.deadline(waiting=self._waiting)
        while True:
            connection = pool.take(max(until, time.monotonic() + 1))
            try:
                pool.begin(connection, waiting=self._waiting)
                transaction = pool.writing = Transaction(connection, pool)
                return self._enter(Level(transaction, depth=0, whole=self._whole))
            except psycopg.Error as exc:
                if is_lost(exc):
                    connection.close()
                pool.give_back(connection)
                if is_passing(exc):
                    _say_who_writes(pool, exc, started=started)
                if not is_lost(exc) or time.monotonic() >= until:
                    raise pool.ours(exc) from exc
                time.sleep(0.05)
            except BaseException:
                pool.give_back(connection)
                raise

    def _end(self, level: Level, error: BaseException | None) -> None:
        transaction, pool = level.transaction, self._pool
        if error is not None or transaction.suspended:
            return  # whatever is open when the connection is given back is taken back
        transaction.allow_writing(True)
        transaction.refuse_if_lost()
        level.refuse_if_broken()
        until = pool.deadline()
        while True:
            ending = pool.next_commit(transaction.connection)
            try:
                pool.commit(transaction.connection, *ending)
                return
            except psycopg.Error as exc:
                if not is_lost(exc):
                    raise
                transaction.connection.close()
                if pool.landed(*ending, until=until):
                    return
                transaction.revive(exc)

    def _leave(self, level: Level) -> None:
        level.transaction.finished = True
        if not level.transaction.suspended:
            self._pool.give_back(level.transaction.connection)


def _thread_that_writes(pool: PostgresPool) -> int | None:
    transaction = pool.writing
    if transaction is None or transaction.finished or transaction.suspended:
        return None
    return transaction.thread


def _say_who_writes(pool: PostgresPool, error: BaseException, *, started: float) -> None:
    """Raise `LabBusy` where another thread of this process kept the others from writing."""
    thread = _thread_that_writes(pool)
    if thread is not None:
        pool.figures.waited(started, in_vain=True)
        raise LabBusy(
            f"another thread{place_of_thread(thread)} kept the writing connection to {pool.path} for "
            f"{time.monotonic() - started:.1f} s: end its transaction sooner, or raise deadline_seconds"
        ) from error


class Savepoint(Block):
    """A transaction within another: taken back alone, kept only with the outer one."""

    def __init__(self, pool: PostgresPool, outer: Level, *, whole: bool) -> None:
        super().__init__(pool, whole=whole)
        self._outer = outer

    def __enter__(self) -> Transaction:
        outer, transaction = self._outer, self._outer.transaction
        outer.take_turn(self)
        try:
            if transaction.reading:
                raise ReadOnlyLab(f"{self._pool.path}: a snapshot only reads: leave its block to write")
            transaction.refuse_if_lost()
            if outer.lent:
                transaction.allow_writing(True)
            level = Level(transaction, outer.depth + 1, whole=self._whole)
            name = f"SAVEPOINT level_{level.depth}".encode()
            try:
                transaction.connection.execute(name)
            except psycopg.Error as exc:
                if not is_lost(exc):
                    raise self._pool.ours(exc) from exc
                transaction.revive(exc)
                transaction.connection.execute(name)
        except BaseException:
            outer.turn.give_back(self)
            raise
        transaction.levels.append(level)
        return self._enter(level)

    def _end(self, level: Level, error: BaseException | None) -> None:
        transaction, name = level.transaction, f"level_{level.depth}"
        if error is not None or level.broken:
            del transaction.journal[level.mark :]
            if transaction.failure is None and not transaction.connection.closed:
                transaction.connection.execute(f"ROLLBACK TO {name}; RELEASE {name}".encode())
            if error is None:
                level.refuse_if_broken()
            return
        transaction.refuse_if_lost()
        try:
            transaction.connection.execute(f"RELEASE {name}".encode())
        except psycopg.Error as exc:
            if not is_lost(exc):
                raise
            transaction.revive(exc)

    def _leave(self, level: Level) -> None:
        with suppress(ValueError):
            level.transaction.levels.remove(level)
        transaction = level.transaction
        if self._outer.lent and not (transaction.finished or transaction.connection.closed):
            transaction.allow_writing(False)
        self._outer.turn.give_back(self)


class LendingInside(Block):
    """The connection of the transaction that the caller is in, for somebody's SQL, which can only read."""

    def __init__(self, pool: PostgresPool, outer: Level) -> None:
        super().__init__(pool)
        self._outer = outer

    def __enter__(self) -> Connection:
        outer = self._outer
        outer.take_turn(self)
        try:
            outer.transaction.refuse_if_lost()
            outer.transaction.allow_writing(False)
        except BaseException as exc:
            outer.turn.give_back(self)
            if isinstance(exc, psycopg.Error):
                raise self._pool.ours(exc) from exc
            raise
        return self._enter(Level(outer.transaction, outer.depth, lent=True)).connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if isinstance(error, psycopg.Error):
            raise self._pool.ours(error) from error

    def _end(self, level: Level, error: BaseException | None) -> None:
        if not self._outer.lent:
            level.transaction.allow_writing(True)

    def _leave(self, level: Level) -> None:
        self._outer.turn.give_back(self)


class PostgresUnit(Unit):
    """See `Unit`."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def undo(self) -> None:
        """See `Unit.undo`."""
        self._transaction.refuse_if_lost()
        self._transaction.suspended = True
        self._transaction.owner.give_back(self._transaction.connection)

    def redo(self) -> None:
        """See `Unit.redo`."""
        transaction = self._transaction
        transaction.connection = transaction.owner.take(transaction.owner.deadline())
        transaction.suspended = False
        try:
            transaction.begin_again()
        except psycopg.Error as exc:
            if not is_lost(exc):
                transaction.failure = str(exc).partition("\n")[0]
                raise transaction.owner.ours(exc) from exc
            transaction.revive(exc)

    def forget(self) -> None:
        """See `Unit.forget`."""
        self._transaction.journal.clear()
        for level in self._transaction.levels:
            level.mark = 0
        self._transaction.complete = False
