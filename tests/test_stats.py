"""Percentiles, warm-up and confidence intervals, against scipy, brute force and known answers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal as scipy_signal
from scipy import stats as scipy_stats

from sim.analysis.stats import (
    batch_means,
    mean_interval,
    mser5,
    percentile,
    quantile_interval,
    ratio_of_batches,
    student_t975,
)

integers = st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=60)


@given(integers, st.integers(0, 1000))
def test_a_percentile_is_the_smallest_sample_that_has_enough_below_it(samples, per_mille):
    found = percentile(samples, per_mille / 10)
    at_most = [
        s
        for s in sorted(samples)
        if sum(x <= s for x in samples) * 1000 >= per_mille * len(samples)
    ]
    assert found == at_most[0]


def test_several_percentiles_come_at_once_and_integers_stay_integers():
    found = percentile(np.arange(100, 0, -1, dtype=np.int64), [0, 1, 50, 99, 99.1, 100])
    assert found.tolist() == [1, 1, 50, 99, 100, 100]
    assert found.dtype == np.int64
    assert percentile([1.5, 2.5], 50) == 1.5


@pytest.mark.parametrize(
    ("q", "rank"), [(99.9, 999), (99.7, 997), (28.8, 288), (0.1, 1), (55.5, 555)]
)
def test_a_rank_is_not_one_too_high_by_rounding(q, rank):
    """In floating point 99.9 / 100 * 1000 and its like may come out above the whole number."""
    assert percentile(np.arange(1, 1001), q) == rank


def test_percentile_leaves_the_samples_as_they_were():
    samples = np.array([3, 1, 2])
    percentile(samples, [50, 90])
    assert samples.tolist() == [3, 1, 2]


def test_numpy_calls_this_the_inverted_cdf():
    samples = np.random.default_rng(4).integers(0, 1000, 777)
    qs = [1, 12.5, 50, 90, 99]
    assert percentile(samples, qs).tolist() == [
        np.percentile(samples, q, method="inverted_cdf") for q in qs
    ]


def test_mser_finds_the_end_of_a_warm_up():
    noise = np.random.default_rng(1).normal(0, 1, 5000)
    noise[:400] += 20
    assert 400 <= mser5(noise) <= 450


def test_mser_is_its_own_definition():
    samples = np.random.default_rng(2).exponential(1, 203) + 5 * np.exp(-np.arange(203) / 20)
    batches = samples[:200].reshape(-1, 5).mean(axis=1)
    errors = [batches[cut:].var() / (40 - cut) for cut in range(21)]
    assert mser5(samples) == 5 * int(np.argmin(errors))


@given(st.integers(1, 400), st.integers(0, 2**32 - 1))
def test_mser_cuts_whole_batches_and_at_most_half(length, seed):
    samples = np.random.default_rng(seed).normal(0, 1, length).cumsum()
    cut = mser5(samples)
    assert cut % 5 == 0
    assert 0 <= 2 * cut <= length
    assert cut == 0 or length >= 50


def test_mser_cuts_nothing_from_a_constant_or_a_short_series():
    assert mser5(np.full(1000, 0.1)) == 0
    assert mser5([9] * 10 + [1] * 39) == 0


def test_mser_keeps_its_digits_on_large_cycle_counts():
    small = np.random.default_rng(3).integers(0, 100, 1000)
    small[:200] += 500
    assert mser5(small + 10**12) == mser5(small)
    assert 200 <= mser5(small) <= 250


def test_batch_means_of_four_batches_by_hand():
    """Batches (1, 3), (5, 7), (2, 2), (4, 8) after one unused: means 2, 6, 2, 6."""
    mean, half_width = batch_means([99, 1, 3, 5, 7, 2, 2, 4, 8], batches=4)
    assert mean == 4
    assert half_width == pytest.approx(3.182446 * math.sqrt(16 / 3) / 2)


def test_batch_means_cover_the_truth_of_a_correlated_series():
    """AR(1) with mean 10: about 95 % of the intervals hold it; plain standard errors do not."""
    rng = np.random.default_rng(5)
    covered = naive_covered = 0
    for _ in range(200):
        noise, series = rng.normal(0, 1, 4000), np.empty(4000)
        value = 0.0
        for i, step in enumerate(noise):
            value = 0.8 * value + step
            series[i] = 10 + value
        mean, half_width = batch_means(series)
        covered += abs(mean - 10) <= half_width
        naive_covered += abs(series.mean() - 10) <= 1.96 * series.std() / math.sqrt(4000)
    assert 180 <= covered <= 198
    assert naive_covered < 140


@pytest.mark.parametrize("degrees", [*range(1, 41), 60, 99, 1000, 10**6])
def test_student_quantiles_agree_with_scipy(degrees):
    assert student_t975(degrees) == pytest.approx(scipy_stats.t.ppf(0.975, degrees), abs=1e-6)


@pytest.mark.parametrize("count", [1, 5, 60, 1000, 100_000])
@pytest.mark.parametrize("q", [1, 50, 90, 99.9])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_quantile_interval_takes_the_ranks_of_the_binomial(count, q, confidence):
    tail, below = (1 - confidence) / 2, scipy_stats.binom(count, q / 100)
    low, high = quantile_interval(np.arange(1, count + 1), q, confidence)
    if low == -math.inf:
        assert below.cdf(0) > tail
    else:
        assert below.cdf(low - 1) <= tail < below.cdf(low)
    if high == math.inf:
        assert below.cdf(count - 1) < 1 - tail
    else:
        assert below.cdf(high - 2) < 1 - tail <= below.cdf(high - 1)


def test_a_far_tail_has_no_upper_end_before_3688_samples():
    assert quantile_interval(np.arange(3687), 99.9).high == math.inf
    assert quantile_interval(np.arange(3688), 99.9).high == 3687


def test_quantile_interval_holds_the_true_quantile_as_often_as_it_says():
    rng = np.random.default_rng(6)
    truth = -math.log(0.1)
    hits = 0
    for _ in range(500):
        low, high = quantile_interval(rng.exponential(1, 300), 90)
        hits += low <= truth <= high
    assert hits >= 465


@pytest.mark.parametrize(
    "ask",
    [
        lambda: percentile([], 50),
        lambda: percentile([1, 2], 101),
        lambda: percentile([1, 2], math.nan),
        lambda: percentile([1.0, math.nan], 50),
        lambda: percentile([[1, 2], [3, 4]], 50),
        lambda: batch_means([1, 2, 3], batches=1),
        lambda: batch_means([1, 2, 3], batches=4),
        lambda: quantile_interval([1, 2, 3], 100),
        lambda: quantile_interval([1, 2, 3], 50, confidence=1),
        lambda: student_t975(0),
    ],
)
def test_nonsense_is_refused(ask):
    with pytest.raises(ValueError):
        ask()


def test_mean_interval_is_students():
    samples = np.random.default_rng(1).normal(5, 2, 12)
    mean, half = mean_interval(samples)
    low, high = scipy_stats.t.interval(0.95, 11, loc=samples.mean(), scale=scipy_stats.sem(samples))
    assert [mean - half, mean + half] == pytest.approx([low, high], rel=1e-6)
    with pytest.raises(ValueError):
        mean_interval([1])


def test_ratio_of_batches_by_hand():
    """Eight batches of one size: the ratio is the mean, the residuals are the deviations."""
    sums = np.array([3, 1, 4, 2, 3, 1, 4, 2])
    value, half = ratio_of_batches(sums, np.ones(8))
    assert value == 2.5
    assert half == pytest.approx(2.364624 * sums.std(ddof=1) / math.sqrt(8))


def test_ratio_of_batches_weighs_batches_by_their_size():
    above, below = np.array([10, 0, 10, 0] * 4), np.array([5, 0.5, 5, 0.5] * 4)
    assert ratio_of_batches(above, below).value == above.sum() / below.sum()


def test_batches_that_hang_together_are_joined_until_they_do_not():
    rng = np.random.default_rng(2)
    slow = np.repeat(rng.normal(10, 1, 16), 4)  # four neighbours each are one and the same
    joined = ratio_of_batches(slow, np.ones(64)).half_width
    plain = mean_interval(slow).half_width
    assert joined > 1.5 * plain


def test_a_trend_gets_no_interval():
    assert ratio_of_batches(np.arange(60.0), np.ones(60)).half_width is None
    assert ratio_of_batches(np.arange(7.0), np.ones(7)).half_width is None


def test_what_does_not_vary_has_an_interval_of_no_width():
    assert ratio_of_batches(np.full(40, 7), np.full(40, 2)) == (3.5, 0)


def test_ratio_of_batches_holds_the_truth_of_a_correlated_series():
    """AR(1) with 0.95, 20,000 samples in 48 batches, as the recorder keeps them."""
    rng = np.random.default_rng(5)
    hits = naive = 0
    for _ in range(200):
        noise = rng.normal(0, 1, 20_352)
        series = scipy_signal.lfilter([1], [1, -0.95], noise)[480:-48]
        sums = series[: 413 * 48].reshape(48, 413).sum(axis=1)
        ratio = ratio_of_batches(sums, np.full(48, 413))
        hits += ratio.half_width is not None and abs(ratio.value) <= ratio.half_width
        naive += abs(series.mean()) <= 1.96 * series.std() / math.sqrt(len(series))
    assert 180 <= hits <= 199
    assert naive < 100
