"""SQLite files of other programs: read, never written, by the one SQLite library of the process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sqlite_utils.utils import sqlite3

from ..errors import InvalidValue, StorageError

if TYPE_CHECKING:
    from types import TracebackType

PAGE_ROWS = 1_000
BUSY_SECONDS = 10.0


class ForeignFile:
    """Another program's tables. Rows come in pages, each a short read, so that the program can write meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            if not file.read(16).startswith(b"SQLite format 3\0"):
                raise InvalidValue(f"{path} is not an SQLite file: give the path of one")
        self._connection = self._connect()

    def _connect(self) -> sqlite3.Connection:
        name = f"file:{quote(str(self.path.resolve()))}"
        # A WAL file on a disk that cannot be written has no place for its index: read what is in the main file.
        for mode in ("mode=ro", "mode=ro&immutable=1"):
            connection = sqlite3.connect(f"{name}?{mode}", uri=True, timeout=BUSY_SECONDS, check_same_thread=False)
            try:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            except sqlite3.Error as exc:
                connection.close()
                problem: sqlite3.Error = exc
            else:
                connection.text_factory = lambda raw: raw.decode("utf-8", errors="replace")
                return connection
        raise StorageError(f"{self.path} cannot be read: {problem}") from problem

    def __enter__(self) -> ForeignFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def tables(self) -> dict[str, list[str]]:
        """Return the columns of each table."""
        names = self._rows("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name", [])
        return {name: [row[1] for row in self._rows(f"PRAGMA table_info({_quoted(name)})", [])] for (name,) in names}

    def count(self, table: str) -> int:
        """Count a table's rows."""
        return int(self._rows(f"SELECT count(*) FROM {_quoted(table)}", [])[0][0])

    def rows(self, table: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield the rows of a table in the order in which they were added; a column that is not there is None.

        Raises `StorageError` where the file is damaged.
        """
        known = set(self.tables()[table])
        terms = ", ".join(f"t.{_quoted(name)}" if name in known else "NULL" for name in columns)
        query = f"SELECT t.rowid, {terms} FROM {_quoted(table)} t WHERE t.rowid > ? ORDER BY t.rowid LIMIT {PAGE_ROWS}"
        last = -(2**63)
        while page := self._rows(query, [last]):
            for row in page:
                yield dict(zip(columns, row[1:], strict=True))
            last = page[-1][0]

    def lookup(self, table: str, key: str, values: Sequence[Any], columns: Sequence[str]) -> list[tuple[Any, ...]]:
        """Return some columns of the rows whose key is among the values."""
        marks = ", ".join("?" * len(values))
        terms = ", ".join(map(_quoted, columns))
        return self._rows(f"SELECT {terms} FROM {_quoted(table)} WHERE {_quoted(key)} IN ({marks})", list(values))

    def _rows(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        try:
            return list(self._connection.execute(sql, parameters))
        except sqlite3.Error as exc:
            raise StorageError(f"{self.path} cannot be read any further: {exc}") from exc


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
