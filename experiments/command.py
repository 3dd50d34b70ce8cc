"""What the experiments have in common: their command line, progress, errors, --json."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sim.errors import ConfigError

Experiment = Callable[[argparse.Namespace], dict[str, Any]]


def parser(name: str, docstring: str) -> argparse.ArgumentParser:
    """The options that every experiment has."""
    made = argparse.ArgumentParser(
        prog=f'python -m experiments.{name}',
        description=docstring,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument('config', nargs='?', help='a TOML config to start from')
    made.add_argument('--fio', metavar='JOB', help='a fio job file')
    made.add_argument('--device', metavar='STRING', help='a QEMU -device string')
    made.add_argument('--set', metavar='path=value', action='append', default=[], dest='sets')
    made.add_argument('--quick', action='store_true', help='fewer points, fewer requests')
    made.add_argument('--jobs', type=int, default=1, help='processes to run at once (default 1)')
    made.add_argument('--seed', type=int, help='run.seed')
    made.add_argument('--out', default=f'results/runs/{name}', help='folder for the results')
    made.add_argument('--json', action='store_true', help='print {config, seed, rows} only')
    return made


def sets_of(options: argparse.Namespace) -> list[str]:
    """The --set assignments, --seed among them."""
    seed = [] if options.seed is None else [f'run.seed={options.seed}']
    return [*options.sets, *seed]


def progress(done: int, total: int, label: str) -> None:
    """One line per finished point, for terminals and CI logs alike."""
    print(f'  {done}/{total}  {label}', file=sys.stderr, flush=True)


def main(options: argparse.Namespace, experiment: Experiment, show: Callable[..., None]) -> int:
    """Run an experiment; its exit code."""
    try:
        outcome = experiment(options)
    except ConfigError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            f'interrupted: finished points are kept in {options.out}; start again to go on',
            file=sys.stderr,
        )
        return 2
    if options.json:
        print(json.dumps({key: outcome[key] for key in ('config', 'seed', 'rows')}))
    else:
        show(outcome, Path(options.out))
    return 1 if outcome['violations'] else 0
