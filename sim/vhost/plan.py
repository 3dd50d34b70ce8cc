"""From a config to the host's words: vhost-scsi device, virtqueues, workers, LIO's kworkers.

Each vhost worker has a host CPU, its own or one that it shares. LIO queues work on the CPU where
the vhost worker ran, and completes on the CPU that submitted: each of these CPUs has a pair of
kworkers.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sim import backend, se_cmd, target, vring
from sim.config import Config
from sim.driver.plan import Vq
from sim.layout import F_HOTPLUG, REQ_SIZE, VQ_REQUEST_FIRST
from sim.lio.ports import TARGETS
from sim.vhost import control_queue as vhost_control
from sim.vhost import cpu as host_cpu
from sim.vhost import inflight
from sim.vhost import scsi as vhost_scsi

# Buffers that a command on the host has room for, beyond the pages of the longest request: headers
# and responses may be cut in pieces.
SPARE_PIECES = 8

NO_QUEUE = 1 << 16  # a number that no virtqueue has


@dataclass(frozen=True, kw_only=True)
class Thread:
    """An agent that is a kernel thread: where its stretch begins, its slot."""

    base: int
    slot: int


@dataclass(frozen=True, kw_only=True)
class Kworkers:
    """LIO's two threads on one host CPU."""

    submit: Thread
    complete: Thread


class DevicePlan:
    """Lays out what any device has on the host: itself, and its side of each virtqueue.

    `take` hands out words of the agents' state, `put` says what a word shall hold. `irq` are the
    slots of the vectors (of request queues, then of control and event queue, if anything can come
    over those), `vqs` the guest's side of each virtqueue. `targets` is where the table of targets
    begins, `segments` the length of the longest request in pages.
    """

    queue_words = backend.HOST_QUEUE_WORDS
    personality = vring.KERNEL_VHOST
    completer = 0  # what 6.1 has for the completions of all queues

    def __init__(
        self,
        config: Config,
        *,
        take: Callable[..., int],
        put: Callable[[int, np.uint64, int], None],
        irq: Sequence[int],
        vqs: Sequence[Vq],
        targets: int,
        segments: int,
    ) -> None:
        self.config = config
        self.take = take
        self.put = put
        self.num = config.device.virtqueue_size
        self.pieces = segments + SPARE_PIECES
        self.irq = irq
        self.vqs = vqs
        self.regions: dict[int, int] = {}  # room for the in-flight region of each queue
        self.bases = [take(self.queue_words) for _ in vqs]
        self.devices = [take(vring.device_words(self.num)) for _ in vqs]
        self.vhost = take(vhost_scsi.DEVICE_WORDS)
        self._device(targets)

    @property
    def requests(self) -> list[int]:
        """Bases of the request queues."""
        return self.bases[VQ_REQUEST_FIRST:]

    def init_rings(self, mem: npt.NDArray[np.uint8], st: npt.NDArray[np.int64]) -> None:
        """The device's side of fresh rings, once the arrays exist."""
        features = self.config.agreed.acked
        base = vring.fresh_base(features)
        st[self.vhost + int(vhost_scsi.S_MEMORY)] = mem.size
        for vq, device in zip(self.vqs, self.devices, strict=True):
            v, ring = np.uint64(device), (vq.desc, vq.avail, vq.used)
            vring.device_init(mem, st, v, self.num, *ring, features, base, self.personality)

    # ---- the parts

    def _table(self, values: Sequence[int]) -> int:
        base = self.take(len(values))
        for place, value in enumerate(values):
            self.put(base + place, np.uint64(0), value)
        return base

    def _put_all(self, base: int, values: Mapping[np.uint64, int]) -> None:
        for name, value in values.items():
            self.put(base, name, value)

    def _device(self, targets: int) -> None:
        """The vhost-scsi device (struct vhost_scsi)."""
        kernel = vhost_scsi.KERNEL_NUMBERS[self.config.host.kernel]
        self._put_all(self.vhost, {
            vhost_scsi.S_TARGETS: targets,
            vhost_scsi.S_NO_TARGETS: self.take(TARGETS),
            vhost_scsi.S_HEADER: REQ_SIZE,
            vhost_scsi.S_KERNEL: kernel,
            vhost_scsi.S_ROOM: self.pieces,
            vhost_scsi.S_BUGS: vhost_scsi.bugs_of(self.config.host.bugs),
            vhost_scsi.S_RESETS: -1,
            vhost_scsi.S_EVENT_FREE: self._events(),
            vhost_scsi.S_HOTPLUG: self.config.agreed.acked >> F_HOTPLUG & 1,
            vhost_scsi.S_QUEUES: self._table(self.bases),
            vhost_scsi.S_QUEUE_COUNT: len(self.bases),
        })  # fmt: skip

    def _events(self) -> int:
        """Records for as many events as may wait; the first of a list of free ones."""
        free = -1
        for _ in range(vhost_control.EVENTS_MAX + 1):
            event = self.take(vhost_control.EVENT_WORDS)
            self.put(event, vhost_control.E_NEXT, free)
            free = event
        return free

    def _completer(self, worker: int) -> int:
        """The completion list and work that Linux 6.1 has for the whole device; 0 where each queue
        has its own. Its words are there on any kernel: a VM may move from one to another.
        """
        base = self.take(backend.HOST_QUEUE_WORDS)
        if self.config.host.kernel != '6.1':
            return 0
        self._put_all(base, {
            backend.Q_INDEX: NO_QUEUE,
            backend.Q_WORKER: worker,
            backend.Q_COMPLETIONS: -1,
            backend.Q_OF_DEVICE: 1,
            backend.Q_VHOST: self.vhost,
        })  # fmt: skip
        return base

    def _vq(self, vq: Vq, worker: int) -> None:
        """A virtqueue as the host has it."""
        q, request = self.bases[vq.index], vq.index - VQ_REQUEST_FIRST
        self.regions[vq.index] = self.take(inflight.region_words(self.num))
        # Twice the pieces: before 7.2 the dirty log does not use its half.
        words = int(se_cmd.X_DATA) + 2 * 2 * self.pieces
        pool = self.num + 1  # and a spare one
        commands = self.take(2 * words * pool)  # the second for a start over what was left behind
        for place in range(2 * pool):
            tag = place % pool
            self.put(commands + words * place, se_cmd.X_TAG, tag if tag < self.num else -1)
        self._put_all(q, {
            backend.Q_DEVICE: self.devices[vq.index],
            backend.Q_INDEX: vq.index,
            backend.Q_WORKER: worker,
            backend.Q_COMPLETIONS: -1,
            backend.Q_COMPLETER: self.completer if request >= 0 and self.completer else q,
            backend.Q_BUFFERS: self.take(8 + 2 * 1024),
            backend.Q_ROW_OF_HEAD: vq.rows,
            backend.Q_VHOST: self.vhost,
            backend.Q_BACKEND: 1,
            backend.Q_INFLIGHT: q + int(backend.Q_INFLIGHTS),
            backend.Q_INFLIGHTS: 1,
            backend.Q_IRQ_SLOT: self._irq_slot(vq.index),
            backend.Q_COMMANDS: commands,
            backend.Q_COMMAND_WORDS: words,
            backend.Q_TAG_FREE: self.num,
            backend.Q_TAG_LIST: self._table(range(self.num - 1, -1, -1)),
            backend.Q_TAGS: self.num,
            backend.Q_ORDER_LIST: self.take(self.num),
            backend.Q_ORDER_ROOM: self.num,
            backend.Q_RESUBMIT_LIST: self.take(self.num + 1),
            backend.Q_POLLED: int(vq.index >= len(self.vqs) - self.config.polled_queues),
        })  # fmt: skip

    def _irq_slot(self, vq: int) -> int:
        """The agent that carries the interrupts of a virtqueue: those of control and event queue
        are the last; -1 where nothing can come over them.
        """
        requests = len(self.vqs) - VQ_REQUEST_FIRST
        if vq >= VQ_REQUEST_FIRST:
            return self.irq[vq - VQ_REQUEST_FIRST]
        return self.irq[requests + vq] if len(self.irq) > requests else -1


class HostPlan(DevicePlan):
    """The device of kernel vhost-scsi, its workers, and LIO below.

    `workers` are the vhost workers, `cpus` the number of each one's host CPU, `kworkers` LIO's
    threads by that number; the rest is as for any device.
    """

    def __init__(
        self,
        config: Config,
        *,
        workers: Sequence[Thread],
        cpus: Sequence[int],
        kworkers: Sequence[Kworkers],
        **rest: Any,
    ) -> None:
        super().__init__(config, **rest)
        self.workers = workers
        self.completer = self._completer(workers[0].base)
        served = zip(config.worker_vqs, workers, strict=True)
        worker_of = {vq: worker.base for group, worker in served for vq in group}
        for vq in self.vqs:
            self._vq(vq, worker_of[vq.index])
        shared = {cpu: self._cpu(count) for cpu, count in Counter(cpus).items() if count > 1}
        for worker, cpu in zip(workers, cpus, strict=True):
            self._worker(worker, config.guest.vcpus + cpu, kworkers[cpu], shared.get(cpu, 0))
        for pair in kworkers:
            self._kworkers(pair)

    def _cpu(self, workers: int) -> int:
        """A host CPU that so many workers share."""
        base = self.take(host_cpu.CPU_WORDS)
        self._put_all(base, {host_cpu.C_ROOM: workers, host_cpu.C_LIST: self.take(workers)})
        return base

    def _worker(self, worker: Thread, core: int, kworkers: Kworkers, shared: int) -> None:
        """A vhost worker, which may have to hold the works of every queue."""
        room = 2 * len(self.bases) + backend.FLUSHES_MAX
        self._put_all(worker.base, {
            backend.B_SLOT: worker.slot,
            backend.B_CORE: core,
            backend.B_WORK_ROOM: room,
            backend.B_WORK_LIST: self.take(2 * room),
            backend.B_COMMAND: -1,
            backend.B_BATCH: -1,
            backend.B_LIO: kworkers.submit.base,
            backend.B_CPU: shared,
            backend.B_VHOST: self.vhost,
        })  # fmt: skip

    def _kworkers(self, pair: Kworkers) -> None:
        """LIO's threads on one CPU."""
        host, submit, complete = self.config.host, pair.submit, pair.complete
        self._put_all(submit.base, {
            target.W_SLOT: submit.slot,
            target.W_HEAD: -1,
            target.W_PEER: complete.base,
            target.W_FAILED: -1,
            target.W_DIRECT: int(host.submit_type == 'direct'),
        })  # fmt: skip
        self._put_all(complete.base, {
            target.W_SLOT: complete.slot,
            target.W_HEAD: -1,
            target.W_DIRECT: int(host.complete_type == 'direct'),
        })  # fmt: skip
