"""Random times: constant, exponential, or drawn from a table of quantiles.

A table holds (p_0 = 0, t_0), (p_1, t_1) ... (p_n = 1, t_n), both rising. The quantile function is
linear between its points, so a draw u gives

    t_i + (t_i+1 - t_i) * (u - p_i) / (p_i+1 - p_i)    with p_i <= u < p_i+1

and the mean is the sum of (p_i+1 - p_i) * (t_i + t_i+1) / 2. Probabilities are integers in units of
2**-24, so that a percentile as high as 99.9999 can stand in a table.
"""

import numpy as np

from sim.agents import LOG_TABLE
from sim.disks.fields import S_COUNT, S_FORM, S_KEY, S_MEAN, S_TABLE
from sim.jit import kernel
from sim.rng import draw, exponential

u64 = np.uint64
ONE, TWO = u64(1), u64(2)

CONSTANT, EXPONENTIAL, QUANTILES = range(3)
PROBABILITY_BITS = 24
SHIFT = u64(64 - PROBABILITY_BITS)


@kernel
def sample(st, s):
    """The next time of the service at `s`, in cycles."""
    form = st[s + S_FORM]
    if form == CONSTANT:
        return st[s + S_MEAN]
    index = st[s + S_COUNT]
    st[s + S_COUNT] = index + 1
    if form == EXPONENTIAL:
        return exponential(st, LOG_TABLE, st[s + S_KEY], index, st[s + S_MEAN])
    return quantile(st, u64(st[s + S_TABLE]), np.int64(draw(st[s + S_KEY], index) >> SHIFT))


@kernel
def quantile(st, at, u):
    """The time below which a share `u` (in 2**-24, below 1) of the draws lies."""
    while st[at + TWO] <= u:
        at += TWO
    low, high = st[at], st[at + TWO]
    return st[at + ONE] + (st[at + u64(3)] - st[at + ONE]) * (u - low) // (high - low)
