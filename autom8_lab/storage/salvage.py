"""The rows of a damaged file, read page by page: who owns a page, and which rows are not there any more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from .checksums import Seal
from .pages import (
    INDEX_INTERIOR,
    INDEX_LEAF,
    TABLE_INTERIOR,
    TABLE_LEAF,
    Cell,
    DamagedPage,
    PageFile,
    Text,
)

SCHEMA_ROOT = 1
LOOK_AT_CELLS = 4  # of a page, to tell whose it is
SCHEMA_COLUMNS = 5  # type, name, tbl_name, rootpage, sql
_TYPES: dict[str, tuple[type, ...]] = {"INTEGER": (int,), "REAL": (int, float), "TEXT": (Text,), "BLOB": (bytes,)}


@dataclass(frozen=True)
class Shape:
    """What a table's rows look like: its columns with their types, and the column that is the rowid, if one is."""

    table: str
    columns: Mapping[str, str]
    key: str | None
    seal: Seal | None
    # Per index its columns; a row that is alive is in each of them.
    indexes: Mapping[str, Sequence[str]]

    def fits(self, values: Sequence[Any]) -> bool:
        """Whether a record can be a row of this table."""
        return len(values) <= len(self.columns) and all(
            value is None or isinstance(value, _TYPES[kind])
            for value, kind in zip(values, self.columns.values(), strict=False)
        )

    def row(self, cell: Cell) -> dict[str, Any]:
        """Return a record as a row; texts are still bytes."""
        values = [*cell.values, *[None] * (len(self.columns) - len(cell.values))]
        row = dict(zip(self.columns, values, strict=True))
        for name, kind in self.columns.items():
            if kind == "REAL" and isinstance(row[name], int):
                row[name] = float(row[name])
        if self.key is not None:
            row[self.key] = cell.rowid
        return row

    def checksum_fits(self, row: Mapping[str, Any]) -> bool | None:
        """Whether the row is as it was written; None where it has no checksum."""
        if self.seal is None or row["checksum"] is None:
            return None
        return bool(row["checksum"] == self.seal.of([row[name] for name in [*self.seal.columns, *self.seal.apart]]))


@dataclass
class Rows:
    """The pages of one table: `pages` hang on its root, `strays` hang on nothing any more."""

    shape: Shape
    pages: list[int] = field(default_factory=list)
    strays: list[int] = field(default_factory=list)
    damaged: bool = False
    seen: set[int] = field(default_factory=set)
    unread: int = 0  # rows that are there and make no sense


@dataclass(frozen=True)
class Found:
    """A row that was read: `doubt` says why it may not be what was written, None where nothing speaks against it."""

    rowid: int
    row: dict[str, Any]
    doubt: str | None

    def key(self, columns: Sequence[str]) -> tuple[Any, ...]:
        """Return the values that an index on these columns has."""
        return tuple(self.row[column] for column in columns)


class Salvage:
    """Reads the tables of known shapes from a file, whatever else in it is damaged."""

    def __init__(self, file: PageFile, shapes: Mapping[str, Shape]) -> None:
        self.file = file
        self._shapes = shapes
        self._claimed: set[int] = set()
        self._free, self._free_is_known = file.free_pages()
        self.schema = self._read_schema()
        self.tables = {name: Rows(shape) for name, shape in shapes.items()}
        self._claim_all()

    # Who owns a page

    def _read_schema(self) -> list[tuple[str, str, str, int]]:
        """Return type, name, table and root page of what the schema names, as far as it can be read."""
        leaves, damaged = self._leaves(SCHEMA_ROOT, None)
        if damaged:
            leaves += [number for number in self._table_leaves() if number not in leaves]
        found = {}
        for number in leaves:
            for cell in self._cells_of(number):
                entry = cell.values if isinstance(cell, Cell) else ()
                if len(entry) == SCHEMA_COLUMNS and isinstance(entry[3], int) and entry[0] in (b"table", b"index"):
                    kind, name, table = (text.decode("utf-8", "replace") for text in entry[:3])
                    found[name] = (kind, name, table, entry[3])
                    self._claimed.add(number)
        return list(found.values())

    def _table_leaves(self) -> Iterator[int]:
        for number in self.file.numbers():
            if number not in self._claimed and number not in self._free and self.file.kind(number) == TABLE_LEAF:
                yield number

    def _claim_all(self) -> None:
        roots = {name: root for kind, name, _, root in self.schema if kind == "table" and root}
        for name in [*self._shapes, *(name for name in roots if name not in self._shapes)]:
            leaves, damaged = self._leaves(roots.get(name, 0), self._shapes.get(name))
            if name in self.tables:
                self.tables[name].pages, self.tables[name].damaged = leaves, damaged
        broken = [rows for rows in self.tables.values() if rows.damaged]
        for number in self._table_leaves() if broken else ():
            cells = [cell for cell in self._cells_of(number) if isinstance(cell, Cell)]
            best = max(broken, key=lambda rows: _likeness(rows.shape, cells))
            if _likeness(best.shape, cells) > (0, 0):
                best.strays.append(number)

    def _leaves(self, root: int, shape: Shape | None) -> tuple[list[int], bool]:
        """Return the leaves that can be reached from a root and look like the table's, and whether some cannot."""
        leaves: list[int] = []
        damaged = False
        waiting = [root]
        while waiting:
            number = waiting.pop()
            kind = None if number in self._claimed else self.file.kind(number)
            if kind == TABLE_INTERIOR:
                try:
                    below = [child for child, _ in self.file.children(number)]
                except (DamagedPage, IndexError):
                    damaged = True
                    continue
                self._claimed.add(number)
                waiting += reversed(below)
            elif kind == TABLE_LEAF and self._can_be(number, shape):
                self._claimed.add(number)
                leaves.append(number)
            else:
                damaged = True
        return leaves, damaged

    def _can_be(self, number: int, shape: Shape | None) -> bool:
        """Whether a leaf holds rows of the table; where a checksum can tell, it does."""
        if shape is None:
            return True
        try:
            cells = list(islice((cell for cell in self.file.cells(number)), LOOK_AT_CELLS))
        except DamagedPage:
            return False
        good = [cell for cell in cells if isinstance(cell, Cell) and shape.fits(cell.values)]
        return not cells or any(shape.checksum_fits(shape.row(cell)) is not False for cell in good)

    def _cells_of(self, number: int) -> list[Cell | DamagedPage]:
        try:
            return list(self.file.cells(number))
        except DamagedPage as exc:
            return [exc]

    # Rows

    def rows(self, table: str) -> Iterator[Found]:
        """Yield the rows of a table, each rowid once; what hangs on its root comes before what hangs on nothing."""
        rows = self.tables[table]
        rows.seen.clear()
        for number in rows.pages:
            for cell in self._cells_of(number):
                found = self._found(rows.shape, cell)
                if found is None:
                    rows.unread += 1
                    rows.damaged = True
                elif found.rowid not in rows.seen:
                    rows.seen.add(found.rowid)
                    yield found
        for found in self._strays(rows):
            rows.seen.add(found.rowid)
            yield found

    def _found(self, shape: Shape, cell: Cell | DamagedPage) -> Found | None:
        if not isinstance(cell, Cell) or not shape.fits(cell.values):
            return None
        row = shape.row(cell)
        return Found(cell.rowid, row, "its checksum does not fit" if shape.checksum_fits(row) is False else None)

    def _strays(self, rows: Rows) -> Iterator[Found]:
        """Yield the rows of stray pages that are alive and the newest of their key, as far as anything can tell.

        A row that a whole index does not have was deleted. Where the free list is known, no page is an old one; else
        the indexes have to say so for each row.
        """
        place: dict[int, int] = {}
        keys: dict[int, list[int]] = {}
        for number in rows.strays:
            for found in self._readable(rows.shape, number):
                if found.rowid not in rows.seen and found.rowid not in place:
                    place[found.rowid] = number
                    keys[found.rowid] = [hash(found.key(columns)) for columns in rows.shape.indexes.values()]
        alive, changed, complete = self._ask_indexes(rows.shape, keys) if place else (set(), set(), True)
        for number in rows.strays:
            for found in self._readable(rows.shape, number):
                if place.get(found.rowid) != number or (complete and found.rowid not in alive):
                    continue
                del place[found.rowid]
                doubt = found.doubt
                if not self._free_is_known and found.rowid in changed:
                    doubt = doubt or "an index has other values: it may be an older version"
                elif not self._free_is_known and found.rowid not in alive:
                    doubt = doubt or "nothing is whole that could say whether it was deleted"
                yield Found(found.rowid, found.row, doubt)

    def _readable(self, shape: Shape, number: int) -> Iterator[Found]:
        for cell in self._cells_of(number):
            found = self._found(shape, cell)
            if found is not None:
                yield found

    def _ask_indexes(self, shape: Shape, keys: Mapping[int, Sequence[int]]) -> tuple[set[int], set[int], bool]:
        """Return which rows an index has, which it has with other values, and whether one index is whole."""
        alive, changed, complete = set[int](), set[int](), False
        for which, name in enumerate(shape.indexes):
            index = Index(self.file, self._root_of(name))
            for rowid, values in index:
                if rowid in keys:
                    alive.add(rowid)
                    if hash(tuple(values)) != keys[rowid][which]:
                        changed.add(rowid)
            complete = complete or index.whole
        return alive, changed, complete

    def lost(self, table: str) -> tuple[int, bool]:
        """Return how many rows the indexes or the pages name that `rows` did not find, and whether that is all.

        It is where one index of the table is whole.
        """
        rows = self.tables[table]
        if not rows.damaged:
            return 0, True
        missing, complete = set[int](), False
        for name in rows.shape.indexes:
            index = Index(self.file, self._root_of(name))
            missing.update(rowid for rowid, _ in index if rowid not in rows.seen)
            complete = complete or index.whole
        return max(len(missing), rows.unread), complete

    def _root_of(self, index: str) -> int:
        return next((root for kind, name, _, root in self.schema if kind == "index" and name == index), 0)


class Index:
    """The entries of an index that can be read: rowid and values; `whole` says afterwards whether these were all."""

    def __init__(self, file: PageFile, root: int) -> None:
        self._file = file
        self._root = root
        self.whole = True

    def __iter__(self) -> Iterator[tuple[int, Sequence[Any]]]:
        waiting, visited = [self._root], set[int]()
        while waiting:
            number = waiting.pop()
            kind = None if number in visited else self._file.kind(number)
            visited.add(number)
            if kind not in (INDEX_INTERIOR, INDEX_LEAF):
                self.whole = False
                continue
            try:
                waiting += [child for child, _ in self._file.children(number)] if kind == INDEX_INTERIOR else []
                for cell in self._file.cells(number):
                    if isinstance(cell, Cell) and cell.values and isinstance(cell.values[-1], int):
                        yield cell.rowid, cell.values[:-1]
                    else:
                        self.whole = False
            except (DamagedPage, IndexError):
                self.whole = False


def _likeness(shape: Shape, cells: Sequence[Cell]) -> tuple[int, int]:
    """Return how many of the cells are rows of this table by their checksum, and how many by their types."""
    rows = [shape.row(cell) for cell in cells if shape.fits(cell.values)]
    return sum(1 for row in rows if shape.checksum_fits(row)), len(rows)
