"""The split ring: Linux's driver side, and both personalities of the device side.

Driver: drivers/virtio/virtio_ring.c, the functions named *_split. Device: drivers/vhost/vhost.c
(KERNEL_VHOST) and hw/virtio/virtio.c of QEMU, the functions named *_split (QEMU). sim.vring has the
contract, the barriers' letters and the buffer list.

Where the two devices differ: vhost writes avail_event only when it turns notifications on, from its
cached index, QEMU on every pop as well; vhost refuses an available index that ran away, QEMU
notices that more buffers are in flight than the ring has; vhost reads an indirect table one entry
after the other, wherever it stands in the chain, QEMU follows `next` and takes a table only at the
head; QEMU counts a wrap guard in signed 16 bits.
"""

import numpy as np

from sim import vring_order as order
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
    F_NOTIFY_ON_EMPTY,
    F_WRITE,
    INDIRECT_ENTRIES_MAX,
    RING_SIZE_MAX,
    USED_ELEM_SIZE,
    USED_F_NO_NOTIFY,
    USED_IDX,
    USED_RING,
)
from sim.memory import load16, load32, load64, store16, store32, store64, touch_load, touch_store
from sim.vring_common import (
    B_ENTRIES,
    B_IN,
    B_OUT,
    BAD_AVAIL_INDEX,
    BAD_BASE,
    BAD_HEAD,
    BAD_NEXT,
    BAD_RING_ADDRESS,
    BAD_RING_ALIGNMENT,
    BAD_RING_SIZE,
    BAD_TABLE_ADDRESS,
    BAD_TABLE_LENGTH,
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
    LOOP,
    NESTED_TABLE,
    NO_BATCH,
    O_FILLED,
    O_ID,
    O_LENGTH,
    ONE,
    QEMU,
    SOUND,
    TABLE_TOO_LONG,
    TOO_MANY_IN_FLIGHT,
    TWO,
    USED_ID_RANGE,
    USED_NOT_A_HEAD,
    V_AVAIL,
    V_AVAIL_IDX,
    V_BATCHED,
    V_DESC,
    V_EVENT_IDX,
    V_FEATURES,
    V_IN_ORDER,
    V_LAST_AVAIL,
    V_LAST_USED,
    V_MEMORY_SIZE,
    V_NUM,
    V_PERSONALITY,
    V_SIGNALLED_USED,
    V_SIGNALLED_USED_VALID,
    V_USED,
    V_USED_FLAGS,
    bad_ring,
    clear_buffers,
    entry,
    extra,
    has_feature,
    in_memory,
    need_event,
    refuse,
    take_buffer,
)

u64 = np.uint64

# ------------------------------------------------------------------------------------- driver ----


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
    indirect = st[d + D_INDIRECT] != 0 and total > 1 and free > 0 and table != 0
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
    used = u64(st[d + D_USED])
    touch_load(lines, core, used + USED_IDX, 2)
    return load16(mem, used + USED_IDX) != st[d + D_LAST_USED]


@kernel(inline=True)
def _write_used_event(mem, lines, st, d, core, value):
    at = u64(st[d + D_AVAIL]) + AVAIL_RING + TWO * u64(st[d + D_NUM])
    touch_store(lines, core, at, 2)
    store16(mem, at, value)


@kernel(inline=True)
def _detach(st, d, head):
    """detach_buf_split(): push the chain back at the head of the free list (LIFO).

    In order nothing is pushed (detach_buf_split_in_order): the list is a circle.
    """
    words = extra(d, head)
    st[words + E_TOKEN] = EMPTY
    st[d + D_NUM_FREE] += st[words + E_COUNT]
    if not st[d + D_IN_ORDER]:
        st[extra(d, st[words + E_LAST]) + E_NEXT] = st[d + D_FREE_HEAD]
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
    """virtqueue_get_buf_ctx_split(), in order or not: the token of the next used chain."""
    if st[d + D_BROKEN] or not more_used(mem, lines, st, d, core):
        return EMPTY
    # Barrier B: used.idx was read before the entry.
    last = st[d + D_LAST_USED]
    if st[d + D_IN_ORDER]:
        head = _next_in_order(mem, lines, st, d, core, last)
    else:
        head = _read_used(mem, lines, st, d, core, last)
    if head >= st[d + D_NUM]:
        return bad_ring(st, d, USED_ID_RANGE)
    token = st[extra(d, head) + E_TOKEN]
    if token < 0:
        return bad_ring(st, d, USED_NOT_A_HEAD)
    _detach(st, d, head)
    last = (last + 1) & 0xFFFF
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
        token = st[extra(d, head) + E_TOKEN]
        if token >= 0:
            _detach(st, d, head)
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


# ------------------------------------------------------------------------------------- device ----


@kernel
def check_areas(mem, num, desc, avail, used, event_idx):
    """vhost_vring_set_num(), vhost_vring_set_addr(), vhost_vq_access_ok(): a verdict."""
    if num < 1 or num > RING_SIZE_MAX or num & (num - 1):
        return BAD_RING_SIZE
    if avail & 1 or used & 3:
        return BAD_RING_ALIGNMENT
    tail = 2 if event_idx else 0
    sound = (
        in_memory(mem.size, desc, 16 * num)
        and in_memory(mem.size, avail, 4 + 2 * num + tail)
        and in_memory(mem.size, used, 4 + 8 * num + tail)
    )
    return SOUND if sound else BAD_RING_ADDRESS


@kernel
def device_init(mem, st, v, base):
    """vhost_vq_init_access(): last_used comes from the guest's used.idx, used.flags from ours.

    QEMU writes nothing and starts with notifications on. Returns a verdict.
    """
    if base < 0 or base > 0xFFFF:
        return BAD_BASE
    st[v + V_LAST_AVAIL] = base
    st[v + V_AVAIL_IDX] = base
    used = u64(st[v + V_USED])
    st[v + V_LAST_USED] = load16(mem, used + USED_IDX)
    if st[v + V_PERSONALITY] == QEMU:
        st[v + V_USED_FLAGS] = 0
    else:
        store16(mem, used, st[v + V_USED_FLAGS])
    return SOUND


@kernel(inline=True)
def in_flight(st, v):
    """Buffers taken and not yet used (QEMU's inuse)."""
    return (st[v + V_LAST_AVAIL] - st[v + V_LAST_USED]) & 0xFFFF


@kernel(inline=True)
def _read_avail_idx(mem, lines, st, v, core):
    """The guest's avail.idx; what vhost refuses (vhost_get_avail_idx) does not reach its copy.

    Kernels up to 6.12 keep it all the same, and go on with it at the next kick.
    """
    at = u64(st[v + V_AVAIL]) + AVAIL_IDX
    touch_load(lines, core, at, 2)
    index = load16(mem, at)
    if st[v + V_PERSONALITY] == QEMU or _in_reach(st, v, index):
        st[v + V_AVAIL_IDX] = index
    return index


@kernel(inline=True)
def _in_reach(st, v, index):
    """Is this available index no more than the ring ahead?"""
    return (index - st[v + V_LAST_AVAIL]) & 0xFFFF <= st[v + V_NUM]


@kernel(inline=True)
def _walk_table(mem, lines, st, v, core, buffers, table, table_bytes):
    """get_indirect(): the table is read one entry after the other, whatever `next` says."""
    if table_bytes % 16:
        return BAD_TABLE_LENGTH
    if not in_memory(st[v + V_MEMORY_SIZE], table, table_bytes):
        return BAD_TABLE_ADDRESS
    entries = table_bytes // 16
    if entries > INDIRECT_ENTRIES_MAX:
        return TABLE_TOO_LONG
    for i in range(entries):
        at = u64(table) + DESC_SIZE * u64(i)
        touch_load(lines, core, at, 16)
        flags = load16(mem, at + DESC_FLAGS)
        if flags & F_INDIRECT:
            return NESTED_TABLE
        verdict = take_buffer(st, v, buffers, load64(mem, at), load32(mem, at + DESC_LEN), flags)
        if verdict:
            return verdict
        if flags & F_NEXT == 0:
            return SOUND
    return LOOP  # the last entry promised another one


@kernel(inline=True)
def _walk_chain(mem, lines, st, v, core, buffers, head):
    """The descriptor loop of vhost_get_vq_desc_n(); a verdict."""
    num = st[v + V_NUM]
    index = head
    for _ in range(num):
        if index >= num:
            return BAD_HEAD if index == head else BAD_NEXT
        at = u64(st[v + V_DESC]) + DESC_SIZE * u64(index)
        touch_load(lines, core, at, 16)
        address = load64(mem, at)
        length = load32(mem, at + DESC_LEN)
        flags = load16(mem, at + DESC_FLAGS)
        if flags & F_INDIRECT:
            verdict = _walk_table(mem, lines, st, v, core, buffers, address, length)
        else:
            verdict = take_buffer(st, v, buffers, address, length, flags)
        if verdict:
            return verdict
        if flags & F_NEXT == 0:
            return SOUND
        index = load16(mem, at + DESC_NEXT)
    return LOOP  # more descriptors than the ring has


@kernel(inline=True)
def _collect(mem, lines, st, v, core, buffers, head):
    """The descriptor loop of virtqueue_split_pop() in QEMU; a verdict.

    A table is looked for at the head only, and its entries are linked by `next`.
    """
    limit = st[v + V_NUM]
    if head >= limit:
        return BAD_HEAD
    table = st[v + V_DESC]
    at = u64(table) + DESC_SIZE * u64(head)
    touch_load(lines, core, at, 16)
    flags = load16(mem, at + DESC_FLAGS)
    if flags & F_INDIRECT:
        table = load64(mem, at)
        length = load32(mem, at + DESC_LEN)
        if length == 0 or length % 16:
            return BAD_TABLE_LENGTH
        if not in_memory(st[v + V_MEMORY_SIZE], table, length):
            return BAD_TABLE_ADDRESS
        limit = length // 16
        at = u64(table)
        touch_load(lines, core, at, 16)
        flags = load16(mem, at + DESC_FLAGS)
    entries = 0
    while True:
        verdict = take_buffer(st, v, buffers, load64(mem, at), load32(mem, at + DESC_LEN), flags)
        if verdict:
            return verdict
        entries += 1
        if entries > limit:
            return LOOP
        if flags & F_NEXT == 0:
            return SOUND
        index = load16(mem, at + DESC_NEXT)
        if index >= limit:
            return BAD_NEXT
        at = u64(table) + DESC_SIZE * u64(index)
        touch_load(lines, core, at, 16)
        flags = load16(mem, at + DESC_FLAGS)


@kernel(inline=True)
def fetch(mem, lines, st, v, core, buffers):
    """vhost_get_vq_desc(), virtqueue_split_pop(): the next published chain into the buffer list.

    The available index is read only when the cached copy is used up. vhost's way stands first: it
    is the one taken most.
    """
    if st[v + V_PERSONALITY] == QEMU or st[v + V_IN_ORDER]:
        return _fetch_counted(mem, lines, st, v, core, buffers)
    last = st[v + V_LAST_AVAIL]
    if st[v + V_AVAIL_IDX] == last:
        index = _read_avail_idx(mem, lines, st, v, core)
        if index == last:
            return EMPTY
        if not _in_reach(st, v, index):
            return refuse(st, v, BAD_AVAIL_INDEX)
    # Barrier A: avail.idx was read before the entry and the descriptors.
    head = _head_at(mem, lines, st, v, core, last)
    clear_buffers(st, buffers)
    verdict = _walk_chain(mem, lines, st, v, core, buffers, head)
    if verdict:
        return refuse(st, v, verdict)
    st[v + V_LAST_AVAIL] = (last + 1) & 0xFFFF
    return head


@kernel(inline=True)
def _head_at(mem, lines, st, v, core, index):
    """The head in the available ring at `index`."""
    at = u64(st[v + V_AVAIL]) + AVAIL_RING + TWO * u64(index & (st[v + V_NUM] - 1))
    touch_load(lines, core, at, 2)
    return load16(mem, at)


@kernel(inline=True)
def _fetch_counted(mem, lines, st, v, core, buffers):
    """The same for a device that counts what it has in flight: QEMU, or anyone in order."""
    last = st[v + V_LAST_AVAIL]
    qemu = st[v + V_PERSONALITY] == QEMU
    if st[v + V_AVAIL_IDX] == last:
        index = _read_avail_idx(mem, lines, st, v, core)
        if index == last:
            return EMPTY
        if not qemu and not _in_reach(st, v, index):
            return refuse(st, v, BAD_AVAIL_INDEX)
    # Barrier A, as above.
    if in_flight(st, v) >= st[v + V_NUM]:
        return refuse(st, v, TOO_MANY_IN_FLIGHT)
    head = _head_at(mem, lines, st, v, core, last)
    clear_buffers(st, buffers)
    if qemu:
        _move_avail_event(mem, lines, st, v, core)
        verdict = _collect(mem, lines, st, v, core, buffers, head)
    else:
        verdict = _walk_chain(mem, lines, st, v, core, buffers, head)
    if verdict:
        return refuse(st, v, verdict)
    if st[v + V_IN_ORDER]:
        order.note(st, v, last & (st[v + V_NUM] - 1), head, 1)
    st[v + V_LAST_AVAIL] = (last + 1) & 0xFFFF
    return head


@kernel(inline=True)
def _move_avail_event(mem, lines, st, v, core):
    """vring_set_avail_event(): while notifications are on, every pop asks for the next kick."""
    if st[v + V_EVENT_IDX] and st[v + V_USED_FLAGS] & USED_F_NO_NOTIFY == 0:
        _write_avail_event(mem, lines, st, v, core, (st[v + V_LAST_AVAIL] + 1) & 0xFFFF)


@kernel(inline=True)
def _write_avail_event(mem, lines, st, v, core, value):
    at = u64(st[v + V_USED]) + USED_RING + USED_ELEM_SIZE * u64(st[v + V_NUM])
    touch_store(lines, core, at, 2)
    store16(mem, at, value)


@kernel(inline=True)
def _write_used(mem, lines, st, v, core, index, head, length):
    """One used element, at `index` modulo the ring."""
    at = u64(st[v + V_USED]) + USED_RING + USED_ELEM_SIZE * u64(index & (st[v + V_NUM] - 1))
    touch_store(lines, core, at, 8)
    store32(mem, at, head)
    store32(mem, at + u64(4), length)


@kernel(inline=True)
def _publish_used(mem, lines, st, v, core, count):
    """Move used.idx by `count` (barrier B), and see whether that was a lap since the last check."""
    old = st[v + V_LAST_USED]
    new = (old + count) & 0xFFFF
    st[v + V_LAST_USED] = new
    since = (new - st[v + V_SIGNALLED_USED]) & 0xFFFF
    if since < count or (since >= 0x8000 and st[v + V_PERSONALITY] == QEMU):
        st[v + V_SIGNALLED_USED_VALID] = 0
    at = u64(st[v + V_USED]) + USED_IDX
    touch_store(lines, core, at, 2)
    store16(mem, at, new)


@kernel(inline=True)
def add_used(mem, lines, st, v, core, head, length):
    """vhost_add_used(), virtqueue_push(): give a chain back; how many became visible.

    In order, what finished early waits (virtqueue_ordered_fill, virtqueue_ordered_flush).
    """
    if not st[v + V_IN_ORDER]:
        _write_used(mem, lines, st, v, core, st[v + V_LAST_USED], head, length)
        # Barrier B: the element is there before idx says so.
        _publish_used(mem, lines, st, v, core, 1)
        return 1
    return _add_used_in_order(mem, lines, st, v, core, head, length)


@kernel(inline=True)
def _add_used_in_order(mem, lines, st, v, core, head, length):
    index = st[v + V_LAST_USED]
    slot = index & (st[v + V_NUM] - 1)
    waiting = in_flight(st, v)
    if not order.fill(st, v, slot, waiting, head, length):
        return 0
    count = 0
    while count < waiting and st[entry(v, slot) + O_FILLED]:
        words = entry(v, slot)
        head, length = st[words + O_ID], st[words + O_LENGTH]
        if not st[v + V_BATCHED]:
            _write_used(mem, lines, st, v, core, index + count, head, length)
        order.release(st, v, slot)
        slot = order.after(st, v, slot)
        count += 1
    if count == 0:
        return 0
    if st[v + V_BATCHED]:
        _write_used(mem, lines, st, v, core, index, head, length)
    # Barrier B: the elements are there before idx says so.
    _publish_used(mem, lines, st, v, core, count)
    return count


@kernel(inline=True)
def signal_needed(mem, lines, st, v, core):
    """vhost_notify(), virtio_split_should_notify(): barrier D, then is an interrupt wanted?

    signalled_used moves with every check; the first check after init or a wrap says yes.
    """
    avail = u64(st[v + V_AVAIL])
    if has_feature(st[v + V_FEATURES], F_NOTIFY_ON_EMPTY) and _ran_dry(mem, lines, st, v, core):
        return True
    if not st[v + V_EVENT_IDX]:
        touch_load(lines, core, avail, 2)
        return load16(mem, avail) & AVAIL_F_NO_INTERRUPT == 0
    old = st[v + V_SIGNALLED_USED]
    valid = st[v + V_SIGNALLED_USED_VALID]
    new = st[v + V_LAST_USED]
    st[v + V_SIGNALLED_USED] = new
    st[v + V_SIGNALLED_USED_VALID] = 1
    if not valid:
        return True
    at = avail + AVAIL_RING + TWO * u64(st[v + V_NUM])
    touch_load(lines, core, at, 2)
    return need_event(load16(mem, at), new, old)


@kernel(inline=True)
def _ran_dry(mem, lines, st, v, core):
    """Has the device run out of buffers? vhost goes by its cached index, QEMU looks."""
    if st[v + V_PERSONALITY] != QEMU:
        return st[v + V_AVAIL_IDX] == st[v + V_LAST_AVAIL]
    return in_flight(st, v) == 0 and not more_avail(mem, lines, st, v, core)


@kernel(inline=True)
def _write_used_flags(mem, lines, st, v, core):
    """vhost writes its private flags; QEMU reads the field and changes the bit."""
    used = u64(st[v + V_USED])
    flags = st[v + V_USED_FLAGS]
    if st[v + V_PERSONALITY] == QEMU:
        touch_load(lines, core, used, 2)
        flags |= load16(mem, used) & ~USED_F_NO_NOTIFY
    touch_store(lines, core, used, 2)
    store16(mem, used, flags)


@kernel(inline=True)
def disable_notify(mem, lines, st, v, core):
    """vhost_disable_notify(), virtio_queue_set_notification(0): with EVENT_IDX nothing is written.

    vhost does nothing when notifications are off already.
    """
    if st[v + V_USED_FLAGS] & USED_F_NO_NOTIFY and st[v + V_PERSONALITY] != QEMU:
        return
    st[v + V_USED_FLAGS] |= USED_F_NO_NOTIFY
    if not st[v + V_EVENT_IDX]:
        _write_used_flags(mem, lines, st, v, core)


@kernel(inline=True)
def enable_notify(mem, lines, st, v, core):
    """vhost_enable_notify(), virtio_queue_set_notification(1), up to barrier C.

    With EVENT_IDX avail_event becomes the cached available index (vhost) or the one that is there
    now (QEMU). False: vhost's notifications were on, and nothing was done.
    """
    qemu = st[v + V_PERSONALITY] == QEMU
    if st[v + V_USED_FLAGS] & USED_F_NO_NOTIFY == 0 and not qemu:
        return False
    st[v + V_USED_FLAGS] &= ~USED_F_NO_NOTIFY
    if st[v + V_EVENT_IDX]:
        if qemu:
            _read_avail_idx(mem, lines, st, v, core)
        _write_avail_event(mem, lines, st, v, core, st[v + V_AVAIL_IDX])
    else:
        _write_used_flags(mem, lines, st, v, core)
    return True


@kernel(inline=True)
def more_avail(mem, lines, st, v, core):
    """vhost_enable_notify(), second half (barrier C); virtio_queue_empty() negated.

    An index that ran away is refused, and counts as nothing new. QEMU does not look into memory
    while its cached copy is ahead.
    """
    last = st[v + V_LAST_AVAIL]
    qemu = st[v + V_PERSONALITY] == QEMU
    if qemu and st[v + V_AVAIL_IDX] != last:
        return True
    index = _read_avail_idx(mem, lines, st, v, core)
    if not qemu and not _in_reach(st, v, index):
        refuse(st, v, BAD_AVAIL_INDEX)
        return False
    return index != last
