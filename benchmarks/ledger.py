"""What the ledger costs against bare SQL on the same file: recording, sums, quantiles, repeated questions, memory.

    python benchmarks/ledger.py [--rows 10000 100000 1000000] [--repeats 5]

Each ratio is the median of the verb over the median of the named alternative, measured in turns.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sqlite_utils.utils import sqlite3

import autom8_lab as al

MODELS = [
    "gpt-4o",
    "gpt-4o-mini",
    "o3-mini",
    "claude-sonnet-4-5",
    "claude-haiku-4-5",
    "gemini-2.5-pro",
    "gemini-2.5-flash",
]
BATCH = 100_000
SINGLES = 1_000


def calls(count: int, *, seed: int = 0) -> pd.DataFrame:
    """Return calls of seven models over half a year, three in ten of them judged, every one with an id of its source."""
    draw = np.random.default_rng(seed)
    input_tokens, latency_ms = draw.integers(10, 5_000, count), np.exp(draw.normal(7, 0.6, count))
    at = np.datetime64("2026-01-01", "us") + np.sort(draw.integers(0, 180 * 86_400 * 10**6, count)).astype("m8[us]")
    return pd.DataFrame(
        {
            "at": pd.Series(at).dt.tz_localize("UTC"),
            "model": np.array(MODELS, dtype=object)[draw.integers(0, len(MODELS), count)],
            "operation": "chat",
            "agent": "agent",
            "input_tokens": input_tokens,
            "output_tokens": draw.integers(1, 1_500, count),
            "cache_read_tokens": (input_tokens * draw.random(count) / 2).astype(int),
            "latency_ms": latency_ms,
            "ttft_ms": latency_ms * draw.uniform(0.1, 0.4, count),
            "quality_score": np.where(draw.random(count) < 0.3, draw.random(count), np.nan),
            "success": draw.random(count) < 0.97,
            "source": "benchmark",
            "source_id": [f"{seed}-{number}" for number in range(count)],
        }
    )


def seconds(action: Callable[[], object]) -> float:
    gc.collect()
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def in_turns(repeats: int, *actions: Callable[[], object]) -> list[float]:
    """Return the median seconds of each action; they take turns, so that a busy moment hits all of them."""
    taken = [[seconds(action) for action in actions] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*taken, strict=True)]


def show(name: str, ours: float, theirs: float, bar: float, unit: str = "s") -> None:
    factor = {"s": 1, "ms": 1e3, "µs": 1e6}[unit]
    verdict = "ok" if ours <= bar * theirs else "MISSED"
    print(
        f"  {name:<68} {ours * factor:9.3f} {unit:<2} against {theirs * factor:9.3f} {unit:<2}"
        f"  ratio {ours / theirs:5.2f}  (bar {bar:g}: {verdict})"
    )


def bare(path: Path, *, synchronous: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("foreign_keys = 1", "journal_mode = WAL", f"synchronous = {synchronous}", "cache_size = 10000"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def stored_rows(connection: sqlite3.Connection, prefix: str) -> tuple[str, list[tuple[Any, ...]]]:
    """Return an insertion and its rows: what the file has, to be stored again under other ids."""
    names = [row[1] for row in connection.execute("PRAGMA table_info(usage_ledger)") if row[1] != "usage_key"]
    values = ", ".join("? || source_id" if name == "source_id" else name for name in names)
    rows = connection.execute(f"SELECT {values} FROM usage_ledger LIMIT {BATCH}", [prefix]).fetchall()
    return f"INSERT INTO usage_ledger ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})", rows


def measure_batch(folder: Path) -> None:
    print(f"recording {BATCH:,} calls at once, synchronous = NORMAL")
    frame = calls(BATCH)
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    for name, source in (("record_usages(DataFrame)", frame), ("record_usages(list of dicts)", rows)):
        ours, theirs = [], []
        for turn in range(3):
            path = folder / f"batch-{name[14]}{turn}.db"
            with al.open(path, synchronous="NORMAL") as lab:
                ours.append(seconds(lambda lab=lab, source=source: lab.record_usages(source)))
            insertion, values = stored_rows(bare(path, synchronous="NORMAL"), "again-")
            other = folder / f"bare-{name[14]}{turn}.db"
            al.open(other).close()
            connection = bare(other, synchronous="NORMAL")

            def insert(connection=connection, insertion=insertion, values=values) -> None:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(insertion, values)
                connection.execute("COMMIT")

            theirs.append(seconds(insert))
            connection.close()
        show(f"{name} / executemany of the finished rows", statistics.median(ours), statistics.median(theirs), 2)


def measure_singles(folder: Path) -> None:
    for synchronous in ("NORMAL", "FULL"):
        print(f"recording one priced call, synchronous = {synchronous}, median of {SINGLES:,}")
        path = folder / f"single-{synchronous}.db"
        with al.open(path, synchronous=synchronous) as lab:
            lab.record_usages(calls(10_000))
            connection = bare(path, synchronous=synchronous)
            insertion, rows = stored_rows(connection, "single-")

            def insert(row: Iterable[Any], connection=connection, insertion=insertion) -> None:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(insertion, row)
                connection.execute("COMMIT")

            def record(number: int, lab=lab) -> None:
                lab.record_usage(
                    "gpt-4o-mini",
                    agent="agent",
                    input_tokens=812,
                    output_tokens=120,
                    cache_read_tokens=100,
                    latency_ms=930.5,
                    ttft_ms=210.5,
                    quality_score=0.9,
                    source="benchmark",
                    source_id=f"one-{number}",
                )

            ours, theirs = [], []
            gc.collect()
            for number in range(SINGLES):
                for action, argument, taken in ((record, number, ours), (insert, rows[number], theirs)):
                    started = time.perf_counter()
                    action(argument)
                    taken.append(time.perf_counter() - started)
            connection.close()
        show("record_usage / INSERT + COMMIT", statistics.median(ours), statistics.median(theirs), 3, "µs")


def measure_reading(path: Path, repeats: int) -> dict[str, float]:
    """Print the verbs beside bare SQL on one file and return the seconds of each."""
    sums = "count(*), sum(success), count(success), " + ", ".join(
        f"sum({name})"
        for name in ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
    )
    cost = "coalesce(cost_actual_usd, cost_estimated_usd)"
    parts = ", ".join(
        f"sum({name}_cost_usd)" for name in "input cache_read cache_write output reasoning request".split()
    )
    groupings = {
        "daily": f"SELECT model, substr(at, 1, 10), {sums}, sum({cost}), count({cost}) FROM usage_ledger GROUP BY 1, 2",
        "costs": f"SELECT model, count(*), {parts}, sum(cost_estimated_usd), sum(cost_actual_usd), sum({cost}),"
        f" count({cost}), count(cost_actual_usd) FROM usage_ledger GROUP BY 1",
    }
    with al.open(path) as lab:
        connection = bare(path, synchronous="FULL")
        context_id = lab.store_context("A commit makes the lab forget its answers.")

        def asked(verb: Callable[..., pd.DataFrame], **options: Any) -> Callable[[], object]:
            return lambda: (lab.pin_context(context_id), verb(**options))

        def grouped(name: str) -> Callable[[], object]:
            return lambda: connection.execute(groupings[name]).fetchall()

        def quantiles() -> object:
            rows = connection.execute("SELECT model, latency_ms FROM usage_ledger").fetchall()
            frame = pd.DataFrame(rows, columns=["model", "latency_ms"])
            return frame.groupby("model")["latency_ms"].quantile([0.5, 0.9, 0.95, 0.99])

        found = {}
        for name, verb, options, theirs, label in (
            ("usage", lab.usage_df, {"by": "model", "freq": "D"}, grouped("daily"), "GROUP BY with the same sums"),
            ("cost", lab.cost_df, {}, grouped("costs"), "GROUP BY with the same sums"),
            ("latency", lab.latency_df, {"by": "model"}, quantiles, "two columns and a pandas quantile"),
        ):
            ours, other = in_turns(repeats, asked(verb, **options), theirs)
            show(f"{name}_df({', '.join(f'{k}={v!r}' for k, v in options.items())}) / {label}", ours, other, 1.5)
            (again,) = in_turns(repeats, lambda verb=verb, options=options: verb(**options))
            print(
                f"  {name + '_df again, on an unchanged file':<68} {again * 1e3:9.3f} ms  (bar 50 ms: {'ok' if again < 0.05 else 'MISSED'})"
            )
            found[name] = ours
        (found["performance"],) = in_turns(repeats, asked(lab.model_performance_df))
        print(f"  {'model_performance_df()':<68} {found['performance']:9.3f} s")
        connection.close()
    return found


def peak_megabytes(path: Path, verb: str, options: dict[str, Any]) -> float:
    """Return the most memory that a process of its own held while it opened the lab and asked once."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_ask, (str(path), verb, options))


def _ask(path: str, verb: str, options: dict[str, Any]) -> float:
    with al.open(path) as lab:
        getattr(lab, verb)(**options)
    status = Path("/proc/self/status")
    if status.exists():  # Linux: ru_maxrss would include what the parent held
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    growth: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure_batch(folder)
        measure_singles(folder)
        for rows in sorted(arguments.rows):
            path = folder / f"rows-{rows}.db"
            with al.open(path, synchronous="NORMAL") as lab:
                for seed, start in enumerate(range(0, rows, BATCH)):
                    lab.record_usages(calls(min(BATCH, rows - start), seed=seed))
            print(f"{rows:,} calls, a file of {path.stat().st_size / 1e6:.0f} MB")
            growth[rows] = measure_reading(path, arguments.repeats)
        print("growth: seconds of each verb by rows")
        print(pd.DataFrame(growth).T.round(3).to_string())
        print(f"memory at {max(growth):,} calls (bar 500 MB): the most that a process of its own held")
        for verb, options in (
            ("usage_df", {"freq": "D"}),
            ("cost_df", {}),
            ("latency_df", {}),
            ("model_performance_df", {}),
            ("ledger_df", {}),
        ):
            print(f"  {verb:<68} {peak_megabytes(path, verb, options):9.0f} MB")


if __name__ == "__main__":
    main()
