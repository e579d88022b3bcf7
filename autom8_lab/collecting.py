"""How often Python looks for garbage while much is imported or stored."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from .forking import new_lock

SURPLUS = 10_000  # objects more than were let go, after which Python looks; its own default is 700 or 2,000


class _Collection:
    """The thresholds of the collector, which all threads share, and the work that it is to leave alone."""

    def __init__(self) -> None:
        self._lock = new_lock()
        self._working = 0
        self._usual = self._raised = gc.get_threshold()

    def raise_threshold(self) -> None:
        with self._lock:
            self._working += 1
            if self._working > 1:
                return
            self._usual = gc.get_threshold()
            self._raised = (SURPLUS, *self._usual[1:])
            if 0 < self._usual[0] < SURPLUS:  # 0 is off
                gc.set_threshold(*self._raised)

    def restore_threshold(self) -> None:
        with self._lock:
            self._working -= 1
            # Whoever set others meanwhile meant them.
            if not self._working and gc.get_threshold() == self._raised:
                gc.set_threshold(*self._usual)


_collection = _Collection()


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Have Python look for garbage less often, until the last such block is over.

    A batch of thousands of calls or contexts is alive until it is written: to look through it again and again, and at
    all objects of all libraries besides, is a seventh of an import and finds nothing.
    """
    _collection.raise_threshold()
    try:
        yield
    finally:
        _collection.restore_threshold()
