"""A question in progress goes by the state of the file in which it began."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any


class Question:
    """Whose question it is, and the stamp of its beginning."""

    __slots__ = ("__weakref__", "owner", "stamp")

    def __init__(self, owner: object, stamp: Any) -> None:
        self.owner, self.stamp = owner, stamp


# Only its block keeps a question alive: one whose end was skipped, by Ctrl-C in the wrong instruction, is over all the same.
_asked: ContextVar[weakref.ref[Question] | None] = ContextVar("autom8_lab_asked", default=None)


def question_of(owner: object) -> Question | None:
    """Return the question that the caller is in the middle of, None where it asks anew."""
    reference = _asked.get()
    question = None if reference is None else reference()
    return question if question is not None and question.owner is owner else None


@contextmanager
def asking(owner: object, stamp: Any) -> Iterator[None]:
    """Make the block one question."""
    question = Question(owner, stamp)
    token = _asked.set(weakref.ref(question))
    try:
        yield
    finally:
        _asked.reset(token)
