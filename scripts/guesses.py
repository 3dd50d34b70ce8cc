"""Renew results/guesses.csv: which grade C costs move a headline result by more than 5 %.

    python scripts/guesses.py            try anew what is stale or missing
    python scripts/guesses.py --all      try everything anew (some minutes)

Headline results are those of the experiments (`headlines` in each), of the README's figure, and
points of validation targets. Experiments print what the file says of theirs, docs/validity.md has
all of it, README.md its own part; both are renewed here.
"""

import argparse
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / 'scripts'))

FILE = ROOT / 'results/guesses.csv'
PAGES = {'docs/validity.md': '', 'README.md': 'README'}  # and whose headlines each has; '': all
BLOCK = re.compile(r'(<!-- guesses: generated -->\n).*?(<!-- end -->)', re.DOTALL)
README_BARS = (('kernel vhost-scsi', 1), ('SPDK, polling', 1), ('QEMU IOThread', 16))
POINTS = {
    'worker-scaling': (
        {'series': 'A', 'workers': 'single', 'jobs': '2'},
        {'series': 'A', 'workers': 'per_vq', 'jobs': '2'},
        {'series': 'D', 'workers': 'single', 'jobs': '2'},
    ),
    'qd1-chain': (
        {'study': 'report', 'backend': 'kernel'},
        {'study': 'report', 'backend': 'spdk'},
    ),
}
REQUESTS = 1500  # of a point


def of_readme() -> list[Any]:
    """Bars of the README's figure."""
    from readme_figure import configs

    from sim.studies.guesses import Headline

    found = configs()
    return [
        Headline(
            name=f'mean latency, {backend}, iodepth {depth}', unit='µs',
            configs=(found[backend, depth],),
            value=lambda report: report['latency_ns']['mean'] / 1e3,
        )
        for backend, depth in README_BARS
    ]  # fmt: skip


def of_target(name: str) -> list[Any]:
    """Points of a target, with its fitted costs: what was measured there."""
    from sim.config import load
    from sim.studies.guesses import Headline
    from sim.studies.target_file import load_target, shipped_folder

    target = load_target(shipped_folder() / f'{name}.toml')
    found = []
    for where in POINTS[name]:
        row = target.rows[target.rows_at(where)[0]]
        sets = [*target.sets_of(row), f'workload.number_ios={REQUESTS}']
        iops = target.metrics[0].name == 'iops'
        found.append(
            Headline(
                name=' '.join(f'{column}={value}' for column, value in where.items()),
                unit='IOPS' if iops else 'µs', configs=(load(**target.config, sets=sets),),
                value=_iops if iops else _mean_us,
            )
        )  # fmt: skip
    return found


def _iops(report: Mapping[str, Any]) -> float:
    return float(report['iops'])


def _mean_us(report: Mapping[str, Any]) -> float:
    return float(report['latency_ns']['mean'] / 1e3)


def sources() -> dict[str, list[Any]]:
    """Every headline result, by whose it is."""
    from experiments.command import experiments

    found = {f'experiments.{one.name}': one.shipped_headlines() for one in experiments()}
    found['README'] = of_readme()
    return found | {f'validation/{name}': of_target(name) for name in POINTS}


def table(rows: Iterable[Mapping[str, str]]) -> str:
    """The rows as Markdown."""
    lines = ['| of | headline result | value | guess | at its least, % | at its most, % |']
    lines.append('| --- | --- | --- | --- | --- | --- |')
    before: Sequence[str] = ()
    for row in rows:
        mine = (row['source'], row['headline'])
        first = mine != before
        before = mine
        value = f'{float(row["value"]):,.4g} {row["unit"]}'
        cells = [*mine, value] if first else ['', '', '']
        guess = ['none', '', '']
        if row['cost']:
            guess = [f'`{row["cost"]}`', row['at_least'] or '-', row['at_most'] or '-']
        lines.append('| ' + ' | '.join([*cells, *guess]) + ' |')
    return '\n'.join(lines)


def page(text: str, whose: str, rows: Sequence[Mapping[str, str]]) -> str:
    """A page with its block renewed."""
    mine = [row for row in rows if not whose or row['source'] == whose]
    assert len(BLOCK.findall(text)) == 1
    return BLOCK.sub(lambda found: f'{found[1]}{table(mine)}\n{found[2]}', text)


def renew(*, everything: bool = False) -> list[dict[str, str]]:
    """The file; its rows."""
    from sim.pools import Processes
    from sim.studies import guesses

    old = [] if everything else guesses.read(FILE)
    rows = guesses.renewed(sources(), old, Processes(2), lambda text: print(text, flush=True))
    guesses.write(FILE, rows)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Renew file and pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--all', action='store_true', help='try everything anew')
    rows = renew(everything=parser.parse_args(arguments).all)
    for name, whose in PAGES.items():
        path = ROOT / name
        path.write_text(page(path.read_text(encoding='utf-8'), whose, rows), encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
