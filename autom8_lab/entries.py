"""Entries: model calls and decisions from users, checked field by field before anything is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from .errors import InvalidValue, did_you_mean
from .validation import (
    INTEGER_LIMIT,
    MAX_NAME_CHARS,
    amount_value,
    flag_value,
    integer_value,
    is_missing,
    metadata_value,
    moment,
    name_value,
    shortened,
    text_value,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Check = Callable[[Any, str], Any]

TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
NAMES = ("provider", "model", "operation", "agent", "error_type", "decision_id", "source", "source_id")
EPOCH, MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
# These calls have no output to count.
NOTHING: dict[str, Any] = {}
WITHOUT_OUTPUT = frozenset({"embeddings", "embedding", "rerank"})


def count_value(value: object, name: str) -> int:
    """Return a whole number of at least 0."""
    number = integer_value(value, name)
    if number < 0:
        raise InvalidValue(f"{name}={number}: give a whole number of at least 0")
    return number


def share_value(value: object, name: str) -> float:
    """Return a number from 0 to 1."""
    number = amount_value(value, name)
    if number > 1:
        raise InvalidValue(f"{name}={shortened(value)}: give a number from 0 to 1")
    return number


USAGE: dict[str, Check] = {
    "at": moment,
    **dict.fromkeys(NAMES, name_value),
    **dict.fromkeys(TOKENS, count_value),
    **dict.fromkeys(("latency_ms", "ttft_ms", "cost_actual_usd"), amount_value),
    "quality_score": share_value,
    "success": flag_value,
    "metadata": metadata_value,
}
DECISION: dict[str, Check] = {
    "at": moment,
    **dict.fromkeys(
        ("decision_type", "chosen", "policy", "policy_version", "agent", "source", "source_id"), name_value
    ),
    **dict.fromkeys(("summary", "content"), text_value),
    "complexity_score": share_value,
    "metadata": metadata_value,
}


def usage_entry(given: Mapping[str, Any], *, now: datetime, agent: str | None) -> dict[str, Any]:
    """Check the fields of one call and return them with their defaults. Raises `InvalidValue`."""
    if not isinstance(given, Mapping):
        raise InvalidValue(f"a row is {shortened(given)}: give a dict with 'model' and the tokens")
    entry: dict[str, Any] = {"at": now, "operation": "chat", "metadata": {}}
    for name, value in given.items():
        if value is None:
            continue
        if name not in USAGE:
            raise InvalidValue(f"unknown field {name!r}{did_you_mean(str(name), USAGE)}")
        entry[name] = USAGE[name](value, name)
    if agent is not None:
        entry.setdefault("agent", agent)
    entry.setdefault("success", "error_type" not in entry)
    if entry["operation"] in WITHOUT_OUTPUT:
        entry.setdefault("output_tokens", 0)
    check_together(entry)
    return entry


def check_together(entry: Mapping[str, Any]) -> None:
    """Refuse what cannot be together in one call."""
    if "model" not in entry:
        raise InvalidValue("model is missing: give the name of the model that was called")
    if "source_id" in entry and "source" not in entry:
        raise InvalidValue(f"source_id={entry['source_id']!r} has no source: say where that id comes from")
    cached = entry.get("cache_read_tokens", 0) + entry.get("cache_write_tokens", 0)
    parts = [("cache_read_tokens + cache_write_tokens", cached, "input_tokens")]
    parts.append(("reasoning_tokens", entry.get("reasoning_tokens", 0), "output_tokens"))
    for part, count, whole in parts:
        if count > entry.get(whole, INTEGER_LIMIT * 2):
            raise InvalidValue(f"{part}={count} is more than {whole}={entry[whole]}: {whole} includes them")


class UsageBatch:
    """Many calls as columns of equal length, checked as `usage_entry` checks one; an error names the row.

    `columns` has every field of `USAGE`: counts, amounts and flags as float64 (NaN for nothing), `at` as
    datetime64[us], the others as lists.
    """

    def __init__(self, rows: pd.DataFrame | Sequence[Any], *, now: datetime, agent: str | None, first_row: int) -> None:
        self._first_row = first_row
        self._defaults: dict[str, Any] = {"at": now, "operation": "chat", "agent": agent, "metadata": {}}
        self._given: dict[str, Any] = self._given_columns(rows)
        self.length = len(rows)
        self.columns: dict[str, Any] = {name: self._column(name) for name in USAGE}
        self._complete()

    def _given_columns(self, rows: Any) -> dict[str, Any]:
        """Return the given values by field, None where a row has none."""
        if hasattr(rows, "to_dict"):
            self._refuse_unknown(rows.columns)
            if rows.columns.has_duplicates:
                raise InvalidValue(
                    f"the frame has two columns {rows.columns[rows.columns.duplicated()][0]!r}: drop one"
                )
            return {str(name): _cells(rows[name]) for name in rows.columns}
        columns: dict[str, list[Any]] = {}
        names = tuple(rows[0]) if rows and type(rows[0]) is dict else ()
        if names and all(type(row) is dict and tuple(row) == names for row in rows):
            self._refuse_unknown(names, 0)
            return dict(zip(names, map(list, zip(*[row.values() for row in rows], strict=True)), strict=True))
        for place, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise self._error(place, f"a row is {shortened(row)}: give a dict with 'model' and the tokens")
            for name, value in row.items():
                if name not in columns:
                    self._refuse_unknown([name], place)
                    columns[name] = [None] * len(rows)
                columns[name][place] = value
        return columns

    def _refuse_unknown(self, names: Iterable[Any], place: int | None = None) -> None:
        for name in names:
            if name not in USAGE:
                message = f"unknown field {name!r}{did_you_mean(str(name), USAGE)}"
                raise InvalidValue(message) if place is None else self._error(place, message)

    def _error(self, place: int, message: str) -> InvalidValue:
        return InvalidValue(f"row {self._first_row + place}: {message}")

    def _column(self, name: str) -> Any:
        given = self._given.get(name)
        if name == "at":
            return self._times(given)
        if name in NAMES:
            return self._texts(name, given)
        if name == "metadata":
            return self._documents(given)
        return self._numbers(name, given)

    def _checked(self, name: str, place: int, value: Any) -> Any:
        if value is None:
            return None
        try:
            return USAGE[name](value, name)
        except InvalidValue as exc:
            raise self._error(place, str(exc)) from exc

    def _documents(self, given: list[Any] | None) -> list[Any]:
        # Rows of one session share their metadata, so each is looked at once.
        checked: dict[int, Any] = {}
        for place, value in enumerate(given or []):
            if id(value) not in checked:
                empty = value is None or (type(value) is dict and not value)
                checked[id(value)] = NOTHING if empty else self._checked("metadata", place, value)
        return [checked[id(value)] for value in given] if given else [NOTHING] * self.length

    def _texts(self, name: str, given: list[Any] | None) -> list[Any]:
        default = self._defaults.get(name)
        if given is None:
            return [default] * self.length
        if _are_plain(given):
            return given if default is None else [default if value is None else value for value in given]
        good: set[Any] = {None}
        for place, value in enumerate(given):
            # Names repeat, so each is looked at once; a list is no name, and cannot be in a set either.
            if not isinstance(value, str | None) or value not in good:
                good.add(self._checked(name, place, value))
        return [default if value is None else value for value in given] if default is not None else given

    def _numbers(self, name: str, given: list[Any] | None) -> NDArray[np.float64]:
        import numpy as np

        if given is None:
            return np.full(self.length, np.nan)
        flags = name == "success"
        if not set(map(type, given)) <= ({bool, type(None)} if flags else {int, float, type(None)}):
            given = [self._checked(name, place, value) for place, value in enumerate(given)]
        try:
            numbers = np.array(given, dtype=np.float64)
        except OverflowError:  # an int beyond every float
            numbers = np.array([np.inf if value is not None and value > 2**1000 else value for value in given], float)
        missing = np.array([value is None for value in given], dtype=bool) if np.isnan(numbers).any() else None
        bad = ~((numbers >= 0) & np.isfinite(numbers))
        if name in TOKENS:
            bad |= (numbers >= INTEGER_LIMIT) | (numbers != np.floor(numbers))
        if name == "quality_score":
            bad |= numbers > 1
        bad = bad if missing is None else bad & ~missing
        if bad.any():
            place = int(bad.argmax())
            self._checked(name, place, given[place])
            raise self._error(place, f"{name}={shortened(given[place])} cannot be used")
        return numbers

    def _times(self, given: Any) -> NDArray[np.datetime64]:
        import numpy as np

        now = self._defaults["at"]
        if isinstance(given, np.ndarray):
            return np.where(np.isnat(given), np.datetime64(now.replace(tzinfo=None), "us"), given)
        values = given or [now] * self.length
        times = [
            now if value is None else value if is_utc(value) else self._checked("at", place, value)
            for place, value in enumerate(values)
        ]
        # Subtracting is a fifth of what NumPy takes to read a datetime, and as exact.
        return np.array([(time - EPOCH) // MICROSECOND for time in times], dtype=np.int64).view("datetime64[us]")

    def _complete(self) -> None:
        """Fill in what follows from other fields, and refuse what cannot be together."""
        import numpy as np

        columns = self.columns
        failed = np.array([value is not None for value in columns["error_type"]], dtype=bool)
        columns["success"] = np.where(np.isnan(columns["success"]), ~failed, columns["success"])
        silent = np.array([value in WITHOUT_OUTPUT for value in columns["operation"]], dtype=bool)
        columns["output_tokens"] = np.where(silent & np.isnan(columns["output_tokens"]), 0.0, columns["output_tokens"])
        counts = {name: np.nan_to_num(columns[name]) for name in TOKENS}
        with np.errstate(invalid="ignore"):
            wrong = counts["cache_read_tokens"] + counts["cache_write_tokens"] > columns["input_tokens"]
            wrong |= counts["reasoning_tokens"] > columns["output_tokens"]
        pairs = zip(columns["model"], columns["source"], columns["source_id"], strict=True)
        wrong |= np.array([m is None or (s is None and i is not None) for m, s, i in pairs], dtype=bool)
        for place in np.flatnonzero(wrong)[:1]:
            self._refuse(int(place))

    def _refuse(self, place: int) -> None:
        row = {name: self.columns[name][place] for name in USAGE}
        row |= {name: int(row[name]) for name in TOKENS if not is_missing(row[name])}
        try:
            check_together({name: value for name, value in row.items() if not is_missing(value)})
        except InvalidValue as exc:
            raise self._error(place, str(exc)) from exc


def _are_plain(names: list[Any]) -> bool:
    """Whether all are None or names that `name_value` returns as they are, told without a look at each."""
    distinct = set(names) - {None} if set(map(type, names)) <= {str, type(None)} else set()
    together = "".join(distinct)
    lengths = set(map(len, distinct))
    # Of white space only the blank is printable.
    return (
        bool(distinct)
        and together.isprintable()
        and " " not in together
        and 0 < min(lengths) <= max(lengths) <= MAX_NAME_CHARS
    )


def _cells(column: Any) -> Any:
    """Return a frame's column as Python values, None where a cell is empty; aware times as datetime64 in UTC."""
    import numpy as np

    if hasattr(column.dtype, "tz"):
        return column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy(dtype="datetime64[us]")
    values: list[Any] = column.tolist()
    for place in np.flatnonzero(column.isna()):
        values[place] = None
    return values


def is_utc(value: object) -> bool:
    """Whether a time is one that `moment` would return as it is."""
    return type(value) is datetime and value.tzinfo is UTC


def decision_entry(given: Mapping[str, Any], *, now: datetime, agent: str | None) -> dict[str, Any]:
    """Check the fields of a decision, `context_ids` aside, and return them with defaults. Raises `InvalidValue`."""
    entry: dict[str, Any] = dict.fromkeys(DECISION)
    entry |= {"at": now, "agent": agent, "metadata": {}}
    entry |= {name: check(given[name], name) for name, check in DECISION.items() if given.get(name) is not None}
    if entry["decision_type"] is None:
        raise InvalidValue("decision_type is missing: give a short name such as 'route'")
    if entry["source_id"] is not None and entry["source"] is None:
        raise InvalidValue(f"source_id={entry['source_id']!r} has no source: say where that id comes from")
    entry["candidates"] = candidates_value(given.get("candidates"))
    if entry["chosen"] is not None and entry["candidates"] and entry["chosen"] not in entry["candidates"]:
        message = f"chosen={entry['chosen']!r} is none of the candidates"
        raise InvalidValue(f"{message}{did_you_mean(entry['chosen'], entry['candidates'])}")
    entry["propensity"] = _propensity(given.get("propensity"), entry["chosen"])
    return entry


def candidates_value(value: object) -> dict[str, float]:
    """Return the scores of the candidates by name."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidValue(f"candidates={shortened(value)} is a {type(value).__name__}: give a dict of name and score")
    scores = {}
    for name, score in value.items():
        number = None if isinstance(score, bool | str) else _finite(score)
        if number is None:
            raise InvalidValue(f"candidates[{name!r}]={shortened(score)}: give a finite number")
        scores[name_value(name, "name of a candidate")] = number
    return scores


def _finite(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) < float("inf") else None


def _propensity(value: object, chosen: str | None) -> float | None:
    if value is None:
        return None
    number = share_value(value, "propensity")
    if number == 0:
        raise InvalidValue(f"propensity={shortened(value)}: what was chosen had a probability above 0, up to 1")
    if chosen is None:
        raise InvalidValue(f"propensity={shortened(value)} is the probability of what was chosen: give chosen too")
    return number
