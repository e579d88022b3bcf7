"""Vectors in SQLite: BLOBs are the truth; a matrix in memory, `vec_embeddings` and an HNSW index are derived from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sqlite_utils import Database

from ..errors import ContextNotFound
from ..forking import new_lock
from ..records import Chunk, Condition, EmbeddingSet, Metric, Nearest, Neighbour, VectorEngine
from ..vectors.exact import SPARE, VectorMatrix
from ..vectors.similarity import Array32, checked, similarity
from .base import Where
from .checksums import COLUMN, Seal
from .exactly import Candidates, best_of_each, best_rows, candidates, nearest_rows
from .filters import ContextFilter
from .hnsw_file import ENOUGH_RECALL, HnswFile, Read, Ready
from .names import ContextNames, Remember
from .sql import context_filter, where_clause
from .sqlite_chunks import Position, caught_up, current_position
from .sqlite_names import KeptNames
from .sqlite_vec import VEC_LIMIT, VecTable

EMBEDDING = ("chunk_hash", "model_id", "dimensions", "vector")
# The insertion itself finds the context's key and that the set is as it was: a single text is stored in the time of a
# few statements. A set that is another by now makes a NULL, which is ignored, and counted as a row that is missing.
ADD_CHUNK = """
    INSERT OR IGNORE INTO context_chunks (set_key, context_key, position, start_char, end_char, chunk_hash) VALUES (
        (SELECT set_key FROM embedding_sets WHERE set_key = ? AND model_id = ? AND state = ?
            AND chunk_tokens = ? AND chunk_overlap_tokens = ?),
        (SELECT context_key FROM context_registry WHERE id = ?),
        ?, ?, ?, ?
    )
"""
_as_known = attrgetter("set_key", "model_id", "state", "chunk_tokens", "chunk_overlap_tokens")
PATIENCE = 3  # searches of a process before it builds an index in the background
FEW_CHUNKS = 20_000  # the matrix of so many is read in the time of two or three searches by sqlite-vec
HNSW_LIMIT = 4_096
PRODUCT_ROWS = 64  # questions compared with all vectors in one product


class Choice(NamedTuple):
    """Which engine answers and why, the HNSW index if there is one, and whether building one could help."""

    engine: str
    reason: str
    ready: Ready | None = None
    improvable: bool = False


class Seen(NamedTuple):
    """What a search goes by: how far the chunks of a set are, and what the contexts are called."""

    now: Position
    names: ContextNames[Database]


NO_CHUNKS = Position(0, 0, 0)


class SQLiteVectors:
    """Stores vectors and finds the nearest with the engine that fits, exactly or as good as exactly."""

    def __init__(
        self,
        *,
        metric: Metric,
        engine: VectorEngine,
        hnsw_from_chunks: int,
        index_beside: Path | None,
        read: Read,
        remember: Remember,
        names: KeptNames,
    ) -> None:
        self.metric = metric
        self.engine = engine
        self.vec = VecTable(metric=metric)
        self.hnsw = HnswFile(index_beside, metric=metric) if index_beside else None
        self._hnsw_from_chunks = hnsw_from_chunks
        self._read = read
        self._remember = remember
        self._names = names
        self._matrix: VectorMatrix | None = None
        self._matrix_position = NO_CHUNKS
        self._lock = new_lock()
        self._searches = 0

    def forget(self) -> None:
        """Drop what is in memory, because the file is another one now."""
        with self._lock:
            self._matrix, self._matrix_position = None, NO_CHUNKS
        if self.hnsw is not None:
            self.hnsw.forget()

    # Choosing

    def choose(self, database: Database, now: Position, *, dirty: bool = False) -> Choice:
        """Return the engine that answers a search when the chunks are this far, and why that one."""
        if self.engine == "exact":
            return Choice("exact", "asked for")
        if self.engine == "sqlite-vec":
            missing = self.vec.unusable()
            return Choice("exact", missing) if missing else Choice("sqlite-vec", "asked for")
        if dirty:
            return Choice("exact", "inside a transaction")
        # An estimate that costs nothing: deleted chunks of other sets are taken off too.
        chunks = max(now.chunk_key - now.deletion_key, 0)
        if self.engine == "auto" and chunks < self._hnsw_from_chunks:
            return Choice("exact", f"fewer than {self._hnsw_from_chunks:,} chunks")
        ready = self.hnsw.ready(database, now) if self.hnsw and now.chunk_key else None
        recall = ready.facts["recall_at_10"] if ready else 0.0
        if ready and recall >= ENOUGH_RECALL:
            reason = "asked for" if self.engine == "hnsw" else f"{chunks:,} chunks"
            return Choice("hnsw", f"{reason}, recall@10 {recall:.3f}", ready, improvable=True)
        reason = self._why_not_hnsw(ready)
        worth_it = chunks >= FEW_CHUNKS and not self._is_warm(now) and self.vec.unusable() is None
        if worth_it and self.vec.position(database).covers(now):
            return Choice("sqlite-vec", f"{reason}; the vectors are not in memory", ready, improvable=True)
        return Choice("exact", reason, ready, improvable=True)

    def _why_not_hnsw(self, ready: Ready | None) -> str:
        if self.hnsw is None:
            return "a lab that is in memory or read-only gets no HNSW index"
        if self.hnsw.building:
            return "the HNSW index is being built"
        if ready is not None:
            return f"the HNSW index has recall@10 {ready.facts['recall_at_10']:.3f}, below {ENOUGH_RECALL}"
        return self.hnsw.problem or "there is no HNSW index yet"

    def _is_warm(self, now: Position) -> bool:
        return self._matrix is not None and self._matrix_position.set_key == now.set_key

    def _improve(self, choice: Choice, set_key: int) -> None:
        """Have an index built or renewed in the background where searches would gain by it."""
        if self.hnsw is None or not choice.improvable:
            return
        self._searches += 1
        if self._searches >= PATIENCE and (choice.ready is None or choice.ready.worth_merging):
            self.hnsw.build_in_background(self._read, set_key)

    # Writing

    def put_chunks(
        self,
        database: Database,
        chunks: Mapping[str, Sequence[Chunk]],
        *,
        set_key: int | None,
        vectors: Mapping[str, Array32],
        content_changed: bool,
        seal: Seal | None,
    ) -> None:
        """See `Storage.put_chunks`."""
        connection = database.conn
        keys, old, of_set = _there(database, list(chunks), set_key)
        if missing := next((context_id for context_id in chunks if context_id not in keys), None):
            raise ContextNotFound(f"no context {missing!r} to put chunks to")
        if set_key is not None:
            if vectors:
                self._put_vectors(database, vectors, *of_set, seal=seal)
            new = {
                (keys[context_id], chunk.position, chunk.start, chunk.end, chunk.chunk_hash)
                for context_id, items in chunks.items()
                for chunk in items
            }
            connection.executemany(
                "INSERT INTO context_chunks (set_key, context_key, position, start_char, end_char, chunk_hash)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                [(set_key, *row) for row in sorted(new - old.keys())],
            )
            # Deleted after the new ones are in, so that a vector both share is never an orphan.
            if gone := [(key,) for row, key in old.items() if row not in new]:
                connection.executemany("DELETE FROM context_chunks WHERE chunk_key = ?", gone)
        if content_changed:
            connection.executemany(
                "DELETE FROM context_chunks WHERE context_key = ? AND set_key IS NOT ?",
                [(key, set_key) for key in keys.values()],
            )

    def add_chunks(
        self,
        database: Database,
        chunks: Mapping[str, Sequence[Chunk]],
        *,
        into: EmbeddingSet,
        vectors: Mapping[str, Array32],
        seal: Seal | None,
    ) -> bool:
        """See `Storage.add_chunks`."""
        known = _as_known(into)
        rows = [
            (*known, context_id, chunk.position, chunk.start, chunk.end, chunk.chunk_hash)
            for context_id, items in chunks.items()
            for chunk in items
        ]
        if not rows:
            return True
        self._put_vectors(database, vectors, into.model_id, into.dimensions, seal=seal)
        return database.conn.executemany(ADD_CHUNK, rows).rowcount == len(rows)

    @staticmethod
    def _put_vectors(
        database: Database, vectors: Mapping[str, Array32], model_id: str, dimensions: int, *, seal: Seal | None
    ) -> None:
        checked_rows = checked(list(vectors.values()), dimensions=dimensions)
        rows = [(name, model_id, dimensions, row.tobytes()) for name, row in zip(vectors, checked_rows, strict=True)]
        checksums = [None] * len(rows) if seal is None else seal.of_rows(EMBEDDING, rows)
        database.conn.executemany(
            f"INSERT OR IGNORE INTO embeddings ({', '.join(EMBEDDING)}, {COLUMN}) VALUES (?, ?, ?, ?, ?)",
            [(*row, checksum) for row, checksum in zip(rows, checksums, strict=True)],
        )

    def known_vectors(self, database: Database, model_id: str, chunk_hashes: Sequence[str]) -> dict[str, Array32]:
        """See `Storage.known_vectors`."""
        wanted = [Condition("model_id", "=", model_id), Condition("chunk_hash", "in", chunk_hashes)]
        filters, parameters = where_clause(wanted, dict.fromkeys(EMBEDDING))
        rows = database.conn.execute(f"SELECT chunk_hash, vector FROM embeddings{filters}", parameters)
        return {name: np.frombuffer(vector, dtype=np.float32) for name, vector in rows}

    # Finding

    def similarities(
        self, database: Database, vector: Array32, *, set_key: int, context_ids: Sequence[str], dirty: bool
    ) -> dict[str, Neighbour]:
        """See `Storage.similarities`."""
        now, names = self.seen(database, set_key, dirty=dirty)
        if not dirty and self._is_warm(now):
            matrix = self._synced_matrix(database, now)
            rows = matrix.rows_of(np.fromiter(names.keys(database, context_ids).values(), dtype=np.int64))
            neighbours = best_rows(
                matrix.context_keys[rows],
                matrix.spans(rows),
                matrix.similarity(vector, rows),
                lambda keys: names.ids(database, keys),
            )
        else:
            wanted = json.dumps(list(names.keys(database, context_ids).values()))
            condition = "k.set_key = ? AND k.context_key IN (SELECT value FROM json_each(?))"
            neighbours = self._read_and_compared(database, set_key, names, vector, condition, [set_key, wanted])
        return {neighbour.context_id: neighbour for neighbour in neighbours}

    def nearest(
        self,
        database: Database,
        vector: Array32,
        *,
        set_key: int,
        k: int,
        where: Where,
        columns: Mapping[str, Any],
        dirty: bool,
    ) -> Nearest:
        """See `Storage.nearest`; `dirty` keeps vectors that may be rolled back out of what is kept in memory."""
        seen = self.seen(database, set_key, dirty=dirty)
        choice = self.choose(database, seen.now, dirty=dirty)
        engine, reason = choice.engine, choice.reason
        found: list[Neighbour] | None = None
        if engine == "hnsw" and choice.ready is not None:
            found = self._by_hnsw(database, vector, seen.names, choice.ready, k, where, columns)
            if found is None:
                engine, reason = "exact", f"fewer than {k} of the {HNSW_LIMIT} nearest chunks pass the filter"
        elif engine == "sqlite-vec":
            if not self.vec.position(database).covers(seen.now):
                engine, reason = "exact", "vec_embeddings lags behind and cannot be written now"
            else:
                found = self._by_vec_table(database, vector, seen, k, where, columns)
                if found is None:
                    engine, reason = "exact", f"more than {VEC_LIMIT} chunks compete for {k} places"
        if found is None:
            found = self._exactly(database, vector, seen, k, context_filter(database, where, columns), dirty=dirty)
        self._improve(choice, set_key)
        return Nearest(found, engine, reason)

    def nearest_many(
        self,
        database: Database,
        vectors: Array32,
        *,
        set_key: int,
        k: int,
        where: Where,
        columns: Mapping[str, Any],
        dirty: bool,
    ) -> list[Nearest]:
        """Return the nearest of each vector by one product, or nothing where another engine is to answer."""
        now, names = self.seen(database, set_key, dirty=dirty)
        choice = self.choose(database, now, dirty=dirty)
        if choice.engine != "exact":
            return []
        passing = context_filter(database, where, columns)
        matrix = self._read_matrix(database, now)[0] if dirty else self._synced_matrix(database, now)
        found = []
        for start in range(0, len(vectors), PRODUCT_ROWS):
            block = vectors[start : start + PRODUCT_ROWS]
            for vector, closeness in zip(block, matrix.closeness_of(block), strict=True):
                found.append(
                    nearest_rows(matrix, vector, k, passing, closeness, lambda keys: names.ids(database, keys))
                )
        return [Nearest(neighbours, choice.engine, choice.reason) for neighbours in found]

    def _exactly(
        self, database: Database, vector: Array32, seen: Seen, k: int, passing: ContextFilter | None, *, dirty: bool
    ) -> list[Neighbour]:
        now, names = seen
        matrix = self._read_matrix(database, now)[0] if dirty else self._synced_matrix(database, now)
        return nearest_rows(matrix, vector, k, passing, None, lambda keys: names.ids(database, keys))

    def _by_vec_table(
        self, database: Database, vector: Array32, seen: Seen, k: int, where: Where, columns: Mapping[str, Any]
    ) -> list[Neighbour] | None:
        def fetch(size: int) -> Candidates:
            keys, contexts, closeness = self.vec.nearest(database, vector, size, where=where, columns=columns)
            lowest = float(closeness[-1]) if len(closeness) else -np.inf
            return Candidates(keys, contexts, closeness, lowest, len(keys) < size)

        # It sums squares of differences, so that its distances are right to about seven digits.
        margin = (lambda last: 1e-5) if self.metric == "cosine" else (lambda last: 1e-5 * abs(last))
        keys = candidates(fetch, k, limit=VEC_LIMIT, margin=margin)
        if keys is None:
            return None
        condition, chunks = "k.chunk_key IN (SELECT value FROM json_each(?))", json.dumps(keys.tolist())
        set_key, names = seen.now.set_key, seen.names
        return self._read_and_compared(database, set_key, names, vector, condition, [chunks])[:k]

    def _by_hnsw(
        self,
        database: Database,
        vector: Array32,
        names: ContextNames[Database],
        ready: Ready,
        k: int,
        where: Where,
        columns: Mapping[str, Any],
    ) -> list[Neighbour] | None:
        passing = context_filter(database, where, columns)
        set_key = ready.position.set_key
        if passing is not None and passing.listed is not None:
            condition = "k.set_key = ? AND k.context_key IN (SELECT value FROM json_each(?))"
            keys = json.dumps(passing.listed.tolist())
            return self._read_and_compared(database, set_key, names, vector, condition, [set_key, keys])[:k]
        count, everything = k, len(ready.index) + len(ready.added)
        while True:  # more again where contexts have several chunks, or the filter lets few of them pass
            attributes, similarities = ready.nearest(vector, min(count, everything))
            contexts, spans = attributes[1], attributes[2:].T
            if passing is not None:
                stays = passing(contexts)
                contexts, spans, similarities = contexts[stays], spans[stays], similarities[stays]
            found = best_rows(contexts, spans, similarities, lambda keys: names.ids(database, keys))
            if len(found) >= k or count >= everything:
                return found[:k]
            if count >= HNSW_LIMIT:
                return None
            count = min(4 * count, HNSW_LIMIT)

    def _read_and_compared(
        self,
        database: Database,
        set_key: int,
        names: ContextNames[Database],
        vector: Array32,
        condition: str,
        parameters: Sequence[Any],
    ) -> list[Neighbour]:
        """Read chunks' vectors, compare them in float64, and return each context once, by its best chunk; ties by id."""
        # CROSS JOIN keeps SQLite to this order: it would rather look at every chunk of the set than at a hundred keys.
        rows = database.conn.execute(
            f"""
            SELECT k.context_key, k.position, k.start_char, k.end_char, e.vector
            FROM context_chunks k CROSS JOIN embeddings e ON e.chunk_hash = k.chunk_hash
            AND e.model_id = (SELECT model_id FROM embedding_sets WHERE set_key = ?)
            WHERE {condition}
            """,
            [set_key, *parameters],
        ).fetchall()
        if not rows:
            return []
        matrix = np.frombuffer(b"".join(row[4] for row in rows), dtype=np.float32).reshape(len(rows), -1)
        values = similarity(matrix, vector, metric=self.metric).tolist()
        ids = names.ids(database, {row[0] for row in rows})
        return best_of_each(
            Neighbour(ids[row[0]], value, *row[1:4]) for row, value in zip(rows, values, strict=True) if row[0] in ids
        )

    def close(self) -> None:
        """Stop what works in the background."""
        if self.hnsw is not None:
            self.hnsw.close()

    # The matrix follows the file.

    def seen(self, database: Database, set_key: int, *, dirty: bool = False) -> Seen:
        """Return what a search of this set goes by now."""

        def look() -> Seen:
            return Seen(current_position(database, set_key), self._names(database, dirty=dirty))

        found: Seen = self._remember(("vectors", set_key), look)
        return found

    def _synced_matrix(self, database: Database, now: Position) -> VectorMatrix:
        with self._lock:
            if self._matrix is None or self._matrix_position.set_key != now.set_key:
                self._matrix, self._matrix_position = self._read_matrix(database, now)
            elif not self._matrix_position.covers(now):
                self._matrix, self._matrix_position = caught_up(database, self._matrix, self._matrix_position, now)
            return self._matrix

    def _read_matrix(self, database: Database, now: Position) -> tuple[VectorMatrix, Position]:
        sql = (
            "SELECT dimensions, (SELECT count(*) FROM context_chunks WHERE set_key = s.set_key)"
            " FROM embedding_sets s WHERE set_key = ?"
        )
        dimensions, count = database.execute(sql, [now.set_key]).fetchone()
        # Memory that is not written to is not taken: room for what comes costs nothing, and copying all later does.
        capacity = int(count * SPARE) + 1_024
        matrix = VectorMatrix(dimensions=dimensions, metric=self.metric, capacity=capacity)
        return caught_up(database, matrix, Position(now.set_key, 0, 0), now)


def _there(
    database: Database, context_ids: Sequence[str], set_key: int | None
) -> tuple[dict[str, int], dict[tuple[Any, ...], int], tuple[str, int]]:
    """Return the keys of contexts by id, of their chunks in a set by all that such a chunk is, and the set's model.

    One question, because a single text is stored in the time of a few. The model is its id and dimensions.
    """
    rows = database.conn.execute(
        """
        SELECT c.id, k.chunk_key, c.context_key, k.position, k.start_char, k.end_char, k.chunk_hash,
            s.model_id, s.dimensions
        FROM context_registry c LEFT JOIN embedding_sets s ON s.set_key = ?1
        LEFT JOIN context_chunks k ON k.context_key = c.context_key AND k.set_key = ?1
        WHERE c.id IN (SELECT value FROM json_each(?2))
        """,
        [set_key, json.dumps(context_ids)],
    ).fetchall()
    chunks = {row[2:7]: row[1] for row in rows if row[1] is not None}
    return {row[0]: row[2] for row in rows}, chunks, rows[0][7:] if rows else ("", 0)
