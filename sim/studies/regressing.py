"""The command python -m sim regress: which scenarios, the table, the report, the blessing."""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sim.errors import ConfigError
from sim.pools import open_pool
from sim.studies import baseline, regress, regress_text
from sim.studies.scenarios import SHIPPED, Scenario, read_scenarios


def main(options: argparse.Namespace) -> int:
    """Compare or bless; the exit code. Errors: ConfigError."""
    if options.bless and (options.sets or options.only):
        given = '--set' if options.sets else '--only'
        raise ConfigError(f'--bless {given}: a baseline is of all scenarios as they are; take one')
    chosen = _chosen(read_scenarios(options.scenarios or SHIPPED, options.sets), options.only)
    if options.list:
        rows = {s.name: s.about for s in chosen}
        text = '\n'.join(f'{name:26}{about}' for name, about in rows.items())
        print(json.dumps(rows) if options.json else text)
        return 0
    folder = Path(options.baseline)
    is_first = options.bless and not (folder / baseline.MANIFEST).is_file()
    then = baseline.Baseline({}, {}) if is_first else baseline.read(folder)
    count = min(os.cpu_count() or 1, len(chosen)) if options.jobs is None else options.jobs
    if options.report:
        from sim.studies import regress_report

        regress_report.prepare(Path(options.report))
    held = max((replications for _, replications in then.manifest.values()), default=0)
    with open_pool('local', count, None) as pool:
        if count > 1:
            pool.warm(_warm)
        now, broken = regress.observe(
            chosen, pool, replications=held or regress.REPLICATIONS, on_done=_progress
        )
    found = regress.compare(chosen, now, then, whole=not options.only)
    found |= {'violations': broken, 'green': found['green'] and not broken, 'sets': options.sets}
    if options.report:
        regress_report.write(Path(options.report), found)
    print(json.dumps(found) if options.json else regress_text.printed(found))
    for text in broken:
        print(f'violation: {text}', file=sys.stderr)
    if options.bless:
        return _bless(folder, now, found)
    return 0 if found['green'] else 1


def _warm() -> None:
    """Compile the kernels once, not in every process."""
    from sim.sweep import warm

    warm()


def _chosen(scenarios: Sequence[Scenario], only: Sequence[str]) -> list[Scenario]:
    names = [scenario.name for scenario in scenarios]
    for name in only:
        if name not in names:
            raise ConfigError(f'--only {name}: no such scenario; known: {", ".join(names)}')
    return [scenario for scenario in scenarios if not only or scenario.name in only]


def _bless(folder: Path, now: Mapping[str, baseline.Record], found: Mapping[str, Any]) -> int:
    """Write the baseline, unless an invariant is broken; says so on stderr."""
    if found['violations']:
        print('not blessed: an invariant is broken', file=sys.stderr)
        return 1
    if found['green']:
        print(f'nothing to bless: {folder} holds just this', file=sys.stderr)
        return 0
    baseline.write(folder, now)
    print(f'blessed: {len(now)} scenarios in {folder}; commit it with what moved them',
          file=sys.stderr)  # fmt: skip
    return 0


def _progress(done: int, total: int, name: str) -> None:
    """One line that changes, on a terminal only."""
    if sys.stderr.isatty():
        line = f'  {done}/{total} {name}' if done < total else ''
        print(f'\r\x1b[K{line}', end='', file=sys.stderr, flush=True)
