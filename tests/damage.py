"""What can happen to a file, and which rows that leaves whole; for the tests and benchmarks/damage.py."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sqlite_utils.utils import sqlite3

from autom8_lab.storage.pages import INDEX_INTERIOR, TABLE_INTERIOR, TABLE_LEAF, Cell, PageFile

PAGE = 4096
Damage = Callable[[Path, random.Random], None]


@dataclass
class Anatomy:
    """Which tree each page of a sound file belongs to, and the pages on which each row stands."""

    trees: dict[int, str] = field(default_factory=dict)
    interior: set[int] = field(default_factory=set)
    rows: dict[str, dict[int, frozenset[int]]] = field(default_factory=dict)

    def pages_of(self, *trees: str, interior: bool | None = None) -> list[int]:
        """Return the pages of these tables and indexes; only, or no, interior ones."""
        chosen = [page for page, tree in self.trees.items() if tree in trees]
        return [page for page in chosen if interior is None or (page in self.interior) == interior]

    def whole(self, table: str, damaged: set[int]) -> set[int]:
        """Return the rowids of the rows none of whose own pages is among the damaged ones."""
        return {rowid for rowid, pages in self.rows[table].items() if not pages & damaged}


def anatomy(path: Path) -> Anatomy:
    """Look into a sound file that nobody has open."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    roots = connection.execute("SELECT type, name, rootpage FROM sqlite_master WHERE rootpage > 0").fetchall()
    connection.close()
    found = Anatomy()
    with PageFile(path) as file:
        for kind, name, root in [("table", "sqlite_master", 1), *roots]:
            rows = found.rows.setdefault(name, {}) if kind == "table" else {}
            waiting = [root]
            while waiting:
                number = waiting.pop()
                found.trees[number] = name
                page_kind = file.kind(number)
                if page_kind in (TABLE_INTERIOR, INDEX_INTERIOR):
                    found.interior.add(number)
                    waiting += [child for child, _ in file.children(number)]
                if page_kind == TABLE_INTERIOR:
                    continue
                for cell in file.cells(number):
                    assert isinstance(cell, Cell)
                    found.trees.update(dict.fromkeys(cell.overflow, name))
                    if page_kind == TABLE_LEAF:
                        rows[cell.rowid] = frozenset({number, *cell.overflow})
    return found


def differing_pages(before: bytes, after: bytes) -> set[int]:
    """Return the numbers of the pages that are not the same any more, those that are gone included."""
    places = range(0, max(len(before), len(after)), PAGE)
    return {at // PAGE + 1 for at in places if before[at : at + PAGE] != after[at : at + PAGE]}


def write_at(path: Path, offset: int, data: bytes) -> None:
    """Overwrite some bytes of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def overwrite_pages(path: Path, pages: list[int], draw: random.Random) -> None:
    """Fill pages with random bytes, or with zeros, as one or the other happens to disks."""
    for number in pages:
        write_at(path, (number - 1) * PAGE, draw.randbytes(PAGE) if draw.random() < 0.5 else bytes(PAGE))


def flip_bit(path: Path, draw: random.Random) -> None:
    """Flip one bit, anywhere."""
    place = draw.randrange(path.stat().st_size)
    with path.open("rb") as file:
        file.seek(place)
        byte = file.read(1)[0]
    write_at(path, place, bytes([byte ^ 1 << draw.randrange(8)]))


def cut(path: Path, share: float) -> None:
    """Cut off the end of a file."""
    os.truncate(path, int(path.stat().st_size * (1 - share)))
