"""Measuring in turns: who works when, and what a row says about it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from autom8_lab.diagnostics.figures.rounds import COLUMNS, alone, in_turns, row, seconds_each, seconds_of
from autom8_lab.errors import InvalidValue


def test_two_take_turns_who_begins_changes_and_the_first_round_does_not_count() -> None:
    order: list[tuple[str, int]] = []

    def contender(name: str) -> Callable[[int], float]:
        def work(number: int) -> float:
            order.append((name, number))
            return number + (0.5 if name == "theirs" else 0.0)

        return work

    timings = in_turns(3, contender("ours"), contender("theirs"))
    assert timings.ours == [1, 2, 3]
    assert timings.theirs == [1.5, 2.5, 3.5]
    assert [name for name, _ in order] == ["theirs", "ours", "ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert [number for _, number in order] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_one_without_a_counterpart_works_alone_and_its_first_round_does_not_count() -> None:
    assert alone(2, float) == [1, 2]


def test_seconds_are_the_mean_over_the_arguments() -> None:
    asked: list[float] = []

    def sleep(seconds: float) -> None:
        asked.append(seconds)
        time.sleep(seconds)

    taken = seconds_each(sleep, [0.01, 0.03])
    assert asked == [0.01, 0.03]
    assert 0.02 <= taken < 0.2
    assert seconds_of(lambda: time.sleep(0.02)) >= 0.02


def test_a_ratio_is_taken_round_by_round() -> None:
    made = row("part", "what", "/s", [1, 10, 100], others=[1, 20, 50])
    assert (made["figure"], made["against_figure"]) == (10, 20)
    assert (made["ratio_low"], made["ratio"], made["ratio_high"]) == (0.75, 1, 1.5)


def test_a_figure_has_its_quartiles_and_a_row_only_columns_of_the_frame() -> None:
    made = row("part", "what", "ms", [4, 1, 2, 3, 5], how="slowly", note="a note")
    assert (made["figure_low"], made["figure"], made["figure_high"], made["rounds"]) == (2, 3, 4, 5)
    assert made.keys() <= COLUMNS.keys()
    assert "ratio" not in made


def test_a_counterpart_of_fewer_rounds_is_compared_by_the_medians() -> None:
    made = row("part", "what", "ms", [1, 2, 3], others=[4])
    assert made["ratio"] == 0.5
    assert "ratio_low" not in made


@pytest.mark.parametrize(("unit", "better"), [("/s", "higher"), ("recall@10", "higher"), ("ms", "lower")])
def test_the_unit_says_what_is_better(unit: str, better: str) -> None:
    assert row("part", "what", unit, [1])["better"] == better


def test_a_row_without_values_is_refused() -> None:
    with pytest.raises(InvalidValue, match="get has no value"):
        row("part", "get", "/s", [])
