"""The path of a lab: what may be there, and what may be done with it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import InvalidValue, LabNotFound, NotALab, UnusablePath
from .opening import MEMORY

HEADER = b"SQLite format 3\0"


def why_read_only(path: str, *, asked: bool) -> str | None:
    """Return why nothing may be written to the lab at the path, None where it may."""
    if asked:
        return "is open read-only: open it without read_only=True to write"
    # SQLite needs the folder too, for the files that it keeps beside the database.
    if path != MEMORY and not all(os.access(place, os.W_OK) for place in (path, Path(path).resolve().parent)):
        return "and its folder give no permission to write: change their mode, or copy the file elsewhere"
    return None


def look_at(path: str, *, read_only: bool) -> None:
    """Make sure that a file is at the path, and refuse paths where none can be."""
    if path == MEMORY:
        return
    if "\0" in path or path.startswith("file:"):
        raise InvalidValue(f"db_path={path!r}: give the path of a file, such as './autom8.db', or ':memory:'")
    try:
        _look_at(Path(path), path, read_only=read_only)
    except OSError as exc:
        raise UnusablePath(f"{path}: {exc.strerror}: check the path and the permissions of its folders") from exc


def _look_at(place: Path, path: str, *, read_only: bool) -> None:
    try:
        mode = place.stat().st_mode
    except FileNotFoundError:
        _create(place, path, read_only=read_only)
        return
    if stat.S_ISDIR(mode):
        raise UnusablePath(f"{path} is a folder: give the path of a file in it, such as {place / 'autom8.db'}")
    if not stat.S_ISREG(mode):
        # To open a pipe would wait for whoever writes to it.
        raise NotALab(f"{path} is a device, pipe or socket: give the path of an ordinary file")
    with place.open("rb") as file:
        header = file.read(len(HEADER))
    if header and header != HEADER:
        raise NotALab(f"{path} is not an SQLite file: give another path; the file was not touched")


def _create(place: Path, path: str, *, read_only: bool) -> None:
    if read_only:
        raise LabNotFound(f"no lab at {path} to open read-only: create one with al.open({path!r})")
    if not place.absolute().parent.is_dir():
        raise UnusablePath(f"no folder {place.absolute().parent}: create it first, then open {path!r}")
    # Created here, because SQLite would make it readable by everyone.
    os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o600))
