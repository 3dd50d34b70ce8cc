"""sim regress: is everything as it was when the baseline was made, and if not, what moved?"""

import argparse
from typing import Any

from sim.options import add_json, add_set


def add(commands: Any) -> None:
    """The options."""
    parser = commands.add_parser(
        'regress',
        help='compare small scenarios with the baseline, exactly',
        description='Simulate small scenarios of fixed seeds and compare every number with the '
        'baseline. Exit code 0: all equal, 1: something moved, is missing or broke an invariant, '
        '2: usage. docs/howto/regress.md tells how to read the table and when to bless.',
    )
    parser.add_argument('--bless', action='store_true', help='make what is now the baseline')
    parser.add_argument(
        '--report', metavar='DIR', help='write report.html, report.md and report.json there'
    )
    add_json(parser)
    parser.add_argument(
        '--baseline', metavar='DIR', default='results/baseline', help='default: %(default)s'
    )
    parser.add_argument(
        '--scenarios', metavar='FILE.toml', help='scenarios of your own (default: those shipped)'
    )
    parser.add_argument('--only', metavar='NAME', action='append', default=[], help='one scenario')
    add_set(parser, 'change a key of all scenarios, to see what it would move')
    parser.add_argument('--list', action='store_true', help='only list the scenarios')
    parser.add_argument('--jobs', type=int, metavar='N', help='processes (default: one per CPU)')
    parser.set_defaults(command=main)


def main(options: argparse.Namespace) -> int:
    """The exit code. Errors: ConfigError."""
    from sim.studies.regressing import main as study

    return study(options)
