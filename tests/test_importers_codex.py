"""Codex's logs: each call once, whatever forks and sub-agents copied of it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import autom8_lab as al
from autom8_lab.lab import Lab

BOTH_BACKENDS = True

ROOT, CHILD, GRANDCHILD = (f"019f6249-055d-76d3-b381-cd9d3eb9918{number}" for number in range(3))


def event(payload: dict[str, Any], *, kind: str = "event_msg", at: str = "2026-07-14T20:19:40.000Z") -> dict[str, Any]:
    return {"timestamp": at, "type": kind, "payload": payload}


def meta(session: str, parent: str | None = None, **given: Any) -> dict[str, Any]:
    payload = {
        "id": session,
        "cwd": "/work/app",
        "cli_version": "0.145.0",
        "model_provider": "openai",
        "forked_from_id": parent,
    }
    return event({**payload, **given}, kind="session_meta")


def turn(model: str = "gpt-5.1-codex", name: str | None = None) -> dict[str, Any]:
    return event({"model": model, "cwd": "/work/app", "turn_id": name}, kind="turn_context")


def counts(values: tuple[int, int, int, int]) -> dict[str, int]:
    names = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_output_tokens")
    return {**dict(zip(names, values, strict=True)), "total_tokens": values[0] + values[2]}


def used(
    *calls: tuple[int, int, int, int], second: int = 0, totals: Iterable[int] = (0, 0, 0, 0)
) -> list[dict[str, Any]]:
    """Return the token_count events of calls, each with the totals up to it."""
    events, total = [], tuple(totals)
    for number, call in enumerate(calls):
        total = tuple(map(sum, zip(total, call, strict=True)))
        info = {"total_token_usage": counts(total), "last_token_usage": counts(call), "model_context_window": 272_000}  # type: ignore[arg-type]
        at = f"2026-07-14T20:{20 + second:02}:{number:02}.000Z"
        events.append(event({"type": "token_count", "info": info, "rate_limits": {"used_percent": 5}}, at=at))
    return events


def restamped(events: Iterable[dict[str, Any]], at: str) -> list[dict[str, Any]]:
    return [{**item, "timestamp": at} for item in events]


def rollout(folder: Path, session: str, records: Iterable[Any], *, day: int = 14) -> Path:
    path = folder / "2026" / "07" / f"{day}" / f"rollout-2026-07-{day}T20-19-40-{session}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


A, B, C = (9_035, 4_000, 120, 64), (12_000, 9_000, 300, 0), (15_000, 11_000, 80, 10)
PARENT = [meta(ROOT), turn(), *used(A, B)]
AFTER = (21_035, 13_000, 420, 64)


def test_each_call_is_one_row_with_its_classes(lab: Lab, tmp_path: Path) -> None:
    report = lab.import_codex(rollout(tmp_path, ROOT, PARENT))
    assert (report["read"], report["new"], report["refused"]) == (2, 2, 0)
    first = lab.ledger_df().iloc[0]
    assert (first["source"], first["provider"], first["model"], first["agent"]) == (
        "codex",
        "openai",
        "gpt-5.1-codex",
        "codex",
    )
    tokens = ["input_tokens", "cache_read_tokens", "output_tokens", "reasoning_tokens"]
    assert tuple(first[tokens]) == A
    assert first["cost_usd"] == pytest.approx((5_035 * 1.25 + 4_000 * 0.125 + 120 * 10) / 1e6)
    assert first["metadata"] == {"session": ROOT, "project": "app", "version": "0.145.0"}


def test_a_repeated_event_is_the_same_call(lab: Lab, tmp_path: Path) -> None:
    repeats = [record for record in PARENT for _ in range(3 if record["type"] == "event_msg" else 1)]
    repeats.append(event({"type": "token_count", "info": None, "rate_limits": {"used_percent": 6}}))
    report = lab.import_codex(rollout(tmp_path, ROOT, repeats))
    assert (report["read"], report["new"]) == (6, 2)
    assert lab.usage_df()["input_tokens"].sum() == 21_035


def child(copied: list[dict[str, Any]], **given: Any) -> list[dict[str, Any]]:
    return [meta(CHILD, **given), *copied, turn("gpt-5.2"), *used(C, second=5, totals=AFTER)]


SPAWNED = {"source": {"subagent": {"thread_spawn": {"parent_thread_id": ROOT, "depth": 1}}}}


@pytest.mark.parametrize(
    "given", [{"parent": ROOT}, SPAWNED, {"parent_thread_id": ROOT}], ids=["fork", "spawn", "thread"]
)
@pytest.mark.parametrize("copied", [PARENT, restamped(PARENT, "2026-07-14T20:25:00.000Z"), PARENT[1:], PARENT[-1:]])
@pytest.mark.parametrize("parent_there", [True, False])
def test_what_a_child_copied_of_its_parent_is_counted_once(
    lab: Lab, tmp_path: Path, given: dict[str, Any], copied: list[dict[str, Any]], parent_there: bool
) -> None:
    rollout(tmp_path, CHILD, child(copied, **given), day=15)
    if parent_there:
        rollout(tmp_path, ROOT, PARENT)
    lab.import_codex(tmp_path)
    inherited = 2 if parent_there or len(copied) > 1 else 1
    frame = lab.ledger_df()
    assert len(frame) == inherited + 1
    own = frame[frame["model"] == "gpt-5.2"].iloc[0]
    assert (own["input_tokens"], own["agent"]) == (15_000, "codex:subagent")
    if parent_there:
        assert set(frame["agent"]) == {"codex", "codex:subagent"}
        assert frame["at"].min() == pd.Timestamp("2026-07-14T20:20:00Z")  # not the time of the copy


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_familys_files_may_come_in_any_order_and_at_any_time(
    tmp_path: Path, place: Callable[[str], str], order: tuple[int, ...]
) -> None:
    copy = restamped(child(PARENT, parent=ROOT), "2026-07-14T20:40:00.000Z")
    grandchild = [meta(GRANDCHILD, CHILD), *copy, *used(A, second=30, totals=(36_035, 24_000, 500, 74))]
    files = [(ROOT, PARENT), (CHILD, child(PARENT, parent=ROOT)), (GRANDCHILD, grandchild)]
    with al.open(place("lab.db"), embedding_model="hash-64") as lab:
        for number in order:
            rollout(tmp_path / "logs", *files[number])
            lab.import_codex(tmp_path / "logs")
        assert lab.usage_df()["calls"].sum() == 4
        assert lab.usage_df()["input_tokens"].sum() == 9_035 + 12_000 + 15_000 + 9_035


def test_unrelated_sessions_that_say_the_same_are_different_calls(lab: Lab, tmp_path: Path) -> None:
    rollout(tmp_path, ROOT, PARENT)
    rollout(tmp_path, CHILD, [meta(CHILD), *PARENT[1:]])
    rollout(tmp_path, "without-meta-1", PARENT[1:])
    rollout(tmp_path, "without-meta-2", PARENT[1:])
    assert lab.import_codex(tmp_path)["new"] == 8


def test_imported_again_only_what_changed_is_read(lab: Lab, tmp_path: Path) -> None:
    path = rollout(tmp_path, ROOT, PARENT)
    rollout(tmp_path, CHILD, child(PARENT, parent=ROOT))
    lab.import_codex(tmp_path)
    before = lab.ledger_df()
    assert lab.import_codex(tmp_path)["unchanged_files"] == 2
    assert lab.import_codex(tmp_path, resume=False)["new"] == 0
    pd.testing.assert_frame_equal(lab.ledger_df(), before)
    with path.open("a") as file:
        file.write(json.dumps(used(A, second=9, totals=AFTER)[0]) + "\n")
    report = lab.import_codex(tmp_path)
    assert (report["unchanged_files"], report["new"], report["already_there"]) == (1, 1, 2)


def test_without_the_calls_own_counts_the_totals_tell(lab: Lab, tmp_path: Path) -> None:
    events = [meta(ROOT), turn(), *used(A, B)]
    for item in events[2:]:
        del item["payload"]["info"]["last_token_usage"]
    lab.import_codex(rollout(tmp_path, ROOT, events))
    assert lab.ledger_df()["input_tokens"].tolist() == [9_035, 12_000]


def test_totals_of_a_long_session_are_no_absurd_number_of_tokens(lab: Lab, tmp_path: Path) -> None:
    lab.import_codex(rollout(tmp_path, ROOT, [meta(ROOT), turn(), *used(A, totals=(10**10, 10**9, 10**7, 0))]))
    assert lab.ledger_df()["input_tokens"].tolist() == [9_035]


def test_a_session_without_a_model_is_unpriced_and_hostile_events_are_listed(lab: Lab, tmp_path: Path) -> None:
    bad = [used((5, 0, 1, 0))[0] for _ in range(2)]
    bad[0]["payload"]["info"]["last_token_usage"]["input_tokens"] = -5
    bad[1]["payload"]["info"]["last_token_usage"]["input_tokens"] = 10**12
    odd = [event({"type": "token_count", "info": 5}), {"type": "event_msg", "payload": "token_count"}, ["token_count"]]
    report = lab.import_codex(rollout(tmp_path, ROOT, [meta(ROOT), *used(A), *bad, *odd]))
    assert (report["new"], report["refused"], report["unpriced"]) == (1, 2, 1)
    assert lab.ledger_df()["model"].tolist() == ["unknown"]
    assert lab.unpriced_df()["model"].tolist() == ["unknown"]


def test_this_machines_logs_are_found(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODEX_HOME", str(tmp_path / "codex"))
    with pytest.raises(al.NotFound, match="archived_sessions"):
        lab.import_codex()
    rollout(tmp_path / "codex" / "archived_sessions", ROOT, PARENT)
    rollout(tmp_path / "codex" / "sessions", ROOT, PARENT)  # the same session in both is the same calls
    assert lab.import_codex()["new"] == 2


@pytest.mark.parametrize("order", [1, -1])
def test_siblings_that_say_the_same_are_told_apart_by_their_turns(lab: Lab, tmp_path: Path, order: int) -> None:
    """Ids and turns of UUID version 7 begin with their time."""
    root, one, two = (f"019f6249-0{number}00-7000-b381-cd9d3eb99189" for number in range(3))
    turns = [f"019f6249-0{number}10-7000-a000-000000000000" for number in range(3)]
    parent = [meta(root), turn(name=turns[0]), *used(A)]

    def spawned(session: str, name: str) -> list[dict[str, Any]]:
        own = [event({"type": "task_started", "turn_id": name}), *used(C, totals=A)]
        return [meta(session, root), *restamped(parent, "2026-07-14T20:30:00.000Z"), *own]

    files = {root: parent, one: spawned(one, turns[1]), two: spawned(two, turns[2])}
    files["019f6249-0300-7000-b381-cd9d3eb99189"] = [
        meta("019f6249-0300-7000-b381-cd9d3eb99189", two),
        *restamped(files[two], "2026-07-14T20:45:00.000Z"),
    ]
    for session, records in list(files.items())[::order]:
        lab.import_codex(rollout(tmp_path, session, records))
    assert lab.usage_df()[["calls", "input_tokens"]].iloc[0].tolist() == [3, 9_035 + 2 * 15_000]
