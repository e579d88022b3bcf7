"""A lab's file without the lab: the plain statements that the benchmarks compare with.

The counterpart of a measurement, and no way into a lab: nothing is checked, sealed or logged here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlite_utils.utils import sqlite3

from .sqlite_vec import load_extension

if TYPE_CHECKING:
    from ..vectors.similarity import Array32
    from .sqlite_chunks import Keys

Cells = tuple[Any, ...]
TABLES = ("context_registry", "context_chunks", "embeddings")
LEDGER = "usage_ledger"
VEC_TABLE = "bare_vectors"


class BareContext(NamedTuple):
    """A context of one chunk as its three tables hold it, without their numbers."""

    context: Cells
    chunk: Cells
    embedding: Cells


class BareFile:
    """Statements on the tables of a lab, triggers and indexes and all, through the lab's SQLite library.

    One connection with the lab's pragmas. `busy_timeout_ms` is SQLite's own waiting for a lock.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: str = "FULL",
        cache_size: int = 10_000,
        busy_timeout_ms: int = 30_000,
    ) -> None:
        self._connection = sqlite3.connect(
            str(path),
            isolation_level=None,
            timeout=busy_timeout_ms / 1000,
            cached_statements=256,
            check_same_thread=False,
        )
        for name, value in {"foreign_keys": 1, "synchronous": synchronous, "cache_size": cache_size}.items():
            self._connection.execute(f"PRAGMA {name} = {value}")
        self.names = {table: self._names(table) for table in (*TABLES, LEDGER)}
        self._insertions = {table: _insertion(table, names) for table, names in self.names.items()}
        self._selection = f"SELECT {', '.join(self.names[TABLES[0]])} FROM {TABLES[0]} WHERE id = ?"

    def _names(self, table: str) -> list[str]:
        info = self._connection.execute(f'PRAGMA table_info("{table}")').fetchall()
        return [row[1] for row in info if not (row[5] and row[2] == "INTEGER")]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    # Writing

    def contexts(self) -> list[BareContext]:
        """Return every context of one chunk, oldest first."""
        context, chunk, embedding = (self.names[table] for table in TABLES)
        columns = [
            f"{table}.{name}" for table, names in zip("cke", (context, chunk, embedding), strict=True) for name in names
        ]
        rows = self._connection.execute(
            f"""
            SELECT {", ".join(columns)} FROM context_registry c JOIN context_chunks k USING (context_key)
            JOIN embedding_sets s USING (set_key)
            JOIN embeddings e ON e.chunk_hash = k.chunk_hash AND e.model_id = s.model_id
            WHERE s.state = 'active' ORDER BY c.context_key
            """
        )
        first, second = len(context), len(context) + len(chunk)
        return [BareContext(row[:first], row[first:second], row[second:]) for row in rows]

    def store(self, item: BareContext) -> None:
        """Insert a context, its chunk and its vector in one transaction."""
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            key = int(execute(self._insertions["context_registry"], item.context).lastrowid or 0)
            execute(self._insertions["context_chunks"], self._of_context(item.chunk, key))
            execute(self._insertions["embeddings"], item.embedding)
        except BaseException:
            execute("ROLLBACK")
            raise
        execute("COMMIT")

    def store_many(self, items: Sequence[BareContext]) -> None:
        """Insert contexts, chunks and vectors by `executemany`, in one transaction."""
        execute, many = self._connection.execute, self._connection.executemany
        execute("BEGIN IMMEDIATE")
        key = execute("SELECT coalesce(max(context_key), 0) FROM context_registry").fetchone()[0]
        many(self._insertions["context_registry"], (item.context for item in items))
        # Under the lock the keys follow one another.
        chunks = (self._of_context(item.chunk, key + place) for place, item in enumerate(items, 1))
        many(self._insertions["context_chunks"], chunks)
        many(self._insertions["embeddings"], (item.embedding for item in items))
        execute("COMMIT")

    def _of_context(self, chunk: Cells, context_key: int) -> Cells:
        place = self.names["context_chunks"].index("context_key")
        return (*chunk[:place], context_key, *chunk[place + 1 :])

    def ledger_rows(self) -> list[Cells]:
        """Return every call of the ledger without its number."""
        rows = self._connection.execute(f"SELECT {', '.join(self.names[LEDGER])} FROM {LEDGER} ORDER BY usage_key")
        return list(rows)

    def record(self, row: Cells) -> None:
        """Insert a call into the ledger, in a transaction of its own."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute(self._insertions[LEDGER], row)
        self._connection.execute("COMMIT")

    # Reading

    def context(self, context_id: str) -> Cells:
        """Return a context's columns."""
        row: Cells = self._connection.execute(self._selection, [context_id]).fetchone()
        return row

    def contents(self) -> list[tuple[str, str]]:
        """Return id and text of every context that has a vector."""
        sql = (
            "SELECT DISTINCT id, content FROM context_registry"
            " JOIN context_chunks USING (context_key) JOIN embeddings USING (chunk_hash)"
        )
        return self._connection.execute(sql).fetchall()

    def matches(self, words: Sequence[str], k: int) -> list[tuple[int, float]]:
        """Return key and BM25 score of the k contexts that FTS5 ranks first for any of the words."""
        query = " OR ".join(f'"{word}"' for word in words)
        sql = "SELECT rowid, -rank FROM context_registry_fts WHERE context_registry_fts MATCH ? ORDER BY rank LIMIT ?"
        return self._connection.execute(sql, [query, k]).fetchall()

    def rows(self, context_keys: Sequence[int]) -> list[Cells]:
        """Return number, id, topic, content and creation of contexts."""
        sql = (
            "SELECT context_key, id, topic, content, created_at FROM context_registry"
            f" WHERE context_key IN ({', '.join('?' * len(context_keys))})"
        )
        return self._connection.execute(sql, list(context_keys)).fetchall()

    def vectors(self) -> tuple[Keys, Array32]:
        """Return the context keys of all chunks, and their vectors."""
        import numpy as np

        rows = self._connection.execute(
            """
            SELECT k.context_key, e.vector FROM context_chunks k JOIN embedding_sets s USING (set_key)
            JOIN embeddings e USING (chunk_hash, model_id) WHERE s.state = 'active' ORDER BY k.chunk_key
            """
        ).fetchall()
        matrix = np.frombuffer(b"".join(row[1] for row in rows), dtype=np.float32)
        return np.array([row[0] for row in rows], dtype=np.int64), matrix.reshape(len(rows), -1)


class BareVecTable:
    """A vec0 table of sqlite-vec in a file of its own, cosine, numbers from 0."""

    def __init__(self, path: str | os.PathLike[str], *, dimensions: int) -> None:
        self._connection = sqlite3.connect(str(path), isolation_level=None)
        self.missing = load_extension(self._connection)
        if self.missing is None:
            self._connection.execute(
                f"CREATE VIRTUAL TABLE {VEC_TABLE} USING vec0(number INTEGER PRIMARY KEY,"
                f" embedding FLOAT[{dimensions}] distance_metric=cosine)"
            )

    def add(self, vectors: Array32) -> None:
        """Add vectors under their row numbers, in one transaction."""
        self._connection.execute("BEGIN")
        rows = ((number, row.tobytes()) for number, row in enumerate(vectors))
        while batch := list(islice(rows, 10_000)):
            self._connection.executemany(f"INSERT INTO {VEC_TABLE} (number, embedding) VALUES (?, ?)", batch)
        self._connection.execute("COMMIT")

    def nearest(self, vector: Array32, k: int) -> list[int]:
        """Return the numbers of the k nearest vectors, the nearest first."""
        return list(self._nearest(vector.tobytes(), k))

    def _nearest(self, blob: bytes, k: int) -> Iterator[int]:
        sql = f"SELECT number FROM {VEC_TABLE} WHERE embedding MATCH ? AND k = ? ORDER BY distance"
        return (row[0] for row in self._connection.execute(sql, [blob, k]))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _insertion(table: str, names: Sequence[str]) -> str:
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
