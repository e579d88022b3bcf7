"""Search: every text is legal, filters work below the ranking, and each hit explains itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import autom8_lab as al
from autom8_lab.lab import Lab
from autom8_lab.retrieval import COLUMNS, query_terms

BOTH_BACKENDS = True
SQL = [
    "UNION SELECT 1",
    "fox; VACUUM",
    "/* fox */",
    "fox--",
    "'; DROP TABLE context_registry; --",
    "x' OR '1'='1",
    "SELECT * FROM context_registry",
    "\\'; DELETE",
    '";',
]
SYNTAX = [
    *(
        "",
        " ",
        "\t\n",
        "a-b",
        "C++?",
        'foo"bar',
        "NEAR(",
        "*",
        "col:x",
        "content:fox",
        "\0",
        "fox\0dog",
        '"',
        '""',
        "'",
    ),
    *(
        "AND",
        "OR",
        "NOT",
        "fox AND",
        "OR fox",
        "fox NOT",
        "NEAR(fox dog, 2)",
        "^fox",
        "fox*",
        "-fox",
        "+fox",
        "{a b}: c",
    ),
    *(
        "(",
        ")",
        "((((",
        "fox)",
        "[fox]",
        "a:b:c",
        ":",
        "fox:",
        "..",
        "fox.dog",
        "fox/dog",
        "fox\\dog",
        "%",
        "_",
        "%fox%",
    ),
    *(
        "?",
        "??",
        "$1",
        ":name",
        "@x",
        "#tag",
        "<b>fox</b>",
        "&amp;",
        "\N{ZERO WIDTH SPACE}",
        "\N{RIGHT-TO-LEFT OVERRIDE}fox",
    ),
]
WORLD = [
    *(
        "🦊",
        "🦊🐶",
        "👨‍👩‍👧‍👦 family",
        "ثعلب",
        "שועל קפץ",
        "狐",
        "狐狸跳过懒狗",
        "лиса",
        "αλεπού",
        "ﬁ ligature",
        "café",
        "cafe\u0301",
    ),
    *(
        "İstanbul",
        "ß",
        "İ",
        "\ufeff",
        "\u2028",
        "\ud83d",
        "fox \udc00",
        "\x1b[31mred",
        "\x7f",
        "a\rb",
        "١٢٣",
        "½",
        "Ⅷ",
        "ª",
    ),
]
LONG = [
    *(
        "fox " * 25_000,
        "f" * 100_000,
        '"' * 100_000,
        "(" * 50_000,
        " ".join(f"word{i}" for i in range(20_000)),
        "🦊" * 30_000,
    ),
    *("-" * 100_000, "a-" * 50_000, "a.b" * 30_000, "x OR " * 20_000, "\n" * 100_000, "\0" * 1_000, "NEAR(" * 1_000),
]
HOSTILE = [*SQL, *SYNTAX, *WORLD, *LONG]


@pytest.fixture
def stocked(lab: Lab) -> Lab:
    """A lab with contexts of two topics."""
    for number in range(30):
        lab.store_context(
            f"fox number {number} jumps over dog {number}",
            context_id=f"fox-{number:02}",
            topic="even" if number % 2 == 0 else "odd",
            source="farm",
            priority=number,
            metadata={"number": number, "big": number > 20, "tags": ["animal"], "team": None},
        )
    lab.store_context("nothing but birds", context_id="bird", topic="birds")
    return lab


def test_there_are_a_hundred_hostile_queries() -> None:
    assert len(set(HOSTILE)) >= 100


@pytest.mark.parametrize("method", ["text", "hybrid", "semantic"])
def test_a_hostile_query_raises_nothing_and_loses_nothing(stocked: Lab, method: al.SearchMethod) -> None:
    before = stocked.contexts_df()
    for query in HOSTILE:
        found = stocked.search_df(query, method=method, k=3)
        assert len(found) <= 3
        assert {name: str(dtype) for name, dtype in found.dtypes.items()} == COLUMNS
    names = [name for name in before.columns if name not in ("accessed_at", "access_count")]
    assert before[names].equals(stocked.contexts_df()[names])
    assert [hit.context.id for hit in stocked.search("birds", method=method, k=1)] == ["bird"]
    logged = stocked.searches_df()
    assert len(logged) == len(HOSTILE) + 1


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text())
def test_any_text_is_a_legal_query(stocked: Lab, query: str) -> None:
    stocked.search(query, k=2)


def test_a_word_inside_hostile_syntax_is_still_found(stocked: Lab) -> None:
    for query in ["birds AND", "NEAR(birds", '"birds', "birds*", "content:birds", "-birds", "birds\0", "(birds))"]:
        assert stocked.search(query, method="text", k=1)[0].context.id == "bird", query


@pytest.mark.parametrize("method", ["text", "hybrid", "semantic"])
def test_k_results_come_back_when_k_exist_behind_a_filter(stocked: Lab, method: al.SearchMethod) -> None:
    found = stocked.search_df("fox jumps", topic="odd", method=method, k=15)
    assert len(found) == 15
    assert set(found["topic"]) == {"odd"}


def test_filters_on_every_field_hold(stocked: Lab) -> None:
    stocked.pin_context("fox-04")

    def ids(**filters: object) -> set[str]:
        return {hit.context.id for hit in stocked.search("fox", k=100, **filters)}  # type: ignore[arg-type]

    assert ids(topic=["even", "odd"], min_priority=28) == {"fox-28", "fox-29"}
    assert ids(source="nowhere") == set()
    assert ids(pinned=True) == {"fox-04"}
    assert ids(metadata={"number": [1, 2, 99]}) == {"fox-01", "fox-02"}
    assert ids(metadata={"big": True, "number": 25}) == {"fox-25"}
    assert ids(metadata={"big": 1}) == set()
    assert len(ids(metadata={"team": None})) == 30
    assert ids(until="1d", method="text") == set()
    assert len(ids(since="1d", method="text")) == 30


def test_an_expired_context_is_left_out_unless_asked_for(place: Callable[[str], str]) -> None:
    now = datetime(2026, 5, 1, tzinfo=UTC)
    with al.open(place("lab.db"), embedding_model="hash", clock=lambda: now) as lab:
        lab.store_context("fox of today", context_id="today", ttl="1d")
        lab.store_context("fox for ever", context_id="ever")
        now += timedelta(days=2)
        for method in ("text", "semantic", "hybrid"):
            assert [hit.context.id for hit in lab.search("fox", method=method)] == ["ever"]
            assert len(lab.search("fox", method=method, include_expired=True)) == 2
        assert lab.get_context("today").content == "fox of today"


def test_a_superseded_context_is_left_out_unless_asked_for(lab: Lab) -> None:
    lab.store_context("the limit is 100 foxes", context_id="old")
    lab.store_context("the limit is 200 foxes", context_id="new", supersedes="old")
    assert [hit.context.id for hit in lab.search("limit")] == ["new"]
    assert {hit.context.id for hit in lab.search("limit", include_superseded=True)} == {"old", "new"}
    assert lab.get_context("old").superseded_by == "new"


def test_a_hit_says_what_put_it_there(stocked: Lab) -> None:
    hit = stocked.search("birds are nothing to foxes", k=1)[0]
    assert hit.context.id == "bird"
    assert (hit.rank, hit.text_rank, hit.semantic_rank) == (1, 1, 1)
    assert hit.score == 1.0
    assert set(hit.matched_terms) == {"birds", "nothing"}
    assert hit.text_score is not None
    assert hit.text_score > 0
    assert hit.chunk == "nothing but birds"
    assert (hit.chunk_start, hit.chunk_end) == (0, 17)
    assert 0 <= hit.age_days < 0.1


def test_hybrid_knows_both_scores_of_every_hit(stocked: Lab) -> None:
    found = stocked.search_df("fox number 7", k=31)
    assert found["similarity"].notna().all()
    matches = found["matched_terms"].str.len() > 0
    assert found.loc[matches, "text_score"].notna().all()
    assert found.loc[~matches, "text_score"].isna().all()


def test_rrf_can_be_chosen_and_is_one_for_first_in_both(stocked: Lab) -> None:
    best = stocked.search("nothing but birds", fusion="rrf", k=1)[0]
    assert best.score == pytest.approx(1.0)
    second = stocked.search("fox number 7", fusion="rrf", k=31)
    for hit in second:
        ranks = [rank for rank in (hit.text_rank, hit.semantic_rank) if rank]
        assert hit.score == pytest.approx(sum(61 / (60 + rank) for rank in ranks) / 2)


def test_min_similarity_drops_what_is_less_similar(stocked: Lab) -> None:
    similarities = [hit.similarity or 0 for hit in stocked.search("fox number 7", method="semantic", k=31)]
    limit = similarities[4]
    kept = stocked.search("fox number 7", method="semantic", k=31, min_similarity=limit)
    assert len(kept) == sum(value >= limit for value in similarities) < 31
    assert stocked.search("fox number 7", min_similarity=2.0) == []


def test_text_search_shows_a_passage(lab: Lab) -> None:
    content = "filler words here. " * 200 + "The zebra crossed the river. " + "more filler words. " * 200
    lab.store_context(content, context_id="long")
    hit = lab.search("zebra river", method="text")[0]
    assert "zebra crossed the river" in hit.chunk
    assert hit.chunk_start is not None
    assert content[hit.chunk_start : hit.chunk_end] == hit.chunk


def test_search_sees_a_name_that_is_there_literally_first(lab: Lab) -> None:
    lab.store_contexts([f"note {number} about something else" for number in range(20)])
    lab.store_context("cheap requests go to the mini, and 4o is what gpt stands for", context_id="scattered")
    lab.store_context("we route to gpt-4o-mini by default for cheap requests", context_id="literal")
    assert lab.search("gpt-4o-mini", method="text")[0].context.id == "literal"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k=0"),
        ({"k": -3}, "k=-3"),
        ({"k": 2.5}, "k=2.5"),
        ({"k": "ten"}, "k='ten'"),
        ({"k": 10**9}, "k="),
        ({"method": "fuzzy"}, "method='fuzzy'"),
        ({"fusion": "borda"}, "fusion='borda'"),
        ({"min_similarity": "high"}, "min_similarity='high'"),
        ({"min_similarity": float("nan")}, "min_similarity=nan"),
        ({"min_similarity": 0.5, "method": "text"}, "needs vectors"),
        ({"topic": 3}, "topic"),
        ({"pinned": "yes"}, "pinned='yes'"),
        ({"since": "yesterday"}, "since='yesterday'"),
        ({"since": datetime(2026, 1, 1)}, "no time zone"),
        ({"metadata": {"a": {"b": 1}}}, "metadata['a']"),
        ({"metadata": [1]}, "metadata"),
        ({"min_priority": "high"}, "min_priority='high'"),
    ],
)
def test_a_bad_option_gets_an_error_that_names_it(stocked: Lab, options: dict[str, object], message: str) -> None:
    with pytest.raises(al.InvalidValue) as caught:
        stocked.search("fox", **options)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_a_query_that_is_no_text_is_refused(lab: Lab) -> None:
    for query in (None, 3, b"bytes", ["fox"]):
        with pytest.raises(al.InvalidValue, match="query="):
            lab.search(query)  # type: ignore[arg-type]


def test_an_empty_lab_answers_with_nothing(lab: Lab) -> None:
    for method in ("text", "semantic", "hybrid"):
        found = lab.search_df("anything", method=method)
        assert found.empty
        assert list(found.columns) == list(COLUMNS)


def test_query_terms_drops_stop_words_unless_all_are() -> None:
    assert query_terms("What is the price of a fox?") == ["price", "fox"]
    assert query_terms("to be or not to be") == ["to", "be", "or", "not"]


# Several queries at once


@pytest.mark.parametrize("method", ["hybrid", "text", "semantic"])
@pytest.mark.parametrize("engine", ["exact", "sqlite-vec"])
def test_many_queries_have_the_answers_that_each_has_alone(
    place: Callable[[str], str], backend: str, method: Any, engine: Any
) -> None:
    engine = engine if backend == "sqlite" else {"sqlite-vec": "hnsw"}.get(engine, engine)
    with al.open(place("many.db"), embedding_model="hash-32", vector_engine=engine) as lab:
        lab.store_contexts([{"content": f"note {n} on topic {n % 7}", "topic": f"t{n % 3}"} for n in range(150)])
        queries = [f"topic {n}" for n in range(70)] + ["", "topic 3", "\ud83d"]
        together = lab.search_many(queries, method=method, k=4, topic="t1")
        alone = [lab.search(query, method=method, k=4, topic="t1") for query in queries]
        assert [[(hit.context.id, hit.score, hit.similarity) for hit in hits] for hits in together] == [
            [(hit.context.id, hit.score, hit.similarity) for hit in hits] for hits in alone
        ]
        assert len(lab.searches_df()) == 2 * len(queries)


def test_a_frame_of_several_queries_tells_which_row_answers_which(lab: Lab) -> None:
    lab.store_contexts([{"content": "Cats sleep.", "context_id": "a"}, {"content": "Dogs bark.", "context_id": "b"}])
    found = lab.search_df(["dogs", "cats"], k=1)
    assert found[["query", "rank", "context_id"]].to_dict("records") == [
        {"query": "dogs", "rank": 1, "context_id": "b"},
        {"query": "cats", "rank": 1, "context_id": "a"},
    ]
    assert found.attrs["query"] == ["dogs", "cats"]
    one = lab.search_df("dogs", k=1)
    assert one.dtypes.equals(found.dtypes)
    assert one.columns.equals(lab.search_df([]).columns)
    assert lab.search_many([]) == []


@pytest.mark.parametrize("queries", ["a text", {"a": 1}, 3, ["fine", 4]])
def test_many_queries_are_a_list_of_texts(lab: Lab, queries: Any) -> None:
    with pytest.raises(al.InvalidValue, match="give a"):
        lab.search_many(queries)
    assert lab.searches_df().empty


def test_many_queries_without_a_model_are_answered_by_text(place: Callable[[str], str]) -> None:
    with al.open(place("m.db"), embedding_model="no-such-model") as lab:
        with pytest.warns(al.PendingEmbeddingWarning):
            lab.store_context("Cats sleep.", context_id="a")
        with pytest.warns(al.DegradedSearchWarning):
            assert [len(hits) for hits in lab.search_many(["cats", "dogs"])] == [1, 0]
        with pytest.raises(al.ModelUnavailable):
            lab.search_many(["cats", "dogs"], method="semantic")


def test_a_repeated_query_is_answered_from_memory_until_something_changes(lab: Lab) -> None:
    lab.store_context("Cats sleep.", context_id="a", metadata={"tags": ["x"]})
    first = lab.search("cats")
    first[0].context.metadata["tags"].append("mine")
    again = lab.search("cats")
    assert [(hit.context.id, hit.score) for hit in again] == [(hit.context.id, hit.score) for hit in first]
    assert again[0].context.metadata == {"tags": ["x"]}
    assert again[0].age_days >= first[0].age_days
    assert len(lab.search("cats", k=1)) == len(lab.search("cats", method="text")) == 1
    lab.store_context("Cats eat.", context_id="b")
    assert {hit.context.id for hit in lab.search("cats")} == {"a", "b"}
    lab.update_context("b", metadata={"seen": True})
    assert {hit.context.metadata.get("seen") for hit in lab.search("cats")} == {None, True}
    assert lab.searches_df()["result_count"].tolist() == [2, 2, 1, 1, 1, 1]


def test_a_repeated_query_forgets_what_has_expired_meanwhile(place: Callable[[str], str]) -> None:
    now = [datetime(2026, 5, 1, tzinfo=UTC)]
    with al.open(place("e.db"), embedding_model="hash-16", clock=lambda: now[0], access_log=False) as lab:
        lab.store_context("Cats sleep.", context_id="a", ttl="1d")
        lab.store_context("Cats eat.", context_id="b")
        assert len(lab.search("cats")) == len(lab.search("cats")) == 2
        now[0] += timedelta(days=2)
        assert [hit.context.id for hit in lab.search("cats")] == ["b"]
