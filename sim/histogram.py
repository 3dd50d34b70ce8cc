"""Latencies counted in fio's log-linear buckets: a distribution in constant memory.

A bucket is named by the seven leading bits of a time in ns: the six behind the first one and how
far the time was shifted (fio's stat.h: FIO_IO_U_PLAT_BITS 6, FIO_IO_U_PLAT_GROUP_NR 29). Times
below 128 ns have a bucket each; above, a bucket is at most 1/64 of its times wide, and its value is
its midpoint, so the error is below 1/128.

fio puts every time of 2**34 ns (17.2 s) and more into the last bucket. Here they are counted apart,
and a percentile that falls among them has no value. Count, sum, least and most are exact.

A histogram is HISTOGRAM_WORDS words of an int64 array: the head below, then the counts.
"""

from dataclasses import dataclass

import llvmlite.ir as ir
import numpy as np
import numpy.typing as npt
from numba import types
from numba.extending import intrinsic

from sim.jit import JIT, kernel

u64 = np.uint64

SUB_BITS = 6
SUB_BUCKETS = 1 << SUB_BITS
GROUPS = 29
BUCKETS = GROUPS * SUB_BUCKETS  # 1856
LIMIT_NS = 1 << 34  # the first time that has no bucket

# The head of a histogram.
(
    B_COUNT,
    B_SUM,  # ns
    B_LEAST,  # ns, plus one; 0: nothing was counted
    B_MOST,  # ns
    B_BEYOND,  # how many were LIMIT_NS or more
    B_COUNTS,
) = map(u64, range(6))
HISTOGRAM_WORDS = int(B_COUNTS) + BUCKETS


@intrinsic
def _compiled_highest_bit(typing_context, value):
    """The number of the highest bit that is set in an int64 above 0."""

    def generate(context, builder, signature, args):
        zeros = builder.ctlz(args[0], ir.Constant(ir.IntType(1), 1))
        return builder.sub(ir.Constant(ir.IntType(64), 63), zeros)

    return types.int64(types.int64), generate


def _plain_highest_bit(value):
    """The same in plain Python, for NUMBA_DISABLE_JIT=1."""
    return int(value).bit_length() - 1


_highest_bit = _compiled_highest_bit if JIT else _plain_highest_bit


@kernel
def bucket_of(ns):
    """The bucket of a time, 0 <= ns < LIMIT_NS: the shift that leaves seven bits, and these."""
    shift = max(_highest_bit(ns | 64) - SUB_BITS, 0)
    return (shift << SUB_BITS) + (ns >> shift)


@kernel
def count(words, at, ns):
    """Count one time in the histogram that begins at `at`."""
    h = u64(at)
    if words[h + B_COUNT] == 0 or ns < words[h + B_LEAST] - 1:
        words[h + B_LEAST] = ns + 1
    words[h + B_COUNT] += 1
    words[h + B_SUM] += ns
    words[h + B_MOST] = max(words[h + B_MOST], ns)
    if ns >= LIMIT_NS:
        words[h + B_BEYOND] += 1
    else:
        words[h + B_COUNTS + u64(bucket_of(max(ns, 0)))] += 1


@kernel
def add(words, to, other):
    """Add the histogram at `other` to the one at `to`, and empty the former."""
    a, b = u64(to), u64(other)
    if words[b + B_COUNT] == 0:
        return
    least, most = words[b + B_LEAST], words[b + B_MOST]
    if words[a + B_COUNT] > 0:
        least, most = min(least, words[a + B_LEAST]), max(most, words[a + B_MOST])
    for place in range(HISTOGRAM_WORDS):
        words[a + u64(place)] += words[b + u64(place)]
        words[b + u64(place)] = 0
    words[a + B_LEAST] = least
    words[a + B_MOST] = most


# The same for arrays; each entry of a table belongs to the bucket of its index.
_SHIFT = np.maximum((np.arange(BUCKETS) >> SUB_BITS) - 1, 0)
WIDTH_NS = np.int64(1) << _SHIFT
LOWEST_NS = (np.arange(BUCKETS) - (_SHIFT << SUB_BITS)) << _SHIFT
MIDPOINT_NS = LOWEST_NS + (WIDTH_NS >> 1)


def buckets_of(times_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """bucket_of() each time of an array, all in 0 ... LIMIT_NS - 1."""
    shift = np.maximum(np.frexp(times_ns.astype(np.float64))[1] - SUB_BITS - 1, 0)
    return (shift.astype(np.int64) << SUB_BITS) + (times_ns >> shift)


@dataclass(frozen=True)
class Histogram:
    """One histogram, read out: `counts` has shape (BUCKETS,); times in ns."""

    counts: npt.NDArray[np.int64]
    count: int = 0
    sum: int = 0
    least: int = 0
    most: int = 0
    beyond: int = 0

    @classmethod
    def read(cls, words: npt.NDArray[np.int64], at: int) -> 'Histogram':
        """The histogram that begins at `at` in an array of words."""
        head = [int(word) for word in words[at : at + int(B_COUNTS)]]
        counts = words[at + int(B_COUNTS) : at + HISTOGRAM_WORDS].copy()
        return cls(counts, head[0], head[1], max(head[2] - 1, 0), head[3], head[4])

    @classmethod
    def of(cls, times_ns: npt.NDArray[np.int64]) -> 'Histogram':
        """The histogram of an array of times."""
        if not len(times_ns):
            return cls(np.zeros(BUCKETS, dtype=np.int64))
        inside = times_ns[times_ns < LIMIT_NS]
        return cls(
            np.bincount(buckets_of(np.maximum(inside, 0)), minlength=BUCKETS),
            len(times_ns),
            int(times_ns.sum()),
            int(times_ns.min()),
            int(times_ns.max()),
            len(times_ns) - len(inside),
        )

    def __add__(self, other: 'Histogram') -> 'Histogram':
        """Both together."""
        if not self.count or not other.count:
            return self if self.count else other
        return Histogram(
            self.counts + other.counts,
            self.count + other.count,
            self.sum + other.sum,
            min(self.least, other.least),
            max(self.most, other.most),
            self.beyond + other.beyond,
        )

    def at_rank(self, rank: int) -> int | None:
        """The `rank`-th smallest time, from 1, to its bucket's midpoint; None if beyond buckets.

        Never below the least nor above the most that was counted, which fio's may be.
        """
        if not 1 <= rank <= self.count:
            raise ValueError(f'rank {rank} of {self.count} times')
        bucket = int(np.searchsorted(np.cumsum(self.counts), rank))
        if bucket == BUCKETS:
            return None
        return min(max(int(MIDPOINT_NS[bucket]), self.least), self.most)

    def share_up_to(self, ns: int) -> float:
        """The share of times in the buckets up to that of `ns`."""
        if not self.count:
            return 0.0
        if ns >= LIMIT_NS:
            return 1.0
        return float(self.counts[: bucket_of(ns) + 1].sum()) / self.count
