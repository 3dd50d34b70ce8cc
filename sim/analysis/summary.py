"""From what was measured to what is reported: numbers, and how far each can be trusted.

A percentile that fewer than ten requests lie beyond is None, with a reason. Intervals are 95 %
confidence intervals from the batches of one run; sim.replicate has those of independent runs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sim import record
from sim.analysis import stats
from sim.analysis.measure import KINDS, Measured, Source, Times
from sim.formats.values import PERCENTILES

BEYOND_LEAST = 10  # samples that must lie beyond a percentile


@dataclass
class Refused:
    """Percentiles that are not reported, by metric, and why."""

    reasons: dict[str, str] = field(default_factory=dict)

    def percentile(self, metric: str, times: Times, share: float) -> int | None:
        """The nearest-rank percentile, or None with a reason."""
        rank = stats.rank_of(share, times.count)
        beyond = times.count - rank
        if beyond < BEYOND_LEAST:
            need = math.ceil(round(BEYOND_LEAST / (1 - share / 100), 6))
            self.reasons[metric] = (
                f'{beyond} of {times.count} measured requests lie beyond it, {BEYOND_LEAST} are '
                f'needed: measure {need} or more'
            )
            return None
        value = times.at_rank(rank)
        if value is None:
            self.reasons[metric] = 'it lies beyond the last bucket of the histogram (17.2 s)'
        return value


def summary(metric: str, times: Times, refused: Refused) -> dict[str, float | None]:
    """Mean, percentiles (nearest rank) and most; empty where nothing completed."""
    if not times.count:
        return {}
    values: dict[str, float | None] = {'mean': times.sum / times.count}
    for name, share in PERCENTILES.items():
        values[name] = refused.percentile(f'{metric}.{name}', times, share)
    return values | {'max': times.most}


def iops(times: Times, span: tuple[int, int]) -> float:
    """Completions per simulated second between the first and the last."""
    length = span[1] - span[0]
    return (times.count - 1) / length * 1e9 if length > 0 else 0.0


def numbers(measured: Measured) -> dict[str, Any]:
    """The report's entries that rest on the measured requests."""
    source, refused = measured.source, Refused()
    latency = source.times('latency_ns')
    report: dict[str, Any] = {
        'requests': measured.issued,
        'requests_completed': measured.completed,
        'requests_measured': latency.count,
        'warmup_requests': measured.cut,
        'iops': iops(latency, source.span()),
        'latency_ns': summary('latency_ns', latency, refused),
        'fio_lat_ns': summary('fio_lat_ns', source.times('fio_lat_ns'), refused),
        'stages_ns': {},
        'jobs': {},
    }
    for stage in record.STAGES:
        total, count = source.stage(stage)
        if count:
            report['stages_ns'][stage] = total / count
    for name, clones in measured.jobs.items():
        times = source.times('latency_ns', clones)
        if times.count:
            report['jobs'][name] = _job(f'jobs.{name}', source, clones, times, refused)
    return report | {'not_reported': refused.reasons}


def _job(
    path: str, source: Source, clones: Sequence[int], times: Times, refused: Refused
) -> dict[str, Any]:
    """One job's entry, as a whole and per direction."""
    entry: dict[str, Any] = {
        'requests': times.count,
        'iops': iops(times, source.span(clones)),
        'latency_ns': summary(f'{path}.latency_ns', times, refused),
    }
    for op in record.OPS:
        kinds = {kind: source.times(kind, clones, op) for kind in KINDS}
        if kinds['latency_ns'].count:
            entry[op] = {'requests': kinds['latency_ns'].count}
            for kind in KINDS:
                entry[op][kind] = summary(f'{path}.{op}.{kind}', kinds[kind], refused)
    return entry


# ----------------------------------------------------------------------------------- intervals ----

Bounds = list[float | None]


def intervals(measured: Measured, report: dict[str, Any]) -> dict[str, Any]:
    """95 % confidence intervals of the report's numbers, by metric: [low, high], or None.

    From the batches of one run; stats.ratio_of_batches() says when they cannot be had.
    """
    values: dict[str, Bounds | None] = {}
    found = {
        'method': 'batches of one run',
        'confidence': 0.95,
        'batches': max(measured.batches.stop - measured.batches.start, 0),
        'batch_requests': measured.batch_size,
        'note': measured.note,
        'values': values,
    }
    if measured.note:
        return found
    for kind in KINDS:
        if report[kind]:
            values[f'{kind}.mean'] = _around(report[kind]['mean'], _mean(measured, kind))
            for name, share in PERCENTILES.items():
                if report[kind][name] is not None:
                    values[f'{kind}.{name}'] = _percentile(measured, kind, share)
    for stage, mean in report['stages_ns'].items():
        values[f'stages_ns.{stage}'] = _around(mean, _mean(measured, f'{stage}_ns'))
    values |= _rates(measured, report)
    if None in values.values():
        found['note'] = (
            'neighbouring batches are correlated where there is no interval: the run is too short '
            'for them; run longer or use replications'
        )
    return found


def _rates(measured: Measured, report: dict[str, Any]) -> dict[str, Bounds | None]:
    """Intervals of what counters and clock say, per request and per second."""
    cycles = measured.watched_in_batches('cycles')
    issued = np.full(len(cycles), measured.batch_size)
    grown = measured.watched_in_batches
    wanted = {
        'iops': (issued, cycles),
        'requests_per_kick': (issued, grown('kicks')),
        'requests_per_interrupt': (issued, grown('interrupts')),
        'line_transfers_per_request': (grown('transfers'), issued),
    }
    for metric in (f'busy.{name}' for name in report['busy']):
        if metric in measured.watched:
            wanted[metric] = (grown(metric), cycles)
    return {
        metric: _around(_at(report, metric), stats.ratio_of_batches(above, below), scale=True)
        for metric, (above, below) in wanted.items()
        if below.sum()
    }


def _at(report: dict[str, Any], metric: str) -> float:
    value: Any = report
    section, _, name = metric.partition('.')
    value = report[section]
    return float(value[name] if name else value)


def _mean(measured: Measured, metric: str) -> stats.Ratio:
    sums, counts = measured.source.batch_sums(metric)
    if not counts[measured.batches].sum():
        return stats.Ratio(0.0, None)
    return stats.ratio_of_batches(sums[measured.batches], counts[measured.batches])


def _around(value: float, ratio: stats.Ratio, *, scale: bool = False) -> Bounds | None:
    """The interval about the reported value; `scale`: of the same relative width."""
    if ratio.half_width is None:
        return None
    half = ratio.half_width
    if scale and ratio.value:
        half *= abs(value / ratio.value)
    return [value - half, value + half]


def _percentile(measured: Measured, kind: str, share: float) -> Bounds | None:
    """Between two order statistics, as far apart as the batches' shares below it vary.

    Never closer than the samples would be if they were independent. An end that the samples cannot
    bound is None.
    """
    source, p = measured.source, share / 100
    times = source.times(kind)
    value = times.at_rank(stats.rank_of(share, times.count))
    if value is None:
        return None
    counts = source.batch_sums(kind)[1][measured.batches]
    below = source.batch_up_to(kind, value)[measured.batches]
    ratio = stats.ratio_of_batches(below, counts)
    if ratio.half_width is None:
        return None
    half = max(ratio.half_width, 1.96 * math.sqrt(p * (1 - p) / times.count))
    low, high = math.floor((p - half) * times.count), math.ceil((p + half) * times.count) + 1
    return [
        times.at_rank(low) if low >= 1 else None,
        times.at_rank(high) if high <= times.count else None,
    ]
