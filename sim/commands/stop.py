"""sim stop: stop the VM in the middle of a run, let it go on, and say what became of the I/O."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

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
    print(json.dumps(report) if options.json else as_text(report))
    for broken in report['violations']:
        print(f'violation: {broken}', file=sys.stderr)
    if report['violations']:
        print(f'replay: {report["replay"]}', file=sys.stderr)
    return 1 if report['violations'] and not report['expected'] else 0


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

    def us(ns: int | None) -> str:
        return '-' if ns is None else f'{ns / 1e3:.1f}'

    phases = '  '.join(f'{name} {us(ns)}' for name, ns in report['phases_ns'].items())
    queues = '  '.join(f'{q}: {us(ns)}' for q, ns in report['blackout_ns']['queues'].items())
    answers = ', '.join(f'{n} with {code}' for code, n in report['responses'].items()) or 'none'
    endpoint = []
    if report['clear_endpoint_ns'] is not None:
        endpoint = [f'CLEAR_ENDPOINT   {us(report["clear_endpoint_ns"])} µs']
    return '\n'.join(
        [
            f'stop at {us(report["at_ns"])} µs, policy {report["policy"]}: {report["outcome"]}',
            *(f'hypothetical     {what}' for what in report['hypothetical']),
            f'at the stop      {report["in_flight_at_stop"]} in flight, '
            f'{report["unfetched_at_stop"]} in the ring and not fetched',
            f'answered         {answers}',
            *endpoint,
            f'downtime         {us(report["downtime_ns"])} µs',
            f'phases           {phases}  (µs)',
            f'blackout         {us(report["blackout_ns"]["largest"])} µs  (queues: {queues})',
            f'first completion {us(report["first_completion_ns"])} µs after the vCPUs went on',
            f'slow requests    {report["above_1s"]} above 1 s, {report["above_30s"]} above 30 s',
            *not_struck(report),
            *(f'QEMU says        {line}' for line in report['qemu_said']),
            *report['findings'],
        ]
    )


def not_struck(report: dict[str, Any]) -> list[str]:
    """Faults that were asked for and had nothing to strike."""
    return [
        f'fault            {fault["fault"]} did not strike: its step or phase never came'
        for fault in report['faults']
        if fault['struck_ns'] is None
    ]
