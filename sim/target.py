"""The target: LIO's two work-queue hops and the LUN in front of the medium.

Three kinds of agents. `lio_submit` is a kworker of "target_submission" (queue_work by the vhost
worker, target_queued_submit_work), `disk` is a medium (sim.disks), `lio_complete` a kworker of
"target_completion". There is a pair of kworkers on each host CPU that a vhost worker runs on.

    kworker    sleep -> RUN ... -> sleep       one command per step, first in first out
    lio_submit ... RUN -> BLOCKED -> RUN       asleep in submit_bio(), where WBT throttles (sim.wbt)
    disk       idle -> one event of the medium per step -> idle

submit_type direct: the vhost worker submits by itself, without lio_submit. complete_type direct: a
command that succeeds is completed where the medium's interrupt is, without the hop to a kworker.

What a command does to guest memory and to the medium, it does at t_done (sim.lio.sbc): a lost,
doubled or misdirected transfer shows in the data.
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
from sim.disks.fields import D_LIO_SUBMIT, D_THREAD, D_WBT
from sim.host_task import wake_to_work
from sim.jit import kernel
from sim.lio import sbc
from sim.lio.command import FAILED, MEDIUM
from sim.lio.lun import L_DISK
from sim.se_cmd import (
    ACTIVE,
    X_ISSUED,
    X_LIO,
    X_LUN,
    X_NEXT,
    X_OP,
    X_ROW,
    X_STATE,
    X_STATUS,
)
from sim.user.fields import collect

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
    W_PEER,  # lio_submit: base of the completion kworker; lio_complete: unused
    W_DIRECT,  # submit_type or complete_type: 1 for direct
    W_WAITING,  # lio_submit: command that WBT holds back, 0 none
    W_FAILED,  # lio_submit: command that has just failed, -1 none
) = map(u64, range(A_FIELDS, A_FIELDS + 8))
KWORKER_WORDS = A_FIELDS + 8


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
        wake_to_work(st, st[w + W_SLOT], now, hop, price)


@kernel(inline=True)
def _take(st, w):
    """The kworker's oldest command, which it has worked on until now."""
    command = st[w + W_HEAD]
    st[w + W_HEAD] = st[u64(command) + X_NEXT]
    return u64(command)


@kernel(inline=True)
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
def executed(st, tr, w, x, course, now):
    """A command has been executed: is it for the medium?

    What LIO has emulated is completed, what has failed is left in W_FAILED.
    """
    if course == MEDIUM:
        return True
    row = u64(st[x + X_ROW])
    tr[row + record.R_ISSUE] = now + 1
    tr[row + record.R_DONE] = now + 1
    if course == FAILED:
        st[w + W_FAILED] = np.int64(x)
    else:
        _complete(st, u64(st[w + W_PEER]), x, now, True)
    return False


@kernel
def _disk_of(st, x):
    return u64(st[u64(st[x + X_LUN]) + L_DISK])


@kernel
def issue(st, tr, w, x, now):
    """submit_bio(), on the CPU of submission kworker `w`: the medium has the command."""
    tr[u64(st[x + X_ROW]) + record.R_ISSUE] = now + 1
    st[x + X_ISSUED] = now
    st[x + X_LIO] = np.int64(w)
    st[x + X_STATE] = ACTIVE
    medium.accept(st, _disk_of(st, x), x, now)


@kernel
def _complete(st, w, x, now, good):
    """target_complete_cmd(): to the completion kworker `w`."""
    hop = 0 if st[w + W_DIRECT] and good else st[K_LIO_HOP]
    queue_work(st, w, np.int64(x), now, st[K_LIO_COMPLETE], hop)


@kernel(inline=True)
def executes(st, w):
    """The command that the submission kworker executes in its next step, 0 for none.

    The scheduler's loop executes it (sim.lio.server.execute) and tells `submit_step` its course.
    """
    return 0 if st[w + W_WAITING] else st[w + W_HEAD]


@kernel
def submit_step(st, tr, w, course, now):
    """target_queued_submit_work(): a command has been executed; then the next one.

    One that WBT has held back was executed before; `course` means nothing then.
    """
    x = u64(st[w + W_WAITING])
    if x == u64(0):
        x = _take(st, w)
        if not executed(st, tr, w, x, course, now):
            return _next(st, w, now, st[K_LIO_SUBMIT])
    t = u64(st[_disk_of(st, x) + D_WBT])
    if t:
        if not wbt.admit(st, t, x, st[x + X_OP], now):
            if st[w + A_STATE] == RUN:
                st[t + wbt.T_WAITS] += 1
            st[w + A_STATE] = BLOCKED
            st[w + W_WAITING] = np.int64(x)
            return wbt.next_look(st, t)
        st[w + A_STATE] = RUN
        st[w + W_WAITING] = 0
    issue(st, tr, w, x, now)
    return _next(st, w, now, st[K_LIO_SUBMIT])


@kernel(inline=True)
def take_completed(st, w):
    """target_complete_ok_work(): the command whose completion the kworker has just finished."""
    return _take(st, w)


@kernel(inline=True)
def complete_next(st, w, now):
    """When the completion kworker acts again."""
    return _next(st, w, now, st[K_LIO_COMPLETE])


# --------------------------------------------------------------------------------------- disk ----


@kernel
def disk_step(mem, st, tr, media, disk, now):
    """One event of the medium; a command that it ends goes to LIO's completion kworker on
    the CPU that submitted it. Where a thread of user space drives the disk (D_THREAD), it goes to
    that thread's completion queue.
    """
    command = medium.step(st, disk, now)
    if command >= 0:
        x = u64(command)
        good = st[x + X_STATUS] == scsi.GOOD
        if good:
            sbc.transfer(mem, st, media, x)
            st[H_DISK_ORDER] += 1
            tr[u64(st[x + X_ROW]) + record.R_DISK_ORDER] = st[H_DISK_ORDER]
        tr[u64(st[x + X_ROW]) + record.R_DONE] = now + 1
        if st[disk + D_WBT]:
            _throttle_done(st, disk, x, now)
        if st[disk + D_THREAD]:
            collect(st, u64(st[disk + D_THREAD]), x, now)
        else:
            w = u64(st[u64(st[x + X_LIO]) + W_PEER])
            _complete(st, w, x, now, good)
    return due(st, disk)


@kernel
def _throttle_done(st, disk, x, now):
    """WBT sees a completion; a kworker asleep in its submit_bio() may go on a wake-up later."""
    wakes = wbt.done(st, u64(st[disk + D_WBT]), x, st[x + X_OP], st[x + X_ISSUED], now)
    w = u64(st[disk + D_LIO_SUBMIT])
    if wakes and st[w + A_STATE] == BLOCKED and _disk_of(st, u64(st[w + W_WAITING])) == disk:
        wake(st, st[w + W_SLOT], now + st[K_LIO_HOP])
