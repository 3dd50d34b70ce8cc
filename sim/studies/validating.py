"""The command python -m sim validate: which targets, the tables, the JSON, the figures."""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sim.errors import ConfigError
from sim.pools import open_pool
from sim.studies.target_data import Target
from sim.studies.target_file import load_target, shipped_folder, targets_in
from sim.studies.validate import validate


def main(options: argparse.Namespace) -> int:
    """Validate; the exit code."""
    targets = chosen(options.places, options.only)
    results = validate_all(targets, quick=options.quick, jobs=options.jobs)
    if options.report:
        write_report(Path(options.report), results)
    if options.json:
        print(json.dumps({'targets': results}))
    else:
        print('\n\n'.join([*(printed(result) for result in results), overview(results)]))
    broken = [text for result in results for text in result['violations']]
    for text in broken:
        print(f'violation: {text}', file=sys.stderr)
    return 1 if broken else 0


def chosen(places: Sequence[str], only: Sequence[str]) -> list[Target]:
    """The targets in these places, those of --only if it says so; ConfigError if there are none."""
    targets = [load_target(p) for p in targets_in(places or [str(shipped_folder())])]
    names = [target.name for target in targets]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f'two targets are called {name!r}; rename one')
    for name in only:
        if name not in names:
            raise ConfigError(f'--only {name}: there is no such target; known: {", ".join(names)}')
    return [target for target in targets if not only or target.name in only]


def validate_all(
    targets: Sequence[Target], *, quick: bool, jobs: int | None
) -> list[dict[str, Any]]:
    """Each target in a process of its own; results in the order of the targets."""
    count = min(jobs or os.cpu_count() or 1, len(targets)) if jobs is None else jobs
    with open_pool('local', count, None) as pool:
        if count > 1:
            pool.warm(_warm)
        done = pool.map(_one, [(n, target, quick) for n, target in enumerate(targets)])
        found = dict(done)
    for answer in found.values():
        if isinstance(answer, str):
            raise ConfigError(answer)
    return [found[n] for n in range(len(targets))]


def _warm() -> None:
    from sim.sweep import warm

    warm()


def _one(number: int, target: Target, quick: bool) -> tuple[int, dict[str, Any] | str]:
    """In a worker: one target, or what is wrong with it."""
    try:
        return number, validate(target, quick=quick)
    except ConfigError as error:
        text = str(error)
        return number, text if str(target.path) in text else f'{target.path}: {text}'


# -------------------------------------------------------------------------------------- tables ----


def printed(result: Mapping[str, Any]) -> str:
    """One target for people."""
    lines = [f'{result["name"]}: {result["title"]}', f'  {result["source"]}']
    for name, about in result['fitted'].items():
        end = '  (at the end of its range)' if about.get('at_end_of_range') else ''
        lines.append(f'  fitted: {name} = {_figure(about["value"])}{end}')
    band = result['unrecorded']
    if band:
        lines.append(f'  not recorded: {band["key"]}; the band is of {len(band["values"])} values')
    wide = max(5, *(len(row['point']) for row in result['rows']))
    broad = max(6, *(len(name) for name in result['metrics']))
    lines.append(
        f'  {"point":{wide}}  {"metric":{broad}}  {"measured":>10}  {"simulated":>10}  '
        f'{"5 .. 95 % of them" if band else "95 %":>19}  {"error":>8}'
    )
    for row in result['rows']:
        bounds = '' if row['interval'] is None else ' .. '.join(map(_figure, row['interval']))
        lines.append(
            f'  {row["point"]:{wide}}  {row["metric"]:{broad}}  {_figure(row["measured"]):>10}  '
            f'{_figure(row["simulated"]):>10}  {bounds:>19}  {_error(row["error"]):>8}  '
            f'{row["role"]}, {row["grade"]}'
        )
    for name, judged in result['metrics'].items():
        rank = judged['rank_correlation']
        lines.append(
            f'  {name}: MAPE of the predicted points {_percent(judged["mape_predicted"])} (worst '
            f'{_percent(judged["worst_predicted"])}), of the calibrated '
            f'{_percent(judged["mape_calibrated"])}; rank correlation '
            f'{"-" if rank is None else f"{rank:.2f}"}'
        )
        if band:
            inside = result['predicted'] - judged['beyond']
            lines.append(f'    in the band: {inside} of {result["predicted"]} predicted points')
        for group, mape in judged.get('mape_predicted_by', {}).items():
            lines.append(f'    {group}: {_percent(mape)}')
    for order in result['orders']:
        told = 'holds' if order['holds'] else f'broken: {"; ".join(order["wrong"][:3])}'
        lines.append(f'  order of {order["name"]}: {told}')
    for sign in result['signs']:
        told = 'holds' if sign['holds'] else 'DOES NOT HOLD'
        lines.append(
            f'  {sign["name"]}: {told} (measured x {sign["measured"]:.2f}, simulated x '
            f'{sign["simulated"]:.2f})'
        )
    for bound in result['bounds']:
        told = 'holds' if bound['holds'] else 'DOES NOT HOLD'
        lines.append(
            f'  {bound["name"]}: {told} (measured {_range(bound["measured"])}, simulated '
            f'{_range(bound["simulated"])})'
        )
    return '\n'.join([*lines, f'  {result["outcome"]}'])


def _range(ends: Sequence[float]) -> str:
    return ' .. '.join(map(_figure, ends))


def overview(results: Sequence[Mapping[str, Any]]) -> str:
    """A line for each target."""
    wide = max(len(result['name']) for result in results)
    lines = [f'{"target":{wide}}  points  calibrated  predicted  scalars  MAPE predicted']
    for r in results:
        lines.append(
            f'{r["name"]:{wide}}  {r["points"]:6}  {r["calibrated"]:10}  {r["predicted"]:9}  '
            f'{r["fitted_scalars"]:7}  {_percent(r["mape_predicted"]):>14}  {r["outcome"]}'
        )
    return '\n'.join(lines)


def _figure(value: Any) -> str:
    """A number with the digits that count."""
    if not isinstance(value, int | float):
        return str(value)
    return f'{value:,.0f}' if abs(value) >= 1000 else f'{value:.4g}'


def _percent(value: float | None) -> str:
    return '-' if value is None else f'{value:.1f} %'


def _error(value: float | None) -> str:
    return '-' if value is None else f'{100 * value:+.1f} %'


def write_report(folder: Path, results: Sequence[Mapping[str, Any]]) -> None:
    """validation.json, a CSV and a figure of each target."""
    import pandas as pd

    from sim.analysis import plot_validation, style

    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'validation.json').write_text(json.dumps({'targets': results}, indent=1) + '\n')
        for result in results:
            table = pd.DataFrame(result['rows'])
            table.to_csv(folder / f'{result["name"]}.csv', index=False)
            style.save(plot_validation.target(result), folder / f'{result["name"]}.png')
        style.save(plot_validation.all_targets(results), folder / 'validation.png')
    except OSError as error:
        raise ConfigError(f'--report {folder}: cannot be written ({error.strerror})') from None
    print(f'tables and figures in {folder}', file=sys.stderr)
