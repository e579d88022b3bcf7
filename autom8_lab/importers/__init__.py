"""Importers: the logs that other programs have written, as calls in the ledger.

One file per source. Each reads what its source writes and says so in calls (`recording.Entry`); what they share,
files, values, batches, is beside them. `LabLogger` and `LabSpanExporter` do without a log: they record calls live.
"""

from __future__ import annotations

from .litellm_logs import LabLogger
from .otel_export import LabSpanExporter
from .report import ImportReport

__all__ = ["ImportReport", "LabLogger", "LabSpanExporter"]
