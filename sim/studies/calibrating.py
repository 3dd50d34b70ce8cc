"""The command python -m sim calibrate: reads fio's files, prints fitted values, writes presets."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sim.errors import ConfigError
from sim.pools import open_pool
from sim.studies.calibrate import DEFAULT_METRICS, calibrate, preset_texts, task_of
from sim.sweep import warm
from sim.units import format_time


def main(options: argparse.Namespace) -> int:
    """Calibrate; the exit code."""
    chosen = options.metrics.split(',') if options.metrics else DEFAULT_METRICS
    task = task_of(
        options.files,
        options.fit,
        metrics=[metric.strip() for metric in chosen],
        sets=options.sets,
        requests=options.requests,
        toml=options.config,
        device=options.device,
    )
    out = Path(options.out) if options.out else None
    with open_pool('local', options.jobs, None) as pool:
        pool.warm(warm)
        found = calibrate(task, pool)
    written = {}
    if out is not None:
        written = write_presets(out, preset_texts(task, found))
    if options.json:
        print(json.dumps({**found, 'presets': written}))
    else:
        print(printed(found))
    for use, place in written.items():
        print(f'{place}: use it with --set {use}={place}', file=sys.stderr)
    for broken in found['violations']:
        print(f'violation: {broken}', file=sys.stderr)
    return 1 if found['violations'] else 0


def write_presets(out: Path, texts: Mapping[str, str]) -> dict[str, str]:
    """Write the presets; a disk's beside the costs' if there are both. By the key that takes it."""
    places = {'run.preset': out, 'target.disk': out}
    if len(texts) == 2:
        places['target.disk'] = out.with_name(f'{out.stem}-disk.toml')
    written = {}
    for kind, use in (('costs', 'run.preset'), ('disk', 'target.disk')):
        if kind in texts:
            try:
                places[use].write_text(texts[kind], encoding='utf-8')
            except OSError as error:
                raise ConfigError(f'{places[use]}: cannot be written: {error.strerror}') from None
            written[use] = str(places[use])
    return written


def printed(found: Mapping[str, Any]) -> str:
    """The result for people."""
    lines = []
    for one in found['fitted']:
        low, high = (_value(one, end) if end is not None else None for end in one['interval'])
        lines.append(
            f'{one["parameter"]} = {_value(one, one["value"])}  '
            f'(95 %: {low or "not bounded below"} .. {high or "not bounded above"})'
        )
    for said in found['undetermined']:
        lines.append(f'the data cannot tell {" and ".join(said["parameters"])}: {said["why"]}')
    lines.append(
        f'what is left: {100 * found["rms_error"]:.2f} % rms over the fitted numbers, chi2 '
        f'{found["chi2"]:.1f} on {found["degrees_of_freedom"]} degrees of freedom'
    )
    if found['scale'] > 2:
        lines.append(
            f'the model does not fit within the errors of the data; intervals are widened '
            f'{found["scale"] ** 0.5:.1f} times for it'
        )
    wide = max(len(Path(row['file']).name) for row in found['rows'])
    lines.append(
        f'{"file":{wide}}  {"job":12} {"op":5} {"metric":6} {"measured":>10} {"simulated":>10}'
    )
    for row in found['rows']:
        scale = 1 if row['metric'] == 'iops' else 1e3
        lines.append(
            f'{Path(row["file"]).name:{wide}}  {row["job"][:12]:12} {row["op"]:5} '
            f'{row["metric"]:6} {row["measured"] / scale:10.1f} {row["simulated"] / scale:10.1f}  '
            f'{100 * row["error"]:+6.1f} %  {"fitted" if row["fitted"] else "not fitted"}'
        )
    lines.append(f'(latencies in µs; {found["simulations"]} simulations)')
    return '\n'.join(lines)


def _value(one: Mapping[str, Any], value: float) -> str:
    if one['unit'] == 'ns':
        return format_time(max(1, round(value))) if value < 10_000 else f'{value / 1e3:.5g}us'
    return f'{value:.4g}'
