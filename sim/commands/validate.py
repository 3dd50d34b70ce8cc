"""sim validate: what others have measured, and how wrong the simulator is."""

import argparse
from typing import Any

from sim.options import add_json


def add(commands: Any) -> None:
    """The options."""
    parser = commands.add_parser(
        'validate',
        help='simulate what others have measured, and say how wrong it is',
        description='Simulate validation targets: measured points, some of which may fit a few '
        'named parameters, the others of which are predicted. Without a FILE the shipped ones. '
        'docs/howto/validate.md tells how to write one of your own. Exit code 1 if an invariant '
        'was broken, 2 if a target makes no sense; an error in the numbers changes no exit code.',
    )
    parser.add_argument('places', nargs='*', metavar='FILE', help='target files, or their folders')
    parser.add_argument('--only', metavar='NAME', action='append', default=[], help='one target')
    add_json(parser)
    parser.add_argument('--report', metavar='DIR', help='write tables and a figure of each target')
    parser.add_argument('--quick', action='store_true', help='a quarter of the requests')
    parser.add_argument('--jobs', type=int, metavar='N', help='processes (default: one per CPU)')
    parser.set_defaults(command=main)


def main(options: argparse.Namespace) -> int:
    """The exit code. Errors: ConfigError."""
    from sim.studies.validating import main as study

    return study(options)
