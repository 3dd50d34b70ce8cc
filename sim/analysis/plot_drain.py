"""Figures of stops: how long the drain takes, and who is answered what."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sim.analysis.style import COLOURS, MARKERS, MEASURED, plain_log_axis, styled

LAW: dict[str, Any] = {'color': 'black', 'linestyle': '--', 'linewidth': 1.2, 'marker': ''}


@styled
def drain(table: pd.DataFrame, measured: pd.DataFrame, race: pd.DataFrame) -> Figure:
    """Six panels: by depth, by the instant of the stop, throttled writes, the laws, by the disk's
    latency, the race.

    `table`: columns series, kernel, disk, iodepth, at_ms, clear_ms, theory_ms, of the latencies
    service_ms, of throttled writes bound_ms, of the race after_us, bad_target and bound_unfetched.
    `measured`: op, iodepth, clear_after_ms, clear_ms. `race`: kernel, after_us, ok, bad_target,
    left_in_ring.
    """
    figure = Figure(figsize=(16, 8))
    panels = figure.subplots(2, 3).flat
    _by_depth(next(panels), table, measured)
    _by_instant(next(panels), table)
    _throttled(next(panels), table, measured)
    _laws(next(panels), table)
    _by_latency(next(panels), table)
    _race(next(panels), table, race)
    figure.suptitle('VHOST_SCSI_CLEAR_ENDPOINT: how long it takes, and what it does to requests')
    return figure


def _by_depth(axes: Axes, table: pd.DataFrame, measured: pd.DataFrame) -> None:
    reads = table[table['series'] == 'depth']
    axes.plot(reads['iodepth'], reads['clear_ms'], color=COLOURS[0], marker='o', label='simulated')
    seen = measured[(measured['op'] == 'read') & (measured['iodepth'] > 0)]
    axes.plot(seen['iodepth'], seen['clear_ms'], marker='o', label='measured, 6.1', **MEASURED)
    axes.plot(reads['iodepth'], reads['theory_ms'], label='law: residual time', **LAW)
    axes.set_xscale('log')
    plain_log_axis(axes, sorted(reads['iodepth'].unique()), 'x')
    axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
    _label(axes, 'reads in flight', 'a disk of 100 ms, stopped 22 ms in')


def _throttled(axes: Axes, table: pd.DataFrame, measured: pd.DataFrame) -> None:
    writes = table[table['series'] == 'wbt']
    for place, ((kernel, disk), line) in enumerate(writes.groupby(['kernel', 'disk'], sort=False)):
        axes.plot(
            line['iodepth'],
            line['clear_ms'],
            color=COLOURS[1 + place],
            marker=MARKERS[place],
            linestyle=('-', '-', '--', ':')[place],
            label=f'Linux {kernel}, {disk}',
        )
    seen = measured[(measured['op'] == 'write') & (measured['iodepth'] > 0)]
    axes.plot(seen['iodepth'], seen['clear_ms'], marker='^', label='measured, 6.1', **MEASURED)
    least = writes.drop_duplicates('iodepth').sort_values('iodepth')
    axes.plot(least['iodepth'], least['bound_ms'], label='bound: all at once', **LAW)
    axes.set_xscale('log')
    plain_log_axis(axes, sorted(writes['iodepth'].unique()), 'x')
    axes.set_ylim(0)
    _label(axes, 'writes in flight', 'write-back throttling: the same disk')


def _by_instant(axes: Axes, table: pd.DataFrame) -> None:
    line = table[table['series'] == 'instant']
    axes.plot(line['at_ms'], line['theory_ms'], label='law: residual time', **LAW)
    axes.plot(
        line['at_ms'],
        line['clear_ms'],
        color=COLOURS[0],
        linestyle='',
        marker='o',
        label='simulated',
    )
    axes.set_ylim(0)
    _label(axes, 'stopped so long after the submission (ms)', 'a disk of 100 ms, depth 16')


def _laws(axes: Axes, table: pd.DataFrame) -> None:
    laws = table[table['series'] == 'law']
    names = {'parallel': ('64 lanes', 'H$_n$ / µ'), 'serial': ('one lane', 'n / µ')}
    for place, (disk, (lanes, law)) in enumerate(names.items()):
        groups = laws[laws['disk'] == disk].groupby('iodepth')
        mean, count = groups['clear_ms'].mean(), groups['clear_ms'].count()
        half = 1.96 * groups['clear_ms'].std() / np.sqrt(count)
        axes.plot(
            mean.index,
            groups['theory_ms'].mean(),
            color='black',
            linestyle=('--', ':')[place],
            label=f'law: {law}',
        )
        axes.errorbar(
            mean.index,
            mean,
            yerr=half,
            color=COLOURS[place],
            marker=MARKERS[place],
            linestyle='',
            label=f'{lanes}: mean and 95 % interval',
        )
    axes.set_xscale('log')
    axes.set_yscale('log')
    plain_log_axis(axes, sorted(laws['iodepth'].unique()), 'x')
    plain_log_axis(axes, (1, 2, 5, 10, 20, 50), 'y')
    _label(axes, 'requests in flight', 'exponential service times of 1 ms')


def _by_latency(axes: Axes, table: pd.DataFrame) -> None:
    mine = table[(table['iodepth'] == 16) & (table['disk'] == 'parallel')]
    mine = mine[mine['series'].isin(['law', 'latency'])].fillna({'service_ms': 1.0})
    groups = mine.groupby('service_ms')
    mean, count = groups['clear_ms'].mean(), groups['clear_ms'].count()
    half = 1.96 * groups['clear_ms'].std() / np.sqrt(count)
    theory = groups['theory_ms'].mean()
    axes.plot(theory.index, theory, label='law: H$_{16}$ / µ', **LAW)
    axes.errorbar(
        mean.index, mean, yerr=half, color=COLOURS[0], marker='o', linestyle='',
        label='64 lanes: mean and 95 % interval',
    )  # fmt: skip
    axes.set_xscale('log')
    axes.set_yscale('log')
    plain_log_axis(axes, sorted(mean.index), 'x')
    plain_log_axis(axes, (0.5, 5, 50, 500), 'y')
    _label(axes, 'mean service time (ms)', 'exponential service times, depth 16')


def _race(axes: Axes, table: pd.DataFrame, race: pd.DataFrame) -> None:
    mine = table[table['series'] == 'race']
    for place, kernel in enumerate(('6.1', '6.12')):
        line = mine[mine['kernel'] == kernel]
        axes.plot(
            line['after_us'],
            line['bad_target'],
            color=COLOURS[place],
            marker=MARKERS[place],
            label=f'Linux {kernel}: BAD_TARGET',
        )
        seen = race[race['kernel'].str.startswith(kernel + '.')]
        axes.plot(
            seen['after_us'],
            seen['bad_target'],
            marker=MARKERS[place],
            label=f'measured BAD_TARGET, {seen["kernel"].iloc[0]}',
            **MEASURED,
        )
    bound = mine[mine['kernel'] == '6.1']
    axes.plot(bound['after_us'], bound['bound_unfetched'], label='bound: cannot be fetched', **LAW)
    axes.set_xscale('log')
    plain_log_axis(axes, sorted(mine['after_us'].unique()), 'x')
    axes.tick_params(axis='x', labelsize=8)
    _label(
        axes,
        'stopped so long after the submission began (µs)',
        '80 requests, a worker of 25 µs each',
    )
    axes.set_ylabel('requests answered BAD_TARGET')


def _label(axes: Axes, x: str, title: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel('CLEAR_ENDPOINT (ms)')
    axes.set_title(title)
    axes.legend()
