"""Threads that share a host CPU: their words, and how long one of them takes to be woken.

A *task* is a record beside an agent that is a thread of the host: a vCPU's thread, a vhost worker,
a kworker of LIO, QEMU's IOThread. Only those have one that `host.shared_cpus` puts on one CPU with
others; where nobody has any, H_TASKS is 0. sim.host_sched is the scheduler.
"""

import numpy as np

from sim.agents import A_FIELDS, H_TASKS, wake
from sim.jit import kernel

u64 = np.uint64

# A task.
(
    K_CPU,  # base of its host CPU
    K_SLOT,  # of the agent that it belongs to
    K_KIND,
    K_VCPU,  # base of the vCPU whose thread it is, 0: another kind of thread
    K_STATE,
    K_OWED,  # cycles that it has to run before its agent acts next
    K_RUNTIME,  # cycles that it has had the CPU for, moved where it wakes (vruntime)
    K_LAG,  # eevdf: what it was short of its share when it went to sleep
    K_SINCE,  # when it began to wait for the CPU
    K_PAID,  # it found the CPU idle: its wake-up latency contains the switch
) = map(u64, range(10))
TASK_WORDS = 10
ASLEEP, READY, RUNNING = range(3)

# A host CPU that tasks share, an agent.
(
    CPU_SLOT,
    CPU_RUNNING,  # the task that has it, 0 none
    CPU_LAST,  # the one that had it last
    CPU_SINCE,  # its time has been counted up to here
    CPU_SLICE_FROM,
    CPU_FREE_AT,  # the task that has gone to sleep needs it until then
    CPU_TASKS,
    CPU_LIST,
    CPU_FLOOR,  # the least that a task that is awake has had so far (min_vruntime)
    CPU_EEVDF,  # 1: eevdf, 0: cfs, with the next two
    CPU_BONUS,  # what a sleeper is put ahead by
    CPU_MARGIN,  # by how much one that wakes must be behind the running task to preempt it
    CPU_SWITCHES,
    CPU_PREEMPTIONS,  # of them, those that a running task did not ask for
    CPU_WAITED,  # cycles that tasks have waited for it
) = map(u64, range(A_FIELDS, A_FIELDS + 15))
CPU_WORDS = A_FIELDS + 15
CPU_STATES = ('decide',)

# kernel/sched/fair.c before Linux 6.6: 6 ms and 1 ms, times 1 + log2 of the CPUs (8 at most).
CFS_LATENCY_NS, CFS_GRANULARITY_NS = 24_000_000, 4_000_000


@kernel
def task_of(st, slot):
    """Base of the task of an agent, 0: it has a CPU of its own. There are tasks."""
    return u64(st[u64(st[H_TASKS]) + u64(slot)])


@kernel
def latency(st, slot, usual):
    """Cycles from the wake-up of an agent's thread until it asks for its CPU.

    `usual` on a CPU that is idle; none on one that runs another thread, which needs no interrupt
    and leaves no idle state: the switch comes when the scheduler decides for it.
    """
    if st[H_TASKS] == 0:
        return usual
    t = task_of(st, slot)
    if t == u64(0):
        return usual
    runs = st[u64(st[t + K_CPU]) + CPU_RUNNING] != 0
    st[t + K_PAID] = 0 if runs else 1
    return np.int64(0) if runs else usual


@kernel
def wake_to_work(st, slot, now, usual, price):
    """Wake an agent's thread, which acts after it has run for `price` cycles."""
    if st[H_TASKS]:
        t = task_of(st, slot)
        if t:
            st[t + K_OWED] = price
            wake(st, slot, now + latency(st, slot, usual))
            return
    wake(st, slot, now + usual + price)
