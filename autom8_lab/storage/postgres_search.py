"""The operations of the PostgreSQL back end that find contexts: by words and by vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ContextNotFound, InvalidValue
from ..records import Chunk, Nearest, Neighbour, TextMatch
from .base import Row, Where
from .filters import effective
from .postgres_binary import packed_integers, packed_texts
from .postgres_driver import Connection
from .postgres_figures import PostgresFigures
from .postgres_text import PostgresText, passages
from .postgres_vectors import PostgresVectors

if TYPE_CHECKING:
    from ..vectors.similarity import Array32

CONTEXTS = "context_registry"
WITHOUT_CHUNKS = (
    "NOT EXISTS (SELECT 1 FROM context_chunks k WHERE k.context_key = c.context_key AND k.set_key = %s::bigint)"
)


class PostgresSearch(PostgresFigures):
    """The operations of `PostgresStorage` on the text index and the vectors."""

    _text: PostgresText
    _vectors: PostgresVectors

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
        columns, dirty = self._columns(CONTEXTS), self.in_transaction
        effective = self.effective(where)
        return self._pool.read(
            lambda connection: self._text.match(
                connection,
                terms,
                k=k,
                where=effective,
                include=include,
                columns=columns,
                weights=column_weights or {},
                dirty=dirty,
            )
        )

    def matched_terms(self, terms: Sequence[str], context_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """See `Storage.matched_terms`."""
        dirty = self.in_transaction
        return self._pool.read(lambda connection: self._text.matched_terms(connection, terms, context_ids, dirty=dirty))

    def passages(self, terms: Sequence[str], context_ids: Sequence[str]) -> dict[str, str]:
        """See `Storage.passages`."""
        sql = f"SELECT id, content FROM {CONTEXTS} WHERE id = ANY(%s::text[])".encode()

        def action(connection: Connection) -> dict[str, str]:
            contents = dict(connection.execute(sql, [list(context_ids)]).fetchall())
            return passages(connection, terms, contents)

        return self._pool.read(action)

    def effective(self, where: Where) -> Where:
        """See `Storage.effective`."""

        def least(column: str) -> Any:
            sql = f"SELECT min({column}) FROM {CONTEXTS} WHERE {column} IS NOT NULL".encode()
            return self.remember(
                ("least", column), lambda: self._pool.read(lambda connection: connection.execute(sql).fetchall()[0][0])
            )

        return effective(where, least)

    # Vectors

    def nearest(self, vector: Array32, *, set_key: int, k: int, where: Where = ()) -> Nearest:
        """See `Storage.nearest`."""
        columns, dirty, effective = self._columns(CONTEXTS), self.in_transaction, self.effective(where)
        return self._pool.read(
            lambda connection: self._vectors.nearest(
                connection, vector, set_key=set_key, k=k, where=effective, columns=columns, dirty=dirty
            )
        )

    def nearest_many(self, vectors: Array32, *, set_key: int, k: int, where: Where = ()) -> list[Nearest]:
        """See `Storage.nearest_many`: the exact engine compares all of them in one product."""
        columns, dirty, effective = self._columns(CONTEXTS), self.in_transaction, self.effective(where)
        at_once = self._pool.read(
            lambda connection: self._vectors.nearest_many(
                connection, vectors, set_key=set_key, k=k, where=effective, columns=columns, dirty=dirty
            )
        )
        return at_once or super().nearest_many(vectors, set_key=set_key, k=k, where=where)

    def similarities(self, vector: Array32, *, set_key: int, context_ids: Sequence[str]) -> dict[str, Neighbour]:
        """See `Storage.similarities`."""
        dirty = self.in_transaction
        return self._pool.read(
            lambda connection: self._vectors.similarities(
                connection, vector, set_key=set_key, context_ids=context_ids, dirty=dirty
            )
        )

    def known_vectors(self, model_id: str, chunk_hashes: Sequence[str]) -> dict[str, Array32]:
        """See `Storage.known_vectors`."""
        return self._pool.read(lambda connection: self._vectors.known_vectors(connection, model_id, chunk_hashes))

    def put_chunks(
        self,
        chunks: Mapping[str, Sequence[Chunk]],
        *,
        set_key: int | None,
        vectors: Mapping[str, Array32],
        content_changed: bool = False,
    ) -> None:
        """See `Storage.put_chunks`."""

        def action(connection: Connection) -> None:
            sql = f"SELECT id, context_key FROM {CONTEXTS} WHERE id = ANY(%s::text[])".encode()
            keys: dict[str, int] = dict(connection.execute(sql, [packed_texts(chunks)]).fetchall())
            if missing := next((context_id for context_id in chunks if context_id not in keys), None):
                raise ContextNotFound(f"no context {missing!r} to put chunks to")
            if set_key is not None:
                by_key = {keys[context_id]: items for context_id, items in chunks.items()}
                self._vectors.put_chunks(connection, by_key, set_key=set_key, vectors=vectors)
            if content_changed:
                connection.execute(
                    "DELETE FROM context_chunks WHERE context_key = ANY(%s::bigint[])"
                    " AND set_key IS DISTINCT FROM %s::bigint",
                    [packed_integers(keys.values()), set_key],
                )

        self._pool.write(action)

    def build_vector_index(self, set_key: int, *, progress: Callable[[int], None]) -> dict[str, Any]:
        """See `Storage.build_vector_index`."""
        if self.read_only:
            raise InvalidValue("a lab that is open read-only gets no HNSW index: searches are exact there")
        connection = self._pool.connect()
        try:
            with self._pool.translating():
                return self._vectors.build_index(connection, set_key, progress=progress)
        finally:
            connection.close()

    def contexts_without_chunks(self, set_key: int, *, limit: int) -> list[Row]:
        """See `Storage.contexts_without_chunks`."""
        sql = f"SELECT id, content, token_count FROM {CONTEXTS} c WHERE {WITHOUT_CHUNKS} ORDER BY context_key LIMIT %s"
        rows = self._pool.read(lambda connection: connection.execute(sql.encode(), [set_key, limit]).fetchall())
        return [dict(zip(("id", "content", "token_count"), row, strict=True)) for row in rows]

    def count_without_chunks(self, set_key: int | None) -> int:
        """See `Storage.count_without_chunks`."""
        sql = f"SELECT count(*) FROM {CONTEXTS} c WHERE {WITHOUT_CHUNKS}".encode()
        return int(self._pool.read(lambda connection: connection.execute(sql, [set_key]).fetchall()[0][0]))
