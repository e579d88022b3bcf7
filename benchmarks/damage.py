"""What damage does to a lab: whether it is found, what a repair saves, and that nothing unsound comes back.

    python benchmarks/damage.py [--seed 0] [--rounds 5] [--flips 500] [--mutations 1000] [--contexts 1500]

Each kind of damage is done `rounds` times to a copy of one lab. Per kind: how often the check found it, which share of
the rows whose own pages are whole the repair saved (bar 0.99), how many saved rows are not what they were (bar 0), and
for comparison which share plain SQLite finds by a scan and by asking for each row. A single flipped bit is to be found, or
every row is as it was. Damaged files are used in processes of their own: a crash or a hang would show.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as TooLate
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from sqlite_utils.utils import sqlite3

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import damage
import whole_lab

import autom8_lab as al

PATIENCE_SECONDS = 120
MODEL = "hash-64"


def make_lab(path: Path, *, contexts: int) -> None:
    with al.open(path, embedding_model=MODEL, vector_engine="sqlite-vec", synchronous="OFF") as lab:
        whole_lab.fill(lab, contexts=contexts, calls=2 * contexts)
        for number in range(0, contexts, 5):
            if number not in (6, 1, 2):
                lab.get_context(f"note-{number:05}") if number % 10 else lab.search(f"note {number}", k=2)
        lab.search("harbour tide", method="semantic")


class Elsewhere:
    """A process that takes one piece of work after the other, and is replaced when it crashes or hangs."""

    def __init__(self) -> None:
        self.trouble: list[str] = []
        self._pool: ProcessPoolExecutor | None = None

    def run(self, label: str, work: Callable[..., Any], *arguments: Any) -> Any:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        try:
            return self._pool.submit(work, *arguments).result(timeout=PATIENCE_SECONDS)
        except BrokenProcessPool:
            self.trouble.append(f"{label}: crash")
            self._pool = None
        except TooLate:
            self.trouble.append(f"{label}: no end within {PATIENCE_SECONDS} s")
            for process in list(self._pool._processes.values()):
                process.kill()
            self._pool = None
        except Exception as exc:
            places = [line.strip() for line in str(exc.__cause__).splitlines() if line.strip().startswith("File ")]
            self.trouble.append(f"{label}: {type(exc).__name__}: {exc} ({' < '.join(places[:-4:-1])})")
        return None

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()


# Kinds of damage


def pages_of(*trees: str, interior: bool | None = None, many: int = 1) -> damage.Damage:
    def act(path: Path, original: damage.Original, draw: random.Random) -> None:
        pages = sorted(original.anatomy.pages_of(*trees, interior=interior))
        damage.overwrite_pages(path, draw.sample(pages, min(many, len(pages))), draw)

    return act


def random_pages(many: int) -> damage.Damage:
    def act(path: Path, original: damage.Original, draw: random.Random) -> None:
        damage.overwrite_pages(path, draw.sample(range(1, len(original.data) // damage.PAGE + 1), many), draw)

    return act


KINDS: dict[str, damage.Damage] = {
    "3 random pages gone": random_pages(3),
    "20 random pages gone": random_pages(20),
    "the last third cut off": lambda path, original, draw: damage.cut(path, 1 / 3),
    "the header destroyed": lambda path, original, draw: damage.write_at(path, 0, draw.randbytes(100)),
    "the first page destroyed": lambda path, original, draw: damage.write_at(path, 0, draw.randbytes(damage.PAGE)),
    "a page of the schema": pages_of("sqlite_master", interior=False),
    "an index page": pages_of(
        "idx_context_registry_content_hash", "idx_usage_ledger_at", "idx_context_chunks_chunk_hash"
    ),
    "a full-text page": pages_of("context_registry_fts_data", "context_registry_fts_docsize"),
    "an interior page of a large table": pages_of("context_registry", "usage_ledger", "embeddings", interior=True),
    "a page of a large table": pages_of("context_registry", "usage_ledger", "embeddings", interior=False),
}


def examine(pattern: str, folder: str, kind: str, seed: int) -> dict[str, Any]:
    """Damage a copy, check it, repair it, and compare with the original; in a process of its own."""
    original = damage.look_into(Path(pattern))
    path = Path(folder) / f"{seed}.db"
    shutil.copy(pattern, path)
    KINDS[kind](path, original, random.Random(f"{kind}{seed}"))
    damaged = damage.differing_pages(original.data, path.read_bytes())
    before = path.read_bytes()
    findings = len(al.check_file(path))
    report = al.repair(path, to=path.with_suffix(".new"))
    assert path.read_bytes() == before, "the damaged file was written to"
    verdict = damage.judge(original, path.with_suffix(".new"), damaged)
    found = {
        "found": findings > 0,
        "share": verdict.share,
        "unsound": len(verdict.unsound),
        "seconds": report["seconds"],
        **{name: share_by_sqlite(path, original, damaged, read) for name, read in READERS.items()},
    }
    for item in Path(folder).glob(f"{seed}.*"):
        item.unlink()
    return found


# The same rows by SQLite itself, for comparison


def scan(connection: sqlite3.Connection, table: str, rowids: set[int]) -> Iterator[int]:
    try:
        for row in connection.execute(f'SELECT rowid, * FROM "{table}"'):
            yield row[0]
    except sqlite3.Error:
        return


def probe(connection: sqlite3.Connection, table: str, rowids: set[int]) -> Iterator[int]:
    for rowid in sorted(rowids):
        try:
            if connection.execute(f'SELECT * FROM "{table}" WHERE rowid = ?', [rowid]).fetchone():
                yield rowid
        except sqlite3.Error:
            continue


READERS = {"scan": scan, "probe": probe}


def share_by_sqlite(path: Path, original: damage.Original, damaged: set[int], read: Callable[..., Any]) -> float:
    whole = original.whole_rows(damaged)
    found = 0
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    for table, rowids in whole.items():
        found += len(rowids & set(read(connection, table, rowids)))
    connection.close()
    return found / max(sum(map(len, whole.values())), 1)


# One bit


def flip(pattern: str, folder: str, seed: int) -> str:
    """Flip one bit of a copy; return whether the check finds it, or else whether every row is as it was."""
    original = rows_and_answers(Path(pattern))
    path = Path(folder) / f"{seed}.db"
    shutil.copy(pattern, path)
    damage.flip_bit(path, random.Random(f"flip{seed}"))
    try:
        if not al.check_file(path).empty:
            unsound = unsound_answers(path, original)
            return f"found, but {unsound} comes back" if unsound else "found"
        return "intact" if rows_and_answers(path) == original else "MISSED"
    finally:
        for item in Path(folder).glob(f"{seed}.*"):
            item.unlink()


_known: dict[Path, Any] = {}


def rows_and_answers(path: Path) -> Any:
    """Return every row of every table that is not derived, and what the lab says of its contexts."""
    if path in _known:
        return _known[path]
    found = damage.rows_of(path), texts_of(path)
    if path.name == "pattern.db":
        _known[path] = found
    return found


def texts_of(path: Path) -> dict[str, str]:
    with al.open(path, embedding_model=MODEL, read_only=True) as lab:
        listed = lab.list_contexts(include_expired=True, include_superseded=True)
        found = lab.search("harbour tide copper engine", k=50)
        return {item.id: item.content for item in [*listed, *(hit.context for hit in found)]}


def unsound_answers(path: Path, original: Any) -> str:
    """Return the id of a context that a damaged lab returns with another text than its own, or nothing."""
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", al.LabWarning)
            texts = texts_of(path)
    except al.LabError:
        return ""
    known = set(original[1].values())
    return next((name for name, text in texts.items() if text not in known), "")


# The log


def damage_log(pattern: str, folder: str, seed: int) -> dict[str, Any]:
    """Flip a bit of the part of the log that is in use; return what the check says and the repair saves."""
    from autom8_lab.storage.wal import read_log

    path = Path(folder) / f"log{seed}.db"
    for ending in ("", "-wal"):
        shutil.copy(f"{pattern}{ending}", f"{path}{ending}")
    with_log = Path(f"{path}-wal")
    draw = random.Random(f"log{seed}")
    used = 32 + len(read_log(with_log).frames) * (24 + damage.PAGE)
    place = draw.randrange(used)
    data = bytearray(with_log.read_bytes())
    data[place] ^= 1 << draw.randrange(8)
    with_log.write_bytes(data)
    findings = len(al.check_file(path))
    shutil.copy(pattern, Path(folder) / f"whole{seed}.db")
    shutil.copy(f"{pattern}-wal", Path(folder) / f"whole{seed}.db-wal")
    texts = texts_of(Path(folder) / f"whole{seed}.db")
    al.repair(path, to=path.with_suffix(".new"))
    saved = texts_of(path.with_suffix(".new"))
    for item in Path(folder).glob(f"*{seed}.*"):
        item.unlink()
    return {
        "found": findings > 0,
        "share": len(saved.keys() & texts.keys()) / len(texts),
        "unsound": sum(1 for name, text in saved.items() if texts.get(name) != text),
    }


# The report


def report_kinds(elsewhere: Elsewhere, pattern: Path, folder: Path, *, rounds: int, seed: int) -> None:
    print(f"{'damage':<36}{'found':>8}{'saved of whole':>16}{'unsound':>9}{'by scan':>9}{'by probe':>10}{'repair':>9}")
    for kind in KINDS:
        found = [
            result
            for number in range(rounds)
            if (result := elsewhere.run(kind, examine, str(pattern), str(folder), kind, seed * 1000 + number))
        ]
        if found:
            worst = min(item["share"] for item in found)
            means = {name: sum(item[name] for item in found) / len(found) for name in ("scan", "probe", "seconds")}
            print(
                f"{kind:<36}{sum(item['found'] for item in found):>5}/{len(found)}{worst:>16.4f}"
                f"{sum(item['unsound'] for item in found):>9}{means['scan']:>9.3f}{means['probe']:>10.3f}"
                f"{means['seconds']:>7.1f} s"
            )
    print("(saved of whole: the worst round; by scan and by probe: the mean)")


def delete_log(pattern: str, folder: str, seed: int) -> dict[str, Any]:
    """Delete the log of a lab that nobody has open; return what the lab then says of its contexts, held against before."""
    path = Path(folder) / f"without{seed}.db"
    for ending in ("", "-wal"):
        shutil.copy(f"{pattern}{ending}", f"{path}{ending}")
    texts = texts_of(path)  # read-only: what is in the log stays there
    Path(f"{path}-wal").unlink()
    Path(f"{path}-shm").unlink(missing_ok=True)
    found, rest = len(al.check_file(path)), texts_of(path)
    for item in Path(folder).glob(f"without{seed}.*"):
        item.unlink()
    unsound = sum(1 for name, text in rest.items() if texts.get(name) != text)
    return {"findings": found, "only in the log": len(texts) - len(rest), "unsound": unsound}


def report_log(elsewhere: Elsewhere, pattern: Path, folder: Path, *, rounds: int, seed: int) -> None:
    found = [
        result
        for number in range(rounds)
        if (result := elsewhere.run("log", damage_log, str(pattern), str(folder), seed * 1000 + number))
    ]
    print(
        f"a bit of the write-ahead log: found {sum(item['found'] for item in found)}/{len(found)}, contexts saved "
        f"{min(item['share'] for item in found):.4f} at worst, unsound {sum(item['unsound'] for item in found)}"
    )
    gone = elsewhere.run("log", delete_log, str(pattern), str(folder), seed)
    print(f"the write-ahead log deleted: {', '.join(f'{name} {count}' for name, count in (gone or {}).items())}")


def report_flips(elsewhere: Elsewhere, pattern: Path, folder: Path, *, count: int, seed: int) -> None:
    ends = Counter(
        elsewhere.run(f"flip {number}", flip, str(pattern), str(folder), seed * 100_000 + number)
        for number in range(count)
    )
    print(f"one flipped bit, {count} times: {', '.join(f'{end} {number}' for end, number in ends.most_common())}")


def report_fuzz(elsewhere: Elsewhere, pattern: Path, folder: Path, *, count: int, seed: int) -> None:
    ends: Counter[str] = Counter()
    for number in range(count):
        result = elsewhere.run(f"mutation {number}", damage.fuzz, str(pattern), str(folder), seed * 100_000 + number)
        for name in ("check", "repair", "use") if result else ():
            ends[
                f"{name}: {'an error of ours' if 'Lab' in result[name] or 'NewerSchema' in result[name] else 'a result'}"
            ] += 1
    print(f"{count} mutations: {', '.join(f'{end} {number}' for end, number in sorted(ends.items()))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"seed": 0, "rounds": 5, "flips": 500, "mutations": 1000, "contexts": 1500}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    started = time.perf_counter()
    elsewhere = Elsewhere()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for sub in ("work", "small", "fuzzed"):
            (folder / sub).mkdir()
        make_lab(folder / "pattern.db", contexts=arguments.contexts)
        size = (folder / "pattern.db").stat().st_size
        print(f"a lab of {arguments.contexts:,} contexts, {size / 1e6:.1f} MB, seed {arguments.seed}")
        report_kinds(elsewhere, folder / "pattern.db", folder / "work", rounds=arguments.rounds, seed=arguments.seed)
        small = folder / "small" / "pattern.db"
        make_lab(small, contexts=60)
        report_flips(elsewhere, small, folder / "work", count=arguments.flips, seed=arguments.seed)
        with al.open(small, embedding_model=MODEL, synchronous="OFF") as lab:
            for number in range(30):
                lab.store_context(f"Only in the log {number}: {whole_lab.text(number + 900)}")
            for ending in ("", "-wal"):
                shutil.copy(f"{small}{ending}", f"{folder}/left.db{ending}")
        report_log(elsewhere, folder / "left.db", folder / "work", rounds=4 * arguments.rounds, seed=arguments.seed)
        report_fuzz(elsewhere, folder / "left.db", folder / "fuzzed", count=arguments.mutations, seed=arguments.seed)
    elsewhere.close()
    print("trouble:", "; ".join(elsewhere.trouble) or "none")
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
