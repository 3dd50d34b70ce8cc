"""A host CPU that several vhost workers share, and how long any of them takes to wake.

One thread runs at a time. The others that want to stand in a queue, first come first served; the
one that runs looks after each work whether somebody waits (cond_resched) and, having none left,
gives the CPU away (schedule). A switch has its price. This is the order of the kernel's scheduler
without its fairness: there are no time slices, and nobody is preempted.

A CPU that has been idle for long sleeps deeply, and takes longer to wake. The kernel's governor
guesses how long the CPU will be idle (drivers/cpuidle/governors); here it always guesses right.
"""

import numpy as np

from sim.agents import K_DEEP_IDLE_AFTER, K_WORKER_WAKE, K_WORKER_WAKE_DEEP, wrapped
from sim.jit import kernel

u64 = np.uint64

(
    C_RUNNING,  # base of the thread that has it, 0 for none
    C_IDLE_FROM,
    C_WAITING,  # threads that wait for it
    C_HEAD,
    C_ROOM,
    C_LIST,
    C_SWITCHES,
) = map(u64, range(7))
CPU_WORDS = 7


@kernel
def wake_latency(st, slept):
    """Cycles until a thread runs on a CPU that has slept so long."""
    return st[K_WORKER_WAKE_DEEP] if slept >= st[K_DEEP_IDLE_AFTER] else st[K_WORKER_WAKE]


@kernel
def enqueue(st, c, thread):
    """activate_task(): behind those that wait."""
    tail = wrapped(st[c + C_HEAD] + st[c + C_WAITING], st[c + C_ROOM])
    st[u64(st[c + C_LIST]) + u64(tail)] = np.int64(thread)
    st[c + C_WAITING] += 1


@kernel
def switch(st, c):
    """schedule(): the thread that has waited longest has the CPU now."""
    head = st[c + C_HEAD]
    thread = st[u64(st[c + C_LIST]) + u64(head)]
    st[c + C_HEAD] = wrapped(head + 1, st[c + C_ROOM])
    st[c + C_WAITING] -= 1
    st[c + C_RUNNING] = thread
    st[c + C_SWITCHES] += 1
    return u64(thread)
