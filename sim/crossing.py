"""The two crossings between guest and host, an agent for each direction.

    kick   one per vCPU: VM exit, ioeventfd, vhost_poll_wakeup(); ends in the worker's list
    notifier   the same where the ioeventfd is a file descriptor of user space: QEMU's IOThread
           watches it, of SPDK's reactor nobody reads it
    irq    one per vector: eventfd_signal(call), irqfd, injection (and the wake-up of a vCPU that
           the host has put to sleep); ends in the vCPU

While an interrupt is on its way further signals of the same vector merge with it.
"""

import numpy as np

from sim import backend, guest
from sim.agents import (
    A_BUSY,
    A_FIELDS,
    A_STATE,
    K_KICK_WAKEUP,
    K_VCPU_HALT_POLL,
    K_VCPU_HALT_POLL_START,
    K_VCPU_HALT_WAKE,
    NEVER,
    move,
)
from sim.host_task import latency
from sim.jit import kernel
from sim.user import aio_poll

u64 = np.uint64

KICK_STATES = ('fly',)  # of a notifier as well
IRQ_STATES = ('fly', 'wake')

(
    C_VCPU,  # kick: base of the vCPU whose crossing it is
    C_HOST_QUEUES,  # kick: table of the host queues' bases, by queue index
    C_GUEST_QUEUE,  # irq: base of the queue whose vector it is
    C_WAKES,  # irq: times the host had to wake the vCPU
    C_MERGED,  # irq: the vector was pending already
    C_DELIVERED,
) = map(u64, range(A_FIELDS, A_FIELDS + 6))
CROSSING_WORDS = A_FIELDS + 6

FLY, WAKE = 0, 1

GROW = 2  # kvm.halt_poll_ns_grow


@kernel(inline=True)
def kick_step(st, c, now):
    """The ioeventfd fires, in the context of the vCPU thread, which wakes a worker that sleeps."""
    g = u64(st[u64(st[c + C_VCPU]) + guest.V_KICK_QUEUE])
    q = u64(st[u64(st[c + C_HOST_QUEUES]) + u64(st[g + guest.G_INDEX])])
    cost = st[K_KICK_WAKEUP]
    if backend.queue_at_cost(st, q, backend.KICK_WORK, now, cost) and cost:
        _wakes(st, u64(st[c + C_VCPU]), now, cost)
    st[c + C_DELIVERED] += 1
    return NEVER


@kernel
def _wakes(st, v, now, cost):
    """try_to_wake_up() keeps the vCPU out of the guest for a while."""
    if st[v + A_STATE] == guest.ENTER and st[v + guest.V_RESUME_AT] > now:
        st[v + guest.V_RESUME_AT] += cost
        st[v + A_BUSY] += cost
        move(st, st[v + guest.V_SLOT], st[v + guest.V_RESUME_AT])


@kernel
def _halt_ends(st, v, now):
    """kvm_vcpu_halt(): has it slept, or was it polled for until now? Adapts how long it is polled.

    A halt that a longer poll (up to kvm.halt_poll_ns) would have caught doubles the time, from
    halt_poll_ns_grow_start on; one beyond that divides it, below the start to nothing.
    """
    halted, window = now - st[v + guest.V_SLEEPING_SINCE], st[v + guest.V_HALT_POLL]
    most, start = st[K_VCPU_HALT_POLL], st[K_VCPU_HALT_POLL_START]
    if halted <= window:
        return False
    if halted < most:
        st[v + guest.V_HALT_POLL] = min(max(GROW * window, start), most)
    elif halted > most and window:
        shrink = st[v + guest.V_HALT_SHRINK]
        window = window // shrink if shrink else 0
        st[v + guest.V_HALT_POLL] = window if window >= start else 0
    return True


@kernel
def notifier_step(st, c, now):
    """The same where a thread of user space has the eventfd, if it watches it at all."""
    g = u64(st[u64(st[c + C_VCPU]) + guest.V_KICK_QUEUE])
    q = u64(st[u64(st[c + C_HOST_QUEUES]) + u64(st[g + guest.G_INDEX])])
    cost = st[K_KICK_WAKEUP]
    if st[q + backend.Q_WORKER] and aio_poll.kick(st, q, now, cost) and cost:
        _wakes(st, u64(st[c + C_VCPU]), now, cost)
    st[c + C_DELIVERED] += 1
    return NEVER


@kernel(inline=True)
def irq_step(st, c, now):
    """The vector arrives. Halt polling keeps a vCPU awake for a while after HLT; later the host
    must wake its thread first (kvm_vcpu_block). Of a polled queue, which has no vector, the agent
    brings word that the used ring has moved.
    """
    g = u64(st[c + C_GUEST_QUEUE])
    if st[g + guest.G_POLLED]:
        guest.see_used(st, g, now)
        return NEVER
    v = u64(st[g + guest.G_VCPU])
    if st[c + A_STATE] == FLY and guest.is_halted(st, v) and _halt_ends(st, v, now):
        st[c + A_STATE] = WAKE
        st[c + C_WAKES] += 1
        return now + latency(st, st[v + guest.V_SLOT], st[K_VCPU_HALT_WAKE])
    st[c + A_STATE] = FLY
    if guest.raise_vector(st, g, now):
        st[c + C_DELIVERED] += 1
    else:
        st[c + C_MERGED] += 1
    return NEVER
