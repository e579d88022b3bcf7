"""Reading as of one moment, over several questions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from sqlite_utils.utils import sqlite3

from .pool import Transaction, _transactions

if TYPE_CHECKING:
    from .pool import ConnectionPool


@contextmanager
def snapshot(pool: ConnectionPool) -> Iterator[None]:
    """See `Storage.snapshot`; inside a transaction it is that one's view."""
    if pool.current_transaction is not None:
        yield
        return
    with pool.reader() as database:
        reading = Transaction(database, pool)
        database.conn.execute("BEGIN")
        database.conn.execute("SELECT 1 FROM sqlite_master").fetchone()
        token = _transactions.set((*_transactions.get(), reading))
        try:
            yield
        finally:
            reading.finished = True
            _transactions.reset(token)
            with suppress(sqlite3.Error):
                database.conn.execute("ROLLBACK")
