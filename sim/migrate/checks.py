"""Checkers of a hand-over: they compare what left with what arrived, and steer nothing.

A sentence names the requirement, the first queue, page, block or LUN that breaks it, and the cycle:
(1) the device's state is saved and loaded, (4) the target's state reaches the destination. Beside
them, `stale page`: no page of the destination may be older than the source's at the hand-over.
"""

import numpy as np

from sim import record
from sim.analysis import frame
from sim.control.stop_checks import place_of
from sim.device import VHostSCSICommon
from sim.layout import PAGE_SIZE
from sim.lio import ports
from sim.machine import Machine, Words
from sim.migrate import handover
from sim.se_cmd import OP_WRITE

COLUMN = {name: index for index, name in enumerate(record.COLUMNS)}


def device_state(source: VHostSCSICommon, there: VHostSCSICommon, now: int) -> list[str]:
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


def stale_pages(source: Machine, memory: np.ndarray, now: int) -> tuple[list[str], int]:
    """Pages of the destination that are not as the source has them, as a sentence and a count."""
    shape = -1, PAGE_SIZE
    differ = (source.mem.reshape(shape) != memory.reshape(shape)).any(axis=1)
    pages = np.flatnonzero(differ)
    if not pages.size:
        return [], 0
    at = int(pages[0]) * PAGE_SIZE
    return [
        f'stale page: {pages.size} guest pages of the destination are older than the source\'s at '
        f'cycle {now}; the first is {at:#x}, {place_of(source, at)}'
    ], pages.size


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
