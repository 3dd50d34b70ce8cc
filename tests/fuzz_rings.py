"""Mutated rings: whatever bytes the other side leaves, nobody crashes, loops or writes elsewhere.

    python -m tests.fuzz_rings COUNT [--seed N] [--lies]

Each ring is driven a little by sound code on both sides; then its memory is mutated and one side
goes on against it. `--lies` makes loads answer at random, as if memory changed between any two
reads; it needs NUMBA_DISABLE_JIT=1. Run it with NUMBA_BOUNDSCHECK=1 to have every access checked.
Prints one JSON object: rings, and how often each verdict was found.
"""

import argparse
import json
import random
from collections import Counter

import numpy as np

from sim import layout, vring
from sim.jit import JIT
from sim.memory import new_lines
from sim.ring import packed_device as vring_packed_device
from sim.ring import packed_driver as vring_packed_driver
from sim.ring import split_device as vring_split_device
from sim.ring import split_driver as vring_split_driver

u64 = np.uint64
SIZE = 0x1000
DESC, AVAIL, USED, TABLES = 0x100, 0x200, 0x300, 0x400
EDGES = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF)
ERRNOS = {layout.EINVAL, layout.EFAULT, layout.E2BIG, layout.ENOBUFS}
ADD_ERRNOS = {layout.ENOSPC, layout.EIO}
SPARE = 4 + 2 * layout.IOV_MAX


class Fuzzed:
    """One small ring and both of its sides, in arrays that are used again and again."""

    def __init__(self, with_lines, lies=False):
        self.lies = lies
        self.mem = np.zeros(SIZE, dtype=np.uint8)
        self.lines = new_lines(SIZE, 2, (4, 40, 120, 200)) if with_lines else None
        self.d, self.v = u64(0), u64(vring.driver_words(8))
        self.shape = int(self.v) + vring.device_words(8)
        self.buffers = u64(self.shape)
        self.st = np.zeros(self.shape + SPARE, dtype=np.int64)
        self.found = Counter()

    def driver(self, operation, *arguments):
        return operation(self.mem, self.lines, self.st, self.d, 0, *arguments)

    def device(self, operation, *arguments):
        return operation(self.mem, self.lines, self.st, self.v, 1, *arguments)

    def word(self, index):
        return int(self.st[int(index)])

    def build(self, choose):
        """A ring of random kind, driven a little by sound code."""
        self.mem[:] = 0
        self.st[: self.shape] = 0
        features = 1 << layout.F_VERSION_1
        for bit in (
            layout.F_RING_PACKED,
            layout.F_EVENT_IDX,
            layout.F_INDIRECT_DESC,
            layout.F_IN_ORDER,
            layout.F_NOTIFY_ON_EMPTY,
        ):
            features |= choose.getrandbits(1) << bit
        self.packed = features >> layout.F_RING_PACKED & 1
        self.num = choose.randint(1, 8) if self.packed else choose.choice((1, 2, 4, 8))
        personality = choose.choice((vring.KERNEL_VHOST, vring.QEMU))
        vring.driver_init(self.st, self.d, self.num, DESC, AVAIL, USED, features)
        code = vring.device_init(
            self.mem, self.st, self.v, self.num, DESC, AVAIL, USED, features,
            vring.fresh_base(features), personality,
        )  # fmt: skip
        assert code == 0 or self.lies
        self.st[int(self.v + vring.V_BATCHED)] = choose.getrandbits(1)
        self.tokens = set()
        self.heads = []
        self.token = 0
        for _ in range(choose.randint(0, 3 * self.num)):
            action = choose.random()
            if action < 0.5:
                self.add(choose)
            elif action < 0.7:
                self.fetch()
            elif action < 0.9 and self.heads:
                self.use(choose)
            else:
                self.reap()

    def add(self, choose):
        pieces = choose.randint(1, 3)
        out = choose.randint(0, pieces)
        at = self.shape
        self.st[at : at + 4] = [out, pieces - out, 0, 0]
        for i in range(pieces):
            self.st[at + 4 + 2 * i] = choose.randrange(SIZE - 64)
            self.st[at + 5 + 2 * i] = choose.randint(1, 64)
        table = choose.choice((0, TABLES + 64 * (self.token % 16)))
        head = int(self.driver(vring.add, self.buffers, self.token, table))
        if head < 0:
            assert head in ADD_ERRNOS
            return
        assert head < self.num
        self.tokens.add(self.token)
        self.token += 1

    def fetch(self):
        last = self.word(self.v + vring.V_LAST_AVAIL)
        head = int(self.device(vring.fetch, self.buffers))
        if head == vring.EMPTY:
            return False
        if head < 0:
            assert head in ERRNOS
            name = vring.VERDICTS[self.word(self.v + vring.V_VERDICT)]
            self.found[name] += 1
            assert name != 'SOUND'
            assert last == self.word(self.v + vring.V_LAST_AVAIL)
            if self.word(self.v + vring.V_BROKEN):
                assert int(self.device(vring.fetch, self.buffers)) == vring.EMPTY
                assert not self.device(vring.more_avail)
            return False
        assert head < self.num
        self.heads.append(head)
        at = self.shape
        out, in_, out_bytes, in_bytes = (int(word) for word in self.st[at : at + 4])
        assert out >= 0
        assert in_ >= 0
        assert out + in_ <= layout.IOV_MAX
        pairs = self.st[at + 4 : at + 4 + 2 * (out + in_)].reshape(-1, 2)
        address, length = pairs[:, 0], pairs[:, 1]
        assert (address >= 0).all()
        assert (length > 0).all()
        assert (address + length <= SIZE).all()
        assert (int(length[:out].sum()), int(length[out:].sum())) == (out_bytes, in_bytes)
        return True

    def use(self, choose):
        head = self.heads.pop(choose.randrange(len(self.heads)))
        visible = int(self.device(vring.add_used, head, choose.randint(0, 9999)))
        assert 0 <= visible <= 2 * self.num

    def reap(self):
        token = int(self.driver(vring.get_buf))
        if token == vring.EMPTY:
            return False
        self.tokens.remove(token)  # one that is out, and only once
        return True

    def mutate(self, choose, areas):
        """Spoil these stretches of memory."""
        for _ in range(choose.randint(1, 6)):
            begin, size = choose.choice(areas)
            at = begin + choose.randrange(size)
            kind = choose.random()
            if kind < 0.4:
                self.mem[at] = choose.choice(EDGES)
            elif kind < 0.7:
                self.mem[at] ^= 1 << choose.randrange(8)
            elif kind < 0.95:
                self.mem[at] = choose.randrange(256)
            else:
                raw = np.frombuffer(choose.randbytes(size), dtype=np.uint8)
                self.mem[begin : begin + size] = raw

    def ring_areas(self):
        if self.packed:
            return [(DESC, 16 * self.num), (AVAIL, 4), (USED, 4)]
        return [(DESC, 16 * self.num), (AVAIL, 6 + 2 * self.num), (USED, 6 + 8 * self.num)]

    def attack_the_device(self, choose):
        """The driver's memory is arbitrary; the device goes on, and writes only where it may."""
        self.mutate(choose, [*self.ring_areas(), (TABLES, 64), (TABLES, 1024)])
        before = self.mem.copy()
        for _ in range(2 * self.num + 2):
            action = choose.random()
            if action < 0.6:
                self.fetch()
            elif action < 0.8 and self.heads:
                self.use(choose)
            elif action < 0.85:
                self.device(vring.signal_needed)
            elif action < 0.9:
                self.device(vring.disable_notify)
            elif action < 0.95:
                self.device(vring.enable_notify)
            else:
                self.device(vring.more_avail)
        for begin, size in self.ring_areas() if self.packed else self.ring_areas()[2:]:
            before[begin : begin + size] = self.mem[begin : begin + size]
        assert (before == self.mem).all(), 'the device wrote where it must not'

    def attack_the_driver(self, choose):
        """The device's answers are arbitrary; the driver goes on."""
        areas = self.ring_areas()
        self.mutate(choose, areas if self.packed else areas[2:])
        for _ in range(2 * self.num + 2):
            action = choose.random()
            if action < 0.6:
                self.reap()
            elif action < 0.7:
                self.add(choose)
            elif action < 0.8:
                self.driver(vring.kick_prepare)
            elif action < 0.87:
                self.driver(vring.vring_interrupt)
            elif action < 0.94:
                self.driver(vring.disable_cb)
            else:
                self.driver(vring.enable_cb_prepare)
        free = self.word(self.d + vring.D_NUM_FREE)
        assert 0 <= free <= self.num
        assert (free == self.num) == (not self.tokens)
        if self.word(self.d + vring.D_BROKEN):
            self.found[vring.VERDICTS[self.word(self.d + vring.D_VERDICT)]] += 1
            assert not self.reap()
            self.st[self.shape : self.shape + 6] = [1, 0, 0, 0, 0, 8]
            assert int(self.driver(vring.add, self.buffers, 0, 0)) == layout.EIO
        before = len(self.tokens)
        for _ in range(before):
            self.tokens.remove(int(vring.detach_unused_buf(self.mem, self.st, self.d)))
        assert int(vring.detach_unused_buf(self.mem, self.st, self.d)) == vring.EMPTY


def tell_lies(choose):
    """From now on a load in the ring's code may answer anything, each time something else."""

    def lying(load, bits):
        def answer(memory, address):
            value = load(memory, address)  # which checks the address
            if choose.random() < 0.2:
                value = choose.choice((choose.getrandbits(bits), choose.randrange(16)))
                value -= (value >> 63) << 64
            return value

        return answer

    sides = vring_split_driver, vring_split_device, vring_packed_driver, vring_packed_device
    for module in sides:
        for bits in (16, 32, 64):
            name = f'load{bits}'
            if hasattr(module, name):
                setattr(module, name, lying(getattr(module, name), bits))


def run(count, seed, with_lines, lies=False):
    """Fuzz `count` rings; how often each verdict was found."""
    rig = Fuzzed(with_lines, lies)
    for number in range(count):
        choose = random.Random(f'{seed}.{number}')
        try:
            rig.build(choose)
            if number % 2:
                rig.attack_the_driver(choose)
            else:
                rig.attack_the_device(choose)
        except Exception as error:
            raise AssertionError(f'ring {number} of seed {seed}') from error
    return rig.found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('count', type=int)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--lies', action='store_true')
    options = parser.parse_args()
    if options.lies:
        if JIT:
            parser.error('--lies needs NUMBA_DISABLE_JIT=1')
        tell_lies(random.Random(options.seed))
    found = run(options.count, options.seed, with_lines=True, lies=options.lies)
    print(json.dumps({'rings': options.count, 'verdicts': dict(sorted(found.items()))}))


if __name__ == '__main__':
    main()
