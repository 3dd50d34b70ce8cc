"""One vhost worker for all virtqueues, or one for each: how many IOPS, for 1 to 16 fio jobs?

Method: 16 vCPUs, 16 virtqueues, random 4 KiB reads and writes, as in the published series (Mike
Christie, "vhost: multiple worker support", 2021). Series A submits one by one (libaio), series D in
batches (io_uring). The machine, its series and the three costs that are fitted, each on a published
point, are those of validation/worker-scaling.toml; all other points are predicted:

    vhost.worker_pop_share                the ceiling of a single worker (A, 4 jobs: 510k)
    guest.syscall_pair_per_cmd_unbatched  what fio and its system calls take (A, 1 job: 184k)
    target.serial                         what the disk can do at most (A, 16 jobs: 2434k)

What the author does not state (rings, disk, batches) is written in that file too.

Expect: unbatched, two jobs do better with ONE worker (1.3 times): it is busy, so that the guest
need not kick and completions come in batches, while a worker of one's own goes to sleep between
requests and has to be woken for each. With more jobs the single worker stops near 510k, and a
worker for each virtqueue goes on to what the disk can do. Batched, the kicks are few anyway and one
worker is never the better choice. What is not met: batched, one job brings 355k instead of 496k,
because its 128 requests travel in convoy, see docs/limits.md.

Takes: under a minute on two cores, --quick half of that, behind the compilation of the kernels.
"""

import argparse
import functools
import sys
from pathlib import Path
from typing import Any

from experiments import command

TARGET = 'worker-scaling.toml'
JOBS = (1, 2, 4, 8, 12, 16)
SERIES = {'A': 'unbatched (libaio)', 'D': 'batched (io_uring)'}
WORKERS = {'single': 'one worker', 'per_vq': 'a worker per virtqueue'}
REQUESTS, REQUESTS_QUICK = 16_000, 5_000  # of each job


@functools.cache
def target() -> Any:
    """The machine, the series and the published points (sim.studies.target_file.Target)."""
    from sim.studies.target_file import load_target, shipped_folder

    return load_target(shipped_folder() / TARGET)


def iodepth(jobs: int) -> int:
    """Of each job: a device takes 1024 commands at a time."""
    return min(128, 1024 // jobs)


def point_sets(series: str, workers: str, jobs: int, requests: int) -> list[str]:
    """What a point sets in the target's config, as --set writes it."""
    row = {'series': series, 'workers': workers, 'jobs': str(jobs), 'iodepth': str(iodepth(jobs))}
    return [*target().sets_of(row), f'workload.number_ios={requests}', 'run.record=histogram']


def published() -> dict[tuple[str, str, int], int]:
    """IOPS by series, workers and jobs."""
    return {(r['series'], r['workers'], int(r['jobs'])): int(r['iops']) for r in target().rows}


def experiment(options: argparse.Namespace) -> command.Outcome:
    """Run the sweep."""
    from sim.analysis.bounds import said_by_theory

    points = [(s, w, jobs) for s in SERIES for w in WORKERS for jobs in JOBS]
    configs = [point(options, *each) for each in points]
    command.announce(options, configs[0])
    reports = command.reports(options, configs)
    known = published()
    rows = [
        row_of(*each, known.get(each), report) | said_by_theory(config)
        for each, config, report in zip(points, configs, reports, strict=True)
    ]
    return command.Outcome(configs[0], rows, command.violations(reports))


def point(options: argparse.Namespace, series: str, workers: str, jobs: int) -> Any:
    """The config of a point."""
    requests = REQUESTS_QUICK if options.quick else REQUESTS
    over = dict(text.split('=', 1) for text in point_sets(series, workers, jobs, requests))
    return command.config(options, under=target().config, over=over)


def headlines(options: argparse.Namespace) -> list[Any]:
    """How much better (or worse) one worker does for two jobs; the ceilings of one and of many."""
    from sim.studies.guesses import Headline

    def iops(series: str, workers: str, jobs: int) -> Any:
        return Headline(
            name=f'{SERIES[series]}, {WORKERS[workers]}, {jobs} jobs', unit='IOPS',
            configs=(point(options, series, workers, jobs),), value=lambda report: report['iops'],
        )  # fmt: skip

    return [
        *(
            Headline(
                name=f'{name}, 2 jobs, one worker over one per virtqueue',
                unit='times the IOPS',
                configs=tuple(point(options, series, workers, 2) for workers in WORKERS),
                value=lambda one, each: one['iops'] / each['iops'],
            )
            for series, name in SERIES.items()
        ),
        iops('A', 'single', 4),
        iops('A', 'per_vq', 8),
    ]  # fmt: skip


def row_of(
    series: str, workers: str, jobs: int, known: int | None, report: dict[str, Any]
) -> dict[str, Any]:
    """One line of the table."""
    busy = report['busy']
    return {
        'series': series,
        'workers': workers,
        'fio_jobs': jobs,
        'iodepth': iodepth(jobs),
        'published_iops': known,
        'simulated_iops': report['iops'],
        **command.interval(report, 'iops', 'simulated_iops'),
        'error_percent': None if known is None else 100 * (report['iops'] / known - 1),
        'requests_per_kick': report['requests_per_kick'],
        'requests_per_interrupt': report['requests_per_interrupt'],
        'worker_busy': max(share for name, share in busy.items() if name.startswith('vhost')),
        'vcpu_busy': busy['vcpu0'],
        'id': report['id'],
        'digest': report['digest'],
    }


def draw(outcome: command.Outcome, folder: Path) -> None:
    """Table and figure."""
    import pandas as pd

    from sim.analysis import plot

    table = pd.DataFrame(outcome.rows)
    table.to_csv(folder / 'workers.csv', index=False)
    table['series'] = table['series'].map(SERIES)
    table['workers'] = table['workers'].map(WORKERS)
    figure = plot.measured_beside(
        table,
        panels='series',
        lines='workers',
        x='fio_jobs',
        pairs=('simulated_iops', 'published_iops'),
        names=('simulated', 'published (M. Christie, 2021)'),
        labels=('fio jobs', 'thousand IOPS'),
        scale=1e3,
        theory=True,
        title='vhost-scsi, 16 vCPUs, 16 virtqueues, randrw 4k: one worker or one per virtqueue',
    )
    plot.save(figure, folder / 'workers.png')


def show(outcome: command.Outcome) -> None:
    """The table for people."""
    import pandas as pd

    columns = (
        'series workers fio_jobs published_iops simulated_iops error_percent requests_per_kick '
        'requests_per_interrupt worker_busy vcpu_busy'
    ).split()
    table = pd.DataFrame(outcome.rows)[columns].round(2)
    table['simulated_iops'] = table['simulated_iops'].round().astype(int)
    table['published_iops'] = table['published_iops'].astype('Int64')
    print(table.to_string(index=False, na_rep='-'))
    iops = {(r['series'], r['workers']): r for r in outcome.rows if r['fio_jobs'] == 2}
    for series, name in SERIES.items():
        one, each = (iops[series, w]['simulated_iops'] for w in ('single', 'per_vq'))
        print(f'{name}, 2 jobs: one worker does {one / each:.2f} times what two do')


EXPERIMENT = command.Experiment(
    'workers', __doc__, experiment, draw, show,
    tables=('workers.csv',),
    figures={'workers.png': 'IOPS against fio jobs, simulated and published'},
    headlines=headlines,
)  # fmt: skip

if __name__ == '__main__':
    sys.exit(EXPERIMENT.main())
