"""Text search on PostgreSQL: `tsvector` and GIN find who has a word, BM25 scores it.

PostgreSQL's own `ts_rank` knows no document frequency. What a word adds to the score is computed from its postings,
which are read once and then follow what changes.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..forking import new_lock
from ..records import TextMatch
from .base import Where
from .bm25 import K1, B, Keys, Scored, Scores, inverse_frequency, kept_postings, scored, terms_of, text_matches
from .names import ContextNames, Remember
from .postgres_driver import Connection
from .postgres_names import context_filter, no_names

COLUMNS = {"content": "a", "topic": "b", "summary": "c"}  # and the weight that its words have in the tsvector
SMALL_TABLE = 2_000  # contexts; in fewer of them even a word that all have is cheap
LIKELY_COMMON = 0.4  # of the contexts, by the server's statistics: such a word is counted before it is read
PHRASE_WORDS = 64  # of a term that is a whole text; the server looks at them by recursion
MANY_CHANGES = 20_000  # after so many everything is read anew
POSTING = np.dtype([("key", ">i8"), ("count", ">f4"), ("length", ">i8"), ("often", ">i8")])
# With all weights 1 each place of a word, or of words in a row, adds 1 to ts_rank_cd: it counts them.
COUNTED = "ts_rank_cd('{1,1,1,1}', words, %s::tsquery)"


class Postings(NamedTuple):
    """The contexts that have a term, by growing key, how often, and how many words they have."""

    keys: Keys
    counts: Scores
    lengths: Scores


@dataclass
class _State:
    """What is known of the table: its size, and which contexts changed since the first look, in batches."""

    xmin: int
    seen: set[int]
    contexts: int
    words: int
    changes: list[Keys] = field(default_factory=list)
    postings: OrderedDict[str, tuple[Postings, int]] = field(default_factory=OrderedDict)
    scored: dict[tuple[str, tuple[float, ...]], Scored] = field(default_factory=dict)
    frequencies: dict[str, tuple[int, int]] = field(default_factory=dict)
    common: set[str] | None = None
    kept: int = 0


class PostgresText:
    """Ranks contexts by BM25 as SQLite's FTS5 does, with the words split and stemmed in the same way."""

    def __init__(self, remember: Remember) -> None:
        self._remember = remember
        self._state: _State | None = None
        self._queries: dict[str, str] = {}
        self._lock = new_lock()

    def match(
        self,
        connection: Connection,
        terms: Sequence[str],
        *,
        k: int,
        where: Where,
        include: Sequence[str],
        columns: Mapping[str, str],
        weights: Mapping[str, float],
        dirty: bool,
    ) -> list[TextMatch]:
        """See `Storage.match_text`; with `dirty` nothing is remembered, for it may be taken back."""
        with self._lock:
            state = self._current(connection, dirty=dirty)
            of_columns = tuple(weights.get(name, 1.0) for name in COLUMNS)
            telling = self._telling(connection, state, terms)
            found = [self._scored(connection, state, term, of_columns) for term in telling]
        names: ContextNames[Connection] = self._remember("names", no_names)
        return text_matches(
            found,
            k,
            include=include,
            passing=context_filter(connection, where, columns),
            ids=lambda wanted: names.ids(connection, wanted),
            keys_of=lambda wanted: names.keys(connection, wanted),
            first_by_id=lambda level, n: _first_by_id(connection, level, n),
        )

    def matched_terms(
        self, connection: Connection, terms: Sequence[str], context_ids: Sequence[str], *, dirty: bool
    ) -> dict[str, tuple[str, ...]]:
        """See `Storage.matched_terms`."""
        names: ContextNames[Connection] = self._remember("names", no_names)
        known = names.keys(connection, context_ids)
        with self._lock:
            state = self._current(connection, dirty=dirty)
            telling = self._telling(connection, state, terms)
            return terms_of(known, {term: self._scored(connection, state, term) for term in telling})

    # What the table is like now

    def _current(self, connection: Connection, *, dirty: bool) -> _State:
        if dirty:
            return _look(connection)
        state: _State = self._remember("text state", lambda: self._followed(connection))
        return state

    def _followed(self, connection: Connection) -> _State:
        old = self._state
        if old is None or sum(map(len, old.changes)) > MANY_CHANGES:
            self._state = _look(connection)
            return self._state
        rows = connection.execute(
            "SELECT change_key, context_key, contexts, words, xact >= pg_snapshot_xmin(pg_current_snapshot()),"
            " pg_snapshot_xmin(pg_current_snapshot())::text FROM text_changes WHERE xact >= %s::text::xid8"
            " UNION ALL SELECT 0, 0, 0, 0, false, pg_snapshot_xmin(pg_current_snapshot())::text",
            [str(old.xmin)],
        ).fetchall()
        new = [row for row in rows if row[0] and row[0] not in old.seen]
        old.xmin = int(rows[-1][5])
        old.seen = {row[0] for row in rows if row[4]}
        if new:
            old.contexts += sum(row[2] for row in new)
            old.words += sum(row[3] for row in new)
            old.changes.append(np.unique(np.array([row[1] for row in new], dtype=np.int64)))
            old.scored.clear()
        return old

    # Words

    def _query(self, connection: Connection, term: str) -> str:
        """Return the lexemes of a term as a tsquery: several in a row where it has several words."""
        if term not in self._queries:
            sql = "SELECT phraseto_tsquery('autom8_words', autom8_plain(%s))::text"
            if len(self._queries) > 100_000:
                self._queries.clear()
            words = _WORD.findall(term)
            asked = term if len(words) <= PHRASE_WORDS else " ".join(words[:PHRASE_WORDS])
            self._queries[term] = connection.execute(sql, [asked]).fetchall()[0][0]
        return self._queries[term]

    def _telling(self, connection: Connection, state: _State, terms: Sequence[str]) -> Sequence[str]:
        """Leave out the words that more than half of a large table has, as SQLite's back end does."""
        if state.contexts < SMALL_TABLE or len(terms) < 2:
            return terms
        for term in terms:
            if state.frequencies.get(term, (0, 0))[1] * 1.1 < state.contexts or not state.frequencies[term][0]:
                state.frequencies[term] = self._frequency(connection, state, term), state.contexts
        return [term for term in terms if 0 < state.frequencies[term][0] <= state.contexts / 2] or terms

    def _frequency(self, connection: Connection, state: _State, term: str) -> int:
        """Return how many contexts have a term: its postings tell, which a search reads anyway unless it is common."""
        if state.common is None:
            state.common = _likely_common(connection)
        query = self._query(connection, term)
        if term in state.postings or query.strip("'") not in state.common:
            return len(self._postings(connection, state, term).keys)
        sql = "SELECT count(*) FROM context_registry WHERE words @@ %s::tsquery"
        return int(connection.execute(sql, [query]).fetchall()[0][0])

    def _scored(
        self, connection: Connection, state: _State, term: str, weights: tuple[float, ...] = (1.0,) * len(COLUMNS)
    ) -> Scored:
        name = (term, weights)
        if name not in state.scored:
            average = state.words / max(state.contexts, 1)
            if any(weight != 1 for weight in weights):
                found = self._weighted(connection, term, weights, contexts=state.contexts, average=average)
            else:
                found = scored(*self._postings(connection, state, term), contexts=state.contexts, average=average)
            if len(state.scored) * 2 > kept_postings(state.contexts) // max(len(found.keys), 1):
                state.scored.clear()
            state.scored[name] = found
        return state.scored[name]

    def _postings(self, connection: Connection, state: _State, term: str) -> Postings:
        query = self._query(connection, term)
        known, at = state.postings.get(term, (None, 0))
        if known is None:
            postings = _read(connection, query)
        elif at == len(state.changes):
            state.postings.move_to_end(term)
            return known
        else:
            changed = np.unique(np.concatenate(state.changes[at:]))
            kept = ~np.isin(known.keys, changed)
            fresh = _read(connection, query, among_keys=changed)
            parts = [np.concatenate([old[kept], new]) for old, new in zip(known, fresh, strict=True)]
            order = np.argsort(parts[0])
            postings = Postings(*(part[order] for part in parts))
            state.kept -= len(known.keys)
        state.postings[term] = postings, len(state.changes)
        state.kept += len(postings.keys)
        while state.kept > kept_postings(state.contexts) and len(state.postings) > 1:
            state.kept -= len(state.postings.popitem(last=False)[1][0].keys)
        return postings

    def _weighted(
        self, connection: Connection, term: str, weights: tuple[float, ...], *, contexts: int, average: float
    ) -> Scored:
        """Score a term whose columns count differently, as FTS5's bm25() with weights does."""
        query = self._query(connection, term)
        parts = {letter: _read(connection, query, letter=letter) for letter in COLUMNS.values()}
        first = parts["a"]
        counts = sum(weight * part.counts for weight, part in zip(weights, parts.values(), strict=True))
        having = len(first.keys)
        norm = K1 * (1 - B + B * first.lengths / max(average, 1e-9))
        scores = inverse_frequency(contexts, having) * (counts * (K1 + 1)) / np.maximum(counts + norm, 1e-12)
        there = scores > 0  # a column may be weighted by 0
        return Scored(first.keys[there], scores[there])


def _first_by_id(connection: Connection, level: Keys, n: int) -> Iterable[int]:
    sql = "SELECT context_key FROM context_registry WHERE context_key = ANY(%s) ORDER BY id LIMIT %s"
    return [row[0] for row in connection.execute(sql, [level.tolist(), n])]


def _look(connection: Connection) -> _State:
    row = connection.execute(
        "SELECT pg_snapshot_xmin(pg_current_snapshot())::text, count(*), coalesce(sum(word_count), 0)::bigint,"
        " (SELECT array_agg(change_key) FROM text_changes WHERE xact >= pg_snapshot_xmin(pg_current_snapshot()))"
        " FROM context_registry"
    ).fetchall()[0]
    return _State(xmin=int(row[0]), contexts=row[1], words=row[2], seen=set(row[3] or ()))


def _likely_common(connection: Connection) -> set[str]:
    """Return the lexemes that the last ANALYZE saw in many contexts; none where there was no such."""
    sql = (
        "SELECT word FROM pg_stats, unnest(most_common_elems::text::text[], most_common_elem_freqs) e(word, share)"
        " WHERE schemaname = current_schema() AND tablename = 'context_registry' AND attname = 'words' AND share > %s"
    )
    return {row[0] for row in connection.execute(sql, [LIKELY_COMMON]) if row[0] is not None}


def _read(connection: Connection, query: str, *, among_keys: Keys | None = None, letter: str | None = None) -> Postings:
    """Read the postings of a tsquery, of all contexts or of those with these keys; counted in one column or in all."""
    if not query:
        return Postings(np.empty(0, dtype=np.int64), np.empty(0), np.empty(0))
    lexemes = re.findall(r"'((?:[^']|'')*)'", query)
    # Only of the content a word can be there more often than a tsvector counts.
    counted_beside = letter in (None, "a") and len(lexemes) == 1
    often = "coalesce((frequent ->> %s)::bigint, 0)" if counted_beside else "0::bigint"
    only = "" if among_keys is None else " AND context_key = ANY(%s)"
    sql = (
        f"SELECT string_agg(int8send(context_key) || float4send({COUNTED}) || int8send(word_count) ||"
        f" int8send({often}), '') FROM context_registry WHERE words @@ %s::tsquery{only}"
    ).encode()
    given: list[Any] = [_asked(lexemes, letter)]
    if counted_beside:
        given.append(lexemes[0].replace("''", "'"))
    given.append(_asked(lexemes, None))
    if among_keys is not None:
        given.append(among_keys.tolist())
    with connection.cursor(binary=True) as cursor:
        packed = cursor.execute(sql, given).fetchall()[0][0]
    rows = np.frombuffer(packed or b"", dtype=POSTING)
    rows = rows[np.argsort(rows["key"], kind="stable")]
    counts = np.maximum(rows["count"].astype(np.float64), rows["often"])
    if letter is None:
        counts = np.maximum(counts, 1)  # in a book the places are not kept
    return Postings(rows["key"].astype(np.int64), counts, rows["length"].astype(np.float64))


def _asked(lexemes: Sequence[str], letter: str | None) -> str:
    """Return a tsquery for lexemes in a row, in one column or in any, but not from the end of one into the next."""
    if letter is None and len(lexemes) == 1:
        return f"'{lexemes[0]}'"
    letters = COLUMNS.values() if letter is None else letter
    return " | ".join("(" + " <-> ".join(f"'{lexeme}':{one}" for lexeme in lexemes) + ")" for one in letters)


# Passages

PASSAGE_WORDS = 64
_WORD = re.compile(r"[^\W_]+")


def passages(connection: Connection, terms: Sequence[str], contents: Mapping[str, str]) -> dict[str, str]:
    """Return for each text that has one of the terms the 64 words with most of them; texts by context id."""
    found = {}
    wanted = _stems(connection, {word for term in terms for word in _words_of(term)})
    places = {context_id: list(_WORD.finditer(text)) for context_id, text in contents.items()}
    stems = _stems(connection, {match.group() for matches in places.values() for match in matches})
    asked = set(wanted.values())
    for context_id, matches in places.items():
        hits = [(place, stems[match.group()]) for place, match in enumerate(matches) if stems[match.group()] in asked]
        if hits:
            text, first = contents[context_id], _best_window(hits, len(matches))
            last = min(first + PASSAGE_WORDS, len(matches)) - 1
            start = 0 if first == 0 else matches[first].start()
            end = len(text) if last == len(matches) - 1 else matches[last].end()
            found[context_id] = text[start:end]
    return found


def _words_of(term: str) -> list[str]:
    return _WORD.findall(term)


def _stems(connection: Connection, words: Iterable[str]) -> dict[str, str]:
    given = sorted(words)
    sql = (
        "SELECT w, (ts_lexize('autom8_porter', btrim(autom8_plain(w))))[1] FROM unnest(%s::text[]) w"
        " WHERE octet_length(w) < 2000"
    )
    rows = dict(connection.execute(sql, [given]).fetchall())
    return {word: rows.get(word) or word for word in given}


def _best_window(hits: Sequence[tuple[int, str]], count: int) -> int:
    """Return where the window begins that has most different words, then most words; FTS5 scores 1,000 and 1."""
    best, begin = (-1.0, 0), 0
    for place, _ in hits:
        inside = [hit for hit in hits if place <= hit[0] < place + PASSAGE_WORDS]
        score = 999 * len({stem for _, stem in inside}) + len(inside)
        if score > best[0]:
            spare = PASSAGE_WORDS - (inside[-1][0] - place + 1)
            best = (score, place)
            begin = max(0, min(place - spare // 2, count - PASSAGE_WORDS))
    return begin
