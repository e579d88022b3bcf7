"""How fast each vector engine finds the nearest, against the bare library that does it, and how many it misses."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...storage.bare import BareVecTable
from .material import query_vectors, recall
from .rounds import Row, Timings, in_turns, milliseconds, rates, row, seconds_each

if TYPE_CHECKING:
    from ...lab import Lab
    from ...vectors.similarity import Array32
    from .large import Large

PART = "large"
K = 10
ENOUGH_RECALL = 0.99
EXPANSIONS = (64, 128, 256, 512)  # how many candidates a graph's search keeps
SLOW_CALLS = 10  # of an engine that looks at every vector

Nearest = Callable[["Array32"], Sequence[int]]


def nearest_figures(large: Large) -> Iterator[Row]:
    """Measure each engine of a large lab against the library below it."""
    ours = {name: nearest_of(lab) for name, lab in large.labs.items()}
    few, how = large.asked[:SLOW_CALLS], f"the {K} nearest of {len(large.vectors):,} vectors"
    timings = _taken(large, ours["exact"], product(large.vectors), few)
    yield _row("exact engine", how, timings, "a NumPy product")
    best = "exact"
    if large.has["hnsw"]:
        best, graph = "hnsw", large.graph
        timings = _taken(large, ours["hnsw"], graph.nearest, large.asked)
        note = (
            f"built in {large.index['seconds']:.1f} s; bare: {graph.build_seconds:.1f} s, recall@10 {graph.recall:.3f}"
        )
        yield _row("hnsw engine", how, timings, "usearch HNSW", note=note)
        share = recall([ours["hnsw"](vector) for vector in large.asked], large.asked, large.vectors)
        yield row(PART, "hnsw engine, recall", "recall@10", [share], how=how)
    if large.table.missing is None:
        by_table = _by_table(large.table)
        timings = _taken(large, ours["sqlite-vec"], by_table, few)
        who = None if large.has["sqlite-vec"] else "the exact engine answered"
        yield _row("sqlite-vec engine", how, timings, "sqlite-vec", note=who)
        timings = _taken(large, ours[best], by_table, few)
        others = rates(timings.theirs)
        yield row(PART, f"{best} engine", "/s", rates(timings.ours), how=how, against="sqlite-vec", others=others)


def _taken(large: Large, ours: Nearest, theirs: Nearest, asked: Array32) -> Timings:
    def turn(nearest: Nearest) -> Callable[[int], float]:
        return lambda _: seconds_each(nearest, list(asked))

    return in_turns(large.bench.sizes.repeats, turn(ours), turn(theirs))


def _row(what: str, how: str, timings: Timings, against: str, *, note: str | None = None) -> Row:
    ours, others = milliseconds(timings.ours), milliseconds(timings.theirs)
    return row(PART, what, "ms", ours, how=how, against=against, others=others, note=note)


def nearest_of(lab: Lab, *, k: int = K) -> Nearest:
    """Return a function from a vector to the row numbers of the contexts that a large lab finds nearest."""
    nearest, set_key = lab._storage.nearest, _set_key(lab)
    return lambda vector: [int(item.context_id[1:]) for item in nearest(vector, set_key=set_key, k=k).neighbours]


def answers(lab: Lab, vector: Array32, engine: str) -> bool:
    """Whether it is this engine that answers a search."""
    return lab._storage.nearest(vector, set_key=_set_key(lab), k=K).engine == engine


def _set_key(lab: Lab) -> int:
    active = lab._index.active_set()
    assert active is not None
    return active.set_key


class RawGraph:
    """A usearch index of half-precision vectors, with the smallest expansion that finds enough of the nearest."""

    def __init__(self, vectors: Array32, *, threads: int = 0) -> None:
        from usearch.index import Index

        self._index = Index(ndim=vectors.shape[1], metric="cos", dtype="f16")
        started = time.perf_counter()
        self._index.add(np.arange(len(vectors), dtype=np.uint64), vectors, threads=threads)
        self.build_seconds = time.perf_counter() - started
        judges = query_vectors(vectors, 200, seed=0)
        for expansion in EXPANSIONS:
            self._index.expansion_search = expansion  # type: ignore[misc]  # its stub does not know the setter
            self.recall = recall([self.nearest(vector) for vector in judges], judges, vectors)
            if self.recall >= ENOUGH_RECALL:
                break

    @property
    def nbytes(self) -> int:
        """The bytes of memory that it takes."""
        return int(self._index.memory_usage)

    def nearest(self, vector: Array32) -> Sequence[int]:
        """Return the row numbers of the nearest, the nearest first."""
        found: list[int] = self._index.search(vector, K).keys.tolist()
        return found


def product(vectors: Array32) -> Nearest:
    """Return a function from a vector to the row numbers of the nearest, by a bare NumPy product."""

    def nearest(vector: Array32) -> Sequence[int]:
        closeness = vectors @ vector
        best = np.argpartition(closeness, len(closeness) - K)[-K:]
        ordered: list[int] = best[np.argsort(-closeness[best])].tolist()
        return ordered

    return nearest


def _by_table(table: BareVecTable) -> Nearest:
    return lambda vector: table.nearest(vector, K)
