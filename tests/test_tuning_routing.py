"""The routing report: figures that agree with their definitions, verdicts that are kept back, hostile data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import autom8_lab as al
from autom8_lab.tuning.hulls import aiq
from autom8_lab.tuning.routing import CURVE_COLUMNS, MODEL_COLUMNS, ROUTER_COLUMNS, routing_report


def judged(
    count: int,
    *,
    seed: int = 0,
    skill: dict[str, float] | None = None,
    helped: float = 2.0,
    costs: bool = True,
) -> tuple[pd.DataFrame, pd.Series]:
    """Answers of models to prompts, and for each prompt how hard it is, which the strong models bear better."""
    draw = np.random.default_rng(seed)
    skill = skill or {"small": 0.0, "large": 1.5}
    hardness = pd.Series(draw.normal(size=count), index=[f"p{n:05}" for n in range(count)])
    rows = []
    for place, (model, level) in enumerate(skill.items()):
        share = 1 / (1 + np.exp(helped / (1 + place) * hardness - level))
        quality = (draw.random(count) < share).astype(float)
        cost = (1 + 4.0 * place) * draw.lognormal(sigma=0.2, size=count)
        rows.append(
            pd.DataFrame({"prompt_id": hardness.index, "model": model, "quality_score": quality, "cost_usd": cost})
        )
    frame = pd.concat(rows, ignore_index=True)
    return frame if costs else frame.drop(columns="cost_usd"), hardness


def test_a_good_router_is_recommended_and_its_figures_are_their_definitions() -> None:
    frame, hardness = judged(600)
    report = routing_report(frame, scores={"hardness": hardness})
    assert (report.verdict, report.best) == ("recommend", "hardness")
    row = report.routers.set_index("router").loc["hardness"]
    wide = frame.pivot(index="prompt_id", columns="model", values="quality_score")
    order = hardness.sort_values(ascending=False).index
    gains = np.concatenate([[0], (wide["large"] - wide["small"])[order].cumsum()])
    assert row["apgr"] == pytest.approx(np.trapezoid(gains / gains[-1], dx=1 / 600))
    assert row["cpt50"] == pytest.approx((gains >= gains[-1] / 2).argmax() / 600)
    assert row["apgr_low"] < row["apgr"] < row["apgr_high"]
    cost = frame.pivot(index="prompt_id", columns="model", values="cost_usd")
    dearer = np.concatenate([[0], (cost["large"] - cost["small"])[order].cumsum()]) / 600 + cost["small"].mean()
    quality = gains / 600 + wide["small"].mean()
    line = np.interp(dearer, cost.mean()[["small", "large"]], wide.mean()[["small", "large"]])
    span = cost["large"].mean() - cost["small"].mean()
    assert row["gain"] == pytest.approx(np.trapezoid(quality - line, dearer) / span, abs=1e-3)
    some = slice(None, None, 60)  # eleven points
    assert row["aiq"] == pytest.approx(aiq(dearer[some], quality[some]))
    assert row["aiq_code"] == pytest.approx(aiq(dearer[some], quality[some], normalise="code"))


def test_the_frames_have_their_columns() -> None:
    report = routing_report(judged(60)[0])
    for found, columns in (
        (report.models, MODEL_COLUMNS),
        (report.routers, ROUTER_COLUMNS),
        (report.curves, CURVE_COLUMNS),
    ):
        assert found.dtypes.astype(str).to_dict() == columns


def test_the_models_have_roles_intervals_and_a_place_on_the_frontier() -> None:
    frame, _ = judged(400, skill={"small": 0.0, "odd": -1.0, "large": 2.0})
    models = routing_report(frame).models.set_index("model")
    assert models["role"].to_dict() == {"small": "weak", "odd": "", "large": "strong"}
    assert models["on_frontier"].tolist() == [True, False, True]
    assert models.loc["odd", "frontier_share"] < 0.1
    assert ((models["quality_low"] < models["quality_mean"]) & (models["quality_mean"] < models["quality_high"])).all()
    assert (
        (models["cost_usd_low"] < models["cost_usd_mean"]) & (models["cost_usd_mean"] < models["cost_usd_high"])
    ).all()


def test_more_than_two_models_are_routed_by_a_score_for_each() -> None:
    frame, hardness = judged(600, skill={"small": 0.0, "middle": 0.8, "large": 1.6})
    levels = {"small": 0.0, "middle": 0.8, "large": 1.6}
    scores = pd.DataFrame({m: 1 / (1 + np.exp(2.0 / (1 + n) * hardness - levels[m])) for n, m in enumerate(levels)})
    report = routing_report(frame, scores={"true": scores})
    row = report.routers.set_index("router").loc["true"]
    assert report.best == "true"
    assert row["gain_low"] > 0
    assert np.isnan(row["apgr"])
    assert report.oracle_quality > report.models["quality_mean"].max()
    last = report.curves[report.curves["router"] == "true"].iloc[-1]
    assert last["quality"] > report.models["quality_mean"].max() - 0.05
    assert (report.curves["threshold"] >= 0)[report.curves["router"] == "true"].all()


def test_where_long_prompts_cost_more_the_gain_is_measured_at_equal_cost() -> None:
    """A length router looks good by share of calls, but the long prompts that it sends are the dear ones."""
    frame, hardness = judged(800, seed=3, helped=1.0)
    texts = {name: "x" * int(200 + 60 * value) for name, value in hardness.items()}
    by_share = routing_report(frame.drop(columns="cost_usd"), texts=texts).routers.set_index("router").loc["length"]
    lengths = frame["prompt_id"].map(texts).str.len()
    dear = frame.assign(cost_usd=np.where(frame["model"] == "large", 10.0, 1.0) * (lengths / 200) ** 4)
    by_cost = routing_report(dear, texts=texts).routers.set_index("router").loc["length"]
    assert by_share["gain_low"] > 0
    assert by_cost["gain"] < by_share["gain"] / 3
    assert by_cost["apgr"] == pytest.approx(by_share["apgr"])


def test_a_useless_router_is_not_recommended_and_the_report_says_how_many_prompts_would_tell() -> None:
    frame, _ = judged(300, seed=5)
    noise = pd.Series(np.random.default_rng(8).random(300), index=sorted(frame["prompt_id"].unique()))
    report = routing_report(frame, scores={"noise": noise})
    assert report.verdict == "cannot tell yet"
    row = report.routers.set_index("router").loc["noise"]
    assert row["verdict"] in ("cannot tell yet", "worse than free")
    few, hardness = judged(60, seed=1, helped=1.5)
    report = routing_report(few, scores={"hardness": hardness})
    more = report.routers.set_index("router").loc["hardness", "more_prompts"]
    assert report.because.endswith(f"the best is hardness, about {more} more prompts needed")
    enough, hardness = judged(60 + 2 * int(more), seed=2, helped=1.5)
    assert routing_report(enough, scores={"hardness": hardness}).best == "hardness"


def test_without_a_gap_nothing_is_measured_in_parts_of_it() -> None:
    frame, hardness = judged(200, skill={"small": 1.0, "large": 1.0}, helped=0.0)
    report = routing_report(frame, scores={"hardness": hardness})
    assert report.verdict == "cannot tell yet"
    assert "whether large is better than small is not known" in report.because
    assert report.routers[["apgr", "cpt50", "cpt80", "apgr_ten_bins", "apgr_over_length"]].isna().all(axis=None)


def test_a_cheap_model_that_is_better_is_recommended_alone() -> None:
    report = routing_report(judged(300, skill={"small": 2.0, "large": 0.0}, helped=0.1)[0])
    assert (report.verdict, report.best) == ("recommend", "small")
    assert "use small alone" in report.because


def test_few_prompts_have_no_interval_and_no_verdict() -> None:
    frame, hardness = judged(10)
    report = routing_report(frame, scores={"hardness": hardness})
    assert report.verdict == "cannot tell yet"
    assert report.because == "10 different prompts: at least 30 are needed for an interval"
    assert report.routers[["apgr_low", "gain_low", "apgr"]].isna().all(axis=None)
    assert report.models["quality_low"].isna().all()


def test_forty_prompts_of_ten_texts_are_ten_draws() -> None:
    frame, hardness = judged(40)
    texts = {name: f"question {place % 10}" for place, name in enumerate(hardness.index)}
    assert routing_report(frame, texts=texts).different_prompts == 10


def test_models_that_are_always_right_give_no_number() -> None:
    frame, hardness = judged(100)
    report = routing_report(frame.assign(quality_score=1.0), scores={"hardness": hardness})
    assert report.verdict == "cannot tell yet"
    assert report.routers["apgr"].isna().all()


def test_constant_scores_are_worth_what_mixing_is_worth() -> None:
    frame, hardness = judged(200)
    report = routing_report(frame.drop(columns="cost_usd"), scores={"flat": hardness * 0})
    row = report.routers.set_index("router").loc["flat"]
    assert row["apgr"] == pytest.approx(0.5)
    assert row["verdict"] == "cannot tell yet"
    assert np.isnan(row["apgr_ten_bins"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scores": {"r": pd.Series([1.0], index=["p00000"])}}, "no finite score for 49 prompts"),
        ({"scores": {"r": [1.0]}}, "is a list: give a Series"),
        ({"scores": pd.Series([1.0])}, "scores is a Series: give a mapping"),
        ({"scores": {"length": pd.Series(dtype=float)}}, "which the report has already"),
        ({"scores": {"r": pd.DataFrame({"small": [1.0]}, index=["p00000"])}}, "no column 'large'"),
        ({"scores": {"r": pd.Series(["a"] * 50, index=[f"p{n:05}" for n in range(50)])}}, "cannot be read as numbers"),
        ({"scores": {"r": pd.Series(1.0, index=["p00000"] * 2)}}, "'p00000' twice"),
        ({"weak": "smal"}, "did you mean 'small'"),
        ({"weak": "large", "strong": "large"}, "both 'large'"),
        ({"confidence": 1.2}, "confidence is 1.2"),
        ({"resamples": 10}, "at least 100"),
    ],
)
def test_what_means_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(al.InvalidValue, match=message):
        routing_report(judged(50)[0], **options)


def test_three_models_without_costs_are_refused() -> None:
    frame, _ = judged(50, skill={"small": 0.0, "middle": 0.5, "large": 1.0}, costs=False)
    with pytest.raises(al.InvalidValue, match=r"costs of .* are not known"):
        routing_report(frame)
    assert routing_report(frame, models=["small", "large"]).prompts == 50


def test_one_seed_gives_one_report_and_it_shows_itself() -> None:
    frame, hardness = judged(100)
    first, second = (routing_report(frame, scores={"hardness": hardness}, seed=4) for _ in range(2))
    pd.testing.assert_frame_equal(first.routers, second.routers)
    assert "verdict" in repr(first)
    assert "hardness" in first._repr_html_()
    other = routing_report(frame, scores={"hardness": hardness}, seed=5)
    assert other.routers["gain_low"].tolist() != first.routers["gain_low"].tolist()


def test_intervals_cover_and_no_difference_is_seldom_called_one() -> None:
    """The long run with its figures is benchmarks/routing_simulation.py."""
    runs, covered, recommended = 100, 0, 0
    hard = np.random.default_rng(0).normal(size=400_000)
    true = 1 / (1 + np.exp(hard - 1.5)) - 1 / (1 + np.exp(2.0 * hard))
    truth = (true * hard.argsort().argsort()).mean() / len(hard) / true.mean()
    for seed in range(runs):
        frame, hardness = judged(250, seed=seed, costs=False)
        row = routing_report(frame, scores={"r": hardness}, resamples=200).routers.set_index("router").loc["r"]
        covered += row["apgr_low"] <= truth <= row["apgr_high"]
        noise = np.random.default_rng(10_000 + seed).random((2, 250))
        scores = {name: pd.Series(row, hardness.index) for name, row in zip("ab", noise, strict=True)}
        report = routing_report(frame, scores=scores, resamples=200)
        recommended += report.verdict == "recommend"
    assert 0.90 <= covered / runs <= 0.99
    assert recommended / runs <= 0.05


def test_gsm8k_as_a_frame(shared_data: Path) -> None:
    names = {"mistralai/Mixtral-8x7B-Instruct-v0.1": "mixtral", "gpt-4-1106-preview": "gpt-4"}
    wide = pd.read_csv(shared_data / "routellm" / "gsm8k_responses.csv", usecols=["prompt", *names]).rename(
        columns=names
    )
    frame = wide.melt("prompt", var_name="model", value_name="quality_score")
    report = routing_report(frame, prompt="prompt")
    assert (report.weak, report.strong, report.prompts) == ("mixtral", "gpt-4", 1_319)
    assert report.models["quality_mean"].round(3).tolist() == [0.638, 0.857]
    assert report.routers.set_index("router").loc["length", "apgr_ten_bins"] == pytest.approx(0.6005, abs=5e-5)
