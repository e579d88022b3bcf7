"""Full-text search in SQLite: FTS5 ranks, the filters run below the ranking."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlite_utils import Database

from ..records import TextMatch
from .base import Where
from .sql import where_clause

FTS = "context_registry_fts"
INDEXED = ("content", "topic", "summary")


def _any_of(terms: Sequence[str]) -> str:
    # Quoted, a term is only ever text: no word of FTS5's query language is left in it.
    return " OR ".join('"' + term.replace('"', '""') + '"' for term in terms)


def match_text(
    database: Database,
    terms: Sequence[str],
    *,
    k: int,
    where: Where,
    include: Sequence[str],
    columns: Mapping[str, Any],
    weights: Mapping[str, float],
) -> list[TextMatch]:
    """See `Storage.match_text`."""
    if not terms:
        return []
    filters, parameters = where_clause(where, columns, prefix="c.")
    if any(weights.get(name, 1.0) != 1.0 for name in INDEXED):
        # FTS5 reads the ranking function with its arguments from a text, and goes on sorting by itself.
        filters = f"{filters or ' WHERE 1'} AND {FTS}.rank MATCH ?"
        parameters.append(f"bm25({', '.join(repr(float(weights.get(name, 1.0))) for name in INDEXED)})")
    select = f"""
        SELECT c.id, -{FTS}.rank AS score FROM {FTS} JOIN context_registry c ON c.context_key = {FTS}.rowid
        {filters or "WHERE 1"} AND {FTS} MATCH ?
    """
    query = [*parameters, _any_of(terms)]
    best = database.execute(f"{select} ORDER BY {FTS}.rank, c.id LIMIT ?", [*query, k]).fetchall()
    matches = [TextMatch(context_id, score, rank) for rank, (context_id, score) in enumerate(best, 1)]
    others = set(include) - {match.context_id for match in matches}
    if others and len(best) == k:
        keys = f"{FTS}.rowid IN (SELECT context_key FROM context_registry WHERE id IN (SELECT value FROM json_each(?)))"
        rest = database.execute(f"{select} AND {keys}", [*query, json.dumps(sorted(others))]).fetchall()
        rest.sort(key=lambda row: (-row[1], row[0]))
        matches += [TextMatch(context_id, score, k + place) for place, (context_id, score) in enumerate(rest, 1)]
    return matches


def matched_terms(database: Database, terms: Sequence[str], context_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """See `Storage.matched_terms`."""
    keys = _keys(database, context_ids)
    found: dict[str, list[str]] = {context_id: [] for context_id in keys.values()}
    for term in terms:
        sql = f"SELECT rowid FROM {FTS} WHERE {FTS} MATCH ? AND rowid IN (SELECT value FROM json_each(?))"
        for (key,) in database.execute(sql, [_any_of([term]), json.dumps(list(keys))]):
            found[keys[key]].append(term)
    return {context_id: tuple(words) for context_id, words in found.items()}


def passages(database: Database, terms: Sequence[str], context_ids: Sequence[str]) -> dict[str, str]:
    """See `Storage.passages`; at most 64 words, which is FTS5's limit."""
    if not terms:
        return {}
    keys = _keys(database, context_ids)
    sql = f"""
        SELECT rowid, snippet({FTS}, 0, '', '', '', 64) FROM {FTS}
        WHERE {FTS} MATCH ? AND rowid IN (SELECT value FROM json_each(?))
    """
    rows = database.execute(sql, [_any_of(terms), json.dumps(list(keys))])
    return {keys[key]: passage for key, passage in rows}


def _keys(database: Database, context_ids: Sequence[str]) -> dict[int, str]:
    sql = "SELECT context_key, id FROM context_registry WHERE id IN (SELECT value FROM json_each(?))"
    return dict(database.execute(sql, [json.dumps(list(context_ids))]).fetchall())
