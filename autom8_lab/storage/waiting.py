"""Waiting: whose turn it is, how long to try, and what waiting has cost so far."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import tenacity
from sqlite_utils.utils import sqlite3

from ..errors import LabBusy
from .driver import is_busy

REMEMBERED_WAITS = 4_096
LOOK_AGAIN_SECONDS = 1.0
JITTER = tenacity.wait_random_exponential(multiplier=0.005, max=0.5)
Result = TypeVar("Result")


class Figures:
    """How often callers had to wait for a connection or a lock, for how long, and how often in vain."""

    def __init__(self) -> None:
        self.retries = 0
        self.timeouts = 0
        self.waits = 0
        self._seconds: deque[float] = deque(maxlen=REMEMBERED_WAITS)

    def waited(self, since: float, *, in_vain: bool = False) -> None:
        """Note a wait that began at this time of the monotonic clock."""
        self.waits += 1
        self.timeouts += in_vain
        self._seconds.append(time.monotonic() - since)

    def quantile_ms(self, share: float) -> float | None:
        """Return a quantile (nearest rank) of the last waits in milliseconds, None where nobody waited."""
        seconds = sorted(self._seconds)
        return round(seconds[min(int(share * len(seconds)), len(seconds) - 1)] * 1000, 3) if seconds else None


class Holder(Protocol):
    """Whoever has a turn; `thread` is the one that he works in, None if he goes from thread to thread."""

    thread: int | None


class Gate:
    """A lock and a condition on it.

    The lock is taken as `with gate.lock`, because its methods are not Python's own: Ctrl-C cannot come between them
    and the block, as it can in those of `threading.Condition`, which then would stay locked for ever.
    """

    __slots__ = ("changed", "lock")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)

    def wait(self, seconds: float) -> None:
        """Wait for a change, but look again after a while: an object that died may have had no chance to tell."""
        self.changed.wait(min(seconds, LOOK_AGAIN_SECONDS))


class Turn:
    """A lock that belongs to an object, not to a thread: it is free again as soon as that object is gone.

    So an interruption at whatever moment, which skips the release, leaves no lock behind.
    """

    __slots__ = ("__weakref__", "_gate", "_holder", "_queue")

    def __init__(self, *, shared: Gate | None = None) -> None:
        # A gate costs more than the rest, so turns that hardly anybody waits for may share one.
        self._gate = shared or Gate()
        self._queue: deque[weakref.ref[Any]] = deque()
        self._holder: weakref.ref[Any] | None = None

    @property
    def holder(self) -> Any:
        """Return who has the turn, None if it is free."""
        return None if self._holder is None else self._holder()

    @property
    def is_of_this_thread(self) -> bool:
        """Whether another task of this very thread has the turn: to wait for it here would keep it from going on."""
        return self.holder is not None and self.holder.thread == threading.get_ident()

    def take(self, holder: Holder, *, until: float) -> bool:
        """Wait for the turn until this time of the monotonic clock and return whether it was got."""
        with self._gate.lock:
            if self.holder is None and self._first() is None:
                self._holder = weakref.ref(holder, self._gone)
                return True
            return self._queue_up(holder, until)

    def _queue_up(self, holder: Holder, until: float) -> bool:
        # Whoever came first is first: else those who give it back and want it again at once keep the others waiting.
        place = weakref.ref(holder)
        self._queue.append(place)
        try:
            # Both are asked anew each time: a name for them would keep them alive.
            while self.holder is not None or self._first() is not holder:
                left = until - time.monotonic()
                if left <= 0 or self.is_of_this_thread:
                    return False
                self._gate.wait(left)
            self._holder = weakref.ref(holder, self._gone)
            return True
        finally:
            self._queue.remove(place)
            if self.holder is None:
                self._wake()

    def _first(self) -> Any:
        """Return who has waited longest, None where nobody waits; whoever is gone waits no more."""
        while self._queue and self._queue[0]() is None:
            self._queue.popleft()
        return self._queue[0]() if self._queue else None

    def give_back(self, holder: Holder) -> None:
        """Let the next one have the turn."""
        with self._gate.lock:
            if self.holder is holder:
                self._holder = None
                self._wake()

    def _gone(self, _: object) -> None:
        with self._gate.lock:
            self._wake()

    def _wake(self) -> None:
        self._gate.changed.notify_all()  # only the first of them goes on


def retry(action: Callable[[], Result], *, until: float, patience_seconds: float, figures: Figures) -> Result:
    """Repeat an action with exponential backoff and jitter while the database is busy, until the deadline.

    `patience_seconds` is what one try may take. Every other error is raised at once.
    """
    try:
        return action()  # the usual case, without what a retry costs to set up
    except (sqlite3.Error, LabBusy) as exc:
        if not is_busy(exc) or time.monotonic() >= until - patience_seconds:
            raise
    started, last_try = time.monotonic(), until - patience_seconds

    def pause(state: tenacity.RetryCallState) -> float:
        figures.retries += 1
        return max(0.0, min(JITTER(state), last_try - time.monotonic()))

    repeated = tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_busy),
        wait=pause,
        stop=lambda state: time.monotonic() >= last_try,
        reraise=True,
    )
    try:
        result = repeated(action)
    except BaseException as exc:
        figures.waited(started, in_vain=is_busy(exc))
        raise
    figures.waited(started)
    return result
