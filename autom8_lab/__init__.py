"""One SQLite file remembers what an LLM-agent system knew, decided, spent and how well it went.

`import autom8_lab as al`: `al.open("autom8.db")` opens a lab, and every verb of a `Lab` is here too, acting on the
current one.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from .errors import (
    ConfigurationError,
    ContextExists,
    ContextNotFound,
    DamagedLab,
    DegradedSearchWarning,
    EmbeddingModelWarning,
    InvalidValue,
    InvalidVector,
    LabBusy,
    LabClosed,
    LabError,
    LabNotFound,
    LabWarning,
    ModelUnavailable,
    NewerSchema,
    NotALab,
    NotFound,
    PendingEmbeddingWarning,
    ReadOnlyLab,
    StorageError,
    StorageFull,
)
from .lab import Lab, current_lab, get_migration_status, run_migrations, use
from .lab import open_lab as open
from .records import Context, Report, SearchHit

__version__ = "0.1.0"

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def _verb(method: Callable[Concatenate[Lab, Parameters], Result]) -> Callable[Parameters, Result]:
    """Return a method of `Lab` as a function on the current lab, with the same signature and docstring."""

    @functools.wraps(method)
    def verb(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return method(current_lab(), *args, **kwargs)

    signature = inspect.signature(method)
    verb.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
    return verb


accesses_df = _verb(Lab.accesses_df)
cleanup = _verb(Lab.cleanup)
contexts_df = _verb(Lab.contexts_df)
delete_context = _verb(Lab.delete_context)
embed_contexts = _verb(Lab.embed_contexts)
get_context = _verb(Lab.get_context)
health = _verb(Lab.health)
list_contexts = _verb(Lab.list_contexts)
pin_context = _verb(Lab.pin_context)
search = _verb(Lab.search)
search_df = _verb(Lab.search_df)
searches_df = _verb(Lab.searches_df)
stats = _verb(Lab.stats)
store_context = _verb(Lab.store_context)
store_contexts = _verb(Lab.store_contexts)
transaction = _verb(Lab.transaction)
unpin_context = _verb(Lab.unpin_context)
update_context = _verb(Lab.update_context)

__all__ = [
    "ConfigurationError",
    "Context",
    "ContextExists",
    "ContextNotFound",
    "DamagedLab",
    "DegradedSearchWarning",
    "EmbeddingModelWarning",
    "InvalidValue",
    "InvalidVector",
    "Lab",
    "LabBusy",
    "LabClosed",
    "LabError",
    "LabNotFound",
    "LabWarning",
    "ModelUnavailable",
    "NewerSchema",
    "NotALab",
    "NotFound",
    "PendingEmbeddingWarning",
    "ReadOnlyLab",
    "Report",
    "SearchHit",
    "StorageError",
    "StorageFull",
    "accesses_df",
    "cleanup",
    "contexts_df",
    "current_lab",
    "delete_context",
    "embed_contexts",
    "get_context",
    "get_migration_status",
    "health",
    "list_contexts",
    "open",
    "pin_context",
    "run_migrations",
    "search",
    "search_df",
    "searches_df",
    "stats",
    "store_context",
    "store_contexts",
    "transaction",
    "unpin_context",
    "update_context",
    "use",
]
