"""The words of a vhost worker and of a virtqueue as the host has it, in one place (sim.backend)."""

import numpy as np

from sim.agents import A_FIELDS

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
    Q_REGION,  # its in-flight region (sim.vhost.inflight), 0: none is agreed on
    Q_COUNTER,  # counter of the next request in the region
    Q_RESUBMITS,  # heads left to be submitted again
    Q_RESUBMIT_LIST,  # they stand from word 1 on, the oldest last
) = map(u64, range(39))
HOST_QUEUE_WORDS = 39
