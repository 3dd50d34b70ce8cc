"""What LIO does with a command (struct se_cmd, whose words sim.se_cmd names), and its CDB."""

import numpy as np

from sim.jit import kernel
from sim.se_cmd import X_CDB

u64 = np.uint64
ONE, TWO = u64(1), u64(2)

# se_cmd.execute_cmd.
(
    E_MEDIUM,  # the disk does all of it
    E_COMPARE,
    E_UNMAP,
    E_WRITE_SAME,
    E_NOOP,
    E_INQUIRY,
    E_REQUEST_SENSE,
    E_CAPACITY_10,
    E_CAPACITY_16,
    E_MODE_SENSE,
    E_MODE_SELECT,
    E_REPORT_LUNS,
    E_START_STOP,
    E_RESERVE,
    E_RELEASE,
    E_PR_IN,
    E_PR_OUT,
    E_PORT_GROUPS,
    E_OPCODES,
) = range(19)

# What execute() says: the disk has it, it is done, it has failed.
MEDIUM, EMULATED, FAILED = range(3)


@kernel
def cdb_byte(st, x, index):
    """Byte `index` (0 to 31) of the CDB."""
    word = st[x + X_CDB + (u64(index) >> u64(3))]
    return (word >> (8 * (7 - (index & 7)))) & 0xFF


@kernel
def cdb_field(st, x, index, size):
    """A big-endian field of the CDB."""
    value = np.int64(0)
    for i in range(size):
        value = (value << 8) | cdb_byte(st, x, index + i)
    return value
