"""Connections for reading: the pool's own, and those for a user's SQL."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING

from sqlite_utils.utils import sqlite3

from .driver import is_breaking
from .opening import PooledDatabase
from .transactions import Block, Level, level_of
from .waiting import Turn

if TYPE_CHECKING:
    from .pool import ConnectionPool

FOR_EVER_SECONDS = 1e9


class Reading:
    """A connection for one question of the lab: the context manager that `ConnectionPool.reader` returns."""

    __slots__ = ("__weakref__", "_database", "_pool", "_turn", "thread")

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._turn: Turn | None = None

    def __enter__(self) -> PooledDatabase:
        pool = self._pool
        level = level_of(pool)
        if level is not None or pool.in_memory:
            self._database = self._shared(level)
        else:
            pool.look_at_place()
            self._database = pool.readers.take()
        self._database.guard.renew()
        return self._database

    def _shared(self, level: Level | None) -> PooledDatabase:
        self.thread: int | None = threading.get_ident()
        pool = self._pool
        turn = pool.turn if level is None else level.turn
        if pool.take_turn(turn, self):
            self._turn = turn
        if level is None:
            return pool.writer()
        level.transaction.refuse_if_lost()
        return level.transaction.database

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._turn is not None:
            self._turn.give_back(self)
        elif not self._pool.in_memory:
            self._pool.readers.give_back(self._database, usable=not is_breaking(error))
        if isinstance(error, sqlite3.Error):
            raise self._pool.ours(error, self._database) from error


class Lending:
    """A connection of its own for somebody's SQL, which can only read; it is closed at the end.

    What its user leaves behind (a cursor in use, an attached file, a function) is gone with it. In memory it is a
    copy of the database.
    """

    __slots__ = ("_database", "_pool")

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    def __enter__(self) -> PooledDatabase:
        pool = self._pool
        if pool.in_memory:
            with pool.reader() as database:
                copy = pool.opener.open("lend")
                database.conn.backup(copy.conn)
            copy.conn.execute("PRAGMA query_only = 1")
        else:
            pool.look_at_place()
            copy = pool.readers.take_new(lambda: pool.open("lend"))
        copy.guard.renew(FOR_EVER_SECONDS)
        self._database = copy
        return copy

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.readers.give_back(self._database, usable=False)
        if isinstance(error, sqlite3.Error):
            raise self._pool.ours(error, self._database) from error


class LendingInside(Block):
    """The connection of the transaction that the caller is in, for somebody's SQL, which can only read."""

    __slots__ = ("_outer",)

    def __init__(self, pool: ConnectionPool, outer: Level) -> None:
        super().__init__(pool)
        self._outer = outer

    def __enter__(self) -> PooledDatabase:
        outer = self._outer
        self._pool.take_turn(outer.turn, self)
        database = outer.transaction.database
        try:
            outer.transaction.refuse_if_lost()
            database.guard.renew(FOR_EVER_SECONDS)
            outer.transaction.allow_writing(False)
        except BaseException:
            outer.turn.give_back(self)
            raise
        self._enter(Level(outer.transaction, outer.depth, lent=True))
        return database

    def _end(self, level: Level, error: BaseException | None) -> None:
        level.transaction.allow_writing(not self._outer.lent)

    def _leave(self, level: Level) -> None:
        super()._leave(level)
        self._outer.turn.give_back(self)
