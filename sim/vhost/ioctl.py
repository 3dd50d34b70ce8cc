"""/dev/vhost-scsi: what one open file does with the ioctls of its owner.

drivers/vhost/vhost.c (vhost_dev_ioctl, vhost_vring_ioctl) and drivers/vhost/scsi.c
(vhost_scsi_ioctl), by kernel version. Each ioctl is a control action (sim.control.clock) that
returns 0, a negative errno, or what it was asked for, and leaves a line in the diary.

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

from typing import Any

from sim import backend
from sim.control.clock import Action, Control
from sim.features import version
from sim.layout import EFAULT, EINVAL, VQ_REQUEST_FIRST
from sim.vhost import scsi as vhost_scsi
from sim.vhost.file import EEXIST, ENODEV, Lio
from sim.vhost.rings import VhostRings

ABI_VERSION = 1  # VHOST_SCSI_ABI_VERSION


class VhostScsi(VhostRings):
    """A file with the ioctls of vhost-scsi: endpoint and events.

    The stop is CLEAR_ENDPOINT, at the end of which `on_cleared` is called. `endpoint_twice`: a bug
    of the past, SET_ENDPOINT takes the same targets again.
    """

    def __init__(
        self, control: Control, lio: Lio, *, endpoint_twice: bool = False, **settings: Any
    ) -> None:
        super().__init__(control, lio, **settings)
        self.endpoint_twice = endpoint_twice
        self._taken_again = 0
        self._missed = self.machine.vhost + int(vhost_scsi.S_EVENTS_MISSED)

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
        return self._ioctl('VHOST_SCSI_SET_ENDPOINT', self._set_endpoint(wwpn), wwpn=wwpn, tpgt=0)

    def _set_endpoint(self, wwpn: str) -> Action:
        costs, lio = self.control.costs, self.lio
        yield from self.control.pay(len(self.vqs) * costs.vq_access)  # no mutex is taken
        if not self._rings_sound():
            return EFAULT
        if self.endpoint and self.endpoint_twice:
            self._taken_again += 1  # a dependency that no CLEAR_ENDPOINT gives back
            return 0
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
        for index, q in self.queues().items():
            if self.gated or self.st[q + int(backend.Q_RESUBMITS)]:
                self._kick(index)
        self.gated = False
        return 0

    def _attach(self, index: int) -> None:
        """vhost_vq_set_backend() and vhost_vq_init_access()."""
        vq = self.vqs[index]
        ring = vq.num, vq.desc, vq.avail, vq.used
        self.take_ring(index, ring, self.acked, vq.base)

    def clear_endpoint(self, wwpn: str) -> Action:
        """VHOST_SCSI_CLEAR_ENDPOINT: once it has answered 0, guest memory is left alone."""
        return self._ioctl(
            'VHOST_SCSI_CLEAR_ENDPOINT', self._clear_endpoint(wwpn), wwpn=wwpn, tpgt=0
        )

    def _clear_endpoint(self, wwpn: str) -> Action:
        costs = self.control.costs
        yield from self.control.pay(len(self.vqs) * costs.vq_access)  # no mutex is taken
        if not self._rings_sound():
            return EFAULT
        if not self.endpoint:
            return 0
        if self.lio.wwpn != wwpn:
            return EINVAL
        early = version(self.kernel) < (6, 12)
        if early:
            yield from self._let_go()

        yield from self._detach_all()
        yield from self._drain()
        for vq in self.vqs[VQ_REQUEST_FIRST:]:
            if vq.is_set_up:
                yield from self.control.pay(costs.tag_map + vq.num * costs.command_free)
        if not early:
            yield from self._let_go()
        yield from self._drain()
        self.endpoint = ()
        self._left_alone()
        return 0

    def suspend(self) -> Action:
        """Hypothetical: VHOST_VDPA_SUSPEND. The queues are served no more, what is in flight is
        waited for, and GET_VRING_BASE can be trusted before anything is taken down.
        """

        def body() -> Action:
            yield from self._detach_all()
            yield from self._drain()
            self._left_alone()
            return 0

        return self._ioctl('VHOST_VDPA_SUSPEND', body())

    def gate(self) -> Action:
        """Hypothetical: what CLEAR_ENDPOINT does up to its first flush, while the vCPUs run on.

        Kicks are consumed from here on; SET_ENDPOINT then has to look into the rings by itself.
        """
        self.gated = True
        yield from self._detach_all()
        yield from self.flush()

    def _detach_all(self) -> Action:
        """Every queue loses its backend; a run that holds its mutex comes to its end first."""
        self.detached = {}

        def detach(index: int) -> None:
            if 'detach' not in self.without:
                self.st[self.queues()[index] + int(backend.Q_BACKEND)] = 0
            self.detached[index] = self.control.now

        yield from self._each_vq(self.control.costs.vq_step, detach)

    def _drain(self) -> Action:
        """The flushes of CLEAR_ENDPOINT, charged to a phase of their own."""
        if 'flush' in self.without:
            return
        before = self.control.enter_within('drain')
        if self.keeps:
            yield from self.flush_workers()
            self.leave_behind(cancel='cancel' not in self.without)
        yield from self.flush(self.patience)
        self.control.enter_within(before)

    def _let_go(self) -> Action:
        """The targets go: table entries, counts, configfs dependencies."""
        self._show_targets(False)
        for target in self.endpoint:
            if not self._taken_again:
                self.lio.held.pop(target, None)
            yield from self.control.pay(self.control.costs.configfs)

    def _show_targets(self, there: bool) -> None:
        """What the worker finds in vs_tpg[]."""
        place = self.machine.vhost + int(vhost_scsi.S_TARGETS)
        self.st[place] = self.targets if there else self.no_targets

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
            self.st[self._missed] = int(bool(missed))
            return 0

        return self._ioctl('VHOST_SCSI_SET_EVENTS_MISSED', body(), missed=missed)

    def get_events_missed(self) -> Action:
        """VHOST_SCSI_GET_EVENTS_MISSED: {'missed': flag}."""

        def body() -> Action:
            yield from self._locked(1)
            return {'missed': int(self.st[self._missed])}

        return self._ioctl('VHOST_SCSI_GET_EVENTS_MISSED', body())
