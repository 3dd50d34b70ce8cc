"""What decides how long CLEAR_ENDPOINT takes, and what becomes of the requests that it finds?

Method: a VM is stopped in the middle of a run (sim stop) and CLEAR_ENDPOINT timed, in six series:

    depth    a disk of 100 ms that serves 64 requests at a time, stopped 22 ms in, iodepth 1 to 64
    instant  the same disk at depth 16, stopped at different times within its service time
    law      service times of 1 ms, exponential, on 64 lanes and on one, averaged over seeds
    latency  the same on 64 lanes at depth 16, with mean service times of 100 us to 100 ms
    wbt      writes of 100 ms on Linux 6.1, with and without write-back throttling, and on 6.12; and
             throttled ones right after other writes, which have raised the limit
    race     80 requests submitted just before the stop, and a worker that takes 25 us for each, as
             the measured one did under emulation: who is answered what, by kernel

Theory: with everything in service at once a constant service time leaves its residual, whatever the
depth; n exponential requests take H_n / mu on lanes enough and n / mu on one. Throttled writes take
the residual at least, and a worker that needs 25 us for a request cannot have fetched more than one
for each 25 us (and the one that it has begun): both are bounds. Measured points
(validation/clear_endpoint*.csv) were taken under emulation: times carry over, their floor of 1.5 ms
does not.

Expect: 78 ms at every depth, and the residual to the millisecond at every instant; H_n and n within
their intervals; throttled writes serialised on 6.1 alone, in fewer rounds where the
throttle has just seen others (measured at depth 64: 189 ms behind other tests, and up to 397 ms);
on 6.1 what the worker had not fetched is answered BAD_TARGET, on 6.12 nothing is. The measurement
also saw one run in which the worker had not begun at all: the kick was consumed and the requests
stayed in the ring. Here a worker that has not woken yet does the same (sim stop, with a long
vhost.worker_wakeup_latency_shallow_idle).

Takes: half a minute on two cores, --quick a third of that, behind the compilation of the kernels.
"""

import argparse
import csv
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments import command
from sim.units import parse_time_ns

MS = 1_000_000
VALIDATION = Path(__file__).resolve().parent.parent / 'validation'
DEPTHS = (1, 4, 16, 64)
SEEDS, SEEDS_QUICK = 60, 15
STOP_MS = 22  # as in the measurement
INSTANTS_MS = (5, 20, 35, 50, 65, 80, 95)
LATENCIES = ('100us', '10ms', '100ms')  # 1 ms is in the law
BEFORE_MS = 400  # 32 writes of 100 ms, throttled, and a pause
SLACK_MS = 1.0  # ioctls, and the request's way to the disk
RACE_US = (100, 130, 170, 270, 400, 800, 1600)
RACE_BATCH = 80
WORKER_US = 25
EMULATED = {
    'vhost.worker_pop_share': f'{WORKER_US}us',
    'control.vcpu_kick': '0',
    'control.vm_state_notify': '0',
}  # no vCPUs had to be stopped there
DISK = {'kind': 'lanes', 'service': '100ms', 'distribution': 'constant', 'lanes': 64}

Point = tuple[dict[str, Any], dict[str, Any], int]  # its row so far, its sections, when in ns


def points(quick: bool, first: int = 1) -> Iterator[Point]:
    """Every point of every series; seeds are counted from `first`."""
    from sim.analysis.theory import mean_exponential_drain

    for depth in DEPTHS:
        work = {'iodepth': depth, 'number_ios': 2 * depth}
        row = {'series': 'depth', 'disk': 'parallel', 'iodepth': depth, 'theory_ms': 100 - STOP_MS}
        yield row, {'workload': work, 'target': DISK}, STOP_MS * MS
    for at in INSTANTS_MS:
        work = {'iodepth': 16, 'number_ios': 32}
        row = {'series': 'instant', 'disk': 'parallel', 'iodepth': 16, 'theory_ms': 100 - at}
        yield row, {'workload': work, 'target': DISK}, at * MS
    for seed in range(first, first + (SEEDS_QUICK if quick else SEEDS)):
        for disk, lanes in (('parallel', 64), ('serial', 1)):
            for depth in DEPTHS:
                target = DISK | {'service': '1ms', 'distribution': 'exponential', 'lanes': lanes}
                count = depth + 20 * (depth if lanes > 1 else 1)
                row = {'series': 'law', 'disk': disk, 'iodepth': depth, 'seed': seed}
                row['theory_ms'] = mean_exponential_drain(depth, 1.0, lanes)
                work = {'iodepth': depth, 'number_ios': 2 * count}
                yield row, {'workload': work, 'target': target}, 10 * MS
        for service in LATENCIES:
            mean = parse_time_ns(service)
            target = DISK | {'service': service, 'distribution': 'exponential'}
            row = {'series': 'latency', 'disk': 'parallel', 'iodepth': 16, 'seed': seed}
            row |= {'service_ms': mean / MS}
            row |= {'theory_ms': mean_exponential_drain(16, mean / MS, 64)}
            work = {'iodepth': 16, 'number_ios': 16 * 24}
            yield row, {'workload': work, 'target': target}, 10 * mean
    for depth in (32, 64):
        before = {'name': 'before', 'rw': 'randwrite', 'iodepth': 32, 'number_ios': 32}
        now = before | {'name': 'now', 'iodepth': depth, 'number_ios': 2 * depth}
        jobs = [before, now | {'startdelay': f'{BEFORE_MS}ms'}]
        target = DISK | {'wbt_lat': '2ms', 'wbt_queue_depth': 128}
        row = {'series': 'wbt', 'disk': 'throttled, after writes', 'iodepth': depth}
        sections = {'job': jobs, 'target': target, 'host': {'kernel': '6.1'}}
        yield row | {'bound_ms': 100 - STOP_MS}, sections, (BEFORE_MS + STOP_MS) * MS
    for kernel, name, latency in (
        ('6.1', 'throttled', '2ms'), ('6.1', 'not throttled', '0'), ('6.12', 'not throttled', None),
    ):  # fmt: skip
        for depth in (*DEPTHS[:3], 32, DEPTHS[3]):
            target = DISK | ({} if latency is None else {'wbt_lat': latency})
            work = {'rw': 'randwrite', 'iodepth': depth, 'number_ios': 2 * depth}
            row = {'series': 'wbt', 'disk': name, 'iodepth': depth, 'bound_ms': 100 - STOP_MS}
            sections = {'workload': work, 'target': target, 'host': {'kernel': kernel}}
            yield row, sections, STOP_MS * MS
    for kernel in ('6.1', '6.12'):
        for at in RACE_US:
            work = {
                'iodepth': RACE_BATCH,
                'iodepth_batch_submit': RACE_BATCH,
                'number_ios': RACE_BATCH,
            }
            sections = {
                'workload': work, 'target': DISK | {'lanes': 128}, 'host': {'kernel': kernel},
                'costs': EMULATED,
            }  # fmt: skip
            row = {'series': 'race', 'disk': 'parallel', 'iodepth': RACE_BATCH, 'after_us': at}
            row['bound_unfetched'] = max(0.0, RACE_BATCH - 1 - at / WORKER_US)
            yield row, sections, at * 1000


def simulate(row: dict[str, Any], config: dict[str, Any], at: int) -> dict[str, Any]:
    """One stop: the row with what came of it. A function of its own for processes."""
    from sim.config import from_effective
    from sim.control.stopping import StopPlan, stop

    report = stop(from_effective(config), StopPlan(at=at))
    answers = report['responses']
    return row | {
        'kernel': config['host']['kernel'],
        'at_ms': at / MS,
        'clear_ms': report['clear_endpoint_ns'] / 1e6,
        'in_flight': report['in_flight_at_stop'],
        'unfetched': report['unfetched_at_stop'],
        'ok': answers.get('0', 0),
        'bad_target': answers.get('3', 0),
        'left': answers.get('none', 0),
        'outcome': report['outcome'],
        'violations': report['violations'],
    }


def experiment(options: argparse.Namespace) -> command.Outcome:
    """Make every stop."""
    first = command.config(options).run.seed
    found = [
        (row, command.config(options, under=sections, vary=seed_of(row)), at)
        for row, sections, at in points(options.quick, first)
    ]
    command.announce(options, found[0][1])
    calls = {
        f'{place + 1}: {row["series"]}, iodepth {row["iodepth"]}': (row, config.effective(), at)
        for place, (row, config, at) in enumerate(found)
    }
    rows = command.each(options, simulate, calls)
    # A request that the guest waits for in vain is what the race is about, not a mistake.
    broken = [line for row in rows for line in row.pop('violations') if row['outcome'] != 'hung']
    return command.Outcome(found[0][1], rows, [*broken, *outside(rows)])


def outside(rows: list[dict[str, Any]]) -> list[str]:
    """Stops that are quicker than their law lets them be, a little (ioctls) in the other way.

    A residual and a bound hold for each stop; means of exponential times are left to the figure.
    """
    said = []
    for row in rows:
        exact = row.get('theory_ms') if row['series'] in ('depth', 'instant') else None
        least = row.get('bound_ms') if exact is None else exact
        where = f'{row["series"]}, iodepth {row["iodepth"]}, at {row["at_ms"]:g} ms'
        if least is not None and row['clear_ms'] < least - SLACK_MS:
            said.append(f'{where}: {row["clear_ms"]:.3f} ms, {least:g} are left of the disk')
        if exact is not None and row['clear_ms'] > exact + SLACK_MS:
            said.append(f'{where}: {row["clear_ms"]:.3f} ms, all is done after {exact:g}')
        missing = row.get('bound_unfetched', 0.0) if row['kernel'] == '6.1' else 0.0
        if row['outcome'] != 'hung' and row['bad_target'] < missing:
            said.append(f'{where}: {row["bad_target"]} BAD_TARGET, {missing:g} were not fetched')
    return [f'law: {text}' for text in said]


def headlines(options: argparse.Namespace) -> list[Any]:
    """Reads and throttled writes of 100 ms.

    Where services are random any cost moves the stop to another moment of them: that is luck, and
    its mean a law's.
    """
    from sim.studies.guesses import Headline, stopped

    wanted = (
        ('reads of 100 ms, 22 ms in, 16 in flight', 'depth', 'parallel', 16),
        ('writes, throttled, 32 in flight', 'wbt', 'throttled', 32),
    )
    found = []
    for name, *key in wanted:
        row, sections, at = next(
            point
            for point in points(quick=True, first=command.config(options).run.seed)
            if [point[0][column] for column in ('series', 'disk', 'iodepth')] == key
        )
        config = command.config(options, under=sections, vary=seed_of(row))
        found.append(
            Headline(
                name=f'CLEAR_ENDPOINT, {name}', unit='ms', configs=(config,),
                value=lambda report: report['clear_endpoint_ns'] / 1e6,
                run=functools.partial(stopped, at=at),
            )
        )  # fmt: skip
    return found


def seed_of(row: dict[str, Any]) -> dict[str, Any]:
    """Where a point is one of several that differ in it."""
    return {'run.seed': row['seed']} if 'seed' in row else {}


def measured(name: str) -> list[dict[str, str]]:
    """A table of what was measured."""
    with (VALIDATION / name).open(encoding='utf-8') as file:
        return list(csv.DictReader(line for line in file if not line.startswith('#')))


def draw(outcome: command.Outcome, folder: Path) -> None:
    """Table and figure."""
    import pandas as pd

    from sim.analysis import plot, plot_drain

    table = pd.DataFrame(outcome.rows)
    table.to_csv(folder / 'drain.csv', index=False)
    seen = pd.DataFrame(measured('clear_endpoint.csv')).astype(
        {'iodepth': int, 'clear_after_ms': float, 'clear_ms': float}
    )
    race = pd.DataFrame(measured('clear_endpoint_race.csv')).astype(
        {'after_us': float, 'ok': int, 'bad_target': int, 'left_in_ring': int}
    )
    plot.save(plot_drain.drain(table, seen, race), folder / 'drain.png')


def show(outcome: command.Outcome) -> None:
    """The tables for people."""
    import pandas as pd

    table = pd.DataFrame(outcome.rows)
    keys = ['series', 'kernel', 'disk', 'iodepth', 'at_ms']
    drains = table[table['series'] != 'race']
    times = ['clear_ms', 'theory_ms', 'bound_ms']
    mean = drains.groupby(keys, sort=False)[times].mean().reset_index()
    print(mean.round(2).to_string(index=False, na_rep='-'))
    race = table[table['series'] == 'race']
    print('\n' + race[['kernel', 'after_us', 'ok', 'bad_target', 'left']].to_string(index=False))


EXPERIMENT = command.Experiment(
    'drain', __doc__, experiment, draw, show,
    tables=('drain.csv',),
    figures={
        'drain.png': 'time of CLEAR_ENDPOINT by depth, instant, latency and law; throttled writes; '
        'answers in the race',
    },
    points=False,
    headlines=headlines,
)  # fmt: skip

if __name__ == '__main__':
    sys.exit(EXPERIMENT.main())
