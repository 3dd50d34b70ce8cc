"""The in-flight region of vhost-user: which requests a backend has, outside of the backend.

QEMU docs/interop/vhost-user.rst, "Inflight I/O tracking", split virtqueues. The region of a queue
is shared memory that outlives the backend; whoever serves the queue next submits again what it
finds there. All little-endian:

    header       u64 features, u16 version (1), u16 desc_num, u16 last_batch_head, u16 used_idx
    descriptor   u8 inflight, 5 bytes of padding, u16 next, u64 counter; one per descriptor

On a fetch the head's counter and mark are set. A used element is put into the list of the last
batch (here each batch is one element), used.idx moves, the mark goes, used_idx follows. The region
stands in the agents' state, eight bytes to a word, and its upkeep costs no cycles.

Q_REGION is 0 while no region is agreed on. Resubmission goes through a list of heads, in the order
of their counters, that control fills (Q_RESUBMITS); a head is not read from the ring again.
"""

import numpy as np

from sim import vring
from sim.jit import kernel
from sim.vhost.fields import (
    Q_BUFFERS,
    Q_COUNTER,
    Q_DEVICE,
    Q_REGION,
    Q_RESUBMIT_LIST,
    Q_RESUBMITS,
    u64,
)

ONE, TWO = u64(1), u64(2)
HEADER_WORDS, DESCRIPTOR_WORDS = 2, 2
VERSION = 1
NEXT_SHIFT = 48
BATCH_SHIFT, USED_SHIFT = 32, 48  # in the second word of the header
IN_FLIGHT = np.int64(1)  # the byte of a descriptor, the low one of its word

DESCRIPTOR = np.dtype(
    [('inflight', 'u1'), ('padding', 'u1', 5), ('next', '<u2'), ('counter', '<u8')]
)
HEADER = np.dtype(
    [
        ('features', '<u8'),
        ('version', '<u2'),
        ('desc_num', '<u2'),
        ('last_batch_head', '<u2'),
        ('used_idx', '<u2'),
    ]
)


def region_words(num: int) -> int:
    """How many words the region of a queue of `num` entries takes."""
    return HEADER_WORDS + DESCRIPTOR_WORDS * num


@kernel
def track_fetch(st, q, head):
    """A chain has been fetched; one that is submitted again keeps its counter."""
    word = u64(st[q + Q_REGION]) + TWO + TWO * u64(head)
    if st[word] & IN_FLIGHT:
        return
    st[word] |= IN_FLIGHT
    st[word + ONE] = st[q + Q_COUNTER]
    st[q + Q_COUNTER] += 1


@kernel
def track_used(st, q, head):
    """A used element has been written and used.idx has moved."""
    header = u64(st[q + Q_REGION]) + ONE
    word = header + ONE + TWO * u64(head)
    last = (st[header] >> BATCH_SHIFT) & 0xFFFF
    st[word] = np.int64(last) << NEXT_SHIFT
    used = st[u64(st[q + Q_DEVICE]) + vring.V_LAST_USED]
    low = st[header] & 0xFFFFFFFF
    st[header] = low | np.int64(head) << BATCH_SHIFT | np.int64(used) << USED_SHIFT


@kernel
def resubmit(mem, lines, st, q, core):
    """The next of the heads to be submitted again, its chain in the queue's buffer list."""
    place = u64(st[q + Q_RESUBMIT_LIST])
    head = st[place + u64(st[q + Q_RESUBMITS])]
    st[q + Q_RESUBMITS] -= 1
    device = u64(st[q + Q_DEVICE])
    return vring.fetch_again(mem, lines, st, device, core, u64(st[q + Q_BUFFERS]), head)


def heads_of(region: bytes) -> list[int]:
    """The heads that a backend which starts now must submit again, oldest first.

    Errors: ValueError where the region is none of version 1.
    """
    header = np.frombuffer(region, HEADER, count=1)[0]
    if header['version'] != VERSION:
        raise ValueError(f'an in-flight region of version {header["version"]}, not {VERSION}')
    entries = np.frombuffer(region, DESCRIPTOR, offset=HEADER.itemsize, count=header['desc_num'])
    heads = np.flatnonzero(entries['inflight'])
    return [int(head) for head in heads[np.argsort(entries['counter'][heads], kind='stable')]]


def next_counter(region: bytes) -> int:
    """The counter of the next request."""
    entries = np.frombuffer(region, DESCRIPTOR, offset=HEADER.itemsize)
    out = entries['counter'][entries['inflight'] > 0]
    return int(out.max()) + 1 if out.size else 0


def empty_region(num: int, features: int) -> bytes:
    """A region as QEMU and the backend agree on it before the first start."""
    header = np.zeros(1, HEADER)
    header['features'], header['version'], header['desc_num'] = features, VERSION, num
    return header.tobytes() + bytes(DESCRIPTOR.itemsize * num)
