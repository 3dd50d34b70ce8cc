"""The figure of the scenarios of record: what each does to the guest, and what is left of it."""

from textwrap import fill

import pandas as pd
from matplotlib.figure import Figure

from sim.analysis.style import COLOURS, clean, styled


@styled
def incidents(table: pd.DataFrame) -> Figure:
    """A row per scenario, a column per harm: full where it is done, a ring where it is done without
    the mechanism, too.

    `table`: columns scenario, harms and without_harms (texts, joined by '; ').
    """
    names = list(table['scenario'])
    done_to = [harm for cell in table['harms'] for harm in cell.split('; ')]
    columns = [*dict.fromkeys(['none', *done_to])]
    figure = Figure(figsize=(11, 0.42 * len(names) + 1.8))
    axes = figure.subplots()
    for row, line in enumerate(table.itertuples(index=False)):
        done = str(line.harms).split('; ')
        left = str(line.without_harms or '').split('; ')
        for place, harm in enumerate(columns):
            if harm in done:
                axes.plot(place - 0.12, row, 'o', color=COLOURS[1], markersize=11)
            if harm in left:
                axes.plot(place + 0.12, row, 'o', color=COLOURS[0], markersize=11, fillstyle='none')
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks(range(len(columns)), [fill(harm, 12) for harm in columns])
    axes.xaxis.tick_top()
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    clean(axes)
    kinds = {'as it was': (COLOURS[1], 'full')}
    if table['without_harms'].notna().any():
        kinds['with its mechanism taken out'] = (COLOURS[0], 'none')
    for label, (colour, fill_style) in kinds.items():
        axes.plot([], [], 'o', color=colour, markersize=9, fillstyle=fill_style, label=label)
    axes.legend(loc='upper center', bbox_to_anchor=(0.4, -0.01), ncols=2)
    figure.suptitle('Incidents of stops and migrations: what each does to the guest')
    return figure
