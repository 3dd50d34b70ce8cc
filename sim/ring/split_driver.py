"""The split ring, driver side: Linux's drivers/virtio/virtio_ring.c, the functions named *_split.

sim.vring has the contract, the barriers' letters and the buffer list.
"""

import numpy as np

from sim.jit import kernel
from sim.layout import (
    AVAIL_F_NO_INTERRUPT,
    AVAIL_IDX,
    AVAIL_RING,
    DESC_FLAGS,
    DESC_LEN,
    DESC_NEXT,
    DESC_SIZE,
    EIO,
    ENOSPC,
    F_INDIRECT,
    F_NEXT,
    F_WRITE,
    USED_ELEM_SIZE,
    USED_F_NO_NOTIFY,
    USED_IDX,
    USED_RING,
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
    D_BATCH_ID,
    D_BATCH_LENGTH,
    D_BROKEN,
    D_DESC,
    D_EVENT_IDX,
    D_EVENT_TRIGGERED,
    D_FREE_HEAD,
    D_IN_ORDER,
    D_INDIRECT,
    D_LAST_HEAD,
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
)

u64 = np.uint64


@kernel(inline=True)
def _write_desc(mem, lines, core, at, address, length, flags, successor):
    touch_store(lines, core, at, 16)
    store64(mem, at, address)
    store32(mem, at + DESC_LEN, length)
    store16(mem, at + DESC_FLAGS, flags)
    store16(mem, at + DESC_NEXT, successor)


@kernel(inline=True)
def _add_indirect(mem, lines, st, d, core, buffers, table):
    """One ring descriptor that points to a table; returns its index."""
    out = st[buffers + B_OUT]
    total = out + st[buffers + B_IN]
    for i in range(total):
        at = buffers + B_ENTRIES + TWO * u64(i)
        flags = (0 if i < out else F_WRITE) | (F_NEXT if i < total - 1 else 0)
        into = u64(table) + DESC_SIZE * u64(i)
        _write_desc(mem, lines, core, into, st[at], st[at + ONE], flags, i + 1)
    head = st[d + D_FREE_HEAD]
    successor = st[extra(d, head) + E_NEXT]
    into = u64(st[d + D_DESC]) + DESC_SIZE * u64(head)
    _write_desc(mem, lines, core, into, table, 16 * total, F_INDIRECT, successor)
    st[d + D_FREE_HEAD] = successor
    return head


@kernel(inline=True)
def _add_direct(mem, lines, st, d, core, buffers):
    """A chain in the ring itself; `next` is written in every descriptor, also in the last."""
    out = st[buffers + B_OUT]
    total = out + st[buffers + B_IN]
    index = st[d + D_FREE_HEAD]
    last = index
    for i in range(total):
        at = buffers + B_ENTRIES + TWO * u64(i)
        flags = (0 if i < out else F_WRITE) | (F_NEXT if i < total - 1 else 0)
        successor = st[extra(d, index) + E_NEXT]
        into = u64(st[d + D_DESC]) + DESC_SIZE * u64(index)
        _write_desc(mem, lines, core, into, st[at], st[at + ONE], flags, successor)
        last = index
        index = successor
    st[d + D_FREE_HEAD] = index
    return last


@kernel(inline=True)
def add(mem, lines, st, d, core, buffers, token, table):
    """virtqueue_add_split(): make the chain and publish it (barrier A).

    In order, the free list is never changed: it runs round the table, and so do the heads.
    """
    if st[d + D_BROKEN]:
        return EIO
    total = st[buffers + B_OUT] + st[buffers + B_IN]
    free = st[d + D_NUM_FREE]
    indirect = table != 0 and total > 1 and st[d + D_INDIRECT] != 0 and free > 0
    needed = 1 if indirect else total
    if free < needed:
        return ENOSPC
    head = st[d + D_FREE_HEAD]
    if indirect:
        last = _add_indirect(mem, lines, st, d, core, buffers, table)
    else:
        last = _add_direct(mem, lines, st, d, core, buffers)
    st[d + D_NUM_FREE] = free - needed
    words = extra(d, head)
    st[words + E_TOKEN] = token
    st[words + E_LAST] = last
    st[words + E_COUNT] = needed
    if st[d + D_IN_ORDER]:
        st[words + E_BYTES] = order.writable_bytes(st, buffers)
    shadow = st[d + D_AVAIL_IDX]
    avail = u64(st[d + D_AVAIL])
    slot = avail + AVAIL_RING + TWO * u64(shadow & (st[d + D_NUM] - 1))
    touch_store(lines, core, slot, 2)
    store16(mem, slot, head)
    # Barrier A: whoever sees the new idx sees the entry and the descriptors.
    shadow = (shadow + 1) & 0xFFFF
    st[d + D_AVAIL_IDX] = shadow
    touch_store(lines, core, avail + AVAIL_IDX, 2)
    store16(mem, avail + AVAIL_IDX, shadow)
    st[d + D_NUM_ADDED] += 1
    return head


@kernel(inline=True)
def kick_prepare(mem, lines, st, d, core):
    """virtqueue_kick_prepare_split(): barrier C, then does the device want this notification?"""
    new = st[d + D_AVAIL_IDX]
    old = (new - st[d + D_NUM_ADDED]) & 0xFFFF
    st[d + D_NUM_ADDED] = 0
    used = u64(st[d + D_USED])
    if st[d + D_EVENT_IDX]:
        at = used + USED_RING + USED_ELEM_SIZE * u64(st[d + D_NUM])
        touch_load(lines, core, at, 2)
        return need_event(load16(mem, at), new, old)
    touch_load(lines, core, used, 2)
    return load16(mem, used) & USED_F_NO_NOTIFY == 0


@kernel(inline=True)
def notification_data(st, d, vq):
    """vring_notification_data(): next available index in the high half."""
    return st[d + D_AVAIL_IDX] << 16 | vq


@kernel(inline=True)
def more_used(mem, lines, st, d, core):
    """more_used_split(): is there an entry behind last_used, or a batch half read?"""
    if st[d + D_IN_ORDER] and st[d + D_BATCH_ID] != NO_BATCH:
        return True
    return _used_moved(mem, lines, st, d, core)


@kernel(inline=True)
def _used_moved(mem, lines, st, d, core):
    used = u64(st[d + D_USED])
    touch_load(lines, core, used + USED_IDX, 2)
    return load16(mem, used + USED_IDX) != st[d + D_LAST_USED]


@kernel(inline=True)
def _write_used_event(mem, lines, st, d, core, value):
    at = u64(st[d + D_AVAIL]) + AVAIL_RING + TWO * u64(st[d + D_NUM])
    touch_store(lines, core, at, 2)
    store16(mem, at, value)


@kernel(inline=True)
def _push(st, d, head):
    """detach_buf_split(): the chain goes back at the head of the free list (LIFO).

    In order nothing is pushed (detach_buf_split_in_order): the list is a circle.
    """
    st[extra(d, st[extra(d, head) + E_LAST]) + E_NEXT] = st[d + D_FREE_HEAD]
    st[d + D_FREE_HEAD] = head


@kernel(inline=True)
def _read_used(mem, lines, st, d, core, last):
    """The head in the used element of index `last`; its length goes to D_USED_LENGTH."""
    at = u64(st[d + D_USED]) + USED_RING + USED_ELEM_SIZE * u64(last & (st[d + D_NUM] - 1))
    touch_load(lines, core, at, 8)
    st[d + D_USED_LENGTH] = load32(mem, at + u64(4))
    return load32(mem, at)


@kernel(inline=True)
def _next_in_order(mem, lines, st, d, core, last):
    """virtqueue_get_buf_ctx_split_in_order(): the head that is next in ring order.

    A used element names the last buffer of a batch; those before it have no element of their own.
    """
    if st[d + D_BATCH_ID] == NO_BATCH:
        st[d + D_BATCH_ID] = _read_used(mem, lines, st, d, core, last)
        st[d + D_BATCH_LENGTH] = st[d + D_USED_LENGTH]
    head = st[d + D_LAST_HEAD]
    words = extra(d, head)
    if st[d + D_BATCH_ID] == head:
        st[d + D_BATCH_ID] = NO_BATCH
        st[d + D_USED_LENGTH] = st[d + D_BATCH_LENGTH]
    else:
        st[d + D_USED_LENGTH] = st[words + E_BYTES]
    if st[words + E_TOKEN] >= 0:
        st[d + D_LAST_HEAD] = (head + st[words + E_COUNT]) & (st[d + D_NUM] - 1)
    return head


@kernel(inline=True)
def get_buf(mem, lines, st, d, core):
    """virtqueue_get_buf_ctx_split(): the token of the next used chain."""
    if st[d + D_BROKEN]:
        return EMPTY
    if st[d + D_IN_ORDER]:
        return _get_buf_in_order(mem, lines, st, d, core)
    if not _used_moved(mem, lines, st, d, core):
        return EMPTY
    # Barrier B: used.idx was read before the entry.
    head = _read_used(mem, lines, st, d, core, st[d + D_LAST_USED])
    token = _take_back(mem, lines, st, d, core, head)
    if token != EMPTY:
        _push(st, d, head)
    return token


@kernel(inline=True)
def _get_buf_in_order(mem, lines, st, d, core):
    """virtqueue_get_buf_ctx_split_in_order()"""
    if not more_used(mem, lines, st, d, core):
        return EMPTY
    # Barrier B, as above.
    head = _next_in_order(mem, lines, st, d, core, st[d + D_LAST_USED])
    return _take_back(mem, lines, st, d, core, head)


@kernel(inline=True)
def _take_back(mem, lines, st, d, core, head):
    """The chain that begins with `head` is the driver's again, if there is one; its token."""
    if head >= st[d + D_NUM]:
        return bad_ring(st, d, USED_ID_RANGE)
    words = extra(d, head)
    token = st[words + E_TOKEN]
    if token < 0:
        return bad_ring(st, d, USED_NOT_A_HEAD)
    st[words + E_TOKEN] = EMPTY
    st[d + D_NUM_FREE] += st[words + E_COUNT]
    last = (st[d + D_LAST_USED] + 1) & 0xFFFF
    st[d + D_LAST_USED] = last
    if st[d + D_AVAIL_FLAGS] & AVAIL_F_NO_INTERRUPT == 0:
        # Linux writes used_event here whether or not EVENT_IDX was agreed.
        _write_used_event(mem, lines, st, d, core, last)
    return token


@kernel(inline=True)
def disable_cb(mem, lines, st, d, core):
    """virtqueue_disable_cb_split().

    With EVENT_IDX it writes used_event = 0, a value that is merely far away, and nothing at all
    when the interrupt that runs now has been triggered by the event index.
    """
    if st[d + D_AVAIL_FLAGS] & AVAIL_F_NO_INTERRUPT:
        return
    st[d + D_AVAIL_FLAGS] |= AVAIL_F_NO_INTERRUPT
    if st[d + D_EVENT_TRIGGERED]:
        return
    if st[d + D_EVENT_IDX]:
        _write_used_event(mem, lines, st, d, core, 0)
    else:
        _write_avail_flags(mem, lines, st, d, core)


@kernel(inline=True)
def _write_avail_flags(mem, lines, st, d, core):
    touch_store(lines, core, st[d + D_AVAIL], 2)
    store16(mem, u64(st[d + D_AVAIL]), st[d + D_AVAIL_FLAGS])


@kernel(inline=True)
def _allow_interrupts(mem, lines, st, d, core):
    st[d + D_EVENT_TRIGGERED] = 0
    if st[d + D_AVAIL_FLAGS] & AVAIL_F_NO_INTERRUPT:
        st[d + D_AVAIL_FLAGS] &= ~AVAIL_F_NO_INTERRUPT
        if not st[d + D_EVENT_IDX]:
            _write_avail_flags(mem, lines, st, d, core)


@kernel(inline=True)
def enable_cb_prepare(mem, lines, st, d, core):
    """virtqueue_enable_cb_prepare_split(): ask for the next interrupt; look again after it (D)."""
    _allow_interrupts(mem, lines, st, d, core)
    # Linux writes used_event here whether or not EVENT_IDX was agreed.
    _write_used_event(mem, lines, st, d, core, st[d + D_LAST_USED])


@kernel(inline=True)
def enable_cb_delayed_prepare(mem, lines, st, d, core):
    """virtqueue_enable_cb_delayed_split() up to barrier D; returns how many entries it waits for.

    The interrupt is to come when three quarters of what is outstanding have been used.
    """
    _allow_interrupts(mem, lines, st, d, core)
    wanted = ((st[d + D_AVAIL_IDX] - st[d + D_LAST_USED]) & 0xFFFF) * 3 // 4
    _write_used_event(mem, lines, st, d, core, (st[d + D_LAST_USED] + wanted) & 0xFFFF)
    return wanted


@kernel(inline=True)
def enable_cb_delayed_check(mem, lines, st, d, core, wanted):
    """The rest of it: False when more than `wanted` entries have been used already."""
    used = u64(st[d + D_USED])
    touch_load(lines, core, used + USED_IDX, 2)
    return (load16(mem, used + USED_IDX) - st[d + D_LAST_USED]) & 0xFFFF <= wanted


@kernel
def init_without_callback(mem, st, d):
    """vring_virtqueue_init_split() of a queue that is polled: no interrupts, from the start on."""
    st[d + D_AVAIL_FLAGS] = AVAIL_F_NO_INTERRUPT
    if not st[d + D_EVENT_IDX]:
        store16(mem, u64(st[d + D_AVAIL]), AVAIL_F_NO_INTERRUPT)


@kernel
def detach_unused_buf(mem, st, d):
    """virtqueue_detach_unused_buf_split(): take back one chain that nobody used; its token."""
    for head in range(st[d + D_NUM]):
        words = extra(d, head)
        token = st[words + E_TOKEN]
        if token >= 0:
            st[words + E_TOKEN] = EMPTY
            st[d + D_NUM_FREE] += st[words + E_COUNT]
            if not st[d + D_IN_ORDER]:
                _push(st, d, head)
            st[d + D_AVAIL_IDX] = (st[d + D_AVAIL_IDX] - 1) & 0xFFFF
            store16(mem, u64(st[d + D_AVAIL]) + AVAIL_IDX, st[d + D_AVAIL_IDX])
            return token
    return EMPTY


@kernel
def clear_ring(mem, st, d):
    """virtqueue_reset_split(): flags, indices and events of both areas back to zero."""
    avail, used = u64(st[d + D_AVAIL]), u64(st[d + D_USED])
    num = u64(st[d + D_NUM])
    for at in (
        avail,
        avail + AVAIL_IDX,
        avail + AVAIL_RING + TWO * num,
        used,
        used + USED_IDX,
        used + USED_RING + USED_ELEM_SIZE * num,
    ):
        store16(mem, at, 0)
