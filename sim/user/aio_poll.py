"""The event loop of a QEMU IOThread: aio_poll(), with adaptive polling (util/aio-posix.c).

A turn polls first: every handler that was ready before is asked (virtio_queue_empty; the ring of
linux-aio in user memory) for as long as the longest of their polling times lasts. Only when that
brings nothing, the thread asks for kicks again and sleeps until an eventfd is readable. While it
polls, the guest does not kick and the disk's eventfd need not wake anybody; WAIT_POLLING stands for
the rounds in which there is nothing, as PARKED does in sim.user.reactor.

Polling adapts (adjust_polling_time): a handler that was ready within its polling time leaves it
alone; one for which the thread had to wait longer than poll-max-ns shrinks it to 0 or by
poll-shrink; any other lets it grow, from 4 us on, by poll-grow or twofold. From QEMU 10.0 on each
handler has a polling time, before there is one for all.

The file descriptor monitor is io_uring's: with ppoll or epoll the event virtqueue, which has no
polling handler, would keep the whole thread from polling. sim.user.iothread draws the life of the
thread; its words are named here.
"""

import numpy as np

from sim.agents import (
    A_BUSY,
    A_STATE,
    H_NOTICE,
    K_IOTHREAD_ROUND,
    K_IOTHREAD_TURN,
    N_STOPPED,
    NEVER,
    SILENT,
)
from sim.backend import (
    Q_KICK_QUEUED,
    Q_WORKER,
)
from sim.jit import kernel
from sim.memory import take_cycles
from sim.user import scsi as user_scsi
from sim.user.fields import (
    ASKED,
    LAST,
    STANDS,
    T_ASLEEP,
    T_BELL,
    T_CORE,
    T_DONE,
    T_DONE_FIRED,
    T_IDLE_FROM,
    T_QUEUE_LIST,
    T_QUEUES,
    T_SLOT,
    T_SPUN,
    T_STOP,
    THREAD_FIELDS,
    next_round,
    rouse,
)
from sim.user.scsi import Q_POLL_TIME, Q_READY, Q_WATCHED

u64 = np.uint64

TURN, LOOK, WAIT_POLLING, ARM, CHECK, ENTER, SLEEP = range(7)
RUN, POP, RECHECK, SUBMIT, ISSUE, USED, DECIDE, CALL = range(7, 15)
STATES = (
    'turn look wait_polling arm check enter sleep run pop recheck submit issue used decide call'
).split()

(
    I_SINCE,  # when this turn began
    I_BLOCKED,  # how long it took until something was ready (block_ns)
    I_POLL_UNTIL,
    I_POLL_MAX,  # poll-max-ns, poll-grow, poll-shrink; all times in cycles
    I_POLL_GROW,
    I_POLL_SHRINK,
    I_POLL_START,  # the 4 us from which it grows
    I_SHARED,  # 1: one polling time for all (before QEMU 10.0)
    I_DEFERS,  # 1: one eventfd write per batch (from QEMU 8.2 on)
    I_POLLING,  # ctx->poll_started: kicks are suppressed on all that are polled
    I_DISK_TIME,  # the polling time of linux-aio's handler, or of all
    I_DISK_POLLED,
    I_DISK_READY,
    I_NEXT,  # index of the virtqueue that is looked at next
    I_QUEUE,  # the virtqueue whose handler runs
    I_SUPPRESSES,  # its handler has switched kicks off by itself
    I_POPPED,  # list of commands that are prepared, first in first out, -1 empty
    I_POPPED_TAIL,
    I_PENDING,  # list of commands in linux-aio's queue
    I_PENDING_TAIL,
    I_PENDING_COUNT,
    I_LEFT,  # commands left of the io_submit() that is under way
    I_POLLS_WON,  # turns in which polling found something
    I_POLLS_LOST,
    I_BATCHES,  # calls of io_submit()
) = map(u64, range(THREAD_FIELDS, THREAD_FIELDS + 25))
IOTHREAD_WORDS = THREAD_FIELDS + 25


@kernel
def kick(st, q, now, cost):
    """The ioeventfd of a virtqueue becomes readable (virtio_queue_host_notifier_read).

    True where the thread sleeps, which takes the caller `cost` cycles more.
    """
    i = u64(st[q + Q_WORKER])
    st[q + Q_KICK_QUEUED] = 1
    if not st[i + T_ASLEEP] or now <= st[i + T_IDLE_FROM]:
        rouse(st, i, now)
        return False
    rouse(st, i, now + cost)
    return True


@kernel(inline=True)
def queue_of(st, i, index):
    """Base of the virtqueue with that index."""
    return u64(st[u64(st[i + T_QUEUE_LIST]) + u64(index)])


@kernel
def set_polling(mem, lines, st, i, on):
    """poll_set_started(): kicks off or on for every virtqueue that is polled."""
    if st[i + I_POLLING] == on:
        return
    st[i + I_POLLING] = on
    for index in range(st[i + T_QUEUES]):
        q = queue_of(st, i, index)
        if st[q + Q_WATCHED]:
            if on:
                user_scsi.disable_notify(mem, lines, st, q, st[i + T_CORE])
            else:
                user_scsi.enable_notify(mem, lines, st, q, st[i + T_CORE])


@kernel
def _polling_time(st, i):
    """The longest polling time of the handlers that are polled; 0: the turn does not poll."""
    if st[i + I_SHARED]:
        return st[i + I_DISK_TIME]
    longest = st[i + I_DISK_TIME] if st[i + I_DISK_POLLED] else np.int64(0)
    for index in range(st[i + T_QUEUES]):
        q = queue_of(st, i, index)
        if st[q + Q_WATCHED]:
            longest = max(longest, st[q + Q_POLL_TIME])
    return longest


@kernel
def turn(mem, lines, st, i, now):
    """aio_poll() begins: poll, or go straight into the system call."""
    st[i + I_SINCE] = now
    if st[i + T_STOP] and detach(st, i):
        return np.int64(0)
    time = _polling_time(st, i)
    if time == 0:
        st[i + A_STATE] = ARM if st[i + I_POLLING] else ENTER
        return np.int64(0)
    set_polling(mem, lines, st, i, 1)
    st[i + I_POLL_UNTIL] = now + time
    st[i + A_STATE] = LOOK
    return st[K_IOTHREAD_ROUND] + take_cycles(lines, st[i + T_CORE])


@kernel
def detach(st, i):
    """virtio_scsi_dataplane_stop_vq_bh(): no virtqueue is watched any more.

    One that has been kicked for is served a last time, which True says.
    """
    if st[i + T_STOP] == LAST:
        st[i + T_STOP] = STANDS
        st[H_NOTICE] |= N_STOPPED
    if st[i + T_STOP] == STANDS:
        return False
    st[i + T_STOP] = LAST
    for index in range(st[i + T_QUEUES]):
        q = queue_of(st, i, index)
        st[q + Q_WATCHED] = 0
        st[q + Q_READY] = st[q + Q_KICK_QUEUED]
        st[q + Q_KICK_QUEUED] = 0
    st[i + I_NEXT] = 0
    st[i + A_STATE] = RUN
    return True


@kernel
def _anything(mem, lines, st, i):
    """run_poll_handlers_once(): which of the polled handlers are ready? False for none."""
    found = False
    if st[i + I_DISK_POLLED] and st[i + T_DONE] >= 0:
        st[i + I_DISK_READY] = 1
        found = True
    for index in range(st[i + T_QUEUES]):
        q = queue_of(st, i, index)
        if st[q + Q_WATCHED] and user_scsi.more_avail(mem, lines, st, q, st[i + T_CORE]):
            st[q + Q_READY] = 1
            found = True
    return found


@kernel
def look(mem, lines, st, i, now):
    """One round of polling; where it finds nothing, those that follow it are skipped."""
    if _anything(mem, lines, st, i):
        st[i + I_POLLS_WON] += 1
        return becomes_ready(st, i, now) + take_cycles(lines, st[i + T_CORE])
    if st[i + T_STOP] == ASKED:
        st[i + A_STATE] = TURN
        return take_cycles(lines, st[i + T_CORE])
    if now >= st[i + I_POLL_UNTIL]:
        st[i + I_POLLS_LOST] += 1
        st[i + A_STATE] = ARM
        return take_cycles(lines, st[i + T_CORE])
    st[i + A_STATE] = WAIT_POLLING
    st[i + T_BELL] = st[i + T_SLOT] + 1
    st[i + T_IDLE_FROM] = now
    return st[i + I_POLL_UNTIL] - now


@kernel
def rung(st, i, now):
    """Rung for, or the time is up: the next round of polling."""
    st[i + T_BELL] = SILENT
    begins = next_round(now, st[i + T_IDLE_FROM], max(st[K_IOTHREAD_ROUND], 1))
    begins = max(min(begins, st[i + I_POLL_UNTIL]), now)
    st[i + T_SPUN] += begins - st[i + T_IDLE_FROM]
    st[i + A_STATE] = LOOK
    return begins


@kernel
def arm(mem, lines, st, i):
    """Polling ends: ask for kicks (first half of barrier C)."""
    set_polling(mem, lines, st, i, 0)
    st[i + A_STATE] = CHECK
    return take_cycles(lines, st[i + T_CORE])


@kernel
def enter(mem, lines, st, i, looks, now):
    """The system call: which eventfds are readable? Behind ARM it `looks` before (second half)."""
    ready = looks and _anything(mem, lines, st, i)
    ready = read_eventfds(st, i) or ready
    delay = take_cycles(lines, st[i + T_CORE])
    if ready:
        return delay + st[K_IOTHREAD_TURN] + becomes_ready(st, i, now)
    if st[i + T_STOP] == ASKED:  # the notifier of the context is readable
        st[i + A_STATE] = TURN
        return delay + st[K_IOTHREAD_TURN]
    st[i + A_STATE] = SLEEP
    st[i + T_ASLEEP] = 1
    st[i + T_IDLE_FROM] = now + delay
    st[i + A_BUSY] += delay
    return NEVER


@kernel
def read_eventfds(st, i):
    """Handlers whose eventfd is readable; reading it makes it silent."""
    found = False
    if st[i + T_DONE_FIRED]:
        st[i + T_DONE_FIRED] = 0
        st[i + I_DISK_READY] = 1
        found = True
    if st[i + T_STOP]:
        return found
    for index in range(st[i + T_QUEUES]):
        q = queue_of(st, i, index)
        if st[q + Q_KICK_QUEUED]:
            st[q + Q_KICK_QUEUED] = 0
            st[q + Q_READY] = 1
            found = True
    return found


@kernel
def becomes_ready(st, i, now):
    """Handlers are ready: how long has the thread waited for them?"""
    st[i + I_BLOCKED] = now - st[i + I_SINCE]
    if st[i + I_SHARED] and st[i + I_POLL_MAX]:
        st[i + I_DISK_TIME] = adjusted(st, i, st[i + I_DISK_TIME])
    st[i + I_NEXT] = 0
    st[i + A_STATE] = RUN
    return np.int64(0)


@kernel
def adjusted(st, i, time):
    """adjust_polling_time(): the polling time after this turn."""
    blocked, most = st[i + I_BLOCKED], st[i + I_POLL_MAX]
    if blocked <= time:
        return time
    if blocked > most:
        shrink = st[i + I_POLL_SHRINK]
        return time // shrink if shrink else np.int64(0)
    if time < most and blocked < most:
        grow = st[i + I_POLL_GROW] if st[i + I_POLL_GROW] else np.int64(2)
        return min(time * grow if time else st[i + I_POLL_START], most)
    return time
