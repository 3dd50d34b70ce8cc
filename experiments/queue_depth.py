"""How do latency and throughput grow with iodepth, and what does EVENT_IDX change?

Method: iodepth 1 to 256 with EVENT_IDX on and off, same seed, so both see the same requests and the
same service times. Everything else is as in the config, job file and device string that are given.

Two latencies: up to the completion in the guest's driver (mean_us ... max_us, the stages), and
up to fio's reaping it (fio_lat_*: what fio prints as lat). Once fio's CPU is the bottleneck,
completions wait to be reaped and only the second one grows.

Expect: latency flat until the first station saturates, then growing with iodepth; beyond the ring
(virtqueue_size) requests wait in the guest's block layer. EVENT_IDX off kicks more often where the
worker is busy. About three minutes on two cores; --quick under one.

Writes queue_depth.csv and three figures: throughput-latency.png (theory bounds drawn in),
latency-tail.png and stages.png.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from experiments import command
from sim.options import config_sources

DEPTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
DEPTHS_QUICK = (1, 4, 16, 64, 256)
REQUESTS_QUICK = 4000
SHOWN_TAILS = (1, 32, 256)
SERIES = {True: 'EVENT_IDX on', False: 'EVENT_IDX off'}


def experiment(options: argparse.Namespace) -> dict[str, Any]:
    """Run the sweep, write table and figures; returns config, seed, rows and violations."""
    from sim.config import load
    from sim.sweep import load_report

    depths = DEPTHS_QUICK if options.quick else DEPTHS
    extra = command.sets_of(options)
    if options.quick:
        extra.append(f'workload.number_ios={REQUESTS_QUICK}')

    def at(depth: int, event_idx: bool) -> Any:
        switch = 'on' if event_idx else 'off'
        sets = [*extra, f'workload.iodepth={depth}', f'device.event_idx={switch}']
        return load(**config_sources(options), sets=sets)

    base = load(**config_sources(options), sets=extra)
    points = [(depth, event_idx) for event_idx in (True, False) for depth in depths]
    configs = [at(*point) for point in points]
    for note in base.notes:
        print(f'note: {note}', file=sys.stderr)
    if not options.json:
        print(base.to_toml())
    places = command.sweep(options, configs)
    reports = [load_report(place) for place in places]
    rows = [row_of(*point, report) for point, report in zip(points, reports, strict=True)]
    bound_rows = [bounds_of(at(depth, True)) | {'iodepth': depth} for depth in depths]
    draw(Path(options.out), base, rows, bound_rows, points, places)
    return {
        'config': base.effective(),
        'seed': base.run.seed,
        'rows': rows,
        'violations': [broken for report in reports for broken in report['violations']],
    }


def row_of(depth: int, event_idx: bool, report: dict[str, Any]) -> dict[str, Any]:
    """One line of the table."""
    latency = {f'{key}_us': in_us(value) for key, value in report['latency_ns'].items()}
    fio = report['fio_lat_ns']
    return {
        'series': SERIES[event_idx],
        'iodepth': depth,
        'iops': report['iops'],
        **latency,
        'fio_lat_mean_us': in_us(fio['mean']),
        'fio_lat_p99_us': in_us(fio['p99']),
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


def bounds_of(config: Any) -> dict[str, float]:
    """Asymptotic bounds of a config: the most IOPS, the least latency."""
    from sim.analysis.bounds import bounds

    most_iops, least_s = bounds(config)
    return {'iops_max': most_iops, 'latency_min_us': least_s * 1e6}


def draw(
    folder: Path, config: Any, rows: list[dict], bound_rows: list[dict], points: Any, places: Any
) -> None:
    """Table and figures."""
    import pandas as pd

    from sim.analysis import plot
    from sim.record import STAGES
    from sim.sweep import load_latencies

    table = pd.DataFrame(rows).replace({None: float('nan')})
    table.drop(columns='stages_us').to_csv(folder / 'queue_depth.csv', index=False)
    what = describe(config)
    plot.save(
        plot.throughput_latency(table, pd.DataFrame(bound_rows), what),
        folder / 'throughput-latency.png',
    )
    tails = {}
    for (depth, event_idx), place in zip(points, places, strict=True):
        if depth in SHOWN_TAILS:
            times, requests = load_latencies(place)
            tails[f'iodepth {depth}, {SERIES[event_idx]}'] = times / 1e3, requests
    ordered = dict(sorted(tails.items(), key=lambda item: int(item[0].split()[1].strip(','))))
    plot.save(plot.latency_tails(ordered, what), folder / 'latency-tail.png')
    stacks = pd.DataFrame(
        [
            {'label': f'{row["iodepth"]}, {"on" if row["series"] == SERIES[True] else "off"}'}
            | {stage: row['stages_us'][stage] for stage in STAGES}
            for row in sorted(rows, key=lambda row: (row['iodepth'], row['series'] != SERIES[True]))
        ]
    )
    title = f'{what}: where the time goes, by iodepth and EVENT_IDX'
    plot.save(plot.stage_stack(stacks, title), folder / 'stages.png')


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


def show(outcome: dict[str, Any], folder: Path) -> None:
    """The table for people, and where to look."""
    import pandas as pd

    columns = (
        'series iodepth iops mean_us p50_us p99_us p999_us fio_lat_mean_us requests_per_kick '
        'requests_per_interrupt worker_busy'
    ).split()
    table = pd.DataFrame(outcome['rows'])[columns].replace({None: float('nan')}).round(2)
    table['iops'] = table['iops'].round().astype(int)
    print(table.to_string(index=False, na_rep='-'))
    for broken in outcome['violations']:
        print(f'violation: {broken}')
    print(f'\ntable    {folder / "queue_depth.csv"}')
    for name in ('throughput-latency', 'latency-tail', 'stages'):
        print(f'figure   {folder / name}.png')
    print(f'runs     {folder}/<id>/ (requests.parquet, summary.csv, report.json, config.toml)')


if __name__ == '__main__':
    arguments = command.parser('queue_depth', __doc__).parse_args()
    sys.exit(command.main(arguments, experiment, show))
