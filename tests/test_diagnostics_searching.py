"""Hybrid figures: what is compared with finds the same, and distinct queries are distinct."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from autom8_lab.diagnostics.figures import searching
from autom8_lab.diagnostics.figures.material import Bench, Sizes
from autom8_lab.embedding.encoders import HashEncoder
from autom8_lab.storage.bare import BareFile

SIZES = Sizes(contexts=80, calls=3, repeats=2)


def bench_in(folder: Path, *, is_model: bool) -> Bench:
    return Bench(folder, SIZES, seed=1, encoder=HashEncoder(dimensions=16), is_model=is_model, synchronous="OFF")


def test_what_is_joined_by_hand_is_what_the_lab_finds(tmp_path: Path) -> None:
    bench = bench_in(tmp_path, is_model=True)
    with bench.lab("lab", encoder=bench.encoder) as lab:
        lab.store_contexts(bench.texts(80, part=1))
        with closing(BareFile(lab.config.db_path)) as bare:
            by_hand = searching.ByHand(bare, bench.encoder)
            for query in bench.queries(20, part=2):
                ours, theirs = lab.search_df(query), by_hand.search_df(query)
                assert theirs["score"].tolist() == pytest.approx(ours["score"].tolist())
                assert set(theirs["context_id"]) == set(ours["context_id"])
                texts = dict(zip(ours["context_id"], ours["content"], strict=True))
                assert dict(zip(theirs["context_id"], theirs["content"], strict=True)) == texts


@pytest.mark.parametrize("is_model", [True, False])
def test_distinct_queries_are_asked_once_and_repeated_ones_in_every_round(tmp_path: Path, is_model: bool) -> None:
    bench = bench_in(tmp_path, is_model=is_model)
    made = list(searching.search_figures(bench))
    files = ["search", "search-model"] if is_model else ["search"]
    asked = {}
    for name in files:
        with bench.lab(name, encoder=bench.as_model() if name == "search-model" else None) as lab:
            asked[name] = lab.searches_df()["query"].value_counts().value_counts().to_dict()
    rounds = SIZES.repeats + 1
    if is_model:
        assert [row["what"] for row in made] == [
            "search_df, distinct queries",
            "search_df, distinct queries, encoded",
            "search_df, repeated queries, encoded",
        ]
        assert asked == {"search": {1: 9}, "search-model": {1: 9, rounds: 3}}
    else:
        assert asked == {"search": {1: 9, rounds: 3}}
