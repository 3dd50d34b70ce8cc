"""The split virtqueue, driver side and device side, on bytes.

Words used here. A *chain* is a request as the ring sees it: a list of descriptors, device-readable
first, then device-writable. The *head* is the descriptor that the available ring names. The driver
*publishes* a chain by moving avail.idx, the device answers by moving used.idx. Each side tells the
other from which index on it wants to be notified: the driver writes used_event at the end of the
available ring, the device writes avail_event at the end of the used ring.

The driver is Linux's (drivers/virtio/virtio_ring.c, split), the device is the kernel's vhost
(drivers/vhost/vhost.c). This module knows nothing of time and nothing of SCSI. Barriers are
lettered as they pair; between the two halves of C and of D a ring can lose a wake-up, so those
halves are separate functions and the agents make them separate steps:

    A  descriptors and avail.ring before avail.idx   | avail.idx before the descriptors
    B  used.ring before used.idx                     | used.idx before used.ring
    C  avail.idx, then look at avail_event           | avail_event, then look at avail.idx
    D  used.idx, then look at used_event             | used_event, then look at used.idx

A ring's private state is a stretch of int64 words in an array `st` that begins at `d` (driver) or
`v` (device); the fields are named below. `core` is the CPU that acts, `lines` the ownership table
of sim.memory (None: nothing is charged).

Buffers travel as a *buffer list* in `st` from a base on:
    [0] readable count  [1] writable count  [2] readable bytes  [3] writable bytes
    [4 + 2i] address    [5 + 2i] length of buffer i, readable ones first.
The driver fills counts, addresses and lengths; the device's fetch fills all of it.
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
    E2BIG,
    EFAULT,
    EINVAL,
    ENOSPC,
    F_INDIRECT,
    F_NEXT,
    F_WRITE,
    INDIRECT_ENTRIES_MAX,
    IOV_MAX,
    USED_ELEM_SIZE,
    USED_F_NO_NOTIFY,
    USED_IDX,
    USED_RING,
)
from sim.memory import load16, load32, load64, store16, store32, store64, touch_load, touch_store

u64 = np.uint64

EMPTY = -1  # fetch: nothing published (vhost_get_vq_desc returns num); get_buf: nothing used

# Buffer list.
B_OUT = u64(0)
B_IN = u64(1)
B_OUT_BYTES = u64(2)
B_IN_BYTES = u64(3)
B_ENTRIES = u64(4)
TWO = u64(2)
ONE = u64(1)

# Driver: private state of struct vring_virtqueue.
(
    D_NUM,
    D_DESC,
    D_AVAIL,
    D_USED,
    D_EVENT_IDX,
    D_INDIRECT,
    D_FREE_HEAD,
    D_NUM_FREE,
    D_NUM_ADDED,
    D_AVAIL_IDX,  # avail_idx_shadow
    D_AVAIL_FLAGS,  # avail_flags_shadow
    D_LAST_USED,
    D_EVENT_TRIGGERED,
    D_BROKEN,
    D_EXTRA,  # per descriptor: next, flags, token (-1: not the head of a live chain)
) = map(u64, range(15))
EXTRA_WORDS = u64(3)
E_NEXT, E_FLAGS, E_TOKEN = map(u64, range(3))

# Device: private state of struct vhost_virtqueue.
(
    V_NUM,
    V_DESC,
    V_AVAIL,
    V_USED,
    V_EVENT_IDX,
    V_LAST_AVAIL,
    V_AVAIL_IDX,  # cached copy of the guest's avail.idx
    V_LAST_USED,
    V_USED_FLAGS,  # private: NO_NOTIFY while notifications are off
    V_SIGNALLED_USED,
    V_SIGNALLED_USED_VALID,
    V_MEMORY_SIZE,
) = map(u64, range(12))
DEVICE_WORDS = 12


def driver_words(num: int) -> int:
    """How many words of `st` the driver side of a ring of `num` entries takes."""
    return int(D_EXTRA) + int(EXTRA_WORDS) * num


@kernel
def need_event(event, new, old):
    """vring_need_event(): was the entry at index `event` published in the window old..new-1?"""
    return ((new - event - 1) & 0xFFFF) < ((new - old) & 0xFFFF)


# ------------------------------------------------------------------------------------- driver ----


@kernel
def driver_init(st, d, num, desc, avail, used, event_idx, indirect):
    """Driver state of a fresh ring: the free list is 0 -> 1 -> ... -> num-1."""
    st[d + D_NUM] = num
    st[d + D_DESC] = desc
    st[d + D_AVAIL] = avail
    st[d + D_USED] = used
    st[d + D_EVENT_IDX] = event_idx
    st[d + D_INDIRECT] = indirect
    st[d + D_FREE_HEAD] = 0
    st[d + D_NUM_FREE] = num
    st[d + D_NUM_ADDED] = 0
    st[d + D_AVAIL_IDX] = 0
    st[d + D_AVAIL_FLAGS] = 0
    st[d + D_LAST_USED] = 0
    st[d + D_EVENT_TRIGGERED] = 0
    st[d + D_BROKEN] = 0
    for i in range(num):
        extra = d + D_EXTRA + EXTRA_WORDS * u64(i)
        st[extra + E_NEXT] = i + 1
        st[extra + E_FLAGS] = 0
        st[extra + E_TOKEN] = -1


@kernel
def _extra(d, index):
    return d + D_EXTRA + EXTRA_WORDS * u64(index)


@kernel
def _write_desc(mem, lines, core, at, address, length, flags, successor):
    touch_store(lines, core, at, 16)
    store64(mem, at, address)
    store32(mem, at + DESC_LEN, length)
    store16(mem, at + DESC_FLAGS, flags)
    store16(mem, at + DESC_NEXT, successor)


@kernel
def _add_indirect(mem, lines, st, d, core, buffers, table):
    """One ring descriptor that points to a table; returns the new free_head."""
    out = st[buffers + B_OUT]
    total = out + st[buffers + B_IN]
    for i in range(total):
        entry = buffers + B_ENTRIES + TWO * u64(i)
        flags = (0 if i < out else F_WRITE) | (F_NEXT if i < total - 1 else 0)
        at = u64(table) + DESC_SIZE * u64(i)
        _write_desc(mem, lines, core, at, st[entry], st[entry + ONE], flags, i + 1)
    head = st[d + D_FREE_HEAD]
    successor = st[_extra(d, head) + E_NEXT]
    at = u64(st[d + D_DESC]) + DESC_SIZE * u64(head)
    _write_desc(mem, lines, core, at, table, 16 * total, F_INDIRECT, successor)
    st[_extra(d, head) + E_FLAGS] = F_INDIRECT
    return successor


@kernel
def _add_direct(mem, lines, st, d, core, buffers):
    """A chain in the ring itself; `next` is written in every descriptor, also in the last."""
    out = st[buffers + B_OUT]
    total = out + st[buffers + B_IN]
    index = st[d + D_FREE_HEAD]
    for i in range(total):
        entry = buffers + B_ENTRIES + TWO * u64(i)
        flags = (0 if i < out else F_WRITE) | (F_NEXT if i < total - 1 else 0)
        successor = st[_extra(d, index) + E_NEXT]
        at = u64(st[d + D_DESC]) + DESC_SIZE * u64(index)
        _write_desc(mem, lines, core, at, st[entry], st[entry + ONE], flags, successor)
        st[_extra(d, index) + E_FLAGS] = flags
        index = successor
    return index


@kernel
def add(mem, lines, st, d, core, buffers, token, table):
    """virtqueue_add_split(): make the chain and publish it (barrier A).

    `token` (>= 0) comes back from get_buf. `table` is where an indirect table may be written, 0
    when there is none (the allocation failed: the driver falls back to direct descriptors).
    Returns the head, or ENOSPC; the driver then forces a kick if the chain has readable buffers.
    """
    total = st[buffers + B_OUT] + st[buffers + B_IN]
    free = st[d + D_NUM_FREE]
    indirect = st[d + D_INDIRECT] != 0 and total > 1 and free > 0 and table != 0
    needed = 1 if indirect else total
    if free < needed:
        return ENOSPC
    head = st[d + D_FREE_HEAD]
    if indirect:
        st[d + D_FREE_HEAD] = _add_indirect(mem, lines, st, d, core, buffers, table)
    else:
        st[d + D_FREE_HEAD] = _add_direct(mem, lines, st, d, core, buffers)
    st[d + D_NUM_FREE] = free - needed
    st[_extra(d, head) + E_TOKEN] = token
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


@kernel
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


@kernel
def more_used(mem, lines, st, d, core):
    """more_used_split(): is there an entry behind last_used?"""
    used = u64(st[d + D_USED])
    touch_load(lines, core, used + USED_IDX, 2)
    return load16(mem, used + USED_IDX) != st[d + D_LAST_USED]


@kernel
def _write_used_event(mem, lines, st, d, core, value):
    at = u64(st[d + D_AVAIL]) + AVAIL_RING + TWO * u64(st[d + D_NUM])
    touch_store(lines, core, at, 2)
    store16(mem, at, value)


@kernel
def _detach(st, d, head):
    """detach_buf_split(): push the chain back at the head of the free list (LIFO)."""
    tail = head
    freed = 1
    while st[_extra(d, tail) + E_FLAGS] & F_NEXT:
        tail = st[_extra(d, tail) + E_NEXT]
        freed += 1
    st[_extra(d, tail) + E_NEXT] = st[d + D_FREE_HEAD]
    st[d + D_FREE_HEAD] = head
    st[d + D_NUM_FREE] += freed


@kernel
def get_buf(mem, lines, st, d, core):
    """virtqueue_get_buf_ctx_split(): the token of the next used chain, or EMPTY.

    An id that is out of range or not the head of a live chain marks the ring broken, as Linux
    does; a broken ring gives nothing any more.
    """
    if st[d + D_BROKEN] or not more_used(mem, lines, st, d, core):
        return EMPTY
    # Barrier B: used.idx was read before the entry.
    last = st[d + D_LAST_USED]
    num = st[d + D_NUM]
    at = u64(st[d + D_USED]) + USED_RING + USED_ELEM_SIZE * u64(last & (num - 1))
    touch_load(lines, core, at, 8)
    head = load32(mem, at)
    if head >= num or st[_extra(d, head) + E_TOKEN] < 0:
        st[d + D_BROKEN] = 1
        return EMPTY
    token = st[_extra(d, head) + E_TOKEN]
    st[_extra(d, head) + E_TOKEN] = -1
    _detach(st, d, head)
    last = (last + 1) & 0xFFFF
    st[d + D_LAST_USED] = last
    if st[d + D_AVAIL_FLAGS] & AVAIL_F_NO_INTERRUPT == 0 and st[d + D_EVENT_IDX]:
        _write_used_event(mem, lines, st, d, core, last)
    return token


@kernel
def vring_interrupt(mem, lines, st, d, core):
    """vring_interrupt(): False for a spurious interrupt, else note that one was triggered."""
    if not more_used(mem, lines, st, d, core):
        return False
    if st[d + D_EVENT_IDX]:
        st[d + D_EVENT_TRIGGERED] = 1
    return True


@kernel
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
        touch_store(lines, core, st[d + D_AVAIL], 2)
        store16(mem, u64(st[d + D_AVAIL]), st[d + D_AVAIL_FLAGS])


@kernel
def enable_cb_prepare(mem, lines, st, d, core):
    """virtqueue_enable_cb_prepare_split(): ask for the next interrupt; look again after it (D)."""
    st[d + D_EVENT_TRIGGERED] = 0
    if st[d + D_AVAIL_FLAGS] & AVAIL_F_NO_INTERRUPT:
        st[d + D_AVAIL_FLAGS] &= ~AVAIL_F_NO_INTERRUPT
        if not st[d + D_EVENT_IDX]:
            touch_store(lines, core, st[d + D_AVAIL], 2)
            store16(mem, u64(st[d + D_AVAIL]), st[d + D_AVAIL_FLAGS])
    # Linux writes used_event here whether or not EVENT_IDX was agreed.
    _write_used_event(mem, lines, st, d, core, st[d + D_LAST_USED])


# ------------------------------------------------------------------------------------- device ----


@kernel
def device_init(mem, st, v, num, desc, avail, used, event_idx, last_avail):
    """Device state when a backend is attached (SET_VRING_*, then vhost_vq_init_access()).

    last_used comes from the guest's used.idx; used.flags is rewritten from the private flags.
    """
    st[v + V_NUM] = num
    st[v + V_DESC] = desc
    st[v + V_AVAIL] = avail
    st[v + V_USED] = used
    st[v + V_EVENT_IDX] = event_idx
    st[v + V_LAST_AVAIL] = last_avail
    st[v + V_AVAIL_IDX] = last_avail
    st[v + V_LAST_USED] = load16(mem, u64(used) + USED_IDX)
    st[v + V_SIGNALLED_USED] = 0
    st[v + V_SIGNALLED_USED_VALID] = 0
    st[v + V_MEMORY_SIZE] = mem.size
    store16(mem, u64(used), st[v + V_USED_FLAGS])


@kernel
def _in_memory(st, v, address, length):
    """Is [address, address + length) inside guest memory? `address` is a signed 64-bit word."""
    return address >= 0 and length <= st[v + V_MEMORY_SIZE] - address


@kernel
def _read_avail_idx(mem, lines, st, v, core):
    """vhost_get_avail_idx(): refresh the cached copy; EINVAL if it ran more than num ahead."""
    at = u64(st[v + V_AVAIL]) + AVAIL_IDX
    touch_load(lines, core, at, 2)
    st[v + V_AVAIL_IDX] = load16(mem, at)
    if (st[v + V_AVAIL_IDX] - st[v + V_LAST_AVAIL]) & 0xFFFF > st[v + V_NUM]:
        return EINVAL
    return 0


@kernel
def _take_buffer(st, v, buffers, address, length, flags):
    """Append one descriptor to the buffer list; 0 or a negative errno."""
    out = st[buffers + B_OUT]
    count = out + st[buffers + B_IN]
    if length and not _in_memory(st, v, address, length):
        return EFAULT
    if count >= IOV_MAX:
        return EINVAL
    if flags & F_WRITE:
        st[buffers + B_IN] += 1
        st[buffers + B_IN_BYTES] += length
    else:
        if st[buffers + B_IN]:
            return EINVAL  # a readable descriptor behind a writable one
        st[buffers + B_OUT] = out + 1
        st[buffers + B_OUT_BYTES] += length
    entry = buffers + B_ENTRIES + TWO * u64(count)
    st[entry] = address
    st[entry + ONE] = length
    return 0


@kernel
def _walk_table(mem, lines, st, v, core, buffers, table, table_bytes):
    """get_indirect(): the table is read one entry after the other, whatever `next` says."""
    if table_bytes % 16:
        return EINVAL
    entries = table_bytes // 16
    if entries > INDIRECT_ENTRIES_MAX:
        return E2BIG
    if not _in_memory(st, v, table, table_bytes):
        return EFAULT
    for i in range(entries):
        at = u64(table) + DESC_SIZE * u64(i)
        touch_load(lines, core, at, 16)
        flags = load16(mem, at + DESC_FLAGS)
        if flags & F_INDIRECT:
            return EINVAL
        error = _take_buffer(st, v, buffers, load64(mem, at), load32(mem, at + DESC_LEN), flags)
        if error:
            return error
        if flags & F_NEXT == 0:
            return 0
    return EINVAL  # the last entry promised another one


@kernel
def _walk_chain(mem, lines, st, v, core, buffers, head):
    """The descriptor loop of vhost_get_vq_desc_n(); 0 or a negative errno."""
    num = st[v + V_NUM]
    index = head
    for _ in range(num):
        if index >= num:
            return EINVAL
        at = u64(st[v + V_DESC]) + DESC_SIZE * u64(index)
        touch_load(lines, core, at, 16)
        address = load64(mem, at)
        length = load32(mem, at + DESC_LEN)
        flags = load16(mem, at + DESC_FLAGS)
        if flags & F_INDIRECT:
            error = _walk_table(mem, lines, st, v, core, buffers, address, length)
        else:
            error = _take_buffer(st, v, buffers, address, length, flags)
        if error:
            return error
        if flags & F_NEXT == 0:
            return 0
        index = load16(mem, at + DESC_NEXT)
    return EINVAL  # a loop: more descriptors than the ring has


@kernel
def fetch(mem, lines, st, v, core, buffers):
    """vhost_get_vq_desc(): take the next published chain into the buffer list.

    Returns the head, EMPTY, or a negative errno; on an errno last_avail stays, so the queue is
    stuck on that head until it is reset. avail.idx is read only when the cached copy is used up.
    """
    last = st[v + V_LAST_AVAIL]
    if st[v + V_AVAIL_IDX] == last:
        error = _read_avail_idx(mem, lines, st, v, core)
        if error:
            return error
        if st[v + V_AVAIL_IDX] == last:
            return EMPTY
    # Barrier A: avail.idx was read before the entry and the descriptors.
    at = u64(st[v + V_AVAIL]) + AVAIL_RING + TWO * u64(last & (st[v + V_NUM] - 1))
    touch_load(lines, core, at, 2)
    head = load16(mem, at)
    st[buffers + B_OUT] = 0
    st[buffers + B_IN] = 0
    st[buffers + B_OUT_BYTES] = 0
    st[buffers + B_IN_BYTES] = 0
    error = _walk_chain(mem, lines, st, v, core, buffers, head)
    if error:
        return error
    st[v + V_LAST_AVAIL] = (last + 1) & 0xFFFF
    return head


@kernel
def add_used(mem, lines, st, v, core, head, length):
    """vhost_add_used(): write one used element and publish it (barrier B).

    vhost-scsi always says length 0.
    """
    old = st[v + V_LAST_USED]
    used = u64(st[v + V_USED])
    at = used + USED_RING + USED_ELEM_SIZE * u64(old & (st[v + V_NUM] - 1))
    touch_store(lines, core, at, 8)
    store32(mem, at, head)
    store32(mem, at + u64(4), length)
    # Barrier B: the element is there before idx says so.
    new = (old + 1) & 0xFFFF
    st[v + V_LAST_USED] = new
    if (new - st[v + V_SIGNALLED_USED]) & 0xFFFF < (new - old) & 0xFFFF:
        st[v + V_SIGNALLED_USED_VALID] = 0  # the index ran a full lap since the last check
    touch_store(lines, core, used + USED_IDX, 2)
    store16(mem, used + USED_IDX, new)


@kernel
def signal_needed(mem, lines, st, v, core):
    """vhost_notify(): barrier D, then does the driver want an interrupt?

    signalled_used moves with every check; the first check after init or a wrap says yes.
    """
    avail = u64(st[v + V_AVAIL])
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


@kernel
def disable_notify(mem, lines, st, v, core):
    """vhost_disable_notify(): with EVENT_IDX it writes nothing."""
    if st[v + V_USED_FLAGS] & USED_F_NO_NOTIFY:
        return
    st[v + V_USED_FLAGS] |= USED_F_NO_NOTIFY
    if not st[v + V_EVENT_IDX]:
        touch_store(lines, core, st[v + V_USED], 2)
        store16(mem, u64(st[v + V_USED]), st[v + V_USED_FLAGS])


@kernel
def enable_notify(mem, lines, st, v, core):
    """vhost_enable_notify(), first half: ask for the next kick.

    With EVENT_IDX avail_event becomes the cached avail index. False: notifications were on.
    """
    if st[v + V_USED_FLAGS] & USED_F_NO_NOTIFY == 0:
        return False
    st[v + V_USED_FLAGS] &= ~USED_F_NO_NOTIFY
    used = u64(st[v + V_USED])
    if st[v + V_EVENT_IDX]:
        at = used + USED_RING + USED_ELEM_SIZE * u64(st[v + V_NUM])
        touch_store(lines, core, at, 2)
        store16(mem, at, st[v + V_AVAIL_IDX])
    else:
        touch_store(lines, core, used, 2)
        store16(mem, used, st[v + V_USED_FLAGS])
    return True


@kernel
def more_avail(mem, lines, st, v, core):
    """vhost_enable_notify(), second half (barrier C): has avail.idx moved meanwhile?

    An index that ran away counts as movement; the next fetch refuses it.
    """
    at = u64(st[v + V_AVAIL]) + AVAIL_IDX
    touch_load(lines, core, at, 2)
    st[v + V_AVAIL_IDX] = load16(mem, at)
    return st[v + V_AVAIL_IDX] != st[v + V_LAST_AVAIL]
