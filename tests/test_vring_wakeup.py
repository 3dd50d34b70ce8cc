"""Lost wake-ups: every interleaving of both sides, searched to the end.

Each side of a ring goes to sleep in two atomic steps: it asks to be told, then it looks once more
(barriers C and D of sim.vring). Here the search does what a machine does once in a billion times:
it lets the steps of one side fall between those of the other in every order there is. With the
second look nobody ever sleeps over work. Without it somebody does, so the search can fail.
"""

import pytest

from sim import testing, vring
from sim.testing import EVENT_IDX, KERNEL_VHOST, QEMU, VERSION_1
from tests.rings import start_at

BATCHES = ([1], [1, 1], [2], [1, 1, 1], [2, 1], [1, 2], [3])  # chains before each decision
STARTS = (0, 0xFFFE, 5)


class World:
    """A ring and the two programs that run on it. A step is one atomic action."""

    def __init__(self, ring, batches, busy, look_again):
        self.ring = ring
        self.script = [done for size in batches for done in ['work'] * size + ['decide']]
        self.look_again = look_again
        self.total = sum(batches)
        self.at = 0  # in the script of the side that works
        self.other = 'drain' if busy else 'asleep'
        self.told = False
        self.drained = 0

    def driver(self, operation, *arguments):
        side = self.ring.driver
        return operation(self.ring.mem, None, side.st, side.base, 0, *arguments)

    def device(self, operation, *arguments):
        side = self.ring.device
        return operation(self.ring.mem, None, side.st, side.base, 1, *arguments)

    def save(self):
        arrays = self.ring.mem, self.ring.driver.st, self.ring.device.st
        words = self.at, self.other, self.told, self.drained
        return tuple(array.tobytes() for array in arrays), words

    def load(self, saved):
        arrays = self.ring.mem, self.ring.driver.st, self.ring.device.st
        for array, raw in zip(arrays, saved[0], strict=True):
            array.data.cast('B')[:] = raw
        self.at, self.other, self.told, self.drained = saved[1]

    def choices(self):
        """Who can move now."""
        if self.at < len(self.script):
            yield self.work
        if self.other != 'asleep' or self.told:
            yield self.drain

    def work(self):
        action = self.script[self.at]
        self.at += 1
        if action == 'work':
            self.do_work()
        elif self.decide():
            self.told = True

    def drain(self):
        if self.other == 'asleep':
            self.told = False
            if self.wake_up():
                self.other = 'drain'
        elif self.other == 'drain':
            if self.take() == vring.EMPTY:
                self.other = 'ask'
            else:
                self.drained += 1
        elif self.other == 'ask':
            self.ask()
            self.other = 'look' if self.look_again else 'asleep'
        elif self.look():
            self.other = 'drain'
        else:
            self.other = 'asleep'

    def stranded(self):
        """Does any interleaving end with work left and everybody asleep?"""
        seen, todo = set(), [self.save()]
        while todo:
            here = todo.pop()
            if here in seen:
                continue
            seen.add(here)
            self.load(here)
            moves = list(self.choices())
            if not moves and self.drained < self.total:
                return True
            for move in moves:
                self.load(here)
                move()
                todo.append(self.save())
        return False


class Kicks(World):
    """The driver publishes and decides its kicks; the device drains and goes to sleep."""

    def __init__(self, ring, batches, busy, look_again):
        super().__init__(ring, batches, busy, look_again)
        ring.driver.st[int(ring.driver.buffers) :][:6] = [1, 0, 0, 0, 0x1000, 8]
        if busy:
            self.device(vring.disable_notify)

    def do_work(self):
        assert self.driver(vring.add, self.ring.driver.buffers, self.at, 0) >= 0

    def decide(self):
        return self.driver(vring.kick_prepare)

    def wake_up(self):
        self.device(vring.disable_notify)
        return True

    def take(self):
        return self.device(vring.fetch, self.ring.device.buffers)

    def ask(self):
        self.device(vring.enable_notify)

    def look(self):
        if not self.device(vring.more_avail):
            return False
        self.device(vring.disable_notify)
        return True


class Interrupts(World):
    """The device gives back and decides its interrupts; the driver reaps and goes to sleep."""

    def __init__(self, ring, batches, busy, look_again):
        super().__init__(ring, batches, busy, look_again)
        ring.driver.st[int(ring.driver.buffers) :][:6] = [1, 0, 0, 0, 0x1000, 8]
        for token in range(self.total):
            self.driver(vring.add, ring.driver.buffers, token, 0)
        self.heads = [self.device(vring.fetch, ring.device.buffers) for _ in range(self.total)]
        if busy:
            self.driver(vring.disable_cb)

    def do_work(self):
        used = sum(action == 'work' for action in self.script[: self.at])
        assert self.device(vring.add_used, self.heads[used - 1], 8) == 1

    def decide(self):
        return self.device(vring.signal_needed)

    def wake_up(self):
        if not self.driver(vring.vring_interrupt):
            return False
        self.driver(vring.disable_cb)
        return True

    def take(self):
        return self.driver(vring.get_buf)

    def ask(self):
        self.driver(vring.enable_cb_prepare)

    def look(self):
        if not self.driver(vring.more_used):
            return False
        self.driver(vring.disable_cb)
        return True


def searches(world, packed, event_idx, personality, look_again):
    """The outcomes of all searches at one kind of ring."""
    for start in STARTS:
        for busy in (False, True):
            for batches in BATCHES:
                ring = testing.Ring(
                    4,
                    packed=packed,
                    features=VERSION_1 | EVENT_IDX * event_idx,
                    personality=personality,
                    desc=0x100,
                    avail=0x200,
                    used=0x300,
                    memory=0x1100,
                )
                start_at(ring, start)
                yield world(ring, batches, busy, look_again).stranded()


@pytest.mark.parametrize('personality', [KERNEL_VHOST, QEMU], ids=['vhost', 'qemu'])
@pytest.mark.parametrize('event_idx', [False, True], ids=['flags', 'event_idx'])
@pytest.mark.parametrize('packed', [False, True], ids=['split', 'packed'])
@pytest.mark.parametrize('world', [Kicks, Interrupts])
class TestEveryInterleaving:
    def test_who_looks_again_never_sleeps_over_work(self, world, packed, event_idx, personality):
        assert not any(searches(world, packed, event_idx, personality, look_again=True))

    def test_who_does_not_look_again_does(self, world, packed, event_idx, personality):
        assert any(searches(world, packed, event_idx, personality, look_again=False))
