"""The exact ranking of a matrix's rows, which every back end shares: float32 proposes, float64 decides."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..records import Neighbour
from ..vectors.exact import VectorMatrix
from ..vectors.similarity import Array32, Array64
from .filters import ContextFilter

Keys = npt.NDArray[np.int64]
Ids = Callable[[list[int]], Mapping[int, str]]


class Candidates(NamedTuple):
    """What an engine found, best first: chunks by any key; how close the last one is before filters; if that is all."""

    keys: Keys
    context_keys: Keys
    closeness: Array32
    lowest: float
    exhausted: bool


def nearest_rows(
    matrix: VectorMatrix, vector: Array32, k: int, passing: ContextFilter | None, known: Array32 | None, ids: Ids
) -> list[Neighbour]:
    """Return the k contexts whose best row is most similar to the vector; `known` is the rows' closeness, if it is."""
    if passing is not None and passing.listed is not None:
        rows = matrix.rows_of(passing.listed)
    else:
        closeness = matrix.closeness(vector) if known is None else known

        def fetch(size: int) -> Candidates:
            order = np.argpartition(closeness, len(closeness) - size)[-size:] if size < len(closeness) else None
            order = np.arange(len(closeness)) if order is None else order
            order = order[np.argsort(-closeness[order], kind="stable")]
            order = order[closeness[order] > -np.inf]
            lowest = float(closeness[order[-1]]) if len(order) else -np.inf
            if passing is not None:
                order = order[passing(matrix.context_keys[order])]
            contexts = matrix.context_keys[order]
            return Candidates(order, contexts, closeness[order], lowest, size >= len(closeness))

        margin = 2 * matrix.error(vector)
        rows = candidates(fetch, k, limit=len(closeness), margin=lambda last: margin)
    return best_rows(matrix.context_keys[rows], matrix.spans(rows), matrix.similarity(vector, rows), ids)[:k]


def best_rows(contexts: Keys, spans: Keys, similarities: Array64, ids: Ids) -> list[Neighbour]:
    """Return each context once, by its most similar row, of equal ones by its first chunk; ties by id.

    `spans` has position, start and end of each row, shape (n, 3).
    """
    best: dict[int, tuple[float, list[int]]] = {}
    for key, value, span in zip(contexts.tolist(), similarities.tolist(), spans.tolist(), strict=True):
        found = (-value, span)
        if key not in best or found < best[key]:
            best[key] = found
    names = ids(list(best))
    # A context that another process has just deleted has no name any more.
    ordered = sorted((value, names[key], span) for key, (value, span) in best.items() if key in names)
    return [Neighbour(name, -value, *span) for value, name, span in ordered]


def best_of_each(neighbours: Iterable[Neighbour]) -> list[Neighbour]:
    """Return each context once, by its best chunk, best first; ties by id."""
    best: dict[str, Neighbour] = {}
    for item in neighbours:
        other = best.get(item.context_id)
        if other is None or (-item.similarity, item.position) < (-other.similarity, other.position):
            best[item.context_id] = item
    return sorted(best.values(), key=lambda item: (-item.similarity, item.context_id))


def candidates(fetch: Callable[[int], Candidates], k: int, *, limit: int, margin: Callable[[float], float]) -> Any:
    """Return the keys that can be among the best of k contexts, or None if `limit` of them are too few.

    A context has several chunks, so the number to ask for is not known before: it doubles until k contexts are
    clear of the rest by `margin`, or all have been seen: engines order in float32, and whoever is that close to the
    last place is compared again in float64.
    """
    size = min(4 * k + 16, limit)
    while size:
        found = fetch(size)
        first_of_context = np.sort(np.unique(found.context_keys, return_index=True)[1])
        if len(first_of_context) >= k:
            last = float(found.closeness[first_of_context[k - 1]])
            floor = last - margin(last)
            if found.exhausted or found.lowest < floor:
                return found.keys[found.closeness >= floor]
        elif found.exhausted:
            return found.keys
        if size >= limit:
            return None
        size = min(2 * size, limit)
    return np.empty(0, dtype=np.int64)
