"""A whole lab from one place to another, on whichever back ends: every row with its numbers, in resumable steps."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..care import Bar
from ..errors import DamagedLab, InvalidValue
from ..records import Condition, Report
from .comparing import compare
from .lines import CONTEXTS, EMBEDDINGS, ordered

if TYPE_CHECKING:
    from ..storage import Storage
    from ..storage.base import Row, TableShape

LOG, KIND = "care_log", "copy"
ROWS_AT_ONCE = {CONTEXTS: 200, EMBEDDINGS: 500}
MOST_ROWS_AT_ONCE = 2_000
LATER = "superseded_by"  # may name a context that comes later: these links are made at the end


def copy(source: Storage, target: Storage, *, at: datetime, progress: bool | None) -> Report:
    """See `al.copy_lab`."""
    started = time.perf_counter()
    if source.path == target.path:
        raise InvalidValue(f"source and target are both {source.path}: give another target")
    resumed = _refuse_others(source, target)
    if not resumed:
        details = {"source": source.path, "state": "begun"}
        target.insert(LOG, [{"at": at, "kind": KIND, "details": details}])
    with source.snapshot():
        work = _Copying(source, target, resumed=resumed)
        with Bar(progress, unit="rows") as bar:
            work.copy(bar)
        compared = compare(source, target, progress=progress)
    if not compared["equal"]:
        wrong = compared["tables"].loc[lambda found: ~found["equal"], "table"].tolist()
        raise DamagedLab(
            f"the copy at {target.path} differs from {source.path} in {', '.join(wrong)}: somebody writes to it, or it "
            "is damaged. Copy into an empty lab; al.compare_labs tells the rows"
        )
    details = {"source": source.path, "state": "finished", "sha256": compared["sha256"]}
    target.insert(LOG, [{"at": at, "kind": KIND, "details": details}])
    return Report(
        source=source.path,
        target=target.path,
        rows=int(compared["tables"]["rows"].sum()),
        copied=work.copied,
        verified=True,
        sha256=compared["sha256"],
        seconds=round(time.perf_counter() - started, 3),
    )


def _refuse_others(source: Storage, target: Storage) -> bool:
    """Return whether the target has a part of this copy already. Raises `InvalidValue` where it has anything else."""
    names = [storage.migration_status()["applied"][-1][0] for storage in (source, target)]
    if names[0] != names[1]:
        raise InvalidValue(f"{source.path} is at {names[0]} and {target.path} at {names[1]}: open both once to migrate")
    copies = target.rows(LOG, where=[Condition("kind", "=", KIND)], order_by=["care_key"])
    if copies and copies[0]["details"].get("source") == source.path:
        return True
    for table in target.tables():
        if count := target.count(table):
            raise InvalidValue(
                f"the lab at {target.path} has {count:,} rows in {table}: copy into an empty one, or into a copy of "
                f"{source.path} that was broken off"
            )
    return False


class _Copying:
    """One copy, inside a snapshot of its source."""

    def __init__(self, source: Storage, target: Storage, *, resumed: bool) -> None:
        self.copied = 0
        self._source = source
        self._target = target
        self._resumed = resumed
        self._shapes = source.tables()

    def copy(self, bar: Bar) -> None:
        """Copy what is not there yet, a batch at a time."""
        total, done = sum(self._source.count(table) for table in self._shapes), 0
        for table in ordered(self._shapes):
            for batch in self._batches(table, self._shapes[table]):
                missing = self._missing(table, self._shapes[table], batch) if self._resumed else batch
                if missing:
                    self._target.insert(table, missing)
                self.copied += len(missing)
                done += len(batch)
                bar.tell(done, max(done, total))
        self._supersede()

    def _batches(self, table: str, shape: TableShape) -> Iterator[list[Row]]:
        size = ROWS_AT_ONCE.get(table, MOST_ROWS_AT_ONCE)
        for batch in self._source.batches(table, by=shape.key, size=size):
            yield [{**row, LATER: None} for row in batch] if table == CONTEXTS else batch

    def _missing(self, table: str, shape: TableShape, batch: Sequence[Row]) -> list[Row]:
        first = shape.key[0]
        where = [Condition(first, "in", list(dict.fromkeys(row[first] for row in batch)))]
        there = {_key(row, shape) for row in self._target.rows(table, where=where, columns=list(shape.key))}
        return [row for row in batch if _key(row, shape) not in there]

    def _supersede(self) -> None:
        where = [Condition(LATER, "is not null")]
        links = self._source.rows(CONTEXTS, where=where, columns=["id", LATER], order_by=["id"])
        for start in range(0, len(links), MOST_ROWS_AT_ONCE):
            part = links[start : start + MOST_ROWS_AT_ONCE]
            columns = {name: [row[name] for row in part] for name in ("id", LATER)}
            self._target.update_each(CONTEXTS, columns, key="id")


def _key(row: Mapping[str, Any], shape: TableShape) -> tuple[Any, ...]:
    return tuple(row[name] for name in shape.key)
