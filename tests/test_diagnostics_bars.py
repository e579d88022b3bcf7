"""A bar is set only for the sizes that it is meant for, and held from the side that its unit says."""

from __future__ import annotations

from typing import Any

import pytest

from autom8_lab.diagnostics.figures.bars import BARS, judged
from autom8_lab.diagnostics.figures.material import SIZES

FULL = vars(SIZES["full"])


def row(what: str, against: str | None, unit: str, figure: float, ratio: float, **more: Any) -> dict[str, Any]:
    return {"what": what, "against": against, "unit": unit, "figure": figure, "ratio": ratio, **more}


def held(made: dict[str, Any], sizes: dict[str, Any] = FULL, *, is_model: bool = True) -> Any:
    return judged(made, sizes, is_model=is_model).get("held")


@pytest.mark.parametrize(
    ("what", "against", "unit", "worst"),
    [
        ("one query encoded", "onnxruntime and tokenizers", "ms", {"ratio": 1.3}),
        ("store_contexts", "executemany into the same tables", "/s", {"ratio": 0.5}),
        ("store_context", "three INSERTs and COMMIT", "/s", {"ratio": 0.4}),
        ("get_context", "SELECT by id", "/s", {"figure": 10_000}),
        ("search_df, distinct queries, encoded", "FTS5 and a NumPy product joined by hand", "/s", {"figure": 150}),
        ("search_df, repeated queries, encoded", "FTS5 and a NumPy product joined by hand", "/s", {"figure": 400}),
        ("exact engine", "a NumPy product", "ms", {"ratio": 1.3}),
        ("hnsw engine", "usearch HNSW", "ms", {"ratio": 1.5}),
        ("hnsw engine, recall", None, "recall@10", {"figure": 0.99}),
        ("hnsw engine", "sqlite-vec", "/s", {"ratio": 50}),
        ("search_df, common words", "search_df, rare words", "ms", {"ratio": 3}),
        ("20 processes, store and get", "the same statements, bare", "/s", {"ratio": 0.5}),
        ("50 processes, store and get", "the same statements, bare", "/s", {"ratio": 0.5}),
        ("a new process, first search_df", "a new process, import pandas", "ms", {"figure": 1_500}),
        ("a new process, autom8-lab --help", "a new process, import click", "ms", {"figure": 300}),
    ],
)
def test_a_bar_is_held_up_to_its_bound_and_not_beyond(
    what: str, against: str, unit: str, worst: dict[str, float]
) -> None:
    (on, value), other = worst.popitem(), 1e-9 if unit == "ms" else 1e9
    beyond = value * (1.01 if unit == "ms" else 0.99)
    at_the_bound = row(what, against, unit, **{"figure": other, "ratio": other, on: value})
    assert judged(at_the_bound, FULL, is_model=True) == {**at_the_bound, "bar_on": on, "bar": value, "held": True}
    assert held({**at_the_bound, on: beyond}) is False


def test_a_figure_without_a_bar_is_not_judged() -> None:
    for made in (row("store_context", "another", "/s", 1, 1), row("1 process, store and get", None, "/s", 1, 1)):
        assert judged(made, FULL, is_model=True) == made


def test_a_bar_waits_for_its_sizes_and_for_a_model() -> None:
    small = {**FULL, "batch": 9_999, "vectors": 99_999, "contexts": 4_999}
    for (what, against), bar in BARS.items():
        made = row(what, against, "ms", 1, 1)
        assert held(made) is not None
        assert (held(made, small) is None) == bool(bar.sizes)
        assert (held(made, is_model=False) is None) == bar.of_model


@pytest.mark.parametrize("faults", [{"errors": 1}, {"lost": 1}, {"errors": 0, "lost": 3}])
def test_with_errors_or_losses_nothing_is_held(faults: dict[str, int]) -> None:
    for what in ("20 processes, store and get", "1 process, store and get"):
        made = row(what, "the same statements, bare", "/s", 1, 1)
        assert held({**made, **faults}) is False
        assert held({**made, **dict.fromkeys(faults, 0)}) is True
