"""What a back end can do. The floors above speak these operations, never SQL."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from ..records import Chunk, Condition, EmbeddingSet, Finding, Group, Measure, Nearest, Neighbour, Rate, TextMatch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..vectors.similarity import Array32

    Columnar = NDArray[Any] | Sequence[Any]

Row = dict[str, Any]
Result = TypeVar("Result")
Where = Sequence[Condition]


class Coded(NamedTuple):
    """A column of texts: `values[codes]`, where code -1 stands for nothing; as `pandas.Categorical.from_codes` takes."""

    codes: NDArray[np.int32]
    values: list[str]


class Ranked(NamedTuple):
    """Values by group: a column per group as in `Storage.aggregate`, and for each name how many values each group has
    and the chosen ones by their ranks."""

    keys: dict[str, list[Any]]
    values: dict[str, list[tuple[int, dict[int, float]]]]


class TableShape(NamedTuple):
    """A table as everyone sees it: columns with their kinds, what identifies a row, and the tables it refers to.

    The kinds are text, number, flag, time, document (JSON) and bytes.
    """

    columns: Mapping[str, str]
    key: tuple[str, ...]
    references: frozenset[str]


class Unit(ABC):
    """A group of writes that lands whole or not at all."""

    @abstractmethod
    def undo(self) -> None:
        """Take the group's writes back and release the database, but remember them."""

    @abstractmethod
    def redo(self) -> None:
        """Take the database again and repeat the remembered writes."""

    @abstractmethod
    def forget(self) -> None:
        """Forget the writes up to here, which can no longer be repeated then: for a group that is too large to keep."""


class Storage(ABC):
    """One lab's tables, text index and vectors.

    Rows are dicts of Python values: aware datetimes, bools, and dicts or lists where a column holds JSON. Table and
    column names are checked against the schema. Every write joins the caller's transaction, or is one of its own.
    Errors: `StorageError` and its kinds, never the driver's.
    """

    path: str
    read_only: bool

    @abstractmethod
    def insert(self, table: str, rows: Iterable[Mapping[str, Any]], *, ignore_existing: bool = False) -> int:
        """Insert rows and return how many were added; `ignore_existing` skips rows whose unique key is taken."""

    @abstractmethod
    def update(self, table: str, where: Where, changes: Mapping[str, Any]) -> int:
        """Change the matching rows and return how many there were."""

    @abstractmethod
    def delete(self, table: str, where: Where) -> int:
        """Delete the matching rows, with everything that hangs on them, and return how many there were."""

    @abstractmethod
    def rows(
        self,
        table: str,
        *,
        where: Where = (),
        columns: Sequence[str] | None = None,
        order_by: Sequence[str] = (),
        limit: int | None = None,
    ) -> list[Row]:
        """Return matching rows; a column in `order_by` that starts with "-" sorts descending."""

    @abstractmethod
    def batches(
        self, table: str, *, by: Sequence[str], size: int, columns: Sequence[str] | None = None
    ) -> Iterator[list[Row]]:
        """Yield all rows, so many at a time, in the order of the columns `by`, which together are unique.

        Texts are ordered by code points. What comes in between the batches may be seen or not; see `snapshot`.
        """

    @abstractmethod
    def tables(self) -> dict[str, TableShape]:
        """Return the tables that hold what cannot be derived from others, without those that are a user's own."""

    @abstractmethod
    def append(
        self, table: str, columns: Mapping[str, Columnar], *, unique: Sequence[str]
    ) -> tuple[list[int], list[bool]]:
        """Add rows given by columns of equal length and return for each its key, and whether it is new.

        A row whose `unique` columns are taken, in the table or further up, is left out and gets the key of the one
        that is there; a None among them is never taken. Columns are NumPy arrays (NaN and NaT for nothing; times are
        datetime64[us] in UTC) or lists of what `insert` takes. The table's key is a number that the back end gives.
        """

    @abstractmethod
    def update_each(self, table: str, columns: Mapping[str, Columnar], *, key: str) -> int:
        """Change many rows, each by its key: `columns` holds the key and the new values. Returns how many there were."""

    @abstractmethod
    def columns(
        self,
        table: str,
        names: Sequence[str],
        *,
        keys: Sequence[Group] = (),
        where: Where = (),
        order_by: Sequence[str] = (),
        limit: int | None = None,
    ) -> dict[str, NDArray[Any] | Coded]:
        """Return columns of the matching rows: the quick way to many rows. Without `order_by` they come in any order.

        Numbers and flags are float64 (NaN for nothing), times datetime64[us] in UTC, texts `Coded`, ids and JSON arrays
        of str and None.
        `keys` are JSON columns' keys to be read as columns of their own, as texts named like "metadata.team".
        """

    @abstractmethod
    def aggregate(
        self, table: str, *, by: Sequence[Group], measures: Sequence[Measure], where: Where = ()
    ) -> dict[str, list[Any]]:
        """Group the matching rows and return a column per group and measure, ordered by the groups, None first.

        A group's column is named like its own, with a key like "metadata.team" (texts, other values as JSON), with a
        frequency "period": the period's first instant, aware; weeks begin on Monday. A sum of nothing is None.
        """

    def ranked(
        self,
        table: str,
        *,
        by: Sequence[Group],
        values: Mapping[str, str | Rate],
        ranks: Callable[[str, int], Sequence[int]],
        where: Where = (),
    ) -> Ranked | None:
        """Put the values of each group of the matching rows in order and return some; None where `columns` is better.

        `values` names columns, and rates of them; `ranks` tells for a name, and how many values a group has, which ones
        are wanted, from 1 for the smallest.
        """
        return None

    @abstractmethod
    def stamp(self) -> Any:
        """Return a value that is another one after each change of the database by anyone; None while one is going on."""

    def asking(self) -> AbstractContextManager[None]:
        """Make the block one question: the stamp is that of its beginning, and need not be asked for again."""
        return nullcontext()

    _remembered: tuple[Any, dict[Hashable, Any]] = (None, {})

    def remember(self, name: Hashable, make: Callable[[], Result]) -> Result:
        """Return what `make` returns, from memory as long as nobody has changed anything; in a transaction anew."""
        stamp = self.stamp()
        if stamp is None:
            return make()
        known_since, known = self._remembered
        if known_since != stamp:
            known = {}
            self._remembered = stamp, known
        if name not in known:
            # The stamp was read first: what is made now is as new as that, or newer and soon made again.
            known[name] = make()
        return cast("Result", known[name])

    def _go_on_remembering(self, before: Any, now: Any) -> None:
        """Keep what was remembered when the stamp was `before`: nothing that matters has changed since."""
        since, known = self._remembered
        if since == before:
            self._remembered = now, known

    @abstractmethod
    def count(self, table: str, *, where: Where = ()) -> int:
        """Count the matching rows."""

    def effective(self, where: Where) -> Where:
        """Return the conditions on contexts that some context may fail now."""
        return where

    @abstractmethod
    def match_text(
        self,
        terms: Sequence[str],
        *,
        k: int,
        where: Where = (),
        include: Sequence[str] = (),
        column_weights: Mapping[str, float] | None = None,
    ) -> list[TextMatch]:
        """Rank contexts by BM25 over the terms joined by OR; ties by id.

        Returns the best k, and after them those of `include` that match but ranked lower. `column_weights` says how
        much a word counts in "content", "topic" and "summary"; 1 where nothing is said.
        """

    @abstractmethod
    def matched_terms(self, terms: Sequence[str], context_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return which of the terms each context contains, after stemming."""

    @abstractmethod
    def passages(self, terms: Sequence[str], context_ids: Sequence[str]) -> dict[str, str]:
        """Return for each matching context the passage of its content that has most of the terms."""

    @abstractmethod
    def nearest(self, vector: Array32, *, set_key: int, k: int, where: Where = ()) -> Nearest:
        """Return the k contexts whose best chunk is most similar to the vector; ties by id."""

    def nearest_many(self, vectors: Array32, *, set_key: int, k: int, where: Where = ()) -> list[Nearest]:
        """Do what `nearest` does for each row of vectors; a back end may do it at once."""
        return [self.nearest(vector, set_key=set_key, k=k, where=where) for vector in vectors]

    @abstractmethod
    def similarities(self, vector: Array32, *, set_key: int, context_ids: Sequence[str]) -> dict[str, Neighbour]:
        """Return each context's best chunk and its similarity to the vector; contexts without vectors are left out."""

    @abstractmethod
    def known_vectors(self, model_id: str, chunk_hashes: Sequence[str]) -> dict[str, Array32]:
        """Return the vectors that are stored already, by chunk hash."""

    @abstractmethod
    def put_chunks(
        self,
        chunks: Mapping[str, Sequence[Chunk]],
        *,
        set_key: int | None,
        vectors: Mapping[str, Array32],
        content_changed: bool = False,
    ) -> None:
        """Make these each context's chunks in this set, with the vectors by chunk hash; unchanged chunks stay.

        `chunks` are by context id. `content_changed` drops their chunks in every other set, which would point into
        the old text. Raises `ContextNotFound`.
        """

    def add_chunks(
        self, chunks: Mapping[str, Sequence[Chunk]], *, into: EmbeddingSet, vectors: Mapping[str, Array32]
    ) -> bool:
        """Give contexts that have no chunks yet these, by context id, with the vectors by chunk hash.

        False where the set is no longer as `into` says: the caller takes his transaction back.
        """
        rows = self.rows("embedding_sets", where=[Condition("set_key", "=", into.set_key)])
        if not rows or any(rows[0][name] != getattr(into, name) for name in into.__dataclass_fields__):
            return False
        self.put_chunks(chunks, set_key=into.set_key, vectors=vectors)
        return True

    @abstractmethod
    def build_vector_index(self, set_key: int, *, progress: Callable[[int], None]) -> dict[str, Any]:
        """Build or continue the index that large sets are searched with; return the facts about it.

        `progress` is told how many vectors were taken in. Raises `InvalidValue` where there can be none.
        """

    @abstractmethod
    def contexts_without_chunks(self, set_key: int, *, limit: int) -> list[Row]:
        """Return id and content of up to `limit` contexts that have no chunks in this set."""

    @abstractmethod
    def count_without_chunks(self, set_key: int | None) -> int:
        """Count the contexts that have no chunks in this set; all of them for None."""

    @abstractmethod
    def touch(self, accesses: Mapping[str, tuple[datetime, int]]) -> None:
        """Note for each context id when it was last shown, and how many times more."""

    @abstractmethod
    def transaction(
        self, *, waiting: bool = True, whole: bool = False, keeping: bool = False
    ) -> AbstractContextManager[Unit]:
        """Group writes: all land at the end of the block, or none. Nested blocks are savepoints.

        With `waiting=False` a writer that is at work means `LabBusy` at once. A `whole` block promises to end when
        one of its operations fails, which spares each of them a savepoint; where it goes on, its end raises
        `StorageError` and takes everything back. `keeping` promises that the block changes nothing of what is
        remembered, which may then outlive it: the access log and what `touch` writes are not.
        """

    @abstractmethod
    def snapshot(self) -> AbstractContextManager[None]:
        """Read everything in the block as of one moment, whatever others write meanwhile."""

    @abstractmethod
    def connection(self) -> AbstractContextManager[Any]:
        """Lend a connection of the back end's own kind, for a user's reading questions."""

    @abstractmethod
    def connection_figures(self) -> dict[str, Any]:
        """Return how many connections there are, and how much callers had to wait for them."""

    @property
    @abstractmethod
    def in_transaction(self) -> bool:
        """Whether the caller is inside a transaction of this storage."""

    @abstractmethod
    def migration_status(self) -> dict[str, Any]:
        """Return applied_count, total_migrations, applied (name, time) and pending (names)."""

    @abstractmethod
    def health(self, names: Collection[str] | None = None) -> dict[str, Any]:
        """Return what the back end knows about its own state, or those lines of it, without changing anything.

        Never raises a `LabError`: a line that cannot be read says why.
        """

    @abstractmethod
    def check(self, *, progress: Callable[[int, int], None] | None = None) -> Iterator[Finding]:
        """Look at everything that is stored and yield what is wrong, changing nothing.

        Never raises a `StorageError`: what cannot be read is a finding. `progress` is told how many rows have been
        looked at, and how many there are.
        """

    @abstractmethod
    def copy_to(self, path: str, *, progress: Callable[[int, int], None] | None = None) -> None:
        """Write a copy of everything, as of one moment, into a new file that its owner alone may read, and check it.

        Others may go on writing. Raises `DamagedLab` where the copy is not sound; the caller removes it then.
        """

    @abstractmethod
    def close(self) -> None:
        """Release every connection. Closing twice is fine."""
