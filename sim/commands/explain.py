"""sim explain: which stages make the slowest requests slow."""

import argparse
from typing import Any

from sim.options import add_json, add_seed, add_set


def add(commands: Any) -> None:
    """The options."""
    parser = commands.add_parser(
        'explain',
        help='which stages make the slowest requests slow',
        description='Compare the stages of the slowest requests of a run with those of requests at '
        'the median; show a typical request, one of the tail and the worst.',
    )
    parser.add_argument('run', metavar='RUN', help='a TOML config, or a folder that --out has left')
    parser.add_argument('--slowest', metavar='SHARE', default='1%', help='default: 1%%')
    parser.add_argument('--figure', metavar='FILE.png', help='also draw it')
    add_set(parser)
    add_seed(parser)
    add_json(parser)
    parser.set_defaults(command=main)


def main(options: argparse.Namespace) -> int:
    """The exit code. Errors: ConfigError."""
    from sim.studies.explaining import main as study

    return study(options)
