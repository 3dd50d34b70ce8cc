"""A machine's virtio-scsi device by its config: realized and started, with costs or without.

A run begins with a machine whose guest has booted: `switch_on` takes the device through the life
that led there - realize, the guest's driver, start - at time zero and at no cost.
"""

from collections.abc import Collection
from dataclasses import dataclass

from sim import vring
from sim.config import Config
from sim.control.clock import Action, Control
from sim.control.costs import control_of_config
from sim.control.device_scsi import VirtIOSCSI
from sim.control.device_user import VhostUserDev, VHostUserSCSI
from sim.control.vm import Vm
from sim.device import (
    DRIVER_OK,
    VHostSCSI,
    VHostSCSICommon,
    VirtIODevice,
    VirtIOSCSICommon,
    VirtIOSCSIConf,
    make_vhost_scsi,
)
from sim.engine import Engine
from sim.features import STACKS, masked_by_backend, version
from sim.machine import Machine
from sim.user.dataplane import Dataplane
from sim.user.session import VhostUser
from sim.vhost.dev import VhostDev
from sim.vhost.end import BackendEnd
from sim.vhost.file import Lio
from sim.vhost.ioctl import VhostScsi

DRIVER_STATUS = 11 | DRIVER_OK  # ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK


@dataclass(frozen=True, kw_only=True)
class Host:
    """A machine with QEMU and the backend's half of its device around it.

    `virtio` and `backend` are there for every device; `dev` where it is vhost; `device`, `file` and
    `lio` where it is the kernel's.
    """

    control: Control
    vm: Vm
    virtio: VirtIODevice
    backend: BackendEnd
    lio: Lio
    cpu_hz: int

    @property
    def device(self) -> VHostSCSI:
        """The device of kernel vhost-scsi."""
        assert isinstance(self.virtio, VHostSCSI)
        return self.virtio

    @property
    def dev(self) -> VhostDev | None:
        """QEMU's struct vhost_dev, where there is one."""
        return self.virtio.dev if isinstance(self.virtio, VHostSCSICommon) else None

    @property
    def file(self) -> VhostScsi:
        """The open file of /dev/vhost-scsi."""
        assert isinstance(self.backend, VhostScsi)
        return self.backend


def make_host(
    engine: Engine, config: Config, *, instant: bool = False, lio: Lio | None = None
) -> Host:
    """The device of a config, not realized yet; `instant`: nothing takes time for now.

    `lio`: that of another device's host, where it is the same.
    """
    control = Control(engine, None if instant else control_of_config(config))
    vm, asked = Vm(control), config.device
    targets = tuple(sorted({lun.target for lun in config.disks}))
    lio = lio or Lio(wwpn=asked.wwpn, targets=targets)
    make = {
        'vhost-scsi': _kernel_device,
        'vhost-user-scsi': _user_device,
        'virtio-scsi': _emulated_device,
    }
    virtio, backend = make[STACKS[asked.driver]](vm, lio, config, _conf(config))
    return Host(
        control=control, vm=vm, lio=lio, virtio=virtio, backend=backend, cpu_hz=config.host.cpu_hz
    )


def _conf(config: Config) -> VirtIOSCSIConf:
    """The properties of -device."""
    asked = config.device
    return VirtIOSCSIConf(
        wwpn=asked.wwpn,
        boot_tpgt=asked.boot_tpgt,
        num_queues=asked.num_queues,
        virtqueue_size=asked.virtqueue_size,
        seg_max_adjust=asked.seg_max_adjust,
        max_sectors=asked.max_sectors,
        cmd_per_lun=asked.cmd_per_lun,
        worker_per_virtqueue=asked.worker_per_virtqueue,
    )


def _kernel_device(
    vm: Vm, lio: Lio, config: Config, conf: VirtIOSCSIConf
) -> tuple[VirtIODevice, BackendEnd]:
    """vhost-scsi, and /dev/vhost-scsi."""
    asked, agreed, bugs = config.device, config.agreed, config.host.bugs or ''
    file = VhostScsi(
        vm.control,
        lio,
        kernel=config.host.kernel,
        offered=(agreed.backend or 0) | agreed.assumed,
        flush_device_ioctls='no_ioctl_flush' not in bugs,
        endpoint_twice='endpoint_twice' in bugs,
    )
    device = make_vhost_scsi(
        vm,
        file,
        conf=conf,
        qemu=config.qemu.version,
        migratable=asked.migratable,
        bootindex=asked.bootindex,
    )
    return device, file


def _user_device(
    vm: Vm, lio: Lio, config: Config, conf: VirtIOSCSIConf
) -> tuple[VirtIODevice, BackendEnd]:
    """vhost-user-scsi, and SPDK at the other end of its socket."""
    agreed, asked, qemu = config.agreed, config.device, version(config.qemu.version)
    socket = VhostUser(vm.control, offered=(agreed.backend or 0) | agreed.assumed)
    parent = VirtIOSCSICommon(conf=conf)
    device = VHostUserSCSI(
        vm=vm,
        parent_obj=parent,
        qemu=qemu,
        dev=VhostUserDev(vm=vm, file=socket, qemu=qemu, vqs=parent.vqs),
        feature_bits=masked_by_backend(asked.driver, config.qemu.version),
        bootindex=asked.bootindex,
        chardev='char0',
    )
    return device, socket


def _emulated_device(
    vm: Vm, lio: Lio, config: Config, conf: VirtIOSCSIConf
) -> tuple[VirtIODevice, BackendEnd]:
    """virtio-scsi, with an IOThread."""
    dataplane = Dataplane(vm.control, vm)
    device = VirtIOSCSI(
        vm=vm,
        parent_obj=VirtIOSCSICommon(conf=conf),
        qemu=version(config.qemu.version),
        dataplane=dataplane,
    )
    return device, dataplane


def rings_of(machine: Machine) -> list[tuple[int, int, int, int]]:
    """(num, descriptors, driver area, device area) of each queue that the guest has set up."""
    names = (vring.D_NUM, vring.D_DESC, vring.D_AVAIL, vring.D_USED)
    rings = []
    for driver in machine.drivers:
        num, desc, avail, used = (int(machine.st[driver + int(name)]) for name in names)
        rings.append((num, desc, avail, used))
    return rings


def boot(host: Host, config: Config) -> Action:
    """The guest's driver: features, queues, DRIVER_OK; QEMU starts the device on it."""
    common = host.virtio.parent_obj
    common.host_features, common.guest_features = config.agreed.offered, config.agreed.acked
    host.virtio.guest_writes_rings(rings_of(host.control.machine))
    for vq in common.vqs:
        if vq.is_set_up:
            vq.last_avail_idx = vring.fresh_base(config.agreed.acked)
    yield from host.virtio.set_status(DRIVER_STATUS)


def switch_on(engine: Engine, config: Config, *, logs: Collection[str] = ()) -> Host:
    """A machine of sim.machine.build with its device realized and started, at no cost.

    `logs`: and with dirty logs on, as during a migration: 'kvm_log', and 'vhost_log' with 'log_all'
    and 'vring_log'. From then on control takes its time.
    """
    host = make_host(engine, config, instant=True)
    at_once(host.virtio.realize())
    at_once(boot(host, config))
    if 'kvm_log' in logs:
        engine.machine.log_vcpus(True)
    if 'vhost_log' in logs and host.dev is not None:
        host.dev.no_log_all, host.dev.no_vring_log = 'log_all' not in logs, 'vring_log' not in logs
        at_once(host.dev.set_log(True))
    host.control.start(control_of_config(config))
    return host


def at_once(action: Action) -> None:
    """Perform a control action that takes no time."""
    for event in action:
        raise AssertionError(f'a control action without costs waits for {event}')
