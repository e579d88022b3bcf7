"""A whole book as one context, every character in a chunk; and the vectors of queries, which are remembered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autom8_lab as al
from autom8_lab.embedding import HashEncoder
from autom8_lab.embedding.model_files import offline_model_path
from autom8_lab.indexing import QUERY_VECTORS, REMEMBERED_CHARACTERS
from autom8_lab.lab import Lab
from autom8_lab.records import Chunk

BOTH_BACKENDS = True


class RealTokens(HashEncoder):
    """The real model's tokens, so that the chunks are the real ones, with vectors that cost nothing."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(dimensions=384)
        self.name = self.model_id = "real-tokens"
        self.max_tokens = 254
        self.tokenizer = tokenizer


@pytest.fixture(scope="module")
def encoder() -> RealTokens:
    folder = offline_model_path()
    if folder is None:
        pytest.skip("needs the extra offline-model")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return RealTokens(tokenizer)


@pytest.mark.only_sqlite
def test_war_and_peace_is_one_context_of_which_every_character_is_found(
    shared_data: Path, encoder: RealTokens, place: Callable[[str], str]
) -> None:
    # As published: with a byte order mark and carriage returns.
    book = (shared_data / "gutenberg" / "war_and_peace_2600.txt").read_bytes().decode("utf-8")
    middle = len(book) // 2
    sentence = max(book[middle - 3_000 : middle + 3_000].split(". "), key=len)[:300]
    path = place("book.db")
    with al.open(path, encoder=encoder, synchronous="OFF") as lab:
        lab.store_context(book, context_id="war-and-peace")
        assert lab.get_context("war-and-peace").content == book
        covered = 0
        for row in lab._storage.rows("context_chunks", order_by=["position"]):
            assert row["start_char"] <= covered < row["end_char"]
            covered = row["end_char"]
        assert covered == len(book)
        for method in ("text", "semantic", "hybrid"):
            hit = lab.search(sentence, method=method, k=1)[0]
            assert hit.chunk_start is not None
            assert hit.chunk_end is not None
            start = book.index(sentence)
            assert hit.chunk_start < start + len(sentence), method
            assert hit.chunk_end > start, method
            assert hit.chunk == book[hit.chunk_start : hit.chunk_end]


class CountingEncoder(HashEncoder):
    """A hash encoder that remembers which queries it was asked for."""

    def __init__(self, name: str = "counting") -> None:
        super().__init__(dimensions=16)
        self.name, self.model_id = name, f"{name}@1"
        self.queries: list[str] = []

    def encode_documents(self, texts: Sequence[str]) -> Any:
        return HashEncoder(dimensions=self.dimensions).encode_documents(texts)

    def encode_query(self, text: str) -> Any:
        self.queries.append(text)
        return super().encode_query(text)


def counted(path: Path | str, encoder: CountingEncoder) -> Lab:
    lab = al.open(path, encoder=encoder, synchronous="OFF")
    lab.store_contexts([{"id": name, "content": f"the {name} text"} for name in ("red", "green", "blue")])
    return lab


def test_a_query_that_comes_again_is_not_encoded_again(place: Callable[[str], str]) -> None:
    encoder = CountingEncoder()
    with counted(place("lab.db"), encoder) as lab:
        first = lab.search_df("red", method="semantic")
        for _ in range(3):
            again = lab.search_df("red", method="semantic")
            assert again["similarity"].tolist() == first["similarity"].tolist()
        lab.search("green")
        lab.search("red", method="text")
        assert encoder.queries == ["red", "green"]
        lab.store_context("the red text again", context_id="new")  # a vector depends on no context
        assert "new" in lab.search_df("red", method="semantic")["context_id"].tolist()
        assert encoder.queries == ["red", "green"]


def test_each_model_has_vectors_of_its_own(place: Callable[[str], str]) -> None:
    encoder, other = CountingEncoder(), CountingEncoder("other")
    counted(place("lab.db"), encoder).close()
    with pytest.warns(al.EmbeddingModelWarning):
        lab = al.open(place("lab.db"), encoder=other)
    with lab:
        lab.embed_contexts()
        lab.search("red", method="semantic")
        assert (encoder.queries, other.queries) == ([], ["red"])
    again = CountingEncoder()
    with counted(place("again.db"), again) as lab:
        lab.search("red", method="semantic")
        again.model_id = "counting@2"  # other weights under the same name
        lab.embed_contexts()
        lab.search("red", method="semantic")
        assert again.queries == ["red", "red"]
    again.queries.clear()
    with counted(":memory:", again) as one, counted(":memory:", again) as another:
        for lab in (one, another):
            lab.search("red", method="semantic")
    assert again.queries == ["red", "red"]  # two labs may hold two encoders of one name


def test_the_latest_queries_are_remembered_up_to_a_bound(place: Callable[[str], str]) -> None:
    encoder = CountingEncoder()
    with counted(place("lab.db"), encoder) as lab:
        index = lab._index
        for number in range(QUERY_VECTORS + 1):
            index.query_vector(f"query {number}")
        index.query_vector(f"query {QUERY_VECTORS}")
        index.query_vector("query 1")
        assert len(encoder.queries) == QUERY_VECTORS + 1
        index.query_vector("query 0")
        assert encoder.queries[QUERY_VECTORS + 1 :] == ["query 0"]


def test_long_queries_are_not_kept(place: Callable[[str], str]) -> None:
    encoder = CountingEncoder()
    with counted(place("lab.db"), encoder) as lab:
        for query in ("x" * REMEMBERED_CHARACTERS, "x" * (REMEMBERED_CHARACTERS + 1)):
            for _ in range(2):
                lab._index.query_vector(query)
    assert [len(query) for query in encoder.queries] == [2_000, 2_001, 2_001]


def test_a_remembered_vector_cannot_be_changed(place: Callable[[str], str]) -> None:
    with counted(place("lab.db"), CountingEncoder()) as lab:
        found = lab._index.query_vector("red")
        assert found is not None
        with pytest.raises(ValueError, match="read-only"):
            found[1][0] = 2
        again = lab._index.query_vector("red")
        assert again is not None
        assert np.array_equal(found[1], again[1])


def test_a_query_that_cannot_be_encoded_is_tried_again(place: Callable[[str], str]) -> None:
    encoder = CountingEncoder()
    with counted(place("lab.db"), encoder) as lab:
        broken = np.full(16, np.nan, dtype=np.float32)
        encoder.encode_query = lambda text: broken  # type: ignore[method-assign]
        with pytest.raises(al.InvalidVector):
            lab.search("red", method="semantic")
        del encoder.encode_query
        assert lab.search("red", method="semantic", k=1)[0].context.id == "red"


@pytest.mark.parametrize("count", [1, 3])
def test_a_text_gets_its_vectors_from_the_model_that_serves_when_it_is_stored(
    place: Callable[[str], str], count: int
) -> None:
    path = place("lab.db")
    with al.open(path, embedding_model="hash-16", synchronous="OFF") as lab:
        lab.store_context("red", context_id="red")  # from here on the lab presumes that hash-16 serves
        with pytest.warns(al.EmbeddingModelWarning), al.open(path, embedding_model="hash-32") as other:
            other.embed_contexts()
        names = [f"new {number}" for number in range(count)]
        lab.store_contexts([{"id": name, "content": f"a {name} text"} for name in names])
        sets = {row["set_key"]: row for row in lab._storage.rows("embedding_sets")}
        chunks = lab._storage.rows("context_chunks")
        new = [sets[row["set_key"]]["dimensions"] for row in chunks[-count:]]
        assert new == [32] * count
        assert lab.stats()["without_vectors"] == 0
        assert lab.search_df("a new 0 text", method="semantic")["context_id"].iloc[0] == "new 0"


def test_a_text_is_not_stored_while_the_model_changes_again_and_again(
    place: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with al.open(place("lab.db"), embedding_model="hash-16", synchronous="OFF") as lab:
        lab.store_context("red", context_id="red")
        monkeypatch.setattr(lab._storage, "add_chunks", lambda *_, **__: False)
        with pytest.raises(al.LabBusy, match="embedding model of the lab is being changed"):
            lab.store_context("green")
        assert [context.id for context in lab.list_contexts()] == ["red"]


CHANGES = [
    {},
    {"model_id": "other@1"},
    {"state": "retired"},
    {"chunk_tokens": 7},
    {"chunk_overlap_tokens": 3},
    {"set_key": 99},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change), "as it is"))
def test_first_chunks_are_refused_where_the_set_is_another_than_the_one_they_were_made_for(
    place: Callable[[str], str], change: dict[str, Any]
) -> None:
    with al.open(place("lab.db"), embedding_model="hash-16", synchronous="OFF") as lab:
        lab.store_context("red", context_id="red")
        active = lab._index.active_set()
        assert active is not None
        row = {**lab._storage.rows("context_registry")[0], "id": "new"}
        del row["context_key"]
        chunk = Chunk(0, 0, 3, "name")
        with lab._storage.transaction():
            lab._storage.insert("context_registry", [row])
            done = lab._storage.add_chunks(
                {"new": [chunk]}, into=replace(active, **change), vectors={"name": np.eye(1, 16, dtype=np.float32)[0]}
            )
        assert done is not bool(change)
        assert len(lab._storage.rows("context_chunks")) == 1 + done
        assert change or list(lab._storage.known_vectors(active.model_id, ["name"])) == ["name"]
