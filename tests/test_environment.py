"""Commands leave the environment of their process as they found it."""

import os

import pytest

import sim.jit  # noqa: F401  (numba is loaded)
from sim.__main__ import main


@pytest.mark.parametrize(
    'command', [['scsi', 'inquiry'], ['ioctls', '--scenario', 'init']], ids=lambda c: c[0]
)
def test_a_quick_command_does_not_slow_down_the_processes_that_come_after_it(command, capsys):
    before = dict(os.environ)
    assert main(command) == 0
    assert dict(os.environ) == before
