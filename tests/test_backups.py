"""A backup is whole, checked, and never takes the place of anything but an older backup."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import whole_lab
from sqlite_utils.utils import sqlite3

import autom8_lab as al
from autom8_lab.lab import Lab

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def rows_of(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table that is not derived, but for the record of backups."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    tables = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'vec_%' AND name <> 'care_log'"
    ).fetchall()
    found = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for (name,) in tables}
    connection.close()
    return found


@pytest.fixture
def full(lab: Lab) -> Lab:
    whole_lab.fill(lab)
    return lab


def test_a_backup_is_an_equal_lab_for_its_owner_alone(full: Lab, tmp_path: Path) -> None:
    report = full.backup(tmp_path / "copy.db")
    assert report["verified"] is True
    assert report["file_bytes"] == (tmp_path / "copy.db").stat().st_size
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600
    assert names(tmp_path) == ["copy.db", "lab.db", "lab.db-shm", "lab.db-wal"]
    assert rows_of(tmp_path / "copy.db") == rows_of(tmp_path / "lab.db")
    assert al.check_file(tmp_path / "copy.db").empty
    with al.open(tmp_path / "copy.db", embedding_model="hash-64") as copy:
        assert copy.search("harbour tide", k=1)[0].context.id == full.search("harbour tide", k=1)[0].context.id


def test_the_last_backup_is_noted_and_health_tells_of_it_and_when_it_is_gone(tmp_path: Path) -> None:
    with al.open(tmp_path / "lab.db", embedding_model="hash-64", clock=lambda: NOON) as lab:
        lab.backup(tmp_path / "copy.db")
        assert lab.health()["last_backup"] == f"2026-03-01 12:00:00 UTC, {tmp_path / 'copy.db'}"
        (tmp_path / "copy.db").unlink()
        assert lab.health()["last_backup"].endswith("(no longer there)")


def test_what_was_only_in_memory_is_in_the_backup(full: Lab, tmp_path: Path) -> None:
    before = len(full.searches_df())
    full.search("a search that waits to be written")
    full.backup(tmp_path / "copy.db")
    with al.open(tmp_path / "copy.db", embedding_model="hash-64") as copy:
        assert len(copy.searches_df()) == before + 1


def test_a_lab_in_memory_can_be_kept_in_a_file(tmp_path: Path) -> None:
    with al.open(":memory:", embedding_model="hash-64") as lab:
        whole_lab.fill(lab, contexts=10, calls=5)
        lab.backup(tmp_path / "kept.db")
        counts = lab.stats()
    with al.open(tmp_path / "kept.db", embedding_model="hash-64") as kept:
        assert {name: kept.stats()[name] for name in ("contexts", "usage_rows", "searches")} == {
            name: counts[name] for name in ("contexts", "usage_rows", "searches")
        }
        assert kept.check().empty


def test_a_read_only_lab_can_be_backed_up(full: Lab, tmp_path: Path) -> None:
    with al.open(tmp_path / "lab.db", read_only=True) as lab:
        lab.backup(tmp_path / "copy.db")
    assert rows_of(tmp_path / "copy.db") == rows_of(tmp_path / "lab.db")
    assert full.health()["last_backup"].startswith("none")


def test_while_others_write_the_backup_is_as_of_one_moment(
    full: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autom8_lab.storage.sqlite_backup.PAGES_AT_ONCE", 3)
    stop, errors = threading.Event(), list[BaseException]()

    def write() -> None:
        number = 0
        try:
            while not stop.is_set():
                with full.transaction():
                    full.record_usage("a", input_tokens=number, output_tokens=0, agent="pair")
                    full.record_usage("b", input_tokens=number, output_tokens=0, agent="pair")
                number += 1
        except BaseException as exc:
            errors.append(exc)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(4):
            full.backup(tmp_path / f"copy{number}.db")
    finally:
        stop.set()
        writer.join()
    assert errors == []
    counts = []
    for number in range(4):
        with al.open(tmp_path / f"copy{number}.db", embedding_model="hash-64") as copy:
            calls = copy.ledger_df(agent="pair")
            assert list(calls["model"].value_counts()) in ([], [len(calls) // 2] * 2)
            counts.append(len(calls))
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]


# Where it goes


@pytest.mark.parametrize("name", ["backups", "backups/"])
def test_a_folder_keeps_the_newest_and_nothing_else_of_it_is_touched(tmp_path: Path, name: str) -> None:
    now = [NOON]
    with al.open(tmp_path / "agent.db", embedding_model="hash-64", clock=lambda: now[0]) as lab:
        folder = tmp_path / "backups"
        first = Path(lab.backup(f"{tmp_path}/{name}", keep=3)["path"])
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert first.name == "agent-20260301T120000000000Z.db"
        others = ["agent-notes.db", "agent-20260301T120000000000Z.db.txt", "other-20200301T120000000000Z.db"]
        for other in others:
            (folder / other).touch()
        for _ in range(4):
            now[0] += timedelta(days=1)
            report = lab.backup(folder, keep=3)
        assert report["removed"] == ["agent-20260302T120000000000Z.db"]
        kept = [f"agent-2026030{day}T120000000000Z.db" for day in (3, 4, 5)]
        assert names(folder) == sorted([*others, *kept])


def test_a_folder_keeps_seven_unless_told(tmp_path: Path) -> None:
    with al.open(tmp_path / "lab.db", embedding_model="hash-64", clock=lambda: NOON) as lab:
        for _ in range(9):
            lab.backup(tmp_path / "backups")
    kept = names(tmp_path / "backups")
    assert len(kept) == 7
    assert kept[-1] == "lab-20260301T120000000008Z.db"  # the same instant, and yet a name of its own


def test_a_file_is_replaced_by_its_newer_backup(full: Lab, tmp_path: Path) -> None:
    full.backup(tmp_path / "copy.db")
    full.store_context("Since the first backup.", context_id="since")
    full.backup(tmp_path / "copy.db")
    with al.open(tmp_path / "copy.db", embedding_model="hash-64") as copy:
        assert copy.get_context("since").content == "Since the first backup."


@pytest.mark.parametrize("other", ["lab.db", "./lab.db", "link.db", "lab.db-wal"])
def test_the_lab_itself_is_never_overwritten(full: Lab, tmp_path: Path, other: str) -> None:
    os.link(tmp_path / "lab.db", tmp_path / "link.db")
    before = rows_of(tmp_path / "lab.db")
    with pytest.raises(al.InvalidValue, match=r"is the lab itself: give another file"):
        full.backup(f"{tmp_path}/{other}")
    assert rows_of(tmp_path / "lab.db") == before


@pytest.mark.parametrize("content", [b"my notes", b"SQLite format 3\0" + bytes(500)])
def test_a_file_that_is_no_backup_is_not_replaced(full: Lab, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "notes.db").write_bytes(content)
    with pytest.raises(al.NotALab, match="replaces nothing but an older backup"):
        full.backup(tmp_path / "notes.db")
    assert (tmp_path / "notes.db").read_bytes() == content


def test_a_backup_that_somebody_has_open_is_not_replaced(full: Lab, tmp_path: Path) -> None:
    full.backup(tmp_path / "copy.db")
    with al.open(tmp_path / "copy.db", embedding_model="hash-64") as copy:
        copy.store_context("Written into the backup.")
        with pytest.raises(al.StorageError, match="somebody has that file open"):
            full.backup(tmp_path / "copy.db")
    full.backup(tmp_path / "copy.db")


def test_values_that_make_no_sense_are_refused_before_anything_is_written(full: Lab, tmp_path: Path) -> None:
    before = names(tmp_path)
    with pytest.raises(al.StorageError, match=r"no folder .*nowhere: create it first"):
        full.backup(tmp_path / "nowhere" / "copy.db")
    with pytest.raises(al.InvalidValue, match="keep=3 is about a folder"):
        full.backup(tmp_path / "copy.db", keep=3)
    for keep in (0, -1, 1.5, "7", True):
        with pytest.raises(al.InvalidValue, match="keep="):
            full.backup(tmp_path, keep=keep)  # type: ignore[arg-type]
    with full.transaction(), pytest.raises(al.StorageError, match="leave the block first"):
        full.backup(tmp_path / "copy.db")
    assert names(tmp_path) == before


# When it counts


def test_a_damaged_lab_gets_no_backup_and_the_older_ones_stay(full: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    full.backup(folder, keep=1)
    before = {item.name: item.read_bytes() for item in folder.iterdir()}
    connection = sqlite3.connect(full.config.db_path, isolation_level=None)
    connection.execute("UPDATE context_registry SET content = 'another' WHERE id = 'note-00009'")
    connection.close()
    with pytest.raises(al.DamagedLab, match=r"the copy has \d+ errors.*older backups stay.*al\.repair"):
        full.backup(folder, keep=1)
    assert {item.name: item.read_bytes() for item in folder.iterdir()} == before
    assert full.health()["last_backup"].endswith(next(iter(before)))


def test_a_lab_that_is_only_odd_gets_its_backup(full: Lab, tmp_path: Path) -> None:
    full._storage.update("usage_ledger", [al.records.Condition("usage_key", "=", 7)], {"source": None})
    assert set(full.check()["severity"]) == {"warning"}
    assert full.backup(tmp_path / "copy.db")["verified"]


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="no limits on the size of files here")
def test_where_there_is_no_room_for_it_a_backup_leaves_nothing_and_the_older_one_stays(
    full: Lab, tmp_path: Path
) -> None:
    full.backup(tmp_path / "copy.db")
    before = (tmp_path / "copy.db").read_bytes()
    code = """
        import resource, signal, sys
        import autom8_lab as al
        lab = al.open(sys.argv[1], embedding_model="hash-64", access_log=False)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        try:
            lab.backup(sys.argv[2])
        except al.StorageError as exc:
            print(type(exc).__name__)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), full.config.db_path, str(tmp_path / "copy.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() in ("StorageFull", "StorageError"), done.stdout + done.stderr
    assert (tmp_path / "copy.db").read_bytes() == before
    assert [name for name in names(tmp_path) if "lab.db" not in name] == ["copy.db"]
