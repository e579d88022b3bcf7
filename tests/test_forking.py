"""A forked child takes nothing over from its parent: no connection, no lock, no unfinished work."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import autom8_lab as al
from autom8_lab import forking
from autom8_lab.lab import Lab

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]
MODEL = "hash-16"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lab.db"


@pytest.fixture
def forked(path: Path) -> Iterator[Lab]:
    """A lab whose connections have been used."""
    with al.open(path, embedding_model=MODEL, deadline_seconds=5) as lab:
        lab.store_context("The parent's.", context_id="parent")
        lab.search("parent")
        yield lab


def ids(lab: Lab) -> list[str]:
    return sorted(context.id for context in lab.list_contexts())


def in_child(work: Callable[[], Any], *, meanwhile: Callable[[], None] = lambda: None) -> Any:
    """Return what a function returns in a forked child, or its error's name and message."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            answer = work()
        except BaseException as exc:
            answer = [type(exc).__name__, str(exc)]
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    meanwhile()
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(process, 0)
    return json.loads(answer)


def test_a_child_reads_and_writes_with_connections_of_its_own(forked: Lab) -> None:
    def work() -> Any:
        forked.store_context("The child's.", context_id="child")
        return ids(forked), [hit.context.id for hit in forked.search("child", method="text")]

    assert in_child(work) == [["child", "parent"], ["child"]]
    forked.store_context("Later.", context_id="later")
    assert ids(forked) == ["child", "later", "parent"]


def test_what_a_child_wrote_survives_that_its_parent_closes_the_lab_first(forked: Lab, path: Path) -> None:
    # SQLite in the child would believe that it holds the locks of its parent, which then deletes the WAL in use.
    closed, go_on = os.pipe()

    def work() -> str:
        forked.store_context("Before.", context_id="before")
        os.read(closed, 1)
        return forked.store_context("After.", context_id="after")

    def meanwhile() -> None:
        time.sleep(0.3)
        forked.close()
        os.write(go_on, b"x")

    assert in_child(work, meanwhile=meanwhile) == "after"
    with al.open(path, embedding_model=MODEL) as lab:
        assert ids(lab) == ["after", "before", "parent"]


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="needs Linux")
def test_a_child_holds_locks_that_the_system_knows(forked: Lab, path: Path) -> None:
    def work() -> int:
        ids(forked)
        inodes = {str(os.stat(f"{path}{ending}").st_ino) for ending in ("", "-shm")}
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        return len([lock for lock in locks if lock[4] == str(os.getpid()) and lock[5].split(":")[-1] in inodes])

    assert in_child(work) >= 2


def test_children_of_multiprocessing_write_side_by_side(forked: Lab) -> None:
    def work(name: int) -> None:
        for number in range(5):
            forked.store_context(f"Text {name} {number}.", context_id=f"{name}-{number}")

    context = multiprocessing.get_context("fork")
    children = [context.Process(target=work, args=(name,)) for name in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * 4
    assert ids(forked) == sorted(["parent", *(f"{name}-{number}" for name in range(4) for number in range(5))])


def test_the_child_of_a_child_works_too(forked: Lab) -> None:
    def work() -> Any:
        forked.store_context("One.", context_id="one")
        return in_child(lambda: forked.store_context("Two.", context_id="two"))

    assert in_child(work) == "two"
    assert ids(forked) == ["one", "parent", "two"]


def test_a_child_that_ends_as_python_does_harms_nobody(path: Path) -> None:
    code = f"""
import os, sys
import autom8_lab as al
lab = al.open({str(path)!r}, embedding_model="hash-16")
lab.store_context("Before.", context_id="before")
with lab.transaction():
    lab.store_context("Inside.", context_id="inside")
    if os.fork() == 0:
        sys.exit()  # through the transaction, and all of Python's cleaning up
    os.wait()
    with lab.connection() as database:
        if os.fork() == 0:
            sys.exit()
        os.wait()
lab.store_context("After.", context_id="after")
print(*sorted(context.id for context in lab.list_contexts()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("after before inside\n", "", 0)
    with al.open(path, embedding_model=MODEL) as lab, lab.connection() as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert ids(lab) == ["after", "before", "inside"]


def test_inside_its_parents_transaction_a_child_can_do_nothing_and_the_transaction_lands(forked: Lab) -> None:
    verbs: list[Callable[[], object]] = [
        lambda: forked.get_context("parent"),
        lambda: forked.store_context("The child's."),
        lambda: forked.transaction().__enter__(),
        lambda: forked.connection().__enter__(),
        lambda: al.open(forked.config.db_path, embedding_model=MODEL),
    ]
    with forked.transaction():
        forked.store_context("Inside.", context_id="inside")
        answers = [in_child(verb) for verb in verbs]
        forked.store_context("Still inside.", context_id="still")
    assert [name for name, _ in answers] == ["LabForked"] * len(verbs)
    assert "end it there" in answers[0][1]
    assert "spawn" in answers[-1][1]
    assert ids(forked) == ["inside", "parent", "still"]


def test_a_child_that_leaves_its_parents_transaction_commits_nothing(forked: Lab) -> None:
    def work() -> None:
        block.__exit__(None, None, None)

    block = forked.transaction()
    block.__enter__()
    forked.store_context("Inside.", context_id="inside")
    assert in_child(work)[0] == "LabForked"
    with al.open(forked.config.db_path, embedding_model=MODEL) as other:
        assert ids(other) == ["parent"]
    block.__exit__(None, None, None)
    assert ids(forked) == ["inside", "parent"]


def test_while_another_thread_writes_a_fork_waits_a_little_and_then_the_child_is_refused(forked: Lab) -> None:
    entered, leave = threading.Event(), threading.Event()

    def write() -> None:
        with forked.transaction():
            forked.store_context("Slow.", context_id="slow")
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=write)
    thread.start()
    entered.wait(10)
    started = time.monotonic()
    answer = in_child(lambda: forked.get_context("parent").id)
    assert time.monotonic() - started < 5
    leave.set()
    thread.join(10)
    assert answer[0] == "LabForked"
    assert ids(forked) == ["parent", "slow"]
    assert in_child(lambda: ids(forked)) == ["parent", "slow"]


def test_a_short_read_of_another_thread_is_waited_for(forked: Lab) -> None:
    pool, entered = forked._storage._pool, threading.Event()  # type: ignore[attr-defined]

    def read() -> None:
        with pool.reader() as database:
            entered.set()
            time.sleep(0.1)
            database.execute("SELECT count(*) FROM context_registry").fetchone()

    thread = threading.Thread(target=read)
    thread.start()
    entered.wait(5)
    assert in_child(lambda: ids(forked)) == ["parent"]
    thread.join(5)


def test_threads_that_read_while_others_fork_notice_nothing(forked: Lab) -> None:
    ends: list[object] = []
    stop = threading.Event()

    def read() -> None:
        try:
            while not stop.is_set():
                assert forked.get_context("parent").id == "parent"
            ends.append("well")
        except BaseException as exc:
            ends.append(exc)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    answers = [in_child(lambda: ids(forked)) for _ in range(5)]
    stop.set()
    for thread in threads:
        thread.join(10)
    assert ends == ["well"] * 3
    assert all(answer == ["parent"] or answer[0] == "LabForked" for answer in answers)


def test_a_lab_in_memory_stays_with_the_process_that_opened_it() -> None:
    with al.open(":memory:", embedding_model=MODEL) as lab:
        lab.store_context("Here.", context_id="here")
        for verb in (lambda: lab.get_context("here").id, lambda: lab.store_context("There.")):
            name, message = in_child(verb)
            assert name == "LabForked"
            assert "in the memory of the process" in message
        assert in_child(lab.close) is None
        assert ids(lab) == ["here"]


def test_what_the_parent_noted_is_written_once(forked: Lab) -> None:
    before = len(forked.accesses_df())
    forked.get_context("parent")
    in_child(lambda: forked.close())
    assert len(forked.accesses_df()) == before + 1


def test_a_lock_that_another_thread_held_is_free_in_the_child() -> None:
    lock, entered, leave = forking.new_lock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(5)
    assert in_child(lambda: lock.acquire(timeout=1)) is True
    assert not lock.acquire(blocking=False)
    leave.set()
    thread.join(5)


def test_every_lock_of_the_package_is_free_in_a_child() -> None:
    # Made by new_lock, or anew by whoever follows forks.
    package = Path(al.__file__).parent
    anew = {"forking.py", "storage/pool.py"}
    for file in package.rglob("*.py"):
        if str(file.relative_to(package)) not in anew and file.parent.name != "embedding":
            assert "threading.Lock(" not in file.read_text(encoding="utf-8"), file
