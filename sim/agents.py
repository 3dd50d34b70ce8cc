"""What every agent shares: the world's head, slots, wake-ups, and the cost table.

The state of all agents lies in one int64 array `st`. Its head holds the clockwork, then come the
costs in cycles, then the logarithm table of sim.rng, then one stretch per agent and per queue. An
agent is a slot number, a kind, a stretch, and a step function (sim.guest, sim.backend,
sim.target); a step performs one atomic action at `now` and returns when the agent wants to run
again, NEVER meaning "when somebody wakes me".
"""

import numpy as np

from sim.jit import kernel

u64 = np.uint64
ONE, TWO = u64(1), u64(2)

NEVER = 1 << 62

# An agent's entry on the calendar: time << SLOT_BITS | slot, so that the least entry says who comes
# first, in time and then in slot order; IDLE while the agent waits to be woken. The clock therefore
# ends at 2**47 cycles, 15 hours at 2.6 GHz.
SLOT_BITS = 16
SLOT_MASK = (1 << SLOT_BITS) - 1
IDLE = (1 << 63) - 1
CLOCK_END = (1 << 47) - 1

# The head of the world.
(
    H_SLOTS,  # how many agents
    H_DUE,  # offset of the calendar: an entry per slot, then the levels above (sim.engine)
    H_KIND,  # offset of kind[slot]
    H_BASE,  # offset of base[slot]: where its stretch begins
    H_WOKEN,  # offset of the list of slots woken since the scheduler last looked
    H_WOKEN_COUNT,
    H_NOTICE,  # what the control plane should know: N_* bits
    H_STEPS,  # steps performed
    H_DIGEST,  # running hash of (time, slot, state) of every step
    H_ROWS,  # next free row of the trace, as an offset
    H_ROWS_HIGH,  # beyond this offset the trace should grow
    H_ROW_WORDS,  # words per row; 0 when nothing is recorded
    H_SERIAL,  # serial number of the next I/O
    H_DISK_ORDER,  # how many transfers the disk has made
    H_NOW,  # when the last step was performed
    H_WRITTEN,  # has anything ever been written to the medium?
    H_KVM_LOG,  # where KVM's dirty bitmap stands (sim.driver.dirty), 0: nobody wants it
    H_TASKS,  # offset of the task of each slot (sim.host_task), 0: no threads share a host CPU
) = map(u64, range(18))

COST_TABLE = 32  # where the costs stand in `st`

# Costs in cycles (sim.costs.Costs has the same names and explains them).
COSTS = (
    'guest_submit',
    'guest_complete',
    'guest_io_submit',
    'guest_io_getevents',
    'guest_poll',
    'guest_switch',
    'guest_slice',
    'kick_exit',
    'kick_signal',
    'kick_wakeup',
    'kick_return',
    'irq_inject',
    'irq_entry',
    'irq_return',
    'vcpu_halt_wake',
    'vcpu_halt_poll',
    'vcpu_halt_poll_start',
    'worker_wake',
    'worker_wake_deep',
    'deep_idle_after',
    'context_switch',
    'worker_pop',
    'worker_submit',
    'worker_complete',
    'worker_log',
    'lio_hop',
    'lio_submit',
    'lio_complete',
    'reactor_round',
    'reactor_queue',
    'reactor_submit',
    'reactor_complete',
    'iothread_turn',
    'iothread_round',
    'iothread_pop',
    'iothread_submit',
    'iothread_issue',
    'iothread_complete',
    'call_write',
    'host_slice',
)
(
    K_GUEST_SUBMIT,
    K_GUEST_COMPLETE,
    K_GUEST_IO_SUBMIT,
    K_GUEST_IO_GETEVENTS,
    K_GUEST_POLL,
    K_GUEST_SWITCH,
    K_GUEST_SLICE,
    K_KICK_EXIT,
    K_KICK_SIGNAL,
    K_KICK_WAKEUP,
    K_KICK_RETURN,
    K_IRQ_INJECT,
    K_IRQ_ENTRY,
    K_IRQ_RETURN,
    K_VCPU_HALT_WAKE,
    K_VCPU_HALT_POLL,
    K_VCPU_HALT_POLL_START,
    K_WORKER_WAKE,
    K_WORKER_WAKE_DEEP,
    K_DEEP_IDLE_AFTER,
    K_CONTEXT_SWITCH,
    K_WORKER_POP,
    K_WORKER_SUBMIT,
    K_WORKER_COMPLETE,
    K_WORKER_LOG,
    K_LIO_HOP,
    K_LIO_SUBMIT,
    K_LIO_COMPLETE,
    K_REACTOR_ROUND,
    K_REACTOR_QUEUE,
    K_REACTOR_SUBMIT,
    K_REACTOR_COMPLETE,
    K_IOTHREAD_TURN,
    K_IOTHREAD_ROUND,
    K_IOTHREAD_POP,
    K_IOTHREAD_SUBMIT,
    K_IOTHREAD_ISSUE,
    K_IOTHREAD_COMPLETE,
    K_CALL_WRITE,
    K_HOST_SLICE,
) = map(u64, range(COST_TABLE, COST_TABLE + len(COSTS)))

LOG_TABLE = 128  # where sim.rng.log_table() stands in `st`
WORLD_WORDS = LOG_TABLE + 1025

# Notices to the control plane.
N_JOB_DONE = 1
N_TRACE_FULL = 2
N_OUTSIDE = 4  # commands wait for a component written in Python
N_MUTEX = 8  # a vq->mutex is free that control waits for
N_FLUSHED = 16  # a worker has come to the flush in its work list
N_INFLIGHT = 32  # the last command that a flush waits for is done
N_RESET = 64  # LIO shall reset a LUN, or the last command that a reset waits for is released
N_STOPPED = 128  # a thread of user space has come to where it serves its virtqueues no more

# Agent kinds.
VCPU, KICK, IRQ, WORKER, LIO_SUBMIT, DISK, LIO_COMPLETE, NOTIFIER, REACTOR, IOTHREAD = range(10)
HOST_CPU = 10
THREAD_KINDS = (REACTOR, IOTHREAD)  # threads of user space that serve a device
CPU_KINDS = (VCPU, WORKER, LIO_SUBMIT, LIO_COMPLETE, *THREAD_KINDS)  # busy cycles in A_BUSY
KIND_NAMES = (
    'vcpu kick irq worker lio_submit disk lio_complete notifier reactor iothread host_cpu'
).split()

# Every agent's stretch begins with these.
A_STATE = u64(0)
A_BUSY = u64(1)  # cycles in which the agent did something
A_STEPS = u64(2)
A_FIELDS = 3  # an agent's own fields begin here


@kernel(inline=True)
def wake(st, slot, time):
    """Make agent `slot` run at `time`, if it would not run earlier anyway."""
    entry = u64(st[H_DUE]) + u64(slot)
    key = (min(time, CLOCK_END) << SLOT_BITS) | slot
    if key < st[entry]:
        st[entry] = key
        st[u64(st[H_WOKEN]) + u64(st[H_WOKEN_COUNT])] = slot
        st[H_WOKEN_COUNT] += 1


# A bell: a word by which an agent that polls is told that there is something to see. RUNG while the
# agent is busy; while it waits, its slot + 1.
SILENT, RUNG = 0, -1


@kernel
def ring(st, bell, now):
    """Something has happened that a poller would see if it looked: one that waits looks now."""
    slot = st[bell]
    if slot > 0:
        st[bell] = SILENT
        wake(st, slot - 1, now)
    else:
        st[bell] = RUNG


# The calendar as a tree with eight branches: the entries of the slots, then the least of each eight
# of them, and so on until eight or fewer are left. One cache line per level, and none at all to
# keep up to date where there are at most eight agents.
EIGHT, THREE = u64(8), u64(3)


def calendar_words(slots: int) -> int:
    """How many words the entries of `slots` agents and the levels above them take."""
    size = -(-slots // 8) * 8
    return size if size <= 8 else size + calendar_words(size // 8)


@kernel(inline=True)
def least_of_eight(st, at):
    """The least of the eight words from `at` on."""
    low = min(min(st[at], st[at + ONE]), min(st[at + TWO], st[at + u64(3)]))
    high = min(min(st[at + u64(4)], st[at + u64(5)]), min(st[at + u64(6)], st[at + u64(7)]))
    return min(low, high)


@kernel(inline=True)
def padded(size):
    """`size` (uint64) rounded up to a multiple of eight."""
    return ((size + u64(7)) >> THREE) << THREE


@kernel
def top_of_calendar(st):
    """Where the highest level stands."""
    level, size = u64(st[H_DUE]), padded(u64(st[H_SLOTS]))
    while size > EIGHT:
        level += size
        size = padded(size >> THREE)
    return level


@kernel(inline=True)
def renew(st, slot):
    """The entry of `slot` has changed: carry it up through the levels."""
    level, size = u64(st[H_DUE]), padded(u64(st[H_SLOTS]))
    index = u64(slot) >> THREE
    while size > EIGHT:
        upper = level + size
        st[upper + index] = least_of_eight(st, level + (index << THREE))
        level = upper
        size = padded(size >> THREE)
        index = index >> THREE


@kernel(inline=True)
def lower(st, slot):
    """The entry of `slot` has become less: so have the levels above that were greater."""
    level, size = u64(st[H_DUE]), padded(u64(st[H_SLOTS]))
    key, index = st[level + u64(slot)], u64(slot) >> THREE
    while size > EIGHT and key < st[level + size + index]:
        level += size
        st[level + index] = key
        size = padded(size >> THREE)
        index = index >> THREE


@kernel(inline=True)
def move(st, slot, time):
    """Make agent `slot` run at `time`, whenever it would have run."""
    st[u64(st[H_DUE]) + u64(slot)] = (min(time, CLOCK_END) << SLOT_BITS) | slot
    renew(st, slot)
    st[u64(st[H_WOKEN]) + u64(st[H_WOKEN_COUNT])] = slot
    st[H_WOKEN_COUNT] += 1


@kernel
def rest(st, slot):
    """Control: agent `slot` waits to be woken, whenever it would have run."""
    st[u64(st[H_DUE]) + u64(slot)] = IDLE
    renew(st, slot)
    st[u64(st[H_WOKEN]) + u64(st[H_WOKEN_COUNT])] = slot
    st[H_WOKEN_COUNT] += 1


@kernel(inline=True)
def wrapped(place, room):
    """`place` in a circular list, where it is at most one lap ahead."""
    return place - room if place >= room else place


@kernel(inline=True)
def note_step(st, slot, now, state):
    """Fold one step into the digest (FNV-1a over 64-bit words)."""
    word = (u64(now) << u64(24)) ^ (u64(slot) << u64(8)) ^ u64(state)
    st[H_DIGEST] = np.int64((u64(st[H_DIGEST]) ^ word) * u64(0x100000001B3))
    st[H_STEPS] += 1
