"""The stretch of a job's clone and its units, in one place.

A clone has a stretch for itself and one for each direction (fio's ddir): reads, then writes.
"""

import numpy as np

u64 = np.uint64

(
    J_NUMBER,
    J_QUEUE,  # index of the queue that its vCPU submits to, for the record
    J_QUEUE_BASE,  # and its base in the guest
    J_POLLED,  # io_uring with hipri: it polls that queue
    J_VCPU,  # where its thread runs; what follows is of a thread that is not in hand (guest_sched)
    J_STATE,
    J_AT,  # when its timer ends its sleep, NEVER: it has none
    J_READY_SINCE,  # NEVER: it is asleep
    J_SUBMITTING,
    J_PLUGGED,
    J_PLUG_LEFT,
    J_TAG,
    J_URING,
    J_WRITE_PERCENT,
    J_OPEN,  # open loop: I/O arrives whatever completes
    J_PACED,  # PACE_* bits: what else, beside its units, says when a closed loop goes on
    J_PLAIN,  # nothing but reads and writes of one size in a closed loop
    J_REPLAY,  # table of the trace to replay, 0 none
    J_REPLAY_COUNT,  # its records
    J_CURSOR,  # the record that comes next
    J_BASE,  # first block of the job's part of the LUN
    J_BLOCKS,  # how many blocks that part has
    J_DEPTH,
    J_BATCH,
    J_REAP_MIN,
    J_REAP_MAX,
    J_FREE_WANTED,  # units to be free before the next I/O: 1, or J_FREE_LOW once all were busy
    J_FREE_LOW,  # iodepth - iodepth_low, at least 1
    J_LIMIT,  # I/Os to issue, NEVER: until J_STOP_AT
    J_LOOP_LIMIT,  # by how much another loop moves J_LIMIT
    J_LOOPS,  # loops to come after this one
    J_BYTES_LEFT,  # bytes to issue in this loop, where requests differ in size
    J_LOOP_BYTES,
    J_RUNTIME,  # cycles from the start, NEVER: until J_LIMIT
    J_STOP_AT,
    J_STARTED,  # cycles plus one
    J_LOOP_STARTED,
    J_START_DELAY,
    J_ISSUED,  # reads and writes
    J_WRITES,
    J_RANDOMS,  # reads and writes that took a random place, where some take none
    J_THINK,  # cycles of think time, of which J_THINK_SPIN burn the CPU
    J_THINK_SPIN,
    J_THINK_BLOCKS,  # I/Os between two think times
    J_THINK_IOTIME,  # cycles between two think times, 0: only I/Os count
    J_THINK_LAST_ISSUED,
    J_THINK_LAST,
    J_THINK_LEFT,  # the pause that is due
    J_SPIN_LEFT,
    J_BURST_ON,  # cycles in which I/O may come, then J_BURST_OFF in which it may not
    J_BURST_OFF,
    J_BURST_IOS,  # I/Os that arrive together
    J_FSYNC,  # a flush after so many writes, 0 never
    J_FDATASYNC,
    J_END_FSYNC,
    J_FLUSH,  # FLUSH_DUE; or number plus one of the unit whose fsync() the thread sleeps in; or 0
    J_LAST_ARRIVAL,
    J_MISSED,  # arrivals that the end of the run left in the backlog
    J_KEY_PLACE,
    J_KEY_MIX,
    J_KEY_ARRIVAL,
    J_KEY_SIZE,
    J_KEY_ORDER,
    J_FREE_COUNT,  # units that are free, a stack
    J_FREE_LIST,
    J_PREPARED_COUNT,  # units prepared and not yet with the driver, first in first out
    J_PREPARED_HEAD,
    J_PREPARED_LIST,
    J_DONE_COUNT,  # units complete and not yet reaped, first in first out
    J_DONE_HEAD,
    J_DONE_LIST,
    J_UNITS,
    J_LUN,  # base of the guest's LUN
    J_FINISHED,
    J_DIRECTIONS,  # the two directions begin here
) = map(u64, range(75))

# Of a direction.
(
    F_USED,  # does the job go in this direction at all?
    F_PLAIN,  # requests of one size at the places of a permutation (fio's random map)
    F_PATTERN,
    F_PERCENT_RANDOM,
    F_UNIT,  # blocks between two places: the smallest request
    F_REGION,  # places
    F_REGION_BITS,
    F_POSITION,  # where a sequential request goes next, in blocks
    F_TABLE,  # of the skewed and the zoned patterns
    F_OFFSET,  # by how many places a skewed pattern is turned
    F_DEVIATION,  # of the normal pattern, in places
    F_SIZES,  # table of request sizes, 0: all are of F_UNIT
    F_SIZE_MAX,  # of a range of sizes
    F_RATED,
    F_POISSON,
    F_GAP,  # cycles times F_RATE between two I/Os (or for a block)
    F_GAP_PER_BLOCK,
    F_RATE,
    F_REST,  # what division has left over
    F_MEAN,  # mean gap of the Poisson process in cycles
    F_IN_BURST,  # I/Os of the burst that are still to come
    F_OWED,  # cycles that they will have taken
    F_ACTIVE,  # cycles of the on-phases that have gone by
    F_NEXT,  # intended time of the next I/O; NEVER where the direction is not used
) = map(u64, range(24))
DIRECTION_WORDS = u64(24)
JOB_WORDS = 74 + 2 * 24

# fio's io_u.
U_ROW, U_OP, U_LBA, U_SERIAL, U_BLOCKS = map(u64, range(5))
UNIT_WORDS = u64(5)

# A record of a trace: when, as cycles after its first; what; where, in blocks of the LUN.
E_TIME, E_OP, E_LBA, E_BLOCKS = map(u64, range(4))
TRACE_WORDS = u64(4)

FLUSH_DUE = -1
PACE_THINK, PACE_RATE, PACE_BURST = 1, 2, 4
MAPPED, UNIFORM, SEQUENTIAL, SKEWED, NORMAL, ZONED = range(6)
RANGE = 1  # F_SIZES of a bsrange; else it is the place of a table
