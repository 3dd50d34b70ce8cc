"""The driver's kernel threads, and one of them: the SCSI error handler.

drivers/scsi/virtio_scsi.c. A kernel thread (the other is sim.driver.events) takes its vCPU from the
job that runs there, as wake-up preemption does, and keeps it until it sleeps. The life of a task of
the error handler (a TMF, or an AN request, on the control queue):

    SEND -> NOTIFY -> AWAIT -> POLL ... -> next task or sleep
    virtscsi_tmf(): virtqueue_add_sgs | kick_prepare, notify | wait_for_completion, for ever |
    virtscsi_poll_requests(): virtscsi_vq_done() of each request queue

A LUN reset is what scsi_ioctl_reset() makes of `sg_reset --device`: until it is over, no other
command goes to the host (tmf_in_progress). Nothing else sends one: the driver's timeout handler
resets the timer for ever.
"""

import numpy as np

from sim import record, scsi, vring
from sim.agents import (
    A_STATE,
    K_GUEST_SUBMIT,
    K_KICK_EXIT,
    K_KICK_RETURN,
    K_KICK_SIGNAL,
    NEVER,
    wake,
    wrapped,
)
from sim.driver import complete as guest_complete
from sim.driver import handler as guest_handler
from sim.driver.fields import (
    AWAIT,
    G_BUFFERS,
    G_DRIVER,
    G_HANDLERS,
    G_HEADER_STRIDE,
    G_HEADERS,
    G_LOCK_UNTIL,
    G_NUM,
    G_ROW_OF_HEAD,
    G_TABLES,
    L_DEPTH,
    L_FULL_DEPTH,
    L_STARVED,
    NOTIFY,
    ONE,
    POLL,
    RESP_OFFSET,
    RETURN,
    SEND,
    T_LUN,
    T_SERIAL,
    TASK_DEVICE,
    TASK_HOLDS,
    TASK_LUN,
    TASK_RESPONSE,
    TASK_ROW,
    TASK_SUBTYPE,
    TASK_TARGET,
    TASK_TYPE,
    TWO,
    V_CORE,
    V_HANDLER_ID,
    V_HANDLER_QUEUE,
    V_HANDLER_SINCE,
    V_KICK_QUEUE,
    V_KICK_SLOT,
    V_WORK,
    W_COUNT,
    W_HEAD,
    W_KICKS,
    W_LIST,
    W_LUN_LIST,
    W_LUNS,
    W_MEMORY,
    W_NEXT,
    W_PHASE,
    W_QUEUE,
    W_QUEUE_LIST,
    W_QUEUES,
    W_ROOM,
    W_TASK,
    tag_base,
)
from sim.jit import kernel
from sim.layout import (
    AN_REQ_SIZE,
    AN_RESP_SIZE,
    T_TMF,
    TMF_ABORT_TASK,
    TMF_REQ_SIZE,
    TMF_RESP_SIZE,
)
from sim.memory import take_cycles, touch_load
from sim.ring.common import E_TOKEN, EMPTY, extra

u64 = np.uint64


@kernel
def step(mem, lines, st, tr, v, w, now):
    """One step of the error handler `w` on vCPU `v`."""
    phase = st[w + W_PHASE]
    if phase == SEND:
        return _send(mem, lines, st, tr, v, w, now)
    if phase == NOTIFY:
        return _tell(mem, lines, st, tr, v, w, now)
    if phase == POLL:
        return _poll(mem, lines, st, tr, v, w, now)
    return sleep(st, v)  # another task has woken it, which must wait


@kernel
def take(st, w):
    """The next thing that waits for the thread."""
    head = st[w + W_HEAD]
    st[w + W_HEAD] = wrapped(head + 1, st[w + W_ROOM])
    st[w + W_COUNT] -= 1
    return st[u64(st[w + W_LIST]) + u64(head)]


@kernel
def sleep(st, v):
    """The thread gives up the vCPU."""
    st[v + A_STATE] = RETURN
    return 0


@kernel
def notify(mem, lines, st, v, w, now):
    """virtqueue_kick_prepare(), barrier C, and the kick; the cycles that it takes."""
    g, core = u64(st[w + W_QUEUE]), st[v + V_CORE]
    wanted = vring.kick_prepare(mem, lines, st, u64(st[g + G_DRIVER]), core)
    delay = take_cycles(lines, core)
    if not wanted:
        return delay
    to_signal = st[K_KICK_EXIT] + st[K_KICK_SIGNAL]
    st[w + W_KICKS] += 1
    st[v + V_KICK_QUEUE] = np.int64(g)
    wake(st, st[v + V_KICK_SLOT], now + delay + to_signal)
    return delay + to_signal + st[K_KICK_RETURN]


# ------------------------------------------------------------------------------- error handler ----


@kernel
def _send(mem, lines, st, tr, v, w, now):
    """virtscsi_tmf(): the request of the next task into the control queue."""
    if st[w + W_COUNT] == 0:
        return sleep(st, v)
    g = u64(st[w + W_QUEUE])
    if now < st[g + G_LOCK_UNTIL]:
        return st[g + G_LOCK_UNTIL] - now
    k = u64(take(st, w))
    st[w + W_TASK] = np.int64(k)
    row, core = u64(st[k + TASK_ROW]), st[v + V_CORE]
    if st[k + TASK_HOLDS]:
        _hold_back(st, w)
    tr[row + record.R_SUBMIT] = now + 1
    _describe(mem, lines, st, core, g, k, st[w + W_MEMORY], _victim(st, w, k))
    table = st[g + G_TABLES]
    head = vring.add(mem, lines, st, u64(st[g + G_DRIVER]), core, u64(st[g + G_BUFFERS]), 0, table)
    delay = take_cycles(lines, core) + st[K_GUEST_SUBMIT]
    st[g + G_LOCK_UNTIL] = now + delay
    if head < 0:  # -EIO, the ring is broken: FAILED
        _end(st, tr, w, now + delay)
        return delay
    st[u64(st[g + G_ROW_OF_HEAD]) + u64(head)] = np.int64(row)
    tr[row + record.R_AVAIL] = now + 1
    tr[row + record.R_KICK] = now + 1
    tr[row + record.R_PUBLISHED_COUNT] += 1
    st[w + W_PHASE] = NOTIFY
    return delay


@kernel
def _describe(mem, lines, st, core, g, k, at, tag):
    """The request's bytes at `at`, the reply behind them as in struct virtio_scsi_cmd."""
    tmf = st[k + TASK_TYPE] == T_TMF
    target, lun = st[k + TASK_TARGET], st[k + TASK_LUN]
    if tmf:
        scsi.write_tmf(mem, lines, core, at, st[k + TASK_SUBTYPE], target, lun, tag)
    else:
        scsi.write_an(mem, lines, core, at, st[k + TASK_TYPE], target, lun, st[k + TASK_SUBTYPE])
    b = u64(st[g + G_BUFFERS])
    st[b + vring.B_OUT] = 1
    st[b + vring.B_IN] = 1
    entry = b + vring.B_ENTRIES
    st[entry] = at
    st[entry + ONE] = TMF_REQ_SIZE if tmf else AN_REQ_SIZE
    st[entry + TWO] = at + RESP_OFFSET
    st[entry + TWO + ONE] = TMF_RESP_SIZE if tmf else AN_RESP_SIZE


@kernel
def _victim(st, w, k):
    """Tag of the command that an ABORT TASK is about: the LUN's oldest; 0 if it has none."""
    found, oldest = np.int64(0), np.int64(NEVER)
    if st[k + TASK_TYPE] != T_TMF or st[k + TASK_SUBTYPE] != TMF_ABORT_TASK:
        return found
    for i in range(st[w + W_QUEUES]):
        q = u64(st[u64(st[w + W_QUEUE_LIST]) + u64(i)])
        d = u64(st[q + G_DRIVER])
        for head in range(st[q + G_NUM]):
            tag = st[extra(d, head) + E_TOKEN]
            if tag != EMPTY:
                t = tag_base(st, q, tag)
                if st[t + T_LUN] == st[k + TASK_DEVICE] and 0 < st[t + T_SERIAL] < oldest:
                    oldest = st[t + T_SERIAL]
                    found = st[q + G_HEADERS] + st[q + G_HEADER_STRIDE] * tag
    return found


@kernel
def _tell(mem, lines, st, tr, v, w, now):
    """The kick, if the host wants one; then wait_for_completion(), for ever."""
    kicks = st[w + W_KICKS]
    st[w + W_PHASE] = AWAIT
    st[v + A_STATE] = RETURN
    delay = notify(mem, lines, st, v, w, now)
    if st[w + W_KICKS] > kicks:
        left = now + delay - st[K_KICK_EXIT] - st[K_KICK_SIGNAL] - st[K_KICK_RETURN]
        tr[u64(st[u64(st[w + W_TASK]) + TASK_ROW]) + record.R_KICK] = left + 1
    return delay


@kernel
def _poll(mem, lines, st, tr, v, w, now):
    """Read the reply, then virtscsi_poll_requests(): virtscsi_vq_done() of the next queue."""
    if st[w + W_NEXT] == 0:
        k, core = u64(st[w + W_TASK]), st[v + V_CORE]
        size = TMF_RESP_SIZE if st[k + TASK_TYPE] == T_TMF else AN_RESP_SIZE
        at = st[w + W_MEMORY] + RESP_OFFSET
        touch_load(lines, core, at, size)
        st[k + TASK_RESPONSE] = np.int64(mem[u64(at + size - 1)])
    if st[w + W_NEXT] == st[w + W_QUEUES]:
        _end(st, tr, w, now)
        return 0
    q = u64(st[u64(st[w + W_QUEUE_LIST]) + u64(st[w + W_NEXT])])
    if now < st[q + G_LOCK_UNTIL]:
        return st[q + G_LOCK_UNTIL] - now
    st[w + W_NEXT] += 1
    st[v + V_WORK] = np.int64(w)
    st[v + V_HANDLER_QUEUE] = np.int64(q)
    st[v + V_HANDLER_SINCE] = now
    st[v + V_HANDLER_ID] = st[q + G_HANDLERS]
    vring.disable_cb(mem, lines, st, u64(st[q + G_DRIVER]), st[v + V_CORE])
    return guest_handler.drain(mem, lines, st, tr, v, now)


@kernel
def _end(st, tr, w, now):
    """The task is over; commands may go to the host again."""
    k = u64(st[w + W_TASK])
    row = u64(st[k + TASK_ROW])
    tr[row + record.R_COMPLETE] = now + 1
    tr[row + record.R_COMPLETED_COUNT] += 1
    st[w + W_PHASE] = SEND
    st[w + W_NEXT] = 0
    st[w + W_TASK] = -1
    if st[k + TASK_HOLDS]:
        for i in range(st[w + W_LUNS]):
            lun = u64(st[u64(st[w + W_LUN_LIST]) + u64(i)])
            st[lun + L_DEPTH] = st[lun + L_FULL_DEPTH]
            if st[lun + L_STARVED]:
                guest_complete.run_starved(st, lun, u64(0), now)


@kernel
def _hold_back(st, w):
    """scsi_host_in_recovery(): a LUN without depth takes no further command."""
    for i in range(st[w + W_LUNS]):
        st[u64(st[u64(st[w + W_LUN_LIST]) + u64(i)]) + L_DEPTH] = 0
