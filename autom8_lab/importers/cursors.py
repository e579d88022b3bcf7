"""How far a file was read, so that the next import goes on there. What is in the ledger decides; this only saves time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..records import Condition
from .files import BYTE_ORDER_MARKS

if TYPE_CHECKING:
    from ..storage import Storage

TABLE = "import_cursors"
# Raised when an importer learns to read more from the same file: what was read before is then read again.
VERSION = 1
PROBE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Position:
    """How far a file was read: bytes and lines, and a hash of what stands there."""

    position: int = 0
    line: int = 0
    fingerprint: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


class Cursors:
    """The positions in the files of one importer with the same options."""

    def __init__(self, storage: Storage, kind: str, *, clock: Callable[[], datetime]) -> None:
        self._storage = storage
        self._name = kind
        self._kind = f"{kind}/{VERSION}"
        self._clock = clock

    def about(self, options: Any) -> Cursors:
        """Return the positions of an import with these options, which reads the same files otherwise."""
        told = json.dumps(options, sort_keys=True, ensure_ascii=False)
        name = f"{self._name}:{hashlib.sha256(told.encode(errors='replace')).hexdigest()[:16]}"
        return Cursors(self._storage, name, clock=self._clock)

    def _where(self, path: Path) -> list[Condition]:
        return [Condition("kind", "=", self._kind), Condition("path", "=", str(path.resolve()))]

    def is_done(self, path: Path) -> bool:
        """Whether the whole file was read, and has not changed by a byte since."""
        rows = self._storage.rows(TABLE, where=self._where(path), columns=["position", "fingerprint"])
        return any(
            row["position"] == path.stat().st_size and row["fingerprint"] == whole_fingerprint(path) for row in rows
        )

    def load(self, path: Path) -> Position:
        """Return the position up to which the file is what it was when it was read; the beginning if it is not."""
        names = ["position", "line", "fingerprint", "metadata"]
        for row in self._storage.rows(TABLE, where=self._where(path), columns=names):
            found = Position(**row)
            if fingerprint(path, found.position) == found.fingerprint:
                return found
        return Position()

    def save(self, path: Path, position: Position) -> None:
        """Remember a position, inside the transaction that stores what was read up to it."""
        entry = {name: getattr(position, name) for name in ("position", "line", "fingerprint", "metadata")}
        entry |= {"kind": self._kind, "path": str(path.resolve()), "updated_at": self._clock()}
        self._storage.delete(TABLE, self._where(path))
        self._storage.insert(TABLE, [entry])

    def metadata(self) -> list[dict[str, Any]]:
        """Return what the importer remembered of its files."""
        rows = self._storage.rows(TABLE, where=[Condition("kind", "=", self._kind)], columns=["metadata"])
        return [row["metadata"] for row in rows]


def fingerprint(path: Path, position: int) -> str:
    """Return a hash of the beginning and of the end of a file's first `position` bytes."""
    digest = hashlib.sha256(str(position).encode())
    with path.open("rb") as file:
        digest.update(file.read(min(PROBE_BYTES, position)))
        file.seek(max(0, position - PROBE_BYTES))
        digest.update(file.read(min(PROBE_BYTES, position)))
    return digest.hexdigest()


def whole_fingerprint(path: Path) -> str:
    """Return a hash of all of a file: tables are edited anywhere, unlike logs, which grow."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_plain(path: Path) -> bool:
    """Whether the file's lines stand in it as they are, so that reading can go on within it."""
    with path.open("rb") as file:
        head = file.read(2)
    return head != b"\x1f\x8b" and head not in BYTE_ORDER_MARKS
