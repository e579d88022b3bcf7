"""Looking after a lab: what is wrong with it, as a frame."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from .addresses import is_address
from .errors import LabNotFound, StorageError, StorageFull
from .frames import frame
from .indexing import progress_bar
from .records import Finding
from .validation import path_value, progress_value

if TYPE_CHECKING:
    import pandas as pd

    from .config import LabConfig
    from .storage import Storage

CHECK_COLUMNS = {"severity": "str", "table": "str", "key": "str", "finding": "str", "remedy": "str"}


def check(storage: Storage, *, progress: bool | None) -> pd.DataFrame:
    """See `Lab.check`."""
    with Bar(progress, unit="rows") as bar:
        return _frame_of(storage.check(progress=bar.tell))


def check_file(path: str | os.PathLike[str], *, progress: bool | None = None) -> pd.DataFrame:
    """Look at everything in a file, as `check` does, whether or not it can be opened as a lab.

    Raises `LabNotFound`; a file of another program is a file full of findings.
    """
    from .storage.sqlite_check import check_file

    if not path_value(path).is_file():
        raise LabNotFound(f"no lab at {path} to check: give the path of its file")
    with Bar(progress, unit="rows") as bar:
        return _frame_of(check_file(os.fspath(path), progress=bar.tell))


def check_place(config: LabConfig, *, progress: bool | None = None) -> pd.DataFrame:
    """Look at everything in the lab of a configuration: in its file, which need not be one that can be opened, or on
    its server."""
    from .storage import open_storage

    if not is_address(config.db_path):
        return check_file(config.db_path, progress=progress)
    storage = open_storage(config, migrate=False)
    try:
        return check(storage, progress=progress)
    finally:
        storage.close()


@contextmanager
def told_of(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what the system says of a file that is written into our errors."""
    try:
        yield
    except OSError as exc:
        place = exc.filename or os.fspath(path)
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                f"{place}: {exc.strerror}: free some space, or write elsewhere; nothing was kept"
            ) from exc
        raise StorageError(f"{place}: {exc.strerror}: check the path, its folder and their permissions") from exc


def _frame_of(findings: Iterable[Finding]) -> pd.DataFrame:
    found = sorted(findings, key=lambda item: (item.severity, item.table, item.finding))
    return frame([vars(item) for item in found], CHECK_COLUMNS)


class Bar:
    """A progress bar that learns from the work itself how much there is to do, anew for each of its parts."""

    def __init__(self, shown: bool | None, *, unit: str) -> None:
        self._shown = progress_value(shown)
        self._unit = unit
        self._stack = ExitStack()
        self._total = 0
        self._bar: Any = None
        self._done = 0

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def tell(self, done: int, total: int) -> None:
        """Show that so many of so many are done."""
        if self._bar is None or total != self._total:
            self._stack.close()
            self._bar = self._stack.enter_context(progress_bar(total, self._unit, self._shown))
            self._done, self._total = 0, total
        self._bar.update(done - self._done)
        self._done = done
