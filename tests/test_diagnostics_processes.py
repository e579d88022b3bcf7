"""Processes at one file: what is lost or fails is counted, and none of them outlives its work."""

from __future__ import annotations

import io
import json
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from autom8_lab.diagnostics.figures import processes, worker
from autom8_lab.diagnostics.figures.crew import Crew
from autom8_lab.diagnostics.figures.material import Bench, Sizes
from autom8_lab.diagnostics.figures.processes import (
    connections_figure,
    help_figure,
    lost,
    start_figure,
)
from autom8_lab.diagnostics.figures.worker import BARE, OURS, Job, Worker
from autom8_lab.embedding.chunking import text_hash
from autom8_lab.embedding.encoders import HashEncoder
from autom8_lab.errors import LabError
from autom8_lab.storage.bare import BareFile


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    sizes = Sizes(contexts=20, connections=(1,), operations=8, calls=2, repeats=1)
    return Bench(tmp_path, sizes, 0, HashEncoder(dimensions=16), is_model=False, synchronous="OFF")


def job_of(bench: Bench, *who: str, **more: Any) -> Job:
    paths = {}
    for name in who:
        with bench.lab(f"job-{name}") as lab:
            lab.store_context("It is known.", context_id="known")
            paths[name] = lab.config.db_path
    given = {"number": 3, "paths": paths, "operations": 5, "rounds": 2, "dimensions": 16, "seed": 0, "known": ["known"]}
    given["synchronous"] = "OFF"
    return Job(**{**given, **more})


def stored_in(path: str) -> dict[str, str]:
    with closing(BareFile(path)) as file:
        return dict(file.contents())


@pytest.mark.parametrize("who", [OURS, BARE])
def test_a_worker_stores_its_texts_and_says_which(bench: Bench, who: str) -> None:
    job = job_of(bench, OURS, BARE)
    with ExitStack() as stack:
        answers = [Worker(job, stack).run(who, turn) for turn in range(1)]
        answers.append(Worker(job, stack).run(who, 1))
    assert [answer["errors"] for answer in answers] == [[], []]
    stored = answers[0]["stored"] | answers[1]["stored"]
    assert list(stored) == [f"{who}-3-{place}" for place in range(6)]
    texts = dict(zip(stored, job.texts(), strict=True))
    assert stored == {name: text_hash(text) for name, text in texts.items()}
    assert stored_in(job.paths[who]) == {**texts, "known": "It is known."}


def test_a_worker_reads_between_its_stores(bench: Bench) -> None:
    job = job_of(bench, OURS)
    with ExitStack() as stack:
        Worker(job, stack).run(OURS, 0)
    with bench.lab("job-ours") as lab:
        assert lab.accesses_df("known")["kind"].tolist() == ["read", "read"]


def test_what_fails_is_an_error_and_not_stored(bench: Bench) -> None:
    job = job_of(bench, OURS, known=["nobody"])
    with bench.lab("job-ours") as lab:
        lab.store_context("Another text has this name.", context_id="ours-3-1")
    with ExitStack() as stack:
        answer = Worker(job, stack).run(OURS, 0)
    assert [error.split(":")[0] for error in answer["errors"]] == [
        "ContextNotFound",
        "ContextExists",
        "ContextNotFound",
    ]
    assert list(answer["stored"]) == ["ours-3-0", "ours-3-2"]


def test_a_worker_answers_line_by_line(bench: Bench) -> None:
    job, answers = job_of(bench, OURS), io.StringIO()
    messages = [asdict(job), {"who": OURS, "turn": 0}, {"who": OURS, "turn": 1}]
    worker.main(io.StringIO("".join(f"{json.dumps(message)}\n" for message in messages)), answers)
    ready, *rounds = answers.getvalue().splitlines()
    assert ready == "ready"
    assert [len(json.loads(line)["stored"]) for line in rounds] == [3, 3]


def test_no_two_workers_have_a_text_in_common(bench: Bench) -> None:
    texts = [text for number in range(3) for text in job_of(bench, number=number).texts()]
    assert len({text.split()[0] for text in texts}) == len(texts) == 18


def test_lost_is_what_is_not_there_with_its_text_and_its_vector(bench: Bench) -> None:
    with bench.lab("lost") as lab:
        stored = {name: text_hash(f"Text {name}.") for name in "abcd"}
        for name in stored:
            lab.store_context(f"Text {name}.", context_id=name)
        assert lost(lab.config.db_path, stored) == 0
        lab.delete_context("a")
        lab.update_context("b", content="It says something else.")
        lab._storage.delete("context_chunks", [])
        lab.store_context("Text c, with a vector.", context_id="e")
        assert lost(lab.config.db_path, {**stored, "e": text_hash("Text c, with a vector.")}) == 4


def test_several_processes_lose_nothing_and_their_operations_are_counted(bench: Bench) -> None:
    made = connections_figure(bench, 2)
    assert (made["what"], made["unit"]) == ("2 processes, store and get", "/s")
    assert (made["errors"], made["lost"], made["note"]) == (0, 0, None)
    for who in (OURS, BARE):
        own = [name for name in stored_in(str(bench.folder / f"connections-2-{who}.db")) if name.startswith(who)]
        assert len(own) == 2 * 2 * (bench.sizes.repeats + 1), "2 processes, 2 of 4 operations a store"


def test_the_figure_says_what_failed_and_what_was_lost(bench: Bench) -> None:
    job = job_of(bench, OURS, known=["nobody"])
    with Crew([job]) as crew:
        outcome = crew.run(OURS, 0)
    assert len(outcome.errors) == 2
    assert all(error.startswith("ContextNotFound") for error in outcome.errors)
    assert len(outcome.stored) == 3


def test_a_process_that_cannot_start_says_why(bench: Bench) -> None:
    with pytest.raises(LabError, match=r"ended too early[\s\S]*is a folder"):
        Crew([job_of(bench, paths={OURS: str(bench.folder)})]).__enter__()


def test_no_process_is_left_behind(bench: Bench) -> None:
    with Crew([job_of(bench, OURS, number=number) for number in range(2)]) as crew:
        processes = crew._processes
        assert [process.poll() for process in processes] == [None, None]
    assert [process.poll() for process in processes] == [0, 0]


def test_a_new_process_answers_without_torch(bench: Bench) -> None:
    made = start_figure(bench)
    assert (made["unit"], made["note"]) == ("ms", "torch is not loaded")
    assert made["against"] == "a new process, import pandas"
    assert made["figure"] > 50


def test_a_new_process_shows_the_help_of_the_command_line(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Store texts, files or rows as contexts." in processes._run(bench, processes.HELP)[1]
    programs = []
    monkeypatch.setattr(processes, "_run", lambda _, program: (programs.append(program), (0.25, ""))[1])
    made = help_figure(bench)
    assert (made["figure"], made["unit"], made["against"]) == (250, "ms", "a new process, import click")
    assert set(programs) == {processes.HELP, "import click"}
