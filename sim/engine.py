"""The scheduler: SimPy drives the agents' step functions.

Every agent is a SimPy process that waits for its time or its wake event and calls its compiled
step. SimPy owns time and the control plane; at one time control comes before agents (SimPy's URGENT
and NORMAL priorities are below every agent's) and agents go in slot order (priority 2 + slot).

A process keeps the floor while its own agent is next anyway: `advance` performs steps until another
agent or another SimPy event comes due, then the process goes back to waiting. Nobody can tell the
difference, and most steps cost no SimPy event.
"""

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import simpy
from simpy.core import SimTime
from simpy.events import EventPriority

from sim import agents, backend, crossing, guest, target
from sim.agents import (
    A_STATE,
    A_STEPS,
    H_BASE,
    H_DUE,
    H_KIND,
    H_NOTICE,
    H_NOW,
    H_WOKEN,
    H_WOKEN_COUNT,
    N_TRACE_FULL,
    NEVER,
    note_step,
)
from sim.jit import kernel
from sim.machine import Machine

u64 = np.uint64

AGENT_PRIORITY = 2  # behind simpy.events.URGENT (0) and NORMAL (1): control before agents


@kernel
def step(mem, lines, st, tr, media, kind, base, now):
    """One step of whatever agent it is."""
    if kind == agents.VCPU:
        return guest.step(mem, lines, st, tr, base, now)
    if kind == agents.WORKER:
        return backend.worker_step(mem, lines, st, tr, base, now)
    if kind == agents.DISK:
        return target.disk_step(mem, st, tr, media, base, now)
    if kind == agents.LIO_SUBMIT:
        return target.submit_step(st, tr, media, base, now)
    if kind == agents.LIO_COMPLETE:
        return backend.complete_step(st, tr, base, now)
    if kind == agents.KICK:
        return crossing.kick_step(st, base, now)
    return crossing.irq_step(st, base, now)


@kernel
def _somebody_is_first(st, slot, time):
    """Has an agent been woken that comes before (time, slot)?"""
    woken = u64(st[H_WOKEN])
    for i in range(st[H_WOKEN_COUNT]):
        other = st[woken + u64(i)]
        due = st[u64(st[H_DUE]) + u64(other)]
        if other != slot and (due < time or (due == time and other < slot)):
            return True
    return False


@kernel
def advance(mem, lines, st, tr, media, slot, now, limit):
    """Perform the steps of agent `slot` from `now` on, as long as nobody else comes first.

    `limit` is the time of the scheduler's next event (exclusive). Returns how many slots stand in
    the list of woken agents; due[] says when each of them, and `slot` itself, runs next.
    """
    st[H_WOKEN_COUNT] = 0
    me = u64(st[H_DUE]) + u64(slot)
    kind = st[u64(st[H_KIND]) + u64(slot)]
    base = u64(st[u64(st[H_BASE]) + u64(slot)])
    for _ in range(60):  # the list of woken agents has room for 64 entries per slot
        st[me] = NEVER
        note_step(st, slot, now, st[base + A_STATE])
        st[base + A_STEPS] += 1
        st[H_NOW] = now
        due = step(mem, lines, st, tr, media, kind, base, now)
        st[me] = min(st[me], due)
        now = st[me]
        if now >= limit or st[H_NOTICE] or _somebody_is_first(st, slot, now):
            break
    return st[H_WOKEN_COUNT]


class Wake(simpy.Event):
    """The event an agent's process waits for; `at` puts it on SimPy's calendar."""

    __slots__ = ()

    def at(self, delay: SimTime, priority: int) -> None:
        """Fire `delay` cycles from now, behind control and behind lower slots."""
        self._ok = True
        self._value = None
        self.env.schedule(self, EventPriority(priority), delay)


class SimpyEngine:
    """Runs a machine under SimPy.

    `env` is open to control processes: what they schedule comes before the agents of the same
    time. `on_notice(bits)` is called, as a control event, when a step leaves a notice for the
    control plane (agents.N_JOB_DONE); the trace grows by itself.
    """

    def __init__(self, machine: Machine, on_notice: Callable[[int], None] | None = None) -> None:
        self.env = simpy.Environment()
        self.machine = machine
        self.on_notice = on_notice
        self.resumptions = 0  # SimPy events that ended in a call of `advance`
        self._state = memoryview(machine.st.data)
        self._due = int(machine.st[int(H_DUE)])
        self._woken = int(machine.st[int(H_WOKEN)])
        self._waiting = [Wake(self.env) for _ in machine.kinds]
        self._scheduled = [NEVER] * len(machine.kinds)
        for slot in range(len(machine.kinds)):
            self.env.process(self._agent(slot))

    def _agent(self, slot: int) -> Generator[simpy.Event, Any, None]:
        """The process of one agent."""
        env, machine, due, state = self.env, self.machine, self._due, self._state
        lines, mem, st, media = machine.lines, machine.mem, machine.st, machine.media
        waiting, scheduled = self._waiting, self._scheduled
        notice, priority = int(H_NOTICE), AGENT_PRIORITY + slot
        while True:
            yield waiting[slot]
            now = env.now
            limit = env.peek()
            limit = NEVER if limit == float('inf') else limit
            self.resumptions += 1
            woken = advance(mem, lines, st, machine.tr, media, slot, now, limit)
            waiting[slot] = event = Wake(env)
            time = state[due + slot]
            scheduled[slot] = time
            if time < NEVER:
                event.at(time - now, priority)
            if woken:
                self.reschedule(woken)
            if state[notice]:
                self._tell_control()

    def reschedule(self, woken: int) -> None:
        """Move the events of the agents that stand in the list of woken ones."""
        env, state, scheduled = self.env, self._state, self._scheduled
        for place in range(woken):
            slot = state[self._woken + place]
            time = state[self._due + slot]
            if time >= scheduled[slot]:
                continue
            event = self._waiting[slot]
            if scheduled[slot] < NEVER:  # its event stays on the calendar, with nobody behind it
                earlier = Wake(env)
                earlier.callbacks, event.callbacks = event.callbacks, []
                self._waiting[slot] = event = earlier
            scheduled[slot] = time
            event.at(time - env.now, AGENT_PRIORITY + slot)

    def wake_agents(self) -> None:
        """For control: put on the calendar whatever the control action has woken."""
        state, count = self._state, int(H_WOKEN_COUNT)
        self.reschedule(state[count])
        state[count] = 0

    def _tell_control(self) -> None:
        """A step left a notice: deal with it at its time, before any agent."""
        state = self._state
        bits = state[int(H_NOTICE)]
        state[int(H_NOTICE)] = 0
        if bits & N_TRACE_FULL:
            self.machine.grow_trace()
        tell = self.on_notice
        if bits & ~N_TRACE_FULL and tell is not None:
            event = simpy.Event(self.env)
            event.callbacks.append(lambda _: tell(bits))
            event._ok = True
            event._value = None
            self.env.schedule(event, simpy.events.NORMAL, state[int(H_NOW)] - self.env.now)

    def run(self) -> None:
        """Until nobody has anything left to do."""
        self.env.run()
