"""Checks: transactions, threads, processes, tasks, errors, speed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .. import aio
from ..errors import ContextExists, InvalidValue, LabClosed, LabNotFound, NotALab, ReadOnlyLab, StorageError
from ..lab import get_migration_status
from .workbench import HASH, Workbench, check, expect, expect_error

PACKAGE_PARENT = str(Path(__file__).parents[2])
WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
import autom8_lab as al
with al.open(sys.argv[2], embedding_model="hash-64", embedding_dimensions=64, read_only=False) as lab:
    for number in range(20):
        lab.record_usage("self-test", input_tokens=1, source="another process", source_id=str(number))
"""
KILLED = """
import os, sys
sys.path.insert(0, sys.argv[1])
import autom8_lab as al
lab = al.open(sys.argv[2], embedding_model="hash-64", embedding_dimensions=64, read_only=False)
lab.store_context("Whole.", context_id="whole")
with lab.transaction():
    lab.store_context("Half.", context_id="half")
    lab.record_usage("self-test", input_tokens=1)
    os._exit(7)
"""
# Operations per second: the least that passes, and what modern hardware typically does.
MOST_SECONDS = 2.0
LEAST = {"store": 10, "get": 50, "search_text": 5, "search_semantic": 5, "record_usage": 20, "concurrent": 10}
TYPICAL = {
    "store": "500 to 1,000",
    "get": "2,000 to 5,000",
    "search_semantic": "100 to 500",
}


def _python(program: str, path: Path) -> int:
    command = [sys.executable, "-c", program, PACKAGE_PARENT, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    expect(done.returncode in (0, 7), f"another process ended with {done.returncode}: {done.stderr[-500:]}")
    return done.returncode


@check("transactions")
def a_transaction_lands_whole_or_not_at_all(bench: Workbench) -> None:
    """Rollback and savepoints."""
    with bench.fresh("transactions") as lab:
        with expect_error(ZeroDivisionError, "a failing block"), lab.transaction():
            lab.store_context("Half.", context_id="half")
            lab.record_usage("self-test", input_tokens=1)
            _ = 1 / 0
        stats = lab.stats()
        expect((stats["contexts"], stats["usage_rows"]) == (0, 0), "something of a failed transaction is there")
        with lab.transaction():
            lab.store_context("Outer.", context_id="outer")
            with expect_error(ZeroDivisionError, "a failing savepoint"), lab.transaction():
                lab.store_context("Inner.", context_id="inner")
                _ = 1 / 0
        found = [item.id for item in lab.list_contexts()]
        expect(found == ["outer"], f"after a failed savepoint the lab holds {found}")


@check("transactions")
def a_process_that_dies_in_a_transaction_leaves_nothing_half(bench: Workbench) -> None:
    """Recovery at the next opening."""
    path = bench.folder / "killed.db"
    expect(_python(KILLED, path) == 7, "the process did not die where it should")
    with bench.open(path, **HASH) as lab:
        found = [item.id for item in lab.list_contexts()]
        expect(found == ["whole"], f"the lab holds {found}")
        expect(lab.stats()["usage_rows"] == 0, "a call of the unfinished transaction is there")
        findings = lab.check(progress=False)
        expect(findings.empty, f"{len(findings)} findings after the crash")


@check("concurrency")
def threads_and_another_process_lose_nothing(bench: Workbench) -> None:
    """Many writers and readers at once."""
    path = bench.folder / "concurrent.db"
    with bench.open(path, **HASH) as lab, ThreadPoolExecutor(9) as pool:
        lab.store_context("A counter.", context_id="counter", metadata={"count": 0})
        other = pool.submit(_python, WRITER, path)

        def increment(_: int) -> None:
            with lab.transaction():
                count = lab.get_context("counter").metadata["count"]
                lab.update_context("counter", metadata={"count": count + 1})
            lab.search("counter", method="text", k=1)

        started = time.perf_counter()
        list(pool.map(increment, range(80)))
        _rate(bench, "concurrent", 160, time.perf_counter() - started)
        other.result()
        count = lab.get_context("counter").metadata["count"]
        expect(count == 80, f"80 increments by 8 threads came to {count}")
        calls = lab.stats()["usage_rows"]
        expect(calls == 20, f"20 calls recorded by another process, {calls} are there")


@check("concurrency")
def coroutines_lose_nothing(bench: Workbench) -> None:
    """The asynchronous lab."""

    async def main() -> int:
        options: dict[str, Any] = {"encoder": bench.encoder} if bench.encoder else HASH
        async with aio.open(bench.folder / "async.db", read_only=False, **options) as lab:
            await asyncio.gather(*(lab.store_context(f"Task {n}.", context_id=str(n)) for n in range(40)))
            async with lab.transaction():
                await asyncio.gather(*(lab.record_usage("self-test", input_tokens=n) for n in range(10)))
            return int((await lab.stats())["contexts"]) + len(await lab.ledger_df())

    with ThreadPoolExecutor(1) as pool:  # also where an event loop is running, as in Jupyter
        found = pool.submit(lambda: asyncio.run(main())).result()
    expect(found == 50, f"40 contexts and 10 calls were stored, {found} are there")


@check("errors")
def wrong_input_is_refused_and_changes_nothing(bench: Workbench) -> None:
    """Error conditions of verbs."""
    with bench.fresh("errors") as lab:
        lab.store_context("There.", context_id="there")
        before = lab.stats()
        refused: list[tuple[type[Exception], str, Callable[[], Any]]] = [
            (InvalidValue, "storing nothing", lambda: lab.store_context("")),
            (InvalidValue, "storing a NUL", lambda: lab.store_context("a\0b")),
            (InvalidValue, "metadata that is no JSON", lambda: lab.store_context("x", metadata={"a": object()})),
            (ContextExists, "another text under the same id", lambda: lab.store_context("y", context_id="there")),
            (InvalidValue, "searching for 0 results", lambda: lab.search("x", k=0)),
            (InvalidValue, "negative tokens", lambda: lab.record_usage("m", input_tokens=-1)),
            (InvalidValue, "a time without a zone", lambda: lab.record_usage("m", at="2026-05-01T10:00:00")),
        ]
        for kind, doing, action in refused:
            with expect_error(kind, doing):
                action()
        expect(lab.stats() == before, "a refused call changed the lab")


@check("errors")
def places_that_cannot_be_a_lab_are_refused(bench: Workbench) -> None:
    """Error conditions of files."""
    text = bench.folder / "text.db"
    text.write_text("This is a text, and not a database at all.", encoding="utf-8")
    with expect_error(NotALab, "opening a text file"):
        bench.open(text)
    with expect_error(StorageError, "opening a folder"):
        bench.open(bench.folder)
    with expect_error(StorageError, "opening a file in no folder"):
        bench.open(bench.folder / "none" / "x.db")
    with expect_error(LabNotFound, "reading the schema of no file"):
        get_migration_status(bench.folder / "none.db")
    with bench.fresh("read") as lab:
        lab.store_context("There.", context_id="there")
    with expect_error(LabClosed, "reading a closed lab"):
        lab.get_context("there")
    with bench.open(bench.folder / "read.db", read_only=True) as reading:
        expect(reading.get_context("there").content == "There.", "a read-only lab does not read")
        with expect_error(ReadOnlyLab, "writing to a read-only lab"):
            reading.store_context("No.")


def _rate(bench: Workbench, operation: str, count: int, seconds: float) -> None:
    rate = count / max(seconds, 1e-9)
    row = {"operation": operation, "per_second": round(rate, 1), "at_least": LEAST[operation]}
    bench.rates.append({**row, "typical": TYPICAL.get(operation)})
    expect(rate >= LEAST[operation], f"{rate:.1f} {operation} per second, at least {LEAST[operation]} are expected")


@check("performance")
def the_lab_is_quick_enough(bench: Workbench) -> None:
    """A short benchmark on this disk, with the hash encoder: one operation per call, each of them durable."""
    with bench.fresh("speed", **HASH) as lab:

        def store(number: int) -> object:
            return lab.store_context(f"Note {number} about subject{number % 40}.", context_id=str(number))

        stored = _measure(bench, "store", 200, store)
        _measure(bench, "get", 400, lambda number: lab.get_context(str(number % stored)))
        _measure(bench, "search_text", 100, lambda number: lab.search(f"subject{number % 40}", method="text"))
        _measure(bench, "search_semantic", 100, lambda number: lab.search(f"subject{number % 40}", method="semantic"))
        _measure(bench, "record_usage", 200, lambda number: lab.record_usage("self-test", input_tokens=number))


def _measure(bench: Workbench, operation: str, most: int, action: Callable[[int], object]) -> int:
    """Do something so many times, or for two seconds, and return how often it was done."""
    if operation != "store":
        action(0)
    done, started = 0, time.perf_counter()
    while done < most and time.perf_counter() - started < MOST_SECONDS:
        action(done)
        done += 1
    _rate(bench, operation, done, time.perf_counter() - started)
    return done
