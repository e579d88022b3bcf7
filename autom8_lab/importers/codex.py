"""Codex's session logs: ~/.codex/sessions/**/rollout-*.jsonl.

A `token_count` event follows each call, and may be repeated. The log of a forked session or sub-agent begins with a
copy of its parent's events, some with new times. A copy is known by what it says: the running totals of its family of
sessions and the counts of its call.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidValue
from .files import lines, log_files, opened
from .jobs import Format, Reader
from .recording import Entry
from .values import at, count, first, instant, labels, last_part, parsed, text, token_counts

if TYPE_CHECKING:
    from .files import Paths

SOURCE = "codex"
ENDINGS = (".jsonl",)
COUNTS = ("input_tokens", "cached_input_tokens", "cache_write_input_tokens", "output_tokens", "reasoning_output_tokens")
HEAD_LINES = 5
UUID_7 = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-", re.IGNORECASE)


def default_paths() -> list[Path]:
    """Return the folders where Codex keeps its logs on this machine."""
    home = Path(os.environ.get("CODEX_HOME") or "~/.codex").expanduser()
    return [home / "sessions", home / "archived_sessions"]


def parent_of(meta: Any) -> str | None:
    """Return the session that a `session_meta` payload says it came from."""
    spawned = at(meta, "source", "subagent", "thread_spawn", "parent_thread_id")
    found = first(at(meta, "forked_from_id"), at(meta, "parent_thread_id"), spawned)
    return found if isinstance(found, str) else None


def parents_in(paths: Paths) -> dict[str, str]:
    """Return the parent of each forked session among the files, from their first lines."""
    parents = {}
    for path in log_files(paths, endings=ENDINGS):
        try:
            with opened(path) as file:
                meta = _first_meta(file)
        except InvalidValue:
            continue  # the import itself will say so
        if meta is not None and (parent := parent_of(meta)) and isinstance(meta.get("id"), str):
            parents[meta["id"]] = parent
    return parents


def _first_meta(file: Any) -> Mapping[str, Any] | None:
    for line in lines(file):
        if line.content is not None and b'"session_meta"' in line.content:
            record = parsed(line.content)
            payload = at(record, "payload")
            return payload if isinstance(payload, dict) else None
        if line.number >= HEAD_LINES:
            return None
    return None


class SessionReader:
    """Reads one session's events in order."""

    def __init__(self, parents: dict[str, str], name: str) -> None:
        self.metadata: dict[str, Any] = {}
        self._parents = parents
        self._name = name  # for a file that does not say whose it is
        self._session: Mapping[str, Any] = {}
        self._model: str | None = None
        self._turn: str | None = None
        self._totals: dict[str, int] = {}

    def __call__(self, record: Any) -> Iterator[Entry]:
        """Yield the call that a line tells of, if it does."""
        kind, payload = at(record, "type"), at(record, "payload")
        if not isinstance(payload, dict):
            return
        if kind == "session_meta":
            parent = parent_of(payload)
            if parent is not None:
                self._parents[str(payload.get("id"))] = parent
            if not self._session:  # the others are its ancestors'
                self._session = payload
                self.metadata = {"session": payload.get("id"), "parent": parent} if parent else {}
        elif kind == "turn_context":
            self._model = text(payload.get("model"), "model") or self._model
            self._turn = first(payload.get("turn_id"), self._turn)
        elif kind == "event_msg" and payload.get("type") == "task_started":
            self._turn = first(payload.get("turn_id"), self._turn)
        elif kind == "event_msg" and payload.get("type") == "token_count":
            info = payload.get("info")
            if isinstance(info, dict):
                yield from self._entry(record, info)

    def _entry(self, record: Mapping[str, Any], info: Mapping[str, Any]) -> Iterator[Entry]:
        totals = _counts(info.get("total_token_usage"), limited=False)
        call = _counts(info.get("last_token_usage"))
        before, self._totals = self._totals, totals or self._totals
        if not call and totals:
            call = {name: value - before.get(name, 0) for name, value in totals.items()}
            call = totals if min(call.values()) < 0 else call
        if not any(call.values()):
            return
        meta, child = self._session, parent_of(self._session) is not None
        row = {
            "source": SOURCE,
            "source_id": f"{self._owner()}:{_digest(totals, call)}",
            "at": instant(record.get("timestamp"), "timestamp"),
            "provider": text(meta.get("model_provider"), "model_provider") or "openai",
            "model": text(info.get("model"), "model") or self._model or "unknown",
            "operation": "chat",
            "agent": "codex:subagent" if child else "codex",
            **token_counts(
                input_tokens=call.get("input_tokens"),
                output_tokens=call.get("output_tokens"),
                cache_read_tokens=call.get("cached_input_tokens"),
                cache_write_tokens=call.get("cache_write_input_tokens"),
                reasoning_tokens=call.get("reasoning_output_tokens"),
            ),
            "metadata": labels(
                session=meta.get("id"),
                project=last_part(meta.get("cwd")),
                branch=at(meta, "git", "branch"),
                version=meta.get("cli_version"),
            ),
        }
        yield Entry(row)

    def _owner(self) -> str:
        """Return the session in which the call was made, here or in the one that this part was copied from.

        Sessions and turns have ids that begin with a time (UUID version 7): a turn belongs to the youngest session of
        its line that is older than it. Where they do not tell, the first session stands for all of its family.
        """
        line = [str(self._session.get("id") or self._name)]
        parent = parent_of(self._session)
        while parent is not None and parent not in line:
            line.append(parent)
            parent = self._parents.get(parent)
        begun = _time_of(self._turn)
        older = [session for session in line if begun and (time := _time_of(session)) and time <= begun]
        return older[0] if older else line[-1]


def _time_of(name: Any) -> int | None:
    """Return the milliseconds since 1970 in an id of UUID version 7, None for any other."""
    found = UUID_7.match(name) if isinstance(name, str) else None
    return int(found[1] + found[2], 16) if found else None


def _counts(given: Any, *, limited: bool = True) -> dict[str, int]:
    if not isinstance(given, dict):
        return {}
    # Totals run over a whole session, so that the limit of one call does not hold for them.
    found = {name: count(given.get(name), name) if limited else given.get(name) for name in COUNTS}
    return {name: value for name, value in found.items() if isinstance(value, int)}


def _digest(totals: Mapping[str, int], call: Mapping[str, int]) -> str:
    return hashlib.sha256(json.dumps([totals, call], sort_keys=True).encode()).hexdigest()[:24]


def form(paths: Paths, remembered: Iterable[Mapping[str, Any]]) -> Format:
    """Return how these files are read; `remembered` is what earlier imports knew of the sessions' parents."""
    parents = {entry["session"]: entry["parent"] for entry in remembered if entry.get("parent")} | parents_in(paths)

    def reader(path: Path) -> Reader:
        return SessionReader(parents, path.name.partition(".")[0])

    needles = (b'"token_count"', b'"turn_context"', b'"session_meta"', b'"task_started"')
    return Format(SOURCE, ENDINGS, reader, needles=needles, resumable=False)
