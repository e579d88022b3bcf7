"""What `PostgresStorage` knows of its own state, and what it checks; the server looks after the rest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from ..errors import InvalidValue, StorageError
from ..records import Finding, Report
from .base import Storage, TableShape
from .postgres_driver import Connection
from .postgres_migrations import DERIVED
from .postgres_pool import PostgresPool
from .postgres_sql import KINDS
from .postgres_vectors import Choice, PostgresVectors

REFERENCES = """
    SELECT t.relname, o.relname FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid
    JOIN pg_class o ON o.oid = c.confrelid WHERE c.contype = 'f' AND t.relnamespace = current_schema()::regnamespace
"""
KEYS = """
    SELECT t.relname, a.attname FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid
    JOIN unnest(c.conkey) WITH ORDINALITY k(number, place) ON true
    JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.number
    WHERE c.contype = 'p' AND t.relnamespace = current_schema()::regnamespace AND NOT t.relispartition
    ORDER BY t.relname, k.place
"""
# What belongs to the key of a partition, and not to what identifies a row.
PARTITION_KEYS = {"usage_ledger": ("usage_key",), "access_log": ("id",)}
# Finding, severity, table, the key of the rows that have it, and from where.
RULES = [
    (
        "content does not fit its hash",
        "context_registry",
        "SELECT id FROM context_registry WHERE content_hash <> encode(sha256(convert_to(content, 'UTF8')), 'hex')",
        "al.update_context(id, content=…) gives it a text again",
    ),
    (
        "a chunk lies outside of its text",
        "context_chunks",
        "SELECT k.chunk_key::text FROM context_chunks k JOIN context_registry c USING (context_key)"
        " WHERE k.start_char < 0 OR k.end_char <= k.start_char OR k.end_char > char_length(c.content)",
        "al.embed_contexts() makes the chunks of a context again after its content was updated",
    ),
    (
        "a chunk has no vector",
        "context_chunks",
        "SELECT k.chunk_key::text FROM context_chunks k JOIN embedding_sets s USING (set_key) WHERE NOT EXISTS"
        " (SELECT 1 FROM embeddings e WHERE e.chunk_hash = k.chunk_hash AND e.model_id = s.model_id)",
        "delete the context's chunks; al.embed_contexts() makes them again",
    ),
    (
        "vector is of another size",
        "embeddings",
        "SELECT embedding_key::text FROM embeddings WHERE vector_dims(vector) <> dimensions",
        "delete the row and its chunks; al.embed_contexts() makes them again",
    ),
    (
        "is not in the text index",
        "context_registry",
        "SELECT id FROM context_registry WHERE words IS NULL OR word_count IS NULL",
        "UPDATE context_registry SET content = content",
    ),
    (
        "a source_id is there twice",
        "usage_ledger",
        "SELECT min(usage_key)::text FROM usage_ledger WHERE source_id IS NOT NULL AND source IS NOT NULL"
        " GROUP BY source, source_id HAVING count(*) > 1",
        "delete one of the rows",
    ),
    (
        "evidence is missing",
        "settings_log",
        "SELECT settings_key::text FROM settings_log WHERE evidence IS NULL",
        "delete the row: no lab wrote it",
    ),
    (
        "an index is not valid",
        "(index)",
        "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " WHERE NOT i.indisvalid AND c.relnamespace = current_schema()::regnamespace AND c.relkind = 'i'",
        "DROP INDEX …, and build it again (al.build_vector_index() for hnsw_…)",
    ),
]


class PostgresCare(Storage):
    """The operations of `PostgresStorage` that look after the lab."""

    _pool: PostgresPool
    _vectors: PostgresVectors
    _schema: dict[str, dict[str, str]]

    def health(self, names: Collection[str] | None = None) -> dict[str, Any]:
        """See `Storage.health`."""
        lines = self._lines()
        wanted = [name for name in lines if name not in FOR_ADVICE] if names is None else names
        return Report.gathered({name: lines[name] for name in wanted})

    def _lines(self) -> dict[str, Callable[[], Any]]:
        def value(sql: str) -> Any:
            return self._pool.read(lambda connection: connection.execute(sql.encode()).fetchall()[0][0])

        def choice() -> Choice:
            def action(connection: Connection) -> Choice:
                row = connection.execute("SELECT set_key FROM embedding_sets WHERE state = 'active'").fetchone()
                return self._vectors.choose(connection, row[0] if row else None)

            return self._pool.read(action)

        version = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
        return {
            "path": lambda: self.path,
            "file_bytes": lambda: value("SELECT pg_database_size(current_database())"),
            "read_only": lambda: self.read_only,
            "server_version": lambda: value("SHOW server_version"),
            "server_started_at": lambda: value("SELECT pg_postmaster_start_time()"),
            "pgvector": lambda: value(version),
            "replica": lambda: value("SELECT pg_is_in_recovery()"),
            "schema": lambda: value("SELECT current_schema()"),
            "role": lambda: value("SELECT current_user"),
            "encoding": lambda: value("SHOW server_encoding"),
            "synchronous_commit": lambda: value("SHOW synchronous_commit"),
            "page_checksums": lambda: value("SHOW data_checksums"),
            "server_connections": lambda: value("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"),
            "months": lambda: value(
                "SELECT count(*) FROM pg_inherits WHERE inhparent = 'usage_ledger'::regclass"
            ) - 1,
            "last_backup": lambda: "the server's: pg_dump or pg_basebackup; al.copy_lab makes a file",
            "vector_engine": lambda: choice().engine,
            "vector_engine_reason": lambda: choice().reason,
            "unused_vectors": lambda: value(
                "SELECT count(*) FROM embeddings e WHERE NOT EXISTS"
                " (SELECT 1 FROM context_chunks k WHERE k.chunk_hash = e.chunk_hash)"
            ),
            "sqlite_vec": lambda: f"pgvector-{value(version)}",
            "wal_reset_bug": lambda: "none",
        }  # fmt: skip

    def check(self, *, progress: Callable[[int, int], None] | None = None) -> Iterator[Finding]:
        """See `Storage.check`: the server compares, nothing is fetched but what is wrong."""
        for done, (finding, table, sql, remedy) in enumerate(RULES):
            if progress:
                progress(done, len(RULES))
            try:
                keys = self._pool.read(partial(_first_column, sql=sql))
            except StorageError as exc:
                yield Finding("error", table, "", f"cannot be read: {exc}", "see the server's log")
                continue
            for key in keys:
                yield Finding("error", table, str(key), finding, remedy)
        if progress:
            progress(len(RULES), len(RULES))

    def copy_to(self, path: str, *, progress: Callable[[int, int], None] | None = None) -> None:
        """Refuse: a server is backed up by its own means, and a lab is copied into a file by `al.copy_lab`."""
        raise InvalidValue(
            f"{self.path} is on a server, whose backup is pg_dump or pg_basebackup; "
            f"al.copy_lab({self.path!r}, 'copy.db') makes a file of the lab, al.export('lab.jsonl') lines"
        )

    def tables(self) -> dict[str, TableShape]:
        """See `Storage.tables`."""

        def action(connection: Connection) -> tuple[list[Any], list[Any], set[str]]:
            views = connection.execute("SELECT viewname FROM pg_views WHERE schemaname = current_schema()")
            names = {row[0] for row in views}
            return connection.execute(REFERENCES).fetchall(), connection.execute(KEYS).fetchall(), names

        self._columns_known()
        references, keys, views = self._pool.read(action)
        found = {}
        for table, columns in self._schema.items():
            if table in DERIVED or table in views or table not in own_tables():
                continue
            found[table] = TableShape(
                columns={name: KINDS[kind] for name, kind in columns.items()},
                key=PARTITION_KEYS.get(table) or tuple(name for owner, name in keys if owner == table),
                references=frozenset(other for owner, other in references if owner == table)
                | ({"access_log"} if table == "access_results" else frozenset()),
            )
        return found

    def _columns_known(self) -> None:
        raise NotImplementedError

    def snapshot(self) -> AbstractContextManager[None]:
        """See `Storage.snapshot`."""
        return self._pool.snapshot()


def _first_column(connection: Connection, sql: str) -> list[Any]:
    return [row[0] for row in connection.execute(sql.encode())]


FOR_ADVICE = {"sqlite_vec", "wal_reset_bug"}  # what only the advice about files asks for


def own_tables() -> set[str]:
    """Return the tables that the migrations make."""
    import re

    from .postgres_migrations import STEPS

    return {name for step in STEPS for name in re.findall(r"CREATE TABLE (\w+)", step.forward)}
