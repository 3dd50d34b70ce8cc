"""The primary commands that the target answers from what it knows (target_core_spc.c).

Each takes the command `x`, writes data-in through sim.lio.payload and returns a sense.
"""

import numpy as np

from sim import scsi
from sim.jit import kernel
from sim.lio import lun as unit
from sim.lio.command import ONE, TWO, cdb_byte
from sim.lio.lun import (
    L_BLOCK_SIZE,
    L_BLOCKS,
    L_FLAGS,
    L_MODE_TABLE,
    L_OPCODE_TABLE,
    L_OPCODES,
    L_PAGE_TABLE,
    L_PAGES,
    L_PHYSICAL,
    L_PORT,
    L_PORT_GROUP,
    MODE_PAGES,
    STANDARD,
)
from sim.lio.payload import get, put, put_rom, rom_byte
from sim.se_cmd import X_LENGTH, X_LUN, X_NEXUS, X_RESID, X_SEGMENTS, X_UNDERFLOW

u64 = np.uint64

INQUIRY_BUFFER = 1024  # SE_INQUIRY_BUF, copied as a whole
SENSE_BUFFER = 96

# A row of the table of supported commands.
(
    C_OPCODE,
    C_ACTION,  # service action, -1 none
    C_CDB_SIZE,
    C_USAGE,  # constant bytes: which bits of the CDB count
    C_NEEDS,  # flags of the LUN without which it is not supported
    C_DPO_FUA,  # byte of the CDB with DPO and FUA, 0 none
) = map(u64, range(6))
OPCODE_WORDS = u64(6)


@kernel
def set_length(st, x, length):
    """target_set_cmd_data_length(): so many bytes were there to give."""
    unused = st[x + X_LENGTH] - length
    if unused > 0:
        st[x + X_RESID] = unused + (st[x + X_RESID] if st[x + X_UNDERFLOW] else 0)
        st[x + X_UNDERFLOW] = 1
        st[x + X_LENGTH] = length


@kernel
def inquiry(mem, st, x):
    """INQUIRY: the standard data, or a VPD page, from the LUN's table of pages."""
    lun = u64(st[x + X_LUN])
    page = cdb_byte(st, x, 2)
    if cdb_byte(st, x, 1) & 1 == 0:
        if page:
            return scsi.SENSE_INVALID_CDB_FIELD
        page = np.int64(STANDARD)
    row = u64(st[lun + L_PAGE_TABLE])
    for _ in range(st[lun + L_PAGES]):
        if st[row] == page:
            put_rom(mem, st, x, 0, st[row + TWO], st[row + ONE])
            for i in range(st[row + ONE], min(INQUIRY_BUFFER, st[x + X_LENGTH])):
                put(mem, st, x, i, 1, 0)
            set_length(st, x, st[row + ONE])
            return scsi.SENSE_NONE
        row += u64(3)
    return scsi.SENSE_INVALID_CDB_FIELD


@kernel
def request_sense(mem, st, x):
    """REQUEST SENSE: the unit attention that waits, as data, or no sense."""
    if cdb_byte(st, x, 1) & 1:
        return scsi.SENSE_INVALID_CDB_FIELD
    if st[x + X_SEGMENTS] == 0:
        return scsi.SENSE_COMMUNICATION_FAILURE  # nothing to map: transport_kmap_data_sg() fails
    lun = u64(st[x + X_LUN])
    attention = unit.take_attention(st, lun, st[x + X_NEXUS])
    sense = (scsi.UNIT_ATTENTION << 16) | attention if attention else np.int64(0)
    descriptor = 1 if unit.has(st, lun, unit.DESCRIPTOR_SENSE) else 0
    for i in range(min(SENSE_BUFFER, st[x + X_LENGTH])):
        put(mem, st, x, i, 1, scsi.sense_byte(i, sense, -1, descriptor))
    return scsi.SENSE_NONE


@kernel
def read_capacity(mem, st, x, ten):
    """READ CAPACITY (10), if `ten`, or (16)."""
    lun = u64(st[x + X_LUN])
    last = st[lun + L_BLOCKS] - 1
    if ten:
        lba = 0
        for i in range(2, 6):
            lba |= cdb_byte(st, x, i)
        if lba and cdb_byte(st, x, 8) & 1 == 0:
            return scsi.SENSE_INVALID_CDB_FIELD
        put(mem, st, x, 0, 4, min(last, 0xFFFFFFFF))
        put(mem, st, x, 4, 4, st[lun + L_BLOCK_SIZE])
        set_length(st, x, 8)
        return scsi.SENSE_NONE
    put(mem, st, x, 0, 8, last)
    put(mem, st, x, 8, 4, st[lun + L_BLOCK_SIZE])
    put(mem, st, x, 12, 1, 0)
    put(mem, st, x, 13, 1, st[lun + L_PHYSICAL])
    thin = 0
    if st[lun + L_FLAGS] & (unit.TPU | unit.TPWS):
        thin = 0xC0 if unit.has(st, lun, unit.UNMAP_ZEROES) else 0x80
    put(mem, st, x, 14, 1, thin)
    for i in range(15, 32):
        put(mem, st, x, i, 1, 0)
    set_length(st, x, 32)
    return scsi.SENSE_NONE


# ---------------------------------------------------------------------------------- mode pages ----


@kernel
def _mode_page(mem, st, x, row, offset, current):
    """One mode page; its changeable values are all zero. Returns its length."""
    size = st[row + ONE]
    put_rom(mem, st, x, offset, st[row + TWO], size if current else np.int64(2))
    if not current:
        for i in range(2, size):
            put(mem, st, x, offset + i, 1, 0)
    return size


@kernel
def _mode_header(mem, st, x, ten):
    """Parameter header and block descriptor; returns how long they are."""
    lun = u64(st[x + X_LUN])
    flags = cdb_byte(st, x, 1)
    long_lba = ten and flags & 0x10 != 0
    specific = 0x80 if unit.has(st, lun, unit.WRITE_PROTECTED) else 0
    if unit.fua_allowed(st, lun):
        specific |= 0x10
    length = 8 if ten else 4
    for i in range(length):
        put(mem, st, x, i, 1, 0)
    put(mem, st, x, 3 if ten else 2, 1, specific)
    if flags & 0x08:  # DBD
        return length
    last = st[lun + L_BLOCKS] - 1  # LIO puts its get_blocks() here, which is the last LBA
    if long_lba and last > 0xFFFFFFFF:
        put(mem, st, x, 4, 1, 1)
        put(mem, st, x, 7, 1, 16)
        put(mem, st, x, 8, 8, last)
        put(mem, st, x, 16, 4, 0)
        put(mem, st, x, 20, 4, st[lun + L_BLOCK_SIZE])
        return length + 16
    put(mem, st, x, length - 1, 1, 8)
    put(mem, st, x, length, 4, min(last, 0xFFFFFFFF))
    put(mem, st, x, length + 4, 4, st[lun + L_BLOCK_SIZE])
    return length + 8


@kernel
def mode_sense(mem, st, x):
    """MODE SENSE (6) and (10): pages 01h, 08h, 0Ah, 1Ch, or 3Fh for all of them."""
    ten = cdb_byte(st, x, 0) == scsi.MODE_SENSE_10
    control, page, subpage = cdb_byte(st, x, 2) >> 6, cdb_byte(st, x, 2) & 0x3F, cdb_byte(st, x, 3)
    every = page == 0x3F
    if every and subpage not in (0, 0xFF):
        return scsi.SENSE_INVALID_CDB_FIELD
    length = _mode_header(mem, st, x, ten)
    row = u64(st[u64(st[x + X_LUN]) + L_MODE_TABLE])
    found = False
    for _ in range(MODE_PAGES):
        if every or (st[row] == page and subpage == 0):
            length += _mode_page(mem, st, x, row, length, control != 1)
            found = True
        row += u64(3)
    if not found:
        return scsi.SENSE_INVALID_CDB_FIELD
    if ten:
        put(mem, st, x, 0, 2, length - 2)
    else:
        put(mem, st, x, 0, 1, length - 1)
    set_length(st, x, length)
    return scsi.SENSE_NONE


@kernel
def mode_select(mem, st, x):
    """MODE SELECT: LIO changes nothing; it accepts a page that is identical to the current one."""
    start = 8 if cdb_byte(st, x, 0) == scsi.MODE_SELECT_10 else 4
    length = st[x + X_LENGTH]
    if length == 0:
        return scsi.SENSE_NONE
    if length < start + 2:
        return scsi.SENSE_PARAMETER_LIST_LENGTH
    if cdb_byte(st, x, 1) & 0x10 == 0:  # PF
        return scsi.SENSE_INVALID_CDB_FIELD
    head = get(mem, st, x, start, 1)
    subpage = get(mem, st, x, start + 1, 1) if head & 0x40 else np.int64(0)
    row = u64(st[u64(st[x + X_LUN]) + L_MODE_TABLE])
    for _ in range(MODE_PAGES):
        if st[row] == head & 0x3F and subpage == 0:
            size = st[row + ONE]
            if length < start + size:
                return scsi.SENSE_PARAMETER_LIST_LENGTH
            for i in range(size):
                if get(mem, st, x, start + i, 1) != rom_byte(st, st[row + TWO], i):
                    return scsi.SENSE_INVALID_PARAMETER_LIST
            return scsi.SENSE_NONE
        row += u64(3)
    return scsi.SENSE_INVALID_CDB_FIELD


# ------------------------------------------------------------------------------ LUNs and ports ----


@kernel
def report_luns(mem, st, x, numbers, count):
    """REPORT LUNS: raw 16-bit numbers, the LUN that was mapped last first; none: LUN 0.

    `numbers` is where the list of LUN numbers lies, in the order in which they were mapped.
    """
    for i in range(count):
        number = st[u64(numbers) + u64(count - 1 - i)]
        put(mem, st, x, 8 + 8 * i, 8, number << 48)
    if count == 0:
        put(mem, st, x, 8, 8, 0)
        count = 1
    put(mem, st, x, 0, 4, 8 * count)
    put(mem, st, x, 4, 4, 0)
    set_length(st, x, 8 + 8 * count)
    return scsi.SENSE_NONE


@kernel
def report_target_port_groups(mem, st, x):
    """REPORT TARGET PORT GROUPS: the default group, active/optimised, with one port."""
    extended = cdb_byte(st, x, 1) & 0x20 != 0
    offset = 8 if extended else 4
    if st[x + X_LENGTH] < offset:
        return scsi.SENSE_INVALID_CDB_FIELD
    lun = u64(st[x + X_LUN])
    put(mem, st, x, 0, 4, 12)
    if extended:
        put(mem, st, x, 4, 4, 0x10000000)
    if offset + 12 <= st[x + X_LENGTH]:
        put(mem, st, x, offset, 2, 0x00CF)  # active/optimised; every state is supported
        put(mem, st, x, offset + 2, 2, st[lun + L_PORT_GROUP])
        put(mem, st, x, offset + 4, 4, 1)
        put(mem, st, x, offset + 8, 4, st[lun + L_PORT])
    set_length(st, x, 16)
    return scsi.SENSE_NONE


@kernel
def _supported(st, lun, row):
    return st[lun + L_FLAGS] & st[row + C_NEEDS] == st[row + C_NEEDS]


@kernel
def _timeouts(mem, st, x, offset):
    """The command timeouts descriptor: none is specified."""
    put(mem, st, x, offset, 4, 0x000A0000)
    put(mem, st, x, offset + 4, 8, 0)
    return offset + 12


@kernel
def _all_opcodes(mem, st, x, lun, timeouts):
    offset = 4
    row = u64(st[lun + L_OPCODE_TABLE])
    for _ in range(st[lun + L_OPCODES]):
        if _supported(st, lun, row):
            action = st[row + C_ACTION]
            put(mem, st, x, offset, 2, st[row + C_OPCODE] << 8)
            put(mem, st, x, offset + 2, 2, max(action, 0))
            put(mem, st, x, offset + 4, 2, (1 if action >= 0 else 0) | (timeouts << 1))
            put(mem, st, x, offset + 6, 2, st[row + C_CDB_SIZE])
            offset += 8
            if timeouts:
                offset = _timeouts(mem, st, x, offset)
        row += OPCODE_WORDS
    put(mem, st, x, 0, 4, offset - 3)  # LIO counts one byte too many
    set_length(st, x, offset)


@kernel
def _one_opcode(mem, st, x, lun, row, timeouts):
    """The answer about one command; `row` 0: it is not supported."""
    if row == u64(0):
        put(mem, st, x, 0, 2, (timeouts << 7) | 1)
        set_length(st, x, 2)
        return
    size = st[row + C_CDB_SIZE]
    put(mem, st, x, 0, 2, (timeouts << 7) | 3)
    put(mem, st, x, 2, 2, size)
    put_rom(mem, st, x, 4, st[row + C_USAGE], size)
    if st[row + C_DPO_FUA] and not unit.fua_allowed(st, lun):
        place = st[row + C_DPO_FUA]
        put(mem, st, x, 4 + place, 1, rom_byte(st, st[row + C_USAGE], place) & ~0x18)
    offset = 4 + size
    if timeouts:
        offset = _timeouts(mem, st, x, offset)
    set_length(st, x, offset)


@kernel
def report_supported_opcodes(mem, st, x):
    """REPORT SUPPORTED OPERATION CODES: all, or one by opcode and service action."""
    lun = u64(st[x + X_LUN])
    timeouts, option = cdb_byte(st, x, 2) >> 7, cdb_byte(st, x, 2) & 3
    if option == 0:
        _all_opcodes(mem, st, x, lun, timeouts)
        return scsi.SENSE_NONE
    wanted = cdb_byte(st, x, 3)
    action = (cdb_byte(st, x, 4) << 8) | cdb_byte(st, x, 5)
    found = u64(0)
    row = u64(st[lun + L_OPCODE_TABLE])
    for _ in range(st[lun + L_OPCODES]):
        if st[row + C_OPCODE] == wanted:
            has_action = st[row + C_ACTION] >= 0
            if (option == 1 and has_action) or (option == 2 and not has_action):
                return scsi.SENSE_INVALID_CDB_FIELD
            if option == 1 or max(st[row + C_ACTION], 0) == action:
                found = row if _supported(st, lun, row) else u64(0)
        row += OPCODE_WORDS
    _one_opcode(mem, st, x, lun, found, timeouts)
    return scsi.SENSE_NONE


@kernel
def start_stop_unit(st, x):
    """START STOP UNIT: LIO accepts IMMED and START, nothing else."""
    power = cdb_byte(st, x, 4)
    if cdb_byte(st, x, 1) & 1 == 0 or cdb_byte(st, x, 2) or cdb_byte(st, x, 3):
        return scsi.SENSE_INVALID_CDB_FIELD
    if power >> 4 or power & 1 == 0 or power & 6:
        return scsi.SENSE_INVALID_CDB_FIELD
    return scsi.SENSE_NONE
