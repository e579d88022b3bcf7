"""Router curves: RouteLLM's published and golden values, and small cases worked by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import autom8_lab as al
from autom8_lab.tuning.curves import (
    Curve,
    apgr,
    binned_curve,
    cpt,
    cpt_interpolated,
    curve_of,
    path_of,
    pgr,
)

WEAK, STRONG = "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"


def whole_curve(scores: np.ndarray, quality: np.ndarray, **options: str) -> Curve:
    return curve_of(path_of(scores, **options), quality, np.full(quality.shape, np.nan), start=0)


@pytest.fixture(scope="module")
def gsm8k(shared_data: Path) -> tuple[pd.DataFrame, dict[str, float]]:
    """Prompts without RouteLLM's contaminated ones, and the golden values."""
    folder = shared_data / "routellm"
    lines = (folder / "gsm8k_contaminated_prompts.jsonl").read_text(encoding="utf-8").splitlines()
    rows = pd.read_csv(folder / "gsm8k_responses.csv", usecols=["prompt", WEAK, STRONG])
    golden = json.loads((shared_data / "published" / "golden_values.json").read_text(encoding="utf-8"))
    rows = rows[~rows["prompt"].isin({json.loads(line)["eval_prompt"] for line in lines})]
    return rows.reset_index(drop=True), golden["routellm"]["gsm8k"]


def test_the_length_router_on_gsm8k_has_the_golden_values(gsm8k: tuple[pd.DataFrame, dict[str, float]]) -> None:
    rows, golden = gsm8k
    quality = rows[[WEAK, STRONG]].to_numpy(dtype=float)
    length = rows["prompt"].str.len().to_numpy(dtype=float)
    assert len(rows) == golden["n"]
    assert quality.mean(axis=0) == pytest.approx([golden["weak"], golden["strong"]], abs=1e-9)
    expected = golden["length_router"]
    curve = whole_curve(length, quality, ties="order")
    assert apgr(curve.share, curve.quality) == pytest.approx(expected["apgr_exact"], abs=1e-9)
    assert cpt(curve.share, curve.quality, 0.5) == pytest.approx(expected["cpt50"], abs=1e-9)
    assert cpt(curve.share, curve.quality, 0.8) == pytest.approx(expected["cpt80"], abs=1e-9)
    bins = binned_curve(length, quality)
    assert round(float(apgr(bins.share, bins.quality)), 4) == expected["apgr_ref10bins"]
    # reference: 36.51 % and 66.66 %
    crossings = [cpt_interpolated(bins.share, bins.quality, target) for target in (0.5, 0.8)]
    assert np.round(100 * np.array(crossings), 2).tolist() == [36.51, 66.66]


def test_pooled_ties_differ_from_sorting_by_little_and_do_not_depend_on_the_order_of_the_prompts(
    gsm8k: tuple[pd.DataFrame, dict[str, float]],
) -> None:
    rows, golden = gsm8k
    quality = rows[[WEAK, STRONG]].to_numpy(dtype=float)
    length = rows["prompt"].str.len().to_numpy(dtype=float)
    turned = whole_curve(length[::-1], quality[::-1])
    curve = whole_curve(length, quality)
    assert float(apgr(curve.share, curve.quality)) == pytest.approx(
        float(apgr(turned.share, turned.quality)), abs=1e-12
    )
    assert apgr(curve.share, curve.quality) == pytest.approx(golden["length_router"]["apgr_exact"], abs=5e-4)


def test_the_oracle_on_gsm8k_has_the_golden_value(gsm8k: tuple[pd.DataFrame, dict[str, float]]) -> None:
    rows, golden = gsm8k
    quality = rows[[WEAK, STRONG]].to_numpy(dtype=float)
    curve = whole_curve(quality, quality)
    assert apgr(curve.share, curve.quality) == pytest.approx(golden["oracle_apgr"], abs=1e-9)


def test_random_routers_on_gsm8k_recover_half_of_the_gap(
    gsm8k: tuple[pd.DataFrame, dict[str, float]], shared_data: Path
) -> None:
    quality = gsm8k[0][[WEAK, STRONG]].to_numpy(dtype=float)
    draw = np.random.default_rng(0)
    curves = [binned_curve(draw.random(len(quality)), quality) for _ in range(200)]
    areas = np.array([float(apgr(curve.share, curve.quality)) for curve in curves])
    assert areas.mean() == pytest.approx(0.5, abs=0.005)
    with (shared_data / "published" / "routellm_paper_tables.csv").open(encoding="utf-8") as file:
        published = [row for row in csv.DictReader(file) if (row["benchmark"], row["router"]) == ("gsm8k", "random")]
    assert abs(float(published[0]["apgr"]) - areas.mean()) < areas.std()


# Worked by hand

QUALITY = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])


def test_a_curve_worked_by_hand() -> None:
    curve = whole_curve(np.array([4.0, 3.0, 2.0, 1.0]), QUALITY)
    assert curve.share.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert curve.quality.tolist() == [0.5, 0.75, 1.0, 1.0, 0.75]
    assert curve.threshold.tolist() == [np.inf, 4, 3, 2, 1]
    assert pgr(curve.quality).tolist() == [0, 1, 2, 2, 1]
    assert apgr(curve.share, curve.quality) == pytest.approx(1.375)
    assert cpt(curve.share, curve.quality, 1.5) == 0.5


def test_prompts_of_equal_score_switch_together() -> None:
    curve = whole_curve(np.array([2.0, 2.0, 2.0, 1.0]), QUALITY)
    assert curve.share.tolist() == [0, 0.75, 1]
    one_by_one = whole_curve(np.array([2.0, 2.0, 2.0, 1.0]), QUALITY, ties="order")
    assert one_by_one.share.tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_a_constant_score_is_worth_as_much_as_drawing_lots() -> None:
    curve = whole_curve(np.full(4, 7.0), QUALITY)
    assert apgr(curve.share, curve.quality) == pytest.approx(0.5)


def test_without_a_gap_there_is_nothing_to_recover() -> None:
    curve = whole_curve(np.arange(4.0), np.ones((4, 2)))
    assert np.isnan(apgr(curve.share, curve.quality))
    assert np.isnan(cpt(curve.share, curve.quality, 0.5))


def test_a_target_that_is_never_reached_has_no_share() -> None:
    share, quality = np.array([0, 0.5, 1.0]), np.array([0.2, 0.3, 0.4])
    assert np.isnan(cpt(share, quality, 1.1))


def test_the_first_crossing_counts_where_quality_falls_again_and_interpolation_is_refused() -> None:
    share, quality = np.array([0, 0.25, 0.5, 1.0]), np.array([0.2, 0.8, 0.3, 1.0])
    assert cpt(share, quality, 0.5) == 0.25
    assert np.isnan(cpt_interpolated(share, quality, 0.5))


def test_weights_count_a_prompt_as_often_as_they_say() -> None:
    scores = np.array([3.0, 2.0, 1.0])
    quality, cost = np.array([[0.0, 1.0], [1.0, 0.5], [0.2, 0.9]]), np.array([[1.0, 5.0], [1.0, 7.0], [2.0, 3.0]])
    weighted = curve_of(path_of(scores), quality, cost, start=0, weights=np.array([[2.0, 1.0, 0.0], [1.0, 1.0, 1.0]]))
    twice = [0, 0, 1]
    repeated = curve_of(path_of(scores[twice]), quality[twice], cost[twice], start=0)
    assert weighted.quality[0, [0, 1, 2]] == pytest.approx(repeated.quality)
    assert weighted.cost[0, [0, 1, 2]] == pytest.approx(repeated.cost)
    plain = curve_of(path_of(scores), quality, cost, start=0)
    assert weighted.quality[1] == pytest.approx(plain.quality)


@given(
    st.lists(
        st.tuples(*[st.floats(-1, 1) for _ in range(3)], *[st.floats(0, 1) for _ in range(6)]), min_size=1, max_size=12
    )
)
def test_at_every_threshold_each_prompt_goes_to_the_best_score_less_price(drawn: list[tuple[float, ...]]) -> None:
    table = np.array(drawn).round(3)
    scores, quality, cost = table[:, :3], table[:, 3:6], table[:, 6:]
    expense = np.array([0.4, 0.0, 1.0])
    curve = curve_of(path_of(scores, expense=expense), quality, cost, start=1)
    # Between two thresholds of the path every prompt's choice is that of the upper one.
    edges = [*curve.threshold, 0.0]
    for place in range(len(curve.threshold)):
        upper, lower = min(edges[place], 1e6), edges[place + 1]
        if upper - lower < 1e-6:
            continue
        chosen = (scores - (upper + lower) / 2 * expense).argmax(axis=1)
        rows = np.arange(len(scores))
        assert curve.quality[place] == pytest.approx(quality[rows, chosen].mean(), abs=1e-9)
        assert curve.cost[place] == pytest.approx(cost[rows, chosen].mean(), abs=1e-9)
        assert curve.share[place] == pytest.approx((chosen != 1).mean(), abs=1e-9)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.array([1.0, np.nan]), "1 prompts have a score that is not finite"),
        (np.zeros((2, 3)), "3 columns, but there are 2 models"),
        (np.zeros((2, 2, 2)), "shape"),
    ],
)
def test_scores_that_mean_nothing_are_refused(scores: np.ndarray, message: str) -> None:
    with pytest.raises(al.InvalidValue, match=message):
        path_of(scores)
