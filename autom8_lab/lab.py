"""The lab: one object, one set of verbs. Each is documented here and does its work on the floors below."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from . import access, contexts, retrieval, storing
from .access import AccessLog
from .analysis.of_lab import Analysis
from .contexts import Contexts
from .errors import InvalidValue, LabClosed, LabError, LabNotFound
from .frames import frame
from .indexing import Index
from .ledger import CallFilters, Ledger
from .pricing import PriceBook
from .records import Condition, Context, Fusion, Report, SearchAnswer, SearchHit, SearchMethod
from .retrieval import Retrieval
from .storing import IfExists, Storing
from .tracking import UsageTracker
from .validation import duration, flag_value, positive_integer

if TYPE_CHECKING:
    import os
    from types import TracebackType

    import pandas as pd

    from .config import LabConfig
    from .embedding import Encoder

UNCHANGED: Any = type("Unchanged", (), {"__repr__": lambda self: "<unchanged>"})()


def _limit(limit: int | None) -> int | None:
    return None if limit is None else positive_integer(limit, "limit", at_most=10**9)


def _given_filters(filters: Mapping[str, Any]) -> dict[str, str]:
    off = {name for name, value in filters.items() if value is None or (name.startswith("include_") and not value)}
    return {name: str(value) for name, value in filters.items() if name not in off}


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Lab:
    """One SQLite file that remembers what an LLM-agent system knew, decided, spent and how well it went.

    Open one with `al.open`. Verbs take one positional argument, the rest by name; `x()` returns records and `x_df()`
    a DataFrame with fixed columns. Times are aware and in UTC. A lab may be shared by threads, a file by processes.
    """

    def __init__(
        self,
        config: LabConfig,
        *,
        encoder: Encoder | None = None,
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        from .storage import open_storage

        if encoder is not None and not hasattr(encoder, "encode_documents"):
            raise InvalidValue(f"encoder={encoder!r} has no encode_documents: give an Encoder, or embedding_model=name")
        if clock().tzinfo is None:
            raise InvalidValue(f"clock={clock!r} returns times without a time zone: return datetime.now(UTC)")
        self.config = config
        self._clock = clock
        prices = PriceBook(config.prices_path)
        self._storage = open_storage(config)
        try:
            self._index = Index(self._storage, config, encoder=encoder, clock=clock)
        except BaseException:
            self._storage.close()
            raise
        self._contexts = Contexts(self._storage, self._index, clock=clock)
        self._storing = Storing(self._storage, self._contexts, clock=clock)
        self._retrieval = Retrieval(self._storage, self._index, fusion=config.fusion, clock=clock)
        self._access = AccessLog(self._storage, enabled=config.access_log, agent=config.agent, clock=clock)
        self._ledger = Ledger(self._storage, prices, resolve=self._contexts.resolve, clock=clock, agent=config.agent)
        self._analysis = Analysis(self._storage, self._ledger, clock=clock)
        self._closed = False
        _open_labs.add(self)

    # Contexts

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
        """Return a context by its id or an alias, expired and superseded ones too. Raises `ContextNotFound`."""
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
        return self._contexts.select(where, limit=_limit(limit))

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

        Expired contexts, and those neither changed nor shown for `older_than` (default: `auto_cleanup_days`, else
        never). Pinned contexts always stay. Removing also drops the vectors of retired models, and log entries
        older than `access_log_days`.
        """
        self._access.flush()
        days = self.config.auto_cleanup_days
        unused_for = duration(older_than, "older_than") if older_than is not None else timedelta(days) if days else None
        if dry_run:
            return frame(self._contexts.removable(unused_for=unused_for), contexts.CLEANUP_COLUMNS)
        with self._storage.transaction():
            rows = self._contexts.removable(unused_for=unused_for)
            self._contexts.remove([row["context_id"] for row in rows])
            self._index.drop_retired()
            if self.config.access_log_days:
                self._access.remove(older_than=timedelta(self.config.access_log_days))
        return frame(rows, contexts.CLEANUP_COLUMNS)

    # Search

    def search(
        self,
        query: str,
        *,
        k: int = 10,
        method: SearchMethod = "hybrid",
        topic: str | Sequence[str] | None = None,
        source: str | Sequence[str] | None = None,
        pinned: bool | None = None,
        min_priority: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        since: Any = None,
        until: Any = None,
        min_similarity: float | None = None,
        include_expired: bool = False,
        include_superseded: bool = False,
        fusion: Fusion | None = None,
    ) -> list[SearchHit]:
        """Return the k best contexts for a query, each with what put it there.

        "text" ranks by BM25, "semantic" by the similarity of the best chunk, "hybrid" joins both. Every text is a
        legal query. Filters (see `list_contexts`) work below the ranking, so k results come back when k exist;
        `min_similarity` drops results that are less similar. Without the embedding model hybrid answers by text
        and warns (`DegradedSearchWarning`); semantic raises `ModelUnavailable`.
        """
        given = {
            "topic": topic,
            "source": source,
            "pinned": pinned,
            "min_priority": min_priority,
            "metadata": metadata,
            "since": since,
            "until": until,
            "include_expired": include_expired,
            "include_superseded": include_superseded,
        }
        return self._answer(query, k=k, method=method, min_similarity=min_similarity, fusion=fusion, given=given).hits

    def search_df(
        self,
        query: str,
        *,
        k: int = 10,
        method: SearchMethod = "hybrid",
        topic: str | Sequence[str] | None = None,
        source: str | Sequence[str] | None = None,
        pinned: bool | None = None,
        min_priority: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        since: Any = None,
        until: Any = None,
        min_similarity: float | None = None,
        include_expired: bool = False,
        include_superseded: bool = False,
        fusion: Fusion | None = None,
    ) -> pd.DataFrame:
        """Return the k best contexts for a query as a frame, best first; see `search`.

        `score` orders the rows; `text_rank`, `text_score` (BM25), `semantic_rank`, `similarity` and `matched_terms`
        explain it; `chunk`, `chunk_start` and `chunk_end` show the best passage. `attrs` tells the method, the
        vector engine and why that one, whether the answer is degraded, and how long it took.
        """
        given = {
            "topic": topic,
            "source": source,
            "pinned": pinned,
            "min_priority": min_priority,
            "metadata": metadata,
            "since": since,
            "until": until,
            "include_expired": include_expired,
            "include_superseded": include_superseded,
        }
        answer = self._answer(query, k=k, method=method, min_similarity=min_similarity, fusion=fusion, given=given)
        names = ("query", "method", "degraded", "engine", "engine_reason", "duration_ms")
        attrs = {name: getattr(answer, name) for name in names}
        return frame([retrieval.hit_row(hit) for hit in answer.hits], retrieval.COLUMNS, attrs=attrs)

    def _answer(
        self,
        query: str,
        *,
        k: int,
        method: SearchMethod,
        min_similarity: float | None,
        fusion: Fusion | None,
        given: dict[str, Any],
    ) -> SearchAnswer:
        if min_similarity is None and method != "text":
            min_similarity = self.config.similarity_threshold
        answer = self._retrieval.search(
            query,
            k=k,
            method=method,
            fusion=fusion,
            min_similarity=min_similarity,
            where=self._where(**given),
            filters=_given_filters(given),
            contexts_of=self._contexts.by_ids,
        )
        self._access.search(answer, k=int(k))
        return answer

    def _where(self, **filters: Any) -> list[Condition]:
        return retrieval.conditions(now=self._clock(), **filters)

    def searches_df(self, *, since: Any = None, until: Any = None, limit: int | None = None) -> pd.DataFrame:
        """Return past searches, the newest first: query, method, what came back and how long it took."""
        where = self._log_where(since=since, until=until)
        return frame(self._access.searches(where=where, limit=_limit(limit)), access.SEARCH_COLUMNS)

    def accesses_df(self, context_id: str | None = None, *, since: Any = None, until: Any = None) -> pd.DataFrame:
        """Return each time a context (or any, for None) was shown by a search or read, the newest first.

        A deleted context's id still works here: that it was shown stays true.
        """
        ids = None if context_id is None else self._contexts.all_names(context_id)
        where = self._log_where(since=since, until=until)
        return frame(self._access.accesses(context_ids=ids, where=where), access.ACCESS_COLUMNS)

    def _log_where(self, *, since: Any, until: Any) -> list[Condition]:
        return retrieval.between("at", since=since, until=until, now=self._clock())

    # Usage and decisions

    def record_usage(
        self,
        model: str,
        *,
        operation: str = "chat",
        provider: str | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cache_read_tokens: int | None = None,
        cache_write_tokens: int | None = None,
        reasoning_tokens: int | None = None,
        cost_actual_usd: float | None = None,
        latency_ms: float | None = None,
        ttft_ms: float | None = None,
        quality_score: float | None = None,
        success: bool | None = None,
        error_type: str | None = None,
        decision_id: str | None = None,
        agent: str | None = None,
        at: datetime | str | None = None,
        source: str | None = None,
        source_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> int:
        """Record one call of a model, priced at the price of its time, and return its key in the ledger.

        As OpenTelemetry defines them, `input_tokens` includes what was read from and written to the cache, and
        `output_tokens` the reasoning. None means not known: a call whose input and output are not both known (of an
        embedding or rerank the input alone) has no estimated cost, and neither has one of an unknown price; see
        `unpriced_df`. `cost_actual_usd` is what was billed. Latency and time to first token are in milliseconds,
        the quality is from 0 to 1, `success` is True unless there is an `error_type`, `at` is aware and now if not
        given, `agent` the lab's. A call that is there already under its `source` and `source_id` stays as it is.
        Raises `InvalidValue` naming the field, the value and the remedy, and `DecisionNotFound`.

        >>> key = lab.record_usage("gpt-4o-mini", provider="openai", input_tokens=812, output_tokens=120)
        >>> lab.ledger_df()["cost_usd"].tolist()
        [0.0001938]
        """
        given = {name: value for name, value in locals().items() if name != "self"}
        return self._ledger.record_usage(given)

    def record_usages(
        self, rows: pd.DataFrame | Iterable[Mapping[str, Any]], *, batch_size: int = 100_000
    ) -> pd.DataFrame:
        """Record many calls and return a row for each: `usage_key`, `outcome` ("recorded" or "already there"), cost.

        `rows` is a DataFrame, a list or a generator of dicts with the fields of `record_usage`. A DataFrame or list
        lands whole or not at all, of a generator each batch. In a DataFrame an empty cell (NaN, None) means not
        known; elsewhere NaN is refused. Rows with `source` and `source_id` can be recorded again: nothing changes.
        Raises `InvalidValue` naming row, field and value.
        """
        return self._ledger.record_usages(rows, batch_size=batch_size)

    def track_usage(
        self,
        model: str,
        *,
        operation: str = "chat",
        provider: str | None = None,
        decision_id: str | None = None,
        agent: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        usage: Callable[[Any], Mapping[str, Any]] | None = None,
    ) -> UsageTracker:
        """Measure a call and record it: a `with` block (also `async with`), or a decorator of a function.

        The block gets a call whose fields, those of `record_usage`, it sets: `call.input_tokens = 812`;
        `call.first_token()` notes the time to first token. The latency is measured. As a decorator, also of a
        coroutine function, `usage` makes the fields from the function's result. What raises is recorded with
        `success=False` and the error's class as `error_type`, and raised again; that it could not be recorded is
        then a note on the error, and after a decorated function's success an `UnrecordedUsageWarning`.

        >>> with lab.track_usage("gpt-4o-mini", provider="openai") as call:
        ...     call.input_tokens, call.output_tokens = 812, 120
        """
        names = ("model", "operation", "provider", "decision_id", "agent", "metadata")
        given = locals()
        fields = {name: given[name] for name in names}
        return UsageTracker(self._ledger.record_usage, fields, usage=usage, clock=self._clock)

    def record_decision(
        self,
        decision_type: str,
        *,
        summary: str | None = None,
        content: str | None = None,
        chosen: str | None = None,
        candidates: Mapping[str, float] | None = None,
        propensity: float | None = None,
        policy: str | None = None,
        policy_version: str | None = None,
        complexity_score: float | None = None,
        context_ids: str | Sequence[str] | None = None,
        agent: str | None = None,
        at: datetime | str | None = None,
        source: str | None = None,
        source_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Record what was decided, why, and what was known then; return the decision's id.

        `candidates` are the names that could be chosen with their scores, `propensity` is the probability with
        which `policy` chose `chosen` (above 0, to 1): without it nobody can tell later what another policy would
        have done. `complexity_score` is from 0 to 1; `context_ids` are the contexts seen. A decision that is there
        already under its `source` and `source_id` stays. Raises `InvalidValue`, `ContextNotFound`.

        >>> decision_id = lab.record_decision(
        ...     "route", chosen="gpt-4o-mini", candidates={"gpt-4o-mini": 0.7, "gpt-4o": 0.3}, propensity=0.9
        ... )
        >>> lab.record_outcome(decision_id, quality_score=0.8, success=True)
        """
        given = {name: value for name, value in locals().items() if name != "self"}
        return self._ledger.record_decision(given)

    def record_outcome(
        self, decision_id: str, *, quality_score: float | None = None, success: bool | None = None, at: Any = None
    ) -> None:
        """Note how a decision turned out: its quality from 0 to 1, whether it succeeded, or both.

        A later outcome replaces what it gives. Raises `DecisionNotFound`, `InvalidValue`.
        """
        self._ledger.record_outcome(decision_id, quality_score=quality_score, success=success, at=at)

    def use_prices(self, prices: pd.DataFrame | Iterable[Mapping[str, Any]] | str | Path | None) -> None:
        """Price calls by this table first and then by genai-prices; None for genai-prices alone.

        `prices` is the path of a YAML file, a DataFrame or a list of dicts, with columns as in `pricing.PriceBook`:
        model, input_usd_per_mtok, output_usd_per_mtok, and optionally provider, valid_from, cache_read_usd_per_mtok,
        cache_write_usd_per_mtok, reasoning_usd_per_mtok. It holds for this lab object, from now on; the setting
        `prices_path` does it for every opening. The table is not stored in the file: each call keeps its cost, the
        price's source and its date. Raises `InvalidValue`.

        >>> lab.use_prices([{"model": "llama*", "input_usd_per_mtok": 0.1, "output_usd_per_mtok": 0.2}])
        """
        self._ledger.price_book = PriceBook(prices)

    def unpriced_df(self) -> pd.DataFrame:
        """Return the calls without a cost by provider and model, the most calls first, with what to add (`remedy`)."""
        return self._analysis.unpriced()

    def reprice_usage(self, *, dry_run: bool = True, **filters: Unpack[CallFilters]) -> pd.DataFrame:
        """Return whose estimated cost changes at today's price tables, and with `dry_run=False` change it.

        A call is priced at the price of its own time. Costs that were billed stay, and so do estimates that the
        tables cannot make any more. Repeated, it changes nothing. `filters` as in `usage_df`.
        """
        where = self._analysis.where(filters)
        return self._ledger.reprice(where=where, dry_run=flag_value(dry_run, "dry_run"))

    def ledger_df(self, *, limit: int | None = None, **filters: Unpack[CallFilters]) -> pd.DataFrame:
        """Return the calls that pass the filters, one row each, the oldest first; with `limit` the newest ones.

        `cost_usd` is the billed cost where there is one, else the estimate. `filters` as in `usage_df`. All of a
        million calls take about 700 MB of memory, which the summing frames do without.
        """
        return self._analysis.ledger(limit=limit, filters=filters)

    def usage_df(
        self, *, by: str | Sequence[str] = "model", freq: str | None = None, **filters: Unpack[CallFilters]
    ) -> pd.DataFrame:
        """Return calls, failed calls, tokens by class, cost in USD and calls without a cost, by group.

        `by` names columns of the ledger and metadata keys ("metadata.team"); `freq` adds a `period` of hours "h",
        days "D", weeks "W" (from Monday) or months "M", in UTC. Filters: `since` (inclusive) and `until` as an aware
        datetime, a date, ISO 8601 text or a length of time before now ("7d"); `provider`, `model`, `operation`,
        `agent`, `source`, each a name or a list; `success`; `metadata`. Sorted by period and group.

        >>> lab.usage_df(by=["model", "metadata.team"], freq="D", since="7d").columns[:4].tolist()
        ['period', 'model', 'metadata.team', 'calls']
        """
        return self._analysis.usage(by=by, freq=freq, filters=filters)

    def cost_df(
        self, *, by: str | Sequence[str] = "model", freq: str | None = None, **filters: Unpack[CallFilters]
    ) -> pd.DataFrame:
        """Return what calls cost in USD by token class, estimated beside actual, by group; `by` and so on as in `usage_df`.

        `cost_usd` takes the bill where there is one, else the estimate; `share` is its share of the whole frame.
        `estimate_of_billed_usd` is what was estimated for the billed calls, to hold beside `cost_actual_usd`.
        `cumulative_usd` runs over the periods of each group, without a `freq` down the frame, whose dearest group
        is the first. `unpriced_calls` are in no sum.
        """
        return self._analysis.cost(by=by, freq=freq, filters=filters)

    def latency_df(
        self,
        *,
        by: str | Sequence[str] = "model",
        freq: str | None = None,
        confidence: float = 0.95,
        **filters: Unpack[CallFilters],
    ) -> pd.DataFrame:
        """Return how long calls took in milliseconds: p50, p90, p95, p99 with distribution-free intervals, by group.

        `n` calls have a latency, failed ones too (filter with `success=True`); a percentile that n does not support
        is NaN. Then the time to first token, and the median of the output tokens per second after it. `by` and so on as in `usage_df`.
        """
        return self._analysis.latency(by=by, freq=freq, confidence=confidence, filters=filters)

    def model_performance_df(
        self,
        *,
        by: str | Sequence[str] = "model",
        freq: str | None = None,
        confidence: float = 0.95,
        **filters: Unpack[CallFilters],
    ) -> pd.DataFrame:
        """Return success rate, mean quality, cost per call and per success in USD, and latency in ms, by group.

        With `confidence` intervals: Wilson for the success rate, bootstrap for the quality of the `quality_n` judged
        calls. With `since`, the `…_change` columns compare with the period of the same length before, with
        intervals, NaN where too few calls cannot tell; `calls_before` is how many there were then. `by` and so on as
        in `usage_df`.
        """
        return self._analysis.model_performance(by=by, freq=freq, confidence=confidence, filters=filters)

    def compare_models(
        self,
        a: str,
        b: str,
        /,
        *,
        prompt: str | None = "metadata.prompt_id",
        confidence: float = 0.95,
        **filters: Unpack[CallFilters],
    ) -> pd.DataFrame:
        """Return the difference a - b in success rate, quality, cost in USD and latency in ms, with a verdict.

        Two calls answered the same prompt when they have the same `prompt`, a metadata key or column. Where both
        models answered at least two of the prompts, these alone are compared (`paired` is True, n counts prompts);
        else all their calls, as independent ones. The verdict is "cannot tell yet" where the interval of the
        difference holds 0. Filters as in `usage_df`.
        """
        return self._analysis.compare(a, b, prompt=prompt, confidence=confidence, filters=filters)

    def decisions_df(
        self,
        *,
        since: Any = None,
        until: Any = None,
        decision_type: str | Sequence[str] | None = None,
        chosen: str | Sequence[str] | None = None,
        policy: str | Sequence[str] | None = None,
        agent: str | Sequence[str] | None = None,
        success: bool | None = None,
        limit: int | None = None,
    ) -> pd.DataFrame:
        """Return decisions, the oldest first (with `limit` the newest ones), with outcome, contexts and what they cost.

        Calls, tokens, cost in USD and latency in ms are sums over the calls recorded with the decision's id.
        """
        given = {name: value for name, value in locals().items() if name not in ("self", "limit")}
        return self._analysis.decisions(limit=limit, filters=given)

    # Vectors

    def embed_contexts(self, model: str | None = None, *, progress: bool | None = None) -> Report:
        """Give every context its vectors, or change the lab to another embedding model.

        Without a model: the configured one. A new model, or new chunk settings, gets vectors of its own in batches
        while the old ones go on serving, and takes over when all are there; an interrupted call goes on where it
        stopped. Texts that a model has seen are not encoded again. Raises `ModelUnavailable`.
        """
        if self._storage.in_transaction:
            raise LabError("embed_contexts works in transactions of its own: call it outside lab.transaction()")
        return self._index.embed_contexts(model=model, progress=progress)

    # State

    def stats(self) -> Report:
        """Return how much the lab holds, which model and engine answer, and the size of the file."""
        self._access.flush()
        health, active = self._storage.health(), self._index.active_set()
        count = self._storage.count
        now = self._clock()
        return Report(
            path=health["path"],
            contexts=count("context_registry"),
            aliases=count("context_aliases"),
            pinned=count("context_registry", where=[Condition("pinned", "=", True)]),
            expired=count("context_registry", where=[Condition("expires_at", "<=", now)]),
            superseded=count("context_registry", where=[Condition("superseded_by", "is not null")]),
            chunks=count("context_chunks"),
            embeddings=count("embeddings"),
            without_vectors=self._storage.count_without_chunks(active.set_key if active else None),
            decisions=count("agent_decisions"),
            usage_rows=count("usage_ledger"),
            searches=count("access_log", where=[Condition("kind", "=", "search")]),
            embedding_model=active.model_id if active else None,
            vector_engine=health["vector_engine"],
            file_bytes=health["file_bytes"],
        )

    def health(self) -> Report:
        """Return the state of the file and its engines: sizes, SQLite, migrations, which vector engine and why."""
        status, active = self._storage.migration_status(), self._index.active_set()
        return Report(
            self._storage.health(),
            embedding_model=active.model_id if active else None,
            without_vectors=self._storage.count_without_chunks(active.set_key if active else None),
            migrations=f"{status['applied_count']}/{status['total_migrations']}",
        )

    @contextmanager
    def transaction(self) -> Iterator[Lab]:
        """Group any verbs: text, vectors and ledger land together at the end of the block, or not at all.

        Nested blocks are savepoints. Texts stored in the block get their vectors when it ends, before the commit,
        so semantic search finds them afterwards.

        >>> with lab.transaction():
        ...     context_id = lab.store_context("Both or neither.")
        ...     pinned = lab.pin_context(context_id)
        """
        nested = self._storage.in_transaction
        with self._storage.transaction() as unit:
            if nested:
                yield self
            else:
                with self._contexts.embedding_at_the_end(unit):
                    yield self

    def close(self) -> None:
        """Write what is left of the access log and close every connection. Closing twice is fine."""
        if not self._closed:
            if self._storage.in_transaction:
                raise LabError("close() inside a transaction: leave the block first")
            self._closed = True
            _open_labs.discard(self)
            try:
                self._access.flush()
            finally:
                self._storage.close()

    @property
    def closed(self) -> bool:
        """Whether the lab has been closed."""
        return self._closed

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Lab {self.config.db_path}{' (closed)' if self._closed else ''}>"

    def _repr_html_(self) -> str:
        return self.stats()._repr_html_() if not self._closed else "<p>closed lab</p>"


_open_labs: weakref.WeakSet[Lab] = weakref.WeakSet()
_current: Lab | None = None


@atexit.register
def _close_open_labs() -> None:
    for lab in list(_open_labs):
        lab.close()


def open_lab(
    path: str | os.PathLike[str] | None = None,
    *,
    preset: str | None = None,
    config_path: str | os.PathLike[str] | None = None,
    encoder: Encoder | None = None,
    clock: Callable[[], datetime] = _utc_now,
    **settings: Any,
) -> Lab:
    """Open or create a lab and make it the current one, which the module's verbs act on.

    `path` is a file or ":memory:"; without one it comes from AUTOM8_DB_PATH, `autom8.yaml`, the preset, or is
    ./autom8.db. `settings` are the fields of `LabConfig`; `encoder` is any object with the methods of `Encoder`;
    `clock` returns the time, aware. An older file is migrated. Raises `NewerSchema`, `NotALab`, `ConfigurationError`.

    >>> lab = open_lab(preset="testing")
    >>> lab.stats()["contexts"]
    0
    >>> lab.close()
    """
    global _current
    from .config import LabConfig

    db_path = (
        None if path is None else str(Path(path)) if str(path) != ":memory:" and "://" not in str(path) else str(path)
    )
    lab = Lab(
        LabConfig.load(preset=preset, config_path=config_path, db_path=db_path, **settings),
        encoder=encoder,
        clock=clock,
    )
    _current = lab
    return lab


def use(lab: Lab) -> Lab:
    """Make a lab the current one, which the module's verbs act on, and return it."""
    global _current
    if not isinstance(lab, Lab):
        raise InvalidValue(f"{lab!r} is a {type(lab).__name__}: give what al.open() returned")
    if lab.closed:
        raise LabClosed
    _current = lab
    return lab


def current_lab() -> Lab:
    """Return the lab that the module's verbs act on: the last one opened or used.

    Where none is open, the configured file is opened, if it exists. Raises `LabNotFound`: nothing is created here.
    """
    if _current is not None and not _current.closed:
        return _current
    from .config import LabConfig

    path = LabConfig.load().db_path
    if path != ":memory:" and not Path(path).exists():
        raise LabNotFound(f"no lab at {path}: create one with al.open({path!r})")
    return open_lab()


def run_migrations(path: str | os.PathLike[str], *, to: int | str | None = None) -> Report:
    """Bring a file's schema to the newest version, or to the one given, and return its status.

    `to` is a number of migrations or the name of the last one to keep; going back drops what the later ones made,
    with its data. A missing file is created. Raises `InvalidValue` for an unknown version.
    """
    with _schema_of(path) as storage:
        storage.migrate(to)
        return Report(storage.migration_status())


def get_migration_status(path: str | os.PathLike[str]) -> Report:
    """Return applied_count, total_migrations, applied (name, time) and pending (names) of a file, changing nothing."""
    if not Path(path).exists():
        raise LabNotFound(f"no lab at {path}: create one with al.open({str(path)!r})")
    with _schema_of(path, read_only=True) as storage:
        return Report(storage.migration_status())


@contextmanager
def _schema_of(path: str | os.PathLike[str], *, read_only: bool = False) -> Iterator[Any]:
    from .config import LabConfig
    from .storage.sqlite import SQLiteStorage

    storage = SQLiteStorage(LabConfig.load(db_path=str(path), read_only=read_only), migrate=False)
    try:
        yield storage
    finally:
        storage.close()
