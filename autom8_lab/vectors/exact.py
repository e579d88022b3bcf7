"""The exact engine: a matrix in memory, one product per question."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..records import Metric

if TYPE_CHECKING:
    import numpy.typing as npt

    from .similarity import Array32

    Keys = npt.NDArray[np.int64]


class VectorMatrix:
    """The vectors of one set, with the key of each chunk and of the context it belongs to.

    `add` and `remove` keep it in step with the file, so that only what changed is read again.
    """

    def __init__(self, *, dimensions: int, metric: Metric) -> None:
        self.metric = metric
        self.chunk_keys: Keys = np.empty(0, dtype=np.int64)
        self.context_keys: Keys = np.empty(0, dtype=np.int64)
        self._rows: Array32 = np.empty((0, dimensions), dtype=np.float32)
        self._squares: Array32 = np.empty(0, dtype=np.float32)

    def __len__(self) -> int:
        return len(self.chunk_keys)

    def add(self, chunk_keys: Keys, context_keys: Keys, vectors: Array32) -> None:
        """Append rows; under cosine they are kept at length 1."""
        if self.metric == "cosine":
            vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        self.chunk_keys = np.concatenate([self.chunk_keys, chunk_keys])
        self.context_keys = np.concatenate([self.context_keys, context_keys])
        self._rows = np.concatenate([self._rows, vectors])
        self._squares = np.concatenate([self._squares, np.square(vectors).sum(axis=1)])

    def remove(self, chunk_keys: Keys) -> None:
        """Drop the rows of these chunks."""
        keep = ~np.isin(self.chunk_keys, chunk_keys)
        if not keep.all():
            self.chunk_keys, self.context_keys = self.chunk_keys[keep], self.context_keys[keep]
            self._rows, self._squares = self._rows[keep], self._squares[keep]

    def closeness(self, query: Array32, *, allowed: Keys | None = None) -> Array32:
        """Return one float32 number per chunk that orders them as the metric does; -inf outside `allowed` contexts.

        For l2 it is the negative square of the distance. All are right up to `error(query)`.
        """
        scores: Array32 = self._rows @ query
        if self.metric == "l2":
            scores = 2 * scores - self._squares - np.square(query).sum()
        elif self.metric == "cosine":
            scores /= np.linalg.norm(query)
        if allowed is not None:
            scores[~np.isin(self.context_keys, allowed)] = -np.inf
        return scores

    def error(self, query: Array32) -> float:
        """Return how far rounding may have moved a number of `closeness`: float32 keeps seven digits of its terms."""
        length = float(np.linalg.norm(query))
        longest = float(np.sqrt(self._squares.max(initial=0.0)))
        scale = {"cosine": 1.0, "dot": length * longest, "l2": (length + longest) ** 2}
        return 1e-5 * scale[self.metric]
