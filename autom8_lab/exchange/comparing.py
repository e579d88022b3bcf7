"""Two labs row by row, on whichever back ends: as their exports would compare, without the files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from ..care import Bar
from ..frames import frame
from ..records import Report
from .writing import Lines

if TYPE_CHECKING:
    from ..storage import Storage

COLUMNS = {"table": "str", "rows": "int64", "rows_other": "int64", "equal": "bool", "difference": "str"}
SHOWN = 200
NAMING = {
    "id",
    "alias",
    "usage_key",
    "chunk_hash",
    "context_id",
    "decision_id",
    "access_id",
    "query_id",
    "settings_key",
}


def compare(one: Storage, other: Storage, *, progress: bool | None) -> Report:
    """See `al.compare_labs`; as of the callers' snapshots."""
    lines, others = Lines(one, vectors=True), Lines(other, vectors=True)
    digests = hashlib.sha256(), hashlib.sha256()
    found = []
    with Bar(progress, unit="rows") as bar:
        for table in sorted(lines.tables | others.tables):
            found.append(_compared(table, _of(lines, table), _of(others, table), digests, bar, lines.total))
    tables = frame(found, COLUMNS)
    return Report(equal=bool(tables["equal"].all()), sha256=digests[0].hexdigest(), tables=tables)


def _of(lines: Lines, table: str) -> Iterator[bytes]:
    return lines.of_table(table) if table in lines.tables else iter(())


def _compared(
    table: str, lines: Iterator[bytes], others: Iterator[bytes], digests: Any, bar: Bar, total: int
) -> dict[str, Any]:
    counts, difference = [0, 0], None
    for pair in zip_longest(lines, others):
        for place, line in enumerate(pair):
            if line is not None:
                counts[place] += 1
                digests[place].update(line)
        if difference is None and pair[0] != pair[1]:
            difference = _told(*pair)
        if counts[0] % 1_000 == 0:
            bar.tell(counts[0], max(total, counts[0]))
    equal = difference is None
    return {"table": table, "rows": counts[0], "rows_other": counts[1], "equal": equal, "difference": difference}


def _told(line: bytes | None, other: bytes | None) -> str:
    """Return which row differs, and what the fields that differ hold on either side; "-" where there is no such row."""
    rows = [{} if text is None else json.loads(text) for text in (line, other)]
    names = [name for name in dict.fromkeys([*rows[0], *rows[1]]) if rows[0].get(name) != rows[1].get(name)]
    named = {name: value for name, value in (rows[0] or rows[1]).items() if name in NAMING}
    sides = [{name: row[name] for name in names if name in row} if row else "-" for row in rows]
    return " ".join(_cut(json.dumps(part, ensure_ascii=False)) for part in (named, *sides))


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
