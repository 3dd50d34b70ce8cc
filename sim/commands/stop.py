"""sim stop: stop the VM in the middle of a run, let it go on, and say what became of the I/O."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from sim.control import told
from sim.options import (
    add_config,
    add_json,
    add_timeline,
    add_versions,
    config_sources,
    version_sets,
)

if TYPE_CHECKING:
    from sim.control.stopping import Stopping
    from sim.run import Result


def add(commands: Any) -> None:
    """The options."""
    parser = commands.add_parser(
        'stop',
        help='stop the VM in the middle of a run, and let it go on',
        description='Simulate one config, stop the VM at TIME as QEMU does (the vCPUs pause, the '
        'backend drains, the device stops) and let it go on. Exit code 1 if a requirement is '
        'violated, 2 if the run is over by then.',
    )
    add_config(parser)
    parser.add_argument('--at', metavar='TIME', required=True, help='when, such as 20ms')
    parser.add_argument(
        '--policy', metavar='NAME', default='drain',
        help='how; docs/reference/stop.md (default: %(default)s)',
    )  # fmt: skip
    parser.add_argument(
        '--lead', metavar='TIME', default='0us',
        help='how long before TIME a policy that has one begins (default: %(default)s)',
    )  # fmt: skip
    parser.add_argument(
        '--depth', metavar='N', type=int,
        help='how many requests the guest may have out, with --policy throttle (default: 1)',
    )  # fmt: skip
    parser.add_argument(
        '--timeout', metavar='TIME', help='when --policy timeout gives up (default: 4s)'
    )
    parser.add_argument(
        '--log', metavar='TIME', help='dirty logging begins then, as in a migration'
    )
    parser.add_argument(
        '--gap', metavar='TIME', default='0us',
        help="between the vCPUs' standstill and CLEAR_ENDPOINT (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        '--hold', metavar='TIME', default='0us',
        help='for how long the VM stays stopped (default: %(default)s)',
    )  # fmt: skip
    parser.add_argument(
        '--fault', metavar='FAULT', help='what goes wrong, such as disk_stuck=2s@drain; several '
        'with commas (docs/reference/migration.md)',
    )  # fmt: skip
    add_versions(parser)
    add_timeline(parser)
    add_json(parser)
    parser.set_defaults(command=main)


def main(options: argparse.Namespace) -> int:
    """The exit code. Errors: ConfigError."""
    report = stopped(options)
    return told.end(report, None if options.json else as_text(report))


def stopped(options: argparse.Namespace) -> dict[str, Any]:
    """What became of the stop that the options ask for."""
    from sim.config import load
    from sim.control.again import as_given
    from sim.control.stopping import plan_of, stop
    from sim.exports import timeline

    config = load(**config_sources(options), sets=[*options.sets, *version_sets(options)])
    if config.migration is not None:
        print('note: [migration]: sim stop stops without it; use sim migrate', file=sys.stderr)
    plan = plan_of(
        config,
        at=options.at,
        policy=options.policy,
        lead=options.lead,
        depth=options.depth,
        timeout=options.timeout,
        log=options.log,
        gap=options.gap,
        hold=options.hold,
        fault=options.fault,
    )
    timeline.check(config, options.timeline)

    def look(result: 'Result', stopping: 'Stopping') -> None:
        timeline.write(result, options.timeline, timeline.of_stop(stopping))

    report = stop(config, plan, look)
    report['replay'] = as_given(report['replay'], options.arguments)
    return report


def as_text(report: dict[str, Any]) -> str:
    """What a person wants to see."""
    us = told.us
    queues = '  '.join(f'{q}: {us(ns)}' for q, ns in report['blackout_ns']['queues'].items())
    return '\n'.join(
        [
            f'stop at {us(report["at_ns"])} µs, policy {report["policy"]}: {report["outcome"]}',
            *told.hypothetical(report),
            *told.at_the_stop(report),
            *told.clear_endpoint(report),
            f'downtime         {us(report["downtime_ns"])} µs',
            *told.stopped(report, f'  (queues: {queues})'),
            *told.slow(report),
            *told.not_struck(report),
            *(f'QEMU says        {line}' for line in report['qemu_said']),
            *report['findings'],
        ]
    )
