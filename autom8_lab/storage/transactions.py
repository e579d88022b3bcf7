"""Transactions and the savepoints in them: blocks that land whole or not at all, whatever interrupts them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sqlite_utils.utils import sqlite3

from .. import forking
from ..errors import LabForked, ReadOnlyLab, StorageError
from .driver import is_breaking
from .opening import PooledDatabase
from .waiting import Turn

if TYPE_CHECKING:
    from .pool import ConnectionPool


Kept = Callable[[Any, Any], None]


@dataclass(eq=False)
class Transaction:
    """A write transaction in progress; `journal` holds its operations, for whoever wants to repeat them."""

    database: PooledDatabase
    owner: ConnectionPool
    vectors_changed: bool = False
    suspended: bool = False
    finished: bool = False
    failure: str | None = None
    query_only: bool = False
    journal: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)

    def refuse_if_lost(self) -> None:
        """Raise if this is another process, or SQLite took everything back: what is written now would land alone."""
        if self.database.process != forking.process:
            raise self.is_the_parents()
        if not self.suspended and not self.database.conn.in_transaction:
            raise StorageError(
                f"{self.owner.path}: the whole transaction was taken back ({self.failure or 'by SQLite'}): "
                "leave its block and repeat it"
            )

    def allow_writing(self, allowed: bool) -> None:
        """Let the connection write, or only read while somebody has it for his own SQL."""
        self.query_only = not allowed
        self.database.conn.execute(f"PRAGMA query_only = {int(self.query_only)}")

    def is_the_parents(self) -> LabForked:
        """Return the error for whoever goes on with a transaction in a forked child."""
        return LabForked(f"{self.owner.path}: the transaction is that of the process which began it: end it there")


class Level:
    """A transaction, or a savepoint in it, as those inside see it: they use its connection one at a time."""

    __slots__ = ("broken", "depth", "finished", "lent", "transaction", "turn", "whole")

    def __init__(self, transaction: Transaction, depth: int, *, lent: bool = False, whole: bool = False) -> None:
        self.transaction = transaction
        self.depth = depth
        self.lent = lent
        self.whole = whole
        self.broken: BaseException | None = None
        self.turn = Turn(shared=transaction.owner.inside)
        self.finished = False

    @contextmanager
    def part(self) -> Iterator[Transaction]:
        """Do something in a whole level, which ends with it where it fails: so it needs no savepoint of its own.

        In a savepoint SQLite keeps a copy of each page that is written to, which costs a fifth of a batch's time.
        """
        self.transaction.refuse_if_lost()
        self.transaction.database.guard.renew()
        try:
            yield self.transaction
        except BaseException as exc:
            self.broken = exc
            raise


# Follows the caller, not the thread: a transaction is found again after asyncio.to_thread.
_levels: ContextVar[tuple[Level, ...]] = ContextVar("autom8_lab_transactions", default=())


def level_of(owner: ConnectionPool) -> Level | None:
    """Return the innermost level of a pool that the caller is in, None outside of its transactions."""
    for level in reversed(_levels.get()):
        transaction = level.transaction
        if transaction.owner is owner and not (level.finished or transaction.finished or transaction.suspended):
            return level
    return None


def is_suspended(owner: ConnectionPool) -> bool:
    """Whether the caller is in a transaction of this pool that let the database go for a while."""
    return any(
        level.transaction.owner is owner and level.transaction.suspended and not level.transaction.finished
        for level in _levels.get()
    )


class Block:
    """What a transaction and a savepoint have in common as context managers.

    The object owns its turn, and ends by itself if it is dropped without having been left.
    """

    __slots__ = ("__weakref__", "_level", "_pool", "_token", "_whole", "thread")

    def __init__(self, pool: ConnectionPool, *, whole: bool = False) -> None:
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
        database = level.transaction.database
        if database.process != forking.process:
            level.finished = level.transaction.finished = True
            self._level = None
            if error is None:
                raise level.transaction.is_the_parents()
            return
        if level.transaction.finished:  # the block around this one has ended already
            self._leave(level)
            return
        # Asked before the end renews the guard, which knows what interrupted a statement.
        reason = self._pool.ours(error, database) if isinstance(error, sqlite3.Error) else None
        try:
            self._end(level, error or level.broken)
        except sqlite3.Error as exc:
            raise self._pool.ours(exc, database) from exc
        finally:
            self._leave(level)
        if error is None and level.broken is not None:
            raise StorageError(
                f"{self._pool.path}: a part of a transaction failed ({level.broken}), so all of it was taken back"
            ) from level.broken
        if reason is not None:
            raise reason from error

    def _leave(self, level: Level) -> None:
        level.finished = True
        self._level = None
        if self._token is not None:
            with suppress(ValueError):  # left in another context: there the mark above has to do
                _levels.reset(self._token)

    def _end(self, level: Level, error: BaseException | None) -> None:
        raise NotImplementedError

    def __del__(self) -> None:
        if getattr(self, "_level", None) is not None:
            with suppress(sqlite3.Error, StorageError):
                self.__exit__(GeneratorExit, GeneratorExit(), None)


class Writing(Block):
    """A transaction of its own: the context manager that `ConnectionPool.transaction` returns."""

    __slots__ = ("_kept", "_waiting")

    def __init__(self, pool: ConnectionPool, *, waiting: bool, whole: bool, kept: Kept | None) -> None:
        super().__init__(pool, whole=whole)
        self._waiting = waiting
        self._kept = kept

    def __enter__(self) -> Transaction:
        pool = self._pool
        if pool.read_only:
            raise ReadOnlyLab(f"{pool.path} {pool.read_only}")
        pool.look_at_place()
        until = pool.deadline(waiting=self._waiting)
        pool.take_turn(pool.turn, self, until=until)
        database: PooledDatabase | None = None
        try:
            database = pool.writer()
            transaction = Transaction(database, pool)
            pool.begin(transaction, waiting=self._waiting, until=until)
        except BaseException as exc:
            pool.turn.give_back(self)
            if isinstance(exc, sqlite3.Error):
                raise pool.ours(exc, database) from exc
            raise
        return self._enter(Level(transaction, depth=0, whole=self._whole))

    def _end(self, level: Level, error: BaseException | None) -> None:
        transaction, pool = level.transaction, self._pool
        database = transaction.database
        database.guard.renew()  # the block may have taken longer than any statement may
        try:
            if transaction.query_only:
                transaction.allow_writing(True)
            if error is None:
                transaction.refuse_if_lost()
                before = pool.before_commit(database) if self._kept else None
                pool.retry(lambda: database.conn.execute("COMMIT"))
                pool.verify(database)
                if self._kept and before and (now := pool.after_commit(before, database)):
                    self._kept(before.stamp, now)
        except BaseException as exc:
            self._take_back(database, exc)
            raise
        if error is not None:
            self._take_back(database, error)

    def _take_back(self, database: PooledDatabase, error: BaseException) -> None:
        try:
            database.rollback()
        except sqlite3.Error as exc:
            error = exc
        if is_breaking(error) or is_breaking(error.__cause__):
            self._pool.drop_writer(database)

    def _leave(self, level: Level) -> None:
        level.transaction.finished = True
        super()._leave(level)
        self._pool.done_with(level.transaction.database)
        self._pool.turn.give_back(self)


class Savepoint(Block):
    """A transaction within another: taken back alone, kept only with the outer one."""

    __slots__ = ("_mark", "_outer")

    def __init__(self, pool: ConnectionPool, outer: Level, *, whole: bool) -> None:
        super().__init__(pool, whole=whole)
        self._outer = outer

    def __enter__(self) -> Transaction:
        pool, outer = self._pool, self._outer
        pool.take_turn(outer.turn, self)
        transaction = outer.transaction
        try:
            transaction.refuse_if_lost()
            if outer.lent:
                transaction.allow_writing(True)
            self._mark = len(transaction.journal)
            transaction.database.guard.renew()
            transaction.database.conn.execute(f"SAVEPOINT level_{outer.depth}")
        except BaseException as exc:
            outer.turn.give_back(self)
            if isinstance(exc, sqlite3.Error):
                raise pool.ours(exc, transaction.database) from exc
            raise
        return self._enter(Level(transaction, outer.depth + 1, whole=self._whole))

    def _end(self, level: Level, error: BaseException | None) -> None:
        transaction, name = level.transaction, f"level_{self._outer.depth}"
        connection = transaction.database.conn
        transaction.database.guard.renew()
        if error is None:
            transaction.refuse_if_lost()
            connection.execute(f"RELEASE {name}")
            return
        del transaction.journal[self._mark :]
        if connection.in_transaction:
            connection.execute(f"ROLLBACK TO {name}")
            connection.execute(f"RELEASE {name}")
        else:
            transaction.failure = str(error) or type(error).__name__

    def _leave(self, level: Level) -> None:
        super()._leave(level)
        if self._outer.lent and not level.transaction.finished:
            level.transaction.allow_writing(False)
        self._outer.turn.give_back(self)
