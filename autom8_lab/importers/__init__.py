"""Importers: the logs that other programs have written, as calls in the ledger.

One file per source. Each reads what its source writes and says so in calls (`recording.Entry`); what they share,
files, values, batches, is beside them. `IMPORTERS` lists them for whoever offers a choice, such as the command line.
"""

from __future__ import annotations

from typing import NamedTuple


class Importer(NamedTuple):
    """A source: the lab's verb for it, what it reads, and whether a path has to be given."""

    verb: str
    reads: str
    needs_path: bool


IMPORTERS: dict[str, Importer] = {
    "billing": Importer("import_billing", "a provider's export of what it billed", True),
    "claude-code": Importer("import_claude_code", "Claude Code's session logs (~/.claude/projects)", False),
    "codex": Importer("import_codex", "Codex's session logs (~/.codex/sessions)", False),
    "litellm": Importer("import_litellm", "LiteLLM's SpendLogs or logging payloads", True),
    "llm": Importer("import_llm_logs", "the log of the llm command line (logs.db)", False),
    "llm-embeddings": Importer("import_llm_embeddings", "collections of the llm command line (embeddings.db)", False),
    "otel": Importer("import_otel", "OpenTelemetry traces: OTLP JSON or JSON lines", True),
    "rows": Importer("import_rows", "any table: CSV, JSON, JSON lines or Parquet", True),
}
