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
from sim.control.power import Host
from sim.layout import PAGE_SIZE, USED_IDX, VQ_REQUEST_FIRST
from sim.machine import Machine
from sim.vhost.dev import index_at

COLUMN = {name: index for index, name in enumerate(record.COLUMNS)}


class Watch:
    """Watches one stop. Call `cleared`, `stopped` and `still_stopped` at their times, and `found`
    at the end of the run.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.machine = host.control.machine
        self.sentences: list[str] = []
        self.pages: list[bytes] | None = None
        self.cleared_at: int | None = None
        self.started_at: int | None = None

    def cleared(self) -> None:
        """CLEAR_ENDPOINT is about to return 0."""
        self.cleared_at = self.host.control.now
        self.pages = _hashes(self.machine)
        rows = frame.trace_rows(self.machine)
        left = rows[(rows[:, COLUMN['t_fetch']] > 0) & (rows[:, COLUMN['t_used']] == 0)]
        left = left[left[:, COLUMN['outcome']] != record.DROPPED]
        if left.size:
            self.sentences.append(
                f'requirement 3: {len(left)} requests are in flight when CLEAR_ENDPOINT returns, '
                f'at cycle {self.cleared_at}; the first is serial {left[0, COLUMN["serial"]]}'
            )

    def stopped(self) -> None:
        """The device has stopped: requirement 2.1, queue by queue."""
        self._left_in_log()
        st, mem = self.machine.st, self.machine.mem
        for index, vq in enumerate(self.host.device.parent_obj.vqs):
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

    def _left_in_log(self) -> None:
        """Requirement 2.3: what the backend has written, migration knows of."""
        if not self.host.device.dev.log_enabled:
            return
        bits = np.unpackbits(self.machine.dirty_log, bitorder='little')
        pages = np.flatnonzero(bits)
        if pages.size:
            at = int(pages[0]) * PAGE_SIZE
            self.sentences.append(
                f'requirement 2.3: {pages.size} guest pages were written after the last sync of '
                f'the dirty log, and would stay behind; the first is {at:#x}, '
                f'{place_of(self.machine, at)}'
            )

    def still_stopped(self) -> None:
        """The VM is about to go on: requirement 2.3 over the time since CLEAR_ENDPOINT returned."""
        self.started_at = self.host.control.now
        if self.pages is None:
            return
        pairs = zip(self.pages, _hashes(self.machine), strict=True)
        changed = [page for page, (before, now) in enumerate(pairs) if before != now]
        if changed:
            at = changed[0] * PAGE_SIZE
            self.sentences.append(
                f'requirement 2.3: {len(changed)} guest pages changed between cycle '
                f'{self.cleared_at}, when CLEAR_ENDPOINT returned, and cycle {self.started_at}; '
                f'the first is {at:#x}, {place_of(self.machine, at)}'
            )

    def found(self) -> list[str]:
        """Every sentence; requirement 2.2 is looked up in the trace, which has what came late."""
        rows = frame.trace_rows(self.machine)
        end = self.started_at or np.iinfo(np.int64).max
        late = []
        for index, since in self.host.file.detached.items():
            mine = rows[rows[:, COLUMN['queue']] == index - VQ_REQUEST_FIRST]
            fetched = mine[:, COLUMN['t_fetch']] - 1
            late += mine[(fetched > since) & (fetched < end)].tolist()
        sentences = list(self.sentences)
        if late:
            first = min(late, key=lambda row: row[COLUMN['t_fetch']])
            sentences.append(
                f'requirement 2.2: {len(late)} requests were taken up after their queue was '
                f'stopped; the first is serial {first[COLUMN["serial"]]}, at cycle '
                f'{first[COLUMN["t_fetch"]] - 1}'
            )
        return sentences


def in_flight(host: Host) -> int:
    """Commands that the backend has fetched and not answered."""
    st = host.control.machine.st
    total = 0
    for q in host.control.machine.host_vqs:
        current, first = int(st[q + int(backend.Q_INFLIGHT)]), q + int(backend.Q_INFLIGHTS)
        for count in (first, first + 1):
            total += int(st[count]) - (1 if count == current else 0)
    return total


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
