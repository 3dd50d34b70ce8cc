"""When I/O comes and what ends it: open and closed loops, rates, pauses, bursts, flushes, ends."""

import numpy as np
import pytest

from sim import costs, invariants, machine
from sim.analysis import frame
from sim.config import ConfigError, load
from sim.engine import CompiledEngine
from sim.run import Phases, run

HZ = 2_600_000_000
SLOW = {'kind': 'constant', 'service': '100us', 'lanes': 1}  # 10,000 requests per second
CACHED = {'kind': 'ssd', 'write_cache': '1m'}
FAST = {'kind': 'constant', 'service': '10us', 'lanes': 64}


def cycles(name: str, **sections) -> np.ndarray:
    """One timestamp of every request, in cycles and in the order of the serials."""
    config = load(**sections)
    world = machine.build(config, costs.of_config(config))
    engine = CompiledEngine(world)
    Phases(engine, config)
    engine.run()
    assert invariants.check(world) == []
    return frame.trace_rows(world)[:, invariants.COLUMN[name]] - 1


def requests(target=FAST, **work):
    """The frame of a run without violations."""
    result = run(workload=work, target=target)
    assert result.violations == []
    return result.requests


# ------------------------------------------------------------------------- open and closed loops


def test_an_open_loop_under_overload_shows_its_backlog_and_a_closed_one_hides_it():
    work = {'rate_iops': 20_000, 'number_ios': 2000, 'iodepth': 4}
    opened = run(workload=work | {'io_submit_mode': 'offload'}, target=SLOW)
    closed = run(workload=work, target=SLOW)
    assert opened.violations == closed.violations == []
    # Twice as many arrive as the disk takes: the last waits for half of all services.
    late = opened.requests['latency_ns'].iloc[-1]
    assert late == pytest.approx(2000 * 100_000 / 2, rel=0.02)
    assert opened.requests['submit_ns'].iloc[-1] > 0.9 * late
    assert opened.report['backlog_max'] == pytest.approx(1000, rel=0.02)
    # It grows all the time, by the difference of both gaps.
    growth = np.diff(opened.requests['latency_ns'].to_numpy(dtype=np.int64))[100:]
    assert growth.mean() == pytest.approx(100_000 - 50_000, rel=0.02)
    # The closed loop only begins what it has a unit for, and sees nothing but iodepth services.
    assert closed.requests['latency_ns'].max() < 5 * 100_000
    assert closed.report['backlog_max'] <= 4
    assert closed.report['iops'] == pytest.approx(opened.report['iops'], rel=0.01)


def test_an_open_loop_keeps_the_intended_times_whatever_the_disk_does():
    work = {'rate_iops': 16_000, 'number_ios': 400, 'iodepth': 2, 'io_submit_mode': 'offload'}
    for target in (SLOW, FAST, {'kind': 'null'}):
        arrive = cycles('t_arrive', workload=work, target=target)
        assert (arrive == np.arange(400) * HZ // 16_000).all()


def test_two_disks_under_one_seed_see_the_same_poisson_arrivals():
    work = {'rate_iops': 9000, 'rate_process': 'poisson', 'number_ios': 3000, 'iodepth': 8}
    work |= {'io_submit_mode': 'offload'}
    slow, fast = (cycles('t_arrive', workload=work, target=disk) for disk in (SLOW, FAST))
    assert (slow == fast).all()
    gaps = np.diff(slow) / HZ * 9000
    assert gaps.mean() == pytest.approx(1, abs=4 / np.sqrt(3000))
    assert gaps.std() == pytest.approx(1, abs=0.1)
    assert (gaps < 0.5).mean() == pytest.approx(1 - np.exp(-0.5), abs=0.04)


def test_an_idle_open_loop_submits_at_once():
    table = costs.of_config(load())
    both = {'workload': {'rate_iops': 1000, 'number_ios': 50, 'io_submit_mode': 'offload'}}
    gap = cycles('t_submit', **both) - cycles('t_arrive', **both)
    assert set(gap) == {table.guest_io_submit}


def test_arrivals_that_the_end_leaves_in_the_backlog_are_counted():
    work = {'rate_iops': 20_000, 'runtime': '50ms', 'time_based': True, 'iodepth': 1}
    report = run(workload=work | {'io_submit_mode': 'offload'}, target=SLOW).report
    assert report['requests'] + report['arrivals_missed'] == 1000
    assert report['arrivals_missed'] > 400


def test_reads_and_writes_have_their_own_rates():
    found = requests(
        rw='randrw', rate_iops='3000,1000', number_ios=2000, io_submit_mode='offload', iodepth=8
    )
    reads, writes = (found[found['op'] == op] for op in ('read', 'write'))
    assert len(reads) == pytest.approx(3 * len(writes), rel=0.01)
    gaps = np.diff(writes['t_arrive_ns'].to_numpy(dtype=np.int64))
    assert set(gaps) == {1_000_000}


def test_one_rate_is_for_each_direction_as_in_fio():
    found = requests(rw='randrw', rate_iops=2000, number_ios=800, iodepth=8)
    span = (found['t_arrive_ns'].max() - found['t_arrive_ns'].min()) / 1e9
    assert len(found) / span == pytest.approx(4000, rel=0.02)


def test_a_rate_in_bytes_goes_by_the_size_of_the_requests():
    found = requests(
        rw='read', rate='64m', bssplit='4k/50:60k/50', number_ios=1000, io_submit_mode='offload',
        iodepth=16,
    )  # fmt: skip
    arrive, size = (found[c].to_numpy(dtype=np.int64) for c in ('t_arrive_ns', 'bytes'))
    gaps = np.diff(arrive)
    for length in (4096, 60 * 1024):
        assert set(gaps[size[:-1] == length] // 10) == {length * 10**9 // (64 << 20) // 10}


def test_linear_gaps_do_not_drift():
    # 7,000 per second is no whole number of cycles.
    work = {'rate_iops': 7000, 'number_ios': 7001, 'io_submit_mode': 'offload', 'iodepth': 4}
    assert cycles('t_arrive', workload=work)[7000] == HZ


# -------------------------------------------------------------------------- bursts and think time


def test_arrivals_keep_to_the_on_phases():
    found = requests(
        rate_iops=100_000, burst_on='1ms', burst_off='3ms', number_ios=1000, iodepth=16,
        io_submit_mode='offload',
    )  # fmt: skip
    arrive = found['t_arrive_ns'].to_numpy(dtype=np.int64)
    assert (arrive % 4_000_000 < 1_000_000).all()
    assert (np.bincount(arrive // 4_000_000) == 100).all()


def test_a_closed_loop_rests_in_the_off_phases():
    found = requests(burst_on='1ms', burst_off='3ms', number_ios=500, iodepth=4)
    arrive = found['t_arrive_ns'].to_numpy(dtype=np.int64)
    assert (arrive % 4_000_000 < 1_000_000).all()
    assert len(set(arrive // 4_000_000)) >= 2


def test_bursts_come_together_at_the_same_mean_rate():
    work = {'rate_iops': 10_000, 'number_ios': 800, 'io_submit_mode': 'offload', 'iodepth': 16}
    arrive = cycles('t_arrive', workload=work | {'burst_ios': 8})
    assert (arrive.reshape(-1, 8) == arrive[::8, None]).all()
    assert set(np.diff(arrive[::8])) == {8 * HZ // 10_000}
    poisson = cycles('t_arrive', workload=work | {'burst_ios': 8, 'rate_process': 'poisson'})
    assert (poisson.reshape(-1, 8) == poisson[::8, None]).all()


def test_think_time_follows_every_n_requests_and_part_of_it_burns_the_cpu():
    work = {'thinktime': 300, 'thinktime_blocks': 5, 'number_ios': 100}
    found = requests(**work)
    pause = (found['t_arrive_ns'].shift(-1) - found['t_reap_ns']).dropna().to_numpy(dtype=np.int64)
    assert (np.flatnonzero(pause >= 300_000) == np.arange(4, 99, 5)).all()
    busy = [
        run(workload=work | {'thinktime_spin': spin}, target=FAST).report['busy']['vcpu0']
        for spin in (0, 200)
    ]
    whole = found['t_reap_ns'].max()
    assert busy[1] - busy[0] == pytest.approx(19 * 200_000 / whole, rel=0.1)


def test_thinktime_iotime_makes_phases():
    found = requests(thinktime='2ms', thinktime_iotime='1ms', number_ios=300, iodepth=2)
    gaps = np.diff(found['t_arrive_ns'].to_numpy(dtype=np.int64))
    pauses = np.flatnonzero(gaps > 1_900_000)
    assert len(pauses) >= 3
    assert gaps[pauses[0] + 1 : pauses[1]].sum() == pytest.approx(1_000_000, rel=0.1)


def test_startdelay_shifts_everything():
    plain, late = (
        cycles('t_complete', workload={'number_ios': 20, 'startdelay': delay})
        for delay in (0, '3ms')
    )
    assert set(late - plain) == {3 * HZ // 1000}


# ----------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ('work', 'count'),
    [
        ({'size': '64k'}, 16),
        ({'size': '64k', 'loops': 3}, 48),
        ({'size': '64k', 'number_ios': 5, 'loops': 2}, 10),
        ({'size': '64k', 'io_size': '200k'}, 50),
        ({'size': '64k', 'io_size': '20k'}, 5),
        ({'size': '64k', 'rw': 'read', 'io_size': '128k'}, 32),
        ({'number_ios': 7}, 7),
    ],
)
def test_what_ends_a_job(work, count):
    assert len(requests(iodepth=3, **work)) == count


def test_a_loop_begins_when_the_one_before_is_over():
    found = requests(size='64k', loops=3, iodepth=8)
    for n in (16, 32):
        assert found['t_arrive_ns'].iloc[n] >= found['t_reap_ns'].iloc[:n].max()
    assert set(found['lba'].iloc[16:32]) == set(found['lba'].iloc[:16])


def test_bytes_end_a_job_of_many_sizes():
    found = requests(rw='write', bsrange='4k-32k', size='1m', io_size='3m', iodepth=4)
    total = found['bytes'].sum()
    assert 3 << 20 <= total < (3 << 20) + 32 * 1024
    assert total - found['bytes'].iloc[-1] < 3 << 20
    thrice = requests(rw='write', bsrange='4k-32k', size='1m', loops=3, iodepth=4)
    for begin in np.flatnonzero(thrice['lba'] == 0)[1:]:
        assert thrice['t_arrive_ns'].iloc[begin] >= thrice['t_reap_ns'].iloc[:begin].max()
    assert (thrice['lba'] == 0).sum() == 3
    assert 3 << 20 <= thrice['bytes'].sum() < 3 * ((1 << 20) + 32 * 1024)


def test_clones_have_parts_of_their_own():
    found = requests(
        numjobs=3, offset='1g', offset_increment='1m', size='1m', number_ios=256, iodepth=4
    )
    for clone, rows in found.groupby('clone'):
        first = ((1 << 30) + clone * (1 << 20)) // 512
        assert sorted(rows['lba']) == list(range(first, first + 2048, 8))


def test_a_percentage_of_offset_is_rounded_up_to_whole_requests():
    (job,) = load(workload={'offset': '33%', 'bs': '12k'}, target={'size': '1g'}).jobs
    assert job.offset % 12288 == 0
    assert 0 <= job.offset - (1 << 30) * 33 / 100 < 12288


def test_iodepth_low_reaps_down_before_it_goes_on():
    found = requests(SLOW, iodepth=8, iodepth_low=2, number_ios=200)
    moments = np.concatenate([found['t_reap_ns'], found['t_arrive_ns']]).astype(np.int64)
    change = np.repeat([-1, 1], len(found))[np.argsort(moments, kind='stable')]
    level = np.cumsum(change)
    assert level.max() == 8
    falling = level[:-1][(change[:-1] == -1) & (change[1:] == 1)]
    assert set(falling[10:-10]) == {2}
    assert set(requests(SLOW, iodepth=8, number_ios=99)['outcome']) == {'ok'}


# ---------------------------------------------------------------------------------------- flushes


@pytest.mark.parametrize('engine', ['libaio', 'io_uring'])
def test_fsync_flushes_after_so_many_writes(engine):
    result = run(
        workload={'rw': 'randrw', 'fsync': 8, 'number_ios': 400, 'iodepth': 4, 'ioengine': engine},
        target=CACHED,
    )
    assert result.violations == []
    found = result.requests
    writes = int((found['op'] == 'write').sum())
    flushes = found[found['op'] == 'flush']
    assert len(flushes) == writes // 8
    assert set(flushes['bytes']) == {0}
    by_serial = found.sort_values('serial')['op'].to_numpy()
    seen = np.cumsum(by_serial == 'write')[by_serial == 'flush']
    assert (seen == 8 * np.arange(1, len(flushes) + 1)).all()
    assert result.report['jobs']['job1']['flush']['requests'] > 0
    assert result.report['requests_measured'] <= 400


def test_fsync_of_libaio_blocks_the_thread_and_that_of_io_uring_does_not():
    found = {}
    for engine in ('libaio', 'io_uring'):
        table = requests(CACHED, rw='randwrite', fsync=4, number_ios=64, iodepth=8, ioengine=engine)
        arrive = table['t_arrive_ns']
        found[engine] = sum(
            ((arrive > flush.t_submit_ns) & (arrive < flush.t_complete_ns)).sum()
            for flush in table[table['op'] == 'flush'].iloc[:8].itertuples()
        )
    assert found['libaio'] == 0
    assert found['io_uring'] > 0


def test_end_fsync_is_the_last_request():
    found = requests(CACHED, rw='write', number_ios=20, iodepth=4, end_fsync=True)
    assert list(found['op']) == ['write'] * 20 + ['flush']
    assert found['t_arrive_ns'].iloc[-1] >= found['t_reap_ns'].iloc[:-1].max()
    reads = requests(CACHED, rw='read', number_ios=20, end_fsync=True)
    assert 'flush' not in list(reads['op'])


def test_a_disk_without_a_volatile_cache_is_sent_no_flush():
    config = load(workload={'rw': 'write', 'number_ios': 20, 'fsync': 2, 'end_fsync': True})
    assert any('nothing is sent' in note for note in config.notes)
    assert set(run(config).requests['op']) == {'write'}


def test_flushes_count_alike_in_every_recording_mode():
    found = {}
    for mode in ('full', 'histogram'):
        result = run(
            workload={'rw': 'randwrite', 'fsync': 5, 'number_ios': 500, 'iodepth': 4},
            target=CACHED,
            run={'record': mode, 'warmup': 'off'},
        )
        entry = result.report['jobs']['job1']
        found[mode] = (
            entry['requests'],
            entry['flush']['requests'],
            entry['flush']['latency_ns']['mean'],
            entry['write']['latency_ns']['mean'],
            result.report['requests_measured'],
        )
    assert found['full'] == found['histogram']
    assert found['full'][:2] == (500, 99)  # none after the last write, as in fio


# ---------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ('work', 'says'),
    [
        ({'io_submit_mode': 'offload'}, 'needs a rate for reads'),
        ({'io_submit_mode': 'offload', 'rw': 'randrw', 'rate_iops': '100,'}, 'rate for writes'),
        ({'rate': '1m', 'rate_iops': 5}, 'exclude each other'),
        ({'rate_process': 'poisson'}, 'needs a rate'),
        ({'thinktime': 5, 'rate_iops': 9, 'io_submit_mode': 'offload'}, 'does not wait'),
        ({'thinktime_blocks': 5}, 'needs a thinktime'),
        ({'burst_on': '1ms'}, 'need each other'),
        ({'burst_ios': 4}, 'needs a rate'),
        (
            {'burst_ios': 4, 'rate_iops': 3, 'rate_process': 'poisson'},
            'more than a second apart',
        ),
        ({'rate': '1k', 'rate_process': 'poisson'}, 'more than a second apart'),
        ({'iodepth': 4, 'iodepth_low': 5}, 'above iodepth'),
        ({'rate_iops': 0}, 'out of range'),
        ({'rate_iops': '5x'}, 'is not a size'),
        ({'io_size': '2k'}, 'below bs'),
        ({'replay_scale': 2}, 'no meaning without read_iolog'),
    ],
)
def test_what_makes_no_sense_is_refused(work, says):
    with pytest.raises(ConfigError) as caught:
        load(workload=work)
    assert says in str(caught.value)
    assert '\n' not in str(caught.value)
