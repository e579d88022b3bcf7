"""Verbs that import what other programs have logged."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import retrieval
from ..analysis.reconciliation import reconciled
from ..importers import billing, claude_code, codex, litellm_logs, llm_embeddings, llm_logs, otel, rows
from ..importers.jobs import Job
from ..ledger import conditions
from ..records import Condition
from ..validation import name_value
from .parts import Parts

if TYPE_CHECKING:
    import pandas as pd

    from ..importers.report import ImportReport


class ImportVerbs(Parts):
    """Import: the logs that people already have."""

    @functools.cached_property
    def _trace_memory(self) -> otel.Memory:
        return otel.Memory()

    def _job(self, source: str, **options: Any) -> Job:
        return Job(self._storage, self._ledger, self._storing, source=source, clock=self._clock, **options)

    def import_claude_code(
        self,
        path: str | Path | Iterable[str | Path] | None = None,
        *,
        store_texts: bool = False,
        dry_run: bool = False,
        resume: bool = True,
        progress: bool | None = None,
    ) -> ImportReport:
        """Import the calls in Claude Code's session logs, each once however often it was written; return a report.

        `path` is a file, a folder or several; None means this machine's (~/.claude/projects). Only what is new in a
        file is read; `resume=False` reads it all. `store_texts` keeps the answers as contexts. `dry_run` says what
        would happen. What cannot be read is in the report and stops nothing. Raises `NotFound`.
        """
        job = self._job("claude-code", store_texts=store_texts, dry_run=dry_run, resume=resume, progress=progress)
        return job.import_files(job.found(path, claude_code.default_paths()), claude_code.FORMAT)

    def import_codex(
        self,
        path: str | Path | Iterable[str | Path] | None = None,
        *,
        dry_run: bool = False,
        resume: bool = True,
        progress: bool | None = None,
    ) -> ImportReport:
        """Import the calls in Codex's session logs; what forks and sub-agents copied is counted once. Return a report.

        `path` is a file, a folder or several; None means this machine's (~/.codex/sessions). An unchanged file is not
        read again unless `resume=False`. `dry_run` says what would happen. Raises `NotFound`.
        """
        job = self._job("codex", dry_run=dry_run, resume=resume, progress=progress)
        paths = job.found(path, codex.default_paths())
        return job.import_files(paths, codex.form(paths, job.cursors.metadata()))

    def import_litellm(
        self,
        logs: pd.DataFrame | Iterable[Mapping[str, Any]] | str | Path,
        *,
        store_texts: bool = False,
        dry_run: bool = False,
        resume: bool = True,
        progress: bool | None = None,
    ) -> ImportReport:
        """Import LiteLLM's SpendLogs or logging payloads: CSV, JSON or JSON lines, a folder, a DataFrame or dicts.

        Its own cost is kept as `cost_actual_usd`; 0 for a model without a price is not known. An answer from its cache
        used nothing. A file that has not changed is not read again unless `resume=False`. `importers.LabLogger` records
        calls while they happen, under the same ids. Return a report. Raises `NotFound`.
        """
        job = self._job("litellm", store_texts=store_texts, dry_run=dry_run, resume=resume, progress=progress)
        return litellm_logs.import_logs(job, logs)

    def import_llm_logs(
        self,
        path: str | Path | None = None,
        *,
        store_texts: bool = False,
        dry_run: bool = False,
        progress: bool | None = None,
    ) -> ImportReport:
        """Import the calls that the `llm` command line has logged, of both of its schemas; return a report.

        `path` is its logs.db, None the one of this machine. `store_texts` keeps prompts and answers as contexts.
        `dry_run` says what would happen. Raises `NotFound`, and `InvalidValue` for a file that is not llm's.
        """
        job = self._job("llm", store_texts=store_texts, dry_run=dry_run, progress=progress)
        return llm_logs.import_logs(job, path, store_texts=store_texts)

    def import_llm_embeddings(
        self,
        path: str | Path | None = None,
        *,
        collection: str | None = None,
        dry_run: bool = False,
        progress: bool | None = None,
    ) -> ImportReport:
        """Import collections of the `llm` command line's embeddings as contexts with their vectors; return a report.

        `path` is its embeddings.db, None the one of this machine; `collection` names one, else all are imported. In a
        lab without vectors these serve at once (llm encodes the queries); elsewhere the texts get the lab's vectors
        too, and `al.embed_contexts("llm/model")` changes to these. Raises `NotFound`, `InvalidValue`.
        """
        job = self._job("llm-embeddings", dry_run=dry_run, progress=progress)
        return llm_embeddings.import_embeddings(
            job,
            path,
            collection=collection,
            index=self._index,
            storing=self._storing,
            resolve=self._contexts.resolve,
        )

    def import_otel(
        self,
        traces: pd.DataFrame | Iterable[Mapping[str, Any]] | str | Path,
        *,
        store_texts: bool = False,
        dry_run: bool = False,
        resume: bool = True,
        progress: bool | None = None,
    ) -> ImportReport:
        """Import traces: OTLP JSON or JSON lines, a folder of it, the Python SDK's JSON of spans, or a frame of spans.

        OpenTelemetry's names for generative AI, current and deprecated, OpenInference's and OpenLLMetry's. Model calls
        become calls, retrievals searches (`searches_df`), evaluation events from 0 to 1 the quality of their call. A
        span around another with the same counts is the same call. A file that has not changed is not read again unless
        `resume=False`. `importers.LabSpanExporter` does it live. Return a report. Raises `NotFound`.
        """
        job = self._job("otel", store_texts=store_texts, dry_run=dry_run, resume=resume, progress=progress)
        return otel.import_traces(job, traces, access=self._access, memory=self._trace_memory)

    def import_rows(
        self,
        table: pd.DataFrame | Iterable[Mapping[str, Any]] | str | Path,
        *,
        mapping: Mapping[str, str] | str | None = None,
        source: str = "rows",
        timezone: str = "UTC",
        store_texts: bool = False,
        dry_run: bool = False,
        resume: bool = True,
        progress: bool | None = None,
    ) -> ImportReport:
        """Import the calls in any table: a DataFrame, dicts, or the path of a CSV, JSON, JSON lines or Parquet file.

        `mapping` is a dict of field and column. Fields are those of `record_usage`, and `uncached_input_tokens`,
        `total_tokens`, `latency_s`, `ttft_s`, `ended_at`, `first_token_at`, `status`, `prompt`, `response` and
        "metadata.any_key"; a column of nested values is a path, "usage.prompt_tokens". Without a mapping one is guessed
        and shown, and nothing is imported; `mapping="guess"` takes the guess. A table that has the ledger's own names
        needs none. `timezone` is that of times without one. A row without `source_id` is known by what it says, so
        that importing again changes nothing; a file that has not changed is not even read unless `resume=False`. Raises
        `InvalidValue`, `NotFound`.

        >>> calls = [{"created": "2026-05-01T12:00:00Z", "model": "gpt-4o-mini", "prompt_tokens": 812, "completion_tokens": 120}]
        >>> lab.import_rows(calls).mapping
        {'at': 'created', 'model': 'model', 'input_tokens': 'prompt_tokens', 'output_tokens': 'completion_tokens'}
        >>> lab.import_rows(calls, mapping="guess")["new"]
        1
        """
        job = self._job(source, store_texts=store_texts, dry_run=dry_run, resume=resume, progress=progress)
        return rows.import_rows(job, table, mapping=mapping, source=name_value(source, "source"), timezone=timezone)

    def import_billing(
        self,
        bill: pd.DataFrame | Iterable[Mapping[str, Any]] | str | Path,
        *,
        provider: str,
        mapping: Mapping[str, str] | None = None,
        currency: str | None = None,
        timezone: str = "UTC",
        dry_run: bool = False,
    ) -> ImportReport:
        """Import what a provider billed, line by line: its export as CSV or JSON, a DataFrame or dicts; return a report.

        `mapping` says which column is which: at, ends_at, model, description, token_class, amount, currency, calls,
        quantity, input_tokens or uncached_input_tokens, cache_read_tokens, cache_write_tokens, output_tokens,
        reasoning_tokens; without one it is guessed (and in the report). Amounts keep their currency, which is
        `currency` where no column says it. A bill that is imported again when more has been billed renews its lines.
        `reconcile_df` holds it beside the ledger. Raises `InvalidValue`, `NotFound`.

        >>> bill = [{"date": "2026-05-01", "model": "gpt-4o", "input_tokens": 900, "output_tokens": 90, "cost_usd": 0.00315}]
        >>> lab.import_billing(bill, provider="openai")["new"]
        1
        """
        job = self._job("billing", dry_run=dry_run, resume=False)
        name = name_value(provider, "provider")
        return billing.import_bill(job, bill, provider=name, mapping=mapping, currency=currency, timezone=timezone)

    def reconcile_df(
        self,
        *,
        by: str | Sequence[str] = ("day", "model"),
        provider: str | None = None,
        source: str | Sequence[str] | None = None,
        since: Any = None,
        until: Any = None,
        rates: Mapping[str, float] | None = None,
    ) -> pd.DataFrame:
        """Return the ledger beside the bill: estimated, recorded and billed, and which class of tokens explains the gap.

        `by` is of "hour", "day", "week", "month", "provider", "model". `estimated_usd` is the lab's, `recorded_usd` the
        log's own cost where it has one, `billed_usd` the imported bill's. `difference_usd` (billed minus recorded) is the
        sum of what each class's difference in tokens costs, of `price_usd` (what is left at equal counts) and of
        `unexplained_usd` (where the bill has no counts); `explained_by` names the largest. Only calls of the billed
        providers in the time that the bill covers take part, with `source` only those of some logs. Other currencies need `rates`: {"EUR": 1.08} in USD.
        Sorted by `by`. Raises `InvalidValue`.
        """
        where = [] if provider is None else [Condition("provider", "=", name_value(provider, "provider"))]
        between = retrieval.between("at", since=since, until=until, now=self._clock())
        calls = conditions(now=self._clock(), filters={"source": source}, known=["source"])
        return reconciled(
            self._storage,
            self._ledger.price_book,
            by=by,
            rates=rates,
            bill_where=[*where, *between],
            call_where=[*calls, *between],
        )
