"""What the experiments have in common: their command line, progress, errors, --json."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sim.errors import ConfigError, UnfinishedError
from sim.options import add_config, add_sweep

Experiment = Callable[[argparse.Namespace], dict[str, Any]]


def parser(name: str, docstring: str) -> argparse.ArgumentParser:
    """The options that every experiment has."""
    made = argparse.ArgumentParser(
        prog=f'python -m experiments.{name}',
        description=docstring,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config(made)
    made.add_argument('--quick', action='store_true', help='fewer points, fewer requests')
    add_sweep(made)
    made.add_argument('--seed', type=int, help='run.seed')
    made.add_argument('--out', default=f'results/runs/{name}', help='folder for the results')
    made.add_argument('--json', action='store_true', help='print {config, seed, rows} only')
    return made


def sets_of(options: argparse.Namespace) -> list[str]:
    """The --set assignments, --seed among them."""
    seed = [] if options.seed is None else [f'run.seed={options.seed}']
    return [*options.sets, *seed]


def sweep(options: argparse.Namespace, configs: Sequence[Any]) -> list[Path]:
    """Run every config where the options say; the folders of the points, in order."""
    from sim.progress import Progress
    from sim.sweep import sweep as run_all

    progress = Progress()
    try:
        return run_all(
            configs,
            options.out,
            jobs=options.jobs,
            backend=options.backend,
            scheduler=options.scheduler,
            shard=options.shard,
            watch=progress,
        )
    finally:
        progress.close()


def main(options: argparse.Namespace, experiment: Experiment, show: Callable[..., None]) -> int:
    """Run an experiment; its exit code."""
    try:
        outcome = experiment(options)
    except ConfigError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except UnfinishedError as missing:
        return report_unfinished(missing.outcome, options.out)
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


def report_unfinished(outcome: Any, folder: str) -> int:
    """Say which points are missing, and why; the exit code."""
    for failure in outcome.failures:
        print(f'failed: {failure}', file=sys.stderr)
    there = sum(place is not None for place in outcome.places)
    print(
        f'{there} of {len(outcome.places)} points are in {folder}; the table is drawn when all of '
        'them are: start again without --shard',
        file=sys.stderr,
    )
    return 1 if outcome.failures else 0
