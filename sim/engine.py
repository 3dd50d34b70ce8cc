"""Two schedulers of one model: they drive the agents' step functions, and SimPy owns control.

`SimpyEngine`: every agent is a SimPy process that waits for its time or its wake event and calls
its compiled step. `CompiledEngine`: one compiled loop over the calendar performs the steps of all
agents up to SimPy's next event, or to a notice that a step leaves for the control plane, and hands
back.

In both the least of (time, slot) comes next, control comes before the agents of its time, and the
same steps are performed at the same times: the digest of the events is the same, bit for bit.
"""

from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import numpy as np
import simpy
from simpy.core import SimTime
from simpy.events import EventPriority

from sim import agents, backend, crossing, guest, target
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
    H_WOKEN,
    H_WOKEN_COUNT,
    IDLE,
    N_TRACE_FULL,
    NEVER,
    SLOT_BITS,
    SLOT_MASK,
    least_of_eight,
    note_step,
    renew,
    top_of_calendar,
)
from sim.errors import ConfigError
from sim.jit import kernel
from sim.machine import Machine
from sim.memory import bare

u64 = np.uint64

EVERYBODY = -1
AGENT_PRIORITY = 2  # behind simpy.events.URGENT (0) and NORMAL (1): control before agents


# ------------------------------------------------------------------------------- compiled loop ----


@kernel
def drive(memory, ownership, state, trace, blocks, alone, limit):
    """Perform steps in the calendar's order, those before cycle `limit`.

    `alone` < 0: of all agents, up to a step that leaves a notice. Otherwise of agent `alone`, as
    long as no agent that its steps have woken comes first; the caller knows that it is due now, and
    finds in the list of woken agents whose entries have changed.

    Returns the calendar's next entry (of agent `alone`); IDLE when there is none. One function for
    both engines, so that the model is compiled once.
    """
    mem, st, tr, media = bare(memory), bare(state), bare(trace), bare(blocks)
    lines = None if ownership is None else bare(ownership)
    entries, woken = u64(st[H_DUE]), u64(st[H_WOKEN])
    kinds, bases = u64(st[H_KIND]), u64(st[H_BASE])
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
        note_step(st, slot, now, st[base + A_STATE])
        st[base + A_STEPS] += 1
        st[H_NOW] = now
        if kind == agents.VCPU:
            due = guest.step(mem, lines, st, tr, base, now)
        elif kind == agents.WORKER:
            due = backend.worker_step(mem, lines, st, tr, base, now)
        elif kind == agents.DISK:
            due = target.disk_step(mem, st, tr, media, base, now)
        elif kind == agents.LIO_SUBMIT:
            due = backend.submit_step(mem, st, tr, base, now)
        elif kind == agents.LIO_COMPLETE:
            due = backend.complete_step(st, tr, base, now)
        elif kind == agents.KICK:
            due = crossing.kick_step(st, base, now)
        else:
            due = crossing.irq_step(st, base, now)
        key = st[entry]  # a step may have woken its own agent
        if due < NEVER:
            key = min(key, (min(due, CLOCK_END) << SLOT_BITS) | slot)
            st[entry] = key
        if alone < 0:
            renew(st, slot)
            for place in range(st[H_WOKEN_COUNT]):
                renew(st, st[woken + u64(place)])
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


# ------------------------------------------------------------------------------------- engines ----


def _tell(listener: Callable[[int], None], bits: int, event: simpy.Event) -> None:
    listener(bits)


class Engine:
    """What both engines have: a machine, SimPy's environment for control, notices.

    `env` is open to control processes: what they schedule comes before the agents of the same
    time. `listeners` are called, as a control event, with the notices that a step leaves for the
    control plane (agents.N_JOB_DONE and so on, as bits); the trace grows by itself. `calls` counts
    the calls into compiled code.
    """

    def __init__(self, machine: Machine) -> None:
        self.env = simpy.Environment()
        self.machine = machine
        self.listeners: list[Callable[[int], None]] = []
        self.calls = 0
        self._state = memoryview(machine.st.data)

    def wake_agents(self) -> None:
        """For control: a control action has woken agents."""
        raise NotImplementedError

    def run(self) -> None:
        """Until nobody has anything left to do."""
        raise NotImplementedError

    def next_control(self) -> int:
        """The time of SimPy's next event; NEVER if there is none."""
        time = self.env.peek()
        return NEVER if time == float('inf') else int(time)

    def _tell_control(self) -> None:
        """A step left a notice: deal with it at its time, before any agent."""
        state = self._state
        bits = state[int(H_NOTICE)]
        state[int(H_NOTICE)] = 0
        if bits & N_TRACE_FULL:
            self.machine.grow_trace()
        if bits & ~N_TRACE_FULL and self.listeners:
            event = simpy.Event(self.env)
            event.callbacks.extend(partial(_tell, tell, bits) for tell in self.listeners)
            event._ok = True
            event._value = None
            self.env.schedule(event, simpy.events.NORMAL, state[int(H_NOW)] - self.env.now)


def end_of_clock() -> ConfigError:
    """What is said of a run that outlasts the calendar."""
    return ConfigError(
        'the run lasts longer than 2**47 cycles, the end of the clock: shorten workload.runtime or '
        'workload.thinktime, or lower host.cpu_hz'
    )


class CompiledEngine(Engine):
    """Runs a machine in one compiled loop, from one control event to the next."""

    def wake_agents(self) -> None:
        """For control: nothing to do, the loop reads the calendar when it starts."""

    def run(self) -> None:
        """Until nobody has anything left to do."""
        machine, state, env = self.machine, self._state, self.env
        lines, mem, st, media = machine.lines, machine.mem, machine.st, machine.media
        notice = int(H_NOTICE)
        more = True
        while more or env.peek() != float('inf'):
            limit = self.next_control()
            self.calls += 1
            end = min(limit, CLOCK_END)
            more = drive(mem, lines, st, machine.tr, media, EVERYBODY, end) < IDLE
            if state[notice]:
                self._tell_control()
            elif limit < NEVER:
                env.step()
                more = True
            elif more:
                raise end_of_clock()


class Wake(simpy.Event):
    """The event an agent's process waits for; `at` puts it on SimPy's calendar."""

    __slots__ = ()

    def at(self, delay: SimTime, priority: int) -> None:
        """Fire `delay` cycles from now, behind control and behind lower slots."""
        self._ok = True
        self._value = None
        self.env.schedule(self, EventPriority(priority), delay)


class SimpyEngine(Engine):
    """Runs a machine under SimPy: a process per agent.

    A process keeps the floor while its own agent is next anyway: `drive` performs steps until
    another agent or another SimPy event comes due, then the process goes back to waiting. Nobody
    can tell the difference, and most steps cost no SimPy event.
    """

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self._due = int(machine.st[int(H_DUE)])
        self._woken = int(machine.st[int(H_WOKEN)])
        self._waiting = [Wake(self.env) for _ in machine.kinds]
        self._scheduled = [IDLE] * len(machine.kinds)
        for slot in range(len(machine.kinds)):
            self.env.process(self._agent(slot))

    def _agent(self, slot: int) -> Generator[simpy.Event, Any, None]:
        """The process of one agent."""
        env, machine, state, count = self.env, self.machine, self._state, int(H_WOKEN_COUNT)
        lines, mem, st, media = machine.lines, machine.mem, machine.st, machine.media
        waiting, scheduled = self._waiting, self._scheduled
        notice, priority = int(H_NOTICE), AGENT_PRIORITY + slot
        while True:
            yield waiting[slot]
            now = env.now
            if now >= CLOCK_END:
                raise end_of_clock()
            self.calls += 1
            limit = min(self.next_control(), CLOCK_END)
            key = drive(mem, lines, st, machine.tr, media, slot, max(limit, now + 1))
            woken = state[count]
            waiting[slot] = event = Wake(env)
            scheduled[slot] = key
            if key < IDLE:
                event.at((key >> SLOT_BITS) - now, priority)
            if woken:
                self._reschedule(woken)
            if state[notice]:
                self._tell_control()

    def _reschedule(self, woken: int) -> None:
        """Move the events of the agents that stand in the list of woken ones."""
        env, state, scheduled = self.env, self._state, self._scheduled
        for place in range(woken):
            slot = state[self._woken + place]
            key = state[self._due + slot]
            if key == scheduled[slot]:
                continue
            event = self._waiting[slot]
            if scheduled[slot] < IDLE:  # its event stays on the calendar, with nobody behind it
                other = Wake(env)
                other.callbacks, event.callbacks = event.callbacks, []
                self._waiting[slot] = event = other
            scheduled[slot] = key
            event.at((key >> SLOT_BITS) - env.now, AGENT_PRIORITY + slot)

    def wake_agents(self) -> None:
        """For control: put on SimPy's calendar whatever the control action has woken."""
        state, count = self._state, int(H_WOKEN_COUNT)
        self._reschedule(state[count])
        state[count] = 0

    def run(self) -> None:
        """Until nobody has anything left to do."""
        self.env.run()


ENGINES: dict[str, type[Engine]] = {'simpy': SimpyEngine, 'compiled': CompiledEngine}
