"""The guest's interrupt handler: virtscsi_vq_done(), in an interrupt or by a thread that polls.

The life of the handler is drawn in sim.guest.
"""

import numpy as np

from sim import record, scsi, vring
from sim.agents import (
    A_BUSY,
    A_STATE,
    H_KVM_LOG,
    K_GUEST_COMPLETE,
    K_GUEST_SLICE,
    K_GUEST_SUBMIT,
    K_IRQ_RETURN,
    ring,
)
from sim.driver import complete as guest_complete
from sim.driver import dirty
from sim.driver import sched as guest_sched
from sim.driver import vectors as guest_vectors
from sim.driver.fields import (
    ADD,
    CALL,
    DRAIN,
    G_BELL,
    G_DISPATCH_HEAD,
    G_DISPATCH_TAIL,
    G_DRIVER,
    G_HANDLERS,
    G_HEADER_STRIDE,
    G_HEADERS,
    G_INDEX,
    G_LOCK_UNTIL,
    G_POLLED,
    G_THREAD,
    KICK,
    L_FULL_DEPTH,
    L_STARVED,
    ONE,
    REAP,
    RECHECK,
    RESP_OFFSET,
    RETURN,
    T_LUN,
    T_NEXT,
    T_ROW,
    T_SEGMENTS,
    V_BATCH_COUNT,
    V_CORE,
    V_DISPATCHING,
    V_FINISHING,
    V_HANDLER_ID,
    V_HANDLER_QUEUE,
    V_HANDLER_SINCE,
    V_IN_HANDLER,
    V_IRQS_SPURIOUS,
    V_QUEUE,
    V_RETRIES,
    V_SAVED_LEFT,
    V_SAVED_STATE,
    V_SAVED_TAG,
    V_SLEEPING_SINCE,
    V_SLICE_SINCE,
    V_TAG,
    V_THREADS,
    has_budget,
    job_of,
    put_budget_back,
    tag_base,
)
from sim.jit import kernel
from sim.layout import RESP_SENSE, VQ_REQUEST_FIRST
from sim.memory import take_cycles, touch_load
from sim.workload import app

u64 = np.uint64


@kernel(inline=True)
def irq(mem, lines, st, tr, v, now):
    """vring_interrupt() and virtscsi_vq_done(): take the lock, disable callbacks, first buffer."""
    q = u64(st[v + V_HANDLER_QUEUE])
    if now < st[q + G_LOCK_UNTIL]:
        return st[q + G_LOCK_UNTIL] - now
    d, core = u64(st[q + G_DRIVER]), st[v + V_CORE]
    st[q + G_HANDLERS] += 1
    st[v + V_HANDLER_ID] = st[q + G_HANDLERS]
    st[v + V_HANDLER_SINCE] = now
    if not vring.vring_interrupt(mem, lines, st, d, core):
        st[v + V_IRQS_SPURIOUS] += 1
        st[v + A_STATE] = RETURN
        return take_cycles(lines, core) + st[K_IRQ_RETURN]
    vring.disable_cb(mem, lines, st, d, core)
    return drain(mem, lines, st, tr, v, now)


@kernel(inline=True)
def _hold(lines, st, v, q, now):
    """What the last ring accesses cost; vq_lock stays taken over it."""
    delay = take_cycles(lines, st[v + V_CORE])
    st[q + G_LOCK_UNTIL] = now + delay
    return delay


@kernel
def drain(mem, lines, st, tr, v, now):
    """One turn of virtscsi_vq_done()'s inner loop: finish the last command, get the next.

    Where there is none: virtqueue_enable_cb(), first half.
    """
    q = u64(st[v + V_HANDLER_QUEUE])
    core = st[v + V_CORE]
    if st[v + V_FINISHING] >= 0:
        guest_complete.finish(mem, st, tr, q, st[v + V_FINISHING], now)
        st[v + V_FINISHING] = -1
    tag = vring.get_buf(mem, lines, st, u64(st[q + G_DRIVER]), core)
    if tag < 0:
        if st[q + G_POLLED]:
            st[v + A_STATE] = RETURN
            return _hold(lines, st, v, q, now)
        vring.enable_cb_prepare(mem, lines, st, u64(st[q + G_DRIVER]), core)
        if st[H_KVM_LOG]:
            dirty.note_driver_area(st, q)
        if st[q + G_BELL]:
            ring(st, u64(st[q + G_BELL]), now)
        st[v + A_STATE] = RECHECK
        return _hold(lines, st, v, q, now)
    st[v + A_STATE] = DRAIN
    if st[q + G_INDEX] < VQ_REQUEST_FIRST:
        guest_vectors.hand_to_thread(st, tr, v, u64(st[q + G_THREAD]), tag, now)
        return _hold(lines, st, v, q, now)
    t = tag_base(st, q, tag)
    row = u64(st[t + T_ROW])
    header = st[q + G_HEADERS] + st[q + G_HEADER_STRIDE] * tag
    reply = scsi.read_response(mem, lines, core, header + RESP_OFFSET)
    tr[row + record.R_OUTCOME] = record.OK
    if reply:
        tr[row + record.R_OUTCOME] = guest_complete.outcome_of(reply >> 8, reply & 0xFF)
        if _is_attention(mem, lines, core, reply, header + RESP_OFFSET):
            return _again(lines, st, tr, v, q, tag, now)
    tr[row + record.R_IRQ] = max(tr[row + record.R_USED], st[v + V_HANDLER_SINCE] + 1)
    tr[row + record.R_IRQ_ID] = st[v + V_HANDLER_ID]
    st[v + V_FINISHING] = tag
    delay = take_cycles(lines, core) + st[K_GUEST_COMPLETE]
    st[q + G_LOCK_UNTIL] = now + delay
    return delay


@kernel
def _is_attention(mem, lines, core, reply, at):
    """Does the response at `at` carry a UNIT ATTENTION (scsi_check_sense)?"""
    if reply != scsi.CHECK_CONDITION:
        return False
    sense = u64(at) + RESP_SENSE
    touch_load(lines, core, np.int64(sense), 18)
    descriptor = np.int64(mem[sense]) & 0x7F >= 0x72
    key = np.int64(mem[sense + u64(1)]) if descriptor else np.int64(mem[sense + u64(2)])
    return key & 0xF == scsi.UNIT_ATTENTION


@kernel
def _again(lines, st, tr, v, q, tag, now):
    """scsi_queue_insert(SCSI_MLQUEUE_EH_RETRY): after a unit attention a command is sent again.

    Nothing was done of it. What its row says of the first try is forgotten but for its arrival.
    """
    t = tag_base(st, q, tag)
    row = u64(st[t + T_ROW])
    for place in range(record.R_SUBMIT, record.R_COMPLETE + ONE):
        tr[row + u64(place)] = 0
    tr[row + record.R_OUTCOME] = record.UNFINISHED
    tr[row + record.R_PUBLISHED_COUNT] -= 1
    tr[row + record.R_FETCHED_COUNT] -= 1
    tr[row + record.R_USED_COUNT] -= 1
    st[v + V_RETRIES] += 1
    put_budget_back(st, u64(st[t + T_LUN]))
    wait_in_line(st, q, tag, True)
    delay = take_cycles(lines, st[v + V_CORE]) + st[K_GUEST_COMPLETE]
    st[q + G_LOCK_UNTIL] = now + delay
    return delay


@kernel(inline=True)
def recheck(mem, lines, st, tr, v, now):
    """virtqueue_enable_cb(), second half: has the device been quicker (barrier D)?"""
    q = u64(st[v + V_HANDLER_QUEUE])
    d, core = u64(st[q + G_DRIVER]), st[v + V_CORE]
    # virtqueue_poll() of a broken ring finds nothing
    if vring.more_used(mem, lines, st, d, core) and not st[d + vring.D_BROKEN]:
        vring.disable_cb(mem, lines, st, d, core)
        return drain(mem, lines, st, tr, v, now)
    delay = _hold(lines, st, v, q, now)
    st[v + A_STATE] = RETURN
    return delay + st[K_IRQ_RETURN]


@kernel
def wait_in_line(st, q, tag, front):
    """Request `tag` joins the dispatch list of hardware queue `q`, at its front or its end."""
    t = tag_base(st, q, tag)
    if st[q + G_DISPATCH_HEAD] < 0:
        st[t + T_NEXT] = -1
        st[q + G_DISPATCH_HEAD] = tag
        st[q + G_DISPATCH_TAIL] = tag
    elif front:
        st[t + T_NEXT] = st[q + G_DISPATCH_HEAD]
        st[q + G_DISPATCH_HEAD] = tag
    else:
        st[t + T_NEXT] = -1
        st[tag_base(st, q, st[q + G_DISPATCH_TAIL]) + T_NEXT] = tag
        st[q + G_DISPATCH_TAIL] = tag


@kernel
def dispatch_next(st, tr, v, now, delay):
    """blk_mq_run_hw_queue(): try the first waiting request again, if it could fit now."""
    q = u64(st[v + V_HANDLER_QUEUE])
    tag = st[q + G_DISPATCH_HEAD]
    if tag >= 0:
        t = tag_base(st, q, tag)
        d, lun = u64(st[q + G_DRIVER]), u64(st[t + T_LUN])
        needed = 1 if st[d + vring.D_INDIRECT] else 2 + st[t + T_SEGMENTS]
        if not has_budget(st, lun) and st[lun + L_FULL_DEPTH] > 0:
            st[lun + L_STARVED] = 1
        elif st[v + V_DISPATCHING] == 1 and st[d + vring.D_NUM_FREE] >= needed:
            st[q + G_DISPATCH_HEAD] = st[t + T_NEXT]
            st[v + V_TAG] = tag
            tr[u64(st[t + T_ROW]) + record.R_SUBMIT] = now + delay + 1
            st[v + A_STATE] = ADD
            return delay + st[K_GUEST_SUBMIT]
    if st[v + V_BATCH_COUNT]:
        st[v + A_STATE] = KICK
        st[v + V_DISPATCHING] = 2  # after this kick the dispatcher is done
        return delay
    st[v + V_DISPATCHING] = 0
    return guest_vectors.leave_handler(st, v, now, delay)


@kernel(inline=True)
def leave(st, tr, v, now):
    """The handler is done: run the hardware queue if requests wait, then leave."""
    q = u64(st[v + V_HANDLER_QUEUE])
    if st[q + G_DISPATCH_HEAD] >= 0:
        st[v + V_DISPATCHING] = 1
        return dispatch_next(st, tr, v, now, 0)
    return guest_vectors.leave_handler(st, v, now, 0)


# ------------------------------------------------------------------------------------- polling ----


@kernel
def poll(mem, lines, st, tr, v, now):
    """A turn of io_do_iopoll(): virtscsi_mq_poll() of the thread's queue.

    The turns that find nothing are not steps of their own: between two of them the thread is as
    good as asleep, and a used entry makes it look when its next turn comes (see_used).
    """
    st[v + A_BUSY] += now - st[v + V_SLEEPING_SINCE]
    st[v + V_SLEEPING_SINCE] = now
    q, j = u64(st[v + V_QUEUE]), job_of(st, v)
    if app.has_enough(st, j):
        st[v + A_STATE] = REAP
        return 0
    if now < st[q + G_LOCK_UNTIL]:
        return st[q + G_LOCK_UNTIL] - now
    if not vring.more_used(mem, lines, st, u64(st[q + G_DRIVER]), st[v + V_CORE]):
        take_cycles(lines, st[v + V_CORE])  # in the cost of a turn
        return _in_vain(st, v, j, now)
    st[v + V_SAVED_STATE] = REAP
    st[v + V_SAVED_LEFT] = 0
    st[v + V_SAVED_TAG] = st[v + V_TAG]
    st[v + V_IN_HANDLER] = 1
    st[v + V_HANDLER_QUEUE] = np.int64(q)
    st[v + V_HANDLER_SINCE] = now
    st[v + V_HANDLER_ID] = 0
    return drain(mem, lines, st, tr, v, now)


@kernel
def _in_vain(st, v, j, now):
    """Nothing has come: until when does the thread look on?"""
    patience = app.patience(st, j, now)
    if patience == 0:
        st[v + A_STATE] = CALL
    elif st[v + V_THREADS] > 1:  # need_resched()
        left = st[v + V_SLICE_SINCE] + st[K_GUEST_SLICE] - now
        if left <= 0:
            delay = guest_sched.give_way(st, v, now, REAP)
            if delay >= 0:
                return delay
            left = st[K_GUEST_SLICE]
        patience = min(patience, left)
    return patience
