"""A VM that stops and goes on: how long the drain takes, what happens to every request, and why."""

import json
import subprocess
import sys

import numpy as np
import pytest

from sim import agents, backend, costs, machine, vring
from sim.analysis import frame
from sim.analysis.frame import COLUMN
from sim.config import load
from sim.control.power import switch_on
from sim.control.stop_policy import POLICIES, policy_named
from sim.control.stopping import PHASES, StopPlan, plan_of, stop
from sim.engine import ENGINES
from sim.errors import ConfigError
from sim.layout import USED_IDX
from sim.run import Phases
from sim.vhost.dev import index_at

MS = 1_000_000
DISK_100MS = {'kind': 'lanes', 'service': '100ms', 'distribution': 'constant', 'lanes': 64}
SLOW_WORKER = {'vhost.worker_pop_share': '20us'}  # as under emulation: fetching takes its time


def config(depth=16, *, target=DISK_100MS, ios=None, **sections):
    workload = {'iodepth': depth, 'number_ios': ios or 3 * depth}
    workload |= sections.pop('workload', {})
    return load(workload=workload, target=target, **sections)


def drained(depth, **sections):
    return stop(config(depth, **sections), StopPlan(at=20 * MS))


# ----------------------------------------------------------------------------------------- physics


@pytest.fixture(scope='module')
def depths():
    return {depth: drained(depth) for depth in (1, 4, 16, 64)}


def test_a_parallel_disk_drains_in_its_residual_service_time_whatever_the_depth(depths):
    taken = {depth: report['clear_endpoint_ns'] for depth, report in depths.items()}
    floor = stop(config(1, ios=400, target={'kind': 'null'}), StopPlan(at=200_000))
    for depth, report in depths.items():
        assert report['in_flight_at_stop'] == depth
        # the vCPUs take 30 us to stand still; the last request is with the disk 200 us later
        most = 80 * MS + floor['clear_endpoint_ns'] + 200_000
        assert 80 * MS - 30_000 <= taken[depth] < most
    assert max(taken.values()) - min(taken.values()) < 300_000
    assert floor['clear_endpoint_ns'] < 1 * MS


def test_a_serial_disk_drains_one_after_the_other():
    disk = {'kind': 'lanes', 'service': '10ms', 'distribution': 'constant', 'lanes': 1}
    taken = [drained(depth, target=disk)['clear_endpoint_ns'] for depth in (4, 8, 16)]
    assert np.diff(taken) == pytest.approx([40 * MS, 80 * MS], abs=MS)


def test_write_back_throttling_serialises_the_drain_on_a_kernel_that_has_it():
    writes = {'rw': 'randwrite'}
    free = drained(64, workload=writes)
    held = drained(64, workload=writes, host={'kernel': '6.1'})
    off = drained(64, workload=writes, host={'kernel': '6.1'}, target={**DISK_100MS, 'wbt_lat': 0})
    assert free['clear_endpoint_ns'] < 81 * MS
    assert off['clear_endpoint_ns'] < 81 * MS
    assert held['clear_endpoint_ns'] > 150 * MS


def test_phases_add_up_to_the_downtime(depths):
    for report in depths.values():
        assert set(report['phases_ns']) == set(PHASES)
        assert sum(report['phases_ns'].values()) == pytest.approx(report['downtime_ns'], abs=10)
        assert report['phases_ns']['drain'] == pytest.approx(report['clear_endpoint_ns'], rel=0.01)
        assert report['blackout_ns']['largest'] >= report['downtime_ns']


def test_the_gap_is_part_of_the_pause_and_hides_the_drain_behind_it():
    with_gap = stop(config(4), StopPlan(at=20 * MS, gap=1 * MS))
    without = stop(config(4), StopPlan(at=20 * MS))
    longer = with_gap['phases_ns']['vcpu_pause'] - without['phases_ns']['vcpu_pause']
    assert longer == pytest.approx(1 * MS, abs=10)
    shorter = without['clear_endpoint_ns'] - with_gap['clear_endpoint_ns']
    assert shorter == pytest.approx(1 * MS, abs=1000)


def test_everything_is_answered_and_the_run_goes_on_to_its_end(depths):
    for depth, report in depths.items():
        assert report['outcome'] == 'ok'
        assert report['violations'] == []
        assert report['responses'] == {'0': depth}
        assert report['first_completion_ns'] < 20_000


# ----------------------------------------------------------------------- what 6.1 does differently


def race(kernel, at):
    """Eighty requests, published together just before the stop, and a worker in no hurry."""
    workload = {'iodepth': 80, 'iodepth_batch_submit': 80, 'number_ios': 80}
    sections = {'host': {'kernel': kernel}, 'costs': {f'{k}': v for k, v in SLOW_WORKER.items()}}
    return stop(config(80, ios=80, workload=workload, **sections), StopPlan(at=at))


@pytest.mark.parametrize('at', [300_000, 600_000])
def test_linux_6_1_fails_what_it_has_not_fetched_and_6_12_does_not(at):
    old, new = race('6.1', at), race('6.12', at)
    assert old['unfetched_at_stop'] == new['unfetched_at_stop'] > 0
    assert old['responses']['3'] > 0
    assert old['responses']['0'] + old['responses']['3'] == 80
    assert new['responses'] == {'0': 80}
    assert (old['outcome'], new['outcome']) == ('errors', 'ok')


# --------------------------------------------------------------------------------- single ioctls


def attended(wanted, action):
    """Run a config and perform `action(host)` as control; returns (host, rows)."""
    world = machine.build(wanted, costs.of_config(wanted))
    engine = ENGINES[wanted.run.engine](world)
    Phases(engine, wanted)
    host = switch_on(engine, wanted)
    engine.env.process(action(host))
    engine.run()
    return host, frame.trace_rows(world)


def wait(host, ns):
    return host.control.env.timeout(ns * 26 // 10)


@pytest.mark.parametrize('flushes', [True, False])
def test_a_memory_table_waits_for_what_was_fetched_before_and_not_for_what_came_later(flushes):
    """Linux 6.12.95 does not wait at all."""
    disk = {'kind': 'lanes', 'service': '1ms', 'distribution': 'exponential', 'lanes': 64}
    times = {}

    def action(host):
        yield wait(host, 5 * MS)
        times['begin'] = host.control.now
        yield from host.file.set_mem_table(1)
        times['end'] = host.control.now

    host = {} if flushes else {'bugs': 'no_ioctl_flush'}
    _, rows = attended(config(16, target=disk, ios=400, host=host), action)
    fetch, used = rows[:, COLUMN['t_fetch']] - 1, rows[:, COLUMN['t_used']] - 1
    before = used[(fetch < times['begin']) & (used > times['begin'])]
    assert before.size > 8
    if not flushes:
        assert times['end'] - times['begin'] < 2600 * 50
        return
    assert before.max() < times['end'] < before.max() + 2600 * 20
    later = (fetch > times['begin'] + 26_000) & (fetch < times['end'])
    assert later.any()  # the guest's new requests kept flowing
    assert (used[later] > times['end']).any()  # and were not waited for


def test_the_base_read_before_the_endpoint_is_cleared_runs_ahead_of_the_used_ring():
    seen = {}

    def action(host):
        yield wait(host, 20 * MS)
        yield from host.vm.pause_all_vcpus()
        mem, used = host.control.machine.mem, host.device.parent_obj.vqs[2].used
        found = yield from host.file.get_vring_base(2)
        seen['early'] = found['num'], index_at(mem, used + int(USED_IDX))
        yield from host.file.clear_endpoint(host.lio.wwpn)
        found = yield from host.file.get_vring_base(2)
        seen['late'] = found['num'], index_at(mem, used + int(USED_IDX))

    attended(config(16), action)
    assert seen == {'early': (16, 0), 'late': (16, 16)}


@pytest.mark.parametrize(('bugs', 'later'), [(None, 0), ('endpoint_twice', -19)])
def test_an_endpoint_taken_twice_is_never_free_again(bugs, later):
    # Old: nobody checks, the second dependency is never given back, ENODEV for ever.
    answers = []

    def action(host):
        yield wait(host, 1 * MS)
        file, wwpn = host.file, host.lio.wwpn
        for ioctl in (file.set_endpoint, file.clear_endpoint, file.set_endpoint):
            answers.append((yield from ioctl(wwpn)))

    host = {} if bugs is None else {'bugs': bugs}
    attended(config(1, ios=1, target={'kind': 'null'}, host=host), action)
    assert answers == [0 if bugs else -17, 0, later]


def test_errors_of_the_kernel():
    answers = {}

    def action(host):
        file, wwpn = host.file, host.lio.wwpn
        yield wait(host, 1 * MS)

        def note(name, ioctl):
            answer = yield from ioctl
            answers[name] = answer

        yield from note('second endpoint', file.set_endpoint(wwpn))
        yield from note('num', file.set_vring_num(2, 128))
        yield from note('base', file.set_vring_base(2, 0))
        yield from note('packed', file.set_features(1 << 34))
        yield from note('log', file.set_features(1 << 26))
        yield from note('owner', file.set_owner())
        yield from note('no queue', file.set_vring_call(130, None))
        yield from note('last queue', file.set_vring_call(129, None))
        yield from note(
            'address flags', file.set_vring_addr(2, flags=2, desc=0, avail=0, used=0, log=0)
        )
        yield from note(
            'odd address', file.set_vring_addr(2, flags=0, desc=0, avail=1, used=0, log=0)
        )
        yield from note('other name', file.clear_endpoint('naa.5001405000000002'))
        yield from note('backend features', file.unknown('VHOST_GET_BACKEND_FEATURES', 500))
        yield from note('no worker', file.attach_vring_worker(3, 7))
        yield from note('clear', file.clear_endpoint(wwpn))
        yield from note('clear again', file.clear_endpoint(wwpn))
        yield from note('bad num', file.set_vring_num(2, 100))
        yield from note('bad base', file.set_vring_base(2, 0x10000))
        yield from note('unknown name', file.set_endpoint('naa.5001405000000002'))
        host.lio.held[0] = 'another QEMU'
        yield from note('held', file.set_endpoint(wwpn))

    attended(config(1, ios=1, target={'kind': 'null'}), action)
    names = {-14: 'EFAULT', -16: 'EBUSY', -17: 'EEXIST', -19: 'ENODEV', -22: 'EINVAL'}
    names |= {-25: 'ENOTTY', -95: 'EOPNOTSUPP', -105: 'ENOBUFS', 0: 'ok'}
    assert {name: names[answer] for name, answer in answers.items()} == {
        'second endpoint': 'EEXIST',
        'num': 'EBUSY',
        'base': 'EBUSY',
        'packed': 'EOPNOTSUPP',
        'log': 'ok',
        'owner': 'EBUSY',
        'no queue': 'ENOBUFS',
        'last queue': 'ok',
        'address flags': 'EOPNOTSUPP',
        'odd address': 'EINVAL',
        'other name': 'EINVAL',
        'backend features': 'ENOBUFS',
        'no worker': 'ENODEV',
        'clear': 'ok',
        'clear again': 'ok',
        'bad num': 'EINVAL',
        'bad base': 'EINVAL',
        'unknown name': 'ENODEV',
        'held': 'ENODEV',
    }


def test_the_flag_of_missed_events_is_the_kernels():
    found = []

    def action(host):
        for ioctl in (host.file.set_events_missed(1), host.file.get_events_missed()):
            found.append((yield from ioctl))
        found.append(int(host.file.st[host.file._missed]))

    attended(config(1, ios=1, target={'kind': 'null'}), action)
    assert found == [0, {'missed': 1}, 1]


# -------------------------------------------------------------------------------- state and engines


def test_the_built_machine_is_what_the_devices_life_leads_to():
    wanted = config(4)
    bare, lived = (machine.build(wanted, costs.of_config(wanted)) for _ in range(2))
    kept = (vring.V_AVAIL_WRAP, vring.V_USED_WRAP, vring.V_USED_FLAGS)  # private, or packed only
    for v in lived.devices:  # whatever build() has put there must come back
        lived.st[v : v + 20] = -1
        lived.st[[v + int(name) for name in kept]] = 0
    for q in lived.host_vqs:
        lived.st[q + int(backend.Q_BACKEND)] = 0
    switch_on(ENGINES['compiled'](lived), wanted)
    expected = bare.st.copy()
    for q in bare.host_vqs:  # the flush of SET_ENDPOINT has gone over to the other count
        expected[q + int(backend.Q_INFLIGHT)] += 1
        first = q + int(backend.Q_INFLIGHTS)
        expected[first : first + 2] = 0, 1
    assert np.flatnonzero(lived.st != expected).tolist() == []
    assert np.array_equal(lived.mem, bare.mem)


@pytest.mark.parametrize('kernel', ['6.1', '7.2'])
def test_the_engines_agree_on_a_stop(kernel):
    disk = {'kind': 'lanes', 'service': '80us', 'distribution': 'exponential', 'lanes': 8}
    workload = {'numjobs': 2, 'rw': 'randrw'}
    reports = []
    for engine in ('simpy', 'compiled'):
        wanted = config(
            16, target=disk, ios=300, workload=workload, host={'kernel': kernel},
            run={'engine': engine},
        )  # fmt: skip
        report = stop(wanted, StopPlan(at=1_234_567, gap=3000, hold=50_000))
        del report['config'], report['replay']
        reports.append(report)
    assert reports[0] == reports[1]
    assert reports[0]['outcome'] == 'ok'
    assert len(reports[0]['blackout_ns']['queues']) == 2


MACHINES = {
    'packed': {'device': {'packed': True}, 'run': {'hypothetical': True}},
    'in order': {
        'device': {'in_order': True}, 'run': {'hypothetical': True}, 'guest': {'kernel': '7.2'},
    },
    'packed in order': {
        'device': {'in_order': True, 'packed': True},
        'run': {'hypothetical': True},
        'guest': {'kernel': '7.2'},
    },
    'no event index': {'device': {'event_idx': False}},
    'direct descriptors': {'device': {'indirect_desc': False}},
    'a worker for each queue': {'device': {'worker_per_virtqueue': True}},
    'two workers on a CPU': {'host': {'workers': 2, 'worker_cpus': '0,0'}},
    'two queues for four': {'guest': {'vcpus': 4}, 'device': {'num_queues': 2}},
    'a reset on its way': {'tmf': [{'at': '0.6ms', 'function': 'lun_reset'}]},
    'Linux 6.1': {'host': {'kernel': '6.1'}},
    'Linux 7.2': {'host': {'kernel': '7.2'}},
}  # fmt: skip


@pytest.mark.parametrize('name', MACHINES)
def test_every_kind_of_machine_can_be_stopped(name):
    disk = {'kind': 'lanes', 'service': '50us', 'distribution': 'exponential', 'lanes': 8}
    work = {'numjobs': 3, 'rw': 'randrw', 'iodepth_batch_submit': 4}
    wanted = config(12, target=disk, ios=300, workload=work, **MACHINES[name])
    report = stop(wanted, StopPlan(at=601_000))
    assert report['in_flight_at_stop'] > 12
    assert report['outcome'] == 'ok'
    assert report['violations'] == []


@pytest.mark.parametrize('at', range(200_000, 1_400_000, 171_003))
def test_no_stop_at_any_time_breaks_anything(at):
    disk = {'kind': 'lanes', 'service': '50us', 'distribution': 'exponential', 'lanes': 8}
    workload = {'numjobs': 3, 'rw': 'randrw', 'iodepth_batch_submit': 4}
    report = stop(config(12, target=disk, ios=400, workload=workload), StopPlan(at=at))
    assert report['outcome'] == 'ok'
    assert report['violations'] == []


def test_frozen_vcpus_do_nothing():
    steps = {}

    def action(host):
        world = host.control.machine
        slots = world.slots_of(agents.VCPU)
        yield wait(host, 1 * MS)
        yield from host.vm.pause_all_vcpus()
        places = [world.bases[slot] for slot in slots]
        before = world.mem.copy(), [int(world.st[at]) for at in places]
        yield wait(host, 300 * MS)
        steps['state'] = before[1] == [int(world.st[at]) for at in places]
        steps['answers'] = not np.array_equal(before[0], world.mem)  # only the backend wrote
        yield from host.vm.resume_all_vcpus()

    _, rows = attended(config(8, ios=16), action)
    assert steps == {'state': True, 'answers': True}
    assert (rows[:, COLUMN['t_complete']] > 0).all()


# ------------------------------------------------------------------------------------ the command


def test_a_stop_after_the_end_is_refused():
    with pytest.raises(ConfigError, match='--at 10s: the run is over by then'):
        stop(config(1, ios=10), StopPlan(at=10_000 * MS))


@pytest.mark.parametrize(
    ('given', 'said'),
    [
        ({'gap': '3000h'}, '--gap 10800000s: ends beyond'),
        ({'gap': '10h', 'hold': '10h'}, '--hold 36000s: ends beyond'),
        ({'policy': 'throttle', 'depth': 1025}, '--depth 1025: Linux gives no LUN'),
    ],
)
def test_what_no_clock_and_no_linux_has_is_refused_by_its_option(given, said):
    with pytest.raises(ConfigError, match=said):
        plan_of(config(1), at='1ms', **given)


def test_the_command():
    command = [
        sys.executable, '-m', 'sim', 'stop', '--at', '20ms', '--kernel', '6.1',
        '--set', 'target.kind=null', '--set', 'workload.number_ios=3000',
    ]  # fmt: skip
    done = subprocess.run([*command, '--json'], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report['outcome'] == 'ok'
    assert report['config']['host']['kernel'] == '6.1'
    late = subprocess.run([*command, '--at', '9s'], capture_output=True, text=True)
    assert late.returncode == 2
    assert 'error: --at 9s: the run is over' in late.stderr
    assert 'Traceback' not in late.stderr
    assert late.stdout == ''


# ------------------------------------------------------------------------------------- the checkers


def wrong(policy, wanted=None, **plan):
    wanted = wanted or config(16, ios=48)
    return stop(wanted, StopPlan(**{'at': 20 * MS, 'policy': POLICIES[policy], **plan}))


def requirements(report):
    found = [line.split(':')[0] for line in report['violations'] if line.startswith('requirement')]
    return sorted({line.removeprefix('requirement ') for line in found})


def test_without_the_flush_requests_are_left_in_flight_and_write_into_a_stopped_vm():
    report = wrong('no-flush', hold=200 * MS)
    assert requirements(report) == ['2.3', '3']
    three, memory = report['violations'][:2]
    assert '16 requests are in flight' in three
    assert 'the first is serial 1' in three
    assert 'guest pages changed between cycle' in memory
    assert 'used ring of queue 2' in memory


def slow_to_wake(policy):
    """Eighty requests whose kick has woken the worker, which does not run yet when the VM stops."""
    workload = {'iodepth': 80, 'iodepth_batch_submit': 80, 'number_ios': 80}
    wake = {'vhost.worker_wakeup_latency_shallow_idle': '200us'}
    return wrong(policy, config(80, ios=80, workload=workload, costs=wake), at=100_000)


def test_without_the_detach_the_worker_takes_up_what_the_stopped_vm_has_published():
    report = slow_to_wake('no-detach')
    assert requirements(report) == ['2.2']
    assert report['violations'][0].startswith('requirement 2.2: 80 requests were taken up after')
    assert report['responses'] == {'0': 80}


def test_a_kick_that_the_detach_has_eaten_strands_its_requests():
    """Nobody kicks again after the start, and the Linux driver waits for ever: it is so in life."""
    report = slow_to_wake('drain')
    assert requirements(report) == []
    assert report['unfetched_at_stop'] == 80
    assert report['outcome'] == 'hung'
    assert report['responses'] == {'none': 80}
    assert report['blackout_ns']['largest'] is None
    assert report['violations'] == []
    assert report['findings'][0].startswith('liveness: 80 requests stay in the ring')


def test_a_start_that_looks_into_the_rings_strands_nothing():
    report = slow_to_wake('look')
    assert (report['outcome'], report['responses'], report['findings']) == ('ok', {'0': 80}, [])
    assert any(line.startswith('stop policy look') for line in report['hypothetical'])


def stranded(gap, **sections):
    """How many requests nobody looks at any more, at a gap in us."""
    workload = {'iodepth': 80, 'iodepth_batch_submit': 80, 'number_ios': 80}
    wanted = config(80, ios=80, workload=workload | sections.pop('workload', {}), **sections)
    report = stop(wanted, StopPlan(at=100_000, gap=gap * 1000))
    assert report['violations'] == []
    return report['responses'].get('none', 0)


def test_a_gap_before_the_stop_lets_a_slow_worker_begin():
    """The window in which a kick is eaten is as long as the worker sleeps on: 0 us to 1 ms."""
    slow, slower = (
        {'costs': {'vhost.worker_wakeup_latency_shallow_idle': wake}} for wake in ('300us', '700us')
    )
    gaps = (0, 100, 300, 600, 1000)
    assert [stranded(gap, **slow) for gap in gaps] == [80, 80, 0, 0, 0]
    assert [stranded(gap, **slower) for gap in gaps] == [80, 80, 80, 0, 0]


def test_a_worker_that_waits_for_its_cpu_widens_the_window():
    """The other queue's worker runs first; each of its fetches takes 10 us."""
    shared = {
        'workload': {'numjobs': 2}, 'guest': {'vcpus': 2}, 'device': {'num_queues': 2},
        'costs': {'vhost.worker_pop_share': '10us'},
    }  # fmt: skip
    alone, together = ({'workers': 2, 'worker_cpus': cpus} for cpus in ('0,1', '0,0'))
    gaps = (0, 200, 500, 1000)
    assert [stranded(gap, host=alone, **shared) for gap in gaps] == [0, 0, 0, 0]
    assert [stranded(gap, host=together, **shared) > 0 for gap in gaps] == [True, True, True, False]


def test_without_the_sync_the_backend_starts_again_from_the_beginning():
    report = wrong('no-sync')
    assert requirements(report) == ['2.1']
    assert any(line.startswith('conservation') for line in report['violations'])
    assert report['outcome'] == 'errors'  # the guest's driver marks the ring broken


def test_a_base_read_too_early_does_not_fit_the_used_ring():
    report = wrong('base-before-clear')
    assert requirements(report) == ['2.1']
    assert 'last_avail_idx 16 and used_idx 0, the backend 16 and 16' in report['violations'][0]


def test_a_gate_before_the_pause_takes_the_drain_out_of_the_downtime():
    disk = {'kind': 'lanes', 'service': '1ms', 'distribution': 'constant', 'lanes': 64}
    wanted = config(16, target=disk, ios=480)
    gated, drained = (
        wrong(policy, wanted, lead=lead) for policy, lead in (('gate', 2 * MS), ('drain', 0))
    )
    assert gated['violations'] == drained['violations'] == []
    assert gated['outcome'] == 'ok'
    assert gated['phases_ns']['drain'] < 0.1 * drained['phases_ns']['drain']
    assert gated['unfetched_at_stop'] > 0
    assert gated['hypothetical'][0].startswith('stop policy gate')
    assert drained['hypothetical'] == []


@pytest.mark.parametrize('batch', [1, 8])
def test_a_quiet_guest_has_nothing_to_drain(batch):
    """Everything is answered within the lead; afterwards the guest takes up where it left off."""
    disk = {'kind': 'lanes', 'service': '1ms', 'distribution': 'constant', 'lanes': 64}
    work = {'iodepth_batch_submit': batch, 'numjobs': 2}
    wanted = config(16, target=disk, ios=320, workload=work)
    quiet, busy = (
        wrong(policy, wanted, at=7 * MS, lead=lead)
        for policy, lead in (('quiesce', 2 * MS), ('drain', 0))
    )
    assert (quiet['in_flight_at_stop'], quiet['unfetched_at_stop'], quiet['responses']) == (
        0,
        0,
        {},
    )
    assert busy['in_flight_at_stop'] == 32
    assert quiet['phases_ns']['drain'] < 100_000 < busy['phases_ns']['drain']
    assert quiet['blackout_ns']['largest'] > 2 * MS  # the guest felt the lead instead
    assert quiet['outcome'] == 'ok'
    assert quiet['violations'] == []


@pytest.mark.parametrize('policy', ['inflight', 'timeout', 'suspend', 'hope'])
def test_what_the_kernel_cannot_do_is_refused(policy):
    with pytest.raises(ConfigError, match=f'--policy {policy}: '):
        policy_named(policy, 0)


def test_a_lead_without_a_policy_that_has_one_is_refused():
    with pytest.raises(ConfigError, match='--lead'):
        policy_named('drain', 5)


def test_a_dirty_log_is_synced_once_the_backend_is_quiet():
    """A word of it for each 64 pages, at the price of looking at one."""
    wanted = config(16, ios=48)
    logged, bare = (wrong('drain', wanted, log=log) for log in (5 * MS, None))
    words = -(-machine.build(wanted, costs.of_config(wanted)).mem.size // (64 * 4096))
    assert bare['phases_ns']['log_sync'] == 0
    assert logged['phases_ns']['log_sync'] == pytest.approx(2 * words, abs=2)
    assert logged['outcome'] == 'ok'
    assert logged['violations'] == []


def test_the_stop_waits_until_logging_has_begun():
    """SET_LOG_BASE ends in a flush where the kernel has one, which waits for the disk."""
    late = wrong('drain', at=6 * MS, log=5 * MS)
    prompt = wrong(
        'drain', config(16, ios=48, host={'bugs': 'no_ioctl_flush'}), at=6 * MS, log=5 * MS
    )
    assert late['clear_endpoint_ns'] > 99 * MS  # the next requests had just begun
    assert prompt['clear_endpoint_ns'] == pytest.approx(94 * MS, abs=MS)


@pytest.mark.parametrize(('kernel', 'fewest'), [('6.12', 1), ('7.2', 16)])
def test_a_log_synced_too_early_misses_what_the_drain_writes(kernel, fewest):
    """The used ring on every kernel, and from 7.2 on the pages of the sixteen reads too.

    The requests in flight are those of the third turn: logging begins within the second.
    """
    wanted = config(16, ios=48, host={'kernel': kernel})
    report = wrong('log-before-flush', wanted, at=220 * MS, log=1 * MS)
    assert requirements(report) == ['2.3']
    pages = int(report['violations'][0].split()[2])
    assert pages == 1 if fewest == 1 else pages >= fewest
    assert requirements(wrong('drain', wanted, at=220 * MS, log=1 * MS)) == []


def test_a_wrong_policy_that_had_nothing_in_its_way_says_so(capsys):
    """It breaks a rule that only matters where there is something to take up."""
    from sim.__main__ import main

    assert main(['stop', '--at', '40us', '--policy', 'no-detach']) == 0
    said = capsys.readouterr()
    assert said.err == (
        'note: policy no-detach is there to violate requirement 2.2: nothing in this run was in '
        'its way\n'
    )
    words = ['stop', '--at', '40us', '--policy', 'no-flush', '--set', 'target.service=5ms']
    assert main(words) == 0
    assert 'violation: requirement 3' in capsys.readouterr().err


def test_what_is_answered_and_not_yet_seen_is_told():
    """The requests at the stop add up to those whose answers are counted."""
    from sim.control import told

    report = stop(load(workload={'iodepth': 8, 'number_ios': 400}), StopPlan(at=66_000))
    with_it = sum(report['responses'].values())
    unseen = with_it - report['in_flight_at_stop'] - report['unfetched_at_stop']
    line = told.at_the_stop(report)[0]
    assert with_it == 8
    assert 0 < unseen < 8
    assert line.endswith(f', {unseen} answered and not yet seen by the guest')
