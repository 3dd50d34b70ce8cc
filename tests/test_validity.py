"""docs/validity.md has every shipped target and every one of its points; none is left out."""

import importlib.util
import re
from pathlib import Path

import pytest

from sim.studies.target_file import load_target, shipped_folder

TOP = Path(__file__).parent.parent
PAGE = (TOP / 'docs/validity.md').read_text(encoding='utf-8')
TARGETS = [load_target(path) for path in sorted(shipped_folder().glob('*.toml'))]


def section(name: str) -> str:
    return PAGE.split(f'### {name}\n')[1].split('\n### ')[0]


@pytest.mark.parametrize('target', TARGETS, ids=lambda target: target.name)
def test_every_point_of_a_target_is_there_with_what_was_measured(target):
    rows = [line.split(' | ') for line in section(target.name).splitlines() if ' | ' in line]
    for row in target.rows:
        for metric in target.metrics:
            if row[metric.name]:
                mine = [r for r in rows if r[0] == f'| {target.label(row)}' and r[1] == metric.name]
                assert mine, f'{target.name}: {target.label(row)}: run scripts/validity.py'
    assert ' '.join(target.verdict.split()) in ' '.join(section(target.name).split())


def test_no_target_is_there_that_is_not_shipped():
    assert re.findall(r'^### (.+)$', PAGE, re.MULTILINE) == [t.name for t in TARGETS]


@pytest.mark.parametrize('target', TARGETS, ids=lambda target: target.name)
def test_the_overview_counts_points_and_scalars_as_the_target_does(target):
    line = next(ln for ln in PAGE.splitlines() if ln.startswith(f'| [{target.name}]'))
    cells = [cell.strip() for cell in line.strip('|').split('|')]
    used = sum(target.calibrates)
    assert cells[1:5] == [
        str(n) for n in (len(target.rows), used, len(target.rows) - used, len(target.parameters))
    ]


def test_readme_says_what_the_overview_comes_to():
    spec = importlib.util.spec_from_file_location('validity', TOP / 'scripts/validity.py')
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    readme = (TOP / 'README.md').read_text(encoding='utf-8')
    told = script.tally(PAGE)
    assert f'Of {len(TARGETS)} things' in told
    assert told in readme, 'run scripts/validity.py --tally'
