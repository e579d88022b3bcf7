"""Work that is killed, crowded or left without room, and what has to be true afterwards; for benchmarks/faults.py too."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import whole_lab

import autom8_lab as al
from autom8_lab.lab import Lab

MODEL = "hash-64"
WRITERS = 3
BEFORE_LAST = "m010_text_changes"  # the steps after it make tables that nothing here is in
processes = multiprocessing.get_context("forkserver")


def opened(path: Path, **settings: Any) -> Lab:
    return al.open(path, embedding_model=MODEL, **settings)


def modules() -> list[str]:
    """Use a lab, and return the modules that this has loaded, for a process that others are forked from."""
    with opened(Path(":memory:")) as lab:
        lab.store_context("A number that all share.", context_id="counter", metadata={"n": 0})
        for kind in ("store", "group", "count"):
            perform(lab, kind, kind, "harbour")
        lab.search("harbour")
        lab.ledger_df()
        lab.check()
    ours = (
        "autom8_lab",
        "numpy",
        "pandas",
        "sqlite_utils",
        "sqlite_vec",
        "pydantic",
        "genai_prices",
        "tenacity",
        "fault_work",
    )
    return [name for name in sys.modules if name.startswith(ours) and "onnx" not in name]


# Killed


class Journal:
    """What one process means to do, and what it was told is done, in a file that outlives it."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)

    def note(self, **values: Any) -> None:
        os.write(self._handle, json.dumps(values).encode() + b"\n")


def write_until_killed(path: Path, journal: Path, name: str, seed: int, synchronous: str) -> None:
    """Store, change, delete, count, decide and group, each noted before and after, for ever."""
    draw, notes, mine = random.Random(seed), Journal(journal), list[str]()
    with opened(path, synchronous=synchronous) as lab:
        for number in range(1_000_000):
            tag = f"{name}-{number}"
            kinds = ["store", "usage", "decision", "group", "count", *(["update", "delete"] if mine else [])]
            kind, text = draw.choice(kinds), f"{tag} {whole_lab.text(draw.randrange(10_000))}"
            target = draw.choice(mine) if kind in ("update", "delete") else tag
            notes.note(kind=kind, tag=target, text=text)
            perform(lab, kind, target, text)
            notes.note(done=True)
            if kind in ("store", "group"):
                mine.append(target)
            if kind == "delete":
                mine.remove(target)


def perform(lab: Lab, kind: str, tag: str, text: str) -> None:
    """Do one thing."""
    if kind == "store":
        lab.store_context(text, context_id=tag)
    elif kind == "update":
        lab.update_context(tag, content=text)
    elif kind == "delete":
        lab.delete_context(tag)
    elif kind == "usage":
        lab.record_usage("m", input_tokens=len(text), source="faults", source_id=tag)
    elif kind == "decision":
        lab.record_decision("route", summary=tag, chosen="m")
    elif kind == "count":
        increase(lab, "counter")
    else:
        with lab.transaction():
            for part in ("store", "usage", "decision"):
                perform(lab, part, tag, text)


def increase(lab: Lab, name: str) -> None:
    """Add one to a number that all share: read and written in one transaction, so that none is lost."""
    with lab.transaction():
        lab.update_context(name, metadata={"n": lab.get_context(name).metadata["n"] + 1})


def back_up_until_killed(path: Path, journal: Path, folder: Path) -> None:
    """Copy the lab again and again, noting each copy that counts."""
    notes = Journal(journal)
    with opened(path) as lab:
        while True:
            notes.note(backup=lab.backup(folder, keep=3)["path"])


@dataclass
class Expected:
    """What has to be in the file: what was acknowledged, and of what was under way all of it or nothing."""

    texts: dict[str, str] = field(default_factory=dict)
    usages: set[str] = field(default_factory=set)
    decisions: set[str] = field(default_factory=set)
    count: int = 0
    acknowledged: Counter[str] = field(default_factory=Counter)

    def happened(self, kind: str, tag: str, text: str) -> None:
        if kind in ("store", "update", "group"):
            self.texts[tag] = text
        if kind == "delete":
            del self.texts[tag]
        if kind in ("usage", "group"):
            self.usages.add(tag)
        if kind in ("decision", "group"):
            self.decisions.add(tag)
        self.count += kind == "count"

    def read(self, journal: Path) -> Iterator[dict[str, str]]:
        """Take over what a journal says is done; yield what was under way when its process died."""
        lines = journal.read_text().splitlines() if journal.exists() else []
        notes = [json.loads(line) for line in lines]
        for note, after in zip(notes, [*notes[1:], {}], strict=False):
            if "kind" in note and "done" in after:
                self.happened(**note)
                self.acknowledged[note["kind"]] += 1
            elif "kind" in note:
                yield note
            elif "backup" in note:
                self.acknowledged["backup"] += 1

    def differences(self, lab: Lab, under_way: list[dict[str, str]]) -> list[str]:
        """Return what in a lab is not as it has to be."""
        texts = {item.id: item.content for item in lab.list_contexts()}
        count = lab.get_context("counter").metadata["n"]
        del texts["counter"]
        usages = set(lab.ledger_df(source="faults")["source_id"])
        decisions = set(lab.decisions_df()["summary"])
        for note in under_way:
            kind, tag = note["kind"], note["tag"]
            signs = {
                "store": texts.get(tag) == note["text"],
                "update": texts.get(tag) == note["text"],
                "delete": tag not in texts,
                "group": tag in texts or tag in usages or tag in decisions,
                "usage": tag in usages,
                "decision": tag in decisions,
                "count": count > self.count,
            }
            if signs[kind]:
                self.happened(**note)
        pairs = [
            ("texts", texts, self.texts),
            ("usages", usages, self.usages),
            ("decisions", decisions, self.decisions),
        ]
        wrong = [f"{name}: {odd(found, wanted)}" for name, found, wanted in pairs if found != wanted]
        return wrong + ([f"the counter is {count}, not {self.count}"] if count != self.count else [])


def odd(found: Any, wanted: Any) -> str:
    missing, more = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    return f"missing {missing[:3]}, not acknowledged {more[:3]}, else changed"


def new_lab_to_kill(path: Path, synchronous: str) -> None:
    with opened(path, synchronous=synchronous) as lab:
        lab.store_context("A number that all share.", context_id="counter", metadata={"n": 0})


def kill_round(
    path: Path, expected: Expected, *, number: int, seed: int, synchronous: str, longest_seconds: float = 1.2
) -> list[str]:
    """Let several processes write, migrate and back up one file, kill them, and return what is wrong afterwards."""
    draw = random.Random(f"{seed}-{number}")
    backups = path.parent / "backups"
    al.run_migrations(path, to=BEFORE_LAST)  # the processes bring it to the newest version, all at once
    journals = [path.parent / f"journal-{number}-{writer}" for writer in range(WRITERS + 1)]
    working = [
        processes.Process(
            target=write_until_killed,
            args=(path, journals[writer], f"{number}-{writer}", draw.randrange(2**31), synchronous),
        )
        for writer in range(WRITERS)
    ]
    working.append(processes.Process(target=back_up_until_killed, args=(path, journals[-1], backups)))
    for process in working:
        process.start()
    time.sleep(draw.uniform(0, longest_seconds))
    for process in draw.sample(working, len(working)):
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
    ended = []
    for process in working:
        process.join()
        ended.append(process.exitcode)
    under_way = [note for journal in journals for note in expected.read(journal)]
    wrong = [f"a process ended by itself, with {code}" for code in ended if code != -signal.SIGKILL]
    with opened(path, synchronous=synchronous) as lab:
        wrong += expected.differences(lab, under_way)
        # Killed between its commit frame and its announcement, a process leaves a transaction that nobody was told of;
        # the next writer begins over it, and what stands behind looks like the end of a damaged log.
        wrong += [f"check: {row}" for row in lab.check().values.tolist() if row[2] != "-wal"]
    newest = sorted(backups.glob("*.db"))[-1:] if backups.exists() else []
    return wrong + [f"backup: {row}" for copy in newest for row in al.check_file(copy).values.tolist()]


# Crowded


@dataclass
class Done:
    """What one process of a crowd did."""

    counts: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    milliseconds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, other: Done) -> None:
        self.counts += other.counts
        self.errors += other.errors
        for kind, times in other.milliseconds.items():
            self.milliseconds.setdefault(kind, []).extend(times)


COUNTERS = 5
MIX = ["count", "count", "store", "usage", "decision", "search", "search", "get", "list", "stats"]


def fill_for_crowd(path: Path) -> None:
    with opened(path) as lab:
        for number in range(COUNTERS):
            lab.store_context(f"Counter {number}.", context_id=f"counter-{number}", metadata={"n": 0})
        lab.store_contexts([whole_lab.text(number) for number in range(200)], progress=False)


def one_of_a_crowd(lab: Lab, seed: int, until: float) -> Done:
    """Do one thing after the other until the time is up."""
    draw, done = random.Random(seed), Done()
    while time.time() < until:
        kind, tag = draw.choice(MIX), f"{seed}-{sum(done.counts.values())}"
        started = time.perf_counter()
        try:
            if kind == "count":
                name = f"counter-{draw.randrange(COUNTERS)}"
                increase(lab, name)
                done.counts[name] += 1
            elif kind == "search":
                lab.search(draw.choice(whole_lab.WORDS), k=5, method=draw.choice(["text", "semantic", "hybrid"]))
            elif kind == "get":
                lab.get_context(f"counter-{draw.randrange(COUNTERS)}")
            elif kind == "list":
                lab.list_contexts(limit=10)
            elif kind == "stats":
                lab.stats()
            else:
                perform(lab, kind, tag, f"{tag} {whole_lab.text(draw.randrange(10_000))}")
            done.counts[kind] += 1
        except Exception as exc:
            done.errors.append(f"{kind}: {type(exc).__name__}: {exc}")
        done.milliseconds.setdefault(kind, []).append((time.perf_counter() - started) * 1_000)
    return done


def crowd_in_a_process(path: Path, seed: int, threads: int, until: float, answers: Any) -> None:
    """Work in one process, by one thread or many that share a lab."""
    done = Done()
    try:
        with opened(path) as lab, ThreadPoolExecutor(threads) as workers:
            for found in workers.map(lambda number: one_of_a_crowd(lab, seed + number, until), range(threads)):
                done.add(found)
    except Exception as exc:
        done.errors.append(f"open or close: {type(exc).__name__}: {exc}")
    answers.put(done)


def crowd(path: Path, *, others: int, threads: int, seconds: float, seed: int) -> tuple[Done, list[str]]:
    """Let processes of one thread and one of many threads use a lab; return what they did, and what is wrong."""
    answers, done = processes.Queue(), Done()
    until = time.time() + seconds
    sizes = [1] * others + [threads]
    working = [
        processes.Process(target=crowd_in_a_process, args=(path, seed + 1_000 * number, size, until, answers))
        for number, size in enumerate(sizes)
    ]
    for process in working:
        process.start()
    for _ in working:
        done.add(answers.get(timeout=seconds + 120))
    for process in working:
        process.join()
    with opened(path) as lab:
        numbers = {
            f"counter-{number}": lab.get_context(f"counter-{number}").metadata["n"] for number in range(COUNTERS)
        }
        found = {
            "store": len(lab.list_contexts()) - COUNTERS - 200,
            "usage": len(lab.ledger_df()),
            "decision": len(lab.decisions_df()),
            **numbers,
        }
        wrong = [
            f"{name}: {there} there, {done.counts[name]} done"
            for name, there in found.items()
            if there != done.counts[name]
        ]
        wrong += [f"check: {row}" for row in lab.check().values.tolist()]
    return done, wrong


# Full


def fill_a_disk(folder: Path, *, seed: int = 0) -> dict[str, Any]:
    """Fill a small disk through a lab, free it, and go on; return figures and what is wrong."""
    draw, wrong, errors = random.Random(seed), [], Counter[str]()
    ballast, path = folder / "ballast", folder / "lab.db"
    ballast.write_bytes(bytes(2_500_000))
    kept: dict[str, str] = {}
    usages = 0

    def store(number: int, lab: Lab) -> None:
        text = f"{number} {whole_lab.text(draw.randrange(10_000), sentences=draw.choice([4, 60, 400]))}"
        kept[lab.store_context(text, context_id=f"n{number}")] = text

    with opened(path) as lab:
        for number in range(100_000):
            try:
                store(number, lab)
                lab.record_usage("m", input_tokens=number)
                usages += 1
            except al.LabError as exc:
                errors[type(exc).__name__] += 1
                if sum(errors.values()) >= 20:
                    break
        full_after = len(kept)
        for what, attempt in {
            "a backup": lambda: lab.backup(folder / "copy.db"),
            "an export": lambda: lab.export(folder / "copy.jsonl"),
        }.items():
            try:
                attempt()
                wrong.append(f"{what} went through on a full disk")
            except al.StorageFull:
                pass
        if left := sorted({item.name for item in folder.iterdir()} - {"ballast", "lab.db", "lab.db-wal", "lab.db-shm"}):
            wrong.append(f"left on the full disk: {left}")
        wrong += missing(lab, kept, "while it is full")
        lab.search("harbour tide", k=3)
        ballast.unlink()
        for number in range(100_000, 100_020):
            store(number, lab)
        wrong += missing(lab, kept, "after it was freed")
    with opened(path) as lab:
        wrong += missing(lab, kept, "opened again")
        if len(lab.ledger_df()) != usages:
            wrong.append(f"{len(lab.ledger_df())} of {usages} calls are there")
        wrong += [f"check: {row}" for row in lab.check().values.tolist()]
    return {"acknowledged": full_after, "errors": dict(errors), "after": len(kept) - full_after, "wrong": wrong}


def missing(lab: Lab, kept: dict[str, str], when: str) -> list[str]:
    found = {item.id: item.content for item in lab.list_contexts()}
    return [] if found == kept else [f"{when}: {odd(found, kept)}"]
