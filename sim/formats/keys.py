"""The keys of a config, section by section: fio's words, QEMU's -device options, the kernels' own.

Each field of a section carries a Key that says what may stand in it. Times are int ns and sizes int
bytes. The sections are made by sim.config.load(), which fills in what is AUTO here.
"""

from collections.abc import Sequence
from dataclasses import Field, dataclass, fields
from typing import Any

from sim.formats.action_keys import Hotplug as Hotplug
from sim.formats.action_keys import Tmf as Tmf
from sim.formats.disk_keys import Target as Target
from sim.formats.key import Key as Key
from sim.formats.key import key
from sim.formats.migration_keys import Migration as Migration
from sim.formats.work_keys import REQUESTS_DEFAULT as REQUESTS_DEFAULT
from sim.formats.work_keys import Workload as Workload
from sim.formats.worker_map import WorkerMap

REPLICATIONS_LEAST = 5  # before an interval is held against run.precision
AUTO: Any = None  # load() chooses, by the rest of the config

KERNELS = ('6.1', '6.12', '7.2')
BUG = '(control_silent|tmf_no_flush|plug_unchecked|no_ioctl_flush|no_bounce|endpoint_twice)'


@dataclass(frozen=True, kw_only=True)
class Guest:
    """The virtual machine and the kernel in it."""

    vcpus: int = key(
        AUTO,
        'int',
        'virtual CPUs; auto is one per clone running at one time. With fewer, clones share them in '
        'turn: the next runs when one sleeps, or after a slice (guest.sched_slice)',
        low=1,
        high=4096,
    )
    kernel: str = key('6.12', 'choice', "the guest's Linux", choices=KERNELS)
    halt_poll_ns: int = key(
        200_000, 'int', 'kvm.halt_poll_ns: how long the host polls for an idle vCPU, in ns',
        high=10**9,
    )  # fmt: skip
    poll_queues: int = key(
        0, 'int', 'virtio_scsi.virtscsi_poll_queues: so many of the request queues, the last ones, '
        'are polled (Linux 6.12 and later; one queue is left to interrupts)',
        high=1024,
    )  # fmt: skip
    can_queue: int | None = key(
        None, 'int', 'commands of all LUNs and queues together that the SCSI host lets out at one '
        'time; Linux has no such limit for virtio_scsi', low=1, high=2**31 - 1,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Device:
    """The options of QEMU's -device."""

    driver: str = key(
        'vhost-scsi-pci', 'choice', "the device: kernel vhost-scsi, SPDK's reactor, QEMU's IOThread"
        '; see docs/reference/backends.md',
        choices=('vhost-scsi-pci', 'vhost-scsi', 'vhost-user-scsi-pci', 'virtio-scsi-pci'),
        only=('vhost-scsi-pci', 'vhost-user-scsi-pci', 'virtio-scsi-pci'),
    )  # fmt: skip
    num_queues: int = key(
        AUTO, 'int', 'request queues; auto is one per vCPU (QEMU 4.2: one)', low=1, high=1021
    )
    virtqueue_size: int = key(
        AUTO, 'int', 'entries of a ring, a power of two; auto is 128, virtio-scsi-pci 256 (QEMU '
        '4.2: 128)', high=1024,
    )  # fmt: skip
    cmd_per_lun: int = key(128, 'int', 'queue depth of a LUN', low=1, high=2**32 - 1)
    max_sectors: int = key(65535, 'int', 'longest transfer in sectors of 512', low=1, high=65535)
    seg_max_adjust: bool = key(True, 'bool', 'seg_max is virtqueue_size - 2; off: 126')
    worker_per_virtqueue: bool = key(False, 'bool', 'a vhost worker for each request queue')
    migratable: bool = key(False, 'bool', 'migration is not blocked')
    wwpn: str = key(
        'naa.5001405000000001', 'text', 'name of the vhost target: naa.…, fc.… or iqn.…',
        pattern=r'(naa|fc|iqn)\..{1,200}',
    )  # fmt: skip
    bootindex: int | None = key(None, 'int', 'place in the boot order', high=2**31 - 1)
    boot_tpgt: int = key(0, 'int', 'target that the firmware boots from', high=255)
    packed: bool = key(
        False, 'bool', 'packed rings (VIRTIO_F_RING_PACKED); takes virtio-scsi-pci, or '
        'run.hypothetical',
    )  # fmt: skip
    event_idx: bool = key(True, 'bool', 'VIRTIO_RING_F_EVENT_IDX')
    indirect_desc: bool = key(True, 'bool', 'VIRTIO_RING_F_INDIRECT_DESC')
    in_order: bool = key(
        False, 'bool', 'VIRTIO_F_IN_ORDER; takes virtio-scsi-pci or run.hypothetical, and '
        'guest.kernel 7.2',
    )  # fmt: skip
    t10_pi: bool = key(False, 'bool', 'protection information (T10 PI)', only=(False,))
    hotplug: bool = key(
        AUTO, 'bool', 'LUN hot-plug events; auto is off, on with the other two drivers'
    )


@dataclass(frozen=True, kw_only=True)
class Host:
    """The hypervisor's kernel and CPU."""

    kernel: str = key('6.12', 'choice', "the host's Linux: vhost, LIO", choices=KERNELS)
    cpu_hz: int = key(
        2_600_000_000, 'int', 'the clock in which time is counted, Hz', low=10**8, high=9 * 10**9
    )
    workers: int | WorkerMap = key(
        AUTO, 'workers',
        'vhost workers, or the virtqueues of each; auto is 1, or what worker_per_virtqueue says',
        low=1, high=1024,
    )  # fmt: skip
    worker_cpus: str | None = key(
        None, 'cpus', "each worker's host CPU; auto is one of its own, one number twice is shared"
    )
    shared_cpus: str | None = key(
        None, 'text', 'threads that share a host CPU, as "vhost lio_submit lio_complete"; '
        'semicolons part CPUs; auto is a CPU for each',
    )  # fmt: skip
    scheduler: str = key(
        AUTO, 'choice', 'of a CPU that shared_cpus names; auto is eevdf, cfs before Linux 6.6',
        choices=('cfs', 'eevdf'),
    )  # fmt: skip
    deep_idle: bool = key(
        False, 'bool', "idle host CPUs enter deep C-states; off: as with intel_idle.max_cstate=1"
    )
    submit_type: str = key(
        'queue', 'choice', "LIO's submit_type; direct since Linux 6.7", choices=('queue', 'direct')
    )
    complete_type: str = key(
        'queue', 'choice', "LIO's complete_type; direct with 7.2", choices=('queue', 'direct')
    )
    lio_submission: str = key(
        'batched', 'choice', 'how vhost-scsi hands commands to LIO; per_command before Linux 5.13',
        choices=('batched', 'per_command'),
    )  # fmt: skip
    bugs: str | None = key(
        None, 'text', 'bugs of the past that it has: control_silent, tmf_no_flush, plug_unchecked, '
        'no_ioctl_flush, no_bounce, endpoint_twice', pattern=f'{BUG}( *, *{BUG})*',
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Qemu:
    """The virtual machine monitor."""

    version: str = key(
        '10.2', 'choice', 'whose defaults apply',
        choices=('4.2', '5.2', '7.2', '8.2', '9.2', '10.0', '10.1', '10.2'),
    )  # fmt: skip
    poll_max_ns: int = key(
        32768, 'int', "the IOThread's poll-max-ns: longest time of polling, 0 for none, in ns",
        high=10**9,
    )  # fmt: skip
    poll_grow: int = key(
        0, 'int', "the IOThread's poll-grow: factor by which polling grows, 0 for 2", high=1000
    )
    poll_shrink: int = key(
        0, 'int', "the IOThread's poll-shrink: divisor by which it shrinks, 0 for to nothing",
        high=1000,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Run:
    """How the simulator works; the engine does not change the results."""

    engine: str = key(
        'auto',
        'choice',
        'the scheduler; auto is compiled, for a disk written in Python simpy',
        choices=('auto', 'simpy', 'compiled'),
    )
    seed: int = key(1, 'int', 'seed of every random stream')
    record: str = key(
        'full', 'choice', 'what is kept of each request (docs/reference/results.md)',
        choices=('full', 'histogram', 'sampled'),
    )  # fmt: skip
    sample_every: int = key(
        101, 'int', 'with record=sampled: every n-th request keeps its row; a prime by default, so '
        'that it does not keep step with batches', low=1, high=10**9,
    )  # fmt: skip
    replications: int = key(
        AUTO, 'int', 'independent runs; auto is 1, or 5 at least with a precision', low=1, high=1000
    )
    precision: str | None = key(
        None, 'precision', 'replicate until the 95 % interval of each named number is no wider '
        'than ± this share of it: mean, p50, p90, p99, p999 (of latency_ns), iops, fio_lat_ns.p99 '
        'and its like',
    )  # fmt: skip
    max_replications: int = key(
        50, 'int', 'with precision: give up after so many runs', low=2, high=1000
    )
    preset: str = key('icx-2.6ghz', 'text', 'costs: the name of a preset or a path of a TOML file')
    hypothetical: bool = key(
        False, 'bool', 'let the backend offer what the real one does not: packed, in_order '
        '(docs/reference/features.md)',
    )  # fmt: skip
    warmup: str = key(
        'auto', 'text', 'requests left out of statistics: auto, off or a number',
        pattern='auto|off|[0-9]{1,9}',
    )  # fmt: skip


SECTIONS: dict[str, type] = {
    'workload': Workload,
    'guest': Guest,
    'device': Device,
    'host': Host,
    'qemu': Qemu,
    'target': Target,
    'run': Run,
    'migration': Migration,
}


@dataclass(frozen=True, kw_only=True)
class LunPlace:
    """Where a LUN of a [[lun]] table is; the rest of the table are keys of [target]."""

    number: int = key(AUTO, 'int', 'its number; auto is the first free one', high=0x3FFF)
    target: int = key(
        AUTO, 'int', 'the target (tpgt) that has it; auto is device.boot_tpgt', high=255
    )


ACTIONS: dict[str, type] = {'tmf': Tmf, 'hotplug': Hotplug}
LUN_PLACE = {item.name: item for item in fields(LunPlace)}
COST = Key(kind='time', help='a parameter of the preset', unit='ns', high=10 * 10**9)


def fields_of(section: str) -> dict[str, Field[Any]]:
    """The fields of a section by name; those of 'lun' are of a [[lun]] table, and so on."""
    if section in ACTIONS:
        return {item.name: item for item in fields(ACTIONS[section])}
    if section == 'lun':
        return LUN_PLACE | {name: f for name, f in fields_of('target').items() if name != 'luns'}
    return {item.name: item for item in fields(SECTIONS[section])}


def aliases_of(section: str) -> dict[str, str]:
    """Other names of keys, and the keys."""
    found = {item.metadata['key'].alias: name for name, item in fields_of(section).items()}
    found.pop('', None)
    return found


def phases(jobs: Sequence[Workload]) -> tuple[tuple[int, ...], ...]:
    """Groups of indices; a stonewall that is not the first job begins a group."""
    groups: list[list[int]] = [[]]
    for index, job in enumerate(jobs):
        if job.stonewall and groups[-1]:
            groups.append([])
        groups[-1].append(index)
    return tuple(map(tuple, groups))
