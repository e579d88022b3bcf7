"""Whether a search finds what another process stored a moment before, and how long it takes then."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .crew import Crew
from .material import WORDS_OF_A_QUERY, PreparedEncoder
from .rounds import Row, in_turns, milliseconds, row
from .worker import OURS, Job

if TYPE_CHECKING:
    from ...lab import Lab
    from .large import Large

STORES = 10  # in a round


def fresh_figure(large: Large) -> Row:
    """Measure the search right after another process stored a context, and count the contexts that it misses."""
    bench, rounds = large.bench, large.bench.sizes.repeats + 1
    path, dimensions = bench.path(large.name), bench.encoder.dimensions
    job = Job(0, {OURS: str(path)}, 1, STORES * rounds, dimensions, bench.seed, [], bench.synchronous)
    texts, unchanged = job.texts(), bench.queries(STORES * rounds, part=32)
    # Each question has some words of a text, and its vector.
    asked = [" ".join(text.split()[:WORDS_OF_A_QUERY]) for text in texts]
    encoder = PreparedEncoder(bench.prepared().encode_documents(texts), texts=asked)
    missed = 0

    with bench.lab(large.name, encoder=encoder, vector_engine=large.engine) as lab, Crew([job]) as crew:

        def after_a_store(number: int) -> float:
            nonlocal missed
            seconds = 0.0
            for place in range(number * STORES, (number + 1) * STORES):
                new = crew.run(OURS, place).stored
                taken, found = timed_search(lab, asked[place])
                seconds += taken
                missed += not new or not new.keys() <= found
            return seconds / STORES

        def undisturbed(number: int) -> float:
            places = range(number * STORES, (number + 1) * STORES)
            return sum(timed_search(lab, unchanged[place])[0] for place in places) / STORES

        timings = in_turns(bench.sizes.repeats, after_a_store, undisturbed)
    return row(
        "large",
        "search_df, after another's store",
        "ms",
        milliseconds(timings.ours),
        how=f"hybrid, {len(large.vectors):,} contexts, {large.engine} engine, the very next search",
        against="search_df, file unchanged",
        others=milliseconds(timings.theirs),
        lost=missed,
        note=f"lost: of {STORES * rounds} stores by another process those that the next search did not find",
    )


def timed_search(lab: Lab, query: str) -> tuple[float, set[str]]:
    """Return the seconds of a hybrid search, and the contexts that it and one by meaning both found."""
    started = time.perf_counter()
    found = lab.search_df(query)
    seconds = time.perf_counter() - started
    meant = {hit.context.id for hit in lab.search(query, method="semantic")}
    return seconds, meant & set(found["context_id"])
