"""Connections to a PostgreSQL server: pooled, looked at before use, found again when the server was away."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, TypeVar
from uuid import uuid4

import psycopg
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from ..addresses import Address
from ..errors import LabBusy, LabClosed, ReadOnlyLab
from ..forking import new_lock
from .postgres_driver import Connection, is_lost, is_passing, look_at, pause_seconds, translated
from .postgres_questions import asking, question_of, stamp_of
from .postgres_transactions import LendingInside, Level, Savepoint, Transaction, Writing, level_of
from .waiting import Figures, Gate, Turn

Result = TypeVar("Result")
Action = Callable[[Connection], Result]

TRY_SECONDS = 0.5  # how long the pool itself tries to connect; then it is seen why it cannot
CONNECT_SECONDS = 10
WRITERS = "autom8_writers"
logging.getLogger("psycopg.pool").addHandler(logging.NullHandler())


class PostgresPool:
    """Hands out connections to one database, and repeats what a passing trouble broke off, until the deadline.

    Any number of writers work side by side; a transaction of several steps (`transaction`) is alone with its kind,
    by an advisory lock, so that what it reads stays true until it writes. Every commit carries a number, so that after
    a connection was lost in the middle of one it is known whether it landed: nothing is written twice.
    """

    def __init__(
        self,
        address: Address,
        *,
        read_only: str | None,
        max_connections: int,
        deadline_seconds: float,
        statement_seconds: float,
        durable: bool,
    ) -> None:
        self.path = str(address)
        self.read_only = read_only
        self.inside = Gate()
        self.figures = Figures()
        self.search_path: str | None = None
        self._address = address
        self._deadline_seconds = deadline_seconds
        self._statement_seconds = statement_seconds
        self._durable = durable
        self._size = max_connections + 1
        self._used = 0
        self.writing: Transaction | None = None
        self._closed = False
        self._making = new_lock()
        self._process = os.getpid()
        self._pool: ConnectionPool[Connection] | None = None

    # Connecting

    def connect(self, *, read_only: bool = False) -> Connection:
        """Open a connection beside the pool. Raises `StorageError` and its kinds."""
        connection = None
        try:
            connection = Connection.connect(self._address, **self._options())
            self._configure(connection)
            if read_only:
                connection.execute("SET default_transaction_read_only = on")
        except psycopg.Error as exc:
            if connection is not None:
                connection.close()
            raise self.ours(exc) from None  # the driver's own message may quote the address
        return connection

    def _options(self) -> dict[str, Any]:
        return {
            "autocommit": True,
            "client_encoding": "utf8",
            "application_name": "autom8_lab",
            "connect_timeout": CONNECT_SECONDS,
            **self._address.secrets,
        }

    def _configure(self, connection: Connection) -> None:
        deadline_ms, statement_ms = (
            max(1, int(seconds * 1000)) for seconds in (self._deadline_seconds, self._statement_seconds)
        )
        settings = ["SET TimeZone = 'UTC'", "SET extra_float_digits = 1", "SET jit = off"]
        settings += ["SET hnsw.iterative_scan = strict_order", "SET hnsw.ef_search = 100"]
        settings += [f"SET lock_timeout = {deadline_ms}", f"SET statement_timeout = {min(statement_ms, 2**31 - 1)}"]
        if self.read_only:
            settings.append("SET default_transaction_read_only = on")
        if not self._durable:
            settings.append("SET synchronous_commit = off")
        if self.search_path is not None:
            settings.append(f"SET search_path = {self.search_path}")
        connection.execute("; ".join(settings).encode())

    def _connections(self) -> ConnectionPool[Connection]:
        with self._making:
            if self._closed:
                raise LabClosed
            if self._pool is None or self._process != os.getpid():
                # In a forked child the parent's connections are left to the parent.
                self._process = os.getpid()
                self._pool = ConnectionPool(
                    self._address,
                    connection_class=Connection,
                    kwargs=self._options(),
                    min_size=0,
                    max_size=self._size,
                    configure=self._configure,
                    check=look_at,
                    reconnect_timeout=TRY_SECONDS,
                    num_workers=1,
                    name="autom8_lab",
                    open=True,
                )
            return self._pool

    def take(self, until: float) -> Connection:
        """Return a connection to whoever gives it back. Raises `LabBusy`, and `StorageError` without a server."""
        pool = self._connections()
        started = time.monotonic()
        with suppress(PoolTimeout):
            if pool.get_stats().get("pool_available"):
                connection = pool.getconn(timeout=TRY_SECONDS)
                self._used += 1
                return connection
        while True:
            left = until - time.monotonic()
            try:
                connection = pool.getconn(timeout=max(0.01, min(left, 2 * TRY_SECONDS)))
            except PoolClosed:
                raise LabClosed from None
            except PoolTimeout:
                self._say_why_not(until=until, started=started)
                continue
            if self.figures.retries or time.monotonic() - started > 0.001:
                self.figures.waited(started)
            self._used += 1
            return connection

    def _say_why_not(self, *, until: float, started: float) -> None:
        over = time.monotonic() >= until
        try:
            self.connect().close()
        except Exception as exc:
            if over or not is_lost(exc.__context__):
                self.figures.waited(started, in_vain=over)
                raise
            self.figures.retries += 1
            return
        if over:
            self.figures.waited(started, in_vain=True)
            raise LabBusy(
                f"{self.path}: all {self._size} connections were in use for {time.monotonic() - started:.1f} s: "
                "raise max_connections, or end transactions sooner"
            )

    def give_back(self, connection: Connection) -> None:
        """Take a connection back, and with it whatever it left undone."""
        self._used -= 1
        connection.used_at = time.monotonic()
        if connection.closed or self._pool is None or self._closed:
            connection.close()
        with suppress(ValueError, psycopg.Error):
            if self._pool is not None:
                if not connection.closed and connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                    connection.execute("ROLLBACK")
                self._pool.putconn(connection)

    # Doing

    def deadline(self, *, waiting: bool = True) -> float:
        """Return when to give up, on the monotonic clock."""
        return time.monotonic() + (self._deadline_seconds if waiting else 0)

    @property
    def current_transaction(self) -> Transaction | None:
        """The transaction that the caller is in, or None."""
        level = level_of(self)
        return None if level is None else level.transaction

    def read(self, action: Action[Result]) -> Result:
        """Return what an action reads: inside a transaction with its connection, else with one of the pool."""
        level = level_of(self)
        if level is not None:
            with level.having():
                return self._inside(level.transaction, action)
        question = question_of(self)
        if question is not None:
            return action(question.connection)  # a question within a question: one connection does for both
        return self._repeated(action)

    def _inside(self, transaction: Transaction, action: Action[Result]) -> Result:
        transaction.refuse_if_lost()
        try:
            return action(transaction.connection)
        except psycopg.Error as exc:
            if not is_lost(exc):
                raise self.ours(exc) from exc
            transaction.revive(exc)
        try:
            return action(transaction.connection)
        except psycopg.Error as exc:
            raise self.ours(exc) from exc

    def write(self, action: Action[Result]) -> Result:
        """Do what an action writes: as part of the caller's transaction, or as one of its own.

        The action may be repeated, when a connection is lost or other writers are in the way: it must not depend on
        what it did the first time.
        """
        if self.read_only:
            raise ReadOnlyLab(f"{self.path} {self.read_only}")
        level = level_of(self)
        if level is None:
            return self._repeated(action, committing=True)
        with level.writing():
            if not level.whole:
                result = self._in_savepoint(level.transaction, action)
            else:
                try:
                    result = self._inside(level.transaction, action)
                except BaseException as exc:
                    level.broken = str(exc) or type(exc).__name__
                    raise
            level.transaction.journal.append(action)
            return result

    def _in_savepoint(self, transaction: Transaction, action: Action[Result]) -> Result:
        until = self.deadline()
        while True:
            transaction.refuse_if_lost()
            connection = transaction.connection
            try:
                connection.execute("SAVEPOINT step")
                result = action(connection)
                connection.execute("RELEASE step")
                return result
            except psycopg.Error as exc:
                if is_lost(exc):
                    transaction.revive(exc)
                    continue
                connection.execute("ROLLBACK TO step; RELEASE step")
                if not is_passing(exc) or time.monotonic() >= until:
                    raise self.ours(exc) from exc
                self._pause(until)
            except BaseException:
                if not connection.closed:
                    connection.execute("ROLLBACK TO step; RELEASE step")
                raise

    def _repeated(self, action: Action[Result], *, committing: bool = False) -> Result:
        until = self.deadline()
        while True:
            connection = self.take(until)
            ending: tuple[str, int] | None = None
            try:
                if not committing:
                    with asking(self, connection):
                        return action(connection)
                connection.execute("BEGIN")
                result = action(connection)
                ending = self.next_commit(connection)
                self.commit(connection, *ending)
                return result
            except psycopg.Error as exc:
                lost = is_lost(exc)
                if lost:
                    connection.close()
                    if ending is not None and self.landed(*ending, until=until):
                        return result
                if not (lost or is_passing(exc)) or time.monotonic() >= until:
                    raise self.ours(exc) from exc
            finally:
                self.give_back(connection)
            self._pause(until)

    def _pause(self, until: float) -> None:
        self.figures.retries += 1
        time.sleep(max(0.0, min(0.02 + pause_seconds(self.figures.retries), until - time.monotonic())))

    # Commits that are known

    @staticmethod
    def next_commit(connection: Connection) -> tuple[str, int]:
        """Return who writes on this connection, and the number of its next commit."""
        if connection.writer is None:
            connection.writer = uuid4().hex
        connection.commits += 1
        return connection.writer, connection.commits

    @staticmethod
    def commit(connection: Connection, writer: str, number: int) -> None:
        """Commit, and note in the same transaction that this commit landed."""
        connection.execute(
            f"INSERT INTO {WRITERS} (writer, commits) VALUES ('{writer}', {number}) ON CONFLICT (writer)"
            " DO UPDATE SET commits = excluded.commits, at = now(); COMMIT".encode()
        )

    def landed(self, writer: str, number: int, *, until: float) -> bool:
        """Return whether a commit landed whose answer was lost; waits for a server that is away.

        Where the old session is still at work, the insertion waits for its end.
        """
        question = (
            f"INSERT INTO {WRITERS} AS w (writer, commits) VALUES (%s, -1) ON CONFLICT (writer)"
            " DO UPDATE SET at = w.at RETURNING w.commits"
        )
        while True:
            connection = self.take(until)
            try:
                row = connection.execute(question, [writer]).fetchone()
                return row is not None and row[0] == number
            except psycopg.Error as exc:
                if not is_lost(exc) or time.monotonic() >= until:
                    raise self.ours(exc) from exc
                connection.close()
            finally:
                self.give_back(connection)
            self._pause(until)

    # Transactions

    def transaction(self, *, waiting: bool = True, whole: bool = False) -> Writing | Savepoint:
        """Group writes: all of them land at the end of the block, or none. Nested blocks are savepoints.

        A whole block ends when one of its operations fails, which spares each of them a savepoint.
        """
        outer = level_of(self)
        return Savepoint(self, outer, whole=whole) if outer is not None else Writing(self, waiting=waiting, whole=whole)

    def begin(self, connection: Connection, *, waiting: bool = True) -> None:
        """Begin a transaction of several steps, alone among its kind in this schema."""
        lock = "pg_advisory_xact_lock" if waiting else "pg_try_advisory_xact_lock"
        key = "1631816802, current_schema()::regnamespace::oid::integer"  # "a8lb"
        connection.execute("BEGIN")
        row = connection.execute(f"SELECT {lock}({key})".encode()).fetchone()
        if not waiting and row is not None and row[0] is False:
            connection.execute("ROLLBACK")
            raise LabBusy(f"{self.path}: another transaction is being written: try again, or raise deadline_seconds")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read everything in the block as of one moment; inside a transaction it is that one's view."""
        if level_of(self) is not None:
            yield
            return
        until = self.deadline()
        connection = self.take(until)
        try:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1")
            transaction = Transaction(connection, self, reading=True)
            with Level.entered(transaction):
                yield
        except psycopg.Error as exc:
            raise self.ours(exc) from exc
        finally:
            self.give_back(connection)

    def lend(self) -> AbstractContextManager[Connection]:
        """Lend a connection for somebody's own SQL, for reading alone: the transaction's inside one, else a new one."""
        level = level_of(self)
        return self._lent() if level is None else LendingInside(self, level)

    @contextmanager
    def _lent(self) -> Iterator[Connection]:
        connection = self.connect(read_only=True)
        try:
            yield connection
        except psycopg.Error as exc:
            raise self.ours(exc) from exc
        finally:
            connection.close()

    def stamp(self) -> Any:
        """Return a value that is another one after every commit of anyone; None inside a transaction."""
        if level_of(self) is not None:
            return None
        question = question_of(self)
        return question.stamp if question is not None else self.read(stamp_of)

    # The rest

    def ours(self, error: BaseException) -> Exception:
        """Return our error for the driver's."""
        return translated(error, self.path, self._address.secrets)

    @contextmanager
    def translating(self) -> Iterator[None]:
        """Raise our errors for the driver's."""
        try:
            yield
        except psycopg.Error as exc:
            raise self.ours(exc) from exc

    def told(self) -> dict[str, Any]:
        """Return how many connections there are and how much callers had to wait for them."""
        size = self._pool.get_stats().get("pool_size", 0) if self._pool is not None and not self._closed else 0
        return {
            "connections_open": size,
            "connections_in_use": self._used,
            "connection_waits": self.figures.waits,
            "connection_retries": self.figures.retries,
            "connection_timeouts": self.figures.timeouts,
            "connection_wait_ms_p50": self.figures.quantile_ms(0.5),
            "connection_wait_ms_p99": self.figures.quantile_ms(0.99),
        }

    def new_turn(self) -> Turn:
        """Return a turn for those inside one transaction."""
        return Turn(shared=self.inside)

    def close(self) -> None:
        """Close every connection. Closing twice is fine."""
        with self._making:
            self._closed = True
            pool, self._pool = self._pool, None
        if pool is not None and self._process == os.getpid():
            pool.close()
