"""A repair saves what is whole, never returns what is not, and leaves the damaged file as it is."""

from __future__ import annotations

import json
import random
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import damage
import pytest
import whole_lab
from sqlite_utils.utils import sqlite3

import autom8_lab as al
from autom8_lab.storage import migrations
from autom8_lab.storage.wal import read_log

PAGE = damage.PAGE


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> damage.Original:
    path = tmp_path_factory.mktemp("original") / "lab.db"
    with al.open(path, embedding_model="hash-64", vector_engine="sqlite-vec", synchronous="OFF") as lab:
        whole_lab.fill(lab, contexts=150, calls=250)
        lab.search("harbour tide", method="semantic")
    return damage.look_into(path)


@pytest.fixture
def copy(original: damage.Original, tmp_path: Path) -> Path:
    return Path(shutil.copy(original.path, tmp_path / "lab.db"))


def repaired(path: Path) -> al.Report:
    """Repair a file, see that it was only read, and that the new one is sound."""
    before = {item.name: item.read_bytes() for item in path.parent.iterdir()}
    report = al.repair(path, to=path.with_name("repaired.db"))
    after = {item.name: item.read_bytes() for item in path.parent.iterdir()}
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) <= {"repaired.db", "repaired.db.doubtful.jsonl"}
    assert report["errors_left"] == 0
    findings = al.check_file(path.with_name("repaired.db"))
    assert set(findings["severity"]) <= {"warning"}, findings.to_string()
    return report


def count(report: al.Report, table: str, column: str = "saved") -> int:
    return int(report["tables"].set_index("table").loc[table, column])


def all_counts(original: damage.Original) -> dict[str, int]:
    return {table: len(rows) for table, rows in original.rows.items()}


# Whole files


def test_everything_of_a_sound_file_is_saved(original: damage.Original, copy: Path) -> None:
    report = repaired(copy)
    assert dict(zip(report["tables"]["table"], report["tables"]["saved"], strict=True)) == {
        **all_counts(original),
        "care_log": 0,
    }
    assert (report["doubtful"], report["lost"], report["doubtful_path"]) == (0, 0, None)
    assert damage.rows_of(copy.with_name("repaired.db")) == original.rows
    assert stat.S_IMODE(copy.with_name("repaired.db").stat().st_mode) == 0o600


def test_a_repaired_lab_works_and_knows_where_it_comes_from(original: damage.Original, copy: Path) -> None:
    al.repair(copy, to=copy.with_name("repaired.db"))
    with al.open(original.path, embedding_model="hash-64", read_only=True) as lab:
        expected = [(hit.context.id, hit.score) for hit in lab.search("copper engine harbour", k=20)]
    with al.open(copy.with_name("repaired.db"), embedding_model="hash-64", access_log=False) as lab:
        assert [(hit.context.id, hit.score) for hit in lab.search("copper engine harbour", k=20)] == expected
        assert lab.health()["without_vectors"] == 0
        (entry,) = lab._storage.rows("care_log")
        assert (entry["kind"], entry["details"]["path"]) == ("repair", str(copy))
        lab.store_context("And life goes on.")
        assert lab.check().empty


def test_what_is_only_in_the_log_is_saved_too(tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    with al.open(path, embedding_model="hash-64") as lab:
        whole_lab.fill(lab, contexts=20, calls=10)
        for ending in ("", "-wal"):
            shutil.copy(f"{path}{ending}", tmp_path / f"left.db{ending}")
        counts = lab.stats()
    report = repaired(tmp_path / "left.db")
    assert count(report, "context_registry") == counts["contexts"]
    assert count(report, "usage_ledger") == counts["usage_rows"]
    assert report["lost"] == report["doubtful"] == 0


@pytest.mark.parametrize("version", [1, 2, 7])
def test_an_older_file_is_repaired_to_the_newest_version(original: damage.Original, copy: Path, version: int) -> None:
    al.run_migrations(copy, to=version)
    report = repaired(copy)
    assert count(report, "context_registry") == len(original.rows["context_registry"])
    assert report["doubtful"] == 0
    assert al.get_migration_status(copy.with_name("repaired.db"))["pending"] == []
    with al.open(copy.with_name("repaired.db"), embedding_model="hash-64") as lab:
        assert lab.get_context("note-00009").content == whole_lab.text(9)


def test_what_users_added_to_the_file_is_named_and_not_copied(copy: Path) -> None:
    connection = sqlite3.connect(copy)
    connection.execute("CREATE TABLE mine (a)")
    connection.execute("INSERT INTO mine VALUES ('kept elsewhere')")
    connection.commit()
    connection.close()
    assert repaired(copy)["not_copied"] == "mine"


# The damages


def overwrite(*trees: str, interior: bool | None = None, many: int | None = None) -> Callable[..., None]:
    """Return what overwrites pages of these trees, all of them or some."""

    def act(path: Path, original: damage.Original, draw: random.Random) -> None:
        pages = sorted(original.anatomy.pages_of(*trees, interior=interior))
        assert pages, trees
        damage.overwrite_pages(path, pages if many is None else draw.sample(pages, min(many, len(pages))), draw)

    return act


def random_pages(many: int) -> Callable[..., None]:
    def act(path: Path, original: damage.Original, draw: random.Random) -> None:
        last = len(original.data) // PAGE
        damage.overwrite_pages(path, draw.sample(range(1, last + 1), many), draw)

    return act


DAMAGES: dict[str, Callable[..., None]] = {
    "three pages gone": random_pages(3),
    "twenty random pages": random_pages(20),
    "the last third cut off": lambda path, original, draw: damage.cut(path, 1 / 3),
    "the header destroyed": lambda path, original, draw: damage.write_at(path, 0, draw.randbytes(100)),
    "the first page destroyed": lambda path, original, draw: damage.write_at(path, 0, draw.randbytes(PAGE)),
    "a page of the schema": overwrite("sqlite_master", interior=False, many=1),
    "an index page": overwrite("idx_context_registry_content_hash", many=1),
    "all indexes of a table": overwrite(
        *(f"idx_context_registry_{name}" for name in "id topic source content_hash created_at priority".split())
    ),
    "a page of the full-text index": overwrite("context_registry_fts_data", "context_registry_fts_idx", many=2),
    "the root of the contexts": overwrite("context_registry", interior=True),
    "the roots of everything large": overwrite(
        "context_registry", "usage_ledger", "context_chunks", "embeddings", interior=True
    ),
    "pages of the ledger": overwrite("usage_ledger", interior=False, many=5),
    "the page of the embedding sets": overwrite("embedding_sets"),
}


@pytest.mark.parametrize(("name", "seed"), [*((name, 1) for name in DAMAGES), ("twenty random pages", 2)])
def test_whatever_happens_all_that_is_whole_is_saved_and_nothing_else(
    original: damage.Original, copy: Path, name: str, seed: int
) -> None:
    DAMAGES[name](copy, original, random.Random(seed))
    damaged = damage.differing_pages(original.data, copy.read_bytes())
    assert damaged
    assert not al.check_file(copy).empty
    repaired(copy)
    verdict = damage.judge(original, copy.with_name("repaired.db"), damaged)
    assert verdict.unsound == []
    assert verdict.share >= 0.99, (verdict.saved, verdict.whole)


def test_a_damaged_row_goes_beside_the_lab_and_not_into_it(original: damage.Original, copy: Path) -> None:
    data = bytearray(copy.read_bytes())
    place = data.index(whole_lab.text(9).encode())
    data[place] ^= 1
    copy.write_bytes(data)
    report = repaired(copy)
    assert count(report, "context_registry", "doubtful") == 1
    assert report["doubtful_path"] == str(copy.with_name("repaired.db.doubtful.jsonl"))
    assert stat.S_IMODE(Path(report["doubtful_path"]).stat().st_mode) == 0o600
    lines = [json.loads(line) for line in Path(report["doubtful_path"]).read_text().splitlines()]
    (line,) = [line for line in lines if line["table"] == "context_registry"]
    assert line["doubt"] == "content does not fit its hash"
    assert line["row"]["id"] == "note-00009"
    assert line["row"]["content"].endswith(whole_lab.text(9)[10:])
    with al.open(copy.with_name("repaired.db"), embedding_model="hash-64") as lab, pytest.raises(al.ContextNotFound):
        lab.get_context("note-00009")


def test_what_refers_to_a_lost_row_is_emptied_or_doubtful_and_said(original: damage.Original, copy: Path) -> None:
    damage.overwrite_pages(copy, original.anatomy.pages_of("agent_decisions"), random.Random(3))
    report = repaired(copy)
    tables = report["tables"].set_index("table")
    assert tables.loc["agent_decisions", "saved"] == 0
    assert tables.loc["decision_contexts", "doubtful"] == 2
    assert tables.loc["usage_ledger", "note"] == "decision_id emptied in 1: what it referred to is gone"
    assert tables.loc["usage_ledger", "saved"] == len(original.rows["usage_ledger"])


def test_lost_vectors_are_named_with_the_remedy_which_encodes_no_text_twice(
    original: damage.Original, copy: Path
) -> None:
    overwrite("embedding_sets")(copy, original, random.Random(1))
    report = repaired(copy)
    assert report["contexts_without_vectors"] == len(original.rows["context_registry"])
    assert "al.embed_contexts()" in report["remedy"]
    assert count(report, "embeddings") == len(original.rows["embeddings"])
    with al.open(copy.with_name("repaired.db"), embedding_model="hash-64") as lab:
        assert lab.embed_contexts()["contexts_without_vectors"] == 0
        assert lab._storage.count("embeddings") == len(original.rows["embeddings"])
        assert lab.check().empty


def test_a_deleted_row_does_not_come_back(tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    with al.open(path, embedding_model="hash-64", synchronous="OFF") as lab:
        whole_lab.fill(lab, contexts=200, calls=5)
        for number in range(50, 120):
            lab.delete_context(f"note-{number:05}")
        lab.update_context("note-00151", content="Written anew: " + whole_lab.text(151))
    original = damage.look_into(path)
    for interior in (True, False):
        copy = Path(shutil.copy(path, tmp_path / f"copy{interior}.db"))
        overwrite("context_registry", interior=interior, many=3)(copy, original, random.Random(5))
        damaged = damage.differing_pages(original.data, copy.read_bytes())
        al.repair(copy, to=tmp_path / f"repaired{interior}.db")
        verdict = damage.judge(original, tmp_path / f"repaired{interior}.db", damaged)
        assert (verdict.unsound, verdict.share) == ([], 1.0)


# The write-ahead log


@pytest.fixture
def with_log(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A file and its log as a crash leaves them, most rows only in the log; and the contexts by id."""
    path = tmp_path / "crash" / "lab.db"
    path.parent.mkdir()
    with al.open(tmp_path / "lab.db", embedding_model="hash-64", synchronous="OFF") as lab:
        whole_lab.fill(lab, contexts=40, calls=20)
        for number in range(20):
            lab.store_context(f"Only in the log {number}: {whole_lab.text(number + 500)}", context_id=f"log-{number}")
        texts = {item.id: item.content for item in lab.list_contexts(include_superseded=True)}
        for ending in ("", "-wal"):
            shutil.copy(f"{tmp_path}/lab.db{ending}", f"{path}{ending}")
    return path, texts


@pytest.mark.parametrize("seed", range(3))
def test_a_bit_that_flips_in_the_log_costs_at_most_what_stands_on_its_page(
    with_log: tuple[Path, dict[str, str]], seed: int
) -> None:
    path, texts = with_log
    log = Path(f"{path}-wal")
    data = bytearray(log.read_bytes())
    draw = random.Random(seed)
    used = len(read_log(log).frames) * (24 + PAGE)  # behind that is what earlier rounds of the log left
    data[32 + draw.randrange(used)] ^= 1 << draw.randrange(8)
    log.write_bytes(data)
    assert "the write-ahead log" in " ".join(al.check_file(path)["finding"])
    repaired(path)
    with al.open(path.with_name("repaired.db"), embedding_model="hash-64") as lab:
        found = {item.id: item.content for item in lab.list_contexts(include_superseded=True)}
    assert found.items() <= texts.items()
    assert len(found) >= len(texts) - 4


def test_a_log_whose_header_is_destroyed_is_read_all_the_same(with_log: tuple[Path, dict[str, str]]) -> None:
    path, texts = with_log
    damage.write_at(Path(f"{path}-wal"), 0, bytes(32))
    assert not al.check_file(path).empty
    repaired(path)
    with al.open(path.with_name("repaired.db"), embedding_model="hash-64") as lab:
        assert {item.id: item.content for item in lab.list_contexts(include_superseded=True)} == texts


def test_without_its_log_the_file_is_as_of_the_last_checkpoint_and_sound(
    with_log: tuple[Path, dict[str, str]],
) -> None:
    path, texts = with_log
    Path(f"{path}-wal").unlink()
    assert al.check_file(path).empty
    with al.open(path, embedding_model="hash-64") as lab:
        found = {item.id: item.content for item in lab.list_contexts(include_superseded=True)}
        assert found.items() <= texts.items()


# What is refused


def test_what_cannot_be_repaired_is_refused_with_the_reason(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "taken.db").touch()
    refusals: list[tuple[Any, Any, type[Exception], str]] = [
        (tmp_path / "nowhere.db", tmp_path / "new.db", al.LabNotFound, "no lab at"),
        (copy, copy, al.InvalidValue, "is there already"),
        (copy, tmp_path / "taken.db", al.InvalidValue, "is there already"),
        (copy, tmp_path / "no" / "new.db", al.StorageError, "no folder"),
    ]
    before = sorted(tmp_path.iterdir())
    for path, to, error, message in refusals:
        with pytest.raises(error, match=message):
            al.repair(path, to=to)
    assert sorted(tmp_path.iterdir()) == before


def test_a_lab_that_is_open_here_is_to_be_closed_first(copy: Path, tmp_path: Path) -> None:
    with al.open(copy, embedding_model="hash-64"), pytest.raises(al.InvalidValue, match=r"is open in this process"):
        al.repair(copy, to=tmp_path / "new.db")


def test_a_file_of_another_program_and_one_of_nothing_are_no_labs(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE bookmarks (url)")
    connection.close()
    with pytest.raises(al.NotALab, match="bookmarks"):
        al.repair(tmp_path / "other.db", to=tmp_path / "new.db")
    for number, content in enumerate((b"", b"x", bytes(50_000), random.Random(1).randbytes(50_000))):
        (tmp_path / f"{number}.db").write_bytes(content)
        with pytest.raises(al.DamagedLab, match="restore a backup"):
            al.repair(tmp_path / f"{number}.db", to=tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()


def test_a_newer_file_is_refused(copy: Path, tmp_path: Path) -> None:
    connection = sqlite3.connect(copy)
    connection.execute(
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (?, 'm999_future', '2030')",
        [migrations.SET_NAME],
    )
    connection.commit()
    connection.close()
    with pytest.raises(al.NewerSchema, match="m999_future"):
        al.repair(copy, to=tmp_path / "new.db")
