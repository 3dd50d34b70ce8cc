"""vhost workers: which queue's works run on which of them, and on which host CPU."""

import dataclasses

import numpy as np
import pytest

from sim import agents, backend, costs, machine, vring
from sim.analysis.bounds import bounds
from sim.config import ConfigError, from_effective, load
from sim.engine import ENGINES
from sim.run import Phases, digest_of, run

BUSY = {'numjobs': 4, 'iodepth': 16, 'number_ios': 1200}
FAST = {'kind': 'null'}


def report(**sections):
    result = run(**({'workload': BUSY, 'target': FAST} | sections))
    assert result.violations == []
    return result.report


# ------------------------------------------------------------------------------- who serves what


def test_one_worker_is_the_bottleneck_of_a_device_with_many_queues():
    shared = report()
    own = report(device={'worker_per_virtqueue': True})
    assert shared['busy']['vhost'] > 0.9
    assert own['iops'] > 1.8 * shared['iops']
    assert sum(name.startswith('vhost') for name in own['busy']) == 4


def test_on_linux_6_1_worker_per_virtqueue_leaves_one_worker_and_a_note():
    asked = load(
        workload=BUSY,
        target=FAST,
        host={'kernel': '6.1'},
        device={'worker_per_virtqueue': True},
    )
    assert any('ENOTTY' in note for note in asked.notes)
    found = run(asked).report
    assert found['event_digest'] == report(host={'kernel': '6.1'})['event_digest']


@pytest.mark.parametrize('factor', [2, 3])
def test_the_ceiling_of_one_worker_is_its_cost_per_command(factor):
    config = load(workload=BUSY | {'iodepth': 64, 'number_ios': 3000}, target=FAST)
    table = costs.of_config(config)
    free = dict.fromkeys(('line_hit', 'line_shared', 'line_transfer', 'line_cold'), 0)
    found = []
    for part in (1, factor):
        less = {
            name: getattr(table, name) * 12 // part
            for name in ('worker_pop', 'worker_submit', 'worker_complete')
        }
        changed = dataclasses.replace(table, **free, **less)
        result = run(config, costs_override=changed).report
        per_command = sum(less.values()) / config.host.cpu_hz
        assert result['iops'] == pytest.approx(1 / per_command, rel=0.02)
        found.append(result['iops'])
    assert found[1] == pytest.approx(factor * found[0], rel=0.02)


@pytest.mark.parametrize(
    ('host', 'most'),
    [({}, 1), ({'workers': 3}, 3), ({'workers': 4, 'worker_cpus': [0, 0, 1, 1]}, 2)],
)
def test_the_bound_of_a_config_has_as_many_servers_as_workers_have_cpus(host, most):
    work = BUSY | {'numjobs': 4, 'iodepth': 32}
    one, _ = bounds(load(workload=work, target=FAST))
    config = load(workload=work, target=FAST, host=host)
    bound, _ = bounds(config)
    assert bound == pytest.approx(min(most * one, bounds_of_the_guest(config)), rel=0.001)
    assert run(config).report['iops'] <= bound


def bounds_of_the_guest(config):
    table = costs.of_config(config)
    cycles = table.guest_submit + table.guest_complete
    return 4 * config.host.cpu_hz / cycles


def test_works_of_a_queue_run_on_its_worker():
    config = load(
        workload=BUSY,
        target=FAST,
        host={'workers': '[[2, 4], [5, 3]]'},
    )
    world = machine.build(config, costs.of_config(config))
    bases = [world.bases[slot] for slot in world.slots_of(agents.WORKER)]
    served = [bases.index(world.field(q, backend.Q_WORKER)) for q in world.host_vqs]
    assert served == [0, 0, 0, 1, 0, 1]
    engine = ENGINES['compiled'](world)
    Phases(engine, config)
    seen = []

    def look(env):
        for _ in range(3000):
            yield env.timeout(997)
            seen.extend(
                (place, world.field(world.field(base, backend.B_QUEUE), backend.Q_INDEX))
                for place, base in enumerate(bases)
                if world.field(base, agents.A_STATE) in (backend.FETCH, backend.USED)
            )

    engine.env.process(look(engine.env))
    engine.run()
    assert {vq for place, vq in seen if place == 0} == {2, 4}
    assert {vq for place, vq in seen if place == 1} == {3, 5}


def test_a_number_of_workers_takes_queues_in_turn():
    config = load(workload=BUSY, host={'workers': 3})
    assert config.worker_vqs == ((0, 1, 2, 5), (3,), (4,))


def test_qemu_gives_each_queue_behind_the_first_a_worker():
    config = load(workload=BUSY, device={'worker_per_virtqueue': True})
    assert config.worker_vqs == ((0, 1, 2), (3,), (4,), (5,))
    assert from_effective(config.effective()).effective() == config.effective()


def test_the_control_queue_may_have_a_worker_of_its_own():
    config = load(workload=BUSY, host={'workers': [[2, 3, 4, 5], [0]]})
    assert config.worker_vqs == ((1, 2, 3, 4, 5), (0,))
    assert from_effective(config.effective()).worker_vqs == config.worker_vqs


def test_a_full_machine_works():
    work = {'numjobs': 128, 'iodepth': 2, 'number_ios': 12}
    found = report(workload=work, device={'worker_per_virtqueue': True})
    assert found['requests_completed'] == 128 * 12
    assert found['busy']['vhost127'] > 0


def test_a_kworker_pair_stands_on_each_cpu_of_a_worker():
    own = report(device={'worker_per_virtqueue': True})
    one = report(device={'worker_per_virtqueue': True}, host={'worker_cpus': '7,7,7,7'})
    assert 'lio_submit3' in own['busy']
    assert 'lio_submit1' not in one['busy']
    worked = [run['busy']['lio_submit'] * run['simulated_seconds'] for run in (one, own)]
    assert worked[0] == pytest.approx(4 * worked[1])


# -------------------------------------------------------------------------------------- host CPUs


def test_workers_on_one_cpu_are_no_faster_than_one_worker():
    one = report()
    own = report(host={'workers': 2})
    shared = report(host={'workers': 2, 'worker_cpus': [3, 3]})
    assert own['iops'] > 1.5 * one['iops']
    assert shared['iops'] < 1.05 * one['iops']
    assert shared['busy']['vhost'] + shared['busy']['vhost1'] <= 1


def test_only_the_switch_makes_two_workers_on_one_cpu_slower_than_one():
    def shared(switch):
        where = {'workers': 2, 'worker_cpus': [0, 0]}
        work = BUSY | {'iodepth': 4}
        return report(workload=work, host=where, costs={'host.context_switch': switch})

    cheap, dear = shared('0ns'), shared('4us')
    assert dear['iops'] < 0.8 * cheap['iops']
    assert dear['latency_ns']['mean'] > cheap['latency_ns']['mean']


def test_never_two_workers_run_on_one_cpu():
    config = load(workload=BUSY, target=FAST, host={'workers': 4, 'worker_cpus': [0, 1, 0, 1]})
    world = machine.build(config, costs.of_config(config))
    engine = ENGINES['compiled'](world)
    Phases(engine, config)
    bases = [world.bases[slot] for slot in world.slots_of(agents.WORKER)]
    idle = (backend.SLEEP, backend.READY)
    waited = 0

    def look(env):
        nonlocal waited
        for _ in range(4000):
            yield env.timeout(613)
            states = [world.field(base, agents.A_STATE) for base in bases]
            assert sum(state not in idle for state in states[::2]) <= 1
            assert sum(state not in idle for state in states[1::2]) <= 1
            waited += states.count(backend.READY)

    engine.env.process(look(engine.env))
    engine.run()
    assert waited > 100


# --------------------------------------------------------------------------------------- sleeping


def slow(service, **host):
    """Median latency in ns of one request at a time on a slow disk."""
    found = run(
        workload={'number_ios': 30},
        target={'kind': 'constant', 'service': service},
        guest={'halt_poll_ns': 10**9},
        host=host,
    )
    return found.report['latency_ns']['p50']


def test_a_worker_that_slept_long_wakes_from_a_deep_state_if_the_host_may():
    deep = costs.load_preset('icx-2.6ghz').parameters
    shallow_ns, deep_ns = (
        round(deep[f'vhost.worker_wakeup_latency_{name}'].value * 10 / 26)
        for name in ('shallow_idle', 'deep_cstate')
    )
    assert slow('900us', deep_idle=True) - slow('900us') == pytest.approx(
        deep_ns - shallow_ns, abs=3
    )
    assert slow('300us', deep_idle=True) == slow('300us')  # below the target residency


def test_a_kick_is_cheaper_where_the_worker_runs():
    def busy(percent, **work):
        share = {'kick.wakeup_share_of_signal': percent}
        found = report(workload=work, costs=share)
        return found['busy']['vcpu0'] * found['simulated_seconds'], found['latency_ns']

    one_by_one = {'number_ios': 200}  # the worker always sleeps: who pays for what is all the same
    assert busy(90, **one_by_one) == busy(10, **one_by_one)
    together = {'numjobs': 4, 'iodepth': 8, 'number_ios': 400}
    assert busy(90, **together)[0] < busy(10, **together)[0]


# ----------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ('sections', 'problem'),
    [
        ({'host': {'workers': 0}}, 'is out of range: 1 to 1024'),
        ({'host': {'workers': 5}}, 'there are 4 request queues'),
        ({'host': {'workers': []}}, 'names no worker'),
        ({'host': {'workers': '[[2,3'}}, 'is neither a number nor a list'),
        ({'host': {'workers': [[2, 3, 4, 5], []]}}, 'worker 1 has no virtqueue'),
        ({'host': {'workers': [[2, 3], [4]]}}, 'no worker has virtqueue 5'),
        ({'host': {'workers': [[2, 3], [3, 4, 5]]}}, 'virtqueue 3 is there twice'),
        ({'host': {'workers': [[2, 3], [4, 5, 6]]}}, 'there is no virtqueue 6'),
        ({'host': {'workers': [[2, 3], [4, 'x']]}}, 'is no list of numbers'),
        ({'host': {'workers': 2, 'kernel': '6.1'}}, 'Linux 6.1 has one vhost worker'),
        ({'host': {'worker_cpus': '0,1'}}, 'names 2 CPUs for 1 workers'),
        ({'host': {'worker_cpus': 'a'}}, 'is no list of numbers'),
        ({'host': {'worker_cpus': [-1]}}, 'numbered from 0'),
        (
            {'host': {'workers': 2}, 'device': {'worker_per_virtqueue': True}},
            'keep one of the two',
        ),
        (
            {'qemu': {'version': '8.2'}, 'device': {'worker_per_virtqueue': True}},
            'it came with 9.0',
        ),
    ],
)
def test_a_map_that_makes_no_sense_is_refused(sections, problem):
    with pytest.raises(ConfigError) as caught:
        load(workload=BUSY, **sections)
    assert problem in str(caught.value)
    assert '\n' not in str(caught.value)


def test_lines_are_charged_to_the_cpu_that_a_worker_runs_on():
    own = report(host={'workers': 2})['lines']
    one = report(host={'workers': 2, 'worker_cpus': [0, 0]})['lines']
    assert set(own) - set(one) == {'vhost1'}
    assert np.all([own['vhost1'][kind] > 0 for kind in ('hits', 'transfers')])


# ---------------------------------------------------------------------------------------- SIGKILL


def killed(engine, at):
    """A machine with a worker per queue, of which that of vq 4 is killed at a time."""
    config = load(
        workload={'numjobs': 3, 'iodepth': 8, 'number_ios': 100},
        device={'worker_per_virtqueue': True},
        target={'kind': 'exponential', 'service': '60us'},
    )
    world = machine.build(config, costs.of_config(config))
    driver = ENGINES[engine](world)
    Phases(driver, config)
    worker = world.bases[world.slots_of(agents.WORKER)[2]]
    seen = {}

    def kill(env):
        yield env.timeout(at)
        seen['detached'] = backend.kill_worker(world.st, np.uint64(worker))
        seen['used'] = world.field(world.devices[4], vring.V_LAST_USED)

    driver.env.process(kill(driver.env))
    driver.run()
    return world, worker, seen


@pytest.mark.parametrize('engine', ENGINES)
def test_a_killed_worker_finishes_its_list_and_its_queue_is_answered_no_more(engine):
    world, worker, seen = killed(engine, 700_000)
    assert seen['detached'] == 1
    queue, other = world.host_vqs[4], world.host_vqs[3]
    assert world.field(queue, backend.Q_WORKER) == 0
    assert world.field(worker, backend.B_WORK_COUNT) == 0
    dropped = world.field(queue, backend.Q_DROPPED)
    assert dropped > 0
    assert world.field(queue, backend.Q_TAG_FREE) == 128  # their resources are free again
    assert world.field(queue, backend.Q_INFLIGHTS) == 1  # a flush would not wait for them
    device = world.devices[4]
    used = world.field(device, vring.V_LAST_USED)
    assert used - seen['used'] <= 8  # what was in its list
    assert world.field(device, vring.V_LAST_AVAIL) - used == dropped
    assert world.field(other, backend.Q_DROPPED) == 0
    assert world.field(world.devices[3], vring.V_LAST_USED) == 100


def test_the_engines_agree_about_a_killed_worker():
    for at in (1_000, 300_000, 701_234):
        digests = {digest_of(killed(name, at)[0]) for name in ENGINES}
        assert len(digests) == 1


def test_a_kick_to_a_queue_without_a_worker_is_lost():
    world, _, _ = killed('compiled', 1)
    assert world.field(world.devices[4], vring.V_LAST_AVAIL) == 0
    assert world.field(world.host_vqs[4], backend.Q_KICK_QUEUED) == 0
