"""What a large lab answers: by meaning, and for words that most of its contexts have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import cached_property
from typing import TYPE_CHECKING

from ...storage.bare import BareFile, BareVecTable
from .fresh import fresh_figure
from .material import COMMON, RARE, Bench, PreparedEncoder, clustered_vectors, query_vectors, texts
from .nearest import K, RawGraph, answers, nearest_figures
from .rounds import Row, in_turns, milliseconds, rates, row, seconds_each, seconds_of

if TYPE_CHECKING:
    from ...lab import Lab
    from ...records import VectorEngine
    from ...vectors.similarity import Array32

PART = "large"
SHORT_TEXT_BYTES = 120
ENGINES: tuple[VectorEngine, ...] = ("exact", "hnsw", "sqlite-vec")


class Large:
    """A lab of many contexts, each with one vector, opened with every engine; and the same vectors bare.

    Context "v12" has row 12 of `vectors`. `has` tells which engines can be had here, `index` how the HNSW index was
    built.
    """

    def __init__(self, bench: Bench, stack: ExitStack, *, vectors: Array32 | None = None) -> None:
        self.bench, self.name = bench, "large"
        count, dimensions = bench.sizes.vectors, bench.encoder.dimensions
        drawn = clustered_vectors(count, dimensions=dimensions, seed=bench.seed + 1) if vectors is None else vectors
        self.vectors = drawn
        self.asked = query_vectors(self.vectors, max(bench.sizes.calls, 50), seed=bench.seed + 2)
        self._fill()
        self.labs: dict[str, Lab] = {name: stack.enter_context(self.opened(name)) for name in ENGINES}
        self.index = self.labs["hnsw"].build_vector_index(progress=False)
        self.has = {name: answers(lab, self.asked[0], name) for name, lab in self.labs.items()}
        self.engine: VectorEngine = "hnsw" if self.has["hnsw"] else "exact"
        path = bench.folder / "vectors.db"
        self.table = stack.enter_context(closing(BareVecTable(path, dimensions=self.vectors.shape[1])))
        if self.table.missing is None:
            self.table.add(self.vectors)

    @cached_property
    def graph(self) -> RawGraph:
        """The same vectors in an index of the bare library."""
        return RawGraph(self.vectors)

    def _fill(self) -> None:
        written = texts(len(self.vectors), seed=self.bench.seed + 3, length=SHORT_TEXT_BYTES)
        rows = ({"context_id": f"v{number}", "content": text} for number, text in enumerate(written))
        with self.bench.lab(self.name, encoder=PreparedEncoder(self.vectors, texts=written), synchronous="OFF") as lab:
            lab.store_contexts(rows, batch_size=5_000, progress=False)

    def opened(self, engine: VectorEngine) -> Lab:
        """Open the lab with an engine; every question has one of the vectors in `asked`."""
        return self.bench.lab(self.name, encoder=PreparedEncoder(self.asked), vector_engine=engine)

    def questions(self, asker: str) -> list[str]:
        """Return as many questions as there are vectors to ask for, which nobody else asks: none is remembered."""
        return [f"{asker} asks {number}" for number in range(len(self.asked))]


def large_figures(bench: Bench) -> Iterator[Row]:
    """Measure the engines on one set of vectors, and what stands on them."""
    with ExitStack() as stack:
        large = Large(bench, stack)
        yield from nearest_figures(large)
        yield semantic_figure(large)
        yield many_figure(large)
        yield words_figure(large)
        yield fresh_figure(large)


def semantic_figure(large: Large) -> Row:
    """Measure `search` by meaning against a graph and a SELECT for each of its answers."""
    engine = large.engine
    lab, graph, bench = large.labs[engine], large.graph, large.bench
    bare = BareFile(lab.config.db_path)
    timings = in_turns(
        bench.sizes.repeats,
        lambda turn: seconds_each(
            lambda text: lab.search(text, method="semantic"), large.questions(f"semantic {turn}")
        ),
        lambda _: seconds_each(
            lambda vector: [bare.context(f"v{number}") for number in graph.nearest(vector)], list(large.asked)
        ),
    )
    bare.close()
    return row(
        PART,
        "search, semantic",
        "/s",
        rates(timings.ours),
        how=f"{len(large.vectors):,} contexts, without encoding, {engine} engine",
        against=f"usearch HNSW and {K} SELECTs",
        others=rates(timings.theirs),
    )


def many_figure(large: Large) -> Row:
    """Measure many queries in one call, where every vector is looked at, against one call for each."""
    lab, bench, count = large.labs["exact"], large.bench, len(large.asked)
    timings = in_turns(
        bench.sizes.repeats,
        lambda turn: seconds_of(lambda: lab.search_many(large.questions(f"many {turn}"), method="semantic")) / count,
        lambda turn: seconds_each(lambda text: lab.search(text, method="semantic"), large.questions(f"one {turn}")),
    )
    return row(
        PART,
        "search_many, semantic",
        "/s",
        rates(timings.ours),
        how=f"{count} queries at once, {len(large.vectors):,} contexts, without encoding, exact engine",
        against="search, one by one",
        others=rates(timings.theirs),
    )


def words_figure(large: Large) -> Row:
    """Measure hybrid search for words that many contexts have against words that few have."""
    engine = large.engine
    lab, bench, calls = large.labs[engine], large.bench, large.bench.sizes.calls
    common, rare = (
        bench.queries(calls * (bench.sizes.repeats + 1), part=part, ranks=ranks)
        for part, ranks in ((21, COMMON), (22, RARE))
    )
    timings = in_turns(
        bench.sizes.repeats,
        lambda number: seconds_each(lab.search_df, common[number * calls : (number + 1) * calls]),
        lambda number: seconds_each(lab.search_df, rare[number * calls : (number + 1) * calls]),
    )
    return row(
        PART,
        "search_df, common words",
        "ms",
        milliseconds(timings.ours),
        how=f"hybrid, {len(large.vectors):,} contexts, without encoding, {engine} engine",
        against="search_df, rare words",
        others=milliseconds(timings.theirs),
    )
