"""What a thread of user space that serves a device has: SPDK's reactor, QEMU's IOThread.

The common beginning of their stretches, what a virtqueue of theirs has beyond those of vhost, and
how others reach such a thread. It sleeps in a system call, or it polls. A poller that has nothing
to do is not stepped through its empty rounds: whatever it would find in one of them rings its
*bell*, which wakes it, and it goes on with the round that begins next.
"""

import numpy as np

from sim.agents import A_FIELDS, ring, wake
from sim.host_task import latency
from sim.jit import kernel
from sim.se_cmd import X_NEXT

u64 = np.uint64

# A thread's stretch, up to what only one of them has.
(
    T_SLOT,
    T_CORE,
    T_BELL,  # SILENT, RUNG, or slot + 1 while the thread waits for it
    T_ASLEEP,  # 1 while it sleeps in a system call that an eventfd ends
    T_WAKE_LATENCY,  # cycles from the eventfd until it runs
    T_IDLE_FROM,  # asleep since; in a poller the empty rounds began then
    T_WAKES,
    T_SPUN,  # cycles in empty rounds
    T_DONE,  # commands that the disks have finished, first in first out, -1 none
    T_DONE_TAIL,
    T_DONE_FIRED,  # the eventfd of the completions is readable
    T_COMMAND,  # prepared, and handed over by the next step, -1 none
    T_QUEUES,
    T_QUEUE_LIST,  # table of the host queues' bases
    T_DROPPED,
    T_RING_ERRORS,
    T_REFUSED,  # requests answered BAD_TARGET, OVERRUN or FAILURE
    T_STOP,  # does it serve its virtqueues: RUNS, ASKED, LAST, STANDS
) = map(u64, range(A_FIELDS, A_FIELDS + 18))
THREAD_FIELDS = A_FIELDS + 18

# T_STOP: it serves them; control has asked it not to; IOThread: what has been kicked for is served
# a last time; it does not, and has left N_STOPPED.
RUNS, ASKED, LAST, STANDS = range(4)


@kernel
def rouse(st, t, now):
    """An eventfd of the thread's becomes readable."""
    if not st[t + T_ASLEEP]:
        return
    st[t + T_ASLEEP] = 0
    if now <= st[t + T_IDLE_FROM]:  # it is still on its way into the system call
        wake(st, st[t + T_SLOT], st[t + T_IDLE_FROM])
        return
    st[t + T_WAKES] += 1
    wake(st, st[t + T_SLOT], now + latency(st, st[t + T_SLOT], st[t + T_WAKE_LATENCY]))


@kernel
def collect(st, t, x, now):
    """A disk has finished command `x`: it joins the completion queue, which signals its eventfd."""
    st[x + X_NEXT] = -1
    if st[t + T_DONE] < 0:
        st[t + T_DONE] = np.int64(x)
    else:
        st[u64(st[t + T_DONE_TAIL]) + X_NEXT] = np.int64(x)
    st[t + T_DONE_TAIL] = np.int64(x)
    st[t + T_DONE_FIRED] = 1
    ring(st, t + T_BELL, now)
    rouse(st, t, now)


@kernel(inline=True)
def take_done(st, t):
    """The command that has waited longest in the completion queue."""
    x = u64(st[t + T_DONE])
    st[t + T_DONE] = st[x + X_NEXT]
    return x


@kernel(inline=True)
def next_round(now, since, length):
    """When the next of the rounds begins that follow each other without end from `since` on."""
    if now <= since:
        return since
    return since + -(-(now - since) // length) * length
