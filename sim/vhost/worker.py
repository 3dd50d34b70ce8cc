"""A vhost worker's list of works, the CPU it runs on, and what lies around a work (sim.backend).

drivers/vhost/vhost.c (vhost_work_queue, vhost_run_work_list, vhost_dev_flush), and of
drivers/vhost/scsi.c the counts of what is in flight.
"""

import numpy as np

from sim import host_task, vring
from sim.agents import (
    A_BUSY,
    A_STATE,
    H_NOTICE,
    K_CONTEXT_SWITCH,
    N_INFLIGHT,
    N_MUTEX,
    NEVER,
    wake,
    wrapped,
)
from sim.jit import kernel
from sim.se_cmd import X_INFLIGHT
from sim.vhost import cpu as host_cpu
from sim.vhost import log as vhost_log
from sim.vhost import scsi as vhost_scsi
from sim.vhost.fields import (
    B_CPU,
    B_FLUSHES,
    B_IDLE_FROM,
    B_KILLED,
    B_SLOT,
    B_VHOST,
    B_WAKES,
    B_WORK_COUNT,
    B_WORK_HEAD,
    B_WORK_LIST,
    B_WORK_ROOM,
    FLUSH_WORK,
    FREE,
    KICK_WORK,
    ONE,
    Q_COMPLETION_QUEUED,
    Q_DEVICE,
    Q_INFLIGHT,
    Q_KICK_QUEUED,
    Q_LOG,
    Q_MUTEX,
    Q_VHOST,
    Q_WORKER,
    READY,
    SLEEP,
    TAKE,
    TWO,
    WANTED,
    YIELD,
    u64,
)


@kernel
def queue_vq_work(st, q, work, now):
    """vhost_vq_work_queue(): put a work on its worker's list, once, and wake the thread."""
    queue_at_cost(st, q, work, now, 0)


@kernel
def queue_at_cost(st, q, work, now, cost):
    """The same by a caller that takes `cost` cycles to wake a worker that sleeps; had it to?"""
    mark = q + (Q_KICK_QUEUED if work == KICK_WORK else Q_COMPLETION_QUEUED)
    if st[mark] or st[q + Q_WORKER] == 0:  # queued already, or its worker was killed
        return False
    st[mark] = 1
    return _push(st, u64(st[q + Q_WORKER]), np.int64(q), work, now, cost)


@kernel
def kill_worker(st, b):
    """Control, vhost_worker_killed(): SIGKILL has hit the process that the worker belongs to.

    Its queues have no worker any more: what is in its list still runs, later works are refused, and
    commands that LIO gives back are dropped without a used entry. Control holds the mutex of each
    of the queues. Returns how many queues it had. Not on Linux 6.1, whose workers are the kernel's.
    """
    s, detached = u64(st[b + B_VHOST]), 0
    st[b + B_KILLED] = 1
    for place in range(st[s + vhost_scsi.S_QUEUE_COUNT]):
        q = u64(st[u64(st[s + vhost_scsi.S_QUEUES]) + u64(place)])
        if st[q + Q_WORKER] == np.int64(b):
            st[q + Q_WORKER] = 0
            detached += 1
    return detached


@kernel
def queue_flush(st, b, now):
    """Control, vhost_dev_flush(): behind all works of a worker one that leaves N_FLUSHED.

    It has run when B_FLUSHED has come to what this returns.
    """
    st[b + B_FLUSHES] += 1
    _push(st, b, 0, FLUSH_WORK, now, 0)
    return st[b + B_FLUSHES]


@kernel
def _push(st, b, q, work, now, cost):
    """llist_add() to a worker's list, and vhost_task_wake(); does the thread sleep?"""
    tail = wrapped(st[b + B_WORK_HEAD] + st[b + B_WORK_COUNT], st[b + B_WORK_ROOM])
    entry = u64(st[b + B_WORK_LIST]) + TWO * u64(tail)
    st[entry] = q
    st[entry + ONE] = work
    st[b + B_WORK_COUNT] += 1
    if st[b + A_STATE] != SLEEP:
        return False
    if st[b + B_CPU]:
        _get_cpu(st, b, u64(st[b + B_CPU]), now + cost)
        return True
    st[b + A_STATE] = TAKE
    slept = now - st[b + B_IDLE_FROM]
    if slept <= 0:
        wake(st, st[b + B_SLOT], st[b + B_IDLE_FROM])
        return False
    st[b + B_WAKES] += 1
    usual = host_cpu.wake_latency(st, slept)
    wake(st, st[b + B_SLOT], now + cost + host_task.latency(st, st[b + B_SLOT], usual))
    return True


@kernel
def _get_cpu(st, b, c, now):
    """The thread is woken: on a CPU that it shares it may have to wait."""
    if st[c + host_cpu.C_RUNNING]:
        st[b + A_STATE] = READY
        host_cpu.enqueue(st, c, b)
        return
    st[c + host_cpu.C_RUNNING] = np.int64(b)
    st[b + A_STATE] = TAKE
    st[b + B_WAKES] += 1
    wake(st, st[b + B_SLOT], now + host_cpu.wake_latency(st, now - st[c + host_cpu.C_IDLE_FROM]))


@kernel
def yield_cpu(st, b, now):
    """cond_resched() after a work, schedule() after the last one; does this worker go on?"""
    c, more = u64(st[b + B_CPU]), st[b + B_WORK_COUNT] > 0
    if more and st[c + host_cpu.C_WAITING] == 0:
        return True
    st[b + A_STATE] = READY if more else SLEEP
    if more:
        host_cpu.enqueue(st, c, b)
    if st[c + host_cpu.C_WAITING]:
        other = host_cpu.switch(st, c)
        st[other + A_STATE] = TAKE
        st[other + A_BUSY] += st[K_CONTEXT_SWITCH]
        wake(st, st[other + B_SLOT], now + st[K_CONTEXT_SWITCH])
    else:
        st[c + host_cpu.C_RUNNING] = 0
        st[c + host_cpu.C_IDLE_FROM] = now
    return False


@kernel(inline=True)
def after_work(st, b, now, delay):
    """The work is done in `delay` cycles: take the next one then, or sleep."""
    if st[b + B_CPU]:
        st[b + A_STATE] = YIELD
        return delay
    st[b + A_STATE] = TAKE
    if st[b + B_WORK_COUNT]:
        return delay
    st[b + A_STATE] = SLEEP
    st[b + B_IDLE_FROM] = now + delay
    st[b + A_BUSY] += delay
    return NEVER


@kernel(inline=True)
def unlock(st, q):
    """mutex_unlock(&vq->mutex)."""
    if st[q + Q_MUTEX] == WANTED:
        st[H_NOTICE] |= N_MUTEX
    st[q + Q_MUTEX] = FREE


@kernel(inline=True)
def count_in(st, q, x):
    """vhost_scsi_get_inflight()."""
    count = u64(st[q + Q_INFLIGHT])
    st[count] += 1
    st[x + X_INFLIGHT] = np.int64(count)


@kernel(inline=True)
def count_out(st, x):
    """vhost_scsi_put_inflight(): 0 is reached only where a flush waits."""
    count = u64(st[x + X_INFLIGHT])
    st[count] -= 1
    if st[count] == 0:
        st[H_NOTICE] |= N_INFLIGHT


@kernel
def log_flags(st, q):
    """vhost_disable_notify() with a dirty log; with EVENT_IDX it writes nothing."""
    v = u64(st[q + Q_DEVICE])
    if not st[v + vring.V_EVENT_IDX]:
        vhost_log.log_notify(st, u64(st[q + Q_VHOST]), st[q + Q_LOG], v)
