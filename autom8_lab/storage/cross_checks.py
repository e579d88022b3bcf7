"""What the rows of a sound lab have to do with each other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from ..records import Finding
from .sqlite_vec import VEC_TABLE

if TYPE_CHECKING:
    from sqlite_utils import Database

CONTEXTS_AT_ONCE = 200


@dataclass(frozen=True)
class Query:
    """A question whose every answer is a finding about one row: its key. `{remedy}` stands for the general one.

    It is asked where all tables that it `needs` are part of the schema.
    """

    table: str
    needs: frozenset[str]
    finding: str
    sql: str
    severity: Literal["error", "warning"] = "error"
    remedy: str = "{remedy}"

    def findings(self, database: Database, remedy: str) -> Iterator[Finding]:
        """Yield a finding for each row that the question finds."""
        for (key,) in database.execute(self.sql):
            yield Finding(self.severity, self.table, str(key), self.finding, self.remedy.format(remedy=remedy))


QUERIES = [
    Query(
        "context_aliases",
        frozenset({"context_aliases", "context_registry"}),
        "the alias is the id of another context too",
        "SELECT alias FROM context_aliases WHERE alias IN (SELECT id FROM context_registry)",
    ),
    Query(
        "context_registry",
        frozenset({"context_registry"}),
        "superseded in a circle",
        """
        WITH RECURSIVE following(start, id, steps) AS (
            SELECT id, superseded_by, 1 FROM context_registry WHERE superseded_by IS NOT NULL
            UNION ALL
            SELECT start, superseded_by, steps + 1 FROM following JOIN context_registry USING (id)
            WHERE superseded_by IS NOT NULL AND following.id <> start AND steps < 1000
        ) SELECT DISTINCT start FROM following WHERE id = start
        """,
    ),
    Query(
        "embedding_sets",
        frozenset({"embedding_sets"}),
        "no set of vectors is active, so that no search by meaning is answered",
        "SELECT max(set_key) FROM embedding_sets HAVING count(*) > 0 AND total(state = 'active') = 0",
        "warning",
        "al.embed_contexts()",
    ),
    Query(
        "context_chunks",
        frozenset({"context_chunks", "embedding_sets", "embeddings"}),
        "has no vector",
        """
        SELECT chunk_key FROM context_chunks k JOIN embedding_sets s USING (set_key)
        WHERE NOT EXISTS (SELECT 1 FROM embeddings e WHERE e.chunk_hash = k.chunk_hash AND e.model_id = s.model_id)
        """,
    ),
    Query(
        "embeddings",
        frozenset({"context_chunks", "embeddings"}),
        "belongs to no chunk",
        """
        SELECT embedding_key FROM embeddings e
        WHERE NOT EXISTS (SELECT 1 FROM context_chunks k WHERE k.chunk_hash = e.chunk_hash)
        """,
        "warning",
        "nothing: it takes room and is used again if the text comes back",
    ),
    Query(
        "embeddings",
        frozenset({"embeddings", "embedding_sets"}),
        "has another size than its model's vectors",
        """
        SELECT embedding_key FROM embeddings e JOIN embedding_sets s USING (model_id)
        WHERE e.dimensions <> s.dimensions
        """,
    ),
    Query(
        "decision_contexts",
        frozenset({"decision_contexts"}),
        "the contexts of the decision are not numbered 1, 2, 3, …",
        """
        SELECT decision_id FROM decision_contexts GROUP BY decision_id
        HAVING min(position) <> 1 OR max(position) <> count(*)
        """,
    ),
    Query(
        "access_results",
        frozenset({"access_log", "access_results"}),
        "there are not as many results as the log says",
        """
        SELECT id FROM access_log l
        WHERE result_count <> (SELECT count(*) FROM access_results r WHERE r.access_id = l.id)
        """,
    ),
    Query(
        "context_chunks",
        frozenset({"context_chunks"}),
        "the next key would be one that was given before",
        "SELECT max(chunk_key) FROM context_chunks"
        " HAVING max(chunk_key) > coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'context_chunks'), 0)",
    ),
]


def foreign_keys(database: Database, remedy: str) -> Iterator[Finding]:
    """Yield the references that lead nowhere."""
    for table, rowid, parent, _ in database.execute("PRAGMA foreign_key_check"):
        yield Finding("error", table, str(rowid), f"refers to a row that is not in {parent}", remedy)


def chunks(database: Database, remedy: str) -> Iterator[Finding]:
    """Compare each chunk with the span of the text that it names, and see that they cover the text."""
    after = -(2**63)
    while True:
        texts = database.execute(
            "SELECT context_key, CAST(content AS BLOB) FROM context_registry WHERE context_key > ?"
            " ORDER BY context_key LIMIT ?",
            [after, CONTEXTS_AT_ONCE],
        ).fetchall()
        if not texts:
            return
        first, after = texts[0][0], texts[-1][0]
        rows = database.execute(
            "SELECT context_key, set_key, position, start_char, end_char, CAST(chunk_hash AS BLOB), chunk_key"
            " FROM context_chunks WHERE context_key BETWEEN ? AND ? ORDER BY 1, 2, 3",
            [first, after],
        )
        known = dict(texts)
        for (context_key, _), group in groupby(rows, key=lambda row: row[:2]):
            content = known.get(context_key)
            if content is not None:
                yield from _of_context(content, list(group), remedy)


def wrong_chunks(content: bytes, rows: list[tuple[Any, ...]]) -> list[tuple[Any, str]]:
    """Return the keys of the chunks of one text and set that are wrong, and what is: rows as in `chunks`."""
    text = content.decode("utf-8", "replace")
    wrong = []
    covered = 0
    for place, (_, _, position, start, end, chunk_hash, key) in enumerate(rows):
        if not (isinstance(start, int) and isinstance(end, int)):
            wrong.append((key, "where it stands in the text is no number"))
            continue
        span = content if (start, end) == (0, len(text)) else text[start:end].encode("utf-8", "replace")
        if hashlib.sha256(span).hexdigest().encode() != chunk_hash:
            wrong.append((key, "its hash does not fit the text that it stands for"))
        elif position != place or start > covered:
            wrong.append((key, "a chunk before it is missing"))
        covered = max(covered, end)
    if covered < len(text) and not wrong:
        wrong.append((rows[-1][-1], "the chunks after it are missing"))
    return wrong


def _of_context(content: bytes, rows: list[tuple[Any, ...]], remedy: str) -> Iterator[Finding]:
    for key, finding in wrong_chunks(content, rows):
        yield Finding("error", "context_chunks", str(key), finding, remedy)


def vec_table(database: Database, remedy: str) -> Iterator[Finding]:
    """Compare `vec_embeddings` with the vectors that it was made from, as far as it has read them."""
    if database.execute("SELECT 1 FROM pragma_function_list WHERE name = 'vec_version'").fetchone() is None:
        return
    row = database.execute("SELECT state FROM index_state WHERE name = ?", [VEC_TABLE]).fetchone()
    if row is None or not database.table(VEC_TABLE).exists():
        return
    made_of = """
        context_chunks k JOIN embedding_sets s USING (set_key) JOIN embeddings e USING (chunk_hash, model_id)
        WHERE k.set_key = json_extract(?1, '$.set_key') AND k.chunk_key <= json_extract(?1, '$.chunk_key')
    """
    wrong = f"""
        SELECT k.chunk_key FROM {made_of}
        AND (SELECT v.embedding FROM {VEC_TABLE} v WHERE v.chunk_key = k.chunk_key) IS NOT e.vector
    """
    counts = f"""
        SELECT (SELECT count(*) FROM {VEC_TABLE}) <> (SELECT count(*) FROM {made_of})
            AND json_extract(?1, '$.deletion_key') >= (SELECT coalesce(max(deletion_key), 0) FROM chunk_deletions)
    """
    for (key,) in database.execute(wrong, [row[0]]):
        yield Finding("error", VEC_TABLE, str(key), "is not the vector that it was made from", remedy)
    if database.execute(counts, [row[0]]).fetchone()[0]:
        yield Finding("error", VEC_TABLE, "", "has another number of vectors than it was made from", remedy)


@dataclass(frozen=True)
class Function:
    """What a single question cannot find out."""

    table: str
    needs: frozenset[str]
    findings: Callable[[Database, str], Iterator[Finding]]


_VECTORS = frozenset({"context_registry", "context_chunks", "embedding_sets", "embeddings"})
CHECKS: list[Query | Function] = [
    *QUERIES,
    Function("", frozenset(), foreign_keys),
    Function("context_chunks", _VECTORS, chunks),
    Function(VEC_TABLE, _VECTORS | {"index_state"}, vec_table),
]
