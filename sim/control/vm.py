"""QEMU's virtual machine as control sees it: vCPUs that run or stand, notifiers, and its end.

system/cpus.c (pause_all_vcpus, resume_all_vcpus), hw/virtio/virtio-pci.c (notifiers). Where QEMU
exits, the simulated VM ends: `VmExitError` carries the message, and nothing in the guest runs any
more.
"""

import numpy as np

from sim import agents, guest
from sim.control.clock import Action, Control

u64 = np.uint64


class VmExitError(Exception):
    """QEMU ends the VM; the message is what it writes on standard error."""


class Vm:
    """One virtual machine on a machine.

    `running` is QEMU's vm_running. `ended` is the message with which QEMU exited, if it has.
    """

    def __init__(self, control: Control) -> None:
        self.control = control
        self.machine = control.machine
        self.running = True
        self.ended: str | None = None
        slots = self.machine.slots_of(agents.VCPU)
        self._vcpus = [u64(self.machine.bases[slot]) for slot in slots]

    def pause_all_vcpus(self) -> Action:
        """Every vCPU leaves the guest; one that is in a kick's exit finishes it first."""
        st, control = self.machine.st, self.control
        yield from control.pay(control.costs.vcpu_kick)
        moving = self._vcpus
        while True:
            moving = [v for v in moving if not guest.freeze(st, v, control.now)]
            if not moving:
                return
            until = min(int(st[v + guest.V_RESUME_AT]) for v in moving)
            yield from control.pay(until - control.now)

    def resume_all_vcpus(self) -> Action:
        """Every vCPU goes on where it stood; none of a VM that has ended."""
        if self.ended is not None:
            return
        yield from self.control.pay(self.control.costs.vcpu_resume)
        for v in self._vcpus:
            guest.thaw(self.machine.st, v, self.control.now)
        self.control.engine.wake_agents()

    @property
    def guest_runs(self) -> bool:
        """Does any vCPU run?"""
        states = (self.machine.st[v + agents.A_STATE] for v in self._vcpus)
        return self.ended is None and any(state != guest.FROZEN for state in states)

    def freeze_queues(self) -> None:
        """The guest's agent holds its I/O back: blk_mq_freeze_queue() of every request queue."""
        for g in self.machine.guest_queues:
            self.machine.st[g + int(guest.G_FREEZE)] = 1

    def unfreeze_queues(self) -> None:
        """The guest's agent lets its I/O go on."""
        for g in self.machine.guest_queues:
            guest.unfreeze(self.machine.st, u64(g), self.control.now)
        self.control.engine.wake_agents()

    def set_queue_depth(self, depth: int | None) -> None:
        """The guest's agent writes to /sys/block/*/device/queue_depth; None: what it was before."""
        st, work = self.machine.st, self.machine.event_work
        count, table = int(st[work + int(guest.W_LUNS)]), int(st[work + int(guest.W_LUN_LIST)])
        for lun in st[table : table + count].tolist():
            full = int(st[lun + int(guest.L_FULL_DEPTH)])
            st[lun + int(guest.L_DEPTH)] = full if depth is None else min(depth, full)
            if depth is None and st[lun + int(guest.L_STARVED)]:
                guest.run_starved(st, u64(lun), u64(0), self.control.now)
        self.control.engine.wake_agents()

    def exit(self, message: str) -> None:
        """QEMU's exit(1): the vCPUs stand for ever. Raises VmExitError."""
        self.ended = message
        self.running = False
        for v in self._vcpus:
            if self.machine.st[v + agents.A_STATE] != guest.FROZEN:
                guest.freeze(self.machine.st, v, agents.NEVER)
        raise VmExitError(message)

    # ---- notifiers

    def start_host_notifiers(self, count: int) -> Action:
        """vhost_dev_enable_notifiers(): an ioeventfd per queue, in one memory transaction."""
        costs = self.control.costs
        yield from self.control.pay(count * costs.host_notifier + costs.memory_transaction)

    def stop_host_notifiers(self, count: int) -> Action:
        """vhost_dev_disable_notifiers()."""
        yield from self.start_host_notifiers(count)

    def set_guest_notifiers(self, count: int) -> Action:
        """virtio_pci_set_guest_notifiers(): an irqfd and an MSI route per queue, in or out."""
        yield from self.control.pay(count * self.control.costs.guest_notifier)
