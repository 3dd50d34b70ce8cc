"""The reference path: what its ring accesses cost, by the measured share that contains them.

Split ring, INDIRECT, 4 KiB reads; core 0 is the guest, core 1 the host. Kernel vhost-scsi: with
EVENT_IDX, one request at a time. The threads of user space were measured saturated: batches of
BATCHES, for QEMU with EVENT_IDX and its own habits, for SPDK without and never asking for a kick.
Run on the real ring, with the functions and the types that the engine has compiled anyway.
"""

from dataclasses import dataclass

import numpy as np

from sim import scsi, vring
from sim.jit import kernel
from sim.layout import F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1, USED_F_NO_NOTIFY
from sim.memory import bare, new_lines, take_cycles, touch_load

u64 = np.uint64

# Where things stand in the words: the request's buffers, the sums of the four parts, the buffers
# as they are fetched, the heads of a batch, the driver, and behind it the device.
BUFFERS, SUMS, FETCHED, HEADS, DRIVER = map(u64, (0, 12, 16, 32, 64))

# Requests that a thread finds at a time where it is saturated: about as many as lie between two
# interrupts in a simulated run like the measured one (eight queues of 32 or 64).
BATCHES = {'vhost-scsi': 1, 'vhost-user-scsi': 8, 'virtio-scsi': 16}

# Where things lie in guest memory; a request's header and table lie so far behind the one before.
DESC, HEADER, TABLE, DATA, MEMORY = 0x1000, 0x10008, 0x18000, 0x20000, 0x40000
HEADER_STRIDE, TABLE_STRIDE = 832, 64


@dataclass(frozen=True, kw_only=True)
class ReferenceLines:
    """Line costs per request on the reference path, in cycles, by the share that contains them."""

    guest_submit: int
    guest_complete: int
    worker_pop: int
    worker_complete: int


@kernel
def _publish(mem, lines, st, d, turn, index):
    """The driver's side of request `index` of a batch, up to its publication."""
    header = HEADER + HEADER_STRIDE * index
    st[BUFFERS + u64(4)] = header
    st[BUFFERS + u64(6)] = header + 59
    scsi.write_request(mem, lines, 0, header, 0, 0, header, 0, 8 * turn, 8)
    vring.add(mem, lines, st, d, 0, BUFFERS, index, TABLE + TABLE_STRIDE * index)


@kernel
def _requests(memory, ownership, state, v, turn, batch, polls):
    """A batch from its publication to its end; adds what each part cost to the sums."""
    mem, lines, st, d = bare(memory), bare(ownership), bare(state), DRIVER
    for index in range(batch):
        _publish(mem, lines, st, d, turn, index)
    vring.kick_prepare(mem, lines, st, d, 0)
    st[SUMS] += take_cycles(lines, 0)
    if not polls:
        vring.disable_notify(mem, lines, st, v, 1)
    for index in range(batch + 1):  # one look more than there are requests
        head = vring.fetch(mem, lines, st, v, 1, FETCHED)
        if head >= 0:
            st[HEADS + u64(index)] = head
            touch_load(lines, 1, HEADER + HEADER_STRIDE * index, 51)
    if not polls:
        vring.enable_notify(mem, lines, st, v, 1)
        vring.more_avail(mem, lines, st, v, 1)
    st[SUMS + u64(1)] += take_cycles(lines, 1)
    for index in range(batch):
        at = HEADER + HEADER_STRIDE * index + 59
        scsi.write_response(mem, lines, 1, at, 0, 0, 0, 0, -1, 0)
        vring.add_used(mem, lines, st, v, 1, st[HEADS + u64(index)], 0)
    vring.signal_needed(mem, lines, st, v, 1)
    st[SUMS + u64(2)] += take_cycles(lines, 1)
    vring.vring_interrupt(mem, lines, st, d, 0)
    vring.disable_cb(mem, lines, st, d, 0)
    for _ in range(batch + 1):
        token = vring.get_buf(mem, lines, st, d, 0)
        if token >= 0:
            scsi.read_response(mem, lines, 0, HEADER + HEADER_STRIDE * token + 59)
    vring.enable_cb_prepare(mem, lines, st, d, 0)
    vring.more_used(mem, lines, st, d, 0)
    st[SUMS + u64(3)] += take_cycles(lines, 0)


def reference_lines(
    prices: tuple[int, int, int, int], num: int = 128, stack: str = 'vhost-scsi'
) -> ReferenceLines:
    """Average line costs of a request, over one lap of a warm ring of `num` entries.

    `prices`: (hit, shared, transfer, cold) in cycles; `stack` as in sim.features.
    """
    polls, batch = int(stack == 'vhost-user-scsi'), BATCHES[stack]
    avail, used = DESC + 16 * num, DESC + 16 * num + 0x1000
    mem = np.zeros(MEMORY, dtype=np.uint8)
    lines = new_lines(mem.size, 2, prices)
    v = u64(int(DRIVER) + vring.driver_words(num))
    st = np.zeros(int(v) + vring.device_words(num), dtype=np.int64)
    features = 1 << F_VERSION_1 | 1 << F_INDIRECT_DESC | (1 - polls) << F_EVENT_IDX
    base = vring.fresh_base(features)
    who = vring.QEMU if stack == 'virtio-scsi' else vring.KERNEL_VHOST
    st[int(v) + int(vring.V_USED_FLAGS)] = polls * USED_F_NO_NOTIFY
    vring.driver_init(st, DRIVER, num, DESC, avail, used, features)
    vring.device_init(mem, st, v, num, DESC, avail, used, features, base, who)
    st[:10] = [1, 2, 0, 0, HEADER, 51, HEADER + 59, 108, DATA, 4096]
    for turn in range(2 * num // batch):
        if turn == num // batch:  # the first lap has warmed the lines up
            st[int(SUMS) : int(SUMS) + 4] = 0
        _requests(mem, lines, st, v, turn, batch, polls)
    submit, pop, complete, finish = (int(total) // num for total in st[int(SUMS) : int(SUMS) + 4])
    return ReferenceLines(
        guest_submit=submit, guest_complete=finish, worker_pop=pop, worker_complete=complete
    )
