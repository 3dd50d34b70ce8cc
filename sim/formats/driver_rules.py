"""What each -device driver has and has not: keys, defaults, limits.

What a driver does not know is refused, as QEMU refuses a property; a fact about the host that makes
no difference to it is noted.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sim import features
from sim.errors import ConfigError
from sim.formats import refuse
from sim.formats.keys import fields_of
from sim.formats.layer import Table
from sim.formats.luns import Lun

# Properties of -device that not every driver has.
OWN_KEYS = {
    'wwpn': ('vhost-scsi',),
    'migratable': ('vhost-scsi',),
    'worker_per_virtqueue': ('vhost-scsi',),
    'boot_tpgt': ('vhost-scsi', 'vhost-user-scsi'),
    'bootindex': ('vhost-scsi', 'vhost-user-scsi'),
    't10_pi': ('vhost-scsi', 'vhost-user-scsi'),
    'seg_max_adjust': ('vhost-scsi', 'virtio-scsi'),
}
POLL_KEYS = ('poll_max_ns', 'poll_grow', 'poll_shrink')  # of an IOThread

MAX_IO_VQS = 128  # drivers/vhost/scsi.c, module parameter max_io_vqs

# Most request queues, and what more than that comes to.
QUEUES_MOST = {
    'vhost-scsi': (
        MAX_IO_VQS,
        f'kernel vhost-scsi serves at most {MAX_IO_VQS} request queues (max_io_vqs), '
        'further ones fail with ENOBUFS',
    ),
    'vhost-user-scsi': (254, 'SPDK has room for 256 virtqueues of a device, control and event too'),
    'virtio-scsi': (1022, 'QEMU has room for 1024 virtqueues of a device, control and event too'),
}
SPDK_TARGETS = 8  # SPDK_VHOST_SCSI_CTRLR_MAX_DEVS


def stack_of(device: Mapping[str, Any]) -> str:
    """Which of the three stacks serves the device: sim.features has their names."""
    return features.STACKS[device['driver']]


def foreign(section: str, stack: str) -> tuple[str, ...]:
    """The keys of a section that mean nothing to the devices of a stack."""
    if section == 'device':
        return tuple(name for name, stacks in OWN_KEYS.items() if stack not in stacks)
    if section == 'qemu':
        return () if stack == 'virtio-scsi' else POLL_KEYS
    if section == 'host' and stack != 'vhost-scsi':
        common = ('cpu_hz', 'shared_cpus', 'scheduler')
        return tuple(name for name in fields_of('host') if name not in common)
    return ()


def check_driver(
    device: dict[str, Any],
    host: dict[str, Any],
    qemu: str,
    given: Mapping[str, Table],
    actions: Mapping[str, Sequence[Table]],
    notes: list[str],
) -> None:
    """Refuse what the driver does not know, and fill in its defaults.

    `given` are the tables of the sections 'device', 'host' and 'qemu', `actions` those of what
    happens to the device during the run.
    """
    driver, stack = device['driver'], stack_of(device)
    for section in ('device', 'qemu', 'host'):
        for name in foreign(section, stack):
            if name not in given[section]:
                continue
            place = given[section][name].where
            if section == 'host' and name == 'kernel':
                notes.append(f'{place}: host.kernel has no effect with {driver}')
                host['kernel'] = fields_default('host', 'kernel')
            elif section == 'device':
                raise ConfigError(f'{place}: {driver} has no property {name}; take it out')
            else:
                who = 'an IOThread' if section == 'qemu' else 'kernel vhost-scsi'
                raise ConfigError(
                    f'{place}: {section}.{name} is of {who}, not of {driver}; take it out'
                )
    for kind in ('tmfs', 'hotplugs'):
        refuse(
            actions[kind] and stack != 'vhost-scsi',
            f'[[{kind[:-1]}]]: the control and event queue of {driver} are not modelled yet; use '
            'vhost-scsi-pci',
        )
    if device['virtqueue_size'] is None:
        roomy = stack == 'virtio-scsi' and features.version(qemu) >= (5, 0)
        device['virtqueue_size'] = 256 if roomy else 128
    if device['hotplug'] is None:
        row = features.properties_of(driver)['hotplug']
        device['hotplug'] = row.default


def fields_default(section: str, name: str) -> Any:
    """The default of a key."""
    return fields_of(section)[name].default


def check_luns(stack: str, luns: Sequence[Lun]) -> None:
    """SPDK's vhost-scsi has eight targets, each with one LUN."""
    if stack != 'vhost-user-scsi':
        return
    for lun in luns:
        refuse(
            lun.number or lun.target >= SPDK_TARGETS,
            f'LUN {lun.number} of target {lun.target}: SPDK gives a vhost-scsi device '
            f'{SPDK_TARGETS} targets with LUN 0 each; number the targets 0 to {SPDK_TARGETS - 1} '
            'in [[lun]] tables',
        )
