"""The vhost-scsi worker, as the kernel runs it.

The worker is one kernel thread that runs works first in first out: for each request queue the kick
work (vhost_scsi_handle_kick) and the completion work (vhost_scsi_complete_cmd_work). A work is on
the list at most once; its QUEUED mark is cleared before it runs.

    worker     SLEEP -> TAKE -> FETCH ... -> RECHECK -> TAKE -> USED ... -> SIGNAL -> SLEEP
               vhost_run_work_list, first vhost_get_vq_desc | vhost_get_vq_desc, and where it finds
               nothing vhost_enable_notify up to its barrier (C) | avail.idx looked at again |
               vhost_add_used | vhost_signal, behind barrier D

A queue's vq->mutex is held over a whole run of its kick work and over the part of a completion run
that writes used entries, not over the signal. Control takes it between two runs: where it finds it
held it marks it WANTED, and the release leaves a notice.

A command counts as in flight from its fetch until its used entry is written, on one of the two
counts of its queue (struct vhost_scsi_inflight). A count begins at 1, as a kref does, so that it
reaches 0 only after a flush (vhost_scsi_flush) has gone over to the other count and dropped that 1.

A worker that has run out of work is busy until B_IDLE_FROM and asleep from then on; work that
arrives before finds it awake. On a CPU that it shares (sim.vhost.cpu) there is a YIELD after each
work, and READY is the wait for the CPU.

There are as many workers as host.workers says. Works of a queue run on the queue's worker; so with
one worker everything that the device does is done by one thread.

Completions wait in a list of their queue, which is read last in first out; one signal for all of
them, used.len 0. Linux 6.1 has one list and one work for the whole device, notes which queues it
has answered, and signals those after the last answer, in the order of their numbers.
vhost_scsi_handle_vq gives up the thread after 256 requests.

A queue has as many commands as its ring has entries (sbitmap). A correct guest never finds them
used up; one that publishes a buffer again before it comes back does, and is told TASK SET FULL
(6.1: BAD_TARGET).

This is the front. In sim.vhost, worker has the list of works and what lies around one, requests and
completions the way of a command, other_queues control and event queue, fields the words of all.
"""

# ruff: noqa: F405

import numpy as np

from sim import record, target, vring
from sim.agents import (
    A_BUSY,
    A_STATE,
    H_NOTICE,
    K_IRQ_INJECT,
    K_WORKER_COMPLETE,
    N_FLUSHED,
    NEVER,
    wake,
    wrapped,
)
from sim.jit import kernel
from sim.layout import S_OK, VQ_REQUEST_FIRST
from sim.memory import take_cycles
from sim.se_cmd import LEFT_BEHIND, X_HEAD, X_LOGGED, X_NEXT, X_QUEUE, X_ROW, X_TAG
from sim.vhost import log as vhost_log
from sim.vhost import scsi as vhost_scsi
from sim.vhost.completions import carry as carry
from sim.vhost.completions import drop, log_command, put_tag, release
from sim.vhost.completions import give_back as give_back
from sim.vhost.completions import signal_wanted as signal_wanted
from sim.vhost.fields import *  # noqa: F403
from sim.vhost.other_queues import finish_reset as finish_reset
from sim.vhost.other_queues import is_silent, used_other
from sim.vhost.other_queues import plug as plug
from sim.vhost.requests import executes as executes
from sim.vhost.requests import fetch, recheck
from sim.vhost.requests import note_fetch as note_fetch
from sim.vhost.requests import submit_directly as submit_directly
from sim.vhost.requests import submit_step as submit_step
from sim.vhost.worker import after_work, count_out, log_flags, unlock, yield_cpu
from sim.vhost.worker import kill_worker as kill_worker
from sim.vhost.worker import queue_at_cost as queue_at_cost
from sim.vhost.worker import queue_flush as queue_flush
from sim.vhost.worker import queue_vq_work as queue_vq_work


@kernel(inline=True)
def complete_step(st, tr, w, now):
    """target_complete_ok_work(), on LIO's completion kworker."""
    x = target.take_completed(st, w)
    tr[u64(st[x + X_ROW]) + record.R_REPORT] = now + 1
    release(st, tr, x, now)
    return target.complete_next(st, w, now)


@kernel(inline=True)
def _take(mem, lines, st, b, now):
    """The next work. A kick work turns notifications off before it looks."""
    entry = u64(st[b + B_WORK_LIST]) + TWO * u64(st[b + B_WORK_HEAD])
    st[b + B_WORK_HEAD] = wrapped(st[b + B_WORK_HEAD] + 1, st[b + B_WORK_ROOM])
    st[b + B_WORK_COUNT] -= 1
    q = u64(st[entry])
    st[b + B_QUEUE] = st[entry]
    if st[entry + ONE] == COMPLETION_WORK:
        st[q + Q_COMPLETION_QUEUED] = 0
        st[q + Q_MUTEX] = HELD
        st[b + B_BATCH] = st[q + Q_COMPLETIONS]
        st[b + B_ANSWERED] = 0
        st[q + Q_COMPLETIONS] = -1
        st[b + A_STATE] = USED
        return st[K_WORKER_COMPLETE]
    if st[entry + ONE] == FLUSH_WORK:
        st[b + B_FLUSHED] += 1
        st[H_NOTICE] |= N_FLUSHED
        return after_work(st, b, now, 0)
    st[q + Q_KICK_QUEUED] = 0
    if not st[q + Q_BACKEND]:
        return after_work(st, b, now, 0)  # no endpoint: the kick is consumed and forgotten
    if st[q + Q_INDEX] < VQ_REQUEST_FIRST and is_silent(st, q, now):
        return after_work(st, b, now, 0)
    st[q + Q_MUTEX] = HELD
    vring.disable_notify(mem, lines, st, u64(st[q + Q_DEVICE]), st[b + B_CORE])
    if st[q + Q_LOG]:
        log_flags(st, q)
    st[b + B_LOG] = 0
    if st[q + Q_LOG_ALL] and vhost_log.logs_buffers(st, u64(st[q + Q_VHOST])):
        st[b + B_LOG] = 1
    st[b + B_WEIGHT] = 0
    return FETCHES


@kernel(inline=True)
def _answer(mem, lines, st, tr, b, q, x, now):
    """Response, used element, used.idx; the command is free."""
    core = st[b + B_CORE]
    row = u64(st[x + X_ROW])
    delay = np.int64(0)
    if vhost_scsi.reply(mem, lines, st, core, x, S_OK):
        delay = give_back(mem, lines, st, tr, q, core, st[x + X_HEAD], 0, row, now)
        if st[x + X_LOGGED]:
            delay += log_command(st, q, x)
        st[b + B_ANSWERED] = 1
        st[q + Q_SIGNAL_DUE] = 1
    else:
        drop(st, tr, b, row)
    put_tag(st, q, x)
    count_out(st, x)
    return delay + take_cycles(lines, core)


@kernel(inline=True)
def _used(mem, lines, st, tr, b, now):
    """One turn of vhost_scsi_complete_cmd_work(): response, used element, used.idx."""
    x = u64(st[b + B_BATCH])
    q = u64(st[b + B_QUEUE])
    if st[q + Q_INDEX] < VQ_REQUEST_FIRST:
        return used_other(mem, lines, st, tr, b, q, x, now)
    if st[q + Q_OF_DEVICE]:
        q = u64(st[x + X_QUEUE])
    delay = np.int64(0)
    if st[x + X_TAG] != LEFT_BEHIND:  # its queue has not been stopped over it
        delay = _answer(mem, lines, st, tr, b, q, x, now)
    st[b + B_BATCH] = st[x + X_NEXT]
    if st[b + B_BATCH] >= 0:
        return delay + st[K_WORKER_COMPLETE]
    listed = u64(st[b + B_QUEUE])
    unlock(st, listed)
    if not st[b + B_ANSWERED]:
        return after_work(st, b, now, delay)
    st[b + A_STATE] = SIGNAL
    st[b + B_SIGNALLED] = np.int64(q)
    if st[listed + Q_OF_DEVICE]:
        st[b + B_CURSOR] = 0
        _next_due(st, b, u64(st[q + Q_VHOST]))
    return delay


@kernel(inline=True)
def _signal(mem, lines, st, b, now):
    """vhost_signal(), barrier D: one decision for a whole batch, on 6.1 for each queue of it."""
    q = u64(st[b + B_SIGNALLED])
    core = st[b + B_CORE]
    if signal_wanted(mem, lines, st, q, core):
        st[q + Q_SIGNALS] += 1
        wake(st, st[q + Q_IRQ_SLOT], now + st[K_IRQ_INJECT])
    else:
        st[q + Q_SIGNALS_SUPPRESSED] += 1
    delay = take_cycles(lines, core)
    if st[u64(st[b + B_QUEUE]) + Q_OF_DEVICE] and _next_due(st, b, u64(st[q + Q_VHOST])):
        return delay
    return after_work(st, b, now, delay)


@kernel
def _next_due(st, b, s):
    """Linux 6.1: go on to the next queue of compl_bitmap; False after the last one."""
    while st[b + B_CURSOR] < st[s + vhost_scsi.S_QUEUE_COUNT]:
        q = u64(st[u64(st[s + vhost_scsi.S_QUEUES]) + u64(st[b + B_CURSOR])])
        st[b + B_CURSOR] += 1
        if st[q + Q_SIGNAL_DUE]:
            st[q + Q_SIGNAL_DUE] = 0
            st[b + B_SIGNALLED] = np.int64(q)
            return True
    return False


@kernel(inline=True)
def worker_step(mem, lines, st, tr, b, now):
    """One step of the vhost worker."""
    state = st[b + A_STATE]
    if state == FETCH:
        delay = FETCHES
    elif state == USED:
        delay = _used(mem, lines, st, tr, b, now)
    elif state == SIGNAL:
        delay = _signal(mem, lines, st, b, now)
    elif state == TAKE or (state == YIELD and yield_cpu(st, b, now)):
        delay = _take(mem, lines, st, b, now)
    elif state == RECHECK:
        delay = recheck(mem, lines, st, b, now)
    else:
        delay = NEVER  # YIELD: another worker has the CPU now
    if delay == FETCHES:
        delay = fetch(mem, lines, st, tr, b, now)
    if delay >= NEVER:
        return NEVER
    st[b + A_BUSY] += delay
    return now + delay
