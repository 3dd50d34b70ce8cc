"""Figures of validation targets: measured against simulated, calibrated and predicted apart."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sim.analysis.style import COLOURS, MARKERS, styled

CALIBRATED, PREDICTED = COLOURS[0], COLOURS[1]


@styled
def target(result: Mapping[str, Any]) -> Figure:
    """A panel for each metric: the points of a target in order, measured and simulated."""
    names = list(result['metrics'])
    longest = max(len(row['point']) for row in result['rows'])
    points = {row['number']: row['point'] for row in result['rows']}
    count = len(points)
    size = (0.08 * longest + 2 + 4.2 * len(names), 0.26 * count + 1.9)
    figure = Figure(figsize=size)
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        mine = [row for row in result['rows'] if row['metric'] == name]
        exact = result['metrics'][name]['exact']
        _dumbbells(axes, [_as_numbers(row) for row in mine] if exact else mine, list(points))
        axes.set_yticks(range(count), list(points.values()) if axes is panels[0] else [])
        if exact:
            axes.set_xticks([0, 1], ['the same', 'another'])
            axes.set_xlim(-0.2, 1.2)
        mape = result['metrics'][name]['mape_predicted']
        told = 'nothing predicted' if mape is None else f'predicted points: MAPE {mape:.1f} %'
        axes.set_title(f'{name}\n{told}', fontsize=10)
    handles = [
        Line2D([], [], color='black', marker='|', markersize=11, linestyle='', label='measured'),
        *(
            Line2D([], [], color=colour, marker='o', linestyle='', label=f'simulated, {role}')
            for role, colour in (('calibrated', CALIBRATED), ('predicted', PREDICTED))
        ),
    ]
    figure.suptitle(result['title'])
    figure.legend(handles=handles, loc='outside lower center', ncols=3, fontsize=9)
    return figure


def _as_numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """A text: 0 where it is the same, else 1."""
    return {**row, 'measured': 0.0, 'simulated': row['error']}


def _dumbbells(axes: Axes, rows: Sequence[Mapping[str, Any]], points: Sequence[int]) -> None:
    """A line per point, from what was measured to what is simulated, at its place in `points`."""
    for row in rows:
        place = points.index(row['number'])
        colour = CALIBRATED if row['role'] == 'calibrated' else PREDICTED
        axes.plot([row['measured'], row['simulated']], [place, place], color='#bbbbbb', zorder=1)
        axes.plot(row['measured'], place, color='black', marker='|', markersize=11, zorder=3)
        axes.plot(row['simulated'], place, color=colour, marker='o', markersize=5, zorder=2)
        if row['interval'] is not None:
            axes.plot(row['interval'], [place, place], color=colour, linewidth=3, alpha=0.5)
    values = [row[which] for row in rows for which in ('measured', 'simulated')]
    if min(values, default=0) > 0 and max(values) > 20 * min(values):
        axes.set_xscale('log')
    elif min(values, default=0) > 0:
        axes.set_xlim(left=0)
    axes.set_ylim(len(points) - 0.4, -0.6)
    axes.tick_params(labelsize=8)


@styled
def all_targets(results: Sequence[Mapping[str, Any]]) -> Figure:
    """Every point of every target: measured on the one axis, error on the other, per target."""
    figure = Figure(figsize=(10, 0.42 * len(results) + 2.2))
    axes = figure.subplots()
    for place, result in enumerate(results):
        for row in result['rows']:
            if row['error'] is None:
                continue
            shade = CALIBRATED if row['role'] == 'calibrated' else PREDICTED
            error = max(-100.0, min(100.0, 100 * row['error']))
            marker = MARKERS[list(result['metrics']).index(row['metric']) % len(MARKERS)]
            axes.plot(
                error, place, color=shade, marker=marker, markersize=5, alpha=0.7, linestyle=''
            )
    axes.axvline(0, color='black', linewidth=0.8)
    axes.axvspan(-10, 10, color='#eeeeee', zorder=0)
    axes.set_xlim(-104, 104)
    axes.set_ylim(len(results) - 0.4, -0.6)
    axes.set_yticks(range(len(results)), [result['name'] for result in results], fontsize=9)
    axes.set_xlabel('error of each point (%), cut at ±100; grey: ±10')
    handles = [
        Line2D([], [], color=colour, marker='o', linestyle='', label=role)
        for role, colour in (('calibrated', CALIBRATED), ('predicted', PREDICTED))
    ]
    figure.legend(handles=handles, loc='outside upper right', ncols=2, fontsize=9)
    return figure
