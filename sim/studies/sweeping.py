"""python -m sim sweep: a config over the product of some of its keys' values."""

import argparse
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sim.config import Config, load
from sim.errors import ConfigError, shown
from sim.options import config_sources
from sim.progress import Progress
from sim.sweep import Outcome, load_report, run_points

TIMES = (
    'latency_ns.mean', 'latency_ns.p50', 'latency_ns.p99', 'latency_ns.p999', 'fio_lat_ns.mean',
    'fio_lat_ns.p99',
)  # fmt: skip
COLUMNS = ('iops', *TIMES, 'requests_per_kick', 'requests_per_interrupt')


def main(options: argparse.Namespace) -> int:
    """Run the sweep, print its table; the exit code."""
    axes = axes_of(options.over)
    sets = list(options.sets)
    sets += [f'run.seed={options.seed}'] if options.seed is not None else []

    def at(values: Sequence[str]) -> Config:
        over = [f'{path}={value}' for path, value in zip(axes, values, strict=True)]
        return load(**config_sources(options), sets=[*sets, *over])

    base = load(**config_sources(options), sets=sets)
    points = list(itertools.product(*axes.values()))
    configs = [at(point) for point in points]
    for note in dict.fromkeys(note for config in configs for note in config.notes):
        print(f'note: {note}', file=sys.stderr)
    progress = Progress()
    try:
        outcome = run_points(
            configs,
            options.out,
            jobs=options.jobs,
            backend=options.backend,
            scheduler=options.scheduler,
            shard=options.shard,
            watch=progress,
        )
    except KeyboardInterrupt:
        print(
            f'interrupted: finished points are kept in {options.out}; start again to go on',
            file=sys.stderr,
        )
        return 2
    finally:
        progress.close()
    rows = [
        dict(zip(axes, point, strict=True)) | row_of(place, options.show)
        for point, place in zip(points, outcome.places, strict=True)
        if place is not None
    ]
    table = pd.DataFrame(rows)
    table.to_csv(Path(options.out) / 'sweep.csv', index=False)
    found = [(c, p) for c, p in zip(configs, outcome.places, strict=True) if p is not None]
    draw(Path(options.out) / 'sweep.png', table, [config for config, _ in found], list(axes))
    if options.json:
        failed = [vars(failure) | {'place': str(failure.place)} for failure in outcome.failures]
        print(
            json.dumps(
                {'config': base.effective(), 'seed': base.run.seed, 'rows': rows, 'failed': failed}
            )
        )
    else:
        print(printed(table, list(axes)))
        print(f'\ntable    {Path(options.out) / "sweep.csv"}')
        if rows:
            print(f'figure   {Path(options.out) / "sweep.png"}')
    return report(outcome, options.out)


def draw(path: Path, table: pd.DataFrame, configs: Sequence[Config], axes: Sequence[str]) -> None:
    """The figure, with the bounds and the mean-value analysis of every point's own costs."""
    if table.empty or table['iops'].isna().all():
        return
    from sim.analysis import plot, plot_sweep
    from sim.analysis.bounds import said_by_theory

    shown_rows = table.assign(fio_lat_us=table['fio_lat_ns.mean'].astype(float) / 1e3)
    theory = pd.DataFrame([said_by_theory(config) for config in configs], index=table.index)
    figure = plot_sweep.sweep(shown_rows, theory.astype(float), axes, 'sweep: ' + ' × '.join(axes))
    plot.save(figure, path)


def axes_of(over: Sequence[str]) -> dict[str, list[str]]:
    """The values of each key: 'workload.iodepth=1,2,4'; with ';' where a value holds a comma."""
    axes: dict[str, list[str]] = {}
    for text in over:
        path, equals, values = text.partition('=')
        found = [value.strip() for value in values.split(';' if ';' in values else ',')]
        if not equals or not all(found):
            raise ConfigError(
                f'--over {shown(text)}: write section.key=value,value as in workload.iodepth=1,2,4'
            )
        if path in axes:
            raise ConfigError(f'--over {shown(text)}: {path} is given twice; keep one')
        axes[path] = found
    if not axes:
        raise ConfigError('--over: say what to vary, as in --over workload.iodepth=1,2,4')
    return axes


def row_of(place: Path, shown_too: Sequence[str]) -> dict[str, Any]:
    """The numbers of a point, by their dotted names."""
    report = load_report(place)
    values = {metric: value_at(report, metric) for metric in (*COLUMNS, *shown_too)}
    bounds = {f'{metric}.interval': report['intervals']['values'].get(metric) for metric in values}
    return {
        **values,
        **{name: bound for name, bound in bounds.items() if bound is not None},
        'violations': len(report['violations']),
        'id': report['id'],
        'digest': report['digest'],
    }


def value_at(report: Mapping[str, Any], metric: str) -> Any:
    """The number under a dotted name; None if it is not reported. ConfigError if there is none."""
    value: Any = report
    for key in metric.split('.'):
        if not isinstance(value, Mapping) or key not in value:
            if metric in COLUMNS:  # nothing was completed
                return None
            raise ConfigError(f'--show {metric}: no such number; summary.csv lists what there is')
        value = value[key]
    if isinstance(value, Mapping | list):
        raise ConfigError(f'--show {metric}: is no number; summary.csv lists what there is')
    return value


def printed(table: pd.DataFrame, axes: Sequence[str]) -> str:
    """The table for people: times in µs, short names of keys, '-' for what is not reported."""
    if table.empty:
        return 'no point is there'
    numbers = [c for c in table.columns if not c.endswith(('.interval', 'id', 'digest'))]
    table = table[numbers].replace({None: float('nan')})
    times = [name for name in numbers if '_ns.' in name]
    table[times] = (table[times].astype(float) / 1e3).round(2)
    table['iops'] = table['iops'].astype(float).round().astype('Int64')
    names = {name: name.rpartition('.')[2] for name in axes}
    names |= {name: name.replace('latency_ns.', '').replace('_ns.', '_') + '_us' for name in times}
    rounded = table.round(2).rename(columns=names)
    return str(rounded.to_string(index=False, na_rep='-'))


def report(outcome: Outcome, folder: str) -> int:
    """Say what failed and what is another shard's; the exit code."""
    for failure in outcome.failures:
        print(f'failed: {failure}', file=sys.stderr)
    if outcome.left_out:
        missing = outcome.places.count(None)
        print(
            f'{outcome.left_out} points belong to other shards, {missing} are not in {folder} yet',
            file=sys.stderr,
        )
    return 1 if outcome.failures else 0
