"""Two schedulers, one behaviour: the same digest, whatever is simulated."""

import os
from pathlib import Path

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import agents, costs, machine
from sim.config import ConfigError, load
from sim.engine import ENGINES, CompiledEngine
from sim.run import Phases, digest_of, run, start_actions

EXAMPLES = Path(__file__).resolve().parent.parent / 'examples'
SAMPLES = ['mail-server.iolog', 'oltp.blkparse.txt']

# A hundred configs in CI; on a second Python, with the smoke profile, ten.
CONFIGS = 10 if os.environ.get('HYPOTHESIS_PROFILE') == 'smoke' else 100


def engine_of(config, name='compiled'):
    """An engine with its machine and its phases, ready to run."""
    world = machine.build(config, costs.of_config(config))
    engine = ENGINES[name](world)
    Phases(engine, config)
    start_actions(engine, config)
    return engine


def digest(config, name, control=None):
    engine = engine_of(config, name)
    if control is not None:
        engine.env.process(control(engine.env))
    engine.run()
    return digest_of(engine.machine)


@st.composite
def arrivals(draw, depth):
    """When the I/O of a job comes."""
    process = draw(st.sampled_from(['linear', 'poisson']))
    rate = {'rate_iops': draw(st.sampled_from([50_000, 333_333])), 'rate_process': process}
    bursts = {'burst_on': '70us', 'burst_off': '30us'}
    return draw(
        st.sampled_from(
            [
                {},
                {'iodepth_low': max(depth // 2, 1), 'startdelay': '3us'},
                {'thinktime': 9, 'thinktime_spin': 4, 'thinktime_blocks': 3},
                {'thinktime': 9, 'thinktime_iotime': '100us'},
                bursts,
                rate,
                {'rate': '99m', 'rate_process': process},
                rate | {'io_submit_mode': 'offload'},
                rate | bursts | {'io_submit_mode': 'offload', 'burst_ios': 5},
                rate | {'io_submit_mode': 'offload', 'runtime': '300us', 'time_based': True},
            ]
        )
    )


@st.composite
def places(draw, rw):
    """Where it goes and how long it is."""
    random = [
        {'random_distribution': 'zipf:1.2'},
        {'random_distribution': 'pareto:0.3:0.1'},
        {'random_distribution': 'normal:20'},
        {'random_distribution': 'zoned:70/10:30/90'},
        {'percentage_random': 40},
        {'norandommap': True},
    ]
    any_order = [
        {},
        {'bssplit': '4k/30:8k/:512/'},
        {'bsrange': '1k-9k,4k-32k'},
        {'bs': '8k,512'},
        {'offset': '4k', 'size': '512k', 'loops': 2, 'number_ios': 9},
    ]
    return draw(st.sampled_from(any_order + random * rw.startswith('rand')))


def replay(workload, name):
    """The first I/Os of a sample trace instead."""
    kept = ('number_ios', 'iodepth', 'iodepth_batch_submit', 'ioengine', 'numjobs')
    path = str(EXAMPLES / name)
    return {key: workload[key] for key in kept} | {'read_iolog': path, 'loops': 2}


@st.composite
def hosts(draw, queues):
    """Kernel, workers and their CPUs, for so many request queues: sections device and host."""
    kernel = draw(st.sampled_from(['6.1', '6.12', '7.2']))
    host = {'kernel': kernel, 'deep_idle': draw(st.booleans())}
    count = 1
    per_queue = draw(st.booleans())
    if kernel != '6.1' and per_queue:
        count = queues
    elif kernel != '6.1':
        count = draw(st.integers(1, queues))
        cuts = sorted(draw(st.permutations(range(3, queues + 2)))[: count - 1])
        order = draw(st.permutations(range(2, queues + 2)))
        parts = zip([2, *cuts], [*cuts, queues + 2], strict=True)
        lists = [list(order[first - 2 : end - 2]) for first, end in parts]
        host['workers'] = draw(st.sampled_from([count, lists]))
    host['worker_cpus'] = [draw(st.integers(0, 2)) for _ in range(count)]
    return {'worker_per_virtqueue': per_queue}, host


@st.composite
def stacks(draw, queues):
    """A driver and who serves it: sections device, host, qemu."""
    driver = draw(st.sampled_from(['vhost-scsi-pci'] * 3 + ['vhost-user-scsi-pci', QEMU, QEMU]))
    if driver == 'vhost-scsi-pci':
        device, host = draw(hosts(queues))
        return {'device': device | {'driver': driver}, 'host': host}
    if driver != QEMU:
        return {'device': {'driver': driver}}
    polling = {
        'poll_max_ns': draw(st.sampled_from([0, 4000, 32768])),
        'poll_grow': draw(st.integers(0, 3)),
        'poll_shrink': draw(st.integers(0, 2)),
    }
    version = draw(st.sampled_from(['7.2', '9.2', '10.2']))
    return {'device': {'driver': driver}, 'qemu': polling | {'version': version}}


QEMU = 'virtio-scsi-pci'


@st.composite
def actions(draw):
    """Tasks of the error handler, LUNs that come and go."""
    at = st.integers(0, 900).map(lambda us: f'{us}us')
    functions = ['lun_reset', 'lun_reset', 'abort_task', 'an_query']
    tmfs = [
        {'at': draw(at), 'function': draw(st.sampled_from(functions)), 'lun': draw(number)}
        for _ in range(draw(st.integers(0, 3)))
    ]
    times = sorted(draw(st.lists(st.integers(1, 900), max_size=3, unique=True)))
    kinds = [['remove', 'add'], ['add', 'remove']][draw(st.integers(0, 1))]
    lun = draw(number)
    hotplugs = [
        {'at': f'{time}us', 'action': kinds[place % 2], 'lun': lun}
        for place, time in enumerate(times)
    ]
    found = {'tmf': tmfs, 'hotplug': hotplugs}
    return {name: tables for name, tables in found.items() if tables}


number = st.integers(0, 1)


@st.composite
def configs(draw):
    """Small runs of every kind that the model knows."""
    depth = draw(st.integers(1, 40))
    bs = draw(st.sampled_from([512, 4096, 16384, 65536]))
    kind = draw(st.sampled_from(['null', 'constant', 'exponential', 'lanes', 'ssd']))
    target = {'kind': kind, 'luns': 2}
    if kind == 'ssd':
        target['write_cache'] = draw(st.sampled_from([0, '64k']))
    elif kind != 'null':
        target |= {'service': f'{draw(st.integers(1, 90))}us', 'lanes': draw(st.integers(1, 9))}
    if kind == 'lanes':
        target['serial'] = f'{draw(st.integers(0, 9))}us'
    workload = {
        'number_ios': draw(st.integers(1, 60)),
        'rw': draw(st.sampled_from(['randread', 'randrw', 'write', 'read'])),
        'bs': bs,
        'size': draw(st.sampled_from(['1m', '64m'])),
        'iodepth': depth,
        'iodepth_batch_submit': draw(st.integers(1, depth)),
        'iodepth_batch_complete_min': draw(st.integers(1, depth)),
        'iodepth_batch_complete_max': depth,
        'ioengine': draw(st.sampled_from(['libaio', 'io_uring'])),
        'numjobs': draw(st.integers(1, 4)),
    }
    workload |= draw(arrivals(depth))
    workload |= draw(places(workload['rw']))
    polled = draw(st.integers(0, 3))
    if draw(st.booleans()):
        workload |= {'fsync': draw(st.integers(0, 5)), 'end_fsync': draw(st.booleans())}
    if draw(st.integers(0, 9)) == 0:
        workload = replay(workload, draw(st.sampled_from(SAMPLES)))
    queues, vcpus = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    few = depth * workload['numjobs'] <= 32  # no more than the smallest ring has
    if polled and few and min(queues, vcpus) > 1 and workload['ioengine'] == 'io_uring':
        workload['hipri'] = draw(st.booleans())
    stack = draw(stacks(min(queues, vcpus)))
    in_kernel = stack['device']['driver'] == 'vhost-scsi-pci'
    if stack['device']['driver'] == 'vhost-user-scsi-pci':
        target['luns'] = 1  # of a target there
    return load(
        workload=workload,
        **{name: keys for name, keys in stack.items() if name != 'device'},
        device=stack['device']
        | {
            'num_queues': queues,
            'virtqueue_size': draw(st.sampled_from([32, 128])),
            'event_idx': draw(st.booleans()),
            'indirect_desc': draw(st.booleans()),
            'packed': draw(st.booleans()),
            'in_order': draw(st.booleans()),
            'cmd_per_lun': draw(st.sampled_from([3, 128])),
            'hotplug': draw(st.booleans()),
        },
        guest={
            'halt_poll_ns': draw(st.sampled_from([0, 200_000])),
            'kernel': '7.2',
            'poll_queues': polled,
            'vcpus': vcpus,
        },
        target=target,
        run={'seed': draw(st.integers(0, 2**32)), 'hypothetical': True},
        costs={'guest.sched_slice': draw(st.sampled_from(['30us', '3ms']))},
        **(draw(actions()) if in_kernel and draw(st.integers(0, 2)) == 0 else {}),
    )


@settings(max_examples=CONFIGS)
@given(configs())
def test_both_engines_make_the_same_history(config):
    assert digest(config, 'compiled') == digest(config, 'simpy')


@settings(max_examples=CONFIGS // 4)
@given(configs())
def test_whatever_the_features_no_rule_is_broken(config):
    assert run(config).violations == []


def test_queues_that_share_a_lun_restart_each_other():
    # Sixteen queues ask for 64 each where the LUN takes 128 at a time.
    work = {'numjobs': 16, 'iodepth': 64, 'number_ios': 200}
    result = run(workload=work, target={'kind': 'exponential', 'service': '60us'})
    assert result.report['requests_requeued'] > 0
    assert result.violations == []


@settings(max_examples=CONFIGS // 5)
@given(configs(), st.integers(1, 200_000))
def test_a_hand_over_at_any_interval_changes_nothing(config, cycles):
    def look_in(env):
        for _ in range(300):
            yield env.timeout(cycles)

    undisturbed = digest(config, 'compiled')
    assert digest(config, 'compiled', look_in) == undisturbed
    assert digest(config, 'simpy', look_in) == undisturbed


def watch(engine, log):
    """A control process that looks every 977 cycles: time, steps so far, time of the last one."""
    for _ in range(2000):
        yield engine.env.timeout(977)
        state = engine.machine.st
        log.append((engine.env.now, int(state[int(agents.H_STEPS)]), int(state[int(agents.H_NOW)])))


def test_control_comes_before_the_agents_of_its_time():
    seen = {}
    for name in ENGINES:
        config = load(workload={'iodepth': 4, 'number_ios': 50})
        engine = engine_of(config, name)

        seen[name] = []
        engine.env.process(watch(engine, seen[name]))
        engine.run()
    assert seen['compiled'] == seen['simpy']
    assert all(last < now for now, steps, last in seen['compiled'] if steps)


def test_the_compiled_engine_is_called_once_per_control_event_and_not_per_step():
    report = run(workload={'iodepth': 8, 'number_ios': 5000}).report
    assert report['steps'] > 50_000
    assert report['engine_calls'] < 10


@pytest.mark.parametrize('name', sorted(ENGINES))
def test_a_run_that_outlasts_the_clock_is_refused_and_not_wrapped(name):
    config = load(workload={'iodepth': 1, 'number_ios': 3, 'thinktime': '23h'})
    with pytest.raises(ConfigError, match='end of the clock'):
        engine_of(config, name).run()


@pytest.mark.parametrize('vcpus', [1, 3, 8, 40])
def test_the_calendar_finds_the_first_of_any_number_of_agents(vcpus):
    config = load(workload={'numjobs': vcpus, 'iodepth': 2, 'number_ios': 20})
    assert digest(config, 'compiled') == digest(config, 'simpy')


def test_an_error_of_a_control_process_reaches_the_caller():
    engine = engine_of(load(workload={'number_ios': 10}))

    def broken(env: simpy.Environment):
        yield env.timeout(1000)
        raise RuntimeError('of the control process')

    engine.env.process(broken(engine.env))
    with pytest.raises(RuntimeError, match='control process'):
        engine.run()
    assert isinstance(engine, CompiledEngine)
