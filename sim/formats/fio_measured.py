"""What fio measured, read from its JSON output (json and json+): the jobs, and their numbers.

Of a job the options say what was done, as in a job file; how long it ran does not matter here.
Entries of one name are clones of one job, and so are the threads that group_reporting has put into
one entry. A job of a later group (groupid) began when the earlier ones had ended: of stonewall, and
of every other option without a value, fio's JSON says nothing. Percentiles are of clat; those of
lat, which the simulator has as well, are taken as clat's and the mean slat: fio keeps no lat
percentiles unless it is asked to (lat_percentiles=1), and those are preferred where they are there.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sim.errors import ConfigError, shown
from sim.formats import Given, read_text
from sim.formats.fio import ALIASES, HONOURED, Job, fio_defaults, read_option

# How much was done, and where from: the simulator does as much as it is told to.
LENGTHS = {
    'runtime', 'time_based', 'ramp_time', 'size', 'io_size', 'number_ios', 'loops', 'startdelay',
    'offset', 'offset_increment', 'randseed', 'group_reporting', 'filename', 'name',
}  # fmt: skip
OPS = ('read', 'write')
BUCKET = 1 / 64 / math.sqrt(12)  # fio's percentiles are ends of buckets, 64 to a power of two
LEAST = 0.001  # no number of fio's is better than this


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One number: `metric` is iops, mean, p50, p90, p99 or p999; latencies in ns, of fio's lat.

    `sigma` is its relative standard error, as far as fio's own numbers tell.
    """

    job: str
    op: str  # read or write; empty for iops, which is of both
    metric: str
    value: float
    sigma: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One file: its jobs as tables of [workload] keys, and what was measured of them.

    `shares`: how many requests a clone of each job had, against the mean of those beside it.
    """

    path: Path
    jobs: tuple[Job, ...]
    shares: tuple[float, ...]
    observations: tuple[Observation, ...]
    notes: tuple[str, ...]


def read_measured(path: str | Path) -> Measured:
    """Read fio's JSON. Errors: ConfigError, one line, if it is none or has no completed job."""
    place = Path(path)
    tree = _tree(place)
    entries = tree['jobs']
    shared = tree.get('global options', {})
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        by_name.setdefault(str(entry.get('jobname', 'job')), []).append(entry)
    jobs: list[Job] = []
    found: list[Observation] = []
    notes: list[str] = []
    threads: list[float] = []
    groups: list[int] = []  # of jobs that ran side by side
    before: Mapping[str, Any] = {}
    for name, clones in by_name.items():
        job = _job(place, name, {**shared, **clones[0].get('job options', {})}, notes)
        jobs.append(job)
        try:
            later = bool(before) and _begins_later(before, clones[0])
            if later:
                job['stonewall'] = Given('1', str(place))
            groups.append(groups[-1] + later if groups else 0)
            before = clones[0]
            threads.append(_clones(place, job, clones))
            found += _observations(name, clones)
        except ConfigError:
            raise
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise ConfigError(f'{place}: job {shown(name)}: {error!r} in its numbers') from None
    if not found:
        raise ConfigError(f'{place}: no job in it has completed a read or a write')
    counts = [
        sum(int(clone[op].get('total_ios', 0)) for clone in clones for op in OPS) / many
        for clones, many in zip(by_name.values(), threads, strict=True)
    ]
    return Measured(
        path=place, jobs=tuple(jobs), shares=tuple(_shares(groups, counts)),
        observations=tuple(found), notes=tuple(dict.fromkeys(notes)),
    )  # fmt: skip


def _begins_later(before: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    """Was it a stonewall that began the group? If it was new_group, a newer fio's times tell."""
    if int(entry.get('groupid', 0)) <= int(before.get('groupid', 0)):
        return False
    if 'job_start' in entry and 'job_start' in before:  # ms
        longest = max(int(before.get(op, {}).get('runtime', 0)) for op in OPS)
        return int(entry['job_start']) - int(before['job_start']) > longest / 2
    return 'new_group' not in entry.get('job options', {})


def _clones(path: Path, job: Job, entries: Sequence[Mapping[str, Any]]) -> int:
    """How many clones the job has, which are reported as one.

    Under group_reporting fio adds up all jobs of a group, gives the sum the name of the first and
    the options of the last; job_runtime is the sum of all threads.
    """
    said = str(job['numjobs'].value) if 'numjobs' in job else '1'
    many = int(said) if said.isdecimal() and int(said) else 1
    if many > 1:
        job['group_reporting'] = Given('1', str(path))
    threads = 0.0
    for entry in entries:
        longest = max(int(entry.get(op, {}).get('runtime', 0)) for op in (*OPS, 'trim'))
        threads += int(entry.get('job_runtime', 0)) / longest if longest else 0
    if round(threads) > many:
        raise ConfigError(
            f'{path}: job {shown(str(job["name"].value))}: {round(threads)} threads are added up '
            f'in it, and its options say numjobs={many}: group_reporting has put several jobs into '
            'one; run fio without it, or with new_group in each job'
        )
    return many


def _shares(groups: Sequence[int], counts: Sequence[float]) -> list[float]:
    """Each count against the mean of its group."""
    mean = {}
    for group in groups:
        mine = [count for g, count in zip(groups, counts, strict=True) if g == group]
        mean[group] = sum(mine) / len(mine)
    return [n / mean[g] if mean[g] else 1.0 for g, n in zip(groups, counts, strict=True)]


def _tree(place: Path) -> dict[str, Any]:
    """The JSON in a file, which may have fio's warnings before it and its text behind it
    (--output-format=normal,json); ConfigError if it is none.
    """
    text = read_text(place)
    start = max(text.find('{'), 0)
    try:
        tree: dict[str, Any] = json.JSONDecoder().raw_decode(text, start)[0]
        assert isinstance(tree['jobs'], list)
    except (ValueError, KeyError, TypeError, AssertionError):
        raise ConfigError(
            f"{place}: is not fio's JSON output (fio --output-format=json, or json+)"
        ) from None
    return tree


def _job(path: Path, name: str, options: Mapping[str, Any], notes: list[str]) -> Job:
    """The options of a job as keys of [workload]; what only says how long it ran is left out."""
    job: Job = {'name': Given(name, str(path))}
    for key, value in options.items():
        own = ALIASES.get(key, key)
        if own in LENGTHS:
            continue
        written = str(value)
        if own in HONOURED or not written or not _is_none(own, written):
            read_option(job, f'{key}={written}' if written else key, str(path), notes)
    fio_defaults(job, notes)
    return job


def _is_none(key: str, value: str) -> bool:
    """Options that the simulator's own JSON has beside fio's; at these values they do nothing."""
    return key.startswith('burst_') and value in ('0ns', '0', '1')


def _observations(name: str, clones: Sequence[Mapping[str, Any]]) -> list[Observation]:
    found = []
    sides = [clone[op] for clone in clones for op in OPS if clone[op].get('total_ios')]
    if not sides:
        return []
    rate = sum(float(side['iops']) for side in sides)
    spread = math.hypot(*(_rate_error(side) for side in sides))
    found.append(
        Observation(job=name, op='', metric='iops', value=rate, sigma=max(spread / rate, LEAST))
    )
    for op in OPS:
        mine = [clone[op] for clone in clones if clone[op].get('total_ios')]
        if mine:
            found += _latencies(name, op, mine)
    return found


def _rate_error(side: Mapping[str, Any]) -> float:
    """The standard error of a rate, from fio's samples of it; in IOPS."""
    samples = int(side.get('iops_samples', 0))
    return float(side.get('iops_stddev', 0.0)) / math.sqrt(samples) if samples > 1 else 0.0


def _latencies(name: str, op: str, sides: Sequence[Mapping[str, Any]]) -> list[Observation]:
    """Mean and percentiles of the clones of a job together."""
    counts = [int(side['lat_ns']['N'] or side['total_ios']) for side in sides]
    whole = sum(counts)

    def mean_of(values: Sequence[float]) -> float:
        return sum(n * v for n, v in zip(counts, values, strict=True)) / whole

    mean = mean_of([float(side['lat_ns']['mean']) for side in sides])
    spread = mean_of([float(side['lat_ns'].get('stddev', 0.0)) for side in sides])
    sigma = max(spread / mean / math.sqrt(whole), LEAST)
    found = [Observation(job=name, op=op, metric='mean', value=mean, sigma=sigma)]
    for metric, share in (('p50', 0.5), ('p90', 0.9), ('p99', 0.99), ('p999', 0.999)):
        values = [_percentile(side, share) for side in sides]
        if None in values or whole * (1 - share) < 10:
            continue
        value = mean_of([v for v in values if v is not None])
        # Of a smooth tail; the density that an exact error takes is not in the file.
        error = math.hypot(BUCKET, 0.5 / math.sqrt(whole * (1 - share)))
        found.append(Observation(job=name, op=op, metric=metric, value=value, sigma=error))
    return found


def _percentile(side: Mapping[str, Any], share: float) -> float | None:
    """Of lat where fio was asked for it, else of clat, with the mean slat; ns."""
    for kind, more in (('lat_ns', 0.0), ('clat_ns', float(side['slat_ns'].get('mean', 0.0)))):
        table = side.get(kind, {})
        if 'percentile' in table:
            key = f'{100 * share:.6f}'
            if key in table['percentile']:
                return float(table['percentile'][key]) + more
        if 'bins' in table:
            return _from_bins(table['bins'], share) + more
    return None


def _from_bins(bins: Mapping[str, int], share: float) -> float:
    """The percentile of json+'s bins: time in ns and how many."""
    total, below = sum(bins.values()), 0
    for time, count in sorted((float(t), n) for t, n in bins.items()):
        below += count
        if below >= share * total:
            return time
    raise ValueError('bins without requests')


def distribution(path: str | Path, op: str = 'read', kind: str = 'clat_ns') -> tuple[Any, Any]:
    """The bins of json+: times in µs, ascending, and how many I/Os had each; all jobs together.

    `kind` is clat_ns, lat_ns or slat_ns. Errors: ConfigError where the file has no such bins.
    """
    place = Path(path)
    counts: dict[int, int] = {}
    for entry in _tree(place)['jobs']:
        for time, count in entry.get(op, {}).get(kind, {}).get('bins', {}).items():
            counts[int(time)] = counts.get(int(time), 0) + int(count)
    if not counts:
        raise ConfigError(
            f'{place}: has no bins of {op} {kind}; let fio write --output-format=json+'
        )
    times = np.array(sorted(counts))
    return times / 1e3, np.array([counts[int(time)] for time in times])
