"""Two schedulers of one model: they drive the agents' step functions, and SimPy owns control.

`SimpyEngine`: every agent is a SimPy process that waits for its time or its wake event and calls
its compiled step. `CompiledEngine`: one compiled loop over the calendar performs the steps of all
agents up to SimPy's next event, or to a notice that a step leaves for the control plane, and hands
back.

In both the least of (time, slot) comes next, control comes before the agents of its time, and the
same steps are performed at the same times: the digest of the events is the same, bit for bit.
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

AGENT_PRIORITY = 2  # behind simpy.events.URGENT (0) and NORMAL (1): control before agents


# ------------------------------------------------------------------------------------ one step ----


@kernel(inline=True)
def step(mem, lines, st, tr, media, kind, base, now):
    """One step of whatever agent it is; returns when it wants to run again, or NEVER."""
    if kind == agents.VCPU:
        return guest.step(mem, lines, st, tr, base, now)
    if kind == agents.WORKER:
        return backend.worker_step(mem, lines, st, tr, base, now)
    if kind == agents.DISK:
        return target.disk_step(mem, st, tr, media, base, now)
    if kind == agents.LIO_SUBMIT:
        return backend.submit_step(mem, st, tr, base, now)
    if kind == agents.LIO_COMPLETE:
        return backend.complete_step(st, tr, base, now)
    if kind == agents.KICK:
        return crossing.kick_step(st, base, now)
    return crossing.irq_step(st, base, now)


@kernel(inline=True)
def perform(mem, lines, st, tr, media, slot, now):
    """Perform the step of agent `slot` at `now`; returns its new entry on the calendar."""
    entry = u64(st[H_DUE]) + u64(slot)
    base = u64(st[u64(st[H_BASE]) + u64(slot)])
    st[entry] = IDLE
    note_step(st, slot, now, st[base + A_STATE])
    st[base + A_STEPS] += 1
    st[H_NOW] = now
    due = step(mem, lines, st, tr, media, st[u64(st[H_KIND]) + u64(slot)], base, now)
    # A step may have woken its own agent for an earlier time.
    key = st[entry]
    if due < NEVER:
        key = min(key, (min(due, CLOCK_END) << SLOT_BITS) | slot)
        st[entry] = key
    return key


# ----------------------------------------------------------------------------- compiled engine ----


@kernel
def run_until(memory, ownership, state, trace, blocks, limit):
    """Perform the steps of all agents before cycle `limit`, or up to a step that leaves a notice.

    Returns False once no agent has anything left to do.
    """
    mem, st, tr, media = bare(memory), bare(state), bare(trace), bare(blocks)
    lines = None if ownership is None else bare(ownership)
    for slot in range(st[H_SLOTS]):  # control may have changed any entry
        renew(st, slot)
    woken, top = u64(st[H_WOKEN]), top_of_calendar(st)
    st[H_WOKEN_COUNT] = 0
    key = least_of_eight(st, top)
    while key >> SLOT_BITS < limit and st[H_NOTICE] == 0:
        slot = key & SLOT_MASK
        perform(mem, lines, st, tr, media, slot, key >> SLOT_BITS)
        renew(st, slot)
        for place in range(st[H_WOKEN_COUNT]):
            renew(st, st[woken + u64(place)])
        st[H_WOKEN_COUNT] = 0
        key = least_of_eight(st, top)
    return key < IDLE


class Engine:
    """What both engines have: a machine, SimPy's environment for control, notices.

    `env` is open to control processes: what they schedule comes before the agents of the same
    time. `on_notice(bits)` is called, as a control event, when a step leaves a notice for the
    control plane (agents.N_JOB_DONE); the trace grows by itself. `calls` counts the calls into
    compiled code.
    """

    def __init__(self, machine: Machine, on_notice: Callable[[int], None] | None = None) -> None:
        self.env = simpy.Environment()
        self.machine = machine
        self.on_notice = on_notice
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
        tell = self.on_notice
        if bits & ~N_TRACE_FULL and tell is not None:
            event = simpy.Event(self.env)
            event.callbacks.append(lambda _: tell(bits))
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
            more = run_until(mem, lines, st, machine.tr, media, min(limit, CLOCK_END))
            if state[notice]:
                self._tell_control()
            elif limit < NEVER:
                env.step()
                more = True
            elif more:
                raise end_of_clock()


# -------------------------------------------------------------------------------- SimPy engine ----


@kernel(inline=True)
def _somebody_is_first(st, slot, key):
    """Has an agent been woken that comes before `key`?"""
    woken, due = u64(st[H_WOKEN]), u64(st[H_DUE])
    for place in range(st[H_WOKEN_COUNT]):
        other = st[woken + u64(place)]
        if other != slot and st[due + u64(other)] < key:
            return True
    return False


@kernel
def advance(memory, ownership, state, trace, blocks, slot, now, limit):
    """Perform the steps of agent `slot` from `now` on, as long as nobody else comes first.

    `limit` is the time of the scheduler's next event (exclusive). Returns how many slots stand in
    the list of woken agents; the calendar says when each of them, and `slot` itself, runs next.
    """
    mem, st, tr, media = bare(memory), bare(state), bare(trace), bare(blocks)
    lines = None if ownership is None else bare(ownership)
    st[H_WOKEN_COUNT] = 0
    for _ in range(60):  # the list of woken agents has room for 64 entries per slot
        key = perform(mem, lines, st, tr, media, slot, now)
        now = key >> SLOT_BITS
        if now >= limit or st[H_NOTICE] or _somebody_is_first(st, slot, key):
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


class SimpyEngine(Engine):
    """Runs a machine under SimPy: a process per agent.

    A process keeps the floor while its own agent is next anyway: `advance` performs steps until
    another agent or another SimPy event comes due, then the process goes back to waiting. Nobody
    can tell the difference, and most steps cost no SimPy event.
    """

    def __init__(self, machine: Machine, on_notice: Callable[[int], None] | None = None) -> None:
        super().__init__(machine, on_notice)
        self._due = int(machine.st[int(H_DUE)])
        self._woken = int(machine.st[int(H_WOKEN)])
        self._waiting = [Wake(self.env) for _ in machine.kinds]
        self._scheduled = [IDLE] * len(machine.kinds)
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
            if now >= CLOCK_END:
                raise end_of_clock()
            self.calls += 1
            limit = min(self.next_control(), CLOCK_END)
            woken = advance(mem, lines, st, machine.tr, media, slot, now, limit)
            waiting[slot] = event = Wake(env)
            key = state[due + slot]
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
            if key >= scheduled[slot]:
                continue
            event = self._waiting[slot]
            if scheduled[slot] < IDLE:  # its event stays on the calendar, with nobody behind it
                earlier = Wake(env)
                earlier.callbacks, event.callbacks = event.callbacks, []
                self._waiting[slot] = event = earlier
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
