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
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
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
) -> Figure:
    """Simulated lines with the measured points beside them, a panel for each value of `panels`.

    `pairs`: the columns (simulated, measured), `names`: what they are called; a measured value may
    be missing. `labels`: of the axes, both logarithmic; values are divided by `scale`.
    """
    parts = list(table.groupby(panels, sort=False))
    figure = Figure(figsize=(5.4 * len(parts), 4.6), layout='constrained')
    grid = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
    for axes, (panel, part) in zip(grid, parts, strict=True):
        for number, (line, rows) in enumerate(part.groupby(lines, sort=False)):
            style = {'color': COLOURS[number], 'marker': MARKERS[number]}
            axes.plot(rows[x], rows[pairs[0]] / scale, label=f'{line}, {names[0]}', **style)
            axes.plot(
                rows[x], rows[pairs[1]].astype(float) / scale, label=f'{line}, {names[1]}',
                linestyle='', markersize=9, markerfacecolor='none', markeredgewidth=1.6, **style,
            )  # fmt: skip
        axes.set(xscale='log', yscale='log', xlabel=labels[0], title=panel)
        _plain_log_axis(axes, sorted(part[x].unique()), 'x')
        _clean(axes)
    low, high = grid[0].get_ylim()
    ticks = [v for v in LATENCY_TICKS if low <= v <= high]
    _plain_log_axis(grid[0], ticks, 'y')
    grid[0].set_ylabel(labels[1])
    handles, texts = grid[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc='outside lower center', ncols=2, frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11)
    return figure


LATENCY_TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)


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


def latency_tails(
    samples_us: Mapping[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]], title: str
) -> Figure:
    """Latency CDF with a logarithmic tail: the share of requests slower than x.

    `samples_us`: by label, latencies in ascending order and how many requests had each.
    """
    figure = Figure(figsize=(7.5, 4.8), layout='constrained')
    axes = figure.subplots()
    smallest = 1.0
    for number, (label, (values, requests)) in enumerate(samples_us.items()):
        x, share = tail_points(values, requests)
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
                name,
                (1.0, level),
                xycoords=('axes fraction', 'data'),
                fontsize=8,
                va='bottom',
                ha='right',
                color='#666666',
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
    handles = [left.barh([0], [0], color=STAGE_COLOURS[stage], label=stage)[0] for stage in STAGES]
    figure.legend(handles, STAGES, loc='outside lower center', ncols=10, frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11)
    return figure


def heat_panels(
    table: pd.DataFrame,
    metrics: Mapping[str, tuple[str, str]],
    *,
    rows: str,
    columns: str,
    marks: Mapping[str, str],
    reference: str,
    title: str,
    note: str,
) -> Figure:
    """A heat map per metric: how much each row of a comparison differs from the reference row.

    `table`: one line per cell with columns `rows` and `columns` (labels, drawn in their order), a
    bool column per key of `marks` (drawn as dots beside the rows, filled where True; a gap where
    the first one changes), and for each metric m of `metrics` (title, unit) its value m, m_percent
    (change against the reference row), m_delta and m_half_width (an interval that holds zero is
    drawn grey).
    """
    names, places = list(table[rows].unique()), list(table[columns].unique())
    across = 3
    down = -(-len(metrics) // across)
    size = (3.2 + across * (1.0 + 0.78 * len(places)), 1.7 + down * (1.0 + 0.3 * len(names)))
    figure = Figure(figsize=size, layout='constrained')
    widths = [0.09 * len(marks) + 0.12] + [1.0] * across
    grid = figure.add_gridspec(down, across + 1, width_ratios=widths)
    cells = table.set_index([rows, columns])
    first = table.drop_duplicates(rows)[next(iter(marks))].to_numpy()
    groups = (np.flatnonzero(first[1:] != first[:-1]) + 1).tolist()
    for number, (metric, (label, unit)) in enumerate(metrics.items()):
        line, place = divmod(number, across)
        axes = figure.add_subplot(grid[line, place + 1])
        image = _heat(axes, cells, metric, names, places, reference, groups)
        axes.set_title(f'{label}\n{unit}', fontsize=10)
        axes.set_xlabel(columns if line == down - 1 else '', fontsize=9)
    for line in range(down):
        _mark_dots(figure.add_subplot(grid[line, 0]), table.drop_duplicates(rows), marks)
    bar = figure.colorbar(image, ax=figure.axes, shrink=0.5, aspect=40, pad=0.015)
    ticks = (-50, -25, -10, -3, 0, 3, 10, 30, 100)
    words = {-50: 'half or less', 0: 'same', 100: 'double or more'}
    bar.set_ticks([float(_shade(np.array(percent))) for percent in ticks])
    bar.set_ticklabels([words.get(percent, _change(percent) + ' %') for percent in ticks])
    bar.outline.set_visible(False)
    figure.suptitle(title, fontsize=11)
    figure.supxlabel(note, fontsize=9, color='#444444', ha='left', x=0.02)
    return figure


def _heat(
    axes: Axes,
    cells: pd.DataFrame,
    metric: str,
    names: list,
    places: list,
    reference: str,
    groups: Sequence[int],
) -> AxesImage:
    """One panel: the colour is the ratio to the reference, the text the change in percent."""
    percent = cells[f'{metric}_percent'].unstack().loc[names, places].to_numpy(dtype=float)
    value = cells[metric].unstack().loc[names, places].to_numpy(dtype=float)
    unsure = cells[f'{metric}_delta'].abs() <= cells[f'{metric}_half_width']
    unsure = unsure.unstack().loc[names, places].to_numpy(dtype=bool)
    shade = _shade(percent)
    image = axes.imshow(shade, cmap='PuOr_r', vmin=-1.15, vmax=1.15, aspect='auto')
    for y, name in enumerate(names):
        for x in range(len(places)):
            text = _change(percent[y, x]) if name != reference else _short(value[y, x])
            dark = abs(shade[y, x]) > 0.8
            grey = unsure[y, x] and name != reference
            colour = '#ffffff' if dark else '#8a8a8a' if grey else '#000000'
            weight = 'bold' if name == reference else 'normal'
            axes.text(x, y, text, ha='center', va='center', fontsize=7.5, color=colour,
                      weight=weight)  # fmt: skip
    for y in groups:
        axes.axhline(y - 0.5, color='white', linewidth=4)
    y = names.index(reference)
    axes.add_patch(Rectangle((-0.5, y - 0.5), len(places), 1, fill=False, linewidth=1.4))
    axes.set_xticks(range(len(places)), [str(p).replace(', ', '\n') for p in places], fontsize=8)
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return image


def _shade(percent: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """-1 (half or less) ... 0 (the same) ... 1 (double or more); small changes take more of it."""
    ratio = np.clip(np.log2(np.maximum(1 + percent / 100, 1 / 64)), -1, 1)
    return np.sign(ratio) * np.sqrt(np.abs(ratio))


def _change(percent: float) -> str:
    """A change as people read it: percent, or a factor where it is more than tenfold."""
    if percent >= 900:
        return f'×{1 + percent / 100:.0f}'
    if abs(percent) < 0.05:
        return '0'
    digits = 0 if abs(percent) >= 9.95 or percent == int(percent) else 1
    return f'{percent:+.{digits}f}'.replace('-', '−')


def _short(value: float) -> str:
    """A number in about three digits."""
    return f'{value:.0f}' if value >= 100 else f'{value:.1f}' if value >= 10 else f'{value:.2f}'


def _mark_dots(axes: Axes, table: pd.DataFrame, marks: Mapping[str, str]) -> None:
    """A dot per row and mark, filled where the mark is on."""
    for x, name in enumerate(marks):
        for y, on in enumerate(table[name]):
            face = 'black' if on else 'white'
            axes.plot(x, y, 'o', markersize=7, markerfacecolor=face, markeredgecolor='#555555')
    axes.set_xlim(-0.6, len(marks) - 0.4)
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.set_xticks(range(len(marks)), list(marks.values()), rotation=60, ha='left', fontsize=8)
    axes.xaxis.tick_top()
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


SYMLOG_TICKS = (-100, -30, -10, -3, -1, 0, 1, 3, 10, 30, 100, 300)


def effects(
    table: pd.DataFrame,
    metrics: Mapping[str, tuple[str, str]],
    *,
    columns: str,
    wide: Sequence[str] = (),
    title: str,
) -> Figure:
    """Changes with their intervals: a row of panels per metric, a column per effect.

    `table`: columns effect, series and `columns` (labels on the x axis), and for each metric m its
    m_percent and m_percent_half_width. `metrics`: m -> (title, unit) of the rows; those in `wide`
    have an axis that is linear up to 1 % and logarithmic beyond.
    """
    names = list(table['effect'].unique())
    places = list(table[columns].unique())
    size = (1.0 + 3.0 * len(names), 1.2 + 2.3 * len(metrics))
    figure = Figure(figsize=size, layout='constrained')
    grid = figure.subplots(len(metrics), len(names), sharex=True, sharey='row', squeeze=False)
    for column, name in enumerate(names):
        for series, (label, rows) in enumerate(
            table[table['effect'] == name].groupby('series', sort=False)
        ):
            x = np.array([places.index(place) for place in rows[columns]]) + 0.16 * series
            for line, metric in enumerate(metrics):
                grid[line, column].errorbar(
                    x, rows[f'{metric}_percent'], yerr=rows[f'{metric}_percent_half_width'],
                    capsize=3, color=COLOURS[series], marker=MARKERS[series], markersize=5,
                    linestyle='', label=label,
                )  # fmt: skip
        grid[0, column].set_title(name, fontsize=10)
    for line, (metric, (label, unit)) in enumerate(metrics.items()):
        grid[line, 0].set_ylabel(f'{label}\n{unit}', fontsize=9)
        if metric in wide:
            grid[line, 0].set_yscale('symlog', linthresh=1)
            low, high = grid[line, 0].get_ylim()
            ticks = [v for v in SYMLOG_TICKS if low <= v <= high]
            grid[line, 0].set_yticks(ticks, [_change(v) for v in ticks])
            grid[line, 0].set_ylim(low, high * 1.4)
            grid[line, 0].yaxis.set_minor_locator(NullLocator())
        for axes in grid[line]:
            axes.axhline(0, color='black', linewidth=0.8)
            _clean(axes)
    for axes in grid[-1]:
        axes.set_xticks(range(len(places)), [p.replace(', ', '\n') for p in places], fontsize=8)
        axes.set_xlabel(columns, fontsize=9)
    handles, labels = max(
        (axes.get_legend_handles_labels() for axes in grid[0]), key=lambda found: len(found[1])
    )
    if len(labels) > 1:
        figure.legend(handles, labels, loc='outside lower right', ncols=2, frameon=False)
    figure.suptitle(title, fontsize=11)
    return figure
