"""The virtqueue, split and packed, driver side and device side, on bytes.

Words used here. A *chain* is a request as the ring sees it: a list of descriptors, device-readable
first, then device-writable. In a split ring its *head* is the descriptor that the available ring
names; in a packed ring its *buffer id*: whatever stands in this module's place of a head is then
the buffer id, and it is below the ring's size in both. The driver *publishes* a chain by moving
avail.idx (packed: with the flags of the chain's first descriptor), the device answers by moving
used.idx (packed: with the flags of a used descriptor). Each side tells the other from which index
on it wants to be notified: the driver writes used_event, the device writes avail_event (packed:
each its event suppression structure).

Which ring it is, is a word of the state: the dozen operations below have the same names and the
same arguments for both, and go to sim.ring.split_driver, sim.ring.packed_device and their
siblings. Where a split ring has descriptor table, available ring and used ring, a packed ring has
descriptor ring, driver event structure and device event structure. The driver is Linux's, the
device is the kernel's vhost or QEMU's (`personality`). This module knows nothing of time and
nothing of SCSI.

Barriers are lettered as they pair; between the two halves of C and of D a ring can lose a wake-up,
so those halves are separate functions and the agents make them separate steps:

    A  descriptors and avail.ring before avail.idx   | avail.idx before the descriptors
    B  used.ring before used.idx                     | used.idx before used.ring
    C  avail.idx, then look at avail_event           | avail_event, then look at avail.idx
    D  used.idx, then look at used_event             | used_event, then look at used.idx

A ring's private state is a stretch of int64 words in an array `st` that begins at `d` (driver) or
`v` (device); sim.ring.common names the fields. `core` is the CPU that acts, `lines` the ownership
table of sim.memory (None: nothing is charged).

Buffers travel as a *buffer list* in `st` from a base on:
    [0] readable count  [1] writable count  [2] readable bytes  [3] writable bytes
    [4 + 2i] address    [5 + 2i] length of buffer i, readable ones first.
The driver fills counts, addresses and lengths; the device's fetch fills all of it, up to IOV_MAX
buffers: its list needs 4 + 2 * IOV_MAX words.

Nothing here trusts memory that the other side can write: sim.ring.verdicts says what is refused.
"""

# ruff: noqa: F405

from sim.jit import kernel
from sim.layout import F_EVENT_IDX, F_IN_ORDER, F_INDIRECT_DESC, F_RING_PACKED
from sim.ring import packed_device, packed_driver, split_device, split_driver
from sim.ring.common import *  # noqa: F403  (its words are this module's as well)

FRESH_PACKED = 0x80008000  # both indices 0, both wrap counters 1


def driver_words(num: int) -> int:
    """How many words of `st` the driver side of a ring of `num` entries takes."""
    return int(D_EXTRA) + int(EXTRA_WORDS) * num


def device_words(num: int) -> int:
    """How many words of `st` the device side of a ring of `num` entries takes."""
    return int(V_TABLE) + int(TABLE_WORDS) * num


def fresh_base(features: int) -> int:
    """Where a device begins on a ring that nobody has used (as VHOST_SET_VRING_BASE says it)."""
    return FRESH_PACKED if features >> F_RING_PACKED & 1 else 0


# ------------------------------------------------------------------------------------- driver ----


@kernel
def driver_init(st, d, num, desc, avail, used, features):
    """Driver state of a fresh ring in zeroed memory; interrupts are on.

    `features` are the agreed feature bits, as one int. The free list is 0 -> 1 -> ... -> num-1.
    """
    st[d + D_PACKED] = has_feature(features, F_RING_PACKED)
    st[d + D_NUM] = num
    st[d + D_DESC] = desc
    st[d + D_AVAIL] = avail
    st[d + D_USED] = used
    st[d + D_FEATURES] = features
    st[d + D_EVENT_IDX] = has_feature(features, F_EVENT_IDX)
    st[d + D_INDIRECT] = has_feature(features, F_INDIRECT_DESC)
    st[d + D_IN_ORDER] = has_feature(features, F_IN_ORDER)
    st[d + D_FREE_HEAD] = 0
    st[d + D_NUM_FREE] = num
    st[d + D_NUM_ADDED] = 0
    st[d + D_AVAIL_IDX] = 0
    st[d + D_AVAIL_WRAP] = 1
    st[d + D_AVAIL_FLAGS] = 0
    st[d + D_LAST_USED] = st[d + D_PACKED] << 15
    st[d + D_LAST_HEAD] = 0
    st[d + D_BATCH_ID] = NO_BATCH
    st[d + D_BATCH_LENGTH] = 0
    st[d + D_USED_LENGTH] = 0
    st[d + D_EVENT_TRIGGERED] = 0
    st[d + D_BROKEN] = 0
    for at in range(d + D_VERDICT, d + D_EXTRA):
        st[u64(at)] = 0
    for i in range(num):
        words = extra(d, i)
        st[words + E_NEXT] = i + 1 if i + 1 < num else 0
        st[words + E_TOKEN] = EMPTY


@kernel
def init_without_callback(mem, st, d):
    """After driver_init: a queue that is polled (virtscsi_poll_queues) asks for no interrupts."""
    if st[d + D_PACKED]:
        packed_driver.init_without_callback(mem, st, d)
    else:
        split_driver.init_without_callback(mem, st, d)


@kernel
def driver_reset(mem, st, d):
    """virtqueue_reset() after VIRTIO_F_RING_RESET: memory and state as of a fresh ring.

    Buffers that are still out are forgotten: take them back with detach_unused_buf first.
    """
    if st[d + D_PACKED]:
        packed_driver.clear_ring(mem, st, d)
    else:
        split_driver.clear_ring(mem, st, d)
    driver_init(
        st,
        d,
        st[d + D_NUM],
        st[d + D_DESC],
        st[d + D_AVAIL],
        st[d + D_USED],
        st[d + D_FEATURES],
    )


@kernel(inline=True)
def add(mem, lines, st, d, core, buffers, token, table):
    """virtqueue_add(): make the chain and publish it (barrier A).

    `token` (>= 0) comes back from get_buf. `table` is where an indirect table may be written, 0
    when there is none (the allocation failed: the driver falls back to direct descriptors).
    Returns the head, ENOSPC, or EIO when the ring is broken. After ENOSPC the driver of a split
    ring forces a kick if the chain has readable buffers. Linux kicks by itself when 65535 chains
    were added without a look at the kick; no ring is large enough for that here.
    """
    if st[d + D_PACKED]:
        return packed_driver.add(mem, lines, st, d, core, buffers, token, table)
    return split_driver.add(mem, lines, st, d, core, buffers, token, table)


@kernel(inline=True)
def kick_prepare(mem, lines, st, d, core):
    """virtqueue_kick_prepare(): barrier C, then does the device want this notification?"""
    if st[d + D_BROKEN]:
        return False  # virtqueue_notify() does nothing on a broken ring
    if st[d + D_PACKED]:
        return packed_driver.kick_prepare(mem, lines, st, d, core)
    return split_driver.kick_prepare(mem, lines, st, d, core)


@kernel(inline=True)
def notification_data(st, d, vq):
    """What a kick carries with VIRTIO_F_NOTIFICATION_DATA: next << 16 | vq, 32 bits."""
    if st[d + D_PACKED]:
        return packed_driver.notification_data(st, d, vq)
    return split_driver.notification_data(st, d, vq)


@kernel(inline=True)
def more_used(mem, lines, st, d, core):
    """more_used(): has the device given something back that get_buf has not returned?"""
    if st[d + D_PACKED]:
        return packed_driver.more_used(mem, lines, st, d, core)
    return split_driver.more_used(mem, lines, st, d, core)


@kernel(inline=True)
def get_buf(mem, lines, st, d, core):
    """virtqueue_get_buf(): the token of the next used chain, or EMPTY.

    D_USED_LENGTH is then the length that the device reported. An id that is out of range or not
    that of a live chain marks the ring broken (D_VERDICT says why), as Linux does; a broken ring
    gives nothing any more.
    """
    if st[d + D_PACKED]:
        return packed_driver.get_buf(mem, lines, st, d, core)
    return split_driver.get_buf(mem, lines, st, d, core)


@kernel(inline=True)
def vring_interrupt(mem, lines, st, d, core):
    """vring_interrupt(): False for a spurious interrupt, else note that one was triggered."""
    if not more_used(mem, lines, st, d, core) or st[d + D_BROKEN]:
        return False
    if st[d + D_EVENT_IDX]:
        st[d + D_EVENT_TRIGGERED] = 1
    return True


@kernel(inline=True)
def disable_cb(mem, lines, st, d, core):
    """virtqueue_disable_cb(): no interrupts, please; a hint, not a promise."""
    if st[d + D_PACKED]:
        packed_driver.disable_cb(mem, lines, st, d, core)
    else:
        split_driver.disable_cb(mem, lines, st, d, core)


@kernel(inline=True)
def enable_cb_prepare(mem, lines, st, d, core):
    """virtqueue_enable_cb_prepare(): ask for the next interrupt; more_used() must follow (D)."""
    if st[d + D_PACKED]:
        packed_driver.enable_cb_prepare(mem, lines, st, d, core)
    else:
        split_driver.enable_cb_prepare(mem, lines, st, d, core)


@kernel(inline=True)
def enable_cb(mem, lines, st, d, core):
    """virtqueue_enable_cb(), both halves: False when something was used meanwhile."""
    enable_cb_prepare(mem, lines, st, d, core)
    return not more_used(mem, lines, st, d, core)


@kernel(inline=True)
def enable_cb_delayed_prepare(mem, lines, st, d, core):
    """virtqueue_enable_cb_delayed(), first half: interrupt when 3/4 of what is out came back.

    Returns what the second half must be given.
    """
    if st[d + D_PACKED]:
        return packed_driver.enable_cb_delayed_prepare(mem, lines, st, d, core)
    return split_driver.enable_cb_delayed_prepare(mem, lines, st, d, core)


@kernel(inline=True)
def enable_cb_delayed_check(mem, lines, st, d, core, wanted):
    """virtqueue_enable_cb_delayed(), second half (D): False when there is enough already."""
    if st[d + D_PACKED]:
        return packed_driver.enable_cb_delayed_check(mem, lines, st, d, core, wanted)
    return split_driver.enable_cb_delayed_check(mem, lines, st, d, core, wanted)


@kernel(inline=True)
def enable_cb_delayed(mem, lines, st, d, core):
    """virtqueue_enable_cb_delayed(), both halves."""
    wanted = enable_cb_delayed_prepare(mem, lines, st, d, core)
    return enable_cb_delayed_check(mem, lines, st, d, core, wanted)


@kernel
def detach_unused_buf(mem, st, d):
    """virtqueue_detach_unused_buf(): once the device has stopped, take a chain back.

    Returns its token, or EMPTY when no chain is out any more.
    """
    if st[d + D_PACKED]:
        return packed_driver.detach_unused_buf(mem, st, d)
    return split_driver.detach_unused_buf(mem, st, d)


# ------------------------------------------------------------------------------------- device ----


@kernel
def device_init(mem, st, v, num, desc, avail, used, features, base, personality=KERNEL_VHOST):
    """Device state when a backend is attached; 0, or the errno of why it cannot be.

    `base` says where to go on, as VHOST_SET_VRING_BASE does: last_avail_idx for a split ring; for a
    packed one last_avail_idx | wrap << 15, with used_idx | wrap << 15 in the high half (fresh_base
    gives the beginning). A queue that is refused here stays silent. Private flags survive, as in
    the kernel. V_BATCHED may be set afterwards.
    """
    st[v + V_PACKED] = has_feature(features, F_RING_PACKED)
    st[v + V_NUM] = num
    st[v + V_DESC] = desc
    st[v + V_AVAIL] = avail
    st[v + V_USED] = used
    st[v + V_FEATURES] = features
    st[v + V_EVENT_IDX] = has_feature(features, F_EVENT_IDX)
    st[v + V_IN_ORDER] = has_feature(features, F_IN_ORDER)
    st[v + V_BATCHED] = 0
    st[v + V_PERSONALITY] = personality
    st[v + V_STRICT] = 1 if st[v + V_PACKED] or personality == QEMU else 0
    st[v + V_SIGNALLED_USED] = 0
    st[v + V_SIGNALLED_USED_VALID] = 0
    st[v + V_INUSE] = 0
    st[v + V_HELD] = 0
    st[v + V_MEMORY_SIZE] = mem.size
    st[v + V_BROKEN] = 0
    st[v + V_STATUS] = 0
    for at in range(v + V_VERDICT, v + V_TABLE):
        st[u64(at)] = 0
    verdict = _attach(mem, st, v, num, desc, avail, used, base)
    if verdict:
        st[v + V_BROKEN] = 1
        return refuse(st, v, verdict)
    return 0


@kernel
def _attach(mem, st, v, num, desc, avail, used, base):
    """Look at the areas before anything is read or written there; a verdict."""
    if st[v + V_PACKED]:
        verdict = packed_device.check_areas(mem, num, desc, avail, used)
    else:
        verdict = split_device.check_areas(mem, num, desc, avail, used, st[v + V_EVENT_IDX])
    if verdict:
        return verdict
    for at in range(v + V_TABLE, v + V_TABLE + TABLE_WORDS * u64(num)):
        st[u64(at)] = 0
    if st[v + V_PACKED]:
        verdict = packed_device.device_init(mem, st, v, base)
    else:
        verdict = split_device.device_init(mem, st, v, base)
    if not verdict and st[v + V_IN_ORDER] and in_flight(st, v):
        return BAD_BASE  # in which order would it have to give back what it does not know?
    return verdict


@kernel(inline=True)
def fetch(mem, lines, st, v, core, buffers):
    """vhost_get_vq_desc(): take the next published chain into the buffer list.

    Returns the head, EMPTY, or a negative errno (V_VERDICT says what was wrong). After an errno
    the kernel's vhost stays where it is, so the queue is stuck on that head until it is reset;
    QEMU's device is broken and gives EMPTY from then on.
    """
    if st[v + V_BROKEN]:
        return EMPTY
    if st[v + V_PACKED]:
        return packed_device.fetch(mem, lines, st, v, core, buffers)
    return split_device.fetch(mem, lines, st, v, core, buffers)


@kernel
def fetch_again(mem, lines, st, v, core, buffers, head):
    """The chain at `head`, which a backend before this one fetched, into the buffer list.

    For a split ring that is not in order; returns the head, or a negative errno.
    """
    if st[v + V_BROKEN] or st[v + V_PACKED] or st[v + V_IN_ORDER]:
        return EMPTY
    return split_device.fetch_again(mem, lines, st, v, core, buffers, head)


@kernel(inline=True)
def add_used(mem, lines, st, v, core, head, length):
    """vhost_add_used(): give a chain back and publish it (barrier B).

    `head` must come from fetch, once. Returns how many chains became visible to the driver: 1, or
    with VIRTIO_F_IN_ORDER 0 when an older chain is still out, and more than 1 when others waited
    for this one. vhost-scsi always says length 0.
    """
    if st[v + V_BROKEN]:
        return 0
    if st[v + V_PACKED]:
        return packed_device.add_used(mem, lines, st, v, core, head, length)
    return split_device.add_used(mem, lines, st, v, core, head, length)


@kernel(inline=True)
def signal_needed(mem, lines, st, v, core):
    """vhost_notify(): barrier D, then does the driver want an interrupt?

    signalled_used moves with every check; the first check after init or a wrap says yes.
    """
    if st[v + V_BROKEN]:
        return False
    if st[v + V_PACKED]:
        return packed_device.signal_needed(mem, lines, st, v, core)
    return split_device.signal_needed(mem, lines, st, v, core)


@kernel(inline=True)
def disable_notify(mem, lines, st, v, core):
    """vhost_disable_notify(): no kicks, please; with EVENT_IDX a split ring writes nothing."""
    if st[v + V_BROKEN]:
        return
    if st[v + V_PACKED]:
        packed_device.disable_notify(mem, lines, st, v, core)
    else:
        split_device.disable_notify(mem, lines, st, v, core)


@kernel(inline=True)
def enable_notify(mem, lines, st, v, core):
    """vhost_enable_notify(), first half: ask for the next kick; more_avail() must follow (C).

    False: notifications were on already, and nothing was done.
    """
    if st[v + V_BROKEN]:
        return False
    if st[v + V_PACKED]:
        return packed_device.enable_notify(mem, lines, st, v, core)
    return split_device.enable_notify(mem, lines, st, v, core)


@kernel(inline=True)
def more_avail(mem, lines, st, v, core):
    """vhost_enable_notify(), second half (barrier C): has the driver published meanwhile?"""
    if st[v + V_BROKEN]:
        return False
    if st[v + V_PACKED]:
        return packed_device.more_avail(mem, lines, st, v, core)
    return split_device.more_avail(mem, lines, st, v, core)


@kernel(inline=True)
def backlog(st, v):
    """How many published chains the device knows of beyond those it took; 0 in a packed ring."""
    if st[v + V_PACKED]:
        return 0
    return (st[v + V_AVAIL_IDX] - st[v + V_LAST_AVAIL]) & 0xFFFF


@kernel(inline=True)
def in_flight(st, v):
    """Chains (packed: descriptors) that the device took and has not given back."""
    if st[v + V_PACKED]:
        return packed_device.in_flight(st, v)
    return split_device.in_flight(st, v)
