"""What the lab keeps and whom it showed it to: frames from the registry, the access log and the decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..errors import DecisionNotFound, InvalidValue, did_you_mean
from ..frames import TIME, column_frame, frame
from ..records import Condition, Group, Measure
from ..storage.base import Coded
from ..validation import name_value, shortened

if TYPE_CHECKING:
    import pandas as pd

    from ..records import Context
    from ..storage import Storage

CONTEXTS = "context_registry"
ABOUT = ("topic", "source")
SHOWN_BY = ("context_id", "agent", "kind", "method", *ABOUT)
SHOWN_COLUMNS = {"times": "int64", "searches": "int64", "reads": "int64", "first_at": TIME, "last_at": TIME}
STORED_BY = (*ABOUT, "priority", "superseded_by")
STORED = (
    Measure("contexts", "count"),
    Measure("pinned", "sum", ("pinned",)),
    Measure("superseded", "count", ("superseded_by",)),
    Measure("tokens", "sum", ("token_count",)),
    Measure("content_bytes", "bytes", ("content",)),
    Measure("times_shown", "sum", ("access_count",)),
    Measure("first_created_at", "min", ("created_at",)),
    Measure("last_created_at", "max", ("created_at",)),
    Measure("last_shown_at", "max", ("accessed_at",)),
)
STORED_COLUMNS = {
    "contexts": "int64",
    "pinned": "int64",
    "expired": "int64",
    "superseded": "int64",
    "tokens": "Int64",
    "content_bytes": "int64",
    "times_shown": "int64",
    "first_created_at": TIME,
    "last_created_at": TIME,
    "last_shown_at": TIME,
}
SEEN_COLUMNS = {
    "decision_id": "str",
    "at": TIME,
    "position": "int64",
    "context_id": "str",
    "topic": "str",
    "source": "str",
    "content": "str",
    "created_at": TIME,
    "updated_at": TIME,
    "changed_since": "boolean",
    "superseded_by": "str",
    "deleted": "bool",
}


class Transparency:
    """What one lab keeps and whom it showed it to."""

    def __init__(self, storage: Storage, *, clock: Callable[[], datetime]) -> None:
        self._storage = storage
        self._clock = clock

    def stored(self, by: str | Sequence[str]) -> pd.DataFrame:
        """See `Lab.storage_df`."""
        names = _groups(by, STORED_BY[:2])
        groups = [Group(name) for name in names]
        sums = self._storage.aggregate(CONTEXTS, by=groups, measures=STORED)
        expired = self._storage.aggregate(
            CONTEXTS,
            by=groups,
            measures=[Measure("expired", "count")],
            where=[Condition("expires_at", "<=", self._clock())],
        )
        gone = dict(zip(_keys(expired, names), expired["expired"], strict=True))
        sums["expired"] = [gone.get(key, 0) for key in _keys(sums, names)]
        result = column_frame(sums, {**dict.fromkeys(names, "str"), **STORED_COLUMNS})
        return result.sort_values(["contexts", *names], ascending=[False, *(True for _ in names)], ignore_index=True)

    def shown(self, by: str | Sequence[str], *, ids: Sequence[str] | None, where: Sequence[Condition]) -> pd.DataFrame:
        """See `Lab.shown_df`."""
        import pandas as pd

        names = _groups(by, SHOWN_BY)
        chosen = [] if ids is None else [Condition("context_id", "in", list(ids))]
        shown = self._table("access_results", ["access_id", "context_id"], chosen)
        log = self._table("access_log", ["id", "at", "kind", "agent", "method"], where)
        rows = shown.merge(log, left_on="access_id", right_on="id")
        if set(ABOUT) & set(names):
            about = self._table(CONTEXTS, ["id", *ABOUT], []).rename(columns={"id": "context_id"})
            rows = rows.merge(about, on="context_id", how="left")
        rows["searches"], rows["reads"] = rows["kind"] == "search", rows["kind"] == "read"
        grouped = rows.groupby(names, dropna=False, observed=True, sort=False)
        found = grouped.agg(
            times=("access_id", "size"),
            searches=("searches", "sum"),
            reads=("reads", "sum"),
            first_at=("at", "min"),
            last_at=("at", "max"),
        ).reset_index()
        dtypes = {**dict.fromkeys(names, "str"), **SHOWN_COLUMNS}
        result = column_frame({name: pd.Series(found[name]) for name in dtypes}, dtypes)
        return result.sort_values(["times", *names], ascending=[False, *(True for _ in names)], ignore_index=True)

    def _table(self, table: str, names: Sequence[str], where: Sequence[Condition]) -> pd.DataFrame:
        import pandas as pd

        found = self._storage.columns(table, names, where=where)
        return pd.DataFrame({name: _plain(column) for name, column in found.items()})

    def seen(self, decision_id: str, *, contexts_of: Callable[[Sequence[str]], Sequence[Context]]) -> pd.DataFrame:
        """See `Lab.decision_contexts_df`."""
        name = name_value(decision_id, "decision_id")
        decisions = self._storage.rows("agent_decisions", where=[Condition("id", "=", name)], columns=["at"])
        if not decisions:
            raise DecisionNotFound(f"no decision {shortened(name)}: al.decisions_df() lists the ids")
        at = decisions[0]["at"]
        where = [Condition("decision_id", "=", name)]
        links = self._storage.rows("decision_contexts", where=where, order_by=["position"])
        known = {item.id: item for item in contexts_of([link["context_id"] for link in links])}
        return frame([_seen(link, at, known.get(link["context_id"])) for link in links], SEEN_COLUMNS)


def _seen(link: Mapping[str, Any], at: datetime, context: Context | None) -> dict[str, Any]:
    if context is None:
        return {**link, "at": at, "deleted": True}
    about = {name: value for name, value in vars(context).items() if name in SEEN_COLUMNS}
    return {**about, **link, "at": at, "changed_since": context.updated_at > at, "deleted": False}


def _groups(by: str | Sequence[str], known: Sequence[str]) -> list[str]:
    names = [by] if isinstance(by, str) else list(by)
    if not names or len(set(names)) < len(names):
        raise InvalidValue(f"by={by!r}: give one or more of {', '.join(known)}, each once")
    for name in names:
        if name not in known:
            raise InvalidValue(f"by={name!r}{did_you_mean(str(name), known)}")
    return names


def _keys(sums: Mapping[str, list[Any]], names: Sequence[str]) -> list[tuple[Any, ...]]:
    return list(zip(*(sums[name] for name in names), strict=True))


def _plain(column: Any) -> Any:
    import pandas as pd

    if isinstance(column, Coded):
        return pd.Categorical.from_codes(column.codes, pd.Index(column.values, dtype="str")).astype("object")
    return column
