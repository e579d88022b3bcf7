"""What a valid vector is, and how similar two of them are."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ..errors import InvalidVector
from ..records import Metric

# The squares of anything shorter or longer leave float32.
SHORTEST, LONGEST = 1e-15, 1e15
ORDINARY = 1e-29, 1e29  # squares of lengths, well within these

Array32 = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]


def checked(vectors: npt.ArrayLike, *, dimensions: int, count: int | None = None, what: str = "vector") -> Array32:
    """Return vectors as a float32 array of shape (n, dimensions), with `count` rows where that is given.

    Raises `InvalidVector` for another size, NaN, infinity or a zero vector: under cosine these would rank first.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # too large for float32 becomes infinite, and is refused as that
        try:
            array: Array32 = np.ascontiguousarray(vectors, dtype=np.float32)
        except (TypeError, ValueError) as exc:
            raise InvalidVector(f"{what} is no array of numbers ({exc}): an encoder returns float32 rows") from exc
        if array.ndim < 2:
            array = array.reshape(1, -1)
        if array.ndim != 2 or array.shape[1] != dimensions:
            raise InvalidVector(f"{what} has {array.shape[-1]} dimensions, the model's set has {dimensions}")
        if count is not None and len(array) != count:
            raise InvalidVector(f"the encoder returned {len(array)} vectors for {count} texts: it returns one for each")
        squares = np.vecdot(array, array)  # a fifth of the time of the exact lengths, and enough for most vectors
    if np.minimum.reduce(squares, initial=1) > ORDINARY[0] and np.maximum.reduce(squares, initial=1) < ORDINARY[1]:
        return array
    lengths = np.sqrt(np.square(array, dtype=np.float64).sum(axis=1))
    if ((lengths >= SHORTEST) & (lengths <= LONGEST)).all():
        return array
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise InvalidVector(f"{what} {int(np.argmin(finite))} has a NaN or infinite number: encode the text again")
    empty = ~array.any(axis=1)
    if empty.any():
        raise InvalidVector(f"{what} {int(np.argmax(empty))} is all zero, which has no direction")
    place = int(np.argmax((lengths < SHORTEST) | (lengths > LONGEST)))
    raise InvalidVector(f"{what} {place} has length {lengths[place]:.0e}, beyond what float32 compares: scale it")


def similarity(matrix: Array32, query: Array32, *, metric: Metric) -> Array64:
    """Return the similarity of each row to the query, in float64.

    cosine: -1 to 1; dot: the scalar product; l2: 1 / (1 + Euclidean distance), 0 to 1. Each row is summed on its
    own, so a row's value does not depend on its neighbours: every engine gives the same number for it.
    """
    rows, vector = matrix.astype(np.float64), query.astype(np.float64)
    if metric == "l2":
        distances: Array64 = 1.0 / (1.0 + np.sqrt(np.square(rows - vector).sum(axis=1)))
        return distances
    products: Array64 = np.vecdot(rows, vector)
    if metric == "cosine":
        products /= np.sqrt(np.vecdot(rows, rows)) * math.sqrt(np.vecdot(vector, vector))
    return products
