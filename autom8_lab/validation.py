"""Values from users to values that can be stored; whatever cannot be says so by name, value and remedy."""

from __future__ import annotations

import json
import math
import operator
import os
import random
import re
import time
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from .errors import InvalidValue
from .forking import new_lock

MAX_NAME_CHARS = 255
MAX_CONTENT_CHARS = 50_000_000
MAX_METADATA_CHARS = 1_000_000
MAX_METADATA_DEPTH = 32
INTEGER_LIMIT = 2**31
DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h|d|w)\s*", re.IGNORECASE)
SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}


_id_lock = new_lock()
_last_id_ns = 0
_random = random.Random()  # seeded by the system; ids have to differ, not to be secret
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)


def new_id() -> str:
    """Return a new id: 16 hexadecimal digits of nanoseconds, which sort in the order of making, and 8 random ones."""
    global _last_id_ns
    with _id_lock:
        _last_id_ns = max(time.time_ns(), _last_id_ns + 1)
        return f"{_last_id_ns:016x}{_random.getrandbits(32):08x}"


def shortened(value: object) -> str:
    """Return a value's repr, cut to what fits into a message."""
    try:
        text = repr(value)
    except Exception:  # a value that cannot even be shown must not hide what is wrong with it
        return f"<{type(value).__name__}>"
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"


def is_missing(value: object) -> bool:
    """Whether a frame's cell means "nothing": None, NaN or pandas' NA and NaT."""
    if value is None or type(value).__name__ in {"NAType", "NaTType"}:
        return True
    try:
        return bool(value != value)
    except (TypeError, ValueError):
        return False


def storable(text: str, name: str) -> str:
    """Return a text that UTF-8 and every database can hold."""
    if (place := text.find("\0")) >= 0:
        raise InvalidValue(f"{name} has a NUL character at position {place}: remove it with .replace('\\0', '')")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise InvalidValue(
            f"{name} has half a surrogate pair at position {exc.start}: decode its source with errors='replace'"
        ) from exc
    return text


def text_value(value: object, name: str, *, max_chars: int = MAX_CONTENT_CHARS) -> str:
    """Return a text with something in it that UTF-8 and every database can hold."""
    if not isinstance(value, str):
        raise InvalidValue(f"{name}={shortened(value)} is a {type(value).__name__}: give a str")
    if not value.strip():
        raise InvalidValue(f"{name}={shortened(value)} is empty: give some text")
    if len(value) > max_chars:
        raise InvalidValue(f"{name} has {len(value):,} characters: at most {max_chars:,} are kept, split it first")
    return storable(value, name)


def name_value(value: object, name: str) -> str:
    """Return an id, topic or other short name: at most 255 characters, no control characters, no outer spaces."""
    if type(value) is str and 0 < len(value) <= MAX_NAME_CHARS and value.isprintable() and value == value.strip():
        return value  # what passes all the tests below, told without a look at each character
    text = text_value(value, name, max_chars=MAX_NAME_CHARS)
    if text != text.strip():
        raise InvalidValue(f"{name}={shortened(text)} starts or ends with white space: give {text.strip()!r}")
    for character in text:
        if unicodedata.category(character) == "Cc":
            raise InvalidValue(f"{name}={shortened(text)} has the control character {character!r}: remove it")
    return text


def integer_value(value: object, name: str) -> int:
    """Return a whole number within ±2**31 (NumPy's count, True and False do not)."""
    number = None
    if isinstance(value, float):
        number = int(value) if value.is_integer() else None
    elif not isinstance(value, bool) and getattr(value, "ndim", 0) == 0:
        with suppress(TypeError):
            number = operator.index(value)  # type: ignore[arg-type]
    if number is None or not -INTEGER_LIMIT < number < INTEGER_LIMIT:
        raise InvalidValue(f"{name}={shortened(value)}: give a whole number within ±2**31")
    return number


def positive_integer(value: object, name: str, *, at_most: int) -> int:
    """Return a whole number from 1 to `at_most`."""
    number = integer_value(value, name)
    if not 1 <= number <= at_most:
        raise InvalidValue(f"{name}={number}: give a whole number from 1 to {at_most:,}")
    return number


def flag_value(value: object, name: str) -> bool:
    """Return True or False; NumPy's bools and the numbers 0 and 1 count, texts do not."""
    if type(value).__name__ in {"bool", "bool_"}:
        return bool(value)
    with suppress(InvalidValue):
        number = integer_value(value, name)
        if number in (0, 1):
            return number == 1
    raise InvalidValue(f"{name}={shortened(value)}: give True or False")


def progress_value(value: object, name: str = "progress") -> bool | None:
    """Return True, False, or None, which shows progress where it makes sense."""
    if value is not None and not isinstance(value, bool):
        raise InvalidValue(f"{name}={shortened(value)}: give True, False or None")
    return value


def path_value(value: object, name: str = "path") -> Path:
    """Return the path that a str or path-like object names."""
    text = value
    if isinstance(value, os.PathLike):
        text = os.fspath(value)
    if not isinstance(text, str):
        raise InvalidValue(f"{name}={shortened(value)} is a {type(value).__name__}: give the path of a file, as a str")
    if not text or "\0" in text:
        raise InvalidValue(f"{name}={shortened(text)}: give the path of a file")
    return Path(text)


def names_value(value: object, name: str) -> list[str]:
    """Return the names that a str, or a list of them, gives."""
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list | tuple):
        raise InvalidValue(f"{name}={shortened(value)} is a {type(value).__name__}: give a name, or a list of names")
    return [name_value(item, name) for item in given]


def metadata_value(value: object, name: str = "metadata") -> dict[str, Any]:
    """Return a JSON object as Python has it after a round trip."""
    if not isinstance(value, Mapping):
        raise InvalidValue(f"{name}={shortened(value)} is a {type(value).__name__}: give a dict")
    if type(value) is dict and len(value) <= 100 and all(map(_is_short, value, value.values())):
        return dict(value)  # as nearly all are: what follows would change nothing
    text = json.dumps(_plain_json(value, name, MAX_METADATA_DEPTH), ensure_ascii=False, allow_nan=False)
    if len(text) > MAX_METADATA_CHARS:
        raise InvalidValue(f"{name} has {len(text):,} characters as JSON: at most {MAX_METADATA_CHARS:,} are kept")
    result: dict[str, Any] = json.loads(text)
    return result


def _is_short(key: object, value: object) -> bool:
    return type(key) is str and type(value) is str and len(key) + len(value) <= 1_000 and (key + value).isprintable()


def _plain_json(value: object, name: str, depth: int) -> object:
    if depth < 0:
        raise InvalidValue(f"{name} is nested deeper than {MAX_METADATA_DEPTH} levels: flatten it")
    match value:
        case None | bool():
            return value
        case str():
            return storable(value, name)
        case int():
            if not -(2**63) <= value < 2**63:
                raise InvalidValue(f"{name}={shortened(value)} does not fit into 64 bits: give it as a str")
            return value
        case float():
            if not math.isfinite(value):
                raise InvalidValue(f"{name}={value!r} has no place in JSON: give None instead")
            return value
        case Mapping():
            for key in value:
                if not isinstance(key, str):
                    raise InvalidValue(f"{name} has the key {shortened(key)}: JSON's keys are str")
                storable(key, f"key of {name}")
            return {key: _plain_json(item, f"{name}[{key!r}]", depth - 1) for key, item in value.items()}
        case list() | tuple():
            return [_plain_json(item, f"{name}[{place}]", depth - 1) for place, item in enumerate(value)]
        case _:
            raise InvalidValue(
                f"{name}={shortened(value)} is a {type(value).__name__}, which JSON does not have: give a str or number"
            )


def duration(value: object, name: str) -> timedelta:
    """Return a positive length of time from "90s", "15m", "12h", "30d", "2w" or a timedelta."""
    if isinstance(value, timedelta):
        length = value
    elif isinstance(value, str) and (match := DURATION.fullmatch(value)):
        seconds = float(match[1]) * SECONDS[match[2].lower()]
        length = timedelta(seconds=seconds) if seconds < 1e11 else timedelta.max
    else:
        raise InvalidValue(f"{name}={shortened(value)}: give a timedelta or a text such as '90s', '12h', '30d', '2w'")
    if not timedelta(0) < length <= timedelta(days=36_500):
        raise InvalidValue(f"{name}={shortened(value)}: give a length of time above zero and up to 36500d")
    return length


def moment(value: object, name: str, *, now: datetime | None = None) -> datetime:
    """Return an aware time in UTC from an aware datetime, a date, ISO 8601 text, or (with `now`) "7d" before now.

    A date means its midnight in UTC. Raises `InvalidValue` for a time without a zone.
    """
    if isinstance(value, str):
        if now is not None and DURATION.fullmatch(value):
            return now - duration(value, name)
        try:
            value = date.fromisoformat(value) if len(value) == 10 else datetime.fromisoformat(value)
        except ValueError as exc:
            raise InvalidValue(f"{name}={shortened(value)}: give a time such as '2026-05-01T12:00:00+00:00'") from exc
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidValue(f"{name}={value.isoformat()} has no time zone: add one, for example +00:00")
        try:
            return _plain(value.astimezone(UTC))
        except (OverflowError, ValueError) as exc:
            raise InvalidValue(f"{name}={shortened(value)} is outside the years 1 to 9999") from exc
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    raise InvalidValue(f"{name}={shortened(value)}: give an aware datetime, a date or ISO 8601 text")


def _plain(value: datetime) -> datetime:
    # A pandas Timestamp is a datetime whose nanoseconds the file does not keep.
    return datetime(*value.timetuple()[:6], value.microsecond, tzinfo=UTC)


def amount_value(value: object, name: str) -> float:
    """Return a finite number of at least 0; NumPy's numbers count, True, False and texts do not."""
    number = math.nan
    if isinstance(value, float) or (not isinstance(value, bool | str | bytes) and getattr(value, "ndim", 0) == 0):
        with suppress(TypeError, ValueError, OverflowError):
            number = float(value)  # type: ignore[arg-type]
    if type(value).__name__ == "bool" or not 0 <= number < math.inf:
        raise InvalidValue(f"{name}={shortened(value)}: give a finite number of at least 0")
    return number
