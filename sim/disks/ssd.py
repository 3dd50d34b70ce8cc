"""Flash: dies behind a controller and a link, a write cache, collections, housekeeping.

    read       controller -> its dies, one page read for each stripe -> link -> done
    write      controller -> link -> cache -> done ... sealed into units ... programmed
               without a cache: controller -> link -> programmed -> done
    flush      -> everything cached is programmed -> done
    die        (read ... read) -> program -> (collection) ->

Stripe s of the LUN lies on die s modulo dies, as after a sequential fill. The page that a die read
last stays in its register: whoever asks for it next need not wait for another page read. A die does
one thing at a time; reads queue for it in order of arrival, and a unit that waits to be programmed
lets them pass until a write waits for room in the cache. What has begun is not interrupted: a read
that finds its die programming, erasing or tidying up waits, and that is the tail.

Sealed units go to the dies in turn (the log of a flash translation layer). After `gc_every` bytes a
die collects: it moves what is still valid and erases, which takes it `gc_time`. At the beginning
the dies stand at different points of that, as after a long time of writing. Housekeeping that
does not depend on writes (scrubbing, wear levelling) takes a random die for `background_time` at
exponential intervals.
"""

import numpy as np

from sim.agents import LOG_TABLE
from sim.disks import cache
from sim.disks.events import E_DIE, E_DONE, E_LANE, E_LINK, E_PROGRAMMED, push
from sim.disks.faulty import slowed
from sim.disks.fields import (
    D_CACHE,
    D_CACHE_USED,
    D_COMMAND_TIME,
    D_FLUSH_HEAD,
    D_FLUSH_TAIL,
    D_LANE_FREE,
    D_LANES,
    D_PART,
    D_SERVICE,
    D_WAIT_HEAD,
    DIE_WORDS,
    I_BACKGROUND_COUNT,
    I_BACKGROUND_EVERY,
    I_BACKGROUND_KEY,
    I_BACKGROUND_NEXT,
    I_BACKGROUND_TIME,
    I_DIES,
    I_GC_COUNT,
    I_GC_EVERY,
    I_GC_TIME,
    I_NEXT_DIE,
    I_OPEN,
    I_PROGRAM,
    I_STRIPE,
    I_UNIT,
    I_UNITS,
    Y_ARMED,
    Y_BACKLOG,
    Y_DONE,
    Y_PAGE,
    Y_PAGE_AT,
    Y_PROGRAMMING,
    Y_WRITTEN,
)
from sim.disks.lanes import reserve
from sim.disks.service import sample
from sim.jit import kernel
from sim.rng import below, exponential
from sim.se_cmd import OP_FLUSH, OP_READ, OP_WRITE, X_BLOCKS, X_LBA, X_OP

u64 = np.uint64


@kernel
def enter(st, disk, x, now):
    """A command reaches the drive."""
    _housekeeping(st, disk, now)
    op, start = st[x + X_OP], now + st[disk + D_COMMAND_TIME]
    if op == OP_READ:
        push(st, disk, _read(st, disk, x, start), E_LANE, np.int64(x))
    elif op == OP_WRITE:
        push(st, disk, start, E_LINK, np.int64(x))
    elif op == OP_FLUSH:
        _flush(st, disk, x, now)
    else:
        push(st, disk, start, E_DONE, np.int64(x))


@kernel
def _read(st, disk, x, start):
    """Queue a page read at the die of each stripe; returns when the last one ends."""
    part, lanes = u64(st[disk + D_PART]), u64(st[disk + D_LANE_FREE])
    first = st[x + X_LBA] * 512 // st[part + I_STRIPE]
    last = (st[x + X_LBA] * 512 + max(st[x + X_BLOCKS], 1) * 512 - 1) // st[part + I_STRIPE]
    end = start
    for stripe in range(first, last + 1):
        number = stripe % st[disk + D_LANES]
        y = _die(st, disk, number)
        if st[y + Y_PAGE] != stripe:
            cycles = slowed(st, disk, sample(st, u64(st[disk + D_SERVICE])), start)
            st[y + Y_PAGE] = stripe
            st[y + Y_PAGE_AT] = reserve(st, disk, lanes + u64(number), start, cycles)
        end = max(end, st[y + Y_PAGE_AT])
    return end


# ------------------------------------------------------------------------------------- writes ----


@kernel
def receive(st, disk, command, now):
    """A write's data are there."""
    x = u64(command)
    if st[disk + D_CACHE] == 0:
        push(st, disk, _write_through(st, disk, x, now), E_DONE, command)
    elif st[disk + D_WAIT_HEAD] >= 0 or not cache.has_room(st, disk, x):
        cache.wait(st, disk, command)
        _hurry(st, disk, now)
    else:
        cache.admit(st, disk, x, now)
        _seal(st, disk, st[x + X_BLOCKS] * 512, now)


@kernel
def _write_through(st, disk, x, now):
    """Program at once, a die for each unit; returns when the last one ends."""
    part, lanes = u64(st[disk + D_PART]), u64(st[disk + D_LANE_FREE])
    end = now
    left = st[x + X_BLOCKS] * 512
    while left > 0:
        number = st[part + I_NEXT_DIE]
        st[part + I_NEXT_DIE] = (number + 1) % st[disk + D_LANES]
        cycles = slowed(st, disk, sample(st, u64(st[part + I_PROGRAM])), now)
        end = max(end, reserve(st, disk, lanes + u64(number), now, cycles))
        st[_die(st, disk, number) + Y_PAGE] = -1
        _count_written(st, disk, number)
        left -= st[part + I_UNIT]
    return end


@kernel
def _seal(st, disk, size, now):
    """Bytes have come into the cache: every full unit goes to the next die."""
    part = u64(st[disk + D_PART])
    st[part + I_OPEN] += size
    while st[part + I_OPEN] >= st[part + I_UNIT]:
        st[part + I_OPEN] -= st[part + I_UNIT]
        _hand_to_die(st, disk, now)


@kernel
def _hand_to_die(st, disk, now):
    part = u64(st[disk + D_PART])
    number = st[part + I_UNITS] % st[disk + D_LANES]
    st[part + I_UNITS] += 1
    st[_die(st, disk, number) + Y_BACKLOG] += 1
    try_program(st, disk, number, now)


@kernel
def _die(st, disk, number):
    return u64(st[u64(st[disk + D_PART]) + I_DIES] + number * DIE_WORDS)


@kernel
def try_program(st, disk, number, now):
    """Begin to program the die's oldest unit, if it has one and its time has come."""
    y = _die(st, disk, number)
    if st[y + Y_BACKLOG] == 0 or st[y + Y_PROGRAMMING]:
        return
    lane = u64(st[disk + D_LANE_FREE] + number)
    if st[lane] > now and st[disk + D_WAIT_HEAD] < 0:  # reads go first
        if not st[y + Y_ARMED]:
            st[y + Y_ARMED] = 1
            push(st, disk, st[lane], E_DIE, number)
        return
    st[y + Y_PROGRAMMING] = 1
    st[y + Y_PAGE] = -1
    service = u64(st[u64(st[disk + D_PART]) + I_PROGRAM])
    cycles = slowed(st, disk, sample(st, service), now)
    push(st, disk, reserve(st, disk, lane, now, cycles), E_PROGRAMMED, number)


@kernel
def die_is_free(st, disk, number, now):
    """The reads that were queued at the die are done; later ones may have come."""
    st[_die(st, disk, number) + Y_ARMED] = 0
    try_program(st, disk, number, now)


@kernel
def _hurry(st, disk, now):
    """A write waits for room: units no longer let reads pass; an open one is sealed if need be."""
    waiting = np.int64(0)
    for number in range(st[disk + D_LANES]):
        waiting += st[_die(st, disk, number) + Y_BACKLOG]
        try_program(st, disk, number, now)
    if waiting == 0:
        _pad(st, disk, now)


@kernel
def _pad(st, disk, now):
    """Seal the open unit as it is; its empty part takes room in the cache like the rest."""
    part = u64(st[disk + D_PART])
    if st[part + I_OPEN] > 0:
        st[disk + D_CACHE_USED] += st[part + I_UNIT] - st[part + I_OPEN]
        st[part + I_OPEN] = 0
        _hand_to_die(st, disk, now)


@kernel
def programmed(st, disk, number, now):
    """A unit is on the medium: its room in the cache is free."""
    y, part = _die(st, disk, number), u64(st[disk + D_PART])
    st[y + Y_PROGRAMMING] = 0
    st[y + Y_BACKLOG] -= 1
    st[y + Y_DONE] += 1
    st[disk + D_CACHE_USED] -= st[part + I_UNIT]
    _count_written(st, disk, number)
    while st[disk + D_WAIT_HEAD] >= 0 and cache.has_room(st, disk, u64(st[disk + D_WAIT_HEAD])):
        x = u64(cache.take_first(st, disk + D_WAIT_HEAD))
        cache.admit(st, disk, x, now)
        _seal(st, disk, st[x + X_BLOCKS] * 512, now)
    while st[disk + D_FLUSH_HEAD] >= 0 and _drained(st, disk, u64(st[disk + D_FLUSH_HEAD])):
        push(st, disk, now, E_DONE, cache.take_first(st, disk + D_FLUSH_HEAD))
    try_program(st, disk, number, now)
    if st[disk + D_WAIT_HEAD] >= 0:
        _hurry(st, disk, now)


# -------------------------------------------------------------------------------------- flush ----


@kernel
def _flush(st, disk, x, now):
    """SYNCHRONIZE CACHE: wait for every unit sealed so far, the open one sealed as well.

    The word of its LBA, which a flush of the whole device does not use, keeps how many units.
    """
    _pad(st, disk, now)
    st[x + X_LBA] = st[u64(st[disk + D_PART]) + I_UNITS]
    if _drained(st, disk, x):
        push(st, disk, now + st[disk + D_COMMAND_TIME], E_DONE, np.int64(x))
    else:
        cache.append(st, disk + D_FLUSH_HEAD, disk + D_FLUSH_TAIL, np.int64(x))


@kernel
def _drained(st, disk, x):
    """Has every die programmed its share of the units that the flush waits for?"""
    units, dies = st[x + X_LBA], st[disk + D_LANES]
    for number in range(dies):
        if st[_die(st, disk, number) + Y_DONE] < (units - number + dies - 1) // dies:
            return False
    return True


# --------------------------------------------------------------------------------- background ----


@kernel
def _count_written(st, disk, number):
    """A unit more on this die: now and then it must collect before it does anything else."""
    y, part = _die(st, disk, number), u64(st[disk + D_PART])
    st[y + Y_WRITTEN] += st[part + I_UNIT]
    if st[part + I_GC_EVERY] and st[y + Y_WRITTEN] >= st[part + I_GC_EVERY]:
        st[y + Y_WRITTEN] -= st[part + I_GC_EVERY]
        st[part + I_GC_COUNT] += 1
        st[u64(st[disk + D_LANE_FREE] + number)] += st[part + I_GC_TIME]


@kernel
def _housekeeping(st, disk, now):
    """Whatever housekeeping has begun since a command last came."""
    part, lanes = u64(st[disk + D_PART]), u64(st[disk + D_LANE_FREE])
    if st[part + I_BACKGROUND_EVERY] == 0:
        return
    while st[part + I_BACKGROUND_NEXT] <= now:
        key, index = st[part + I_BACKGROUND_KEY], st[part + I_BACKGROUND_COUNT]
        began = st[part + I_BACKGROUND_NEXT]
        lane = lanes + u64(below(key, 2 * index, st[disk + D_LANES]))
        st[lane] = max(st[lane], began) + st[part + I_BACKGROUND_TIME]
        pause = exponential(st, LOG_TABLE, key, 2 * index + 1, st[part + I_BACKGROUND_EVERY])
        st[part + I_BACKGROUND_NEXT] = began + max(pause, 1)
        st[part + I_BACKGROUND_COUNT] = index + 1
