"""Scores with labels: what a threshold is tuned on, read from what people have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import InvalidValue
from ..validation import flag_value, shortened, text_value
from .judged import data_hash

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PAIR_COLUMNS = ("text_a", "text_b", "label")


@dataclass(frozen=True)
class Labels:
    """Scores, whether each is right, and what is known about each row. `notes` say what was left out."""

    scores: NDArray[np.float64]
    right: NDArray[np.bool_]
    rows: Sequence[Mapping[str, Any]] = ()
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return int(self.scores.size)

    def group(self, name: str) -> list[str]:
        """Return each row's value of a column, as text. Raises `InvalidValue` where no row has it."""
        if not any(name in row for row in self.rows):
            known = sorted({key for row in self.rows for key in row})
            raise InvalidValue(f"by={name!r}: the labels have no such column; they have {', '.join(known) or 'none'}")
        return [str(row.get(name)) for row in self.rows]

    @property
    def data_hash(self) -> str:
        """The name of these scores and labels."""
        return data_hash(self.scores.tolist(), self.right.tolist())


def read_labels(data: Any) -> Labels:
    """Return labels from a frame with the columns score and label, or from (scores, labels).

    Of rows with the same `query` only the one with the highest score counts: it is the one that would be served, and
    the others are no observations of their own. Raises `InvalidValue` for scores that are no finite numbers and for
    labels that are not True, False, 1 or 0.

    >>> read_labels(([0.9, 0.2], [True, False])).right.tolist()
    [True, False]
    """
    if hasattr(data, "columns"):
        for name in ("score", "label"):
            if name not in data.columns:
                raise InvalidValue(
                    f"the frame of labels has no column {name!r}: it has {', '.join(map(str, data.columns))}"
                )
        rows = [{str(key): value for key, value in row.items()} for row in data.to_dict("records")]
        scores, labels = data["score"].tolist(), data["label"].tolist()
    else:
        if not isinstance(data, tuple | list) or len(data) != 2 or any(isinstance(part, str) for part in data):
            raise InvalidValue(f"labels are {shortened(data)}: give a frame with score and label, or (scores, labels)")
        scores, labels = (_plain(part) for part in data)
        if len(scores) != len(labels):
            raise InvalidValue(f"there are {len(scores)} scores and {len(labels)} labels: give a label for each score")
        rows = [{} for _ in scores]
    return _served(labels_of(scores, labels, rows))


def labels_of(scores: Sequence[Any], labels: Sequence[Any], rows: Sequence[Mapping[str, Any]]) -> Labels:
    """Return checked labels."""
    import numpy as np

    values = np.array([_score(value, place) for place, value in enumerate(scores)], dtype=np.float64)
    right = np.array([flag_value(value, f"label of row {place}") for place, value in enumerate(labels)], dtype=bool)
    if bad := int((~np.isfinite(values)).sum()):
        first = int(np.flatnonzero(~np.isfinite(values))[0])
        raise InvalidValue(
            f"{bad} of {values.size} scores are not finite (row {first}: {values[first]}): leave them out"
        )
    if not values.size:
        raise InvalidValue("there are no labels: give at least some scores that are right and some that are wrong")
    return Labels(values, right, rows)


def read_pairs(pairs: Any) -> tuple[list[tuple[str, str]], list[bool], list[dict[str, Any]]]:
    """Return pairs of texts, whether the two mean the same, and their rows; a pair that stands twice counts once.

    Takes a frame with text_a, text_b and label, or triples. Raises `InvalidValue`, also where a pair has both labels.
    """
    if hasattr(pairs, "columns"):
        rows = [{str(key): value for key, value in row.items()} for row in pairs.to_dict("records")]
    else:
        rows = [dict(zip(PAIR_COLUMNS, triple, strict=True)) for triple in pairs]
    known: dict[tuple[str, str], bool] = {}
    kept = []
    for place, row in enumerate(rows):
        a, b = (text_value(row[name], f"{name} of row {place}") for name in PAIR_COLUMNS[:2])
        same, key = flag_value(row["label"], f"label of row {place}"), (min(a, b), max(a, b))
        if key not in known:
            known[key] = same
            kept.append({**row, "label": same})
        elif known[key] != same:
            raise InvalidValue(f"the pair {shortened(a)}, {shortened(b)} has both labels: decide for one")
    return [(row["text_a"], row["text_b"]) for row in kept], [row["label"] for row in kept], kept


def are_pairs(data: Any) -> bool:
    """Whether data are pairs of texts: a frame with text_a and text_b, or triples of two texts and a label."""
    if hasattr(data, "columns"):
        return "text_a" in data.columns and "text_b" in data.columns
    if not isinstance(data, list | tuple) or not data:
        return False
    return all(isinstance(item, list | tuple) and len(item) == 3 and isinstance(item[0], str) for item in data)


def _served(labels: Labels) -> Labels:
    import numpy as np

    if not any("query" in row for row in labels.rows):
        return labels
    best: dict[Any, int] = {}
    for place in np.argsort(labels.scores, kind="stable").tolist():
        best[labels.rows[place].get("query", place)] = place
    kept = sorted(best.values())
    left = len(labels) - len(kept)
    notes = (f"{left} rows are left out: of a query only the highest score counts",) if left else ()
    return Labels(labels.scores[kept], labels.right[kept], [labels.rows[place] for place in kept], notes)


def _plain(values: Any) -> list[Any]:
    if not isinstance(values, Iterable):
        raise InvalidValue(f"{shortened(values)} is no list: give (scores, labels)")
    return list(values.tolist() if hasattr(values, "tolist") else values)


def _score(value: Any, place: int) -> float:
    if isinstance(value, bool | str):
        raise InvalidValue(f"score of row {place} is {shortened(value)}: give a number")
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InvalidValue(f"score of row {place} is {shortened(value)}: give a number") from error
