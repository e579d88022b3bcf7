"""Full-text search in SQLite: FTS5 scores each word once, and NumPy adds the words up."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sqlite_utils import Database

from ..records import TextMatch
from .base import Where
from .sql import ContextFilter, context_filter
from .sqlite_names import ContextNames, Remember

FTS = "context_registry_fts"
INDEXED = ("content", "topic", "summary")
KEPT_POSTINGS = 4_000_000  # of 16 bytes each
SMALL_TABLE = 2_000  # contexts; in fewer of them even a word that all have is cheap
FIRST_LOOK = 256  # places that are looked at first where a filter may drop some
MANY_LEVEL = 4_096  # contexts level with the last place

Keys = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]


class Postings(NamedTuple):
    """The contexts that have a term, by growing key, and what the term adds to the BM25 score of each."""

    keys: Keys
    scores: Scores


@dataclass
class _Snapshot:
    """What has been read of one version of the text index."""

    version: object
    contexts: int
    frequencies: dict[str, int] = field(default_factory=dict)
    postings: OrderedDict[tuple[str, tuple[float, ...]], Postings] = field(default_factory=OrderedDict)
    kept: int = 0


class TextIndex:
    """Ranks contexts by BM25 as FTS5's `rank` does, without scoring a word's contexts anew for each query.

    BM25 is a sum over words. FTS5 scores each word once, as a query of one word; that is kept until the index
    changes, so that a query is a sum of a few arrays. Asked for all words at once, FTS5 would score every context
    that has any of them, which for common words is most of the table.
    """

    def __init__(self, remember: Remember) -> None:
        self._remember = remember
        self._snapshot = _Snapshot((), 0)
        self._lock = threading.Lock()

    def match(
        self,
        database: Database,
        terms: Sequence[str],
        *,
        k: int,
        where: Where,
        include: Sequence[str],
        columns: Mapping[str, Any],
        weights: Mapping[str, float],
        dirty: bool,
    ) -> list[TextMatch]:
        """See `Storage.match_text`; with `dirty` nothing is remembered, for it may be taken back."""
        snapshot = self._current(database, dirty=dirty)
        of_columns = tuple(weights.get(name, 1.0) for name in INDEXED)
        telling = self._telling(database, snapshot, terms)
        found = [self._postings(database, snapshot, term, of_columns) for term in telling]
        keys, scores = _added_up([item for item in found if len(item.keys)])
        passing = context_filter(database, where, columns)
        names: ContextNames = self._remember("names", ContextNames)
        best = _best(database, names, keys, scores, k, passing=passing)
        matches = [TextMatch(context_id, score, rank) for rank, (context_id, score) in enumerate(best, 1)]
        others = list(set(include) - {context_id for context_id, _ in best})
        if others and len(best) == k:
            known = names.keys(database, others)
            wanted = np.array(sorted(known.values()), dtype=np.int64)
            wanted = wanted[_among(keys, wanted)]
            wanted = wanted if passing is None else wanted[passing(wanted)]
            ids = names.ids(database, wanted.tolist()).values()
            worse = sorted(zip((-scores[np.searchsorted(keys, wanted)]).tolist(), ids, strict=True))
            matches += [TextMatch(context_id, -score, k + place) for place, (score, context_id) in enumerate(worse, 1)]
        return matches

    def matched_terms(
        self, database: Database, terms: Sequence[str], context_ids: Sequence[str], *, dirty: bool
    ) -> dict[str, tuple[str, ...]]:
        """See `Storage.matched_terms`."""
        snapshot = self._current(database, dirty=dirty)
        names: ContextNames = self._remember("names", ContextNames)
        known = names.keys(database, context_ids)
        wanted = np.array(list(known.values()), dtype=np.int64)
        telling = self._telling(database, snapshot, terms)
        there = [_among(self._postings(database, snapshot, term).keys, wanted).tolist() for term in telling]
        return {
            context_id: tuple(term for term, has in zip(telling, there, strict=True) if has[place])
            for place, context_id in enumerate(known)
        }

    def _current(self, database: Database, *, dirty: bool) -> _Snapshot:
        version = self._remember("text version", lambda: _version(database))
        with self._lock:
            if self._snapshot.version == version and not dirty:
                return self._snapshot
        count = database.execute("SELECT count(*) FROM context_registry").fetchone()[0]
        snapshot = _Snapshot(version, count)
        if not dirty:
            with self._lock:
                self._snapshot = snapshot
        return snapshot

    def _telling(self, database: Database, snapshot: _Snapshot, terms: Sequence[str]) -> Sequence[str]:
        """Leave out the words that more than half of a large table has, as long as another word is found.

        BM25 weighs a word by ln((N - n + 0.5) / (n + 0.5)); where that is below 0 FTS5 takes 0.000001: such a word
        orders nothing that another does not.
        """
        if snapshot.contexts < SMALL_TABLE or len(terms) < 2:
            return terms
        for term in terms:
            if term not in snapshot.frequencies:
                sql = f"SELECT count(*) FROM {FTS} WHERE {FTS} MATCH ?"
                snapshot.frequencies[term] = database.execute(sql, [_any_of([term])]).fetchone()[0]
        return [term for term in terms if 0 < snapshot.frequencies[term] <= snapshot.contexts / 2] or terms

    def _postings(
        self, database: Database, snapshot: _Snapshot, term: str, weights: tuple[float, ...] = (1.0,) * len(INDEXED)
    ) -> Postings:
        name = (term, weights)
        with self._lock:
            if name in snapshot.postings:
                snapshot.postings.move_to_end(name)
                return snapshot.postings[name]
        sql = f"SELECT rowid, -bm25({FTS}, {', '.join('?' * len(weights))}) FROM {FTS} WHERE {FTS} MATCH ?"
        rows = np.array(database.execute(sql, [*weights, _any_of([term])]).fetchall(), dtype=np.float64).reshape(-1, 2)
        rows = rows[rows[:, 1] > 0]  # a column may be weighted by 0
        postings = Postings(rows[:, 0].astype(np.int64), rows[:, 1].copy())
        # Someone may have written since the version was read: what was read then belongs to none.
        if _version(database) == snapshot.version:
            with self._lock:
                if name not in snapshot.postings:
                    snapshot.postings[name] = postings
                    snapshot.kept += len(rows)
                while snapshot.kept > KEPT_POSTINGS and len(snapshot.postings) > 1:
                    snapshot.kept -= len(snapshot.postings.popitem(last=False)[1].keys)
        return postings


def passages(database: Database, terms: Sequence[str], keys: Mapping[str, int]) -> dict[str, str]:
    """See `Storage.passages`; at most 64 words, which is FTS5's limit. `keys` by context id."""
    sql = f"SELECT snippet({FTS}, 0, '', '', '', 64) FROM {FTS} WHERE {FTS} MATCH ? AND rowid = ?"
    found = {
        context_id: database.conn.execute(sql, [_any_of(terms), key]).fetchone() for context_id, key in keys.items()
    }
    return {context_id: row[0] for context_id, row in found.items() if row is not None}


def _any_of(terms: Sequence[str]) -> str:
    # Quoted, a term is only ever text: no word of FTS5's query language is left in it.
    return " OR ".join('"' + term.replace('"', '""') + '"' for term in terms)


def _version(database: Database) -> object:
    # Row 1 of FTS5's own table counts contexts and words, row 10 lists its segments and counts the pages written.
    return database.execute(f"SELECT block FROM {FTS}_data WHERE id IN (1, 10)").fetchall()


def _among(keys: Keys, wanted: Keys) -> npt.NDArray[np.bool_]:
    """Return which of the wanted are among growing keys."""
    if not len(keys):
        return np.zeros(len(wanted), dtype=bool)
    found: npt.NDArray[np.bool_] = keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] == wanted
    return found


def _added_up(found: Sequence[Postings]) -> tuple[Keys, Scores]:
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


def _best(
    database: Database, names: ContextNames, keys: Keys, scores: Scores, k: int, *, passing: ContextFilter | None
) -> list[tuple[str, float]]:
    """Return id and score of the k best that pass the filter, best first, ties by id."""
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
        first = np.fromiter(_first_by_id(database, level, k - len(above)), dtype=np.int64)
        places = np.concatenate([above, np.searchsorted(keys, first)])
    pairs = list(zip(keys[places].tolist(), scores[places].tolist(), strict=True))
    ids = names.ids(database, [key for key, _ in pairs])
    found = [(ids[key], score) for key, score in pairs if key in ids]
    return sorted(found, key=lambda item: (-item[1], item[0]))[:k]


def _largest(scores: Scores, n: int) -> float:
    return float(np.partition(scores, len(scores) - n)[len(scores) - n]) if n else np.inf


def _first_by_id(database: Database, level: Keys, n: int) -> Iterable[int]:
    # Of so many the first ones turn up early in the index of ids.
    for (key,) in database.execute("SELECT context_key FROM context_registry ORDER BY id"):
        if n == 0:
            return
        place = int(np.searchsorted(level, key))
        if place < len(level) and level[place] == key:
            n -= 1
            yield key
