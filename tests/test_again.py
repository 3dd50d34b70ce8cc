"""The command that a report gives makes the same stop, or the same migration, again."""

import json
import shlex

import pytest

from sim.__main__ import main

SMALL = {'workload.number_ios': '300', 'target.size': '4m', 'target.service': '300us'}
MOVE = {
    **SMALL, 'workload.number_ios': '2400', 'device.migratable': 'on', 'migration.ram': '4m',
    'migration.at': '1ms', 'migration.link_bandwidth': '4g', 'migration.max_bandwidth': '0',
    'host.kernel': '7.2', 'workload.iodepth': '4',
}  # fmt: skip
STOPS = {
    'plain': ({}, []),
    'queues and workers': (
        {'guest.vcpus': '3', 'workload.numjobs': '3', 'device.worker_per_virtqueue': 'on'}, [],
    ),
    'workers as lists': (
        {'guest.vcpus': '2', 'workload.numjobs': '2', 'host.workers': '[[2], [3]]'}, [],
    ),
    'two CPUs named': (
        {'guest.vcpus': '2', 'workload.numjobs': '2', 'host.workers': '2',
         'host.worker_cpus': '1,1'}, [],
    ),
    'no event_idx, packed': ({'device.event_idx': 'off', 'device.packed': 'on',
                              'run.hypothetical': 'on'}, []),
    'costs and seed': ({'costs.vhost.worker_pop_share': '3us',
                        'run.seed': '7'}, []),
    'sizes in shares': ({'workload.bssplit': '4k/60:8k/40', 'workload.rw': 'randrw'}, []),
    'a distribution': ({'workload.random_distribution': 'zipf:1.2'}, []),
    'service times': ({'target.kind': 'exponential', 'target.service': '60us'}, []),
    'percentiles': ({'target.kind': 'empirical', 'target.service': None,
                     'target.quantiles': 'p0 60us, p50 200us, p100 1ms'}, []),
    'parameters of the stop': (
        {'workload.iodepth': '16'},
        ['--policy', 'throttle', '--depth', '3', '--lead', '100us', '--gap', '20us', '--hold',
         '1ms', '--log', '10us'],
    ),
    'a fault': ({'workload.iodepth': '4'}, ['--fault', 'disk_stuck=3ms@drain']),
    'SPDK that gives up': (
        {'device.driver': 'vhost-user-scsi-pci', 'workload.iodepth': '4', 'target.service': '9ms'},
        ['--policy', 'timeout', '--timeout', '1ms'],
    ),
    'fewer queues than vCPUs': (
        {'guest.vcpus': '4', 'workload.numjobs': '4', 'device.num_queues': '1'}, [],
    ),
    'LUNs': ({'target.luns': '3'}, []),
}  # fmt: skip


def sets(*tables):
    merged = {key: value for table in tables for key, value in table.items()}
    given = {key: value for key, value in merged.items() if value is not None}
    return [word for key, value in given.items() for word in ('--set', f'{key}={value}')]


def report_of(words, capsys):
    main(words)
    return json.loads(capsys.readouterr().out)


def again(report, capsys):
    words = shlex.split(report['replay'])
    assert words[:3] == ['python', '-m', 'sim']
    return report_of([*words[3:], *([] if '--json' in words else ['--json'])], capsys)


@pytest.mark.parametrize('name', STOPS)
def test_a_stop(name, capsys):
    table, options = STOPS[name]
    words = ['stop', *sets(SMALL, table), '--at', '500us', *options, '--json']
    first = report_of(words, capsys)
    second = again(first, capsys)
    for key in ('digest', 'config', 'outcome', 'violations', 'phases_ns', 'replay', 'policy'):
        assert second[key] == first[key], key


def test_a_stop_of_several_jobs_from_a_file(tmp_path, capsys):
    path = tmp_path / 'two jobs.toml'
    path.write_text(
        '[[job]]\nname = "a"\nnumber_ios = 200\n[[job]]\nname = "b"\nnumber_ios = 100\n'
        '[[lun]]\nservice = "80us"\n[[lun]]\nservice = "90us"\n'
    )
    first = report_of(['stop', str(path), '--at', '500us', '--json'], capsys)
    assert str(path) in first['replay']
    assert again(first, capsys)['digest'] == first['digest']


@pytest.mark.parametrize('options', [[], ['--policy', 'no-sync'], ['--policy', 'quiesce']])
def test_a_migration(options, capsys):
    first = report_of(['migrate', *sets(MOVE), *options, '--json'], capsys)
    second = again(first, capsys)
    for key in ('digest', 'config', 'outcome', 'violations', 'phases_ns', 'downtime_ms'):
        assert second[key] == first[key], key


def test_a_migration_to_another_device_is_made_again_as_it_was_given(tmp_path, capsys):
    path = tmp_path / 'move.toml'
    path.write_text('[migration]\nto_device = "event_idx=off"\n[[lun]]\n[[lun]]\n')
    words = ['migrate', str(path), *sets(MOVE), '--json']
    main(words)
    first = json.loads(capsys.readouterr().out)
    assert first['outcome'].startswith('load of migration failed: Features')
    assert again(first, capsys)['violations'] == first['violations']


def test_the_command_names_only_what_is_not_as_usual(capsys):
    stop = report_of(['stop', '--set', 'workload.iodepth=4', '--at', '500us', '--json'], capsys)
    assert stop['replay'] == (
        'python -m sim stop --device vhost-scsi-pci --set target.kind=constant --set '
        'workload.iodepth=4 --at 500000ns --policy drain'
    )
    move = report_of(['migrate', *sets(MOVE), '--json'], capsys)
    assert move['replay'].count('--set') <= len(MOVE) + 2
