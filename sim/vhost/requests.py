"""vhost_scsi_handle_vq(): from the ring to LIO, a request per turn (sim.backend)."""

import numpy as np

from sim import record, scsi, target, vring
from sim.agents import (
    A_STATE,
    K_IRQ_INJECT,
    K_LIO_SUBMIT,
    K_WORKER_LOG,
    K_WORKER_POP,
    K_WORKER_SUBMIT,
    wake,
    wrapped,
)
from sim.jit import kernel
from sim.layout import S_BAD_TARGET, S_OK, VHOST_SCSI_WEIGHT, VQ_REQUEST_FIRST
from sim.memory import take_cycles
from sim.se_cmd import X_HEAD, X_LOGGED, X_QUEUE, X_ROW
from sim.vhost import inflight
from sim.vhost import log as vhost_log
from sim.vhost import scsi as vhost_scsi
from sim.vhost.completions import carry, drop, give_back, release, signal_wanted
from sim.vhost.fields import (
    B_BAD_TARGETS,
    B_COMMAND,
    B_CORE,
    B_LIO,
    B_LOG,
    B_QUEUE,
    B_REQUEUES,
    B_RING_ERRORS,
    B_TASK_SET_FULL,
    B_WEIGHT,
    FETCH,
    FETCHES,
    KICK_WORK,
    Q_AHEAD_MAX,
    Q_BUFFERS,
    Q_COMMAND_WORDS,
    Q_COMMANDS,
    Q_DEVICE,
    Q_INDEX,
    Q_IRQ_SLOT,
    Q_LOG,
    Q_ORDER_LIST,
    Q_ORDER_ROOM,
    Q_ORDER_TAIL,
    Q_REGION,
    Q_RESUBMITS,
    Q_ROW_OF_HEAD,
    Q_SIGNALS,
    Q_TAG_FREE,
    Q_TAG_LIST,
    Q_TAGS,
    Q_VHOST,
    RECHECK,
    u64,
)
from sim.vhost.other_queues import control
from sim.vhost.worker import after_work, count_in, log_flags, queue_vq_work, unlock


@kernel
def _reply_error(mem, lines, st, tr, b, q, head, row, verdict, now):
    """vhost_scsi_send_bad_target(), ..._send_status(): answered and signalled at once, used.len 0.

    The pool of commands used up is TASK SET FULL, which Linux 6.1 has not yet.
    """
    core, s = st[b + B_CORE], u64(st[q + Q_VHOST])
    full = verdict == vhost_scsi.NO_TAG and st[s + vhost_scsi.S_KERNEL] >= 612
    response, status = (S_OK, scsi.TASK_SET_FULL) if full else (S_BAD_TARGET, scsi.GOOD)
    buffers = u64(st[q + Q_BUFFERS])
    if not vhost_scsi.send_error(mem, lines, st, core, s, buffers, response, status):
        drop(st, tr, b, row)
        return 0
    st[b + (B_TASK_SET_FULL if full else B_BAD_TARGETS)] += 1
    carry(tr, row)
    delay = give_back(mem, lines, st, tr, q, core, head, 0, row, now)
    if signal_wanted(mem, lines, st, q, core):
        st[q + Q_SIGNALS] += 1
        wake(st, st[q + Q_IRQ_SLOT], now + st[K_IRQ_INJECT])
    if st[b + B_LOG]:
        delay += vhost_log.log_buffers(st, s, buffers) * st[K_WORKER_LOG]
    return delay


@kernel(inline=True)
def executes(st, b):
    """The command that the worker executes by itself in its next step, 0 for none.

    With submit_type direct target_submit() runs target_execute_cmd() in the worker's thread. The
    scheduler's loop calls it, and then `submit_directly`, before the step: LIO's answers to every
    command that a disk does not see are then compiled into one place (sim.drive).
    """
    command = st[b + B_COMMAND]
    return command if command >= 0 and st[u64(st[b + B_LIO]) + target.W_DIRECT] else 0


@kernel
def submit_directly(st, tr, b, course, now):
    """The worker has executed the command that it fetched before; `course`: what came of it."""
    lio, x = u64(st[b + B_LIO]), u64(st[b + B_COMMAND])
    st[b + B_COMMAND] = -1
    if target.executed(st, tr, lio, x, course, now):
        target.issue(st, tr, lio, x, now)
    _release_failed(st, tr, lio, now)


@kernel
def submit_step(st, tr, w, course, now):
    """target_queued_submit_work(), on LIO's submission kworker (sim.target.submit_step)."""
    due = target.submit_step(st, tr, w, course, now)
    _release_failed(st, tr, w, now)
    return due


@kernel
def _release_failed(st, tr, w, now):
    """A command that fails at its submission is released there, with no completion hop."""
    failed = st[w + target.W_FAILED]
    if failed >= 0:
        st[w + target.W_FAILED] = -1
        tr[u64(st[u64(failed) + X_ROW]) + record.R_REPORT] = now + 1
        release(st, tr, u64(failed), now)


@kernel
def fetch(mem, lines, st, tr, b, now):
    """One turn of vhost_scsi_handle_vq(): hand over the last command, take the next request."""
    if st[b + B_COMMAND] >= 0:
        target.submit(st, u64(st[b + B_LIO]), st[b + B_COMMAND], now)
        st[b + B_COMMAND] = -1
    q = u64(st[b + B_QUEUE])
    device, core = u64(st[q + Q_DEVICE]), st[b + B_CORE]
    if st[b + B_WEIGHT] >= VHOST_SCSI_WEIGHT:
        st[b + B_REQUEUES] += 1
        unlock(st, q)
        queue_vq_work(st, q, KICK_WORK, now)
        return after_work(st, b, now, 0)
    st[b + B_WEIGHT] += 1
    buffers = u64(st[q + Q_BUFFERS])
    if st[q + Q_RESUBMITS]:
        head = inflight.resubmit(mem, lines, st, q, core)
    else:
        head = vring.fetch(mem, lines, st, device, core, buffers)
    if head == vring.EMPTY:  # vhost_enable_notify(), first half: the next publication shall kick
        vring.enable_notify(mem, lines, st, device, core)
        st[b + A_STATE] = RECHECK
        delay = take_cycles(lines, core)
        if st[q + Q_LOG]:
            pages = vhost_log.log_notify(st, u64(st[q + Q_VHOST]), st[q + Q_LOG], device)
            delay += pages * st[K_WORKER_LOG]
        return delay
    if head < 0:
        st[b + B_RING_ERRORS] += 1  # vq_err(): the queue is stuck until it is reset
        unlock(st, q)
        return after_work(st, b, now, take_cycles(lines, core))
    st[b + A_STATE] = FETCH
    row = note_fetch(st, tr, q, head, now)
    return _request(mem, lines, st, tr, b, q, head, row, now) + take_cycles(lines, core)


@kernel(inline=True)
def note_fetch(st, tr, q, head, now):
    """What the trace and the checkers know of a chain that has just been fetched; its row."""
    device = u64(st[q + Q_DEVICE])
    row = u64(st[u64(st[q + Q_ROW_OF_HEAD]) + u64(head)])
    tr[row + record.R_FETCH] = now + 1
    tr[row + record.R_FETCHED_COUNT] += 1
    if tr[row + record.R_KICK] > now + 1:  # quicker than the kick that was on its way
        tr[row + record.R_KICK] = tr[row + record.R_AVAIL]
        tr[row + record.R_KICK_ID] = 0
    if st[device + vring.V_IN_ORDER]:
        place = st[q + Q_ORDER_TAIL]
        st[u64(st[q + Q_ORDER_LIST]) + u64(place)] = np.int64(row)
        st[q + Q_ORDER_TAIL] = wrapped(place + 1, st[q + Q_ORDER_ROOM])
    ahead = vring.backlog(st, device) + 1
    if st[device + vring.V_PACKED]:
        ahead = st[device + vring.V_INUSE]
    st[q + Q_AHEAD_MAX] = max(st[q + Q_AHEAD_MAX], ahead)
    if st[q + Q_REGION]:
        inflight.track_fetch(st, q, head)
    return row


@kernel
def _request(mem, lines, st, tr, b, q, head, row, now):
    """vhost_scsi_handle_vq(), from the sizes of a chain's buffers to target_submit_prep()."""
    free = st[q + Q_TAG_FREE] - 1
    tag = st[u64(st[q + Q_TAG_LIST]) + u64(free)] if free >= 0 else st[q + Q_TAGS]
    x = u64(st[q + Q_COMMANDS] + st[q + Q_COMMAND_WORDS] * tag)
    st[x + X_QUEUE] = np.int64(q)
    st[x + X_HEAD] = head
    st[x + X_ROW] = np.int64(row)
    if st[q + Q_INDEX] < VQ_REQUEST_FIRST:
        return control(mem, lines, st, tr, b, q, x, now)
    device, buffers = u64(st[q + Q_VHOST]), u64(st[q + Q_BUFFERS])
    verdict = vhost_scsi.receive(mem, lines, st, st[b + B_CORE], device, buffers, x)
    if verdict in (vhost_scsi.READY, vhost_scsi.FAILED):
        st[q + Q_TAG_FREE] = free
        count_in(st, q, x)
        st[x + X_LOGGED] = 0
        if st[b + B_LOG]:
            vhost_log.save(st, device, buffers, x)
    if verdict == vhost_scsi.READY:
        st[b + B_COMMAND] = np.int64(x)
        direct = st[u64(st[b + B_LIO]) + target.W_DIRECT]
        return st[K_WORKER_POP] + (st[K_LIO_SUBMIT] if direct else st[K_WORKER_SUBMIT])
    if verdict == vhost_scsi.FAILED:
        carry(tr, row)
        release(st, tr, x, now)
    elif verdict == vhost_scsi.DROPPED:
        drop(st, tr, b, row)
    else:
        return st[K_WORKER_POP] + _reply_error(mem, lines, st, tr, b, q, head, row, verdict, now)
    return st[K_WORKER_POP]


@kernel(inline=True)
def recheck(mem, lines, st, b, now):
    """vhost_enable_notify(), second half: has the guest published meanwhile (barrier C)?"""
    q = u64(st[b + B_QUEUE])
    device, core = u64(st[q + Q_DEVICE]), st[b + B_CORE]
    if vring.more_avail(mem, lines, st, device, core):
        vring.disable_notify(mem, lines, st, device, core)
        if st[q + Q_LOG]:
            log_flags(st, q)
        return FETCHES
    unlock(st, q)
    return after_work(st, b, now, take_cycles(lines, core))
