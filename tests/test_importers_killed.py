"""Imports that are killed in the middle (SIGKILL) and repeated: everything is there once, as if nothing had happened."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sqlite_utils import Database

import autom8_lab as al
from autom8_lab.lab import Lab

COUNT = 12_000
BEGINNING = datetime(2026, 5, 1, tzinfo=UTC)

IMPORT = """
import sys, autom8_lab as al
from autom8_lab.importers import recording
recording.BATCH_ROWS = 50
with al.open(sys.argv[1], embedding_model="hash-64") as lab:
    print("begin", flush=True)
    getattr(lab, sys.argv[2])(sys.argv[3])
print("end", flush=True)
"""


def jsonl(path: Path, values: list[Any]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def claude_code(folder: Path) -> Path:
    def line(number: int) -> dict[str, Any]:
        usage = {"input_tokens": 9, "cache_read_input_tokens": number, "output_tokens": 1 + number % 2 * 100}
        message = {"id": f"msg_{number // 2:024}", "model": "claude-sonnet-4-5", "usage": usage}
        return {"type": "assistant", "timestamp": "2026-05-01T12:00:00Z", "sessionId": "s", "message": message}

    return jsonl(folder / "log.jsonl", [line(number) for number in range(COUNT)])


def litellm(folder: Path) -> Path:
    row = {"model": "gpt-4o-mini", "custom_llm_provider": "openai", "status": "success", "spend": 0.01}
    rows = [
        {
            **row,
            "request_id": f"chatcmpl-{number:020}",
            "startTime": (BEGINNING + timedelta(seconds=number)).isoformat(),
            "prompt_tokens": number,
            "completion_tokens": 5,
        }
        for number in range(COUNT)
    ]
    return jsonl(folder / "log.jsonl", rows)


def llm_logs(folder: Path) -> Path:
    row = {"model": "gpt-4o-mini", "prompt": "Say hi", "response": "Hi", "conversation_id": "c", "duration_ms": 843}
    rows = [
        {
            **row,
            "id": f"{number:026}",
            "datetime_utc": (BEGINNING + timedelta(seconds=number)).isoformat(),
            "input_tokens": number,
            "output_tokens": 5,
        }
        for number in range(COUNT)
    ]
    with Database(folder / "logs.db") as database:
        database.table("responses").insert_all(rows, pk="id")
    return folder / "logs.db"


def attributes(given: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}
        for key, value in given.items()
    ]


def otel(folder: Path) -> Path:
    """Calls, each within a client's span that says the same, every fifth judged, with a retrieval after it."""
    lines = []
    for number in range(COUNT // 4):
        begun = (int(BEGINNING.timestamp()) + number) * 10**9
        usage = {"gen_ai.usage.input_tokens": 10 + number, "gen_ai.usage.output_tokens": 5}
        call = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o", **usage}
        names = [f"{4 * number + part + 1:016x}" for part in range(3)]
        shared = {
            "traceId": f"{number + 1:032x}",
            "startTimeUnixNano": str(begun),
            "endTimeUnixNano": str(begun + 10**9),
        }
        inner = {**shared, "spanId": names[0], "parentSpanId": names[1], "attributes": attributes(call)}
        outer = {**shared, "spanId": names[1], "attributes": attributes(call)}
        lines += [inner, outer]
        if number % 5 == 0:
            score = attributes({"gen_ai.evaluation.name": "tone", "gen_ai.evaluation.score.label": "pass"})
            inner["events"] = [{"name": "gen_ai.evaluation.result", "attributes": score}]
            asked = {"gen_ai.operation.name": "retrieval", "gen_ai.retrieval.query.text": f"crane {number}"}
            lines.append({**shared, "spanId": names[2], "attributes": attributes(asked)})
    documents = [{"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]} for span in lines]
    return jsonl(folder / "traces.jsonl", documents)


def state(lab: Lab) -> dict[str, pd.DataFrame]:
    searches = lab.searches_df(limit=COUNT).drop(columns="access_id")
    return {
        "calls": lab.ledger_df().sort_values("source_id", ignore_index=True).drop(columns="usage_key"),
        "searches": searches.sort_values("query", ignore_index=True),
        "usage": lab.usage_df(by="source"),
    }


@pytest.mark.parametrize("make", [claude_code, litellm, llm_logs, otel])
def test_an_import_that_was_killed_and_repeated_ends_as_a_whole_one(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    path, verb = make(tmp_path), f"import_{make.__name__}"
    with al.open(tmp_path / "whole.db", embedding_model="hash-64") as lab:
        whole = getattr(lab, verb)(path)
        expected = state(lab)
    assert (whole["refused"], whole.get("searches", 0)) == (0, COUNT // 20 if make is otel else 0)
    assert len(expected["searches"]) == whole.get("searches", 0)
    target = tmp_path / "killed.db"
    command = [sys.executable, "-c", IMPORT, str(target), verb, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begin\n"
    with al.open(target, embedding_model="hash-64") as lab:
        deadline = time.monotonic() + 60
        while not len(lab.ledger_df(limit=1)) and time.monotonic() < deadline:
            time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.stdout.read() == ""
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    with al.open(target, embedding_model="hash-64") as lab:
        before = len(lab.ledger_df())
        assert 0 < before < len(expected["calls"])
        report = getattr(lab, verb)(path)
        assert report["new"] == len(expected["calls"]) - before
        found = state(lab)
        for name, frame in expected.items():
            pd.testing.assert_frame_equal(found[name], frame)
        assert lab.check().empty
        again = getattr(lab, verb)(path)
        assert (again["new"], again["updated"]) == (0, 0)
