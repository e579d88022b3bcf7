"""Another program's SQLite file is read in pages, never changed, and its writer is not kept waiting."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from sqlite_utils import Database
from sqlite_utils.utils import sqlite3

import autom8_lab as al
from autom8_lab.storage.foreign import PAGE_ROWS, ForeignFile


def written(path: Path, count: int) -> Path:
    with Database(path) as database:
        database.table("calls").insert_all({"id": f"{number:06}", "tokens": number} for number in range(count))
    return path


def test_rows_come_in_order_over_pages_and_missing_columns_are_none(tmp_path: Path) -> None:
    with ForeignFile(written(tmp_path / "a.db", PAGE_ROWS * 2 + 1)) as file:
        assert file.tables() == {"calls": ["id", "tokens"]}
        assert file.count("calls") == PAGE_ROWS * 2 + 1
        rows = list(file.rows("calls", ["tokens", "no such"]))
        assert [row["tokens"] for row in rows] == list(range(PAGE_ROWS * 2 + 1))
        assert {row["no such"] for row in rows} == {None}
        assert file.lookup("calls", "id", ["000003", "x"], ["tokens"]) == [(3,)]


def test_rows_without_a_rowid_below_zero_are_there_too(tmp_path: Path) -> None:
    with Database(tmp_path / "a.db") as database:
        database.execute("CREATE TABLE t (a)")
        database.execute("INSERT INTO t (rowid, a) VALUES (-5, 1), (0, 2), (7, 3)")
    with ForeignFile(tmp_path / "a.db") as file:
        assert [row["a"] for row in file.rows("t", ["a"])] == [1, 2, 3]


def test_a_writer_goes_on_while_rows_are_read_and_nothing_is_changed(tmp_path: Path) -> None:
    path = written(tmp_path / "a.db", PAGE_ROWS + 1)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    with ForeignFile(path) as file:
        rows = file.rows("calls", ["tokens"])
        next(rows)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == before
        writer = sqlite3.connect(path, timeout=0.1)
        writer.execute("INSERT INTO calls VALUES ('later', -1)")
        writer.commit()
        writer.close()
        assert [row["tokens"] for row in rows][-1] == -1
        with pytest.raises(al.StorageError, match="readonly"):
            file._rows("DELETE FROM calls", [])


def test_a_file_in_wal_mode_is_read_with_what_is_not_yet_in_the_main_file(tmp_path: Path) -> None:
    path = tmp_path / "a%20?#.db"
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("CREATE TABLE t (a TEXT)")
    writer.execute("INSERT INTO t VALUES (?), (CAST(? AS TEXT))", ["ü", b"caf\xe9"])
    writer.commit()
    with ForeignFile(path) as file:
        assert [row["a"] for row in file.rows("t", ["a"])] == ["ü", "caf\ufffd"]
    writer.close()


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"")
    with pytest.raises(al.InvalidValue, match="not an SQLite file"):
        ForeignFile(path)
    path.write_bytes(b"SQLite format 3\0" + b"x" * 4_000)
    with pytest.raises(al.StorageError, match="cannot be read"):
        ForeignFile(path)
