"""sim sensitivity: how much each cost moves each result."""

import argparse
from typing import Any

from sim.options import add_config, add_json, add_pool


def add(commands: Any) -> None:
    """The options."""
    parser = commands.add_parser(
        'sensitivity',
        help='how much each cost moves each result',
        description='Move every cost of the data path alone, under the same random numbers: '
        'elasticities of the results, and which guesses (grade C) move one by more than 5 % over '
        'their range.',
    )
    add_config(parser)
    parser.add_argument(
        '--output', metavar='METRIC', action='append', default=[],
        help='a result, such as busy.vhost; may be given again (default: six headline numbers)',
    )  # fmt: skip
    parser.add_argument(
        '--step', type=float, metavar='SHARE', default=0.1, help='of a cost (default: %(default)s)'
    )
    parser.add_argument(
        '--replications', type=int, metavar='N', default=3,
        help='paired runs (default: %(default)s)',
    )  # fmt: skip
    add_json(parser)
    add_pool(parser)
    parser.set_defaults(command=main)


def main(options: argparse.Namespace) -> int:
    """The exit code. Errors: ConfigError."""
    from sim.studies.sensing import main as study

    return study(options)
