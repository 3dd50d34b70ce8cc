"""N parallel lanes, then one serial stage.

A command takes the lane that is free first and stays there for a random time; the serial stage (the
link, the controller) takes commands in the order in which they leave their lanes.
"""

import numpy as np

from sim.disks.events import E_LANE, push
from sim.disks.faulty import slowed
from sim.disks.fields import (
    D_BANDWIDTH,
    D_HZ,
    D_LANE_BUSY,
    D_LANE_FREE,
    D_LANES,
    D_SERIAL,
    D_SERIAL_BUSY,
    D_SERIAL_FREE,
    D_SERVICE,
)
from sim.disks.service import sample
from sim.jit import kernel
from sim.se_cmd import X_BLOCKS

u64 = np.uint64
ONE, TWO = u64(1), u64(2)


@kernel
def enter(st, disk, x, now):
    """The lane of a command and the end of its stay there are known at once.

    The times at which lanes are free stand in a binary heap: nobody asks which lane it is.
    """
    service = slowed(st, disk, sample(st, u64(st[disk + D_SERVICE])), now)
    first = u64(st[disk + D_LANE_FREE])
    end = reserve(st, disk, first, now, service)
    count, index = u64(st[disk + D_LANES]), u64(0)
    while True:
        child = TWO * index + ONE
        if child >= count:
            break
        if child + ONE < count and st[first + child + ONE] < st[first + child]:
            child += ONE
        if st[first + child] >= end:
            break
        st[first + index] = st[first + child]
        index = child
    st[first + index] = end
    push(st, disk, end, E_LANE, np.int64(x))


@kernel
def reserve(st, disk, lane, start, cycles):
    """Take the lane at offset `lane` for `cycles`, from `start` on or once it is free."""
    end = max(start, st[lane]) + cycles
    st[lane] = end
    st[disk + D_LANE_BUSY] += cycles
    return end


@kernel
def has_serial(st, disk):
    """Has the disk a stage that commands pass one by one?"""
    return st[disk + D_SERIAL] > 0 or st[disk + D_BANDWIDTH] > 0


@kernel
def pass_serial(st, disk, command, event, now):
    """Through the serial stage; `event` happens at its end."""
    cycles = st[disk + D_SERIAL]
    if st[disk + D_BANDWIDTH]:
        size = st[u64(command) + X_BLOCKS] * 512
        cycles += size * st[disk + D_HZ] // st[disk + D_BANDWIDTH]
    cycles = slowed(st, disk, cycles, now)
    end = max(now, st[disk + D_SERIAL_FREE]) + cycles
    st[disk + D_SERIAL_FREE] = end
    st[disk + D_SERIAL_BUSY] += cycles
    push(st, disk, end, event, command)
