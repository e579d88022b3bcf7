"""YAML as plain values, whatever the file does."""

from __future__ import annotations

import time
from datetime import date
from pathlib import Path

import pytest

import autom8_lab as al
from autom8_lab.plain_yaml import plain_yaml

BOMB = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghijkl", "bcdefghijklm", strict=True)
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.yaml"


def test_plain_values_come_back(path: Path) -> None:
    path.write_text(
        "a: [1, 2.5, yes, null, text, 2026-05-01]\nb: &b {c: 1}\nd: *b\ne: {<<: *b, f: 2}\n", encoding="utf-8"
    )
    assert plain_yaml(path) == {
        "a": [1, 2.5, True, None, "text", date(2026, 5, 1)],
        "b": {"c": 1},
        "d": {"c": 1},
        "e": {"c": 1, "f": 2},
    }
    path.write_text("", encoding="utf-8")
    assert plain_yaml(path) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "is not valid YAML"),
        ("a: 1\na: 2", r"'a' is given twice \(line 2\): keep one of them"),
        ("a: {b: 1, b: 2}", "'b' is given twice"),
        ("a: 1\n---\nb: 2", "is not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []", "is not valid YAML"),
        ("a: !!python/name:os.system", "is not valid YAML"),
        ("a: !Thing {}", "is not valid YAML"),
        ("a: *nothing", "is not valid YAML"),
        ("a: 2026-99-99", "is not valid YAML"),
        ("[" * 2_000, "nested too deep|is not valid YAML"),
        ("a: &a [*a]", "stand for more than 1,000,000 values"),
        (BOMB, "stand for more than 1,000,000 values"),
        (f"{BOMB}z: {{<<: [{', '.join('*m' for _ in range(9))}]}}", "stand for more than 1,000,000 values"),
    ],
    ids=lambda value: value[:30],
)
def test_what_is_not_plain_is_refused_quickly(path: Path, text: str, message: str) -> None:
    path.write_text(text, encoding="utf-8")
    started = time.perf_counter()
    with pytest.raises(al.InvalidValue, match=message):
        plain_yaml(path)
    with pytest.raises(al.ConfigurationError):
        plain_yaml(path, error=al.ConfigurationError)
    assert time.perf_counter() - started < 5


def test_a_file_that_is_too_large_is_not_read(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(20_000_000)
    with pytest.raises(al.InvalidValue, match="more than 10,000,000 bytes"):
        plain_yaml(path)


def test_a_file_that_cannot_be_read_says_why(path: Path) -> None:
    with pytest.raises(
        al.InvalidValue, match=r"file\.yaml cannot be read \(No such file or directory\): check the path"
    ):
        plain_yaml(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(al.InvalidValue, match="is not valid YAML"):
        plain_yaml(path)
