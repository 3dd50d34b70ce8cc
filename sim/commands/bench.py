"""sim bench: how fast the simulator itself is."""

import argparse
import sys
from typing import Any

from sim.errors import ConfigError
from sim.options import add_json


def add(commands: Any) -> None:
    """The options."""
    parser = commands.add_parser(
        'bench',
        help='how fast the simulator itself is (in a checkout)',
        description='Run the benchmarks of a checkout (benchmarks/, as make bench does).',
    )
    parser.add_argument('--only', metavar='TOPIC', action='append', help='one topic, such as ring')
    parser.add_argument('--rounds', type=int, metavar='N', help='medians are over so many rounds')
    add_json(parser)
    parser.set_defaults(command=main)


def main(options: argparse.Namespace) -> int:
    """The exit code. Errors: ConfigError."""
    import subprocess
    from pathlib import Path

    # The package may not import what measures it, so the benchmarks run in a process of their own.
    root = Path(__file__).resolve().parents[2]
    if not (root / 'benchmarks' / '__main__.py').is_file():
        raise ConfigError(
            f'bench: {root} is not a checkout; the benchmarks are not part of an installed '
            'package: clone the repository and run make bench there'
        )
    command = [sys.executable, '-m', 'benchmarks']
    for topic in options.only or []:
        command += ['--only', topic]
    command += ['--rounds', str(options.rounds)] if options.rounds is not None else []
    command += ['--json'] if options.json else []
    return subprocess.run(command, cwd=root).returncode
