"""What several tests of the ring do to one."""

import numba
import numpy as np

from sim import testing
from sim.memory import load16


@numba.njit
def load_at(mem, address):
    """Two bytes of memory, through the accessor that kernels use."""
    return load16(mem, np.uint64(address))


def start_at(ring: testing.Ring, start: int) -> None:
    """As if `start` chains (packed: slots) had gone through the ring before."""
    driver, device = ring.driver, ring.device
    if not ring.packed:
        index = start & 0xFFFF
        driver.avail_idx = driver.last_used = index
        raw = index.to_bytes(2, 'little')
        for at in (
            ring.avail + 2,
            ring.avail + 4 + 2 * ring.num,
            ring.used + 2,
            ring.used + 4 + 8 * ring.num,
        ):
            ring.write(at, raw)
        device.attach(index)
        return
    lap, slot = divmod(start, ring.num)
    wrap = 1 - lap % 2
    driver.avail_idx, driver.avail_wrap, driver.last_used = slot, wrap, wrap << 15 | slot
    for i in range(ring.num):  # used ones of this lap before the slot, of the lap before from it on
        ring.write_desc(ring.desc + 16 * i, 0, 0, 0x8080 if (i < slot) == bool(wrap) else 0, 0)
    both = wrap << 15 | slot
    device.attach(both << 16 | both)
