"""The figure of a calibration: how much each set of measurements says about each parameter."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sim.analysis.style import COLOURS, clean, plain_log_axis, styled


@styled
def what_data_tell(
    fits: Mapping[str, Mapping[str, Any]], truth: Mapping[str, float], title: str
) -> Figure:
    """A panel for each parameter: by data, the fitted value and its 95 % interval.

    `fits`: by the name of the data, what sim.studies.calibrate.calibrate() found, all for the same
    parameters; an end that is not bounded is an arrow to the end of the range, which the axis
    spans. `truth`: by parameter, the value where it is known (a dashed line).
    """
    names = [one['parameter'] for one in next(iter(fits.values()))['fitted']]
    figure = Figure(figsize=(1.5 + 4.4 * len(names), 1.6 + 0.55 * len(fits)))
    panels: Sequence[Axes] = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for column, (axes, name) in enumerate(zip(panels, names, strict=True)):
        for place, found in enumerate(fits.values()):
            _interval(axes, place, found['fitted'][column])
        unit = next(iter(fits.values()))['fitted'][column]['unit']
        label = 'µs, logarithmic' if unit == 'ns' else f'{unit}, logarithmic'
        axes.set(xscale='log', title=name, xlabel=f'fitted value, 95 % interval ({label})')
        scale = 1e3 if unit == 'ns' else 1
        low, high = (end / scale for end in next(iter(fits.values()))['fitted'][column]['range'])
        axes.set_xlim(low / 1.1, high * 1.1)
        ticks = [m * 10**e for e in range(-6, 10) for m in (1, 2, 5)]
        plain_log_axis(axes, [tick for tick in ticks if low <= tick <= high], 'x')
        if name in truth:
            axes.axvline(truth[name] / scale, color='black', linestyle='--', linewidth=1)
        clean(axes, 'x')
    panels[0].set_yticks(range(len(fits)), list(fits))
    panels[0].set_ylim(len(fits) - 0.5, -0.5)
    figure.suptitle(title)
    return figure


def _interval(axes: Axes, place: int, one: Mapping[str, Any]) -> None:
    """One parameter by one set of data."""
    scale, colour = 1e3 if one['unit'] == 'ns' else 1, COLOURS[place % len(COLOURS)]
    bounds = zip(one['interval'], one['range'], strict=True)
    ends = [(end if known is None else known) / scale for known, end in bounds]
    axes.plot(ends, [place, place], color=colour, linewidth=4, alpha=0.6, solid_capstyle='butt')
    for end, known, arrow in zip(ends, one['interval'], '<>', strict=True):
        axes.plot(end, place, color=colour, marker=arrow if known is None else '|', markersize=10)
    axes.plot(one['value'] / scale, place, color=colour, marker='o')
    words = [] if one['bounded'] else ['not bounded']
    axes.annotate(
        ' '.join(words), (ends[1], place), xytext=(-8, 8), textcoords='offset points', fontsize=8,
        ha='right',
    )  # fmt: skip
