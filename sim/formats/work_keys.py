"""The keys of [workload]: one fio job. fio's names and meanings; what is ours alone says so."""

from dataclasses import dataclass
from typing import Any

from sim.formats.key import key
from sim.formats.work_values import Distribution, Pair, Sizes

DAY_NS = 86_400 * 10**9
REQUESTS_DEFAULT = 20_000  # of a clone that nothing else limits
AUTO: Any = None  # load() chooses, by the rest of the config
RATE_MAX = 10**12


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One fio job: numjobs clones of a thread, each on a vCPU of its own if there are enough."""

    name: str = key(AUTO, 'text', 'name of the job; auto is job1, job2, ...')
    rw: str = key(
        'randread', 'choice', 'direction and order of the I/O', alias='readwrite',
        choices=('read', 'write', 'randread', 'randwrite', 'rw', 'randrw'),
        synonyms={'readwrite': 'rw'},
    )  # fmt: skip

    # how long a request is
    bs: int = key(
        4096, 'sizes', 'bytes of a request, a multiple of 512; the smallest if they differ',
        low=512, alias='blocksize',
    )  # fmt: skip
    bsrange: Pair[Sizes] | None = key(
        None, 'bsrange', 'block sizes from a range; outranks bs', alias='blocksize_range'
    )
    bssplit: Pair[Sizes] | None = key(
        None, 'bssplit', 'block sizes by their shares in percent; outranks bs and bsrange'
    )

    # how many
    iodepth: int = key(
        AUTO, 'int', 'requests that a clone keeps in flight; auto is 1, to replay a trace 128',
        low=1, high=65536,
    )  # fmt: skip
    iodepth_low: int = key(
        AUTO, 'int', 'reap down to so many once all are in flight; auto is iodepth',
        low=1, high=65536,
    )  # fmt: skip
    iodepth_batch_submit: int = key(
        1, 'int', 'requests given to the kernel at once', low=1, high=65536, alias='iodepth_batch'
    )
    iodepth_batch_complete_min: int = key(
        1, 'int', 'completions to wait for', low=1, high=65536, alias='iodepth_batch_complete'
    )
    iodepth_batch_complete_max: int = key(
        AUTO, 'int', 'completions to take at once; auto is the minimum', low=1, high=65536
    )
    numjobs: int = key(1, 'int', 'clones of the job', low=1, high=1024)

    # where
    lun: int = key(0, 'int', 'number of the LUN that the job works on', high=0x3FFF)
    target: int = key(
        AUTO, 'int', 'the target (tpgt) of that LUN; auto is device.boot_tpgt', high=255
    )
    rwmixread: int = key(
        50, 'int', 'percent of reads in a mix (rwmixwrite: of writes)', high=100, alias='rwmixwrite'
    )
    size: int | None = key(
        None, 'extent', 'part of the LUN that is used; none is all of it', low=512
    )
    offset: int = key(0, 'extent', 'where that part begins')
    offset_increment: int = key(0, 'extent', 'and how much further for each clone')
    random_distribution: Distribution = key(
        Distribution(), 'distribution', 'which places random I/O prefers'
    )
    percentage_random: Pair[int] = key(
        Pair(100, 100), 'percents', 'of a random job, how much of the I/O is'
    )
    norandommap: bool = key(False, 'bool', 'random offsets may repeat within a pass')
    randseed: int | None = key(None, 'int', 'seed of the job; none is from run.seed')

    # how much
    io_size: int | None = key(
        None, 'extent', 'bytes to transfer, in as many passes as it takes; none is size', low=512
    )
    number_ios: int | None = key(None, 'count', 'requests a clone issues', low=1, high=10**9)
    loops: int = key(1, 'int', 'how often the job is done', low=1, high=10**6)
    runtime: int | None = key(None, 'time', 'longest time to run', unit='s', low=1, high=DAY_NS)
    time_based: bool = key(False, 'bool', 'start over at the end of size, until runtime is over')
    ramp_time: int = key(0, 'time', 'time to run before measuring', unit='s', high=DAY_NS)
    startdelay: int = key(0, 'time', 'time to wait before the job starts', unit='s', high=DAY_NS)

    # when
    io_submit_mode: str = key(
        'inline', 'choice', 'offload is an open loop: I/O arrives whatever completes',
        choices=('inline', 'offload'),
    )  # fmt: skip
    rate: Pair[int] | None = key(
        None, 'counts', 'bytes per second of a clone, in each direction', low=1, high=RATE_MAX
    )
    rate_iops: Pair[int] | None = key(
        None, 'counts', 'requests per second of a clone, in each direction', low=1, high=10**9
    )
    rate_process: str = key(
        'linear', 'choice', 'how a rate spaces requests', choices=('linear', 'poisson')
    )
    thinktime: int = key(0, 'time', 'pause after requests', unit='us', high=DAY_NS)
    thinktime_spin: int = key(
        0, 'time', 'part of the pause that burns the CPU', unit='us', high=DAY_NS
    )
    thinktime_blocks: int = key(
        AUTO, 'count', 'requests between two pauses; auto is 1, or none with thinktime_iotime',
        low=1, high=10**9,
    )  # fmt: skip
    thinktime_iotime: int = key(0, 'time', 'time between two pauses', unit='s', high=DAY_NS)
    burst_on: int = key(
        0, 'time', 'ours: I/O comes for so long, then pauses for burst_off', unit='us', high=DAY_NS
    )
    burst_off: int = key(0, 'time', 'ours: see burst_on', unit='us', high=DAY_NS)
    burst_ios: int = key(
        1, 'count', 'ours: so many requests come at once, at the same mean rate', low=1, high=10**6
    )

    # flushes
    fsync: int = key(0, 'count', 'writes between two flushes of the disk; 0 is none', high=10**9)
    fdatasync: int = key(0, 'count', 'the same, to a disk', high=10**9)
    end_fsync: bool = key(False, 'bool', 'a flush when the writing is done')

    # a trace to replay
    read_iolog: str | None = key(
        None, 'text', 'trace to replay: fio iolog, blkparse text or MSR Cambridge CSV'
    )
    read_iolog_sha256: str | None = key(
        AUTO, 'text', 'of the content of the trace; auto is what it has', pattern='[0-9a-f]{64}'
    )
    replay_time_scale: int = key(
        100, 'int', 'speed in percent: 200 is twice as fast', low=1, high=10**6
    )
    replay_no_stall: bool = key(False, 'bool', 'forget the times: a closed loop of iodepth')
    replay_scale: int = key(1, 'int', 'divide offsets by this', low=1, high=10**9)
    replay_align: int = key(
        512, 'size', 'round offsets down to this power of two', low=512, high=1 << 40
    )
    replay_skip: str | None = key(
        None, 'text', 'leave out: a list of read, write, trim, sync',
        pattern='(read|write|trim|sync)( *, *(read|write|trim|sync))*',
    )  # fmt: skip
    replay_action: str = key(
        'q', 'choice', 'ours: of blkparse text, requests as queued (Q) or as issued (D)',
        choices=('q', 'd'),
    )  # fmt: skip
    replay_wrap: bool = key(
        False, 'bool', 'ours: what lies beyond the end of the LUN starts over at its beginning'
    )

    ioengine: str = key(
        'libaio', 'choice', 'the system calls of the job', choices=('libaio', 'io_uring')
    )
    hipri: bool = key(
        False, 'bool', 'polled I/O: io_uring looks for completions instead of sleeping'
    )
    group_reporting: bool = key(False, 'bool', 'report the clones as one')
    stonewall: bool = key(False, 'bool', 'begin only when all jobs before it have ended')

    def sizes(self, write: bool) -> Sizes:
        """The block sizes of one direction, as fio aligns them."""
        for mix in (self.bssplit, self.bsrange):
            found = mix.of(write) if mix else None
            if found is not None:
                return found.aligned()
        return Sizes(((self.bs, 100),))

    @property
    def directions(self) -> tuple[bool, ...]:
        """Which the job goes in: False for reads, True for writes."""
        if self.rw in ('rw', 'randrw'):
            return (False, True)
        return (self.rw in ('write', 'randwrite'),)

    @property
    def largest(self) -> int:
        """Bytes of its longest request; a trace's are the replay's to say."""
        return max(self.sizes(write).most for write in self.directions)

    @property
    def one_size(self) -> bool:
        """Are all requests equally long?"""
        return len({size for w in self.directions for size, _ in self.sizes(w).entries}) == 1

    @property
    def byte_limit(self) -> int | None:
        """Bytes of one loop where their number and not that of the requests ends it."""
        if self.time_based or self.one_size or self.read_iolog:
            return None
        return self.io_size or self.size

    @property
    def io_limit(self) -> int | None:
        """Requests of one loop of a clone at most; None if bytes or time end it."""
        if self.time_based:
            return None
        limits = [] if self.number_ios is None else [self.number_ios]
        total = self.io_size or self.size
        if total is not None and self.one_size:
            limits.append(total // self.bs)
        if not limits and self.byte_limit is not None:
            return None
        return min(limits, default=REQUESTS_DEFAULT)
