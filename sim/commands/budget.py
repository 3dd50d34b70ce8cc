"""sim budget: what must hold for a target to be met."""

import argparse
from typing import Any

from sim.options import add_config, add_json, add_pool, add_seed


def add(commands: Any) -> None:
    """The options."""
    parser = commands.add_parser(
        'budget',
        help='what must hold for a target to be met',
        description='Find by bisection from where to where a target is met, with intervals. '
        'docs/howto/why.md tells more.',
    )
    add_config(parser)
    parser.add_argument(
        '--target', metavar='"p99<200us"', action='append', default=[], required=True,
        help='mean, p50, p90, p99, p999 or max of the latency, or iops; < or >; all must hold',
    )  # fmt: skip
    parser.add_argument(
        '--at', metavar='IOPS', help='the load: an open loop of so many requests per second'
    )
    parser.add_argument(
        '--find', metavar='KEY=LOW..HIGH', required=True,
        help='what is searched: a key of the config (whole number, size or time), or load',
    )  # fmt: skip
    parser.add_argument(
        '--over', metavar='path=value,value', action='append', default=[],
        help='search once for each value of a further key',
    )  # fmt: skip
    parser.add_argument(
        '--resolution', metavar='SHARE', default='2%', help='how close (default: 2%%)'
    )
    parser.add_argument(
        '--replications', type=int, metavar='N', default=5,
        help='runs of each point at least; four times as many if they do not decide (default: 5)',
    )  # fmt: skip
    add_seed(parser)
    add_json(parser)
    add_pool(parser)
    parser.set_defaults(command=main)


def main(options: argparse.Namespace) -> int:
    """The exit code. Errors: ConfigError."""
    from sim.studies.budget import main as study

    return study(options)
