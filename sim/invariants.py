"""Checkers that only watch: they read what a run has written, and steer nothing.

Each returns a list of sentences, empty when all is well. A sentence names the first request or
agent that breaks the rule, so that it can be looked at.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from sim import agents, backend, guest, record, recorder
from sim.analysis import frame
from sim.analysis.frame import COLUMN
from sim.machine import Machine
from sim.se_cmd import OP_WRITE

Rows = npt.NDArray[np.int64]


def check(machine: Machine) -> list[str]:
    """Every checker over a finished run that its recording allows; checks_of() says which."""
    broken = [*ring_never_overrun(machine), *nothing_left(machine), *utilisation(machine)]
    if machine.tr[int(recorder.T_COUNTS)]:
        return [*counted(machine), *broken]
    rows = frame.trace_rows(machine)
    if rows.size == 0:
        return ['no request was recorded: the run did nothing']
    broken += data(rows, luns_of(machine))
    sent = rows[~kept_from_the_host(rows)]
    return [*conservation(sent), *order(sent), *littles_law(rows), *broken]


def checks_of(machine: Machine) -> dict[str, list[str]]:
    """Names of the checkers that `check` runs on this machine, and of those that it cannot."""
    ran = ['conservation', 'order', 'ring', 'end', 'utilisation']
    needing_every_row = ['data', "Little's law"]
    if machine.tr[int(recorder.T_COUNTS)]:
        return {'ran': ran, 'skipped': needing_every_row}
    return {'ran': ran + needing_every_row, 'skipped': []}


def counted(machine: Machine) -> list[str]:
    """Conservation and order as the recorder watched them while it counted."""

    def word(name: np.uint64) -> int:
        return int(machine.tr[int(name)])

    issued, reaped = int(machine.st[int(agents.H_SERIAL)]), word(recorder.T_REAPED)
    broken = []
    if issued == 0:
        broken.append('no request was issued: the run did nothing')
    if issued != reaped:
        broken.append(f'conservation: {issued} requests were issued and {reaped} reaped')
    if word(recorder.T_WRONG_COUNT):
        broken.append(
            f'conservation: {word(recorder.T_WRONG_COUNT)} requests were not published, fetched, '
            'used and completed exactly once; the first is serial '
            f'{word(recorder.T_WRONG_COUNT_SERIAL)}'
        )
    if word(recorder.T_WRONG_ORDER):
        broken.append(
            f'order: timestamps of {word(recorder.T_WRONG_ORDER)} requests are missing or go back; '
            f'the first is serial {word(recorder.T_WRONG_ORDER_SERIAL)}'
        )
    if word(recorder.T_HOMELESS):
        broken.append(f'recorder: {word(recorder.T_HOMELESS)} requests found no row to use')
    return broken


def kept_from_the_host(rows: Rows) -> npt.NDArray[np.bool_]:
    """Which requests the driver has given back by itself, because the host could not have them."""
    outcome = rows[:, COLUMN['outcome']]
    failed = (outcome == record.NO_CONNECT) | (outcome == record.BAD_TARGET)
    return failed & (rows[:, COLUMN['published']] == 0)


def conservation(rows: Rows) -> list[str]:
    """Every request is published, fetched, used and completed exactly once."""
    broken = []
    for name in ('published', 'fetched', 'used', 'completed'):
        wrong = np.flatnonzero(rows[:, COLUMN[name]] != 1)
        if wrong.size:
            first = rows[wrong[0]]
            broken.append(
                f'conservation: {wrong.size} requests were not {name} exactly once; the first is '
                f'serial {first[COLUMN["serial"]]} ({name} {first[COLUMN[name]]} times)'
            )
    return broken


def order(rows: Rows) -> list[str]:
    """The timestamps of a completed request never go back and none is missing."""
    times = rows[rows[:, COLUMN['completed']] > 0][:, : len(record.TIMESTAMPS)]
    broken = []
    missing = np.flatnonzero((times == 0).any(axis=1))
    if missing.size:
        broken.append(f'order: {missing.size} completed requests lack a timestamp')
    back = np.argwhere(np.diff(times, axis=1) < 0)
    if back.size:
        row, stage = back[0]
        broken.append(
            f'order: {record.TIMESTAMPS[stage + 1]} lies before {record.TIMESTAMPS[stage]} '
            f'in request {row + 1} (and {len(back) - 1} more)'
        )
    return broken


def ring_never_overrun(machine: Machine) -> list[str]:
    """At every fetch u16(avail.idx - last_avail) <= num; packed: no more descriptors than slots."""
    broken = []
    for q, g in zip(machine.host_queues, machine.guest_queues, strict=True):
        ahead, num = machine.field(q, backend.Q_AHEAD_MAX), machine.field(g, guest.G_NUM)
        if ahead > num:
            index = machine.field(q, backend.Q_INDEX)
            broken.append(f'ring: {ahead} entries stood in vq {index}, which has {num}')
    return broken


def nothing_left(machine: Machine) -> list[str]:
    """After the end: every tag is free, no list holds anything, nobody wants to run."""
    broken = []
    st = machine.st
    for g in machine.guest_queues:
        free, num = machine.field(g, guest.G_TAG_FREE), machine.field(g, guest.G_NUM)
        if free != num:
            index = machine.field(g, guest.G_INDEX)
            broken.append(f'end: vq {index} still holds {num - free} tags')
    due = int(st[int(agents.H_DUE)])
    for slot, name in enumerate(machine.names):
        if st[due + slot] != agents.IDLE:
            cycle = st[due + slot] >> agents.SLOT_BITS
            broken.append(f'end: {name} still wants to run at cycle {cycle}')
    if frame.ring_errors(machine):
        broken.append('ring: the device met malformed descriptors')
    return broken


def luns_of(machine: Machine) -> Rows:
    """A number of the LUN that each clone works on."""
    return np.array([plan.workload.target << 14 | plan.workload.lun for plan in machine.plans])


def data(rows: Rows, luns: Rows) -> list[str]:
    """Every READ returned what the disk held: replay all transfers in the disk's order.

    The replay knows nothing of rings or memory: a WRITE leaves its stamps (record.block_stamp) in
    its blocks, a READ must have folded the latest stamp of each of its blocks.
    """
    done = rows[rows[:, COLUMN['disk_order']] > 0]
    done = done[np.argsort(done[:, COLUMN['disk_order']], kind='stable')]
    blocks = done[:, COLUMN['bytes']] // 512
    row_of = np.repeat(np.arange(len(done)), blocks)
    starts = np.cumsum(blocks) - blocks
    block = done[row_of, COLUMN['lba']] + np.arange(len(row_of)) - starts[row_of]
    place = luns[done[row_of, COLUMN['job']]] << 40 | block
    write = done[row_of, COLUMN['op']] == OP_WRITE
    stamp = block_stamps(done[row_of, COLUMN['serial']], block)
    if write.any():
        held = pd.Series(np.where(write, stamp, 0)).mask(~write).groupby(place).ffill()
        unwritten = held.isna().to_numpy()
        found = _last_written(place, write, stamp)
        found[unwritten] = -1 - block[unwritten]
    else:
        found = -1 - block
    folds = folds_of(np.where(write, stamp, found), starts, blocks)
    looked_at = (done[:, COLUMN['op']] == OP_WRITE) | (done[:, COLUMN['t_complete']] > 0)
    wrong = np.flatnonzero((folds != done[:, COLUMN['stamp']]) & looked_at)
    if wrong.size == 0:
        return []
    first = done[wrong[0]]
    kind = 'WRITE' if first[COLUMN['op']] == OP_WRITE else 'READ'
    return [
        f'data: {wrong.size} requests carried wrong data; the first is the {kind} with serial '
        f'{first[COLUMN["serial"]]} at LBA {first[COLUMN["lba"]]}'
    ]


def _last_written(place: Rows, write: npt.NDArray[np.bool_], stamp: Rows) -> Rows:
    """For every access the stamp of the last write to its block so far (0 before any)."""
    index = pd.Series(np.where(write, np.arange(len(place)), -1)).groupby(place).cummax()
    latest = index.to_numpy()
    return np.where(latest >= 0, stamp[np.maximum(latest, 0)], 0)


def block_stamps(serials: Rows | np.int64, blocks: Rows) -> Rows:
    """record.block_stamp of every block."""
    return (serials * 2654435761) ^ blocks


def folds_of(stamps: Rows, starts: Rows, blocks: Rows) -> Rows:
    """record.fold over the blocks of each request, wrapping at 64 bits."""
    total = np.zeros(len(blocks), dtype=np.int64)
    for place in range(int(blocks.max(initial=0))):
        inside = blocks > place
        total[inside] = total[inside] * 31 + stamps[starts[inside] + place]
    return total


def littles_law(rows: Rows) -> list[str]:
    """The time integral of the number of requests equals the sum of their latencies.

    Counted by sweeping over arrivals and completions, so a request that completes twice, or before
    it arrives, shows.
    """
    done = rows[rows[:, COLUMN['t_complete']] > 0]
    arrive, complete = done[:, COLUMN['t_arrive']], done[:, COLUMN['t_complete']]
    moments = np.concatenate([arrive, complete])
    change = np.concatenate([np.ones(len(arrive)), -np.ones(len(complete))]).astype(np.int64)
    by_time = np.argsort(moments, kind='stable')
    inside = np.cumsum(change[by_time])
    area = int((inside[:-1] * np.diff(moments[by_time])).sum())
    total = int((complete - arrive).sum())
    if area != total:
        return [f"Little's law: {area} request-cycles in the system, latencies sum to {total}"]
    return []


def utilisation(machine: Machine) -> list[str]:
    """Nobody is busy for longer than the run lasted."""
    span = int(machine.st[int(agents.H_NOW)])
    broken = []
    for name, busy in frame.busy_cycles(machine).items():
        room = span * frame.servers_of(machine, name)
        if busy > room:
            broken.append(f'utilisation: {name} was busy for {busy} of {room} cycles')
    return broken
