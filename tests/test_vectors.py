"""Vectors worked out by hand, byte by byte, from the virtio text and the Linux sources.

Memory map of the pictures: request header 0x200000 (51 bytes), response 0x200040 (108), data page
0x300000, indirect table 0x400000; split ring of 8: descriptors 0x10000, avail 0x10080, used
0x11000 (so avail.ring 0x10084, used_event 0x10094, used.ring 0x11004, avail_event 0x11044); packed
ring of 8: slots 0x20000, driver event 0x20080, device event 0x20084.
"""

import numpy as np
import pytest

from sim import layout, scsi, testing, vring
from sim.testing import RingError

HEADER, RESPONSE, DATA, TABLE = 0x200000, 0x200040, 0x300000, 0x400000
READ = {"out": [(HEADER, 51)], "in_": [(RESPONSE, 108), (DATA, 4096)]}
WRITE = {"out": [(HEADER, 51), (DATA, 4096)], "in_": [(RESPONSE, 108)]}


def index(ring, address):
    """A 16-bit field of the ring."""
    return int.from_bytes(ring.read(address, 2), "little")


# -------------------------------------------------------------------------------------------- V1


@pytest.mark.parametrize(
    ("num", "desc", "avail", "used"),
    [(8, 128, (20, 22), (68, 70)), (128, 2048, (260, 262), (1028, 1030)),
     (256, 4096, (516, 518), (2052, 2054))],
)  # fmt: skip
def test_v1_sizes_of_a_ring(num, desc, avail, used):
    assert layout.desc_bytes(num) == desc
    assert (layout.avail_bytes(num, False), layout.avail_bytes(num, True)) == avail
    assert (layout.used_bytes(num, False), layout.used_bytes(num, True)) == used


def test_v1_legacy_layout():
    assert layout.vring_offsets(128, align=4096) == (0x800, 0x1000, 5126)
    assert layout.vring_offsets(256, align=4096) == (0x1000, 0x2000, 10246)


def test_v1_sizes_of_the_virtio_scsi_structures():
    assert (layout.REQ_SIZE, layout.RESP_SIZE) == (51, 108)


# -------------------------------------------------------------------------------------------- V2


def test_v2_request_header():
    ring = testing.Ring()
    ring.write(HEADER, b"\xff" * 64)
    tag = 0x1122334455667788
    scsi.write_request(ring.mem, None, 0, HEADER, 0, 0, tag, False, 0x1000, 8)
    ring.expect("""
        lun              0x200000: 01 00 40 00 00 00 00 00
        tag              0x200008: 88 77 66 55 44 33 22 11
        attr, prio, crn  0x200010: 00 00 00
        READ(10)         0x200013: 28 00 00 00 10 00 00 00 08 00
        padding          0x20001d: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
        not ours         0x200033: ff
    """)


CDBS = {
    "28 00 00 00 10 00 00 00 08 00": ("READ", 0x1000, 8),
    "2a 00 00 00 10 00 00 00 08 00": ("WRITE", 0x1000, 8),
    "2a 08 00 00 10 00 00 00 08 00": ("WRITE", 0x1000, 8),  # FUA
    "2a 18 00 00 10 00 00 00 08 00": ("WRITE", 0x1000, 8),  # DPO and FUA
    "88 00 00 00 00 00 00 00 10 00 00 00 00 08 00 00": ("READ", 0x1000, 8),
    "08 00 10 00 08 00": ("READ", 0x1000, 8),
    "08 1f ff ff 00 00": ("READ", 0x1FFFFF, 256),
    "a8 00 00 00 10 00 00 00 00 08 00 00": ("READ", 0x1000, 8),
}


@pytest.mark.parametrize("cdb", CDBS)
def test_v2_cdbs_are_read(cdb):
    ring = testing.Ring()
    ring.write(HEADER + 19, cdb)
    opcode = scsi.cdb_opcode(ring.mem, HEADER)
    kind = "READ" if scsi.is_read(opcode) else "WRITE" if scsi.is_write(opcode) else None
    lba, blocks = scsi.cdb_lba(ring.mem, HEADER), scsi.cdb_blocks(ring.mem, HEADER)
    assert (kind, lba, blocks) == CDBS[cdb]


# ---------------------------------------------------------------------------------- V3, V4 and V5


def test_v3_direct_read_on_a_fresh_ring():
    ring = testing.Ring()
    driver, device = ring.driver, ring.device
    driver.add(**READ, table=0)
    ring.expect("""
        desc[0] 0x10000: 00 00 20 00 00 00 00 00  33 00 00 00  01 00  01 00    NEXT
        desc[1] 0x10010: 40 00 20 00 00 00 00 00  6c 00 00 00  03 00  02 00    NEXT|WRITE
        desc[2] 0x10020: 00 00 30 00 00 00 00 00  00 10 00 00  02 00  03 00    WRITE, any next
        avail   0x10080: 00 00  01 00  00 00
    """)
    assert (driver.free_head, driver.num_free, driver.num_added) == (3, 5, 1)
    assert driver.avail_idx == 1
    assert driver.kick()

    device.disable_notify()
    chain = device.fetch()
    assert chain == testing.Chain(0, ((HEADER, 51),), ((RESPONSE, 108), (DATA, 4096)))
    assert (chain.out_bytes, chain.in_bytes, device.last_avail) == (51, 4204, 1)
    ring.expect("avail_event is written only when kicks are wanted again 0x11044: 00 00")
    assert device.fetch() is None
    assert not device.enable_notify()
    ring.expect("avail_event 0x11044: 01 00")

    device.use(chain, 0)
    ring.expect("""
        used    0x11000: 00 00  01 00
        used[0] 0x11004: 00 00 00 00  00 00 00 00
    """)
    assert device.signal()

    assert driver.reap() == [0]
    assert (driver.last_used, driver.num_free) == (1, 8)
    assert driver.free_list() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert driver.enable_cb()
    ring.expect("used_event 0x10094: 01 00")


def test_v3_the_first_signal_is_forced_whatever_used_event_says():
    ring = testing.Ring()
    ring.driver.add(**READ)
    ring.write(0x10094, "05 00")  # used_event: not yet
    ring.device.use(ring.device.fetch())
    assert ring.device.signal()


def test_v3_qemu_says_how_much_it_wrote():
    ring = testing.Ring()
    ring.driver.add(**READ, table=0)
    chain = ring.device.fetch()
    ring.device.use(chain, chain.in_bytes)
    ring.expect("used[0] 0x11004: 00 00 00 00  6c 10 00 00")


def test_v4_direct_write():
    ring = testing.Ring()
    ring.driver.add(**WRITE, table=0)
    ring.expect("""
        desc[0] 0x10000: 00 00 20 00 00 00 00 00  33 00 00 00  01 00  01 00
        desc[1] 0x10010: 00 00 30 00 00 00 00 00  00 10 00 00  01 00  02 00
        desc[2] 0x10020: 40 00 20 00 00 00 00 00  6c 00 00 00  02 00
    """)
    chain = ring.device.fetch()
    assert (chain.out_bytes, chain.in_bytes) == (4147, 108)


def test_v5_indirect_read():
    ring = testing.Ring()
    ring.driver.add(**READ, table=TABLE)
    ring.expect("""
        desc[0]  0x10000: 00 00 40 00 00 00 00 00  30 00 00 00  04 00           INDIRECT
        table[0] 0x400000: 00 00 20 00 00 00 00 00  33 00 00 00  01 00  01 00
        table[1] 0x400010: 40 00 20 00 00 00 00 00  6c 00 00 00  03 00  02 00
        table[2] 0x400020: 00 00 30 00 00 00 00 00  00 10 00 00  02 00          last: no NEXT
        avail    0x10080: 00 00  01 00  00 00
    """)
    assert (ring.driver.free_head, ring.driver.num_free) == (1, 7)
    chain = ring.device.fetch()
    assert chain == testing.Chain(0, ((HEADER, 51),), ((RESPONSE, 108), (DATA, 4096)))
    ring.device.use(chain)
    ring.expect("used 0x11000: 00 00  01 00  00 00 00 00  00 00 00 00")


@pytest.mark.parametrize(("table", "room"), [(None, 8), (0, 2)], ids=["indirect", "direct"])
def test_v5_how_many_requests_a_ring_of_eight_holds(table, room):
    ring = testing.Ring(num=8)
    for _ in range(room):
        ring.driver.add(**READ, table=table)
    before = ring.mem.copy()
    with pytest.raises(RingError, match="ENOSPC"):
        ring.driver.add(**READ, table=table)
    assert np.array_equal(ring.mem, before), "a refused request leaves no trace"


# -------------------------------------------------------------------------------------------- V6


def test_v6_order_of_the_free_list():
    ring = testing.Ring()
    driver, device = ring.driver, ring.device
    assert driver.free_list() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert driver.add(**READ, table=0) == 0
    assert driver.free_list() == [3, 4, 5, 6, 7]
    assert driver.add(**READ, table=0) == 3
    assert driver.free_list() == [6, 7]
    with pytest.raises(RingError, match="ENOSPC"):
        driver.add(**READ, table=0)
    a, b = device.fetch(), device.fetch()
    device.use(a)
    assert driver.reap() == [0]
    assert driver.free_list() == [0, 1, 2, 6, 7]
    device.use(b)
    assert driver.reap() == [3]
    assert driver.free_list() == [3, 4, 5, 0, 1, 2, 6, 7]
    assert driver.add(**READ, table=0) == 3
    ring.expect("desc[5]: its next names its successor in the free list 0x1005e: 00 00")
    assert driver.add(**READ, table=0) == 0
    ring.expect("desc[2] 0x1002e: 06 00")
    assert driver.free_list() == [6, 7]


def test_v6_the_other_way_round():
    ring = testing.Ring()
    for _ in range(2):
        ring.driver.add(**READ, table=0)
    a, b = ring.device.fetch(), ring.device.fetch()
    for chain in (b, a):
        ring.device.use(chain)
    assert ring.driver.reap() == [3, 0]
    assert ring.driver.free_list() == [0, 1, 2, 3, 4, 5, 6, 7]


# -------------------------------------------------------------------------------------------- V7


def test_v7_index_wrap():
    ring = testing.Ring()
    driver, device = ring.driver, ring.device
    ring.write(0x10082, "ff ff")  # avail.idx
    ring.write(0x11002, "ff ff")  # used.idx
    ring.write(0x11044, "ff ff")  # avail_event
    driver.avail_idx = driver.last_used = 0xFFFF
    driver.free_head, driver.num_free = 2, 6
    device.attach(0xFFFF)
    assert driver.add(**READ, table=TABLE) == 2
    ring.expect("""
        avail.idx      0x10082: 00 00
        avail.ring[7]  0x10092: 02 00
    """)
    assert driver.kick()
    chain = device.fetch()
    assert (chain.head, device.last_avail) == (2, 0)
    assert device.fetch() is None
    device.use(chain)
    ring.expect("""
        used.ring[7]   0x1103c: 02 00 00 00 00 00 00 00
        used.idx       0x11002: 00 00
    """)
    assert driver.reap() == [2]
    assert driver.last_used == 0
    driver.add(**READ, table=TABLE)
    ring.expect("the next one takes slot 0 0x10084: 02 00")


# -------------------------------------------------------------------------------------------- V8

# event, new, old, wanted
NEED_EVENT = [
    (0x0, 0x1, 0x0, True),  # first entry
    (0x0, 0x2, 0x1, False),  # already passed
    (0x5, 0x5, 0x3, False),  # entry 5 is not published yet
    (0x5, 0x6, 0x3, True),  # last of a batch
    (0x3, 0x4, 0x3, True),
    (0x2, 0x4, 0x3, False),  # one before the window
    (0x10, 0x11, 0x10, True),
    (0x0, 0x11, 0x10, False),  # stale event
    (0x7, 0x7, 0x7, False),  # empty window
    (0xFFFF, 0x0, 0xFFFF, True),  # wrap, exact hit
    (0x0, 0x0, 0xFFFF, False),  # wrap, not reached
    (0x0, 0x1, 0xFFFF, True),  # batch of 2 over the wrap
    (0xFFFF, 0x1, 0xFFFE, True),  # batch of 3 over the wrap, its middle
    (0xFFFE, 0x1, 0xFFFE, True),  # its first
    (0xFFFD, 0x1, 0xFFFE, False),  # one before the window
    (0x1, 0x1, 0xFFFE, False),  # one behind it
    (0x7FFF, 0x8000, 0x7FFF, True),  # the sign bit must not matter
    (0x8000, 0x8000, 0x7FFF, False),
    (0x8000, 0x7FFF, 0x0, False),
    (0x0, 0xFFFF, 0x0, True),  # maximal window
    (0xFFFF, 0xFFFF, 0x0, False),  # maximal window, not reached
    (0x0, 0x0, 0x1, False),  # a window of 65535 entries: all but 0
]


@pytest.mark.parametrize(("event", "new", "old", "wanted"), NEED_EVENT)
def test_v8_need_event(event, new, old, wanted):
    assert bool(vring.need_event(event, new, old)) is wanted
    window = {(old + i) & 0xFFFF for i in range((new - old) & 0xFFFF)}
    assert (event in window) is wanted


# ------------------------------------------------------------------------------------------- V13


def test_v13_kicks_of_a_batch():
    """Log of (what, avail.idx, avail_event, kick or what was seen)."""
    ring = testing.Ring(num=8)
    driver, device = ring.driver, ring.device
    log = []

    def note(what, result=None):
        log.append((what, index(ring, 0x10082), index(ring, 0x11044), result))

    def add(count):
        for _ in range(count):
            driver.add(**READ)

    def drain():
        device.disable_notify()
        while (chain := device.fetch()) is not None:
            device.use(chain)

    add(1)
    note("R0", driver.kick())
    drain()
    note("worker idle", device.enable_notify())
    add(3)
    note("R1..R3 plugged")
    note("R1..R3", driver.kick())
    device.disable_notify()
    assert [device.fetch().head for _ in range(3)] == [1, 2, 3]  # visible before the kick
    add(1)
    note("R4 while the worker runs", driver.kick())
    drain()
    note("worker idle", device.enable_notify())
    add(1)
    note("R5", driver.kick())
    assert log == [
        ("R0", 1, 0, True),
        ("worker idle", 1, 1, False),
        ("R1..R3 plugged", 4, 1, None),
        ("R1..R3", 4, 1, True),
        ("R4 while the worker runs", 5, 1, False),
        ("worker idle", 5, 5, False),
        ("R5", 6, 5, True),
    ]


def test_v13_the_look_back_saves_the_request_that_came_in_between():
    ring = testing.Ring(num=8)
    driver, device = ring.driver, ring.device
    driver.add(**READ)
    driver.kick()
    device.disable_notify()
    device.fetch()
    assert device.fetch() is None
    driver.add(**READ)  # published, and its kick decision falls, before the device asks for kicks
    assert not driver.kick()
    device.enable_notify_prepare()
    assert device.more_avail(), "without this look the request is lost"
    assert device.fetch().head == 1


# ------------------------------------------------------------------------------------------- V14


def test_v14_interrupts():
    """Log of (what, used.idx, signalled_used, used_event, result)."""
    ring = testing.Ring(num=8)
    driver, device = ring.driver, ring.device
    log = []

    def note(what, result):
        used_idx, used_event = index(ring, 0x11002), index(ring, 0x10094)
        log.append((what, used_idx, device.signalled_used, used_event, result))

    for _ in range(6):
        driver.add(**READ)
    chains = [device.fetch() for _ in range(6)]
    for chain in chains[:3]:
        device.use(chain)
    note("batch of 3", device.signal())
    assert driver.interrupt()
    driver.disable_cb()
    note("handler reaps", driver.reap())
    device.use(chains[3])
    note("1 more, handler still on", device.signal())
    note("enable", driver.enable_cb())
    driver.disable_cb()
    note("disable, now written", driver.reap())
    note("enable", driver.enable_cb())
    for chain in chains[4:]:
        device.use(chain)
    note("2 more", device.signal())
    assert log == [
        ("batch of 3", 3, 3, 0, True),
        ("handler reaps", 3, 3, 0, [0, 1, 2]),
        ("1 more, handler still on", 4, 4, 0, False),
        ("enable", 4, 4, 3, False),
        ("disable, now written", 4, 4, 0, [3]),
        ("enable", 4, 4, 4, True),
        ("2 more", 6, 6, 4, True),
    ]


def test_v14_a_full_lap_without_a_check_forces_the_next_interrupt():
    ring = testing.Ring(num=8)
    device = ring.device
    device.last_used, device.signalled_used, device.signalled_used_valid = 2, 3, 1
    ring.write(0x10094, "00 80")  # used_event far away
    for head in (0, 1):
        device.use(head)
    assert device.signalled_used_valid == 0
    assert device.signal()
    assert not device.signal()


def test_v14_without_event_idx_the_flag_decides():
    ring = testing.Ring(num=8, features=testing.VERSION_1)
    assert ring.device.signal()
    ring.driver.disable_cb()
    ring.expect("avail.flags 0x10080: 01 00")
    assert not ring.device.signal()
    ring.driver.enable_cb()
    assert ring.device.signal()


# ------------------------------------------------------------------------------------------- V16

# Target, LUN, and the first four bytes of the field that a Linux guest writes.
LUNS = [
    (0, 0, "01 00 40 00"),
    (5, 3, "01 05 40 03"),
    (5, 255, "01 05 40 ff"),
    (5, 256, "01 05 41 00"),
    (5, 300, "01 05 41 2c"),
    (5, 16383, "01 05 7f ff"),
]


@pytest.mark.parametrize(("target", "lun", "field"), LUNS)
def test_v16_luns(target, lun, field):
    ring = testing.Ring()
    scsi.write_request(ring.mem, None, 0, HEADER, target, lun, 1, False, 0, 8)
    ring.expect(f"lun 0x200000: {field} 00 00 00 00")
    assert scsi.lun_of(ring.mem, HEADER) == lun


@pytest.mark.parametrize(
    ("field", "lun"), [("01 05 00 03", 3), ("01 05 80 03", 3), ("01 05 01 00", 256)]
)
def test_v16_vhost_masks_and_does_not_check_the_method(field, lun):
    ring = testing.Ring()
    ring.write(HEADER, field)
    assert scsi.lun_of(ring.mem, HEADER) == lun


# ------------------------------------------------------------------------------------ V9 and V10


def packed_ring(**options):
    return testing.Ring(num=8, packed=True, personality=testing.QEMU, **options)


def test_v9_packed_direct_read_on_a_fresh_ring():
    ring = packed_ring()
    driver, device = ring.driver, ring.device
    assert driver.add(**READ, table=0) == 0
    ring.expect("""
        slot 0 0x20000: 00 00 20 00 00 00 00 00  33 00 00 00  00 00  81 00    AVAIL|NEXT
        slot 1 0x20010: 40 00 20 00 00 00 00 00  6c 00 00 00  00 00  83 00    AVAIL|WRITE|NEXT
        slot 2 0x20020: 00 00 30 00 00 00 00 00  00 10 00 00  00 00  82 00    AVAIL|WRITE
    """)
    assert (driver.avail_idx, driver.avail_wrap) == (3, 1)
    assert (driver.free_head, driver.num_free, driver.num_added) == (3, 5, 3)
    assert driver.kick(), "the device's event flags are ENABLE"

    chain = device.fetch()
    assert chain == testing.Chain(0, ((HEADER, 51),), ((RESPONSE, 108), (DATA, 4096)))
    device.use(chain, chain.in_bytes)
    ring.expect("""
        slot 0 0x20000: 00 00 20 00 00 00 00 00  6c 10 00 00  00 00  80 80    addr is as it was
        slot 1 0x20010: 40 00 20 00 00 00 00 00  6c 00 00 00  00 00  83 00    and so are these
        slot 2 0x20020: 00 00 30 00 00 00 00 00  00 10 00 00  00 00  82 00
    """)
    assert (device.last_used, device.used_wrap) == (3, 1)
    assert driver.reap() == [0]
    assert (driver.last_used, driver.used_length) == (3 | 1 << 15, 4204)

    driver.disable_cb()
    assert driver.enable_cb()
    ring.expect("driver event 0x20080: 03 80 02 00    off 3, wrap 1, DESC")
    driver.disable_cb()
    ring.expect("driver event 0x20080: 03 80 01 00    flags only")
    device.disable_notify()
    ring.expect("device event 0x20084: 00 00 01 00")
    assert not device.enable_notify()
    ring.expect("device event 0x20084: 03 80 02 00    asks for the next kick at 3, wrap 1")
    device.disable_notify()
    ring.expect("device event 0x20084: 03 80 01 00    off_wrap left stale")


def test_v10_packed_indirect_read():
    ring = packed_ring()
    driver, device = ring.driver, ring.device
    driver.add(**READ, table=TABLE)
    ring.expect("""
        slot 0   0x20000:  00 00 40 00 00 00 00 00  30 00 00 00  00 00  84 00    INDIRECT|AVAIL
        table[0] 0x400000: 00 00 20 00 00 00 00 00  33 00 00 00  00 00  00 00    no NEXT in here
        table[1] 0x400010: 40 00 20 00 00 00 00 00  6c 00 00 00  00 00  02 00
        table[2] 0x400020: 00 00 30 00 00 00 00 00  00 10 00 00  00 00  02 00
    """)
    chain = device.fetch()
    assert chain == testing.Chain(0, ((HEADER, 51),), ((RESPONSE, 108), (DATA, 4096)))
    device.use(chain, 0x106C)
    ring.expect("slot 0   0x20008: 6c 10 00 00  00 00  80 80")
    driver.reap()
    assert (device.last_used, driver.last_used) == (1, 1 | 1 << 15)


# ------------------------------------------------------------------------------------------- V11


def three_requests_over_the_end():
    """A used and reaped, B in slots 3..5, C in slots 6, 7 and 0; B and C fetched."""
    ring = packed_ring()
    driver, device = ring.driver, ring.device
    assert (driver.add(**READ, table=0), driver.free_list()) == (0, [3, 4, 5, 6, 7])
    assert (driver.add(**READ, table=0), driver.free_list()) == (3, [6, 7])
    ring.expect("B's flags 0x2003e: 81 00\n 0x2004e: 83 00\n 0x2005e: 82 00")
    device.use(device.fetch())
    assert (device.last_used, device.used_wrap) == (3, 1)
    assert driver.reap() == [0]
    assert (driver.last_used, driver.free_list()) == (0x8003, [0, 1, 2, 6, 7])
    assert driver.add(**READ, table=0) == 0
    assert driver.free_list() == [6, 7]
    ring.expect("C's flags 0x2006e: 81 00\n 0x2007e: 83 00\n and in slot 0 0x2000e: 02 80")
    assert (driver.avail_idx, driver.avail_wrap) == (1, 0)
    b = device.fetch()
    assert (b.head, device.last_avail, device.avail_wrap) == (3, 6, 1)
    c = device.fetch()
    assert (c.head, device.last_avail, device.avail_wrap) == (0, 1, 0)
    assert device.fetch() is None, "slot 1 holds what A left there: AVAIL 1 is not this lap's"
    ring.expect("A's stale flags 0x2001e: 83 00")
    return ring, b, c


def test_v11_packed_wrap_in_order():
    ring, b, c = three_requests_over_the_end()
    device, driver = ring.device, ring.driver
    device.signal()
    assert device.signalled_used_valid == 1
    device.use(b)
    ring.expect("slot 3 0x2003c: 03 00 80 80")
    assert (device.last_used, device.used_wrap) == (6, 1)
    device.use(c)
    ring.expect("slot 6 0x2006c: 00 00 80 80")
    assert (device.last_used, device.used_wrap) == (1, 0)
    assert device.signalled_used_valid == 0, "after the wrap the next check says yes"
    assert driver.reap() == [3, 0]
    assert driver.last_used == 1  # wrap 0

    driver.add(**READ, table=TABLE)
    ring.expect("slot 1, wrap 0 0x2001e: 04 80    INDIRECT|USED")
    chain = device.fetch()
    device.use(chain)
    ring.expect("slot 1 0x2001e: 00 00    used in wrap 0")
    assert driver.reap() == [chain.head]


def test_v11_packed_wrap_the_other_way_round():
    """A used element lands on the next used slot, whoever's descriptors stood there."""
    ring, b, c = three_requests_over_the_end()
    ring.device.use(c)
    ring.expect("slot 3 0x2003c: 00 00 80 80")
    assert (ring.device.last_used, ring.device.used_wrap) == (6, 1)
    ring.device.use(b)
    ring.expect("slot 6 0x2006c: 03 00 80 80")
    assert (ring.device.last_used, ring.device.used_wrap) == (1, 0)
    assert ring.driver.reap() == [0, 3]


def test_v11_a_device_that_forgot_to_flip_sees_nothing():
    ring = packed_ring()
    ring.write_desc(0x20000, HEADER, 51, 0x8002)
    ring.device.avail_wrap = 0
    assert ring.device.more_avail()
    ring.device.avail_wrap = 1
    assert not ring.device.more_avail()


# ------------------------------------------------------------------------------------------- V12

# off_wrap of the device's event structure, next slot, wrap, added, kick
PACKED_KICKS = [
    (0x8000, 3, 1, 3, True),
    (0x8002, 3, 1, 3, True),
    (0x8003, 3, 1, 3, False),
    (0x8005, 1, 0, 3, False),
    (0x8006, 1, 0, 3, True),
    (0x8007, 1, 0, 3, True),
    (0x0000, 1, 0, 3, True),
    (0x0001, 1, 0, 3, False),
    (0x8000, 0, 0, 8, True),
    (0x8007, 0, 0, 8, True),
    (0x0000, 0, 0, 8, False),
]


@pytest.mark.parametrize(("off_wrap", "at", "wrap", "added", "wanted"), PACKED_KICKS)
def test_v12_packed_kick_decision(off_wrap, at, wrap, added, wanted):
    ring = packed_ring()
    for flags, decision in ((2, wanted), (0, True), (1, False)):  # DESC, ENABLE, DISABLE
        ring.driver.avail_idx, ring.driver.avail_wrap = at, wrap
        ring.driver.num_added = added
        ring.write(0x20084, off_wrap.to_bytes(2, "little") + bytes([flags, 0]))
        assert ring.driver.kick() is decision
    # The window read as a set of slots with their wraps: the last `added` before (at, wrap).
    slots = {((at - i) % 8, wrap if at - i >= 0 else 1 - wrap) for i in range(1, added + 1)}
    assert ((off_wrap & 0x7FFF, off_wrap >> 15) in slots) is wanted


# ------------------------------------------------------------------------------------------- V21

# Packed: last_avail | wrap << 15, with used | wrap << 15 in the high half.
BASES = [(0x80008003, (3, 1), (0, 1)), (0x80060001, (1, 0), (6, 1)), (0x80008000, (0, 1), (0, 1))]


@pytest.mark.parametrize(("base", "avail", "used"), BASES)
def test_v21_packed_vring_base(base, avail, used):
    ring = packed_ring()
    ring.device.attach(base)
    assert (ring.device.last_avail, ring.device.avail_wrap) == avail
    assert (ring.device.last_used, ring.device.used_wrap) == used


@pytest.mark.parametrize("base", [0x80088000, 0x80008008, 0x80010002, -1, 1 << 32])
def test_v21_packed_vring_base_that_cannot_be(base):
    with pytest.raises(RingError, match="BAD_BASE"):
        packed_ring().device.attach(base)


def test_v21_split_vring_base():
    """Stopped with 8 of 10 fetched and all 8 used; the next one goes on with entries 8 and 9."""
    ring = testing.Ring(num=128)
    for _ in range(10):
        ring.driver.add(**READ)
    for _ in range(8):
        ring.device.use(ring.device.fetch())
    other = testing.Ring(num=128)
    other.mem[:] = ring.mem
    other.device.attach(8)
    assert (other.device.last_avail, other.device.last_used) == (8, 8)
    assert [other.device.fetch().head, other.device.fetch().head] == [8, 9]
    assert other.device.fetch() is None
    other.device.use(8)
    assert other.device.signal(), "the first signal is forced"


def test_v21_a_kick_is_stranded_where_the_device_does_not_look_by_itself():
    """Entries 8 and 9 were kicked for, but nobody was there; entry 10 does not kick any more."""
    ring = testing.Ring(num=128)
    driver, device = ring.driver, ring.device
    for _ in range(8):
        driver.add(**READ)
    driver.kick()
    device.disable_notify()
    while (chain := device.fetch()) is not None:
        device.use(chain)
    assert not device.enable_notify()
    assert [driver.add(**READ) for _ in range(2)] == [8, 9]
    assert driver.kick()
    device.attach(8)
    driver.add(**READ)
    assert not driver.kick()
    assert device.fetch().head == 8


# ------------------------------------------------------------------------------------------- V25

IN_ORDER = testing.FEATURES | testing.IN_ORDER


def test_v25_in_order_split_one_element_for_a_batch():
    """Finished second, first, third: what is published when, and where."""
    ring = testing.Ring(num=8, features=IN_ORDER, batched=True)
    for _ in range(3):
        ring.driver.add(**READ)
    first, second, third = (ring.device.fetch() for _ in range(3))
    assert ring.device.use(second, 22) == 0
    ring.expect("used 0x11000: 00 00  00 00")
    assert ring.device.use(first, 11) == 2
    ring.expect("""
        used.idx         0x11002: 02 00
        used.ring[0]     0x11004: 01 00 00 00  16 00 00 00    the head and the length of the second
        used.ring[1]     0x1100c: 00 00 00 00  00 00 00 00    untouched
    """)
    assert ring.device.use(third, 33) == 1
    ring.expect("""
        used.idx         0x11002: 03 00
        used.ring[2]     0x11014: 02 00 00 00  21 00 00 00
    """)
    assert ring.driver.reap() == [0, 1, 2]


def test_v25_in_order_split_all_at_once():
    ring = testing.Ring(num=8, features=IN_ORDER, batched=True)
    for _ in range(4):
        ring.driver.add(**READ)
    chains = [ring.device.fetch() for _ in range(4)]
    for chain in (chains[2], chains[1]):
        assert ring.device.use(chain, 7) == 0
    assert ring.device.use(chains[0], 5) == 3
    ring.expect("used.idx and ring[0] = the third 0x11000: 00 00  03 00  02 00 00 00  07 00 00 00")
    assert ring.device.use(chains[3]) == 1
    ring.expect("the next one goes to ring[3] 0x1101c: 03 00 00 00")
    assert ring.driver.reap() == [0, 1, 2, 3]


def test_v25_in_order_split_one_element_each():
    ring = testing.Ring(num=8, features=IN_ORDER)
    for _ in range(3):
        ring.driver.add(**READ)
    chains = [ring.device.fetch() for _ in range(3)]
    assert [ring.device.use(chain) for chain in reversed(chains)] == [0, 0, 3]
    ring.expect("""
        used.idx     0x11002: 03 00
        used.ring[0] 0x11004: 00 00 00 00
        used.ring[1] 0x1100c: 01 00 00 00
        used.ring[2] 0x11014: 02 00 00 00
    """)
    assert ring.driver.reap() == [0, 1, 2]


@pytest.mark.parametrize("batched", [True, False])
def test_v25_in_order_packed(batched):
    ring = packed_ring(features=IN_ORDER, batched=batched)
    for _ in range(3):
        ring.driver.add(**READ)
    chains = [ring.device.fetch() for _ in range(3)]
    assert [ring.device.use(chain) for chain in reversed(chains)] == [0, 0, 3]
    if batched:
        ring.expect("slot 0, the id of the last 0x2000c: 02 00 80 80\n slot 1 0x2001e: 84 00")
    else:
        ring.expect("0x2000c: 00 00 80 80\n 0x2001c: 01 00 80 80\n 0x2002c: 02 00 80 80")
    assert (ring.device.last_used, ring.device.used_wrap) == (3, 1)
    assert ring.driver.reap() == [0, 1, 2]


@pytest.mark.parametrize(
    ("packed", "index", "wrap", "data"),
    [(False, 4, 1, 0x00040002), (False, 0x8005, 1, 0x80050002),
     (True, 3, 1, 0x80030002), (True, 1, 0, 0x00010002)],
)  # fmt: skip
def test_v25_notification_data(packed, index, wrap, data):
    ring = testing.Ring(packed=packed, features=testing.FEATURES | testing.NOTIFICATION_DATA)
    ring.driver.avail_idx, ring.driver.avail_wrap = index, wrap
    assert ring.driver.notification_data(vq=2) == data


# ------------------------------------------------------------------------------------------- V23


def chain_of(ring, *descriptors):
    """Publish head 0 of a chain written by hand: (address, length, flags, next) per descriptor."""
    for i, descriptor in enumerate(descriptors):
        ring.write_desc(0x10000 + 16 * i, *descriptor)
    ring.write(0x10080, "00 00 01 00 00 00")


NEXT, WRITABLE, INDIRECT = 1, 2, 4
MALFORMED = {
    "next out of range": ([(HEADER, 51, NEXT, 9)], "EINVAL"),
    "a loop": ([(HEADER, 51, NEXT, 1), (DATA, 512, NEXT, 0)], "EINVAL"),
    "readable behind writable": (
        [(RESPONSE, 108, WRITABLE | NEXT, 1), (HEADER, 51, 0, 0)], "EINVAL"
    ),
    "table length no multiple of 16": ([(TABLE, 0x31, INDIRECT, 0)], "EINVAL"),
    "a table in a table": ([(TABLE + 0x100, 0x30, INDIRECT, 0)], "EINVAL"),
    "65537 entries": ([(TABLE, 0x100010, INDIRECT, 0)], "E2BIG"),
    "a buffer outside memory": ([(0x7FFFFF0000000000, 51, 0, 0)], "EFAULT"),
    "a buffer at a negative address": ([(-4096, 51, 0, 0)], "EFAULT"),
    "a buffer that leaves memory": ([(0x5FFFF0, 51, 0, 0)], "EFAULT"),
    "a table outside memory": ([(0x7FFFFF0000000000, 0x30, INDIRECT, 0)], "EFAULT"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_v23_malformed_chains(case):
    descriptors, error = MALFORMED[case]
    ring = testing.Ring(memory=0x600000)  # the longest table lies in memory
    ring.write_desc(TABLE + 0x100, TABLE, 16, INDIRECT, 0)
    chain_of(ring, *descriptors)
    for _ in range(2):  # last_avail is not moved: the queue is stuck on this head
        with pytest.raises(RingError, match=error):
            ring.device.fetch()
        assert ring.device.last_avail == 0
    ring.expect("no used entry, no reply 0x11000: 00 00 00 00 00 00 00 00")


def test_v23_head_out_of_range():
    ring = testing.Ring()
    ring.write(0x10080, "00 00 01 00 08 00")
    with pytest.raises(RingError, match="EINVAL"):
        ring.device.fetch()


def test_v23_avail_idx_runs_away():
    ring = testing.Ring()
    ring.write(0x10082, "09 00")
    with pytest.raises(RingError, match="EINVAL"):
        ring.device.fetch()


def test_v23_vhost_reads_a_table_in_sequence_whatever_next_says():
    ring = testing.Ring()
    ring.write_desc(TABLE, HEADER, 51, NEXT, 2)
    ring.write_desc(TABLE + 16, RESPONSE, 108, WRITABLE, 0)
    ring.write_desc(TABLE + 32, DATA, 512, NEXT, 1)
    chain_of(ring, (TABLE, 48, INDIRECT, 0))
    assert ring.device.fetch() == testing.Chain(0, ((HEADER, 51),), ((RESPONSE, 108),))


PACKED_MALFORMED = {
    "a chain that goes round": ([(HEADER, 51, 0x81, 0)] * 8, "LOOP"),
    "readable behind writable": (
        [(RESPONSE, 108, 0x83, 0), (HEADER, 51, 0x80, 0)], "BAD_ORDER"
    ),
    "buffer id out of range": ([(HEADER, 51, 0x80, 8)], "BAD_BUFFER_ID"),
    "zero length": ([(HEADER, 0, 0x80, 0)], "ZERO_LENGTH"),
    "outside memory": ([(1 << 63, 51, 0x80, 0)], "BAD_BUFFER_ADDRESS"),
    "table length no multiple of 16": ([(TABLE, 0x31, 0x84, 0)], "BAD_TABLE_LENGTH"),
    "table outside memory": ([(0x7FFFFF0000000000, 0x30, 0x84, 0)], "BAD_TABLE_ADDRESS"),
}  # fmt: skip


@pytest.mark.parametrize("case", PACKED_MALFORMED)
def test_v23_malformed_packed_chains_break_the_device(case):
    descriptors, verdict = PACKED_MALFORMED[case]
    ring = packed_ring()
    for i, descriptor in enumerate(descriptors):
        ring.write_desc(0x20000 + 16 * i, *descriptor)
    with pytest.raises(RingError) as caught:
        ring.device.fetch()
    assert caught.value.verdict == verdict
    assert ring.device.broken
    assert ring.device.status == 64, "DEVICE_NEEDS_RESET"
    assert ring.device.fetch() is None


def test_v23_qemu_follows_next_in_a_table():
    ring = testing.Ring(personality=testing.QEMU)
    ring.write_desc(TABLE, HEADER, 51, NEXT, 2)
    ring.write_desc(TABLE + 16, RESPONSE, 108, WRITABLE, 0)
    ring.write_desc(TABLE + 32, DATA, 512, NEXT, 1)
    chain_of(ring, (TABLE, 48, INDIRECT, 0))
    assert ring.device.fetch() == testing.Chain(0, ((HEADER, 51), (DATA, 512)), ((RESPONSE, 108),))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("ident", "verdict"), [(8, "USED_ID_RANGE"), (1, "USED_NOT_A_HEAD")])
def test_v23_a_device_that_gives_back_what_it_does_not_have(packed, ident, verdict):
    """As Linux: the ring is broken, and nothing comes from it any more."""
    ring = testing.Ring(packed=packed)
    ring.driver.add(**READ)
    if packed:
        ring.write_desc(0x20000, HEADER, 0, 0x8080, ident)
    else:
        ring.write(0x11000, bytes([0, 0, 1, 0, ident, 0, 0, 0]))
    assert ring.driver.get_buf() is None
    assert ring.driver.broken
    assert ring.driver.verdict == verdict
    with pytest.raises(RingError, match="EIO"):
        ring.driver.add(**READ)
