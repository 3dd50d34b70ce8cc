"""What is due inside a disk, and when: a binary heap in the disk's stretch.

A node is three words: time, (order << EVENT_BITS) | event, argument. Ties go in the order in which
they were pushed.
"""

import numpy as np

from sim.agents import NEVER
from sim.disks.fields import D_HEAP, D_HEAP_COUNT, D_ORDER, D_STANDS_UNTIL
from sim.jit import kernel

u64 = np.uint64
ONE, TWO = u64(1), u64(2)

HEAP_WORDS = 3
EVENT_BITS = 4

# What may happen; the argument is a command unless said otherwise.
(
    E_LANE,  # it leaves its lane, or the last of its dies
    E_SERIAL,  # it leaves the serial stage
    E_LINK,  # a write's turn on the link comes
    E_RECEIVED,  # its data are there
    E_DIE,  # the reads that were queued at a die are done; the die
    E_PROGRAMMED,  # a program operation ends; the die
    E_HEAD,  # an access ends; -1 if nobody waits for it
    E_DONE,  # the medium is done with it
    E_UNSTUCK,  # it goes on after it was stuck
    E_ARRIVED,  # it comes over the network
    E_REPLIED,  # its reply comes over the network
) = range(11)


@kernel(inline=True)
def _before(st, a, b):
    return st[a] < st[b] or (st[a] == st[b] and st[a + ONE] < st[b + ONE])


@kernel(inline=True)
def _swap(st, a, b):
    for i in range(HEAP_WORDS):
        st[a + u64(i)], st[b + u64(i)] = st[b + u64(i)], st[a + u64(i)]


@kernel(inline=True)
def _node(st, disk, index):
    return u64(st[disk + D_HEAP]) + u64(HEAP_WORDS) * u64(index)


@kernel
def push(st, disk, time, event, argument):
    """Note that `event` happens to `argument` at `time`."""
    index = st[disk + D_HEAP_COUNT]
    st[disk + D_HEAP_COUNT] = index + 1
    st[disk + D_ORDER] += 1
    node = _node(st, disk, index)
    st[node] = time
    st[node + ONE] = (st[disk + D_ORDER] << EVENT_BITS) | event
    st[node + TWO] = argument
    while index > 0:
        parent = (index - 1) // 2
        if not _before(st, _node(st, disk, index), _node(st, disk, parent)):
            break
        _swap(st, _node(st, disk, index), _node(st, disk, parent))
        index = parent


@kernel(inline=True)
def due(st, disk):
    """When the first event is due, NEVER where none is; all of them wait for a disk that stands."""
    if st[disk + D_HEAP_COUNT] == 0:
        return NEVER
    return max(st[_node(st, disk, 0)], st[disk + D_STANDS_UNTIL])


@kernel(inline=True)
def first_event(st, disk):
    """Which event is first."""
    return st[_node(st, disk, 0) + ONE] & ((1 << EVENT_BITS) - 1)


@kernel(inline=True)
def pop(st, disk):
    """Drop the first event; returns its argument."""
    argument = st[_node(st, disk, 0) + TWO]
    count = st[disk + D_HEAP_COUNT] - 1
    st[disk + D_HEAP_COUNT] = count
    _swap(st, _node(st, disk, 0), _node(st, disk, count))
    index = 0
    while True:
        child = 2 * index + 1
        if child >= count:
            break
        if child + 1 < count and _before(st, _node(st, disk, child + 1), _node(st, disk, child)):
            child += 1
        if not _before(st, _node(st, disk, child), _node(st, disk, index)):
            break
        _swap(st, _node(st, disk, child), _node(st, disk, index))
        index = child
    return argument
