"""psycopg at the door: how to connect, which errors pass when one waits, and what they are in our words."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import errors

from ..errors import (
    DamagedLab,
    LabBusy,
    LabNotFound,
    NotFound,
    ReadOnlyLab,
    StatementTimeout,
    StorageError,
    StorageFull,
)

# By SQLSTATE, the longest beginning first: https://www.postgresql.org/docs/current/errcodes-appendix.html
LOST = ("08", "57P01", "57P02", "57P03", "57P05")
PASSING = ("40001", "40P01", "55P03")
FRESH_SECONDS = 1.0  # a connection that was used a moment ago is not asked whether it is still there
BUSY = "another writer holds it: try again, or raise deadline_seconds"
REFUSALS: list[tuple[str, type[StorageError], str]] = [
    ("25006", ReadOnlyLab, "connect to the primary server, or with a role that may write"),
    ("25P02", StorageError, "the transaction was broken off by an error before: leave its block and repeat it"),
    ("40001", LabBusy, BUSY),
    ("40P01", LabBusy, BUSY),
    (
        "42501",
        StorageError,
        "ask the database's owner: GRANT ALL ON ALL TABLES IN SCHEMA …, or open with read_only=True",
    ),
    ("53100", StorageFull, "free some space on the server: nothing of this call was kept"),
    ("53300", LabBusy, "the server has no connection left: close some, or raise its max_connections"),
    ("53", StorageFull, "the server lacks memory or room: nothing of this call was kept"),
    ("55P03", LabBusy, BUSY),
    ("57014", StatementTimeout, "raise statement_seconds if the statement needs that long; nothing of it was kept"),
    ("XX001", DamagedLab, "the server found damage: restore a backup of it"),
    ("XX002", DamagedLab, "the server found a damaged index: REINDEX, or restore a backup of it"),
]
# What a server says when it lets nobody in; it has no SQLSTATE then, and its language may be another.
CLOSED_DOORS: list[tuple[str, type[StorageError | NotFound], str]] = [
    ("password authentication failed", StorageError, "give another password (postgresql://user:password@…, PGPASSWORD or ~/.pgpass)"),
    ("no password supplied", StorageError, "give a password (postgresql://user:password@…, PGPASSWORD or ~/.pgpass)"),
    ("role .* does not exist", StorageError, "give the name of another role, or have the administrator CREATE ROLE"),
    ("is not permitted to log in", StorageError, "ask the administrator: ALTER ROLE … LOGIN"),
    ("permission denied for database", StorageError, "ask the administrator: GRANT CONNECT ON DATABASE …"),
    ("database .* does not exist", LabNotFound, "create it first: CREATE DATABASE …, or createdb"),
    ("pg_hba.conf", StorageError, "the server does not let this machine in: ask its administrator, or try sslmode=require"),
    ("too many (clients|connections)|remaining connection slots", LabBusy, "close other connections, or raise the server's max_connections"),
]  # fmt: skip
UNREACHABLE = "look at host and port, and whether the server runs and listens there"


def is_lost(error: BaseException | None) -> bool:
    """Whether the connection broke, or the server is going down or coming up: another try may find it back."""
    if not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    if error.sqlstate is not None:
        return error.sqlstate.startswith(LOST)
    return not any(re.search(pattern, str(error)) for pattern, *_ in CLOSED_DOORS[:-1])


def is_passing(error: BaseException) -> bool:
    """Whether other writers were in the way, so that repeating the transaction can help."""
    return isinstance(error, psycopg.Error) and (error.sqlstate or "").startswith(PASSING)


def translated(error: BaseException, place: str, secrets: Mapping[str, str] | None = None) -> Exception:
    """Return our error for the driver's, without a password in it."""
    text = without(str(error).strip().partition("\n")[0], secrets or {})
    state = getattr(error, "sqlstate", None)
    if state is None:
        for pattern, kind, remedy in CLOSED_DOORS:
            if re.search(pattern, str(error)):
                return kind(f"{place}: {text}: {remedy}")
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return StorageError(f"{place}: {text}: {UNREACHABLE}")
        return StorageError(f"{place}: {text}: nothing of this call was kept")
    for beginning, kind_, remedy in REFUSALS:
        if state.startswith(beginning):
            return kind_(f"{place}: {text}: {remedy}")
    if state.startswith(LOST):
        return StorageError(f"{place}: {text}: the server went away; {UNREACHABLE}")
    return StorageError(f"{place}: {text}: nothing of this call was kept")


def without(text: str, secrets: Mapping[str, str]) -> str:
    """Return a text in which no secret is to be read."""
    for secret in secrets.values():
        text = text.replace(secret, "***")
    return text


def is_missing_extension(error: BaseException) -> bool:
    """Whether the server has no files of an extension."""
    return isinstance(error, errors.FeatureNotSupported | errors.UndefinedFile | errors.UndefinedObject)


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that counts its commits, so that whoever loses it can ask whether the last one landed."""

    writer: str | None = None
    commits: int = 0
    used_at: float = 0.0


def look_at(connection: Connection) -> None:
    """Raise where a connection that was not used for a while is no longer there."""
    if time.monotonic() - connection.used_at > FRESH_SECONDS:
        connection.execute("")


def pause_seconds(tries: int) -> float:
    """Return a random pause that grows with the tries."""
    return random.uniform(0, min(0.5, 0.005 * 2 ** min(tries, 7)))
