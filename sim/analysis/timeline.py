"""A run as a timeline: slices on tracks, flows that tie the slices of a request, counters.

A slice is one stage of one request, from the timestamp before to the one that names it
(sim.record), on the track of whoever had the request then:

    submit      the job's thread: it waits for the driver
    avail kick  its vCPU: the driver puts it into the ring, and notifies
    fetch       the virtqueue: it is available, and nobody has looked
    issue       LIO's submission: vhost has it, and the work queue, until the disk does
    done        the disk: its queue, and service
    report      LIO's completion, until the vhost worker has it
    used        the vhost worker: the turn that it waits for, response, used ring
                (the other devices: the bdev of SPDK and its reactor, QEMU's block layer and its
                IOThread in the place of LIO and worker)
    irq         the virtqueue: it is used, and nobody has looked
    complete    the vector of the virtqueue: the handler

A stage that took no time has no slice. Where slices of a track would overlap without one holding
the other, it gets lanes, named by '#2' and so on.
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from sim import features
from sim.analysis.fio_times import places
from sim.config import Config
from sim.layout import VQ_REQUEST_FIRST
from sim.record import STAGES, TIMESTAMPS

Words = npt.NDArray[np.int64]

GUEST, RINGS, HOST, DISKS, CONTROL = 'guest', 'virtqueues', 'host', 'disks', 'control'
BUSY = (GUEST, CONTROL)  # a slice there may hold others, as a call holds calls
# Who has a request in the stages issue, report and used, by device.
BETWEEN = {
    'vhost-scsi': ('LIO submission', 'LIO completion', 'vhost worker'),
    'vhost-user-scsi': ('bdev submission', 'bdev completion', 'reactor'),
    'virtio-scsi': ('block layer submission', 'block layer completion', 'IOThread'),
}


@dataclass(frozen=True, kw_only=True)
class Action:
    """Something that control did: times in ns."""

    name: str
    start: int
    end: int
    arguments: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A stage of request `serial`, or with serial 0 an action of control; times in ns."""

    name: str
    start: int
    end: int
    serial: int = 0
    arguments: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Track:
    """One lane: `slices` nest, in the order of their starts, holders first."""

    group: str
    name: str
    slices: list[Slice]


@dataclass(frozen=True, kw_only=True)
class Counter:
    """How many there are, from each time (ns) on."""

    group: str
    name: str
    times: Words
    values: Words


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """All of a run; `about` is what it is of."""

    tracks: list[Track]
    counters: list[Counter]
    about: dict[str, str]


def timeline(
    config: Config, requests: pd.DataFrame, actions: Sequence[Action] = (), about: str = ''
) -> Timeline:
    """The timeline of a full frame of requests (sim.analysis.frame.request_frame)."""
    clones = {number: (job, vcpu) for number, job, vcpu in places(config)}
    found: dict[tuple[str, str], list[Slice]] = {}
    times = [requests[f'{name}_ns'] for name in TIMESTAMPS]
    there = [column.notna().to_numpy() for column in times]
    ns = [column.fillna(0).to_numpy(dtype=np.int64).tolist() for column in times]
    facts = _facts(requests)
    stack = features.STACKS[config.device.driver]
    submission, completion, server = BETWEEN[stack]
    worker_of = {
        vq - VQ_REQUEST_FIRST: number
        for number, group in enumerate(config.worker_vqs if stack == 'vhost-scsi' else ())
        for vq in group
    }
    clone = requests['clone'].tolist()
    for row, fact in enumerate(facts):
        job, vcpu = clones[clone[row]]
        queue = int(str(fact['queue']))
        lun = config.lun_of(config.jobs[job])
        homes = {
            'submit': (GUEST, f'{config.jobs[job].name} {clone[row]}: waiting'),
            'avail': (GUEST, f'vCPU {vcpu}'),
            'kick': (GUEST, f'vCPU {vcpu}'),
            'fetch': (RINGS, f'queue {queue}: available'),
            'issue': (HOST, submission),
            'done': (DISKS, f'lun {config.disks[lun].number}'),
            'report': (HOST, completion),
            'used': (HOST, f'{server} {worker_of.get(queue, 0)}'),
            'irq': (RINGS, f'queue {queue}: used'),
            'complete': (GUEST, f'vector of queue {queue}'),
        }
        for place, stage in enumerate(STAGES):
            if not (there[place][row] and there[place + 1][row]):
                continue
            start, end = ns[place][row], ns[place + 1][row]
            if start < end:
                found.setdefault(homes[stage], []).append(
                    Slice(
                        name=stage,
                        start=start,
                        end=end,
                        serial=int(str(fact['serial'])),
                        arguments=fact,
                    )
                )
    for action in actions:
        found.setdefault((CONTROL, 'QEMU'), []).append(Slice(**vars(action)))
    order = {group: index for index, group in enumerate((CONTROL, GUEST, RINGS, HOST, DISKS))}
    tracks = [
        Track(group=group, name=name if not lane else f'{name} #{lane + 1}', slices=slices)
        for (group, name), slices in sorted(
            found.items(), key=lambda item: (order[item[0][0]], item[0][1])
        )
        for lane, slices in enumerate(lanes(slices, nest=_nests(group, name)))
    ]
    return Timeline(
        tracks=tracks, counters=counters(config, requests), about={'run': about or config.id}
    )


def _nests(group: str, name: str) -> bool:
    return group in BUSY and not name.endswith(': waiting')


def _facts(requests: pd.DataFrame) -> list[dict[str, object]]:
    names = ('serial', 'queue', 'op', 'lba', 'bytes', 'kick', 'irq', 'outcome')
    columns = [requests[name].tolist() for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def lanes(slices: Sequence[Slice], *, nest: bool) -> list[list[Slice]]:
    """Slices on as few lanes as a greedy choice needs, so that on each they follow or nest.

    Without `nest` they only follow each other.
    """
    found: list[list[Slice]] = []
    open_ends: list[list[int]] = []  # per lane, ends of the slices that hold the next one
    for item in sorted(slices, key=lambda s: (s.start, -s.end, s.serial)):
        for lane, ends in zip(found, open_ends, strict=True):
            while ends and ends[-1] <= item.start:
                ends.pop()
            if not ends or (nest and item.end <= ends[-1]):
                lane.append(item)
                ends.append(item.end)
                break
        else:
            found.append([item])
            open_ends.append([item.end])
    return found


def counters(config: Config, requests: pd.DataFrame) -> list[Counter]:
    """Requests between two timestamps: waiting, in flight, in rings, on the way, on each disk."""
    jobs = {number: job for number, job, _ in places(config)}
    luns = {number: config.lun_of(config.jobs[job]) for number, job in jobs.items()}
    disk = requests['clone'].map(luns)
    wanted = [
        (GUEST, 'backlog', requests, 't_arrive', 't_submit'),
        (GUEST, 'in flight', requests, 't_submit', 't_complete'),
        *(
            (RINGS, f'queue {queue}: depth', part, 't_avail', 't_fetch')
            for queue, part in requests.groupby('queue')
        ),
        (HOST, 'between ring and disk', requests, 't_fetch', 't_issue'),
        *(
            (DISKS, f'lun {config.disks[lun].number}: in flight', part, 't_issue', 't_done')
            for lun, part in requests.groupby(disk)
        ),
    ]
    return [counter(group, name, part, a, b) for group, name, part, a, b in wanted]


def counter(group: str, name: str, requests: pd.DataFrame, begin: str, end: str) -> Counter:
    """How many requests have reached `begin` and not yet `end`; changes only."""
    first = requests[f'{begin}_ns'].dropna().to_numpy(dtype=np.int64)
    last = requests.loc[requests[f'{begin}_ns'].notna(), f'{end}_ns']
    gone = last.dropna().to_numpy(dtype=np.int64)
    times, where = np.unique(np.concatenate([first, gone]), return_inverse=True)
    change = np.repeat(np.array([1, -1]), [first.size, gone.size])
    values = np.cumsum(np.bincount(where, weights=change, minlength=times.size)).astype(np.int64)
    kept = np.ones(times.size, dtype=bool)
    kept[1:] = values[1:] != values[:-1]
    return Counter(group=group, name=name, times=times[kept], values=values[kept])


def value_at(counter: Counter, time: int) -> int:
    """What a counter shows at a time, ns."""
    place = bisect.bisect_right(counter.times.tolist(), time)
    return int(counter.values[place - 1]) if place else 0
