"""The vCPU throttle of auto-converge: system/cpu-throttle.c.

In each time slice of 10 ms that a vCPU runs it sleeps 10 ms * p / (1 - p), so that p per cent of
its time are lost.
"""

import simpy

from sim.control.clock import Action, Control
from sim.control.vm import Vm

SLICE_MS = 10  # CPU_THROTTLE_TIMESLICE_NS


class Throttle:
    """Of one VM. `percent`: how much of their time the vCPUs lose at the moment."""

    def __init__(self, vm: Vm, control: Control, cpu_hz: int) -> None:
        self.vm = vm
        self.control = control
        self.slice = SLICE_MS * cpu_hz // 1000
        self.percent = 0
        self.history: list[tuple[int, int]] = []  # (cycle, per cent from then on)
        self._ended = control.env.event()
        self._life_of_it: simpy.Process | None = None

    @property
    def share(self) -> float:
        """The share of their time that is left to the vCPUs."""
        return 1 - self.percent / 100

    def up(self, initial: int, increment: int, most: int) -> None:
        """mig_throttle_guest_down(): a step slower; all in per cent."""
        running = self.percent > 0
        self.percent = min(most, self.percent + increment if running else initial)
        self.history.append((self.control.now, self.percent))
        if not running:
            self._life_of_it = self.control.env.process(self._life())

    def stop(self) -> Action:
        """cpu_throttle_stop(): the vCPUs have all their time again; one that sleeps wakes."""
        if self._life_of_it is not None and not self._ended.triggered:
            self.history.append((self.control.now, 0))
            self._ended.succeed()
            yield self._life_of_it
            self.percent = 0

    def _life(self) -> Action:
        while not self._ended.triggered:
            yield self.control.env.timeout(self.slice) | self._ended
            if self._ended.triggered:
                return
            yield from self.vm.pause_all_vcpus()
            yield self.control.env.timeout(self._sleep) | self._ended
            yield from self.vm.resume_all_vcpus()

    @property
    def _sleep(self) -> int:
        return self.slice * self.percent // (100 - self.percent)
