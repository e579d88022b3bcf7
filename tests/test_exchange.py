"""An export holds everything and always the same bytes; an import gives the same lab again, or nothing."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import whole_lab
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlite_utils.utils import sqlite3

import autom8_lab as al
from autom8_lab.exchange import lines
from autom8_lab.lab import Lab
from autom8_lab.records import Condition

BOTH_BACKENDS = True
quick = settings(derandomize=True, deadline=None, max_examples=200, database=None)


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed lab of every kind of row, and its export beside it."""
    folder = tmp_path_factory.mktemp("pattern")
    with al.open(folder / "lab.db", embedding_model="hash-64", synchronous="OFF") as lab:
        whole_lab.fill(lab)
        lab.export(folder / "lab.jsonl")
    return folder


@pytest.fixture
def full(pattern: Path, place: Callable[[str], str], backend: str) -> Iterator[Lab]:
    if backend == "sqlite":
        shutil.copy(pattern / "lab.db", place("lab.db"))
    with al.open(place("lab.db"), embedding_model="hash-64", synchronous="OFF", access_log=False) as opened:
        if backend != "sqlite":
            opened.import_export(pattern / "lab.jsonl")
        yield opened


@pytest.fixture
def exported(pattern: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(pattern / "lab.jsonl", tmp_path / "lab.jsonl"))


@pytest.fixture
def empty(place: Callable[[str], str]) -> Iterator[Lab]:
    with al.open(place("empty.db"), embedding_model="hash-64", synchronous="OFF", access_log=False) as opened:
        yield opened


def parsed(path: Path) -> list[dict[str, Any]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        return [json.loads(line) for line in file]


def of_table(path: Path, table: str) -> list[dict[str, Any]]:
    return [line for line in parsed(path) if line.get("table") == table]


# Out


@pytest.mark.only_sqlite
def test_every_table_and_every_column_of_the_lab_is_in_an_export(full: Lab, tmp_path: Path) -> None:
    report = full.export(tmp_path / "lab.jsonl")
    shapes = full._storage.tables()
    found: dict[str, set[str]] = {}
    for line in parsed(tmp_path / "lab.jsonl")[1:-1]:
        found.setdefault(line.pop("table"), set()).update(line)
    assert set(found) == set(shapes)
    connection = sqlite3.connect(full.config.db_path)
    for table in shapes:
        columns = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        left_out = {"checksum"} | lines.OWN_NUMBERS.get(table, set())
        assert found[table] == columns - left_out | set(lines.INSTEAD.get(table, {})), table
    assert report["rows"] == sum(full._storage.count(table) for table in shapes)


@pytest.mark.only_sqlite
def test_only_what_can_be_made_again_or_is_about_the_file_stays_behind(full: Lab) -> None:
    connection = sqlite3.connect(full.config.db_path)
    plain = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'"
    tables = {name for (name,) in connection.execute(plain) if not name.startswith("context_registry_fts")}
    behind = {"sqlite_sequence", "_sqlite_migrations", "chunk_deletions", "index_state", "care_log"}
    assert tables - set(full._storage.tables()) == behind


def test_the_first_line_says_what_it_is_and_the_last_whether_it_is_whole(full: Lab, tmp_path: Path) -> None:
    path = tmp_path / "lab.jsonl"
    report = full.export(path)
    first, *rows, last = parsed(path)
    newest = al.get_migration_status(full.config.db_path)["applied"][-1][0]
    assert first == {"format": "autom8_lab export", "version": 1, "schema": newest, "vectors": True}
    counted: dict[str, int] = {}
    for row in rows:
        counted[row["table"]] = counted.get(row["table"], 0) + 1
    assert last["end"] == counted
    *before, _ = path.read_bytes().splitlines(keepends=True)
    assert last["sha256"] == report["sha256"] == hashlib.sha256(b"".join(before)).hexdigest()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert report["file_bytes"] == path.stat().st_size


def test_rows_come_after_those_that_they_refer_to_and_in_the_order_of_their_names(full: Lab, tmp_path: Path) -> None:
    full.export(tmp_path / "lab.jsonl")
    tables = list(dict.fromkeys(line["table"] for line in parsed(tmp_path / "lab.jsonl")[1:-1]))
    for table, shape in full._storage.tables().items():
        assert all(tables.index(other) < tables.index(table) for other in shape.references - {table})
    ids = [line["id"] for line in of_table(tmp_path / "lab.jsonl", "context_registry")]
    assert ids == sorted(ids)
    chunks = [
        (line["context_id"], line["set"], line["position"])
        for line in of_table(tmp_path / "lab.jsonl", "context_chunks")
    ]
    assert chunks == sorted(chunks)


@pytest.mark.parametrize("name", ["lab.jsonl", "lab.jsonl.gz"])
def test_the_same_lab_always_gives_the_same_bytes(full: Lab, tmp_path: Path, name: str) -> None:
    full.export(tmp_path / name)
    first = (tmp_path / name).read_bytes()
    full.export(tmp_path / name)
    assert (tmp_path / name).read_bytes() == first


def test_a_compressed_export_holds_the_same_lines(full: Lab, tmp_path: Path) -> None:
    full.export(tmp_path / "lab.jsonl")
    full.export(tmp_path / "lab.jsonl.gz")
    assert gzip.decompress((tmp_path / "lab.jsonl.gz").read_bytes()) == (tmp_path / "lab.jsonl").read_bytes()


def test_while_others_write_an_export_is_as_of_one_moment(
    full: Lab, empty: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autom8_lab.exchange.writing.ROWS_AT_ONCE", 7)
    monkeypatch.setattr("autom8_lab.exchange.writing.TEXTS_AT_ONCE", 3)
    stop, errors = threading.Event(), list[BaseException]()

    def write() -> None:
        number = 0
        try:
            while not stop.is_set():
                with full.transaction():
                    full.store_context(f"Written meanwhile {number}.", context_id=f"a-{number}", source="meanwhile")
                    full.record_usage("m", input_tokens=number, output_tokens=0, agent="meanwhile")
                number += 1
        except BaseException as exc:
            errors.append(exc)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        full.export(tmp_path / "lab.jsonl")
    finally:
        stop.set()
        writer.join()
    assert errors == []
    empty.import_export(tmp_path / "lab.jsonl")
    stored = empty.list_contexts(source="meanwhile")
    assert len(stored) == len(empty.ledger_df(agent="meanwhile"))
    assert empty.check().empty
    assert full.stats()["contexts"] > empty.stats()["contexts"]


@pytest.mark.only_sqlite
def test_a_damaged_text_is_not_exported_and_the_older_export_stays(full: Lab, tmp_path: Path) -> None:
    full.export(tmp_path / "lab.jsonl")
    before = (tmp_path / "lab.jsonl").read_bytes()
    connection = sqlite3.connect(full.config.db_path, isolation_level=None)
    connection.execute("UPDATE context_registry SET content = 'another' WHERE id = 'note-00009'")
    with pytest.raises(al.DamagedLab, match=r"'note-00009' does not fit its hash.*al\.repair"):
        full.export(tmp_path / "lab.jsonl")
    assert (tmp_path / "lab.jsonl").read_bytes() == before
    assert [item.name for item in tmp_path.iterdir() if "lab.db" not in item.name] == ["lab.jsonl"]


def test_nothing_but_an_older_export_is_replaced(full: Lab, tmp_path: Path, backend: str) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "notes.gz").write_bytes(b"mine")
    for name in ("notes.txt", "notes.gz", *(["lab.db"] if backend == "sqlite" else [])):
        with pytest.raises(al.InvalidValue, match="is no export of a lab"):
            full.export(tmp_path / name)
    with pytest.raises(al.InvalidValue, match="is a folder"):
        full.export(tmp_path)
    with pytest.raises(al.StorageError, match="no folder"):
        full.export(tmp_path / "nowhere" / "lab.jsonl")
    with pytest.raises(al.InvalidValue, match="vectors='no'"):
        full.export(tmp_path / "lab.jsonl", vectors="no")  # type: ignore[arg-type]
    assert (tmp_path / "notes.txt").read_text() == "mine"


# And back


@pytest.mark.parametrize("name", ["lab.jsonl", "lab.jsonl.gz"])
def test_a_round_trip_loses_nothing(full: Lab, empty: Lab, tmp_path: Path, name: str) -> None:
    full.embed_contexts("hash-32")  # a second set, and a retired one
    full.export(tmp_path / name)
    report = empty.import_export(tmp_path / name)
    assert report["rows"] == sum(full._storage.count(table) for table in full._storage.tables())
    empty.export(tmp_path / f"again-{name}")
    assert (tmp_path / f"again-{name}").read_bytes() == (tmp_path / name).read_bytes()
    assert empty.check().empty
    assert empty.get_context("another-name") == full.get_context("another-name")
    assert empty.get_context("note-00002").superseded_by == "newer"
    for method in ("text", "semantic", "hybrid"):
        ours = [(hit.context.id, hit.score) for hit in empty.search("copper engine harbour", method=method)]
        assert ours == [(hit.context.id, hit.score) for hit in full.search("copper engine harbour", method=method)]
    assert empty.ledger_df().equals(full.ledger_df())
    assert empty.decisions_df().equals(full.decisions_df())
    assert empty.settings_df().equals(full.settings_df())


def test_a_round_trip_through_a_lab_in_memory_gives_the_same_bytes(full: Lab, tmp_path: Path) -> None:
    full.export(tmp_path / "lab.jsonl")
    with al.open(":memory:", embedding_model="hash-64", access_log=False) as lab:
        lab.import_export(tmp_path / "lab.jsonl")
        lab.export(tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "lab.jsonl").read_bytes()


def test_without_vectors_the_texts_come_and_get_them_again(full: Lab, empty: Lab, tmp_path: Path) -> None:
    full.export(tmp_path / "lab.jsonl", vectors=False)
    assert {line["table"] for line in parsed(tmp_path / "lab.jsonl")[1:-1]}.isdisjoint(lines.VECTOR_TABLES)
    empty.import_export(tmp_path / "lab.jsonl")
    assert empty.health()["without_vectors"] == full.stats()["contexts"]
    empty.embed_contexts()
    ours = [(hit.context.id, hit.score) for hit in empty.search("copper engine harbour", method="semantic")]
    assert ours == [(hit.context.id, hit.score) for hit in full.search("copper engine harbour", method="semantic")]


def test_the_numbers_that_users_know_stay_the_same(full: Lab, empty: Lab, tmp_path: Path) -> None:
    full._storage.delete("usage_ledger", [Condition("usage_key", "=", 5)])
    full.export(tmp_path / "lab.jsonl")
    empty.import_export(tmp_path / "lab.jsonl")
    assert list(empty.ledger_df()["usage_key"]) == list(full.ledger_df()["usage_key"])
    assert empty.record_usage("m", input_tokens=1, output_tokens=1) == full._storage.count("usage_ledger") + 2


def test_the_import_is_noted(full: Lab, empty: Lab, tmp_path: Path) -> None:
    exported = full.export(tmp_path / "lab.jsonl")
    empty.import_export(tmp_path / "lab.jsonl")
    (entry,) = empty._storage.rows("care_log")
    assert (entry["kind"], entry["details"]) == (
        "import",
        {"path": str(tmp_path / "lab.jsonl"), "sha256": exported["sha256"]},
    )


def test_a_lab_with_something_in_it_is_not_imported_into(full: Lab, empty: Lab, tmp_path: Path) -> None:
    full.export(tmp_path / "lab.jsonl")
    empty.record_usage("m", input_tokens=1, output_tokens=1)
    with pytest.raises(al.InvalidValue, match=r"has 1 rows in usage_ledger: import into an empty one"):
        empty.import_export(tmp_path / "lab.jsonl")


def change(path: Path, edit: Callable[[list[dict[str, Any]]], None]) -> None:
    """Edit the lines of an export, and make its end fit again."""
    content = parsed(path)
    edit(content)
    *rows, end = [lines.line_of(line) for line in content]
    if "end" in content[-1]:
        end = lines.line_of({**content[-1], "sha256": hashlib.sha256(b"".join(rows)).hexdigest()})
    path.write_bytes(b"".join([*rows, end]))


def first(content: list[dict[str, Any]], table: str) -> dict[str, Any]:
    return next(line for line in content if line.get("table") == table)


EDITS: list[tuple[Callable[[list[dict[str, Any]]], Any], str]] = [
    (lambda c: first(c, "context_registry").update(content="another"), "does not fit its hash"),
    (lambda c: first(c, "context_registry").pop("content"), "'content' is missing"),
    (lambda c: first(c, "context_registry").update(created_at="yesterday"), "created_at='yesterday' is no time"),
    (lambda c: first(c, "context_registry").update(created_at="2026-01-01T00:00:00"), "is no time"),
    (lambda c: first(c, "context_registry").update(pinned=1), "pinned=1 is no flag"),
    (lambda c: first(c, "context_registry").update(metadata="{}"), "metadata='{}' is no document"),
    (lambda c: first(c, "context_registry").update(colour="red"), "has no 'colour'"),
    (lambda c: first(c, "context_registry").update(context_key=1), "has no 'context_key'"),
    (lambda c: first(c, "embeddings").update(vector="!"), "vector='!' is no bytes"),
    (lambda c: first(c, "embeddings").update(vector="AAAA"), "dimensions need four each"),
    (lambda c: first(c, "embeddings").update(vector="AADAfw==", dimensions=1), "NaN"),
    (lambda c: first(c, "context_chunks").update(context_id="nobody"), "a chunk of 'nobody'"),
    (lambda c: first(c, "context_chunks").update(set=9), "in set 9"),
    (lambda c: first(c, "usage_ledger").update(input_tokens="many"), "input_tokens='many' is no number"),
    (lambda c: first(c, "usage_ledger").update(table="elsewhere"), "there is no table 'elsewhere'"),
    (lambda c: c.pop(), "ends in the middle"),
    (lambda c: c[0].update(format="another"), "is no export of a lab"),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "message"), EDITS, ids=[message for _, message in EDITS])
def test_a_line_that_makes_no_sense_is_named_and_nothing_is_imported(
    empty: Lab, exported: Path, edit: Callable[[list[dict[str, Any]]], Any], message: str
) -> None:
    change(exported, edit)
    with pytest.raises(al.InvalidValue, match=message):
        empty.import_export(exported)
    assert empty.stats()["contexts"] == empty.stats()["usage_rows"] == 0
    assert empty._storage.rows("care_log") == []


@pytest.mark.parametrize("edit", [{"version": 2}, {"schema": "m999_future"}, {"version": "x"}])
def test_the_export_of_a_newer_version_is_refused(empty: Lab, exported: Path, edit: dict[str, Any]) -> None:
    change(exported, lambda content: content[0].update(edit))
    with pytest.raises(al.NewerSchema, match="pip install -U autom8_lab"):
        empty.import_export(exported)


def test_an_export_of_an_older_version_lacks_columns_and_tables_and_is_read(empty: Lab, exported: Path) -> None:
    def older(content: list[dict[str, Any]]) -> None:
        content[0]["schema"] = "m006_settings_log"
        content[:] = [line for line in content if line.get("table") not in ("judgments", "judged_queries")]
        for line in content:
            if line.get("table") == "access_log":
                del line["top_similarity"]

    change(exported, older)
    empty.import_export(exported)
    assert len(empty.searches_df()) == 3
    assert empty.check().empty


@pytest.mark.parametrize("name", ["lab.jsonl", "lab.jsonl.gz"])
def test_damage_anywhere_is_noticed_and_nothing_is_imported(full: Lab, empty: Lab, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    full.export(path)
    data = path.read_bytes()
    changes = [data[: len(data) // 2], data[:-30], data[:100] + data[200:], b""]
    middle = len(data) // 2
    changes += [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(20, len(data), len(data) // 7)]
    changes += [data[:middle] + b"\n" + data[middle:]]
    for changed in changes:
        path.write_bytes(changed)
        with pytest.raises(al.LabError):
            empty.import_export(path)
        assert empty.stats()["contexts"] == 0
    with pytest.raises(al.LabNotFound, match="no export at"):
        empty.import_export(tmp_path / "nowhere.jsonl")


# The format


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@quick
@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_a_line_is_one_line_and_says_the_same_whatever_the_order_of_its_keys(content: dict[str, Any]) -> None:
    content.pop("table", None)
    line = lines.line_of({"table": "t", **content})
    assert line == lines.line_of({"table": "t", **dict(reversed(content.items()))})
    assert line.count(b"\n") == 1
    assert line.startswith(b'{"table": "t"')
    assert json.loads(line) == {"table": "t", **content}


def test_an_export_needs_no_more_memory_for_more_rows(tmp_path: Path) -> None:
    import tracemalloc

    peaks = []
    for count in (200, 1_200):
        with al.open(tmp_path / f"{count}.db", embedding_model="hash-64", synchronous="OFF", access_log=False) as lab:
            lab.store_contexts([whole_lab.text(number) for number in range(count)], progress=False)
            tracemalloc.start()
            lab.export(tmp_path / f"{count}.jsonl")
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        with al.open(tmp_path / f"{count}-again.db", embedding_model="hash-64", synchronous="OFF") as lab:
            tracemalloc.start()
            lab.import_export(tmp_path / f"{count}.jsonl")
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[2] < 3 * peaks[0] + 2_000_000
    assert peaks[3] < 3 * peaks[1] + 2_000_000
    assert max(peaks) < 30_000_000
