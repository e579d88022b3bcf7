"""Claude Code's session logs: ~/.claude/projects/**/*.jsonl, those of sub-agents included.

A message is written several times while it streams, once for each of its parts, and again into other files when a
session is resumed or a sub-agent reports: all with the same `message.id`, the last with the most output tokens.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .jobs import Format, Reader
from .recording import Entry
from .values import REMEMBERED_CHARS, at, first, instant, labels, last_part, text, token_counts

SOURCE = "claude-code"
SYNTHETIC = "<synthetic>"  # what Claude Code itself says, without a call
WORLDWIDE_ID_CHARS = 16  # shorter ids, of gateways in between, begin anew in each session


def default_paths() -> list[Path]:
    """Return the folders where Claude Code keeps its logs on this machine."""
    configured = os.environ.get("CLAUDE_CONFIG_DIR")
    places = configured.split(",") if configured else ["~/.claude", "~/.config/claude"]
    return [Path(place.strip()).expanduser() / "projects" for place in places]


def read(record: Any) -> Iterator[Entry]:
    """Yield the call that a line tells of, if it does."""
    if not isinstance(record, dict):
        return
    kind = record.get("type")
    if kind == "progress":  # a sub-agent's message, as its parent sees it
        inner = at(record, "data", "message")
        if isinstance(inner, dict) and inner.get("type") == "assistant":
            yield from read({**record, **inner, "isSidechain": True, "agentId": at(record, "data", "agentId")})
    elif kind == "assistant":
        message = record.get("message")
        usage = at(message, "usage")
        if isinstance(message, dict) and isinstance(usage, dict) and message.get("model") != SYNTHETIC:
            yield _entry(record, message, usage)


def _entry(record: Mapping[str, Any], message: Mapping[str, Any], usage: Mapping[str, Any]) -> Entry:
    sidechain = bool(record.get("isSidechain"))
    hour = at(usage, "cache_creation", "ephemeral_1h_input_tokens")
    row = {
        "source": SOURCE,
        "source_id": _identity(record, message),
        "at": instant(record.get("timestamp"), "timestamp"),
        "provider": "anthropic" if str(message.get("model")).startswith("claude") else None,
        "model": text(message.get("model"), "model"),
        "operation": "chat",
        "agent": "claude-code:subagent" if sidechain else "claude-code",
        **token_counts(
            input_tokens=usage.get("input_tokens"),
            output_tokens=usage.get("output_tokens"),
            cache_read_tokens=usage.get("cache_read_input_tokens"),
            cache_write_tokens=usage.get("cache_creation_input_tokens"),
            input_without_cache=True,
        ),
        "metadata": _about(
            record.get("sessionId"),
            record.get("cwd"),
            record.get("gitBranch"),
            record.get("agentId"),
            record.get("version"),
            usage.get("service_tier"),
            hour if isinstance(hour, int) and hour > 0 else None,
        ),
    }
    return Entry(row, {"response": message.get("content")})


def _about(*told: Any) -> dict[str, Any]:
    """Return what is known about a call besides its counts; calls of one session share it."""
    if sum([len(value) for value in told if type(value) is str]) > REMEMBERED_CHARS:
        return _shared.__wrapped__(*told)
    try:
        return _shared(*told)
    except TypeError:  # something that is no text, and cannot be looked up either
        return _shared(*(value if isinstance(value, str | int) else None for value in told))


@functools.lru_cache(maxsize=1_024)
def _shared(
    session: Any, folder: Any, branch: Any, agent_id: Any, version: Any, tier: Any, hour: Any
) -> dict[str, Any]:
    return labels(
        session=session,
        project=last_part(folder),
        branch=branch,
        agent_id=agent_id,
        version=version,
        service_tier=tier,
        cache_write_1h_tokens=hour,
    )


def _identity(record: Mapping[str, Any], message: Mapping[str, Any]) -> str | None:
    name = text(message.get("id"), "message.id")
    if name is None:
        return text(first(record.get("requestId"), record.get("uuid")), "uuid")
    if len(name) >= WORLDWIDE_ID_CHARS:
        return name
    return f"{text(first(record.get('requestId'), record.get('sessionId'), ''), 'sessionId') or ''}:{name}"


def _reader(path: Path) -> Reader:
    return read


FORMAT = Format(SOURCE, (".jsonl",), _reader, needles=(b'"usage"',))
