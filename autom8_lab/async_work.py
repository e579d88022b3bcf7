"""Work that threads do for coroutines: what is begun is ended, also when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from .errors import InvalidValue

Result = TypeVar("Result")


async def begun(pool: ThreadPoolExecutor, begin: Callable[[], Result], undo: Callable[[Result], object]) -> Result:
    """Return what a thread begins; where the waiting task is cancelled, what is begun all the same is undone."""
    started = pool.submit(begin)
    waiting = asyncio.wrap_future(started)
    try:
        await asyncio.wait([waiting])
    except asyncio.CancelledError:
        if not started.cancel():
            waiting.add_done_callback(asyncio.Future.exception)  # nobody else will ask for it
            pool.submit(lambda: started.exception() or undo(started.result()))
        raise
    return waiting.result()


async def to_its_end(future: asyncio.Future[Result]) -> Result:
    """Wait for what cannot be stopped, also when the waiting task is cancelled: the cancellation then comes after it."""
    cancelled = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        raise cancelled from future.exception()
    return future.result()


class AsyncConnection:
    """What `async with lab.connection()` gives: SQL off the event loop."""

    def __init__(self, connection: Any, call: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        self._connection = connection
        self._call = call

    async def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a statement as tuples. Raises `StorageError`."""
        return await self.run(lambda connection: connection.execute(sql, parameters or None).fetchall())

    async def query(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[dict[str, Any]]:
        """Return the rows of a query as dicts. Raises `StorageError`, and `InvalidValue` for what gives no rows."""

        def rows(connection: Any) -> list[dict[str, Any]]:
            from sqlite_utils.utils import dedupe_keys

            cursor = connection.execute(sql, parameters or None)
            if cursor.description is None:
                raise InvalidValue(f"{sql!r} gives no rows: use execute()")
            names = list(dedupe_keys(column[0] for column in cursor.description))
            return [dict(zip(names, row, strict=True)) for row in cursor]

        return await self.run(rows)

    async def run(self, function: Callable[[Any], Result]) -> Result:
        """Return what a function makes of the connection that `Lab.connection` lends, in a thread of the lab."""
        result: Result = await self._call(functools.partial(function, self._connection), writes=False)
        return result
