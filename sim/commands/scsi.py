"""sim scsi: a SCSI command as bytes, there and back."""

import argparse
import json
from typing import Any

from sim.commands import without_compiling


def add(commands: Any) -> None:
    """The options."""
    parser = commands.add_parser(
        'scsi',
        add_help=False,  # sim.studies.scsi_options has the parser of what stands behind the word
        help='a SCSI command as bytes: request, response, what they mean',
    )
    parser.set_defaults(takes_rest=True)
    parser.set_defaults(command=main)


def main(options: argparse.Namespace) -> int:
    """The exit code. Errors: ConfigError."""
    without_compiling()
    from sim.studies.scsi_commands import main as serve

    text, data = serve(options.rest)
    print(text if data is None else json.dumps(data))
    return 0
