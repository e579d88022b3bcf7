"""Connections distrust the file, statements end, and no commit goes into a file that is not there any more."""

from __future__ import annotations

import _thread
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database
from sqlite_utils.utils import sqlite3

import autom8_lab as al
from autom8_lab.lab import Lab
from autom8_lab.storage.opening import Guard, Opener, harden
from autom8_lab.storage.pool import LOOK_SECONDS, ConnectionPool

MODEL = "hash-16"
ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lab.db"


@pytest.fixture
def opened(path: Path) -> Iterator[Lab]:
    with al.open(path, embedding_model=MODEL, deadline_seconds=2) as lab:
        lab.store_context("The first.", context_id="first")
        yield lab


def ids(lab: Lab) -> list[str]:
    return sorted(context.id for context in lab.list_contexts())


def other_lab(place: Path, *names: str) -> Path:
    with al.open(place, embedding_model=MODEL) as lab:
        for name in names:
            lab.store_context(f"Text {name}.", context_id=name)
    return place


def after_a_look() -> None:
    time.sleep(1.5 * LOOK_SECONDS)


# Statements that do not end


def test_a_statement_that_runs_for_too_long_is_stopped(path: Path) -> None:
    other_lab(path)
    pool = ConnectionPool(str(path), statement_seconds=0.2)
    for borrow in (pool.reader, pool.exclusive):
        started = time.monotonic()
        with (
            pytest.raises(al.StatementTimeout, match=r"lab\.db: .*statement_seconds=0\.2 .*raise the setting"),
            borrow() as database,
        ):
            database.execute(ENDLESS).fetchone()
        assert 0.2 <= time.monotonic() - started < 2
    with pytest.raises(al.StatementTimeout), pool.transaction() as transaction:
        transaction.database.execute(f"INSERT INTO index_state SELECT 'x', ({ENDLESS})")
    with pool.reader() as database:
        assert database.execute("SELECT 1 FROM index_state WHERE name = 'x'").fetchone() is None
    pool.close()


def test_the_time_is_counted_anew_for_every_piece_of_work(path: Path) -> None:
    with al.open(path, embedding_model=MODEL, statement_seconds=0.5) as lab:
        with lab.transaction():
            for number in range(4):
                lab.store_context(f"Text {number}.")
                time.sleep(0.2)
            assert len(lab.list_contexts()) == 4
        with lab.connection() as database:
            time.sleep(0.6)
            assert database.execute("SELECT count(*) FROM context_chunks, context_registry").fetchone() == (16,)


def test_a_users_own_statement_may_take_its_time(path: Path) -> None:
    other_lab(path)
    with al.open(path, embedding_model=MODEL, statement_seconds=0.1) as lab, lab.connection() as database:
        counted = ENDLESS.replace("FROM n)", "FROM n WHERE x < 3000000)")
        started = time.monotonic()
        assert database.execute(counted).fetchone() == (3_000_000,)
        assert time.monotonic() - started > 0.1


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_a_lab_may_be_open_and_rest_for_longer_than_a_statement_may_take(tmp_path: Path) -> None:
    with al.open(tmp_path / "lab.db", embedding_model=MODEL, statement_seconds=0.3) as lab:
        # SQLite looks at the clock after so many steps of a statement, whenever these were: one of many finds it late.
        for number in range(40):
            lab.store_context(f"text {number}")
        for _ in range(400):
            lab._storage.stamp()
        time.sleep(0.4)
        for _ in range(400):
            lab._storage.stamp()
        with lab.transaction():
            lab.store_context("before a long pause")
            time.sleep(0.4)
        for number in range(400):
            with lab._storage.transaction():
                time.sleep(0.31 if number % 100 == 99 else 0)
        assert lab.stats()["contexts"] == 41


def test_ctrl_c_ends_a_long_statement_as_ctrl_c(opened: Lab) -> None:
    timer = threading.Timer(0.3, _thread.interrupt_main)
    timer.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), opened.connection() as database:
        database.execute(ENDLESS).fetchone()
    assert time.monotonic() - started < 5
    assert ids(opened) == ["first"]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_the_error_of_a_signals_handler_ends_a_long_statement_as_itself(opened: Lab) -> None:
    def handler(number: int, frame: object) -> None:
        raise TimeoutError("the handler's")

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(TimeoutError, match="the handler's"), opened.connection() as database:
            database.execute(ENDLESS).fetchone()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_whoever_interrupts_his_own_statement_gets_our_error(opened: Lab) -> None:
    with pytest.raises(al.StorageError, match="interrupted"), opened.connection() as database:
        threading.Timer(0.2, database.conn.interrupt).start()
        database.execute(ENDLESS).fetchone()


def test_a_guard_gives_its_reason_once() -> None:
    connection, guard = sqlite3.connect(":memory:"), Guard(0.001)
    guard.arm(connection)
    time.sleep(0.01)
    assert isinstance(guard.reason("here", connection), al.StatementTimeout)
    guard.renew(100)
    assert guard.reason("here", connection) is None


# The file at the path


def test_a_deleted_file_is_noticed_and_comes_back_with_everything(opened: Lab, path: Path, tmp_path: Path) -> None:
    path.rename(tmp_path / "away.db")
    after_a_look()
    verbs: list[Callable[[], object]] = [
        lambda: opened.get_context("first"),
        lambda: opened.store_context("Lost?"),
        lambda: opened.search("first"),
        lambda: opened.transaction().__enter__(),
        lambda: opened.connection().__enter__(),
        lambda: opened.usage_df(),
    ]
    for verb in verbs:
        with pytest.raises(al.LabMoved, match=r"lab\.db: .*deleted or moved away.*put it back"):
            verb()
    assert not path.exists()
    (tmp_path / "away.db").rename(path)
    opened.store_context("Again.", context_id="again")
    assert ids(opened) == ["again", "first"]


def test_a_commit_into_a_file_that_goes_during_the_transaction_is_not_acknowledged(
    opened: Lab, path: Path, tmp_path: Path
) -> None:
    with pytest.raises(al.LabMoved, match=r"during this transaction.*repeat it"), opened.transaction():
        opened.store_context("Lost.", context_id="lost")
        path.unlink()
    with pytest.raises(al.LabMoved):
        opened.store_context("Lost too.")


def test_a_commit_into_a_file_that_is_replaced_during_the_transaction_is_not_acknowledged(
    opened: Lab, path: Path, tmp_path: Path
) -> None:
    new = other_lab(tmp_path / "new.db", "new")
    with pytest.raises(al.LabMoved, match=r"during this transaction.*repeat it"), opened.transaction():
        opened.store_context("Lost.", context_id="lost")
        new.rename(path)
    after_a_look()
    with pytest.warns(al.ReplacedLabWarning):
        opened.store_context("Repeated.", context_id="repeated")
    assert ids(opened) == ["new", "repeated"]


def test_another_file_at_the_path_is_taken_up(opened: Lab, path: Path, tmp_path: Path) -> None:
    opened.search("first")
    new = other_lab(tmp_path / "new.db", "one", "two")
    new.rename(path)
    after_a_look()
    with pytest.warns(al.ReplacedLabWarning, match=r"lab\.db was replaced by another file.*in .*-wal\.replaced"):
        assert ids(opened) == ["one", "two"]
    opened.store_context("Text three.", context_id="three")
    assert {hit.context.id for hit in opened.search("text", method="semantic")} == {"one", "two", "three"}
    with al.open(path, embedding_model=MODEL) as other:
        assert ids(other) == ["one", "three", "two"]
        with other.connection() as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_what_was_only_in_the_old_files_wal_is_set_aside_and_not_read_as_the_new_ones(
    opened: Lab, path: Path, tmp_path: Path
) -> None:
    for number in range(50):
        opened.store_context(f"Old {number}.", context_id=f"old-{number}")
    old = tmp_path / "old.db"
    os.link(path, old)
    new = other_lab(tmp_path / "new.db", *[f"new-{number}" for number in range(50)])
    new.rename(path)
    after_a_look()
    with pytest.warns(al.ReplacedLabWarning):
        assert ids(opened) == sorted(f"new-{number}" for number in range(50))
    opened.close()
    with al.open(path, embedding_model=MODEL) as lab:
        assert len(ids(lab)) == 50
    # The old file is whole again with the WAL that was set aside.
    Path(f"{path}-wal.replaced").rename(f"{old}-wal")
    with al.open(old, embedding_model=MODEL) as lab:
        assert ids(lab) == sorted(["first", *(f"old-{number}" for number in range(50))])


def test_threads_go_on_while_the_file_is_replaced_again_and_again(opened: Lab, path: Path, tmp_path: Path) -> None:
    generations = [other_lab(tmp_path / f"{number}.db", f"generation-{number}") for number in range(6)]
    ends: list[object] = []
    stop = threading.Event()

    def work() -> None:
        try:
            while not stop.is_set():
                try:
                    found = ids(opened)
                    assert [name for name in found if name.startswith(("first", "generation"))], found
                    opened.record_usage("m")
                except al.LabMoved:
                    pass
            ends.append("well")
        except BaseException as exc:
            ends.append(exc)

    def replace_again_and_again() -> None:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for generation in generations:
            time.sleep(0.15)
            generation.rename(path)
        time.sleep(0.3)
        stop.set()
        for thread in threads:
            thread.join(20)

    with pytest.warns(al.ReplacedLabWarning):
        replace_again_and_again()
    assert ids(opened) == ["generation-5"]
    assert ends == ["well"] * 4
    with opened.connection() as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_file_of_another_program_is_not_taken_up(opened: Lab, path: Path, tmp_path: Path) -> None:
    strange = tmp_path / "strange.db"
    database = Database(sqlite3.connect(strange))
    database["dogs"].insert({"name": "Cleo"})
    database.close()
    before = strange.read_bytes()
    strange.rename(path)
    for _ in range(2):
        after_a_look()
        with pytest.warns(al.ReplacedLabWarning), pytest.raises(al.NotALab, match="dogs"):
            opened.store_context("Not there.")
    assert path.read_bytes() == before
    path.unlink()
    other_lab(path, "right")
    after_a_look()
    with pytest.warns(al.ReplacedLabWarning):
        assert ids(opened) == ["right"]


def test_frames_and_settings_are_those_of_the_new_file(opened: Lab, path: Path, tmp_path: Path) -> None:
    with al.open(tmp_path / "new.db", embedding_model=MODEL) as new:
        new.record_usage("b")
    opened.record_usage("a")
    assert opened.usage_df()["model"].tolist() == ["a"]
    (tmp_path / "new.db").rename(path)
    after_a_look()
    with pytest.warns(al.ReplacedLabWarning):
        assert opened.usage_df()["model"].tolist() == ["b"]


def test_an_older_file_at_the_path_is_migrated(opened: Lab, path: Path, tmp_path: Path) -> None:
    al.run_migrations(tmp_path / "old.db", to=3)
    (tmp_path / "old.db").rename(path)
    after_a_look()
    with pytest.warns(al.ReplacedLabWarning):
        opened.record_usage("m")
    assert al.get_migration_status(path)["pending"] == []


def test_a_reader_of_published_files_goes_on_with_each_next_one(path: Path, tmp_path: Path) -> None:
    other_lab(path, "one")
    with al.open(path, embedding_model=MODEL, read_only=True) as lab:
        assert ids(lab) == ["one"]
        other_lab(tmp_path / "new.db", "two").rename(path)
        after_a_look()
        with pytest.warns(al.ReplacedLabWarning):
            assert ids(lab) == ["two"]


def test_a_deleted_wal_loses_nothing_that_was_acknowledged(opened: Lab, path: Path) -> None:
    opened.store_context("Before.", context_id="before")
    Path(f"{path}-wal").unlink()
    opened.store_context("After.", context_id="after")  # notices it, and puts everything into the file
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)  # what a killed process would leave
    with al.open(copy, embedding_model=MODEL) as lab:
        assert ids(lab) == ["after", "before", "first"]
    opened.store_context("Later.", context_id="later")
    assert ids(opened) == ["after", "before", "first", "later"]
    with al.open(path, embedding_model=MODEL) as lab:
        assert ids(lab) == ["after", "before", "first", "later"]


def test_a_wal_that_is_replaced_is_not_written_to_in_silence(opened: Lab, path: Path) -> None:
    wal = Path(f"{path}-wal")
    content = wal.read_bytes()
    wal.unlink()
    wal.write_bytes(content)
    with pytest.raises(al.StorageError, match=r"lab\.db-wal was deleted or replaced.*close every program"):
        opened.store_context("Where to?")


def test_a_symbolic_link_is_followed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    other_lab(tmp_path / "real" / "one.db", "one")
    other_lab(tmp_path / "real" / "two.db", "two")
    path.symlink_to(tmp_path / "real" / "one.db")
    with al.open(path, embedding_model=MODEL) as lab:
        lab.store_context("More.", context_id="more")
        path.unlink()
        path.symlink_to(tmp_path / "real" / "two.db")
        after_a_look()
        with pytest.warns(al.ReplacedLabWarning):
            assert ids(lab) == ["two"]
    with al.open(tmp_path / "real" / "one.db", embedding_model=MODEL) as lab:
        assert ids(lab) == ["more", "one"]


# A connection that breaks


def test_a_connection_that_met_damage_is_not_used_again(opened: Lab, path: Path) -> None:
    opened.store_contexts([f"Text number {number} of many." for number in range(500)], progress=False)
    opened.close()
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[4096:] = b"\xff" * (len(damaged) - 4096)
    with al.open(path, embedding_model=MODEL) as lab:
        ids(lab)
        with path.open("r+b") as file:
            file.write(damaged)
        with ThreadPoolExecutor() as threads, pytest.raises(al.DamagedLab, match=r"lab\.db.*backup"):
            with lab.connection() as database:  # a new connection has nothing of it in memory
                database.execute("SELECT sum(length(content)) FROM context_registry").fetchone()
            threads.submit(ids, lab).result(timeout=5)
        with path.open("r+b") as file:
            file.write(whole)
        assert len(ids(lab)) == 501


# What a connection may do


def test_every_connection_distrusts_the_file(opened: Lab) -> None:
    pool = opened._storage._pool  # type: ignore[attr-defined]
    trusted = int(sqlite3.sqlite_version_info < (3, 51))
    for borrow in (pool.reader, pool.exclusive, pool.lend):
        with borrow() as database:
            names = ("trusted_schema", "cell_size_check", "foreign_keys", "mmap_size")
            assert [database.execute(f"PRAGMA {name}").fetchone() for name in names] == [(trusted,), (1,), (1,), (0,)]
            with pytest.raises(sqlite3.OperationalError, match=r"not authorized|no such function"):
                database.execute("SELECT load_extension('evil.so')")
            if hasattr(database.conn, "getconfig"):
                assert database.conn.getconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE)


def test_an_older_sqlite_needs_its_trust_for_our_own_triggers(path: Path) -> None:
    # If this fails, `harden` can be stricter: the comment there is no longer true.
    if sqlite3.sqlite_version_info >= (3, 51):
        pytest.skip("only an older SQLite takes FTS5 in triggers for unsafe")
    other_lab(path)
    connection = sqlite3.connect(path)
    harden(connection)
    connection.execute("PRAGMA trusted_schema = 0")
    with pytest.raises(sqlite3.OperationalError, match="unsafe"):
        connection.execute("UPDATE context_registry SET content = 'x'")
        connection.execute("DELETE FROM context_registry")
        connection.execute("INSERT INTO context_registry_fts (context_registry_fts) VALUES ('rebuild')")
    connection.close()


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX modes")
def test_new_files_belong_to_their_owner_alone(opened: Lab, path: Path) -> None:
    old_mask = os.umask(0)
    try:
        opened.search("first")
        other = other_lab(path.with_name("other.db"), "one")
    finally:
        os.umask(old_mask)
    for place in (path, Path(f"{path}-wal"), Path(f"{path}-shm"), other):
        assert stat.S_IMODE(place.stat().st_mode) == 0o600, place


# Permissions

# Root may write everywhere. PR_CAPBSET_DROP of CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH makes the next program obey.
OBEY_MODES = """
import ctypes, os, sys
if os.geteuid() == 0:
    libc = ctypes.CDLL(None, use_errno=True)
    if any(libc.prctl(24, capability, 0, 0, 0) for capability in (1, 2)):
        sys.exit(77)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
LOSE_PERMISSION = """
import json, os, sys, time
import autom8_lab as al
path, folder = sys.argv[1], os.path.dirname(sys.argv[1])
lab = al.open(path, embedding_model="hash-16", max_connections=2, deadline_seconds=1)
lab.store_context("Before.", context_id="before")
answers = []
def attempt(*verbs):
    time.sleep(0.1)
    for verb in verbs:
        try:
            verb()
            answers.append("well")
        except al.LabError as exc:
            answers.append([type(exc).__name__, str(exc)])
def fresh():
    with lab.connection() as database:
        database.execute("SELECT count(*) FROM context_registry").fetchone()
os.chmod(folder, 0)
attempt(lambda: lab.get_context("before"), lambda: lab.store_context("During.", context_id="during"), fresh)
os.chmod(folder, 0o755)
attempt(lambda: lab.get_context("before"), lambda: lab.store_context("After.", context_id="after"), fresh)
print(json.dumps([answers, sorted(context.id for context in lab.list_contexts())]))
"""


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX users and modes")
def test_permissions_that_go_are_named_and_the_lab_works_again_when_they_come_back(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    command = [sys.executable, "-c", OBEY_MODES, "-c", LOSE_PERMISSION, str(folder / "lab.db")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    finally:
        folder.chmod(0o755)
    if done.returncode == 77 or (os.geteuid() == 0 and sys.platform != "linux"):
        pytest.skip("runs as root, which may write everywhere and cannot give that up here")
    assert done.returncode == 0, done.stderr
    answers: list[Any]
    answers, stored = json.loads(done.stdout)
    during, after = answers[:3], answers[3:]
    assert all(name == "StorageError" and "Permission denied" in message for name, message in during)
    assert after == ["well"] * 3
    assert stored == ["after", "before"]


def test_a_new_file_does_not_appear_when_the_old_one_goes_in_between(path: Path) -> None:
    other_lab(path)
    opener = Opener(
        str(path),
        read_only=False,
        busy_timeout_ms=0,
        deadline_seconds=1,
        statement_seconds=1,
        pragmas={},
        prepare=lambda connection: path.unlink(missing_ok=True),
    )
    with pytest.raises((al.LabMoved, sqlite3.OperationalError)):
        opener.open("write")
    assert not path.exists()
