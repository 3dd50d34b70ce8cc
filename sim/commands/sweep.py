"""sim sweep: a config over values of its keys."""

import argparse
from typing import Any

from sim.options import add_config, add_json, add_seed, add_sweep


def add(commands: Any) -> None:
    """The options."""
    parser = commands.add_parser(
        'sweep',
        help='simulate a config over values of its keys',
        description='Simulate every combination of the values given with --over. Finished points '
        'are kept under DIR/<id>/ and not computed again: after an interruption, start again. Exit '
        'code 1 if a point failed or broke an invariant. docs/howto/sweep.md tells more.',
    )
    add_config(parser)
    parser.add_argument(
        '--over', metavar='path=value,value', action='append', default=[],
        help='values of a key, such as workload.iodepth=1,2,4; may be given for several keys',
    )  # fmt: skip
    parser.add_argument(
        '--show', metavar='METRIC', action='append', default=[],
        help='a further column, such as busy.vhost; the names are those of summary.csv',
    )  # fmt: skip
    add_seed(parser)
    add_json(parser)
    parser.add_argument(
        '--out', metavar='DIR', default='results/runs/sweep', help='default: %(default)s'
    )
    add_sweep(parser)
    parser.set_defaults(command=main)


def main(options: argparse.Namespace) -> int:
    """The exit code. Errors: ConfigError."""
    from sim.studies.sweeping import main as study

    return study(options)
