"""A command on the host: struct vhost_scsi_cmd with its se_cmd, as words of the agents' state.

The vhost worker makes it of a request, LIO's kworkers and the disk pass it on by its offset.
"""

import numpy as np

u64 = np.uint64

# Commands stand in a table of their queue, by tag.
(
    X_TAG,  # its place in the queue's pool of commands, -1: not of the pool, or LEFT_BEHIND
    X_QUEUE,  # base of the host side of its queue
    X_HEAD,
    X_ROW,
    X_OP,  # what it asks of the medium, see below
    X_LBA,  # in sectors of 512 bytes, whatever the LUN's block size
    X_BLOCKS,  # so many sectors
    X_RESPONSE,  # where the 108 bytes go
    X_STATUS,
    X_SENSE,
    X_RESID,
    X_NEXT,  # link in whatever list holds it, -1 the end
    X_LIO,  # base of the submission kworker of the CPU that it was submitted on
    X_ISSUED,  # when the medium got it
    X_INFLIGHT,  # which of its queue's two counts it is on, as an offset; user space: 0 or 1
    X_STATE,  # IDLE, in LIO's state list, or the offset of the LUN reset that aborts it
    # What LIO makes of the request (sim.lio).
    X_TARGET,  # base of the target's stretch
    X_LUN,  # base of the LUN's stretch
    X_NEXUS,  # which initiator sent it
    X_DIRECTION,
    X_SPACE,  # bytes in the segments
    X_EXPECTED,  # bytes in the request's buffers, protection information included
    X_LENGTH,  # data length: what is left of that after the size check
    X_UNDERFLOW,  # 1: the residual counts bytes of the buffer that stay unused
    X_INFO,  # INFORMATION of the sense, -1 none
    X_DESCRIPTOR,  # 1: sense in descriptor format
    X_EXECUTE,  # what runs in __target_execute_cmd(): sim.lio.command.E_*
    X_FUA,
    X_ATTRIBUTE,  # task attribute
    X_CDB,  # 32 bytes in four words, each eight bytes big-endian
    X_CDB_1,
    X_CDB_2,
    X_CDB_3,
    # Its buffers.
    X_PIECES,  # pieces of the response behind the segments; 0: it lies in one, at X_RESPONSE
    X_LOGGED,  # writable buffers noted for the dirty log, behind the room for the others
    X_SEGMENTS,  # how many data segments follow
    X_DATA,  # address and length of each
) = map(u64, range(37))

# X_TAG of a command whose queue has stopped without waiting for it: nobody answers it any more.
LEFT_BEHIND = -2

# X_STATE: where a LUN reset finds it.
IDLE, ACTIVE = 0, 1
X_LEFT = X_BLOCKS  # of a LUN reset: aborted commands that it waits for

# Data direction: DMA_NONE, DMA_TO_DEVICE, DMA_FROM_DEVICE.
NO_DATA, TO_DEVICE, FROM_DEVICE = range(3)

# Operations of a medium (the kernel's REQ_OP_*).
OP_READ, OP_WRITE, OP_FLUSH, OP_DISCARD = range(4)
OP_INQUIRY = 4  # of the guest alone: no medium has it
