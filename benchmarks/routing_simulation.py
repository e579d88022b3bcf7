"""How often intervals of routing reports and replays cover the truth, and how often nothing is called something.

    python benchmarks/routing_simulation.py [--runs 1000] [--fits 300] [--seed 0]

Invented worlds whose truth is known. Nominal coverage is 95 %; with no real difference "recommend" should appear in at most
5 % of the runs.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from autom8_lab.tuning.fitting import Vectors, fit_router
from autom8_lab.tuning.outcomes import outcomes_of
from autom8_lab.tuning.replay import replay
from autom8_lab.tuning.routing import routing_report
from autom8_lab.validation import moment

ACTIONS = ["large", "middle", "small"]


def judged(count: int, draw: np.random.Generator, *, helped: float = 0.6) -> tuple[pd.DataFrame, pd.Series]:
    """Answers of two models, right or wrong, costs, and a score that tells where the strong one helps."""
    hard = draw.normal(size=count)
    right = draw.random((count, 2)) < 1 / (1 + np.exp(-np.column_stack([0.6 - helped * hard, 1.8 - 0.2 * hard])))
    cost = np.column_stack([np.full(count, 1.0), 5 * np.exp(0.3 * draw.normal(size=count) + 0.1 * hard)])
    ids = [f"p{n:07}" for n in range(count)]
    parts = [
        pd.DataFrame({"prompt_id": ids, "model": m, "quality_score": right[:, n].astype(float), "cost_usd": cost[:, n]})
        for n, m in enumerate(["small", "large"])
    ]
    return pd.concat(parts, ignore_index=True), pd.Series(hard, index=ids)


def routers(report: Any) -> Any:
    return report.routers.set_index("router")


def report_coverage(runs: int, seed: int) -> None:
    frame, score = judged(400_000, np.random.default_rng(seed))
    truth = routers(routing_report(frame, scores={"score": score}, resamples=100)).loc["score"]
    names = ["apgr", "cpt50", "cpt80", "gain", "aiq"]
    print("routing_report, truth:", ", ".join(f"{name} {truth[name]:.4f}" for name in names))
    for count in (100, 300, 1_000):
        draw, hits, known = np.random.default_rng(seed + count), Counter[str](), Counter[str]()
        for _ in range(runs):
            frame, score = judged(count, draw)
            row = routers(routing_report(frame, scores={"score": score}, resamples=400)).loc["score"]
            for name in names:
                known[name] += bool(np.isfinite(row[f"{name}_low"]))
                hits[name] += bool(row[f"{name}_low"] <= truth[name] <= row[f"{name}_high"])
        shown = ", ".join(f"{name} {100 * hits[name] / known[name]:.1f} %" for name in names)
        print(f"  n = {count:,}: {shown}")


def report_of_noise(runs: int, seed: int) -> None:
    for count in (100, 300):
        for alternatives in (1, 4):
            draw, verdicts = np.random.default_rng(seed + count), Counter[str]()
            for _ in range(runs):
                frame, score = judged(count, draw)
                scores = {f"r{n}": pd.Series(draw.random(count), index=score.index) for n in range(alternatives)}
                verdicts[routing_report(frame, scores=scores, resamples=400).verdict] += 1
            print(
                f"  n = {count}, {alternatives} useless routers: recommended in {100 * verdicts['recommend'] / runs:.1f} %"
            )


def fit_of_noise(runs: int, seed: int, learners: list[str]) -> None:
    for count in (100, 300):
        draw, verdicts = np.random.default_rng(seed + count), Counter[str]()
        for number in range(runs):
            frame, score = judged(count, draw, helped=0.0)
            texts = {name: f"{'word ' * int(draw.integers(3, 60))}{name}" for name in score.index}
            vectors = Vectors(draw.normal(size=(count, 16)))
            options: dict[str, Any] = {"learners": learners, "resamples": 400, "seed": number, "folds": 5}
            outcomes = outcomes_of(frame, texts=texts)
            fit = fit_router(outcomes, vectors=vectors, created_at=moment("2026-01-01", "at"), **options)
            verdicts[fit.recommendation.verdict] += 1
        share = 100 * verdicts["recommend"] / runs
        print(f"  n = {count}, {', '.join(learners)} and the length, all noise: recommended in {share:.1f} % of {runs}")


def softmax(scores: np.ndarray) -> np.ndarray:
    weight = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weight / weight.sum(axis=1, keepdims=True)


def decided(count: int, draw: np.random.Generator, *, linear: bool) -> tuple[pd.DataFrame, pd.DataFrame, float, float]:
    """Choices of a softmax with exploration, a sharper policy, and what it truly achieves and costs."""
    hard = draw.normal(size=count)
    scores = np.column_stack([0.5 * hard, 0 * hard, -0.5 * hard])
    logged = 0.7 * softmax(2 * scores) + 0.1
    target = 0.9 * softmax(12 * scores) + 0.1 / 3
    straight = np.clip(np.column_stack([0.8 - 0.05 * hard, 0.6 - 0.1 * hard, 0.5 - 0.15 * hard]), 0.02, 0.98)
    curved = 1 / (1 + np.exp(-np.column_stack([1.5 - 0.2 * hard**2, 0.5 - 0.5 * hard, 1 - hard**2])))
    quality = straight if linear else curved
    price = np.array([0.01, 0.003, 0.001]) * np.exp(0.2 * hard)[:, None]
    chosen = (draw.random(count)[:, None] > logged.cumsum(axis=1)).sum(axis=1).clip(0, 2)
    rows = np.arange(count)
    log = pd.DataFrame(
        {
            "chosen": np.array(ACTIONS)[chosen],
            "propensity": logged[rows, chosen],
            "quality_score": (draw.random(count) < quality[rows, chosen]).astype(float),
            "cost_usd": price[rows, chosen] * np.exp(0.3 * draw.normal(size=count)),
            "hard": hard,
        }
    )
    truth = [(target * values).sum(axis=1).mean() for values in (quality, price * np.exp(0.045))]
    return log, pd.DataFrame(target, columns=ACTIONS), float(truth[0]), float(truth[1])


def replay_coverage(runs: int, seed: int) -> None:
    for linear in (True, False):
        worlds = [decided(500_000, np.random.default_rng(seed + n), linear=linear)[2:] for n in range(8)]
        truth = dict(zip(("quality_score", "cost_usd"), np.mean(worlds, axis=0), strict=True))
        print(f"replay, outcomes {'linear' if linear else 'not linear'} in the features:")
        for count in (300, 1_000, 8_000):
            draw, hits, effective = np.random.default_rng(seed + count), Counter[tuple[str, str]](), []
            for _ in range(runs):
                log, target, _, _ = decided(count, draw, linear=linear)
                report = replay(log, target, features=["hard"])
                effective.append(report.effective_sample_size)
                for row in report.estimates.to_dict("records"):
                    within = row["low"] <= truth[row["measure"]] <= row["high"]
                    hits[row["measure"], row["estimator"]] += bool(within)
            shown = ", ".join(f"{m} {e} {100 * k / runs:.1f} %" for (m, e), k in hits.items())
            print(f"  n = {count:,} (worth {np.mean(effective):,.0f}): {shown}")


def replay_of_nothing(runs: int, seed: int) -> None:
    draw, called = np.random.default_rng(seed), Counter[str]()
    for _ in range(runs):
        chosen = draw.choice(["a", "b"], 300)
        log = pd.DataFrame(
            {"chosen": chosen, "propensity": 0.5, "quality_score": (draw.random(300) < 0.7).astype(float)}
        )
        estimates = replay(log, {"a": 0.8, "b": 0.2}).estimates
        for row in estimates.to_dict("records"):
            called[row["estimator"]] += row["verdict"] != "cannot tell yet"
    shown = ", ".join(f"{name} {100 * count / runs:.1f} %" for name, count in called.items())
    print(f"replay, no difference between the actions: called one in {shown}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--fits", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.perf_counter()
    replay_of_nothing(options.runs, options.seed)
    replay_coverage(options.runs, options.seed)
    report_coverage(options.runs, options.seed)
    report_of_noise(options.runs, options.seed)
    fit_of_noise(options.fits, options.seed, ["knn", "linear"])
    fit_of_noise(max(1, options.fits // 6), options.seed, ["knn", "linear", "boosted"])
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
