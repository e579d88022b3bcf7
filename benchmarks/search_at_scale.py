"""Search in a large lab: engines against the libraries below them, memory, build time, freshness, common words.

    python benchmarks/search_at_scale.py [--count 100000] [--vectors FILE.npy] [--repeats 7] [--seed 0]

The figures of `al.benchmark(parts="large")`, at any size and on given vectors, with the bars that are set for it; then
what a new process needs for each engine: milliseconds to open the lab and have the first answer, MB of memory beyond
what it held before. `--count 1000000` takes half an hour, 10 GB of memory and 12 GB of disk in the temporary folder.
Encoding is no part of any figure.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from autom8_lab.diagnostics.benchmark import machine, markdown_table
from autom8_lab.diagnostics.figures.bars import judged
from autom8_lab.diagnostics.figures.fresh import fresh_figure
from autom8_lab.diagnostics.figures.large import ENGINES, Large, many_figure, semantic_figure, words_figure
from autom8_lab.diagnostics.figures.material import SIZES, Bench, PreparedEncoder, plain_lab
from autom8_lab.diagnostics.figures.nearest import nearest_figures, nearest_of
from autom8_lab.diagnostics.figures.rounds import COLUMNS
from autom8_lab.embedding import load_encoder
from autom8_lab.frames import frame

MILLION_BAR_MS = 3.0


def resident_megabytes() -> float:
    """Return the memory of this process that no other shares and that is no file's, as far as the system tells."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("RssAnon:")[1].split()[0]) / 1_000
    import psutil

    return float(psutil.Process().memory_info().rss) / 1e6


def first_answer(path: str, engine: str, asked: Any) -> tuple[float, float, float]:
    """Return milliseconds until a lab's first answer and for the median of the next, and the memory it took."""
    with plain_lab(":memory:", encoder=PreparedEncoder(asked)) as small:
        small.store_contexts(["Loads the libraries."], progress=False)
        small.search("libraries", method="semantic")
    before, started = resident_megabytes(), time.perf_counter()
    with plain_lab(path, encoder=PreparedEncoder(asked), vector_engine=engine) as lab:
        nearest = nearest_of(lab)
        nearest(asked[0])
        first = time.perf_counter() - started
        taken = []
        for vector in asked:
            moment = time.perf_counter()
            nearest(vector)
            taken.append(time.perf_counter() - moment)
        return first * 1_000, float(np.median(taken)) * 1_000, resident_megabytes() - before


def report(bench: Bench, vectors: Any) -> None:
    started = time.perf_counter()
    with ExitStack() as stack:
        large = Large(bench, stack, vectors=vectors)
        print(f"stored, indexed and read by every engine in {time.perf_counter() - started:.0f} s")
        print(f"HNSW index: {dict(large.index)}")
        found = list(nearest_figures(large))
        above = [figure(large) for figure in (semantic_figure, many_figure, words_figure, fresh_figure)]
        rows = [judged(row, asdict(bench.sizes), is_model=False) for row in [*found, *above]]
        print(f"usearch alone: built in {large.graph.build_seconds:.1f} s, {large.graph.nbytes / 1e6:.0f} MB")
    figures = frame(rows, COLUMNS)
    print(markdown_table(figures))
    for row in figures.dropna(subset=["note"]).to_dict("records"):
        print(f"{row['what']}: {row['note']}")
    if bench.sizes.vectors >= 1_000_000:
        hnsw = figures[(figures["what"] == "hnsw engine") & (figures["unit"] == "ms")]["figure"]
        print(f"bar at 1,000,000: under {MILLION_BAR_MS} ms: {'held' if (hnsw < MILLION_BAR_MS).all() else 'MISSED'}")
    print("\n| a new process | first answer ms | next ms | memory MB |\n|---|---|---|---|")
    for engine in ENGINES:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            first, later, memory = pool.apply(first_answer, (str(bench.path("large")), engine, large.asked[:20]))
        print(f"| {engine} | {first:,.0f} | {later:.3g} | {memory:,.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument(
        "--vectors", type=Path, help="a .npy file of float32 vectors, shape (at least count, dimensions)"
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the files are made")
    options = parser.parse_args()
    vectors, dimensions = None, 384
    if options.vectors:
        vectors = np.load(options.vectors)[: options.count].astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        dimensions = vectors.shape[1]
    sizes = replace(SIZES["full"], vectors=options.count, repeats=options.repeats)
    print(machine())
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        encoder = load_encoder(f"hash-{dimensions}")
        report(Bench(Path(folder), sizes, options.seed, encoder, is_model=False), vectors)


if __name__ == "__main__":
    main()
