"""What a process does before it is forked, and what its child must not take over from it."""

from __future__ import annotations

import os
import threading
import weakref


class Forkable:
    """Something that has to know of a fork; it is told from `follow_forks(self)` on, for as long as it lives."""

    def before_fork(self) -> None:
        """Come to rest."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Begin anew: locks may be held by threads that are not here, and unfinished work is the parent's."""


process = os.getpid()  # kept, because asking for it is a system call
_locks: weakref.WeakSet[threading.Lock] = weakref.WeakSet()
_members: weakref.WeakSet[Forkable] = weakref.WeakSet()
_at_rest: list[Forkable] = []
_lock = threading.RLock()


def follow_forks(member: Forkable) -> None:
    """Tell this object of every fork."""
    with _lock:
        _members.add(member)


def new_lock() -> threading.Lock:
    """Return a lock that is free in a forked child, whoever held it in the parent."""
    made = threading.Lock()
    _locks.add(made)
    return made


def _before() -> None:
    _lock.acquire()
    for member in list(_members):
        _at_rest.append(member)
        member.before_fork()


def _in_parent() -> None:
    while _at_rest:
        _at_rest.pop().after_fork_in_parent()
    _lock.release()


def _in_child() -> None:
    global _lock, process
    _lock, process = threading.RLock(), os.getpid()
    for held in list(_locks):
        held._at_fork_reinit()  # type: ignore[attr-defined]
    while _at_rest:
        _at_rest.pop().after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
