"""How the chunks in the file change, and how what is derived from their vectors keeps up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from sqlite_utils import Database

from ..errors import DamagedLab
from ..vectors.exact import VectorMatrix
from ..vectors.similarity import Array32

Keys = npt.NDArray[np.int64]
BATCH = 4_096  # vectors read at once


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
    row = database.conn.execute(
        "SELECT (SELECT max(chunk_key) FROM context_chunks WHERE set_key = ?),"
        " (SELECT max(deletion_key) FROM chunk_deletions)",
        [set_key],
    ).fetchone()
    return Position(set_key, row[0] or 0, row[1] or 0)


def deleted_since(database: Database, position: Position) -> Keys:
    """Return the keys of the chunks deleted after a position."""
    rows = database.conn.execute(
        "SELECT chunk_key FROM chunk_deletions WHERE deletion_key > ?", [position.deletion_key]
    )
    return np.fromiter((row[0] for row in rows), dtype=np.int64)


def count_since(database: Database, position: Position) -> int:
    """Count the chunks that came after a position."""
    sql = "SELECT count(*) FROM context_chunks WHERE set_key = ? AND chunk_key > ?"
    return int(database.conn.execute(sql, [position.set_key, position.chunk_key]).fetchone()[0])


def vectors_since(database: Database, position: Position, *, limit: int = -1) -> Iterator[tuple[Keys, Array32]]:
    """Yield in batches what came after a position, by growing chunk key.

    Each batch has the chunks' key, context, position, start and end, shape (5, n), and their vectors.
    """
    cursor = database.conn.execute(
        """
        SELECT k.chunk_key, k.context_key, k.position, k.start_char, k.end_char, e.vector
        FROM context_chunks k JOIN embedding_sets s USING (set_key)
        JOIN embeddings e USING (chunk_hash, model_id) WHERE k.set_key = ? AND k.chunk_key > ?
        ORDER BY k.chunk_key LIMIT ?
        """,
        [position.set_key, position.chunk_key, limit],
    )
    while rows := cursor.fetchmany(BATCH):
        try:
            attributes = np.array([row[:5] for row in rows], dtype=np.int64).T
            vectors = np.frombuffer(b"".join(row[5] for row in rows), dtype=np.float32).reshape(len(rows), -1)
        except (TypeError, ValueError, OverflowError) as exc:
            keys = f"context_chunks {rows[0][0]} to {rows[-1][0]}"
            raise DamagedLab(f"a vector or chunk among {keys} is damaged: al.check() lists all that is") from exc
        yield attributes, vectors


def caught_up(database: Database, matrix: VectorMatrix, at: Position, now: Position) -> tuple[VectorMatrix, Position]:
    """Return a matrix that had read up to `at` with what came after it, and how far it has read then.

    That is up to `now` or further: somebody may write while it is read.
    """
    if len(matrix):
        matrix = matrix.without(deleted_since(database, at))
    for attributes, vectors in vectors_since(database, at):
        matrix = matrix.grown(attributes, vectors)
        now = replace(now, chunk_key=max(now.chunk_key, int(attributes[0, -1])))
    return matrix, now
