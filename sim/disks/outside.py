"""A medium that is not a kernel: its commands go to a component written in Python.

    command    enter -> (the component's own time) -> done

`enter` leaves a notice for the control plane; the component (sim.component) takes the commands
there, in the cycle in which they came, and gives each back with `done`.
"""

import numpy as np

from sim.agents import H_NOTICE, N_OUTSIDE, NEVER, wake
from sim.disks.cache import append, take_first
from sim.disks.events import E_DONE, due, push
from sim.disks.fields import D_SLOT, D_WAIT_HEAD, D_WAIT_TAIL
from sim.jit import kernel


@kernel
def enter(st, disk, x, now):
    """The command waits to be taken by the component."""
    append(st, disk + D_WAIT_HEAD, disk + D_WAIT_TAIL, np.int64(x))
    st[H_NOTICE] |= N_OUTSIDE


@kernel
def take(st, disk):
    """For control: the oldest command that waits, or -1."""
    if st[disk + D_WAIT_HEAD] < 0:
        return np.int64(-1)
    return take_first(st, disk + D_WAIT_HEAD)


@kernel
def done(st, disk, command, now):
    """For control: the component is done with the command at `now`."""
    push(st, disk, now, E_DONE, command)
    if due(st, disk) < NEVER:
        wake(st, st[disk + D_SLOT], due(st, disk))
