"""KVM's dirty log: which pages of guest memory the vCPUs have written while a migration asks.

QEMU's memory_global_dirty_log_start() makes KVM write-protect guest memory; the first write of a
vCPU to a page sets its bit, and each sync of the bitmap takes it back. H_KVM_LOG is where the
bitmap stands in `st`, 0 while nobody asks. The driver notes what it writes request by request; what
the host writes it notes itself, or nobody does (sim.vhost.log). The fault that the first write to a
page costs is not charged.
"""

import numpy as np

from sim import vring
from sim.agents import H_KVM_LOG
from sim.driver.fields import (
    BLOCKS_PER_PAGE,
    G_DATA,
    G_DATA_STRIDE,
    G_DRIVER,
    G_HEADER_STRIDE,
    G_HEADERS,
    G_NUM,
    G_TABLE_STRIDE,
    G_TABLES,
    T_BLOCKS,
    T_OP,
    tag_base,
)
from sim.jit import kernel
from sim.layout import PAGE_SIZE, REQ_SIZE
from sim.se_cmd import OP_WRITE

u64 = np.uint64
ONE = u64(1)
PAGE_SHIFT = 12


@kernel
def note_pages(st, at, size):
    """A vCPU writes `size` bytes at guest address `at`."""
    for page in range(at >> PAGE_SHIFT, ((at + size - 1) >> PAGE_SHIFT) + 1):
        st[u64(st[H_KVM_LOG]) + u64(page >> 6)] |= np.int64(ONE << u64(page & 63))


@kernel
def note_driver_area(st, q):
    """virtqueue_enable_cb(), virtqueue_disable_cb(): flags or used_event."""
    d = u64(st[q + G_DRIVER])
    size = 4 if st[d + vring.D_PACKED] else 6 + 2 * st[q + G_NUM]
    note_pages(st, st[d + vring.D_AVAIL], size)


@kernel
def note_request(st, q, tag):
    """virtscsi_add_cmd() and virtqueue_add(): the request, its table, a write's data, the ring.

    Of the descriptor table every page counts as written: more than one is only in rings of more
    than 256 entries.
    """
    t, d = tag_base(st, q, tag), u64(st[q + G_DRIVER])
    note_pages(st, st[q + G_HEADERS] + st[q + G_HEADER_STRIDE] * tag, REQ_SIZE)
    if st[q + G_TABLES]:
        note_pages(st, st[q + G_TABLES] + st[q + G_TABLE_STRIDE] * tag, st[q + G_TABLE_STRIDE])
    if st[t + T_OP] == OP_WRITE:
        pages = (st[t + T_BLOCKS] + BLOCKS_PER_PAGE - 1) // BLOCKS_PER_PAGE
        note_pages(st, st[q + G_DATA] + st[q + G_DATA_STRIDE] * tag, pages * PAGE_SIZE)
    note_pages(st, st[d + vring.D_DESC], 16 * st[q + G_NUM])
    note_driver_area(st, q)
