"""A disk as its host sees it: it takes commands, and gives each back when it is done.

    command    accept -> (network) -> the medium of its kind -> (stuck) -> (network) -> done

One step is one event, and ends at most one command.
"""

import numpy as np

from sim.agents import NEVER, wake
from sim.disks import faulty, head, lanes, network, outside, ssd
from sim.disks.events import (
    E_ARRIVED,
    E_DIE,
    E_DONE,
    E_LANE,
    E_LINK,
    E_PROGRAMMED,
    E_RECEIVED,
    E_REPLIED,
    E_SERIAL,
    E_UNSTUCK,
    due,
    first_event,
    pop,
    push,
)
from sim.disks.fields import (
    D_COUNT,
    D_FAULTS,
    D_KIND,
    D_NETWORK,
    D_SLOT,
    D_VOLATILE,
    F_STUCK_COMMAND,
    F_STUCK_FOR,
    HDD,
    OUTSIDE,
    SSD,
)
from sim.jit import kernel
from sim.se_cmd import OP_FLUSH, X_OP

u64 = np.uint64

NOBODY = np.int64(-1)


@kernel
def accept(st, disk, x, now):
    """The host gives the command at `x` to the disk."""
    st[disk + D_COUNT] += 1
    if st[disk + D_FAULTS]:
        faulty.strike(st, disk, x)
    if st[x + X_OP] == OP_FLUSH and not st[disk + D_VOLATILE]:
        push(st, disk, now, E_REPLIED, np.int64(x))  # the block layer ends it by itself
    elif st[disk + D_NETWORK]:
        push(st, disk, network.command_arrives(st, disk, x, now), E_ARRIVED, np.int64(x))
    else:
        _enter(st, disk, x, now)
    soon = due(st, disk)
    if soon < NEVER:
        wake(st, st[disk + D_SLOT], soon)


@kernel
def _enter(st, disk, x, now):
    kind = st[disk + D_KIND]
    if kind == SSD:
        ssd.enter(st, disk, x, now)
    elif kind == HDD:
        head.enter(st, disk, x, now)
    elif kind == OUTSIDE:
        outside.enter(st, disk, x, now)
    else:
        lanes.enter(st, disk, x, now)


@kernel
def step(st, disk, now):
    """The event that is first in time; returns the command that is done by it, or -1."""
    event = first_event(st, disk)
    argument = pop(st, disk)
    if event == E_LANE:
        if lanes.has_serial(st, disk):
            lanes.pass_serial(st, disk, argument, E_SERIAL, now)
            return NOBODY
    elif event == E_REPLIED:
        return argument
    elif event not in (E_SERIAL, E_DONE, E_UNSTUCK):
        _inside(st, disk, event, argument, now)
        return NOBODY
    return _leave(st, disk, argument, event, now)


@kernel
def _inside(st, disk, event, argument, now):
    """An event after which no command leaves the medium."""
    if event == E_ARRIVED:
        _enter(st, disk, u64(argument), now)
    elif event == E_LINK:
        lanes.pass_serial(st, disk, argument, E_RECEIVED, now)
    elif event == E_RECEIVED:
        ssd.receive(st, disk, argument, now)
    elif event == E_DIE:
        ssd.die_is_free(st, disk, argument, now)
    elif event == E_PROGRAMMED:
        ssd.programmed(st, disk, argument, now)
    else:
        head.arrived(st, disk, argument, now)


@kernel
def _leave(st, disk, command, event, now):
    """The medium is done with the command: is it stuck, or only on its way back?"""
    if st[disk + D_FAULTS] and event != E_UNSTUCK:
        f = u64(st[disk + D_FAULTS])
        if command == st[f + F_STUCK_COMMAND]:
            st[f + F_STUCK_COMMAND] = -1
            if st[f + F_STUCK_FOR] < NEVER:
                push(st, disk, now + st[f + F_STUCK_FOR], E_UNSTUCK, command)
            return NOBODY
    if st[disk + D_NETWORK]:
        push(st, disk, network.reply_arrives(st, disk, u64(command), now), E_REPLIED, command)
        return NOBODY
    return command
