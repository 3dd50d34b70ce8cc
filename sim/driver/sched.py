"""Several threads on one vCPU: the guest's scheduler.

A vCPU has one thread in hand (V_JOB, with its state in A_STATE and the V_ words); the others are
kept with their jobs. When the thread in hand sleeps, the one that has been ready longest is next;
where none is ready, that whose timer goes off first is taken in hand, so that the vCPU wakes for
it. A thread that does not sleep gives way after a slice, at its next system call or turn of
polling.

    asleep -> ready -> in hand -> asleep          wake_other | reschedule | sleep
              ready <- in hand                    give_way

Simplified: a thread that wakes does not preempt, and no thread moves to another vCPU. A vCPU with
one thread has none of this.
"""

import numpy as np

from sim.agents import A_BUSY, A_STATE, K_GUEST_SWITCH, K_IRQ_INJECT, NEVER, move
from sim.driver.fields import (
    CALL,
    POLLED,
    SLEEP,
    V_IN_HANDLER,
    V_JOB,
    V_PLUG_LEFT,
    V_PLUGGED,
    V_QUEUE,
    V_RESUME_AT,
    V_SAVED_LEFT,
    V_SAVED_STATE,
    V_SAVED_TAG,
    V_SLEEPING_SINCE,
    V_SLICE_SINCE,
    V_SLOT,
    V_SUBMITTING,
    V_SWITCHES,
    V_TAG,
    V_THREAD_LIST,
    V_THREADS,
    is_asleep,
    job_of,
)
from sim.jit import kernel
from sim.workload.job_fields import (
    J_AT,
    J_PLUG_LEFT,
    J_PLUGGED,
    J_QUEUE_BASE,
    J_READY_SINCE,
    J_STATE,
    J_SUBMITTING,
    J_TAG,
)

u64 = np.uint64


@kernel
def is_idle(state):
    """Has the thread in hand nothing to do? One that polls has."""
    return is_asleep(state) and state != POLLED


@kernel
def wants_another(st, v):
    """Has the thread in hand just gone to sleep, or is it asleep after a handler?"""
    return not st[v + V_IN_HANDLER] and is_idle(st[v + A_STATE])


@kernel
def _keep(st, v, state, at, ready_since, tag):
    """The thread in hand goes back to its job: `at` is when its timer ends its sleep."""
    if st[v + V_JOB] == 0:  # the vCPU has had no thread yet
        return
    j = job_of(st, v)
    st[j + J_STATE] = state
    st[j + J_AT] = at
    st[j + J_READY_SINCE] = ready_since
    st[j + J_SUBMITTING] = st[v + V_SUBMITTING]
    st[j + J_PLUGGED] = st[v + V_PLUGGED]
    st[j + J_PLUG_LEFT] = st[v + V_PLUG_LEFT]
    st[j + J_TAG] = tag


@kernel
def take_in_hand(st, v, j, now):
    """context_switch(): thread `j` is in hand; its state is the caller's to set."""
    st[v + V_JOB] = np.int64(j)
    st[v + V_QUEUE] = st[j + J_QUEUE_BASE]
    st[v + V_SUBMITTING] = st[j + J_SUBMITTING]
    st[v + V_PLUGGED] = st[j + J_PLUGGED]
    st[v + V_PLUG_LEFT] = st[j + J_PLUG_LEFT]
    st[v + V_TAG] = st[j + J_TAG]
    st[v + V_SLICE_SINCE] = now
    st[v + V_SWITCHES] += 1
    st[j + J_READY_SINCE] = NEVER


@kernel
def _next_ready(st, v, now):
    """The thread not in hand that has been ready longest; 0 if none is."""
    found, oldest = np.int64(0), np.int64(NEVER)
    for i in range(st[v + V_THREADS]):
        j = u64(st[u64(st[v + V_THREAD_LIST]) + u64(i)])
        if np.int64(j) == st[v + V_JOB]:
            continue
        if st[j + J_READY_SINCE] >= NEVER and st[j + J_AT] <= now:  # its timer has gone off
            st[j + J_READY_SINCE] = st[j + J_AT]
            st[j + J_STATE] = CALL
            st[j + J_AT] = NEVER
        if st[j + J_READY_SINCE] < oldest:
            oldest = st[j + J_READY_SINCE]
            found = np.int64(j)
    return found


@kernel
def _next_timer(st, v, at):
    """The thread not in hand whose timer goes off first, before `at`; 0 if there is none."""
    found = np.int64(0)
    for i in range(st[v + V_THREADS]):
        j = u64(st[u64(st[v + V_THREAD_LIST]) + u64(i)])
        if np.int64(j) != st[v + V_JOB] and st[j + J_AT] < at:
            at = st[j + J_AT]
            found = np.int64(j)
    return found


@kernel
def reschedule(st, v, now, delay):
    """schedule(): the thread in hand sleeps, `delay` cycles or for ever. Cycles to the next act."""
    at = now + delay if delay < NEVER else NEVER
    state = st[v + A_STATE]
    following = _next_ready(st, v, now)
    if following:
        _keep(st, v, state, at, NEVER, st[v + V_TAG])
        take_in_hand(st, v, u64(following), now)
        st[v + A_STATE] = st[u64(following) + J_STATE]
        return st[K_GUEST_SWITCH]
    following = _next_timer(st, v, at)
    if following:
        _keep(st, v, state, at, NEVER, st[v + V_TAG])
        take_in_hand(st, v, u64(following), now)
        st[v + A_STATE] = st[u64(following) + J_STATE]
        st[v + V_SLEEPING_SINCE] = now
        return st[u64(following) + J_AT] - now
    return delay


@kernel
def give_way(st, v, now, state):
    """The slice is over: the next ready thread, if there is one; else -1. Cycles to its first act.

    `state` is where the thread in hand goes on later.
    """
    following = _next_ready(st, v, now)
    st[v + V_SLICE_SINCE] = now
    if following == 0:
        return np.int64(-1)
    _keep(st, v, state, NEVER, now, st[v + V_TAG])
    take_in_hand(st, v, u64(following), now)
    st[v + A_STATE] = st[u64(following) + J_STATE]
    return st[K_GUEST_SWITCH]


@kernel
def wake_other(st, v, j, asleep, runs, now):
    """try_to_wake_up() of a thread that is not in hand: it is ready; an idle vCPU takes it."""
    if st[j + J_STATE] != asleep or st[j + J_READY_SINCE] < NEVER:
        return
    st[j + J_STATE] = runs
    st[j + J_AT] = NEVER
    st[j + J_READY_SINCE] = now
    if st[v + V_IN_HANDLER]:
        if is_idle(st[v + V_SAVED_STATE]):
            left, tag = st[v + V_SAVED_LEFT], st[v + V_SAVED_TAG]
            working = st[v + V_TAG]
            _keep(st, v, st[v + V_SAVED_STATE], left, NEVER, tag)
            take_in_hand(st, v, j, now)
            st[v + V_SAVED_TAG] = st[v + V_TAG]
            st[v + V_TAG] = working
            st[v + V_SAVED_STATE] = runs
            st[v + V_SAVED_LEFT] = st[K_GUEST_SWITCH]
            st[v + A_BUSY] += st[K_GUEST_SWITCH]
    elif is_idle(st[v + A_STATE]):
        _keep(st, v, st[v + A_STATE], st[v + V_RESUME_AT], NEVER, st[v + V_TAG])
        take_in_hand(st, v, j, now)
        st[v + A_STATE] = runs
        st[v + A_BUSY] += st[K_GUEST_SWITCH]
        st[v + V_RESUME_AT] = now + st[K_IRQ_INJECT] + st[K_GUEST_SWITCH]
        move(st, st[v + V_SLOT], st[v + V_RESUME_AT])


@kernel
def admit(st, v, j, at, now):
    """A job's thread begins at `at` on a vCPU that has others."""
    st[j + J_STATE] = SLEEP if at > now else CALL
    st[j + J_AT] = at if at > now else NEVER
    st[j + J_READY_SINCE] = NEVER if at > now else now
    look_again(st, v, now)


@kernel
def look_again(st, v, now):
    """Control: threads may have become ready while nobody looked."""
    if st[v + V_IN_HANDLER] or not is_idle(st[v + A_STATE]):
        return
    left = st[v + V_RESUME_AT]
    delay = reschedule(st, v, now, left - now if left < NEVER else left)
    if delay < NEVER:
        st[v + V_RESUME_AT] = now + delay
        move(st, st[v + V_SLOT], now + delay)
