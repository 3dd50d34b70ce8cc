"""The ioctls of vhost itself: owner, features, memory, log, workers, rings.

drivers/vhost/vhost.c: vhost_dev_ioctl, vhost_worker_ioctl, vhost_vring_ioctl; SET_FEATURES is of
drivers/vhost/scsi.c. Each is a control action that returns 0, a negative errno, or what it was
asked for. sim.vhost.ioctl has the kernels' differences.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from sim import agents, backend, features
from sim.control.clock import Action
from sim.features import version
from sim.layout import EINVAL, ENOBUFS, RING_SIZE_MAX
from sim.vhost import scsi as vhost_scsi
from sim.vhost.file import (
    E2BIG,
    EBUSY,
    ENODEV,
    ENOTTY,
    EOPNOTSUPP,
    MEMORY_REGIONS_MAX,
    VRING_F_LOG,
    EventFd,
    VhostFile,
    Vq,
)

u64 = np.uint64


class VhostRings(VhostFile):
    """A file's general ioctls."""

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
        """VHOST_SET_FEATURES (vhost_scsi_set_features): no flush, every vq->mutex in turn.

        LOG_ALL without a log is taken: log_access_ok() finds nothing wrong with a base of 0, and
        nothing is logged.
        """

        def body() -> Action:
            if wanted & ~self.offered:
                return EOPNOTSUPP
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
        """Dirty logging of a queue's buffers is switched."""
        q = self.queues().get(index)
        if q is not None:
            self.st[q + int(backend.Q_LOG_ALL)] = int(log_all)

    def set_mem_table(self, regions: int) -> Action:
        """VHOST_SET_MEM_TABLE: guest memory is `regions` regions."""

        def body() -> Action:
            if regions > MEMORY_REGIONS_MAX:
                return E2BIG
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
            if self.notes_early and log is not None:
                for index in self.queues():
                    self._log_changed(index, True)
            at = 0 if log is None else self.machine.log
            self.st[self.machine.vhost + int(vhost_scsi.S_LOG)] = at
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
            vq, old = self.vqs[index], self.queues().get(index)
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
        q = self.queues().get(index)
        if q is None or not self.vqs[index].is_set_up:
            return
        self.vqs[index].base = self.base_of(index)

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
            vq.flags, vq.desc, vq.avail, vq.used, vq.log = flags, desc, avail, used, log
            q = self.queues().get(index)
            if q is not None:
                self.st[q + int(backend.Q_LOG)] = log if flags & VRING_F_LOG else 0
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
            q = self.queues().get(index)
            if fd is not None and fd is not old and fd.count and q is not None:
                self._kick(index)
            if old is not None and old is not fd:
                yield from self.flush_workers()
            return 0

        return self._ioctl('VHOST_SET_VRING_KICK', body(), index=index, fd=_number(fd))

    def _kick(self, index: int) -> None:
        """The kick work; in a machine that is being switched on it finds no backend."""
        if self.control.instant:
            return
        q = self.queues()[index]
        backend.queue_vq_work(self.st, u64(q), backend.KICK_WORK, self.control.now)
        self.control.engine.wake_agents()

    def set_vring_call(self, index: int, fd: EventFd | None) -> Action:
        """VHOST_SET_VRING_CALL: which eventfd a signal of the queue goes to."""

        def act(vq: Vq) -> int:
            vq.call = fd
            return 0

        return self._ring_ioctl('VHOST_SET_VRING_CALL', index, act, fd=_number(fd))

    def set_vring_err(self, index: int, fd: EventFd | None) -> Action:
        """VHOST_SET_VRING_ERR."""

        def act(vq: Vq) -> int:
            vq.err = fd
            return 0

        return self._ring_ioctl('VHOST_SET_VRING_ERR', index, act, fd=_number(fd))


def _number(fd: EventFd | None) -> int:
    return -1 if fd is None else fd.number
