"""QEMU's -device string, as it stands on a command line."""

from pathlib import Path

import pytest

from sim.config import ConfigError, load
from sim.formats import qemu

DOC = (Path(__file__).resolve().parent.parent / 'docs/reference/config.md').read_text()


def plain(text: str) -> dict[str, object]:
    return {key: given.value for key, given in qemu.parse_device(text)[0].items()}


@pytest.mark.parametrize(
    'text',
    [
        'vhost-scsi-pci,num_queues=4,event_idx=off',
        '-device vhost-scsi-pci,num-queues=4,event_idx=off\n',
        'driver=vhost-scsi-pci,num_queues=4,event_idx=off',
        'num_queues=4,event_idx=off,driver=vhost-scsi-pci',
    ],
)
def test_the_forms_that_qemu_takes_mean_the_same(text):
    assert plain(text) == {'driver': 'vhost-scsi-pci', 'num_queues': '4', 'event_idx': 'off'}


def test_the_json_form_of_libvirt_is_read():
    text = '{"driver": "vhost-scsi-pci", "num_queues": 2, "event_idx": false, "id": "x"}'
    device = load(device=text, guest={'vcpus': 4}).device
    assert (device.num_queues, device.event_idx) == (2, False)


def test_a_doubled_comma_is_a_comma():
    assert plain('vhost-scsi-pci,wwpn=naa.1,,2') == {'driver': 'vhost-scsi-pci', 'wwpn': 'naa.1,2'}


@pytest.mark.parametrize(
    ('word', 'value'),
    [('on', True), ('yes', True), ('true', True), ('off', False), ('no', False), ('false', False)],
)
def test_switches_take_qemus_words(word, value):
    assert load(device=f'vhost-scsi-pci,migratable={word}').device.migratable is value


def test_a_bare_name_switches_on():
    assert load(device='vhost-scsi-pci,migratable').device.migratable is True


def test_what_changes_nothing_is_noted():
    found, notes = qemu.parse_device('vhost-scsi-pci,id=scsi0,ioeventfd=on,disable-legacy=on')
    assert set(found) == {'driver'}
    assert notes == [
        '-device: id has no effect here: a name',
        '-device: disable-legacy has no effect here: the guest driver is a modern one',
    ]


@pytest.mark.parametrize(
    ('text', 'problem'),
    [
        ('vhost-scsi-pci,num_queue=4', "no property 'num_queue'; the nearest is 'num_queues'"),
        ('vhost-scsi-pci,iommu_platform=on', 'IOMMU is not modelled'),
        ('vhost-scsi-pci,ioeventfd=off', 'not modelled'),
        ('vhost-scsi-pci,event_idx=maybe', 'neither on nor off'),
        ('vhost-scsi-pci,num_queues=', 'empty'),
        ('vhost-scsi-pci,,', 'is none of'),
        ('vhost-scsi-pci,=4', 'without a name'),
        ('', 'without a name'),
        ('{"driver": ', 'not valid JSON'),
        ('vhost-scsi', 'vhost-scsi is not modelled yet'),
        ('e1000', 'is none of vhost-scsi-pci'),
    ],
)
def test_what_makes_no_sense_is_refused(text, problem):
    with pytest.raises(ConfigError) as caught:
        load(device=text)
    assert str(caught.value).startswith('-device: ')
    assert problem in str(caught.value)


def test_the_manual_names_every_property():
    assert {name for name in {*qemu.NOTED, *qemu.ONLY} if f'`{name}`' not in DOC} == set()
