"""The properties of QEMU's three virtio-scsi devices: defaults by version, and what is left open.

Sources: QEMU hw/scsi/vhost-scsi.c, vhost-user-scsi.c, virtio-scsi.c, virtio-scsi-pci.c and
hw/virtio/virtio-pci.c (virtio_pci_optimal_num_queues, since 5.2), at the versions of qemu.version.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sim import features
from sim.errors import ConfigError, shown
from sim.formats import fold, nearest
from sim.formats.values import WORDS

VHOST, USER, EMULATED = 'vhost-scsi', 'vhost-user-scsi', 'virtio-scsi'
ALL = (VHOST, USER, EMULATED)
QUEUE_MAX = 1024  # VIRTIO_QUEUE_MAX
QUEUES_FIXED = 2  # control and event
PLACES = ('id', 'bus', 'addr', 'acpi_index', 'multifunction', 'rombar', 'romfile')
BY_VCPUS = (5, 2)  # since when num_queues is by the number of vCPUs
NONE = 'none'


@dataclass(frozen=True, kw_only=True)
class Property:
    """One property; `default` as printed, `since` None where every version here has it."""

    name: str
    stacks: tuple[str, ...] = ALL
    kind: str = 'int'
    default: object
    since: tuple[int, int] | None = None
    low: int = 0
    high: int = 2**32 - 1
    meaning: str


TABLE = (
    Property(name='num_queues', default=None, low=1, high=QUEUE_MAX - QUEUES_FIXED,
             meaning='request queues, beside control and event'),
    Property(name='virtqueue_size', default=128, low=3, high=1024, meaning='entries of each ring'),
    Property(name='seg_max_adjust', stacks=(VHOST, EMULATED), kind='bool', default=True,
             since=(5, 0), meaning='seg_max is virtqueue_size - 2; off: 126'),
    Property(name='max_sectors', default=0xFFFF, low=1, high=2**32 - 1,
             meaning='longest transfer, in sectors of 512 bytes'),
    Property(name='cmd_per_lun', default=128, low=1, meaning='queue depth of a LUN'),
    Property(name='worker_per_virtqueue', stacks=(VHOST,), kind='bool', default=False,
             since=(9, 0), meaning='a vhost worker for each further request queue'),
    Property(name='migratable', stacks=(VHOST,), kind='bool', default=False,
             meaning='migration is not blocked'),
    Property(name='wwpn', stacks=(VHOST,), kind='text', default=NONE,
             meaning='name of the LIO target; must be given'),
    Property(name='vhostfd', stacks=(VHOST,), kind='text', default=NONE,
             meaning='an open /dev/vhost-scsi'),
    Property(name='chardev', stacks=(USER,), kind='text', default=NONE,
             meaning='the socket of the backend; must be given'),
    Property(name='boot_tpgt', stacks=(VHOST, USER), default=0,
             meaning='target that the firmware boots from'),
    Property(name='bootindex', stacks=(VHOST, USER), default=NONE, high=2**31 - 1,
             meaning='place in the boot order'),
    Property(name='iothread', stacks=(EMULATED,), kind='text', default=NONE,
             meaning='the IOThread that serves the rings; none: the main loop'),
    Property(name='iothread_vq_mapping', stacks=(EMULATED,), kind='mapping', default=NONE,
             since=(10, 0), meaning='which IOThread serves which virtqueue'),
    Property(name='vectors', default=None, high=2048, meaning='MSI-X vectors'),
    Property(name='ioeventfd', kind='bool', default=True,
             meaning='kicks go to an eventfd, not through the QEMU process'),
)  # fmt: skip
MUST = {VHOST: 'wwpn', USER: 'chardev'}


@dataclass(frozen=True, kw_only=True)
class Effective:
    """A property as it is in force; `origin` says who said so."""

    name: str
    value: Any
    origin: str
    meaning: str

    @property
    def text(self) -> str:
        """The value as QEMU writes it."""
        if isinstance(self.value, bool):
            return 'on' if self.value else 'off'
        return str(self.value)


def table_of(driver: str) -> dict[str, Property]:
    """The properties of a device, by name; feature bits last."""
    stack = features.STACKS[driver]
    rows = {row.name: row for row in TABLE if stack in row.stacks}
    for bit in features.properties_of(driver).values():
        meaning = features.name_of(bit.bit)
        rows[bit.name] = Property(
            name=bit.name, kind='bool', default=bit.default, since=bit.since, meaning=meaning
        )
    return rows


def effective(
    driver: str, given: Mapping[str, object], *, qemu: str, vcpus: int
) -> dict[str, Effective]:
    """Every property that this QEMU's device has, with its value.

    `given`: name (either spelling) and value as written. Raises ConfigError for what the device
    does not have or take.
    """
    rows, now = table_of(driver), features.version(qemu)
    asked = {fold(name): value for name, value in given.items() if fold(name) not in PLACES}
    for name in asked:
        if name not in rows:
            close = nearest(name, rows)
            raise ConfigError(f'{driver} has no property {shown(name)}; the nearest is {close!r}')
        since = rows[name].since
        if since and since > now:
            raise ConfigError(
                f"QEMU {qemu}: Property '{driver}.{name}' not found; it came with "
                f'{since[0]}.{since[1]}'
            )
    found = {}
    for name, row in rows.items():
        if row.since and row.since > now:
            continue
        if name in asked:
            value, origin = read(row, asked[name]), 'given'
        else:
            value, origin = default(row, driver, now, vcpus)
        found[name] = Effective(name=name, value=value, origin=origin, meaning=row.meaning)
    if found['vectors'].value is None:
        count = found['num_queues'].value + 3
        found['vectors'] = Effective(
            name='vectors', value=count, origin='auto: num_queues + 3', meaning='MSI-X vectors'
        )
    return found


def default(row: Property, driver: str, now: tuple[int, int], vcpus: int) -> tuple[Any, str]:
    """The default of a property and where it is from."""
    if row.name == 'num_queues':
        if now < BY_VCPUS:
            return 1, 'default: one before QEMU 5.2'
        return min(vcpus, row.high), f'auto: one per vCPU ({vcpus})'
    if row.name == 'virtqueue_size' and features.STACKS[driver] == EMULATED:
        return (128, 'default before QEMU 5.0') if now < (5, 0) else (256, 'default')
    return row.default, 'default'


def read(row: Property, value: object) -> Any:
    """A value as written; ConfigError if the property does not take it."""
    text = str(value).strip()
    if row.kind == 'text':
        return text
    if row.kind == 'mapping':
        return mapping(row.name, value)
    if row.kind == 'bool':
        if text.lower() not in WORDS:
            raise ConfigError(f'{row.name}={shown(value)}: is neither on nor off')
        return WORDS[text.lower()]
    try:
        number = int(text, 0)
    except ValueError:
        raise ConfigError(f'{row.name}={shown(value)}: is no whole number') from None
    if not row.low <= number <= row.high:
        raise ConfigError(f'{row.name}={number}: takes {row.low} to {row.high}')
    if row.name == 'virtqueue_size' and number & (number - 1):
        raise ConfigError(f'virtqueue_size={number}: is no power of two')
    return number


def mapping(name: str, value: object) -> str:
    """A list of IOThreads and their virtqueues as QEMU reads it, from JSON or the text of it.

    QEMU iothread_vq_mapping_validate(): either every entry has vqs or none has, and no IOThread
    stands there twice. What -device takes only as JSON is refused as anything else.
    """
    try:
        rows = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        rows = None
    wanted = '[{"iothread": "NAME", "vqs": [NUMBER, ...]}, ...]'
    if not isinstance(rows, list) or not rows or not all(map(_is_entry, rows)):
        raise ConfigError(f'{name}={shown(value)}: write JSON, {wanted}')
    if len({'vqs' in row for row in rows}) > 1:
        raise ConfigError(f'{name}: either every IOThread has vqs or none has')
    names = [row['iothread'] for row in rows]
    if len(set(names)) < len(names):
        raise ConfigError(f'{name}: an IOThread stands there twice')
    return json.dumps(rows)


def _is_entry(row: object) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get('iothread'), str):
        return False
    vqs = row.get('vqs', [])
    numbers = isinstance(vqs, list) and all(type(n) is int and n >= 0 for n in vqs)
    return numbers and not row.keys() - {'iothread', 'vqs'}
