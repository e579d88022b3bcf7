"""Conditions and values to SQLite's SQL and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

from ..errors import InvalidValue, did_you_mean
from ..records import Condition

TIMES = {
    "at",
    "created_at",
    "updated_at",
    "accessed_at",
    "activated_at",
    "expires_at",
    "outcome_at",
    "first_at",
    "last_at",
}
DOCUMENTS = {"metadata", "candidates", "filters", "evidence", "details"}
FLAGS = {"pinned", "success"}
PLAIN = {str, int, float, bytes}  # what SQLite takes as it is


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
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    return value


def decoded(column: str, value: Any) -> Any:
    """Return a stored value as Python has it."""
    if value is None:
        return None
    if column in TIMES:
        return datetime.fromisoformat(value)
    if column in DOCUMENTS:
        return json.loads(value)
    return bool(value) if column in FLAGS else value


def where_clause(
    conditions: Sequence[Condition], columns: Mapping[str, Any], *, prefix: str = ""
) -> tuple[str, list[Any]]:
    """Return " WHERE …" (or "") and its parameters; unknown columns raise `InvalidValue`."""
    parts: list[str] = []
    parameters: list[Any] = []
    for condition in conditions:
        if condition.column not in columns:
            raise InvalidValue(f"no column {condition.column!r}{did_you_mean(condition.column, columns)}")
        sql, values = _one(condition, f'{prefix}"{condition.column}"')
        parts.append(sql)
        parameters.extend(values)
    return (" WHERE " + " AND ".join(parts) if parts else "", parameters)


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
            return f"{column} IN (SELECT value FROM json_each(?))", [json.dumps(values, ensure_ascii=False)]
        case "=" | "!=" | "<" | "<=" | ">" | ">=" as operator:
            return f"{column} {operator} ?", [encoded(condition.value)]


def _json_key(condition: Condition, column: str) -> tuple[str, list[Any]]:
    if condition.operator not in ("=", "in"):
        raise InvalidValue(f"{column}[{condition.key!r}] {condition.operator}: a key is compared by = or in")
    # json_each, not a path: any text is a legal key, and its type column tells true from 1.
    wanted = condition.value if condition.operator == "in" else [condition.value]
    tests: list[str] = []
    parameters: list[Any] = [condition.key]
    for value in wanted:
        if value is None or isinstance(value, bool):
            tests.append("type = ?")
            parameters.append("null" if value is None else str(value).lower())
        else:
            tests.append("(atom = ? AND type NOT IN ('true', 'false'))")
            parameters.append(value)
    alternatives = " OR ".join(tests) or "0"
    return f"EXISTS (SELECT 1 FROM json_each({column}) WHERE key = ? AND ({alternatives}))", parameters


def order_clause(order_by: Sequence[str], columns: Mapping[str, Any]) -> str:
    """Return " ORDER BY …" (or ""); unknown columns raise `InvalidValue`."""
    parts = []
    for item in order_by:
        name = item.removeprefix("-")
        if name not in columns:
            raise InvalidValue(f"cannot sort by {name!r}{did_you_mean(name, columns)}")
        parts.append(f'"{name}"' + (" DESC" if item.startswith("-") else ""))
    return " ORDER BY " + ", ".join(parts) if parts else ""
