"""What vhost-scsi itself does with a request: from a chain of buffers to a command, and its answer.

drivers/vhost/scsi.c. A request is read by byte count, however its buffers are cut (any layout): the
header may span several, data may follow it in the same one, the response is written across as many
as it takes.

    receive        vhost_scsi_handle_vq() from vhost_scsi_chk_size() to target_submit_prep()
    reply          vhost_scsi_complete_cmd_work(): the 108 bytes
    send_error     vhost_scsi_send_bad_target(), vhost_scsi_send_status()
    serve          all of it at once, for a request that has no ring and takes no time

Kernels differ: `receive` and `send_error` say where.
"""

import numpy as np

from sim import scsi, vring
from sim.jit import kernel
from sim.layout import (
    CDB_SIZE,
    REQ_CDB,
    REQ_PI_BYTES_IN,
    REQ_PI_BYTES_OUT,
    REQ_PI_CDB,
    REQ_PI_SIZE,
    REQ_TASK_ATTR,
    RESP_SIZE,
    S_BAD_TARGET,
    S_OK,
)
from sim.lio import payload, ports, sbc, server
from sim.lio.command import MEDIUM, ONE, TWO
from sim.memory import bare, load64, touch_load, touch_store
from sim.se_cmd import (
    FROM_DEVICE,
    NO_DATA,
    OP_READ,
    TO_DEVICE,
    X_ATTRIBUTE,
    X_BLOCKS,
    X_CDB,
    X_CDB_1,
    X_CDB_2,
    X_CDB_3,
    X_DATA,
    X_DESCRIPTOR,
    X_DIRECTION,
    X_EXPECTED,
    X_FUA,
    X_INFO,
    X_LENGTH,
    X_OP,
    X_PIECES,
    X_RESID,
    X_RESPONSE,
    X_SEGMENTS,
    X_SENSE,
    X_SPACE,
    X_STATUS,
    X_TAG,
    X_TARGET,
    X_UNDERFLOW,
)

u64 = np.uint64

# A device (struct vhost_scsi).
(
    S_TARGETS,  # table of targets, sim.lio.ports
    S_HEADER,  # bytes of a request header: 51, with T10_PI 59
    S_KERNEL,  # the host's Linux: 601, 612, 702
    S_ROOM,  # how many pairs of words a command has for its buffers
    S_MEMORY,  # bytes of guest memory
    S_NO_TARGETS,  # an empty table of targets, for when they are gone
    S_BUGS,  # of the past that this host still has, see below
    # For sim.vhost.control_queue.
    S_RESETS,  # LUN resets that LIO has not begun yet, -1 none
    S_EVENTS_NR,  # events that wait on the event queue's completion list
    S_EVENTS_MISSED,
    S_EVENT_FREE,  # records for events, -1 none left
    S_HOTPLUG,  # VIRTIO_SCSI_F_HOTPLUG was agreed
    S_QUEUES,  # table of the host's virtqueues
    S_QUEUE_COUNT,
    S_LOG,  # where the dirty bitmap begins (sim.vhost.log), 0: none was given
) = map(u64, range(15))
DEVICE_WORDS = 15
KERNEL_NUMBERS = {'6.1': 601, '6.12': 612, '7.2': 702}

# Bugs that kernels before 6.1 had, or that a kernel with several workers would have, as bits.
BUG_NAMES = (
    'control_silent', 'tmf_no_flush', 'plug_unchecked', 'no_ioctl_flush', 'no_bounce',
    'endpoint_twice',
)  # fmt: skip
CONTROL_SILENT, TMF_NO_FLUSH, PLUG_UNCHECKED, NO_BOUNCE = 1, 2, 4, 16

# What becomes of a request.
READY, FAILED, BAD_TARGET, DROPPED, NO_TAG = range(5)

MAX_SGLS = 2048  # VHOST_SCSI_PREALLOC_SGLS
TWO_PAGES = 2  # more than it has bytes for: a segment may begin and end within a page
FAULT = -1  # X_RESPONSE of a command whose response has no room


def bugs_of(names: str | None) -> int:
    """S_BUGS for a comma-separated list of BUG_NAMES."""
    given = [] if names is None else [name.strip() for name in names.split(',')]
    return sum(1 << BUG_NAMES.index(name) for name in set(given))


# -------------------------------------------------------------------------------------- header ----


@kernel
def swapped(value):
    """The eight bytes of a word in the opposite order."""
    low = np.int64(0x00FF00FF00FF00FF)
    value = ((value >> 8) & low) | ((value & low) << 8)
    low = np.int64(0x0000FFFF0000FFFF)
    value = ((value >> 16) & low) | ((value & low) << 16)
    return ((value >> 32) & 0xFFFFFFFF) | (value << 32)


@kernel
def gathered(mem, st, entry, offset, size):
    """A big-endian field at `offset` of the buffers that begin at `entry` of a buffer list."""
    value = np.int64(0)
    for i in range(size):
        at, place = entry, offset + i
        while place >= st[at + ONE]:
            place -= st[at + ONE]
            at += TWO
        value = (value << 8) | np.int64(mem[u64(st[at] + place)])
    return value


@kernel
def word(mem, st, entry, offset, whole):
    """Eight big-endian bytes of a header; `whole`: it lies in one piece."""
    if whole:
        return swapped(np.int64(load64(mem, u64(st[entry]) + offset)))
    return gathered(mem, st, entry, np.int64(offset), 8)


@kernel
def charge_header(lines, st, core, entry, size):
    """The worker reads the header."""
    while size > 0:
        part = min(size, st[entry + ONE])
        if part > 0:
            touch_load(lines, core, st[entry], part)
        size -= part
        entry += TWO


@kernel
def _command_too_long(st, x):
    """scsi_command_size() above 32 bytes: only a variable-length CDB can say so."""
    return (st[x + X_CDB] >> 56) & 0xFF == scsi.VARIABLE_LENGTH and (
        st[x + X_CDB] & 0xFF
    ) + 8 > CDB_SIZE


# ------------------------------------------------------------------------------------- buffers ----


@kernel
def map_buffers(st, x, entry, count, skip, room):
    """Data segments: what `count` buffers hold behind their first `skip` bytes.

    Returns how many bytes that is, -1 if the command has no room for so many pieces.
    """
    used, total = 0, np.int64(0)
    place = x + X_DATA
    for _ in range(count):
        at, size = st[entry], st[entry + ONE]
        entry += TWO
        if skip >= size:
            skip -= size
            continue
        if used == room:
            return np.int64(-1)
        st[place] = at + skip
        st[place + ONE] = size - skip
        total += size - skip
        skip = np.int64(0)
        used += 1
        place += TWO
    st[x + X_SEGMENTS] = used
    return total


@kernel
def answer_to(st, x, entry, count, limit, room):
    """Where the response goes: into the first buffer, or across up to `limit` of them.

    False: the command has no room for so many pieces.
    """
    st[x + X_PIECES] = 0
    st[x + X_RESPONSE] = st[entry]
    if st[entry + ONE] >= RESP_SIZE:
        return True
    place = x + X_DATA + TWO * u64(st[x + X_SEGMENTS])
    left = np.int64(RESP_SIZE)
    for _ in range(min(count, limit)):
        size = min(left, st[entry + ONE])
        if size > 0:
            if st[x + X_SEGMENTS] + st[x + X_PIECES] == room:
                return False
            st[place] = st[entry]
            st[place + ONE] = size
            place += TWO
            left -= size
            st[x + X_PIECES] += 1
        entry += TWO
    if left > 0:
        st[x + X_RESPONSE] = FAULT
    return True


# ------------------------------------------------------------------------------------ requests ----


@kernel
def _aim(st, s, buffers, x):
    """Direction and length of the data, by byte count: whatever lies behind header and response."""
    out, into = st[buffers + vring.B_OUT_BYTES], st[buffers + vring.B_IN_BYTES]
    if out > st[s + S_HEADER]:
        st[x + X_DIRECTION] = TO_DEVICE
        st[x + X_EXPECTED] = out - st[s + S_HEADER]
    elif into > RESP_SIZE:
        st[x + X_DIRECTION] = FROM_DEVICE
        st[x + X_EXPECTED] = into - RESP_SIZE
    else:
        st[x + X_DIRECTION] = NO_DATA
        st[x + X_EXPECTED] = 0
    st[x + X_LENGTH] = st[x + X_EXPECTED]


@kernel
def _protection(mem, st, s, buffers, x):
    """Bytes of protection information before the data (T10_PI), -1 if the header lies."""
    if st[s + S_HEADER] != REQ_PI_SIZE:
        return np.int64(0)
    entry = buffers + vring.B_ENTRIES
    out = swapped(gathered(mem, st, entry, np.int64(REQ_PI_BYTES_OUT), 4) << 32)
    into = swapped(gathered(mem, st, entry, np.int64(REQ_PI_BYTES_IN), 4) << 32)
    if out:
        wrong, size = st[x + X_DIRECTION] != TO_DEVICE, out
    else:
        wrong, size = into > 0 and st[x + X_DIRECTION] != FROM_DEVICE, into
    return np.int64(-1) if wrong or (size and size >= st[x + X_EXPECTED]) else size


@kernel
def _map_data(st, s, buffers, x, protection):
    """vhost_scsi_mapal(): segments of the data; False where that fails."""
    entry = buffers + vring.B_ENTRIES
    out, room = st[buffers + vring.B_OUT], st[s + S_ROOM]
    total = np.int64(0)
    st[x + X_SEGMENTS] = 0
    if st[x + X_DIRECTION] == TO_DEVICE:
        total = map_buffers(st, x, entry, out, st[s + S_HEADER] + protection, room)
    elif st[x + X_DIRECTION] == FROM_DEVICE:
        first, count = entry + TWO * u64(out), st[buffers + vring.B_IN]
        total = map_buffers(st, x, first, count, RESP_SIZE + protection, room)
    st[x + X_SPACE] = total
    crowded = (total >> 12) + TWO_PAGES * st[x + X_SEGMENTS] > MAX_SGLS
    return total >= 0 and not (crowded and payload.pages(st, x) > MAX_SGLS)


@kernel
def _is_misaligned(st, x):
    """Is a data segment no multiple of 512 bytes, as those of Windows may be?

    vhost-scsi copies such data to or from a buffer of its own since Linux 6.5. Before it did, what
    the block layer made of them depended on the driver below; the strict ones refuse the bio.
    """
    place = x + X_DATA + ONE
    for _ in range(st[x + X_SEGMENTS]):
        if st[place] & 511:
            return True
        place += TWO
    return False


@kernel
def receive(mem, lines, st, core, s, buffers, x):
    """A chain becomes command `x`: READY for LIO, FAILED by it, BAD_TARGET, DROPPED, or NO_TAG.

    Of x, the caller sets queue, head and row; where the queue has no command left, x is a spare one
    (X_TAG -1). Data that cannot be mapped are dropped without an answer; Linux 6.1 answers
    BAD_TARGET.
    """
    if st[buffers + vring.B_IN_BYTES] < RESP_SIZE:
        return DROPPED
    header = st[s + S_HEADER]
    if st[buffers + vring.B_OUT_BYTES] < header:
        return BAD_TARGET
    entry = buffers + vring.B_ENTRIES
    whole = st[entry + ONE] >= header
    charge_header(lines, st, core, entry, header)
    address = word(mem, st, entry, u64(0), whole)
    if (address >> 56) & 0xFF != 1:
        return BAD_TARGET
    target = ports.find_target(st, st[s + S_TARGETS], (address >> 48) & 0xFF)
    if target == 0:
        return BAD_TARGET
    cdb = REQ_PI_CDB if header == REQ_PI_SIZE else REQ_CDB
    st[x + X_CDB] = word(mem, st, entry, cdb, whole)
    st[x + X_CDB_1] = word(mem, st, entry, cdb + u64(8), whole)
    st[x + X_CDB_2] = word(mem, st, entry, cdb + u64(16), whole)
    st[x + X_CDB_3] = word(mem, st, entry, cdb + u64(24), whole)
    if whole:
        st[x + X_ATTRIBUTE] = np.int64(mem[u64(st[entry]) + REQ_TASK_ATTR])
    else:
        st[x + X_ATTRIBUTE] = gathered(mem, st, entry, np.int64(REQ_TASK_ATTR), 1)
    _aim(st, s, buffers, x)
    protection = _protection(mem, st, s, buffers, x)
    if protection < 0 or _command_too_long(st, x):
        return BAD_TARGET
    if st[x + X_TAG] < 0:
        return NO_TAG
    if not _map_data(st, s, buffers, x, protection):
        return BAD_TARGET if st[s + S_KERNEL] < 612 else DROPPED
    first = entry + TWO * u64(st[buffers + vring.B_OUT])
    limit = RESP_SIZE if st[s + S_KERNEL] >= 702 else 1024
    if not answer_to(st, x, first, st[buffers + vring.B_IN], limit, st[s + S_ROOM]):
        return DROPPED
    reset_command(st, x, target)
    if not server.prepare(st, x, u64(target), (address >> 32) & 0x3FFF):
        return FAILED
    if st[s + S_BUGS] & NO_BOUNCE and _is_misaligned(st, x):
        server.fail(st, x, scsi.SENSE_COMMUNICATION_FAILURE)
        return FAILED
    return READY


@kernel
def reset_command(st, x, target):
    """A command about which nothing is known yet."""
    st[x + X_TARGET] = target
    st[x + X_STATUS] = scsi.GOOD
    st[x + X_SENSE] = scsi.SENSE_NONE
    st[x + X_RESID] = 0
    st[x + X_UNDERFLOW] = 0
    st[x + X_INFO] = -1
    st[x + X_DESCRIPTOR] = 0
    st[x + X_FUA] = 0
    st[x + X_OP] = OP_READ
    st[x + X_BLOCKS] = 0


@kernel
def _spread(mem, lines, st, core, entry, count, size):
    """How many of `size` bytes `count` buffers take; the worker is charged for writing them."""
    done = np.int64(0)
    for _ in range(count):
        part = min(size - done, st[entry + ONE])
        if part > 0:
            touch_store(lines, core, st[entry], part)
        done += part
        entry += TWO
    return done


@kernel
def reply(mem, lines, st, core, x, code):
    """Write the command's response; False where it has no room (nothing is posted then).

    `code` is virtio-scsi's response, S_OK for whatever the target has answered.
    """
    response, status, resid = st[x + X_RESPONSE], st[x + X_STATUS], st[x + X_RESID]
    sense, info, descriptor = st[x + X_SENSE], st[x + X_INFO], st[x + X_DESCRIPTOR]
    if st[x + X_PIECES] == 0 and response != FAULT:
        scsi.write_response(
            mem, lines, core, response, code, status, resid, sense, info, descriptor
        )
        return True
    entry = x + X_DATA + TWO * u64(st[x + X_SEGMENTS])
    _spread(mem, lines, st, core, entry, st[x + X_PIECES], np.int64(RESP_SIZE))
    index = 0
    for _ in range(st[x + X_PIECES]):
        for place in range(st[entry + ONE]):
            value = scsi.response_byte(index, code, status, resid, sense, info, descriptor)
            mem[u64(st[entry] + place)] = value
            index += 1
        entry += TWO
    return response != FAULT


@kernel
def send_error(mem, lines, st, core, s, buffers, response, status):
    """Answer a request that LIO never sees; False where the answer does not fit.

    Before Linux 7.2 all 108 bytes go to where the first writable buffer begins, even if it is
    shorter: what lies behind it in the guest's memory is overwritten.
    """
    entry = buffers + vring.B_ENTRIES + TWO * u64(st[buffers + vring.B_OUT])
    if st[entry + ONE] >= RESP_SIZE or st[s + S_KERNEL] < 702:
        if st[entry] + RESP_SIZE > st[s + S_MEMORY]:
            return False
        scsi.write_response(mem, lines, core, st[entry], response, status, 0, 0, -1, 0)
        return True
    size = np.int64(RESP_SIZE)
    _spread(mem, lines, st, core, entry, st[buffers + vring.B_IN], size)
    index = 0
    for _ in range(st[buffers + vring.B_IN]):
        for place in range(min(st[entry + ONE], RESP_SIZE - index)):
            value = scsi.response_byte(index, response, status, 0, 0, -1, 0)
            mem[u64(st[entry] + place)] = value
            index += 1
        entry += TWO
    return True


@kernel
def serve(memory, state, blocks, s, buffers, x):
    """Receive a request, execute it and answer it. Returns the verdict, DROPPED without answer."""
    mem, st, media = bare(memory), bare(state), bare(blocks)
    verdict = receive(mem, None, st, 0, s, buffers, x)
    if verdict == DROPPED:
        return DROPPED
    if verdict == BAD_TARGET:
        sent = send_error(mem, None, st, 0, s, buffers, S_BAD_TARGET, scsi.GOOD)
        return BAD_TARGET if sent else DROPPED
    if verdict == READY and server.execute(mem, st, x) == MEDIUM:
        sbc.transfer(mem, st, media, x)
    return verdict if reply(mem, None, st, 0, x, S_OK) else DROPPED
