"""Conditions and values to PostgreSQL's SQL and back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import numpy as np

from ..records import Condition
from .filters import order_of, quoted, wanted_of_key, where_of
from .postgres_binary import packed_texts

# What a type is called in `TableShape`.
KINDS = {
    "text": "text",
    "bigint": "number",
    "integer": "number",
    "double precision": "number",
    "boolean": "flag",
    "timestamp with time zone": "time",
    "jsonb": "document",
    "vector": "bytes",
}
_EXPONENT = re.compile(r"\d[eE][+-]?\d")
_MARK = "\ue000number:"
_written = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def encoded(value: Any, type_name: str) -> Any:
    """Return the value as the driver takes it for a column of this type."""
    return None if value is None else encoder_of(type_name)(value)


def encoder_of(type_name: str) -> Callable[[Any], Any]:
    """Return what makes of a value, which is not None, what the driver takes for a column of this type."""
    return _ENCODERS.get(type_name, _integer)


def encoded_column(values: Sequence[Any], type_name: str) -> Sequence[Any]:
    """Return a column's values as the driver takes them for this type, None as it is."""
    if set(map(type, values)) <= _TAKEN.get(type_name, set()):
        return values  # as nearly all are: what follows would change nothing
    of = encoder_of(type_name)
    if type_name == "timestamp with time zone":  # the rows of a batch share theirs
        instants = {value: of(value) for value in set(values) if value is not None}
        return [instants.get(value) for value in values]
    return [None if value is None else of(value) for value in values]


def _written_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return value.isoformat() if isinstance(value, date) else _text(value)


def _integer(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _float(value: Any) -> Any:
    return float(value) if isinstance(value, int) else value


def _text(value: Any) -> str:
    return json_text(value) if isinstance(value, Mapping | list | tuple) else str(value)


def instant(value: Any) -> datetime:
    """Return a date or time as an instant: dates are midnight in UTC."""
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC)
    return datetime.fromisoformat(value).astimezone(UTC)


def json_text(value: Any) -> str:
    """Return a value as JSON of which JSONB keeps every number's kind.

    It stores 1e+16 as an integer, so a float is written with a point: there and back it is the same.

    >>> json_text({"a": 1e16, "b": [1.5, "1e5"]})
    '{"a": 10000000000000000.0, "b": [1.5, "1e5"]}'
    """
    if value == {}:
        return "{}"
    text = _written(value)
    if _EXPONENT.search(text):
        text = _written(_marked(value))
        text = re.sub(f'"{_MARK}([-0-9.]+)"', r"\1", text)
    return text


_ENCODERS: dict[str, Callable[[Any], Any]] = {
    "jsonb": json_text,
    "boolean": bool,
    "timestamp with time zone": instant,
    "text": _written_text,
    "vector": lambda value: np.frombuffer(value, dtype="<f4"),
    "double precision": _float,
}
# The types of values that these encoders give back as they are.
_TAKEN: dict[str, set[type]] = {
    "text": {str, type(None)},
    "bigint": {int, type(None)},
    "integer": {int, type(None)},
    "boolean": {bool, type(None)},
    "double precision": {float, type(None)},
}


def _marked(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _marked(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_marked(item) for item in value]
    if isinstance(value, float) and "e" in repr(value):
        written = format(Decimal(repr(value)), "f")
        return _MARK + (written if "." in written else f"{written}.0")
    return value


def listed(names: Iterable[str], *, prefix: str = "") -> str:
    """Return names as a list in SQL."""
    return ", ".join(prefix + quoted(name).replace("%", "%%") for name in names)


def where_clause(
    conditions: Sequence[Condition], columns: Mapping[str, str], *, prefix: str = ""
) -> tuple[str, list[Any]]:
    """See `filters.where_of`."""

    def test(condition: Condition, column: str) -> tuple[str, list[Any]]:
        return _one(condition, column, columns[condition.column])

    return where_of(conditions, columns, test, prefix=prefix)


def _one(condition: Condition, column: str, kind: str) -> tuple[str, list[Any]]:
    if condition.key is not None:
        return _json_key(condition, column)
    mark = "%s" if kind in ("bigint", "integer", "double precision") else f"%s::{kind}"
    match condition.operator:
        case "is null":
            return f"{column} IS NULL", []
        case "is not null":
            return f"{column} IS NOT NULL", []
        case "null or >" | "null or <" as operator:
            return f"({column} IS NULL OR {column} {operator[-1]} {mark})", [encoded(condition.value, kind)]
        case "in":
            values = encoded_column([value for value in condition.value if value is not None], kind)
            given = packed_texts(values) if kind == "text" else values
            return f"{column} = ANY(%s::{_array(kind, condition.value)})", [given]
        case "=" | "!=" | "<" | "<=" | ">" | ">=" as operator:
            operator_sql = "<>" if operator == "!=" else operator
            return f"{column} {operator_sql} {mark}", [encoded(condition.value, kind)]


def _array(kind: str, values: Iterable[Any]) -> str:
    if kind in ("bigint", "integer") and any(isinstance(value, float) for value in values):
        return "double precision[]"
    return f"{kind}[]"


def _json_key(condition: Condition, column: str) -> tuple[str, list[Any]]:
    values = [json_text(value) for value in wanted_of_key(condition, column)]
    return f"({column} -> %s::text) = ANY(%s::jsonb[])", [condition.key, values]


def order_clause(order_by: Sequence[str], columns: Mapping[str, Any]) -> str:
    """See `filters.order_of`: nothing comes first, as in SQLite."""
    return order_of(order_by, columns, ascending=" NULLS FIRST", descending=" DESC NULLS LAST")
