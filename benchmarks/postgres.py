"""A lab on PostgreSQL beside one in SQLite and beside bare psycopg: storing, searching, sums, a server that goes away.

    python benchmarks/postgres.py [contexts] [ledger] [crowd] [scifact] [--contexts 100000] [--rows 1000000]
        [--processes 50] [--seconds 60] [--repeats 7] [--seed 0] [--data FOLDER] [--lab scifact.db]

Starts a server of its own (the wheel that the tests use), with fsync, on a temporary folder.
contexts: batches stored, and hybrid search of the stored ones, k = 10; encoding costs nothing on any side. Bare psycopg
does what one writes by hand: binary COPY into a table with a hash of each text, a generated `tsvector`, GIN and `halfvec`
HNSW, and reciprocal rank fusion of the two in one statement, with the lab's settings of the index.
ledger: `usage_df` against its own GROUP BY, over everything and over a month; `latency_df` against percentile_cont.
crowd: processes that write for a while, the server stopped in the middle and started after some seconds. Every write that
was acknowledged must be there once, and whoever wrote goes on without opening the lab again.
scifact: the search quality of benchmarks/scifact.py on both, and whether the top ten are the same. `--lab` names the SQLite
lab, which is made where there is none.
Ratios are of medians of rounds in turns. `du` lines give bytes on disk per row, with indexes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from pgvector.psycopg import register_vector

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
# The processes of this one are forked from a server, which has to find the same.
os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path[:2], str(Path(__file__).parents[1]), *sys.path[2:]])

from ledger import calls, in_turns
from postgres_server import PostgresServer
from scifact import evaluate, load

import autom8_lab as al
from autom8_lab.diagnostics.benchmark import machine
from autom8_lab.diagnostics.figures.material import (
    PreparedEncoder,
    clustered_vectors,
    plain_lab,
    queries,
    query_vectors,
    texts,
)

DIMENSIONS, BATCH, K, CANDIDATES = 384, 10_000, 10, 50
SETTINGS = ("shared_buffers=1GB", "max_wal_size=8GB", "work_mem=64MB", "max_connections=300")
AWAY_SECONDS = 5.0
DEADLINE_SECONDS = 30.0
BARE_TABLE = f"""
    CREATE EXTENSION IF NOT EXISTS vector;
    CREATE TABLE docs (
        id text PRIMARY KEY, content text NOT NULL, content_hash text NOT NULL, metadata jsonb NOT NULL DEFAULT '{{}}',
        created_at timestamptz NOT NULL DEFAULT now(), embedding vector({DIMENSIONS}) NOT NULL,
        words tsvector GENERATED ALWAYS AS (to_tsvector('english', content)) STORED
    );
    CREATE INDEX ON docs USING gin (words);
    CREATE INDEX ON docs (content_hash);
"""
BARE_INDEX = f"CREATE INDEX ON docs USING hnsw ((embedding::halfvec({DIMENSIONS})) halfvec_cosine_ops)"
BARE_SEARCH = f"""
    WITH near AS (
        SELECT id, row_number() OVER (ORDER BY distance) AS place FROM (
            SELECT id, embedding::halfvec({DIMENSIONS}) <=> %(vector)s::halfvec({DIMENSIONS}) AS distance
            FROM docs ORDER BY 2 LIMIT {CANDIDATES}) n
    ), found AS (
        SELECT id, row_number() OVER (ORDER BY rank DESC) AS place FROM (
            SELECT id, ts_rank(words, query) AS rank FROM docs, to_tsquery('english', %(words)s) query
            WHERE words @@ query ORDER BY 2 DESC LIMIT {CANDIDATES}) f
    )
    SELECT d.id, d.content, d.metadata, coalesce(1.0 / (60 + n.place), 0) + coalesce(1.0 / (60 + f.place), 0) AS score
    FROM near n FULL JOIN found f USING (id) JOIN docs d USING (id) ORDER BY score DESC LIMIT {K}
"""
SUMS = (
    "count(*), count(success), sum(success::int), sum(input_tokens), sum(output_tokens), sum(cache_read_tokens),"
    " sum(cache_write_tokens), sum(reasoning_tokens), sum(coalesce(cost_actual_usd, cost_estimated_usd)),"
    " count(coalesce(cost_actual_usd, cost_estimated_usd))"
)
# What one writes by hand for `latency_df`, without its intervals.
QUANTILES = """
    SELECT model, percentile_cont('{0.5,0.9,0.95,0.99}'::float8[]) WITHIN GROUP (ORDER BY latency_ms),
        percentile_cont('{0.5,0.95}'::float8[]) WITHIN GROUP (ORDER BY ttft_ms),
        percentile_cont(0.5) WITHIN GROUP (ORDER BY output_tokens * 1000 / nullif(latency_ms - coalesce(ttft_ms, 0), 0))
    FROM usage_ledger GROUP BY 1
"""


def show(name: str, ours: float, theirs: float, *, unit: str, at_least: float) -> bool:
    """Print two rates and their ratio beside the bar."""
    held = ours >= at_least * theirs
    verdict = f"bar {at_least:.3g}: {'ok' if held else 'MISSED'}" if at_least else "no bar"
    print(f"  {name:<58}{ours:>10,.1f} {unit} against {theirs:>10,.1f}   ratio {ours / theirs:5.2f}  ({verdict})")
    return held


@contextmanager
def database(server: PostgresServer, name: str) -> Iterator[str]:
    server.execute(f"CREATE DATABASE {name}")
    yield server.address(name)
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def disk(address: str, rows: int, *tables: str) -> None:
    """Print the bytes of tables, with their partitions and indexes, per row."""
    sql = """
        SELECT sum(pg_total_relation_size(part)), sum(pg_indexes_size(part)) FROM
        (SELECT %s::regclass UNION SELECT relid FROM pg_partition_tree(%s) WHERE isleaf) parts(part)
    """
    with psycopg.connect(address) as connection:
        for table in tables:
            total, indexes = (float(cell) for cell in connection.execute(sql, [table, table]).fetchall()[0])
            print(
                f"  du {table:<18}{total / 1e6:>10,.1f} MB{total / rows:>10,.0f} bytes per row, {indexes / total:.0%} indexes"
            )


# Contexts


def stored_bare(connection: psycopg.Connection[Any], written: Sequence[str], vectors: Any, block: range) -> None:
    """Copy a batch, as pgvector's own example of bulk loading does."""
    sql = "COPY docs (id, content, content_hash, embedding) FROM STDIN WITH (FORMAT BINARY)"
    with connection.cursor() as cursor, cursor.copy(sql) as copy:
        copy.set_types(["text", "text", "text", "vector"])
        for place in block:
            text = written[place]
            copy.write_row((f"v{place}", text, sha256(text.encode()).hexdigest(), vectors[place]))


def stored(
    address: str, path: str, bare: str, encoder: PreparedEncoder, written: Sequence[str], vectors: Any
) -> dict[str, float]:
    """Store the same in two labs and by hand, batch by batch in turns, and return the median rates."""
    with (
        plain_lab(address, encoder=encoder) as lab,
        plain_lab(path, encoder=encoder) as file,
        psycopg.connect(bare, autocommit=True) as connection,
    ):
        connection.execute(BARE_TABLE)  # type: ignore[arg-type]
        register_vector(connection)

        def by_lab(lab: al.Lab) -> Callable[[range], object]:
            return lambda block: lab.store_contexts(
                [{"context_id": f"v{place}", "content": written[place]} for place in block],
                batch_size=BATCH,
                progress=False,
            )

        ways: dict[str, Callable[[range], object]] = {
            "PostgreSQL": by_lab(lab),
            "bare": lambda block: stored_bare(connection, written, vectors, block),
            "SQLite": by_lab(file),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for start in range(0, len(written), BATCH):
            block = range(start, min(start + BATCH, len(written)))
            for name, store in ways.items():
                taken[name].append(timed(lambda store=store, block=block: store(block)) / len(block))
    return {name: 1 / float(np.median(seconds)) for name, seconds in taken.items()}


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def contexts(server: PostgresServer, *, count: int, repeats: int, seed: int) -> bool:
    written = texts(count, seed=seed)
    vectors = clustered_vectors(count, dimensions=DIMENSIONS, seed=seed + 1)
    asked = query_vectors(vectors, 400, seed=seed + 2)
    questions = queries(len(asked), seed=seed + 3)
    documents = PreparedEncoder(vectors, texts=written)
    print(f"{count:,} contexts of 400 bytes, {DIMENSIONS} dimensions")
    with tempfile.TemporaryDirectory() as folder, database(server, "lab") as address, database(server, "bare") as other:
        places = {"PostgreSQL": address, "SQLite": f"{folder}/lab.db"}
        rates = stored(*places.values(), other, documents, written, vectors)
        held = show("store_contexts / COPY", rates["PostgreSQL"], rates["bare"], unit="per s", at_least=0.5)
        show("store_contexts / the same in SQLite", rates["PostgreSQL"], rates["SQLite"], unit="per s", at_least=0)
        for name, place in places.items():
            with plain_lab(place, encoder=documents) as lab:
                print(f"  HNSW built in {name}: {dict(lab.build_vector_index(progress=False))}")
        with psycopg.connect(other, autocommit=True) as connection:
            connection.execute("SET maintenance_work_mem = '512MB'")
            print(f"  bare HNSW built in {timed(lambda: connection.execute(BARE_INDEX)):.1f} s")  # type: ignore[arg-type]
            connection.execute("VACUUM ANALYZE")
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
        disk(address, count, "context_registry", "context_chunks", "embeddings", "text_changes")
        prepared = PreparedEncoder(asked, texts=questions)
        return searched(places, other, questions, asked, prepared, repeats=repeats) and held


def searched(
    places: dict[str, str], bare: str, questions: Sequence[str], asked: Any, encoder: Any, *, repeats: int
) -> bool:
    """Print how many hybrid searches a second one client has answered."""
    with (
        plain_lab(places["PostgreSQL"], encoder=encoder) as ours,
        plain_lab(places["PostgreSQL"], encoder=encoder, vector_engine="exact") as exact,
        plain_lab(places["SQLite"], encoder=encoder) as sqlite,
        psycopg.connect(bare, autocommit=True) as connection,
    ):
        connection.execute("SET hnsw.iterative_scan = strict_order; SET hnsw.ef_search = 100; SET jit = off")
        each = max(1, len(questions) // (repeats + 1))

        def by_lab(lab: al.Lab) -> Callable[[int], object]:
            return lambda place: lab.search(questions[place], method="hybrid", k=K)

        def by_hand(place: int) -> object:
            given = {"vector": str(asked[place].tolist()), "words": " | ".join(questions[place].split())}
            return connection.execute(BARE_SEARCH, given).fetchall()  # type: ignore[call-overload]

        answers = {
            "search": by_lab(ours),
            "search, exact": by_lab(exact),
            "search in SQLite": by_lab(sqlite),
            "bare": by_hand,
        }
        cold = {name: timed(lambda answer=answer: answer(0)) for name, answer in answers.items()}
        print("  first answer: " + ", ".join(f"{name} {seconds * 1e3:,.0f} ms" for name, seconds in cold.items()))
        taken: dict[str, list[float]] = {name: [] for name in answers}
        for turn in range(repeats):
            # Other questions in every round: none is answered from what was remembered of it.
            block = range(1 + turn * each, 1 + (turn + 1) * each)
            for name, answer in answers.items():
                taken[name].append(
                    timed(lambda answer=answer, block=block: [answer(p % len(questions)) for p in block])
                )
        rates = {name: each / float(np.median(seconds)) for name, seconds in taken.items()}
        held = show("hybrid search (HNSW) / one statement", rates["search"], rates["bare"], unit="per s", at_least=0.5)
        for name in ("search, exact", "search in SQLite"):
            show(f"{name} / one statement", rates[name], rates["bare"], unit="per s", at_least=0)
    return held


# Ledger


def ledger(server: PostgresServer, *, rows: int, repeats: int, seed: int) -> bool:
    print(f"{rows:,} calls over half a year")
    with database(server, "ledger") as address:
        with al.open(address, embedding_model="hash-64") as lab:
            part = min(rows, 100_000)
            seconds = sum(
                timed(lambda number=number: lab.record_usages(calls(part, seed=seed + number)))
                for number in range(rows // part)
            )
            print(f"  recorded {rows / seconds:,.0f} rows a second, their making included")
            with psycopg.connect(address, autocommit=True) as connection:
                connection.execute("VACUUM ANALYZE")
            disk(address, rows, "usage_ledger", "usage_sources")
            return summed(lab, address, repeats=repeats)


def summed(lab: al.Lab, address: str, *, repeats: int) -> bool:
    held = True
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("SET TimeZone = 'UTC'; SET jit = off")

        def grouped(filters: str) -> Callable[[], object]:
            sql = f"SELECT model, {SUMS} FROM usage_ledger{filters} GROUP BY 1 ORDER BY 1"
            return lambda: connection.execute(sql).fetchall()  # type: ignore[call-overload]

        def forgetting(verb: Callable[..., object], **options: Any) -> Callable[[], object]:
            # A commit makes the lab forget its answers.
            return lambda: (connection.execute("SELECT pg_current_xact_id()"), verb(**options))

        month = {"since": "2026-05-01", "until": "2026-06-01"}
        for name, options, filters in (
            ("usage_df()", {}, ""),
            # The server passes over the other months; what is left is mostly making the frame.
            ("usage_df(of a month)", month, " WHERE at >= '2026-05-01' AND at < '2026-06-01'"),
        ):
            ours, theirs = in_turns(repeats, forgetting(lab.usage_df, **options), grouped(filters))
            held = (
                show(f"{name} / GROUP BY", 1 / ours, 1 / theirs, unit="per s", at_least=0 if options else 1 / 1.5)
                and held
            )
        ours, theirs = in_turns(3, forgetting(lab.latency_df), lambda: connection.execute(QUANTILES).fetchall())
        show("latency_df() / percentile_cont, without intervals", 60 / ours, 60 / theirs, unit="a min", at_least=0)
    return held


# A crowd


def writing(address: str, number: int, seconds: float) -> dict[str, Any]:
    """Write until the time is over and return what was acknowledged, what was refused, and how long calls took."""
    calls_done, contexts_done, errors, longest, last = [], [], [], 0.0, 0.0
    settings = {"embedding_model": "hash-64", "max_connections": 1, "deadline_seconds": DEADLINE_SECONDS}
    with al.open(address, **settings) as lab:
        end, step = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            name, started = f"{number}-{step}", time.monotonic()
            try:
                if step % 10 == 9:
                    lab.store_context(f"The note {name} of a process.", context_id=name)
                    contexts_done.append(name)
                else:
                    lab.record_usage("model", agent=f"p{number}", source="crowd", source_id=name)
                    calls_done.append(name)
                last = time.time()
            except Exception as exc:  # whatever it is, it is told
                clear = isinstance(exc, al.StorageError) and "\n" not in str(exc)
                errors.append((clear, f"{type(exc).__name__}: {exc}"))
            longest = max(longest, time.monotonic() - started)
            step += 1
    return {"calls": calls_done, "contexts": contexts_done, "errors": errors, "longest": longest, "last": last}


def crowd(server: PostgresServer, *, processes: int, seconds: float) -> bool:
    back = [0.0]

    def away() -> None:
        server.stop("immediate")
        time.sleep(AWAY_SECONDS)
        server.start()
        back[0] = time.time()

    with database(server, "crowd") as address:
        al.run_migrations(address)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["postgres", "autom8_lab.storage.postgres", "autom8_lab.embedding.encoders"])
        stopping = threading.Timer(seconds / 2, away)
        with context.Pool(processes) as pool:
            stopping.start()
            done = pool.starmap(writing, [(address, number, seconds) for number in range(processes)], chunksize=1)
        stopping.join()
        with al.open(address, embedding_model="hash-64") as lab:
            there = Counter(lab.ledger_df()["source_id"])
            stored = set(lab.contexts_df(limit=None)["context_id"])
            findings = len(lab.check())
    acknowledged = [name for one in done for name in one["calls"]]
    notes = [name for one in done for name in one["contexts"]]
    lost = [name for name in acknowledged if there[name] != 1] + [name for name in notes if name not in stored]
    errors = Counter(text for one in done for clear, text in one["errors"])
    unclear = sum(not clear for one in done for clear, _ in one["errors"])
    idle = sum(one["last"] < back[0] for one in done)
    longest = max(one["longest"] for one in done)
    print(f"{processes} processes, {seconds:g} s, the server killed in the middle and back after {AWAY_SECONDS:g} s")
    print(f"  acknowledged {len(acknowledged):,} calls and {len(notes):,} contexts; lost or twice: {len(lost)}")
    print(f"  there without being acknowledged: {len(there) - len(acknowledged) + len(stored) - len(notes)}")
    print(f"  errors {errors.total()}, unclear {unclear}; longest call {longest:.1f} s of {DEADLINE_SECONDS:g}")
    print(f"  processes that wrote nothing after the server was back: {idle}; findings of the check: {findings}")
    for text, count in errors.most_common(5):
        print(f"    {count} x {text[:200]}")
    return not (lost or unclear or idle or findings) and longest < DEADLINE_SECONDS + 10


# SciFact

QUALITY = {"text": 0.66, "semantic": 0.640, "hybrid": 0.725}


def scifact(server: PostgresServer, *, data: Path, path: Path) -> bool:
    documents, questions, judgments = load(data, "test")
    with al.open(path, access_log=False) as lab:
        lab.store_contexts(documents, if_exists="skip")
    held = True
    with database(server, "scifact") as address:
        copied = al.copy_lab(path, address, progress=False)
        print(f"SciFact, {copied['rows']:,} rows copied and compared in {copied['seconds']:.0f} s")
        with (
            al.open(path, access_log=False, vector_engine="exact") as sqlite,
            al.open(address, access_log=False) as lab,
        ):
            for method, bar in QUALITY.items():
                values = evaluate(lab, questions, judgments, method=method)
                found = next(value for measure, value in values.items() if str(measure) == "nDCG@10")
                held = held and found >= bar
                print(f"  {method:<9} nDCG@10 {found:.4f} (bar {bar}: {'ok' if found >= bar else 'MISSED'})")
            for method in ("semantic", "text"):
                same = sum(top(lab, text, method) == top(sqlite, text, method) for text in questions.values())
                print(f"  {method}: the top ten are SQLite's for {same} of {len(questions)} questions")
                held = held and (method == "text" or same == len(questions))
    return held


def top(lab: al.Lab, text: str, method: Any) -> list[str]:
    return [hit.context.id for hit in lab.search(text, method=method, k=10)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "parts", nargs="*", help="contexts, ledger, crowd, scifact; the first three where none is named"
    )
    parser.add_argument("--contexts", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared/data/scifact")
    parser.add_argument("--lab", type=Path, default=Path("scifact.db"))
    options = parser.parse_args()
    print(machine())
    server = PostgresServer(durable=True, settings=SETTINGS).start()
    run: dict[str, Callable[[], bool]] = {
        "contexts": lambda: contexts(server, count=options.contexts, repeats=options.repeats, seed=options.seed),
        "ledger": lambda: ledger(server, rows=options.rows, repeats=options.repeats, seed=options.seed),
        "crowd": lambda: crowd(server, processes=options.processes, seconds=options.seconds),
        "scifact": lambda: scifact(server, data=options.data, path=options.lab),
    }
    if unknown := set(options.parts) - set(run):
        parser.error(f"no part {', '.join(sorted(unknown))}: there are {', '.join(run)}")
    try:
        held = [run[name]() for name in options.parts or ("contexts", "ledger", "crowd")]
    finally:
        server.close()
    sys.exit(0 if all(held) else 1)


if __name__ == "__main__":
    main()
