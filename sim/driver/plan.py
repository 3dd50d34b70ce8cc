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
from sim.driver import events as guest_events
from sim.driver.affinity import groups
from sim.formats.action_keys import AN_FUNCTIONS, TMF_FUNCTIONS, Tmf
from sim.formats.luns import Lun
from sim.layout import PAGE_SIZE, VQ_CONTROL, VQ_EVENT, VQ_REQUEST_FIRST, desc_bytes, vring_offsets

Take = Callable[..., int]  # take(size, align=1)

# Where a command lies in its tag's memory: 832 bytes apart and 8 bytes into a line, as the slab
# places scsi_cmnd with virtio_scsi_cmd behind it in a Linux 6.1 guest.
HEADER_STRIDE = 832
HEADER_OFFSET = 8

# kvm.halt_poll_ns_shrink by host kernel; 2 since Linux 6.11.
HALT_POLL_NS_SHRINK = {'6.1': 0, '6.12': 2, '7.2': 2}

EVENT_LOG_ROOM = 1024  # handled events that are remembered
ALL_EVENTS = 2 | 4 | 8 | 16 | 32 | 64  # VIRTIO_SCSI_EVT_ASYNC_*: whatever an AN may ask for


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
        cap = config.guest.can_queue
        self.cap = 0 if cap is None else self.take(guest.HOST_WORDS)
        if cap is not None:
            self.put(self.cap, guest.S_CAN_QUEUE, cap)
        self.luns = [self._lun(lun) for lun in config.disks]
        self.tasks = [self._task(tmf) for tmf in config.tmfs]
        self.error_handler = self._thread(VQ_CONTROL, guest.ERROR_HANDLER, len(self.tasks))
        self._memory_of_control()
        self.event_work = self._event_work()
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

    def init_rings(
        self,
        mem: npt.NDArray[np.uint8],
        lines: npt.NDArray[np.int64],
        st: npt.NDArray[np.int64],
    ) -> None:
        """The drivers' private state and the buffers for events, once the arrays exist.

        Memory is zero then.
        """
        for vq in self.vqs:
            ring = (vq.desc, vq.avail, vq.used)
            vring.driver_init(st, np.uint64(vq.driver), self.num, *ring, self.features)
            if vq.index >= len(self.vqs) - self.config.polled_queues:
                vring.init_without_callback(mem, st, np.uint64(vq.driver))
        if self.has_events:
            event, thread = np.uint64(self.bases[VQ_EVENT]), np.uint64(self.event_work)
            guest_events.fill(mem, lines, st, event, thread)

    @property
    def has_events(self) -> bool:
        """Does the driver give the host buffers for events (virtscsi_scan)?

        Of the kernels here 7.2 always does, the older ones where HOTPLUG was agreed.
        """
        hotplug = self.features >> layout.F_HOTPLUG & 1
        return bool(hotplug) or self.config.guest.kernel == '7.2'

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
            group = self._vcpus_of(index - VQ_REQUEST_FIRST)
            values += self._on_vcpu(group[0])
            if index >= len(self.bases) - self.config.polled_queues:
                values += [
                    (guest.G_POLLED, 1),
                    (guest.G_POLLERS, len(group)),
                    (guest.G_POLLER_LIST, self.table([self.vcpu[vcpu] for vcpu in group])),
                ]
            values += self._hardware_queue(self.num + (index == VQ_REQUEST_FIRST))
        for name, value in values:
            self.put(vq.queue, name, value)
        return vq

    def _vcpus_of(self, request: int) -> range:
        """The vCPUs that submit to a request queue; the last queues are those that are polled."""
        polled = self.config.polled_queues
        irq = self.queues - polled
        if request < irq:
            return groups(len(self.vcpu), irq)[request]
        return groups(len(self.vcpu), polled)[request - irq]

    def _on_vcpu(self, vcpu: int) -> list[tuple[np.uint64, int]]:
        return [(guest.G_VCPU, self.vcpu[vcpu]), (guest.G_VCPU_SLOT, vcpu)]

    def _hardware_queue(self, commands: int) -> list[tuple[np.uint64, int]]:
        """The tags of a request queue, and the memory of their commands.

        The first queue has one command more than tags, for the scan of LUNs.
        """
        num, segments = self.num, self.segments
        table_stride = 64
        while table_stride < 16 * (segments + 2):
            table_stride *= 2  # kmalloc size classes
        return [
            (guest.G_TAG_FREE, num),
            (guest.G_TAG_LIST, self.table(range(num - 1, -1, -1))),
            (guest.G_TAGS, self.take(int(guest.TAG_WORDS) * commands)),
            (guest.G_HEADERS, self.take_bytes(HEADER_STRIDE * commands, PAGE_SIZE) + HEADER_OFFSET),
            (guest.G_HEADER_STRIDE, HEADER_STRIDE),
            (guest.G_TABLES, self.take_bytes(table_stride * commands, PAGE_SIZE)),
            (guest.G_TABLE_STRIDE, table_stride),
            (guest.G_DATA, self.take_bytes(PAGE_SIZE * segments * commands, PAGE_SIZE)),
            (guest.G_DATA_STRIDE, PAGE_SIZE * segments),
            (guest.G_BUFFERS, self.take(8 + 2 * (segments + 2))),
            (guest.G_WAITER_ROOM, self.config.threads),
            (guest.G_WAITER_LIST, self.take(self.config.threads)),
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
        values = (
            (guest.V_CORE, index),
            (guest.V_SLOT, index),
            (guest.V_RESUME_AT, NEVER),
            (guest.V_HALT_SHRINK, HALT_POLL_NS_SHRINK[self.config.host.kernel]),
            (guest.V_FINISHING, -1),
            (guest.V_TAG, -1),
            (guest.V_QUEUES, len(self.bases) + 2),  # and the kernel threads
            (guest.V_PENDING_LIST, self.take(len(self.bases) + 2)),
            (guest.V_KICK_SLOT, kick_slot),
            (guest.V_BATCH_LIST, self.take(2 * (2 * self.num + 64))),
        )
        for name, value in values:
            self.put(self.vcpu[index], name, value)

    def _lun(self, lun: Lun) -> int:
        """A LUN as the guest has it (struct scsi_device)."""
        base = self.take(guest.LUN_WORDS)
        depth = min(self.config.device.cmd_per_lun, self.num)
        late = self.config.is_late(lun)
        values = (
            (guest.L_DEPTH, 0 if late else depth),
            (guest.L_FULL_DEPTH, 0 if late else depth),
            (guest.L_CMD_PER_LUN, depth),
            (guest.L_HOST, self.cap),
            (guest.L_QUEUE_COUNT, self.queues),
            (guest.L_QUEUE_LIST, self.table(self.requests)),
            (guest.L_TARGET, lun.target),
            (guest.L_NUMBER, lun.number),
        )
        for name, value in values:
            self.put(base, name, value)
        return base

    # ---- kernel threads

    def _thread(self, vq: int, kind: int, room: int) -> int:
        """A kernel thread of the driver, for the buffers of one virtqueue."""
        base = self.take(guest.THREAD_WORDS)
        values = [
            *self._on_vcpu(0),
            (guest.G_DISPATCH_HEAD, -1),
            (guest.W_KIND, kind),
            (guest.W_QUEUE, self.bases[vq]),
            (guest.W_ROOM, room),
            (guest.W_LIST, self.take(room)),
            (guest.W_TASK, -1),
            (guest.W_QUEUES, self.queues),
            (guest.W_QUEUE_LIST, self.table(self.requests)),
            (guest.W_LUNS, len(self.luns)),
            (guest.W_LUN_LIST, self.table(self.luns)),
        ]
        for name, value in values:
            self.put(base, name, value)
        self.put(self.bases[vq], guest.G_THREAD, base)
        return base

    def _event_work(self) -> int:
        """The event work, its buffers and its log."""
        base = self._thread(VQ_EVENT, guest.EVENT_WORK, guest.EVENT_BUFFERS)
        buffers = layout.EVENT_SIZE * guest.EVENT_BUFFERS
        values = (
            (guest.W_MEMORY, self.take_bytes(buffers, layout.CACHE_LINE)),
            (guest.W_LOG, self.take(guest.LOG_WORDS * EVENT_LOG_ROOM)),
            (guest.W_LOG_ROOM, EVENT_LOG_ROOM),
        )
        for name, value in values:
            self.put(base, name, value)
        self.put(self.bases[VQ_EVENT], guest.G_BUFFERS, self.take(8))
        return base

    def _memory_of_control(self) -> None:
        """The one command that is on the control queue at a time, and its indirect table."""
        memory = self.take_bytes(HEADER_STRIDE, PAGE_SIZE) + HEADER_OFFSET
        self.put(self.error_handler, guest.W_MEMORY, memory)
        control = self.bases[VQ_CONTROL]
        self.put(control, guest.G_TABLES, self.take_bytes(64, 64))
        self.put(control, guest.G_BUFFERS, self.take(8))

    def _task(self, tmf: Tmf) -> int:
        """A request of the error handler."""
        base = self.take(guest.TASK_WORDS)
        places = [(lun.target, lun.number) for lun in self.config.disks]
        place = (tmf.target, tmf.lun)
        is_tmf = tmf.function in TMF_FUNCTIONS
        subtype = TMF_FUNCTIONS.index(tmf.function) if is_tmf else ALL_EVENTS
        kind = layout.T_TMF if is_tmf else layout.T_AN_QUERY + AN_FUNCTIONS.index(tmf.function)
        values = (
            (guest.TASK_TYPE, kind),
            (guest.TASK_SUBTYPE, subtype),
            (guest.TASK_TARGET, tmf.target),
            (guest.TASK_LUN, tmf.lun),
            (guest.TASK_DEVICE, self.luns[places.index(place)] if place in places else 0),
            (guest.TASK_HOLDS, int(is_tmf and subtype == layout.TMF_LOGICAL_UNIT_RESET)),
            (guest.TASK_RESPONSE, guest.NO_RESPONSE),
        )
        for name, value in values:
            self.put(base, name, value)
        return base
