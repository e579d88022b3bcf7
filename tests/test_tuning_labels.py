"""Scores and labels are read from what people have, or refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import autom8_lab as al
from autom8_lab.tuning.labels import are_pairs, read_labels, read_pairs


@pytest.mark.parametrize(
    "data",
    [
        ([0.5, 0.25], [True, False]),
        (np.array([0.5, 0.25]), pd.Series([1, 0])),
        [[0.5, 0.25], [1.0, 0.0]],
        pd.DataFrame({"score": [0.5, 0.25], "label": [True, False], "topic": ["a", "b"]}),
    ],
)
def test_labels_come_in_several_forms(data: Any) -> None:
    found = read_labels(data)
    assert (found.scores.tolist(), found.right.tolist()) == ([0.5, 0.25], [True, False])


def test_of_a_query_only_the_highest_score_counts() -> None:
    frame = pd.DataFrame({"query": ["a", "a", "b", "a"], "score": [0.2, 0.9, 0.5, 0.3], "label": [1, 0, 1, 1]})
    found = read_labels(frame)
    assert (found.scores.tolist(), found.right.tolist()) == ([0.9, 0.5], [False, True])
    assert found.notes == ("2 rows are left out: of a query only the highest score counts",)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (([0.5, float("nan")], [1, 0]), r"1 of 2 scores are not finite \(row 1: nan\)"),
        (([0.5, float("inf")], [1, 0]), "row 1: inf"),
        (([0.5, None], [1, 0]), "score of row 1 is None"),
        (([0.5, "0.4"], [1, 0]), "score of row 1 is '0.4'"),
        (([0.5, True], [1, 0]), "score of row 1 is True"),
        (([0.5, 0.4], [1, 2]), "label of row 1=2"),
        (([0.5, 0.4], [1, None]), "label of row 1=None"),
        (([0.5, 0.4], [1]), "2 scores and 1 labels"),
        (([], []), "there are no labels"),
        ((3, 4), "is no list"),
        ("scores", "give a frame with score and label"),
        (pd.DataFrame({"similarity": [0.5], "label": [1]}), "no column 'score': it has similarity, label"),
    ],
)
def test_labels_that_mean_nothing_are_refused(data: Any, message: str) -> None:
    with pytest.raises(al.InvalidValue, match=message):
        read_labels(data)


def test_a_pair_counts_once_in_either_order_and_not_with_both_labels() -> None:
    texts, labels, rows = read_pairs([("a", "b", True), ("b", "a", 1), ("a", "c", False)])
    assert (texts, labels, len(rows)) == ([("a", "b"), ("a", "c")], [True, False], 2)
    with pytest.raises(al.InvalidValue, match="the pair 'b', 'a' has both labels"):
        read_pairs(pd.DataFrame({"text_a": ["a", "b"], "text_b": ["b", "a"], "label": [1, 0]}))
    with pytest.raises(al.InvalidValue, match="text_b of row 0"):
        read_pairs([("a", "", True)])


def test_pairs_are_told_from_scores() -> None:
    assert are_pairs([("a", "b", True)])
    assert are_pairs(pd.DataFrame(columns=["text_a", "text_b", "label"]))
    assert not any(are_pairs(other) for other in ([[0.1, 0.2, 0.3], [1, 0, 1]], ([0.1], [1]), pd.DataFrame(), [], None))


def test_an_unknown_group_names_the_columns_that_there_are() -> None:
    labels = read_labels(pd.DataFrame({"score": [0.5], "label": [1], "topic": ["a"]}))
    assert labels.group("topic") == ["a"]
    with pytest.raises(al.InvalidValue, match=r"by='topik'.*label, score, topic"):
        labels.group("topik")
