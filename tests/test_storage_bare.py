"""The bare statements do what a lab does to its tables, so that they may be compared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from sqlite_utils import Database
from sqlite_utils.utils import sqlite3

from autom8_lab.diagnostics.figures.material import PreparedEncoder, clustered_vectors, plain_lab, texts
from autom8_lab.lab import Lab
from autom8_lab.storage.bare import LEDGER, TABLES, BareFile, BareVecTable

COUNT = 12
TEXTS = texts(COUNT, seed=0)
ENCODER = PreparedEncoder(clustered_vectors(COUNT, dimensions=16, seed=0), texts=TEXTS)


@pytest.fixture
def donor(tmp_path: Path) -> Iterator[Lab]:
    with plain_lab(tmp_path / "donor.db", encoder=ENCODER) as opened:
        opened.store_contexts([{"context_id": f"c{n}", "content": text} for n, text in enumerate(TEXTS)])
        opened.record_usage("gpt-4o-mini", input_tokens=812, output_tokens=120, latency_ms=930.5)
        yield opened


@pytest.fixture
def empty(tmp_path: Path, donor: Lab) -> Path:
    """A file with the schema and the embedding set, and nothing else."""
    path = tmp_path / "empty.db"
    with plain_lab(path, encoder=ENCODER) as opened:
        opened.delete_context(opened.store_context("It leaves a set behind."))
    return path


def cells(path: str | Path, table: str) -> list[tuple[object, ...]]:
    with closing(BareFile(path)) as file:
        names = ", ".join(name for name in file.names[table] if name != "context_key")
    database = Database(str(path))
    try:
        return database.execute(f"select {names} from {table} order by rowid").fetchall()
    finally:
        database.close()


@pytest.mark.parametrize("at_once", [True, False])
def test_what_is_stored_bare_is_what_the_lab_stores(donor: Lab, empty: Path, at_once: bool) -> None:
    with closing(BareFile(donor.config.db_path)) as file:
        rows = file.contexts()
    assert len(rows) == COUNT
    with closing(BareFile(empty)) as file:
        if at_once:
            file.store_many(rows[:7])
            file.store_many(rows[7:])
        else:
            for row in rows:
                file.store(row)
    for table in TABLES:
        assert cells(empty, table) == cells(donor.config.db_path, table)
    with plain_lab(empty, encoder=ENCODER) as opened:
        for number, text in enumerate(TEXTS):
            assert opened.search(text, k=1, method="semantic")[0].context.id == f"c{number}"
            assert opened.search(text, k=1, method="text")[0].context.content == text


def test_a_store_that_fails_leaves_nothing_and_the_next_one_works(donor: Lab, empty: Path) -> None:
    with closing(BareFile(donor.config.db_path)) as file:
        rows = file.contexts()
    with closing(BareFile(empty)) as file:
        file.store(rows[0])
        with pytest.raises(sqlite3.IntegrityError):
            file.store(rows[0])
        file.store(rows[1])
        assert [name for name, _ in file.contents()] == ["c0", "c1"]


def test_a_call_is_recorded_as_the_lab_records_it(donor: Lab, empty: Path) -> None:
    with closing(BareFile(donor.config.db_path)) as file:
        (row,) = file.ledger_rows()
    with closing(BareFile(empty)) as file:
        file.record(row)
    assert cells(empty, LEDGER) == cells(donor.config.db_path, LEDGER)
    with plain_lab(empty, encoder=ENCODER) as opened:
        assert opened.ledger_df()["output_tokens"].tolist() == [120]


def test_reading_gives_the_context_the_words_rank_and_the_vectors(donor: Lab) -> None:
    with closing(BareFile(donor.config.db_path)) as file:
        row = dict(zip(file.names["context_registry"], file.context("c3"), strict=True))
        assert row["content"] == TEXTS[3]
        words = TEXTS[5].split()[:3]
        hits = donor.search(" ".join(words), method="text", k=5)
        ranked = file.matches(words, 5)
        found = {item[0]: item for item in file.rows([key for key, _ in ranked])}
        assert [found[key][1] for key, _ in ranked] == [hit.context.id for hit in hits]
        assert [score for _, score in ranked] == pytest.approx([hit.score for hit in hits])
        keys, vectors = file.vectors()
        assert keys.tolist() == sorted(keys.tolist())
        assert (vectors == ENCODER.encode_documents(TEXTS)).all()


def test_a_context_counts_as_there_only_with_its_vector(donor: Lab) -> None:
    with closing(BareFile(donor.config.db_path)) as file:
        assert dict(file.contents()) == {f"c{number}": text for number, text in enumerate(TEXTS)}
        database = Database(donor.config.db_path)
        database.execute("delete from embeddings where embedding_key = (select min(embedding_key) from embeddings)")
        database.conn.commit()
        database.close()
        assert len(file.contents()) == COUNT - 1


def test_the_vector_table_finds_the_nearest(tmp_path: Path) -> None:
    vectors = clustered_vectors(300, dimensions=16, seed=3)
    with closing(BareVecTable(tmp_path / "vectors.db", dimensions=16)) as table:
        if table.missing is not None:
            pytest.skip(table.missing)
        table.add(vectors)
        found = table.nearest(vectors[7], 5)
    assert found == np.argsort(-(vectors @ vectors[7]), kind="stable")[:5].tolist()
    assert found[0] == 7
