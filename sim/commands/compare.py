"""sim compare: two configs under the same random numbers."""

import argparse
from typing import Any

from sim.options import add_json, add_pool, add_seed, add_set, add_sides


def add(commands: Any) -> None:
    """The options."""
    parser = commands.add_parser(
        'compare',
        help='two configs under the same random numbers',
        description='Compare two configs, or two saved runs, pair by pair: replication i of both '
        'sees the same arrivals, places and service times. Says of every number whether B differs, '
        'by how much, and how sure that is; and in which stages. docs/howto/precision.md.',
    )
    add_sides(parser)
    add_set(parser, 'for both')
    parser.add_argument(
        '--replications', type=int, metavar='N',
        help='pairs of runs (default: 10, or 1 for two saved runs, which are taken as they are)',
    )  # fmt: skip
    add_seed(parser, 'seed of both (default: that of A)')
    add_json(parser)
    add_pool(parser)
    parser.set_defaults(command=main)


def main(options: argparse.Namespace) -> int:
    """The exit code. Errors: ConfigError."""
    from sim.studies.comparing import main as study

    return study(options)
