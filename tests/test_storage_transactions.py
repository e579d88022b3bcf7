"""Transactions land whole or not at all, whatever takes them back, interrupts them, or carries them elsewhere."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils.utils import sqlite3

import autom8_lab as al
from autom8_lab.lab import Lab
from autom8_lab.storage.pool import ConnectionPool

MODEL = "hash-16"


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[ConnectionPool]:
    path = tmp_path / "lab.db"
    al.open(path, embedding_model=MODEL, synchronous="OFF").close()
    pool = ConnectionPool(str(path), deadline_seconds=2, pragmas={"synchronous": "OFF"})
    yield pool
    pool.close()


def ids(lab: Lab) -> list[str]:
    return sorted(context.id for context in lab.list_contexts())


def note(pool: ConnectionPool, name: str) -> None:
    with pool.transaction() as transaction:
        transaction.database.execute("INSERT INTO index_state (name, state) VALUES (?, '')", [name])


def noted(pool: ConnectionPool) -> list[str]:
    with pool.reader() as database:
        return [row[0] for row in database.execute("SELECT name FROM index_state WHERE state = '' ORDER BY name")]


# What SQLite takes back by itself


def fill(pool: ConnectionPool) -> None:
    with pool.transaction() as transaction:
        transaction.database.execute("PRAGMA max_page_count = 200")
        transaction.database.execute("INSERT INTO index_state VALUES ('large', hex(zeroblob(2000000)))")


def test_after_sqlite_took_a_transaction_back_nothing_more_of_it_lands(pool: ConnectionPool) -> None:
    with pytest.raises(al.StorageError, match=r"taken back .*full.*leave its block"), pool.transaction():
        note(pool, "before")
        with pytest.raises(al.StorageFull, match="free some space"):
            fill(pool)
        with pytest.raises(al.StorageError, match="taken back"):
            note(pool, "alone")  # it would be committed at once, without the rest
        with pytest.raises(al.StorageError, match="taken back"):
            noted(pool)
    assert noted(pool) == []


def test_leaving_the_block_as_if_nothing_were_says_that_it_was_taken_back(pool: ConnectionPool) -> None:
    with pytest.raises(al.StorageError, match="taken back"), pool.transaction():
        note(pool, "before")
        with suppress(al.StorageFull):
            fill(pool)
    note(pool, "after")
    assert noted(pool) == ["after"]


def test_an_error_that_only_undoes_its_statement_leaves_the_rest(pool: ConnectionPool) -> None:
    with pool.transaction():
        note(pool, "one")
        with pytest.raises(al.StorageError, match="UNIQUE"):
            note(pool, "one")
        note(pool, "two")
    assert noted(pool) == ["one", "two"]


# What was remembered before a commit


@pytest.mark.parametrize("moment", ["never", "before", "between", "after"])
def test_what_is_remembered_may_stay_only_where_nobody_else_committed(
    pool: ConnectionPool, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ConnectionPool(pool.path, deadline_seconds=2, pragmas={"synchronous": "OFF"})
    told: list[tuple[Any, Any]] = []
    remembered = pool.stamp()
    if moment == "before":
        note(other, "other")
    if moment == "between":  # our commit is done, and its stamp not read yet
        verify = pool.verify
        monkeypatch.setattr(pool, "verify", lambda database: (verify(database), note(other, "other")))
    with pool.transaction(kept=lambda before, now: told.append((before, now))) as transaction:
        transaction.database.execute("INSERT INTO index_state (name, state) VALUES ('ours', '')")
    if moment == "after":
        note(other, "other")
    other.close()
    stays = bool(told) and told[0][0] == remembered and told[0][1] == pool.stamp()
    assert stays == (moment == "never")
    assert noted(pool) == (["ours"] if moment == "never" else ["other", "ours"])


def test_a_transaction_that_is_taken_back_tells_nothing_of_what_is_remembered(pool: ConnectionPool) -> None:
    told: list[tuple[Any, Any]] = []
    with suppress(ZeroDivisionError), pool.transaction(kept=lambda *stamps: told.append(stamps)):
        note(pool, "never")
        1 / 0  # noqa: B018
    assert (told, noted(pool)) == ([], [])


# Interruptions


def test_a_block_whose_end_was_skipped_holds_nothing(pool: ConnectionPool) -> None:
    # As when Ctrl-C comes in the first instruction of __exit__: the object is dropped, and that has to be enough.
    block = pool.transaction()
    block.__enter__()
    note(pool, "never")
    del block
    gc.collect()
    started = time.monotonic()
    note(pool, "after")
    assert time.monotonic() - started < 1
    assert noted(pool) == ["after"]
    reading = pool.reader()
    reading.__enter__()
    del reading
    gc.collect()
    assert pool.figures()["connections_in_use"] == 0


INTERRUPTED = """
import signal, sys, threading, time
import autom8_lab as al

lab = al.open(sys.argv[1], embedding_model="hash-16", synchronous="OFF", deadline_seconds=5)
kind = sys.argv[2]
number = interrupted = 0
until = time.monotonic() + float(sys.argv[3])


def work():
    global number
    while time.monotonic() < until:
        number += 1
        if kind == "batch":
            rows = [{"content": f"Text {number} {n}.", "context_id": f"{number}-{n}"} for n in range(20)]
            lab.store_contexts(rows, progress=False)
        elif kind == "transaction":
            with lab.transaction():
                for n in range(20):
                    lab.store_context(f"Text {number} {n}.", context_id=f"{number}-{n}")
        elif kind == "usage":
            lab.record_usages([{"model": "m", "source": "t", "source_id": f"{number}-{n}"} for n in range(20)])
        else:
            lab.search(f"text {number}")
            lab.get_context("first")
            with lab.connection() as database:
                database.execute("SELECT count(*) FROM context_registry").fetchone()


print("ready", flush=True)
while time.monotonic() < until:
    try:
        work()
    except KeyboardInterrupt:
        interrupted += 1
signal.signal(signal.SIGINT, signal.SIG_IGN)
other = threading.Thread(target=lambda: lab.store_context("Last.", context_id="last"))  # nothing is held by anybody
other.start()
other.join(20)
lab.close()
print(interrupted)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize("kind", ["batch", "transaction", "usage", "read"])
def test_ctrl_c_at_any_moment_leaves_whole_batches_and_a_lab_that_works(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "lab.db"
    with al.open(path, embedding_model=MODEL) as lab:
        lab.store_context("The first.", context_id="first")
    seconds = "1.5"
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(path), kind, seconds], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"ready\n"
        delay = 0.0
        while process.poll() is None:
            delay = (delay * 1.37 + 0.0071) % 0.05
            time.sleep(0.02 + delay)
            process.send_signal(signal.SIGINT)
        interrupted, errors = process.stdout.read(), process.stderr.read()
    assert process.returncode == 0, errors.decode()
    assert int(interrupted) > 3
    with al.open(path, embedding_model=MODEL) as lab:
        assert lab.get_context("last").content == "Last."
        assert lab.stats()["without_vectors"] == 0
        names: list[Any] = [context.id for context in lab.list_contexts() if "-" in context.id]
        names += lab.ledger_df()["source_id"].tolist()
        sizes = {name.split("-")[0]: 0 for name in names}
        for name in names:
            sizes[name.split("-")[0]] += 1
        assert set(sizes.values()) <= {20}
        with lab.connection() as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert database.execute("PRAGMA foreign_key_check").fetchall() == []


def test_a_whole_block_whose_part_failed_is_taken_back_even_if_it_goes_on(lab: Lab) -> None:
    lab.store_context("there before", context_id="before")
    storage = lab._storage
    link = {"alias": "other", "context_id": "before", "created_at": datetime.now(UTC)}
    with pytest.raises(al.StorageError, match="a part of a transaction failed"), storage.transaction(whole=True):
        storage.insert("context_aliases", [link])
        with suppress(al.StorageError, sqlite3.Error):
            storage.insert("context_aliases", [link, {**link, "alias": "third"}, link])
    assert storage.count("context_aliases") == 0
    assert lab.get_context("before").content == "there before"


def test_a_whole_block_inside_a_transaction_is_taken_back_alone(lab: Lab) -> None:
    storage = lab._storage
    with lab.transaction():
        kept = lab.store_context("kept")
        with pytest.raises(ValueError, match="on purpose"), storage.transaction(whole=True):
            storage.insert("context_aliases", [{"alias": "x", "context_id": kept, "created_at": datetime.now(UTC)}])
            raise ValueError("on purpose")
    assert (lab.stats()["contexts"], storage.count("context_aliases")) == (1, 0)
