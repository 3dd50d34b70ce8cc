"""The keys of [target]: the disk behind LIO. docs/reference/disks.md has the models behind them."""

from dataclasses import dataclass
from typing import Any

from sim.formats.key import key
from sim.formats.spread import Spread

MS, S = 10**6, 10**9
AUTO: Any = None  # load() chooses, by the rest of the config


@dataclass(frozen=True, kw_only=True)
class Target:
    """The disk behind LIO. The keys that its kind does not use keep their defaults."""

    disk: str | None = key(
        None, 'text', 'a disk preset: its name or a path of a TOML file; single keys outrank it'
    )
    kind: str = key(
        'constant', 'choice', 'model of the disk',
        choices=('null', 'constant', 'exponential', 'lanes', 'empirical', 'ssd', 'hdd', 'python'),
    )  # fmt: skip
    component: str | None = key(
        None, 'text', 'the disk of kind python: module:function, see docs/howto/disk-in-python.md',
        pattern=r'[A-Za-z_][\w.]*:[A-Za-z_]\w*',
    )  # fmt: skip
    luns: int = key(
        1, 'int', 'LUNs alike, numbered from 0, each with a disk of its own', low=1, high=256
    )
    size: int = key(
        8 << 30, 'size', 'capacity of the LUN, a multiple of 512', low=1 << 20, high=256 << 30
    )

    # lanes and one serial stage
    service: int = key(80_000, 'time', 'mean time of a request in a lane', low=1, high=100 * S)
    lanes: int = key(32, 'int', 'requests served at one time', low=1, high=4096)
    serial: int = key(0, 'time', 'time of a request that no other shares', high=100 * S)
    distribution: str = key(
        'exponential', 'choice', 'of service', choices=('constant', 'exponential')
    )
    quantiles: Spread | None = key(
        None, 'spread', 'percentiles of the time in a lane, p0 ... p100', high=10 * S
    )

    # solid-state
    dies: int = key(32, 'int', 'flash dies; each does one thing at a time', low=1, high=1024)
    stripe: int = key(16384, 'size', 'bytes that one page read brings', low=512, high=1 << 24)
    read_time: Spread = key(
        Spread('constant', ((0, 60_000),)), 'spread', 'time of a page read', high=10 * S
    )
    program_time: Spread = key(
        Spread('constant', ((0, 600_000),)), 'spread', 'time to program one unit', high=10 * S
    )
    program_unit: int = key(
        32768, 'size', 'bytes that a die programs at once', low=512, high=1 << 26
    )
    power_loss_protection: bool = key(
        False, 'bool', 'the write cache outlives a power cut, so a flush need not wait'
    )
    gc_every: int = key(
        0, 'size', 'bytes that a die programs between two collections; 0 is never', high=1 << 40
    )
    gc_time: int = key(0, 'time', 'for which a collection occupies its die', high=10 * S)
    background_every: int = key(
        0, 'time', 'mean interval of housekeeping, exponential; 0 is never', high=1000 * S
    )
    background_time: int = key(0, 'time', 'for which it occupies a die', high=10 * S)

    # with a head
    rpm: int = key(7200, 'int', 'rotations per minute', low=1, high=100_000)
    track: int = key(1 << 20, 'size', 'bytes of a track', low=512, high=1 << 30)
    seek_min: int = key(800_000, 'time', 'seek to the next track', high=S)
    seek_max: int = key(17 * MS, 'time', 'seek over the whole disk', high=S)
    settle_write: int = key(500_000, 'time', 'more for a write, to settle', high=S)
    scheduler: str = key(
        'sptf', 'choice', 'how the head chooses its next command', choices=('fifo', 'sstf', 'sptf')
    )
    ncq: int = key(32, 'int', 'commands that it chooses among', low=1, high=4096)
    read_ahead: int = key(0, 'size', 'bytes that it reads on behind a read', high=1 << 30)

    # both
    command_time: int = key(0, 'time', "of a command, in which it stands in nobody's way", high=S)
    bandwidth: int = key(0, 'size', 'bytes per second over the link; 0 is no limit', high=1 << 40)
    write_cache: int = key(0, 'size', 'bytes of write cache; 0 is none', high=1 << 33)
    cache_time: Spread = key(
        Spread('constant', ((0, 0),)), 'spread', 'time until a write is in the cache', high=10 * S
    )

    # between LIO and the disk
    network_round_trip: int = key(
        0, 'time', 'to the disk and back, as over iSCSI; 0 is a local disk', high=10 * S
    )
    network_jitter: int = key(0, 'time', 'mean of a delay of each message', high=S)
    network_bandwidth: int = key(
        0, 'size', 'bytes per second in each direction; 0 is no limit', high=1 << 40
    )
    network_loss: int = key(0, 'int', 'messages in a million that are lost', high=10**6 - 1)
    network_rto: int = key(200 * MS, 'time', 'until a lost one is sent again', low=1, high=120 * S)
    wbt_lat: int = key(
        AUTO, 'time', "wbt_lat_usec of the host's disk; auto is 2ms, for kind hdd 75ms; 0 is off",
        unit='us', high=10 * S,
    )  # fmt: skip
    wbt_queue_depth: int = key(
        64, 'int', 'its queue depth, which bounds write-back throttling', low=1, high=65536
    )

    # faults
    error_at: int = key(0, 'int', 'number of the command that fails, from 1; 0 is none', high=S)
    error_count: int = key(1, 'int', 'how many fail from there on', low=1, high=S)
    stuck_at: int = key(0, 'int', 'number of the command that gets stuck; 0 is none', high=S)
    stuck_for: int = key(0, 'time', 'for how long; 0 is for ever', high=1000 * S)
    slow_from: int = key(0, 'time', 'when a slow period begins', high=100_000 * S)
    slow_for: int = key(0, 'time', 'how long it lasts; 0 is none', high=100_000 * S)
    slow_by: int = key(10, 'int', 'how many times as long the medium takes', low=1, high=10**6)

    @property
    def has_volatile_cache(self) -> bool:
        """Does it tell its host of a write cache that a power cut empties (WCE)?

        Without one Linux sends it no flushes.
        """
        if self.kind == 'ssd':
            return self.write_cache > 0 and not self.power_loss_protection
        return self.kind == 'hdd' and self.write_cache > 0


LANES = ('lanes', 'serial')
LINK = ('command_time', 'write_cache', 'cache_time')

# The keys that mean something, beside those of every kind.
TARGET_KEYS: dict[str, tuple[str, ...]] = {
    'null': (),
    'python': ('component',),
    'constant': ('service', 'lanes'),
    'exponential': ('service', 'lanes'),
    'lanes': ('service', *LANES, 'distribution'),
    'empirical': ('quantiles', *LANES),
    'ssd': (
        *('dies', 'stripe', 'read_time', 'program_time', 'program_unit', 'serial', 'bandwidth'),
        *('power_loss_protection', 'gc_every', 'gc_time', 'background_every', 'background_time'),
        *LINK,
    ),
    'hdd': (
        *('rpm', 'track', 'seek_min', 'seek_max', 'settle_write', 'scheduler', 'ncq'),
        *('read_ahead', *LINK),
    ),
}
EVERY_KIND = ('disk', 'kind', 'luns', 'size')

# Keys that mean something only where the first one of their group is on.
GROUPS = (
    ('network_round_trip', 'network_jitter', 'network_bandwidth', 'network_loss', 'network_rto'),
    ('error_at', 'error_count'),
    ('stuck_at', 'stuck_for'),
    ('slow_for', 'slow_from', 'slow_by'),
)
WBT = ('wbt_lat', 'wbt_queue_depth')  # on a host kernel before 6.6


def kind_keys(kind: str) -> tuple[str, ...]:
    """The keys that a kind of disk knows, those of groups left out."""
    return (*EVERY_KIND, *TARGET_KEYS[kind])
