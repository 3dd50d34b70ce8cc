"""A command on the host: struct vhost_scsi_cmd with its se_cmd, as words of the agents' state.

The vhost worker makes it of a request, LIO's kworkers and the disk pass it on by its offset.
"""

import numpy as np

u64 = np.uint64

# Commands stand in a table of their queue, by head.
(
    X_QUEUE,  # base of the host side of its queue
    X_HEAD,
    X_ROW,
    X_OP,  # what it asks of the medium, see below
    X_LBA,
    X_BLOCKS,
    X_RESPONSE,  # where the 108 bytes go
    X_STATUS,
    X_SENSE,
    X_RESID,
    X_NEXT,  # link in whatever list holds it, -1 the end
    X_ISSUED,  # when the medium got it
    X_SEGMENTS,  # how many data segments follow
    X_DATA,  # address and length of each
) = map(u64, range(14))

# Operations of a medium (the kernel's REQ_OP_*).
OP_READ, OP_WRITE, OP_FLUSH, OP_DISCARD = range(4)
