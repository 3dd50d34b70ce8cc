"""Every code block of README and docs/ runs, and prints what the page says.

The blocks of a page run one after the other in a folder of their own, in which examples/ and the
like are those of the checkout. By the word behind the fence:

    pycon      a session: what is printed is compared
    python     runs
    console    lines behind '$ ' run, what is printed is compared; '...' stands for anything
    sh         runs; each command must end with 0
    toml ini   read, and taken as a config (of a target only parsed) or a job file; written to the
               file whose name stands as a comment in the first line
    text       is only looked at by people

`<!-- long -->` before a fence leaves the block to `make test-long`, `<!-- not run: reason -->` to
the reader.
"""

import contextlib
import doctest
import glob
import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sim.__main__ import main
from sim.config import load
from sim.formats.fio import parse_job_file
from sim.formats.keys import ACTIONS, SECTIONS

TOP = Path(__file__).resolve().parent.parent
PAGES = [
    TOP / 'README.md',
    *sorted((TOP / 'docs').rglob('*.md')),
]
LENT = ('examples', 'presets', 'validation', 'experiments', 'notebooks', 'docs')
BLOCK = re.compile(
    r'^(?:<!-- (?P<mark>long|not run: [^\n]+) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)
FILE_NAME = re.compile(r'[#;] ([\w./-]+\.\w+)\n')
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
QUICK = re.compile(r'(?:\.venv/bin/)?python -m sim (?P<words>[^|<>;&]*)')
CAT = re.compile(r'\$\(cat ([^)]+)\)')


def pages_with(mark):
    found = [page for page in PAGES if mark in page.read_text()]
    return pytest.mark.parametrize('page', found, ids=lambda page: page.stem)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the page's reader stands: at the top of a checkout with its environment."""
    for name in LENT:
        (tmp_path / name).symlink_to(TOP / name)
    (tmp_path / '.venv').symlink_to(sys.prefix)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PYTHONPATH', str(TOP))
    monkeypatch.setenv('PATH', f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}')
    return tmp_path


class Reader:
    """Does what a page says."""

    def __init__(self, page: Path) -> None:
        self.page, self.text = page, page.read_text()
        self.names: dict[str, object] = {}

    def follow(self, *, also_long: bool) -> None:
        for block in BLOCK.finditer(self.text):
            mark = block['mark'] or ''
            if mark.startswith('not run') or (mark == 'long' and not also_long):
                continue
            self.line = self.text[: block.start('text')].count('\n')
            getattr(self, f'see_{block["kind"]}')(block['text'])

    @property
    def where(self) -> str:
        return f'{self.page.name}, block at line {self.line}'

    def see_text(self, text):
        pass

    def see_python(self, text):
        exec(compile(text, self.where, 'exec'), self.names)

    def see_pycon(self, text):
        parser = doctest.DocTestParser()
        test = parser.get_doctest(text, self.names, self.page.name, str(self.page), self.line)
        runner = doctest.DocTestRunner(verbose=False)
        runner.run(test, clear_globs=False)
        self.names.update(test.globs)
        assert runner.summarize(verbose=False).failed == 0, self.where

    def see_toml(self, text):
        tables = set(tomllib.loads(text))
        self._written(text)
        if tables <= {*SECTIONS, *ACTIONS, 'job', 'lun', 'costs'}:
            Path('page.toml').write_text(text)
            load(toml='page.toml')

    def see_ini(self, text):
        self._written(text)
        Path('page.fio').write_text(text)
        assert parse_job_file('page.fio')[0], self.where

    def _written(self, text):
        if named := FILE_NAME.match(text):
            Path(named[1]).write_text(text)

    def see_sh(self, text):
        for line in commands(text):
            self._run(line)

    def see_console(self, text):
        checker = doctest.OutputChecker()
        for part in re.split(r'^\$ ', text, flags=re.MULTILINE)[1:]:
            line, _, wanted = part.partition('\n')
            while line.endswith('\\'):
                more, _, wanted = wanted.partition('\n')
                line = line[:-1] + more.lstrip('> ')
            got = self._run(line)
            same = checker.check_output(wanted, got, FLAGS)
            assert same, f'{self.where}: {line}\nprints\n{got}\ninstead of\n{wanted}'

    def _run(self, line):
        """What a command prints; one of the simulator's runs in this process, which is quicker."""
        quick = QUICK.fullmatch(line)
        if quick is None:
            done = subprocess.run(['bash', '-c', line], capture_output=True, text=True)
            assert done.returncode == 0, f'{self.where}: {line}\n{done.stdout}\n{done.stderr}'
            return done.stdout
        words = CAT.sub(lambda cat: Path(cat[1]).read_text().strip(), quick['words'])
        arguments = []
        for word in shlex.split(words, comments=True):
            arguments += sorted(glob.glob(word)) if '*' in word else [word]
        said, complained = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
            code = main(arguments)
        assert code == 0, f'{self.where}: {line}\n{said.getvalue()}\n{complained.getvalue()}'
        return said.getvalue()


def commands(text):
    """The commands of a block of a shell: lines, or more of them where they belong together."""
    whole = ''
    for line in text.replace('\\\n', ' ').splitlines():
        whole += line
        depth = len(re.findall(r'\b(for|while|if)\b', whole)) - len(
            re.findall(r'\b(done|fi)\b', whole)
        )
        if depth > 0:
            whole += '\n'
        elif whole.strip() and not whole.lstrip().startswith('#'):
            yield whole.strip()
            whole = ''
        else:
            whole = ''


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_one_after_the_other(page, folder):
    Reader(page).follow(also_long=False)


@pytest.mark.long
@pages_with('<!-- long -->')
def test_and_so_do_the_long_ones(page, folder):
    Reader(page).follow(also_long=True)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_no_code_hides_outside_of_the_fences(page):
    outside = BLOCK.sub('', page.read_text())
    assert '```' not in outside
    assert (
        re.findall(r'^ {4,}(?:\.venv/bin/)?(?:python|make|pip|from|import|\$) .*', outside, re.M)
        == []
    )


def test_a_block_that_prints_something_else_is_noticed(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('```console\n$ echo one\ntwo\n```\n')
    with pytest.raises(AssertionError, match='instead of'):
        Reader(page).follow(also_long=False)
    page.write_text('```sh\nfalse\n```\n')
    with pytest.raises(AssertionError, match='line 1'):
        Reader(page).follow(also_long=False)


# ------------------------------------------------------------------------------------------- links

EVERY_PAGE = [
    *(TOP / name for name in ('README.md', 'CONTRIBUTING.md', 'results/README.md')),
    *sorted((TOP / 'docs').rglob('*.md')),
]
LINK = re.compile(r'!?\[(?P<text>[^\]]*)\]\((?P<to>[^)\s]+)\)')
HEADING = re.compile(r'^#+ (.*)$', re.MULTILINE)


def links(page):
    for found in LINK.finditer(re.sub(r'```.*?```', '', page.read_text(), flags=re.DOTALL)):
        if '://' not in found['to']:
            yield found['text'], *found['to'].partition('#')[::2]


def anchors(page):
    """As the forges make them of headings."""
    texts = (re.sub(r'[^\w\- ]', '', text.lower()) for text in HEADING.findall(page.read_text()))
    return {text.strip().replace(' ', '-') for text in texts}


@pytest.mark.parametrize('page', EVERY_PAGE, ids=lambda page: str(page.relative_to(TOP)))
def test_links_lead_somewhere(page):
    for _, target, anchor in links(page):
        place = (page.parent / target).resolve() if target else page
        assert place.exists(), target
        assert place.is_relative_to(TOP), target
        if anchor:
            assert anchor in anchors(place), f'{target}#{anchor}'


@pytest.mark.parametrize('page', EVERY_PAGE, ids=lambda page: str(page.relative_to(TOP)))
def test_functions_that_are_named_with_their_file_are_there(page):
    for text, target, _ in links(page):
        named = re.fullmatch(r'`(\w+)\(\)`', text)
        if named and target.endswith('.py'):
            source = (page.parent / target).read_text()
            assert re.search(rf'^ *def {named[1]}\(', source, re.MULTILINE), (text, target)


def test_every_page_is_listed():
    listed = {
        (index.parent / target).resolve()
        for index in (TOP / 'README.md', TOP / 'docs/README.md', TOP / 'docs/background/README.md')
        for _, target, _ in links(index)
    }
    pages = {page for page in (TOP / 'docs').rglob('*.md') if page.parent.name != 'adr'}
    assert pages - listed == {TOP / 'docs/README.md'} - listed


# ------------------------------------------------------------------------------------------ figure


def test_the_figure_of_the_readme_is_of_this_model():
    spec = importlib.util.spec_from_file_location('figure', TOP / 'scripts/readme_figure.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    drawn = module.digests(module.results())
    text = f'{module.KEYWORD}\0{drawn}'.encode()
    assert text in module.FIGURE.read_bytes(), 'run scripts/readme_figure.py'
    assert module.FIGURE.relative_to(TOP).as_posix() in (TOP / 'README.md').read_text()
