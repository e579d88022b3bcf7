"""Text search adds up what FTS5 would, also when the table changes between two searches."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import autom8_lab as al
from autom8_lab.config import LabConfig
from autom8_lab.records import Condition
from autom8_lab.storage.sqlite import SQLiteStorage

NOW = datetime(2026, 5, 1, tzinfo=UTC)
WORDS = ["alpha", "beta", "gamma", "delta", "alphas", "gpt-4o", "4o", "naïve"]


def open_storage(path: Path | str) -> SQLiteStorage:
    return SQLiteStorage(LabConfig.load(db_path=str(path), embedding_model="hash-8", synchronous="OFF"))


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[SQLiteStorage]:
    opened = open_storage(tmp_path / "lab.db")
    yield opened
    opened.close()


def row(context_id: str, content: str, topic: str | None = None) -> dict[str, Any]:
    fixed = {"summary": None, "content_hash": context_id, "created_at": NOW, "updated_at": NOW, "metadata": {}}
    return {"id": context_id, "content": content, "topic": topic, **fixed}


def by_fts5(storage: SQLiteStorage, terms: list[str], weights: tuple[float, float, float] = (1, 1, 1)) -> list[Any]:
    """What FTS5 itself answers to the words joined by OR."""
    query = " OR ".join(f'"{term}"' for term in terms)
    sql = (
        "SELECT c.id, -bm25(context_registry_fts, ?, ?, ?) AS score FROM context_registry_fts"
        " JOIN context_registry c ON c.context_key = context_registry_fts.rowid"
        " WHERE context_registry_fts MATCH ? ORDER BY score DESC, c.id"
    )
    with storage._pool.reader() as database:
        return database.execute(sql, [*weights, query]).fetchall()


def check(storage: SQLiteStorage, terms: list[str], k: int = 50) -> None:
    expected = by_fts5(storage, terms)
    found = storage.match_text(terms, k=k)
    assert [match.rank for match in found] == list(range(1, len(found) + 1))
    scores = dict(expected)
    assert [match.score for match in found] == pytest.approx([score for _, score in expected[:k]], rel=1e-9)
    # Scores that are equal up to the last digit may stand in either order.
    assert all(match.score == pytest.approx(scores[match.context_id], rel=1e-9) for match in found)
    assert len({match.context_id for match in found}) == min(k, len(expected))


contents = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), st.lists(contents, min_size=1, max_size=4)),
        st.tuples(st.just("update"), contents),
        st.tuples(st.just("delete"), st.integers(0, 9)),
        st.tuples(st.just("search"), st.lists(st.sampled_from(WORDS), min_size=1, max_size=4, unique=True)),
    ),
    min_size=4,
    max_size=14,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_scores_are_fts5s_whatever_happened_to_the_table_between_searches(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]]
) -> None:
    storage = open_storage(tmp_path_factory.mktemp("text") / "lab.db")
    other = open_storage(storage.path)
    ids: list[str] = []
    for number, (kind, value) in enumerate(steps):
        writer = (storage, other)[number % 2]
        if kind == "insert":
            new = [f"{number:02}-{place}" for place in range(len(value))]
            writer.insert("context_registry", [row(name, text) for name, text in zip(new, value, strict=True)])
            ids += new
        elif kind == "update" and ids:
            writer.update("context_registry", [Condition("id", "=", ids[-1])], {"content": value})
        elif kind == "delete" and ids:
            writer.delete("context_registry", [Condition("id", "=", ids.pop(value % len(ids)))])
        elif kind == "search":
            check(storage, value)
            check(other, value)
    check(storage, WORDS)
    storage.close()
    other.close()


def test_only_what_is_new_is_read_after_an_addition(storage: SQLiteStorage) -> None:
    storage.insert("context_registry", [row(f"{n:04}", f"word number{n}") for n in range(300)])
    check(storage, ["word"], k=400)
    before = storage._text._snapshot.postings["word"]
    storage.insert("context_registry", [row("new", "word word other")])
    check(storage, ["word"], k=400)
    after = storage._text._snapshot.postings["word"]
    assert len(after.keys) == len(before.keys) + 1
    assert after.counts[-1] == 2
    # A change of what was there already starts anew.
    storage.update("context_registry", [Condition("id", "=", "new")], {"content": "nothing"})
    assert "word" not in storage._text._current(storage._pool.writer(), dirty=False).postings
    check(storage, ["word"], k=400)


@pytest.mark.parametrize(("per_context", "kept"), [(2, {"word", "other"}), (0, {"other"})])
def test_a_large_table_has_room_for_the_words_that_many_of_its_contexts_have(
    storage: SQLiteStorage, monkeypatch: pytest.MonkeyPatch, per_context: int, kept: set[str]
) -> None:
    monkeypatch.setattr("autom8_lab.storage.bm25.KEPT_POSTINGS", 300)
    monkeypatch.setattr("autom8_lab.storage.bm25.KEPT_PER_CONTEXT", per_context)
    storage.insert("context_registry", [row(f"{n:04}", "word other") for n in range(300)])
    for term in ("word", "other"):
        check(storage, [term], k=400)
    assert set(storage._text._snapshot.postings) == kept


def test_a_pin_or_a_read_leaves_what_is_known_of_the_words(storage: SQLiteStorage) -> None:
    storage.insert("context_registry", [row("a", "word"), row("b", "word word")])
    check(storage, ["word"])
    known = storage._text._snapshot
    storage.update("context_registry", [Condition("id", "=", "a")], {"pinned": True})
    storage.touch({"a": (NOW, 1)})
    check(storage, ["word"])
    assert storage._text._snapshot is known


def test_a_word_that_is_often_in_one_context_is_counted_right(storage: SQLiteStorage) -> None:
    texts = ["word " * count + "filler " * (200 - count) for count in (1, 2, 3, 17, 90, 199)]
    storage.insert("context_registry", [row(str(n), text) for n, text in enumerate(texts)])
    storage.insert("context_registry", [row(f"other{n}", "filler") for n in range(20)])
    check(storage, ["word"])
    assert storage._text._snapshot.postings["word"].counts.tolist() == [1, 2, 3, 17, 90, 199]


def test_columns_may_count_differently(storage: SQLiteStorage) -> None:
    storage.insert(
        "context_registry",
        [row("content", "refund of money", "other"), row("topic", "something else", "refund")]
        + [row(f"x{n}", "filler") for n in range(9)],
    )
    for weights in ({"topic": 5.0}, {"content": 0.0}, {"content": 2.0, "summary": 3.0}):
        as_tuple = tuple(weights.get(name, 1.0) for name in ("content", "topic", "summary"))
        expected = [item for item in by_fts5(storage, ["refund"], as_tuple) if item[1] > 0]
        found = storage.match_text(["refund"], k=5, column_weights=weights)
        assert [(match.context_id, pytest.approx(match.score)) for match in found] == expected
    check(storage, ["refund"])


def test_of_thousands_that_are_level_the_first_by_id_are_taken(storage: SQLiteStorage) -> None:
    ids = [f"{n:05}" for n in range(6_000)]
    random.Random(1).shuffle(ids)
    storage.insert("context_registry", [row(name, "same words") for name in ids])
    storage.insert("context_registry", [row("best", "same same"), row("zz", "other")])
    found = [match.context_id for match in storage.match_text(["same"], k=5)]
    assert found == ["best", *sorted(ids)[:4]]
    where = [Condition("id", ">", "03000")]
    found = [match.context_id for match in storage.match_text(["same"], k=3, where=where)]
    assert found == ["best", "03001", "03002"]


def test_a_filter_that_many_pass_and_one_that_few_pass_keep_k_results(storage: SQLiteStorage) -> None:
    rows = [row(f"{n:05}", f"word {'word ' * (n % 3)}", "rare" if n % 1_000 == 0 else "common") for n in range(8_000)]
    storage.insert("context_registry", rows)
    for topic in ("rare", "common"):
        found = storage.match_text(["word"], k=7, where=[Condition("topic", "=", topic)])
        allowed = {item["id"] for item in rows if item["topic"] == topic}
        expected = [context_id for context_id, _ in by_fts5(storage, ["word"]) if context_id in allowed]
        scores = dict(by_fts5(storage, ["word"]))
        assert [match.score for match in found] == pytest.approx([scores[name] for name in expected[:7]], rel=1e-9)
        assert {match.context_id for match in found} <= allowed


def test_a_word_that_nearly_all_have_costs_a_large_table_nothing_and_changes_no_order(storage: SQLiteStorage) -> None:
    texts = [f"the common words and number{n % 40}" for n in range(2_500)]
    storage.insert("context_registry", [row(f"{n:04}", text) for n, text in enumerate(texts)])
    found = storage.match_text(["common", "number7"], k=10)
    assert "common" not in storage._text._snapshot.postings
    assert [match.context_id for match in found] == [name for name, _ in by_fts5(storage, ["common", "number7"])[:10]]
    assert storage.matched_terms(["common", "number7"], [found[0].context_id])[found[0].context_id] == ("number7",)
    # Alone they are all there is to go by.
    check(storage, ["common", "words"])


def test_a_transactions_own_words_are_found_in_it_and_forgotten_when_it_is_taken_back(lab: al.Lab) -> None:
    lab.store_context("one harbour", context_id="a")
    assert [hit.context.id for hit in lab.search("harbour", method="text")] == ["a"]
    with pytest.raises(ZeroDivisionError), lab.transaction():
        lab.store_context("two harbours", context_id="b")
        assert {hit.context.id for hit in lab.search("harbour", method="text")} == {"a", "b"}
        raise ZeroDivisionError
    assert [hit.context.id for hit in lab.search("harbour", method="text")] == ["a"]
