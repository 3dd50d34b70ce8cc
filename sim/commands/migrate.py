"""sim migrate: move the VM to another host in the middle of a run, and say what became of it."""

import argparse
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
    return told.end(report, None if options.json else as_text(report))


def as_text(report: dict[str, Any]) -> str:
    """What a person wants to see."""
    ram = report['ram']

    def ms(value: float | None) -> str:
        return '-' if value is None else f'{value:.2f} ms'

    return '\n'.join(
        [
            f'migration, policy {report["policy"]}: {report["outcome"]}',
            *told.hypothetical(report),
            f'downtime         {ms(report["downtime_ms"])} as QEMU reports it, '
            f'{ms(report["expected_downtime_ms"])} expected',
            f'vCPUs stopped    {told.us(report["vm_stopped_ns"])} µs',
            *told.stopped(report),
            f'total time       {ms(report["total_time_ms"])}, setup {ms(report["setup_time_ms"])}, '
            f'{report["dirty_sync_count"]} syncs, {report["transferred_bytes"] >> 20} MiB sent at '
            f'{report["mbps"]:.0f} Mbit/s',
            f'pages            {ram["normal"]} normal, {ram["duplicate"]} zero; '
            f'{ram["precopy_bytes"] >> 20} MiB in the pre-copy, {ram["downtime_bytes"] >> 20} MiB '
            'in the downtime',
            *told.at_the_stop(report),
            *told.clear_endpoint(report),
            *told.slow(report),
            f'stale pages      {report["stale_pages"]}',
            *told.not_struck(report),
            *(
                f'QEMU says        {line} (on the {side})'
                for side, lines in report['qemu_said'].items()
                for line in lines
            ),
            *report['findings'],
        ]
    )
