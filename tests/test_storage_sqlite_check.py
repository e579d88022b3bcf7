"""The check finds what is wrong, wherever it is; it finds nothing in a sound lab, and changes nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import damage
import pytest
import whole_lab
from sqlite_utils import Database
from sqlite_utils.utils import sqlite3

import autom8_lab as al
from autom8_lab.lab import Lab
from autom8_lab.storage import migrations, row_rules, sqlite_check
from autom8_lab.storage.checksums import plain_tables
from autom8_lab.storage.sqlite_vec import load_extension


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed lab of every kind of row, with `vec_embeddings`."""
    path = tmp_path_factory.mktemp("pattern") / "lab.db"
    with al.open(path, embedding_model="hash-64", vector_engine="sqlite-vec", synchronous="OFF") as lab:
        whole_lab.fill(lab)
        lab.search("harbour tide", method="semantic")
    return path


@pytest.fixture
def full(pattern: Path, tmp_path: Path) -> Iterator[Lab]:
    path = tmp_path / "lab.db"
    path.write_bytes(pattern.read_bytes())
    with al.open(path, embedding_model="hash-64", access_log=False) as lab:
        yield lab


def spoil(lab: Lab, *statements: str) -> None:
    """Change the file behind the lab's back, without the triggers that tell of it."""
    connection = sqlite3.connect(lab.config.db_path, isolation_level=None)
    for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE name LIKE '%_unseal'").fetchall():
        connection.execute(f"DROP TRIGGER {trigger}")
    load_extension(connection)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def found(lab: Lab) -> set[tuple[str, str, str, str]]:
    frame = lab.check(progress=False)
    rows = zip(frame["severity"], frame["table"], frame["key"], frame["finding"], strict=True)
    return {row for row in rows if "_unseal" not in row[2]}


def bytes_of(lab: Lab) -> dict[str, bytes]:
    folder = Path(lab.config.db_path).parent
    return {item.name: item.read_bytes() for item in folder.iterdir() if not item.name.endswith("-shm")}


# Sound labs


@pytest.mark.parametrize("path", ["lab.db", ":memory:"])
def test_a_sound_lab_has_no_findings_and_the_frame_keeps_its_columns(tmp_path: Path, path: str) -> None:
    place = tmp_path / path if path != ":memory:" else path
    with al.open(place, embedding_model="hash-64") as lab:
        for fill in (lambda: None, lambda: whole_lab.fill(lab)):
            fill()
            lab.search("tide", method="semantic")
            frame = lab.check()
            assert frame.empty, frame.to_string()
            assert frame.dtypes.astype(str).to_dict() == dict.fromkeys(
                ["severity", "table", "key", "finding", "remedy"], "str"
            )


def test_a_check_changes_no_byte(full: Lab) -> None:
    full.store_context("Something in the log.")
    before = bytes_of(full)
    full.check()
    spoil(full, "UPDATE context_registry_fts_docsize SET sz = x'00' WHERE id = 5")
    damaged = bytes_of(full)
    assert damaged != before
    assert not full.check().empty
    assert bytes_of(full) == damaged


def test_a_lab_of_all_versions_before_is_sound_after_migrating(tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    with al.open(path, embedding_model="hash-64") as lab:
        whole_lab.fill(lab, contexts=10, calls=5)
    for version in range(2, len(migrations.names())):
        al.run_migrations(path, to=version)
        with al.open(path, embedding_model="hash-64") as lab:
            assert lab.check().empty, version


def test_a_read_only_lab_and_one_that_another_process_writes_are_checked_too(full: Lab) -> None:
    spoil(full, "DELETE FROM context_registry_fts_docsize WHERE id = 5")
    other = sqlite3.connect(full.config.db_path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert {row[1] for row in found(full)} == {"context_registry_fts"}
    other.execute("ROLLBACK")
    other.close()
    with al.open(full.config.db_path, read_only=True) as lab:
        assert {row[1] for row in found(lab)} == {"context_registry_fts"}


def test_inside_a_transaction_what_it_wrote_is_checked_too_and_the_transaction_goes_on(full: Lab) -> None:
    with full.transaction():
        full.store_context("Not there yet.", context_id="new")
        assert full.check().empty
        full._storage.update("usage_ledger", [], {"quality_score": 2.0})
        assert "quality_score is not from 0 to 1" in {row[3] for row in found(full)}
    assert full.get_context("new").content == "Not there yet."


def test_progress_tells_of_every_row(full: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_check, "RANGE_ROWS", 7)
    told: list[tuple[int, int]] = []
    assert list(full._storage.check(progress=lambda done, total: told.append((done, total)))) == []
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] > 200


# What is wrong


KEY = "SELECT context_key FROM context_registry WHERE id = 'note-00009'"
CONTEXT = "UPDATE context_registry SET {} WHERE id = 'note-00009'"
LEDGER = "UPDATE usage_ledger SET {}, checksum = NULL WHERE usage_key = 7"
CHUNK = "UPDATE context_chunks SET {} WHERE context_key = (" + KEY + ")"
ERRORS = [
    (CONTEXT.format("content = content || '!'"), "context_registry", "note-00009", "content does not fit its hash"),
    (CONTEXT.format("topic = 'another'"), "context_registry", "note-00009", "its checksum does not fit"),
    (CONTEXT.format("access_count = 7"), "context_registry", "note-00009", "its checksum does not fit"),
    (CONTEXT.format("metadata = '[1]'"), "context_registry", "note-00009", "metadata is no JSON object"),
    (CONTEXT.format("metadata = '{\"a\": 1'"), "context_registry", "note-00009", "metadata is no JSON object"),
    (CONTEXT.format("created_at = '2026-02-30T00:00:00+00:00'"), "context_registry", "note-00009", "created_at is no"),
    (CONTEXT.format("updated_at = '2026-02-01T00:00:00'"), "context_registry", "note-00009", "updated_at is no time"),
    (CONTEXT.format("pinned = 7"), "context_registry", "note-00009", "pinned is neither true nor false"),
    (CONTEXT.format("source = CAST(x'ff41' AS TEXT)"), "context_registry", "note-00009", "a text is not UTF-8"),
    ("UPDATE context_aliases SET created_at = '2027' || substr(created_at, 5)", "context_aliases", "another-name",
     "its checksum does not fit"),
    ("UPDATE context_aliases SET alias = 'note-00009'", "context_aliases", "note-00009", "is the id of another"),
    ("UPDATE embedding_sets SET state = 'asleep', checksum = NULL", "embedding_sets", "1", "state is unknown"),
    ("UPDATE embeddings SET vector = CAST(x'0000807f' || substr(vector, 5) AS BLOB), checksum = NULL WHERE embedding_key = 3",
     "embeddings", "3", "vector is not finite or of another size"),
    ("UPDATE embeddings SET vector = substr(vector, 5), checksum = NULL WHERE embedding_key = 3", "embeddings", "3",
     "vector is not finite or of another size"),
    ("UPDATE embeddings SET vector = CAST(x'01' || substr(vector, 2) AS BLOB) WHERE embedding_key = 3", "embeddings", "3",
     "its checksum does not fit"),
    ("UPDATE embeddings SET dimensions = 32, vector = substr(vector, 1, 128), checksum = NULL WHERE embedding_key = 3",
     "embeddings", "3", "has another size than its model's vectors"),
    ("DELETE FROM embeddings WHERE embedding_key = 3", "context_chunks", "3", "has no vector"),
    (CHUNK.format("end_char = end_char - 1"), "context_chunks", "", "its hash does not fit the text"),
    (CHUNK.format("position = 1"), "context_chunks", "", "a chunk before it is missing"),
    (CHUNK.format("end_char = start_char"), "context_chunks", "", "ends before it begins"),
    ("DELETE FROM context_chunks WHERE chunk_key = (SELECT max(chunk_key) FROM context_chunks WHERE position > 0)",
     "context_chunks", "", "the chunks after it are missing"),
    ("UPDATE sqlite_sequence SET seq = 1 WHERE name = 'context_chunks'", "context_chunks", "", "the next key would be"),
    ("DELETE FROM vec_embeddings WHERE chunk_key = 4", "vec_embeddings", "4", "is not the vector that it was made from"),
    ("UPDATE decision_contexts SET position = position + 5", "decision_contexts", "", "are not numbered 1, 2, 3"),
    ("UPDATE decision_contexts SET decision_id = 'nobody'", "decision_contexts", "1", "refers to a row that is not in"),
    ("DELETE FROM access_results WHERE rowid = 1", "access_results", "", "not as many results as the log says"),
    ("UPDATE access_log SET query = 'another' WHERE rowid = 1", "access_log", "", "its checksum does not fit"),
    ("UPDATE settings_log SET evidence = '{', checksum = NULL", "settings_log", "1", "evidence is no JSON"),
    ("UPDATE settings_log SET evidence = NULL, checksum = NULL", "settings_log", "1", "evidence is missing"),
    ("UPDATE settings_log SET value = 'rrf', checksum = NULL", "settings_log", "1", "value is no JSON"),
    ("UPDATE judgments SET grade = 3 WHERE rowid = 1", "judgments", "", "its checksum does not fit"),
    (LEDGER.format("input_tokens = -1"), "usage_ledger", "7", "input_tokens is negative or infinite"),
    (LEDGER.format("cost_actual_usd = 9e999"), "usage_ledger", "7", "cost_actual_usd is negative or infinite"),
    (LEDGER.format("quality_score = 1.5"), "usage_ledger", "7", "quality_score is not from 0 to 1"),
    (LEDGER.format("cost_estimated_usd = cost_estimated_usd + 1"), "usage_ledger", "7", "is not the sum of its parts"),
    ("UPDATE usage_ledger SET latency_ms = latency_ms + 1 WHERE usage_key = 7", "usage_ledger", "7",
     "its checksum does not fit"),
    ("UPDATE context_registry_fts_docsize SET id = 999 WHERE id = 5", "context_registry_fts", "", "does not fit the"),
    ("DROP INDEX idx_usage_ledger_at", "usage_ledger", "idx_usage_ledger_at", "the index is missing"),
    ("DROP TRIGGER context_registry_ai", "context_registry", "context_registry_ai", "the trigger is missing"),
    ("PRAGMA application_id = 5", "", "application_id", "the file's mark of a lab is 0x5"),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "table", "key", "finding"), ERRORS, ids=[row[0][:60] for row in ERRORS])
def test_damage_is_found_where_it_is(full: Lab, statement: str, table: str, key: str, finding: str) -> None:
    assert found(full) == set()
    spoil(full, statement)
    rows = found(full)
    assert [row for row in rows if row[:2] == ("error", table) and finding in row[3] and (not key or row[2] == key)], (
        rows
    )
    assert all(remedy for remedy in full.check()["remedy"])


WARNINGS = [
    (LEDGER.format("cache_read_tokens = 9, input_tokens = 5"), "usage_ledger", "exceed input_tokens"),
    (LEDGER.format("reasoning_tokens = 9999"), "usage_ledger", "reasoning_tokens exceed output_tokens"),
    (LEDGER.format("source = NULL"), "usage_ledger", "source_id without a source"),
    ("UPDATE context_registry SET superseded_by = id, checksum = NULL WHERE id = 'note-00009'", "context_registry",
     "superseded by itself"),
    ("UPDATE embedding_sets SET state = 'retired', checksum = NULL", "embedding_sets", "no set of vectors is active"),
    ("INSERT INTO embeddings (chunk_hash, model_id, dimensions, vector)"
     " SELECT 'x', model_id, dimensions, vector FROM embeddings LIMIT 1", "embeddings", "belongs to no chunk"),
    ("CREATE TRIGGER strange AFTER INSERT ON usage_ledger BEGIN SELECT 1; END", "usage_ledger", "not one of the lab's"),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "table", "finding"), WARNINGS, ids=[row[2] for row in WARNINGS])
def test_what_is_odd_or_can_be_mended_is_a_warning(full: Lab, statement: str, table: str, finding: str) -> None:
    spoil(full, statement)
    rows = [row for row in found(full) if finding in row[3]]
    assert {(row[0], row[1]) for row in rows} == {("warning", table)}


def test_a_circle_of_contexts_that_supersede_each_other_is_found(full: Lab) -> None:
    circle = {"note-00010": "note-00011", "note-00011": "note-00012", "note-00012": "note-00010"}
    spoil(
        full,
        *(
            f"UPDATE context_registry SET superseded_by = '{b}', checksum = NULL WHERE id = '{a}'"
            for a, b in circle.items()
        ),
    )
    assert {row[2] for row in found(full) if row[3] == "superseded in a circle"} == set(circle)


def test_what_users_add_to_the_file_is_no_business_of_the_check(full: Lab) -> None:
    spoil(full, "CREATE TABLE mine (a, b)", "INSERT INTO mine VALUES (1, 'x')", "CREATE VIEW v AS SELECT 1")
    spoil(full, "CREATE INDEX own ON usage_ledger(agent)")
    assert found(full) == set()


def test_many_findings_of_a_kind_are_counted(full: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_check, "MOST_OF_A_KIND", 5)
    spoil(full, "UPDATE usage_ledger SET quality_score = 7, checksum = NULL")
    count = full._storage.count("usage_ledger")
    findings = [row[3] for row in found(full)]
    assert findings.count("quality_score is not from 0 to 1") == 5
    assert f"quality_score is not from 0 to 1 ({count - 5:,} more)" in findings


def test_every_column_of_the_schema_that_has_a_rule_is_of_a_kind_that_the_rule_is_about(full: Lab) -> None:
    connection = sqlite3.connect(":memory:")
    row_rules.register(connection)
    connection.close()
    database = Database(sqlite3.connect(full.config.db_path), execute_plugins=False)
    for table in plain_tables(database):
        for name, kind in database.execute(f"SELECT name, type FROM pragma_table_info('{table}')").fetchall():
            texts = name in row_rules.TIMES | row_rules.DOCUMENTS
            numbers = name in row_rules.SHARES | row_rules.COUNTS | row_rules.FLAGS or name.endswith("_usd")
            assert not texts or kind == "TEXT", (table, name)
            assert not numbers or kind in ("INTEGER", "REAL"), (table, name)
    database.close()


# The write-ahead log


@pytest.fixture
def log(full: Lab) -> Path:
    """The write-ahead log with a few transactions."""
    for number in range(4):
        full.store_context(f"Note {number} that is only in the log.")
    return Path(f"{full.config.db_path}-wal")


def test_a_damaged_log_is_found_and_says_how_many_transactions_are_lost(full: Lab, log: Path) -> None:
    assert found(full) == set()
    data = bytearray(log.read_bytes())
    data[32 + 24 + 100] ^= 1
    log.write_bytes(data)
    (row,) = [row for row in found(full) if row[2] == "-wal"]
    assert row[0] == "error"
    assert "transactions after that are not read" in row[3]


def test_a_log_that_ends_in_an_interrupted_write_is_a_warning(full: Lab, log: Path) -> None:
    data = bytearray(log.read_bytes())
    data[-1] ^= 1
    log.write_bytes(data)
    (row,) = [row for row in found(full) if row[2] == "-wal"]
    assert row[0] == "warning"


def test_a_log_whose_beginning_is_damaged_is_found(full: Lab, log: Path) -> None:
    data = bytearray(log.read_bytes())
    data[5] ^= 1
    log.write_bytes(data)
    (row,) = [row for row in found(full) if row[2] == "-wal"]
    assert row[3] == "the beginning of the write-ahead log is damaged: nothing in it is read"


# Damaged files


def test_a_file_with_overwritten_pages_is_checked_to_its_end_without_an_error(pattern: Path, tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    path.write_bytes(pattern.read_bytes())
    anatomy = damage.anatomy(path)
    pages = anatomy.pages_of("context_registry", "usage_ledger", "context_registry_fts_data", "idx_access_log_at")
    damage.overwrite_pages(path, pages[1::3], random.Random(1))
    spoilt = path.read_bytes()
    frame = al.check_file(path)
    assert len(frame) > 5
    assert set(frame["severity"]) == {"error"}
    assert {"context_registry", "usage_ledger"} <= set(frame["table"])
    assert path.read_bytes() == spoilt


@pytest.mark.parametrize("change", [lambda data: b"x" * 100 + data[100:], lambda data: data[:5000], lambda data: b"x"])
def test_a_file_that_cannot_even_be_opened_is_a_finding(pattern: Path, tmp_path: Path, change: Any) -> None:
    path = tmp_path / "lab.db"
    path.write_bytes(change(pattern.read_bytes()))
    frame = al.check_file(path)
    assert "error" in set(frame["severity"])
    assert "al.repair" in frame["remedy"].iloc[0]


def test_a_file_that_is_not_there_is_not_made_by_checking_it(tmp_path: Path) -> None:
    with pytest.raises(al.LabNotFound, match=r"no lab at .*nowhere\.db"):
        al.check_file(tmp_path / "nowhere.db")
    assert not list(tmp_path.iterdir())


def test_health_of_a_damaged_lab_says_in_each_line_what_cannot_be_read(full: Lab) -> None:
    spoil(full, "DROP TABLE care_log", "ALTER TABLE embedding_sets RENAME TO elsewhere")
    health = full.health()
    assert health["quick_check"] == "ok"
    assert "cannot be read" in health["last_backup"]
    assert "cannot be read" in health["embedding_model"]
    assert health["contexts"] == 40
