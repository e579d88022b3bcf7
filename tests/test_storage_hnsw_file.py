"""The HNSW index beside the file: right when it is used, never needed, and built again when it does not fit."""

from __future__ import annotations

import itertools
import json
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest

import autom8_lab as al
from autom8_lab.lab import Lab
from autom8_lab.storage.hnsw_file import HnswFile
from autom8_lab.vectors.hnsw import HnswIndex
from autom8_lab.vectors.saved import VectorsFile
from autom8_lab.vectors.similarity import Array32

DIMENSIONS = 16
numbers = itertools.count()
COUNT = 400


class Scattered:
    """An encoder that gives each text a direction of its own, the same in every process."""

    name = model_id = "scattered"
    dimensions = DIMENSIONS
    max_tokens = 10_000
    tokenizer = None

    def encode_query(self, text: str) -> Array32:
        return np.random.default_rng(crc32(text.encode())).normal(size=DIMENSIONS).astype(np.float32)

    def encode_documents(self, texts: Sequence[str]) -> Array32:
        return np.stack([self.encode_query(text) for text in texts])


def open_lab(path: Path, engine: str = "auto", **options: Any) -> Lab:
    given = {"hnsw_from_chunks": 100, "synchronous": "OFF", "access_log": False, **options}
    return al.open(path, encoder=Scattered(), vector_engine=engine, **given)


def texts(numbers: range) -> list[dict[str, Any]]:
    return [{"context_id": f"c{n:04}", "content": f"text {n}", "topic": f"t{n % 50}"} for n in numbers]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "lab.db"
    with open_lab(place) as lab:
        lab.store_contexts(texts(range(COUNT)))
        lab.build_vector_index()
    return place


def answers(lab: Lab, queries: int = 30, **filters: Any) -> list[list[tuple[str, float]]]:
    hits = [lab.search(f"question {n}", method="semantic", k=5, **filters) for n in range(queries)]
    return [[(hit.context.id, hit.similarity or 0.0) for hit in found] for found in hits]


def engine_of(lab: Lab) -> tuple[str, str]:
    attrs = lab.search_df(f"which engine? {next(numbers)}", method="semantic").attrs  # never asked before
    return attrs["engine"], attrs["engine_reason"]


def exactly(path: Path, **filters: Any) -> list[list[tuple[str, float]]]:
    with open_lab(path, "exact") as lab:
        assert engine_of(lab)[0] == "exact"
        return answers(lab, **filters)


def as_good_as_exact(found: list[list[tuple[str, float]]], exact: list[list[tuple[str, float]]]) -> None:
    """Assert the exact similarities, in order, of 99 % of the nearest: threads build no graph twice alike."""
    assert [len(hits) for hits in found] == [len(hits) for hits in exact]
    assert all(hits == sorted(hits, key=lambda hit: (-hit[1], hit[0])) for hits in found)
    there = [hit in others for hits, others in zip(found, exact, strict=True) for hit in hits]
    assert sum(there) >= 0.99 * len(there), (found, exact)


def sidecars(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}-hnsw*"))


def test_a_large_set_is_answered_by_the_index_with_the_exact_similarities(path: Path) -> None:
    with open_lab(path) as lab:
        engine, reason = engine_of(lab)
        assert (engine, reason[:22]) == ("hnsw", "400 chunks, recall@10 ")
        as_good_as_exact(answers(lab), exactly(path))


@pytest.mark.parametrize("filters", [{"topic": "t7"}, {"topic": [f"t{n}" for n in range(49)]}, {"min_priority": 0}])
def test_filters_still_return_k_results(path: Path, filters: dict[str, Any]) -> None:
    with open_lab(path) as lab:
        found = answers(lab, **filters)
        assert {len(hits) for hits in found} == {5}
        as_good_as_exact(found, exactly(path, **filters))


def test_a_set_below_the_threshold_and_a_lab_in_memory_do_without(path: Path) -> None:
    with open_lab(path, hnsw_from_chunks=401) as lab:
        assert engine_of(lab) == ("exact", "fewer than 401 chunks")
    with open_lab(Path(":memory:")) as lab:
        lab.store_contexts(texts(range(120)))
        assert engine_of(lab) == ("exact", "a lab that is in memory or read-only gets no HNSW index")
        with pytest.raises(al.InvalidValue, match="in memory or read-only"):
            lab.build_vector_index()


def test_the_facts_of_the_index_are_told(path: Path) -> None:
    with open_lab(path) as lab:
        health = lab.health()
        assert (health["hnsw_vectors"], health["hnsw_lag"]) == (COUNT, 0)
        report = lab.build_vector_index()
        assert (report["vectors"], report["recall_queries"], report["expansion"]) == (COUNT, 200, 64)
        assert 0.99 <= report["recall_at_10"] == health["hnsw_recall_at_10"] <= 1
        assert report["file_bytes"] == sum(file.stat().st_size for file in sidecars(path) if file.suffix != ".json")


def test_the_files_are_readable_by_the_owner_alone(path: Path) -> None:
    assert len(sidecars(path)) == 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in sidecars(path)} == {0o600}


def test_what_is_stored_changed_and_deleted_later_is_in_the_next_answer(path: Path) -> None:
    with open_lab(path) as lab, open_lab(path) as other:
        assert engine_of(lab)[0] == "hnsw"
        other.store_contexts(texts(range(COUNT, COUNT + 20)))
        other.update_context("c0007", content="text 9999")
        nearest = lab.search("question 3", method="semantic", k=3)
        other.delete_context(nearest[0].context.id)
        assert [hit.context.id for hit in lab.search("text 405", method="semantic", k=1)] == ["c0405"]
        assert [hit.context.id for hit in lab.search("text 9999", method="semantic", k=1)] == ["c0007"]
        assert [hit.context.id for hit in lab.search("question 3", method="semantic", k=2)] == [
            hit.context.id for hit in nearest[1:]
        ]
        assert engine_of(lab)[0] == "hnsw"
        assert lab.health()["hnsw_lag"] == 23  # 20 new, one that is new and old, one that is gone
        as_good_as_exact(answers(lab), exactly(path))


def test_an_index_that_lags_is_continued_and_not_begun_anew(path: Path) -> None:
    before = sidecars(path)
    with open_lab(path) as lab:
        lab.store_contexts(texts(range(COUNT, COUNT + 50)))
        lab.delete_context("c0001")
        assert lab.build_vector_index()["vectors"] == COUNT + 49
        assert lab.health()["hnsw_lag"] == 0
        as_good_as_exact(answers(lab), exactly(path))
    assert len(sidecars(path)) == 3
    assert sidecars(path) != before


def test_one_thread_adds_the_first_vectors_of_a_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into an empty graph, several threads may add vectors that no search reaches."""
    used = []

    def add(index: HnswIndex, keys: Any, vectors: Any, *, threads: int = 0) -> None:
        used.append(threads)
        plainly(index, keys, vectors, threads=threads)

    plainly = HnswIndex.add
    monkeypatch.setattr(HnswIndex, "add", add)
    monkeypatch.setattr("autom8_lab.storage.hnsw_file.BATCH", 150)
    with open_lab(tmp_path / "lab.db") as lab:
        lab.store_contexts(texts(range(COUNT)))
        lab.build_vector_index()
    assert used == [1, 0, 0]


def test_another_process_finds_the_index_as_it_is_now(path: Path) -> None:
    with open_lab(path) as lab:
        lab.store_contexts(texts(range(COUNT, COUNT + 50)))
    with open_lab(path) as lab:
        assert lab.health()["hnsw_lag"] == 50
        as_good_as_exact(answers(lab), exactly(path))


@pytest.mark.parametrize("damaged", ["file", "vectors_file"])
def test_a_damaged_index_is_not_used_and_says_so(path: Path, damaged: str) -> None:
    index = path.with_name(json.loads(Path(f"{path}-hnsw.json").read_text())[damaged])
    data = bytearray(index.read_bytes())
    data[len(data) // 2] ^= 0xFF
    index.write_bytes(data)
    with open_lab(path) as lab:
        assert engine_of(lab) == ("exact", "the HNSW index is built again: its content is not what was written")
        assert lab.build_vector_index()["vectors"] == COUNT
        assert engine_of(lab)[0] == "hnsw"


@pytest.mark.parametrize("description", ["", "[]", "{}", '{"file": 3}', '{"file": "../../etc/passwd", "sha256": ""}'])
def test_a_description_that_makes_no_sense_means_no_index(path: Path, description: str) -> None:
    next(file for file in sidecars(path) if file.suffix == ".json").write_text(description)
    with open_lab(path) as lab:
        engine, reason = engine_of(lab)
        assert engine == "exact"
        assert "HNSW index" in reason
        as_good_as_exact(answers(lab), exactly(path))


def test_the_index_of_another_state_of_the_file_is_not_used(tmp_path: Path, path: Path) -> None:
    older = tmp_path / "older.db"
    shutil.copy(path, older)
    with open_lab(path) as lab:
        lab.store_contexts(texts(range(COUNT, COUNT + 50)))
        lab.build_vector_index()
    for file in sidecars(older):
        file.unlink()
    for file in sidecars(path):  # a restored backup beside a newer index
        shutil.copy(file, older.parent / file.name.replace("lab.db", "older.db"))
    description = next(file for file in sidecars(older) if file.suffix == ".json")
    changed = json.loads(description.read_text())
    names = {name: changed[name].replace("lab.db", "older.db") for name in ("file", "vectors_file")}
    description.write_text(json.dumps({**changed, **names}))
    with open_lab(older) as lab:
        assert engine_of(lab) == ("exact", "the HNSW index is built again: the file holds other vectors")
        as_good_as_exact(answers(lab), exactly(older))


@pytest.mark.parametrize("are_others", ["the graph's", "those to compare"])
def test_the_index_of_other_vectors_is_not_used(path: Path, are_others: str) -> None:
    description = next(file for file in sidecars(path) if file.suffix == ".json")
    facts = json.loads(description.read_text())
    other = np.random.default_rng(0).normal(size=(COUNT, DIMENSIONS)).astype(np.float32)
    index = HnswIndex(dimensions=DIMENSIONS, metric="cosine")
    index.add(np.arange(1, COUNT + 1), other)
    copy = path.with_name("vectors.tmp")
    if are_others == "the graph's":
        shutil.copy(path.with_name(facts["vectors_file"]), copy)
    else:
        index = HnswIndex.opened(path.with_name(facts["file"]), metric="cosine")
        with VectorsFile(copy) as file:
            file.add(np.arange(1, COUNT + 1)[None].repeat(5, axis=0), other)
            facts["vectors_sha256"] = file.finished()
    HnswFile(path, metric="cosine")._saved(index, copy, facts)
    with open_lab(path) as lab:
        assert engine_of(lab) == ("exact", "the HNSW index is built again: its vectors are not the file's")


def test_an_index_with_too_little_recall_is_not_used(path: Path) -> None:
    description = next(file for file in sidecars(path) if file.suffix == ".json")
    description.write_text(json.dumps({**json.loads(description.read_text()), "recall_at_10": 0.98}))
    with open_lab(path) as lab:
        assert engine_of(lab) == ("exact", "the HNSW index has recall@10 0.980, below 0.99")


def test_the_third_search_has_an_index_built_in_the_background(tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    with open_lab(path) as lab:
        lab.store_contexts(texts(range(150)))
        assert [engine_of(lab)[0] for _ in range(3)] == ["exact"] * 3
        builder = lab._storage._vectors.hnsw._builder  # type: ignore[attr-defined]
        builder.join(timeout=30)
        assert engine_of(lab)[0] == "hnsw"
        as_good_as_exact(answers(lab), exactly(path))


def test_closing_the_lab_stops_what_builds_in_the_background(tmp_path: Path) -> None:
    lab = open_lab(tmp_path / "lab.db")
    lab.store_contexts(texts(range(150)))
    for _ in range(3):
        engine_of(lab)
    lab.close()
    assert not lab._storage._vectors.hnsw.building  # type: ignore[attr-defined]
    assert not list(tmp_path.glob("*.tmp"))


def test_a_folder_that_cannot_be_written_to_leaves_the_search_exact(tmp_path: Path, path: Path) -> None:
    for file in sidecars(path):
        file.unlink()
    (tmp_path / "lab.db-hnsw.json").mkdir()  # in the place of the description
    with open_lab(path) as lab:
        with pytest.raises(al.StorageError, match=r"lab\.db-hnsw"):
            lab.build_vector_index()
        assert engine_of(lab)[0] == "exact"


@pytest.mark.parametrize("metric", ["cosine", "l2", "dot"])
def test_every_metric_has_its_index(tmp_path: Path, metric: str) -> None:
    found = {}
    for engine in ("hnsw", "exact"):
        with open_lab(tmp_path / f"{metric}.db", engine, metric=metric) as lab:
            if engine == "hnsw":
                lab.store_contexts(texts(range(200)))
                lab.build_vector_index()
                engine, reason = engine_of(lab)
                assert (engine, reason[:9]) == ("hnsw", "asked for")
            found[engine] = answers(lab)
    as_good_as_exact(found["hnsw"], found["exact"])


def test_contexts_of_many_chunks_are_found_once_each(tmp_path: Path) -> None:
    long = [" ".join(f"word{n}-{place}" for place in range(60)) for n in range(40)]
    found = {}
    for engine in ("hnsw", "exact"):
        with open_lab(tmp_path / "lab.db", engine, chunk_tokens=8, chunk_overlap_tokens=0) as lab:
            if engine == "hnsw":
                lab.store_contexts([{"context_id": f"c{n}", "content": text} for n, text in enumerate(long)])
                assert lab.build_vector_index()["vectors"] > 200
                assert engine_of(lab)[0] == "hnsw"
            found[engine] = answers(lab)
    assert all(len(dict(hits)) == 5 for hits in found["hnsw"])
    # The graph is built by several threads and may miss one in a hundred.
    hits, wanted = ({(n, *hit) for n, answer in enumerate(found[name]) for hit in answer} for name in ("hnsw", "exact"))
    assert len(hits & wanted) >= 0.97 * len(wanted)


def test_equal_vectors_do_not_count_as_missed(tmp_path: Path) -> None:
    rows = [{"content": "same" if n % 30 == 0 else f"text {n}", "topic": f"t{n}"} for n in range(600)]
    with open_lab(tmp_path / "lab.db") as lab:
        lab.store_contexts(rows)
        assert lab.build_vector_index()["recall_at_10"] >= 0.99
        found = lab.search("same", method="semantic", k=20)
        assert engine_of(lab)[0] == "hnsw"
        assert [hit.similarity for hit in found] == pytest.approx([1.0] * 20)


def test_a_set_that_was_emptied_has_an_empty_index(tmp_path: Path) -> None:
    with open_lab(tmp_path / "lab.db") as lab:
        with pytest.raises(al.InvalidValue, match="no context has a vector yet"):
            lab.build_vector_index()
        lab.store_context("only one", context_id="a")
        lab.delete_context("a")
        assert lab.build_vector_index()["vectors"] == 0
        assert lab.search("one", method="semantic") == []
