"""The guest's thread in the kernel: from io_submit() to the kick (sim.guest draws its life).

The application (sim.workload.app) says which system call comes next; here are the calls, blk-mq's
tags and plug, and the driver's virtscsi_queuecommand() with its kick.
"""

import numpy as np

from sim import record, scsi, vring
from sim.agents import (
    A_STATE,
    H_KVM_LOG,
    K_GUEST_IO_GETEVENTS,
    K_GUEST_IO_SUBMIT,
    K_GUEST_SUBMIT,
    K_KICK_EXIT,
    K_KICK_RETURN,
    K_KICK_SIGNAL,
    NEVER,
    ring,
    wake,
    wrapped,
)
from sim.driver import complete as guest_complete
from sim.driver import dirty
from sim.driver import handler as guest_handler
from sim.driver.fields import (
    ADD,
    AIO_PLUG_THRESHOLD,
    BLOCKS_PER_PAGE,
    CALL,
    DONE,
    ENTER,
    G_BELL,
    G_BUFFERS,
    G_DATA,
    G_DATA_STRIDE,
    G_DISPATCH_HEAD,
    G_DRIVER,
    G_FREEZE,
    G_HEADER_STRIDE,
    G_HEADERS,
    G_LOCK_UNTIL,
    G_ROW_OF_HEAD,
    G_TABLE_STRIDE,
    G_TABLES,
    G_TAG_FREE,
    G_TAG_LIST,
    G_WAITER_HEAD,
    G_WAITER_LIST,
    G_WAITER_ROOM,
    G_WAITERS,
    KICK,
    L_FULL_DEPTH,
    L_NUMBER,
    L_STARVED,
    L_TARGET,
    ONE,
    PLUG_MAX,
    POLLED,
    REAP,
    RESP_OFFSET,
    SLEEP,
    T_BLOCKS,
    T_JOB,
    T_LBA,
    T_LUN,
    T_OP,
    T_ROW,
    T_SEGMENTS,
    T_SERIAL,
    T_UNIT,
    TWO,
    V_BATCH_COUNT,
    V_BATCH_LIST,
    V_CORE,
    V_DISPATCHING,
    V_FORCED_KICK,
    V_HANDLER_QUEUE,
    V_JOB,
    V_KICK_QUEUE,
    V_KICK_SLOT,
    V_KICKS,
    V_KICKS_SUPPRESSED,
    V_PLUG_LEFT,
    V_PLUGGED,
    V_QUEUE,
    V_REQUEUES,
    V_SLEEPING_SINCE,
    V_SUBMITTING,
    V_TAG,
    WAIT_EVENTS,
    WAIT_TAG,
    has_budget,
    job_of,
    stamp_of,
    tag_base,
    take_budget,
)
from sim.jit import kernel
from sim.layout import EIO, PAGE_SIZE, REQ_SIZE, RESP_SIZE
from sim.memory import store64, take_cycles
from sim.se_cmd import OP_WRITE
from sim.workload import app, arrivals
from sim.workload.job_fields import (
    J_DONE_COUNT,
    J_LUN,
    J_POLLED,
    J_PREPARED_COUNT,
    J_REAP_MIN,
    J_URING,
    U_BLOCKS,
    U_LBA,
    U_OP,
    U_ROW,
    U_SERIAL,
)

u64 = np.uint64


@kernel(inline=True)
def sleep(st, v, state, now):
    """The thread goes to sleep in `state`."""
    st[v + A_STATE] = state
    st[v + V_SLEEPING_SINCE] = now
    return NEVER


@kernel(inline=True)
def call(lines, st, tr, v, now):
    """The thread is in user space: which system call comes next? Deciding takes no time."""
    j = job_of(st, v)
    call = app.next_call(lines, st, tr, j, now)
    if call == app.COMMIT:
        return _commit(st, tr, v, now)
    if call == app.REAP:
        st[v + A_STATE] = REAP
        if st[j + J_URING] and st[j + J_DONE_COUNT] >= st[j + J_REAP_MIN]:
            return 0  # the completion ring is read without a system call
        return st[K_GUEST_IO_GETEVENTS]
    if call == app.FSYNC:
        return sleep(st, v, WAIT_EVENTS, now)
    if call == app.SPIN:
        return arrivals.spin(st, j, now)
    if call == app.PAUSE:
        sleep(st, v, SLEEP, now)
        return app.pause(st, j, now)
    return sleep(st, v, DONE, now)


@kernel(inline=True)
def _commit(st, tr, v, now):
    """io_submit() of everything prepared; more than two I/Os are plugged."""
    count = st[job_of(st, v) + J_PREPARED_COUNT]
    st[v + V_SUBMITTING] = count
    st[v + V_PLUGGED] = 1 if count > AIO_PLUG_THRESHOLD else 0
    st[v + V_PLUG_LEFT] = min(count, PLUG_MAX)
    return _begin(st, tr, v, now, st[K_GUEST_IO_SUBMIT])


@kernel
def _begin(st, tr, v, now, delay):
    """Start on the next prepared unit: a tag first (blk_mq_get_tag), then the driver's work."""
    if st[v + V_SUBMITTING] == 0:
        st[v + A_STATE] = CALL
        return delay
    q = u64(st[v + V_QUEUE])
    free = st[q + G_TAG_FREE] - 1
    if st[q + G_FREEZE] and st[v + V_BATCH_COUNT]:
        st[v + A_STATE] = KICK  # a thread that goes to sleep flushes its plug
        return delay
    if free < 0 or st[q + G_FREEZE]:
        tail = wrapped(st[q + G_WAITER_HEAD] + st[q + G_WAITERS], st[q + G_WAITER_ROOM])
        st[u64(st[q + G_WAITER_LIST]) + u64(tail)] = st[v + V_JOB]
        st[q + G_WAITERS] += 1
        return sleep(st, v, WAIT_TAG, now)
    st[q + G_TAG_FREE] = free
    tag = st[u64(st[q + G_TAG_LIST]) + u64(free)]
    st[v + V_SUBMITTING] -= 1
    j = job_of(st, v)
    number = app.take_prepared(st, j)
    unit = app.unit_of(st, j, number)
    t = tag_base(st, q, tag)
    row, blocks = st[unit + U_ROW], st[unit + U_BLOCKS]
    st[t + T_ROW] = row
    st[t + T_JOB] = st[v + V_JOB]
    st[t + T_UNIT] = number
    st[t + T_OP] = st[unit + U_OP]
    st[t + T_LBA] = st[unit + U_LBA]
    st[t + T_SERIAL] = st[unit + U_SERIAL]
    st[t + T_BLOCKS] = blocks
    st[t + T_SEGMENTS] = (blocks + BLOCKS_PER_PAGE - 1) // BLOCKS_PER_PAGE
    st[t + T_LUN] = st[j + J_LUN]
    st[v + V_TAG] = tag
    tr[u64(row) + record.R_SUBMIT] = now + delay + 1
    st[v + A_STATE] = ADD
    return delay + st[K_GUEST_SUBMIT]


@kernel(inline=True)
def reap(st, tr, v, now):
    """io_getevents(min, max): take what is there, or sleep until min of them are."""
    j = job_of(st, v)
    if not app.reap(st, tr, j, now):
        if st[j + J_POLLED]:
            sleep(st, v, POLLED, now)
            return 0  # a look at the ring at once
        sleep(st, v, WAIT_EVENTS, now)
        return app.patience(st, j, now)
    st[v + A_STATE] = CALL
    return 0


# --------------------------------------------------------------------------------- the driver ----


@kernel(inline=True)
def _describe(mem, lines, st, core, q, tag):
    """virtscsi_add_cmd(): header, data pages and response as a buffer list for the ring."""
    t = tag_base(st, q, tag)
    b = u64(st[q + G_BUFFERS])
    header = st[q + G_HEADERS] + st[q + G_HEADER_STRIDE] * tag
    data = st[q + G_DATA] + st[q + G_DATA_STRIDE] * tag
    op, lba, blocks = st[t + T_OP], st[t + T_LBA], st[t + T_BLOCKS]
    lun = u64(st[t + T_LUN])
    scsi.write_request(
        mem, lines, core, header, st[lun + L_TARGET], st[lun + L_NUMBER], header, op, lba, blocks
    )
    write = op == OP_WRITE
    segments = st[t + T_SEGMENTS]
    st[b + vring.B_OUT] = 1 + (segments if write else 0)
    st[b + vring.B_IN] = 1 + (0 if write else segments)
    at = b + vring.B_ENTRIES
    st[at] = header
    st[at + ONE] = REQ_SIZE
    at += TWO
    if not write:
        st[at] = header + RESP_OFFSET
        st[at + ONE] = RESP_SIZE
        at += TWO
    left = blocks * 512
    for i in range(segments):
        st[at] = data + PAGE_SIZE * i
        st[at + ONE] = min(left, PAGE_SIZE)
        left -= PAGE_SIZE
        at += TWO
    if write:
        st[at] = header + RESP_OFFSET
        st[at + ONE] = RESP_SIZE


@kernel(inline=True)
def _stamp_data(mem, st, tr, q, tag):
    """Before a write: stamp every block of its data. Before a read: leave nothing of the past."""
    t = tag_base(st, q, tag)
    total = np.int64(0)
    write = st[t + T_OP] == OP_WRITE
    for i in range(st[t + T_BLOCKS]):
        stamp = record.block_stamp(st[t + T_SERIAL], st[t + T_LBA] + i) if write else 0
        store64(mem, stamp_of(st, q, tag, i), stamp)
        total = record.fold(total, stamp)
    tr[u64(st[t + T_ROW]) + record.R_STAMP] = total


@kernel
def _requeue(st, v, q, tag, front):
    """SCSI_MLQUEUE_HOST_BUSY or no budget: the request waits in the dispatch list."""
    st[v + V_REQUEUES] += 1
    guest_handler.wait_in_line(st, q, tag, front)


@kernel
def after_add(st, tr, v, now, delay, kick):
    """Where the thread or the dispatcher goes from an ADD: decide the kick, or the next request."""
    if kick:
        st[v + A_STATE] = KICK
        return delay
    if st[v + V_DISPATCHING]:
        return guest_handler.dispatch_next(st, tr, v, now, delay)
    return _begin(st, tr, v, now, delay)


@kernel
def _is_inquiry_of_none(st, t, lun):
    """A scan asks also where the guest knows of no LUN."""
    return st[t + T_UNIT] < 0 and st[lun + L_FULL_DEPTH] == 0


@kernel
def _fail(mem, st, tr, v, q, tag, outcome, now, delay):
    """The driver gives a request back without the host: it is complete with an error.

    BAD_TARGET where the ring is broken (virtscsi_queuecommand), NO_CONNECT where the LUN is gone
    (scsi_queue_rq).
    """
    t = tag_base(st, q, tag)
    tr[u64(st[t + T_ROW]) + record.R_OUTCOME] = outcome
    take_budget(st, u64(st[t + T_LUN]))
    guest_complete.finish(mem, st, tr, q, tag, now)
    return after_add(st, tr, v, now, delay, st[v + V_BATCH_COUNT] > 0)


@kernel(inline=True)
def add(mem, lines, st, tr, v, now):
    """virtscsi_add_cmd() under vq_lock: publish the request, or let it wait."""
    q = u64(st[v + V_QUEUE])
    if st[v + V_DISPATCHING]:
        q = u64(st[v + V_HANDLER_QUEUE])
    if now < st[q + G_LOCK_UNTIL]:
        return st[q + G_LOCK_UNTIL] - now
    core = st[v + V_CORE]
    tag = st[v + V_TAG]
    t = tag_base(st, q, tag)
    row = u64(st[t + T_ROW])
    lun = u64(st[t + T_LUN])
    st[v + V_KICK_QUEUE] = np.int64(q)
    last = True
    if not st[v + V_DISPATCHING]:
        st[v + V_PLUG_LEFT] -= 1
        last = st[v + V_PLUGGED] == 0 or st[v + V_PLUG_LEFT] <= 0
        if st[v + V_PLUG_LEFT] <= 0:
            st[v + V_PLUG_LEFT] = min(st[v + V_SUBMITTING], PLUG_MAX)
        if st[q + G_DISPATCH_HEAD] >= 0:  # others wait already: behind them
            _requeue(st, v, q, tag, False)
            return after_add(st, tr, v, now, 0, st[v + V_BATCH_COUNT] > 0)
    if not has_budget(st, lun) and not _is_inquiry_of_none(st, t, lun):
        if st[lun + L_FULL_DEPTH] == 0:
            return _fail(mem, st, tr, v, q, tag, record.NO_CONNECT, now, 0)
        st[lun + L_STARVED] = 1
        _requeue(st, v, q, tag, st[v + V_DISPATCHING])
        return after_add(st, tr, v, now, 0, st[v + V_BATCH_COUNT] > 0)
    _describe(mem, lines, st, core, q, tag)
    table = st[q + G_TABLES] + st[q + G_TABLE_STRIDE] * tag
    d = u64(st[q + G_DRIVER])
    head = vring.add(mem, lines, st, d, core, u64(st[q + G_BUFFERS]), tag, table)
    delay = take_cycles(lines, core)
    st[q + G_LOCK_UNTIL] = now + delay
    if head == EIO:
        return _fail(mem, st, tr, v, q, tag, record.BAD_TARGET, now, delay)
    if head < 0:
        _requeue(st, v, q, tag, st[v + V_DISPATCHING])
        if st[d + vring.D_PACKED]:  # what the batch has published so far, by commit_rqs
            return after_add(st, tr, v, now, delay, st[v + V_BATCH_COUNT] > 0)
        # virtqueue_add_split() forces a notify when a chain with readable buffers does not fit.
        st[v + V_FORCED_KICK] = 1
        return after_add(st, tr, v, now, delay, True)
    take_budget(st, lun)
    _stamp_data(mem, st, tr, q, tag)
    if st[H_KVM_LOG]:
        dirty.note_request(st, q, tag)
    st[u64(st[q + G_ROW_OF_HEAD]) + u64(head)] = st[t + T_ROW]
    tr[row + record.R_AVAIL] = now + 1
    tr[row + record.R_KICK] = now + 1
    tr[row + record.R_PUBLISHED_COUNT] += 1
    if st[q + G_BELL]:  # a device that polls sees it without a kick
        ring(st, u64(st[q + G_BELL]), now)
    batch = u64(st[v + V_BATCH_LIST]) + TWO * u64(st[v + V_BATCH_COUNT])
    st[batch] = st[t + T_ROW]
    st[batch + ONE] = st[t + T_SERIAL]
    st[v + V_BATCH_COUNT] += 1
    if st[v + V_DISPATCHING]:
        last = st[q + G_DISPATCH_HEAD] < 0
    elif st[v + V_SUBMITTING] and st[q + G_TAG_FREE] == 0:
        last = True  # the thread is about to sleep for a tag, which flushes the plug
    return after_add(st, tr, v, now, delay, last)


@kernel(inline=True)
def kick(mem, lines, st, tr, v, now):
    """virtqueue_kick_prepare(), barrier C: does the device want to be told?"""
    q = u64(st[v + V_KICK_QUEUE])
    core = st[v + V_CORE]
    wanted = vring.kick_prepare(mem, lines, st, u64(st[q + G_DRIVER]), core)
    delay = take_cycles(lines, core)
    if wanted or st[v + V_FORCED_KICK]:
        return delay + _notify(st, tr, v, now + delay)
    st[v + V_KICKS_SUPPRESSED] += 1
    st[v + V_BATCH_COUNT] = 0
    return after_add(st, tr, v, now, delay, False)


@kernel(inline=True)
def _notify(st, tr, v, leaves):
    """The write to the notify register leaves the guest at `leaves`; KVM signals the ioeventfd.

    Rows that the worker has fetched by now need no kick; those that it fetches before `leaves` are
    put right when it does (sim.backend).
    """
    st[v + V_FORCED_KICK] = 0
    st[v + V_KICKS] += 1
    for i in range(st[v + V_BATCH_COUNT]):
        batch = u64(st[v + V_BATCH_LIST]) + TWO * u64(i)
        row = u64(st[batch])
        # A row that the recorder has given to another request by now is left alone.
        if tr[row + record.R_FETCH] == 0 and tr[row + record.R_SERIAL] == st[batch + ONE]:
            tr[row + record.R_KICK] = leaves + 1
            tr[row + record.R_KICK_ID] = st[v + V_KICKS]
    st[v + V_BATCH_COUNT] = 0
    to_signal = st[K_KICK_EXIT] + st[K_KICK_SIGNAL]  # sim.crossing: more, if the worker sleeps
    wake(st, st[v + V_KICK_SLOT], leaves + to_signal)
    st[v + A_STATE] = ENTER
    return to_signal + st[K_KICK_RETURN]
