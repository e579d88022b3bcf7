"""Storing: drafts become contexts, join their duplicates, or renew what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from .collecting import seldom_collected
from .contexts import ALIASES, TABLE, Contexts, by_id
from .drafts import Draft, draft, rows_of
from .errors import ContextExists, ContextNotFound, InvalidValue, LabBusy
from .indexing import Indexed, progress_bar
from .records import Condition, Context
from .validation import new_id, progress_value

if TYPE_CHECKING:
    from .storage import Storage

IfExists = Literal["fail", "update", "skip"]
TRIES = 4  # to store what was prepared before others changed what it was prepared for
RETENTION = {"pinned", "priority", "expires_at"}
# What a new context has in the fields that nobody gave.
UNLESS_GIVEN: dict[str, Any] = {
    "summary": None,
    "topic": None,
    "source": None,
    "priority": 0,
    "pinned": False,
    "expires_at": None,
    "metadata": {},
    "superseded_by": None,
    "accessed_at": None,
    "access_count": 0,
}
OUTCOME_COLUMNS = {
    "context_id": "str",
    "outcome": "str",
    "duplicate_of": "str",
    "chunks": "int64",
    "token_count": "Int64",
}


class Storing:
    """Stores contexts into one lab."""

    def __init__(self, storage: Storage, contexts: Contexts, *, clock: Callable[[], datetime]) -> None:
        self._storage = storage
        self._contexts = contexts
        self._clock = clock

    def store(self, row: Mapping[str, Any], *, if_exists: IfExists) -> str:
        """Store one context and return its id."""
        return str(self.store_drafts([draft(row, now=self._clock())], if_exists=if_exists)[0]["context_id"])

    @seldom_collected()
    def store_rows(
        self, source: Any, *, if_exists: IfExists, batch_size: int, progress: bool | None
    ) -> list[dict[str, Any]]:
        """Store rows in batches, each whole or not at all; a source of known length is checked before that."""
        progress_value(progress)
        known_length = hasattr(source, "__len__")
        rows: Iterable[Any] = rows_of(source)
        drafts: Iterator[Draft] = (self._numbered(number, row) for number, row in enumerate(rows))
        if known_length:
            drafts = iter(list(drafts))
        outcomes: list[dict[str, Any]] = []
        # One bar: over the contexts where there are several batches, else over the chunks of the only one.
        several = known_length and len(source) > batch_size
        with progress_bar(len(source) if several else 0, "contexts", progress if several else False) as bar:
            while batch := list(islice(drafts, batch_size)):
                outcomes += self.store_drafts(batch, if_exists=if_exists, progress=False if several else progress)
                bar.update(len(batch))
        return outcomes

    def _numbered(self, number: int, row: Any) -> Draft:
        try:
            return draft(row, now=self._clock())
        except InvalidValue as exc:
            raise InvalidValue(f"row {number}: {exc}") from exc

    def store_drafts(
        self, drafts: Sequence[Draft], *, if_exists: IfExists, progress: bool | None = False
    ) -> list[dict[str, Any]]:
        """Store drafts in one transaction and return an outcome for each."""
        if if_exists not in ("fail", "update", "skip"):
            raise InvalidValue(f"if_exists={if_exists!r}: give 'fail', 'update' or 'skip'")
        # A text that is there already most likely needs no chunks: they are made only if it turns out that it does.
        # To look for a single one costs more than it spares.
        hashes = [item.content_hash for item in drafts] if len(drafts) > 1 else []
        spared = self._known(hashes)
        for _ in range(TRIES):
            chosen = [item.content for item in drafts if item.content_hash not in spared]
            indexed = self._contexts.prepare(chosen, progress=progress, presuming=True)
            prepared = dict(zip(chosen, indexed, strict=True))
            with suppress(_Unprepared), self._storage.transaction(whole=True):
                return _Batch(self._contexts, self._storage, drafts, prepared, if_exists, self._clock()).store()
            spared = set()
        raise LabBusy("the embedding model of the lab is being changed again and again: store once that is done")

    def _known(self, hashes: list[str]) -> set[str]:
        if not hashes:
            return set()
        where = [Condition("content_hash", "in", hashes)]
        return {row["content_hash"] for row in self._storage.rows(TABLE, where=where, columns=["content_hash"])}


class _Unprepared(Exception):
    """A text that was taken for a known one has to be stored after all, or another embedding set serves by now."""


class _Batch:
    """One batch on its way into the file, inside a transaction.

    A row whose id and text nobody has goes straight to the new ones; every other is looked at with care, in order,
    with all before it in the file.
    """

    def __init__(
        self,
        contexts: Contexts,
        storage: Storage,
        drafts: Sequence[Draft],
        prepared: Mapping[str, Indexed],
        if_exists: IfExists,
        now: datetime,
    ) -> None:
        self._contexts = contexts
        self._storage = storage
        self._now = now
        self._drafts = drafts
        self._prepared = prepared
        self._if_exists = if_exists
        self._new: list[tuple[dict[str, Any], Indexed]] = []

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
            if not values:
                return set()
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
        # By name again: where one of several ids got a new text, those it left have another row now.
        self._contexts.supersede(map(self._contexts.resolve, item.supersedes), outcome["context_id"])
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
        self._storage.insert(TABLE, [row for row, _ in new])
        hashes = [row["content_hash"] for row, _ in new]
        if not self._contexts.write_first_index({row["id"]: indexed for row, indexed in new}, hashes):
            raise _Unprepared

    def _store_new(self, item: Draft) -> dict[str, Any]:
        indexed = self._indexed(item)
        row = {
            "id": item.context_id or new_id(),
            "content": item.content,
            "content_hash": item.content_hash,
            "token_count": indexed.token_count,
            "created_at": item.created_at or self._now,
            "updated_at": self._now,
            **UNLESS_GIVEN,
            **item.given,
        }
        self._new.append((row, indexed))
        return _outcome(row["id"], "stored", None, len(indexed.chunks), indexed.token_count)

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
        elif existing.expires_at is not None and existing.expires_at <= self._now:
            changes.setdefault("expires_at", None)  # stored again, it lives again
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
            self._storage.update(TABLE, by_id(twin.id), {**changes, "updated_at": self._now})
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
