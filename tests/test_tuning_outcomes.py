"""Outcomes: which prompts count, what is averaged, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import autom8_lab as al
from autom8_lab.tuning.outcomes import outcomes_of


def answers(*rows: tuple[str | None, str, Any, Any], **columns: Any) -> pd.DataFrame:
    made = pd.DataFrame(rows, columns=["prompt_id", "model", "quality_score", "cost_usd"])
    return made.assign(**columns)


TWO = [("p1", "small", 0.4, 1.0), ("p1", "large", 0.9, 5.0), ("p2", "small", 0.6, 3.0), ("p2", "large", 0.7, 9.0)]


def test_a_row_per_prompt_and_a_column_per_model_the_cheapest_first() -> None:
    found = outcomes_of(answers(*TWO))
    assert found.prompt_ids == ("p1", "p2")
    assert found.models == ("small", "large")
    assert found.quality.tolist() == [[0.4, 0.9], [0.6, 0.7]]
    assert found.cost.tolist() == [[1.0, 5.0], [3.0, 9.0]]
    assert found.cost_known


def test_repeated_answers_are_averaged_and_unjudged_ones_are_none() -> None:
    again = [("p1", "small", 0.8, 3.0), ("p2", "large", None, None)]
    found = outcomes_of(answers(*TWO, *again))
    assert found.quality[0, 0] == pytest.approx(0.6)
    assert found.cost[0, 0] == pytest.approx(2.0)
    assert found.quality[1, 1] == 0.7


def test_prompts_that_a_model_did_not_answer_are_left_out_and_counted() -> None:
    found = outcomes_of(answers(*TWO, ("p3", "small", 0.5, 1.0), (None, "large", 1.0, 1.0)))
    assert len(found) == 2
    assert found.left_out == {"not answered by every model": 1}


def test_prompts_without_a_cost_are_left_out_where_they_are_few_and_else_costs_are_not_used() -> None:
    many = [(f"p{n:02}", model, 0.5, cost) for n in range(20) for model, cost in (("small", 1.0), ("large", 4.0))]
    some = answers(*many)
    some.loc[some["prompt_id"] == "p03", "cost_usd"] = np.nan
    found = outcomes_of(some)
    assert found.cost_known
    assert found.left_out == {"cost unknown": 1}
    some.loc[some["prompt_id"] < "p05", "cost_usd"] = np.nan
    found = outcomes_of(some)
    assert not found.cost_known
    assert len(found) == 20


def test_without_costs_the_better_model_is_the_last() -> None:
    frame = answers(*TWO).drop(columns="cost_usd")
    assert outcomes_of(frame.assign(quality_score=1 - frame["quality_score"])).models == ("large", "small")


def test_prompts_of_one_text_are_one_draw() -> None:
    rows = [(f"p{n}", model, 0.5, 1.0) for n in range(4) for model in ("small", "large")]
    texts = {"p0": "How long?", "p1": "How  long? ", "p2": "Why?", "p3": "Who?"}
    found = outcomes_of(answers(*rows), texts=texts)
    assert found.draws == 3
    assert found.groups[0] == found.groups[1]
    assert found.lengths is not None
    assert found.lengths.tolist() == [9, 11, 4, 4]
    assert found.length_unit == "characters"


def test_words_come_from_the_argument_then_a_column_and_lengths_from_tokens_otherwise() -> None:
    frame = answers(*TWO)
    assert outcomes_of(frame).lengths is None
    tokens = outcomes_of(frame.assign(input_tokens=[10, 12, 20, 20]))
    assert (tokens.length_unit, tokens.lengths.tolist()) == ("input tokens", [11, 20])  # type: ignore[union-attr]
    words = outcomes_of(frame.assign(prompt=["a", "a", "bb", "bb"], input_tokens=1))
    assert words.texts == ("a", "bb")
    assert outcomes_of(frame.assign(prompt=["a", "a", "bb", "bb"]), texts={"p1": "ccc", "p2": "d"}).texts == (
        "ccc",
        "d",
    )
    assert outcomes_of(frame.rename(columns={"prompt_id": "prompt"}), prompt="prompt").texts == ("p1", "p2")


def test_taking_some_prompts_keeps_them_together() -> None:
    rows = [(f"p{n}", model, n / 10, 1.0) for n in range(4) for model in ("small", "large")]
    found = outcomes_of(answers(*rows), texts={"p0": "a", "p1": "b", "p2": "b", "p3": "c"})
    part = found.take(np.array([1, 2, 3]))
    assert part.prompt_ids == ("p1", "p2", "p3")
    assert part.groups.tolist() == [0, 0, 1]
    assert part.data_hash != found.data_hash
    assert found.data_hash == outcomes_of(answers(*rows[::-1])).data_hash


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        ([1, 2], {}, "is a list: give a DataFrame"),
        (answers(*TWO).drop(columns="model"), {}, "no column 'model'"),
        (answers(*TWO).rename(columns={"prompt_id": "promt_id"}), {}, "did you mean 'promt_id'"),
        (answers(*TWO[:1]), {}, "nothing to route between, the only model is small: record"),
        (answers(), {}, "the only model is none"),
        (answers(*TWO), {"models": ["small", "lage"]}, "did you mean 'large'"),
        (answers(*TWO), {"models": "small"}, "one name"),
        (answers(*TWO, ("p1", "new", None, 1.0)), {}, "no answer of new has a quality_score"),
        (answers(*TWO).assign(quality_score=None), {}, "has a quality_score: record one"),
        (answers(*TWO).assign(quality_score="good"), {}, "cannot be read as numbers"),
        (answers(*TWO).assign(quality_score=np.inf), {}, r"quality_score contains inf \(4 rows\)"),
        (answers(*TWO).assign(cost_usd=[1.0, -0.5, 1.0, 1.0]), {}, r"cost_usd contains -0.5 \(1 rows\)"),
        (answers(*TWO[:2]), {}, "fewer than two prompts were answered by all"),
        (answers(TWO[0], TWO[3]), {}, "prompts with a judged answer: large 1, small 1"),
        (answers(*TWO), {"texts": {"p1": "words"}}, "no words for 1 prompts, 'p2' among them"),
    ],
)
def test_what_means_nothing_is_refused(frame: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(al.InvalidValue, match=message):
        outcomes_of(frame, **options)
