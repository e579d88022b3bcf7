"""Figures by group on PostgreSQL, made by the server: sums, and values by their ranks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..records import Group, Measure, Rate
from .base import Ranked, Where
from .filters import quoted, refuse_unknown
from .postgres_columns import PostgresColumns, json_value, key_text
from .postgres_driver import Connection
from .postgres_sql import where_clause

TRUNCATED = {"h": "hour", "D": "day", "W": "week", "M": "month"}
MANY_GROUPS = 10_000  # of more the answer is about as large as the table
# Three columns are sorted in memory where the server allows less by itself.
SORTING = "SELECT set_config('work_mem', '64MB', true) WHERE pg_size_bytes(current_setting('work_mem')) < 67108864"


class PostgresFigures(PostgresColumns):
    """The operations of `PostgresStorage` that reckon."""

    def aggregate(
        self, table: str, *, by: Sequence[Group], measures: Sequence[Measure], where: Where = ()
    ) -> dict[str, list[Any]]:
        """See `Storage.aggregate`."""
        known = self._columns(table)
        named = [group.column for group in by]
        for measure in measures:
            named += [*measure.columns, *([measure.given] if measure.given else [])]
        refuse_unknown(table, named, known)
        groups = [_group(group) for group in by]
        filters, parameters = where_clause(where, known)
        terms = ", ".join([term for term, _ in groups] + [_figure(measure, known) for measure in measures])
        places = [str(place) for place in range(1, len(by) + 1)]
        order = ", ".join(f"{place} NULLS FIRST" for place in places)
        end = f" GROUP BY {', '.join(places)} ORDER BY {order}" if by else " HAVING count(*) > 0"
        given = [value for _, values in groups for value in values]
        sql = f"SELECT {terms} FROM {quoted(table)}{filters}{end}".encode()
        rows = self._pool.read(lambda connection: connection.execute(sql, [*given, *parameters]).fetchall())
        rows = [(*_shown(row, by), *row[len(by) :]) for row in rows]
        if any(group.key is not None for group in by):
            rows.sort(key=lambda row: [(cell is not None, cell) for cell in row[: len(by)]])
        labels = [*(group.label for group in by), *(measure.name for measure in measures)]
        return dict(zip(labels, map(list, zip(*rows, strict=True)) if rows else ([] for _ in labels), strict=True))

    def ranked(
        self,
        table: str,
        *,
        by: Sequence[Group],
        values: Mapping[str, str | Rate],
        ranks: Callable[[str, int], Sequence[int]],
        where: Where = (),
    ) -> Ranked | None:
        """See `Storage.ranked`."""
        known = self._columns(table)
        named = [group.column for group in by]
        for value in values.values():
            named += [value] if isinstance(value, str) else value.columns
        refuse_unknown(table, named, known)
        terms = [_group(group) for group in by]
        cells = [f"{term} AS g{place}" for place, (term, _) in enumerate(terms)]
        cells += [f"{_value(value)} AS v{place}" for place, value in enumerate(values.values())]
        filters, parameters = where_clause(where, known)
        given = [*(value for _, some in terms for value in some), *parameters]
        source = f"(SELECT {', '.join(cells)} FROM {quoted(table)}{filters}) r"
        with self._pool.snapshot():
            return self._pool.read(lambda connection: _ranked(connection, source, given, by, list(values), ranks))


def _ranked(
    connection: Connection,
    source: str,
    given: Sequence[Any],
    by: Sequence[Group],
    names: Sequence[str],
    ranks: Callable[[str, int], Sequence[int]],
) -> Ranked | None:
    groups = [f"g{place}" for place in range(len(by))]
    name = f"jsonb_build_array({', '.join(groups)})::text"
    end = f" GROUP BY {', '.join(groups)}" if by else " HAVING count(*) > 0"
    counts = ", ".join(f"count(v{place})" for place in range(len(names)))
    sql = f"SELECT {', '.join([name, *groups])}, {counts} FROM {source}{end} LIMIT {MANY_GROUPS + 1}"
    rows = connection.execute(sql.encode(), given).fetchall()
    if len(rows) > MANY_GROUPS:
        return None
    keys = {group.label: [_shown(row[1:], by)[place] for row in rows] for place, group in enumerate(by)}
    found = Ranked(keys, {})
    wanted: list[dict[str, list[int]]] = []
    for place, value in enumerate(names):
        numbers = [int(row[1 + len(by) + place]) for row in rows]
        wanted.append({row[0]: sorted(set(ranks(value, n))) if n else [] for row, n in zip(rows, numbers, strict=True)})
        found.values[value] = [(n, {}) for n in numbers]
    # The k-th of n values is the first that at least (k - 1/2) / n of them do not exceed.
    shares = [
        json.dumps({row[0]: _shares(some[row[0]], found.values[value][place][0]) for place, row in enumerate(rows)})
        for value, some in zip(names, wanted, strict=True)
    ]
    ordered = ", ".join(
        f"percentile_disc((%s::jsonb ->> {name})::float8[]) WITHIN GROUP (ORDER BY v{place})"
        for place in range(len(names))
    )
    connection.execute(SORTING.encode())
    sql = f"SELECT {name}, {ordered} FROM {source}{end}"
    at = {row[0]: place for place, row in enumerate(rows)}
    for key, *lists in connection.execute(sql.encode(), [*shares, *given]):
        for value, some, cells in zip(names, wanted, lists, strict=True):
            found.values[value][at[key]][1].update(zip(some[key], cells or (), strict=True))
    return found


def _shares(ranks: Sequence[int], n: int) -> str:
    return "{" + ",".join(repr((rank - 0.5) / n) for rank in ranks) + "}"


def _value(value: str | Rate) -> str:
    """Return SQL for what is put in order, with the reckoning of `statistics.tokens_per_second`."""
    if isinstance(value, str):
        return f"{quoted(value)}::float8"
    amount, apart, duration, waited = (f"{quoted(name)}::float8" for name in value.columns)
    amount = f"CASE WHEN {waited} IS NULL OR {amount} IS NULL THEN {amount} ELSE greatest({amount} - coalesce({apart}, 0), 0) END"
    left = f"({duration} - coalesce({waited}, 0))"
    # A rate that no number can hold is none.
    holds = f"({left} >= 1 OR ({amount}) * 1000 <= {left} * 1.7976931348623157e308)"
    return f"CASE WHEN {left} > 0 AND {holds} THEN ({amount}) * 1000 / {left} END"


def _shown(row: Sequence[Any], by: Sequence[Group]) -> list[Any]:
    """Return the groups of a row as they are shown."""
    return [cell if group.key is None else key_text(cell) for cell, group in zip(row, by, strict=False)]


def _group(group: Group) -> tuple[str, list[Any]]:
    if group.freq:
        return f"date_trunc('{TRUNCATED[group.freq]}', {quoted(group.column)}, 'UTC')", []
    return json_value(group) if group.key is not None else (quoted(group.column), [])


def _figure(measure: Measure, known: Mapping[str, str]) -> str:
    columns = [f"{quoted(name)}{'::integer' if known[name] == 'boolean' else ''}" for name in measure.columns]
    what = f"coalesce({', '.join(columns)})" if len(columns) > 1 else columns[0] if columns else "*"
    only = f" FILTER (WHERE {quoted(measure.given)} IS NOT NULL)" if measure.given else ""
    kinds = {known[name] for name in measure.columns}
    if measure.function == "bytes":
        text = what if kinds == {"text"} else f"({what})::text"
        return f"(sum(octet_length({text})){only})::bigint"
    if measure.function == "sum":
        kind = "double precision" if "double precision" in kinds else "bigint"
        return f"(sum({what}){only})::{kind}"
    return f"{measure.function}({what}){only}"
