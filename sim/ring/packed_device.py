"""The packed ring, device side: QEMU's hw/virtio/virtio.c, the functions named *_packed.

The kernel's vhost has no packed ring: with KERNEL_VHOST the algorithm is QEMU's and only the habits
are the kernel's (notifications are not turned off twice). sim.vring has the contract, the barriers'
letters and the buffer list, sim.ring.packed_driver how the two sides walk round the ring.
"""

import numpy as np

from sim.jit import kernel
from sim.layout import (
    DESC_LEN,
    DESC_SIZE,
    EVENT_F_DESC,
    EVENT_F_DISABLE,
    EVENT_F_ENABLE,
    EVENT_FLAGS,
    EVENT_STRUCT_SIZE,
    F_AVAIL,
    F_INDIRECT,
    F_NEXT,
    F_USED,
    PACKED_FLAGS,
    PACKED_ID,
    RING_SIZE_MAX,
    USED_F_NO_NOTIFY,
)
from sim.memory import load16, load32, load64, store16, store32, touch_load, touch_store
from sim.ring import order
from sim.ring.common import (
    BAD_BASE,
    BAD_BUFFER_ID,
    BAD_RING_ADDRESS,
    BAD_RING_ALIGNMENT,
    BAD_RING_SIZE,
    BAD_TABLE_ADDRESS,
    BAD_TABLE_LENGTH,
    EMPTY,
    KERNEL_VHOST,
    LOOP,
    O_COUNT,
    O_FILLED,
    O_ID,
    O_LENGTH,
    SOUND,
    T_COUNT,
    TOO_MANY_IN_FLIGHT,
    V_AVAIL,
    V_AVAIL_WRAP,
    V_BATCHED,
    V_DESC,
    V_EVENT_IDX,
    V_IN_ORDER,
    V_INUSE,
    V_LAST_AVAIL,
    V_LAST_USED,
    V_MEMORY_SIZE,
    V_NUM,
    V_PERSONALITY,
    V_SIGNALLED_USED,
    V_SIGNALLED_USED_VALID,
    V_USED,
    V_USED_FLAGS,
    V_USED_WRAP,
    clear_buffers,
    entry,
    in_memory,
    need_event,
    refuse,
    take_buffer,
    write_event_flags,
    write_off_wrap,
)

u64 = np.uint64

WRAP = 15  # the bit of an index word that holds the wrap counter
INDEX = 0x7FFF


@kernel
def check_areas(mem, num, desc, driver_event, device_event):
    """Are the three areas where a ring of `num` descriptors may be? A verdict."""
    if num < 1 or num > RING_SIZE_MAX:
        return BAD_RING_SIZE
    if driver_event & 3 or device_event & 3:
        return BAD_RING_ALIGNMENT
    sound = (
        in_memory(mem.size, desc, 16 * num)
        and in_memory(mem.size, driver_event, EVENT_STRUCT_SIZE)
        and in_memory(mem.size, device_event, EVENT_STRUCT_SIZE)
    )
    return SOUND if sound else BAD_RING_ADDRESS


@kernel
def device_init(mem, st, v, base):
    """virtio_queue_packed_set_last_avail_idx(): both indices with their wraps; a verdict.

    `base` is what VHOST_SET_VRING_BASE carries: last_avail_idx in the low half, used_idx in the
    high one, each with its wrap counter in bit 15.
    """
    num = st[v + V_NUM]
    avail, used = base & 0xFFFF, (base >> 16) & 0xFFFF
    inuse = (avail & INDEX) - (used & INDEX)
    if avail >> WRAP != used >> WRAP:
        inuse += num
    sound = 0 <= base <= 0xFFFFFFFF and avail & INDEX < num and used & INDEX < num
    if not sound or inuse < 0 or inuse > num:
        return BAD_BASE
    st[v + V_LAST_AVAIL] = avail & INDEX
    st[v + V_AVAIL_WRAP] = avail >> WRAP
    st[v + V_LAST_USED] = used & INDEX
    st[v + V_USED_WRAP] = used >> WRAP
    st[v + V_INUSE] = inuse
    return SOUND


@kernel(inline=True)
def in_flight(st, v):
    """Descriptors taken and not yet used (QEMU's inuse)."""
    return st[v + V_INUSE]


@kernel(inline=True)
def _is_available(flags, wrap):
    """is_desc_avail()"""
    avail = 1 if flags & F_AVAIL else 0
    return (flags & F_USED != 0) != (avail != 0) and avail == wrap


@kernel(inline=True)
def more_avail(mem, lines, st, v, core):
    """virtio_queue_packed_empty(), negated (after barrier C): is the next slot available?"""
    at = u64(st[v + V_DESC]) + DESC_SIZE * u64(st[v + V_LAST_AVAIL]) + PACKED_FLAGS
    touch_load(lines, core, at, 2)
    return _is_available(load16(mem, at), st[v + V_AVAIL_WRAP])


@kernel(inline=True)
def _walk_table(mem, lines, st, v, core, buffers, table, table_bytes):
    """A table's entries are one after the other, as many as its length says; a verdict."""
    if table_bytes == 0 or table_bytes % 16:
        return BAD_TABLE_LENGTH
    if not in_memory(st[v + V_MEMORY_SIZE], table, table_bytes):
        return BAD_TABLE_ADDRESS
    for i in range(table_bytes // 16):
        at = u64(table) + DESC_SIZE * u64(i)
        touch_load(lines, core, at, 16)
        flags, length = load16(mem, at + PACKED_FLAGS), load32(mem, at + DESC_LEN)
        verdict = take_buffer(st, v, buffers, load64(mem, at), length, flags)
        if verdict:
            return verdict
    return SOUND


@kernel(inline=True)
def _collect(mem, lines, st, v, core, buffers):
    """The descriptor loop of virtqueue_packed_pop().

    Returns buffer id and number of slots, or a verdict and 0 slots.
    """
    num, index, count = st[v + V_NUM], st[v + V_LAST_AVAIL], 0
    while True:
        at = u64(st[v + V_DESC]) + DESC_SIZE * u64(index)
        touch_load(lines, core, at, 16)
        flags, address = load16(mem, at + PACKED_FLAGS), load64(mem, at)
        length, buffer_id = load32(mem, at + DESC_LEN), load16(mem, at + PACKED_ID)
        count += 1
        if count == 1 and flags & F_INDIRECT:
            verdict = _walk_table(mem, lines, st, v, core, buffers, address, length)
            flags = 0
        else:
            verdict = take_buffer(st, v, buffers, address, length, flags)
        if verdict == SOUND and count > num:
            verdict = LOOP
        if verdict == SOUND and flags & F_NEXT == 0:
            if buffer_id < num:
                return buffer_id, count
            verdict = BAD_BUFFER_ID
        if verdict:
            return verdict, 0
        index = index + 1 if index + 1 < num else 0


@kernel(inline=True)
def fetch(mem, lines, st, v, core, buffers):
    """virtqueue_packed_pop(): the next available chain into the buffer list."""
    if not more_avail(mem, lines, st, v, core):
        return EMPTY
    # Barrier A: the head's flags were read before the rest of the chain.
    if st[v + V_INUSE] >= st[v + V_NUM]:
        return refuse(st, v, TOO_MANY_IN_FLIGHT)
    clear_buffers(st, buffers)
    buffer_id, count = _collect(mem, lines, st, v, core, buffers)
    if count == 0:
        return refuse(st, v, buffer_id)
    slot = st[v + V_LAST_AVAIL]
    if st[v + V_IN_ORDER]:
        order.note(st, v, slot, buffer_id, count)
    else:
        st[entry(v, buffer_id) + T_COUNT] = count
    st[v + V_INUSE] += count
    slot += count
    if slot >= st[v + V_NUM]:
        slot -= st[v + V_NUM]
        st[v + V_AVAIL_WRAP] ^= 1
    st[v + V_LAST_AVAIL] = slot
    return buffer_id


@kernel(inline=True)
def _write_used(mem, lines, st, v, core, slot, buffer_id, length):
    """virtqueue_packed_fill_desc(): id and len, then the flags (barrier B).

    QEMU sets AVAIL and USED only, not WRITE. A slot before used_idx lies in the next lap.
    """
    at = u64(st[v + V_DESC]) + DESC_SIZE * u64(slot)
    touch_store(lines, core, at + DESC_LEN, 6)
    store16(mem, at + PACKED_ID, buffer_id)
    store32(mem, at + DESC_LEN, length)
    wrap = st[v + V_USED_WRAP] if slot >= st[v + V_LAST_USED] else 1 - st[v + V_USED_WRAP]
    touch_store(lines, core, at + PACKED_FLAGS, 2)
    store16(mem, at + PACKED_FLAGS, F_AVAIL | F_USED if wrap else 0)


@kernel(inline=True)
def _step_used_idx(st, v, count):
    """used_idx moves past `count` slots; after a wrap the next notify check says yes."""
    st[v + V_INUSE] -= count
    index = st[v + V_LAST_USED] + count
    if index >= st[v + V_NUM]:
        index -= st[v + V_NUM]
        st[v + V_USED_WRAP] ^= 1
        st[v + V_SIGNALLED_USED_VALID] = 0
    st[v + V_LAST_USED] = index


@kernel(inline=True)
def add_used(mem, lines, st, v, core, buffer_id, length):
    """virtqueue_push(): give a buffer back; how many became visible.

    In order, what finished early waits (virtqueue_ordered_fill, virtqueue_ordered_flush).
    """
    if st[v + V_IN_ORDER]:
        return _add_used_in_order(mem, lines, st, v, core, buffer_id, length)
    words = entry(v, buffer_id)
    count = st[words + T_COUNT]
    if count == 0:
        return order.not_in_flight(st, v)
    st[words + T_COUNT] = 0
    _write_used(mem, lines, st, v, core, st[v + V_LAST_USED], buffer_id, length)
    _step_used_idx(st, v, count)
    return 1


@kernel(inline=True)
def _add_used_in_order(mem, lines, st, v, core, buffer_id, length):
    """All that can go now; the first descriptor is written last, so that none is seen before it."""
    first = st[v + V_LAST_USED]
    if not order.fill(st, v, first, st[v + V_INUSE], buffer_id, length):
        return 0
    slot, slots, count = first, np.int64(0), 0
    first_id, first_length = np.int64(0), np.int64(0)
    while slots < st[v + V_INUSE] and st[entry(v, slot) + O_FILLED]:
        words = entry(v, slot)
        if count == 0 or st[v + V_BATCHED]:
            first_id, first_length = st[words + O_ID], st[words + O_LENGTH]
        else:
            _write_used(mem, lines, st, v, core, slot, st[words + O_ID], st[words + O_LENGTH])
        order.release(st, v, slot)
        slots += st[words + O_COUNT]
        slot = order.after(st, v, slot)
        count += 1
    if count:
        _write_used(mem, lines, st, v, core, first, first_id, first_length)
        _step_used_idx(st, v, slots)
    return count


@kernel(inline=True)
def signal_needed(mem, lines, st, v, core):
    """virtio_packed_should_notify(): barrier D, then does the driver want an interrupt?"""
    at = u64(st[v + V_AVAIL])
    touch_load(lines, core, at + EVENT_FLAGS, 2)
    flags = load16(mem, at + EVENT_FLAGS)
    touch_load(lines, core, at, 2)
    off_wrap = load16(mem, at)
    old = st[v + V_SIGNALLED_USED]
    valid = st[v + V_SIGNALLED_USED_VALID]
    new = st[v + V_LAST_USED]
    st[v + V_SIGNALLED_USED] = new
    st[v + V_SIGNALLED_USED_VALID] = 1
    if flags == EVENT_F_DISABLE:
        return False
    if flags == EVENT_F_ENABLE or not valid:
        return True
    event = off_wrap & INDEX
    if off_wrap >> WRAP != st[v + V_USED_WRAP]:
        event -= st[v + V_NUM]
    return need_event(event, new, old)


@kernel(inline=True)
def disable_notify(mem, lines, st, v, core):
    """virtio_queue_packed_set_notification(0); the kernel's habit is not to do it twice."""
    if st[v + V_USED_FLAGS] & USED_F_NO_NOTIFY and st[v + V_PERSONALITY] == KERNEL_VHOST:
        return
    st[v + V_USED_FLAGS] |= USED_F_NO_NOTIFY
    at = u64(st[v + V_USED])
    touch_load(lines, core, at, EVENT_STRUCT_SIZE)
    write_event_flags(mem, lines, core, at, EVENT_F_DISABLE)


@kernel(inline=True)
def enable_notify(mem, lines, st, v, core):
    """virtio_queue_packed_set_notification(1), up to barrier C: where first, then the flags.

    False: notifications were on, and with the kernel's habits nothing was done.
    """
    if st[v + V_USED_FLAGS] & USED_F_NO_NOTIFY == 0 and st[v + V_PERSONALITY] == KERNEL_VHOST:
        return False
    st[v + V_USED_FLAGS] &= ~USED_F_NO_NOTIFY
    at = u64(st[v + V_USED])
    touch_load(lines, core, at, EVENT_STRUCT_SIZE)
    if st[v + V_EVENT_IDX]:
        off_wrap = st[v + V_AVAIL_WRAP] << WRAP | st[v + V_LAST_AVAIL]
        write_off_wrap(mem, lines, core, at, off_wrap)
        write_event_flags(mem, lines, core, at, EVENT_F_DESC)
    else:
        write_event_flags(mem, lines, core, at, EVENT_F_ENABLE)
    return True
