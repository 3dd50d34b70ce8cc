"""What may go wrong in a disk: a command that fails, one that gets stuck, a slow period.

A command that fails takes its time and moves no data. LIO reports an error of its backing device as
CHECK CONDITION with sense 2/08/00, LOGICAL UNIT COMMUNICATION FAILURE, whatever the error was
(drivers/target/target_core_transport.c, transport_generic_request_failure).
"""

import numpy as np

from sim import scsi
from sim.disks.fields import (
    D_COUNT,
    D_FAULTS,
    F_ERROR_AT,
    F_ERROR_COUNT,
    F_SLOW_BY,
    F_SLOW_FROM,
    F_SLOW_UNTIL,
    F_STUCK_AT,
    F_STUCK_COMMAND,
)
from sim.jit import kernel
from sim.se_cmd import X_SENSE, X_STATUS

u64 = np.uint64

SENSE_COMMUNICATION_FAILURE = 0x020800


@kernel
def strike(st, disk, x):
    """Decide what happens to the command that has just been accepted."""
    f, number = u64(st[disk + D_FAULTS]), st[disk + D_COUNT]
    since = number - st[f + F_ERROR_AT]
    if st[f + F_ERROR_AT] and 0 <= since < st[f + F_ERROR_COUNT]:
        st[x + X_STATUS] = scsi.CHECK_CONDITION
        st[x + X_SENSE] = SENSE_COMMUNICATION_FAILURE
    if number == st[f + F_STUCK_AT]:
        st[f + F_STUCK_COMMAND] = np.int64(x)


@kernel
def slowed(st, disk, cycles, now):
    """`cycles` of work that begins `now`: longer in a slow period."""
    f = u64(st[disk + D_FAULTS])
    if f and st[f + F_SLOW_FROM] <= now < st[f + F_SLOW_UNTIL]:
        return cycles * st[f + F_SLOW_BY]
    return cycles
