"""A machine's vhost-scsi device by its config: realized and started, with costs or without.

A run begins with a machine whose guest has booted: `switch_on` takes the device through the life
that led there - realize, the guest's driver, start - at time zero and at no cost.
"""

from dataclasses import dataclass

import numpy as np

from sim import vring
from sim.config import Config
from sim.control.clock import Action, Control
from sim.control.costs import control_of_config
from sim.control.vm import Vm
from sim.device import DRIVER_OK, VHostSCSI, VirtIOSCSIConf, make_vhost_scsi
from sim.engine import Engine
from sim.machine import Machine
from sim.vhost.file import Lio
from sim.vhost.ioctl import VhostScsi

u64 = np.uint64

DRIVER_STATUS = 11 | DRIVER_OK  # ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK


@dataclass(frozen=True, kw_only=True)
class Host:
    """A machine with QEMU and the kernel's half of its device around it."""

    control: Control
    vm: Vm
    lio: Lio
    file: VhostScsi
    device: VHostSCSI


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
    agreed = config.agreed
    file = VhostScsi(
        control,
        lio,
        kernel=config.host.kernel,
        offered=(agreed.backend or 0) | agreed.assumed,
        flush_device_ioctls='no_ioctl_flush' not in (config.host.bugs or ''),
        endpoint_twice='endpoint_twice' in (config.host.bugs or ''),
    )
    conf = VirtIOSCSIConf(
        wwpn=asked.wwpn,
        boot_tpgt=asked.boot_tpgt,
        num_queues=asked.num_queues,
        virtqueue_size=asked.virtqueue_size,
        seg_max_adjust=asked.seg_max_adjust,
        max_sectors=asked.max_sectors,
        cmd_per_lun=asked.cmd_per_lun,
        worker_per_virtqueue=asked.worker_per_virtqueue,
    )
    device = make_vhost_scsi(
        vm,
        file,
        conf=conf,
        qemu=config.qemu.version,
        migratable=asked.migratable,
        bootindex=asked.bootindex,
    )
    return Host(control=control, vm=vm, lio=lio, file=file, device=device)


def rings_of(machine: Machine) -> list[tuple[int, int, int, int]]:
    """(num, descriptors, driver area, device area) of each queue that the guest has set up."""
    names = (vring.D_NUM, vring.D_DESC, vring.D_AVAIL, vring.D_USED)
    rings = []
    for driver in machine.drivers:
        num, desc, avail, used = (int(machine.st[driver + int(name)]) for name in names)
        rings.append((num, desc, avail, used))
    return rings


def boot(host: Host, config: Config) -> Action:
    """The guest's driver: features, queues, DRIVER_OK; QEMU starts vhost on it."""
    common = host.device.parent_obj
    common.host_features, common.guest_features = config.agreed.offered, config.agreed.acked
    host.device.guest_writes_rings(rings_of(host.control.machine))
    for vq in common.vqs:
        if vq.is_set_up:
            vq.last_avail_idx = vring.fresh_base(config.agreed.acked)
    yield from host.device.set_status(DRIVER_STATUS)


def switch_on(engine: Engine, config: Config, *, logging: bool = False) -> Host:
    """A machine of sim.machine.build with its device realized and started, at no cost.

    `logging`: and with dirty logging on, KVM's and vhost's. From then on control takes its time.
    """
    host = make_host(engine, config, instant=True)
    at_once(host.device.realize())
    at_once(boot(host, config))
    if logging:
        engine.machine.log_vcpus(True)
        at_once(host.device.dev.set_log(True))
    host.control.start(control_of_config(config))
    return host


def at_once(action: Action) -> None:
    """Perform a control action that takes no time."""
    for event in action:
        raise AssertionError(f'a control action without costs waits for {event}')
