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

NEVER = 1 << 62

# The head of the world.
(
    H_SLOTS,  # how many agents
    H_DUE,  # offset of due[slot]: when the agent runs next
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
    H_SEGMENTS,  # data segments that a command can hold
    H_DISK_ORDER,  # how many transfers the disk has made
    H_NOW,  # when the last step was performed
) = map(u64, range(16))

# Costs in cycles (sim.costs.Costs has the same names and explains them).
COSTS = (
    'guest_submit',
    'guest_complete',
    'guest_io_submit',
    'guest_io_getevents',
    'kick_exit',
    'kick_signal',
    'kick_return',
    'irq_inject',
    'irq_entry',
    'irq_return',
    'vcpu_halt_wake',
    'vcpu_halt_poll',
    'worker_wake',
    'worker_pop',
    'worker_submit',
    'worker_complete',
    'lio_hop',
    'lio_submit',
    'lio_complete',
)
(
    K_GUEST_SUBMIT,
    K_GUEST_COMPLETE,
    K_GUEST_IO_SUBMIT,
    K_GUEST_IO_GETEVENTS,
    K_KICK_EXIT,
    K_KICK_SIGNAL,
    K_KICK_RETURN,
    K_IRQ_INJECT,
    K_IRQ_ENTRY,
    K_IRQ_RETURN,
    K_VCPU_HALT_WAKE,
    K_VCPU_HALT_POLL,
    K_WORKER_WAKE,
    K_WORKER_POP,
    K_WORKER_SUBMIT,
    K_WORKER_COMPLETE,
    K_LIO_HOP,
    K_LIO_SUBMIT,
    K_LIO_COMPLETE,
) = map(u64, range(16, 16 + len(COSTS)))

LOG_TABLE = 64  # where sim.rng.log_table() stands in `st`
WORLD_WORDS = LOG_TABLE + 1025

# Notices to the control plane.
N_JOB_DONE = 1
N_TRACE_FULL = 2

# Agent kinds.
VCPU, KICK, IRQ, WORKER, LIO_SUBMIT, DISK, LIO_COMPLETE = range(7)
KIND_NAMES = ('vcpu', 'kick', 'irq', 'worker', 'lio_submit', 'disk', 'lio_complete')

# Every agent's stretch begins with these.
A_STATE = u64(0)
A_BUSY = u64(1)  # cycles in which the agent did something
A_STEPS = u64(2)
A_FIELDS = 3  # an agent's own fields begin here


@kernel
def wake(st, slot, time):
    """Make agent `slot` run at `time`, if it would not run earlier anyway."""
    due = u64(st[H_DUE]) + u64(slot)
    if time < st[due]:
        st[due] = time
        st[u64(st[H_WOKEN]) + u64(st[H_WOKEN_COUNT])] = slot
        st[H_WOKEN_COUNT] += 1


@kernel
def note_step(st, slot, now, state):
    """Fold one step into the digest (FNV-1a over 64-bit words)."""
    word = (u64(now) << u64(24)) ^ (u64(slot) << u64(8)) ^ u64(state)
    st[H_DIGEST] = np.int64((u64(st[H_DIGEST]) ^ word) * u64(0x100000001B3))
    st[H_STEPS] += 1
