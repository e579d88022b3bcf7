"""Tracking: a call measured while it runs, as a `with` block or a decorator."""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
import warnings
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from .entries import USAGE
from .errors import InvalidValue, LabError, UnrecordedUsageWarning, did_you_mean
from .validation import shortened

if TYPE_CHECKING:
    from types import TracebackType

Function = TypeVar("Function", bound=Callable[..., Any])
Record = Callable[[Mapping[str, Any]], int]


class TrackedCall:
    """A call in progress. Set what the provider reports: tokens, `quality_score`, `cost_actual_usd`, `metadata` …

    Every field of `record_usage` can be set; those set before the end are recorded with the measured latency.
    `usage_key` is the row's key, once the call is recorded.
    """

    model: str
    ttft_ms: float | None
    usage_key: int | None

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.__dict__.update(dict.fromkeys(USAGE), usage_key=None, **fields)
        self.__dict__["_started"] = time.perf_counter()

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in USAGE:
            raise AttributeError(f"a call has no field {name!r}{did_you_mean(name, USAGE)}")
        self.__dict__[name] = value

    def first_token(self) -> None:
        """Note that the first token has come; later tokens change nothing."""
        if self.__dict__["ttft_ms"] is None:
            self.__dict__["ttft_ms"] = self._elapsed_ms()

    def _elapsed_ms(self) -> float:
        return (time.perf_counter() - float(self.__dict__["_started"])) * 1_000

    def end(self, error: BaseException | None) -> None:
        """Fix the latency, and the error if there was one."""
        values = self.__dict__
        values["latency_ms"] = self._elapsed_ms() if values["latency_ms"] is None else values["latency_ms"]
        if error is not None:
            values["success"], values["error_type"] = False, values["error_type"] or type(error).__name__

    def fields(self) -> dict[str, Any]:
        """Return what is known about the call by now."""
        return {name: self.__dict__[name] for name in USAGE}


class UsageTracker:
    """Measures a block, or each call of a function, and records it. Made by `Lab.track_usage`."""

    def __init__(
        self,
        record: Record,
        fields: Mapping[str, Any],
        *,
        usage: Callable[[Any], Mapping[str, Any]] | None,
        clock: Callable[[], datetime],
    ) -> None:
        if usage is not None and not callable(usage):
            raise InvalidValue(f"usage={shortened(usage)} is a {type(usage).__name__}: give a function of the result")
        self._record = record
        self._fields = dict(fields)
        self._usage = usage
        self._clock = clock
        self._off_loop: Callable[..., Awaitable[Any]] = asyncio.to_thread
        self._async_only = False
        self._call: TrackedCall | None = None

    def recorded_by(self, off_loop: Callable[..., Awaitable[Any]]) -> UsageTracker:
        """Let `await off_loop(function, *arguments)` do the recording; only coroutines can then be measured."""
        self._off_loop, self._async_only = off_loop, True
        return self

    def _begin(self) -> TrackedCall:
        return TrackedCall({**self._fields, "at": self._clock()})

    def __enter__(self) -> TrackedCall:
        if self._async_only:
            raise LabError("this call is recorded off the event loop: use `async with lab.track_usage(…)`")
        return self._enter()

    def _enter(self) -> TrackedCall:
        if self._call is not None:
            raise LabError("this block is being tracked already: call al.track_usage(…) anew for each block")
        self._call = self._begin()
        return self._call

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        call, self._call = self._call, None
        assert call is not None
        call.end(error)
        self._finish(call, error)

    async def __aenter__(self) -> TrackedCall:
        return self._enter()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        call, self._call = self._call, None
        assert call is not None
        call.end(error)
        await self._off_loop(self._finish, call, error)

    def _finish(self, call: TrackedCall, error: BaseException | None) -> None:
        try:
            call.__dict__["usage_key"] = self._record(call.fields())
        except Exception as problem:
            if error is None:
                raise
            # The block's own error is what its caller has to see.
            error.add_note(f"autom8_lab could not record this call: {type(problem).__name__}: {problem}")

    def __call__(self, function: Function) -> Function:
        """Return the function with each of its calls recorded."""
        tracked: Any
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def tracked(*args: Any, **kwargs: Any) -> Any:
                call = self._begin()
                try:
                    result = await function(*args, **kwargs)
                except BaseException as error:
                    call.end(error)
                    await self._off_loop(self._finish, call, error)
                    raise
                call.end(None)
                await self._off_loop(self._succeed, call, result)
                return result

        elif self._async_only:
            raise LabError(
                f"{function!r} is no coroutine function: what it costs cannot be recorded off the event loop"
            )
        else:

            @functools.wraps(function)
            def tracked(*args: Any, **kwargs: Any) -> Any:
                call = self._begin()
                try:
                    result = function(*args, **kwargs)
                except BaseException as error:
                    call.end(error)
                    self._finish(call, error)
                    raise
                call.end(None)
                self._succeed(call, result)
                return result

        return tracked  # type: ignore[no-any-return]

    def _succeed(self, call: TrackedCall, result: Any) -> None:
        # The result may have cost money: an account that cannot be kept must not lose it.
        try:
            for name, value in (self._usage(result) if self._usage else {}).items():
                setattr(call, name, value)
            self._finish(call, None)
        except Exception as problem:
            message = f"the call of {call.model} was not recorded: {type(problem).__name__}: {problem}"
            warnings.warn(message, UnrecordedUsageWarning, stacklevel=3)
