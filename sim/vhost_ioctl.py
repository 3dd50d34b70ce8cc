"""/dev/vhost-scsi: what one open file does with the ioctls of its owner.

drivers/vhost/vhost.c (vhost_dev_ioctl, vhost_vring_ioctl) and drivers/vhost/scsi.c
(vhost_scsi_ioctl), by kernel version. Each ioctl is a control action (sim.control) that returns 0,
a negative errno, or what it was asked for, and leaves a line in the diary.

    vhost_dev.mutex     one ioctl at a time (`mutex`)
    vq->mutex           taken between two runs of the worker, given back at once (`_locked`)
    flush               vhost_scsi_flush(): the counts of all queues turned over, every worker
                        drained, then the commands of the old counts waited for
    no endpoint         the worker finds no backend: it consumes kicks and touches no guest memory

Which kernel does what:
    6.1     no worker ioctls; CLEAR_ENDPOINT takes the targets away before it stops the queues, so
            that what the worker still fetches is answered BAD_TARGET
    6.12    worker ioctls; queues are stopped first
    7.2     SET_FEATURES with an endpoint set may change LOG_ALL only
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy

from sim import agents, backend, features, vhost_scsi, vring
from sim.control import Action, Call, Control
from sim.features import version
from sim.layout import EFAULT, EINVAL, ENOBUFS, RING_SIZE_MAX, VQ_REQUEST_FIRST

u64 = np.uint64

ENODEV, ENOTTY, EEXIST, EBUSY, EOPNOTSUPP = -19, -25, -17, -16, -95
ABI_VERSION = 1  # VHOST_SCSI_ABI_VERSION
MAX_IO_VQS = 128  # module parameter max_io_vqs
MEMORY_REGIONS_MAX = 64  # module parameter max_mem_regions
VRING_F_LOG = 1


@dataclass
class EventFd:
    """An eventfd; vhost never reads the counter, it only looks whether it is 0."""

    name: str
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


class VhostScsi:
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
        self.control = control
        self.machine = control.machine
        self.st = control.machine.st
        self.lio = lio
        self.kernel = kernel
        self.offered = offered
        self.flush_device_ioctls = flush_device_ioctls
        self.mutex = simpy.Resource(control.env)
        self.owner = False
        self.acked = 0
        self.regions = 0
        self.log_base: object | None = None
        self.endpoint: tuple[int, ...] = ()  # the targets it holds
        self.events_missed = 0
        self.worker_ids: list[int] = []
        self.vqs = [Vq() for _ in range(MAX_IO_VQS + VQ_REQUEST_FIRST)]
        self.no_targets = self._words_without_targets()
        for q in self._queues().values():
            self.st[q + int(backend.Q_BACKEND)] = 0

    # ---- the machine's side of a queue

    def _queues(self) -> dict[int, int]:
        """Base of the host side of each queue that the machine has, by index."""
        return self.machine.vqs

    def _words_without_targets(self) -> int:
        """A vs_tpg[] with nothing in it: the device's own, once its targets are gone."""
        return int(self.st[self.machine.vhost + int(vhost_scsi.S_NO_TARGETS)])

    def _workers(self) -> list[int]:
        """Bases of the workers that have queues attached, in order of creation."""
        at = {int(self.st[q + int(backend.Q_WORKER)]) for q in self._queues().values()}
        slots = self.machine.slots_of(agents.WORKER)
        return [self.machine.bases[slot] for slot in slots if self.machine.bases[slot] in at]

    def _locked(self, index: int) -> Action:
        """Wait until vq->mutex of a queue is free; what follows without a yield is under it."""
        q = self._queues().get(index)
        if q is None:
            return
        place = q + int(backend.Q_MUTEX)
        while self.st[place] != backend.FREE:
            self.st[place] = backend.WANTED
            yield self.control.notice(agents.N_MUTEX)

    def _each_vq(self, cost: int, act: Callable[[int], None] | None = None) -> Action:
        """A loop over all queues of the device, each under its mutex; unused ones cost as much."""
        known = self._queues()
        last = max(known, default=-1)
        for index in range(last + 1):
            yield from self.control.pay(cost)
            yield from self._locked(index)
            if act is not None and index in known:
                act(index)
        yield from self.control.pay(cost * (len(self.vqs) - last - 1))

    # ---- how an ioctl is made

    def _ioctl(self, name: str, body: Action, **arguments: Any) -> Action:
        """One ioctl under vhost_dev.mutex, with its line in the diary."""
        control, began = self.control, self.control.now
        with self.mutex.request() as held:
            if not held.triggered:
                yield held
            yield from control.pay(control.costs.ioctl)
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

    # ---- the device

    def set_owner(self) -> Action:
        """VHOST_SET_OWNER: the default worker is made, and has every queue."""

        def body() -> Action:
            if self.owner:
                return EBUSY
            yield from self.control.pay(self.control.costs.owner)
            self.owner = True
            self.worker_ids = [0]
            for vq in self.vqs:
                vq.worker = 0
            return 0

        return self._device_ioctl('VHOST_SET_OWNER', body())

    def get_features(self) -> Action:
        """VHOST_GET_FEATURES: {'features': bits}."""

        def body() -> Action:
            yield from ()
            return {'features': self.offered}

        return self._ioctl('VHOST_GET_FEATURES', body())

    def set_features(self, wanted: int) -> Action:
        """VHOST_SET_FEATURES (vhost_scsi_set_features): no flush, every vq->mutex in turn."""

        def body() -> Action:
            if wanted & ~self.offered:
                return EOPNOTSUPP
            if wanted >> features.LOG_ALL & 1 and self.log_base is None:
                return EFAULT
            changed = (wanted ^ self.acked) & ~features.mask(features.LOG_ALL)
            if version(self.kernel) >= (7, 2) and self.endpoint and changed:
                return EBUSY
            yield from self._each_vq(self.control.costs.vq_step, self._feature_setter(wanted))
            self.acked = wanted
            return 0

        return self._ioctl('VHOST_SET_FEATURES', body(), features=wanted)

    def _feature_setter(self, wanted: int) -> Callable[[int], None]:
        """What SET_FEATURES does to a queue under its mutex: vq->acked_features."""

        def act(index: int) -> None:
            self._log_changed(index, bool(wanted >> features.LOG_ALL & 1))

        return act

    def _log_changed(self, index: int, log_all: bool) -> None:
        """Dirty logging of a queue's buffers is switched; the model keeps no log yet."""

    def set_mem_table(self, regions: int) -> Action:
        """VHOST_SET_MEM_TABLE: guest memory is `regions` regions."""

        def body() -> Action:
            if regions > MEMORY_REGIONS_MAX:
                return -7  # E2BIG
            yield from self.control.pay(self.control.costs.mem_table)
            yield from self._each_vq(self.control.costs.vq_access)
            self.regions = regions
            yield from self._each_vq(self.control.costs.vq_step)
            return 0

        return self._device_ioctl('VHOST_SET_MEM_TABLE', body(), nregions=regions)

    def set_log_base(self, log: object) -> Action:
        """VHOST_SET_LOG_BASE: `log` is whatever stands for QEMU's dirty bitmap."""

        def body() -> Action:
            yield from self.control.pay(self.control.costs.log_base)
            yield from self._each_vq(self.control.costs.vq_step)
            self.log_base = log
            return 0

        return self._device_ioctl('VHOST_SET_LOG_BASE', body())

    # ---- workers

    def new_worker(self) -> Action:
        """VHOST_NEW_WORKER: {'worker': id}."""

        def body() -> Action:
            if version(self.kernel) < (6, 5):
                return ENOTTY
            yield from self.control.pay(self.control.costs.new_worker)
            self.worker_ids.append(max(self.worker_ids, default=0) + 1)
            return {'worker': self.worker_ids[-1]}

        return self._ioctl('VHOST_NEW_WORKER', body())

    def free_worker(self, worker: int) -> Action:
        """VHOST_FREE_WORKER: refused while a queue is attached to it."""

        def body() -> Action:
            if version(self.kernel) < (6, 5):
                return ENOTTY
            if worker not in self.worker_ids:
                return ENODEV
            if any(vq.worker == worker for vq in self.vqs):
                return EBUSY
            yield from self.control.pay(self.control.costs.new_worker)
            self.worker_ids.remove(worker)
            return 0

        return self._ioctl('VHOST_FREE_WORKER', body(), worker=worker)

    def attach_vring_worker(self, index: int, worker: int) -> Action:
        """VHOST_ATTACH_VRING_WORKER: works queued from now on go to another worker.

        Where the queue has a kick or a backend already, the old worker is flushed.
        """

        def body() -> Action:
            if version(self.kernel) < (6, 5):
                return ENOTTY
            if index >= len(self.vqs):
                return ENOBUFS
            if worker not in self.worker_ids:
                return ENODEV
            yield from self.control.pay(self.control.costs.attach_worker)
            vq, old = self.vqs[index], self._queues().get(index)
            vq.worker = worker
            slots = self.machine.slots_of(agents.WORKER)
            place = self.worker_ids.index(worker)
            if old is None or place >= len(slots):
                return 0
            base = int(self.st[old + int(backend.Q_WORKER)])
            self.st[old + int(backend.Q_WORKER)] = self.machine.bases[slots[place]]
            if vq.kick is not None or self.endpoint:
                yield from self._flush_worker(base)
            return 0

        return self._ioctl('VHOST_ATTACH_VRING_WORKER', body(), index=index, worker=worker)

    def get_vring_worker(self, index: int) -> Action:
        """VHOST_GET_VRING_WORKER: {'worker': id}."""

        def body() -> Action:
            yield from ()
            if version(self.kernel) < (6, 5):
                return ENOTTY
            if index >= len(self.vqs):
                return ENOBUFS
            worker = self.vqs[index].worker
            return EINVAL if worker is None else {'worker': worker}

        return self._ioctl('VHOST_GET_VRING_WORKER', body(), index=index)

    # ---- rings

    def _ring_ioctl(
        self, name: str, index: int, act: Callable[[Vq], Any], **arguments: Any
    ) -> Action:
        """An ioctl of vhost_vring_ioctl(): `act` under vq->mutex."""

        def body() -> Action:
            if index >= len(self.vqs):
                return ENOBUFS
            yield from self._locked(index)
            return act(self.vqs[index])

        return self._ioctl(name, body(), index=index, **arguments)

    def set_vring_num(self, index: int, num: int) -> Action:
        """VHOST_SET_VRING_NUM."""

        def act(vq: Vq) -> int:
            if self.endpoint:
                return EBUSY
            if num < 1 or num > RING_SIZE_MAX or num & (num - 1):
                return EINVAL
            vq.num = num
            return 0

        return self._ring_ioctl('VHOST_SET_VRING_NUM', index, act, num=num)

    def set_vring_base(self, index: int, num: int) -> Action:
        """VHOST_SET_VRING_BASE: where to go on; packed rings have both indices in it."""

        def act(vq: Vq) -> int:
            if self.endpoint:
                return EBUSY
            if not self.acked >> features.RING_PACKED & 1 and num > 0xFFFF:
                return EINVAL
            vq.base = num
            return 0

        return self._ring_ioctl('VHOST_SET_VRING_BASE', index, act, num=num)

    def get_vring_base(self, index: int) -> Action:
        """VHOST_GET_VRING_BASE: {'num': base}. It reads; it neither stops nor drains anything."""

        def act(vq: Vq) -> dict[str, int]:
            self._read_base(index)
            return {'num': vq.base}

        return self._ring_ioctl('VHOST_GET_VRING_BASE', index, act)

    def _read_base(self, index: int) -> None:
        """Where the worker stands, into what the kernel would answer."""
        q = self._queues().get(index)
        if q is None or not self.vqs[index].is_set_up:
            return
        v = int(self.st[q + int(backend.Q_DEVICE)])

        def word(name: np.uint64) -> int:
            return int(self.st[v + int(name)])

        base = word(vring.V_LAST_AVAIL)
        if word(vring.V_PACKED):
            base |= word(vring.V_AVAIL_WRAP) << 15
            base |= (word(vring.V_LAST_USED) | word(vring.V_USED_WRAP) << 15) << 16
        self.vqs[index].base = base

    def set_vring_addr(
        self, index: int, *, flags: int, desc: int, avail: int, used: int, log: int
    ) -> Action:
        """VHOST_SET_VRING_ADDR; with VRING_F_LOG writes to the used ring are logged at `log`."""

        def act(vq: Vq) -> int:
            if flags & ~VRING_F_LOG:
                return EOPNOTSUPP
            if avail & 1 or used & 3 or log & 3:
                return EINVAL
            size = self.machine.mem.size
            ends = (desc + 16 * vq.num, avail + 4 + 2 * vq.num, used + 4 + 8 * vq.num)
            if self.endpoint and max(ends) > size:
                return EINVAL
            if flags & VRING_F_LOG and self.endpoint and self.log_base is None:
                return EINVAL
            vq.flags, vq.desc, vq.avail, vq.used, vq.log = flags, desc, avail, used, log
            return 0

        return self._ring_ioctl('VHOST_SET_VRING_ADDR', index, act, flags=flags, log=log)

    def set_vring_kick(self, index: int, fd: EventFd | None) -> Action:
        """VHOST_SET_VRING_KICK: vhost waits on `fd` from now on (None: on nothing).

        An eventfd whose counter is not 0 has the kick work queued at once (vhost_poll_start); the
        one that is let go of is followed by vhost_dev_flush().
        """

        def body() -> Action:
            if index >= len(self.vqs):
                return ENOBUFS
            yield from self._locked(index)
            vq = self.vqs[index]
            old, vq.kick = vq.kick, fd
            q = self._queues().get(index)
            if fd is not None and fd is not old and fd.count and q is not None:
                self._kick(q)
            if old is not None and old is not fd:
                yield from self.flush_workers()
            return 0

        return self._ioctl('VHOST_SET_VRING_KICK', body(), index=index, fd=_name(fd))

    def _kick(self, q: int) -> None:
        """The kick work; a machine that is still being switched on finds no backend and drops it."""
        if self.control.instant:
            return
        backend.queue_vq_work(self.st, u64(q), backend.KICK_WORK, self.control.now)
        self.control.engine.wake_agents()

    def set_vring_call(self, index: int, fd: EventFd | None) -> Action:
        """VHOST_SET_VRING_CALL: which eventfd a signal of the queue goes to."""

        def act(vq: Vq) -> int:
            vq.call = fd
            return 0

        return self._ring_ioctl('VHOST_SET_VRING_CALL', index, act, fd=_name(fd))

    def set_vring_err(self, index: int, fd: EventFd | None) -> Action:
        """VHOST_SET_VRING_ERR."""

        def act(vq: Vq) -> int:
            vq.err = fd
            return 0

        return self._ring_ioctl('VHOST_SET_VRING_ERR', index, act, fd=_name(fd))

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

    def flush(self) -> Action:
        """vhost_scsi_flush(): wait for what was fetched before, and not for what comes later.

        There is no timeout.
        """
        phase = self.control.enter('drain') if self.control.clock.phase else None
        st, old = self.st, {}

        def turn_over(index: int) -> None:
            q = self._queues()[index]
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
                yield self.control.notice(agents.N_INFLIGHT)
            if waited:
                yield from self.control.pay(self.control.costs.flush_wakeup)
        if phase:
            self.control.enter(phase)

    # ---- the endpoint

    def get_abi_version(self) -> Action:
        """VHOST_SCSI_GET_ABI_VERSION: {'abi': 1}."""

        def body() -> Action:
            yield from ()
            return {'abi': ABI_VERSION}

        return self._ioctl('VHOST_SCSI_GET_ABI_VERSION', body())

    def set_endpoint(self, wwpn: str) -> Action:
        """VHOST_SCSI_SET_ENDPOINT: take the targets, make the commands, let the worker in.

        Nothing is queued: what stands in a ring already waits for the next kick.
        """
        return self._ioctl('VHOST_SCSI_SET_ENDPOINT', self._set_endpoint(wwpn), wwpn=wwpn)

    def _set_endpoint(self, wwpn: str) -> Action:
        costs, lio = self.control.costs, self.lio
        yield from self._each_vq(costs.vq_access)
        if not self._rings_sound():
            return EFAULT
        if self.endpoint:
            return EEXIST
        if lio.wwpn != wwpn:
            return ENODEV
        taken = tuple(target for target in lio.targets if target not in lio.held)
        if not taken:
            return ENODEV
        for target in taken:
            yield from self.control.pay(costs.configfs)
            lio.held[target] = self
        for vq in self.vqs[VQ_REQUEST_FIRST:]:
            if vq.is_set_up:
                yield from self.control.pay(costs.tag_map + vq.num * costs.command_alloc)
        self._show_targets(True)

        def attach(index: int) -> None:
            if self.vqs[index].is_set_up:
                self._attach(index)

        yield from self._each_vq(costs.vq_step, attach)
        yield from self.flush()
        self.endpoint = taken
        return 0

    def _attach(self, index: int) -> None:
        """vhost_vq_set_backend() and vhost_vq_init_access()."""
        st, q, vq = self.st, self._queues()[index], self.vqs[index]
        v = int(st[q + int(backend.Q_DEVICE)])
        seen = slice(v + int(vring.V_VERDICT), v + int(vring.V_TABLE))
        counters = st[seen].copy()
        vring.device_init(
            self.machine.mem, st, u64(v), vq.num, vq.desc, vq.avail, vq.used, self.acked, vq.base,
            vring.KERNEL_VHOST,
        )  # fmt: skip
        st[seen] = counters
        st[q + int(backend.Q_BACKEND)] = 1

    def clear_endpoint(self, wwpn: str) -> Action:
        """VHOST_SCSI_CLEAR_ENDPOINT: once it has answered 0, guest memory is left alone."""
        return self._ioctl('VHOST_SCSI_CLEAR_ENDPOINT', self._clear_endpoint(wwpn), wwpn=wwpn)

    def _clear_endpoint(self, wwpn: str) -> Action:
        costs = self.control.costs
        yield from self._each_vq(costs.vq_access)
        if not self._rings_sound():
            return EFAULT
        if not self.endpoint:
            return 0
        if self.lio.wwpn != wwpn:
            return EINVAL
        early = version(self.kernel) < (6, 12)
        if early:
            yield from self._let_go()

        def detach(index: int) -> None:
            self.st[self._queues()[index] + int(backend.Q_BACKEND)] = 0

        yield from self._each_vq(costs.vq_step, detach)
        yield from self.flush()
        for vq in self.vqs[VQ_REQUEST_FIRST:]:
            if vq.is_set_up:
                yield from self.control.pay(costs.tag_map + vq.num * costs.command_free)
        if not early:
            yield from self._let_go()
        yield from self.flush()
        self.endpoint = ()
        return 0

    def _let_go(self) -> Action:
        """The targets go: table entries, counts, configfs dependencies."""
        self._show_targets(False)
        for target in self.endpoint:
            self.lio.held.pop(target, None)
            yield from self.control.pay(self.control.costs.configfs)

    def _show_targets(self, there: bool) -> None:
        """What the worker finds in vs_tpg[]."""
        place = self.machine.vhost + int(vhost_scsi.S_TARGETS)
        self.st[place] = self.machine.targets if there else self.no_targets

    def _rings_sound(self) -> bool:
        """vhost_vq_access_ok() of every queue that has a ring."""
        size = self.machine.mem.size
        return all(
            max(vq.desc + 16 * vq.num, vq.avail + 4 + 2 * vq.num, vq.used + 4 + 8 * vq.num) <= size
            for vq in self.vqs
            if vq.is_set_up
        )

    # ---- events

    def set_events_missed(self, missed: int) -> Action:
        """VHOST_SCSI_SET_EVENTS_MISSED."""

        def body() -> Action:
            yield from self._locked(1)
            self.events_missed = missed
            return 0

        return self._ioctl('VHOST_SCSI_SET_EVENTS_MISSED', body(), missed=missed)

    def get_events_missed(self) -> Action:
        """VHOST_SCSI_GET_EVENTS_MISSED: {'missed': flag}."""

        def body() -> Action:
            yield from self._locked(1)
            return {'missed': self.events_missed}

        return self._ioctl('VHOST_SCSI_GET_EVENTS_MISSED', body())


def _name(fd: EventFd | None) -> str:
    return '-1' if fd is None else fd.name
