"""Checkers of a hand-over: they compare what left with what arrived, and steer nothing.

A sentence names the requirement, the first queue, page, block or LUN that breaks it, and the cycle:
(1) the device's state is saved and loaded, (4) the target's state reaches the destination. Beside
them, `stale page`: no page of the destination may be older than the source's at the hand-over.
"""

from collections.abc import Iterator

import numpy as np

from sim import features, guest, record
from sim.analysis import frame
from sim.analysis.frame import COLUMN
from sim.control.power import Host
from sim.control.stop_checks import place_of
from sim.device import VirtIODevice
from sim.features import version
from sim.layout import PAGE_SIZE
from sim.lio import ports
from sim.machine import Machine, Words
from sim.migrate import handover
from sim.se_cmd import OP_READ, OP_WRITE
from sim.vhost.ioctl import VhostScsi

WINDOW = 'stale page (LOG_ALL window)'


def device_state(source: VirtIODevice, there: VirtIODevice, now: int) -> list[str]:
    """Requirement 1: status, features and the indices of every queue are on the other side."""
    here, arrived, found = source.parent_obj, there.parent_obj, []
    for name in ('status', 'guest_features'):
        left, right = getattr(here, name), getattr(arrived, name)
        if left != right:
            found.append(
                f'requirement 1: {name} is {left:#x} on the source and {right:#x} on the '
                f'destination, at cycle {now}'
            )
    for index, (left, right) in enumerate(zip(here.vqs, arrived.vqs, strict=True)):
        before = (left.desc, left.avail, left.used, left.last_avail_idx, left.used_idx)
        after = (right.desc, right.avail, right.used, right.last_avail_idx, right.used_idx)
        if before != after:
            found.append(
                f'requirement 1: queue {index} at cycle {now}: the source has last_avail_idx '
                f'{left.last_avail_idx} and used_idx {left.used_idx}, the destination '
                f'{right.last_avail_idx} and {right.used_idx}'
            )
            break
    return found


def stale_pages(host: Host, memory: np.ndarray, now: int) -> tuple[list[str], int]:
    """Pages of the destination that are not as the source has them, as a sentence and a count.

    Where all of them can be those of requests that were fetched between SET_LOG_BASE and
    SET_FEATURES with LOG_ALL, and answered later, the sentence says so: what is fetched then is not
    logged, on any kernel. The buffer of a READ that is not answered yet has no content: what lies
    in it does not count.
    """
    source = host.control.machine
    shape = -1, PAGE_SIZE
    if buffers := list(open_buffers(source)):
        memory = memory.copy()
        for at, size in buffers:
            memory[at : at + size] = source.mem[at : at + size]
    differ = (source.mem.reshape(shape) != memory.reshape(shape)).any(axis=1)
    pages = np.flatnonzero(differ)
    if not pages.size:
        return [], 0
    at = int(pages[0]) * PAGE_SIZE
    unlogged = fetched_before_log_all(host)
    room = int((-(-unlogged[:, COLUMN['bytes']] // PAGE_SIZE)).sum()) if unlogged.size else 0
    name, why = 'stale page', ''
    if logs_data(host) and pages.size <= room:
        name = WINDOW
        why = (
            f'; serial {unlogged[0, COLUMN["serial"]]} was fetched at cycle '
            f'{unlogged[0, COLUMN["t_fetch"]] - 1}, before SET_FEATURES had set LOG_ALL'
        )
    return [
        f"{name}: {pages.size} guest pages of the destination are older than the source's at "
        f'cycle {now}; the first is {at:#x}, {place_of(source, at)}{why}'
    ], pages.size


def logs_data(host: Host) -> bool:
    """Does the backend log buffers at all? Kernel vhost-scsi from Linux 7.2 on."""
    return not isinstance(host.backend, VhostScsi) or version(host.backend.kernel) >= (7, 2)


def fetched_before_log_all(host: Host) -> Words:
    """Rows of what was fetched before LOG_ALL was set, behind the flush of SET_LOG_BASE, and
    answered afterwards.
    """
    ends: dict[str, int] = {}
    for call in host.control.calls:
        log_all = call.arguments.get('features', 0) >> features.LOG_ALL & 1
        if call.name == 'VHOST_SET_LOG_BASE' or (call.name == 'VHOST_SET_FEATURES' and log_all):
            ends[call.name] = call.time + call.duration
    rows = frame.trace_rows(host.control.machine)
    if 'VHOST_SET_FEATURES' not in ends:
        return rows[:0]
    until, used = ends['VHOST_SET_FEATURES'], rows[:, COLUMN['t_used']] - 1
    fetched = rows[:, COLUMN['t_fetch']] - 1
    return rows[(fetched >= 0) & (fetched <= until) & (used > until)]


def open_buffers(machine: Machine) -> Iterator[tuple[int, int]]:
    """(address, bytes) of the buffer of each READ that is published and not answered."""
    st, tr = machine.st, machine.tr
    for q in machine.guest_queues:
        for tag in range(machine.field(q, guest.G_NUM)):
            t = int(guest.tag_base(st, np.uint64(q), np.uint64(tag)))
            row = int(st[t + int(guest.T_ROW)])
            if row == 0 or tr[row + int(record.R_SERIAL)] != st[t + int(guest.T_SERIAL)]:
                continue
            published, used = tr[row + int(record.R_AVAIL)], tr[row + int(record.R_USED)]
            if published and not used and tr[row + int(record.R_OP)] == OP_READ:
                stride = machine.field(q, guest.G_DATA_STRIDE)
                yield machine.field(q, guest.G_DATA) + stride * tag, stride


def medium(source: Machine, media: Words, now: int) -> list[str]:
    """Requirement 4: whatever was acknowledged to the guest is on the disk that it finds."""
    if media is source.media:
        return []
    rows = frame.trace_rows(source)
    acked = rows[(rows[:, COLUMN['t_used']] > 0) & (rows[:, COLUMN['op']] == OP_WRITE)]
    missing = np.flatnonzero(media != source.media)
    if not missing.size or not acked.size:
        return []
    return [
        f'requirement 4: {missing.size} blocks of 512 bytes that the guest has written are not on '
        f'the disk of the destination, at cycle {now}; the first is block {missing[0]} of the '
        'medium'
    ]


def target_state(source: Machine, there: Machine, now: int) -> list[str]:
    """Requirement 4: LUN maps, reservations and unit attentions of LIO are on the other side."""
    found = []
    for (target, number), (_, lun) in there.luns.items():
        old_target, old = source.luns[target, number]
        pairs = handover.nexuses_of(there, source, lun, old)
        differ = any(
            source.st[here + int(name)] != there.st[arrived + int(name)]
            for arrived, here, names in pairs
            for name in names
        )
        if differ:
            found.append(
                f'requirement 4: LUN {number} of target {target} at cycle {now}: registrations, '
                'reservation or unit attentions of the source have not reached the destination'
            )
        new_target = there.luns[target, number][0]
        here = ports.find_lun(source.st, np.uint64(old_target), number)
        if bool(here) != bool(ports.find_lun(there.st, np.uint64(new_target), number)):
            found.append(
                f'requirement 4: LUN {number} of target {target} at cycle {now} is mapped on one '
                'side only'
            )
    return found
