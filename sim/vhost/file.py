"""One open file of /dev/vhost-scsi: its queues, its locks, and the two flushes.

drivers/vhost/vhost.c and drivers/vhost/scsi.c.

    vhost_dev.mutex     one ioctl at a time (`mutex`)
    vq->mutex           taken between two runs of the worker, given back at once (`_locked`)
    vhost_dev_flush     every worker drained
    vhost_scsi_flush    the counts of all queues turned over, every worker drained, then the
                        commands of the old counts waited for; there is no timeout
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy

from sim import agents, backend, features
from sim.control.clock import Action, Call, Control
from sim.formats.driver_rules import MAX_IO_VQS
from sim.layout import ENOBUFS, VQ_REQUEST_FIRST
from sim.se_cmd import LEFT_BEHIND, X_INFLIGHT, X_TAG
from sim.vhost import scsi as vhost_scsi
from sim.vhost.end import BackendEnd

u64 = np.uint64

E2BIG, ENODEV, ENOTTY, EEXIST, EBUSY, EOPNOTSUPP = -7, -19, -25, -17, -16, -95
MEMORY_REGIONS_MAX = 64  # module parameter max_mem_regions
VRING_F_LOG = 1


@dataclass
class EventFd:
    """An eventfd; vhost never reads the counter, it only looks whether it is 0."""

    number: int
    count: int = 0


@dataclass
class Vq:
    """What the kernel keeps of one queue, apart from what the machine's arrays have."""

    num: int = 1
    base: int = 0
    desc: int = 0
    avail: int = 0
    used: int = 0
    log: int = 0
    flags: int = 0
    kick: EventFd | None = None
    call: EventFd | None = None
    err: EventFd | None = None
    worker: int | None = None

    @property
    def is_set_up(self) -> bool:
        """Does it have a ring (vhost_vq_is_setup)?"""
        return self.avail != 0 and self.desc != 0 and self.used != 0


@dataclass
class Lio:
    """What LIO's configfs has for vhost-scsi: which targets bear a WWPN, and who holds them."""

    wwpn: str
    targets: tuple[int, ...]
    held: dict[int, object] = field(default_factory=dict)  # target -> the file that has it


class VhostFile(BackendEnd):
    """One open file of /dev/vhost-scsi on a machine.

    `offered`: what GET_FEATURES says. `flush_device_ioctls`: whether SET_OWNER, SET_MEM_TABLE,
    SET_LOG_BASE and SET_LOG_FD end in a flush, as kernels do since a fix of 2025 that 6.12.95 and
    6.1 before 6.1.189 lack.
    """

    def __init__(
        self,
        control: Control,
        lio: Lio,
        *,
        kernel: str,
        offered: int = features.VHOST_SCSI_FEATURES,
        flush_device_ioctls: bool = True,
    ) -> None:
        super().__init__(control)
        self.lio = lio
        self.kernel = kernel
        self.offered = offered
        self.flush_device_ioctls = flush_device_ioctls
        self.notes_early = False  # hypothetical: buffers are noted from SET_LOG_BASE on
        self.failing: dict[str, int] = {}  # what an ioctl answers instead of doing anything
        self.mutex = simpy.Resource(control.env)
        self.owner = False
        self.acked = 0
        self.regions = 0
        self.log_base: object | None = None
        self.endpoint: tuple[int, ...] = ()  # the targets it holds
        self.worker_ids: list[int] = []
        self.vqs = [Vq() for _ in range(MAX_IO_VQS + VQ_REQUEST_FIRST)]
        device = self.machine.vhost
        self.targets = int(self.st[device + int(vhost_scsi.S_TARGETS)])
        self.no_targets = int(self.st[device + int(vhost_scsi.S_NO_TARGETS)])
        for q in self.queues().values():
            self.st[q + int(backend.Q_BACKEND)] = 0

    # ---- the machine's side of a queue

    def _workers(self) -> list[int]:
        """Bases of the workers that have queues attached, in order of creation."""
        at = {int(self.st[q + int(backend.Q_WORKER)]) for q in self.queues().values()}
        slots = self.machine.slots_of(agents.WORKER)
        return [self.machine.bases[slot] for slot in slots if self.machine.bases[slot] in at]

    def _locked(self, index: int) -> Action:
        """Wait until vq->mutex of a queue is free; what follows without a yield is under it."""
        q = self.queues().get(index)
        if q is None:
            return
        place = q + int(backend.Q_MUTEX)
        while self.st[place] != backend.FREE:
            self.st[place] = backend.WANTED
            yield self.control.notice(agents.N_MUTEX)

    def _each_vq(self, cost: int, act: Callable[[int], None] | None = None) -> Action:
        """A loop over all queues of the device, each under its mutex; unused ones cost as much."""
        known = self.queues()
        last = max(known, default=-1)
        for index in range(last + 1):
            yield from self.control.pay(cost)
            yield from self._locked(index)
            if act is not None and index in known:
                act(index)
        yield from self.control.pay(cost * (len(self.vqs) - last - 1))

    def close(self) -> None:
        """vhost_scsi_release() of a file without an endpoint: it forgets its owner and its queues.

        One that QEMU's end leaves with an endpoint is cleared first (sim.migrate.mishaps.die).
        """
        self.owner, self.acked, self.regions, self.log_base = False, 0, 0, None
        self.worker_ids.clear()
        self.vqs = [Vq() for _ in self.vqs]

    # ---- how an ioctl is made

    def _ioctl(self, name: str, body: Action, **arguments: Any) -> Action:
        """One ioctl under vhost_dev.mutex, with its line in the diary."""
        control, began = self.control, self.control.now
        with self.mutex.request() as held:
            if not held.triggered:
                yield held
            yield from control.pay(control.costs.ioctl)
            answer = self.failing.get(name)
            if answer is None:
                answer = yield from body
        found = answer if isinstance(answer, int) and answer < 0 else 0
        if isinstance(answer, dict):
            arguments |= answer
        control.calls.append(
            Call(
                time=began, name=name, arguments=arguments, answer=found,
                duration=control.now - began,
            )
        )  # fmt: skip
        return answer

    def _device_ioctl(self, name: str, body: Action, **arguments: Any) -> Action:
        """An ioctl of vhost_dev_ioctl(): where the kernel does so, a flush follows."""

        def flushed() -> Action:
            answer = yield from body
            if self.flush_device_ioctls:
                yield from self.flush()
            return answer

        return self._ioctl(name, flushed(), **arguments)

    def unknown(self, name: str, first_word: int) -> Action:
        """An ioctl that vhost-scsi does not have ends in vhost_vring_ioctl(), which takes the
        argument's first word for a queue's index: -ENOBUFS where there is no such queue, else
        -ENOTTY.
        """

        def body() -> Action:
            yield from ()
            return ENOBUFS if first_word >= len(self.vqs) else ENOTTY

        return self._ioctl(name, body())

    # ---- commands

    def commands_out(self, index: int) -> list[int]:
        """Commands whose tag is taken."""
        st, q = self.st, self.queues()[index]
        listed, free = int(st[q + int(backend.Q_TAG_LIST)]), int(st[q + int(backend.Q_TAG_FREE)])
        idle = set(st[listed : listed + free].tolist())
        taken = [x for tag, x in enumerate(self.pool(index)) if tag not in idle]
        return [x for x in taken if st[x + int(X_TAG)] != LEFT_BEHIND]

    def in_flight(self) -> int:
        """Commands and task management: what the queues' counts hold beside their initial 1."""
        st, total = self.st, 0
        for q in self.machine.host_vqs:
            current, first = int(st[q + int(backend.Q_INFLIGHT)]), q + int(backend.Q_INFLIGHTS)
            for count in (first, first + 1):
                total += int(st[count]) - (1 if count == current else 0)
        return total

    def put_out(self, index: int, x: int) -> None:
        """vhost_scsi_put_inflight(), by whoever leaves the command behind."""
        self.st[int(self.st[x + int(X_INFLIGHT)])] -= 1

    def kill_workers(self) -> Action:
        """vhost_worker_killed() of each: a signal ends them, their queues have no worker any more.

        What is in their lists still runs; what LIO gives back later is dropped.
        """
        for index in self.queues():
            yield from self._locked(index)
        for b in self._workers():
            backend.kill_worker(self.st, u64(b))
        for vq in self.vqs:
            vq.worker = None
        self.control.engine.wake_agents()

    # ---- flush

    def flush_workers(self) -> Action:
        """vhost_dev_flush(): every work that was queued before has run."""
        if not self.control.instant:
            for base in self._workers():
                yield from self._flush_worker(base)

    def _flush_worker(self, b: int) -> Action:
        """vhost_worker_flush(): a work behind all others, and wait for it."""
        ticket = backend.queue_flush(self.st, u64(b), self.control.now)
        self.control.engine.wake_agents()
        while self.st[b + int(backend.B_FLUSHED)] < ticket:
            yield self.control.notice(agents.N_FLUSHED)
        yield from self.control.pay(self.control.costs.flush_wakeup)

    def flush(self, patience: int | None = None) -> Action:
        """vhost_scsi_flush(): wait for what was fetched before, and not for what comes later.

        There is no timeout; hypothetical: it waits for `patience` cycles at most, and leaves the
        rest behind.
        """
        st, old = self.st, {}
        until = None if patience is None else self.control.now + patience

        def turn_over(index: int) -> None:
            q = self.queues()[index]
            now = int(st[q + int(backend.Q_INFLIGHT)])
            first = q + int(backend.Q_INFLIGHTS)
            other = first + (1 if now == first else 0)
            st[other] = 1
            st[q + int(backend.Q_INFLIGHT)] = other
            old[index] = now

        yield from self._each_vq(self.control.costs.vq_step, turn_over)
        for count in old.values():
            st[count] -= 1
        yield from self.flush_workers()
        for count in old.values():
            waited = False
            while st[count] != 0:
                waited = True
                answered = self.control.notice(agents.N_INFLIGHT)
                if until is None:
                    yield answered
                    continue
                yield answered | self.control.env.timeout(max(0, until - self.control.now))
                if self.control.now >= until:
                    self.leave_behind(cancel=False)
            if waited:
                yield from self.control.pay(self.control.costs.flush_wakeup)
