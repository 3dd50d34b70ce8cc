"""From a config to the guest's words and memory: vCPUs, virtqueues, rings, LUNs.

Virtqueues are numbered as virtio numbers them: 0 is control, 1 is event, request queues follow.
Guest memory holds, per request queue, the ring as a modern PCI driver lays it out, then per tag the
command (struct virtio_scsi_cmd behind its scsi_cmnd), an indirect table and a page-aligned data
buffer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim import guest, layout, vring
from sim.agents import NEVER
from sim.config import Config
from sim.formats.luns import Lun
from sim.irq_affinity import groups, queue_of
from sim.layout import PAGE_SIZE, VQ_CONTROL, VQ_EVENT, VQ_REQUEST_FIRST, desc_bytes, vring_offsets

Take = Callable[..., int]  # take(size, align=1)

# Where a command lies in its tag's memory: 832 bytes apart and 8 bytes into a line, as the slab
# places scsi_cmnd with virtio_scsi_cmd behind it in a Linux 6.1 guest.
HEADER_STRIDE = 832
HEADER_OFFSET = 8


@dataclass(frozen=True, kw_only=True)
class Vq:
    """One virtqueue in the guest: bases of its queue and its driver, where the ring lies."""

    index: int
    queue: int
    driver: int
    rows: int  # table: by head, the trace's row of the request
    desc: int
    avail: int
    used: int


class GuestPlan:
    """Lays out the guest of a config.

    `take` hands out words of the agents' state, `take_bytes` bytes of guest memory, `put` says what
    a word shall hold. `vcpu` are the bases of the vCPU agents, which have the first slots, `kick`
    the slots of their kick crossings; `segments` is the length of the longest request in pages.
    """

    def __init__(
        self,
        config: Config,
        *,
        take: Take,
        take_bytes: Take,
        put: Callable[[int, np.uint64, int], None],
        vcpu: Sequence[int],
        kick: Sequence[int],
        segments: int,
    ) -> None:
        self.config = config
        self.take = take
        self.take_bytes = take_bytes
        self.put = put
        self.vcpu = vcpu
        self.segments = segments
        self.num = config.device.virtqueue_size
        self.features = config.agreed.acked
        self.queues = min(config.device.num_queues, len(vcpu))
        count = VQ_REQUEST_FIRST + self.queues
        self.bases = [take(guest.GUEST_QUEUE_WORDS) for _ in range(count)]
        self.vqs = [self._vq(index) for index in range(count)]
        self.luns = [self._lun(lun) for lun in config.disks]
        for index in range(len(vcpu)):
            self._vcpu(index, kick[index])

    @property
    def requests(self) -> list[int]:
        """Bases of the request queues."""
        return self.bases[VQ_REQUEST_FIRST:]

    def table(self, values: Sequence[int]) -> int:
        """A stretch that holds the values; where it begins."""
        start = self.take(len(values))
        for place, value in enumerate(values):
            self.put(start + place, np.uint64(0), value)
        return start

    def init_rings(self, mem: npt.NDArray[np.uint8], st: npt.NDArray[np.int64]) -> None:
        """The drivers' private state, once the arrays exist; memory is zero then."""
        for vq in self.vqs:
            ring = (vq.desc, vq.avail, vq.used)
            vring.driver_init(st, np.uint64(vq.driver), self.num, *ring, self.features)

    # ---- virtqueues

    def _vq(self, index: int) -> Vq:
        desc, avail, used = self._ring_memory()
        vq = Vq(
            index=index,
            queue=self.bases[index],
            driver=self.take(vring.driver_words(self.num)),
            rows=self.take(self.num),
            desc=desc,
            avail=avail,
            used=used,
        )
        values = [
            (guest.G_DRIVER, vq.driver),
            (guest.G_INDEX, index),
            (guest.G_NUM, self.num),
            (guest.G_DISPATCH_HEAD, -1),
            (guest.G_DISPATCH_TAIL, -1),
            (guest.G_ROW_OF_HEAD, vq.rows),
        ]
        if index in (VQ_CONTROL, VQ_EVENT):
            values += self._on_vcpu(0)  # their vectors are not spread (struct irq_affinity)
        else:
            group = groups(len(self.vcpu), self.queues)[index - VQ_REQUEST_FIRST]
            values += self._on_vcpu(group[0]) + self._hardware_queue()
        for name, value in values:
            self.put(vq.queue, name, value)
        return vq

    def _on_vcpu(self, vcpu: int) -> list[tuple[np.uint64, int]]:
        return [(guest.G_VCPU, self.vcpu[vcpu]), (guest.G_VCPU_SLOT, vcpu)]

    def _hardware_queue(self) -> list[tuple[np.uint64, int]]:
        """The tags of a request queue, and the memory of their commands."""
        num, segments = self.num, self.segments
        table_stride = 64
        while table_stride < 16 * (segments + 2):
            table_stride *= 2  # kmalloc size classes
        return [
            (guest.G_TAG_FREE, num),
            (guest.G_TAG_LIST, self.table(range(num - 1, -1, -1))),
            (guest.G_TAGS, self.take(int(guest.TAG_WORDS) * num)),
            (guest.G_HEADERS, self.take_bytes(HEADER_STRIDE * num, PAGE_SIZE) + HEADER_OFFSET),
            (guest.G_HEADER_STRIDE, HEADER_STRIDE),
            (guest.G_TABLES, self.take_bytes(table_stride * num, PAGE_SIZE)),
            (guest.G_TABLE_STRIDE, table_stride),
            (guest.G_DATA, self.take_bytes(PAGE_SIZE * segments * num, PAGE_SIZE)),
            (guest.G_DATA_STRIDE, PAGE_SIZE * segments),
            (guest.G_BUFFERS, self.take(8 + 2 * (segments + 2))),
            (guest.G_WAITER_ROOM, len(self.vcpu)),
            (guest.G_WAITER_LIST, self.take(len(self.vcpu))),
        ]

    def _ring_memory(self) -> tuple[int, int, int]:
        """Where a modern PCI driver lays a ring: descriptors, driver area, device area.

        A split ring is one allocation (vring_create_virtqueue_split); of a packed one each area is
        its own, in whole pages (vring_alloc_queue_packed).
        """
        if self.features >> layout.F_RING_PACKED & 1:
            sizes = (desc_bytes(self.num), layout.EVENT_STRUCT_SIZE, layout.EVENT_STRUCT_SIZE)
            desc, driver, device = (self.take_bytes(size, PAGE_SIZE) for size in sizes)
            return desc, driver, device
        avail, used, size = vring_offsets(self.num, align=64)
        desc = self.take_bytes(size, PAGE_SIZE)
        return desc, desc + avail, desc + used

    # ---- what else the guest has

    def _vcpu(self, index: int, kick_slot: int) -> None:
        queue = self.requests[queue_of(index, len(self.vcpu), self.queues)]
        values = (
            (guest.V_CORE, index),
            (guest.V_SLOT, index),
            (guest.V_RESUME_AT, NEVER),
            (guest.V_FINISHING, -1),
            (guest.V_TAG, -1),
            (guest.V_QUEUES, len(self.bases)),
            (guest.V_PENDING_LIST, self.take(len(self.bases))),
            (guest.V_QUEUE, queue),
            (guest.V_KICK_SLOT, kick_slot),
            (guest.V_BATCH_LIST, self.take(2 * (2 * self.num + 64))),
        )
        for name, value in values:
            self.put(self.vcpu[index], name, value)

    def _lun(self, lun: Lun) -> int:
        """A LUN as the guest has it (struct scsi_device)."""
        base = self.take(guest.LUN_WORDS)
        values = (
            (guest.L_DEPTH, min(self.config.device.cmd_per_lun, self.num)),
            (guest.L_QUEUE_COUNT, self.queues),
            (guest.L_QUEUE_LIST, self.table(self.requests)),
            (guest.L_TARGET, lun.target),
            (guest.L_NUMBER, lun.number),
        )
        for name, value in values:
            self.put(base, name, value)
        return base
