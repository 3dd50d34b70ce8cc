"""How long is a VM down when it migrates, and what of it can be had back by flushing earlier?

Method: a VM with vhost-scsi on Linux 7.2 migrates in the middle of random reads (sim migrate, with
QEMU's defaults but for a fast link), in seven series, each point averaged over seeds:

    depth     iodepth 1 to 64 on a disk of 1 ms: constant, exponential on lanes enough, exponential
              on one lane; the stop drains, as the kernel does
    latency   the same at iodepth 16, for disks of 100 us to 30 ms, and one with a tail
    policy    iodepth 16, exponential 1 ms: policies that begin a lead time before the vCPUs pause,
              from 0 to 10 ms
    dirty     pages that the vCPUs dirty beside their I/O, up to 80 % of what the link takes
    link      1 to 100 Gbit/s, a guest that dirties 50 MB/s
    idle      a guest that does little, of 8 to 200 GiB, of which Linux has written 1/64 and 512 MiB
    vfio      the same of 32 GiB, with up to four functions passed through with VFIO

Theory: the drain of n exponential requests on lanes enough has mean H_n / mu, on one lane n / mu,
and of a guest that was quiesced a time t before sum (1 - u^k) / k / mu, k up to n, is left, where
u is 1 - exp(-mu t). Where all take the same time it is what is left of the last one, whatever
their number: they stay together once the flush of SET_LOG_BASE has waited for them, and the slices
of the pre-copy decide where in the service time the stop falls. Everything else of the downtime
does not know of the disk: that is the floor under all policies. What is left of RAM when QEMU
switches over is its expected-downtime times the bandwidth, which is QEMU's own law. The total time
of an idle guest is a scan of zero pages, and pages in use at the rate of the link or of the thread.

Expect: the drain follows the laws above a floor of flushes; QEMU's expected-downtime does not move
with it; a guest that is quiesced, or a worker that is gated, for a few service times has nothing
left to drain when it stops, but is silent for longer: the blackout that the guest feels shrinks
less than the downtime, or grows. A link beyond 20 Gbit/s is no quicker than the thread that fills
it. Most of an idle guest's total time goes to pages that were never written, and most of its
downtime to the functions that are passed through. Now and then a page stays behind though Linux
7.2 logs data: its request was fetched between SET_LOG_BASE and LOG_ALL.

With a disk of your own (a config, --fio, --set target...) the policies are tried on it alone, and
the last lines say which lead keeps the VM below migration.downtime_limit.

Takes: three minutes on two cores with --jobs 2, --quick one, behind the compilation of the
kernels.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments import command

MACHINE: dict[str, dict[str, Any]] = {
    'host': {'kernel': '7.2'},
    'device': {'migratable': 'on'},
    'workload': {'rw': 'randread', 'runtime': '100s', 'time_based': 'on'},
    'migration': {'at': '5ms', 'ram': '64m', 'max_bandwidth': '0', 'run_on': '5ms'},
    'target': {'size': '64m'},
}
ONE_MS = {'target.kind': 'lanes', 'target.service': '1ms'}
DISKS = {
    'constant': ONE_MS | {'target.distribution': 'constant', 'target.lanes': 64},
    'exponential': ONE_MS | {'target.distribution': 'exponential', 'target.lanes': 64},
    'serial': ONE_MS | {'target.distribution': 'exponential', 'target.lanes': 1},
}
DEPTHS = (1, 2, 4, 8, 16, 32, 64)
SERVICES_US = (100, 300, 1000, 3000, 10000, 30000)
LEADS_US = (0, 100, 300, 1000, 2000, 3000, 5000, 10000)
DIRTY_SHARES = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8)
LINKS_GBIT = (1, 2.5, 10, 25, 40, 100)
BITS = 125_000_000  # bytes per second in a Gbit/s
IDLE_GIB = (8, 16, 32, 64, 128, 200)
FUNCTIONS = (0, 1, 2, 4)
LIMIT_MS = 9.0  # that the answer is given for, unless the disk is the user's and so is the limit
SEEDS, SEEDS_QUICK = 24, 6
GOLDEN = 0.618033988749895  # its multiples are spread evenly over the unit interval

Point = tuple[dict[str, Any], dict[str, Any]]  # its row so far, its keys


def points(own_disk: bool = False) -> Iterator[Point]:
    """Every point of every series, but for the seeds; on a disk of the user's the policies only."""
    for policy in leading():
        for lead in LEADS_US if policy != 'drain' else (0,):
            row = {'series': 'policy', 'policy': policy, 'lead_us': lead}
            keys = {'migration.policy': policy} | ({'migration.lead': f'{lead}us'} if lead else {})
            if own_disk:
                yield row | {'disk': 'own'}, keys
                continue
            row |= {'disk': 'exponential', 'iodepth': 16, 'service_us': 1000}
            yield row, DISKS['exponential'] | {'workload.iodepth': 16} | keys
    if own_disk:
        return
    for disk, keys in DISKS.items():
        for depth in DEPTHS:
            row = {'series': 'depth', 'disk': disk, 'policy': 'drain', 'iodepth': depth}
            yield row | {'service_us': 1000}, keys | {'workload.iodepth': depth}
    for service in SERVICES_US:
        row = {'series': 'latency', 'policy': 'drain', 'iodepth': 16, 'service_us': service}
        keys = {'workload.iodepth': 16}
        exponential = DISKS['exponential'] | {'target.service': f'{service}us'}
        yield row | {'disk': 'exponential'}, exponential | keys
        yield row | {'disk': 'tail'}, keys | {'target.lanes': 64} | tail_of(service)
    for share in DIRTY_SHARES:
        row = {'series': 'dirty', 'disk': 'exponential', 'policy': 'drain', 'iodepth': 16}
        keys = {'workload.iodepth': 16, 'migration.dirty_rate': round(share * 10 * BITS)}
        yield row | {'service_us': 1000, 'dirty_share': share}, DISKS['exponential'] | keys
    for link in LINKS_GBIT:
        row = {'series': 'link', 'disk': 'exponential', 'policy': 'drain', 'iodepth': 16}
        keys = {'workload.iodepth': 16, 'migration.dirty_rate': 50_000_000}
        keys |= {'migration.link_bandwidth': round(link * BITS)}
        yield row | {'service_us': 1000, 'link_gbit': link}, DISKS['exponential'] | keys
    for gib, functions in [*((gib, 0) for gib in IDLE_GIB), *((32, n) for n in FUNCTIONS[1:])]:
        series = {'series': 'vfio', 'functions': functions} if functions else {'series': 'idle'}
        used = (gib << 30) // 64 + (512 << 20)
        keys = {'workload.iodepth': 1, 'workload.thinktime': '100ms', 'migration.ram': gib << 30}
        keys |= {'migration.ram_used': used, 'migration.vfio_devices': functions}
        row = {'disk': 'exponential', 'policy': 'drain', 'iodepth': 1, 'service_us': 1000}
        yield row | series | {'ram_gib': gib}, DISKS['exponential'] | keys


def tail_of(service_us: int) -> dict[str, Any]:
    """A disk that takes ten times as long for one request in a hundred, with the same mean."""
    usual = service_us / (0.9 + 0.1 * 5.5)
    quantiles = f'p0 {0.8 * usual:.1f}us, p90 {1.2 * usual:.1f}us, p100 {10 * usual:.1f}us'
    return {'target.kind': 'empirical', 'target.quantiles': quantiles}


def leading() -> list[str]:
    """The kernel's own policy, and those that begin before the pause."""
    from sim.control.stop_policy import POLICIES

    return ['drain', *(policy.name for policy in POLICIES.values() if policy.lead)]


def theory_ms(row: dict[str, Any]) -> float | None:
    """Mean time of the drain by the laws; None where there is none.

    A guest that is quiesced begins to drain with the lead; what is left at the stop has a law, too.
    Of a worker that is gated, or a guest that is throttled, there is none.
    """
    from sim.analysis.theory import mean_drain_left, mean_exponential_drain

    lead = row.get('lead_us', 0)
    if row['series'] in ('idle', 'vfio'):
        return None
    if row['disk'] not in ('exponential', 'serial') or (lead and row['policy'] != 'quiesce'):
        return None
    n, service = row['iodepth'], row['service_us'] / 1e3
    if row['disk'] == 'serial':
        return mean_exponential_drain(n, service, 1)
    return mean_drain_left(n, service, lead / 1e3)


def pass_ms(config: Any) -> float:
    """One pass over RAM: zero pages at the thread's rate, the others at that of the slower one."""
    from sim.control.costs import control_of_config
    from sim.migrate.ram import PAGE_ON_WIRE

    costs, plan, page = control_of_config(config), config.migration, 4096
    send_s = max(costs.page_send / config.host.cpu_hz, PAGE_ON_WIRE / plan.link_bandwidth)
    zero_s = costs.page_zero / config.host.cpu_hz
    return 1e3 * ((plan.ram - plan.ram_used) * zero_s + plan.ram_used * send_s) / page


def measured(effective: dict[str, Any]) -> dict[str, Any]:
    """One migration: what the table wants of it."""
    from sim.config import from_effective
    from sim.migrate.checks import WINDOW
    from sim.migration import migrate

    residual = []

    def look(result: Any, move: Any) -> None:
        rows = result.requests[result.requests['serial'].isin(move.open_serials)]
        stop, hz = move.downtime_start, move.hz
        if stop is not None and len(rows):
            left = rows['t_done_ns'].max() / 1e6 - stop * 1e3 / hz
            residual.append(max(0.0, left))

    report = migrate(from_effective(effective), look)
    predicted = any(sentence.startswith(WINDOW) for sentence in report['violations'])
    stopped, blackout = report['vm_stopped_ns'], report['blackout_ns']['largest']
    return {
        'outcome': report['outcome'],
        'violations': [] if predicted else report['violations'],
        'log_all_window': int(predicted),
        'residual_ms': residual[0] if residual else 0.0,
        'downtime_ms': report['downtime_ms'],
        'total_ms': report['total_time_ms'],
        'expected_downtime_ms': report['expected_downtime_ms'],
        'stopped_ms': None if stopped is None else stopped / 1e6,
        'blackout_ms': None if blackout is None else blackout / 1e6,
        'in_flight': report['in_flight_at_stop'],
        **{f'{name}_ms': ns / 1e6 for name, ns in report['phases_ns'].items()},
    }


def experiment(options: argparse.Namespace) -> command.Outcome:
    """Every point at every seed; rows are means over the seeds."""
    import numpy as np

    from sim.analysis.stats import mean_interval

    first = command.config(options, under=MACHINE).run.seed
    seeds = range(first, first + (SEEDS_QUICK if options.quick else SEEDS))
    own = bool(options.config or options.fio or any('target.' in item for item in options.sets))
    table = [(row, command.config(options, under=MACHINE, vary=keys)) for row, keys in points(own)]
    command.announce(options, table[0][1])
    calls = {}
    for number, (_, config) in enumerate(table):
        for seed in seeds:
            effective = config.effective()
            effective['run'] = {**effective['run'], 'seed': seed}
            at = f'{5000 + 1000 * GOLDEN * seed % 1000:.3f}us'  # anywhere within a service time
            effective['migration'] = {**effective['migration'], 'at': at}
            calls[f'point {number + 1} of {len(table)}, seed {seed}'] = (effective,)
    found = command.each(options, measured, calls)
    rows, broken = [], []
    for number, (row, _) in enumerate(table):
        mine = found[number * len(seeds) : (number + 1) * len(seeds)]
        broken += [sentence for one in mine for sentence in one['violations']]
        good = [one for one in mine if one['outcome'] == 'ok']
        if not good:
            raise command.FailedError(f'point {number + 1}, {row}: {mine[0]["outcome"]}')
        row = row | {'runs': len(mine), 'ok': len(good), 'theory_ms': theory_ms(row)}
        if row['series'] == 'idle':
            row['pass_ms'] = pass_ms(table[number][1])
        row['log_all_window'] = sum(one['log_all_window'] for one in mine)
        for name in mine[0]:
            if not name.endswith('_ms') and name != 'in_flight':
                continue
            values = np.array([one[name] for one in good if one[name] is not None], dtype=float)
            mean, half = mean_interval(values)
            if name == 'residual_ms':
                row |= {'theory_ms': mean} if row['disk'] == 'constant' else {}
                continue
            row |= {name: mean}
            if name == 'stopped_ms':
                row |= {'stopped_p95_ms': float(np.quantile(values, 0.95))}
            if name in ('stopped_ms', 'drain_ms', 'blackout_ms', 'downtime_ms'):
                row |= {f'{name}_low': mean - half, f'{name}_high': mean + half}
        job = table[number][1].jobs[0]
        rows.append({'iodepth': job.iodepth, **row})
    return command.Outcome(table[0][1], rows, violations=sorted(set(broken)))


def headlines(options: argparse.Namespace) -> list[Any]:
    """How long the VM stands still beside the drain, and how long it still does after a gate.

    The drain itself is the disk's: any cost moves the stop to another moment of random services.
    """
    from sim.studies.guesses import Headline, migrated

    at = {'migration.at': f'{5000 + 1000 * GOLDEN % 1000:.3f}us', 'workload.iodepth': 16}

    def of(name: str, value: Any, **keys: str) -> Any:
        vary = DISKS['exponential'] | at | {f'migration.{key}': keys[key] for key in keys}
        config = command.config(options, under=MACHINE, vary=vary)
        return Headline(name=name, unit='ms', configs=(config,), run=migrated, value=value)

    def beside_drain(report: dict[str, Any]) -> float:
        return float(report['vm_stopped_ns'] - report['phases_ns']['drain']) / 1e6

    def stopped_ms(report: dict[str, Any]) -> float:
        return float(report['vm_stopped_ns']) / 1e6

    gate = {'policy': 'gate', 'lead': '10ms'}
    return [
        of('vCPUs stopped less the drain, iodepth 16', beside_drain),
        of('vCPUs stopped, gated 10 ms before, iodepth 16', stopped_ms, **gate),
    ]


def draw(outcome: command.Outcome, folder: Path) -> None:
    """The table and both figures."""
    import pandas as pd

    from sim.analysis import plot_migration
    from sim.analysis.style import save

    table = pd.DataFrame(outcome.rows)
    table.to_csv(folder / 'migration_downtime.csv', index=False)
    save(plot_migration.phases(table), folder / 'phases.png')
    save(plot_migration.downtime(table), folder / 'downtime.png')


def show(outcome: command.Outcome) -> None:
    """The table for people, and the answer."""
    print(f'{"series":8} {"disk":12} {"policy":9} {"depth":>5} {"x":>9} {"drain ms":>9} '
          f'{"theory":>7} {"down ms":>8} {"expected":>8} {"stopped":>8} '
          f'{"blackout":>8}')  # fmt: skip
    for row in outcome.rows:
        xs = ('lead_us', 'dirty_share', 'link_gbit', 'functions', 'ram_gib')
        x = next((row[name] for name in xs if name in row), row.get('service_us'))
        theory = '' if row['theory_ms'] is None else f'{row["theory_ms"]:.2f}'
        print(f'{row["series"]:8} {row["disk"]:12} {row["policy"]:9} {row["iodepth"]:5} {x:9g} '
              f'{row["drain_ms"]:9.3f} {theory:>7} {row["downtime_ms"]:8.2f} '
              f'{row["expected_downtime_ms"]:8.2f} {row["stopped_ms"]:8.2f} '
              f'{row["blackout_ms"]:8.2f}')  # fmt: skip
    windows = sum(row['log_all_window'] for row in outcome.rows)
    if windows:
        print(
            f'\nin {windows} migrations a page was left behind by a request that was fetched just '
            'before LOG_ALL was set (docs/reference/migration.md)'
        )
    print()
    own = outcome.rows[0]['disk'] == 'own'
    limit = outcome.config.migration.downtime_limit / 1e6 if own else LIMIT_MS
    for line in answers(outcome.rows, limit):
        print(line)


def answers(rows: list[dict[str, Any]], limit_ms: float) -> list[str]:
    """Which policy, and how much earlier, so that the VM stands still no longer than the limit."""
    mine = [row for row in rows if row['series'] == 'policy']
    plain = next(row for row in mine if row['policy'] == 'drain')
    found = [
        f'policy drain: {plain["drain_ms"]:.2f} of {plain["stopped_ms"]:.2f} ms stopped are the '
        f'drain, 95 % are below {plain["stopped_p95_ms"]:.2f} ms; the guest hears nothing for '
        f'{plain["blackout_ms"]:.2f} ms'
    ]
    for policy in dict.fromkeys(row['policy'] for row in mine if row['policy'] != 'drain'):
        line = [row for row in mine if row['policy'] == policy]
        enough = [row for row in line if row['stopped_p95_ms'] <= limit_ms]
        if not enough:
            best = min(line, key=lambda row: row['stopped_p95_ms'])
            found.append(
                f'policy {policy}: with no lead of these do 95 % stay below '
                f'{limit_ms:g} ms; {best["stopped_p95_ms"]:.2f} ms at {best["lead_us"] / 1e3:g} ms'
            )
            continue
        best = min(enough, key=lambda row: row['lead_us'])
        found.append(
            f'policy {policy}: with a lead of {best["lead_us"] / 1e3:g} ms 95 % stay below '
            f'{limit_ms:g} ms; the guest hears nothing for '
            f'{best["blackout_ms"]:.2f} ms'
        )
    return found


EXPERIMENT = command.Experiment(
    'migration_downtime',
    __doc__,
    experiment,
    draw,
    show,
    tables=('migration_downtime.csv',),
    figures={
        'phases.png': 'the phases of the downtime against iodepth, for three disks',
        'downtime.png': 'drain, policies, dirty rate, link, RAM and functions against theory',
    },
    points=False,
    headlines=headlines,
)

if __name__ == '__main__':
    sys.exit(EXPERIMENT.main())
