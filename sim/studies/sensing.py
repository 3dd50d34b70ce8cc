"""The command python -m sim sensitivity: the table of elasticities, and the guesses that matter."""

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from sim.config import load
from sim.options import config_sources
from sim.pools import open_pool
from sim.studies.sensitivity import MATTERS, OUTPUTS, sensitivity

FAINT = 0.005  # elasticities below this in every column are left out of the printed table


def main(options: argparse.Namespace) -> int:
    """Vary every cost; the exit code."""
    config = load(**config_sources(options), sets=options.sets)
    for note in config.notes:
        print(f'note: {note}', file=sys.stderr)
    with open_pool(options.backend, options.jobs, options.scheduler) as pool:
        found = sensitivity(
            config, pool, outputs=tuple(options.output) or OUTPUTS, step=options.step,
            replications=options.replications,
        )  # fmt: skip
    print(json.dumps(found) if options.json else printed(found))
    for broken in found['violations']:
        print(f'violation: {broken}', file=sys.stderr)
    return 1 if found['violations'] else 0


def printed(found: Mapping[str, Any]) -> str:
    """For people: elasticities, the largest first, then the guesses that matter."""
    outputs = list(found['base'])
    cells: dict[str, dict[str, Any]] = {}
    for row in found['rows']:
        cells.setdefault(row['cost'], {})[row['output']] = row

    def size(cost: str) -> float:
        return max((abs(row['elasticity'] or 0) for row in cells[cost].values()), default=0.0)

    shown = sorted((cost for cost in cells if size(cost) >= FAINT), key=lambda cost: -size(cost))
    wide = max((len(cost) for cost in cells), default=4)
    lines = [
        f'{found["runs"]} runs, {found["replications"]} paired replications, each cost ± '
        f'{found["step"]:.0%}; elasticity: 0.5 is half a percent per percent',
        f'{"cost":{wide}} grade ' + ''.join(f'{_short(output):>16}' for output in outputs),
        f'{"":{wide}}       ' + ''.join(f'{_value(o, found["base"][o]):>16}' for o in outputs),
    ]
    for cost in shown:
        row = cells[cost]
        grade = next(iter(row.values()))['grade']
        lines.append(
            f'{cost:{wide}}   {grade}   ' + ''.join(f'{_cell(row.get(o)):>16}' for o in outputs)
        )
    hidden = len(cells) - len(shown)
    if hidden:
        lines.append(f'({hidden} further costs move nothing by as much as {FAINT} of themselves)')
    lines.append('')
    if found['guesses']:
        lines.append(
            f'guesses (grade C) that move a result by more than {MATTERS:.0%} over their range:'
        )
        for guess in found['guesses']:
            ends = ['-' if guess[end] is None else f'{guess[end]:+.1%}' for end in ('low', 'high')]
            lines.append(
                f'  {guess["cost"]:{wide}} {_short(guess["output"]):16} {ends[0]} at its least, '
                f'{ends[1]} at its most'
            )
    else:
        lines.append(f'no guess (grade C) moves a result by more than {MATTERS:.0%} over its range')
    return '\n'.join([*lines, *(f'note: {note}' for note in found['notes'])])


def _short(output: str) -> str:
    names = {'requests_per_kick': 'req/kick', 'requests_per_interrupt': 'req/irq'}
    return names.get(output, output.replace('latency_ns.', '').replace('_ns.', ' '))


def _value(output: str, value: float) -> str:
    return f'{value / 1e3:.1f} µs' if '_ns.' in output else f'{value:,.4g}'


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None or row['elasticity'] is None:
        return '-'
    half = '' if not row['half_width'] else f' ± {row["half_width"]:.2f}'
    return f'{row["elasticity"]:+.2f}{half}'
