"""What vhost-scsi does with its control and its event queue.

drivers/vhost/scsi.c. Of the task management functions only LOGICAL UNIT RESET is done, by LIO and
in its time (sim.control.resets); every other one is rejected at once, and an asynchronous
notification (AN) queried or subscribed to is answered with no event, whatever the target.

    receive    vhost_scsi_ctl_handle_vq(): one request; PENDING where LIO has it now
    finish     vhost_scsi_tmf_resp_work(): the answer of a LUN reset
    send       vhost_scsi_allocate_evt(): what there is to tell
    deliver    vhost_scsi_do_evt_work(): an event goes into a buffer of the guest, or is missed
"""

import numpy as np

from sim import scsi, vring
from sim.agents import H_NOTICE, N_RESET
from sim.jit import kernel
from sim.layout import (
    AN_REQ_SIZE,
    AN_RESP_SIZE,
    EVENT_SIZE,
    EVENTS_MISSED,
    S_BAD_TARGET,
    S_FUNCTION_REJECTED,
    S_FUNCTION_SUCCEEDED,
    S_OK,
    T_AN_QUERY,
    T_AN_SUBSCRIBE,
    T_TMF,
    TMF_LOGICAL_UNIT_RESET,
    TMF_REQ_SIZE,
    TMF_RESP_SIZE,
)
from sim.lio import lun as unit
from sim.lio import ports
from sim.lio.command import ONE, TWO
from sim.memory import store32, store64, touch_store
from sim.se_cmd import (
    ACTIVE,
    X_LEFT,
    X_LUN,
    X_NEXT,
    X_RESID,
    X_RESPONSE,
    X_SENSE,
    X_STATE,
    X_STATUS,
)
from sim.vhost import scsi as vhost_scsi
from sim.vhost.scsi import (
    S_EVENT_FREE,
    S_EVENTS_MISSED,
    S_EVENTS_NR,
    S_KERNEL,
    S_RESETS,
    S_TARGETS,
    gathered,
    swapped,
)

u64 = np.uint64

# What becomes of a request. Elsewhere DROPPED is nothing's answer.
ANSWERED, PENDING, DROPPED = range(3)
RESET = -1  # in place of a response code: LIO resets the LUN first

# An event on the host (struct vhost_scsi_evt).
E_NEXT, E_EVENT, E_LUN, E_REASON = map(u64, range(4))
EVENT_WORDS = 4
EVENTS_MAX = 128  # VHOST_SCSI_MAX_EVENT; the check is for more, so that one more fits
NO_BUFFER, NO_EVENT = -1, -1


# ------------------------------------------------------------------------------- control queue ----


@kernel
def parse(mem, st, s, buffers):
    """A request of the control queue: (response code or RESET, bytes of the response, the LUN).

    The LUN is the base of its stretch, 0 for none; 0 bytes: the request is dropped.
    """
    out, into = st[buffers + vring.B_OUT_BYTES], st[buffers + vring.B_IN_BYTES]
    entry, nothing = buffers + vring.B_ENTRIES, np.int64(0)
    if out < 4:
        return S_OK, 0, nothing
    kind = swapped(gathered(mem, st, entry, np.int64(0), 4) << 32)
    if kind == T_TMF:
        need, size, place = TMF_REQ_SIZE, TMF_RESP_SIZE, 8
    elif kind in (T_AN_QUERY, T_AN_SUBSCRIBE):
        need, size, place = AN_REQ_SIZE, AN_RESP_SIZE, 4
    else:
        return S_OK, 0, nothing
    if into < size:
        return S_OK, 0, nothing
    if out < need:
        return S_BAD_TARGET, size, nothing
    address = gathered(mem, st, entry, np.int64(place), 8)
    if (address >> 56) & 0xFF != 1:
        return S_BAD_TARGET, size, nothing
    if kind != T_TMF:
        return S_OK, size, nothing
    target = ports.find_target(st, st[s + S_TARGETS], (address >> 48) & 0xFF)
    if target == 0:
        return S_BAD_TARGET, size, nothing
    subtype = swapped(gathered(mem, st, entry, np.int64(4), 4) << 32)
    if subtype != TMF_LOGICAL_UNIT_RESET:
        return S_FUNCTION_REJECTED, size, nothing
    return RESET, size, ports.find_lun(st, u64(target), (address >> 32) & 0x3FFF)


@kernel
def _answer(mem, lines, core, at, code, size):
    """The response byte, the last of `size`; those of an AN before it say that nothing happened."""
    touch_store(lines, core, at, size)
    for i in range(size - 1):
        mem[u64(at) + u64(i)] = 0
    mem[u64(at) + u64(size - 1)] = code


@kernel
def receive(mem, lines, st, core, s, buffers, x):
    """A chain of the control queue: ANSWERED, PENDING with LIO as command `x`, or DROPPED.

    Linux 6.1 answers BAD_TARGET with the 108 bytes of a command's response, whatever the room:
    their first byte is 0, which reads as success.
    """
    code, size, lun = parse(mem, st, s, buffers)
    if size == 0:
        return DROPPED
    at = st[buffers + vring.B_ENTRIES + TWO * u64(st[buffers + vring.B_OUT])]
    if code == RESET:
        st[x + X_LUN] = lun
        st[x + X_LEFT] = 0
        st[x + X_RESPONSE] = at
        st[x + X_NEXT] = st[s + S_RESETS]
        st[s + S_RESETS] = np.int64(x)
        return PENDING
    if code == S_BAD_TARGET and st[s + S_KERNEL] < 612:
        sent = vhost_scsi.send_error(mem, lines, st, core, s, buffers, S_BAD_TARGET, scsi.GOOD)
        return ANSWERED if sent else DROPPED
    _answer(mem, lines, core, at, code, size)
    return ANSWERED


@kernel
def abort(st, reset, commands, stride, count):
    """core_tmr_drain_state_list() over the commands of one queue: those with LIO are aborted.

    The LUN reset `reset` waits for each (X_LEFT); they go on to the disk and back all the same.
    """
    for i in range(count):
        x = u64(commands + stride * i)
        if st[x + X_STATE] == ACTIVE and st[x + X_LUN] == st[reset + X_LUN]:
            st[x + X_STATE] = np.int64(reset)
            st[reset + X_LEFT] += 1


@kernel
def let_go(st, x):
    """The last reference to an aborted command is dropped: its session hears neither error nor
    data missing, it is answered with the status that nobody has set, GOOD.
    """
    st[x + X_STATUS] = scsi.GOOD
    st[x + X_SENSE] = scsi.SENSE_NONE
    st[x + X_RESID] = 0
    reset = u64(st[x + X_STATE])
    st[reset + X_LEFT] -= 1
    if st[reset + X_LEFT] == 0:
        st[H_NOTICE] |= N_RESET


@kernel
def reset(st, lun):
    """What TMR_LUN_RESET does once the LUN's commands are gone; the response code."""
    if lun == 0:  # the virtual LUN 0 has no reset either
        return S_FUNCTION_REJECTED
    unit.reset(st, u64(lun))
    return S_FUNCTION_SUCCEEDED


@kernel
def finish(mem, lines, st, core, x):
    """Write the answer of the LUN reset `x`, whose code LIO has left in X_STATUS."""
    _answer(mem, lines, core, st[x + X_RESPONSE], st[x + X_STATUS], TMF_RESP_SIZE)


# --------------------------------------------------------------------------------- event queue ----


@kernel
def send(st, s, event, lun, reason):
    """vhost_scsi_allocate_evt(): the event, or NO_EVENT where too many wait: it counts as missed.

    `lun` are the eight bytes of the LUN field as a little-endian number.
    """
    if st[s + S_EVENTS_NR] > EVENTS_MAX:
        st[s + S_EVENTS_MISSED] = 1
        return NO_EVENT
    e = u64(st[s + S_EVENT_FREE])
    st[s + S_EVENT_FREE] = st[e + E_NEXT]
    st[s + S_EVENTS_NR] += 1
    st[e + E_EVENT] = event
    st[e + E_LUN] = lun
    st[e + E_REASON] = reason
    return np.int64(e)


@kernel
def drop(st, s, e):
    """vhost_scsi_free_evt(): the record of an event is free again."""
    st[e + E_NEXT] = st[s + S_EVENT_FREE]
    st[s + S_EVENT_FREE] = np.int64(e)
    st[s + S_EVENTS_NR] -= 1


@kernel
def _buffer(mem, lines, st, device, core, buffers):
    """The head of a buffer for an event; NO_BUFFER where the guest has given none (or no good one).

    Only where there is none are notifications asked for again.
    """
    while True:
        vring.disable_notify(mem, lines, st, device, core)
        head = vring.fetch(mem, lines, st, device, core, buffers)
        if head >= 0:
            return head
        if head != vring.EMPTY:
            return NO_BUFFER
        vring.enable_notify(mem, lines, st, device, core)
        if not vring.more_avail(mem, lines, st, device, core):
            return NO_BUFFER


@kernel
def deliver(mem, lines, st, core, s, device, buffers, e):
    """Write event `e` into a buffer of the guest: its head, or NO_BUFFER: the event is missed.

    The first event delivered after a missed one says so (EVENTS_MISSED).
    """
    head = _buffer(mem, lines, st, device, core, buffers)
    place = buffers + vring.B_ENTRIES + TWO * u64(st[buffers + vring.B_OUT])
    if head < 0 or st[place + ONE] != EVENT_SIZE:
        st[s + S_EVENTS_MISSED] = 1
        return NO_BUFFER
    event = st[e + E_EVENT]
    if st[s + S_EVENTS_MISSED]:
        event |= EVENTS_MISSED
        st[s + S_EVENTS_MISSED] = 0
    at = u64(st[place])
    touch_store(lines, core, at, EVENT_SIZE)
    store32(mem, at, event)
    store64(mem, at + u64(4), st[e + E_LUN])
    store32(mem, at + u64(12), st[e + E_REASON])
    return head
