"""Judgments that are kept in the file: which contexts answer a query, and how well."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .agents import acting_agent
from .errors import InvalidValue
from .frames import TIME
from .records import Condition
from .validation import name_value, shortened, text_value

if TYPE_CHECKING:
    from .storage import Storage

QUERIES, JUDGMENTS = "judged_queries", "judgments"
BEST_FIRST = ["query_id", "-grade", "context_id"]

COLUMNS = {
    "query_id": "str",
    "query": "str",
    "context_id": "str",
    "grade": "Int64",
    "agent": "str",
    "at": TIME,
}
Queries = dict[str, str]
Grades = dict[str, dict[str, int]]


class Judgments:
    """The judgments of one lab: for each query grades of contexts, and queries that nothing answers."""

    def __init__(self, storage: Storage, *, agent: str | None, clock: Callable[[], datetime]) -> None:
        self._storage = storage
        self._agent = agent
        self._clock = clock

    def canonical(self, grades: Mapping[str, int | None], *, unknown: list[str]) -> dict[str, int | None]:
        """Return grades by the ids that searches show, where an alias stands for its context; None removes a grade.

        Of two names of one context the higher grade counts. Ids that nothing has are added to `unknown` instead.
        """
        names = list(grades)
        own = self._names("context_registry", "id", names)
        aliases = self._names("context_aliases", "alias", names)
        result: dict[str, int | None] = {}
        for name, grade in grades.items():
            if name not in own and name not in aliases:
                unknown.append(name)
                continue
            key = name if name in own else aliases[name]
            before = result.get(key)
            result[key] = grade if before is None or (grade is not None and grade > before) else before
        return result

    def _names(self, table: str, column: str, names: Sequence[str]) -> dict[str, str]:
        target = "context_id" if column == "alias" else "id"
        where = [Condition(column, "in", list(names))]
        return {row[column]: row[target] for row in self._storage.rows(table, where=where, columns=[column, target])}

    def query_id(self, query: str, given: str | None = None) -> str:
        """Return the id of a query: the one that it has in the file, else the given one, else one made of its text."""
        text_value(query, "query")
        rows = self._storage.rows(QUERIES, where=[Condition("query", "=", query)])
        if rows and given not in (None, rows[0]["query_id"]):
            raise InvalidValue(f"query_id={given!r}: {shortened(query)} is kept as {rows[0]['query_id']!r}; use that")
        digest = hashlib.blake2b(query.encode(), digest_size=4).hexdigest()
        return str(rows[0]["query_id"]) if rows else name_value(given, "query_id") if given else f"q-{digest}"

    def store(self, queries: Mapping[str, str], grades: Mapping[str, Mapping[str, int | None]]) -> None:
        """Keep grades; a context's earlier grade for the query is replaced, None removes it. Raises `InvalidValue`.

        A query with no grades is kept as one that nothing answers.
        """
        unknown: list[str] = []
        known = {name: self.canonical(own, unknown=unknown) for name, own in grades.items()}
        refuse_unknown(unknown)
        now = self._clock()
        with self._storage.transaction():
            for query_id in grades:
                self._keep_query(query_id, queries[query_id], now)
            for query_id, own in known.items():
                same = Condition("query_id", "=", query_id)
                self._storage.delete(JUDGMENTS, [same, Condition("context_id", "in", list(own))])
                row = {"query_id": query_id, "agent": acting_agent(self._agent), "at": now}
                kept = [{**row, "context_id": name, "grade": grade} for name, grade in own.items() if grade is not None]
                self._storage.insert(JUDGMENTS, kept)

    def _keep_query(self, query_id: str, query: str, now: datetime) -> None:
        rows = self._storage.rows(QUERIES, where=[Condition("query_id", "=", query_id)])
        if not rows:
            self.query_id(query, query_id)  # refuses a text that is kept under another id
            self._storage.insert(QUERIES, [{"query_id": query_id, "query": query, "at": now}])
        elif rows[0]["query"] != query:
            raise InvalidValue(
                f"query_id={query_id!r} is kept with the text {shortened(rows[0]['query'])}: give another id"
            )

    def stored(self) -> tuple[Queries, Grades, list[str]]:
        """Return the queries, their grades, and notes on judgments that are left out: their contexts are gone."""
        queries = {row["query_id"]: row["query"] for row in self._storage.rows(QUERIES, order_by=["query_id"])}
        raw: dict[str, dict[str, int]] = {name: {} for name in queries}
        for row in self._storage.rows(JUDGMENTS, order_by=BEST_FIRST):
            raw[row["query_id"]][row["context_id"]] = row["grade"]
        gone: list[str] = []
        grades = {name: self.canonical(own, unknown=gone) for name, own in raw.items()}
        plain = {name: {key: grade for key, grade in own.items() if grade is not None} for name, own in grades.items()}
        return queries, plain, [f"{len(gone)} judgments are left out: their contexts are gone"] if gone else []

    def rows(self) -> list[dict[str, Any]]:
        """Return rows of `COLUMNS`, by query; a query that nothing answers has one without context and grade."""
        judged: dict[str, list[dict[str, Any]]] = {}
        for row in self._storage.rows(JUDGMENTS, order_by=BEST_FIRST):
            judged.setdefault(row["query_id"], []).append(row)
        queries = self._storage.rows(QUERIES, order_by=["query_id"])
        return [{**query, **row} for query in queries for row in judged.get(query["query_id"], [{}])]


def refuse_unknown(names: Sequence[str]) -> None:
    """Raise `InvalidValue` where judged contexts are not in the lab."""
    if names:
        shown = ", ".join(map(repr, sorted(names)[:3])) + (" …" if len(names) > 3 else "")
        raise InvalidValue(
            f"{len(names)} judged contexts are not in the lab ({shown}): store them, or take them out of the judgments"
        )
