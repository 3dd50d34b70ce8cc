"""QEMU's vhost-user-scsi device: what it does differently from the kernel's.

hw/scsi/vhost-user-scsi.c. The backend is another process at the end of a socket. There is no
endpoint and no CLEAR_ENDPOINT: GET_VRING_BASE of a queue is what stops it, and a start that fails
costs the connection, not the VM.

    before 8.2  a failed start ends the VM, and there is no reconnection
    10.1        a stop that fails is told to whoever stops the VM; before, it is swallowed
"""

import os
from dataclasses import dataclass

from sim.control.clock import Action
from sim.device import DRIVER_OK, RealizeError, VHostSCSICommon
from sim.vhost.dev import VirtQueue


@dataclass(kw_only=True)
class VHostUserSCSI(VHostSCSICommon):
    """The vhost-user device. `connected`: somebody listens at the other end of the socket."""

    name: str = 'vhost-user-scsi'
    chardev: str | None = None
    connected: bool = True
    started_vu: bool = False

    def realize(self) -> Action:
        """vhost_user_scsi_realize(). Errors: RealizeError, with everything done so far undone."""
        conf, common = self.parent_obj.conf, self.parent_obj
        if self.chardev is None:
            raise RealizeError('vhost-user-scsi: missing chardev')
        common.vqs[:] = [VirtQueue(num=conf.virtqueue_size) for _ in range(conf.num_queues + 2)]
        answer = yield from self.dev.init()
        if answer < 0:
            common.vqs.clear()
            raise RealizeError(f'vhost-user-scsi: vhost init failed: {os.strerror(-answer)}')
        self.channel = self.lun = 0
        self.target = conf.boot_tpgt

    def set_status(self, status: int) -> Action:
        """vhost_user_scsi_set_status(): 0, or the negative errno of a stop that failed."""
        self.parent_obj.status = status
        start = bool(status & DRIVER_OK) and self.vm.running
        if not self.connected:
            return -1
        if self.dev.started == start:
            return 0
        if not start:
            return (yield from self._stop())
        answer = yield from self.start()
        self.started_vu = answer >= 0
        if answer < 0:
            message = f'unable to start vhost-user-scsi: {os.strerror(-answer)}'
            if self.qemu < (8, 2):
                self.vm.exit(message)
            self.connected = False  # qemu_chr_fe_disconnect()
        return 0

    def _stop(self) -> Action:
        self.started_vu = False
        answer = yield from self.stop()
        return answer if self.qemu >= (10, 1) else 0
