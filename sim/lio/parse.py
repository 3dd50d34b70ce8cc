"""sbc_parse_cdb() and spc_parse_cdb(): what a CDB asks for, checked in LIO's order.

Fields that LIO does not look at are not looked at here. The order of the checks decides which
error a CDB with several of them meets: flags, then range, then the length of the data.
"""

import numpy as np

from sim import scsi
from sim.jit import kernel
from sim.lio import lun as unit
from sim.lio.command import (
    E_CAPACITY_10,
    E_CAPACITY_16,
    E_COMPARE,
    E_INQUIRY,
    E_MEDIUM,
    E_MODE_SELECT,
    E_MODE_SENSE,
    E_NOOP,
    E_OPCODES,
    E_PORT_GROUPS,
    E_PR_IN,
    E_PR_OUT,
    E_RELEASE,
    E_REPORT_LUNS,
    E_REQUEST_SENSE,
    E_RESERVE,
    E_START_STOP,
    E_UNMAP,
    E_WRITE_SAME,
    ONE,
    cdb_byte,
    cdb_field,
)
from sim.lio.lun import L_BLOCK_SIZE, L_BLOCKS, L_MAX_WRITE_SAME, L_OPCODES
from sim.se_cmd import (
    FROM_DEVICE,
    OP_DISCARD,
    OP_FLUSH,
    OP_READ,
    OP_WRITE,
    TO_DEVICE,
    X_BLOCKS,
    X_CDB,
    X_DIRECTION,
    X_EXECUTE,
    X_EXPECTED,
    X_FUA,
    X_LBA,
    X_LENGTH,
    X_OP,
    X_RESID,
    X_SEGMENTS,
    X_SPACE,
    X_UNDERFLOW,
)

u64 = np.uint64


@kernel
def size_check(st, x, lun, size, block_data):
    """target_cmd_size_check(): the CDB's `size` bytes against those in the buffers.

    `block_data` marks the commands that move blocks (SCF_SCSI_DATA_CDB). Sets residual and data
    length; returns a sense.
    """
    expected = st[x + X_EXPECTED]
    if size == expected:
        return scsi.SENSE_NONE
    st[x + X_RESID] = abs(size - expected)
    st[x + X_UNDERFLOW] = 1 if size < expected else 0
    if st[x + X_DIRECTION] == TO_DEVICE:
        if block_data:
            return scsi.SENSE_TRANSFER_LENGTH
        return scsi.SENSE_INVALID_CDB_FIELD if size > expected else scsi.SENSE_NONE
    if size < expected and st[x + X_DIRECTION] == FROM_DEVICE:
        st[x + X_LENGTH] = size
    # transport_generic_map_mem_to_cmd(): vhost-scsi brings its own pages.
    if size > expected and st[x + X_SEGMENTS] and unit.has(st, lun, unit.REFUSE_OVERFLOW):
        return scsi.SENSE_INVALID_CDB_FIELD
    return scsi.SENSE_NONE


@kernel
def _out_of_range(st, lun, lba, blocks):
    """LIO's rule lba + blocks > last + 1; an LBA of 2^63 and more is negative here."""
    return lba < 0 or lba > st[lun + L_BLOCKS] - blocks


@kernel
def _bytes_of(st, lun, blocks):
    """sbc_get_size(), which is a u32."""
    return (blocks * st[lun + L_BLOCK_SIZE]) & 0xFFFFFFFF


@kernel
def _aim(st, x, lun, lba, sectors):
    """Where on the medium the command acts."""
    st[x + X_LBA] = lba * (st[lun + L_BLOCK_SIZE] >> 9)
    st[x + X_BLOCKS] = sectors
    if sectors == 0 or unit.has(st, lun, unit.NULL_IO):
        st[x + X_BLOCKS] = 0
        st[x + X_EXECUTE] = E_NOOP


@kernel
def _read_or_write(st, x, lun, flags, lba, blocks):
    """The direction of the data decides what the disk does, not the opcode (execute_rw)."""
    if flags:
        if flags & 0x18 and not unit.fua_allowed(st, lun):
            return scsi.SENSE_INVALID_CDB_FIELD
        if flags >> 5:  # PROTECT, on a device without protection information
            return scsi.SENSE_INVALID_CDB_FIELD
        st[x + X_FUA] = (flags >> 3) & 1
    if _out_of_range(st, lun, lba, blocks):
        return scsi.SENSE_LBA_OUT_OF_RANGE
    size = _bytes_of(st, lun, blocks)
    sense = size_check(st, x, lun, size, True)
    if sense:
        return sense
    to_device = st[x + X_DIRECTION] == TO_DEVICE
    st[x + X_OP] = OP_WRITE if to_device else OP_READ
    st[x + X_EXECUTE] = E_MEDIUM
    _aim(st, x, lun, lba, min(size, st[x + X_LENGTH], st[x + X_SPACE]) >> 9)
    return scsi.SENSE_NONE


@kernel
def _flush_or_verify(st, x, lun, lba, blocks):
    """SYNCHRONIZE CACHE and VERIFY: the range counts as data in the size check, as in LIO."""
    if _out_of_range(st, lun, lba, blocks):
        return scsi.SENSE_LBA_OUT_OF_RANGE
    return size_check(st, x, lun, _bytes_of(st, lun, blocks), False)


@kernel
def _write_same(st, x, lun, flags, lba, blocks):
    """sbc_setup_write_same()."""
    if blocks == 0:
        return scsi.SENSE_INVALID_CDB_FIELD  # WSNZ = 1
    if flags & 0x06:
        return scsi.SENSE_UNKNOWN_OPCODE
    if blocks > st[lun + L_MAX_WRITE_SAME]:
        return scsi.SENSE_INVALID_CDB_FIELD
    if _out_of_range(st, lun, lba, blocks):
        return scsi.SENSE_LBA_OUT_OF_RANGE
    if flags & 0x11:  # ANCHOR, NDOB
        return scsi.SENSE_INVALID_CDB_FIELD
    sectors = blocks * (st[lun + L_BLOCK_SIZE] >> 9)
    if flags & 0x08:
        if not unit.has(st, lun, unit.TPWS):
            return scsi.SENSE_UNKNOWN_OPCODE
        st[x + X_EXECUTE] = E_MEDIUM
        st[x + X_OP] = OP_DISCARD
    else:
        if flags >> 5:
            return scsi.SENSE_INVALID_CDB_FIELD
        st[x + X_EXECUTE] = E_WRITE_SAME
        st[x + X_OP] = OP_WRITE
    sense = size_check(st, x, lun, st[lun + L_BLOCK_SIZE], False)
    if not sense:
        _aim(st, x, lun, lba, sectors)
    return sense


@kernel
def _compare_and_write(st, x, lun):
    """COMPARE AND WRITE of at most one block; the data are the block compared, then the new one."""
    flags, blocks = cdb_byte(st, x, 1), cdb_byte(st, x, 13)
    if not unit.has(st, lun, unit.COMPARE_AND_WRITE):
        return scsi.SENSE_UNKNOWN_OPCODE
    if blocks > 1 or (flags & 0x18 and not unit.fua_allowed(st, lun)):
        return scsi.SENSE_INVALID_CDB_FIELD
    st[x + X_FUA] = (flags >> 3) & 1
    lba = cdb_field(st, x, 2, 8)
    if _out_of_range(st, lun, lba, blocks):
        return scsi.SENSE_LBA_OUT_OF_RANGE
    sense = size_check(st, x, lun, 2 * _bytes_of(st, lun, blocks), True)
    if sense:
        return sense
    st[x + X_EXECUTE] = E_COMPARE
    st[x + X_OP] = OP_WRITE
    _aim(st, x, lun, lba, blocks * (st[lun + L_BLOCK_SIZE] >> 9))
    return scsi.SENSE_NONE


@kernel
def _emulate(st, x, lun, execute, size):
    """A command that the target answers from what it knows."""
    st[x + X_EXECUTE] = execute
    return size_check(st, x, lun, size, False)


@kernel
def _maintenance_in(st, x, lun):
    action, size = cdb_byte(st, x, 1) & 0x1F, cdb_field(st, x, 6, 4)
    if action == scsi.REPORT_TARGET_PORT_GROUPS:
        return _emulate(st, x, lun, E_PORT_GROUPS, size)
    if action == scsi.REPORT_SUPPORTED_OPCODES and st[lun + L_OPCODES]:
        return _emulate(st, x, lun, E_OPCODES, size)
    return scsi.SENSE_UNKNOWN_OPCODE


@kernel
def _primary(st, x, lun, opcode):
    """spc_parse_cdb()."""
    if opcode == scsi.TEST_UNIT_READY:
        return _emulate(st, x, lun, E_NOOP, 0)
    if opcode == scsi.INQUIRY:
        return _emulate(st, x, lun, E_INQUIRY, cdb_field(st, x, 3, 2))
    if opcode == scsi.REQUEST_SENSE:
        return _emulate(st, x, lun, E_REQUEST_SENSE, cdb_byte(st, x, 4))
    if opcode == scsi.REPORT_LUNS:
        return _emulate(st, x, lun, E_REPORT_LUNS, cdb_field(st, x, 6, 4))
    if opcode == scsi.MODE_SENSE_6:
        return _emulate(st, x, lun, E_MODE_SENSE, cdb_byte(st, x, 4))
    if opcode == scsi.MODE_SENSE_10:
        return _emulate(st, x, lun, E_MODE_SENSE, cdb_field(st, x, 7, 2))
    if opcode == scsi.MODE_SELECT_6:
        return _emulate(st, x, lun, E_MODE_SELECT, cdb_byte(st, x, 4))
    if opcode == scsi.MODE_SELECT_10:
        return _emulate(st, x, lun, E_MODE_SELECT, cdb_field(st, x, 7, 2))
    if opcode == scsi.PERSISTENT_RESERVE_IN:
        return _emulate(st, x, lun, E_PR_IN, cdb_field(st, x, 7, 2))
    if opcode == scsi.PERSISTENT_RESERVE_OUT:
        return _emulate(st, x, lun, E_PR_OUT, cdb_field(st, x, 5, 4))
    if opcode in (scsi.RESERVE_6, scsi.RELEASE_6):  # no length in the CDB: what the fabric says
        execute = E_RESERVE if opcode == scsi.RESERVE_6 else E_RELEASE
        return _emulate(st, x, lun, execute, st[x + X_EXPECTED])
    if opcode in (scsi.RESERVE_10, scsi.RELEASE_10):
        execute = E_RESERVE if opcode == scsi.RESERVE_10 else E_RELEASE
        return _emulate(st, x, lun, execute, cdb_field(st, x, 7, 2))
    if opcode == scsi.MAINTENANCE_IN:
        return _maintenance_in(st, x, lun)
    return scsi.SENSE_UNKNOWN_OPCODE


@kernel
def _block(st, x, lun, opcode):
    """The rest of sbc_parse_cdb(): all block commands but READ and WRITE of 10 and 16 bytes."""
    flags = cdb_byte(st, x, 1)
    if opcode in (scsi.READ_6, scsi.WRITE_6):
        blocks = cdb_byte(st, x, 4)
        lba = cdb_field(st, x, 1, 3) & 0x1FFFFF
        return _read_or_write(st, x, lun, 0, lba, blocks if blocks else np.int64(256))
    if opcode in (scsi.READ_12, scsi.WRITE_12):
        lba, blocks = cdb_field(st, x, 2, 4), cdb_field(st, x, 6, 4)
        return _read_or_write(st, x, lun, flags, lba, blocks)
    if opcode == scsi.WRITE_VERIFY_10:
        lba, blocks = cdb_field(st, x, 2, 4), cdb_field(st, x, 7, 2)
        return _read_or_write(st, x, lun, flags, lba, blocks)
    if opcode in (scsi.SYNCHRONIZE_CACHE_10, scsi.SYNCHRONIZE_CACHE_16):
        flush = not unit.has(st, lun, unit.NULL_IO)
        st[x + X_EXECUTE] = E_MEDIUM if flush else E_NOOP
        st[x + X_OP] = OP_FLUSH
        if not flush:  # a backend without execute_sync_cache: no check of the range
            return size_check(st, x, lun, 0, False)
    elif opcode in (scsi.VERIFY_10, scsi.VERIFY_16):
        st[x + X_EXECUTE] = E_NOOP
    elif opcode == scsi.WRITE_SAME_10:
        lba, blocks = cdb_field(st, x, 2, 4), cdb_field(st, x, 7, 2)
        return _write_same(st, x, lun, flags, lba, blocks)
    elif opcode == scsi.WRITE_SAME_16:
        lba, blocks = cdb_field(st, x, 2, 8), cdb_field(st, x, 10, 4)
        return _write_same(st, x, lun, flags, lba, blocks)
    elif opcode == scsi.VARIABLE_LENGTH:
        if cdb_field(st, x, 8, 2) != scsi.WRITE_SAME_32:
            return scsi.SENSE_UNKNOWN_OPCODE
        lba, blocks = cdb_field(st, x, 12, 8), cdb_field(st, x, 28, 4)
        return _write_same(st, x, lun, cdb_byte(st, x, 10), lba, blocks)
    elif opcode == scsi.COMPARE_AND_WRITE:
        return _compare_and_write(st, x, lun)
    elif opcode == scsi.UNMAP:
        if not unit.has(st, lun, unit.TPU):
            return scsi.SENSE_UNKNOWN_OPCODE
        st[x + X_OP] = OP_DISCARD
        return _emulate(st, x, lun, E_UNMAP, cdb_field(st, x, 7, 2))
    elif opcode == scsi.READ_CAPACITY_10:
        return _emulate(st, x, lun, E_CAPACITY_10, 8)
    elif opcode == scsi.SERVICE_ACTION_IN_16:
        if flags & 0x1F == scsi.READ_CAPACITY_16:
            return _emulate(st, x, lun, E_CAPACITY_16, cdb_field(st, x, 10, 4))
        if flags & 0x1F == scsi.REPORT_REFERRALS:
            return scsi.SENSE_UNKNOWN_OPCODE  # no map of LBAs
        return scsi.SENSE_INVALID_CDB_FIELD
    elif opcode == scsi.START_STOP_UNIT:
        return _emulate(st, x, lun, E_START_STOP, 0)
    elif opcode in (scsi.REZERO_UNIT, scsi.SEEK_6, scsi.SEEK_10):
        return _emulate(st, x, lun, E_NOOP, 0)
    else:
        return _primary(st, x, lun, opcode)
    if opcode in (scsi.SYNCHRONIZE_CACHE_10, scsi.VERIFY_10):
        return _flush_or_verify(st, x, lun, cdb_field(st, x, 2, 4), cdb_field(st, x, 7, 2))
    return _flush_or_verify(st, x, lun, cdb_field(st, x, 2, 8), cdb_field(st, x, 10, 4))


@kernel
def parse(st, x, lun):
    """Decode the command's CDB for a LUN; returns a sense, SENSE_NONE if it may run."""
    word, next_word = st[x + X_CDB], st[x + X_CDB + ONE]
    opcode = (word >> 56) & 0xFF
    if opcode in (scsi.READ_10, scsi.WRITE_10):
        lba = (word >> 16) & 0xFFFFFFFF
        blocks = ((word & 0xFF) << 8) | ((next_word >> 56) & 0xFF)
        return _read_or_write(st, x, lun, (word >> 48) & 0xFF, lba, blocks)
    if opcode in (scsi.READ_16, scsi.WRITE_16, scsi.WRITE_VERIFY_16):
        lba = (word << 16) | ((next_word >> 48) & 0xFFFF)
        blocks = (next_word >> 16) & 0xFFFFFFFF
        return _read_or_write(st, x, lun, (word >> 48) & 0xFF, lba, blocks)
    return _block(st, x, lun, opcode)
