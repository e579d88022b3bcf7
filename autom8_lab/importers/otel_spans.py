"""Spans in the forms in which they are written down: OTLP as JSON, the Python SDK's JSON, and rows of a frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from ..errors import InvalidValue
from ..validation import is_missing, shortened
from .values import EPOCH, at, first, instant, milliseconds, text

# OTLP's JSON has names in one form, protobuf's own printer in the other.
RESOURCES = frozenset({"resourceSpans", "resource_spans", "resourceLogs", "resource_logs", "resourceMetrics"})
SCOPES = frozenset({"scopeSpans", "scope_spans", "instrumentationLibrarySpans", "scopeLogs", "scope_logs"})
SPANS = frozenset({"spans"})
RECORDS = frozenset({"logRecords", "log_records"})
NOTHING: Mapping[str, Any] = {}
PLAIN = frozenset({"stringValue", "intValue", "doubleValue", "boolValue"})
ARRAYS = frozenset({"arrayValue", "array_value"})
PAIRS = frozenset({"kvlistValue", "kvlist_value"})
VALUES = frozenset({"values"})
FAILED = frozenset({2, "2", "STATUS_CODE_ERROR", "ERROR", "StatusCode.ERROR"})


class Event(NamedTuple):
    """Something that happened in a span, or, with the span's id, in a log beside it."""

    name: str
    at: datetime | None
    attributes: Mapping[str, Any]


class Span(NamedTuple):
    """A span with flat attributes, those of its resource among them. Ids are hexadecimal, "trace:span"."""

    key: str
    parent: str | None
    name: str
    start: datetime | None
    took_ms: float | None
    failed: bool
    attributes: Mapping[str, Any]
    events: tuple[Event, ...]


class LogEvent(NamedTuple):
    """An event of a log, about the span with that key."""

    key: str | None
    event: Event


def told(value: Any) -> Iterator[Span | LogEvent | InvalidValue]:
    """Yield the spans and events in a line or document; what is broken comes as an `InvalidValue`."""
    if type(value) is not dict and not isinstance(value, Mapping):
        yield InvalidValue(f"{shortened(value)} is no span: give OTLP JSON, or the SDK's JSON of spans")
        return
    if RESOURCES.isdisjoint(value):
        yield _safely(_of_sdk, value, {})
        return
    for resource in _lists(value, RESOURCES):
        shared = _attributes(at(resource, "resource", "attributes"))
        for scope in _lists(resource, SCOPES):
            for span in _lists(scope, SPANS):
                try:
                    yield _of_otlp(span, shared)
                except InvalidValue as exc:
                    yield exc
            for record in _lists(scope, RECORDS):
                yield _safely(_of_log, record, shared)


def _lists(value: Any, names: frozenset[str]) -> list[Any]:
    """Return what is in the lists under these names."""
    found: list[Any] = []
    if type(value) is dict:
        for name in value:
            if name in names and type(value[name]) is list:
                found = [*found, *value[name]] if found else value[name]
    return found


def _safely(read: Any, value: Any, shared: Mapping[str, Any]) -> Any:
    try:
        return read(value, shared)
    except InvalidValue as exc:
        return exc


def _of_otlp(span: Any, shared: Mapping[str, Any]) -> Span:
    if not isinstance(span, dict):
        raise InvalidValue(f"{shortened(span)} is no span")
    get = span.get
    trace = _id(get("traceId") or get("trace_id"), "traceId")
    parent = get("parentSpanId") or get("parent_span_id")
    begun = get("startTimeUnixNano") or get("start_time_unix_nano")
    start, took = _times(begun, get("endTimeUnixNano") or get("end_time_unix_nano"))
    status, events = get("status"), get("events")
    return Span(
        f"{trace}:{_id(get('spanId') or get('span_id'), 'spanId')}",
        f"{trace}:{_id(parent, 'parentSpanId')}" if parent else None,
        str(get("name") or ""),
        start,
        took,
        bool(status) and at(status, "code") in FAILED,
        _attributes(get("attributes"), shared),
        tuple([_event(event) for event in events]) if isinstance(events, list) and events else (),
    )


def _times(begun: Any, ended: Any) -> tuple[datetime | None, float | None]:
    """Return when a span began, and how many milliseconds it took."""
    if type(begun) is type(ended) is str and len(begun) == len(ended) == 19 and begun.isdecimal() and ended.isdecimal():
        microseconds = int(begun) // 1_000
        took = int(ended) // 1_000 - microseconds
        return EPOCH + timedelta(0, 0, microseconds), None if took < 0 else took / 1_000
    start = instant(begun, "startTimeUnixNano")
    return start, milliseconds(start, instant(ended, "endTimeUnixNano"))


def _event(event: Any) -> Event:
    time = instant(first(at(event, "timeUnixNano"), at(event, "time_unix_nano")), "timeUnixNano")
    return Event(str(at(event, "name") or ""), time, _attributes(at(event, "attributes")))


def _of_log(record: Any, shared: Mapping[str, Any]) -> LogEvent:
    attributes = _attributes(at(record, "attributes"), shared)
    trace, span = (
        first(at(record, name), at(record, other)) for name, other in (("traceId", "trace_id"), ("spanId", "span_id"))
    )
    name = str(first(at(record, "eventName"), at(record, "event_name"), attributes.get("event.name"), ""))
    key = f"{_id(trace, 'traceId')}:{_id(span, 'spanId')}" if trace and span else None
    return LogEvent(key, Event(name, None, attributes))


def _of_sdk(span: Mapping[str, Any], shared: Mapping[str, Any]) -> Span:
    """Read `ReadableSpan.to_json()`, or a row of a frame of spans such as Phoenix's."""
    context = span.get("context")
    trace = _id(first(at(context, "trace_id"), span.get("context.trace_id"), span.get("trace_id")), "trace_id")
    own = _id(first(at(context, "span_id"), span.get("context.span_id"), span.get("span_id")), "span_id")
    parent = first(*(_present(span.get(name)) for name in ("parent_id", "parent_span_id")))
    flat = {name[11:]: value for name, value in span.items() if name.startswith("attributes.") and not _absent(value)}
    nested = span.get("attributes")
    start = instant(_present(span.get("start_time")), "start_time")
    return Span(
        key=f"{trace}:{own}",
        parent=f"{trace}:{_id(parent, 'parent_id')}" if parent else None,
        name=str(span.get("name") or ""),
        start=start,
        took_ms=milliseconds(start, instant(_present(span.get("end_time")), "end_time")),
        failed=first(at(span.get("status"), "status_code"), span.get("status_code")) in FAILED,
        attributes={**_flat(at(span.get("resource"), "attributes")), **_flat(nested), **_flat(flat)},
        events=tuple(
            Event(
                str(at(event, "name") or ""),
                instant(at(event, "timestamp"), "timestamp"),
                _flat(at(event, "attributes")),
            )
            for event in (span.get("events") if isinstance(span.get("events"), list) else ())  # type: ignore[union-attr]
        ),
    )


def _absent(value: Any) -> bool:
    return not isinstance(value, list | tuple | dict) and not hasattr(value, "shape") and is_missing(value)


def _present(value: Any) -> Any:
    return None if _absent(value) else value


def _id(value: Any, name: str) -> str:
    if type(value) is str and len(value) in (16, 32) and value.isalnum():
        return value.lower()
    found = text(_present(value), name)
    if found is None:
        raise InvalidValue(f"a span without {name}: nobody could tell whether it is there already")
    return found.removeprefix("0x").lower() if len(found) in (18, 34) else found


def _attributes(given: Any, shared: Mapping[str, Any] = NOTHING) -> dict[str, Any]:
    """Return OTLP's list of keys and values as a flat dict, added to those that it shares."""
    found = {**shared}
    if isinstance(given, dict):
        return found | _flat(given)
    for pair in given if isinstance(given, list) else ():
        if type(pair) is dict:
            name, value = pair.get("key"), pair.get("value")
            if type(value) is dict:
                for kind in value:
                    value = value[kind] if kind in PLAIN else _value(value)
                    break
            if type(value) is dict:
                found |= _flat(value, f"{name}.")
            else:
                found[name if type(name) is str else str(name)] = value
    return found


def _value(given: Any) -> Any:
    """Return what one of OTLP's typed values says."""
    if not isinstance(given, dict):
        return given
    for name, value in given.items():
        if name in ARRAYS:
            return [_value(item) for item in _lists(value, VALUES)]
        if name in PAIRS:
            return {str(at(pair, "key")): _value(at(pair, "value")) for pair in _lists(value, VALUES)}
        return value
    return None


def _flat(given: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested attributes under dotted names."""
    found: dict[str, Any] = {}
    for name, value in given.items() if isinstance(given, Mapping) else ():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
