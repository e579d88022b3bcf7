"""Looking after a lab through its verbs: health, check, backup, repair, export."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import whole_lab

import autom8_lab as al
from autom8_lab.lab import Lab
from autom8_lab.storage.sqlite_health import BUG_FIXED, has_wal_reset_bug

# Health

LINES = {
    "path", "file_bytes", "wal_bytes", "free_bytes", "disk_free_bytes", "read_only", "journal_mode", "synchronous",
    "foreign_keys", "quick_check", "last_backup", "sqlite_version", "wal_reset_bug", "driver", "sqlite_vec",
    "vector_engine", "vector_engine_reason", "sqlite_vec_lag", "unused_vectors", "migrations", "embedding_model",
    "contexts", "without_vectors",
}  # fmt: skip


@pytest.mark.parametrize("path", ["lab.db", ":memory:"])
def test_health_tells_the_state_of_the_file_and_its_engines(tmp_path: Path, path: str) -> None:
    with al.open(tmp_path / path if path != ":memory:" else path, embedding_model="hash-64") as lab:
        whole_lab.fill(lab)
        health = lab.health()
        assert set(health) >= LINES
        assert (health["quick_check"], health["foreign_keys"], health["synchronous"]) == ("ok", "on", "FULL")
        assert health["contexts"] == lab.stats()["contexts"]
        assert (health["without_vectors"], health["unused_vectors"]) == (0, 0)
        assert health["embedding_model"] == "hash-64@1"
        assert health["last_backup"] == "none: al.backup(path) makes one"
        if path == "lab.db":
            assert health["journal_mode"] == "wal"
            assert health["wal_bytes"] == Path(f"{lab.config.db_path}-wal").stat().st_size > 0
            assert health["disk_free_bytes"] > 0
        assert "quick_check" in str(health)
        assert "<table" in health._repr_html_()


def test_health_counts_what_lacks_vectors_and_vectors_that_lack_contexts(lab: Lab) -> None:
    lab.store_context("One.", context_id="one")
    lab.store_context("Two.", context_id="two")
    lab._storage.delete("context_chunks", [al.records.Condition("position", ">=", 0)])
    assert lab.health()["without_vectors"] == 2
    assert lab.health()["unused_vectors"] == 0
    vector = lab._storage.rows("embeddings")
    assert vector == []
    row = {"chunk_hash": "x", "model_id": "m", "dimensions": 1, "vector": b"\0\0\x80?"}
    lab._storage.insert("embeddings", [row])
    assert lab.health()["unused_vectors"] == 1


def test_health_of_a_closed_lab_says_so(lab: Lab) -> None:
    lab.close()
    with pytest.raises(al.LabClosed):
        lab.health()


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 4), False),
    ],
)
def test_the_versions_with_the_wal_reset_bug_are_known(version: tuple[int, int, int], affected: bool) -> None:
    assert has_wal_reset_bug(version) is affected
    assert len(BUG_FIXED) == 2


def test_what_takes_too_long_says_so_and_the_rest_is_told(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_lab.fill(lab, contexts=300, calls=10)
    monkeypatch.setattr("autom8_lab.storage.sqlite_health.QUICK_SECONDS", -1.0)
    health = lab.health()
    assert "al.check() looks at everything" in health["quick_check"]
    assert "not counted" in health["unused_vectors"]
    assert health["contexts"] == 300
    monkeypatch.undo()
    assert lab.health()["quick_check"] == "ok"


NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
