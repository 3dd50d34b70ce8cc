"""The experiment as data: read from wherever it is given, checked, complete.

    load(fio='job.fio', device='vhost-scsi-pci,num_queues=4', sets=['target.service=50us'])

A later source outranks an earlier one: defaults, keyword arguments, TOML file, fio file and -device
string, `sets`. In a key '-' and '_' are the same. What comes out is a Config in which nothing is
left to guess: 'auto' is resolved, times are int ns, sizes int bytes, and a combination that the
real stack refuses has been refused. docs/reference/config.md has the table of the keys.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim import features
from sim.errors import ConfigError, shown
from sim.formats import refuse
from sim.formats.actions import resolve_hotplugs, resolve_tmfs
from sim.formats.disks import check_target, lay_preset, unused_keys
from sim.formats.driver_rules import check_driver, check_luns, foreign, stack_of
from sim.formats.feature_rules import check_features, negotiate
from sim.formats.fio import parse_job_file
from sim.formats.keys import (
    COST,
    SECTIONS,
    Device,
    Guest,
    Host,
    Hotplug,
    Migration,
    Qemu,
    Run,
    Target,
    Tmf,
    Workload,
    phases,
)
from sim.formats.layer import LISTS, Layer, Table, tree_of
from sim.formats.libvirt import parse_libvirt
from sim.formats.luns import Lun, alike, check_sizes, lun_of_job, resolve_luns
from sim.formats.machine_rules import (
    SECTOR,
    check_host,
    check_polling,
    check_rings,
    resolve_guest,
    resolve_queues,
    threads_of,
)
from sim.formats.outside import contents
from sim.formats.qemu import parse_device
from sim.formats.run_rules import meaningless, resolve_engine, resolve_migration, resolve_run
from sim.formats.section import values
from sim.formats.shared_cpus import groups_of, resolve_shared_cpus
from sim.formats.toml import config_file, read_toml, toml_table
from sim.formats.values import convert
from sim.formats.work_rules import resolve_job, unused_job_keys
from sim.formats.work_values import Pair
from sim.formats.worker_map import cpus_of, spread
from sim.formats.workers import resolve_workers
from sim.units import format_time

if TYPE_CHECKING:
    from sim.formats.replay import Replay

__all__ = [
    'Config',
    'ConfigError',
    'Device',
    'Guest',
    'Host',
    'Qemu',
    'Run',
    'Target',
    'Workload',
    'from_effective',
    'load',
]


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole experiment, made by load() or from_effective() only."""

    jobs: tuple[Workload, ...]
    guest: Guest
    device: Device
    host: Host
    qemu: Qemu
    target: Target
    run: Run
    luns: tuple[Lun, ...] = ()  # of [[lun]] tables; without any there are target.luns alike
    tmfs: tuple[Tmf, ...] = ()
    hotplugs: tuple[Hotplug, ...] = ()  # in the order of their times
    migration: Migration | None = None  # where a [migration] table asks for one
    costs: dict[str, int] = field(default_factory=dict)  # 'kick.exit_to_kernel_roundtrip' -> ns
    notes: tuple[str, ...] = field(default=(), compare=False)
    # Of each job its trace, if it replays one; the hash in the job stands for it in comparisons.
    replays: 'tuple[Replay | None, ...]' = field(default=(), compare=False, repr=False)

    @property
    def phases(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the jobs that run at the same time; a stonewall begins the next phase."""
        return phases(self.jobs)

    @property
    def longest(self) -> tuple[int, ...]:
        """Bytes of the longest request of each job."""
        pairs = zip(self.jobs, self.replays, strict=True)
        return tuple(r.blocks_max * SECTOR if r else job.largest for job, r in pairs)

    @property
    def disks(self) -> tuple[Lun, ...]:
        """Every LUN with its disk."""
        return self.luns or alike(self.target, self.device.boot_tpgt)

    @property
    def threads(self) -> int:
        """How many clones run at one time, at most."""
        return threads_of(self.jobs)

    @property
    def polled_queues(self) -> int:
        """How many of the request queues, the last ones, are polled (virtscsi_init)."""
        return min(self.guest.poll_queues, self.device.num_queues - 1)

    def is_late(self, lun: Lun) -> bool:
        """Is the LUN added by a [[hotplug]] table, so that it is not there at the start?"""
        place = (lun.target, lun.number)
        first = (a.action for a in self.hotplugs if (a.target, a.lun) == place)
        return next(first, '') == 'add'

    def lun_of(self, job: Workload) -> int:
        """Which of the disks a job works on."""
        return lun_of_job(vars(job), 'workload', self.disks)

    @property
    def worker_vqs(self) -> tuple[tuple[int, ...], ...]:
        """The virtqueues of each vhost worker."""
        return spread(self.host.workers, self.device.num_queues)

    @property
    def worker_cpus(self) -> tuple[int, ...]:
        """The host CPU of each vhost worker, numbered from 0 as they first appear."""
        return cpus_of(self.host.worker_cpus, len(self.worker_vqs))

    @property
    def shared_cpus(self) -> tuple[tuple[str, ...], ...]:
        """The threads of each host CPU that several share, by name of their agents."""
        return groups_of(self.host.shared_cpus)

    @property
    def agreed(self) -> features.Negotiation:
        """The feature bits that device and driver agree on."""
        sections = {name: vars(getattr(self, name)) for name in ('device', 'guest', 'host', 'qemu')}
        return negotiate(**sections, hypothetical=self.run.hypothetical)

    @property
    def id(self) -> str:
        """16 hex digits that tell configs apart; neither the engine nor a trace's path counts.

        The text of files of the user's does that are not contained in it (sim.formats.outside).
        """
        effective = self.effective()
        del effective['run']['engine']
        for job in effective['job']:
            job.pop('read_iolog', None)
        text = json.dumps(effective, sort_keys=True, separators=(',', ':'))
        digest = hashlib.sha256(text.encode())
        for content in contents(self.run.preset, (lun.disk.component for lun in self.disks)):
            digest.update(content)
        return digest.hexdigest()[:16]

    def effective(self) -> dict[str, Any]:
        """Every key that means something and its value, fit for JSON and from_effective()."""
        names = [name for name in SECTIONS if name != 'workload' and getattr(self, name)]
        sections = {name: printed(getattr(self, name)) for name in names}
        sections['target'] = self._disk(self.target)
        for section in ('device', 'host', 'qemu'):
            for unused in foreign(section, stack_of(vars(self.device))):
                sections[section].pop(unused, None)
        if not self.shared_cpus:
            del sections['host']['shared_cpus'], sections['host']['scheduler']
        for unused in meaningless(sections['run']):
            del sections['run'][unused]
        costs = {name: format_time(ns) for name, ns in sorted(self.costs.items())}
        jobs = [printed(job) for job in self.jobs]
        for job in jobs:
            for unused in unused_job_keys(job):
                del job[unused]
        luns = [
            {'number': lun.number, 'target': lun.target, **self._disk(lun.disk)}
            for lun in self.luns
        ]
        if luns:
            for table in (*luns, sections['target']):
                del table['luns']
        lists = {
            'lun': luns,
            'tmf': [printed(tmf) for tmf in self.tmfs],
            'hotplug': [printed(action) for action in self.hotplugs],
        }
        lists = {name: tables for name, tables in lists.items() if tables}
        return {'job': jobs, **lists, **sections, 'costs': costs}

    def _disk(self, disk: Target) -> dict[str, Any]:
        """The keys of a disk that mean something."""
        unused = unused_keys(vars(disk), self.host.kernel)
        return {name: value for name, value in printed(disk).items() if name not in unused}

    def to_toml(self) -> str:
        """The effective config as a TOML file that load() reads."""
        effective = self.effective()
        tables = [
            toml_table(f'[[{name}]]', table) for name in LISTS for table in effective.pop(name, [])
        ]
        return '\n'.join(
            [*tables, *(toml_table(f'[{name}]', table) for name, table in effective.items())]
        )


def printed(section: Any) -> dict[str, Any]:
    """The values of a section, times and whatever TOML has no type for as text."""
    result = {}
    for item in fields(section):
        value = getattr(section, item.name)
        if value is not None and item.metadata['key'].kind == 'time':
            value = format_time(value)
        elif isinstance(value, Pair) and isinstance(value.read, int) and value.read == value.write:
            value = value.read
        elif value is not None and not isinstance(value, int | str):
            value = str(value)
        result[item.name] = value
    return result


def from_effective(effective: Mapping[str, Any]) -> Config:
    """The Config whose effective() this is; ConfigError if it is none."""
    if not isinstance(effective, Mapping):
        raise ConfigError(f'{shown(effective)} is no effective config; it is a table of sections')
    return combine([Layer(effective, lambda dotted, nth: 'effective config')], Layer({}), [])


def load(
    *,
    toml: str | Path | None = None,
    fio: str | Path | None = None,
    device: str | Mapping[str, Any] | None = None,
    libvirt: str | Path | None = None,
    trace: str | Path | None = None,
    sets: Sequence[str] = (),
    under: Mapping[str, Any] | None = None,
    **sections: Any,
) -> Config:
    """Read, combine and check; ConfigError, on one line, for whatever makes no sense.

    Keyword arguments are sections, such as target={'kind': 'null'}, and rank below every file;
    `device` is a section if it is a mapping and a -device string if it is text. A table of one job
    outranks [workload], which is for all jobs; a fio file replaces all job tables.
    `libvirt` is a domain XML, whose device ranks below a string.
    `trace` is a file that the one job replays, as workload.read_iolog. `sets` are
    'section.key=value'; 'workload.key=value' sets the key of every job. `under` are sections that
    rank below everything else.
    """
    notes: list[str] = []
    if isinstance(device, Mapping):
        sections['device'], device = device, None
    layers = [Layer(table or {}, lambda dotted, nth: 'load()') for table in (under, sections)]
    if toml is not None:
        layers.append(Layer(*read_toml(config_file(toml))))
    if fio is not None:
        jobs, told = parse_job_file(fio)
        notes += told
        if any(layer.jobs for layer in layers):
            notes.append(f'{fio}: its jobs replace the [[job]] tables')
        layers.append(Layer({'job': jobs}))
    if libvirt is not None:
        domain, told = parse_libvirt(libvirt)
        notes += told
        layers.append(Layer(domain))
    if device is not None:
        table, told = parse_device(device)
        notes += told
        layers.append(Layer({'device': table}))
    if trace is None:
        return combine(layers, Layer(tree_of(sets), lambda dotted, nth: '--set'), notes)
    sets = [*sets, f'workload.read_iolog={trace}']
    config = combine(layers, Layer(tree_of(sets), lambda dotted, nth: '--set'), notes)
    refuse(
        len(config.jobs) > 1,
        f'--trace {trace}: one job replays it, and there are {len(config.jobs)}; write read_iolog= '
        'into the one that shall',
    )
    return config


def combine(layers: Sequence[Layer], last: Layer, notes: list[str]) -> Config:
    """Lay each layer over those before it, and `last` over every job as well."""
    merged: dict[str, Table] = {name: {} for name in SECTIONS}
    costs: Table = {}
    for layer in layers:
        for name in SECTIONS:
            merged[name] |= layer.tables.get(name, {})
        costs |= layer.costs
    tables: list[Table] = next((layer.jobs for layer in reversed(layers) if layer.jobs), [{}])
    lists: dict[str, list[Table]] = {
        name: next((getattr(layer, name) for layer in reversed(layers) if getattr(layer, name)), [])
        for name in ('luns', 'tmfs', 'hotplugs')
    }
    ends = last.tables.get('workload', {})
    tables = [{**merged['workload'], **table, **ends} for table in tables]
    given = {name: merged[name] | last.tables.get(name, {}) for name in SECTIONS}
    given['target'] = lay_preset(given['target'])
    costs |= last.costs
    return build(tables, lists, given, costs, notes)


# ---------------------------------------------------------------------------------- what must hold


def build(
    tables: Sequence[Table],
    lists: Mapping[str, Sequence[Table]],
    given: Mapping[str, Table],
    costs: Table,
    notes: list[str],
) -> Config:
    """Convert every value, resolve what is auto, and check what concerns more than one key."""
    guest, device, host, qemu, target, run = (
        values(name, given[name]) for name in ('guest', 'device', 'host', 'qemu', 'target', 'run')
    )
    check_driver(device, host, qemu['version'], given, lists, notes)
    check_target(target, given['target'], host['kernel'])
    tpgt = device['boot_tpgt']
    luns = resolve_luns(lists['luns'], given['target'], tpgt, host['kernel'], values)
    there = luns or alike(Target(**target), tpgt)
    check_sizes(there)
    check_luns(stack_of(device), there)
    resolve_engine(run, any(lun.disk.kind == 'python' for lun in there))
    check_host(host)
    resolve_run(run, given['run'])
    jobs = [values('workload', table) for table in tables]
    replays = []
    for number, (job, table) in enumerate(zip(jobs, tables, strict=True), 1):
        job['target'] = tpgt if job['target'] is None else job['target']
        lun = there[lun_of_job(job, f'job {number}: workload', there)]
        replays.append(resolve_job(job, table, f'job {number}', lun.disk, device, notes))
    workloads = tuple(Workload(**job) for job in jobs)
    names = [job.name for job in workloads]
    twice = next((name for name in names if names.count(name) > 1), None)
    refuse(twice, f'workload.name={twice}: two jobs have this name; rename one')
    resolve_guest(guest, workloads)
    resolve_queues(device, guest['vcpus'], qemu['version'], notes)
    check_polling(guest, device, workloads, notes)
    resolve_workers(device, host, qemu['version'], notes)
    resolve_shared_cpus(host, device, guest['vcpus'])
    check_features(device, guest, host, qemu, given, notes, hypothetical=run['hypothetical'])
    hotplugs = resolve_hotplugs(lists['hotplugs'], there, tpgt, values)
    if hotplugs and not device['hotplug']:
        notes.append('[[hotplug]]: the guest hears nothing of it without device.hotplug=on')
    config = Config(
        jobs=workloads,
        guest=Guest(**guest),
        device=Device(**device),
        host=Host(**host),
        qemu=Qemu(**qemu),
        target=Target(**target),
        run=Run(**run),
        luns=luns,
        tmfs=resolve_tmfs(lists['tmfs'], tpgt, values),
        hotplugs=hotplugs,
        migration=Migration(**resolve_migration(given, host, qemu)) if given['migration'] else None,
        costs={name: convert(COST, f'costs.{name}', value) for name, value in costs.items()},
        notes=tuple(notes),
        replays=tuple(replays),
    )
    check_rings(device, config.longest)
    return config


def with_migration(config: Config) -> Config:
    """The same experiment with a [migration] table, if only of defaults."""
    if config.migration is not None:
        return config
    found = resolve_migration({'migration': {}}, vars(config.host), vars(config.qemu))
    return replace(config, migration=Migration(**found))
