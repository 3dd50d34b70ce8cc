"""The figure of experiments/backends.py."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sim.analysis import plot_theory
from sim.analysis.style import COLOURS, clean, intervals, lighter, styled

HEIGHT = 0.38


@styled
def backends(table: pd.DataFrame, title: str) -> Figure:
    """IOPS, latency, CPU time of the host, kicks and interrupts: by backend, depth and disk.

    `table`: columns disk, backend, iodepth, iops, fio_lat_mean_us, fio_lat_p99_us, those of
    sim.analysis.bounds.SAID, host_cpu_us_per_request, host_polling_us_per_request,
    kicks_per_request, interrupts_per_request.
    Intervals of the IOPS and the mean are drawn where they are known (x_low, x_high). A row of
    panels for each depth; the first disk is drawn full, the second light.
    """
    depths = sorted(table['iodepth'].unique())
    names, disks = list(table['backend'].unique()), list(table['disk'].unique())
    figure = Figure(figsize=(14, 1.2 + 2.6 * len(depths)))
    panels = figure.subplots(len(depths), 4, sharey=True, squeeze=False)
    for depth, row in zip(depths, panels, strict=True):
        for number, disk in enumerate(disks):
            chosen = (table['iodepth'] == depth) & (table['disk'] == disk)
            rows = table[chosen].set_index('backend').loc[names]
            _bars(row, rows, np.arange(len(names)) + (number - 0.5) * HEIGHT, number)
        row[0].set_ylabel(f'iodepth {depth}')
    panels[0][0].invert_yaxis()
    for row in panels:
        row[0].set_yticks(range(len(names)), names)
        for axes in row:
            _clean(axes)
    labels = (
        'thousand IOPS',
        "fio's lat, µs: mean (bar), p99 (black tick)",
        'host CPU, µs/request (hatched: polling)',
        'interrupts (bar), kicks (◇) per request',
    )
    for axes, label in zip(panels[-1], labels, strict=True):
        axes.set_xlabel(label)
    greys = [_shade('#555555', number) for number in range(len(disks))]
    shades = [Patch(facecolor=g, label=f'disk: {d}') for g, d in zip(greys, disks, strict=True)]
    figure.legend(
        handles=[*shades, *plot_theory.bar_handles()], loc='outside lower center', ncols=6,
        fontsize=9,
    )  # fmt: skip
    figure.suptitle(title)
    return figure


def _shade(colour: str, number: int) -> str:
    return colour if number == 0 else lighter(colour)


def _bars(row: Sequence[Axes], rows: pd.DataFrame, places: np.ndarray, number: int) -> None:
    """One disk's bars in the four panels of a depth."""
    colours = [_shade(COLOURS[i % len(COLOURS)], number) for i in range(len(rows))]
    style: dict[str, Any] = {'height': HEIGHT, 'color': colours, 'ecolor': 'black', 'capsize': 2}
    iops, latency, cpu, events = row
    iops.barh(places, rows['iops'] / 1e3, xerr=intervals(rows, 'iops', 1e3), **style)
    plot_theory.bars(iops, places, rows, 'iops', 1e3)
    bars = intervals(rows, 'fio_lat_mean_us')
    latency.barh(places, rows['fio_lat_mean_us'], xerr=bars, **style)
    plot_theory.bars(latency, places, rows, 'us', 1.0)
    latency.plot(
        rows['fio_lat_p99_us'], places, linestyle='', marker='|', markersize=11,
        markeredgewidth=1.6, color='black',
    )  # fmt: skip
    used = rows['host_cpu_us_per_request']
    cpu.barh(places, used, **style)
    cpu.barh(
        places, rows['host_polling_us_per_request'], left=used, hatch='////', edgecolor=colours,
        height=HEIGHT, facecolor='none', linewidth=0.6,
    )  # fmt: skip
    events.barh(places, rows['interrupts_per_request'], **style)
    events.plot(
        rows['kicks_per_request'], places, linestyle='', marker='D', markersize=4.5,
        color='black', markerfacecolor='white', clip_on=False, zorder=3,
    )  # fmt: skip


def _clean(axes: Axes) -> None:
    clean(axes, 'x')
    axes.set_xlim(left=0)
    axes.tick_params(axis='y', length=0)
