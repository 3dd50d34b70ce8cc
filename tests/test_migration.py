"""A VM migrates while its jobs run: what arrives, how long it takes, and what breaks if a part is
missing.
"""

import json

import pytest

from sim.__main__ import main
from sim.config import load
from sim.control import felt
from sim.errors import ConfigError
from sim.migrate.report import PHASES
from sim.migration import migrate

SMALL = [
    'device.migratable=on', 'host.kernel=7.2', 'target.size=4m', 'workload.iodepth=8',
    'workload.number_ios=14000', 'workload.rw=randrw', 'migration.ram=8m', 'migration.at=2ms',
]  # fmt: skip
SLOW_DISK = ['target.service=1ms', 'workload.number_ios=1200']
SLOWER_THAN_A_SYNC = [  # so that some pages are written after the last sync only
    'target.service=250ms', 'workload.number_ios=200', 'workload.rw=randread',
    'workload.iodepth=32',
]  # fmt: skip


def move(*sets):
    kernels = any('device.driver=v' in item for item in sets)  # what only vhost-scsi has a key for
    small = [item for item in SMALL if not (kernels and item.startswith('device.migratable'))]
    return migrate(load(sets=[*small, *sets]))


@pytest.fixture(scope='module')
def plain():
    return move()


def test_a_migration_with_requests_in_flight_loses_nothing(plain):
    assert plain['outcome'] == 'ok'
    assert plain['in_flight_at_stop'] > 0
    assert plain['violations'] == plain['findings'] == []
    assert plain['stale_pages'] == 0
    assert plain['responses'] == {'0': sum(plain['responses'].values())}


def test_the_phases_add_up_from_the_pause_to_the_resumption(plain):
    assert list(plain['phases_ns']) == list(PHASES)
    assert sum(plain['phases_ns'].values()) == plain['vm_stopped_ns']
    assert all(plain['phases_ns'][name] > 0 for name in PHASES if name != 'log_sync')


def test_qemu_counts_until_the_stream_is_out_or_until_the_destination_runs(plain):
    told = move('migration.return_path=on')
    before = ('state_load', 'device_start', 'endpoint', 'vcpu_resume')
    assert plain['downtime_ms'] < plain['vm_stopped_ns'] / 1e6
    assert told['downtime_ms'] == pytest.approx(told['vm_stopped_ns'] / 1e6 + 0.05, abs=1e-3)
    assert told['downtime_ms'] - plain['downtime_ms'] > sum(
        plain['phases_ns'][name] for name in ('state_load', 'device_start')
    ) / 1e6  # fmt: skip
    assert set(before) <= set(PHASES)


def test_both_engines_make_the_same_migration(plain):
    other = move('run.engine=simpy')
    assert other['digest'] == plain['digest']
    assert other['phases_ns'] == plain['phases_ns']


def test_a_drain_on_a_slow_disk_is_in_the_downtime_and_not_in_what_was_expected(plain):
    slow = move(*SLOW_DISK)
    assert slow['phases_ns']['drain'] > 20 * plain['phases_ns']['drain'] / 2
    assert slow['expected_downtime_ms'] == pytest.approx(plain['expected_downtime_ms'], rel=0.2)


# ------------------------------------------------------------------- other backends, other policies


OTHERS = [
    ['device.driver=vhost-user-scsi-pci'],
    ['device.driver=virtio-scsi-pci'],
    ['device.driver=virtio-scsi-pci', 'device.packed=on'],
]


@pytest.mark.parametrize('sets', OTHERS, ids=lambda sets: ' '.join(sets))
@pytest.mark.parametrize('disk', [[], SLOW_DISK], ids=['quick', 'slow'])
def test_the_devices_of_user_space_move_as_well(sets, disk):
    report = move(*sets, *disk)
    assert report['outcome'] == 'ok'
    assert report['violations'] == []
    assert report['in_flight_at_stop'] > 0
    assert report['clear_endpoint_ns'] is None


@pytest.mark.parametrize(
    ('sets', 'lead'),
    [
        (['migration.policy=quiesce'], True),
        (['migration.policy=throttle', 'migration.depth=2'], True),
        (['migration.policy=gate'], True),
        (['migration.policy=suspend', 'run.hypothetical=on'], False),
        (['migration.policy=inflight', 'run.hypothetical=on'], False),
        (['migration.policy=inflight', 'run.hypothetical=on', *OTHERS[0]], False),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else '',
)
def test_every_policy_hands_over_without_loss(sets, lead):
    report = move(*SLOW_DISK, *sets, *(['migration.lead=3ms'] if lead else []))
    assert report['outcome'] == 'ok'
    assert report['violations'] == []


def test_what_is_in_flight_is_submitted_again_at_the_destination():
    """No drain in the downtime; without the region the same requests are lost."""
    slow = ['run.hypothetical=on', 'target.service=20ms', 'workload.number_ios=300', *OTHERS[0]]
    region, drain = (move(*slow, f'migration.policy={policy}') for policy in ('inflight', 'drain'))
    assert region['outcome'] == 'ok'
    assert region['phases_ns']['drain'] < drain['phases_ns']['drain'] / 10
    lost = move(*slow, 'migration.policy=no-region')
    assert lost['outcome'] == 'hung'
    assert any(v.startswith('requirement 3') for v in lost['violations'])


# ------------------------------------------------------------------------- one mechanism is missing


@pytest.mark.parametrize(
    ('sets', 'said'),
    [
        (['migration.policy=no-flush', *SLOW_DISK], 'requirement 3'),
        (['migration.policy=no-sync'], 'requirement 2.1'),
        (['migration.policy=base-before-clear', *SLOW_DISK], 'requirement 2.1'),
        (['migration.without=state'], 'requirement 1'),
        (['migration.without=disk'], 'requirement 4'),
        (['migration.storage=copied_early'], 'requirement 4'),
        (['migration.without=kvm_log'], 'stale page'),
        (['migration.without=vhost_log', 'workload.rw=randread', *SLOW_DISK], 'stale page'),
        (['migration.without=final_sync', *SLOWER_THAN_A_SYNC], 'stale page'),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)  # fmt: skip
def test_what_is_left_out_is_noticed_by_name(sets, said):
    report = move(*sets)
    assert any(sentence.startswith(said) for sentence in report['violations']), report['violations']


def test_a_reservation_moves_if_the_orchestrator_moves_it():
    """Registrations are LIO's, one per initiator and LUN; shared storage does not carry them."""
    held = ['migration.reservation=on', 'target.luns=2', 'migration.to_kernel=6.12']
    assert move(*held)['violations'] == []
    for left in ('migration.target_state=off', 'migration.without=target_state'):
        told = move(*held, left)['violations']
        assert len(told) == 2
        assert all(v.startswith('requirement 4: LUN') and 'reservation' in v for v in told)


def test_a_device_that_still_runs_cannot_be_saved():
    report = move('migration.without=order')
    assert report['outcome'].startswith('QEMU exits: vhost_scsi_pre_save')


def test_without_a_log_of_data_pages_a_read_stays_behind():
    """Kernels before 7.2 log the used ring only; the log of 7.2 has the pages of data, too."""
    reads = ['workload.rw=randread', *SLOW_DISK]
    old, new = (move(f'host.kernel={kernel}', *reads) for kernel in ('6.12', '7.2'))
    assert old['stale_pages'] > 0
    assert any(v.startswith('stale page') and 'data of' in v for v in old['violations'])
    assert new['stale_pages'] == 0


def test_a_migration_from_an_old_kernel_to_a_new_one():
    report = move('host.kernel=6.1', 'migration.to_kernel=7.2', 'workload.rw=randwrite')
    assert report['outcome'] == 'ok'
    assert report['violations'] == []


def test_a_source_that_was_not_drained_goes_on_writing_to_the_shared_disk():
    """Its late writes reach the disk beside those of the destination."""
    report = move(
        'migration.policy=no-flush', 'target.service=23ms', 'workload.number_ios=100',
        'workload.rw=randwrite',
    )  # fmt: skip
    assert any(v.startswith('requirement 3') for v in report['violations'])
    assert report['outcome'] == 'hung'


# --------------------------------------------------------------------------------- it does not work


def test_other_features_at_the_destination_are_refused_by_the_load():
    lost = move('migration.to_device=event_idx=off')
    assert 'Features 0x20000000 unsupported' in lost['outcome']
    assert any(v.startswith('ownership') for v in lost['violations'])
    told = move('migration.to_device=event_idx=off', 'migration.return_path=on')
    assert told['outcome'].startswith('failed, running on the source')
    assert told['violations'] == []


def test_a_destination_with_other_rings_is_refused():
    with pytest.raises(ConfigError, match='the destination has other'):
        move('migration.to_device=virtqueue_size=256')


def test_a_device_that_is_not_migratable_says_so():
    with pytest.raises(ConfigError, match="set 'migratable' property to true"):
        move('device.migratable=off')


def test_a_guest_that_dirties_faster_than_the_link_takes_is_given_up(capsys):
    busy = ['migration.dirty_rate=4g', 'migration.ram=256m', 'migration.downtime_limit=1ms']
    report = move(*busy, 'migration.give_up=3s')
    assert 'does not converge' in report['outcome']
    assert report['violations'] == []


def test_auto_converge_slows_the_vcpus_down_until_it_ends():
    busy = [
        'migration.dirty_rate=200m', 'migration.ram=256m', 'migration.downtime_limit=100ms',
        'migration.give_up=60s', 'workload.runtime=60s', 'workload.time_based=on',
        'target.service=10ms', 'workload.iodepth=1',
    ]  # fmt: skip
    report = move(*busy, 'migration.auto_converge=on')
    assert report['outcome'] == 'ok'
    assert report['throttle'][0][1] == 20
    assert 'does not converge' in move(*busy)['outcome']


def test_the_command(capsys):
    sets = [word for item in SMALL for word in ('--set', item)]
    assert main(['migrate', *sets, '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['outcome'] == 'ok'
    assert main(['migrate', *sets]) == 0
    assert 'as QEMU reports it' in capsys.readouterr().out


def test_phases_in_ns_add_up_whatever_the_clock():
    spent = {'a': 1, 'b': 1, 'c': 1}
    assert sum(felt.phases_ns(spent, ('a', 'b', 'c'), 2_600_000_000).values()) == 1


def test_on_one_host_the_target_must_be_let_go_before_the_destination_takes_it():
    """vhost_scsi_set_endpoint(): a target group that another file holds cannot be had."""
    local = ['migration.local=on']
    assert move(*local)['outcome'] == 'ok'
    kept = move(*local, 'migration.faults=clear_endpoint@source', 'migration.return_path=on')
    assert 'unable to start vhost-scsi: No such device' in kept['outcome']


def test_request_queues_that_the_guest_does_not_use_must_be_on_both_sides():
    """Their MSI-X vectors are in the PCI configuration space that QEMU compares."""
    with pytest.raises(ConfigError, match='num_queues=5, but the source has 1 '):
        move('migration.to_device=num_queues=5')


@pytest.mark.parametrize(
    ('key', 'said'),
    [
        ('policy=Drain', 'migration.policy=Drain: no such policy'),
        ('depth=3', 'migration.depth: has no meaning with migration.policy=drain'),
        ('timeout=1s', 'migration.timeout: has no meaning with migration.policy=drain'),
        ('lead=1ms', 'migration.lead: has no meaning with migration.policy=drain'),
    ],
)
def test_a_policy_that_is_refused_is_named_by_its_key(key, said):
    with pytest.raises(ConfigError, match=said):
        move(f'migration.{key}')


def test_a_disk_that_is_busy_at_the_hand_over_has_charged_no_more_than_the_time_that_was():
    """Its cache is written out to the medium, and each access is charged as it begins."""
    busy = ['host.kernel=6.12', 'migration.at=0', 'migration.run_on=500us', 'run.seed=7']
    work = ['workload.rw=write', 'workload.number_ios=2000', 'workload.iodepth=64']
    report = move('target.disk=hdd-7200', 'migration.max_bandwidth=1g', *busy, *work)
    assert report['outcome'] == 'ok'
    assert report['violations'] == []


def test_a_source_that_goes_on_beside_the_destination_does_so_in_strides_on_both_engines():
    """simpy.Environment.run(until) leaves the event on the calendar: something is due for ever."""
    sets = [
        'host.kernel=6.1', 'workload.rw=write', 'workload.iodepth=32', 'workload.number_ios=5000',
        'target.service=1ms', 'migration.policy=inflight', 'run.hypothetical=on',
    ]  # fmt: skip
    assert move(*sets)['digest'] == move(*sets, 'run.engine=simpy')['digest']


@pytest.mark.parametrize(
    ('sets', 'said'),
    [
        (['run.replications=3'], 'a migration is of one run'),
        (['run.precision=p99:0.1'], 'a migration is of one run'),
        (['run.record=histogram'], 'a migration looks at every request'),
        (['device.packed=on', 'run.hypothetical=on'], 'no kernel vhost-scsi has packed rings'),
        (['migration.to_device=,'], 'names no property'),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else '',
)
def test_what_cannot_be_migrated_says_why(sets, said):
    with pytest.raises(ConfigError, match=said):
        move(*sets)
