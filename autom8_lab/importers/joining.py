"""What to do with a call that is told of twice: the telling that knows more wins, and nothing known is lost.

Coding agents write a message again and again while it grows, files are copied when a session is resumed, and a later
export may know what an earlier one did not. Whatever the order, the same call stands there in the end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..entries import TOKENS, USAGE
from ..ledger import table_columns
from ..records import Condition

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..storage import Storage

FIXED = ("source", "source_id")
# What somebody may have noted in the lab about the call: a log does not take it back.
OURS = ("decision_id", "quality_score")


def joined_rows(known: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Join two tellings of a call, as rows: more tokens win; where there are as many, the earlier time stays."""
    weights = [sum(-1 if row.get(name) is None else row[name] for name in TOKENS[:2]) for row in (known, later)]
    more, less = (later, known) if weights[1] > weights[0] else (known, later)
    joined = {**less, **{name: value for name, value in more.items() if value is not None}}
    joined["metadata"] = {**(less.get("metadata") or {}), **(more.get("metadata") or {})}
    if weights[0] == weights[1]:
        joined["at"] = min(known["at"], later["at"])
    if agents := [row["agent"] for row in (known, later) if row.get("agent") is not None]:
        joined["agent"] = min(agents)
    return joined


def taken(columns: Mapping[str, Any], places: NDArray[np.int64]) -> dict[str, Any]:
    """Return some rows of columns, arrays as arrays and lists as arrays of objects."""
    import numpy as np

    def some(column: Any) -> Any:
        if isinstance(column, np.ndarray):
            return column[places]
        chosen = np.empty(len(places), dtype=object)
        chosen[:] = [column[place] for place in places]
        return chosen

    return {name: some(column) for name, column in columns.items()}


def changes(storage: Storage, keys: NDArray[np.int64], told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what changes in the ledger when these calls, stored under `keys`, are told of again; {} for nothing.

    `told` are columns as `UsageBatch` makes them, a row per key.
    """
    import numpy as np

    where = [Condition("usage_key", "in", [int(key) for key in keys])]
    found = table_columns(storage, ["usage_key", *USAGE], where=where)
    order = np.argsort(found["usage_key"])
    stored = {name: column[order][np.searchsorted(found["usage_key"][order], keys)] for name, column in found.items()}
    documents = {text: json.loads(text) for text in set(stored["metadata"])}  # calls of one session share theirs
    stored["metadata"] = _objects([documents[text] for text in stored["metadata"]])
    weight, before = (
        sum(np.where(np.isnan(side[name]), -1, side[name]) for name in TOKENS[:2]) for side in (told, stored)
    )
    joined, changed = {"usage_key": keys}, np.zeros(len(keys), dtype=bool)
    for name in USAGE:
        new, old = told[name], stored[name]
        if name in FIXED or not _differs(new, old).any():  # most of what is told again is what is known
            joined[name] = old
            continue
        joined[name] = _joined_column(name, new, old, weight, before)
        changed |= _differs(joined[name], old)
    places = np.flatnonzero(changed)
    return {name: column[places] for name, column in joined.items()} if places.size else {}


def _joined_column(name: str, new: Any, old: Any, weight: Any, before: Any) -> Any:
    import numpy as np

    more = weight > before
    if name == "at":
        return np.where(more | ((weight == before) & (new < old)), new, old)
    if name == "metadata":
        pairs = zip(old, new, more, strict=True)
        return _objects([({**a, **b} if wins else {**b, **a}) if b else a for a, b, wins in pairs])
    unknown = _unknown(old)
    if name in OURS:
        return np.where(unknown, new, old)
    if name == "agent":
        # "coder" comes before "coder:subagent": a copy in a sub-agent's log does not take a call from its parent.
        return _objects([min({a, b} - {None}, default=None) for a, b in zip(old, new, strict=True)])
    return np.where(unknown | (more & ~_unknown(new)), new, old)


def _unknown(column: Any) -> Any:
    import numpy as np

    return np.array([value is None for value in column], dtype=bool) if column.dtype.kind == "O" else np.isnan(column)


def _differs(one: Any, other: Any) -> Any:
    import numpy as np

    if one.dtype.kind == "O":
        return np.array([a != b for a, b in zip(one, other, strict=True)], dtype=bool)
    same: Any = one == other
    return ~(same | (np.isnan(one) & np.isnan(other))) if one.dtype.kind == "f" else ~same


def _objects(values: list[Any]) -> NDArray[np.object_]:
    import numpy as np

    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column
