"""Looking at a configuration before anything is opened, and making a file ready."""

from __future__ import annotations

from pathlib import Path

import pytest

import autom8_lab as al


def test_a_sound_configuration_is_valid_and_nothing_is_created(tmp_path: Path) -> None:
    report = al.validate_config()
    assert report == {"valid": True, "problems": [], "advice": [], "db_path": "autom8.db"}
    assert list(tmp_path.iterdir()) == []


def test_problems_are_returned_not_raised(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("database: {cash_size: 5, metric: 5}", encoding="utf-8")
    report = al.validate_config(path)
    assert report["valid"] is False
    assert [problem.removeprefix(f"{path}: ").split(":")[0] for problem in report["problems"]] == [
        "unknown setting 'cash_size'; did you mean 'cache_size'?",
        "metric=5",
    ]
    assert al.validate_config(tmp_path / "none.yaml")["problems"] == [
        f"no configuration file at {tmp_path / 'none.yaml'}: give the path of a YAML file"
    ]


def test_a_value_that_loses_data_is_a_problem_too() -> None:
    report = al.validate_config(synchronous="OFF")
    assert report["problems"] == [
        "synchronous=OFF: use NORMAL or FULL for a file that matters "
        "(with OFF a power cut can damage the whole file, not only lose the last writes)"
    ]


def test_a_file_that_cannot_serve_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database, and long enough to see it", encoding="utf-8")
    assert "is not an SQLite file" in al.validate_config(db_path=str(tmp_path / "text.db"))["problems"][0]
    assert "is a folder" in al.validate_config(db_path=str(tmp_path))["problems"][0]
    assert "create the folder" in al.validate_config(db_path="no/lab.db")["problems"][0]
    assert "prices.yaml cannot be read" in al.validate_config(prices_path="prices.yaml")["problems"][0]


def test_a_file_that_is_there_counts_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    with al.open(path, embedding_model="hash-32") as lab:
        lab.store_context("A text.")
    before = path.read_bytes()
    report = al.validate_config(db_path=str(path), embedding_model="hash-64")
    assert report["valid"] is True
    assert "come from 'hash-32'" in report["advice"][0]
    assert path.read_bytes() == before


@pytest.mark.parametrize("preset", ["development", "testing", "production"])
def test_every_preset_is_valid(preset: str) -> None:
    assert al.validate_config(preset=preset)["valid"] is True
