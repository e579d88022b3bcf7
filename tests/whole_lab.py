"""A lab with every kind of row, for the tests of what looks after the file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from autom8_lab import mockdata
from autom8_lab.lab import Lab
from autom8_lab.recommendation import Evidence, Recommendation

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WORDS = "harbour tide lamp winter ledger copper violet engine garden signal paper river stone window silver".split()


def text(number: int, sentences: int = 4) -> str:
    """Return a text of its own for each number."""
    picked = [WORDS[(number * (place + 3) + place * place) % len(WORDS)] for place in range(sentences * 7)]
    lines = [" ".join(picked[at : at + 7]) for at in range(0, len(picked), 7)]
    return f"Note {number} über Nr. {number * 7919 % 10007}: " + ". ".join(lines) + "."


def fill(lab: Lab, *, contexts: int = 40, calls: int = 60) -> None:
    """Store rows of every kind through the verbs of a lab, with the operations that change them afterwards."""
    rows: list[Mapping[str, Any]] = [
        {
            "context_id": f"note-{number:05}",
            "content": text(number, sentences=300 if number % 17 == 3 else 4),
            "topic": f"topic {number % 5}",
            "source": "notes" if number % 3 else None,
            "summary": f"About {number}" if number % 4 == 0 else None,
            "priority": number % 7,
            "metadata": {"team": ["core", "é"][number % 2], "number": number, "nested": {"z": 1.5, "a": None}},
        }
        for number in range(contexts)
    ]
    lab.store_contexts(rows, progress=False)
    lab.store_context(text(1), context_id="another-name")
    lab.store_context("Newer than note 2.", context_id="newer", supersedes="note-00002", ttl="30d")
    lab.update_context("note-00004", content="Note 4 was written again, with another text.", summary=None)
    lab.pin_context("note-00005")
    lab.delete_context("note-00006")
    for query in ("harbour tide", "copper engine", "a question that is nowhere"):
        lab.search(query, k=3)
    lab.get_context("note-00007")
    decision = lab.record_decision(
        decision_type="route",
        chosen="gpt-4o-mini",
        candidates={"gpt-4o-mini": 0.75, "gpt-4o": 0.5},
        propensity=0.9,
        policy="threshold",
        context_ids=["note-00001", "newer"],
        metadata={"why": "cheap"},
    )
    lab.record_outcome(decision, quality_score=0.75, success=True)
    lab.record_usage("gpt-4o-mini", input_tokens=812, output_tokens=120, latency_ms=930.5, decision_id=decision)
    lab.record_usage("unknown-model", input_tokens=1, output_tokens=2, error_type="Timeout")
    lab.record_usages(
        mockdata.traffic(1, calls_per_day=calls, seed=3, until=NOON + timedelta(1), decisions=False).usage
    )
    lab.judge("harbour tide", grades={"note-00001": 2, "note-00008": 0})
    evidence = Evidence(40, "nDCG@10 against the default", 0.021, 0.004, 0.039, held_out=True, data_hash="5f0c")
    lab.apply(Recommendation("search", {"text_weight": 0.6}, "recommend", "better", evidence, created_at=NOON))
    cursor = {"kind": "claude-code", "path": "/log.jsonl", "position": 10, "line": 2, "fingerprint": "ab"}
    lab.import_billing([{"date": "2026-05-01", "model": "gpt-4o", "input_tokens": 5, "cost_usd": 1}], provider="openai")
    lab._storage.insert("import_cursors", [{**cursor, "metadata": {}, "updated_at": NOON}])
    lab._access.flush()
