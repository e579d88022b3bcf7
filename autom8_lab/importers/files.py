"""Log files: which there are, and their lines and JSON values one after the other in constant memory."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from ..errors import InvalidValue, NotFound
from .values import DECODER, parsed

if TYPE_CHECKING:
    import os

    Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

CHUNK_BYTES = 1 << 20
LINE_BYTES = 16 << 20  # a longer line is refused: no call says so much about its usage
VALUE_CHARS = 64 << 20  # a document is read at once, so it has to be smaller than this
BYTE_ORDER_MARKS = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


class Line(NamedTuple):
    """A line of a file: its number from 1, its bytes (None if it is too long), and where the next one begins."""

    number: int
    content: bytes | None
    end: int
    complete: bool  # whether a line feed ends it

    def refusal(self) -> str:
        """Return why a line without content cannot be read."""
        return f"the line is longer than {LINE_BYTES >> 20} MB"


def log_files(paths: Paths, *, endings: Sequence[str]) -> list[Path]:
    """Return the files that paths name, those of a folder and below it by their endings, also gzipped; sorted.

    Raises `NotFound` for a path that is not there.
    """
    given = [paths] if isinstance(paths, str) or hasattr(paths, "__fspath__") else list(paths)
    found: dict[Path, None] = {}
    for item in given:
        path = Path(item).expanduser()  # type: ignore[arg-type]
        if path.is_dir():
            known = tuple(ending + packed for ending in endings for packed in ("", ".gz"))
            found |= dict.fromkeys(
                sorted(file for file in path.rglob("*") if file.name.endswith(known) and not file.is_dir())
            )
        elif path.is_file():
            found[path] = None
        else:
            raise NotFound(f"no file or folder at {path}: check the path")
    return list(found)


class _Watched(io.FileIO):
    """A file that tells how many bytes are read."""

    told: Callable[[int], Any] | None = None

    def readinto(self, buffer: Any) -> int | None:
        """Read into a buffer and tell."""
        count = super().readinto(buffer)
        if self.told is not None and count:
            self.told(count)
        return count


@contextmanager
def opened(path: Path, *, told: Callable[[int], Any] | None = None) -> Iterator[IO[bytes]]:
    """Open a file for reading bytes, unpacked where it is gzipped; `told` hears how many were read.

    Raises `InvalidValue` where it cannot be read.
    """
    try:
        raw = _Watched(path)
    except OSError as exc:
        raise InvalidValue(f"{path} cannot be read ({exc.strerror}): check the path and its permissions") from exc
    raw.told = told
    with io.BufferedReader(raw, CHUNK_BYTES) as file:
        packed = file.peek(2)[:2] == b"\x1f\x8b"
        yield gzip.GzipFile(fileobj=file) if packed else file  # type: ignore[misc]


def chunks(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the rest of a file, UTF-16 as UTF-8. Raises `InvalidValue` where the file is damaged."""
    decoder, beginning = None, file.tell() == 0
    while True:
        try:
            chunk = file.read(CHUNK_BYTES)
        except (OSError, EOFError, zlib.error) as exc:
            raise InvalidValue(f"the file cannot be read to its end ({exc})") from exc
        if beginning and (encoding := BYTE_ORDER_MARKS.get(chunk[:2])):
            decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
        beginning = False
        if decoder is not None:
            yield decoder.decode(chunk, final=not chunk).encode("utf-8", errors="replace")
        elif chunk:
            yield chunk
        if not chunk:
            return


def lines(file: IO[bytes], *, start: int = 0, number: int = 0) -> Iterator[Line]:
    """Yield the lines from a position on, `number` lines being before it. Raises `InvalidValue` at damage."""
    position, rest, too_long = start, b"", False
    if start:
        file.seek(start)
    for chunk in chunks(file):
        *whole, last = chunk.split(b"\n")
        for part in whole:
            content = rest + part if rest else part
            number, position = number + 1, position + len(content) + 1
            too_long = too_long or len(content) > LINE_BYTES
            if number == 1:
                content = content.removeprefix(codecs.BOM_UTF8)
            yield Line(number, None if too_long else content, position, True)
            rest, too_long = b"", False
        rest += last
        if len(rest) > LINE_BYTES:
            position, rest, too_long = position + len(rest), b"", True
    if rest or too_long:
        end = position + len(rest)
        content = rest.removeprefix(codecs.BOM_UTF8) if number == 0 else rest
        yield Line(number + 1, None if too_long else content, end, False)


def json_values(file: IO[bytes]) -> Iterator[tuple[str, Any]]:
    """Yield JSON values with the places they stand at: one a line, or those of an array, or one document.

    What cannot be read comes as an `InvalidValue` in place of a value.
    """
    source = lines(file)
    head: list[Line] = []
    for line in source:
        head.append(line)
        if line.content is None or line.content.strip():
            break
    beginning = (head[-1].content or b"").strip() if head else b""
    if not _is_document(beginning):
        yield from _of_lines(head)
        yield from _of_lines(source)
        return
    file.seek(0)
    yield from _of_document(codecs.iterdecode(chunks(file), "utf-8", errors="replace"))


def _is_document(beginning: bytes) -> bool:
    """Whether a file goes on beyond its first line: an array, or an object of which that line ends nothing."""
    if beginning.startswith(b"["):
        return True
    return beginning.startswith(b"{") and b"}" not in beginning


def _of_lines(source: Iterable[Line]) -> Iterator[tuple[str, Any]]:
    for line in source:
        where = f"line {line.number}"
        if line.content is None:
            yield where, InvalidValue(line.refusal())
        elif content := line.content.strip():
            try:
                value = parsed(content)
            except InvalidValue as exc:
                yield where, exc if line.complete else InvalidValue(f"the file ends within this line: {exc}")
                continue
            for item in value if isinstance(value, list) else [value]:
                yield where, item


def _of_document(parts: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """Yield the elements of an array, or values that follow one another, from a text that comes in parts."""
    buffer, place, number, array = "", 0, 0, None
    ended = False
    while True:
        place = _skipped(buffer, place, " \t\r\n\ufeff," if array else " \t\r\n\ufeff")
        if place < len(buffer) and array is None:
            array = buffer[place] == "["
            place += array
            continue
        if place < len(buffer) and buffer[place] == "]" and array:
            return
        if place < len(buffer):
            try:
                value, end = DECODER.raw_decode(buffer, place)
            except InvalidValue as exc:
                yield f"value {number + 1}", exc
                return
            except (ValueError, RecursionError) as exc:
                if ended or isinstance(exc, RecursionError) or len(buffer) - place > VALUE_CHARS:
                    yield f"value {number + 1}", InvalidValue(_why_unreadable(exc, ended))
                    return
                end = None
            # A number at the end of the part may go on in the next one.
            if end is not None and (end < len(buffer) or ended):
                number, place = number + 1, end
                yield f"value {number}", value
                continue
        elif ended:
            return
        following = "".join(_taken(parts, max(CHUNK_BYTES, len(buffer) - place)))
        ended = not following
        buffer, place = buffer[place:] + following, 0


def _why_unreadable(exc: Exception, ended: bool) -> str:
    if isinstance(exc, RecursionError):
        return "JSON nested too deep to be read"
    size = f"a document of more than {VALUE_CHARS >> 20} million characters: give JSON lines"
    return f"not valid JSON ({exc})" if ended else size


def _taken(parts: Iterator[str], least: int) -> Iterator[str]:
    taken = 0
    for part in parts:
        yield part
        taken += len(part)
        if taken >= least:
            return


def _skipped(text: str, place: int, characters: str) -> int:
    while place < len(text) and text[place] in characters:
        place += 1
    return place
