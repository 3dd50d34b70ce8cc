"""What control asks of the vhost worker: vq->mutex between runs, the two counts, flush works."""

import numpy as np
import pytest

from sim import agents, backend, costs, machine
from sim.analysis.frame import trace_rows
from sim.config import load
from sim.engine import ENGINES
from sim.record import R_FETCH, R_USED
from sim.run import Phases


def started(engine, **workload):
    """A machine with its engine, jobs begun, and the notices that it leaves, with their times."""
    config = load(
        workload={'number_ios': 60, 'iodepth': 4, **workload},
        target={'kind': 'lanes', 'service': '20us', 'distribution': 'exponential', 'lanes': 8},
        run={'engine': engine},
    )
    world = machine.build(config, costs.of_config(config))
    driver = ENGINES[engine](world)
    Phases(driver, config)
    notices = []
    driver.listeners.append(lambda bits: notices.append((int(driver.env.now), bits)))
    return world, driver, notices


def at(driver, time, action):
    """Call `action` as control at `time`."""

    def process():
        yield driver.env.timeout(time)
        action()
        driver.wake_agents()

    driver.env.process(process())


@pytest.mark.parametrize('engine', ENGINES)
def test_a_count_falls_to_zero_when_the_last_command_of_before_is_answered(engine):
    world, driver, notices = started(engine)
    q = world.host_queues[0]
    st, moment = world.st, 400_000
    old = q + int(backend.Q_INFLIGHTS)

    def turn_over():
        st[old + 1] = 1
        st[q + int(backend.Q_INFLIGHT)] = old + 1
        st[old] -= 1

    at(driver, moment, turn_over)
    driver.run()
    trace = trace_rows(world)
    fetched, used = trace[:, int(R_FETCH)] - 1, trace[:, int(R_USED)] - 1
    before = used[(fetched < moment) & (used >= moment)]
    after = used[fetched >= moment]
    assert before.size > 1
    assert after.min() < before.max()  # some that came later overtook
    assert [time for time, bits in notices if bits & agents.N_INFLIGHT] == [before.max()]
    assert st[old] == 0
    assert st[old + 1] == 1  # and never falls to zero without a flush


@pytest.mark.parametrize('engine', ENGINES)
def test_without_a_flush_nobody_is_told(engine):
    _, driver, notices = started(engine)
    driver.run()
    assert {bits for _, bits in notices} == {agents.N_JOB_DONE}


@pytest.mark.parametrize('engine', ENGINES)
def test_a_flush_work_runs_behind_everything_that_was_queued_before(engine):
    world, driver, notices = started(engine, iodepth=16)
    st = world.st
    b = np.uint64(world.bases[world.slots_of(agents.WORKER)[0]])
    lists = []

    def flush():
        lists.append(int(st[b + backend.B_WORK_COUNT]))
        backend.queue_flush(st, b, int(driver.env.now))

    for moment in range(100_000, 900_000, 50_000):
        at(driver, moment, flush)
    driver.run()
    flushed = [time for time, bits in notices if bits & agents.N_FLUSHED]
    assert len(flushed) == len(lists)
    assert st[b + backend.B_FLUSHED] == st[b + backend.B_FLUSHES] == len(lists)
    assert max(lists) > 0  # there was something to wait for


@pytest.mark.parametrize('engine', ENGINES)
def test_control_gets_the_mutex_when_the_run_ends(engine):
    world, driver, notices = started(engine, iodepth=16)
    st, q = world.st, world.host_queues[0]
    mutex = q + int(backend.Q_MUTEX)
    b = world.bases[world.slots_of(agents.WORKER)[0]]
    asked = []

    def lock():
        state = int(st[b])
        running = state in (backend.FETCH, backend.RECHECK, backend.USED)
        assert (st[mutex] != backend.FREE) == running
        if running:
            st[mutex] = backend.WANTED
            asked.append(int(driver.env.now))

    for moment in range(100_000, 900_000, 10_001):
        at(driver, moment, lock)
    driver.run()
    got = [time for time, bits in notices if bits & agents.N_MUTEX]
    assert len(asked) > 5
    assert st[mutex] == backend.FREE
    for moment in asked:  # a wait may serve two that ask
        assert any(moment <= time < moment + 200_000 for time in got)
