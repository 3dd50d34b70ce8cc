"""From a config to the words of a device in user space: SPDK's reactor or QEMU's IOThread."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sim import agents, guest, vring
from sim.config import Config
from sim.costs import Costs
from sim.disks import fields as disks
from sim.features import STACKS, version
from sim.layout import (
    EVENT_F_DISABLE,
    EVENT_FLAGS,
    F_RING_PACKED,
    USED_F_NO_NOTIFY,
    VQ_REQUEST_FIRST,
)
from sim.units import ns_to_cycles
from sim.user import aio_poll, reactor
from sim.user import fields as user_fields
from sim.user import scsi as user_scsi
from sim.vhost.plan import DevicePlan, Thread

POLL_START_NS = 4000  # where adjust_polling_time() begins to grow

KINDS = {'vhost-user-scsi': agents.REACTOR, 'virtio-scsi': agents.IOTHREAD}
NAMES = {agents.WORKER: 'vhost', agents.REACTOR: 'reactor', agents.IOTHREAD: 'iothread'}
WORDS = {agents.REACTOR: reactor.REACTOR_WORDS, agents.IOTHREAD: aio_poll.IOTHREAD_WORDS}


def host_kind(config: Config) -> int:
    """Which kind of agent serves the rings."""
    return KINDS.get(STACKS[config.device.driver], agents.WORKER)


def kind_of(kinds: Sequence[int]) -> int:
    """The kind among a machine's agents that serves the rings."""
    return next(kind for kind in kinds if kind in NAMES)


class UserPlan(DevicePlan):
    """The device in user space, the thread that serves it, and the disks that the thread drives.

    `thread` is the agent, `guest_queues` the request queues in the guest, `all_disks` the stretches
    of the disks; the rest is as for any device.
    """

    queue_words = user_scsi.USER_QUEUE_WORDS

    def __init__(
        self,
        config: Config,
        costs: Costs,
        *,
        thread: Thread,
        guest_queues: Sequence[int],
        all_disks: Sequence[int],
        **rest: Any,
    ) -> None:
        super().__init__(config, **rest)
        self.polls = host_kind(config) == agents.REACTOR
        self.personality = vring.KERNEL_VHOST if self.polls else vring.QEMU
        for vq in self.vqs:  # a reactor does not look at kicks; nor do control and event need to
            watched = not self.polls and vq.index >= VQ_REQUEST_FIRST
            self._vq(vq, thread.base if watched else 0)
        self._thread(thread, costs)
        for queue in guest_queues:
            self.put(queue, guest.G_BELL, thread.base + int(user_fields.T_BELL))
        for disk in all_disks:
            self.put(disk, disks.D_THREAD, thread.base)

    def init_rings(self, mem: npt.NDArray[np.uint8], st: npt.NDArray[np.int64]) -> None:
        """The device's side of fresh rings; a reactor switches kicks off.

        rte_vhost_enable_guest_notification(0): the private flag, which survives what follows, and
        for a packed ring what it looks like in memory.
        """
        if self.polls:
            packed = self.config.agreed.acked >> F_RING_PACKED & 1
            for vq, device in zip(self.vqs, self.devices, strict=True):
                st[device + int(vring.V_USED_FLAGS)] = USED_F_NO_NOTIFY
                if packed:
                    mem[vq.used + int(EVENT_FLAGS)] = EVENT_F_DISABLE
        super().init_rings(mem, st)

    def _thread(self, thread: Thread, costs: Costs) -> None:
        """Asleep, or in rounds that find nothing."""
        values = {
            user_fields.T_SLOT: thread.slot,
            user_fields.T_CORE: self.config.guest.vcpus,
            user_fields.T_BELL: thread.slot + 1 if self.polls else agents.SILENT,
            user_fields.T_ASLEEP: 0 if self.polls else 1,
            user_fields.T_WAKE_LATENCY: costs.iothread_wake,
            user_fields.T_DONE: -1,
            user_fields.T_COMMAND: -1,
            user_fields.T_QUEUES: len(self.requests),
            user_fields.T_QUEUE_LIST: self.take(len(self.requests)),
            agents.A_STATE: reactor.PARKED if self.polls else aio_poll.SLEEP,
        }
        for place, queue in enumerate(self.requests):
            self.put(values[user_fields.T_QUEUE_LIST], np.uint64(place), queue)
        self._put_all(thread.base, values if self.polls else values | event_loop(self.config))


def event_loop(config: Config) -> dict[np.uint64, int]:
    """Adaptive polling as QEMU's version does it."""
    qemu, hz = config.qemu, config.host.cpu_hz
    return {
        aio_poll.I_POLL_MAX: int(ns_to_cycles(qemu.poll_max_ns, hz)),
        aio_poll.I_POLL_GROW: qemu.poll_grow,
        aio_poll.I_POLL_SHRINK: qemu.poll_shrink,
        aio_poll.I_POLL_START: int(ns_to_cycles(min(POLL_START_NS, qemu.poll_max_ns), hz)),
        aio_poll.I_SHARED: int(version(qemu.version) < (10, 0)),
        aio_poll.I_DEFERS: int(version(qemu.version) >= (8, 2)),
        aio_poll.I_POPPED: -1,
        aio_poll.I_PENDING: -1,
    }
