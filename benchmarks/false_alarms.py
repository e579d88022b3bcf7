"""How often tuning is wrong when the truth is known: simulated draws, a thousand of each kind.

    python benchmarks/false_alarms.py [--draws 1000] [--seed 0]

A budget of false hits is broken when the true rate of a certified threshold is above it (bar: 5 %); a recommendation is
wrong when there is no real difference (bar: 5 %). Beside the last: how often the usual interval of cross-validated
gains would have been above zero.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from autom8_lab.tuning.certificates import certify
from autom8_lab.tuning.curve import EVEN_COSTS
from autom8_lab.tuning.labels import Labels
from autom8_lab.tuning.ranking import FOLDS, cross_validated
from autom8_lab.tuning.thresholds import Goal, best_threshold_choice
from autom8_lab.tuning.verdicts import best_of, difference_of


def budgets(generator: np.random.Generator, draws: int) -> None:
    print(
        f"{'labels':>7} {'budget':>7} {'certified':>10} {'broken':>7} {'bound below truth':>18} {'hit rate':>9} {'ideal':>6}"
    )
    for n, power, budget in ((200, 2, 0.2), (400, 3, 0.05), (1000, 3, 0.05), (2000, 6, 0.01), (5000, 3, 0.05)):
        certified, broken, above, rates = 0, 0, 0, []
        for seed in range(draws):
            scores = generator.random(n)
            # Wrong with probability (1 - score)**power: from t on the true rate is (1 - t)**power / (power + 1).
            found = certify(scores, generator.random(n) >= (1 - scores) ** power, budget=budget, seed=seed)
            if found.threshold is not None:
                truth = (1 - found.threshold) ** power / (power + 1)
                certified += 1
                broken += truth > budget
                above += truth > found.upper
                rates.append(1 - found.threshold)
        ideal = min(1.0, (budget * (power + 1)) ** (1 / power))
        shares = f"{certified / draws:>10.1%} {broken / draws:>7.1%} {above / draws:>18.1%}"
        print(f"{n:>7} {budget:>7.2f} {shares} {np.mean(rates):>9.2f} {ideal:>6.2f}")


def rankings(generator: np.random.Generator, draws: int) -> None:
    print(f"\n{'queries':>8} {'settings':>9} {'recommended':>12} {'usual interval':>15}")
    for n, settings in ((60, 20), (60, 100), (300, 20), (300, 100)):
        recommended, usual = 0, 0
        for seed in range(draws):
            # Neighbouring settings are alike, and most queries do not care.
            values = np.cumsum(generator.normal(size=(settings, n)), axis=0) * (generator.random(n) < 0.4)
            _, gain = best_of(values - values[0], seed=seed)
            recommended += gain.sign > 0 and cross_validated(values, seed) > 0
            fold, gained = generator.permutation(n) % FOLDS, np.empty(n)
            for number in range(FOLDS):
                own = fold == number
                gained[own] = (values - values[0])[values[:, ~own].mean(axis=1).argmax()][own]
            usual += difference_of(gained, seed=seed).sign > 0
        print(f"{n:>8} {settings:>9} {recommended / draws:>12.1%} {usual / draws:>15.1%}")


def thresholds(generator: np.random.Generator, draws: int) -> None:
    print(f"\n{'labels':>7} {'scores':>12} {'recommended':>12}")
    goal = Goal(beta=None, costs=EVEN_COSTS)
    for n, steepness in ((60, 0.0), (60, 12.0), (200, 0.0), (200, 12.0)):
        recommended = 0
        for _ in range(draws):
            scores = generator.random(n)
            right = generator.random(n) < 1 / (1 + np.exp(-steepness * (scores - 0.5)))
            if 5 <= right.sum() <= n - 5:
                recommended += best_threshold_choice(Labels(scores, right), goal, 0.5).verdict == "recommend"
        print(f"{n:>7} {'noise' if not steepness else 'tuned':>12} {recommended / draws:>12.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for part in (budgets, rankings, thresholds):
        started = time.perf_counter()
        part(np.random.default_rng(arguments.seed), arguments.draws)
        print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
