"""SCSI as virtio-scsi carries it: request headers, responses, LUN fields, sense; and SCSI's codes.

Layouts: virtio 1.x "SCSI Host Device / Device Operation" and Linux virtio_scsi.h for headers,
SPC-4 and SBC-3 for CDBs (big-endian). This module knows nothing of rings; what a CDB does is in
sim.lio.
"""

import numpy as np

from sim.jit import kernel
from sim.layout import (
    AN_REQ_SIZE,
    REQ_CDB,
    REQ_LUN,
    REQ_SIZE,
    REQ_TAG,
    REQ_TASK_ATTR,
    RESP_RESID,
    RESP_RESPONSE,
    RESP_SENSE,
    RESP_SENSE_LEN,
    RESP_SIZE,
    RESP_STATUS,
    SENSE_SIZE,
    T_TMF,
    TMF_REQ_SIZE,
)
from sim.memory import load32, load64, store16, store32, store64, touch_load, touch_store

u64 = np.uint64
ONE = u64(1)

# Opcodes of block commands.
READ_6, WRITE_6 = 0x08, 0x0A
READ_10, WRITE_10 = 0x28, 0x2A
READ_12, WRITE_12 = 0xA8, 0xAA
READ_16, WRITE_16 = 0x88, 0x8A
WRITE_VERIFY_10, WRITE_VERIFY_16 = 0x2E, 0x8E
VERIFY_10, VERIFY_16 = 0x2F, 0x8F
SYNCHRONIZE_CACHE_10, SYNCHRONIZE_CACHE_16 = 0x35, 0x91
WRITE_SAME_10, WRITE_SAME_16 = 0x41, 0x93
VARIABLE_LENGTH, WRITE_SAME_32 = 0x7F, 0x0D  # opcode and service action
UNMAP = 0x42
COMPARE_AND_WRITE = 0x89
READ_CAPACITY_10 = 0x25
SERVICE_ACTION_IN_16, READ_CAPACITY_16, REPORT_REFERRALS = 0x9E, 0x10, 0x13
START_STOP_UNIT = 0x1B
REZERO_UNIT, SEEK_6, SEEK_10 = 0x01, 0x0B, 0x2B

# Opcodes of primary commands.
TEST_UNIT_READY = 0x00
REQUEST_SENSE = 0x03
INQUIRY = 0x12
MODE_SELECT_6, MODE_SENSE_6 = 0x15, 0x1A
MODE_SELECT_10, MODE_SENSE_10 = 0x55, 0x5A
RESERVE_6, RELEASE_6 = 0x16, 0x17
RESERVE_10, RELEASE_10 = 0x56, 0x57
PERSISTENT_RESERVE_IN, PERSISTENT_RESERVE_OUT = 0x5E, 0x5F
REPORT_LUNS = 0xA0
MAINTENANCE_IN, REPORT_TARGET_PORT_GROUPS, REPORT_SUPPORTED_OPCODES = 0xA3, 0x0A, 0x0C

# SAM status.
GOOD = 0x00
CHECK_CONDITION = 0x02
BUSY = 0x08
RESERVATION_CONFLICT = 0x18
TASK_SET_FULL = 0x28
TASK_ABORTED = 0x40

BLOCK_SIZE = 512

UNIT_ATTENTION = 6  # sense key

# Sense, as (key << 16) | (ASC << 8) | ASCQ; the comments are LIO's reasons.
SENSE_NONE = 0
SENSE_COMMUNICATION_FAILURE = 0x020800  # LOGICAL_UNIT_COMMUNICATION_FAILURE, also for I/O errors
SENSE_TRANSFER_LENGTH = 0x050E03  # INVALID_FIELD_IN_COMMAND_IU: data that differ from the CDB
SENSE_PARAMETER_LIST_LENGTH = 0x051A00
SENSE_UNKNOWN_OPCODE = 0x052000  # UNSUPPORTED_SCSI_OPCODE
SENSE_LBA_OUT_OF_RANGE = 0x052100  # ADDRESS_OUT_OF_RANGE
SENSE_INVALID_CDB_FIELD = 0x052400  # also UNKNOWN_MODE_PAGE
SENSE_UNKNOWN_LUN = 0x052500  # NON_EXISTENT_LUN
SENSE_INVALID_PARAMETER_LIST = 0x052600
SENSE_WRITE_PROTECTED = 0x072700
SENSE_MISCOMPARE = 0x0E1D00  # MISCOMPARE_VERIFY
CONFLICT = -1  # not a sense: the command ends with RESERVATION CONFLICT


@kernel(inline=True)
def load_be(mem, at, size):
    """A big-endian field of `size` bytes."""
    value = np.int64(0)
    for i in range(size):
        value = (value << 8) | np.int64(mem[u64(at) + u64(i)])
    return value


@kernel(inline=True)
def store_be(mem, at, size, value):
    """Write a big-endian field of `size` bytes."""
    for i in range(size):
        mem[u64(at) + u64(i)] = (value >> (8 * (size - 1 - i))) & 0xFF


@kernel(inline=True)
def write_cdb(mem, at, op, lba, blocks):
    """READ, WRITE (`op` 0, 1) or SYNCHRONIZE CACHE (2) as Linux sd builds it; INQUIRY (4).

    10 bytes, 16 beyond 32-bit LBAs or 65535 blocks; a flush is of the whole disk. An INQUIRY asks
    for the 36 bytes that every device has (scsi_probe_lun).
    """
    for i in range(4):
        store64(mem, u64(at) + u64(8 * i), 0)
    write = op == 1
    if op == 2:
        mem[u64(at)] = SYNCHRONIZE_CACHE_10
    elif op == 4:
        mem[u64(at)] = INQUIRY
        mem[u64(at) + u64(4)] = 36
    elif lba > 0xFFFFFFFF or blocks > 0xFFFF:
        mem[u64(at)] = WRITE_16 if write else READ_16
        store_be(mem, u64(at) + u64(2), 8, lba)
        store_be(mem, u64(at) + u64(10), 4, blocks)
    else:
        mem[u64(at)] = WRITE_10 if write else READ_10
        store_be(mem, u64(at) + u64(2), 4, lba)
        store_be(mem, u64(at) + u64(7), 2, blocks)


@kernel(inline=True)
def write_request(mem, lines, core, at, target, lun, tag, op, lba, blocks):
    """virtio_scsi_init_hdr(): the 51-byte header; the LUN is always in the flat form."""
    touch_store(lines, core, at, REQ_SIZE)
    store64(mem, u64(at) + REQ_LUN, 0)
    mem[u64(at)] = 1
    mem[u64(at) + ONE] = target
    mem[u64(at) + u64(2)] = (lun >> 8) | 0x40
    mem[u64(at) + u64(3)] = lun & 0xFF
    store64(mem, u64(at) + REQ_TAG, tag)
    store16(mem, u64(at) + REQ_TASK_ATTR, 0)  # SIMPLE, prio 0
    mem[u64(at) + u64(18)] = 0  # crn
    write_cdb(mem, u64(at) + REQ_CDB, op, lba, blocks)


@kernel(inline=True)
def lun_of(mem, at):
    """vhost_buf_to_lun(): bytes 2-3 of the LUN field, 14 bits; method bits are not checked."""
    return ((np.int64(mem[u64(at) + u64(2)]) << 8) | np.int64(mem[u64(at) + u64(3)])) & 0x3FFF


@kernel(inline=True)
def tag_of(mem, at):
    """The request's tag (id)."""
    return load64(mem, u64(at) + REQ_TAG)


@kernel(inline=True)
def cdb_opcode(mem, at):
    """The opcode of the CDB in the request header at `at`."""
    return np.int64(mem[u64(at) + REQ_CDB])


@kernel(inline=True)
def is_write(opcode):
    """Does this opcode move data to the disk?"""
    return opcode in (WRITE_6, WRITE_10, WRITE_12, WRITE_16)


@kernel(inline=True)
def is_read(opcode):
    """Does this opcode move data from the disk?"""
    return opcode in (READ_6, READ_10, READ_12, READ_16)


@kernel(inline=True)
def cdb_lba(mem, at):
    """LBA of the READ or WRITE CDB in the request header at `at`."""
    cdb = u64(at) + REQ_CDB
    opcode = mem[cdb]
    if opcode in (READ_6, WRITE_6):
        return load_be(mem, cdb + ONE, 3) & 0x1FFFFF
    if opcode in (READ_16, WRITE_16):
        return load_be(mem, cdb + u64(2), 8)
    return load_be(mem, cdb + u64(2), 4)


@kernel(inline=True)
def cdb_blocks(mem, at):
    """Number of blocks of the READ or WRITE CDB; 0 in a 6-byte CDB means 256."""
    cdb = u64(at) + REQ_CDB
    opcode = mem[cdb]
    if opcode in (READ_6, WRITE_6):
        blocks = np.int64(mem[cdb + u64(4)])
        return blocks if blocks else np.int64(256)
    if opcode in (READ_16, WRITE_16):
        return load_be(mem, cdb + u64(10), 4)
    if opcode in (READ_12, WRITE_12):
        return load_be(mem, cdb + u64(6), 4)
    return load_be(mem, cdb + u64(7), 2)


@kernel
def sense_byte(index, sense, info, descriptor):
    """Byte `index` of sense data (scsi_build_sense_buffer, scsi_set_sense_information).

    `info` is the INFORMATION field, -1 for none.
    """
    key, asc, ascq = sense >> 16, (sense >> 8) & 0xFF, sense & 0xFF
    if descriptor:
        if index == 0:
            return 0x72
        if index < 4:
            return key if index == 1 else (asc if index == 2 else ascq)
        if info < 0 or index < 7 or index > 19:
            return 0
        if index > 11:
            return (info >> (8 * (19 - index))) & 0xFF
        return 12 if index == 7 else (10 if index == 9 else (0x80 if index == 10 else 0))
    if index == 0:
        return 0x70 if info < 0 else 0xF0
    if index == 2:
        return key
    if index == 7:
        return 0x0A
    if index == 12:
        return asc
    if index == 13:
        return ascq
    if info >= 0 and 3 <= index <= 6:
        return (info >> (8 * (6 - index))) & 0xFF
    return 0


@kernel
def response_byte(index, response, status, resid, sense, info, descriptor):
    """Byte `index` of the 108: for a response that does not lie in one piece."""
    if index < 4:
        return SENSE_SIZE if index == 0 and status == CHECK_CONDITION else 0
    if index < 8:
        return (resid >> (8 * (index - 4))) & 0xFF
    if index == 10:
        return status
    if index == 11:
        return response
    if index < 12 or status != CHECK_CONDITION:
        return 0
    return sense_byte(index - 12, sense, info, descriptor)


@kernel
def write_response(mem, lines, core, at, response, status, resid, sense, info, descriptor):
    """The 108-byte response; with CHECK CONDITION 96 bytes of sense, as LIO has it."""
    touch_store(lines, core, at, RESP_SIZE)
    for i in range(13):
        store64(mem, u64(at) + u64(8 * i), 0)
    store32(mem, u64(at) + u64(104), 0)
    store32(mem, u64(at) + RESP_RESID, resid)
    mem[u64(at) + RESP_STATUS] = status
    mem[u64(at) + RESP_RESPONSE] = response
    if status == CHECK_CONDITION:
        store32(mem, u64(at) + RESP_SENSE_LEN, SENSE_SIZE)
        for i in range(20):
            mem[u64(at) + RESP_SENSE + u64(i)] = sense_byte(i, sense, info, descriptor)


@kernel(inline=True)
def read_response(mem, lines, core, at):
    """What virtscsi_complete_cmd() looks at: (response << 8) | status."""
    touch_load(lines, core, at, 12)
    return (load32(mem, u64(at) + u64(8)) >> 16) & 0xFFFF


# ---------------------------------------------------------------- control and event structures ----


@kernel
def _write_lun(mem, at, target, lun):
    """A LUN field in the flat form."""
    store64(mem, u64(at), 1 | (target << 8) | (((lun >> 8) | 0x40) << 16) | ((lun & 0xFF) << 24))


@kernel
def write_tmf(mem, lines, core, at, subtype, target, lun, tag):
    """struct virtio_scsi_ctrl_tmf_req at `at`, 24 bytes."""
    touch_store(lines, core, at, TMF_REQ_SIZE)
    store32(mem, u64(at), T_TMF)
    store32(mem, u64(at) + u64(4), subtype)
    _write_lun(mem, at + 8, target, lun)
    store64(mem, u64(at) + u64(16), tag)


@kernel
def write_an(mem, lines, core, at, kind, target, lun, events):
    """struct virtio_scsi_ctrl_an_req at `at`, 16 bytes."""
    touch_store(lines, core, at, AN_REQ_SIZE)
    store32(mem, u64(at), kind)
    _write_lun(mem, at + 4, target, lun)
    store32(mem, u64(at) + u64(12), events)


def linux_lun(target: int, lun: int) -> bytes:
    """The eight bytes by which Linux names a LUN in requests: always in the flat form."""
    return bytes([1, target, lun >> 8 | 0x40, lun & 0xFF, 0, 0, 0, 0])


def event_lun(target: int, lun: int) -> bytes:
    """The eight bytes by which vhost-scsi names a LUN in events: flat from LUN 256 on."""
    return bytes([1, target, lun >> 8 | 0x40 if lun >= 256 else 0, lun & 0xFF, 0, 0, 0, 0])


def linux_event_lun(field: bytes) -> int:
    """What Linux takes an event's LUN to be: bytes 2 and 3 without a mask, so 256 is 16640."""
    return field[2] << 8 | field[3]


def _le(value: int, size: int) -> bytes:
    return value.to_bytes(size, 'little')


def tmf_request(subtype: int, target: int, lun: int, tag: int = 0) -> bytes:
    """struct virtio_scsi_ctrl_tmf_req, 24 bytes."""
    return _le(T_TMF, 4) + _le(subtype, 4) + linux_lun(target, lun) + _le(tag, 8)


def an_request(kind: int, target: int, lun: int, events: int) -> bytes:
    """struct virtio_scsi_ctrl_an_req, 16 bytes; `kind` is T_AN_QUERY or T_AN_SUBSCRIBE."""
    return _le(kind, 4) + linux_lun(target, lun) + _le(events, 4)


def event(kind: int, lun: bytes, reason: int) -> bytes:
    """struct virtio_scsi_event, 16 bytes; `lun` as event_lun() makes it."""
    return _le(kind, 4) + lun + _le(reason, 4)
