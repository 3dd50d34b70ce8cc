"""Each medium against its definition; each mechanism shown, switched off, and gone."""

import dataclasses
import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.config import ConfigError, load
from sim.disks import fields
from sim.disks.alone import HZ, alone
from sim.disks.build import seek_times
from sim.formats.spread import PPM, parse_spread
from sim.se_cmd import OP_FLUSH, OP_WRITE

US = 1e6 / HZ


def disk(**keys):
    return load(target=keys).target


def off(target, **keys):
    """The same disk with something switched off."""
    return dataclasses.replace(target, **keys)


def mean(run):
    return float(run.latency_us.mean())


def share_of_flash_time(run, target):
    """How busy the lanes were."""
    return run.disk[int(fields.D_LANE_BUSY)] / (run.done[-1] * target.lanes)


# ------------------------------------------------------------------------------- random times ----


def test_a_constant_lane_takes_its_service_time():
    run = alone(disk(kind='constant', service='80us'), depth=32, requests=500)
    assert set(run.latency_us) == {80.0}


def test_exponential_service_has_the_mean_and_the_quantiles_of_its_law():
    service = alone(disk(kind='exponential', service='80us'), depth=1, requests=100_000).latency_us
    assert service.mean() == pytest.approx(80, rel=0.012)  # 4 / sqrt(100,000)
    for share in (0.1, 0.5, 0.9, 0.99):
        expected = -80 * math.log(1 - share)
        error = 4 * math.sqrt(share * (1 - share) / 100_000) / ((1 - share) / 80)
        assert np.quantile(service, share) == pytest.approx(expected, abs=error)


TABLE = 'p0 60us, p50 80us, p90 100us, p99 200us, p99.9 1ms, p100 3ms'


def test_percentiles_of_an_empirical_disk_are_those_of_its_table():
    spread = parse_spread(TABLE)
    target = disk(kind='empirical', quantiles=TABLE, lanes=1)
    service = alone(target, depth=1, requests=200_000).latency_us
    assert service.mean() == pytest.approx(float(spread.mean_ns) / 1e3, rel=0.01)
    for (p, ns), (q, then) in pairwise(spread.points):
        share = p / PPM
        below = (service < ns / 1e3).mean()
        assert below == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 200_000))
        middle = (service < (ns + then) / 2e3).mean()  # linear between the points
        share = (p + q) / 2 / PPM
        assert middle == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 200_000))
    assert service.min() >= 60
    assert service.max() < 3000


@given(
    st.lists(
        st.tuples(st.integers(1, PPM - 1), st.integers(0, 10**9)),
        max_size=20, unique_by=lambda point: point[0],
    ),
    st.integers(0, 10**6), st.integers(0, 10**6),
)  # fmt: skip
def test_a_table_of_quantiles_reads_back_and_rises(points, least, more):
    points = sorted(points)
    times = [least + sum(t for _, t in points[: i + 1]) for i in range(len(points))]
    shares = [0, *(p for p, _ in points), PPM]
    times = [least, *times, (times[-1] if times else least) + more]
    text = ', '.join(f'p{p / 10**4:.4f} {t}ns' for p, t in zip(shares, times, strict=True))
    spread = parse_spread(text)
    assert spread.points == tuple(zip(shares, times, strict=True))
    assert parse_spread(str(spread)) == spread
    assert times[0] <= spread.mean_ns <= times[-1]


def test_the_mean_of_a_table_is_the_area_under_its_quantile_function():
    assert parse_spread('p0 0, p50 10us, p100 30us').mean_ns == Fraction(12_500)
    assert parse_spread('80us').mean_ns == parse_spread('exponential 80us').mean_ns == 80_000


@pytest.mark.parametrize(
    ('text', 'told'),
    [
        ('p50 80us, p100 1ms', 'begins with p0'),
        ('p0 80us, p99 1ms', 'ends with p100'),
        ('p0 80us, p50 70us, p100 1ms', 'does not rise'),
        ('p0 80us, p50 90us, p50 95us, p100 1ms', 'does not rise'),
        ('p0 80us, p101 90us, p100 1ms', 'at most 100'),
        ('p0 80us, p50, p100 1ms', 'is no quantile'),
        ('80', 'has no unit'),
        ('exponential', 'is not a time'),
        ('exponential 5', 'has no unit'),
        ('p0 0, p100 11s', 'is out of range'),
    ],
)
def test_a_wrong_random_time_is_told_with_its_cure(text, told):
    with pytest.raises(ConfigError) as caught:
        load(target={'kind': 'ssd', 'read_time': text})
    assert told in str(caught.value)
    assert '\n' not in str(caught.value)


# ----------------------------------------------------------------------------------- stations ----


def test_lanes_and_a_serial_stage_saturate_where_they_must():
    target = disk(kind='lanes', service='113us', lanes=8, serial='15700ns')
    alone_at_once = alone(target, depth=1, requests=50_000)
    assert mean(alone_at_once) == pytest.approx(113 + 15.7, rel=0.02)
    assert alone(target, depth=64, requests=50_000).iops == pytest.approx(1e6 / 15.7, rel=0.01)
    assert alone(off(target, serial=0), depth=64, requests=50_000).iops == pytest.approx(
        8e6 / 113, rel=0.02
    )


SSD = {
    'kind': 'ssd', 'dies': 16, 'read_time': '70us', 'program_time': '600us',
    'program_unit': '32k', 'bandwidth': '500m', 'command_time': '10us', 'cache_time': '12us',
}  # fmt: skip


def test_a_read_that_meets_nobody_takes_command_page_and_link():
    run = alone(disk(**SSD), depth=1, requests=2000)
    link = 4096 / (500 << 20) * 1e6
    hits = run.latency_us < 70  # the page was in the register of its die
    assert hits.mean() < 0.005
    assert run.latency_us[~hits] == pytest.approx(10 + 70 + link, abs=0.01)


def test_reads_meet_on_busy_dies_and_no_longer_where_dies_abound():
    few, many = disk(**SSD, serial='1ns'), disk(**SSD | {'dies': 1024})
    few, many = off(few, bandwidth=0), off(many, bandwidth=0)
    crowded, roomy = (alone(t, depth=16, requests=20_000) for t in (few, many))
    assert np.quantile(roomy.latency_us, 0.95) < 90
    assert mean(crowded) > 1.4 * mean(roomy)


def test_sequential_reads_of_a_page_read_it_once():
    run = alone(disk(**SSD), depth=1, requests=4000, rw='read')
    reads = int(run.disk[int(fields.D_LANE_BUSY)]) / (70e-6 * HZ)
    assert reads == pytest.approx(4000 * 4096 / 16384)


def test_a_large_read_is_spread_over_dies():
    one, eight = (alone(disk(**SSD), depth=1, requests=50, bs=b) for b in (16384, 8 * 16384))
    link = 7 * 16384 / (500 << 20) * 1e6
    assert np.median(eight.latency_us) == pytest.approx(np.median(one.latency_us) + link, abs=0.1)


# ------------------------------------------------------------------------- write cache, flush ----


def test_a_cache_absorbs_writes_and_without_it_they_take_the_program_time():
    cached = disk(**SSD, write_cache='4m')
    link = 4096 / (500 << 20) * 1e6
    quick = alone(cached, depth=1, requests=500, rw='randwrite').latency_us
    slow = alone(off(cached, write_cache=0), depth=1, requests=500, rw='randwrite').latency_us
    assert quick == pytest.approx(10 + link + 12, abs=0.01)
    assert slow == pytest.approx(10 + link + 600, abs=0.01)


def test_a_full_cache_takes_what_the_flash_drains():
    small = disk(**SSD | {'dies': 2}, write_cache='256k')
    run = alone(small, depth=16, requests=8000, rw='randwrite')
    assert run.iops == pytest.approx(2 * 32768 / 4096 / 600e-6, rel=0.02)  # dies, unit, program
    early, late = run.latency_us[:32], run.latency_us[-1000:]
    assert early.mean() < 200 < late.mean()


def test_a_flush_waits_for_the_drain_unless_the_cache_outlives_a_power_cut():
    volatile = disk(**SSD, write_cache='4m')

    def flushes(target):
        run = alone(target, depth=1, requests=2000, rw='randwrite', flush_every=64)
        assert (run.ops == OP_FLUSH).sum() > 25
        return run.latency_us[run.ops == OP_FLUSH]

    # 64 writes of 4k are eight units on eight dies: the last is sealed with the last write, which
    # is done 12 us later.
    assert flushes(volatile) == pytest.approx(600 - 12, abs=0.01)
    assert set(flushes(off(volatile, power_loss_protection=True))) == {0.0}
    assert set(flushes(off(volatile, write_cache=0))) == {0.0}


def test_a_flush_waits_for_the_open_unit_too_and_ends_with_nothing_cached():
    run = alone(disk(**SSD, write_cache='4m'), depth=1, requests=303, rw='randwrite', flush_every=2)
    assert run.ops[-1] == OP_FLUSH or run.ops[-2] == OP_FLUSH
    waits = run.latency_us[run.ops == OP_FLUSH]
    assert waits == pytest.approx(600, abs=1)  # two writes do not fill a unit of 32k


def test_reads_go_before_cached_writes_until_a_write_waits_for_room():
    # One die: the read that comes while a unit waits to be programmed is served first.
    target = disk(**SSD | {'dies': 1, 'bandwidth': 0}, write_cache='64m')
    mixed = alone(target, depth=4, requests=4000, rw='randrw', rwmixread=80)
    reads = mixed.latency_us[mixed.ops != OP_WRITE]
    full = alone(off(target, write_cache=32768), depth=4, requests=4000, rw='randrw', rwmixread=80)
    waiting = full.latency_us[full.ops != OP_WRITE]
    assert reads.max() < 4 * 70 + 20  # never behind a program operation
    assert np.quantile(waiting, 0.99) > 600


# ------------------------------------------------------------------------ tail and background ----


def test_collections_make_the_tail_of_reads_and_without_them_it_is_gone():
    busy = disk(**SSD, write_cache='4m', gc_every='256k', gc_time='5ms')
    quiet = off(busy, gc_every=0, gc_time=0)
    tail, none = (
        np.quantile(run.latency_us[run.ops != OP_WRITE], 0.999)
        for run in (alone(t, depth=4, requests=20_000, rw='randrw') for t in (busy, quiet))
    )
    assert none < 1500  # a program operation or two, and reads before it
    assert tail > 4000


def test_housekeeping_shows_in_the_tail_of_a_disk_that_is_only_read():
    tidy = disk(**SSD, background_every='2ms', background_time='2ms')
    idle = off(tidy, background_every=0, background_time=0)
    tail, none = (
        alone(t, depth=1, requests=20_000, host_ns=5 * 10**6).latency_us for t in (tidy, idle)
    )
    assert none.max() < 100
    # A die is busy with it for 2 ms of every 2 ms * 16 dies, so one read in 16 waits.
    assert (tail > 100).mean() == pytest.approx(1 / 16, abs=4 * math.sqrt(1 / 16 / 20_000))
    assert np.median(tail) == pytest.approx(np.median(none))


def test_programming_a_die_makes_its_readers_wait():
    target = disk(**SSD, write_cache='4m')
    mixed = alone(target, depth=4, requests=20_000, rw='randrw')
    instant = off(target, program_time=parse_spread('1ns'))
    free = alone(instant, depth=4, requests=20_000, rw='randrw')
    tail, none = (np.quantile(r.latency_us[r.ops != OP_WRITE], 0.99) for r in (mixed, free))
    assert tail > 500
    assert none < 250


# --------------------------------------------------------------------------------------- head ----

HDD = {'kind': 'hdd', 'rpm': 7200, 'seek_min': '1ms', 'seek_max': '17ms', 'track': '1m'}


def test_a_seek_takes_the_square_root_of_its_distance():
    table = seek_times(disk(**HDD, size='1g'), HZ)
    assert len(table) == 1024
    assert table[0] == 0
    assert table[1023] == pytest.approx(0.017 * HZ, rel=1e-6)
    for distance in (1, 4, 100, 1000):
        expected = (0.001 + 0.016 * math.sqrt(distance / 1023)) * HZ
        assert table[distance] == pytest.approx(expected, abs=1)
    assert all(a <= b for a, b in pairwise(table))


def test_one_random_read_takes_a_seek_half_a_rotation_and_the_transfer():
    run = alone(disk(**HDD), depth=1, requests=20_000)
    period = 60e6 / 7200
    seek = 1000 + 16_000 * 8 / 15  # the mean of sqrt(|x - y|) is 8/15
    transfer = 4096 / (1 << 20) * period
    assert mean(run) == pytest.approx(seek + period / 2 + transfer, rel=0.01)


def test_where_the_platter_stands_decides_how_long_a_read_waits():
    # The same block again and again: exactly one rotation each time.
    run = alone(disk(**HDD), depth=1, requests=50, size=4096)
    assert run.latency_us[1:] == pytest.approx(60e6 / 7200, abs=1)
    faster = alone(disk(**HDD | {'rpm': 15000}), depth=1, requests=50, size=4096)
    assert faster.latency_us[1:] == pytest.approx(60e6 / 15000, abs=1)


def test_depth_pays_because_the_head_chooses_and_fifo_gains_nothing():
    iops = {
        (scheduler, depth): alone(disk(**HDD, scheduler=scheduler), depth=depth, requests=4000).iops
        for scheduler in ('fifo', 'sstf', 'sptf')
        for depth in (1, 32)
    }
    gain = {name: iops[name, 32] / iops[name, 1] for name in ('fifo', 'sstf', 'sptf')}
    assert gain['fifo'] == pytest.approx(1, abs=0.03)
    assert gain['sptf'] > gain['sstf'] > 1.5
    shallow = alone(disk(**HDD, ncq=1), depth=32, requests=4000).iops
    assert shallow == pytest.approx(iops['fifo', 1], rel=0.03)


def test_the_greedy_head_makes_some_wait_very_long():
    greedy, fair = (
        alone(disk(**HDD, scheduler=s), depth=32, requests=6000).latency_us
        for s in ('sptf', 'fifo')
    )
    assert greedy.mean() < fair.mean()
    assert np.quantile(greedy, 0.999) / greedy.mean() > np.quantile(fair, 0.999) / fair.mean()


def test_read_ahead_streams_and_without_it_each_read_costs_a_rotation():
    ahead = disk(**HDD, read_ahead='256k', command_time='10us')
    stream = alone(ahead, depth=1, requests=4000, rw='read')
    bare = alone(off(ahead, read_ahead=0), depth=1, requests=500, rw='read')
    rate = (1 << 20) * 7200 / 60  # bytes under the head per second
    assert stream.iops * 4096 == pytest.approx(rate, rel=0.15)
    assert mean(bare) > 8000
    scattered = alone(ahead, depth=1, requests=3000)
    without = alone(off(ahead, read_ahead=0), depth=1, requests=3000)
    assert scattered.iops == pytest.approx(without.iops, rel=0.01)


def test_a_cache_absorbs_writes_and_drains_in_the_order_of_the_head():
    cached = disk(**HDD, write_cache='1m', cache_time='100us')
    first = alone(cached, depth=1, requests=200, rw='randwrite')
    assert np.median(first.latency_us) == pytest.approx(100)
    through = alone(off(cached, write_cache=0), depth=1, requests=200, rw='randwrite')
    assert mean(through) > 10_000
    # Full, it takes what the head drains; 256 to choose among are better than one.
    long = alone(cached, depth=1, requests=3000, rw='randwrite')
    drain = 1e6 / long.latency_us[1500:].mean()
    assert drain > 2 * through.iops
    fifo = alone(off(cached, scheduler='fifo'), depth=1, requests=3000, rw='randwrite')
    assert 1e6 / fifo.latency_us[1500:].mean() == pytest.approx(through.iops, rel=0.06)


def test_a_flush_of_a_disk_waits_until_all_that_was_cached_is_on_the_platter():
    cached = disk(**HDD, write_cache='1m', cache_time='100us')
    run = alone(cached, depth=1, requests=400, rw='randwrite', flush_every=16)
    waits = run.latency_us[run.ops == OP_FLUSH]
    assert len(waits) > 20
    # Sixteen seeks, the shortest next, each with half a rotation or less.
    assert 16 * 2_000 < waits.mean() < 16 * 12_000
    bare = alone(off(cached, write_cache=0), depth=1, requests=40, rw='randwrite', flush_every=16)
    assert set(bare.latency_us[bare.ops == OP_FLUSH]) == {0.0}


# ---------------------------------------------------------------------------- network, faults ----

NEAR = {'kind': 'constant', 'service': '50us', 'lanes': 256}


def test_a_network_adds_its_round_trip_its_jitter_and_its_wire():
    far = disk(**NEAR, network_round_trip='200us', network_bandwidth='125m', network_jitter='0us')
    wire = (48 + 48 + 4096) / (125 << 20) * 1e6
    assert alone(far, depth=1, requests=50).latency_us == pytest.approx(250 + wire, abs=0.1)
    shaky = off(far, network_jitter=20_000)
    assert mean(alone(shaky, depth=1, requests=20_000)) == pytest.approx(290 + wire, rel=0.01)
    full = alone(far, depth=64, requests=5000).iops
    assert full == pytest.approx((125 << 20) / (48 + 4096), rel=0.01)


def test_a_lost_message_stalls_everybody_behind_it():
    lossy = disk(**NEAR, network_round_trip='200us', network_loss=2000)
    run = alone(lossy, depth=16, requests=20_000)
    lost = int(run.state[run.disk[int(fields.D_NETWORK)] + int(fields.N_LOST)])
    assert lost == pytest.approx(2 * 20_000 * 0.002, rel=0.4)
    stalled = (run.latency_us > 100_000).sum()
    assert stalled > 4 * lost  # TCP delivers in order: the others of the sixteen wait with it
    assert mean(alone(off(lossy, network_loss=0), depth=16, requests=2000)) < 260


def test_the_numbered_command_gets_stuck_for_its_time():
    run = alone(disk(**NEAR, stuck_at=7, stuck_for='5ms'), depth=1, requests=20)
    assert run.latency_us[6] == pytest.approx(5050)
    assert set(np.delete(run.latency_us, 6)) == {50.0}


def test_in_a_slow_period_the_medium_takes_longer_and_only_then():
    target = disk(**NEAR, slow_from='1ms', slow_for='2ms', slow_by=4)
    run = alone(target, depth=1, requests=100)
    slow = (run.issued / HZ >= 1e-3) & (run.issued / HZ < 3e-3)
    assert set(run.latency_us[slow]) == {200.0}
    assert set(run.latency_us[~slow]) == {50.0}


# -------------------------------------------------------------------------------- all of them ----

KINDS = {
    'constant': {'kind': 'constant'},
    'empirical': {'kind': 'empirical', 'quantiles': TABLE},
    'ssd': {**SSD, 'write_cache': '256k', 'gc_every': '64k', 'gc_time': '2ms'},
    'ssd without a cache': {**SSD, 'program_time': 'exponential 600us'},
    'hdd': {**HDD, 'write_cache': '256k', 'cache_time': '90us', 'read_ahead': '128k'},
    'network': {**NEAR, 'network_round_trip': '100us', 'network_loss': 1000},
}


@pytest.mark.parametrize('name', KINDS)
def test_the_same_seed_gives_the_same_times_and_another_seed_others(name):
    target = disk(**KINDS[name])

    def history(seed):
        run = alone(target, depth=8, requests=600, rw='randrw', flush_every=50, seed=seed)
        assert (run.done > 0).all()  # nobody is forgotten
        return run.done.tolist()

    assert history(1) == history(1)
    assert history(1) != history(2)


@pytest.mark.parametrize('name', KINDS)
@pytest.mark.parametrize('rw', ['randrw', 'rw'])
def test_nobody_is_forgotten_and_no_lane_is_busy_for_longer_than_there_was(name, rw):
    target = disk(**KINDS[name])
    run = alone(target, depth=64, requests=1500, rw=rw, flush_every=100, host_ns=5000)
    assert (run.done >= run.issued).all()
    assert (run.done > 0).all()
    lanes = run.disk[int(fields.D_LANES)]
    pending = 64 * 10**7 * HZ // 10**9  # what was under way at the end is counted whole
    assert run.disk[int(fields.D_LANE_BUSY)] <= lanes * (run.done[-1] + pending)


@st.composite
def flash(draw):
    one_of = lambda *values: draw(st.sampled_from(values))  # noqa: E731
    unit = one_of(512, 4096, 16384, 65536)
    keys = {
        'kind': 'ssd', 'dies': one_of(1, 2, 3, 7, 32), 'stripe': one_of(512, 4096, 16384),
        'read_time': one_of('1ns', '50us', 'exponential 50us', 'p0 0, p50 10us, p100 1ms'),
        'program_time': one_of('0', '300us', 'exponential 300us'), 'program_unit': unit,
        'write_cache': one_of(0, unit, 2 * unit, 3 * unit + 512, 1 << 20),
        'serial': one_of('0', '3us'), 'bandwidth': one_of(0, '100m'),
        'cache_time': one_of('0', '20us'), 'command_time': one_of('0', '5us'),
        'power_loss_protection': one_of(True, False, False),
    }  # fmt: skip
    if one_of(True, False):
        keys |= {'gc_every': one_of(unit, 5 * unit), 'gc_time': '1ms'}
    if one_of(True, False):
        keys |= {'background_every': '200us', 'background_time': '150us'}
    return keys


@st.composite
def heads(draw):
    one_of = lambda *values: draw(st.sampled_from(values))  # noqa: E731
    return {
        'kind': 'hdd', 'size': '64m', 'track': one_of('512', '64k', '1m'),
        'rpm': one_of(7200, 15000), 'scheduler': one_of('fifo', 'sstf', 'sptf'),
        'ncq': one_of(1, 4, 32), 'write_cache': one_of(0, 4096, 65536, '1m'),
        'cache_time': one_of('0', '30us'), 'read_ahead': one_of(0, '4k', '256k'),
        'command_time': one_of('0', '50us'), 'settle_write': one_of('0', '1ms'),
    }  # fmt: skip


FAR = {
    'network_round_trip': '50us', 'network_loss': 5000, 'network_jitter': '5us',
    'network_rto': '1ms', 'network_bandwidth': '100m',
}  # fmt: skip


@given(
    st.one_of(flash(), heads()), st.sampled_from([{}, {}, FAR, {'slow_for': '10ms'}]),
    st.sampled_from([1, 2, 5, 32]), st.sampled_from(['randread', 'randrw', 'rw', 'write']),
    st.sampled_from([512, 4096, 65536]), st.sampled_from([0, 1, 3, 20]), st.integers(0, 99),
)  # fmt: skip
def test_no_disk_however_odd_forgets_a_command(keys, more, depth, rw, bs, flush_every, seed):
    # alone() says so if it does.
    run = alone(
        disk(**keys, **more), depth=depth, requests=120, rw=rw, bs=bs, flush_every=flush_every,
        seed=seed, size=1 << 20,
    )  # fmt: skip
    assert (run.done >= run.issued).all()
    assert run.disk[int(fields.D_CACHE_USED)] >= 0
