"""The split ring, device side: the kernel's vhost and QEMU.

KERNEL_VHOST is drivers/vhost/vhost.c, QEMU is hw/virtio/virtio.c, the functions named *_split.
sim.vring has the contract, the barriers' letters and the buffer list.

Where the two differ: vhost writes avail_event only when it turns notifications on, from its cached
index, QEMU on every pop as well; vhost refuses an available index that ran away, QEMU notices that
more buffers are in flight than the ring has; vhost reads an indirect table one entry after the
other, wherever it stands in the chain, QEMU follows `next` and takes a table only at the head; QEMU
counts a wrap guard in signed 16 bits.
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
    F_INDIRECT,
    F_NEXT,
    F_NOTIFY_ON_EMPTY,
    INDIRECT_ENTRIES_MAX,
    RING_SIZE_MAX,
    USED_ELEM_SIZE,
    USED_F_NO_NOTIFY,
    USED_IDX,
    USED_RING,
)
from sim.memory import load16, load32, load64, store16, store32, touch_load, touch_store
from sim.ring import order
from sim.ring.common import (
    BAD_AVAIL_INDEX,
    BAD_BASE,
    BAD_HEAD,
    BAD_NEXT,
    BAD_RING_ADDRESS,
    BAD_RING_ALIGNMENT,
    BAD_RING_SIZE,
    BAD_TABLE_ADDRESS,
    BAD_TABLE_LENGTH,
    EMPTY,
    LOOP,
    NESTED_TABLE,
    O_FILLED,
    O_ID,
    O_LENGTH,
    QEMU,
    SOUND,
    TABLE_TOO_LONG,
    TOO_MANY_IN_FLIGHT,
    TWO,
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
    clear_buffers,
    entry,
    has_feature,
    in_memory,
    need_event,
    refuse,
    take_buffer,
)

u64 = np.uint64


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
        at = u64(st[v + V_AVAIL]) + AVAIL_IDX
        touch_load(lines, core, at, 2)
        index = load16(mem, at)
        if index == last:
            return EMPTY
        if not _in_reach(st, v, index):
            return refuse(st, v, BAD_AVAIL_INDEX)
        st[v + V_AVAIL_IDX] = index
    # Barrier A: avail.idx was read before the entry and the descriptors.
    head = _head_at(mem, lines, st, v, core, last)
    clear_buffers(st, buffers)
    verdict = _walk_chain(mem, lines, st, v, core, buffers, head)
    if verdict:
        return refuse(st, v, verdict)
    st[v + V_LAST_AVAIL] = (last + 1) & 0xFFFF
    return head


@kernel
def fetch_again(mem, lines, st, v, core, buffers, head):
    """Walk a chain without looking into the available ring."""
    clear_buffers(st, buffers)
    verdict = _walk_chain(mem, lines, st, v, core, buffers, head)
    return refuse(st, v, verdict) if verdict else head


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
