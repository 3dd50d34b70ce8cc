"""Blocks: what READ, WRITE and their kin do to the medium (target_core_sbc.c, _iblock.c).

The medium keeps one 64-bit word per sector of 512 bytes: the first eight bytes of what was written
there. It is stored so that a sector nobody ever wrote costs nothing and reads as
record.blank_stamp(): media[i] holds the word xor the blank stamp of its sector.
"""

import numpy as np

from sim import record, scsi
from sim.agents import H_WRITTEN
from sim.jit import kernel
from sim.layout import PAGE_SIZE
from sim.lio import lun as unit
from sim.lio.command import E_COMPARE, E_UNMAP, E_WRITE_SAME, ONE, TWO, cdb_byte
from sim.lio.lun import (
    L_BLOCK_SIZE,
    L_BLOCKS,
    L_MAX_UNMAP_BLOCKS,
    L_MAX_UNMAP_RANGES,
    L_MEDIA,
)
from sim.lio.payload import get, get64, put64
from sim.memory import load64, store64
from sim.se_cmd import (
    OP_DISCARD,
    OP_FLUSH,
    OP_READ,
    OP_WRITE,
    TO_DEVICE,
    X_BLOCKS,
    X_DATA,
    X_DIRECTION,
    X_EXECUTE,
    X_INFO,
    X_LBA,
    X_LENGTH,
    X_LUN,
    X_OP,
    X_SEGMENTS,
    X_SENSE,
    X_STATUS,
)

u64 = np.uint64

SECTOR = 512


@kernel(inline=True)
def read_sector(media, first, sector):
    """The word of a sector of the LUN whose blocks begin at `first`."""
    return media[u64(first + sector)] ^ record.blank_stamp(sector)


@kernel(inline=True)
def write_sector(media, first, sector, value):
    """Set the word of a sector."""
    media[u64(first + sector)] = value ^ record.blank_stamp(sector)


@kernel
def _move(mem, st, media, x):
    """READ or WRITE: the words at the head of each 512 bytes of the data, to or from the medium."""
    first, lba = st[u64(st[x + X_LUN]) + L_MEDIA], st[x + X_LBA]
    write = st[x + X_OP] == OP_WRITE
    written = st[H_WRITTEN]  # a medium that nobody wrote to need not be looked at
    segment = x + X_DATA
    at, left = st[segment], st[segment + ONE]
    for i in range(st[x + X_BLOCKS]):
        while left <= 0:
            segment += TWO
            at = st[segment] - left  # -left bytes of it belong to the sector before
            left += st[segment + ONE]
        if left >= 8:
            if write:
                write_sector(media, first, lba + i, load64(mem, u64(at)))
            else:
                word = record.blank_stamp(lba + i)
                if written:
                    word = read_sector(media, first, lba + i)
                store64(mem, u64(at), word)
        elif write:
            write_sector(media, first, lba + i, get64(mem, st, x, SECTOR * i))
        else:
            put64(mem, st, x, SECTOR * i, read_sector(media, first, lba + i))
        at += SECTOR
        left -= SECTOR


@kernel
def _discard(st, media, lun, sector, sectors):
    """Sectors that are unmapped read as zeroes, or as if nobody had written them."""
    zeroes = unit.has(st, lun, unit.UNMAP_ZEROES)
    first = st[lun + L_MEDIA]
    for i in range(sector, sector + sectors):
        write_sector(media, first, i, np.int64(0) if zeroes else record.blank_stamp(i))


@kernel
def _unmap_range(mem, st, x, index):
    """(LBA, blocks, sense) of a descriptor of the UNMAP list, and whether it may be unmapped."""
    lun = u64(st[x + X_LUN])
    lba, blocks = get(mem, st, x, 8 + 16 * index, 8), get(mem, st, x, 16 + 16 * index, 4)
    if blocks > st[lun + L_MAX_UNMAP_BLOCKS]:
        return lba, blocks, scsi.SENSE_INVALID_PARAMETER_LIST
    if lba < 0 or lba > st[lun + L_BLOCKS] - blocks:
        return lba, blocks, scsi.SENSE_LBA_OUT_OF_RANGE
    return lba, blocks, scsi.SENSE_NONE


@kernel
def _unmap_ranges(mem, st, x):
    """How many descriptors the list has, as far as the data go."""
    return min(get(mem, st, x, 2, 2), st[x + X_LENGTH] - 8) // 16


@kernel
def unmap(mem, st, x):
    """sbc_execute_unmap(): check the list, and returns a sense.

    X_BLOCKS is 0 when there is nothing for the disk to do. LIO unmaps descriptor by descriptor, up
    to one that is bad; here a list with a bad descriptor unmaps nothing.
    """
    st[x + X_BLOCKS] = 0
    lun = u64(st[x + X_LUN])
    if cdb_byte(st, x, 1):
        return scsi.SENSE_INVALID_CDB_FIELD
    if st[x + X_LENGTH] == 0:
        return scsi.SENSE_NONE
    if st[x + X_LENGTH] < 8:
        return scsi.SENSE_PARAMETER_LIST_LENGTH
    ranges = _unmap_ranges(mem, st, x)
    if ranges > st[lun + L_MAX_UNMAP_RANGES]:
        return scsi.SENSE_INVALID_PARAMETER_LIST
    scale = st[lun + L_BLOCK_SIZE] >> 9
    for index in range(ranges):
        lba, blocks, sense = _unmap_range(mem, st, x, index)
        if sense:
            return sense
        if index == 0:
            st[x + X_LBA] = lba * scale
        st[x + X_BLOCKS] += blocks * scale
    return scsi.SENSE_NONE


@kernel
def write_same(st, x):
    """iblock_execute_write_same(): the block must lie in one page, alone."""
    size = st[u64(st[x + X_LUN]) + L_BLOCK_SIZE]
    if st[x + X_SEGMENTS] != 1 or st[x + X_DATA + ONE] != size:
        return scsi.SENSE_INVALID_CDB_FIELD
    if st[x + X_DATA] % PAGE_SIZE + size > PAGE_SIZE:
        return scsi.SENSE_INVALID_CDB_FIELD
    return scsi.SENSE_NONE


@kernel
def _repeat(mem, st, media, x):
    """WRITE SAME: the one block of the data over the whole range."""
    lun = u64(st[x + X_LUN])
    per_block = st[lun + L_BLOCK_SIZE] >> 9
    for i in range(st[x + X_BLOCKS]):
        value = get64(mem, st, x, SECTOR * (i % per_block))
        write_sector(media, st[lun + L_MEDIA], st[x + X_LBA] + i, value)


@kernel
def _differs_at(a, b):
    """Index of the first byte in which two little-endian words differ, 8 if in none."""
    for i in range(8):
        if (a ^ b) >> (8 * i) & 0xFF:
            return i
    return 8


@kernel
def _compare(mem, st, media, x):
    """COMPARE AND WRITE: the first half of the data must be what the medium holds."""
    lun = u64(st[x + X_LUN])
    first, sectors = st[lun + L_MEDIA], st[x + X_BLOCKS]
    for i in range(sectors):
        held = read_sector(media, first, st[x + X_LBA] + i)
        byte = _differs_at(held, get64(mem, st, x, SECTOR * i))
        if byte < 8:
            st[x + X_STATUS] = scsi.CHECK_CONDITION
            st[x + X_SENSE] = scsi.SENSE_MISCOMPARE
            st[x + X_INFO] = SECTOR * i + byte
            return
    if st[x + X_DIRECTION] == TO_DEVICE:
        for i in range(sectors):
            value = get64(mem, st, x, SECTOR * (sectors + i))
            write_sector(media, first, st[x + X_LBA] + i, value)


@kernel
def _discard_listed(mem, st, media, x):
    """UNMAP: what the list says, which the guest may have written over since it was checked."""
    lun = u64(st[x + X_LUN])
    scale = st[lun + L_BLOCK_SIZE] >> 9
    for index in range(min(_unmap_ranges(mem, st, x), st[lun + L_MAX_UNMAP_RANGES])):
        lba, blocks, sense = _unmap_range(mem, st, x, index)
        if not sense:
            _discard(st, media, lun, lba * scale, blocks * scale)


@kernel
def transfer(mem, st, media, x):
    """What a command does to the medium and to guest memory, at the moment the disk is done."""
    execute = st[x + X_EXECUTE]
    if execute or st[x + X_OP] != OP_READ:
        st[H_WRITTEN] = 1
    if execute == E_COMPARE:
        _compare(mem, st, media, x)
    elif execute == E_WRITE_SAME:
        _repeat(mem, st, media, x)
    elif execute == E_UNMAP:
        _discard_listed(mem, st, media, x)
    elif st[x + X_OP] == OP_DISCARD:
        _discard(st, media, u64(st[x + X_LUN]), st[x + X_LBA], st[x + X_BLOCKS])
    elif st[x + X_BLOCKS] and st[x + X_OP] != OP_FLUSH:
        _move(mem, st, media, x)
