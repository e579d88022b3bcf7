"""Traces: the names of three conventions in three forms, each call once, searches and quality, and the live SDK."""

from __future__ import annotations

import gzip
import io
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import autom8_lab as al
from autom8_lab.importers import LabSpanExporter, otel, otel_names
from autom8_lab.lab import Lab

BOTH_BACKENDS = True

TRACE = "5b8efff798038103d269b633813fc60c"
START = 1_777_636_800_000_000_000  # 2026-05-01 12:00 UTC
CURRENT = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.response.model": "gpt-4o-2024-08-06",
    "gen_ai.usage.input_tokens": 812,
    "gen_ai.usage.output_tokens": 120,
    "gen_ai.usage.cache_read.input_tokens": 400,
    "gen_ai.usage.reasoning.output_tokens": 20,
    "gen_ai.response.time_to_first_chunk": 0.25,
    "gen_ai.conversation.id": "conv-1",
    "gen_ai.response.id": "chatcmpl-1",
}
DEPRECATED = {
    "gen_ai.system": "openai",
    "gen_ai.request.model": "gpt-4o-2024-08-06",
    "gen_ai.usage.prompt_tokens": 812,
    "gen_ai.usage.completion_tokens": 120,
}
OPENINFERENCE = {
    "openinference.span.kind": "LLM",
    "llm.provider": "openai",
    "llm.model_name": "gpt-4o-2024-08-06",
    "llm.token_count.prompt": 812,
    "llm.token_count.completion": 120,
    "llm.token_count.total": 932,
    "llm.token_count.prompt_details.cache_read": 400,
    "llm.token_count.completion_details.reasoning": 20,
    "llm.cost.total": 0.0125,
}
OPENLLMETRY = {
    "llm.request.type": "chat",
    "gen_ai.system": "OpenAI",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.response.model": "gpt-4o-2024-08-06",
    "gen_ai.usage.prompt_tokens": 812,
    "gen_ai.usage.completion_tokens": 120,
    "gen_ai.usage.cache_read_input_tokens": 400,
    "gen_ai.usage.reasoning_tokens": 20,
    "llm.usage.total_tokens": 932,
}


def pairs(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    def value(given: Any) -> dict[str, Any]:
        match given:
            case bool():
                return {"boolValue": given}
            case int():
                return {"intValue": str(given)}  # as OTLP's JSON writes 64 bits
            case float():
                return {"doubleValue": given}
            case list():
                return {"arrayValue": {"values": [value(item) for item in given]}}
        return {"stringValue": given}

    return [{"key": key, "value": value(given)} for key, given in attributes.items()]


def span(
    number: int, attributes: dict[str, Any], *, parent: int | None = None, ms: int = 930, **given: Any
) -> dict[str, Any]:
    begun = START + number * 10**9
    return {
        "traceId": TRACE,
        "spanId": f"{number:016x}",
        "parentSpanId": "" if parent is None else f"{parent:016x}",
        "name": "a span",
        "kind": 3,
        "startTimeUnixNano": str(begun),
        "endTimeUnixNano": str(begun + ms * 10**6),
        "attributes": pairs(attributes),
        "status": {},
        **given,
    }


def otlp(*spans: dict[str, Any], service: str = "shop") -> dict[str, Any]:
    resource = {"attributes": pairs({"service.name": service})}
    return {
        "resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "test"}, "spans": list(spans)}]}]
    }


def evaluated(name: str, score: Any, number: int = 1, label: str | None = None) -> dict[str, Any]:
    attributes = {"gen_ai.evaluation.name": name}
    attributes |= {} if score is None else {"gen_ai.evaluation.score.value": score}
    attributes |= {} if label is None else {"gen_ai.evaluation.score.label": label}
    return {"name": "gen_ai.evaluation.result", "timeUnixNano": str(START), "attributes": pairs(attributes)}


@pytest.mark.parametrize(
    "attributes", [CURRENT, DEPRECATED, OPENINFERENCE, OPENLLMETRY], ids=["now", "old", "phoenix", "traceloop"]
)
def test_every_convention_gives_the_same_call(lab: Lab, attributes: dict[str, Any]) -> None:
    report = lab.import_otel([otlp(span(1, attributes))])
    assert (report["new"], report["refused"], report["unpriced"]) == (1, 0, 0)
    row = lab.ledger_df().iloc[0]
    assert (row["model"], row["operation"], row["source"]) == ("gpt-4o-2024-08-06", "chat", "otel")
    assert row["provider"].lower() == "openai"
    assert (row["input_tokens"], row["output_tokens"], row["latency_ms"], row["agent"]) == (812, 120, 930, "shop")
    assert row["at"] == pd.Timestamp("2026-05-01T12:00:01Z")
    assert row["source_id"] == f"{TRACE}:{1:016x}"
    assert row["success"]
    if attributes is not DEPRECATED:
        assert (row["cache_read_tokens"], row["reasoning_tokens"]) == (400, 20)
        assert row["cost_estimated_usd"] == pytest.approx((412 * 2.5 + 400 * 1.25 + 120 * 10) / 1e6)
    if attributes is CURRENT:
        assert row["ttft_ms"] == 250
        assert row["metadata"] == {
            "conversation": "conv-1",
            "service": "shop",
            "response_id": "chatcmpl-1",
            "asked_model": "gpt-4o",
        }
    if attributes is OPENINFERENCE:
        assert row["cost_actual_usd"] == 0.0125


@pytest.mark.parametrize("form", ["lines", "document", "array", "gz", "folder", "dict"])
def test_files_of_every_form_are_read_and_again_change_nothing(lab: Lab, tmp_path: Path, form: str) -> None:
    documents = [otlp(span(number, CURRENT)) for number in range(5)]
    path: Any = tmp_path / "traces.jsonl"
    if form == "lines":
        path.write_text("".join(json.dumps(item) + "\n" for item in documents))
    elif form == "document":
        path.write_text(json.dumps(otlp(*(span(number, CURRENT) for number in range(5))), indent=2))
    elif form == "array":
        path.write_text(json.dumps(documents))
    elif form == "gz":
        path.write_bytes(gzip.compress(b"\n".join(json.dumps(item).encode() for item in documents)))
    elif form == "folder":
        for number, item in enumerate(documents):
            (tmp_path / f"{number}.json").write_text(json.dumps(item))
        path = tmp_path
    else:
        path = otlp(*(span(number, CURRENT) for number in range(5)))
    assert lab.import_otel(path)["new"] == 5
    before = lab.ledger_df()
    if form != "dict":
        again = lab.import_otel(path)
        assert (again["unchanged_files"], again["read"]) == (again["files"], 0)
    again = lab.import_otel(path, resume=False)
    assert (again["new"], again["already_there"], again["updated"]) == (0, 5, 0)
    pd.testing.assert_frame_equal(lab.ledger_df(), before)


@pytest.mark.parametrize("seed", range(6))
def test_a_call_in_two_spans_is_one_call_in_whatever_order_they_come(place: Callable[[str], str], seed: int) -> None:
    failed = {name: value for name, value in CURRENT.items() if "usage" not in name}
    spans = [
        span(
            1,
            {
                "gen_ai.operation.name": "invoke_agent",
                "gen_ai.usage.input_tokens": 2436,
                "gen_ai.request.model": "gpt-4o",
            },
        ),
        span(2, OPENINFERENCE, parent=1),  # a gateway around
        span(3, {"http.request.method": "POST"}, parent=2),
        span(4, CURRENT, parent=3),  # the client
        span(5, failed, parent=2, status={"code": 2}),  # a try before
        span(6, CURRENT, parent=1),
        span(7, {**CURRENT, "gen_ai.usage.input_tokens": 813}, parent=6),  # within a call, but another one
        span(
            8,
            {"openinference.span.kind": "CHAIN", "llm.token_count.prompt": 812, "llm.token_count.completion": 120},
            parent=1,
        ),
    ]
    order = list(range(8))
    random.Random(seed).shuffle(order)
    if seed < 2:
        order = sorted(order, reverse=bool(seed))  # by their beginnings, or by their ends
    with al.open(place("lab.db"), embedding_model="hash-64") as lab:
        for number in order:
            lab.import_otel([otlp(spans[number])])
        kept = [int(name[-1]) for name in sorted(lab.ledger_df()["source_id"])]
        assert kept == [4, 5, 6, 7] or (seed >= 2 and kept == [2, 4, 5, 6, 7])
        report = lab.import_otel([otlp(*spans)])
        kept = [int(name[-1]) for name in sorted(lab.ledger_df()["source_id"])]
        assert kept == [4, 5, 6, 7]
        assert report["new"] == 0
        assert lab.usage_df()["input_tokens"].sum() == 3 * 812 + 1


def test_failures_keep_their_error(lab: Lab) -> None:
    exception = {
        "name": "exception",
        "timeUnixNano": str(START),
        "attributes": pairs({"exception.type": "TimeoutError"}),
    }
    lab.import_otel(
        [
            otlp(
                span(1, {**CURRENT, "error.type": "rate_limit_exceeded"}),
                span(2, CURRENT, status={"code": 2}, events=[exception]),
                span(3, CURRENT, status={"code": "STATUS_CODE_ERROR"}),
                span(4, CURRENT, status={"code": 1}),
            )
        ]
    )
    frame = lab.ledger_df().sort_values("source_id")
    assert frame["error_type"].fillna("").tolist() == ["rate_limit_exceeded", "TimeoutError", "Error", ""]
    assert frame["success"].tolist() == [False, False, False, True]


def test_embeddings_and_rerankers_are_calls_and_tools_are_none(lab: Lab) -> None:
    embedding = {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.request.model": "text-embedding-3-small",
        "gen_ai.usage.input_tokens": 9,
    }
    others = [{"gen_ai.operation.name": name} for name in ("execute_tool", "create_agent", "invoke_workflow", "plan")]
    others += [{"openinference.span.kind": "TOOL"}, {"traceloop.span.kind": "workflow"}, {"http.method": "GET"}]
    report = lab.import_otel([otlp(span(1, embedding), *(span(number, item) for number, item in enumerate(others, 2)))])
    assert (report["read"], report["new"]) == (1, 1)
    row = lab.ledger_df().iloc[0]
    assert (row["operation"], row["output_tokens"]) == ("embeddings", 0)
    assert row["cost_usd"] == pytest.approx(9 * 0.02 / 1e6)


def test_costs_in_another_currency_are_kept_and_not_added(lab: Lab) -> None:
    cost = {"gen_ai.usage.cost.amount": 0.5, "gen_ai.usage.cost.currency": "EUR"}
    lab.import_otel(
        [otlp(span(1, {**CURRENT, **cost}), span(2, {**CURRENT, **cost, "gen_ai.usage.cost.currency": "USD"}))]
    )
    frame = lab.ledger_df().sort_values("source_id")
    assert frame["cost_actual_usd"].fillna(-1).tolist() == [-1, 0.5]
    assert frame["metadata"].iloc[0]["cost"] == "0.5 EUR"


# Searches


def test_retrievals_become_searches(lab: Lab) -> None:
    lab.store_context("The crane stops at 14 m/s.", context_id="crane")
    documents = json.dumps([{"id": "crane", "score": 0.9}, {"id": "tides", "score": 0.4}])
    current = {
        "gen_ai.operation.name": "retrieval",
        "gen_ai.retrieval.query.text": "when does the crane stop?",
        "gen_ai.retrieval.documents": documents,
        "gen_ai.data_source.id": "kb-1",
        "gen_ai.request.top_k": 5,
    }
    phoenix = {
        "openinference.span.kind": "RETRIEVER",
        "input.value": "tides",
        "retrieval.documents.0.document.id": "tides",
        "retrieval.documents.0.document.score": 0.7,
        "retrieval.documents.1.document.content": "no id",
    }
    document = otlp(span(1, current, ms=12), span(2, phoenix))
    report = lab.import_otel([document])
    assert (report["searches"], report["new"], report["read"]) == (2, 0, 0)
    second, first = lab.searches_df().to_dict("records")
    assert (first["query"], first["k"], first["engine"], first["duration_ms"]) == (
        "when does the crane stop?",
        5,
        "kb-1",
        12,
    )
    assert first["context_ids"] == ["crane", "tides"]
    assert (second["query"], second["k"], second["context_ids"]) == ("tides", 2, ["tides", "document 2"])
    assert lab.accesses_df("crane")["query"].tolist() == ["when does the crane stop?"]
    assert lab.import_otel([document])["searches"] == 0
    assert len(lab.searches_df()) == 2


@pytest.mark.parametrize(
    ("system", "operation", "event"), [("chroma", "query", "db.query.result"), ("milvus", "search", "db.search.result")]
)
def test_searches_of_traced_vector_stores_become_searches(lab: Lab, system: str, operation: str, event: str) -> None:
    lab.store_context("The crane stops at 14 m/s.", context_id="crane")
    results = [
        {"name": event, "timeUnixNano": str(START), "attributes": pairs({f"{event}.id": name, f"{event}.score": score})}
        for name, score in (("crane", 0.9), ("tides", 0.4))
    ]
    asked = {"db.system": system, "db.operation": operation, "db.vector.query.top_k": 5}
    added = {"db.system": system, "db.operation": "add"}
    other = {"db.system": "postgresql", "db.operation": "query"}
    report = lab.import_otel([otlp(span(1, asked, events=results), span(2, added), span(3, other))])
    assert (report["searches"], report["read"]) == (1, 0)
    (search,) = lab.searches_df().to_dict("records")
    assert (search["k"], search["engine"], search["context_ids"]) == (5, system, ["crane", "tides"])


# Quality


def test_evaluations_in_the_span_are_its_quality(lab: Lab) -> None:
    events = [
        evaluated("relevance", 0.8),
        evaluated("faithfulness", None, label="Pass"),
        {"name": "other", "attributes": []},
    ]
    lab.import_otel([otlp(span(1, CURRENT, events=events))])
    row = lab.ledger_df().iloc[0]
    assert row["quality_score"] == pytest.approx(0.9)
    assert (row["metadata"]["evaluation.relevance"], row["metadata"]["evaluation.faithfulness"]) == (0.8, 1.0)


def logs(*records: dict[str, Any]) -> dict[str, Any]:
    return {"resourceLogs": [{"resource": {}, "scopeLogs": [{"logRecords": list(records)}]}]}


def record(number: int, name: str, score: Any) -> dict[str, Any]:
    attributes = pairs({"gen_ai.evaluation.name": name, "gen_ai.evaluation.score.value": score})
    return {
        "traceId": TRACE,
        "spanId": f"{number:016x}",
        "eventName": "gen_ai.evaluation.result",
        "attributes": attributes,
    }


@pytest.mark.parametrize("order", [1, -1])
def test_evaluations_in_logs_find_their_call_before_or_after_it(lab: Lab, order: int) -> None:
    documents = [otlp(span(1, CURRENT)), logs(record(1, "relevance", 0.5)), logs(record(1, "tone", 1.0))]
    report = lab.import_otel(documents[::order])
    assert (report["evaluations"], report["refused"]) == (2, 0)
    assert lab.ledger_df()["quality_score"].tolist() == [0.75]
    lab.import_otel(documents)
    assert lab.ledger_df()["quality_score"].tolist() == [0.75]
    lab.import_otel([logs(record(1, "relevance", 1.0))])  # judged again
    assert lab.ledger_df()["quality_score"].tolist() == [1.0]


def test_evaluations_that_came_too_early_are_read_again(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "evaluations.json").write_text(json.dumps(logs(record(1, "relevance", 0.5))))
    assert lab.import_otel(tmp_path / "evaluations.json")["refused"] == 1
    lab.import_otel([otlp(span(1, CURRENT))])
    assert lab.import_otel(tmp_path / "evaluations.json")["evaluations"] == 1
    assert lab.ledger_df()["quality_score"].tolist() == [0.5]
    assert lab.import_otel(tmp_path / "evaluations.json")["unchanged_files"] == 1


def test_a_log_of_more_evaluations_than_can_wait_finds_the_calls_that_are_there(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otel, "PENDING_EVALUATIONS", 10)
    monkeypatch.setattr(otel, "JUDGED_AT_ONCE", 5)
    lab.import_otel([otlp(*(span(number, CURRENT) for number in range(40)))])
    report = lab.import_otel([logs(record(number, "tone", 0.5)) for number in range(40)])
    assert (report["evaluations"], report["refused"]) == (40, 0)
    assert lab.ledger_df()["quality_score"].tolist() == [0.5] * 40


def test_a_quality_that_was_set_in_the_lab_stays(lab: Lab) -> None:
    lab.record_usage(
        "gpt-4o", source="otel", source_id=f"{TRACE}:{1:016x}", quality_score=0.1, at="2026-05-01T12:00:00Z"
    )
    lab.import_otel([otlp(span(1, CURRENT, events=[evaluated("relevance", 0.8)])), logs(record(1, "tone", 1.0))])
    row = lab.ledger_df().iloc[0]
    assert (row["quality_score"], row["metadata"]["evaluation.tone"], row["input_tokens"]) == (0.1, 1.0, 812)


def test_scores_that_are_no_quality_and_calls_that_never_come_are_listed(lab: Lab) -> None:
    far = {"eventName": "gen_ai.evaluation.result", "attributes": pairs({"gen_ai.evaluation.score.value": 1})}
    report = lab.import_otel(
        [otlp(span(1, CURRENT, events=[evaluated("stars", 4)])), logs(record(9, "relevance", 0.5), far)]
    )
    assert (report["new"], report["refused"]) == (0, 3)
    reasons = "\n".join(report.refused_df()["reason"])
    for word in ("from 0 to 1", "is no call here", "without the span"):
        assert word in reasons


# Texts


@pytest.mark.parametrize(
    "attributes",
    [
        {
            "gen_ai.input.messages": json.dumps(
                [{"role": "user", "parts": [{"type": "text", "content": "Where is the crane?"}]}]
            ),
            "gen_ai.output.messages": json.dumps(
                [{"role": "assistant", "parts": [{"type": "text", "content": "At the harbour."}]}]
            ),
        },
        {
            "gen_ai.prompt.0.content": "Be kind.",
            "gen_ai.prompt.1.content": "Where is the crane?",
            "gen_ai.completion.0.content": "At the harbour.",
        },
        {
            "llm.input_messages.0.message.content": "Where is the crane?",
            "llm.output_messages.0.message.content": "At the harbour.",
        },
        {"input.value": "Where is the crane?", "output.value": "At the harbour."},
    ],
)
def test_messages_become_contexts_when_they_are_asked_for(lab: Lab, attributes: dict[str, Any]) -> None:
    document = [otlp(span(1, {**CURRENT, **attributes}))]
    assert lab.import_otel(document).get("contexts", 0) == 0
    assert lab.import_otel(document, store_texts=True)["contexts"] == 2
    assert {item.content for item in lab.list_contexts()} == {"Where is the crane?", "At the harbour."}


# What is broken


def test_broken_spans_are_listed_and_stop_nothing(lab: Lab, tmp_path: Path) -> None:
    broken = [
        span(2, CURRENT, traceId=""),
        span(3, CURRENT, spanId=None),
        span(4, {**CURRENT, "gen_ai.usage.input_tokens": -5}),
        span(5, {**CURRENT, "gen_ai.usage.input_tokens": "many"}),
        span(6, CURRENT, startTimeUnixNano="soon"),
        span(7, CURRENT, startTimeUnixNano="0"),
        span(8, CURRENT, startTimeUnixNano=str(START * 3)),
        span(9, {"gen_ai.operation.name": "chat"}),
        "no span",
        None,
    ]
    path = tmp_path / "traces.jsonl"
    lines = [
        json.dumps(otlp(*broken, span(1, CURRENT))),
        '"text"',
        "[1]",
        "{",
        '{"resourceSpans": 5}',
        '{"resourceMetrics": []}',
    ]
    path.write_text("\n".join(lines) + "\n" + json.dumps(otlp(span(10, CURRENT)))[:-30])
    report = lab.import_otel(path)
    assert (report["new"], report["refused"]) == (1, len(broken) + 4)
    assert lab.usage_df()["input_tokens"].sum() == 812


def test_the_list_of_names_has_none_twice() -> None:
    for places in otel_names.TOKENS.values():
        assert len(set(places)) == len(places)
    assert otel_names.operation({"traceloop.span.kind": "Task"}) == "task"


def test_what_is_remembered_of_spans_has_an_end(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otel, "REMEMBERED_SPANS", 10)
    lab.import_otel([otlp(*(span(number, CURRENT, parent=1_000 + number) for number in range(50)))])
    memory = lab._trace_memory
    assert max(len(memory.calls), len(memory.inner), len(memory.around)) == 10


# The live SDK


@pytest.fixture
def provider() -> Iterator[Any]:
    trace = pytest.importorskip("opentelemetry.sdk.trace", reason="needs the extra test")
    made = trace.TracerProvider()
    yield made
    made.shutdown()


def traced(provider: Any) -> None:
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span(
        "invoke_agent", attributes={"gen_ai.operation.name": "invoke_agent", "gen_ai.usage.input_tokens": 812}
    ):
        with tracer.start_as_current_span("gateway", attributes=OPENLLMETRY):
            with tracer.start_as_current_span("chat gpt-4o", attributes=CURRENT) as inner:
                inner.add_event(
                    "gen_ai.evaluation.result", {"gen_ai.evaluation.name": "tone", "gen_ai.evaluation.score.value": 0.5}
                )
        with tracer.start_as_current_span(
            "find", attributes={"gen_ai.operation.name": "retrieval", "gen_ai.retrieval.query.text": "crane"}
        ):
            pass
        with pytest.raises(TimeoutError), tracer.start_as_current_span("chat gpt-4o", attributes=DEPRECATED):
            raise TimeoutError("slow")


@pytest.mark.parametrize("processor", ["SimpleSpanProcessor", "BatchSpanProcessor"])
def test_every_call_of_a_traced_program_is_recorded(lab: Lab, provider: Any, processor: str) -> None:
    from opentelemetry.sdk.trace import export

    provider.add_span_processor(getattr(export, processor)(LabSpanExporter(lab)))
    traced(provider)
    assert provider.force_flush()
    frame = lab.ledger_df()
    assert len(frame) == 2
    good, failed = (frame[frame["success"] == flag].iloc[0] for flag in (True, False))
    assert (good["input_tokens"], good["output_tokens"], good["cache_read_tokens"]) == (812, 120, 400)
    assert good["quality_score"] == 0.5
    assert good["latency_ms"] >= 0
    assert (failed["error_type"], failed["model"]) == ("TimeoutError", "gpt-4o-2024-08-06")
    assert lab.searches_df()["query"].tolist() == ["crane"]


def test_what_the_sdk_wrote_to_a_file_is_the_same_as_what_it_exported(lab: Lab, provider: Any, tmp_path: Path) -> None:
    from opentelemetry.sdk.trace import export

    out = io.StringIO()
    console = export.ConsoleSpanExporter(out=out, formatter=lambda item: item.to_json(indent=None) + "\n")
    provider.add_span_processor(export.SimpleSpanProcessor(console))
    provider.add_span_processor(export.SimpleSpanProcessor(LabSpanExporter(lab)))
    traced(provider)
    before = lab.ledger_df()
    (tmp_path / "spans.jsonl").write_text(out.getvalue())
    report = lab.import_otel(tmp_path / "spans.jsonl")
    assert (report["new"], report["already_there"], report["updated"], report["searches"]) == (0, 2, 0, 0)
    pd.testing.assert_frame_equal(lab.ledger_df(), before)


def test_a_frame_of_spans_is_read(lab: Lab) -> None:
    rows = [
        {
            "context.trace_id": TRACE,
            "context.span_id": f"{number:016x}",
            "parent_id": None,
            "start_time": pd.Timestamp(START + number, tz="UTC"),
            "end_time": pd.Timestamp(START + 5 * 10**8, tz="UTC"),
            "status_code": "OK",
            "attributes.openinference.span.kind": "LLM",
            "attributes.llm.model_name": "gpt-4o",
            "attributes.llm.token_count.prompt": 812.0,
            "attributes.llm.token_count.completion": 120.0,
            "attributes.llm.cost.total": float("nan"),
            "events": [],
        }
        for number in range(3)
    ]
    report = lab.import_otel(pd.DataFrame(rows))
    assert (report["new"], report["refused"]) == (3, 0)
    assert lab.ledger_df()["latency_ms"].round().tolist() == [500, 500, 500]
    nested = {**rows[0], "context": {"trace_id": f"0x{TRACE}", "span_id": f"0x{0:016x}"}}
    nested["attributes"] = {
        "openinference": {"span": {"kind": "LLM"}},
        "llm": {"model_name": "gpt-4o", "token_count": {"prompt": 812, "completion": 120}},
    }
    assert lab.import_otel([nested])["already_there"] == 1


def test_an_exporter_that_cannot_record_warns_and_the_program_goes_on(lab: Lab, provider: Any) -> None:
    from opentelemetry.sdk.trace import export
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = LabSpanExporter(lab)
    lab.close()
    kept = InMemorySpanExporter()
    provider.add_span_processor(export.SimpleSpanProcessor(kept))
    with provider.get_tracer("test").start_as_current_span("chat", attributes=CURRENT):
        pass
    with pytest.warns(al.UnrecordedUsageWarning, match="1 spans were not recorded: LabClosed"):
        assert exporter.export(kept.get_finished_spans()) == export.SpanExportResult.FAILURE
    assert exporter.force_flush()
    exporter.shutdown()


def test_without_the_sdk_the_exporter_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import autom8_lab as al\n"
        "from autom8_lab.importers import LabSpanExporter\n"
        "try:\n    LabSpanExporter(al.open(':memory:', embedding_model='hash'))\n"
        "except al.LabError as exc:\n    print(exc)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'autom8_lab[otel]'" in result.stdout
