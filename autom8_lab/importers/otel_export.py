"""An exporter for a live OpenTelemetry SDK, which records the calls in its spans in a lab."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import LabError, UnrecordedUsageWarning

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExportResult


class _Lab(Protocol):
    def import_otel(self, traces: Any, *, store_texts: bool = False) -> Any:
        """Import spans."""


class LabSpanExporter:
    """Records the model calls, retrievals and evaluations of a traced program in a lab.

    `TracerProvider().add_span_processor(BatchSpanProcessor(LabSpanExporter(lab)))`. What cannot be recorded is an
    `UnrecordedUsageWarning`, and the program goes on. Needs the SDK (`pip install 'autom8_lab[otel]'`) when it is made.
    """

    def __init__(self, lab: _Lab, *, store_texts: bool = False) -> None:
        try:
            from opentelemetry.sdk.trace.export import SpanExportResult
        except ImportError as exc:
            raise LabError("LabSpanExporter needs the OpenTelemetry SDK: pip install 'autom8_lab[otel]'") from exc
        self._results = SpanExportResult
        self._lab = lab
        self._store_texts = store_texts

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Record what these spans tell."""
        try:
            self._lab.import_otel([json.loads(span.to_json()) for span in spans], store_texts=self._store_texts)
        except Exception as exc:
            message = f"{len(spans)} spans were not recorded: {type(exc).__name__}: {exc}"
            warnings.warn(message, UnrecordedUsageWarning, stacklevel=2)
            return self._results.FAILURE
        return self._results.SUCCESS

    def shutdown(self) -> None:
        """Do nothing: each export is recorded before it returns."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Do nothing: each export is recorded before it returns."""
        return True
