"""What faults do to a lab: killed processes, a crowd, a full disk, and any order of operations.

    python benchmarks/faults.py [kill] [crowd] [full] [model] [--seed 0] [--rounds 200] [--seconds 60] [--examples 1000]

kill: three processes write (store, update, delete, usage, decision, groups in a transaction, a shared counter), all of them
migrate the file when they open it, and a fourth backs it up, until they are killed (SIGKILL) at a random moment. Afterwards
everything acknowledged is there, of what was under way all or nothing, the check has no findings, and the newest backup
is sound. A killed process is not a power failure: what the disk itself loses then depends on `synchronous`.
crowd: 20 processes and one of 50 threads read and write one file. full: a file system of 8 MB (tmpfs; mounting it needs
root on Linux). model: a lab against a plain Python model, driven by Hypothesis.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
# The processes of this one are forked from a server, which has to find the same.
os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path[:1], str(Path(__file__).parents[1]), *sys.path[1:]])

import fault_work

ROUNDS_PER_FILE = 10
MODULES = "import json, fault_work; print(json.dumps(fault_work.modules()))"


def kill(*, rounds: int, seed: int) -> bool:
    sound = True
    for synchronous in ("FULL", "NORMAL"):
        acknowledged, wrong, started = Counter[str](), list[str](), time.perf_counter()
        for first in range(0, rounds, ROUNDS_PER_FILE):
            with tempfile.TemporaryDirectory() as name:
                path, expected = Path(name) / "lab.db", fault_work.Expected()
                fault_work.new_lab_to_kill(path, synchronous)
                for number in range(first, min(first + ROUNDS_PER_FILE, rounds)):
                    said = fault_work.kill_round(path, expected, number=number, seed=seed, synchronous=synchronous)
                    wrong += [f"round {number}: {item}" for item in said]
                acknowledged += expected.acknowledged
        told = ", ".join(f"{kind} {count:,}" for kind, count in sorted(acknowledged.items()))
        print(
            f"kill -9, {rounds} rounds, synchronous={synchronous}: acknowledged {told}; wrong: {len(wrong)}", flush=True
        )
        print(*wrong[:10], f"({time.perf_counter() - started:.0f} s)", sep="\n  ")
        sound = sound and not wrong
    return sound


def crowd(*, seconds: float, seed: int) -> bool:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "lab.db"
        fault_work.fill_for_crowd(path)
        done, wrong = fault_work.crowd(path, others=20, threads=50, seconds=seconds, seed=seed)
    print(
        f"20 processes and 50 threads, {seconds:g} s: {sum(map(len, done.milliseconds.values())):,} operations, "
        f"errors {len(done.errors)}, wrong {len(wrong)}"
    )
    for kind, times in sorted(done.milliseconds.items()):
        p50, p99 = np.percentile(times, [50, 99])
        print(f"  {kind:<10}{len(times):>8,}   p50 {p50:>8.1f} ms   p99 {p99:>8.1f} ms   longest {max(times):>8.1f} ms")
    for item in [*done.errors, *wrong][:10]:
        print(f"  {item}")
    return not done.errors and not wrong


@contextmanager
def small_disk(size: str = "8m") -> Iterator[Path | None]:
    """Give a file system of its own, None where mounting one is not allowed."""
    with tempfile.TemporaryDirectory() as name:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", name], capture_output=True, text=True
        )
        if mounted.returncode:
            print(f"full: no small file system can be mounted here ({mounted.stderr.strip()}): run it as root on Linux")
            yield None
            return
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", name], check=True)


def full(*, seed: int) -> bool:
    with small_disk() as folder:
        if folder is None:
            return True
        found = fault_work.fill_a_disk(folder, seed=seed)
    print(
        f"a full disk of 8 MB: {found['acknowledged']} contexts acknowledged, then {found['errors']}; "
        f"{found['after']} more after it was freed; wrong: {found['wrong'] or 'nothing'}"
    )
    return not found["wrong"]


def model(*, examples: int, seed: int) -> bool:
    from context_machine import ContextMachine
    from hypothesis import HealthCheck, settings
    from hypothesis import seed as seeded
    from hypothesis.stateful import run_state_machine_as_test

    limits = settings(
        max_examples=examples,
        stateful_step_count=25,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    started = time.perf_counter()
    run_state_machine_as_test(seeded(seed)(ContextMachine), settings=limits)
    print(
        f"a lab against a plain model: {examples:,} examples of up to 25 steps, all agree ({time.perf_counter() - started:.0f} s)"
    )
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help="kill, crowd, full, model; all of them where none is given")
    for name, default in {"seed": 0, "rounds": 200, "seconds": 60, "examples": 1000}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    found = subprocess.run([sys.executable, "-c", MODULES], check=True, capture_output=True, text=True)
    fault_work.processes.set_forkserver_preload(json.loads(found.stdout))
    parts = {
        "kill": lambda: kill(rounds=given.rounds, seed=given.seed),
        "crowd": lambda: crowd(seconds=given.seconds, seed=given.seed),
        "full": lambda: full(seed=given.seed),
        "model": lambda: model(examples=given.examples, seed=given.seed),
    }
    if unknown := set(given.parts) - set(parts):
        parser.error(f"no part {', '.join(sorted(unknown))}: there are {', '.join(parts)}")
    results = [parts[name]() for name in given.parts or parts]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
