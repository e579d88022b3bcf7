"""A connection for a user's own SQL: it reads everything, writes nothing, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlite_utils import Database
from sqlite_utils.utils import sqlite3

import autom8_lab as al
from autom8_lab.lab import Lab

COUNT = "SELECT count(*) FROM context_registry"


@pytest.fixture(params=["file", "memory"])
def any_lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    place = ":memory:" if request.param == "memory" else tmp_path / "any.db"
    with al.open(place, embedding_model="hash-16", synchronous="OFF", deadline_seconds=5) as lab:
        lab.store_context("One.", context_id="one", topic="numbers")
        yield lab


@pytest.fixture
def file_lab(tmp_path: Path) -> Iterator[Lab]:
    with al.open(tmp_path / "lab.db", embedding_model="hash-16", max_connections=2, deadline_seconds=0.3) as lab:
        lab.store_context("One.", context_id="one")
        yield lab


def ids(lab: Lab) -> list[str]:
    return sorted(context.id for context in lab.list_contexts())


def test_it_is_an_sqlite_utils_database(any_lab: Lab) -> None:
    with any_lab.connection() as database:
        assert isinstance(database, Database)
        assert list(database.query("SELECT id, topic FROM context_registry")) == [{"id": "one", "topic": "numbers"}]
        assert database["context_registry"].count == 1
        assert [row["id"] for row in database["context_registry"].search("one")] == ["one"]


def test_it_sees_what_is_committed_and_not_what_is_not(any_lab: Lab) -> None:
    if any_lab.config.db_path == ":memory:":
        pytest.skip("one connection holds the only copy")
    with any_lab.transaction():
        any_lab.store_context("Two.", context_id="two")
        with ThreadPoolExecutor() as threads:

            def look() -> int:
                with any_lab.connection() as database:
                    return int(database.execute(COUNT).fetchone()[0])

            assert threads.submit(look).result(timeout=5) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM context_registry",
        "INSERT INTO chunk_deletions (chunk_key) VALUES (1)",
        "CREATE TABLE mine (a)",
        "DROP TABLE access_log",
        "PRAGMA user_version = 7",
        "CREATE TRIGGER evil AFTER INSERT ON access_log BEGIN DELETE FROM access_log; END",
    ],
)
def test_it_cannot_write(any_lab: Lab, statement: str) -> None:
    def objects() -> list[tuple[object, ...]]:
        with any_lab.connection() as database:
            tables = database.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
            return [*tables, database.execute("PRAGMA user_version").fetchone(), database.execute(COUNT).fetchone()]

    before = objects()
    with pytest.raises(al.ReadOnlyLab, match="readonly"), any_lab.connection() as database:
        database.execute(statement)
    with any_lab.transaction(), pytest.raises(al.ReadOnlyLab, match="readonly"), any_lab.connection() as database:
        database.execute(statement)
    assert objects() == before


def test_whoever_lifts_the_ban_still_cannot_write_to_the_file(file_lab: Lab) -> None:
    with pytest.raises(al.ReadOnlyLab), file_lab.connection() as database:
        database.execute("PRAGMA query_only = 0")
        database.execute("DELETE FROM context_registry")
    assert ids(file_lab) == ["one"]


def test_an_error_of_sql_is_ours_and_names_the_file(any_lab: Lab) -> None:
    with (
        pytest.raises(al.StorageError, match=r"(any\.db|:memory:): no such table: nowhere") as caught,
        any_lab.connection() as database,
    ):
        database.execute("SELECT * FROM nowhere")
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)


def test_another_error_passes_and_the_connection_comes_back(any_lab: Lab) -> None:
    for _ in range(20):
        with pytest.raises(ZeroDivisionError), any_lab.connection():
            raise ZeroDivisionError
    assert any_lab.stats()["connections_in_use"] <= 1


def test_verbs_work_inside_the_block(any_lab: Lab) -> None:
    with any_lab.connection() as database:
        any_lab.store_context("Two.", context_id="two")
        assert ids(any_lab) == ["one", "two"]
        with any_lab.transaction():
            any_lab.store_context("Three.", context_id="three")
        expected = 1 if any_lab.config.db_path == ":memory:" else 3  # in memory it is a copy
        assert database.execute(COUNT).fetchone() == (expected,)


def test_inside_a_transaction_it_sees_the_transactions_own_writes(any_lab: Lab) -> None:
    with any_lab.transaction():
        any_lab.store_context("Two.", context_id="two")
        with any_lab.connection() as database:
            assert database.execute(COUNT).fetchone() == (2,)
            any_lab.store_context("Three.", context_id="three")
            with any_lab.connection() as second, any_lab.transaction():
                any_lab.store_context("Four.", context_id="four")
                assert second.execute(COUNT).fetchone() == (4,)
        any_lab.store_context("Five.", context_id="five")
    assert ids(any_lab) == ["five", "four", "one", "three", "two"]
    assert any_lab.stats()["without_vectors"] == 0


def test_nothing_that_its_user_did_reaches_the_next_one(file_lab: Lab, tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE other (a)")
    with file_lab.connection() as database:
        database.execute("ATTACH ? AS beside", [str(tmp_path / "other.db")])
        database.conn.create_function("lower", 1, lambda text: "hijacked")
        database.conn.row_factory = sqlite3.Row
        database.execute("BEGIN")
        rows = database.query("SELECT * FROM context_registry")
        next(rows)
    for _ in range(3):
        with file_lab.connection() as again:
            assert again.execute("SELECT lower('A')").fetchone() == ("a",)
            assert len(again.execute("PRAGMA database_list").fetchall()) == 1
    assert ids(file_lab) == ["one"]


def test_after_the_block_the_connection_is_closed(file_lab: Lab) -> None:
    with file_lab.connection() as database:
        pass
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        database.execute(COUNT)


def test_it_counts_among_the_connections(file_lab: Lab) -> None:
    with file_lab.connection(), file_lab.connection():
        assert file_lab._storage.connection_figures()["connections_in_use"] == 2
        with pytest.raises(al.LabBusy, match="max_connections"), file_lab.connection():
            pass
    assert ids(file_lab) == ["one"]
    stats = file_lab.stats()
    assert stats["connections_in_use"] == 0
    assert (stats["connection_waits"], stats["connection_timeouts"]) == (1, 1)
    assert stats["connection_wait_ms_p50"] == stats["connection_wait_ms_p99"] > 250


def test_idle_connections_make_room_for_it(file_lab: Lab) -> None:
    barrier = threading.Barrier(2)

    def read() -> None:
        with file_lab._storage._pool.reader():  # type: ignore[attr-defined]
            barrier.wait(5)

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(read) for _ in range(2)]:
            done.result(timeout=5)
    with file_lab.connection(), file_lab.connection():
        pass


def test_it_works_on_a_file_that_is_open_read_only(file_lab: Lab) -> None:
    with al.open(file_lab.config.db_path, read_only=True) as lab, lab.connection() as database:
        assert database.execute(COUNT).fetchone() == (1,)


def test_a_block_may_be_entered_and_left_in_different_threads(file_lab: Lab) -> None:
    async def main() -> int:
        block = file_lab.connection()
        database = await asyncio.to_thread(block.__enter__)
        rows = await asyncio.to_thread(lambda: database.execute(COUNT).fetchall())
        await asyncio.to_thread(block.__exit__, None, None, None)
        return int(rows[0][0])

    assert asyncio.run(main()) == 1


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
def test_a_thousand_blocks_leave_no_file_open(file_lab: Lab) -> None:
    with file_lab.connection():
        pass
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(200):
        with file_lab.connection() as database:
            database.execute(COUNT)
    assert len(os.listdir("/proc/self/fd")) <= before
