"""How fast a short query becomes a vector."""

from __future__ import annotations

from collections.abc import Iterator

from .material import Bench
from .rounds import Row, alone, milliseconds, row, seconds_each

PART = "encode"


def encode_figures(bench: Bench) -> Iterator[Row]:
    """Measure one short query."""
    calls, rounds = bench.sizes.calls, bench.sizes.repeats + 1
    asked = bench.queries(calls * rounds, part=51)
    taken = alone(
        bench.sizes.repeats,
        lambda number: seconds_each(bench.encoder.encode_query, asked[number * calls : (number + 1) * calls]),
    )
    yield row(PART, "one query encoded", "ms", milliseconds(taken), how=f"short, {bench.encoder.name}")
