"""Vectors in SQLite: BLOBs are the truth, `vec_embeddings` and the matrix in memory are derived from them."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlite_utils import Database
from sqlite_utils.utils import sqlite3

from ..records import Chunk, Metric, Nearest, Neighbour, VectorEngine
from ..vectors.exact import VectorMatrix
from ..vectors.similarity import Array32, checked, similarity
from .base import Where
from .checksums import Seal
from .sql import where_clause

VEC_TABLE = "vec_embeddings"
EMBEDDING = ("chunk_hash", "model_id", "dimensions", "vector")
VEC_LIMIT = 4096  # sqlite-vec refuses a larger k
VEC_METRICS: dict[Metric, str] = {"cosine": "cosine", "l2": "L2"}

Candidates = tuple[Any, Any, Any]  # chunk keys, context keys, closeness; best first
Fetch = Callable[[int], Candidates]


def load_extension(connection: sqlite3.Connection) -> str | None:
    """Load sqlite-vec into a connection; return None, or the reason why it could not be."""
    try:
        import sqlite_vec
    except ImportError:
        return "sqlite-vec is not installed (pip install sqlite-vec)"
    if not hasattr(connection, "enable_load_extension"):
        return "this Python's sqlite3 cannot load extensions (pip install pysqlite3 where it has wheels)"
    try:
        connection.enable_load_extension(True)
        try:
            connection.load_extension(sqlite_vec.loadable_path())
        finally:
            connection.enable_load_extension(False)
    except sqlite3.Error as exc:
        return f"sqlite-vec cannot be loaded ({exc})"
    return None


@dataclass(frozen=True)
class Position:
    """How far an index has read: every chunk and every deletion up to these keys."""

    set_key: int
    chunk_key: int
    deletion_key: int

    def covers(self, other: Position) -> bool:
        """Whether an index at this position has nothing of `other` to catch up with."""
        return (
            self.set_key == other.set_key
            and self.chunk_key >= other.chunk_key
            and self.deletion_key >= other.deletion_key
        )


def current_position(database: Database, set_key: int) -> Position:
    """Return how far an index of this set could have read by now."""
    row = database.execute(
        "SELECT (SELECT max(chunk_key) FROM context_chunks WHERE set_key = ?),"
        " (SELECT max(deletion_key) FROM chunk_deletions)",
        [set_key],
    ).fetchone()
    return Position(set_key, row[0] or 0, row[1] or 0)


class SQLiteVectors:
    """Stores vectors and finds the nearest, by sqlite-vec or exactly, with the same answer."""

    def __init__(self, *, metric: Metric, engine: VectorEngine) -> None:
        self.metric = metric
        self.engine = engine
        self.missing: str | None = "not tried yet"
        self._matrix: VectorMatrix | None = None
        self._matrix_position = Position(0, 0, 0)
        self._lock = threading.Lock()

    def chosen_engine(self) -> tuple[str, str]:
        """Return the engine that answers, and why that one."""
        if self.engine == "exact":
            return "exact", "asked for"
        if self.missing is not None:
            return "exact", self.missing
        if self.metric not in VEC_METRICS:
            return "exact", f"sqlite-vec has no {self.metric} metric"
        return "sqlite-vec", "asked for" if self.engine == "sqlite-vec" else "sqlite-vec is loaded"

    def put_chunks(
        self,
        database: Database,
        context_key: int,
        chunks: Sequence[Chunk],
        *,
        set_key: int,
        vectors: Mapping[str, Array32],
        seal: Seal | None,
    ) -> None:
        """See `Storage.put_chunks`; `seal` is that of the embeddings."""
        model_id, dimensions = database.execute(
            "SELECT model_id, dimensions FROM embedding_sets WHERE set_key = ?", [set_key]
        ).fetchone()
        rows = [
            (name, model_id, dimensions, checked(vector, dimensions=dimensions)[0].tobytes())
            for name, vector in vectors.items()
        ]
        checksums = [None] * len(rows) if seal is None else seal.of_rows(EMBEDDING, rows)
        database.conn.executemany(
            f"INSERT OR IGNORE INTO embeddings ({', '.join(EMBEDDING)}, checksum) VALUES (?, ?, ?, ?, ?)",
            [(*row, checksum) for row, checksum in zip(rows, checksums, strict=True)],
        )
        old = {
            tuple(row[1:]): row[0]
            for row in database.execute(
                "SELECT chunk_key, position, start_char, end_char, chunk_hash FROM context_chunks"
                " WHERE context_key = ? AND set_key = ?",
                [context_key, set_key],
            )
        }
        new = [(chunk.position, chunk.start, chunk.end, chunk.chunk_hash) for chunk in chunks]
        database.conn.executemany(
            "INSERT INTO context_chunks (set_key, context_key, position, start_char, end_char, chunk_hash)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            [(set_key, context_key, *row) for row in new if row not in old],
        )
        # Deleted after the new ones are in, so that a vector both share is never an orphan.
        gone = [(key,) for row, key in old.items() if row not in set(new)]
        database.conn.executemany("DELETE FROM context_chunks WHERE chunk_key = ?", gone)

    def known_vectors(self, database: Database, model_id: str, chunk_hashes: Sequence[str]) -> dict[str, Array32]:
        """See `Storage.known_vectors`."""
        rows = database.execute(
            "SELECT chunk_hash, vector FROM embeddings"
            " WHERE model_id = ? AND chunk_hash IN (SELECT value FROM json_each(?))",
            [model_id, json.dumps(list(chunk_hashes))],
        )
        return {name: np.frombuffer(vector, dtype=np.float32) for name, vector in rows}

    def similarities(
        self, database: Database, vector: Array32, *, set_key: int, context_ids: Sequence[str]
    ) -> dict[str, Neighbour]:
        """See `Storage.similarities`."""
        condition = "k.set_key = ? AND c.id IN (SELECT value FROM json_each(?))"
        neighbours = self._scored(database, vector, condition, [set_key, json.dumps(list(context_ids))])
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
        """See `Storage.nearest`; `dirty` keeps vectors that may be rolled back out of the shared matrix."""
        engine, reason = self.chosen_engine()
        found: Any = None
        if engine == "sqlite-vec":
            if not self.vec_position(database).covers(current_position(database, set_key)):
                engine, reason = "exact", "vec_embeddings lags behind and cannot be written now"
            else:
                fetch = self._vec_fetch(database, vector, where, columns)
                # It sums squares of differences, so that its distances are right to about seven digits.
                margin = (lambda last: 1e-5) if self.metric == "cosine" else (lambda last: 1e-5 * abs(last))
                found = _candidates(fetch, k, limit=VEC_LIMIT, margin=margin)
                if found is None:
                    engine, reason = "exact", f"more than {VEC_LIMIT} chunks compete for {k} places"
        if found is None:
            matrix = self._scratch_matrix(database, set_key) if dirty else self._synced_matrix(database, set_key)
            fetch = self._exact_fetch(database, matrix, vector, where, columns)
            error = matrix.error(vector)
            found = _candidates(fetch, k, limit=len(matrix), total=len(matrix), margin=lambda last: 2 * error)
        keys = json.dumps([int(key) for key in found])
        condition = "k.chunk_key IN (SELECT value FROM json_each(?))"
        return Nearest(self._scored(database, vector, condition, [keys])[:k], engine, reason)

    def _scored(
        self, database: Database, vector: Array32, condition: str, parameters: Sequence[Any]
    ) -> list[Neighbour]:
        """Compare chunks in float64 and return each context once, by its best chunk; ties by id."""
        rows = database.execute(
            f"""
            SELECT c.id, k.position, k.start_char, k.end_char, e.vector
            FROM context_chunks k JOIN context_registry c USING (context_key)
            JOIN embedding_sets s USING (set_key) JOIN embeddings e USING (chunk_hash, model_id)
            WHERE {condition}
            """,
            parameters,
        ).fetchall()
        if not rows:
            return []
        matrix = np.frombuffer(b"".join(row[4] for row in rows), dtype=np.float32).reshape(len(rows), -1)
        values = similarity(matrix, vector, metric=self.metric)
        best: dict[str, Neighbour] = {}
        for (context_id, position, start, end, _), value in zip(rows, values.tolist(), strict=True):
            other = best.get(context_id)
            if other is None or (-value, position) < (-other.similarity, other.position):
                best[context_id] = Neighbour(context_id, value, position, start, end)
        return sorted(best.values(), key=lambda item: (-item.similarity, item.context_id))

    # The exact engine: a matrix that follows the file.

    def _synced_matrix(self, database: Database, set_key: int) -> VectorMatrix:
        with self._lock:
            now = current_position(database, set_key)
            if self._matrix is None or self._matrix_position.set_key != set_key:
                self._matrix, self._matrix_position = (
                    self._empty_matrix(database, set_key),
                    Position(set_key, 0, 0),
                )
            # A copy grows and then takes the old one's place: a search in another thread keeps what it holds.
            if not self._matrix_position.covers(now):
                matrix = copy.copy(self._matrix)
                _catch_up(database, matrix, self._matrix_position)
                self._matrix, self._matrix_position = matrix, now
            return self._matrix

    def _scratch_matrix(self, database: Database, set_key: int) -> VectorMatrix:
        matrix = self._empty_matrix(database, set_key)
        _catch_up(database, matrix, Position(set_key, 0, 0))
        return matrix

    def _empty_matrix(self, database: Database, set_key: int) -> VectorMatrix:
        sql = "SELECT dimensions FROM embedding_sets WHERE set_key = ?"
        return VectorMatrix(dimensions=database.execute(sql, [set_key]).fetchone()[0], metric=self.metric)

    def _exact_fetch(
        self,
        database: Database,
        matrix: VectorMatrix,
        vector: Array32,
        where: Where,
        columns: Mapping[str, Any],
    ) -> Fetch:
        allowed = None
        if where:
            filters, parameters = where_clause(where, columns)
            rows = database.execute(f"SELECT context_key FROM context_registry{filters}", parameters)
            allowed = np.fromiter((row[0] for row in rows), dtype=np.int64)
        closeness = matrix.closeness(vector, allowed=allowed)

        def fetch(size: int) -> Candidates:
            order = np.argpartition(-closeness, size - 1)[:size] if size < len(closeness) else np.arange(len(closeness))
            order = order[np.argsort(-closeness[order], kind="stable")]
            order = order[closeness[order] > -np.inf]
            return matrix.chunk_keys[order], matrix.context_keys[order], closeness[order]

        return fetch

    # sqlite-vec: a virtual table that follows the same BLOBs.

    def vec_position(self, database: Database) -> Position:
        """Return how far `vec_embeddings` has read; (0, 0, 0) where there is none, or one of another metric."""
        row = database.execute("SELECT state FROM index_state WHERE name = ?", [VEC_TABLE]).fetchone()
        state = json.loads(row[0]) if row else {}
        if state.get("metric") != self.metric:
            return Position(0, 0, 0)
        return Position(state["set_key"], state["chunk_key"], state["deletion_key"])

    def sync_vec_table(self, database: Database, *, create: bool) -> None:
        """Bring `vec_embeddings` up to date inside the caller's transaction, where sqlite-vec is loaded."""
        if self.missing is not None or self.metric not in VEC_METRICS:
            return
        row = database.execute("SELECT set_key, dimensions FROM embedding_sets WHERE state = 'active'").fetchone()
        if row is None or not (create or database.table(VEC_TABLE).exists()):
            return
        set_key, dimensions = row
        at, now = self.vec_position(database), current_position(database, set_key)
        if at.set_key != set_key:
            database.execute(f"DROP TABLE IF EXISTS {VEC_TABLE}")
            database.execute(
                f"CREATE VIRTUAL TABLE {VEC_TABLE} USING vec0(chunk_key INTEGER PRIMARY KEY,"
                f" embedding FLOAT[{dimensions}] distance_metric={VEC_METRICS[self.metric]})"
            )
            at = Position(set_key, 0, now.deletion_key)
        elif at.covers(now):
            return
        gone = database.execute("SELECT chunk_key FROM chunk_deletions WHERE deletion_key > ?", [at.deletion_key])
        database.conn.executemany(f"DELETE FROM {VEC_TABLE} WHERE chunk_key = ?", gone.fetchall())
        database.execute(
            f"""
            INSERT INTO {VEC_TABLE} (chunk_key, embedding)
            SELECT k.chunk_key, e.vector FROM context_chunks k JOIN embedding_sets s USING (set_key)
            JOIN embeddings e USING (chunk_hash, model_id) WHERE k.set_key = ? AND k.chunk_key > ?
            """,
            [set_key, at.chunk_key],
        )
        state = {"metric": self.metric, "set_key": set_key, "chunk_key": max(at.chunk_key, now.chunk_key)}
        database.execute(
            "INSERT OR REPLACE INTO index_state (name, state) VALUES (?, ?)",
            [VEC_TABLE, json.dumps({**state, "deletion_key": now.deletion_key})],
        )

    def _vec_fetch(self, database: Database, vector: Array32, where: Where, columns: Mapping[str, Any]) -> Fetch:
        filters, parameters = where_clause(where, columns)
        allowed = (
            "AND chunk_key IN (SELECT chunk_key FROM context_chunks WHERE context_key IN"
            f" (SELECT context_key FROM context_registry{filters}))"
            if where
            else ""
        )

        def fetch(size: int) -> Candidates:
            rows = database.execute(
                f"""
                SELECT v.chunk_key, k.context_key, -v.distance FROM (
                    SELECT chunk_key, distance FROM {VEC_TABLE} WHERE embedding MATCH ? AND k = ? {allowed}
                ) v JOIN context_chunks k USING (chunk_key) ORDER BY v.distance
                """,
                [vector.tobytes(), size, *parameters],
            ).fetchall()
            chunk_keys, context_keys, closeness = zip(*rows, strict=True) if rows else ((), (), ())
            return (
                np.array(chunk_keys, dtype=np.int64),
                np.array(context_keys, dtype=np.int64),
                np.array(closeness),
            )

        return fetch


def _catch_up(database: Database, matrix: VectorMatrix, at: Position) -> None:
    gone = database.execute("SELECT chunk_key FROM chunk_deletions WHERE deletion_key > ?", [at.deletion_key])
    if len(matrix):
        matrix.remove(np.fromiter((row[0] for row in gone), dtype=np.int64))
    rows = database.execute(
        """
        SELECT k.chunk_key, k.context_key, e.vector FROM context_chunks k JOIN embedding_sets s USING (set_key)
        JOIN embeddings e USING (chunk_hash, model_id) WHERE k.set_key = ? AND k.chunk_key > ? ORDER BY k.chunk_key
        """,
        [at.set_key, at.chunk_key],
    ).fetchall()
    if rows:
        chunk_keys, context_keys, blobs = zip(*rows, strict=True)
        vectors = np.frombuffer(b"".join(blobs), dtype=np.float32).reshape(len(rows), -1)
        matrix.add(np.array(chunk_keys, dtype=np.int64), np.array(context_keys, dtype=np.int64), vectors)


def _candidates(fetch: Fetch, k: int, *, limit: int, margin: Callable[[float], float], total: int | None = None) -> Any:
    """Return the keys of the chunks that can be among the best of k contexts, or None if `limit` is too few.

    A context has several chunks, so the number to ask for is not known before: it doubles until k contexts are
    clear of the rest by `margin`, or all of `total` chunks have been seen: engines order in float32, and whoever is
    that close to the last place is compared again in float64.
    """
    size = min(4 * k + 16, limit)
    while size:
        chunk_keys, context_keys, closeness = fetch(size)
        exhausted = len(chunk_keys) < size or size == total
        first_of_context = np.sort(np.unique(context_keys, return_index=True)[1])
        if len(first_of_context) >= k:
            last = float(closeness[first_of_context[k - 1]])
            floor = last - margin(last)
            if exhausted or closeness[-1] < floor:
                return chunk_keys[closeness >= floor]
        elif exhausted:
            return chunk_keys
        if size >= limit:
            return None
        size = min(2 * size, limit)
    return ()
