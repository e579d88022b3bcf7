"""What SECURITY.md promises; a sentence there has its test here, or in the file that it names."""

from __future__ import annotations

import ast
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_utils.utils import sqlite3

import autom8_lab as al
from autom8_lab.lab import Lab

MODEL = "hash-16"
PACKAGE = Path(al.__file__).parent
ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
ATTACK = "<img src=x onerror=alert(1)>"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with opened(tmp_path / "lab.db") as lab:
        lab.store_context("The first text.", context_id="first", metadata={"n": 1})
        lab.record_usage("m", input_tokens=1, metadata={"n": 1})
    return tmp_path / "lab.db"


def opened(path: Path) -> Lab:
    return al.open(path, embedding_model=MODEL, statement_seconds=1)


def change(path: Path, *statements: str) -> None:
    """Do to a file what any other program can."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def use(path: Path) -> Iterator[str]:
    """Ask a lab for everything; yield the errors, all of which are ours."""
    try:
        with opened(path) as lab:
            verbs: list[Callable[[], object]] = [
                lab.health,
                lab.check,
                lab.list_contexts,
                lab.contexts_df,
                lambda: lab.get_context("first"),
                lambda: lab.search("first text"),
                lambda: lab.search("first text", method="semantic"),
                lambda: lab.store_context("Another text."),
                lambda: lab.update_context("first", topic="numbers"),
                lambda: lab.record_usage("m", input_tokens=2),
                lab.ledger_df,
                lab.settings_df,
                lab.decisions_df,
                lab.stats,
            ]
            for verb in verbs:
                try:
                    verb()
                except al.LabError as exc:
                    yield str(exc)
    except al.LabError as exc:
        yield str(exc)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


HOSTILE = {
    "a trigger without end": [f"CREATE TRIGGER t AFTER INSERT ON context_registry BEGIN SELECT ({ENDLESS}); END"],
    "a view in the place of a table": [
        "ALTER TABLE usage_ledger RENAME TO hidden",
        f"CREATE VIEW usage_ledger AS SELECT h.*, ({ENDLESS}) AS more FROM hidden h",
    ],
    "a trigger that loads an extension": [
        "CREATE TRIGGER t AFTER UPDATE ON context_registry BEGIN SELECT load_extension('/tmp/evil'); END"
    ],
    "a trigger that deletes": ["CREATE TRIGGER t AFTER INSERT ON usage_ledger BEGIN DELETE FROM context_registry; END"],
    "metadata nested without measure": [f"UPDATE context_registry SET metadata = '{nested(200_000)}'"],
    "metadata of the ledger nested without measure": [f"UPDATE usage_ledger SET metadata = '{nested(200_000)}'"],
    "metadata that is no object": ["UPDATE context_registry SET metadata = '7'"],
    "a number without end": [f"UPDATE usage_ledger SET metadata = '{{\"a\": {'9' * 10_000}}}'"],
    "a number without end in a context": [f"UPDATE context_registry SET metadata = '{{\"a\": {'9' * 10_000}}}'"],
    "an index of words with other tables behind it": ["UPDATE context_registry_fts_data SET block = zeroblob(50)"],
}


# SQLite finds nothing wrong with it, and Python refuses to read it.
VALID = {"a number without end", "a number without end in a context"}


@pytest.mark.filterwarnings("ignore::autom8_lab.errors.LabWarning")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_neither_runs_code_nor_hangs_nor_crashes_a_verb(path: Path, name: str) -> None:
    change(path, *HOSTILE[name])
    started = time.monotonic()
    errors = list(use(path))
    findings = al.check_file(path)
    assert time.monotonic() - started < 30
    assert (name in VALID) == findings.empty
    assert all(errors)


def test_what_an_endless_trigger_stopped_is_not_kept(path: Path) -> None:
    change(path, *HOSTILE["a trigger without end"])
    with opened(path) as lab:
        with pytest.raises(al.StatementTimeout):
            lab.store_context("Another text.")
        assert [item.id for item in lab.list_contexts()] == ["first"]


def test_no_sql_can_load_an_extension(path: Path) -> None:
    with opened(path) as lab, lab.connection() as database, pytest.raises(sqlite3.OperationalError, match="not auth"):
        database.conn.execute("SELECT load_extension('/tmp/evil')")


def test_what_is_made_is_for_its_owner_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        with opened(path) as lab:
            lab.store_context("Another text.")
            lab.backup(path.with_name("copy.db"))
            lab.backup(path.with_name("copies"))
            lab.export(path.with_name("lab.jsonl"))
            change_by_another(path)
            modes = {item.name: stat.S_IMODE(item.stat().st_mode) for item in path.parent.rglob("*")}
        al.repair(path, to=path.with_name("repaired.db"))
        made = [path.with_name("repaired.db"), path.with_name("repaired.db.doubtful.jsonl")]
        modes |= {item.name: stat.S_IMODE(item.stat().st_mode) for item in made}
    finally:
        os.umask(before)
    assert {name: oct(mode) for name, mode in modes.items() if mode & 0o077} == {}
    assert len(modes) >= 8


def change_by_another(path: Path) -> None:
    change(path, "UPDATE context_registry SET content = 'Not what was stored.' WHERE id = 'first'")


def calls(tree: ast.AST) -> Iterator[tuple[str, dict[str, str]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {item.arg or "**": ast.unparse(item.value) for item in node.keywords}


def test_no_code_of_ours_runs_what_data_say() -> None:
    for source in PACKAGE.rglob("*.py"):
        tree = ast.parse(source.read_text(encoding="utf-8"))
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not names & {"pickle", "dill", "joblib", "marshal", "shelve", "cloudpickle"}, source
        for function, options in calls(tree):
            assert function not in ("eval", "exec", "os.system", "yaml.load", "torch.load"), source
            assert options.get("trust_remote_code", "False") == "False", source
            assert options.get("allow_pickle", "False") == "False", source
            assert options.get("shell", "False") == "False", source


def test_content_that_looks_like_html_is_shown_as_text(path: Path) -> None:
    with opened(path) as lab:
        lab.store_context(f"{ATTACK} text", context_id="attack", topic=ATTACK)
        shown = [
            lab.get_context("attack")._repr_html_(),
            lab.search_df("text")._repr_html_(),
            lab.contexts_df()._repr_html_(),
        ]
    for text in shown:
        assert "<img" not in text
        assert "&lt;img" in text


@pytest.mark.parametrize(
    "name", ['model"; DROP TABLE usage_ledger; --', "model) FROM usage_ledger --", "metadata.a' OR '1"]
)
def test_a_name_is_no_way_into_sql(path: Path, name: str) -> None:
    with opened(path) as lab:
        try:
            found = lab.usage_df(by=name)
        except al.InvalidValue:
            pass
        else:
            assert len(found) == 1  # a metadata key may be any text
        assert len(lab.ledger_df()) == 1


def test_every_test_that_is_named_is_there() -> None:
    text = (PACKAGE.parent / "SECURITY.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/\w+\.py)`", text)
    assert named
    assert all((PACKAGE.parent / name).exists() for name in named)
