"""The same ring without the compiler: what the other files run compiled runs as Python here."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STORIES = ('vectors', 'vring_split', 'vring_packed', 'vring_order', 'vring_state', 'vring_machine')


def test_the_rings_stories_are_true_in_plain_python():
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '--durations=0']
        + [f'tests/test_{name}.py' for name in STORIES],
        cwd=ROOT,
        env=os.environ | {'NUMBA_DISABLE_JIT': '1', 'HYPOTHESIS_PROFILE': 'smoke'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert int(re.search(r'(\d+) passed', done.stdout)[1]) > 200
