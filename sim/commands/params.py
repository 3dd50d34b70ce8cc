"""sim params: the costs of a preset, each with its source."""

import argparse
import json
from typing import Any

from sim.options import add_json


def add(commands: Any) -> None:
    """The options."""
    parser = commands.add_parser(
        'params',
        help='print a cost preset',
        description='Print the parameters of a cost preset: value, unit, range, grade, source.',
    )
    parser.add_argument(
        'preset', nargs='?', metavar='PRESET', default='icx-2.6ghz', help='a name or a .toml file'
    )
    add_json(parser)
    parser.set_defaults(command=main)


def main(options: argparse.Namespace) -> int:
    """The exit code. Errors: ConfigError."""
    import dataclasses

    from sim.costs import load_preset

    preset = load_preset(options.preset)
    rows = [dataclasses.asdict(row) for row in preset.parameters.values()]
    if options.json:
        print(json.dumps({'name': preset.name, 'cpu_hz': preset.cpu_hz, 'parameters': rows}))
        return 0
    print(f'{preset.name}: cycles at {preset.cpu_hz} Hz')
    for row in rows:
        span = f'{row["minimum"]}..{row["maximum"]}'
        print(
            f'{row["name"]:46} {row["value"]:>9g} {row["unit"]:8} {span:>18}  '
            f'{row["grade"]}  {row["role"]:6} {row["source"]}'
        )
    return 0
