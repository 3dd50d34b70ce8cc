"""The two calls that a fabric makes of LIO, and what they lead to.

    prepare    target_submit_prep(), in the thread of the vhost worker: LUN, CDB, lengths
    execute    target_execute_cmd(), in that of the submission kworker: unit attention,
               reservation, and then either the command is emulated or the disk has it

A command that fails is answered where it failed, without a hop to the completion kworker. Task
attributes order nothing here: ORDERED and HEAD OF QUEUE run like SIMPLE, ACA is refused.
"""

import numpy as np

from sim import scsi
from sim.jit import kernel
from sim.lio import lun as unit
from sim.lio import reserve, sbc, spc
from sim.lio.command import (
    E_CAPACITY_10,
    E_CAPACITY_16,
    E_COMPARE,
    E_INQUIRY,
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
    EMULATED,
    FAILED,
    MEDIUM,
    cdb_byte,
)
from sim.lio.lun import L_GUARDED
from sim.lio.parse import parse
from sim.lio.payload import clear_first
from sim.lio.ports import P_LUNS, P_NEXUS, P_NUMBERS, lookup
from sim.se_cmd import (
    FROM_DEVICE,
    X_ATTRIBUTE,
    X_BLOCKS,
    X_DESCRIPTOR,
    X_DIRECTION,
    X_EXECUTE,
    X_LUN,
    X_NEXUS,
    X_SENSE,
    X_STATUS,
    X_TARGET,
)

u64 = np.uint64

ACA = 3  # task attribute


@kernel
def fail(st, x, sense):
    """The command ends with this sense, or with RESERVATION CONFLICT and none."""
    if sense == scsi.CONFLICT:
        st[x + X_STATUS] = scsi.RESERVATION_CONFLICT
        return
    st[x + X_STATUS] = scsi.CHECK_CONDITION
    st[x + X_SENSE] = sense
    descriptor = unit.has(st, u64(st[x + X_LUN]), unit.DESCRIPTOR_SENSE)
    st[x + X_DESCRIPTOR] = 1 if descriptor else 0


@kernel
def prepare(st, x, target, number):
    """target_submit_prep(): may the command go on? If not, its status and sense are set.

    `target` is the base of the target, `number` the LUN's.
    """
    lun, sense = lookup(st, target, number, st[x + X_DIRECTION])
    st[x + X_LUN] = lun
    st[x + X_NEXUS] = st[target + P_NEXUS]
    if not sense:
        sense = parse(st, x, u64(lun))
        if not sense and st[x + X_ATTRIBUTE] == ACA:
            sense = scsi.SENSE_INVALID_CDB_FIELD
    if sense:
        fail(st, x, sense)
        return False
    return True


@kernel
def _guards(st, x):
    """Unit attention and reservation: the sense that stops the command, or none."""
    opcode = cdb_byte(st, x, 0)
    silent = opcode in (scsi.INQUIRY, scsi.REPORT_LUNS, scsi.REQUEST_SENSE)
    if unit.attention_waits(st, x) and not silent:
        attention = unit.take_attention(st, u64(st[x + X_LUN]), st[x + X_NEXUS])
        return (scsi.UNIT_ATTENTION << 16) | attention
    if reserve.conflicts(st, x):
        return np.int64(scsi.CONFLICT)
    return np.int64(scsi.SENSE_NONE)


@kernel
def _emulate(mem, st, x):
    """execute_cmd() of everything that is not READ or WRITE; returns a sense."""
    execute = st[x + X_EXECUTE]
    if execute == E_NOOP:
        return scsi.SENSE_NONE
    if execute == E_INQUIRY:
        return spc.inquiry(mem, st, x)
    if execute == E_REQUEST_SENSE:
        return spc.request_sense(mem, st, x)
    if execute in (E_CAPACITY_10, E_CAPACITY_16):
        return spc.read_capacity(mem, st, x, execute == E_CAPACITY_10)
    if execute == E_MODE_SENSE:
        return spc.mode_sense(mem, st, x)
    if execute == E_MODE_SELECT:
        return spc.mode_select(mem, st, x)
    if execute == E_REPORT_LUNS:
        target = u64(st[x + X_TARGET])
        return spc.report_luns(mem, st, x, st[target + P_NUMBERS], st[target + P_LUNS])
    if execute == E_START_STOP:
        return spc.start_stop_unit(st, x)
    if execute in (E_RESERVE, E_RELEASE):
        return reserve.reserve_or_release(st, x, execute == E_RESERVE)
    if execute == E_PR_IN:
        return reserve.reserve_in(mem, st, x)
    if execute == E_PR_OUT:
        return reserve.reserve_out(mem, st, x)
    if execute == E_PORT_GROUPS:
        return spc.report_target_port_groups(mem, st, x)
    if execute == E_OPCODES:
        return spc.report_supported_opcodes(mem, st, x)
    if execute == E_WRITE_SAME:
        return sbc.write_same(st, x)
    return sbc.unmap(mem, st, x)


@kernel
def execute(mem, st, x):
    """__target_execute_cmd(): MEDIUM (the disk has it), EMULATED (it is done), or FAILED."""
    if st[u64(st[x + X_LUN]) + L_GUARDED]:
        sense = _guards(st, x)
        if sense:
            fail(st, x, sense)
            return FAILED
    if st[x + X_EXECUTE] <= E_COMPARE:
        return MEDIUM
    if st[x + X_DIRECTION] == FROM_DEVICE and st[x + X_EXECUTE] != E_NOOP:
        clear_first(mem, st, x)
    sense = _emulate(mem, st, x)
    if sense:
        fail(st, x, sense)
        return FAILED
    if st[x + X_EXECUTE] in (E_WRITE_SAME, E_UNMAP) and st[x + X_BLOCKS]:
        return MEDIUM
    return EMULATED
