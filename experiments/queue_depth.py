"""How do latency and throughput grow with iodepth, and what does EVENT_IDX change?

Method: iodepth 1 to 256 with EVENT_IDX on and off, same seed, so both see the same requests and the
same service times. Everything else is as in the config, job file and device string that are given.

Two latencies: up to the completion in the guest's driver (mean_us ... max_us, the stages), and
up to fio's reaping it (fio_lat_*: what fio prints as lat). Once fio's CPU is the bottleneck,
completions wait to be reaped and only the second one grows.

Expect: latency flat until the first station saturates, then growing with iodepth; beyond the ring
(virtqueue_size) requests wait in the guest's block layer. EVENT_IDX off kicks more often where the
worker is busy.

Takes: ten seconds on two cores, --quick half of that, behind the compilation of the kernels.
"""

import argparse
import functools
import sys
from pathlib import Path
from typing import Any

from experiments import command

DEPTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
DEPTHS_QUICK = (1, 4, 16, 64, 256)
REQUESTS_QUICK = 4000
HEADLINE_DEPTHS = (1, 32, 256)
SERIES = {True: 'EVENT_IDX on', False: 'EVENT_IDX off'}


def experiment(options: argparse.Namespace) -> command.Outcome:
    """Run the sweep."""
    from sim.analysis.bounds import least_us, said_by_theory
    from sim.sweep import load_report

    depths = DEPTHS_QUICK if options.quick else DEPTHS
    at = functools.partial(point, options)
    base = command.config(options, over=over(options))
    points = [(depth, event_idx) for event_idx in (True, False) for depth in depths]
    command.announce(options, base)
    places = command.sweep(options, [at(*point) for point in points])
    reports = [load_report(place) for place in places]
    return command.Outcome(
        base,
        [row_of(*point, report) for point, report in zip(points, reports, strict=True)],
        command.violations(reports),
        {
            'theory': [said_by_theory(at(depth, True)) | {'iodepth': depth} for depth in depths],
            'least': least_us(at(depths[0], True)),
            'places': dict(zip(points, places, strict=True)),
        },
    )


def over(options: argparse.Namespace) -> dict[str, Any]:
    """What outranks a file."""
    return {'workload.number_ios': REQUESTS_QUICK} if options.quick else {}


def point(options: argparse.Namespace, depth: int, event_idx: bool) -> Any:
    """The config of a point."""
    vary = {'workload.iodepth': depth, 'device.event_idx': event_idx}
    return command.config(options, over=over(options), vary=vary)


def headlines(options: argparse.Namespace) -> list[Any]:
    """IOPS at three depths, and what EVENT_IDX is worth at the last."""
    from sim.studies.guesses import Headline

    found = [
        Headline(
            name=f'at iodepth {depth}', unit='IOPS', configs=(point(options, depth, True),),
            value=lambda report: report['iops'],
        )
        for depth in HEADLINE_DEPTHS
    ]  # fmt: skip
    last = HEADLINE_DEPTHS[-1]
    return [
        *found,
        Headline(
            name=f'EVENT_IDX on over off at iodepth {last}', unit='times the IOPS',
            configs=(point(options, last, True), point(options, last, False)),
            value=lambda on, off: on['iops'] / off['iops'],
        ),
    ]  # fmt: skip


def row_of(depth: int, event_idx: bool, report: dict[str, Any]) -> dict[str, Any]:
    """One line of the table."""
    latency = {f'{key}_us': in_us(value) for key, value in report['latency_ns'].items()}
    fio = report['fio_lat_ns']
    return {
        'series': SERIES[event_idx],
        'iodepth': depth,
        'iops': report['iops'],
        **command.interval(report, 'iops', 'iops'),
        **latency,
        **command.interval(report, 'latency_ns.mean', 'mean_us', 1e3),
        'fio_lat_mean_us': in_us(fio['mean']),
        **command.interval(report, 'fio_lat_ns.mean', 'fio_lat_mean_us', 1e3),
        'fio_lat_p99_us': in_us(fio['p99']),
        **command.interval(report, 'fio_lat_ns.p99', 'fio_lat_p99_us', 1e3),
        'kicks': report['kicks'],
        'interrupts': report['interrupts'],
        'requests_per_kick': report['requests_per_kick'],
        'requests_per_interrupt': report['requests_per_interrupt'],
        'line_transfers_per_request': report['line_transfers_per_request'],
        'worker_busy': report['busy'][report['host_thread']],
        'vcpu_busy': report['busy']['vcpu0'],
        'warmup_requests': report['warmup_requests'],
        'stages_us': {stage: value / 1e3 for stage, value in report['stages_ns'].items()},
        'id': report['id'],
        'digest': report['digest'],
    }


def in_us(ns: float | None) -> float | None:
    """Microseconds; None stays None: too few requests lay beyond the percentile."""
    return None if ns is None else ns / 1e3


def draw(outcome: command.Outcome, folder: Path) -> None:
    """Table and figures."""
    import pandas as pd

    from sim.analysis import plot
    from sim.record import STAGES
    from sim.sweep import load_latencies

    rows = outcome.rows
    table = pd.DataFrame(rows).replace({None: float('nan')})
    table.drop(columns='stages_us').to_csv(folder / 'queue_depth.csv', index=False)
    what = describe(outcome.config)
    plot.save(
        plot.throughput_latency(table, pd.DataFrame(outcome.more['theory']), what),
        folder / 'throughput-latency.png',
    )
    depths = sorted({row['iodepth'] for row in rows})
    shown = {depths[0], depths[len(depths) // 2], depths[-1]}
    tails = {}
    for (depth, event_idx), place in outcome.more['places'].items():
        if depth in shown:
            times, requests = load_latencies(place)
            tails[f'iodepth {depth}, {SERIES[event_idx]}'] = times / 1e3, requests
    ordered = dict(sorted(tails.items(), key=lambda item: int(item[0].split()[1].strip(','))))
    least = outcome.more['least']
    tail = plot.latency_tails(ordered, what, least_us=least['least_us'])
    plot.save(tail, folder / 'latency-tail.png')
    stacks = pd.DataFrame(
        [
            {'label': f'{row["iodepth"]}, {"on" if row["series"] == SERIES[True] else "off"}'}
            | {stage: row['stages_us'][stage] for stage in STAGES}
            | {f'latency{end}': row[f'mean_us{end}'] for end in ('', '_low', '_high')}
            | least
            for row in sorted(rows, key=lambda row: (row['iodepth'], row['series'] != SERIES[True]))
        ]
    )
    title = f'{what}: where the time goes, by iodepth and EVENT_IDX'
    figure = plot.stage_stack(stacks, title, 'iodepth, EVENT_IDX')
    plot.save(figure, folder / 'stages.png')


def describe(config: Any) -> str:
    """The config in a line, for titles."""
    from sim.units import format_size, format_time

    job, target = config.jobs[0], config.target
    disk = target.kind
    if target.kind != 'null':
        disk += f' {format_time(target.service)}, {target.lanes} lanes'
    queue = f'{config.device.num_queues} queue of {config.device.virtqueue_size}'
    what = f'{job.rw} {format_size(job.bs)}, {job.ioengine}; vhost-scsi, {queue}; disk: {disk}'
    beyond = config.agreed.hypothetical
    return f'{what}; hypothetical: {", ".join(beyond)}' if beyond else what


def show(outcome: command.Outcome) -> None:
    """The table for people."""
    import pandas as pd

    columns = (
        'series iodepth iops mean_us p50_us p99_us p999_us fio_lat_mean_us requests_per_kick '
        'requests_per_interrupt worker_busy'
    ).split()
    table = pd.DataFrame(outcome.rows)[columns].replace({None: float('nan')}).round(2)
    table['iops'] = table['iops'].round().astype(int)
    print(table.to_string(index=False, na_rep='-'))


EXPERIMENT = command.Experiment(
    'queue_depth', __doc__, experiment, draw, show,
    tables=('queue_depth.csv',),
    figures={
        'throughput-latency.png': 'IOPS and latency against iodepth, with the bounds of theory',
        'latency-tail.png': 'how many requests are slower than a latency',
        'stages.png': 'mean time in each stage, by iodepth',
    },
    headlines=headlines,
)  # fmt: skip

if __name__ == '__main__':
    sys.exit(EXPERIMENT.main())
