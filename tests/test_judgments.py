"""Judgments in the file: pooled without favour, kept, replaced, removed, and used when none are given."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import autom8_lab as al
from autom8_lab.judgments import COLUMNS
from autom8_lab.lab import Lab
from autom8_lab.tuning.of_lab import POOL_COLUMNS

BOTH_BACKENDS = True
FIXTURES = Path(__file__).parents[1] / "data" / "fixtures"


@pytest.fixture
def shop(lab: Lab) -> Lab:
    """A lab with the fixtures' contexts, the superseded ones included."""
    frame = pd.read_json(FIXTURES / "contexts.jsonl", lines=True)
    lab.store_contexts(frame.drop(columns=["supersedes", "created_at"]), progress=False)
    return lab


def test_a_pool_is_shuffled_by_its_seed_and_tells_no_method(shop: Lab) -> None:
    pool = shop.judge("refund twice")
    assert pool.dtypes.astype(str).to_dict() == dict(POOL_COLUMNS)
    found = [
        hit.context.id
        for method in ("hybrid", "text", "semantic")
        for hit in shop.search("refund twice", method=method)
    ]
    assert set(pool["context_id"]) == set(found)
    assert pool["context_id"].tolist() not in (found, sorted(found))
    assert pool["context_id"].tolist() == shop.judge("refund twice")["context_id"].tolist()
    assert pool["context_id"].tolist() != shop.judge("refund twice", seed=1)["context_id"].tolist()
    assert pool["grade"].isna().all()
    assert shop.judge("zzz", methods=["text"]).dtypes.astype(str).to_dict() == dict(POOL_COLUMNS)


def test_pooling_and_evaluating_leave_no_trace_in_the_access_log(shop: Lab) -> None:
    shop.judge("refund twice", grades={"policy-returns-2026-01": 1})
    shop.evaluate_search()
    assert shop.searches_df().empty


def test_a_filled_in_pool_is_kept_and_shown_again(shop: Lab) -> None:
    pool = shop.judge("refund twice")
    pool.loc[:2, "grade"] = [3, 0, 1]
    kept = shop.judge(pool)
    assert kept["grade"].tolist() == [3, 1, 0]
    again = shop.judge("refund twice")
    assert again.dropna(subset=["grade"])[["context_id", "grade"]].to_dict("records") == pool[:3][
        ["context_id", "grade"]
    ].to_dict("records")


def test_a_grade_is_replaced_and_none_removes_it(shop: Lab) -> None:
    names = shop.contexts_df()["context_id"].tolist()[:2]
    shop.judge("refund", grades={names[0]: 1, names[1]: 2})
    shop.judge("refund", grades={names[0]: 3, names[1]: None})
    assert shop.judgments_df()[["context_id", "grade"]].to_dict("records") == [{"context_id": names[0], "grade": 3}]


def test_a_judged_context_that_no_method_finds_is_in_the_pool_too(shop: Lab) -> None:
    known = set(shop.judge("refund twice")["context_id"])
    other = next(name for name in shop.contexts_df()["context_id"] if name not in known)
    assert other in set(shop.judge("refund twice", grades={other: 2})["context_id"])
    assert other in set(shop.judge("refund twice")["context_id"])


def test_that_nothing_answers_is_kept_too(shop: Lab) -> None:
    assert shop.judge("the weather on Mars", grades={}).empty
    rows = shop.judgments_df()
    assert rows.dtypes.astype(str).to_dict() == dict(COLUMNS)
    assert rows["query"].tolist() == ["the weather on Mars"]
    assert rows["context_id"].isna().all()


def test_judgments_from_elsewhere_are_kept_with_their_queries(shop: Lab) -> None:
    queries = pd.read_json(FIXTURES / "queries.jsonl", lines=True)
    shop.judge(str(FIXTURES / "judgments.tsv"), queries=queries)
    assert len(shop.judgments_df()) == 123
    given = shop.evaluate_search(queries, judgments=FIXTURES / "judgments.tsv")
    kept = shop.evaluate_search()
    pd.testing.assert_frame_equal(kept.overall, given.overall)
    assert given.notes == ("3 queries without judgments are left out",)
    with pytest.raises(al.InvalidValue, match="no text of query 'q01'"):
        shop.judge(FIXTURES / "judgments.tsv", queries={"q02": "text"})


def test_a_duplicates_second_name_counts_as_its_context(shop: Lab) -> None:
    shop.store_context("The same words.", context_id="first")
    shop.store_context("The same words.", context_id="second")
    shop.judge("same words", grades={"first": 1, "second": 3})
    assert shop.judgments_df()[["context_id", "grade"]].to_dict("records") == [{"context_id": "first", "grade": 3}]
    assert shop.evaluate_search(["same words"], judgments={"same words": ["second"]}).table().loc["text", "MRR"] == 1.0


def test_a_deleted_contexts_judgment_is_left_out_until_it_is_back(shop: Lab) -> None:
    shop.store_context("Parrots are green.", context_id="parrots")
    shop.judge("parrots", grades={"parrots": 2})
    shop.delete_context("parrots")
    with pytest.raises(al.InvalidValue, match="none of the queries"):
        shop.evaluate_search()
    shop.store_context("Parrots are green.", context_id="parrots")
    assert shop.evaluate_search().table().loc["text", "nDCG@10"] == 1.0


def test_judgments_of_contexts_that_are_not_there_are_refused(shop: Lab) -> None:
    with pytest.raises(al.InvalidValue, match=r"1 judged contexts are not in the lab \('nowhere'\)"):
        shop.judge("refund", grades={"nowhere": 1})
    with pytest.raises(al.InvalidValue, match="'nowhere'"):
        shop.evaluate_search({"q": "refund"}, judgments={"q": {"nowhere": 1}})
    assert shop.judgments_df().empty


def test_a_query_keeps_its_id_and_an_id_its_text(shop: Lab) -> None:
    shop.judge("refund", grades={}, query_id="q7")
    assert shop.judge("refund", grades={}).empty
    assert shop.judgments_df()["query_id"].tolist() == ["q7"]
    with pytest.raises(al.InvalidValue, match="kept as 'q7'"):
        shop.judge("refund", grades={}, query_id="q8")
    with pytest.raises(al.InvalidValue, match="kept with the text 'refund'"):
        shop.judge("another", grades={}, query_id="q7")


def test_without_any_judgment_evaluation_says_how_to_get_some(shop: Lab) -> None:
    with pytest.raises(al.InvalidValue, match=r"collect some with al.judge\(\)"):
        shop.evaluate_search()
    with pytest.raises(al.InvalidValue, match=r"queries=.* without judgments: give both"):
        shop.evaluate_search(["refund"])
    with pytest.raises(al.InvalidValue, match="inside the frame"):
        shop.judge(pd.DataFrame(), grades={"a": 1})


def test_evaluation_judges_what_search_returns(shop: Lab) -> None:
    queries = pd.read_json(FIXTURES / "queries.jsonl", lines=True).set_index("query_id")["query"].to_dict()
    options = {
        "as it is": {},
        "text": {"method": "text"},
        "close": {"method": "semantic", "min_similarity": 0.2},
        "more text": {"text_weight": 0.8, "topic": ["tools", "runbooks"]},
        "ranks": {"fusion": "rrf", "candidates": 20},
    }
    found = shop.evaluate_search(queries, judgments=FIXTURES / "judgments.tsv", methods=options, depth=20)
    for name, chosen in options.items():
        searched = {key: value for key, value in chosen.items() if key != "candidates"}
        results = [
            {"query_id": query_id, "context_id": hit.context.id, "score": hit.score}
            for query_id, query in queries.items()
            for hit in shop.search(query, k=20, **searched)
        ]
        if name != "ranks":
            same = shop.evaluate_search(
                queries, judgments=FIXTURES / "judgments.tsv", methods={name: pd.DataFrame(results)}
            )
            assert same.table().loc[name].tolist() == found.table().loc[name].tolist(), name
    assert found.table().loc["ranks"].tolist() != found.table().loc["as it is"].tolist()


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ("hybrid", "give a list"),
        ([], "give a list"),
        (["hybird"], "did you mean 'hybrid'"),
        ({"mine": {"text_wait": 1}}, "did you mean 'text_weight'"),
        ({"mine": 3}, "give the options of a search"),
        ({"mine": pd.DataFrame({"query_id": ["q"]})}, "no column 'context_id'"),
        ({"mine": pd.DataFrame({"query_id": ["q"], "context_id": ["a"], "score": [float("nan")]})}, "score=nan"),
        ({"mine": {"text_weight": 2}}, "text_weight=2"),
    ],
)
def test_a_method_that_cannot_be_searched_with_is_refused(shop: Lab, methods: object, message: str) -> None:
    with pytest.raises(al.InvalidValue, match=message):
        shop.evaluate_search({"q": "refund"}, judgments={"q": ["policy-returns-2026-01"]}, methods=methods)
