"""Datasette and sqlite-utils open a lab's file, each in a process of its own: one SQLite library per process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlite_vec

import autom8_lab as al

SCRIPTS = Path(sys.executable).parent
TABLES = {"context_registry", "agent_decisions", "usage_ledger", "embeddings", "access_log"}
EXTENSION = ["--load-extension", sqlite_vec.loadable_path()]


def run(program: str, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, str(SCRIPTS / program), *arguments], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def datasette(path: Path, address: str, *options: str) -> Any:
    return json.loads(run("datasette", str(path), "--get", address, *options))


def fill(lab: al.Lab) -> None:
    lab.store_context("Foxes are quick.", context_id="fox", topic="animals")
    lab.store_context("Snails are slow.", context_id="snail", topic="animals")
    decision = lab.record_decision("route", chosen="gpt-4o-mini", context_ids=["fox"])
    lab.record_usage("gpt-4o-mini", input_tokens=10, output_tokens=5, decision_id=decision)
    assert lab.search("quick foxes")


@pytest.fixture(scope="module", params=["open", "closed"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A lab at which the tools look while it is open here, or after that."""
    path = tmp_path_factory.mktemp("tools") / "lab.db"
    with al.open(path, embedding_model="hash-16") as lab:
        fill(lab)
        if request.param == "closed":
            lab.close()
        yield path


def test_sqlite_utils_finds_the_tables_the_view_and_the_search(path: Path) -> None:
    counts = {row["table"]: row["count"] for row in json.loads(run("sqlite-utils", "tables", str(path), "--counts"))}
    assert counts.keys() >= TABLES
    assert (counts["context_registry"], counts["usage_ledger"]) == (2, 1)
    assert [row["view"] for row in json.loads(run("sqlite-utils", "views", str(path)))] == ["model_performance"]
    found = json.loads(run("sqlite-utils", "search", str(path), "context_registry", "foxes"))
    assert [row["id"] for row in found] == ["fox"]
    rows = json.loads(run("sqlite-utils", "query", str(path), "select model, calls from model_performance"))
    assert rows == [{"model": "gpt-4o-mini", "calls": 1}]
    assert "context_registry_fts" in run("sqlite-utils", "schema", str(path))


def test_datasette_finds_the_tables_the_view_and_the_search(path: Path) -> None:
    tables = {table["name"]: table for table in datasette(path, "/lab.json")["tables"]}
    assert tables.keys() >= TABLES
    assert (tables["context_registry"]["fts_table"], tables["context_registry"]["count"]) == ("context_registry_fts", 2)
    found = datasette(path, "/lab/context_registry.json?_search=foxes&_shape=array")
    assert [row["id"] for row in found] == ["fox"]
    performance = datasette(path, "/lab/model_performance.json?_shape=array")
    assert [(row["model"], row["calls"]) for row in performance] == [("gpt-4o-mini", 1)]
    assert "Foxes are quick." in run("datasette", str(path), "--get", "/lab/context_registry?_search=foxes")


def test_the_tools_open_a_file_with_a_vector_table_when_they_load_the_extension(tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    with al.open(path, embedding_model="hash-16", vector_engine="sqlite-vec") as lab:
        fill(lab)
        assert lab.search_df("foxes", method="semantic").attrs["engine"] == "sqlite-vec"
    counts = json.loads(run("sqlite-utils", "tables", str(path), "--counts", *EXTENSION))
    assert {"table": "vec_embeddings", "count": 2} in counts
    found = datasette(path, "/lab/context_registry.json?_search=foxes&_shape=array", *EXTENSION)
    assert [row["id"] for row in found] == ["fox"]
    assert "vec_embeddings" in {table["name"] for table in datasette(path, "/lab.json", *EXTENSION)["tables"]}


def test_the_tools_leave_the_file_sound_and_the_lab_at_work(path: Path) -> None:
    run("sqlite-utils", "rows", str(path), "context_registry")
    datasette(path, "/lab.json")
    assert al.check_file(path).empty
    with al.open(path, embedding_model="hash-16") as lab:
        lab.store_context("Hares are quicker.", context_id=f"hare {lab.stats()['contexts']}")
        assert lab.check().empty
