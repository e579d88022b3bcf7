"""The verbs as coroutines: transactions, cancelling, closing, and an event loop that goes on."""

from __future__ import annotations

import asyncio
import gc
import re
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from jupyter_client.manager import start_new_kernel

import autom8_lab as al
from autom8_lab.aio import AsyncLab
from autom8_lab.embedding import HashEncoder

BOTH_BACKENDS = True

Result = TypeVar("Result")


class SlowEncoder(HashEncoder):
    """Waits inside the work until it is let go."""

    def __init__(self) -> None:
        super().__init__(dimensions=16)
        self.working, self.go = threading.Event(), threading.Event()
        self.go.set()

    def encode_documents(self, texts: Sequence[str]) -> Any:
        self.working.set()
        assert self.go.wait(20)
        return super().encode_documents(texts)

    def hold(self) -> None:
        self.working.clear()
        self.go.clear()


def opened(path: str, **settings: Any) -> al.aio.Opening:
    return al.aio.open(path, **{"embedding_model": "hash-16", "synchronous": "OFF", **settings})


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def outcomes(work: Sequence[Awaitable[Any]]) -> list[Any]:
    return await asyncio.gather(*work, return_exceptions=True)


def ids(path: str) -> set[str]:
    """What is in the lab, with its vectors, as another program finds it."""
    with al.open(path, embedding_model="hash-16") as lab:
        stats = lab.stats()
        assert stats["without_vectors"] == 0
        return {item.id for item in lab.list_contexts()}


def threads_left() -> list[threading.Thread]:
    left = [thread for thread in threading.enumerate() if thread.name.startswith("autom8-lab")]
    for thread in left:
        thread.join(5)
    return [thread for thread in left if thread.is_alive()]


# The verbs


def test_the_verbs_do_what_they_do_without_await(place: Callable[[str], str]) -> None:
    async def main() -> None:
        async with opened(place("x.db")) as lab:
            assert repr(lab) == f"<AsyncLab {place('x.db')}>"
            assert await lab.store_context("Foxes are quick.", context_id="a", topic="animals") == "a"
            assert [hit.context.id for hit in await lab.search("quick foxes")] == ["a"]
            assert (await lab.search_df("foxes", topic="animals")).loc[0, "context_id"] == "a"
            assert (await lab.get_context("a")).content == "Foxes are quick."
            await lab.record_usage("gpt-4o-mini", input_tokens=1, output_tokens=2)
            assert len(await lab.ledger_df()) == 1
            assert len(await lab.searches_df()) == 2
            with pytest.raises(al.ContextNotFound):
                await lab.get_context("b")
            with pytest.raises(TypeError, match="unexpected keyword"):
                await lab.search("x", kk=3)  # type: ignore[call-arg]
        assert lab.closed

    asyncio.run(main())
    assert ids(place("x.db")) == {"a"}


def test_opening_leaves_the_current_lab_alone(place: Callable[[str], str]) -> None:
    current = al.open(place("current.db"), embedding_model="hash-16")

    async def main() -> None:
        lab = await opened(place("other.db"))
        assert al.current_lab() is current
        await lab.close()
        assert not current.closed

    asyncio.run(main())
    current.close()


def test_a_lab_that_cannot_be_opened_says_why(tmp_path: Path, place: Callable[[str], str]) -> None:
    async def main() -> None:
        with pytest.raises(al.ConfigurationError, match="cash_size"):
            await opened(place("x.db"), cash_size=5)
        with pytest.raises(al.StorageError, match="is a folder"):
            async with opened(tmp_path):
                raise AssertionError

    asyncio.run(main())


def test_cancelling_the_opening_closes_what_was_opened(place: Callable[[str], str]) -> None:
    made: list[al.Lab] = []
    go = threading.Event()

    def make() -> al.Lab:
        assert go.wait(20)
        made.append(al.open(place("x.db"), embedding_model="hash-16"))
        return made[0]

    async def main() -> None:
        opening = asyncio.ensure_future(al.aio.Opening(make)._open())
        await asyncio.sleep(0.05)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        go.set()
        await until(lambda: made and made[0].closed)

    asyncio.run(main())


def test_a_lab_belongs_to_its_event_loop(place: Callable[[str], str]) -> None:
    async def start() -> AsyncLab:
        return await opened(place("x.db"))

    async def main() -> None:
        with pytest.raises(al.LabError, match="belongs to another event loop"):
            await lab.stats()
        with pytest.raises(al.LabError, match="belongs to another event loop"):
            await lab.close()

    with asyncio.Runner() as runner:
        lab = runner.run(start())
        asyncio_run_in_thread(main)
        runner.run(lab.close())


def asyncio_run_in_thread(main: Callable[[], Any]) -> None:
    problems: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as exc:
            problems.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if problems:
        raise problems[0]


# Transactions


def test_a_transaction_lands_whole_or_not_at_all(place: Callable[[str], str]) -> None:
    async def main() -> None:
        async with opened(place("x.db")) as lab:
            async with lab.transaction() as same:
                assert same is lab
                await lab.store_context("One.", context_id="one")
                await lab.record_usage("m", input_tokens=1)
            with pytest.raises(RuntimeError, match="no"):
                async with lab.transaction():
                    await lab.store_context("Two.", context_id="two")
                    await lab.record_usage("m", input_tokens=1)
                    raise RuntimeError("no")
            assert len(await lab.ledger_df()) == 1
            assert [hit.context.id for hit in await lab.search("one", method="semantic")] == ["one"]

    asyncio.run(main())
    assert ids(place("x.db")) == {"one"}


def test_a_nested_block_is_a_savepoint(place: Callable[[str], str]) -> None:
    async def main() -> None:
        async with opened(place("x.db")) as lab, lab.transaction():
            await lab.store_context("Outer.", context_id="outer")
            with pytest.raises(RuntimeError):
                async with lab.transaction():
                    await lab.store_context("Inner.", context_id="inner")
                    raise RuntimeError
            async with lab.transaction():
                await lab.store_context("Second.", context_id="second")

    asyncio.run(main())
    assert ids(place("x.db")) == {"outer", "second"}


@pytest.mark.parametrize("path", ["x.db", ":memory:"])
def test_tasks_started_in_the_block_are_in_it_and_others_are_not(path: str) -> None:
    async def main() -> None:
        async with al.aio.open(path, embedding_model="hash-16") as lab:
            other = asyncio.Event()

            async def outside() -> None:
                await other.wait()
                await lab.store_context("Outside.", context_id="outside")

            task = asyncio.ensure_future(outside())
            with pytest.raises(RuntimeError):
                async with lab.transaction():
                    await asyncio.gather(*(lab.store_context(f"Text {n}.", context_id=f"{n}") for n in range(20)))
                    other.set()
                    await asyncio.sleep(0.1)
                    assert not task.done(), "its write waits for the end of the transaction"
                    assert len(await lab.list_contexts()) == 20
                    raise RuntimeError
            await task
            assert [item.id for item in await lab.list_contexts()] == ["outside"]

    asyncio.run(main())


def test_sql_of_ones_own_runs_off_the_loop_and_cannot_write(place: Callable[[str], str], backend: str) -> None:
    mark, address = {"sqlite": "?", "postgres": "%s"}[backend], place("lab.db")

    async def main() -> None:
        async with opened(place("lab.db"), max_connections=1, deadline_seconds=5) as lab:
            await lab.store_context("One.", context_id="one", topic="numbers")
            async with lab.connection() as connection:
                chosen = f"SELECT id FROM context_registry WHERE topic = {mark}"
                assert await connection.execute(chosen, ["numbers"]) == [("one",)]
                assert await connection.query("SELECT id FROM context_registry") == [{"id": "one"}]
                assert len(await connection.run(lambda own: own.execute(chosen, ["numbers"]).fetchall())) == 1
            for statement, error in (("DELETE FROM context_registry", al.ReadOnlyLab), ("SELEC", al.StorageError)):
                with pytest.raises(error, match=re.escape(address)):
                    async with lab.connection() as connection:
                        await connection.execute(statement)
            with pytest.raises(asyncio.TimeoutError):
                async with asyncio.timeout(0.01), lab.connection():
                    await asyncio.sleep(5)
            assert (await lab.get_context("one")).id == "one"  # the only connection came back each time

    asyncio.run(main())


def test_sql_of_ones_own_sees_the_transaction_that_it_is_in(place: Callable[[str], str]) -> None:
    async def main() -> None:
        async with opened(place("lab.db")) as lab:
            async with lab.transaction():
                await lab.store_context("One.", context_id="one")
                async with lab.connection() as connection:
                    await lab.store_context("Two.", context_id="two")
                    assert await connection.execute("SELECT count(*) FROM context_registry") == [(2,)]
                await lab.store_context("Three.", context_id="three")
            with pytest.raises(al.ReadOnlyLab):
                async with lab.transaction(), lab.connection() as connection:
                    await connection.execute("DELETE FROM context_registry")

    asyncio.run(main())
    assert ids(place("lab.db")) == {"one", "two", "three"}


def test_closing_while_a_connection_is_out_says_whose_it_is(place: Callable[[str], str]) -> None:
    async def main() -> None:
        lab = await opened(place("lab.db"))
        async with lab.connection() as connection:
            with pytest.warns(al.LeakWarning, match=rf"connection taken at {__file__}:\d+"):
                await lab.close()
            with pytest.raises(al.LabClosed):
                await connection.execute("SELECT 1")

    asyncio.run(main())


def test_readers_go_on_beside_a_transaction_and_do_not_see_it(place: Callable[[str], str]) -> None:
    async def main() -> None:
        async with opened(place("x.db")) as lab:
            await lab.store_context("Before.", context_id="before")
            begun, done = asyncio.Event(), asyncio.Event()

            async def reader() -> list[int]:
                await begun.wait()
                await asyncio.sleep(0.1)  # by now the writers fill their threads
                seen = [len(await lab.search("before within", method="text")) for _ in range(20)]
                done.set()
                return seen

            async def writer(number: int) -> None:
                await begun.wait()
                await lab.store_context(f"Waits {number}.")

            reading = asyncio.ensure_future(reader())
            writing = [asyncio.ensure_future(writer(number)) for number in range(10)]
            async with lab.transaction():
                await lab.store_context("Within.", context_id="within")
                begun.set()
                async with asyncio.timeout(10):
                    await done.wait()
                assert not any(task.done() for task in writing)
            assert set(await reading) == {1}
            await asyncio.gather(*writing)
            assert len(await lab.search("before within", method="text")) == 2

    asyncio.run(main())


def test_a_transaction_ends_although_many_writers_wait_for_it(place: Callable[[str], str]) -> None:
    async def main() -> None:
        async with opened(place("x.db")) as lab:
            begun = asyncio.Event()

            async def writer(number: int) -> None:
                await begun.wait()
                await lab.store_context(f"Waiting {number}.", context_id=f"waiting {number}")

            async with asyncio.TaskGroup() as group:
                for number in range(50):
                    group.create_task(writer(number))
                async with lab.transaction():
                    begun.set()
                    for number in range(10):
                        await lab.store_context(f"Inside {number}.", context_id=f"inside {number}")
                        await asyncio.sleep(0.005)
                        assert all(item.id.startswith("inside") for item in await lab.list_contexts())
            assert len(await lab.list_contexts()) == 60

    asyncio.run(main())


def test_transactions_of_many_tasks_take_turns(place: Callable[[str], str]) -> None:
    async def main() -> None:
        async with opened(place("x.db")) as lab:
            await lab.store_context("A counter.", context_id="counter", metadata={"count": 0})

            async def increment() -> None:
                async with lab.transaction():
                    count = (await lab.get_context("counter")).metadata["count"]
                    await asyncio.sleep(0)
                    await lab.update_context("counter", metadata={"count": count + 1})

            await asyncio.gather(*(increment() for _ in range(100)))
            assert (await lab.get_context("counter")).metadata["count"] == 100
            assert threading.active_count() < 20

    asyncio.run(main())


def test_savepoints_of_sibling_tasks_do_not_mix(place: Callable[[str], str]) -> None:
    async def main() -> None:
        async with opened(place("x.db")) as lab:

            async def child(number: int) -> None:
                async with lab.transaction():
                    await lab.store_context(f"First of {number}.", context_id=f"{number}a")
                    await asyncio.sleep(0.001)
                    await lab.store_context(f"Second of {number}.", context_id=f"{number}b")
                    if number % 2:
                        raise RuntimeError

            async with lab.transaction():
                await outcomes([child(number) for number in range(10)])

    asyncio.run(main())
    assert ids(place("x.db")) == {f"{number}{part}" for number in range(0, 10, 2) for part in "ab"}


def test_a_task_that_outlives_the_block_is_on_its_own(place: Callable[[str], str]) -> None:
    async def main() -> None:
        async with opened(place("x.db")) as lab:
            ended = asyncio.Event()

            async def later() -> None:
                await ended.wait()
                await lab.store_context("Later.", context_id="later")
                await lab.close()

            with pytest.raises(RuntimeError):
                async with lab.transaction():
                    task = asyncio.ensure_future(later())
                    await lab.store_context("Gone.", context_id="gone")
                    raise RuntimeError
            ended.set()
            await task

    asyncio.run(main())
    assert ids(place("x.db")) == {"later"}


def test_the_block_ends_after_what_its_tasks_have_begun(place: Callable[[str], str]) -> None:
    async def main() -> None:
        async with opened(place("x.db")) as lab:

            async def child() -> None:
                async with lab.transaction():
                    await lab.store_context("First.", context_id="first")
                    await asyncio.sleep(0.1)
                    await lab.store_context("Second.", context_id="second")

            async with lab.transaction():
                task = asyncio.ensure_future(child())
                await asyncio.sleep(0.02)
            assert task.done()
            assert len(await lab.list_contexts()) == 2

    asyncio.run(main())
    assert ids(place("x.db")) == {"first", "second"}


def test_what_a_task_does_beside_a_siblings_block_is_not_taken_back_with_it(place: Callable[[str], str]) -> None:
    async def main() -> None:
        async with opened(place("x.db")) as lab:
            begun = asyncio.Event()

            async def failing() -> None:
                async with lab.transaction():
                    await lab.store_context("Fails.", context_id="fails")
                    begun.set()
                    await asyncio.sleep(0.05)
                    raise RuntimeError

            async def plain() -> None:
                await begun.wait()
                await lab.store_context("Stays.", context_id="stays")

            async with lab.transaction():
                await outcomes([failing(), plain()])

    asyncio.run(main())
    assert ids(place("x.db")) == {"stays"}


def test_two_labs_can_be_in_a_transaction_at_once(place: Callable[[str], str]) -> None:
    async def main() -> None:
        async with opened(place("x.db")) as first, opened(place("y.db")) as second:
            async with first.transaction():
                await first.store_context("X.", context_id="x")
                with pytest.raises(RuntimeError):
                    async with second.transaction():
                        await second.store_context("Y.", context_id="y")
                        await first.store_context("X too.", context_id="x2")
                        raise RuntimeError

    asyncio.run(main())
    assert (ids(place("x.db")), ids(place("y.db"))) == ({"x", "x2"}, set())


# Cancelling


def test_a_verb_that_is_cancelled_while_it_works_lands_whole(place: Callable[[str], str]) -> None:
    encoder = SlowEncoder()

    async def main() -> None:
        async with opened(place("x.db"), embedding_model=None, encoder=encoder) as lab:
            encoder.hold()
            task = asyncio.ensure_future(lab.store_context("Whole.", context_id="whole"))
            await until(encoder.working.is_set)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            encoder.go.set()

    asyncio.run(main())
    assert ids(place("x.db")) == {"whole"}


def test_a_verb_that_is_cancelled_before_it_works_leaves_nothing(place: Callable[[str], str]) -> None:
    encoder = SlowEncoder()

    async def main() -> None:
        async with opened(place("x.db"), embedding_model=None, encoder=encoder) as lab:
            encoder.hold()
            tasks = [asyncio.ensure_future(lab.store_context(f"Text {n}.", context_id=f"{n}")) for n in range(20)]
            await until(encoder.working.is_set)
            await asyncio.sleep(0.05)
            for task in tasks:
                task.cancel()
            assert all(isinstance(item, asyncio.CancelledError) for item in await outcomes(tasks))
            encoder.go.set()

    asyncio.run(main())
    assert ids(place("x.db")) == {"0", "1"}, "the two that the writing threads had begun"


def test_a_transaction_that_is_cancelled_leaves_nothing_and_the_next_one_works(place: Callable[[str], str]) -> None:
    encoder = SlowEncoder()

    async def main() -> None:
        async with opened(place("x.db"), embedding_model=None, encoder=encoder) as lab:

            async def block() -> None:
                async with lab.transaction():
                    await lab.store_context("Half.", context_id="half")
                    await asyncio.sleep(60)

            task = asyncio.ensure_future(block())
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with lab.transaction():
                await lab.store_context("Next.", context_id="next")

    asyncio.run(main())
    assert ids(place("x.db")) == {"next"}


def test_a_transaction_that_is_cancelled_at_its_end_lands_whole(place: Callable[[str], str]) -> None:
    encoder = SlowEncoder()

    async def main() -> None:
        async with opened(place("x.db"), embedding_model=None, encoder=encoder) as lab:

            async def block() -> None:
                async with lab.transaction():
                    await lab.store_context("Whole.", context_id="whole")
                    await lab.record_usage("m", input_tokens=1)
                    encoder.hold()

            task = asyncio.ensure_future(block())
            await until(encoder.working.is_set)
            task.cancel()
            await asyncio.sleep(0.05)
            assert not task.done()
            task.cancel()
            encoder.go.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len(await lab.ledger_df()) == 1

    asyncio.run(main())
    assert ids(place("x.db")) == {"whole"}


def test_a_transaction_that_is_cancelled_while_it_waits_to_begin_does_not_wait(place: Callable[[str], str]) -> None:
    async def main() -> None:
        async with opened(place("x.db"), deadline_seconds=10) as lab:
            with al.open(place("x.db"), embedding_model="hash-16") as other, other.transaction():
                other.store_context("Another process is writing.", context_id="other")
                started = time.perf_counter()
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.2), lab.transaction():
                        raise AssertionError
                assert time.perf_counter() - started < 3
            async with lab.transaction():
                await lab.store_context("Then we do.", context_id="we")

    asyncio.run(main())
    assert ids(place("x.db")) == {"other", "we"}


def test_tasks_cancelled_at_random_leave_whole_transactions(place: Callable[[str], str]) -> None:
    async def main() -> set[str]:
        async with opened(place("x.db")) as lab:
            done: set[str] = set()

            async def pair(number: int) -> None:
                async with lab.transaction():
                    await lab.store_context(f"Left {number}.", context_id=f"left {number}")
                    await lab.store_context(f"Right {number}.", context_id=f"right {number}")
                done.add(f"{number}")

            tasks = [asyncio.ensure_future(pair(number)) for number in range(60)]
            for number, task in enumerate(tasks):
                if number % 2:
                    await asyncio.sleep(0.003)
                    task.cancel()
            await outcomes(tasks)
            return done

    done = asyncio.run(main())
    found = ids(place("x.db"))
    assert {f"left {number}" for number in done} <= found
    assert {name.split()[1] for name in found if name.startswith("left")} == {
        name.split()[1] for name in found if name.startswith("right")
    }


# Closing


def test_closing_in_the_middle_keeps_what_was_acknowledged_and_refuses_the_rest(place: Callable[[str], str]) -> None:
    async def main() -> set[str]:
        lab = await opened(place("x.db"))
        acknowledged: set[str] = set()

        async def agent(number: int) -> None:
            for turn in range(50):
                acknowledged.add(await lab.store_context(f"Text {number} {turn}.", context_id=f"{number} {turn}"))
                await lab.search("text")

        tasks = [asyncio.ensure_future(agent(number)) for number in range(200)]
        await until(lambda: len(acknowledged) > 20)
        await asyncio.gather(lab.close(), lab.close())
        ends = await outcomes(tasks)
        assert {type(end) for end in ends} == {al.LabClosed}
        assert lab.closed
        await lab.close()
        for refused in (lab.stats, lambda: lab.store_context("x"), lab.transaction().__aenter__):
            with pytest.raises(al.LabClosed, match="open it again"):
                await refused()
        return acknowledged

    acknowledged = asyncio.run(main())
    assert 20 < len(acknowledged) < 10_000
    assert ids(place("x.db")) == acknowledged
    assert not threads_left()


def test_closing_waits_for_the_transaction_in_progress(place: Callable[[str], str]) -> None:
    async def main() -> None:
        lab = await opened(place("x.db"))
        begun = asyncio.Event()

        async def block() -> None:
            async with lab.transaction():
                begun.set()
                await asyncio.sleep(0.1)
                await lab.store_context("To the end.", context_id="end")

        async def late() -> None:
            await begun.wait()
            async with lab.transaction():
                raise AssertionError

        task, waiting = asyncio.ensure_future(block()), asyncio.ensure_future(late())
        await begun.wait()
        await asyncio.sleep(0.02)
        await lab.close()
        await task
        with pytest.raises(al.LabClosed):
            await waiting

    asyncio.run(main())
    assert ids(place("x.db")) == {"end"}


def test_closing_inside_a_transaction_is_refused(place: Callable[[str], str]) -> None:
    async def main() -> None:
        async with opened(place("x.db")) as lab, lab.transaction():
            with pytest.raises(al.LabError, match=r"close\(\) inside a transaction"):
                await lab.close()

    asyncio.run(main())


def test_a_transaction_that_does_not_end_keeps_the_lab_open(place: Callable[[str], str]) -> None:
    async def main() -> None:
        async with opened(place("x.db"), deadline_seconds=0.2) as lab:
            begun, end = asyncio.Event(), asyncio.Event()

            async def block() -> None:
                async with lab.transaction():
                    begun.set()
                    await end.wait()

            task = asyncio.ensure_future(block())
            await begun.wait()
            with pytest.raises(al.LabBusy, match=r"other tasks kept transactions on .* going for 0.2 s"):
                await lab.close()
            with pytest.raises(al.LabBusy, match="raise deadline_seconds"):
                async with lab.transaction():
                    raise AssertionError
            end.set()
            await task
            await lab.store_context("Still open.", context_id="open")

    asyncio.run(main())
    assert ids(place("x.db")) == {"open"}


def test_cancelling_the_close_does_not_stop_it(place: Callable[[str], str]) -> None:
    encoder = SlowEncoder()

    async def main() -> None:
        lab = await opened(place("x.db"), embedding_model=None, encoder=encoder)
        encoder.hold()
        store = asyncio.ensure_future(lab.store_context("Whole.", context_id="whole"))
        await until(encoder.working.is_set)
        closing = asyncio.ensure_future(lab.close())
        await asyncio.sleep(0.05)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        encoder.go.set()
        assert await store == "whole"
        await until(lambda: lab.closed)

    asyncio.run(main())


# Tracking


def test_a_tracked_call_is_recorded_off_the_loop_and_inside_the_transaction(place: Callable[[str], str]) -> None:
    async def main() -> None:
        async with opened(place("x.db")) as lab:
            async with lab.track_usage("m", operation="chat") as call:
                call.input_tokens = 5
            with pytest.raises(RuntimeError):
                async with lab.transaction():
                    async with lab.track_usage("m") as call:
                        call.input_tokens = 7
                    assert len(await lab.ledger_df()) == 2
                    raise RuntimeError
            with pytest.raises(ValueError):
                async with lab.track_usage("m"):
                    raise ValueError

            @lab.track_usage("m", usage=lambda result: {"output_tokens": result})
            async def answer() -> int:
                return 9

            assert await answer() == 9
            ledger = await lab.ledger_df()
            assert ledger["input_tokens"].fillna(0).tolist() == [5, 0, 0]
            assert ledger["output_tokens"].fillna(0).tolist() == [0, 0, 9]
            assert ledger["success"].tolist() == [True, False, True]

    asyncio.run(main())


def test_a_call_that_would_be_recorded_on_the_loop_is_refused(place: Callable[[str], str]) -> None:
    async def main() -> None:
        async with opened(place("x.db")) as lab:
            with pytest.raises(al.LabError, match="use `async with"), lab.track_usage("m"):
                pass
            with pytest.raises(al.LabError, match="is no coroutine function"):
                lab.track_usage("m")(lambda: None)

    asyncio.run(main())


# The event loop


async def longest_gap_ms(work: Awaitable[Any]) -> float:
    gaps = [0.0]

    async def ticker() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            gaps.append(time.perf_counter() - before - 0.001)

    ticking = asyncio.ensure_future(ticker())
    await work
    await asyncio.sleep(0.005)
    ticking.cancel()
    return max(gaps) * 1_000


def test_two_hundred_coroutines_lose_nothing_and_the_loop_goes_on(place: Callable[[str], str]) -> None:
    async def main() -> list[float]:
        gaps = []
        async with opened(place("x.db")) as lab:
            await lab.search_df("pandas is loaded by the first frame")
            gc.collect()
            gc.freeze()  # Python's own full collection takes 50 ms where every library of the tests is loaded

            async def agent(name: str) -> None:
                await lab.store_context(f"{name} likes {name} best.", context_id=name)
                assert [hit.context.id for hit in await lab.search(name, k=1, method="text")] == [name]
                await lab.record_usage("m", input_tokens=1)

            # What another process takes from this machine keeps the loop waiting too; a blocking verb would do so each time.
            for attempt in range(10):
                gaps.append(await longest_gap_ms(asyncio.gather(*(agent(f"a{attempt}n{n}") for n in range(200)))))
                if gaps[-1] < 50:
                    break
            stats = await lab.stats()
            assert (stats["contexts"], stats["usage_rows"]) == (200 * len(gaps), 200 * len(gaps))
            assert stats["searches"] == 200 * len(gaps) + 1
        return gaps

    try:
        assert min(asyncio.run(main())) < 50
    finally:
        gc.unfreeze()


def test_the_measure_sees_a_loop_that_is_blocked() -> None:
    async def main() -> float:
        async def blocking() -> None:
            await asyncio.sleep(0.01)
            time.sleep(0.08)

        return await longest_gap_ms(blocking())

    assert asyncio.run(main()) > 50


def test_a_notebook_awaits_at_the_top_level(tmp_path: Path) -> None:
    cells = [
        f"import autom8_lab as al\nlab = await al.aio.open({str(tmp_path / 'x.db')!r}, embedding_model='hash-16')",
        "await lab.store_context('Foxes are quick.', context_id='a')",
        "import asyncio\nfound = await asyncio.gather(*(lab.search('foxes') for _ in range(20)))",
        "print([hits[0].context.id for hits in found] == ['a'] * 20)",
        "await lab.close()",
    ]
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(tmp_path))
    printed = []
    try:
        for cell in cells:
            reply = client.execute_interactive(cell, timeout=60, output_hook=printed.append)
            assert reply["content"]["status"] == "ok", reply["content"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
    assert [item["content"]["text"] for item in printed if item["msg_type"] == "stream"] == ["True\n"]
