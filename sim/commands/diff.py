"""sim diff: two runs, request by request."""

import argparse
from typing import Any

from sim.options import add_json, add_seed, add_set, add_sides


def add(commands: Any) -> None:
    """The options."""
    parser = commands.add_parser(
        'diff',
        help='two runs under the same random numbers, request by request',
        description='Pair the requests of two runs and say which differ, in which stages, and from '
        'which request on. sim compare says how sure a difference is.',
    )
    add_sides(parser)
    parser.add_argument(
        '--show', type=int, metavar='N', default=3, help='requests that moved most (default: 3)'
    )
    parser.add_argument('--out', metavar='FILE', help='also write the pairs: .csv or .parquet')
    add_set(parser)
    add_seed(parser)
    add_json(parser)
    parser.set_defaults(command=main)


def main(options: argparse.Namespace) -> int:
    """The exit code. Errors: ConfigError."""
    from sim.studies.diff import main as study

    return study(options)
