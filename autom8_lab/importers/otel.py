"""Traces: spans of model calls as calls, of retrievals as searches, evaluation events as their quality.

The same call may be in two spans, where a library and its client are both traced: the outer one, which has the same
counts, is left out. Spans of agents, tools and workflows contain calls and are none, though some sum their tokens up.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..access import AccessLog
from ..collecting import seldom_collected
from ..errors import InvalidValue
from ..ledger import TABLE
from ..records import Condition
from . import otel_names as names
from .otel_spans import Event, LogEvent, Span, told
from .recording import Entry
from .values import amount, counts_of, document, first, label, labels, milliseconds, number, spoken, text

if TYPE_CHECKING:
    from .jobs import Job
    from .report import ImportReport

SOURCE = "otel"
ENDINGS = (".json", ".jsonl", ".otlp", ".ndjson")
REMEMBERED_SPANS = 50_000
PENDING_EVALUATIONS = 100_000
JUDGED_AT_ONCE = 20_000
FAR_DOCUMENTS = 1_000
Counts = tuple[int | None, int | None]  # of input and output
EVALUATED = "evaluation."  # what their names begin with in the metadata


class Memory:
    """What is remembered of recent spans, so that a call within a call is found, also in another batch."""

    def __init__(self) -> None:
        self.calls: OrderedDict[str, Counts] = OrderedDict()  # what each counted
        self.inner: OrderedDict[str, frozenset[Counts]] = OrderedDict()  # what the calls within a span counted
        self.around: OrderedDict[str, str] = OrderedDict()  # of a span that is no call, the nearest that may be one

    def wraps(self, span: Span, counts: Counts, outer: str | None) -> bool:
        """Whether a call within this span counted the same; remembers the span, and what it is within."""
        _keep(self.calls, span.key, counts)
        if outer is not None:
            _keep(self.inner, outer, self.inner.get(outer, frozenset()) | {counts})
        return counts in self.inner.get(span.key, ())

    def outer(self, span: Span) -> str | None:
        """Return the nearest span around this one that is a call, or may turn out to be."""
        return None if span.parent is None else self.around.get(span.parent, span.parent)

    def pass_on(self, span: Span) -> None:
        """Take what is within a span that is no call as being within the one around it."""
        outer, inner = self.outer(span), self.inner.pop(span.key, frozenset())
        if outer is not None:
            _keep(self.around, span.key, outer)
            if inner:
                _keep(self.inner, outer, self.inner.get(outer, frozenset()) | inner)


def _keep(memory: OrderedDict[str, Any], key: str, value: Any) -> None:
    memory[key] = value
    if len(memory) > REMEMBERED_SPANS:
        memory.popitem(last=False)


@seldom_collected()
def import_traces(job: Job, traces: Any, *, access: AccessLog, memory: Memory) -> ImportReport:
    """Import spans from files, a folder, a frame or dicts."""
    reader = TraceReader(job, access, memory)
    for file, values in job.tables(traces, endings=ENDINGS):
        for place, value in values:
            reader.take(value, file=file, place=place)
    return reader.finished()


class TraceReader:
    """Takes spans one after the other."""

    def __init__(self, job: Job, access: AccessLog, memory: Memory) -> None:
        self._job = job
        self._access = access
        self._memory = memory
        self._searches: list[dict[str, Any]] = []
        self._evaluations: dict[str, dict[str, float]] = {}
        self._judged = 0  # evaluations since they were last noted
        for name in ("searches", "evaluations", "wrappers"):
            job.report[name] = 0

    def take(self, value: Any, *, file: str | None, place: str) -> None:
        """Take the spans in a line or document."""
        for number_, item in enumerate([value] if isinstance(value, InvalidValue) else told(value), 1):
            where = f"{place} span {number_}" if number_ > 1 else place
            try:
                if isinstance(item, Span):
                    self._take_span(item, file=file, place=where)
                elif isinstance(item, LogEvent):
                    self._take_evaluation(item.key, item.event)
                else:
                    raise item
            except InvalidValue as exc:
                self._job.recorder.refuse(exc, file=file, place=where)
        if self._job.recorder.is_full() or len(self._searches) >= FAR_DOCUMENTS or self._judged >= JUDGED_AT_ONCE:
            self._flush()

    def finished(self) -> ImportReport:
        """Record the rest and return the report."""
        self._flush()
        for key in self._evaluations:
            self._job.recorder.refuse(f"an evaluation of the span {key}, which is no call here", file=None, place="")
        if self._evaluations:
            self._job.forget_done()  # their calls may still come
        return self._job.finished()

    def _flush(self) -> None:
        self._job.recorder.flush()
        dry = self._job.report["dry_run"]
        searches, self._searches, self._judged = self._searches, [], 0
        self._job.report.add("searches", self._access.add_searches(searches) if searches and not dry else 0)
        if self._evaluations and not dry:
            self._apply_evaluations()

    # Calls

    def _take_span(self, span: Span, *, file: str | None, place: str) -> None:
        kind = names.operation(span.attributes)
        if kind in names.CALLS:
            self._take_call(span, _entry(span, names.CALLS[kind]), file=file, place=place)
            return
        self._memory.pass_on(span)
        if kind in names.SEARCHES:
            self._searches.append(_search(span))
        for event in span.events:
            self._take_evaluation(span.key, event)

    def _take_call(self, span: Span, entry: Entry, *, file: str | None, place: str) -> None:
        counts = (entry.row.get("input_tokens"), entry.row.get("output_tokens"))
        outer = self._memory.outer(span)
        if counts[0] or counts[1]:
            if self._memory.wraps(span, counts, outer):
                self._job.report.add("read")
                self._job.report.add("wrappers")
                return
            if outer is not None and self._memory.calls.get(outer) == counts:
                self._job.report.add("wrappers", self._job.recorder.retract(SOURCE, outer))
        self._job.recorder.add(entry, file=file, place=place)

    # Quality

    def _take_evaluation(self, key: str | None, event: Event) -> None:
        if event.name != names.EVALUATION:
            return
        if key is None:
            raise InvalidValue("an evaluation without the span that it is about")
        if len(self._evaluations) >= PENDING_EVALUATIONS:
            raise InvalidValue("too many evaluations come before the calls that they are about")
        name, score = evaluation(event)
        self._evaluations.setdefault(key, {})[name] = score
        self._judged += 1

    def _apply_evaluations(self) -> None:
        """Note the scores of the calls that are there; the others may still come."""
        storage = self._job.storage
        where = [Condition("source", "=", SOURCE), Condition("source_id", "in", list(self._evaluations))]
        columns = ["usage_key", "source_id", "quality_score", "metadata"]
        with storage.transaction():
            for row in storage.rows(TABLE, where=where, columns=columns):
                scores = self._evaluations.pop(row["source_id"])
                self._job.report.add("evaluations", len(scores))
                changes = with_scores(row["quality_score"], row["metadata"], scores)
                if changes["metadata"] != row["metadata"]:
                    storage.update(TABLE, [Condition("usage_key", "=", row["usage_key"])], changes)


def evaluation(event: Event) -> tuple[str, float]:
    """Return the name and score of an evaluation event. Raises `InvalidValue` for a score that is not from 0 to 1."""
    name = label(str(event.attributes.get(names.EVALUATION_NAME) or "evaluation")) or "evaluation"
    score = number(event.attributes.get(names.EVALUATION_SCORE), names.EVALUATION_SCORE)
    if score is None:
        score = names.PASSED.get(str(event.attributes.get(names.EVALUATION_LABEL)).lower())
    if score is None or not 0 <= score <= 1:
        raise InvalidValue(f"evaluation {name!r} with the score {score}: only scores from 0 to 1 are a quality")
    return name, float(score)


def with_scores(quality: float | None, metadata: Mapping[str, Any], scores: Mapping[str, float]) -> dict[str, Any]:
    """Return quality and metadata with these evaluations: the mean of all of them, unless somebody set another."""
    before = [value for name, value in metadata.items() if name.startswith(EVALUATED)]
    ours = quality is None or (bool(before) and math.isclose(quality, sum(before) / len(before)))
    joined = {**metadata, **{EVALUATED + name: score for name, score in scores.items()}}
    every = [value for name, value in joined.items() if name.startswith(EVALUATED)]
    return {"quality_score": sum(every) / len(every) if ours else quality, "metadata": joined}


def _entry(span: Span, operation: str) -> Entry:
    told = names.fields(span.attributes)
    about = {name: told[name] for name in names.LABELS if name in told}
    asked, model = told.get("request_model"), told.get("model")
    if asked != model:
        about["asked_model"] = asked
    error = _error(span, told) if span.failed or span.events or "error" in told else None
    row: dict[str, Any] = {
        "source": SOURCE,
        "source_id": span.key,
        "at": span.start,
        "model": text(model, "model"),
        "provider": text(told.get("provider"), "provider"),
        "operation": operation,
        "agent": text(told.get("agent"), "agent"),
        **counts_of(told),
        "latency_ms": span.took_ms,
        "success": not span.failed and error is None,
    }
    if error is not None:
        row["error_type"] = error
    if span.events or "ttft_seconds" in told:
        row["ttft_ms"] = _ttft(span, told)
    if (cost := amount(told.get("cost"), "cost")) is not None:
        currency = str(told.get("currency", "USD")).upper()
        row |= {"cost_actual_usd": cost} if currency == "USD" else {}
        about |= {"cost": f"{cost:g} {currency}"} if currency != "USD" else {}
    row["metadata"] = labels(**about)
    if span.events and (scores := dict(evaluation(event) for event in span.events if event.name == names.EVALUATION)):
        row |= with_scores(None, row["metadata"], scores)
    return Entry(row, _Texts(span.attributes))


def _error(span: Span, told: Mapping[str, Any]) -> str | None:
    raised = next((event.attributes.get("exception.type") for event in span.events if event.name == "exception"), None)
    error = first(told.get("error"), raised, "Error" if span.failed else None)
    return None if error is None else label(str(error))


def _ttft(span: Span, told: Mapping[str, Any]) -> float | None:
    seconds = amount(told.get("ttft_seconds"), "time_to_first_chunk")
    if seconds is not None:
        return seconds * 1_000
    came = next((event.at for event in span.events if event.name in names.FIRST_TOKEN_EVENTS), None)
    return milliseconds(span.start, came)


class _Texts(Mapping[str, Any]):
    """The prompt and answer of a span, looked for when somebody asks."""

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        self._attributes = attributes

    def __getitem__(self, role: str) -> Any:
        last = role == "prompt"
        whole, parts = (names.PROMPT, names.PROMPT_PARTS) if last else (names.RESPONSE, names.RESPONSE_PARTS)
        return _said(self._attributes, whole, parts, last=last)

    def __iter__(self) -> Iterator[str]:
        return iter(("prompt", "response"))

    def __len__(self) -> int:
        return 2


def _said(given: Mapping[str, Any], whole: tuple[str, ...], parts: tuple[str, ...], *, last: bool) -> Any:
    for form in parts:
        count = 0
        while form.format(count) in given:
            count += 1
        if count:
            return given[form.format(count - 1 if last else 0)]
    found = names.value(given, whole)
    messages = document(found) if isinstance(found, str) and found.lstrip().startswith(("[", "{")) else found
    if isinstance(messages, list) and messages and isinstance(messages[0], Mapping):
        message = messages[-1] if last else messages[0]
        return spoken(first(message.get("content"), message.get("parts")))
    return found


# Searches


def _search(span: Span) -> dict[str, Any]:
    given = span.attributes
    results = list(_documents(span))
    if span.start is None:
        raise InvalidValue("a retrieval without a time")
    top_k = number(names.value(given, names.TOP_K), "top_k")
    query = names.value(given, names.QUERY)
    return {
        "id": f"{SOURCE}:{span.key}",
        "at": span.start,
        "agent": text(names.value(given, names.AGENT), "agent"),
        "query": str(query).replace("\0", " ") if query is not None else None,
        "engine": text(names.value(given, names.DATA_SOURCE), "data source"),
        "k": int(top_k) if top_k is not None and top_k >= 1 else len(results),
        "duration_ms": span.took_ms,
        "results": results,
    }


def _documents(span: Span) -> Iterator[tuple[str, float | None]]:
    found = document(span.attributes.get(names.DOCUMENTS))
    stored = [event for event in span.events if event.name in names.STORE_RESULTS]
    numbered: Iterable[Mapping[str, Any]]
    if isinstance(found, list):
        numbered = [item for item in found if isinstance(item, Mapping)]
    elif stored:
        numbered = [
            {name: event.attributes.get(f"{event.name}.{name}") for name in ("id", "score")} for event in stored
        ]
    else:
        numbered = _numbered(span.attributes)
    for place, item in enumerate(numbered, 1):
        yield text(item.get("id"), "document.id") or f"document {place}", number(item.get("score"), "document.score")


def _numbered(given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for place in range(FAR_DOCUMENTS):
        item = {name: given.get(names.DOCUMENT.format(place, name)) for name in ("id", "score", "content")}
        if all(value is None for value in item.values()):
            return
        yield item
