"""The split ring, story by story: what the vectors leave out.

The two personalities of the device where they differ, notification on empty, polled queues, delayed
callbacks, reset of one queue, and that a request may be cut anywhere.
"""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as some

from sim import layout, testing, vring
from sim.testing import (
    EVENT_IDX,
    INDIRECT_DESC,
    KERNEL_VHOST,
    NOTIFY_ON_EMPTY,
    QEMU,
    VERSION_1,
    RingError,
)
from tests.rings import start_at

WHO = pytest.mark.parametrize('personality', [KERNEL_VHOST, QEMU], ids=['vhost', 'qemu'])


def word(ring, address):
    return int.from_bytes(ring.read(address, 2), 'little')


def avail_event(ring):
    return word(ring, ring.used + 4 + 8 * ring.num)


def used_event(ring):
    return word(ring, ring.avail + 4 + 2 * ring.num)


def publish(ring, count):
    for _ in range(count):
        ring.driver.add(out=[(0x1000, 51)])


# ---------------------------------------------------------------------------------- personalities


def test_qemu_moves_avail_event_with_every_pop_while_notifications_are_on():
    ring = testing.Ring(personality=QEMU)
    publish(ring, 3)
    for expected in (1, 2):
        ring.device.fetch()
        assert avail_event(ring) == expected
    ring.device.disable_notify()
    ring.device.fetch()
    assert avail_event(ring) == 2


def test_vhost_moves_avail_event_only_when_it_turns_notifications_on():
    ring = testing.Ring(personality=KERNEL_VHOST)
    publish(ring, 3)
    ring.device.disable_notify()
    while ring.device.fetch():
        assert avail_event(ring) == 0
    assert not ring.device.enable_notify()
    assert avail_event(ring) == 3


def test_vhost_asks_from_its_cached_index_and_qemu_from_the_one_in_memory():
    event = {}
    for personality in (KERNEL_VHOST, QEMU):
        ring = testing.Ring(personality=personality)
        publish(ring, 1)
        ring.device.disable_notify()
        while ring.device.fetch():
            pass
        publish(ring, 2)  # between the last fetch and the request to be told
        ring.device.enable_notify_prepare()
        event[personality] = avail_event(ring)
        assert ring.device.more_avail(), 'either way the second look finds them'
    assert event == {KERNEL_VHOST: 1, QEMU: 3}


def test_vhost_does_not_turn_off_twice_nor_on_twice():
    ring = testing.Ring(features=VERSION_1, personality=KERNEL_VHOST)
    device = ring.device
    device.disable_notify()
    ring.write(ring.used, '00 00')
    device.disable_notify()
    assert word(ring, ring.used) == 0, 'it believes that notifications are off'
    assert vring.enable_notify(ring.mem, None, device.st, device.base, 1)
    ring.write(ring.used, '01 00')
    assert not vring.enable_notify(ring.mem, None, device.st, device.base, 1)
    assert word(ring, ring.used) == 1, 'and that they are on'


def test_qemu_changes_one_bit_of_used_flags_and_vhost_writes_the_field():
    flags = {}
    for personality in (KERNEL_VHOST, QEMU):
        ring = testing.Ring(features=VERSION_1, personality=personality)
        ring.write(ring.used, 'f0 00')
        ring.device.disable_notify()
        flags[personality] = word(ring, ring.used)
        assert not ring.driver.kick()
        ring.device.enable_notify()
        assert ring.driver.kick()
    assert flags == {KERNEL_VHOST: 1, QEMU: 0xF1}


@WHO
def test_with_event_idx_nothing_is_written_to_turn_kicks_off(personality):
    ring = testing.Ring(personality=personality)
    before = ring.mem.copy()
    ring.device.disable_notify()
    assert (ring.mem == before).all()


@pytest.mark.parametrize(('personality', 'forced'), [(KERNEL_VHOST, False), (QEMU, True)])
def test_the_wrap_guard_of_qemu_is_signed(personality, forced):
    """A check that lags by half the index range: vhost still trusts it, QEMU does not."""
    ring = testing.Ring(personality=personality)
    publish(ring, 1)
    chain = ring.device.fetch()
    ring.device.signal()
    ring.device.st[int(vring.V_SIGNALLED_USED)] = 1 + 0x7FFF  # 0x8001 behind
    ring.device.use(chain)
    assert bool(ring.device.signalled_used_valid) != forced


def test_qemu_refuses_to_hold_more_than_the_ring_and_vhost_does_not_count():
    """The guest publishes heads that are still out, and never more than the ring at a time."""
    held = {}
    for personality in (KERNEL_VHOST, QEMU):
        ring = testing.Ring(num=4, personality=personality, features=VERSION_1)
        publish(ring, 4)
        for _ in range(4):
            ring.device.fetch()
        ring.write(ring.avail + 2, '06 00')
        try:
            held[personality] = [ring.device.fetch().head for _ in range(2)]
        except RingError as error:
            held[personality] = error.verdict
    assert held == {KERNEL_VHOST: [0, 1], QEMU: 'TOO_MANY_IN_FLIGHT'}


@WHO
def test_a_restarted_vhost_keeps_its_private_flags_and_qemu_begins_with_kicks_on(personality):
    """A queue stopped while notifications were off comes back with NO_NOTIFY (vhost only)."""
    ring = testing.Ring(features=VERSION_1, personality=personality)
    ring.device.disable_notify()
    ring.write(ring.used, '00 00')
    ring.device.attach(0)
    publish(ring, 1)
    assert ring.driver.kick() == (personality == QEMU)


# ------------------------------------------------------------------------------- notify on empty


@WHO
@pytest.mark.parametrize('feature', [0, NOTIFY_ON_EMPTY])
def test_notify_on_empty_interrupts_although_nobody_asked(personality, feature):
    ring = testing.Ring(features=feature, personality=personality)
    publish(ring, 2)
    ring.driver.disable_cb()
    ring.device.use(ring.device.fetch())
    assert not ring.device.signal(), 'one is left'
    ring.device.use(ring.device.fetch())
    assert ring.device.signal() == bool(feature)


def test_vhost_has_run_out_when_all_is_fetched_and_qemu_when_all_is_used():
    answers = {}
    for personality in (KERNEL_VHOST, QEMU):
        ring = testing.Ring(features=NOTIFY_ON_EMPTY, personality=personality)
        publish(ring, 2)
        ring.driver.disable_cb()
        first, _ = ring.device.fetch(), ring.device.fetch()
        ring.device.use(first)
        answers[personality] = ring.device.signal()
    assert answers == {KERNEL_VHOST: True, QEMU: False}


# ------------------------------------------------------------------------------------- callbacks


def test_a_polled_queue_asks_for_no_interrupts():
    ring = testing.Ring(features=VERSION_1)
    vring.init_without_callback(ring.mem, ring.driver.st, ring.driver.base)
    publish(ring, 1)
    ring.device.use(ring.device.fetch())
    assert not ring.device.signal()
    assert ring.driver.reap() == [0], 'it is found by looking'
    assert used_event(ring) == 0, 'reaping asks for nothing either'


def test_a_delayed_callback_comes_after_three_quarters():
    ring = testing.Ring(features=VERSION_1 | EVENT_IDX)
    ring.device.signal()  # the forced one
    publish(ring, 8)
    chains = [ring.device.fetch() for _ in range(8)]
    ring.driver.disable_cb()
    assert ring.driver.enable_cb_delayed()
    assert used_event(ring) == 6
    signals = [ring.device.use(chain) and ring.device.signal() for chain in chains]
    assert signals == [False] * 6 + [True, False]


def test_a_delayed_callback_is_refused_when_it_is_too_late():
    ring = testing.Ring(features=VERSION_1 | EVENT_IDX)
    publish(ring, 4)
    for _ in range(4):
        ring.device.use(ring.device.fetch())
    ring.driver.disable_cb()
    assert not ring.driver.enable_cb_delayed(), '4 used, it would have waited for 3'


def test_after_an_interrupt_by_index_disable_cb_writes_nothing():
    ring = testing.Ring()
    publish(ring, 2)
    for chain in [ring.device.fetch(), ring.device.fetch()]:
        ring.device.use(chain)
    ring.driver.get_buf()
    assert ring.driver.interrupt()
    assert used_event(ring) == 1
    ring.driver.disable_cb()
    assert used_event(ring) == 1, 'the device will not interrupt again for it anyway'


def test_get_buf_asks_for_the_next_interrupt_while_callbacks_are_on():
    ring = testing.Ring()
    publish(ring, 2)
    for _ in range(2):
        ring.device.use(ring.device.fetch())
    assert ring.driver.get_buf() == 0
    assert used_event(ring) == 1
    ring.driver.disable_cb()
    ring.driver.get_buf()
    assert used_event(ring) == 0, 'disable_cb wrote 0, and nothing after it'


# ----------------------------------------------------------------------------------------- reset


@pytest.mark.parametrize('packed', [False, True])
@pytest.mark.parametrize('features', [VERSION_1, testing.FEATURES, VERSION_1 | testing.IN_ORDER])
def test_one_queue_is_reset_and_begins_again(packed, features):
    ring = testing.Ring(packed=packed, features=features)
    for lap in range(2):
        assert ring.driver.add(out=[(0x1000, 51)], in_=[(0x2000, 8)], token=lap) == 0
        ring.device.use(ring.device.fetch())
        assert ring.driver.reap() == [lap]
        for token in 'abc':
            ring.driver.add(out=[(0x1000, 51)], token=token)
        ring.device.fetch()  # one of them is in the device's hands when the queue stops
        taken_back = [ring.driver.detach_unused_buf() for _ in range(4)]
        assert sorted(taken_back[:3]) == ['a', 'b', 'c']
        assert taken_back[3] is None
        assert ring.driver.num_free == 8
        vring.driver_reset(ring.mem, ring.driver.st, ring.driver.base)
        ring.device.attach()
        assert not ring.device.more_avail()
        assert not ring.driver.more_used()
        if not packed:
            assert used_event(ring) == avail_event(ring) == 0


def test_detached_chains_are_unpublished():
    ring = testing.Ring(features=VERSION_1)
    publish(ring, 3)
    assert ring.driver.detach_unused_buf() == 0
    assert word(ring, ring.avail + 2) == 2


# ---------------------------------------------------------------------------------------- layout


@given(
    cuts=some.sets(some.integers(1, 4146), max_size=8),
    in_cuts=some.sets(some.integers(1, 107), max_size=4),
    indirect=some.booleans(),
    packed=some.booleans(),
)
def test_a_request_may_be_cut_anywhere(cuts, in_cuts, indirect, packed):
    """ANY_LAYOUT: the ring counts bytes, and knows no header and no response."""

    def cut(base, size, places):
        edges = [0, *sorted(places), size]
        return [(base + a, b - a) for a, b in itertools.pairwise(edges)]

    ring = testing.Ring(
        16, packed=packed, features=VERSION_1 | INDIRECT_DESC * indirect, memory=0x410000
    )
    out, in_ = cut(0x100000, 4147, cuts), cut(0x200000, 108, in_cuts)
    ring.driver.add(out=out, in_=in_)
    chain = ring.device.fetch()
    assert (chain.out, chain.in_) == (tuple(out), tuple(in_))
    assert (chain.out_bytes, chain.in_bytes) == (4147, 108)


@pytest.mark.parametrize('align', [4096, 64], ids=['legacy', 'modern'])
def test_the_ring_does_not_care_where_its_parts_lie(align):
    avail, used, _ = layout.vring_offsets(8, align=align)
    ring = testing.Ring(desc=0x10000, avail=0x10000 + avail, used=0x10000 + used)
    publish(ring, 8)
    while chain := ring.device.fetch():
        ring.device.use(chain)
    assert ring.driver.reap() == list(range(8))


@pytest.mark.parametrize('packed', [False, True])
def test_what_a_kick_carries_stays_32_bits_where_the_index_wraps(packed):
    ring = testing.Ring(packed=packed, features=VERSION_1)
    start_at(ring, 7 if packed else 0xFFFF)
    carried = []
    for _ in range(2):
        publish(ring, 1)
        carried.append(ring.driver.notification_data(vq=2))
    assert carried == [0x00000002, 0x00010002]
