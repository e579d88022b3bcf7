"""A certified threshold keeps its budget: in theory, and in simulated draws whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from autom8_lab.tuning.certificates import certify, labels_needed, split, upper_bound


def draw(generator: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores from 0 to 1, of which one is wrong with probability (1 - score)³."""
    scores = generator.random(n)
    return scores, generator.random(n) >= (1 - scores) ** 3


def true_rate(threshold: float) -> float:
    return (1 - threshold) ** 3 / 4


def test_the_budget_is_broken_in_at_most_5_percent_of_1000_draws() -> None:
    generator = np.random.default_rng(11)
    certified, broken, above = 0, 0, 0
    for seed in range(1_000):
        found = certify(*draw(generator, 400), budget=0.08, seed=seed)
        if found.threshold is not None:
            certified += 1
            broken += true_rate(found.threshold) > 0.08
            above += true_rate(found.threshold) > found.upper
    assert certified > 700
    assert broken <= 50
    assert above <= 60  # the bound that is shown, not only the budget


def test_where_every_threshold_breaks_the_budget_one_is_certified_in_at_most_5_percent_of_draws() -> None:
    generator = np.random.default_rng(5)
    certified, best_of_many = 0, 0
    for seed in range(1_000):
        scores, right = generator.random(200), generator.random(200) >= 0.21
        certified += certify(scores, right, budget=0.2, seed=seed).threshold is not None
        order = np.argsort(-scores)
        best_of_many += (upper_bound(np.cumsum(~right[order]), np.arange(1, 201), 0.95) <= 0.2).any()
    assert certified <= 50
    assert best_of_many > 100  # what taking the best of many on the same labels does


def test_more_labels_give_a_lower_threshold() -> None:
    generator = np.random.default_rng(3)
    few, many = (certify(*draw(generator, n), budget=0.05).threshold for n in (600, 20_000))
    assert few is not None
    assert many is not None
    best = 1 - 0.2 ** (1 / 3)
    assert best < many < few
    assert many < best + 0.05


def test_a_refusal_says_about_how_many_more_labels_are_needed() -> None:
    scores, right = np.linspace(0, 1, 100), np.arange(100) >= 40
    found = certify(scores, right, budget=0.01)
    assert found.threshold is None
    assert found.labels_needed is not None
    # Without a false hit the bound is about 3/n: 299 held-out hits, 598 in both halves, of which 60 % are hits.
    assert found.labels_needed == pytest.approx(299 / 0.5 / 0.6 - 100, rel=0.02)
    more = certify(np.tile(scores, 10), np.tile(right, 10), budget=0.01)
    assert more.threshold is not None


def test_where_no_threshold_is_good_enough_more_labels_would_not_help() -> None:
    generator = np.random.default_rng(0)
    scores, right = generator.random(2_000), generator.random(2_000) < 0.5
    order = np.argsort(-scores)
    right[order[:20]] = [False] + [True, False] * 9 + [False]
    found = certify(scores, right, budget=0.01)
    assert (found.threshold, found.labels_needed) == (None, None)
    assert found.upper > 0.01


@pytest.mark.parametrize("budget", [0.01, 0.05, 0.2])
def test_as_many_labels_as_it_asks_for_are_about_enough(budget: float) -> None:
    scores, right = np.linspace(0, 1, 200), np.arange(200) >= 60
    needed = labels_needed(scores, right, budget=budget, confidence=0.95, share=0.5)
    assert needed is not None
    times = max(1, -(-(needed + 200) // 200))
    assert certify(np.tile(scores, times + 1), np.tile(right, times + 1), budget=budget).threshold is not None


def test_the_two_parts_have_the_same_share_of_right_ones() -> None:
    right = np.arange(1_000) < 100
    proposing, testing = split(right, share=0.3, seed=1)
    assert (testing.sum(), right[testing].sum()) == (300, 30)
    assert not (proposing & testing).any()
    assert (testing != split(right, share=0.3, seed=2)[1]).any()


def test_the_bound_is_one_sided_and_exact() -> None:
    assert upper_bound(0, 299, 0.95) == pytest.approx(1 - 0.05 ** (1 / 299))
    assert upper_bound(0, 0, 0.95) == 1.0
