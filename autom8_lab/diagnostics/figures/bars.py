"""What the figures have to reach on two cores, and at which sizes that is asked of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from .rounds import HIGHER, Row

FULL = {"vectors": 100_000}


class Bar(NamedTuple):
    """A bound of a figure, or of its ratio to the bare alternative: at least or at most, as the unit says.

    It is meant for benchmarks of at least these sizes, with `of_model` only where a model encodes.
    """

    on: Literal["figure", "ratio"]
    value: float
    sizes: Mapping[str, int] = {}
    of_model: bool = False


# By what is measured and what it is compared with; None where a figure stands alone.
BARS: dict[tuple[str, str | None], Bar] = {
    ("one query encoded", "onnxruntime and tokenizers"): Bar("ratio", 1.3),
    ("store_contexts", "executemany into the same tables"): Bar("ratio", 0.5, {"batch": 10_000}),
    ("store_context", "three INSERTs and COMMIT"): Bar("ratio", 0.4),
    ("get_context", "SELECT by id"): Bar("figure", 10_000),
    ("search_df, distinct queries, encoded", "FTS5 and a NumPy product joined by hand"): Bar(
        "figure", 150, {"contexts": 5_000}
    ),
    ("search_df, repeated queries, encoded", "FTS5 and a NumPy product joined by hand"): Bar(
        "figure", 400, {"contexts": 5_000}
    ),
    ("exact engine", "a NumPy product"): Bar("ratio", 1.3, FULL),
    ("hnsw engine", "usearch HNSW"): Bar("ratio", 1.5, FULL),
    ("hnsw engine, recall", None): Bar("figure", 0.99),
    ("hnsw engine", "sqlite-vec"): Bar("ratio", 50, FULL),
    ("search_df, common words", "search_df, rare words"): Bar("ratio", 3, FULL),
    ("20 processes, store and get", "the same statements, bare"): Bar("ratio", 0.5),
    ("50 processes, store and get", "the same statements, bare"): Bar("ratio", 0.5),
    ("a new process, first search_df", None): Bar("figure", 1_500, {"contexts": 5_000}, of_model=True),
    ("a new process, autom8-lab --help", None): Bar("figure", 300),
}


def judged(row: Row, sizes: Mapping[str, Any], *, is_model: bool) -> Row:
    """Return a row with the bar that is meant for it, and whether it was held.

    A row with errors or losses holds nothing; one that counts them and has none holds, with no other bar.

    >>> row = {"what": "get_context", "against": "SELECT by id", "figure": 12_000.0, "unit": "/s"}
    >>> judged(row, {}, is_model=False)["held"]
    True
    """
    bar = BARS.get((row["what"], row.get("against"))) or BARS.get((row["what"], None))
    faults = [row[name] for name in ("errors", "lost") if row.get(name) is not None]
    if bar and all(sizes[name] >= least for name, least in bar.sizes.items()) and (is_model or not bar.of_model):
        reached = row[bar.on] >= bar.value if row["unit"] in HIGHER else row[bar.on] <= bar.value
        return {**row, "bar_on": bar.on, "bar": bar.value, "held": bool(reached) and not any(faults)}
    return {**row, "held": not any(faults)} if faults else row
