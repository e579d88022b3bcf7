"""From the rows of an importer to the ledger: checked, joined with what is there already, priced, in batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..entries import UsageBatch, usage_entry
from ..errors import InvalidValue
from ..ledger import TABLE, UNIQUE
from ..records import Condition
from . import joining
from .values import EARLIEST, spoken

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..ledger import Ledger
    from ..storage import Storage
    from ..storing import Storing
    from .cursors import Cursors, Position
    from .report import ImportReport

BATCH_ROWS = 20_000
BATCH_TEXT_CHARS = 20_000_000
CLOCK_SLACK = timedelta(days=1)  # clocks differ, and days begin earlier elsewhere


class Entry(NamedTuple):
    """One call that a log tells of: the fields of `record_usage`, and message contents by role ("prompt", "response")."""

    row: dict[str, Any]
    texts: Mapping[str, Any] = {}


class Recorder:
    """Takes the calls of one source one by one and records them in batches."""

    def __init__(
        self,
        storage: Storage,
        ledger: Ledger,
        storing: Storing,
        *,
        report: ImportReport,
        clock: Callable[[], datetime],
        store_texts: bool = False,
    ) -> None:
        self.report = report
        self._storage = storage
        self._ledger = ledger
        self._storing = storing
        self._store_texts = store_texts
        self._clock = clock
        self._latest = clock() + CLOCK_SLACK
        self._rows: dict[tuple[str, str], tuple[dict[str, Any], str | None, str]] = {}
        self._texts: list[dict[str, Any]] = []
        self._text_chars = 0
        self._reached: dict[Path, tuple[Cursors, Position]] = {}
        self._told_again = False  # whether most of the last batch was there already
        self._seen: set[int] = set()  # of a dry run, which leaves no trace to look at
        self._last_key = max(
            storage.columns(TABLE, ["usage_key"], order_by=["-usage_key"], limit=1)["usage_key"], default=0
        )

    def add(self, entry: Entry, *, file: str | None, place: str) -> None:
        """Take one call; a repeated one is joined with what was said of it before."""
        self.report["read"] += 1
        row = entry.row
        at = row.get("at")
        if at is None or not EARLIEST <= at <= self._latest or row.get("model") is None or row.get("source_id") is None:
            self.report.refuse(file, place, self._implausible(row))
            return
        name = (row["source"], row["source_id"])
        if name in self._rows:
            self.report.add("already_there")
            row = joining.joined_rows(self._rows[name][0], row)
        self._rows[name] = (row, file, place)
        if self._store_texts:
            self._take_texts(entry)

    def _implausible(self, row: Mapping[str, Any]) -> str:
        """Return what is wrong with a row that cannot be a call."""
        for name in ("model", "at", "source_id"):
            if row.get(name) is None:
                return f"{name} is missing"
        at = row["at"].isoformat()
        if row["at"] > self._latest:
            return f"at={at} is in the future: the clock of its writer, or its time zone, is wrong"
        return f"at={at} is before any call of a model"

    def retract(self, source: str, source_id: str) -> bool:
        """Take back a call that turned out to be the wrapper of another; return whether it was there."""
        if self._rows.pop((source, source_id), None) is not None:
            return True
        if self.report["dry_run"]:
            return False
        where = [Condition("source", "=", source), Condition("source_id", "=", source_id)]
        with self._storage.transaction():
            keys = [row["usage_key"] for row in self._storage.rows(TABLE, where=where, columns=["usage_key"])]
            self._storage.delete(TABLE, where)
        self.report.add("new", -sum(key > self._last_key for key in keys))
        return bool(keys)

    def refuse(self, reason: object, *, file: str | None, place: str) -> None:
        """Note what could not be read as a call."""
        self.report.add("read")
        self.report.refuse(file, place, str(reason))

    def reached(self, path: Path, cursors: Cursors, position: Position) -> None:
        """Note how far a file has been read; remembered with the rows up to there."""
        self._reached[path] = (cursors, position)

    def is_full(self) -> bool:
        """Whether what was taken is a batch."""
        return len(self._rows) >= BATCH_ROWS or self._text_chars >= BATCH_TEXT_CHARS

    def flush(self) -> None:
        """Record what was taken; rows and positions land together."""
        rows, self._rows = self._rows, {}
        texts, self._texts, self._text_chars = self._texts, [], 0
        reached, self._reached = self._reached, {}
        columns = self._checked(list(rows.values()))
        kept = set(columns["source_id"]) if texts and columns else ()
        self._store([text for text in texts if text["metadata"]["usage_id"] in kept])
        if self.report["dry_run"]:
            self._count(columns)
            return
        with self._storage.transaction():
            if columns:
                self._record(columns)
            for path, (cursors, position) in reached.items():
                cursors.save(path, position)

    # Checking

    def _checked(self, rows: list[tuple[dict[str, Any], str | None, str]]) -> dict[str, Any]:
        now = self._clock()
        for _ in range(2):
            if not rows:
                return {}
            try:
                batch = UsageBatch([row for row, _, _ in rows], now=now, agent=None, first_row=0)
                return batch.columns
            except InvalidValue:
                rows = list(self._usable(rows, now))
        raise AssertionError("rows that pass one by one pass together")

    def _usable(
        self, rows: Iterable[tuple[dict[str, Any], str | None, str]], now: datetime
    ) -> Iterable[tuple[dict[str, Any], str | None, str]]:
        for row, file, place in rows:
            try:
                usage_entry(row, now=now, agent=None)
            except InvalidValue as exc:
                self.report.refuse(file, place, str(exc))
            else:
                yield row, file, place

    # Recording

    def _record(self, columns: dict[str, Any]) -> None:
        import numpy as np

        # To look first is quicker than to be refused row by row, but only where most rows are there.
        keys = self._stored_keys(columns) if self._told_again else np.zeros(len(columns["at"]), dtype=np.int64)
        new = keys == 0
        if new.any():
            missing = columns if new.all() else joining.taken(columns, np.flatnonzero(new))
            keys[new], new[new] = self._append(missing)
        self._told_again = 2 * int(new.sum()) < len(new)
        self.report.add("new", int(new.sum()))
        if new.all():
            return
        old = np.flatnonzero(~new)
        changes = joining.changes(self._storage, keys[old], joining.taken(columns, old))
        updated = 0
        if changes:
            repriced = self._ledger.prices(changes)
            self._storage.update_each(TABLE, {**changes, **repriced}, key="usage_key")
            # A call that this import itself recorded, and then learnt more of, is new and no update.
            updated = int((changes["usage_key"] <= self._last_key).sum())
        self.report.add("updated", updated)
        self.report.add("already_there", len(old) - updated)

    def _append(self, columns: dict[str, Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Price calls and add those that are not there; return the keys of all, and which are new."""
        import numpy as np

        priced = self._ledger.prices(columns)
        found, added = self._storage.append(TABLE, {**columns, **priced}, unique=UNIQUE)
        keys, new = np.array(found, dtype=np.int64), np.array(added, dtype=bool)
        self._note_unpriced(columns, priced, new)
        return keys, new

    def _stored_keys(self, columns: dict[str, Any]) -> NDArray[np.int64]:
        """Return the keys under which calls are stored, 0 for one that is not."""
        import numpy as np

        where = [Condition("source", "=", columns["source"][0]), Condition("source_id", "in", columns["source_id"])]
        found = self._storage.columns(TABLE, ["usage_key", "source_id"], where=where)
        stored = dict(zip(found["source_id"], found["usage_key"], strict=True))
        return np.array([stored.get(name, 0) for name in columns["source_id"]], dtype=np.int64)

    def _count(self, columns: dict[str, Any]) -> None:
        """Say what recording would do."""
        import numpy as np

        if not columns:
            return
        keys = self._stored_keys(columns)
        names = [hash(name) for name in columns["source_id"]]
        new = np.array([not key and name not in self._seen for key, name in zip(keys, names, strict=True)], dtype=bool)
        self._seen.update(names)
        there = np.flatnonzero(keys)
        changes = joining.changes(self._storage, keys[there], joining.taken(columns, there)) if len(there) else {}
        updated = len(changes["usage_key"]) if changes else 0
        self.report.add("new", int(new.sum()))
        self.report.add("updated", updated)
        self.report.add("already_there", int((~new).sum()) - updated)
        self._note_unpriced(columns, self._ledger.prices(columns), new)

    def _note_unpriced(self, columns: Mapping[str, Any], priced: Mapping[str, Any], new: Any) -> None:
        import numpy as np

        counted = ~np.isnan(columns["input_tokens"]) | ~np.isnan(columns["output_tokens"])
        bare = new & counted & np.isnan(priced["cost_estimated_usd"]) & np.isnan(columns["cost_actual_usd"])
        if bare.any():
            places = np.flatnonzero(bare)
            self.report.note_unpriced(Counter((columns["provider"][at], columns["model"][at]) for at in places))

    # Texts

    def _take_texts(self, entry: Entry) -> None:
        row = entry.row
        for role, text in entry.texts.items():
            content = (spoken(text) or "").replace("\0", " ").encode("utf-8", errors="replace").decode()
            if not content.strip():
                continue
            self._text_chars += len(content)
            self._texts.append(
                {
                    "content": content,
                    "context_id": f"{row['source']}:{row['source_id']}:{role}"[:255].rstrip(),
                    "topic": role,
                    "source": row["source"],
                    "created_at": row["at"],
                    "metadata": {"usage_id": row["source_id"], "model": row["model"]},
                }
            )

    def _store(self, texts: list[dict[str, Any]]) -> None:
        if texts and not self.report["dry_run"]:
            outcomes = self._storing.store_rows(texts, if_exists="skip", batch_size=1_000, progress=False)
            self.report.add("contexts", sum(outcome["outcome"] in ("stored", "duplicate") for outcome in outcomes))
