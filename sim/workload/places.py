"""Where a job's next I/O goes and how long it is: fio's get_next_offset() and get_next_buflen().

A direction has *places*, F_UNIT blocks apart: as many as fit its part of the LUN. A pattern picks
one of them:

    MAPPED      the places of a permutation, each once per pass (fio's random map)
    UNIFORM     any, with norandommap
    SEQUENTIAL  the one behind the last request of this direction, from the start again at the end
    SKEWED      a rank by its table (zipf, pareto: .skew), scattered over the places by a hash
    NORMAL      a rank by the mean of twelve draws, scattered likewise
    ZONED       a zone by its share of the I/O, then any place in it

All of it is integer arithmetic over named draws.
"""

import numpy as np

from sim.jit import kernel
from sim.rng import below, draw, permute
from sim.workload.job_fields import (
    DIRECTION_WORDS,
    F_DEVIATION,
    F_OFFSET,
    F_PATTERN,
    F_PERCENT_RANDOM,
    F_PLAIN,
    F_POSITION,
    F_REGION,
    F_REGION_BITS,
    F_SIZE_MAX,
    F_SIZES,
    F_TABLE,
    F_UNIT,
    J_BASE,
    J_BLOCKS,
    J_DIRECTIONS,
    J_KEY_ORDER,
    J_KEY_PLACE,
    J_KEY_SIZE,
    J_RANDOMS,
    MAPPED,
    NORMAL,
    RANGE,
    SEQUENTIAL,
    SKEWED,
    UNIFORM,
    ZONED,
)

u64 = np.uint64
ONE, TWO = u64(1), u64(2)

SKEW_BITS = 40  # cumulative shares of a table of ranks are in units of 2**-40
S24 = u64(64 - SKEW_BITS)
SHARE_BITS = 32  # those of a table of sizes in units of 2**-32
S32 = u64(32)
HASH = u64(0x9E37FFFFFFFC0001)  # lib/hash.h of fio: GR_PRIME_64
NORMAL_DRAWS = 12  # lib/gauss.c: GAUSS_ITERS
TRIES = 64  # draws of a size that fits; then the smallest is taken


@kernel(inline=True)
def direction_of(j, write):
    """The stretch of one direction of job `j`."""
    return j + J_DIRECTIONS + DIRECTION_WORDS * u64(write)


@kernel(inline=True)
def choose(st, j, f, index):
    """First block and number of blocks of the job's `index`-th I/O."""
    if st[f + F_PLAIN]:
        blocks = st[f + F_UNIT]
        return st[j + J_BASE] + blocks * _mapped(st, j, f, index), blocks
    return _choose(st, j, f, index)


@kernel(inline=True)
def _mapped(st, j, f, index):
    region = st[f + F_REGION]
    lap = np.int64(0)
    if index >= region:
        lap = index // region
        index -= lap * region
    return permute(st[j + J_KEY_PLACE] + lap, index, region, st[f + F_REGION_BITS])


@kernel
def _choose(st, j, f, index):
    percent = st[f + F_PERCENT_RANDOM]
    if st[f + F_PATTERN] == SEQUENTIAL or below(st[j + J_KEY_ORDER], index, 100) >= percent:
        start = st[f + F_POSITION]
        if start + st[f + F_UNIT] > st[j + J_BLOCKS]:
            start = np.int64(0)
    else:
        start = _random(st, j, f, index) * st[f + F_UNIT]
    blocks = _size(st, j, f, index, st[j + J_BLOCKS] - start)
    st[f + F_POSITION] = start + blocks
    return st[j + J_BASE] + start, blocks


@kernel
def _random(st, j, f, index):
    """A place by the direction's pattern."""
    pattern, places = st[f + F_PATTERN], st[f + F_REGION]
    if pattern == MAPPED:
        count = st[j + J_RANDOMS]
        st[j + J_RANDOMS] = count + 1
        return _mapped(st, j, f, count)
    if pattern == UNIFORM:
        return below(st[j + J_KEY_PLACE], index, places)
    if pattern == SKEWED:
        rank = skewed_rank(st, st[f + F_TABLE], draw(st[j + J_KEY_PLACE], index))
        return scatter(rank, st[f + F_OFFSET], places)
    if pattern == NORMAL:
        rank = normal_rank(st[j + J_KEY_PLACE], index, places, st[f + F_DEVIATION])
        return scatter(rank, st[f + F_OFFSET], places)
    assert pattern == ZONED
    return _zoned(st, j, f, index)


@kernel
def scatter(rank, offset, places):
    """fio's hash: neighbouring ranks go to places far apart, and some may share one."""
    return np.int64((u64(rank) * HASH + u64(offset)) % u64(places))


@kernel
def skewed_rank(st, table, bits):
    """The rank below whose cumulative share a draw of 64 bits falls.

    The table has its number of knots, then the rank and the share of each; the share of a knot is
    that of all lower ranks, and grows evenly up to the next knot.
    """
    table = u64(table)
    share = np.int64(bits >> S24)
    low, high = np.int64(0), st[table] - 1
    while high - low > 1:
        middle = (low + high) >> 1
        if st[table + TWO * u64(middle) + TWO] <= share:
            low = middle
        else:
            high = middle
    at, above = table + TWO * u64(low) + ONE, table + TWO * u64(high) + ONE
    rank, width = st[at], st[above] - st[at]
    if width > 1:
        begin = st[at + ONE]
        rank += (share - begin) * width // (st[above + ONE] - begin)
    return rank


@kernel
def normal_rank(key, index, places, deviation):
    """lib/gauss.c: the mean of twelve draws, moved by up to half of the deviation either way."""
    first = index * (NORMAL_DRAWS + 1)
    total = np.int64(NORMAL_DRAWS - 1)
    for i in range(NORMAL_DRAWS):
        total += below(key, first + i, places + 1)
    rank = total // NORMAL_DRAWS
    if deviation:
        shift = below(key, first + NORMAL_DRAWS, deviation) - deviation // 2
        while shift != 0 and not 0 <= rank + shift < places:
            shift = shift // 2 if shift > 0 else -(-shift // 2)
        rank += shift
    return rank


@kernel
def _zoned(st, j, f, index):
    """The table has its zones: share of the I/O up to its end in percent, first place, places."""
    zone = u64(st[f + F_TABLE])
    percent = below(st[j + J_KEY_ORDER] + 1, index, 100)
    while percent >= st[zone]:
        zone += u64(3)
    return st[zone + ONE] + below(st[j + J_KEY_PLACE], index, st[zone + TWO])


@kernel
def _size(st, j, f, index, room):
    """Blocks of a request where `room` are left; the smallest request always fits."""
    least = st[f + F_UNIT]
    sizes = u64(st[f + F_SIZES])
    if sizes == u64(0):
        return least
    for attempt in range(TRIES):
        bits = draw(st[j + J_KEY_SIZE] + attempt, index) >> S32
        if sizes == u64(RANGE):
            most = st[f + F_SIZE_MAX]
            blocks = least + np.int64((bits * u64(most)) >> S32)
            blocks = min(blocks - blocks % least, most)
        else:
            entry = sizes
            while np.int64(bits) >= st[entry]:
                entry += TWO
            blocks = st[entry + ONE]
        if blocks <= room:
            return blocks
    return least
