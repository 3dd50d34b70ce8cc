"""SCSI as virtio-scsi carries it: request headers, READ and WRITE CDBs, responses, LUNs, sense.

Layouts: virtio 1.x "SCSI Host Device / Device Operation" and Linux virtio_scsi.h for headers,
SPC-4 and SBC-3 for CDBs (big-endian). This module knows nothing of rings.
"""

import numpy as np

from sim.jit import kernel
from sim.layout import (
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
)
from sim.memory import load32, load64, store16, store32, store64, touch_load, touch_store

u64 = np.uint64
ONE = u64(1)

READ_6, WRITE_6 = 0x08, 0x0A
READ_10, WRITE_10 = 0x28, 0x2A
READ_12, WRITE_12 = 0xA8, 0xAA
READ_16, WRITE_16 = 0x88, 0x8A

GOOD = 0x00
CHECK_CONDITION = 0x02

BLOCK_SIZE = 512

# Sense of the errors that READ and WRITE can meet: (key << 16) | (ASC << 8) | ASCQ.
SENSE_NONE = 0
SENSE_UNKNOWN_OPCODE = 0x052000
SENSE_LBA_OUT_OF_RANGE = 0x052100
SENSE_UNKNOWN_LUN = 0x052500
SENSE_TRANSFER_LENGTH = 0x050E03  # block data of a WRITE that is not what its CDB says


@kernel
def load_be(mem, at, size):
    """A big-endian field of `size` bytes."""
    value = np.int64(0)
    for i in range(size):
        value = (value << 8) | np.int64(mem[u64(at) + u64(i)])
    return value


@kernel
def store_be(mem, at, size, value):
    """Write a big-endian field of `size` bytes."""
    for i in range(size):
        mem[u64(at) + u64(i)] = (value >> (8 * (size - 1 - i))) & 0xFF


@kernel
def write_cdb(mem, at, write, lba, blocks):
    """READ or WRITE as Linux sd builds it: 10 bytes, 16 beyond 32-bit LBAs or 65535 blocks."""
    for i in range(4):
        store64(mem, u64(at) + u64(8 * i), 0)
    if lba > 0xFFFFFFFF or blocks > 0xFFFF:
        mem[u64(at)] = WRITE_16 if write else READ_16
        store_be(mem, u64(at) + u64(2), 8, lba)
        store_be(mem, u64(at) + u64(10), 4, blocks)
    else:
        mem[u64(at)] = WRITE_10 if write else READ_10
        store_be(mem, u64(at) + u64(2), 4, lba)
        store_be(mem, u64(at) + u64(7), 2, blocks)


@kernel
def write_request(mem, lines, core, at, target, lun, tag, write, lba, blocks):
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
    write_cdb(mem, u64(at) + REQ_CDB, write, lba, blocks)


@kernel
def lun_of(mem, at):
    """vhost_buf_to_lun(): bytes 2-3 of the LUN field, 14 bits; method bits are not checked."""
    return ((np.int64(mem[u64(at) + u64(2)]) << 8) | np.int64(mem[u64(at) + u64(3)])) & 0x3FFF


@kernel
def tag_of(mem, at):
    """The request's tag (id)."""
    return load64(mem, u64(at) + REQ_TAG)


@kernel
def cdb_opcode(mem, at):
    """The opcode of the CDB in the request header at `at`."""
    return np.int64(mem[u64(at) + REQ_CDB])


@kernel
def is_write(opcode):
    """Does this opcode move data to the disk?"""
    return opcode in (WRITE_6, WRITE_10, WRITE_12, WRITE_16)


@kernel
def is_read(opcode):
    """Does this opcode move data from the disk?"""
    return opcode in (READ_6, READ_10, READ_12, READ_16)


@kernel
def cdb_lba(mem, at):
    """LBA of the READ or WRITE CDB in the request header at `at`."""
    cdb = u64(at) + REQ_CDB
    opcode = mem[cdb]
    if opcode in (READ_6, WRITE_6):
        return load_be(mem, cdb + ONE, 3) & 0x1FFFFF
    if opcode in (READ_16, WRITE_16):
        return load_be(mem, cdb + u64(2), 8)
    return load_be(mem, cdb + u64(2), 4)


@kernel
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
def write_response(mem, lines, core, at, response, status, resid, sense):
    """The 108-byte response; fixed-format sense of 96 bytes with CHECK CONDITION, as LIO has it."""
    touch_store(lines, core, at, RESP_SIZE)
    for i in range(13):
        store64(mem, u64(at) + u64(8 * i), 0)
    store32(mem, u64(at) + u64(104), 0)
    store32(mem, u64(at) + RESP_RESID, resid)
    mem[u64(at) + RESP_STATUS] = status
    mem[u64(at) + RESP_RESPONSE] = response
    if status == CHECK_CONDITION:
        store32(mem, u64(at) + RESP_SENSE_LEN, SENSE_SIZE)
        buffer = u64(at) + RESP_SENSE
        mem[buffer] = 0x70
        mem[buffer + u64(2)] = sense >> 16
        mem[buffer + u64(7)] = 0x0A
        mem[buffer + u64(12)] = (sense >> 8) & 0xFF
        mem[buffer + u64(13)] = sense & 0xFF


@kernel
def read_response(mem, lines, core, at):
    """What virtscsi_complete_cmd() looks at: (response << 8) | status."""
    touch_load(lines, core, at, 12)
    return (load32(mem, u64(at) + u64(8)) >> 16) & 0xFFFF
