"""The phase diagram of a search over boundaries: what came of a hand-over, by where it began."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sim.analysis.style import styled
from sim.record import STAGES

# The worst last: it is drawn at the right end of a bar. Colours that colour-blind readers can part.
FATE_COLOURS = {
    'clean': '#cfe3d6', 'stalled': '#F0E442', 'failed_io': '#E69F00', 'stranded': '#0072B2',
    'broken': '#4d4d4d', 'stale': '#CC79A7', 'lost': '#D55E00', 'doubled': '#882255',
}  # fmt: skip
NOTHING = 'nothing open'
Row = Mapping[str, Any]
Line = Mapping[str, Mapping[str, int]]


@styled
def diagram(rows: Sequence[Row], stages: Sequence[Line]) -> Figure:
    """A line for each policy, backend, kernel and ring; a column for each stage that a request was
    in when the device was stopped; the bar in it: shares of boundaries by their worst fate.

    `rows` have the columns policy, backend, kernel, event_idx; `stages` for each of them
    {stage: {fate: boundaries}}.
    """
    table: dict[str, dict[str, dict[str, int]]] = {}
    for row, found in zip(rows, stages, strict=True):
        line = table.setdefault(label_of(row), {})
        for stage, fates in found.items():
            cell = line.setdefault(stage, {})
            for fate, count in fates.items():
                cell[fate] = cell.get(fate, 0) + count
    columns = [s for s in (NOTHING, *STAGES) if any(s in line for line in table.values())]
    figure = Figure(figsize=(2.6 + 1.25 * len(columns), 1.9 + 0.3 * len(table)))
    axes = figure.subplots()
    _cells(axes, list(table.values()), columns)
    axes.set_yticks(range(len(table)), list(table))
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns)
    axes.xaxis.tick_top()
    axes.set_title('how far an open request was when its device was stopped\n(share of boundaries '
                   'that have one, by the worst that came of it, and their number)')  # fmt: skip
    seen = {fate for line in table.values() for cell in line.values() for fate in cell}
    patches = [Patch(color=c, label=name) for name, c in FATE_COLOURS.items() if name in seen]
    figure.legend(handles=patches, loc='outside lower center', ncols=len(patches))
    return figure


def label_of(row: Row) -> str:
    """The name of a line."""
    ring = 'EVENT_IDX' if row['event_idx'] else 'flags'
    where = f'Linux {row["kernel"]}' if row['backend'] == 'vhost-scsi' else row['backend']
    return f'{row["policy"]}, {where}, {ring}'


def _cells(axes: Axes, lines: Sequence[Line], columns: list[str]) -> None:
    """A stacked bar in each cell, with the number of boundaries in it."""
    for y, line in enumerate(lines):
        for x, stage in enumerate(columns):
            cell = line.get(stage, {})
            total, left = sum(cell.values()), x + 0.04
            for fate, colour in FATE_COLOURS.items():
                width = 0.92 * cell.get(fate, 0) / total if total else 0
                if width:
                    axes.barh(y, width, left=left, height=0.8, color=colour)
                left += width
            if total:
                axes.text(x + 0.5, y, str(total), ha='center', va='center', fontsize=6)
    axes.set_xlim(0, len(columns))
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.grid(False)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0)
