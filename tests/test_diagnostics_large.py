"""The figures of a large lab: every engine answers for itself, and the nearest are the true ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from autom8_lab.diagnostics.figures.fresh import fresh_figure, timed_search
from autom8_lab.diagnostics.figures.large import Large, many_figure, semantic_figure, words_figure
from autom8_lab.diagnostics.figures.material import (
    Bench,
    PreparedEncoder,
    Sizes,
    clustered_vectors,
    plain_lab,
    query_vectors,
)
from autom8_lab.diagnostics.figures.nearest import RawGraph, answers, nearest_figures, nearest_of, product
from autom8_lab.embedding.encoders import HashEncoder

SIZES = Sizes(vectors=400, calls=3, repeats=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Large]:
    with ExitStack() as stack:
        bench = Bench(
            tmp_path_factory.mktemp("large"), SIZES, 0, HashEncoder(dimensions=32), is_model=False, synchronous="OFF"
        )
        yield Large(bench, stack)


def true_nearest(large: Large) -> list[list[int]]:
    return [np.argsort(-(large.vectors @ vector), kind="stable")[:10].tolist() for vector in large.asked]


@pytest.mark.parametrize("engine", ["exact", "hnsw", "sqlite-vec"])
def test_every_engine_answers_for_itself_with_the_row_numbers_of_the_vectors(made: Large, engine: str) -> None:
    if not made.has[engine]:
        pytest.skip(f"{engine} cannot be had here")
    found = nearest_of(made.labs[engine])
    assert [found(vector) for vector in made.asked] == true_nearest(made)
    assert made.labs[engine].search_df("question 0", method="semantic").attrs["engine"] == engine


def test_every_question_has_one_of_the_vectors_and_is_asked_once(made: Large) -> None:
    asked = [*made.questions("one"), *made.questions("another")]
    assert len(set(asked)) == 2 * len(made.asked)
    nearest, encoder = nearest_of(made.labs["exact"]), PreparedEncoder(made.asked)
    hits = made.labs["exact"].search(asked[3], method="semantic")
    assert [int(hit.context.id[1:]) for hit in hits] == nearest(encoder.encode_query(asked[3]))
    assert (made.asked == encoder.encode_query(asked[3])).all(axis=1).any()


def test_a_bare_product_and_a_bare_graph_find_the_nearest() -> None:
    vectors = clustered_vectors(500, dimensions=384, seed=5)
    asked = query_vectors(vectors, 20, seed=6)
    true = [np.argsort(-(vectors @ vector))[:10].tolist() for vector in asked]
    graph, exact = RawGraph(vectors), product(vectors)
    assert [exact(vector) for vector in asked] == true
    assert graph.recall >= 0.99
    assert graph.nbytes > 500 * 384 * 2
    assert [graph.nearest(vector)[0] for vector in asked] == [found[0] for found in true]


def test_an_engine_that_does_not_answer_is_not_taken_for_one_that_does(made: Large) -> None:
    assert answers(made.labs["exact"], made.asked[0], "exact")
    assert not answers(made.labs["exact"], made.asked[0], "hnsw")


def test_each_engine_is_compared_with_the_library_below_it(made: Large) -> None:
    rows = {(row["what"], row.get("against")): row for row in nearest_figures(made)}
    assert ("exact engine", "a NumPy product") in rows
    if made.has["hnsw"]:
        recall = rows["hnsw engine, recall", None]
        assert recall["figure"] == 1.0
        assert rows["hnsw engine", "usearch HNSW"]["unit"] == "ms"
    if made.table.missing is None:
        assert ("sqlite-vec engine", "sqlite-vec") in rows
        assert rows["hnsw engine" if made.has["hnsw"] else "exact engine", "sqlite-vec"]["unit"] == "/s"


def test_searches_by_meaning_and_for_common_words_are_compared(made: Large) -> None:
    semantic, many, words = semantic_figure(made), many_figure(made), words_figure(made)
    assert (semantic["unit"], semantic["against"]) == ("/s", "usearch HNSW and 10 SELECTs")
    assert (many["unit"], many["against"]) == ("/s", "search, one by one")
    assert (words["unit"], words["against"]) == ("ms", "search_df, rare words")
    assert words["ratio"] == pytest.approx(words["figure"] / words["against_figure"])


def test_a_store_of_another_process_is_found_by_the_very_next_search(made: Large) -> None:
    row = fresh_figure(made)
    assert row["lost"] == 0
    assert "of 20 stores" in row["note"]
    assert row["against"] == "search_df, file unchanged"


def test_a_search_tells_only_what_both_rankings_found(tmp_path: Path) -> None:
    encoder = HashEncoder(dimensions=16)
    with plain_lab(tmp_path / "lab.db", encoder=encoder) as lab:
        name = lab.store_context("A harbour in winter.")
        assert timed_search(lab, "harbour winter")[1] == {name}
        lab._storage.delete("context_chunks", [])
        seconds, found = timed_search(lab, "harbour winter")
    assert found == set()
    assert seconds > 0
