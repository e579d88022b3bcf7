"""The ids of contexts by their keys, and which contexts pass a filter, on PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..records import Condition
from .filters import FEW_PASS, ContextFilter
from .names import ContextNames
from .postgres_binary import packed_integers, packed_texts
from .postgres_driver import Connection
from .postgres_sql import where_clause


def _read(connection: Connection, column: str, values: list[Any]) -> Iterable[Sequence[Any]]:
    kind, packed = ("text", packed_texts(values)) if column == "id" else ("bigint", packed_integers(values))
    sql = f"SELECT context_key, id FROM context_registry WHERE {column} = ANY(%s::{kind}[])"
    return connection.execute(sql.encode(), [packed])


def no_names() -> ContextNames[Connection]:
    """Return names that nobody has asked for yet; `Storage.remember` keeps one per state of the database."""
    return ContextNames(_read)


def context_filter(
    connection: Connection, where: Sequence[Condition], columns: Mapping[str, str]
) -> ContextFilter | None:
    """Return what tells which contexts pass the conditions; None where all do."""
    if not where:
        return None
    filters, parameters = where_clause(where, columns)
    sql = f"SELECT context_key FROM context_registry{filters}"
    rows = connection.execute(f"{sql} LIMIT {FEW_PASS + 1}".encode(), parameters).fetchall()
    among = f"{sql} AND context_key = ANY(%s::bigint[])".encode()
    return ContextFilter.of(rows, lambda keys: connection.execute(among, [*parameters, json.loads(keys)]))
