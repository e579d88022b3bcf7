"""Contexts: what one is, and how it is stored, changed, joined with its duplicates and removed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from .drafts import FIELDS
from .errors import ContextExists, ContextNotFound, DamagedContextWarning, DamagedLab, InvalidValue
from .frames import TIME
from .indexing import Index, Indexed
from .records import Condition, Context
from .validation import (
    duration,
    name_value,
    shortened,
    text_value,
)

if TYPE_CHECKING:
    from .storage.base import Storage, Unit

TABLE, ALIASES = "context_registry", "context_aliases"

COLUMNS = {
    "context_id": "str",
    "topic": "str",
    "content": "str",
    "summary": "str",
    "source": "str",
    "priority": "int64",
    "pinned": "bool",
    "expires_at": TIME,
    "superseded_by": "str",
    "token_count": "Int64",
    "content_hash": "str",
    "metadata": "object",
    "created_at": TIME,
    "updated_at": TIME,
    "accessed_at": TIME,
    "access_count": "int64",
    "aliases": "object",
}
CLEANUP_COLUMNS = {
    "context_id": "str",
    "reason": "str",
    "topic": "str",
    "priority": "int64",
    "expires_at": TIME,
    "last_used_at": TIME,
    "age_days": "float64",
}


class Contexts:
    """The contexts of one lab."""

    def __init__(self, storage: Storage, index: Index, *, clock: Callable[[], datetime]) -> None:
        self._storage = storage
        self._index = index
        self._clock = clock
        self._deferred: list[str] | None = None  # hashes of texts that wait for vectors, in a transaction

    def prepare(self, texts: Sequence[str], *, progress: bool | None = False, presuming: bool = False) -> list[Indexed]:
        """Chunk and encode texts outside a transaction; inside one they come back empty. See `Index.prepare`."""
        # Inside a transaction the vectors wait for its end: see `embedding_at_the_end`.
        if self._storage.in_transaction:
            return [Indexed() for _ in texts]
        return self._index.prepare(texts, progress=progress, presuming=presuming)

    def write_index(self, indexed: Mapping[str, Indexed], hashes: Iterable[str]) -> None:
        """Write changed chunks and vectors by context id, or note that the texts of these hashes are to get them."""
        self._defer(hashes)
        self._index.write(indexed, content_changed=True)

    def write_first_index(self, indexed: Mapping[str, Indexed], hashes: Iterable[str]) -> bool:
        """Do so for new contexts; see `Index.write_first`."""
        self._defer(hashes)
        return self._index.write_first(indexed)

    def _defer(self, hashes: Iterable[str]) -> None:
        if self._deferred is not None:
            self._deferred += hashes

    @contextmanager
    def embedding_at_the_end(self, unit: Unit) -> Iterator[None]:
        """Give the texts that the block stores their vectors before its transaction is committed.

        The database is let go while the model works, and then the transaction's writes are repeated.
        """
        self._deferred = []
        try:
            yield
            where = [Condition("content_hash", "in", list(dict.fromkeys(self._deferred)))]
        finally:
            self._deferred = None
        rows = self._storage.rows(TABLE, where=where, columns=["id", "content"]) if where[0].value else []
        if not rows:
            return
        unit.undo()
        prepared = self._index.prepare([row["content"] for row in rows])
        unit.redo()
        ids = [row["id"] for row in rows]
        self._index.write(dict(zip(ids, prepared, strict=True)), content_changed=True)
        for context_id, indexed in zip(ids, prepared, strict=True):
            self._storage.update(TABLE, by_id(context_id), {"token_count": indexed.token_count})

    # Reading

    def resolve(self, context_id: object, *, field: str = "context_id") -> str:
        """Return the id that an id or alias stands for. Raises `ContextNotFound`."""
        name = name_value(context_id, field)
        if self._storage.rows(TABLE, where=[Condition("id", "=", name)], columns=["id"]):
            return name
        rows = self._storage.rows(ALIASES, where=[Condition("alias", "=", name)], columns=["context_id"])
        if not rows:
            raise ContextNotFound(f"no context {shortened(name)}: al.contexts_df() lists the ids")
        return str(rows[0]["context_id"])

    def all_names(self, context_id: str) -> list[str]:
        """Return the id and the aliases of a context; of an unknown id, that id."""
        try:
            context = self.get(context_id)
        except ContextNotFound:
            return [context_id]
        return [context.id, *context.aliases]

    def get(self, context_id: str) -> Context:
        """Return a context by id or alias. Raises `ContextNotFound`, `DamagedLab`."""
        found = self._one(context_id)
        if not is_sound(found):
            raise DamagedLab(
                f"the text of context {shortened(found.id)} does not fit its hash: it is damaged, or another program "
                "changed it. al.check() lists all that is; update_context(…, content=…) gives it a text again"
            )
        return found

    def _one(self, context_id: str) -> Context:
        name = name_value(context_id, "context_id")
        found = self._read(by_id(name)) or self._read(by_id(self.resolve(name)))
        if not found:  # deleted in between
            raise ContextNotFound(f"no context {shortened(name)}: al.contexts_df() lists the ids")
        return found[0]

    def columns_in_use(self, names: Iterable[str]) -> set[str]:
        """Return those of the columns that hold something in at least one context."""
        return {name for name in names if self._storage.count(TABLE, where=[Condition(name, "is not null")])}

    def by_ids(self, ids: Sequence[str]) -> list[Context]:
        """Return the contexts of these ids that exist and are sound, in the order of the ids."""
        found = {item.id: item for item in self.select([Condition("id", "in", list(ids))])}
        return [found[context_id] for context_id in ids if context_id in found]

    def select(self, where: Sequence[Condition], *, limit: int | None = None) -> list[Context]:
        """Return matching contexts, the oldest first; damaged ones are left out with a `DamagedContextWarning`."""
        found = self._read(where, limit=limit)
        sound = [context for context in found if is_sound(context)]
        if len(sound) < len(found):
            damaged = [context.id for context in found if not is_sound(context)]
            warnings.warn(
                f"{len(damaged)} left out, whose text does not fit its hash (the first is {shortened(damaged[0])}): "
                "al.check() lists what is damaged, al.repair(path, to=…) saves the rest",
                DamagedContextWarning,
                stacklevel=4,
            )
        return sound

    def _read(self, where: Sequence[Condition], *, limit: int | None = None) -> list[Context]:
        rows = self._storage.rows(TABLE, where=where, order_by=["created_at", "id"], limit=limit)
        ids = [row["id"] for row in rows]
        aliases: dict[str, list[str]] = {}
        for row in self._storage.rows(ALIASES, where=[Condition("context_id", "in", ids)], order_by=["alias"]):
            aliases.setdefault(row["context_id"], []).append(row["alias"])
        for row in rows:
            del row["context_key"]
        return [Context(**row, aliases=tuple(aliases.get(row["id"], ()))) for row in rows]

    # Changing

    def update(self, context_id: str, changes: Mapping[str, Any]) -> Context:
        """Change the given fields; None empties one. A new content gets new vectors."""
        checked = self._checked_changes(changes)
        indexed = self.prepare([checked["content"]])[0] if "content" in checked else None
        with self._storage.transaction():
            self.apply(context_id, checked, indexed)
            return self.get(context_id)

    def apply(self, context_id: str, changes: dict[str, Any], indexed: Indexed | None) -> None:
        """Write checked changes inside the caller's transaction, with the index of the new content if there is one."""
        current = self._one(context_id) if indexed is not None else self.get(context_id)
        if indexed is not None and changes["content"] != current.content:
            current = self._own_copy(context_id, current)
            changes["token_count"] = indexed.token_count
            self.write_index({current.id: indexed}, [changes["content_hash"]])
        if changes.get("superseded_by") is not None:
            changes["superseded_by"] = self._successor(current.id, changes["superseded_by"])
        self._storage.update(TABLE, by_id(current.id), {**changes, "updated_at": self._clock()})

    def _checked_changes(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        from .embedding.chunking import text_hash

        if "ttl" in changes:
            if "expires_at" in changes:
                raise InvalidValue("ttl and expires_at are both given: give one of the two")
            ttl = changes["ttl"]
            expires_at = None if ttl is None else self._clock() + duration(ttl, "ttl")
            changes = {
                **{key: value for key, value in changes.items() if key != "ttl"},
                "expires_at": expires_at,
            }
        empty = {"priority": 0, "pinned": False, "metadata": {}}
        checked: dict[str, Any] = {
            name: empty.get(name) if changes[name] is None else check(changes[name])
            for name, check in FIELDS.items()
            if name in changes
        }
        if "content" in changes:
            content = text_value(changes["content"], "content")
            checked.update(content=content, content_hash=text_hash(content))
        if "superseded_by" in changes:
            checked["superseded_by"] = changes["superseded_by"]
        return checked

    def _successor(self, context_id: str, successor: str) -> str:
        successor = self.resolve(successor, field="superseded_by")
        seen, following = [context_id], successor
        while following:
            if following in seen:
                raise InvalidValue(f"superseded_by={successor!r} closes a circle: {' → '.join([*seen, following])}")
            seen.append(following)
            following = self._storage.rows(TABLE, where=by_id(following), columns=["superseded_by"])[0]["superseded_by"]
        return successor

    def _own_copy(self, context_id: str, current: Context) -> Context:
        # Several ids share one text only while it is the same text: the one that changes gets a row of its own.
        if not current.aliases:
            return current
        self.delete(context_id)
        row = {name: getattr(current, name) for name in current.__dataclass_fields__ if name not in ("id", "aliases")}
        self._storage.insert(TABLE, [{**row, "id": context_id}])
        return replace(current, id=context_id, aliases=())

    def supersede(self, old_ids: Iterable[str], successor: str) -> None:
        """Mark contexts as superseded by another."""
        for old in old_ids:
            self._storage.update(TABLE, by_id(old), {"superseded_by": self._successor(old, successor)})

    def add_alias(self, context_id: str, alias: object) -> Context:
        """Give a context another id. Raises `ContextExists` where a context has it already."""
        name = name_value(alias, "alias")
        with self._storage.transaction():
            resolved = self.resolve(context_id)
            with suppress(ContextNotFound):
                if self.resolve(name) == resolved:
                    return self.get(resolved)
                raise ContextExists(f"alias={name!r} is the id of another context: give a free one")
            self._storage.insert(ALIASES, [{"alias": name, "context_id": resolved, "created_at": self._clock()}])
            return self.get(resolved)

    # Removing

    def delete(self, context_id: str) -> None:
        """Delete an id; the text with its vectors goes when its last id does."""
        with self._storage.transaction():
            resolved = self.resolve(context_id)
            if resolved != context_id:
                self._storage.delete(ALIASES, [Condition("alias", "=", context_id)])
                return
            aliases = self._storage.rows(ALIASES, where=[Condition("context_id", "=", resolved)], order_by=["alias"])
            if not aliases:
                self._bridge([resolved])
                self._storage.delete(TABLE, by_id(resolved))
                return
            heir = aliases[0]["alias"]
            self._storage.delete(ALIASES, [Condition("alias", "=", heir)])
            self._storage.update(TABLE, by_id(resolved), {"id": heir})

    def removable(
        self, *, unused_for: timedelta | None, by_topic: Mapping[str, timedelta | None] | None = None
    ) -> list[dict[str, Any]]:
        """Return what retention would remove: expired contexts, and those unused for too long; never pinned ones.

        A topic in `by_topic` has a length of its own, None for ever.
        """
        now, by_topic = self._clock(), by_topic or {}
        found = {row["id"]: {**row, "reason": "expired"} for row in self._unpinned(Condition("expires_at", "<=", now))}
        lengths = [(length, [Condition("topic", "=", topic)]) for topic, length in by_topic.items()]
        for length, of_topic in [(unused_for, list[Condition]()), *lengths]:
            if length is None:
                continue
            stale = now - length
            unused = [Condition("updated_at", "<", stale), Condition("accessed_at", "null or <", stale)]
            reason = f"unused for more than {length / timedelta(days=1):g} days"
            for row in self._unpinned(*of_topic, *unused):
                if of_topic or row["topic"] not in by_topic:
                    found.setdefault(row["id"], {**row, "reason": reason})
        for row in found.values():
            row["context_id"] = row["id"]
            row["last_used_at"] = max(row["updated_at"], row["accessed_at"] or row["updated_at"])
            row["age_days"] = (now - row["created_at"]).total_seconds() / 86_400
        return sorted(found.values(), key=lambda row: (row["reason"], row["last_used_at"], row["context_id"]))

    def _unpinned(self, *where: Condition) -> list[dict[str, Any]]:
        columns = ["id", "topic", "priority", "expires_at", "updated_at", "accessed_at", "created_at"]
        return self._storage.rows(TABLE, where=[Condition("pinned", "=", False), *where], columns=columns)

    def remove(self, ids: Sequence[str]) -> None:
        """Delete contexts with all their ids, unless they were pinned meanwhile."""
        where = [Condition("id", "in", list(ids)), Condition("pinned", "=", False)]
        with self._storage.transaction():
            self._bridge([row["id"] for row in self._storage.rows(TABLE, where=where, columns=["id"])])
            self._storage.delete(TABLE, where)

    def _bridge(self, ids: Sequence[str]) -> None:
        # What a leaving context superseded is superseded by its own successor, or else lives again.
        for context_id in ids:
            successor = self._storage.rows(TABLE, where=by_id(context_id), columns=["superseded_by"])[0][
                "superseded_by"
            ]
            if successor is not None:
                where = [Condition("superseded_by", "=", context_id)]
                self._storage.update(TABLE, where, {"superseded_by": successor})


def is_sound(context: Context) -> bool:
    """Whether a context's text is the one that was stored."""
    return text_is_sound(context.content, context.content_hash)


def text_is_sound(content: str, content_hash: str) -> bool:
    """Whether a text fits its hash."""
    from .embedding.chunking import text_hash

    return isinstance(content, str) and text_hash(content) == content_hash


def by_id(context_id: str) -> list[Condition]:
    """Return the condition that means one context."""
    return [Condition("id", "=", context_id)]
