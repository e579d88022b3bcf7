"""Drafts: rows from users, checked field by field before anything is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .embedding.chunking import text_hash
from .errors import InvalidValue, did_you_mean
from .validation import (
    duration,
    flag_value,
    integer_value,
    is_missing,
    metadata_value,
    moment,
    name_value,
    shortened,
    text_value,
)


@dataclass(frozen=True)
class Draft:
    """A context that somebody wants stored, checked, with the fields that he gave."""

    content: str
    content_hash: str
    context_id: str | None
    given: dict[str, Any]
    supersedes: tuple[str, ...]
    created_at: datetime | None


FIELDS: dict[str, Callable[[Any], Any]] = {
    "summary": lambda value: text_value(value, "summary"),
    "topic": lambda value: name_value(value, "topic"),
    "source": lambda value: name_value(value, "source"),
    "priority": lambda value: integer_value(value, "priority"),
    "pinned": lambda value: flag_value(value, "pinned"),
    "expires_at": lambda value: moment(value, "expires_at"),
    "metadata": metadata_value,
}
ROW_KEYS = {"content", "context_id", "id", "ttl", "supersedes", "created_at", *FIELDS}


def draft(row: Mapping[str, Any] | str, *, now: datetime) -> Draft:
    """Check one row and return it as a draft. Raises `InvalidValue` naming the field, the value and the remedy."""
    values: Any = {"content": row} if isinstance(row, str) else row
    if not isinstance(values, Mapping):
        raise InvalidValue(f"a row is a {type(row).__name__}: give a dict with 'content', or a str")
    for key in values:
        if key not in ROW_KEYS:
            raise InvalidValue(f"unknown field {key!r}{did_you_mean(str(key), ROW_KEYS)}")
    present = {key: value for key, value in values.items() if not is_missing(value)}
    if "ttl" in present and "expires_at" in present:
        raise InvalidValue(f"ttl={present['ttl']!r} and expires_at={present['expires_at']!r}: give one of the two")
    content = text_value(present.get("content"), "content")
    given = {name: check(present[name]) for name, check in FIELDS.items() if name in present}
    if "ttl" in present:
        given["expires_at"] = now + duration(present["ttl"], "ttl")
    if "context_id" in present and "id" in present:
        raise InvalidValue(f"context_id={present['context_id']!r} and id={present['id']!r}: give one of the two")
    context_id = present.get("context_id", present.get("id"))
    superseded = _ids(present["supersedes"], "supersedes") if "supersedes" in present else ()
    if context_id in superseded:
        raise InvalidValue(f"supersedes={context_id!r} closes a circle: {context_id} → {context_id}")
    return Draft(
        content=content,
        content_hash=text_hash(content),
        context_id=None if context_id is None else name_value(context_id, "context_id"),
        given=given,
        supersedes=superseded,
        created_at=moment(present["created_at"], "created_at") if "created_at" in present else None,
    )


def _ids(value: object, name: str) -> tuple[str, ...]:
    given = value if isinstance(value, list | tuple) else [value]
    return tuple(name_value(item, name) for item in given)


def rows_of(source: Any) -> Iterator[Mapping[str, Any] | str]:
    """Yield rows from a DataFrame, a list, or any iterable of dicts and texts."""
    if type(source).__module__.startswith("pandas") and hasattr(source, "columns"):
        yield from source.to_dict("records")
    elif isinstance(source, str | bytes | Mapping) or not isinstance(source, Iterable):
        raise InvalidValue(f"{shortened(source)} is a {type(source).__name__}: give a DataFrame or a list of dicts")
    else:
        yield from source
