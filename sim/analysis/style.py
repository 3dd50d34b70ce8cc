"""How figures look: one style sheet (figures.mplstyle), one colour for each stage, intervals drawn.

Colours are Okabe and Ito's (Color Universal Design, 2008) and two more for the ten stages; which of
them stand side by side is chosen so that colour-blind readers can tell them apart.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from sim.record import STAGES

SHEET = Path(__file__).parent / 'figures.mplstyle'
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
STAGE_COLOURS = dict(
    zip(
        STAGES,
        (
            '#c4c4c4', '#0072B2', '#56B4E9', '#D55E00', '#E69F00', '#262626', '#F0E442', '#009E73',
            '#CC79A7', '#882255',
        ),
        strict=True,
    )
)  # fmt: skip
GRID_COLOUR = '#dddddd'
MARKERS = ('o', 's', '^', 'D', 'v', 'P')
MEASURED: dict[str, Any] = {  # what others measured: black, hollow, above the lines
    'color': 'black', 'linestyle': '', 'markerfacecolor': 'white', 'zorder': 4,
}  # fmt: skip
LATENCY = 'latency, arrival to completion'  # in the guest's driver
FIO_LATENCY = "fio's lat, arrival until reaped"
TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)

P = ParamSpec('P')
R = TypeVar('R')


@functools.cache
def sheet() -> Any:
    """The style sheet as matplotlib reads it."""
    return matplotlib.rc_params_from_file(SHEET, use_default_template=False)


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose figures have the style, whatever the caller's settings are."""

    @functools.wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(sheet()):
            return function(*args, **kwargs)

    return inside


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG at 150 dpi."""
    figure.savefig(path, dpi=150)
    return Path(path)


def clean(axes: Axes, axis: str = 'both') -> None:
    """Gridlines of one axis only, where bars or labels make the other's superfluous."""
    if axis != 'both':
        axes.grid(False)
        axes.grid(True, axis=axis)  # type: ignore[arg-type]


def plain_log_axis(axes: Axes, values: Sequence[float], which: str) -> None:
    """Ticks at these values only, as plain numbers, on the x or y axis."""
    axis = axes.xaxis if which == 'x' else axes.yaxis
    axis.set_major_locator(FixedLocator(list(values)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))


def intervals(table: pd.DataFrame, name: str, scale: float = 1.0) -> Any:
    """Error bars of a column: (2, rows), distances to its columns name_low and name_high.

    None where the table has no such columns; no bar where an end is unknown.
    """
    if f'{name}_low' not in table:
        return None
    value, low, high = (table[f'{name}{end}'].astype(float) for end in ('', '_low', '_high'))
    ends = pd.concat([value - low, high - value], axis=1)
    return ends.fillna(0).clip(lower=0).to_numpy().T / scale


def lighter(colour: str, share: float = 0.45) -> str:
    """A colour mixed with white: `share` of it is left."""
    red, green, blue = (1 - share * (1 - part) for part in to_rgb(colour))
    return to_hex((red, green, blue))
