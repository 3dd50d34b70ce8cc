"""Figures of single requests: the life of one, and what a stop does to those in flight."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sim.analysis.style import LATENCY, STAGE_COLOURS, clean, styled
from sim.analysis.timeline import Action, Slice, Timeline
from sim.record import STAGES, TIMESTAMPS

NS_PER_MS = 1e6
MARGIN = 0.12  # before and after, in standstills
STANDSTILL = ('stopped', 'switch-over on the source', 'start on the destination')


@styled
def anatomy(found: Timeline, serial: int, title: str) -> Figure:
    """The life of request `serial`: a row for each stage, and who had the request then.

    A stage that took no time has no row. Times are since the arrival.
    """
    mine: list[tuple[str, str, Slice]] = [
        (track.group, track.name.partition(' #')[0], part)
        for track in found.tracks
        for part in track.slices
        if part.serial == serial
    ]
    mine.sort(key=lambda entry: entry[2].start)
    begin, end = mine[0][2].start, mine[-1][2].end
    figure = Figure(figsize=(11, 0.42 * len(mine) + 1.6))
    axes = figure.subplots()
    for place, (_, _, part) in enumerate(mine):
        left, width = (part.start - begin) / 1e3, (part.end - part.start) / 1e3
        axes.barh(place, width, left=left, color=STAGE_COLOURS[part.name], height=0.8)
        axes.plot([left, left], [place - 1, place + 0.4], color='#888888', linewidth=0.7)
        axes.annotate(
            f'{width:.2f} µs', (left + width, place), xytext=(4, 0), textcoords='offset points',
            va='center', fontsize=8,
        )  # fmt: skip
    axes.set_yticks(range(len(mine)), [f'{part.name}:  {who}' for _, who, part in mine])
    _bands(axes, [group for group, _, _ in mine])
    axes.set_ylim(len(mine) - 0.5, -0.5)
    axes.set_xlim(0, (end - begin) / 1e3 * 1.08)
    axes.set_xlabel(f'{LATENCY} (µs); in all {(end - begin) / 1e3:.2f} µs')
    clean(axes, 'x')
    figure.suptitle(title)
    return figure


def _bands(axes: Axes, groups: Sequence[str]) -> None:
    """Behind every second stretch of rows of one group a grey band, at its right end its name."""
    first, stretch = 0, 0
    for place in range(1, len(groups) + 1):
        if place < len(groups) and groups[place] == groups[first]:
            continue
        if stretch % 2 == 0:
            axes.axhspan(first - 0.5, place - 0.5, color='#f3f3f3', zorder=0)
        axes.annotate(
            groups[first], (1.0, (first + place - 1) / 2), xytext=(6, 0),
            xycoords=axes.get_yaxis_transform(), textcoords='offset points', va='center',
            fontsize=9, color='#666666',
        )  # fmt: skip
        first, stretch = place, stretch + 1


@styled
def around_a_stop(requests: pd.DataFrame, actions: Sequence[Action], title: str) -> Figure:
    """Every request near a stop, a line each from its arrival on, with its stages in their colours.

    `requests` and `actions` as sim.exports.watched has them. Above the requests the ioctls; grey:
    from the pause of the vCPUs until they go on, in a migration on the destination.
    """
    still = [action for action in actions if action.name in STANDSTILL]
    begin, end = min(span.start for span in still), max(span.end for span in still)
    margin = MARGIN * (end - begin)
    since, until = begin - margin, end + margin
    ends = requests['t_complete_ns'].fillna(until)
    near = requests[(ends >= begin - margin / 4) & (requests['t_arrive_ns'] <= end + margin / 4)]
    figure = Figure(figsize=(11, 6.2))
    above, axes = figure.subplots(2, 1, sharex=True, height_ratios=(1, 4.5))
    for place, (_, row) in enumerate(near.iterrows()):
        times = [row[f'{name}_ns'] for name in TIMESTAMPS]
        for stage, first, last in zip(STAGES, times[:-1], times[1:], strict=True):
            if pd.notna(first) and pd.notna(last) and last > first:
                bar = [((first - begin) / NS_PER_MS, (last - first) / NS_PER_MS)]
                axes.broken_barh(bar, (place - 0.4, 0.8), color=STAGE_COLOURS[stage])
    _control(above, [a for a in actions if a.start >= begin and a.end <= end], begin, end)
    for panel in (above, axes):
        panel.axvspan(0, (end - begin) / NS_PER_MS, color='#eeeeee', zorder=0)
        clean(panel, 'x')
    axes.set_ylim(len(near) - 0.5, -0.5)
    axes.set_xlim((since - begin) / NS_PER_MS, (until - begin) / NS_PER_MS)
    axes.set(ylabel='requests, as they arrived', yticks=[])
    axes.set_xlabel('since the vCPUs paused (ms); grey: the VM stands still')
    handles = [Patch(color=STAGE_COLOURS[stage]) for stage in STAGES]
    figure.legend(handles, STAGES, loc='outside lower center', ncols=10)
    figure.suptitle(title)
    return figure


def _control(axes: Axes, actions: Sequence[Action], begin: int, end: int) -> None:
    """What took a fiftieth of the standstill or more, with names; the other ioctls as ticks."""
    least = (end - begin) / 50
    shown = [a for a in actions if a.end - a.start >= least and a.name != 'stopped']
    shown.sort(key=lambda action: (action.start, -action.end))
    for action in actions:
        if action.name == 'stopped':
            continue
        left, width = (action.start - begin) / NS_PER_MS, (action.end - action.start) / NS_PER_MS
        place = shown.index(action) if action in shown else len(shown)
        colour = '#222222' if action.name not in STANDSTILL else '#888888'
        axes.barh(place, max(width, 1e-3), left=left, color=colour, height=0.6)
        if action in shown:
            late = action.start > (begin + end) / 2
            name = action.name.replace('VHOST_', '').replace('SCSI_', '')
            axes.annotate(
                f'{name} {width:.1f} ms', (left if late else left + width, place),
                xytext=(-4 if late else 4, 0), textcoords='offset points', va='center', fontsize=8,
                ha='right' if late else 'left',
            )  # fmt: skip
    axes.set(ylim=(len(shown) + 0.6, -0.6), yticks=[], ylabel='QEMU')
