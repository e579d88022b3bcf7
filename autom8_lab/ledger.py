"""The ledger: every model call with its tokens, cost, latency and quality, and the decisions that led to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from .agents import acting_agent
from .drafts import rows_of
from .entries import TOKENS, UsageBatch, decision_entry, share_value, usage_entry
from .errors import DecisionNotFound, InvalidValue, did_you_mean
from .frames import TIME, column_frame, frame
from .records import Condition, Frequency, Group, Measure, Operator
from .validation import flag_value, metadata_value, moment, name_value, names_value, new_id, positive_integer, shortened

if TYPE_CHECKING:
    import pandas as pd

    from .pricing import PriceBook
    from .storage import Storage

TABLE, DECISIONS, SEEN = "usage_ledger", "agent_decisions", "decision_contexts"
UNIQUE = ("source", "source_id")
BATCH_ROWS = 100_000
FREQUENCIES: tuple[Frequency, ...] = ("h", "D", "W", "M")
COST = ("cost_actual_usd", "cost_estimated_usd")  # what a call cost: the bill where there is one
# What the ledger keeps of a `Price`, by the names there.
PRICED = {
    "cost_estimated_usd": "cost_usd",
    "input_cost_usd": "input_usd",
    "cache_read_cost_usd": "cache_read_usd",
    "cache_write_cost_usd": "cache_write_usd",
    "output_cost_usd": "output_usd",
    "reasoning_cost_usd": "reasoning_usd",
    "request_cost_usd": "request_usd",
    "cost_source": "source",
    "price_date": "price_date",
}

LEDGER_COLUMNS = {
    "usage_key": "int64",
    "at": TIME,
    "provider": "str",
    "model": "str",
    "operation": "str",
    "agent": "str",
    **dict.fromkeys(TOKENS, "Int64"),
    "cost_usd": "float64",
    **dict.fromkeys(list(PRICED)[:7], "float64"),
    "cost_actual_usd": "float64",
    "cost_source": "str",
    "price_date": "str",
    "latency_ms": "float64",
    "ttft_ms": "float64",
    "quality_score": "float64",
    "success": "boolean",
    "error_type": "str",
    "decision_id": "str",
    "source": "str",
    "source_id": "str",
    "metadata": "object",
}
USAGE_OUTCOME_COLUMNS = {"usage_key": "int64", "outcome": "str", "cost_estimated_usd": "float64"}
UNPRICED_COLUMNS = {
    "provider": "str",
    "model": "str",
    "calls": "int64",
    "input_tokens": "Int64",
    "output_tokens": "Int64",
    "first_at": TIME,
    "last_at": TIME,
    "reason": "str",
    "remedy": "str",
}
REPRICED_COLUMNS = {
    "usage_key": "int64",
    "at": TIME,
    "provider": "str",
    "model": "str",
    "cost_before_usd": "float64",
    "cost_after_usd": "float64",
    "change_usd": "float64",
    "source_before": "str",
    "source_after": "str",
    "price_date_before": "str",
    "price_date_after": "str",
}


class Resolve(Protocol):
    """How the ledger learns which context an id or alias stands for."""

    def __call__(self, context_id: str) -> str:
        """Return the context's id. Raises `ContextNotFound`."""


class Ledger:
    """The model calls and decisions of one lab."""

    def __init__(
        self,
        storage: Storage,
        price_book: PriceBook,
        *,
        resolve: Resolve,
        clock: Callable[[], datetime],
        agent: str | None = None,
    ) -> None:
        self.price_book = price_book
        self._storage = storage
        self._resolve = resolve
        self._clock = clock
        self._agent = agent

    # Calls

    def record_usage(self, given: Mapping[str, Any]) -> int:
        """Record one call and return its key; a call that is there already, by source and source_id, stays."""
        entry = usage_entry(given, now=self._clock(), agent=acting_agent(self._agent))
        entry |= self._price(entry)
        if "decision_id" in entry:
            self._refuse_unknown_decisions([entry["decision_id"]])
        columns = {name: [value] for name, value in entry.items()}
        if "source" not in entry:
            columns |= {name: [None] for name in UNIQUE}
        elif "source_id" not in entry:
            columns["source_id"] = [None]
        keys, _ = self._storage.append(TABLE, columns, unique=UNIQUE)
        return keys[0]

    def _price(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        # What was not counted cannot be priced: unknown is not 0.
        if "input_tokens" not in entry or "output_tokens" not in entry:
            return {}
        tokens = {name: entry[name] for name in TOKENS if name in entry}
        price = self.price_book.price(model=entry["model"], provider=entry.get("provider"), at=entry["at"], **tokens)
        return {} if price is None else {name: getattr(price, field) for name, field in PRICED.items()}

    def record_usages(self, source: Any, *, batch_size: int = BATCH_ROWS) -> pd.DataFrame:
        """Record many calls and return `USAGE_OUTCOME_COLUMNS`, a row for each.

        A frame or list lands whole or not at all, of a generator each batch.
        """
        import pandas as pd

        size = positive_integer(batch_size, "batch_size", at_most=1_000_000)
        batches = self._batches(source, size)
        if hasattr(source, "__len__"):
            checked = list(batches)  # before the file is taken
            with self._storage.transaction(whole=True):
                outcomes = [self._store(batch) for batch in checked]
        else:
            outcomes = [self._store(batch) for batch in batches]
        return pd.concat(outcomes, ignore_index=True) if outcomes else frame([], USAGE_OUTCOME_COLUMNS)

    def _batches(self, source: Any, size: int) -> Iterator[UsageBatch]:
        now, first = self._clock(), 0
        for rows in _slices(source, size):
            yield UsageBatch(rows, now=now, agent=acting_agent(self._agent), first_row=first)
            first += len(rows)

    def _store(self, batch: UsageBatch) -> pd.DataFrame:
        import numpy as np
        import pandas as pd

        columns = batch.columns
        priced = self.prices(columns)
        self._refuse_unknown_decisions({name for name in columns["decision_id"] if name is not None})
        keys, new = self._storage.append(TABLE, {**columns, **priced}, unique=UNIQUE)
        outcome = pd.Series(np.where(new, "recorded", "already there"), dtype="str")
        return pd.DataFrame(
            {
                "usage_key": np.array(keys, np.int64),
                "outcome": outcome,
                "cost_estimated_usd": np.where(new, priced["cost_estimated_usd"], np.nan),
            }
        )

    def prices(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Price calls given as columns: the names of `PRICED`, NaN or None where the price is unknown."""
        import numpy as np
        import pandas as pd

        count = len(columns["model"])
        counted = ~(np.isnan(columns["input_tokens"]) | np.isnan(columns["output_tokens"]))
        places = np.flatnonzero(counted)
        prices = self.price_book.price_rows(
            model=pd.Series(columns["model"], dtype=object).iloc[places].reset_index(drop=True),
            provider=pd.Series(columns["provider"], dtype=object).iloc[places].reset_index(drop=True),
            at=pd.Series(columns["at"]).dt.tz_localize("UTC").iloc[places].reset_index(drop=True),
            **{name: np.nan_to_num(columns[name][places]) for name in TOKENS},
        )
        priced: dict[str, Any] = {}
        for name, field in PRICED.items():
            amount = name.endswith("_usd")
            priced[name] = np.full(count, np.nan) if amount else np.full(count, None, dtype=object)
            found = prices[field]
            priced[name][places] = found.to_numpy() if amount else found.astype(object).where(found.notna(), None)
        return priced

    def _refuse_unknown_decisions(self, ids: Iterable[str]) -> None:
        wanted = sorted(ids)
        if not wanted:
            return
        found = self._storage.rows(DECISIONS, where=[Condition("id", "in", wanted)], columns=["id"])
        missing = set(wanted) - {row["id"] for row in found}
        if missing:
            raise DecisionNotFound(f"no decision {shortened(min(missing))}: al.decisions_df() lists the ids")

    # Decisions

    def record_decision(self, given: Mapping[str, Any]) -> str:
        """Record a decision and return its id; one that is there already, by source and source_id, stays."""
        entry = {"id": new_id(), **decision_entry(given, now=self._clock(), agent=acting_agent(self._agent))}
        given_ids = given.get("context_ids")
        names = [] if given_ids is None else names_value(given_ids, "context_ids")
        with self._storage.transaction(whole=True):
            seen = list(dict.fromkeys(self._resolve(name) for name in names))
            if not self._storage.insert(DECISIONS, [entry], ignore_existing=True):
                where = [Condition(name, "=", entry[name]) for name in UNIQUE]
                return str(self._storage.rows(DECISIONS, where=where, columns=["id"])[0]["id"])
            links = [{"decision_id": entry["id"], "position": n, "context_id": name} for n, name in enumerate(seen, 1)]
            self._storage.insert(SEEN, links)
        return str(entry["id"])

    def record_outcome(
        self, decision_id: str, *, quality_score: float | None, success: bool | None, at: Any = None
    ) -> None:
        """Note how a decision turned out; what is not given stays as it is."""
        changes: dict[str, Any] = {"outcome_at": self._clock() if at is None else moment(at, "at")}
        if quality_score is not None:
            changes["quality_score"] = share_value(quality_score, "quality_score")
        if success is not None:
            changes["success"] = flag_value(success, "success")
        if len(changes) == 1:
            raise InvalidValue(
                f"the outcome of {shortened(decision_id)} is empty: give quality_score (0 to 1), success (True or False), or both"
            )
        name = name_value(decision_id, "decision_id")
        if not self._storage.update(DECISIONS, [Condition("id", "=", name)], changes):
            raise DecisionNotFound(f"no decision {shortened(name)}: al.decisions_df() lists the ids")

    # Prices

    def unpriced(self) -> list[dict[str, Any]]:
        """Return what has no cost, by provider and model, with what to add: rows of `UNPRICED_COLUMNS`."""
        by = [Group("provider"), Group("model")]
        measures = [
            Measure("calls", "count"),
            Measure("counted", "count", ("input_tokens",), given="output_tokens"),
            Measure("input_tokens", "sum", ("input_tokens",)),
            Measure("output_tokens", "sum", ("output_tokens",)),
            Measure("first_at", "min", ("at",)),
            Measure("last_at", "max", ("at",)),
        ]
        where = [Condition(name, "is null") for name in COST]
        sums = self._storage.aggregate(TABLE, by=by, measures=measures, where=where)
        rows = [dict(zip(sums, cells, strict=True)) for cells in zip(*sums.values(), strict=True)]
        rows.sort(key=lambda row: (-row["calls"], row["provider"] or "", row["model"]))
        return [{**row, **self._remedy(row)} for row in rows]

    def _remedy(self, row: Mapping[str, Any]) -> dict[str, str]:
        model, provider = row["model"], row["provider"]
        if not row["counted"]:
            return {
                "reason": "tokens unknown",
                "remedy": "record input_tokens and output_tokens (0 where there are none)",
            }
        if self.price_book.price(model=model, provider=provider, at=row["last_at"], input_tokens=1, output_tokens=1):
            return {"reason": "price known now", "remedy": "al.reprice_usage(dry_run=False)"}
        named = f"model: {model}" + (f", provider: {provider}" if provider else "")
        add = "" if provider else "record the provider too, or "
        add += f"add {{{named}, input_usd_per_mtok: …, output_usd_per_mtok: …}} to the price table (al.use_prices), "
        return {"reason": "price unknown", "remedy": add + "then al.reprice_usage(dry_run=False)"}

    def reprice(self, *, where: Sequence[Condition], dry_run: bool) -> pd.DataFrame:
        """Price the calls anew and return what changes, in `REPRICED_COLUMNS`; an estimate never gives way to nothing."""
        import numpy as np
        import pandas as pd

        names = ["usage_key", "at", "provider", "model", *TOKENS, *PRICED]
        changed, last = [frame([], REPRICED_COLUMNS)], 0
        with self._storage.transaction() if not dry_run else nullcontext():
            while True:
                following = [*where, Condition("usage_key", ">", last)]
                options = {"where": following, "order_by": ["usage_key"], "limit": BATCH_ROWS}
                before = table_columns(self._storage, names, **options)
                if not len(before["usage_key"]):
                    return pd.concat([part for part in changed if len(part)] or changed, ignore_index=True)
                last = int(before["usage_key"][-1])
                after = self.prices(before)
                places = _changed_places(before, after)
                before = {name: column[places] for name, column in before.items()}
                after = {name: column[places] for name, column in after.items()}
                if places.size:
                    changed.append(_repriced(before, after))
                    if not dry_run:
                        keys = before["usage_key"].astype(np.int64)
                        self._storage.update_each(TABLE, {"usage_key": keys, **after}, key="usage_key")


def _changed_places(before: Mapping[str, Any], after: Mapping[str, Any]) -> Any:
    """Return the rows whose price is known and another one now."""
    import numpy as np

    changed = np.zeros(len(before["usage_key"]), dtype=bool)
    for name in PRICED:
        same = before[name] == after[name]
        if name.endswith("_usd"):
            same |= np.isnan(before[name]) & np.isnan(after[name])
        changed |= ~same.astype(bool)
    return np.flatnonzero(changed & ~np.isnan(after["cost_estimated_usd"]))


def _repriced(before: Mapping[str, Any], after: Mapping[str, Any]) -> pd.DataFrame:
    cost = "cost_estimated_usd"
    columns = {
        **before,
        "cost_before_usd": before[cost],
        "cost_after_usd": after[cost],
        "change_usd": after[cost] - before[cost],
        "source_before": before["cost_source"],
        "source_after": after["cost_source"],
        "price_date_before": before["price_date"],
        "price_date_after": after["price_date"],
    }
    return column_frame(columns, REPRICED_COLUMNS)


def table_columns(storage: Storage, names: Sequence[str], **options: Any) -> dict[str, Any]:
    """Return columns of the ledger as arrays, texts as arrays of str and None."""
    import numpy as np

    found = storage.columns(TABLE, names, **options)
    return {
        name: np.array([*column.values, None], dtype=object)[column.codes] if isinstance(column, tuple) else column
        for name, column in found.items()
    }


def _slices(source: Any, size: int) -> Iterator[Any]:
    if hasattr(source, "iloc"):
        for start in range(0, len(source), size):
            yield source.iloc[start : start + size]
        return
    rows = rows_of(source)
    while batch := list(islice(rows, size)):
        yield batch


class CallFilters(TypedDict, total=False):
    """Which calls a frame is about; the names may be lists of alternatives, and so may the values of `metadata`."""

    since: Any
    until: Any
    provider: str | Sequence[str] | None
    model: str | Sequence[str] | None
    operation: str | Sequence[str] | None
    agent: str | Sequence[str] | None
    source: str | Sequence[str] | None
    success: bool | None
    metadata: Mapping[str, Any] | None


def conditions(*, now: datetime, filters: Mapping[str, Any], known: Iterable[str]) -> list[Condition]:
    """Turn filters with `known` names into conditions: see `CallFilters`. Raises `InvalidValue`."""
    for name in filters:
        if name not in known:
            raise InvalidValue(f"unknown filter {name!r}{did_you_mean(name, known)}")
    tests: list[tuple[str, Any, Operator]] = [
        ("since", filters.get("since"), ">="),
        ("until", filters.get("until"), "<"),
    ]
    where = [Condition("at", test, moment(value, name, now=now)) for name, value, test in tests if value is not None]
    for name, given in filters.items():
        if given is None or name in ("since", "until"):
            continue
        if name == "success":
            where.append(Condition(name, "=", flag_value(given, name)))
        elif name == "metadata":
            where += [
                Condition(name, "in" if isinstance(value, list) else "=", value, key=key)
                for key, value in metadata_value(given).items()
            ]
        else:
            alternatives = given if isinstance(given, list | tuple) else [given]
            where.append(Condition(name, "in", [name_value(item, name) for item in alternatives]))
    return where


def groups(by: str | Sequence[str], freq: str | None) -> list[Group]:
    """Return what `by` and `freq` name: the period first, then ledger columns and metadata keys.

    >>> [group.column for group in groups(["model", "metadata.team"], "D")]
    ['at', 'model', 'metadata']
    """
    names = names_value(by, "by")
    periods = [name for name in names if name in FREQUENCIES] + ([] if freq is None else [freq])
    if len(periods) > 1:
        raise InvalidValue(f"by={by!r} and freq={freq!r}: give one time frequency")
    found = [Group("at", freq=_frequency(period)) for period in periods]
    for name in names:
        if name in FREQUENCIES:
            continue
        column, dot, key = str(name).partition(".")
        if column == "metadata" and dot and key:
            found.append(Group(column, key=key))
        elif name in LEDGER_COLUMNS and name not in ("metadata", "cost_usd"):
            found.append(Group(name))
        else:
            known = [*LEDGER_COLUMNS, *FREQUENCIES, "metadata.key"]
            raise InvalidValue(f"by={name!r} is no column of the ledger{did_you_mean(str(name), known)}")
    if len(set(found)) < len(found):
        raise InvalidValue(f"by={by!r} names something twice: name it once")
    return found


def _frequency(value: str) -> Frequency:
    if value not in FREQUENCIES:
        raise InvalidValue(f"freq={shortened(value)}: give 'h', 'D', 'W' or 'M' (hours, days, weeks, months)")
    return value
