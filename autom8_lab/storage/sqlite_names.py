"""The ids of contexts by their keys, and back: each read once as long as nothing changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from sqlite_utils import Database

Remember = Callable[[Hashable, Callable[[], Any]], Any]


def text_changes(database: Database) -> int:
    """Return a number that grows with every change of contexts' texts, and every deletion, but not with additions."""
    return int(database.conn.execute("SELECT state FROM index_state WHERE name = 'text'").fetchone()[0])


class ContextNames:
    """The ids that have been asked for so far, by key and back; they hold until a context is changed or deleted."""

    def __init__(self) -> None:
        self._ids: dict[int, str] = {}
        self._keys: dict[str, int] = {}

    def ids(self, database: Database, keys: Iterable[int]) -> dict[int, str]:
        """Return the ids of these keys; a context that was just deleted has none."""
        wanted = list(keys)
        missing = [key for key in wanted if key not in self._ids]
        if missing:
            self._read(database, "context_key", missing)
        return {key: self._ids[key] for key in wanted if key in self._ids}

    def keys(self, database: Database, ids: Iterable[str]) -> dict[str, int]:
        """Return the keys of these ids, of those that exist."""
        wanted = list(ids)
        missing = [context_id for context_id in wanted if context_id not in self._keys]
        if missing:
            self._read(database, "id", missing)
        return {context_id: self._keys[context_id] for context_id in wanted if context_id in self._keys}

    def _read(self, database: Database, column: str, values: list[Any]) -> None:
        sql = f"SELECT context_key, id FROM context_registry WHERE {column} IN (SELECT value FROM json_each(?))"
        for key, context_id in database.conn.execute(sql, [json.dumps(values)]):
            self._ids[key], self._keys[context_id] = context_id, key


class KeptNames:
    """The names of this version of the contexts. Inside a transaction, which may be taken back, nothing is kept."""

    def __init__(self, remember: Remember) -> None:
        self._remember = remember
        self._kept: tuple[int, ContextNames] = (-1, ContextNames())

    def __call__(self, database: Database, *, dirty: bool) -> ContextNames:
        """Return the names to ask."""
        if dirty:
            return ContextNames()
        changes: int = self._remember("text changes", lambda: text_changes(database))
        kept = self._kept
        if kept[0] != changes:
            self._kept = kept = changes, ContextNames()
        return kept[1]

    def forget(self) -> None:
        """Drop what is in memory, because the file is another one now."""
        self._kept = -1, ContextNames()
