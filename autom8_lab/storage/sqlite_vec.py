"""The sqlite-vec engine: `vec_embeddings`, a virtual table that follows the BLOBs in the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from sqlite_utils import Database
from sqlite_utils.utils import sqlite3

from ..records import Metric
from ..vectors.similarity import Array32
from .base import Where
from .sql import where_clause
from .sqlite_chunks import Keys, Position, current_position, deleted_since

VEC_TABLE = "vec_embeddings"
VEC_LIMIT = 4096  # sqlite-vec refuses a larger k
VEC_METRICS: dict[Metric, str] = {"cosine": "cosine", "l2": "L2"}


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


class VecTable:
    """Keeps `vec_embeddings` in step with the active set, and asks it for the nearest chunks."""

    def __init__(self, *, metric: Metric) -> None:
        self.metric = metric
        self.missing: str | None = "not tried yet"

    def unusable(self) -> str | None:
        """Return why sqlite-vec cannot answer here, or None where it can."""
        if self.missing is None and self.metric not in VEC_METRICS:
            return f"sqlite-vec has no {self.metric} metric"
        return self.missing

    def position(self, database: Database) -> Position:
        """Return how far the table has read; (0, 0, 0) where there is none, or one of another metric."""
        row = database.execute("SELECT state FROM index_state WHERE name = ?", [VEC_TABLE]).fetchone()
        state = json.loads(row[0]) if row else {}
        if state.get("metric") != self.metric:
            return Position(0, 0, 0)
        return Position(state["set_key"], state["chunk_key"], state["deletion_key"])

    def sync(self, database: Database, *, create: bool) -> None:
        """Bring the table up to date inside the caller's transaction, where sqlite-vec is loaded."""
        if self.unusable():
            return
        # The table and its row here come and go together, and a row is found more quickly than a table's definition.
        there = "SELECT 1 FROM index_state WHERE name = ?"
        if not create and database.conn.execute(there, [VEC_TABLE]).fetchone() is None:
            return
        row = database.execute("SELECT set_key, dimensions FROM embedding_sets WHERE state = 'active'").fetchone()
        if row is None:
            return
        set_key, dimensions = row
        at, now = self.position(database), current_position(database, set_key)
        if at.set_key != set_key:
            database.execute(f"DROP TABLE IF EXISTS {VEC_TABLE}")
            database.execute(
                f"CREATE VIRTUAL TABLE {VEC_TABLE} USING vec0(chunk_key INTEGER PRIMARY KEY,"
                f" embedding FLOAT[{dimensions}] distance_metric={VEC_METRICS[self.metric]})"
            )
            at = Position(set_key, 0, now.deletion_key)
        elif at.covers(now):
            return
        gone = [(key,) for key in deleted_since(database, at).tolist()]
        database.conn.executemany(f"DELETE FROM {VEC_TABLE} WHERE chunk_key = ?", gone)
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

    def nearest(
        self, database: Database, vector: Array32, size: int, *, where: Where, columns: Mapping[str, Any]
    ) -> tuple[Keys, Keys, Array32]:
        """Return chunk keys, context keys and closeness of the `size` nearest chunks that pass, best first."""
        filters, parameters = where_clause(where, columns)
        allowed = (
            "AND chunk_key IN (SELECT chunk_key FROM context_chunks WHERE context_key IN"
            f" (SELECT context_key FROM context_registry{filters}))"
            if where
            else ""
        )
        rows = database.execute(
            f"""
            SELECT v.chunk_key, k.context_key, -v.distance FROM (
                SELECT chunk_key, distance FROM {VEC_TABLE} WHERE embedding MATCH ? AND k = ? {allowed}
            ) v JOIN context_chunks k USING (chunk_key) ORDER BY v.distance
            """,
            [vector.tobytes(), size, *parameters],
        ).fetchall()
        table = np.array(rows, dtype=np.float64).reshape(-1, 3)
        return table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2].astype(np.float32)
