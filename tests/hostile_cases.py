"""The catalogue of hostile rings: what the other side wrote, what real code does, what ours does.

Each case is built in memory by hand and then run; `python scripts/hostile_table.py --write` puts
what came out into docs/reference/hostile.md. Split rings of 8: descriptors 0x10000, avail 0x10080,
used 0x11000. Packed rings of 8: slots 0x20000, driver event 0x20080, device event 0x20084.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from sim import testing, vring
from sim.testing import IN_ORDER, KERNEL_VHOST, QEMU, VERSION_1, RingError

HEADER, RESPONSE, DATA, TABLE = 0x200000, 0x200040, 0x300000, 0x400000
NEXT, WRITE, INDIRECT, AVAIL, USED = 1, 2, 4, 0x80, 0x8000
MEMORY = 0x600000

DESC = 'The Virtqueue Descriptor Table'
AVAILABLE = 'The Virtqueue Available Ring'
USED_RING = 'The Virtqueue Used Ring'
TABLES = 'Indirect Descriptors'
PACKED = 'Packed Virtqueues: Structure'
EVENTS = 'Event Suppression Structure Format'


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing that is wrong.

    `build` writes it into a fresh ring. `vhost` and `qemu` say what the real code does; `ours` is
    what must come out for the kernel's personality and for QEMU's: a verdict and what follows.
    """

    name: str
    clause: str
    build: Callable[[testing.Ring], object]
    vhost: str
    qemu: str
    ours: tuple[str, str]
    packed: bool = False
    fetches: int = 1
    features: int = testing.FEATURES


def chain(*descriptors):
    """Head 0 is published; the descriptors (address, length, flags, next) lie from it on."""

    def build(ring):
        for i, descriptor in enumerate(descriptors):
            ring.write_desc(ring.desc + 16 * i, *descriptor)
        if not ring.packed:
            ring.write(ring.avail, '00 00 01 00 00 00')

    return build


def table(length, *entries, flags=INDIRECT):
    """A table of these entries at TABLE; the head says it has `length` bytes."""

    def build(ring):
        for i, entry in enumerate(entries):
            ring.write_desc(TABLE + 16 * i, *entry)
        head = (TABLE, length, flags | (AVAIL if ring.packed else 0), 0)
        chain(head)(ring)

    return build


def raw(at, data):
    """Bytes at an address."""
    return lambda ring: ring.write(at, data)


def both(*builds):
    """One after the other."""
    return lambda ring: [build(ring) for build in builds]


OUT, IN = (HEADER, 51, 0, 0), (RESPONSE, 108, WRITE, 0)
A_TABLE = ((HEADER, 51, NEXT, 1), (RESPONSE, 108, WRITE, 0))
STUCK, BROKEN, TAKEN, NOTHING = 'stuck', 'broken', 'taken', 'nothing to take'


def same_head_twice(ring):
    chain(OUT)(ring)
    ring.write(ring.avail, '00 00 02 00 00 00 00 00')


def slots_published_again(ring):
    """The driver fills the ring twice over while the device still works on the first lap."""
    for i in range(ring.num):
        ring.write_desc(ring.desc + 16 * i, HEADER, 51, AVAIL, i)
    for _ in range(ring.num):
        ring.device.fetch()
    for i in range(ring.num):
        ring.write_desc(ring.desc + 16 * i, HEADER, 51, USED, i)


DEVICE = (
    Case(
        name='head beyond the table',
        clause=AVAILABLE,
        build=raw(0x10080, '00 00 01 00 08 00'),
        vhost='EINVAL, last_avail stays',
        qemu='virtio_error',
        ours=('BAD_HEAD EINVAL, stuck', 'BAD_HEAD, broken'),
    ),
    Case(
        name='`next` beyond the table',
        clause=DESC,
        build=chain((HEADER, 51, NEXT, 9)),
        vhost='EINVAL',
        qemu='virtio_error',
        ours=('BAD_NEXT EINVAL, stuck', 'BAD_NEXT, broken'),
    ),
    Case(
        name='a chain that returns to its head',
        clause=DESC,
        build=chain((HEADER, 51, NEXT, 1), (DATA, 512, NEXT, 0)),
        vhost='EINVAL after as many descriptors as the ring has',
        qemu='virtio_error after one more',
        ours=('LOOP EINVAL, stuck', 'LOOP, broken'),
    ),
    Case(
        name='readable behind writable',
        clause=DESC,
        build=chain((RESPONSE, 108, WRITE | NEXT, 1), OUT),
        vhost='EINVAL',
        qemu='virtio_error',
        ours=('BAD_ORDER EINVAL, stuck', 'BAD_ORDER, broken'),
    ),
    Case(
        name='a table in a table',
        clause=TABLES,
        build=table(32, (TABLE + 64, 16, INDIRECT | NEXT, 1), IN),
        vhost='EINVAL',
        qemu='looks for INDIRECT at the head only: the entry is a buffer',
        ours=('NESTED_TABLE EINVAL, stuck', 'taken: 1 out, 1 in'),
    ),
    Case(
        name='table length no multiple of 16',
        clause=TABLES,
        build=table(0x31, *A_TABLE),
        vhost='EINVAL',
        qemu='virtio_error',
        ours=('BAD_TABLE_LENGTH EINVAL, stuck', 'BAD_TABLE_LENGTH, broken'),
    ),
    Case(
        name='a table of no bytes',
        clause=TABLES,
        build=table(0),
        vhost='EINVAL: one entry is more than it has',
        qemu='virtio_error',
        ours=('LOOP EINVAL, stuck', 'BAD_TABLE_LENGTH, broken'),
    ),
    Case(
        name='a table of 65537 entries',
        clause=TABLES,
        build=table(0x100010, *A_TABLE),
        vhost='E2BIG',
        qemu='no such limit',
        ours=('TABLE_TOO_LONG E2BIG, stuck', 'taken: 1 out, 1 in'),
    ),
    Case(
        name='the last entry of a table promises another',
        clause=TABLES,
        build=table(32, (HEADER, 51, NEXT, 1), (RESPONSE, 108, WRITE | NEXT, 2)),
        vhost='EINVAL',
        qemu='virtio_error: `next` is beyond the table',
        ours=('LOOP EINVAL, stuck', 'BAD_NEXT, broken'),
    ),
    Case(
        name='a table linked out of order',
        clause=TABLES,
        build=table(48, (HEADER, 51, NEXT, 2), IN, (DATA, 512, NEXT, 1)),
        vhost='reads the entries one after the other, whatever `next` says',
        qemu='follows `next`',
        ours=('taken: 1 out, 1 in', 'taken: 2 out, 1 in'),
    ),
    Case(
        name='INDIRECT and NEXT in one descriptor',
        clause=TABLES,
        build=both(
            table(16, OUT, flags=INDIRECT | NEXT),
            lambda ring: ring.write(0x1000E, '01 00'),
            lambda ring: ring.write_desc(0x10010, *IN),
        ),
        vhost='follows both',
        qemu='the table is all',
        ours=('taken: 1 out, 1 in', 'taken: 1 out, 0 in'),
    ),
    Case(
        name='a table behind a plain descriptor',
        clause=TABLES,
        build=both(table(16, IN), chain((HEADER, 51, NEXT, 1), (TABLE, 16, INDIRECT, 0))),
        vhost='follows it',
        qemu='takes the descriptor of the table for a buffer',
        ours=('taken: 1 out, 1 in', 'taken: 2 out, 0 in'),
    ),
    Case(
        name='a table outside memory',
        clause=TABLES,
        build=chain((0x7FFFFF0000000000, 0x30, INDIRECT, 0)),
        vhost='EFAULT',
        qemu='virtio_error',
        ours=('BAD_TABLE_ADDRESS EFAULT, stuck', 'BAD_TABLE_ADDRESS, broken'),
    ),
    Case(
        name='a table that wraps round 2^64',
        clause=TABLES,
        build=chain((-16, 0x30, INDIRECT, 0)),
        vhost='EFAULT',
        qemu='virtio_error',
        ours=('BAD_TABLE_ADDRESS EFAULT, stuck', 'BAD_TABLE_ADDRESS, broken'),
    ),
    Case(
        name='a buffer outside memory',
        clause=DESC,
        build=chain((0x7FFFFF0000000000, 51, 0, 0)),
        vhost='EFAULT',
        qemu='virtio_error',
        ours=('BAD_BUFFER_ADDRESS EFAULT, stuck', 'BAD_BUFFER_ADDRESS, broken'),
    ),
    Case(
        name='a buffer that leaves memory by one byte',
        clause=DESC,
        build=chain((MEMORY - 50, 51, 0, 0)),
        vhost='EFAULT',
        qemu='virtio_error',
        ours=('BAD_BUFFER_ADDRESS EFAULT, stuck', 'BAD_BUFFER_ADDRESS, broken'),
    ),
    Case(
        name='a buffer that wraps round 2^64',
        clause=DESC,
        build=chain((-16, 51, 0, 0)),
        vhost='EFAULT',
        qemu='virtio_error',
        ours=('BAD_BUFFER_ADDRESS EFAULT, stuck', 'BAD_BUFFER_ADDRESS, broken'),
    ),
    Case(
        name='a buffer of no bytes',
        clause=DESC,
        build=chain((HEADER, 51, NEXT, 1), (DATA, 0, NEXT, 2), IN),
        vhost='translates it to nothing',
        qemu='virtio_error',
        ours=('taken: 1 out, 1 in', 'ZERO_LENGTH, broken'),
    ),
    Case(
        name='no readable bytes behind writable ones',
        clause=DESC,
        build=chain((RESPONSE, 108, WRITE | NEXT, 1), (HEADER, 0, 0, 0)),
        vhost='EINVAL all the same',
        qemu='virtio_error: the order is looked at first',
        ours=('BAD_ORDER EINVAL, stuck', 'BAD_ORDER, broken'),
    ),
    Case(
        name='1025 buffers in a chain',
        clause=DESC,
        build=table(16 * 1025, *[(DATA + 16 * i, 16, NEXT, i + 1) for i in range(1025)]),
        vhost='ENOBUFS (UIO_MAXIOV)',
        qemu='virtio_error (VIRTQUEUE_MAX_SIZE)',
        ours=('TOO_MANY_BUFFERS ENOBUFS, stuck', 'TOO_MANY_BUFFERS, broken'),
    ),
    Case(
        name='avail.idx more than the ring ahead',
        clause=AVAILABLE,
        build=both(chain(OUT), raw(0x10082, '09 00')),
        vhost='EINVAL',
        qemu='takes what the ring holds; one more is too many in use: virtio_error',
        ours=('BAD_AVAIL_INDEX EINVAL, stuck', 'TOO_MANY_IN_FLIGHT after 8, broken'),
        fetches=9,
    ),
    Case(
        name='a head published again while it is out',
        clause=AVAILABLE,
        build=same_head_twice,
        vhost='does not know, takes it twice',
        qemu='does not know, takes it twice',
        ours=('taken: 1 out, 0 in', 'taken: 1 out, 0 in'),
        fetches=2,
    ),
    Case(
        name='a buffer inside the ring itself',
        clause=DESC,
        build=chain((0x11000, 70, WRITE, 0)),
        vhost='memory like any other',
        qemu='memory like any other',
        ours=('taken: 0 out, 1 in', 'taken: 0 out, 1 in'),
    ),
)

PACKED_DEVICE = (
    Case(
        name='AVAIL and USED flip-flop: both set',
        clause=PACKED,
        build=chain((HEADER, 51, AVAIL | USED, 0)),
        vhost='-',
        qemu='not available',
        ours=('nothing to take', 'nothing to take'),
    ),
    Case(
        name='the wrong wrap: available in the next lap',
        clause=PACKED,
        build=chain((HEADER, 51, USED, 0)),
        vhost='-',
        qemu='not available',
        ours=('nothing to take', 'nothing to take'),
    ),
    Case(
        name='a chain that goes round the whole ring',
        clause=PACKED,
        build=chain(*[(HEADER, 51, AVAIL | NEXT, 0)] * 8),
        vhost='-',
        qemu='virtio_error after one more than the ring has',
        ours=('LOOP, broken', 'LOOP, broken'),
    ),
    Case(
        name='readable behind writable',
        clause=DESC,
        build=chain((RESPONSE, 108, AVAIL | WRITE | NEXT, 0), (HEADER, 51, AVAIL, 0)),
        vhost='-',
        qemu='virtio_error',
        ours=('BAD_ORDER, broken', 'BAD_ORDER, broken'),
    ),
    Case(
        name='table length no multiple of 16',
        clause=TABLES,
        build=table(0x31, *A_TABLE),
        vhost='-',
        qemu='virtio_error',
        ours=('BAD_TABLE_LENGTH, broken', 'BAD_TABLE_LENGTH, broken'),
    ),
    Case(
        name='a table of no bytes',
        clause=TABLES,
        build=table(0),
        vhost='-',
        qemu='reads an entry behind the table, then virtio_error',
        ours=('BAD_TABLE_LENGTH, broken', 'BAD_TABLE_LENGTH, broken'),
    ),
    Case(
        name='a table in a table',
        clause=TABLES,
        build=table(32, (TABLE + 64, 16, INDIRECT, 0), IN),
        vhost='-',
        qemu='the entry is a buffer',
        ours=('taken: 1 out, 1 in', 'taken: 1 out, 1 in'),
    ),
    Case(
        name='INDIRECT and NEXT in one descriptor',
        clause=TABLES,
        build=table(32, *A_TABLE, flags=INDIRECT | NEXT),
        vhost='-',
        qemu='the table is all, one slot',
        ours=('taken: 1 out, 1 in', 'taken: 1 out, 1 in'),
    ),
    Case(
        name='a table outside memory',
        clause=TABLES,
        build=chain((-16, 0x30, AVAIL | INDIRECT, 0)),
        vhost='-',
        qemu='virtio_error',
        ours=('BAD_TABLE_ADDRESS, broken', 'BAD_TABLE_ADDRESS, broken'),
    ),
    Case(
        name='a buffer outside memory',
        clause=DESC,
        build=chain((MEMORY - 50, 51, AVAIL, 0)),
        vhost='-',
        qemu='virtio_error',
        ours=('BAD_BUFFER_ADDRESS, broken', 'BAD_BUFFER_ADDRESS, broken'),
    ),
    Case(
        name='a buffer of no bytes',
        clause=DESC,
        build=chain((HEADER, 0, AVAIL, 0)),
        vhost='-',
        qemu='virtio_error',
        ours=('ZERO_LENGTH, broken', 'ZERO_LENGTH, broken'),
    ),
    Case(
        name='1025 buffers in a table',
        clause=TABLES,
        build=table(16 * 1025, *[(DATA + 16 * i, 16, 0, 0) for i in range(1025)]),
        vhost='-',
        qemu='virtio_error',
        ours=('TOO_MANY_BUFFERS, broken', 'TOO_MANY_BUFFERS, broken'),
    ),
    Case(
        name='a buffer id beyond the ring',
        clause=PACKED,
        build=chain((HEADER, 51, AVAIL, 8)),
        vhost='-',
        qemu='gives it back as it came',
        ours=('BAD_BUFFER_ID, broken', 'BAD_BUFFER_ID, broken'),
    ),
    Case(
        name='a buffer id published again while it is out',
        clause=PACKED,
        build=chain((HEADER, 51, AVAIL, 3), (DATA, 51, AVAIL, 3)),
        vhost='-',
        qemu='does not know, takes it twice',
        ours=('taken: 1 out, 0 in', 'taken: 1 out, 0 in'),
        fetches=2,
    ),
    Case(
        name='slots published again while they are out',
        clause=PACKED,
        build=slots_published_again,
        vhost='-',
        qemu='virtio_error: more in use than the ring has',
        ours=('TOO_MANY_IN_FLIGHT, broken', 'TOO_MANY_IN_FLIGHT, broken'),
    ),
)


def at(**where):
    """The ring is said to be somewhere else, or of another size."""

    def build(ring):
        for name, value in where.items():
            setattr(ring, name, value)

    return build


REFUSED = 'silent'
ATTACH = (
    Case(
        name='a size that is no power of two',
        clause='Split Virtqueues',
        build=at(num=6),
        vhost='SET_VRING_NUM: EINVAL',
        qemu='the transport ignores it',
        ours=('BAD_RING_SIZE EINVAL, silent', 'BAD_RING_SIZE EINVAL, silent'),
    ),
    Case(
        name='a ring of no entries',
        clause='Virtqueues',
        build=at(num=0),
        vhost='SET_VRING_NUM: EINVAL',
        qemu='the queue does not exist',
        ours=('BAD_RING_SIZE EINVAL, silent', 'BAD_RING_SIZE EINVAL, silent'),
    ),
    Case(
        name='a used ring that is not aligned',
        clause='Split Virtqueues',
        build=at(used=0x11002),
        vhost='SET_VRING_ADDR: EINVAL',
        qemu='no check',
        ours=('BAD_RING_ALIGNMENT EINVAL, silent', 'BAD_RING_ALIGNMENT EINVAL, silent'),
    ),
    Case(
        name='a descriptor table that leaves memory',
        clause='Split Virtqueues',
        build=at(desc=MEMORY - 16),
        vhost='SET_ENDPOINT: EFAULT',
        qemu='virtio_error: cannot map',
        ours=('BAD_RING_ADDRESS EFAULT, silent', 'BAD_RING_ADDRESS EFAULT, silent'),
    ),
    Case(
        name='an available ring outside memory',
        clause='Split Virtqueues',
        build=at(avail=-4096),
        vhost='SET_ENDPOINT: EFAULT',
        qemu='virtio_error: cannot map',
        ours=('BAD_RING_ADDRESS EFAULT, silent', 'BAD_RING_ADDRESS EFAULT, silent'),
    ),
    Case(
        name='an event structure outside memory',
        clause=EVENTS,
        packed=True,
        build=at(used=MEMORY),
        vhost='-',
        qemu='virtio_error: cannot map',
        ours=('BAD_RING_ADDRESS EFAULT, silent', 'BAD_RING_ADDRESS EFAULT, silent'),
    ),
)


def used(*heads, idx=None):
    """The device's answers: these elements in the used ring (or used descriptors)."""

    def build(ring):
        for i, head in enumerate(heads):
            if ring.packed:
                ring.write_desc(ring.desc + 16 * i, 0, 0, AVAIL | USED, head)
            else:
                ring.write(ring.used + 4 + 8 * i, head.to_bytes(4, 'little') + bytes(4))
        if not ring.packed:
            ring.write(ring.used + 2, (len(heads) if idx is None else idx).to_bytes(2, 'little'))

    return build


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a hostile device answers to a driver that has two chains out: tokens 0 and 1."""

    name: str
    clause: str
    build: Callable[[testing.Ring], object]
    linux: str
    ours: str  # tokens that come back, then what follows
    packed: bool = False
    features: int = field(default=VERSION_1)


DRIVER = (
    Answer(
        name='an id beyond the ring',
        clause=USED_RING,
        build=used(8),
        linux='BAD_RING: id out of range',
        ours='USED_ID_RANGE, ring broken',
    ),
    Answer(
        name='an id of 32 bits',
        clause=USED_RING,
        build=used(0x80000000),
        linux='BAD_RING: id out of range',
        ours='USED_ID_RANGE, ring broken',
    ),
    Answer(
        name='an id that is not in flight',
        clause=USED_RING,
        build=used(5),
        linux='BAD_RING: id is not a head',
        ours='USED_NOT_A_HEAD, ring broken',
    ),
    Answer(
        name='an id used twice',
        clause=USED_RING,
        build=used(1, 1),
        linux='the second time: BAD_RING, id is not a head',
        ours='1, USED_NOT_A_HEAD, ring broken',
    ),
    Answer(
        name='used.idx jumps ahead',
        clause=USED_RING,
        build=used(0, 1, idx=100),
        linux='reads on until an id is not a head: BAD_RING',
        ours='0 1, USED_NOT_A_HEAD, ring broken',
    ),
    Answer(
        name='used.idx goes back',
        clause=USED_RING,
        build=used(0, idx=0xFFFF),
        linux='65535 entries, it believes: reads on until BAD_RING',
        ours='0, USED_NOT_A_HEAD, ring broken',
    ),
    Answer(
        name='nothing was used, only an interrupt came',
        clause=USED_RING,
        build=used(),
        linux='IRQ_NONE',
        ours='nothing',
    ),
    Answer(
        name='in order: a batch that ends with nobody',
        clause='In-order use of descriptors',
        build=used(7),
        features=VERSION_1 | IN_ORDER,
        linux='takes every chain that is out for a part of it, then BAD_RING',
        ours='0 1, USED_NOT_A_HEAD, ring broken',
    ),
    Answer(
        name='packed: an id beyond the ring',
        clause=PACKED,
        packed=True,
        build=used(8),
        linux='BAD_RING: id out of range',
        ours='USED_ID_RANGE, ring broken',
    ),
    Answer(
        name='packed: an id that is not in flight',
        clause=PACKED,
        packed=True,
        build=used(5),
        linux='BAD_RING: id is not a head',
        ours='USED_NOT_A_HEAD, ring broken',
    ),
    Answer(
        name='packed: an id used twice',
        clause=PACKED,
        packed=True,
        build=used(1, 1),
        linux='the second time: BAD_RING, id is not a head',
        ours='1, USED_NOT_A_HEAD, ring broken',
    ),
    Answer(
        name='packed: every slot says used',
        clause=PACKED,
        packed=True,
        build=used(0, 1, 2, 3, 4, 5, 6, 7),
        linux='what is not a head: BAD_RING',
        ours='0 1, USED_NOT_A_HEAD, ring broken',
    ),
    Answer(
        name='packed, in order: a batch that ends with nobody',
        clause='In-order use of descriptors',
        packed=True,
        build=used(7),
        features=VERSION_1 | IN_ORDER,
        linux='takes every buffer that is out for a part of it, then BAD_RING',
        ours='0 1, USED_NOT_A_HEAD, ring broken',
    ),
)


# --------------------------------------------------------------------------------- what comes out


def outcome(case: Case, personality: int, packed: bool = False) -> str:
    """Fetch from the hostile ring and say what came of it."""
    ring = testing.Ring(
        packed=packed, features=case.features, personality=personality, memory=MEMORY
    )
    case.build(ring)
    begin = ring.device.last_avail
    for taken in range(case.fetches):
        try:
            found = ring.device.fetch()
        except RingError as error:
            return _refused(ring, error, begin, taken)
        if found is None:
            return NOTHING
    return f'{TAKEN}: {len(found.out)} out, {len(found.in_)} in'


def _refused(ring: testing.Ring, error: RingError, begin: int, taken: int) -> str:
    late = f' after {taken}' if taken else ''
    if ring.device.st[int(vring.V_BROKEN)]:
        assert ring.device.fetch() is None
        assert ring.device.st[int(vring.V_STATUS)] == 64, 'DEVICE_NEEDS_RESET'
        return f'{error.verdict}{late}, {BROKEN}'
    assert ring.device.last_avail == begin + taken
    for _ in range(2):  # the same bytes, the same answer
        with pytest.raises(RingError, match=re.escape(str(error))):
            ring.device.fetch()
    return f'{error.verdict} {_name(error)}{late}, {STUCK}'


def _name(error: RingError) -> str:
    return str(error).split(', ')[1].split(' ')[0]


def attach_outcome(case: Case, personality: int) -> str:
    """Attach a device to a ring that cannot be."""
    ring = testing.Ring(packed=case.packed, personality=personality, memory=MEMORY)
    case.build(ring)
    memory = ring.mem.copy()
    try:
        ring.device.attach()
    except RingError as error:
        device = ring.device
        assert device.fetch() is None
        assert device.use(0) == 0
        assert not device.signal()
        device.disable_notify()
        assert not device.enable_notify()
        assert (ring.mem == memory).all()
        return f'{error.verdict} {_name(error)}, {REFUSED}'
    return 'attached'


def answer_outcome(answer: Answer) -> str:
    """Reap what a hostile device answered to two chains."""
    ring = testing.Ring(packed=answer.packed, features=answer.features)
    for token in (0, 1):
        ring.driver.add(out=[(HEADER, 51)], token=token)
    answer.build(ring)
    tokens = ring.driver.reap()
    story = [' '.join(map(str, tokens))] if tokens else []
    if ring.driver.broken:
        assert ring.driver.get_buf() is None
        assert not ring.driver.kick()
        assert not ring.driver.interrupt()
        story += [ring.driver.verdict, 'ring broken']
    elif not tokens:
        assert not ring.driver.interrupt()
        story += ['nothing']
    return ', '.join(story)


def all_device_cases() -> list[tuple[Case, bool]]:
    """Every device case, with whether its ring is packed."""
    return [(case, False) for case in DEVICE] + [(case, True) for case in PACKED_DEVICE]


PERSONALITIES = {'kernel': KERNEL_VHOST, 'qemu': QEMU}
