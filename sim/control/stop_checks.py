"""Checkers of a stop: they watch what the stopped backend does, and steer nothing.

The four requirements are those of the change that made vhost-scsi migratable: the backend is
stopped before the device's state is saved, which means that (2.1) its state is in the device, (2.2)
it issues no further I/O, (2.3) it touches no guest memory; and (3) what was in flight is completed.

A sentence names the requirement, the first request or page that breaks it, and the cycle.
"""

import hashlib

import numpy as np
import numpy.typing as npt

from sim import backend, guest, record, vring
from sim.analysis import frame
from sim.analysis.frame import COLUMN
from sim.control.power import Host
from sim.layout import PAGE_SIZE, USED_IDX, VQ_REQUEST_FIRST
from sim.machine import Machine
from sim.vhost.dev import index_at
from sim.vhost.ioctl import VhostScsi

# What has returned when a device has stopped.
END_OF_STOP = {
    'vhost-scsi': 'CLEAR_ENDPOINT',
    'vhost-user-scsi': 'GET_VRING_BASE',
    'virtio-scsi': 'blk_drain_all()',
}


class Watch:
    """Watches one stop. Call `cleared`, `stopped` and `still_stopped` at their times, and `found`
    at the end of the run. `region`: does the in-flight region reach the next start?
    """

    def __init__(self, host: Host, *, region: bool = True) -> None:
        self.host = host
        self.machine = host.control.machine
        self.region = region
        self.end = END_OF_STOP[host.virtio.name]
        self.sentences: list[str] = []
        self.pages: list[bytes] | None = None
        self.cleared_at: int | None = None
        self.started_at: int | None = None

    def cleared(self) -> None:
        """The backend is about to say that it has stopped."""
        self.cleared_at = self.host.control.now
        self.pages = _hashes(self.machine)
        self._left_in_flight()

    def _left_in_flight(self) -> None:
        """Requirement 3: what is not completed is withdrawn and stands in the in-flight region."""
        rows = frame.trace_rows(self.machine)
        left = rows[(rows[:, COLUMN['t_fetch']] > 0) & (rows[:, COLUMN['t_used']] == 0)]
        left = left[left[:, COLUMN['outcome']] != record.DROPPED]
        recorded = self._serials_in_regions()
        left = left[~np.isin(left[:, COLUMN['serial']], sorted(recorded))]
        if left.size:
            self.sentences.append(
                f'requirement 3: {len(left)} requests are in flight when {self.end} returns, '
                f'at cycle {self.cleared_at}; the first is {named(left[0])}'
            )

    def _serials_in_regions(self) -> set[int]:
        """Requests that the next backend will find in the region, where it reaches it."""
        machine, end = self.machine, self.host.backend
        found = set()
        for index, q in end.queues().items():
            rows = int(machine.st[q + int(backend.Q_ROW_OF_HEAD)])
            for head in end.recorded(index) if self.region and end.withdrawn else ():
                row = int(machine.st[rows + head])
                found.add(int(machine.tr[row + int(record.R_SERIAL)]))
        return found

    def stopped(self) -> None:
        """The device has stopped: requirement 2.1, queue by queue."""
        end = self.host.backend
        if self.cleared_at is None and isinstance(end, VhostScsi) and end.endpoint:
            self._not_cleared()
        self._left_in_log()
        st, mem = self.machine.st, self.machine.mem
        for index, vq in enumerate(self.host.virtio.parent_obj.vqs):
            if not vq.is_set_up or index >= len(self.machine.devices):
                continue
            v = self.machine.devices[index]
            if st[v + int(vring.V_PACKED)]:
                continue
            there = int(st[v + int(vring.V_LAST_AVAIL)])
            used = index_at(mem, vq.used + int(USED_IDX))
            if vq.last_avail_idx != there or vq.used_idx != used:
                self.sentences.append(
                    f'requirement 2.1: queue {index} at cycle {self.host.control.now}: the device '
                    f'has last_avail_idx {vq.last_avail_idx} and used_idx {vq.used_idx}, the '
                    f'backend {there} and {used}'
                )

    def _not_cleared(self) -> None:
        """CLEAR_ENDPOINT has failed, which QEMU ignores: nobody has stopped the backend."""
        now = self.cleared_at = self.host.control.now
        self.pages = _hashes(self.machine)
        self.host.backend.detached = dict.fromkeys(self.host.backend.queues(), now)
        self.sentences.append(
            f'requirement 2: CLEAR_ENDPOINT has failed, QEMU goes on, and at cycle {now} the '
            f'backend still has the ring, with {self.host.backend.in_flight()} requests in flight'
        )

    def _left_in_log(self) -> None:
        """Requirement 2.3: what the backend has written, migration knows of."""
        dev = self.host.dev
        if dev is None or not dev.log_enabled:
            return
        bits = np.unpackbits(self.machine.dirty_log, bitorder='little')
        pages = np.flatnonzero(bits)
        if pages.size:
            at = int(pages[0]) * PAGE_SIZE
            self.sentences.append(
                f'requirement 2.3: {pages.size} guest pages were written after the last sync of '
                f'the dirty log, as of cycle {self.host.control.now}, and would stay behind; the '
                f'first is {at:#x}, '
                f'{place_of(self.machine, at)}'
            )

    def still_stopped(self) -> None:
        """The VM is about to go on: requirement 2.3 over the time since then."""
        self.started_at = self.host.control.now
        if self.pages is None:
            return
        pairs = zip(self.pages, _hashes(self.machine), strict=True)
        changed = [page for page, (before, now) in enumerate(pairs) if before != now]
        if changed:
            at = changed[0] * PAGE_SIZE
            self.sentences.append(
                f'requirement 2.3: {len(changed)} guest pages changed between cycle '
                f'{self.cleared_at}, when {self.end} returned, and cycle {self.started_at}; '
                f'the first is {at:#x}, {place_of(self.machine, at)}'
            )

    def found(self) -> list[str]:
        """Every sentence; requirement 2.2 is looked up in the trace, which has what came late."""
        rows = frame.trace_rows(self.machine)
        end = self.started_at or np.iinfo(np.int64).max
        late = []
        for index, since in self.host.backend.detached.items():
            mine = rows[rows[:, COLUMN['queue']] == index - VQ_REQUEST_FIRST]
            fetched = mine[:, COLUMN['t_fetch']] - 1
            late += mine[(fetched > since) & (fetched < end)].tolist()
        sentences = list(self.sentences)
        if late:
            first = min(late, key=lambda row: row[COLUMN['t_fetch']])
            sentences.append(
                f'requirement 2.2: {len(late)} requests were taken up after their queue was '
                f'stopped; the first is {named(first)}, at cycle '
                f'{first[COLUMN["t_fetch"]] - 1}'
            )
        return sentences


def named(row: npt.NDArray[np.int64] | list[int]) -> str:
    """A request, for a sentence."""
    op = ('READ', 'WRITE', 'FLUSH')[row[COLUMN['op']]]
    return f'serial {row[COLUMN["serial"]]}, {op} at LBA {row[COLUMN["lba"]]}'


def place_of(machine: Machine, at: int) -> str:
    """What lies at a guest address, for a sentence."""
    areas = []
    for index, (g, d) in enumerate(zip(machine.guest_vqs, machine.drivers, strict=True)):
        num = machine.field(g, guest.G_NUM)
        parts = (
            ('descriptors', d, vring.D_DESC, 16 * num),
            ('driver area', d, vring.D_AVAIL, 6 + 2 * num),
            ('used ring', d, vring.D_USED, 6 + 8 * num),
            ('requests', g, guest.G_HEADERS, machine.field(g, guest.G_HEADER_STRIDE) * num),
            ('tables', g, guest.G_TABLES, machine.field(g, guest.G_TABLE_STRIDE) * num),
            ('data', g, guest.G_DATA, machine.field(g, guest.G_DATA_STRIDE) * num),
        )
        for name, base, field, size in parts:
            start = machine.field(base, field)
            if size and start < at + PAGE_SIZE and at < start + size:
                areas.append(f'{name} of queue {index}')
    return ' and '.join(areas) or 'nothing known'


def _hashes(machine: Machine) -> list[bytes]:
    """A hash of each page of guest memory."""
    view: npt.NDArray[np.uint8] = machine.mem
    return [
        hashlib.blake2b(view[at : at + PAGE_SIZE].tobytes(), digest_size=8).digest()
        for at in range(0, view.size, PAGE_SIZE)
    ]
