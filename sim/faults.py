"""What goes wrong, when: the faults of a config strike a host while it is stopped or migrated.

`Faults` is told when a phase begins (Control.on_phase has the phases that are charged, `reach` the
others), and each fault strikes so long afterwards, once. What strikes a host is done here; what
takes a migration to know (a link, who has the big lock) is left to `acts`, functions by name of the
fault.

    disk_stuck        sim.disks.events.due: what happens in a disk waits until it goes on
    worker_killed     vhost_worker_killed(), drivers/vhost/vhost.c
    an ioctl fails    the file answers an errno and does nothing else; notifiers likewise
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sim import agents
from sim.agents import IDLE, NEVER
from sim.analysis.frame import COLUMN
from sim.control.clock import Action
from sim.control.power import Host
from sim.disks import fields as disks
from sim.disks.events import due
from sim.errors import ConfigError
from sim.features import STACKS, version
from sim.formats.faults import FAIL, IOCTLS, NOTIFIERS, STRIKES, Fault
from sim.units import cycles_to_ns, ns_to_cycles

Act = Callable[[Fault, Host], Action]


def check(faults: Sequence[Fault], driver: str, kernel: str) -> None:
    """What cannot happen to a device, or on a host kernel. Errors: ConfigError."""
    for fault in faults:
        of_the_kernel = fault.name in (*IOCTLS, 'worker_killed', 'log_memory')
        if of_the_kernel and STACKS[driver] != 'vhost-scsi':
            raise ConfigError(
                f'{fault.text}: {driver} is not served by the kernel, it has no ioctls, no '
                'vhost workers and no such log; use vhost-scsi-pci'
            )
        if fault.name in NOTIFIERS and STACKS[driver] == 'virtio-scsi':
            raise ConfigError(
                f'{fault.text}: what QEMU does where the data plane of {driver} cannot start is '
                'not modelled; use a vhost device'
            )
        if fault.name == 'worker_killed' and version(kernel) < (6, 4):
            raise ConfigError(
                f'{fault.text}: on Linux {kernel} the worker is a thread of the kernel, which no '
                'signal reaches; use host.kernel=6.12'
            )


def invented(faults: Sequence[Fault]) -> list[str]:
    """Sentences on faults that strike no real host like this."""
    killed = [fault.text for fault in faults if fault.name == 'worker_killed']
    return [
        f'fault {text}: QEMU lives on; a worker is a thread of its process (vhost_task_create), '
        'and SIGKILL ends both'
        for text in killed
    ]


class Faults:
    """The faults of one run. `struck`: (cycle, fault) of what has happened."""

    def __init__(
        self, faults: Sequence[Fault], cpu_hz: int, acts: Mapping[str, Act] | None = None
    ) -> None:
        self.hz = cpu_hz
        self.all = tuple(faults)
        self.failing = [fault for fault in faults if fault.name in FAIL]
        self.hosts: dict[str, Host] = {}
        self.waiting = [fault for fault in faults if fault.name in STRIKES]
        self.armed: list[tuple[int, Fault]] = []
        self.struck: list[tuple[int, Fault]] = []
        own: dict[str, Act] = {'disk_stuck': self._stick, 'worker_killed': self._kill}
        self.acts = own | dict(acts or {})

    def watch(self, host: Host, side: str = 'source') -> None:
        """From now on the faults of a side are its host's, and its phases are heard of."""
        self.hosts[side] = host
        for fault in self.failing:
            if fault.place == side:
                there = host.vm.failing if fault.name in NOTIFIERS else host.file.failing
                there[fault.ioctl] = fault.errno
        if self.waiting or self.armed:
            host.control.on_phase = lambda phase: self.reach(phase, host)
        for at, fault in self.armed:  # the phase began on the other side
            host.control.env.process(self._later(fault, host, at))

    def reach(self, place: str, host: Host) -> None:
        """A phase begins on a host."""
        for fault in [fault for fault in self.waiting if fault.place == place]:
            self.waiting.remove(fault)
            at = host.control.now + int(ns_to_cycles(fault.after, self.hz))
            self.armed.append((at, fault))
            host.control.env.process(self._later(fault, host, at))

    def _later(self, fault: Fault, host: Host, at: int) -> Action:
        if at > host.control.now:
            yield host.control.env.timeout(at - host.control.now)
        if (at, fault) in self.armed:
            self.armed.remove((at, fault))
            self.struck.append((host.control.now, fault))
            yield from self.acts[fault.name](fault, host)

    def report(self) -> list[dict[str, Any]]:
        """Each fault and when it struck first, in ns; None: it did not. Its phase has not begun,
        its step was not taken.
        """
        struck: dict[Fault, int | None] = {fault: at for at, fault in self.struck}
        struck |= {fault: self._failed_at(fault) for fault in self.failing}
        found = [(fault.text, struck.get(fault)) for fault in self.all]
        return [
            {
                'fault': text,
                'struck_ns': None if at is None else int(cycles_to_ns(at, self.hz)),
            }
            for text, at in found
        ]

    def _failed_at(self, fault: Fault) -> int | None:
        """The cycle at which an ioctl, or a notifier, of its side has failed first."""
        host = self.hosts.get(fault.place)
        if host is None:
            return None
        if fault.name in NOTIFIERS:
            return host.vm.failed_at.get(fault.name)
        times = [
            call.time
            for call in host.control.calls
            if (call.name, call.answer) == (fault.ioctl, fault.errno)
        ]
        return min(times, default=None)

    def why_unanswered(self, rows: npt.NDArray[np.int64]) -> list[str]:
        """Sentences on requests that are never answered, because of what has struck."""
        left = int((rows[:, COLUMN['t_complete']] == 0).sum())
        reasons = {
            fault.name: f'liveness: {left} requests are never answered: {fault.name} at cycle {at}'
            for at, fault in self.struck
            if fault.name == 'worker_killed' or (fault.name == 'disk_stuck' and not fault.lasts)
        }
        return list(reasons.values()) if left else []

    def _stick(self, fault: Fault, host: Host) -> Action:
        yield from ()
        lasts = None if fault.lasts is None else int(ns_to_cycles(fault.lasts, self.hz))
        stand_still(host, lasts)

    def _kill(self, fault: Fault, host: Host) -> Action:
        yield from host.file.kill_workers()


def stand_still(host: Host, cycles: int | None) -> None:
    """Every disk of a host's machine stands for so long; None: for ever."""
    control = host.control
    machine, st = control.machine, control.machine.st
    for slot in machine.slots_of(agents.DISK):
        base = disks.u64(machine.bases[slot])
        st[base + disks.D_STANDS_UNTIL] = NEVER if cycles is None else control.now + cycles
        entry = int(st[int(agents.H_DUE)]) + slot
        soon = due(st, base)
        if soon < NEVER:
            agents.move(st, slot, soon)
        elif st[entry] < IDLE:
            agents.rest(st, slot)
    control.engine.wake_agents()
