"""The intervals, quantiles and rates against SciPy and NumPy, and against what they promise: coverage."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from autom8_lab.errors import InvalidValue
from autom8_lab.statistics import (
    NORMAL_APPROXIMATION_ABOVE,
    bootstrap_mean_interval,
    clopper_pearson_interval,
    difference_interval,
    mean_interval,
    paired_bootstrap_interval,
    quantiles_with_intervals,
    tokens_per_second,
    wilson_interval,
)

quick = settings(derandomize=True, deadline=None, max_examples=150, database=None)
trials = st.integers(1, 5_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
confidences = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99, 0.999])
finite_floats = st.floats(-1e9, 1e9, allow_subnormal=False)


@quick
@given(st.lists(trials, min_size=1, max_size=5), confidences)
@pytest.mark.parametrize(("interval", "method"), [(wilson_interval, "wilson"), (clopper_pearson_interval, "exact")])
def test_success_rate_intervals_equal_scipy_element_by_element(interval, method, pairs, confidence):
    k, n = np.array(pairs).T
    low, high = interval(k, n, confidence=confidence)
    for place, (successes, total) in enumerate(pairs):
        expected = stats.binomtest(successes, total).proportion_ci(confidence, method=method)
        assert low[place] == pytest.approx(expected.low, rel=1e-9, abs=1e-12)
        assert high[place] == pytest.approx(expected.high, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("interval", [wilson_interval, clopper_pearson_interval])
def test_success_rate_intervals_are_nan_without_trials_and_closed_at_the_ends(interval):
    low, high = interval([0, 0, 7], [0, 7, 7])
    assert np.isnan([low[0], high[0]]).all()
    assert low[1] == 0.0
    assert high[2] == 1.0
    assert 0 < high[1] < 1
    assert 0 < low[2] < 1
    n = np.arange(1, 2_000)
    assert (interval(0 * n, n)[0] == 0).all()
    assert (interval(n, n)[1] == 1).all()


def test_success_rate_intervals_broadcast_and_answer_arrays_for_scalars():
    low, high = wilson_interval([[1], [2]], [10, 20, 30])
    assert low.shape == high.shape == (2, 3)
    single, _ = wilson_interval(1, 10)
    assert isinstance(single, np.ndarray)
    assert float(single) == low[0, 0]


@pytest.mark.parametrize("interval", [wilson_interval, clopper_pearson_interval])
@pytest.mark.parametrize(
    ("k", "n", "message"),
    [
        ([1, -1], 5, r"successes contains -1\.0: give whole numbers of at least 0"),
        (1, -5, r"n contains -5\.0: give whole numbers"),
        (1, [5, float("nan")], r"n contains nan: give whole numbers"),
        (float("inf"), 5, r"successes contains inf: give whole numbers"),
        (1.5, 5, r"successes contains 1\.5: give whole numbers"),
        ([1, 6], 5, r"successes contains 6\.0: there can be at most n"),
        ("many", 5, r"successes cannot be read as numbers .*many"),
    ],
)
def test_success_rate_intervals_refuse_impossible_counts_by_name_and_value(interval, k, n, message):
    with pytest.raises(InvalidValue, match=message):
        interval(k, n)


@pytest.mark.parametrize("confidence", [0, 1, -0.5, 95, float("nan")])
@pytest.mark.parametrize(
    "call",
    [
        lambda confidence: wilson_interval(1, 2, confidence=confidence),
        lambda confidence: clopper_pearson_interval(1, 2, confidence=confidence),
        lambda confidence: bootstrap_mean_interval([1, 2], confidence=confidence),
        lambda confidence: paired_bootstrap_interval([1, 2], confidence=confidence),
        lambda confidence: quantiles_with_intervals([1, 2], [0.5], confidence=confidence),
    ],
)
def test_a_confidence_outside_zero_and_one_is_refused(call, confidence):
    with pytest.raises(InvalidValue, match=f"confidence is {confidence}: give a value between 0 and 1"):
        call(confidence)


@pytest.mark.parametrize("n", [50, 200, 1_000])
def test_simulated_wilson_intervals_cover_95_percent(n):
    generator = np.random.default_rng(n)
    rates = generator.uniform(0.05, 0.95, size=20_000)
    low, high = wilson_interval(generator.binomial(n, rates), n)
    assert 0.93 <= np.mean((low <= rates) & (rates <= high)) <= 0.97


def _mean_coverage(draw: Callable[[np.random.Generator, int], np.ndarray], mean: float, n: int) -> float:
    generator = np.random.default_rng(12_345)
    covered = 0
    for seed in range(1_500):
        low, high = bootstrap_mean_interval(draw(generator, n), resamples=1_000, seed=seed)
        covered += low <= mean <= high
    return covered / 1_500


@pytest.mark.parametrize("n", [50, 100])
@pytest.mark.parametrize(
    ("draw", "mean"),
    [
        pytest.param(lambda generator, n: generator.normal(3.0, 2.0, n), 3.0, id="normal"),
        pytest.param(lambda generator, n: generator.random(n), 0.5, id="uniform"),
        pytest.param(lambda generator, n: generator.exponential(1.0, n), 1.0, id="exponential"),
        pytest.param(lambda generator, n: generator.beta(8, 2, n), 0.8, id="quality"),
        pytest.param(lambda generator, n: generator.choice([0, 0.5, 1], n, p=[0.1, 0.2, 0.7]), 0.8, id="graded"),
    ],
)
def test_simulated_bootstrap_intervals_cover_95_percent(draw, mean, n):
    assert 0.93 <= _mean_coverage(draw, mean, n) <= 0.97


def test_simulated_intervals_above_the_normal_approximation_cover_95_percent():
    generator = np.random.default_rng(3)
    intervals = [bootstrap_mean_interval(generator.lognormal(0, 1, 6_000)) for _ in range(1_500)]
    covered = [low <= np.exp(0.5) <= high for low, high in intervals]
    assert 0.93 <= np.mean(covered) <= 0.97


@pytest.mark.parametrize("seed", range(4))
def test_the_bootstrap_interval_agrees_with_scipys_bca(seed):
    sample = np.random.default_rng(seed).gamma(2.0, size=800)
    low, high = bootstrap_mean_interval(sample, resamples=20_000)
    expected = stats.bootstrap(
        (sample,), np.mean, n_resamples=20_000, method="BCa", batch=500, rng=np.random.default_rng(9)
    ).confidence_interval
    width = expected.high - expected.low
    assert low == pytest.approx(expected.low, abs=0.03 * width)
    assert high == pytest.approx(expected.high, abs=0.03 * width)


@pytest.mark.parametrize("seed", range(4))
def test_the_bootstrap_interval_leans_with_a_skewed_sample_as_scipys_does(seed):
    sample = np.random.default_rng(seed).exponential(size=40)
    low, high = bootstrap_mean_interval(sample, resamples=20_000)
    expected = stats.bootstrap(
        (sample,), np.mean, n_resamples=20_000, method="BCa", batch=5_000, rng=np.random.default_rng(9)
    ).confidence_interval
    lean, expected_lean = ((up - sample.mean()) / (sample.mean() - down) for down, up in ((low, high), expected))
    assert lean == pytest.approx(expected_lean, rel=0.06)
    assert lean > 1.2


def test_bootstrap_and_normal_approximation_meet_where_one_takes_over():
    sample = np.random.default_rng(0).exponential(size=NORMAL_APPROXIMATION_ABOVE + 1)
    below, above = bootstrap_mean_interval(sample[:-1]), bootstrap_mean_interval(sample)
    assert below == pytest.approx(above, abs=0.1 * (above[1] - above[0]))
    expected = stats.norm.interval(0.95, sample.mean(), stats.sem(sample))
    assert above == pytest.approx(expected, rel=1e-12)


@quick
@given(st.lists(finite_floats, min_size=2, max_size=40), confidences)
@example([0.0, 1e-300], 0.95)
@example([1.0, 1.0, 1.0, 1.0 + 2**-52], 0.95)
def test_the_bootstrap_interval_is_ordered_and_within_the_data(values, confidence):
    low, high = bootstrap_mean_interval(values, confidence=confidence, resamples=200)
    assert min(values) <= low <= high <= max(values)


@quick
@given(st.lists(st.floats(0, 1), min_size=2, max_size=40), st.floats(0.1, 100), st.floats(-100, 100))
def test_the_bootstrap_interval_moves_and_stretches_with_the_data(values, factor, shift):
    low, high = bootstrap_mean_interval(values, resamples=200)
    moved = bootstrap_mean_interval(np.array(values) * factor + shift, resamples=200)
    if max(values) - min(values) > 1e-6:
        assert moved == pytest.approx((low * factor + shift, high * factor + shift), abs=1e-6 * factor)


def test_the_bootstrap_repeats_itself_with_a_seed_and_not_without():
    sample = np.random.default_rng(1).normal(size=60)
    assert bootstrap_mean_interval(sample, seed=4) == bootstrap_mean_interval(sample, seed=4)
    assert bootstrap_mean_interval(sample, seed=4) != bootstrap_mean_interval(sample, seed=5)


def test_the_bootstrap_of_fewer_than_two_values_is_nan_and_of_a_constant_has_no_width():
    assert np.isnan(bootstrap_mean_interval([])).all()
    assert np.isnan(bootstrap_mean_interval([0.7])).all()
    assert bootstrap_mean_interval([0.7] * 30) == (0.7, 0.7)


def test_paired_differences_find_what_two_unpaired_samples_would_not():
    generator = np.random.default_rng(2)
    difficulty = generator.normal(0.0, 1.0, 200)
    a = difficulty + 0.05 + generator.normal(0, 0.05, 200)
    b = difficulty + generator.normal(0, 0.05, 200)
    low, high = paired_bootstrap_interval(a - b)
    assert 0 < low < 0.05 < high < 0.1
    (a_low, _), (_, b_high) = bootstrap_mean_interval(a), bootstrap_mean_interval(b)
    assert a_low < b_high


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_mean_interval([1.0, float("nan")]), "values contains nan: drop missing values"),
        (lambda: bootstrap_mean_interval([1.0, None]), "values contains nan: drop missing values"),
        (lambda: bootstrap_mean_interval([1.0, float("-inf")]), "values contains -inf"),
        (lambda: paired_bootstrap_interval([1.0, float("nan")]), "differences contains nan"),
        (lambda: bootstrap_mean_interval(["a", "b"]), "values cannot be read as numbers .*'a'"),
        (lambda: bootstrap_mean_interval([1, 2], resamples=0), "resamples is 0: use at least 100"),
        (lambda: quantiles_with_intervals([1.0, float("nan")], [0.5]), "values contains nan"),
        (
            lambda: quantiles_with_intervals([1.0, 2.0], [0.5, 95]),
            r"probabilities contains 95\.0: .* 0\.95 for p95",
        ),
        (lambda: quantiles_with_intervals([1.0, 2.0], [float("nan")]), "probabilities contains nan"),
        (lambda: quantiles_with_intervals([2.0, 1.0], [0.5], assume_sorted=True), "not in ascending order"),
        (lambda: tokens_per_second([-1], [10]), r"output_tokens contains -1\.0"),
        (lambda: tokens_per_second([1], [float("inf")]), "latency_ms contains inf"),
        (lambda: tokens_per_second([1], [10], [-3]), r"ttft_ms contains -3\.0"),
    ],
)
def test_values_that_cannot_be_used_are_refused_by_name_and_value(call, message):
    with pytest.raises(InvalidValue, match=message):
        call()


@quick
@given(st.lists(finite_floats, min_size=1, max_size=600), st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_quantiles_equal_numpy_wherever_the_sample_supports_them(values, probabilities):
    answer = quantiles_with_intervals(values, probabilities, confidence=0.5)
    expected = np.quantile(np.array(values), probabilities)
    supported = ~np.isnan(answer.estimate)
    assert (answer.estimate[supported] == expected[supported]).all()
    assert (np.isnan(answer.low) == np.isnan(answer.estimate)).all()
    assert (np.isnan(answer.high) == np.isnan(answer.estimate)).all()
    # The interval's ranks straddle the quantile's, so up to rounding the estimate lies between the bounds.
    slack = 1e-9 * np.abs(values).max()
    assert (answer.low[supported] <= answer.estimate[supported] + slack).all()
    assert (answer.estimate[supported] <= answer.high[supported] + slack).all()


@pytest.mark.parametrize("confidence", [0.8, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("p", [0.05, 0.5, 0.9, 0.95, 0.99, 0.999])
def test_the_ranks_of_a_quantile_interval_are_the_narrow_ones_that_cover(p, confidence):
    tail = (1 - confidence) / 2
    for n in [1, 5, 6, 7, 36, 50, 72, 100, 298, 368, 1_000, 5_000, 100_000]:
        ranks = np.arange(1, n + 1)
        estimate, low, high = quantiles_with_intervals(ranks, [p], confidence=confidence, assume_sorted=True)
        supported = p**n <= tail and (1 - p) ** n <= tail
        assert np.isnan(low[0]) != supported
        assert np.isnan(estimate[0]) != supported
        if supported:
            coverage = stats.binom.cdf(high[0] - 1, n, p) - stats.binom.cdf(low[0] - 1, n, p)
            assert coverage >= confidence - 1e-12
            lowest, highest = stats.binom.ppf([tail, 1 - tail], n, p)
            assert max(lowest, 1) <= low[0] <= lowest + 1
            assert highest <= high[0] <= highest + 1


@pytest.mark.parametrize(("p", "n"), [(0.5, 6), (0.9, 36), (0.95, 72), (0.99, 368)])
def test_a_quantile_is_nan_until_the_sample_supports_it(p, n):
    for size, answered in ((n - 1, False), (n, True)):
        answer = quantiles_with_intervals(np.arange(size), p)
        assert [np.isfinite(bound[0]) for bound in answer] == [answered] * 3


@pytest.mark.parametrize(("p", "n"), [(0.5, 50), (0.9, 200), (0.95, 500), (0.99, 1_000)])
def test_simulated_quantile_intervals_cover_95_percent(p, n):
    generator = np.random.default_rng(5)
    truth = stats.lognorm.ppf(p, 1.0)
    answers = [quantiles_with_intervals(generator.lognormal(0, 1, n), [p]) for _ in range(4_000)]
    covered = [low[0] <= truth <= high[0] for _, low, high in answers]
    assert 0.93 <= np.mean(covered) <= 0.97


def test_the_order_of_the_values_does_not_matter_and_sorted_ones_answer_the_same():
    values = np.random.default_rng(6).lognormal(size=1_000)
    shuffled = quantiles_with_intervals(values, [0.5, 0.9])
    fast = quantiles_with_intervals(np.sort(values), [0.5, 0.9], assume_sorted=True)
    assert np.array_equal(shuffled, fast)


def test_quantiles_of_nothing_are_nan():
    answer = quantiles_with_intervals([], [0.5, 0.9])
    assert np.isnan(answer).all()
    assert answer.estimate.shape == (2,)


@quick
@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.floats(0, 1e7), st.floats(0, 1e7) | st.just(float("nan"))),
        min_size=1,
    )
)
def test_tokens_per_second_divide_by_the_generation_time(calls):
    tokens, latency, ttft = np.array(calls, dtype=float).T
    rate = tokens_per_second(tokens, latency, ttft)
    for place, (count, total, first) in enumerate(calls):
        seconds = (total - (0 if np.isnan(first) else first)) / 1_000
        if seconds > 1e-9:
            assert rate[place] == pytest.approx(count / seconds, rel=1e-12)
        elif total <= (0 if np.isnan(first) else first):
            assert np.isnan(rate[place])


def test_tokens_per_second_without_first_token_times_use_the_whole_latency():
    rate = tokens_per_second([100, 100, None, 100, 0], [2_000, 0, 500, None, 500])
    assert np.array_equal(rate, [50.0, np.nan, np.nan, np.nan, 0.0], equal_nan=True)
    assert isinstance(tokens_per_second(100, 2_000), np.ndarray)


def test_importing_the_module_loads_neither_numpy_nor_scipy():
    code = "import sys, autom8_lab.statistics; print({'scipy', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# Means and differences


def test_the_interval_of_a_mean_is_scipys_t_interval() -> None:
    sample = np.random.default_rng(0).exponential(size=30)
    expected = stats.t.interval(0.9, 29, loc=sample.mean(), scale=stats.sem(sample))
    assert mean_interval(sample, confidence=0.9) == pytest.approx(expected)
    assert all(np.isnan(bound) for bound in mean_interval([1.0]))
    with pytest.raises(InvalidValue, match="values contains nan"):
        mean_interval([1.0, float("nan")])


def test_newcombes_published_example_of_two_rates() -> None:
    # Newcombe 1998, table II, example (a): 56/70 against 48/80, method 10
    parts = [(k / n, *wilson_interval(k, n)) for k, n in ((56, 70), (48, 80))]
    low, high = difference_interval(*parts)
    assert (round(float(low), 4), round(float(high), 4)) == (0.0524, 0.3339)


def test_a_difference_without_one_of_its_intervals_is_nan() -> None:
    low, high = difference_interval(([0.5, 0.5], [0.4, np.nan], [0.6, np.nan]), ([0.3, 0.3], [0.2, 0.2], [0.4, 0.4]))
    assert np.isnan(low).tolist() == np.isnan(high).tolist() == [False, True]


@pytest.mark.parametrize(("p", "q", "n", "m"), [(0.9, 0.8, 60, 200), (0.5, 0.5, 40, 40), (0.97, 0.95, 300, 150)])
def test_intervals_of_a_difference_of_rates_cover_93_to_97_percent(p: float, q: float, n: int, m: int) -> None:
    draw = np.random.default_rng(7)
    parts = []
    for rate, size in ((p, n), (q, m)):
        successes = draw.binomial(size, rate, size=4_000)
        parts.append((successes / size, *wilson_interval(successes, size)))
    low, high = difference_interval(*parts)
    assert 0.93 <= ((low <= p - q) & (p - q <= high)).mean() <= 0.97
