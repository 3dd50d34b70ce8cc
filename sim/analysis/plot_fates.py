"""The phase diagram of a search over boundaries: what came of a hand-over, by where it began."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from sim.analysis.style import styled
from sim.record import STAGES

# The worst last: it is drawn at the right end of a bar. Colours that colour-blind readers can part.
FATE_COLOURS = {
    'clean': '#cfe3d6', 'stalled': '#F0E442', 'failed_io': '#E69F00', 'stranded': '#0072B2',
    'broken': '#222222', 'stale': '#CC79A7', 'lost': '#D55E00', 'doubled': '#882255',
}  # fmt: skip
NOTHING = 'nothing open'
Row = Mapping[str, Any]
Line = dict[str, dict[str, int]]  # {stage: {fate: boundaries}}


@styled
def diagram(rows: Sequence[Row], stages: Sequence[Mapping[str, Mapping[str, int]]]) -> Figure:
    """A panel for each backend, kernel and ring, a line in it for each policy, a column for each
    stage that a request was in when the device was stopped. The bar there: shares of boundaries by
    their worst fate.

    `rows` have the columns policy, backend, kernel, event_idx; `stages` has for each of them
    {stage: {fate: boundaries}}.
    """
    panels: dict[tuple[str, str], dict[str, Line]] = {}
    for row, found in zip(rows, stages, strict=True):
        line = panels.setdefault(panel_of(row), {}).setdefault(row['policy'], {})
        for stage, fates in found.items():
            cell = line.setdefault(stage, {})
            for fate, count in fates.items():
                cell[fate] = cell.get(fate, 0) + count
    seen = {stage for lines in panels.values() for line in lines.values() for stage in line}
    columns = [stage for stage in (NOTHING, *STAGES) if stage in seen]
    worlds = list(dict.fromkeys(world for world, _ in panels))
    rings = list(dict.fromkeys(ring for _, ring in panels))
    heights = [max(len(panels.get((world, ring), {})) for ring in rings) for world in worlds]
    figure = Figure(figsize=(1.6 + 6.2 * len(rings), 1.6 + sum(0.6 + 0.24 * h for h in heights)))
    grid = figure.subplots(len(worlds), len(rings), squeeze=False, height_ratios=heights)
    for axes_of_world, world in zip(grid, worlds, strict=True):
        for axes, ring in zip(axes_of_world, rings, strict=True):
            _panel(axes, panels.get((world, ring), {}), columns, f'{world}, {ring}')
    figure.suptitle(
        'How far an open request was when its device was stopped, and the worst that came of it\n'
        '(share of the boundaries that have such a request, and their number)'
    )
    told = {fate for lines in panels.values() for line in lines.values()
            for cell in line.values() for fate in cell}  # fmt: skip
    patches = [Patch(color=c, label=name) for name, c in FATE_COLOURS.items() if name in told]
    figure.legend(handles=patches, loc='outside lower center', ncols=len(patches))
    return figure


def panel_of(row: Row) -> tuple[str, str]:
    """Backend with kernel, and ring."""
    where = f'Linux {row["kernel"]}' if row['backend'] == 'vhost-scsi' else row['backend']
    return where, 'EVENT_IDX' if row['event_idx'] else 'flags'


def _panel(axes: Axes, lines: Mapping[str, Line], columns: list[str], title: str) -> None:
    """A stacked bar in each cell, with the number of boundaries in it."""
    for y, line in enumerate(lines.values()):
        for x, stage in enumerate(columns):
            cell = line.get(stage, {})
            total, left = sum(cell.values()), x + 0.04
            for fate, colour in FATE_COLOURS.items():
                width = 0.92 * cell.get(fate, 0) / total if total else 0
                if width:
                    axes.barh(y, width, left=left, height=0.8, color=colour)
                left += width
            if total:
                halo = [withStroke(linewidth=1.5, foreground='white')]
                axes.text(
                    x + 0.5, y, str(total), ha='center', va='center', fontsize=6, path_effects=halo
                )
    axes.set_xlim(0, len(columns))
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_yticks(range(len(lines)), list(lines))
    axes.set_xticks(np.arange(len(columns)) + 0.5, [name.replace(' ', '\n') for name in columns])
    axes.set_title(title, loc='left')
    axes.grid(False)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0)
