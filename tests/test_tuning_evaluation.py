"""Evaluation: means, intervals over queries, and which of two methods is the better one."""

from __future__ import annotations

import numpy as np
import pytest

import autom8_lab as al
from autom8_lab.tuning.evaluation import DIFFERENCE_COLUMNS, OVERALL_COLUMNS, by_text, evaluate
from autom8_lab.tuning.verdicts import difference_of, more_needed

QUERIES = {f"q{n}": f"question {n}" for n in range(20)}
JUDGMENTS = {name: {f"{name}-answer": 2, f"{name}-related": 1} for name in QUERIES}


def run(first: int) -> dict[str, dict[str, float]]:
    """Results in which the first `first` queries have their answer on top and the others in third place."""
    return {
        name: {f"{name}-answer": 3.0 if place < first else 1.0, f"{name}-x": 2.0, f"{name}-y": 1.5}
        for place, name in enumerate(QUERIES)
    }


def test_the_better_method_is_named_where_the_interval_leaves_out_zero() -> None:
    found = evaluate({"good": run(20), "bad": run(4)}, QUERIES, JUDGMENTS)
    row = found.differences.set_index("measure").loc["MRR"]
    assert (row["method"], row["against"], row["verdict"]) == ("good", "bad", "good better")
    assert row["difference"] == pytest.approx(16 / 20 * (1 - 1 / 3))
    assert 0 < row["low"] < row["difference"] < row["high"]
    turned = evaluate({"bad": run(4), "good": run(20)}, QUERIES, JUDGMENTS).differences
    assert set(turned["verdict"]) == {"good better", "cannot tell yet"}  # recall is the same


def test_methods_that_differ_in_five_queries_cannot_be_told_apart() -> None:
    found = evaluate({"a": run(20), "b": run(15)}, QUERIES, JUDGMENTS).differences
    assert set(found["verdict"]) == {"cannot tell yet"}


def test_the_frames_have_their_columns_and_a_row_for_everything() -> None:
    found = evaluate({"a": run(20), "b": run(4), "c": {}}, QUERIES, JUDGMENTS, k=5)
    assert found.overall.dtypes.astype(str).to_dict() == dict(OVERALL_COLUMNS)
    assert found.differences.dtypes.astype(str).to_dict() == dict(DIFFERENCE_COLUMNS)
    assert (len(found.overall), len(found.differences), len(found.per_query)) == (15, 15, 60)
    assert found.per_query.loc[found.per_query["method"] == "c", "results"].tolist() == [0] * 20
    assert found.table().loc["a"].tolist() == pytest.approx([0.7602, 0.5, 0.2, 1.0, 0.5], abs=1e-4)
    assert "20 queries" in repr(found)
    assert "nDCG@5" in repr(found)
    assert "<table" in found._repr_html_()


def test_queries_without_judgments_are_left_out_and_said_to_be() -> None:
    some = {name: JUDGMENTS[name] for name in list(QUERIES)[:12]} | {"q12": {"q12-x": 0}, "q13": {}}
    found = evaluate({"a": run(20)}, QUERIES, some)
    assert found.queries == 13
    assert found.notes == (
        "7 queries without judgments are left out",
        "1 queries have nothing relevant and count with 0",
    )
    with pytest.raises(al.InvalidValue, match="none of the queries has a graded context"):
        evaluate({"a": run(20)}, QUERIES, {"other": {"x": 1}})


def test_the_same_query_asked_twice_is_no_second_observation() -> None:
    texts = [*QUERIES.values(), *["QUESTION 0 "] * 200]
    assert by_text(texts, np.arange(220.0)).size == 20
    queries = QUERIES | {f"again{n}": "question 0" for n in range(200)}
    judgments = JUDGMENTS | {f"again{n}": JUDGMENTS["q0"] for n in range(200)}
    results = {name: run(20).get(name, run(20)["q0"]) for name in queries}
    worse = {name: run(4).get(name, run(4)["q0"]) for name in queries}
    once = evaluate({"a": run(20), "b": run(4)}, QUERIES, JUDGMENTS).differences
    often = evaluate({"a": results, "b": worse}, queries, judgments).differences
    assert often["low"].tolist() == pytest.approx(once["low"].tolist())


def test_one_query_has_a_mean_and_no_interval() -> None:
    found = evaluate({"a": run(1), "b": run(0)}, {"q0": "question 0"}, JUDGMENTS)
    assert found.overall["low"].isna().all()
    assert set(found.differences["verdict"]) == {"cannot tell yet"}


def test_how_many_more_cases_are_needed_shrinks_with_the_size_of_the_difference() -> None:
    generator = np.random.default_rng(5)
    noise = generator.normal(0, 1, 200)
    small, large = (difference_of(noise - noise.mean() + shift) for shift in (0.02, 0.1))
    assert (small.sign, large.sign) == (0, 0)
    assert (more_needed(small) or 0) > 10 * (more_needed(large) or 0) > 100
    assert more_needed(difference_of(noise - noise.mean() - 0.1)) is None
    assert more_needed(difference_of(np.array([1.0]))) is None
