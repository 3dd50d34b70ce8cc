"""The effective device of a -device string or a libvirt domain, and its feature bits.

Config space: virtio 1.4 "SCSI Host Device / Device configuration layout", QEMU
virtio_scsi_get_config(). Workers: QEMU vhost_scsi_set_workers(), Linux drivers/vhost/vhost.c.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from sim import features
from sim.device import CDB_SIZE, SENSE_SIZE, refused_sizes
from sim.errors import ConfigError
from sim.formats import Given, fold
from sim.formats.device_table import MUST, QUEUES_FIXED, VHOST, Effective, effective
from sim.formats.driver_rules import MAX_IO_VQS
from sim.formats.key import Key
from sim.formats.keys import fields_of
from sim.formats.libvirt import device_pairs, read_domain
from sim.formats.qemu import pairs
from sim.formats.values import convert

VERSIONS = {'qemu': ('qemu', 'version'), 'kernel': ('host', 'kernel'), 'guest': ('guest', 'kernel')}
EVENT_SIZE = 16
SEG_MAX_FIXED = 126  # 128 - 2, before seg_max_adjust and without it
WORKERS_SINCE = (6, 5)  # VHOST_NEW_WORKER


def main(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """(text, data) of the device. Errors: ConfigError."""
    given, vcpus, notes = asked(options)
    driver = str(given.pop('driver', 'vhost-scsi-pci'))
    if driver not in features.STACKS:
        known = ', '.join(features.STACKS)
        raise ConfigError(f'-device: {driver} is none of {known}')
    versions = {
        name: version(section, key, getattr(options, name))
        for name, (section, key) in VERSIONS.items()
    }
    rows = effective(driver, given, qemu=versions['qemu'], vcpus=vcpus)
    agreed = features.negotiate(
        driver=driver,
        qemu=versions['qemu'],
        host_kernel=versions['kernel'],
        guest_kernel=versions['guest'],
        properties={
            name: rows[name].value
            for name in features.properties_of(driver)
            if name in rows and rows[name].origin == 'given'
        },
    )
    data = described(driver, rows, agreed, vcpus)
    data['notes'] = [*notes, *data['notes']]
    write_config(data, options.write_config)
    return as_text(data), data


def asked(options: argparse.Namespace) -> tuple[dict[str, object], int, list[str]]:
    """Properties by name, vCPUs and notes; the string outranks the domain."""
    vcpus: int | None = version('guest', 'vcpus', options.vcpus)
    notes: list[str] = []
    given: dict[str, object] = {}
    if options.libvirt is not None:
        domain = read_domain(options.libvirt)
        found, place, notes = device_pairs(domain, options.libvirt)
        given |= {fold(name): value for name, value in found}
        notes.append(f'{options.libvirt}: {place}')
        cpus = domain.find('vcpu')
        if vcpus is None and cpus is not None:
            vcpus = int(version('guest', 'vcpus', cpus.get('current') or cpus.text))
    if options.string is not None:
        given |= {fold(name): value for name, value in pairs(options.string)}
    elif options.libvirt is None:
        raise ConfigError('device: give a -device string, as in vhost-scsi-pci,wwpn=naa.5, or '
                          '--libvirt FILE')  # fmt: skip
    return given, 1 if vcpus is None else vcpus, notes


def version(section: str, name: str, text: object) -> Any:
    """The value of a key, or its default if nothing is given; ConfigError if it is none."""
    item = fields_of(section)[name]
    key: Key = item.metadata['key']
    if text is None:
        return item.default
    return convert(key, f'{section}.{name}', Given(text, ''))


def described(
    driver: str, rows: Mapping[str, Effective], agreed: features.Negotiation, vcpus: int
) -> dict[str, Any]:
    """The device as data."""
    stack = features.STACKS[driver]
    queues, size = rows['num_queues'].value, rows['virtqueue_size'].value
    adjusted = 'seg_max_adjust' in rows and rows['seg_max_adjust'].value
    notes = []
    if queues > vcpus:
        notes.append(f'Linux uses one request queue per vCPU: {vcpus} of {queues}')
    refused = [agreed.refusal] if agreed.refusal else []
    if stack == VHOST and queues > MAX_IO_VQS:
        refused.append(
            f'kernel vhost-scsi serves {MAX_IO_VQS} request queues (max_io_vqs): more fail with '
            'ENOBUFS'
        )
    if (must := MUST.get(stack)) and rows[must].value == 'none':
        refused.append(f'{driver} needs {must}')
    return {
        'driver': driver,
        'backend': agreed.backend_name,
        'qemu': agreed.qemu,
        'host_kernel': agreed.host_kernel,
        'guest_kernel': agreed.guest_kernel,
        'vcpus': vcpus,
        'properties': [
            {'name': r.name, 'value': r.value, 'from': r.origin, 'meaning': r.meaning}
            for r in rows.values()
        ],
        'virtqueues': {
            'control': 0,
            'event': 1,
            'request': [QUEUES_FIXED, QUEUES_FIXED + queues - 1],
            'entries': size,
            'used_by_linux': min(queues, vcpus),
        },
        'workers': workers(stack, rows, agreed.host_kernel, notes),
        'config_space': {
            'num_queues': queues,
            'seg_max': size - 2 if adjusted else SEG_MAX_FIXED,
            'max_sectors': rows['max_sectors'].value,
            'cmd_per_lun': rows['cmd_per_lun'].value,
            'event_info_size': EVENT_SIZE,
            'sense_size': SENSE_SIZE,
            'cdb_size': CDB_SIZE,
            'max_channel': 0,
            'max_target': 255,
            'max_lun': 16383,
        },
        'bits': [bit_row(row, agreed) for row in agreed.rows()],
        'acked': hex(agreed.acked),
        'starts': not refused,
        'refused': refused,
        'notes': notes,
    }


def write_config(data: dict[str, Any], words: Sequence[str]) -> None:
    """The guest writes its config space: as it is then, or what QEMU says. Errors: ConfigError."""
    space: dict[str, int] = data['config_space']
    standing = space['sense_size'], space['cdb_size']
    written = dict(space)
    for word in words:
        name, _, value = word.partition('=')
        if name not in ('sense_size', 'cdb_size') or not value.isdecimal():
            raise ConfigError(
                f'--write-config {word}: a guest may write sense_size=N or cdb_size=N; the rest is '
                'read-only'
            )
        written[name] = int(value)
    sizes = written['sense_size'], written['cdb_size']
    said = refused_sizes(features.STACKS[data['driver']], sizes, standing)
    if said is None:
        data['config_space'] = written
        return
    data['refused'].append(f'{said} (the guest writes sense_size {sizes[0]}, cdb_size {sizes[1]})')


def workers(stack: str, rows: Mapping[str, Effective], kernel: str, notes: list[str]) -> str:
    """Who serves the rings, in words."""
    if stack == 'virtio-scsi':
        if rows['iothread'].value != 'none':
            return f'the IOThread {rows["iothread"].value}'
        if 'iothread_vq_mapping' in rows and rows['iothread_vq_mapping'].value != 'none':
            return f'IOThreads: {rows["iothread_vq_mapping"].value}'
        return "QEMU's main loop"
    if stack != VHOST:
        return 'a reactor of the vhost-user backend, which polls'
    one = 'one vhost worker: control, event and every request queue'
    if 'worker_per_virtqueue' not in rows or not rows['worker_per_virtqueue'].value:
        return one
    if features.version(kernel) < WORKERS_SINCE:
        notes.append(
            f'worker_per_virtqueue=on: Linux {kernel} has no VHOST_NEW_WORKER (ENOTTY): QEMU warns '
            'and goes on with one worker'
        )
        return one
    further = rows['num_queues'].value - 1
    return f'{1 + further} vhost workers: control, event and the first request queue share one'


def bit_row(row: Mapping[str, Any], agreed: features.Negotiation) -> dict[str, Any]:
    """One feature bit: what it means, and who dropped it; '' if it is agreed on."""
    known = features.BITS.get(row['bit'])
    return {
        'bit': row['bit'],
        'name': row['name'],
        'meaning': known.meaning if known else '',
        'here': known.here if known else '',
        'offered': row['offered'],
        'acked': row['acked'],
        'dropped_by': dropped_by(row['bit'], agreed),
        'why': row['why'],
    }


def dropped_by(bit: int, agreed: features.Negotiation) -> str:
    """Where the bit got lost on its way from the property to the backend."""
    if agreed.refused >> bit & 1:
        return 'backend, at SET_FEATURES'
    if agreed.has(bit):
        return ''
    if not agreed.host >> bit & 1:
        names = [n for n, row in features.properties_of(agreed.driver).items() if row.bit == bit]
        return 'property' if names and names[0] in dict(agreed.settings) else 'QEMU'
    if agreed.masked >> bit & 1:
        return 'backend, masked by QEMU'
    return 'modern driver' if agreed.hidden >> bit & 1 else 'guest'


def as_text(data: Mapping[str, Any]) -> str:
    """What a person wants to see."""
    queues = data['virtqueues']
    first, last = queues['request']
    lines = [
        f'{data["driver"]}: QEMU {data["qemu"]}, backend {data["backend"]}, host Linux '
        f'{data["host_kernel"]}; guest Linux {data["guest_kernel"]}, {data["vcpus"]} vCPUs',
        '',
        f'{"property":22} {"value":20} {"from":30} meaning',
    ]
    for row in data['properties']:
        value = {True: 'on', False: 'off'}[row['value']] if isinstance(row['value'], bool) else None
        value = str(row['value']) if value is None else value
        lines.append(f'{row["name"]:22} {value:20} {row["from"]:30} {row["meaning"]}')
    space = '  '.join(f'{name}={value}' for name, value in data['config_space'].items())
    lines += [
        '',
        f'virtqueues    0 control, 1 event, {first}..{last} request: {queues["entries"]} entries '
        f'each; Linux uses {queues["used_by_linux"]} request queues',
        f'served by     {data["workers"]}',
        f'config space  {space}',
        '',
        f'{"bit":>3}  {"name":28} {"offered":8} {"acked":6} {"dropped by":26} meaning',
    ]
    sign = {True: 'yes', False: '-'}
    for bit in data['bits']:
        lines.append(
            f'{bit["bit"]:3}  {bit["name"]:28} {sign[bit["offered"]]:8} {sign[bit["acked"]]:6} '
            f'{bit["dropped_by"]:26} {bit["meaning"]}'
        )
    lines += [f'note: {note}' for note in data['notes']]
    lines += [] if not data['starts'] else ['it starts']
    lines += [f'refused: {reason}' for reason in data['refused']]
    return '\n'.join(lines)
