"""Figures of feature bits: a heat map of every combination, and what one bit alone changes."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator

from sim.analysis.style import COLOURS, MARKERS, styled


@styled
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
    share: tuple[str, str, str] | None = None,
) -> Figure:
    """A heat map per metric: how much each row of a comparison differs from the reference row.

    `table`: one line per cell with columns `rows` and `columns` (labels, drawn in their order), a
    bool column per key of `marks` (drawn as dots beside the rows, filled where True; a gap where
    the first one changes), and for each metric m of `metrics` (title, unit) its value m, m_percent
    (change against the reference row), m_delta and m_half_width (an interval that holds zero is
    drawn grey). `share` is one more panel: a column of percentages up to 100, title and unit.
    """
    names, places = list(table[rows].unique()), list(table[columns].unique())
    panels = len(metrics) + (share is not None)
    across = 3 if panels <= 6 else 4
    down = -(-panels // across)
    size = (3.2 + across * (1.0 + 0.78 * len(places)), 1.7 + down * (1.0 + 0.3 * len(names)))
    figure = Figure(figsize=size)
    widths = [0.09 * len(marks) + 0.12] + [1.0] * across
    grid = figure.add_gridspec(down, across + 1, width_ratios=widths)
    cells = table.set_index([rows, columns])
    first = table.drop_duplicates(rows)[next(iter(marks))].to_numpy()
    groups = (np.flatnonzero(first[1:] != first[:-1]) + 1).tolist()
    for number, (metric, (label, unit)) in enumerate(metrics.items()):
        line, place = divmod(number, across)
        axes = figure.add_subplot(grid[line, place + 1])
        image = _heat(axes, cells, metric, names, places, reference, groups)
        axes.set_title(f'{label}\n{unit}')
        axes.set_xlabel(columns if line == down - 1 else '', fontsize=9)
    if share is not None:
        line, place = divmod(len(metrics), across)
        axes = figure.add_subplot(grid[line, place + 1])
        _shares(axes, cells[share[0]].unstack().loc[names, places], groups)
        axes.set_title(f'{share[1]}\n{share[2]}')
        axes.set_xlabel(columns, fontsize=9)
    for line in range(down):
        _mark_dots(figure.add_subplot(grid[line, 0]), table.drop_duplicates(rows), marks)
    bar = figure.colorbar(image, ax=figure.axes, shrink=0.5, aspect=40, pad=0.015)
    ticks = (-50, -25, -10, -3, 0, 3, 10, 30, 100)
    words = {-50: 'half or less', 0: 'same', 100: 'double or more'}
    bar.set_ticks([float(_shade(np.array(percent))) for percent in ticks])
    bar.set_ticklabels([words.get(percent, _change(percent) + ' %') for percent in ticks])
    bar.outline.set_visible(False)
    figure.suptitle(title)
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
    y = names.index(reference)
    axes.add_patch(Rectangle((-0.5, y - 0.5), len(places), 1, fill=False, linewidth=1.4))
    _frame(axes, places, groups)
    return image


def _shares(axes: Axes, percent: pd.DataFrame, groups: Sequence[int]) -> None:
    """A panel of percentages from 0 to 100, the darker the more."""
    values = percent.to_numpy(dtype=float)
    axes.imshow(values, cmap='Greys', vmin=0, vmax=140, aspect='auto')
    for (y, x), value in np.ndenumerate(values):
        colour = '#ffffff' if value > 75 else '#000000'
        axes.text(x, y, f'{value:.0f}', ha='center', va='center', fontsize=7.5, color=colour)
    _frame(axes, list(percent.columns), groups)


def _frame(axes: Axes, places: Sequence[object], groups: Sequence[int]) -> None:
    """Labels below the columns, gaps between groups of rows, nothing else around a panel."""
    for y in groups:
        axes.axhline(y - 0.5, color='white', linewidth=4)
    axes.set_xticks(range(len(places)), [str(p).replace(', ', '\n') for p in places], fontsize=8)
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)


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
    axes.grid(False)
    axes.spines[:].set_visible(False)


SYMLOG_TICKS = (-100, -30, -10, -3, -1, 0, 1, 3, 10, 30, 100, 300)


@styled
def effects(
    table: pd.DataFrame,
    metrics: Mapping[str, tuple[str, str]],
    *,
    columns: str,
    wide: Sequence[str] = (),
    most: Mapping[str, str] | None = None,
    title: str,
) -> Figure:
    """Changes with their intervals: a row of panels per metric, a column per effect.

    `table`: columns effect, series and `columns` (labels on the x axis), and for each metric m its
    m_percent and m_percent_half_width. `metrics`: m -> (title, unit) of the rows; those in `wide`
    have an axis that is linear up to 1 % and logarithmic beyond. `most`: by metric the column of
    what theory leaves room for, drawn as dashes.
    """
    names = list(table['effect'].unique())
    places = list(table[columns].unique())
    size = (1.0 + 3.0 * len(names), 1.2 + 2.3 * len(metrics))
    figure = Figure(figsize=size)
    grid = figure.subplots(len(metrics), len(names), sharex=True, sharey='row', squeeze=False)
    for column, name in enumerate(names):
        for series, (label, rows) in enumerate(
            table[table['effect'] == name].groupby('series', sort=False)
        ):
            x = np.array([places.index(place) for place in rows[columns]]) + 0.16 * series
            for metric, limit in (most or {}).items():
                grid[list(metrics).index(metric), column].plot(
                    x, rows[limit], color=COLOURS[series], marker='_', markersize=14, linestyle=''
                )
            for line, metric in enumerate(metrics):
                grid[line, column].errorbar(
                    x, rows[f'{metric}_percent'], yerr=rows[f'{metric}_percent_half_width'],
                    color=COLOURS[series], marker=MARKERS[series], markersize=5,
                    linestyle='', label=label,
                )  # fmt: skip
        grid[0, column].set_title(name)
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
    for axes in grid[-1]:
        axes.set_xticks(range(len(places)), [p.replace(', ', '\n') for p in places], fontsize=8)
        axes.set_xlabel(columns, fontsize=9)
    handles, labels = max(
        (axes.get_legend_handles_labels() for axes in grid[0]), key=lambda found: len(found[1])
    )
    if len(labels) > 1:
        figure.legend(handles, labels, loc='outside lower right', ncols=2, fontsize=9)
    figure.suptitle(title)
    return figure
