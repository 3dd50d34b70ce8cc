"""From the keys of [target] to the words of a disk's stretch."""

import math
from collections.abc import Callable

from sim import rng
from sim.agents import NEVER
from sim.disks import fields, service
from sim.disks.events import HEAP_WORDS
from sim.formats.disk_keys import Target
from sim.formats.spread import PPM, Spread
from sim.units import ns_to_cycles

SECTOR = 512
CACHED_WRITES_MAX = 4096  # accesses in the cache of a disk with a head, 4 KiB each at least

Take = Callable[[int], int]  # hands out that many words, returns the first
Put = Callable[[int, int, int], None]  # (base, field, value)

KINDS = {'ssd': fields.SSD, 'hdd': fields.HDD, 'python': fields.OUTSIDE}
SCHEDULERS = {'fifo': fields.FIFO, 'sstf': fields.SSTF, 'sptf': fields.SPTF}


class DiskPlan:
    """Writes one disk into the state of the agents.

    `commands` is how many it may hold at one time, beside as many that a stop has left behind;
    `null_service` the cycles of the null medium.
    """

    def __init__(
        self, take: Take, put: Put, base: int, target: Target, *, hz: int, seed: int, lun: int = 0
    ) -> None:
        self.take, self._put, self.base, self.target = take, put, base, target
        self.hz, self.seed, self.lun = hz, seed, lun

    def write(self, *, commands: int, null_service: int) -> None:
        """All of it but its slot and who gets its completions."""
        target = self.target
        lanes = self.lanes(commands)
        values = {
            fields.D_KIND: KINDS.get(target.kind, fields.LANES),
            fields.D_HEAP: self.take(HEAP_WORDS * (2 * commands + 2 * lanes + 2)),
            fields.D_BLOCKS: target.size // SECTOR,
            fields.D_HZ: self.hz,
            fields.D_LANES: lanes,
            fields.D_LANE_FREE: self.take(lanes),
            fields.D_SERVICE: self.lane_service(null_service),
            fields.D_WAIT_HEAD: -1,
            fields.D_FLUSH_HEAD: -1,
            fields.D_NETWORK: self.network() if target.network_round_trip else 0,
            fields.D_FAULTS: self.faults(),
        }
        if target.kind in ('lanes', 'empirical', 'ssd'):
            values[fields.D_SERIAL] = self.cycles(target.serial)
        if target.kind in ('ssd', 'hdd'):
            values |= {
                fields.D_BANDWIDTH: target.bandwidth if target.kind == 'ssd' else 0,
                fields.D_COMMAND_TIME: self.cycles(target.command_time),
                fields.D_CACHE: target.write_cache,
                fields.D_CACHE_SERVICE: self.spread('cache', target.cache_time),
                fields.D_VOLATILE: int(has_volatile_cache(target)),
                fields.D_PART: self.ssd() if target.kind == 'ssd' else self.hdd(commands),
            }
        self.put(self.base, values)

    def put(self, base: int, values: dict) -> None:
        """Fields of one stretch."""
        for name, value in values.items():
            self._put(base, int(name), value)

    def cycles(self, ns: int) -> int:
        """Cycles of the run's clock."""
        return int(ns_to_cycles(ns, self.hz))

    def key(self, name: str) -> int:
        """The stream of draws of that name."""
        return rng.stream_key(self.seed, f'target.lun{self.lun}.{name}')

    def lanes(self, commands: int) -> int:
        """How many commands, or dies, are served at one time."""
        own = {'null': commands, 'ssd': self.target.dies, 'hdd': 1}
        return own.get(self.target.kind, self.target.lanes)

    # ---- services

    def lane_service(self, null_service: int) -> int:
        """How long a command stays in its lane, or a read in its die."""
        target = self.target
        if target.kind == 'null':
            return self.service('service', service.CONSTANT, null_service)
        if target.kind == 'ssd':
            return self.spread('read', target.read_time)
        if target.kind == 'empirical' and target.quantiles is not None:
            return self.spread('service', target.quantiles)
        constant = target.kind == 'constant' or (
            target.kind == 'lanes' and target.distribution == 'constant'
        )
        form = service.CONSTANT if constant else service.EXPONENTIAL
        return self.service('service', form, self.cycles(target.service))

    def service(self, stream: str, form: int, mean: int, table: int = 0) -> int:
        """A service; returns its base."""
        base = self.take(fields.SERVICE_WORDS)
        self.put(base, {
            fields.S_FORM: form,
            fields.S_MEAN: mean,
            fields.S_TABLE: table,
            fields.S_KEY: self.key(stream),
        })  # fmt: skip
        return base

    def spread(self, stream: str, spread: Spread) -> int:
        """The service that a random time of the config means."""
        if spread.form != 'quantiles':
            form = service.CONSTANT if spread.form == 'constant' else service.EXPONENTIAL
            return self.service(stream, form, self.cycles(spread.points[0][1]))
        table = self.take(2 * len(spread.points))
        for place, (ppm, ns) in enumerate(spread.points):
            share = (ppm * (1 << service.PROBABILITY_BITS) + PPM // 2) // PPM
            self.put(table + 2 * place, {0: share, 1: self.cycles(ns)})
        return self.service(stream, service.QUANTILES, 0, table)

    # ---- parts

    def ssd(self) -> int:
        """Flash: what only an SSD has."""
        target = self.target
        base, dies = self.take(fields.SSD_WORDS), self.take(fields.DIE_WORDS * target.dies)
        for number in range(target.dies):  # collections come in turns, as after long writing
            written = target.gc_every * number // target.dies
            at = dies + fields.DIE_WORDS * number
            self.put(at, {fields.Y_PAGE: -1, fields.Y_WRITTEN: written})
        self.put(base, {
            fields.I_STRIPE: target.stripe,
            fields.I_UNIT: target.program_unit,
            fields.I_PROGRAM: self.spread('program', target.program_time),
            fields.I_DIES: dies,
            fields.I_GC_EVERY: target.gc_every,
            fields.I_GC_TIME: self.cycles(target.gc_time),
            fields.I_BACKGROUND_EVERY: self.cycles(target.background_every),
            fields.I_BACKGROUND_TIME: self.cycles(target.background_time),
            fields.I_BACKGROUND_NEXT: self.cycles(target.background_every),
            fields.I_BACKGROUND_KEY: self.key('background'),
        })  # fmt: skip
        return base

    def hdd(self, commands: int) -> int:
        """Platter, head and queue."""
        target = self.target
        base = self.take(fields.HDD_WORDS)
        seeks = seek_times(target, self.hz)
        table = self.take(len(seeks))
        self.put(table, dict(enumerate(seeks)))
        cached = min(-(-target.write_cache // 4096), CACHED_WRITES_MAX)
        self.put(base, {
            fields.M_PERIOD: 60 * self.hz // target.rpm,
            fields.M_TRACK_BLOCKS: target.track // SECTOR,
            fields.M_SEEK: table,
            fields.M_SKEW: self.cycles(target.seek_min),
            fields.M_SETTLE_WRITE: self.cycles(target.settle_write),
            fields.M_SCHEDULER: SCHEDULERS[target.scheduler],
            fields.M_NCQ: target.ncq,
            fields.M_QUEUE: self.take(fields.ACCESS_WORDS * (2 * commands + cached + 1)),
            fields.M_CACHED_ROOM: cached,
            fields.M_READ_AHEAD: target.read_ahead // SECTOR,
            fields.M_BUFFER_STOP: 0,
        })  # fmt: skip
        return base

    def network(self) -> int:
        """What lies between host and disk."""
        target = self.target
        base = self.take(fields.NETWORK_WORDS)
        self.put(base, {
            fields.N_ONE_WAY: self.cycles(target.network_round_trip) // 2,
            fields.N_JITTER: self.cycles(target.network_jitter),
            fields.N_BANDWIDTH: target.network_bandwidth,
            fields.N_LOSS: (target.network_loss << 32) // 10**6,
            fields.N_RTO: self.cycles(target.network_rto),
            fields.N_KEY: self.key('network'),
        })  # fmt: skip
        return base

    def faults(self) -> int:
        """What goes wrong; 0 where nothing does."""
        target = self.target
        if not (target.error_at or target.stuck_at or target.slow_for):
            return 0
        base = self.take(fields.FAULT_WORDS)
        self.put(base, {
            fields.F_ERROR_AT: target.error_at,
            fields.F_ERROR_COUNT: target.error_count,
            fields.F_STUCK_AT: target.stuck_at,
            fields.F_STUCK_FOR: self.cycles(target.stuck_for) if target.stuck_for else NEVER,
            fields.F_STUCK_COMMAND: -1,
            fields.F_SLOW_FROM: self.cycles(target.slow_from),
            fields.F_SLOW_UNTIL: self.cycles(target.slow_from + target.slow_for),
            fields.F_SLOW_BY: target.slow_by,
        })  # fmt: skip
        return base


def has_volatile_cache(target: Target) -> bool:
    """Does the disk tell its host of a write cache that a power cut empties?"""
    return target.has_volatile_cache


def seek_times(target: Target, hz: int) -> list[int]:
    """Cycles of a seek over d tracks, d = 0 ... number of tracks - 1.

    seek_min + (seek_max - seek_min) * sqrt(d / (tracks - 1)), rounded down; 0 for d = 0.
    """
    tracks = -(-target.size // target.track)
    least, most = (int(ns_to_cycles(ns, hz)) for ns in (target.seek_min, target.seek_max))
    span = (most - least) ** 2
    return [0, *(least + math.isqrt(span * d // (tracks - 1)) for d in range(1, tracks))]
