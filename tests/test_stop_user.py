"""The stop of devices in user space, and the policies that belong to some backend only."""

import random
from pathlib import Path

import numpy as np
import pytest

from sim import backend, costs, machine
from sim.analysis import frame
from sim.analysis.frame import COLUMN
from sim.config import load
from sim.control.power import switch_on
from sim.control.stop_policy import EVERYBODY, POLICIES, policy_named
from sim.control.stopping import PHASES, StopPlan, stop
from sim.engine import ENGINES
from sim.errors import ConfigError
from sim.features import STACKS
from sim.vhost import inflight

MS = 1_000_000
USER, EMULATED, KERNEL = 'vhost-user-scsi-pci', 'virtio-scsi-pci', 'vhost-scsi-pci'
SLOW = {'kind': 'lanes', 'service': '5ms', 'distribution': 'constant', 'lanes': 64}
SLOW_THREADS = {
    EMULATED: {'qemu_iothread.wakeup_latency': '200us'},
    USER: {'spdk_vhost.cpu_per_cmd_per_core': '20us'},
}
BUSY = {'kind': 'lanes', 'service': '50us', 'distribution': 'exponential', 'lanes': 8}


def config(driver, *, target=SLOW, depth=8, ios=40, **sections):
    work = {'iodepth': depth, 'number_ios': ios, 'rw': 'randrw', **sections.pop('workload', {})}
    device = {'driver': driver, **sections.pop('device', {})}
    return load(device=device, workload=work, target=target, **sections)


def stopped(wanted, name='drain', *, at=7 * MS, **plan):
    stack = STACKS[wanted.device.driver]
    chosen = {key: plan.pop(key) for key in ('depth', 'timeout') if key in plan}
    policy = policy_named(
        name, plan.get('lead', 0), stack=stack, hypothetical=wanted.run.hypothetical, **chosen
    )
    return stop(wanted, StopPlan(at=at, policy=policy, **plan))


def requirements(report):
    found = [line.split(':')[0] for line in report['violations'] if line.startswith('requirement')]
    return sorted({line.removeprefix('requirement ') for line in found})


# --------------------------------------------------------------------------- the two devices stop


@pytest.mark.parametrize('driver', [USER, EMULATED])
def test_the_built_machine_is_what_the_devices_life_leads_to(driver):
    wanted = config(driver)
    bare, lived = (machine.build(wanted, costs.of_config(wanted)) for _ in range(2))
    for q in lived.host_vqs:
        lived.st[q + int(backend.Q_BACKEND)] = 0
    switch_on(ENGINES['compiled'](lived), wanted)
    assert np.flatnonzero(lived.st != bare.st).tolist() == []
    assert np.array_equal(lived.mem, bare.mem)


@pytest.mark.parametrize('driver', [USER, EMULATED])
def test_it_drains_the_residual_service_time_and_the_phases_add_up(driver):
    report = stopped(config(driver))
    phases = report['phases_ns']
    assert set(phases) == set(PHASES)
    assert sum(phases.values()) == pytest.approx(report['downtime_ns'], abs=10)
    assert phases['drain'] == pytest.approx(3 * MS, abs=0.1 * MS)
    assert phases['endpoint'] == phases['log_sync'] == 0
    assert report['clear_endpoint_ns'] is None
    assert (report['in_flight_at_stop'], report['responses']) == (8, {'0': 8})
    assert (report['outcome'], report['violations'], report['hypothetical']) == ('ok', [], [])


def test_spdk_looks_once_a_millisecond_and_qemu_is_told():
    """The stop poller of a session; blk_drain_all() is woken by the last request."""
    at = {}
    for driver in (USER, EMULATED):
        at[driver] = stopped(config(driver), at=7_600_000)['phases_ns']['drain']
    assert at[USER] == 3 * MS  # 2.4 ms, and up to the next look
    assert at[EMULATED] == pytest.approx(2.4 * MS, abs=0.1 * MS)
    often = config(USER, costs={'control.stop_poll': '1us'})
    assert stopped(often, at=7_600_000)['phases_ns']['drain'] == pytest.approx(2.4 * MS, abs=1e5)


@pytest.mark.parametrize('driver', [USER, EMULATED])
@pytest.mark.parametrize('at', range(200_000, 1_300_000, 271_003))
def test_no_stop_at_any_time_breaks_anything(driver, at):
    wanted = config(driver, target=BUSY, depth=12, ios=300, workload={'numjobs': 3})
    report = stopped(wanted, at=at, gap=3000, hold=20_000)
    assert report['in_flight_at_stop'] > 12
    assert (report['outcome'], report['violations']) == ('ok', [])


@pytest.mark.parametrize('driver', [USER, EMULATED])
def test_the_engines_agree(driver):
    reports = []
    for engine in ('simpy', 'compiled'):
        wanted = config(driver, target=BUSY, depth=12, ios=200, run={'engine': engine})
        reports.append(stopped(wanted, at=601_000, hold=20_000))
        del reports[-1]['config'], reports[-1]['replay']
    assert reports[0] == reports[1]


@pytest.mark.parametrize(
    ('driver', 'device'),
    [(EMULATED, {'packed': True}), (EMULATED, {'event_idx': False}), (USER, {'num_queues': 2})],
)
def test_other_rings_stop_as_well(driver, device):
    wanted = config(driver, target=BUSY, device=device, workload={'numjobs': 2}, ios=100)
    report = stopped(wanted, at=400_000)
    assert report['in_flight_at_stop'] > 4
    assert (report['outcome'], report['violations']) == ('ok', [])


@pytest.mark.parametrize('version', ['8.2', '10.2'])
def test_an_iothread_that_polls_is_told_as_well(version):
    """The stop finds it in each state of its event loop: the disk is quick, the guest is slow."""
    quick = {'kind': 'constant', 'service': '20us'}
    wanted = config(EMULATED, target=quick, depth=1, ios=300, qemu={'version': version})
    for at in range(1_000_000, 1_040_000, 1_700):
        report = stopped(wanted, at=at)
        assert (report['outcome'], report['violations']) == ('ok', [])


def test_no_kick_is_lost_in_user_space():
    """What stands in the ring of kernel vhost-scsi with its kick consumed is found here at once."""
    work = {'iodepth_batch_submit': 60}
    for driver, slow in SLOW_THREADS.items():
        wanted = config(driver, depth=60, ios=60, workload=work, costs=slow)
        report = stopped(wanted, at=100_000)
        assert report['unfetched_at_stop'] > 20
        assert (report['outcome'], report['violations']) == ('ok', [])


# --------------------------------------------------------------------- what each mechanism is for


@pytest.mark.parametrize('driver', [USER, EMULATED])
def test_without_the_drain_the_stopped_vm_is_written_into(driver):
    report = stopped(config(driver), 'no-flush', hold=20 * MS)
    assert requirements(report) == ['2.3', '3']
    returned = {USER: 'GET_VRING_BASE', EMULATED: 'blk_drain_all()'}[driver]
    assert f'8 requests are in flight when {returned} returns' in report['violations'][0]


@pytest.mark.parametrize('driver', [USER, EMULATED])
def test_without_the_detach_requests_are_taken_up_after_the_stop(driver):
    work = {'iodepth_batch_submit': 60}
    wanted = config(driver, depth=60, ios=60, workload=work, costs=SLOW_THREADS[driver])
    report = stopped(wanted, 'no-detach', at=100_000)
    assert requirements(report)[0] == '2.2'


def test_without_the_sync_spdk_starts_again_from_the_beginning():
    assert requirements(stopped(config(USER), 'no-sync')) == ['2.1']


def test_a_log_synced_too_early_misses_what_spdk_writes():
    """SPDK notes the pages of READs as well as the used ring."""
    wanted = config(USER, workload={'rw': 'randread'})
    report = stopped(wanted, 'log-before-flush', at=17 * MS, log=1 * MS)
    assert requirements(report) == ['2.3']
    assert int(report['violations'][0].split()[2]) >= 8
    assert stopped(wanted, 'drain', at=17 * MS, log=1 * MS)['violations'] == []


# ------------------------------------------------------------------------------- before the pause


@pytest.mark.parametrize('driver', [KERNEL, USER, EMULATED])
def test_a_guest_with_a_low_queue_depth_has_little_to_drain(driver):
    """A serial disk: as many service times as there are requests out."""
    disk = {'kind': 'lanes', 'service': '1ms', 'distribution': 'constant', 'lanes': 1}
    wanted = config(driver, target=disk, depth=16, ios=96)
    few = stopped(wanted, 'throttle', lead=20 * MS, depth=2, at=40_500_000)
    many = stopped(wanted, at=40_500_000)
    assert (few['in_flight_at_stop'], many['in_flight_at_stop']) == (2, 16)
    assert few['phases_ns']['drain'] < 3 * MS < 14 * MS < many['phases_ns']['drain']
    assert (few['outcome'], few['violations']) == ('ok', [])
    rows = stopped_rows(wanted, 'throttle', lead=20 * MS, depth=2, at=40 * MS)
    after = rows[rows[:, COLUMN['t_avail']] > 70 * MS * 2.6]
    assert after.shape[0] > 8  # and then the whole depth again
    assert (after[:, COLUMN['t_used']] - after[:, COLUMN['t_avail']]).max() > 10 * MS * 2.6


def stopped_rows(wanted, name, **plan):
    kept = []
    depth = plan.pop('depth')
    policy = policy_named(name, plan['lead'], stack=STACKS[wanted.device.driver], depth=depth)
    stop(
        wanted,
        StopPlan(policy=policy, **plan),
        lambda _, stopping: kept.append(frame.trace_rows(stopping.host.control.machine)),
    )
    return kept[0]


@pytest.mark.parametrize('driver', [USER, EMULATED])
@pytest.mark.parametrize('policy', ['gate', 'quiesce'])
def test_a_lead_takes_the_drain_out_of_the_downtime(driver, policy):
    report = stopped(config(driver), policy, at=9 * MS, lead=6 * MS)
    assert report['in_flight_at_stop'] == 0
    assert report['phases_ns']['drain'] == 0
    assert (report['outcome'], report['violations']) == ('ok', [])
    assert bool(report['hypothetical']) == (policy == 'gate')


# --------------------------------------------------------------------- requests are left behind


def test_spdk_gives_up_after_a_time_and_loses_the_rest():
    report = stopped(config(USER), 'timeout', timeout=1 * MS, hold=20 * MS)
    assert report['phases_ns']['drain'] == 1 * MS
    assert report['left_behind'] == 8
    assert report['outcome'] == 'hung'
    assert report['responses'] == {'none': 8}
    assert report['findings'] == [
        'lost: 8 requests were left behind and are never answered, the first is serial 9'
    ]
    assert requirements(report) == ['2.3', '3']
    assert any(line.startswith('end to end: liveness: 8 requests') for line in report['violations'])
    assert report['hypothetical'] == []


def test_spdks_own_limit_is_four_seconds():
    disk = SLOW | {'service': '6s'}
    report = stopped(config(USER, target=disk, ios=16), 'timeout', at=100 * MS)
    assert report['phases_ns']['drain'] == 4000 * MS
    assert report['left_behind'] == 8
    patient = stopped(config(USER, target=disk, ios=16), 'timeout', at=2100 * MS)
    assert (patient['outcome'], patient['left_behind']) == ('ok', 0)


@pytest.mark.parametrize('kernel', ['6.1', '6.12'])
@pytest.mark.parametrize('driver', [KERNEL, USER])
def test_with_an_inflight_region_nobody_waits_and_nothing_is_lost(driver, kernel):
    wanted = config(driver, run={'hypothetical': True}, host={'kernel': kernel})
    report = stopped(wanted, 'inflight')
    assert report['phases_ns']['drain'] < 100_000
    assert report['left_behind'] == 8
    assert (report['outcome'], report['violations'], report['responses']) == ('ok', [], {'0': 8})
    assert 'in-flight region' in report['hypothetical'][0]


def test_the_region_lies_in_memory_as_vhost_user_says():
    kept = []
    wanted = config(USER, run={'hypothetical': True})
    policy = policy_named('inflight', stack='vhost-user-scsi', hypothetical=True)
    plan = StopPlan(at=7 * MS, policy=policy)
    stop(wanted, plan, lambda _, stopping: kept.append(stopping.host.virtio.inflight))
    (region,) = kept[0]
    assert len(region) == 16 + 16 * wanted.device.virtqueue_size
    assert region[8:10] == b'\x01\x00'
    assert int.from_bytes(region[10:12], 'little') == wanted.device.virtqueue_size
    assert int.from_bytes(region[14:16], 'little') == 8  # used_idx: eight have been answered
    marks = [head for head in range(wanted.device.virtqueue_size) if region[16 + 16 * head]]
    assert sorted(marks) == sorted(inflight.heads_of(region))
    counters = [int.from_bytes(region[24 + 16 * head :][:8], 'little') for head in marks]
    assert sorted(counters) == list(range(8, 16))
    oldest = min(marks, key=lambda head: region[24 + 16 * head :][:8][::-1])
    assert inflight.heads_of(region)[0] == oldest


def test_requests_are_submitted_again_in_the_order_of_their_counters():
    kept = []
    wanted = config(USER, run={'hypothetical': True}, target=BUSY | {'lanes': 1}, depth=12)
    policy = policy_named('inflight', stack='vhost-user-scsi', hypothetical=True)

    def look(_, stopping):
        rows = frame.trace_rows(stopping.host.control.machine)
        again = rows[np.isin(rows[:, COLUMN['serial']], stopping.host.backend.left_behind)]
        kept.append(again[np.argsort(again[:, COLUMN['t_fetch']]), COLUMN['serial']])

    stop(wanted, StopPlan(at=400_000, policy=policy), look)
    assert len(kept[0]) > 4
    assert (np.diff(kept[0]) > 0).all()


@pytest.mark.parametrize('driver', [KERNEL, USER])
def test_a_region_that_is_lost_on_the_way_leaves_requests_behind(driver):
    report = stopped(config(driver, run={'hypothetical': True}), 'no-region')
    assert requirements(report) == ['3']
    assert report['outcome'] == 'hung'


def test_what_is_not_withdrawn_is_done_twice_and_lands_in_pages_of_others():
    disk = {'kind': 'lanes', 'service': '2ms', 'distribution': 'exponential', 'lanes': 64}
    work = {'io_size': '600k', 'size': '64k', 'norandommap': True, 'number_ios': None}
    wanted = config(
        USER, target=disk, depth=16, workload=work, run={'hypothetical': True, 'seed': 2}
    )
    report = stopped(wanted, 'no-cancel')
    assert requirements(report) == ['2.3', '3']
    kinds = {line.split(': ')[1] for line in report['violations'] if line.startswith('end to end')}
    assert kinds == {'page', 'doubled'}
    clean = stopped(wanted, 'inflight')
    assert (clean['outcome'], clean['violations']) == ('ok', [])


def test_what_the_disk_has_done_and_nobody_was_told_of_may_be_done_again():
    """A command that waits for LIO's completion kworker when it is withdrawn."""
    disk = {'kind': 'constant', 'service': '80us', 'lanes': 4}
    work = {'bs': '64k', 'iodepth_batch_submit': 8, 'numjobs': 2, 'rw': 'randread'}
    run = {'hypothetical': True, 'seed': 692}
    wanted = config(KERNEL, target=disk, ios=300, workload=work, run=run)
    kept = []
    policy = policy_named('inflight', hypothetical=True)
    report = stop(
        wanted,
        StopPlan(at=776_675, hold=1000, policy=policy),
        lambda _, stopping: kept.append(stopping.host.backend.performed),
    )
    assert kept == [1]
    assert (report['outcome'], report['violations']) == ('ok', [])


@pytest.mark.parametrize('driver', [KERNEL, USER])
@pytest.mark.parametrize('name', ['inflight', 'timeout', 'throttle', 'gate'])
def test_the_engines_agree_on_every_policy(driver, name):
    reports = []
    chosen = {'timeout': {'timeout': 20_000}, 'inflight': {}}.get(name, {'lead': 50_000})
    for engine in ('simpy', 'compiled'):
        run = {'engine': engine, 'hypothetical': True}
        wanted = config(driver, target=BUSY, depth=12, ios=100, run=run)
        reports.append(stopped(wanted, name, at=401_000, **chosen))
        del reports[-1]['config'], reports[-1]['replay']
    assert reports[0] == reports[1]


@pytest.mark.long
@pytest.mark.parametrize('seed', range(200))
def test_no_policy_that_is_not_wrong_breaks_anything_anywhere(seed):
    """Random machines, workloads and times; what `timeout` leaves behind is its own doing."""
    pick = random.Random(seed)
    driver = pick.choice([KERNEL, USER, EMULATED])
    policy = pick.choice([p for p in POLICIES.values() if not p.breaks])
    if STACKS[driver] in policy.never:
        return
    work = {
        'rw': pick.choice(['randrw', 'randread', 'randwrite']),
        'bs': pick.choice(['4k', '64k']),
        'numjobs': pick.choice([1, 2, 3]),
        'iodepth_batch_submit': pick.choice([1, 3]),
        'size': '256k', 'io_size': '4M', 'norandommap': True, 'number_ios': None,
    }  # fmt: skip
    disks = ({'kind': 'null'}, BUSY, BUSY | {'service': '200us', 'lanes': 64})
    host = {'host': {'kernel': pick.choice(['6.1', '6.12', '7.2'])}} if driver == KERNEL else {}
    run = {'hypothetical': True, 'seed': 1 + seed}
    depth = pick.choice([3, 8, 32])
    wanted = config(driver, target=pick.choice(disks), depth=depth, workload=work, run=run, **host)
    lead = pick.choice([0, 20_000]) if policy.lead else 0
    timeout = {'timeout': pick.choice([1000, 100_000])} if policy.name == 'timeout' else {}
    try:
        report = stopped(
            wanted, policy.name, at=pick.randrange(100_000, 600_000), lead=lead,
            gap=pick.choice([0, 5000]), hold=pick.choice([0, 100_000]), **timeout,
        )  # fmt: skip
    except ConfigError as error:
        if 'the run is over by then' in str(error):
            return
        raise
    assert report['violations'] == [] or (report['left_behind'] > 0 and policy.name == 'timeout')
    assert report['outcome'] == 'ok' or report['findings']
    assert sum(report['phases_ns'].values()) == pytest.approx(report['downtime_ns'], abs=10)


def test_suspend_drains_before_the_base_is_read():
    wanted = config(KERNEL, run={'hypothetical': True})
    kept = []
    policy = policy_named('suspend', hypothetical=True)
    report = stop(
        wanted,
        StopPlan(at=7 * MS, policy=policy),
        lambda _, stopping: kept.extend(stopping.host.control.calls),
    )
    names = [call.name.removeprefix('VHOST_') for call in kept]
    first = names.index('VDPA_SUSPEND')
    assert names[first : first + 5] == [
        'VDPA_SUSPEND',
        *['GET_VRING_BASE'] * 3,
        'SCSI_CLEAR_ENDPOINT',
    ]
    assert report['phases_ns']['drain'] == pytest.approx(3 * MS, abs=0.1 * MS)
    assert (report['outcome'], report['violations']) == ('ok', [])
    wrong = stopped(wanted, 'base-before-clear')
    assert requirements(wrong) == ['2.1']  # which is what suspending is good for


# ------------------------------------------------------------------------------ who can do what


def test_the_reference_says_of_every_policy_which_backend_has_it():
    page = (Path(__file__).parent.parent / 'docs' / 'reference' / 'stop.md').read_text()
    rows = [line.strip('| ').split(' | ') for line in page.splitlines() if line.startswith('| ')]
    said = {row[0]: row[1:] for row in rows if row[0] in POLICIES}
    assert said.keys() == POLICIES.keys()
    for name, policy in POLICIES.items():
        words = ['invented' if policy.invented else 'yes'] * 3
        for place, stack in enumerate(EVERYBODY):
            if stack in policy.could:
                words[place] = 'hypothetical'
            elif stack in policy.never:
                words[place] = 'no'
        assert said[name][:3] == words, name
        if policy.breaks:
            assert said[name][3] == policy.breaks


def test_every_policy_says_for_every_backend_whether_it_can_and_why_not():
    for policy in POLICIES.values():
        for stack in EVERYBODY:
            said = (stack in policy.of) + (stack in policy.could) + (stack in policy.never)
            assert said == 1, (policy.name, stack)


@pytest.mark.parametrize('name', ['inflight', 'timeout', 'suspend'])
def test_the_kernel_is_refused_what_is_others_unless_it_is_hypothetical(name):
    with pytest.raises(ConfigError, match=rf'--policy {name}: .*run.hypothetical=true'):
        policy_named(name)
    assert policy_named(name, hypothetical=True).hypothetical_on('vhost-scsi')


@pytest.mark.parametrize('name', ['inflight', 'timeout', 'suspend', 'no-sync', 'base-before-clear'])
def test_qemus_own_device_has_no_backend_to_ask(name):
    with pytest.raises(ConfigError, match=f'--policy {name}: not with virtio-scsi: '):
        policy_named(name, stack='virtio-scsi', hypothetical=True)


@pytest.mark.parametrize(
    ('chosen', 'message'),
    [
        ({'depth': 4}, '--depth: has no meaning with --policy drain'),
        ({'timeout': 4}, '--timeout: has no meaning with --policy drain'),
        ({'lead': 4}, '--lead: has no meaning with --policy drain'),
    ],
)
def test_a_parameter_of_another_policy_is_refused(chosen, message):
    with pytest.raises(ConfigError, match=message):
        policy_named('drain', **chosen)


def test_a_depth_of_nothing_is_refused():
    with pytest.raises(ConfigError, match='--depth 0'):
        policy_named('throttle', depth=0)


def test_packed_rings_have_another_region():
    wanted = config(KERNEL, run={'hypothetical': True}, device={'packed': True})
    with pytest.raises(ConfigError, match='in-flight region of split virtqueues'):
        stopped(wanted, 'inflight')


def test_qemus_own_device_has_no_log_to_begin_with():
    with pytest.raises(ConfigError, match='--log: of virtio-scsi-pci QEMU marks'):
        stopped(config(EMULATED), log=1 * MS)
