"""The write-ahead log as it lies on the disk: which of its pages are whole, and what SQLite will not read of it.

Format: https://sqlite.org/fileformat2.html#the_write_ahead_log. Nothing here opens the database.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

HEADER, FRAME = struct.Struct(">8I"), struct.Struct(">6I")
MAGIC = 0x377F0682  # the last bit says in which byte order the checksums are computed
PAGE_SIZES = {512 << shift for shift in range(8)}
_BITS = 0xFFFFFFFF

Sums = tuple[int, int]


@dataclass(frozen=True)
class Frame:
    """A page in the log. `commit_pages` is 0, or the size of the database after the transaction that it ends."""

    number: int
    page: int
    offset: int
    commit_pages: int
    whole: bool


@dataclass
class Log:
    """The frames of the log's last round, in order; `header_whole` is False where SQLite reads nothing of them."""

    page_size: int = 0
    header_whole: bool = True
    frames: list[Frame] = field(default_factory=list)

    @property
    def readable(self) -> int:
        """How many frames SQLite reads: up to the last commit before the first damaged one."""
        last = 0
        for frame in self.frames if self.header_whole else []:
            if not frame.whole:
                break
            last = frame.number if frame.commit_pages else last
        return last

    @property
    def lost_commits(self) -> int:
        """How many transactions stand in the log after the first damaged frame, where SQLite does not read them."""
        return sum(1 for frame in self.frames[self.readable :] if frame.commit_pages)

    @property
    def torn(self) -> bool:
        """Whether only the very last frame is damaged, as an interrupted write leaves it."""
        tail = self.frames[self.readable :]
        return self.header_whole and bool(tail) and not tail[-1].whole and all(frame.whole for frame in tail[:-1])

    def pages(self) -> dict[int, int]:
        """Return the offset of the newest committed version of each page, damaged frames included."""
        last_commit = max((frame.number for frame in self.frames if frame.commit_pages), default=0)
        return {frame.page: frame.offset for frame in self.frames if frame.number <= last_commit}

    @property
    def database_pages(self) -> int | None:
        """The size of the database after the last transaction, in pages; None where the log has none."""
        return next((frame.commit_pages for frame in reversed(self.frames) if frame.commit_pages), None)


def read_log(path: Path, *, page_size: int | None = None) -> Log:
    """Read the log beside a database; one that is not there is empty. `page_size` helps where its header is damaged."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            return _read(file, size, page_size)
    except FileNotFoundError:
        return Log()


def _read(file: BinaryIO, size: int, page_size: int | None) -> Log:
    start = file.read(HEADER.size)
    if len(start) < HEADER.size:
        return Log(header_whole=not start)
    magic, _, size_there, _, *salts, sum1, sum2 = HEADER.unpack(start)
    little = magic == MAGIC
    whole = (
        magic & ~1 == MAGIC and size_there in PAGE_SIZES and _sums(start[:24], (0, 0), little=little) == (sum1, sum2)
    )
    log = Log(page_size=size_there if whole else page_size or 0, header_whole=whole)
    if log.page_size not in PAGE_SIZES:
        return log
    if not whole:  # the frames say themselves which round they belong to
        little = magic != MAGIC | 1
        first = file.read(FRAME.size)
        salts = list(FRAME.unpack(first)[2:4]) if len(first) == FRAME.size else [0, 0]
    log.frames = _of_last_round(list(_frames(file, size, log.page_size, tuple(salts), (sum1, sum2), little=little)))
    return log


def _frames(
    file: BinaryIO, size: int, page_size: int, salts: tuple[int, ...], sums: Sums, *, little: bool
) -> Iterator[tuple[Frame, bool]]:
    """Yield each frame and whether it belongs to this round of the log."""
    offset, number = HEADER.size, 0
    while offset + FRAME.size + page_size <= size:
        number += 1
        file.seek(offset)
        data = file.read(FRAME.size + page_size)
        if len(data) < FRAME.size + page_size:
            return
        page, commit_pages, salt1, salt2, *own = FRAME.unpack_from(data)
        ours = (salt1, salt2) == salts
        # Each frame continues the sums of the one before it, as they are stored: one that is damaged spoils no other.
        found = _sums(data[24:], _sums(data[:8], sums, little=little), little=little)
        whole = ours and page > 0 and found == tuple(own)
        if not whole:
            page = _true_page(data, sums, (own[0], own[1]), little=little)
        yield Frame(number, page, offset + FRAME.size, commit_pages, whole), ours
        sums = (own[0], own[1])
        offset += FRAME.size + page_size


def _true_page(data: bytes, before: Sums, after: Sums, *, little: bool) -> int:
    """Return which page a damaged frame is of: where one flipped bit in its number explains the damage, the right one."""
    number = int.from_bytes(data[:4], "big")
    for bit in range(32):
        start = (number ^ 1 << bit).to_bytes(4, "big") + data[4:8]
        if _sums(data[24:], _sums(start, before, little=little), little=little) == after:
            return number ^ 1 << bit
    return number


def _of_last_round(frames: list[tuple[Frame, bool]]) -> list[Frame]:
    # Behind the last frame of this round stand those of the round before.
    last = max((frame.number for frame, ours in frames if ours), default=0)
    return [frame for frame, _ in frames[:last]]


def _sums(data: bytes, sums: Sums, *, little: bool) -> Sums:
    first, second = sums
    words = struct.unpack(f"{'<' if little else '>'}{len(data) // 4}I", data)
    for place in range(0, len(words), 2):
        first = (first + words[place] + second) & _BITS
        second = (second + words[place + 1] + first) & _BITS
    return first, second
