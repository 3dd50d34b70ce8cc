"""IN_ORDER: what finishes early waits for what is slow, and a batch may be one element."""

import numpy as np
import pytest

from sim import testing, vring
from sim.ring import verdicts as vring_verdicts
from sim.testing import IN_ORDER, VERSION_1

KINDS = pytest.mark.parametrize('packed', [False, True], ids=['split', 'packed'])


def ring_with(count, *, packed, features=VERSION_1 | IN_ORDER, batched=False, pieces=1):
    """A ring with `count` chains in the device's hands."""
    ring = testing.Ring(8, packed=packed, features=features, batched=batched)
    for token in range(count):
        out = [(0x1000 + 0x100 * token + 16 * i, 8) for i in range(pieces)]
        ring.driver.add(out=out, in_=[(0x9000, 100 + token)], token=token)
    return ring, [ring.device.fetch() for _ in range(count)]


@KINDS
def test_a_slow_head_delays_all_behind_it(packed):
    ring, (slow, *others) = ring_with(4, packed=packed)
    for chain in reversed(others):
        assert ring.device.use(chain) == 0
        assert not ring.driver.more_used()
    assert ring.device.st[int(vring.V_HELD)] == 3
    assert ring.device.use(slow) == 4
    assert ring.device.st[int(vring.V_HELD)] == 0
    assert ring.driver.reap() == [0, 1, 2, 3]


@KINDS
def test_without_in_order_nobody_waits(packed):
    """The mechanism taken away: the same completions are there at once, in their own order."""
    ring, (slow, *others) = ring_with(4, packed=packed, features=VERSION_1)
    for chain in reversed(others):
        assert ring.device.use(chain) == 1
    assert ring.driver.reap() == [3, 2, 1]
    assert ring.device.use(slow) == 1
    assert ring.driver.reap() == [0]


@KINDS
def test_what_is_behind_the_next_slow_one_goes_on_waiting(packed):
    ring, chains = ring_with(4, packed=packed)
    published = [ring.device.use(chains[i]) for i in (1, 3, 0, 2)]
    assert published == [0, 0, 2, 2]
    assert ring.driver.reap() == [0, 1, 2, 3]


@KINDS
def test_a_batch_is_one_element_and_the_driver_fills_in_the_rest(packed):
    """A skipped buffer counts as wholly written; the last one has the length that was written."""
    ring, chains = ring_with(3, packed=packed, batched=True)
    before = ring.mem.copy()
    for chain in reversed(chains):
        ring.device.use(chain, 5)
    changed = np.flatnonzero(ring.mem != before)
    first_element = range(ring.desc, ring.desc + 16) if packed else range(ring.used, ring.used + 12)
    assert set(changed.tolist()) <= set(first_element)
    lengths = []
    while ring.driver.get_buf() is not None:
        lengths.append(int(ring.driver.st[int(vring.D_USED_LENGTH)]))
    assert lengths == [100, 101, 5]


@KINDS
def test_heads_run_round_the_table(packed):
    """Chains of three descriptors in a ring of eight: the third begins at 6 and ends at 0."""
    ring, chains = ring_with(2, packed=packed, pieces=2)
    assert [chain.head for chain in chains] == [0, 3]
    for chain in chains:
        ring.device.use(chain)
    assert ring.driver.reap() == [0, 1]
    assert ring.driver.add(out=[(0x1000, 8), (0x1100, 8)], in_=[(0x9000, 8)], token=2) == 6
    assert ring.driver.add(out=[(0x1000, 8), (0x1100, 8)], in_=[(0x9000, 8)], token=3) == 1
    third, fourth = ring.device.fetch(), ring.device.fetch()
    assert ring.device.use(fourth) == 0
    assert ring.device.use(third) == 2
    assert ring.driver.reap() == [2, 3]


@KINDS
def test_to_give_back_what_is_not_there_is_counted_and_writes_nothing(packed):
    ring, chains = ring_with(2, packed=packed)
    before = ring.mem.copy()
    assert ring.device.use(5) == 0
    assert ring.device.use(chains[1]) == 0
    assert ring.device.use(chains[1]) == 0
    assert (ring.mem == before).all()
    assert vring_verdicts.device_counts(ring.device.st, 0) == {'NOT_IN_FLIGHT': 2}
    assert ring.device.use(chains[0]) == 2
    assert ring.device.st[int(vring.V_HELD)] == 0
