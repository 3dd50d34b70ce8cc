"""The compiled loop that performs the steps of all agents, for both engines (sim.engine)."""

import numpy as np

from sim import agents, backend, crossing, guest, host_sched, target
from sim.agents import (
    A_STATE,
    A_STEPS,
    CLOCK_END,
    H_BASE,
    H_DUE,
    H_KIND,
    H_NOTICE,
    H_NOW,
    H_SLOTS,
    H_TASKS,
    H_WOKEN,
    H_WOKEN_COUNT,
    IDLE,
    NEVER,
    SLOT_BITS,
    SLOT_MASK,
    least_of_eight,
    lower,
    note_step,
    renew,
    top_of_calendar,
)
from sim.jit import kernel
from sim.lio import server
from sim.lio.command import MEDIUM
from sim.memory import bare
from sim.user import iothread, reactor

u64 = np.uint64

NOBODY = -1  # in place of a kind: the agent waits for its host CPU


@kernel(nogil=True)
def drive(memory, ownership, state, trace, blocks, alone, limit):
    """Perform steps in the calendar's order, those before cycle `limit`.

    `alone` < 0: of all agents, up to a step that leaves a notice. Otherwise of agent `alone`, as
    long as no agent that its steps have woken comes first; the caller knows that it is due now, and
    finds in the list of woken agents whose entries have changed.

    Returns the calendar's next entry (of agent `alone`); IDLE when there is none. One function for
    both engines, so that the model is compiled once.
    """
    mem, lines, st = bare(memory), bare(ownership), bare(state)
    tr, media = bare(trace), bare(blocks)
    entries, woken = u64(st[H_DUE]), u64(st[H_WOKEN])
    kinds, bases, tasks = u64(st[H_KIND]), u64(st[H_BASE]), st[H_TASKS]
    top = top_of_calendar(st)
    st[H_WOKEN_COUNT] = 0
    if alone < 0:
        for slot in range(st[H_SLOTS]):  # control may have changed any entry
            renew(st, slot)
        key = least_of_eight(st, top)
    else:
        key = st[entries + u64(alone)]
    room = 60  # the list of woken agents has room for 64 entries per slot
    while key >> SLOT_BITS < limit and st[H_NOTICE] == 0 and room > 0:
        slot, now = key & SLOT_MASK, key >> SLOT_BITS
        entry, base, kind = entries + u64(slot), u64(st[bases + u64(slot)]), st[kinds + u64(slot)]
        st[entry] = IDLE
        st[H_NOW] = now
        if tasks and host_sched.waits(st, slot, now):
            kind = NOBODY
        else:
            note_step(st, slot, now, st[base + A_STATE])
            st[base + A_STEPS] += 1
        if kind == agents.VCPU:
            due = guest.step(mem, lines, st, tr, base, now)
        elif kind == agents.WORKER:
            command = backend.executes(st, base)
            if command:
                course = server.execute(mem, st, u64(command))
                backend.submit_directly(st, tr, base, course, now)
            due = backend.worker_step(mem, lines, st, tr, base, now)
        elif kind == agents.DISK:
            due = target.disk_step(mem, st, tr, media, base, now)
        elif kind == agents.LIO_SUBMIT:
            command = target.executes(st, base)
            course = server.execute(mem, st, u64(command)) if command else MEDIUM
            due = backend.submit_step(st, tr, base, course, now)
        elif kind == agents.LIO_COMPLETE:
            due = backend.complete_step(st, tr, base, now)
        elif kind == agents.KICK:
            due = crossing.kick_step(st, base, now)
        elif kind == agents.IRQ:
            due = crossing.irq_step(st, base, now)
        elif kind == agents.NOTIFIER:
            due = crossing.notifier_step(st, base, now)
        elif kind == agents.REACTOR:
            command = reactor.executes(st, base)
            course = server.execute(mem, st, u64(command)) if command else MEDIUM
            due = reactor.step(mem, lines, st, tr, base, course, now)
        elif kind == agents.IOTHREAD:
            command = iothread.executes(st, base)
            course = server.execute(mem, st, u64(command)) if command else MEDIUM
            due = iothread.step(mem, lines, st, tr, base, course, now)
        else:
            due = host_sched.cpu_step(st, base, now) if kind == agents.HOST_CPU else NEVER
        if tasks and kind != NOBODY:
            host_sched.stepped(st, slot, kind, base, now)
        key = st[entry]  # a step may have woken its own agent
        if due < NEVER:
            key = min(key, (min(due, CLOCK_END) << SLOT_BITS) | slot)
            st[entry] = key
        if alone < 0:
            renew(st, slot)
            for place in range(st[H_WOKEN_COUNT]):
                lower(st, st[woken + u64(place)])  # what moved to later has done so by itself
            st[H_WOKEN_COUNT] = 0
            key = least_of_eight(st, top)
        elif _somebody_is_first(st, slot, key):
            break
        else:
            room -= 1
    return key


@kernel(inline=True)
def _somebody_is_first(st, slot, key):
    """Has an agent been woken that comes before `key`?"""
    woken, due = u64(st[H_WOKEN]), u64(st[H_DUE])
    for place in range(st[H_WOKEN_COUNT]):
        other = st[woken + u64(place)]
        if other != slot and st[due + u64(other)] < key:
            return True
    return False
