"""Which schema a database has, and how it is brought up to date."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import psycopg

from ..errors import InvalidValue, NewerSchema, NotALab, StorageError
from . import postgres_migrations as migrations
from .postgres_driver import Connection, is_missing_extension
from .postgres_partitions import Partitions
from .postgres_sql import KINDS

LEAST_VERSION = (0, 8)  # of pgvector: iterative scans, without which a filter leaves fewer than k
LEAST_SERVER = 140_000
MIGRATING = 1_631_816_801
RELATIONS = """
    SELECT c.relname, a.attname, format_type(a.atttypid, NULL) FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
    ORDER BY c.relname, a.attnum
"""


def columns(connection: Connection) -> dict[str, dict[str, str]]:
    """Return the columns of every table with their types, without those that are this back end's own."""
    found: dict[str, dict[str, str]] = {}
    for table, name, kind in connection.execute(RELATIONS):
        if name not in migrations.OWN_COLUMNS.get(table, ()) and kind in KINDS | {"xid8": ""}:
            found.setdefault(table, {})[name] = kind
    return found


def search_path(connection: Connection) -> str:
    """Return the schema that new tables go to, and behind it that of pgvector where it is another."""
    row = connection.execute(
        "SELECT quote_ident(current_schema()), (SELECT quote_ident(n.nspname) FROM pg_extension e"
        " JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector')"
    ).fetchone()
    assert row is not None
    if row[0] is None:
        raise StorageError(
            "the schemas of this role's search_path do not exist or are closed to it: "
            "CREATE SCHEMA …, or GRANT USAGE ON SCHEMA …"
        )
    path = ", ".join(dict.fromkeys(name for name in row if name))
    connection.execute(f"SET search_path = {path}".encode())
    return path


def _tables(connection: Connection) -> set[str]:
    sql = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
    return {row[0] for row in connection.execute(sql)}


def applied(connection: Connection) -> list[tuple[str, str]]:
    """Return the applied migrations with the time of each, in order."""
    rows = connection.execute(f"SELECT name, applied_at FROM {migrations.RECORD} ORDER BY name".encode())
    return [(name, at.isoformat()) for name, at in rows]


def status(connection: Connection, place: str) -> dict[str, Any]:
    """See `Storage.migration_status`."""
    tables = _tables(connection)
    if migrations.RECORD not in tables:
        if tables:
            raise NotALab(
                f"{place} is a database of another program (it has {', '.join(sorted(tables)[:3])}): give another "
                "one, or a schema of its own (…?options=-csearch_path%3Dname); nothing was touched"
            )
        done: list[tuple[str, str]] = []
    else:
        done = applied(connection)
    names = migrations.names()
    if unknown := [name for name, _ in done if name not in names]:
        raise NewerSchema(
            f"{place} has migrations that this version does not know ({', '.join(unknown)}): "
            "upgrade with pip install -U autom8_lab; nothing was touched"
        )
    return {
        "applied_count": len(done),
        "total_migrations": len(names),
        "applied": done,
        "pending": names[len(done) :],
    }


def migrate(connection: Connection, place: str, to: int | str | None = None) -> None:
    """Apply or revert migrations until the schema is at `to`; each step is one transaction with its record."""
    names = migrations.names()
    target = len(names) if to is None else names.index(to) + 1 if to in names else to
    if not isinstance(target, int) or isinstance(target, bool) or not 0 <= target <= len(names):
        raise InvalidValue(f"no version {to!r}: give 0 to {len(names)}, or a name: {', '.join(names)}")
    if connection.info.server_version < LEAST_SERVER:
        raise StorageError(f"{place}: the server is older than PostgreSQL 14: use a newer one")
    with _alone(connection):
        _make_extension(connection, place)
        with connection.transaction():
            connection.execute(migrations.BASE.encode())
        while (count := len(applied(connection))) != target:
            step = migrations.STEPS[count if count < target else count - 1]
            with connection.transaction():
                if count < target:
                    sql = migrations.forward(step, server_version=connection.info.server_version)
                    connection.execute(sql.encode())
                    connection.execute(f"INSERT INTO {migrations.RECORD} (name) VALUES (%s)".encode(), [step.name])
                else:
                    connection.execute(step.backward.encode())
                    connection.execute(f"DELETE FROM {migrations.RECORD} WHERE name = %s".encode(), [step.name])


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    connection.execute("SELECT pg_advisory_lock(%s)", [MIGRATING])
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("SELECT pg_advisory_unlock(%s)", [MIGRATING])


def _make_extension(connection: Connection, place: str) -> None:
    if extension_version(connection) is None:
        try:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except psycopg.errors.InsufficientPrivilege as exc:
            raise StorageError(
                f"{place} lacks the extension pgvector, which this role may not create: "
                "have an administrator run CREATE EXTENSION vector in this database"
            ) from exc
        except psycopg.Error as exc:
            if not is_missing_extension(exc):
                raise
            raise StorageError(
                f"{place}: the server has no pgvector: install it there (https://github.com/pgvector/pgvector), "
                "then CREATE EXTENSION vector"
            ) from exc
        search_path(connection)
    refuse_old_extension(connection, place)


def refuse_old_extension(connection: Connection, place: str) -> None:
    """Refuse a pgvector that lacks what the lab needs."""
    version = extension_version(connection) or "none"
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < LEAST_VERSION:
        raise StorageError(
            f"{place} has pgvector {version}, and a lab needs 0.8 or newer: update it on the server, then "
            "ALTER EXTENSION vector UPDATE in this database"
        )


def extension_version(connection: Connection) -> str | None:
    """Return which pgvector the database has, None where it has none."""
    row = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    return None if row is None else str(row[0])


def tidy(connection: Connection, partitions: Partitions, now: datetime) -> None:
    """Make the partitions of the coming months, and forget writers that are long gone; as far as the role may."""
    try:
        with connection.transaction():
            partitions.ahead(connection, now)
            connection.execute(migrations.OLD_WRITERS)
    except psycopg.errors.InsufficientPrivilege:
        partitions.forget()
