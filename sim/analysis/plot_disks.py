"""Figures of disks: depth curves with measured points, write caches, tails, the path's share."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sim.analysis import plot_theory
from sim.analysis.style import COLOURS, plain_log_axis, styled

ALONE, PATH, MEASURED = COLOURS[0], COLOURS[1], 'black'
COLUMNS = 4
WHAT = '4k random reads; coloured bands: 95 % interval; theory: from the guest'


@styled
def depth_curves(
    table: pd.DataFrame, theory: pd.DataFrame, metric: str, names: Mapping[str, str]
) -> Figure:
    """IOPS or latency against depth, a panel for each disk, measured points drawn in.

    `table`: columns disk, where (alone, path, measured), iodepth, iops, mean_us, p99_us, role
    (calibrated or predicted, of measured points). `theory`: disk, iodepth and the columns of
    sim.analysis.bounds.SAID, from the guest; of a disk with a head there are asymptotic bounds
    only. `metric` is iops or latency; `names` the titles of the panels by disk, in their order.
    """
    rows = -(-len(names) // COLUMNS)
    figure = Figure(figsize=(3.1 * COLUMNS, 2.7 * rows + 0.6))
    panels = figure.subplots(rows, COLUMNS, squeeze=False).flat
    for axes, (disk, title) in zip(panels, names.items(), strict=False):
        of_disk = table[table['disk'] == disk]
        for where, colour, style in (('alone', ALONE, '-'), ('path', PATH, '--')):
            line = of_disk[of_disk['where'] == where].sort_values('iodepth')
            dots = {'marker': '.', 'markersize': 4} if where == 'path' else {}
            if metric == 'iops':
                _curve(axes, line, 'iops', color=colour, linestyle=style, **dots)
            else:
                _curve(axes, line, 'mean_us', color=colour, linestyle=style, **dots)
                _curve(axes, line, 'p99_us', color=colour, linestyle='-.', linewidth=1)
        _points(axes, of_disk[of_disk['where'] == 'measured'], metric)
        _log_log(axes, sorted(of_disk['iodepth'].unique()))
        _theory(axes, theory[theory['disk'] == disk], metric)
        axes.set_title(title, fontsize=9)
    for axes in list(figure.axes)[len(names) :]:
        axes.set_visible(False)
    figure.supxlabel(f'requests in flight; {WHAT}', fontsize=10)
    label = "latency (µs): alone, the disk's own; else fio's lat"
    figure.supylabel('IOPS' if metric == 'iops' else label, fontsize=10)
    figure.legend(handles=_curve_legend(metric), loc='outside upper center', ncols=4, fontsize=9)
    return figure


def _theory(axes: Axes, line: pd.DataFrame, metric: str) -> None:
    """Bounds within the panel; those of a disk with a head are far outside."""
    limits = axes.get_ylim()
    if metric == 'iops':
        plot_theory.throughput(axes, line['iodepth'], line, scale=1, label=None)
    else:
        plot_theory.latency(axes, line['iodepth'], line, label=None)
    axes.set_ylim(limits)
    bound = line['bound_iops' if metric == 'iops' else 'bound_us']
    if not bound.between(*limits).any():
        axes.text(
            0.03, 0.97, 'bounds: outside', transform=axes.transAxes, fontsize=8, va='top',
            color='#666666',
        )  # fmt: skip


def _curve(axes: Axes, line: pd.DataFrame, name: str, **how: Any) -> None:
    """A line, with its interval as a band where it is known."""
    axes.plot(line['iodepth'], line[name], **how)
    if f'{name}_low' in line:
        low, high = (line[f'{name}_{end}'].astype(float) for end in ('low', 'high'))
        axes.fill_between(line['iodepth'], low, high, color=how['color'], alpha=0.25, linewidth=0)


def _points(axes: Axes, measured: pd.DataFrame, metric: str) -> None:
    for role, fill in (('calibrated', MEASURED), ('predicted', 'white')):
        found = measured[measured['role'] == role]
        shapes = (('iops', 'o'),) if metric == 'iops' else (('mean_us', 'o'), ('p99_us', '^'))
        for column, marker in shapes:
            axes.plot(
                found['iodepth'], found[column], linestyle='', marker=marker, markersize=5,
                color=MEASURED, markerfacecolor=fill, zorder=3,
            )  # fmt: skip


def _log_log(axes: Axes, depths: Sequence[int]) -> None:
    axes.set(xscale='log', yscale='log')
    plain_log_axis(axes, [d for d in (1, 4, 16, 64) if d <= max(depths)], 'x')
    low, high = axes.get_ylim()
    if high < 10 * low:  # a flat curve is not a dramatic one
        middle = (low * high) ** 0.5
        low, high = middle / 10**0.5, middle * 10**0.5
        axes.set_ylim(low, high)
    ticks = [m * 10**e for e in range(8) for m in (1, 2, 5) if low <= m * 10**e <= high]
    if len(ticks) > 5:
        ticks = [tick for tick in ticks if str(tick)[0] == '1']
    plain_log_axis(axes, ticks, 'y')
    axes.yaxis.set_major_formatter(lambda value, _: thousands(value))
    axes.tick_params(labelsize=8)


def thousands(value: float) -> str:
    """12000 as 12k, 2500000 as 2.5M."""
    for size, suffix in ((1_000_000, 'M'), (1000, 'k')):
        if value >= size:
            return f'{value / size:g}{suffix}'
    return f'{value:g}'


def _curve_legend(metric: str) -> list[Artist]:
    def line(label: str, **how: object) -> Line2D:
        return Line2D([], [], label=label, **how)  # type: ignore[arg-type]

    black = {'color': MEASURED, 'linestyle': ''}
    handles = [
        line('model, disk alone', color=ALONE),
        line('model, from the guest', color=PATH, linestyle='--'),
        line('measured, calibrated on', marker='o', **black),
        line('measured, predicted', marker='o', markerfacecolor='white', **black),
    ]
    theory = plot_theory.handles()
    if metric != 'iops':
        handles[0].set_label('disk alone, mean')
        handles[1].set_label('from the guest, mean')
        handles.append(line('p99 (measured: triangles)', color='#777777', linestyle='-.'))
        theory = theory[1:]  # there are no balanced bounds of the latency
    return [*handles, *theory]


@styled
def path_share(table: pd.DataFrame, title: str) -> Figure:
    """What of a request's latency is the path and what the disk, a row for each disk and depth.

    `table`: columns label, disk_us, path_us; drawn from top to bottom.
    """
    figure = Figure(figsize=(9.5, 0.34 * len(table) + 1.5))
    axes = figure.subplots()
    places = np.arange(len(table))
    whole = table['disk_us'] + table['path_us']
    share = 100 * table['path_us'] / whole
    path = 'guest, ring, vhost, LIO, until fio has it'
    axes.barh(places, share, color=PATH, height=0.7, label=path)
    axes.barh(places, 100 - share, left=share, color='#cfd8dc', height=0.7, label='disk')
    for place, part, own, total in zip(places, share, table['path_us'], whole, strict=True):
        text = f'{part:.1f} %  ({microseconds(own)} of {microseconds(total)})'
        axes.text(part + 1 if part < 70 else 71, float(place), text, va='center', fontsize=8)
    axes.set_yticks(places, table['label'], fontsize=9)
    axes.set(
        xlim=(0, 100),
        ylim=(len(table) - 0.4, -0.6),
        xlabel="share of fio's lat, arrival until reaped (%)",
    )
    axes.grid(False)
    figure.legend(loc='outside upper right', ncols=2, fontsize=9)
    figure.suptitle(title, x=0.02, ha='left')
    return figure


def microseconds(value: float) -> str:
    """Three digits, in µs, ms or s."""
    for size, unit in ((1_000_000, 's'), (1000, 'ms')):
        if value >= size:
            return f'{value / size:.3g} {unit}'
    return f'{value:.3g} µs'


@styled
def write_cache(
    fills: Mapping[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]],
    flushes: pd.DataFrame,
) -> Figure:
    """Left: latency of writes while a cache fills. Right: how long a flush takes.

    `fills`: by label, MiB written so far and the latency of the writes then (µs). `flushes`:
    columns label, writes (since the flush before), flush_us.
    """
    figure = Figure(figsize=(11, 4.4))
    left, right = figure.subplots(1, 2)
    for number, (label, (written, latency)) in enumerate(fills.items()):
        colour, style = COLOURS[number // 2], '-' if number % 2 == 0 else ':'
        left.plot(written, latency, color=colour, linestyle=style, label=label)
    left.set(yscale='log', xlabel='written so far (MiB)')
    left.set(ylabel="the disk's latency of a write, mean")
    left.set_title('A write until the cache is full, and after')
    for number, (label, rows) in enumerate(flushes.groupby('label', sort=False)):
        right.plot(
            rows['writes'], np.maximum(rows['flush_us'], 1), color=COLOURS[number],
            marker='osD^'[number], label=label,
        )  # fmt: skip
    right.set(xscale='log', yscale='log', xlabel='writes since the flush before')
    right.set_ylabel('a flush takes (1 µs: at once)')
    right.set_title('SYNCHRONIZE CACHE')
    plain_log_axis(right, sorted(flushes['writes'].unique()), 'x')
    for axes in (left, right):
        axes.yaxis.set_major_formatter(lambda value, _: microseconds(value))
        low, high = axes.get_ylim()
        axes.set_ylim(low, high * 12)  # room for the legend
        axes.legend(loc='upper left', ncols=2)
    return figure
