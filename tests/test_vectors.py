"""One contract, two engines: the same ids in the same order as a comparison of every vector in Python."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from backends import Places
from hypothesis import example, given, settings
from hypothesis import strategies as st

import autom8_lab as al
from autom8_lab.addresses import is_address
from autom8_lab.config import LabConfig
from autom8_lab.lab import Lab
from autom8_lab.records import Chunk, Condition, Metric, Neighbour
from autom8_lab.retrieval import conditions
from autom8_lab.storage import Storage
from autom8_lab.storage import open_storage as storage_of
from autom8_lab.storage.postgres import PostgresStorage
from autom8_lab.vectors.exact import VectorMatrix
from autom8_lab.vectors.saved import SavedVectors, VectorsFile
from autom8_lab.vectors.similarity import Array32, checked, similarity

BOTH_BACKENDS = True
# The back end's own comparison (sqlite-vec in a file, on PostgreSQL the server's), and a matrix in the process.
ENGINES = ["own", "exact"]
METRICS: list[Metric] = ["cosine", "l2", "dot"]
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
quick = settings(derandomize=True, deadline=None, max_examples=60, database=None)


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOM8_SYNCHRONOUS", "OFF")


class Document(NamedTuple):
    """A context as the reference knows it: its fields, and the vector of each of its chunks."""

    id: str
    vectors: Array32
    fields: dict[str, Any] = {}  # noqa: RUF012 (never changed)


class Table:
    """An encoder that looks its vectors up: `model_id` tells two tables apart."""

    max_tokens = 1_000
    tokenizer = None

    def __init__(self, vectors: dict[str, Any], *, name: str = "table") -> None:
        self.vectors = {text: np.asarray(vector, dtype=np.float32) for text, vector in vectors.items()}
        self.dimensions = len(next(iter(self.vectors.values())))
        self.name, self.model_id = name, f"{name}@1"

    def encode_documents(self, texts: Sequence[str]) -> Array32:
        return np.stack([self.vectors[text] for text in texts])

    def encode_query(self, text: str) -> Array32:
        return self.vectors[text]


def named(path: Path | str, engine: str) -> str:
    """What the setting `vector_engine` calls it."""
    return engine if engine != "own" else "exact" if is_address(str(path)) else "sqlite-vec"


def open_storage(path: Path | str, engine: str, metric: Metric = "cosine", **settings: Any) -> Storage:
    given = {"vector_engine": named(path, engine), "metric": metric, "synchronous": "OFF", **settings}
    storage = storage_of(LabConfig.load(db_path=str(path), **given))
    if isinstance(storage, PostgresStorage) and engine == "own":
        storage._vectors.matrix_chunks = 0
    return storage


def fill(storage: Storage, documents: Sequence[Document]) -> None:
    dimensions = documents[0].vectors.shape[1]
    with storage.transaction():
        if not storage.count("embedding_sets"):
            row = {"model_id": "m@1", "model_name": "m", "dimensions": dimensions, "chunk_tokens": 8}
            storage.insert("embedding_sets", [{**row, "chunk_overlap_tokens": 0, "state": "active", "created_at": NOW}])
        set_key = storage.rows("embedding_sets")[0]["set_key"]
        for _, alike in groupby(documents, key=lambda document: sorted(document.fields)):
            rows = [
                {
                    "id": document.id,
                    "content": document.id,
                    "content_hash": document.id,
                    "created_at": NOW,
                    "updated_at": NOW,
                    "metadata": {},
                    **document.fields,
                }
                for document in alike
            ]
            storage.insert("context_registry", rows)
        put_all(storage, documents, set_key=set_key)


def put(storage: Storage, context_id: str, vectors: Array32) -> None:
    put_all(storage, [Document(context_id, vectors)], set_key=1)


def put_all(storage: Storage, documents: Sequence[Document], *, set_key: int) -> None:
    # Equal vectors are equal texts, as they are with a real model: stored once, used by many chunks.
    chunks, by_name = {}, {}
    for document in documents:
        names = [row.tobytes().hex() for row in document.vectors]
        chunks[document.id] = [Chunk(place, 10 * place, 10 * place + 10, name) for place, name in enumerate(names)]
        by_name |= dict(zip(names, document.vectors, strict=True))
    storage.put_chunks(chunks, set_key=set_key, vectors=by_name)


def reference(documents: Sequence[Document], query: Array32, metric: Metric, k: int) -> list[Neighbour]:
    """Compare the query with every vector in float64, one at a time, in plain Python."""
    asked = [float(number) for number in query]
    best = []
    for document in documents:
        values = [_similarity([float(number) for number in row], asked, metric) for row in document.vectors]
        top = max(values)
        place = values.index(top)
        best.append(Neighbour(document.id, top, place, 10 * place, 10 * place + 10))
    return sorted(best, key=lambda item: (-item.similarity, item.context_id))[:k]


def _similarity(row: list[float], asked: list[float], metric: Metric) -> float:
    if metric == "l2":
        return 1 / (1 + math.sqrt(math.fsum((a - b) ** 2 for a, b in zip(row, asked, strict=True))))
    product = math.fsum(a * b for a, b in zip(row, asked, strict=True))
    if metric == "dot":
        return product
    return product / (math.sqrt(math.fsum(a * a for a in row)) * math.sqrt(math.fsum(b * b for b in asked)))


def check(
    storage: Storage,
    documents: Sequence[Document],
    query: Array32,
    *,
    metric: Metric,
    k: int,
    where: Sequence[Condition] = (),
    engine: str | None = None,
) -> None:
    answer = storage.nearest(query, set_key=1, k=k, where=where)
    expected = reference(documents, query, metric, k)
    assert [item.context_id for item in answer.neighbours] == [item.context_id for item in expected]
    # Products that cancel keep the rounding of their terms.
    rounding = 1e-12 * float(np.linalg.norm(query.astype(float))) ** 2 if metric == "dot" else 1e-12
    for got, wanted in zip(answer.neighbours, expected, strict=True):
        assert got.similarity == pytest.approx(wanted.similarity, rel=1e-12, abs=rounding)
        assert (got.position, got.start, got.end) == (wanted.position, wanted.start, wanted.end)
    if engine is not None:
        assert answer.engine == ("exact" if metric == "dot" else named(storage.path, engine))


def random_documents(seed: int, count: int, dimensions: int, *, most_chunks: int = 1) -> list[Document]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, most_chunks + 1, size=count)
    return [
        Document(f"c{number:05}", rng.normal(size=(size, dimensions)).astype(np.float32))
        for number, size in enumerate(sizes)
    ]


# The contract


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("metric", METRICS)
def test_random_vectors_are_ranked_as_by_comparing_all_of_them(
    place: Callable[[str], str], engine: str, metric: Metric
) -> None:
    documents = random_documents(1, 400, 24, most_chunks=4)
    storage = open_storage(place("lab.db"), engine, metric)
    fill(storage, documents)
    for query in np.random.default_rng(2).normal(size=(8, 24)).astype(np.float32):
        for k in (1, 10, 100, 400, 1_000):
            check(storage, documents, query, metric=metric, k=k, engine=engine)
    storage.close()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("metric", METRICS)
def test_ties_are_broken_by_id_at_every_cut(place: Callable[[str], str], engine: str, metric: Metric) -> None:
    # Few values in few dimensions: most vectors have many equals, and the ids are in no order.
    rng = np.random.default_rng(3)
    values = np.array([-1, 0, 1], dtype=np.float32)
    names = rng.permutation(300)
    documents = []
    for name in names:
        vectors = rng.choice(values, size=(rng.integers(1, 4), 3))
        vectors[~vectors.any(axis=1)] = 1
        documents.append(Document(f"c{name:03}", vectors))
    storage = open_storage(place("lab.db"), engine, metric)
    fill(storage, documents)
    for query in np.array([[1, 0, 0], [1, 1, 1], [-1, 0, 1], [0, 0, -1]], dtype=np.float32):
        for k in (1, 2, 7, 20, 60, 150, 300):
            check(storage, documents, query, metric=metric, k=k, engine=engine)
    storage.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_more_equal_vectors_than_sqlite_vec_can_return_are_still_ranked_by_id(
    place: Callable[[str], str], engine: str
) -> None:
    rng = np.random.default_rng(4)
    same, far = np.array([[1, 2, 3, 4]], dtype=np.float32), np.array([[-4, 3, -2, 1]], dtype=np.float32)
    documents = [
        Document(f"c{name:04}", same, {"pinned": bool(name % 1_000 == 999)}) for name in rng.permutation(5_000)
    ]
    documents += [Document(f"far{number}", far) for number in range(50)]
    storage = open_storage(place("lab.db"), engine)
    fill(storage, documents)
    check(storage, documents, same[0], metric="cosine", k=10)
    check(storage, documents, far[0], metric="cosine", k=55)
    pinned = [document for document in documents if document.fields.get("pinned")]
    where = [Condition("pinned", "=", True)]
    check(storage, pinned, same[0], metric="cosine", k=10, where=where, engine=engine)
    if named(storage.path, engine) == "sqlite-vec":
        assert "4096 chunks compete" in storage.nearest(same[0], set_key=1, k=10).reason
    storage.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_one_context_with_thousands_of_close_chunks_leaves_room_for_the_others(
    place: Callable[[str], str], engine: str
) -> None:
    rng = np.random.default_rng(5)
    query = rng.normal(size=8).astype(np.float32)
    long = (query + rng.normal(size=(5_000, 8)) * 0.01).astype(np.float32)
    others = random_documents(6, 30, 8, most_chunks=3)
    documents = [Document("long", long), *others]
    storage = open_storage(place("lab.db"), engine)
    fill(storage, documents)
    check(storage, documents, query, metric="cosine", k=1)
    check(storage, documents, query, metric="cosine", k=5)
    check(storage, documents, query, metric="cosine", k=31)
    where = [Condition("id", "!=", "long")]
    check(storage, others, query, metric="cosine", k=5, where=where, engine=engine)
    storage.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_k_results_come_back_when_k_pass_the_filter_however_far_they_are(
    place: Callable[[str], str], engine: str
) -> None:
    rng = np.random.default_rng(7)
    query = np.array([1, 0, 0, 0], dtype=np.float32)
    near = query + rng.normal(size=(6_000, 4)).astype(np.float32) * np.float32(0.05)
    far = -query + rng.normal(size=(12, 4)).astype(np.float32) * np.float32(0.05)
    rare = [Document(f"far{n:02}", far[n : n + 1], {"topic": "rare"}) for n in range(12)]
    documents = [*rare, *(Document(f"near{n:04}", near[n : n + 1]) for n in range(6_000))]
    storage = open_storage(place("lab.db"), engine)
    fill(storage, documents)
    where = [Condition("topic", "=", "rare")]
    for k in (1, 10, 12, 50):
        check(storage, rare, query, metric="cosine", k=k, where=where, engine=engine)
    check(storage, [], query, metric="cosine", k=3, where=[Condition("topic", "=", "none")], engine=engine)
    storage.close()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_vectors_that_differ_by_little_are_told_apart_at_any_length(
    place: Callable[[str], str], engine: str, metric: Metric, scale: float
) -> None:
    # Real models without normalisation give such vectors; float32 alone confuses their distances.
    rng = np.random.default_rng(8)
    centre = rng.normal(size=32) * scale
    if metric == "dot":  # nearly at right angles to the query, where products almost cancel
        rows = rng.normal(size=(500, 32)) * scale
        rows -= np.outer(rows @ centre / (centre @ centre), centre)
        rows += np.outer(rng.normal(size=500) * 1e-7, centre)
    else:
        rows = centre + rng.normal(size=(500, 32)) * scale * 1e-3
    documents = [Document(f"c{n:03}", row[None, :]) for n, row in enumerate(rows.astype(np.float32))]
    storage = open_storage(place("lab.db"), engine, metric)
    fill(storage, documents)
    for k in (1, 10, 50):
        check(storage, documents, centre.astype(np.float32), metric=metric, k=k, engine=engine)
    storage.close()


# Filters, as users give them

FILTERED = 150


def _filtered_documents() -> list[Document]:
    rng = np.random.default_rng(9)
    documents: list[Document] = []
    for number in range(FILTERED):
        vectors = rng.integers(-2, 3, size=(rng.integers(1, 4), 4)).astype(np.float32)
        vectors[~vectors.any(axis=1)] = 1
        fields = {
            "topic": [None, "a", "b", "it's"][number % 4],
            "source": [None, "x", "y"][number % 3],
            "pinned": bool(rng.random() < 0.3),
            "priority": int(rng.integers(-2, 3)),
            "metadata": [{}, {"n": 1}, {"n": True}, {"n": "1", "m": None}, {"m": 0.5}][int(rng.integers(0, 5))],
            "created_at": NOW - int(rng.integers(0, 10)) * DAY,
            "expires_at": [None, None, NOW - DAY, NOW, NOW + DAY][int(rng.integers(0, 5))],
            "superseded_by": documents[-1].id if documents and rng.random() < 0.15 else None,
        }
        documents.append(Document(f"c{(number * 37) % FILTERED:03}", vectors, fields))
    return documents


DOCUMENTS = _filtered_documents()
QUERY = np.array([1, -1, 0.5, 2], dtype=np.float32)


def one_or_several(names: list[str]) -> st.SearchStrategy[Any]:
    return st.sampled_from(names) | st.lists(st.sampled_from(names), max_size=3)


scalars = st.sampled_from([1, 1.0, True, "1", None, 0.5, 2])
filters = st.fixed_dictionaries(
    {},
    optional={
        "topic": one_or_several(["a", "b", "it's", "none"]),
        "source": one_or_several(["x", "y", "none"]),
        "pinned": st.booleans(),
        "min_priority": st.integers(-3, 3),
        "metadata": st.dictionaries(
            st.sampled_from(["n", "m", "none"]), scalars | st.lists(scalars, max_size=2), max_size=2
        ),
        "since": st.integers(0, 11).map(lambda days: NOW - days * DAY) | st.sampled_from(["3d", "2026-02-25"]),
        "until": st.integers(0, 11).map(lambda days: NOW - days * DAY),
        "include_expired": st.booleans(),
        "include_superseded": st.booleans(),
    },
)


def passes(fields: dict[str, Any], given: dict[str, Any]) -> bool:
    """What a filter means, in Python."""

    def one_of(value: Any, wanted: Any) -> bool:
        return any(_same(value, item) for item in (wanted if isinstance(wanted, list) else [wanted]))

    def moment(value: Any) -> datetime:
        texts = {"3d": NOW - 3 * DAY, "2026-02-25": datetime(2026, 2, 25, tzinfo=UTC)}
        return texts[value] if isinstance(value, str) else value

    expires_at = fields["expires_at"]
    return (
        all(name not in given or one_of(fields[name], given[name]) for name in ("topic", "source"))
        and ("pinned" not in given or fields["pinned"] == given["pinned"])
        and ("min_priority" not in given or fields["priority"] >= given["min_priority"])
        and ("since" not in given or fields["created_at"] >= moment(given["since"]))
        and ("until" not in given or fields["created_at"] < moment(given["until"]))
        and (given.get("include_superseded", False) or fields["superseded_by"] is None)
        and (given.get("include_expired", False) or expires_at is None or expires_at > NOW)
        and all(
            key in fields["metadata"] and one_of(fields["metadata"][key], value)
            for key, value in given.get("metadata", {}).items()
        )
    )


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, bool) or isinstance(right, bool) or left is None or right is None:
        return left is right
    return isinstance(left, str) == isinstance(right, str) and bool(left == right)


@pytest.fixture(scope="module")
def filtered(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, Metric], Storage]]:
    """One lab per metric, open with each engine."""
    with closing(Places(backend, tmp_path_factory.mktemp("filtered"))) as place:
        storages = {
            (engine, metric): open_storage(place(metric), engine, metric) for metric in METRICS for engine in ENGINES
        }
        for metric in METRICS:
            fill(storages["exact", metric], DOCUMENTS)
        yield storages
        for storage in storages.values():
            storage.close()


@quick
@example(filter_values={}, k=5)
@example(filter_values={"topic": []}, k=5)
@example(filter_values={"include_expired": True, "include_superseded": True}, k=FILTERED)
@given(filter_values=filters, k=st.sampled_from([1, 3, 10, 40, FILTERED]))
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("engine", ENGINES)
def test_filters_choose_below_the_ranking(
    filtered: dict[tuple[str, Metric], Storage],
    engine: str,
    metric: Metric,
    filter_values: dict[str, Any],
    k: int,
) -> None:
    chosen = [document for document in DOCUMENTS if passes(document.fields, filter_values)]
    where = conditions(now=NOW, **filter_values)
    check(filtered[engine, metric], chosen, QUERY, metric=metric, k=k, where=where, engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_similarities_of_named_contexts_are_those_of_the_ranking(
    filtered: dict[tuple[str, Metric], Storage], engine: str
) -> None:
    for metric in METRICS:
        storage = filtered[engine, metric]
        every = {item.context_id: item for item in storage.nearest(QUERY, set_key=1, k=FILTERED).neighbours}
        names = [document.id for document in DOCUMENTS]
        assert storage.similarities(QUERY, set_key=1, context_ids=[*names, "nobody"]) == every
        assert storage.similarities(QUERY, set_key=1, context_ids=names[:3]) == {
            name: every[name] for name in names[:3]
        }
        assert storage.similarities(QUERY, set_key=1, context_ids=[]) == {}


# What has gone, what has come


@pytest.mark.parametrize("engine", ENGINES)
def test_deleted_and_changed_vectors_never_come_back(place: Callable[[str], str], engine: str) -> None:
    rng = np.random.default_rng(10)
    documents = {document.id: document for document in random_documents(11, 60, 6, most_chunks=3)}
    storage = open_storage(place("lab.db"), engine)
    fill(storage, list(documents.values()))
    for step in range(40):
        name = str(rng.choice(list(documents)))
        is_name = [Condition("id", "=", name)]
        if step % 4 == 0:
            storage.delete("context_registry", is_name)
            del documents[name]
        elif step % 4 == 1:
            documents[name] = Document(name, rng.normal(size=(2, 6)).astype(np.float32))
            put(storage, name, documents[name].vectors)
        elif step % 4 == 2:  # the first chunk stays, the others are new
            kept = np.vstack([documents[name].vectors[:1], rng.normal(size=(1, 6)).astype(np.float32)])
            documents[name] = Document(name, kept)
            put(storage, name, kept)
        else:
            documents[f"n{step}"] = Document(f"n{step}", rng.normal(size=(1, 6)).astype(np.float32))
            fill(storage, [documents[f"n{step}"]])
        query = rng.normal(size=6).astype(np.float32)
        check(storage, list(documents.values()), query, metric="cosine", k=100, engine=engine)
        check(storage, list(documents.values()), query, metric="cosine", k=3, engine=engine)
    storage.delete("context_registry", [])
    assert storage.nearest(query, set_key=1, k=5).neighbours == []
    assert storage.count("embeddings") == 0
    storage.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_left_comes_back_when_hundreds_of_nearer_ones_were_deleted(
    place: Callable[[str], str], engine: str
) -> None:
    query = np.array([1, 0, 0, 0], dtype=np.float32)
    rng = np.random.default_rng(18)
    near = (query + rng.normal(size=(300, 4)) * 0.05).astype(np.float32)
    far = [Document(f"far{n}", rng.normal(size=(1, 4)).astype(np.float32)) for n in range(10)]
    storage = open_storage(place("lab.db"), engine)
    fill(storage, [*far, *(Document(f"near{n:03}", near[n : n + 1], {"topic": "near"}) for n in range(300))])
    assert {item.context_id[:4] for item in storage.nearest(query, set_key=1, k=10).neighbours} == {"near"}
    storage.delete("context_registry", [Condition("topic", "=", "near")])
    check(storage, far, query, metric="cosine", k=5, engine=engine)
    storage.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_transactions_own_vectors_are_found_in_it_and_gone_when_it_is_taken_back(
    place: Callable[[str], str], engine: str
) -> None:
    documents = random_documents(12, 20, 4)
    new = Document("new", np.array([[9, 9, 9, 9]], dtype=np.float32))
    storage = open_storage(place("lab.db"), engine)
    fill(storage, documents)
    check(storage, documents, new.vectors[0], metric="cosine", k=5, engine=engine)
    with pytest.raises(ZeroDivisionError), storage.transaction():
        fill(storage, [new])
        storage.delete("context_registry", [Condition("id", "=", documents[0].id)])
        check(storage, [*documents[1:], new], new.vectors[0], metric="cosine", k=30)
        raise ZeroDivisionError
    check(storage, documents, new.vectors[0], metric="cosine", k=30, engine=engine)
    # The same chunk keys are given out again, to other vectors.
    other = Document("other", np.array([[-9, 9, -9, 9]], dtype=np.float32))
    fill(storage, [other])
    check(storage, [*documents, other], other.vectors[0], metric="cosine", k=30, engine=engine)
    storage.close()


@pytest.mark.parametrize("reading", ENGINES)
@pytest.mark.parametrize("writing", ENGINES)
def test_what_another_lab_writes_is_in_the_next_answer(place: Callable[[str], str], reading: str, writing: str) -> None:
    path = place("lab.db")
    documents = random_documents(13, 30, 4)
    new = Document("new", np.array([[9, 9, 9, 9]], dtype=np.float32))
    reader, writer = open_storage(path, reading), open_storage(path, writing)
    fill(writer, documents)
    check(reader, documents, new.vectors[0], metric="cosine", k=5, engine=reading)
    fill(writer, [new])
    check(reader, [*documents, new], new.vectors[0], metric="cosine", k=5, engine=reading)
    moved = Document("new", np.array([[9, -9, 9, 9], [-9, -9, -9, 9]], dtype=np.float32))
    put(writer, "new", moved.vectors)
    check(reader, [*documents, moved], new.vectors[0], metric="cosine", k=40, engine=reading)
    writer.delete("context_registry", [Condition("id", "=", "new")])
    check(reader, documents, new.vectors[0], metric="cosine", k=40, engine=reading)
    check(writer, documents, new.vectors[0], metric="cosine", k=40, engine=writing)
    # The newest goes and another comes between two answers: its key must not be taken for the one before.
    writer.delete("context_registry", [Condition("id", "=", documents[-1].id)])
    fill(writer, [moved])
    check(reader, [*documents[:-1], moved], new.vectors[0], metric="cosine", k=40, engine=reading)
    reader.close()
    writer.close()


WRITE_AND_DELETE = """
import sys
import autom8_lab as al
with al.open(sys.argv[1], embedding_model="hash-64", vector_engine=sys.argv[2]) as lab:
    lab.store_context("zebra crossing", context_id="zebra")
    lab.update_context("changed", content="quagga country")
    lab.delete_context("gone")
"""


@pytest.mark.parametrize("reading", ENGINES)
@pytest.mark.parametrize("writing", ENGINES)
def test_what_another_process_writes_is_in_the_next_answer(
    place: Callable[[str], str], reading: str, writing: str
) -> None:
    path = place("lab.db")

    def nearest(query: str) -> str:
        return lab.search(query, method="semantic", k=1)[0].context.id

    with al.open(path, embedding_model="hash-64", vector_engine=named(path, reading)) as lab:
        for name, text in {"gone": "zebra stripes", "changed": "lion country", "kept": "giraffe neck"}.items():
            lab.store_context(text, context_id=name)
        assert [nearest("zebra"), nearest("lion"), nearest("giraffe")] == ["gone", "changed", "kept"]
        subprocess.run([sys.executable, "-c", WRITE_AND_DELETE, path, named(path, writing)], check=True, timeout=60)
        assert [nearest("zebra"), nearest("quagga"), nearest("giraffe")] == ["zebra", "changed", "kept"]
        assert {hit.context.id for hit in lab.search("lion", method="semantic")} == {"zebra", "changed", "kept"}
        assert lab.health()["vector_engine"] == named(path, reading)


def answers(lab: Lab) -> list[tuple[list[str], list[float]]]:
    found = [lab.search_df(query, method=method) for query in ("one two", "five") for method in ("semantic", "hybrid")]
    return [(list(frame["context_id"]), list(frame["similarity"])) for frame in found]


@pytest.mark.parametrize("metric", METRICS)
def test_a_file_written_under_one_engine_answers_identically_under_the_other(tmp_path: Path, metric: Metric) -> None:
    words = ["one", "two", "three", "four", "five", "six", "seven"]
    rows = [{"content": " ".join(np.roll(words, n)[: 1 + n % 5]) + f" {n}", "context_id": f"{n:02}"} for n in range(40)]
    found = []
    for first, second in (("sqlite-vec", "exact"), ("exact", "sqlite-vec")):
        path = tmp_path / first
        with al.open(path, embedding_model="hash-16", metric=metric, vector_engine=first) as lab:
            lab.store_contexts(rows[:30])
            found.append(answers(lab))
        with al.open(path, embedding_model="hash-16", metric=metric, vector_engine=second) as lab:
            found.append(answers(lab))
            lab.store_contexts(rows[30:])
            lab.delete_context("03")
            found.append(answers(lab))
        with al.open(path, embedding_model="hash-16", metric=metric, vector_engine=first) as lab:
            found.append(answers(lab))
    assert found[0] == found[1] == found[4] == found[5]
    assert found[2] == found[3] == found[6] == found[7]
    assert found[0] != found[2]


def test_a_file_opened_with_another_metric_is_ranked_by_that_metric(place: Callable[[str], str]) -> None:
    documents = random_documents(14, 50, 4)
    for metric in ("cosine", "l2", "dot", "cosine"):
        for engine in ENGINES:
            storage = open_storage(place("lab.db"), engine, metric)
            if not storage.count("context_registry"):
                fill(storage, documents)
            check(storage, documents, QUERY, metric=metric, k=20, engine=engine)
            storage.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_vectors_of_two_models_are_never_compared(place: Callable[[str], str], engine: str) -> None:
    texts = [f"text {n} of {n % 7} and {n % 5}" for n in range(30)]

    def ranking(lab: Lab) -> list[tuple[str, float | None]]:
        return [(hit.context.content, hit.similarity) for hit in lab.search("text 3 of 4", method="semantic", k=30)]

    expected = []
    for model in ("hash-32", "hash-48"):
        with al.open(":memory:", embedding_model=model, vector_engine=named(":memory:", engine)) as lab:
            lab.store_contexts([{"content": text, "context_id": text} for text in texts])
            expected.append(ranking(lab))
    with al.open(place("lab.db"), embedding_model="hash-32", vector_engine=named(place("lab.db"), engine)) as lab:
        lab.store_contexts([{"content": text, "context_id": text} for text in texts])
        assert ranking(lab) == expected[0]
        lab.embed_contexts("hash-48")
        assert ranking(lab) == expected[1]
        lab.store_context("one more", context_id="more")
        lab.delete_context("more")
        lab.cleanup(dry_run=False)
        assert ranking(lab) == expected[1]


# Which engine answers, and why


def test_the_engine_that_answers_and_the_reason_are_told(tmp_path: Path) -> None:
    reasons = {}
    for engine in ("auto", "sqlite-vec", "exact"):
        with al.open(tmp_path / engine, embedding_model="hash-16", vector_engine=engine) as lab:
            lab.store_context("Something.")
            attrs = lab.search_df("something").attrs
            health = lab.health()
            assert (health["vector_engine"], health["vector_engine_reason"]) == (
                attrs["engine"],
                attrs["engine_reason"],
            )
            reasons[engine] = (attrs["engine"], attrs["engine_reason"])
            assert lab.stats()["vector_engine"] == attrs["engine"]
            assert lab.searches_df()["engine"][0] == attrs["engine"]
    assert reasons == {
        "auto": ("exact", "fewer than 50,000 chunks"),
        "sqlite-vec": ("sqlite-vec", "asked for"),
        "exact": ("exact", "asked for"),
    }


def test_the_dot_metric_is_answered_exactly_and_says_so(tmp_path: Path) -> None:
    with al.open(tmp_path / "lab.db", embedding_model="hash-16", metric="dot", vector_engine="sqlite-vec") as lab:
        lab.store_context("Something.")
        attrs = lab.search_df("something").attrs
        assert (attrs["engine"], attrs["engine_reason"]) == ("exact", "sqlite-vec has no dot metric")


@pytest.mark.parametrize("engine", ["auto", *ENGINES])
def test_an_empty_lab_has_no_neighbours(place: Callable[[str], str], engine: str) -> None:
    with al.open(place("lab.db"), embedding_model="hash-16", vector_engine=named(place("lab.db"), engine)) as lab:
        assert lab.search("anything", method="semantic") == []
        lab.store_context("Something.", context_id="a")
        lab.delete_context("a")
        assert lab.search("anything", method="semantic") == []


@pytest.mark.parametrize("engine", ENGINES)
def test_an_encoder_from_outside_is_searched_by_its_own_vectors(place: Callable[[str], str], engine: str) -> None:
    encoder = Table({"north": [0, 1], "east": [1, 0], "up a little to the east": [0.9, 0.1]})
    with al.open(place("lab.db"), encoder=encoder, vector_engine=named(place("lab.db"), engine)) as lab:
        lab.store_context("north", context_id="n")
        lab.store_context("east", context_id="e")
        hits = lab.search("up a little to the east", method="semantic")
        assert [(hit.context.id, hit.rank) for hit in hits] == [("e", 1), ("n", 2)]
        assert hits[0].similarity == pytest.approx(0.9 / math.sqrt(0.82), rel=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "vector",
    [[math.nan, 1], [math.inf, 1], [-math.inf, 1], [0, 0], [1, 2, 3], [1], [1e-30, 0], [1e30, 0]],
    ids=str,
)
def test_a_vector_that_would_rank_first_everywhere_is_refused_at_every_door(
    place: Callable[[str], str], engine: str, vector: list[float]
) -> None:
    encoder = Table({"good": [1, 0], "bad": vector})
    with al.open(place("lab.db"), encoder=encoder, vector_engine=named(place("lab.db"), engine)) as lab:
        lab.store_context("good")
        with pytest.raises(al.InvalidVector):
            lab.store_context("bad")
        with pytest.raises(al.InvalidVector):
            lab.store_contexts(["bad"])
        with pytest.raises(al.InvalidVector):
            lab.search("bad", method="semantic")
        assert lab.stats()["contexts"] == 1
        with pytest.raises(al.InvalidVector):
            lab._storage.put_chunks(
                {lab.list_contexts()[0].id: [Chunk(0, 0, 1, "x")]},
                set_key=1,
                vectors={"x": np.array(vector, dtype=np.float32)},
            )
        assert lab.stats()["embeddings"] == 1


# Vector arithmetic


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([1, 2], r"has 2 dimensions, the model's set has 3"),
        ([[1, 2, 3, 4]], r"has 4 dimensions"),
        ([], r"has 0 dimensions"),
        (np.ones((2, 2, 3)), r"3"),
        ([[1, 2, 3], [1, math.nan, 3]], r"vector 1 has a NaN or infinite number"),
        ([[math.inf, 2, 3]], r"vector 0 has a NaN or infinite number"),
        ([[1e39, 2, 3]], r"vector 0 has a NaN or infinite number"),
        ([[1, 2, 3], [1, 2, 3], [0, 0, 0]], r"vector 2 is all zero"),
        ([[1e-46, 0, 0]], r"vector 0 is all zero"),
        ([[1e-25, 0, 0]], r"vector 0"),
        ([[1e25, 0, 0]], r"vector 0"),
        ([[1, 2, 3], [4, 5]], r"vector"),
        (["a", "b", "c"], r"vector"),
        (None, r"vector"),
    ],
)
def test_what_is_no_vector_is_refused_with_its_place_and_the_reason(vectors: Any, message: str) -> None:
    with pytest.raises(al.InvalidVector, match=message):
        checked(vectors, dimensions=3)


def test_the_message_about_a_vector_says_whose_it_is() -> None:
    with pytest.raises(al.InvalidVector, match=r"^the query's vector has 1 dimensions"):
        checked([1.0], dimensions=2, what="the query's vector")


@pytest.mark.parametrize(
    "vectors", [[1, 2, 3], [[1, 2, 3]], np.array([1, 2, 3]), np.ones((4, 3), order="F"), [[-1e-9, 0, 0]]]
)
def test_a_valid_vector_comes_back_as_rows_of_float32(vectors: Any) -> None:
    array = checked(vectors, dimensions=3)
    assert (array.dtype, array.ndim, array.shape[1]) == (np.float32, 2, 3)
    assert array.flags.c_contiguous
    assert np.array_equal(array, np.atleast_2d(np.asarray(vectors, dtype=np.float32)))


@pytest.mark.parametrize("metric", METRICS)
def test_similarity_is_what_its_definition_says(metric: Metric) -> None:
    rng = np.random.default_rng(15)
    rows, query = rng.normal(size=(50, 384)).astype(np.float32), rng.normal(size=384).astype(np.float32)
    got = similarity(rows, query, metric=metric)
    asked = [float(number) for number in query]
    assert got == pytest.approx([_similarity([float(x) for x in row], asked, metric) for row in rows], rel=1e-12)
    if metric == "cosine":
        assert similarity(query[None, :] * 3, query, metric=metric) == pytest.approx([1.0])
        assert similarity(-query[None, :], query, metric=metric) == pytest.approx([-1.0])
    if metric == "l2":
        assert similarity(query[None, :], query, metric=metric) == [1.0]


@pytest.mark.parametrize("metric", METRICS)
def test_a_rows_similarity_does_not_depend_on_its_neighbours(metric: Metric) -> None:
    rng = np.random.default_rng(16)
    rows, query = rng.normal(size=(100, 384)).astype(np.float32), rng.normal(size=384).astype(np.float32)
    together = similarity(rows, query, metric=metric)
    alone = [similarity(rows[place : place + 1], query, metric=metric)[0] for place in range(100)]
    assert together.tolist() == alone
    assert similarity(rows[::-1], query, metric=metric).tolist() == alone[::-1]


@pytest.mark.parametrize("metric", METRICS)
def test_a_matrix_that_was_grown_and_cut_answers_as_one_made_at_once(metric: Metric) -> None:
    rng = np.random.default_rng(17)
    rows, query = rng.normal(size=(60, 8)).astype(np.float32), rng.normal(size=8).astype(np.float32)
    keys, contexts = np.arange(60), np.arange(60) // 2
    attributes = np.stack([keys, contexts, keys % 2, keys * 10, keys * 10 + 9])
    grown = VectorMatrix(dimensions=8, metric=metric)
    older = []
    for start in range(0, 60, 7):
        older.append((grown, grown.closeness(query)))
        grown = grown.grown(attributes[:, start : start + 7], rows[start : start + 7])
    gone = [0, 13, 14, 59]
    cut = grown.without(np.array([*gone, 999])).without(np.array([], dtype=np.int64))
    kept = np.setdiff1d(keys, gone)
    at_once = VectorMatrix(dimensions=8, metric=metric, capacity=56).grown(attributes[:, kept], rows[kept])
    assert (len(cut), len(at_once), len(grown)) == (56, 56, 60)
    closeness = cut.closeness(query)
    assert np.isneginf(closeness[gone]).all()
    assert closeness[kept] == pytest.approx(at_once.closeness(query), rel=1e-6)
    assert cut.rows_of(np.array([0, 6, 7])).tolist() == [1, 12, 15]
    assert cut.spans(np.array([1, 15])).tolist() == [[1, 10, 19], [1, 150, 159]]
    exact = similarity(rows[kept], query, metric=metric)
    assert np.array_equal(cut.similarity(query, kept), exact)
    assert np.array_equal(np.argsort(-closeness[kept], kind="stable"), np.argsort(-exact, kind="stable"))
    # Whoever holds an older one goes on with it.
    assert all(np.array_equal(matrix.closeness(query), answer) for matrix, answer in older)


def test_a_matrix_that_loses_most_of_its_rows_lets_their_memory_go() -> None:
    rows = np.ones((1_000, 8), dtype=np.float32)
    attributes = np.stack([np.arange(1_000)] * 5)
    matrix = VectorMatrix(dimensions=8, metric="cosine", capacity=1_000).grown(attributes, rows)
    smaller = matrix.without(np.arange(100, 1_000))
    assert len(smaller) == 100
    assert smaller.nbytes < matrix.nbytes / 5
    assert smaller.chunk_keys.tolist() == list(range(100))
    assert len(smaller.grown(attributes[:, :50] + 1_000, rows[:50])) == 150


@pytest.mark.parametrize("count", [0, 1, 60])
def test_saved_vectors_are_those_that_were_written(tmp_path: Path, count: int) -> None:
    rng = np.random.default_rng(18)
    rows, query = rng.normal(size=(count, 7)).astype(np.float32), rng.normal(size=7).astype(np.float32)
    keys = np.arange(count) * 3 + 1
    attributes = np.stack([keys, keys // 2, keys % 2, keys * 10, keys * 10 + 9])
    path = tmp_path / "vectors"
    with VectorsFile(path) as file:
        for start in range(0, count, 7):
            file.add(attributes[:, start : start + 7], rows[start : start + 7])
        assert file.rows == count
        digest = file.finished()
    assert sha256(path.read_bytes()).hexdigest() == digest
    saved = SavedVectors(path, rows=count, dimensions=7, metric="cosine")
    asked = rng.permutation(keys)[:20]
    found = saved.rows_of(asked)
    assert (len(saved), found.tolist()) == (count, (asked // 3).tolist())
    assert np.array_equal(saved.attributes(found), attributes[:, asked // 3])
    assert np.array_equal(saved.vectors(found), rows[asked // 3])
    assert np.array_equal(saved.similarity(query, found), similarity(rows[asked // 3], query, metric="cosine"))
    with pytest.raises(ValueError, match="not as many"):
        SavedVectors(path, rows=count + 1, dimensions=7, metric="cosine")
