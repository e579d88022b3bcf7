"""Verbs that store contexts, read and change them, and forget them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from .. import contexts, storing
from ..errors import LabError
from ..frames import frame
from ..records import Context, Report
from ..storing import IfExists
from ..validation import duration, flag_value, positive_integer
from .parts import Parts, limit_value

if TYPE_CHECKING:
    import pandas as pd

UNCHANGED: Any = type("Unchanged", (), {"__repr__": lambda self: "<unchanged>"})()


class ContextVerbs(Parts):
    """Remember: contexts."""

    def store_context(
        self,
        content: str,
        *,
        context_id: str | None = None,
        topic: str | None = None,
        summary: str | None = None,
        source: str | None = None,
        priority: int | None = None,
        pinned: bool | None = None,
        ttl: str | timedelta | None = None,
        expires_at: datetime | str | None = None,
        metadata: Mapping[str, Any] | None = None,
        supersedes: str | Sequence[str] | None = None,
        created_at: datetime | str | None = None,
        if_exists: IfExists = "fail",
    ) -> str:
        """Store a text with its vectors and return its id.

        The same text about the same thing (topic, source, summary and metadata as far as they are given) is kept
        once: `context_id` then becomes an alias, and the stronger wish to keep it (pinned, priority, expiry) wins.
        `ttl` is a length of time such as "30d". `supersedes` names contexts that this one replaces: they stay
        readable, and searches leave them out. A `context_id` that is taken by another text raises `ContextExists`
        unless `if_exists` is "update" or "skip". Raises `InvalidValue` naming the field, the value and the remedy.

        >>> lab.store_context("Refunds over 500 EUR need a second approval.", context_id="refund-limit")
        'refund-limit'
        """
        row = {
            "content": content,
            "context_id": context_id,
            "topic": topic,
            "summary": summary,
            "source": source,
            "priority": priority,
            "pinned": pinned,
            "ttl": ttl,
            "expires_at": expires_at,
            "metadata": metadata,
            "supersedes": supersedes,
            "created_at": created_at,
        }
        return self._storing.store(row, if_exists=if_exists)

    def store_contexts(
        self,
        rows: pd.DataFrame | Iterable[Mapping[str, Any] | str],
        *,
        if_exists: IfExists = "fail",
        batch_size: int = 1_000,
        progress: bool | None = None,
    ) -> pd.DataFrame:
        """Store many contexts and return a frame of outcomes: stored, duplicate, updated, unchanged or skipped.

        `rows` is a DataFrame, a list or a generator of dicts with the fields of `store_context`, or of texts. Each
        batch is embedded in one pass and lands whole or not at all; a DataFrame or list is checked before anything
        is stored. `progress` shows or hides the bar; None shows it for long work.
        """
        size = positive_integer(batch_size, "batch_size", at_most=100_000)
        outcomes = self._storing.store_rows(rows, if_exists=if_exists, batch_size=size, progress=progress)
        return frame(outcomes, storing.OUTCOME_COLUMNS)

    def get_context(self, context_id: str) -> Context:
        """Return a context by its id or an alias, expired and superseded ones too.

        Raises `ContextNotFound`, and `DamagedLab` where the text does not fit its hash.
        """
        context = self._contexts.get(context_id)
        self._access.read(context.id)
        return context

    def update_context(
        self,
        context_id: str,
        *,
        content: str = UNCHANGED,
        topic: str | None = UNCHANGED,
        summary: str | None = UNCHANGED,
        source: str | None = UNCHANGED,
        priority: int = UNCHANGED,
        pinned: bool = UNCHANGED,
        ttl: str | timedelta | None = UNCHANGED,
        expires_at: datetime | str | None = UNCHANGED,
        metadata: Mapping[str, Any] | None = UNCHANGED,
        superseded_by: str | None = UNCHANGED,
    ) -> Context:
        """Change the given fields of a context and return it; None empties a field.

        A new content is embedded again, as far as its chunks changed. Where several ids share one text, a new
        content is for this id alone; the other fields are shared. Raises `ContextNotFound`, `InvalidValue`.
        """
        given = {
            "content": content,
            "topic": topic,
            "summary": summary,
            "source": source,
            "priority": priority,
            "pinned": pinned,
            "ttl": ttl,
            "expires_at": expires_at,
            "metadata": metadata,
            "superseded_by": superseded_by,
        }
        return self._contexts.update(
            context_id, {name: value for name, value in given.items() if value is not UNCHANGED}
        )

    def delete_context(self, context_id: str) -> None:
        """Delete a context by its id, with its vectors and its place in every index.

        Where several ids share one text, the text goes with the last of them. Raises `ContextNotFound`.
        """
        self._contexts.delete(context_id)

    def pin_context(self, context_id: str) -> Context:
        """Protect a context from cleanup and return it. Raises `ContextNotFound`."""
        return self._contexts.update(context_id, {"pinned": True})

    def unpin_context(self, context_id: str) -> Context:
        """Let cleanup remove a context again and return it. Raises `ContextNotFound`."""
        return self._contexts.update(context_id, {"pinned": False})

    def alias_context(self, context_id: str, *, alias: str) -> Context:
        """Give a context another id, under which every verb finds it, and return it.

        So an agent refers to what another one stored by a name of its own: nothing is copied. Deleting one of the ids
        leaves the others. Raises `ContextNotFound`, and `ContextExists` where another context has that id.

        >>> _ = lab.store_context("Refunds above 500 EUR need a second approval.", context_id="refund-limit")
        >>> lab.alias_context("refund-limit", alias="support/refunds").aliases
        ('support/refunds',)
        """
        return self._contexts.add_alias(context_id, alias)

    def list_contexts(
        self,
        *,
        topic: str | Sequence[str] | None = None,
        source: str | Sequence[str] | None = None,
        pinned: bool | None = None,
        min_priority: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        since: Any = None,
        until: Any = None,
        include_expired: bool = False,
        include_superseded: bool = False,
        limit: int | None = None,
    ) -> list[Context]:
        """Return the contexts that pass the filters, the oldest first.

        `topic`, `source` and a metadata value may be a list of alternatives. `since` (inclusive) and `until` are
        about `created_at`: an aware datetime, a date, ISO 8601 text or a length of time before now such as "7d".
        """
        where = self._where(
            topic=topic,
            source=source,
            pinned=pinned,
            min_priority=min_priority,
            metadata=metadata,
            since=since,
            until=until,
            include_expired=include_expired,
            include_superseded=include_superseded,
        )
        return self._contexts.select(where, limit=limit_value(limit))

    def contexts_df(
        self,
        *,
        topic: str | Sequence[str] | None = None,
        source: str | Sequence[str] | None = None,
        pinned: bool | None = None,
        min_priority: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        since: Any = None,
        until: Any = None,
        include_expired: bool = False,
        include_superseded: bool = False,
        limit: int | None = None,
    ) -> pd.DataFrame:
        """Return the contexts that pass the filters as a frame, the oldest first; see `list_contexts`."""
        found = self.list_contexts(
            topic=topic,
            source=source,
            pinned=pinned,
            min_priority=min_priority,
            metadata=metadata,
            since=since,
            until=until,
            include_expired=include_expired,
            include_superseded=include_superseded,
            limit=limit,
        )
        return frame([{**vars(item), "context_id": item.id} for item in found], contexts.COLUMNS)

    def cleanup(self, *, dry_run: bool = True, older_than: str | timedelta | None = None) -> pd.DataFrame:
        """Return what retention removes, and with `dry_run=False` remove it.

        Expired contexts, and those neither changed nor shown for `older_than` (default: the setting
        `topic_cleanup_days` for its topics, `auto_cleanup_days` for the others, else never). Pinned contexts always
        stay. Removing also drops the vectors of retired models, and log entries older than `access_log_days`.
        """
        self._access.flush()
        lengths = self._retention(older_than)
        if flag_value(dry_run, "dry_run"):
            return frame(self._contexts.removable(**lengths), contexts.CLEANUP_COLUMNS)
        with self._storage.transaction():
            rows = self._contexts.removable(**lengths)
            self._contexts.remove([row["context_id"] for row in rows])
            self._index.drop_retired()
            if self.config.access_log_days:
                self._access.remove(older_than=timedelta(self.config.access_log_days))
        return frame(rows, contexts.CLEANUP_COLUMNS)

    def _retention(self, older_than: str | timedelta | None) -> dict[str, Any]:
        if older_than is not None:
            return {"unused_for": duration(older_than, "older_than")}
        days, of_topics = self.config.auto_cleanup_days, self.config.topic_cleanup_days
        by_topic = {topic: None if length is None else timedelta(length) for topic, length in of_topics.items()}
        return {"unused_for": timedelta(days) if days else None, "by_topic": by_topic}

    def embed_contexts(self, model: str | None = None, *, progress: bool | None = None) -> Report:
        """Give every context its vectors, or change the lab to another embedding model.

        Without a model: the configured one. A new model, or new chunk settings, gets vectors of its own in batches
        while the old ones go on serving, and takes over when all are there; an interrupted call goes on where it
        stopped. Texts that a model has seen are not encoded again. Raises `ModelUnavailable`.
        """
        if self._storage.in_transaction:
            raise LabError("embed_contexts works in transactions of its own: call it outside lab.transaction()")
        chunking = {name: self._applied.value(name) for name in ("chunk_tokens", "chunk_overlap_tokens")}
        return self._index.embed_contexts(model=model, progress=progress, chunking=chunking)

    def build_vector_index(self, *, progress: bool | None = None) -> Report:
        """Build the HNSW index that large sets are searched with, or add to it what is new.

        It stands beside the file and can be deleted at any time. From `hnsw_from_chunks` on, `vector_engine="auto"`
        has it built in the background; this waits for it. The report has the number of vectors, the measured recall
        of the ten nearest (an index below 0.99 is not used), the size in bytes and the seconds it took. Raises
        `InvalidValue` for a lab that is in memory, read-only or has no vectors.
        """
        return self._index.build_vector_index(progress=progress)
