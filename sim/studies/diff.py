"""python -m sim diff A B: two runs under the same random numbers, request by request.

Where sim compare asks how sure a difference is, this asks where it is: which requests, which
stages, and from which request on the runs differ at all. It is one pair of runs: nothing is said of
chance.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sim.analysis import stats
from sim.errors import ConfigError
from sim.folders import check_file
from sim.record import STAGES
from sim.studies.compare import Side, differing, differing_work, paired_frame, read_side
from sim.studies.explaining import requests_of, us

TIMES = ('latency_ns', *(f'{stage}_ns' for stage in STAGES))
PAIRS = ('.csv', '.parquet')
PERCENTILES = (0, 1, 10, 50, 90, 99, 100)


def main(options: argparse.Namespace) -> int:
    """Compare; the exit code."""
    if options.show < 0:
        raise ConfigError(f'--show {options.show}: give how many requests to show, 0 for none')
    if options.out is not None:
        check_file('--out', options.out, PAIRS)
    a = read_side(options.a, [*options.sets, *options.sets_a], options.seed)
    b = read_side(options.b, [*options.sets, *options.sets_b], options.seed)
    found, pairs = diff(a, b, most=options.show, any_work=options.different_workloads)
    if options.out is not None:
        write(pairs, Path(options.out))
    print(json.dumps(found) if options.json else printed(found))
    return 0


def diff(
    a: Side, b: Side, *, most: int = 3, any_work: bool = False
) -> tuple[dict[str, Any], pd.DataFrame]:
    """What differs, as plain data, and the frame of the pairs (columns of both with _a and _b).

    `most`: how many of the requests that gained and lost most are shown. Errors: ConfigError.
    """
    work = differing_work(a.config, b.config)
    if work and not any_work:
        raise ConfigError(
            f'A and B do not issue the same requests ({"; ".join(work)}): make them alike, or add '
            '--different-workloads to compare anyway'
        )
    notes = [f'not the same work: {text}' for text in work]
    seed = a.config.run.seed
    if b.config.run.seed != seed:
        notes.append(f'B is run under the seed of A, {seed}, not {b.config.run.seed}')
        b = Side(config=replace(b.config, run=replace(b.config.run, seed=seed)))
    pairs, alike = paired_frame(requests_of(a), requests_of(b))
    if pairs.empty:
        raise ConfigError('there are no requests that both have kept, measured and issued')
    delta = pd.DataFrame(
        {name: (pairs[f'{name}_b'] - pairs[f'{name}_a']).astype('Int64') for name in TIMES}
    )
    latency = delta['latency_ns'].to_numpy(dtype=np.int64)
    order = np.argsort(latency, kind='stable')
    first = np.flatnonzero((delta.fillna(0) != 0).any(axis=1).to_numpy())
    found = {
        'a': a.config.id,
        'b': b.config.id,
        'differs': differing(a.config, b.config),
        'notes': notes,
        'pairs': len(pairs),
        'same': alike,
        'first_difference': _shown(pairs, delta, int(first[0])) if first.size else None,
        'percentiles_ns': {f'p{q}': int(stats.percentile(latency, q)) for q in PERCENTILES},
        'groups': {
            name: _group(delta[chosen])
            for name, chosen in (
                ('all', np.ones(len(pairs), dtype=bool)),
                ('slower', latency > 0),
                ('faster', latency < 0),
                ('equal', latency == 0),
            )
        },
        'slowed_most': [_shown(pairs, delta, int(i)) for i in order[::-1][:most] if latency[i] > 0],
        'gained_most': [_shown(pairs, delta, int(i)) for i in order[:most] if latency[i] < 0],
    }
    return found, pairs


def _group(delta: pd.DataFrame) -> dict[str, Any]:
    """How many, the mean difference of their latencies and, summing up to it, of their stages."""
    count = max(len(delta), 1)
    means = {name.removesuffix('_ns'): int(delta[name].sum()) / count for name in TIMES}
    latency = means.pop('latency')
    return {'pairs': len(delta), 'latency_ns': latency, 'stages_ns': means}


def _shown(pairs: pd.DataFrame, delta: pd.DataFrame, place: int) -> dict[str, Any]:
    """One pair: what the request was, both latencies, the differences of its stages."""
    row, change = pairs.iloc[place], delta.iloc[place].fillna(0)
    return {
        'serial': int(row['serial_a']),
        'clone': int(row['clone']),
        'nth': int(row['nth']),
        'op': str(row['op_a']),
        'lba': int(row['lba_a']),
        'latency_a_ns': int(row['latency_ns_a']),
        'latency_b_ns': int(row['latency_ns_b']),
        'stages_ns': {stage: int(change[f'{stage}_ns']) for stage in STAGES},
    }


def write(pairs: pd.DataFrame, path: Path) -> None:
    """The pairs as .csv or .parquet. Errors: ConfigError."""
    check_file('--out', path, PAIRS)
    try:
        if path.suffix == '.parquet':
            pairs.to_parquet(path)
        else:
            pairs.to_csv(path, index=False)
    except OSError as error:
        raise ConfigError(f'{path}: cannot be written ({error.strerror or error})') from error


def printed(found: Mapping[str, Any]) -> str:
    """What a person wants to see."""
    groups, spread = found['groups'], found['percentiles_ns']
    lines = [f'A {found["a"]}   B {found["b"]}']
    lines += [f'  {name}: {a} -> {b}' for name, (a, b) in found['differs'].items()]
    lines += [f'note: {note}' for note in found['notes']]
    lines += [
        f'{found["pairs"]} pairs ({found["same"]:.1%} of the requests are the same in both): '
        f'{groups["slower"]["pairs"]} slower in B, {groups["faster"]["pairs"]} faster, '
        f'{groups["equal"]["pairs"]} equal',
        'B - A, µs: ' + '  '.join(f'{q} {ns / 1e3:+.2f}' for q, ns in spread.items()),
        '',
        f'{"mean B - A, µs":16}{"all":>10}{"slower":>10}{"faster":>10}',
    ]
    shown = ('all', 'slower', 'faster')
    lines.append(
        f'{"latency":16}' + ''.join(f'{groups[g]["latency_ns"] / 1e3:>+10.3f}' for g in shown)
    )
    for stage in STAGES:
        row = [groups[g]['stages_ns'][stage] / 1e3 for g in shown]
        if any(row):
            lines.append(f'  {stage:14}' + ''.join(f'{value:>+10.3f}' for value in row))
    first = found['first_difference']
    lines.append('')
    if first is None:
        lines.append('no request differs in anything')
        return '\n'.join(lines)
    lines.append('first to differ  ' + _line(first))
    for name, title in (('slowed_most', 'slowed most'), ('gained_most', 'gained most')):
        lines += [f'{title:17}{_line(row)}' for row in found[name]]
    return '\n'.join(lines)


def _line(row: Mapping[str, Any]) -> str:
    moved = sorted(row['stages_ns'].items(), key=lambda item: -abs(item[1]))
    stages = '  '.join(f'{stage} {ns / 1e3:+.2f}' for stage, ns in moved[:3] if ns)
    return (
        f'request {row["serial"]} ({row["op"]} at {row["lba"]}): {us(row["latency_a_ns"])} -> '
        f'{us(row["latency_b_ns"])} µs: {stages}'
    )
