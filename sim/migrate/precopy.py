"""The source's migration thread up to the switch-over: QEMU's pre-copy loop.

migration/migration.c (migration_thread, migration_iteration_run, migration_update_counters) and
migration/ram.c (ram_save_setup, ram_save_iterate, migration_bitmap_sync_precopy):

    setup      every bit of RAM set, then dirty logging on (KVM's, vhost's), then a first sync
    iterate    pages are sent, for 50 ms at most, until the slice of 100 ms has had its share of
               max-bandwidth
    every 100 ms   bandwidth = bytes sent / time; threshold = bandwidth * downtime-limit
    pending below the threshold   the bitmaps are synced; if it still is, together with what other
               devices will have to save, the switch-over

One thread does it all: a zero page (control.page_zero) is read to see that it is zero and costs the
link nine bytes, a page in use (control.page_send) is copied into the socket. `pending` counts pages
of both kinds alike, while bandwidth is in bytes: zero pages make it small.

Beside the loop, with auto-converge: a sync that finds more dirtied than throttle-trigger-threshold
allows slows the vCPUs down, from the second time on.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sim import agents, guest, layout, vring
from sim.control.clock import Action
from sim.control.power import Host
from sim.device import VHostSCSI
from sim.driver.plan import HEADER_STRIDE
from sim.formats.migration_keys import Migration
from sim.layout import PAGE_SIZE
from sim.machine import Machine
from sim.migrate.link import Link
from sim.migrate.ram import PAGE_ON_WIRE, ZERO_ON_WIRE, Ram
from sim.migrate.throttle import Throttle
from sim.units import cycles_to_ns, ns_to_cycles

SLICE_NS = 100_000_000  # BUFFER_DELAY, and how often the counters are updated
ITERATION_NS = 50_000_000  # MAX_WAIT of ram_save_iterate()
SYNC_PERIOD_NS = 1_000_000_000  # statistics and auto-converge look at syncs this far apart
CHUNK = 64  # pages between two looks at the clock


class NotConvergingError(Exception):
    """The migration does not come to its end, and is cancelled."""


@dataclass(kw_only=True)
class Counters:
    """What `info migrate` says. Times in cycles, sizes in bytes."""

    setup_time: int = 0
    dirty_sync_count: int = 0
    dirty_pages_rate: float = 0.0  # pages per second
    dirty_bytes_last_sync: int = 0
    bandwidth: float = 0.0  # bytes per second, as measured
    threshold: float = 0.0
    pages_per_second: float = 0.0  # in the last slice
    precopy_bytes: int = 0  # of RAM, before the vCPUs paused and after
    downtime_bytes: int = 0
    iterations: int = 0
    history: list[tuple[int, int]] = field(default_factory=list)  # (cycle, pending) at each sync

    @property
    def expected_downtime_s(self) -> float | None:
        """What the last sync found, over the bandwidth; None where none was measured."""
        return self.dirty_bytes_last_sync / self.bandwidth if self.bandwidth else None


class Precopy:
    """The loop over one source host."""

    def __init__(self, host: Host, plan: Migration, ram: Ram, link: Link, cpu_hz: int) -> None:
        self.host = host
        self.control = host.control
        self.plan = plan
        self.ram = ram
        self.link = link
        self.hz = cpu_hz
        self.counters = Counters()
        self.devices = plan.vfio_devices * plan.state_of_device  # bytes, once they are stopped
        self.throttle = Throttle(host.vm, host.control, cpu_hz)
        self.began = 0
        self._written: npt.NDArray[np.bool_] = np.zeros(ram.io_dirty.size, dtype=bool)
        self._period = (0, 0)  # start of the statistics' period, bytes sent by then
        self._period_dirty = 0
        self._triggered = 0

    def _cycles(self, ns: int) -> int:
        return int(ns_to_cycles(ns, self.hz))

    # ---- the loop

    def join(self) -> None:
        """From now on what the logs say is this migration's; logging itself is not switched."""
        self.began = self.ram.hits_until = self.control.now
        if self._log_is_the_devices:
            assert self.host.dev is not None
            self.host.dev.migration_bitmap = self._written

    def setup(self) -> Action:
        """ram_save_setup(): 0, or the negative errno of vhost where logging does not start."""
        control, costs = self.control, self.control.costs
        self.join()
        yield from control.pay(costs.migration_setup)
        if self.plan.without != 'kvm_log':
            control.machine.log_vcpus(True)
        dev = self.host.dev
        if dev is not None:
            dev.no_log_all = self.plan.without == 'log_all'
            dev.no_vring_log = self.plan.without == 'vring_log'
        if self.plan.without != 'vhost_log' and dev is not None:
            answer = yield from dev.set_log(True)
            if answer < 0:
                return answer
        yield from self.sync()
        self.counters.setup_time = control.now - self.began
        return 0

    def run(self) -> Action:
        """Until what is left fits the downtime-limit. Errors: LinkError, NotConvergingError."""
        ram, counters, control = self.ram, self.counters, self.control
        rate = self.plan.max_bandwidth
        quota = rate * SLICE_NS // 10**9 if rate else None
        slice_at, slice_sent, slice_pages = control.now, self.link.sent, ram.sent_pages
        self._period = control.now, self.link.sent
        while True:
            self.link.check()  # migration_detect_error()
            pending = ram.pending
            if pending == 0 or pending < counters.threshold:
                yield from self.sync()
                if ram.pending + self.devices <= counters.threshold:
                    return
            self._patience()
            left = None if quota is None else max(0, quota - (self.link.sent - slice_sent))
            if left != 0 and ram.dirty_pages:
                yield from self._iterate(left)
            end = slice_at + self._cycles(SLICE_NS)
            spent = quota is not None and self.link.sent - slice_sent >= quota
            if control.now < end and (spent or not ram.dirty_pages):
                yield control.env.timeout(end - control.now)
            if control.now >= end:
                pages = ram.sent_pages - slice_pages
                self._update(control.now - slice_at, self.link.sent - slice_sent, pages)
                slice_at, slice_sent, slice_pages = control.now, self.link.sent, ram.sent_pages

    def _update(self, cycles: int, sent: int, pages: int) -> None:
        """migration_update_counters()."""
        counters, plan = self.counters, self.plan
        counters.bandwidth = sent * self.hz / cycles
        counters.pages_per_second = pages * self.hz / cycles
        switchover = plan.avail_switchover_bandwidth or counters.bandwidth
        counters.threshold = switchover * plan.downtime_limit / 10**9

    def _iterate(self, most: int | None) -> Action:
        """ram_save_iterate(): at most so many bytes, and for 50 ms at most."""
        ram, control = self.ram, self.control
        self.counters.iterations += 1
        end = control.now + self._cycles(ITERATION_NS)
        left = ram.pages * PAGE_ON_WIRE if most is None else most
        while left > 0 and control.now < end:
            pages = ram.next_io(min(CHUNK, -(-left // PAGE_ON_WIRE)))
            if pages.size:
                ram.send_io(pages)
                left -= yield from self._send(len(pages))
                continue
            zero, count = ram.next_rest()
            size, work = self._page(zero)
            room = (end - control.now) * self.link.bandwidth // self.hz // size
            if work:
                room = min(room, (end - control.now) // work)
            count = min(-(-left // size), max(CHUNK, room), count)
            if count == 0:
                return
            ram.send_rest(count)
            left -= yield from self._send(count, zero)

    def complete(self, *, sync: bool = True) -> Action:
        """ram_save_complete(): the vCPUs have paused, and all that is still dirty goes."""
        ram, counters = self.ram, self.counters
        if sync:
            yield from self.sync()
        counters.precopy_bytes = self.link.sent
        while (pages := ram.next_io(len(ram.io_dirty))).size:
            ram.send_io(pages)
            counters.downtime_bytes += yield from self._send(len(pages))
        while (kind := ram.next_rest())[1]:
            zero, count = kind
            ram.send_rest(count)
            counters.downtime_bytes += yield from self._send(count, zero)

    def _page(self, zero: bool) -> tuple[int, int]:
        """Bytes of a page on the link, and the thread's cycles for it."""
        costs = self.control.costs
        return (ZERO_ON_WIRE, costs.page_zero) if zero else (PAGE_ON_WIRE, costs.page_send)

    def _send(self, count: int, zero: bool = False) -> Action:
        """So many pages of a kind go out; returns their bytes."""
        size, work = self._page(zero)
        yield from self.link.send(size * count, work * count)
        return size * count

    def _patience(self) -> None:
        waited = self.control.now - self.began
        if waited <= self._cycles(self.plan.give_up):
            return
        counters = self.counters
        devices = f', {self.devices / 2**20:.3g} of them of VFIO devices' if self.devices else ''
        raise NotConvergingError(
            f'does not converge: after {cycles_to_ns(waited, self.hz) / 1e9:.3g} s and '
            f'{counters.dirty_sync_count} syncs {(self.ram.pending + self.devices) / 2**20:.3g} '
            f'MiB are pending{devices}, '
            f'{counters.threshold / 2**20:.3g} MiB would fit downtime_limit at '
            f'{counters.bandwidth / 2**20:.3g} MiB/s; raise downtime_limit or max_bandwidth, or '
            'switch auto_converge on'
        )

    # ---- the bitmaps

    def sync(self) -> Action:
        """migration_bitmap_sync(): what KVM's and the vhost's logs say goes into the bitmap."""
        control, counters, ram = self.control, self.counters, self.ram
        yield from control.pay(-(-ram.pages // 64) * control.costs.bitmap_word)
        if self.host.dev is not None and self.host.dev.started:
            yield from self.host.dev.sync_log()
        if not self._log_is_the_devices:
            self._written |= self._changed()
        self._note_control_queues()
        there = control.machine.vcpu_log
        self._written |= _bits(there, self._written.size)
        there[:] = 0
        ram.guest_ran(control.now, self.throttle.share)
        dirtied = ram.sync(self._written)
        self._written[:] = False
        counters.dirty_sync_count += 1
        counters.dirty_bytes_last_sync = ram.pending
        counters.history.append((control.now, ram.pending))
        self._statistics(dirtied)

    @property
    def _log_is_the_devices(self) -> bool:
        """Kernel vhost notes what it writes page by page, as far as its version does."""
        return isinstance(self.host.virtio, VHostSCSI)

    def _changed(self) -> npt.NDArray[np.bool_]:
        """SPDK's log, and QEMU's own marks where it serves the device, have every page that was
        written: those whose content has changed since they were sent.
        """
        if self.plan.without == 'vhost_log':
            return np.zeros_like(self._written)
        shape = -1, PAGE_SIZE
        found: npt.NDArray[np.bool_] = (
            self.ram.memory.reshape(shape) != self.control.machine.mem.reshape(shape)
        ).any(axis=1)
        return found

    def _note_control_queues(self) -> None:
        """Control and event queue count as written by the vCPUs at every sync: they are few pages,
        and what the driver does there is not followed write by write.
        """
        machine = self.control.machine
        if machine.st[int(agents.H_KVM_LOG)]:
            for at, size in control_memory(machine):
                first, last = at // PAGE_SIZE, (at + size - 1) // PAGE_SIZE
                self._written[first : last + 1] = True

    def _statistics(self, dirtied: int) -> None:
        """migration_bitmap_sync(): rate and auto-converge, over periods of a second."""
        now = self.control.now
        since, sent = self._period
        self._period_dirty += dirtied
        if now - since <= self._cycles(SYNC_PERIOD_NS):
            return
        bytes_dirtied, bytes_sent = self._period_dirty * PAGE_SIZE, self.link.sent - sent
        self.counters.dirty_pages_rate = self._period_dirty * self.hz / (now - since)
        self._period, self._period_dirty = (now, self.link.sent), 0
        if not self.plan.auto_converge:
            return
        if bytes_dirtied > bytes_sent * self.plan.throttle_trigger_threshold / 100:
            self._triggered += 1
            if self._triggered >= 2:
                self._triggered = 0
                self.throttle.up(
                    self.plan.cpu_throttle_initial,
                    self.plan.cpu_throttle_increment,
                    self.plan.max_cpu_throttle,
                )


def control_memory(machine: Machine) -> list[tuple[int, int]]:
    """(address, bytes) of what control and event queue have in guest memory."""
    events = layout.EVENT_SIZE * guest.EVENT_BUFFERS
    found = [
        (machine.field(machine.event_work, guest.W_MEMORY), events),
        (machine.field(machine.error_handler, guest.W_MEMORY), HEADER_STRIDE),
        (machine.field(machine.guest_vqs[layout.VQ_CONTROL], guest.G_TABLES), 64),
    ]
    for driver in machine.drivers[: layout.VQ_REQUEST_FIRST]:
        num = machine.field(driver, vring.D_NUM)
        found += [
            (machine.field(driver, vring.D_DESC), 16 * num),
            (machine.field(driver, vring.D_AVAIL), 6 + 2 * num),
        ]
    return found


def _bits(bitmap: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.bool_]:
    return np.unpackbits(bitmap, bitorder='little')[:count].astype(bool)
