"""An SQLite file page by page: what stands in the pages that are whole, when others are not.

Format: https://sqlite.org/fileformat2.html. SQLite itself reads a table from its root, so that a damaged page in
between hides all below it. Here every page speaks for itself; the file is only read, and never by SQLite.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from .wal import PAGE_SIZES, Log, read_log

MAGIC = b"SQLite format 3\0"
INDEX_INTERIOR, TABLE_INTERIOR, INDEX_LEAF, TABLE_LEAF = 2, 5, 10, 13
MAX_PAYLOAD = 1_000_000_000  # SQLite's own limit on a row
_FIXED = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}  # bytes of the serial types for integers


class DamagedPage(ValueError):
    """What stands there cannot be what it should be."""


@dataclass(frozen=True)
class Cell:
    """A row of a table, or an entry of an index (whose rowid is the last value); `overflow` are the pages it goes on."""

    rowid: int
    values: tuple[Any, ...]
    overflow: tuple[int, ...] = ()


@dataclass(frozen=True)
class Header:
    """What the first 100 bytes of a file say; `whole` is False where the page size had to be guessed."""

    page_size: int
    usable: int
    whole: bool


class PageFile:
    """The pages of a database file as of the last transaction, with those that are still in its write-ahead log.

    Texts come as bytes: what is damaged need not be UTF-8. A page that cannot be read, or that is not there any
    more, is None.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file = self.path.open("rb", buffering=0)
        self.size = os.fstat(self._file.fileno()).st_size
        self.header = self._read_header()
        wal_path = Path(f"{self.path}-wal")
        self.log: Log = read_log(wal_path, page_size=self.header.page_size)
        self._log_file = wal_path.open("rb", buffering=0) if self.log.frames else None
        if self.log.page_size and not self.header.whole:
            self.header = self._header_for(self.log.page_size)
        same = self.log.page_size == self.header.page_size
        self._in_log = self.log.pages() if same else {}
        in_file = -(-self.size // self.header.page_size)
        self.count = max([in_file, *self._in_log])
        self._in_file = in_file

    def __enter__(self) -> PageFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._log_file is not None:
            self._log_file.close()

    def numbers(self) -> Iterator[int]:
        """Yield the numbers of the pages that may be there; a damaged log can name one that is far beyond."""
        yield from range(1, self._in_file + 1)
        yield from sorted(number for number in self._in_log if number > self._in_file)

    def page(self, number: int) -> bytes | None:
        """Return a page (the first is 1), or None."""
        size = self.header.page_size
        if not 1 <= number <= self.count:
            return None
        file, offset = self._file, (number - 1) * size
        if number in self._in_log and self._log_file is not None:
            file, offset = self._log_file, self._in_log[number]
        try:
            data = os.pread(file.fileno(), size, offset)
        except OSError:  # a bad sector
            return None
        return data if len(data) == size else None

    # The header

    def _read_header(self) -> Header:
        try:
            start = os.pread(self._file.fileno(), 100, 0)
        except OSError:
            start = b""
        if len(start) == 100 and start.startswith(MAGIC):
            size = int.from_bytes(start[16:18], "big")
            size = 65536 if size == 1 else size
            reserved = start[20]
            # No flipped bit makes a page size of another one: all are powers of two.
            if size in PAGE_SIZES and size - reserved >= 480 and start[21:24] == b"\x40\x20\x20":
                return Header(size, size - reserved, whole=True)
        return self._header_for(self._likely_size())

    def _header_for(self, page_size: int) -> Header:
        return Header(page_size, page_size, whole=False)

    def _likely_size(self) -> int:
        """Return the largest page size whose multiples are where pages of tables and indexes begin."""
        begins = [offset for offset in range(512, min(self.size, 4_000_000), 512) if self._begins_at(offset)]
        sizes = [size for size in PAGE_SIZES if sum(offset % size == 0 for offset in begins) >= 0.8 * len(begins)]
        return max(sizes) if begins else 4096

    def _begins_at(self, offset: int) -> bool:
        try:
            return _begins_like_a_page(os.pread(self._file.fileno(), 8, offset), max(PAGE_SIZES))
        except OSError:
            return False

    # Trees

    def children(self, number: int) -> list[tuple[int, int | None]]:
        """Return the children of an interior page of a table with the largest rowid of each; None for the last.

        Of an index, whose keys are no numbers, every child comes with None. Raises `DamagedPage`.
        """
        data, start = self._tree_page(number)
        kind = data[start]
        if kind not in (TABLE_INTERIOR, INDEX_INTERIOR):
            raise DamagedPage(f"page {number} is no interior page")
        found: list[tuple[int, int | None]] = []
        for place in self._cell_places(data, start, header=12):
            child = int.from_bytes(data[place : place + 4], "big")
            found.append((child, _varint(data, place + 4)[0] if kind == TABLE_INTERIOR else None))
        found.append((int.from_bytes(data[start + 8 : start + 12], "big"), None))
        return found

    def kind(self, number: int) -> int | None:
        """Return the type of a page of a table or index, or None."""
        data = self.page(number)
        start = 100 if number == 1 else 0
        if data is None or not _begins_like_a_page(data[start : start + 8], self.header.page_size):
            return None
        return data[start]

    def cells(self, number: int) -> Iterator[Cell | DamagedPage]:
        """Yield what a leaf page, or the interior page of an index, holds; for a damaged cell what is wrong.

        Raises `DamagedPage` where the page as a whole makes no sense.
        """
        data, start = self._tree_page(number)
        kind = data[start]
        if kind not in (TABLE_LEAF, INDEX_LEAF, INDEX_INTERIOR):
            raise DamagedPage(f"page {number} holds no rows")
        for place in self._cell_places(data, start, header=12 if kind == INDEX_INTERIOR else 8):
            try:
                yield self._cell(data, place, kind)
            except (DamagedPage, IndexError, struct.error) as exc:
                yield DamagedPage(f"page {number}: {exc}")

    def _tree_page(self, number: int) -> tuple[bytes, int]:
        data, start = self.page(number), 100 if number == 1 else 0
        if data is None or not _begins_like_a_page(data[start : start + 8], self.header.page_size):
            raise DamagedPage(f"page {number} is no page of a table or index")
        return data, start

    def _cell_places(self, data: bytes, start: int, *, header: int) -> list[int]:
        count = int.from_bytes(data[start + 3 : start + 5], "big")
        first, usable = start + header, self.header.usable
        if first + 2 * count > usable:
            raise DamagedPage("more cells than fit")
        places = struct.unpack_from(f">{count}H", data, first)
        return [place for place in places if first + 2 * count <= place <= usable - 4]

    def _payload(self, data: bytes, place: int, kind: int) -> tuple[int, int, int, int]:
        """Return a cell's payload size, how much of it is on the page, where that begins, and the rowid."""
        at = place + 4 if kind == INDEX_INTERIOR else place
        size, at = _varint(data, at)
        rowid = 0
        if kind == TABLE_LEAF:
            rowid, at = _varint(data, at)
        usable = self.header.usable
        most = usable - 35 if kind == TABLE_LEAF else (usable - 12) * 64 // 255 - 23
        if not 0 < size <= MAX_PAYLOAD:
            raise DamagedPage(f"a row of {size} bytes")
        if size <= most:
            local = size
        else:
            least = (usable - 12) * 32 // 255 - 23
            local = least + (size - least) % (usable - 4)
            local = local if local <= most else least
        if at + local + (4 if local < size else 0) > usable:
            raise DamagedPage("a row that does not end on its page")
        return size, local, at, rowid

    def _chain(self, data: bytes, at: int, left: int) -> list[int]:
        """Return the overflow pages of a payload."""
        room, found = self.header.usable - 4, list[int]()
        following = int.from_bytes(data[at : at + 4], "big")
        needed = -(-left // room)
        if needed > self.count:
            raise DamagedPage("a row that is longer than the file")
        while len(found) < needed:
            page = self.page(following)
            if page is None:
                raise DamagedPage(f"page {following} with the rest of a row is gone")
            found.append(following)
            following = int.from_bytes(page[:4], "big")
        return found

    def _cell(self, data: bytes, place: int, kind: int) -> Cell:
        size, local, at, rowid = self._payload(data, place, kind)
        parts, left = [data[at : at + local]], size - local
        overflow = self._chain(data, at + local, left) if left else []
        for number in overflow:
            rest = self.page(number) or b""
            parts.append(rest[4 : 4 + min(left, self.header.usable - 4)])
            left -= len(parts[-1])
        values = record(b"".join(parts))
        if kind != TABLE_LEAF and values and isinstance(values[-1], int):
            rowid = values[-1]
        return Cell(rowid, values, tuple(overflow))

    def free_pages(self) -> tuple[set[int], bool]:
        """Return the pages of the free list, whose rows were deleted, and whether these are all.

        If they are, every other page is in use: what stands on it is what was written last.
        """
        first = self.page(1)
        if first is None or not first.startswith(MAGIC):
            return set(), False
        trunk, count = struct.unpack_from(">2I", first, 32)
        found: set[int] = set()
        while trunk:
            data = self.page(trunk)
            if data is None or trunk in found or len(found) >= count:
                return found, False
            following, leaves = struct.unpack_from(">2I", data)
            if leaves > self.header.usable // 4 - 2:
                return found, False
            found |= {trunk, *struct.unpack_from(f">{leaves}I", data, 8)}
            trunk = following
        return found, len(found) == count


def record(payload: bytes) -> tuple[Any, ...]:
    """Return the values of a record; texts as bytes. Raises `DamagedPage`."""
    end, at = _varint(payload, 0)
    if not at <= end <= len(payload):
        raise DamagedPage("a row whose header does not fit")
    kinds: list[int] = []
    while at < end:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    if at != end:
        raise DamagedPage("a row whose header does not fit")
    values, at = [], end
    for kind in kinds:
        value, at = _value(payload, at, kind)
        values.append(value)
    if at != len(payload):
        raise DamagedPage("a row that is not as long as it says")
    return tuple(values)


def _value(payload: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind == 0:
        return None, at
    if kind in (8, 9):
        return kind - 8, at
    value: Any
    if kind in _FIXED:
        end = at + _FIXED[kind]
        value = int.from_bytes(payload[at:end], "big", signed=True)
    elif kind == 7:
        end, value = at + 8, struct.unpack_from(">d", payload, at)[0]
    elif kind >= 12:
        end = at + (kind - 12) // 2
        value = Text(payload[at:end]) if kind % 2 else payload[at:end]
    else:
        raise DamagedPage(f"a value of the unknown type {kind}")
    if end > len(payload):
        raise DamagedPage("a value that does not end with its row")
    return value, end


class Text(bytes):
    """A text as it lies on the page."""


def _varint(data: Sequence[int], at: int) -> tuple[int, int]:
    value = 0
    for place in range(at, at + 8):
        byte = data[place]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, place + 1
    value = value << 8 | data[at + 8]
    return value - (1 << 64) if value >= 1 << 63 else value, at + 9


def _begins_like_a_page(start: bytes, page_size: int) -> bool:
    if len(start) < 8 or start[0] not in (INDEX_INTERIOR, TABLE_INTERIOR, INDEX_LEAF, TABLE_LEAF):
        return False
    first_free, cells, content = struct.unpack_from(">HHH", start, 1)
    content = 65536 if content == 0 and page_size == 65536 else content
    return first_free < page_size and cells <= page_size // 6 + 1 and 0 < content <= page_size and start[7] <= 60
