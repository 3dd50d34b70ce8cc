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

    `running` is QEMU's vm_running. `ended` is the message with which QEMU exited, if it has; `said`
    are all lines that it wrote on standard error. `only_migratable`: it runs with
    --only-migratable. `migrating`: a migration is under way. `failing` are the notifiers that
    cannot be had (`host_notifiers`, `guest_notifiers`), with a negative errno, and `failed_at` when
    that was noticed first; `host_notifiers` and `guest_notifiers` are how many there are.
    """

    def __init__(self, control: Control) -> None:
        self.control = control
        self.machine = control.machine
        self.running = True
        self.ended: str | None = None
        self.said: list[str] = []
        self.only_migratable = self.migrating = False
        self.blockers: list[str] = []
        self.failing: dict[str, int] = {}
        self.failed_at: dict[str, int] = {}
        self.host_notifiers = self.guest_notifiers = 0
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

    def report(self, line: str) -> None:
        """error_report(), warn_report(): QEMU says it and goes on."""
        self.said.append(line)

    def exit(self, message: str) -> None:
        """QEMU's exit(1): the vCPUs stand for ever. Raises VmExitError."""
        self.report(message)
        self.ended = message
        self.running = False
        for v in self._vcpus:
            if self.machine.st[v + agents.A_STATE] != guest.FROZEN:
                guest.freeze(self.machine.st, v, agents.NEVER)
        raise VmExitError(message)

    # ---- blockers of migration

    def add_blocker(self, reason: str) -> str | None:
        """migrate_add_blocker_normal(): what QEMU says where it cannot be added, else None."""
        if self.only_migratable:
            return f'disallowing migration blocker (--only-migratable) for: {reason}'
        if self.migrating:
            return f'disallowing migration blocker (migration/snapshot in progress) for: {reason}'
        self.blockers.append(reason)
        return None

    def del_blocker(self, reason: str | None) -> None:
        """migrate_del_blocker(); of None it does nothing."""
        if reason is not None:
            self.blockers.remove(reason)

    # ---- notifiers

    def _fails(self, name: str) -> int:
        answer = self.failing.get(name, 0)
        if answer:
            self.failed_at.setdefault(name, self.control.now)
        return answer

    def start_host_notifiers(self, count: int) -> Action:
        """vhost_dev_enable_notifiers(): an ioeventfd per queue, in one memory transaction.

        0 or a negative errno, and then there is none.
        """
        costs = self.control.costs
        answer = self._fails('host_notifiers')
        if answer:
            self.report(f'vhost VQ 0 notifier binding failed: {-answer}')
            yield from self.control.pay(costs.memory_transaction)
            return answer
        yield from self.control.pay(count * costs.host_notifier + costs.memory_transaction)
        self.host_notifiers = count
        return 0

    def stop_host_notifiers(self, count: int) -> Action:
        """vhost_dev_disable_notifiers()."""
        costs = self.control.costs
        yield from self.control.pay(count * costs.host_notifier + costs.memory_transaction)
        self.host_notifiers = 0

    def set_guest_notifiers(self, count: int, assign: bool) -> Action:
        """virtio_pci_set_guest_notifiers(): an irqfd and an MSI route per queue, in or out.

        0 or a negative errno, and then nothing has changed.
        """
        answer = self._fails('guest_notifiers')
        if answer:
            return answer
        yield from self.control.pay(count * self.control.costs.guest_notifier)
        self.guest_notifiers = count if assign else 0
        return 0
