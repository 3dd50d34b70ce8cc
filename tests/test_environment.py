"""Commands leave the environment of their process as they found it."""

import os

import pytest

import sim.jit
from sim.__main__ import main


@pytest.mark.parametrize(
    'command', [['scsi', 'inquiry'], ['ioctls', '--scenario', 'init']], ids=lambda c: c[0]
)
def test_a_quick_command_does_not_slow_down_the_processes_that_come_after_it(command, capsys):
    before = dict(os.environ)
    assert main(command) == 0
    assert dict(os.environ) == before


def test_two_checkouts_share_what_was_compiled(tmp_path):
    """Same sources, same kernels: their place in the cache is that in the package."""
    here = sim.jit.KernelLocator.get_suitable_cache_subpath(str(sim.jit.HERE / 'ring' / 'state.py'))
    assert here == f'{sim.jit.HERE.name}/ring'
    assert sim.jit.KernelLocator.from_function(main, str(tmp_path / 'elsewhere.py')) is None


def test_a_first_run_on_a_terminal_says_once_that_it_compiles(monkeypatch, capsys):
    from numba.core import event

    from sim import compiling

    notice = compiling.Notice()
    monkeypatch.setattr(compiling, 'NOTICE', notice)
    compiling.tell_on_a_terminal()
    with event.trigger_event('numba:compile'):
        pass
    assert capsys.readouterr().err == ''  # nobody watches
    monkeypatch.setattr('sys.stderr.isatty', lambda: True)
    compiling.tell_on_a_terminal()
    compiling.tell_on_a_terminal()
    for _ in range(2):
        with event.trigger_event('numba:compile'):
            pass
    event.unregister('numba:compile', notice)
    assert capsys.readouterr().err == f'{compiling.NOTE}\n'
