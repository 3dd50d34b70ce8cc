"""What the guest's agents and records are, word by word: vCPUs, queues, tags, LUNs.

Beside the agents: a *unit* is fio's io_u (one of iodepth per job), a *tag* is blk-mq's, one per
ring entry and queue; a command's memory (header, response, indirect table, data) belongs to its
tag.
"""

import numpy as np

from sim.agents import A_FIELDS, A_STATE
from sim.jit import kernel
from sim.layout import PAGE_SIZE

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
    FROZEN,
    WORK,
    POLLED,
) = range(16)
STATES = (
    'done call add kick enter reap wait_events wait_tag sleep irq drain recheck return frozen '
    'work polled'
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
    V_RETRIES,
    V_JOB,  # base of the job whose thread runs here (sim.workload.app)
    V_SUBMITTING,  # how many prepared units the current io_submit still carries
    V_PLUGGED,
    V_PLUG_LEFT,
    V_FROZEN_STATE,  # what a FROZEN vCPU goes on in
    V_FROZEN_LEFT,  # cycles left of that state; if it sleeps, when its timer ends it
    V_WORK,  # base of the kernel thread that polls the queue in the handler, 0 none
    V_HALT_POLL,  # how long KVM polls for it after HLT (vcpu->halt_poll_ns)
    V_HALT_SHRINK,  # by how much it divides that after a long halt, 0: it polls no more
    V_THREADS,  # how many jobs have their thread here, over all phases
    V_THREAD_LIST,
    V_SLICE_SINCE,  # since when the thread in hand has the vCPU
    V_SWITCHES,
) = map(u64, range(A_FIELDS, A_FIELDS + 42))
VCPU_WORDS = A_FIELDS + 42

# A queue as the guest has it: struct virtio_scsi_vq and, of a request queue, its blk-mq hardware
# queue with the tags.
(
    G_DRIVER,
    G_INDEX,  # number of the virtqueue: 0 control, 1 event, request queues from 2 on
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
    G_WAITERS,  # threads asleep in blk_mq_get_tag, first in first out, as jobs
    G_WAITER_HEAD,
    G_WAITER_LIST,
    G_WAITER_ROOM,
    G_ROW_OF_HEAD,  # trace only: row of the request that a head stands for
    G_HANDLERS,
    G_THREAD,  # control, event: base of the kernel thread that its buffers go to
    G_POLLED,  # it has no vector, whoever waits polls it
    G_POLLERS,
    G_POLLER_LIST,  # the vCPUs that do
    G_BELL,  # where a device that polls is rung for (sim.user.fields), 0: nobody polls
    G_FREEZE,  # blk_mq_freeze_queue(): no request begins
) = map(u64, range(31))
GUEST_QUEUE_WORDS = 31

# What a queue has for its vCPU: its vector, or requests that may be tried again; a kernel thread
# has work.
NOTHING, VECTOR, RUN_QUEUE, WORK_WAITS = range(4)

# A kernel thread of the driver: the error handler, the event work. It is pended on its vCPU like a
# queue, so that its stretch begins with the words of one; then these.
(
    W_KIND,
    W_PHASE,
    W_QUEUE,  # base of the queue that it serves
    W_COUNT,  # what waits for it, first in first out: tasks; buffers that came back
    W_HEAD,
    W_ROOM,
    W_LIST,
    W_TASK,  # the task in hand, -1 none; the buffer
    W_NEXT,  # index of the request queue that it polls next
    W_QUEUES,
    W_QUEUE_LIST,  # all request queues
    W_LUNS,
    W_LUN_LIST,
    W_MEMORY,  # where its buffers are in guest memory
    W_KICKS,
    W_END,  # event work: the scan ends before this LUN
    W_HANDLED,  # how many events; the last W_LOG_ROOM of them stand in the log
    W_LOG,
    W_LOG_ROOM,
    W_ROW,  # the trace's scratch row, for its commands
) = map(u64, range(GUEST_QUEUE_WORDS, GUEST_QUEUE_WORDS + 20))
THREAD_WORDS = GUEST_QUEUE_WORDS + 20
ERROR_HANDLER, EVENT_WORK = range(2)
SEND, NOTIFY, AWAIT, POLL = range(4)  # phases of the error handler
HANDLE, SCAN, INQUIRED, JUDGE, REFILL, TELL = range(6)  # and of the event work

# A handled event in the log: when, the words of struct virtio_scsi_event, what came of it.
EV_TIME, EV_EVENT, EV_TARGET, EV_LUN, EV_REASON, EV_INQUIRIES = map(u64, range(6))
LOG_WORDS = 6

EVENT_BUFFERS = 8  # VIRTIO_SCSI_EVENT_LEN
INQUIRY_UNIT = -1  # in place of a unit: the scan's INQUIRY, on the tag behind those of blk-mq

# A task of the error handler: a request on the control queue.
(
    TASK_ROW,  # its row in the trace
    TASK_TYPE,  # T_TMF, T_AN_QUERY, T_AN_SUBSCRIBE
    TASK_SUBTYPE,  # of a TMF; events asked for of an AN
    TASK_TARGET,
    TASK_LUN,
    TASK_DEVICE,  # base of the guest's LUN, 0: it knows none there
    TASK_HOLDS,  # no other command goes to the host meanwhile (tmf_in_progress)
    TASK_RESPONSE,  # -1: none yet
) = map(u64, range(8))
TASK_WORDS = 8
NO_RESPONSE = -1

# A tag.
(
    T_ROW,
    T_JOB,  # of the thread that waits for it; of an INQUIRY the event work
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
    L_FULL_DEPTH,  # L_DEPTH while nothing holds the LUN back; 0: the guest knows of no such LUN
    L_CMD_PER_LUN,  # L_FULL_DEPTH while it does
    L_HOST,  # base of the cap on the commands of all LUNs, 0: there is none
) = map(u64, range(10))
LUN_WORDS = 10

# That cap (struct Scsi_Host: host_busy, can_queue).
(
    S_BUSY,
    S_CAN_QUEUE,
    S_STARVED,  # requests wait somewhere because of it
) = map(u64, range(3))
HOST_WORDS = 3

RESP_OFFSET = 59  # struct virtio_scsi_cmd: the response follows the larger, PI form of the request
AIO_PLUG_THRESHOLD = 2  # fs/aio.c, io_uring.c: a submission of more than two plugs
BLOCKS_PER_PAGE = PAGE_SIZE // 512
PLUG_MAX = 32  # block/blk.h BLK_MAX_REQUEST_COUNT: a plug is flushed at this many


# ------------------------------------------------------------------------------- what they say ----


@kernel(inline=True)
def job_of(st, v):
    """The job whose thread runs on the vCPU."""
    return u64(st[v + V_JOB])


@kernel(inline=True)
def tag_base(st, q, tag):
    """Where tag `tag` of a queue stands."""
    return u64(st[q + G_TAGS]) + TAG_WORDS * u64(tag)


@kernel(inline=True)
def stamp_of(st, q, tag, block):
    """Where the stamp of a block of the tag's data stands."""
    return u64(st[q + G_DATA] + st[q + G_DATA_STRIDE] * tag) + u64(512) * u64(block)


@kernel(inline=True)
def is_asleep(state):
    """Is a thread in this state off the CPU, or as good as that: polling in vain?"""
    return state in (DONE, WAIT_EVENTS, WAIT_TAG, SLEEP, POLLED)


@kernel(inline=True)
def has_budget(st, lun):
    """May one more command go to the LUN: scsi_dev_queue_ready(), scsi_host_queue_ready()?"""
    if st[lun + L_BUSY] >= st[lun + L_DEPTH]:
        return False
    return not st[lun + L_HOST] or _host_has(st, u64(st[lun + L_HOST]))


@kernel
def _host_has(st, s):
    if st[s + S_BUSY] < st[s + S_CAN_QUEUE]:
        return True
    st[s + S_STARVED] = 1
    return False


@kernel(inline=True)
def take_budget(st, lun):
    """A command goes to the LUN."""
    st[lun + L_BUSY] += 1
    if st[lun + L_HOST]:
        st[u64(st[lun + L_HOST]) + S_BUSY] += 1


@kernel(inline=True)
def put_budget_back(st, lun):
    """A command is back that will be sent again at once."""
    st[lun + L_BUSY] -= 1
    if st[lun + L_HOST]:
        st[u64(st[lun + L_HOST]) + S_BUSY] -= 1


@kernel(inline=True)
def give_budget(st, lun):
    """A command is back: is there somebody who waits for that?"""
    put_budget_back(st, lun)
    starved = st[lun + L_STARVED]
    if st[lun + L_HOST]:
        s = u64(st[lun + L_HOST])
        starved |= st[s + S_STARVED]
        st[s + S_STARVED] = 0
    return starved


@kernel(inline=True)
def is_halted(st, v):
    """Has the guest nothing to run on this vCPU (HLT)?"""
    state = st[v + A_STATE]
    return not st[v + V_IN_HANDLER] and is_asleep(state) and state != POLLED


@kernel(inline=True)
def is_open(st, v):
    """May an interrupt be taken now?"""
    state = st[v + A_STATE]
    return not st[v + V_IN_HANDLER] and (state in (CALL, ADD, REAP) or is_asleep(state))
