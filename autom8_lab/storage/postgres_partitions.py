"""The months of the ledger and of the access log: a partition each, made ahead."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import psycopg

from .postgres_driver import Connection

PARTITIONED = ("usage_ledger", "access_log")
AHEAD = 3  # months
FIRST, LAST = (2000, 1), (2100, 1)  # what lies outside goes to the partition of all the rest
Month = tuple[int, int]


def month_of(at: datetime) -> Month:
    """Return year and month of an instant, in UTC."""
    moment = at.astimezone(UTC)
    return moment.year, moment.month


def following(month: Month, count: int = 1) -> Month:
    """Return the month so many after this one.

    >>> following((2026, 11), 3)
    (2027, 2)
    """
    year, place = divmod(month[0] * 12 + month[1] - 1 + count, 12)
    return year, place + 1


class Partitions:
    """Knows which months there are, and makes those that are missing before rows come to them."""

    def __init__(self) -> None:
        self._known: set[tuple[str, Month]] = set()

    def forget(self) -> None:
        """Look again, because a transaction that made some may have been taken back."""
        self._known.clear()

    def ahead(self, connection: Connection, now: datetime) -> None:
        """Make this month's partitions and the next ones'."""
        months = [following(month_of(now), count) for count in range(AHEAD + 1)]
        for table in PARTITIONED:
            self.make(connection, table, months)

    def make(self, connection: Connection, table: str, months: Iterable[Month]) -> None:
        """Make the partitions of these months inside the caller's transaction, where there are none."""
        missing = sorted({month for month in months if FIRST <= month < LAST and (table, month) not in self._known})
        if not missing:
            return
        present = {row[0] for row in connection.execute(_PRESENT, [table])}
        for month in missing:
            if _name(table, month) not in present:
                _make(connection, table, month)
        self._known |= {(table, month) for month in missing}


_PRESENT = "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = %s::regclass"


def _name(table: str, month: Month) -> str:
    return f"{table}_{month[0]:04}_{month[1]:02}"


def _make(connection: Connection, table: str, month: Month) -> None:
    (y, m), (next_y, next_m) = month, following(month)
    name = _name(table, month)
    connection.execute("SELECT pg_advisory_xact_lock(1631816803)")  # one maker at a time
    connection.execute("SAVEPOINT partition")
    try:
        if connection.execute("SELECT to_regclass(%s)", [name]).fetchone() == (None,):
            # Attached, not created in place: that would wait until nobody uses the table.
            connection.execute(
                f"CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS);"
                f"ALTER TABLE {table} ATTACH PARTITION {name}"
                f" FOR VALUES FROM ('{y:04}-{m:02}-01 00:00+00') TO ('{next_y:04}-{next_m:02}-01 00:00+00')".encode()
            )
        connection.execute("RELEASE partition")
    except (psycopg.errors.CheckViolation, psycopg.errors.InsufficientPrivilege):
        # Rows of this month are in the other partition already, or the role may make none: they stay there.
        connection.execute("ROLLBACK TO partition; RELEASE partition")
