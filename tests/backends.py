"""The back ends that the contract and the public interface are tested on, and places for labs on each.

AUTOM8_LAB_TEST_BACKENDS names them, "sqlite,postgres" where it says nothing. One that is asked for and missing is a
failure: the server comes with the extra `test`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

from postgres_server import PostgresServer

BACKENDS = tuple(os.environ.get("AUTOM8_LAB_TEST_BACKENDS", "sqlite,postgres").split(","))
TEMPLATE = "empty_lab"
_numbers = count(1)
if unknown := set(BACKENDS) - {"sqlite", "postgres"}:
    raise ValueError(f"AUTOM8_LAB_TEST_BACKENDS names {', '.join(sorted(unknown))}: there are sqlite and postgres")


@functools.cache
def server() -> PostgresServer:
    """Return the session's server, with an empty lab for others to be copied from; `stop_server` ends it."""
    import autom8_lab as al

    started = PostgresServer().start()
    started.execute(f"CREATE DATABASE {TEMPLATE}")
    al.run_migrations(started.address(TEMPLATE))
    return started


def stop_server() -> None:
    """Stop the session's server, if one was started."""
    if server.cache_info().currsize:
        server().close()
        server.cache_clear()


_empty: list[str] = []  # databases that were used and emptied: to make and to drop one takes longer


@contextmanager
def used_database() -> Iterator[str]:
    """Yield the name of a database that is an empty lab, and that others use after it was emptied."""
    name = _empty.pop() if _empty else _create(TEMPLATE)
    yield name
    server().execute(EMPTYING, database=name)
    _empty.append(name)


EMPTYING = """
    DO $$ DECLARE name text; BEGIN
        SET LOCAL lock_timeout = '5s';
        FOR name IN SELECT c.relname FROM pg_class c WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
            AND c.relnamespace = 'public'::regnamespace AND c.relname <> 'autom8_migrations'
            ORDER BY c.relname IN ('chunk_deletions', 'text_changes')  -- which triggers fill
        LOOP EXECUTE 'DELETE FROM ' || name; END LOOP;
        FOR name IN SELECT sequencename FROM pg_sequences WHERE schemaname = 'public'
        LOOP PERFORM setval(name, 1, false); END LOOP;
        FOR name IN SELECT indexname FROM pg_indexes WHERE indexname LIKE 'hnsw%'
        LOOP EXECUTE 'DROP INDEX ' || name; END LOOP;
    END $$
"""


def _create(template: str) -> str:
    name = f"lab_{next(_numbers)}"
    server().execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return name


@contextmanager
def database(*, template: str = TEMPLATE) -> Iterator[str]:
    """Yield the name of a database of its own, an empty lab unless another template is given."""
    name = _create(template)
    try:
        yield name
    finally:
        server().execute(f"DROP DATABASE {name} WITH (FORCE)")


class Places:
    """Gives a lab's address by a name: a file in a folder, memory, or a database. The same name is the same place."""

    def __init__(self, backend: str, folder: Path) -> None:
        self.backend = backend
        self._folder = folder
        self._known: dict[str, str] = {}
        self._stack = ExitStack()

    def __call__(self, name: str = "lab.db") -> str:
        """Return the address of that name."""
        if self.backend == "memory":
            return ":memory:"
        if self.backend == "sqlite":
            return str(self._folder / name)
        if name not in self._known:
            self._known[name] = server().address(self._stack.enter_context(used_database()))
        return self._known[name]

    def close(self) -> None:
        """Drop the databases."""
        self._stack.close()
