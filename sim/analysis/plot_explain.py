"""The figure of sim explain: what the slowest requests take more, and three requests as bars."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from sim.analysis.style import STAGE_COLOURS, clean, styled
from sim.record import STAGES


@styled
def explained(found: Mapping[str, Any]) -> Figure:
    """`found` as of sim.analysis.explain.explain(): times in ns there, µs here."""
    figure = Figure(figsize=(11, 4.6))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.3))
    rows = list(found['stages'].items())
    places = list(range(len(rows)))[::-1]
    widths = [entry['added'] / 1e3 for _, entry in rows]
    halves = [(entry['half_width'] or 0) / 1e3 for _, entry in rows]
    colours = [STAGE_COLOURS[stage] for stage, _ in rows]
    left.barh(places, widths, xerr=halves, color=colours, ecolor='#222222', capsize=2)
    left.set_yticks(places, [stage for stage, _ in rows])
    left.axvline(0, color='#222222', linewidth=0.8)
    left.set_xlabel('more than at the median, µs (95 % interval)')
    left.set_title(
        f'the slowest {found["share"]:.1%} take {found["latency"]["added"] / 1e3:.1f} µs more'
    )
    examples = list(found['examples'].items())
    for place, (_, example) in zip((2, 1, 0), examples, strict=True):
        begin = 0.0
        for stage in STAGES:
            width = example['stages_ns'][stage] / 1e3
            right.barh(place, width, left=begin, color=STAGE_COLOURS[stage], height=0.6)
            begin += width
    names = [f'{name}\nrequest {example["serial"]}' for name, example in examples]
    right.set_yticks((2, 1, 0), names)
    right.set_xlabel('since the arrival, µs')
    right.set_title('three requests, stage by stage')
    handles = [right.barh(0, 0, color=STAGE_COLOURS[stage]) for stage in STAGES]
    right.legend(handles, STAGES, ncols=5, loc='lower right', fontsize='small', framealpha=0.9)
    right.set_ylim(-1.1, 2.5)
    for axes in (left, right):
        clean(axes, 'x')
    return figure
