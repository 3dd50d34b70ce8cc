"""The application: one thread of a fio job, as it looks from the system calls it makes.

A job keeps `iodepth` *units* (fio's io_u). A unit is free, prepared (with the application), with
the driver, or done (completed and not yet reaped). The thread goes round fio's do_io(): prepare
units until a batch is full, hand the batch to the kernel, reap what has completed. Deciding takes
no time; system calls do, and they are the vCPU's (sim.guest), which asks `next_call` what the
thread does next:

    COMMIT  io_submit or io_uring_enter with everything prepared
    REAP    io_getevents for at least iodepth_batch_complete_min
    PAUSE   sleep for `pause` cycles (think time, rate)
    END     the job is over
"""

import numpy as np

from sim import record, recorder
from sim.agents import H_NOTICE, H_SERIAL, LOG_TABLE, N_JOB_DONE, NEVER
from sim.jit import kernel
from sim.rng import below, exponential, permute

u64 = np.uint64

COMMIT, REAP, PAUSE, END = range(4)

# A job's stretch.
(
    J_NUMBER,
    J_QUEUE,  # index of the queue that its vCPU submits to, for the record
    J_URING,
    J_WRITE_PERCENT,
    J_RANDOM,
    J_RANDOM_MAP,
    J_BLOCKS,  # 512-byte blocks per I/O
    J_SEGMENTS,
    J_REGION,  # I/O-sized places in the job's file
    J_DEPTH,
    J_BATCH,
    J_REAP_MIN,
    J_REAP_MAX,
    J_LIMIT,  # I/Os to issue, NEVER: until J_STOP_AT
    J_RUNTIME,  # cycles from the start, NEVER: until J_LIMIT
    J_STOP_AT,
    J_THINK,
    J_RATE,  # cycles between intended arrivals, 0: closed loop
    J_POISSON,
    J_KEY_PLACE,
    J_KEY_MIX,
    J_KEY_ARRIVAL,
    J_STARTED,
    J_ISSUED,
    J_NEXT_ARRIVAL,
    J_PENDING_THINK,
    J_FREE_COUNT,  # units that are free, a stack
    J_FREE_LIST,
    J_PREPARED_COUNT,  # units prepared and not yet with the driver, first in first out
    J_PREPARED_HEAD,
    J_PREPARED_LIST,
    J_DONE_COUNT,  # units complete and not yet reaped, first in first out
    J_DONE_HEAD,
    J_DONE_LIST,
    J_UNITS,
    J_FINISHED,
) = map(u64, range(36))
JOB_WORDS = 36

# fio's io_u.
U_ROW, U_WRITE, U_LBA, U_SERIAL = map(u64, range(4))
UNIT_WORDS = u64(4)


@kernel
def start(st, j, now):
    """The job's clock starts at `now`."""
    st[j + J_STARTED] = now + 1
    st[j + J_STOP_AT] = NEVER if st[j + J_RUNTIME] >= NEVER else now + st[j + J_RUNTIME]
    st[j + J_NEXT_ARRIVAL] = now


@kernel(inline=True)
def unit_of(st, j, number):
    """Where unit `number` stands."""
    return u64(st[j + J_UNITS]) + UNIT_WORDS * u64(number)


@kernel(inline=True)
def _wrapped(place, room):
    """`place` in a circular list, where it is at most one lap ahead."""
    return place - room if place >= room else place


# ------------------------------------------------------------------------------------- do_io() ----


@kernel(inline=True)
def with_driver(st, j):
    """How many units are between io_submit and the reaping."""
    return st[j + J_DEPTH] - st[j + J_FREE_COUNT] - st[j + J_PREPARED_COUNT]


@kernel(inline=True)
def next_call(lines, st, tr, j, now):
    """What the thread does next; prepares units on the way (fio's do_io())."""
    while True:
        over = st[j + J_ISSUED] >= st[j + J_LIMIT] or now >= st[j + J_STOP_AT]
        waits = st[j + J_PENDING_THINK] or (st[j + J_RATE] and now < st[j + J_NEXT_ARRIVAL])
        if over or waits or st[j + J_FREE_COUNT] == 0:
            # Before it sleeps or ends, fio lets everything finish (io_u_quiesce()).
            if st[j + J_PREPARED_COUNT]:
                return COMMIT
            if with_driver(st, j):
                return REAP
            if not over:
                return PAUSE
            st[j + J_FINISHED] = now + 1
            st[H_NOTICE] |= N_JOB_DONE
            return END
        arrival = now
        if st[j + J_RATE]:
            arrival = st[j + J_NEXT_ARRIVAL]
            _next_arrival(st, j)
        _prepare(lines, st, tr, j, arrival, now)
        st[j + J_PENDING_THINK] = st[j + J_THINK]
        if st[j + J_PREPARED_COUNT] >= st[j + J_BATCH]:
            return COMMIT


@kernel(inline=True)
def pause(st, j, now):
    """How long the thread sleeps; the think time is then over."""
    left = st[j + J_PENDING_THINK]
    st[j + J_PENDING_THINK] = 0
    if st[j + J_RATE]:
        left = max(left, st[j + J_NEXT_ARRIVAL] - now)
    return min(left, st[j + J_STOP_AT] - now)


@kernel(inline=True)
def _place(st, j, index):
    """First block of the job's `index`-th I/O."""
    region = st[j + J_REGION]
    if st[j + J_RANDOM]:
        if st[j + J_RANDOM_MAP]:
            lap = index // region
            place = permute(st[j + J_KEY_PLACE] + lap, index - lap * region, region)
        else:
            place = below(st[j + J_KEY_PLACE], index, region)
    else:
        place = index % region
    return place * st[j + J_BLOCKS]


@kernel(inline=True)
def _next_arrival(st, j):
    """The intended time of the next I/O: linear (rate_iops) or Poisson (rate_process)."""
    gap = st[j + J_RATE]
    if st[j + J_POISSON]:
        gap = exponential(st, LOG_TABLE, st[j + J_KEY_ARRIVAL], st[j + J_ISSUED], gap)
    st[j + J_NEXT_ARRIVAL] += gap


@kernel(inline=True)
def _prepare(lines, st, tr, j, arrival, now):
    """get_io_u(): the job's next I/O takes a free unit and queues behind the others."""
    index = st[j + J_ISSUED]
    st[j + J_ISSUED] = index + 1
    free = st[j + J_FREE_COUNT] - 1
    st[j + J_FREE_COUNT] = free
    number = st[u64(st[j + J_FREE_LIST]) + u64(free)]
    count = st[j + J_PREPARED_COUNT]
    tail = _wrapped(st[j + J_PREPARED_HEAD] + count, st[j + J_DEPTH])
    st[u64(st[j + J_PREPARED_LIST]) + u64(tail)] = number
    st[j + J_PREPARED_COUNT] = count + 1
    percent = st[j + J_WRITE_PERCENT]
    write = 1 if percent and below(st[j + J_KEY_MIX], index, 100) < percent else 0
    serial = st[H_SERIAL] + 1
    st[H_SERIAL] = serial
    lba = _place(st, j, index)
    row = recorder.new_row(lines, st, tr, now)
    unit = unit_of(st, j, number)
    st[unit + U_ROW] = row
    st[unit + U_WRITE] = write
    st[unit + U_LBA] = lba
    st[unit + U_SERIAL] = serial
    r = u64(row)
    tr[r + record.R_ARRIVE] = arrival + 1
    tr[r + record.R_SERIAL] = serial
    tr[r + record.R_JOB] = st[j + J_NUMBER]
    tr[r + record.R_QUEUE] = st[j + J_QUEUE]
    tr[r + record.R_WRITE] = write
    tr[r + record.R_LBA] = lba
    tr[r + record.R_BYTES] = st[j + J_BLOCKS] * 512


@kernel(inline=True)
def take_prepared(st, j):
    """The oldest prepared unit goes to the driver; its number."""
    head = st[j + J_PREPARED_HEAD]
    st[j + J_PREPARED_HEAD] = _wrapped(head + 1, st[j + J_DEPTH])
    st[j + J_PREPARED_COUNT] -= 1
    return st[u64(st[j + J_PREPARED_LIST]) + u64(head)]


# ------------------------------------------------------------------------------ io_getevents() ----


@kernel(inline=True)
def wanted(st, j):
    """How many completions io_getevents waits for: the minimum, or all there are to come."""
    return min(st[j + J_REAP_MIN], with_driver(st, j))


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
        head = _wrapped(head + 1, depth)
        st[u64(st[j + J_FREE_LIST]) + u64(free)] = number
        free += 1
        recorder.reap(st, tr, u64(st[unit_of(st, j, number) + U_ROW]), now)
    st[j + J_DONE_HEAD] = head
    st[j + J_DONE_COUNT] = ready - taken
    st[j + J_FREE_COUNT] = free
    return True


@kernel(inline=True)
def put_done(st, j, number):
    """A completion reaches the job; True if a thread that waits for events has enough now."""
    count = st[j + J_DONE_COUNT]
    tail = _wrapped(st[j + J_DONE_HEAD] + count, st[j + J_DEPTH])
    st[u64(st[j + J_DONE_LIST]) + u64(tail)] = number
    st[j + J_DONE_COUNT] = count + 1
    return count + 1 >= wanted(st, j)
