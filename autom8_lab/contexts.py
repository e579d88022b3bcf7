"""Contexts: what one is, and how it is stored, changed, joined with its duplicates and removed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from .drafts import FIELDS, Draft, draft, rows_of
from .errors import ContextExists, ContextNotFound, InvalidValue
from .frames import TIME
from .indexing import Index, Indexed, progress_bar
from .records import Condition, Context
from .validation import (
    duration,
    name_value,
    new_id,
    shortened,
    text_value,
)

if TYPE_CHECKING:
    from .storage.base import Storage, Unit

TABLE, ALIASES = "context_registry", "context_aliases"
IfExists = Literal["fail", "update", "skip"]
RETENTION = {"pinned", "priority", "expires_at"}

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
OUTCOME_COLUMNS = {
    "context_id": "str",
    "outcome": "str",
    "duplicate_of": "str",
    "chunks": "int64",
    "token_count": "Int64",
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

    # Storing

    def store(self, row: Mapping[str, Any], *, if_exists: IfExists) -> str:
        """Store one context and return its id."""
        return str(self.store_drafts([draft(row, now=self._clock())], if_exists=if_exists)[0]["context_id"])

    def store_rows(
        self, source: Any, *, if_exists: IfExists, batch_size: int, progress: bool | None
    ) -> list[dict[str, Any]]:
        """Store rows in batches, each whole or not at all; a source of known length is checked before that."""
        known_length = hasattr(source, "__len__")
        rows: Iterable[Any] = rows_of(source)
        drafts: Iterator[Draft] = (self._numbered(number, row) for number, row in enumerate(rows))
        if known_length:
            drafts = iter(list(drafts))
        outcomes: list[dict[str, Any]] = []
        with progress_bar(len(source) if known_length else 0, "contexts", progress) as bar:
            while batch := list(islice(drafts, batch_size)):
                outcomes += self.store_drafts(batch, if_exists=if_exists)
                bar.update(len(batch))
        return outcomes

    def _numbered(self, number: int, row: Any) -> Draft:
        try:
            return draft(row, now=self._clock())
        except InvalidValue as exc:
            raise InvalidValue(f"row {number}: {exc}") from exc

    def store_drafts(self, drafts: Sequence[Draft], *, if_exists: IfExists) -> list[dict[str, Any]]:
        """Store drafts in one transaction and return an outcome for each."""
        if if_exists not in ("fail", "update", "skip"):
            raise InvalidValue(f"if_exists={if_exists!r}: give 'fail', 'update' or 'skip'")
        # A text that is there already most likely needs no chunks: they are made only if it turns out that it does.
        hashes = [item.content_hash for item in drafts]
        rows = self._storage.rows(TABLE, where=[Condition("content_hash", "in", hashes)], columns=["content_hash"])
        known = {row["content_hash"] for row in rows}
        for spared in (known, set()):
            chosen = [item.content for item in drafts if item.content_hash not in spared]
            prepared = dict(zip(chosen, self._prepare(chosen), strict=True))
            with suppress(_Unprepared), self._storage.transaction():
                return _Batch(self, drafts, prepared, if_exists).store()
        raise AssertionError("every text was prepared")

    def _prepare(self, texts: Sequence[str]) -> list[Indexed]:
        # Inside a transaction the vectors wait for its end: see `embedding_at_the_end`.
        if self._storage.in_transaction:
            return [Indexed() for _ in texts]
        return self._index.prepare(texts, progress=None)

    def write_index(self, context_id: str, content_hash: str, indexed: Indexed, *, content_changed: bool) -> None:
        """Write a context's chunks and vectors, or note that its text is still to get them."""
        if indexed.set_key is None and self._deferred is not None:
            self._deferred.append(content_hash)
        self._index.write(context_id, indexed, content_changed=content_changed)

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
        for row, indexed in zip(rows, prepared, strict=True):
            self._index.write(row["id"], indexed, content_changed=True)
            self._storage.update(TABLE, _is(row["id"]), {"token_count": indexed.token_count})

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
        """Return a context by id or alias. Raises `ContextNotFound`."""
        return self.by_ids([self.resolve(context_id)])[0]

    def by_ids(self, ids: Sequence[str]) -> list[Context]:
        """Return the contexts of these ids that exist, in the order of the ids."""
        found = {item.id: item for item in self.select([Condition("id", "in", list(ids))])}
        return [found[context_id] for context_id in ids if context_id in found]

    def select(self, where: Sequence[Condition], *, limit: int | None = None) -> list[Context]:
        """Return matching contexts, the oldest first."""
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
        indexed = self._prepare([checked["content"]])[0] if "content" in checked else None
        with self._storage.transaction():
            self.apply(context_id, checked, indexed)
            return self.get(context_id)

    def apply(self, context_id: str, changes: dict[str, Any], indexed: Indexed | None) -> None:
        """Write checked changes inside the caller's transaction, with the index of the new content if there is one."""
        current = self.get(context_id)
        if indexed is not None and changes["content"] != current.content:
            current = self._own_copy(context_id, current)
            changes["token_count"] = indexed.token_count
            self.write_index(current.id, changes["content_hash"], indexed, content_changed=True)
        if changes.get("superseded_by") is not None:
            changes["superseded_by"] = self._successor(current.id, changes["superseded_by"])
        self._storage.update(TABLE, _is(current.id), {**changes, "updated_at": self._clock()})

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
            following = self._storage.rows(TABLE, where=_is(following), columns=["superseded_by"])[0]["superseded_by"]
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
            self._storage.update(TABLE, _is(old), {"superseded_by": self._successor(old, successor)})

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
                self._storage.delete(TABLE, _is(resolved))
                return
            heir = aliases[0]["alias"]
            self._storage.delete(ALIASES, [Condition("alias", "=", heir)])
            self._storage.update(TABLE, _is(resolved), {"id": heir})

    def removable(self, *, unused_for: timedelta | None) -> list[dict[str, Any]]:
        """Return what retention would remove: expired contexts, and those unused for too long; never pinned ones."""
        now = self._clock()
        tests = {"expired": [Condition("expires_at", "<=", now)]}
        if unused_for is not None:
            stale = now - unused_for
            tests[f"unused for more than {unused_for / timedelta(days=1):g} days"] = [
                Condition("updated_at", "<", stale),
                Condition("accessed_at", "null or <", stale),
            ]
        columns = ["id", "topic", "priority", "expires_at", "updated_at", "accessed_at", "created_at"]
        found: dict[str, dict[str, Any]] = {}
        for reason, where in tests.items():
            for row in self._storage.rows(TABLE, where=[Condition("pinned", "=", False), *where], columns=columns):
                last_used = max(row["updated_at"], row["accessed_at"] or row["updated_at"])
                age_days = (now - row["created_at"]).total_seconds() / 86_400
                details = {"reason": reason, "last_used_at": last_used, "age_days": age_days}
                found.setdefault(row["id"], {**row, "context_id": row["id"], **details})
        return sorted(found.values(), key=lambda row: (row["reason"], row["last_used_at"], row["context_id"]))

    def remove(self, ids: Sequence[str]) -> None:
        """Delete contexts with all their ids, unless they were pinned meanwhile."""
        where = [Condition("id", "in", list(ids)), Condition("pinned", "=", False)]
        with self._storage.transaction():
            self._bridge([row["id"] for row in self._storage.rows(TABLE, where=where, columns=["id"])])
            self._storage.delete(TABLE, where)

    def _bridge(self, ids: Sequence[str]) -> None:
        # What a leaving context superseded is superseded by its own successor, or else lives again.
        for context_id in ids:
            successor = self._storage.rows(TABLE, where=_is(context_id), columns=["superseded_by"])[0]["superseded_by"]
            if successor is not None:
                where = [Condition("superseded_by", "=", context_id)]
                self._storage.update(TABLE, where, {"superseded_by": successor})


class _Unprepared(Exception):
    """A text that was taken for a known one has to be stored after all."""


class _Batch:
    """One batch on its way into the file, inside a transaction.

    A row whose id and text nobody has goes straight to the new ones; every other is looked at with care, in order,
    with all before it in the file.
    """

    def __init__(
        self, contexts: Contexts, drafts: Sequence[Draft], prepared: Mapping[str, Indexed], if_exists: IfExists
    ) -> None:
        self._contexts = contexts
        self._storage = contexts._storage
        self._now = contexts._clock()
        self._drafts = drafts
        self._prepared = prepared
        self._if_exists = if_exists
        self._new: list[tuple[Context, Indexed]] = []

    def store(self) -> list[dict[str, Any]]:
        """Store the drafts and return an outcome for each."""
        names, hashes = self._taken()
        outcomes = []
        for item in self._drafts:
            if item.supersedes or item.context_id in names or item.content_hash in hashes:
                self._flush()
                outcomes.append(self._with_care(item))
            else:
                outcomes.append(self._store_new(item))
            names.add(outcomes[-1]["context_id"])
            hashes.add(item.content_hash)
        self._flush()
        return outcomes

    def _taken(self) -> tuple[set[str], set[str]]:
        wanted = [item.context_id for item in self._drafts if item.context_id is not None]
        hashes = [item.content_hash for item in self._drafts]

        def found(table: str, column: str, values: list[str]) -> set[str]:
            where = [Condition(column, "in", values)]
            return {row[column] for row in self._storage.rows(table, where=where, columns=[column])}

        return found(TABLE, "id", wanted) | found(ALIASES, "alias", wanted), found(TABLE, "content_hash", hashes)

    def _with_care(self, item: Draft) -> dict[str, Any]:
        superseded = [self._contexts.resolve(old, field="supersedes") for old in item.supersedes]
        existing = self._existing(item)
        twin = None if existing else self._twin(item, superseded)
        if existing is not None:
            outcome = self._again(item, existing)
        elif twin is not None:
            outcome = self._duplicate(item, twin)
        else:
            outcome = self._store_new(item)
            self._flush()
        self._contexts.supersede(superseded, outcome["context_id"])
        return outcome

    def _existing(self, item: Draft) -> Context | None:
        with suppress(ContextNotFound):
            return self._contexts.get(item.context_id) if item.context_id is not None else None
        return None

    def _twin(self, item: Draft, superseded: Sequence[str]) -> Context | None:
        # The same text about something else (another topic, source, summary or metadata) is another context.
        about = [name for name in ("topic", "source", "summary", "metadata") if name in item.given]
        alive = [Condition("superseded_by", "is null"), Condition("expires_at", "null or >", self._now)]
        for other in self._contexts.select([Condition("content_hash", "=", item.content_hash), *alive]):
            if other.id not in superseded and all(getattr(other, name) == item.given[name] for name in about):
                return other
        return None

    def _indexed(self, item: Draft) -> Indexed:
        try:
            return self._prepared[item.content]
        except KeyError:
            raise _Unprepared from None

    def _flush(self) -> None:
        new, self._new = self._new, []
        names = [name for name in Context.__dataclass_fields__ if name != "aliases"]
        self._storage.insert(TABLE, [{name: getattr(item, name) for name in names} for item, _ in new])
        for item, indexed in new:
            self._contexts.write_index(item.id, item.content_hash, indexed, content_changed=False)

    def _store_new(self, item: Draft) -> dict[str, Any]:
        indexed = self._indexed(item)
        given = {"summary": None, "topic": None, "source": None, "priority": 0, "pinned": False, **item.given}
        context = Context(
            id=item.context_id or new_id(),
            content=item.content,
            content_hash=item.content_hash,
            expires_at=given.pop("expires_at", None),
            metadata=given.pop("metadata", {}),
            superseded_by=None,
            token_count=indexed.token_count,
            created_at=item.created_at or self._now,
            updated_at=item.created_at or self._now,
            accessed_at=None,
            access_count=0,
            **given,
        )
        self._new.append((context, indexed))
        return _outcome(context.id, "stored", None, len(indexed.chunks), indexed.token_count)

    def _again(self, item: Draft, existing: Context) -> dict[str, Any]:
        context_id = str(item.context_id)
        same_text = existing.content_hash == item.content_hash
        changes = {name: value for name, value in item.given.items() if getattr(existing, name) != value}
        conflicts = sorted(changes.keys() - RETENTION) + ([] if same_text else ["content"])
        if self._if_exists == "fail" and conflicts:
            raise ContextExists(
                f"context {context_id!r} exists already with another {', '.join(conflicts)}: "
                "use update_context, or if_exists='update' or 'skip'"
            )
        if self._if_exists == "skip":
            return _outcome(context_id, "skipped", None, 0, existing.token_count)
        if self._if_exists == "fail":
            changes = self._stronger_wish(item, existing)
        if same_text and not changes:
            return _outcome(context_id, "unchanged", None, 0, existing.token_count)
        indexed = None if same_text else self._indexed(item)
        text = {} if same_text else {"content": item.content, "content_hash": item.content_hash}
        self._contexts.apply(context_id, {**changes, **text}, indexed)
        chunks, tokens = (len(indexed.chunks), indexed.token_count) if indexed else (0, existing.token_count)
        return _outcome(context_id, "updated", None, chunks, tokens)

    def _duplicate(self, item: Draft, twin: Context) -> dict[str, Any]:
        if item.context_id is not None:
            alias = {"alias": item.context_id, "context_id": twin.id, "created_at": self._now}
            self._storage.insert(ALIASES, [alias])
        if changes := self._stronger_wish(item, twin):
            self._storage.update(TABLE, _is(twin.id), {**changes, "updated_at": self._now})
        return _outcome(item.context_id or twin.id, "duplicate", twin.id, 0, twin.token_count)

    @staticmethod
    def _stronger_wish(item: Draft, existing: Context) -> dict[str, Any]:
        """Return what changes when a text is stored again: whoever wants to keep it longer wins."""
        ends = (item.given.get("expires_at"), existing.expires_at)
        kept = {
            "pinned": existing.pinned or item.given.get("pinned", False),
            "priority": max(existing.priority, item.given.get("priority", existing.priority)),
            "expires_at": None if None in ends else max(end for end in ends if end is not None),
        }
        return {name: value for name, value in kept.items() if getattr(existing, name) != value}


def _outcome(
    context_id: str, outcome: str, duplicate_of: str | None, chunks: int, token_count: int | None
) -> dict[str, Any]:
    return {
        "context_id": context_id,
        "outcome": outcome,
        "duplicate_of": duplicate_of,
        "chunks": chunks,
        "token_count": token_count,
    }


def _is(context_id: str) -> list[Condition]:
    return [Condition("id", "=", context_id)]
