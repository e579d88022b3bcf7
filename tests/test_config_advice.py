"""What is said about a configuration on a machine, and for a file."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import autom8_lab as al
from autom8_lab.config import LabConfig
from autom8_lab.config.advice import File, Machine, remarks, this_machine

GB = 1_000_000_000
MACHINE = Machine(cores=8, memory_bytes=16 * GB, disk_free_bytes=100 * GB)
FILE = File()


def said(*, machine: Machine = MACHINE, file: File = FILE, **settings: Any) -> dict[str, tuple[str, str]]:
    config = LabConfig.load(**settings)
    return {row["setting"]: (row["kind"], f"{row['advice']} ({row['why']})") for row in remarks(config, machine, file)}


def test_a_usual_configuration_needs_no_advice() -> None:
    for preset in (None, "development", "testing", "production"):
        assert said(preset=preset) == {}


def test_durability_that_can_lose_the_file_is_a_problem() -> None:
    kind, text = said(synchronous="OFF")["synchronous"]
    assert kind == "problem"
    assert "use NORMAL or FULL" in text
    assert "synchronous" not in said(synchronous="OFF", db_path=":memory:")


def test_an_sqlite_with_the_wal_reset_bug_is_a_problem() -> None:
    kind, text = said(file=File(wal_reset_bug="install pysqlite3"))["db_path"]
    assert (kind, "install pysqlite3 (this SQLite can damage" in text) == ("problem", True)
    assert said(file=File(wal_reset_bug="install pysqlite3"), preset="testing") == {}


def test_a_folder_that_is_missing_or_shut_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "create the folder" in said(db_path=str(tmp_path / "no" / "x.db"))["db_path"][1]
    monkeypatch.setattr(
        os, "access", lambda place, mode: False
    )  # root, who runs tests in containers, may write anywhere
    assert "give permission to write" in said(db_path=str(tmp_path / "x.db"))["db_path"][1]
    assert "db_path" not in said(db_path=str(tmp_path / "x.db"), read_only=True)


def test_a_disk_that_has_no_room_for_a_copy_of_the_file_is_a_problem() -> None:
    full = Machine(cores=8, memory_bytes=16 * GB, disk_free_bytes=3 * GB)
    assert "db_path" not in said(machine=full)
    kind, text = said(machine=full, file=File(file_bytes=2 * GB))["db_path"]
    assert (kind, "make 4,000 MB free" in text) == ("problem", True)


def test_caches_that_do_not_fit_into_memory_are_a_problem_with_a_number_that_fits() -> None:
    kind, text = said(cache_size=1_000_000)["cache_size"]
    assert kind == "problem"
    fitting = int(text.split("use at most ")[1].split(",")[0])
    assert fitting * 4_096 * 9 < MACHINE.memory_bytes / 2 if MACHINE.memory_bytes else False
    assert "cache_size" not in said(cache_size=fitting)


def test_a_file_much_larger_than_its_cache_gets_advice() -> None:
    kind, text = said(file=File(file_bytes=3 * GB))["cache_size"]
    assert (kind, "try 40000" in text) == ("advice", True)
    small = Machine(cores=8, memory_bytes=1 * GB, disk_free_bytes=100 * GB)
    assert said(machine=small, file=File(file_bytes=3 * GB)).get("cache_size", ("problem",))[0] == "problem"


def test_more_connections_than_cores_can_serve_get_advice() -> None:
    assert "use at most 64" in said(max_connections=500, cache_size=100)["max_connections"][1]


def test_a_try_that_outlasts_its_call_is_a_problem() -> None:
    assert said(busy_timeout_ms=5_000, deadline_seconds=2)["busy_timeout_ms"][0] == "problem"


def test_an_engine_that_cannot_be_had_or_does_not_fit_is_a_problem() -> None:
    missing = File(extension_missing="sqlite-vec is not installed (pip install sqlite-vec)")
    assert "pip install sqlite-vec" in said(vector_engine="sqlite-vec", file=missing)["vector_engine"][1]
    assert said(file=missing) == {}
    many = File(chunks=10_000_000, dimensions=384)
    assert "the vectors take 15.4 GB of 16.0 GB" in said(vector_engine="exact", file=many)["vector_engine"][1]


def test_another_model_than_the_files_gets_advice_only_when_it_was_asked_for() -> None:
    other = File(embedding_model="bge-small-en")
    assert said(file=other) == {}
    assert "come from 'bge-small-en'" in said(embedding_model="all-MiniLM-L6-v2", file=other)["embedding_model"][1]
    same = File(embedding_model="hash-384")
    assert said(embedding_model="hash", file=same) == {}


def test_the_hash_encoder_by_chance_gets_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOM8_EMBEDDING_MODEL", "hash")
    monkeypatch.setenv("AUTOM8_DB_PATH", ":memory:")
    assert set(said()) == {"embedding_model", "db_path"}


def test_what_grows_without_end_gets_advice() -> None:
    grown = File(log_entries=200_000, unused_contexts=20_000)
    assert set(said(file=grown)) == {"access_log_days", "auto_cleanup_days"}
    assert said(file=grown, access_log_days=90, auto_cleanup_days=90) == {}


def test_problems_come_first_and_every_row_says_what_to_do() -> None:
    config = LabConfig.load(synchronous="OFF", max_connections=500, busy_timeout_ms=50_000, cache_size=10**9)
    rows = remarks(config, MACHINE, FILE)
    assert [row["kind"] for row in rows] == sorted((row["kind"] for row in rows), reverse=True)
    assert len(rows) == 4
    for row in rows:
        assert row["advice"]
        assert row["why"]


def test_a_machine_that_does_not_tell_gets_no_advice_about_it() -> None:
    assert said(machine=Machine(1, None, None), file=File(file_bytes=9 * GB), cache_size=10**9) == {}


def test_this_machine_tells_its_cores_memory_and_disk(tmp_path: Path) -> None:
    machine = this_machine(str(tmp_path / "x.db"))
    assert machine.cores >= 1
    assert machine.memory_bytes is None or machine.memory_bytes > 10**8
    assert machine.disk_free_bytes is not None
    assert this_machine("/nowhere/at/all.db").disk_free_bytes is None


def test_the_lab_advises_from_its_own_file(tmp_path: Path) -> None:
    past = datetime(2020, 1, 1, tzinfo=UTC)
    times = [past]
    with al.open(tmp_path / "x.db", embedding_model="hash-16", synchronous="OFF", clock=lambda: times[0]) as lab:
        assert lab.config_advice_df()["setting"].tolist() == ["synchronous"]
        lab.store_contexts([f"Text number {number}." for number in range(10_001)])
        times[0] = past + timedelta(days=91)
        advice = lab.config_advice_df().set_index("setting")
        assert advice.loc["auto_cleanup_days", "kind"] == "advice"
        assert advice.index.tolist() == ["synchronous", "auto_cleanup_days"]
    with al.open(tmp_path / "y.db", embedding_model="hash-16") as lab:
        empty = lab.config_advice_df()
        assert (len(empty), empty.columns.tolist()) == (0, ["setting", "value", "kind", "advice", "why"])
        assert (empty.dtypes.astype(str) == "str").all()
