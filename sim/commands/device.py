"""sim device: the effective device of a -device string or a libvirt domain."""

import argparse
import json
from typing import Any

from sim.options import add_json, add_versions


def add(commands: Any) -> None:
    """The options."""
    parser = commands.add_parser(
        'device',
        help='the effective device of a -device string or a libvirt domain',
        description='Print every property of the device with its value and where it is from, the '
        'virtqueues, the config space, and of each feature bit what it means and who dropped it.',
    )
    parser.add_argument('string', nargs='?', metavar='STRING', help='a QEMU -device string')
    parser.add_argument('--libvirt', metavar='FILE', help='a libvirt domain XML')
    add_versions(parser)
    parser.add_argument('--guest', metavar='VERSION', help='guest.kernel')
    parser.add_argument('--vcpus', type=int, metavar='N', help='guest.vcpus (default: 1)')
    parser.add_argument(
        '--write-config', metavar='FIELD=VALUE', action='append', default=[],
        help='the guest writes sense_size or cdb_size; may be given again',
    )  # fmt: skip
    add_json(parser)
    parser.set_defaults(command=main)


def main(options: argparse.Namespace) -> int:
    """The exit code. Errors: ConfigError."""
    from sim.studies.devices import main as show

    text, data = show(options)
    print(json.dumps(data) if options.json else text)
    return 1 if data['refused'] else 0
