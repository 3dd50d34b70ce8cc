"""What does each disk do to the data path, and how well does each model fit what was measured?

Method: every shipped disk (presets/disks) under 4k random reads at depths 1 to 64, once alone - the
medium in a closed loop, with the time of the host that the measurement was made on, as in
scripts/fit_disks.py - and once from the guest, behind virtio-scsi, vhost and LIO. The published
points are drawn in; those that were calibrated on are filled, those that the model predicts are
open. The measurements were made on bare metal, so it is the disk alone that they are held against.

Then, on chosen disks: what a write costs until the cache is full and after, and without a cache;
what SYNCHRONIZE CACHE costs by the number of writes before it; and where the tail of reads comes
from (collections, programming, housekeeping), by taking one after the other away.

Expect: SATA SSD reads within 6 % at every depth; 72 to 131 IOPS from a disk whose head chooses, and
no gain from depth with target.scheduler=fifo; of the latency of an Optane the path is two thirds at
depth 1 and nearly all at depth 64, of a disk's nothing.

Takes: a minute or two on two cores, --quick under one, behind the compilation of the kernels.
"""

import argparse
import dataclasses
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments import command

DEPTHS = (1, 2, 4, 8, 16, 32, 64)
DEPTHS_QUICK = (1, 4, 16, 64)
REQUESTS, REQUESTS_QUICK = 8000, 2500
REQUESTS_HDD, REQUESTS_HDD_QUICK = 2500, 800
SHARE_DEPTHS = (1, 64)
HEADLINE_DISKS = {'optane-p4800x': 64, 'nvme-tlc-p4510': 16, 'sata-ssd-s4610': 16}  # at a depth

TAIL_DISK = 'nvme-tlc-p4510'
NO_COLLECTIONS = {'target.gc_every': 0, 'target.gc_time': 0}
NO_PROGRAMMING = {'target.program_time': '1ns'}
NO_HOUSEKEEPING = {'target.background_every': 0, 'target.background_time': 0}
HALF, READS = {'workload.rw': 'randrw'}, {'workload.rw': 'randread'}
TAILS: dict[str, dict[str, Any]] = {  # in pairs: with something and without it
    'half of them writes': HALF,
    'no collections': HALF | NO_COLLECTIONS,
    'nor any time to program': HALF | NO_COLLECTIONS | NO_PROGRAMMING,
    'nor any housekeeping': HALF | NO_COLLECTIONS | NO_PROGRAMMING | NO_HOUSEKEEPING,
    'reads alone': READS,
    'reads alone, no housekeeping': READS | NO_HOUSEKEEPING,
}
CACHED = {'hdd-7200': 1, 'nvme-mlc-p3700': 32}  # depth at which their cache is filled
FLUSH_EVERY = (1, 4, 16, 64, 256)


def experiment(options: argparse.Namespace) -> command.Outcome:
    """Run everything."""
    from sim.analysis.bounds import said_by_theory
    from sim.formats.disks import disk_presets, load_disk
    from sim.sweep import load_report

    presets = {name: load_disk(name) for name in disk_presets()}
    at = functools.partial(point, options)
    depths = DEPTHS_QUICK if options.quick else DEPTHS
    points = [(name, depth) for name in presets for depth in depths]
    configs = [
        at(name, requests(options.quick, presets[name]), **READS | {'workload.iodepth': depth})
        for name, depth in points
    ]
    many = 16 * requests(options.quick)
    tails = [at(TAIL_DISK, many, **{'workload.iodepth': 8} | keys) for keys in TAILS.values()]
    base = at(TAIL_DISK)
    command.announce(options, base)
    places = command.sweep(options, [*configs, *tails])
    reports = [load_report(place) for place in places]
    rows = [
        *measured(presets),
        *(row for name in presets for row in alone_rows(at(name), name, presets[name])),
        *(
            path_row(*each, report) | said_by_theory(config)
            for each, config, report in zip(points, configs, reports, strict=False)
        ),
    ]
    fills = {name: fill for disk in CACHED for name, fill in fills_of(at(disk).target, disk)}
    flushes = flush_rows(at('hdd-7200').target, at('sata-ssd-s4610').target, options.quick)
    latencies = [read_latencies(place) for place in places[len(configs) :]]
    return command.Outcome(
        base,
        [*rows, *flushes],
        command.violations(reports),
        {
            'depths': rows,
            'theory': [
                {'disk': name, 'iodepth': depth}
                | said_by_theory(at(name, **READS | {'workload.iodepth': depth}))
                for name in presets
                for depth in DEPTHS
            ],
            'flushes': flushes,
            'fills': fills,
            'tails': dict(zip(TAILS, latencies, strict=True)),
            'grades': {name: preset['grade'] for name, preset in presets.items()},
        },
    )


def point(options: argparse.Namespace, name: str, number_ios: int = REQUESTS, **vary: Any) -> Any:
    """The config of a point."""
    over = {'workload.number_ios': number_ios}
    return command.config(options, over=over, vary={'target.disk': name} | vary)


def headlines(options: argparse.Namespace) -> list[Any]:
    """What of a latency is the path's; what is left of a disk from the guest."""
    from sim.studies.guesses import Headline

    def at(name: str, depth: int) -> tuple[Any, ...]:
        count = requests(options.quick)
        return (point(options, name, count, **READS | {'workload.iodepth': depth}),)

    def path_us(report: dict[str, Any]) -> float:
        return float(path_row('', 0, report)['path_us'])

    return [
        Headline(
            name='optane-p4800x, the path at iodepth 1', unit='µs', configs=at('optane-p4800x', 1),
            value=path_us,
        ),
        *(
            Headline(
                name=f'{name} from the guest, iodepth {depth}', unit='IOPS',
                configs=at(name, depth), value=lambda report: report['iops'],
            )
            for name, depth in HEADLINE_DISKS.items()
        ),
    ]  # fmt: skip


def requests(quick: bool, preset: dict[str, Any] | None = None) -> int:
    """How many, unless it is said; fewer where each takes milliseconds."""
    if preset is not None and preset['target']['kind'] == 'hdd':
        return REQUESTS_HDD_QUICK if quick else REQUESTS_HDD
    return REQUESTS_QUICK if quick else REQUESTS


# -------------------------------------------------------------------------------- depth curves ----


def measured(presets: dict[str, Any]) -> list[dict[str, Any]]:
    """What was published, reads only."""
    return [
        {'disk': name, 'where': 'measured', 'role': point['role'], 'iodepth': point['iodepth']}
        | {key: point[key] for key in ('iops', 'mean_us', 'p99_us') if key in point}
        for name, preset in presets.items()
        for point in preset.get('fit', {}).get('points', ())
        if point['rw'] == 'randread'
    ]


def alone_rows(config: Any, name: str, preset: dict[str, Any]) -> list[dict[str, Any]]:
    """The disk alone at every depth, with the error against what was published there."""
    import numpy as np

    from sim.disks.alone import alone
    from sim.units import parse_time_ns

    fit = preset.get('fit', {})
    host = parse_time_ns(fit.get('host_time_read', '0'))
    submission = parse_time_ns(fit.get('submission_read', '0')) / 1e3
    published = {p['iodepth']: p for p in measured({name: preset})}
    rows = []
    for depth in DEPTHS:
        count = fit.get('requests', 20_000)
        run = alone(config.target, depth=depth, requests=count, host_ns=host)
        latency = run.latency_us[count // 8 :]
        row = {'disk': name, 'where': 'alone', 'iodepth': depth, 'iops': run.iops}
        row |= {
            'mean_us': float(latency.mean()) + submission,
            'p99_us': float(np.quantile(latency, 0.99)),
        }
        for key in ('iops', 'mean_us', 'p99_us'):
            if key in (point := published.get(depth, {})):
                row[f'error_{key}_percent'] = 100 * (row[key] / point[key] - 1)
        rows.append(row)
    return rows


def path_row(name: str, depth: int, report: dict[str, Any]) -> dict[str, Any]:
    """The disk from the guest: fio's numbers, and what of the latency is not the disk's."""
    mean_us, disk_us = report['fio_lat_ns']['mean'] / 1e3, report['stages_ns']['done'] / 1e3
    p99 = report['fio_lat_ns']['p99']  # none where too few requests were measured for one
    return {
        'disk': name,
        'where': 'path',
        'iodepth': depth,
        'iops': report['iops'],
        **command.interval(report, 'iops', 'iops'),
        'mean_us': mean_us,
        **command.interval(report, 'fio_lat_ns.mean', 'mean_us', 1e3),
        'p99_us': None if p99 is None else p99 / 1e3,
        **command.interval(report, 'fio_lat_ns.p99', 'p99_us', 1e3),
        'disk_us': disk_us,
        'path_us': mean_us - disk_us,
        'id': report['id'],
        'digest': report['digest'],
    }


# -------------------------------------------------------------------------------- write caches ----


def fills_of(target: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Latency of writes (mean of a window) against MiB written, with its cache and without."""
    import numpy as np

    from sim.disks.alone import alone

    whole = 3 * target.write_cache // 4096
    for label, cache in ((name, target.write_cache), (f'{name}, no cache', 0)):
        count = whole if cache or target.kind != 'hdd' else 1500
        disk = dataclasses.replace(target, write_cache=cache)
        run = alone(disk, depth=CACHED[name], requests=count, rw='randwrite')
        window = whole // 64
        cut = len(run.done) // window * window
        mean = run.latency_us[:cut].reshape(-1, window).mean(axis=1)
        yield label, (np.arange(window, cut + 1, window) * 4096 / (1 << 20), mean)


def flush_rows(hdd: Any, ssd: Any, quick: bool) -> list[dict[str, Any]]:
    """How long a flush takes after so many writes."""
    from sim.disks.alone import alone
    from sim.se_cmd import OP_FLUSH

    disks = {
        'hdd-7200': hdd,
        'sata-ssd-s4610, were its cache volatile': dataclasses.replace(
            ssd, power_loss_protection=False
        ),
        'sata-ssd-s4610, as it is': ssd,
    }
    rows = []
    for label, disk in disks.items():
        for every in FLUSH_EVERY:
            count = (every + 1) * (8 if quick else 40)
            run = alone(disk, depth=1, requests=count, rw='randwrite', flush_every=every)
            flush = run.latency_us[run.ops == OP_FLUSH]
            rows.append({'label': label, 'writes': every, 'flush_us': float(flush.mean())})
    return rows


# ------------------------------------------------------------------------------------- figures ----


def draw(outcome: command.Outcome, folder: Path) -> None:
    """Tables and figures."""
    import pandas as pd

    from sim.analysis import plot, plot_disks

    found = outcome.more
    table, flushes = pd.DataFrame(found['depths']), pd.DataFrame(found['flushes'])
    theory = pd.DataFrame(found['theory'])
    table.to_csv(folder / 'disks.csv', index=False)
    flushes.to_csv(folder / 'cache.csv', index=False)
    pd.DataFrame(tail_rows(found['tails'])).to_csv(folder / 'tail.csv', index=False)
    ordered = by_speed(table)
    titles = {name: f'{name} (grade {found["grades"][name]})' for name in ordered}
    for metric in ('iops', 'latency'):
        figure = plot_disks.depth_curves(table, theory, metric, titles)
        plot.save(figure, folder / f'{metric}.png')
    path = table[(table['where'] == 'path') & table['iodepth'].isin(SHARE_DEPTHS)]
    share = pd.concat([path[path['disk'] == name] for name in ordered])
    share['label'] = share['disk'] + share['iodepth'].map(', {} in flight'.format)
    title = "The path's share of the latency, 4k random reads"
    plot.save(plot_disks.path_share(share, title), folder / 'share.png')
    plot.save(plot_disks.write_cache(found['fills'], flushes), folder / 'cache.png')
    title = f'{TAIL_DISK}: 4k random reads, 8 in flight, and what makes their tail'
    plot.save(plot.latency_tails(found['tails'], title), folder / 'tail.png')


def tail_rows(samples: dict[str, Any]) -> list[dict[str, Any]]:
    """The percentiles of each distribution."""
    return [
        {'label': label, 'requests': int(counts.sum())} | tail_of(values, counts)
        for label, (values, counts) in samples.items()
    ]


def by_speed(table: Any) -> list[str]:
    """The disks, the quickest at depth 1 first."""
    alone = table[(table['where'] == 'alone') & (table['iodepth'] == 1)]
    return list(alone.sort_values('mean_us')['disk'])


def read_latencies(place: Path) -> Any:
    """(latencies in µs, how many of each), of the reads of a run, ascending."""
    import numpy as np

    from sim.sweep import load_requests

    found = load_requests(place)
    reads = found[found['op'] == 'read']['latency_ns'].dropna().to_numpy(dtype=np.int64)
    values, counts = np.unique(reads, return_counts=True)
    return values / 1e3, counts


def tail_of(values: Any, counts: Any) -> dict[str, float]:
    """Percentiles of a distribution in µs."""
    import numpy as np

    below = np.cumsum(counts) / counts.sum()
    shares = {'p50_us': 0.5, 'p99_us': 0.99, 'p999_us': 0.999}
    found = {name: float(values[np.searchsorted(below, share)]) for name, share in shares.items()}
    return found | {'max_us': float(values[-1])}


def show(outcome: command.Outcome) -> None:
    """The tables for people."""
    import pandas as pd

    table = pd.DataFrame(outcome.rows)
    alone = table[(table['where'] == 'alone') & table['error_iops_percent'].notna()]
    print('reads, the disk alone against what was measured (error in %):')
    columns = ['iops', 'error_iops_percent', 'error_mean_us_percent', 'error_p99_us_percent']
    print(alone[['disk', 'iodepth', *columns]].round(1).to_string(index=False, na_rep='-'))
    print('\nreads, from the guest:')
    path = table[table['where'] == 'path'].copy()
    path['path_share_percent'] = 100 * path['path_us'] / (path['path_us'] + path['disk_us'])
    columns = ['iops', 'mean_us', 'p99_us', 'path_us', 'path_share_percent']
    print(path[['disk', 'iodepth', *columns]].round(1).to_string(index=False))
    print('\na flush after so many writes (µs):')
    flushes = table[table['label'].notna()]
    print(flushes.pivot(index='label', columns='writes', values='flush_us').round(0).to_string())
    print('\nthe tail of reads:')
    print(pd.DataFrame(tail_rows(outcome.more['tails'])).round(0).to_string(index=False))


EXPERIMENT = command.Experiment(
    'disks', __doc__, experiment, draw, show,
    tables=('disks.csv', 'cache.csv', 'tail.csv'),
    figures={
        'iops.png': 'IOPS of each disk against depth, alone, from the guest, and as published',
        'latency.png': 'the same of the latency, mean and p99',
        'share.png': "the path's share of the latency",
        'cache.png': 'writes until the cache is full and after; what a flush takes',
        'tail.png': 'the tail of reads, and what makes it',
    },
    headlines=headlines,
)  # fmt: skip

if __name__ == '__main__':
    sys.exit(EXPERIMENT.main())
