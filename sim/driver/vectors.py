"""What a vCPU has to handle beside its thread: vectors, queues to be run again, kernel threads.

A queue (or a kernel thread) stands in the vCPU's list of pending ones once, until it is entered.
What is left of the thread's state is saved by the interrupt and paid after the handler.
"""

import numpy as np

from sim import record
from sim.agents import A_BUSY, A_STATE, K_IRQ_ENTRY, NEVER, move, wrapped
from sim.driver.fields import (
    ERROR_HANDLER,
    G_VCPU,
    G_VECTOR_PENDING,
    IRQ,
    NOTHING,
    POLL,
    POLLED,
    RETURN,
    TASK_ROW,
    V_HANDLER_ID,
    V_HANDLER_QUEUE,
    V_HANDLER_SINCE,
    V_IN_HANDLER,
    V_PENDING_COUNT,
    V_PENDING_HEAD,
    V_PENDING_LIST,
    V_QUEUES,
    V_RESUME_AT,
    V_SAVED_LEFT,
    V_SAVED_STATE,
    V_SAVED_TAG,
    V_SLEEPING_SINCE,
    V_SLOT,
    V_TAG,
    V_WORK,
    VECTOR,
    W_COUNT,
    W_HEAD,
    W_KIND,
    W_LIST,
    W_PHASE,
    W_ROOM,
    W_TASK,
    WORK,
    WORK_WAITS,
    is_asleep,
    is_open,
)
from sim.jit import kernel

u64 = np.uint64


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
def leave_handler(st, v, now, delay):
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


# ------------------------------------------------------------------------------ kernel threads ----


@kernel
def hand_to_thread(st, tr, v, w, token, now):
    """complete(), where the error handler waits for its reply; else queue_work()."""
    if st[w + W_KIND] == ERROR_HANDLER:
        row = u64(st[u64(st[w + W_TASK]) + TASK_ROW])
        tr[row + record.R_IRQ] = max(tr[row + record.R_USED], st[v + V_HANDLER_SINCE] + 1)
        tr[row + record.R_IRQ_ID] = st[v + V_HANDLER_ID]
        st[w + W_PHASE] = POLL
        wake_kernel_thread(st, w, now)
    else:
        give_work(st, w, token, now)


@kernel
def give_work(st, w, item, now):
    """Something for a kernel thread: a task of the error handler, a buffer with an event."""
    tail = wrapped(st[w + W_HEAD] + st[w + W_COUNT], st[w + W_ROOM])
    st[u64(st[w + W_LIST]) + u64(tail)] = item
    st[w + W_COUNT] += 1
    wake_kernel_thread(st, w, now)


@kernel
def wake_kernel_thread(st, w, now):
    """A kernel thread takes its vCPU from whatever job runs there, as a handler does."""
    if st[w + G_VECTOR_PENDING] == NOTHING:
        st[w + G_VECTOR_PENDING] = WORK_WAITS
        pend(st, w, now, 0)
