"""Imports point down the floors, SQL stays in storage, and no verb bears a module's name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import autom8_lab as al

PACKAGE = Path(al.__file__).parent
# A file imports only from floors below its own; files of one folder count as one room.
FLOORS = [
    {
        "errors",
        "records",
        "config",
        "addresses",
        "plain_yaml",
        "validation",
        "forking",
        "leaks",
        "async_work",
        "collecting",
    },
    {"agents", "price_tables", "recommendation"},
    {"embedding", "vectors", "frames", "pricing", "statistics"},
    {"storage"},
    {"indexing", "drafts", "excerpts", "entries"},
    {"contexts", "ledger", "tracking", "retrieval", "access", "applied", "judgments", "care"},
    {"storing", "backups", "repairs", "exchange"},
    {"analysis", "tuning", "importers", "plots"},
    {"verbs"},
    {"lab"},
    {"demo", "setup"},
    {"aio"},
    {"mockdata"},
    {"diagnostics"},
    {"commands"},
    {"surface"},
    {"__init__", "__main__", "cli"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports_of(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the rooms of this package that a file imports, with the line."""
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            if node.level < depth:
                continue  # a neighbour in the same room
            for name in [node.module] if node.module else [alias.name for alias in node.names]:
                yield name.split(".")[0], node.lineno
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert not any(name.split(".")[0] == "autom8_lab" for name in names), f"{path}: import relatively"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down_the_floors(path: Path) -> None:
    floor = FLOOR_OF[room_of(path)]
    for room, line in imports_of(path):
        if (room_of(path), room) in {
            ("cli", "__version__"),
            ("__main__", "cli"),
            ("cli", "demo"),
            ("diagnostics", "__version__"),
            ("config", "errors"),
        }:
            continue
        allowed = FLOOR_OF[room] < floor or (
            floor == 0 and room in {"addresses", "errors", "forking", "plain_yaml", "records", "validation"}
        )
        assert allowed, f"{path.name}:{line} imports {room}, which is not below it"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_sql_stays_in_storage(path: Path) -> None:
    if room_of(path) == "storage":
        pytest.skip("the floor where SQL lives")
    sql = re.compile(r"\b(SELECT\s.+\sFROM|INSERT\s+INTO|UPDATE\s.+\sSET|DELETE\s+FROM|PRAGMA)\b", re.DOTALL)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not sql.search(node.value), f"{path.name}:{node.lineno} speaks SQL"


def test_no_verb_bears_a_modules_name() -> None:
    modules = {room_of(path) for path in MODULES}
    assert not modules & {name for name in al.__all__ if callable(getattr(al, name))}


def test_modules_and_functions_stay_small() -> None:
    for path in MODULES:
        if path.name in {"migrations.py", "aio.py"}:
            continue  # lists: of all tables, and of all verbs
        source = path.read_text(encoding="utf-8")
        assert source.count("\n") <= 450, path
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                assert node.end_lineno - node.lineno < 60, f"{path.name}:{node.lineno} {node.name}"
