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
from sim.formats.actions import resolve_hotplugs, resolve_tmfs
from sim.formats.disks import check_target, lay_preset, unused_keys
from sim.formats.driver_rules import QUEUES_MOST, check_driver, check_luns, foreign, stack_of
from sim.formats.faults import parse_faults
from sim.formats.fio import parse_job_file
from sim.formats.keys import (
    COST,
    KERNELS,
    REPLICATIONS_LEAST,
    SECTIONS,
    Device,
    Guest,
    Host,
    Hotplug,
    Key,
    Migration,
    Qemu,
    Run,
    Target,
    Tmf,
    Workload,
    fields_of,
    phases,
)
from sim.formats.layer import LISTS, Layer, Table, tree_of
from sim.formats.libvirt import parse_libvirt
from sim.formats.luns import Lun, alike, check_sizes, lun_of_job, resolve_luns
from sim.formats.qemu import feature_switches, parse_device, parse_pairs
from sim.formats.toml import read_toml, toml_table
from sim.formats.values import convert
from sim.formats.work_rules import refuse, resolve_job, unused_job_keys
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

PAGE = 4096
SECTOR = 512

Values = Mapping[str, Any]  # converted, of one section


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
    def agreed(self) -> features.Negotiation:
        """The feature bits that device and driver agree on."""
        sections = {name: vars(getattr(self, name)) for name in ('device', 'guest', 'host', 'qemu')}
        return negotiate(**sections, hypothetical=self.run.hypothetical)

    @property
    def id(self) -> str:
        """16 hex digits that tell configs apart; neither the engine nor a trace's path counts."""
        effective = self.effective()
        del effective['run']['engine']
        for job in effective['job']:
            job.pop('read_iolog', None)
        text = json.dumps(effective, sort_keys=True, separators=(',', ':'))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def effective(self) -> dict[str, Any]:
        """Every key that means something and its value, fit for JSON and from_effective()."""
        names = [name for name in SECTIONS if name != 'workload' and getattr(self, name)]
        sections = {name: printed(getattr(self, name)) for name in names}
        sections['target'] = self._disk(self.target)
        for section in ('device', 'host', 'qemu'):
            for unused in foreign(section, stack_of(vars(self.device))):
                sections[section].pop(unused, None)
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


def _of_run(toml: str | Path) -> Path:
    """A TOML file; of the folder of a saved run the config in it."""
    place = Path(toml)
    inside = place / 'config.toml'
    return inside if inside.is_file() else place


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
        layers.append(Layer(*read_toml(_of_run(toml))))
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


def values(section: str, table: Table, *, modelled: bool = True) -> dict[str, Any]:
    """The converted value or the default of each key of a section.

    A valid value that is not modelled yet is refused if `modelled`.
    """
    result = {}
    for name, item in fields_of(section).items():
        key: Key = item.metadata['key']
        key = key if modelled else replace(key, only=())
        given = table.get(name)
        result[name] = item.default if given is None else convert(key, f'{section}.{name}', given)
    return result


def meaningless(run: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys of [run] that change nothing, given the others."""
    unused: tuple[str, ...] = () if run['record'] == 'sampled' else ('sample_every',)
    if run['precision'] is None:
        unused += ('precision', 'max_replications')
        unused += ('replications',) if run['replications'] == 1 else ()
    return unused


def resolve_run(run: dict[str, Any], given: Table) -> None:
    """How often the config is simulated; a key that would change nothing is a misunderstanding."""
    wanted = run['precision'] is not None
    least = REPLICATIONS_LEAST if wanted else 1
    if run['replications'] is None:
        run['replications'] = min(least, run['max_replications']) if wanted else least
    for name, needs in (('sample_every', 'record=sampled'), ('max_replications', 'a precision')):
        if name in given and name in meaningless(run):
            raise ConfigError(
                f'{given[name].where}: run.{name} has no meaning without {needs}; take it out'
            )
    refuse(
        wanted and run['replications'] < 2,
        'run.replications=1: an interval takes at least 2 runs; raise it or leave out '
        'run.precision',
    )
    refuse(
        wanted and run['max_replications'] < run['replications'],
        f'run.max_replications={run["max_replications"]}: is below '
        f'run.replications={run["replications"]}; raise it',
    )


def resolve_engine(run: dict[str, Any], python: bool) -> None:
    """Compiled where it can: a component written in Python needs SimPy to call it."""
    refuse(
        python and run['engine'] == 'compiled',
        'run.engine=compiled: target.kind=python runs under the SimPy engine only, which calls the '
        'component; use run.engine=simpy',
    )
    if run['engine'] == 'auto':
        run['engine'] = 'simpy' if python else 'compiled'


def with_migration(config: Config) -> Config:
    """The same experiment with a [migration] table, if only of defaults."""
    if config.migration is not None:
        return config
    found = resolve_migration({'migration': {}}, vars(config.host), vars(config.qemu))
    return replace(config, migration=Migration(**found))


def resolve_migration(given: Mapping[str, Table], host: Values, qemu: Values) -> dict[str, Any]:
    """The destination is like the source unless something else is said."""
    found = values('migration', given['migration'])
    found['to_kernel'] = found['to_kernel'] or host['kernel']
    found['to_qemu'] = found['to_qemu'] or qemu['version']
    parse_faults(found['faults'])
    return found


def threads_of(jobs: Sequence[Workload]) -> int:
    """How many clones run at one time, at most."""
    return max(sum(jobs[index].numjobs for index in phase) for phase in phases(jobs))


def resolve_guest(guest: dict[str, Any], jobs: Sequence[Workload]) -> None:
    """A vCPU for each clone that runs at one time; where there are fewer, they share."""
    guest['vcpus'] = guest['vcpus'] or threads_of(jobs)


def resolve_queues(device: dict[str, Any], vcpus: int, qemu: str, notes: list[str]) -> None:
    """How many request queues QEMU makes, the host serves and the guest uses."""
    asked = device['num_queues'] or (1 if qemu == '4.2' else vcpus)
    most, reason = QUEUES_MOST[stack_of(device)]
    refuse(asked > most, f'device.num_queues={asked}: {reason}; give a lower number')
    device['num_queues'] = min(asked, vcpus)
    if asked > vcpus:
        notes.append(f'device.num_queues={asked}: Linux uses one per vCPU, that is {vcpus}')


def check_polling(
    guest: Values, device: Values, jobs: Sequence[Workload], notes: list[str]
) -> None:
    """Poll queues are the last request queues, and polled I/O needs one."""
    asked, polled = guest['poll_queues'], min(guest['poll_queues'], device['num_queues'] - 1)
    refuse(
        asked and guest['kernel'] == '6.1',
        f'guest.poll_queues={asked}: Linux 6.1 has no virtscsi_poll_queues yet; raise guest.kernel',
    )
    if polled < asked:
        notes.append(
            f'guest.poll_queues={asked}: one request queue is left to interrupts, {polled} of '
            f'{device["num_queues"]} are polled'
        )
    for job in jobs:
        refuse(
            job.hipri and job.ioengine != 'io_uring',
            f'workload.hipri=on: {job.ioengine} has no polled I/O; use workload.ioengine=io_uring',
        )
        refuse(
            job.hipri and not polled,
            'workload.hipri=on: Linux refuses polled I/O (EOPNOTSUPP) on a device without poll '
            'queues; set guest.poll_queues and at least two device.num_queues',
        )
    wanted = [job.iodepth for job in jobs if job.hipri for _ in range(job.numjobs)]
    if wanted:
        share = max(wanted) * -(-len(wanted) // polled)  # of one poll queue, at most
        room = min(device['virtqueue_size'], guest['can_queue'] or device['virtqueue_size'])
        refuse(
            share > room,
            f'workload.hipri=on: {share} polled requests may want one queue, which has {room}: in '
            'this model a thread that waits for a tag does not poll, and all could wait for ever; '
            'lower workload.iodepth, or raise guest.poll_queues or device.virtqueue_size',
        )


def check_host(host: Mapping[str, Any]) -> None:
    """LIO's shortcuts came with later kernels."""
    for name, kernels, since in (
        ('submit_type', ('6.1',), 'it came with Linux 6.7'),
        ('complete_type', ('6.1', '6.12'), 'of the kernels here only 7.2 has it'),
    ):
        refuse(
            host[name] == 'direct' and host['kernel'] in kernels,
            f'host.{name}=direct: Linux {host["kernel"]} has no such attribute, {since}; raise '
            'host.kernel or take it out',
        )


def check_rings(device: dict[str, Any], sizes: Sequence[int]) -> None:
    """A ring that QEMU makes, and that holds the longest request.

    With INDIRECT_DESC, too, a chain is no longer than the ring (virtio "Split Virtqueues"). Each
    page is a segment; seg_max cannot be less than what this and the limit of bs leave.
    """
    num = device['virtqueue_size']
    refuse(num <= 2, f'device.virtqueue_size={num}: QEMU refuses to realize it, must be > 2')
    refuse(num & (num - 1), f'device.virtqueue_size={num}: is no power of two; use 4 to 1024')
    for size in sizes:
        chain = 2 + -(-size // PAGE)
        refuse(
            chain > num,
            f'device.virtqueue_size={num}: a request of {chain} descriptors does not fit a ring of '
            f'{num}; raise it or lower workload.bs={size}',
        )
        refuse(
            size > device['max_sectors'] * SECTOR,
            f'device.max_sectors={device["max_sectors"]}: is less than workload.bs={size}; '
            'blk-mq would split it, which is not modelled yet',
        )


# -------------------------------------------------------------------------------------- features

FEATURE_KEYS = ('packed', 'event_idx', 'indirect_desc', 'in_order', 't10_pi', 'hotplug')


def negotiate(
    device: Values, guest: Values, host: Values, qemu: Values, *, hypothetical: bool
) -> features.Negotiation:
    """The negotiation of the bits that the sections ask for."""
    return features.negotiate(
        driver=device['driver'],
        qemu=qemu['version'],
        host_kernel=host['kernel'],
        guest_kernel=guest['kernel'],
        properties={
            name: device[name]
            for name in FEATURE_KEYS
            if name in features.properties_of(device['driver'])
        },
        hypothetical=hypothetical,
    )


def check_features(
    device: dict[str, Any],
    guest: Values,
    host: Values,
    qemu: Values,
    given: Mapping[str, Table],
    notes: list[str],
    *,
    hypothetical: bool,
) -> None:
    """What the backend offers, and what becomes of asking for more: refused, or off with a note.

    No note on what nobody has asked for: it was only a default.
    """
    agreed = negotiate(device, guest, host, qemu, hypothetical=hypothetical)
    rows = features.properties_of(device['driver'])
    asked = {name: rows[name].bit for name in FEATURE_KEYS if device[name]}
    for name, bit in asked.items():
        since = rows[name].since
        if since and name in agreed.missing and not hypothetical:
            raise ConfigError(
                f'device.{name}=on: QEMU {qemu["version"]} has no such property, it came with '
                f'{since[0]}.{since[1]}; take it out or raise qemu.version'
            )
        refuse(agreed.refused >> bit & 1, f'device.{name}=on: {agreed.refusal}; take it out')
        if agreed.has(bit):
            continue
        device[name] = False
        if name not in given['device']:
            continue
        label = features.name_of(bit)
        if agreed.masked >> bit & 1:
            reason = f'{agreed.backend_name} does not offer {label}, QEMU masks it'
        else:
            able = [k for k in KERNELS if features.linux_accepts(k) >> bit & 1]
            reason = f'Linux {guest["kernel"]} in the guest does not ack {label}'
            reason += f' (guest.kernel={able[0]} does)' if able else ''
        notes.append(f'device.{name}=on: {reason}: it is off')
    if hypothetical and not agreed.hypothetical:
        notes.append('run.hypothetical=on has no effect: nothing hypothetical is asked for')


def agreement(
    *, toml: str | Path | None = None, device: str | None = None, sets: Sequence[str] = ()
) -> features.Negotiation:
    """The negotiation alone, of any driver, whether or not the device would start with it.

    Sources as of load(); in the -device string every property that sets a feature bit counts.
    Errors: ConfigError, as of load().
    """
    layers = [] if toml is None else [Layer(*read_toml(_of_run(toml)))]
    switches: dict[str, bool] = {}
    if device is not None:
        switches, rest = feature_switches(device)
        layers.append(Layer({'device': parse_pairs(rest)[0]}))
    layers.append(Layer(tree_of(sets), lambda dotted, nth: '--set'))
    names = ('device', 'guest', 'host', 'qemu', 'run')
    merged: dict[str, Table] = {name: {} for name in names}
    for layer in layers:
        for name in names:
            merged[name] |= layer.tables.get(name, {})
    found = {name: values(name, table, modelled=False) for name, table in merged.items()}
    driver = found['device']['driver']
    known = features.properties_of(driver)
    given = {name: found['device'][name] for name in FEATURE_KEYS if name in merged['device']}
    given = switches | given
    for name in given:
        refuse(name not in known, f'{name}: is no property of {driver}; take it out')
    return features.negotiate(
        driver=driver,
        qemu=found['qemu']['version'],
        host_kernel=found['host']['kernel'],
        guest_kernel=found['guest']['kernel'],
        properties=given,
        hypothetical=found['run']['hypothetical'],
    )
