"""QEMU's struct vhost_dev: the generic half of a vhost device, in QEMU's order of ioctls.

hw/virtio/vhost.c: vhost_dev_init, vhost_dev_start, vhost_dev_stop, vhost_dev_set_log, by version of
QEMU. `VhostDev` talks to a file of the host kernel (sim.vhost.ioctl) or over a socket
(sim.user.session), and keeps the virtqueues as QEMU's virtio core has them; while vhost runs, their
indices are stale, as in life.

    QEMU 4.2    VRING_CALL alone at init
    5.2         GET_BACKEND_FEATURES follows SET_FEATURES; vhost-scsi has no such ioctl
    7.2         VRING_ERR at init
    9.0         workers of their own (worker_per_virtqueue)
    10.2        feature arrays are tried first; vhost-scsi has no such ioctls either
"""

import os
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from sim import features
from sim.control.clock import Action
from sim.control.vm import Vm
from sim.layout import PAGE_SIZE, USED_IDX
from sim.vhost.file import ENOTTY, VRING_F_LOG, EventFd

NO_LOG = 'Migration disabled: vhost lacks VHOST_F_LOG_ALL feature.'
ONE_WORKER = (
    'warning: vhost-scsi: Backend supports a single worker. Ignoring worker_per_virtqueue=true '
    'setting.'
)

LOG_CHUNK = 4096 * 64  # VHOST_LOG_CHUNK: bytes of guest memory per word of the log
FEATURE_WORDS = 2  # VIRTIO_FEATURES_NU64S

# What the unset argument of GET_BACKEND_FEATURES held in a trace of QEMU 7.2: an errno of its own
# at start (ENOBUFS: no queue has that number) and another when logging began (ENOTTY).
STACK_AT_START, STACK_AT_LOG = 0xFFFFFFFF, 0


class VhostOps(Protocol):
    """struct VhostOps: what QEMU asks of a backend, whoever it is."""

    def close(self) -> None:
        """The last reference goes."""

    def set_owner(self) -> Action:
        """VHOST_SET_OWNER."""

    def get_features(self) -> Action:
        """VHOST_GET_FEATURES."""

    def set_features(self, wanted: int) -> Action:
        """VHOST_SET_FEATURES."""

    def set_mem_table(self, regions: int) -> Action:
        """VHOST_SET_MEM_TABLE."""

    def set_log_base(self, log: object) -> Action:
        """VHOST_SET_LOG_BASE."""

    def new_worker(self) -> Action:
        """VHOST_NEW_WORKER."""

    def attach_vring_worker(self, index: int, worker: int) -> Action:
        """VHOST_ATTACH_VRING_WORKER."""

    def unknown(self, name: str, first_word: int) -> Action:
        """An ioctl that vhost-scsi does not have."""

    def set_vring_num(self, index: int, num: int) -> Action:
        """VHOST_SET_VRING_NUM."""

    def set_vring_base(self, index: int, num: int) -> Action:
        """VHOST_SET_VRING_BASE."""

    def set_vring_addr(
        self, index: int, *, flags: int, desc: int, avail: int, used: int, log: int
    ) -> Action:
        """VHOST_SET_VRING_ADDR."""

    def set_vring_kick(self, index: int, fd: EventFd | None) -> Action:
        """VHOST_SET_VRING_KICK."""

    def set_vring_call(self, index: int, fd: EventFd | None) -> Action:
        """VHOST_SET_VRING_CALL."""

    def set_vring_err(self, index: int, fd: EventFd | None) -> Action:
        """VHOST_SET_VRING_ERR."""

    def get_vring_base(self, index: int) -> Action:
        """VHOST_GET_VRING_BASE."""


@dataclass
class VirtQueue:
    """A virtqueue as QEMU's virtio core has it; no ring address: the guest has not set it up."""

    num: int
    desc: int = 0
    avail: int = 0
    used: int = 0
    last_avail_idx: int = 0
    shadow_avail_idx: int = 0
    used_idx: int = 0
    signalled_used_valid: bool = False
    inuse: int = 0
    vector: int = 0

    @property
    def is_set_up(self) -> bool:
        """Has the guest given it a ring (virtio_queue_get_desc_addr)?"""
        return self.desc != 0


@dataclass
class Log:
    """QEMU's dirty bitmap: one bit per 4 KiB of guest address space, in 64-bit words."""

    words: int
    synced: int = 0  # bits that have gone over to migration's bitmap so far


@dataclass
class VhostDev:
    """struct vhost_dev. `vqs` are the device's virtqueues, `nvqs` how many vhost serves."""

    NAME: ClassVar[str] = 'vhost-scsi'

    vm: Vm
    file: VhostOps
    qemu: tuple[int, int]
    vqs: list[VirtQueue]
    features: int = 0
    acked_features: int = 0
    backend_features: int = 0
    started: bool = False
    log_enabled: bool = False
    migration_blocker: str | None = None  # while it blocks migration, having no log
    log: Log | None = None
    migration_bitmap: npt.NDArray[np.bool_] | None = None  # by page, while a migration has one
    no_log_all: bool = False  # one of the two bits of the log is left out
    no_vring_log: bool = False
    forget_base: bool = False  # what GET_VRING_BASE says is lost, to see what it is good for
    notifiers: dict[str, EventFd] = field(default_factory=dict)
    fds: int = 15

    @property
    def nvqs(self) -> int:
        """Queues that vhost serves: control, event and every request queue."""
        return len(self.vqs)

    # ---- life

    def init(self) -> Action:
        """vhost_dev_init(): None, or what QEMU says of a failure, which has cleaned up."""
        answer = yield from self._call(self.file.set_owner())
        if answer < 0:
            return self._give_up('vhost_set_owner failed', answer)
        found = yield from self._get_features()
        if not isinstance(found, dict):
            return self._give_up('vhost_get_features failed', found)
        for index in range(self.nvqs):
            answer = yield from self._init_queue(index)
            if answer < 0:
                return self._give_up(f'Failed to initialize virtqueue {index}', answer)
        self.features = found['features']
        if not self.features >> features.LOG_ALL & 1:
            refused = self.vm.add_blocker(NO_LOG)
            if refused is not None:
                self.cleanup()
                return refused
            self.migration_blocker = NO_LOG
        return None

    def _init_queue(self, index: int) -> Action:
        """vhost_virtqueue_init(): signals go to a masked notifier, errors to another."""
        masked, broken = self._fd(f'masked{index}'), self._fd(f'error{index}')
        answer = yield from self._call(self.file.set_vring_call(index, masked))
        if answer == 0 and self.qemu >= (7, 1):
            answer = yield from self._call(self.file.set_vring_err(index, broken))
        return answer

    def _give_up(self, what: str, answer: int) -> str:
        """The label fail of vhost_dev_init(); until 6.0 QEMU did not say what it was."""
        self.cleanup()
        if self.qemu < (6, 1):
            what = f'{self.NAME}: vhost initialization failed'
        return f'{what}: {os.strerror(-answer)}'

    def set_workers(self) -> Action:
        """vhost_scsi_set_workers() of a worker for each request queue: 0 or a negative errno.

        The first request queue shares control's and event's. A kernel without the ioctl (ENOTTY)
        has one for all, with a warning.
        """
        for index in range(3, self.nvqs):
            made = yield from self._call(self.file.new_worker())
            if made == ENOTTY:
                self.vm.report(ONE_WORKER)
                return 0
            if not isinstance(made, dict):
                return made
            answer = yield from self._call(self.file.attach_vring_worker(index, made['worker']))
            if answer < 0:
                return answer
        return 0

    def cleanup(self) -> None:
        """vhost_dev_cleanup(): notifiers and blocker go, and the file is closed."""
        self.notifiers.clear()
        self.vm.del_blocker(self.migration_blocker)
        self.migration_blocker = None
        self.file.close()

    def start(self) -> Action:
        """vhost_dev_start(): 0 or a negative errno; what was begun is undone on failure."""
        self.started = True
        answer = yield from self._set_features(STACK_AT_START)
        if answer == 0:
            answer = yield from self._call(self.file.set_mem_table(1))
        begun: list[int] = []
        for index in range(self.nvqs if answer == 0 else 0):
            answer = yield from self._start_queue(index)
            if answer < 0:
                break
            begun.append(index)
        if answer == 0 and self.log_enabled:
            self.log = self._new_log()
            answer = yield from self._call(self.file.set_log_base(self.log))
        if answer == 0:
            return 0
        for index in begun:
            yield from self._stop_queue(index)
        self.log = None
        self.started = False
        return answer

    def unmask(self) -> Action:
        """vhost_virtqueue_mask(false) of every queue: signals go to the guest's notifiers."""
        for index in range(self.nvqs):
            guest = self._fd(f'guest{index}')
            answer = yield from self._call(self.file.set_vring_call(index, guest))
            if answer < 0:
                self.vm.report(f'vhost_set_vring_call failed {-answer}')

    def stop(self, *, bases: bool = True, sync: bool = True) -> Action:
        """vhost_dev_stop(): the indices come back; errors of all queues OR-ed together.

        `bases`, `sync` False: they have been read, the log has been synced before.
        """
        control, answer = self.vm.control, 0
        if bases:
            answer = yield from self.read_bases()
        before = control.enter_within('log_sync')
        yield from self._put_log(sync=sync)
        control.enter_within(before)
        self.started = False
        return answer

    def read_bases(self) -> Action:
        """vhost_virtqueue_stop() of every queue."""
        answer = 0
        for index in range(self.nvqs):
            answer |= yield from self._stop_queue(index)
        return answer

    # ---- queues

    def _start_queue(self, index: int) -> Action:
        """vhost_virtqueue_start(); a queue without a ring is passed over."""
        vq, file, costs = self.vqs[index], self.file, self.vm.control.costs
        if not vq.is_set_up:
            return 0
        answer = yield from self._call(file.set_vring_num(index, vq.num))
        if answer == 0:
            answer = yield from self._call(file.set_vring_base(index, vq.last_avail_idx))
        if answer == 0:
            yield from self.vm.control.pay(3 * costs.ring_map)
            answer = yield from self._set_addr(index)
        if answer == 0:
            kick = self.notifiers[f'host{index}']
            answer = yield from self._call(file.set_vring_kick(index, kick))
        return answer

    def _set_addr(self, index: int) -> Action:
        """vhost_virtqueue_set_addr()."""
        vq = self.vqs[index]
        flags = VRING_F_LOG if self.log_enabled and not self.no_vring_log else 0
        return self._call(
            self.file.set_vring_addr(
                index, flags=flags, desc=vq.desc, avail=vq.avail, used=vq.used, log=vq.used
            )
        )

    def _stop_queue(self, index: int) -> Action:
        """vhost_virtqueue_stop(): where GET_VRING_BASE fails, used.idx stands for it."""
        vq, mem = self.vqs[index], self.vm.machine.mem
        if not vq.is_set_up:
            return 0
        found = yield from self._call(self.file.get_vring_base(index))
        used_idx = index_at(mem, vq.used + int(USED_IDX))
        if self.forget_base:
            return 0
        if isinstance(found, dict):
            vq.last_avail_idx = vq.shadow_avail_idx = found['num']
        else:
            vq.last_avail_idx = vq.shadow_avail_idx = used_idx
        vq.signalled_used_valid = False
        vq.used_idx = used_idx
        vq.inuse = vq.last_avail_idx - used_idx & 0xFFFF
        yield from self.vm.control.pay(3 * self.vm.control.costs.ring_map)
        self._unmap_used(vq)
        return 0 if isinstance(found, dict) else found

    def _unmap_used(self, vq: VirtQueue) -> None:
        """vhost_memory_unmap() of a used ring that was mapped for writing: all of it is dirty."""
        packed = self.acked_features >> features.RING_PACKED & 1
        if self.migration_bitmap is not None and not packed:
            first, last = vq.used // PAGE_SIZE, (vq.used + 5 + 8 * vq.num) // PAGE_SIZE
            self.migration_bitmap[first : last + 1] = True

    # ---- features and log

    def _get_features(self) -> Action:
        if self.qemu >= (10, 2):
            yield from self._call(self.file.unknown('VHOST_GET_FEATURES_ARRAY', FEATURE_WORDS))
        return (yield from self._call(self.file.get_features()))

    def _set_features(self, stack: int) -> Action:
        """vhost_dev_set_features(): what the guest acked, and LOG_ALL while logging."""
        wanted = self.acked_features & ~features.mask(features.ACCESS_PLATFORM)
        logs = self.log_enabled and not self.no_log_all
        wanted |= features.mask(features.LOG_ALL) if logs else 0
        if self.qemu >= (10, 2):
            yield from self._call(self.file.unknown('VHOST_SET_FEATURES_ARRAY', FEATURE_WORDS))
        answer = yield from self._call(self.file.set_features(wanted))
        if answer == 0 and self.qemu >= (5, 2):
            yield from self._call(self.file.unknown('VHOST_GET_BACKEND_FEATURES', stack))
        return answer

    def set_log(self, enable: bool) -> Action:
        """vhost_migration_log(): 0 or a negative errno; a failure is rolled back.

        Enabling: SET_LOG_BASE (vhost_dev_log_resize() prints its error and goes on), SET_FEATURES
        with LOG_ALL, SET_VRING_ADDR with VRING_F_LOG. What is fetched between the first and the
        second is not logged.
        """
        if enable == self.log_enabled:
            return 0
        if not self.started:
            self.log_enabled = enable
            return 0
        if enable:
            self.log = self._new_log()
            answer = yield from self._call(self.file.set_log_base(self.log))
            if answer < 0:
                self.vm.report(f'vhost_set_log_base failed: {os.strerror(-answer)} ({-answer})')
        answer = yield from self._switch_log(enable)
        if answer < 0:
            yield from self._switch_log(not enable)
            return answer
        if not enable:
            yield from self._put_log(sync=False)
        return 0

    def _switch_log(self, enable: bool) -> Action:
        """vhost_dev_set_log()."""
        self.log_enabled = enable
        answer = yield from self._set_features(STACK_AT_LOG)
        for index in range(self.nvqs if answer == 0 else 0):
            if self.vqs[index].is_set_up:
                answer = yield from self._set_addr(index)
                if answer < 0:
                    break
        return answer

    def _new_log(self) -> Log:
        """vhost_get_log_size(): a word for each 256 KiB of guest address space."""
        return Log(words=-(-self.vm.machine.mem.size // LOG_CHUNK))

    def _put_log(self, *, sync: bool) -> Action:
        """vhost_log_put(): with `sync`, every word is looked at (vhost_dev_sync_region)."""
        if sync:
            yield from self.sync_log()
        self.log = None

    def sync_log(self) -> Action:
        """vhost_dev_sync_region() of all memory: the bits go over to migration's bitmap."""
        if self.log is None:
            return
        yield from self.vm.control.pay(self.log.words * self.vm.control.costs.log_word)
        there = self.vm.machine.dirty_log
        self.log.synced += int(np.bitwise_count(there).sum())
        if self.migration_bitmap is not None:
            bits = np.unpackbits(there, bitorder='little')[: self.migration_bitmap.size]
            self.migration_bitmap |= bits.astype(bool)
        there[:] = 0

    # ---- small things

    def _call(self, ioctl: Action) -> Action:
        """QEMU's own work, and an ioctl."""
        yield from self.vm.control.pay(self.vm.control.costs.qemu_step)
        return (yield from ioctl)

    def _fd(self, name: str) -> EventFd:
        if name not in self.notifiers:
            self.notifiers[name] = EventFd(self._next_fd())
        return self.notifiers[name]

    def new_host_notifiers(self) -> None:
        """virtio_bus_set_host_notifier(): fresh eventfds, made with the counter at 1."""
        for index in range(self.nvqs):
            self.notifiers[f'host{index}'] = EventFd(self._next_fd(), count=1)

    def _next_fd(self) -> int:
        """A number for a new file, above those that QEMU has open by then."""
        self.fds += 1
        return self.fds


def index_at(mem: npt.NDArray[np.uint8], at: int) -> int:
    """A le16 of guest memory, as the virtio core reads a ring's index."""
    return int.from_bytes(mem[at : at + 2].tobytes(), 'little')
