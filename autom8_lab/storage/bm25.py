"""Okapi BM25 as FTS5 computes it, over the contexts that have a word: what every back end's text search shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..records import TextMatch

K1, B = 1.2, 0.75  # those of FTS5's bm25()
KEPT_POSTINGS = 4_000_000
KEPT_PER_CONTEXT = 8
FIRST_LOOK = 256  # places that are looked at first where a filter may drop some
MANY_LEVEL = 4_096  # contexts level with the last place

Keys = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]
Passing = Callable[[Keys], npt.NDArray[np.bool_]]


class Scored(NamedTuple):
    """The contexts that have a term, by growing key, and what the term adds to the BM25 score of each."""

    keys: Keys
    scores: Scores


def kept_postings(contexts: int) -> int:
    """Return how many postings, of 24 bytes each, are kept in memory; a large table's frequent words fit in too.

    >>> kept_postings(100_000), kept_postings(1_000_000)
    (4000000, 8000000)
    """
    return max(KEPT_POSTINGS, KEPT_PER_CONTEXT * contexts)


def inverse_frequency(contexts: int, having: int) -> float:
    """Return BM25's weight of a word that so many of the contexts have, as FTS5 computes it."""
    # Another thread may have read more of a growing table than this one's version of it has.
    weight = math.log((max(contexts, having) - having + 0.5) / (having + 0.5))
    return weight if weight > 0 else 1e-6


def scored(keys: Keys, counts: Scores, lengths: Scores, *, contexts: int, average: float) -> Scored:
    """Return what a term adds to the scores of the contexts that have it so often, of so many words each."""
    norm = K1 * (1 - B + B * lengths / max(average, 1e-9))
    weight = inverse_frequency(contexts, len(keys))
    return Scored(keys, weight * (counts * (K1 + 1)) / (counts + norm))


def among(keys: Keys, wanted: Keys) -> npt.NDArray[np.bool_]:
    """Return which of the wanted are among growing keys."""
    if not len(keys):
        return np.zeros(len(wanted), dtype=bool)
    found: npt.NDArray[np.bool_] = keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] == wanted
    return found


def added_up(found: Sequence[Scored]) -> tuple[Keys, Scores]:
    """Return the contexts that have any of the terms, by growing key, and their scores."""
    if not found:
        return np.empty(0, dtype=np.int64), np.empty(0)
    last, postings = max(int(item.keys[-1]) for item in found), sum(len(item.keys) for item in found)
    sums: Scores
    if postings * 16 < last:  # a few of very many
        some, places = np.unique(np.concatenate([item.keys for item in found]), return_inverse=True)
        sums = np.bincount(places, weights=np.concatenate([item.scores for item in found])).astype(np.float64)
        return some, sums
    sums = np.zeros(last + 1)
    for item in found:
        sums[item.keys] += item.scores
    every: Keys = np.flatnonzero(sums)
    return every, sums[every]


def text_matches(
    found: Sequence[Scored],
    k: int,
    *,
    include: Sequence[str],
    passing: Passing | None,
    ids: Callable[[list[int]], Mapping[int, str]],
    keys_of: Callable[[list[str]], Mapping[str, int]],
    first_by_id: Callable[[Keys, int], Iterable[int]],
) -> list[TextMatch]:
    """Return what `Storage.match_text` does from what each term adds; for `first_by_id` see `best_of`."""
    keys, scores = added_up([item for item in found if len(item.keys)])
    best = best_of(keys, scores, k, passing=passing, ids=ids, first_by_id=first_by_id)
    ranked = [TextMatch(context_id, score, rank) for rank, (context_id, score) in enumerate(best, 1)]
    others = list(set(include) - {context_id for context_id, _ in best})
    if others and len(best) == k:
        wanted = np.array(sorted(keys_of(others).values()), dtype=np.int64)
        wanted = wanted[among(keys, wanted)]
        wanted = wanted if passing is None else wanted[passing(wanted)]
        names = ids(wanted.tolist()).values()
        worse = sorted(zip((-scores[np.searchsorted(keys, wanted)]).tolist(), names, strict=True))
        ranked += [TextMatch(context_id, -score, k + place) for place, (score, context_id) in enumerate(worse, 1)]
    return ranked


def terms_of(known: Mapping[str, int], found: Mapping[str, Scored]) -> dict[str, tuple[str, ...]]:
    """Return which of the terms each of these contexts has, given their keys and what each term adds."""
    wanted = np.array(list(known.values()), dtype=np.int64)
    there = [among(item.keys, wanted).tolist() for item in found.values()]
    return {
        context_id: tuple(term for term, has in zip(found, there, strict=True) if has[place])
        for place, context_id in enumerate(known)
    }


def best_of(
    keys: Keys,
    scores: Scores,
    k: int,
    *,
    passing: Passing | None,
    ids: Callable[[list[int]], Mapping[int, str]],
    first_by_id: Callable[[Keys, int], Iterable[int]],
) -> list[tuple[str, float]]:
    """Return id and score of the k best that pass the filter, best first, ties by id.

    `first_by_id` tells the first so many of these keys in the order of their ids.
    """
    size = k if passing is None else max(FIRST_LOOK, 2 * k)
    while True:
        size = min(size, len(keys))
        places = np.flatnonzero(scores >= _largest(scores, size))
        if passing is not None:
            places = places[passing(keys[places])]
        if len(places) >= k or size == len(keys):
            break
        size *= 8
    if len(places) - k > MANY_LEVEL:
        cut = _largest(scores[places], k)
        above, level = places[scores[places] > cut], keys[places[scores[places] == cut]]
        first = np.fromiter(first_by_id(level, k - len(above)), dtype=np.int64)
        places = np.concatenate([above, np.searchsorted(keys, first)])
    pairs = list(zip(keys[places].tolist(), scores[places].tolist(), strict=True))
    names = ids([key for key, _ in pairs])
    found = [(names[key], score) for key, score in pairs if key in names]
    return sorted(found, key=lambda item: (-item[1], item[0]))[:k]


def _largest(scores: Scores, n: int) -> float:
    return float(np.partition(scores, len(scores) - n)[len(scores) - n]) if n else np.inf
