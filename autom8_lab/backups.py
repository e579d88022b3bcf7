"""Backups: where one goes, when it counts, and which of the older ones stay."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from .care import Bar
from .errors import InvalidValue, NotALab, StorageError, UnusablePath
from .records import Report
from .validation import path_value, positive_integer, progress_value

if TYPE_CHECKING:
    from .storage import Storage

KEEP = 7
LOG = "care_log"
ASIDE, LONGEST_SECONDS = ".backup-", 86_400
STAMP = "%Y%m%dT%H%M%S%fZ.db"


def backup(
    storage: Storage, path: str | os.PathLike[str], *, keep: int | None, at: datetime, progress: bool | None
) -> Report:
    """See `Lab.backup`."""
    from .storage.sqlite_backup import synchronize

    started = time.perf_counter()
    kept = positive_integer(KEEP if keep is None else keep, "keep", at_most=1_000_000)
    progress_value(progress)
    folder, target = _destination(storage, path)
    _sweep(folder)
    if target is not None and keep is not None:
        raise InvalidValue(f"keep={keep!r} is about a folder of backups, but {target} is a file: leave keep out")
    with tempfile.TemporaryDirectory(prefix=ASIDE, dir=folder) as workplace:
        copy = Path(workplace) / "copy.db"
        with Bar(progress, unit="steps") as bar:
            storage.copy_to(os.fspath(copy), progress=bar.tell)
        size = copy.stat().st_size
        place = target or _next_name(folder, _stem(storage), at)
        os.replace(copy, place)
    synchronize(folder)
    removed = _rotate(folder, _stem(storage), keep=kept) if target is None else []
    if not storage.read_only:
        details = {"path": os.fspath(place.absolute()), "file_bytes": size}
        storage.insert(LOG, [{"at": at, "kind": "backup", "details": details}])
    seconds = round(time.perf_counter() - started, 3)
    return Report(path=os.fspath(place), file_bytes=size, verified=True, removed=removed, seconds=seconds)


def _destination(storage: Storage, path: str | os.PathLike[str]) -> tuple[Path, Path | None]:
    """Return the folder that the backup goes to, and its file unless the folder is to hold several."""
    place, text = path_value(path), os.fspath(path)
    if not place.absolute().parent.is_dir():
        raise UnusablePath(f"no folder {place.absolute().parent}: create it first, then back up to {text!r}")
    if place.is_dir() or text.endswith(("/", os.sep)) or not (place.exists() or place.suffix):
        place.mkdir(mode=0o700, exist_ok=True)
        return place, None
    if place.exists():
        _refuse_to_replace(storage, place)
    return place.absolute().parent, place


def _sweep(folder: Path) -> None:
    """Remove what a backup that was killed has left, once it is too old to be one that still runs."""
    for item in folder.glob(f"{ASIDE}*"):
        if time.time() - item.stat().st_mtime > LONGEST_SECONDS:
            shutil.rmtree(item, ignore_errors=True)


def _refuse_to_replace(storage: Storage, place: Path) -> None:
    from .storage.sqlite_backup import is_lab

    for own in (Path(f"{storage.path}{ending}") for ending in ("", "-wal", "-shm")):
        if own.exists() and own.samefile(place):
            raise InvalidValue(f"path={os.fspath(place)!r} is the lab itself: give another file, or a folder")
    if place.stat().st_size and not is_lab(place):
        raise NotALab(f"{place} is there and is no lab: a backup replaces nothing but an older backup")
    if Path(f"{place}-wal").exists():
        raise StorageError(f"{place}-wal is there: somebody has that file open. Close it, or back up to another path")


def _stem(storage: Storage) -> str:
    return "lab" if storage.path == ":memory:" else Path(storage.path).stem


def _next_name(folder: Path, stem: str, at: datetime) -> Path:
    """Return a name that sorts behind those of all older backups, even where the clock was set back."""
    for newest in _backups(folder, stem)[-1:]:
        last = datetime.strptime(newest.name[len(stem) + 1 :], STAMP).replace(tzinfo=UTC)
        at = max(at.astimezone(UTC), last + timedelta(microseconds=1))
    return folder / f"{stem}-{at.astimezone(UTC):{STAMP}}"


def _backups(folder: Path, stem: str) -> list[Path]:
    name = re.compile(re.escape(stem) + r"-\d{8}T\d{12}Z\.db")
    return sorted(item for item in folder.iterdir() if name.fullmatch(item.name))


def _rotate(folder: Path, stem: str, *, keep: int) -> list[str]:
    """Delete the oldest backups of this lab beyond `keep`, and return their names."""
    removed = _backups(folder, stem)[:-keep]
    for item in removed:
        item.unlink()
    return [item.name for item in removed]
