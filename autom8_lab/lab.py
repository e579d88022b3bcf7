"""The lab: one object, one set of verbs, and which lab is the current one."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .addresses import is_address
from .errors import InvalidValue, LabClosed, LabError, LabNotFound
from .leaks import Watched
from .records import Report
from .validation import path_value
from .verbs.accounting import AccountVerbs
from .verbs.care import CareVerbs
from .verbs.contexts import ContextVerbs
from .verbs.importing import ImportVerbs
from .verbs.parts import utc_now
from .verbs.routing import RoutingVerbs
from .verbs.searching import SearchVerbs
from .verbs.settings import SettingsVerbs
from .verbs.transparency import TransparencyVerbs
from .verbs.tuning import TuningVerbs

if TYPE_CHECKING:
    import os
    from types import TracebackType

    from sqlite_utils import Database

    from .config import LabConfig
    from .embedding import Encoder
    from .storage import Storage


class Lab(
    ContextVerbs,
    SearchVerbs,
    AccountVerbs,
    TuningVerbs,
    RoutingVerbs,
    ImportVerbs,
    CareVerbs,
    SettingsVerbs,
    TransparencyVerbs,
):
    """One SQLite file that remembers what an LLM-agent system knew, decided, spent and how well it went.

    Open one with `al.open`. Verbs take one positional argument, the rest by name; `x()` returns records and `x_df()`
    a DataFrame with fixed columns. Times are aware and in UTC. A lab may be shared by threads, a file by processes.
    """

    def __init__(
        self,
        config: LabConfig,
        *,
        encoder: Encoder | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        super().__init__(config, encoder=encoder, clock=clock)
        self._closed = False
        self._lent: weakref.WeakSet[Watched[Any]] = weakref.WeakSet()
        _open_labs.add(self)

    def transaction(self) -> AbstractContextManager[Lab]:
        """Group any verbs: text, vectors and ledger land together at the end of the block, or not at all.

        Nested blocks are savepoints. Texts stored in the block get their vectors when it ends, before the commit,
        so semantic search finds them afterwards. A block that is never left is taken back, and a `LeakWarning` says
        where it began.

        >>> with lab.transaction():
        ...     context_id = lab.store_context("Both or neither.")
        ...     pinned = lab.pin_context(context_id)
        """
        return Watched(self._transaction(), what="transaction", end="so nothing of it was kept")

    def connection(self) -> AbstractContextManager[Database]:
        """Lend a connection for SQL of your own: an sqlite-utils `Database`, on PostgreSQL psycopg's, that can only read.

        It counts among `max_connections` and is closed at the end of the block, with whatever was done to it. Inside
        `transaction()` it sees the transaction's own writes; a lab in memory lends a copy. What the lab writes goes
        through its verbs, which keep text, index, vectors and checksums in step. Errors of SQL are `StorageError`.

        >>> with lab.connection() as database:
        ...     database["context_registry"].count
        0
        """
        lent = Watched(self._storage.connection(), what="connection", end="which keeps it from others")
        self._lent.add(lent)
        return lent

    @contextmanager
    def _transaction(self) -> Iterator[Lab]:
        nested = self._storage.in_transaction
        with self._storage.transaction() as unit:
            if nested:
                yield self
            else:
                with self._contexts.embedding_at_the_end(unit):
                    yield self

    def close(self) -> None:
        """Write what is left of the access log and close every connection. Closing twice is fine."""
        if not self._closed:
            if self._storage.in_transaction:
                raise LabError("close() inside a transaction: leave the block first")
            self._closed = True
            _open_labs.discard(self)
            try:
                self._access.flush()
            finally:
                self._storage.close()
                for lent in list(self._lent):
                    lent.report()

    @property
    def closed(self) -> bool:
        """Whether the lab has been closed."""
        return self._closed

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Lab {self.config.db_path}{' (closed)' if self._closed else ''}>"

    def _repr_html_(self) -> str:
        return self.stats()._repr_html_() if not self._closed else "<p>closed lab</p>"


_open_labs: weakref.WeakSet[Lab] = weakref.WeakSet()
_current: Lab | None = None


@atexit.register
def _close_open_labs() -> None:
    for lab in list(_open_labs):
        lab.close()


def open_lab(
    path: str | os.PathLike[str] | None = None,
    *,
    preset: str | None = None,
    config_path: str | os.PathLike[str] | None = None,
    encoder: Encoder | None = None,
    clock: Callable[[], datetime] = utc_now,
    **settings: Any,
) -> Lab:
    """Open or create a lab and make it the current one, which the module's verbs act on.

    `path` is a file or ":memory:"; without one it comes from AUTOM8_DB_PATH, `autom8.yaml`, the preset, or is
    ./autom8.db. `settings` are the fields of `LabConfig`; `encoder` is any object with the methods of `Encoder`;
    `clock` returns the time, aware. An older file is migrated. Raises `NewerSchema`, `NotALab`, `ConfigurationError`.

    >>> lab = open_lab(preset="testing")
    >>> lab.stats()["contexts"]
    0
    >>> lab.close()
    """
    global _current
    _current = lab = make_lab(path, preset=preset, config_path=config_path, encoder=encoder, clock=clock, **settings)
    return lab


def make_lab(
    path: str | os.PathLike[str] | None,
    *,
    preset: str | None = None,
    config_path: str | os.PathLike[str] | None = None,
    encoder: Encoder | None = None,
    clock: Callable[[], datetime] = utc_now,
    **settings: Any,
) -> Lab:
    """Do what `open_lab` does without making the lab the current one."""
    from .config import LabConfig

    if path is not None:
        path_value(path)
    if not callable(clock):
        raise InvalidValue(f"clock={clock!r} cannot be called: give a function that returns an aware datetime")
    config = LabConfig.load(preset=preset, config_path=config_path, db_path=path, **settings)
    return Lab(config, encoder=encoder, clock=clock)


def use(lab: Lab) -> Lab:
    """Make a lab the current one, which the module's verbs act on, and return it."""
    global _current
    if not isinstance(lab, Lab):
        raise InvalidValue(f"{lab!r} is a {type(lab).__name__}: give what al.open() returned")
    if lab.closed:
        raise LabClosed
    _current = lab
    return lab


def current_lab() -> Lab:
    """Return the lab that the module's verbs act on: the last one opened or used.

    Where none is open, the configured file is opened, if it exists. Raises `LabNotFound`: nothing is created here.
    """
    if _current is not None and not _current.closed:
        return _current
    from .config import LabConfig

    path = LabConfig.load().db_path
    if path != ":memory:" and not is_address(path) and not Path(path).exists():
        raise LabNotFound(f"no lab at {path}: create one with al.open({path!r})")
    return open_lab()


def run_migrations(path: str | os.PathLike[str], *, to: int | str | None = None) -> Report:
    """Bring a file's schema to the newest version, or to the one given, and return its status.

    `to` is a number of migrations or the name of the last one to keep; going back drops what the later ones made,
    with its data. A missing file is created. Raises `InvalidValue` for an unknown version.
    """
    from .storage.migrations import count_until

    path_value(path)
    count = count_until(to)
    with _schema_of(path) as storage:
        storage.migrate(count)
        return Report(storage.migration_status())


def repair(path: str | os.PathLike[str], *, to: str | os.PathLike[str], progress: bool | None = None) -> Report:
    """Save what a damaged lab still holds into a new one at `to`, and return what was saved, doubtful and lost.

    The damaged file and its write-ahead log are only read. Rows are taken from their pages, so that a damaged page
    hides no other. A row counts as saved when its checksum, the hash of its text, its values and its references are
    right; other rows go as JSON lines into `to`.doubtful.jsonl and not into the lab. The full-text index is made
    anew; `contexts_without_vectors` get theirs from `al.embed_contexts()`. `report["tables"]` has a row per table;
    `lost` is how many rows are named somewhere and nowhere to be found: at least so many are gone.

    Close the lab first, here and elsewhere. Raises `InvalidValue` where something is at `to`, `NotALab`,
    `NewerSchema`, and `DamagedLab` where nothing of a lab can be read.
    """
    from .care import told_of
    from .repairs import repair

    open_paths = [lab.config.db_path for lab in list(_open_labs)]
    with told_of(path_value(to, "to")):
        return repair(path, to=to, at=utc_now(), open_paths=open_paths, progress=progress)


def copy_lab(source: str | os.PathLike[str], target: str | os.PathLike[str], progress: bool | None = None) -> Report:
    """Copy a whole lab to another place, from a file to a server, back, or to another of its kind; return what it took.

    Every row goes, with its numbers and vectors, as of one moment; others may go on writing to the source. The target
    is made where it is missing, and has to be empty, or a copy of the same source that was broken off: that one is
    continued. At last both are compared row by row: `rows` are equal, `sha256` is that of their lines, `copied` says
    how many rows this call brought over. Raises `InvalidValue` for a target with rows of its own, and `DamagedLab`
    where the copy differs.
    """
    from . import exchange

    with _storage_at(source, read_only=True) as one, _storage_at(target) as other:
        return exchange.copy(one, other, at=utc_now(), progress=progress)


def compare_labs(one: str | os.PathLike[str], other: str | os.PathLike[str], progress: bool | None = None) -> Report:
    """Compare two labs row by row, wherever they are: equal, sha256 (of the first one's lines), tables.

    `report["tables"]` has a row per table: rows, rows_other, equal, and the first difference as the lines of an
    export have it. Rows that only the back end knows (numbers, indexes, the log of backups) do not count.
    """
    from . import exchange

    with _storage_at(one, read_only=True) as left, _storage_at(other, read_only=True) as right:
        with left.snapshot(), right.snapshot():
            return exchange.compare(left, right, progress=progress)


def get_migration_status(path: str | os.PathLike[str]) -> Report:
    """Return applied_count, total_migrations, applied (name, time) and pending (names) of a file, changing nothing."""
    if not is_address(str(path)) and not path_value(path).expanduser().exists():
        raise LabNotFound(f"no lab at {path}: create one with al.open({str(path)!r})")
    with _schema_of(path, read_only=True) as storage:
        return Report(storage.migration_status())


@contextmanager
def _storage_at(path: str | os.PathLike[str], *, read_only: bool = False) -> Iterator[Storage]:
    from .config import LabConfig
    from .storage import open_storage

    storage = open_storage(LabConfig.load(db_path=path, read_only=read_only))
    try:
        yield storage
    finally:
        storage.close()


@contextmanager
def _schema_of(path: str | os.PathLike[str], *, read_only: bool = False) -> Iterator[Any]:
    from .config import LabConfig
    from .storage import open_storage

    storage = open_storage(LabConfig.load(db_path=path, read_only=read_only), migrate=False)
    try:
        yield storage
    finally:
        storage.close()
