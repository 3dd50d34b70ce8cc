"""The logs of fio: write_lat_log, write_bw_log, write_iops_log, write_hist_log.

A line of a log: ms since the job began, value, direction (0 read, 1 write), bytes, [offset,]
priority; of the histogram log: ms, direction, bytes, counts. Values: ns; KiB/s; requests per
second. Without log_avg_msec there is a line for each request, and then, as fio's code has it
(stat.c: add_bw_sample), the bandwidth of a request is its bytes per ms of its clat, and its IOPS 1.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from sim.analysis.fio_json import buckets
from sim.analysis.fio_times import DIRECTIONS, NS_PER_MS, Clone, Part, Words
from sim.config import Config
from sim.formats.fio_options import KINDS, Written

Line = tuple[int, ...]


def logs(
    config: Config, written: Sequence[Written], clones: Sequence[Clone]
) -> dict[str, Iterator[str]]:
    """The lines of each file, by its name.

    Jobs that ask for no log get all but the histogram, under the names that fio-plot looks for.
    """
    lines: dict[str, list[tuple[int, str]]] = {}
    for clone in clones:
        mine = written[clone.job]
        report, job = mine.reporting, config.jobs[clone.job]
        asked = {
            'lat': report.write_lat_log,
            'bw': report.write_bw_log,
            'iops': report.write_iops_log,
            'clat_hist': report.write_hist_log,
        }
        if set(asked.values()) == {None}:
            name = f'{job.rw}-iodepth-{job.iodepth}-numjobs-{job.numjobs}'
            asked |= dict.fromkeys(('lat', 'bw', 'iops'), name)
        tail = f'.{clone.number + 1}.log' if report.per_job_logs else '.log'
        for what, prefix in asked.items():
            if prefix is None or (what == 'clat_hist' and not report.log_hist_msec):
                continue
            for kind in KINDS if what == 'lat' else (what,):
                file = lines.setdefault(f'{prefix or job.name}_{kind}{tail}', [])
                file += [(line[0], _text(line)) for line in lines_of(kind, clone, mine)]
    return {name: (text for _, text in sorted(rows, key=_time)) for name, rows in lines.items()}


def _time(row: tuple[int, str]) -> int:
    return row[0]


def _text(line: Line) -> str:
    return ', '.join(map(str, line)) + '\n'


def lines_of(kind: str, clone: Clone, written: Written) -> list[Line]:
    """The lines of one log of one clone, in order of time."""
    report = written.reporting
    if kind == 'clat_hist':
        found = histogram_lines(clone, report.log_hist_msec, report.log_hist_coarseness)
    elif not report.log_avg_msec:
        found = request_lines(clone, kind, report.log_offset)
    else:
        found = []
        for number, direction in enumerate(DIRECTIONS):
            part = clone.part.of(direction)
            if kind in KINDS:
                rows = averages(
                    _ms(clone, part.reap), part.times(kind), report.log_avg_msec,
                    end=_ms(clone, np.array([clone.began + clone.runtime]))[0],
                    most=report.log_max_value,
                )  # fmt: skip
            else:
                rows = rates(clone, part, kind, report.log_avg_msec)
            tail = (0, 0, 0) if report.log_offset else (0, 0)
            found += [(when, value, number, *tail) for when, value in rows]
    return sorted(found, key=lambda line: line[0])


def _ms(clone: Clone, times: Words) -> Words:
    return (times - clone.epoch) // NS_PER_MS


def request_lines(clone: Clone, kind: str, offset: bool) -> list[Line]:
    """A line for each request, when it was reaped."""
    part = clone.part
    if kind in KINDS:
        values = part.times(kind)
    elif kind == 'bw':
        values = part.size * 1_000_000 // np.maximum(part.clat, 1)
    else:
        values = np.ones_like(part.size)
    columns = [_ms(clone, part.reap), values, part.write.astype(np.int64), part.size]
    columns += [part.offset] if offset else []
    columns += [np.zeros_like(part.size)]
    return list(zip(*(column.tolist() for column in columns), strict=True))


def averages(
    when: Words, values: Words, window: int, *, end: int, most: bool
) -> Iterator[tuple[int, int]]:
    """Mean or most of each window of `window` ms, when it is over (stat.c: add_log_sample).

    The request that is late for a window is still part of it and ends it; the rest counts at `end`.
    """
    start, last = 0, 0
    while start < when.size:
        stop = int(np.searchsorted(when[start:], last + window)) + start + 1
        part = values[start:stop]
        at = int(when[stop - 1]) if stop <= when.size else int(end)
        yield at, int(part.max()) if most else int(part.mean())
        last = at - at % window
        start = stop


def rates(clone: Clone, part: Part, kind: str, window: int) -> Iterator[tuple[int, int]]:
    """KiB/s or requests per second in each whole window, when it is over."""
    count = (clone.began + clone.runtime - clone.epoch) // (window * NS_PER_MS)
    if not part.reap.size or not count:
        return
    at = np.minimum(_ms(clone, part.reap) // window, count)
    weights = part.size / 1024 if kind == 'bw' else np.ones(part.size.size)
    sums = np.bincount(at, weights=weights, minlength=count + 1)[:count]
    for number, total in enumerate(sums.tolist(), 1):
        yield number * window, int(total * 1000 / window)


def histogram_lines(clone: Clone, window: int, coarseness: int) -> list[Line]:
    """Counts of clat per window; each halving of the bins adds up neighbours."""
    found: list[Line] = []
    for number, direction in enumerate(DIRECTIONS):
        part = clone.part.of(direction)
        at = _ms(clone, part.reap) // window
        for index in np.unique(at).tolist():
            mine = at == index
            counts = buckets(part.clat[mine]).reshape(-1, 1 << coarseness).sum(axis=1)
            when, size = (index + 1) * window, int(part.size[mine].max())
            found.append((when, number, size, *counts.tolist()))
    return found
