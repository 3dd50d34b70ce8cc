"""The dirty log of a vhost device: which pages of guest memory the host has written.

QEMU lends the kernel a bitmap (VHOST_SET_LOG_BASE) in which page p is bit p % 8 of byte p / 8. The
kernel sets the bits of what it writes to the used ring of each queue whose address came with
VHOST_VRING_F_LOG (log_used); no feature bit is needed for that. From Linux 7.2 on, and only if
VHOST_F_LOG_ALL was acked, it also sets those of every writable buffer of a request, in their whole
length, behind the used entry (vhost_scsi_log_write). Before that nothing noted what LIO and its
disks wrote: data that a READ brought just before the VM moved stayed behind.

S_LOG and the queues' Q_LOG and Q_LOG_ALL are written by control. The bitmap stands in the agents'
state, eight bytes to a word. Functions return how many pages they logged: each has its price.
"""

import numpy as np

from sim import vring
from sim.jit import kernel
from sim.layout import RESP_SIZE
from sim.lio.command import ONE, TWO
from sim.se_cmd import FROM_DEVICE, X_DATA, X_DIRECTION, X_LOGGED, X_RESPONSE, X_SEGMENTS
from sim.vhost.scsi import S_KERNEL, S_LOG, S_MEMORY, S_ROOM

u64 = np.uint64
PAGE_SHIFT = 12  # VHOST_PAGE_SIZE
USED_IDX, USED_RING, ELEMENT = 2, 4, 8


@kernel
def log_write(st, s, at, size):
    """log_write(): the pages of `size` bytes at guest address `at`."""
    if st[s + S_LOG] == 0 or size <= 0 or at < 0 or at + size > st[s + S_MEMORY]:
        return 0
    first, last = at >> PAGE_SHIFT, (at + size - 1) >> PAGE_SHIFT
    for page in range(first, last + 1):
        st[u64(st[s + S_LOG]) + u64(page >> 6)] |= np.int64(ONE << u64(page & 63))
    return last - first + 1


@kernel
def log_used(st, s, log, v, count):
    """vhost_add_used_n(): `count` elements that were written last, then the index.

    `log`: the guest address of the used ring as QEMU gave it. A packed ring has no such log.
    """
    if st[v + vring.V_PACKED]:
        return 0
    num, end = st[v + vring.V_NUM], st[v + vring.V_LAST_USED]
    pages = 0
    for index in range(end - count, end):
        pages += log_write(st, s, log + USED_RING + ELEMENT * (index & (num - 1)), ELEMENT)
    return pages + log_write(st, s, log + USED_IDX, 2)


@kernel
def log_notify(st, s, log, v):
    """vhost_update_avail_event(), vhost_update_used_flags()."""
    if st[v + vring.V_PACKED]:
        return 0
    event = USED_RING + ELEMENT * st[v + vring.V_NUM] if st[v + vring.V_EVENT_IDX] else 0
    return log_write(st, s, log + event, 2)


@kernel
def logs_buffers(st, s):
    """Does this kernel log buffers?"""
    return st[s + S_KERNEL] >= 702


@kernel
def log_buffers(st, s, buffers):
    """The writable buffers of a request that is answered at once."""
    entry = buffers + vring.B_ENTRIES + TWO * u64(st[buffers + vring.B_OUT])
    pages = 0
    for _ in range(st[buffers + vring.B_IN]):
        pages += log_write(st, s, st[entry], st[entry + ONE])
        entry += TWO
    return pages


@kernel
def log_answer(st, s, x):
    """What the device has written of a command with its pieces as map_buffers() noted them."""
    segment = x + X_DATA
    for _ in range(st[x + X_SEGMENTS] if st[x + X_DIRECTION] == FROM_DEVICE else 0):
        log_write(st, s, st[segment], st[segment + ONE])
        segment += TWO
    log_write(st, s, st[x + X_RESPONSE], np.int64(RESP_SIZE))


@kernel
def _saved(st, s, x):
    return x + X_DATA + TWO * u64(st[s + S_ROOM])


@kernel
def save(st, s, buffers, x):
    """vhost_scsi_copy_cmd_log(): note a request's writable buffers with its command.

    Those that the command has no room for are joined to the last one: from the lowest of them to
    the highest.
    """
    entry = buffers + vring.B_ENTRIES + TWO * u64(st[buffers + vring.B_OUT])
    place, room = _saved(st, s, x), st[s + S_ROOM]
    for i in range(st[buffers + vring.B_IN]):
        at, size = st[entry], st[entry + ONE]
        if i < room:
            st[place], st[place + ONE] = at, size
            place += TWO
        else:
            last = place - TWO
            end = max(st[last] + st[last + ONE], at + size)
            st[last] = min(st[last], at)
            st[last + ONE] = end - st[last]
        entry += TWO
    st[x + X_LOGGED] = min(st[buffers + vring.B_IN], room)


@kernel
def log_saved(st, s, x):
    """The buffers that were noted with a command, which is answered now."""
    place = _saved(st, s, x)
    pages = 0
    for _ in range(st[x + X_LOGGED]):
        pages += log_write(st, s, st[place], st[place + ONE])
        place += TWO
    return pages
