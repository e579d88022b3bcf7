"""Repair: a new lab beside a damaged one, with all that proves to be as it was written."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .care import Bar
from .errors import InvalidValue, LabNotFound, UnusablePath
from .frames import frame
from .records import Report
from .validation import path_value

if TYPE_CHECKING:
    from .storage.sqlite_repair import Outcome

COLUMNS = {"table": "str", "saved": "int64", "doubtful": "int64", "lost": "int64", "note": "str"}
ANEW = {"context_chunks", "embeddings"}


def repair(
    path: str | os.PathLike[str],
    *,
    to: str | os.PathLike[str],
    at: datetime,
    open_paths: Iterable[str],
    progress: bool | None,
) -> Report:
    """See `al.repair`."""
    from .storage.sqlite_backup import synchronize
    from .storage.sqlite_check import check_file
    from .storage.sqlite_repair import finish_file, repair_file

    started = time.perf_counter()
    source, target = path_value(path), path_value(to, "to")
    beside = Path(f"{target}.doubtful.jsonl")
    _refuse(source, target, beside, open_paths)
    with tempfile.TemporaryDirectory(prefix=".repair-", dir=target.absolute().parent) as workplace:
        copy, doubtful = Path(workplace) / "copy.db", Path(workplace) / "doubtful.jsonl"
        with Bar(progress, unit="steps") as bar, doubtful.open("x", encoding="utf-8") as lines:
            os.chmod(doubtful, 0o600)
            outcome = repair_file(source, copy, lines, progress=bar.tell)
        tables = frame([_row(outcome, table) for table in sorted(outcome.tables)], COLUMNS)
        totals = {name: int(tables[name].sum()) for name in ("saved", "doubtful", "lost")}
        finish_file(copy, at=at, details={"path": os.fspath(source.absolute()), **totals})
        findings = [item for item in check_file(os.fspath(copy), writable=True) if item.severity == "error"]
        if totals["doubtful"]:
            synchronize(doubtful)
            os.replace(doubtful, beside)
        synchronize(copy)
        os.replace(copy, target)
    synchronize(target.absolute().parent)
    return Report(
        path=os.fspath(target),
        **totals,
        doubtful_path=os.fspath(beside) if totals["doubtful"] else None,
        contexts_without_vectors=outcome.without_vectors,
        remedy="al.embed_contexts() in the new lab" if outcome.without_vectors else None,
        not_copied=", ".join(outcome.other_tables) or None,
        errors_left=len(findings),
        seconds=round(time.perf_counter() - started, 3),
        tables=tables,
    )


def _refuse(source: Path, target: Path, beside: Path, open_paths: Iterable[str]) -> None:
    if not source.is_file():
        raise LabNotFound(f"no lab at {source} to repair: give the path of its file")
    for name in open_paths:
        if Path(name).exists() and Path(name).samefile(source):
            raise InvalidValue(f"{source} is open in this process: close the lab first, al.current_lab().close()")
    for place in (target, beside):
        if place.exists():
            raise InvalidValue(f"to={os.fspath(target)!r}: {place} is there already: give a path where nothing is")
    if not target.absolute().parent.is_dir():
        raise UnusablePath(f"no folder {target.absolute().parent}: create it first")


def _row(outcome: Outcome, table: str) -> dict[str, Any]:
    counts = {name: getattr(outcome, name)[table] for name in ("saved", "doubtful", "lost")}
    notes = [
        f"{name.partition('.')[2]} emptied in {count:,}: what it referred to is gone"
        for name, count in sorted(outcome.cleared.items())
        if name.partition(".")[0] == table
    ]
    if table in outcome.uncounted:
        notes.append("more may be lost: nothing says how many there were")
    if table in ANEW and counts["lost"] + counts["doubtful"]:
        notes.append("al.embed_contexts() makes them anew")
    return {"table": table, **counts, "note": "; ".join(notes)}
