"""Figures, drawn from frames. Every function takes data and returns a Figure; nothing is shown.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; a stage has the same colour
everywhere.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from sim.record import STAGES

COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
STAGE_COLOURS = dict(
    zip(
        STAGES,
        (
            '#999999',
            '#0072B2',
            '#56B4E9',
            '#D55E00',
            '#E69F00',
            '#4d4d4d',
            '#F0E442',
            '#009E73',
            '#CC79A7',
            '#882255',
        ),
        strict=True,
    )
)
GRID_COLOUR = '#dddddd'
MARKERS = ('o', 's', '^', 'D')


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG at 150 dpi."""
    figure.savefig(path, dpi=150)
    return Path(path)


def _clean(axes: Axes) -> None:
    axes.grid(True, which='major', color=GRID_COLOUR, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)


def _plain_log_axis(axes: Axes, values: Sequence[float], which: str) -> None:
    axis = axes.xaxis if which == 'x' else axes.yaxis
    axis.set_major_locator(FixedLocator(list(values)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))


def throughput_latency(table: pd.DataFrame, bounds: pd.DataFrame, title: str) -> Figure:
    """IOPS and latency against iodepth, with the asymptotic bounds drawn in.

    `table`: columns series, iodepth, iops, fio_lat_mean_us, fio_lat_p99_us. `bounds`: columns
    iodepth, iops_max, latency_min_us.
    """
    figure = Figure(figsize=(11, 4.6), layout='constrained')
    left, right = figure.subplots(1, 2)
    depths = sorted(table['iodepth'].unique())
    for number, (series, rows) in enumerate(table.groupby('series', sort=False)):
        colour, marker = COLOURS[number], MARKERS[number]
        left.plot(rows['iodepth'], rows['iops'] / 1e3, color=colour, marker=marker, label=series)
        right.plot(
            rows['iodepth'],
            rows['fio_lat_mean_us'],
            color=colour,
            marker=marker,
            label=f'{series}, mean',
        )
        right.plot(
            rows['iodepth'],
            rows['fio_lat_p99_us'],
            color=colour,
            marker=marker,
            linestyle=':',
            markerfacecolor='white',
            label=f'{series}, p99',
        )
    left.plot(
        bounds['iodepth'],
        bounds['iops_max'] / 1e3,
        color='black',
        linestyle='--',
        linewidth=1,
        label='upper bound (operational analysis)',
    )
    right.plot(
        bounds['iodepth'],
        bounds['latency_min_us'],
        color='black',
        linestyle='--',
        linewidth=1,
        label='lower bound (operational analysis)',
    )
    left.set(xlabel='iodepth', ylabel='thousand IOPS', xscale='log')
    right.set(xlabel='iodepth', ylabel="fio's lat, arrival until reaped (µs)")
    right.set(xscale='log', yscale='log')
    left.set_ylim(0, float(table['iops'].max()) / 1e3 * 1.35)
    ticks = [v for v in LATENCY_TICKS if v <= right.get_ylim()[1] and v >= right.get_ylim()[0]]
    _plain_log_axis(right, ticks, 'y')
    for axes in (left, right):
        _plain_log_axis(axes, depths, 'x')
        _clean(axes)
        axes.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=11)
    return figure


LATENCY_TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)


def tail_points(latency_us: npt.NDArray[np.float64]) -> tuple[npt.NDArray, npt.NDArray]:
    """Sorted latencies and the share of requests above each; at most about 2000 points."""
    values = np.sort(latency_us)
    share = 1 - np.arange(len(values)) / len(values)
    if len(values) <= 2000:
        return values, share
    picks = len(values) - np.unique(np.geomspace(1, len(values), 2000).astype(int))
    picks = np.sort(picks)
    return values[picks], share[picks]


def latency_tails(samples_us: Mapping[str, npt.NDArray[np.float64]], title: str) -> Figure:
    """Latency CDF with a logarithmic tail: the share of requests slower than x."""
    figure = Figure(figsize=(7.5, 4.8), layout='constrained')
    axes = figure.subplots()
    smallest = 1.0
    for number, (label, values) in enumerate(samples_us.items()):
        x, share = tail_points(values)
        smallest = min(smallest, float(share.min()))
        style = '-' if number % 2 == 0 else '--'
        colour = COLOURS[number // 2 % len(COLOURS)]
        axes.plot(x, share, color=colour, linestyle=style, linewidth=1.4, label=label)
    axes.set(xscale='log', yscale='log', xlabel='latency, arrival to completion (µs)')
    axes.set_ylabel('share of requests that are slower')
    axes.set_ylim(smallest * 0.8, 1.2)
    low, high = axes.get_xlim()
    if high > 5 * low:
        _plain_log_axis(axes, [v for v in LATENCY_TICKS if low <= v <= high], 'x')
    else:
        axes.set_xscale('linear')
    for level, name in ((0.5, 'p50'), (0.01, 'p99'), (0.001, 'p99.9')):
        if level > smallest:
            axes.axhline(level, color='#bbbbbb', linewidth=0.8)
            axes.annotate(
                name, (1.0, level), xycoords=('axes fraction', 'data'), fontsize=8, va='bottom',
                ha='right', color='#666666',
            )
    _clean(axes)
    axes.legend(frameon=False, fontsize=8, loc='lower left')
    axes.set_title(title, fontsize=11)
    return figure


def stage_stack(table: pd.DataFrame, title: str) -> Figure:
    """Mean time per stage, stacked: absolute on the left, without the disk's own on the right.

    `table`: one row per bar with column `label` and one column per stage (µs).
    """
    figure = Figure(figsize=(12, 0.42 * len(table) + 2.2), layout='constrained')
    left, right = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(table))
    for axes, stages in ((left, STAGES), (right, [s for s in STAGES if s != 'done'])):
        start = np.zeros(len(table))
        for stage in stages:
            width = table[stage].to_numpy(dtype=float)
            axes.barh(places, width, left=start, color=STAGE_COLOURS[stage], height=0.75)
            start += width
        _clean(axes)
        axes.grid(False, axis='y')
        axes.margins(x=0.02)
    left.set_yticks(places, table['label'])
    left.invert_yaxis()
    left.set_xlabel('mean time per stage (µs)')
    right.set_xlabel("the same without 'done', the disk (µs)")
    handles = [
        left.barh([0], [0], color=STAGE_COLOURS[stage], label=stage)[0] for stage in STAGES
    ]
    figure.legend(handles, STAGES, loc='outside lower center', ncols=10, frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11)
    return figure
