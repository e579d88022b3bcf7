"""How fast logs are imported, and in how much memory: a million JSON lines, again, and again with nothing new.

    python benchmarks/imports.py [--lines 1000000] [--seed 0]

Each import runs in a process of its own, whose peak of resident memory is printed; bars: 20,000 lines/s, 300 MB. On a
machine that does other work too, the rate by the processor's time tells what a quiet one would do.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

LINES_PER_SECOND, MEGABYTES = 20_000, 300
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
MODELS = ["claude-opus-4-5-20251101", "claude-sonnet-4-5-20250929", "claude-haiku-4-5-20251001"]
CHILD = """
import json, resource, sys, time
import autom8_lab as al
database, verb, path, options = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
with al.open(database, embedding_model="hash-64") as lab:
    started, worked = time.perf_counter(), time.process_time()
    report = getattr(lab, verb)(path, **options)
    taken, worked = time.perf_counter() - started, time.process_time() - worked
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    calls = int(lab.usage_df(by="source")["calls"].sum())  # which loads pandas
print(json.dumps({"seconds": taken, "cpu_seconds": worked, "peak_mb": peak, "calls": calls, "report": dict(report)}))
"""


def claude_code(count: int, draw: random.Random) -> Iterator[dict[str, Any]]:
    """Lines of a coding agent: about half of them repeat a message while it grows."""
    lines = message = 0
    while True:
        message += 1
        at = (BEGINNING + timedelta(seconds=7.1 * message)).isoformat().replace("+00:00", "Z")
        read, write, output = draw.randint(0, 150_000), draw.randint(0, 9_000), draw.randint(5, 2_000)
        repeats = draw.choice([1, 1, 2, 3, 4])
        for place in range(1, repeats + 1):
            usage = {
                "input_tokens": 3,
                "cache_creation_input_tokens": write,
                "cache_read_input_tokens": read,
                "output_tokens": output if place == repeats else place,
                "service_tier": "standard",
            }
            content = [{"type": "text", "text": "x" * draw.randint(20, 300)}]
            yield {
                "type": "assistant",
                "uuid": f"{lines:032x}",
                "timestamp": at,
                "sessionId": f"0aa6b1de-4e5e-4b5b-8a0e-{message // 200:012}",
                "requestId": f"req_{message:020}",
                "cwd": "/work/app",
                "version": "2.1.63",
                "gitBranch": "main",
                "isSidechain": False,
                "message": {
                    "id": f"msg_{message:024}",
                    "model": MODELS[message % 3],
                    "role": "assistant",
                    "content": content,
                    "stop_reason": None,
                    "usage": usage,
                },
            }
            lines += 1
            if lines == count:
                return


def table(count: int, draw: random.Random) -> Iterator[dict[str, Any]]:
    """Rows of a gateway, each with an id."""
    for number in range(count):
        yield {
            "id": f"call-{number:09}",
            "created_at": (BEGINNING + timedelta(seconds=number)).isoformat(),
            "model": "gpt-4o-mini",
            "provider": "openai",
            "prompt_tokens": draw.randint(10, 5_000),
            "completion_tokens": draw.randint(1, 900),
            "latency_ms": round(draw.lognormvariate(7, 0.6), 1),
            "status": "success",
        }


def codex(count: int, draw: random.Random) -> Iterator[dict[str, Any]]:
    """Lines of a coding agent's session, of which every fourth tells of a call."""
    names = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_output_tokens")
    totals = dict.fromkeys(names, 0)
    for number in range(count):
        at = (BEGINNING + timedelta(seconds=2.3 * number)).isoformat().replace("+00:00", "Z")
        if number == 0:
            payload = {"id": f"{draw.getrandbits(128):032x}", "cwd": "/home/ada/app", "cli_version": "0.145.0"}
            yield {"timestamp": at, "type": "session_meta", "payload": {**payload, "model_provider": "openai"}}
        elif number == 1:
            yield {"timestamp": at, "type": "turn_context", "payload": {"model": "gpt-5.1-codex", "turn_id": "t-1"}}
        elif number % 4:
            text = [{"type": "output_text", "text": "x" * draw.randint(20, 600)}]
            item = {"type": "message", "role": "assistant", "content": text}
            yield {"timestamp": at, "type": "response_item", "payload": item}
        else:
            read, output = draw.randint(0, 150_000), draw.randint(5, 2_000)
            call = dict(zip(names, (read + draw.randint(1, 9_000), read, output, output // 3), strict=True))
            totals = {name: totals[name] + call[name] for name in names}
            info = {"total_token_usage": totals, "last_token_usage": call, "model_context_window": 272_000}
            payload = {"type": "token_count", "info": info, "rate_limits": {"primary": {"used_percent": 5.0}}}
            yield {"timestamp": at, "type": "event_msg", "payload": payload}


def litellm(count: int, draw: random.Random) -> Iterator[dict[str, Any]]:
    """Rows of LiteLLM's SpendLogs, as a database exports them: the details are JSON in a text."""
    for number in range(count):
        begun = BEGINNING + timedelta(seconds=number)
        took = timedelta(milliseconds=round(draw.lognormvariate(7, 0.6)))
        input_tokens, output_tokens = draw.randint(10, 5_000), draw.randint(1, 900)
        usage = {
            "prompt_tokens": input_tokens,
            "completion_tokens": output_tokens,
            "total_tokens": input_tokens + output_tokens,
            "prompt_tokens_details": {"cached_tokens": input_tokens // 2, "audio_tokens": None},
            "completion_tokens_details": {"reasoning_tokens": output_tokens // 3},
        }
        details = {"usage_object": usage, "user_api_key_alias": "core", "status": "success"}
        yield {
            "request_id": f"chatcmpl-{number:032x}",
            "call_type": "acompletion",
            "spend": round(draw.uniform(0.0001, 0.02), 6),
            "total_tokens": input_tokens + output_tokens,
            "prompt_tokens": input_tokens,
            "completion_tokens": output_tokens,
            "startTime": begun.strftime("%Y-%m-%d %H:%M:%S.000"),
            "endTime": (begun + took).isoformat(" ", "milliseconds").removesuffix("+00:00"),
            "completionStartTime": (begun + took / 4).isoformat(" ", "milliseconds").removesuffix("+00:00"),
            "model": "gpt-4o-mini",
            "model_group": "small",
            "custom_llm_provider": "openai",
            "user": "default_user",
            "metadata": json.dumps(details),
            "cache_hit": "False",
            "request_tags": '["batch", "night"]',
            "team_id": "team-1",
            "session_id": f"s-{number // 50}",
            "status": "success",
        }


def otlp(count: int, draw: random.Random) -> Iterator[dict[str, Any]]:
    """Lines of a collector, a span on each."""
    for number in range(count):
        begun = int((BEGINNING + timedelta(seconds=number)).timestamp()) * 10**9
        given = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4o-mini",
        }
        counts = {
            "gen_ai.usage.input_tokens": draw.randint(10, 5_000),
            "gen_ai.usage.output_tokens": draw.randint(1, 900),
        }
        attributes = [{"key": key, "value": {"stringValue": value}} for key, value in given.items()]
        attributes += [{"key": key, "value": {"intValue": str(value)}} for key, value in counts.items()]
        span = {
            "traceId": f"{number:032x}",
            "spanId": f"{number:016x}",
            "name": "chat gpt-4o-mini",
            "startTimeUnixNano": str(begun),
            "endTimeUnixNano": str(begun + draw.randint(10**8, 10**10)),
            "attributes": attributes,
            "status": {},
        }
        resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
        yield {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "sdk"}, "spans": [span]}]}]}


def imported(database: Path, verb: str, path: Path, **options: Any) -> dict[str, Any]:
    command = [sys.executable, "-c", CHILD, str(database), verb, str(path), json.dumps(options)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def show(name: str, lines: int, found: dict[str, Any]) -> None:
    rate, cpu_rate, peak = lines / found["seconds"], lines / found["cpu_seconds"], found["peak_mb"]
    verdicts = [
        f"{label} {'ok' if good else 'MISSED'}"
        for label, good in (("rate", rate >= LINES_PER_SECOND), ("memory", peak <= MEGABYTES))
    ]
    rates = f"{found['seconds']:7.1f} s {rate:11,.0f} lines/s ({cpu_rate:,.0f} by CPU time)"
    print(f"  {name:<34} {rates}  peak {peak:4.0f} MB  ({', '.join(verdicts)})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sources: dict[str, tuple[Callable[[int, random.Random], Iterator[dict[str, Any]]], dict[str, Any]]] = {
        "import_claude_code": (claude_code, {}),
        "import_codex": (codex, {}),
        "import_litellm": (litellm, {}),
        "import_rows": (table, {"mapping": "guess"}),
        "import_otel": (otlp, {}),
    }
    for verb, (make, given) in sources.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "log.jsonl")
            with path.open("w") as file:
                file.writelines(json.dumps(line) + "\n" for line in make(options.lines, random.Random(options.seed)))
            print(f"{verb}: {options.lines:,} lines, {path.stat().st_size / 1e6:,.0f} MB")
            database = Path(folder, "lab.db")
            first = imported(database, verb, path, **given)
            show(f"the first time: {first['calls']:,} calls", options.lines, first)
            again = imported(database, verb, path, **given, resume=False)
            show("again, every line read", options.lines, again)
            assert again["calls"] == first["calls"]
            assert again["report"]["new"] == again["report"]["updated"] == 0
            unchanged = imported(database, verb, path, **given)
            assert unchanged["report"]["unchanged_files"] == 1
            print(f"  again, nothing new {unchanged['seconds']:23.1f} s")


if __name__ == "__main__":
    main()
