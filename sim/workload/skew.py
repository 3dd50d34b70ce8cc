"""Tables of skewed distributions, as fio defines them: where the ranks of zipf and pareto lie.

A table has knots (rank, cumulative share of all lower ranks in units of 2**-40). Up to rank 1024
every rank is a knot, beyond it they are 1/64 apart and the share grows evenly in between, so the
share of a single far rank is off by a percent or two. All arithmetic is decimal and correctly
rounded, so a table is the same on every machine.

    zipf    fio's zipf_next(): the approximation of Gray et al., Quickly generating billion-record
            synthetic databases (SIGMOD 1994), exact for the first two ranks
    pareto  fio's pareto_next(): rank = (n - 1) * u ** (ln h / ln (1 - h))
"""

from collections.abc import Callable
from decimal import Context, Decimal, localcontext
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

ONE = 1 << 40
EXACT_RANKS = 1024
GROWTH = 64  # beyond, a knot every 1/64 of its rank
DIGITS = Context(prec=30)


@lru_cache(maxsize=32)
def zipf_table(theta: Decimal, count: int) -> Ints:
    """Of `count` ranks with exponent `theta`, not 1: the number of knots, then the knots; int64."""
    with localcontext(DIGITS):
        zeta_two = 1 + power(Decimal(2), -theta)
        zeta = zeta_of(theta, count)
        if count <= 2:
            return table(count, lambda rank: Decimal(min(rank, 1)) / zeta)
        whole = 1 - power(Decimal(2) / count, 1 - theta)
        eta = whole / (1 - zeta_two / zeta)

        def share(rank: int) -> Decimal:
            if rank <= 1:
                return Decimal(rank) / zeta
            return 1 - (1 - power(Decimal(rank) / count, 1 - theta)) / eta

        return table(count, share)


@lru_cache(maxsize=32)
def pareto_table(h: Decimal, count: int) -> Ints:
    """Of `count` ranks with power `h`; as zipf_table."""
    with localcontext(DIGITS):
        inverse = (1 - h).ln() / h.ln()
        last = max(count - 1, 1)
        return table(count, lambda rank: power(min(Decimal(rank) / last, Decimal(1)), inverse))


def table(count: int, share: Callable[[int], Decimal]) -> Ints:
    """The table of a cumulative share, which is that of all ranks below a rank."""
    ranks = list(range(min(count, EXACT_RANKS)))
    while ranks[-1] < count:
        ranks.append(min(count, ranks[-1] + max(1, ranks[-1] // GROWTH)))
    shares = [int((share(rank) * ONE).to_integral_value()) if rank else 0 for rank in ranks]
    shares[-1] = ONE
    knots = np.array([ranks, shares], dtype=np.int64)
    assert (np.diff(knots[1]) >= 0).all()
    return np.concatenate([[len(ranks)], knots.T.reshape(-1)]).astype(np.int64)


def power(base: Decimal, exponent: Decimal) -> Decimal:
    """base ** exponent by ln and exp, which decimal rounds correctly."""
    return (exponent * base.ln()).exp() if base else Decimal(0)


def zeta_of(theta: Decimal, count: int) -> Decimal:
    """The sum of i ** -theta for i = 1 ... count; Euler and Maclaurin's formula beyond a hundred.

    The first term left out is below 1e-20 of the sum.
    """
    head = min(count, 100)
    total = sum((power(Decimal(i), -theta) for i in range(1, head + 1)), Decimal(0))
    if count == head:
        return total
    low, high = Decimal(head), Decimal(count)
    at_low, at_high = power(low, -theta), power(high, -theta)
    total += (at_high * high - at_low * low) / (1 - theta) + (at_high - at_low) / 2
    # B2/2!, B4/4!, B6/6!, B8/8! times the odd derivatives of i ** -theta.
    slope_low, slope_high = -theta * at_low / low, -theta * at_high / high
    for order, factor in enumerate(('1/12', '-1/720', '1/30240', '-1/1209600')):
        top, bottom = factor.split('/')
        total += Decimal(top) / Decimal(bottom) * (slope_high - slope_low)
        step = (theta + 2 * order + 1) * (theta + 2 * order + 2)
        slope_low, slope_high = slope_low * step / low**2, slope_high * step / high**2
    return total
