"""sim disks: the disk presets, and how well each fits what was published of it."""

import argparse
import json
from typing import Any

from sim.options import add_json

FIT_HEADS = ('IOPS: measured, model', 'mean (us)', 'p99 (us)')


def add(commands: Any) -> None:
    """The options."""
    parser = commands.add_parser(
        'disks',
        help='list the disk presets and how well they fit',
        description='List the disk presets, each with its largest error against what was '
        'published; with a name its parameters and the error of every point.',
    )
    parser.add_argument('preset', nargs='?', metavar='PRESET', help='a name or a .toml file')
    add_json(parser)
    parser.set_defaults(command=main)


def main(options: argparse.Namespace) -> int:
    """The exit code. Errors: ConfigError."""
    from sim.formats.disks import disk_presets, load_disk

    names = [options.preset] if options.preset else disk_presets()
    presets = {name: load_disk(name) for name in names}
    if options.json:
        print(json.dumps(presets))
    elif options.preset:
        print(_disk_in_full(presets[options.preset]))
    else:
        print('name              grade  largest error: calibrated, predicted         what')
        for name, preset in presets.items():
            print(f'{name:17} {preset["grade"]:6} {_largest_errors(preset):44} {preset["summary"]}')
        print('\n--set target.disk=NAME behind sim run; sim disks NAME for every point')
    return 0


def _largest_errors(preset: dict[str, Any]) -> str:
    """The largest error in IOPS, or in the mean latency, of reads and of writes."""
    parts = []
    for rw, word in (('randread', 'reads'), ('randwrite', 'writes')):
        points = [p for p in preset.get('fit', {}).get('points', ()) if p['rw'] == rw]
        if not points:
            continue
        errors = []
        for role in ('calibrated', 'predicted'):
            found = [
                abs(p.get('error_iops_percent', p.get('error_mean_us_percent')))
                for p in points
                if p['role'] == role
            ]
            errors.append(f'{max(found):.1f} %' if found else '-')
        parts.append(f'{word} {", ".join(errors)}')
    return '; '.join(parts) or 'nothing to hold it against'


def _disk_in_full(preset: dict[str, Any]) -> str:
    """Parameters and points of one preset."""
    fit = preset.get('fit', {})
    lines = [f'{preset["summary"]} (grade {preset["grade"]})', '']
    lines += [f'{key:22} {value}' for key, value in preset['target'].items()]
    lines += ['', f'fitted: {", ".join(fit.get("free", ())) or "by hand"}']
    lines += [f'host: {preset["host"]}', '']
    if 'points' in fit:
        lines.append('operation  depth  role        ' + '  '.join(map('{:>26}'.format, FIT_HEADS)))
        for point in fit['points']:
            cells = []
            for name in ('iops', 'mean_us', 'p99_us'):
                if name in point:
                    cells.append(
                        f'{point[name]:>9} {point[f"model_{name}"]:>9} '
                        f'{point[f"error_{name}_percent"]:>+5.1f}%'
                    )
                else:
                    cells.append('-')
            row = '  '.join(map('{:>26}'.format, cells))
            lines.append(f'{point["rw"]:10} {point["iodepth"]:>5}  {point["role"]:10}  {row}')
    return '\n'.join(lines)
