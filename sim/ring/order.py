"""IN_ORDER: completions that come early are held back, and what a driver makes of a batch.

A device that agreed to VIRTIO_F_IN_ORDER uses buffers in the order in which they were made
available. QEMU keeps the buffers in flight in `used_elems`, each at the slot where it was fetched
(virtqueue_ordered_fill, virtqueue_ordered_flush), and publishes the finished ones from the oldest
on: one slow buffer delays every later one. It writes an element for each; a device may also write
one for all of them, naming the last (V_BATCHED).
"""

import numpy as np

from sim.jit import kernel
from sim.ring.common import (
    B_ENTRIES,
    B_IN,
    B_OUT,
    NOT_IN_FLIGHT,
    O_COUNT,
    O_FILLED,
    O_ID,
    O_LENGTH,
    ONE,
    TWO,
    V_HELD,
    V_NUM,
    V_VERDICT,
    V_VERDICTS,
    entry,
)

u64 = np.uint64


@kernel(inline=True)
def writable_bytes(st, buffers):
    """Driver: what a buffer that a batch skips counts as, its whole writable length."""
    total = np.int64(0)
    out = st[buffers + B_OUT]
    for i in range(out, out + st[buffers + B_IN]):
        total += st[buffers + B_ENTRIES + TWO * u64(i) + ONE]
    return total


@kernel(inline=True)
def note(st, v, slot, head, count):
    """Device: a buffer of `count` descriptors (split: 1) was fetched at `slot`."""
    words = entry(v, slot)
    st[words + O_ID] = head
    st[words + O_COUNT] = count
    st[words + O_FILLED] = 0


@kernel(inline=True)
def after(st, v, slot):
    """The slot of the buffer that was fetched after the one at `slot`."""
    slot += st[entry(v, slot) + O_COUNT]
    return slot - st[v + V_NUM] if slot >= st[v + V_NUM] else slot


@kernel(inline=True)
def not_in_flight(st, v):
    """The device finishes what it does not have: its own mistake; counted, nothing is written."""
    st[v + V_VERDICT] = NOT_IN_FLIGHT
    st[v + V_VERDICTS + u64(NOT_IN_FLIGHT)] += 1
    return 0


@kernel(inline=True)
def fill(st, v, slot, in_flight, head, length):
    """Mark a buffer as finished: the oldest one with this id from `slot` on; False if none is."""
    while in_flight > 0:
        words = entry(v, slot)
        if st[words + O_COUNT] == 0:
            break  # nothing was fetched here
        if st[words + O_ID] == head and not st[words + O_FILLED]:
            st[words + O_FILLED] = 1
            st[words + O_LENGTH] = length
            st[v + V_HELD] += 1
            return True
        in_flight -= st[words + O_COUNT]
        slot = after(st, v, slot)
    not_in_flight(st, v)
    return False


@kernel(inline=True)
def release(st, v, slot):
    """The buffer at `slot` is published now."""
    st[entry(v, slot) + O_FILLED] = 0
    st[v + V_HELD] -= 1
