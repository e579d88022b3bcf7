"""The same verbs as coroutines: `async with al.aio.open("autom8.db") as lab: await lab.search("query")`.

The work is done by threads that belong to the lab, so the event loop goes on meanwhile. A verb that is cancelled
either has not begun, and then leaves nothing, or is done to its end, and then lands whole.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from . import care, setup
from . import lab as lab_module
from .agents import acting_agent, acting_as
from .async_work import AsyncConnection, begun, to_its_end
from .errors import LabBusy, LabClosed, LabError
from .lab import Lab, make_lab
from .verbs.parts import utc_now

if TYPE_CHECKING:
    from datetime import datetime
    from types import TracebackType

    from .embedding import Encoder
    from .tracking import UsageTracker

READERS, WRITERS = 4, 2  # more of them only keep the event loop waiting for the interpreter

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class _Block:
    """One `async with lab.transaction()`: where its thread's state is kept, and whose turn it is in it."""

    def __init__(self, lab: AsyncLab, context: contextvars.Context) -> None:
        self.lab = lab
        self.context = context
        self.turn = asyncio.Lock()
        self.finished = False


_blocks: contextvars.ContextVar[tuple[_Block, ...]] = contextvars.ContextVar("autom8_lab_blocks", default=())


def _coroutine(
    method: Callable[Concatenate[Lab, Parameters], Result], *, writes: bool
) -> Callable[Concatenate[AsyncLab, Parameters], Coroutine[Any, Any, Result]]:
    @functools.wraps(method)
    async def verb(self: AsyncLab, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return await self._call(functools.partial(method, self._lab, *args, **kwargs), writes=writes)

    return verb


def _reads(
    method: Callable[Concatenate[Lab, Parameters], Result],
) -> Callable[Concatenate[AsyncLab, Parameters], Coroutine[Any, Any, Result]]:
    """Return a method of `Lab` as a coroutine of `AsyncLab`, with the same signature and docstring."""
    return _coroutine(method, writes=False)


def _writes(
    method: Callable[Concatenate[Lab, Parameters], Result],
) -> Callable[Concatenate[AsyncLab, Parameters], Coroutine[Any, Any, Result]]:
    """Do what `_reads` does for a verb that may wait for the write lock."""
    return _coroutine(method, writes=True)


def _tracks(
    method: Callable[Concatenate[Lab, Parameters], UsageTracker],
) -> Callable[Concatenate[AsyncLab, Parameters], UsageTracker]:
    """Return `Lab.track_usage` with the recording done off the event loop."""

    @functools.wraps(method)
    def verb(self: AsyncLab, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> UsageTracker:
        return method(self._lab, *args, **kwargs).recorded_by(self._record)

    return verb


class AsyncLab:
    """A lab whose verbs are coroutines; open one with `al.aio.open`.

    Every verb of `Lab` is here with the same parameters. A lab belongs to the event loop that opened it. Reading
    verbs never wait for writing ones; `async with lab.transaction()` groups any verbs, also those of tasks that are
    started in the block. The lab that `al.search` and the other verbs of the module act on is not touched.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._loop = asyncio.get_running_loop()
        self._readers = ThreadPoolExecutor(
            min(READERS, os.cpu_count() or 1, lab.config.max_connections), "autom8-lab-reading"
        )
        self._writers = ThreadPoolExecutor(WRITERS, "autom8-lab-writing")
        # A transaction has a thread of its own: the others, who wait until it ends, must not keep it from ending.
        self._transactor = ThreadPoolExecutor(1, "autom8-lab-transaction")
        self._turn = asyncio.Lock()
        self._closing = False
        self._end: asyncio.Task[None] | None = None

    accesses_df = _writes(Lab.accesses_df)
    alias_context = _writes(Lab.alias_context)
    apply = _writes(Lab.apply)
    backup = _writes(Lab.backup)
    build_vector_index = _writes(Lab.build_vector_index)
    check = _reads(Lab.check)
    cleanup = _writes(Lab.cleanup)
    compare_models = _reads(Lab.compare_models)
    config_advice_df = _reads(Lab.config_advice_df)
    config_df = _reads(Lab.config_df)
    contexts_df = _reads(Lab.contexts_df)
    cost_df = _reads(Lab.cost_df)
    decision_contexts_df = _reads(Lab.decision_contexts_df)
    decisions_df = _reads(Lab.decisions_df)
    delete_context = _writes(Lab.delete_context)
    drift_df = _writes(Lab.drift_df)
    embed_contexts = _writes(Lab.embed_contexts)
    evaluate_search = _reads(Lab.evaluate_search)
    export = _reads(Lab.export)
    fit_router = _reads(Lab.fit_router)
    get_context = _reads(Lab.get_context)
    health = _reads(Lab.health)
    import_billing = _writes(Lab.import_billing)
    import_claude_code = _writes(Lab.import_claude_code)
    import_codex = _writes(Lab.import_codex)
    import_export = _writes(Lab.import_export)
    import_litellm = _writes(Lab.import_litellm)
    import_llm_embeddings = _writes(Lab.import_llm_embeddings)
    import_llm_logs = _writes(Lab.import_llm_logs)
    import_otel = _writes(Lab.import_otel)
    import_rows = _writes(Lab.import_rows)
    judge = _writes(Lab.judge)
    judgments_df = _reads(Lab.judgments_df)
    latency_df = _reads(Lab.latency_df)
    ledger_df = _reads(Lab.ledger_df)
    list_contexts = _reads(Lab.list_contexts)
    model_performance_df = _reads(Lab.model_performance_df)
    pin_context = _writes(Lab.pin_context)
    reconcile_df = _reads(Lab.reconcile_df)
    record_decision = _writes(Lab.record_decision)
    record_outcome = _writes(Lab.record_outcome)
    record_usage = _writes(Lab.record_usage)
    record_usages = _writes(Lab.record_usages)
    replay = _reads(Lab.replay)
    reprice_usage = _writes(Lab.reprice_usage)
    revert = _writes(Lab.revert)
    route = _writes(Lab.route)
    routing_report = _reads(Lab.routing_report)
    search = _reads(Lab.search)
    search_df = _reads(Lab.search_df)
    search_many = _reads(Lab.search_many)
    searches_df = _writes(Lab.searches_df)
    setting = _reads(Lab.setting)
    settings_df = _reads(Lab.settings_df)
    shown_df = _writes(Lab.shown_df)
    stats = _writes(Lab.stats)
    storage_df = _writes(Lab.storage_df)
    store_context = _writes(Lab.store_context)
    store_contexts = _writes(Lab.store_contexts)
    track_usage = _tracks(Lab.track_usage)
    tune_search = _reads(Lab.tune_search)
    tune_threshold = _reads(Lab.tune_threshold)
    unpin_context = _writes(Lab.unpin_context)
    unpriced_df = _reads(Lab.unpriced_df)
    update_context = _writes(Lab.update_context)
    usage_df = _reads(Lab.usage_df)
    use_prices = _writes(Lab.use_prices)

    async def _record(self, function: Callable[..., Result], *args: Any) -> Result:
        return await self._call(functools.partial(function, *args), writes=True)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncLab]:
        """Group any verbs: text, vectors and ledger land together at the end of the block, or not at all.

        The block's own task and the tasks that it starts are in the transaction, one verb at a time; verbs of other
        tasks are not, and their writes wait. Nested blocks are savepoints. A block that is cancelled leaves nothing,
        unless its end had begun: then it lands whole. Raises `LabBusy` after `deadline_seconds` of waiting.
        """
        outer = self._block()
        async with outer.turn if outer else self._first_turn():
            block = _Block(self, outer.context if outer else contextvars.copy_context())
            manager = self._lab.transaction()
            await self._begin(block, manager)
            before = _blocks.get()
            _blocks.set((*before, block))
            try:
                yield self
            except BaseException as error:
                await self._finish(block, manager, error)
                raise
            else:
                await self._finish(block, manager, None)
            finally:
                _blocks.set(before)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection]:
        """Lend a connection for SQL of your own, which can only read; see `Lab.connection`.

        Inside `transaction()` it sees the transaction's own writes.
        """
        block = self._block()
        context = block.context if block else contextvars.copy_context()
        manager = context.run(self._lab.connection)

        def leave(error: BaseException | None = None) -> None:
            kind, trace = (type(error), error.__traceback__) if error else (None, None)
            context.run(manager.__exit__, kind, error, trace)

        async with block.turn if block else nullcontext():
            self._refuse_when_closed()
            pool = self._transactor if block else self._readers
            database = await begun(pool, functools.partial(context.run, manager.__enter__), lambda _: leave())
        try:
            yield AsyncConnection(database, self._call)
        except BaseException as error:
            await to_its_end(asyncio.ensure_future(self._leave(block, functools.partial(leave, error))))
            raise
        else:
            await to_its_end(asyncio.ensure_future(self._leave(block, leave)))

    async def _leave(self, block: _Block | None, leave: Callable[[], None]) -> None:
        if block is None:
            await asyncio.to_thread(leave)  # not a thread of the lab, which may be closing
            return
        async with block.turn:
            await asyncio.wrap_future(self._transactor.submit(leave))

    async def close(self) -> None:
        """Let what has begun end, refuse the rest with `LabClosed`, and close every connection.

        A transaction in progress goes on to its end. Raises `LabBusy` where that takes longer than
        `deadline_seconds`; the lab then stays open. Closing twice is fine.
        """
        if self._block() is not None:
            raise LabError("close() inside a transaction: leave the block first")
        self._refuse_another_loop()
        if self._end is None:
            self._end = self._loop.create_task(self._close())
        await asyncio.shield(self._end)

    @property
    def closed(self) -> bool:
        """Whether the lab has been closed."""
        return self._lab.closed

    async def __aenter__(self) -> AsyncLab:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return repr(self._lab).replace("<Lab", "<AsyncLab", 1)

    # How the work gets into threads

    async def _call(self, function: Callable[[], Result], *, writes: bool) -> Result:
        block = self._block()
        if block is not None:
            async with block.turn:
                if not block.finished:
                    in_name = functools.partial(_in_name_of, acting_agent(None), function)
                    return await asyncio.wrap_future(self._transactor.submit(block.context.run, in_name))
        self._refuse_when_closed()
        pool = self._writers if writes else self._readers
        # Like asyncio.to_thread: what the caller's context holds is there in the thread, too.
        return await asyncio.wrap_future(pool.submit(contextvars.copy_context().run, self._unless_closed, function))

    def _unless_closed(self, function: Callable[[], Result]) -> Result:
        if self._closing:
            raise LabClosed
        return function()

    def _refuse_when_closed(self) -> None:
        if self._closing:
            raise LabClosed
        self._refuse_another_loop()

    def _refuse_another_loop(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise LabError("this lab belongs to another event loop: open one with al.aio.open(…) in each")

    def _block(self) -> _Block | None:
        return next((item for item in reversed(_blocks.get()) if item.lab is self and not item.finished), None)

    @asynccontextmanager
    async def _first_turn(self) -> AsyncIterator[None]:
        self._refuse_when_closed()
        async with self._alone():
            self._refuse_when_closed()
            yield

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        seconds = self._lab.config.deadline_seconds
        try:
            async with asyncio.timeout(seconds):
                await self._turn.acquire()
        except TimeoutError as exc:
            raise LabBusy(
                f"other tasks kept transactions on {self._lab.config.db_path} going for {seconds} s: "
                "end them sooner, or raise deadline_seconds"
            ) from exc
        try:
            yield
        finally:
            self._turn.release()

    async def _begin(self, block: _Block, manager: AbstractContextManager[Any]) -> None:
        # The thread may wait for another process: whoever is cancelled does not, and what begins after all is undone.
        def undo(_: object) -> None:
            error = asyncio.CancelledError()
            with suppress(asyncio.CancelledError):
                block.context.run(manager.__exit__, type(error), error, None)

        await begun(self._transactor, functools.partial(block.context.run, manager.__enter__), undo)

    async def _finish(self, block: _Block, manager: AbstractContextManager[Any], error: BaseException | None) -> None:
        await to_its_end(asyncio.ensure_future(self._end_block(block, manager, error)))

    async def _end_block(
        self, block: _Block, manager: AbstractContextManager[Any], error: BaseException | None
    ) -> None:
        # What its tasks have begun, nested blocks too, belongs to the block and comes before its end.
        async with block.turn:
            block.finished = True
            kind, trace = (type(error), error.__traceback__) if error else (None, None)
            exit = functools.partial(manager.__exit__, kind, error, trace)
            await asyncio.wrap_future(self._transactor.submit(block.context.run, exit))

    async def _close(self) -> None:
        self._closing = True
        try:
            async with self._alone():
                await to_its_end(asyncio.wrap_future(self._transactor.submit(self._close_threads)))
        except BaseException:
            self._closing, self._end = False, None
            raise
        self._transactor.shutdown(wait=False)

    def _close_threads(self) -> None:
        for pool in (self._readers, self._writers):
            pool.shutdown(wait=True)
        self._lab.close()


def _in_name_of(agent: str | None, function: Callable[[], Result]) -> Result:
    # A transaction has a context of its own, which does not know in whose name its tasks work.
    with acting_as(agent) if agent else nullcontext():
        return function()


class Opening:
    """A lab on its way: `await` it, or enter it with `async with`, which closes it at the end."""

    def __init__(self, make: Callable[[], Lab]) -> None:
        self._make = make
        self._opened: AsyncLab | None = None

    def __await__(self) -> Generator[Any, None, AsyncLab]:
        return self._open().__await__()

    async def _open(self) -> AsyncLab:
        pool = ThreadPoolExecutor(1, "autom8-lab-opening")
        try:
            return AsyncLab(await begun(pool, self._make, Lab.close))
        finally:
            pool.shutdown(wait=False)

    async def __aenter__(self) -> AsyncLab:
        self._opened = await self
        return self._opened

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._opened is not None
        await self._opened.close()


def open(
    path: str | os.PathLike[str] | None = None,
    *,
    preset: str | None = None,
    config_path: str | os.PathLike[str] | None = None,
    encoder: Encoder | None = None,
    clock: Callable[[], datetime] = utc_now,
    **settings: Any,
) -> Opening:
    """Open or create a lab off the event loop: `async with open(…) as lab:` or `lab = await open(…)`.

    The parameters are those of `al.open`; the lab that the verbs of the module act on stays the one it was.
    """
    options = {"preset": preset, "config_path": config_path, "encoder": encoder, "clock": clock, **settings}
    return Opening(functools.partial(make_lab, path, **options))


def _off_loop(function: Callable[Parameters, Result]) -> Callable[Parameters, Coroutine[Any, Any, Result]]:
    """Return a function as a coroutine that runs it in a thread, to its end even when it is cancelled."""

    @functools.wraps(function)
    async def coroutine(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return await asyncio.to_thread(function, *args, **kwargs)

    return coroutine


check_file = _off_loop(care.check_file)
get_migration_status = _off_loop(lab_module.get_migration_status)
repair = _off_loop(lab_module.repair)
run_migrations = _off_loop(lab_module.run_migrations)
setup_database = _off_loop(setup.setup_database)
setup_database_from_config = _off_loop(setup.setup_database_from_config)
validate_config = _off_loop(setup.validate_config)
