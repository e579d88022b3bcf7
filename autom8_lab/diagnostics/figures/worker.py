"""A process of its own that writes and reads a lab's file when it is told to: `python -m …figures.worker`.

A line of JSON in, a line of JSON out. The first line says what to prepare; each other who works, the lab or the bare
statements, and in which round.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TextIO

from ...embedding.chunking import text_hash
from ...storage.bare import BareContext, BareFile
from .material import PreparedEncoder, few_vectors, plain_lab, texts

OURS, BARE = "ours", "bare"


@dataclass(frozen=True)
class Job:
    """What one of several workers has to do: in each round `operations`, every second one a read.

    `paths` has the file of each who works; `known` are the ids to read.
    """

    number: int
    paths: dict[str, str]
    operations: int
    rounds: int
    dimensions: int
    seed: int
    known: Sequence[str]
    synchronous: str = "FULL"

    @property
    def stores(self) -> int:
        """How many of a round's operations store."""
        return (self.operations + 1) // 2

    def texts(self) -> list[str]:
        """Return what is stored, in all rounds; each text begins with a word that no other has."""
        drawn = texts(self.stores * self.rounds, seed=self.seed * 1_009 + self.number)
        return [f"unique{self.seed}x{self.number}x{place} {text}" for place, text in enumerate(drawn)]

    def context_id(self, who: str, place: int) -> str:
        """Return the id under which a text is stored."""
        return f"{who}-{self.number}-{place}"


class Worker:
    """Stores one context, reads another, and so on: by a lab, or by bare statements on another file."""

    def __init__(self, job: Job, stack: ExitStack) -> None:
        self._job, self._texts = job, job.texts()
        self._draw = Random(job.seed * 1_009 + job.number)
        encoder = PreparedEncoder(few_vectors(job.dimensions, seed=job.seed))
        self._verbs: dict[str, tuple[Callable[[int], object], Callable[[str], object]]] = {}
        if OURS in job.paths:
            lab = stack.enter_context(plain_lab(job.paths[OURS], encoder=encoder, synchronous=job.synchronous))
            self._verbs[OURS] = (
                lambda place: lab.store_context(self._texts[place], context_id=job.context_id(OURS, place)),
                lab.get_context,
            )
        if BARE in job.paths:
            rows, bare = (
                _bare_rows(job, encoder),
                stack.enter_context(closing(BareFile(job.paths[BARE], synchronous=job.synchronous))),
            )
            self._verbs[BARE] = (lambda place: bare.store(rows[place]), bare.context)

    def run(self, who: str, turn: int) -> dict[str, Any]:
        """Do the operations of a round; return the hash of each text that was stored, by its id, and every error."""
        stored: dict[str, str] = {}
        errors: list[str] = []
        write, read = self._verbs[who]
        for step in range(self._job.operations):
            place = turn * self._job.stores + step // 2
            try:
                if step % 2:
                    read(self._draw.choice(self._job.known))
                else:
                    write(place)
                    stored[self._job.context_id(who, place)] = text_hash(self._texts[place])
            except Exception as exc:  # whatever it is, it is counted and shown
                errors.append(f"{type(exc).__name__}: {exc}")
        return {"stored": stored, "errors": errors}


def _bare_rows(job: Job, encoder: PreparedEncoder) -> list[BareContext]:
    """Return what the lab would store, made beforehand by a lab of its own."""
    rows = [{"context_id": job.context_id(BARE, place), "content": text} for place, text in enumerate(job.texts())]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "donor.db"
        with plain_lab(path, encoder=encoder, synchronous="OFF") as donor:
            donor.store_contexts(rows, progress=False)
        with closing(BareFile(path)) as made:
            return made.contexts()


def main(lines: TextIO, answers: TextIO) -> None:
    """Prepare as the first line says, and answer every other line when its round is done."""
    with ExitStack() as stack:
        worker = Worker(Job(**json.loads(next(lines))), stack)
        print("ready", file=answers, flush=True)
        for line in lines:
            print(json.dumps(worker.run(**json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.stdin, sys.stdout)
