"""Driver against device in any interleaving, held to what a queue is.

A hypothesis state machine does one atomic action at a time: publish, decide the kick, fetch, give
back, decide the interrupt, reap, and both halves of "tell me again". It holds the ring to a plain
queue: chains are fetched in the order of publishing, with the same buffers; they come back in the
order of use, or in the order of publishing when IN_ORDER was agreed; nothing is lost or doubled.
And nobody sleeps over work: a side that asked to be told, looked again and went to sleep is told.

Rings are small and begin close to where their indices wrap; at any point the device may be stopped
and go on in a new place from its saved state.
"""

import itertools
from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sim import testing, vring
from sim.ring import state as vring_state
from sim.testing import EVENT_IDX, IN_ORDER, INDIRECT_DESC, QEMU, VERSION_1, RingError
from tests.rings import start_at

PIECES = 0x100000  # buffers of chain n begin here + 0x1000 n


class RingMachine(RuleBasedStateMachine):
    packed = event_idx = indirect = in_order = False

    @initialize(
        num=some.integers(2, 8),
        start=some.sampled_from([0, 1, 0xFFFD, 0xFFFE, 0xFFFF, 7, 13]),
        personality=some.sampled_from([testing.KERNEL_VHOST, QEMU]),
        batched=some.booleans(),
    )
    def build(self, num, start, personality, batched):
        if not self.packed:
            num = 1 << (num.bit_length() - 1)
        features = VERSION_1
        features |= EVENT_IDX * self.event_idx | INDIRECT_DESC * self.indirect
        features |= IN_ORDER * self.in_order
        self.ring = testing.Ring(
            num,
            packed=self.packed,
            features=features,
            personality=personality,
            batched=batched and self.in_order,
        )
        start_at(self.ring, start)
        self.driver, self.device = self.ring.driver, self.ring.device
        self.chains = {}  # number -> (out, in, descriptors)
        self.count = 0
        self.published = deque()
        self.taken = {}  # number -> chain, in the order of fetching
        self.finished = {}  # those of them given back and not visible: number -> length
        self.visible = deque()  # (number, length)
        self.unkicked = self.unsignalled = 0
        self.device_is, self.driver_is = 'asleep', 'asleep'
        self.irq_pending = False

    # ---- the driver

    @rule(out=some.integers(0, 3), in_=some.integers(0, 3), memory=some.booleans())
    def publish(self, out, in_, memory):
        if out + in_ == 0:
            return
        number, base = self.count, PIECES + 0x1000 * self.count
        lengths = [1 + (number + i) % 5 for i in range(out + in_)]
        pieces = [(base + 16 * i, length) for i, length in enumerate(lengths)]
        table = self.indirect and memory and out + in_ > 1 and self.driver.num_free > 0
        needed = 1 if table else out + in_
        request = {'out': pieces[:out], 'in_': pieces[out:], 'table': None if memory else 0}
        if needed > self.num_free:
            with pytest.raises(RingError, match='ENOSPC'):
                self.driver.add(**request)
            return
        self.driver.add(**request, token=number)
        self.chains[number] = (tuple(pieces[:out]), tuple(pieces[out:]), needed)
        self.count += 1
        self.published.append(number)
        self.unkicked += 1

    @property
    def num_free(self):
        held = itertools.chain(self.published, self.taken, (n for n, _ in self.visible))
        return self.ring.num - sum(self.chains[number][2] for number in held)

    @rule()
    def decide_the_kick(self):
        wanted = self.driver.kick()
        if self.device_is == 'asleep':
            assert wanted or not self.published, 'the device sleeps and is not told'
            if wanted:
                self.device.disable_notify()
                self.device_is = 'awake'
        self.unkicked = 0

    @rule()
    def reap(self):
        number = self.driver.get_buf()
        if not self.visible:
            assert number is None
            return
        expected, length = self.visible.popleft()
        assert number == expected
        assert int(self.driver.st[int(vring.D_USED_LENGTH)]) == length
        del self.chains[number]

    @precondition(lambda self: self.driver_is == 'awake')
    @rule()
    def ask_for_interrupts(self):
        self.driver.enable_cb_prepare()
        self.driver_is = 'looking'

    @precondition(lambda self: self.driver_is == 'looking')
    @rule()
    def look_for_used(self):
        assert self.driver.more_used() == bool(self.visible)
        if self.visible:
            self.driver.disable_cb()
            self.driver_is = 'awake'
        else:
            self.driver_is = 'asleep'
            if self.irq_pending:
                self.interrupt()

    def interrupt(self):
        self.irq_pending = False
        if self.driver.interrupt():
            self.driver.disable_cb()
            self.driver_is = 'awake'

    # ---- the device

    @precondition(lambda self: self.device_is == 'awake')
    @rule()
    def fetch(self):
        chain = self.device.fetch()
        if not self.published:
            assert chain is None
            return
        number = self.published.popleft()
        assert chain is not None
        assert (chain.out, chain.in_) == self.chains[number][:2]
        assert 0 <= chain.head < self.ring.num
        self.taken[number] = chain

    @precondition(lambda self: len(self.taken) > len(self.finished))
    @rule(which=some.integers(0, 7), length=some.integers(0, 1 << 20))
    def give_back(self, which, length):
        working = [number for number in self.taken if number not in self.finished]
        self.finish(working[which % len(working)], length)

    def finish(self, number, length):
        self.finished[number] = length
        chain = self.taken[number]
        appear = [number]
        if self.in_order:
            appear = list(itertools.takewhile(self.finished.__contains__, self.taken))
        assert self.device.use(chain, length) == len(appear)
        for done in appear:
            del self.taken[done]
            length = self.finished.pop(done)
            if self.ring.batched and done != appear[-1]:
                length = sum(size for _, size in self.chains[done][1])
            self.visible.append((done, length))
        self.unsignalled += len(appear)

    @rule()
    def decide_the_interrupt(self):
        wanted = self.device.signal()
        if self.driver_is == 'asleep':
            assert wanted or not self.visible, 'the driver sleeps and is not told'
            if wanted:
                self.interrupt()
        elif wanted:
            self.irq_pending = True
        self.unsignalled = 0

    @precondition(lambda self: self.device_is == 'awake')
    @rule()
    def ask_for_kicks(self):
        self.device.enable_notify_prepare()
        self.device_is = 'looking'

    @precondition(lambda self: self.device_is == 'looking')
    @rule()
    def look_for_available(self):
        assert self.device.more_avail() == bool(self.published)
        if self.published:
            self.device.disable_notify()
            self.device_is = 'awake'
        else:
            self.device_is = 'asleep'

    # ---- stop here, go on there

    @rule()
    def stop_and_go_on(self):
        if self.in_order or self.packed:  # the stop drains what is in flight
            for number in [n for n in self.taken if n not in self.finished]:
                self.finish(number, 0)
        device = self.device
        state = vring_state.save(device.st, 0)
        again = type(state).from_vmstate(state.vmstate(), state.features)
        assert again == state
        device.st[:] = -1  # another host
        again.to_ring(self.ring.mem, device.st, 0, self.ring.personality)
        device.st[int(vring.V_BATCHED)] = self.ring.batched
        device.disable_notify()
        self.device_is = 'awake'  # it looks by itself: nobody else knows of stranded kicks

    @invariant()
    def books_balance(self):
        if not hasattr(self, 'ring'):
            return
        assert self.driver.num_free == self.num_free
        assert not self.driver.broken
        assert self.device.verdict == 'SOUND'
        if self.device_is == 'asleep' and not self.unkicked:
            assert not self.published
        if self.driver_is == 'asleep' and not self.unsignalled:
            assert not self.visible


@pytest.mark.parametrize('in_order', [False, True], ids=['any order', 'in order'])
@pytest.mark.parametrize('indirect', [False, True], ids=['direct', 'indirect'])
@pytest.mark.parametrize('event_idx', [False, True], ids=['flags', 'event_idx'])
@pytest.mark.parametrize('packed', [False, True], ids=['split', 'packed'])
def test_a_ring_is_a_queue_and_nobody_sleeps_over_work(packed, event_idx, indirect, in_order):
    machine = type(
        'Machine',
        (RingMachine,),
        {'packed': packed, 'event_idx': event_idx, 'indirect': indirect, 'in_order': in_order},
    ).TestCase
    profile = settings()
    machine.settings = settings(
        profile, max_examples=max(6, profile.max_examples // 2), stateful_step_count=60
    )
    machine().runTest()
