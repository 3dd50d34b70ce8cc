"""The command python -m sim compare: reads two sides, prints what sim.studies.compare finds."""

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from sim.formats.values import word
from sim.pools import open_pool
from sim.record import STAGES
from sim.studies.compare import compare, read_side

SHOWN = (
    'iops',
    *(f'latency_ns.{name}' for name in ('mean', 'p50', 'p90', 'p99', 'p999')),
    *(f'fio_lat_ns.{name}' for name in ('mean', 'p99')),
    'requests_per_kick',
    'requests_per_interrupt',
    'line_transfers_per_request',
    'busy.vcpu0',
    'busy.vhost',
    'busy.reactor',
    'busy.iothread',
)


def main(options: argparse.Namespace) -> int:
    """Compare; the exit code."""
    a = read_side(options.a, [*options.sets, *options.sets_a], options.seed)
    b = read_side(options.b, [*options.sets, *options.sets_b], options.seed)
    with open_pool(options.backend, options.jobs, options.scheduler) as pool:
        found = compare(
            a, b, pool, replications=options.replications, any_work=options.different_workloads
        )
    print(json.dumps(found) if options.json else printed(found))
    for broken in found['violations']:
        print(f'violation: {broken}', file=sys.stderr)
    return 1 if found['violations'] else 0


def printed(found: Mapping[str, Any]) -> str:
    """The comparison for people."""
    many = found['replications']
    lines = [f'A {found["a"]["id"]}   B {found["b"]["id"]}   {many} paired replications']
    lines += [
        f'  {name}: {word(first)} -> {word(second)}'
        for name, (first, second) in found['differs'].items()
    ]
    lines += ['  the two configs are the same'] if not found['differs'] else []
    lines += [f'note: {note}' for note in found['notes']]
    lines += ['', f'{"":26}{"A":>13}{"B":>13}   B against A']
    for name in SHOWN:
        if name in found['metrics']:
            lines.append(_row(name, found['metrics'][name]))
    return '\n'.join([*lines, *_requests(found['requests'])])


def _row(name: str, entry: Mapping[str, Any]) -> str:
    scale, label = 1.0, name
    if '_ns.' in name:
        scale, label = 1e3, f'{name.replace("_ns.", " ")}, µs'
    shown = (f'{entry[side] / scale:13,.2f}' for side in 'ab')
    return f'{label:26}{"".join(shown)}   {entry["verdict"]}'


def _requests(requests: Mapping[str, Any]) -> list[str]:
    """The paired requests: how many, how they differ, and in which stages."""
    if not requests['pairs']:
        return ['', requests['note']]
    shares, tails = requests['shares'], requests['percentiles_ns']
    lines = [
        '',
        f'{requests["pairs"]} pairs of requests ({requests["same"]:.1%} are the same in both): '
        f'{shares["faster"]:.1%} faster in B, {shares["equal"]:.1%} equal, '
        f'{shares["slower"]:.1%} slower',
        'difference B - A, µs: '
        + '  '.join(f'{name} {value / 1e3:+.2f}' for name, value in tails.items()),
        'mean difference by stage, µs (95 %):',
    ]
    for name in ('latency', *STAGES):
        entry = requests['differences'].get(f'{name}_ns')
        if entry is not None:
            half = '' if entry['low'] is None else f' ± {(entry["high"] - entry["mean"]) / 1e3:.3f}'
            lines.append(f'  {name:10} {entry["mean"] / 1e3:+9.3f}{half}')
    return lines
