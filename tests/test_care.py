"""Looking after a lab through its verbs: health, check, backup, repair, export."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import whole_lab
from sqlite_utils.utils import sqlite3

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


def test_a_connection_that_read_the_index_long_ago_does_not_call_it_damaged(lab: Lab) -> None:
    # SQLite 3.53.4 compares what the connection remembers of the text index with what others have merged since.
    for number in range(40):
        lab.store_context(f"Words of text {number}.")
        assert lab.health()["quick_check"] == "ok"
        assert lab.check().empty


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


# Damaged texts


@pytest.fixture
def spoilt(lab: Lab) -> Lab:
    """A lab in which another program changed a text without its hash."""
    whole_lab.fill(lab)
    connection = sqlite3.connect(lab.config.db_path, isolation_level=None)
    connection.execute("UPDATE context_registry SET content = content || ' harbour' WHERE id = 'note-00009'")
    connection.close()
    return lab


def test_a_damaged_text_is_not_returned_and_says_what_to_do(spoilt: Lab) -> None:
    with pytest.raises(al.DamagedLab, match=r"'note-00009' does not fit its hash.*al\.check\(\)"):
        spoilt.get_context("note-00009")
    with pytest.raises(al.DamagedLab, match="does not fit its hash"):
        spoilt.pin_context("note-00009")
    assert "note-00009" in set(spoilt.check()["key"])


@pytest.mark.parametrize("method", ["hybrid", "text", "semantic"])
def test_a_search_leaves_a_damaged_text_out_and_warns(spoilt: Lab, method: str) -> None:
    with pytest.warns(al.DamagedContextWarning, match=r"1 left out.*'note-00009'"):
        hits = spoilt.search("note 9 harbour", k=1000, method=method)  # type: ignore[arg-type]
    assert "note-00009" not in {hit.context.id for hit in hits}
    assert len(hits) > 5


def test_a_list_leaves_a_damaged_text_out_and_warns(spoilt: Lab) -> None:
    with pytest.warns(al.DamagedContextWarning, match="al.repair"):
        frame = spoilt.contexts_df(include_superseded=True)
    assert len(frame) == spoilt.stats()["contexts"] - 1
    assert "note-00009" not in set(frame["context_id"])


def test_a_new_text_or_deleting_it_mends_a_damaged_context(spoilt: Lab) -> None:
    assert spoilt.update_context("note-00009", content="A text again.").content == "A text again."
    assert spoilt.check().empty
    spoilt.delete_context("note-00009")
    assert spoilt.check().empty


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("metadata", "'{'"),
        ("created_at", "'2026'"),
        ("topic", "CAST(x'ff' AS TEXT)"),
        ("expires_at", "'soon'"),
    ],
)
def test_a_value_that_cannot_be_read_is_a_damaged_lab_with_its_table(lab: Lab, column: str, value: str) -> None:
    lab.store_context("A text.", context_id="a")
    connection = sqlite3.connect(lab.config.db_path, isolation_level=None)
    connection.execute(f"UPDATE context_registry SET {column} = {value}")
    connection.close()
    for question in (lambda: lab.get_context("a"), lambda: lab.list_contexts(include_expired=True)):
        with pytest.raises(al.DamagedLab, match=r"context_registry holds a value that cannot be read.*al\.check"):
            question()


@pytest.mark.parametrize(("column", "value"), [("at", "'now'"), ("source_id", "CAST(x'ff' AS TEXT)")])
def test_a_ledger_value_that_cannot_be_read_is_a_damaged_lab_with_its_table(lab: Lab, column: str, value: str) -> None:
    lab.record_usage("gpt-4o", input_tokens=1, output_tokens=1, source="s", source_id="1")
    connection = sqlite3.connect(lab.config.db_path, isolation_level=None)
    connection.execute(f"UPDATE usage_ledger SET {column} = {value}")
    connection.close()
    with pytest.raises(al.DamagedLab, match="usage_ledger holds a value that cannot be read"):
        lab.ledger_df()
