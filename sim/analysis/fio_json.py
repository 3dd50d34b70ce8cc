"""A run in the words of fio's JSON output, format of fio 3.33 (stat.c: show_thread_status_json).

What the model has no counterpart of stands there with the value 0: ctx, majf, minf, short_ios,
drop_ios. docs/howto/fio-output.md has the table of what each number means here.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import sim
from sim.analysis.fio_times import DIRECTIONS, Clone, Part, Words, joined, window_samples
from sim.config import Config
from sim.formats.fio_options import KINDS, Reporting, Written
from sim.histogram import BUCKETS, LIMIT_NS, MIDPOINT_NS, buckets_of

FORMAT = 'fio-3.33'
EIO = 5
LADDER = (2, 4, 10, 20, 50, 100, 250, 500, 750, 1000)  # upper ends of the buckets, not inclusive
DEPTHS = (1, 2, 4, 8, 16, 32)
BATCHES = (0, 4, 8, 16, 32, 64)

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry of 'jobs': the clones that are reported as one."""

    name: str
    group: int
    written: Written  # of the first job; the options that are shown are the last one's, as in fio
    shown: dict[str, str]
    clones: tuple[Clone, ...]

    @property
    def reporting(self) -> Reporting:
        """How it is reported."""
        return self.written.reporting


def entries_of(
    config: Config, written: Sequence[Written], clones: Sequence[Clone]
) -> tuple[Entry, ...]:
    """Clones as fio groups them (init.c: add_job, stat.c: __show_run_stats).

    A group begins with stonewall or new_group. group_reporting of a job adds each of its clones to
    the entry before it, if that is of the same group: also to that of another job.
    """
    found: list[Entry] = []
    group = -1
    for index, (job, mine) in enumerate(zip(config.jobs, written, strict=True)):
        if index == 0 or job.stonewall or mine.reporting.new_group:
            group += 1
        for clone in (clone for clone in clones if clone.job == index):
            last = found[-1] if found else None
            if last and job.group_reporting and last.group == group:
                found[-1] = Entry(
                    name=last.name,
                    group=group,
                    written=last.written,
                    shown=mine.options,
                    clones=(*last.clones, clone),
                )
            else:
                found.append(
                    Entry(
                        name=job.name,
                        group=group,
                        written=mine,
                        shown=mine.options,
                        clones=(clone,),
                    )
                )
    return tuple(found)


def document(
    config: Config,
    entries: Sequence[Entry],
    *,
    shared: Mapping[str, str],
    busy: Mapping[str, float],
    about: Mapping[str, Any],
    bins: bool,
    now_ms: int,
) -> Json:
    """The whole file. `shared`: the 'global options'; `busy`: shares by agent; `bins`: json+.

    `about` stands under the key 'vhost-scsi-sim', which fio does not have; `now_ms`: when it is
    written, ms since 1970.
    """
    found: Json = {
        'fio version': FORMAT,
        'timestamp': now_ms // 1000,
        'timestamp_ms': now_ms,
        'time': time.ctime(now_ms // 1000),
        'vhost-scsi-sim': {'version': sim.__version__, **about},
    }
    if shared:
        found['global options'] = dict(shared)
    totals: dict[tuple[int, str], float] = {}  # bytes per second of a group
    for entry in entries:
        for direction in (*DIRECTIONS, 'mixed'):
            key = entry.group, direction
            totals[key] = totals.get(key, 0.0) + _bandwidth(entry, direction)
    found['jobs'] = [
        job_entry(config, entry, totals=totals, busy=busy, bins=bins) for entry in entries
    ]
    return found


def job_entry(
    config: Config,
    entry: Entry,
    *,
    totals: Mapping[tuple[int, str], float],
    busy: Mapping[str, float],
    bins: bool,
) -> Json:
    """One entry of 'jobs'."""
    failed = sum(clone.failed for clone in entry.clones)
    runtimes = [clone.runtime for clone in entry.clones]
    last = config.jobs[entry.clones[-1].job]
    found: Json = {
        'jobname': entry.name,
        'groupid': entry.group,
        'error': EIO if failed else 0,
        'eta': 0,
        'elapsed': -(-max(runtimes) // 10**9),
        'job options': entry.shown,
    }
    how = entry.reporting.unified_rw_reporting
    if how != 'mixed':
        for direction in DIRECTIONS:
            found[direction] = direction_entry(entry, direction, totals, bins)
        found['trim'] = direction_entry(entry, 'trim', totals, bins)
        found['sync'] = sync_entry(entry, bins)
    if how != 'none':
        found['mixed'] = direction_entry(entry, 'mixed', totals, bins)
    shares = [busy.get(f'vcpu{clone.vcpu}', 0.0) for clone in entry.clones]
    found |= {
        'job_runtime': sum(-(-runtime // 10**6) for runtime in runtimes),
        'usr_cpu': 0.0,
        'sys_cpu': 100.0 * sum(shares) / len(shares),
        'ctx': 0,
        'majf': 0,
        'minf': 0,
        'iodepth_level': shares_of(np.concatenate([*map(depths, entry.clones)]), DEPTHS, deep=True),
    }
    for key, batches in (('iodepth_submit', submitted), ('iodepth_complete', reaped)):
        found[key] = shares_of(np.concatenate([*map(batches, entry.clones)]), BATCHES)
    found |= ladders(joined([clone.part for clone in entry.clones]).clat)
    found |= {
        'latency_depth': last.iodepth,
        'latency_target': 0,
        'latency_percentile': 100.0,
        'latency_window': 0,
    }
    if failed:
        found |= {'total_err': failed, 'first_error': EIO}
    return found


NOTHING = np.zeros(0, dtype=np.int64)


def _bandwidth(entry: Entry, direction: str) -> float:
    runtime = _runtime(entry, direction)
    sizes = (int(clone.part.of(direction).size.sum()) for clone in entry.clones)
    return sum(sizes) * 1e9 / runtime if runtime else 0.0


def _runtime(entry: Entry, direction: str) -> int:
    """The longest of the clones that went in that direction, ns."""
    return max((c.runtime for c in entry.clones if c.part.of(direction).size.size), default=0)


def direction_entry(
    entry: Entry, direction: str, totals: Mapping[tuple[int, str], float], bins: bool
) -> Json:
    """'read', 'write', 'trim' or 'mixed' of a job.

    As in fio, samples of bandwidth and IOPS of clones that are reported as one are added up.
    """
    parts: list[Part] = []
    if direction != 'trim':
        parts = [clone.part.of(direction) for clone in entry.clones]
    count = sum(part.size.size for part in parts)
    total = sum(int(part.size.sum()) for part in parts)
    runtime = _runtime(entry, direction) if count else 0
    found: Json = {
        'io_bytes': total,
        'io_kbytes': total >> 10,
        'bw_bytes': total * 10**9 // runtime if runtime else 0,
        'bw': total * 10**9 // runtime >> 10 if runtime else 0,
        'iops': count * 1e9 / runtime if runtime else 0.0,
        'runtime': -(-runtime // 10**6),
        'total_ios': count,
        'short_ios': 0,
        'drop_ios': 0,
    }
    for kind in KINDS:
        times = np.concatenate([part.times(kind) for part in parts]) if parts else NOTHING
        found[f'{kind}_ns'] = latency(times, kind, entry.reporting, bins)
    samples = [
        window_samples(part, clone.began, clone.runtime, bandwidth_window(entry.reporting, which))[
            which
        ]
        for which in range(2)
        for part, clone in zip(parts, entry.clones, strict=bool(parts))
    ]
    half = len(samples) // 2
    bandwidth, iops = summed(samples[:half]), summed(samples[half:])
    whole = totals.get((entry.group, direction), 0.0) / 1024
    share = min(bandwidth['mean'] * 100 / whole, 100.0) if whole else 0.0
    return found | {
        'bw_min': int(bandwidth['min']),
        'bw_max': int(bandwidth['max']),
        'bw_agg': share,
        'bw_mean': bandwidth['mean'],
        'bw_dev': bandwidth['stddev'],
        'bw_samples': int(bandwidth['samples']),
        'iops_min': int(iops['min']),
        'iops_max': int(iops['max']),
        'iops_mean': iops['mean'],
        'iops_stddev': iops['stddev'],
        'iops_samples': int(iops['samples']),
    }


def bandwidth_window(reporting: Reporting, which: int) -> int:
    """The window of bandwidth (0) or IOPS (1), ms; a log's outranks a longer one, as in fio."""
    logged = (reporting.write_bw_log, reporting.write_iops_log)[which]
    window = (reporting.bwavgtime, reporting.iopsavgtime)[which]
    if logged is not None and reporting.log_avg_msec:
        return min(window, reporting.log_avg_msec)
    return window


def summed(samples: Sequence[npt.NDArray[np.float64]]) -> dict[str, float]:
    """What fio makes of the samples of several clones (stat.c: sum_stat with pure_sum)."""
    there = [values for values in samples if values.size]
    number = sum(values.size for values in there)
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in there)
    return {
        'min': sum((float(values.min()) for values in there), 0.0),
        'max': sum((float(values.max()) for values in there), 0.0),
        'mean': sum((float(values.mean()) for values in there), 0.0),
        'stddev': (squares / (number - 1)) ** 0.5 if number > 1 else 0.0,
        'samples': float(number),
    }


def sync_entry(entry: Entry, bins: bool) -> Json:
    """Flushes, whose one latency counts until they were reaped."""
    times = np.concatenate([clone.flushes.lat for clone in entry.clones])
    # fio prints percentiles of syncs whatever *_percentiles say, once there is one.
    return {'total_ios': times.size, 'lat_ns': latency(times, 'sync', entry.reporting, bins)}


def latency(times: Words, kind: str, reporting: Reporting, bins: bool) -> Json:
    """A latency object: extremes, mean, deviation, count; percentiles and bins where wanted."""
    count = times.size
    found: Json = {
        'min': int(times.min()) if count else 0,
        'max': int(times.max()) if count else 0,
        'mean': float(times.mean()) if count else 0.0,
        'stddev': float(times.std(ddof=1)) if count > 1 else 0.0,
        'N': count,
    }
    if count and (kind == 'sync' or kind in reporting.kinds):
        counts = buckets(times)
        found['percentile'] = percentiles(counts, reporting.percentile_list)
        if bins:
            filled = np.flatnonzero(counts)
            found['bins'] = {
                str(int(MIDPOINT_NS[bucket])): int(counts[bucket]) for bucket in filled
            }
    return found


def buckets(times: Words) -> Words:
    """Counts per bucket of fio's, shape (BUCKETS,); what is too long for any is in the last."""
    return np.bincount(buckets_of(np.minimum(times, LIMIT_NS - 1)), minlength=BUCKETS)


def percentiles(counts: Words, wanted: Sequence[float]) -> dict[str, int]:
    """As stat.c: calc_clat_percentiles(): the midpoint of the bucket that reaches the share."""
    reached = np.cumsum(counts)
    ranks = [share / 100 * int(reached[-1]) for share in wanted]
    places = np.minimum(np.searchsorted(reached, ranks), BUCKETS - 1)
    return {
        f'{share:.6f}': int(MIDPOINT_NS[place])
        for share, place in zip(wanted, places.tolist(), strict=True)
    }


def ladders(clat: Words) -> dict[str, dict[str, float]]:
    """latency_ns, latency_us, latency_ms: percent of all requests by their clat."""
    found = {}
    total = max(clat.size, 1)
    low = 0
    for unit, scale in (('ns', 1), ('us', 1_000), ('ms', 1_000_000)):
        ends = [*LADDER, 2000] if unit == 'ms' else list(LADDER)
        row = {}
        for end in ends:
            row[str(end)] = float(((clat >= low) & (clat < end * scale)).sum()) * 100 / total
            low = end * scale
        if unit == 'ms':
            row['>=2000'] = float((clat >= low).sum()) * 100 / total
        found[f'latency_{unit}'] = row
    return found


def shares_of(values: Words, steps: Sequence[int], *, deep: bool = False) -> dict[str, float]:
    """Percent of the values by power of two.

    `deep`: a step holds what is not less than it (iodepth_level); else what is not more than it and
    more than the one before (iodepth_submit, iodepth_complete).
    """
    total = max(values.size, 1)
    found = {}
    if deep:
        for low, high in zip(steps, [*steps[1:], 64], strict=True):
            found[str(low)] = float(((values >= low) & (values < high)).sum()) * 100 / total
        found['>=64'] = float((values >= 64).sum()) * 100 / total
        return found
    low = -1
    for end in steps:
        found[str(end)] = float(((values > low) & (values <= end)).sum()) * 100 / total
        low = end
    found['>=64'] = float((values > 64).sum()) * 100 / total
    return found


def depths(clone: Clone) -> Words:
    """At the submission of each request: how many of the clone were prepared and not yet reaped."""
    part = clone.part
    arrived = np.searchsorted(np.sort(part.arrive), part.submit, side='right')
    gone = np.searchsorted(part.reap, part.submit, side='right')
    return np.asarray(arrived - gone, dtype=np.int64)


def submitted(clone: Clone) -> Words:
    """Requests of each io_submit: one begins where the request before was submitted already."""
    part = clone.part
    order = np.argsort(part.serial)
    arrive, submit = part.arrive[order], part.submit[order]
    if not order.size:
        return NOTHING
    starts = np.flatnonzero(np.concatenate([[True], arrive[1:] >= submit[:-1]]))
    return np.diff(np.append(starts, order.size))


def reaped(clone: Clone) -> Words:
    """Requests of each io_getevents that gave any: those that were reaped at one time."""
    return np.asarray(np.unique(clone.part.reap, return_counts=True)[1], dtype=np.int64)
