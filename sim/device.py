"""QEMU's vhost-scsi device: VHostSCSICommon and what VHostSCSI adds to it.

hw/scsi/vhost-scsi-common.c and hw/scsi/vhost-scsi.c, fields by their names there. Methods that take
time are control actions (sim.control.clock). Where QEMU exits, the VM ends (VmExitError).

    realize     virtio_scsi_common_realize, the migration blocker, vhost_dev_init; undone step by
                step where one fails
    set_status  DRIVER_OK in a running VM starts vhost, anything else stops it
    start       GET_ABI_VERSION, notifiers, vhost_dev_start, unmask, SET_ENDPOINT
    stop        CLEAR_ENDPOINT (its answer is ignored), vhost_dev_stop, notifiers

The drain of what is in flight happens inside CLEAR_ENDPOINT, with the vCPUs stopped.
"""

import errno
import os
import struct
from dataclasses import dataclass, field

from sim import features
from sim.control.clock import Action
from sim.control.vm import Vm
from sim.errors import ConfigError
from sim.vhost.dev import VhostDev, VirtQueue
from sim.vhost.ioctl import ABI_VERSION, VhostScsi

DRIVER_OK = 4
SENSE_SIZE, CDB_SIZE = 96, 32  # VIRTIO_SCSI_SENSE_DEFAULT_SIZE, VIRTIO_SCSI_CDB_DEFAULT_SIZE
QUEUE_MAX = 1024  # VIRTIO_QUEUE_MAX

NOT_MIGRATABLE = (
    'vhost-scsi does not support migration in all cases. When external environment supports it '
    "(Orchestrator migrates target SCSI device state or use shared storage over network), set "
    "'migratable' property to true to enable migration."
)
SENSE_LIMIT, CDB_LIMIT = 65536, 256
BAD_SIZES = 'bad data written to virtio-scsi configuration space'
NO_RESIZE = 'vhost-scsi does not support changing the sense data and CDB sizes'


def refused_sizes(name: str, sizes: tuple[int, int], standing: tuple[int, int]) -> str | None:
    """What QEMU says where a guest writes (sense_size, cdb_size) into its config space, if it does.

    vhost_scsi_common_set_config() accepts only the sizes that stand, and any other ends the VM;
    virtio_scsi_set_config() takes others up to what its buffers hold.
    """
    if name != 'virtio-scsi':
        return None if sizes == standing else NO_RESIZE
    return None if sizes[0] < SENSE_LIMIT and sizes[1] < CDB_LIMIT else BAD_SIZES


class RealizeError(ConfigError):
    """The device cannot be created; QEMU says so and ends before the VM starts."""


@dataclass(kw_only=True)
class VirtIOSCSIConf:
    """The properties of -device (VirtIOSCSIConf)."""

    wwpn: str | None = None
    vhostfd: str | None = None
    boot_tpgt: int = 0
    num_queues: int = 1
    virtqueue_size: int = 128
    seg_max_adjust: bool = True
    max_sectors: int = 0xFFFF
    cmd_per_lun: int = 128
    worker_per_virtqueue: bool = False


@dataclass(kw_only=True)
class VirtIOSCSICommon:
    """The virtio device: its status, its features, its config space, its virtqueues."""

    conf: VirtIOSCSIConf
    sense_size: int = SENSE_SIZE
    cdb_size: int = CDB_SIZE
    status: int = 0
    isr: int = 0
    queue_sel: int = 0
    host_features: int = 0  # what the guest was offered
    guest_features: int = 0  # what it acked
    vqs: list[VirtQueue] = field(default_factory=list)

    def realize(self) -> None:
        """virtio_scsi_common_realize(). Errors: RealizeError."""
        conf = self.conf
        if conf.num_queues == 0 or conf.num_queues > QUEUE_MAX - 2:
            raise RealizeError(
                f'Invalid number of queues (= {conf.num_queues}), must be a positive integer less '
                f'than {QUEUE_MAX - 2}.'
            )
        if conf.virtqueue_size <= 2:
            raise RealizeError(
                f'invalid virtqueue_size property (= {conf.virtqueue_size}), must be > 2'
            )
        self.vqs[:] = [VirtQueue(num=conf.virtqueue_size) for _ in range(conf.num_queues + 2)]

    def config(self) -> bytes:
        """virtio_scsi_get_config(): struct virtio_scsi_config."""
        conf = self.conf
        seg_max = conf.virtqueue_size - 2 if conf.seg_max_adjust else 126
        return struct.pack(
            '<IIIIIIIHHI', conf.num_queues, seg_max, conf.max_sectors, conf.cmd_per_lun, 16,
            self.sense_size, self.cdb_size, 0, 255, 16383,
        )  # fmt: skip


@dataclass(kw_only=True)
class VirtIODevice:
    """A virtio-scsi device of QEMU, whoever serves it. `qemu` is its version. `broken`: as
    virtio_error() leaves it.
    """

    vm: Vm
    parent_obj: VirtIOSCSICommon
    qemu: tuple[int, int]
    name: str
    broken: bool = False

    def realize(self) -> Action:
        """DeviceClass.realize. Errors: RealizeError."""
        raise NotImplementedError

    def set_status(self, status: int) -> Action:
        """VirtioDeviceClass.set_status: 0 or a negative errno."""
        raise NotImplementedError

    def loaded(self) -> None:
        """virtio_load() has put the device's state in place."""

    def set_config(self, config: bytes) -> None:
        """VirtioDeviceClass.set_config: the guest writes its config space."""
        common = self.parent_obj
        sizes = struct.unpack_from('<II', config, 20)
        said = refused_sizes(self.name, sizes, (common.sense_size, common.cdb_size))
        if said == BAD_SIZES:
            self.broken = True  # virtio_error(): it needs a reset
            return
        if said is not None:
            self.vm.exit(said)
        common.sense_size, common.cdb_size = sizes

    def guest_writes_rings(self, rings: list[tuple[int, int, int, int]]) -> None:
        """The guest's driver sets its queues up: (num, desc, avail, used) of each it uses."""
        for vq, (num, desc, avail, used) in zip(self.parent_obj.vqs, rings, strict=False):
            vq.num, vq.desc, vq.avail, vq.used = num, desc, avail, used


@dataclass(kw_only=True)
class VHostSCSICommon(VirtIODevice):
    """What kernel and vhost-user devices share, under the names of QEMU's struct.

    `migration_blocker` is the message while the device is not migratable (dev has the one of a
    backend without a log). `feature_bits` is the set
    of bits that are hidden from the guest if the backend lacks them. `inflight` is the in-flight
    region of each request queue, from a stop that waited for nothing; in QEMU it is of vhost-user.
    """

    name: str = 'vhost-scsi'
    migration_blocker: str | None = None
    dev: VhostDev
    feature_bits: int = 0
    bootindex: int | None = None
    channel: int = 0
    target: int = 0
    lun: int = 0
    host_features: int = 0
    migratable: bool = False
    inflight: list[bytes] | None = None
    base_first: bool = False  # the wrong order: GET_VRING_BASE before CLEAR_ENDPOINT
    log_first: bool = False  # the wrong order: the log is synced before CLEAR_ENDPOINT
    tracks: bool = False  # an in-flight region is agreed on
    suspends: bool = False  # hypothetical: as vhost-vdpa, VHOST_VDPA_SUSPEND before anything else

    def get_features(self, offered: int) -> int:
        """vhost_scsi_common_get_features(): listed bits that the backend lacks are cleared."""
        wanted = offered | self.host_features
        return wanted & ~(self.feature_bits & ~self.dev.features)

    def get_fw_dev_path(self) -> str:
        """vhost_scsi_common_get_fw_dev_path(): hexadecimal; there was no slash until QEMU 2.5."""
        slash = '/' if self.qemu >= (2, 6) else ''
        return f'{slash}channel@{self.channel:x}/{self.name}@{self.target:x},{self.lun:x}'

    def start(self) -> Action:
        """vhost_scsi_common_start(): 0 or a negative errno; a failure leaves nothing behind."""
        dev, vm = self.dev, self.vm
        dev.new_host_notifiers()
        answer = yield from vm.start_host_notifiers(dev.nvqs)
        if answer < 0:
            return self._cannot('Error enabling host notifiers', answer)
        answer = yield from vm.set_guest_notifiers(dev.nvqs, True)
        if answer < 0:
            yield from vm.stop_host_notifiers(dev.nvqs)
            return self._cannot('Error binding guest notifier', answer)
        dev.acked_features = self.parent_obj.guest_features
        answer = yield from dev.start()
        if answer < 0:
            yield from vm.set_guest_notifiers(dev.nvqs, False)
            yield from vm.stop_host_notifiers(dev.nvqs)
            return self._cannot('Error starting vhost dev', answer)
        yield from dev.unmask()
        return 0

    def _cannot(self, what: str, answer: int) -> int:
        """Say what is wrong with a start; before 8.2 QEMU said less."""
        if self.qemu >= (8, 2):
            self.vm.report(f'Error starting {self.name}: {what}: {os.strerror(-answer)}')
        elif what == 'Error starting vhost dev':
            self.vm.report('Error start vhost dev')
        elif what == 'Error binding guest notifier':
            self.vm.report(what)
        return answer

    def stop(self) -> Action:
        """vhost_scsi_common_stop(): what vhost_dev_stop() said.

        Guest notifiers that do not go: an assertion until 10.1, then the host's are left as well.
        """
        bases = not (self.base_first or self.suspends)
        answer = yield from self.dev.stop(bases=bases, sync=not self.log_first)
        failed = yield from self.vm.set_guest_notifiers(self.dev.nvqs, False)
        if failed < 0:
            self.vm.report(f'vhost guest notifier cleanup failed: {failed}')
            if self.qemu < (10, 2):
                self.vm.exit("vhost_scsi_common_stop: Assertion `ret >= 0' failed.")
            return failed
        yield from self.vm.stop_host_notifiers(self.dev.nvqs)
        return answer


@dataclass(kw_only=True)
class VHostSCSI(VHostSCSICommon):
    """The kernel device, vhost-scsi-pci."""

    realized: bool = False

    @property
    def kernel(self) -> VhostScsi:
        """The open file of /dev/vhost-scsi."""
        assert isinstance(self.dev.file, VhostScsi)
        return self.dev.file

    def realize(self) -> Action:
        """vhost_scsi_realize(). Errors: RealizeError, with everything done so far undone."""
        conf, common = self.parent_obj.conf, self.parent_obj
        if conf.wwpn is None:
            raise RealizeError('vhost-scsi: missing wwpn')
        common.realize()
        if not self.migratable:
            refused = self.vm.add_blocker(NOT_MIGRATABLE)
            if refused is not None:
                self._free_virtio()
                raise RealizeError(refused)
            self.migration_blocker = NOT_MIGRATABLE
        failure = yield from self.dev.init()
        if failure is not None:
            self._free_vqs()
            raise RealizeError(failure)
        if conf.worker_per_virtqueue and self.qemu >= (9, 0):
            answer = yield from self.dev.set_workers()
            if answer < 0:
                self.dev.cleanup()
                self._free_vqs()
                why = os.strerror(-answer)
                raise RealizeError(f'vhost-scsi: vhost worker setup failed: {why}')
        self.channel = self.lun = 0
        self.target = conf.boot_tpgt
        self.realized = True

    def _free_vqs(self) -> None:
        """The label free_vqs of vhost_scsi_realize()."""
        self.vm.del_blocker(self.migration_blocker)
        self.migration_blocker = None
        self._free_virtio()

    def _free_virtio(self) -> None:
        """The label free_virtio: virtio_scsi_common_unrealize(), and the file is closed."""
        self.parent_obj.vqs.clear()
        self.kernel.close()

    def unrealize(self) -> Action:
        """vhost_scsi_unrealize(): the blocker goes, vhost stops, the file and the queues go."""
        self.vm.del_blocker(self.migration_blocker)
        self.migration_blocker = None
        yield from self.set_status(0)
        self.dev.cleanup()
        self.parent_obj.vqs.clear()
        self.realized = False

    def set_status(self, status: int) -> Action:
        """vhost_scsi_set_status(): 0 always; a start that fails ends the VM."""
        self.parent_obj.status = status
        start = bool(status & DRIVER_OK) and self.vm.running
        if self.dev.started == start:
            return 0
        if start:
            answer = yield from self.vhost_scsi_start()
            if answer < 0:
                self.vm.exit(f'unable to start vhost-scsi: {os.strerror(-answer)}')
        else:
            yield from self.vhost_scsi_stop()
        return 0

    def vhost_scsi_start(self) -> Action:
        """vhost_scsi_start(): 0 or a negative errno."""
        found = yield from self.kernel.get_abi_version()
        if not isinstance(found, dict):
            return found
        if found['abi'] > ABI_VERSION:
            self.vm.report(
                f'vhost-scsi: The running tcm_vhost kernel abi_version: {found["abi"]} is greater '
                f'than vhost_scsi userspace supports: {ABI_VERSION}, please upgrade your version '
                'of QEMU'
            )
            return -errno.ENOSYS
        answer = yield from self.start()
        if answer < 0:
            return answer
        control = self.vm.control
        before = control.enter_within('endpoint')
        if self.tracks:  # hypothetical
            self.kernel.agree_on_regions(self.inflight, self.parent_obj.guest_features)
        answer = yield from self.kernel.set_endpoint(str(self.parent_obj.conf.wwpn))
        control.enter_within(before)
        if answer < 0:
            self.vm.report('Error setting vhost-scsi endpoint')
            yield from self.stop()
        return answer

    def vhost_scsi_stop(self) -> Action:
        """vhost_scsi_stop(): CLEAR_ENDPOINT, whatever it answers, then the rest."""
        control = self.vm.control
        before = control.enter_within('endpoint')
        if self.log_first:
            control.enter_within('log_sync')
            yield from self.dev.sync_log()
            control.enter_within('endpoint')
        if self.suspends:
            yield from self.kernel.suspend()
        if self.base_first or self.suspends:
            control.enter_within('ring_base')
            yield from self.dev.read_bases()
            control.enter_within('endpoint')
        yield from self.kernel.clear_endpoint(str(self.parent_obj.conf.wwpn))
        control.enter_within('ring_base')
        yield from self.stop()
        control.enter_within(before)


def make_vhost_scsi(
    vm: Vm,
    file: VhostScsi,
    *,
    conf: VirtIOSCSIConf,
    qemu: str,
    migratable: bool = False,
    bootindex: int | None = None,
    host_features: int = 0,
) -> VHostSCSI:
    """A device as -device makes it, before realize. `qemu` is a version such as '10.2'."""
    parent = VirtIOSCSICommon(conf=conf)
    number = features.version(qemu)
    return VHostSCSI(
        vm=vm,
        parent_obj=parent,
        qemu=number,
        dev=VhostDev(vm=vm, file=file, qemu=number, vqs=parent.vqs),
        feature_bits=features.masked_by_backend('vhost-scsi', qemu),
        bootindex=bootindex,
        host_features=host_features,
        migratable=migratable,
    )
