"""Which chunk size finds best: all texts embedded anew for each, which is costly and so only done on request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from ..recommendation import Recommendation
from ..validation import positive_integer
from .candidates import goal_of
from .judged import data_hash
from .ranking import recommend, refuse_without

if TYPE_CHECKING:
    from ..storage import Storage
    from .of_lab import Tuning

SMALLEST_CHUNK_TOKENS = 8
HINT = "After al.apply(…), al.embed_contexts() embeds the texts in the new chunks."


def chunking(size: int, in_force: Mapping[str, int]) -> dict[str, int]:
    """Return the settings of a chunk size: its overlap is the same share as now.

    >>> chunking(100, {"chunk_tokens": 250, "chunk_overlap_tokens": 50})
    {'chunk_tokens': 100, 'chunk_overlap_tokens': 20}
    """
    size = positive_integer(max(size, SMALLEST_CHUNK_TOKENS), "chunk_tokens", at_most=100_000)
    return {
        "chunk_tokens": size,
        "chunk_overlap_tokens": round(size * in_force["chunk_overlap_tokens"] / in_force["chunk_tokens"]),
    }


def compare_chunks(
    tuning: Tuning,
    in_memory: Callable[[dict[str, int]], Any],
    in_force: dict[str, int],
    sizes: Sequence[int],
    queries: Any,
    judgments: Any,
    *,
    measure: str,
    k: int,
    confidence: float,
    seed: int,
) -> Recommendation:
    """Recommend a chunk size; `in_memory` makes a lab of the same contexts with the given chunking."""
    import numpy as np

    goal = goal_of(measure, k)
    texts, grades, notes = tuning.judged(queries, judgments)
    judged = {name: text for name, text in texts.items() if grades.get(name)}
    refuse_without([grades[name] for name in judged])
    settings = [dict(in_force), *(chunking(size, in_force) for size in sizes)]
    rows = [tuning.measures(judged, grades, goal)]
    for own in settings[1:]:
        with closing(in_memory(own)) as trial:
            rows.append(trial._tuning.measures(judged, grades, goal))
    asked = list(judged.values())
    options: dict[str, Any] = {"bound_to": tuning.binding(), "now": tuning.now(), "notes": notes, "hint": HINT}
    options |= {"data_hash": data_hash(asked, [grades[name] for name in judged])}
    return recommend(settings, np.array(rows), asked, goal, confidence=confidence, seed=seed, **options)


def copy_contexts(source: Storage, target: Storage) -> None:
    """Copy the contexts, as they are, and the applied settings into another lab without any."""
    rows = source.rows("context_registry", order_by=["context_key"])
    applied = source.rows("settings_log", order_by=["settings_key"])
    with target.transaction():
        target.insert("context_registry", [{**row, "superseded_by": None} for row in rows])
        old = {name: [row[name] for row in rows if row["superseded_by"]] for name in ("context_key", "superseded_by")}
        target.update_each("context_registry", old, key="context_key")
        target.insert("settings_log", applied)
