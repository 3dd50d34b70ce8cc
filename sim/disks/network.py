"""A network between the host and its disk: iSCSI over TCP, seen from the initiator.

Each direction is one stream in order. A message of n bytes that is sent at `now` waits for the
link, takes n / bandwidth to leave, then half the round trip and an exponential jitter to arrive;
one that is lost arrives a retransmission timeout later. What was sent behind it arrives no earlier
(TCP delivers in order), so one loss stalls everybody.

A message is a basic header segment of 48 bytes (RFC 7143, section 11.2) and the data, if it carries
any: a WRITE's on the way out, a READ's on the way back. Lost segments are taken to be found by the
timeout alone; fast retransmit would be quicker.
"""

import numpy as np

from sim.agents import LOG_TABLE
from sim.disks.fields import (
    D_HZ,
    D_NETWORK,
    N_BANDWIDTH,
    N_COUNT,
    N_IN_FREE,
    N_IN_LAST,
    N_JITTER,
    N_KEY,
    N_LOSS,
    N_LOST,
    N_ONE_WAY,
    N_OUT_FREE,
    N_OUT_LAST,
    N_RTO,
)
from sim.jit import kernel
from sim.rng import draw, exponential
from sim.se_cmd import OP_READ, OP_WRITE, X_BLOCKS, X_OP

u64 = np.uint64

HEADER_BYTES = 48


@kernel
def command_arrives(st, disk, x, now):
    """When a command that the host sends now is at the disk."""
    data = st[x + X_BLOCKS] * 512 if st[x + X_OP] == OP_WRITE else 0
    return _message(st, disk, data, N_OUT_FREE, N_OUT_LAST, now)


@kernel
def reply_arrives(st, disk, x, now):
    """When the reply that the disk sends now is at the host."""
    data = st[x + X_BLOCKS] * 512 if st[x + X_OP] == OP_READ else 0
    return _message(st, disk, data, N_IN_FREE, N_IN_LAST, now)


@kernel
def _message(st, disk, data, free, last, now):
    net = u64(st[disk + D_NETWORK])
    index = st[net + N_COUNT]
    st[net + N_COUNT] = index + 1
    at = max(now, st[net + free])
    if st[net + N_BANDWIDTH]:
        at += (HEADER_BYTES + data) * st[disk + D_HZ] // st[net + N_BANDWIDTH]
    st[net + free] = at
    at += st[net + N_ONE_WAY]
    if st[net + N_JITTER]:
        at += exponential(st, LOG_TABLE, st[net + N_KEY], 2 * index, st[net + N_JITTER])
    if np.int64(draw(st[net + N_KEY], 2 * index + 1) >> u64(32)) < st[net + N_LOSS]:
        at += st[net + N_RTO]
        st[net + N_LOST] += 1
    at = max(at, st[net + last])
    st[net + last] = at
    return at
