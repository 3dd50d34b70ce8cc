"""What the model writes down: one row of the trace per request.

The trace is one int64 array, a row of COLUMNS words per request; a row is named by its offset.
Row 0 is a scratch row: with recording off every request writes there, and nothing else changes,
because the model never reads the trace. Timestamps are cycles plus one, so that zero means "never
happened".
"""

import numpy as np
import numpy.typing as npt

from sim.agents import H_NOTICE, H_ROW_WORDS, H_ROWS, H_ROWS_HIGH, N_TRACE_FULL
from sim.jit import kernel

u64 = np.uint64

TIMESTAMPS = (
    't_arrive',
    't_submit',
    't_avail',
    't_kick',
    't_fetch',
    't_issue',
    't_done',
    't_report',
    't_used',
    't_irq',
    't_complete',
)
STAGES = tuple(name[2:] for name in TIMESTAMPS[1:])
FACTS = (
    'serial',  # number of the I/O in the run, in the order in which the jobs prepared them
    'job',
    'queue',
    'write',
    'lba',
    'bytes',
    'kick',  # number of the kick that carried it, 0 where none did
    'irq',  # number of the interrupt whose handler found it
    'outcome',
    'stamp',  # fold of the block stamps that the guest wrote or found
    'disk_order',  # in which order the disk made the transfers
    'published',
    'fetched',
    'used',
    'completed',  # how often each happened
    'reap',  # when fio reaped it (io_getevents), cycles plus one like a timestamp
)
COLUMNS = TIMESTAMPS + FACTS
ROW_WORDS = len(COLUMNS)

(
    R_ARRIVE,
    R_SUBMIT,
    R_AVAIL,
    R_KICK,
    R_FETCH,
    R_ISSUE,
    R_DONE,
    R_REPORT,
    R_USED,
    R_IRQ,
    R_COMPLETE,
    R_SERIAL,
    R_JOB,
    R_QUEUE,
    R_WRITE,
    R_LBA,
    R_BYTES,
    R_KICK_ID,
    R_IRQ_ID,
    R_OUTCOME,
    R_STAMP,
    R_DISK_ORDER,
    R_PUBLISHED_COUNT,
    R_FETCHED_COUNT,
    R_USED_COUNT,
    R_COMPLETED_COUNT,
    R_REAP,
) = map(u64, range(ROW_WORDS))

# Outcomes.
UNFINISHED, OK, BAD_TARGET, CHECK_CONDITION, DROPPED = range(5)
OUTCOMES = ('unfinished', 'ok', 'bad_target', 'check_condition', 'dropped')


@kernel
def new_row(lines, st, tr):
    """The offset of the row of the request H_SERIAL (the scratch row when nothing is recorded)."""
    row = st[H_ROWS]
    st[H_ROWS] += st[H_ROW_WORDS]
    if st[H_ROWS] > st[H_ROWS_HIGH]:
        st[H_NOTICE] |= N_TRACE_FULL
    return row


@kernel
def reap(st, tr, row, now):
    """fio has reaped the request of `row`: the model writes to it no more."""
    tr[row + R_REAP] = now + 1


def new_trace(rows: int) -> npt.NDArray[np.int64]:
    """Room for `rows` requests behind the scratch row."""
    return np.zeros((rows + 1) * ROW_WORDS, dtype=np.int64)


# Block stamps: what tells one write's data from every other's.


@kernel
def block_stamp(serial, lba):
    """What a write leaves in a block, and no other write does: serial < 2**31."""
    return (serial * 2654435761) ^ lba


@kernel
def blank_stamp(lba):
    """What a block holds that nobody ever wrote."""
    return -1 - lba


@kernel
def fold(total, stamp):
    """Fold a block's stamp into that of the request, wrapping at 64 bits."""
    return total * 31 + stamp
