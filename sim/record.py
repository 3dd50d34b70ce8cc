"""What the model writes down: one row of the trace per request.

A row is ROW_WORDS int64 words of the trace array, named by its offset. Timestamps are cycles plus
one, so that zero means "never happened". The model writes rows and never reads them for a decision:
with recording off every request writes to one scratch row, and nothing else changes. Who gets which
row, and what becomes of it, is the recorder's business (sim.recorder).
"""

import numpy as np

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
STAGE_COUNT = len(STAGES)
FACTS = (
    'serial',  # number of the I/O in the run, in the order in which the jobs prepared them
    'job',
    'queue',
    'op',  # OP_* of sim.se_cmd: 0 read, 1 write, 2 flush
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
    R_OP,
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

OPS = ('read', 'write', 'flush')

# What the guest's SCSI layer makes of a request: all well; the host byte that virtio_scsi gives it,
# DID_ without the prefix; or, where that is OK, the SAM status.
OUTCOMES = (
    'unfinished',
    'ok',
    'bad_target',
    'check_condition',
    'dropped',
    'no_connect',
    'error',
    'abort',
    'reset',
    'bus_busy',
    'transport_disrupted',
    'reservation_conflict',
    'busy',
    'task_set_full',
    'task_aborted',
)
(
    UNFINISHED,
    OK,
    BAD_TARGET,
    CHECK_CONDITION,
    DROPPED,
    NO_CONNECT,
    ERROR,
    ABORT,
    RESET,
    BUS_BUSY,
    TRANSPORT_DISRUPTED,
    RESERVATION_CONFLICT,
    BUSY,
    TASK_SET_FULL,
    TASK_ABORTED,
) = range(15)

# Block stamps: what tells one write's data from every other's.


@kernel(inline=True)
def block_stamp(serial, lba):
    """What a write leaves in a block, and no other write does: serial < 2**31."""
    return (serial * 2654435761) ^ lba


@kernel(inline=True)
def blank_stamp(lba):
    """What a block holds that nobody ever wrote."""
    return -1 - lba


@kernel(inline=True)
def fold(total, stamp):
    """Fold a block's stamp into that of the request, wrapping at 64 bits."""
    return total * 31 + stamp
