"""Verbs that import what other programs have logged."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..importers import claude_code, codex, litellm_logs, llm_embeddings, llm_logs, otel, rows
from ..importers.jobs import Job
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
    ) -> ImportReport:
        """Import LiteLLM's SpendLogs or logging payloads: CSV, JSON or JSON lines, a folder, a DataFrame or dicts.

        Its own cost is kept as `cost_actual_usd`; 0 for a model without a price is not known. An answer from its cache
        used nothing. `importers.litellm_logs.LabLogger` records calls while they happen, under the same ids. Return a
        report. Raises `NotFound`.
        """
        job = self._job("litellm", store_texts=store_texts, dry_run=dry_run)
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
    ) -> ImportReport:
        """Import traces: OTLP JSON or JSON lines, a folder of it, the Python SDK's JSON of spans, or a frame of spans.

        OpenTelemetry's names for generative AI, current and deprecated, OpenInference's and OpenLLMetry's. Model calls
        become calls, retrievals searches (`searches_df`), evaluation events from 0 to 1 the quality of their call. A
        span around another with the same counts is the same call. `importers.otel_export.LabSpanExporter` does it live.
        Return a report. Raises `NotFound`.
        """
        job = self._job("otel", store_texts=store_texts, dry_run=dry_run)
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
    ) -> ImportReport:
        """Import the calls in any table: a DataFrame, dicts, or the path of a CSV, JSON, JSON lines or Parquet file.

        `mapping` is a dict of field and column. Fields are those of `record_usage`, and `uncached_input_tokens`,
        `total_tokens`, `latency_s`, `ttft_s`, `ended_at`, `first_token_at`, `status`, `prompt`, `response` and
        "metadata.any_key"; a column of nested values is a path, "usage.prompt_tokens". Without a mapping one is guessed
        and shown, and nothing is imported; `mapping="guess"` takes the guess. A table that has the ledger's own names
        needs none. `timezone` is that of times without one. A row without `source_id` is known by what it says, so
        that importing again changes nothing. Raises `InvalidValue`, `NotFound`.

        >>> calls = [{"created": "2026-05-01T12:00:00Z", "model": "gpt-4o-mini", "prompt_tokens": 812, "completion_tokens": 120}]
        >>> lab.import_rows(calls).mapping
        {'at': 'created', 'model': 'model', 'input_tokens': 'prompt_tokens', 'output_tokens': 'completion_tokens'}
        >>> lab.import_rows(calls, mapping="guess")["new"]
        1
        """
        job = self._job(source, store_texts=store_texts, dry_run=dry_run)
        return rows.import_rows(job, table, mapping=mapping, source=name_value(source, "source"), timezone=timezone)
