"""The ids of contexts by their keys, and which contexts pass a filter, on PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..records import Condition
from .postgres_binary import Packed, packed_integers, packed_texts
from .postgres_driver import Connection
from .postgres_sql import where_clause
from .sql import FEW_PASS, ContextFilter


class ContextNames:
    """The ids that have been asked for so far. `Storage.remember` keeps one per state of the database."""

    def __init__(self) -> None:
        self._ids: dict[int, str] = {}
        self._keys: dict[str, int] = {}

    def ids(self, connection: Connection, keys: Iterable[int]) -> dict[int, str]:
        """Return the ids of these keys; a context that was just deleted has none."""
        wanted = list(keys)
        self._read(
            connection,
            "context_key = ANY(%s::bigint[])",
            packed_integers,
            [key for key in wanted if key not in self._ids],
        )
        return {key: self._ids[key] for key in wanted if key in self._ids}

    def keys(self, connection: Connection, ids: Iterable[str]) -> dict[str, int]:
        """Return the keys of these ids, of those that exist."""
        wanted = list(ids)
        self._read(
            connection, "id = ANY(%s::text[])", packed_texts, [name for name in wanted if name not in self._keys]
        )
        return {name: self._keys[name] for name in wanted if name in self._keys}

    def _read(
        self, connection: Connection, condition: str, packed: Callable[[Iterable[Any]], Packed], values: list[Any]
    ) -> None:
        if values:
            sql = f"SELECT context_key, id FROM context_registry WHERE {condition}".encode()
            self.learn(connection.execute(sql, [packed(values)]))

    def learn(self, names: Iterable[Sequence[Any]]) -> None:
        """Note keys with their ids, which were read with something else."""
        for key, context_id in names:
            self._ids[key], self._keys[context_id] = context_id, key


def context_filter(
    connection: Connection, where: Sequence[Condition], columns: Mapping[str, str]
) -> ContextFilter | None:
    """Return what tells which contexts pass the conditions; None where all do."""
    if not where:
        return None
    filters, parameters = where_clause(where, columns)
    sql = f"SELECT context_key FROM context_registry{filters}"
    rows = connection.execute(f"{sql} LIMIT {FEW_PASS + 1}".encode(), parameters).fetchall()
    listed = np.array([row[0] for row in rows], dtype=np.int64) if len(rows) <= FEW_PASS else None
    among = f"{sql} AND context_key = ANY(%s::bigint[])".encode()
    return ContextFilter(listed, lambda keys: connection.execute(among, [*parameters, json.loads(keys)]))
