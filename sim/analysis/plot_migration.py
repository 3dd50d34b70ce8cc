"""Figures of migrations: what the downtime consists of, and what it depends on."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sim.analysis.style import COLOURS, MARKERS, clean, intervals, plain_log_axis, styled

# Phases of a migration, in the order in which they follow, and how they are drawn together.
GROUPS = {
    'pause': ('vcpu_pause',),
    'drain': ('drain',),
    'stop: endpoint, rings, log': ('log_sync', 'ring_base'),
    'rest of RAM': ('ram_rest',),
    'state: save, transfer, load': ('state_save', 'transfer', 'state_load'),
    'start: device, endpoint, vCPUs': ('device_start', 'endpoint', 'vcpu_resume'),
}
OF_VFIO = {
    'vfio_stop': 'functions stop',
    'ram_rest': 'rest of RAM',
    'vfio_save': 'functions save',
    'vfio_load': 'functions load',
    'vfio_start': 'functions start',
}
PALETTE = ('#999999', COLOURS[1], COLOURS[4], COLOURS[5], COLOURS[0], COLOURS[2])
LINK_GBIT = 10  # of all series but the one over links
DISKS = {
    'constant': '1 ms each, 64 at a time',
    'exponential': 'exponential, mean 1 ms, 64 at a time',
    'serial': 'exponential, mean 1 ms, one at a time',
}


@styled
def phases(table: pd.DataFrame) -> Figure:
    """Stacked phases from the pause of the vCPUs to their resumption, against iodepth; on a disk
    of the user's against the lead of each policy.
    """
    own = not (table['series'] == 'depth').any()
    parts = _by_policy(table) if own else _by_disk(table)
    figure = Figure(figsize=(11, 4.6))
    panels = figure.subplots(1, len(parts), sharey=True).flat
    for axes, (title, mine, ticks) in zip(panels, parts, strict=True):
        below = np.zeros(len(mine))
        places = np.arange(len(mine))
        for (label, names), colour in zip(GROUPS.items(), PALETTE, strict=True):
            height = sum((mine[f'{name}_ms'].to_numpy() for name in names), np.zeros(len(mine)))
            axes.bar(places, height, bottom=below, color=colour, width=0.75, label=label)
            below += height
        expected = mine['expected_downtime_ms']
        axes.plot(
            places, expected, color='black', marker='_', markersize=14, linestyle='',
            label="QEMU's expected-downtime",
        )  # fmt: skip
        axes.errorbar(
            places, below, yerr=intervals(mine, 'stopped_ms'), color='black', linestyle='',
            capsize=2,
        )  # fmt: skip
        if mine['theory_ms'].notna().any():
            law = below - mine['drain_ms'].to_numpy() + mine['theory_ms'].astype(float).to_numpy()
            axes.plot(
                places, law, color='black', marker='D', markersize=5, markerfacecolor='white',
                linestyle='', label='with the mean drain by its law',
            )  # fmt: skip
        axes.set_xticks(places, [f'{tick:g}' for tick in ticks])
        axes.set_xlabel('lead (ms)' if own else 'iodepth')
        axes.set_title(title, fontsize=9)
        axes.set_xlim(-0.6, max(len(other) for _, other, _ in parts) - 0.4)
        clean(axes, 'y')
    figure.axes[0].set_ylabel('vCPUs stopped (ms), 95 % interval of the whole')
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc='outside right center')
    figure.suptitle('What the downtime of a migration consists of')
    return figure


Parts = list[tuple[str, pd.DataFrame, pd.Series]]  # title, rows, what stands below each bar


def _by_disk(table: pd.DataFrame) -> Parts:
    depths = table[table['series'] == 'depth']
    found = [(title, depths[depths['disk'] == disk]) for disk, title in DISKS.items()]
    return [(title, mine, mine['iodepth']) for title, mine in found]


def _by_policy(table: pd.DataFrame) -> Parts:
    return [
        (str(policy), mine, mine['lead_us'] / 1e3)
        for policy, mine in table.groupby('policy', sort=False)
    ]


@styled
def downtime(table: pd.DataFrame) -> Figure:
    """Eight panels: drain by depth and service time, what is dirtied, the link; policies by lead;
    an idle guest by its RAM, and by the functions that are passed through.

    On a disk of the user's the last two only.
    """
    if not (table['series'] == 'depth').any():
        figure = Figure(figsize=(10, 4.4))
        _both_by_lead(figure.subplots(1, 2).flat, table)
        return figure
    figure = Figure(figsize=(18, 8))
    panels = figure.subplots(2, 4).flat
    _by_depth(next(panels), table)
    _by_service(next(panels), table)
    _by_dirt(next(panels), table)
    _both_by_lead([next(panels), next(panels)], table)
    _by_link(next(panels), table)
    _by_ram(next(panels), table)
    _by_functions(next(panels), table)
    figure.suptitle(
        'Downtime of a migration: what it depends on, and what helps (bars: 95 % interval)'
    )
    return figure


def _line(axes: Axes, x: pd.Series, table: pd.DataFrame, name: str, **how: Any) -> None:
    axes.errorbar(x, table[name], yerr=intervals(table, name), capsize=2, **how)


def _log_ticks(axes: Axes, which: str) -> None:
    """A tick at every power of ten, as a plain number."""
    low, high = axes.get_ylim() if which == 'y' else axes.get_xlim()
    plain_log_axis(axes, [10**e for e in range(-4, 6) if low <= 10**e <= high], which)


def _by_depth(axes: Axes, table: pd.DataFrame) -> None:
    for place, (disk, label) in enumerate(DISKS.items()):
        mine = table[(table['series'] == 'depth') & (table['disk'] == disk)]
        style: dict[str, Any] = {'color': COLOURS[place]}
        _line(
            axes, mine['iodepth'], mine, 'drain_ms', marker=MARKERS[place], linestyle='',
            label=label, **style,
        )  # fmt: skip
        if disk == 'constant':  # which says nothing between depths
            style |= {'linestyle': '', 'marker': '_', 'markersize': 14}
        axes.plot(mine['iodepth'], mine['theory_ms'], **({'linestyle': '--'} | style))
    law = 'law: what is left of the last, H$_n$, n service times'
    axes.plot([], [], color='black', linestyle='--', label=law)
    axes.set(xscale='log', yscale='log', xlabel='iodepth', title='policy drain, disk of 1 ms')
    axes.set_ylim(0.01, 40 * axes.get_ylim()[1])  # room for the legend
    axes.set_ylabel('drain inside CLEAR_ENDPOINT (ms)')
    plain_log_axis(axes, sorted(table['iodepth'][table['series'] == 'depth'].unique()), 'x')
    _log_ticks(axes, 'y')
    axes.legend(loc='upper left')


def _by_service(axes: Axes, table: pd.DataFrame) -> None:
    rows = table[table['series'] == 'latency']
    names = {'exponential': 'exponential', 'tail': 'one in ten up to 10 times as long'}
    for place, (disk, label) in enumerate(names.items()):
        mine = rows[rows['disk'] == disk]
        for name, style, what in (('drain_ms', '-', 'drain'), ('stopped_ms', ':', 'vCPUs stopped')):
            _line(
                axes, mine['service_us'] / 1e3, mine, name, color=COLOURS[place],
                marker=MARKERS[place], linestyle=style, label=f'{what}, {label}',
            )  # fmt: skip
    mine = rows[rows['disk'] == 'exponential']
    axes.plot(
        mine['service_us'] / 1e3, mine['theory_ms'], color='black', linestyle='--',
        label='law: H$_{16}$ service times',
    )  # fmt: skip
    axes.set(xscale='log', yscale='log', xlabel='mean service time of the disk (ms)')
    axes.set(ylabel='drain, vCPUs stopped (ms)', title='iodepth 16')
    low, high = axes.get_ylim()
    axes.set_ylim(low, 20 * high)  # room for the legend
    for which in ('x', 'y'):
        _log_ticks(axes, which)
    axes.legend(loc='upper left')


def _both_by_lead(panels: Iterable[Axes], table: pd.DataFrame) -> None:
    stopped, blackout = panels
    _by_lead(stopped, table, 'stopped_ms', 'vCPUs stopped (ms)')
    _by_lead(blackout, table, 'blackout_ms', 'longest gap between completions (ms)')
    top = max(axes.get_ylim()[1] for axes in (stopped, blackout))
    for axes in (stopped, blackout):
        axes.set_ylim(0, 1.35 * top)  # room for the legend


def _by_lead(axes: Axes, table: pd.DataFrame, name: str, label: str) -> None:
    mine = table[table['series'] == 'policy']
    plain = mine[mine['policy'] == 'drain'].iloc[0]
    others = [policy for policy in mine['policy'].unique() if policy != 'drain']
    for place, policy in enumerate(others):
        line = mine[mine['policy'] == policy]
        _line(
            axes, line['lead_us'] / 1e3, line, name, color=COLOURS[1 + place],
            marker=MARKERS[place], label=policy,
        )  # fmt: skip
        if line['theory_ms'].notna().all() and name == 'stopped_ms':
            axes.plot(
                line['lead_us'] / 1e3, plain[name] - plain['drain_ms'] + line['theory_ms'],
                color=COLOURS[1 + place], linestyle=':', label=f'{policy}, by its law', zorder=4,
            )  # fmt: skip
    axes.axhline(plain[name], color=COLOURS[0], label='drain, which has no lead')
    floor = plain['stopped_ms'] - plain['drain_ms']
    axes.axhline(floor, color='black', linestyle='--', linewidth=1, label='bound: no drain at all')
    axes.set(xlabel='lead time before the pause of the vCPUs (ms)', ylabel=label)
    disk = 'exponential 1 ms' if plain['disk'] == 'exponential' else "a disk of the user's"
    axes.set_title(f'iodepth {plain["iodepth"]}, {disk}: flushing earlier')
    axes.legend(ncols=2, loc='upper left')


def _by_dirt(axes: Axes, table: pd.DataFrame) -> None:
    dirty = table[table['series'] == 'dirty']
    x = dirty['dirty_share'] * LINK_GBIT
    _line(axes, x, dirty, 'downtime_ms', color=COLOURS[0], marker='o', label="QEMU's downtime")
    axes.plot(
        x, dirty['expected_downtime_ms'], color=COLOURS[0], linestyle=':',
        label="QEMU's expected-downtime",
    )  # fmt: skip
    axes.set(xlabel='dirtied beside the I/O (Gbit/s)', ylabel='downtime (ms)')
    axes.set_title(f'a link of {LINK_GBIT} Gbit/s')
    axes.set_ylim(0)
    axes.legend()


def _by_ram(axes: Axes, table: pd.DataFrame) -> None:
    rows = table[table['series'] == 'idle']
    seconds = rows.assign(total_s=rows['total_ms'] / 1e3, pass_s=rows['pass_ms'] / 1e3)
    axes.plot(
        seconds['ram_gib'], seconds['total_s'], color=COLOURS[0], marker='o', linestyle='',
        label='total time',
    )  # fmt: skip
    axes.plot(
        seconds['ram_gib'], seconds['pass_s'], color='black', linestyle='--',
        label='law: zero pages scanned, others sent',
    )  # fmt: skip
    axes.set(xlabel='RAM (GiB), 1/64 and 0.5 GiB of it in use', ylabel='total time (s)')
    axes.set_title(f'an idle guest, {LINK_GBIT} Gbit/s')
    axes.set_ylim(0)
    axes.legend(loc='upper left')


def _by_functions(axes: Axes, table: pd.DataFrame) -> None:
    few = (table['series'] == 'idle') & (table['ram_gib'] == 32)
    rows = table[few | (table['series'] == 'vfio')].fillna({'functions': 0})
    places, below = np.arange(len(rows)), np.zeros(len(rows))
    parts = {label: rows[f'{name}_ms'].fillna(0).to_numpy() for name, label in OF_VFIO.items()}
    for (label, height), colour in zip(parts.items(), PALETTE, strict=False):
        axes.bar(places, height, bottom=below, color=colour, width=0.75, label=label)
        below += height
    rest = rows['stopped_ms'].to_numpy() - below
    axes.bar(places, rest, bottom=below, color=PALETTE[-1], width=0.75, label='all else')
    axes.plot(
        places, rows['expected_downtime_ms'], color='black', marker='_', markersize=14,
        linestyle='', label="QEMU's expected-downtime",
    )  # fmt: skip
    axes.set_xticks(places, [f'{n:g}' for n in rows['functions']])
    axes.set(xlabel='functions passed through with VFIO', ylabel='vCPUs stopped (ms)')
    axes.set_title('an idle guest of 32 GiB')
    axes.legend(loc='upper left')


def _by_link(axes: Axes, table: pd.DataFrame) -> None:
    link = table[table['series'] == 'link']
    for name, style, label in (
        ('downtime_ms', '-', "QEMU's downtime"),
        ('expected_downtime_ms', ':', "QEMU's expected-downtime"),
    ):
        _line(
            axes, link['link_gbit'], link, name, color=COLOURS[0], marker='o', linestyle=style,
            label=label,
        )  # fmt: skip
    axes.set(xscale='log', yscale='log', xlabel='link (Gbit/s)', ylabel='downtime (ms)')
    axes.set_title('50 MB/s dirtied beside the I/O')
    plain_log_axis(axes, list(link['link_gbit']), 'x')
    _log_ticks(axes, 'y')
    axes.legend()
