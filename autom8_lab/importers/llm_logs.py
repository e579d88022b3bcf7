"""The log of the `llm` command line (https://llm.datasette.io): both of its schemas.

Since 0.32 a call is a row of `turns`; before, of `responses`, which stays in the file as history. Their ids are of one
kind and never the same.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..collecting import seldom_collected
from ..errors import InvalidValue, NotFound, StorageError
from .recording import Entry
from .usages import tokens_of
from .values import amount, document, first, instant, labels, text

if TYPE_CHECKING:
    from ..storage.foreign import ForeignFile
    from .jobs import Job
    from .report import ImportReport

SOURCE = "llm"
NEEDED = ("id", "model", "datetime_utc", "duration_ms")
COLUMNS = (*NEEDED, "resolved_model", "input_tokens", "output_tokens", "token_details", "schema_id")
TABLES: Mapping[str, tuple[str, ...]] = {
    "responses": (*COLUMNS, "conversation_id", "prompt", "response"),
    "turns": (*COLUMNS, "thread_id"),
}
LOOKUP_IDS = 500


def user_folder() -> Path:
    """Return the folder in which `llm` keeps its files on this machine."""
    configured = os.environ.get("LLM_USER_PATH")
    if configured:
        return Path(configured).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or "~").expanduser() / "io.datasette.llm"
    if sys.platform == "darwin":
        return Path("~/Library/Application Support/io.datasette.llm").expanduser()
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "io.datasette.llm"


def opened(path: str | Path | None, *, name: str) -> ForeignFile:
    """Open a file of `llm`, for None the one on this machine. Raises `NotFound`, `InvalidValue`."""
    from ..storage.foreign import ForeignFile

    place = user_folder() / name if path is None else Path(path).expanduser()
    if not place.is_file():
        raise NotFound(f"no file of llm at {place}: give the path that `llm logs path` prints")
    return ForeignFile(place)


@seldom_collected()
def import_logs(job: Job, path: str | Path | None, *, store_texts: bool) -> ImportReport:
    """Import the calls that `llm` logged."""
    with opened(path, name="logs.db") as file:
        job.report.add("files")
        tables = _tables(file)
        with job.bar(total(file, tables), "calls") as bar:
            for table in tables:
                try:
                    _import_table(job, file, table, store_texts=store_texts, bar=bar)
                except StorageError as exc:
                    job.recorder.refuse(exc, file=file.path.name, place=table)
    return job.finished()


def _tables(file: ForeignFile) -> list[str]:
    """Return the tables to read. Raises `InvalidValue` for a file that is not llm's, or of an llm that is too new."""
    found = file.tables()
    known = [name for name in TABLES if name in found]
    lacking = {name: [column for column in NEEDED if column not in found[name]] for name in known}
    applied = [row["name"] for row in file.rows("_llm_migrations", ["name"])] if "_llm_migrations" in found else []
    if any(lacking.values()) or (not known and applied):
        what = "; ".join(f"{name} has no {', '.join(columns)}" for name, columns in lacking.items() if columns)
        raise InvalidValue(
            f"{file.path} was written by a version of llm that this one cannot read "
            f"({what or 'no table responses or turns'}; last migration {max(applied, default='unknown')}): "
            "upgrade autom8_lab"
        )
    if not known:
        raise InvalidValue(
            f"{file.path} is no log of llm: it has {', '.join(list(found)[:5]) or 'no table'}, and neither "
            "responses nor turns; `llm logs path` prints where the log is"
        )
    return known


def total(file: ForeignFile, tables: Iterable[str]) -> int:
    """Return how many rows a progress bar has before it; a damaged file cannot tell."""
    with suppress(StorageError):
        return sum(file.count(table) for table in tables)
    return 0


def _import_table(job: Job, file: ForeignFile, table: str, *, store_texts: bool, bar: Any) -> None:
    columns = [name for name in TABLES[table] if store_texts or name not in ("prompt", "response")]
    rows = file.rows(table, columns)
    spoken_elsewhere = store_texts and table == "turns" and "turn_search" in file.tables()
    while page := list(islice(rows, LOOKUP_IDS)):
        texts: dict[Any, dict[str, Any]] = {}
        if spoken_elsewhere:
            found = file.lookup(
                "turn_search", "turn_id", [row["id"] for row in page], ["turn_id", "prompt", "response"]
            )
            texts = {turn: {"prompt": prompt, "response": response} for turn, prompt, response in found}
        for row in page:
            told = {**row, **texts.get(row["id"], {})}
            job.take(read, told, file=file.path.name, place=f"{table} {row['id']}")
        job.flush_if_full()
        bar.update(len(page))


def read(row: Mapping[str, Any]) -> Iterator[Entry]:
    """Yield the call of a row. Raises `InvalidValue`."""
    asked, answered = text(row["model"], "model"), text(row.get("resolved_model"), "resolved_model")
    call = {
        "source": SOURCE,
        "source_id": text(row["id"], "id"),
        "at": instant(row["datetime_utc"], "datetime_utc"),
        "model": answered or asked,
        "operation": "chat",
        "latency_ms": amount(row["duration_ms"], "duration_ms"),
        **tokens_of(
            document(row.get("token_details")),
            input_tokens=row.get("input_tokens"),
            output_tokens=row.get("output_tokens"),
        ),
        "metadata": labels(
            conversation=first(row.get("conversation_id"), row.get("thread_id")),
            asked_model=asked if answered not in (None, asked) else None,
            schema=row.get("schema_id"),
        ),
    }
    yield Entry(call, {role: row.get(role) for role in ("prompt", "response")})
