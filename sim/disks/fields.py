"""The stretch of a disk agent, and of the parts that some disks have, in one place.

Times are cycles, sizes bytes. A part is a stretch of its own; the disk holds its base, 0 where the
disk has no such part.
"""

import numpy as np

from sim.agents import A_FIELDS

u64 = np.uint64

# Kinds of media.
LANES, SSD, HDD, OUTSIDE = range(4)

# Every disk.
(
    D_SLOT,
    D_KIND,
    D_COUNT,  # commands accepted
    D_HEAP_COUNT,
    D_HEAP,  # table of nodes: a binary heap, see sim.disks.events
    D_ORDER,  # ties in the heap go in order of arrival
    D_LIO_SUBMIT,  # base of the submission kworker that D_WBT may hold up
    D_WBT,  # base of the throttle, 0 for none
    D_BLOCKS,  # capacity
    D_HZ,  # cycles per second
    D_LANES,  # lanes, or dies
    D_LANE_FREE,  # table: when each of them is free
    D_LANE_BUSY,  # cycles summed over the lanes
    D_SERVICE,  # how long a command stays in its lane, or a read in its die: a service
    D_SERIAL,  # time of a command in the stage that no other shares
    D_BANDWIDTH,  # bytes per second through that stage, 0 for no limit
    D_SERIAL_FREE,
    D_SERIAL_BUSY,
    D_COMMAND_TIME,  # time of a command that stands in nobody's way
    D_CACHE,  # bytes of write cache
    D_CACHE_USED,
    D_CACHE_SERVICE,  # time until a write is in the cache: a service
    D_VOLATILE,  # 1 where a flush must wait for the cache to drain
    D_WAIT_HEAD,  # writes that wait for room in the cache, first in first out
    D_WAIT_TAIL,
    D_FLUSH_HEAD,  # flushes that wait for the drain
    D_FLUSH_TAIL,
    D_PART,  # base of what only its kind has
    D_NETWORK,  # base, 0 for none
    D_FAULTS,  # base, 0 for none
    D_THREAD,  # base of the thread of user space that has its completions, 0: LIO has them
    D_STANDS_UNTIL,  # nothing happens in it before; NEVER: nothing ever again
) = map(u64, range(A_FIELDS, A_FIELDS + 32))
DISK_WORDS = A_FIELDS + 32

# A service: a random time (sim.disks.service).
(
    S_FORM,
    S_MEAN,
    S_TABLE,  # of quantiles: pairs (probability in 2**-PROBABILITY_BITS, time)
    S_KEY,  # of its stream of draws
    S_COUNT,  # draws so far
) = map(u64, range(5))
SERVICE_WORDS = 5

# Flash (sim.disks.ssd).
(
    I_STRIPE,
    I_UNIT,  # bytes of one program operation
    I_PROGRAM,  # base of its service
    I_DIES,  # table of dies
    I_UNITS,  # units that the cache has sealed, the n-th goes to die n modulo dies
    I_OPEN,  # bytes in the unit that is not yet sealed
    I_NEXT_DIE,  # where the next write without a cache goes
    I_GC_EVERY,
    I_GC_TIME,
    I_GC_COUNT,
    I_BACKGROUND_EVERY,  # mean, 0 for never
    I_BACKGROUND_TIME,
    I_BACKGROUND_NEXT,
    I_BACKGROUND_KEY,
    I_BACKGROUND_COUNT,
) = map(u64, range(15))
SSD_WORDS = 15
(
    Y_BACKLOG,  # units sealed and not yet programmed
    Y_DONE,  # units programmed
    Y_PROGRAMMING,  # 1 while a program operation runs
    Y_ARMED,  # 1 while the die waits for its turn in the heap
    Y_WRITTEN,  # bytes since the last collection
    Y_PAGE,  # number of the stripe in its page register, -1 for none
    Y_PAGE_AT,  # when it is there
) = map(u64, range(7))
DIE_WORDS = 7

# A disk with a head (sim.disks.head).
(
    M_PERIOD,  # of a rotation
    M_TRACK_BLOCKS,
    M_SEEK,  # table: time of a seek by its distance in tracks
    M_SKEW,  # by how much each track is turned against the one before
    M_SETTLE_WRITE,
    M_SCHEDULER,
    M_NCQ,  # how many commands it chooses among
    M_TRACK,  # where the head is
    M_BUSY,  # 1 while it seeks or transfers
    M_QUEUE,  # table of accesses that wait, oldest first
    M_QUEUE_COUNT,
    M_COMMANDS,  # those of them that a command waits for
    M_CACHED_ROOM,  # accesses that the cache can hold
    M_SEQUENCE,
    M_SERVED,  # sequence number of the cached write that is on its way to the platter, or 0
    M_SERVED_BYTES,
    M_READ_AHEAD,  # blocks
    M_BUFFER_START,  # the blocks that the buffer holds or is being filled with
    M_BUFFER_END,  # end of what was asked for; read-ahead goes on behind it
    M_BUFFER_SINCE,  # when the head was at that end
    M_BUFFER_STOP,  # end of what was read before the head left, -1 while it still reads
) = map(u64, range(21))
HDD_WORDS = 21
FIFO, SSTF, SPTF = range(3)
(
    U_LBA,
    U_BLOCKS,
    U_COMMAND,  # -1 for a write that is in the cache
    U_WRITE,
    U_SEQUENCE,
) = map(u64, range(5))
ACCESS_WORDS = 5

# A network in front of the disk (sim.disks.network).
(
    N_ONE_WAY,
    N_JITTER,
    N_BANDWIDTH,
    N_LOSS,  # probability of a message, in 2**-32
    N_RTO,
    N_KEY,
    N_COUNT,  # messages so far
    N_OUT_FREE,  # when the link to the disk is free
    N_OUT_LAST,  # when the last message arrived there
    N_IN_FREE,
    N_IN_LAST,
    N_LOST,
) = map(u64, range(12))
NETWORK_WORDS = 12

# Faults (sim.disks.faulty).
(
    F_ERROR_AT,  # number of the first command that fails, from 1; 0 for none
    F_ERROR_COUNT,
    F_STUCK_AT,
    F_STUCK_FOR,  # NEVER: for ever
    F_STUCK_COMMAND,
    F_SLOW_FROM,
    F_SLOW_UNTIL,
    F_SLOW_BY,
) = map(u64, range(8))
FAULT_WORDS = 8
