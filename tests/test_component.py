"""A disk written in Python stands where the compiled media stand."""

import pytest
import simpy

from sim.config import ConfigError, load
from sim.run import run

WORK = {'iodepth': 8, 'number_ios': 300, 'rw': 'randrw'}


def constant(port):
    """80 us for every command, any number at once: what kind constant does."""

    def serve(command):
        yield port.env.timeout(port.cycles(80_000))
        port.done(command)

    while True:
        port.env.process(serve((yield port.get())))


def forgetful(port):
    """Gives a command back twice."""
    command = yield port.get()
    port.done(command)
    port.done(command)


def python(name, **run_keys):
    target = {'kind': 'python', 'component': f'{__name__}:{name}'}
    return load(workload=WORK, target=target, run=run_keys)


def test_the_same_disk_in_python_and_compiled_gives_the_same_requests():
    ours = run(python('constant'))
    theirs = run(workload=WORK, target={'kind': 'constant', 'service': '80us'})
    assert ours.violations == []
    columns = [c for c in theirs.requests if c.startswith('t_')] + ['stamp', 'outcome']
    assert (ours.requests[columns] == theirs.requests[columns]).all(axis=None)


def test_a_run_with_it_repeats():
    assert run(python('constant')).report['digest'] == run(python('constant')).report['digest']


def test_the_example_reorders_what_waits():
    deep = load(
        workload={'iodepth': 16, 'number_ios': 400},
        target={'kind': 'python', 'component': 'examples.elevator:elevator'},
    )
    result = run(deep)
    assert result.violations == []
    fetched = result.requests.sort_values('t_fetch_ns')['serial'].tolist()
    assert result.requests.sort_values('t_done_ns')['serial'].tolist() != fetched


def test_python_chooses_the_simpy_engine_and_refuses_the_compiled_one():
    assert python('constant').run.engine == 'simpy'
    assert load().run.engine == 'compiled'
    with pytest.raises(ConfigError, match='SimPy engine only'):
        python('constant', engine='compiled')


@pytest.mark.parametrize(
    ('target', 'says'),
    [
        ({'kind': 'python'}, 'needs target.component'),
        ({'kind': 'null', 'component': 'a:b'}, 'has no meaning'),
        ({'kind': 'python', 'component': 'nosuchmodule:disk'}, 'cannot be imported'),
        ({'kind': 'python', 'component': 'examples.elevator:lift'}, 'has no lift'),
        ({'kind': 'python', 'component': 'elevator'}, 'component'),
    ],
)
def test_what_is_no_disk_is_told(target, says):
    with pytest.raises(ConfigError, match=says):
        run(workload=WORK, target=target)


def test_a_command_is_done_once():
    with pytest.raises(ValueError, match='done already'):
        run(python('forgetful'))


def test_time_is_cycles_of_the_host():
    seen = []

    def clock(port):
        assert isinstance(port.env, simpy.Environment)
        seen.append(port.cycles(1000))
        yield from constant(port)

    globals()['clock'] = clock
    run(python('clock'))
    assert seen == [2600]
