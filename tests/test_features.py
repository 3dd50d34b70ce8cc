"""Feature bits: the masks of the real stack, the semantics of masking, refusals, hypotheses.

Where a number was read off a real machine, the test says which: Debian's QEMU 7.2 and Linux 6.1.
"""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import features as f
from sim import layout
from sim.__main__ import main
from sim.config import ConfigError, load
from sim.features import bits_of, mask, negotiate

TOP = Path(__file__).resolve().parent.parent


def agreed(qemu='10.2', guest='6.12', driver='vhost-scsi-pci', **properties):
    more = {key: properties.pop(key) for key in ('logging', 'hypothetical') if key in properties}
    return negotiate(driver=driver, qemu=qemu, guest_kernel=guest, properties=properties, **more)


# ------------------------------------------------------------------------------------ the numbers


def test_what_kernel_vhost_scsi_offers_is_the_known_mask():
    assert f.VHOST_SCSI_FEATURES == 0x13D00000A
    assert bits_of(f.VHOST_SCSI_FEATURES) == (1, 3, 24, 26, 27, 28, 29, 32)


def test_the_ring_core_counts_with_the_same_numbers():
    known = {row.name.split('_F_')[1]: number for number, row in f.BITS.items()}
    for name, value in vars(layout).items():
        if name.startswith('F_') and name[2:] in known:
            assert value == known[name[2:]], name
    assert layout.F_RING_PACKED == f.RING_PACKED


def test_names_are_those_of_the_headers_and_numbers_are_theirs():
    assert all(number == bit.number for number, bit in f.BITS.items())
    assert len({bit.name for bit in f.BITS.values()}) == len(f.BITS)
    assert f.name_of(34) == 'VIRTIO_F_RING_PACKED'
    assert f.name_of(50) == 'bit 50'


@given(st.sets(st.integers(0, 63)))
def test_a_set_of_bits_reads_back(bits):
    assert set(bits_of(mask(*bits))) == bits


# ------------------------------------------------------------------------------ what is agreed on


@pytest.mark.parametrize(
    ('asked', 'sent'),
    [
        ({}, 0x130000000),
        ({'logging': True}, 0x134000000),
        ({'hotplug': True}, 0x130000002),
        ({'hotplug': True, 'logging': True}, 0x134000002),
        ({'t10_pi': True}, 0x130000008),
        ({'event_idx': False, 'indirect_desc': False}, 0x100000000),
        ({'packed': True}, 0x530000000),  # read off an ioctl trace; it answered -95
        ({'iommu_platform': True}, 0x130000000),
    ],
)
def test_the_word_that_set_features_gets(asked, sent):
    assert agreed(**asked).sent == sent


def test_log_all_is_never_shown_to_the_guest():
    assert not agreed(logging=True).offered >> f.LOG_ALL & 1
    assert not agreed(logging=True).has(f.LOG_ALL)


@pytest.mark.parametrize(
    ('asked', 'acked'),
    [
        ({}, 0x10130000006),
        ({'packed': True}, 0x10530000006),
        ({'packed': True, 'event_idx': False}, 0x10510000006),
        ({'packed': True, 'event_idx': False, 'indirect_desc': False}, 0x10500000006),
    ],
)
def test_emulated_virtio_scsi_on_qemu_7_2_with_a_6_1_guest_as_read_off_one(asked, acked):
    result = agreed(driver='virtio-scsi-pci', qemu='7.2', guest='6.1', **asked)
    assert result.acked == acked
    assert result.refusal == ''


@pytest.mark.parametrize(
    ('asked', 'ring_and_scsi_bits', 'masked'),
    [
        ({}, {28, 29, 32}, {40}),
        ({'hotplug': True}, {1, 28, 29, 32}, {40}),
        ({'t10_pi': True}, {3, 28, 29, 32}, {40}),
        ({'packed': True}, {28, 29, 32, 34}, {40}),
        ({'in_order': True}, {28, 29, 32}, {35, 40}),
    ],
)
def test_what_a_modern_guest_is_offered(asked, ring_and_scsi_bits, masked):
    result = agreed(guest='7.2', **asked)
    assert set(bits_of(result.offered & ~result.hidden)) == ring_and_scsi_bits
    assert set(bits_of(result.masked)) == masked


def test_an_unlisted_bit_passes_and_is_found_out_at_set_features():
    old = agreed(qemu='4.2', guest='7.2', in_order=True)  # the property is younger than this list
    assert old.missing == ('in_order',)
    assert old.has(f.IN_ORDER)
    assert old.answer == f.EOPNOTSUPP
    assert 'VIRTIO_F_IN_ORDER (bit 35)' in old.refusal
    assert agreed(qemu='10.2', guest='7.2', in_order=True).answer == 0


@given(
    st.sampled_from(['4.2', '7.2', '9.2', '10.2']),
    st.sampled_from(['6.1', '6.12', '7.2']),
    st.sampled_from(list(f.STACKS)),
    st.booleans(),
    st.data(),
)
def test_what_is_listed_and_lacking_is_never_offered(qemu, guest, driver, hypothetical, data):
    names = sorted(f.properties_of(driver))
    asked = {name: data.draw(st.booleans(), label=name) for name in names}
    result = negotiate(
        driver=driver, qemu=qemu, guest_kernel=guest, properties=asked, hypothetical=hypothetical
    )
    assert result.offered & ~result.host == 0
    assert result.acked & ~(result.offered & result.accepted) == 0
    assert result.acked & f.LEGACY_ONLY == 0
    if result.backend is not None:
        assert result.offered & result.listed & ~(result.backend | result.assumed) == 0
        assert (result.answer == 0) == (result.refused == 0) == (result.refusal == '')
    assert all(row['why'] for row in result.rows())
    json.dumps(result.as_data())


def test_spdk_has_no_event_idx_and_no_packed_ring_for_scsi():
    result = agreed(driver='vhost-user-scsi-pci')
    assert result.acked == mask(f.INDIRECT_DESC, f.VERSION_1, f.HOTPLUG, f.CHANGE)
    packed = agreed(driver='vhost-user-scsi-pci', packed=True)
    assert packed.answer == f.REFUSED
    assert 'disconnects the chardev' in packed.refusal


@pytest.mark.parametrize(
    ('kernel', 'bit', 'acks'),
    [
        ('6.1', f.IN_ORDER, False),
        ('6.12', f.IN_ORDER, False),
        ('7.2', f.IN_ORDER, True),
        ('6.1', f.NOTIFICATION_DATA, False),
        ('6.12', f.NOTIFICATION_DATA, True),
        ('6.1', f.RING_PACKED, True),
        ('7.2', f.INOUT, False),
        ('7.2', f.SUSPEND, False),
    ],
)
def test_what_linux_acks_by_version(kernel, bit, acks):
    assert bool(f.linux_accepts(kernel) >> bit & 1) is acks


def test_bits_from_32_on_need_virtio_1():
    assert f.unmet(mask(f.RING_PACKED, f.EVENT_IDX)) == [
        'VIRTIO_F_RING_PACKED needs VIRTIO_F_VERSION_1'
    ]
    assert f.unmet(mask(f.RING_PACKED, f.VERSION_1)) == []


@pytest.mark.parametrize(
    ('kernel', 'wanted', 'state', 'answer'),
    [
        ('6.12', 0x130000000, {}, 0),
        ('6.12', 0x530000000, {}, f.EOPNOTSUPP),
        ('6.12', 0x134000000, {'log_valid': False}, f.EFAULT),
        ('7.2', 0x134000000, {'acked': 0x130000000, 'endpoint': True}, 0),
        ('7.2', 0x110000000, {'acked': 0x130000000, 'endpoint': True}, f.EBUSY),
        ('6.1', 0x110000000, {'acked': 0x130000000, 'endpoint': True}, 0),
        ('7.2', 0x530000000, {'log_valid': False, 'endpoint': True}, f.EOPNOTSUPP),
    ],
)
def test_what_vhost_set_features_answers(kernel, wanted, state, answer):
    assert f.set_features(kernel, wanted, **state) == answer


# ------------------------------------------------------------------------------------- hypotheses


def test_a_hypothetical_backend_offers_what_is_asked_for_and_says_so():
    result = agreed(guest='7.2', packed=True, in_order=True, hypothetical=True)
    assert result.acked == 0xD30000000
    assert result.refusal == ''
    assert result.hypothetical == ('VIRTIO_F_RING_PACKED', 'VIRTIO_F_IN_ORDER')


def test_by_hypothesis_nothing_is_assumed_that_was_not_asked_for():
    result = agreed(guest='7.2', hypothetical=True)
    assert (result.acked, result.hypothetical) == (0x130000000, ())


def test_the_guest_must_still_ack():
    result = agreed(guest='6.12', in_order=True, hypothetical=True)
    assert not result.has(f.IN_ORDER)
    assert result.hypothetical == ()


# ------------------------------------------------------------------------------------- the config


def test_a_config_knows_what_was_agreed_on():
    config = load(device={'event_idx': False})
    assert config.agreed.acked == mask(f.INDIRECT_DESC, f.VERSION_1)
    assert config.agreed.hypothetical == ()
    config = load(device={'packed': True}, run={'hypothetical': True})
    assert config.device.packed
    assert config.agreed.hypothetical == ('VIRTIO_F_RING_PACKED',)
    assert config.notes == ()


def test_in_order_takes_a_guest_that_knows_it():
    asked = {'device': {'in_order': True}, 'run': {'hypothetical': True}}
    old, new = load(**asked), load(**asked, guest={'kernel': '7.2'})
    assert not old.device.in_order
    assert any('guest.kernel=7.2 does' in note for note in old.notes)
    assert any('nothing hypothetical' in note for note in old.notes)
    assert new.device.in_order
    assert new.notes == ()


@pytest.mark.parametrize(
    ('name', 'too_old', 'first'), [('in_order', '8.2', '9.1'), ('hotplug', '10.0', '10.1')]
)
def test_a_property_that_this_qemu_does_not_have_is_refused(name, too_old, first):
    with pytest.raises(ConfigError, match=f'QEMU {too_old} has no such property, .* {first}'):
        load(device={name: True}, qemu={'version': too_old})


# ------------------------------------------------------------------------------------ the command


def test_the_command_prints_the_negotiation_also_of_what_would_not_start(capsys):
    assert main(['features', '--device', 'vhost-scsi-pci,packed=on', '--json']) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told['starts'], told['answer'], told['sent']) == (False, -95, '0x530000000')
    rows = {row['bit']: row for row in told['bits']}
    assert (rows[34]['offered'], rows[34]['acked'], rows[34]['backend']) == (True, True, False)
    assert (rows[40]['listed'], rows[40]['offered']) == (True, False)
    assert main(['features', '--device', 'vhost-scsi-pci,packed=on']) == 0
    text = capsys.readouterr().out
    assert 'unable to start vhost-scsi' in text
    assert '34  VIRTIO_F_RING_PACKED' in text


def test_the_command_takes_every_driver_and_every_feature_property(capsys):
    arguments = ['features', '--device', 'virtio-scsi-pci,queue_reset=off,packed=on', '--json']
    assert main([*arguments, '--set', 'qemu.version=7.2']) == 0
    assert json.loads(capsys.readouterr().out)['acked'] == '0x530000006'


@pytest.mark.parametrize(
    ('device', 'says'),
    [
        ('virtio-scsi-pci,t10_pi=on', 'no property of virtio-scsi-pci'),
        ('vhost-scsi-pci,queue_reset=2', 'neither on nor off'),
        ('vhost-scsi-pci,pakced=on', "the nearest is 'packed'"),
        ('nvme', 'is none of'),
    ],
)
def test_the_command_refuses_nonsense_on_one_line(device, says, capsys):
    assert main(['features', '--device', device]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count('\n') == 1
