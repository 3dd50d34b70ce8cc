"""The reference path: what its ring accesses cost, by the measured share that contains them.

Split ring, INDIRECT, EVENT_IDX, one 4 KiB read at a time; core 0 is the guest, core 1 the worker.
Run on the real ring, with the functions and the types that the engine has compiled anyway.
"""

from dataclasses import dataclass

import numpy as np

from sim import scsi, vring
from sim.jit import kernel
from sim.layout import F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1
from sim.memory import bare, new_lines, take_cycles, touch_load

u64 = np.uint64

# Where things stand in the words: the request's buffers, the sums of the four parts, the buffers
# as they are fetched, the driver, and behind it the device.
BUFFERS, SUMS, FETCHED, DRIVER = map(u64, (0, 12, 16, 32))

# Where things lie in guest memory.
DESC, HEADER, TABLE, DATA, MEMORY = 0x1000, 0x10008, 0x11000, 0x20000, 0x22000


@dataclass(frozen=True, kw_only=True)
class ReferenceLines:
    """Line costs per request on the reference path, in cycles, by the share that contains them."""

    guest_submit: int
    guest_complete: int
    worker_pop: int
    worker_complete: int


@kernel
def _request(memory, ownership, state, v, turn):
    """One request from its publication to its end; adds what each part cost to the sums."""
    mem, lines, st, d = bare(memory), bare(ownership), bare(state), DRIVER
    scsi.write_request(mem, lines, 0, HEADER, 0, 0, HEADER, 0, 8 * turn, 8)
    vring.add(mem, lines, st, d, 0, BUFFERS, 0, TABLE)
    vring.kick_prepare(mem, lines, st, d, 0)
    st[SUMS] += take_cycles(lines, 0)
    vring.disable_notify(mem, lines, st, v, 1)
    vring.fetch(mem, lines, st, v, 1, FETCHED)
    touch_load(lines, 1, HEADER, 51)
    vring.fetch(mem, lines, st, v, 1, FETCHED)
    vring.enable_notify(mem, lines, st, v, 1)
    vring.more_avail(mem, lines, st, v, 1)
    st[SUMS + u64(1)] += take_cycles(lines, 1)
    scsi.write_response(mem, lines, 1, HEADER + 59, 0, 0, 0, 0, -1, 0)
    vring.add_used(mem, lines, st, v, 1, 0, 0)
    vring.signal_needed(mem, lines, st, v, 1)
    st[SUMS + u64(2)] += take_cycles(lines, 1)
    vring.vring_interrupt(mem, lines, st, d, 0)
    vring.disable_cb(mem, lines, st, d, 0)
    vring.get_buf(mem, lines, st, d, 0)
    scsi.read_response(mem, lines, 0, HEADER + 59)
    vring.get_buf(mem, lines, st, d, 0)
    vring.enable_cb_prepare(mem, lines, st, d, 0)
    vring.more_used(mem, lines, st, d, 0)
    st[SUMS + u64(3)] += take_cycles(lines, 0)


def reference_lines(prices: tuple[int, int, int, int], num: int = 128) -> ReferenceLines:
    """Average line costs of a request, over one lap of a warm ring of `num` entries.

    `prices`: (hit, shared, transfer, cold) in cycles.
    """
    avail, used = DESC + 16 * num, DESC + 16 * num + 0x1000
    mem = np.zeros(MEMORY, dtype=np.uint8)
    lines = new_lines(mem.size, 2, prices)
    v = u64(int(DRIVER) + vring.driver_words(num))
    st = np.zeros(int(v) + vring.device_words(num), dtype=np.int64)
    features = 1 << F_VERSION_1 | 1 << F_INDIRECT_DESC | 1 << F_EVENT_IDX
    base, who = vring.fresh_base(features), vring.KERNEL_VHOST
    vring.driver_init(st, DRIVER, num, DESC, avail, used, features)
    vring.device_init(mem, st, v, num, DESC, avail, used, features, base, who)
    st[:10] = [1, 2, 0, 0, HEADER, 51, HEADER + 59, 108, DATA, 4096]
    for turn in range(2 * num):
        if turn == num:  # the first lap has warmed the lines up
            st[int(SUMS) : int(SUMS) + 4] = 0
        _request(mem, lines, st, v, turn)
    submit, pop, complete, finish = (int(total) // num for total in st[int(SUMS) : int(SUMS) + 4])
    return ReferenceLines(
        guest_submit=submit, guest_complete=finish, worker_pop=pop, worker_complete=complete
    )
