"""QEMU's vhost-user-scsi device: what it does differently from the kernel's.

hw/scsi/vhost-user-scsi.c. The backend is another process at the end of a socket. There is no
endpoint and no CLEAR_ENDPOINT: GET_VRING_BASE of a queue is what stops it, and a start that fails
costs the connection, not the VM.

    before 8.2  a failed start ends the VM, and there is no reconnection
    10.1        a stop that fails is told to whoever stops the VM; before, it is swallowed
"""

import os
from dataclasses import dataclass
from typing import ClassVar

from sim import features
from sim.control.clock import Action
from sim.device import DRIVER_OK, RealizeError, VHostSCSICommon
from sim.user.session import VhostUser
from sim.vhost.dev import VhostDev


@dataclass
class VhostUserDev(VhostDev):
    """struct vhost_dev over a socket: hw/virtio/vhost-user.c. Rings are enabled one by one."""

    NAME: ClassVar[str] = 'vhost-user-scsi'

    @property
    def socket(self) -> VhostUser:
        """The connection."""
        assert isinstance(self.file, VhostUser)
        return self.file

    def init(self) -> Action:
        """vhost_user_backend_init(), then vhost_dev_init()."""
        yield from self._call(self.socket.get_features())
        yield from self._call(self.socket.get_protocol_features())
        yield from self._call(self.socket.set_protocol_features())
        yield from self._call(self.socket.get_queue_num())
        return (yield from super().init())

    def start(self) -> Action:
        """vhost_dev_start() and vhost_dev_set_vring_enable(true)."""
        answer = yield from super().start()
        if answer == 0:
            yield from self._enable(True)
        return answer

    def stop(self, *, bases: bool = True, sync: bool = True) -> Action:
        """vhost_dev_set_vring_enable(false), then vhost_dev_stop()."""
        yield from self._enable(False)
        return (yield from super().stop(bases=bases, sync=sync))

    def _enable(self, on: bool) -> Action:
        for index, vq in enumerate(self.vqs):
            if vq.is_set_up:
                yield from self._call(self.socket.set_vring_enable(index, on))

    def _get_features(self) -> Action:
        return (yield from self._call(self.file.get_features()))

    def _set_features(self, stack: int) -> Action:
        """vhost_dev_set_features(); the bit of the protocol features is always sent."""
        wanted = self.acked_features & ~features.mask(features.ACCESS_PLATFORM)
        wanted |= features.mask(features.LOG_ALL) if self.log_enabled else 0
        return (yield from self._call(self.file.set_features(wanted)))


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
        common.realize()
        failure = yield from self.dev.init()
        if failure is not None:
            common.vqs.clear()
            raise RealizeError(failure)
        self.channel = self.lun = 0
        self.target = conf.boot_tpgt

    def unrealize(self) -> Action:
        """vhost_user_scsi_unrealize(): the device stops, the queues are given back."""
        yield from self.set_status(0)
        self.dev.cleanup()
        self.parent_obj.vqs.clear()

    def set_status(self, status: int) -> Action:
        """vhost_user_scsi_set_status(): 0, or the negative errno of a stop that failed."""
        self.parent_obj.status = status
        start = bool(status & DRIVER_OK) and self.vm.running
        control = self.vm.control
        if not self.connected:
            return -1
        if self.dev.started == start:
            return 0
        if not start:
            before = control.enter_within('ring_base')
            answer = yield from self._stop()
            control.enter_within(before)
            return answer
        answer = yield from self.start()
        self.started_vu = answer >= 0
        if answer < 0:
            message = f'unable to start vhost-user-scsi: {os.strerror(-answer)}'
            if self.qemu < (8, 2):
                self.vm.exit(message)
            self.vm.report(message)
            self.connected = False  # qemu_chr_fe_disconnect()
        return 0

    def start(self) -> Action:
        """vhost_scsi_common_start(): the in-flight region comes before the rings."""
        socket = self.dev.file
        if self.tracks and isinstance(socket, VhostUser):  # hypothetical: QEMU has it for blk only
            socket.acked = self.parent_obj.guest_features
            if self.inflight is None:
                yield from socket.get_inflight_fd(None)
            else:
                yield from socket.set_inflight_fd(self.inflight)
        return (yield from super().start())

    def _stop(self) -> Action:
        self.started_vu = False
        if self.log_first:
            before = self.vm.control.enter_within('log_sync')
            yield from self.dev.sync_log()
            self.vm.control.enter_within(before)
        answer = yield from self.stop()
        return answer if self.qemu >= (10, 1) else 0
