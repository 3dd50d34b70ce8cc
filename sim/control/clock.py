"""The hand of control on a running machine: time that it takes, notices it waits for, its diary.

Control actions are SimPy generators: `yield from` one inside a process of the engine's environment.
What they do to the machine between two yields happens at one time, before any agent of that time.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import simpy

from sim import agents
from sim.control.costs import NOTHING, ControlCosts
from sim.engine import Engine

Action = Generator[simpy.Event, Any, Any]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One ioctl as it went. Times in cycles; `answer` is 0 or a negative errno."""

    time: int
    name: str
    arguments: dict[str, Any]
    answer: int
    duration: int


@dataclass
class PhaseClock:
    """Charges time to one phase at a time, so that phases add up and nothing counts twice."""

    spent: dict[str, int] = field(default_factory=dict)
    phase: str | None = None
    since: int = 0

    def enter(self, phase: str | None, now: int) -> str | None:
        """From `now` on time is charged to `phase` (None: to nothing); returns the phase before."""
        before = self.phase
        if before is not None:
            self.spent[before] = self.spent.get(before, 0) + now - self.since
        self.phase, self.since = phase, now
        return before


class Control:
    """Time, notices and the diary of one machine's control plane.

    With `costs` None everything happens at once: for a device that was started before time zero.
    `calls` is the diary of ioctls; `clock` charges phases while somebody has entered one.
    """

    def __init__(self, engine: Engine, costs: ControlCosts | None) -> None:
        self.engine = engine
        self.env = engine.env
        self.machine = engine.machine
        self.instant = costs is None
        self.costs = costs or NOTHING
        self.calls: list[Call] = []
        self.clock = PhaseClock()
        self.on_phase: Callable[[str], None] | None = None  # told when a phase begins
        self._waiting: dict[int, simpy.Event] = {}
        engine.listeners.append(self._told)

    @property
    def now(self) -> int:
        """The time in cycles."""
        return int(self.env.now)

    def start(self, costs: ControlCosts) -> None:
        """The machine is up: from now on everything takes its time."""
        self.instant, self.costs = False, costs

    def pay(self, cycles: int) -> Action:
        """Let `cycles` pass."""
        if cycles and not self.instant:
            yield self.env.timeout(cycles)

    def notice(self, bit: int) -> simpy.Event:
        """The event that a step leaves the notice `bit` (sim.agents.N_*)."""
        return self._waiting.setdefault(bit, self.env.event())

    def nothing_moves(self) -> bool:
        """Does no agent and no other control process want to run again by itself?"""
        st, count = self.machine.st, len(self.machine.kinds)
        at = int(st[int(agents.H_DUE)])
        idle = int(st[at : at + count].min()) >= agents.IDLE
        return idle and self.engine.next_control() >= agents.NEVER

    def _told(self, bits: int) -> None:
        for bit in [bit for bit in self._waiting if bits & bit]:
            self._waiting.pop(bit).succeed()

    def enter(self, phase: str | None) -> str | None:
        """Charge to another phase from here on; the one before is given back."""
        before = self.clock.enter(phase, self.now)
        if phase is not None and self.on_phase is not None:
            self.on_phase(phase)
        return before

    def enter_within(self, phase: str | None) -> str | None:
        """The same, where phases are charged at all at the moment."""
        return self.enter(phase) if self.clock.phase is not None else None
