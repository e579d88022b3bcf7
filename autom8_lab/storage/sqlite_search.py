"""The operations of the SQLite back end that find contexts: by words and by vectors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any

from sqlite_utils import Database

from ..errors import InvalidValue, LabBusy
from ..records import Chunk, EmbeddingSet, Nearest, Neighbour, TextMatch
from .base import Row, Storage, Where
from .checksums import Seals
from .filters import effective
from .hnsw_file import FACTS
from .pool import ConnectionPool
from .sql import decoded
from .sqlite_chunks import current_position
from .sqlite_names import KeptNames
from .sqlite_text import TextIndex, passages
from .sqlite_vectors import SQLiteVectors
from .transactions import Transaction

if TYPE_CHECKING:
    from ..vectors.similarity import Array32

CONTEXTS = "context_registry"
_WITHOUT_CHUNKS = "NOT EXISTS (SELECT 1 FROM context_chunks k WHERE k.context_key = c.context_key AND k.set_key IS ?)"


class SQLiteSearch(Storage):
    """The operations of `SQLiteStorage` on the text index and the vectors."""

    _pool: ConnectionPool
    _seals: Seals
    _names: KeptNames
    _text: TextIndex
    _vectors: SQLiteVectors

    @abstractmethod
    def _columns(self, database: Database, table: str) -> dict[str, Any]: ...

    @abstractmethod
    def _write(
        self, operation: Callable[..., Any], *arguments: Any, **options: Any
    ) -> AbstractContextManager[Transaction]: ...

    # Text

    def match_text(
        self,
        terms: Sequence[str],
        *,
        k: int,
        where: Where = (),
        include: Sequence[str] = (),
        column_weights: Mapping[str, float] | None = None,
    ) -> list[TextMatch]:
        """See `Storage.match_text`."""
        with self._pool.reader() as database:
            return self._text.match(
                database,
                terms,
                k=k,
                where=self._effective(database, where),
                include=include,
                columns=self._columns(database, CONTEXTS),
                weights=column_weights or {},
                dirty=self.in_transaction,
            )

    def matched_terms(self, terms: Sequence[str], context_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """See `Storage.matched_terms`."""
        with self._pool.reader() as database:
            return self._text.matched_terms(database, terms, context_ids, dirty=self.in_transaction)

    def passages(self, terms: Sequence[str], context_ids: Sequence[str]) -> dict[str, str]:
        """See `Storage.passages`."""
        with self._pool.reader() as database:
            names = self._names(database, dirty=self.in_transaction)
            return passages(database, terms, names.keys(database, context_ids))

    def effective(self, where: Where) -> Where:
        """See `Storage.effective`."""
        with self._pool.reader() as database:
            return self._effective(database, where)

    def _effective(self, database: Database, where: Where) -> Where:
        def least(column: str) -> Any:
            sql = f"SELECT min({column}) FROM {CONTEXTS} WHERE {column} IS NOT NULL"
            return self.remember(("least", column), lambda: decoded(column, database.conn.execute(sql).fetchone()[0]))

        return effective(where, least)

    # Vectors

    def nearest(self, vector: Array32, *, set_key: int, k: int, where: Where = ()) -> Nearest:
        """See `Storage.nearest`."""
        if self._vectors.engine == "sqlite-vec" and not self.read_only:
            self._let_vec_table_catch_up(set_key)
        transaction = self._pool.current_transaction
        with self._pool.reader() as database:
            return self._vectors.nearest(
                database,
                vector,
                set_key=set_key,
                k=k,
                where=self._effective(database, where),
                columns=self._columns(database, CONTEXTS),
                dirty=transaction is not None,
            )

    def nearest_many(self, vectors: Array32, *, set_key: int, k: int, where: Where = ()) -> list[Nearest]:
        """See `Storage.nearest_many`: the exact engine compares all of them in one product."""
        with self._pool.reader() as database:
            effective, columns = self._effective(database, where), self._columns(database, CONTEXTS)
            at_once = self._vectors.nearest_many(
                database,
                vectors,
                set_key=set_key,
                k=k,
                where=effective,
                columns=columns,
                dirty=self.in_transaction,
            )
        return at_once or super().nearest_many(vectors, set_key=set_key, k=k, where=where)

    def _let_vec_table_catch_up(self, set_key: int) -> None:
        with self._pool.reader() as database:
            behind = not self._vectors.vec.position(database).covers(current_position(database, set_key))
        if behind:
            # While somebody writes, the exact engine answers: a search does not wait.
            with suppress(LabBusy), self._pool.transaction(waiting=False) as transaction:
                self._vectors.vec.sync(transaction.database, create=True)

    def similarities(self, vector: Array32, *, set_key: int, context_ids: Sequence[str]) -> dict[str, Neighbour]:
        """See `Storage.similarities`."""
        with self._pool.reader() as database:
            return self._vectors.similarities(
                database, vector, set_key=set_key, context_ids=context_ids, dirty=self.in_transaction
            )

    def known_vectors(self, model_id: str, chunk_hashes: Sequence[str]) -> dict[str, Array32]:
        """See `Storage.known_vectors`."""
        with self._pool.reader() as database:
            return self._vectors.known_vectors(database, model_id, chunk_hashes)

    def put_chunks(
        self,
        chunks: Mapping[str, Sequence[Chunk]],
        *,
        set_key: int | None,
        vectors: Mapping[str, Array32],
        content_changed: bool = False,
    ) -> None:
        """See `Storage.put_chunks`."""
        options: dict[str, Any] = {"set_key": set_key, "vectors": vectors, "content_changed": content_changed}
        with self._write(self.put_chunks, chunks, **options) as transaction:
            seal = self._seals.of(transaction.database, "embeddings")
            self._vectors.put_chunks(transaction.database, chunks, seal=seal, **options)
            transaction.vectors_changed = True

    def add_chunks(
        self, chunks: Mapping[str, Sequence[Chunk]], *, into: EmbeddingSet, vectors: Mapping[str, Array32]
    ) -> bool:
        """See `Storage.add_chunks`."""
        with self._write(self.add_chunks, chunks, into=into, vectors=vectors) as transaction:
            seal = self._seals.of(transaction.database, "embeddings")
            transaction.vectors_changed = True
            return self._vectors.add_chunks(transaction.database, chunks, into=into, vectors=vectors, seal=seal)

    def build_vector_index(self, set_key: int, *, progress: Callable[[int], None]) -> dict[str, Any]:
        """See `Storage.build_vector_index`."""
        if self._vectors.hnsw is None:
            raise InvalidValue("a lab that is in memory or read-only gets no HNSW index: searches are exact there")
        facts = self._vectors.hnsw.build(self._pool.reader, set_key, progress=progress)
        return {name: facts[name] for name in FACTS}

    def contexts_without_chunks(self, set_key: int, *, limit: int) -> list[Row]:
        """See `Storage.contexts_without_chunks`."""
        sql = f"SELECT id, content, token_count FROM {CONTEXTS} c WHERE {_WITHOUT_CHUNKS} ORDER BY context_key LIMIT ?"
        with self._pool.reader() as database:
            return list(database.query(sql, [set_key, limit]))

    def count_without_chunks(self, set_key: int | None) -> int:
        """See `Storage.count_without_chunks`."""
        with self._pool.reader() as database:
            sql = f"SELECT count(*) FROM {CONTEXTS} c WHERE {_WITHOUT_CHUNKS}"
            return int(database.execute(sql, [set_key]).fetchone()[0])
