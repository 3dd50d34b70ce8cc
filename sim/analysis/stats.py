"""Statistics of a simulated run that say no more than the samples can bear.

Every function takes one series (one-dimensional, in order of time where order matters) in whatever
unit it has and answers in that unit. Nothing is interpolated and nothing is assumed normal unless
its docstring says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

MSER_BATCH = 5
MSER_SHORTEST = 50
BATCHES_WANTED = 16  # up to twice as many are kept
BATCHES_LEAST = 8

# Student t, 97.5 % point, for 1 ... 30 degrees of freedom, rounded to six decimals.
_T975 = (
    12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157,
    2.228139, 2.200985, 2.178813, 2.160369, 2.144787, 2.131450, 2.119905, 2.109816, 2.100922,
    2.093024, 2.085963, 2.079614, 2.073873, 2.068658, 2.063899, 2.059539, 2.055529, 2.051831,
    2.048407, 2.045230, 2.042272,
)  # fmt: skip
_Z975 = 1.959963984540054


class MeanInterval(NamedTuple):
    """A mean and half the width of its 95 % confidence interval, in the unit of the samples."""

    mean: float
    half_width: float


class Ratio(NamedTuple):
    """A ratio of sums and half the width of its 95 % confidence interval; None: cannot be said."""

    value: float
    half_width: float | None


class QuantileInterval(NamedTuple):
    """Two samples with the quantile between them; -inf or inf where too few samples bound it."""

    low: Any
    high: Any


def percentile(samples: ArrayLike, q: float | Sequence[float] | NDArray[Any]) -> Any:
    """The nearest-rank percentile: the smallest sample with at least q % of samples <= it.

    One q gives one sample, several give an array of their shape; either has the dtype of
    `samples`, so integers stay integers: it is always a value that occurred. q runs from 0
    (the minimum) to 100 (the maximum) and counts as the decimal number it prints as, so that the
    rank of 99.9 % of 1000 is 999 and not one more by rounding.
    """
    values = _series(samples)
    shares = np.asarray(q, dtype=np.float64)
    ranks = np.array([rank_of(share, len(values)) for share in shares.ravel().tolist()], np.intp)
    if not len(ranks):
        return np.empty(shares.shape, values.dtype)
    places = ranks - 1
    picked = np.partition(values, np.unique(places))[places].reshape(shares.shape)
    return picked[()]


def rank_of(q: float, count: int) -> int:
    """The rank, from 1, of the q-th percentile of `count` samples; q as in percentile()."""
    if not 0 <= q <= 100:
        raise ValueError(f"q must lie in 0 ... 100, not {q}")
    return max(1, math.ceil(Fraction(repr(q)) * count / 100))


def mser5(samples: ArrayLike) -> int:
    """Where the warm-up ends: the number of samples to cut from the front, by the MSER-5 rule.

    Averages of 5 samples each; the cut is where the rest has the smallest squared standard error,
    sum (x - mean)^2 / n^2. The answer is a multiple of 5, at most half of the series, the earliest
    where several are as good, and 0 for fewer than 50 samples (no verdict). An answer near half
    means the series is too short to say. Samples in order of time.
    White, Cobb, Spratt: A Comparison of Five Steady-State Truncation Heuristics for Simulation,
    Winter Simulation Conference 2000.
    """
    values = _series(samples)
    if len(values) < MSER_SHORTEST:
        return 0
    means = _batch_averages(values[: len(values) // MSER_BATCH * MSER_BATCH], MSER_BATCH)
    means = means - np.median(means)  # keeps digits in the sums below; leaves a constant at zero
    left = np.arange(len(means), 0, -1)
    sums = np.cumsum(means[::-1])[::-1]
    squares = np.cumsum((means * means)[::-1])[::-1]
    squared_errors = (squares - sums * sums / left) / (left * left)
    return MSER_BATCH * int(np.argmin(squared_errors[: len(means) // 2 + 1]))


def batch_means(samples: ArrayLike, batches: int = 20) -> MeanInterval:
    """Mean of a correlated series and the half width of its 95 % confidence interval.

    The series is cut into `batches` runs of equal length, and their averages are taken as
    independent and normal: right when a batch is much longer than the correlation, too narrow
    otherwise. Up to batches - 1 samples at the front (nearest to the warm-up) go unused. Samples
    in order of time, warm-up removed. The Student quantile is a table of six decimals up to 30
    degrees of freedom and a Cornish-Fisher expansion above (error below 1e-6).
    """
    values = _series(samples)
    if batches < 2:
        raise ValueError(f"an interval takes at least 2 batches, not {batches}")
    if len(values) < batches:
        raise ValueError(f"{len(values)} samples do not fill {batches} batches")
    size = len(values) // batches
    means = _batch_averages(values[len(values) - size * batches :], size)
    half_width = student_t975(batches - 1) * means.std(ddof=1) / math.sqrt(batches)
    return MeanInterval(float(means.mean()), float(half_width))


def quantile_interval(samples: ArrayLike, q: float, confidence: float = 0.95) -> QuantileInterval:
    """Confidence interval of the q-th percentile between two order statistics.

    The number of samples below the true percentile is binomial(n, q / 100) whatever the
    distribution; the two ranks leave at most (1 - confidence) / 2 outside on each side, so the
    coverage is at least `confidence`. Needs independent samples: thin a correlated series or take
    one percentile per independent run, or the interval is too narrow. A side that the samples
    cannot bound is -inf or inf (a 99.9 % point takes 3688 samples for an upper end).
    David, Nagaraja: Order Statistics, 3rd edition, 2003, section 7.1.
    """
    values = _series(samples)
    if not 0 < q < 100:
        raise ValueError(f"q must lie between 0 and 100, not {q}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    first, cumulative = _binomial_cdf(len(values), q / 100)
    tail = (1 - confidence) / 2
    # P(fewer than low_rank samples below) <= tail, P(at least high_rank samples below) <= tail
    low_rank = first + int(np.searchsorted(cumulative, tail, side="right"))
    high_rank = first + int(np.searchsorted(cumulative, 1 - tail, side="left")) + 1
    ends = [rank - 1 for rank in (low_rank, high_rank) if 1 <= rank <= len(values)]
    ordered = np.partition(values, ends) if ends else values
    return QuantileInterval(
        low=ordered[low_rank - 1] if low_rank >= 1 else -math.inf,
        high=ordered[high_rank - 1] if high_rank <= len(values) else math.inf,
    )


def mean_interval(samples: ArrayLike) -> MeanInterval:
    """Mean of independent samples, taken as normal, and the half width of its 95 % interval.

    Student's t: for one value per independent replication, say.
    """
    values = _series(samples).astype(np.float64)
    if len(values) < 2:
        raise ValueError("an interval takes at least 2 samples")
    half_width = student_t975(len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return MeanInterval(float(values.mean()), float(half_width))


def ratio_of_batches(above: ArrayLike, below: ArrayLike) -> Ratio:
    """Ratio of two sums over one run, and its 95 % interval, from the sums of each batch.

    Batches in order of time. What counts is the residual of each batch, above - ratio * below.
    Up to 31 batches are kept, more are joined with their neighbours; and they are joined further
    as long as the residuals of neighbours are correlated (lag-1 autocorrelation above its 95 %
    bound for independent ones). With fewer than 8 left the half width is None: the run is too short
    for its correlation, and a width would be too narrow.
    Schmeiser: Batch Size Effects in the Analysis of Simulation Output, Operations Research 30, 1982
    (10 to 30 batches); von Neumann's test of neighbours as in Fishman: Grouping Observations in
    Digital Simulation, Management Science 24, 1978.
    """
    top, bottom = (_series(sums).astype(np.float64) for sums in (above, below))
    if top.shape != bottom.shape or not bottom.sum():
        raise ValueError("a ratio takes two series of equal length, the lower with a sum")
    value = float(top.sum() / bottom.sum())
    joined = max(1, len(top) // BATCHES_WANTED)
    while len(top) // joined >= BATCHES_LEAST:
        tops, bottoms = _joined(top, joined), _joined(bottom, joined)
        if not bottoms.sum():  # all of it was in the oldest batches, which are left out
            break
        residuals = tops - value * bottoms
        residuals -= residuals.mean()  # the oldest batches may have been left out
        count, power = len(residuals), float((residuals * residuals).sum())
        lag1 = float((residuals[1:] * residuals[:-1]).sum()) / power if power > 0 else 0.0
        if lag1 <= 1.645 / math.sqrt(count):
            spread = math.sqrt(power / (count - 1) / count)
            return Ratio(value, student_t975(count - 1) * spread / float(bottoms.mean()))
        joined *= 2
    return Ratio(value, None)


def _joined(sums: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Sums over `size` neighbours; what is left over at the front is left out."""
    return np.asarray(sums[len(sums) % size :].reshape(-1, size).sum(axis=1))


def student_t975(degrees_of_freedom: int) -> float:
    """The 97.5 % point of Student's t: the factor of a two-sided 95 % interval.

    Table up to 30, above it Abramowitz and Stegun 26.7.5 with four terms (error below 1e-6).
    """
    if degrees_of_freedom < 1:
        raise ValueError(f"degrees_of_freedom must be at least 1, not {degrees_of_freedom}")
    if degrees_of_freedom <= len(_T975):
        return _T975[degrees_of_freedom - 1]
    z, v = _Z975, float(degrees_of_freedom)
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * v**4)
    )


def _series(samples: ArrayLike) -> NDArray[Any]:
    values = np.asarray(samples)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"samples must be one series with at least one value: {values.shape}")
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise ValueError("samples hold missing values (NaN); leave them out first")
    return values


def _batch_averages(values: NDArray[Any], size: int) -> NDArray[np.float64]:
    return np.asarray(values.reshape(-1, size).mean(axis=1, dtype=np.float64))


def _binomial_cdf(count: int, share: float) -> tuple[int, NDArray[np.float64]]:
    """P(B <= k) for k = first, first + 1, ...; what lies outside is below 1e-20 together.

    Ratios of neighbours from the mode outwards: no factorials, exact to rounding for any count.
    """
    mode = min(count, int((count + 1) * share))
    reach = int(12 * math.sqrt(count * share * (1 - share))) + 60
    first, last = max(0, mode - reach), min(count, mode + reach)
    k = np.arange(first, last)
    log_ratios = np.log(count - k) - np.log(k + 1) + math.log(share) - math.log1p(-share)
    logs = np.concatenate(([0.0], np.cumsum(log_ratios)))
    masses = np.exp(logs - logs.max())
    return first, np.cumsum(masses) / masses.sum()
