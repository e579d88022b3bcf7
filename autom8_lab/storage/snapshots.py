"""Reading as of one moment, over several questions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from sqlite_utils.utils import sqlite3

from .transactions import Block, Level, Transaction

if TYPE_CHECKING:
    from .pool import ConnectionPool


class _Moment(Block):
    """A transaction that only reads: whoever asks inside it is given its connection."""

    __slots__ = ("_transaction",)

    def __init__(self, pool: ConnectionPool, transaction: Transaction) -> None:
        super().__init__(pool)
        self._transaction = transaction

    def __enter__(self) -> Transaction:
        return self._enter(Level(self._transaction, depth=0))

    def _end(self, level: Level, error: BaseException | None) -> None:
        level.transaction.finished = True


@contextmanager
def snapshot(pool: ConnectionPool) -> Iterator[None]:
    """See `Storage.snapshot`; inside a transaction it is that one's view."""
    if pool.current_transaction is not None:
        yield
        return
    with pool.reader() as database:
        database.conn.execute("BEGIN")
        database.conn.execute("SELECT 1 FROM sqlite_master").fetchone()
        try:
            with _Moment(pool, Transaction(database, pool)):
                yield
        finally:
            with suppress(sqlite3.Error):
                database.conn.execute("ROLLBACK")
