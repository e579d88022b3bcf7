"""What hostile logs may contain, for every importer that reads lines: a report, never a traceback or a wrong sum."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from autom8_lab.lab import Lab

NANOSECONDS = 1_777_636_800 * 10**9  # 2026-05-01T12:00:00Z
ABSURD = 10**12


@dataclass(frozen=True)
class Source:
    """An importer of lines. A line's text has the tokens of `tokens(number)` and the time `time(number)` as they stand."""

    verb: str
    line: Callable[[int], str]
    head: tuple[str, ...] = ()
    options: tuple[tuple[str, Any], ...] = (("resume", False),)
    nanoseconds: bool = False

    def tokens(self, number: int) -> int:
        return 70_001 + number

    def time(self, number: int) -> str:
        return str(NANOSECONDS + number * 10**9) if self.nanoseconds else f"2026-05-01T12:00:{number:02}Z"

    def at(self, year: int) -> str:
        return str((pd.Timestamp(f"{year}-01-01", tz="UTC")).value) if self.nanoseconds else f"{year}-01-01T00:00:00Z"


def moment(number: int) -> str:
    return f"2026-05-01T12:00:{number:02}Z"


def claude_code(number: int) -> str:
    usage = {"input_tokens": 70_001 + number, "output_tokens": 5}
    message = {"id": f"msg_{number:024}", "model": "claude-sonnet-4-5", "content": "said", "usage": usage}
    return json.dumps({"type": "assistant", "timestamp": moment(number), "sessionId": "s", "message": message})


def codex(number: int) -> str:
    info = {"last_token_usage": {"input_tokens": 70_001 + number, "output_tokens": 5}}
    return json.dumps(
        {"type": "event_msg", "timestamp": moment(number), "payload": {"type": "token_count", "info": info}}
    )


CODEX_HEAD = (
    '{"type": "session_meta", "payload": {"id": "s-1", "model_provider": "openai"}}',
    '{"type": "turn_context", "payload": {"model": "gpt-5.1-codex"}}',
)


def litellm(number: int) -> str:
    row = {"request_id": f"chatcmpl-{number:020}", "startTime": moment(number), "model": "gpt-4o", "status": "success"}
    return json.dumps({**row, "prompt_tokens": 70_001 + number, "completion_tokens": 5})


def rows(number: int) -> str:
    row = {"id": f"call-{number}", "created": moment(number), "model": "gpt-4o"}
    return json.dumps({**row, "prompt_tokens": 70_001 + number, "completion_tokens": 5})


def billing(number: int) -> str:
    line = {"date": moment(number), "model": "gpt-4o", "description": f"batch {number}", "cost_usd": 0.5}
    return json.dumps({**line, "input_tokens": 70_001 + number})


def otel(number: int) -> str:
    texts = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o"}
    counts = {"gen_ai.usage.input_tokens": 70_001 + number, "gen_ai.usage.output_tokens": 5}
    attributes = [{"key": key, "value": {"stringValue": value}} for key, value in texts.items()]
    attributes += [{"key": key, "value": {"intValue": str(value)}} for key, value in counts.items()]
    span = {"traceId": f"{number + 1:032x}", "spanId": f"{number + 1:016x}", "attributes": attributes}
    span["startTimeUnixNano"] = str(NANOSECONDS + number * 10**9)
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})


SOURCES = {
    "claude_code": Source("import_claude_code", claude_code),
    "codex": Source("import_codex", codex, head=CODEX_HEAD),
    "litellm": Source("import_litellm", litellm),
    "rows": Source("import_rows", rows, options=(("mapping", "guess"), ("resume", False))),
    "otel": Source("import_otel", otel, nanoseconds=True),
    "billing": Source("import_billing", billing, options=(("provider", "openai"),)),
}


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest) -> Source:
    return SOURCES[request.param]


def imported(lab: Lab, source: Source, folder: Path, lines: list[str | bytes], *, end: str = "\n") -> Any:
    path = folder / "log.jsonl"
    given = [line.encode() if isinstance(line, str) else line for line in (*source.head, *lines)]
    path.write_bytes(b"\n".join(given) + end.encode())
    return getattr(lab, source.verb)(path, **dict(source.options))


def input_tokens(lab: Lab, source: Source) -> list[int]:
    """What was recorded, line by line, wherever it is kept."""
    if source.verb == "import_billing":
        with lab.connection() as database:
            return [row["input_tokens"] for row in database["billing"].rows_where(order_by="at")]
    return [int(value) for value in lab.ledger_df().sort_values("at")["input_tokens"]]


def spoilt(name: str, source: Source, line: str) -> str | bytes:
    """Return a line of call 1 that nobody can use."""
    tokens = str(source.tokens(1))
    time = source.time(1)
    longer: dict[str, Callable[[], str | bytes]] = {
        "nested 10,000 deep": lambda: line[:-1] + ', "extra": ' + "[" * 10_000 + "]" * 10_000 + "}",
        "a key twice": lambda: line[:-1] + ', "extra": 1, "extra": 2}',
        "the counted key twice": lambda: (
            line.replace(tokens, f'{tokens}", "intValue": "1')
            if source.nanoseconds
            else line.replace(f"{tokens}", f'{tokens}, "{_key(line, tokens)}": 1')
        ),
        "17 MB": lambda: line[:-1] + ', "extra": "' + "x" * 17_000_000 + '"}',
        "negative tokens": lambda: line.replace(tokens, f"-{tokens}"),
        "absurd tokens": lambda: line.replace(tokens, "9" * (20 if source.verb == "import_billing" else 12)),
        "tokens of 5,000 digits": lambda: line.replace(tokens, "9" * 5_000),
        "half a token": lambda: line.replace(tokens, f"{tokens}.5"),
        "infinite tokens": lambda: line.replace(tokens, "Infinity"),
        "a clock in the future": lambda: line.replace(time, source.at(2199)),
        "an unset clock": lambda: line.replace(time, source.at(1970)),
        "no time": lambda: line.replace(time, ""),
        "a time that is none": lambda: line.replace(time, "soon"),
        "the rest of a line lost": lambda: line[:-4],
        "bytes that are no text": lambda: b'{"usage": \xff\xfe\x00\x01 "token_count"',
        "a model that is no UTF-8": lambda: (
            line.encode().replace(b'"gpt-', b'"\xff\xfe').replace(b'"claude-', b'"\xff')
        ),
    }
    return longer[name]()


def _key(line: str, value: str) -> str:
    return line[: line.index(value)].rsplit('"', 2)[1]


HOSTILE = (
    "nested 10,000 deep",
    "a key twice",
    "the counted key twice",
    "17 MB",
    "negative tokens",
    "absurd tokens",
    "tokens of 5,000 digits",
    "half a token",
    "infinite tokens",
    "a clock in the future",
    "an unset clock",
    "no time",
    "a time that is none",
    "the rest of a line lost",
    "bytes that are no text",
    "a model that is no UTF-8",
)
# A bill counts the tokens of many calls, and may be rounded; Codex's log tells the model elsewhere.
HARMLESS = {("billing", "half a token"), ("codex", "a model that is no UTF-8")}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in SOURCES for name in HOSTILE if (kind, name) not in HARMLESS]
)
def test_a_hostile_line_is_listed_and_the_others_are_counted(lab: Lab, tmp_path: Path, kind: str, name: str) -> None:
    source = SOURCES[kind]
    report = imported(lab, source, tmp_path, [source.line(0), spoilt(name, source, source.line(1)), source.line(2)])
    assert (report["new"], report["refused"]) == (2, 1), report
    assert input_tokens(lab, source) == [source.tokens(0), source.tokens(2)]
    (refused,) = report.refused_df().to_dict("records")
    assert (refused["file"], refused["place"]) == ("log.jsonl", f"line {2 + len(source.head)}")
    assert len(refused["reason"]) < 500


def test_a_truncated_last_line_is_listed_as_that(lab: Lab, tmp_path: Path, source: Source) -> None:
    report = imported(lab, source, tmp_path, [source.line(0), source.line(1)[:-20]], end="")
    assert (report["new"], report["refused"]) == (1, 1)
    assert "the file ends within this line" in report.refused_df()["reason"].iloc[0]
    assert input_tokens(lab, source) == [source.tokens(0)]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_and_utf_16_are_read(lab: Lab, tmp_path: Path, source: Source, encoding: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes("\r\n".join([*source.head, *map(source.line, range(3))]).encode(encoding))
    report = getattr(lab, source.verb)(path, **dict(source.options))
    assert (report["new"], report["refused"]) == (3, 0)
    assert input_tokens(lab, source) == [source.tokens(number) for number in range(3)]


def test_a_text_in_another_encoding_spoils_no_count(lab: Lab, tmp_path: Path, source: Source) -> None:
    mixed = source.line(1)[:-1].encode() + ', "note": "café"}'.encode("latin-1")
    report = imported(lab, source, tmp_path, [source.line(0), mixed, source.line(2)])
    assert (report["new"], report["refused"]) == (3, 0)
    assert input_tokens(lab, source) == [source.tokens(number) for number in range(3)]


def test_the_same_file_twice_and_a_line_twice_are_counted_once(lab: Lab, tmp_path: Path, source: Source) -> None:
    lines: list[str | bytes] = [source.line(0), source.line(1)]
    imported(lab, source, tmp_path, lines)
    again = imported(lab, source, tmp_path, lines)
    assert (again["new"], again["updated"]) == (0, 0)
    assert input_tokens(lab, source) == [source.tokens(0), source.tokens(1)]
    if source.verb != "import_billing":  # two equal lines of a bill are two charges
        report = imported(lab, source, tmp_path, [*lines, source.line(1), source.line(2)])
        assert report["new"] == 1
        assert input_tokens(lab, source) == [source.tokens(number) for number in range(3)]


def test_an_id_that_another_source_has_too_is_another_call(lab: Lab, tmp_path: Path, source: Source) -> None:
    if source.verb == "import_billing":
        lines = [json.loads(source.line(0))]
        for provider in ("openai", "another"):
            assert lab.import_billing(lines, provider=provider)["new"] == 1
        assert input_tokens(lab, source) == [source.tokens(0)] * 2
        return
    imported(lab, source, tmp_path, [source.line(0)])
    (known,) = lab.ledger_df()["source_id"]
    lab.record_usage("gpt-4o", source="elsewhere", source_id=known, input_tokens=1, output_tokens=1, at=moment(9))
    report = imported(lab, source, tmp_path, [source.line(0), source.line(1)])
    assert (report["new"], report["updated"]) == (1, 0)
    assert input_tokens(lab, source) == [source.tokens(0), source.tokens(1), 1]


def test_a_text_whose_call_is_refused_is_not_kept(lab: Lab, tmp_path: Path) -> None:
    lines = [claude_code(0), claude_code(1).replace("msg_", "msg\\u0007_")]
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(lines) + "\n")
    report = lab.import_claude_code(path, store_texts=True)
    assert (report["new"], report["refused"], report["contexts"]) == (1, 1, 1)
    assert "control character" in report.refused_df().loc[0, "reason"]
