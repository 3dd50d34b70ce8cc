"""Reservations: RESERVE and RELEASE of SPC-2, persistent reservations of SPC-4, as LIO has them.

target_core_pr.c. A registration belongs to a nexus of the LUN; it does not move when the guest
does. Metadata that survive power loss (APTPL) are a bit here: the file that LIO writes is assumed
to be writable.
"""

import numpy as np
import numpy.typing as npt

from sim import scsi
from sim.jit import kernel
from sim.lio import lun as unit
from sim.lio.command import cdb_byte
from sim.lio.lun import (
    L_APTPL,
    L_GENERATION,
    L_HOLDER,
    L_LEGACY_HOLDER,
    L_NEXUSES,
    L_PORT,
    L_REGISTRATIONS,
    L_SCOPE,
    L_TYPE,
    N_ALL_PORTS,
    N_KEY,
    N_ORDER,
    N_TRANSPORT_ID,
    N_TRANSPORT_ID_SIZE,
    guard,
    nexus_base,
    raise_attention,
)
from sim.lio.payload import get, put, put_rom, rom_byte
from sim.lio.spc import set_length
from sim.se_cmd import FROM_DEVICE, TO_DEVICE, X_DIRECTION, X_LENGTH, X_LUN, X_NEXUS, X_SEGMENTS

u64 = np.uint64

# Types of a persistent reservation.
WRITE_EXCLUSIVE = 1
EXCLUSIVE_ACCESS = 3
WRITE_EXCLUSIVE_REGISTRANTS = 5
EXCLUSIVE_ACCESS_REGISTRANTS = 6
WRITE_EXCLUSIVE_ALL = 7
EXCLUSIVE_ACCESS_ALL = 8

# Service actions of PERSISTENT RESERVE IN and OUT.
READ_KEYS, READ_RESERVATION, REPORT_CAPABILITIES, READ_FULL_STATUS = range(4)
(
    REGISTER,
    RESERVE,
    RELEASE,
    CLEAR,
    PREEMPT,
    PREEMPT_AND_ABORT,
    REGISTER_AND_IGNORE,
    REGISTER_AND_MOVE,
) = range(8)


@kernel
def _registered(st, lun, nexus):
    return st[nexus_base(st, lun, nexus) + N_ORDER] > 0


@kernel
def _next_registered(st, lun, order):
    """The nexus that registered next after `order`, -1 if none did."""
    found, best = np.int64(-1), np.int64(0)
    for nexus in range(st[lun + L_NEXUSES]):
        own = st[nexus_base(st, lun, nexus) + N_ORDER]
        if own > order and (found < 0 or own < best):
            found, best = np.int64(nexus), own
    return found


@kernel
def _any_registered(st, lun):
    return _next_registered(st, lun, 0) >= 0


@kernel
def _order(st, lun, nexus):
    return st[nexus_base(st, lun, nexus) + N_ORDER]


@kernel
def _valid_type(kind):
    return kind in (
        WRITE_EXCLUSIVE,
        EXCLUSIVE_ACCESS,
        WRITE_EXCLUSIVE_REGISTRANTS,
        EXCLUSIVE_ACCESS_REGISTRANTS,
        WRITE_EXCLUSIVE_ALL,
        EXCLUSIVE_ACCESS_ALL,
    )


@kernel
def _for_all(kind):
    """Is every registered nexus a holder?"""
    return kind in (WRITE_EXCLUSIVE_ALL, EXCLUSIVE_ACCESS_ALL)


@kernel
def _for_registrants(kind):
    return kind in (WRITE_EXCLUSIVE_REGISTRANTS, EXCLUSIVE_ACCESS_REGISTRANTS)


@kernel
def _holds(st, lun, nexus):
    """is_reservation_holder(): does `nexus`, which is registered, hold a reservation?"""
    holder = st[lun + L_HOLDER]
    return holder >= 0 and (holder == nexus or _for_all(st[lun + L_TYPE]))


# -------------------------------------------------------------------------------- who may what ----


@kernel
def _pr_out_allowed(action, registered):
    """PERSISTENT RESERVE OUT from a nexus that does not hold the reservation."""
    if action in (REGISTER, REGISTER_AND_IGNORE):
        return True
    return action in (RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT) and registered


@kernel
def _named(st, x, opcode, registered, write_exclusive):
    """core_scsi3_pr_seq_non_holder(), its table: 1 allowed, 0 not, -1 not in the table."""
    if opcode in (
        scsi.INQUIRY,
        scsi.REPORT_LUNS,
        scsi.REQUEST_SENSE,
        scsi.TEST_UNIT_READY,
        scsi.PERSISTENT_RESERVE_IN,
        scsi.RESERVE_6,
        scsi.RESERVE_10,
        scsi.RELEASE_6,
        scsi.RELEASE_10,
    ):
        return 1
    if opcode in (scsi.MODE_SENSE_6, scsi.MODE_SENSE_10):
        return 1 if registered or write_exclusive else 0
    if opcode == scsi.PERSISTENT_RESERVE_OUT:
        return 1 if _pr_out_allowed(cdb_byte(st, x, 1) & 0x1F, registered) else 0
    if opcode == scsi.MAINTENANCE_IN:
        if cdb_byte(st, x, 1) & 0x1F == scsi.REPORT_TARGET_PORT_GROUPS:
            return 1
        return 1 if registered or write_exclusive else 0
    return -1


@kernel
def _non_holder_allowed(st, x, lun):
    """core_scsi3_pr_seq_non_holder(): may a nexus that does not hold the reservation do this?"""
    kind, direction = st[lun + L_TYPE], st[x + X_DIRECTION]
    registered = _registered(st, lun, st[x + X_NEXUS])
    write_exclusive = kind in (WRITE_EXCLUSIVE, WRITE_EXCLUSIVE_REGISTRANTS, WRITE_EXCLUSIVE_ALL)
    if _named(st, x, cdb_byte(st, x, 0), registered, write_exclusive) == 1:
        return True
    if write_exclusive and not registered:
        return direction != TO_DEVICE
    if _for_all(kind) or _for_registrants(kind):
        return registered
    return write_exclusive and direction == FROM_DEVICE


@kernel
def conflicts(st, x):
    """target_check_reservation(): must the command end with RESERVATION CONFLICT?"""
    lun = u64(st[x + X_LUN])
    if st[lun + L_LEGACY_HOLDER] >= 0:
        if cdb_byte(st, x, 0) in (scsi.INQUIRY, scsi.RELEASE_6, scsi.RELEASE_10):
            return False
        return st[lun + L_LEGACY_HOLDER] != st[x + X_NEXUS]
    if st[lun + L_HOLDER] < 0 or st[lun + L_HOLDER] == st[x + X_NEXUS]:
        return False
    return not _non_holder_allowed(st, x, lun)


# --------------------------------------------------------------------------- SPC-2 reservation ----


@kernel
def reserve_or_release(st, x, reserve):
    """RESERVE and RELEASE. They conflict with registrations, and do nothing for their holder."""
    lun = u64(st[x + X_LUN])
    nexus = st[x + X_NEXUS]
    if reserve and cdb_byte(st, x, 1) & 3 == 3:
        return scsi.SENSE_UNKNOWN_OPCODE  # LONGID with the obsolete 3RDPTY
    if _registered(st, lun, nexus) and st[lun + L_HOLDER] == nexus:
        return scsi.SENSE_NONE
    if _any_registered(st, lun):
        return scsi.CONFLICT
    holder = st[lun + L_LEGACY_HOLDER]
    if reserve:
        if holder >= 0 and holder != nexus:
            return scsi.CONFLICT
        st[lun + L_LEGACY_HOLDER] = nexus
    elif holder == nexus:
        st[lun + L_LEGACY_HOLDER] = -1
    guard(st, lun)
    return scsi.SENSE_NONE


# ----------------------------------------------------------------------- PERSISTENT RESERVE IN ----


@kernel
def _read_keys(mem, st, x, lun):
    """The list's length is that of all keys, however few of them there is room for."""
    offset, listed = np.int64(8), np.int64(0)
    nexus = _next_registered(st, lun, 0)
    while nexus >= 0:
        if offset + 8 <= st[x + X_LENGTH]:
            put(mem, st, x, offset, 8, st[nexus_base(st, lun, nexus) + N_KEY])
            offset += 8
        listed += 8
        nexus = _next_registered(st, lun, _order(st, lun, nexus))
    put(mem, st, x, 4, 4, listed)
    set_length(st, x, offset)


@kernel
def _read_reservation(mem, st, x, lun):
    if st[lun + L_HOLDER] < 0:
        put(mem, st, x, 4, 4, 0)
        set_length(st, x, 8)
        return
    put(mem, st, x, 4, 4, 16)
    if st[x + X_LENGTH] < 22:
        return
    key = st[nexus_base(st, lun, st[lun + L_HOLDER]) + N_KEY]
    put(mem, st, x, 8, 8, np.int64(0) if _for_all(st[lun + L_TYPE]) else key)
    put(mem, st, x, 16, 8, (st[lun + L_SCOPE] | st[lun + L_TYPE]) << 16)
    set_length(st, x, 24)


@kernel
def _report_capabilities(mem, st, x, lun):
    put(mem, st, x, 0, 2, 8)
    put(mem, st, x, 2, 1, 0x1D)  # CRH, SIP_C, ATP_C, PTPL_C
    put(mem, st, x, 3, 1, 0x90 | st[lun + L_APTPL])  # TMV, ALLOW COMMANDS 001b, PTPL_A
    put(mem, st, x, 4, 4, 0xEA010000)  # every type
    set_length(st, x, 8)


@kernel
def _full_status(mem, st, x, lun):
    offset = 8
    everybody = st[lun + L_HOLDER] >= 0 and _for_all(st[lun + L_TYPE])
    nexus = _next_registered(st, lun, 0)
    while nexus >= 0:
        n = nexus_base(st, lun, nexus)
        size = st[n + N_TRANSPORT_ID_SIZE]
        if size + offset - 8 > st[x + X_LENGTH]:
            break
        for i in range(8, 20):
            put(mem, st, x, offset + i, 1, 0)
        put(mem, st, x, offset, 8, st[n + N_KEY])
        holds = everybody or st[lun + L_HOLDER] == nexus
        put(mem, st, x, offset + 12, 1, (2 if st[n + N_ALL_PORTS] else 0) | (1 if holds else 0))
        if holds:
            put(mem, st, x, offset + 13, 1, st[lun + L_SCOPE] | st[lun + L_TYPE])
        if not st[n + N_ALL_PORTS]:
            put(mem, st, x, offset + 18, 2, st[lun + L_PORT])
        put(mem, st, x, offset + 20, 4, size)
        put_rom(mem, st, x, offset + 24, st[n + N_TRANSPORT_ID], size)
        offset += 24 + size
        nexus = _next_registered(st, lun, _order(st, lun, nexus))
    put(mem, st, x, 4, 4, offset - 8)
    set_length(st, x, offset)


@kernel
def reserve_in(mem, st, x):
    """PERSISTENT RESERVE IN."""
    lun = u64(st[x + X_LUN])
    action = cdb_byte(st, x, 1) & 0x1F
    if st[lun + L_LEGACY_HOLDER] >= 0:
        return scsi.CONFLICT
    if action > READ_FULL_STATUS:
        return scsi.SENSE_INVALID_CDB_FIELD
    if st[x + X_LENGTH] < (6 if action == REPORT_CAPABILITIES else 8):
        return scsi.SENSE_INVALID_CDB_FIELD
    if action == REPORT_CAPABILITIES:
        _report_capabilities(mem, st, x, lun)
        return scsi.SENSE_NONE
    put(mem, st, x, 0, 4, st[lun + L_GENERATION])
    if action == READ_KEYS:
        _read_keys(mem, st, x, lun)
    elif action == READ_RESERVATION:
        _read_reservation(mem, st, x, lun)
    else:
        _full_status(mem, st, x, lun)
    return scsi.SENSE_NONE


# ---------------------------------------------------------------------- PERSISTENT RESERVE OUT ----


@kernel
def _count_generation(st, lun):
    st[lun + L_GENERATION] = (st[lun + L_GENERATION] + 1) & 0xFFFFFFFF


@kernel
def _add_registration(st, lun, nexus, key, all_ports):
    n = nexus_base(st, lun, nexus)
    st[lun + L_REGISTRATIONS] += 1
    st[n + N_ORDER] = st[lun + L_REGISTRATIONS]
    st[n + N_KEY] = key
    st[n + N_ALL_PORTS] = all_ports
    _count_generation(st, lun)


@kernel
def _drop_registration(st, lun, nexus):
    """A registration goes; the reservation of all registrants passes on, any other ends with it.

    Returns whether the nexus was the holder.
    """
    st[nexus_base(st, lun, nexus) + N_ORDER] = 0
    if st[lun + L_HOLDER] != nexus:
        return False
    heir = _next_registered(st, lun, 0) if _for_all(st[lun + L_TYPE]) else np.int64(-1)
    st[lun + L_HOLDER] = heir
    return True


@kernel
def _tell_others(st, lun, nexus, attention):
    """A unit attention for every registered nexus but this one."""
    for other in range(st[lun + L_NEXUSES]):
        if other != nexus and _registered(st, lun, other):
            raise_attention(st, lun, other, attention)


@kernel
def _nexus_of_id(mem, st, x, lun, offset, size):
    """The nexus whose TransportID lies at `offset` of the data, -1 if none has it."""
    for nexus in range(st[lun + L_NEXUSES]):
        n = nexus_base(st, lun, nexus)
        same = st[n + N_TRANSPORT_ID_SIZE] <= size
        for i in range(st[n + N_TRANSPORT_ID_SIZE]):
            byte = rom_byte(st, st[n + N_TRANSPORT_ID], i)
            same = same and get(mem, st, x, offset + i, 1) == byte
        if same:
            return np.int64(nexus)
    return np.int64(-1)


@kernel
def _register_listed(mem, st, x, lun, key, all_ports):
    """SPEC_I_PT: register the nexuses whose TransportIDs follow, besides the one that asks."""
    listed = get(mem, st, x, 24, 4)
    if st[x + X_LENGTH] < 28 or listed + 28 != st[x + X_LENGTH]:
        return scsi.SENSE_INVALID_PARAMETER_LIST
    for registering in range(2):  # first look at all of them, then register them
        offset, end = np.int64(28), 28 + listed
        while offset < end:
            nexus = _nexus_of_id(mem, st, x, lun, offset, end - offset)
            if nexus < 0 or nexus == st[x + X_NEXUS]:
                return scsi.SENSE_INVALID_PARAMETER_LIST
            if registering and not _registered(st, lun, nexus):
                _add_registration(st, lun, nexus, key, all_ports)
            offset += st[nexus_base(st, lun, nexus) + N_TRANSPORT_ID_SIZE]
    return scsi.SENSE_NONE


@kernel
def _register(mem, st, x, lun, ignore, key, new_key, flags):
    """REGISTER, and REGISTER AND IGNORE EXISTING KEY (core_scsi3_emulate_pro_register)."""
    nexus = st[x + X_NEXUS]
    n = nexus_base(st, lun, nexus)
    all_ports, listed = (1 if flags & 4 else 0), flags & 8
    if not _registered(st, lun, nexus):
        if not ignore and key:
            return scsi.CONFLICT
        if new_key == 0:
            return scsi.SENSE_NONE
        if listed:
            sense = _register_listed(mem, st, x, lun, new_key, all_ports)
            if sense:
                return sense
        _add_registration(st, lun, nexus, new_key, all_ports)
        st[lun + L_APTPL] = flags & 1
        return scsi.SENSE_NONE
    if not ignore and key != st[n + N_KEY]:
        return scsi.CONFLICT
    if listed:
        return scsi.SENSE_INVALID_PARAMETER_LIST
    if st[n + N_ALL_PORTS] and not all_ports:
        return scsi.SENSE_INVALID_CDB_FIELD
    if new_key:
        st[n + N_KEY] = new_key
        _count_generation(st, lun)
    else:
        kind = st[lun + L_TYPE]
        if _drop_registration(st, lun, nexus) and _for_registrants(kind):
            _tell_others(st, lun, nexus, unit.RESERVATIONS_RELEASED)
    st[lun + L_APTPL] = flags & 1
    return scsi.SENSE_NONE


@kernel
def _reserve(st, lun, nexus, scope, kind):
    if scope:
        return scsi.SENSE_INVALID_PARAMETER_LIST
    if st[lun + L_HOLDER] >= 0:
        same = st[lun + L_TYPE] == kind and st[lun + L_SCOPE] == scope
        return scsi.SENSE_NONE if _holds(st, lun, nexus) and same else scsi.CONFLICT
    st[lun + L_HOLDER] = nexus
    st[lun + L_TYPE] = kind
    st[lun + L_SCOPE] = scope
    return scsi.SENSE_NONE


@kernel
def _release(st, lun, nexus, key, scope, kind):
    if not _holds(st, lun, nexus):
        return scsi.SENSE_NONE
    wrong_key = key != st[nexus_base(st, lun, nexus) + N_KEY]
    if wrong_key or st[lun + L_TYPE] != kind or st[lun + L_SCOPE] != scope:
        return scsi.CONFLICT
    st[lun + L_HOLDER] = -1
    if _for_registrants(kind) or _for_all(kind):
        _tell_others(st, lun, nexus, unit.RESERVATIONS_RELEASED)
    return scsi.SENSE_NONE


@kernel
def _clear(st, lun, nexus):
    st[lun + L_HOLDER] = -1
    _tell_others(st, lun, nexus, unit.RESERVATIONS_PREEMPTED)
    for other in range(st[lun + L_NEXUSES]):
        st[nexus_base(st, lun, other) + N_ORDER] = 0
    st[lun + L_APTPL] = 0
    _count_generation(st, lun)
    return scsi.SENSE_NONE


@kernel
def _remove_others(st, lun, nexus, key, own_too):
    """Registrations under `key` (0: all) go. Returns whether there were any, the own included."""
    found = False
    for other in range(st[lun + L_NEXUSES]):
        matches = key == 0 or st[nexus_base(st, lun, other) + N_KEY] == key
        if not _registered(st, lun, other) or not matches:
            continue
        found = True
        if other != nexus:
            st[nexus_base(st, lun, other) + N_ORDER] = 0
            raise_attention(st, lun, other, unit.REGISTRATIONS_PREEMPTED)
        elif own_too:
            st[nexus_base(st, lun, other) + N_ORDER] = 0
    return found


@kernel
def _preempt(st, lun, nexus, new_key, scope, kind):
    """PREEMPT; PREEMPT AND ABORT finds nothing to abort here (core_scsi3_pro_preempt)."""
    holder, old_kind = st[lun + L_HOLDER], st[lun + L_TYPE]
    everybody = holder >= 0 and _for_all(old_kind)
    if scope or (not everybody and new_key == 0):
        return scsi.SENSE_INVALID_PARAMETER_LIST
    held_key = st[nexus_base(st, lun, max(holder, 0)) + N_KEY]
    if holder < 0 or held_key != new_key:
        if not _remove_others(st, lun, nexus, new_key, not everybody) and new_key:
            return scsi.CONFLICT
        if everybody and new_key == 0:
            st[lun + L_HOLDER] = nexus
            st[lun + L_TYPE] = kind
        _count_generation(st, lun)
        return scsi.SENSE_NONE
    _remove_others(st, lun, nexus, new_key, False)
    st[lun + L_HOLDER] = nexus
    st[lun + L_TYPE] = kind
    if old_kind != kind:
        _tell_others(st, lun, nexus, unit.RESERVATIONS_RELEASED)
    _count_generation(st, lun)
    return scsi.SENSE_NONE


@kernel
def _move(mem, st, x, lun, key, new_key):
    """REGISTER AND MOVE (core_scsi3_emulate_pro_register_and_move)."""
    nexus = st[x + X_NEXUS]
    if new_key == 0 or get(mem, st, x, 20, 4) + 24 != st[x + X_LENGTH]:
        return scsi.SENSE_INVALID_PARAMETER_LIST
    target = _nexus_of_id(mem, st, x, lun, np.int64(24), st[x + X_LENGTH] - 24)
    other_port = get(mem, st, x, 18, 2) != st[lun + L_PORT]
    if other_port or target < 0 or target == nexus:
        return scsi.SENSE_INVALID_PARAMETER_LIST
    if st[lun + L_HOLDER] < 0:
        return scsi.SENSE_INVALID_CDB_FIELD
    if not _holds(st, lun, nexus) or _for_all(st[lun + L_TYPE]):
        return scsi.CONFLICT
    if _registered(st, lun, target):
        st[nexus_base(st, lun, target) + N_KEY] = new_key
        _count_generation(st, lun)
    else:
        _add_registration(st, lun, target, new_key, 0)
    st[lun + L_HOLDER] = target
    if get(mem, st, x, 17, 1) & 2:  # UNREG
        st[nexus_base(st, lun, nexus) + N_ORDER] = 0
    st[lun + L_APTPL] = get(mem, st, x, 17, 1) & 1
    return scsi.SENSE_NONE


@kernel
def _act(mem, st, x, lun, action, key, new_key, flags):
    """The service actions that only a registered nexus may ask for, with its key."""
    nexus = st[x + X_NEXUS]
    scope, kind = cdb_byte(st, x, 2) & 0xF0, cdb_byte(st, x, 2) & 0x0F
    preempting = action in (PREEMPT, PREEMPT_AND_ABORT)
    if (preempting or action == RESERVE) and not _valid_type(kind):
        return scsi.SENSE_INVALID_CDB_FIELD
    if not _registered(st, lun, nexus):
        return scsi.CONFLICT if preempting else scsi.SENSE_COMMUNICATION_FAILURE
    if action == RELEASE:
        return _release(st, lun, nexus, key, scope, kind)
    if key != st[nexus_base(st, lun, nexus) + N_KEY]:
        return scsi.CONFLICT
    if action == RESERVE:
        return _reserve(st, lun, nexus, scope, kind)
    if action == CLEAR:
        return _clear(st, lun, nexus)
    if preempting:
        return _preempt(st, lun, nexus, new_key, scope, kind)
    return _move(mem, st, x, lun, key, new_key)


@kernel
def reserve_out(mem, st, x):
    """PERSISTENT RESERVE OUT."""
    lun = u64(st[x + X_LUN])
    if st[lun + L_LEGACY_HOLDER] >= 0:
        return scsi.CONFLICT
    if st[x + X_LENGTH] < 24:
        return scsi.SENSE_PARAMETER_LIST_LENGTH
    if st[x + X_SEGMENTS] == 0:
        return scsi.SENSE_COMMUNICATION_FAILURE
    action = cdb_byte(st, x, 1) & 0x1F
    key, new_key = get(mem, st, x, 0, 8), get(mem, st, x, 8, 8)
    flags = get(mem, st, x, 20, 1) if action != REGISTER_AND_MOVE else np.int64(0)
    if flags & 8 and action != REGISTER:
        return scsi.SENSE_INVALID_PARAMETER_LIST
    if not flags & 8 and action != REGISTER_AND_MOVE and st[x + X_LENGTH] != 24:
        return scsi.SENSE_PARAMETER_LIST_LENGTH
    if action in (REGISTER, REGISTER_AND_IGNORE):
        ignore = action == REGISTER_AND_IGNORE
        sense = _register(mem, st, x, lun, ignore, key, new_key, flags)
    elif action > REGISTER_AND_MOVE:
        return scsi.SENSE_INVALID_CDB_FIELD
    else:
        sense = _act(mem, st, x, lun, action, key, new_key, flags)
    guard(st, lun)
    return sense


def hold(st: npt.NDArray[np.int64], lun: int, key: int, kind: int = WRITE_EXCLUSIVE) -> None:
    """Control: nexus 0 registers with a key and takes a persistent reservation, as its two
    PERSISTENT RESERVE OUT would.
    """
    base = u64(lun)
    _add_registration(st, base, 0, key, 0)
    _reserve(st, base, 0, 0, kind)
