"""QEMU's own virtio-scsi device, emulated in user space: hw/scsi/virtio-scsi.c.

There is no vhost: virtio_vmstate_change() stops the ioeventfds, which stops the data plane
(sim.user.dataplane), and the device's virtqueues are those that the IOThread worked on.
"""

from dataclasses import dataclass

from sim import backend, features, vring
from sim.control.clock import Action
from sim.device import DRIVER_OK, VirtIODevice
from sim.layout import USED_IDX
from sim.user.dataplane import Dataplane
from sim.vhost.dev import index_at


@dataclass(kw_only=True)
class VirtIOSCSI(VirtIODevice):
    """The emulated device, virtio-scsi-pci, with an IOThread."""

    name: str = 'virtio-scsi'
    dataplane: Dataplane
    started: bool = False

    def realize(self) -> Action:
        """virtio_scsi_device_realize()."""
        yield from ()
        self.parent_obj.realize()

    def unrealize(self) -> Action:
        """virtio_scsi_device_unrealize()."""
        yield from self.set_status(0)
        self.parent_obj.vqs.clear()

    def set_status(self, status: int) -> Action:
        """What virtio_vmstate_change() does to the ioeventfds; returns 0."""
        self.parent_obj.status = status
        start = bool(status & DRIVER_OK) and self.vm.running
        if start == self.started:
            return 0
        self.started = start
        if start:
            yield from self.dataplane.start()
            return 0
        before = self.vm.control.enter_within('ring_base')
        yield from self.dataplane.stop()
        self._look()
        self.vm.control.enter_within(before)
        return 0

    def loaded(self) -> None:
        """virtio_load() has put the virtqueues where the source left them."""
        common = self.parent_obj
        for index, vq in enumerate(common.vqs):
            if vq.is_set_up and index in self.dataplane.queues():
                ring = vq.num, vq.desc, vq.avail, vq.used
                base = vq.last_avail_idx
                self.dataplane.take_ring(index, ring, common.guest_features, base, vring.QEMU)
                self.dataplane.st[self.dataplane.queues()[index] + int(backend.Q_BACKEND)] = 0

    def _look(self) -> None:
        """The virtqueues as the IOThread has left them."""
        machine = self.vm.control.machine
        for index, vq in enumerate(self.parent_obj.vqs):
            if not vq.is_set_up or index not in self.dataplane.queues():
                continue
            vq.last_avail_idx = self.dataplane.base_of(index)
            if self.parent_obj.guest_features >> features.RING_PACKED & 1:
                continue  # both indices, each with its wrap counter, stand in it
            vq.used_idx = index_at(machine.mem, vq.used + int(USED_IDX))
            vq.inuse = vq.last_avail_idx - vq.used_idx & 0xFFFF
