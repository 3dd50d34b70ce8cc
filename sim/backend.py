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
"""

import numpy as np

from sim import record, scsi, target, vring
from sim.agents import (
    A_BUSY,
    A_FIELDS,
    A_STATE,
    H_NOTICE,
    K_CONTEXT_SWITCH,
    K_IRQ_INJECT,
    K_LIO_SUBMIT,
    K_WORKER_COMPLETE,
    K_WORKER_LOG,
    K_WORKER_POP,
    K_WORKER_SUBMIT,
    N_FLUSHED,
    N_INFLIGHT,
    N_MUTEX,
    N_RESET,
    NEVER,
    wake,
    wrapped,
)
from sim.jit import kernel
from sim.layout import (
    EVENT_NONE,
    EVENT_TRANSPORT_RESET,
    S_BAD_TARGET,
    S_OK,
    VHOST_SCSI_WEIGHT,
    VQ_CONTROL,
    VQ_EVENT,
    VQ_REQUEST_FIRST,
)
from sim.memory import take_cycles
from sim.se_cmd import (
    ACTIVE,
    IDLE,
    X_HEAD,
    X_INFLIGHT,
    X_LOGGED,
    X_NEXT,
    X_QUEUE,
    X_ROW,
    X_STATE,
    X_TAG,
)
from sim.vhost import control_queue as vhost_control
from sim.vhost import cpu as host_cpu
from sim.vhost import log as vhost_log
from sim.vhost import scsi as vhost_scsi

u64 = np.uint64
ONE, TWO = u64(1), u64(2)

# States of the worker.
SLEEP, TAKE, FETCH, RECHECK, USED, SIGNAL, YIELD, READY = range(8)
STATES = 'sleep take fetch recheck used signal yield ready'.split()

FETCHES = -1  # not a delay: the step goes on with _fetch

# Works of a queue, and the one that vhost_dev_flush() leaves behind all others.
KICK_WORK, COMPLETION_WORK, FLUSH_WORK = 0, 1, 2
FLUSHES_MAX = 4  # at one time on one worker

# What stands in Q_MUTEX.
FREE, HELD, WANTED = 0, 1, 2

# The worker's stretch.
(
    B_SLOT,
    B_CORE,
    B_WORK_COUNT,
    B_WORK_HEAD,
    B_WORK_ROOM,
    B_WORK_LIST,  # pairs (host queue, work)
    B_QUEUE,  # the queue whose work runs
    B_WEIGHT,
    B_COMMAND,  # fetched and not yet handed over, -1 none
    B_BATCH,  # completion batch that is being written, -1 empty
    B_WAKES,
    B_LIO,  # base of the submission kworker
    B_REQUEUES,
    B_DROPPED,
    B_RING_ERRORS,
    B_BAD_TARGETS,
    B_TASK_SET_FULL,
    B_IDLE_FROM,  # asleep since
    B_FLUSHES,  # flush works queued so far
    B_FLUSHED,  # flush works run so far
    B_ANSWERED,  # has this completion batch an answer to signal?
    B_SIGNALLED,  # the queue that is signalled next
    B_CURSOR,  # 6.1: number of the queue from which on others may have to be
    B_LOG,  # does this run of a kick work note buffers for the dirty log?
    B_KILLED,
    B_VHOST,  # base of the device (sim.vhost.scsi)
    B_CPU,  # base of the host CPU that it shares, 0 if it has one of its own
) = map(u64, range(A_FIELDS, A_FIELDS + 27))
WORKER_WORDS = A_FIELDS + 27

# A request queue as the host has it (struct vhost_scsi_virtqueue).
(
    Q_DEVICE,
    Q_INDEX,
    Q_WORKER,  # base of its worker
    Q_IRQ_SLOT,
    Q_KICK_QUEUED,
    Q_COMPLETION_QUEUED,
    Q_COMPLETIONS,  # completion list, last in first out, -1 empty
    Q_COMPLETER,  # whose list its completions go to: its own, or the device's (6.1)
    Q_OF_DEVICE,  # 1: no queue at all, but the device's completion list and work (6.1)
    Q_SIGNAL_DUE,  # 6.1: answered and not yet signalled
    Q_TAG_FREE,  # commands that are free, a stack
    Q_TAG_LIST,
    Q_TAGS,  # how many there are; behind them stands a spare one
    Q_DROPPED,  # commands that nobody could answer, the worker having been killed
    Q_LOG,  # log_addr: guest address of the used ring for the dirty log, 0: not logged
    Q_LOG_ALL,  # VHOST_F_LOG_ALL is acked on this queue
    Q_BUFFERS,  # scratch buffer list
    Q_COMMANDS,
    Q_COMMAND_WORDS,
    Q_ROW_OF_HEAD,  # trace only
    Q_VHOST,  # base of the device (sim.vhost.scsi)
    Q_BACKEND,  # 1 while an endpoint is set
    Q_SIGNALS,
    Q_SIGNALS_SUPPRESSED,
    Q_AHEAD_MAX,  # largest avail.idx - last_avail seen; packed: most descriptors in our hands
    Q_ORDER_LIST,  # in order, trace only: rows as they were fetched, circular
    Q_ORDER_ROOM,
    Q_ORDER_TAIL,
    Q_ORDER_HEAD,
    Q_UNTOLD,  # in order: made visible since the last signal
    Q_MUTEX,  # vq->mutex: FREE, HELD, WANTED
    Q_INFLIGHT,  # offset of the count that commands fetched now are on
    Q_INFLIGHTS,  # the two counts
    Q_INFLIGHTS_1,
    Q_POLLED,  # the guest polls it: the vector's agent is told of every used entry
) = map(u64, range(35))
HOST_QUEUE_WORDS = 35


# ---------------------------------------------------------------------------------- work list ----


@kernel
def queue_vq_work(st, q, work, now):
    """vhost_vq_work_queue(): put a work on its worker's list, once, and wake the thread."""
    queue_at_cost(st, q, work, now, 0)


@kernel
def queue_at_cost(st, q, work, now, cost):
    """The same by a caller that takes `cost` cycles to wake a worker that sleeps; had it to?"""
    mark = q + (Q_KICK_QUEUED if work == KICK_WORK else Q_COMPLETION_QUEUED)
    if st[mark] or st[q + Q_WORKER] == 0:  # queued already, or its worker was killed
        return False
    st[mark] = 1
    return _push(st, u64(st[q + Q_WORKER]), np.int64(q), work, now, cost)


@kernel
def kill_worker(st, b):
    """Control, vhost_worker_killed(): SIGKILL has hit the process that the worker belongs to.

    Its queues have no worker any more: what is in its list still runs, later works are refused, and
    commands that LIO gives back are dropped without a used entry. Control holds the mutex of each
    of the queues. Returns how many queues it had. Not on Linux 6.1, whose workers are the kernel's.
    """
    s, detached = u64(st[b + B_VHOST]), 0
    st[b + B_KILLED] = 1
    for place in range(st[s + vhost_scsi.S_QUEUE_COUNT]):
        q = u64(st[u64(st[s + vhost_scsi.S_QUEUES]) + u64(place)])
        if st[q + Q_WORKER] == np.int64(b):
            st[q + Q_WORKER] = 0
            detached += 1
    return detached


@kernel
def queue_flush(st, b, now):
    """Control, vhost_dev_flush(): behind all works of a worker one that leaves N_FLUSHED.

    It has run when B_FLUSHED has come to what this returns.
    """
    st[b + B_FLUSHES] += 1
    _push(st, b, 0, FLUSH_WORK, now, 0)
    return st[b + B_FLUSHES]


@kernel
def _push(st, b, q, work, now, cost):
    """llist_add() to a worker's list, and vhost_task_wake(); does the thread sleep?"""
    tail = wrapped(st[b + B_WORK_HEAD] + st[b + B_WORK_COUNT], st[b + B_WORK_ROOM])
    entry = u64(st[b + B_WORK_LIST]) + TWO * u64(tail)
    st[entry] = q
    st[entry + ONE] = work
    st[b + B_WORK_COUNT] += 1
    if st[b + A_STATE] != SLEEP:
        return False
    if st[b + B_CPU]:
        _get_cpu(st, b, u64(st[b + B_CPU]), now + cost)
        return True
    st[b + A_STATE] = TAKE
    slept = now - st[b + B_IDLE_FROM]
    if slept <= 0:
        wake(st, st[b + B_SLOT], st[b + B_IDLE_FROM])
        return False
    st[b + B_WAKES] += 1
    wake(st, st[b + B_SLOT], now + cost + host_cpu.wake_latency(st, slept))
    return True


@kernel
def _get_cpu(st, b, c, now):
    """The thread is woken: on a CPU that it shares it may have to wait."""
    if st[c + host_cpu.C_RUNNING]:
        st[b + A_STATE] = READY
        host_cpu.enqueue(st, c, b)
        return
    st[c + host_cpu.C_RUNNING] = np.int64(b)
    st[b + A_STATE] = TAKE
    st[b + B_WAKES] += 1
    wake(st, st[b + B_SLOT], now + host_cpu.wake_latency(st, now - st[c + host_cpu.C_IDLE_FROM]))


@kernel
def _yield(st, b, now):
    """cond_resched() after a work, schedule() after the last one; does this worker go on?"""
    c, more = u64(st[b + B_CPU]), st[b + B_WORK_COUNT] > 0
    if more and st[c + host_cpu.C_WAITING] == 0:
        return True
    st[b + A_STATE] = READY if more else SLEEP
    if more:
        host_cpu.enqueue(st, c, b)
    if st[c + host_cpu.C_WAITING]:
        other = host_cpu.switch(st, c)
        st[other + A_STATE] = TAKE
        st[other + A_BUSY] += st[K_CONTEXT_SWITCH]
        wake(st, st[other + B_SLOT], now + st[K_CONTEXT_SWITCH])
    else:
        st[c + host_cpu.C_RUNNING] = 0
        st[c + host_cpu.C_IDLE_FROM] = now
    return False


@kernel(inline=True)
def _after_work(st, b, now, delay):
    """The work is done in `delay` cycles: take the next one then, or sleep."""
    if st[b + B_CPU]:
        st[b + A_STATE] = YIELD
        return delay
    st[b + A_STATE] = TAKE
    if st[b + B_WORK_COUNT]:
        return delay
    st[b + A_STATE] = SLEEP
    st[b + B_IDLE_FROM] = now + delay
    st[b + A_BUSY] += delay
    return NEVER


@kernel(inline=True)
def _unlock(st, q):
    """mutex_unlock(&vq->mutex)."""
    if st[q + Q_MUTEX] == WANTED:
        st[H_NOTICE] |= N_MUTEX
    st[q + Q_MUTEX] = FREE


@kernel(inline=True)
def _count_in(st, q, x):
    """vhost_scsi_get_inflight()."""
    count = u64(st[q + Q_INFLIGHT])
    st[count] += 1
    st[x + X_INFLIGHT] = np.int64(count)


@kernel(inline=True)
def _count_out(st, x):
    """vhost_scsi_put_inflight(): 0 is reached only where a flush waits."""
    count = u64(st[x + X_INFLIGHT])
    st[count] -= 1
    if st[count] == 0:
        st[H_NOTICE] |= N_INFLIGHT


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
        return _after_work(st, b, now, 0)
    st[q + Q_KICK_QUEUED] = 0
    if not st[q + Q_BACKEND]:
        return _after_work(st, b, now, 0)  # no endpoint: the kick is consumed and forgotten
    if st[q + Q_INDEX] < VQ_REQUEST_FIRST and _is_silent(st, q, now):
        return _after_work(st, b, now, 0)
    st[q + Q_MUTEX] = HELD
    vring.disable_notify(mem, lines, st, u64(st[q + Q_DEVICE]), st[b + B_CORE])
    if st[q + Q_LOG]:
        _log_flags(st, q)
    st[b + B_LOG] = 0
    if st[q + Q_LOG_ALL] and vhost_log.logs_buffers(st, u64(st[q + Q_VHOST])):
        st[b + B_LOG] = 1
    st[b + B_WEIGHT] = 0
    return FETCHES


@kernel
def _log_flags(st, q):
    """vhost_disable_notify() with a dirty log; with EVENT_IDX it writes nothing."""
    v = u64(st[q + Q_DEVICE])
    if not st[v + vring.V_EVENT_IDX]:
        vhost_log.log_notify(st, u64(st[q + Q_VHOST]), st[q + Q_LOG], v)


# ----------------------------------------------------------------------------------- requests ----


@kernel
def carry(tr, row):
    """A request that skips the disk carries t_fetch forward."""
    fetched = tr[row + record.R_FETCH]
    tr[row + record.R_ISSUE] = fetched
    tr[row + record.R_DONE] = fetched
    tr[row + record.R_REPORT] = fetched


@kernel
def _drop(st, tr, b, row):
    """No used entry: the slot leaks."""
    st[b + B_DROPPED] += 1
    tr[row + record.R_OUTCOME] = record.DROPPED


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
        _drop(st, tr, b, row)
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
def _fetch(mem, lines, st, tr, b, now):
    """One turn of vhost_scsi_handle_vq(): hand over the last command, take the next request."""
    if st[b + B_COMMAND] >= 0:
        target.submit(st, u64(st[b + B_LIO]), st[b + B_COMMAND], now)
        st[b + B_COMMAND] = -1
    q = u64(st[b + B_QUEUE])
    device, core = u64(st[q + Q_DEVICE]), st[b + B_CORE]
    if st[b + B_WEIGHT] >= VHOST_SCSI_WEIGHT:
        st[b + B_REQUEUES] += 1
        _unlock(st, q)
        queue_vq_work(st, q, KICK_WORK, now)
        return _after_work(st, b, now, 0)
    st[b + B_WEIGHT] += 1
    buffers = u64(st[q + Q_BUFFERS])
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
        _unlock(st, q)
        return _after_work(st, b, now, take_cycles(lines, core))
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
        return _control(mem, lines, st, tr, b, q, x, now)
    device, buffers = u64(st[q + Q_VHOST]), u64(st[q + Q_BUFFERS])
    verdict = vhost_scsi.receive(mem, lines, st, st[b + B_CORE], device, buffers, x)
    if verdict in (vhost_scsi.READY, vhost_scsi.FAILED):
        st[q + Q_TAG_FREE] = free
        _count_in(st, q, x)
        st[x + X_LOGGED] = 0
        if st[b + B_LOG]:
            vhost_log.save(st, device, buffers, x)
    if verdict == vhost_scsi.READY:
        st[b + B_COMMAND] = np.int64(x)
        direct = st[u64(st[b + B_LIO]) + target.W_DIRECT]
        return st[K_WORKER_POP] + (st[K_LIO_SUBMIT] if direct else st[K_WORKER_SUBMIT])
    if verdict == vhost_scsi.FAILED:
        carry(tr, row)
        _release(st, tr, x, now)
    elif verdict == vhost_scsi.DROPPED:
        _drop(st, tr, b, row)
    else:
        return st[K_WORKER_POP] + _reply_error(
            mem, lines, st, tr, b, q, head, row, verdict, now
        )
    return st[K_WORKER_POP]


@kernel(inline=True)
def _recheck(mem, lines, st, b, now):
    """vhost_enable_notify(), second half: has the guest published meanwhile (barrier C)?"""
    q = u64(st[b + B_QUEUE])
    device, core = u64(st[q + Q_DEVICE]), st[b + B_CORE]
    if vring.more_avail(mem, lines, st, device, core):
        vring.disable_notify(mem, lines, st, device, core)
        if st[q + Q_LOG]:
            _log_flags(st, q)
        return FETCHES
    _unlock(st, q)
    return _after_work(st, b, now, take_cycles(lines, core))


# -------------------------------------------------------------------------------- completions ----


@kernel(inline=True)
def complete_step(st, tr, w, now):
    """target_complete_ok_work(), on LIO's completion kworker."""
    x = target.take_completed(st, w)
    tr[u64(st[x + X_ROW]) + record.R_REPORT] = now + 1
    _release(st, tr, x, now)
    return target.complete_next(st, w, now)


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
        _release(st, tr, u64(failed), now)


@kernel
def put_tag(st, q, x):
    """vhost_scsi_release_cmd_res(): the command is free for the next request."""
    st[u64(st[q + Q_TAG_LIST]) + u64(st[q + Q_TAG_FREE])] = st[x + X_TAG]
    st[q + Q_TAG_FREE] += 1


@kernel
def _release(st, tr, x, now):
    """vhost_scsi_release_cmd(): push on the completion list, and queue its work."""
    q = u64(st[u64(st[x + X_QUEUE]) + Q_COMPLETER])
    if st[x + X_STATE] > ACTIVE:
        vhost_control.let_go(st, x)
    st[x + X_STATE] = IDLE
    st[x + X_NEXT] = st[q + Q_COMPLETIONS]
    st[q + Q_COMPLETIONS] = np.int64(x)
    if st[q + Q_WORKER] == 0:
        _drop_commands(st, tr, q)
    queue_vq_work(st, q, COMPLETION_WORK, now)


@kernel
def _drop_commands(st, tr, q):
    """vhost_scsi_drop_cmds(): nobody will answer what stands on the completion list."""
    while st[q + Q_COMPLETIONS] >= 0:
        x = u64(st[q + Q_COMPLETIONS])
        st[q + Q_COMPLETIONS] = st[x + X_NEXT]
        st[q + Q_DROPPED] += 1
        tr[u64(st[x + X_ROW]) + record.R_OUTCOME] = record.DROPPED
        put_tag(st, q, x)
        _count_out(st, x)


@kernel(inline=True)
def give_back(mem, lines, st, tr, q, core, head, length, row, now):
    """vhost_add_used(), and when each request became visible; vhost-scsi's length is always 0.

    Returns the cycles that the dirty log takes, if one is kept. In order it is not this request
    that becomes visible but those that were fetched first and waited for no other.
    """
    device = u64(st[q + Q_DEVICE])
    visible = vring.add_used(mem, lines, st, device, core, head, length)
    if st[q + Q_POLLED]:
        wake(st, st[q + Q_IRQ_SLOT], now)
    if not st[device + vring.V_IN_ORDER]:
        tr[row + record.R_USED] = now + 1
        tr[row + record.R_USED_COUNT] += 1
        return _log_used(st, q, device, visible)
    st[q + Q_UNTOLD] += visible
    for _ in range(visible):
        place = st[q + Q_ORDER_HEAD]
        oldest = u64(st[u64(st[q + Q_ORDER_LIST]) + u64(place)])
        tr[oldest + record.R_USED] = now + 1
        tr[oldest + record.R_USED_COUNT] += 1
        st[q + Q_ORDER_HEAD] = wrapped(place + 1, st[q + Q_ORDER_ROOM])
    return _log_used(st, q, device, visible)


@kernel(inline=True)
def _log_used(st, q, device, count):
    if st[q + Q_LOG] == 0:
        return 0
    s = u64(st[q + Q_VHOST])
    return vhost_log.log_used(st, s, st[q + Q_LOG], device, count) * st[K_WORKER_LOG]


@kernel(inline=True)
def signal_wanted(mem, lines, st, q, core):
    """vhost_notify(); where order has held everything back there is nothing to tell."""
    device = u64(st[q + Q_DEVICE])
    if st[device + vring.V_IN_ORDER]:
        if st[q + Q_UNTOLD] == 0:
            return False
        st[q + Q_UNTOLD] = 0
    return vring.signal_needed(mem, lines, st, device, core)


@kernel(inline=True)
def _used(mem, lines, st, tr, b, now):
    """One turn of vhost_scsi_complete_cmd_work(): response, used element, used.idx."""
    x = u64(st[b + B_BATCH])
    q = u64(st[b + B_QUEUE])
    if st[q + Q_INDEX] < VQ_REQUEST_FIRST:
        return _used_other(mem, lines, st, tr, b, q, x, now)
    if st[q + Q_OF_DEVICE]:
        q = u64(st[x + X_QUEUE])
    core = st[b + B_CORE]
    row = u64(st[x + X_ROW])
    delay = 0
    if vhost_scsi.reply(mem, lines, st, core, x, S_OK):
        delay = give_back(mem, lines, st, tr, q, core, st[x + X_HEAD], 0, row, now)
        if st[x + X_LOGGED]:
            delay += _log_command(st, q, x)
        st[b + B_ANSWERED] = 1
        st[q + Q_SIGNAL_DUE] = 1
    else:
        _drop(st, tr, b, row)
    put_tag(st, q, x)
    _count_out(st, x)
    st[b + B_BATCH] = st[x + X_NEXT]
    delay += take_cycles(lines, core)
    if st[b + B_BATCH] >= 0:
        return delay + st[K_WORKER_COMPLETE]
    listed = u64(st[b + B_QUEUE])
    _unlock(st, listed)
    if not st[b + B_ANSWERED]:
        return _after_work(st, b, now, delay)
    st[b + A_STATE] = SIGNAL
    st[b + B_SIGNALLED] = np.int64(q)
    if st[listed + Q_OF_DEVICE]:
        st[b + B_CURSOR] = 0
        _next_due(st, b, u64(st[q + Q_VHOST]))
    return delay


@kernel
def _log_command(st, q, x):
    """The buffers that were noted at the fetch, if LOG_ALL is still acked."""
    if not st[q + Q_LOG_ALL]:
        return 0
    return vhost_log.log_saved(st, u64(st[q + Q_VHOST]), x) * st[K_WORKER_LOG]


# --------------------------------------------------------------- control queue and event queue ----


@kernel
def _tell(mem, lines, st, q, core, now):
    """vhost_signal() for the one entry that was used just now."""
    if signal_wanted(mem, lines, st, q, core):
        st[q + Q_SIGNALS] += 1
        wake(st, st[q + Q_IRQ_SLOT], now + st[K_IRQ_INJECT])
    else:
        st[q + Q_SIGNALS_SUPPRESSED] += 1


@kernel
def _is_silent(st, q, now):
    """Does a kick of this queue end here? Before Linux 4.20 that of the control queue did."""
    s = u64(st[q + Q_VHOST])
    if st[q + Q_INDEX] == VQ_CONTROL:
        return st[s + vhost_scsi.S_BUGS] & vhost_scsi.CONTROL_SILENT != 0
    if st[s + vhost_scsi.S_EVENTS_MISSED]:  # vhost_scsi_evt_handle_kick()
        tell_event(st, s, q, EVENT_NONE, 0, 0, now)
    return True


@kernel
def _control(mem, lines, st, tr, b, q, x, now):
    """vhost_scsi_ctl_handle_vq(): one request, answered at once or handed to LIO."""
    core, row, head = st[b + B_CORE], u64(st[x + X_ROW]), st[x + X_HEAD]
    s, buffers = u64(st[q + Q_VHOST]), u64(st[q + Q_BUFFERS])
    if st[x + X_TAG] < 0:  # more resets than the ring holds, by a guest that cheats
        _drop(st, tr, b, row)
        return st[K_WORKER_POP]
    verdict = vhost_control.receive(mem, lines, st, core, s, buffers, x)
    delay = st[K_WORKER_POP]
    st[x + X_LOGGED] = 0
    if verdict == vhost_control.PENDING:
        st[q + Q_TAG_FREE] -= 1
        _count_in(st, q, x)
        if st[b + B_LOG]:
            vhost_log.save(st, s, buffers, x)
        st[H_NOTICE] |= N_RESET
    elif verdict == vhost_control.ANSWERED:
        carry(tr, row)
        delay += give_back(mem, lines, st, tr, q, core, head, 0, row, now)
        _tell(mem, lines, st, q, core, now)
        if st[b + B_LOG]:
            delay += vhost_log.log_buffers(st, s, buffers) * st[K_WORKER_LOG]
    else:
        _drop(st, tr, b, row)
    return delay


@kernel
def finish_reset(st, x, now):
    """vhost_scsi_release_cmd() of a LUN reset: the worker of the control queue answers it."""
    q = u64(st[x + X_QUEUE])
    if st[q + Q_WORKER] == 0:  # killed: nobody does
        put_tag(st, q, x)
        _count_out(st, x)
        return
    st[x + X_NEXT] = st[q + Q_COMPLETIONS]
    st[q + Q_COMPLETIONS] = np.int64(x)
    queue_vq_work(st, q, COMPLETION_WORK, now)


@kernel
def tell_event(st, s, q, event, lun, reason, now):
    """vhost_scsi_send_evt(): the worker of the event queue `q` shall tell the guest.

    Events are a list last in first out (llist), as completions are.
    """
    e = vhost_control.send(st, s, event, lun, reason)
    if e >= 0:
        st[u64(e) + vhost_control.E_NEXT] = st[q + Q_COMPLETIONS]
        st[q + Q_COMPLETIONS] = e
        queue_vq_work(st, q, COMPLETION_WORK, now)


@kernel
def plug(st, q, lun, reason, now):
    """Control, vhost_scsi_do_plug(): a LUN has come (reason RESCAN) or goes (REMOVED)."""
    s = u64(st[q + Q_VHOST])
    unchecked = st[s + vhost_scsi.S_BUGS] & vhost_scsi.PLUG_UNCHECKED
    if st[s + vhost_scsi.S_HOTPLUG] and (st[q + Q_BACKEND] or unchecked):
        tell_event(st, s, q, EVENT_TRANSPORT_RESET, lun, reason, now)


@kernel
def _used_event(mem, lines, st, b, q, e, now):
    """vhost_scsi_do_evt_work(): one event into a buffer of the guest, told at once."""
    core, s, device = st[b + B_CORE], u64(st[q + Q_VHOST]), u64(st[q + Q_DEVICE])
    delay = 0
    if st[q + Q_BACKEND]:
        head = vhost_control.deliver(mem, lines, st, core, s, device, u64(st[q + Q_BUFFERS]), e)
        if head >= 0:
            visible = vring.add_used(mem, lines, st, device, core, head, 0)
            st[q + Q_UNTOLD] += visible
            delay += _log_used(st, q, device, visible)
            _tell(mem, lines, st, q, core, now)
            if st[q + Q_LOG_ALL] and vhost_log.logs_buffers(st, s):
                delay += vhost_log.log_buffers(st, s, u64(st[q + Q_BUFFERS])) * st[K_WORKER_LOG]
    else:
        st[s + vhost_scsi.S_EVENTS_MISSED] = 1
    st[b + B_BATCH] = st[e + vhost_control.E_NEXT]
    vhost_control.drop(st, s, e)
    delay += take_cycles(lines, core)
    if st[b + B_BATCH] >= 0:
        return delay + st[K_WORKER_COMPLETE]
    _unlock(st, q)
    return _after_work(st, b, now, delay)


@kernel
def _used_other(mem, lines, st, tr, b, q, x, now):
    """One answer of vhost_scsi_tmf_resp_work(), signalled at once; or an event."""
    if st[q + Q_INDEX] == VQ_EVENT:
        return _used_event(mem, lines, st, b, q, x, now)
    core, row = st[b + B_CORE], u64(st[x + X_ROW])
    vhost_control.finish(mem, lines, st, core, x)
    delay = give_back(mem, lines, st, tr, q, core, st[x + X_HEAD], 0, row, now)
    _tell(mem, lines, st, q, core, now)
    if st[x + X_LOGGED]:
        delay += _log_command(st, q, x)
    put_tag(st, q, x)
    _count_out(st, x)
    st[b + B_BATCH] = st[x + X_NEXT]
    delay += take_cycles(lines, core)
    if st[b + B_BATCH] >= 0:
        return delay + st[K_WORKER_COMPLETE]
    _unlock(st, q)
    return _after_work(st, b, now, delay)


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
    return _after_work(st, b, now, delay)


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
    elif state == TAKE or (state == YIELD and _yield(st, b, now)):
        delay = _take(mem, lines, st, b, now)
    elif state == RECHECK:
        delay = _recheck(mem, lines, st, b, now)
    else:
        delay = NEVER  # YIELD: another worker has the CPU now
    if delay == FETCHES:
        delay = _fetch(mem, lines, st, tr, b, now)
    if delay >= NEVER:
        return NEVER
    st[b + A_BUSY] += delay
    return now + delay
