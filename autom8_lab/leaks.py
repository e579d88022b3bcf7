"""Where in the user's code something is held, and what was never given back."""

from __future__ import annotations

import contextlib
import sys
import warnings
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Generic, TypeVar

from .errors import LeakWarning

OURS = (str(Path(__file__).parent), contextlib.__file__)
Lent = TypeVar("Lent")
Place = tuple[str, int]


def _outside(frame: FrameType | None) -> Place:
    while frame is not None and frame.f_code.co_filename.startswith(OURS):
        frame = frame.f_back
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("<unknown>", 0)


def place_of_thread(thread: int | None) -> str:
    """Return " (it is at file:line)" for a running thread, "" where that cannot be told."""
    frame = sys._current_frames().get(thread) if thread is not None else None
    return "" if frame is None else " (it is at {}:{})".format(*_outside(frame))


class Watched(AbstractContextManager[Lent], Generic[Lent]):
    """A context manager that, entered and then dropped, says in which line it was made.

    Whatever it holds is given back then: see `storage.transactions.Block`.
    """

    def __init__(self, manager: AbstractContextManager[Lent], *, what: str, end: str) -> None:
        self._manager = manager
        self._what = what
        self._end = end
        self._asked_for_at = _outside(sys._getframe(1))
        self._entered_at: Place | None = None

    def __enter__(self) -> Lent:
        self._entered_at = self._asked_for_at
        try:
            return self._manager.__enter__()
        except BaseException:
            self._entered_at = None
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._entered_at = None
        return self._manager.__exit__(kind, error, trace)

    def report(self) -> None:
        """Warn if it was entered and not left."""
        place = getattr(self, "_entered_at", None)
        if place is not None:
            self._entered_at, (name, line) = None, place
            message = f"the {self._what} taken at {name}:{line} was never given back, {self._end}: use a with block"
            warnings.warn_explicit(message, LeakWarning, name, line)

    def __del__(self) -> None:
        self.report()
