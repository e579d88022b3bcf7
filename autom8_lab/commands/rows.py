"""Texts and rows of contexts from files and pipes."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import InvalidValue


def bytes_of(path: str) -> bytes:
    """Return what is in a file, or comes from standard input for "-". Raises `InvalidValue`."""
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).expanduser().read_bytes()
    except OSError as exc:
        raise InvalidValue(f"{path} cannot be read ({exc.strerror}): check the path") from exc


def text_of(path: str) -> str:
    """Return the text of a file or of standard input. Raises `InvalidValue`."""
    try:
        return bytes_of(path).decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise InvalidValue(f"{path} is not UTF-8 text ({exc.reason} at byte {exc.start}): convert it first") from exc


def rows_of_file(path: str) -> list[dict[str, Any]]:
    """Return the rows of a CSV, JSON or JSON lines file; standard input is JSON or JSON lines. Raises `InvalidValue`."""
    if path.lower().endswith(".csv"):
        return [_row_of_csv(row) for row in csv.DictReader(io.StringIO(text_of(path), newline=""))]
    from ..importers.files import json_values

    rows = []
    for place, row in json_values(io.BytesIO(bytes_of(path))):
        if isinstance(row, InvalidValue):
            raise InvalidValue(f"{path}, {place}: {row}")
        if not isinstance(row, dict):
            raise InvalidValue(f"{path}, {place}: {type(row).__name__} is no row: give a JSON object for each context")
        rows.append(row)
    return rows


def _row_of_csv(row: dict[str, Any]) -> dict[str, Any]:
    # An empty cell says nothing; what is no text stands there as one.
    found = {str(name): value for name, value in row.items() if value not in ("", None)}
    readers: dict[str, Callable[[str], Any]] = {"priority": int, "pinned": _flag, "metadata": json.loads}
    for name, read in readers.items():
        if name in found:
            try:
                found[name] = read(found[name])
            except ValueError as exc:
                raise InvalidValue(f"{name}={found[name]!r} cannot be read: {exc}") from exc
    return found


def _flag(text: str) -> bool:
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in known:
        raise ValueError("give true or false")
    return known[text.lower()]
