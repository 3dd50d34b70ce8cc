"""Every code block of docs/howto runs, and prints what the page says."""

import doctest
import re
from pathlib import Path

import pytest

HOWTO = Path(__file__).resolve().parent.parent / "docs" / "howto"
BLOCK = re.compile(r"^```(pycon|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", sorted(HOWTO.glob("*.md")), ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_one_after_the_other(page):
    names: dict[str, object] = {}
    text = page.read_text()
    for block in BLOCK.finditer(text):
        if block[1] == "python":
            exec(compile(block[2], page.name, "exec"), names)
            continue
        line = text[: block.start()].count("\n") + 1
        test = doctest.DocTestParser().get_doctest(block[2], names, page.name, str(page), line)
        runner = doctest.DocTestRunner(verbose=False)
        runner.run(test, clear_globs=False)
        names.update(test.globs)
        assert runner.summarize(verbose=False).failed == 0, f"{page.name}, block at line {line}"
