"""What both rings share: the words of a ring's private state, the buffer list, the verdicts.

A *verdict* is the name of what is wrong with a ring that hostile or broken software wrote. Whoever
finds it notes it in its private state (the last verdict, and a counter for each) and reacts as the
code it stands for: the kernel's vhost answers with an errno and stays on that head for ever, QEMU
declares the device broken and asks for a reset, the Linux driver marks the ring broken.
"""

import numpy as np

from sim.jit import kernel
from sim.layout import (
    E2BIG,
    EFAULT,
    EINVAL,
    ENOBUFS,
    EVENT_FLAGS,
    F_VERSION_1,
    F_WRITE,
    IOV_MAX,
    STATUS_NEEDS_RESET,
)
from sim.memory import store16, touch_store

u64 = np.uint64
ONE, TWO = u64(1), u64(2)

EMPTY = -1  # fetch: nothing published; get_buf: nothing used; detach_unused_buf: nothing left

# Whose habits the device side has.
KERNEL_VHOST, QEMU = 0, 1

# Buffer list.
B_OUT = u64(0)
B_IN = u64(1)
B_OUT_BYTES = u64(2)
B_IN_BYTES = u64(3)
B_ENTRIES = u64(4)

# Verdicts (sim.ring.verdicts tells their story). 0 is a sound ring.
VERDICTS = (
    'SOUND',
    'BAD_RING_SIZE',
    'BAD_RING_ALIGNMENT',
    'BAD_RING_ADDRESS',
    'BAD_BASE',
    'BAD_AVAIL_INDEX',
    'BAD_HEAD',
    'BAD_NEXT',
    'LOOP',
    'BAD_ORDER',
    'NESTED_TABLE',
    'BAD_TABLE_LENGTH',
    'TABLE_TOO_LONG',
    'BAD_TABLE_ADDRESS',
    'BAD_BUFFER_ADDRESS',
    'TOO_MANY_BUFFERS',
    'ZERO_LENGTH',
    'TOO_MANY_IN_FLIGHT',
    'BAD_BUFFER_ID',
    'NOT_IN_FLIGHT',
    'USED_ID_RANGE',
    'USED_NOT_A_HEAD',
)
(
    SOUND,
    BAD_RING_SIZE,
    BAD_RING_ALIGNMENT,
    BAD_RING_ADDRESS,
    BAD_BASE,
    BAD_AVAIL_INDEX,
    BAD_HEAD,
    BAD_NEXT,
    LOOP,
    BAD_ORDER,
    NESTED_TABLE,
    BAD_TABLE_LENGTH,
    TABLE_TOO_LONG,
    BAD_TABLE_ADDRESS,
    BAD_BUFFER_ADDRESS,
    TOO_MANY_BUFFERS,
    ZERO_LENGTH,
    TOO_MANY_IN_FLIGHT,
    BAD_BUFFER_ID,
    NOT_IN_FLIGHT,
    USED_ID_RANGE,
    USED_NOT_A_HEAD,
) = range(22)

# Driver: private state of struct vring_virtqueue. What a packed ring reads differently stands
# behind the name.
(
    D_PACKED,
    D_NUM,
    D_DESC,
    D_AVAIL,  # packed: driver event structure
    D_USED,  # packed: device event structure
    D_FEATURES,
    D_EVENT_IDX,
    D_INDIRECT,
    D_IN_ORDER,
    D_FREE_HEAD,
    D_NUM_FREE,
    D_NUM_ADDED,  # descriptors
    D_AVAIL_IDX,  # avail_idx_shadow; packed: next_avail_idx
    D_AVAIL_WRAP,  # packed only
    D_AVAIL_FLAGS,  # avail_flags_shadow; packed: event_flags_shadow
    D_LAST_USED,  # last_used_idx; packed: with the wrap counter in bit 15
    D_LAST_HEAD,  # in order, split: the head that is used next
    D_BATCH_ID,  # in order: batch_last, NO_BATCH while none is being read
    D_BATCH_LENGTH,
    D_USED_LENGTH,  # length of the buffer that get_buf returned last
    D_EVENT_TRIGGERED,
    D_BROKEN,
    D_VERDICT,
    D_VERDICTS,  # a counter per verdict
) = map(u64, range(24))
D_EXTRA = D_VERDICTS + u64(len(VERDICTS))  # then, per descriptor (packed: per buffer id):
E_NEXT, E_TOKEN, E_LAST, E_COUNT, E_BYTES = map(u64, range(5))
EXTRA_WORDS = u64(5)
NO_BATCH = -1

# Device: private state of struct vhost_virtqueue, and of QEMU's VirtQueue.
(
    V_PACKED,
    V_NUM,
    V_DESC,
    V_AVAIL,  # packed: driver event structure
    V_USED,  # packed: device event structure
    V_FEATURES,
    V_EVENT_IDX,
    V_IN_ORDER,
    V_BATCHED,  # in order: one used element for all that became publishable (a device's choice)
    V_PERSONALITY,
    V_STRICT,  # chains are checked and refused as QEMU does: its personality, or a packed ring
    V_LAST_AVAIL,
    V_AVAIL_WRAP,  # packed only
    V_AVAIL_IDX,  # cached copy of the guest's avail.idx (shadow_avail_idx)
    V_LAST_USED,
    V_USED_WRAP,  # packed only
    V_USED_FLAGS,  # private: NO_NOTIFY while notifications are off
    V_SIGNALLED_USED,
    V_SIGNALLED_USED_VALID,
    V_INUSE,  # packed: descriptors taken and not yet used; split: see in_use()
    V_HELD,  # in order: completions held back behind a slower buffer
    V_MEMORY_SIZE,
    V_BROKEN,  # fetch gives nothing any more
    V_STATUS,  # bits of the device status register that this queue has raised
    V_VERDICT,
    V_VERDICTS,  # a counter per verdict
) = map(u64, range(26))
V_TABLE = V_VERDICTS + u64(len(VERDICTS))  # then num entries of:
(
    T_COUNT,  # packed, by buffer id: descriptors of the buffer in flight
    O_ID,  # in order, by slot: used_elems of QEMU
    O_LENGTH,
    O_COUNT,
    O_FILLED,
) = map(u64, range(5))
TABLE_WORDS = u64(5)


@kernel(inline=True)
def extra(d, index):
    """The driver's words about descriptor or buffer id `index`."""
    return d + D_EXTRA + EXTRA_WORDS * u64(index)


@kernel(inline=True)
def entry(v, index):
    """The device's words about slot or buffer id `index`."""
    return v + V_TABLE + TABLE_WORDS * u64(index)


@kernel(inline=True)
def need_event(event, new, old):
    """vring_need_event(): was the entry at index `event` published in the window old..new-1?"""
    return ((new - event - 1) & 0xFFFF) < ((new - old) & 0xFFFF)


@kernel(inline=True)
def write_off_wrap(mem, lines, core, at, value):
    """Packed: say in the event structure at `at` from which descriptor on to notify."""
    touch_store(lines, core, at, 2)
    store16(mem, at, value)


@kernel(inline=True)
def write_event_flags(mem, lines, core, at, flags):
    """Packed: say in the event structure at `at` whether to notify."""
    touch_store(lines, core, at + EVENT_FLAGS, 2)
    store16(mem, at + EVENT_FLAGS, flags)


@kernel(inline=True)
def has_feature(features, bit):
    """1 if feature `bit` is in `features`, else 0."""
    return (features >> bit) & 1


@kernel
def errno_of(verdict):
    """What the kernel answers to a verdict."""
    if verdict == TABLE_TOO_LONG:
        return E2BIG
    if verdict == TOO_MANY_BUFFERS:
        return ENOBUFS
    if verdict in (BAD_RING_ADDRESS, BAD_TABLE_ADDRESS, BAD_BUFFER_ADDRESS):
        return EFAULT
    return EINVAL


@kernel
def _note(st, v, verdict):
    st[v + V_VERDICT] = verdict
    st[v + V_VERDICTS + u64(verdict)] += 1


@kernel
def break_device(st, v, verdict):
    """virtio_error() of QEMU: broken, and with VERSION_1 the status register says so."""
    _note(st, v, verdict)
    st[v + V_BROKEN] = 1
    if has_feature(st[v + V_FEATURES], F_VERSION_1):
        st[v + V_STATUS] |= STATUS_NEEDS_RESET


@kernel
def refuse(st, v, verdict):
    """The device refuses what it found: note it, and react as its model does.

    vhost (vq_err) changes nothing and will meet the same bytes again; QEMU (virtio_error) breaks
    the device, and so does every packed ring, whose code is QEMU's. Returns the errno.
    """
    if st[v + V_STRICT]:
        break_device(st, v, verdict)
    else:
        _note(st, v, verdict)
    return errno_of(verdict)


@kernel
def bad_ring(st, d, verdict):
    """BAD_RING() of the Linux driver: note the verdict, use the ring no more."""
    st[d + D_VERDICT] = verdict
    st[d + D_VERDICTS + u64(verdict)] += 1
    st[d + D_BROKEN] = 1
    return EMPTY


@kernel(inline=True)
def in_memory(size, address, length):
    """Does [address, address + length) lie in `size` bytes? `address` is a signed 64-bit word."""
    return address >= 0 and length <= size - address


@kernel(inline=True)
def clear_buffers(st, buffers):
    """An empty buffer list."""
    st[buffers + B_OUT] = 0
    st[buffers + B_IN] = 0
    st[buffers + B_OUT_BYTES] = 0
    st[buffers + B_IN_BYTES] = 0


@kernel(inline=True)
def take_buffer(st, v, buffers, address, length, flags):
    """Append one descriptor to the buffer list; a verdict."""
    out, writable = st[buffers + B_OUT], st[buffers + B_IN]
    write = flags & F_WRITE
    fits = length and in_memory(st[v + V_MEMORY_SIZE], address, length) and out + writable < IOV_MAX
    if not fits or (writable and not write):
        return _odd_buffer(st, v, address, length, out + writable, writable and not write)
    if write:
        st[buffers + B_IN] = writable + 1
        st[buffers + B_IN_BYTES] += length
    else:
        st[buffers + B_OUT] = out + 1
        st[buffers + B_OUT_BYTES] += length
    at = buffers + B_ENTRIES + TWO * u64(out + writable)
    st[at] = address
    st[at + ONE] = length
    return SOUND


@kernel
def _odd_buffer(st, v, address, length, count, misplaced):
    """What of a descriptor is noticed first, if it cannot be appended.

    vhost (translate_desc) translates first and takes a descriptor of no bytes for nothing at all;
    QEMU (virtqueue_map_desc) looks at the order first and refuses zero length.
    """
    if st[v + V_STRICT]:
        if misplaced:
            return BAD_ORDER
        if length == 0:
            return ZERO_LENGTH
    if length:
        if not in_memory(st[v + V_MEMORY_SIZE], address, length):
            return BAD_BUFFER_ADDRESS
        if count >= IOV_MAX:
            return TOO_MANY_BUFFERS
    return BAD_ORDER if misplaced else SOUND
