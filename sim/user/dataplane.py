"""The data plane of QEMU's virtio-scsi: its IOThread taken off the virtqueues, and put back.

hw/scsi/virtio-scsi-dataplane.c. QEMU's own VirtQueue is what the IOThread works on: nothing has to
be fetched from a backend, and nothing to be told to one.

    stop     a bottom half in the IOThread takes its handlers off the ioeventfds; a virtqueue whose
             ioeventfd is readable is served a last time, so that no kick is lost | blk_drain_all():
             until nothing is in flight, throttled or not | ioeventfds and irqfds given back
    start    irqfds and ioeventfds made | the handlers attached, each kicked once, so that whatever
             stands in the rings is found
"""

from sim import agents, backend
from sim.control.clock import Action, Control
from sim.control.vm import Vm
from sim.user import fields
from sim.user import scsi as user_scsi
from sim.user.session import UserEnd, u64


class Dataplane(UserEnd):
    """The IOThread's part of a virtio-scsi device."""

    def __init__(self, control: Control, vm: Vm) -> None:
        super().__init__(control)
        self.vm = vm

    def start(self) -> Action:
        """virtio_scsi_dataplane_start()."""
        count = len(self.queues())
        yield from self.vm.set_guest_notifiers(count, True)
        yield from self.vm.start_host_notifiers(count)
        self._attach()

    def _attach(self) -> None:
        """virtio_queue_aio_attach_host_notifier() of each virtqueue: kicks on, and one given."""
        machine, st = self.machine, self.st
        core = int(st[self.thread + fields.T_CORE])
        self.gated = False
        if not self.control.instant:
            for index in self._request_queues():
                q = u64(self.queues()[index])
                user_scsi.enable_notify(machine.mem, machine.lines, st, q, core)
                st[q + backend.Q_KICK_QUEUED] = 1
        self.go_on()

    def stop(self) -> Action:
        """virtio_scsi_dataplane_stop()."""
        count = len(self.queues())
        if not self.gated:
            yield from self.halt()
        before = self.control.enter_within('drain')
        if 'flush' not in self.without:
            yield from self._drained()
        self.control.enter_within(before)
        self._left_alone()
        yield from self.vm.stop_host_notifiers(count)
        yield from self.vm.set_guest_notifiers(count, False)

    def _drained(self) -> Action:
        """blk_drain_all()."""
        while self.tasks():
            yield self.control.notice(agents.N_INFLIGHT)

    def gate(self) -> Action:
        """bdrv_drain_all_begin() while the vCPUs run: the same, up to the drain."""
        yield from self.halt()
        yield from self._drained()
        self.gated = True
