"""The requests of a run as fio would have measured them, by clone of a job and by direction.

    lat   t_reap - t_arrive: from the moment the job prepared the I/O (io_u->start_time; in an open
          loop when it was due) until io_getevents() gave it back
    slat  t_kick - t_arrive: until its kick had left the guest, which is where io_submit() is about
          to return (io_u->issue_time); where no kick was needed, until it stood in the ring
    clat  t_reap - t_kick: the rest

so slat + clat = lat for each request, as in fio (io_u.c: account_io_completion).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from sim.config import Config
from sim.record import OPS

Words = npt.NDArray[np.int64]

DIRECTIONS = OPS[:2]
NS_PER_MS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Part:
    """Requests in the order in which they were reaped; all arrays of one length, int64, ns."""

    arrive: Words
    submit: Words
    kick: Words
    reap: Words
    size: Words  # bytes
    offset: Words  # bytes
    write: npt.NDArray[np.bool_]
    serial: Words

    @property
    def slat(self) -> Words:
        """Submission latencies, ns."""
        return self.kick - self.arrive

    @property
    def clat(self) -> Words:
        """Completion latencies, ns."""
        return self.reap - self.kick

    @property
    def lat(self) -> Words:
        """Total latencies, ns."""
        return self.reap - self.arrive

    def times(self, kind: str) -> Words:
        """By name: slat, clat, lat."""
        found: Words = getattr(self, kind)
        return found

    def of(self, direction: str) -> 'Part':
        """Those of one direction, or of both ('mixed')."""
        if direction == 'mixed':
            return self
        return self.where(self.write == (direction == 'write'))

    def where(self, chosen: npt.NDArray[np.bool_]) -> 'Part':
        """Those of a mask."""
        return Part(**{name: column[chosen] for name, column in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Clone:
    """One clone of a job; `epoch`: when it began, ns; `failed`: requests without outcome ok."""

    number: int  # in the run, from 0
    job: int
    vcpu: int
    epoch: int
    part: Part
    flushes: Part
    failed: int

    @property
    def began(self) -> int:
        """When what is reported began: the first arrival, ns."""
        firsts = [int(p.arrive.min()) for p in (self.part, self.flushes) if p.arrive.size]
        return min(firsts, default=self.epoch)

    @property
    def runtime(self) -> int:
        """From there to the last reaping, ns."""
        lasts = [int(p.reap.max()) for p in (self.part, self.flushes) if p.reap.size]
        return max(lasts, default=self.began) - self.began


def clones_of(config: Config, requests: pd.DataFrame) -> list[Clone]:
    """Every clone of a run, from a full frame of its requests (sim.analysis.frame.request_frame).

    fio leaves out what ramp_time says and nothing else: so does this, unless run.warmup is a
    number.
    """
    chosen = requests['t_reap_ns'].notna()
    if config.run.warmup.isdecimal() or any(job.ramp_time for job in config.jobs):
        chosen &= requests['measured']
    columns = {
        name: requests[column].fillna(0).to_numpy(dtype=np.int64)
        for name, column in (
            ('arrive', 't_arrive_ns'),
            ('submit', 't_submit_ns'),
            ('kick', 't_kick_ns'),
            ('reap', 't_reap_ns'),
            ('size', 'bytes'),
            ('offset', 'lba'),
            ('serial', 'serial'),
        )
    }
    # What the driver gave up before it stood in a ring has no kick: all of its time is slat.
    columns['kick'] = np.where(requests['t_kick_ns'].isna(), columns['reap'], columns['kick'])
    columns['offset'] = columns['offset'] * 512
    everything = Part(write=(requests['op'] == 'write').to_numpy(dtype=bool), **columns)
    order = np.lexsort((everything.serial, everything.reap))
    flush = (requests['op'] == 'flush').to_numpy(dtype=bool)
    failed = (requests['outcome'] != 'ok').to_numpy(dtype=bool)
    number = requests['clone'].to_numpy(dtype=np.int64)
    mask = chosen.to_numpy(dtype=bool)

    def part(members: npt.NDArray[np.bool_]) -> Part:
        kept = order[members[order]]
        return Part(**{name: column[kept] for name, column in vars(everything).items()})

    found = []
    for clone, job, vcpu in places(config):
        mine = number == clone
        epoch = int(everything.arrive[mine].min()) if mine.any() else 0
        found.append(
            Clone(
                number=clone,
                job=job,
                vcpu=vcpu,
                epoch=epoch,
                part=part(mine & mask & ~flush),
                flushes=part(mine & mask & flush),
                failed=int((mine & mask & failed).sum()),
            )
        )
    return found


def places(config: Config) -> Iterator[tuple[int, int, int]]:
    """Number, job and vCPU of each clone, in the order in which sim.workload.jobs lays them out."""
    number = 0
    for members in config.phases:
        vcpu = 0
        for job in members:
            for _ in range(config.jobs[job].numjobs):
                yield number, job, vcpu % config.guest.vcpus
                number, vcpu = number + 1, vcpu + 1


def joined(parts: Sequence[Part]) -> Part:
    """Several clones together, in the order of reaping."""
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])
    }
    order = np.lexsort((columns['serial'], columns['reap']))
    return Part(**{name: column[order] for name, column in columns.items()})


def window_samples(
    part: Part, began: int, runtime: int, window_ms: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """KiB/s and requests per second in each whole window; a tenth of the run if that is shorter."""
    window = min(window_ms * NS_PER_MS, max(runtime // 10, 1))
    count = runtime // window
    if not part.reap.size or not count:
        return np.zeros(0), np.zeros(0)
    at = np.minimum((part.reap - began) // window, count)  # what is left over comes last
    sizes = np.bincount(at, weights=part.size, minlength=count + 1)[:count]
    number = np.bincount(at, minlength=count + 1)[:count]
    seconds = window / 1e9
    return np.floor(sizes / seconds / 1024), np.floor(number / seconds)
