"""The ids of contexts by their keys, and back: each read once as long as nothing changes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlite_utils import Database

from .names import ContextNames, Remember


def text_changes(database: Database) -> int:
    """Return a number that grows with every change of contexts' texts, and every deletion, but not with additions."""
    return int(database.conn.execute("SELECT state FROM index_state WHERE name = 'text'").fetchone()[0])


def _read(database: Database, column: str, values: list[Any]) -> Iterable[Sequence[Any]]:
    sql = f"SELECT context_key, id FROM context_registry WHERE {column} IN (SELECT value FROM json_each(?))"
    rows: Iterable[Sequence[Any]] = database.conn.execute(sql, [json.dumps(values)])
    return rows


def no_names() -> ContextNames[Database]:
    """Return names that nobody has asked for yet."""
    return ContextNames(_read)


class KeptNames:
    """The names of this version of the contexts. Inside a transaction, which may be taken back, nothing is kept."""

    def __init__(self, remember: Remember) -> None:
        self._remember = remember
        self._kept: tuple[int, ContextNames[Database]] = (-1, no_names())

    def __call__(self, database: Database, *, dirty: bool) -> ContextNames[Database]:
        """Return the names to ask."""
        if dirty:
            return no_names()
        changes: int = self._remember("text changes", lambda: text_changes(database))
        kept = self._kept
        if kept[0] != changes:
            self._kept = kept = changes, no_names()
        return kept[1]

    def forget(self) -> None:
        """Drop what is in memory, because the file is another one now."""
        self._kept = -1, no_names()
