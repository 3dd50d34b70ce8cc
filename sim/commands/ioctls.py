"""sim ioctls: the ioctls that QEMU's vhost-scsi makes, in the columns of a trace."""

import argparse
import json
from typing import Any

from sim.commands import without_compiling
from sim.options import add_config, add_json, add_versions

SCENARIOS = ('init', 'start', 'log', 'stop', 'migrate')


def add(commands: Any) -> None:
    """The options."""
    parser = commands.add_parser(
        'ioctls',
        help="the ioctls of QEMU's vhost-scsi, by version",
        description="Print the ioctls that QEMU's vhost-scsi makes of /dev/vhost-scsi, in the "
        'columns of a trace: realize, start, the beginning of dirty logging, stop.',
    )
    add_config(parser)
    parser.add_argument(
        '--scenario', choices=SCENARIOS, required=True,
        help='init (realize), start (the guest sets DRIVER_OK), log (dirty logging begins), '
        'stop (the VM is stopped while logging), migrate (all of it, and the destination)',
    )  # fmt: skip
    add_versions(parser)
    add_json(parser)
    parser.set_defaults(command=main)


def main(options: argparse.Namespace) -> int:
    """The exit code. Errors: ConfigError."""
    without_compiling()
    from sim.studies.ioctls import main as trace

    text, data = trace(options)
    print(json.dumps(data) if options.json else text)
    return 0
