"""The driver's event work: virtscsi_handle_event() for each buffer that comes back, one at a time.

drivers/scsi/virtio_scsi.c. The life of one event:

    HANDLE -> (SCAN -> INQUIRED -> JUDGE ->) REFILL -> TELL -> the next event or sleep
    read the event | INQUIRY, and what it says | virtscsi_kick_event(): add | kick_prepare, notify

TRANSPORT_RESET with RESCAN looks at its LUN (scsi_add_device), with REMOVED forgets it
(scsi_remove_device); EVENTS_MISSED looks at every LUN (virtscsi_rescan_hotunplug, scsi_scan_host).
An INQUIRY goes to the host like any other command, on a tag of its own through the dispatch list of
the first request queue. Of all that a scan asks it is the one command that is sent here.
"""

import numpy as np

from sim import record, vring
from sim.driver import complete as guest_complete
from sim.driver import handler as guest_handler
from sim.driver import vectors as guest_vectors
from sim.driver import work as guest_work
from sim.driver.fields import (
    EV_EVENT,
    EV_INQUIRIES,
    EV_LUN,
    EV_REASON,
    EV_TARGET,
    EV_TIME,
    EVENT_BUFFERS,
    G_BUFFERS,
    G_DATA,
    G_DATA_STRIDE,
    G_DRIVER,
    G_HEADER_STRIDE,
    G_HEADERS,
    G_LOCK_UNTIL,
    G_NUM,
    G_VECTOR_PENDING,
    HANDLE,
    INQUIRED,
    INQUIRY_UNIT,
    JUDGE,
    L_CMD_PER_LUN,
    L_DEPTH,
    L_FULL_DEPTH,
    L_NUMBER,
    L_TARGET,
    LOG_WORDS,
    NOTHING,
    ONE,
    REFILL,
    RESP_OFFSET,
    RUN_QUEUE,
    SCAN,
    T_BLOCKS,
    T_JOB,
    T_LBA,
    T_LUN,
    T_OP,
    T_ROW,
    T_SEGMENTS,
    T_SERIAL,
    T_UNIT,
    TELL,
    V_CORE,
    W_COUNT,
    W_END,
    W_HANDLED,
    W_KICKS,
    W_LOG,
    W_LOG_ROOM,
    W_LUN_LIST,
    W_LUNS,
    W_MEMORY,
    W_NEXT,
    W_PHASE,
    W_QUEUE,
    W_QUEUE_LIST,
    W_ROW,
    W_TASK,
    tag_base,
)
from sim.jit import kernel
from sim.layout import (
    EVENT_SIZE,
    EVENT_TRANSPORT_RESET,
    EVENTS_MISSED,
    RESET_REMOVED,
    RESET_RESCAN,
    RESP_RESPONSE,
    RESP_STATUS,
)
from sim.memory import bare, load32, take_cycles, touch_load
from sim.se_cmd import OP_INQUIRY

u64 = np.uint64

# Peripheral qualifier of INQUIRY data: 0 where a device is connected.
QUALIFIER_SHIFT = 5


@kernel
def step(mem, lines, st, tr, v, w, now):
    """One step of the event work `w` on vCPU `v`."""
    phase = st[w + W_PHASE]
    if phase == HANDLE:
        return _handle(mem, lines, st, v, w, now)
    if phase == SCAN:
        return _scan(st, tr, v, w, now)
    if phase == JUDGE:
        return _judge(mem, lines, st, v, w, now)
    if phase == REFILL:
        return _refill(mem, lines, st, v, w, now)
    if phase == TELL:
        st[w + W_PHASE] = HANDLE
        return guest_work.notify(mem, lines, st, v, w, now)
    return guest_work.sleep(st, v)  # INQUIRED: another event has woken it, which must wait


@kernel
def _handle(mem, lines, st, v, w, now):
    """What does the next event say?"""
    if st[w + W_COUNT] == 0:
        return guest_work.sleep(st, v)
    buffer = guest_work.take(st, w)
    st[w + W_TASK] = buffer
    at = u64(st[w + W_MEMORY] + EVENT_SIZE * buffer)
    touch_load(lines, st[v + V_CORE], at, EVENT_SIZE)
    event, reason = load32(mem, at), load32(mem, at + u64(12))
    target = np.int64(mem[at + u64(5)])
    lun = (np.int64(mem[at + u64(6)]) << 8) | np.int64(mem[at + u64(7)])  # without a mask
    log = u64(st[w + W_LOG] + LOG_WORDS * (st[w + W_HANDLED] % st[w + W_LOG_ROOM]))
    st[w + W_HANDLED] += 1
    st[log + EV_TIME] = now
    st[log + EV_EVENT] = event
    st[log + EV_TARGET] = target
    st[log + EV_LUN] = lun
    st[log + EV_REASON] = reason
    st[log + EV_INQUIRIES] = 0
    st[w + W_PHASE] = REFILL
    st[w + W_NEXT] = 0
    st[w + W_END] = 0
    if event & EVENTS_MISSED:
        st[w + W_END] = st[w + W_LUNS]
        st[w + W_PHASE] = SCAN
    elif event == EVENT_TRANSPORT_RESET:
        _look_for(st, w, target, lun, reason, now)
    return take_cycles(lines, st[v + V_CORE])


@kernel
def _look_for(st, w, target, number, reason, now):
    """virtscsi_handle_transport_reset(): which LUN is it about?"""
    for i in range(st[w + W_LUNS]):
        lun = u64(st[u64(st[w + W_LUN_LIST]) + u64(i)])
        if st[lun + L_TARGET] == target and st[lun + L_NUMBER] == number:
            if reason == RESET_RESCAN:
                st[w + W_NEXT] = i
                st[w + W_END] = i + 1
                st[w + W_PHASE] = SCAN
            elif reason == RESET_REMOVED:
                _forget(st, lun, now)


@kernel
def _forget(st, lun, now):
    """scsi_remove_device(): what waits for the LUN, and what comes, finds no device."""
    st[lun + L_FULL_DEPTH] = 0
    st[lun + L_DEPTH] = 0
    guest_complete.run_starved(st, lun, u64(0), now)


@kernel
def _scan(st, tr, v, w, now):
    """scsi_probe_lun(): an INQUIRY to the next LUN, through the hardware queue's dispatch list."""
    if st[w + W_NEXT] == st[w + W_END]:
        st[w + W_PHASE] = REFILL
        return 0
    q = u64(st[u64(st[w + W_QUEUE_LIST])])
    tag = st[q + G_NUM]  # behind those of blk-mq
    t = tag_base(st, q, tag)
    st[t + T_ROW] = st[w + W_ROW]
    st[t + T_JOB] = np.int64(w)
    st[t + T_UNIT] = INQUIRY_UNIT
    st[t + T_OP] = OP_INQUIRY
    st[t + T_LBA] = 0
    st[t + T_SERIAL] = 0
    st[t + T_BLOCKS] = 1
    st[t + T_SEGMENTS] = 1
    st[t + T_LUN] = st[u64(st[w + W_LUN_LIST]) + u64(st[w + W_NEXT])]
    tr[u64(st[t + T_ROW]) + record.R_OUTCOME] = record.UNFINISHED
    guest_handler.wait_in_line(st, q, tag, False)
    st[w + W_PHASE] = INQUIRED
    st[_log(st, w) + EV_INQUIRIES] += 1
    if st[q + G_VECTOR_PENDING] == NOTHING:
        st[q + G_VECTOR_PENDING] = RUN_QUEUE
        guest_vectors.pend(st, q, now, 0)
    return guest_work.sleep(st, v)


@kernel
def _log(st, w):
    """The entry of the event in hand."""
    return u64(st[w + W_LOG] + LOG_WORDS * ((st[w + W_HANDLED] - 1) % st[w + W_LOG_ROOM]))


@kernel
def _judge(mem, lines, st, v, w, now):
    """Is there a device? Good status, and a peripheral qualifier that says connected."""
    q = u64(st[u64(st[w + W_QUEUE_LIST])])
    tag = st[q + G_NUM]
    lun = u64(st[tag_base(st, q, tag) + T_LUN])
    at = u64(st[q + G_HEADERS] + st[q + G_HEADER_STRIDE] * tag + RESP_OFFSET)
    data = u64(st[q + G_DATA] + st[q + G_DATA_STRIDE] * tag)
    touch_load(lines, st[v + V_CORE], data, 36)
    good = mem[at + RESP_STATUS] == 0 and mem[at + RESP_RESPONSE] == 0
    if good and np.int64(mem[data]) >> QUALIFIER_SHIFT == 0:
        if st[lun + L_FULL_DEPTH] == 0:  # scsi_add_lun()
            st[lun + L_FULL_DEPTH] = st[lun + L_CMD_PER_LUN]
            st[lun + L_DEPTH] = st[lun + L_CMD_PER_LUN]
    elif st[lun + L_FULL_DEPTH]:
        _forget(st, lun, now)
    st[w + W_NEXT] += 1
    st[w + W_PHASE] = SCAN
    return take_cycles(lines, st[v + V_CORE])


@kernel
def _refill(mem, lines, st, v, w, now):
    """virtscsi_kick_event(): the buffer goes back into the event queue."""
    g = u64(st[w + W_QUEUE])
    if now < st[g + G_LOCK_UNTIL]:
        return st[g + G_LOCK_UNTIL] - now
    add_buffer(mem, lines, st, g, st[w + W_MEMORY], st[w + W_TASK], st[v + V_CORE])
    delay = take_cycles(lines, st[v + V_CORE])
    st[g + G_LOCK_UNTIL] = now + delay
    st[w + W_PHASE] = TELL
    return delay


@kernel
def add_buffer(mem, lines, st, g, memory, buffer, core):
    """virtqueue_add_inbuf() of one of the buffers at `memory`; a broken ring loses it."""
    b = u64(st[g + G_BUFFERS])
    st[b + vring.B_OUT] = 0
    st[b + vring.B_IN] = 1
    st[b + vring.B_ENTRIES] = memory + EVENT_SIZE * buffer
    st[b + vring.B_ENTRIES + ONE] = EVENT_SIZE
    vring.add(mem, lines, st, u64(st[g + G_DRIVER]), core, b, buffer, 0)


@kernel
def fill(memory, ownership, state, g, w):
    """virtscsi_kick_event_all(), at probe: every buffer with its own kick decision.

    Those kicks found a host with nothing to tell; only W_KICKS remembers them.
    """
    mem, lines, st = bare(memory), bare(ownership), bare(state)
    for buffer in range(EVENT_BUFFERS):
        add_buffer(mem, lines, st, g, st[w + W_MEMORY], buffer, 0)
        if vring.kick_prepare(mem, lines, st, u64(st[g + G_DRIVER]), 0):
            st[w + W_KICKS] += 1
    take_cycles(lines, 0)
