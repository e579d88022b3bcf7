"""What is to be said about a configuration on this machine and for this file: problems, and advice."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..addresses import is_address
from .settings import LabConfig
from .sources import PREFIX, strays

COLUMNS = {"setting": "str", "value": "str", "kind": "str", "advice": "str", "why": "str"}
PAGE_BYTES = 4_096
MEGABYTE, GIGABYTE = 1_000_000, 1_000_000_000
CGROUP_MEMORY = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class Machine:
    """What the machine gives; None where it does not tell."""

    cores: int
    memory_bytes: int | None
    disk_free_bytes: int | None


@dataclass(frozen=True)
class File:
    """What the lab's file and its engine are; the figures of a file that is not there are 0."""

    wal_reset_bug: str | None = None  # what to do about it, where this SQLite has it (sqlite.org/wal.html)
    extension_missing: str | None = None
    file_bytes: int = 0
    chunks: int = 0
    dimensions: int = 384
    log_entries: int = 0
    unused_contexts: int = 0
    embedding_model: str | None = None


class Remark(NamedTuple):
    """One problem or piece of advice."""

    setting: str
    kind: Literal["problem", "advice"]
    advice: str
    why: str


def this_machine(path: str) -> Machine:
    """Return what this machine gives a lab at `path`."""
    folder = Path(path if path != ":memory:" else ".").absolute().parent
    disk = None
    with suppress(OSError):
        disk = shutil.disk_usage(folder).free
    return Machine(cores=_cores(), memory_bytes=_memory(), disk_free_bytes=disk)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> int | None:
    limits = []
    with suppress(AttributeError, ValueError, OSError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for name in CGROUP_MEMORY:
        with suppress(OSError, ValueError):
            limits.append(int(Path(name).read_text()))
    return min(limits, default=None)


def remarks(config: LabConfig, machine: Machine, file: File) -> list[dict[str, Any]]:
    """Return a row of `COLUMNS` per remark, problems first, in the order of the settings."""
    order = list(LabConfig.model_fields)
    checks = [check for check in CHECKS if not (is_address(config.db_path) and check in OF_FILES)]
    found = [remark for check in checks for remark in check(config, machine, file)]
    found.sort(key=lambda remark: (remark.kind == "advice", order.index(remark.setting), remark.advice))
    rows = [{**remark._asdict(), "value": str(getattr(config, remark.setting))} for remark in found]
    # Without their values: they may be keys of other services.
    why = f"variables that begin with {PREFIX} are read as settings; this one is none and changes nothing here"
    stray = {"kind": "advice", "advice": "check its name", "why": why}
    return rows + [{"setting": variable, **stray} for variable in strays(config.other_variables())]


def _durability(config: LabConfig, machine: Machine, file: File) -> Iterator[Remark]:
    if config.synchronous == "OFF" and config.db_path != ":memory:":
        why = "with OFF a power cut can damage the whole file, not only lose the last writes"
        yield Remark("synchronous", "problem", "use NORMAL or FULL for a file that matters", why)
    if file.wal_reset_bug and config.db_path != ":memory:":
        why = "this SQLite can damage a file that two connections write and checkpoint at one instant"
        yield Remark("db_path", "problem", file.wal_reset_bug, why)


def _place(config: LabConfig, machine: Machine, file: File) -> Iterator[Remark]:
    if config.db_path == ":memory:":
        if _by_chance(config, "db_path"):
            why = "memory is gone when the lab is closed"
            yield Remark("db_path", "advice", "give a path to keep what is stored", why)
        return
    folder = Path(config.db_path).absolute().parent
    if not folder.is_dir():
        yield Remark("db_path", "problem", f"create the folder {folder}", "a lab's file needs a folder")
    elif not config.read_only and not os.access(folder, os.W_OK):
        why = "SQLite keeps files beside the database while it is written to"
        yield Remark("db_path", "problem", f"give permission to write to {folder}, or set read_only", why)
    free = machine.disk_free_bytes
    needed = max(2 * file.file_bytes, 100 * MEGABYTE)
    if free is not None and free < needed:
        why = f"{free / MEGABYTE:,.0f} MB are free; a backup, or a WAL as large as the file, takes that much again"
        yield Remark("db_path", "problem", f"make {needed / MEGABYTE:,.0f} MB free, or move the file", why)


def _memory_use(config: LabConfig, machine: Machine, file: File) -> Iterator[Remark]:
    if machine.memory_bytes is None:
        return
    cache = config.cache_size * PAGE_BYTES * (config.max_connections + 1)
    if cache > machine.memory_bytes / 2:
        most = max(1, machine.memory_bytes // 4 // PAGE_BYTES // (config.max_connections + 1))
        why = (
            f"{config.max_connections + 1} connections may cache {cache / GIGABYTE:.1f} GB of this machine's "
            f"{machine.memory_bytes / GIGABYTE:.1f} GB"
        )
        yield Remark("cache_size", "problem", f"use at most {most}, or fewer max_connections", why)
    cached = config.cache_size * PAGE_BYTES
    if file.file_bytes > 4 * cached and 8 * cached * (config.max_connections + 1) < machine.memory_bytes:
        why = f"the file has {file.file_bytes / MEGABYTE:,.0f} MB, a connection caches {cached / MEGABYTE:,.0f} MB"
        yield Remark("cache_size", "advice", f"try {4 * config.cache_size}", why)


def _connections(config: LabConfig, machine: Machine, file: File) -> Iterator[Remark]:
    most = max(32, 8 * machine.cores)
    if config.max_connections > most:
        why = f"{machine.cores} cores cannot serve more readers at once; each connection keeps its own cache"
        yield Remark("max_connections", "advice", f"use at most {most}", why)
    if config.busy_timeout_ms > config.deadline_seconds * 1_000:
        why = f"one try may wait {config.busy_timeout_ms} ms, although the call gives up after deadline_seconds"
        yield Remark("busy_timeout_ms", "problem", f"use at most {config.deadline_seconds * 1_000:.0f}", why)


def _vectors(config: LabConfig, machine: Machine, file: File) -> Iterator[Remark]:
    size = file.chunks * file.dimensions * 4
    if config.vector_engine == "sqlite-vec" and file.extension_missing:
        yield Remark("vector_engine", "problem", "use auto, or install sqlite-vec", file.extension_missing)
    if machine.memory_bytes and size > machine.memory_bytes / 4 and config.vector_engine == "exact":
        why = f"the vectors take {size / GIGABYTE:.1f} GB of {machine.memory_bytes / GIGABYTE:.1f} GB of memory"
        yield Remark("vector_engine", "problem", "use auto", why)
    if file.embedding_model and config.origin("embedding_model") != "default":
        from_file, wanted = file.embedding_model, config.embedding_model.removeprefix("sentence-transformers/")
        if wanted != from_file and not (wanted == "hash" and from_file == "hash-384"):
            why = f"the vectors in the file come from {from_file!r}, which goes on serving"
            yield Remark("embedding_model", "advice", "al.embed_contexts(model=…) changes to it", why)
    if config.embedding_model.startswith("hash") and _by_chance(config, "embedding_model"):
        why = "the hash encoder knows no meaning: it is for tests and demonstrations"
        yield Remark("embedding_model", "advice", "use a sentence-transformers model", why)


def _retention(config: LabConfig, machine: Machine, file: File) -> Iterator[Remark]:
    if config.access_log and config.access_log_days is None and file.log_entries > 100_000:
        why = f"the access log has {file.log_entries:,} entries and nothing removes any"
        yield Remark("access_log_days", "advice", "set it, and call cleanup(dry_run=False)", why)
    if config.auto_cleanup_days is None and file.unused_contexts > 10_000:
        why = f"{file.unused_contexts:,} contexts were neither changed nor shown for 90 days"
        yield Remark("auto_cleanup_days", "advice", "set it, and call cleanup(dry_run=False)", why)


def _by_chance(config: LabConfig, name: str) -> bool:
    # What the program, or the preset that it names, asks for is meant.
    return config.origin(name).partition(" ")[0] not in ("argument", "preset")


Check = Callable[[LabConfig, Machine, File], Iterator[Remark]]
OF_FILES: tuple[Check, ...] = (_durability, _place, _memory_use)  # a server has its own folder and memory
CHECKS: tuple[Check, ...] = (*OF_FILES, _connections, _vectors, _retention)
