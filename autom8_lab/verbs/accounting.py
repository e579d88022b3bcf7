"""Verbs that record usage and decisions, and read the account."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from ..ledger import CallFilters
from ..pricing import PriceBook
from ..tracking import UsageTracker
from ..validation import flag_value
from .parts import Parts

if TYPE_CHECKING:
    import pandas as pd


class AccountVerbs(Parts):
    """Account: usage, cost, latency, quality and decisions."""

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
