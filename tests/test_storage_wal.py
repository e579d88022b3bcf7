"""The write-ahead log is read as SQLite reads it, and beyond the damage where SQLite stops."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from sqlite_utils.utils import sqlite3

from autom8_lab.storage.wal import Log, read_log

PAGE, FRAME = 4096, 24 + 4096


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The log of ten transactions, left by a process that did not close its file."""
    source = tmp_path / "source.db"
    connection = sqlite3.connect(source, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE t (a)")
    for number in range(9):
        connection.execute("INSERT INTO t VALUES (?)", [str(number) * 3000])
    for ending in ("", "-wal"):
        shutil.copy(f"{source}{ending}", tmp_path / f"copy.db{ending}")
    connection.close()
    return tmp_path / "copy.db-wal"


def rows_that_sqlite_reads(log: Path) -> int:
    connection = sqlite3.connect(str(log).removesuffix("-wal"))
    try:
        return int(connection.execute("SELECT count(*) FROM t").fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # not even the table
    finally:
        connection.close()


def flip(log: Path, offset: int) -> None:
    data = bytearray(log.read_bytes())
    data[offset] ^= 1
    log.write_bytes(data)


def commits(log: Log) -> int:
    return sum(1 for frame in log.frames[: log.readable] if frame.commit_pages)


def test_a_sound_log_is_read_to_its_end(log: Path) -> None:
    found = read_log(log)
    assert found.page_size == PAGE
    assert len(found.frames) == (log.stat().st_size - 32) // FRAME
    assert all(frame.whole for frame in found.frames)
    assert (found.readable, found.lost_commits, found.torn) == (len(found.frames), 0, False)
    assert commits(found) == 1 + rows_that_sqlite_reads(log)


def test_no_log_and_an_empty_one_hold_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name in ("missing", "empty"):
        found = read_log(tmp_path / name)
        assert (found.frames, found.header_whole, found.lost_commits) == ([], True, 0)


@pytest.mark.parametrize("seed", range(12))
def test_wherever_a_bit_flips_the_log_knows_what_sqlite_will_not_read(log: Path, seed: int) -> None:
    size = log.stat().st_size
    offset = random.Random(seed).randrange(32, size)
    flip(log, offset)
    found = read_log(log)
    assert next(frame.number for frame in found.frames if not frame.whole) == (offset - 32) // FRAME + 1
    if rows := rows_that_sqlite_reads(log):
        assert commits(found) == 1 + rows
    assert commits(found) + found.lost_commits == 10


def test_a_damaged_frame_spoils_no_other(log: Path) -> None:
    flip(log, 32 + 2 * FRAME + 24 + 17)
    assert [frame.number for frame in read_log(log).frames if not frame.whole] == [3]


def test_the_end_of_an_interrupted_write_is_torn(log: Path) -> None:
    flip(log, log.stat().st_size - 1)
    found = read_log(log)
    assert (found.lost_commits, found.torn) == (1, True)


def test_a_damaged_beginning_hides_nothing_from_us(log: Path) -> None:
    frames = read_log(log).frames
    flip(log, 9)
    found = read_log(log, page_size=PAGE)
    assert not found.header_whole
    assert found.readable == 0
    assert [frame.page for frame in found.frames] == [frame.page for frame in frames]
    assert found.pages().keys() == {frame.page for frame in frames}


def test_what_an_earlier_round_left_behind_the_end_is_not_read(log: Path) -> None:
    path = str(log).removesuffix("-wal")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA wal_checkpoint(FULL)")
    connection.execute("DELETE FROM t WHERE rowid > 8")
    found = read_log(log)
    size = log.stat().st_size
    connection.close()
    assert len(found.frames) < (size - 32) // FRAME
    assert found.lost_commits == 0


def test_random_bytes_are_no_log_and_raise_nothing(tmp_path: Path) -> None:
    draw = random.Random(4)
    for size in (5, 31, 32, 33, 100, 32 + FRAME, 32 + 3 * FRAME + 7):
        (tmp_path / "log").write_bytes(draw.randbytes(size))
        found = read_log(tmp_path / "log", page_size=PAGE)
        assert not found.header_whole
        assert found.readable == 0
