"""What theory says, drawn in one way in every figure: bounds dashed, expectations dotted, a band.

The data are rows of sim.analysis.bounds.said_by_theory(); what is missing there is not drawn.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

ASYMPTOTIC = 'asymptotic bound'
BALANCED = 'balanced bounds'
MVA = 'mean-value analysis, nothing shared'
NAMES = (BALANCED, MVA, ASYMPTOTIC)
LINES: Mapping[str, tuple[str, dict[str, Any]]] = {  # ending of a column: (name, style)
    'mva': (MVA, {'linestyle': ':', 'linewidth': 1.3}),
    'bound': (ASYMPTOTIC, {'linestyle': '--', 'linewidth': 1.0}),
}


def throughput(
    axes: Axes,
    x: Sequence[float] | pd.Series,
    theory: pd.DataFrame,
    *,
    colour: str = 'black',
    scale: float = 1e3,
    label: str | None = '{}',
) -> None:
    """IOPS / scale: the band between the balanced bounds, mean-value analysis, asymptotic bound.

    `label` says how the names stand in a legend; None: not at all.
    """
    low, high = (theory[f'balanced_{end}_iops'].astype(float) / scale for end in ('low', 'high'))
    if low.notna().all() and len(low) > 1:
        named = None if label is None else label.format(BALANCED)
        axes.fill_between(x, low, high, color=colour, alpha=0.1, linewidth=0, label=named)
    _lines(axes, x, theory, 'iops', scale, colour, label)


def latency(
    axes: Axes,
    x: Sequence[float] | pd.Series,
    theory: pd.DataFrame,
    *,
    colour: str = 'black',
    label: str | None = '{}',
) -> None:
    """Mean latency in µs, of a closed loop up to the reaping."""
    _lines(axes, x, theory, 'us', 1.0, colour, label)


def _lines(
    axes: Axes,
    x: Sequence[float] | pd.Series,
    theory: pd.DataFrame,
    unit: str,
    scale: float,
    colour: str,
    label: str | None,
) -> None:
    for which, (name, style) in LINES.items():
        values = theory[f'{which}_{unit}'].astype(float) / scale
        if values.notna().all():
            axes.plot(
                x, values, color=colour, marker='_' if len(values) == 1 else '',
                label=None if label is None else label.format(name), **style,
            )  # fmt: skip


def handles(colour: str = 'black') -> list[Artist]:
    """For a legend of a whole figure: band, mean-value analysis, bound."""
    lines = [Line2D([], [], color=colour, label=name, **style) for name, style in LINES.values()]
    return [Patch(facecolor=colour, alpha=0.15, label=BALANCED), *lines]


BARS: dict[str, dict[str, Any]] = {
    'mva': {'marker': 'x', 'markersize': 5, 'markeredgewidth': 1.2},
    'bound': {'marker': '|', 'markersize': 11, 'markeredgewidth': 1.2},
}
GREY = '#777777'


def bars(axes: Axes, places: np.ndarray, theory: pd.DataFrame, unit: str, scale: float) -> None:
    """The same over horizontal bars, of IOPS (unit iops) or latency (us): band, cross and tick."""
    if unit == 'iops':
        for place, (_, row) in zip(places, theory.iterrows(), strict=True):
            ends = [float(row[f'balanced_{end}_iops']) / scale for end in ('low', 'high')]
            axes.plot(
                ends, [place, place], color=GREY, linewidth=3, alpha=0.6, zorder=2.5, marker='',
                solid_capstyle='butt',
            )  # fmt: skip
    for which, style in BARS.items():
        values = theory[f'{which}_{unit}'].astype(float) / scale
        axes.plot(values, places, linestyle='', color=GREY, zorder=3, **style)


def bar_handles() -> list[Artist]:
    """For the legend of such a figure."""
    named = {'mva': MVA, 'bound': ASYMPTOTIC}
    band = Line2D([], [], color=GREY, linewidth=3, alpha=0.6, label=BALANCED)
    marks = [
        Line2D([], [], color=GREY, linestyle='', label=named[which], **style)
        for which, style in BARS.items()
    ]
    return [band, *marks]
