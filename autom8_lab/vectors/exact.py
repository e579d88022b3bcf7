"""The exact engine: a matrix in memory, one product per question."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..records import Metric
from .similarity import similarity

if TYPE_CHECKING:
    import numpy.typing as npt

    from .similarity import Array32, Array64

    Keys = npt.NDArray[np.int64]

SPARE = 1.25  # of the rows in use: a new vector must not copy all the others
FEW_ROWS = 20_000
ATTRIBUTES = 5  # chunk key, context key, position, start, end


def _products(rows: Array32, queries: Array32) -> Array32:
    if len(queries) > 1:
        many: Array32 = queries @ rows.T
        return many
    # The threads of BLAS gain little on few rows, and go on spinning beside the encoder's.
    one: Array32 = np.vecdot(rows, queries[0]) if len(rows) < FEW_ROWS else rows @ queries[0]
    return one[None]


class VectorMatrix:
    """The vectors of one set as they are stored, with each chunk's key, context key, position, start and end.

    A matrix does not change: `grown` and `without` return another one that shares its rows, so that a search in one
    thread keeps what it holds. Only the newest may be grown. Dropped rows stay until half of all are dropped.
    """

    def __init__(self, *, dimensions: int, metric: Metric, capacity: int = 0) -> None:
        self.metric = metric
        self._rows: Array32 = np.empty((capacity, dimensions), dtype=np.float32)
        self._squares: Array32 = np.empty(capacity, dtype=np.float32)
        self._attributes: Keys = np.empty((ATTRIBUTES, capacity), dtype=np.int64)
        self._filled = 0
        self._dropped: Keys = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return self._filled - len(self._dropped)

    @property
    def nbytes(self) -> int:
        """The bytes of memory that it takes."""
        return self._rows.nbytes + self._squares.nbytes + self._attributes.nbytes

    @property
    def chunk_keys(self) -> Keys:
        """Each row's chunk key, growing; dropped rows have theirs too."""
        return self._attributes[0, : self._filled]

    @property
    def context_keys(self) -> Keys:
        """Each row's context key."""
        return self._attributes[1, : self._filled]

    def attributes(self, rows: Keys) -> Keys:
        """Return chunk key, context key, position, start and end of these rows, shape (5, n)."""
        return self._attributes[:, rows]

    def spans(self, rows: Keys) -> Keys:
        """Return position, start and end of these rows' chunks, shape (n, 3)."""
        return self._attributes[2:, rows].T

    def grown(self, attributes: Keys, vectors: Array32) -> VectorMatrix:
        """Return this matrix with more rows; `attributes` has shape (5, n), its chunk keys above all others."""
        other, filled = self._another(), self._filled + len(vectors)
        if filled > len(self._rows):
            other._reserve(np.arange(self._filled), int(filled * SPARE))
        other._rows[self._filled : filled] = vectors
        with np.errstate(over="ignore"):  # a damaged vector can have any length: the check names it
            other._squares[self._filled : filled] = np.square(vectors).sum(axis=1)
        other._attributes[:, self._filled : filled] = attributes
        other._filled = filled
        return other

    def without(self, chunk_keys: Keys) -> VectorMatrix:
        """Return this matrix with the rows of these chunks dropped."""
        other = self._another()
        other._dropped = np.union1d(self._dropped, np.flatnonzero(np.isin(self.chunk_keys, chunk_keys)))
        if len(other._dropped) * 2 > self._filled:
            kept = np.delete(np.arange(self._filled), other._dropped)
            other._reserve(kept, int(len(kept) * SPARE))
            other._filled, other._dropped = len(kept), self._dropped[:0]
        return other

    def _another(self) -> VectorMatrix:
        other = copy.copy(self)
        other.__dict__.pop("_by_context", None)
        return other

    def _reserve(self, kept: Keys, capacity: int) -> None:
        for name, axis in (("_rows", 0), ("_squares", 0), ("_attributes", 1)):
            old = getattr(self, name)
            new = np.empty([capacity if place == axis else size for place, size in enumerate(old.shape)], old.dtype)
            new[(slice(None),) * axis + (slice(len(kept)),)] = old.take(kept, axis=axis)
            setattr(self, name, new)

    def rows_of(self, context_keys: Keys) -> Keys:
        """Return the rows of these contexts' chunks, growing."""
        order, wanted = self._by_context, np.unique(context_keys)
        first, end = (np.searchsorted(self.context_keys, wanted, side, sorter=order) for side in ("left", "right"))
        counts = end - first
        # The places in the order: for each context as many, one after the other, as it has chunks.
        places = np.arange(counts.sum()) + np.repeat(first - (np.cumsum(counts) - counts), counts)
        rows: Keys = np.sort(order[places])
        return np.setdiff1d(rows, self._dropped, assume_unique=True) if len(self._dropped) else rows

    @cached_property
    def _by_context(self) -> Keys:
        order: Keys = np.argsort(self.context_keys, kind="stable")  # nearly sorted already
        return order

    def closeness(self, query: Array32) -> Array32:
        """Return one float32 number per row that orders them as the metric does, -inf for dropped rows.

        For l2 it is the negative square of the distance. All are right up to `error(query)`.
        """
        scores: Array32 = self.closeness_of(query[None])[0]
        return scores

    def closeness_of(self, queries: Array32) -> Array32:
        """Do what `closeness` does for several questions, by one product: shape (questions, rows)."""
        rows, squares = self._rows[: self._filled], self._squares[: self._filled]
        scores = _products(rows, queries)
        lengths = np.square(queries).sum(axis=1, keepdims=True)
        if self.metric == "l2":
            scores = 2 * scores - squares - lengths
        elif self.metric == "cosine":
            scores /= np.sqrt(squares) * np.sqrt(lengths)
        scores[:, self._dropped] = -np.inf
        return scores

    def similarity(self, query: Array32, rows: Keys) -> Array64:
        """Return the similarity of these rows to the query, in float64."""
        return similarity(self._rows[rows], query, metric=self.metric)

    def error(self, query: Array32) -> float:
        """Return how far rounding may have moved a number of `closeness`: float32 keeps seven digits of its terms."""
        if self.metric == "cosine":
            return 1e-5
        length = float(np.linalg.norm(query))
        longest = float(np.sqrt(self._squares[: self._filled].max(initial=0.0)))
        return 1e-5 * (length * longest if self.metric == "dot" else (length + longest) ** 2)
