"""The command line: vhost-scsi-sim, or python -m sim. Each command is a file of sim/commands/.

Exit codes: 0 good, 1 the run or the bytes are wrong (an invariant broken, a number that moved, a
corrupt capture), 2 bad usage.
"""

import os
import sys
from collections.abc import Sequence

from sim import __version__
from sim.commands import (
    bench,
    budget,
    calibrate,
    compare,
    device,
    diff,
    disks,
    explain,
    features,
    ioctls,
    migrate,
    params,
    regress,
    ring,
    run,
    scsi,
    sensitivity,
    stop,
    sweep,
    validate,
    whatif,
)
from sim.errors import ConfigError
from sim.options import Parser

COMMANDS = (  # in the order of --help
    run,
    sweep,
    compare,
    validate,
    calibrate,
    sensitivity,
    regress,
    explain,
    diff,
    whatif,
    budget,
    stop,
    migrate,
    ioctls,
    device,
    features,
    scsi,
    ring,
    params,
    disks,
    bench,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    try:
        parser = command_line()
        options, rest = parser.parse_known_args(arguments)
        if rest and not options.takes_rest:
            options.parser.error(f'unrecognized arguments: {" ".join(rest)}')
        options.rest = rest
        options.arguments = list(sys.argv[1:] if arguments is None else arguments)
        code: int = options.command(options)
    except ConfigError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('interrupted: nothing was written', file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of our output has gone (head, less): not our error, and nothing to add.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def command_line() -> Parser:
    """The parser of every command; docs/reference/command-line.md is made from it."""
    parser = Parser(
        prog='vhost-scsi-sim',
        description='Cycle-level simulator of the virtio-scsi / vhost-scsi data path.',
        epilog='Exit codes: 0 good, 1 the run or the bytes are wrong, 2 bad usage. '
        'docs/reference/command-line.md has every option.',
    )
    parser.add_argument('--version', action='version', version=__version__, help='print it')
    parser.set_defaults(takes_rest=False)
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    for command in COMMANDS:
        command.add(commands)
    for whose in commands.choices.values():
        whose.set_defaults(parser=whose)  # to say what it does not know
    return parser


if __name__ == '__main__':
    sys.exit(main())
