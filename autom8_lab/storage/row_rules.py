"""What every row of a sound lab obeys, as SQL conditions that are true where it does not."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from .checksums import COLUMN, Seal
from .sql import DOCUMENTS, FLAGS, TIMES

if TYPE_CHECKING:
    from sqlite_utils import Database
    from sqlite_utils.utils import sqlite3

SHARES = {"quality_score", "complexity_score", "propensity"}
COUNTS = {
    "access_count",
    "result_count",
    "dimensions",
    "chunk_tokens",
    "chunk_overlap_tokens",
    "position",
    "start_char",
}
OBJECTS = {"metadata", "candidates"}
COST_PARTS = ("input", "cache_read", "cache_write", "output", "reasoning", "request")


@dataclass(frozen=True)
class Rule:
    """`broken` is the condition under which a row is not sound; `damage` says that its bytes are not what they were."""

    finding: str
    broken: str
    damage: bool = True


_PARTS = " + ".join(f"coalesce({name}_cost_usd, 0)" for name in COST_PARTS)
_CACHED = "coalesce(cache_read_tokens, 0) + coalesce(cache_write_tokens, 0)"
OF_TABLE: dict[str, list[Rule]] = {
    "context_registry": [
        Rule("content does not fit its hash", "content_hash IS NOT autom8_sha256(CAST(content AS BLOB))"),
        Rule("superseded by itself", "superseded_by = id", damage=False),
    ],
    "context_chunks": [Rule("ends before it begins", "end_char <= start_char")],
    "embedding_sets": [Rule("state is unknown", "state NOT IN ('building', 'active', 'retired')")],
    "embeddings": [
        Rule("vector is not finite or of another size", "NOT autom8_is_vector(vector, dimensions)"),
    ],
    "usage_ledger": [
        Rule("cache_read_tokens + cache_write_tokens exceed input_tokens", f"{_CACHED} > input_tokens", damage=False),
        Rule("reasoning_tokens exceed output_tokens", "reasoning_tokens > output_tokens", damage=False),
        Rule("source_id without a source", "source_id IS NOT NULL AND source IS NULL", damage=False),
        Rule(
            "cost_estimated_usd is not the sum of its parts",
            f"abs({_PARTS} - cost_estimated_usd) > 1e-9 + 1e-6 * cost_estimated_usd",
        ),
    ],
    "settings_log": [
        Rule("evidence is missing", "evidence IS NULL"),
        Rule("value is no JSON", "NOT coalesce(json_valid(value), 0)"),
    ],
}


def rules_of(table: str, columns: dict[str, str], seal: Seal | None) -> list[Rule]:
    """Return the rules for the rows of a table with these columns and types."""
    rules = []
    if seal is not None:
        rules.append(Rule("its checksum does not fit", f"{COLUMN} IS NOT NULL AND {COLUMN} IS NOT {seal.expression}"))
    texts = [f'CAST("{name}" AS BLOB)' for name, kind in columns.items() if kind == "TEXT"]
    if texts:
        rules.append(Rule("a text is not UTF-8", f"NOT autom8_are_texts({', '.join(texts)})"))
    for name in columns:
        rules += [Rule(finding, condition.format(f'"{name}"')) for finding, condition in _of_column(name)]
    return rules + OF_TABLE.get(table, [])


def _of_column(name: str) -> list[tuple[str, str]]:
    if name in TIMES:
        return [(f"{name} is no time", "{0} IS NOT NULL AND NOT autom8_is_moment(CAST({0} AS BLOB))")]
    if name in OBJECTS:
        return [(f"{name} is no JSON object", "iif(json_valid({0}), json_type({0}), '') <> 'object'")]
    if name in DOCUMENTS:
        return [(f"{name} is no JSON", "{0} IS NOT NULL AND NOT json_valid({0})")]
    if name in FLAGS:
        return [(f"{name} is neither true nor false", "{0} NOT IN (0, 1)")]
    if name in SHARES:
        return [(f"{name} is not from 0 to 1", "{0} NOT BETWEEN 0 AND 1")]
    if name in COUNTS or name.endswith(("_tokens", "_usd", "_ms")):
        return [(f"{name} is negative or infinite", "{0} NOT BETWEEN 0 AND 1e300")]
    return []


def register(connection: sqlite3.Connection) -> None:
    """Give a connection the SQL functions that the rules use."""
    functions = {"autom8_sha256": 1, "autom8_is_moment": 1, "autom8_is_vector": 2, "autom8_are_texts": -1}
    for name, count in functions.items():
        connection.create_function(name, count, globals()[name.removeprefix("autom8")], deterministic=True)


def _sha256(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()


def _is_moment(data: bytes | None) -> bool:
    if data is None:
        return True
    try:
        return datetime.fromisoformat(data.decode("ascii")).tzinfo is not None
    except ValueError:
        return False


def _is_vector(data: object, dimensions: object) -> bool:
    if not isinstance(data, bytes) or not isinstance(dimensions, int) or len(data) != 4 * dimensions:
        return False
    vector = np.frombuffer(data, dtype=np.float32)
    return bool(np.isfinite(vector).all() and vector.any())


def _are_texts(*cells: bytes | None) -> bool:
    try:
        for cell in cells:
            if cell is not None:
                cell.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def broken_rows(
    database: Database, table: str, rules: Sequence[Rule], *, after: int, limit: int
) -> tuple[list[tuple[int, Rule]], int | None]:
    """Return rowid and rule of what is broken among the next `limit` rows, and the last rowid looked at, if any."""
    last = database.execute(
        f'SELECT max(rowid) FROM (SELECT rowid FROM "{table}" WHERE rowid > ? ORDER BY rowid LIMIT ?)', [after, limit]
    ).fetchone()[0]
    if last is None or not rules:
        return [], last
    conditions = [f"coalesce({rule.broken}, 0)" for rule in rules]
    rows = database.execute(
        f'SELECT rowid, {", ".join(conditions)} FROM "{table}" WHERE rowid > ? AND rowid <= ? AND'
        f" ({' OR '.join(conditions)})",
        [after, last],
    )
    found = [
        (rowid, rule) for rowid, *broken in rows for rule, is_broken in zip(rules, broken, strict=True) if is_broken
    ]
    return found, last
