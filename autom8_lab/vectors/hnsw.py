"""The approximate engine: a usearch HNSW graph of half-precision vectors, for sets too large for one product.

Malkov and Yashunin 2016, arXiv:1603.09320.
"""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..records import Metric

if TYPE_CHECKING:
    import numpy.typing as npt

    from .similarity import Array32

    Keys = npt.NDArray[np.int64]

METRICS: dict[Metric, str] = {"cosine": "cos", "l2": "l2sq", "dot": "ip"}
# How many candidates a search keeps: more of them find more, and take longer.
EXPANSIONS = (64, 128, 256, 512)


class HnswIndex:
    """A graph over vectors by key. It finds most of the nearest in logarithmic time; `closeness` orders them."""

    def __init__(self, *, dimensions: int, metric: Metric) -> None:
        Index = _index_class()
        # Half precision keeps three digits, enough for directions; lengths may be beyond its range.
        self.metric = metric
        self._index = Index(ndim=dimensions, metric=METRICS[metric], dtype="f16" if metric == "cosine" else "f32")

    @classmethod
    def opened(cls, path: Path, *, metric: Metric, writable: bool = False) -> HnswIndex:
        """Return a saved index: mapped from its file, or in memory where it is to be changed."""
        restored = _index_class().restore(str(path), view=not writable)
        if restored is None:
            raise OSError(f"{path} is no usearch index")
        index = cls.__new__(cls)
        index.metric, index._index = metric, restored
        return index

    def __len__(self) -> int:
        return len(self._index)

    @property
    def rounding(self) -> float:
        """How much the rounding of stored vectors may move one closeness against another."""
        # A product of two numbers of half precision is off by a thousandth of it at most, and so is the sum of all for
        # unit vectors. The other metrics' closeness has no scale to say it by.
        return 2e-3 if self.metric == "cosine" else math.inf

    @property
    def expansion(self) -> int:
        """How many candidates a search keeps."""
        return int(self._index.expansion_search)

    @expansion.setter
    def expansion(self, value: int) -> None:
        self._index.expansion_search = value

    def add(self, keys: Keys, vectors: Array32, *, threads: int = 0) -> None:
        """Add vectors under new keys, with so many threads; 0 for all cores."""
        vectors = _unit(vectors) if self.metric == "cosine" else vectors
        self._index.add(keys.astype(np.uint64), vectors, threads=threads)

    def remove(self, keys: Keys) -> None:
        """Take keys out; those that are not there do not matter."""
        known = keys[self.contains(keys)]
        if len(known):
            self._index.remove(known.astype(np.uint64))

    def contains(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Return which of the keys are there."""
        return np.asarray(self._index.contains(keys.astype(np.uint64)), dtype=bool).reshape(len(keys))

    def vectors(self, keys: Keys) -> Array32:
        """Return the vectors under these keys as the index has them, rounded."""
        return np.asarray(self._index.get(keys.astype(np.uint64), dtype="f32"), dtype=np.float32)

    def search(self, query: Array32, count: int) -> tuple[Keys, Array32]:
        """Return up to `count` keys with their closeness (as in `VectorMatrix`, less exactly), the best first."""
        found = self._index.search(query / math.sqrt(query @ query) if self.metric == "cosine" else query, count)
        distances = np.asarray(found.distances, dtype=np.float32)
        closeness = -distances if self.metric == "l2" else 1 - distances
        return np.asarray(found.keys, dtype=np.int64), closeness

    def save(self, path: Path) -> None:
        """Write the index to a file."""
        self._index.save(str(path))


def _index_class() -> Any:
    # Where usearch's library is loaded first, onnxruntime's breaks the process (usearch 2.26, onnxruntime 1.32).
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    with suppress(ImportError):
        import onnxruntime  # noqa: F401
    from usearch.index import Index

    return Index


def _unit(vectors: Array32) -> Array32:
    unit: Array32 = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
