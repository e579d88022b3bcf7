"""Claude Code's logs: each call once, with the usage that its last line tells."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import autom8_lab as al
from autom8_lab.importers import recording
from autom8_lab.lab import Lab

BOTH_BACKENDS = True

OPUS = "claude-opus-4-5-20251101"


def line(name: str | None, output: int, **given: Any) -> dict[str, Any]:
    """A line as Claude Code 2.1 writes it; see ccusage/ccusage issues 901 and 938 for the shape and the repeats."""
    usage = {
        "input_tokens": given.pop("input", 2),
        "cache_creation_input_tokens": given.pop("write", 8655),
        "cache_read_input_tokens": given.pop("read", 15030),
        "output_tokens": output,
        "service_tier": "standard",
    }
    message = {
        "id": name,
        "type": "message",
        "role": "assistant",
        "model": given.pop("model", OPUS),
        "content": [{"type": "text", "text": given.pop("said", "Done.")}],
        "stop_reason": given.pop("stop", None),
        "usage": usage,
    }
    return {
        "type": "assistant",
        "uuid": f"uuid-{output}",
        "sessionId": "0aa6b1de-4e5e-4b5b-8a0e-000000000001",
        "timestamp": "2026-03-01T10:31:43.399Z",
        "cwd": "/work/app",
        "version": "2.1.63",
        "gitBranch": "main",
        "isSidechain": False,
        "message": message,
        **given,
    }


def written(path: Path, records: Iterable[Any], *, end: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("\n".join(texts) + end, encoding="utf-8")
    return path


FIRST, SECOND = "msg_011CeV8JXHSwTV15by93NgCv", "msg_011CeV8JXHSwTV15by93NgCw"
SESSION = [
    {"type": "summary", "summary": "About usage"},
    {"type": "user", "message": {"role": "user", "content": "Go"}, "timestamp": "2026-03-01T10:31:40.000Z"},
    line(FIRST, 1, requestId="req_1"),
    line(FIRST, 1, requestId="req_1"),
    line(FIRST, 159, requestId="req_1", stop="tool_use", timestamp="2026-03-01T10:31:49.000Z"),
    line(SECOND, 20, requestId="req_2", read=23685, write=100, timestamp="2026-03-01T10:32:00.000Z"),
]


def calls(lab: Lab) -> pd.DataFrame:
    return lab.ledger_df().sort_values("source_id", ignore_index=True).drop(columns="usage_key")


def test_a_streamed_message_is_one_call_with_its_last_usage(lab: Lab, tmp_path: Path) -> None:
    report = lab.import_claude_code(written(tmp_path / "session.jsonl", SESSION))
    assert {name: report[name] for name in ("read", "new", "updated", "already_there", "refused")} == {
        "read": 4,
        "new": 2,
        "updated": 0,
        "already_there": 2,
        "refused": 0,
    }
    first, second = calls(lab).to_dict("records")
    assert (first["source"], first["source_id"], first["model"], first["provider"]) == (
        "claude-code",
        FIRST,
        OPUS,
        "anthropic",
    )
    assert (first["input_tokens"], first["cache_read_tokens"], first["cache_write_tokens"]) == (23_687, 15_030, 8_655)
    assert (first["output_tokens"], second["output_tokens"]) == (159, 20)
    assert first["at"] == pd.Timestamp("2026-03-01T10:31:49Z")
    assert first["cost_usd"] == pytest.approx((2 * 5 + 15_030 * 0.5 + 8_655 * 6.25 + 159 * 25) / 1e6)
    assert first["metadata"]["project"] == "app"
    assert lab.usage_df(by=["metadata.session", "agent"])["calls"].tolist() == [2]


def test_importing_twice_changes_nothing_and_reads_nothing(lab: Lab, tmp_path: Path) -> None:
    path = written(tmp_path / "session.jsonl", SESSION)
    lab.import_claude_code(path)
    before = calls(lab)
    again = lab.import_claude_code(tmp_path)
    assert (again["files"], again["unchanged_files"], again["read"]) == (1, 1, 0)
    everything = lab.import_claude_code(path, resume=False)
    assert (everything["read"], everything["already_there"], everything["new"], everything["updated"]) == (4, 4, 0, 0)
    pd.testing.assert_frame_equal(calls(lab), before)


@pytest.mark.parametrize("cut", range(1, len(SESSION)))
@pytest.mark.parametrize("resume", [True, False])
def test_a_growing_file_ends_as_if_it_were_imported_at_once(
    tmp_path: Path, place: Callable[[str], str], cut: int, resume: bool
) -> None:
    with al.open(place("once.db"), embedding_model="hash-64") as lab:
        lab.import_claude_code(written(tmp_path / "s.jsonl", SESSION))
        expected = calls(lab)
    with al.open(place("twice.db"), embedding_model="hash-64") as lab:
        first = lab.import_claude_code(written(tmp_path / "s.jsonl", SESSION[:cut]))
        second = lab.import_claude_code(written(tmp_path / "s.jsonl", SESSION), resume=resume)
        pd.testing.assert_frame_equal(calls(lab), expected)
        if resume:
            assert first["read"] + second["read"] == 4
        assert second["updated"] == (1 if cut in (3, 4) else 0)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_the_order_of_lines_and_files_the_calls_are_the_same(
    tmp_path: Path, place: Callable[[str], str], seed: int
) -> None:
    lines = [record for record in SESSION if record["type"] == "assistant"] * 2
    random.Random(seed).shuffle(lines)
    with al.open(place("lab.db"), embedding_model="hash-64") as lab:
        for number in range(3):
            written(tmp_path / "logs" / f"{number}.jsonl", lines[number::3])
            lab.import_claude_code(tmp_path / "logs")
        assert [row["output_tokens"] for row in calls(lab).to_dict("records")] == [159, 20]
        assert lab.usage_df()["input_tokens"].sum() == 23_687 + 23_787


def test_copies_in_resumed_sessions_and_sub_agents_are_the_same_call(lab: Lab, tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", SESSION)
    resumed = [{**record, "sessionId": "another"} for record in SESSION]
    written(tmp_path / "b.jsonl", resumed)
    third = "msg_011CeV8JXHSwTV15by93NgCx"
    inside = line(third, 40, requestId="req_3", isSidechain=True, agentId="a7")
    written(
        tmp_path / "0aa6b1de" / "subagents" / "agent-a7.jsonl",
        [{**SESSION[4], "isSidechain": True, "requestId": "other"}, inside],
    )
    seen = {"type": "progress", "data": {"type": "agent_progress", "agentId": "a7", "message": line(third, 3)}}
    written(tmp_path / "c.jsonl", [{**seen, "sessionId": "x", "timestamp": "2026-03-01T10:33:00Z"}])
    lab.import_claude_code(tmp_path)
    found = calls(lab)
    assert found["source_id"].tolist() == [FIRST, SECOND, third]
    assert found["output_tokens"].tolist() == [159, 20, 40]
    assert lab.usage_df(by="agent").set_index("agent")["calls"].to_dict() == {
        "claude-code": 2,
        "claude-code:subagent": 1,
    }


def test_a_message_without_request_id_or_with_a_gateways_id(lab: Lab, tmp_path: Path) -> None:
    lines = [line("chatcmpl-9f8e7d6c5b4a", 5, model="kimi-k2.5"), line("chatcmpl-9f8e7d6c5b4a", 90, model="kimi-k2.5")]
    lines += [line("msg_1", 7, sessionId="one"), line("msg_1", 8, sessionId="two"), line("msg_1", 9, sessionId="two")]
    lines += [line(None, 11)]
    lab.import_claude_code(written(tmp_path / "s.jsonl", lines))
    assert sorted(calls(lab)["output_tokens"]) == [7, 9, 11, 90]


def test_what_is_no_call_is_passed_over(lab: Lab, tmp_path: Path) -> None:
    lines = [line("msg_synthetic_000000", 0, model="<synthetic>", isApiErrorMessage=True), {"type": "assistant"}]
    lines += [
        {"type": "assistant", "message": {"usage": None}},
        ["usage"],
        {"usage": 1},
        "null",
        {"type": "progress", "usage": {}},
    ]
    report = lab.import_claude_code(written(tmp_path / "s.jsonl", lines))
    assert (report["read"], report["refused"]) == (0, 0)


def test_hostile_lines_are_listed_and_the_sum_is_right(lab: Lab, tmp_path: Path) -> None:
    good = json.dumps(line(FIRST, 159))
    bad = [
        '{"usage": ' + "[" * 10_000,
        good[:-40],
        good.replace('"output_tokens": 159', '"output_tokens": 1, "output_tokens": 159'),
        json.dumps(line("msg_011CeV8JXHSwTV15by93Nbb1", -5)),
        json.dumps(line("msg_011CeV8JXHSwTV15by93Nbb2", 10**12)),
        json.dumps(line("msg_011CeV8JXHSwTV15by93Nbb3", 5, timestamp="2199-01-01T00:00:00Z")),
        json.dumps(line("msg_011CeV8JXHSwTV15by93Nbb4", 5, timestamp="1970-01-01T00:00:00Z")),
        json.dumps(line("msg_011CeV8JXHSwTV15by93Nbb5", 5, timestamp=None)),
        json.dumps(line("msg_011CeV8JXHSwTV15by93Nbb6", 5, timestamp="soon")),
        json.dumps(line("msg_011CeV8JXHSwTV15by93Nbb7", 5)).replace(": 5,", ": Infinity,"),
        json.dumps(line("msg_011CeV8JXHSwTV15by93Nbb8", 5, model=None)),
        json.dumps(line("m" * 300, 5)),
        json.dumps(line("msg_011CeV8JXHSwTV15by93Nbb9", 5, model=["claude"])),
        "x" * 17_000_000,
    ]
    strings = json.dumps(line(SECOND, 20)).replace(": 15030", ': "15030"').replace(": 20,", ': "20",')
    content = "\ufeff" + "\r\n".join([bad[0], good, *bad[1:], strings, good[: len(good) // 2]])
    path = tmp_path / "s.jsonl"
    path.write_bytes(content.encode())
    report = lab.import_claude_code(path)
    assert (report["new"], report["refused"], report["read"]) == (2, len(bad) + 1, len(bad) + 3)
    assert lab.usage_df()[["input_tokens", "output_tokens"]].sum().tolist() == [2 * 23_687, 179]
    reasons = report.refused_df()
    assert reasons["place"].tolist()[:2] == ["line 1", "line 3"]
    for number, word in enumerate(
        ["too deep", "not valid JSON", "twice", "-5", "more than", "future", "before", "missing", "soon"]
    ):
        assert word in reasons.loc[number, "reason"], reasons.loc[number, "reason"]
    assert "ends within" in reasons["reason"].iloc[-1]
    assert "refused" in repr(report)
    assert "line 1" in report._repr_html_()


def test_a_line_that_was_half_written_is_read_when_it_is_whole(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    last = json.dumps(SESSION[-1])
    path.write_text(json.dumps(SESSION[4]) + "\n" + last[:50])
    assert lab.import_claude_code(path)["refused"] == 1
    path.write_text(json.dumps(SESSION[4]) + "\n" + last + "\n")
    report = lab.import_claude_code(path)
    assert (report["new"], report["refused"]) == (1, 0)


def test_a_file_that_was_replaced_is_read_from_its_beginning(lab: Lab, tmp_path: Path) -> None:
    lab.import_claude_code(written(tmp_path / "s.jsonl", SESSION[:4]))
    other = line("msg_another_session_0001", 77, timestamp="2026-03-02T00:00:00Z")
    report = lab.import_claude_code(written(tmp_path / "s.jsonl", [other, *SESSION]))
    assert (report["read"], report["new"], report["updated"]) == (5, 2, 1)


def test_packed_files_are_read_and_known_again(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(json.dumps(record) for record in SESSION).encode()))
    assert lab.import_claude_code(tmp_path)["new"] == 2
    assert lab.import_claude_code(tmp_path)["unchanged_files"] == 1


def test_a_dry_run_says_what_would_happen_and_changes_nothing(lab: Lab, tmp_path: Path) -> None:
    path = written(tmp_path / "s.jsonl", SESSION[:4])
    planned = lab.import_claude_code(path, dry_run=True)
    assert len(lab.ledger_df()) == 0
    done = lab.import_claude_code(path)
    assert {**planned, "dry_run": False} == done
    path = written(tmp_path / "s.jsonl", SESSION)
    planned = lab.import_claude_code(path, dry_run=True)
    assert (planned["new"], planned["updated"]) == (1, 1)
    assert {**planned, "dry_run": False} == lab.import_claude_code(path)


def test_texts_are_contexts_when_they_are_asked_for(lab: Lab, tmp_path: Path) -> None:
    path = written(
        tmp_path / "s.jsonl", [*SESSION, line("msg_011CeV8JXHSwTV15by93NgCx", 9, said="The crane stops\0 at 14 m/s.")]
    )
    lab.import_claude_code(path)
    assert lab.stats()["contexts"] == 0
    report = lab.import_claude_code(path, store_texts=True)
    assert report["contexts"] == lab.stats()["contexts"] + lab.stats()["aliases"] == 3
    (hit,) = lab.search("crane", method="text")
    assert (hit.context.topic, hit.context.source) == ("response", "claude-code")
    assert hit.context.metadata["usage_id"] == "msg_011CeV8JXHSwTV15by93NgCx"
    assert lab.import_claude_code(path, store_texts=True, resume=False).get("contexts", 0) == 0


def test_what_the_lab_knows_of_a_call_stays(lab: Lab, tmp_path: Path) -> None:
    decision = lab.record_decision("route")
    lab.record_usage(
        OPUS, source="claude-code", source_id=FIRST, quality_score=0.9, decision_id=decision, at="2026-03-01T10:00:00Z"
    )
    report = lab.import_claude_code(written(tmp_path / "s.jsonl", SESSION))
    assert (report["new"], report["updated"]) == (1, 1)
    row = calls(lab).iloc[0]
    assert (row["quality_score"], row["decision_id"], row["output_tokens"]) == (0.9, decision, 159)
    assert row["cost_usd"] > 0


def test_ids_of_other_sources_are_other_calls(lab: Lab, tmp_path: Path) -> None:
    lab.record_usage("gpt-4o", source="elsewhere", source_id=FIRST, input_tokens=1, output_tokens=1)
    assert lab.import_claude_code(written(tmp_path / "s.jsonl", SESSION))["new"] == 2
    assert len(lab.ledger_df()) == 3


def test_models_without_a_price_are_listed(lab: Lab, tmp_path: Path) -> None:
    report = lab.import_claude_code(written(tmp_path / "s.jsonl", [line(FIRST, 5, model="our-llama"), line(SECOND, 5)]))
    assert report["unpriced"] == 1
    assert report.unpriced_df()[["model", "calls"]].to_dict("records") == [{"model": "our-llama", "calls": 1}]
    assert "our-llama: 1 calls" in repr(report)


def test_logs_that_are_not_there_and_a_read_only_lab_say_so(
    tmp_path: Path, place: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path / "claude"))
    with al.open(place("lab.db"), embedding_model="hash-64") as lab:
        with pytest.raises(al.NotFound, match="give the path"):
            lab.import_claude_code()
        written(tmp_path / "claude" / "projects" / "app" / "s.jsonl", SESSION)
        assert lab.import_claude_code()["new"] == 2
    with al.open(place("lab.db"), embedding_model="hash-64", read_only=True) as lab:
        with pytest.raises(al.ReadOnlyLab, match="dry_run"):
            lab.import_claude_code()
        assert lab.import_claude_code(dry_run=True, resume=False)["already_there"] == 4


def test_a_file_that_cannot_be_opened_stops_nothing(lab: Lab, tmp_path: Path) -> None:
    written(tmp_path / "b.jsonl", SESSION)
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "gone")
    (tmp_path / "c.jsonl").mkdir()
    report = lab.import_claude_code(tmp_path)
    assert (report["new"], report["refused"]) == (2, 1)
    assert report.refused_df().loc[0, "file"] == "a.jsonl"


def many(count: int) -> list[dict[str, Any]]:
    return [line(f"msg_{number // 2:024}", 1 + number % 2 * 100, read=number) for number in range(count)]


def test_batches_do_not_show(tmp_path: Path, place: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "s.jsonl", [*many(300), *many(300)[::-1]])
    found = []
    for rows in (recording.BATCH_ROWS, 7):
        monkeypatch.setattr(recording, "BATCH_ROWS", rows)
        with al.open(place(f"{rows}.db"), embedding_model="hash-64") as lab:
            report = lab.import_claude_code(path)
            found.append((dict(report), calls(lab)))
    assert found[0][0] == found[1][0]
    pd.testing.assert_frame_equal(found[0][1], found[1][1])
