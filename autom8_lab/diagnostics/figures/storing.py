"""How fast a lab writes: batches, single texts and calls of models, against the same rows by bare statements."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .material import TEXT_BYTES, Bench
from .rounds import Row, in_turns, rates, row, seconds_each, seconds_of

PART = "store"
BATCH = 1_000  # contexts of a transaction
USAGE: dict[str, Any] = {"input_tokens": 812, "output_tokens": 120, "latency_ms": 930.5, "quality_score": 0.9}


def store_figures(bench: Bench) -> Iterator[Row]:
    """Measure storing and recording."""
    yield batch_figure(bench)
    yield single_figure(bench)
    yield usage_figure(bench)
    if bench.is_model:
        yield encoded_figure(bench)


def batch_figure(bench: Bench) -> Row:
    """Measure `store_contexts` of many texts against `executemany` of the rows that it made."""
    count, texts = bench.sizes.batch, bench.texts(bench.sizes.batch, part=1)
    with bench.lab("batch") as lab:
        lab.store_contexts(texts, progress=False)
    donor = bench.bare("batch")
    rows = donor.contexts()
    donor.close()

    def ours(number: int) -> float:
        with bench.lab(f"batch-{number}") as lab:
            lab.store_context("A file that is in use.")
            return seconds_of(lambda: lab.store_contexts(texts, batch_size=BATCH, progress=False)) / count

    def theirs(number: int) -> float:
        name = f"batch-bare-{number}"
        with bench.lab(name) as lab:
            lab.store_context("A file that is in use.")
        bare = bench.bare(name)
        batches = [rows[start : start + BATCH] for start in range(0, count, BATCH)]
        seconds = seconds_each(bare.store_many, batches) * len(batches) / count
        bare.close()
        return seconds

    timings = in_turns(bench.sizes.repeats, ours, theirs)
    return row(
        PART,
        "store_contexts",
        "/s",
        rates(timings.ours),
        how=f"{count:,} texts of {TEXT_BYTES} bytes, without encoding",
        against="executemany into the same tables",
        others=rates(timings.theirs),
        note=f"transactions of {BATCH:,}, synchronous={bench.synchronous}",
    )


def single_figure(bench: Bench) -> Row:
    """Measure durable one-row `store_context` against the three insertions that it comes down to."""
    calls, rounds = bench.sizes.calls, bench.sizes.repeats + 1
    texts = bench.texts(calls * rounds, part=2)
    with bench.lab("single-donor") as lab:
        lab.store_contexts(texts, progress=False)
    donor = bench.bare("single-donor")
    rows = donor.contexts()
    donor.close()
    with bench.lab("single") as lab, bench.lab("single-bare") as other:
        for each in (lab, other):
            each.store_contexts(bench.texts(bench.sizes.contexts, part=3), progress=False)
        bare = bench.bare("single-bare")
        timings = in_turns(
            bench.sizes.repeats,
            lambda number: seconds_each(lab.store_context, texts[number * calls : (number + 1) * calls]),
            lambda number: seconds_each(bare.store, rows[number * calls : (number + 1) * calls]),
        )
        bare.close()
    return row(
        PART,
        "store_context",
        "/s",
        rates(timings.ours),
        how=f"one at a time into {bench.sizes.contexts:,}, durable, without encoding",
        against="three INSERTs and COMMIT",
        others=rates(timings.theirs),
        note=f"synchronous={bench.synchronous}",
    )


def usage_figure(bench: Bench) -> Row:
    """Measure `record_usage` of a priced call against the one insertion that it comes down to."""
    calls = bench.sizes.calls
    with bench.lab("usage-donor") as lab:
        lab.record_usages([{"model": "gpt-4o-mini", **USAGE} for _ in range(calls)])
    donor = bench.bare("usage-donor")
    rows = donor.ledger_rows()
    donor.close()
    with bench.lab("usage") as lab, bench.lab("usage-bare"):
        bare = bench.bare("usage-bare")
        timings = in_turns(
            bench.sizes.repeats,
            lambda _: seconds_each(lambda _: lab.record_usage("gpt-4o-mini", **USAGE), range(calls)),
            lambda _: seconds_each(bare.record, rows),
        )
        bare.close()
    return row(
        PART,
        "record_usage",
        "/s",
        rates(timings.ours),
        how="one at a time, durable, priced",
        against="INSERT and COMMIT",
        others=rates(timings.theirs),
        note=f"synchronous={bench.synchronous}",
    )


def encoded_figure(bench: Bench) -> Row:
    """Measure `store_contexts` with encoding against encoding alone."""
    calls = min(bench.sizes.calls, 100)
    texts = bench.texts(2 * calls * (bench.sizes.repeats + 1), part=4)
    with bench.lab("encoded", encoder=bench.encoder) as lab:
        timings = in_turns(
            bench.sizes.repeats,
            lambda number: (
                seconds_of(
                    lambda: lab.store_contexts(texts[2 * number * calls : (2 * number + 1) * calls], progress=False)
                )
                / calls
            ),
            lambda number: (
                seconds_of(
                    lambda: bench.encoder.encode_documents(texts[(2 * number + 1) * calls : (2 * number + 2) * calls])
                )
                / calls
            ),
        )
    return row(
        PART,
        "store_contexts, encoded",
        "/s",
        rates(timings.ours),
        how=f"{calls} texts of {TEXT_BYTES} bytes",
        against="encoding alone",
        others=rates(timings.theirs),
    )


def read_figures(bench: Bench) -> Iterator[Row]:
    """Measure `get_context` against SELECT by id."""
    from random import Random

    with bench.lab("read") as lab:
        ids = lab.store_contexts(bench.texts(bench.sizes.contexts, part=5), progress=False)["context_id"].tolist()
        bare, draw = bench.bare("read"), Random(bench.seed)
        asked = [draw.choices(ids, k=10 * bench.sizes.calls) for _ in range(bench.sizes.repeats + 1)]
        timings = in_turns(
            bench.sizes.repeats,
            lambda number: seconds_each(lab.get_context, asked[number]),
            lambda number: seconds_each(bare.context, asked[number]),
        )
        bare.close()
    yield row(
        "read",
        "get_context",
        "/s",
        rates(timings.ours),
        how=f"{len(ids):,} contexts; the access log is kept",
        against="SELECT by id",
        others=rates(timings.theirs),
    )
