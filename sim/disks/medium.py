"""A disk as its host sees it: it takes commands, and gives each back when it is done.

    command    accept -> LANE -> (SERIAL) -> done

A command takes the lane that is free first; the serial stage (the link, the controller) takes
commands in the order in which they leave their lanes.
"""

import numpy as np

from sim.agents import LOG_TABLE, wake
from sim.disks.events import E_LANE, E_SERIAL, due, first_event, pop, push
from sim.disks.fields import (
    D_COUNT,
    D_EXPONENTIAL,
    D_KEY,
    D_LANE_BUSY,
    D_LANE_FREE,
    D_LANES,
    D_SERIAL,
    D_SERIAL_BUSY,
    D_SERIAL_FREE,
    D_SERVICE,
    D_SLOT,
)
from sim.jit import kernel
from sim.rng import exponential

u64 = np.uint64


@kernel
def accept(st, disk, x, now):
    """A command reaches the disk."""
    _enter_lane(st, disk, x, now)
    wake(st, st[disk + D_SLOT], due(st, disk))


@kernel
def step(st, disk, now):
    """The event that is first in time; returns the command that is done by it, or -1."""
    event = first_event(st, disk)
    command = pop(st, disk)
    if event == E_LANE and st[disk + D_SERIAL] > 0:
        _enter_serial(st, disk, command, now)
        return np.int64(-1)
    return command


@kernel
def _enter_lane(st, disk, x, now):
    """The lane of a command and the end of its stay there are known at once."""
    service = st[disk + D_SERVICE]
    if st[disk + D_EXPONENTIAL]:
        service = exponential(st, LOG_TABLE, st[disk + D_KEY], st[disk + D_COUNT], service)
    st[disk + D_COUNT] += 1
    lanes = u64(st[disk + D_LANE_FREE])
    best = lanes
    for i in range(st[disk + D_LANES]):
        if st[lanes + u64(i)] < st[best]:
            best = lanes + u64(i)
        if st[best] <= now:
            break
    end = max(now, st[best]) + service
    st[best] = end
    st[disk + D_LANE_BUSY] += service
    push(st, disk, end, E_LANE, np.int64(x))


@kernel
def _enter_serial(st, disk, command, now):
    end = max(now, st[disk + D_SERIAL_FREE]) + st[disk + D_SERIAL]
    st[disk + D_SERIAL_FREE] = end
    st[disk + D_SERIAL_BUSY] += st[disk + D_SERIAL]
    push(st, disk, end, E_SERIAL, command)
