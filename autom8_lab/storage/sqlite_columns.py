"""Many rows at once: columns into a table and out of it, and sums by group."""

from __future__ import annotations

import functools
import itertools
import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..records import Group, Measure
from .base import Coded, Storage, Where
from .checksums import COLUMN, Seal, Seals
from .filters import refuse_unknown
from .sql import DOCUMENTS, ILLEGIBLE, PLAIN, TIMES, decoded, encoded, order_clause, refuse_illegible, where_clause

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sqlite_utils import Database
    from sqlite_utils.utils import sqlite3

    from .base import Columnar
    from .pool import ConnectionPool
    from .transactions import Transaction

# Rows per fetch: few enough to be freed before Python's garbage collector looks at them.
FETCH_ROWS = 512
# A text column that leads an index and has few values is read as numbers, which takes half the time.
INDEXED_TEXTS = {"model"}
FEW_VALUES = 64
# Texts that hardly repeat: to code them would only cost.
IDS = {"id", "source_id"}
# What the period of a time is, and how to complete its text to an instant.
PERIODS = {
    "h": ('substr("{0}", 1, 13)', ":00:00+00:00"),
    "D": ('substr("{0}", 1, 10)', "T00:00:00+00:00"),
    "W": ("date(substr(\"{0}\", 1, 10), '-6 days', 'weekday 1')", "T00:00:00+00:00"),
    "M": ('substr("{0}", 1, 7)', "-01T00:00:00+00:00"),
}


# In


def append(
    database: Database, table: str, columns: Mapping[str, Columnar], *, unique: Sequence[str], seal: Seal | None
) -> tuple[list[int], list[bool]]:
    """See `Storage.append`; inside the caller's transaction."""
    rows: Sequence[Sequence[Any]]
    single = all(type(column) is list and len(column) == 1 for column in columns.values())
    names = tuple(columns if single or seal is None else _filled(columns, seal.empty_by_default))
    if single:
        row = [encoded(column[0]) for column in columns.values()]  # one call while it is running: be quick
        rows = [row if seal is None else [*row, *seal.of_rows(names, [row])]]
    else:
        given = [columns[name] for name in names]
        stored = [_stored(column) for column in given]
        if seal is not None:
            stored.append(seal.of_columns(names, given, stored))
        rows = list(zip(*stored, strict=True))
    if seal is not None:
        names = (*names, COLUMN)
    connection = database.conn
    last: int = connection.execute(f'SELECT coalesce(max(rowid), 0) FROM "{table}"').fetchone()[0]
    added = connection.executemany(_insertion(table, names, tuple(unique)), rows).rowcount
    if added == len(rows):
        return list(range(last + 1, last + 1 + added)), [True] * added
    # SQLite numbers the rows it adds one after the other, so a key tells whether this call added the row.
    wanted = list(zip(*(_stored(columns[name]) for name in unique), strict=True))
    taken = _keys_of(database, table, unique, wanted)
    keys, new = [], []
    for name in wanted:
        key = taken.get(name)
        new.append(key is None or key == last + 1)
        last += new[-1]
        keys.append(last if key is None else key)
    return keys, new


def _filled(columns: Mapping[str, Columnar], empty_by_default: Set[str]) -> list[str]:
    """Return the columns that say something: to bind a NULL costs as much as to bind a number."""
    return [name for name, column in columns.items() if name not in empty_by_default or not _is_empty(column)]


def _is_empty(column: Columnar) -> bool:
    import numpy as np

    if isinstance(column, np.ndarray):
        if column.dtype.kind == "f":
            return bool(np.isnan(column).all())
        if column.dtype.kind != "O":
            return False
    return len(column) > 0 and column[0] is None and all(value is None for value in column)


@functools.lru_cache(maxsize=64)
def _insertion(table: str, names: tuple[str, ...], unique: tuple[str, ...]) -> str:
    quoted, marks, key = _list(names), ", ".join("?" * len(names)), _list(unique)
    return f'INSERT INTO "{table}" ({quoted}) VALUES ({marks}) ON CONFLICT ({key}) DO NOTHING'


def _keys_of(
    database: Database, table: str, unique: Sequence[str], names: Sequence[tuple[Any, ...]]
) -> dict[tuple[Any, ...], int]:
    wanted = json.dumps([name for name in names if None not in name], ensure_ascii=False)
    match = " AND ".join(f't."{column}" = value ->> {place}' for place, column in enumerate(unique))
    found = database.execute(
        f'SELECT t.rowid, {_list(unique)} FROM json_each(?) CROSS JOIN "{table}" t ON {match}', [wanted]
    )
    return {tuple(name): key for key, *name in found}


def update_each(database: Database, table: str, columns: Mapping[str, Columnar], *, key: str) -> int:
    """See `Storage.update_each`; inside the caller's transaction."""
    names = [name for name in columns if name != key]
    assignments = ", ".join(f'"{name}" = ?' for name in names)
    rows = zip(*(_stored(columns[name]) for name in [*names, key]), strict=True)
    return int(database.conn.executemany(f'UPDATE "{table}" SET {assignments} WHERE "{key}" = ?', rows).rowcount)


def stored_rows(rows: Sequence[Mapping[str, Any]], names: Sequence[str], seal: Seal | None) -> Sequence[Sequence[Any]]:
    """Return rows of these columns as SQLite stores them, each with its checksum at the end where there is a seal."""
    if len(rows) == 1:
        cells = [encoded(rows[0][name]) for name in names]
        return [cells if seal is None else [*cells, *seal.of_rows(names, [cells])]]
    given = [[row[name] for row in rows] for name in names]
    stored = [_stored(column) for column in given]
    if seal is not None:
        stored.append(seal.of_columns(names, given, stored))
    return list(zip(*stored, strict=True))


def _stored(column: Columnar) -> list[Any]:
    """Return a column's values as SQLite stores them (it takes NaN as NULL)."""
    import numpy as np

    if not isinstance(column, np.ndarray) or column.dtype.kind == "O":
        if all(type(value) is datetime for value in column):
            texts_of = {value: encoded(value) for value in set(column)}  # those of a batch are often the same
            return [texts_of[value] for value in column]
        # In a JSON column most rows have nothing, or share what they have.
        written = {
            id(value): encoded(value)
            for value in {id(value): value for value in column if type(value) is dict}.values()
        }
        return [
            value if value is None or type(value) in PLAIN else written.get(id(value)) or encoded(value)
            for value in column
        ]
    if column.dtype.kind == "b":
        column = column.astype(np.int8)
    if column.dtype.kind != "M":
        values: list[Any] = column.tolist()
        return values
    texts = np.datetime_as_string(column, unit="us").tolist()
    return [None if text == "NaT" else f"{text}+00:00" for text in texts]


# Out


def columns(
    database: Database,
    table: str,
    names: Sequence[str],
    known: Mapping[str, str],
    *,
    keys: Sequence[Group],
    where: Where,
    order_by: Sequence[str],
    limit: int | None,
) -> dict[str, NDArray[Any] | Coded]:
    """See `Storage.columns`."""
    filters, parameters = where_clause(where, known)
    end = f"{filters}{order_clause(order_by, known)}" + ("" if limit is None else f" LIMIT {limit:d}")
    few = {name: _few_values(database, table, name) for name in names if name in INDEXED_TEXTS}
    while True:
        cells = [(f'"{name}"', []) if not few.get(name) else _code(name, few[name]) for name in names]
        cells += [_json_value(group) for group in keys]
        given = [value for _, values in cells for value in values]
        kinds = ["number" if few.get(name) else _kind(name, known[name]) for name in names] + ["text"] * len(keys)
        read = _read if set(kinds) - {"number"} else _read_numbers
        form = "{}" if read is _read else "ifnull({}, 9e999)"
        sql = f'SELECT {", ".join(form.format(cell) for cell, _ in cells)} FROM "{table}"{end}'
        found = read(database.execute(sql, [*given, *parameters]), kinds)
        labelled = dict(zip([*names, *(group.label for group in keys)], found, strict=True))
        for name, values in few.items():
            if values:
                labelled[name] = Coded(labelled[name].astype("int32"), values)
        strange = [name for name, values in few.items() if values and (labelled[name].codes == len(values)).any()]
        if not strange:
            return labelled
        few = {name: [] for name in strange}  # a value came in between the two queries


def _kind(name: str, type_name: str) -> str:
    if name in TIMES:
        return "time"
    return ("plain" if name in DOCUMENTS | IDS else "text") if type_name == "TEXT" else "number"


def _few_values(database: Database, table: str, name: str) -> list[str]:
    """Return the distinct texts of an indexed column by jumping from one to the next; [] if they are many."""
    sql = f"""
        WITH RECURSIVE found(value) AS (
            SELECT min("{name}") FROM "{table}"
            UNION ALL
            SELECT (SELECT min("{name}") FROM "{table}" WHERE "{name}" > found.value) FROM found
            WHERE found.value IS NOT NULL LIMIT {FEW_VALUES + 2}
        ) SELECT value FROM found WHERE value IS NOT NULL
    """
    values = [value for (value,) in database.execute(sql)]
    return values if len(values) <= FEW_VALUES else []


def _code(name: str, values: Sequence[str]) -> tuple[str, list[Any]]:
    cases = " ".join(f"WHEN ? THEN {code}" for code in range(len(values)))
    return f'CASE WHEN "{name}" IS NULL THEN -1 ELSE CASE "{name}" {cases} ELSE {len(values)} END END', list(values)


def _read(cursor: sqlite3.Cursor, kinds: Sequence[str]) -> list[Any]:
    parts: list[list[Any]] = [[] for _ in kinds]
    codes: list[dict[Any, int]] = [{None: -1} for _ in kinds]
    while rows := cursor.fetchmany(FETCH_ROWS):
        for place, cells in enumerate(zip(*rows, strict=True)):
            parts[place].append(_part(cells, kinds[place], codes[place]))
    joined = []
    for place, kind in enumerate(kinds):
        joined.append(_joined(parts[place], kind, codes[place]))
        parts[place] = []  # let go, so that no more than one column is held twice
    return joined


def _read_numbers(cursor: sqlite3.Cursor, kinds: Sequence[str]) -> list[Any]:
    """Do what `_read` does where all columns are numbers, and infinity (9e999 in SQL) stands for nothing."""
    import numpy as np

    # The cells go straight into one array: nothing is kept that the garbage collector would have to look at.
    table = np.fromiter(itertools.chain.from_iterable(cursor), dtype=np.float64).reshape(-1, len(kinds)).T.copy()
    table[np.isinf(table)] = np.nan
    return list(table)


def _part(cells: Sequence[Any], kind: str, codes: dict[Any, int]) -> Any:
    import numpy as np

    if kind == "number":
        return np.array(cells, dtype=np.float64)
    if kind == "time":
        return _instants(cells)
    if kind == "plain":
        return cells
    for cell in cells:
        if cell not in codes:
            codes[cell] = len(codes) - 1
    return np.array([codes[cell] for cell in cells], dtype=np.int32)


def _joined(parts: list[Any], kind: str, codes: dict[Any, int]) -> Any:
    import numpy as np

    if kind == "plain":
        cells = np.empty(sum(map(len, parts)), dtype=object)
        cells[:] = list(itertools.chain.from_iterable(parts))
        return cells
    dtype = {"time": "datetime64[us]", "text": "int32"}.get(kind, "float64")
    joined = np.concatenate(parts) if parts else np.array([], dtype=dtype)
    return Coded(joined, list(codes)[1:]) if kind == "text" else joined


def _instants(texts: Sequence[str | None]) -> NDArray[Any]:
    import numpy as np

    if all(text is not None and len(text) == 32 and text.endswith("+00:00") for text in texts):
        return np.array([text[:26] for text in texts if text], dtype="datetime64[us]")
    times = [
        None if text is None else datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None) for text in texts
    ]
    return np.array(times, dtype="datetime64[us]")


# Sums


def aggregate(
    database: Database,
    table: str,
    known: Mapping[str, str],
    *,
    by: Sequence[Group],
    measures: Sequence[Measure],
    where: Where,
) -> dict[str, list[Any]]:
    """See `Storage.aggregate`."""
    groups = [_group(group) for group in by]
    filters, parameters = where_clause(where, known)
    terms = ", ".join([term for term, _ in groups] + [_figure(measure) for measure in measures])
    places = ", ".join(str(place) for place in range(1, len(by) + 1))
    end = f" GROUP BY {places} ORDER BY {places}" if by else " HAVING count(*) > 0"
    given = [value for _, values in groups for value in values]
    rows = database.execute(f'SELECT {terms} FROM "{table}"{filters}{end}', [*given, *parameters]).fetchall()
    labels = [*(group.label for group in by), *(measure.name for measure in measures)]
    found = dict(zip(labels, map(list, zip(*rows, strict=True)) if rows else ([] for _ in labels), strict=True))
    for measure in measures:
        if measure.function in ("min", "max"):
            found[measure.name] = [decoded(measure.columns[0], value) for value in found[measure.name]]
    for group in by:
        found[group.label] = [_value(group, value) for value in found[group.label]]
    return found


def _group(group: Group) -> tuple[str, list[Any]]:
    if group.freq:
        return PERIODS[group.freq][0].format(group.column), []
    return _json_value(group) if group.key is not None else (f'"{group.column}"', [])


def _json_value(group: Group) -> tuple[str, list[Any]]:
    """Return SQL for a JSON column's top-level key as a text, other values as their JSON, null as NULL."""
    # A path is quick, but cannot name every key.
    if '"' in str(group.key) or "\\" in str(group.key):
        value = "CASE type WHEN 'text' THEN atom WHEN 'null' THEN NULL WHEN 'true' THEN type WHEN 'false' THEN type"
        value += " ELSE CAST(value AS TEXT) END"
        return f'(SELECT {value} FROM json_each("{group.column}") WHERE key = ?)', [group.key]
    path, column = f'$."{group.key}"', f'"{group.column}"'
    kind = f"json_type({column}, ?)"
    return f"CASE {kind} WHEN 'text' THEN {column} ->> ? WHEN 'null' THEN NULL ELSE {column} -> ? END", [path] * 3


def _figure(measure: Measure) -> str:
    quoted = [f'"{name}"' for name in measure.columns]
    what = f"coalesce({', '.join(quoted)})" if len(quoted) > 1 else quoted[0] if quoted else "*"
    only = f' FILTER (WHERE "{measure.given}" IS NOT NULL)' if measure.given else ""
    if measure.function == "bytes":
        return f"sum(length(CAST({what} AS BLOB))){only}"
    return f"{measure.function}({what}){only}"


def _value(group: Group, value: Any) -> Any:
    if value is None or group.key is not None:
        return value
    if group.freq:
        return datetime.fromisoformat(value + PERIODS[group.freq][1])
    return decoded(group.column, value)


def _list(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


class SQLiteColumns(Storage):
    """The operations of `SQLiteStorage` that move whole columns."""

    _pool: ConnectionPool
    _seals: Seals

    @abstractmethod
    def _columns(self, database: Database, table: str) -> dict[str, Any]: ...

    @abstractmethod
    def _write(
        self, operation: Callable[..., Any], *arguments: Any, **options: Any
    ) -> AbstractContextManager[Transaction]: ...

    def append(
        self, table: str, columns: Mapping[str, Columnar], *, unique: Sequence[str]
    ) -> tuple[list[int], list[bool]]:
        """See `Storage.append`."""
        with self._write(self.append, table, columns, unique=unique) as transaction:
            refuse_unknown(table, [*columns, *unique], self._columns(transaction.database, table))
            seal = self._seals.of(transaction.database, table)
            return append(transaction.database, table, columns, unique=unique, seal=seal)

    def update_each(self, table: str, columns: Mapping[str, Columnar], *, key: str) -> int:
        """See `Storage.update_each`."""
        with self._write(self.update_each, table, columns, key=key) as transaction:
            refuse_unknown(table, [*columns, key], self._columns(transaction.database, table))
            count = update_each(transaction.database, table, columns, key=key)
            self._seals.after_update(transaction.database, table, columns)
            return count

    def columns(
        self,
        table: str,
        names: Sequence[str],
        *,
        keys: Sequence[Group] = (),
        where: Where = (),
        order_by: Sequence[str] = (),
        limit: int | None = None,
    ) -> dict[str, NDArray[Any] | Coded]:
        """See `Storage.columns`."""
        with self._pool.reader() as database:
            known = self._columns(database, table)
            refuse_unknown(table, [*names, *(key.column for key in keys)], known)
            try:
                return columns(database, table, names, known, keys=keys, where=where, order_by=order_by, limit=limit)
            except ILLEGIBLE as exc:
                refuse_illegible(exc, self.path, table)
                raise

    def aggregate(
        self, table: str, *, by: Sequence[Group], measures: Sequence[Measure], where: Where = ()
    ) -> dict[str, list[Any]]:
        """See `Storage.aggregate`."""
        named = [group.column for group in by]
        for measure in measures:
            named += [*measure.columns, *([measure.given] if measure.given else [])]
        with self._pool.reader() as database:
            known = self._columns(database, table)
            refuse_unknown(table, named, known)
            try:
                return aggregate(database, table, known, by=by, measures=measures, where=where)
            except ILLEGIBLE as exc:
                refuse_illegible(exc, self.path, table)
                raise

    def stamp(self) -> Any:
        """See `Storage.stamp`."""
        return self._pool.stamp()

    def asking(self) -> AbstractContextManager[None]:
        """See `Storage.asking`."""
        return self._pool.asking()
