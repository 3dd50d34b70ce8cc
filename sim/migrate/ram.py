"""Guest RAM as a migration has it: I/O memory byte for byte, all the rest as a count of pages.

migration/ram.c. `Ram` has the migration bitmap and what the destination has received so far. I/O
memory (rings, requests, data) lies at the beginning, where the bitmap is walked first: a page's
content is what it is when the page is sent. Pages of the rest that are in use are dirtied at a
rate, uniformly over all of them or over a hot set, in expectation: of N pages that are hit r times,
N (1 - exp(-r / N)) are dirty.

Pages that nobody has ever written come before those in use. Linux takes its memory from the top of
a node (memblock, top-down), the array of struct page foremost, 1/64 of all; and in a published
migration of a guest of 32 GiB half of what it used was still to come when 8.1 of 8.2 million zero
pages had gone (docs/reference/migration.md).
"""

import math

import numpy as np
import numpy.typing as npt

from sim.layout import PAGE_SIZE
from sim.machine import Machine

PAGE_HEADER = 8  # offset and flags in front of each page (save_page_header, RAM_SAVE_FLAG_CONTINUE)
PAGE_ON_WIRE = PAGE_SIZE + PAGE_HEADER
ZERO_ON_WIRE = PAGE_HEADER + 1  # and one zero byte for all of the page (save_zero_page)
Bits = npt.NDArray[np.bool_]


class Ram:
    """What is dirty, and what is at the destination. `size`, `used` (of it, what was ever written;
    None: all), `hot_set` in bytes, `rate` in bytes per second of a guest that is not slowed down,
    `cpu_hz` cycles per second. `normal` and `duplicate` count pages as sent, by QEMU's names.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        size: int,
        used: int | None,
        rate: int,
        hot_set: int,
        cpu_hz: int,
    ) -> None:
        self.machine = machine
        self.memory = np.zeros_like(machine.mem)  # the destination's
        self.io_dirty = np.ones(machine.mem.size // PAGE_SIZE, dtype=bool)
        self.rest = max(0, size // PAGE_SIZE - self.io_dirty.size)
        in_use = self.rest
        if used is not None:
            in_use = min(self.rest, max(0, used // PAGE_SIZE - self.io_dirty.size))
        self.hot = min(in_use, hot_set // PAGE_SIZE) or in_use
        self.hot_dirty, self.cold_dirty = self.hot, in_use - self.hot
        self.zero_dirty = self.rest - in_use
        self.rate = rate / PAGE_SIZE / cpu_hz  # pages per cycle
        self.hits = 0.0  # writes to the rest since the last sync
        self.hits_until = 0
        self.normal = self.duplicate = 0

    @property
    def pages(self) -> int:
        """All of RAM."""
        return self.rest + self.io_dirty.size

    @property
    def sent_pages(self) -> int:
        """Pages that have gone; one that went twice counts twice."""
        return self.normal + self.duplicate

    def has_received(self, memory: npt.NDArray[np.uint8]) -> None:
        """All has been sent, I/O memory with this content; the logs know what is dirty since."""
        self.memory[:] = memory
        self.io_dirty[:] = False
        self.hot_dirty = self.cold_dirty = self.zero_dirty = 0

    # ---- what is dirty

    @property
    def dirty_pages(self) -> int:
        """Pages that the bitmap has."""
        return int(self.io_dirty.sum()) + self.rest_dirty

    @property
    def rest_dirty(self) -> int:
        """Those of them that are counted only."""
        return self.hot_dirty + self.cold_dirty + self.zero_dirty

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
        self.normal += len(pages)

    def next_rest(self) -> tuple[bool, int]:
        """Are the next pages of the rest zero pages, and how many of this kind follow."""
        if self.zero_dirty:
            return True, self.zero_dirty
        return False, self.hot_dirty + self.cold_dirty

    def send_rest(self, pages: int) -> None:
        """So many pages of the kind that is next have gone; those in use with the hot ones last."""
        if self.zero_dirty:
            self.zero_dirty -= pages
            self.duplicate += pages
            return
        cold = min(pages, self.cold_dirty)
        self.cold_dirty -= cold
        self.hot_dirty -= pages - cold
        self.normal += pages
