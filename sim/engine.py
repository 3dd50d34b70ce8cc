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

import simpy
from simpy.core import SimTime
from simpy.events import EventPriority

from sim.agents import (
    CLOCK_END,
    H_DUE,
    H_NOTICE,
    H_NOW,
    H_WOKEN,
    H_WOKEN_COUNT,
    IDLE,
    N_TRACE_FULL,
    NEVER,
    SLOT_BITS,
)
from sim.drive import drive
from sim.errors import ConfigError
from sim.machine import Machine

EVERYBODY = -1
PATIENCE = 2_000_000_000  # cycles that the compiled loop may run before Python has its turn
AGENT_PRIORITY = 2  # behind simpy.events.URGENT (0) and NORMAL (1): control before agents


def _tell(listener: Callable[[int], None], bits: int, event: simpy.Event) -> None:
    listener(bits)


class Engine:
    """What both engines have: a machine, SimPy's environment for control, notices.

    `env` is open to control processes: what they schedule comes before the agents of the same
    time. `listeners` are called, as a control event, with the notices that a step leaves for the
    control plane (agents.N_JOB_DONE and so on, as bits); the trace grows by itself. `calls` counts
    the calls into compiled code. `now`: the cycle at which the machine stands, 0 for a fresh one.
    """

    def __init__(self, machine: Machine, now: int = 0) -> None:
        self.env = simpy.Environment(now)
        self.machine = machine
        self.listeners: list[Callable[[int], None]] = []
        self.calls = 0
        self._state = memoryview(machine.st.data)

    def wake_agents(self) -> None:
        """For control: a control action has woken agents."""
        raise NotImplementedError

    def run(self, until: simpy.Event | None = None) -> None:
        """Until nobody has anything left to do, or until an event has been processed.

        After the latter it may be called again, and goes on.
        """
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

    def run(self, until: simpy.Event | None = None) -> None:
        """Until nobody has anything left to do, or until an event has been processed."""
        machine, state, env = self.machine, self._state, self.env
        lines, mem, st, media = machine.lines, machine.mem, machine.st, machine.media
        notice, pause = int(H_NOTICE), 0
        more = True
        while more or env.peek() != float('inf'):
            limit = self.next_control()
            pause = max(pause, state[int(H_NOW)]) + PATIENCE
            self.calls += 1
            end = min(limit, CLOCK_END, pause)
            more = drive(mem, lines, st, machine.tr, media, EVERYBODY, end) < IDLE
            if state[notice]:
                self._tell_control()
            elif more and end == pause:
                continue  # only that Python has its turn: for Ctrl-C
            elif limit < NEVER:
                env.step()
                more = True
                if until is not None and until.processed:
                    return
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

    def __init__(self, machine: Machine, now: int = 0) -> None:
        super().__init__(machine, now)
        self._due = int(machine.st[int(H_DUE)])
        self._woken = int(machine.st[int(H_WOKEN)])
        self._waiting = [Wake(self.env) for _ in machine.kinds]
        self._scheduled = [IDLE] * len(machine.kinds)
        for slot in range(len(machine.kinds)):
            self.env.process(self._agent(slot))
        for slot in range(len(machine.kinds)):  # what a machine in mid-run has on its calendar
            self._put(slot)

    def _agent(self, slot: int) -> Generator[simpy.Event, Any, None]:
        """The process of one agent."""
        env, machine, state, count = self.env, self.machine, self._state, int(H_WOKEN_COUNT)
        lines, mem, st, media = machine.lines, machine.mem, machine.st, machine.media
        waiting, scheduled = self._waiting, self._scheduled
        notice, priority, peek = int(H_NOTICE), AGENT_PRIORITY + slot, env.peek
        while True:
            yield waiting[slot]
            now = env.now
            if now >= CLOCK_END:
                raise end_of_clock()
            self.calls += 1
            limit = peek()  # of SimPy's next event; what is due now is performed at any rate
            if limit > CLOCK_END:
                limit = CLOCK_END
            elif limit <= now:
                limit = now + 1
            key = drive(mem, lines, st, machine.tr, media, slot, limit)
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
        for place in range(woken):
            self._put(self._state[self._woken + place])

    def _put(self, slot: int) -> None:
        """Move the event of one agent to where its entry says."""
        key, scheduled = self._state[self._due + slot], self._scheduled
        if key == scheduled[slot]:
            return
        event = self._waiting[slot]
        if scheduled[slot] < IDLE:  # its event stays on the calendar, with nobody behind it
            other = Wake(self.env)
            other.callbacks, event.callbacks = event.callbacks, []
            self._waiting[slot] = event = other
        scheduled[slot] = key
        if key < IDLE:  # control may also have sent it to rest
            event.at((key >> SLOT_BITS) - self.env.now, AGENT_PRIORITY + slot)

    def wake_agents(self) -> None:
        """For control: put on SimPy's calendar whatever the control action has woken."""
        state, count = self._state, int(H_WOKEN_COUNT)
        self._reschedule(state[count])
        state[count] = 0

    def run(self, until: simpy.Event | None = None) -> None:
        """Until nobody has anything left to do, or until an event has been processed."""
        if until is None:
            self.env.run()
            return
        # Not env.run(until): it puts the event back on the calendar where it has stopped, so that
        # there is always something due now (next_control).
        while not until.processed and self.env.peek() != float('inf'):
            self.env.step()


ENGINES: dict[str, type[Engine]] = {'simpy': SimpyEngine, 'compiled': CompiledEngine}
