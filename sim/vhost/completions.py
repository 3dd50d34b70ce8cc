"""How a command goes back to the guest: tag, used entry, signal, dirty log (sim.backend)."""

import numpy as np

from sim import record, vring
from sim.agents import K_WORKER_LOG, wake, wrapped
from sim.jit import kernel
from sim.se_cmd import ACTIVE, IDLE, LEFT_BEHIND, X_NEXT, X_QUEUE, X_ROW, X_STATE, X_TAG
from sim.vhost import control_queue as vhost_control
from sim.vhost import inflight
from sim.vhost import log as vhost_log
from sim.vhost.fields import (
    B_DROPPED,
    COMPLETION_WORK,
    Q_COMPLETER,
    Q_COMPLETIONS,
    Q_DEVICE,
    Q_DROPPED,
    Q_IRQ_SLOT,
    Q_LOG,
    Q_LOG_ALL,
    Q_ORDER_HEAD,
    Q_ORDER_LIST,
    Q_ORDER_ROOM,
    Q_POLLED,
    Q_REGION,
    Q_TAG_FREE,
    Q_TAG_LIST,
    Q_UNTOLD,
    Q_VHOST,
    Q_WORKER,
    u64,
)
from sim.vhost.worker import count_out, queue_vq_work


@kernel
def carry(tr, row):
    """A request that skips the disk carries t_fetch forward."""
    fetched = tr[row + record.R_FETCH]
    tr[row + record.R_ISSUE] = fetched
    tr[row + record.R_DONE] = fetched
    tr[row + record.R_REPORT] = fetched


@kernel
def drop(st, tr, b, row):
    """No used entry: the slot leaks."""
    st[b + B_DROPPED] += 1
    tr[row + record.R_OUTCOME] = record.DROPPED


@kernel
def put_tag(st, q, x):
    """vhost_scsi_release_cmd_res(): the command is free for the next request."""
    st[u64(st[q + Q_TAG_LIST]) + u64(st[q + Q_TAG_FREE])] = st[x + X_TAG]
    st[q + Q_TAG_FREE] += 1


@kernel
def release(st, tr, x, now):
    """vhost_scsi_release_cmd(): push on the completion list, and queue its work."""
    q = u64(st[u64(st[x + X_QUEUE]) + Q_COMPLETER])
    if st[x + X_STATE] > ACTIVE:
        vhost_control.let_go(st, x)
    st[x + X_STATE] = IDLE
    st[x + X_NEXT] = st[q + Q_COMPLETIONS]
    st[q + Q_COMPLETIONS] = np.int64(x)
    if st[q + Q_WORKER] == 0:
        _drop_commands(st, tr, q)
    queue_vq_work(st, q, COMPLETION_WORK, now)


@kernel
def _drop_commands(st, tr, q):
    """vhost_scsi_drop_cmds(): nobody will answer what stands on the completion list."""
    while st[q + Q_COMPLETIONS] >= 0:
        x = u64(st[q + Q_COMPLETIONS])
        st[q + Q_COMPLETIONS] = st[x + X_NEXT]
        st[q + Q_DROPPED] += 1
        tr[u64(st[x + X_ROW]) + record.R_OUTCOME] = record.DROPPED
        if st[x + X_TAG] != LEFT_BEHIND:
            put_tag(st, q, x)
            count_out(st, x)


@kernel(inline=True)
def give_back(mem, lines, st, tr, q, core, head, length, row, now):
    """vhost_add_used(), and when each request became visible; vhost-scsi's length is always 0.

    Returns the cycles that the dirty log takes, if one is kept. In order it is not this request
    that becomes visible but those that were fetched first and waited for no other.
    """
    device = u64(st[q + Q_DEVICE])
    visible = vring.add_used(mem, lines, st, device, core, head, length)
    if st[q + Q_REGION]:
        inflight.track_used(st, q, head)
    if st[q + Q_POLLED]:
        wake(st, st[q + Q_IRQ_SLOT], now)
    if not st[device + vring.V_IN_ORDER]:
        tr[row + record.R_USED] = now + 1
        tr[row + record.R_USED_COUNT] += 1
        return log_used(st, q, device, visible)
    st[q + Q_UNTOLD] += visible
    for _ in range(visible):
        place = st[q + Q_ORDER_HEAD]
        oldest = u64(st[u64(st[q + Q_ORDER_LIST]) + u64(place)])
        tr[oldest + record.R_USED] = now + 1
        tr[oldest + record.R_USED_COUNT] += 1
        st[q + Q_ORDER_HEAD] = wrapped(place + 1, st[q + Q_ORDER_ROOM])
    return log_used(st, q, device, visible)


@kernel(inline=True)
def log_used(st, q, device, count):
    """What logging `count` used entries costs the worker."""
    if st[q + Q_LOG] == 0:
        return 0
    s = u64(st[q + Q_VHOST])
    return vhost_log.log_used(st, s, st[q + Q_LOG], device, count) * st[K_WORKER_LOG]


@kernel(inline=True)
def signal_wanted(mem, lines, st, q, core):
    """vhost_notify(); where order has held everything back there is nothing to tell."""
    device = u64(st[q + Q_DEVICE])
    if st[device + vring.V_IN_ORDER]:
        if st[q + Q_UNTOLD] == 0:
            return False
        st[q + Q_UNTOLD] = 0
    return vring.signal_needed(mem, lines, st, device, core)


@kernel
def log_command(st, q, x):
    """The buffers that were noted at the fetch, if LOG_ALL is still acked."""
    if not st[q + Q_LOG_ALL]:
        return 0
    return vhost_log.log_saved(st, u64(st[q + Q_VHOST]), x) * st[K_WORKER_LOG]
