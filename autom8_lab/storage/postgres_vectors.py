"""Vectors on PostgreSQL: pgvector's column is the truth; a matrix in memory and an HNSW index are derived from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import ConfigurationError
from ..forking import new_lock
from ..records import Chunk, Metric, Nearest, Neighbour, VectorEngine
from ..vectors.exact import SPARE, VectorMatrix
from ..vectors.similarity import Array32, checked, similarity
from .base import Where
from .exactly import best_of_each, best_rows, nearest_rows
from .names import ContextNames, Remember
from .postgres_binary import packed_integers, packed_texts, packed_vector, packed_vectors, unpacked_vectors
from .postgres_driver import Connection
from .postgres_matrix import OF_SET, Warm, read_since
from .postgres_names import context_filter, no_names
from .postgres_sql import where_clause

PRODUCT_ROWS = 64  # questions compared with all vectors in one product
MATRIX_CHUNKS = 500_000  # of more the server itself looks through all
ENOUGH_RECALL = 0.97
RECALL_QUERIES, RECALL_AT = 50, 10
# The operator class, the operator and the expression of an index by metric: half precision keeps directions.
INDEXED: dict[Metric, tuple[str, str, str]] = {
    "cosine": ("halfvec_cosine_ops", "<=>", "(l2_normalize({0})::halfvec({1}))"),
    "l2": ("vector_l2_ops", "<->", "({0}::vector({1}))"),
    "dot": ("vector_ip_ops", "<#>", "({0}::vector({1}))"),
}
OF_CONTEXTS = "k.set_key = %s AND k.context_key = ANY(%s::bigint[])"
COMPARED = "c.id, k.position, k.start_char, k.end_char, vector_send(e.vector), c.context_key"


class _Set(NamedTuple):
    model_id: str
    dimensions: int


class Choice(NamedTuple):
    """Which engine answers, and why."""

    engine: str
    reason: str


class PostgresVectors:
    """Stores vectors and finds the nearest, exactly in memory or by the server's index."""

    def __init__(self, *, metric: Metric, engine: VectorEngine, hnsw_from_chunks: int, remember: Remember) -> None:
        if engine == "sqlite-vec":
            raise ConfigurationError("vector_engine='sqlite-vec' is for SQLite files: choose 'auto', 'exact' or 'hnsw'")
        self.metric = metric
        self.engine = engine
        self._hnsw_from_chunks = hnsw_from_chunks
        self.matrix_chunks = MATRIX_CHUNKS
        self._remember = remember
        self._warm: Warm | None = None
        self._lock = new_lock()

    @property
    def _names(self) -> ContextNames[Connection]:
        names: ContextNames[Connection] = self._remember("names", no_names)
        return names

    def _set(self, connection: Connection, set_key: int) -> _Set:
        sql = "SELECT model_id, dimensions FROM embedding_sets WHERE set_key = %s"
        found: _Set = self._remember(("set", set_key), lambda: _Set(*connection.execute(sql, [set_key]).fetchall()[0]))
        return found

    # Choosing

    def choose(self, connection: Connection, set_key: int | None, *, dirty: bool = False) -> Choice:
        """Return the engine that answers a search of this set now, and why that one."""
        if self.engine == "exact" or set_key is None:
            return Choice("exact", "asked for" if self.engine == "exact" else "there are no vectors yet")
        if dirty:
            return Choice("exact", "inside a transaction")
        chunks = self._remember(("chunks", set_key), lambda: _count(connection, set_key))
        if self.engine == "auto" and chunks < self._hnsw_from_chunks:
            return Choice("exact", f"fewer than {self._hnsw_from_chunks:,} chunks")
        if self._remember(("index", set_key), lambda: _has_index(connection, self._index_name(set_key))):
            return Choice("hnsw", "asked for" if self.engine == "hnsw" else f"{chunks:,} chunks")
        return Choice("exact", "there is no HNSW index yet: al.build_vector_index() makes one")

    def _index_name(self, set_key: int) -> str:
        return f"hnsw_{self.metric}_{set_key}"

    # Writing

    def put_chunks(
        self,
        connection: Connection,
        chunks: Mapping[int, Sequence[Chunk]],
        *,
        set_key: int,
        vectors: Mapping[str, Array32],
    ) -> None:
        """See `Storage.put_chunks`; `chunks` by context key."""
        sql = "SELECT model_id, dimensions, 'vector'::regtype::oid::bigint FROM embedding_sets WHERE set_key = %s"
        *of_set, type_number = connection.execute(sql, [set_key]).fetchall()[0]
        if vectors:
            given = checked(list(vectors.values()), dimensions=of_set[1])
            _store_vectors(connection, _Set(*of_set), type_number, list(vectors), given)
        rows = connection.execute(
            "SELECT chunk_key, context_key, position, start_char, end_char, chunk_hash FROM context_chunks"
            " WHERE context_key = ANY(%s::bigint[]) AND set_key = %s",
            [packed_integers(chunks), set_key],
        )
        old = {tuple(row[1:]): row[0] for row in rows}
        new = {
            (context_key, chunk.position, chunk.start, chunk.end, chunk.chunk_hash): None
            for context_key in sorted(chunks)
            for chunk in chunks[context_key]
        }
        added = [row for row in new if row not in old]
        if added:
            *numbers, hashes = zip(*added, strict=True)
            columns = "set_key, context_key, position, start_char, end_char, chunk_hash"
            connection.execute(
                f"INSERT INTO context_chunks ({columns}) SELECT %s, * FROM unnest"
                "(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::text[])".encode(),
                [set_key, *map(packed_integers, numbers), packed_texts(hashes)],
            )
        # Deleted after the new ones are in, so that a vector both share is never an orphan.
        if gone := [key for row, key in old.items() if row not in new]:
            connection.execute("DELETE FROM context_chunks WHERE chunk_key = ANY(%s::bigint[])", [gone])

    def known_vectors(self, connection: Connection, model_id: str, chunk_hashes: Sequence[str]) -> dict[str, Array32]:
        """See `Storage.known_vectors`."""
        sql = "SELECT chunk_hash, vector_send(vector) FROM embeddings WHERE model_id = %s AND chunk_hash = ANY(%s::text[])"
        with connection.cursor(binary=True) as cursor:
            rows = cursor.execute(sql, [model_id, packed_texts(chunk_hashes)]).fetchall()
        return {name: np.frombuffer(data, dtype=">f4", offset=4).astype(np.float32) for name, data in rows}

    # Finding

    def similarities(
        self, connection: Connection, vector: Array32, *, set_key: int, context_ids: Sequence[str], dirty: bool
    ) -> dict[str, Neighbour]:
        """See `Storage.similarities`."""
        if not dirty and self._warm is not None and self._warm.set_key == set_key:
            matrix = self._matrix(connection, set_key)
            keys = self._names.keys(connection, context_ids).values()
            rows = matrix.rows_of(np.fromiter(keys, dtype=np.int64))
            found = best_rows(
                matrix.context_keys[rows], matrix.spans(rows), matrix.similarity(vector, rows), self._ids(connection)
            )
        elif dirty:
            condition = "k.set_key = %s AND c.id = ANY(%s::text[])"
            found = self._compared(connection, vector, condition, [set_key, packed_texts(context_ids)])
        else:
            found = self._compared(
                connection,
                vector,
                OF_CONTEXTS,
                [set_key, packed_integers(self._names.keys(connection, context_ids).values())],
            )
        return {neighbour.context_id: neighbour for neighbour in found}

    def nearest(
        self,
        connection: Connection,
        vector: Array32,
        *,
        set_key: int,
        k: int,
        where: Where,
        columns: Mapping[str, str],
        dirty: bool,
    ) -> Nearest:
        """See `Storage.nearest`; `dirty` keeps vectors that may be rolled back out of what is kept in memory."""
        choice = self.choose(connection, set_key, dirty=dirty)
        engine, reason = choice
        if engine == "hnsw":
            return Nearest(self._by_index(connection, vector, set_key, k, where, columns), engine, reason)
        if not dirty and self._remember(("chunks", set_key), lambda: _count(connection, set_key)) > self.matrix_chunks:
            found = self._by_server(connection, vector, set_key, k, where, columns)
            return Nearest(found, engine, f"{reason}; looked through in the server")
        matrix = self._read_matrix(connection, set_key).matrix if dirty else self._matrix(connection, set_key)
        passing = context_filter(connection, where, columns)
        return Nearest(nearest_rows(matrix, vector, k, passing, None, self._ids(connection)), engine, reason)

    def nearest_many(
        self,
        connection: Connection,
        vectors: Array32,
        *,
        set_key: int,
        k: int,
        where: Where,
        columns: Mapping[str, str],
        dirty: bool,
    ) -> list[Nearest]:
        """Return the nearest of each vector by one product, or nothing where another engine is to answer."""
        choice = self.choose(connection, set_key, dirty=dirty)
        if choice.engine != "exact" or (not dirty and _count(connection, set_key) > self.matrix_chunks):
            return []
        matrix = self._read_matrix(connection, set_key).matrix if dirty else self._matrix(connection, set_key)
        passing, ids, found = context_filter(connection, where, columns), self._ids(connection), []
        for start in range(0, len(vectors), PRODUCT_ROWS):
            block = vectors[start : start + PRODUCT_ROWS]
            for vector, closeness in zip(block, matrix.closeness_of(block), strict=True):
                found.append(nearest_rows(matrix, vector, k, passing, closeness, ids))
        return [Nearest(neighbours, *choice) for neighbours in found]

    def _ids(self, connection: Connection) -> Callable[[list[int]], Mapping[int, str]]:
        return lambda keys: self._names.ids(connection, keys)

    def _by_index(
        self,
        connection: Connection,
        vector: Array32,
        set_key: int,
        k: int,
        where: Where,
        columns: Mapping[str, str],
    ) -> list[Neighbour]:
        """Ask the HNSW index; it goes on until enough pass the filter, and what it finds is compared again exactly."""
        passing = context_filter(connection, where, columns)
        if passing is not None and passing.listed is not None:
            return self._compared(connection, vector, OF_CONTEXTS, [set_key, packed_integers(passing.listed.tolist())])[
                :k
            ]
        model_id, dimensions = self._set(connection, set_key)
        _, operator, expression = INDEXED[self.metric]
        near, asked = expression.format("e.vector", dimensions), expression.format("%s::vector", dimensions)
        filters, parameters = where_clause(where, columns, prefix="c.")
        size = k + max(6, k // 4)  # for the graph orders by rounded vectors
        names = self._names  # as of before the question, so that what it tells is forgotten in time
        while True:
            sql = f"""
                SELECT {COMPARED} FROM embeddings e
                JOIN context_chunks k ON k.chunk_hash = e.chunk_hash AND k.set_key = %s
                JOIN context_registry c ON c.context_key = k.context_key
                WHERE e.model_id = {_literal(model_id)}{filters.replace(" WHERE ", " AND ")}
                ORDER BY {near} {operator} {asked} LIMIT %s
            """.encode()
            with connection.cursor(binary=True) as cursor:
                rows = cursor.execute(sql, [set_key, *parameters, packed_vector(vector), size]).fetchall()
            names.learn((row[5], row[0]) for row in rows)
            found = self._ranked(vector, rows)
            if len(found) >= k or len(rows) < size:
                return found[:k]
            size *= 4  # contexts of several chunks

    def _by_server(
        self,
        connection: Connection,
        vector: Array32,
        set_key: int,
        k: int,
        where: Where,
        columns: Mapping[str, str],
    ) -> list[Neighbour]:
        """Have the server compare all vectors: slow, but without them all in this process.

        It reckons in single precision, so those within rounding of the last place are compared again.
        """
        operator = INDEXED[self.metric][1]
        filters, parameters = where_clause(where, columns, prefix="c.")
        size = 4 * k + 16
        while True:
            sql = f"""
                SELECT k.chunk_key, e.vector {operator} %s::vector AS distance
                {OF_SET} JOIN context_registry c USING (context_key)
                WHERE k.set_key = %s{filters.replace(" WHERE ", " AND ")} ORDER BY distance LIMIT %s
            """.encode()
            rows = connection.execute(sql, [packed_vector(vector), set_key, *parameters, size]).fetchall()
            chunks = [row[0] for row in rows]
            found = self._compared(connection, vector, "k.chunk_key = ANY(%s::bigint[])", [chunks])
            if len(rows) < size:
                return found[:k]
            if len(found) >= k:
                # What was not read is at least as far away as the last of these, but for rounding.
                last = rows[-1][1] - self._rounding(connection, vector, set_key, rows[-1][1])
                if _distance(found[k - 1].similarity, self.metric) < last:
                    return found[:k]
            size *= 4

    def _rounding(self, connection: Connection, vector: Array32, set_key: int, distance: float) -> float:
        """Return how much a distance that the server reckons may be off."""
        share = (len(vector) + 8) * 2.0**-23
        if self.metric == "cosine":
            return share
        if self.metric == "l2":
            return share * float(distance)
        sql = f"SELECT max(vector_norm(e.vector)) {OF_SET} WHERE k.set_key = %s".encode()
        longest = self._remember(("norm", set_key), lambda: connection.execute(sql, [set_key]).fetchall()[0][0])
        return share * float(np.linalg.norm(vector.astype(np.float64))) * float(longest)

    def _compared(
        self, connection: Connection, vector: Array32, condition: str, parameters: Sequence[Any]
    ) -> list[Neighbour]:
        """Read chunks' vectors, compare them in float64, and return each context once, by its best chunk; ties by id."""
        sql = f"SELECT {COMPARED} {OF_SET} JOIN context_registry c USING (context_key) WHERE {condition}".encode()
        with connection.cursor(binary=True) as cursor:
            return self._ranked(vector, cursor.execute(sql, parameters).fetchall())

    def _ranked(self, vector: Array32, rows: Sequence[Sequence[Any]]) -> list[Neighbour]:
        if not rows:
            return []
        matrix = unpacked_vectors(b"".join(row[4] for row in rows), len(rows))
        values = similarity(matrix, vector, metric=self.metric).tolist()
        return best_of_each(
            Neighbour(row[0], value, row[1], row[2], row[3]) for row, value in zip(rows, values, strict=True)
        )

    # The matrix follows the table

    def _matrix(self, connection: Connection, set_key: int) -> VectorMatrix:
        matrix: VectorMatrix = self._remember(("matrix", set_key), lambda: self._followed(connection, set_key))
        return matrix

    def _followed(self, connection: Connection, set_key: int) -> VectorMatrix:
        with self._lock:
            warm = self._warm
            if warm is None or warm.set_key != set_key:
                warm = self._read_matrix(connection, set_key)
            else:
                matrix = warm.matrix
                sql = "SELECT chunk_key FROM chunk_deletions WHERE xact >= %s::text::xid8"
                gone = [row[0] for row in connection.execute(sql, [str(warm.xmin)])]
                if gone and len(matrix):
                    matrix = matrix.without(np.array(gone, dtype=np.int64))
                warm = read_since(connection, Warm(set_key, matrix, warm.xmin, warm.seen))
            self._warm = warm
            return warm.matrix

    def _read_matrix(self, connection: Connection, set_key: int) -> Warm:
        dimensions = self._set(connection, set_key).dimensions
        capacity = int(_count(connection, set_key) * SPARE) + 1_024
        matrix = VectorMatrix(dimensions=dimensions, metric=self.metric, capacity=capacity)
        return read_since(connection, Warm(set_key, matrix, 0))

    # The index

    def build_index(self, connection: Connection, set_key: int, *, progress: Callable[[int], None]) -> dict[str, Any]:
        """Build the HNSW index in the server while others go on, or return the facts of the one that is there."""
        started = time.perf_counter()
        model_id, dimensions = self._set(connection, set_key)
        name = self._index_name(set_key)
        operators, _, expression = INDEXED[self.metric]
        count = _count(connection, set_key)
        if not _has_index(connection, name):
            connection.execute("SET statement_timeout = 0; SET maintenance_work_mem = '512MB'")
            # A build that was broken off leaves an index that is never used.
            connection.execute(f"DROP INDEX IF EXISTS {name}".encode())
            connection.execute(
                f"CREATE INDEX CONCURRENTLY {name} ON embeddings USING hnsw"
                f" ({expression.format('vector', dimensions)} {operators})"
                f" WHERE model_id = {_literal(model_id)}".encode()
            )
        progress(count)
        size = connection.execute("SELECT pg_relation_size(%s::regclass)", [name]).fetchall()[0][0]
        recall = self._recall(connection, set_key)
        seconds = round(time.perf_counter() - started, 3)
        return {
            "vectors": count,
            "recall_at_10": recall,
            "recall_queries": RECALL_QUERIES,
            "expansion": 100,
            "file_bytes": size,
            "seconds": seconds,
        }

    def _recall(self, connection: Connection, set_key: int) -> float:
        sql = f"SELECT vector_send(e.vector) {OF_SET} WHERE k.set_key = %s ORDER BY md5(k.chunk_hash) LIMIT %s".encode()
        with connection.cursor(binary=True) as cursor:
            rows = cursor.execute(sql, [set_key, RECALL_QUERIES]).fetchall()
        found, wanted = 0, 0
        for vector in unpacked_vectors(b"".join(row[0] for row in rows), len(rows)) if rows else ():
            exact = {item.context_id for item in self._by_server(connection, vector, set_key, RECALL_AT, (), {})}
            quick = {item.context_id for item in self._by_index(connection, vector, set_key, RECALL_AT, (), {})}
            found, wanted = found + len(exact & quick), wanted + len(exact)
        return round(found / wanted, 3) if wanted else 1.0


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''").replace("%", "%%") + "'"


def _count(connection: Connection, set_key: int) -> int:
    sql = "SELECT count(*) FROM context_chunks WHERE set_key = %s"
    return int(connection.execute(sql, [set_key]).fetchall()[0][0])


def _has_index(connection: Connection, name: str) -> bool:
    sql = "SELECT coalesce((SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)), false)"
    return bool(connection.execute(sql, [name]).fetchall()[0][0])


def _store_vectors(
    connection: Connection, of_set: _Set, type_number: int, hashes: Sequence[str], vectors: Array32
) -> None:
    order = np.argsort(np.array(hashes, dtype=object))  # in one order for everyone, so that nobody waits in a circle
    connection.execute(
        "INSERT INTO embeddings (chunk_hash, model_id, dimensions, vector)"
        " SELECT h, %s, %s, v FROM unnest(%s::text[], %s::vector[]) t(h, v) ON CONFLICT DO NOTHING",
        [
            *of_set,
            packed_texts(hashes[place] for place in order),
            packed_vectors(vectors[order], type_number=type_number),
        ],
    )


def _distance(similarity: float, metric: Metric) -> float:
    """Return the server's distance for a similarity."""
    if metric == "l2":
        return 1 / similarity - 1
    return 1 - similarity if metric == "cosine" else -similarity
