"""How many cache lines go from core to core per request, and why.

The ring names every access; the ownership table of sim.memory turns them into hits and transfers.
Nothing in the ring says that one layout is dearer than another: what comes out, comes from which
lines they touch. With both sides on one core there is nothing to transfer.
"""

import numpy as np
import pytest

from sim import vring
from sim.memory import C_HITS, C_TRANSFERS, CORE_WORDS, L_CORES, new_lines
from sim.testing import EVENT_IDX, IN_ORDER, INDIRECT_DESC, RING_PACKED, VERSION_1

u64 = np.uint64
NUM, LAPS = 128, 4
DRIVER, DEVICE, LIST, TAKEN = u64(10000), u64(20000), u64(0), u64(3000)
USUAL = VERSION_1 | INDIRECT_DESC | EVENT_IDX


class Traffic:
    """Requests of three buffers, `depth` at a time, driver and device taking turns."""

    def __init__(self, features, depth, device_core=1):
        self.mem = np.zeros(0x100000, dtype=np.uint8)
        self.lines = new_lines(self.mem.size, 2, (0, 0, 1, 0))
        self.st = np.zeros(24000, dtype=np.int64)
        self.core = device_core
        self.depth = depth
        areas = 0x1000, 0x2000, 0x3000
        vring.driver_init(self.st, DRIVER, NUM, *areas, features)
        base, who = vring.fresh_base(features), vring.KERNEL_VHOST
        vring.device_init(self.mem, self.st, DEVICE, NUM, *areas, features, base, who)
        self.st[int(DEVICE + vring.V_BATCHED)] = bool(features & IN_ORDER)
        self.count = 0

    def driver(self, operation, *arguments):
        return operation(self.mem, self.lines, self.st, DRIVER, 0, *arguments)

    def device(self, operation, *arguments):
        return operation(self.mem, self.lines, self.st, DEVICE, self.core, *arguments)

    def counter(self, name):
        return sum(int(self.lines[int(L_CORES + u64(c) * CORE_WORDS + name)]) for c in (0, 1))

    def turn(self):
        for _ in range(self.depth):
            self.st[:10] = [1, 2, 0, 0, 0x10000, 51, 0x20000, 108, 0x30000, 4096]
            table = 0x40000 + 64 * (self.count % NUM)
            assert self.driver(vring.add, LIST, self.count, table) >= 0
            self.count += 1
        self.driver(vring.kick_prepare)
        self.device(vring.disable_notify)
        heads = [self.device(vring.fetch, TAKEN) for _ in range(self.depth)]
        self.device(vring.fetch, TAKEN)
        self.device(vring.enable_notify)
        self.device(vring.more_avail)
        for head in heads[1:] + heads[:1]:  # the oldest comes last: one batch, if in order
            self.device(vring.add_used, head, 0)
        self.device(vring.signal_needed)
        self.driver(vring.vring_interrupt)
        self.driver(vring.disable_cb)
        while self.driver(vring.get_buf) != vring.EMPTY:
            pass
        self.driver(vring.enable_cb_prepare)
        self.driver(vring.more_used)

    def per_request(self, name=C_TRANSFERS):
        """Over the last laps of the ring; the first ones warm up."""
        for turn in range(LAPS * NUM // self.depth):
            if turn == LAPS // 2 * NUM // self.depth:
                before = self.counter(name)
            self.turn()
        return (self.counter(name) - before) / (LAPS // 2 * NUM)


@pytest.mark.parametrize('depth', [1, 4])
def test_a_packed_ring_moves_fewer_lines_where_batches_are_small(depth):
    split = Traffic(USUAL, depth).per_request()
    packed = Traffic(USUAL | RING_PACKED, depth).per_request()
    assert 0 < packed < 0.8 * split


def test_in_big_batches_the_split_ring_has_caught_up():
    """32 at a time, the split ring's three areas share their lines among many requests as well."""
    split = Traffic(USUAL, 32).per_request()
    packed = Traffic(USUAL | RING_PACKED, 32).per_request()
    assert packed == pytest.approx(split, rel=0.1)


@pytest.mark.parametrize('layout', [0, RING_PACKED], ids=['split', 'packed'])
def test_batches_share_lines(layout):
    costs = [Traffic(USUAL | layout, depth).per_request() for depth in (1, 4, 32)]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < 0.4 * costs[0]


@pytest.mark.parametrize('layout', [0, RING_PACKED], ids=['split', 'packed'])
def test_a_batch_that_is_used_in_order_writes_one_element(layout):
    any_order = Traffic(USUAL | layout, 32)
    in_order = Traffic(USUAL | layout | IN_ORDER, 32)
    assert in_order.per_request() < any_order.per_request()
    assert in_order.counter(C_HITS) < any_order.counter(C_HITS)


@pytest.mark.parametrize('layout', [0, RING_PACKED], ids=['split', 'packed'])
def test_on_one_core_nothing_is_transferred(layout):
    """The mechanism switched off: without a second core the differences are gone."""
    together = Traffic(USUAL | layout, 1, device_core=0)
    assert together.per_request() == 0
    assert together.counter(C_HITS) > 0
