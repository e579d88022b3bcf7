"""The ids of contexts by their keys, and back: each read once as long as nothing changes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Generic, TypeVar

Remember = Callable[[Hashable, Callable[[], Any]], Any]
Asked = TypeVar("Asked")


class ContextNames(Generic[Asked]):
    """The ids that have been asked for so far, by key and back; they hold until a context is changed or deleted.

    `read` returns keys and ids, given what the database is asked with, a column and values of it.
    """

    def __init__(self, read: Callable[[Asked, str, list[Any]], Iterable[Sequence[Any]]]) -> None:
        self._read = read
        self._ids: dict[int, str] = {}
        self._keys: dict[str, int] = {}

    def ids(self, database: Asked, keys: Iterable[int]) -> dict[int, str]:
        """Return the ids of these keys; a context that was just deleted has none."""
        wanted = list(keys)
        if missing := [key for key in wanted if key not in self._ids]:
            self.learn(self._read(database, "context_key", missing))
        return {key: self._ids[key] for key in wanted if key in self._ids}

    def keys(self, database: Asked, ids: Iterable[str]) -> dict[str, int]:
        """Return the keys of these ids, of those that exist."""
        wanted = list(ids)
        if missing := [context_id for context_id in wanted if context_id not in self._keys]:
            self.learn(self._read(database, "id", missing))
        return {context_id: self._keys[context_id] for context_id in wanted if context_id in self._keys}

    def learn(self, names: Iterable[Sequence[Any]]) -> None:
        """Note keys with their ids, which were read with something else."""
        for key, context_id in names:
            self._ids[key], self._keys[context_id] = context_id, key
