"""The scheduler of a host CPU that several threads share (sim.host_task): fair, with time slices.

One task has the CPU at a time. The steps of the others wait: an agent whose time has come while its
task has not the CPU is ready (`waits`), one that goes to sleep gives the CPU away (`stepped`).
What lies between two steps of an agent is time that it needs the CPU for, so a task that is
preempted keeps what is left of it. The CPU decides as an agent of its own, behind all threads:

    task       ASLEEP -> READY -> RUNNING -> ASLEEP          wake-up | schedule() | sleep
                         READY <- RUNNING                    preempted

kernel/sched/fair.c, simplified. The ready task that has had the CPU least is next. A slice ends a
running task's turn if another has had less. When a task wakes, the running one may be preempted:

    cfs     Linux before 6.6: if it has had the CPU for longer than the next one by more than
            wakeup_gran(); a sleeper is put up to half of sched_latency ahead (place_entity)
    eevdf   if it has had more than the mean of all that are awake (entity_eligible); else it keeps
            the CPU until its slice ends (RUN_TO_PARITY). A task wakes with what it was short of its
            share when it slept (its lag), never with what it was over it (DELAY_DEQUEUE)

All weights are equal, no task moves to another CPU, and interrupts of the host take no time.
"""

import numpy as np

from sim import agents, guest, target
from sim.agents import (
    A_BUSY,
    A_STATE,
    H_DUE,
    IDLE,
    K_CONTEXT_SWITCH,
    K_HOST_SLICE,
    NEVER,
    SLOT_BITS,
    move,
    rest,
    wake,
)
from sim.host_task import (
    ASLEEP,
    CPU_BONUS,
    CPU_EEVDF,
    CPU_FLOOR,
    CPU_FREE_AT,
    CPU_LAST,
    CPU_LIST,
    CPU_MARGIN,
    CPU_PREEMPTIONS,
    CPU_RUNNING,
    CPU_SINCE,
    CPU_SLICE_FROM,
    CPU_SLOT,
    CPU_SWITCHES,
    CPU_TASKS,
    CPU_WAITED,
    K_CPU,
    K_KIND,
    K_LAG,
    K_OWED,
    K_PAID,
    K_RUNTIME,
    K_SINCE,
    K_SLOT,
    K_STATE,
    K_VCPU,
    READY,
    RUNNING,
    task_of,
)
from sim.jit import kernel
from sim.user import aio_poll
from sim.user.fields import T_ASLEEP, T_IDLE_FROM
from sim.vhost.fields import B_IDLE_FROM, SLEEP

u64 = np.uint64


@kernel
def waits(st, slot, now):
    """An agent's time has come: has it to wait for its CPU? Then it asks for it."""
    t = task_of(st, slot)
    if t == u64(0) or st[t + K_STATE] == RUNNING:
        return False
    if st[t + K_STATE] == READY:  # it polled, and there is something to find
        st[t + K_OWED] = 0
        return True
    c = u64(st[t + K_CPU])
    _place(st, c, t, now)
    st[t + K_STATE] = READY
    st[t + K_SINCE] = now
    if st[t + K_VCPU]:
        guest.leave_cpu(st, u64(st[t + K_VCPU]), now)
    wake(st, st[c + CPU_SLOT], now)
    return True


@kernel
def stepped(st, slot, kind, base, now):
    """An agent has acted: where its thread sleeps now, the CPU is free as soon as it is done."""
    t = task_of(st, slot)
    if t == u64(0):
        return
    until = now
    if kind == agents.VCPU:
        if not guest.is_halted(st, base):
            return
    elif kind == agents.WORKER:
        if st[base + A_STATE] != SLEEP:
            return
        until = max(now, st[base + B_IDLE_FROM])
    elif kind == agents.IOTHREAD:
        if not st[base + T_ASLEEP]:
            return
        until = max(now, st[base + T_IDLE_FROM])
    elif st[base + A_STATE] == target.RUN:
        return
    c = u64(st[t + K_CPU])
    _count(st, c, until)
    total, awake, _ = _awake(st, c)
    st[t + K_LAG] = min(max(total // awake - st[t + K_RUNTIME], 0), 2 * st[K_HOST_SLICE])
    st[t + K_STATE] = ASLEEP
    st[c + CPU_RUNNING] = 0
    st[c + CPU_FREE_AT] = until
    wake(st, st[c + CPU_SLOT], until)


@kernel
def _count(st, c, until):
    """update_curr(): the running task has had the CPU until now."""
    t = u64(st[c + CPU_RUNNING])
    st[t + K_RUNTIME] += until - st[c + CPU_SINCE]
    st[c + CPU_SINCE] = until


@kernel
def _awake(st, c):
    """Of the tasks that want the CPU or have it: the sum of their times, how many, the least."""
    total, awake, least = np.int64(0), 0, np.int64(NEVER)
    for place in range(st[c + CPU_TASKS]):
        t = u64(st[u64(st[c + CPU_LIST]) + u64(place)])
        if st[t + K_STATE] != ASLEEP:
            total += st[t + K_RUNTIME]
            awake += 1
            least = min(least, st[t + K_RUNTIME])
    return total, awake, least


@kernel
def _place(st, c, t, now):
    """place_entity(): where task `t`, which wakes, stands among those that are awake."""
    if st[c + CPU_RUNNING]:
        _count(st, c, now)
    total, awake, least = _awake(st, c)
    if awake:
        st[c + CPU_FLOOR] = max(st[c + CPU_FLOOR], least)
    if not st[c + CPU_EEVDF]:
        st[t + K_RUNTIME] = max(st[t + K_RUNTIME], st[c + CPU_FLOOR] - st[c + CPU_BONUS])
    elif awake:  # so that it has its lag from the mean that it is a part of
        st[t + K_RUNTIME] = total // awake - st[t + K_LAG] * (awake + 1) // awake
    else:
        st[t + K_RUNTIME] = max(st[t + K_RUNTIME], st[c + CPU_FLOOR])


@kernel
def _best(st, c):
    """pick_next_task(): the ready task that has had the CPU least, the oldest of those; 0 none."""
    found, least, since = u64(0), np.int64(0), np.int64(0)
    for place in range(st[c + CPU_TASKS]):
        t = u64(st[u64(st[c + CPU_LIST]) + u64(place)])
        if st[t + K_STATE] != READY:
            continue
        runtime, ready = st[t + K_RUNTIME], st[t + K_SINCE]
        if found == u64(0) or runtime < least or (runtime == least and ready < since):
            found, least, since = t, runtime, ready
    return found


@kernel
def _put_back(st, c, now):
    """The running task is preempted: it keeps what is left of its time."""
    t = u64(st[c + CPU_RUNNING])
    slot = st[t + K_SLOT]
    entry = st[u64(st[H_DUE]) + u64(slot)]
    st[t + K_OWED] = max((entry >> SLOT_BITS) - now, 0) if entry < IDLE else 0
    if st[t + K_VCPU]:
        guest.leave_cpu(st, u64(st[t + K_VCPU]), now)
    elif st[t + K_KIND] == agents.IOTHREAD:
        i = u64(st[u64(st[agents.H_BASE]) + u64(slot)])
        if st[i + A_STATE] == aio_poll.WAIT_POLLING:
            st[t + K_OWED] = 0  # it looks at once, and at the clock
    rest(st, slot)
    st[t + K_STATE] = READY
    st[t + K_SINCE] = now
    st[t + K_PAID] = 0
    st[c + CPU_PREEMPTIONS] += 1


@kernel
def _switch_to(st, c, t, now):
    """context_switch()."""
    start = now
    if st[c + CPU_LAST] != np.int64(t):
        st[c + CPU_SWITCHES] += 1
        if not st[t + K_PAID]:
            start += st[K_CONTEXT_SWITCH]
    st[c + A_BUSY] += start - now
    st[c + CPU_RUNNING] = np.int64(t)
    st[c + CPU_LAST] = np.int64(t)
    st[c + CPU_SINCE] = now
    st[c + CPU_SLICE_FROM] = now
    st[c + CPU_FLOOR] = max(st[c + CPU_FLOOR], st[t + K_RUNTIME])
    st[c + CPU_WAITED] += now - st[t + K_SINCE]
    st[t + K_STATE] = RUNNING
    if st[t + K_VCPU]:
        guest.enter_cpu(st, u64(st[t + K_VCPU]), start)
    else:
        move(st, st[t + K_SLOT], start + st[t + K_OWED])
    st[t + K_OWED] = 0


@kernel
def _keeps(st, c, best, now):
    """Does the running task go on, though `best` is ready?"""
    t = u64(st[c + CPU_RUNNING])
    _count(st, c, now)
    ahead = st[t + K_RUNTIME] - st[best + K_RUNTIME]
    if st[c + CPU_EEVDF]:
        total, awake, _ = _awake(st, c)
        if st[t + K_RUNTIME] > total // awake:
            return False
    elif ahead > st[c + CPU_MARGIN]:
        return False
    if now - st[c + CPU_SLICE_FROM] < st[K_HOST_SLICE]:
        return True
    st[c + CPU_SLICE_FROM] = now
    return ahead < 0


@kernel
def cpu_step(st, c, now):
    """schedule(): somebody is ready, the CPU is free, or a slice is over."""
    if now < st[c + CPU_FREE_AT]:
        return st[c + CPU_FREE_AT]
    best = _best(st, c)
    if best == u64(0):
        return NEVER
    if not st[c + CPU_RUNNING]:
        _switch_to(st, c, best, now)
    elif not _keeps(st, c, best, now):
        _put_back(st, c, now)
        _switch_to(st, c, best, now)
    return st[c + CPU_SLICE_FROM] + st[K_HOST_SLICE] if _best(st, c) else NEVER
