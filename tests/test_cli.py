"""The command line, as a person runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import autom8_lab as al
from autom8_lab.cli import main
from autom8_lab.demo import demo_rows, run_demo


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "autom8_lab", *arguments], capture_output=True, text=True)


def test_help_names_the_commands_and_the_version_is_the_packages() -> None:
    assert "demo" in run("--help").stdout
    assert al.__version__ in run("--version").stdout


def test_an_unknown_command_is_one_line_and_exit_code_2() -> None:
    result = run("serch")
    assert result.returncode == 2
    assert "No such command 'serch'" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_lab_error_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["demo", "--path", str(tmp_path)])
    assert result.exit_code == 1
    assert (
        result.output
        == f"Error: {tmp_path} is a folder: give the path of a file in it, such as {tmp_path / 'autom8.db'}\n"
    )


def test_the_demo_searches_the_language_reference_three_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The hash encoder instead of the model: make demo runs the real one, which takes a minute.
    monkeypatch.setenv("AUTOM8_EMBEDDING_MODEL", "hash")
    lines: list[str] = []
    path = str(tmp_path / "demo.db")
    run_demo(path, write=lambda text: lines.append(str(text)))
    printed = "\n".join(lines)
    assert printed.count("al.search_df(") >= 3
    assert "python-customization" in printed or "python-attribute-access" in printed
    assert "embedding_model  hash-384@1" in printed
    lines.clear()
    run_demo(path, write=lambda text: lines.append(str(text)))
    assert "stored" not in "\n".join(lines[1:2]), "a second run finds everything there"


def test_the_demos_texts_are_those_of_pythons_own_help() -> None:
    rows = demo_rows()
    assert len(rows) > 60
    assert all(row["content"].strip() for row in rows)
