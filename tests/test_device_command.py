"""sim device and --libvirt: properties by version, domains, and who dropped which bit."""

import json
from pathlib import Path

import pytest

from sim import features
from sim.__main__ import main
from sim.config import ConfigError, load
from sim.formats.device_table import effective, table_of
from sim.formats.keys import Device, Qemu, fields_of
from sim.formats.libvirt import device_pairs, parse_libvirt, read_domain

EXAMPLES = Path(__file__).resolve().parent.parent / 'examples'
WWPN = 'wwpn=naa.5001405000000001'
VERSIONS = fields_of('qemu')['version'].metadata['key'].choices


def described(capsys, *arguments):
    code = main(['device', *arguments, '--json'])
    return code, json.loads(capsys.readouterr().out)


def values(data):
    return {row['name']: row['value'] for row in data['properties']}


# ------------------------------------------------------------------------------------- properties


@pytest.mark.parametrize(
    ('driver', 'qemu', 'expected'),
    [
        ('vhost-scsi-pci', '4.2', {'num_queues': 1, 'virtqueue_size': 128, 'vectors': 4}),
        ('vhost-scsi-pci', '5.2', {'num_queues': 6, 'seg_max_adjust': True, 'vectors': 9}),
        ('vhost-scsi-pci', '10.2', {'num_queues': 6, 'worker_per_virtqueue': False}),
        ('vhost-user-scsi-pci', '10.2', {'virtqueue_size': 128, 'hotplug': True, 'packed': False}),
        ('virtio-scsi-pci', '4.2', {'num_queues': 1, 'virtqueue_size': 128}),
        ('virtio-scsi-pci', '10.2', {'num_queues': 6, 'virtqueue_size': 256, 'iothread': 'none'}),
    ],
)
def test_defaults_are_those_of_device_and_version(driver, qemu, expected):
    found = {name: row.value for name, row in effective(driver, {}, qemu=qemu, vcpus=6).items()}
    assert found.items() >= expected.items()


def test_a_property_is_there_from_its_version_on():
    names = 'seg_max_adjust worker_per_virtqueue in_order queue_reset hotplug'.split()
    first = {
        name: next(v for v in VERSIONS if name in effective('vhost-scsi', {}, qemu=v, vcpus=1))
        for name in names
    }
    assert first == {
        'seg_max_adjust': '5.2',  # 5.0
        'worker_per_virtqueue': '9.2',  # 9.0
        'in_order': '9.2',  # 9.1
        'queue_reset': '7.2',
        'hotplug': '10.1',
    }
    with pytest.raises(ConfigError, match=r"'vhost-scsi.worker_per_virtqueue' not found; .* 9.0"):
        effective('vhost-scsi', {'worker_per_virtqueue': 'on'}, qemu='8.2', vcpus=1)


@pytest.mark.parametrize('qemu', VERSIONS)
@pytest.mark.parametrize('vcpus', [1, 5])
@pytest.mark.parametrize('driver', ['vhost-scsi-pci', 'vhost-user-scsi-pci', 'virtio-scsi-pci'])
def test_a_run_has_the_defaults_that_the_command_prints(driver, qemu, vcpus):
    config = load(guest={'vcpus': vcpus}, qemu={'version': qemu}, device={'driver': driver})
    shown = effective(driver, {}, qemu=qemu, vcpus=vcpus)
    masked = {  # a default that the backend takes back
        name
        for name, row in features.properties_of(driver).items()
        if not config.agreed.has(row.bit)
    }
    common = [name for name in vars(config.device) if name in shown and name not in ('wwpn',)]
    common = [name for name in common if name not in masked or not shown[name].value]
    assert len(common) >= 7
    for name in common:
        value = shown[name].value
        assert getattr(config.device, name) == (None if value == 'none' else value), name


def test_every_key_of_device_is_a_property_that_qemu_has():
    known = set().union(*(table_of(d) for d in ('vhost-scsi-pci', 'virtio-scsi-pci')))
    assert set(Device.__dataclass_fields__) - {'driver'} <= known
    assert Qemu().version == VERSIONS[-1]


@pytest.mark.parametrize(
    ('text', 'problem'),
    [
        ('vhost-scsi-pci,num_quues=4', "nearest is 'num_queues'"),
        ('virtio-scsi-pci,worker_per_virtqueue=on', 'has no property'),
        ('vhost-scsi-pci,virtqueue_size=100', 'no power of two'),
        ('vhost-scsi-pci,virtqueue_size=2', 'takes 3 to 1024'),
        ('vhost-scsi-pci,packed=perhaps', 'neither on nor off'),
        ('virtio-blk-pci', 'is none of'),
        ('virtio-scsi-pci,iothread-vq-mapping=io0', 'write JSON'),
        ('{"driver":"virtio-scsi-pci","iothread-vq-mapping":[]}', 'write JSON'),
        ('{"driver":"virtio-scsi-pci","iothread-vq-mapping":[{"vqs":[0]}]}', 'write JSON'),
        (
            '{"driver":"virtio-scsi-pci","iothread-vq-mapping":[{"iothread":"a","vqs":[true]}]}',
            'write JSON',
        ),
        (
            '{"driver":"virtio-scsi-pci","iothread-vq-mapping":'
            '[{"iothread":"a","vqs":[0]},{"iothread":"b"}]}',
            'every IOThread has vqs or none',
        ),
        (
            '{"driver":"virtio-scsi-pci","iothread-vq-mapping":[{"iothread":"a"},{"iothread":"a"}]}',
            'stands there twice',
        ),
    ],
)
def test_what_the_device_does_not_take_is_an_error(text, problem, capsys):
    assert main(['device', text]) == 2
    assert problem in capsys.readouterr().err


def test_a_mapping_of_iothreads_is_printed_as_qemu_takes_it(capsys):
    rows = [{'iothread': 'a', 'vqs': [0, 2]}, {'iothread': 'b', 'vqs': [1]}]
    text = json.dumps({'driver': 'virtio-scsi-pci', 'iothread-vq-mapping': rows})
    assert main(['device', text, '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    (row,) = (row for row in found['properties'] if row['name'] == 'iothread_vq_mapping')
    assert json.loads(row['value']) == rows


@pytest.mark.parametrize(
    ('options', 'problem'),
    [
        (['--vcpus', '0'], 'error: guest.vcpus: 0 is out of range: 1 to 4096\n'),
        (['--qemu', '3.0'], "error: qemu.version: '3.0' is none of "),
        (['--kernel', '7'], "error: host.kernel: '7' is none of "),
    ],
)
def test_a_machine_that_makes_no_sense_is_an_error(options, problem, capsys):
    assert main(['device', 'virtio-scsi-pci', *options]) == 2
    assert capsys.readouterr().err.startswith(problem)


# ----------------------------------------------------------------------------------------- command


def test_the_config_space_and_the_queues_follow_from_the_properties(capsys):
    code, data = described(capsys, f'vhost-scsi-pci,{WWPN},virtqueue_size=512', '--vcpus', '3')
    assert code == 0
    assert data['config_space']['seg_max'] == 510
    assert data['config_space']['num_queues'] == 3
    assert data['virtqueues']['request'] == [2, 4]
    assert values(data)['vectors'] == 6
    _, data = described(capsys, f'vhost-scsi-pci,{WWPN},virtqueue_size=512,seg_max_adjust=off')
    assert data['config_space']['seg_max'] == 126


def test_who_dropped_a_bit_is_said(capsys):
    code, data = described(capsys, f'vhost-scsi-pci,{WWPN},packed=on,in_order=on,event_idx=off')
    assert code == 1
    dropped = {row['name']: row['dropped_by'] for row in data['bits']}
    assert dropped['VIRTIO_RING_F_EVENT_IDX'] == 'property'
    assert dropped['VIRTIO_F_RING_RESET'] == 'backend, masked by QEMU'
    assert dropped['VIRTIO_F_RING_PACKED'] == 'backend, at SET_FEATURES'
    assert dropped['VIRTIO_F_NOTIFY_ON_EMPTY'] == 'modern driver'
    assert dropped['VIRTIO_RING_F_INDIRECT_DESC'] == ''
    assert 'EOPNOTSUPP' in data['refused'][0]
    # Emulated: nobody masks it; only a later guest takes it.
    _, old = described(capsys, 'virtio-scsi-pci,in_order=on')
    _, new = described(capsys, 'virtio-scsi-pci,in_order=on', '--guest', '7.2')
    assert [
        next(row['dropped_by'] for row in data['bits'] if row['name'] == 'VIRTIO_F_IN_ORDER')
        for data in (old, new)
    ] == ['guest', '']


def test_what_would_not_start_is_refused(capsys):
    code, data = described(capsys, f'vhost-scsi-pci,{WWPN},num_queues=200', '--vcpus', '4')
    assert code == 1
    assert 'max_io_vqs' in data['refused'][0]
    assert 'one request queue per vCPU: 4 of 200' in data['notes'][0]
    assert described(capsys, 'vhost-scsi-pci')[1]['refused'] == ['vhost-scsi-pci needs wwpn']


def test_workers_by_kernel(capsys):
    text = f'vhost-scsi-pci,{WWPN},worker_per_virtqueue=on'
    _, data = described(capsys, text, '--vcpus', '4')
    assert data['workers'].startswith('4 vhost workers')
    _, data = described(capsys, text, '--vcpus', '4', '--kernel', '6.1')
    assert data['workers'].startswith('one vhost worker')
    assert 'ENOTTY' in data['notes'][0]


def test_the_text_is_for_people(capsys):
    assert main(['device', f'vhost-scsi-pci,{WWPN}', '--qemu', '7.2', '--kernel', '6.1']) == 0
    out = capsys.readouterr().out
    assert 'QEMU 7.2, backend kernel vhost-scsi, host Linux 6.1' in out
    assert 'config space  num_queues=1  seg_max=126' in out
    assert out.rstrip().endswith('it starts')


# ----------------------------------------------------------------------------------------- libvirt

DOMAIN = """<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <vcpu current='3'>8</vcpu><os><type machine='{machine}'>hvm</type></os>
  <devices>{devices}</devices>{rest}
</domain>"""
CONTROLLER = (
    "<controller type='scsi' index='0' model='virtio-scsi'><driver {driver}/>"
    "<alias name='scsi0'/></controller>"
)
HOSTDEV = (
    "<hostdev mode='subsystem' type='scsi_host'><source protocol='vhost' wwpn='naa.5'/>"
    "<boot order='2'/></hostdev>"
)


@pytest.fixture
def domain(tmp_path):
    """Writes a domain and gives its path."""

    def write(devices, rest='', machine='pc-q35-9.2'):
        path = tmp_path / 'domain.xml'
        path.write_text(DOMAIN.format(devices=devices, rest=rest, machine=machine))
        return path

    return write


def pairs_of(path):
    return dict(device_pairs(read_domain(path), str(path))[0])


def test_a_vhost_hostdev_is_a_vhost_scsi_device(domain):
    config = load(libvirt=domain(HOSTDEV + CONTROLLER.format(driver="queues='9'")))
    device = config.device
    assert (device.driver, device.wwpn, device.bootindex) == ('vhost-scsi-pci', 'naa.5', 2)
    assert (config.guest.vcpus, device.num_queues) == (3, 3)
    assert any('<controller> scsi0 is left out' in note for note in config.notes)


def test_the_attributes_of_a_controller_are_properties(domain):
    driver = "queues='4' cmd_per_lun='64' max_sectors='512' iothread='2' packed='on' ioeventfd='on'"
    assert pairs_of(domain(CONTROLLER.format(driver=driver))) == {
        'driver': 'virtio-scsi-pci',
        'num_queues': '4',
        'cmd_per_lun': '64',
        'max_sectors': '512',
        'iothread': 'iothread2',
        'packed': 'on',
        'ioeventfd': 'on',
    }


def test_the_machine_type_changes_defaults_unless_they_are_given(domain):
    old = pairs_of(domain(HOSTDEV, machine='pc-i440fx-4.2'))
    assert (old['num_queues'], old['seg_max_adjust'], old['queue_reset']) == (1, 'off', 'off')
    assert 'virtqueue_size' not in old
    driver = CONTROLLER.format(driver="queues='4'")
    emulated = pairs_of(domain(driver, machine='pc-q35-4.1'))
    assert (emulated['num_queues'], emulated['virtqueue_size']) == ('4', 128)
    assert 'num_queues' not in pairs_of(domain(HOSTDEV, machine='pc-q35-5.2'))
    assert load(libvirt=domain(HOSTDEV, machine='pc-q35-5.1')).device.num_queues == 1


def test_overrides_count_for_the_device_that_they_name(capsys):
    assert pairs_of(EXAMPLES / 'domain.xml') == {
        'driver': 'vhost-scsi-pci',
        'wwpn': 'naa.5001405bd9ed7ef1',
        'num_queues': '2',
        'worker_per_virtqueue': 'on',
    }
    code, data = described(capsys, '--libvirt', str(EXAMPLES / 'domain.xml'))
    assert (code, data['vcpus'], data['virtqueues']['used_by_linux']) == (0, 4, 2)


def test_a_device_string_and_set_outrank_the_domain(domain, capsys):
    path = domain(HOSTDEV)
    config = load(libvirt=path, device='vhost-scsi-pci,num_queues=2', sets=['guest.vcpus=5'])
    assert (config.device.num_queues, config.guest.vcpus) == (2, 5)
    assert config.device.wwpn == 'naa.5'
    _, data = described(capsys, 'vhost-scsi-pci,num_queues=2', '--libvirt', str(path))
    assert (values(data)['num_queues'], values(data)['wwpn']) == (2, 'naa.5')


@pytest.mark.parametrize(
    ('devices', 'rest', 'problem'),
    [
        ('', '', 'no virtio-scsi device'),
        (HOSTDEV * 2, '', '2 devices'),
        (HOSTDEV.replace(" wwpn='naa.5'", ''), '', 'has no wwpn'),
        (HOSTDEV.replace('vhost', 'iscsi'), '', 'only <source'),
        (CONTROLLER.format(driver="quues='4'"), '', "nearest is 'queues'"),
        (HOSTDEV, "<qemu:commandline><qemu:arg value='-global vhost-scsi-pci.packed=on'/>"
         '</qemu:commandline>', 'may change the device'),
    ],
)  # fmt: skip
def test_a_domain_that_cannot_be_meant_is_refused(domain, devices, rest, problem):
    path = domain(devices, rest)
    with pytest.raises(ConfigError, match=problem) as caught:
        parse_libvirt(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ('text', 'problem'),
    [
        ('<domain', 'is no XML'),
        ('<network/>', 'begins with <network>'),
        ('<!DOCTYPE a [<!ENTITY b "c">]><domain>&b;</domain>', 'no DOCTYPE'),
    ],
)
def test_what_is_no_domain_is_refused(tmp_path, text, problem):
    path = tmp_path / 'a.xml'
    path.write_text(text)
    with pytest.raises(ConfigError, match=problem):
        parse_libvirt(path)


def test_a_controller_runs(domain):
    config = load(libvirt=domain(CONTROLLER.format(driver="queues='2' iothread='1'")))
    assert (config.device.driver, config.device.virtqueue_size) == ('virtio-scsi-pci', 256)
    assert config.device.num_queues == 2


def test_a_run_takes_a_domain(domain, capsys):
    path = domain(HOSTDEV)
    code = main(
        ['run', '--libvirt', str(path), '--set', 'workload.number_ios=20', '--json'],
    )
    assert code == 0
    report = json.loads(capsys.readouterr().out)
    assert report['config']['guest']['vcpus'] == 3
    assert report['config']['device']['wwpn'] == 'naa.5'


def test_a_guest_that_writes_its_config_space_is_told_what_qemu_says(capsys):
    kernel, own = ['vhost-scsi-pci,' + WWPN], ['virtio-scsi-pci,iothread=io0']
    same = ['--write-config', 'sense_size=96', '--write-config', 'cdb_size=32']
    code, data = described(capsys, *kernel, *same)
    assert (code, data['refused']) == (0, [])
    code, data = described(capsys, *kernel, '--write-config', 'sense_size=252')
    assert code == 1
    assert data['starts']
    assert data['refused'] == [
        'vhost-scsi does not support changing the sense data and CDB sizes (the guest writes '
        'sense_size 252, cdb_size 32)'
    ]
    assert data['config_space']['sense_size'] == 96
    code, data = described(capsys, *own, '--write-config', 'sense_size=252')
    assert (code, data['config_space']['sense_size']) == (0, 252)
    code, data = described(capsys, *own, '--write-config', 'cdb_size=256')
    assert code == 1
    assert data['refused'][0].startswith('bad data written to virtio-scsi configuration space')


@pytest.mark.parametrize('word', ['sense_size', 'sense_size=big', 'max_sectors=3'])
def test_what_no_guest_can_write_is_refused(capsys, word):
    assert main(['device', 'vhost-scsi-pci,' + WWPN, '--write-config', word]) == 2
    assert f'error: --write-config {word}: a guest may write' in capsys.readouterr().err
