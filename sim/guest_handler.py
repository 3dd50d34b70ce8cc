"""The guest's interrupt handler: virtscsi_vq_done() and what completions set going.

The life of the handler is drawn in sim.guest. What a vCPU has to handle waits in its list of
pending queues: a queue stands there once, for its vector or to be run again.
"""

import numpy as np

from sim import app, guest_sched, record, scsi, vring
from sim.agents import (
    A_BUSY,
    A_STATE,
    K_GUEST_COMPLETE,
    K_GUEST_POLL,
    K_GUEST_SLICE,
    K_GUEST_SUBMIT,
    K_IRQ_ENTRY,
    K_IRQ_INJECT,
    K_IRQ_RETURN,
    NEVER,
    move,
    ring,
    wake,
    wrapped,
)
from sim.guest_fields import (
    ADD,
    CALL,
    DRAIN,
    ENTER,
    ERROR_HANDLER,
    FROZEN,
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
    G_POLLER_LIST,
    G_POLLERS,
    G_TAG_FREE,
    G_TAG_LIST,
    G_THREAD,
    G_VCPU,
    G_VECTOR_PENDING,
    G_WAITER_HEAD,
    G_WAITER_LIST,
    G_WAITER_ROOM,
    G_WAITERS,
    IRQ,
    JUDGE,
    KICK,
    L_BUSY,
    L_DEPTH,
    L_FULL_DEPTH,
    L_QUEUE_COUNT,
    L_QUEUE_LIST,
    L_STARVED,
    NOTHING,
    ONE,
    POLL,
    POLLED,
    REAP,
    RECHECK,
    RESP_OFFSET,
    RETURN,
    RUN_QUEUE,
    T_BLOCKS,
    T_JOB,
    T_LUN,
    T_NEXT,
    T_OP,
    T_ROW,
    T_SEGMENTS,
    T_UNIT,
    TASK_ROW,
    V_BATCH_COUNT,
    V_CORE,
    V_DISPATCHING,
    V_FINISHING,
    V_FROZEN_LEFT,
    V_FROZEN_STATE,
    V_HANDLER_ID,
    V_HANDLER_QUEUE,
    V_HANDLER_SINCE,
    V_IN_HANDLER,
    V_IRQS_SPURIOUS,
    V_JOB,
    V_PENDING_COUNT,
    V_PENDING_HEAD,
    V_PENDING_LIST,
    V_QUEUE,
    V_QUEUES,
    V_RESUME_AT,
    V_RETRIES,
    V_SAVED_LEFT,
    V_SAVED_STATE,
    V_SAVED_TAG,
    V_SLEEPING_SINCE,
    V_SLICE_SINCE,
    V_SLOT,
    V_TAG,
    V_THREADS,
    V_WORK,
    VECTOR,
    W_COUNT,
    W_HEAD,
    W_KIND,
    W_LIST,
    W_PHASE,
    W_ROOM,
    W_TASK,
    WAIT_EVENTS,
    WAIT_TAG,
    WORK,
    WORK_WAITS,
    is_asleep,
    is_open,
    job_of,
    stamp_of,
    tag_base,
)
from sim.jit import kernel
from sim.job_fields import J_VCPU
from sim.layout import (
    RESP_SENSE,
    S_ABORTED,
    S_BAD_TARGET,
    S_BUSY,
    S_NEXUS_FAILURE,
    S_OK,
    S_RESET,
    S_TARGET_FAILURE,
    S_TRANSPORT_FAILURE,
    VQ_REQUEST_FIRST,
)
from sim.memory import load64, take_cycles, touch_load
from sim.se_cmd import OP_WRITE

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
    st[lun + L_BUSY] -= 1
    if st[lun + L_STARVED]:
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
    if st[q + G_WAITERS]:
        _wake_waiter(st, q, now)


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
            pend(st, q, now, st[K_IRQ_INJECT])


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
    st[u64(st[t + T_LUN]) + L_BUSY] -= 1
    wait_in_line(st, q, tag, True)
    delay = take_cycles(lines, st[v + V_CORE]) + st[K_GUEST_COMPLETE]
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
        finish(mem, st, tr, q, st[v + V_FINISHING], now)
        st[v + V_FINISHING] = -1
    tag = vring.get_buf(mem, lines, st, u64(st[q + G_DRIVER]), core)
    if tag < 0:
        if st[q + G_POLLED]:
            st[v + A_STATE] = RETURN
            return _hold(lines, st, v, q, now)
        vring.enable_cb_prepare(mem, lines, st, u64(st[q + G_DRIVER]), core)
        if st[q + G_BELL]:
            ring(st, u64(st[q + G_BELL]), now)
        st[v + A_STATE] = RECHECK
        return _hold(lines, st, v, q, now)
    st[v + A_STATE] = DRAIN
    if st[q + G_INDEX] < VQ_REQUEST_FIRST:
        _hand_to_thread(st, tr, v, u64(st[q + G_THREAD]), tag, now)
        return _hold(lines, st, v, q, now)
    t = tag_base(st, q, tag)
    row = u64(st[t + T_ROW])
    header = st[q + G_HEADERS] + st[q + G_HEADER_STRIDE] * tag
    reply = scsi.read_response(mem, lines, core, header + RESP_OFFSET)
    tr[row + record.R_OUTCOME] = record.OK if reply == 0 else outcome_of(reply >> 8, reply & 0xFF)
    if reply and _is_attention(mem, lines, core, reply, header + RESP_OFFSET):
        return _again(lines, st, tr, v, q, tag, now)
    tr[row + record.R_IRQ] = max(tr[row + record.R_USED], st[v + V_HANDLER_SINCE] + 1)
    tr[row + record.R_IRQ_ID] = st[v + V_HANDLER_ID]
    st[v + V_FINISHING] = tag
    delay = take_cycles(lines, core) + st[K_GUEST_COMPLETE]
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
        if st[lun + L_BUSY] >= st[lun + L_DEPTH] and st[lun + L_FULL_DEPTH] > 0:
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
    return _leave_handler(st, v, now, delay)


@kernel(inline=True)
def leave(st, tr, v, now):
    """The handler is done: run the hardware queue if requests wait, then leave."""
    q = u64(st[v + V_HANDLER_QUEUE])
    if st[q + G_DISPATCH_HEAD] >= 0:
        st[v + V_DISPATCHING] = 1
        return dispatch_next(st, tr, v, now, 0)
    return _leave_handler(st, v, now, 0)


@kernel(inline=True)
def _enter_handler(st, v):
    """Take the vector that has waited longest."""
    head = st[v + V_PENDING_HEAD]
    q = st[u64(st[v + V_PENDING_LIST]) + u64(head)]
    st[v + V_PENDING_HEAD] = wrapped(head + 1, st[v + V_QUEUES])
    st[v + V_PENDING_COUNT] -= 1
    what = st[u64(q) + G_VECTOR_PENDING]
    st[v + A_STATE] = IRQ if what == VECTOR else (WORK if what == WORK_WAITS else RETURN)
    st[u64(q) + G_VECTOR_PENDING] = NOTHING
    st[v + V_HANDLER_QUEUE] = q
    return st[K_IRQ_ENTRY]


@kernel
def interrupt(st, v, now):
    """The interrupt takes the CPU: keep what is left of the thread's state for later."""
    left = st[v + V_RESUME_AT]
    if st[v + A_STATE] == POLLED:
        st[v + A_BUSY] += now - st[v + V_SLEEPING_SINCE]
    elif not is_asleep(st[v + A_STATE]):
        left -= now
        st[v + A_BUSY] -= left
    st[v + V_SAVED_STATE] = st[v + A_STATE]
    st[v + V_SAVED_LEFT] = left
    st[v + V_SAVED_TAG] = st[v + V_TAG]
    st[v + V_IN_HANDLER] = 1
    entry = _enter_handler(st, v)
    st[v + A_BUSY] += entry
    st[v + V_RESUME_AT] = now + entry


@kernel
def _leave_handler(st, v, now, delay):
    """The next vector if one waits, else back to the thread."""
    if st[v + V_WORK]:
        st[v + V_HANDLER_QUEUE] = st[v + V_WORK]
        st[v + V_WORK] = 0
        st[v + A_STATE] = WORK
        return delay
    if st[v + V_PENDING_COUNT]:
        return delay + _enter_handler(st, v)
    st[v + V_IN_HANDLER] = 0
    st[v + A_STATE] = st[v + V_SAVED_STATE]
    st[v + V_TAG] = st[v + V_SAVED_TAG]
    st[v + V_SLEEPING_SINCE] = now
    left = st[v + V_SAVED_LEFT]
    if left >= NEVER:
        return NEVER
    return max(left - now, delay) if is_asleep(st[v + A_STATE]) else delay + left


@kernel(inline=True)
def raise_vector(st, q, now):
    """The MSI-X vector of queue `q` reaches its vCPU; False if it was pending already."""
    pending = st[q + G_VECTOR_PENDING]
    st[q + G_VECTOR_PENDING] = VECTOR
    if pending == NOTHING:
        pend(st, q, now, 0)
    return pending != VECTOR


@kernel
def pend(st, q, now, latency):
    """Queue `q` has something for its vCPU, which may be free to take it."""
    v = u64(st[q + G_VCPU])
    tail = wrapped(st[v + V_PENDING_HEAD] + st[v + V_PENDING_COUNT], st[v + V_QUEUES])
    st[u64(st[v + V_PENDING_LIST]) + u64(tail)] = np.int64(q)
    st[v + V_PENDING_COUNT] += 1
    if is_open(st, v):
        interrupt(st, v, now)
        st[v + V_RESUME_AT] += latency
        move(st, st[v + V_SLOT], st[v + V_RESUME_AT])


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


# ------------------------------------------------------------------------------ kernel threads ----


@kernel
def _hand_to_thread(st, tr, v, w, token, now):
    """complete(), where the error handler waits for its reply; else queue_work()."""
    if st[w + W_KIND] == ERROR_HANDLER:
        row = u64(st[u64(st[w + W_TASK]) + TASK_ROW])
        tr[row + record.R_IRQ] = max(tr[row + record.R_USED], st[v + V_HANDLER_SINCE] + 1)
        tr[row + record.R_IRQ_ID] = st[v + V_HANDLER_ID]
        st[w + W_PHASE] = POLL
        _wake_kernel_thread(st, w, now)
    else:
        give_work(st, w, token, now)


@kernel
def _inquired(st, w, now):
    """The INQUIRY of the event work `w` has been answered."""
    st[w + W_PHASE] = JUDGE
    _wake_kernel_thread(st, w, now)


@kernel
def give_work(st, w, item, now):
    """Something for a kernel thread: a task of the error handler, a buffer with an event."""
    tail = wrapped(st[w + W_HEAD] + st[w + W_COUNT], st[w + W_ROOM])
    st[u64(st[w + W_LIST]) + u64(tail)] = item
    st[w + W_COUNT] += 1
    _wake_kernel_thread(st, w, now)


@kernel
def _wake_kernel_thread(st, w, now):
    """A kernel thread takes its vCPU from whatever job runs there, as a handler does."""
    if st[w + G_VECTOR_PENDING] == NOTHING:
        st[w + G_VECTOR_PENDING] = WORK_WAITS
        pend(st, w, now, 0)
