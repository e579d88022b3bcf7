"""What is taken and never given back is reported with the line that took it, and kept from nobody."""

from __future__ import annotations

import gc
import inspect
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

import autom8_lab as al
from autom8_lab.lab import Lab

BOTH_BACKENDS = True


def ids(lab: Lab) -> list[str]:
    return sorted(context.id for context in lab.list_contexts())


def here() -> int:
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def test_a_connection_that_is_dropped_is_reported_with_its_line_and_makes_room_again(
    place: Callable[[str], str],
) -> None:
    with al.open(place("one.db"), embedding_model="hash-16", max_connections=1, deadline_seconds=5) as lab:
        block, line = lab.connection(), here()
        database = block.__enter__()
        assert database.execute("SELECT count(*) FROM context_registry").fetchone()[0] == 0
        with pytest.warns(al.LeakWarning, match=rf"connection taken at {__file__}:{line} was never given back") as seen:
            del block
        assert (seen[0].filename, seen[0].lineno) == (__file__, line)
        del database
        assert ids(lab) == []
        assert lab.stats()["connections_in_use"] == 0


def test_a_transaction_that_is_dropped_is_reported_with_its_line_and_taken_back(lab: Lab) -> None:
    block, line = lab.transaction(), here()
    block.__enter__()
    lab.store_context("Never.", context_id="never")
    with pytest.warns(al.LeakWarning, match=rf"transaction taken at .*:{line} .*nothing of it was kept"):
        del block
    gc.collect()
    assert ids(lab) == []
    with ThreadPoolExecutor() as threads:  # the writing connection is free for others too
        assert threads.submit(lab.store_context, "After.", context_id="after").result(timeout=5) == "after"


def test_a_savepoint_that_is_dropped_is_taken_back_alone(lab: Lab) -> None:
    with lab.transaction():
        lab.store_context("Outer.", context_id="outer")
        block = lab.transaction()
        block.__enter__()
        lab.store_context("Inner.", context_id="inner")
        with pytest.warns(al.LeakWarning, match="transaction taken at"):
            del block
        lab.store_context("Outer again.", context_id="again")
    assert ids(lab) == ["again", "outer"]


def test_a_connection_that_is_out_when_the_lab_is_closed_is_reported(place: Callable[[str], str]) -> None:
    lab = al.open(place("lab.db"), embedding_model="hash-16")
    block = lab.connection()
    block.__enter__()
    with pytest.warns(al.LeakWarning, match=rf"connection taken at {__file__}"):
        lab.close()
    block.__exit__(None, None, None)  # reported once, and warnings are errors here


def test_what_is_given_back_is_not_reported(lab: Lab) -> None:
    with lab.connection(), lab.transaction(), lab.transaction():
        pass
    with pytest.raises(ZeroDivisionError), lab.transaction():
        raise ZeroDivisionError
    with pytest.raises(al.LabClosed):
        closed = al.open(":memory:", embedding_model="hash-16")
        closed.close()
        closed.transaction().__enter__()
    gc.collect()  # warnings are errors here


def test_whoever_waits_in_vain_learns_where_the_other_thread_is(place: Callable[[str], str]) -> None:
    with al.open(place("lab.db"), embedding_model="hash-16", deadline_seconds=0.2) as lab:
        entered, leave = Event(), Event()

        def write() -> None:
            with lab.transaction():
                entered.set()
                leave.wait(10)

        with ThreadPoolExecutor() as threads:
            writing = threads.submit(write)
            entered.wait(5)
            time.sleep(0.05)
            with pytest.raises(al.LabBusy, match=r"another thread \(it is at .*:\d+\) kept the writing connection"):
                lab.store_context("Other.")
            leave.set()
            writing.result(timeout=5)
