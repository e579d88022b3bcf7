"""Values of other programs' logs to those of the ledger: numbers, times, names and JSON, or the reason why not."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any

from jiter import from_json

from ..errors import InvalidValue
from ..validation import MAX_NAME_CHARS, is_missing, moment, shortened, storable

# More than any model reads or writes in one call: a counter that ran over, or a sum over many calls.
MOST_TOKENS = 100_000_000
MAX_LABEL_CHARS = 200
REMEMBERED_CHARS = 1_000  # a longer text is not kept in a cache, which thousands of them would make huge
TEXTS = frozenset({str, type(None)})
CLASSES = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST = datetime(2015, 1, 1, tzinfo=UTC)  # before that, a time is an unset clock
# Epoch numbers are seconds up to here, then milliseconds, microseconds, nanoseconds: 1e11 s is the year 5138.
EPOCH_UNITS = ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (math.inf, 1e9))
SUCCEEDED = frozenset(
    {"ok", "success", "succeeded", "successful", "completed", "complete", "true", "1", "200", "unset"}
)
FAILED = frozenset({"error", "fail", "failed", "failure", "false", "0", "cancelled", "canceled", "timeout"})


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = {}  # filled in a loop, which for the small objects of logs is quicker than dict(pairs)
    for name, value in pairs:
        result[name] = value
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidValue(f"the key {shortened(twice)} is there twice: which one holds cannot be told")
    return result


JSON_SPACES = " \t\r\n"
DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def parsed(text: str | bytes) -> Any:
    """Return what a JSON text says. Raises `InvalidValue` for what is none, is nested too deep, or has a key twice."""
    try:
        given = text.encode() if isinstance(text, str) else text
        return from_json(given, catch_duplicate_keys=True, cache_mode="keys")
    except ValueError:
        return _parsed(text)


def _parsed(text: str | bytes) -> Any:
    """Do what `parsed` does more slowly, also with damaged characters, and say what is wrong."""
    try:
        told = (text if isinstance(text, str) else text.decode("utf-8", errors="replace")).strip(JSON_SPACES)
        value, end = DECODER.raw_decode(told)
        if end < len(told):
            raise json.JSONDecodeError("Extra data", told, end)
        return value
    except json.JSONDecodeError as exc:
        told = f"{exc.msg.removesuffix(' at')} at character {exc.pos}"
        raise InvalidValue(f"not valid JSON ({told}): {shortened(exc.doc[:60])}") from exc
    except RecursionError as exc:
        raise InvalidValue("JSON nested too deep to be read") from exc
    except InvalidValue:
        raise
    except ValueError as exc:  # a number of thousands of digits
        raise InvalidValue(f"not usable JSON: {exc}") from exc


def document(value: Any) -> Any:
    """Return a value that may be JSON in a text, as databases export it; {} for nothing or no JSON."""
    if not isinstance(value, str):
        return {} if value is None or is_missing(value) else value
    try:
        return parsed(value) if value.strip() else {}
    except InvalidValue:
        return {}


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping, also one that is JSON in a text; {} for anything else."""
    found = document(value)
    return found if type(found) is dict or isinstance(found, Mapping) else {}


def at(value: Any, *path: str) -> Any:
    """Return what a path of keys leads to, None where it ends early."""
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def first(*values: Any) -> Any:
    """Return the first value that is something."""
    for value in values:
        if value is not None and value != "":
            return value
    return None


def number(value: Any, name: str) -> float | None:
    """Return a finite number, also from a text; None for nothing, which NaN is too. Raises `InvalidValue`."""
    if value is None or type(value) is int or (type(value) is float and abs(value) < math.inf):
        return value
    if is_missing(value) or (isinstance(value, str) and not value.strip()):
        return None
    try:
        found = float(value) if not isinstance(value, bool) else math.inf
    except (TypeError, ValueError, OverflowError):
        found = math.inf
    if abs(found) == math.inf:
        raise InvalidValue(f"{name}={shortened(value)} is no finite number")
    return None if math.isnan(found) else found


def count(value: Any, name: str) -> int | None:
    """Return a number of tokens of one call; None for nothing. Raises `InvalidValue`."""
    if value is None or (type(value) is int and 0 <= value <= MOST_TOKENS):
        return value
    if type(value) is str and len(value) < 9 and value.isdecimal():
        return int(value)  # as OTLP and CSV write it, and no more than a call can use
    found = number(value, name)
    if found is None:
        return None
    if found < 0 or found != math.floor(found):
        raise InvalidValue(f"{name}={shortened(value)} is no number of tokens")
    if found > MOST_TOKENS:
        raise InvalidValue(f"{name}={shortened(value)} is more than one call can use")
    return int(found)


def amount(value: Any, name: str) -> float | None:
    """Return a number of at least 0; None for nothing. Raises `InvalidValue`."""
    found = number(value, name)
    if found is not None and found < 0:
        raise InvalidValue(f"{name}={shortened(value)} is below 0")
    return found


def text(value: Any, name: str) -> str | None:
    """Return a name on one line; None for nothing. Raises `InvalidValue` for what no name can be."""
    if isinstance(value, str):
        return _name(value, name) if len(value) <= REMEMBERED_CHARS else _name.__wrapped__(value, name)
    if is_missing(value):
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidValue(f"{name}={shortened(value)} is no text")
    return str(value)


def id_text(value: Any, name: str) -> str | None:
    """Do what `text` does for an id, which is hardly seen twice: nothing is kept of it."""
    if type(value) is str:
        plain = value.isascii() and value.isprintable() and " " not in value and 0 < len(value) <= MAX_NAME_CHARS
        return value if plain else _name.__wrapped__(value, name)
    return text(value, name)


# Models, projects and sessions repeat, so each is looked at once.
@functools.lru_cache(maxsize=4096)
def _name(value: str, name: str) -> str | None:
    found = " ".join(value.split())
    if "\ufffd" in found:
        raise InvalidValue(f"{name}={shortened(found)} has characters that are not UTF-8")
    if len(found) > MAX_NAME_CHARS:
        raise InvalidValue(f"{name}={shortened(found)} has more than {MAX_NAME_CHARS} characters")
    return storable(found, name) or None


def label(value: str) -> str | None:
    """Return a text for the metadata, on one line and shortened to what is readable; None for an empty one."""
    return _label(value) if len(value) <= REMEMBERED_CHARS else _label.__wrapped__(value)


@functools.lru_cache(maxsize=4096)
def _label(value: str) -> str | None:
    found = " ".join(value.replace("\0", " ").split()).encode("utf-8", errors="replace").decode()
    return found[:MAX_LABEL_CHARS] or None


def last_part(path: Any) -> str | None:
    """Return the last part of a path of any system."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] if isinstance(path, str) else None


def spoken(content: Any) -> str | None:
    """Return the text of a message's content: a text, or parts of which some are texts."""
    if isinstance(content, str):
        return content
    given = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    parts = [part.get("text") or part.get("content") for part in given if part.get("type", "text") == "text"]
    return "\n".join(part for part in parts if isinstance(part, str)) or None


def labels(**given: Any) -> dict[str, Any]:
    """Return metadata of the texts, numbers and flags that are there."""
    values = tuple(given.values())
    if TEXTS.issuperset(map(type, values)) and sum(map(len, filter(None, values))) <= REMEMBERED_CHARS:
        return _labels(tuple(given), values)
    return _labels.__wrapped__(tuple(given), values)


# Calls of one service or session have the same, which is then checked and written once in a batch.
@functools.lru_cache(maxsize=4096)
def _labels(names: tuple[str, ...], values: tuple[Any, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in zip(names, values, strict=True):
        if type(value) is str:
            if (told := label(value)) is not None:
                found[name] = told
        elif isinstance(value, str | int):
            found[name] = value
    return found


def instant(value: Any, name: str, *, zone: tzinfo = UTC) -> datetime | None:
    """Return a time in UTC from ISO 8601 text or seconds, milli-, micro- or nanoseconds since 1970; None for nothing.

    `zone` holds for texts and dates, which have none. Raises `InvalidValue`.
    """
    if type(value) is str:
        # As nearly all are written.
        if len(value) == 19 and value.isdecimal():
            return EPOCH + timedelta(microseconds=int(value) // 1_000)
        if value[4:5] == "-" and (told := _written(value)) is not None:
            if told.tzinfo is UTC:
                return told
            if told.tzinfo is None and zone is UTC:
                return datetime.combine(told, told.time(), UTC)  # a quarter of what `replace` takes
    if isinstance(value, datetime):
        found = value
    elif isinstance(value, date):
        found = datetime(value.year, value.month, value.day)
    else:
        if isinstance(value, str):
            stripped = value.strip()
            if stripped.lstrip("-").replace(".", "", 1).isdigit():
                value = float(stripped) if "." in stripped else int(stripped)
        if isinstance(value, str) and value.strip():
            try:
                found = datetime.fromisoformat(value.strip().removesuffix(" UTC"))
            except ValueError as exc:
                raise InvalidValue(f"{name}={shortened(value)} is no time") from exc
        else:
            seconds = number(value, name)
            if seconds is None:
                return None
            found = _of_epoch(seconds, name)
    return found if found.tzinfo is UTC else moment(found if found.tzinfo else found.replace(tzinfo=zone), name)


def _written(value: str) -> datetime | None:
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None


def _of_epoch(given: float, name: str) -> datetime:
    unit = next(unit for most, unit in EPOCH_UNITS if abs(given) < most)
    try:
        # Whole microseconds, so that nanoseconds do not lose digits as a float.
        micros = given * 1_000_000 // int(unit) if isinstance(given, int) else round(given / unit * 1e6)
        return EPOCH + timedelta(microseconds=micros)
    except (OverflowError, ValueError) as exc:
        raise InvalidValue(f"{name}={shortened(given)} is no time") from exc


def milliseconds(start: datetime | None, end: datetime | None) -> float | None:
    """Return the milliseconds from one time to another; None where one is not known or the clock ran backwards."""
    if start is None or end is None or end < start:
        return None
    return (end - start).total_seconds() * 1_000


def outcome(value: Any) -> bool | None:
    """Return whether a status word, number or flag means success; None for one that says neither."""
    if isinstance(value, bool):
        return value
    if type(value) is not str and is_missing(value):
        return None
    said = str(value)
    return _outcome(said) if len(said) <= REMEMBERED_CHARS else None


@functools.lru_cache(maxsize=256)
def _outcome(said: str) -> bool | None:
    word = said.strip().lower().rpartition("_")[2]
    if word in SUCCEEDED:
        return True
    return False if word in FAILED or (word.isdigit() and 400 <= int(word) < 600) else None


def token_counts(
    *,
    input_tokens: Any = None,
    output_tokens: Any = None,
    cache_read_tokens: Any = None,
    cache_write_tokens: Any = None,
    reasoning_tokens: Any = None,
    input_without_cache: bool = False,
) -> dict[str, int]:
    """Return the counts of one call as the ledger defines them: input with the cache, output with the reasoning.

    `input_without_cache` says that the input is to be completed; an input smaller than its own parts is completed in
    any case, and so is an output smaller than its reasoning. Raises `InvalidValue`.
    """
    given = (input_tokens, cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens)
    return counts_of(dict(zip(CLASSES, given, strict=True)), input_without_cache=input_without_cache)


def counts_of(given: Mapping[str, Any], *, input_without_cache: bool = False) -> dict[str, int]:
    """Do what `token_counts` does with the counts under their names in a mapping."""
    found: dict[str, int] = {}
    for name in CLASSES:
        value = given.get(name)
        if value is not None and (tokens := count(value, name)) is not None:
            found[name] = tokens
    if "input_tokens" in found:
        cached = found.get("cache_read_tokens", 0) + found.get("cache_write_tokens", 0)
        if input_without_cache or cached > found["input_tokens"]:
            found["input_tokens"] += cached
    if "output_tokens" in found and (thought := found.get("reasoning_tokens", 0)) > found["output_tokens"]:
        found["output_tokens"] += thought
    return found
