"""What several processes at one file come to, and how soon a new process has its first answer."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

from ...embedding.chunking import text_hash
from ...errors import LabError
from ...storage.bare import BareFile
from .crew import Crew, clean_environment
from .material import Bench
from .rounds import Row, in_turns, milliseconds, rates, row
from .worker import BARE, OURS, Job

PART = "connections"
KNOWN = 1_000  # contexts that are there before
COLD_ROUNDS = 5
COLD_START = """
import json, sys
import autom8_lab as al
with al.open(sys.argv[1], **json.loads(sys.argv[2])) as lab:
    found = lab.search_df(sys.argv[3])
    print(json.dumps({"found": len(found), "degraded": found.attrs["degraded"], "torch": "torch" in sys.modules}))
"""
HELP = "from autom8_lab.cli import main; main(['--help'])"


def connection_figures(bench: Bench) -> Iterator[Row]:
    """Measure processes that write and read one file, against bare ones that send the same statements to another."""
    for connections in bench.sizes.connections:
        yield connections_figure(bench, connections)


def connections_figure(bench: Bench, connections: int) -> Row:
    """Measure so many processes, each storing a context and reading one in turn."""
    paths, known = _files(bench, f"connections-{connections}")
    operations = max(2, bench.sizes.operations // connections)
    jobs = [_job(bench, number, paths, operations, bench.sizes.repeats + 1, known) for number in range(connections)]
    stored: dict[str, dict[str, str]] = {OURS: {}, BARE: {}}
    errors: dict[str, list[str]] = {OURS: [], BARE: []}

    def turn(who: str, number: int) -> float:
        outcome = crew.run(who, number)
        stored[who] |= outcome.stored
        errors[who] += outcome.errors
        return outcome.seconds / (operations * connections)

    with Crew(jobs) as crew:
        timings = in_turns(bench.sizes.repeats, lambda number: turn(OURS, number), lambda number: turn(BARE, number))
    bare_faults = len(errors[BARE]) + lost(paths[BARE], stored[BARE])
    notes = [*dict.fromkeys(errors[OURS]), *([f"bare: {bare_faults} errors or losses"] if bare_faults else [])]
    return row(
        PART,
        f"{connections} process{'es' if connections > 1 else ''}, store and get",
        "/s",
        rates(timings.ours),
        how=f"one file, synchronous={bench.synchronous}, without encoding",
        against="the same statements, bare",
        others=rates(timings.theirs),
        errors=len(errors[OURS]),
        lost=lost(paths[OURS], stored[OURS]),
        note="; ".join(notes)[:500] or None,
    )


def _job(bench: Bench, number: int, paths: dict[str, str], operations: int, rounds: int, known: Sequence[str]) -> Job:
    return Job(number, paths, operations, rounds, bench.encoder.dimensions, bench.seed, known, bench.synchronous)


def _files(bench: Bench, name: str) -> tuple[dict[str, str], list[str]]:
    """Make a file for each who works, both with the same contexts, and return their paths and the contexts' ids."""
    paths = {}
    known = [f"known-{number}" for number in range(KNOWN)]
    written = bench.texts(KNOWN, part=31)
    for who in (OURS, BARE):
        with bench.lab(f"{name}-{who}") as lab:
            rows = [{"context_id": key, "content": text} for key, text in zip(known, written, strict=True)]
            lab.store_contexts(rows, progress=False)
            paths[who] = str(lab.config.db_path)
    return paths, known


def lost(path: str, stored: Mapping[str, str]) -> int:
    """Count the contexts that were reported as stored, and are not in the file with their text and its vector.

    `stored` has the SHA-256 of each text by id.
    """
    with closing(BareFile(path)) as file:
        there = {name: text_hash(content) for name, content in file.contents() if name in stored}
    return sum(there.get(name) != digest for name, digest in stored.items())


def start_figures(bench: Bench) -> Iterator[Row]:
    """Measure a cold start: of a search, and of the command line."""
    yield start_figure(bench)
    yield help_figure(bench)


def start_figure(bench: Bench) -> Row:
    """Measure a new process from its start to its first answer, against the libraries that it has to load."""
    with bench.lab("start", encoder=bench.as_model()) as lab:
        lab.store_contexts(bench.texts(bench.sizes.contexts, part=41), progress=False)
        path, chunks = lab.config.db_path, lab.stats()["chunks"]
    asked = bench.queries(COLD_ROUNDS + 1, part=42)
    settings = json.dumps({**bench.settings, "embedding_model": bench.encoder.name})
    loaded_torch = False

    def ours(number: int) -> float:
        nonlocal loaded_torch
        seconds, output = _run(bench, COLD_START, path, settings, asked[number])
        answer = json.loads(output)
        if not answer["found"] or answer["degraded"]:
            raise LabError(f"the first search of a new process found {answer}")
        loaded_torch |= answer["torch"]
        return seconds

    libraries = ["pandas", *(["onnxruntime", "tokenizers"] if getattr(bench.encoder, "backend", "") == "onnx" else [])]
    rounds = min(bench.sizes.repeats, COLD_ROUNDS)
    timings = in_turns(rounds, ours, lambda _: _run(bench, f"import {', '.join(libraries)}")[0])
    return row(
        "start",
        "a new process, first search_df",
        "ms",
        milliseconds(timings.ours),
        how=f"import, open a lab of {chunks:,} chunks, search",
        against=f"a new process, import {', '.join(libraries)}",
        others=milliseconds(timings.theirs),
        errors=int(loaded_torch) if bench.is_model else None,
        note="error: torch was loaded" if loaded_torch else "torch is not loaded",
    )


def help_figure(bench: Bench) -> Row:
    """Measure how soon the command line shows its help, against the library that reads the command line."""
    rounds = min(bench.sizes.repeats, COLD_ROUNDS)
    timings = in_turns(rounds, lambda _: _run(bench, HELP)[0], lambda _: _run(bench, "import click")[0])
    return row(
        "start",
        "a new process, autom8-lab --help",
        "ms",
        milliseconds(timings.ours),
        how="from its start to its end",
        against="a new process, import click",
        others=milliseconds(timings.theirs),
    )


def _run(bench: Bench, program: str, *arguments: str) -> tuple[float, str]:
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=clean_environment(),
        cwd=bench.folder,
        check=False,
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise LabError(f"a process of the benchmark failed: {done.stderr[-2_000:]}")
    return seconds, done.stdout
