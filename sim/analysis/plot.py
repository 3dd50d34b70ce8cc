"""Figures, drawn from frames. Every function takes data and returns a Figure; nothing is shown."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sim.analysis import plot_theory
from sim.analysis.bounds import least_us
from sim.analysis.style import (
    COLOURS,
    FIO_LATENCY,
    LATENCY,
    MARKERS,
    STAGE_COLOURS,
    TICKS,
    clean,
    intervals,
    plain_log_axis,
    save,
    styled,
)
from sim.config import from_effective
from sim.record import STAGES

__all__ = [
    'latency_tails', 'measured_beside', 'save', 'stage_stack', 'stage_table', 'throughput_latency',
]  # fmt: skip


@styled
def throughput_latency(table: pd.DataFrame, theory: pd.DataFrame, title: str) -> Figure:
    """IOPS and latency against iodepth, with bounds and mean-value analysis drawn in.

    `table`: columns series, iodepth, iops, fio_lat_mean_us, fio_lat_p99_us, and their intervals
    (x_low, x_high) if they are known. `theory`: columns iodepth and those of
    sim.analysis.bounds.SAID.
    """
    figure = Figure(figsize=(11, 4.6))
    left, right = figure.subplots(1, 2)
    depths = sorted(table['iodepth'].unique())
    for number, (series, rows) in enumerate(table.groupby('series', sort=False)):
        style = {'color': COLOURS[number], 'marker': MARKERS[number]}
        left.errorbar(
            rows['iodepth'], rows['iops'] / 1e3, yerr=intervals(rows, 'iops', 1e3), label=series,
            **style,
        )  # fmt: skip
        for name, how in (('mean', {}), ('p99', {'linestyle': ':', 'markerfacecolor': 'white'})):
            column = f'fio_lat_{name}_us'
            right.errorbar(
                rows['iodepth'], rows[column], yerr=intervals(rows, column),
                label=f'{series}, {name}', **style, **how,
            )  # fmt: skip
    plot_theory.throughput(left, theory['iodepth'], theory)
    plot_theory.latency(right, theory['iodepth'], theory)
    left.set(xlabel='iodepth', ylabel='thousand IOPS', xscale='log')
    right.set(xlabel='iodepth', ylabel=f'{FIO_LATENCY} (µs)', xscale='log', yscale='log')
    left.set_ylim(0, float(table['iops'].max()) / 1e3 * 1.35)
    _plain_ticks(right, 'y')
    for axes in (left, right):
        plain_log_axis(axes, depths, 'x')
        axes.legend(title='bars: 95 % interval', title_fontsize=8, alignment='left')
    figure.suptitle(title)
    return figure


def _plain_ticks(axes: Axes, which: str) -> None:
    """Ticks at 1, 2, 5, 10, ... within the limits of a logarithmic axis."""
    low, high = axes.get_ylim() if which == 'y' else axes.get_xlim()
    plain_log_axis(axes, [tick for tick in TICKS if low <= tick <= high], which)


@styled
def measured_beside(
    table: pd.DataFrame,
    *,
    panels: str,
    lines: str,
    x: str,
    pairs: tuple[str, str],
    names: tuple[str, str],
    labels: tuple[str, str],
    scale: float,
    title: str,
    theory: bool = False,
) -> Figure:
    """Simulated lines with the measured points beside them, a panel for each value of `panels`.

    `pairs`: the columns (simulated, measured), `names`: what they are called; a measured value may
    be missing, a simulated one may have an interval (x_low, x_high). `labels`: of the axes, both
    logarithmic; values are divided by `scale`. `theory`: the table has the columns of
    sim.analysis.bounds.SAID, too.
    """
    parts = list(table.groupby(panels, sort=False))
    figure = Figure(figsize=(5.4 * len(parts), 4.6))
    grid = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
    for axes, (panel, part) in zip(grid, parts, strict=True):
        for number, (line, rows) in enumerate(part.groupby(lines, sort=False)):
            style = {'color': COLOURS[number], 'marker': MARKERS[number]}
            axes.errorbar(
                rows[x], rows[pairs[0]] / scale, yerr=intervals(rows, pairs[0], scale),
                label=f'{line}, {names[0]}', **style,
            )  # fmt: skip
            axes.plot(
                rows[x], rows[pairs[1]].astype(float) / scale, label=f'{line}, {names[1]}',
                linestyle='', markersize=9, markerfacecolor='none', markeredgewidth=1.6, **style,
            )  # fmt: skip
            if theory:
                plot_theory.throughput(
                    axes, rows[x], rows, colour=style['color'], scale=scale, label=None
                )
        axes.set(xscale='log', yscale='log', xlabel=labels[0], title=panel)
        plain_log_axis(axes, sorted(part[x].unique()), 'x')
    _plain_ticks(grid[0], 'y')
    grid[0].set_ylabel(labels[1])
    handles = {t: h for h, t in zip(*grid[0].get_legend_handles_labels(), strict=True)}
    more = plot_theory.handles('#555555') if theory else []
    told = [handles[text] for text in sorted(handles)]
    figure.legend(
        handles=[*told, *more], loc='outside lower center', ncols=4 if theory else 2,
        title='bars: 95 % interval', title_fontsize=8,
    )  # fmt: skip
    figure.suptitle(title)
    return figure


def tail_points(
    latency_us: npt.NDArray[np.float64], requests: npt.NDArray[np.int64]
) -> tuple[npt.NDArray, npt.NDArray]:
    """Ascending latencies and the share of requests not below each; at most about 2000 points."""
    below = np.cumsum(requests) - requests
    share = 1 - below / requests.sum()
    if len(latency_us) <= 2000:
        return latency_us, share
    picks = np.searchsorted(-share, -np.geomspace(1, share[-1], 2000))
    picks = np.unique(np.minimum(picks, len(share) - 1))
    return latency_us[picks], share[picks]


@styled
def latency_tails(
    samples_us: Mapping[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]],
    title: str,
    axis: str = f'{LATENCY} (µs)',
    least_us: float | None = None,
) -> Figure:
    """Latency CDF with a logarithmic tail: the share of requests slower than x.

    `samples_us`: by label, latencies in ascending order and how many requests had each; they are
    drawn in pairs, full and dashed. `axis` says which latency it is. `least_us`: what no mean is
    below, the asymptotic bound.
    """
    figure = Figure(figsize=(7.5, 4.8))
    axes = figure.subplots()
    smallest = 1.0
    for number, (label, (values, requests)) in enumerate(samples_us.items()):
        x, share = tail_points(values, requests)
        smallest = min(smallest, float(share.min()))
        style = '-' if number % 2 == 0 else '--'
        colour = COLOURS[number // 2 % len(COLOURS)]
        axes.plot(x, share, color=colour, linestyle=style, label=label)
    axes.set(xscale='log', yscale='log', xlabel=axis, ylabel='share of requests that are slower')
    axes.set_ylim(smallest * 0.8, 1.2)
    axes.yaxis.set_major_formatter(lambda value, _: f'{100 * value:g} %')
    low, high = axes.get_xlim()
    if high > 5 * low:
        _plain_ticks(axes, 'x')
    else:
        axes.set_xscale('linear')
    for level, name in ((0.5, 'p50'), (0.01, 'p99'), (0.001, 'p99.9')):
        if level > smallest:
            axes.axhline(level, color='#bbbbbb', linewidth=0.8, zorder=1)
            axes.annotate(
                name, (1.0, level), xycoords=('axes fraction', 'data'), fontsize=8, va='bottom',
                ha='right', color='#666666',
            )  # fmt: skip
    if least_us is not None:
        axes.axvline(
            least_us, color='black', linestyle='--', linewidth=1,
            label='asymptotic bound of the mean',
        )  # fmt: skip
    axes.legend(loc='lower left', frameon=True, framealpha=0.9, edgecolor='none')
    figure.suptitle(title)
    return figure


def stage_table(reports: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """What stage_stack() draws of some runs' reports, by their labels: a row for each, in µs."""
    rows = []
    for label, report in reports.items():
        low, high = report['intervals']['values'].get('latency_ns.mean') or (None, None)
        ends = {'': report['latency_ns']['mean'], '_low': low, '_high': high}
        rows.append(
            {'label': label}
            | {stage: report['stages_ns'].get(stage, 0.0) / 1e3 for stage in STAGES}
            | {f'latency{e}': None if value is None else value / 1e3 for e, value in ends.items()}
            | least_us(from_effective(report['config']))
        )
    return pd.DataFrame(rows)


@styled
def stage_stack(table: pd.DataFrame, title: str, rows: str = '') -> Figure:
    """Mean time per stage, stacked: absolute on the left, without the disk's own on the right.

    `table`: one row per bar with column `label` and one column per stage (µs), and if they are
    known latency, latency_low and latency_high (µs), drawn as an interval at the end of the bar,
    and the columns of sim.analysis.bounds.least_us(), drawn as ticks. `rows` says what the labels
    are.
    """
    figure = Figure(figsize=(12, 0.42 * len(table) + 2.2))
    left, right = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(table))
    for axes, stages in ((left, STAGES), (right, [s for s in STAGES if s != 'done'])):
        start = np.zeros(len(table))
        for stage in stages:
            width = table[stage].to_numpy(dtype=float)
            axes.barh(places, width, left=start, color=STAGE_COLOURS[stage], height=0.75)
            start += width
        clean(axes, 'x')
        axes.margins(x=0.02)
    if 'least_us' in table:
        for axes, name in ((left, 'least_us'), (right, 'least_beside_disk_us')):
            _ticks_over_bars(axes, table[name])
    if 'latency' in table:
        bars = intervals(table, 'latency')
        left.errorbar(table['latency'], places, xerr=bars, color='black', linestyle='', zorder=3)
    left.set_yticks(places, table['label'])
    left.set(ylim=(len(table) - 0.5, -0.5), ylabel=rows)
    told = ['black: 95 % interval of the whole'] if 'latency' in table else []
    told += ['red: asymptotic bound of the mean'] if 'least_us' in table else []
    end = '\n' + '; '.join(told) if told else ''
    left.set_xlabel(f'mean time per stage, from arrival to completion (µs){end}')
    right.set_xlabel("the same without 'done', the disk (µs)")
    handles = [left.barh([0], [0], color=STAGE_COLOURS[stage], label=stage)[0] for stage in STAGES]
    figure.legend(handles, STAGES, loc='outside lower center', ncols=10, fontsize=9)
    figure.suptitle(title)
    return figure


def _ticks_over_bars(axes: Axes, values: pd.Series) -> None:
    """A red line with a white rim across each bar, at what theory lets it be at least."""
    for place, value in enumerate(values):
        for colour, width in (('white', 3.2), ('#e00000', 1.4)):
            axes.plot([value, value], [place - 0.45, place + 0.45], color=colour, linewidth=width,
                      solid_capstyle='butt', zorder=2.9, marker='')  # fmt: skip
