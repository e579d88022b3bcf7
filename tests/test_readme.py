"""Every block of the README runs, and prints what it shows."""

from __future__ import annotations

import doctest
import re
import shlex
import subprocess
from importlib.metadata import metadata
from pathlib import Path

import pytest

import autom8_lab as al

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for name, text in BLOCKS if name == language]


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    assert {name for name, _ in BLOCKS} == {"bash", "pycon", "python"}


def test_the_sessions_print_what_they_show(capsys: pytest.CaptureFixture[str]) -> None:
    session = "\n".join(blocks("pycon"))
    example = doctest.DocTestParser().get_doctest(session, {}, "README.md", "README.md", 0)
    runner = doctest.DocTestRunner(optionflags=doctest.FAIL_FAST)
    runner.run(example)
    al.current_lab().close()
    assert runner.summarize().failed == 0, capsys.readouterr().out
    assert len(example.examples) >= 5


@pytest.mark.parametrize("code", blocks("python"))
def test_a_python_block_runs(code: str) -> None:
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("line", [line for text in blocks("bash") for line in text.splitlines() if line])
def test_a_shell_line_names_what_is_there(line: str) -> None:
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
    elif words[:2] == ["pip", "install"]:
        assert (ROOT / words[words.index("-c") + 1]).is_file()
        extras = re.findall(r"\[(.*)\]", words[-1])[0].split(",")
        assert set(extras) <= set(metadata("autom8_lab").get_all("Provides-Extra") or [])
    else:
        raise AssertionError(f"no test knows how to check {line!r}")


def test_the_links_lead_to_files_that_are_there() -> None:
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_public_verb_is_named() -> None:
    verbs = {name for name in al.__all__ if name[0].islower()}
    assert {name for name in verbs if name not in README} == set()
