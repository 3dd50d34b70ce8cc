"""QEMU's virtio-scsi: the event loop of an IOThread, aio_poll() over and over.

    turn       TURN -> LOOK <-> WAIT_POLLING -> ARM -> CHECK or ENTER -> SLEEP -> RUN ... -> TURN
               try_poll_mode | run_poll_handlers_once | virtio_queue_set_notification(1), then
               barrier C | one look more | io_uring_enter | aio_dispatch_ready_handlers
    virtqueue  RUN -> POP ... -> RECHECK -> SUBMIT ... -> ISSUE ... -> RUN
               virtio_scsi_pop_req, virtio_scsi_handle_cmd_req_prepare | virtio_queue_empty (C) |
               scsi_req_enqueue down to linux-aio's queue | io_submit()
    disk       RUN -> USED -> DECIDE -> USED ... -> CALL ... -> RUN
               virtqueue_push | virtio_should_notify, behind barrier D | event_notifier_set

A handler pops until the virtqueue is empty, kicks suppressed, and submits behind that; linux-aio
collects up to 32 for one io_submit(). Completions are taken as long as there are any. Whether the
guest wants an interrupt is asked after each of them; from QEMU 8.2 on the eventfd is written once
per batch (defer_call), before once per request that wants it.

hw/scsi/virtio-scsi.c, hw/virtio/virtio.c, block/linux-aio.c; sim.user.aio_poll has the event loop.
"""

import numpy as np

from sim import backend, record, scsi, target, vring
from sim.agents import (
    A_BUSY,
    A_STATE,
    K_CALL_WRITE,
    K_IOTHREAD_COMPLETE,
    K_IOTHREAD_ISSUE,
    K_IOTHREAD_POP,
    K_IOTHREAD_SUBMIT,
    K_IOTHREAD_TURN,
    K_IRQ_INJECT,
    NEVER,
    wake,
)
from sim.backend import (
    Q_DEVICE,
    Q_IRQ_SLOT,
    Q_SIGNALS,
    Q_SIGNALS_SUPPRESSED,
)
from sim.jit import kernel
from sim.layout import STATUS_NEEDS_RESET, USED_F_NO_NOTIFY
from sim.lio.command import MEDIUM
from sim.memory import take_cycles
from sim.se_cmd import X_NEXT, X_QUEUE, X_ROW, X_STATUS
from sim.user import scsi as user_scsi
from sim.user.aio_poll import (
    ARM,
    CALL,
    CHECK,
    DECIDE,
    I_BATCHES,
    I_DEFERS,
    I_DISK_POLLED,
    I_DISK_READY,
    I_DISK_TIME,
    I_LEFT,
    I_NEXT,
    I_PENDING,
    I_PENDING_COUNT,
    I_PENDING_TAIL,
    I_POLL_MAX,
    I_POLLING,
    I_POPPED,
    I_POPPED_TAIL,
    I_QUEUE,
    I_SHARED,
    I_SUPPRESSES,
    ISSUE,
    LOOK,
    POP,
    RECHECK,
    RUN,
    SLEEP,
    SUBMIT,
    TURN,
    USED,
    WAIT_POLLING,
    adjusted,
    arm,
    becomes_ready,
    enter,
    look,
    queue_of,
    read_eventfds,
    rung,
    turn,
)
from sim.user.fields import (
    T_COMMAND,
    T_CORE,
    T_DONE,
    T_DROPPED,
    T_QUEUES,
    T_REFUSED,
    T_RING_ERRORS,
    T_STOP,
    take_done,
)
from sim.user.scsi import Q_POLL_TIME, Q_READY, Q_UNSIGNALLED, Q_WATCHED

u64 = np.uint64

MAX_BATCH = 32  # DEFAULT_MAX_BATCH of linux-aio
QEMU = 1  # sim.user.scsi


@kernel(inline=True)
def executes(st, i):
    """The command that the IOThread executes in its next step, 0 for none (sim.drive does it)."""
    return max(st[i + T_COMMAND], 0)


@kernel(inline=True)
def _append(st, head, tail, x):
    """Put command `x` at the end of the list whose ends stand at `head` and `tail`."""
    st[x + X_NEXT] = -1
    if st[head] < 0:
        st[head] = np.int64(x)
    else:
        st[u64(st[tail]) + X_NEXT] = np.int64(x)
    st[tail] = np.int64(x)


@kernel
def _run(mem, lines, st, tr, i, now):
    """aio_dispatch_ready_handlers(): the disk's first, then the virtqueues'."""
    if st[i + I_DISK_READY]:
        st[i + I_DISK_READY] = 0
        st[i + I_DISK_POLLED] = 1
        if st[i + I_POLL_MAX] and not st[i + I_SHARED]:
            st[i + I_DISK_TIME] = adjusted(st, i, st[i + I_DISK_TIME])
        return _next_completion(st, tr, i, now)
    while st[i + I_NEXT] < st[i + T_QUEUES]:
        q = queue_of(st, i, st[i + I_NEXT])
        st[i + I_NEXT] += 1
        if st[q + Q_READY]:
            st[q + Q_READY] = 0
            return _handle(mem, lines, st, i, q)
    st[i + A_STATE] = TURN
    return np.int64(0)


# ----------------------------------------------------------------------- a virtqueue's handler ----


@kernel
def _handle(mem, lines, st, i, q):
    """virtio_scsi_handle_cmd_vq() begins; it switches kicks off unless polling has done so."""
    core, v = st[i + T_CORE], u64(st[q + Q_DEVICE])
    if not st[q + Q_WATCHED] and not st[i + T_STOP]:
        st[q + Q_WATCHED] = 1
        if st[i + I_POLLING]:
            user_scsi.disable_notify(mem, lines, st, q, core)
    if st[i + I_POLL_MAX] and not st[i + I_SHARED]:
        st[q + Q_POLL_TIME] = adjusted(st, i, st[q + Q_POLL_TIME])
    st[i + I_QUEUE] = np.int64(q)
    st[i + I_SUPPRESSES] = 0 if st[v + vring.V_USED_FLAGS] & USED_F_NO_NOTIFY else 1
    if st[i + I_SUPPRESSES]:
        user_scsi.disable_notify(mem, lines, st, q, core)
    st[i + A_STATE] = POP
    return take_cycles(lines, core)


@kernel
def _pop(mem, lines, st, tr, i, now):
    """virtio_scsi_pop_req() and ..._prepare(): one chain becomes a request, or has its answer."""
    q, core = u64(st[i + I_QUEUE]), st[i + T_CORE]
    head = user_scsi.fetch(mem, lines, st, q, core)
    if head < 0:
        st[i + T_RING_ERRORS] += head != user_scsi.EMPTY
        if st[i + I_SUPPRESSES]:
            user_scsi.enable_notify(mem, lines, st, q, core)
        st[i + A_STATE] = RECHECK
        return take_cycles(lines, core)
    x = user_scsi.command_of(st, tr, q, head, now)
    verdict = user_scsi.receive(mem, lines, st, core, q, x, QEMU)
    if verdict == user_scsi.MALFORMED:
        _break(st, tr, i, x)
    elif verdict == user_scsi.REFUSED:
        backend.carry(tr, u64(st[x + X_ROW]))
        st[i + T_REFUSED] += 1
        length = user_scsi.refuse(mem, lines, st, core, x, QEMU)
        user_scsi.give_back(mem, lines, st, tr, x, core, length, now)
        return st[K_IOTHREAD_POP] + _decide(mem, lines, st, i, q, now) + take_cycles(lines, core)
    else:  # what has failed is completed when it is submitted
        _append(st, i + I_POPPED, i + I_POPPED_TAIL, x)
    return st[K_IOTHREAD_POP] + take_cycles(lines, core)


@kernel
def _break(st, tr, i, x):
    """virtio_error(): no request at all; the device is broken and gives nothing any more."""
    v = u64(st[u64(st[x + X_QUEUE]) + Q_DEVICE])
    st[v + vring.V_BROKEN] = 1
    st[v + vring.V_STATUS] |= STATUS_NEEDS_RESET
    st[i + T_RING_ERRORS] += 1
    st[i + T_DROPPED] += 1
    tr[u64(st[x + X_ROW]) + record.R_OUTCOME] = record.DROPPED
    user_scsi.count_out(st, u64(st[x + X_QUEUE]), x)


@kernel
def _recheck(mem, lines, st, i, now):
    """virtio_queue_empty() after the last pop (barrier C); then what was popped is submitted."""
    q, core = u64(st[i + I_QUEUE]), st[i + T_CORE]
    if user_scsi.more_avail(mem, lines, st, q, core):
        if st[i + I_SUPPRESSES]:
            user_scsi.disable_notify(mem, lines, st, q, core)
        st[i + A_STATE] = POP
        return take_cycles(lines, core)
    return take_cycles(lines, core) + _next_submit(st, i)


@kernel
def _next_submit(st, i):
    """The next of the requests popped, or the virtqueue's handler is done."""
    if st[i + I_POPPED] >= 0:
        st[i + A_STATE] = SUBMIT
        return st[K_IOTHREAD_SUBMIT]
    st[i + A_STATE] = CALL  # for what was answered without the disk
    return np.int64(0)


@kernel
def _submit(mem, lines, st, tr, i, now):
    """scsi_req_enqueue(): the thread has worked on the oldest request popped until now."""
    x = u64(st[i + I_POPPED])
    st[i + I_POPPED] = st[x + X_NEXT]
    st[i + A_STATE] = ISSUE
    if st[x + X_STATUS] == scsi.GOOD:
        st[i + T_COMMAND] = np.int64(x)  # the next step, which comes at once, hands it over
        return np.int64(0)
    backend.carry(tr, u64(st[x + X_ROW]))
    return _answer(mem, lines, st, tr, i, x, now)


@kernel
def _hand_over(mem, lines, st, tr, i, course, now):
    """The request's way through the block layer into linux-aio's queue; or it is done already."""
    x = u64(st[i + T_COMMAND])
    st[i + T_COMMAND] = -1
    if course == MEDIUM:
        _append(st, i + I_PENDING, i + I_PENDING_TAIL, x)
        st[i + I_PENDING_COUNT] += 1
        return np.int64(0)
    row = u64(st[x + X_ROW])
    tr[row + record.R_ISSUE] = now + 1
    tr[row + record.R_DONE] = now + 1
    tr[row + record.R_REPORT] = now + 1
    return _answer(mem, lines, st, tr, i, x, now)


@kernel
def _issue(st, tr, i, now):
    """io_submit() of a full batch, or of what there is when nothing more comes."""
    if st[i + I_LEFT]:
        x = u64(st[i + I_PENDING])
        st[i + I_PENDING] = st[x + X_NEXT]
        st[i + I_LEFT] -= 1
        target.issue(st, tr, i, x, now)
        return st[K_IOTHREAD_ISSUE] if st[i + I_LEFT] else _next_submit(st, i)
    count = st[i + I_PENDING_COUNT]
    if count < MAX_BATCH and (count == 0 or st[i + I_POPPED] >= 0):
        return _next_submit(st, i)
    st[i + I_PENDING_COUNT] = 0
    st[i + I_LEFT] = count
    st[i + I_BATCHES] += 1
    return st[K_IOTHREAD_ISSUE]


# --------------------------------------------------------------------------------- completions ----


@kernel
def _next_completion(st, tr, i, now):
    """qemu_laio_process_completions(): the next one, or interrupts for those before."""
    if st[i + T_DONE] < 0:
        st[i + A_STATE] = CALL
        return np.int64(0)
    st[i + A_STATE] = USED
    tr[u64(st[u64(st[i + T_DONE]) + X_ROW]) + record.R_REPORT] = now + 1
    return st[K_IOTHREAD_COMPLETE]


@kernel
def _push(mem, lines, st, tr, i, x, now):
    """virtio_scsi_command_complete() and virtqueue_push()."""
    core = st[i + T_CORE]
    length = user_scsi.reply(mem, lines, st, core, x, QEMU)
    user_scsi.give_back(mem, lines, st, tr, x, core, length, now)


@kernel
def _decide(mem, lines, st, i, q, now):
    """virtio_notify_irqfd(): whether the guest wants an interrupt (barrier D); returns a delay."""
    if not user_scsi.signal_wanted(mem, lines, st, q, st[i + T_CORE]):
        st[q + Q_SIGNALS_SUPPRESSED] += 1
        return np.int64(0)
    if st[i + I_DEFERS]:
        st[q + Q_UNSIGNALLED] = 1
        return np.int64(0)
    return _call(st, q, now)


@kernel
def _answer(mem, lines, st, tr, i, x, now):
    """A request that no disk has seen is completed."""
    _push(mem, lines, st, tr, i, x, now)
    delay = _decide(mem, lines, st, i, u64(st[x + X_QUEUE]), now)
    return delay + take_cycles(lines, st[i + T_CORE])


@kernel
def _call(st, q, now):
    """event_notifier_set() on the virtqueue's irqfd."""
    st[q + Q_UNSIGNALLED] = 0
    st[q + Q_SIGNALS] += 1
    wake(st, st[q + Q_IRQ_SLOT], now + st[K_CALL_WRITE] + st[K_IRQ_INJECT])
    return st[K_CALL_WRITE]


@kernel
def _used(mem, lines, st, tr, i, now):
    """The thread has worked on the oldest completion until now."""
    x = take_done(st, i)
    _push(mem, lines, st, tr, i, x, now)
    st[i + I_QUEUE] = st[x + X_QUEUE]
    st[i + A_STATE] = DECIDE
    return take_cycles(lines, st[i + T_CORE])


@kernel
def _call_next(st, i, now):
    """defer_call_end(): the eventfds of all virtqueues that the batch has something for."""
    for index in range(st[i + T_QUEUES]):
        q = queue_of(st, i, index)
        if st[q + Q_UNSIGNALLED]:
            return _call(st, q, now)
    st[i + A_STATE] = RUN
    return np.int64(0)


# ----------------------------------------------------------------------------------- the agent ----


@kernel
def _loop(mem, lines, st, tr, i, now):
    """The states of the event loop itself."""
    state = st[i + A_STATE]
    if state == RUN:
        return _run(mem, lines, st, tr, i, now)
    if state == TURN:
        return turn(mem, lines, st, i, now)
    if state == LOOK:
        return look(mem, lines, st, i, now)
    if state == ARM:
        return arm(mem, lines, st, i)
    if state == SLEEP:  # the eventfd that has woken it is readable
        read_eventfds(st, i)
        return st[K_IOTHREAD_TURN] + becomes_ready(st, i, now)
    return enter(mem, lines, st, i, state == CHECK, now)


@kernel
def step(mem, lines, st, tr, i, course, now):
    """One step of the IOThread; `course` of the command that it has just executed, if any."""
    state, delay = st[i + A_STATE], np.int64(0)
    if st[i + T_COMMAND] >= 0:
        delay = _hand_over(mem, lines, st, tr, i, course, now)
    if state == WAIT_POLLING:
        return rung(st, i, now)
    if state == POP:
        delay = _pop(mem, lines, st, tr, i, now)
    elif state == RECHECK:
        delay = _recheck(mem, lines, st, i, now)
    elif state == SUBMIT:
        delay = _submit(mem, lines, st, tr, i, now)
    elif state == ISSUE:
        delay += _issue(st, tr, i, now)
    elif state == USED:
        delay = _used(mem, lines, st, tr, i, now)
    elif state == DECIDE:
        q = u64(st[i + I_QUEUE])
        delay = _decide(mem, lines, st, i, q, now) + take_cycles(lines, st[i + T_CORE])
        delay += _next_completion(st, tr, i, now + delay)
    elif state == CALL:
        delay = _call_next(st, i, now)
    else:
        delay = _loop(mem, lines, st, tr, i, now)
    if delay >= NEVER:
        return NEVER
    if st[i + A_STATE] == WAIT_POLLING:
        return now + delay
    st[i + A_BUSY] += delay
    return now + delay
