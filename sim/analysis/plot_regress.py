"""The figures of sim regress: what was in grey, what is in colour, both with their intervals.

Narrow on purpose: a page shows them side by side on a screen, one below the other on a telephone.
Whiskers are 95 % intervals over replications; those of a difference are of pairs.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

from sim.analysis.style import COLOURS, GRID_COLOUR, STAGE_COLOURS, clean, styled
from sim.record import STAGES

WIDTH = 4.2  # inches
WAS = '#9a9a9a'
LATENCIES = {
    'latency_ns.mean': 'latency, mean',
    'latency_ns.p50': 'p50',
    'latency_ns.p99': 'p99',
}
IN_WORDS = ('latency_ns.p50', 'latency_ns.p99')
CHANGES = {
    'latency_ns.mean': ('mean latency', COLOURS[0], 'o'),
    'latency_ns.p99': ('p99', COLOURS[1], 's'),
    'iops': ('IOPS', COLOURS[2], '^'),
}
DOT: dict[str, Any] = {'markersize': 4, 'capsize': 2, 'linestyle': '', 'elinewidth': 1}


def png(figure: Figure) -> tuple[bytes, int, int]:
    """The file, and the width and height in which a page shows it: half of what it has."""
    content = io.BytesIO()
    figure.savefig(content, format='png', dpi=200, metadata={'Software': None})
    width, height = (int(inches * 100) for inches in figure.get_size_inches())
    return content.getvalue(), width, height


def changes_of(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What `changes` draws: per scenario and metric the change and its half width, percent."""
    rows = []
    for entry in entries:
        for metric in CHANGES:
            test = entry['pairs'].get(metric)
            if test and test['baseline']:
                scale = 100 / abs(test['baseline'])
                rows.append(
                    {
                        'scenario': entry['name'],
                        'metric': metric,
                        'percent': test['difference'] * scale,
                        'half_width': test['half_width'] * scale,
                        'baseline_half_width': test['baseline_half_width'] * scale,
                    }
                )
    return rows


@styled
def changes(entries: Sequence[Mapping[str, Any]]) -> Figure:
    """All scenarios: changes of mean, p99 and IOPS, beside how sure the baseline is of them."""
    names = [entry['name'] for entry in entries]
    figure = Figure(figsize=(WIDTH, 1.3 + 0.3 * len(names)), layout='constrained')
    axes = figure.subplots()
    rows = changes_of(entries)
    shifts = dict(zip(CHANGES, (-0.22, 0.0, 0.22), strict=True))
    for row in rows:
        _, colour, marker = CHANGES[row['metric']]
        y = names.index(row['scenario']) + shifts[row['metric']]
        half = row['baseline_half_width']
        axes.plot([-half, half], [y, y], color=WAS, linewidth=3, alpha=0.55, solid_capstyle='butt')
        axes.errorbar(
            row['percent'], y, xerr=row['half_width'], color=colour, marker=marker, **DOT
        )  # fmt: skip
    axes.axvline(0, color='black', linewidth=0.8)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xscale('symlog', linthresh=1)
    axes.set_xlim(*_symmetric(rows))
    axes.xaxis.set_major_locator(_ticks(axes))
    axes.xaxis.set_major_formatter(lambda value, _: f'{value:+g}' if value else '0')
    axes.set_xlabel('change, percent (linear up to 1)', fontsize=8)
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle='', markersize=4, label=label)
        for label, colour, marker in CHANGES.values()
    ]
    handles.append(Line2D([], [], color=WAS, linewidth=3, alpha=0.55, label='baseline, 95 %'))
    figure.legend(handles=handles, loc='outside upper center', ncols=4, fontsize=7, frameon=False,
                  columnspacing=1, handletextpad=0.5, handlelength=1.2)  # fmt: skip
    _clean(axes)
    return figure


def _symmetric(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    reach = max(
        (max(abs(r['percent']) + r['half_width'], r['baseline_half_width']) for r in rows),
        default=1.0,
    )
    return -max(1.2, 1.3 * reach), max(1.2, 1.3 * reach)


def _ticks(axes: Axes) -> FixedLocator:
    _, high = axes.get_xlim()
    steps = [step for step in (1, 10, 100, 1000) if step <= high]
    return FixedLocator([*(-step for step in reversed(steps)), 0, *steps])


def levels_of(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What `scenario` draws: per row label, colour, before and now with half widths, ns."""
    wanted = [(metric, label, '#000000') for metric, label in LATENCIES.items()]
    wanted += [(f'stages_ns.{stage}', stage, STAGE_COLOURS[stage]) for stage in STAGES]
    rows = []
    for metric, label, colour in wanted:
        test = entry['pairs'].get(metric)
        if test:
            rows.append({'metric': metric, 'label': label, 'colour': colour, **test})
    return rows


@styled
def scenario(entry: Mapping[str, Any]) -> Figure:
    """One scenario: latencies and stages before and now, and what each changed by."""
    rows = levels_of(entry)
    figure = Figure(figsize=(WIDTH, 3.1), layout='constrained')
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.25, 1))
    for y, row in enumerate(rows):
        for side, colour, shift in (('baseline', WAS, -0.16), ('now', row['colour'], 0.16)):
            if row[side] > 0:
                left.errorbar(
                    row[side] / 1e3, y + shift, xerr=_held(row, side), color=colour,
                    marker='s' if side == 'baseline' else 'o', **DOT,
                )  # fmt: skip
        _difference(right, y, row)
    left.set_xscale('log')
    left.set_yticks(range(len(rows)), [row['label'] for row in rows], fontsize=7)
    left.set_ylim(len(rows) - 0.4, -0.6)
    left.set_xlabel('µs: grey was, colour is', fontsize=8)
    drawn = [row for row in rows if row['metric'] not in IN_WORDS]
    reach = max((abs(r['difference']) + r['half_width'] for r in drawn), default=0.0)
    right.set_xlim(-1.15 * (reach or 1), 1.15 * (reach or 1))
    if not reach:
        right.text(0.5, 0.5, 'no difference', transform=right.transAxes, ha='center', fontsize=7,
                   color='#555555', backgroundcolor='white')  # fmt: skip
        right.set_xticks([0])
    right.axvline(0, color='black', linewidth=0.8)
    right.set_xlabel('now − baseline, ns', fontsize=8)
    if reach:
        right.locator_params(axis='x', nbins=3)
    for axes in (left, right):
        _clean(axes)
        axes.axhline(len(LATENCIES) - 0.5, color=GRID_COLOUR, linewidth=0.8)
    figure.suptitle(title_of(entry), fontsize=8)
    return figure


def _difference(axes: Axes, y: int, row: Mapping[str, Any]) -> None:
    """A bar with its interval; a percentile varies too much to share an axis with stages."""
    if row['metric'] in IN_WORDS:
        if row['difference']:
            axes.text(0.5, y, f'{row["difference"]:+,.0f} ± {row["half_width"]:,.0f}', fontsize=6,
                      transform=axes.get_yaxis_transform(), ha='center', va='center')  # fmt: skip
        return
    axes.barh(y, row['difference'], color=row['colour'], height=0.62)
    if row['half_width']:
        axes.errorbar(
            row['difference'], y, xerr=row['half_width'], color='#222222', capsize=2,
            elinewidth=0.8, linestyle='',
        )  # fmt: skip


def _held(row: Mapping[str, Any], side: str) -> Any:
    """Whiskers in µs that stay above zero, for a logarithmic axis."""
    half, value = row[f'{side}_half_width'], row[side]
    return np.array([[min(half, 0.9 * value)], [half]]) / 1e3


def title_of(entry: Mapping[str, Any]) -> str:
    """Says 'unchanged', or what changed most."""
    if entry['state'] == 'same':
        return f'{entry["name"]}: unchanged'
    test = entry['pairs'].get('latency_ns.mean')
    change = f'mean {test["difference"]:+,.0f} ns' if test else 'changed'
    return f'{entry["name"]}: {change}, stage {entry["stage"] or "none"}'


def _clean(axes: Axes) -> None:
    clean(axes, 'x')
    axes.tick_params(labelsize=7)
