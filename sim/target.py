"""The target: LIO's two work-queue hops, the LUN, and the medium behind it.

Three agents. `lio_submit` is the kworker of "target_submission" (queue_work by the vhost worker,
target_queued_submit_work), `disk` is the medium, `lio_complete` the kworker of "target_completion".

    kworker    sleep -> RUN ... -> sleep       one command per step, first in first out
    disk       idle -> (lane, then serial stage) per command -> idle

The media: null, constant, exponential, and N parallel lanes followed by one serial stage. A
command takes the lane that is free first; the serial stage (the link, the controller) takes
commands in the order in which they leave their lanes.

The disk keeps one 64-bit stamp per 512-byte block. A WRITE copies the stamps at the head of each
512 bytes of its data pages to the medium, a READ copies them back, at t_done: a lost, doubled or
misdirected transfer shows in the data.
"""

import numpy as np

from sim import record
from sim.agents import (
    A_BUSY,
    A_FIELDS,
    A_STATE,
    H_DISK_ORDER,
    K_LIO_COMPLETE,
    K_LIO_HOP,
    K_LIO_SUBMIT,
    LOG_TABLE,
    NEVER,
    wake,
)
from sim.jit import kernel
from sim.memory import load64, store64
from sim.rng import exponential

u64 = np.uint64
ONE, TWO = u64(1), u64(2)

# A command (struct vhost_scsi_cmd with its se_cmd), in a table of the queue, by head.
(
    X_QUEUE,  # base of the host side of its queue
    X_HEAD,
    X_ROW,
    X_WRITE,
    X_LBA,
    X_BLOCKS,
    X_RESPONSE,  # where the 108 bytes go
    X_STATUS,
    X_SENSE,
    X_RESID,
    X_NEXT,  # link in whatever list holds it, -1 the end
    X_SEGMENTS,  # how many data segments follow
    X_DATA,  # address and length of each
) = map(u64, range(13))

SLEEP, RUN = 0, 1

# A kworker's stretch.
(
    W_SLOT,
    W_HEAD,  # list of commands, first in first out, -1 empty
    W_TAIL,
    W_WOKEN,
    W_PEER,  # lio_submit: base of the disk; lio_complete: unused
) = map(u64, range(A_FIELDS, A_FIELDS + 5))
KWORKER_WORDS = A_FIELDS + 5

# The disk's stretch.
(
    D_SLOT,
    D_SERVICE,
    D_EXPONENTIAL,
    D_SERIAL,
    D_KEY,
    D_COUNT,  # commands accepted, the index of the next draw
    D_LANES,
    D_LANE_FREE,  # table: when each lane is free
    D_SERIAL_FREE,
    D_HEAP_COUNT,
    D_HEAP,  # table of pairs (time << 1 | stage, command), a binary heap
    D_ORDER,  # ties in the heap go in order of arrival
    D_LIO_COMPLETE,  # base of the completion kworker
    D_BLOCKS,  # capacity
    D_LANE_BUSY,  # cycles summed over the lanes
    D_SERIAL_BUSY,
) = map(u64, range(A_FIELDS, A_FIELDS + 16))
DISK_WORDS = A_FIELDS + 16
HEAP_WORDS = 3  # time, order and stage, command


# ----------------------------------------------------------------------------------- kworkers ----


@kernel
def queue_work(st, w, command, now, price):
    """Append a command to a kworker's list; a sleeping one runs a hop later (queue_work_on)."""
    x = u64(command)
    st[x + X_NEXT] = -1
    if st[w + W_HEAD] < 0:
        st[w + W_HEAD] = command
    else:
        st[u64(st[w + W_TAIL]) + X_NEXT] = command
    st[w + W_TAIL] = command
    if st[w + A_STATE] == SLEEP:
        st[w + A_STATE] = RUN
        st[w + W_WOKEN] += 1
        st[w + A_BUSY] += price
        wake(st, st[w + W_SLOT], now + st[K_LIO_HOP] + price)


@kernel
def _take(st, w):
    """The kworker's oldest command, which it has worked on until now."""
    command = st[w + W_HEAD]
    st[w + W_HEAD] = st[u64(command) + X_NEXT]
    return u64(command)


@kernel
def _next(st, w, now, price):
    if st[w + W_HEAD] < 0:
        st[w + A_STATE] = SLEEP
        return NEVER
    st[w + A_BUSY] += price
    return now + price


@kernel
def submit_step(st, tr, media, w, now):
    """target_queued_submit_work(): hand the command to the medium, then the next one."""
    x = _take(st, w)
    disk = u64(st[w + W_PEER])
    tr[u64(st[x + X_ROW]) + record.R_ISSUE] = now + 1
    _accept(st, disk, x, now)
    return _next(st, w, now, st[K_LIO_SUBMIT])


@kernel
def take_completed(st, w):
    """target_complete_ok_work(): the command whose completion the kworker has just finished."""
    return _take(st, w)


@kernel
def complete_next(st, w, now):
    """When the completion kworker acts again."""
    return _next(st, w, now, st[K_LIO_COMPLETE])


# --------------------------------------------------------------------------------------- disk ----


@kernel
def _before(st, a, b):
    return st[a] < st[b] or (st[a] == st[b] and st[a + ONE] < st[b + ONE])


@kernel
def _swap(st, a, b):
    for i in range(HEAP_WORDS):
        st[a + u64(i)], st[b + u64(i)] = st[b + u64(i)], st[a + u64(i)]


@kernel
def _node(st, disk, index):
    return u64(st[disk + D_HEAP]) + u64(HEAP_WORDS) * u64(index)


@kernel
def _push(st, disk, time, stage, command):
    index = st[disk + D_HEAP_COUNT]
    st[disk + D_HEAP_COUNT] = index + 1
    st[disk + D_ORDER] += 1
    node = _node(st, disk, index)
    st[node] = time
    st[node + ONE] = (st[disk + D_ORDER] << 1) | stage
    st[node + TWO] = command
    while index > 0:
        parent = (index - 1) // 2
        if not _before(st, _node(st, disk, index), _node(st, disk, parent)):
            break
        _swap(st, _node(st, disk, index), _node(st, disk, parent))
        index = parent


@kernel
def _pop(st, disk):
    """Drop the first node of the heap."""
    count = st[disk + D_HEAP_COUNT] - 1
    st[disk + D_HEAP_COUNT] = count
    _swap(st, _node(st, disk, 0), _node(st, disk, count))
    index = 0
    while True:
        child = 2 * index + 1
        if child >= count:
            break
        if child + 1 < count and _before(st, _node(st, disk, child + 1), _node(st, disk, child)):
            child += 1
        if not _before(st, _node(st, disk, child), _node(st, disk, index)):
            break
        _swap(st, _node(st, disk, child), _node(st, disk, index))
        index = child


@kernel
def _accept(st, disk, x, now):
    """A command reaches the medium: its lane and the end of its stay there are known at once."""
    service = st[disk + D_SERVICE]
    if st[disk + D_EXPONENTIAL]:
        service = exponential(st, LOG_TABLE, st[disk + D_KEY], st[disk + D_COUNT], service)
    st[disk + D_COUNT] += 1
    lanes = u64(st[disk + D_LANE_FREE])
    best = lanes
    for i in range(st[disk + D_LANES]):
        if st[lanes + u64(i)] < st[best]:
            best = lanes + u64(i)
        if st[best] <= now:
            break
    end = max(now, st[best]) + service
    st[best] = end
    st[disk + D_LANE_BUSY] += service
    _push(st, disk, end, 0, np.int64(x))
    wake(st, st[disk + D_SLOT], end)


@kernel
def _transfer(mem, st, tr, media, x):
    """Move the block stamps between the medium and the guest's data pages (DMA)."""
    lba, blocks = st[x + X_LBA], st[x + X_BLOCKS]
    segment = x + X_DATA
    at = st[segment]
    left = st[segment + ONE]
    for i in range(blocks):
        while left < 512:
            segment += TWO
            at = st[segment]
            left = st[segment + ONE]
        block = u64(lba + i)
        if st[x + X_WRITE]:
            media[block] = load64(mem, u64(at))
        else:
            stamp = media[block]
            store64(mem, u64(at), stamp if stamp else record.blank_stamp(lba + i))
        at += 512
        left -= 512


@kernel
def disk_step(mem, st, tr, media, disk, now):
    """The command that is first in time leaves its lane, or the serial stage, or both."""
    node = _node(st, disk, 0)
    stage = st[node + ONE] & 1
    command = st[node + TWO]
    _pop(st, disk)
    x = u64(command)
    serial = st[disk + D_SERIAL]
    if stage == 0 and serial > 0:
        end = max(now, st[disk + D_SERIAL_FREE]) + serial
        st[disk + D_SERIAL_FREE] = end
        st[disk + D_SERIAL_BUSY] += serial
        _push(st, disk, end, 1, command)
    else:
        if st[x + X_BLOCKS]:
            _transfer(mem, st, tr, media, x)
        st[H_DISK_ORDER] += 1
        tr[u64(st[x + X_ROW]) + record.R_DONE] = now + 1
        tr[u64(st[x + X_ROW]) + record.R_DISK_ORDER] = st[H_DISK_ORDER]
        queue_work(st, u64(st[disk + D_LIO_COMPLETE]), command, now, st[K_LIO_COMPLETE])
    if st[disk + D_HEAP_COUNT] == 0:
        return NEVER
    return st[_node(st, disk, 0)]
