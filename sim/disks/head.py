"""A disk with a head: seeks, rotation, a queue that it orders, a write cache and read-ahead.

    command    -> (cache) -> waits -> chosen -> seek -> settle -> rotate -> transfer -> done
    head       idle -> access -> idle

The LUN fills the disk: track t holds blocks t * n ... t * n + n - 1, one track to a cylinder. A
seek over d of D tracks takes

    0                                                        d = 0
    seek_min + (seek_max - seek_min) * sqrt(d / (D - 1))     d > 0

(the square root is the acceleration-limited part of Ruemmler and Wilkes, An Introduction to Disk
Drive Modeling, IEEE Computer 27(3), 1994), before a write `settle_write` more. The platter turns
for ever: at time t it stands at t modulo one rotation, so how long an access waits for its block
follows from when it gets there. Tracks are skewed by one seek, so that a sequential pass loses no
rotation.

When the head is free it takes, of the oldest `ncq` commands,

    fifo       the oldest
    sstf       the one with the shortest seek (what the firmware of an elevator does)
    sptf       the one with the shortest positioning time, rotation and all

and cached writes only when no command waits, or a write waits for room, or a flush is under way.

Behind a read the head reads on until it is called away, `read_ahead` at most: what it passes is in
the buffer, and a command that asks for it waits only until it has passed.
"""

import numpy as np

from sim.disks import cache
from sim.disks.events import E_DONE, E_HEAD, push
from sim.disks.faulty import slowed
from sim.disks.fields import (
    ACCESS_WORDS,
    D_CACHE,
    D_CACHE_USED,
    D_COMMAND_TIME,
    D_FLUSH_HEAD,
    D_FLUSH_TAIL,
    D_LANE_BUSY,
    D_PART,
    D_WAIT_HEAD,
    FIFO,
    M_BUFFER_END,
    M_BUFFER_SINCE,
    M_BUFFER_START,
    M_BUFFER_STOP,
    M_BUSY,
    M_CACHED_ROOM,
    M_COMMANDS,
    M_NCQ,
    M_PERIOD,
    M_QUEUE,
    M_QUEUE_COUNT,
    M_READ_AHEAD,
    M_SCHEDULER,
    M_SEEK,
    M_SEQUENCE,
    M_SERVED,
    M_SERVED_BYTES,
    M_SETTLE_WRITE,
    M_SKEW,
    M_TRACK,
    M_TRACK_BLOCKS,
    SSTF,
    U_BLOCKS,
    U_COMMAND,
    U_LBA,
    U_SEQUENCE,
    U_WRITE,
)
from sim.jit import kernel
from sim.se_cmd import OP_FLUSH, OP_READ, OP_WRITE, X_BLOCKS, X_LBA, X_OP

u64 = np.uint64


@kernel
def enter(st, disk, x, now):
    """A command reaches the drive."""
    op, command = st[x + X_OP], np.int64(x)
    if op == OP_FLUSH:
        if _oldest_cached(st, disk) >= 0:
            st[x + X_LBA] = st[u64(st[disk + D_PART]) + M_SEQUENCE]
            cache.append(st, disk + D_FLUSH_HEAD, disk + D_FLUSH_TAIL, command)
        else:
            push(st, disk, now + st[disk + D_COMMAND_TIME], E_DONE, command)
    elif st[x + X_BLOCKS] == 0 or op not in (OP_READ, OP_WRITE):
        push(st, disk, now + st[disk + D_COMMAND_TIME], E_DONE, command)
    elif op == OP_WRITE and st[disk + D_CACHE]:
        if st[disk + D_WAIT_HEAD] >= 0 or not _cache_takes(st, disk, x):
            cache.wait(st, disk, command)
        else:
            _admit(st, disk, x, now)
    else:
        _queue(st, disk, x, command)
    _start(st, disk, now)


@kernel
def _cache_takes(st, disk, x):
    part = u64(st[disk + D_PART])
    cached = st[part + M_QUEUE_COUNT] - st[part + M_COMMANDS]
    return cached < st[part + M_CACHED_ROOM] and cache.has_room(st, disk, x)


@kernel
def _admit(st, disk, x, now):
    cache.admit(st, disk, x, now)
    _queue(st, disk, x, np.int64(-1))


@kernel
def _queue(st, disk, x, command):
    """An access more; `command` is who waits for it, -1 nobody."""
    part = u64(st[disk + D_PART])
    u = _access(st, part, st[part + M_QUEUE_COUNT])
    st[part + M_QUEUE_COUNT] += 1
    st[part + M_SEQUENCE] += 1
    if command >= 0:
        st[part + M_COMMANDS] += 1
    st[u + U_LBA] = st[x + X_LBA]
    st[u + U_BLOCKS] = st[x + X_BLOCKS]
    st[u + U_COMMAND] = command
    st[u + U_WRITE] = 1 if st[x + X_OP] == OP_WRITE else 0
    st[u + U_SEQUENCE] = st[part + M_SEQUENCE]


@kernel
def _access(st, part, index):
    return u64(st[part + M_QUEUE] + index * ACCESS_WORDS)


# ---------------------------------------------------------------------------------- the head ----


@kernel
def _start(st, disk, now):
    """If the head is free and there is work: choose an access and go there."""
    part = u64(st[disk + D_PART])
    if st[part + M_BUSY] or st[part + M_QUEUE_COUNT] == 0:
        return
    index = _choose(st, disk, now)
    u = _access(st, part, index)
    command = st[u + U_COMMAND]
    cycles = slowed(st, disk, _access_time(st, part, u, now), now)
    if st[u + U_WRITE] == 0 and _from_buffer(st, part, u, now) >= 0:
        _read_on(st, part, u)
    else:
        _move(st, part, u, now, now + cycles)
    if command < 0:
        st[part + M_SERVED] = st[u + U_SEQUENCE]
        st[part + M_SERVED_BYTES] = st[u + U_BLOCKS] * 512
    else:
        st[part + M_COMMANDS] -= 1
    st[part + M_BUSY] = 1
    _remove(st, part, index)
    st[disk + D_LANE_BUSY] += cycles
    push(st, disk, now + cycles, E_HEAD, command)


@kernel
def _move(st, part, u, now, ends):
    """The head leaves; behind a read it reads on into the buffer."""
    last = st[u + U_LBA] + st[u + U_BLOCKS]
    _close_buffer(st, part, now)
    st[part + M_TRACK] = (last - 1) // st[part + M_TRACK_BLOCKS]
    if st[u + U_WRITE] == 0:
        st[part + M_BUFFER_START] = st[u + U_LBA]
        st[part + M_BUFFER_END] = last
        st[part + M_BUFFER_SINCE] = ends
        st[part + M_BUFFER_STOP] = -1


@kernel
def arrived(st, disk, command, now):
    """The access is over."""
    part = u64(st[disk + D_PART])
    st[part + M_BUSY] = 0
    if command < 0:
        st[disk + D_CACHE_USED] -= st[part + M_SERVED_BYTES]
        st[part + M_SERVED] = 0
    if command >= 0:
        push(st, disk, now + st[disk + D_COMMAND_TIME], E_DONE, command)
    while st[disk + D_WAIT_HEAD] >= 0 and _cache_takes(st, disk, u64(st[disk + D_WAIT_HEAD])):
        _admit(st, disk, u64(cache.take_first(st, disk + D_WAIT_HEAD)), now)
    _end_flushes(st, disk, now)
    _start(st, disk, now)


@kernel
def _end_flushes(st, disk, now):
    """A flush is over when no write that was cached before it is still cached."""
    while st[disk + D_FLUSH_HEAD] >= 0:
        oldest = _oldest_cached(st, disk)
        if 0 <= oldest <= st[u64(st[disk + D_FLUSH_HEAD]) + X_LBA]:
            return
        push(st, disk, now, E_DONE, cache.take_first(st, disk + D_FLUSH_HEAD))


@kernel
def _oldest_cached(st, disk):
    """Sequence number of the oldest write that is not on the platter yet; -1 for none."""
    part = u64(st[disk + D_PART])
    oldest = st[part + M_SERVED] if st[part + M_SERVED] else np.int64(-1)
    for index in range(st[part + M_QUEUE_COUNT]):
        u = _access(st, part, index)
        if st[u + U_COMMAND] < 0:
            sequence = st[u + U_SEQUENCE]
            return sequence if oldest < 0 else min(oldest, sequence)
    return oldest


@kernel
def _remove(st, part, index):
    """Close the gap; the queue stays in order of arrival."""
    count = st[part + M_QUEUE_COUNT] - 1
    st[part + M_QUEUE_COUNT] = count
    for place in range(index, count):
        a, b = _access(st, part, place), _access(st, part, place + 1)
        for word in range(ACCESS_WORDS):
            st[a + u64(word)] = st[b + u64(word)]


# ----------------------------------------------------------------------------------- choosing ----


@kernel
def _choose(st, disk, now):
    """Index of the access that comes next."""
    part = u64(st[disk + D_PART])
    drain = (
        st[part + M_COMMANDS] == 0 or st[disk + D_WAIT_HEAD] >= 0 or st[disk + D_FLUSH_HEAD] >= 0
    )
    best, least, seen = np.int64(-1), np.int64(0), np.int64(0)
    for index in range(st[part + M_QUEUE_COUNT]):
        u = _access(st, part, index)
        is_command = st[u + U_COMMAND] >= 0
        if is_command:
            seen += 1
        if (is_command and seen > st[part + M_NCQ]) or not (is_command or drain):
            continue
        if st[part + M_SCHEDULER] == FIFO:
            return np.int64(index)
        if st[part + M_SCHEDULER] == SSTF:
            price = _seek_time(st, part, u)
        else:
            price = _access_time(st, part, u, now)
        if best < 0 or price < least:
            best, least = np.int64(index), price
    return best


@kernel
def _seek_time(st, part, u):
    track = st[u + U_LBA] // st[part + M_TRACK_BLOCKS]
    return st[u64(st[part + M_SEEK] + abs(track - st[part + M_TRACK]))]


@kernel
def _access_time(st, part, u, now):
    """From where the head is until the last block has passed under it."""
    if st[u + U_WRITE] == 0:
        ready = _from_buffer(st, part, u, now)
        if ready >= 0:
            return ready
    blocks_of_track, period = st[part + M_TRACK_BLOCKS], st[part + M_PERIOD]
    seek = _seek_time(st, part, u)
    if st[u + U_WRITE] and seek:
        seek += st[part + M_SETTLE_WRITE]
    lba = st[u + U_LBA]
    track, place = lba // blocks_of_track, lba % blocks_of_track
    angle = place * period // blocks_of_track + track * st[part + M_SKEW]
    wait = (angle - now - seek) % period
    crossed = (lba + st[u + U_BLOCKS] - 1) // blocks_of_track - track
    transfer = st[u + U_BLOCKS] * period // blocks_of_track + crossed * st[part + M_SKEW]
    return seek + wait + transfer


# --------------------------------------------------------------------------------- read-ahead ----


@kernel
def _from_buffer(st, part, u, now):
    """How long until the buffer has all of a read; -1 where it will not have it."""
    lba, end = st[u + U_LBA], st[u + U_LBA] + st[u + U_BLOCKS]
    if st[part + M_READ_AHEAD] == 0 or lba < st[part + M_BUFFER_START]:
        return np.int64(-1)
    if end <= st[part + M_BUFFER_END]:
        return np.int64(0)
    if st[part + M_BUFFER_STOP] >= 0:
        return np.int64(0) if end <= st[part + M_BUFFER_STOP] else np.int64(-1)
    ahead = end - st[part + M_BUFFER_END]
    if lba > st[part + M_BUFFER_END] + st[part + M_READ_AHEAD] or ahead > st[part + M_READ_AHEAD]:
        return np.int64(-1)
    passed = st[part + M_BUFFER_SINCE] + ahead * st[part + M_PERIOD] // st[part + M_TRACK_BLOCKS]
    return max(0, passed - now)


@kernel
def _close_buffer(st, part, now):
    """The head is called away: the buffer keeps what it has read by now."""
    if st[part + M_BUFFER_STOP] < 0:
        blocks, period = st[part + M_TRACK_BLOCKS], st[part + M_PERIOD]
        longest = st[part + M_READ_AHEAD] * period // blocks
        since = min(max(0, now - st[part + M_BUFFER_SINCE]), longest)
        st[part + M_BUFFER_STOP] = st[part + M_BUFFER_END] + since * blocks // period


@kernel
def _read_on(st, part, u):
    """A read that the buffer has, or will have in a moment: read-ahead goes on behind it."""
    end = st[u + U_LBA] + st[u + U_BLOCKS]
    if st[part + M_BUFFER_STOP] < 0 and end > st[part + M_BUFFER_END]:
        ahead = end - st[part + M_BUFFER_END]
        st[part + M_BUFFER_SINCE] += ahead * st[part + M_PERIOD] // st[part + M_TRACK_BLOCKS]
        st[part + M_BUFFER_END] = end
