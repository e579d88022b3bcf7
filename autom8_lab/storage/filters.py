"""Conditions and orders as every dialect of SQL has them, and which contexts pass a filter."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidValue, did_you_mean
from ..records import Condition

# What makes SQL and parameters of a condition, given its column as SQL has it.
Test = Callable[[Condition, str], tuple[str, list[Any]]]


def quoted(name: str) -> str:
    """Return a name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def refuse_unknown(table: str, names: Iterable[str], columns: Mapping[str, Any]) -> None:
    """Raise `InvalidValue` for a name that is no column of the table."""
    for name in names:
        if name not in columns:
            raise InvalidValue(f"{table} has no column {name!r}{did_you_mean(name, columns)}")


def where_of(
    conditions: Sequence[Condition], columns: Mapping[str, Any], test: Test, *, prefix: str
) -> tuple[str, list[Any]]:
    """Return " WHERE …" (or "") and its parameters; unknown columns raise `InvalidValue`."""
    parts: list[str] = []
    parameters: list[Any] = []
    for condition in conditions:
        if condition.column not in columns:
            raise InvalidValue(f"no column {condition.column!r}{did_you_mean(condition.column, columns)}")
        sql, values = test(condition, prefix + quoted(condition.column))
        parts.append(sql)
        parameters.extend(values)
    return (" WHERE " + " AND ".join(parts) if parts else "", parameters)


def order_of(order_by: Sequence[str], columns: Mapping[str, Any], *, ascending: str, descending: str) -> str:
    """Return " ORDER BY …" (or "") with the dialect's words for both ways; unknown columns raise `InvalidValue`."""
    parts = []
    for item in order_by:
        name = item.removeprefix("-")
        if name not in columns:
            raise InvalidValue(f"cannot sort by {name!r}{did_you_mean(name, columns)}")
        parts.append(quoted(name) + (descending if item.startswith("-") else ascending))
    return " ORDER BY " + ", ".join(parts) if parts else ""


def wanted_of_key(condition: Condition, column: str) -> Sequence[Any]:
    """Return the values that a JSON column's key may have; a key is compared by = and in alone."""
    if condition.operator not in ("=", "in"):
        raise InvalidValue(f"{column}[{condition.key!r}] {condition.operator}: a key is compared by = or in")
    return list(condition.value) if condition.operator == "in" else [condition.value]


def effective(where: Sequence[Condition], least: Callable[[str], Any]) -> list[Condition]:
    """Return the conditions that some context may fail now; `least` tells a column's least value, None for none.

    Most labs hide nothing at most times: a test that every row passes only costs, and an index tells quickly.
    """

    def hides(condition: Condition) -> bool:
        match condition.column, condition.operator, condition.key:
            case "expires_at", "null or >", None:
                first = least("expires_at")
                return first is not None and bool(first <= condition.value)
            case "superseded_by", "is null", None:
                return least("superseded_by") is not None
        return True

    return [condition for condition in where if hides(condition)]


FEW_PASS = 5_000  # contexts; up to so many that pass a filter are listed, of more each candidate is looked up


@dataclass(frozen=True)
class ContextFilter:
    """Tells which of an array of context keys pass; `listed` has all that do, where these are few."""

    listed: npt.NDArray[np.int64] | None
    look_up: Callable[[str], Iterable[tuple[int]]]

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], look_up: Callable[[str], Iterable[tuple[int]]]) -> ContextFilter:
        """Return the filter for the first contexts that pass, of which `FEW_PASS` and one were asked for."""
        few = len(rows) <= FEW_PASS
        return cls(np.array([row[0] for row in rows], dtype=np.int64) if few else None, look_up)

    def __call__(self, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which of the keys pass."""
        passing = self.listed
        if passing is None:
            found = self.look_up(json.dumps(np.unique(keys).tolist()))
            passing = np.fromiter((row[0] for row in found), dtype=np.int64)
        return np.isin(keys, passing)
