"""Several processes at one file, told by this one what to do and when."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from ...errors import LabError
from .worker import Job

ROOT = Path(__file__).parents[3]
KEPT = {"AUTOM8_CACHE_DIR"}


class Outcome(NamedTuple):
    """What a round came to: its seconds, the hash of each stored text by id, and every error."""

    seconds: float
    stored: dict[str, str]
    errors: list[str]


def clean_environment() -> dict[str, str]:
    """Return the environment for a process that finds this package, without settings of a lab."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("AUTOM8_") or name in KEPT}
    paths = [str(ROOT), *filter(None, [given.get("PYTHONPATH")])]
    return {**given, "PYTHONPATH": os.pathsep.join(paths)}


class Crew:
    """Processes that have one job each; a `with` block starts and ends them.

    Subprocesses, for multiprocessing would run the caller's script again in each.
    """

    def __init__(self, jobs: list[Job]) -> None:
        self._jobs = jobs
        self._processes: list[subprocess.Popen[str]] = []
        self._stack = ExitStack()

    def __enter__(self) -> Crew:
        self._complaints = self._stack.enter_context(tempfile.TemporaryFile("w+"))
        command = [sys.executable, "-m", f"{__package__}.worker"]
        try:
            for job in self._jobs:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._complaints,
                    text=True,
                    encoding="utf-8",
                    env=clean_environment(),
                )
                self._processes.append(process)
                self._tell(process, asdict(job))
            for process in self._processes:
                self._answer(process)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def run(self, who: str, turn: int) -> Outcome:
        """Have all work at once, and return when the last is done."""
        started = time.perf_counter()
        for process in self._processes:
            self._tell(process, {"who": who, "turn": turn})
        answers = [json.loads(self._answer(process)) for process in self._processes]
        seconds = time.perf_counter() - started
        stored = {name: digest for answer in answers for name, digest in answer["stored"].items()}
        return Outcome(seconds, stored, [error for answer in answers for error in answer["errors"]])

    @staticmethod
    def _tell(process: subprocess.Popen[str], message: Mapping[str, Any]) -> None:
        assert process.stdin is not None
        process.stdin.write(json.dumps(message) + "\n")
        process.stdin.flush()

    def _answer(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            self._complaints.seek(0)
            raise LabError(f"a process of the benchmark ended too early: {self._complaints.read()[-2_000:]}")
        return line

    def _end(self) -> None:
        for process in self._processes:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._stack.close()
