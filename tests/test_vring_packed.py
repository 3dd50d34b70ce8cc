"""The packed ring, story by story: what the vectors leave out.

Rings of any size, descriptors skipped by both sides, event suppression structures, buffer ids, and
which bytes each operation touches.
"""

import pytest

from sim import testing, vring
from sim.testing import EVENT_IDX, KERNEL_VHOST, QEMU, VERSION_1

WHO = pytest.mark.parametrize('personality', [KERNEL_VHOST, QEMU], ids=['vhost', 'qemu'])


def packed(num=8, features=VERSION_1, **more):
    return testing.Ring(num, packed=True, features=features, **more)


def event(ring, address):
    """(offset, wrap, flags) of an event structure."""
    off_wrap, flags = (int.from_bytes(ring.read(address + at, 2), 'little') for at in (0, 2))
    return off_wrap & 0x7FFF, off_wrap >> 15, flags


@pytest.mark.parametrize('num', [1, 2, 3, 5, 7, 8])
def test_a_ring_of_any_size_goes_round_and_round(num):
    ring = packed(num)
    for lap in range(3):
        for slot in range(num):
            ring.driver.add(out=[(0x1000, 8)], token=(lap, slot))
            wrap = 1 - lap % 2
            flags = int.from_bytes(ring.read(ring.desc + 16 * slot + 14, 2), 'little')
            assert flags == (0x80 if wrap else 0x8000)
            ring.device.use(ring.device.fetch())
            assert ring.driver.reap() == [(lap, slot)]
    assert (ring.driver.avail_idx, ring.driver.last_used & 0x7FFF) == (0, 0)


def test_a_chain_in_the_ring_takes_as_many_ids_as_descriptors():
    ring = packed(features=VERSION_1)
    three = {'out': [(0x1000, 8)], 'in_': [(0x2000, 8), (0x3000, 8)]}
    assert [ring.driver.add(**three), ring.driver.add(**three)] == [0, 3]
    assert ring.driver.free_list() == [6, 7]
    first, second = ring.device.fetch(), ring.device.fetch()
    ring.device.use(second)
    ring.device.use(first)
    assert ring.driver.reap() == [3, 0]
    assert ring.driver.free_list() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_the_id_stands_in_every_descriptor_and_is_read_from_the_last():
    ring = packed()
    ring.driver.add(out=[(0x1000, 8)], in_=[(0x2000, 8)])
    ring.write(ring.desc + 12, '05 00')  # the head's id means nothing
    chain = ring.device.fetch()
    assert chain.head == 0
    ring.write(ring.desc + 12, '00 00')
    ring.device.use(chain)
    assert ring.driver.reap() == [0]


def test_the_head_is_published_last():
    """All descriptors of a chain but the first may be seen as available: the first keeps them."""
    ring = packed()
    flags_of = [ring.desc + 16 * i + 14 for i in range(3)]
    ring.driver.add(out=[(0x1000, 8)], in_=[(0x2000, 8), (0x3000, 8)])
    head = ring.read(flags_of[0], 2)
    ring.write(flags_of[0], '00 00')
    assert ring.device.fetch() is None
    ring.write(flags_of[0], head)
    assert len(ring.device.fetch().in_) == 2


@WHO
@pytest.mark.parametrize('event_idx', [0, EVENT_IDX])
def test_how_a_device_says_whether_it_wants_kicks(personality, event_idx):
    ring = packed(features=VERSION_1 | event_idx, personality=personality)
    at = ring.used
    assert event(ring, at) == (0, 0, 0), 'ENABLE, as zeroed memory says'
    ring.device.disable_notify()
    assert event(ring, at)[2] == 1
    ring.driver.add(out=[(0x1000, 8)])
    assert not ring.driver.kick()
    ring.device.fetch()
    assert not ring.device.enable_notify()
    assert event(ring, at) == ((1, 1, 2) if event_idx else (0, 0, 0))
    ring.driver.add(out=[(0x1000, 8)])
    assert ring.driver.kick()


def test_the_kernels_habit_is_not_to_turn_off_twice():
    told = {}
    for personality in (KERNEL_VHOST, QEMU):
        ring = packed(personality=personality)
        ring.device.disable_notify()
        ring.write(ring.used, '00 00 00 00')
        ring.device.disable_notify()
        told[personality] = event(ring, ring.used)[2]
        ring.device.enable_notify()
        ring.device.disable_notify()
        assert event(ring, ring.used)[2] == 1, 'but it does turn them off again'
    assert told == {KERNEL_VHOST: 0, QEMU: 1}


@pytest.mark.parametrize('event_idx', [0, EVENT_IDX])
def test_how_a_driver_says_whether_it_wants_interrupts(event_idx):
    ring = packed(features=VERSION_1 | event_idx)
    at = ring.avail
    assert event(ring, at) == (0, 0, 0)
    ring.driver.disable_cb()
    assert event(ring, at)[2] == 1
    ring.driver.add(out=[(0x1000, 8)])
    ring.device.use(ring.device.fetch())
    assert not ring.device.signal()
    assert not ring.driver.enable_cb(), 'it was used meanwhile'
    assert ring.driver.reap() == [0]
    ring.driver.enable_cb()
    assert event(ring, at) == ((1, 1, 2) if event_idx else (0, 0, 0))


def test_get_buf_asks_for_the_next_interrupt_while_callbacks_are_on():
    ring = packed(features=VERSION_1 | EVENT_IDX)
    ring.driver.disable_cb()
    ring.driver.enable_cb()
    for _ in range(2):
        ring.driver.add(out=[(0x1000, 8)])
        ring.device.use(ring.device.fetch())
    assert ring.driver.get_buf() == 0
    assert event(ring, ring.avail) == (1, 1, 2)
    ring.driver.disable_cb()
    assert ring.driver.get_buf() == 1
    assert event(ring, ring.avail) == (1, 1, 1)


def test_a_buffer_is_given_back_once():
    ring = packed()
    ring.driver.add(out=[(0x1000, 8)])
    chain = ring.device.fetch()
    assert ring.device.use(chain) == 1
    before = ring.mem.copy()
    assert ring.device.use(chain) == 0
    assert ring.device.verdict == 'NOT_IN_FLIGHT'
    assert (ring.mem == before).all()


def test_after_an_interrupt_by_index_disable_cb_writes_nothing():
    ring = packed(features=VERSION_1 | EVENT_IDX)
    ring.driver.disable_cb()
    ring.driver.enable_cb()
    ring.driver.add(out=[(0x1000, 8)])
    ring.device.use(ring.device.fetch())
    assert ring.driver.interrupt()
    before = ring.mem.copy()
    ring.driver.disable_cb()
    assert (ring.mem == before).all()
    ring.driver.reap()
    assert (ring.mem == before).all(), 'and get_buf does not ask again either'


def test_after_a_wrap_the_next_check_interrupts():
    ring = packed(2, features=VERSION_1 | EVENT_IDX)
    forced = []
    for _ in range(4):
        ring.driver.add(out=[(0x1000, 8)])
        ring.device.use(ring.device.fetch())
        forced.append(not ring.device.signalled_used_valid)
        ring.device.signal()
        ring.driver.reap()
    assert forced == [True, True, False, True], 'the first, and where used_idx came round'


def test_a_delayed_callback_comes_after_three_quarters():
    ring = packed(features=VERSION_1 | EVENT_IDX)
    for _ in range(8):
        ring.driver.add(out=[(0x1000, 8)])
    chains = [ring.device.fetch() for _ in range(8)]
    ring.device.signal()
    ring.driver.disable_cb()
    assert ring.driver.enable_cb_delayed()
    assert event(ring, ring.avail) == (6, 1, 2)
    signals = [ring.device.use(chain) and ring.device.signal() for chain in chains[:7]]
    assert signals == [False] * 6 + [True]


def test_a_polled_queue_asks_for_no_interrupts():
    ring = packed(features=VERSION_1 | EVENT_IDX)
    vring.init_without_callback(ring.mem, ring.driver.st, ring.driver.base)
    ring.driver.add(out=[(0x1000, 8)])
    ring.device.use(ring.device.fetch())
    assert not ring.device.signal()
    assert ring.driver.reap() == [0]


def test_a_reserved_event_flag_is_read_as_desc():
    ring = packed(features=VERSION_1 | EVENT_IDX)
    ring.device.signal()
    ring.driver.add(out=[(0x1000, 8)])
    ring.device.use(ring.device.fetch())
    ring.write(ring.avail, '00 80 03 00')
    assert ring.device.signal()


def test_every_access_of_a_descriptor_is_charged():
    """A round trip, access by access: loads and stores of each side in a ring of its own lines."""
    ring = testing.Ring(8, packed=True, features=VERSION_1, prices=(1, 1, 1, 1))

    def cost(side, action):
        action()
        return side.take_cycles()

    driver, device = ring.driver, ring.device
    add = cost(driver, lambda: driver.add(out=[(0x1000, 8)], in_=[(0x2000, 8)]))
    assert add == 4, 'two bodies, two flags'
    assert cost(driver, driver.kick) == 1, 'the event structure in one load'
    fetch = cost(device, device.fetch)
    assert fetch == 3, 'the flags, then two descriptors'
    assert cost(device, lambda: device.use(0)) == 2, 'id and len, then the flags'
    assert cost(device, device.signal) == 2, 'flags, then where'
    assert cost(driver, driver.get_buf) == 2, 'the flags, then id and len'


@pytest.mark.parametrize(
    ('off_wrap', 'used', 'wrap', 'before', 'wanted'),
    [
        (0x8000, 3, 1, 0, True),
        (0x8002, 3, 1, 0, True),
        (0x8003, 3, 1, 0, False),  # not reached
        (0x0002, 3, 0, 1, True),
        (0x8002, 3, 0, 1, False),  # asked for in the lap before, and passed there
        (0x0002, 3, 1, 1, False),  # asked for in the lap to come
    ],
)
def test_the_decision_to_interrupt_knows_its_lap(off_wrap, used, wrap, before, wanted):
    ring = packed(features=VERSION_1 | EVENT_IDX)
    device = ring.device
    device.last_used, device.used_wrap = used, wrap
    device.signalled_used, device.signalled_used_valid = before, 1
    ring.write(ring.avail, off_wrap.to_bytes(2, 'little') + bytes([2, 0]))
    assert device.signal() == wanted
