"""Who is at work: the agent in whose name a block searches, reads, calls and decides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .validation import name_value

_acting: ContextVar[str | None] = ContextVar("autom8_lab_agent", default=None)


@contextmanager
def acting_as(agent: str) -> Iterator[str]:
    """Let a block search, read, call and decide in an agent's name, in every lab: many agents may share one.

    It follows threads that are started with the block's context and asyncio tasks, as `asyncio.to_thread` and
    `al.aio` do. Outside of such a block the setting `agent` holds; an `agent` that a verb is given comes before both.

    >>> with acting_as("planner"):
    ...     hits = lab.search("what did we decide?")
    >>> lab.searches_df().loc[0, "agent"]
    'planner'
    """
    token = _acting.set(name_value(agent, "agent"))
    try:
        yield agent
    finally:
        _acting.reset(token)


def acting_agent(configured: str | None) -> str | None:
    """Return the agent of the block that the caller is in, else the configured one."""
    return _acting.get() or configured
