"""docs/specification.md: every row's proof passed, and the specification's code, translated, runs as one program."""

from __future__ import annotations

import ast
import asyncio
import functools
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import autom8_lab as al
from autom8_lab.cli import ALL, main

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "specification.md").read_text(encoding="utf-8")
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split(" | "))
    for line in PAGE.splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| specification |"))
]
# What the specification lists, in its own words.
LISTED = """
SQLiteManager; SQLiteVectorManager; IntegratedSQLiteManager; ConnectionManager; MigrationManager; DatabaseSetup; ConfigSetup;
TestUtilities; get_sqlite_manager(); get_integrated_manager(); store_context(; search_context(; VectorSearchConfig;
semantic_search(; store_content(; search_content(; get_connection(); conn_manager.transaction(); run_migrations(;
get_migration_status(; setup_database(path); setup_database(config=; DatabaseSetupConfig;
setup_database_from_config(environment=; setup_database_from_config(config_path=; run_database_tests();
context_registry; agent_decisions; usage_ledger; model_performance; embeddings / vec_embeddings;
key db_path; key cache_size; key embedding_model; key embedding_dimensions; key similarity_threshold;
key max_connections; key auto_cleanup_days;
Automatic fallback to cosine similarity; Binary blob storage for vectors; In-memory similarity calculations;
Transparent operation - no API changes;
Connection failures with automatic retry; Transaction rollback on errors;
Graceful degradation when extensions unavailable; Detailed error logging and reporting;
Automatic database health checks; Corruption detection and recovery; Performance monitoring and alerting;
Connection pool statistics; Automatic retry with exponential backoff; Database corruption recovery;
Connection pool refresh; Fallback mode activation;
Schema integrity checking; Performance validation; Configuration validation; Health status reporting;
python -m autom8.storage.sqlite.database_setup; python -m autom8.storage.sqlite.migrations;
python -m autom8.storage.sqlite.test_utilities; python -m autom8.storage.sqlite.config_setup
"""


@functools.cache
def names_of_tests(name: str) -> set[str]:
    """The tests of a file that run anywhere: not those that need the public data sets."""
    tree = ast.parse((ROOT / "tests" / name).read_text(encoding="utf-8"))
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and "shared_data" not in {argument.arg for argument in node.args.args}
    }


def is_proven(row: tuple[str, ...], outcomes: dict[str, set[str]]) -> bool:
    """Whether the test of a row has passed, as far as it was seen: where only this file is run, nothing was."""
    seen = outcomes.get(f"tests/{row[2]}", {"passed"})
    return "passed" in seen and "failed" not in seen


def test_everything_that_the_specification_lists_has_a_row() -> None:
    names = [row[0] for row in ROWS]
    for listed in LISTED.replace("\n", " ").split(";"):
        assert any(listed.strip() in name for name in names), listed
    assert len(ROWS) == len(set(names)) > 130


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_proof_of_every_row_is_there_and_passed(row: tuple[str, ...], outcomes: dict[str, set[str]]) -> None:
    assert len(row) == 3, row
    assert all(row)
    name, _, test = row[2].partition("::")
    assert test in names_of_tests(name), row[2]
    assert is_proven(row, outcomes)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_names_of_every_row_are_those_of_the_lab(row: tuple[str, ...]) -> None:
    modules = {"al": al, "al.aio": al.aio, "al.LabConfig": al.LabConfig, "al.mockdata": al.mockdata}
    for owner, call in re.findall(r"(?<![\w.-])(?:(al(?:\.\w+)?)\.)?(\w+)\(", row[1]):
        where = modules[owner] if owner else al.Lab if hasattr(al.Lab, call) else al
        assert hasattr(where, call) or call == "execute", call
    for code in re.findall(r"`([a-z_]+)`", row[1]):
        known = {*al.__all__, *al.LabConfig.model_fields, *dir(al.Lab)}
        in_the_file = re.search(rf"\b{code}\b", (ROOT / "autom8_lab/storage/migrations.py").read_text(encoding="utf-8"))
        elsewhere = {
            "ttl",
            "config_path",
            "attrs",
            "problems",
            "advice",
            "applied",
            "pending",
            "vec_embeddings",
            "_sqlite_migrations",
        }
        assert code in known or in_the_file or code in elsewhere, code
    for command in re.findall(r"`autom8-lab (\w+)", row[1]):
        assert command in ALL


# The specification's code blocks, in its order; each comment is what stands there.


async def the_foundational_manager() -> None:
    # manager = await get_sqlite_manager()
    async with al.aio.open("./autom8.db") as manager:
        # await manager.store_context(context_id="example_001", content="Context about …", topic="performance", priority=10)
        await manager.store_context(
            "Context about database optimization...", context_id="example_001", topic="performance", priority=10
        )
        # results = await manager.search_context(query="database optimization", limit=5)
        results = await manager.search("database optimization", k=5)
        assert [(hit.context.id, hit.context.priority) for hit in results] == [("example_001", 10)]


async def the_vector_manager() -> None:
    # config = VectorSearchConfig(embedding_model="all-MiniLM-L6-v2", similarity_threshold=0.7)
    # vector_manager = SQLiteVectorManager("./autom8.db", config); await vector_manager.initialize()
    async with al.aio.open("./autom8.db", embedding_model="all-MiniLM-L6-v2", similarity_threshold=0.7) as manager:
        await manager.store_context("How contexts are managed.", context_id="managed")
        # results = await vector_manager.semantic_search(query="context management strategies", k=5)
        results = await manager.search("context management strategies", method="semantic", k=5)
        assert [hit.context.id for hit in results] == ["managed"]
        assert results[0].similarity >= 0.7


async def the_integrated_manager() -> None:
    # manager = await get_integrated_manager()
    async with al.aio.open("./autom8.db") as manager:
        # result = await manager.store_content(content_id="integrated_001", …, topic="context", generate_embedding=True)
        result = await manager.store_context(
            "Advanced context management techniques...", context_id="integrated_001", topic="context"
        )
        assert result == "integrated_001"
        assert (await manager.stats())["without_vectors"] == 0
        # results = await manager.search_content(query="context management", method="hybrid", k=10)
        results = await manager.search("context management", method="hybrid", k=10)
        assert results[0].context.id == "integrated_001"


async def the_connection_manager() -> None:
    # conn_manager = ConnectionManager("./autom8.db")
    async with al.aio.open("./autom8.db") as manager:
        # async with conn_manager.get_connection() as conn: await conn.execute("SELECT * FROM context_registry LIMIT 5")
        async with manager.connection() as connection:
            rows = await connection.execute("SELECT * FROM context_registry LIMIT 5")
            assert len(list(rows)) == 3
        # async with conn_manager.transaction() as conn: await conn.execute("INSERT INTO context_registry …")
        async with manager.transaction():
            await manager.store_context("Committed.", context_id="committed")
        with pytest.raises(RuntimeError):
            async with manager.transaction():
                await manager.store_context("Rolled back.", context_id="rolled back")
                raise RuntimeError
        found = {context.id for context in await manager.list_contexts()}
        assert found == {"example_001", "managed", "integrated_001", "committed"}


async def the_migrations() -> None:
    # success = await run_migrations("./autom8.db"); status = await get_migration_status("./autom8.db")
    success = await al.aio.run_migrations("./autom8.db")
    assert success["pending"] == []
    status = await al.aio.get_migration_status("./autom8.db")
    # print(f"Applied: {status['applied_count']}/{status['total_migrations']}")
    assert re.fullmatch(r"(\d+)/\1", f"{status['applied_count']}/{status['total_migrations']}")


async def the_setup() -> None:
    # success = await setup_database("./autom8.db")
    success = await al.aio.setup_database("./autom8.db")
    assert success["ready"], success["problems"]
    # config = DatabaseSetupConfig(db_path="./autom8.db", embedding_model="all-MiniLM-L6-v2", cache_size=20000)
    config = al.LabConfig.load(db_path="./autom8.db", embedding_model="all-MiniLM-L6-v2", cache_size=20000)
    # success = await setup_database(config=config)
    success = await al.aio.setup_database(config=config)
    assert (success["ready"], success["created"]) == (True, False)


async def the_setup_from_a_configuration() -> None:
    # result = await setup_database_from_config(environment="production")
    result = await al.aio.setup_database_from_config(environment="production")
    assert (result["ready"], Path(result["path"]).name) == (True, "autom8.db")
    # result = await setup_database_from_config(config_path="database.yaml")
    keys = {
        "db_path": "./from_yaml.db",
        "cache_size": 10000,
        "embedding_model": "all-MiniLM-L6-v2",
        "embedding_dimensions": 384,
        "similarity_threshold": 0.5,
        "max_connections": 20,
        "auto_cleanup_days": 30,
    }
    Path("database.yaml").write_text(json.dumps({"database": keys}), encoding="utf-8")  # JSON is YAML
    result = await al.aio.setup_database_from_config(config_path="database.yaml")
    assert (result["ready"], Path(result["path"]).name) == (True, "from_yaml.db")
    async with al.aio.open(config_path="database.yaml") as manager:
        origins = (await manager.config_df()).set_index("setting")["origin"]
        assert set(origins[list(keys)]) == {"file database.yaml"}


async def the_tests() -> None:
    # report = await run_database_tests(); print(f"Tests passed: {report['test_summary']['success_rate']:.1f}%")
    report = await asyncio.to_thread(al.run_database_tests, only=["contexts", "text search"])
    assert f"Tests passed: {report['test_summary']['success_rate']:.1f}%" == "Tests passed: 100.0%"


async def the_quick_setup() -> None:
    # success = await setup_database("./autom8.db"); manager = await get_integrated_manager()
    assert (await al.aio.setup_database("./autom8.db"))["ready"]
    async with al.aio.open("./autom8.db") as manager:
        # result = await manager.store_content(content_id="welcome", content=…, topic=…, priority=100, pinned=True)
        await manager.store_context(
            "Welcome to Autom8 v3.0 context-aware runtime!",
            context_id="welcome",
            topic="welcome",
            priority=100,
            pinned=True,
        )
        # results = await manager.search_content("welcome", method="hybrid")
        results = await manager.search("welcome", method="hybrid")
        assert (results[0].context.id, results[0].context.pinned) == ("welcome", True)


def test_the_code_of_the_specification_translated_runs_as_one_program() -> None:
    async def program() -> None:
        await the_foundational_manager()
        await the_vector_manager()
        await the_integrated_manager()
        await the_connection_manager()
        await the_migrations()
        await the_setup()
        await the_setup_from_a_configuration()
        await the_tests()
        await the_quick_setup()

    asyncio.run(program())


def test_the_command_lines_of_the_specification_work_under_our_names() -> None:
    for arguments in (
        ["init", "--db", "./autom8.db"],
        ["migrate", "--db", "./autom8.db"],
        ["test", "--only", "schema"],
        ["init", "--preset", "production"],
    ):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        assert any(f"`autom8-lab {arguments[0]}" in row[1] for row in ROWS)
