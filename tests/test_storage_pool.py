"""One writer, many readers: nobody's write is lost, nobody waits for ever, and every refusal names its remedy."""

from __future__ import annotations

import asyncio
import contextvars
import json
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils.utils import sqlite3

import autom8_lab as al
from autom8_lab.lab import Lab
from autom8_lab.storage import questions
from autom8_lab.storage.pool import ConnectionPool
from autom8_lab.storage.questions import Question

MODEL = "hash-16"


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOM8_SYNCHRONOUS", "OFF")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of an empty lab."""
    place = tmp_path / "lab.db"
    al.open(place, embedding_model=MODEL).close()
    return place


@pytest.fixture(params=["file", "memory"])
def any_lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """A lab in a file, and one in memory: both keep the same promises."""
    place = ":memory:" if request.param == "memory" else tmp_path / "any.db"
    with al.open(place, embedding_model=MODEL, deadline_seconds=5) as lab:
        yield lab


@pytest.fixture
def often_switching() -> Iterator[None]:
    """Threads take turns a thousand times as often, so that what one must not interrupt is interrupted."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


@contextmanager
def pool_on(path: Path | str, **settings: Any) -> Iterator[ConnectionPool]:
    pool = ConnectionPool(str(path), **settings)
    try:
        yield pool
    finally:
        pool.close()


@contextmanager
def child(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Another process, ready when it has printed its first line; killed at the end if it still runs."""
    command, pipe = [sys.executable, "-c", code, *map(str, arguments)], subprocess.PIPE
    with subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == "ready\n", process.stderr.read()
            yield process
        finally:
            process.kill()


WRITER = """
import sys
from sqlite_utils.utils import sqlite3
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE context_registry SET priority = priority + 1")
print("ready", flush=True)
sys.stdin.readline()
connection.execute("COMMIT")
"""


@contextmanager
def writer_in_another_process(path: Path) -> Iterator[Callable[[], None]]:
    """A process that holds the write lock until the function is called."""
    with child(WRITER, path) as process:

        def let_go() -> None:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()

        yield let_go


def ids(lab: Lab) -> list[str]:
    return sorted(context.id for context in lab.list_contexts())


# Readers beside a writer


def test_readers_see_the_last_commit_while_a_transaction_is_open(any_lab: Lab, tmp_path: Path) -> None:
    if any_lab.config.db_path == ":memory:":
        pytest.skip("one connection holds the only copy: readers wait for the transaction's end")
    any_lab.store_context("Before.", context_id="before")
    with ThreadPoolExecutor() as threads, any_lab.transaction():
        any_lab.store_context("Inside.", context_id="inside")
        assert threads.submit(ids, any_lab).result(timeout=5) == ["before"]
        assert ids(any_lab) == ["before", "inside"]
    assert ids(any_lab) == ["before", "inside"]


def test_a_search_answers_while_another_process_holds_the_write_lock(path: Path) -> None:
    with al.open(path, embedding_model=MODEL, deadline_seconds=5) as lab:
        lab.store_context("The lighthouse keeper.", context_id="keeper")
        lab.search("lighthouse")
        with writer_in_another_process(path):
            started = time.monotonic()
            assert [hit.context.id for hit in lab.search("lighthouse")] == ["keeper"]
            assert lab.get_context("keeper").priority == 0
            assert time.monotonic() - started < 1


def test_a_search_whose_vector_table_lags_answers_exactly_while_another_process_writes(path: Path) -> None:
    options = {"deadline_seconds": 0.3, "busy_timeout_ms": 10, "vector_engine": "sqlite-vec"}
    with al.open(path, embedding_model=MODEL, **options) as lab:
        lab.store_context("The lighthouse keeper.", context_id="keeper")  # its first search makes vec_embeddings
        with writer_in_another_process(path) as let_go:
            found = lab.search_df("lighthouse", method="semantic")
            assert list(found["context_id"]) == ["keeper"]
            assert found.attrs["engine"] == "exact"
            assert "lags" in found.attrs["engine_reason"]
            let_go()


def test_a_reader_that_holds_its_connection_does_not_keep_others_from_reading(path: Path) -> None:
    with pool_on(path, max_readers=2, deadline_seconds=1) as pool, pool.reader() as first, pool.reader() as second:
        assert first is not second
        assert second.execute("SELECT count(*) FROM context_registry").fetchone() == (0,)


def test_connections_are_used_again(path: Path) -> None:
    with pool_on(path, max_readers=2) as pool:
        with pool.reader() as first:
            pass
        with pool.reader() as second:
            assert second is first


def test_a_reading_connection_cannot_write(path: Path) -> None:
    with (
        pool_on(path) as pool,
        pytest.raises(al.ReadOnlyLab, match="attempt to write a readonly database"),
        pool.reader() as database,
    ):
        database.execute("DELETE FROM context_registry")


def test_more_readers_than_connections_say_so_at_the_deadline(path: Path) -> None:
    with pool_on(path, max_readers=1, deadline_seconds=0.2) as pool, pool.reader():
        started = time.monotonic()
        with pytest.raises(al.LabBusy, match=r"lab\.db.* 0\.2 s.*max_connections"), pool.reader():
            pass
        assert 0.2 <= time.monotonic() - started < 2
    with pool_on(path, max_readers=1, deadline_seconds=0.2) as pool:
        for _ in range(3):
            with pool.reader():
                pass


def test_one_reading_connection_is_enough_for_every_verb(tmp_path: Path) -> None:
    with al.open(tmp_path / "one.db", embedding_model=MODEL, max_connections=1, deadline_seconds=0.5) as lab:
        lab.store_contexts([{"content": "one", "context_id": "1"}, {"content": "two", "context_id": "2"}])
        lab.store_context("one", context_id="alias")
        with lab.transaction():
            lab.update_context("1", priority=3, content="one and a half")
            lab.search("two")
        lab.pin_context("2")
        lab.search("one", topic="none")
        lab.embed_contexts("hash-8")
        assert {hit.context.id for hit in lab.search("one")} == {"1", "2", "alias"}
        lab.cleanup(dry_run=False, older_than="1d")
        lab.delete_context("1")
        assert [len(frame) for frame in (lab.contexts_df(), lab.searches_df(), lab.accesses_df())] == [2, 3, 5]
        lab.health()


# Busy


def test_a_write_waits_for_another_process_and_lands(path: Path) -> None:
    with al.open(path, embedding_model=MODEL, busy_timeout_ms=1, deadline_seconds=20) as lab:
        with writer_in_another_process(path) as let_go, ThreadPoolExecutor() as threads:
            waiting = threads.submit(lab.store_context, "Late.", context_id="late")
            time.sleep(0.3)
            assert not waiting.done()
            let_go()
            assert waiting.result(timeout=20) == "late"
        assert ids(lab) == ["late"]


def test_a_write_that_still_waits_at_the_deadline_says_so_and_leaves_nothing(path: Path) -> None:
    with al.open(path, embedding_model=MODEL, busy_timeout_ms=10, deadline_seconds=0.3) as lab:
        lab.store_context("Before.", context_id="before")
        with writer_in_another_process(path) as let_go:
            started = time.monotonic()
            with pytest.raises(al.LabBusy, match=r"lab\.db.*another writer.*deadline_seconds"):
                lab.store_context("Never.", context_id="never")
            assert 0.2 <= time.monotonic() - started < 3
            assert ids(lab) == ["before"]
            let_go()
        time.sleep(0.1)
        lab.store_context("After.", context_id="after")
        assert ids(lab) == ["after", "before"]
        assert lab.stats()["without_vectors"] == 0


def test_a_thread_that_waits_for_another_threads_transaction_says_so_at_the_deadline(any_lab: Lab) -> None:
    settings = {"embedding_model": MODEL, "deadline_seconds": 0.2}
    with al.open(any_lab.config.db_path, **settings) as lab, ThreadPoolExecutor() as threads:
        with lab.transaction():
            lab.store_context("Mine.", context_id="mine")
            waiting = threads.submit(lab.store_context, "Yours.", context_id="yours")
            with pytest.raises(al.LabBusy, match=r"another thread.*deadline_seconds"):
                waiting.result(timeout=5)
        assert ids(lab) == ["mine"]
        assert threads.submit(lab.store_context, "Yours.", context_id="yours").result(timeout=5) == "yours"


HOLD = """
import sys
from sqlite_utils.utils import sqlite3
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("ready", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
connection.close()
"""


@pytest.mark.parametrize("version", [None, 0, 3])
def test_opening_waits_for_a_process_that_is_making_or_migrating_the_file(tmp_path: Path, version: int | None) -> None:
    # Before it is a WAL file, one writer keeps everybody out, readers too.
    path = tmp_path / "new.db"
    if version is None:
        path.touch()
    else:
        al.run_migrations(path, to=version)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE").fetchone()

    def store() -> list[str]:
        with al.open(path, embedding_model=MODEL, busy_timeout_ms=1, deadline_seconds=20) as lab:
            lab.store_context("At last.", context_id="a")
            return ids(lab)

    with child(HOLD, path) as process, ThreadPoolExecutor() as threads:
        opening = threads.submit(store)
        time.sleep(0.3)
        assert not opening.done()
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert opening.result(timeout=20) == ["a"]


COUNT = """
import sys
from autom8_lab.storage.pool import ConnectionPool
pool = ConnectionPool(sys.argv[1], busy_timeout_ms=int(sys.argv[2]), deadline_seconds=60, pragmas={"synchronous": "OFF"})
with pool.reader() as database:
    database.execute("SELECT 1").fetchone()
print("ready", flush=True)
sys.stdin.readline()
for _ in range(50):
    with pool.transaction() as transaction:
        (count,) = transaction.database.execute("SELECT priority FROM context_registry WHERE id = 'counter'").fetchone()
        transaction.database.execute("UPDATE context_registry SET priority = ? WHERE id = 'counter'", [count + 1])
pool.close()
"""
COUNT_BY_VERBS = """
import sys
import autom8_lab as al
lab = al.open(sys.argv[1], embedding_model="hash-16", busy_timeout_ms=int(sys.argv[2]), deadline_seconds=60)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(50):
    with lab.transaction():
        lab.update_context("counter", priority=lab.get_context("counter").priority + 1)
lab.close()
"""


@pytest.mark.parametrize(("code", "busy_timeout_ms"), [(COUNT, 0), (COUNT_BY_VERBS, 1_000)])
def test_four_processes_that_read_and_then_write_lose_no_count(path: Path, code: str, busy_timeout_ms: int) -> None:
    with al.open(path, embedding_model=MODEL) as lab:
        lab.store_context("A counter.", context_id="counter")
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code, str(path), str(busy_timeout_ms)]
    children = [subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe, stderr=pipe) for _ in range(4)]
    for process in children:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in children:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    ends = [(process.communicate(timeout=60), process.returncode) for process in children]
    assert ends == [(("", ""), 0)] * 4
    with al.open(path, embedding_model=MODEL) as lab:
        assert lab.get_context("counter").priority == 200


def test_twenty_threads_storing_and_searching_lose_nothing(tmp_path: Path) -> None:
    per_thread = 10
    seen: list[int] = []
    with al.open(tmp_path / "threads.db", embedding_model="hash-256", deadline_seconds=60) as lab:

        def work(me: int) -> None:
            for number in range(per_thread):
                text = f"Thread {me} stores text{me}x{number}."  # asked for as a whole: words may share a hash
                context_id = lab.store_context(text, context_id=f"{me}-{number}")
                hits = lab.search(text, k=1, method=("hybrid", "text", "semantic")[number % 3])
                seen.append(len(hits))
                if number % 3 != 2:
                    assert [hit.context.id for hit in hits] == [context_id]
                lab.update_context(context_id, priority=me)
                if number == 0:
                    lab.delete_context(context_id)

        with ThreadPoolExecutor(20) as threads:
            for done in [threads.submit(work, me) for me in range(20)]:
                done.result(timeout=60)
        assert seen == [1] * (20 * per_thread)
        stored = {context.id: context.priority for context in lab.list_contexts()}
        assert stored == {f"{me}-{number}": me for me in range(20) for number in range(1, per_thread)}
        assert lab.stats()["without_vectors"] == 0
        assert lab.stats()["embeddings"] == len(stored)
        assert lab.stats()["searches"] == 20 * per_thread


# Transactions


def test_a_transaction_lands_whole_or_not_at_all(any_lab: Lab) -> None:
    with pytest.raises(RuntimeError, match="stop"), any_lab.transaction():
        any_lab.store_context("One.", context_id="one")
        any_lab.store_context("Two.", context_id="two")
        raise RuntimeError("stop")
    assert ids(any_lab) == []
    assert any_lab.search("one two") == []
    assert any_lab.stats()["embeddings"] == 0
    with any_lab.transaction():
        any_lab.store_context("One.", context_id="one")
        any_lab.store_context("Two.", context_id="two")
    assert {hit.context.id for hit in any_lab.search("two", method="semantic")} == {"one", "two"}


@pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupted_transaction_is_taken_back_and_the_lab_goes_on(
    any_lab: Lab, signal: type[BaseException]
) -> None:
    with pytest.raises(signal), any_lab.transaction():
        any_lab.store_context("One.", context_id="one")
        raise signal
    any_lab.store_context("Two.", context_id="two")
    assert ids(any_lab) == ["two"]


def test_nested_transactions_are_savepoints(any_lab: Lab) -> None:
    with any_lab.transaction():
        any_lab.store_context("Outer.", context_id="outer")
        with pytest.raises(RuntimeError, match="inner"), any_lab.transaction():
            any_lab.store_context("Inner.", context_id="inner")
            with any_lab.transaction():
                any_lab.store_context("Innermost.", context_id="innermost")
            raise RuntimeError("inner")
        assert ids(any_lab) == ["outer"]
        with any_lab.transaction():
            any_lab.store_context("Kept.", context_id="kept")
            with pytest.raises(al.ContextNotFound):
                any_lab.delete_context("nobody")
    assert ids(any_lab) == ["kept", "outer"]
    assert any_lab.stats()["without_vectors"] == 0
    assert any_lab.search("innermost", method="text") == []


def test_an_inner_transaction_falls_with_the_outer_one(any_lab: Lab) -> None:
    with pytest.raises(RuntimeError), any_lab.transaction():
        with any_lab.transaction():
            any_lab.store_context("Inner.", context_id="inner")
        raise RuntimeError
    assert ids(any_lab) == []


def test_transactions_of_two_labs_do_not_mix(tmp_path: Path) -> None:
    with (
        al.open(tmp_path / "a.db", embedding_model=MODEL) as first,
        al.open(tmp_path / "b.db", embedding_model=MODEL) as second,
    ):
        with pytest.raises(RuntimeError), first.transaction():
            first.store_context("First.", context_id="first")
            with second.transaction():
                second.store_context("Second.", context_id="second")
            raise RuntimeError
        assert (ids(first), ids(second)) == ([], ["second"])


def test_a_transaction_is_seen_by_asyncio_to_thread_and_by_nobody_else(path: Path) -> None:
    with al.open(path, embedding_model=MODEL, deadline_seconds=5) as lab:

        async def main() -> None:
            bystander = asyncio.create_task(watch())
            with lab.transaction():
                await asyncio.to_thread(lab.store_context, "Inside.", context_id="inside")
                assert await asyncio.to_thread(ids, lab) == ["inside"]
                started.set()
                await bystander

        async def watch() -> None:
            await started.wait()
            assert await asyncio.to_thread(ids, lab) == []

        started = asyncio.Event()
        asyncio.run(main())
        assert ids(lab) == ["inside"]
        assert lab.stats()["without_vectors"] == 0


def test_verbs_gathered_inside_one_transaction_all_land(any_lab: Lab, often_switching: None) -> None:
    def store_and_pin(number: int) -> None:
        any_lab.store_context(f"Text {number}.", context_id=f"{number:02}")
        with suppress(ZeroDivisionError), any_lab.transaction():
            any_lab.pin_context(f"{number:02}")
            1 / (number % 3)  # every third savepoint fails

    async def main() -> None:
        with any_lab.transaction():
            await asyncio.gather(*(asyncio.to_thread(store_and_pin, number) for number in range(60)))

    asyncio.run(main())
    assert ids(any_lab) == [f"{number:02}" for number in range(60)]
    pinned = [context.id for context in any_lab.list_contexts(pinned=True)]
    assert sorted(pinned) == [f"{number:02}" for number in range(60) if number % 3]
    assert any_lab.stats()["without_vectors"] == 0


def test_a_task_that_outlives_its_transaction_writes_for_itself(any_lab: Lab) -> None:
    with any_lab.transaction():
        any_lab.store_context("Inside.", context_id="inside")
        inherited = contextvars.copy_context()  # what asyncio.create_task and to_thread take along
    inherited.run(any_lab.store_context, "Afterwards.", context_id="afterwards")
    assert ids(any_lab) == ["afterwards", "inside"]
    assert any_lab.stats()["without_vectors"] == 0


def test_a_second_task_of_one_thread_is_refused_at_once_and_the_first_ones_transaction_lands(any_lab: Lab) -> None:
    async def first() -> None:
        with any_lab.transaction():
            any_lab.store_context("First.", context_id="first")
            entered.set()
            await refused.wait()

    async def second() -> None:
        await entered.wait()
        with pytest.raises(al.LabBusy, match="another task"):
            any_lab.store_context("Second.", context_id="second")
        with suppress(al.LabBusy):  # in memory there is one connection; a file has others to read from
            assert ids(any_lab) == []
        refused.set()

    async def main() -> None:
        await asyncio.wait_for(asyncio.gather(first(), second()), timeout=5)

    entered, refused = asyncio.Event(), asyncio.Event()
    asyncio.run(main())
    assert ids(any_lab) == ["first"]


# Closing


def test_closing_twice_is_fine_and_everything_afterwards_says_closed(any_lab: Lab) -> None:
    any_lab.store_context("Something.", context_id="a")
    any_lab.close()
    any_lab.close()
    for verb in (
        lambda: any_lab.store_context("More."),
        lambda: any_lab.get_context("a"),
        lambda: any_lab.search("something"),
        lambda: any_lab.stats(),
        lambda: any_lab.transaction().__enter__(),
    ):
        with pytest.raises(al.LabClosed, match=r"al\.open"):
            verb()


def test_closing_leaves_one_file(path: Path) -> None:
    with al.open(path, embedding_model=MODEL) as lab:
        lab.store_context("Something.")
        lab.search("something")
        assert len(list(path.parent.iterdir())) > 1
    assert [item.name for item in path.parent.iterdir()] == ["lab.db"]


def test_closing_waits_for_another_threads_transaction(any_lab: Lab) -> None:
    entered, leave = threading.Event(), threading.Event()

    def write() -> None:
        with any_lab.transaction():
            any_lab.store_context("Slow.", context_id="slow")
            entered.set()
            leave.wait(5)

    with ThreadPoolExecutor() as threads:
        writing = threads.submit(write)
        entered.wait(5)
        closing = threads.submit(any_lab.close)
        time.sleep(0.1)
        assert not closing.done()
        leave.set()
        writing.result(timeout=5)
        closing.result(timeout=5)
    if any_lab.config.db_path != ":memory:":
        with al.open(any_lab.config.db_path, embedding_model=MODEL) as again:
            assert ids(again) == ["slow"]


def test_closing_while_others_read_harms_nobody(path: Path) -> None:
    lab = al.open(path, embedding_model=MODEL)
    lab.store_context("Something to find.", context_id="a")
    ends: list[object] = []

    def read() -> None:
        try:
            while True:
                assert [hit.context.id for hit in lab.search("find")] == ["a"]
        except BaseException as exc:
            ends.append(type(exc))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    lab.close()
    for thread in threads:
        thread.join(10)
    assert ends == [al.LabClosed] * 4


def test_closing_inside_a_transaction_is_refused_and_the_transaction_lands(any_lab: Lab) -> None:
    with any_lab.transaction():
        any_lab.store_context("Something.", context_id="a")
        with pytest.raises(al.LabError, match="transaction"):
            any_lab.close()
    assert ids(any_lab) == ["a"]


# In memory


def test_labs_in_memory_share_nothing() -> None:
    with al.open(":memory:", embedding_model=MODEL) as first, al.open(":memory:", embedding_model=MODEL) as second:
        first.store_context("Only here.")
        assert second.stats()["contexts"] == 0


def test_a_lab_in_memory_is_shared_by_threads() -> None:
    with al.open(":memory:", embedding_model=MODEL) as lab:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda n: lab.store_context(f"Text {n}.", context_id=f"{n:02}"), range(40)))
            counts = list(threads.map(lambda n: len(lab.search(f"text {n}", k=50)), range(8)))
        assert ids(lab) == [f"{n:02}" for n in range(40)]
        assert counts == [40] * 8


# Read-only


def test_a_read_only_lab_is_searched_and_read_and_keeps_every_byte(path: Path) -> None:
    with al.open(path, embedding_model=MODEL) as lab:
        lab.store_context("The lighthouse keeper.", context_id="keeper")
        lab.search("lighthouse")
    before = path.read_bytes()
    with al.open(path, embedding_model=MODEL, read_only=True) as lab:
        for method in ("hybrid", "text", "semantic"):
            assert [hit.context.id for hit in lab.search("lighthouse", method=method)] == ["keeper"]
        assert lab.get_context("keeper").content == "The lighthouse keeper."
        assert len(lab.searches_df()) == 1
        assert lab.health()["read_only"] is True
        lab.stats()
        lab.cleanup()
        for verb in (
            lambda: lab.store_context("More."),
            lambda: lab.store_contexts(["More."]),
            lambda: lab.update_context("keeper", priority=1),
            lambda: lab.pin_context("keeper"),
            lambda: lab.delete_context("keeper"),
            lambda: lab.embed_contexts("hash-8"),
            lambda: lab.cleanup(dry_run=False),
            lambda: lab.transaction().__enter__(),
        ):
            with pytest.raises(al.ReadOnlyLab, match="read_only=True"):
                verb()
    assert path.read_bytes() == before


def test_a_read_only_lab_sees_what_another_process_commits(path: Path) -> None:
    code = (
        "import sys\nimport autom8_lab as al\n"
        'with al.open(sys.argv[1], embedding_model="hash-16") as lab:\n'
        '    lab.store_context("A ship passes.", context_id="ship")\n'
        '    print("ready", flush=True)\n'
        "    sys.stdin.readline()\n"
    )
    with al.open(path, embedding_model=MODEL, read_only=True) as lab:
        assert lab.search("ship") == []
        with child(code, path):
            for method in ("hybrid", "text", "semantic"):
                assert [hit.context.id for hit in lab.search("ship", method=method)] == ["ship"]


LOOK = """
import json, sys
import autom8_lab as al
try:
    with al.open(sys.argv[1], embedding_model="hash-16", read_only=len(sys.argv) > 2) as lab:
        found = [hit.context.id for method in ("hybrid", "text", "semantic") for hit in lab.search("keeper", method=method)]
        try:
            found += ["stored", lab.store_context("More.")]
        except al.LabError as exc:
            found += [type(exc).__name__, str(exc)]
except al.LabError as exc:
    found = [type(exc).__name__, str(exc)]
print(json.dumps(found))
"""
# Root may write everywhere. PR_CAPBSET_DROP of CAP_DAC_OVERRIDE makes the next program obey the modes of files.
OBEY_MODES = """
import ctypes, os, sys
if os.geteuid() == 0 and ctypes.CDLL(None, use_errno=True).prctl(24, 1, 0, 0, 0) != 0:
    sys.exit(77)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
posix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX users and modes")


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A folder with a lab in it, which the test takes rights away from."""
    folder = tmp_path / "locked"
    folder.mkdir()
    with al.open(folder / "lab.db", embedding_model=MODEL) as lab:
        lab.store_context("The lighthouse keeper.", context_id="keeper")
        lab.search("keeper")
    yield folder
    folder.chmod(0o755)


def look_as_somebody_who_obeys_modes(*arguments: str) -> list[str]:
    command = [sys.executable, "-c", OBEY_MODES, "-c", LOOK, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if ended.returncode == 77 or (os.geteuid() == 0 and sys.platform != "linux"):
        pytest.skip("runs as root, which may write everywhere and cannot give that up here")
    assert ended.returncode == 0, ended.stderr
    answer: list[str] = json.loads(ended.stdout)
    return answer


@posix
def test_a_file_that_may_not_be_written_to_is_searched_and_says_why_it_cannot_store(locked: Path) -> None:
    (locked / "lab.db").chmod(0o444)
    *found, error, message = look_as_somebody_who_obeys_modes(str(locked / "lab.db"))
    assert (found, error) == (["keeper"] * 3, "ReadOnlyLab")
    assert "permission" in message


@posix
@pytest.mark.parametrize("mode", [0o444, 0o644])
@pytest.mark.parametrize("arguments", [(), ("read-only",)])
def test_a_file_in_a_folder_that_may_not_be_written_to_is_searched(
    locked: Path, arguments: tuple[str, ...], mode: int
) -> None:
    before = (locked / "lab.db").read_bytes()
    (locked / "lab.db").chmod(mode)
    locked.chmod(0o555)
    *found, error, message = look_as_somebody_who_obeys_modes(str(locked / "lab.db"), *arguments)
    assert (found, error) == (["keeper"] * 3, "ReadOnlyLab"), message
    assert [item.name for item in locked.iterdir()] == ["lab.db"]
    assert (locked / "lab.db").read_bytes() == before


@posix
def test_commits_that_cannot_be_read_are_not_silently_left_out(locked: Path) -> None:
    # They are in the WAL, whose index cannot be made here: an answer without them would be wrong, so there is none.
    code = (
        "import os, sys\nimport autom8_lab as al\nlab = al.open(sys.argv[1], embedding_model='hash-16')\n"
        "lab.store_context('A second keeper.', context_id='second')\nos._exit(9)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(locked / "lab.db")], check=False)
    assert ended.returncode == 9
    Path(f"{locked / 'lab.db'}-shm").unlink()
    assert Path(f"{locked / 'lab.db'}-wal").stat().st_size > 0
    for item in locked.iterdir():
        item.chmod(0o444)
    locked.chmod(0o555)
    answer = look_as_somebody_who_obeys_modes(str(locked / "lab.db"))
    assert answer[0] == "StorageError"
    assert "folder" in answer[1]


# What the driver says, in our words


def test_a_full_disk_says_so_and_keeps_nothing_of_the_call(path: Path) -> None:
    with pool_on(path, pragmas={"max_page_count": path.stat().st_size // 4096 + 2}) as pool:
        with pytest.raises(al.StorageFull, match=r"lab\.db.*free some space: nothing of this call was kept"):
            with pool.transaction() as transaction:
                rows = ({"alias": str(n) * 1_000, "context_id": "a", "created_at": "t"} for n in range(1_000))
                transaction.database.execute("PRAGMA defer_foreign_keys = 1")
                transaction.database.table("context_aliases").insert_all(rows)
        with pool.reader() as database:
            assert database.execute("SELECT count(*) FROM context_aliases").fetchone() == (0,)
        with pool.transaction() as transaction:
            transaction.database.execute("DELETE FROM context_aliases")


def test_a_damaged_file_says_so_and_names_the_remedy(path: Path) -> None:
    with al.open(path, embedding_model=MODEL) as lab:
        lab.store_contexts([f"Text number {number} of many." for number in range(2_000)])
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = b"\xff" * (len(content) - len(content) // 2)
    path.write_bytes(content)
    with pytest.raises(al.DamagedLab, match=r"lab\.db.*restore a backup"), al.open(path, embedding_model=MODEL) as lab:
        lab.list_contexts()


@pytest.mark.parametrize(
    "name", ["a b.db", "per%20cent.db", "ask?mode=memory.db", "hash#1.db", "naïve-日本.db", "it's.db"]
)
def test_any_file_name_works(tmp_path: Path, name: str) -> None:
    with al.open(tmp_path / name, embedding_model=MODEL) as lab:
        lab.store_context("Something.")
    with al.open(tmp_path / name, embedding_model=MODEL) as lab:
        assert len(lab.search("something")) == 1
    assert [item.name for item in tmp_path.iterdir()] == [name]


def test_a_relative_path_keeps_its_file_when_the_working_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    with al.open("relative.db", embedding_model=MODEL) as lab:
        lab.store_context("Something.", context_id="a")
        monkeypatch.chdir(tmp_path / "other")
        with ThreadPoolExecutor(4) as threads:  # more connections than were opened before
            assert list(threads.map(lambda _: ids(lab), range(4))) == [["a"]] * 4
    assert list((tmp_path / "other").iterdir()) == []


def test_a_question_goes_by_the_state_in_which_it_began_and_the_next_one_by_a_newer(path: Path) -> None:
    with al.open(path, embedding_model=MODEL) as lab, al.open(path, embedding_model=MODEL) as other:
        storage, another = lab._storage, other._storage
        with storage.asking():
            begun = storage.stamp()
            other.store_context("Written meanwhile.")
            assert storage.stamp() == begun
            with another.asking():
                assert storage.stamp() != begun  # of that lab's question this one knows nothing
            with storage.asking():
                assert storage.stamp() != begun
            with lab.transaction():
                assert storage.stamp() is None
        assert storage.stamp() != begun


def test_a_question_whose_end_was_skipped_is_over(path: Path) -> None:
    # As when Ctrl-C comes in the first instruction of its end.
    with al.open(path, embedding_model=MODEL) as lab, al.open(path, embedding_model=MODEL) as other:
        begun, token = lab._storage.stamp(), questions._asked.set(weakref.ref(Question(lab._storage._pool, "old")))
        assert lab._storage.stamp() == begun
        other.store_context("Written meanwhile.")
        assert lab._storage.stamp() not in {begun, "old"}
        questions._asked.reset(token)
