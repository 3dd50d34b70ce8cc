"""The stretch of a disk agent, in one place."""

import numpy as np

from sim.agents import A_FIELDS

u64 = np.uint64

(
    D_SLOT,
    D_SERVICE,
    D_EXPONENTIAL,
    D_SERIAL,
    D_KEY,
    D_COUNT,  # commands accepted, the index of the next draw
    D_LANES,
    D_LANE_FREE,  # table: when each lane is free
    D_SERIAL_FREE,
    D_HEAP_COUNT,
    D_HEAP,  # table of nodes: a binary heap, see sim.disks.events
    D_ORDER,  # ties in the heap go in order of arrival
    D_LIO_COMPLETE,  # base of the completion kworker
    D_BLOCKS,  # capacity
    D_LANE_BUSY,  # cycles summed over the lanes
    D_SERIAL_BUSY,
) = map(u64, range(A_FIELDS, A_FIELDS + 16))
DISK_WORDS = A_FIELDS + 16
