"""A whole lab from a file to a server and back: nothing is lost, and what was broken off goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import whole_lab
from backends import BACKENDS, Places

import autom8_lab as al
from autom8_lab.config import LabConfig
from autom8_lab.exchange import copying
from autom8_lab.storage import open_storage

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ODD = {
    "metadata": {
        "big": 1e22,
        "small": 5e-324,
        "whole": 2.0,
        "int": 2**63 - 1,
        "text": "1e5",
        "order": {"b": 1, "a": []},
    }
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lab in a file with every kind of row, and some odd values."""
    path = tmp_path_factory.mktemp("original") / "lab.db"
    with al.open(path, embedding_model="hash-64", synchronous="OFF") as lab:
        whole_lab.fill(lab)
        lab.store_context("Straße über e\u0301", context_id="odd", **ODD)
        lab.record_usage("m", source="log", source_id="1", at=datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC))
        lab.record_usage("m", source="log", source_id="2", at=NOON, **ODD)
    return path


@pytest.fixture(params=BACKENDS)
def other_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Places on each back end, beside the file that is copied."""
    places = Places(request.param, tmp_path)
    yield places
    places.close()


def exported(path: str | Path, target: Path) -> bytes:
    with al.open(path, access_log=False, embedding_model="hash-64") as lab:
        lab.export(target)
    return target.read_bytes()


def test_a_lab_comes_back_from_another_back_end_byte_for_byte(
    original: Path, other_place: Callable[[str], str], tmp_path: Path
) -> None:
    there, back = other_place("there.db"), tmp_path / "back.db"
    report = al.copy_lab(original, there, progress=False)
    assert (report["verified"], report["copied"]) == (True, report["rows"])
    assert al.copy_lab(there, back, progress=False)["sha256"] == report["sha256"]
    for one, other in ((original, there), (there, back), (original, back)):
        compared = al.compare_labs(one, other)
        assert compared["equal"]
        assert compared["tables"]["rows"].tolist() == compared["tables"]["rows_other"].tolist()
        assert compared["tables"].set_index("table").loc[["usage_ledger", "embeddings"], "rows"].min() > 50
    lines = [exported(place, tmp_path / f"{number}.jsonl") for number, place in enumerate((original, there, back))]
    assert lines[0] == lines[1] == lines[2]


def test_a_copy_is_a_lab_that_goes_on_growing(original: Path, other_place: Callable[[str], str]) -> None:
    there = other_place("there.db")
    al.copy_lab(original, there, progress=False)
    with (
        al.open(original, embedding_model="hash-64", read_only=True) as old,
        al.open(there, embedding_model="hash-64") as lab,
    ):
        for method in ("text", "semantic", "hybrid"):
            hits = [
                [(hit.context.id, round(hit.score, 6)) for hit in one.search("copper engine harbour", method=method)]
                for one in (old, lab)
            ]  # type: ignore[arg-type]
            assert hits[0] == hits[1]
        highest = lab.ledger_df()["usage_key"].max()
        assert lab.record_usage("gpt-4o-mini", input_tokens=1, output_tokens=1) > highest
        assert lab.record_usage("m", source="log", source_id="1") <= highest
        lab.store_context("Something else, after the copy.", context_id="after")
        assert lab.search("after the copy", k=1)[0].context.id == "after"
        assert lab.check().empty


def test_a_difference_is_told_with_the_rows_that_differ(original: Path, other_place: Callable[[str], str]) -> None:
    there = other_place("there.db")
    al.copy_lab(original, there, progress=False)
    with al.open(there, embedding_model="hash-64", access_log=False) as lab:
        lab.update_context("note-00007", priority=99)
        lab.record_usage("one-more")
    compared = al.compare_labs(original, there)
    assert not compared["equal"]
    tables = compared["tables"].set_index("table")
    assert tables.index[~tables["equal"]].tolist() == ["context_registry", "usage_ledger"]
    assert "note-00007" in tables.loc["context_registry", "difference"]
    assert tables.loc["usage_ledger", "rows_other"] == tables.loc["usage_ledger", "rows"] + 1


def test_a_copy_that_was_broken_off_is_continued(
    original: Path, other_place: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = other_place("there.db")
    source, target = (open_storage(LabConfig.load(db_path=str(path))) for path in (original, there))
    calls: list[str] = []

    class Stopped(Exception):
        pass

    class Stopping:
        """A target that fails in the middle."""

        def __getattr__(self, name: str) -> Any:
            return getattr(target, name)

        def insert(self, table: str, rows: Any, **options: Any) -> int:
            calls.append(table)
            if len(calls) == 9:
                raise Stopped
            return target.insert(table, rows, **options)

    with pytest.raises(Stopped):
        copying.copy(source, Stopping(), at=NOON, progress=False)  # type: ignore[arg-type]
    source.close()
    target.close()
    report = al.copy_lab(original, there, progress=False)
    assert 0 < report["copied"] < report["rows"]
    assert al.compare_labs(original, there)["equal"]
    assert al.copy_lab(original, there, progress=False)["copied"] == 0


def test_a_target_with_rows_of_its_own_is_refused_and_left_alone(
    original: Path, other_place: Callable[[str], str]
) -> None:
    there = other_place("there.db")
    with al.open(there, embedding_model="hash-64", access_log=False) as lab:
        lab.store_context("Mine.", context_id="mine")
    with pytest.raises(al.InvalidValue, match=r"1 rows in context_.*empty"):
        al.copy_lab(original, there, progress=False)
    with al.open(there, embedding_model="hash-64") as lab:
        assert lab.contexts_df()["context_id"].tolist() == ["mine"]
    with pytest.raises(al.InvalidValue, match="another target"):
        al.copy_lab(original, original)
