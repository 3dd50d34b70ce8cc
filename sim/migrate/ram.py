"""Guest RAM as a migration has it: I/O memory byte for byte, all the rest as a count of pages.

migration/ram.c. `Ram` has the migration bitmap and what the destination has received so far. I/O
memory (rings, requests, data) lies at the beginning, where the bitmap is walked first: a page's
content is what it is when the page is sent. Pages of the rest are dirtied at a rate, uniformly over
all of them or over a hot set, in expectation: of N pages that are hit r times, N (1 - exp(-r / N))
are dirty.
"""

import math

import numpy as np
import numpy.typing as npt

from sim.layout import PAGE_SIZE
from sim.machine import Machine

PAGE_HEADER = 8  # offset and flags in front of each page (save_page_header, RAM_SAVE_FLAG_CONTINUE)
PAGE_ON_WIRE = PAGE_SIZE + PAGE_HEADER
Bits = npt.NDArray[np.bool_]


class Ram:
    """What is dirty, and what is at the destination. `size`, `hot_set` in bytes, `rate` in bytes
    per second of a guest that is not slowed down, `cpu_hz` cycles per second.
    """

    def __init__(
        self, machine: Machine, *, size: int, rate: int, hot_set: int, cpu_hz: int
    ) -> None:
        self.machine = machine
        self.memory = np.zeros_like(machine.mem)  # the destination's
        self.io_dirty = np.ones(machine.mem.size // PAGE_SIZE, dtype=bool)
        self.rest = max(0, size // PAGE_SIZE - self.io_dirty.size)
        self.hot = min(self.rest, hot_set // PAGE_SIZE) or self.rest
        self.hot_dirty, self.cold_dirty = self.hot, self.rest - self.hot
        self.rate = rate / PAGE_SIZE / cpu_hz  # pages per cycle
        self.hits = 0.0  # writes to the rest since the last sync
        self.hits_until = 0
        self.sent_pages = 0

    def has_received(self, memory: npt.NDArray[np.uint8]) -> None:
        """All has been sent, I/O memory with this content; the logs know what is dirty since."""
        self.memory[:] = memory
        self.io_dirty[:] = False
        self.hot_dirty = self.cold_dirty = 0

    # ---- what is dirty

    @property
    def dirty_pages(self) -> int:
        """Pages that the bitmap has."""
        return int(self.io_dirty.sum()) + self.rest_dirty

    @property
    def rest_dirty(self) -> int:
        """Those of them that are counted only."""
        return self.hot_dirty + self.cold_dirty

    @property
    def pending(self) -> int:
        """Bytes that are known to be missing (migration_dirty_pages * page size)."""
        return self.dirty_pages * PAGE_SIZE

    def guest_ran(self, now: int, share: float) -> None:
        """The vCPUs have had `share` of their time since the last call; they had until `now`."""
        self.hits += self.rate * share * (now - self.hits_until)
        self.hits_until = now

    def sync(self, io_written: Bits) -> int:
        """A sync of the bitmaps: `io_written` is what the logs say of I/O memory.

        Returns how many pages became dirty.
        """
        before = self.dirty_pages
        self.io_dirty |= io_written
        if self.hot and self.hits:
            clean = self.hot - self.hot_dirty
            self.hot_dirty += round(clean * -math.expm1(-self.hits / self.hot))
        self.hits = 0.0
        return self.dirty_pages - before

    # ---- what is sent

    def next_io(self, most: int) -> npt.NDArray[np.int64]:
        """Up to `most` dirty pages of I/O memory, lowest first."""
        return np.flatnonzero(self.io_dirty)[:most]

    def send_io(self, pages: npt.NDArray[np.int64]) -> None:
        """The pages go as they are now; their bits are cleared before (migration_bitmap_clear)."""
        self.io_dirty[pages] = False
        shape = -1, PAGE_SIZE
        self.memory.reshape(shape)[pages] = self.machine.mem.reshape(shape)[pages]
        self.sent_pages += len(pages)

    def send_rest(self, pages: int) -> None:
        """So many pages of the rest have gone, what is not hot first."""
        cold = min(pages, self.cold_dirty)
        self.cold_dirty -= cold
        self.hot_dirty -= pages - cold
        self.sent_pages += pages
