"""Command-line options of explain, diff, whatif and budget. Imports nothing heavy."""

import argparse
from typing import Any

from sim.options import add_config, add_json, add_pool, add_seed


def add_explain(commands: Any) -> argparse.ArgumentParser:
    """The command's options."""
    parser: argparse.ArgumentParser = commands.add_parser(
        'explain',
        help='which stages make the slowest requests slow',
        description='Compare the stages of the slowest requests of a run with those of requests at '
        'the median; show a typical request, one of the tail and the worst.',
    )
    parser.add_argument('run', metavar='RUN', help='a TOML config, or a folder that --out has left')
    parser.add_argument('--slowest', metavar='SHARE', default='1%', help='default: 1%%')
    parser.add_argument('--figure', metavar='FILE.png', help='also draw it')
    _add_run(parser)
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--set', metavar='path=value', action='append', default=[], dest='sets')
    add_seed(parser)
    add_json(parser)


def add_diff(commands: Any) -> argparse.ArgumentParser:
    """The command's options."""
    parser: argparse.ArgumentParser = commands.add_parser(
        'diff',
        help='two runs under the same random numbers, request by request',
        description='Pair the requests of two runs and say which differ, in which stages, and from '
        'which request on. sim compare says how sure a difference is.',
    )
    parser.add_argument('a', metavar='A', help='a TOML config, or a folder that --out has left')
    parser.add_argument('b', metavar='B', help='the same')
    for flag, name, which in (('--set-a', 'sets_a', 'A'), ('--set-b', 'sets_b', 'B')):
        parser.add_argument(
            flag, metavar='path=value', action='append', default=[], dest=name, help=f'for {which}'
        )
    parser.add_argument(
        '--show', type=int, metavar='N', default=3, help='requests that moved most (default: 3)'
    )
    parser.add_argument('--out', metavar='FILE', help='also write the pairs: .csv or .parquet')
    parser.add_argument(
        '--different-workloads', action='store_true', help='compare even if other I/O is issued'
    )
    _add_run(parser)
    return parser


def add_whatif(commands: Any) -> argparse.ArgumentParser:
    """The command's options."""
    parser: argparse.ArgumentParser = commands.add_parser(
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
    return parser


def add_budget(commands: Any) -> argparse.ArgumentParser:
    """The command's options."""
    parser: argparse.ArgumentParser = commands.add_parser(
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
    return parser
