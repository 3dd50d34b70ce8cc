"""The application: one thread of a fio job, as it looks from the system calls it makes.

A job keeps `iodepth` *units* (fio's io_u). A unit is free, prepared (with the application), with
the driver, or done (completed and not yet reaped). The thread goes round fio's do_io(): prepare
units until a batch is full, hand the batch to the kernel, reap what has completed. Deciding takes
no time; system calls do, and they are the vCPU's (sim.guest), which asks `next_call` what the
thread does next:

    COMMIT  io_submit or io_uring_enter with everything prepared; fsync() of libaio as well
    REAP    io_getevents for at least iodepth_batch_complete_min; an open loop waits no longer than
            until the next I/O is due (`patience`)
    FSYNC   asleep in fsync() until the flush is done
    SPIN    burn the CPU for `arrivals.spin` cycles (thinktime_spin)
    PAUSE   sleep for `arrivals.pause` cycles (think time, rate)
    END     the job is over

Where the I/O goes is sim.workload.places, when it comes is sim.workload.arrivals; a job that
replays a trace has both from the trace.
"""

import numpy as np

from sim import record, recorder
from sim.agents import H_NOTICE, H_SERIAL, N_JOB_DONE, NEVER, wrapped
from sim.jit import kernel
from sim.se_cmd import OP_FLUSH, OP_WRITE
from sim.workload import arrivals, places
from sim.workload.job_fields import (
    E_BLOCKS,
    E_LBA,
    E_OP,
    E_TIME,
    F_NEXT,
    F_POSITION,
    F_RATED,
    FLUSH_DUE,
    J_BATCH,
    J_BYTES_LEFT,
    J_CURSOR,
    J_DEPTH,
    J_DONE_COUNT,
    J_DONE_HEAD,
    J_DONE_LIST,
    J_END_FSYNC,
    J_FDATASYNC,
    J_FINISHED,
    J_FLUSH,
    J_FREE_COUNT,
    J_FREE_LIST,
    J_FREE_LOW,
    J_FREE_WANTED,
    J_FSYNC,
    J_ISSUED,
    J_LAST_ARRIVAL,
    J_LIMIT,
    J_LOOP_BYTES,
    J_LOOP_LIMIT,
    J_LOOP_STARTED,
    J_LOOPS,
    J_MISSED,
    J_NUMBER,
    J_OPEN,
    J_PACED,
    J_PLAIN,
    J_PREPARED_COUNT,
    J_PREPARED_HEAD,
    J_PREPARED_LIST,
    J_QUEUE,
    J_REAP_MAX,
    J_REAP_MIN,
    J_REPLAY,
    J_REPLAY_COUNT,
    J_RUNTIME,
    J_SPIN_LEFT,
    J_START_DELAY,
    J_STARTED,
    J_STOP_AT,
    J_UNITS,
    J_URING,
    J_WRITES,
    PACE_RATE,
    PACE_THINK,
    TRACE_WORDS,
    U_BLOCKS,
    U_LBA,
    U_OP,
    U_ROW,
    U_SERIAL,
    UNIT_WORDS,
)

u64 = np.uint64

COMMIT, REAP, FSYNC, SPIN, PAUSE, END = range(6)

# What a completion is to the thread.
NO_WAKE, WAKES_REAP, WAKES_FSYNC = range(3)


@kernel
def start(st, j, now):
    """The job's clock starts at `now`, its I/O after startdelay; when that is."""
    at = now + st[j + J_START_DELAY]
    st[j + J_STARTED] = at + 1
    st[j + J_LOOP_STARTED] = at
    st[j + J_STOP_AT] = NEVER if st[j + J_RUNTIME] >= NEVER else at + st[j + J_RUNTIME]
    arrivals.start(st, j, at)
    return at


@kernel(inline=True)
def unit_of(st, j, number):
    """Where unit `number` stands."""
    return u64(st[j + J_UNITS]) + UNIT_WORDS * u64(number)


# ------------------------------------------------------------------------------------- do_io() ----


@kernel(inline=True)
def with_driver(st, j):
    """How many units are between io_submit and the reaping."""
    return st[j + J_DEPTH] - st[j + J_FREE_COUNT] - st[j + J_PREPARED_COUNT]


@kernel(inline=True)
def next_call(lines, st, tr, j, now):
    """What the thread does next; prepares units on the way (fio's do_io())."""
    if st[j + J_OPEN]:
        return _open_call(lines, st, tr, j, now)
    while True:
        over = st[j + J_ISSUED] >= st[j + J_LIMIT] or now >= st[j + J_STOP_AT]
        if st[j + J_FLUSH]:
            call = _flush_call(lines, st, tr, j, now, over)
            if call >= 0:
                return call
            continue
        waits = st[j + J_PACED] and arrivals.earliest(st, j, now) > now
        if over or waits or st[j + J_FREE_COUNT] < st[j + J_FREE_WANTED]:
            # Before it sleeps or ends, fio lets everything finish (io_u_quiesce()).
            if st[j + J_PREPARED_COUNT]:
                return COMMIT
            if with_driver(st, j):
                st[j + J_FREE_WANTED] = st[j + J_FREE_LOW]
                return REAP
            if not over:
                return SPIN if st[j + J_SPIN_LEFT] else PAUSE
            if _ends(lines, st, tr, j, now):
                return END
            continue
        if st[j + J_PLAIN]:
            _prepare_plain(lines, st, tr, j, now)
        else:
            _prepare(lines, st, tr, j, now, now)
        if st[j + J_PREPARED_COUNT] >= st[j + J_BATCH]:
            return COMMIT


@kernel
def _open_call(lines, st, tr, j, now):
    """The same in an open loop: what is due is issued while there are units; then it reaps."""
    while True:
        due = intended(st, j)
        over = st[j + J_ISSUED] >= st[j + J_LIMIT] or max(due, now) >= st[j + J_STOP_AT]
        if st[j + J_FREE_COUNT] and not over and (st[j + J_FLUSH] or due <= now):
            if st[j + J_FLUSH]:
                st[j + J_FLUSH] = 0
                _prepare_flush(lines, st, tr, j, st[j + J_LAST_ARRIVAL], now)
            else:
                _prepare(lines, st, tr, j, due, now)
            if st[j + J_PREPARED_COUNT] < st[j + J_BATCH]:
                continue
        if st[j + J_PREPARED_COUNT]:
            return COMMIT
        if with_driver(st, j):
            return REAP
        if not over:
            return PAUSE
        if _ends(lines, st, tr, j, now):
            st[j + J_MISSED] = _missed(st, j)
            return END


@kernel
def intended(st, j):
    """Open loop: when the next I/O arrives, NEVER after the last."""
    if st[j + J_REPLAY] == 0:
        return arrivals.next_due(st, j)
    if st[j + J_CURSOR] >= st[j + J_REPLAY_COUNT]:
        return NEVER
    return st[j + J_LOOP_STARTED] + st[_trace_record(st, j) + E_TIME]


@kernel
def patience(st, j, now):
    """How long io_getevents may sleep: in an open loop until there is something to issue."""
    if st[j + J_OPEN] == 0 or st[j + J_FREE_COUNT] == 0 or st[j + J_ISSUED] >= st[j + J_LIMIT]:
        return NEVER
    due = intended(st, j)
    return NEVER if due >= st[j + J_STOP_AT] else max(due - now, 0)


@kernel
def pause(st, j, now):
    """How long the thread sleeps."""
    if st[j + J_OPEN]:
        return min(intended(st, j), st[j + J_STOP_AT]) - now
    return arrivals.pause(st, j, now)


@kernel
def _ends(lines, st, tr, j, now):
    """Nothing is left of this loop: begin the next, or flush at the end (end_fsync), or be done."""
    if st[j + J_LOOPS] and st[j + J_ISSUED] >= st[j + J_LIMIT] and now < st[j + J_STOP_AT]:
        st[j + J_LOOPS] -= 1
        st[j + J_LIMIT] = st[j + J_ISSUED] + st[j + J_LOOP_LIMIT]
        st[j + J_BYTES_LEFT] = st[j + J_LOOP_BYTES]
        st[j + J_CURSOR] = 0
        st[j + J_LOOP_STARTED] = now
        st[places.direction_of(j, 0) + F_POSITION] = 0
        st[places.direction_of(j, 1) + F_POSITION] = 0
        return False
    if st[j + J_END_FSYNC] and st[j + J_WRITES]:
        st[j + J_END_FSYNC] = 0
        number = _prepare_flush(lines, st, tr, j, now, now)
        st[j + J_FLUSH] = 0 if st[j + J_OPEN] else number + 1
        return False
    st[j + J_FINISHED] = now + 1
    st[H_NOTICE] |= N_JOB_DONE
    return True


@kernel
def _missed(st, j):
    """How many arrivals the end of the run has left in the backlog."""
    issued = st[j + J_ISSUED]
    while st[j + J_ISSUED] < st[j + J_LIMIT] and intended(st, j) < st[j + J_STOP_AT]:
        _select(st, j, 0)
    count = st[j + J_ISSUED] - issued
    st[j + J_ISSUED] = issued
    return count


# ---------------------------------------------------------------------------------- get_io_u() ----


@kernel(inline=True)
def _prepare_plain(lines, st, tr, j, now):
    """_prepare() without looking for what a job of plain reads and writes does not have."""
    index = st[j + J_ISSUED]
    st[j + J_ISSUED] = index + 1
    op = arrivals.direction(st, j, index)
    lba, blocks = places.choose(st, j, places.direction_of(j, op), index)
    _queue_unit(lines, st, tr, j, op, lba, blocks, now, now)


@kernel
def _prepare(lines, st, tr, j, arrival, now):
    """The job's next I/O takes a free unit and queues behind the others."""
    op, lba, blocks = _select(st, j, now)
    _take_unit(lines, st, tr, j, op, lba, blocks, arrival, now)
    st[j + J_LAST_ARRIVAL] = arrival
    if op == OP_WRITE:
        writes = st[j + J_WRITES] + 1
        st[j + J_WRITES] = writes
        if _divides(st[j + J_FSYNC], writes) or _divides(st[j + J_FDATASYNC], writes):
            st[j + J_FLUSH] = FLUSH_DUE
    if st[j + J_PACED] & PACE_THINK:
        arrivals.think(st, j, now)


@kernel(inline=True)
def _divides(every, count):
    return every > 0 and count % every == 0


@kernel
def _select(st, j, now):
    """What the next I/O is: operation, first block, blocks. The clock of its direction moves on."""
    index = st[j + J_ISSUED]
    st[j + J_ISSUED] = index + 1
    if st[j + J_REPLAY]:
        record_at = _trace_record(st, j)
        st[j + J_CURSOR] += 1
        return st[record_at + E_OP], st[record_at + E_LBA], st[record_at + E_BLOCKS]
    reads, writes = places.direction_of(j, 0), places.direction_of(j, 1)
    if st[j + J_OPEN]:
        op = 1 if st[writes + F_NEXT] < st[reads + F_NEXT] else 0
    else:
        op = arrivals.direction(st, j, index)
        if st[j + J_PACED] & PACE_RATE:
            op = arrivals.due_direction(st, j, op, now)
    f = writes if op else reads
    lba, blocks = places.choose(st, j, f, index)
    if st[f + F_RATED]:
        arrivals.advance(st, j, f, index, blocks)
    if st[j + J_LOOP_BYTES]:
        st[j + J_BYTES_LEFT] -= 512 * blocks
        if st[j + J_BYTES_LEFT] <= 0:
            st[j + J_LIMIT] = index + 1
    return op, lba, blocks


@kernel(inline=True)
def _trace_record(st, j):
    return u64(st[j + J_REPLAY]) + TRACE_WORDS * u64(st[j + J_CURSOR])


@kernel
def _take_unit(lines, st, tr, j, op, lba, blocks, arrival, now):
    """_queue_unit() for all that are not in a hurry."""
    return _queue_unit(lines, st, tr, j, op, lba, blocks, arrival, now)


@kernel(inline=True)
def _queue_unit(lines, st, tr, j, op, lba, blocks, arrival, now):
    """A free unit for an I/O; it queues behind those that are prepared. Its number."""
    free = st[j + J_FREE_COUNT] - 1
    st[j + J_FREE_COUNT] = free
    number = st[u64(st[j + J_FREE_LIST]) + u64(free)]
    count = st[j + J_PREPARED_COUNT]
    tail = wrapped(st[j + J_PREPARED_HEAD] + count, st[j + J_DEPTH])
    st[u64(st[j + J_PREPARED_LIST]) + u64(tail)] = number
    st[j + J_PREPARED_COUNT] = count + 1
    serial = st[H_SERIAL] + 1
    st[H_SERIAL] = serial
    row = recorder.new_row(lines, st, tr, now)
    unit = unit_of(st, j, number)
    st[unit + U_ROW] = row
    st[unit + U_OP] = op
    st[unit + U_LBA] = lba
    st[unit + U_SERIAL] = serial
    st[unit + U_BLOCKS] = blocks
    r = u64(row)
    tr[r + record.R_ARRIVE] = arrival + 1
    tr[r + record.R_SERIAL] = serial
    tr[r + record.R_JOB] = st[j + J_NUMBER]
    tr[r + record.R_QUEUE] = st[j + J_QUEUE]
    tr[r + record.R_OP] = op
    tr[r + record.R_LBA] = lba
    tr[r + record.R_BYTES] = blocks * 512
    return number


@kernel(inline=True)
def take_prepared(st, j):
    """The oldest prepared unit goes to the driver; its number."""
    head = st[j + J_PREPARED_HEAD]
    st[j + J_PREPARED_HEAD] = wrapped(head + 1, st[j + J_DEPTH])
    st[j + J_PREPARED_COUNT] -= 1
    return st[u64(st[j + J_PREPARED_LIST]) + u64(head)]


# ------------------------------------------------------------------------------------- fsync() ----


@kernel
def _prepare_flush(lines, st, tr, j, arrival, now):
    """A flush takes a free unit; its number."""
    return _take_unit(lines, st, tr, j, OP_FLUSH, 0, 0, arrival, now)


@kernel
def _flush_call(lines, st, tr, j, now, over):
    """What the thread does for a flush: a call, or -1 to go on with other things.

    libaio knows no fsync: fio hands over what is prepared and sleeps in fsync(2) until the flush is
    done (fio_libaio_queue()). With io_uring it is a request like any other.
    """
    prepared = st[j + J_PREPARED_COUNT]
    if st[j + J_FLUSH] > 0:
        return COMMIT if prepared else FSYNC
    if over:
        st[j + J_FLUSH] = 0
        return -1
    if prepared and (st[j + J_URING] == 0 or st[j + J_FREE_COUNT] == 0):
        return COMMIT
    if st[j + J_FREE_COUNT] == 0:
        return REAP
    number = _prepare_flush(lines, st, tr, j, now, now)
    st[j + J_FLUSH] = 0
    if st[j + J_URING] == 0:
        st[j + J_FLUSH] = number + 1
        return COMMIT
    return COMMIT if st[j + J_PREPARED_COUNT] >= st[j + J_BATCH] else -1


# ------------------------------------------------------------------------------ io_getevents() ----


@kernel(inline=True)
def wanted(st, j):
    """How many completions io_getevents waits for: the minimum, or all there are to come."""
    return min(st[j + J_REAP_MIN], with_driver(st, j))


@kernel
def has_enough(st, j):
    """Are there as many completions as io_getevents waits for?"""
    return st[j + J_DONE_COUNT] >= wanted(st, j)


@kernel(inline=True)
def reap(st, tr, j, now):
    """io_getevents(min, max): take what is there; False if it must sleep for more."""
    ready = st[j + J_DONE_COUNT]
    if ready < wanted(st, j):
        return False
    head, depth, free = st[j + J_DONE_HEAD], st[j + J_DEPTH], st[j + J_FREE_COUNT]
    taken = min(ready, st[j + J_REAP_MAX])
    for _ in range(taken):
        number = st[u64(st[j + J_DONE_LIST]) + u64(head)]
        head = wrapped(head + 1, depth)
        st[u64(st[j + J_FREE_LIST]) + u64(free)] = number
        free += 1
        recorder.reap(st, tr, u64(st[unit_of(st, j, number) + U_ROW]), now)
    st[j + J_DONE_HEAD] = head
    st[j + J_DONE_COUNT] = ready - taken
    st[j + J_FREE_COUNT] = free
    if free >= st[j + J_FREE_WANTED]:
        st[j + J_FREE_WANTED] = 1
    return True


@kernel(inline=True)
def put_done(st, tr, j, number, now):
    """A completion reaches the job: NO_WAKE, or whom it wakes if he sleeps."""
    flush = st[j + J_FLUSH]
    if flush == number + 1:
        free = st[j + J_FREE_COUNT]
        st[u64(st[j + J_FREE_LIST]) + u64(free)] = number
        st[j + J_FREE_COUNT] = free + 1
        st[j + J_FLUSH] = 0
        recorder.reap(st, tr, u64(st[unit_of(st, j, number) + U_ROW]), now)
        return WAKES_FSYNC
    count = st[j + J_DONE_COUNT]
    tail = wrapped(st[j + J_DONE_HEAD] + count, st[j + J_DEPTH])
    st[u64(st[j + J_DONE_LIST]) + u64(tail)] = number
    st[j + J_DONE_COUNT] = count + 1
    return WAKES_REAP if flush <= 0 and count + 1 >= wanted(st, j) else NO_WAKE
