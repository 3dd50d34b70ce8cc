"""Figures of migrations: what the downtime consists of, and what it depends on."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sim.analysis.style import (
    COLOURS,
    GRID_COLOUR,
    MARKERS,
    clean,
    intervals,
    plain_log_axis,
    styled,
)

# Phases of a migration, in the order in which they follow, and how they are drawn together.
GROUPS = {
    'pause': ('vcpu_pause',),
    'drain': ('drain',),
    'stop: endpoint, rings, log': ('log_sync', 'ring_base'),
    'rest of RAM': ('ram_rest',),
    'state: save, transfer, load': ('state_save', 'transfer', 'state_load'),
    'start: device, endpoint, vCPUs': ('device_start', 'endpoint', 'vcpu_resume'),
}
PALETTE = ('#999999', COLOURS[1], COLOURS[4], COLOURS[5], COLOURS[0], COLOURS[2])
DISKS = {
    'constant': '1 ms each, 64 at a time',
    'exponential': 'exponential, mean 1 ms, 64 at a time',
    'serial': 'exponential, mean 1 ms, one at a time',
}


@styled
def phases(table: pd.DataFrame) -> Figure:
    """Stacked phases from the pause of the vCPUs to their resumption, against iodepth."""
    figure = Figure(figsize=(11, 4.6))
    panels = figure.subplots(1, len(DISKS), sharey=True).flat
    for axes, (disk, title) in zip(panels, DISKS.items(), strict=True):
        mine = table[(table['series'] == 'depth') & (table['disk'] == disk)]
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
        axes.set_xticks(places, [str(depth) for depth in mine['iodepth']])
        axes.set_xlabel('iodepth')
        axes.set_title(title)
        clean(axes, 'y')
    figure.axes[0].set_ylabel('vCPUs stopped (ms)')
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc='outside right center')
    figure.suptitle('What the downtime of a migration consists of')
    return figure


@styled
def downtime(table: pd.DataFrame) -> Figure:
    """Four panels: drain by depth, by service time, policies by lead time, RAM and link."""
    figure = Figure(figsize=(11, 8))
    panels = figure.subplots(2, 2).flat
    _by_depth(next(panels), table)
    _by_service(next(panels), table)
    _by_lead(next(panels), table)
    _by_ram(next(panels), table)
    figure.suptitle('Downtime of a migration: what it depends on, and what helps')
    return figure


def _line(axes: Axes, x: pd.Series, table: pd.DataFrame, name: str, **how: object) -> None:
    axes.errorbar(x, table[name], yerr=intervals(table, name), **how)  # type: ignore[arg-type]


def _by_depth(axes: Axes, table: pd.DataFrame) -> None:
    for place, (disk, label) in enumerate(DISKS.items()):
        mine = table[(table['series'] == 'depth') & (table['disk'] == disk)]
        colour = COLOURS[place]
        _line(
            axes, mine['iodepth'], mine, 'drain_ms', color=colour, marker=MARKERS[place],
            linestyle='', label=label, capsize=2,
        )  # fmt: skip
        axes.plot(mine['iodepth'], mine['theory_ms'], color=colour, linestyle='--')
    axes.plot(
        [],
        [],
        color='black',
        linestyle='--',
        label='law: what is left of the last, H$_n$, n service times',
    )
    axes.set_xscale('log')
    axes.set_yscale('log')
    plain_log_axis(axes, sorted(table['iodepth'][table['series'] == 'depth'].unique()), 'x')
    axes.set_xlabel('iodepth')
    axes.set_ylabel('drain inside CLEAR_ENDPOINT (ms)')
    axes.set_title('policy drain, disk of 1 ms')
    axes.legend()


def _by_service(axes: Axes, table: pd.DataFrame) -> None:
    for place, (disk, label) in enumerate(
        (('exponential', 'exponential'), ('tail', 'one in ten up to 10 times as long'))
    ):
        mine = table[(table['series'] == 'latency') & (table['disk'] == disk)]
        x = mine['service_us'] / 1e3
        for name, style, what in (('drain_ms', '-', 'drain'), ('stopped_ms', ':', 'vCPUs stopped')):
            _line(
                axes, x, mine, name, color=COLOURS[place], marker=MARKERS[place],
                linestyle=style, label=f'{what}, {label}', capsize=2,
            )  # fmt: skip
    mine = table[(table['series'] == 'latency') & (table['disk'] == 'exponential')]
    axes.plot(
        mine['service_us'] / 1e3, mine['theory_ms'], color='black', linestyle='--',
        label='law: H$_{16}$ service times',
    )  # fmt: skip
    axes.set_xscale('log')
    axes.set_yscale('log')
    axes.set_xlabel('mean service time of the disk (ms)')
    axes.set_ylabel('ms')
    axes.set_title('iodepth 16')
    axes.legend()


def _by_lead(axes: Axes, table: pd.DataFrame) -> None:
    mine = table[table['series'] == 'policy']
    plain = mine[mine['policy'] == 'drain'].iloc[0]
    for place, policy in enumerate(
        policy for policy in mine['policy'].unique() if policy != 'drain'
    ):
        line = mine[mine['policy'] == policy]
        for name, style, what in (
            ('stopped_ms', '-', 'vCPUs stopped'), ('blackout_ms', ':', "guest's blackout"),
        ):  # fmt: skip
            _line(
                axes, line['lead_us'] / 1e3, line, name, color=COLOURS[1 + place],
                marker=MARKERS[place], linestyle=style, label=f'{policy}: {what}', capsize=2,
            )  # fmt: skip
    axes.axhline(plain['stopped_ms'], color=COLOURS[0], label='drain: vCPUs stopped')
    axes.set_xlabel('lead time before the pause of the vCPUs (ms)')
    axes.set_ylabel('ms')
    axes.set_ylim(0)
    axes.set_title('iodepth 16, exponential 1 ms: flushing earlier')
    axes.legend()


def _by_ram(axes: Axes, table: pd.DataFrame) -> None:
    dirty, link = (table[table['series'] == series] for series in ('dirty', 'link'))
    _line(
        axes, dirty['dirty_share'] * 10, dirty, 'downtime_ms', color=COLOURS[0], marker='o',
        label='link of 10 Gbit/s, against what the guest dirties', capsize=2,
    )  # fmt: skip
    axes.plot(
        dirty['dirty_share'] * 10, dirty['expected_downtime_ms'], color=COLOURS[0], linestyle=':',
        label="the same, QEMU's expected-downtime",
    )  # fmt: skip
    axes.set_xlabel('dirtied beside the I/O (Gbit/s)')
    axes.set_ylabel("QEMU's downtime (ms)")
    other = axes.twiny()
    other.grid(False)
    _line(
        other, link['link_gbit'], link, 'downtime_ms', color=COLOURS[1], marker='s',
        label='50 MB/s dirtied, against the link', capsize=2,
    )  # fmt: skip
    other.set_xscale('log')
    plain_log_axis(other, list(link['link_gbit']), 'x')
    other.set_xlabel('link (Gbit/s)', color=COLOURS[1])
    axes.set_ylim(0)
    axes.spines['top'].set_color(GRID_COLOUR)
    handles = [pair for one in (axes, other) for pair in zip(*one.get_legend_handles_labels())]
    axes.legend(*zip(*handles))
