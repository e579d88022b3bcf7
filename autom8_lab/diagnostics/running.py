"""Running the self-test."""

from __future__ import annotations

import os
import platform
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidValue, LabWarning, did_you_mean
from ..indexing import progress_bar
from ..validation import names_value
from . import accounts, contexts, files, loads, vectors  # noqa: F401  (each adds its checks)
from .report import DatabaseTestReport
from .workbench import CHECKS, Check, CheckFailed, Workbench, new_folder

if TYPE_CHECKING:
    from ..embedding import Encoder


def run_database_tests(
    path: str | os.PathLike[str] | None = None,
    *,
    only: str | Iterable[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
    encoder: Encoder | None = None,
    progress: bool | None = None,
) -> DatabaseTestReport:
    """Try everything a lab does in this installation, on files of its own, and return what works and what does not.

    Contexts, text search, vectors by each engine, the model, ledger and decisions, schema, migrations, health,
    configuration, backup, transactions, threads, processes and coroutines, error conditions, and a short benchmark:
    some ten seconds. With the `path` of a lab, a copy of it is tried too, with its data, indexes and triggers; the lab
    itself is only read. `only` names groups of checks; `folder` is where the files are made (a disk to be tried, the
    system's temporary folder if not given) and removed again. `encoder` takes the place of the configured model.

    A check that fails says why and stops nothing. Raises `InvalidValue` for an unknown group.

    >>> report = run_database_tests(only=["contexts", "errors"])
    >>> report["test_summary"]["success_rate"]
    100.0
    """
    chosen = _chosen(only)
    with new_folder("autom8-lab-test-", folder) as name:
        bench = Workbench(Path(name), encoder)
        results = [_copied(bench, path)] if path is not None else []
        try:
            with progress_bar(len(chosen), "checks", progress) as bar:
                for item in chosen:
                    results.append(_result(item, bench))
                    bar.update(1)
        finally:
            bench.close()
        return DatabaseTestReport(results, bench.rates, _environment())


def _chosen(only: str | Iterable[str] | None) -> list[Check]:
    if only is None:
        return list(CHECKS)
    groups = {item.group for item in CHECKS}
    wanted = names_value(only if isinstance(only, str) or not isinstance(only, Iterable) else list(only), "only")
    for name in wanted:
        if name not in groups:
            raise InvalidValue(f"no group of checks {name!r}{did_you_mean(str(name), groups)}")
    return [item for item in CHECKS if item.group in wanted]


def _copied(bench: Workbench, path: str | os.PathLike[str]) -> dict[str, Any]:
    def copy(bench: Workbench) -> None:
        from ..config import LabConfig
        from ..lab import Lab

        with Lab(LabConfig.load(db_path=path, read_only=True), encoder=bench.encoder) as lab:
            lab.backup(bench.folder / "copy.db", progress=False)
        bench.copy = bench.folder / "copy.db"

    return _result(Check("lab", "the lab is sound and can be copied", copy), bench)


def _result(item: Check, bench: Workbench) -> dict[str, Any]:
    started, problem = time.perf_counter(), None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LabWarning)  # a check looks at what comes of it
            item.run(bench)
    except CheckFailed as failure:
        problem = str(failure)
    except Exception as error:  # whatever else goes wrong is what a self-test is there to tell
        problem = f"{type(error).__name__}: {error}"
    seconds = round(time.perf_counter() - started, 4)
    outcome = "passed" if problem is None else "failed"
    return {"group": item.group, "check": item.name, "outcome": outcome, "seconds": seconds, "problem": problem}


def _environment() -> dict[str, str]:
    from sqlite_utils.utils import sqlite3

    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "driver": sqlite3.__name__,
        "sqlite": sqlite3.sqlite_version,
        "sqlite_utils": _version("sqlite-utils"),
        "sqlite_vec": _version("sqlite-vec"),
        "autom8_lab": _version("autom8_lab"),
    }


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
