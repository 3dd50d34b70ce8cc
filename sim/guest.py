"""The guest: the virtio_scsi driver and the thread above it (sim.app), on a vCPU.

One vCPU is one agent. It runs one job's thread and, on the same CPU, the interrupt handlers of the
queues whose vectors point at it. The life of the thread and of the handler, each state named for
the atomic action that it performs (kernel function in brackets):

    thread     CALL -> ADD -> KICK -> ENTER -> ADD ... -> REAP -> ADD ... -> DONE
               io_submit | virtqueue_add_sgs | kick_prepare, notify | VM entry | io_getevents
    handler    IRQ -> DRAIN ... -> RECHECK (-> DRAIN) -> RETURN
               vring_interrupt, disable_cb, get_buf | get_buf, enable_cb_prepare | more_used | iret
    asleep     WAIT_EVENTS (io_getevents, fsync) WAIT_TAG (blk_mq_get_tag)
               SLEEP (think time, rate, startdelay) DONE

What the kernel does without a full barrier in between is one action: the handler takes the first
buffer with the look that began it, and asks for the next interrupt with the look that found no
more. Between publishing and the kick decision (barrier C), and between asking for an interrupt and
looking again (barrier D), other agents may act.

An interrupt preempts CALL, ADD and REAP at once: what was left of their time is saved and paid
after RETURN. It does not preempt a section with interrupts off (KICK, ENTER, a handler).

A request that finds no tag puts the thread to sleep (blk_mq_get_tag); one that finds the ring full
or the LUN's queue depth used up waits in the hardware queue's dispatch list and is tried again
after the next completions (blk_mq_run_hw_queue).

Records beside the agent: a *unit* is fio's io_u (one of iodepth per job), a *tag* is blk-mq's, one
per ring entry and queue; a command's memory (header, response, indirect table, data) belongs to
its tag.
"""

import numpy as np

from sim import app, arrivals, record, scsi, vring
from sim.agents import (
    A_BUSY,
    A_FIELDS,
    A_STATE,
    H_BASE,
    K_GUEST_COMPLETE,
    K_GUEST_IO_GETEVENTS,
    K_GUEST_IO_SUBMIT,
    K_GUEST_SUBMIT,
    K_IRQ_ENTRY,
    K_IRQ_INJECT,
    K_IRQ_RETURN,
    K_KICK_EXIT,
    K_KICK_RETURN,
    K_KICK_SIGNAL,
    NEVER,
    move,
    wake,
    wrapped,
)
from sim.jit import kernel
from sim.job_fields import (
    J_DONE_COUNT,
    J_LUN,
    J_PREPARED_COUNT,
    J_REAP_MIN,
    J_URING,
    U_BLOCKS,
    U_LBA,
    U_OP,
    U_ROW,
    U_SERIAL,
)
from sim.layout import PAGE_SIZE, REQ_SIZE, RESP_SIZE
from sim.memory import load64, store64, take_cycles
from sim.se_cmd import OP_WRITE

u64 = np.uint64
ONE, TWO = u64(1), u64(2)

# States of a vCPU.
(
    DONE,
    CALL,
    ADD,
    KICK,
    ENTER,
    REAP,
    WAIT_EVENTS,
    WAIT_TAG,
    SLEEP,
    IRQ,
    DRAIN,
    RECHECK,
    RETURN,
) = range(13)
STATES = (
    'done call add kick enter reap wait_events wait_tag sleep irq drain recheck return'
).split()

# A vCPU's stretch.
(
    V_CORE,
    V_SLOT,
    V_RESUME_AT,  # when the state that it is in acts, unless an interrupt comes first
    V_SAVED_STATE,
    V_SAVED_LEFT,  # cycles left of the preempted state; if it sleeps, when its timer ends it
    V_SAVED_TAG,
    V_TAG,  # tag of the request whose ADD comes next
    V_IN_HANDLER,
    V_HANDLER_QUEUE,
    V_HANDLER_SINCE,
    V_HANDLER_ID,
    V_FINISHING,  # tag whose completion work is being paid, -1 none
    V_PENDING_COUNT,  # vectors that wait for the vCPU, first in first out
    V_PENDING_HEAD,
    V_PENDING_LIST,
    V_QUEUES,
    V_QUEUE,  # the queue that this CPU submits to
    V_KICK_SLOT,
    V_KICK_QUEUE,
    V_FORCED_KICK,
    V_BATCH_COUNT,  # requests published since the last kick decision
    V_BATCH_LIST,  # row and serial of each
    V_DISPATCHING,  # inside blk_mq_run_hw_queue after a handler
    V_SLEEPING_SINCE,
    V_KICKS,
    V_KICKS_SUPPRESSED,
    V_IRQS_SPURIOUS,
    V_REQUEUES,
    V_JOB,  # base of the job whose thread runs here (sim.app)
    V_SUBMITTING,  # how many prepared units the current io_submit still carries
    V_PLUGGED,
    V_PLUG_LEFT,
) = map(u64, range(A_FIELDS, A_FIELDS + 32))
VCPU_WORDS = A_FIELDS + 32

# A request queue as the guest has it (struct virtio_scsi_vq and its blk-mq hardware queue).
(
    G_DRIVER,
    G_INDEX,
    G_NUM,
    G_LOCK_UNTIL,  # vq_lock: nobody else adds or drains before
    G_VECTOR_PENDING,  # what waits for the vCPU, see below
    G_VCPU,  # base of the vCPU that its vector points at
    G_VCPU_SLOT,
    G_TAG_FREE,  # free tags, a stack: sbitmap hands out the most recently freed first
    G_TAG_LIST,
    G_TAGS,
    G_HEADERS,
    G_HEADER_STRIDE,
    G_TABLES,
    G_TABLE_STRIDE,
    G_DATA,
    G_DATA_STRIDE,
    G_BUFFERS,  # scratch buffer list
    G_DISPATCH_HEAD,  # dispatch list, linked through the tags, -1 empty
    G_DISPATCH_TAIL,
    G_WAITERS,  # threads asleep in blk_mq_get_tag, first in first out, as vCPU slots
    G_WAITER_HEAD,
    G_WAITER_LIST,
    G_WAITER_ROOM,
    G_ROW_OF_HEAD,  # trace only: row of the request that a head stands for
    G_HANDLERS,
) = map(u64, range(25))
GUEST_QUEUE_WORDS = 25

# What a queue has for its vCPU: its vector, or requests that may be tried again.
NOTHING, VECTOR, RUN_QUEUE = range(3)

# A tag.
(
    T_ROW,
    T_VCPU,
    T_UNIT,
    T_OP,
    T_LBA,
    T_SERIAL,
    T_NEXT,
    T_BLOCKS,
    T_SEGMENTS,
    T_LUN,  # base of its LUN
) = map(u64, range(10))
TAG_WORDS = u64(10)

# A LUN as the guest has it (struct scsi_device).
(
    L_BUSY,
    L_DEPTH,
    L_TARGET,
    L_NUMBER,
    L_STARVED,  # requests wait somewhere because the LUN had no budget
    L_QUEUE_COUNT,
    L_QUEUE_LIST,  # the queues that lead to it
) = map(u64, range(7))
LUN_WORDS = 7

RESP_OFFSET = 59  # struct virtio_scsi_cmd: the response follows the larger, PI form of the request
AIO_PLUG_THRESHOLD = 2  # fs/aio.c, io_uring.c: a submission of more than two plugs
BLOCKS_PER_PAGE = PAGE_SIZE // 512
PLUG_MAX = 32  # block/blk.h BLK_MAX_REQUEST_COUNT: a plug is flushed at this many


# --------------------------------------------------------------------------------- the thread ----


@kernel(inline=True)
def _sleep(st, v, state, now):
    st[v + A_STATE] = state
    st[v + V_SLEEPING_SINCE] = now
    return NEVER


@kernel(inline=True)
def _job(st, v):
    return u64(st[v + V_JOB])


@kernel(inline=True)
def _call(lines, st, tr, v, now):
    """The thread is in user space: which system call comes next? Deciding takes no time."""
    j = _job(st, v)
    call = app.next_call(lines, st, tr, j, now)
    if call == app.COMMIT:
        return _commit(st, tr, v, now)
    if call == app.REAP:
        st[v + A_STATE] = REAP
        if st[j + J_URING] and st[j + J_DONE_COUNT] >= st[j + J_REAP_MIN]:
            return 0  # the completion ring is read without a system call
        return st[K_GUEST_IO_GETEVENTS]
    if call == app.FSYNC:
        return _sleep(st, v, WAIT_EVENTS, now)
    if call == app.SPIN:
        return arrivals.spin(st, j, now)
    if call == app.PAUSE:
        _sleep(st, v, SLEEP, now)
        return app.pause(st, j, now)
    return _sleep(st, v, DONE, now)


@kernel(inline=True)
def _commit(st, tr, v, now):
    """io_submit() of everything prepared; more than two I/Os are plugged."""
    count = st[_job(st, v) + J_PREPARED_COUNT]
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
    if free < 0:
        tail = wrapped(st[q + G_WAITER_HEAD] + st[q + G_WAITERS], st[q + G_WAITER_ROOM])
        st[u64(st[q + G_WAITER_LIST]) + u64(tail)] = st[v + V_SLOT]
        st[q + G_WAITERS] += 1
        return _sleep(st, v, WAIT_TAG, now)
    st[q + G_TAG_FREE] = free
    tag = st[u64(st[q + G_TAG_LIST]) + u64(free)]
    st[v + V_SUBMITTING] -= 1
    j = _job(st, v)
    number = app.take_prepared(st, j)
    unit = app.unit_of(st, j, number)
    t = _tag(st, q, tag)
    row, blocks = st[unit + U_ROW], st[unit + U_BLOCKS]
    st[t + T_ROW] = row
    st[t + T_VCPU] = np.int64(v)
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
def _reap(st, tr, v, now):
    """io_getevents(min, max): take what is there, or sleep until min of them are."""
    j = _job(st, v)
    if not app.reap(st, tr, j, now):
        _sleep(st, v, WAIT_EVENTS, now)
        return app.patience(st, j, now)
    st[v + A_STATE] = CALL
    return 0


# --------------------------------------------------------------------------------- the driver ----


@kernel(inline=True)
def _tag(st, q, tag):
    return u64(st[q + G_TAGS]) + TAG_WORDS * u64(tag)


@kernel(inline=True)
def _describe(mem, lines, st, core, q, tag):
    """virtscsi_add_cmd(): header, data pages and response as a buffer list for the ring."""
    t = _tag(st, q, tag)
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
def _stamp_of(st, q, tag, block):
    """Where the stamp of a block of the tag's data stands."""
    return u64(st[q + G_DATA] + st[q + G_DATA_STRIDE] * tag) + u64(512) * u64(block)


@kernel(inline=True)
def _stamp_data(mem, st, tr, q, tag):
    """Before a write: stamp every block of its data. Before a read: leave nothing of the past."""
    t = _tag(st, q, tag)
    total = np.int64(0)
    write = st[t + T_OP] == OP_WRITE
    for i in range(st[t + T_BLOCKS]):
        stamp = record.block_stamp(st[t + T_SERIAL], st[t + T_LBA] + i) if write else 0
        store64(mem, _stamp_of(st, q, tag, i), stamp)
        total = record.fold(total, stamp)
    tr[u64(st[t + T_ROW]) + record.R_STAMP] = total


@kernel
def _requeue(st, v, q, tag, front):
    """SCSI_MLQUEUE_HOST_BUSY or no budget: the request waits in the dispatch list."""
    st[v + V_REQUEUES] += 1
    t = _tag(st, q, tag)
    if st[q + G_DISPATCH_HEAD] < 0:
        st[t + T_NEXT] = -1
        st[q + G_DISPATCH_HEAD] = tag
        st[q + G_DISPATCH_TAIL] = tag
    elif front:
        st[t + T_NEXT] = st[q + G_DISPATCH_HEAD]
        st[q + G_DISPATCH_HEAD] = tag
    else:
        st[t + T_NEXT] = -1
        st[_tag(st, q, st[q + G_DISPATCH_TAIL]) + T_NEXT] = tag
        st[q + G_DISPATCH_TAIL] = tag


@kernel
def _after_add(st, tr, v, now, delay, kick):
    """Where the thread or the dispatcher goes from an ADD: decide the kick, or the next request."""
    if kick:
        st[v + A_STATE] = KICK
        return delay
    if st[v + V_DISPATCHING]:
        return _dispatch_next(st, tr, v, now, delay)
    return _begin(st, tr, v, now, delay)


@kernel(inline=True)
def _add(mem, lines, st, tr, v, now):
    """virtscsi_add_cmd() under vq_lock: publish the request, or let it wait."""
    q = u64(st[v + V_QUEUE])
    if st[v + V_DISPATCHING]:
        q = u64(st[v + V_HANDLER_QUEUE])
    if now < st[q + G_LOCK_UNTIL]:
        return st[q + G_LOCK_UNTIL] - now
    core = st[v + V_CORE]
    tag = st[v + V_TAG]
    t = _tag(st, q, tag)
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
            return _after_add(st, tr, v, now, 0, st[v + V_BATCH_COUNT] > 0)
    if st[lun + L_BUSY] >= st[lun + L_DEPTH]:
        st[lun + L_STARVED] = 1
        _requeue(st, v, q, tag, st[v + V_DISPATCHING])
        return _after_add(st, tr, v, now, 0, st[v + V_BATCH_COUNT] > 0)
    _describe(mem, lines, st, core, q, tag)
    table = st[q + G_TABLES] + st[q + G_TABLE_STRIDE] * tag
    d = u64(st[q + G_DRIVER])
    head = vring.add(mem, lines, st, d, core, u64(st[q + G_BUFFERS]), tag, table)
    delay = take_cycles(lines, core)
    st[q + G_LOCK_UNTIL] = now + delay
    if head < 0:
        _requeue(st, v, q, tag, st[v + V_DISPATCHING])
        if st[d + vring.D_PACKED]:  # what the batch has published so far, by commit_rqs
            return _after_add(st, tr, v, now, delay, st[v + V_BATCH_COUNT] > 0)
        # virtqueue_add_split() forces a notify when a chain with readable buffers does not fit.
        st[v + V_FORCED_KICK] = 1
        return _after_add(st, tr, v, now, delay, True)
    st[lun + L_BUSY] += 1
    _stamp_data(mem, st, tr, q, tag)
    st[u64(st[q + G_ROW_OF_HEAD]) + u64(head)] = st[t + T_ROW]
    tr[row + record.R_AVAIL] = now + 1
    tr[row + record.R_KICK] = now + 1
    tr[row + record.R_PUBLISHED_COUNT] += 1
    batch = u64(st[v + V_BATCH_LIST]) + TWO * u64(st[v + V_BATCH_COUNT])
    st[batch] = st[t + T_ROW]
    st[batch + ONE] = st[t + T_SERIAL]
    st[v + V_BATCH_COUNT] += 1
    if st[v + V_DISPATCHING]:
        last = st[q + G_DISPATCH_HEAD] < 0
    elif st[v + V_SUBMITTING] and st[q + G_TAG_FREE] == 0:
        last = True  # the thread is about to sleep for a tag, which flushes the plug
    return _after_add(st, tr, v, now, delay, last)


@kernel(inline=True)
def _kick(mem, lines, st, tr, v, now):
    """virtqueue_kick_prepare(), barrier C: does the device want to be told?"""
    q = u64(st[v + V_KICK_QUEUE])
    core = st[v + V_CORE]
    wanted = vring.kick_prepare(mem, lines, st, u64(st[q + G_DRIVER]), core)
    delay = take_cycles(lines, core)
    if wanted or st[v + V_FORCED_KICK]:
        return delay + _notify(st, tr, v, now + delay)
    st[v + V_KICKS_SUPPRESSED] += 1
    st[v + V_BATCH_COUNT] = 0
    return _after_add(st, tr, v, now, delay, False)


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
    to_signal = st[K_KICK_EXIT] + st[K_KICK_SIGNAL]
    wake(st, st[v + V_KICK_SLOT], leaves + to_signal)
    st[v + A_STATE] = ENTER
    return to_signal + st[K_KICK_RETURN]


# -------------------------------------------------------------------------------- the handler ----


@kernel(inline=True)
def _irq(mem, lines, st, tr, v, now):
    """vring_interrupt() and virtscsi_vq_done(): take the lock, disable callbacks, first buffer."""
    q = u64(st[v + V_HANDLER_QUEUE])
    if now < st[q + G_LOCK_UNTIL]:
        return st[q + G_LOCK_UNTIL] - now
    d, core = u64(st[q + G_DRIVER]), st[v + V_CORE]
    st[q + G_HANDLERS] += 1
    st[v + V_HANDLER_ID] = st[q + G_HANDLERS]
    st[v + V_HANDLER_SINCE] = now
    if not vring.vring_interrupt(mem, lines, st, d, core):
        st[v + V_IRQS_SPURIOUS] += 1
        st[v + A_STATE] = RETURN
        return take_cycles(lines, core) + st[K_IRQ_RETURN]
    vring.disable_cb(mem, lines, st, d, core)
    return _drain(mem, lines, st, tr, v, now)


@kernel(inline=True)
def _hold(lines, st, v, q, now):
    """What the last ring accesses cost; vq_lock stays taken over it."""
    delay = take_cycles(lines, st[v + V_CORE])
    st[q + G_LOCK_UNTIL] = now + delay
    return delay


@kernel(inline=True)
def _finish(mem, st, tr, q, tag, now):
    """scsi_done(): the request goes back to the application; its tag is free again."""
    t = _tag(st, q, tag)
    row = u64(st[t + T_ROW])
    tr[row + record.R_COMPLETE] = now + 1
    tr[row + record.R_COMPLETED_COUNT] += 1
    if st[t + T_OP] != OP_WRITE:
        total = np.int64(0)
        for i in range(st[t + T_BLOCKS]):
            total = record.fold(total, load64(mem, _stamp_of(st, q, tag, i)))
        tr[row + record.R_STAMP] = total
    lun = u64(st[t + T_LUN])
    st[lun + L_BUSY] -= 1
    if st[lun + L_STARVED]:
        _run_starved(st, lun, q, now)
    st[u64(st[q + G_TAG_LIST]) + u64(st[q + G_TAG_FREE])] = tag
    st[q + G_TAG_FREE] += 1
    owner = u64(st[t + T_VCPU])
    woken = app.put_done(st, tr, _job(st, owner), st[t + T_UNIT], now)
    if woken:
        _wake_thread(st, owner, WAIT_EVENTS, REAP if woken == app.WAKES_REAP else CALL, now)
    if st[q + G_WAITERS]:
        _wake_waiter(st, q, now)


@kernel
def _run_starved(st, lun, mine, now):
    """scsi_run_queue_async(): every queue whose requests wait for the LUN's budget is run.

    The handler that frees the budget runs its own queue by itself; the others run on their vCPUs.
    """
    st[lun + L_STARVED] = 0
    for i in range(st[lun + L_QUEUE_COUNT]):
        q = u64(st[u64(st[lun + L_QUEUE_LIST]) + u64(i)])
        if q != mine and st[q + G_DISPATCH_HEAD] >= 0 and st[q + G_VECTOR_PENDING] == NOTHING:
            st[q + G_VECTOR_PENDING] = RUN_QUEUE
            _pend(st, q, now, st[K_IRQ_INJECT])


@kernel
def _wake_waiter(st, q, now):
    """sbitmap_queue_clear(): the thread that has waited longest for a tag goes on."""
    head = st[q + G_WAITER_HEAD]
    slot = st[u64(st[q + G_WAITER_LIST]) + u64(head)]
    st[q + G_WAITER_HEAD] = wrapped(head + 1, st[q + G_WAITER_ROOM])
    st[q + G_WAITERS] -= 1
    _wake_thread(st, _base_of(st, slot), WAIT_TAG, ENTER, now)


@kernel(inline=True)
def _base_of(st, slot):
    return u64(st[u64(st[H_BASE]) + u64(slot)])


@kernel
def _wake_thread(st, v, asleep, runs, now):
    """try_to_wake_up(): a thread that sleeps in state `asleep` goes on in state `runs`."""
    if st[v + V_IN_HANDLER]:
        if st[v + V_SAVED_STATE] == asleep:
            st[v + V_SAVED_STATE] = runs
            st[v + V_SAVED_LEFT] = 0
    elif st[v + A_STATE] == asleep:  # on another CPU: a reschedule IPI
        st[v + A_STATE] = runs
        st[v + V_RESUME_AT] = min(st[v + V_RESUME_AT], now + st[K_IRQ_INJECT])  # or its timer
        wake(st, st[v + V_SLOT], st[v + V_RESUME_AT])


@kernel
def _drain(mem, lines, st, tr, v, now):
    """One turn of virtscsi_vq_done()'s inner loop: finish the last command, get the next.

    Where there is none: virtqueue_enable_cb(), first half.
    """
    q = u64(st[v + V_HANDLER_QUEUE])
    core = st[v + V_CORE]
    if st[v + V_FINISHING] >= 0:
        _finish(mem, st, tr, q, st[v + V_FINISHING], now)
        st[v + V_FINISHING] = -1
    tag = vring.get_buf(mem, lines, st, u64(st[q + G_DRIVER]), core)
    if tag < 0:
        vring.enable_cb_prepare(mem, lines, st, u64(st[q + G_DRIVER]), core)
        st[v + A_STATE] = RECHECK
        return _hold(lines, st, v, q, now)
    st[v + A_STATE] = DRAIN
    t = _tag(st, q, tag)
    row = u64(st[t + T_ROW])
    header = st[q + G_HEADERS] + st[q + G_HEADER_STRIDE] * tag
    reply = scsi.read_response(mem, lines, core, header + RESP_OFFSET)
    outcome = record.OK
    if reply >> 8:
        outcome = record.BAD_TARGET
    elif reply & 0xFF:
        outcome = record.CHECK_CONDITION
    tr[row + record.R_OUTCOME] = outcome
    tr[row + record.R_IRQ] = max(tr[row + record.R_USED], st[v + V_HANDLER_SINCE] + 1)
    tr[row + record.R_IRQ_ID] = st[v + V_HANDLER_ID]
    st[v + V_FINISHING] = tag
    delay = take_cycles(lines, core) + st[K_GUEST_COMPLETE]
    st[q + G_LOCK_UNTIL] = now + delay
    return delay


@kernel(inline=True)
def _recheck(mem, lines, st, tr, v, now):
    """virtqueue_enable_cb(), second half: has the device been quicker (barrier D)?"""
    q = u64(st[v + V_HANDLER_QUEUE])
    d, core = u64(st[q + G_DRIVER]), st[v + V_CORE]
    if vring.more_used(mem, lines, st, d, core):
        vring.disable_cb(mem, lines, st, d, core)
        return _drain(mem, lines, st, tr, v, now)
    delay = _hold(lines, st, v, q, now)
    st[v + A_STATE] = RETURN
    return delay + st[K_IRQ_RETURN]


@kernel
def _dispatch_next(st, tr, v, now, delay):
    """blk_mq_run_hw_queue(): try the first waiting request again, if it could fit now."""
    q = u64(st[v + V_HANDLER_QUEUE])
    tag = st[q + G_DISPATCH_HEAD]
    if tag >= 0:
        t = _tag(st, q, tag)
        d, lun = u64(st[q + G_DRIVER]), u64(st[t + T_LUN])
        needed = 1 if st[d + vring.D_INDIRECT] else 2 + st[t + T_SEGMENTS]
        if st[lun + L_BUSY] >= st[lun + L_DEPTH]:
            st[lun + L_STARVED] = 1
        elif st[v + V_DISPATCHING] == 1 and st[d + vring.D_NUM_FREE] >= needed:
            st[q + G_DISPATCH_HEAD] = st[t + T_NEXT]
            st[v + V_TAG] = tag
            tr[u64(st[t + T_ROW]) + record.R_SUBMIT] = now + delay + 1
            st[v + A_STATE] = ADD
            return delay + st[K_GUEST_SUBMIT]
    if st[v + V_BATCH_COUNT]:
        st[v + A_STATE] = KICK
        st[v + V_DISPATCHING] = 2  # after this kick the dispatcher is done
        return delay
    st[v + V_DISPATCHING] = 0
    return _leave_handler(st, v, now, delay)


@kernel(inline=True)
def _return(st, tr, v, now):
    """The handler is done: run the hardware queue if requests wait, then leave."""
    q = u64(st[v + V_HANDLER_QUEUE])
    if st[q + G_DISPATCH_HEAD] >= 0:
        st[v + V_DISPATCHING] = 1
        return _dispatch_next(st, tr, v, now, 0)
    return _leave_handler(st, v, now, 0)


@kernel(inline=True)
def _enter_handler(st, v):
    """Take the vector that has waited longest."""
    head = st[v + V_PENDING_HEAD]
    q = st[u64(st[v + V_PENDING_LIST]) + u64(head)]
    st[v + V_PENDING_HEAD] = wrapped(head + 1, st[v + V_QUEUES])
    st[v + V_PENDING_COUNT] -= 1
    st[v + A_STATE] = IRQ if st[u64(q) + G_VECTOR_PENDING] == VECTOR else RETURN
    st[u64(q) + G_VECTOR_PENDING] = NOTHING
    st[v + V_HANDLER_QUEUE] = q
    return st[K_IRQ_ENTRY]


@kernel
def _interrupt(st, v, now):
    """The interrupt takes the CPU: keep what is left of the thread's state for later."""
    left = st[v + V_RESUME_AT]
    if not _is_asleep(st[v + A_STATE]):
        left -= now
        st[v + A_BUSY] -= left
    st[v + V_SAVED_STATE] = st[v + A_STATE]
    st[v + V_SAVED_LEFT] = left
    st[v + V_SAVED_TAG] = st[v + V_TAG]
    st[v + V_IN_HANDLER] = 1
    entry = _enter_handler(st, v)
    st[v + A_BUSY] += entry
    st[v + V_RESUME_AT] = now + entry


@kernel
def _leave_handler(st, v, now, delay):
    """The next vector if one waits, else back to the thread."""
    if st[v + V_PENDING_COUNT]:
        return delay + _enter_handler(st, v)
    st[v + V_IN_HANDLER] = 0
    st[v + A_STATE] = st[v + V_SAVED_STATE]
    st[v + V_TAG] = st[v + V_SAVED_TAG]
    st[v + V_SLEEPING_SINCE] = now
    left = st[v + V_SAVED_LEFT]
    if left >= NEVER:
        return NEVER
    return max(left - now, delay) if _is_asleep(st[v + A_STATE]) else delay + left


# ---------------------------------------------------------------------------------- the agent ----


@kernel(inline=True)
def _is_asleep(state):
    return state in (DONE, WAIT_EVENTS, WAIT_TAG, SLEEP)


@kernel(inline=True)
def is_halted(st, v):
    """Has the guest nothing to run on this vCPU (HLT)?"""
    return not st[v + V_IN_HANDLER] and _is_asleep(st[v + A_STATE])


@kernel(inline=True)
def _is_open(st, v):
    """May an interrupt be taken now?"""
    state = st[v + A_STATE]
    return not st[v + V_IN_HANDLER] and (state in (CALL, ADD, REAP) or _is_asleep(state))


@kernel(inline=True)
def raise_vector(st, q, now):
    """The MSI-X vector of queue `q` reaches its vCPU; False if it was pending already."""
    pending = st[q + G_VECTOR_PENDING]
    st[q + G_VECTOR_PENDING] = VECTOR
    if pending == NOTHING:
        _pend(st, q, now, 0)
    return pending != VECTOR


@kernel
def _pend(st, q, now, latency):
    """Queue `q` has something for its vCPU, which may be free to take it."""
    v = u64(st[q + G_VCPU])
    tail = wrapped(st[v + V_PENDING_HEAD] + st[v + V_PENDING_COUNT], st[v + V_QUEUES])
    st[u64(st[v + V_PENDING_LIST]) + u64(tail)] = np.int64(q)
    st[v + V_PENDING_COUNT] += 1
    if _is_open(st, v):
        _interrupt(st, v, now)
        st[v + V_RESUME_AT] += latency
        move(st, st[v + V_SLOT], st[v + V_RESUME_AT])


@kernel
def start_job(st, v, j, now):
    """Control plane: the thread of job `j` starts on vCPU `v` at `now`."""
    st[v + V_JOB] = np.int64(j)
    at = app.start(st, j, now)
    st[v + A_STATE] = SLEEP if at > now else CALL
    st[v + V_RESUME_AT] = at
    wake(st, st[v + V_SLOT], at)


@kernel(inline=True)
def _act(mem, lines, st, tr, v, now):
    """The atomic action of the state that the vCPU is in; returns the cycles to the next one."""
    state = st[v + A_STATE]
    if state == DRAIN:
        return _drain(mem, lines, st, tr, v, now)
    if state == ADD:
        return _add(mem, lines, st, tr, v, now)
    if state == KICK:
        return _kick(mem, lines, st, tr, v, now)
    if state == ENTER:
        return _after_add(st, tr, v, now, 0, False)
    if state == CALL:
        return _call(lines, st, tr, v, now)
    if state == REAP:
        return _reap(st, tr, v, now)
    if state == IRQ:
        return _irq(mem, lines, st, tr, v, now)
    if state == RECHECK:
        return _recheck(mem, lines, st, tr, v, now)
    if state == RETURN:
        return _return(st, tr, v, now)
    if state in (SLEEP, WAIT_EVENTS):  # its timer has gone off
        st[v + A_STATE] = CALL
        return 0
    return NEVER  # asleep until woken


@kernel(inline=True)
def step(mem, lines, st, tr, v, now):
    """One step of a vCPU: an action, and those behind it that take no time and concern nobody."""
    while True:
        delay = _act(mem, lines, st, tr, v, now)
        if delay >= NEVER:
            st[v + V_RESUME_AT] = NEVER
        else:
            st[v + V_RESUME_AT] = now + delay
            if not _is_asleep(st[v + A_STATE]):
                st[v + A_BUSY] += delay
        if st[v + V_PENDING_COUNT] and _is_open(st, v):  # it came while interrupts were off
            _interrupt(st, v, now)
            break
        if delay != 0 or st[v + A_STATE] not in (CALL, REAP, ADD, ENTER):
            break
    return st[v + V_RESUME_AT]
