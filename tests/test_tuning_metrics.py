"""Measures of a ranking are trec_eval's, to the last digit."""

from __future__ import annotations

import math

import ir_measures
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import AP, RR, P, Qrel, R, ScoredDoc, nDCG

from autom8_lab.tuning.evaluation import evaluate
from autom8_lab.tuning.metrics import discounted_gain, measure_names, ordered, ranking_measures

IDS = st.sampled_from([*"abcdefgh", "é", "Z", "10", "9"])
# Scores that are equal, and some that are equal in single precision alone.
SCORES = st.sampled_from([0.5, 0.5 + 1e-9, 0.25, 1.0, -2.0, 3e38])
GRADES = st.dictionaries(IDS, st.integers(-1, 3), min_size=1, max_size=6)
QUERIES = st.sampled_from(["q1", "q2", "q3", "q4"])


@settings(max_examples=60, deadline=None)
@given(
    judgments=st.dictionaries(QUERIES, GRADES, min_size=1),
    run=st.dictionaries(QUERIES, st.dictionaries(IDS, SCORES, min_size=1), min_size=1),
    k=st.sampled_from([1, 3, 10]),
)
def test_they_equal_ir_measures_with_ties_grades_and_queries_that_miss_either_side(judgments, run, k) -> None:  # type: ignore[no-untyped-def]
    wanted = ir_measures.calc_aggregate(
        [nDCG @ k, R @ k, P @ k, RR, AP],
        [Qrel(query, name, grade) for query, grades in judgments.items() for name, grade in grades.items()],
        [ScoredDoc(query, name, score) for query, scores in run.items() for name, score in scores.items()],
    )
    found = evaluate({"run": run}, {f"q{n}": f"text {n}" for n in range(1, 5)}, judgments, k=k)
    means = dict(zip(found.overall["measure"], found.overall["mean"], strict=True))
    for name, measure in zip(measure_names(k), [nDCG @ k, R @ k, P @ k, RR, AP], strict=True):
        assert means[name] == pytest.approx(wanted[measure], abs=1e-12), name


def test_a_hand_made_ranking_has_the_values_worked_by_hand() -> None:
    found = ranking_measures(["x", "best", "good"], {"best": 3, "good": 1, "lost": 1}, k=3)
    ideal = 3 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    assert found == {
        "nDCG@3": pytest.approx((3 / math.log2(3) + 1 / math.log2(4)) / ideal),
        "recall@3": pytest.approx(2 / 3),
        "precision@3": pytest.approx(2 / 3),
        "MRR": 0.5,
        "MAP": pytest.approx((1 / 2 + 2 / 3) / 3),
    }


def test_ties_go_by_id_in_descending_order_and_differences_below_single_precision_are_ties() -> None:
    assert ordered({"a": 1.0, "b": 1.0 + 1e-9, "c": 0.5}) == ["b", "a", "c"]
    assert ordered({"b": 1.0, "a": 1.0 + 1e-9}) == ["b", "a"]


def test_negative_grades_count_as_not_relevant() -> None:
    assert discounted_gain([-1, 2]) == 2 / math.log2(3)
    assert ranking_measures(["junk"], {"junk": -2}, k=1)["precision@1"] == 0.0
