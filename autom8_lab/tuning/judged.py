"""Queries and judgments as people have them - dicts, frames, lists, TREC files - to plain dicts."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import InvalidValue
from ..validation import integer_value, name_value, shortened, text_value

Queries = dict[str, str]
Judgments = dict[str, dict[str, int]]
QUERY_IDS = ("query_id", "query-id", "qid")
TEXTS = ("query", "text")
CONTEXT_IDS = ("context_id", "corpus-id", "doc_id", "docid")
GRADES = ("grade", "relevance", "score", "rel")


def read_queries(queries: Any) -> Queries:
    """Return query texts by id, from a dict, a frame (query_id, query) or a list of texts, which are their own ids.

    >>> read_queries(["who approves refunds?"])
    {'who approves refunds?': 'who approves refunds?'}
    """
    if isinstance(queries, Mapping):
        pairs: Iterable[tuple[Any, Any]] = queries.items()
    elif hasattr(queries, "columns"):
        texts = column_of(queries, TEXTS, "queries")
        ids = next((queries[name] for name in QUERY_IDS if name in queries.columns), texts)
        pairs = zip(ids.tolist(), texts.tolist(), strict=True)
    elif isinstance(queries, str) or not isinstance(queries, Iterable):
        raise InvalidValue(f"queries={shortened(queries)}: give a dict of texts by id, a frame, or a list of texts")
    else:
        pairs = ((text, text) for text in queries)
    result: Queries = {}
    for name, text in pairs:
        key, value = _id(name, "query_id"), text_value(text, f"query {shortened(name)}")
        if result.setdefault(key, value) != value:
            raise InvalidValue(f"query_id={shortened(key)} has two texts: give each query an id of its own")
    if not result:
        raise InvalidValue("there are no queries: give at least one")
    return result


def read_judgments(judgments: Any) -> Judgments:
    """Return grades by query and context, from a dict, a frame (query_id, context_id, grade) or a file.

    A dict has `{query_id: {context_id: grade}}`, or a list of relevant contexts for the inner one; an empty one says
    that nothing is relevant. A file holds TREC's four columns (query, 0, context, grade), or three with or without a
    header. Grades are whole numbers: 0 is not relevant, higher is better. Raises `InvalidValue`.

    >>> read_judgments({"q1": {"a": 2, "b": 0}, "q2": ["c"]})
    {'q1': {'a': 2, 'b': 0}, 'q2': {'c': 1}}
    """
    result: Judgments = {}
    if isinstance(judgments, Mapping):
        for query_id, inner in judgments.items():
            grades = result.setdefault(_id(query_id, "query_id"), {})
            if isinstance(inner, str) or not isinstance(inner, Iterable):
                raise InvalidValue(f"judgments[{query_id!r}]={shortened(inner)}: give a dict of grades by context_id")
            _add(grades, query_id, inner.items() if isinstance(inner, Mapping) else ((name, 1) for name in inner))
        return result
    if hasattr(judgments, "columns"):
        columns = [column_of(judgments, names, "judgments").tolist() for names in (QUERY_IDS, CONTEXT_IDS, GRADES)]
        rows: Iterable[Any] = zip(*columns, strict=True)
    elif isinstance(judgments, str | os.PathLike):
        rows = _lines(Path(judgments))
    else:
        kind = type(judgments).__name__
        raise InvalidValue(f"judgments are a {kind}: give a dict, a frame, or the path of a TREC file")
    for query_id, context_id, grade in rows:
        _add(result.setdefault(_id(query_id, "query_id"), {}), query_id, [(context_id, grade)])
    return result


def data_hash(*parts: Any) -> str:
    """Return a short name of plain data: the same data have the same name.

    >>> data_hash({"a": 1}) == data_hash({"a": 1}) != data_hash({"a": 2})
    True
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()


def _add(grades: dict[str, int], query_id: Any, pairs: Iterable[tuple[Any, Any]]) -> None:
    for context_id, grade in pairs:
        name = _id(context_id, "context_id")
        value = integer_value(grade, f"grade of {shortened(context_id)} for {shortened(query_id)}")
        if grades.setdefault(name, value) != value:
            raise InvalidValue(
                f"{shortened(context_id)} has two grades for query {shortened(query_id)}: decide for one"
            )


def _id(value: Any, name: str) -> str:
    # Frames read from a file often have numbers for ids.
    is_number = isinstance(value, int) and not isinstance(value, bool)
    text = str(value) if is_number else value
    return text_value(text, name) if name == "query_id" else name_value(text, name)


def column_of(frame: Any, names: tuple[str, ...], what: str) -> Any:
    """Return the first column that the frame has under one of the names. Raises `InvalidValue`."""
    for name in names:
        if name in frame.columns:
            return frame[name]
    raise InvalidValue(f"the frame of {what} has no column {names[0]!r}: it has {', '.join(map(str, frame.columns))}")


def _lines(path: Path) -> list[tuple[str, str, str]]:
    if not path.is_file():
        raise InvalidValue(f"no file of judgments at {path}: give the path of a TREC file, a dict or a frame")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split("\t") if "\t" in line else line.split()
        if len(fields) not in (0, 3, 4):
            raise InvalidValue(f"{path}, line {number}: {shortened(line)} has not the columns query, 0, context, grade")
        if fields and not (number == 1 and fields[0] in QUERY_IDS):
            rows.append((fields[0], fields[-2], fields[-1]))
    return [(query_id, context_id, _whole(grade, path)) for query_id, context_id, grade in rows]


def _whole(text: str, path: Path) -> Any:
    try:
        return int(text)
    except ValueError as error:
        raise InvalidValue(f"{path}: the grade {shortened(text)} is no whole number") from error
