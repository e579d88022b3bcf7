"""The matrix of a set's vectors, which follows the table on PostgreSQL by the transactions that wrote to it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..vectors.exact import VectorMatrix
from .postgres_binary import unpacked_vectors
from .postgres_driver import Connection

BATCH = 4_096
OF_SET = """
    FROM context_chunks k JOIN embedding_sets s USING (set_key)
    JOIN embeddings e ON e.chunk_hash = k.chunk_hash AND e.model_id = s.model_id
"""


@dataclass
class Warm:
    """A matrix, and how far it has followed the table."""

    set_key: int
    matrix: VectorMatrix
    xmin: int
    seen: set[int] = field(default_factory=set)


def read_since(connection: Connection, warm: Warm) -> Warm:
    """Add the chunks of transactions that were not over when the matrix was read last."""
    xmin = int(connection.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text").fetchall()[0][0])
    sql = f"""
        SELECT int8send(k.chunk_key) || int8send(k.context_key) || int8send(k.position)
            || int8send(k.start_char) || int8send(k.end_char), k.xact >= %s::text::xid8, vector_send(e.vector)
        {OF_SET} WHERE k.set_key = %s AND k.xact >= %s::text::xid8
    """.encode()
    matrix, seen = warm.matrix, set[int]()
    with connection.cursor(binary=True) as cursor:
        cursor.execute(sql, [str(xmin), warm.set_key, str(warm.xmin)])
        while rows := cursor.fetchmany(BATCH):
            attributes = np.frombuffer(b"".join(row[0] for row in rows), dtype=">i8").reshape(-1, 5).T.astype(np.int64)
            young = np.array([row[1] for row in rows], dtype=bool)
            seen |= set(attributes[0, young].tolist())
            vectors = unpacked_vectors(b"".join(row[2] for row in rows), len(rows))
            if warm.seen:
                new = np.array([key not in warm.seen for key in attributes[0].tolist()], dtype=bool)
                attributes, vectors = attributes[:, new], vectors[new]
            if len(vectors):
                matrix = matrix.grown(attributes, vectors)
    return Warm(warm.set_key, matrix, xmin, seen)
