"""Every block of the documents runs, and prints what it shows."""

from __future__ import annotations

import doctest
import re
import shlex
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
    for code in blocks(page, "python"):
        exec(compile(code, page.name, "exec"), {"__name__": "__main__"})
    checker = doctest.OutputChecker()
    for line, printed in calls(page):
        program, *arguments = shlex.split(line)
        assert program == "autom8-lab", f"no test knows how to run {line!r}"
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        shown = "\n".join(text.rstrip() for text in result.output.splitlines()) + "\n"
        assert checker.check_output(printed, shown, FLAGS), f"$ {line}\n{shown}\nbut the page shows\n{printed}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_a_page_is_of_a_kind_that_is_tested(page: Path) -> None:
    for language, name, _ in BLOCK.findall(page.read_text(encoding="utf-8")):
        assert name or language in {"console", "mermaid", "pycon", "python"}, f"{page.name}: ```{language}"


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
