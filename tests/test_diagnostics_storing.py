"""Storing and reading figures: both sides do the same work, and the row says what it was."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from autom8_lab.diagnostics.figures import storing
from autom8_lab.diagnostics.figures.material import Bench, Sizes
from autom8_lab.embedding.encoders import HashEncoder
from autom8_lab.storage.bare import BareFile

SIZES = Sizes(contexts=30, batch=25, calls=4, repeats=2)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, SIZES, seed=1, encoder=HashEncoder(dimensions=16), is_model=True, synchronous="OFF")


def texts_in(path: Path) -> list[str]:
    with closing(BareFile(path)) as file:
        return sorted(content for _, content in file.contents())


def calls_in(path: Path) -> int:
    with closing(BareFile(path)) as file:
        return len(file.ledger_rows())


def test_a_batch_is_the_same_texts_on_both_sides_in_every_round(bench: Bench) -> None:
    made = storing.batch_figure(bench)
    for number in range(SIZES.repeats + 1):
        stored = texts_in(bench.folder / f"batch-{number}.db")
        assert len(stored) == SIZES.batch + 1
        assert stored == texts_in(bench.folder / f"batch-bare-{number}.db")
    assert (made["rounds"], made["unit"]) == (2, "/s")


def test_single_stores_are_the_same_texts_on_both_sides(bench: Bench) -> None:
    storing.single_figure(bench)
    stored = texts_in(bench.folder / "single.db")
    assert len(stored) == SIZES.contexts + SIZES.calls * (SIZES.repeats + 1)
    assert stored == texts_in(bench.folder / "single-bare.db")


def test_single_calls_are_as_many_on_both_sides(bench: Bench) -> None:
    storing.usage_figure(bench)
    assert calls_in(bench.folder / "usage.db") == calls_in(bench.folder / "usage-bare.db") == 12


def test_texts_are_encoded_once_by_each_side(bench: Bench) -> None:
    counting = Counting()
    bench.encoder = counting
    made = storing.encoded_figure(bench)
    assert counting.texts == 2 * SIZES.calls * (SIZES.repeats + 1)
    assert made["against"] == "encoding alone"


class Counting(HashEncoder):
    def __init__(self) -> None:
        super().__init__(dimensions=16)
        self.texts = 0

    def encode_documents(self, texts):  # type: ignore[no-untyped-def]
        self.texts += len(texts)
        return super().encode_documents(texts)


def test_reading_is_of_a_lab_of_so_many_contexts_and_leaves_its_accesses(bench: Bench) -> None:
    (made,) = storing.read_figures(bench)
    assert made["how"].startswith("30 contexts")
    with bench.lab("read") as lab:
        assert len(lab.accesses_df()) == 10 * SIZES.calls * (SIZES.repeats + 1)


def test_without_a_model_nothing_is_said_about_encoding(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Sizes(contexts=5, batch=5, calls=2, repeats=1), 0, HashEncoder(dimensions=8), False, "OFF")
    made = list(storing.store_figures(bench))
    assert [row["what"] for row in made] == ["store_contexts", "store_context", "record_usage"]
    assert all(row["ratio"] > 0 and row["figure"] > 0 for row in made)
