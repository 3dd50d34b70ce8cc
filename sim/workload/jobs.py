"""From a Workload to the words of its clones: what app, places and arrivals read."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim import rng
from sim.agents import NEVER
from sim.config import Config, Workload
from sim.driver.affinity import queue_of
from sim.formats.replay import Replay
from sim.formats.work_values import Distribution, Sizes
from sim.units import ns_to_cycles
from sim.workload import job_fields as fields
from sim.workload import skew
from sim.workload.places import SHARE_BITS

SECTOR = 512

Values = list[tuple[np.uint64, int]]
Put = Callable[[int, Values], None]  # values of a stretch by its base
Place = Callable[[Sequence[int] | npt.NDArray[np.int64]], int]  # where a table is put


@dataclass(frozen=True, kw_only=True)
class JobPlan:
    """One clone of a job: on which vCPU it runs, in which phase, and where its stretch begins."""

    number: int
    job: int  # index in config.jobs
    phase: int
    vcpu: int
    workload: Workload
    base: int

    @property
    def io_limit(self) -> int | None:
        """Requests that it issues at most; None if bytes or time end it."""
        limit = self.workload.io_limit
        return None if limit is None else limit * self.workload.loops


@dataclass(kw_only=True)
class JobBuilder:
    """Lays out the jobs of a config in the words of the agents' state.

    `queues` are the bases of the request queues, `luns` those of the guest's LUNs in the order of
    config.disks, `vcpus` those of the vCPUs. `take` hands out words, `put` and `place` say what
    shall stand in them.
    """

    config: Config
    queues: Sequence[int]
    luns: Sequence[int]
    vcpus: Sequence[int]
    take: Callable[[int], int]
    put: Put
    place: Place

    def plans(self) -> list[JobPlan]:
        """Every clone of every job, laid out."""
        self.traces: dict[int, int] = {}
        plans: list[JobPlan] = []
        for phase, members in enumerate(self.config.phases):
            vcpu = 0
            for job in members:
                for clone in range(self.config.jobs[job].numjobs):
                    plans.append(
                        JobPlan(
                            number=len(plans),
                            job=job,
                            phase=phase,
                            vcpu=vcpu % self.config.guest.vcpus,
                            workload=self.config.jobs[job],
                            base=self.lay_out(
                                len(plans), job, clone, vcpu % self.config.guest.vcpus
                            ),
                        )
                    )
                    vcpu += 1
        return plans

    def lay_out(self, number: int, job: int, clone: int, vcpu: int) -> int:
        """One clone; returns the base of its stretch."""
        work, replay = self.config.jobs[job], self.config.replays[job]
        base = self.take(fields.JOB_WORDS)
        seed = self.config.run.seed if work.randseed is None else work.randseed

        def key(name: str) -> int:
            return rng.stream_key(seed, f'job{job}.{clone}.{name}')

        lun = self.config.lun_of(work)
        disk = self.config.disks[lun].disk
        first = work.offset + work.offset_increment * clone
        part = (work.size or disk.size - first) // SECTOR
        queue = self.queue_of(work, vcpu)
        self.put(
            base,
            [
                (fields.J_NUMBER, number),
                (fields.J_QUEUE, queue),
                (fields.J_QUEUE_BASE, self.queues[queue]),
                (fields.J_POLLED, int(work.hipri)),
                (fields.J_VCPU, self.vcpus[vcpu]),
                (fields.J_AT, NEVER),
                (fields.J_READY_SINCE, NEVER),
                (fields.J_TAG, -1),
                (fields.J_URING, int(work.ioengine == 'io_uring')),
                (fields.J_WRITE_PERCENT, write_percent(work)),
                (fields.J_PLAIN, int(is_plain(work))),
                (fields.J_BASE, first // SECTOR),
                (fields.J_BLOCKS, part),
                (fields.J_KEY_PLACE, key('place')),
                (fields.J_KEY_MIX, key('mix')),
                (fields.J_KEY_ARRIVAL, key('arrival')),
                (fields.J_KEY_SIZE, key('size')),
                (fields.J_KEY_ORDER, key('order')),
                *self.units(work),
                (fields.J_LUN, self.luns[lun]),
                *self.limits(work, replay, disk.has_volatile_cache),
                *self.times(work, replay),
                *self.trace(job, replay),
            ],
        )
        center = key('center')
        for write in work.directions:
            self.direction(base, work, write, part, center)
        return base

    def queue_of(self, work: Workload, vcpu: int) -> int:
        """The request queue of a clone: polled I/O has queues of its own, the last ones."""
        vcpus, polled = self.config.guest.vcpus, self.config.polled_queues
        irq = len(self.queues) - polled
        return irq + queue_of(vcpu, vcpus, polled) if work.hipri else queue_of(vcpu, vcpus, irq)

    def units(self, work: Workload) -> Values:
        """iodepth units, all free, and the lists that they go through."""
        depth = work.iodepth
        return [
            (fields.J_DEPTH, depth),
            (fields.J_BATCH, work.iodepth_batch_submit),
            (fields.J_REAP_MIN, work.iodepth_batch_complete_min),
            (fields.J_REAP_MAX, work.iodepth_batch_complete_max),
            (fields.J_FREE_WANTED, 1),
            (fields.J_FREE_LOW, max(1, depth - work.iodepth_low)),
            (fields.J_FREE_COUNT, depth),
            (fields.J_FREE_LIST, self.place(range(depth - 1, -1, -1))),
            (fields.J_PREPARED_LIST, self.take(depth)),
            (fields.J_DONE_LIST, self.take(depth)),
            (fields.J_UNITS, self.take(int(fields.UNIT_WORDS) * depth)),
        ]

    def limits(self, work: Workload, replay: Replay | None, flushes: bool) -> Values:
        """What ends a loop, and how many loops there are."""
        limit, loops = work.io_limit, work.loops - 1
        if replay is not None:
            limit = min(replay.op.size, work.number_ios or NEVER)
            loops = NEVER if work.time_based else loops
        limit = NEVER if limit is None else limit
        loop_bytes = work.byte_limit or 0
        hz = self.config.host.cpu_hz
        stops = work.runtime is not None
        runtime = ns_to_cycles(work.ramp_time + work.runtime, hz) if work.runtime else 0
        return [
            (fields.J_LIMIT, limit),
            (fields.J_LOOP_LIMIT, limit),
            (fields.J_LOOPS, loops),
            (fields.J_BYTES_LEFT, loop_bytes),
            (fields.J_LOOP_BYTES, loop_bytes),
            (fields.J_RUNTIME, runtime if stops else NEVER),
            (fields.J_FSYNC, work.fsync * flushes),
            (fields.J_FDATASYNC, work.fdatasync * flushes),
            (fields.J_END_FSYNC, int(work.end_fsync and flushes)),
        ]

    def times(self, work: Workload, replay: Replay | None) -> Values:
        """Pauses, bursts, and whether the loop is open."""
        hz = self.config.host.cpu_hz
        rated = work.rate or work.rate_iops
        opened = replay.timed if replay is not None else work.io_submit_mode == 'offload'
        paced = fields.PACE_THINK if work.thinktime else 0
        paced |= fields.PACE_RATE if rated else 0
        paced |= fields.PACE_BURST if work.burst_on and not rated else 0
        return [
            (fields.J_OPEN, int(opened)),
            (fields.J_PACED, paced),
            (fields.J_START_DELAY, ns_to_cycles(work.startdelay, hz)),
            (fields.J_THINK, ns_to_cycles(work.thinktime, hz)),
            (fields.J_THINK_SPIN, ns_to_cycles(work.thinktime_spin, hz)),
            (fields.J_THINK_BLOCKS, work.thinktime_blocks or 0),
            (fields.J_THINK_IOTIME, ns_to_cycles(work.thinktime_iotime, hz)),
            (fields.J_BURST_ON, ns_to_cycles(work.burst_on, hz)),
            (fields.J_BURST_OFF, ns_to_cycles(work.burst_off, hz)),
            (fields.J_BURST_IOS, work.burst_ios),
        ]

    def trace(self, job: int, replay: Replay | None) -> Values:
        """The trace that the clones of a job replay; it stands there once."""
        if replay is None:
            return []
        if job not in self.traces:
            cycles = ns_to_cycles(replay.t_ns, self.config.host.cpu_hz)
            columns = [cycles, replay.op, replay.lba, replay.blocks]
            self.traces[job] = self.place(np.column_stack(columns).reshape(-1))
        return [(fields.J_REPLAY, self.traces[job]), (fields.J_REPLAY_COUNT, replay.op.size)]

    def direction(self, base: int, work: Workload, write: bool, part: int, center: int) -> None:
        """Sizes, places and rate of one direction; `part` blocks are the job's."""
        sizes = work.sizes(write)
        unit = sizes.least // SECTOR
        places = part // unit
        percent = work.percentage_random.of(write)
        plain = pattern_of(work) == fields.MAPPED and percent == 100 and work.one_size
        self.put(
            base + int(fields.J_DIRECTIONS) + int(fields.DIRECTION_WORDS) * write,
            [
                (fields.F_USED, 1),
                (fields.F_PLAIN, int(plain)),
                (fields.F_PATTERN, pattern_of(work)),
                (fields.F_PERCENT_RANDOM, 100 if percent is None else percent),
                (fields.F_UNIT, unit),
                (fields.F_REGION, places),
                (fields.F_REGION_BITS, rng.bits_below(places)),
                *self.sizes(sizes),
                *self.skew(work.random_distribution, places, sizes.least, center),
                *self.rate(work, write),
            ],
        )

    def sizes(self, sizes: Sizes) -> Values:
        """A range, or a table of cumulative shares and blocks."""
        if sizes.least == sizes.most:
            return []
        if sizes.is_range:
            return [(fields.F_SIZES, fields.RANGE), (fields.F_SIZE_MAX, sizes.most // SECTOR)]
        words: list[int] = []
        total = 0
        for size, percent in sizes.entries:
            total += percent
            words += [(total << SHARE_BITS) // 100, size // SECTOR]
        return [(fields.F_SIZES, self.place(words))]

    def skew(self, spread: Distribution, places: int, unit: int, center: int) -> Values:
        """The table of a distribution, and by how much it is turned (random_distribution=...:c)."""
        if spread.form == 'random':
            return []
        if spread.zones:
            rows = spread.zone_table(places, unit)
            return [(fields.F_TABLE, self.place([word for row in rows for word in row]))]
        if spread.form == 'normal':
            turn = 0 if spread.center is None else int(places * (2 * spread.center - 1) / 2)
            deviation = min(math.ceil(places * spread.value / 100), places // 2)
            return [(fields.F_OFFSET, turn % places), (fields.F_DEVIATION, deviation)]
        make = skew.zipf_table if spread.form == 'zipf' else skew.pareto_table
        turn = int(rng.below(np.int64(center), 0, places))
        if spread.center is not None:
            turn = int(places * spread.center)
        return [
            (fields.F_TABLE, self.place(make(spread.value, places))),
            (fields.F_OFFSET, turn),
        ]

    def rate(self, work: Workload, write: bool) -> Values:
        """Cycles between two I/Os of a rated direction, as fio's usec_for_io() has them.

        Linear: the time that the bytes take at the rate; a bssplit with rate_iops goes by requests
        instead. Poisson: by requests of the smallest size.
        """
        least, hz = work.sizes(write).least, self.config.host.cpu_hz
        iops = work.rate_iops.of(write) if work.rate_iops else None
        per_second = iops * least if iops else (work.rate.of(write) if work.rate else None)
        if per_second is None:
            return []
        by_requests = bool(iops) and (work.one_size or not work.sizes(write).is_range)
        mean = (hz * least * work.burst_ios + per_second // 2) // per_second
        return [
            (fields.F_RATED, 1),
            (fields.F_POISSON, int(work.rate_process == 'poisson')),
            (fields.F_GAP, hz if by_requests else hz * SECTOR),
            (fields.F_GAP_PER_BLOCK, int(not by_requests)),
            (fields.F_RATE, iops if by_requests and iops else per_second),
            (fields.F_MEAN, mean),
        ]


def write_percent(work: Workload) -> int:
    """Of a hundred requests so many are writes."""
    if work.rw in ('rw', 'randrw'):
        return 100 - work.rwmixread
    return 100 if work.rw in ('write', 'randwrite') else 0


def pattern_of(work: Workload) -> int:
    """Where requests go, as sim.workload.places knows it."""
    if not work.rw.startswith('rand'):
        return fields.SEQUENTIAL
    form = work.random_distribution.form
    if form == 'random':
        return fields.UNIFORM if work.norandommap else fields.MAPPED
    return {
        'zipf': fields.SKEWED,
        'pareto': fields.SKEWED,
        'normal': fields.NORMAL,
        'zoned': fields.ZONED,
        'zoned_abs': fields.ZONED,
    }[form]


def is_plain(work: Workload) -> bool:
    """Does nothing but a free unit hold up the next I/O, and nothing but a read or write come?"""
    special = work.rate or work.rate_iops or work.thinktime or work.fsync or work.fdatasync
    return not (special or work.end_fsync or work.read_iolog or work.byte_limit)
