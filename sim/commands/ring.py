"""sim ring: ring memory that was captured."""

import argparse
import json
from typing import Any

from sim.options import add_json


def add(commands: Any) -> None:
    """The options."""
    ring = commands.add_parser(
        'ring', help='look into captured ring memory', description='Look into captured ring memory.'
    )
    actions = ring.add_subparsers(required=True, metavar='ACTION')
    parser = actions.add_parser(
        'inspect',
        help='indices, requests in flight, and what is wrong',
        description='Read a capture folder (docs/reference/captures.md) with the device side of '
        'the ring: indices, requests in flight with their CDBs, verdicts on what is wrong. Exit '
        'code 1 if anything is, 2 if the capture cannot be read.',
    )
    parser.add_argument('folder', metavar='DIR', help='the capture')
    add_json(parser)
    parser.set_defaults(command=main)


def main(options: argparse.Namespace) -> int:
    """The exit code. Errors: ConfigError."""
    from sim.formats.capture import read_capture
    from sim.inspection import as_text, inspect

    report = inspect(read_capture(options.folder))
    print(json.dumps(report) if options.json else as_text(report))
    return 1 if report['verdicts'] else 0
