"""Every error and warning of autom8_lab.

LabError
├── InvalidValue            (also a ValueError)
│   ├── InvalidVector
│   └── ConfigurationError
├── NotFound                (also a LookupError)
│   ├── LabNotFound
│   ├── ContextNotFound
│   └── DecisionNotFound
├── ContextExists
├── ModelUnavailable
└── StorageError
    ├── LabClosed
    ├── LabBusy
    ├── LabForked
    ├── LabMoved
    ├── ReadOnlyLab
    ├── UnusablePath        (also an InvalidValue)
    ├── NotALab
    ├── NewerSchema
    ├── StatementTimeout
    ├── StorageFull
    └── DamagedLab

LabWarning                  (a UserWarning)
├── DamagedContextWarning
├── DegradedSearchWarning
├── PendingEmbeddingWarning
├── EmbeddingModelWarning
├── SettingMismatchWarning
├── LeakWarning
├── ReplacedLabWarning
└── UnrecordedUsageWarning
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LabError(Exception):
    """Something went wrong in the lab."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.__doc__)


class InvalidValue(LabError, ValueError):
    """A value cannot be used; the message names it and the remedy."""


class InvalidVector(InvalidValue):
    """A vector has the wrong size, is not finite, or is all zero."""


class ConfigurationError(InvalidValue):
    """A setting is unknown or has a value that cannot be used."""


class NotFound(LabError, LookupError):
    """Nothing is stored under that name."""


class LabNotFound(NotFound):
    """No lab is at that path."""


class ContextNotFound(NotFound):
    """No context has that id or alias."""


class DecisionNotFound(NotFound):
    """No decision has that id."""


class ContextExists(LabError):
    """A context with that id exists already."""


class ModelUnavailable(LabError):
    """The embedding model cannot be loaded."""


class StorageError(LabError):
    """The database refused an operation."""


class LabClosed(StorageError):
    """The lab is closed: open it again with al.open(path)."""


class LabBusy(StorageError):
    """The database stayed locked by another writer until the deadline."""


class LabForked(StorageError):
    """This process was forked while the lab was in use: open it after the fork, or start processes with spawn."""


class LabMoved(StorageError):
    """The file was deleted, moved away or replaced while the lab was open."""


class ReadOnlyLab(StorageError):
    """The lab is read-only."""


class UnusablePath(StorageError, InvalidValue):
    """No file can be at that path."""


class NotALab(StorageError):
    """The file is not a lab."""


class NewerSchema(StorageError):
    """The file was written by a newer autom8_lab."""


class StatementTimeout(StorageError):
    """A statement ran for longer than statement_seconds and was stopped."""


class StorageFull(StorageError):
    """The disk, or the database's size limit, is full."""


class DamagedLab(StorageError):
    """The database file is damaged."""


class LabWarning(UserWarning):
    """Something works with less than was asked for."""


class DamagedContextWarning(LabWarning):
    """Contexts were left out, because their texts do not fit their hashes; al.check() lists them."""


class DegradedSearchWarning(LabWarning):
    """A hybrid search was answered by text alone."""


class PendingEmbeddingWarning(LabWarning):
    """Contexts were stored without vectors; al.embed_contexts() adds them."""


class EmbeddingModelWarning(LabWarning):
    """The file's vectors come from another model than the configured one."""


class SettingMismatchWarning(LabWarning):
    """An applied setting was chosen for other vectors than the lab's."""


class LeakWarning(LabWarning):
    """A connection or transaction was never given back; the warning names the line that took it."""


class ReplacedLabWarning(LabWarning):
    """Another file took the place of the lab's while it was open, and the lab goes on with that one."""


class UnrecordedUsageWarning(LabWarning):
    """A decorated function did its work, but the ledger has no row of the call."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ", did you mean 'x'?" for the nearest known name, else ", known: a, b".

    >>> did_you_mean("topik", ["topic", "source"])
    "; did you mean 'topic'?"
    """
    names = sorted(known)
    nearest = difflib.get_close_matches(str(name), names, n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else f"; known names: {', '.join(names) or 'none yet'}"
