"""The frames of one lab: what the file holds, summed where it lies or read in columns, and remembered until it changes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import DamagedLab, InvalidValue
from ..forking import new_lock
from ..frames import TIME, column_frame, frame
from ..ledger import (
    COST,
    DECISIONS,
    LEDGER_COLUMNS,
    SEEN,
    TABLE,
    UNPRICED_COLUMNS,
    CallFilters,
    Ledger,
    conditions,
    groups,
)
from ..records import Condition, Group, Measure
from ..storage.base import Coded
from ..validation import name_value, positive_integer
from .comparison import compare
from .latency import LATENCY_VALUES, latency, latency_of_ranked, latency_ranks
from .performance import model_performance
from .usage import COST_MEASURES, USAGE_MEASURES, cost_of_sums, usage_of_sums

if TYPE_CHECKING:
    import pandas as pd

    from ..storage import Storage

REMEMBERED_FRAMES = 64
REMEMBERED_CELLS = 1_000_000

DECISION_COLUMNS = {
    "decision_id": "str",
    "at": TIME,
    "agent": "str",
    "decision_type": "str",
    "summary": "str",
    "chosen": "str",
    "candidates": "object",
    "propensity": "float64",
    "policy": "str",
    "policy_version": "str",
    "complexity_score": "float64",
    "quality_score": "float64",
    "success": "boolean",
    "outcome_at": TIME,
    "calls": "int64",
    "input_tokens": "Int64",
    "output_tokens": "Int64",
    "cost_usd": "float64",
    "unpriced_calls": "int64",
    "latency_ms": "float64",
    "context_ids": "object",
    "content": "str",
    "source": "str",
    "source_id": "str",
    "metadata": "object",
}
DECISION_MEASURES = [
    Measure("calls", "count"),
    Measure("input_tokens", "sum", ("input_tokens",)),
    Measure("output_tokens", "sum", ("output_tokens",)),
    Measure("cost_usd", "sum", COST),
    Measure("priced_calls", "count", COST),
    Measure("latency_ms", "sum", ("latency_ms",)),
]


class Analysis:
    """Reads one lab's ledger into frames."""

    def __init__(self, storage: Storage, ledger: Ledger, *, clock: Callable[[], datetime]) -> None:
        self._storage = storage
        self._ledger = ledger
        self._clock = clock
        self._lock = new_lock()
        self._frames: OrderedDict[str, tuple[Any, pd.DataFrame]] = OrderedDict()

    def _remembered(self, make: Callable[[], pd.DataFrame], *question: Any) -> pd.DataFrame:
        """Return what `make` returns, from memory where the file has not changed since it was last asked."""
        # Read before the answer is made: a write in between gives the next question another stamp.
        stamp, name = self._storage.stamp(), repr(question)
        if stamp is None:
            return make()
        with self._lock:
            known = self._frames.get(name)
            if known is not None and known[0] == stamp:
                self._frames.move_to_end(name)
                return known[1].copy()
        made = make()
        if made.size <= REMEMBERED_CELLS:
            with self._lock:
                self._frames[name] = (stamp, made.copy())
                while len(self._frames) > REMEMBERED_FRAMES:
                    self._frames.popitem(last=False)
        return made

    def where(self, filters: Mapping[str, Any]) -> list[Condition]:
        """Return the conditions that the filters of a frame mean. Raises `InvalidValue`."""
        return conditions(now=self._clock(), filters=filters, known=CallFilters.__annotations__)

    def calls(self, names: Sequence[str], by: Sequence[Group], where: Sequence[Condition]) -> pd.DataFrame:
        """Return columns of the matching calls, texts as categories, and what `by` groups them by."""
        return calls_frame(self._storage, names, by, where)

    def ledger(self, *, limit: int | None, filters: Mapping[str, Any]) -> pd.DataFrame:
        """See `Lab.ledger_df`."""
        import json

        import numpy as np
        import pandas as pd

        limit = None if limit is None else positive_integer(limit, "limit", at_most=1_000_000_000)
        newest = {} if limit is None else {"order_by": ["-at", "-usage_key"], "limit": limit}
        names = [name for name in LEDGER_COLUMNS if name != "cost_usd"]
        found: dict[str, Any] = dict(self._storage.columns(TABLE, names, where=self.where(filters), **newest))  # type: ignore[arg-type]
        order = np.lexsort((found["usage_key"], found["at"]))
        ordered = bool((order[1:] > order[:-1]).all())
        found["cost_usd"] = np.where(np.isnan(found[COST[0]]), found[COST[1]], found[COST[0]])
        try:
            metadata = [{} if text == "{}" else json.loads(text) for text in found["metadata"]]
        except (TypeError, ValueError, RecursionError) as exc:
            raise DamagedLab("the metadata of a call in the ledger is damaged: al.check() says of which") from exc
        found["metadata"] = np.array(metadata or [], object)
        columns = {}
        for name, dtype in LEDGER_COLUMNS.items():
            # One column after the other, each let go when it is in the frame's form: a million rows are large.
            column = found.pop(name)
            if not ordered:
                column = Coded(column.codes[order], column.values) if isinstance(column, Coded) else column[order]
            columns[name] = column_frame({name: _plain(column)}, {name: dtype})[name]
        return pd.DataFrame(columns, copy=False)

    def usage(self, *, by: Any, freq: str | None, filters: Mapping[str, Any]) -> pd.DataFrame:
        """See `Lab.usage_df`."""
        return self._summed(usage_of_sums, USAGE_MEASURES, groups(by, freq), self.where(filters))

    def cost(self, *, by: Any, freq: str | None, filters: Mapping[str, Any]) -> pd.DataFrame:
        """See `Lab.cost_df`."""
        return self._summed(cost_of_sums, COST_MEASURES, groups(by, freq), self.where(filters))

    def _summed(
        self, finish: Callable[..., pd.DataFrame], measures: Sequence[Measure], by: list[Group], where: list[Condition]
    ) -> pd.DataFrame:
        def make() -> pd.DataFrame:
            return finish(self._storage.aggregate(TABLE, by=by, measures=measures, where=where), by)

        return self._remembered(make, finish.__name__, by, where)

    def latency(self, *, by: Any, freq: str | None, confidence: float, filters: Mapping[str, Any]) -> pd.DataFrame:
        """See `Lab.latency_df`."""
        chosen, where = groups(by, freq), self.where(filters)

        def make() -> pd.DataFrame:
            found = self._storage.ranked(
                TABLE,
                by=chosen,
                values=LATENCY_VALUES,
                ranks=partial(latency_ranks, confidence=confidence),
                where=where,
            )
            if found is not None:
                return latency_of_ranked(found, chosen, confidence=confidence)
            calls = self.calls(["latency_ms", "ttft_ms", "output_tokens", "reasoning_tokens"], chosen, where)
            return latency(calls, by=by, freq=freq, confidence=confidence)

        return self._remembered(make, "latency", chosen, where, confidence)

    def model_performance(
        self, *, by: Any, freq: str | None, confidence: float, filters: Mapping[str, Any]
    ) -> pd.DataFrame:
        """See `Lab.model_performance_df`."""
        chosen, where = groups(by, freq), self.where(filters)
        former = self._former(where)

        def make() -> pd.DataFrame:
            names = ["success", "quality_score", "latency_ms", *COST]
            before = None if former is None else self.calls(names, chosen, former)
            calls = self.calls(names, chosen, where)
            return model_performance(calls, by=by, freq=freq, before=before, confidence=confidence)

        return self._remembered(make, "model_performance", chosen, where, former, confidence)

    def _former(self, where: Sequence[Condition]) -> list[Condition] | None:
        """Return the conditions for the period of the same length before, or None where no beginning is given."""
        times = {item.operator: item.value for item in where if item.column == "at"}
        if ">=" not in times:
            return None
        start, end = times[">="], times.get("<", self._clock())
        if start >= end:
            raise InvalidValue(f"since={start.isoformat()} is not before until={end.isoformat()}: give an earlier one")
        others = [item for item in where if item.column != "at"]
        return [*others, Condition("at", ">=", start - (end - start)), Condition("at", "<", start)]

    def compare(
        self, a: str, b: str, *, prompt: str | None, confidence: float, filters: Mapping[str, Any]
    ) -> pd.DataFrame:
        """See `Lab.compare_models`."""
        a, b = name_value(a, "a"), name_value(b, "b")
        where = [*self.where(filters), Condition("model", "in", [a, b])]
        chosen = [] if prompt is None else groups(prompt, None)
        if any(group.freq for group in chosen):
            raise InvalidValue(f"prompt={prompt!r}: give a column or a metadata key")
        names = ["model", "success", "quality_score", "latency_ms", *COST]
        calls = self.calls(names, chosen, where)
        return compare(calls, a, b, prompt=prompt, confidence=confidence)

    def unpriced(self) -> pd.DataFrame:
        """See `Lab.unpriced_df`."""
        return frame(self._ledger.unpriced(), UNPRICED_COLUMNS)

    def decisions(self, *, limit: int | None, filters: Mapping[str, Any]) -> pd.DataFrame:
        """See `Lab.decisions_df`."""
        where = conditions(now=self._clock(), filters=filters, known=filters)
        limit = None if limit is None else positive_integer(limit, "limit", at_most=1_000_000_000)
        rows = self._storage.rows(DECISIONS, where=where, order_by=["-at", "-id"], limit=limit)[::-1]
        wanted = [row["id"] for row in rows]
        seen: dict[str, list[str]] = {}
        links = [Condition("decision_id", "in", wanted)]
        for link in self._storage.rows(SEEN, where=links, order_by=["decision_id", "position"]):
            seen.setdefault(link["decision_id"], []).append(link["context_id"])
        sums = self._storage.aggregate(TABLE, by=[Group("decision_id")], measures=DECISION_MEASURES, where=links)
        calls = {cells[0]: dict(zip(sums, cells, strict=True)) for cells in zip(*sums.values(), strict=True)}
        for row in rows:
            own = calls.get(row["id"], {"calls": 0, "priced_calls": 0})
            row |= own | {"decision_id": row["id"], "unpriced_calls": own["calls"] - own["priced_calls"]}
            row["context_ids"] = seen.get(row["id"], [])
        return frame(rows, DECISION_COLUMNS)


def calls_frame(
    storage: Storage, names: Sequence[str], by: Sequence[Group], where: Sequence[Condition]
) -> pd.DataFrame:
    """Return columns of the matching calls as the functions of this package take them, texts as categories."""
    import pandas as pd

    columns = dict.fromkeys([*names, *(group.column for group in by if group.key is None)])
    keys = [group for group in by if group.key is not None]
    found = storage.columns(TABLE, list(columns), keys=keys, where=where)
    return pd.DataFrame({name: _plain(column) for name, column in found.items()}, copy=False)


def _plain(column: Any) -> Any:
    """Return a column of the storage as pandas takes it."""
    import pandas as pd

    if isinstance(column, Coded):
        return pd.Categorical.from_codes(column.codes, pd.Index(column.values, dtype="str"))
    return pd.Series(column).dt.tz_localize("UTC") if column.dtype.kind == "M" else column
