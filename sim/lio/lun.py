"""The state of a LUN: struct se_device with the part of struct se_dev_entry that a nexus has.

A LUN's stretch has these fields; a table of nexuses, a table of pages and constant bytes lie
elsewhere and are pointed to. A *nexus* is an initiator as the LUN knows it (struct se_session): its
registration key and its queue of unit attentions.
"""

import numpy as np

from sim.jit import kernel
from sim.lio.command import ONE
from sim.se_cmd import X_LUN, X_NEXUS

u64 = np.uint64

(
    L_NUMBER,
    L_BLOCKS,
    L_BLOCK_SIZE,
    L_MEDIA,  # where its blocks begin in the media array, in sectors of 512 bytes
    L_FLAGS,
    L_DISK,  # base of the disk agent that it lies on
    L_GUARDED,  # not 0: something must be looked at before a command runs
    L_NEXUSES,  # how many
    L_NEXUS_TABLE,
    L_PAGES,  # how many INQUIRY pages
    L_PAGE_TABLE,  # triples: page code (STANDARD for none), bytes, where
    L_MODE_TABLE,  # the same for mode pages
    L_OPCODES,  # rows of the table of supported commands, 0: the kernel does not report them
    L_OPCODE_TABLE,
    L_MAX_WRITE_SAME,
    L_MAX_UNMAP_BLOCKS,
    L_MAX_UNMAP_RANGES,
    L_PHYSICAL,  # log2 of logical blocks per physical block
    L_PORT_GROUP,
    L_PORT,  # relative target port identifier
    L_LEGACY_HOLDER,  # nexus that holds RESERVE, -1 none
    L_HOLDER,  # nexus that holds the persistent reservation, -1 none
    L_TYPE,
    L_SCOPE,
    L_GENERATION,
    L_APTPL,
    L_REGISTRATIONS,  # serial number of the last registration
) = map(u64, range(27))
LUN_WORDS = 27

STANDARD = -1  # page code of the standard INQUIRY data
MODE_PAGES = 4

# Flags, by the names of LIO's device attributes.
WRITE_PROTECTED = 1
WRITE_CACHE = 2  # emulate_write_cache, or the disk has one
FUA_WRITE = 4  # emulate_fua_write: DPO and FUA count, given a write cache
TPU = 8  # emulate_tpu: UNMAP
TPWS = 16  # emulate_tpws: WRITE SAME with UNMAP
UNMAP_ZEROES = 32  # unmap_zeroes_data
COMPARE_AND_WRITE = 64  # emulate_caw
NULL_IO = 128  # the virtual LUN 0: reads move nothing
DESCRIPTOR_SENSE = 256  # more than 2^32 blocks
REFUSE_OVERFLOW = 512  # a CDB that wants more than the buffers have is an error also when it reads

# A nexus.
(
    N_ORDER,  # serial number of its registration, 0: not registered
    N_KEY,
    N_ALL_PORTS,
    N_TRANSPORT_ID,  # constant bytes
    N_TRANSPORT_ID_SIZE,
    N_PROTOCOL,
    N_ATTENTIONS,  # how many unit attentions wait
    N_ATTENTION_LIST,  # (ASC << 8) | ASCQ, the next first
) = map(u64, range(8))
ATTENTION_ROOM = 8
NEXUS_WORDS = 7 + ATTENTION_ROOM

RESET_OCCURRED = 0x2903  # BUS DEVICE RESET FUNCTION OCCURRED
LUNS_CHANGED = 0x3F0E
RESERVATIONS_PREEMPTED = 0x2A03
RESERVATIONS_RELEASED = 0x2A04
REGISTRATIONS_PREEMPTED = 0x2A05


@kernel
def nexus_base(st, lun, nexus):
    """The words of one nexus of a LUN."""
    return u64(st[lun + L_NEXUS_TABLE]) + u64(NEXUS_WORDS) * u64(nexus)


@kernel
def has(st, lun, flag):
    """Is a flag of the LUN set?"""
    return st[lun + L_FLAGS] & flag != 0


@kernel
def fua_allowed(st, lun):
    """target_check_fua(): DPO and FUA are accepted only where there is a cache to write through."""
    both = WRITE_CACHE | FUA_WRITE
    return st[lun + L_FLAGS] & both == both


@kernel
def guard(st, lun):
    """After a change of reservations or unit attentions: must commands be looked at?"""
    guarded = st[lun + L_LEGACY_HOLDER] >= 0 or st[lun + L_HOLDER] >= 0
    for nexus in range(st[lun + L_NEXUSES]):
        guarded = guarded or st[nexus_base(st, lun, nexus) + N_ATTENTIONS] > 0
    st[lun + L_GUARDED] = 1 if guarded else 0


# ----------------------------------------------------------------------------- unit attentions ----


@kernel
def _in_front(head, attention):
    """core_scsi3_ua_allocate(): does a unit attention come before the first one that waits?"""
    asc, ascq = attention >> 8, attention & 0xFF
    if head >> 8 == 0x29:
        return asc == 0x29 and ascq > head & 0xFF
    if head >> 8 == 0x2A:
        return asc == 0x29 or ascq > 0x2A  # LIO compares the ASCQ with the ASC here
    return False


@kernel
def raise_attention(st, lun, nexus, attention):
    """core_scsi3_ua_allocate(): queue a unit attention; one equal to the first is not repeated.

    LIO's list has no end; here one that finds ATTENTION_ROOM others is dropped, which nobody can
    tell: reporting the first clears them all.
    """
    n = nexus_base(st, lun, nexus)
    count = st[n + N_ATTENTIONS]
    first = n + N_ATTENTION_LIST
    if count == ATTENTION_ROOM or (count > 0 and st[first] == attention):
        return
    if count > 0 and _in_front(st[first], attention):
        for i in range(count):
            place = first + u64(count - i)
            st[place] = st[place - ONE]
        st[first] = attention
    else:
        st[first + u64(count)] = attention
    st[n + N_ATTENTIONS] = count + 1
    st[lun + L_GUARDED] = 1


@kernel
def take_attention(st, lun, nexus):
    """Report the first unit attention and clear them all; 0 if there is none."""
    n = nexus_base(st, lun, nexus)
    if st[n + N_ATTENTIONS] == 0:
        return np.int64(0)
    st[n + N_ATTENTIONS] = 0
    guard(st, lun)
    return st[n + N_ATTENTION_LIST]


@kernel
def attention_waits(st, x):
    """target_scsi3_ua_check(): does the command's nexus have a unit attention to hear of?"""
    return st[nexus_base(st, u64(st[x + X_LUN]), st[x + X_NEXUS]) + N_ATTENTIONS] > 0


@kernel
def reset(st, lun):
    """TMR_LUN_RESET: RESERVE is gone, registrations stay, every nexus hears 29h/03h."""
    st[lun + L_LEGACY_HOLDER] = -1
    for nexus in range(st[lun + L_NEXUSES]):
        raise_attention(st, lun, nexus, RESET_OCCURRED)
    guard(st, lun)
