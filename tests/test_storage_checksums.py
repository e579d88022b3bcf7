"""Every row has a checksum that fits it, whoever wrote it and however."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import whole_lab
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlite_utils import Database
from sqlite_utils.utils import sqlite3

import autom8_lab as al
from autom8_lab.lab import Lab
from autom8_lab.records import Condition
from autom8_lab.storage import checksums, migrations

quick = settings(derandomize=True, deadline=None, max_examples=200, database=None)
# What can be made again from other tables, and the record of what was done to the file.
DERIVED = {"chunk_deletions", "index_state", "care_log", "_sqlite_migrations"}
CHECKED_OTHERWISE = {"context_chunks"}  # each chunk names the hash of its span


@pytest.fixture
def full(lab: Lab) -> Lab:
    whole_lab.fill(lab)
    return lab


@pytest.fixture
def outside(lab: Lab) -> Iterator[Database]:
    """The file as another program sees it, through the same driver."""
    connection = sqlite3.connect(lab.config.db_path, isolation_level=None)
    yield Database(connection, execute_plugins=False)
    connection.close()


def sealed_tables(database: Database) -> list[str]:
    plain = checksums.plain_tables(database)
    return [name for name in plain if "checksum" in database.table(name).columns_dict]


def wrong_rows(database: Database) -> list[tuple[str, Any]]:
    """Return table and rowid of each row whose checksum is missing or does not fit."""
    wrong = []
    for table in sealed_tables(database):
        seal = checksums.seal_of(database, table)
        assert seal is not None
        names = ", ".join(f'"{name}"' for name in [*seal.columns, *seal.apart])
        for rowid, checksum, *cells in database.execute(f'SELECT rowid, checksum, {names} FROM "{table}"').fetchall():
            if checksum != seal.of(cells):
                wrong.append((table, rowid))
    return wrong


def test_every_table_of_what_cannot_be_derived_has_checksums(lab: Lab, outside: Database) -> None:
    virtual = {"context_registry_fts", "vec_embeddings"}
    tables = {
        name for name in outside.table_names() if not any(name.startswith(part) for part in (*virtual, "sqlite_"))
    }
    assert tables - DERIVED - CHECKED_OTHERWISE == set(sealed_tables(outside))


def test_all_that_a_lab_writes_is_sealed(full: Lab, outside: Database) -> None:
    assert {name for name in sealed_tables(outside) if not outside.table(name).count} == set()
    assert wrong_rows(outside) == []


@pytest.mark.parametrize("volatile", ["accessed_at", "access_count"])
def test_a_read_keeps_the_checksum_right_and_is_part_of_it(full: Lab, outside: Database, volatile: str) -> None:
    for _ in range(3):
        full.get_context("note-00009")
    full._access.flush()
    before = outside.execute("SELECT access_count FROM context_registry WHERE id = 'note-00009'").fetchone()[0]
    assert before >= 3
    assert wrong_rows(outside) == []
    outside.execute("DROP TRIGGER context_registry_unseal")
    outside.execute(f"UPDATE context_registry SET {volatile} = substr({volatile}, 1, 3) + 1 WHERE id = 'note-00009'")
    assert len(wrong_rows(outside)) == 1


def test_a_row_that_another_program_changes_loses_its_checksum_until_the_labs_next_change(
    full: Lab, outside: Database
) -> None:
    outside.execute("UPDATE context_registry SET topic = 'by hand' WHERE id = 'note-00008'")
    outside.execute(
        "INSERT INTO context_aliases VALUES ('by-hand', 'note-00008', '2026-01-01T00:00:00.000000+00:00', NULL)"
    )
    empty = outside.execute("SELECT id FROM context_registry WHERE checksum IS NULL").fetchall()
    assert empty == [("note-00008",)]
    full.pin_context("note-00009")
    assert wrong_rows(outside) == [("context_aliases", outside.table("context_aliases").count)]
    full.delete_context("another-name")
    full._storage.update("context_aliases", [Condition("alias", "=", "nobody")], {"alias": "x"})
    assert wrong_rows(outside) == []


def test_what_follows_from_a_change_in_another_table_is_sealed_too(full: Lab, outside: Database) -> None:
    full.store_context(whole_lab.text(9), context_id="ninth")
    full.store_context("Another text replaces the ninth.", context_id="tenth", supersedes="ninth")
    full.store_context("And another the one that replaced it.", context_id="eleventh", supersedes="tenth")
    full.store_context("Another text replaces the ninth.", context_id="tenth-too")
    full.delete_context("note-00009")  # its alias becomes the id
    assert outside.execute("SELECT superseded_by FROM context_registry WHERE id = 'ninth'").fetchone() == ("tenth",)
    full._storage.delete("agent_decisions", [])
    full._storage.delete("context_registry", [Condition("id", "=", "tenth")])
    assert outside.execute("SELECT count(*) FROM usage_ledger WHERE decision_id IS NOT NULL").fetchone() == (0,)
    assert outside.execute("SELECT superseded_by FROM context_registry WHERE id = 'ninth'").fetchone() == (None,)
    assert wrong_rows(outside) == []


def test_a_transaction_that_is_repeated_seals_what_it_stores(full: Lab, outside: Database) -> None:
    with full.transaction():
        full.store_context("Both or neither.", context_id="both")
        full.pin_context("both")
        full.record_usage("gpt-4o", input_tokens=1, output_tokens=1)
    assert wrong_rows(outside) == []


def test_any_flipped_bit_of_any_cell_changes_the_checksum(full: Lab, outside: Database) -> None:
    draw = random.Random(5)
    for table in sealed_tables(outside):
        seal = checksums.seal_of(outside, table)
        assert seal is not None
        names = [*seal.columns, *seal.apart]
        rows = outside.execute(f"SELECT {', '.join(names)} FROM {table}").fetchall()
        for row in draw.sample(rows, min(8, len(rows))):
            for place, cell in enumerate(row):
                other = flipped(cell, draw)
                if other != cell:
                    changed = [*row[:place], other, *row[place + 1 :]]
                    assert seal.of(changed) != seal.of(row), (table, names[place], cell, other)


def flipped(cell: Any, draw: random.Random) -> Any:
    if cell is None:
        return None
    if isinstance(cell, int):
        return cell ^ (1 << draw.randrange(31))
    data = np.float64(cell).tobytes() if isinstance(cell, float) else cell.encode() if isinstance(cell, str) else cell
    if not data:
        return cell
    place = draw.randrange(len(data))
    other = data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))]) + data[place + 1 :]
    return float(np.frombuffer(other, dtype=np.float64)[0]) if isinstance(cell, float) else other


storable = st.characters(exclude_categories=["Cs"], exclude_characters="\0")  # as `validation.storable` has it
cells = st.one_of(st.none(), st.text(storable, max_size=5))
numbers = st.one_of(st.none(), st.integers(-(2**31), 2**31), st.floats(allow_nan=False), st.just(-0.0))


@quick
@given(st.lists(st.tuples(cells, numbers, numbers, cells), min_size=1, max_size=6))
def test_rows_columns_and_sql_agree_on_a_checksum(rows: list[tuple[Any, ...]]) -> None:
    database = Database(memory=True)
    database.execute("CREATE TABLE t (key INTEGER PRIMARY KEY, a TEXT, b REAL, c REAL, d TEXT, e INTEGER DEFAULT 7)")
    checksums.add_checksums(database, "t")
    seal = checksums.seal_of(database, "t")
    assert seal is not None
    names = ["a", "b", "c", "d"]
    database.conn.executemany("INSERT INTO t (a, b, c, d) VALUES (?, ?, ?, ?)", rows)
    seal.renew(database)
    stored = [row[0] for row in database.execute("SELECT checksum FROM t ORDER BY key")]
    columns = [list(column) for column in zip(*rows, strict=True)]
    given_columns = [
        np.array([np.nan if cell is None else cell for cell in column], dtype=float) if name in "bc" else column
        for name, column in zip(names, columns, strict=True)
    ]
    assert seal.of_rows(names, rows) == stored
    assert seal.of_columns(names, given_columns, columns) == stored
    database.close()


def test_a_column_that_is_added_later_changes_no_checksum_and_one_that_goes_is_accounted_for(full: Lab) -> None:
    storage: Any = full._storage
    with storage._pool.transaction() as transaction:
        database = transaction.database
        with storage._seals.kept(database):
            database.table("access_log").add_column("nearest", float)
        assert wrong_rows(database) == []
        database.execute("UPDATE access_log SET nearest = 0.5")
        storage._seals.after_update(database, "access_log", ["nearest"])
        assert wrong_rows(database) == []
        with storage._seals.kept(database):
            database.execute("ALTER TABLE access_log DROP COLUMN nearest")
        assert wrong_rows(database) == []


def test_an_older_file_gets_its_checksums_when_it_is_migrated(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with al.open(path, embedding_model="hash-64") as lab:
        whole_lab.fill(lab)
    al.run_migrations(path, to=migrations.names().index("m008_checksums"))
    connection = sqlite3.connect(path)
    database = Database(connection, execute_plugins=False)
    assert sealed_tables(database) == []
    al.run_migrations(path)
    assert set(sealed_tables(database)) >= set(migrations.SEALED)
    assert wrong_rows(database) == []
    connection.close()


def test_checksums_are_no_business_of_whoever_reads_rows(full: Lab) -> None:
    assert "checksum" not in full._storage.rows("usage_ledger", limit=1)[0]
    with pytest.raises(al.InvalidValue, match="no column 'checksum'"):
        full._storage.rows("usage_ledger", columns=["checksum"])
