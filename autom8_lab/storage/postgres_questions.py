"""A question in progress: its connection serves the questions within it, and its stamp what is remembered in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from .postgres_driver import Connection


@dataclass(eq=False)
class Question:
    """What somebody is reading, and on which connection."""

    owner: Any
    connection: Connection
    _stamp: str | None = None

    @property
    def stamp(self) -> str:
        """The state of the database when it was first asked for in this question."""
        if self._stamp is None:
            self._stamp = stamp_of(self.connection)
        return self._stamp


_current: ContextVar[Question | None] = ContextVar("autom8_lab_postgres_question", default=None)


def question_of(owner: Any) -> Question | None:
    """Return the question that the caller is in the middle of, None where it asks anew."""
    question = _current.get()
    return question if question is not None and question.owner is owner else None


@contextmanager
def asking(owner: Any, connection: Connection) -> Iterator[None]:
    """Make the block one question."""
    token = _current.set(Question(owner, connection))
    try:
        yield
    finally:
        _current.reset(token)


def stamp_of(connection: Connection) -> str:
    """Return the server's snapshot: which transactions are over. Where it is the same, so is everything else."""
    return str(connection.execute("SELECT pg_current_snapshot()::text").fetchall()[0][0])
