"""sim migrate: move the VM to another host in the middle of a run, and say what became of it."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from sim.commands.stop import not_struck
from sim.options import (
    add_config,
    add_json,
    add_timeline,
    add_versions,
    config_sources,
    version_sets,
)

if TYPE_CHECKING:
    from sim.migrate.moving import Migrating
    from sim.run import Result


def add(commands: Any) -> None:
    """The options."""
    parser = commands.add_parser(
        'migrate',
        help='migrate the VM to another host in the middle of a run',
        description='Simulate one config with a live migration in it: pre-copy, the stop of the '
        'device, the hand-over, the start on the destination. The table [migration] says how '
        '(docs/reference/config.md); device.migratable=on is needed. Exit code 1 if a requirement '
        'is violated.',
    )
    add_config(parser)
    parser.add_argument('--at', metavar='TIME', help='when it begins (migration.at)')
    parser.add_argument(
        '--policy', metavar='NAME', help='how the device is stopped (migration.policy)'
    )
    parser.add_argument(
        '--lead', metavar='TIME', help='how long before the pause it begins (migration.lead)'
    )
    add_versions(parser)
    add_timeline(parser)
    add_json(parser)
    parser.set_defaults(command=main)


def main(options: argparse.Namespace) -> int:
    """Migrate, print, 1 where a requirement is violated that the policy does not break on purpose.

    Errors: ConfigError.
    """
    from sim.config import load
    from sim.control.again import as_given
    from sim.exports import timeline
    from sim.migration import migrate

    given = {'at': options.at, 'policy': options.policy, 'lead': options.lead}
    sets = [f'migration.{name}={value}' for name, value in given.items() if value is not None]
    sets = [*options.sets, *version_sets(options), *sets]
    config = load(**config_sources(options), sets=sets)
    timeline.check(config, options.timeline)

    def look(result: 'Result', move: 'Migrating') -> None:
        timeline.write(result, options.timeline, timeline.of_migration(move))

    report = migrate(config, look)
    report['replay'] = as_given(report['replay'], options.arguments)
    print(json.dumps(report) if options.json else as_text(report))
    for broken in report['violations']:
        print(f'violation: {broken}', file=sys.stderr)
    if report['violations']:
        print(f'replay: {report["replay"]}', file=sys.stderr)
    return int(bool(report['violations']) and not report['expected'])


def as_text(report: dict[str, Any]) -> str:
    """What a person wants to see."""

    def us(ns: int | None) -> str:
        return '-' if ns is None else f'{ns / 1e3:.1f}'

    def ms(value: float | None) -> str:
        return '-' if value is None else f'{value:.2f} ms'

    phases = '  '.join(f'{name} {us(ns)}' for name, ns in report['phases_ns'].items())
    answers = ', '.join(f'{n} with {code}' for code, n in report['responses'].items()) or 'none'
    return '\n'.join(
        [
            f'migration, policy {report["policy"]}: {report["outcome"]}',
            *(f'hypothetical     {what}' for what in report['hypothetical']),
            f'downtime         {ms(report["downtime_ms"])} as QEMU reports it, '
            f'{ms(report["expected_downtime_ms"])} expected',
            f'vCPUs stopped    {us(report["vm_stopped_ns"])} µs',
            f'phases           {phases}  (µs)',
            f'blackout         {us(report["blackout_ns"]["largest"])} µs',
            f'first completion {us(report["first_completion_ns"])} µs after the vCPUs went on',
            f'total time       {ms(report["total_time_ms"])}, setup {ms(report["setup_time_ms"])}, '
            f'{report["dirty_sync_count"]} syncs, {report["transferred_bytes"] >> 20} MiB sent at '
            f'{report["mbps"]:.0f} Mbit/s',
            f'pages            {report["ram"]["normal"]} normal, {report["ram"]["duplicate"]} '
            f'zero; {report["ram"]["precopy_bytes"] >> 20} MiB in the pre-copy, '
            f'{report["ram"]["downtime_bytes"] >> 20} MiB in the downtime',
            f'at the stop      {report["in_flight_at_stop"]} in flight, '
            f'{report["unfetched_at_stop"]} in the ring and not fetched',
            f'answered         {answers}',
            f'CLEAR_ENDPOINT   {us(report["clear_endpoint_ns"])} µs',
            f'slow requests    {report["above_1s"]} above 1 s, {report["above_30s"]} above 30 s',
            f'stale pages      {report["stale_pages"]}',
            *not_struck(report),
            *(
                f'QEMU says        {line} (on the {side})'
                for side, lines in report['qemu_said'].items()
                for line in lines
            ),
            *report['findings'],
        ]
    )  # fmt: skip
