"""What a benchmark works on is what it says it is, and the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import autom8_lab as al
from autom8_lab.diagnostics.figures.material import (
    COMMON,
    RARE,
    PreparedEncoder,
    clustered_vectors,
    plain_lab,
    queries,
    query_vectors,
    recall,
    texts,
)
from autom8_lab.embedding.encoders import HashEncoder


def test_texts_have_their_bytes_are_all_different_and_come_from_the_seed() -> None:
    drawn = texts(200, seed=3, length=150)
    assert {len(text.encode()) for text in drawn} == {150}
    assert len(set(drawn)) == 200
    assert texts(200, seed=3, length=150) == drawn
    assert not set(texts(200, seed=4, length=150)) & set(drawn)


def test_common_words_are_in_many_texts_and_rare_ones_in_few() -> None:
    drawn = [set(text.split()) for text in texts(1_000, seed=0)]

    def share(ranks: slice) -> float:
        words = " ".join(queries(50, seed=0, ranks=ranks)).split()
        return float(np.mean([sum(word in text for text in drawn) / len(drawn) for word in words]))

    assert share(COMMON) > 0.2
    assert 0 < share(RARE) < 0.02


def test_queries_are_all_different_and_come_from_the_seed() -> None:
    asked = queries(300, seed=1)
    assert len(set(asked)) == 300
    assert {len(query.split()) for query in asked} == {5}
    assert queries(300, seed=1) == asked
    assert queries(300, seed=2) != asked


def test_vectors_have_length_one_lie_in_clusters_and_come_from_the_seed() -> None:
    vectors = clustered_vectors(500, dimensions=64, seed=1, block=200)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)
    closeness = vectors @ vectors.T - 2 * np.eye(500)
    assert np.median(closeness.max(axis=1)) > np.median(closeness) + 0.4
    assert (clustered_vectors(500, dimensions=64, seed=1, block=200) == vectors).all()
    assert not (clustered_vectors(500, dimensions=64, seed=2, block=200) == vectors).any()


def test_query_vectors_are_near_stored_ones_and_none_of_them() -> None:
    vectors = clustered_vectors(300, dimensions=64, seed=1)
    best = (query_vectors(vectors, 50, seed=2) @ vectors.T).max(axis=1)
    assert ((best > 0.7) & (best < 0.999)).all()


def nearest(vectors: np.ndarray, asked: np.ndarray, k: int) -> list[list[int]]:
    return [np.argsort(-(vectors @ vector))[:k].tolist() for vector in asked]


def test_recall_is_the_share_of_the_true_nearest_that_was_found() -> None:
    vectors = clustered_vectors(300, dimensions=32, seed=1)
    asked = query_vectors(vectors, 100, seed=2)
    true = nearest(vectors, asked, 10)
    assert recall(true, asked, vectors) == 1
    assert recall([list(reversed(found)) for found in true], asked, vectors) == 1
    far = [np.argmin(vectors @ vector).item() for vector in asked]
    assert recall([[*found[:9], last] for found, last in zip(true, far, strict=True)], asked, vectors) == 0.9
    assert recall([found[:1] * 10 for found in true], asked, vectors) == 0.1
    assert recall([[*found[:8], *found[10:12]] for found in nearest(vectors, asked, 12)], asked, vectors) == 0.8


def test_of_equally_near_ones_each_counts() -> None:
    vectors = np.eye(4, dtype=np.float32)
    vectors[3] = vectors[2]
    asked = vectors[2:3]
    assert recall([[2]], asked, vectors) == recall([[3]], asked, vectors) == 1
    assert recall([[0]], asked, vectors) == 0


def test_a_prepared_encoder_gives_a_named_text_its_row_and_every_other_always_the_same() -> None:
    vectors = clustered_vectors(50, dimensions=16, seed=0)
    encoder = PreparedEncoder(vectors, texts=["zero", "one"])
    assert (encoder.encode_documents(["one", "zero"]) == vectors[[1, 0]]).all()
    assert (encoder.encode_query("one") == vectors[1]).all()
    other = PreparedEncoder(vectors)
    assert (encoder.encode_documents(["another"])[0] == other.encode_query("another")).all()
    assert encoder.encode_documents([]).shape == (0, 16)


def test_a_prepared_encoder_can_leave_the_queries_to_a_model() -> None:
    model = HashEncoder(dimensions=16)
    encoder = PreparedEncoder(clustered_vectors(5, dimensions=16, seed=0), queries_by=model)
    assert (encoder.encode_query("two words") == model.encode_query("two words")).all()


def test_a_plain_lab_has_default_settings_and_is_not_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lab: al.Lab
) -> None:
    monkeypatch.setenv("AUTOM8_SYNCHRONOUS", "OFF")
    monkeypatch.setenv("AUTOM8_READ_ONLY", "1")
    (tmp_path / "autom8.yaml").write_text("database: {candidates: 7}\n")
    with plain_lab(tmp_path / "plain.db", embedding_model="hash-8", cache_size=99) as plain:
        assert (plain.config.synchronous, plain.config.read_only, plain.config.candidates) == ("FULL", False, 100)
        assert (plain.config.embedding_model, plain.config.cache_size) == ("hash-8", 99)
        assert plain.store_context("It can be written to.")
        assert al.current_lab() is lab
