"""Full-text search in SQLite: FTS5 scores each word once, and NumPy adds the words up."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sqlite_utils import Database
from sqlite_utils.utils import sqlite3

from ..forking import new_lock
from ..records import TextMatch
from .base import Where
from .bm25 import K1, B, Keys, Scored, Scores, inverse_frequency, kept_postings, scored, terms_of, text_matches
from .names import Remember
from .sql import context_filter
from .sqlite_names import KeptNames

FTS = "context_registry_fts"
INDEXED = ("content", "topic", "summary")
SMALL_TABLE = 2_000  # contexts; in fewer of them even a word that all have is cheap


@dataclass(frozen=True)
class Postings:
    """The contexts that have a term, how often, and how many words they have; read up to a context key."""

    keys: Keys
    counts: Scores
    lengths: Scores
    last_key: int

    def scored(self, table: Table) -> Scored:
        """Return what the term adds to the scores: Okapi BM25 as FTS5 computes it."""
        return scored(self.keys, self.counts, self.lengths, contexts=table.contexts, average=table.average_length)


class Table(NamedTuple):
    """What BM25 knows of the whole table, and which version of it: `changes` are all but additions."""

    changes: int
    last_key: int
    contexts: int
    average_length: float


@dataclass
class _Snapshot:
    """What has been read of one version of the text index; the postings go on to the next where it only grew."""

    table: Table
    frequencies: dict[str, tuple[int, int]] = field(default_factory=dict)
    postings: OrderedDict[str, Postings] = field(default_factory=OrderedDict)
    scored: dict[tuple[str, tuple[float, ...]], Scored] = field(default_factory=dict)
    kept: int = 0


class TextIndex:
    """Ranks contexts by BM25 as FTS5's `rank` does, without reading a word's postings anew for each query.

    BM25 is a sum over words. What a word adds is computed from its postings, which are read once and then only
    continued with the contexts that are new. Asked for all words at once, FTS5 would score every context that has
    any of them, each time; for common words that is most of the table.
    """

    def __init__(self, remember: Remember, names: KeptNames) -> None:
        self._remember = remember
        self._names = names
        self._snapshot = _Snapshot(Table(-1, -1, 0, 0.0))
        self._lock = new_lock()

    def forget(self) -> None:
        """Drop what is in memory, because the file is another one now."""
        with self._lock:
            self._snapshot = _Snapshot(Table(-1, -1, 0, 0.0))

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
        found = [self._scored(database, snapshot, term, of_columns) for term in telling]
        names = self._names(database, dirty=dirty)
        return text_matches(
            found,
            k,
            include=include,
            passing=context_filter(database, where, columns),
            ids=lambda wanted: names.ids(database, wanted),
            keys_of=lambda wanted: names.keys(database, wanted),
            first_by_id=lambda level, n: _first_by_id(database, level, n),
        )

    def matched_terms(
        self, database: Database, terms: Sequence[str], context_ids: Sequence[str], *, dirty: bool
    ) -> dict[str, tuple[str, ...]]:
        """See `Storage.matched_terms`."""
        snapshot = self._current(database, dirty=dirty)
        known = self._names(database, dirty=dirty).keys(database, context_ids)
        telling = self._telling(database, snapshot, terms)
        return terms_of(known, {term: self._scored(database, snapshot, term) for term in telling})

    def _current(self, database: Database, *, dirty: bool) -> _Snapshot:
        table: Table = self._remember("text table", lambda: _table(database))
        if dirty:
            return _Snapshot(table)
        with self._lock:
            old = self._snapshot
            if old.table != table:
                grown = old.table.changes == table.changes and old.table.last_key <= table.last_key
                self._snapshot = (
                    _Snapshot(table, old.frequencies, old.postings, kept=old.kept) if grown else _Snapshot(table)
                )
            return self._snapshot

    def _telling(self, database: Database, snapshot: _Snapshot, terms: Sequence[str]) -> Sequence[str]:
        """Leave out the words that more than half of a large table has, as long as another word is found.

        BM25 weighs a word by ln((N - n + 0.5) / (n + 0.5)); where that is below 0 FTS5 takes 0.000001: such a word
        orders nothing that another does not.
        """
        contexts = snapshot.table.contexts
        if contexts < SMALL_TABLE or len(terms) < 2:
            return terms
        for term in terms:
            # Counted again when the table has grown by a tenth, or when the word was in none.
            if snapshot.frequencies.get(term, (0, 0))[1] * 1.1 < contexts or not snapshot.frequencies[term][0]:
                sql = f"SELECT count(*) FROM {FTS} WHERE {FTS} MATCH ?"
                count = database.conn.execute(sql, [_any_of([term])]).fetchone()[0]
                snapshot.frequencies[term] = count, contexts
        return [term for term in terms if 0 < snapshot.frequencies[term][0] <= contexts / 2] or terms

    def _scored(
        self, database: Database, snapshot: _Snapshot, term: str, weights: tuple[float, ...] = (1.0,) * len(INDEXED)
    ) -> Scored:
        name = (term, weights)
        if name not in snapshot.scored:
            if any(weight != 1 for weight in weights):
                scored = _weighted(database, term, weights)
            else:
                scored = self._postings(database, snapshot, term).scored(snapshot.table)
            if len(snapshot.scored) * 2 > kept_postings(snapshot.table.contexts) // max(len(scored.keys), 1):
                snapshot.scored.clear()
            snapshot.scored[name] = scored
        return snapshot.scored[name]

    def _postings(self, database: Database, snapshot: _Snapshot, term: str) -> Postings:
        with self._lock:
            known = snapshot.postings.get(term)
            if known is not None:
                snapshot.postings.move_to_end(term)
        if known is not None and known.last_key >= snapshot.table.last_key:
            return known
        postings = _read(database, term, snapshot.table, known)
        # Someone may have written since the version was read: what was read then belongs to none.
        if _table(database).changes == snapshot.table.changes:
            with self._lock:
                snapshot.postings[term] = postings
                snapshot.kept += len(postings.keys) - (len(known.keys) if known else 0)
                while snapshot.kept > kept_postings(snapshot.table.contexts) and len(snapshot.postings) > 1:
                    snapshot.kept -= len(snapshot.postings.popitem(last=False)[1].keys)
        return postings


def _table(database: Database) -> Table:
    sql = (
        "SELECT (SELECT state FROM index_state WHERE name = 'text'), (SELECT max(context_key) FROM context_registry),"
        f" (SELECT block FROM {FTS}_data WHERE id = 1)"
    )
    changes, last_key, averages = database.conn.execute(sql).fetchone()
    # FTS5's record of averages: the number of rows, and the words in each column, as varints.
    contexts, *words = _varints(averages or b"\0").tolist()
    return Table(int(changes), last_key or 0, contexts, sum(words) / max(contexts, 1))


def _varints(blob: bytes) -> npt.NDArray[np.int64]:
    """Return the numbers of a row of SQLite's varints: seven bits a byte, the highest bit says that more follow."""
    data = np.frombuffer(blob, dtype=np.uint8)
    last = np.flatnonzero(data < 0x80)
    places = np.arange(len(data))
    to_the_end = last[np.searchsorted(last, places)] - places
    parts = (data & 0x7F).astype(np.int64) << 7 * to_the_end
    numbers: npt.NDArray[np.int64] = np.add.reduceat(parts, np.concatenate([[0], last[:-1] + 1]))
    return numbers


def _read(database: Database, term: str, table: Table, known: Postings | None) -> Postings:
    """Read a term's postings, or those that came after the known ones.

    FTS5 tells a score, not how often the word is there; that follows from the score, for the rest of the formula is
    known.
    """
    after = known.last_key if known else -1
    rows = database.conn.execute(
        f"SELECT {FTS}.rowid, -bm25({FTS}), s.sz FROM {FTS} JOIN {FTS}_docsize s ON s.id = {FTS}.rowid"
        f" WHERE {FTS} MATCH ? AND {FTS}.rowid > ? AND {FTS}.rowid <= ?",
        [_any_of([term]), after, table.last_key],
    ).fetchall()
    found, told, sizes = zip(*rows, strict=True) if rows else ((), (), ())
    keys, scores = np.array(found, dtype=np.int64), np.array(told, dtype=np.float64)
    # Each row has the number of words in each indexed column.
    counted = _varints(b"".join(sizes)).reshape(len(rows), -1) if rows else np.zeros((0, 1), dtype=np.int64)
    lengths = counted.sum(axis=1).astype(np.float64)
    weight = inverse_frequency(table.contexts, len(rows) + (len(known.keys) if known else 0))
    norm = K1 * (1 - B + B * lengths / max(table.average_length, 1e-9))
    counts = np.maximum(np.rint(scores * norm / np.maximum(weight * (K1 + 1) - scores, 1e-12)), 1)
    if known is not None:
        keys, counts = np.concatenate([known.keys, keys]), np.concatenate([known.counts, counts])
        lengths = np.concatenate([known.lengths, lengths])
    return Postings(keys, counts, lengths, table.last_key)


def _weighted(database: Database, term: str, weights: tuple[float, ...]) -> Scored:
    """Ask FTS5 what a term adds where its columns count differently."""
    sql = f"SELECT rowid, -bm25({FTS}, {', '.join('?' * len(weights))}) FROM {FTS} WHERE {FTS} MATCH ?"
    rows = database.conn.execute(sql, [*weights, _any_of([term])]).fetchall()
    table = np.array(rows, dtype=np.float64).reshape(-1, 2)
    table = table[table[:, 1] > 0]  # a column may be weighted by 0
    return Scored(table[:, 0].astype(np.int64), table[:, 1].copy())


def passages(database: Database, terms: Sequence[str], keys: Mapping[str, int]) -> dict[str, str]:
    """See `Storage.passages`; at most 64 words, which is FTS5's limit. `keys` by context id."""
    sql = f"SELECT snippet({FTS}, 0, '', '', '', 64) FROM {FTS} WHERE {FTS} MATCH ? AND rowid = ?"
    found = {
        context_id: database.conn.execute(sql, [_any_of(terms), key]).fetchone() for context_id, key in keys.items()
    }
    return {context_id: row[0] for context_id, row in found.items() if row is not None}


def renew(database: Database) -> None:
    """Let a connection read the text index anew, before SQLite checks it.

    SQLite's own checks go by what the connection remembers of the index, and call it damaged where another connection
    has merged its segments since (3.53.4); a query makes it look again.
    """
    with suppress(sqlite3.Error):  # an index that cannot be read is what the check will say
        database.execute(f"SELECT rowid FROM {FTS}('a') LIMIT 1").fetchone()


def _any_of(terms: Sequence[str]) -> str:
    # Quoted, a term is only ever text: no word of FTS5's query language is left in it.
    return " OR ".join('"' + term.replace('"', '""') + '"' for term in terms)


def _first_by_id(database: Database, level: Keys, n: int) -> Iterable[int]:
    # Of so many the first ones turn up early in the index of ids.
    for (key,) in database.execute("SELECT context_key FROM context_registry ORDER BY id"):
        if n == 0:
            return
        place = int(np.searchsorted(level, key))
        if place < len(level) and level[place] == key:
            n -= 1
            yield key
