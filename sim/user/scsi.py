"""Requests as the device models of user space take them: SPDK's vhost-scsi, QEMU's virtio-scsi.

Both take the first readable and the first writable buffer for header and response, and what lies
behind for data (SPDK task_data_setup(); QEMU virtio_scsi_parse_req() without ANY_LAYOUT, which no
modern driver acks). What a command does, they ask the device server of sim.lio; where their own
answers differ from LIO's and it matters stands in docs/limits.md.

    receive    a chain becomes a command
    reply      its response; returns used.len
    refuse     a response without a command: BAD_TARGET, OVERRUN, FAILURE

The ring operations stand here once for both threads.
"""

import numpy as np

from sim import backend, scsi, vring
from sim.agents import H_NOTICE, N_INFLIGHT
from sim.backend import (
    HOST_QUEUE_WORDS,
    Q_BACKEND,
    Q_BUFFERS,
    Q_COMMAND_WORDS,
    Q_COMMANDS,
    Q_DEVICE,
    Q_RESUBMITS,
    Q_VHOST,
)
from sim.jit import kernel
from sim.layout import (
    REQ_CDB,
    REQ_SIZE,
    REQ_TASK_ATTR,
    RESP_SENSE_LEN,
    RESP_SIZE,
    S_BAD_TARGET,
    S_FAILURE,
    S_OK,
    S_OVERRUN,
)
from sim.lio import ports, server
from sim.lio.command import ONE, TWO, cdb_byte, cdb_field
from sim.lio.lun import L_BLOCK_SIZE
from sim.memory import store32
from sim.se_cmd import (
    FROM_DEVICE,
    NO_DATA,
    TO_DEVICE,
    X_ATTRIBUTE,
    X_CDB,
    X_CDB_1,
    X_CDB_2,
    X_CDB_3,
    X_DIRECTION,
    X_EXPECTED,
    X_HEAD,
    X_INFLIGHT,
    X_LENGTH,
    X_LUN,
    X_QUEUE,
    X_RESID,
    X_RESPONSE,
    X_ROW,
    X_SPACE,
    X_STATUS,
)
from sim.vhost import inflight
from sim.vhost import scsi as vhost_scsi

u64 = np.uint64

# What a virtqueue has beyond the words of one that vhost serves (sim.backend).
(
    Q_UNSIGNALLED,  # used elements, or a decision, that the guest has not been interrupted for
    Q_POLL_TIME,  # IOThread: how long it would poll for this virtqueue
    Q_WATCHED,  # IOThread: it is among those that are polled
    Q_READY,  # IOThread: its handler runs in this turn
    Q_TASKS,  # requests taken and not answered
) = map(u64, range(HOST_QUEUE_WORDS, HOST_QUEUE_WORDS + 5))
USER_QUEUE_WORDS = HOST_QUEUE_WORDS + 5

EMPTY = vring.EMPTY

# What becomes of a request: a command for the device server, one that it has failed already, one
# that has an answer of virtio-scsi's own (refuse), one that is no request at all.
READY, FAILED, REFUSED, MALFORMED = range(4)

SPDK_TARGETS = 8  # SPDK_VHOST_SCSI_CTRLR_MAX_DEVS
SENSE_LENGTH = 18  # of both; LIO says 96
ALL_PIECES = 1024


# ------------------------------------------------------------------------------ the ring, once ----


@kernel
def fetch(mem, lines, st, q, core):
    """Take the next chain into the queue's buffer list (sim.vring.fetch)."""
    if st[q + Q_RESUBMITS]:
        return inflight.resubmit(mem, lines, st, q, core)
    return vring.fetch(mem, lines, st, u64(st[q + Q_DEVICE]), core, u64(st[q + Q_BUFFERS]))


@kernel
def more_avail(mem, lines, st, q, core):
    """Has the driver published what has not been taken?"""
    return vring.more_avail(mem, lines, st, u64(st[q + Q_DEVICE]), core)


@kernel
def published(mem, lines, st, q, core, most):
    """How many chains can be taken now, at most `most`; a packed ring does not say how many."""
    device = u64(st[q + Q_DEVICE])
    if st[q + Q_RESUBMITS]:
        return min(most, st[q + Q_RESUBMITS])
    if not vring.more_avail(mem, lines, st, device, core):
        return 0
    return most if st[device + vring.V_PACKED] else min(most, vring.backlog(st, device))


@kernel
def disable_notify(mem, lines, st, q, core):
    """No kicks, please."""
    vring.disable_notify(mem, lines, st, u64(st[q + Q_DEVICE]), core)


@kernel
def enable_notify(mem, lines, st, q, core):
    """Kicks again; a look must follow."""
    vring.enable_notify(mem, lines, st, u64(st[q + Q_DEVICE]), core)


@kernel
def give_back(mem, lines, st, tr, x, core, length, now):
    """Write the used element of command `x`, and move the index."""
    q, row = u64(st[x + X_QUEUE]), u64(st[x + X_ROW])
    backend.give_back(mem, lines, st, tr, q, core, st[x + X_HEAD], length, row, now)
    count_out(st, q, x)


@kernel
def count_out(st, q, x):
    """A request less; control is told where it waits for the last one."""
    st[x + X_INFLIGHT] = 0
    st[q + Q_TASKS] -= 1
    if st[q + Q_TASKS] == 0 and not st[q + Q_BACKEND]:
        st[H_NOTICE] |= N_INFLIGHT


@kernel
def signal_wanted(mem, lines, st, q, core):
    """Does the driver want an interrupt for what it has been given?"""
    return backend.signal_wanted(mem, lines, st, q, core)


# ------------------------------------------------------------------------------------ requests ----


@kernel
def command_of(st, tr, q, head, now):
    """The command that stands for a chain just fetched."""
    x = u64(st[q + Q_COMMANDS] + st[q + Q_COMMAND_WORDS] * head)
    st[x + X_QUEUE] = np.int64(q)
    st[x + X_HEAD] = head
    st[x + X_ROW] = np.int64(backend.note_fetch(st, tr, q, head, now))
    st[x + X_INFLIGHT] = 1
    st[q + Q_TASKS] += 1
    return x


@kernel
def _aim(st, x, out, into, qemu):
    """Direction and length of the data; False where a request has both and that is refused."""
    st[x + X_DIRECTION] = NO_DATA
    st[x + X_EXPECTED] = 0
    if out:
        st[x + X_DIRECTION] = TO_DEVICE
        st[x + X_EXPECTED] = out
    elif into:
        st[x + X_DIRECTION] = FROM_DEVICE
        st[x + X_EXPECTED] = into
    st[x + X_LENGTH] = st[x + X_EXPECTED]
    return not (qemu and out and into)


@kernel
def _read_header(mem, lines, st, core, entry, x):
    """Charge for the header and copy CDB and task attribute; returns the LUN field."""
    whole = st[entry + ONE] >= REQ_SIZE
    vhost_scsi.charge_header(lines, st, core, entry, np.int64(REQ_SIZE))
    st[x + X_CDB] = vhost_scsi.word(mem, st, entry, REQ_CDB, whole)
    st[x + X_CDB_1] = vhost_scsi.word(mem, st, entry, REQ_CDB + u64(8), whole)
    st[x + X_CDB_2] = vhost_scsi.word(mem, st, entry, REQ_CDB + u64(16), whole)
    st[x + X_CDB_3] = vhost_scsi.word(mem, st, entry, REQ_CDB + u64(24), whole)
    attribute = vhost_scsi.word(mem, st, entry, REQ_TASK_ATTR, whole)
    st[x + X_ATTRIBUTE] = (attribute >> 56) & 0xFF
    return vhost_scsi.word(mem, st, entry, u64(0), whole)


@kernel
def _target_of(st, s, address, qemu):
    """The target that a LUN field names, 0 for none.

    SPDK has eight, QEMU looks at the addressing method of the LUN as well.
    """
    number, method = (address >> 48) & 0xFF, (address >> 40) & 0xFF
    if (address >> 56) & 0xFF != 1:
        return np.int64(0)
    if qemu:
        if method != 0 and not 0x40 <= method < 0x80:
            return np.int64(0)
    elif number >= SPDK_TARGETS:
        return np.int64(0)
    return ports.find_target(st, st[s + vhost_scsi.S_TARGETS], number)


@kernel
def receive(mem, lines, st, core, q, x, qemu):
    """The chain in the queue's buffer list becomes command `x`; READY, FAILED, REFUSED, MALFORMED.

    Of a refused one X_STATUS is the response code. SPDK takes header and response in one piece.
    """
    s, buffers = u64(st[q + Q_VHOST]), u64(st[q + Q_BUFFERS])
    out, into = st[buffers + vring.B_OUT], st[buffers + vring.B_IN]
    entry = buffers + vring.B_ENTRIES
    answer = entry + TWO * u64(out)
    short = st[buffers + vring.B_OUT_BYTES] < REQ_SIZE or st[buffers + vring.B_IN_BYTES] < RESP_SIZE
    if short or (not qemu and (st[entry + ONE] < REQ_SIZE or st[answer + ONE] < RESP_SIZE)):
        return MALFORMED
    header, response = st[entry + ONE], st[answer + ONE]
    address = _read_header(mem, lines, st, core, entry, x)
    data_out = st[buffers + vring.B_OUT_BYTES] - header
    data_in = st[buffers + vring.B_IN_BYTES] - response
    one_way = _aim(st, x, max(data_out, 0), max(data_in, 0), qemu)
    room = st[s + vhost_scsi.S_ROOM]
    if st[x + X_DIRECTION] == FROM_DEVICE:
        total = vhost_scsi.map_buffers(st, x, answer, into, response, room)
    else:
        total = vhost_scsi.map_buffers(st, x, entry, out, header, room)
    st[x + X_SPACE] = total
    if total < 0 or not vhost_scsi.answer_to(st, x, answer, into, ALL_PIECES, room):
        return MALFORMED
    target = _target_of(st, s, address, qemu)
    vhost_scsi.reset_command(st, x, target)
    if not one_way:
        return _refused(st, x, S_FAILURE)
    if target == 0:
        return _refused(st, x, S_BAD_TARGET)
    good = server.prepare(st, x, u64(target), (address >> 32) & 0x3FFF)
    if qemu and _overruns(st, x):
        return _refused(st, x, S_OVERRUN)
    return READY if good else FAILED


@kernel
def _refused(st, x, code):
    st[x + X_STATUS] = code
    return REFUSED


@kernel
def _cdb_transfer(st, x):
    """scsi_req_xfer() and scsi_cmd_xfer_mode() of QEMU: (direction, bytes) that the CDB asks for.

    Of the commands whose data go one way only.
    """
    opcode = cdb_byte(st, x, 0)
    size = np.int64(st[u64(st[x + X_LUN]) + L_BLOCK_SIZE])
    if opcode in (scsi.READ_6, scsi.WRITE_6):
        blocks = cdb_byte(st, x, 4)
        length = (blocks if blocks else np.int64(256)) * size
    elif opcode in (scsi.READ_10, scsi.WRITE_10, scsi.WRITE_VERIFY_10):
        length = cdb_field(st, x, 7, 2) * size
    elif opcode in (scsi.READ_12, scsi.WRITE_12):
        length = cdb_field(st, x, 6, 4) * size
    elif opcode in (scsi.READ_16, scsi.WRITE_16, scsi.WRITE_VERIFY_16):
        length = cdb_field(st, x, 10, 4) * size
    elif opcode == scsi.INQUIRY:
        length = cdb_field(st, x, 3, 2)
    elif opcode in (scsi.REQUEST_SENSE, scsi.MODE_SENSE_6, scsi.MODE_SELECT_6):
        length = cdb_byte(st, x, 4)
    elif opcode in (scsi.MODE_SENSE_10, scsi.MODE_SELECT_10, scsi.UNMAP):
        length = cdb_field(st, x, 7, 2)
    elif opcode == scsi.REPORT_LUNS:
        length = cdb_field(st, x, 6, 4)
    elif opcode == scsi.READ_CAPACITY_10:
        length = np.int64(8)
    else:
        return NO_DATA, np.int64(0)
    writes = (
        scsi.WRITE_6, scsi.WRITE_10, scsi.WRITE_12, scsi.WRITE_16, scsi.WRITE_VERIFY_10,
        scsi.WRITE_VERIFY_16, scsi.MODE_SELECT_6, scsi.MODE_SELECT_10, scsi.UNMAP,
    )  # fmt: skip
    if length == 0:
        return NO_DATA, length
    return (TO_DEVICE if opcode in writes else FROM_DEVICE), length


@kernel
def _overruns(st, x):
    """virtio_scsi_handle_cmd_req_prepare(): does the CDB want more than there is, or the other way?

    QEMU looks before the command runs, and answers OVERRUN; a device server would not be asked.
    """
    direction, length = _cdb_transfer(st, x)
    if direction == NO_DATA:
        return False
    return direction != st[x + X_DIRECTION] or length > st[x + X_EXPECTED]


# ----------------------------------------------------------------------------------- responses ----


@kernel
def reply(mem, lines, st, core, x, qemu):
    """Write the response of a command; returns used.len.

    QEMU counts response and data buffers in either direction, and gives no residual unless the
    status is GOOD; SPDK counts what the device may write.
    """
    if qemu and st[x + X_STATUS] != scsi.GOOD:
        st[x + X_RESID] = 0
    vhost_scsi.reply(mem, lines, st, core, x, S_OK)
    if st[x + X_STATUS] == scsi.CHECK_CONDITION and st[x + X_RESPONSE] >= 0:
        store32(mem, u64(st[x + X_RESPONSE]) + RESP_SENSE_LEN, SENSE_LENGTH)
    return _used_length(st, x, qemu)


@kernel
def _used_length(st, x, qemu):
    if qemu or st[x + X_DIRECTION] == FROM_DEVICE:
        return RESP_SIZE + st[x + X_SPACE]
    return np.int64(RESP_SIZE)


@kernel
def refuse(mem, lines, st, core, x, qemu):
    """Answer with the response code in X_STATUS and nothing else; returns used.len."""
    code = st[x + X_STATUS]
    st[x + X_STATUS] = scsi.GOOD
    st[x + X_RESID] = 0
    vhost_scsi.reply(mem, lines, st, core, x, code)
    return _used_length(st, x, qemu)
