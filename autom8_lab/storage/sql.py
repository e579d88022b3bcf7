"""Conditions and values to SQLite's SQL and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

from sqlite_utils import Database
from sqlite_utils.utils import sqlite3

from ..errors import DamagedLab, LabError
from ..records import Condition
from .filters import FEW_PASS, ContextFilter, order_of, wanted_of_key, where_of

TIMES = {
    "at",
    "created_at",
    "updated_at",
    "accessed_at",
    "activated_at",
    "expires_at",
    "outcome_at",
    "ends_at",
    "first_at",
    "last_at",
}
DOCUMENTS = {"metadata", "candidates", "filters", "evidence", "details"}
FLAGS = {"pinned", "success"}
PLAIN = {str, int, float, bytes}  # what SQLite takes as it is
_written = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def encoded(value: Any) -> Any:
    """Return the value as SQLite stores it: UTC text for times, numbers for flags, JSON for containers."""
    if value is None or type(value) in PLAIN:
        return value
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, Mapping | list | tuple):
        return _written(value)
    return value


def kind_of(column: str, type_name: str) -> str:
    """Return the kind of a column, by its name and SQLite's type, as `TableShape` names it.

    >>> kind_of("created_at", "TEXT"), kind_of("pinned", "INTEGER"), kind_of("cost_usd", "REAL")
    ('time', 'flag', 'number')
    """
    special = {"time": TIMES, "document": DOCUMENTS, "flag": FLAGS}
    plain = {"TEXT": "text", "BLOB": "bytes"}.get(type_name, "number")
    return next((kind for kind, names in special.items() if column in names), plain)


def decoder_of(column: str) -> Callable[[Any], Any] | None:
    """Return what makes a Python value of a column's stored one, or None where that is the same."""
    if column in TIMES:
        return datetime.fromisoformat
    if column in DOCUMENTS:
        return json.loads
    return bool if column in FLAGS else None


def decoded(column: str, value: Any) -> Any:
    """Return a stored value as Python has it."""
    decoder = decoder_of(column)
    return value if value is None or decoder is None else decoder(value)


_NONE: type = type(None)
_CELLS: dict[str, frozenset[type]] = {
    "TEXT": frozenset({str, _NONE}),
    "BLOB": frozenset({bytes, _NONE}),
    "INTEGER": frozenset({int, float, _NONE}),
    "REAL": frozenset({int, float, _NONE}),
}


def cells_of(type_name: str) -> frozenset[type] | None:
    """Return what a sound cell of a column of this SQLite type can be, or None where that may be anything.

    SQLite stores the type beside each value: one flipped bit makes bytes of a text.
    """
    return _CELLS.get(type_name)


class Selection(NamedTuple):
    """Some columns of a table: the beginning of a question for them, and what their cells have to be and become."""

    sql: str
    names: list[str]
    sound: list[tuple[int, frozenset[type]]]
    special: list[tuple[int, Callable[[Any], Any]]]

    @classmethod
    def of(cls, table: str, names: list[str], types: Mapping[str, str]) -> Selection:
        """Return the selection of these columns, given SQLite's types of all."""
        quoted = ", ".join(f'"{name}"' for name in names)
        sound = [(place, kinds) for place, name in enumerate(names) if (kinds := cells_of(types[name]))]
        special = [(place, decoder) for place, name in enumerate(names) if (decoder := decoder_of(name))]
        return cls(f'SELECT {quoted} FROM "{table}"', names, sound, special)


# What a stored value that nobody can read makes a decoder or the driver raise.
ILLEGIBLE = (ValueError, TypeError, RecursionError, sqlite3.OperationalError)


def refuse_illegible(error: Exception, path: str, table: str) -> None:
    """Raise `DamagedLab` for one of `ILLEGIBLE`, unless it is about something else."""
    if isinstance(error, LabError):
        return
    if isinstance(error, sqlite3.OperationalError) and "decode to UTF-8" not in str(error):
        return
    raise DamagedLab(
        f"{path}: {table} holds a value that cannot be read ({error}): al.check() says where, "
        "al.repair(path, to=…) saves the others"
    ) from error


def where_clause(
    conditions: Sequence[Condition], columns: Mapping[str, Any], *, prefix: str = ""
) -> tuple[str, list[Any]]:
    """See `filters.where_of`."""
    return where_of(conditions, columns, _one, prefix=prefix)


def _one(condition: Condition, column: str) -> tuple[str, list[Any]]:
    if condition.key is not None:
        return _json_key(condition, column)
    match condition.operator:
        case "is null":
            return f"{column} IS NULL", []
        case "is not null":
            return f"{column} IS NOT NULL", []
        case "null or >" | "null or <" as operator:
            return f"({column} IS NULL OR {column} {operator[-1]} ?)", [encoded(condition.value)]
        case "in":
            values = [encoded(value) for value in condition.value]
            if len(values) == 1:
                return f"{column} = ?", values
            return f"{column} IN (SELECT value FROM json_each(?))", [json.dumps(values, ensure_ascii=False)]
        case "=" | "!=" | "<" | "<=" | ">" | ">=" as operator:
            return f"{column} {operator} ?", [encoded(condition.value)]


def _json_key(condition: Condition, column: str) -> tuple[str, list[Any]]:
    # json_each, not a path: any text is a legal key, and its type column tells true from 1.
    tests: list[str] = []
    parameters: list[Any] = [condition.key]
    for value in wanted_of_key(condition, column):
        if value is None or isinstance(value, bool):
            tests.append("type = ?")
            parameters.append("null" if value is None else str(value).lower())
        else:
            tests.append("(atom = ? AND type NOT IN ('true', 'false'))")
            parameters.append(value)
    alternatives = " OR ".join(tests) or "0"
    return f"EXISTS (SELECT 1 FROM json_each({column}) WHERE key = ? AND ({alternatives}))", parameters


def order_clause(order_by: Sequence[str], columns: Mapping[str, Any]) -> str:
    """See `filters.order_of`."""
    return order_of(order_by, columns, ascending="", descending=" DESC")


def context_filter(database: Database, where: Sequence[Condition], columns: Mapping[str, Any]) -> ContextFilter | None:
    """Return what tells which contexts pass the conditions; None where all do."""
    if not where:
        return None
    filters, parameters = where_clause(where, columns)
    sql = f"SELECT context_key FROM context_registry{filters}"
    rows = database.conn.execute(f"{sql} LIMIT {FEW_PASS + 1}", parameters).fetchall()
    among = f"{sql} AND context_key IN (SELECT value FROM json_each(?))"
    return ContextFilter.of(rows, lambda keys: database.conn.execute(among, [*parameters, keys]))
