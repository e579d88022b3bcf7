"""What the checks work with: a folder, a lab in it, and a way to say that something is not as it should be."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import LabError, UnusablePath
from ..lab import Lab, make_lab

if TYPE_CHECKING:
    from ..embedding import Encoder

HASH: dict[str, Any] = {"embedding_model": "hash-64", "embedding_dimensions": 64}
# In this order; a group that is about what the others have written comes after them.
GROUPS = (
    *("model", "contexts", "text search", "vectors", "transparency", "ledger", "schema", "migrations", "health"),
    *("configuration", "backup", "transactions", "concurrency", "errors", "performance"),
)


class CheckFailed(Exception):
    """Something is not as it should be."""


def expect(holds: object, message: str) -> None:
    """Go on if something holds. Raises `CheckFailed`, also where Python leaves `assert` out (-O)."""
    if not holds:
        raise CheckFailed(message)


@contextmanager
def expect_error(kind: type[Exception], doing: str) -> Iterator[None]:
    """Expect an error of this kind from the block, with a message."""
    try:
        yield
    except kind as error:
        expect(str(error), f"{doing}: the {kind.__name__} says nothing")
    else:
        raise CheckFailed(f"{doing} should raise {kind.__name__}, and did not")


def new_folder(prefix: str, folder: str | os.PathLike[str] | None) -> tempfile.TemporaryDirectory[str]:
    """Return a folder of its own in `folder`, or in the system's temporary one. Raises `UnusablePath`."""
    try:
        return tempfile.TemporaryDirectory(prefix=prefix, dir=folder, ignore_cleanup_errors=True)
    except OSError as exc:
        raise UnusablePath(f"no files can be made in {folder or tempfile.gettempdir()}: {exc.strerror}") from exc


@dataclass
class Workbench:
    """A folder for the files of one self-test; `copy` is a copy of the user's lab, where there is one to be tested."""

    folder: Path
    encoder: Encoder | None = None
    copy: Path | None = None
    rates: list[dict[str, Any]] = field(default_factory=list)
    _lab: Lab | None = None
    _problem: LabError | None = None

    @property
    def lab(self) -> Lab:
        """The lab that most checks share; where it cannot be opened, each of them fails with the reason."""
        if self._problem is not None:
            raise self._problem
        if self._lab is None:
            try:
                self._lab = self.open(self.copy or self.folder / "shared.db")
            except LabError as error:
                self._problem = error
                raise
        return self._lab

    def open(self, path: Path, **settings: Any) -> Lab:
        """Open a lab: a new one with the given or the hash encoder, a copy of the user's with its own model."""
        own = self.encoder is not None or path == self.copy
        encoder = None if "embedding_model" in settings else self.encoder
        model = {} if own else HASH
        return make_lab(path, encoder=encoder, **{"read_only": False, **model, **settings})

    @contextmanager
    def fresh(self, name: str, **settings: Any) -> Iterator[Lab]:
        """Open a new lab in a file of its own."""
        with self.open(self.folder / f"{name}.db", **settings) as lab:
            yield lab

    def close(self) -> None:
        """Close the shared lab."""
        if self._lab is not None:
            self._lab.close()


class Check(NamedTuple):
    """A named piece of the self-test."""

    group: str
    name: str
    run: Callable[[Workbench], None]


CHECKS: list[Check] = []


def check(group: str) -> Callable[[Callable[[Workbench], None]], Callable[[Workbench], None]]:
    """Add a function to the self-test; its name is read as a sentence."""

    def register(function: Callable[[Workbench], None]) -> Callable[[Workbench], None]:
        CHECKS.append(Check(group, function.__name__.replace("_", " "), function))
        CHECKS.sort(key=lambda item: GROUPS.index(item.group))
        return function

    return register
