"""The figure of a sweep: IOPS and latency over one of its keys, with what theory says beside it."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sim.analysis import plot_theory
from sim.analysis.style import COLOURS, FIO_LATENCY, MARKERS, plain_log_axis, styled

LINES_MOST = 12
@styled
def sweep(table: pd.DataFrame, theory: pd.DataFrame, axes: Sequence[str], title: str) -> Figure:
    """A line for each combination of the keys that are not along x.

    `table`: a column for each of `axes` (texts), iops and fio_lat_us. `theory`: a row for each of
    its rows with the columns of sim.analysis.bounds.SAID, drawn once where all lines have the
    same. x is the key with most numbers as values, else the first one.
    """
    x = along(table, axes)
    others = [name for name in axes if name != x]
    figure = Figure(figsize=(11, 4.8))
    panels = figure.subplots(1, 2)
    places = _places(table[x])
    groups = list(table.groupby(others, sort=False)) if others else [((), table)]
    alike = len({tuple(theory.loc[rows.index].stack()) for _, rows in groups}) == 1
    for number, (values, rows) in enumerate(groups[:LINES_MOST]):
        colour = COLOURS[number % len(COLOURS)]
        style = {'color': colour, 'marker': MARKERS[number % len(MARKERS)]}
        said = values if isinstance(values, tuple) else (values,)
        pairs = zip(others, said, strict=True)
        label = ', '.join(f'{name.rpartition(".")[2]}={value}' for name, value in pairs)
        at = [places[value] for value in rows[x]]
        panels[0].plot(at, rows['iops'] / 1e3, label=label or 'simulated', **style)
        panels[1].plot(at, rows['fio_lat_us'], label=label or 'simulated', **style)
        if number and alike:
            continue
        said_here: dict[str, Any] = {'colour': 'black' if alike else colour}
        said_here |= {'label': None if number else '{}'}
        plot_theory.throughput(panels[0], at, theory.loc[rows.index], **said_here)
        plot_theory.latency(panels[1], at, theory.loc[rows.index], **said_here)
    for place, axes_ in enumerate(panels):
        axes_.set_xlabel(x)
        axes_.set_ylabel(('thousand IOPS', f'{FIO_LATENCY}, mean (µs)')[place])
        _x_axis(axes_, table[x], places)
        axes_.set_ylim(bottom=0)
        told = zip(*axes_.get_legend_handles_labels(), strict=True)
        ordered = sorted(told, key=lambda pair: pair[1] in plot_theory.NAMES)
        axes_.legend(*zip(*ordered, strict=True))
    # A bound far above everything would press the lines together.
    panels[0].set_ylim(top=min(panels[0].get_ylim()[1], 2 * float(table['iops'].max()) / 1e3))
    more = f' ({len(groups) - LINES_MOST} more lines in the table)' * (len(groups) > LINES_MOST)
    figure.suptitle(title + more)
    return figure


def along(table: pd.DataFrame, axes: Sequence[str]) -> str:
    """The key that goes along x."""
    numbers = [name for name in axes if _is_numeric(table[name]) and table[name].nunique() > 1]
    return max(numbers, key=lambda name: table[name].nunique()) if numbers else axes[0]


def _is_numeric(column: pd.Series) -> bool:
    return bool(pd.to_numeric(column, errors='coerce').notna().all())


def _places(column: pd.Series) -> dict[str, float]:
    """Where each value stands: numbers at themselves, words one after the other."""
    if _is_numeric(column):
        return {value: float(value) for value in column}
    return {value: float(n) for n, value in enumerate(dict.fromkeys(column))}


def _x_axis(axes: Axes, column: pd.Series, places: dict[str, float]) -> None:
    """Logarithmic where numbers span more than a decade; a tick for every value."""
    if not _is_numeric(column):
        axes.set_xticks(list(places.values()), list(places))
        return
    low, high = min(places.values()), max(places.values())
    if low > 0 and high > 10 * low:
        axes.set_xscale('log')
        plain_log_axis(axes, sorted(set(places.values())), 'x')
