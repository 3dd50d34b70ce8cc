"""What must hold of a job beyond single keys, and what follows from others: [workload] resolved."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sim.formats import refuse
from sim.formats.disk_keys import Target
from sim.formats.layer import Table
from sim.formats.work_keys import Workload
from sim.formats.work_values import Distribution, Pair, Sizes

if TYPE_CHECKING:
    from sim.formats.replay import Replay

PAGE = 4096
SECTOR = 512
SEG_MAX = 126  # pages of one request: VIRTIO_SCSI's seg_max without seg_max_adjust
REPLAY_IODEPTH = 128  # Linux's queue depth of a LUN, device.cmd_per_lun

Job = dict[str, Any]
REPLAY_KEYS = [name for name in Workload.__dataclass_fields__ if name.startswith('replay_')]

# A trace says these by itself.
REPLAYED = (
    'rw bs bsrange bssplit rwmixread size offset offset_increment random_distribution '
    'percentage_random norandommap io_size fsync fdatasync'
).split()
# And leaves no room for these.
UNTIMED = (
    'rate rate_iops thinktime thinktime_spin thinktime_blocks thinktime_iotime burst_on burst_off '
    'burst_ios io_submit_mode'
).split()


def unused_job_keys(job: Mapping[str, Any]) -> list[str]:
    """The keys that say nothing, given the others of a resolved job."""
    unused = [*UNTIMED, *REPLAYED]
    if job['read_iolog'] is None:
        unused = ['read_iolog', 'read_iolog_sha256', *REPLAY_KEYS]
        if not job['burst_on']:
            unused += ['burst_on', 'burst_off']
        if not job['thinktime'] or job['thinktime'] == '0ns':
            unused += ['thinktime_spin', 'thinktime_blocks', 'thinktime_iotime']
    if job['iodepth_low'] == job['iodepth']:
        unused.append('iodepth_low')
    return unused


def resolve_job(
    job: Job, given: Table, label: str, disk: Target, device: Mapping[str, Any], notes: list[str]
) -> 'Replay | None':
    """Fill in what depends on other keys of the job or on the disk, and check it.

    Returns the trace if the job replays one.
    """
    job['name'] = job['name'] or label.replace(' ', '')
    where = f'{label} ({job["name"]}): workload'
    replay = resolve_replay(job, given, where, disk, device, notes)
    resolve_depths(job, given, where)
    resolve_sizes(job, where, notes)
    resolve_part(job, where, disk.size)
    resolve_times(job, given, where)
    resolve_places(job, where, disk.size, notes)
    flushes = [name for name in ('fsync', 'fdatasync', 'end_fsync') if job[name]]
    if flushes and not disk.has_volatile_cache:
        notes.append(
            f'{where}.{", ".join(flushes)}: nothing is sent: the disk has no volatile write cache '
            '(target.write_cache), and Linux ends a flush by itself'
        )
    return replay


def resolve_replay(
    job: Job, given: Table, where: str, disk: Target, device: Mapping[str, Any], notes: list[str]
) -> 'Replay | None':
    """Read the trace of a job that replays one."""
    if job['read_iolog'] is None:
        for name in ('read_iolog_sha256', *REPLAY_KEYS):
            refuse(name in given, f'{where}.{name}: has no meaning without read_iolog; take it out')
        return None
    for name in UNTIMED:
        refuse(name in given, f'{where}.{name}: the trace says when I/O comes; take it out')
    told = [name for name in REPLAYED if name in given]
    if told:
        notes.append(f'{where}.{", ".join(told)}: no effect, the trace says where I/O goes')
    for name in REPLAYED:
        job[name] = Workload.__dataclass_fields__[name].default
    refuse(
        job['replay_align'] & (job['replay_align'] - 1),
        f'{where}.replay_align={job["replay_align"]}: is no power of two',
    )
    from sim.formats.replay import load_replay  # numpy is not needed for any other config

    most = max(1, device['virtqueue_size'] - 2)  # QEMU's seg_max
    replay = load_replay(
        job,
        where=given['read_iolog'].where,
        disk=disk,
        bytes_max=min(PAGE * min(SEG_MAX, most), device['max_sectors'] * SECTOR),
    )
    job['read_iolog_sha256'] = replay.sha256
    notes += [f'{job["read_iolog"]}: {note}' for note in replay.notes]
    if 'iodepth' not in given:
        job['iodepth'] = REPLAY_IODEPTH
    return replay


def resolve_depths(job: Job, given: Table, where: str) -> None:
    """How many requests are in flight, given over and reaped at once."""
    depth = job['iodepth'] = job['iodepth'] or 1
    least = job['iodepth_batch_complete_min']
    most = job['iodepth_batch_complete_max'] = job['iodepth_batch_complete_max'] or least
    job['iodepth_low'] = job['iodepth_low'] or depth
    for name in ('iodepth_batch_submit', 'iodepth_batch_complete_min', 'iodepth_low'):
        refuse(job[name] > depth, f'{where}.{name}={job[name]}: is above iodepth={depth}; lower it')
    refuse(
        most < least,
        f'{where}.iodepth_batch_complete_max={most}: is below iodepth_batch_complete_min={least}',
    )
    refuse(
        job['iodepth_low'] < depth and job['io_submit_mode'] == 'offload',
        f'{where}.iodepth_low: an open loop reaps whenever it can; take it out',
    )


def resolve_sizes(job: Job, where: str, notes: list[str]) -> None:
    """One bs, or a bssplit or bsrange that outranks it; bs is then the smallest size."""
    if isinstance(job['bs'], Pair):
        pair: Pair[Any] = job['bs']
        both: list[int] = [pair.read, pair.write]  # type: ignore[list-item]
        alone = Pair(*(Sizes(((size, 100),)) for size in both))
        job['bssplit'] = over(job['bssplit'], over(job['bsrange'], alone))
        job['bs'] = min(both)
    draft = Workload(**job)
    mixes = [draft.sizes(write) for write in draft.directions]
    if job['bssplit'] or job['bsrange']:
        job['bs'] = min(sizes.least for sizes in mixes)
    for write in draft.directions:
        mix = next((m for m in (job['bssplit'], job['bsrange']) if m and m.of(write)), None)
        asked = mix.of(write) if mix else None
        if asked and asked.aligned() != asked:
            notes.append(
                f'{where}: block sizes {asked} become {asked.aligned()}: fio rounds them down to '
                f'multiples of the smallest'
            )
    for size in {size for sizes in mixes for size, _ in sizes.entries}:
        refuse(size % SECTOR, f'{where}.bs={size}: is no multiple of {SECTOR}')
        refuse(
            size > SEG_MAX * PAGE,
            f'{where}.bs={size}: one request carries at most seg_max = {SEG_MAX} pages, 504k; '
            'blk-mq would split it, which is not modelled yet',
        )


def over(mix: Pair[Sizes] | None, rest: Pair[Sizes]) -> Pair[Sizes]:
    """`mix` where it says something, `rest` elsewhere."""
    if mix is None:
        return rest
    return Pair(mix.read or rest.read, mix.write or rest.write)


def resolve_part(job: Job, where: str, lun_size: int) -> None:
    """Which part of the LUN the clones use, and how much they transfer."""
    bs = job['bs']
    for name in ('offset', 'offset_increment'):  # fio rounds a percentage up to whole requests
        if isinstance(job[name], str):
            share = lun_size * int(job[name].rstrip('%')) // 100
            job[name] = -(-share // bs) * bs
        refuse(job[name] % SECTOR, f'{where}.{name}={job[name]}: is no multiple of {SECTOR}')
    last = job['offset'] + job['offset_increment'] * (job['numjobs'] - 1)
    rest = lun_size - last
    refuse(
        rest < bs,
        f'{where}.offset: the last clone would begin at {last}, of a LUN of {lun_size}; lower '
        'offset or offset_increment',
    )
    if isinstance(job['size'], str):  # a percentage of the LUN, in whole requests as in fio
        share = min(lun_size * int(job['size'].rstrip('%')) // 100, rest)
        job['size'] = share // bs * bs
    ends = job['number_ios'] or job['size'] or job['io_size'] or job['read_iolog']
    if job['runtime'] and not job['time_based'] and not ends:
        job['size'] = rest  # one pass over the LUN, or runtime, whichever ends first
    if isinstance(job['io_size'], str):
        job['io_size'] = lun_size * int(job['io_size'].rstrip('%')) // 100 // bs * bs
    size = job['size']
    if size is not None:
        refuse(
            last + size > lun_size,
            f'{where}.size={size}: is above target.size={lun_size}'
            + (f' less the offset of the last clone, {last}' if last else ''),
        )
    for name in ('size', 'io_size'):
        amount = job[name]
        refuse(amount is not None and amount < bs, f'{where}.{name}={amount}: is below bs={bs}')
    largest = Workload(**job).largest
    refuse(
        largest > (size or rest),
        f'{where}.size={size or rest}: a request of {largest} bytes does not fit; raise it',
    )


def resolve_times(job: Job, given: Table, where: str) -> None:
    """Rates, bursts, pauses: what needs what, and what excludes what."""
    refuse(
        job['time_based'] and job['runtime'] is None,
        f'{where}.time_based needs a runtime; add workload.runtime',
    )
    refuse(
        job['rate'] and job['rate_iops'],
        f'{where}.rate and rate_iops exclude each other, as in fio; keep one',
    )
    rated = job['rate'] or job['rate_iops']
    refuse(
        job['rate_process'] == 'poisson' and not rated,
        f'{where}.rate_process=poisson needs a rate; add workload.rate_iops',
    )
    for write in Workload(**job).directions:
        least = Workload(**job).sizes(write).least
        iops = job['rate_iops'].of(write) if job['rate_iops'] else None
        in_bytes = job['rate'].of(write) if job['rate'] else None
        per_second = iops * least if iops else in_bytes
        refuse(
            job['rate_process'] == 'poisson'
            and per_second is not None
            and per_second < least * job['burst_ios'],
            f'{where}.rate_process=poisson with arrivals that are more than a second apart on '
            'average is not modelled; raise the rate or lower burst_ios',
        )
    bare = [w for w in Workload(**job).directions if not rated or not rated.of(w)]
    opened = job['io_submit_mode'] == 'offload'
    refuse(
        opened and bare,
        f'{where}.io_submit_mode=offload is an open loop, which needs a rate for '
        f'{"writes" if bare == [True] else "reads"}; add workload.rate_iops',
    )
    refuse(
        opened and job['thinktime'],
        f'{where}.thinktime: an open loop does not wait; use burst_on and burst_off, or inline',
    )
    for name in ('thinktime_spin', 'thinktime_blocks', 'thinktime_iotime'):
        refuse(name in given and not job['thinktime'], f'{where}.{name} needs a thinktime; add it')
    if job['thinktime_blocks'] is None and not job['thinktime_iotime']:
        job['thinktime_blocks'] = 1
    job['thinktime_spin'] = min(job['thinktime_spin'], job['thinktime'])  # as fio does
    refuse(
        bool(job['burst_on']) != bool(job['burst_off']),
        f'{where}.burst_on and burst_off need each other; give both',
    )
    refuse(
        job['burst_ios'] > 1 and bare,
        f'{where}.burst_ios={job["burst_ios"]} needs a rate; add workload.rate_iops',
    )


def resolve_places(job: Job, where: str, lun_size: int, notes: list[str]) -> None:
    """The random map, and what random_distribution asks for."""
    spread: Distribution = job['random_distribution']
    is_random = job['rw'].startswith('rand')
    chosen = spread != Distribution() or job['percentage_random'] != Pair(100, 100)
    refuse(
        chosen and not is_random,
        f'{where}: random_distribution and percentage_random need random I/O, rw is {job["rw"]}',
    )
    if spread != Distribution():
        job['norandommap'] = True  # as fio does
    elif is_random and not job['norandommap'] and not Workload(**job).one_size:
        job['norandommap'] = True
        notes.append(
            f'{where}: with block sizes that differ, random offsets may repeat within a pass; '
            'fio would cut requests short at blocks that it has done'
        )
    draft = Workload(**job)
    room = job['size'] or lun_size - job['offset'] - job['offset_increment'] * (job['numjobs'] - 1)
    for write in draft.directions:
        unit = draft.sizes(write).least
        places = room // unit
        table = spread.zone_table(places, unit)
        for (share, size), (_, first, count) in zip(spread.zones, table, strict=True):
            label = f'{where}.random_distribution: zone {share}/{size}'
            refuse(first + count > places, f'{label} ends beyond the {room} bytes of the job')
            refuse(share and not count, f'{label} has no room for a request of {unit} bytes')
