"""The page reader reads what SQLite reads, and says of each damaged page and row that it is."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import damage
import pytest
import whole_lab
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlite_utils.utils import sqlite3

import autom8_lab as al
from autom8_lab.storage.pages import TABLE_INTERIOR, TABLE_LEAF, Cell, DamagedPage, PageFile, Text, record

quick = settings(derandomize=True, deadline=None, max_examples=200, database=None)


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pattern") / "lab.db"
    with al.open(path, embedding_model="hash-64", synchronous="OFF") as lab:
        whole_lab.fill(lab, contexts=150, calls=300)
    return path


def read_table(file: PageFile, root: int) -> list[Cell]:
    cells: list[Cell] = []
    waiting = [root]
    while waiting:
        number = waiting.pop()
        if file.kind(number) == TABLE_INTERIOR:
            waiting += [child for child, _ in reversed(file.children(number))]
        else:
            for cell in file.cells(number):
                assert isinstance(cell, Cell), cell
                cells.append(cell)
    return cells


def plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, bytes) else value


def assert_equal_to_sqlite(path: Path, file: PageFile) -> int:
    """Compare every table that has rowids, cell by cell, and return how many rows there were."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    connection.text_factory = bytes
    tables = connection.execute(
        "SELECT CAST(name AS BLOB), rootpage FROM sqlite_master WHERE type = 'table' AND rootpage > 0"
        " AND sql NOT LIKE '%WITHOUT ROWID%'"
    ).fetchall()
    count = 0
    for name, root in tables:
        info = connection.execute(f"PRAGMA table_info('{name.decode()}')").fetchall()
        keys = [place for place, row in enumerate(info) if row[5]]
        alias = keys[0] if len(keys) == 1 and info[keys[0]][2].upper() == b"INTEGER" else None
        ours = []
        for cell in read_table(file, root):
            values = [plain(value) for value in cell.values] + [None] * (len(info) - len(cell.values))
            if alias is not None:
                values[alias] = cell.rowid
            ours.append((cell.rowid, *values))
        theirs = [tuple(row) for row in connection.execute(f"SELECT rowid, * FROM '{name.decode()}' ORDER BY rowid")]
        assert ours == theirs, name
        count += len(ours)
    connection.close()
    return count


def test_every_row_of_a_lab_is_read_as_sqlite_reads_it(pattern: Path) -> None:
    with PageFile(pattern) as file:
        assert (file.header.page_size, file.header.whole) == (4096, True)
        assert assert_equal_to_sqlite(pattern, file) > 1000


def test_what_is_still_in_the_log_is_read_from_there(tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    with al.open(path, embedding_model="hash-64") as lab:
        whole_lab.fill(lab, contexts=30, calls=10)
        assert path.stat().st_size < Path(f"{path}-wal").stat().st_size
        with PageFile(path) as file:
            assert assert_equal_to_sqlite(path, file) > 150


values = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40),
    st.binary(max_size=40),
    st.integers(1, 20_000).map(lambda size: "x" * size),
)


@settings(derandomize=True, deadline=None, max_examples=60, database=None)
@given(
    st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), values, values), max_size=30, unique_by=lambda row: row[0]),
    st.sampled_from([512, 1024, 4096, 65536]),
)
def test_any_values_in_pages_of_any_size_are_read_as_sqlite_reads_them(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, Any, Any]], page_size: int
) -> None:
    path = tmp_path_factory.mktemp("any") / "any.db"
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA page_size = {page_size}")
    connection.execute("CREATE TABLE t (a, b)")
    connection.executemany("INSERT INTO t (rowid, a, b) VALUES (?, ?, ?)", rows)
    connection.commit()
    connection.close()
    with PageFile(path) as file:
        assert file.header.page_size == page_size
        assert assert_equal_to_sqlite(path, file) == len(rows)


@quick
@given(st.binary(max_size=200))
def test_bytes_that_are_no_record_are_a_damaged_page_and_nothing_else(data: bytes) -> None:
    with suppress(DamagedPage, IndexError):
        assert isinstance(record(data), tuple)


def test_random_damage_never_raises_anything_but_a_damaged_page(pattern: Path, tmp_path: Path) -> None:
    draw = random.Random(11)
    data = pattern.read_bytes()
    path = tmp_path / "lab.db"
    for _ in range(30):
        damaged = bytearray(data)
        for _ in range(draw.randrange(1, 300)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged[: draw.randrange(len(damaged))] if draw.random() < 0.3 else damaged)
        with PageFile(path) as file:
            for number in range(1, file.count + 1):
                try:
                    if file.kind(number) == TABLE_INTERIOR:
                        file.children(number)
                    else:
                        list(file.cells(number))
                except DamagedPage:
                    continue
            file.free_pages()


def test_a_destroyed_header_is_guessed_from_the_pages(pattern: Path, tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    path.write_bytes(bytes(100) + pattern.read_bytes()[100:])
    with PageFile(path) as file, PageFile(pattern) as sound:
        assert (file.header.page_size, file.header.whole) == (4096, False)
        assert [file.kind(number) for number in range(2, file.count)] == [
            sound.kind(number) for number in range(2, file.count)
        ]


def test_a_row_whose_overflow_page_is_gone_is_damaged_and_its_neighbours_are_not(pattern: Path, tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    path.write_bytes(pattern.read_bytes())
    rows = damage.anatomy(pattern).rows["context_registry"]
    pages = next(pages for pages in rows.values() if len(pages) > 2)
    with PageFile(pattern) as sound:
        (leaf,) = [page for page in pages if sound.kind(page) == TABLE_LEAF]
        before = list(sound.cells(leaf))
    assert len(before) > 1
    for page in pages - {leaf}:
        damage.write_at(path, (page - 1) * damage.PAGE, b"\xff\xff\xff\xff")
    with PageFile(path) as file:
        after = list(file.cells(leaf))
    assert [isinstance(cell, DamagedPage) for cell in after].count(True) == 1
    assert [cell for cell in after if isinstance(cell, Cell)] == [cell for cell in before if cell in after]


def test_texts_are_told_from_blobs() -> None:
    first, second = record(bytes([3, 15, 14]) + b"ab")
    assert (first, type(first), second, type(second)) == (b"a", Text, b"b", bytes)
