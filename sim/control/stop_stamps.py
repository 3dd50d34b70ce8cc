"""End to end: what the guest was told against what the disks hold and what its pages held.

These checkers know nothing of rings, workers or queues. A WRITE leaves a stamp of its own in every
block (sim.record.block_stamp), a READ brings stamps into its pages, and the guest knows when it
asked for each and when it was told of each. From that alone follows what may be where:

    lost     a WRITE was acknowledged, and its block holds nothing
    stale    its block holds an older WRITE, acknowledged before this one was asked for
    torn     some of its blocks hold it, others do not
    doubled  the disks have made more transfers than there were requests, but for those whose answer
             a stop has cut off
    page     a READ brought what had been overwritten, or not yet been asked for, or nothing
    rings    the indices of both sides disagree when all is over
    liveness a request never came back

A sentence names the request, the block (an LBA in sectors of 512 bytes) or the ring, and the cycle.
"""

from collections import defaultdict

import numpy as np
import numpy.typing as npt

from sim import agents, invariants, record, vring
from sim.analysis.frame import COLUMN
from sim.layout import AVAIL_IDX, USED_IDX, VQ_REQUEST_FIRST
from sim.lio.lun import L_MEDIA
from sim.machine import Machine
from sim.se_cmd import OP_READ, OP_WRITE
from sim.vhost.dev import index_at

Rows = npt.NDArray[np.int64]
NEVER = np.iinfo(np.int64).max
BLANK = -1


def check(machine: Machine, rows: Rows, performed: int = 0) -> list[str]:
    """Every sentence; `rows` is the trace of a finished run. `performed`: requests that were
    withdrawn when the disk had done its part, and submitted again.
    """
    return [
        *writes(machine, rows),
        *reads(machine, rows),
        *doubled(machine, rows, performed),
        *rings(machine),
        *liveness(rows),
    ]


def _acknowledged(rows: Rows) -> npt.NDArray[np.bool_]:
    return (rows[:, COLUMN['completed']] > 0) & (rows[:, COLUMN['outcome']] == record.OK)


def _blocks(rows: Rows) -> tuple[Rows, Rows]:
    """(index of the row, LBA) of every block of every request."""
    count = rows[:, COLUMN['bytes']] // 512
    row_of = np.repeat(np.arange(len(rows)), count)
    starts = np.cumsum(count) - count
    return row_of, rows[row_of, COLUMN['lba']] + np.arange(len(row_of)) - starts[row_of]


# ------------------------------------------------------------------------------------- writes ----


def writes(machine: Machine, rows: Rows) -> list[str]:
    """Each block holds a WRITE that no other acknowledged one has followed, or nothing at all."""
    mine = rows[(rows[:, COLUMN['op']] == OP_WRITE) & (rows[:, COLUMN['published']] > 0)]
    if not mine.size:
        return []
    told = _acknowledged(mine)
    row_of, lba = _blocks(mine)
    lun = invariants.luns_of(machine)[mine[row_of, COLUMN['job']]]
    place = lun << 40 | lba
    known, block_of = np.unique(place, return_inverse=True)
    asked = np.where(told, mine[:, COLUMN['t_submit']], -1)[row_of]
    last_asked = np.full(len(known), -1)
    np.maximum.at(last_asked, block_of, asked)
    ends = np.where(told, mine[:, COLUMN['t_complete']], NEVER)[row_of]
    legal = ends >= last_asked[block_of]
    held = _held(machine, known)
    is_there = invariants.block_stamps(mine[row_of, COLUMN['serial']], lba) == held[block_of]
    good = np.zeros(len(known), bool)
    np.logical_or.at(good, block_of, legal & is_there)
    wrong = ~good & (last_asked >= 0)
    if not wrong.any():
        return []
    return _wrong_blocks(
        mine, wrong, block_of, row_of, lba, is_there, asked == last_asked[block_of]
    )


def _held(machine: Machine, places: Rows) -> Rows:
    """The word that the medium has in each block."""
    held = np.zeros(len(places), np.int64)
    for lun in np.unique(places >> 40):
        base = machine.luns[int(lun) >> 14, int(lun) & 0x3FFF][1]
        first = int(machine.st[base + int(L_MEDIA)])
        mine = places >> 40 == lun
        lba = places[mine] & (1 << 40) - 1
        held[mine] = machine.media[first + lba] ^ (-1 - lba)
    return held


def _wrong_blocks(
    mine: Rows,
    wrong: npt.NDArray[np.bool_],
    block_of: Rows,
    row_of: Rows,
    lba: Rows,
    is_there: npt.NDArray[np.bool_],
    is_last: npt.NDArray[np.bool_],
) -> list[str]:
    """A sentence for each kind of wrong block, with the first request that it struck."""
    found = defaultdict(list)
    for entry in np.flatnonzero(wrong[block_of] & is_last):
        request, block = row_of[entry], block_of[entry]
        others = np.flatnonzero(is_there & (block_of == block))
        beside = is_there[row_of == request]
        if beside.any():
            kind = 'torn'
        else:
            kind = 'stale' if others.size else 'lost'
        found[kind].append(
            (request, int(lba[entry]), int(row_of[others[0]]) if others.size else -1)
        )
    sentences = []
    for kind, entries in sorted(found.items()):
        request, block, other = entries[0]
        row, requests = mine[request], {entry[0] for entry in entries}
        held = 'nothing that was written'
        if other >= 0:
            held = f'WRITE serial {mine[other, COLUMN["serial"]]}'
            if mine[other, COLUMN['disk_order']] > row[COLUMN['disk_order']] > 0:
                held += ', which was performed again after it'
        sentences.append(
            f'end to end: {kind}: {len(requests)} acknowledged WRITEs are not on the disk; the '
            f'first is serial {row[COLUMN["serial"]]}, told to the guest at cycle '
            f'{row[COLUMN["t_complete"]] - 1}: block {block} holds {held}'
        )
    return sentences


# -------------------------------------------------------------------------------------- reads ----


def reads(machine: Machine, rows: Rows) -> list[str]:
    """Each READ brought a WRITE that was asked for before it ended and not overwritten before it
    began. Where WRITEs of other blocks or sizes overlap it, the replay of sim.invariants.data has
    to do.
    """
    told = _acknowledged(rows)
    luns = invariants.luns_of(machine)[rows[:, COLUMN['job']]]
    by_place, sizes = defaultdict(list), rows[:, COLUMN['bytes']]
    aligned = len(np.unique(sizes[sizes > 0])) == 1
    if not aligned or (rows[:, COLUMN['lba']] * 512 % max(int(sizes.max(initial=1)), 1)).any():
        return []
    is_write = (rows[:, COLUMN['op']] == OP_WRITE) & (rows[:, COLUMN['published']] > 0)
    for index in np.flatnonzero(is_write):
        by_place[luns[index], rows[index, COLUMN['lba']]].append(index)
    wrong = []
    for index in np.flatnonzero(told & (rows[:, COLUMN['op']] == OP_READ)):
        row = rows[index]
        around = rows[by_place.get((luns[index], row[COLUMN['lba']]), [])]
        if not _could_bring(row, around, told_of(around)):
            wrong.append(row)
    if not wrong:
        return []
    first = min(wrong, key=lambda row: row[COLUMN['t_complete']])
    return [
        f'end to end: page: {len(wrong)} READs brought what the disk could not hold by then; the '
        f'first is serial {first[COLUMN["serial"]]}, blocks {first[COLUMN["lba"]]} to '
        f'{first[COLUMN["lba"]] + first[COLUMN["bytes"]] // 512 - 1}, told to the guest at cycle '
        f'{first[COLUMN["t_complete"]] - 1}'
    ]


def told_of(rows: Rows) -> Rows:
    """When each request was acknowledged, NEVER where it was not."""
    return np.where(_acknowledged(rows), rows[:, COLUMN['t_complete']], NEVER)


def _could_bring(row: Rows, around: Rows, told: Rows) -> bool:
    """May a READ have brought what it did, with these WRITEs to its blocks?"""
    begins, ends = row[COLUMN['t_submit']], row[COLUMN['t_complete']]
    before = told < begins
    floor = around[before, COLUMN['t_submit']].max(initial=-1)  # of what it must have seen
    candidates = around[(around[:, COLUMN['t_submit']] <= ends) & (told >= floor)]
    blocks = row[COLUMN['lba']] + np.arange(row[COLUMN['bytes']] // 512)
    held = [
        invariants.block_stamps(candidate[COLUMN['serial']], blocks) for candidate in candidates
    ]
    if floor < 0:
        held.append(-1 - blocks)
    whole = np.array([0]), np.array([blocks.size])
    return any(invariants.folds_of(stamps, *whole)[0] == row[COLUMN['stamp']] for stamps in held)


def doubled(machine: Machine, rows: Rows, performed: int = 0) -> list[str]:
    """A request moves its data once, or again while nobody has been told of it."""
    made = int(machine.st[int(agents.H_DISK_ORDER)])
    asked = int((rows[:, COLUMN['disk_order']] > 0).sum())
    if made <= asked + performed:
        return []
    return [f'end to end: doubled: the disks made {made} transfers for {asked} requests']


# ---------------------------------------------------------------------------------- the rings ----


def rings(machine: Machine) -> list[str]:
    """When all is over nothing stands in a split ring: all its indices are one."""
    found = []
    for index, d in enumerate(machine.drivers):
        v = machine.devices[index]
        if index < VQ_REQUEST_FIRST or machine.field(v, vring.V_PACKED):
            continue
        mem = machine.mem
        avail = index_at(mem, machine.field(d, vring.D_AVAIL) + int(AVAIL_IDX))
        used = index_at(mem, machine.field(d, vring.D_USED) + int(USED_IDX))
        taken = machine.field(v, vring.V_LAST_AVAIL)
        told = machine.field(v, vring.V_LAST_USED)
        seen = machine.field(d, vring.D_LAST_USED)
        if len({avail, used, taken, told, seen & 0xFFFF}) > 1:
            at = machine.field(d, vring.D_USED)
            found.append(
                f'end to end: rings: queue {index} (used ring at {at:#x}) at the end: avail.idx is '
                f'{avail}, the backend has taken {taken} and given back {told}, '
                f'used.idx is {used}, the driver has seen {seen & 0xFFFF}'
            )
    return found


def liveness(rows: Rows) -> list[str]:
    """Every request that was published comes back."""
    lost = rows[(rows[:, COLUMN['published']] > 0) & (rows[:, COLUMN['completed']] == 0)]
    if not lost.size:
        return []
    first = lost[0]
    return [
        f'end to end: liveness: {len(lost)} requests never come back; the first is serial '
        f'{first[COLUMN["serial"]]}, published at cycle {first[COLUMN["t_avail"]] - 1}'
    ]
