"""Threads that share a host CPU (host.shared_cpus): who waits for whom, and what it does."""

import pytest

from sim import agents, costs, guest, host_task, machine
from sim.config import ConfigError, from_effective, load
from sim.control.stopping import plan_of, stop
from sim.engine import ENGINES
from sim.migration import migrate
from sim.run import Phases, run

WORK = {'iodepth': 16, 'number_ios': 1500}
BATCHED = {'ioengine': 'io_uring', 'iodepth_batch_submit': 16, 'iodepth_batch_complete_max': 16}
NULL = {'kind': 'null'}
TOGETHER = 'vhost lio_submit lio_complete'
QEMU = {'driver': 'virtio-scsi-pci'}
# The guest is translated, QEMU is not; without an IOThread's polling.
SLOW_GUEST = {
    'guest.submit_per_cmd_batched': '30us',
    'guest.complete_per_cmd_batched': '30us',
    'irq.guest_handler_entry_exit': '15us',
}


def report(cpus=None, scheduler=None, **sections):
    host = sections.pop('host', {})
    if cpus:
        host = host | {'shared_cpus': cpus}
    if scheduler:
        host = host | {'scheduler': scheduler}
    result = run(**({'workload': WORK, 'target': NULL} | sections), host=host)
    assert result.violations == []
    assert result.report['requests_completed'] == result.report['requests']
    return result.report


# -------------------------------------------------------------------------------- what it does


def test_kworkers_on_the_cpu_of_the_worker_wait_for_it():
    own, shared = report(), report(TOGETHER)
    assert shared['iops'] < 0.85 * own['iops']
    assert shared['stages_ns']['issue'] > 1.5 * own['stages_ns']['issue']
    assert sum(shared['busy'][name] for name in TOGETHER.split()) <= 1
    assert shared['host_switches'] > 100
    assert 'host_switches' not in own


def test_a_thread_woken_where_another_runs_comes_at_a_switch_not_at_a_wakeup():
    work = {'iodepth': 1, 'number_ios': 300}
    wakeup = {'vhost.worker_wakeup_latency_shallow_idle': '2us'}
    own = report(workload=work, costs=wakeup)['latency_ns']['mean']
    for switch in (0, 500):  # from lio_complete, which queues the work, to the worker
        costs = wakeup | {'host.context_switch': f'{switch}ns'}
        shared = report('vhost lio_complete', workload=work, costs=costs)['latency_ns']['mean']
        assert own - shared == pytest.approx(2000 - switch, abs=20)


def test_a_switch_has_its_price():
    cheap, dear = (report(TOGETHER, costs={'host.context_switch': t}) for t in ('0ns', '4us'))
    assert dear['iops'] < 0.9 * cheap['iops']


def test_a_main_loop_that_preempts_a_slow_guest_takes_each_request_alone():
    def kicks(cpus, scheduler):
        where = {'device': QEMU, 'qemu': {'poll_max_ns': 0}, 'costs': SLOW_GUEST}
        return report(cpus, scheduler, **where)

    work = 'vcpu0 iothread'
    cfs, eevdf = kicks(work, 'cfs'), kicks(work, 'eevdf')
    assert cfs['requests_per_kick'] < 1.5
    assert cfs['host_preemptions'] > 500
    assert eevdf['requests_per_kick'] > 4  # the guest has the CPU until it sleeps
    assert eevdf['host_preemptions'] < cfs['host_preemptions'] / 4


def test_a_short_slice_lets_others_in_more_often():
    def preemptions(slice_):
        found = report(TOGETHER, costs={'host.sched_slice': slice_}, workload=WORK | BATCHED)
        return found['host_preemptions']

    assert preemptions('5us') > preemptions('3ms') + 50


# ------------------------------------------------------------------------------ the scheduler


def watched(config, look):
    """Run a config to its end, and show it to `look` again and again; the machine."""
    world = machine.build(config, costs.of_config(config))
    engine = ENGINES['compiled'](world)
    Phases(engine, config)

    def looking(env):
        for _ in range(3000):
            yield env.timeout(617)
            look(world)

    engine.env.process(looking(engine.env))
    engine.run()
    return world


@pytest.mark.parametrize('scheduler', ['cfs', 'eevdf'])
def test_one_thread_runs_at_a_time_and_the_cpu_is_never_idle_while_one_waits(scheduler):
    everybody = f'vcpu0 {TOGETHER}'
    config = load(
        workload=WORK | BATCHED, target=NULL,
        host={'shared_cpus': everybody, 'scheduler': scheduler},
    )  # fmt: skip
    waited = acted = 0

    def look(world):
        nonlocal waited, acted
        cpu = world.bases[world.slots_of(agents.HOST_CPU)[0]]
        table = world.field(cpu, host_task.CPU_LIST)
        tasks = world.st[table : table + world.field(cpu, host_task.CPU_TASKS)].tolist()
        states = [world.field(task, host_task.K_STATE) for task in tasks]
        assert states.count(host_task.RUNNING) <= 1
        holder = world.field(cpu, host_task.CPU_RUNNING)
        assert bool(holder) == (host_task.RUNNING in states)
        if host_task.READY in states and not holder:  # the last one is still on its way out
            now = int(world.st[int(agents.H_NOW)])
            assert world.field(cpu, host_task.CPU_FREE_AT) >= now
        waited += states.count(host_task.READY)
        acted += states.count(host_task.RUNNING)
        entries = int(world.st[int(agents.H_DUE)])
        for task, state in zip(tasks, states, strict=True):
            if state == host_task.READY:  # whoever waits does nothing meanwhile
                assert world.st[entries + world.field(task, host_task.K_SLOT)] == agents.IDLE

    watched(config, look)
    assert waited > 200
    assert acted > 200


@pytest.mark.parametrize('scheduler', ['cfs', 'eevdf'])
def test_two_equal_vcpus_get_equal_shares(scheduler):
    work = {'numjobs': 2, 'iodepth': 4, 'runtime': '40ms', 'ioengine': 'io_uring', 'hipri': True}
    config = load(
        workload=work, target={'kind': 'constant', 'service': '3us'},
        guest={'vcpus': 4, 'poll_queues': 2},
        host={'shared_cpus': 'vcpu0 vcpu1', 'scheduler': scheduler},
        costs={'host.sched_slice': '100us'},
    )  # fmt: skip
    world = watched(config, lambda world: None)
    cpu = world.bases[world.slots_of(agents.HOST_CPU)[0]]
    table = world.field(cpu, host_task.CPU_LIST)
    shares = [world.field(int(task), host_task.K_RUNTIME) for task in world.st[table : table + 2]]
    assert min(shares) > 0.9 * max(shares)
    assert sum(shares) > 0.9 * 40e-3 * config.host.cpu_hz  # and all of it
    done = [world.field(base, guest.V_KICKS) for base in world.bases[:2]]
    assert min(done) > 0.8 * max(done)


def test_an_interrupt_for_a_vcpu_that_waits_is_taken_when_it_runs():
    work = {'numjobs': 2, 'iodepth': 8, 'number_ios': 600}
    own = report(workload=work, device={'num_queues': 1})
    shared = report('vcpu0 vcpu1', workload=work, device={'num_queues': 1})
    assert shared['requests_completed'] == own['requests_completed'] == 1200
    assert shared['stages_ns']['irq'] > own['stages_ns']['irq']


# ------------------------------------------------------------------------------------ engines


@pytest.mark.parametrize('scheduler', ['cfs', 'eevdf'])
@pytest.mark.parametrize(
    'sections',
    [
        {'host': {'shared_cpus': TOGETHER}},
        {'host': {'shared_cpus': f'vcpu0 {TOGETHER}'}, 'workload': WORK | BATCHED},
        {'host': {'shared_cpus': 'vhost vhost1; lio_submit lio_complete1', 'workers': 2},
         'workload': {'numjobs': 2, 'iodepth': 8, 'number_ios': 500}},
        {'host': {'shared_cpus': 'vcpu0 vcpu1 vhost'}, 'guest': {'vcpus': 2, 'poll_queues': 1},
         'device': {'num_queues': 2},
         'workload': WORK | BATCHED | {'hipri': True, 'number_ios': 500}},
        {'host': {'shared_cpus': 'vcpu0 iothread'}, 'device': QEMU},
        {'host': {'shared_cpus': 'vcpu0 vcpu1'}, 'guest': {'vcpus': 2},
         'workload': {'numjobs': 4, 'iodepth': 4, 'number_ios': 300}},
    ],
)  # fmt: skip
def test_both_engines_do_the_same(sections, scheduler):
    sections = {'workload': WORK, 'target': NULL, 'costs': {'host.sched_slice': '20us'}} | sections
    host = sections.pop('host') | {'scheduler': scheduler}
    found = [run(**sections, host=host, run={'engine': engine}) for engine in ('compiled', 'simpy')]
    assert found[0].violations == found[1].violations == []
    assert found[0].report['event_digest'] == found[1].report['event_digest']
    assert found[0].report['host_switches'] == found[1].report['host_switches'] > 50


# ------------------------------------------------------------------------------------- config


def test_without_the_key_a_config_says_nothing_of_it():
    config = load(workload=WORK)
    assert not {'shared_cpus', 'scheduler'} & config.effective()['host'].keys()
    world = machine.build(config, costs.of_config(config))
    assert world.st[int(agents.H_TASKS)] == 0
    assert not world.slots_of(agents.HOST_CPU)


def test_the_scheduler_is_that_of_the_kernel_and_comes_back_from_a_saved_config():
    for kernel, scheduler in (('6.1', 'cfs'), ('6.12', 'eevdf')):
        config = load(host={'kernel': kernel, 'shared_cpus': TOGETHER})
        assert config.host.scheduler == scheduler
        assert from_effective(config.effective()).id == config.id


@pytest.mark.parametrize(
    ('sections', 'words'),
    [
        ({'host': {'shared_cpus': 'vhost'}}, 'vhost is alone on a CPU'),
        ({'host': {'shared_cpus': 'vhost lio_submit;'}}, 'nothing is alone'),
        ({'host': {'shared_cpus': 'vhost iothread'}}, 'no thread iothread can share a CPU here'),
        ({'host': {'shared_cpus': 'vhost vcpu7'}}, 'no thread vcpu7'),
        ({'host': {'shared_cpus': 'vhost vcpu0; vhost lio_submit'}}, 'vhost is there twice'),
        ({'host': {'scheduler': 'cfs'}}, 'no meaning without host.shared_cpus'),
        ({'host': {'workers': 2, 'worker_cpus': '0,0', 'shared_cpus': 'vhost vhost1'},
          'workload': {'numjobs': 2}}, 'no thread vhost '),
        ({'device': {'driver': 'vhost-user-scsi-pci'}, 'host': {'shared_cpus': 'vcpu0 reactor'}},
         'no thread reactor'),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(sections, words):
    with pytest.raises(ConfigError) as caught:
        load(**sections)
    assert words in str(caught.value)
    assert '\n' not in str(caught.value)


def test_a_stop_and_a_migration_are_refused():
    config = load(workload=WORK, host={'shared_cpus': TOGETHER})
    with pytest.raises(ConfigError, match='shared_cpus: a stop'):
        stop(config, plan_of(config, at='1ms'))
    with pytest.raises(ConfigError, match='shared_cpus: a migration'):
        migrate(config)
