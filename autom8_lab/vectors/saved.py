"""Vectors in a file of their own, mapped into memory: what is asked for is read, and nothing else."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..records import Metric
from .exact import ATTRIBUTES
from .similarity import similarity

if TYPE_CHECKING:
    from .exact import Keys
    from .similarity import Array32, Array64


class SavedVectors:
    """The vectors of one set as they are stored, with each chunk's key, context key, position, start and end.

    Rows are in the order of their chunk keys, which grow. The file has the vectors (float32), then the attributes
    (int64, shape (5, rows)). Raises ValueError for a file of another size.
    """

    def __init__(self, path: Path, *, rows: int, dimensions: int, metric: Metric) -> None:
        self.metric = metric
        shapes = (rows, dimensions), (ATTRIBUTES, rows)
        vector_bytes = 4 * rows * dimensions
        if path.stat().st_size != vector_bytes + 8 * ATTRIBUTES * rows:
            raise ValueError("its vectors are not as many as were written")
        if not rows:  # nothing cannot be mapped
            self._vectors, self._attributes = np.empty(shapes[0], np.float32), np.empty(shapes[1], np.int64)
            return
        # Plain arrays of the mapped memory: np.memmap's own class costs more than what is read of it.
        self._vectors = np.asarray(np.memmap(path, np.float32, "r", shape=shapes[0]))
        self._attributes = np.asarray(np.memmap(path, np.int64, "r", offset=vector_bytes, shape=shapes[1]))

    def __len__(self) -> int:
        return len(self._vectors)

    def rows_of(self, chunk_keys: Keys) -> Keys:
        """Return the rows of these chunks, which are all there."""
        rows: Keys = self._attributes[0].searchsorted(chunk_keys)
        return rows

    def vectors(self, rows: Keys) -> Array32:
        """Return the vectors of these rows."""
        return self._vectors[rows]

    def attributes(self, rows: Keys) -> Keys:
        """Return chunk key, context key, position, start and end of these rows, shape (5, n)."""
        return self._attributes[:, rows]

    def similarity(self, query: Array32, rows: Keys) -> Array64:
        """Return the similarity of these rows to the query, in float64."""
        return similarity(self._vectors[rows], query, metric=self.metric)


class VectorsFile:
    """Writes the file of `SavedVectors` batch by batch, readable by its owner alone. A context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb")
        self._digest = hashlib.sha256()
        self._attributes = [np.empty((ATTRIBUTES, 0), dtype=np.int64)]

    def __enter__(self) -> VectorsFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    @property
    def rows(self) -> int:
        """How many rows there are by now."""
        return sum(part.shape[1] for part in self._attributes)

    def add(self, attributes: Keys, vectors: Array32) -> None:
        """Append rows, whose chunk keys are above all before; `attributes` has shape (5, n)."""
        self._write(vectors)
        self._attributes.append(attributes)

    def finished(self) -> str:
        """Write what is left and return the SHA-256 of the file."""
        self._write(np.concatenate(self._attributes, axis=1))
        self._file.close()
        return self._digest.hexdigest()

    def _write(self, array: Array32 | Keys) -> None:
        data = np.ascontiguousarray(array).data
        self._digest.update(data)
        self._file.write(data)
