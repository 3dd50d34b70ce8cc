"""sim calibrate: parameters fitted to fio's JSON of a machine."""

import argparse
from typing import Any

from sim.options import add_json, add_set


def add(commands: Any) -> None:
    """The options."""
    parser = commands.add_parser(
        'calibrate',
        help="fit parameters to fio's JSON of a machine of yours",
        description="Fit costs or the disk to what fio measured in a guest: values with profile "
        'intervals, what the data cannot tell apart, the error that remains. '
        'docs/howto/calibrate.md tells more.',
    )
    parser.add_argument('files', nargs='+', metavar='FIO.json', help="fio's output, json or json+")
    parser.add_argument('--device', metavar='STRING', help='the QEMU -device string of that guest')
    parser.add_argument('--config', metavar='CONFIG.toml', help='the rest of the machine')
    add_set(parser)
    parser.add_argument(
        '--fit', metavar='PARAM[=LOW..HIGH],...', action='append', default=[], required=True,
        help='what may move: costs.NAME or target.KEY',
    )  # fmt: skip
    parser.add_argument(
        '--metrics', metavar='NAME,...', help='what is fitted: of iops, mean, p50, p90, p99, p999'
    )
    parser.add_argument(
        '--requests', type=int, metavar='N', default=4000,
        help='simulated per clone (default: %(default)s)',
    )
    parser.add_argument('--out', metavar='PRESET.toml', help='write the fitted preset')
    parser.add_argument('--jobs', type=int, metavar='N', help='processes at once (default: one)')
    add_json(parser)
    parser.set_defaults(command=main)


def main(options: argparse.Namespace) -> int:
    """The exit code. Errors: ConfigError."""
    from sim.studies.calibrating import main as study

    return study(options)
