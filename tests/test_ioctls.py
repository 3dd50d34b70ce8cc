"""The ioctls of the device model against those of a real QEMU, and how versions differ."""

import csv
import json
import subprocess
import sys

import pytest

from sim import costs, machine
from sim.__main__ import main
from sim.config import load
from sim.control.power import DRIVER_STATUS, make_host, rings_of
from sim.engine import ENGINES
from sim.studies.ioctls import migration, trace
from sim.studies.measuring import call_of
from sim.studies.target_file import shipped_folder

FIRMWARE_START = """
SCSI_GET_ABI_VERSION
SET_FEATURES features=0x100000000
GET_BACKEND_FEATURES answer=-105
SET_MEM_TABLE nregions=1
SET_VRING_NUM index=2 num=128
SET_VRING_BASE index=2
SET_VRING_ADDR index=2 flags=0
SET_VRING_KICK index=2
SET_VRING_CALL index=0
SET_VRING_CALL index=1
SET_VRING_CALL index=2
SCSI_SET_ENDPOINT
"""  # before the guest: QEMU 7.2, as in validation/qemu-ioctls.csv


def seen(*scenarios):
    """What QEMU 7.2 was seen to ask of /dev/vhost-scsi, of these scenarios."""
    with (shipped_folder() / 'qemu-ioctls.csv').open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith('#')))
    return [row['call'] for name in scenarios for row in rows if row['scenario'] == name]


def life(version='7.2', **sections):
    sections = {'device': {'num_queues': 1}, 'qemu': {'version': version}, **sections}
    return trace(load(**sections))


@pytest.fixture(scope='module')
def qemu_7_2():
    return life()


def test_from_the_last_start_to_the_end_of_the_migration(qemu_7_2):
    made = [call_of(row) for part in ('start', 'log', 'stop') for row in qemu_7_2[part]]
    assert made == seen('start', 'log', 'stop')


def test_before_any_start(qemu_7_2):
    assert [call_of(row) for row in qemu_7_2['init']] == seen('init')


def test_under_the_firmware_only_the_request_queue_has_a_ring():
    config = load(device={'num_queues': 1}, qemu={'version': '7.2'})
    world = machine.build(config, costs.of_config(config))
    engine = ENGINES['simpy'](world)
    host = make_host(engine, config)

    def firmware():
        yield from host.device.realize()
        del host.control.calls[:]
        host.device.parent_obj.guest_features = 1 << 32
        host.device.guest_writes_rings([(128, 0, 0, 0), (128, 0, 0, 0), rings_of(world)[2]])
        yield from host.device.set_status(DRIVER_STATUS)

    engine.env.process(firmware())
    engine.run()
    made = []
    for call in host.control.calls:
        made.append(call_of({'ioctl': call.name, 'result': call.answer, **call.arguments}))
    assert made == FIRMWARE_START.strip().splitlines()


def test_a_migration_on_both_hosts(capsys):
    """What the source does was seen to its end; the destination is made and started like it."""
    sides = migration(load(device={'num_queues': 1}, qemu={'version': '7.2'}))
    source, destination = ([call_of(row) for row in rows] for rows in sides.values())
    assert source == seen('init', 'start', 'log', 'stop')
    assert destination == seen('init', 'start')
    assert main(['ioctls', '--scenario', 'migrate', '--qemu', '7.2']) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == 'source'
    assert printed.index('destination') == 1 + 1 + len(source)


def names(rows):
    return [row['ioctl'].removeprefix('VHOST_') for row in rows]


def test_qemu_4_2_asks_for_less(qemu_7_2):
    old = life('4.2')
    assert names(old['init']) == [n for n in names(qemu_7_2['init']) if n != 'SET_VRING_ERR']
    assert names(old['start']) == [
        n for n in names(qemu_7_2['start']) if n != 'GET_BACKEND_FEATURES'
    ]


def test_qemu_10_2_tries_the_feature_arrays_first(qemu_7_2):
    new = life('10.2')
    for part in ('init', 'start', 'log'):
        rows = [row for row in new[part] if not row['ioctl'].endswith('FEATURES_ARRAY')]
        assert list(map(call_of, rows)) == list(map(call_of, qemu_7_2[part]))
    tried = [row for part in new.values() for row in part if row['ioctl'].endswith('_ARRAY')]
    assert [row['result'] for row in tried] == [-25, -25, -25]


def test_a_log_is_set_with_a_flush_where_the_kernel_has_one(qemu_7_2):
    """The stop is short, the endpoint long: 128 commands have to be made."""
    duration = {row['ioctl']: row['duration_us'] for row in qemu_7_2['start']}
    assert duration['VHOST_SCSI_SET_ENDPOINT'] > 10 * qemu_7_2['stop'][0]['duration_us']


def test_the_command_prints_the_columns_of_a_trace():
    command = [sys.executable, '-m', 'sim', 'ioctls', '--scenario', 'stop', '--qemu', '7.2']
    text = subprocess.run(command, capture_output=True, text=True, check=True)
    head, first, *_ = text.stdout.splitlines()
    assert text.stderr == ''
    assert head == 't_us,tid,ioctl,args,result,duration_us'
    assert 'VHOST_SCSI_CLEAR_ENDPOINT,wwpn=naa.5001405000000001 tpgt=0,0,' in first
    data = json.loads(subprocess.run([*command, '--json'], capture_output=True, check=True).stdout)
    assert data['qemu'] == '7.2'
    assert [row['ioctl'] for row in data['rows']][1:] == ['VHOST_GET_VRING_BASE'] * 3
    assert [row['index'] for row in data['rows'][1:]] == [0, 1, 2]


def test_a_device_that_has_no_such_file_is_refused(capsys):
    line = ['ioctls', '--scenario', 'stop', '--set', 'device.driver=virtio-scsi-pci']
    assert main(line) == 2
    assert 'makes no ioctls of /dev/vhost-scsi' in capsys.readouterr().err
