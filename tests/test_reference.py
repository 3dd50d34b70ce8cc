"""docs/reference: what is generated is up to date, and says something about everything there is."""

import importlib.util
from pathlib import Path

import pytest

from sim.__main__ import COMMANDS

TOP = Path(__file__).resolve().parent.parent
PAGES = [*sorted((TOP / "docs/reference").glob("*.md")), TOP / "results/README.md"]


@pytest.fixture(scope='module')
def reference():
    spec = importlib.util.spec_from_file_location('reference', TOP / 'scripts/reference.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize('path', PAGES, ids=lambda path: path.stem)
def test_generated_tables_are_up_to_date(path, reference):
    text = path.read_text(encoding='utf-8')
    assert reference.page(path.name, text) == text, f'{path.name}: run scripts/reference.py'


def test_a_command_that_the_page_lacks_is_added(reference):
    text = (TOP / 'docs/reference/command-line.md').read_text(encoding='utf-8')
    before, _, behind = text.partition('<!-- sim stop: generated -->')
    behind = behind.partition('<!-- end -->')[2]
    page = reference.page('command-line.md', before + behind)
    assert '--policy' not in before + behind.partition('`--json`:')[0]
    assert page.endswith('<!-- end -->\n')
    assert '--at TIME' in page.rpartition('## stop')[2]


def test_every_command_is_on_the_page(reference):
    words = {name.partition(' ')[0] for name in reference.parsers()}
    assert words == {module.__name__.rpartition('.')[2] for module in COMMANDS}


def test_every_table_stands_on_some_page(reference):
    text = ''.join(path.read_text(encoding='utf-8') for path in PAGES)
    assert [name for name in reference.TABLES if f'<!-- {name}: generated -->' not in text] == []
