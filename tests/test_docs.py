"""Every block of the documents runs, and prints what it shows."""

from __future__ import annotations

import doctest
import inspect
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import autom8_lab as al
from autom8_lab.cli import main

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
BLOCK = re.compile(r"^```(\w*)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE  # the widths of columns follow what is in them


def blocks(page: Path, language: str) -> list[str]:
    return [text for name, _, text in BLOCK.findall(page.read_text(encoding="utf-8")) if name == language]


def output_of(line: str) -> str:
    """What a line of a console prints."""
    program, *arguments = shlex.split(line)
    if program == "sqlite-utils":  # a process of its own, because it may have another SQLite library
        command = [sys.executable, str(Path(sys.executable).parent / program), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert program == "autom8-lab", f"no test knows how to run {line!r}"
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def calls(page: Path) -> list[tuple[str, str]]:
    """The command lines of a page's consoles, and what each prints."""
    found = []
    for block in blocks(page, "console"):
        for part in re.split(r"^(?=\$ )", block, flags=re.MULTILINE)[1:]:
            line, _, printed = part[2:].partition("\n")
            found.append((line, printed))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_shows_is_what_happens(page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _, name, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if name:
            (tmp_path / name).write_text(text, encoding="utf-8")
    session = "\n".join(blocks(page, "pycon"))
    example = doctest.DocTestParser().get_doctest(session, {"al": al}, page.name, page.name, 0)
    runner = doctest.DocTestRunner(optionflags=FLAGS | doctest.FAIL_FAST)
    runner.run(example)
    assert runner.summarize().failed == 0, capsys.readouterr().out
    namespace: dict[str, object] = {"__name__": "__main__"}
    for code in blocks(page, "python"):
        exec(compile(code, page.name, "exec"), namespace)
    checker = doctest.OutputChecker()
    for line, printed in calls(page):
        shown = "\n".join(text.rstrip() for text in output_of(line).splitlines()) + "\n"
        assert checker.check_output(printed, shown, FLAGS), f"$ {line}\n{shown}\nbut the page shows\n{printed}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_a_page_is_of_a_kind_that_is_tested(page: Path) -> None:
    for language, name, _ in BLOCK.findall(page.read_text(encoding="utf-8")):
        assert name or language in {"console", "mermaid", "pycon", "python", "text"}, f"{page.name}: ```{language}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_links_of_a_page_lead_to_files_that_are_there(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_every_command_is_documented_and_shown_at_work() -> None:
    page = DOCS / "command-line.md"
    text = page.read_text(encoding="utf-8")
    context = click.Context(main)
    for name in main.list_commands(context):
        assert f"\n### {name}\n" in text, f"docs/command-line.md has no section on {name}"
        assert f"autom8-lab {name}" in text
        command = main.get_command(context, name)
        for inner in command.commands if isinstance(command, click.Group) else ():
            assert f"autom8-lab {name} {inner}" in text


def test_every_table_is_on_the_page_of_concepts(lab: al.Lab) -> None:
    text = (DOCS / "concepts.md").read_text(encoding="utf-8")
    with lab.connection() as database:
        own = [name for name in database.table_names() if not re.search(r"_fts|sqlite_", name)]
        assert [name for name in [*own, *database.view_names()] if name not in text] == []


def test_the_pages_that_are_made_from_the_code_are_as_it_makes_them() -> None:
    making = runpy.run_path(str(DOCS / "make_reference.py"))
    for path, text in making["pages"]().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is old: python docs/make_reference.py"


def test_the_reference_has_every_public_verb() -> None:
    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    verbs = [name for name in al.__all__ if inspect.isroutine(getattr(al, name))]
    assert [name for name in verbs if f"\n### {name}\n" not in text] == []


def test_the_example_agent_runs_and_finds_the_next_time_what_it_learned(tmp_path: Path) -> None:
    example = runpy.run_path(str(DOCS.parent / "examples" / "agent_loop.py"))
    lines: list[str] = []
    for _ in range(2):
        example["run"](str(tmp_path / "agent.db"), 25, write=lambda text: lines.append(str(text)))
    printed = "\n".join(lines)
    assert "of 25 answers were right" in printed
    assert re.search(r"gpt-4o-mini +\d+ ", printed)
    assert "learned" in printed
    with al.open(tmp_path / "agent.db") as lab:
        decisions = lab.decisions_df()
        assert len(decisions) == len(lab.ledger_df()) == 50
        assert decisions["propensity"].between(0.1, 0.9).all()
        assert decisions["success"].notna().all()
        assert (decisions["context_ids"].str.len() > 0).any()
        assert lab.check().empty
