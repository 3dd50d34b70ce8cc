"""What a completion is, and sets going: the application, whoever waits for a tag or for budget."""

import numpy as np

from sim import record, scsi
from sim.agents import A_STATE, K_GUEST_POLL, K_IRQ_INJECT, wake, wrapped
from sim.driver import sched as guest_sched
from sim.driver import vectors as guest_vectors
from sim.driver.fields import (
    CALL,
    ENTER,
    FROZEN,
    G_DISPATCH_HEAD,
    G_FREEZE,
    G_POLLER_LIST,
    G_POLLERS,
    G_TAG_FREE,
    G_TAG_LIST,
    G_VECTOR_PENDING,
    G_WAITER_HEAD,
    G_WAITER_LIST,
    G_WAITER_ROOM,
    G_WAITERS,
    JUDGE,
    L_QUEUE_COUNT,
    L_QUEUE_LIST,
    L_STARVED,
    NOTHING,
    POLLED,
    REAP,
    RUN_QUEUE,
    T_BLOCKS,
    T_JOB,
    T_LUN,
    T_OP,
    T_ROW,
    T_UNIT,
    V_FROZEN_LEFT,
    V_FROZEN_STATE,
    V_IN_HANDLER,
    V_JOB,
    V_RESUME_AT,
    V_SAVED_LEFT,
    V_SAVED_STATE,
    V_SLEEPING_SINCE,
    V_SLICE_SINCE,
    V_SLOT,
    W_PHASE,
    WAIT_EVENTS,
    WAIT_TAG,
    give_budget,
    stamp_of,
    tag_base,
)
from sim.jit import kernel
from sim.layout import (
    S_ABORTED,
    S_BAD_TARGET,
    S_BUSY,
    S_NEXUS_FAILURE,
    S_OK,
    S_RESET,
    S_TARGET_FAILURE,
    S_TRANSPORT_FAILURE,
)
from sim.memory import load64
from sim.se_cmd import OP_WRITE
from sim.workload import app
from sim.workload.job_fields import J_VCPU

u64 = np.uint64


@kernel
def unfreeze(st, q, now):
    """Control plane, blk_mq_unfreeze_queue(): whoever waits at the door comes in."""
    st[q + G_FREEZE] = 0
    for _ in range(st[q + G_WAITERS]):
        _wake_waiter(st, q, now)


@kernel(inline=True)
def finish(mem, st, tr, q, tag, now):
    """scsi_done(): the request goes back to the application; its tag is free again."""
    t = tag_base(st, q, tag)
    row = u64(st[t + T_ROW])
    tr[row + record.R_COMPLETE] = now + 1
    tr[row + record.R_COMPLETED_COUNT] += 1
    if st[t + T_OP] != OP_WRITE:
        total = np.int64(0)
        for i in range(st[t + T_BLOCKS]):
            total = record.fold(total, load64(mem, stamp_of(st, q, tag, i)))
        tr[row + record.R_STAMP] = total
    lun = u64(st[t + T_LUN])
    if give_budget(st, lun):
        run_starved(st, lun, q, now)
    if st[t + T_UNIT] < 0:
        _inquired(st, u64(st[t + T_JOB]), now)
        return
    st[u64(st[q + G_TAG_LIST]) + u64(st[q + G_TAG_FREE])] = tag
    st[q + G_TAG_FREE] += 1
    owner = u64(st[t + T_JOB])
    woken = app.put_done(st, tr, owner, st[t + T_UNIT], now)
    if woken:
        wake_thread(st, owner, WAIT_EVENTS, REAP if woken == app.WAKES_REAP else CALL, now)
    if st[q + G_WAITERS] and not st[q + G_FREEZE]:
        _wake_waiter(st, q, now)


@kernel
def _inquired(st, w, now):
    """The INQUIRY of the event work `w` has been answered."""
    st[w + W_PHASE] = JUDGE
    guest_vectors.wake_kernel_thread(st, w, now)


@kernel
def run_starved(st, lun, mine, now):
    """scsi_run_queue_async(): every queue whose requests wait for the LUN's budget is run.

    The handler that frees the budget runs its own queue by itself; the others run on their vCPUs.
    """
    st[lun + L_STARVED] = 0
    for i in range(st[lun + L_QUEUE_COUNT]):
        q = u64(st[u64(st[lun + L_QUEUE_LIST]) + u64(i)])
        if q != mine and st[q + G_DISPATCH_HEAD] >= 0 and st[q + G_VECTOR_PENDING] == NOTHING:
            st[q + G_VECTOR_PENDING] = RUN_QUEUE
            guest_vectors.pend(st, q, now, st[K_IRQ_INJECT])


@kernel
def _wake_waiter(st, q, now):
    """sbitmap_queue_clear(): the thread that has waited longest for a tag goes on."""
    head = st[q + G_WAITER_HEAD]
    waiter = u64(st[u64(st[q + G_WAITER_LIST]) + u64(head)])
    st[q + G_WAITER_HEAD] = wrapped(head + 1, st[q + G_WAITER_ROOM])
    st[q + G_WAITERS] -= 1
    wake_thread(st, waiter, WAIT_TAG, ENTER, now)


@kernel
def wake_thread(st, j, asleep, runs, now):
    """try_to_wake_up(): job `j`'s thread, if it sleeps in state `asleep`, goes on in `runs`."""
    v = u64(st[j + J_VCPU])
    if st[v + V_JOB] != np.int64(j):
        guest_sched.wake_other(st, v, j, asleep, runs, now)
    elif st[v + V_IN_HANDLER]:
        if st[v + V_SAVED_STATE] == asleep:
            st[v + V_SAVED_STATE] = runs
            st[v + V_SAVED_LEFT] = 0
        elif st[v + V_SAVED_STATE] == POLLED and asleep == WAIT_EVENTS:
            st[v + V_SAVED_LEFT] = now
    elif st[v + A_STATE] == asleep:  # on another CPU: a reschedule IPI
        st[v + A_STATE] = runs
        st[v + V_SLICE_SINCE] = now
        st[v + V_RESUME_AT] = min(st[v + V_RESUME_AT], now + st[K_IRQ_INJECT])  # or its timer
        wake(st, st[v + V_SLOT], st[v + V_RESUME_AT])
    elif st[v + A_STATE] == FROZEN and st[v + V_FROZEN_STATE] == asleep:
        st[v + V_FROZEN_STATE] = runs
        st[v + V_FROZEN_LEFT] = 0
    elif asleep == WAIT_EVENTS:
        _next_turn(st, v, now)


@kernel
def see_used(st, q, now):
    """The used ring of a polled queue has moved: whoever polls it finds that at its next turn."""
    for i in range(st[q + G_POLLERS]):
        _next_turn(st, u64(st[u64(st[q + G_POLLER_LIST]) + u64(i)]), now)


@kernel
def _next_turn(st, v, now):
    """A thread that polls on vCPU `v` has something to find."""
    if st[v + V_IN_HANDLER]:
        if st[v + V_SAVED_STATE] == POLLED:
            st[v + V_SAVED_LEFT] = now
    elif st[v + A_STATE] == POLLED:
        since, turn = st[v + V_SLEEPING_SINCE], st[K_GUEST_POLL]
        at = since + (now - since + turn - 1) // turn * turn
        st[v + V_RESUME_AT] = min(st[v + V_RESUME_AT], at)
        wake(st, st[v + V_SLOT], st[v + V_RESUME_AT])
    elif st[v + A_STATE] == FROZEN and st[v + V_FROZEN_STATE] == POLLED:
        st[v + V_FROZEN_LEFT] = now


@kernel
def outcome_of(response, status):
    """virtscsi_complete_cmd(): the host byte for a response, or else what the status says.

    What the SCSI layer would try again (a busy bus, a full task set) it has done with here, but for
    unit attentions.
    """
    if response == S_OK:
        if status == scsi.GOOD:
            return record.OK
        if status == scsi.BUSY:
            return record.BUSY
        if status == scsi.RESERVATION_CONFLICT:
            return record.RESERVATION_CONFLICT
        if status == scsi.TASK_SET_FULL:
            return record.TASK_SET_FULL
        return record.TASK_ABORTED if status == scsi.TASK_ABORTED else record.CHECK_CONDITION
    if response in (S_BAD_TARGET, S_TARGET_FAILURE):
        return record.BAD_TARGET
    if response == S_ABORTED:
        return record.ABORT
    if response == S_RESET:
        return record.RESET
    if response == S_BUSY:
        return record.BUS_BUSY
    if response == S_TRANSPORT_FAILURE:
        return record.TRANSPORT_DISRUPTED
    if response == S_NEXUS_FAILURE:
        return record.RESERVATION_CONFLICT
    return record.ERROR  # OVERRUN, FAILURE, and what nobody knows
