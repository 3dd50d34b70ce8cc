"""What write caches have in common: room, writes that wait for it, flushes that wait for the drain.

A write that finds room is done after the time of the cache, and drains later; one that finds none
waits, first in first out, until the drain has made some. A flush is done at once where nothing
volatile is left, and waits otherwise until what was in the cache when it came is on the medium.
"""

import numpy as np

from sim.disks.events import E_DONE, push
from sim.disks.faulty import slowed
from sim.disks.fields import (
    D_CACHE,
    D_CACHE_SERVICE,
    D_CACHE_USED,
    D_WAIT_HEAD,
    D_WAIT_TAIL,
)
from sim.disks.service import sample
from sim.jit import kernel
from sim.se_cmd import X_BLOCKS, X_NEXT

u64 = np.uint64


@kernel
def append(st, head, tail, command):
    """Append a command to the list whose head and tail stand at these offsets."""
    st[u64(command) + X_NEXT] = -1
    if st[head] < 0:
        st[head] = command
    else:
        st[u64(st[tail]) + X_NEXT] = command
    st[tail] = command


@kernel
def take_first(st, head):
    """The first command of a list that is not empty."""
    command = st[head]
    st[head] = st[u64(command) + X_NEXT]
    return command


@kernel
def has_room(st, disk, x):
    """Does the write fit? One larger than the whole cache fits when the cache is empty."""
    size = st[x + X_BLOCKS] * 512
    return st[disk + D_CACHE_USED] == 0 or st[disk + D_CACHE_USED] + size <= st[disk + D_CACHE]


@kernel
def wait(st, disk, command):
    """The write waits for room."""
    append(st, disk + D_WAIT_HEAD, disk + D_WAIT_TAIL, command)


@kernel
def admit(st, disk, x, now):
    """The write has its room; it is done, as far as the host knows, when the cache has taken it."""
    st[disk + D_CACHE_USED] += st[x + X_BLOCKS] * 512
    cycles = slowed(st, disk, sample(st, u64(st[disk + D_CACHE_SERVICE])), now)
    push(st, disk, now + cycles, E_DONE, np.int64(x))
