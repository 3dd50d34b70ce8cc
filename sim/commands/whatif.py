"""sim whatif: what would be gained if something cost nothing."""

import argparse
from typing import Any

from sim.options import add_config, add_json, add_pool, add_seed


def add(commands: Any) -> None:
    """The options."""
    parser = commands.add_parser(
        'whatif',
        help='what would be gained if something cost nothing',
        description='Simulate a config again with costs set to zero or scaled, under the same '
        'random numbers, and print what is gained. docs/howto/why.md lists the names.',
    )
    add_config(parser)
    parser.add_argument(
        '--free', metavar='NAME,NAME', action='append', default=[],
        help='cost nothing: each alone, then all of them; all: every name there is',
    )  # fmt: skip
    parser.add_argument(
        '--scale', metavar='NAME=FACTOR', action='append', default=[], help='cost so many times'
    )
    parser.add_argument(
        '--replications', type=int, metavar='N', default=1,
        help='paired runs, for intervals (default: 1: exact for these random numbers)',
    )  # fmt: skip
    add_seed(parser)
    add_json(parser)
    add_pool(parser)
    parser.set_defaults(command=main)


def main(options: argparse.Namespace) -> int:
    """The exit code. Errors: ConfigError."""
    from sim.studies.whatif import main as study

    return study(options)
