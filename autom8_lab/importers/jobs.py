"""One import: what it needs of the lab, its options, and the way through its files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..collecting import seldom_collected
from ..errors import InvalidValue, NotFound, ReadOnlyLab
from ..indexing import progress_bar
from .cursors import Cursors, Position, fingerprint, is_plain, whole_fingerprint
from .files import Line, lines, log_files, opened
from .recording import Entry, Recorder
from .report import ImportReport
from .tables import placed_in, placed_rows
from .values import parsed

if TYPE_CHECKING:
    from ..ledger import Ledger
    from ..storage import Storage
    from ..storing import Storing
    from .files import Paths
    from .tables import Placed

# Turns what a line or document says into calls; a log of coding agents has one with a memory for each file.
Reader = Callable[[Any], Iterable[Entry]]
# Smaller imports are over before a bar could be read.
BAR_BYTES = 20_000_000
BAR_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Format:
    """How the files of a source are read.

    `resumable`: a line says all about itself, so that reading can go on within a file. A line without any of `needles`
    says nothing about usage and is not looked into.
    """

    source: str
    endings: Sequence[str]
    reader: Callable[[Path], Reader]
    needles: Sequence[bytes] = ()
    resumable: bool = True


def _size(files: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in files if path.exists())


class Job:
    """One import into one lab."""

    def __init__(
        self,
        storage: Storage,
        ledger: Ledger,
        storing: Storing,
        *,
        source: str,
        clock: Callable[[], datetime],
        dry_run: bool = False,
        store_texts: bool = False,
        resume: bool = True,
        progress: bool | None = None,
    ) -> None:
        if storage.read_only and not dry_run:
            raise ReadOnlyLab(f"{storage.path} is open read-only: open it for writing to import, or give dry_run=True")
        self.storage = storage
        self.store_texts = store_texts
        self.now = clock
        self.report = ImportReport(source, dry_run=dry_run)
        self.recorder = Recorder(storage, ledger, storing, report=self.report, clock=clock, store_texts=store_texts)
        self.cursors = Cursors(storage, f"{source}{'+texts' if store_texts else ''}", clock=clock)
        self._resume = resume
        self._progress = progress
        self._done: list[Path] = []

    @staticmethod
    def found(path: Any, usual: Sequence[Path]) -> list[Path]:
        """Return the given paths, for None the usual ones that are there. Raises `NotFound` where there is none."""
        if path is not None:
            return (
                [Path(path)] if isinstance(path, str) or hasattr(path, "__fspath__") else [Path(item) for item in path]
            )
        there = [place for place in usual if place.exists()]
        if not there:
            places = " or ".join(str(place) for place in usual)
            raise NotFound(f"nothing to import at {places}: give the path of a log file or folder")
        return there

    @seldom_collected()
    def import_files(self, paths: Paths, form: Format) -> ImportReport:
        """Import logs one after the other. Raises `NotFound` for a path that is not there."""
        files = log_files(paths, endings=form.endings)
        with self.bar(_size(files), "B") as bar:
            for path in files:
                self.report.add("files")
                try:
                    self._import_file(path, form, bar)
                except InvalidValue as exc:
                    self.recorder.refuse(exc, file=path.name, place="")
                except OSError as exc:
                    self.recorder.refuse(f"cannot be read ({exc.strerror or exc})", file=path.name, place="")
        return self.finished()

    def tables(self, given: Any, *, endings: Sequence[str]) -> Iterator[tuple[str | None, Iterator[Placed]]]:
        """Yield the files that are given, or the one table, each with its rows and where they stand.

        A file that was read before and has not changed is left out. Raises `NotFound`.
        """
        if not isinstance(given, str | Path):
            yield None, placed_rows([given] if isinstance(given, Mapping) else given)
            return
        files = log_files(given, endings=endings)
        with self.bar(_size(files), "B") as bar:
            for path in files:
                self.report.add("files")
                if self.is_done(path):
                    bar.update(path.stat().st_size)
                else:
                    yield path.name, placed_in(path, told=bar.update)
                    self.done(path)

    def is_done(self, path: Path) -> bool:
        """Whether a file was read before and has not changed; counts it then."""
        done = self._resume and path.exists() and self.cursors.is_done(path)
        self.report.add("unchanged_files", done)
        return done

    def done(self, path: Path) -> None:
        """Note that all of a file has been read; remembered when the import ends."""
        if path.exists():
            self._done.append(path)

    def forget_done(self) -> None:
        """Have the files of this import read again the next time."""
        self._done.clear()

    def bar(self, total: int, unit: str) -> Any:
        """Return a progress bar, which is not shown for what is over before it could be read."""
        interactive = "ipykernel" in sys.modules or sys.stderr.isatty()
        long = total > (BAR_BYTES if unit == "B" else BAR_ROWS)
        return progress_bar(total, unit, long and interactive if self._progress is None else self._progress)

    def _import_file(self, path: Path, form: Format, bar: Any) -> None:
        size = path.stat().st_size
        if not form.resumable or not is_plain(path):
            if self.is_done(path):
                bar.update(size)
                return
            reader = form.reader(path)
            self._import_lines(path, form, reader, Position(), bar, resumable=False)
            mark = whole_fingerprint(path)
            position = Position(size, 0, mark, getattr(reader, "metadata", {}))
            self.recorder.reached(path, self.cursors, position)
            return
        found = self.cursors.load(path) if self._resume else Position()
        bar.update(found.position)
        if size and found.position == size:
            self.report.add("unchanged_files")
        else:
            self._import_lines(path, form, form.reader(path), found, bar, resumable=True)

    def _import_lines(
        self, path: Path, form: Format, reader: Reader, start: Position, bar: Any, *, resumable: bool
    ) -> None:
        end, number = start.position, start.line
        with opened(path, told=bar.update) as file:
            for line in lines(file, start=start.position, number=start.line):
                if self._import_line(line, form, reader, path) or line.complete:
                    end, number = line.end, line.number
                if self.recorder.is_full():
                    if resumable:
                        self._reached(path, end, number)
                    self.recorder.flush()
        if resumable and end > start.position:
            self._reached(path, end, number)

    def _reached(self, path: Path, end: int, number: int) -> None:
        self.recorder.reached(path, self.cursors, Position(end, number, fingerprint(path, end)))

    def _import_line(self, line: Line, form: Format, reader: Reader, path: Path) -> bool:
        """Take what a line says; return whether it was read, so that it need not be read again."""
        place = f"line {line.number}"
        if line.content is None:
            self.recorder.refuse(line.refusal(), file=path.name, place=place)
            return True
        if not line.content.strip():
            return line.complete
        if line.complete and not any(needle in line.content for needle in form.needles or (b"{",)):
            return True
        try:
            value = parsed(line.content)
        except InvalidValue as exc:
            reason = exc if line.complete else f"the file ends within this line: {exc}"
            self.recorder.refuse(reason, file=path.name, place=place)
            return False
        self.take(reader, value, file=path.name, place=place)
        return True

    def preview(self, remedy: str) -> None:
        """Make this a dry run, because something has to be seen first."""
        self.report["dry_run"], self.report.remedy = True, remedy

    def flush_if_full(self) -> None:
        """Record what was taken if it is a batch."""
        if self.recorder.is_full():
            self.recorder.flush()

    def finished(self) -> ImportReport:
        """Record the rest and return the report."""
        for path in self._done:
            position = Position(path.stat().st_size, 0, whole_fingerprint(path))
            self.recorder.reached(path, self.cursors, position)
        self.recorder.flush()
        return self.report

    def take(self, reader: Reader, value: Any, *, file: str | None, place: str) -> None:
        """Take the calls that a value tells of; what cannot be one is refused."""
        try:
            for entry in reader(value):
                self.recorder.add(entry, file=file, place=place)
        except InvalidValue as exc:
            self.recorder.refuse(exc, file=file, place=place)
