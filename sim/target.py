"""The target: LIO's two work-queue hops and the LUN in front of the medium.

Three agents. `lio_submit` is the kworker of "target_submission" (queue_work by the vhost worker,
target_queued_submit_work), `disk` is the medium (sim.disks), `lio_complete` the kworker of
"target_completion".

    kworker    sleep -> RUN ... -> sleep       one command per step, first in first out
    lio_submit ... RUN -> BLOCKED -> RUN       asleep in submit_bio(), where WBT throttles (sim.wbt)
    disk       idle -> one event of the medium per step -> idle

submit_type direct: the vhost worker submits by itself, without lio_submit. complete_type direct: a
command that succeeds is completed where the medium's interrupt is, without the hop to a kworker.

The disk keeps one 64-bit stamp per 512-byte block. A WRITE copies the stamps at the head of each
512 bytes of its data pages to the medium, a READ copies them back, at t_done: a lost, doubled or
misdirected transfer shows in the data.
"""

import numpy as np

from sim import record, scsi, wbt
from sim.agents import (
    A_BUSY,
    A_FIELDS,
    A_STATE,
    H_DISK_ORDER,
    K_LIO_COMPLETE,
    K_LIO_HOP,
    K_LIO_SUBMIT,
    NEVER,
    wake,
)
from sim.disks import medium
from sim.disks.events import due
from sim.disks.fields import D_LIO_COMPLETE, D_LIO_SUBMIT
from sim.jit import kernel
from sim.memory import load64, store64
from sim.se_cmd import OP_WRITE
from sim.se_cmd import X_BLOCKS as X_BLOCKS
from sim.se_cmd import X_DATA as X_DATA
from sim.se_cmd import X_HEAD as X_HEAD
from sim.se_cmd import X_ISSUED as X_ISSUED
from sim.se_cmd import X_LBA as X_LBA
from sim.se_cmd import X_NEXT as X_NEXT
from sim.se_cmd import X_OP as X_OP
from sim.se_cmd import X_QUEUE as X_QUEUE
from sim.se_cmd import X_RESID as X_RESID
from sim.se_cmd import X_RESPONSE as X_RESPONSE
from sim.se_cmd import X_ROW as X_ROW
from sim.se_cmd import X_SEGMENTS as X_SEGMENTS
from sim.se_cmd import X_SENSE as X_SENSE
from sim.se_cmd import X_STATUS as X_STATUS

u64 = np.uint64
ONE, TWO = u64(1), u64(2)

SLEEP, RUN, BLOCKED = range(3)
STATES = 'sleep run blocked'.split()

# A kworker's stretch.
(
    W_SLOT,
    W_HEAD,  # list of commands, first in first out, -1 empty
    W_TAIL,
    W_WOKEN,
    W_PEER,  # lio_submit: base of the disk; lio_complete: unused
    W_DIRECT,  # submit_type or complete_type: 1 for direct
    W_WBT,  # lio_submit: base of the throttle, 0 for none
) = map(u64, range(A_FIELDS, A_FIELDS + 7))
KWORKER_WORDS = A_FIELDS + 7


# ----------------------------------------------------------------------------------- kworkers ----


@kernel
def queue_work(st, w, command, now, price, hop):
    """Append a command to a kworker's list; a sleeping one runs `hop` later (queue_work_on)."""
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
        wake(st, st[w + W_SLOT], now + hop + price)


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
def submit(st, w, command, now):
    """target_submit(): to the submission kworker's list."""
    queue_work(st, w, command, now, st[K_LIO_SUBMIT], st[K_LIO_HOP])


@kernel
def submit_directly(st, tr, w, command, now):
    """submit_type direct: the vhost worker has just run target_execute_cmd() by itself."""
    _issue(st, tr, u64(st[w + W_PEER]), u64(command), now)


@kernel
def _issue(st, tr, disk, x, now):
    tr[u64(st[x + X_ROW]) + record.R_ISSUE] = now + 1
    st[x + X_ISSUED] = now
    medium.accept(st, disk, x, now)


@kernel
def submit_step(st, tr, media, w, now):
    """target_queued_submit_work(): hand the command to the medium, then the next one."""
    if st[w + W_WBT]:
        t, x = u64(st[w + W_WBT]), u64(st[w + W_HEAD])
        if not wbt.admit(st, t, x, st[x + X_OP], now):
            if st[w + A_STATE] == RUN:
                st[t + wbt.T_WAITS] += 1
            st[w + A_STATE] = BLOCKED
            return wbt.next_look(st, t)
        st[w + A_STATE] = RUN
    x = _take(st, w)
    _issue(st, tr, u64(st[w + W_PEER]), x, now)
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
        if st[x + X_OP] == OP_WRITE:
            media[block] = load64(mem, u64(at))
        else:
            stamp = media[block]
            store64(mem, u64(at), stamp if stamp else record.blank_stamp(lba + i))
        at += 512
        left -= 512


@kernel
def disk_step(mem, st, tr, media, disk, now):
    """One event of the medium; a command that it ends goes to LIO's completion kworker."""
    command = medium.step(st, disk, now)
    if command >= 0:
        x = u64(command)
        good = st[x + X_STATUS] == scsi.GOOD
        if st[x + X_BLOCKS] and good:
            _transfer(mem, st, tr, media, x)
        if good:
            st[H_DISK_ORDER] += 1
            tr[u64(st[x + X_ROW]) + record.R_DISK_ORDER] = st[H_DISK_ORDER]
        tr[u64(st[x + X_ROW]) + record.R_DONE] = now + 1
        if st[disk + D_LIO_SUBMIT]:
            _throttle_done(st, u64(st[disk + D_LIO_SUBMIT]), x, now)
        w = u64(st[disk + D_LIO_COMPLETE])
        hop = 0 if st[w + W_DIRECT] and good else st[K_LIO_HOP]
        queue_work(st, w, command, now, st[K_LIO_COMPLETE], hop)
    return due(st, disk)


@kernel
def _throttle_done(st, w, x, now):
    """WBT sees a completion; a kworker asleep in submit_bio() may go on a wake-up later."""
    wakes = wbt.done(st, u64(st[w + W_WBT]), x, st[x + X_OP], st[x + X_ISSUED], now)
    if wakes and st[w + A_STATE] == BLOCKED:
        wake(st, st[w + W_SLOT], now + st[K_LIO_HOP])
