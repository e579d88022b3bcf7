"""Killed processes, a crowd, a full disk and mutated files, briefly; benchmarks/faults.py and damage.py do it for long."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import damage
import fault_work
import pytest
import whole_lab
from sqlite_utils import Database
from whole_lab import NOON

import autom8_lab as al
from autom8_lab.lab import Lab
from autom8_lab.storage.cross_checks import wrong_chunks

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork server here")


@pytest.fixture(autouse=True, scope="module")
def loaded() -> None:
    fault_work.processes.set_forkserver_preload(fault_work.modules())


@pytest.mark.parametrize("synchronous", ["FULL", "NORMAL"])
def test_what_was_acknowledged_survives_kill_9_and_nothing_is_half_written(tmp_path: Path, synchronous: str) -> None:
    path, expected, wrong = tmp_path / "lab.db", fault_work.Expected(), []
    fault_work.new_lab_to_kill(path, synchronous)
    for number in range(10):
        wrong += fault_work.kill_round(path, expected, number=number, seed=3, synchronous=synchronous)
        if number and sum(expected.acknowledged.values()) > 20:
            break
    assert wrong == []
    assert sum(expected.acknowledged.values()) > 20


def test_a_crowd_of_processes_and_threads_loses_no_update_and_sees_no_error(tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    fault_work.fill_for_crowd(path)
    done, wrong = fault_work.crowd(path, others=3, threads=8, seconds=2, seed=0)
    assert done.errors == []
    assert wrong == []
    assert sum(done.counts[f"counter-{number}"] for number in range(fault_work.COUNTERS)) > 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_loses_nothing_acknowledged_and_work_goes_on_when_it_is_freed(small_disk: Path) -> None:
    found = fault_work.fill_a_disk(small_disk)
    assert found["wrong"] == []
    assert set(found["errors"]) == {"StorageFull"}
    assert found["after"] == 20


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lab with every kind of row, as a killed process leaves it: the last changes are only in the log."""
    path = tmp_path_factory.mktemp("pattern") / "lab.db"
    copy = path.with_name("left.db")
    with al.open(path, embedding_model="hash-64", vector_engine="sqlite-vec", synchronous="OFF") as lab:
        whole_lab.fill(lab, contexts=30, calls=20)
        lab.search("harbour tide", method="semantic")
    with al.open(path, embedding_model="hash-64", synchronous="OFF") as lab:
        for number in range(10):
            lab.store_context(f"Only in the log {number}: {whole_lab.text(number + 900)}")
        for ending in ("", "-wal"):
            shutil.copy(f"{path}{ending}", f"{copy}{ending}")
    return copy


@pytest.mark.parametrize("seed", range(24))
def test_a_mutated_file_ends_in_a_result_or_an_error_of_ours(pattern: Path, tmp_path: Path, seed: int) -> None:
    ends = damage.fuzz(str(pattern), str(tmp_path), seed)
    assert set(ends) == {"mutation", "check", "repair", "use"}


# What these found


def test_a_new_text_for_one_of_several_ids_supersedes_those_it_leaves(lab: Lab) -> None:
    for name in ("eel", "fox"):
        lab.store_context("violet stone", context_id=name)
    lab.store_context("lamp stone", context_id="eel", supersedes="fox", if_exists="update")
    assert lab.get_context("fox").superseded_by == "eel"
    assert lab.get_context("eel").content == "lamp stone"


def test_a_log_that_names_a_page_far_beyond_the_file_is_repaired_at_once(pattern: Path, tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    for ending in ("", "-wal"):
        shutil.copy(f"{pattern}{ending}", f"{path}{ending}")
    damage.write_at(Path(f"{path}-wal"), 32, (2**31).to_bytes(4, "big"))
    damage.overwrite_pages(path, [2, 3], random.Random(0))
    assert al.repair(path, to=tmp_path / "new.db")["saved"] > 0


def test_a_chunk_whose_place_is_gone_is_wrong_and_no_crash() -> None:
    rows = [(1, 1, 0, None, None, b"hash", 7)]
    assert wrong_chunks(b"text", rows)[0] == (7, "where it stands in the text is no number")


@pytest.mark.parametrize("verb", ["backup", "export"])
def test_a_file_that_the_system_refuses_to_make_is_an_error_of_ours(lab: Lab, tmp_path: Path, verb: str) -> None:
    with pytest.raises(al.StorageError, match="name too long: check the path"):
        getattr(lab, verb)(tmp_path / ("x" * 300 + ".db"))
    assert sorted(item.name for item in tmp_path.iterdir() if item.name[0] in ".x") == []


def test_a_backup_sweeps_away_what_killed_ones_left(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    for name, age in (("old", 100_000), ("running", 60)):
        place = folder / f".backup-{name}"
        place.mkdir(parents=True)
        (place / "copy.db").write_bytes(b"part")
        then = place.stat().st_mtime - age
        os.utime(place, (then, then))
    lab.backup(folder)
    assert [item.name for item in folder.glob(".backup-*")] == [".backup-running"]


def test_damaged_metadata_in_the_ledger_says_so(lab: Lab) -> None:
    lab.record_usage("m", at=NOON, metadata={"a": 1})
    other = Database(lab.config.db_path)
    other.execute("UPDATE usage_ledger SET metadata = '{\"a'")
    other.close()
    with pytest.raises(al.DamagedLab, match="metadata of a call"):
        lab.ledger_df()


def redefined(path: Path, table: str, old: str, new: str, *statements: str) -> None:
    """Let a column hold what its table would refuse, as damage does, and put it there."""
    other = Database(path)
    other.execute("PRAGMA writable_schema = 1")
    other.execute(
        "UPDATE sqlite_master SET sql = replace(replace(sql, ?, ?), 'STRICT', '') WHERE name = ?", [old, new, table]
    )
    other.execute("PRAGMA writable_schema = RESET")
    for statement in statements:
        other.execute(statement)
    other.close()


def test_a_number_in_the_place_of_a_models_name_is_damage(lab: Lab) -> None:
    lab.store_context("A text.")
    path = Path(str(lab.config.db_path))
    lab.close()
    redefined(path, "embedding_sets", "TEXT", "BLOB", "UPDATE embedding_sets SET model_name = 7")
    with pytest.raises(al.DamagedLab, match="embedding_sets holds a value that cannot be read"):
        al.open(path, embedding_model="hash-64")


@pytest.mark.parametrize(("column", "value"), [("id", "CAST(id AS BLOB)"), ("priority", "'high'")])
def test_a_value_of_another_type_than_its_column_is_damage(lab: Lab, column: str, value: str) -> None:
    lab.store_context("A text.", context_id="one")
    changes = f"UPDATE context_registry SET {column} = {value}"
    redefined(Path(str(lab.config.db_path)), "context_registry", "", "", changes)
    with pytest.raises(al.DamagedLab, match=rf"context_registry holds a value.*{column} is of the type.*al\.check"):
        lab.list_contexts()


def test_a_context_without_its_text_is_damage(lab: Lab) -> None:
    lab.store_context("A text.", context_id="one")
    path = Path(str(lab.config.db_path))
    lab.close()
    redefined(path, "context_registry", "NOT NULL", "", "UPDATE context_registry SET content = NULL")
    with al.open(path, embedding_model="hash-64") as damaged:
        with pytest.raises(al.DamagedLab, match="'one' does not fit its hash"):
            damaged.get_context("one")
        with pytest.warns(al.DamagedContextWarning):
            assert damaged.list_contexts() == []
