"""Reading connections: a pile that callers take from and give back to."""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable

from .. import forking
from ..errors import LabBusy, LabClosed
from .opening import PooledDatabase, Slot, leave_to_parent
from .waiting import Figures, Gate


class Readers:
    """The reading connections of one pool, at most `limit` of them; whoever waits comes before those who do not yet.

    What is lent is not kept in any list: a connection that its user dropped, whatever the reason, makes room again.
    """

    def __init__(
        self,
        open_one: Callable[[], PooledDatabase],
        *,
        path: str,
        limit: int,
        deadline_seconds: float,
        figures: Figures,
    ) -> None:
        self._open_one = open_one
        self._path = path
        self._limit = limit
        self._deadline_seconds = deadline_seconds
        self._figures = figures
        self._idle: deque[PooledDatabase] = deque()
        self._slots: weakref.WeakSet[Slot] = weakref.WeakSet()
        self._gate = Gate()
        self._queue = 0
        self._epoch = object()
        self.closed = False

    @property
    def open_count(self) -> int:
        """How many connections are open."""
        return len(self._slots)

    @property
    def used_count(self) -> int:
        """How many of them somebody has."""
        return max(0, len(self._slots) - len(self._idle))

    def take(self) -> PooledDatabase:
        """Return a connection, one that is open already where there is one. Raises `LabBusy`, `LabClosed`."""
        if not self._queue:
            try:
                return self._idle.pop()
            except IndexError:
                pass
        found = self._idle_or_slot(fresh=False)
        return found if isinstance(found, PooledDatabase) else self._opened(found, self._open_one)

    def take_new(self, open_one: Callable[[], PooledDatabase]) -> PooledDatabase:
        """Return a connection that nobody had before; it counts like the others, but is never lent again."""
        slot = self._idle_or_slot(fresh=True)
        assert isinstance(slot, Slot)
        return self._opened(slot, open_one)

    def give_back(self, database: PooledDatabase, *, usable: bool) -> None:
        """Put a connection on the pile, or close it where it must not be used again."""
        if usable and database.epoch is self._epoch and not database.conn.in_transaction:
            self._idle.append(database)
            if database.epoch is not self._epoch:  # closed or renewed in this very moment
                self._close_idle()
        else:
            discard(database)
        if self._queue:
            with self._gate.lock:
                self._gate.changed.notify()

    def _opened(self, slot: Slot, open_one: Callable[[], PooledDatabase]) -> PooledDatabase:
        epoch = self._epoch
        try:
            database = open_one()
        except BaseException:
            del slot
            with self._gate.lock:
                self._gate.changed.notify()
            raise
        database.slot, database.epoch = slot, epoch
        return database

    def _idle_or_slot(self, *, fresh: bool) -> PooledDatabase | Slot:
        started, waited = time.monotonic(), False
        until = started + self._deadline_seconds
        with self._gate.lock:
            self._queue += 1
            try:
                while (found := self._free(fresh=fresh)) is None:
                    left, waited = until - time.monotonic(), True
                    if left <= 0:
                        self._figures.waited(started, in_vain=True)
                        raise LabBusy(
                            f"no reading connection to {self._path} came free in {self._deadline_seconds} s: "
                            "raise max_connections or deadline_seconds"
                        )
                    self._gate.wait(left)
            finally:
                self._queue -= 1
        if waited:
            self._figures.waited(started)
        return found

    def _free(self, *, fresh: bool) -> PooledDatabase | Slot | None:
        if self.closed:
            raise LabClosed
        if not fresh or len(self._slots) >= self._limit:
            try:
                database = self._idle.pop()
            except IndexError:
                pass
            else:
                if not fresh:
                    return database
                discard(database)
                del database
        if len(self._slots) >= self._limit:
            return None
        slot = Slot()
        self._slots.add(slot)
        return slot

    def renew(self, *, closed: bool = False) -> None:
        """Close what is idle, and later what comes back; from now on connections are opened anew."""
        with self._gate.lock:
            self._epoch, self.closed = object(), closed
            self._close_idle()
            self._gate.changed.notify_all()

    def _close_idle(self) -> None:
        while self._idle:
            discard(self._idle.pop())

    def rest(self, *, until: float) -> bool:
        """Keep everybody out until `go_on`; tell whether all connections came back by then, and were closed."""
        self._gate.lock.acquire()
        self._queue += 1
        while self.used_count and (left := until - time.monotonic()) > 0:
            self._gate.wait(left)
        if self.used_count:
            return False
        self._close_idle()
        return True

    def go_on(self) -> None:
        """Let everybody in again."""
        self._queue -= 1
        self._gate.changed.notify_all()
        self._gate.lock.release()

    def begin_anew(self) -> None:
        """Forget everything, in a child process: what is here belongs to its parent."""
        for database in self._idle:
            leave_to_parent(database)
        self._idle, self._slots = deque(), weakref.WeakSet()
        self._gate, self._queue, self._epoch = Gate(), 0, object()


def discard(database: PooledDatabase) -> None:
    """Close a connection, unless it is the parent's of this forked process."""
    if database.process != forking.process:
        leave_to_parent(database)
        return
    database.close()
    database.slot = None
