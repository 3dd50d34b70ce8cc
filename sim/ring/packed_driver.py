"""The packed ring, driver side: Linux's drivers/virtio/virtio_ring.c, the functions named *_packed.

sim.vring has the contract, the barriers' letters and the buffer list.

Each side walks round the ring with a wrap counter that starts at 1 and flips where the ring ends. A
descriptor is available when its AVAIL bit equals the driver's counter and its USED bit does not; it
is used when both equal the device's. A chain lies in consecutive slots; the device writes one used
descriptor for it, at its own next slot, and both sides then skip as many slots as the chain had.
Chains are known by buffer id, taken from the last descriptor.
"""

import numpy as np

from sim.jit import kernel
from sim.layout import (
    DESC_LEN,
    DESC_SIZE,
    EIO,
    ENOSPC,
    EVENT_F_DESC,
    EVENT_F_DISABLE,
    EVENT_F_ENABLE,
    EVENT_FLAGS,
    EVENT_STRUCT_SIZE,
    F_AVAIL,
    F_INDIRECT,
    F_NEXT,
    F_USED,
    F_WRITE,
    PACKED_FLAGS,
    PACKED_ID,
)
from sim.memory import load16, load32, store16, store32, store64, touch_load, touch_store
from sim.ring import order
from sim.ring.common import (
    B_ENTRIES,
    B_IN,
    B_OUT,
    D_AVAIL,
    D_AVAIL_FLAGS,
    D_AVAIL_IDX,
    D_AVAIL_WRAP,
    D_BATCH_ID,
    D_BATCH_LENGTH,
    D_BROKEN,
    D_DESC,
    D_EVENT_IDX,
    D_EVENT_TRIGGERED,
    D_FREE_HEAD,
    D_IN_ORDER,
    D_INDIRECT,
    D_LAST_USED,
    D_NUM,
    D_NUM_ADDED,
    D_NUM_FREE,
    D_USED,
    D_USED_LENGTH,
    E_BYTES,
    E_COUNT,
    E_LAST,
    E_NEXT,
    E_TOKEN,
    EMPTY,
    NO_BATCH,
    ONE,
    TWO,
    USED_ID_RANGE,
    USED_NOT_A_HEAD,
    bad_ring,
    extra,
    need_event,
    write_event_flags,
    write_off_wrap,
)

u64 = np.uint64

WRAP = 15  # the bit of an index word that holds the wrap counter
INDEX = 0x7FFF


@kernel(inline=True)
def _write_body(mem, lines, core, at, address, length, buffer_id):
    """All of a descriptor but its flags."""
    touch_store(lines, core, at, 14)
    store64(mem, at, address)
    store32(mem, at + DESC_LEN, length)
    store16(mem, at + PACKED_ID, buffer_id)


@kernel(inline=True)
def _write_flags(mem, lines, core, at, flags):
    touch_store(lines, core, at + PACKED_FLAGS, 2)
    store16(mem, at + PACKED_FLAGS, flags)


@kernel(inline=True)
def _available(wrap):
    """The bits that say "available" in a lap with this wrap counter."""
    return F_AVAIL if wrap else F_USED


@kernel(inline=True)
def _step_avail(st, d, count):
    """Move next_avail_idx by `count` slots; the wrap counter flips where the ring ends."""
    index = st[d + D_AVAIL_IDX] + count
    if index >= st[d + D_NUM]:
        index -= st[d + D_NUM]
        st[d + D_AVAIL_WRAP] ^= 1
    st[d + D_AVAIL_IDX] = index


@kernel(inline=True)
def _add_indirect(mem, lines, st, d, core, buffers, table, buffer_id):
    """virtqueue_add_indirect_packed(): one slot that points to a table.

    In the table only addr, len and WRITE mean anything; Linux leaves the id alone.
    """
    out = st[buffers + B_OUT]
    total = out + st[buffers + B_IN]
    for i in range(total):
        at = buffers + B_ENTRIES + TWO * u64(i)
        into = u64(table) + DESC_SIZE * u64(i)
        touch_store(lines, core, into, 16)
        store64(mem, into, st[at])
        store32(mem, into + DESC_LEN, st[at + ONE])
        store16(mem, into + PACKED_FLAGS, 0 if i < out else F_WRITE)
    head = u64(st[d + D_DESC]) + DESC_SIZE * u64(st[d + D_AVAIL_IDX])
    _write_body(mem, lines, core, head, table, 16 * total, buffer_id)
    # Barrier A: whoever sees the head's flags sees the table and the rest of the head.
    flags = F_INDIRECT | _available(st[d + D_AVAIL_WRAP])
    _write_flags(mem, lines, core, head, flags)
    _step_avail(st, d, 1)


@kernel(inline=True)
def _add_direct(mem, lines, st, d, core, buffers, buffer_id):
    """A chain in consecutive slots: all but the head's flags at once, those last."""
    out = st[buffers + B_OUT]
    total = out + st[buffers + B_IN]
    num = st[d + D_NUM]
    index, wrap = st[d + D_AVAIL_IDX], st[d + D_AVAIL_WRAP]
    head = u64(st[d + D_DESC]) + DESC_SIZE * u64(index)
    head_flags = np.int64(0)
    for i in range(total):
        at = buffers + B_ENTRIES + TWO * u64(i)
        flags = (0 if i < out else F_WRITE) | (F_NEXT if i < total - 1 else 0) | _available(wrap)
        into = u64(st[d + D_DESC]) + DESC_SIZE * u64(index)
        _write_body(mem, lines, core, into, st[at], st[at + ONE], buffer_id)
        if i == 0:
            head_flags = flags
        else:
            _write_flags(mem, lines, core, into, flags)
        index += 1
        if index == num:
            index = 0
            wrap ^= 1
    # Barrier A: whoever sees the head's flags sees the whole chain.
    _write_flags(mem, lines, core, head, head_flags)
    _step_avail(st, d, total)


@kernel(inline=True)
def _take_ids(st, d, buffer_id, count):
    """A direct chain of k descriptors takes k ids from the free list; returns the last of them."""
    last = buffer_id
    for _ in range(count - 1):
        last = st[extra(d, last) + E_NEXT]
    st[d + D_FREE_HEAD] = st[extra(d, last) + E_NEXT]
    return last


@kernel(inline=True)
def add(mem, lines, st, d, core, buffers, token, table):
    """virtqueue_add_packed(), in order or not: make the chain, its head's flags last (barrier A).

    In order, the buffer id is the slot, and there is no free list.
    """
    if st[d + D_BROKEN]:
        return EIO
    total = st[buffers + B_OUT] + st[buffers + B_IN]
    free = st[d + D_NUM_FREE]
    indirect = table != 0 and total > 1 and st[d + D_INDIRECT] != 0 and free > 0
    needed = 1 if indirect else total
    if free < needed:
        return ENOSPC
    buffer_id = st[d + D_AVAIL_IDX] if st[d + D_IN_ORDER] else st[d + D_FREE_HEAD]
    words = extra(d, buffer_id)
    if st[d + D_IN_ORDER]:
        st[words + E_BYTES] = order.writable_bytes(st, buffers)
    else:
        st[words + E_LAST] = _take_ids(st, d, buffer_id, needed)
    st[words + E_TOKEN] = token
    st[words + E_COUNT] = needed
    if indirect:
        _add_indirect(mem, lines, st, d, core, buffers, table, buffer_id)
    else:
        _add_direct(mem, lines, st, d, core, buffers, buffer_id)
    st[d + D_NUM_FREE] = free - needed
    st[d + D_NUM_ADDED] += needed
    return buffer_id


@kernel(inline=True)
def kick_prepare(mem, lines, st, d, core):
    """virtqueue_kick_prepare_packed(): barrier C, then does the device want this notification?

    The device's event structure is read as one 32-bit word.
    """
    new = st[d + D_AVAIL_IDX]
    old = (new - st[d + D_NUM_ADDED]) & 0xFFFF
    st[d + D_NUM_ADDED] = 0
    at = u64(st[d + D_USED])
    touch_load(lines, core, at, EVENT_STRUCT_SIZE)
    flags = load16(mem, at + EVENT_FLAGS)
    off_wrap = load16(mem, at)
    if flags != EVENT_F_DESC:
        return flags != EVENT_F_DISABLE
    event = off_wrap & INDEX
    if off_wrap >> WRAP != st[d + D_AVAIL_WRAP]:
        event -= st[d + D_NUM]
    return need_event(event, new, old)


@kernel(inline=True)
def notification_data(st, d, vq):
    """vring_notification_data(): next slot and wrap counter in the high half."""
    return (st[d + D_AVAIL_WRAP] << WRAP | st[d + D_AVAIL_IDX]) << 16 | vq


@kernel(inline=True)
def _is_used(flags, wrap):
    """is_used_desc_packed()"""
    used = 1 if flags & F_USED else 0
    return (flags & F_AVAIL != 0) == (used != 0) and used == wrap


@kernel(inline=True)
def _last_used_desc(st, d):
    return u64(st[d + D_DESC]) + DESC_SIZE * u64(st[d + D_LAST_USED] & INDEX)


@kernel(inline=True)
def more_used(mem, lines, st, d, core):
    """more_used_packed(): is the slot at last_used a used one, or a batch half read?"""
    if st[d + D_IN_ORDER] and st[d + D_BATCH_ID] != NO_BATCH:
        return True
    at = _last_used_desc(st, d) + PACKED_FLAGS
    touch_load(lines, core, at, 2)
    return _is_used(load16(mem, at), st[d + D_LAST_USED] >> WRAP)


@kernel(inline=True)
def _detach(st, d, buffer_id):
    """detach_buf_packed(): the sub-chain of ids goes back as one block (LIFO).

    In order there is no list (detach_buf_packed_in_order).
    """
    words = extra(d, buffer_id)
    st[words + E_TOKEN] = EMPTY
    st[d + D_NUM_FREE] += st[words + E_COUNT]
    if not st[d + D_IN_ORDER]:
        st[extra(d, st[words + E_LAST]) + E_NEXT] = st[d + D_FREE_HEAD]
        st[d + D_FREE_HEAD] = buffer_id


@kernel(inline=True)
def _step_used(st, d, count):
    """update_last_used_idx_packed(): skip the slots of one buffer."""
    last, wrap = (st[d + D_LAST_USED] & INDEX) + count, st[d + D_LAST_USED] >> WRAP
    if last >= st[d + D_NUM]:
        last -= st[d + D_NUM]
        wrap ^= 1
    st[d + D_LAST_USED] = wrap << WRAP | last


@kernel(inline=True)
def _read_used(mem, lines, st, d, core):
    """The buffer id in the used descriptor at last_used; its length goes to D_USED_LENGTH."""
    at = _last_used_desc(st, d)
    touch_load(lines, core, at + DESC_LEN, 6)
    st[d + D_USED_LENGTH] = load32(mem, at + DESC_LEN)
    return load16(mem, at + PACKED_ID)


@kernel(inline=True)
def _next_in_order(mem, lines, st, d, core):
    """virtqueue_get_buf_ctx_packed_in_order(): the buffer that is next in ring order.

    A used descriptor names the last buffer of a batch; those before it have none of their own.
    """
    if st[d + D_BATCH_ID] == NO_BATCH:
        st[d + D_BATCH_ID] = _read_used(mem, lines, st, d, core)
        st[d + D_BATCH_LENGTH] = st[d + D_USED_LENGTH]
    buffer_id = st[d + D_LAST_USED] & INDEX
    if st[d + D_BATCH_ID] == buffer_id:
        st[d + D_BATCH_ID] = NO_BATCH
        st[d + D_USED_LENGTH] = st[d + D_BATCH_LENGTH]
    else:
        st[d + D_USED_LENGTH] = st[extra(d, buffer_id) + E_BYTES]
    return buffer_id


@kernel(inline=True)
def get_buf(mem, lines, st, d, core):
    """virtqueue_get_buf_ctx_packed(), in order or not: the token of the next used buffer."""
    if st[d + D_BROKEN] or not more_used(mem, lines, st, d, core):
        return EMPTY
    # Barrier B: the flags were read before the id.
    if st[d + D_IN_ORDER]:
        buffer_id = _next_in_order(mem, lines, st, d, core)
    else:
        buffer_id = _read_used(mem, lines, st, d, core)
    if buffer_id >= st[d + D_NUM]:
        return bad_ring(st, d, USED_ID_RANGE)
    token = st[extra(d, buffer_id) + E_TOKEN]
    if token < 0:
        return bad_ring(st, d, USED_NOT_A_HEAD)
    _detach(st, d, buffer_id)
    _step_used(st, d, st[extra(d, buffer_id) + E_COUNT])
    if st[d + D_AVAIL_FLAGS] == EVENT_F_DESC:
        write_off_wrap(mem, lines, core, u64(st[d + D_AVAIL]), st[d + D_LAST_USED])
    return token


@kernel(inline=True)
def disable_cb(mem, lines, st, d, core):
    """virtqueue_disable_cb_packed(): nothing is written once the event index has triggered."""
    if st[d + D_AVAIL_FLAGS] == EVENT_F_DISABLE:
        return
    st[d + D_AVAIL_FLAGS] = EVENT_F_DISABLE
    if not st[d + D_EVENT_TRIGGERED]:
        write_event_flags(mem, lines, core, u64(st[d + D_AVAIL]), EVENT_F_DISABLE)


@kernel(inline=True)
def _allow_interrupts(mem, lines, st, d, core, off_wrap):
    """Where first (with EVENT_IDX), then the flags, which were DISABLE."""
    st[d + D_EVENT_TRIGGERED] = 0
    at = u64(st[d + D_AVAIL])
    if st[d + D_EVENT_IDX]:
        write_off_wrap(mem, lines, core, at, off_wrap)
    if st[d + D_AVAIL_FLAGS] == EVENT_F_DISABLE:
        flags = EVENT_F_DESC if st[d + D_EVENT_IDX] else EVENT_F_ENABLE
        st[d + D_AVAIL_FLAGS] = flags
        write_event_flags(mem, lines, core, at, flags)


@kernel(inline=True)
def enable_cb_prepare(mem, lines, st, d, core):
    """virtqueue_enable_cb_prepare_packed(): ask for the next interrupt; look again after it (D)."""
    _allow_interrupts(mem, lines, st, d, core, st[d + D_LAST_USED])


@kernel(inline=True)
def enable_cb_delayed_prepare(mem, lines, st, d, core):
    """virtqueue_enable_cb_delayed_packed() up to barrier D: interrupt after 3/4 of what is out."""
    wanted = (st[d + D_NUM] - st[d + D_NUM_FREE]) * 3 // 4
    index, wrap = (st[d + D_LAST_USED] & INDEX) + wanted, st[d + D_LAST_USED] >> WRAP
    if index >= st[d + D_NUM]:
        index -= st[d + D_NUM]
        wrap ^= 1
    _allow_interrupts(mem, lines, st, d, core, wrap << WRAP | index)
    return wanted


@kernel(inline=True)
def enable_cb_delayed_check(mem, lines, st, d, core, wanted):
    """The rest of it: False when the next buffer has been used already."""
    return not more_used(mem, lines, st, d, core)


@kernel
def init_without_callback(mem, st, d):
    """virtqueue_vring_init_packed() of a queue that is polled: no interrupts, from the start on."""
    st[d + D_AVAIL_FLAGS] = EVENT_F_DISABLE
    store16(mem, u64(st[d + D_AVAIL]) + EVENT_FLAGS, EVENT_F_DISABLE)


@kernel
def detach_unused_buf(mem, st, d):
    """virtqueue_detach_unused_buf_packed(): take back one buffer that nobody used; its token."""
    for buffer_id in range(st[d + D_NUM]):
        token = st[extra(d, buffer_id) + E_TOKEN]
        if token >= 0:
            _detach(st, d, buffer_id)
            return token
    return EMPTY


@kernel
def clear_ring(mem, st, d):
    """virtqueue_reset_packed(): descriptors and both event structures back to zero."""
    desc = u64(st[d + D_DESC])
    for i in range(2 * st[d + D_NUM]):
        store64(mem, desc + u64(8) * u64(i), 0)
    store32(mem, u64(st[d + D_AVAIL]), 0)
    store32(mem, u64(st[d + D_USED]), 0)
