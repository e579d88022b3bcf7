"""The nearest of the same vectors by this lab, the libraries below it, and what one could use instead.

    pip install -c constraints.txt -e '.[bench]'
    python benchmarks/peers.py [--count 100000] [--vectors FILE.npy] [--engines …] [--rounds 5] [--seed 0]

Each engine works in a process of its own: it builds its index in a temporary folder, which is timed, and then all take
turns at the same queries. Printed as a Markdown table: seconds to build, MB of memory that the process holds beyond
what its libraries take, MB on the disk, milliseconds per query (median, quartiles), and recall@10 against the exact
answer. `--vectors` is an array of sentence vectors; without one clustered vectors are drawn from the seed. Queries are
stored vectors with noise of half their length. Graphs use the smallest search width of 64, 128, 256, 512 that finds 99 %.

The labs store a text and its full-text index with each vector, and survive a crash; most of the others hold vectors
alone. LanceDB's index is IVF-PQ with its own defaults, re-ranked; DuckDB has no index here, its extension is fetched
from the network.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import itertools
import multiprocessing
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from autom8_lab.diagnostics.figures.material import (
    PreparedEncoder,
    clustered_vectors,
    plain_lab,
    query_vectors,
    recall,
    texts,
)
from autom8_lab.diagnostics.figures.nearest import nearest_of, product
from autom8_lab.storage.bare import BareVecTable

Array = npt.NDArray[np.float32]
Nearest = Callable[[Array], Sequence[int]]
K = 10
WIDTHS = (64, 128, 256, 512)
BATCH = 5_000


class Missing(Exception):
    """An engine that cannot be had here."""


class Built(NamedTuple):
    """An engine that is ready: what it finds, and how to widen a graph's search."""

    nearest: Nearest
    widen: Callable[[int], None] | None = None


Builder = Callable[[Array, Path, ExitStack], Built]


def narrowest(vectors: Array, built: Built) -> None:
    """Widen a graph's search until it finds 99 % of the nearest of vectors that are not the queries."""
    judges = query_vectors(vectors, 200, seed=10_007)
    for width in WIDTHS if built.widen else ():
        built.widen(width)  # type: ignore[misc]
        if recall([built.nearest(vector) for vector in judges], judges, vectors) >= 0.99:
            break


def lab(engine: str) -> Builder:
    def build(vectors: Array, folder: Path, stack: ExitStack) -> Built:
        written = texts(len(vectors), seed=0, length=120)
        encoder = PreparedEncoder(vectors, texts=written)
        rows = ({"context_id": f"v{number}", "content": text} for number, text in enumerate(written))
        opened = stack.enter_context(plain_lab(folder / "lab.db", encoder=encoder, vector_engine=engine))
        opened.store_contexts(rows, batch_size=BATCH, progress=False)
        if engine == "hnsw":
            opened.build_vector_index(progress=False)
        nearest = nearest_of(opened)
        nearest(vectors[0])
        return Built(nearest)

    return build


def search_df(vectors: Array, folder: Path, stack: ExitStack) -> Built:
    """The verb itself: with the texts, as a frame."""
    lab("hnsw")(vectors, folder, stack)
    asked: dict[str, Array] = {}
    numbers = itertools.count()

    class Encoder(PreparedEncoder):
        def encode_query(self, text: str) -> Array:
            return asked[text]

    opened = stack.enter_context(plain_lab(folder / "lab.db", encoder=Encoder(vectors[:1]), vector_engine="hnsw"))

    def nearest(vector: Array) -> Sequence[int]:
        query = f"question {next(numbers)}"  # the lab remembers what it has encoded, and answered
        asked[query] = vector
        return [int(name[1:]) for name in opened.search_df(query, method="semantic")["context_id"]]

    return Built(nearest)


def numpy_product(vectors: Array, folder: Path, stack: ExitStack) -> Built:
    return Built(product(vectors.copy()))


def usearch_graph(vectors: Array, folder: Path, stack: ExitStack) -> Built:
    # Imported here: its OpenMP beside that of FAISS ends the process.
    index = wanted("usearch.index").Index(ndim=vectors.shape[1], metric="cos", dtype="f16")
    index.add(np.arange(len(vectors), dtype=np.uint64), vectors)

    def widen(width: int) -> None:
        index.expansion_search = width

    return Built(lambda vector: index.search(vector, K).keys.tolist(), widen)


def sqlite_vec(vectors: Array, folder: Path, stack: ExitStack) -> Built:
    table = stack.enter_context(closing(BareVecTable(folder / "vectors.db", dimensions=vectors.shape[1])))
    if table.missing is not None:
        raise Missing(table.missing)
    table.add(vectors)
    return Built(lambda vector: table.nearest(vector, K))


def faiss_index(kind: str) -> Builder:
    def build(vectors: Array, folder: Path, stack: ExitStack) -> Built:
        faiss = wanted("faiss")
        index = faiss.index_factory(vectors.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
        index.add(vectors)

        def nearest(vector: Array) -> Sequence[int]:
            found: list[int] = index.search(vector[None], K)[1][0].tolist()
            return found

        def widen(width: int) -> None:
            index.hnsw.efSearch = width

        return Built(nearest, widen if kind.startswith("HNSW") else None)

    return build


def chroma(vectors: Array, folder: Path, stack: ExitStack) -> Built:
    module = wanted("chromadb")
    client = module.PersistentClient(str(folder), settings=module.config.Settings(anonymized_telemetry=False))
    collection = client.create_collection("vectors", configuration={"hnsw": {"space": "cosine"}})
    for start in range(0, len(vectors), BATCH):
        rows = vectors[start : start + BATCH]
        collection.add(ids=[str(number) for number in range(start, start + len(rows))], embeddings=rows)

    def nearest(vector: Array) -> Sequence[int]:
        found = collection.query(query_embeddings=vector[None], n_results=K, include=[])
        return [int(name) for name in found["ids"][0]]

    return Built(nearest)


def lance(indexed: bool) -> Builder:
    def build(vectors: Array, folder: Path, stack: ExitStack) -> Built:
        lancedb, pyarrow = wanted("lancedb"), wanted("pyarrow")
        column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.reshape(-1)), vectors.shape[1])
        numbers = pyarrow.array(np.arange(len(vectors)))
        table = lancedb.connect(str(folder)).create_table(
            "vectors", pyarrow.table({"number": numbers, "vector": column})
        )
        if indexed:
            table.create_index(metric="cosine", vector_column_name="vector", index_type="IVF_PQ")

        def nearest(vector: Array) -> Sequence[int]:
            asked = table.search(vector).distance_type("cosine").limit(K).select(["number", "_distance"])
            asked = asked.refine_factor(10) if indexed else asked
            found: list[int] = asked.to_arrow()["number"].to_pylist()
            return found

        return Built(nearest)

    return build


def duckdb_array(vectors: Array, folder: Path, stack: ExitStack) -> Built:
    duckdb, pyarrow = wanted("duckdb"), wanted("pyarrow")
    connection = stack.enter_context(closing(duckdb.connect(str(folder / "vectors.duckdb"))))
    dimensions = vectors.shape[1]
    column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.reshape(-1)), dimensions)
    connection.register("given", pyarrow.table({"number": np.arange(len(vectors)), "vector": column}))
    connection.execute(f"CREATE TABLE vectors AS SELECT number, vector::FLOAT[{dimensions}] AS vector FROM given")
    connection.unregister("given")
    sql = f"SELECT number FROM vectors ORDER BY array_cosine_distance(vector, ?::FLOAT[{dimensions}]) LIMIT {K}"

    def nearest(vector: Array) -> Sequence[int]:
        return [row[0] for row in connection.execute(sql, [vector.tolist()]).fetchall()]

    return Built(nearest)


def wanted(name: str) -> Any:
    """Import a package of the extra `bench`."""
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        raise Missing(f"{name} is not installed: pip install -e '.[bench]'") from exc


ENGINES: dict[str, Builder] = {
    "autom8_lab, hnsw": lab("hnsw"),
    "autom8_lab, hnsw, search_df": search_df,
    "autom8_lab, exact": lab("exact"),
    "autom8_lab, sqlite-vec": lab("sqlite-vec"),
    "usearch HNSW": usearch_graph,
    "NumPy product": numpy_product,
    "sqlite-vec": sqlite_vec,
    "FAISS HNSW": faiss_index("HNSW32"),
    "FAISS flat": faiss_index("Flat"),
    "FAISS 8-bit": faiss_index("SQ8"),
    "Chroma": chroma,
    "LanceDB IVF-PQ": lance(indexed=True),
    "LanceDB flat": lance(indexed=False),
    "DuckDB": duckdb_array,
}


def resident_megabytes() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss) / 1e6


def serve(name: str, path: str, queries_path: str, pipe: Connection) -> None:
    """Build an index, say what it took, and answer every round with a time per query and the answers."""
    try:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            # A small index first, so that what the libraries take is there before the memory is looked at.
            with tempfile.TemporaryDirectory() as first, ExitStack() as other:
                small = np.load(path, mmap_mode="r")[:2_000].copy()
                ENGINES[name](small, Path(first), other).nearest(small[0])
            del small
            gc.collect()
            vectors, before = np.load(path), resident_megabytes()
            own, started = vectors.nbytes / 1e6, time.perf_counter()
            built = ENGINES[name](vectors, Path(folder), stack)
            seconds = time.perf_counter() - started
            narrowest(vectors, built)
            nearest, queries = built.nearest, np.load(queries_path)
            nearest(queries[0])
            del vectors
            gc.collect()
            disk = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()) / 1e6
            pipe.send({"seconds": seconds, "memory": max(0.0, resident_megabytes() - before + own), "disk": disk})
            while pipe.recv():
                taken, answers = [], []
                for query in queries:
                    moment = time.perf_counter()
                    answers.append(nearest(query))
                    taken.append(time.perf_counter() - moment)
                pipe.send((taken, answers))
    except Missing as exc:
        pipe.send(str(exc))
    except Exception:  # whatever another library raises: it is printed in its row
        pipe.send(traceback.format_exc().splitlines()[-1])


def received(pipe: Connection) -> Any:
    try:
        return pipe.recv()
    except EOFError:
        return "its process ended without a word"


def compare(names: Sequence[str], vectors: Array, *, queries: int, rounds: int, seed: int) -> None:
    asked = query_vectors(vectors, queries, seed=seed)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        paths = [str(Path(folder) / f"{name}.npy") for name in ("vectors", "queries")]
        for path, array in zip(paths, (vectors, asked), strict=True):
            np.save(path, array)
        pipes: dict[str, Connection] = {}
        built: dict[str, Any] = {}
        for name in names:
            pipe, theirs = context.Pipe()
            process = context.Process(target=serve, args=(name, *paths, theirs), daemon=True)
            process.start()
            stack.callback(process.join, 60)
            stack.callback(pipe.close)
            theirs.close()
            built[name] = received(pipe)
            print(f"{name}: {built[name]}", flush=True)
            if not isinstance(built[name], str):
                pipes[name] = pipe
        taken: dict[str, list[float]] = {name: [] for name in pipes}
        answers: dict[str, list[Sequence[int]]] = {}
        for turn in range(rounds):
            for name in list(pipes) if turn % 2 else list(reversed(pipes)):
                pipes[name].send(True)
                seconds, answers[name] = pipes[name].recv()
                taken[name] += seconds
        for pipe in pipes.values():
            pipe.send(False)
    print(
        f"\n| {len(vectors):,} × {vectors.shape[1]}, k = {K} | build s | memory MB | disk MB | ms | quartiles | recall@10 |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in names:
        if name not in pipes:
            print(f"| {name} | {built[name]} | | | | | |")
            continue
        low, middle, high = statistics.quantiles([1_000 * value for value in taken[name]], n=4)
        facts, found = built[name], recall(answers[name], asked, vectors)
        print(
            f"| {name} | {facts['seconds']:.1f} | {facts['memory']:.0f} | {facts['disk']:.0f} |"
            f" {middle:.3g} | {low:.3g} to {high:.3g} | {found:.3f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument(
        "--vectors", type=Path, help="a .npy file of float32 vectors, shape (at least count, dimensions)"
    )
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), metavar="ENGINE")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.vectors:
        vectors = np.load(options.vectors)[: options.count].astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    else:
        vectors = clustered_vectors(options.count, dimensions=options.dimensions, seed=options.seed)
    compare(options.engines, vectors, queries=options.queries, rounds=options.rounds, seed=options.seed)


if __name__ == "__main__":
    main()
