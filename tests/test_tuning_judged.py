"""Queries and judgments are read from what people have, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import autom8_lab as al
from autom8_lab.tuning.judged import data_hash, read_judgments, read_queries

EXPECTED = {"q1": {"a": 2, "b": 0}, "q2": {"c": 1}}


@pytest.mark.parametrize(
    "judgments",
    [
        EXPECTED,
        {"q1": {"a": 2.0, "b": 0}, "q2": ["c"]},
        pd.DataFrame({"query_id": ["q1", "q1", "q2"], "context_id": ["a", "b", "c"], "grade": [2, 0, 1]}),
        pd.DataFrame({"query-id": ["q1", "q1", "q2"], "corpus-id": ["a", "b", "c"], "score": [2, 0, 1]}),
    ],
)
def test_judgments_come_in_several_forms(judgments: Any) -> None:
    assert read_judgments(judgments) == EXPECTED


@pytest.mark.parametrize(
    "text",
    [
        "q1 0 a 2\nq1 0 b 0\n\nq2 0 c 1\n",
        "query_id\tcontext_id\trelevance\nq1\ta\t2\nq1\tb\t0\nq2\tc\t1\n",
        "q1\t0\ta\t2\nq1\t0\tb\t0\nq2\t0\tc\t1",
    ],
)
def test_a_file_has_trec_columns_or_three_with_a_header(text: str, tmp_path: Path) -> None:
    (tmp_path / "qrels").write_text(text, encoding="utf-8")
    assert read_judgments(tmp_path / "qrels") == EXPECTED == read_judgments(str(tmp_path / "qrels"))


@pytest.mark.parametrize(
    ("judgments", "message"),
    [
        ({"q1": "a"}, "give a dict of grades"),
        ({"q1": {"a": 1.5}}, "grade of 'a' for 'q1'=1.5"),
        ({"q1": {"a": float("nan")}}, "grade of 'a'"),
        ({"q1": {"a": True}}, "grade of 'a'"),
        ([("q1", "a", 1)], "are a list"),
        (pd.DataFrame({"query_id": ["q"], "context_id": ["a"]}), "no column 'grade'"),
        (pd.DataFrame({"query_id": ["q", "q"], "context_id": ["a", "a"], "grade": [1, 2]}), "two grades"),
        ("nowhere.qrels", "no file of judgments at nowhere.qrels"),
    ],
)
def test_judgments_that_mean_nothing_are_refused(judgments: Any, message: str) -> None:
    with pytest.raises(al.InvalidValue, match=message):
        read_judgments(judgments)


def test_a_file_of_another_kind_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "run.txt").write_text("q1 0 a 1\nq1 Q0 a 1 0.5 tag\n", encoding="utf-8")
    with pytest.raises(al.InvalidValue, match="line 2"):
        read_judgments(tmp_path / "run.txt")
    (tmp_path / "words.txt").write_text("q1 0 a high\n", encoding="utf-8")
    with pytest.raises(al.InvalidValue, match="'high' is no whole number"):
        read_judgments(tmp_path / "words.txt")


@pytest.mark.parametrize(
    "queries",
    [
        {"1": "one", "2": "two"},
        pd.DataFrame({"query_id": [1, 2], "query": ["one", "two"], "kind": "x"}),
        pd.DataFrame({"qid": ["1", "2"], "text": ["one", "two"]}),
    ],
)
def test_queries_come_in_several_forms(queries: Any) -> None:
    assert read_queries(queries) == {"1": "one", "2": "two"}


def test_a_list_of_texts_or_a_frame_without_ids_has_the_texts_as_ids() -> None:
    assert read_queries(["one"]) == {"one": "one"} == read_queries(pd.DataFrame({"query": ["one"]}))


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        ("one", "give a dict of texts"),
        (7, "give a dict of texts"),
        ({}, "there are no queries"),
        ({"a": ""}, "query 'a'"),
        ({"a": None}, "NoneType"),
        (pd.DataFrame({"query_id": ["a", "a"], "query": ["one", "two"]}), "two texts"),
        (pd.DataFrame({"words": ["one"]}), "no column 'query'"),
    ],
)
def test_queries_that_mean_nothing_are_refused(queries: Any, message: str) -> None:
    with pytest.raises(al.InvalidValue, match=message):
        read_queries(queries)


def test_the_hash_of_data_does_not_depend_on_their_order() -> None:
    assert data_hash({"a": 1, "b": 2}) == data_hash({"b": 2, "a": 1}) != data_hash({"a": 1, "b": 3})
