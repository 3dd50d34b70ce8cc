"""Every notebook runs from top to bottom, is one with its text, and ends with a figure."""

from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / 'notebooks').glob('*.ipynb'))


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_and_its_text_say_the_same(path):
    notebook, text = nbformat.read(path, 4), jupytext.read(path.with_suffix('.py'))
    cells = [(cell.cell_type, cell.source) for cell in text.cells]
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == cells


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings('ignore::DeprecationWarning')  # of the Jupyter packages
def test_a_notebook_runs_and_ends_with_a_figure(path):
    notebook = nbformat.read(path, 4)
    top = {'metadata': {'path': path.parent.parent}}
    NotebookClient(notebook, timeout=300, resources=top).execute()
    assert any('image/png' in output.get('data', {}) for output in notebook.cells[-1].outputs)
