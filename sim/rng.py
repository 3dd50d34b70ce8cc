"""Random numbers by name and counter: draw(seed, stream, index).

A stream is a 64-bit key made from the seed and a name; the n-th draw of a stream is a function of
the key and n alone. Two configs with one seed therefore see the same arrivals and service times,
and the order in which agents draw never matters.

The mixing function is SplitMix64's finaliser (Steele, Lea, Flood: Fast Splittable Pseudorandom
Number Generators, 2014) over key + n * golden gamma. Everything is integer arithmetic, so a draw
is the same bits on every machine.
"""

import hashlib
import math
from functools import lru_cache

import llvmlite.ir as ir
import numpy as np
import numpy.typing as npt
from numba import types
from numba.extending import intrinsic

from sim.jit import JIT, kernel

u64 = np.uint64

GOLDEN = u64(0x9E3779B97F4A7C15)
MIX_A = u64(0xBF58476D1CE4E5B9)
MIX_B = u64(0x94D049BB133111EB)
S27, S30, S31, S32 = u64(27), u64(30), u64(31), u64(32)
ONE, TWO = u64(1), u64(2)

# -ln(m) for m in [1/2, 1], in units of 2**-24, with linear interpolation between 1024 knots: the
# error of a draw is below 2e-7 of the mean. The table is data for kernels, not a constant of them.
LOG_KNOTS = 1024
LOG_BITS = 10
LOG_ONE = 1 << 24
LN2_Q24 = round(math.log(2) * LOG_ONE)


def stream_key(seed: int, name: str) -> int:
    """The 64-bit key of stream `name` under `seed`, as a signed int64 that arrays can hold."""
    text = f'{seed}\0{name}'.encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), 'little', signed=True)


@lru_cache(maxsize=1)
def log_table() -> npt.NDArray[np.int64]:
    """-ln(m) in units of 2**-24 at m = 1/2 + i/2048, i = 0..1024; shape (1025,), int64.

    Rounding hides the last bit in which C libraries differ; a test keeps every entry clear of
    a tie.
    """
    knots = [round(-math.log((LOG_KNOTS + i) / (2 * LOG_KNOTS)) * LOG_ONE) for i in range(1025)]
    return np.array(knots, dtype=np.int64)


@intrinsic
def _leading_zeros(typing_context, word):
    def generate(context, builder, signature, args):
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


def _plain_leading_zeros(word):
    return 64 - int(word).bit_length()


leading_zeros = _leading_zeros if JIT else _plain_leading_zeros  # of a word that is not zero


@kernel(inline=True)
def draw(key, index):
    """The `index`-th 64-bit draw of the stream `key` (int64 both), as uint64."""
    z = u64(key) + u64(index) * GOLDEN + GOLDEN
    z = (z ^ (z >> S30)) * MIX_A
    z = (z ^ (z >> S27)) * MIX_B
    return z ^ (z >> S31)


@kernel(inline=True)
def below(key, index, bound):
    """A draw in 0..bound-1 (bound < 2**32), by multiplication of the upper 32 bits."""
    return np.int64(((draw(key, index) >> S32) * u64(bound)) >> S32)


@kernel(inline=True)
def exponential(st, table, key, index, mean):
    """An exponential draw with mean `mean` cycles, integer: -ln(u) * mean.

    u = m * 2**-e with m in [1/2, 1): e comes from the leading zeros of the draw, -ln(m) from the
    table of 1025 int64 that stands in `st` from `table` on.
    """
    bits = draw(key, index) | ONE
    exponent = leading_zeros(bits)
    bits = bits << u64(exponent)
    position = (bits << ONE) >> u64(32)  # 32 bits behind the leading one
    knot = position >> u64(32 - LOG_BITS)
    rest = np.int64(position & u64((1 << (32 - LOG_BITS)) - 1))
    low = st[u64(table) + knot]
    high = st[u64(table) + knot + ONE]
    log_q24 = low - (((low - high) * rest) >> (32 - LOG_BITS)) + exponent * LN2_Q24
    return (mean * log_q24 + (LOG_ONE >> 1)) >> 24


@kernel
def permute(key, index, count, bits):
    """Where `index` goes in a permutation of 0..count-1 (a keyed Feistel walk), int64.

    fio visits every block of a random file once per pass (its random map); this does the same
    without a map. `bits` is bits_below(count), so that the network permutes the smallest power of
    two that holds `count` and a walk takes less than two turns on average. `count` < 2**32.
    """
    right_bits = (u64(bits) + ONE) >> ONE
    left_mask = (ONE << (u64(bits) >> ONE)) - ONE
    right_mask = (ONE << right_bits) - ONE
    x = u64(index)
    while True:
        left, right = x >> right_bits, x & right_mask
        for stage in range(0, 4, 2):  # of an odd number of bits the right half has one more
            left ^= draw(key, np.int64(right) * 4 + stage) & left_mask
            right ^= draw(key, np.int64(left) * 4 + stage + 1) & right_mask
        x = (left << right_bits) | right
        if x < u64(count):
            return np.int64(x)


def bits_below(count: int) -> int:
    """How many bits the numbers 0..count-1 take."""
    return (count - 1).bit_length()
