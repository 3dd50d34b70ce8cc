"""A ring driven by hand: both of its sides, for tests, notebooks and anybody who wants to see it.

    from sim import testing

    ring = testing.Ring(num=8)      # packed=True: the other kind, the same calls
    ring.driver.add(out=[(0x200000, 51)], in_=[(0x200040, 108), (0x300000, 4096)])
    ring.driver.kick()              # True: the device wants to know
    chain = ring.device.fetch()     # Chain(head=0, out=((0x200000, 51),), in_=...)
    ring.device.use(chain)
    ring.device.signal()            # True: the driver wants to know
    ring.driver.reap()              # [0]: the token of the request
    print(ring.film())              # what became of the bytes, step by step

The two sides are those of sim.vring, the code that the simulator runs; nothing here knows how a
ring works. Each method is one operation of the ring and, if it changed anything, one frame of the
film. What is to go wrong is written into memory by hand (`write`, `write_desc`).
"""

import errno
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim import features as feature_bits
from sim import vring
from sim.film import HEADS_PER_ROW, Film, Strip, packed_rows, region_rows, split_rows, table_rows
from sim.layout import vring_offsets
from sim.memory import new_lines, take_cycles

u64 = np.uint64

# Features of a ring, to be or-ed together.
NOTIFY_ON_EMPTY = 1 << feature_bits.NOTIFY_ON_EMPTY
INDIRECT_DESC = 1 << feature_bits.INDIRECT_DESC
EVENT_IDX = 1 << feature_bits.EVENT_IDX
VERSION_1 = 1 << feature_bits.VERSION_1
RING_PACKED = 1 << feature_bits.RING_PACKED
IN_ORDER = 1 << feature_bits.IN_ORDER
NOTIFICATION_DATA = 1 << feature_bits.NOTIFICATION_DATA

# What a Linux guest and a modern device agree on.
FEATURES = VERSION_1 | INDIRECT_DESC | EVENT_IDX

# Whose habits the device has.
KERNEL_VHOST, QEMU = vring.KERNEL_VHOST, vring.QEMU

DRIVER_CORE, DEVICE_CORE = 0, 1
MAX_BUFFERS = 1024

# A line of a picture: an address (0x1000 or 1000:), then bytes.
PICTURE = re.compile(
    r'\b(?P<address>0x[0-9a-f]+(?=[: ])|[0-9a-f]+(?=:)):?(?P<bytes>(?:[ *]+[0-9a-f]{2}\b)+)'
)

Buffers = Sequence[tuple[int, int]]


class RingError(OSError):
    """What an operation of the ring answers instead of a result.

    `errno` is the kernel's, `verdict` the name of what is wrong with the ring's bytes, if anything.
    """

    def __init__(self, what: str, code: int, verdict: str = '') -> None:
        name = errno.errorcode.get(-code, str(code))
        why = f'{verdict}, ' if verdict else ''
        super().__init__(-code, f'{what}: {why}{name} ({os.strerror(-code)})')
        self.verdict = verdict


@dataclass(frozen=True)
class Chain:
    """A request as the device sees it: (address, length) of its readable and writable buffers."""

    head: int
    out: tuple[tuple[int, int], ...]
    in_: tuple[tuple[int, int], ...]

    @property
    def out_bytes(self) -> int:
        """Bytes that the device may read."""
        return sum(length for _, length in self.out)

    @property
    def in_bytes(self) -> int:
        """Bytes that the device may write."""
        return sum(length for _, length in self.in_)


class Ring:
    """A ring in a memory of its own, with a driver and a device to drive it by hand.

    `num` entries; `features` are the agreed bits, to which `packed` adds RING_PACKED. The parts lie
    from `desc` on, in a split ring as a legacy device would have them, unless `avail` and `used`
    (packed: the event structures of driver and device) say otherwise. `memory` is the size of guest
    memory in bytes. `personality` is whose habits the device has; `batched` lets it write one used
    element for several buffers, which IN_ORDER allows. With `prices` (hit, shared, transfer and
    cold, in cycles) every access of the driver (core 0) and the device (core 1) is charged to the
    cache lines it touches.
    """

    def __init__(
        self,
        num: int = 8,
        *,
        packed: bool = False,
        features: int = FEATURES,
        personality: int = KERNEL_VHOST,
        batched: bool = False,
        desc: int | None = None,
        avail: int | None = None,
        used: int | None = None,
        memory: int = 0x500000,
        prices: tuple[int, int, int, int] | None = None,
    ) -> None:
        self.num = num
        self.features = features | (RING_PACKED if packed else 0)
        self.packed = bool(self.features & RING_PACKED)
        self.personality = personality
        self.batched = batched
        self.desc = (0x20000 if self.packed else 0x10000) if desc is None else desc
        offsets = (16 * num, 16 * num + 4) if self.packed else vring_offsets(num, align=4096)[:2]
        self.avail = self.desc + offsets[0] if avail is None else avail
        self.used = self.desc + offsets[1] if used is None else used
        self.mem = np.zeros(memory, dtype=np.uint8)
        self.lines = None if prices is None else new_lines(memory, 2, prices)
        self._watched: list[tuple[str, int, int]] = []
        self._film = Film()
        self._index: dict[str, int] = {}
        self.driver = Driver(self)
        self.device = Device(self)
        self.frame('a fresh ring')

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes of guest memory."""
        return self.mem[address : address + size].tobytes()

    def write(self, address: int, data: bytes | str) -> None:
        """Put bytes, or hexadecimal digits, into guest memory."""
        raw = bytes.fromhex(data) if isinstance(data, str) else data
        self.mem[address : address + len(raw)] = np.frombuffer(raw, dtype=np.uint8)

    def write_desc(self, at: int, address: int, length: int, flags: int, last: int = 0) -> None:
        """Write a descriptor at address `at`, in the ring or in an indirect table.

        `last` is the field that is left: `next`, or the buffer id of a packed ring.
        """
        tail = ((last, 2), (flags, 2)) if self.packed else ((flags, 2), (last, 2))
        raw = b''.join(
            (value % (1 << 8 * size)).to_bytes(size, 'little')
            for value, size in ((address, 8), (length, 4), *tail)
        )
        self.write(at, raw)

    def watch(self, name: str, address: int, size: int) -> None:
        """From now on the film shows this stretch of memory as well."""
        self._watched.append((name, address, size))

    def frame(self, caption: str) -> None:
        """Take a picture of the ring's bytes as they are now."""
        rows_of = packed_rows if self.packed else split_rows
        rows = rows_of(self.num, self.desc, self.avail, self.used)
        for table, entries in self.driver.tables.items():
            rows += table_rows(table, entries, self.packed)
        for name, address, size in self._watched:
            rows += region_rows(name, address, size)
        # Entries that an index has just passed are news, even where their bytes are as before.
        news: set[str] = set()
        if not self.packed:
            news = self._passed('avail', self.avail) | self._passed('used', self.used)
        pinned = [row for row in rows if row.label in news]
        words = {'driver': self.driver.words(), 'device': self.device.words()}
        self._film.take(caption, self.mem, rows, words, pinned)

    def _passed(self, ring: str, at: int) -> set[str]:
        """Labels of the entries between the index of the last frame and the index now."""
        now = int.from_bytes(self.read(at + 2, 2), 'little')
        last = self._index.get(ring, now)
        self._index[ring] = now
        slots = {(last + i) % self.num for i in range(min(self.num, (now - last) % 65536))}
        if ring == 'used':
            return {f'used[{slot}]' for slot in slots}
        return {f'avail[{slot - slot % HEADS_PER_ROW}..]' for slot in slots}

    def film(self, first: int = 1) -> Strip:
        """The frames so far as text: the bytes that changed (starred), and what they say.

        `first` is the number of the frame to begin with; -1 is the last one.
        """
        return self._film.strip(first)

    def expect(self, picture: str) -> None:
        """Assert that memory holds what the picture says, byte by byte.

        One stretch of memory per line: its address in hexadecimal, its bytes; what stands before
        the address and behind the bytes is prose. Rows of a film will do. An address is written
        with 0x or with a colon behind it, so that prose is not taken for one.
        """
        matches = [match for line in picture.splitlines() if (match := PICTURE.search(line))]
        if not matches:
            raise ValueError('no line of the picture has an address and bytes')
        for match in matches:
            address = int(match['address'], 16)
            wanted = bytes.fromhex(match['bytes'].replace('*', ' '))
            found = self.read(address, len(wanted))
            assert found == wanted, (
                f'{match.string.strip()}\nfound at {address:#x}: {found.hex(" ")}'
            )


def _word(index: int | u64, doc: str) -> property:
    """A word of a side's private state, to be read and, in a test, to be set."""

    def get(side: 'Driver | Device') -> int:
        return int(side.st[int(side.base) + int(index)])

    def put(side: 'Driver | Device', value: int) -> None:
        side.st[int(side.base) + int(index)] = value

    return property(get, put, doc=doc)


class Driver:
    """The driver's side of a ring; see sim.vring for what each operation does in Linux."""

    free_head = _word(vring.D_FREE_HEAD, 'The first free descriptor (packed: buffer id).')
    num_free = _word(vring.D_NUM_FREE, 'How many descriptors are free.')
    num_added = _word(vring.D_NUM_ADDED, 'Added since the last kick decision (packed: slots).')
    avail_idx = _word(vring.D_AVAIL_IDX, 'The shadow of avail.idx (packed: the next slot).')
    avail_wrap = _word(vring.D_AVAIL_WRAP, 'Packed: the wrap counter there.')
    last_used = _word(vring.D_LAST_USED, 'Up to where used entries were taken (bit 15: wrap).')
    used_length = _word(vring.D_USED_LENGTH, 'What the device wrote, it said, in the last buffer.')
    event_triggered = _word(vring.D_EVENT_TRIGGERED, 'An interrupt ran since enable_cb.')
    broken = _word(vring.D_BROKEN, 'The device has done something impossible.')

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.base = u64(0)
        self.buffers = u64(vring.driver_words(ring.num))
        self.st = np.zeros(int(self.buffers) + 4 + 2 * MAX_BUFFERS, dtype=np.int64)
        self.tables: dict[int, int] = {}  # address: entries, of requests not yet reaped
        self._pending: dict[int, tuple[Any, int]] = {}  # number: token and table
        self._added = 0
        self._next_table = 0x400000
        vring.driver_init(
            self.st, self.base, ring.num, ring.desc, ring.avail, ring.used, ring.features
        )

    def words(self) -> dict[str, int]:
        """The private state that the film shows."""
        names = ['free_head', 'num_free', 'num_added', 'last_used']
        if self.ring.packed:
            names += ['avail_idx', 'avail_wrap']
        shown = {name: int(getattr(self, name)) for name in names}
        if self.ring.packed:
            shown |= {'last_used': self.last_used & 0x7FFF, 'used_wrap': self.last_used >> 15}
        return shown

    @property
    def verdict(self) -> str:
        """What is wrong with what the device wrote."""
        return vring.VERDICTS[int(self.st[int(vring.D_VERDICT)])]

    def free_list(self) -> list[int]:
        """The free descriptors in the order in which they will be taken."""
        order, index = [], self.free_head
        for _ in range(self.num_free):
            order.append(index)
            index = int(self.st[int(vring.extra(self.base, index) + vring.E_NEXT)])
        return order

    def add(
        self,
        out: Buffers = (),
        in_: Buffers = (),
        *,
        table: int | None = None,
        token: object = None,
    ) -> int:
        """Publish a request; returns its head.

        `out` and `in_` are (address, length) of readable and writable buffers. `table` is where
        an indirect table goes: None finds a place, 0 says that there is no memory for one. `token`
        comes back from `reap`; the head, if not given. Errors: RingError(ENOSPC).
        """
        buffers = [*out, *in_]
        if not 0 < len(buffers) <= MAX_BUFFERS:
            raise ValueError(f'a request has 1 to {MAX_BUFFERS} buffers, not {len(buffers)}')
        if table is None:
            table = self._next_table if self.ring.features & INDIRECT_DESC else 0
        at = int(self.buffers)
        self.st[at : at + 4] = [len(out), len(in_), 0, 0]
        self.st[at + 4 : at + 4 + 2 * len(buffers)] = np.ravel(buffers)
        number = self._added
        head = int(self._call(vring.add, self.buffers, number, table))
        if head < 0:
            raise RingError('add', head)
        self._added += 1
        self._pending[number] = (head if token is None else token, table)
        if table and len(buffers) > 1:
            self.tables[table] = len(buffers)
            self._next_table = max(self._next_table, table + 16 * len(buffers))
        self.ring.frame(f'driver: add {len(out)} out, {len(in_)} in -> head {head}')
        return head

    def kick(self) -> bool:
        """Does the device want to be told of what was added? (virtqueue_kick_prepare)"""
        wanted = bool(self._call(vring.kick_prepare))
        self.ring.frame(f'driver: kick? {"yes" if wanted else "no"}')
        return wanted

    def notification_data(self, vq: int) -> int:
        """What a kick of queue `vq` carries if NOTIFICATION_DATA was agreed."""
        return int(vring.notification_data(self.st, self.base, vq))

    def more_used(self) -> bool:
        """Is there a used entry to take?"""
        return bool(self._call(vring.more_used))

    def interrupt(self) -> bool:
        """The interrupt handler begins; False if there is nothing for it (vring_interrupt)."""
        return bool(self._call(vring.vring_interrupt))

    def get_buf(self) -> Any:
        """Take one used entry: the token of its request, None if there is none."""
        number = int(self._call(vring.get_buf))
        if number == vring.EMPTY:
            return None
        token, table = self._pending.pop(number)
        self.tables.pop(table, None)
        self.ring.frame(f'driver: get_buf -> token {token}')
        return token

    def reap(self) -> list[Any]:
        """Take all used entries; the tokens of their requests in the order of use."""
        return list(iter(self.get_buf, None))

    def disable_cb(self) -> None:
        """Ask for no interrupts, as far as the ring can say that."""
        self._call(vring.disable_cb)
        self.ring.frame('driver: disable_cb')

    def enable_cb_prepare(self) -> None:
        """Ask for the next interrupt. Look again (`more_used`) before you rely on it."""
        self._call(vring.enable_cb_prepare)
        self.ring.frame('driver: enable_cb')

    def enable_cb(self) -> bool:
        """Both halves: False if something was used meanwhile (virtqueue_enable_cb)."""
        self.enable_cb_prepare()
        return not self.more_used()

    def enable_cb_delayed(self) -> bool:
        """Ask for an interrupt once 3/4 of what is out came back; False if it has already."""
        enough = not self._call(vring.enable_cb_delayed)
        self.ring.frame('driver: enable_cb_delayed')
        return not enough

    def detach_unused_buf(self) -> Any:
        """Take back, from a device that has stopped, a request that was not used; its token."""
        number = int(vring.detach_unused_buf(self.ring.mem, self.st, self.base))
        if number == vring.EMPTY:
            return None
        token, table = self._pending.pop(number)
        self.tables.pop(table, None)
        self.ring.frame(f'driver: detach_unused_buf -> token {token}')
        return token

    def take_cycles(self) -> int:
        """What the cache lines have cost the driver since the last call."""
        return int(take_cycles(self.ring.lines, DRIVER_CORE))

    def _call(self, operation: Callable[..., Any], *arguments: Any) -> Any:
        ring = self.ring
        return operation(ring.mem, ring.lines, self.st, self.base, DRIVER_CORE, *arguments)


class Device:
    """The device's side of a ring; see sim.vring for what each operation does in vhost."""

    last_avail = _word(vring.V_LAST_AVAIL, 'Up to where chains were fetched.')
    avail_wrap = _word(vring.V_AVAIL_WRAP, 'Packed: the wrap counter there.')
    avail_idx = _word(vring.V_AVAIL_IDX, "The cached copy of the guest's avail.idx.")
    last_used = _word(vring.V_LAST_USED, 'Up to where used entries were written.')
    used_wrap = _word(vring.V_USED_WRAP, 'Packed: the wrap counter there.')
    broken = _word(vring.V_BROKEN, 'The device has given the ring up.')
    status = _word(vring.V_STATUS, 'Bits of the device status that this queue raised.')
    signalled_used = _word(vring.V_SIGNALLED_USED, 'last_used at the last signal decision.')
    signalled_used_valid = _word(vring.V_SIGNALLED_USED_VALID, 'False: the next signal is forced.')

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.base = u64(0)
        words = vring.device_words(ring.num)
        self.buffers = u64(words)
        self.st = np.zeros(words + 4 + 2 * MAX_BUFFERS, dtype=np.int64)
        self.attach()

    def attach(self, base: int | None = None) -> None:
        """Begin at `base`, which is what VHOST_SET_VRING_BASE carries; None: on a fresh ring.

        Errors: RingError, the ring cannot be where it is or go on from there.
        """
        ring = self.ring
        code = vring.device_init(
            ring.mem, self.st, self.base, ring.num, ring.desc, ring.avail, ring.used, ring.features,
            vring.fresh_base(ring.features) if base is None else base, ring.personality,
        )  # fmt: skip
        if code:
            raise RingError('attach', int(code), self.verdict)
        self.st[int(vring.V_BATCHED)] = ring.batched

    def words(self) -> dict[str, int]:
        """The private state that the film shows."""
        names = ['last_avail', 'signalled_used']
        if self.ring.packed:
            names += ['avail_wrap', 'last_used', 'used_wrap']
        return {name: int(getattr(self, name)) for name in names}

    @property
    def verdict(self) -> str:
        """What was last found wrong with what the driver wrote."""
        return vring.VERDICTS[int(self.st[int(vring.V_VERDICT)])]

    @property
    def in_flight(self) -> int:
        """Requests (packed: descriptors) that were fetched and not used."""
        return int(vring.in_flight(self.st, self.base))

    def fetch(self) -> Chain | None:
        """Take the next request; None if there is none. Errors: RingError, a malformed chain."""
        head = int(self._call(vring.fetch, self.buffers))
        if head == vring.EMPTY:
            return None
        if head < 0:
            raise RingError('fetch', head, self.verdict)
        at = int(self.buffers)
        out, in_ = (int(count) for count in self.st[at : at + 2])
        pairs = self.st[at + 4 : at + 4 + 2 * (out + in_)].reshape(-1, 2).tolist()
        entries = tuple((address, length) for address, length in pairs)
        self.ring.frame(f'device: fetch -> head {head}')
        return Chain(head, entries[:out], entries[out:])

    def use(self, chain: Chain | int, length: int = 0) -> int:
        """Give a request back with `length` bytes written; vhost-scsi always says 0.

        Returns how many requests the driver can see now: with IN_ORDER some wait for older ones.
        """
        head = chain if isinstance(chain, int) else chain.head
        visible = int(self._call(vring.add_used, head, length))
        self.ring.frame(f'device: use head {head}, len {length}')
        return visible

    def signal(self) -> bool:
        """Does the driver want an interrupt for what was used? (vhost_notify)"""
        wanted = bool(self._call(vring.signal_needed))
        self.ring.frame(f'device: signal? {"yes" if wanted else "no"}')
        return wanted

    def disable_notify(self) -> None:
        """Ask for no kicks, as far as the ring can say that."""
        self._call(vring.disable_notify)
        self.ring.frame('device: disable_notify')

    def enable_notify_prepare(self) -> None:
        """Ask for the next kick. Look again (`more_avail`) before you rely on it."""
        self._call(vring.enable_notify)
        self.ring.frame('device: enable_notify')

    def more_avail(self) -> bool:
        """Has the driver published something that was not fetched?"""
        return bool(self._call(vring.more_avail))

    def enable_notify(self) -> bool:
        """Both halves: True if something was published meanwhile (vhost_enable_notify)."""
        self.enable_notify_prepare()
        return self.more_avail()

    def take_cycles(self) -> int:
        """What the cache lines have cost the device since the last call."""
        return int(take_cycles(self.ring.lines, DEVICE_CORE))

    def _call(self, operation: Callable[..., Any], *arguments: Any) -> Any:
        ring = self.ring
        return operation(ring.mem, ring.lines, self.st, self.base, DEVICE_CORE, *arguments)
