"""The schema goes up and down step by step; whatever is not ours to change is refused, and stays as it was."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database
from sqlite_utils.migrations import Migrations
from sqlite_utils.utils import sqlite3

import autom8_lab as al
from autom8_lab.embedding.chunking import text_hash
from autom8_lab.lab import Lab
from autom8_lab.recommendation import Evidence, Recommendation
from autom8_lab.storage import migrations

STEPS = migrations.names()
TOTAL = len(STEPS)
PROCESSES = 4


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed processes lose nothing by it, only a power cut would; the tests are ten times as quick."""
    monkeypatch.setenv("AUTOM8_SYNCHRONOUS", "OFF")


@contextmanager
def connected(path: Path) -> Iterator[Database]:
    """The file seen from outside, through the package's own driver: two SQLite libraries must not share a file."""
    database = Database(sqlite3.connect(path), execute_plugins=False)
    try:
        yield database
        database.conn.commit()
    finally:
        database.close()


def schema(path: Path) -> list[tuple[str, str, str, str]]:
    """Every table, index, trigger and view of a file, sorted."""
    with connected(path) as database:
        return sorted(database.execute("SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master").fetchall())


def ours(rows: list[tuple[str, str, str, str]]) -> list[tuple[str, str, str, str]]:
    """Leave out the record of migrations and SQLite's own table, which stay once they have been used."""
    return [row for row in rows if row[2] not in ("_sqlite_migrations", "sqlite_sequence")]


def at_version(path: Path, version: int) -> Path:
    al.run_migrations(path, to=version)
    return path


def folder_of(path: Path) -> dict[str, bytes]:
    """Every file beside a path, with its bytes.

    Without the index and the empty log that SQLite's own read-only connections leave beside a WAL file.
    """
    content = {item.name: item.read_bytes() for item in path.parent.iterdir() if item.is_file()}
    return {name: data for name, data in content.items() if not name.endswith("-shm") and (data or "-wal" not in name)}


def fill(lab: Lab) -> None:
    """Put a row into every table that a lab has verbs or operations for today."""
    first = lab.store_context("The tide tables are in the harbour office.", topic="harbour", context_id="tides")
    lab.store_context("The tide tables are in the harbour office.", topic="harbour", context_id="same-tides")
    lab.store_context("The harbour office moved.", supersedes=first, context_id="moved")
    lab.search("tide tables")
    storage = lab._storage
    decision = {"id": "d1", "at": datetime.now(UTC), "decision_type": "route", "candidates": {}, "metadata": {}}
    storage.insert("agent_decisions", [decision])
    storage.insert("decision_contexts", [{"decision_id": "d1", "position": 0, "context_id": "tides"}])
    call = {"at": datetime.now(UTC), "model": "m", "operation": "chat", "decision_id": "d1"}
    storage.insert("usage_ledger", [call])
    evidence = Evidence(40, "nDCG@10", 0.02, 0.01, 0.03, held_out=True, data_hash="5f0c")
    advice = Recommendation("search", {"fusion": "rrf"}, "recommend", "better", evidence, created_at=datetime.now(UTC))
    lab.apply(advice)


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


# Up and down


def test_up_down_to_zero_and_up_again_leaves_an_identical_schema(tmp_path: Path) -> None:
    path = at_version(tmp_path / "lab.db", TOTAL)
    before = schema(path)
    al.run_migrations(path, to=0)
    assert schema(path) != before
    al.run_migrations(path)
    assert schema(path) == before


def test_down_to_zero_leaves_nothing_but_the_record_of_migrations(tmp_path: Path) -> None:
    path = at_version(tmp_path / "lab.db", TOTAL)
    al.run_migrations(path, to=0)
    assert ours(schema(path)) == []
    with connected(path) as database:
        assert database.execute("SELECT count(*) FROM _sqlite_migrations").fetchone() == (0,)


@pytest.mark.parametrize("vector_engine", ["sqlite-vec", "exact"])
def test_a_lab_full_of_data_goes_down_to_zero_and_up_again(tmp_path: Path, vector_engine: str) -> None:
    path = tmp_path / "lab.db"
    with al.open(path, embedding_model="hash-16", vector_engine=vector_engine) as lab:
        empty = schema(path)
        fill(lab)
    al.run_migrations(path, to=0)
    al.run_migrations(path)
    assert schema(path) == empty
    with al.open(path, embedding_model="hash-16", vector_engine=vector_engine) as lab:
        assert lab.stats()["contexts"] == 0
        lab.store_context("A new beginning.")
        assert [hit.context.content for hit in lab.search("beginning", method="semantic")] == ["A new beginning."]
    with connected(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("version", range(TOTAL))
def test_one_step_up_and_down_again_leaves_the_version_before_it(tmp_path: Path, version: int) -> None:
    path = at_version(tmp_path / "lab.db", version)
    before = schema(path)
    at_version(path, version + 1)
    above = schema(path)
    at_version(path, version)
    assert ours(schema(path)) == ours(before)
    at_version(path, version + 1)
    assert schema(path) == above


def test_each_single_step_keeps_the_data_of_the_steps_below_it(tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    with al.open(path, embedding_model="hash-16") as lab:
        fill(lab)
    for version in range(TOTAL - 1, 0, -1):
        al.run_migrations(path, to=version)
        with connected(path) as database:
            assert database.execute("SELECT id FROM context_registry ORDER BY id").fetchall() == [
                ("moved",),
                ("tides",),
            ]
            assert database.execute("SELECT alias FROM context_aliases").fetchall() == [("same-tides",)]
            assert database.execute("PRAGMA foreign_key_check").fetchall() == []
    with al.open(path, embedding_model="hash-16") as lab:
        assert lab.get_context("same-tides").id == "tides"
        found = lab.search("harbour", method="text", include_superseded=True)
        assert {hit.context.id for hit in found} == {"moved", "tides"}


def test_every_migration_is_numbered_documented_and_has_a_reverse() -> None:
    registered = [item.name for item in migrations.migrations.pending(Database(memory=True))]
    assert registered == list(migrations.reverses)
    assert [name[:4] for name in registered] == [f"m{number:03}" for number in range(1, len(registered) + 1)]
    assert all(re.fullmatch(r"m\d{3}_[a-z_]+", name) for name in registered)
    assert all((getattr(migrations, name).__doc__ or "").strip() for name in registered)


# Status and versions


def test_status_counts_names_and_dates_what_is_applied_and_what_is_pending(tmp_path: Path) -> None:
    started = datetime.now(UTC)
    path = at_version(tmp_path / "lab.db", 3)
    status = al.get_migration_status(path)
    assert (status["applied_count"], status["total_migrations"]) == (3, TOTAL)
    assert [name for name, _ in status["applied"]] == STEPS[:3]
    assert status["pending"] == STEPS[3:]
    times = [datetime.fromisoformat(time) for _, time in status["applied"]]
    assert times == sorted(times)
    assert started - timedelta(seconds=1) <= times[0] <= times[-1] <= datetime.now(UTC) + timedelta(seconds=1)


def test_run_migrations_returns_the_status_it_leaves_behind(tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    report = al.run_migrations(path)
    assert report == al.get_migration_status(path)
    assert (report["applied_count"], report["pending"]) == (TOTAL, [])


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    first = al.run_migrations(path)
    before = path.read_bytes()
    assert al.run_migrations(path) == first
    assert path.read_bytes() == before


@pytest.mark.parametrize("version", [0, 3, TOTAL])
def test_asking_for_the_status_changes_no_byte(tmp_path: Path, version: int) -> None:
    path = at_version(tmp_path / "lab.db", version)
    before = folder_of(path)
    al.get_migration_status(path)
    assert folder_of(path) == before


def test_asking_for_the_status_of_a_zero_byte_file_leaves_it_at_zero_bytes(tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    path.touch()
    status = al.get_migration_status(path)
    assert (status["applied_count"], status["pending"]) == (0, STEPS)
    assert folder_of(path) == {"lab.db": b""}


def test_asking_for_the_status_of_a_missing_file_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(al.LabNotFound, match=r"al\.open"):
        al.get_migration_status(tmp_path / "missing.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", range(TOTAL + 1))
def test_a_version_can_be_given_by_number(tmp_path: Path, version: int) -> None:
    path = at_version(tmp_path / "lab.db", TOTAL - version)
    assert [name for name, _ in al.run_migrations(path, to=version)["applied"]] == STEPS[:version]


@pytest.mark.parametrize("name", STEPS)
def test_a_version_can_be_given_by_name_and_means_the_last_step_to_keep(tmp_path: Path, name: str) -> None:
    number = STEPS.index(name) + 1
    assert al.run_migrations(tmp_path / "up.db", to=name)["applied_count"] == number
    path = at_version(tmp_path / "down.db", TOTAL)
    assert al.run_migrations(path, to=name)["applied"][-1][0] == name
    assert ours(schema(path)) == ours(schema(tmp_path / "up.db"))


@pytest.mark.parametrize("version", [-1, TOTAL + 1, 2.0, True, "3", "", "m999_unknown", "M001_contexts", [1]])
def test_an_unknown_version_is_refused_with_the_known_ones_and_changes_nothing(tmp_path: Path, version: Any) -> None:
    path = at_version(tmp_path / "lab.db", 2)
    before = path.read_bytes()
    with pytest.raises(al.InvalidValue, match=re.escape(f"no version {version!r}: give 0 to {TOTAL}")) as caught:
        al.run_migrations(path, to=version)
    assert all(name in str(caught.value) for name in STEPS)
    assert path.read_bytes() == before


# Older files


@pytest.mark.parametrize("version", range(TOTAL))
def test_opening_an_older_file_brings_it_to_the_newest_schema(tmp_path: Path, version: int) -> None:
    path = at_version(tmp_path / "old.db", version)
    with al.open(path, embedding_model="hash-16") as lab:
        assert lab.health()["migrations"] == f"{TOTAL}/{TOTAL}"
    assert schema(path) == schema(at_version(tmp_path / "new.db", TOTAL))


def test_opening_an_older_file_keeps_its_contexts_and_makes_them_findable(tmp_path: Path) -> None:
    path = at_version(tmp_path / "old.db", 3)
    row = {"content": "Cranes stop above 14 m/s of wind.", "id": "cranes", "topic": "harbour", "pinned": 1}
    times = {"created_at": "2024-02-29T12:00:00.000001+00:00", "updated_at": "2024-02-29T12:00:00.000001+00:00"}
    with connected(path) as database:
        database.table("context_registry").insert(
            {**row, **times, "content_hash": text_hash(row["content"]), "metadata": '{"wind": 14}'}
        )
    with al.open(path, embedding_model="hash-16") as lab:
        context = lab.get_context("cranes")
        assert (context.content, context.topic, context.pinned) == (row["content"], "harbour", True)
        assert context.metadata == {"wind": 14}
        assert context.created_at == datetime(2024, 2, 29, 12, 0, 0, 1, tzinfo=UTC)
        assert [hit.context.id for hit in lab.search("crane", method="text")] == ["cranes"]
        assert lab.embed_contexts()["contexts_embedded"] == 1
        assert [hit.context.id for hit in lab.search("wind", method="semantic")] == ["cranes"]


def test_an_older_file_that_indexed_no_text_yet_is_indexed_by_the_step_that_brings_text_search(tmp_path: Path) -> None:
    path = at_version(tmp_path / "old.db", 2)
    times = {"created_at": "2024-01-01T00:00:00.000000+00:00", "updated_at": "2024-01-01T00:00:00.000000+00:00"}
    with connected(path) as database:
        database.table("context_registry").insert(
            {"id": "a", "content": "Bollards", "content_hash": text_hash("Bollards"), **times}
        )
    with al.open(path, embedding_model="hash-16") as lab:
        assert [hit.context.id for hit in lab.search("bollard", method="text")] == ["a"]


def test_an_older_file_opened_read_only_is_refused_with_the_remedy_and_unchanged(tmp_path: Path) -> None:
    path = at_version(tmp_path / "old.db", 3)
    before = folder_of(path)
    with pytest.raises(al.ReadOnlyLab, match="open it once for writing"):
        al.open(path, read_only=True)
    assert folder_of(path) == before


# Newer and foreign files, and what is no file at all


def newer(path: Path) -> None:
    al.run_migrations(path)
    with connected(path) as database:
        database.execute("INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (?, ?, ?)", [
            migrations.SET_NAME, "m999_from_the_future", "2999-01-01 00:00:00+00:00"
        ])  # fmt: skip


def other_tables(path: Path) -> None:
    with connected(path) as database:
        database.table("recipes").insert({"name": "bread"})


def other_migrations(path: Path) -> None:
    """A program that keeps its schema with sqlite-utils' migrations, as we do."""
    steps = Migrations("another_program")

    @steps()
    def first(database: Database) -> None:
        database.table("logs").insert({"line": "hello"})

    with connected(path) as database:
        steps.apply(database)


def other_application_id(path: Path) -> None:
    with connected(path) as database:
        database.execute("PRAGMA application_id = 1196444487")  # a GeoPackage


def text_file(path: Path) -> None:
    path.write_text("Dear diary,\n", encoding="utf-8")


def short_file(path: Path) -> None:
    path.write_bytes(b"S")


def broken_database(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 16)


ENTRANCES: dict[str, Callable[[Path], object]] = {
    "open": lambda path: al.open(path, embedding_model="hash-16"),
    "open read-only": lambda path: al.open(path, embedding_model="hash-16", read_only=True),
    "run_migrations": al.run_migrations,
    "run_migrations to zero": lambda path: al.run_migrations(path, to=0),
    "get_migration_status": al.get_migration_status,
}


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize(
    ("made_by", "error", "message"),
    [
        (newer, al.NewerSchema, r"m999_from_the_future.*upgrade.*not touched"),
        (other_tables, al.NotALab, r"another program \(it has recipes\).*not touched"),
        (other_migrations, al.NotALab, r"another program.*not touched"),
        (other_application_id, al.NotALab, r"another program.*not touched"),
        (text_file, al.NotALab, r"not an SQLite file.*not touched"),
        (short_file, al.NotALab, r"not an SQLite file.*not touched"),
        (broken_database, (al.NotALab, al.DamagedLab), r"file\.db"),
    ],
)
def test_a_file_that_is_not_ours_to_change_is_refused_and_keeps_every_byte(
    tmp_path: Path, entrance: str, made_by: Callable[[Path], None], error: type[al.LabError], message: str
) -> None:
    path = tmp_path / "file.db"
    made_by(path)
    before = folder_of(path)
    with pytest.raises(error, match=message):
        ENTRANCES[entrance](path)
    assert folder_of(path) == before


def test_a_newer_file_with_an_unfinished_log_is_refused_and_nothing_is_moved_into_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    al.open(path, embedding_model="hash-16").close()
    code = (
        "import os, sys\nfrom sqlite_utils.utils import sqlite3\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        'connection.execute("INSERT INTO _sqlite_migrations (migration_set, name, applied_at)'
        " VALUES ('autom8_lab', 'm999_from_the_future', '2999-01-01 00:00:00+00:00')\")\n"
        "os._exit(9)"
    )
    assert run_python(code, path).returncode == 9
    before = path.read_bytes()
    assert Path(f"{path}-wal").stat().st_size > 0
    for _ in range(2):
        with pytest.raises(al.NewerSchema):
            al.open(path)
    # Whoever closes last moves the log into the file; the content is then the same, row by row.
    with connected(path) as database:
        rows = database.execute("SELECT name FROM _sqlite_migrations ORDER BY id").fetchall()
    assert [name for (name,) in rows] == [*STEPS, "m999_from_the_future"]
    assert path.read_bytes()[:16] == before[:16]


def test_a_lab_at_version_zero_is_a_lab_and_opens(tmp_path: Path) -> None:
    path = at_version(tmp_path / "lab.db", TOTAL)
    al.run_migrations(path, to=0)
    with al.open(path, embedding_model="hash-16") as lab:
        assert lab.health()["migrations"] == f"{TOTAL}/{TOTAL}"


def test_an_empty_sqlite_file_without_an_owner_becomes_a_lab(tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    with connected(path) as database:
        database.execute("VACUUM")
    assert path.stat().st_size > 0
    al.open(path, embedding_model="hash-16").close()
    assert schema(path) == schema(at_version(tmp_path / "new.db", TOTAL))


def test_a_lab_restored_from_its_sql_text_still_opens(tmp_path: Path) -> None:
    # What a dump holds: tables and rows, but no PRAGMA such as application_id.
    path, copy = at_version(tmp_path / "lab.db", 1), tmp_path / "copy.db"
    with connected(path) as database, connected(copy) as restored:
        for (sql,) in database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid"):
            restored.execute(sql)
        restored.table("_sqlite_migrations").insert_all(list(database.table("_sqlite_migrations").rows))
    with al.open(copy, embedding_model="hash-16") as lab:
        assert lab.health()["migrations"] == f"{TOTAL}/{TOTAL}"


def test_a_zero_byte_file_becomes_a_lab(tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    path.touch()
    with al.open(path, embedding_model="hash-16") as lab:
        lab.store_context("Something.")
    assert al.get_migration_status(path)["pending"] == []


def test_a_zero_byte_file_opened_read_only_is_refused_and_stays_at_zero_bytes(tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    path.touch()
    with pytest.raises(al.ReadOnlyLab, match="open it once for writing"):
        al.open(path, read_only=True)
    assert folder_of(path) == {"lab.db": b""}


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_folder_is_refused_with_a_path_that_would_do(tmp_path: Path, entrance: str) -> None:
    with pytest.raises(al.StorageError, match=rf"is a folder.*{re.escape(str(tmp_path / 'autom8.db'))}"):
        ENTRANCES[entrance](tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("entrance", ["open", "run_migrations"])
def test_a_missing_folder_is_refused_and_not_created(tmp_path: Path, entrance: str) -> None:
    with pytest.raises(al.StorageError, match=r"no folder .*missing: create it first"):
        ENTRANCES[entrance](tmp_path / "missing" / "lab.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("entrance", ["open read-only", "get_migration_status"])
def test_a_missing_file_is_not_created_by_looking_at_it(tmp_path: Path, entrance: str) -> None:
    with pytest.raises(al.LabNotFound, match=r"no lab at .*lab\.db.*al\.open"):
        ENTRANCES[entrance](tmp_path / "lab.db")
    assert list(tmp_path.iterdir()) == []


def test_a_new_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    with al.open(tmp_path / "lab.db", embedding_model="hash-16") as lab:
        lab.store_context("A secret.")
        modes = {item.name: item.stat().st_mode & 0o777 for item in tmp_path.iterdir()}
    assert set(modes.values()) == {0o600}, modes


# Crashes and crowds

ONE_STEP = """
import os, signal, sys
from sqlite_utils import Database
from sqlite_utils.utils import sqlite3
from autom8_lab.storage import migrations
database = Database(sqlite3.connect(sys.argv[1]), execute_plugins=False)
database.execute("PRAGMA cache_size = 1")  # so that half of the step is in the file when the process dies
database.execute("BEGIN IMMEDIATE")
getattr(migrations, sys.argv[2])(database)
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_in_step(path: Path, version: int, *, journal: str) -> None:
    """Bring a file to a version, and kill a process after its next step, before the commit."""
    at_version(path, version)
    with connected(path) as database:
        assert database.execute(f"PRAGMA journal_mode = {journal}").fetchone() == (journal,)
    assert run_python(ONE_STEP, path, STEPS[version]).returncode == -signal.SIGKILL


@pytest.mark.parametrize("version", range(TOTAL))
def test_a_process_killed_after_a_step_and_before_its_commit_leaves_the_version_before(
    tmp_path: Path, version: int
) -> None:
    path = tmp_path / "lab.db"
    killed_in_step(path, version, journal="wal")
    assert al.get_migration_status(path)["applied_count"] == version
    assert ours(schema(path)) == ours(schema(at_version(tmp_path / "same.db", version)))
    al.open(path, embedding_model="hash-16").close()
    assert schema(path) == schema(at_version(tmp_path / "new.db", TOTAL))


def test_a_step_killed_without_a_write_ahead_log_is_taken_back_when_the_file_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    killed_in_step(path, 3, journal="delete")
    assert Path(f"{path}-journal").stat().st_size > 0
    al.open(path, embedding_model="hash-16").close()
    assert schema(path) == schema(at_version(tmp_path / "new.db", TOTAL))


def test_a_file_with_an_unfinished_rollback_says_to_open_it_for_writing_when_it_is_only_looked_at(
    tmp_path: Path,
) -> None:
    path = tmp_path / "lab.db"
    killed_in_step(path, 3, journal="delete")
    before = folder_of(path)
    with pytest.raises(al.ReadOnlyLab, match="open it once for writing"):
        al.get_migration_status(path)
    assert folder_of(path) == before


CRASH = """
import os, signal, sys
import autom8_lab as al
from autom8_lab.storage import migrations

@migrations.migrations()
def m900_another_step(database):
    database.table("half_done").create({"id": int, "text": str}, pk="id")
    database.table("half_done").insert_all({"text": "x" * 1000} for _ in range(2000))
    database.execute("DELETE FROM settings_log")
    if sys.argv[2] == "up":
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[2] == "raise":
        raise RuntimeError("the step failed")

@migrations.reverse_of(m900_another_step)
def _(database):
    database.table("half_done").drop()
    os.kill(os.getpid(), signal.SIGKILL)

al.run_migrations(sys.argv[1])
al.run_migrations(sys.argv[1], to=len(migrations.names()) - 1)
"""


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
@pytest.mark.parametrize(("where", "code"), [("up", -signal.SIGKILL), ("raise", 1)])
def test_a_migration_that_dies_or_fails_in_the_middle_leaves_the_version_before(
    tmp_path: Path, where: str, code: int, journal: str
) -> None:
    path = tmp_path / "lab.db"
    with al.open(path, embedding_model="hash-16") as lab:
        fill(lab)
    with connected(path) as database:
        database.execute(f"PRAGMA journal_mode = {journal}").fetchone()
    before = schema(path)
    ended = run_python(CRASH, path, where)
    assert ended.returncode == code, ended.stderr
    with al.open(path, embedding_model="hash-16") as lab:
        assert lab.health()["migrations"] == f"{TOTAL}/{TOTAL}"
        assert lab._storage.count("settings_log") == 1
        assert lab.stats()["contexts"] == 2
    assert schema(path) == before


def test_a_process_killed_in_the_middle_of_going_back_leaves_the_version_it_was_at(tmp_path: Path) -> None:
    path = at_version(tmp_path / "lab.db", TOTAL)
    ended = run_python(CRASH, path, "down")
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    with connected(path) as database:
        assert database.execute("SELECT count(*) FROM half_done").fetchone() == (2000,)
        rows = database.execute("SELECT name FROM _sqlite_migrations ORDER BY id").fetchall()
    assert [name for (name,) in rows] == [*STEPS, "m900_another_step"]


FILES = 4
OPEN_TOGETHER = (
    f"FILES = {FILES}"
    + """
import sys, time
import autom8_lab as al
al.open(":memory:", embedding_model="hash-16").store_context("Everything is imported now.")
print("ready", flush=True)
folder, me, start = sys.argv[1], sys.argv[2], float(sys.stdin.readline())
for number in range(FILES):
    while time.time() < start + 0.2 * number:
        pass
    with al.open(f"{folder}/{number}.db", embedding_model="hash-16") as lab:
        lab.store_context(f"Process {me} was here.", context_id=me)
"""
)


@pytest.mark.parametrize("version", [None, 3])
def test_processes_that_open_one_new_or_older_file_at_once_all_succeed(tmp_path: Path, version: int | None) -> None:
    labs = tmp_path / "labs"
    labs.mkdir()
    paths = [labs / f"{number}.db" for number in range(FILES)]
    if version is not None:
        for path in paths:
            at_version(path, version)
    command = [sys.executable, "-c", OPEN_TOGETHER, str(labs)]
    pipe = subprocess.PIPE
    children = [
        subprocess.Popen([*command, f"p{number}"], text=True, stdin=pipe, stdout=pipe, stderr=pipe)
        for number in range(PROCESSES)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    start = time.time() + 0.1
    ends = [(child.communicate(f"{start}\n", timeout=60), child.returncode) for child in children]
    assert ends == [(("", ""), 0)] * PROCESSES
    expected = schema(at_version(tmp_path / "new.db", TOTAL))
    for path in paths:
        assert schema(path) == expected
        with connected(path) as database:
            ids = database.execute("SELECT id FROM context_registry ORDER BY id").fetchall()
            assert ids == [(f"p{number}",) for number in range(PROCESSES)]
            assert database.execute("SELECT count(*) FROM _sqlite_migrations").fetchone() == (TOTAL,)
