"""The guest: the virtio_scsi driver and the thread above it (sim.workload.app), on a vCPU.

One vCPU is one agent. It runs a job's thread (several take turns: sim.driver.sched) and, on the
same CPU, the interrupt handlers of the queues whose vectors point at it. The life of the thread and
of the handler, each state named for its atomic action (kernel function in brackets):

    thread     CALL -> ADD -> KICK -> ENTER -> ADD ... -> REAP -> ADD ... -> DONE
               io_submit | virtqueue_add_sgs | kick_prepare, notify | VM entry | io_getevents
    handler    IRQ -> DRAIN ... -> RECHECK (-> DRAIN) -> RETURN
               vring_interrupt, disable_cb, get_buf | get_buf, enable_cb_prepare | more_used | iret
    WORK       a kernel thread of the driver, which preempts the job's thread (sim.driver.work,
               sim.driver.events)
    asleep     WAIT_EVENTS (io_getevents, fsync) WAIT_TAG (blk_mq_get_tag)
               SLEEP (think time, rate, startdelay) DONE
    POLLED     io_uring with hipri: the thread looks at its queue again and again
    stopped    FROZEN: the VM is paused; what was left of the state is kept, vectors stay pending

What the kernel does without a full barrier in between is one action: the handler takes the first
buffer with the look that began it, and asks for the next interrupt with the look that found no
more. Between publishing and the kick decision (barrier C), and between asking for an interrupt and
looking again (barrier D), other agents may act.

An interrupt preempts CALL, ADD and REAP at once: what was left of their time is saved and paid
after RETURN. It does not preempt a section with interrupts off (KICK, ENTER, a handler).

A request that finds no tag puts the thread to sleep (blk_mq_get_tag); one that finds the ring full
or the LUN's queue depth used up waits in the hardware queue's dispatch list and is tried again
after the next completions (blk_mq_run_hw_queue).

This is the front. In sim.driver, submit has the thread, handler the handler, vectors what calls it,
complete what it sets going, sched the other threads, work and events kernel threads, fields the
words of all.
"""

# ruff: noqa: F405

import numpy as np

from sim.agents import A_BUSY, A_STATE, K_GUEST_SLICE, NEVER, move, wake
from sim.driver import events as guest_events
from sim.driver import handler as guest_handler
from sim.driver import sched as guest_sched
from sim.driver import submit as guest_submit
from sim.driver import vectors as guest_vectors
from sim.driver import work as guest_work
from sim.driver.complete import run_starved as run_starved
from sim.driver.complete import see_used as see_used
from sim.driver.complete import unfreeze as unfreeze
from sim.driver.fields import *  # noqa: F403
from sim.driver.vectors import give_work as give_work
from sim.driver.vectors import raise_vector as raise_vector
from sim.jit import kernel
from sim.workload import app
from sim.workload.job_fields import J_QUEUE_BASE


@kernel
def start_job(st, v, j, now):
    """Control plane: the thread of job `j` starts on vCPU `v` at `now`."""
    at = app.start(st, j, now)
    if st[v + V_THREADS] > 1:
        guest_sched.admit(st, v, j, at, now)
        return
    st[v + V_JOB] = np.int64(j)
    st[v + V_QUEUE] = st[j + J_QUEUE_BASE]
    if st[v + A_STATE] == FROZEN:
        st[v + V_FROZEN_STATE] = SLEEP
        st[v + V_FROZEN_LEFT] = at
        return
    st[v + A_STATE] = SLEEP if at > now else CALL
    st[v + V_RESUME_AT] = at
    wake(st, st[v + V_SLOT], at)


@kernel
def freeze(st, v, now):
    """Control plane, pause_all_vcpus(): the vCPU leaves the guest and runs nothing until thaw().

    False: it is in a kick's exit, which it finishes first; try again at its V_RESUME_AT.
    """
    if st[v + A_STATE] == ENTER and st[v + V_RESUME_AT] > now:
        return False
    _freeze(st, v, now)
    return True


@kernel
def _freeze(st, v, now):
    state, at = st[v + A_STATE], st[v + V_RESUME_AT]
    st[v + V_FROZEN_STATE] = state
    st[v + V_FROZEN_LEFT] = at if is_asleep(state) or at >= NEVER else max(at - now, 0)
    st[v + A_STATE] = FROZEN


@kernel
def leave_cpu(st, v, now):
    """sim.host_sched: the thread of the vCPU has no host CPU; FROZEN until enter_cpu()."""
    if st[v + A_STATE] == POLLED:
        st[v + A_BUSY] += now - st[v + V_SLEEPING_SINCE]
    _freeze(st, v, now)


@kernel
def enter_cpu(st, v, now):
    """And has one again: vectors that have come meanwhile are taken first."""
    thaw(st, v, now)
    if st[v + A_STATE] == POLLED:
        st[v + V_SLEEPING_SINCE] = now
        st[v + V_RESUME_AT] = now
        move(st, st[v + V_SLOT], now)


@kernel
def thaw(st, v, now):
    """Control plane, resume_all_vcpus(): go on where freeze() interrupted; vectors are taken first.

    The guest's clock has gone on meanwhile: a timer whose time has passed goes off at once.
    """
    state, left = st[v + V_FROZEN_STATE], st[v + V_FROZEN_LEFT]
    st[v + A_STATE] = state
    if left >= NEVER:
        st[v + V_RESUME_AT] = NEVER
    elif is_asleep(state):
        st[v + V_RESUME_AT] = max(left, now)
    else:
        st[v + V_RESUME_AT] = now + left
    if st[v + V_PENDING_COUNT] and is_open(st, v):
        guest_vectors.interrupt(st, v, now)
    if st[v + V_RESUME_AT] < NEVER:
        move(st, st[v + V_SLOT], st[v + V_RESUME_AT])
    if st[v + V_THREADS] > 1:
        guest_sched.look_again(st, v, now)


@kernel
def _work(mem, lines, st, tr, v, now):
    """One step of the kernel thread that has the vCPU."""
    w = u64(st[v + V_HANDLER_QUEUE])
    if st[w + W_KIND] == ERROR_HANDLER:
        return guest_work.step(mem, lines, st, tr, v, w, now)
    return guest_events.step(mem, lines, st, tr, v, w, now)


@kernel(inline=True)
def _act(mem, lines, st, tr, v, now):
    """The atomic action of the state that the vCPU is in; returns the cycles to the next one."""
    state = st[v + A_STATE]
    if state == DRAIN:
        return guest_handler.drain(mem, lines, st, tr, v, now)
    if state == ADD:
        return guest_submit.add(mem, lines, st, tr, v, now)
    if state == KICK:
        return guest_submit.kick(mem, lines, st, tr, v, now)
    if state == ENTER:
        return guest_submit.after_add(st, tr, v, now, 0, False)
    if state == CALL:
        if st[v + V_THREADS] > 1 and now - st[v + V_SLICE_SINCE] >= st[K_GUEST_SLICE]:
            delay = guest_sched.give_way(st, v, now, CALL)
            if delay >= 0:
                return delay
        return guest_submit.call(lines, st, tr, v, now)
    if state == REAP:
        return guest_submit.reap(st, tr, v, now)
    if state == IRQ:
        return guest_handler.irq(mem, lines, st, tr, v, now)
    if state == RECHECK:
        return guest_handler.recheck(mem, lines, st, tr, v, now)
    if state == RETURN:
        return guest_handler.leave(st, tr, v, now)
    if state == WORK:
        return _work(mem, lines, st, tr, v, now)
    if state == POLLED:
        return guest_handler.poll(mem, lines, st, tr, v, now)
    if state in (SLEEP, WAIT_EVENTS):  # its timer has gone off
        st[v + A_STATE] = CALL
        return 0
    return NEVER  # asleep until woken


@kernel(inline=True)
def step(mem, lines, st, tr, v, now):
    """One step of a vCPU: an action, and those behind it that take no time and concern nobody."""
    while True:
        delay = _act(mem, lines, st, tr, v, now)
        if st[v + V_THREADS] > 1 and guest_sched.wants_another(st, v):
            delay = guest_sched.reschedule(st, v, now, delay)
        if delay >= NEVER:
            st[v + V_RESUME_AT] = NEVER
        else:
            st[v + V_RESUME_AT] = now + delay
            if not is_asleep(st[v + A_STATE]):
                st[v + A_BUSY] += delay
        if st[v + V_PENDING_COUNT] and is_open(st, v):  # it came while interrupts were off
            guest_vectors.interrupt(st, v, now)
            break
        if delay != 0 or st[v + A_STATE] not in (CALL, REAP, ADD, ENTER):
            break
    return st[v + V_RESUME_AT]
