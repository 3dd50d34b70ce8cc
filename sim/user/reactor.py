"""SPDK's vhost-scsi: a reactor that polls the rings and the disks, and never sleeps.

One reactor thread, alone on its core, runs its pollers in turn, for ever. The poller of the device
(vdev_worker) looks at every virtqueue, takes up to 32 requests that it finds there and submits each
at once; then it interrupts the guest for whatever it has completed since. The poller of the bdevs
collects what the disks have finished and writes the used elements.

    reactor    POLL -> REQUEST ... -> POLL ... -> SIGNAL -> REAP -> USED ... -> POLL, or PARKED
               vhost_vq_avail_ring_get | process_vq, process_scsi_task | vhost_session_used_signal |
               the completions of the bdev | vhost_scsi_task_cpl, vhost_vq_used_ring_enqueue

Kicks are switched off when the device starts, and nobody reads the kick eventfd. EVENT_IDX is not
offered: whether the guest wants an interrupt is a flag in the available ring. While it does not
(its handler is at work), the interrupt is not dropped but left for a later round.

PARKED stands for rounds in which there is nothing: the reactor is rung for when the guest publishes
or wants interrupts again, or a disk finishes, and goes on with the round that begins next. Empty
rounds cost no step, and none of the core's cycles count as busy in them (as in SPDK's own
statistics of a thread). Each is taken to find the index in the cache.

lib/vhost/vhost_scsi.c, lib/vhost/rte_vhost_user.c. Interrupt coalescing is off, as by default.
"""

import numpy as np

from sim import backend, record, target
from sim.agents import (
    A_BUSY,
    A_STATE,
    H_NOTICE,
    K_CALL_WRITE,
    K_IRQ_INJECT,
    K_REACTOR_COMPLETE,
    K_REACTOR_QUEUE,
    K_REACTOR_ROUND,
    K_REACTOR_SUBMIT,
    N_STOPPED,
    NEVER,
    RUNG,
    SILENT,
    wake,
)
from sim.backend import Q_IRQ_SLOT, Q_LOG_ALL, Q_SIGNALS, Q_SIGNALS_SUPPRESSED, Q_VHOST
from sim.jit import kernel
from sim.lio.command import MEDIUM
from sim.memory import hit_cycles, take_cycles
from sim.se_cmd import LEFT_BEHIND, X_QUEUE, X_ROW, X_TAG
from sim.user import scsi as user_scsi
from sim.user.fields import (
    ASKED,
    STANDS,
    T_BELL,
    T_COMMAND,
    T_CORE,
    T_DONE,
    T_DROPPED,
    T_IDLE_FROM,
    T_QUEUE_LIST,
    T_QUEUES,
    T_REFUSED,
    T_RING_ERRORS,
    T_SLOT,
    T_SPUN,
    T_STOP,
    THREAD_FIELDS,
    next_round,
    take_done,
)
from sim.user.scsi import Q_UNSIGNALLED
from sim.vhost import log as vhost_log

u64 = np.uint64

POLL, REQUEST, SIGNAL, REAP, USED, PARKED = range(6)
STATES = 'poll request signal reap used parked'.split()

BATCH = 32  # requests that process_vq() takes at a time
SPDK = 0  # sim.user.scsi: not QEMU

(
    P_QUEUE,  # index of the virtqueue that is polled or signalled
    P_LEFT,  # requests left of those it has seen there
    P_FOUND,  # this round has found something
    P_ROUNDS,  # rounds that have
) = map(u64, range(THREAD_FIELDS, THREAD_FIELDS + 4))
REACTOR_WORDS = THREAD_FIELDS + 4


@kernel(inline=True)
def executes(st, r):
    """The command that the reactor executes in its next step, 0 for none (sim.drive does it)."""
    return max(st[r + T_COMMAND], 0)


@kernel(inline=True)
def _queue(st, r):
    return u64(st[u64(st[r + T_QUEUE_LIST]) + u64(st[r + P_QUEUE])])


# ---------------------------------------------------------------------------- virtqueue poller ----


@kernel
def _poll(mem, lines, st, tr, r, now):
    """vdev_worker(): look at one virtqueue after the other, up to one that holds something."""
    core, delay = st[r + T_CORE], np.int64(0)
    if st[r + T_STOP] and st[r + P_QUEUE] == 0:
        _look_at_none(st, r)
    while st[r + P_QUEUE] < st[r + T_QUEUES]:
        q = _queue(st, r)
        delay += st[K_REACTOR_QUEUE]
        st[r + P_LEFT] = user_scsi.published(mem, lines, st, q, core, BATCH)
        if st[r + P_LEFT]:
            st[r + P_FOUND] = 1
            st[r + A_STATE] = REQUEST
            return delay + _request(mem, lines, st, tr, r, now)
        st[r + P_QUEUE] += 1
    st[r + P_QUEUE] = 0
    delay += take_cycles(lines, core)
    if _owes_a_signal(st, r):
        st[r + A_STATE] = SIGNAL
        return delay
    return delay + _reap(st, tr, r, now + delay)


@kernel
def _look_at_none(st, r):
    """Between two rounds the poller of the device has been unregistered (vhost_scsi_stop)."""
    if st[r + T_STOP] == ASKED:
        st[r + T_STOP] = STANDS
        st[H_NOTICE] |= N_STOPPED
    st[r + P_QUEUE] = st[r + T_QUEUES]


@kernel
def _owes_a_signal(st, r):
    for index in range(st[r + T_QUEUES]):
        if st[u64(st[u64(st[r + T_QUEUE_LIST]) + u64(index)]) + Q_UNSIGNALLED]:
            return True
    return False


@kernel
def _request(mem, lines, st, tr, r, now):
    """process_scsi_task(): one chain becomes a task; the next step submits it."""
    core, q = st[r + T_CORE], _queue(st, r)
    if st[r + P_LEFT] == 0:
        st[r + P_QUEUE] += 1
        st[r + A_STATE] = POLL
        return np.int64(0)
    st[r + P_LEFT] -= 1
    head = user_scsi.fetch(mem, lines, st, q, core)
    if head < 0:  # malformed: rte_vhost has no place for it but the log
        st[r + T_RING_ERRORS] += head != user_scsi.EMPTY
        st[r + P_LEFT] = 0
        return take_cycles(lines, core)
    x = user_scsi.command_of(st, tr, q, head, now)
    verdict = user_scsi.receive(mem, lines, st, core, q, x, SPDK)
    if verdict == user_scsi.READY:
        st[r + T_COMMAND] = np.int64(x)
    else:
        backend.carry(tr, u64(st[x + X_ROW]))
        if verdict == user_scsi.FAILED:
            _finish(mem, lines, st, tr, r, x, now)
        else:
            _refuse(mem, lines, st, tr, r, x, verdict, now)
    return st[K_REACTOR_SUBMIT] + take_cycles(lines, core)


@kernel
def _refuse(mem, lines, st, tr, r, x, verdict, now):
    """invalid_request(): BAD_TARGET, or for what is no request a used element of length 0."""
    core, length = st[r + T_CORE], np.int64(0)
    if verdict == user_scsi.REFUSED:
        st[r + T_REFUSED] += 1
        length = user_scsi.refuse(mem, lines, st, core, x, SPDK)
    else:
        st[r + T_DROPPED] += 1
        tr[u64(st[x + X_ROW]) + record.R_OUTCOME] = record.DROPPED
    user_scsi.give_back(mem, lines, st, tr, x, core, length, now)
    st[u64(st[x + X_QUEUE]) + Q_UNSIGNALLED] += 1


@kernel
def _hand_over(mem, lines, st, tr, r, course, now):
    """spdk_scsi_dev_queue_task(): the bdev has it, or it is done already."""
    x = u64(st[r + T_COMMAND])
    st[r + T_COMMAND] = -1
    if course == MEDIUM:
        target.issue(st, tr, r, x, now)
        return
    row = u64(st[x + X_ROW])
    tr[row + record.R_ISSUE] = now + 1
    tr[row + record.R_DONE] = now + 1
    tr[row + record.R_REPORT] = now + 1
    _finish(mem, lines, st, tr, r, x, now)


# --------------------------------------------------------------------------------- completions ----


@kernel
def _finish(mem, lines, st, tr, r, x, now):
    """vhost_scsi_task_cpl(): response, used element, used.idx; no interrupt yet.

    A task that the session was stopped over is only freed. The dirty log is told of the request's
    writable buffers (vhost_log_req_desc), at no cost.
    """
    if st[x + X_TAG] == LEFT_BEHIND:
        return
    core, q = st[r + T_CORE], u64(st[x + X_QUEUE])
    length = user_scsi.reply(mem, lines, st, core, x, SPDK)
    user_scsi.give_back(mem, lines, st, tr, x, core, length, now)
    st[q + Q_UNSIGNALLED] += 1
    if st[q + Q_LOG_ALL]:
        vhost_log.log_answer(st, u64(st[q + Q_VHOST]), x)


@kernel
def _signal(mem, lines, st, r, now):
    """vhost_session_used_signal(): the eventfd of one virtqueue that has something to tell."""
    core = st[r + T_CORE]
    while st[r + P_QUEUE] < st[r + T_QUEUES]:
        q = _queue(st, r)
        st[r + P_QUEUE] += 1
        if st[q + Q_UNSIGNALLED]:
            if not user_scsi.signal_wanted(mem, lines, st, q, core):
                st[q + Q_SIGNALS_SUPPRESSED] += 1
                continue
            st[q + Q_UNSIGNALLED] = 0
            st[q + Q_SIGNALS] += 1
            st[r + P_FOUND] = 1
            wake(st, st[q + Q_IRQ_SLOT], now + st[K_CALL_WRITE] + st[K_IRQ_INJECT])
            return st[K_CALL_WRITE] + take_cycles(lines, core)
    st[r + A_STATE] = REAP
    return take_cycles(lines, core)


@kernel
def _reap(st, tr, r, now):
    """The poller of the bdevs: is a command finished? Where none is the round ends."""
    if st[r + T_DONE] < 0:
        return _end_round(st, r, now)
    st[r + P_FOUND] = 1
    st[r + A_STATE] = USED
    tr[u64(st[u64(st[r + T_DONE]) + X_ROW]) + record.R_REPORT] = now + 1
    return st[K_REACTOR_COMPLETE]


@kernel(inline=True)
def _used(mem, lines, st, tr, r, now):
    """The reactor has worked on the oldest finished command until now."""
    _finish(mem, lines, st, tr, r, take_done(st, r), now)
    return take_cycles(lines, st[r + T_CORE]) + _reap(st, tr, r, now)


@kernel
def _end_round(st, r, now):
    """The next round, at once or as soon as there is something to find."""
    st[r + P_QUEUE] = 0
    st[r + A_STATE] = POLL
    if st[r + P_FOUND] or st[r + T_BELL] == RUNG:
        st[r + P_ROUNDS] += 1
        st[r + P_FOUND] = 0
        st[r + T_BELL] = SILENT
        return st[K_REACTOR_ROUND]
    st[r + A_STATE] = PARKED
    st[r + T_BELL] = st[r + T_SLOT] + 1
    st[r + T_IDLE_FROM] = now + st[K_REACTOR_ROUND]
    return NEVER


@kernel
def _unpark(lines, st, r, now):
    """Rung for: the round that begins next will find it.

    An empty round is the turn, and a look at each virtqueue's index, which is in the cache.
    """
    since = st[r + T_IDLE_FROM]
    look = st[K_REACTOR_QUEUE] + hit_cycles(lines)
    length = st[K_REACTOR_ROUND] + st[r + T_QUEUES] * look
    begins = next_round(now, since, max(length, 1))
    st[r + T_SPUN] += begins - since
    st[r + A_STATE] = POLL
    return begins


@kernel
def step(mem, lines, st, tr, r, course, now):
    """One step of the reactor; `course` of the command that it has just executed, if any."""
    if st[r + T_COMMAND] >= 0:
        _hand_over(mem, lines, st, tr, r, course, now)
    state = st[r + A_STATE]
    if state == PARKED:
        return _unpark(lines, st, r, now)
    if state == POLL:
        delay = _poll(mem, lines, st, tr, r, now)
    elif state == REQUEST:
        delay = _request(mem, lines, st, tr, r, now)
    elif state == SIGNAL:
        delay = _signal(mem, lines, st, r, now)
    elif state == REAP:
        delay = _reap(st, tr, r, now)
    else:
        delay = _used(mem, lines, st, tr, r, now)
    if delay >= NEVER:
        return NEVER
    st[r + A_BUSY] += delay
    return now + delay
