"""The settings that were applied from evidence: kept in the file with it, in force for every lab that opens it.

What holds, the strongest first: an argument of the call; the setting applied last and not reverted; the configuration
of the lab (argument of `al.open`, environment, YAML, preset, default). So an agent that is already running with its own
configuration uses what was applied, also from another process.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

from .errors import DamagedLab, InvalidValue, NotFound, SettingMismatchWarning, did_you_mean
from .forking import new_lock
from .frames import TIME
from .indexing import Index
from .recommendation import Binding, Recommendation
from .records import Condition, Metric, Ranking, Relevance
from .validation import amount_value, name_value, new_id, shortened

if TYPE_CHECKING:
    from .config import LabConfig
    from .storage import Storage

TABLE = "settings_log"
RANKING = ("fusion", "text_weight", "text_column_weights", "candidates")
CONFIGURED = (*RANKING, "similarity_threshold", "chunk_tokens", "chunk_overlap_tokens")
# Settings that are values of their own, which the verb that uses them checks.
DOCUMENTS = ("relevance", "routing_policy")

COLUMNS = {
    "settings_key": "int64",
    "at": TIME,
    "setting": "str",
    "value": "object",
    "in_force": "bool",
    "kind": "str",
    "version": "str",
    "because": "str",
    "measure": "str",
    "estimate": "float64",
    "interval_low": "float64",
    "interval_high": "float64",
    "sample_size": "Int64",
    "held_out": "boolean",
    "embedding_model": "str",
    "data_hash": "str",
    "reverts_key": "Int64",
    "application_id": "str",
}


class AppliedSettings:
    """The settings log of one lab."""

    def __init__(self, storage: Storage, index: Index, config: LabConfig, *, clock: Callable[[], datetime]) -> None:
        self._storage = storage
        self._index = index
        self._config = config
        self._clock = clock
        self._lock = new_lock()
        self._known: tuple[Any, dict[str, dict[str, Any]]] | None = None
        self._warned: set[tuple[int, str | None]] = set()

    def in_force(self) -> dict[str, dict[str, Any]]:
        """Return the log's entry of each applied setting by name, from memory where the file has not changed."""
        stamp = self._storage.stamp()
        with self._lock:
            if stamp is not None and self._known is not None and self._known[0] == stamp:
                return self._known[1]
        entries = _in_force(self._entries())
        if stamp is not None:
            with self._lock:
                self._known = stamp, entries
        return entries

    def value(self, name: str, *, default: Any = None) -> Any:
        """Return what a setting is: applied, else configured, else the default. Raises `NotFound` without one.

        Warns (`SettingMismatchWarning`) where it was chosen for other vectors than the lab's.
        """
        entry = self.in_force().get(name)
        if entry is not None:
            self._compare(name, entry)
            return entry["value"]
        if name in CONFIGURED:
            return getattr(self._config, name)
        if default is None:
            known = {*self.in_force(), *CONFIGURED}
            raise NotFound(f"no setting {shortened(name)} was applied{did_you_mean(str(name), known)}")
        return default

    def ranking(self, given: Mapping[str, Any]) -> Ranking:
        """Return how searches rank, with what the call gives in place of what is in force. Raises `InvalidValue`."""
        applied = self.in_force()
        values = {}
        for name in RANKING:
            chosen = given.get(name)
            if chosen is not None:
                values[name] = _checked(name, chosen, "search")
            else:
                values[name] = self.value(name) if name in applied else getattr(self._config, name)
        return Ranking(**values)

    def relevance(self, ranking: Ranking, min_relevance: float | None) -> Relevance | None:
        """Return the applied model of relevance, with the cutoff that the call gives, if any; None where none is applied.

        Warns (`SettingMismatchWarning`) where it was fitted for another ranking. Raises `InvalidValue`.
        """
        entry = self.in_force().get("relevance")
        if entry is None:
            if min_relevance is not None:
                raise InvalidValue(
                    f"min_relevance={shortened(min_relevance)} needs a fitted model of relevance: "
                    'al.apply(al.tune_search(what="cutoff"))'
                )
            return None
        if min_relevance is not None and not 0 <= amount_value(min_relevance, "min_relevance") <= 1:
            raise InvalidValue(f"min_relevance={min_relevance}: give a probability from 0 to 1")
        document = dict(self.value("relevance"))
        fitted, now = document.pop("ranking"), asdict(ranking)
        changed = ", ".join(
            f"{name}={now[name]} instead of {fitted.get(name)}" for name in now if now[name] != fitted.get(name)
        )
        if changed and (key := (entry["settings_key"], changed)) not in self._warned:
            self._warned.add(key)
            told = f"the cutoff on relevance was fitted for another ranking ({changed}): tune it again"
            warnings.warn(told, SettingMismatchWarning, stacklevel=4)
        model = Relevance(**document)
        return model if min_relevance is None else replace(model, cutoff=float(min_relevance))

    @property
    def metric(self) -> Metric:
        """How the lab compares vectors."""
        return self._config.metric

    def binding(self) -> Binding:
        """Return the vectors that answer searches now."""
        active = self._index.active_set()
        if active is None:
            return Binding()
        return Binding(active.model_id, active.dimensions, self._config.metric)

    def _compare(self, name: str, entry: Mapping[str, Any]) -> None:
        meant = entry["evidence"]["bound_to"]
        if meant["embedding_model"] is None:
            return
        now = self.binding()
        key = (entry["settings_key"], now.embedding_model)
        if now in (Binding(), Binding(**meant)) or key in self._warned:
            return
        self._warned.add(key)
        warnings.warn(
            f"{name}={shortened(entry['value'])} was chosen for {Binding(**meant)}, but the lab's vectors are {now}: "
            f"tune it again, or al.revert({name!r})",
            SettingMismatchWarning,
            stacklevel=5,
        )

    def apply(self, recommendation: Recommendation) -> list[dict[str, Any]]:
        """Write a recommendation's settings with its evidence, and return the new entries of the log."""
        if not isinstance(recommendation, Recommendation):
            raise InvalidValue(
                f"{shortened(recommendation)} is a {type(recommendation).__name__}: give a Recommendation, or "
                "Recommendation.from_dict(…)"
            )
        if recommendation.verdict != "recommend":
            raise InvalidValue(
                f"the verdict is {recommendation.verdict!r} ({recommendation.because}): nothing is applied. A value that "
                "you choose without evidence belongs into the configuration"
            )
        evidence, application_id, now = recommendation.evidence, new_id(), self._clock()
        rows = [
            {
                "at": now,
                "setting": name,
                "value": json.dumps(_checked(name, value, recommendation.kind), ensure_ascii=False),
                "embedding_model": recommendation.bound_to.embedding_model,
                "data_hash": evidence.data_hash,
                "sample_size": evidence.sample_size,
                "interval_low": evidence.low,
                "interval_high": evidence.high,
                "evidence": recommendation.to_dict(),
                "application_id": application_id,
            }
            for name, value in recommendation.settings.items()
        ]
        with self._storage.transaction():
            self._storage.insert(TABLE, rows)
        added = self._entries(Condition("application_id", "=", application_id))
        for entry in added:
            self._compare(entry["setting"], entry)
        return added

    def revert(self, name: str | None) -> list[dict[str, Any]]:
        """Take back the last application of a setting, or for None all of the last application; return the new entries.

        What was in force before is in force again. Raises `NotFound` where nothing is applied.
        """
        with self._storage.transaction():
            standing = _in_force(self._entries())
            if name is not None and name not in standing:
                raise NotFound(f"no setting {shortened(name)} is applied{did_you_mean(str(name), standing)}")
            if not standing:
                raise NotFound("no setting is applied: there is nothing to revert")
            last = standing[name] if name else max(standing.values(), key=lambda entry: entry["settings_key"])
            chosen = [last] if name else [e for e in standing.values() if e["application_id"] == last["application_id"]]
            now, application_id = self._clock(), new_id()
            self._storage.insert(TABLE, [_reversal(entry, now, application_id) for entry in chosen])
            return self._entries(Condition("application_id", "=", application_id))

    def rows(self) -> list[dict[str, Any]]:
        """Return the log as rows of `COLUMNS`, the newest first."""
        entries = self._entries()
        standing = {entry["settings_key"] for entry in _in_force(entries).values()}
        return [_row(entry, entry["settings_key"] in standing) for entry in reversed(entries)]

    def _entries(self, *where: Condition) -> list[dict[str, Any]]:
        rows = self._storage.rows(TABLE, where=where, order_by=["settings_key"])
        if bare := [str(row["settings_key"]) for row in rows if not isinstance(row["evidence"], dict)]:
            raise DamagedLab(
                f"entry {', '.join(bare)} of the settings log has no evidence, so no lab wrote it: al.check() names it"
            )
        try:
            return [{**row, "value": json.loads(row["value"])} for row in rows]
        except ValueError as exc:
            raise DamagedLab(f"a value in the settings log is no JSON ({exc}): al.check() names it") from exc


def _in_force(entries: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    reverted = {entry["reverts_key"] for entry in entries}
    standing = [e for e in entries if e["reverts_key"] is None and e["settings_key"] not in reverted]
    return {entry["setting"]: entry for entry in standing}


def _reversal(entry: Mapping[str, Any], now: datetime, application_id: str) -> dict[str, Any]:
    kept = {name: entry[name] for name in ("setting", "embedding_model", "data_hash", "evidence")}
    value = json.dumps(entry["value"], ensure_ascii=False)
    return {**kept, "at": now, "value": value, "reverts_key": entry["settings_key"], "application_id": application_id}


def _row(entry: Mapping[str, Any], in_force: bool) -> dict[str, Any]:
    made = entry["evidence"]
    found = {
        "kind": made["kind"],
        "version": made["version"],
        "because": made["because"] if entry["reverts_key"] is None else f"reverts entry {entry['reverts_key']}",
        "measure": made["evidence"]["metric"],
        "estimate": made["evidence"]["estimate"],
        "held_out": made["evidence"]["held_out"],
    }
    return {**entry, **found, "in_force": in_force}


def _checked(name: str, value: Any, kind: str) -> Any:
    """Return a setting's value as it is kept. Raises `InvalidValue` for a value, or name, that nothing can use."""
    name_value(name, "setting")
    if name in CONFIGURED:
        from pydantic import ValidationError

        if isinstance(value, bool):
            raise InvalidValue(f"{name}={value}: give a number, not True or False")
        try:
            return _reader_of(name).validate_python(value)
        except ValidationError as exc:
            raise InvalidValue(f"{name}={shortened(value)}: {exc.errors()[0]['msg']}") from exc
    if name in DOCUMENTS:
        if not isinstance(value, Mapping):
            raise InvalidValue(f"{name}={shortened(value)} is a {type(value).__name__}: give a dict")
        if name == "relevance" and set(value) != {*(item.name for item in fields(Relevance)), "ranking"}:
            raise InvalidValue(f"relevance={shortened(value)}: give what tune_search recommends")
        return value
    if kind != "threshold":
        raise InvalidValue(f"no setting {name!r}{did_you_mean(name, (*CONFIGURED, *DOCUMENTS))}")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidValue(f"{name}={shortened(value)}: a threshold is a finite number")
    return value


@lru_cache
def _reader_of(name: str) -> Any:
    """Return what reads a value of a configured setting as the configuration itself does."""
    from pydantic import TypeAdapter

    from .config import LabConfig

    field = LabConfig.model_fields[name]
    wanted: Any = Annotated[field.annotation, field]
    return TypeAdapter(wanted)
