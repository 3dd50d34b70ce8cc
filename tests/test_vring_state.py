"""A ring stopped here goes on there, and saved nonsense is refused in one line.

V21 of the vectors (tests/test_vectors.py) is the arithmetic of a hand-over; this is what may be
saved, what it looks like in the stream, and what a loader says to numbers that cannot be.
"""

import dataclasses

import pytest

from sim import testing, vring
from sim.ring import state as vring_state
from sim.ring.state import PackedState, SplitState
from sim.testing import IN_ORDER, QEMU, VERSION_1

SPLIT = {
    'num': 128,
    'features': testing.FEATURES,
    'desc': 0x10000,
    'avail': 0x10800,
    'used': 0x11000,
    'last_avail': 8,
}
PACKED = {
    'num': 8,
    'features': testing.FEATURES | testing.RING_PACKED,
    'desc': 0x20000,
    'avail': 0x20080,
    'used': 0x20084,
    'last_avail': 1,
    'last_avail_wrap': 0,
    'used_idx': 6,
    'used_wrap': 1,
}


def test_split_state_in_the_stream():
    state = SplitState(**SPLIT)
    fields = state.vmstate()
    assert fields['num'].hex(' ') == '00 00 00 80'
    assert fields['last_avail_idx'].hex(' ') == '00 08'
    assert fields['desc'].hex(' ') == '00 00 00 00 00 01 00 00'
    assert state.base == 8
    assert SplitState.from_vmstate(fields, testing.FEATURES) == state


def test_packed_state_in_the_stream():
    state = PackedState(**PACKED)
    fields = state.vmstate()
    assert state.base == 0x80060001
    assert state.in_use == 3
    assert fields['last_avail_idx'].hex() == '0001'
    assert fields['used_wrap_counter'].hex() == '01'
    assert fields['inuse'].hex() == '00000003'
    assert PackedState.from_vmstate(fields, state.features) == state
    assert state.with_base(0x80008003) == dataclasses.replace(
        state, last_avail=3, last_avail_wrap=1, used_idx=0
    )


@pytest.mark.parametrize('packed', [False, True])
def test_a_stopped_ring_goes_on_elsewhere(packed):
    ring = testing.Ring(packed=packed, features=VERSION_1)
    for token in 'abc':
        ring.driver.add(out=[(0x1000, 51)], token=token)
    ring.device.use(ring.device.fetch())
    state = vring_state.save(ring.device.st, 0)
    ring.device.st[:] = 77  # another host knows nothing
    state.to_ring(ring.mem, ring.device.st, 0)
    assert not ring.device.signalled_used_valid, 'the first check interrupts'
    for _ in 'bc':
        ring.device.use(ring.device.fetch())
    assert ring.device.fetch() is None
    assert ring.driver.reap() == ['a', 'b', 'c']


def test_a_ring_stopped_with_kicks_off_begins_with_kicks_on():
    """What was said to this guest's memory is said again: used.flags is written anew."""
    ring = testing.Ring(features=VERSION_1)
    ring.device.disable_notify()
    assert not ring.driver.kick()
    vring_state.save(ring.device.st, 0).to_ring(ring.mem, ring.device.st, 0)
    assert ring.driver.kick()


def test_a_ring_with_chains_in_flight_drains_after_the_move():
    """A split device needs no memory of what it took: the head is all it gives back."""
    ring = testing.Ring(features=VERSION_1)
    for token in 'ab':
        ring.driver.add(out=[(0x1000, 51)], token=token)
    first, second = ring.device.fetch(), ring.device.fetch()
    state = SplitState.from_ring(ring.device.st, 0)
    state.to_ring(ring.mem, ring.device.st, 0)
    assert state.in_use(ring.mem) == 2
    ring.device.use(second)
    ring.device.use(first)
    assert ring.driver.reap() == ['b', 'a']


@pytest.mark.parametrize('packed', [False, True])
def test_in_order_with_chains_in_flight_cannot_move(packed):
    ring = testing.Ring(packed=packed, features=VERSION_1 | IN_ORDER)
    ring.driver.add(out=[(0x1000, 51)])
    ring.device.fetch()
    with pytest.raises(ValueError, match='where they stand in line'):
        vring_state.save(ring.device.st, 0)


def test_a_forced_stop_begins_again_at_used_idx():
    """Chains 5, 6, 7 were out and only one came back: it and the next run again, the first never.

    Which is why a forced stop is safe only where completions come in order.
    """
    state = SplitState(**SPLIT | {'num': 8, 'avail': 0x10080})
    ring = testing.Ring(num=8)
    ring.write(state.used + 2, '06 00')
    assert state.restarted_at_used(ring.mem).last_avail == 6
    packed = PackedState(**PACKED)
    assert packed.restarted_at_used(ring.mem) == packed


# --------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ('used', 'last_avail', 'in_use'), [(8, 8, 0), (0xFFFE, 2, 4), (0, 128, 128)]
)
def test_load_takes_what_may_be_in_use(used, last_avail, in_use):
    ring = testing.Ring(num=128)
    state = SplitState(**SPLIT | {'last_avail': last_avail})
    ring.write(state.used + 2, used.to_bytes(2, 'little'))
    ring.write(state.avail + 2, last_avail.to_bytes(2, 'little'))
    state.to_ring(ring.mem, ring.device.st, 0)
    assert state.in_use(ring.mem) == in_use


def test_load_refuses_a_used_index_that_is_ahead():
    ring = testing.Ring(num=128)
    ring.write(0x11002, '09 00')
    with pytest.raises(ValueError, match='means 65535 chains in use, the ring has 128'):
        SplitState(**SPLIT).to_ring(ring.mem, ring.device.st, 0)


def test_load_goes_on_with_a_broken_device_when_avail_idx_ran_away():
    ring = testing.Ring(num=128, personality=QEMU)
    ring.write(0x11002, '0b 00')
    ring.write(0x10802, '0a 00')
    ring.driver.add(out=[(0x1000, 51)])
    ring.write(0x10802, '0a 00')
    SplitState(**SPLIT | {'last_avail': 11}).to_ring(ring.mem, ring.device.st, 0, QEMU)
    assert ring.device.broken
    assert ring.device.status == 64, 'DEVICE_NEEDS_RESET'
    assert ring.device.verdict == 'BAD_AVAIL_INDEX'
    assert ring.device.fetch() is None


def test_load_refuses_areas_that_this_memory_does_not_have():
    small = testing.Ring(num=8, memory=0x12000)
    with pytest.raises(ValueError, match='no such ring: BAD_RING_ADDRESS'):
        SplitState(**SPLIT | {'used': 0x20000}).to_ring(small.mem, small.device.st, 0)
    packed = testing.Ring(packed=True, num=8, memory=0x21000)
    with pytest.raises(ValueError, match='cannot go on with it: BAD_RING_ADDRESS'):
        PackedState(**PACKED | {'desc': 0x20FF0}).to_ring(packed.mem, packed.device.st, 0)


@pytest.mark.parametrize(
    ('wrong', 'reason'),
    [
        ({'num': 0}, '0 entries'),
        ({'num': 65536}, '65536 entries'),
        ({'num': 100}, 'not a power of two'),
        ({'last_avail': 65536}, 'not 16 bits'),
        ({'last_avail': -1}, 'not 16 bits'),
        ({'desc': 0x10008}, 'not aligned to 16'),
        ({'avail': 0x10801}, 'not aligned to 2'),
        ({'used': 0x11002}, 'not aligned to 4'),
        ({'desc': 1 << 64}, 'not a 64-bit address'),
        ({'features': -1}, 'not 64 bits'),
        ({'features': testing.RING_PACKED}, 'this is a split ring'),
    ],
)
def test_a_split_state_that_cannot_be(wrong, reason):
    with pytest.raises(ValueError, match=f'^saved ring: .*{reason}') as caught:
        SplitState(**SPLIT | wrong)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('wrong', 'reason'),
    [
        ({'num': 32769}, '32769 entries'),
        ({'features': 0}, 'this is a packed ring'),
        ({'last_avail': 8}, 'lies beyond a ring of 8'),
        ({'used_idx': -1}, 'lies beyond a ring of 8'),
        ({'used_wrap': 2}, 'not a wrap counter'),
        ({'used_wrap': 0}, 'descriptors in use'),
        ({'last_avail': 7}, 'descriptors in use'),
        ({'used': 0x20086}, 'not aligned to 4'),
    ],
)
def test_a_packed_state_that_cannot_be(wrong, reason):
    with pytest.raises(ValueError, match=f'^saved ring: .*{reason}') as caught:
        PackedState(**PACKED | wrong)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'num': None}, 'field num is missing'),
        ({'vector': b'\0\0'}, 'unknown field vector'),
        ({'last_avail_idx': b'\0'}, 'has 1 bytes, not 2'),
        ({'inuse': b'\0\0\0\4'}, 'inuse 4, but the indices are 3 apart'),
        ({'used_wrap_counter': b'\7'}, 'used_wrap 7 is not a wrap counter'),
    ],
)
def test_a_stream_that_cannot_be(change, reason):
    fields = PackedState(**PACKED).vmstate() | change
    fields = {name: raw for name, raw in fields.items() if raw is not None}
    with pytest.raises(ValueError, match=reason):
        PackedState.from_vmstate(fields, PACKED['features'])


@pytest.mark.parametrize('base', [-1, 1 << 32])
def test_a_base_that_no_ioctl_carries(base):
    with pytest.raises(ValueError, match='not 32 bits'):
        PackedState(**PACKED).with_base(base)
    with pytest.raises(ValueError, match='not 16 bits'):
        SplitState(**SPLIT).with_base(base)


def test_save_knows_which_ring_it_is():
    for packed, kind in ((False, SplitState), (True, PackedState)):
        ring = testing.Ring(packed=packed)
        assert type(vring_state.save(ring.device.st, 0)) is kind
        assert vring_state.save(ring.device.st, 0).base == vring.fresh_base(ring.features)
