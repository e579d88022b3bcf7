"""200 coroutines store and search at once: how long the event loop is ever kept waiting.

    python benchmarks/aio.py [--model hash-384] [--coroutines 200] [--rounds 5] [--seed 0]

A ticker sleeps a millisecond at a time; a gap is how much later than that it woke. The same ticker in an idle process
tells how much of it is the machine's doing. A model or pandas that is loaded for the first time keeps the loop waiting
while the libraries are read in: that is printed on a line of its own. So does Python's collector of garbage, which stops
everything to look through all objects of all libraries; `gc.freeze()` after the first use spares a service that, and the
last line is measured with it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import random
import tempfile
import time
from collections.abc import Awaitable
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import autom8_lab as al

WORDS = "agent batch cache delay error fetch graph index joins kafka lease merge nodes order proxy quota retry".split()


async def ticker(gaps: list[float]) -> None:
    while True:
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        gaps.append((time.perf_counter() - before - 0.001) * 1_000)


def idle(stop: Event, longest: Any) -> None:
    while not stop.is_set():
        before = time.perf_counter()
        time.sleep(0.001)
        longest.value = max(longest.value, (time.perf_counter() - before - 0.001) * 1_000)


async def measured(what: str, work: Awaitable[object], *, verbs: int) -> None:
    context = multiprocessing.get_context("spawn")
    stop, longest = context.Event(), context.Value("d", 0.0)
    beside = context.Process(target=idle, args=(stop, longest))
    beside.start()
    await asyncio.sleep(0.5)
    gaps: list[float] = []
    ticking = asyncio.ensure_future(ticker(gaps))
    longest.value, started = 0.0, time.perf_counter()
    await work
    seconds = time.perf_counter() - started
    ticking.cancel()
    stop.set()
    beside.join()
    gaps.sort()
    print(
        f"{what:<28} {verbs / seconds:6.0f} verbs/s   loop kept waiting: median {gaps[len(gaps) // 2]:.1f} ms, "
        f"p99 {gaps[int(0.99 * (len(gaps) - 1))]:.1f} ms, longest {gaps[-1]:.1f} ms (an idle process: {longest.value:.1f} ms)"
    )


class Collections:
    """How long full collections of garbage took, in milliseconds."""

    def __init__(self) -> None:
        self.longest_ms, self._began = 0.0, 0.0

    def __call__(self, phase: str, facts: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.perf_counter()
        elif facts["generation"] == 2:
            self.longest_ms = max(self.longest_ms, (time.perf_counter() - self._began) * 1_000)


async def agent(lab: al.aio.AsyncLab, number: int, rounds: int, seed: int) -> None:
    draw = random.Random(seed * 10_007 + number)
    for turn in range(rounds):
        text = " ".join(draw.choices(WORDS, k=20))
        await lab.store_context(f"{text} {number} {turn}", context_id=f"{number}-{turn}", topic=f"topic {number % 7}")
        found = await lab.search(" ".join(draw.choices(WORDS, k=4)), k=5)
        assert found
        await lab.record_usage("gpt-4o-mini", input_tokens=10, output_tokens=turn)


async def run(model: str, coroutines: int, rounds: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with al.aio.open(Path(folder) / "lab.db", embedding_model=model) as lab:
            await measured("first use, libraries loaded", agent(lab, 1_000_000, 1, seed), verbs=3)
            collections = Collections()
            gc.callbacks.append(collections)
            for place, what in enumerate(["", ", gc.freeze()"]):
                first = place * coroutines
                agents = [agent(lab, number, rounds, seed) for number in range(first, first + coroutines)]
                await measured(f"{coroutines} coroutines{what}", asyncio.gather(*agents), verbs=3 * rounds * coroutines)
                print(f"{'':<29}longest full collection of garbage: {collections.longest_ms:.1f} ms")
                gc.collect()
                gc.freeze()
                collections.longest_ms = 0
            stats = await lab.stats()
            made = (stats["contexts"], stats["usage_rows"])
            assert made == (1 + 2 * coroutines * rounds,) * 2, f"{made} contexts and calls: something is lost"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="hash-384")
    parser.add_argument("--coroutines", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    asyncio.run(run(options.model, options.coroutines, options.rounds, options.seed))
