"""sim features: what device and driver agree on, and why."""

import argparse
import json
from typing import Any

from sim.options import add_file, add_json, add_set


def add(commands: Any) -> None:
    """The options."""
    parser = commands.add_parser(
        'features',
        help='print what device and driver agree on',
        description='Print the negotiation of the feature bits: who offers, masks and acks each. '
        'Any driver may be asked for, also a combination that would not start.',
    )
    add_file(parser)
    parser.add_argument('--device', metavar='STRING', help='a QEMU -device string')
    add_set(parser, 'such as guest.kernel=7.2, host.kernel, qemu.version, run.hypothetical=on')
    add_json(parser)
    parser.set_defaults(command=main)


def main(options: argparse.Namespace) -> int:
    """The exit code. Errors: ConfigError."""
    from sim.formats.feature_rules import agreement

    agreed = agreement(toml=options.config, device=options.device, sets=options.sets)
    if options.json:
        print(json.dumps(agreed.as_data()))
    else:
        print(_negotiation(agreed))
    return 0


def _negotiation(agreed: Any) -> str:
    """What a person wants to see of a sim.features.Negotiation."""
    from sim.features import errno_name

    sign = {True: 'yes', False: '-', None: ''}
    lines = [
        f'{agreed.driver}, backend {agreed.backend_name}; QEMU {agreed.qemu}, host Linux '
        f'{agreed.host_kernel}, guest Linux {agreed.guest_kernel}',
        f'{"bit":>3}  {"name":28} {"backend":7}  {"property":18}  listed  offered  acked  why',
    ]
    for row in agreed.rows():
        switch = f'{row["property"]}={"on" if row["value"] else "off"}' if row['property'] else ''
        backend = 'assumed' if row['assumed'] else sign[row['backend']]
        lines.append(
            f'{row["bit"]:3}  {row["name"]:28} {backend:7}  {switch:18}  {sign[row["listed"]]:6}  '
            f'{sign[row["offered"]]:7}  {sign[row["acked"]]:5}  {row["why"]}'
        )
    lines.append(f'acked         {agreed.acked:#x}')
    if agreed.backend is not None:
        lines.append(f'SET_FEATURES  {agreed.sent:#x}: {errno_name(agreed.answer)}')
    if agreed.refusal:
        lines.append(f'refused       {agreed.refusal}')
    lines += [f'hypothetical  QEMU {agreed.qemu} has no property {n}' for n in agreed.missing]
    lines += [f'hypothetical  {name}' for name in agreed.hypothetical]
    return '\n'.join(lines)
