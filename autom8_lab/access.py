"""The access log: which contexts were shown to whom, when, and for which query."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from .agents import acting_agent
from .errors import LabWarning, StorageError
from .forking import Forkable, follow_forks, new_lock
from .frames import TIME
from .records import Condition, SearchAnswer
from .validation import new_id

if TYPE_CHECKING:
    from .storage import Storage

FLUSH_ENTRIES = 1_000
FLUSH_SECONDS = 1.0
KEPT_ENTRIES = 10_000  # while the log cannot be written, memory must not grow for ever

SEARCH_COLUMNS = {
    "access_id": "str",
    "at": TIME,
    "agent": "str",
    "query": "str",
    "method": "str",
    "k": "int64",
    "filters": "object",
    "result_count": "int64",
    "context_ids": "object",
    "engine": "str",
    "degraded": "str",
    "duration_ms": "float64",
    "top_similarity": "float64",
}
ACCESS_COLUMNS = {
    "access_id": "str",
    "at": TIME,
    "kind": "str",
    "agent": "str",
    "context_id": "str",
    "query": "str",
    "method": "str",
    "rank": "Int64",
    "score": "float64",
}

Access = tuple[dict[str, Any], list[dict[str, Any]]]  # an entry of the log, and what it brought back


class AccessLog(Forkable):
    """Collects accesses and writes them in groups: a read must not wait for a disk.

    Entries are written after 1,000 of them or one second, before the log is read, and when the lab is closed.
    """

    def __init__(self, storage: Storage, *, enabled: bool, agent: str | None, clock: Callable[[], datetime]) -> None:
        self._storage = storage
        self._enabled = enabled and not storage.read_only
        self._agent = agent
        self._clock = clock
        self._lock = new_lock()
        self._noted: list[Access] = []
        self._since = time.monotonic()
        self._failed = False
        self._flushing = False
        self._full_at = FLUSH_ENTRIES
        follow_forks(self)

    def after_fork_in_child(self) -> None:
        """Leave the entries to the parent, which writes them."""
        self._noted, self._flushing = [], False

    def search(self, answer: SearchAnswer, *, k: int) -> None:
        """Note a search and its hits."""
        details = {
            "query": answer.query.replace("\0", " "),
            "method": answer.method,
            "engine": answer.engine,
            "degraded": answer.degraded,
            "k": k,
            "filters": answer.filters,
            "duration_ms": answer.duration_ms,
            "top_similarity": answer.top_similarity,
        }
        self._note("search", details, [(hit.context.id, hit.score) for hit in answer.hits])

    def read(self, context_id: str) -> None:
        """Note that a context was read by its id."""
        self._note("read", {}, [(context_id, None)])

    def add_searches(self, searches: Sequence[Mapping[str, Any]]) -> int:
        """Add searches that were made elsewhere, each with an id and `results` (id, score); return how many are new."""
        empty: dict[str, Any] = {
            "kind": "search",
            "method": "elsewhere",
            "degraded": None,
            "filters": {},
            "top_similarity": None,
        }
        entries, results = [], []
        for search in searches:
            details = {name: value for name, value in search.items() if name != "results"}
            entries.append({**empty, **details, "result_count": len(search["results"])})
            results += [
                {"access_id": search["id"], "rank": rank, "context_id": context_id, "score": score}
                for rank, (context_id, score) in enumerate(search["results"], 1)
            ]
        with self._storage.transaction():
            added = self._storage.insert("access_log", entries, ignore_existing=True)
            self._storage.insert("access_results", results, ignore_existing=True)
        return added

    def _note(self, kind: str, details: dict[str, Any], results: Sequence[tuple[str, float | None]]) -> None:
        if not self._enabled:
            return
        access_id = new_id()
        empty = dict.fromkeys(
            ("query", "method", "engine", "degraded", "k", "filters", "duration_ms", "top_similarity")
        )
        entry = {
            "id": access_id,
            "at": self._clock(),
            "kind": kind,
            "agent": acting_agent(self._agent),
            **empty,
            **details,
        }
        rows = [
            {"access_id": access_id, "rank": rank, "context_id": context_id, "score": score}
            for rank, (context_id, score) in enumerate(results, 1)
        ]
        with self._lock:
            self._noted.append(({**entry, "result_count": len(rows)}, rows))
            full = len(self._noted) >= self._full_at or time.monotonic() - self._since > FLUSH_SECONDS
            due = full and not self._flushing  # two threads at once would only be in each other's way
        if due:
            with suppress(StorageError):  # a reader neither fails nor waits because somebody writes: entries are kept
                self.flush(waiting=False)

    def flush(self, *, waiting: bool = True) -> None:
        """Write what was collected, and each context's last access and number of accesses.

        Inside a transaction nothing happens: the log would be taken back with it, although the contexts were shown.
        """
        if self._storage.in_transaction:
            return
        taken: list[Access] = []
        try:
            with self._lock:
                taken, self._noted, self._flushing = self._noted, [], True
                self._since, self._full_at = time.monotonic(), FLUSH_ENTRIES
            if taken:
                self._write(taken, waiting=waiting)
                self._failed = False
        except BaseException:
            self._keep(taken)
            raise
        finally:
            self._flushing = False

    def _write(self, taken: list[Access], *, waiting: bool) -> None:
        with self._storage.transaction(waiting=waiting, whole=True, keeping=True):
            if self._failed:  # Ctrl-C may have come just after they were written
                where = [Condition("id", "in", [entry["id"] for entry, _ in taken])]
                known = {row["id"] for row in self._storage.rows("access_log", where=where, columns=["id"])}
                taken = [item for item in taken if item[0]["id"] not in known]
            last: dict[str, tuple[datetime, int]] = {}
            for entry, rows in taken:
                for row in rows:
                    last[row["context_id"]] = (entry["at"], last.get(row["context_id"], (None, 0))[1] + 1)
            self._storage.insert("access_log", [entry for entry, _ in taken])
            self._storage.insert("access_results", [row for _, rows in taken for row in rows])
            self._storage.touch(last)

    def _keep(self, taken: list[Access]) -> None:
        with self._lock:
            self._failed = True
            self._noted[:0] = taken
            excess = len(self._noted) - KEPT_ENTRIES
            if excess > 0:
                del self._noted[:excess]
            self._full_at = len(self._noted) + FLUSH_ENTRIES  # tried again after as many more
        if excess > 0:
            message = f"the access log cannot be written: its {excess} oldest entries were dropped"
            warnings.warn(message, LabWarning, stacklevel=2)

    def searches(self, *, where: Sequence[Condition], limit: int | None) -> list[dict[str, Any]]:
        """Return past searches, the newest first."""
        self.flush()
        where = [Condition("kind", "=", "search"), *where]
        rows = self._storage.rows("access_log", where=where, order_by=["-at", "-id"], limit=limit)
        ids = [row["id"] for row in rows]
        shown: dict[str, list[str]] = {}
        for result in self._storage.rows(
            "access_results", where=[Condition("access_id", "in", ids)], order_by=["access_id", "rank"]
        ):
            shown.setdefault(result["access_id"], []).append(result["context_id"])
        return [{**row, "access_id": row["id"], "context_ids": shown.get(row["id"], [])} for row in rows]

    def accesses(self, *, context_ids: Sequence[str] | None, where: Sequence[Condition]) -> list[dict[str, Any]]:
        """Return each time a context was shown or read, the newest first."""
        self.flush()
        chosen = [] if context_ids is None else [Condition("context_id", "in", list(context_ids))]
        results = self._storage.rows("access_results", where=chosen)
        ids = sorted({result["access_id"] for result in results})
        log = {row["id"]: row for row in self._storage.rows("access_log", where=[Condition("id", "in", ids), *where])}
        joined = [{**log[row["access_id"]], **row} for row in results if row["access_id"] in log]
        return sorted(joined, key=lambda row: (row["at"], row["access_id"], -row["rank"]), reverse=True)

    def remove(self, *, older_than: timedelta) -> None:
        """Delete the entries that are older, inside the caller's transaction."""
        self._storage.delete("access_log", [Condition("at", "<", self._clock() - older_than)])
