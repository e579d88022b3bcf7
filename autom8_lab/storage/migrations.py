"""The schema, as append-only steps, each with its reverse beside it."""

from __future__ import annotations

from collections.abc import Callable

from sqlite_utils import Database
from sqlite_utils.db import ForeignKey
from sqlite_utils.migrations import Migrations
from sqlite_utils.utils import sqlite3

from ..errors import InvalidValue
from .checksums import add_checksums, drop_checksums

Step = Callable[[Database], None]
APPLICATION_ID = 0x61386C62  # "a8lb", which `file` and SQLite tools can show
SET_NAME = "autom8_lab"
migrations = Migrations(SET_NAME)
reverses: dict[str, Step] = {}


def reverse_of(forward: Step) -> Callable[[Step], Step]:
    """Register a function as the reverse of a migration."""

    def register(backward: Step) -> Step:
        reverses[forward.__name__] = backward
        return backward

    return register


def _drop(database: Database, *names: str) -> None:
    for name in names:
        database.table(name).drop()


def _drop_virtual(database: Database, name: str) -> None:
    try:
        _drop(database, name)
    except sqlite3.OperationalError:
        # Its extension is not here: take its entry out of the schema, and then the tables that it kept.
        database.execute("PRAGMA writable_schema = ON")
        database.conn.execute("DELETE FROM sqlite_master WHERE type = 'table' AND name = ?", [name])
        database.execute("PRAGMA writable_schema = RESET")
        _drop(database, *(table for table in database.table_names() if table.startswith(f"{name}_")))


def _reference(table: str, column: str, other: str, other_column: str, action: str) -> ForeignKey:
    return ForeignKey(
        table=table,
        column=column,
        other_table=other,
        other_column=other_column,
        on_delete=action,
        on_update="CASCADE",
    )


@migrations()
def m001_contexts(database: Database) -> None:
    """Contexts and the second names of exact duplicates."""
    contexts = database.table("context_registry").create(
        {
            # FTS5 and chunks refer to a number that VACUUM must not change, so the public id is a column.
            "context_key": int,
            "id": str,
            "topic": str,
            "source": str,
            "priority": int,
            "pinned": int,
            "expires_at": str,
            "superseded_by": str,
            "token_count": int,
            "content_hash": str,
            "created_at": str,
            "updated_at": str,
            "accessed_at": str,
            "access_count": int,
            # The long columns stand last: filters then never walk over a text's overflow pages.
            "metadata": str,
            "summary": str,
            "content": str,
        },
        pk="context_key",
        not_null={
            "id",
            "content",
            "priority",
            "pinned",
            "content_hash",
            "metadata",
            "created_at",
            "updated_at",
            "access_count",
        },
        defaults={"priority": 0, "pinned": 0, "metadata": "{}", "access_count": 0},
        strict=True,
    )
    contexts.create_index(["id"], unique=True)
    contexts.add_foreign_key("superseded_by", "context_registry", "id", on_delete="SET NULL", on_update="CASCADE")
    for columns in (["topic"], ["source"], ["content_hash"], ["created_at"], ["priority"]):
        contexts.create_index(columns)
    for column in ("expires_at", "superseded_by"):
        database.execute(
            f"CREATE INDEX idx_context_registry_{column} ON context_registry({column}) WHERE {column} IS NOT NULL"
        )
    database.table("context_aliases").create(
        {"alias": str, "context_id": str, "created_at": str},
        pk="alias",
        not_null={"context_id", "created_at"},
        foreign_keys=[_reference("context_aliases", "context_id", "context_registry", "id", "CASCADE")],
        strict=True,
    )
    database.table("context_aliases").create_index(["context_id"])


@reverse_of(m001_contexts)
def _(database: Database) -> None:
    _drop(database, "context_aliases", "context_registry")


@migrations()
def m002_embeddings(database: Database) -> None:
    """Chunks, their vectors, and what an index needs to catch up: new keys only grow, deletions are listed."""
    database.table("embedding_sets").create(
        {
            "set_key": int,
            "model_id": str,
            "model_name": str,
            "dimensions": int,
            "chunk_tokens": int,
            "chunk_overlap_tokens": int,
            "state": str,
            "created_at": str,
            "activated_at": str,
        },
        pk="set_key",
        not_null={
            "model_id",
            "model_name",
            "dimensions",
            "chunk_tokens",
            "chunk_overlap_tokens",
            "state",
            "created_at",
        },
        strict=True,
    ).create_index(["model_id", "chunk_tokens", "chunk_overlap_tokens"], unique=True)
    database.execute("CREATE UNIQUE INDEX one_active_set ON embedding_sets(state) WHERE state = 'active'")
    # AUTOINCREMENT (never a key twice) is beyond sqlite-utils' create().
    database.execute(
        """
        CREATE TABLE context_chunks (
            chunk_key INTEGER PRIMARY KEY AUTOINCREMENT,
            set_key INTEGER NOT NULL REFERENCES embedding_sets(set_key) ON DELETE CASCADE,
            context_key INTEGER NOT NULL REFERENCES context_registry(context_key) ON DELETE CASCADE,
            position INTEGER NOT NULL,
            start_char INTEGER NOT NULL,
            end_char INTEGER NOT NULL,
            chunk_hash TEXT NOT NULL
        ) STRICT
        """
    )
    chunks = database.table("context_chunks")
    for columns in (["context_key", "set_key"], ["set_key"], ["chunk_hash"]):
        chunks.create_index(columns)
    database.table("embeddings").create(
        {"embedding_key": int, "chunk_hash": str, "model_id": str, "dimensions": int, "vector": bytes},
        pk="embedding_key",
        not_null={"chunk_hash", "model_id", "dimensions", "vector"},
        strict=True,
    ).create_index(["chunk_hash", "model_id"], unique=True)
    database.execute(
        "CREATE TABLE chunk_deletions"
        " (deletion_key INTEGER PRIMARY KEY AUTOINCREMENT, chunk_key INTEGER NOT NULL) STRICT"
    )
    database.table("index_state").create({"name": str, "state": str}, pk="name", not_null={"state"}, strict=True)
    database.execute(
        """
        CREATE TRIGGER context_chunks_ad AFTER DELETE ON context_chunks BEGIN
            INSERT INTO chunk_deletions (chunk_key) VALUES (old.chunk_key);
            DELETE FROM embeddings WHERE chunk_hash = old.chunk_hash
                AND NOT EXISTS (
                    SELECT 1 FROM context_chunks k JOIN embedding_sets s USING (set_key)
                    WHERE k.chunk_hash = embeddings.chunk_hash AND s.model_id = embeddings.model_id
                );
        END
        """
    )


@reverse_of(m002_embeddings)
def _(database: Database) -> None:
    if database.table("vec_embeddings").exists():
        _drop_virtual(database, "vec_embeddings")
    _drop(database, "index_state", "context_chunks", "chunk_deletions", "embeddings", "embedding_sets")


@migrations()
def m003_text_index(database: Database) -> None:
    """Full-text search over what a context says about itself."""
    columns = ["content", "topic", "summary"]
    database.table("context_registry").enable_fts(columns, tokenize="porter", create_triggers=True)
    # sqlite-utils' update trigger fires on every column: a pin or a read would index the whole text again.
    old, new = (", ".join(f"{row}.{column}" for column in columns) for row in ("old", "new"))
    database.execute("DROP TRIGGER context_registry_au")
    database.execute(
        f"""
        CREATE TRIGGER context_registry_au AFTER UPDATE OF {", ".join(columns)} ON context_registry BEGIN
            INSERT INTO context_registry_fts (context_registry_fts, rowid, {", ".join(columns)})
                VALUES ('delete', old.context_key, {old});
            INSERT INTO context_registry_fts (rowid, {", ".join(columns)}) VALUES (new.context_key, {new});
        END
        """
    )


@reverse_of(m003_text_index)
def _(database: Database) -> None:
    database.execute("DROP TRIGGER context_registry_au")
    database.table("context_registry").disable_fts()


@migrations()
def m004_ledger(database: Database) -> None:
    """Decisions, the contexts they saw, every model call, and what follows from them."""
    decisions = database.table("agent_decisions").create(
        {
            "id": str,
            "at": str,
            "agent": str,
            "decision_type": str,
            "summary": str,
            "content": str,
            "chosen": str,
            "candidates": str,
            "propensity": float,
            "policy": str,
            "policy_version": str,
            "complexity_score": float,
            "quality_score": float,
            "success": int,
            "outcome_at": str,
            "source": str,
            "source_id": str,
            "metadata": str,
        },
        pk="id",
        not_null={"at", "decision_type", "candidates", "metadata"},
        defaults={"candidates": "{}", "metadata": "{}"},
        strict=True,
    )
    decisions.create_index(["source", "source_id"], unique=True)
    for column in ("at", "chosen", "policy"):
        decisions.create_index([column])
    database.table("decision_contexts").create(
        {"decision_id": str, "position": int, "context_id": str},
        pk=("decision_id", "position"),
        not_null={"context_id"},
        foreign_keys=[_reference("decision_contexts", "decision_id", "agent_decisions", "id", "CASCADE")],
        strict=True,
    ).create_index(["context_id"])
    ledger = database.table("usage_ledger").create(
        {
            "usage_key": int,
            "at": str,
            "provider": str,
            "model": str,
            "operation": str,
            "agent": str,
            "input_tokens": int,
            "output_tokens": int,
            "cache_read_tokens": int,
            "cache_write_tokens": int,
            "reasoning_tokens": int,
            "cost_estimated_usd": float,
            # What the estimate is made of; input without what the cache gave, output without reasoning.
            "input_cost_usd": float,
            "cache_read_cost_usd": float,
            "cache_write_cost_usd": float,
            "output_cost_usd": float,
            "reasoning_cost_usd": float,
            "request_cost_usd": float,
            "cost_actual_usd": float,
            "cost_source": str,
            "price_date": str,
            "latency_ms": float,
            "ttft_ms": float,
            "quality_score": float,
            "success": int,
            "error_type": str,
            "decision_id": str,
            "source": str,
            "source_id": str,
            "metadata": str,
        },
        pk="usage_key",
        not_null={"at", "model", "operation", "metadata"},
        defaults={"metadata": "{}"},
        foreign_keys=[_reference("usage_ledger", "decision_id", "agent_decisions", "id", "SET NULL")],
        strict=True,
    )
    ledger.create_index(["source", "source_id"], unique=True)
    ledger.create_index(["at"])
    ledger.create_index(["model", "at"])
    database.execute(
        "CREATE INDEX idx_usage_ledger_decision ON usage_ledger(decision_id) WHERE decision_id IS NOT NULL"
    )
    # A view, so that it cannot drift from the ledger.
    database.create_view(
        "model_performance",
        """
        SELECT model, operation, count(*) AS calls, avg(success) AS success_rate,
            sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
            sum(coalesce(cost_actual_usd, cost_estimated_usd)) AS cost_usd,
            sum(coalesce(cost_actual_usd, cost_estimated_usd) IS NULL) AS unpriced_calls,
            avg(latency_ms) AS latency_ms_mean, avg(quality_score) AS quality_mean,
            min(at) AS first_at, max(at) AS last_at
        FROM usage_ledger GROUP BY model, operation
        """,
    )


@reverse_of(m004_ledger)
def _(database: Database) -> None:
    database.view("model_performance").drop()
    _drop(database, "usage_ledger", "decision_contexts", "agent_decisions")


@migrations()
def m005_access_log(database: Database) -> None:
    """Every search and read, and what it brought back."""
    log = database.table("access_log").create(
        {
            "id": str,
            "at": str,
            "kind": str,
            "agent": str,
            "query": str,
            "method": str,
            "engine": str,
            "degraded": str,
            "k": int,
            "filters": str,
            "result_count": int,
            "duration_ms": float,
        },
        pk="id",
        not_null={"at", "kind", "result_count"},
        strict=True,
    )
    log.create_index(["at"])
    # No foreign key to the context: that it was shown stays true after it is deleted.
    database.table("access_results").create(
        {"access_id": str, "rank": int, "context_id": str, "score": float},
        pk=("access_id", "rank"),
        not_null={"context_id"},
        foreign_keys=[_reference("access_results", "access_id", "access_log", "id", "CASCADE")],
        strict=True,
    ).create_index(["context_id"])


@reverse_of(m005_access_log)
def _(database: Database) -> None:
    _drop(database, "access_results", "access_log")


@migrations()
def m006_settings_log(database: Database) -> None:
    """Each applied recommendation with its evidence."""
    database.table("settings_log").create(
        {
            "settings_key": int,
            "at": str,
            "setting": str,
            "value": str,
            "embedding_model": str,
            "data_hash": str,
            "sample_size": int,
            "interval_low": float,
            "interval_high": float,
            "evidence": str,
            "reverts_key": int,
        },
        pk="settings_key",
        not_null={"at", "setting", "value"},
        strict=True,
    ).create_index(["setting", "at"])


@reverse_of(m006_settings_log)
def _(database: Database) -> None:
    _drop(database, "settings_log")


@migrations()
def m007_tuning(database: Database) -> None:
    """Judgments of what answers a query; which settings were applied together; how near a search came."""
    database.table("judged_queries").create(
        {"query_id": str, "query": str, "at": str}, pk="query_id", not_null={"query", "at"}, strict=True
    ).create_index(["query"], unique=True)
    # No foreign key to the context: a deleted one comes back with its judgment when it is stored again.
    database.table("judgments").create(
        {"query_id": str, "context_id": str, "grade": int, "agent": str, "at": str},
        pk=("query_id", "context_id"),
        not_null={"grade", "at"},
        foreign_keys=[_reference("judgments", "query_id", "judged_queries", "query_id", "CASCADE")],
        strict=True,
    )
    database.table("settings_log").add_column("application_id", str)
    database.table("access_log").add_column("top_similarity", float)


@reverse_of(m007_tuning)
def _(database: Database) -> None:
    _drop(database, "judgments", "judged_queries")
    database.execute("ALTER TABLE settings_log DROP COLUMN application_id")
    database.execute("ALTER TABLE access_log DROP COLUMN top_similarity")


# Tables that later migrations make get their checksums there.
SEALED = (
    "context_registry",
    "context_aliases",
    "embedding_sets",
    "embeddings",
    "agent_decisions",
    "decision_contexts",
    "usage_ledger",
    "access_log",
    "access_results",
    "settings_log",
    "judged_queries",
    "judgments",
)


@migrations()
def m008_checksums(database: Database) -> None:
    """A checksum for every row, so that damage is found; what was done to look after the file."""
    for table in SEALED:
        add_checksums(database, table)
    database.table("care_log").create(
        {"care_key": int, "at": str, "kind": str, "details": str},
        pk="care_key",
        not_null={"at", "kind", "details"},
        strict=True,
    )


@reverse_of(m008_checksums)
def _(database: Database) -> None:
    _drop(database, "care_log")
    for table in reversed(SEALED):
        drop_checksums(database, table)


@migrations()
def m009_import_cursors(database: Database) -> None:
    """How far the files of other programs were read."""
    database.table("import_cursors").create(
        {
            "kind": str,
            "path": str,
            "position": int,
            "line": int,
            "fingerprint": str,
            "metadata": str,
            "updated_at": str,
        },
        pk=("kind", "path"),
        not_null={"position", "line", "fingerprint", "metadata", "updated_at"},
        strict=True,
    )
    add_checksums(database, "import_cursors")


@reverse_of(m009_import_cursors)
def _(database: Database) -> None:
    _drop(database, "import_cursors")


@migrations()
def m010_text_changes(database: Database) -> None:
    """How often the text index changed otherwise than by growing: who has read it then reads only what is new."""
    database.table("index_state").insert({"name": "text", "state": "0"})
    for event in ("UPDATE OF content, topic, summary", "DELETE"):
        database.execute(
            f"""
            CREATE TRIGGER context_registry_text_{event.split()[0].lower()} AFTER {event} ON context_registry BEGIN
                UPDATE index_state SET state = state + 1 WHERE name = 'text';
            END
            """
        )


@reverse_of(m010_text_changes)
def _(database: Database) -> None:
    database.execute("DROP TRIGGER context_registry_text_update")
    database.execute("DROP TRIGGER context_registry_text_delete")
    database.table("index_state").delete("text")


@migrations()
def m011_billing(database: Database) -> None:
    """What providers billed, line by line, each amount with its currency."""
    billing = database.table("billing").create(
        {
            "bill_key": int,
            "at": str,
            "ends_at": str,
            "provider": str,
            "model": str,
            "description": str,
            "token_class": str,
            "amount": float,
            "currency": str,
            "calls": int,
            # As the bill tells them: input with the cache or without, output with the reasoning.
            "input_tokens": int,
            "uncached_input_tokens": int,
            "cache_read_tokens": int,
            "cache_write_tokens": int,
            "output_tokens": int,
            "reasoning_tokens": int,
            "source_id": str,
            "metadata": str,
            "updated_at": str,
        },
        pk="bill_key",
        not_null={"at", "ends_at", "provider", "amount", "currency", "source_id", "metadata", "updated_at"},
        defaults={"metadata": "{}"},
        strict=True,
    )
    billing.create_index(["provider", "source_id"], unique=True)
    billing.create_index(["at"])
    add_checksums(database, "billing")


@reverse_of(m011_billing)
def _(database: Database) -> None:
    drop_checksums(database, "billing")
    _drop(database, "billing")


def names() -> list[str]:
    """Return the names of all migrations, in order."""
    return list(reverses)


def count_until(to: int | str | None) -> int:
    """Return how many migrations `to` asks for: a count, the name of the last one, or None for all.

    Raises `InvalidValue`.
    """
    known = names()
    count = len(known) if to is None else known.index(to) + 1 if to in known else to
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= len(known):
        raise InvalidValue(f"no version {to!r}: give 0 to {len(known)}, or a name: {', '.join(known)}")
    return count


def applied(database: Database) -> list[tuple[str, str]]:
    """Return the applied migrations with the time of each, in order."""
    return [(item.name, item.applied_at) for item in migrations.applied(database)]


def apply_next(database: Database) -> str | None:
    """Apply the first pending migration inside the caller's transaction and return its name, or None."""
    pending = migrations.pending(database)
    if not pending:
        return None
    following = [item.name for item in pending[1:2]]
    migrations.apply(database, stop_before=following)
    return pending[0].name


def revert_last(database: Database) -> str | None:
    """Revert the last applied migration inside the caller's transaction and return its name, or None."""
    done = applied(database)
    if not done:
        return None
    name = done[-1][0]
    reverses[name](database)
    database.table(migrations.migrations_table).delete_where("migration_set = ? AND name = ?", [SET_NAME, name])
    return name
