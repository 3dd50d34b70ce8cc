"""Recording modes: histograms against fio's own rule, and histogram and sampled against full."""

import bisect
import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import costs, histogram, invariants, machine, recorder, units
from sim.analysis import stats
from sim.config import load
from sim.engine import ENGINES
from sim.errors import ConfigError
from sim.formats.values import PERCENTILES
from sim.histogram import BUCKETS, LIMIT_NS, LOWEST_NS, MIDPOINT_NS, WIDTH_NS, Histogram
from sim.record import ROW_WORDS, STAGES
from sim.run import Phases, run


def fio_edges():
    """Where fio's buckets begin, from the description in its stat.h, and where the last one ends.

    64 buckets per group; the first two groups have one bucket per ns, and every further group
    spans twice the times of the one before it.
    """
    edges = list(range(128))
    for group in range(2, 29):
        first, width = 2 ** (group + 5), 2 ** (group - 1)
        edges += range(first, 2 * first, width)
    return [*edges, 2**34]


EDGES = fio_edges()


def fio_index(ns):
    return bisect.bisect_right(EDGES, ns) - 1


def fio_value(index):
    low, high = EDGES[index], EDGES[index + 1]
    return low if high - low == 1 else (low + high) // 2


def times_below_the_limit():
    return st.one_of(
        st.integers(0, LIMIT_NS - 1),
        st.integers(0, 300),
        st.builds(
            lambda bit, off: min(max((1 << bit) + off, 0), LIMIT_NS - 1),
            st.integers(0, 34),
            st.integers(-2, 2),
        ),
    )


@given(times_below_the_limit())
def test_a_time_falls_into_fios_bucket(ns):
    bucket = histogram.bucket_of(ns)
    assert bucket == fio_index(ns)
    assert int(MIDPOINT_NS[bucket]) == fio_value(bucket)
    assert histogram.buckets_of(np.array([ns]))[0] == bucket
    assert LOWEST_NS[bucket] <= ns < LOWEST_NS[bucket] + WIDTH_NS[bucket]


def test_there_are_1856_buckets_of_at_most_a_64th():
    assert BUCKETS == len(EDGES) - 1 == 1856
    assert LOWEST_NS.tolist() == EDGES[:-1]
    assert (WIDTH_NS[128:] * 64 <= LOWEST_NS[128:]).all()


@given(
    st.integers(0, 9 * 10**18 // 10**9).map(lambda s: s % (365 * 86400)),
    st.integers(0, 9 * 10**9),
    st.integers(10**8, 9 * 10**9),
)
def test_the_recorders_ns_are_those_of_the_frames(seconds, part, hz):
    cycles = seconds * hz + part
    assert recorder.to_ns(cycles, hz) == units.cycles_to_ns(cycles, hz)


DISTRIBUTIONS = {
    'lognormal': lambda rng: rng.lognormal(11, 1.5, 20_000),
    'exponential': lambda rng: rng.exponential(80_000, 20_000),
    'two peaks': lambda rng: np.append(rng.normal(1e5, 2e3, 9_900), rng.normal(3e7, 1e5, 100)),
    'constant': lambda rng: np.full(5_000, 123_457.0),
    'below 128 ns': lambda rng: rng.integers(0, 128, 5_000),
    'heavy tail': lambda rng: 1e4 * (1 + rng.pareto(1.1, 20_000)),
}


@pytest.mark.parametrize('name', DISTRIBUTIONS)
def test_percentiles_of_a_histogram_lie_in_the_bucket_of_the_exact_ones(name):
    times = np.minimum(DISTRIBUTIONS[name](np.random.default_rng(7)), LIMIT_NS - 1).astype(np.int64)
    found = Histogram.of(times)
    for q in (1, 10, 50, 90, 99, 99.9, 100):
        exact = int(stats.percentile(times, q))
        value = found.at_rank(stats.rank_of(q, len(times)))
        assert histogram.bucket_of(value) == histogram.bucket_of(exact)
        assert abs(value - exact) <= WIDTH_NS[histogram.bucket_of(exact)]
    assert (found.count, found.sum) == (len(times), int(times.sum()))
    assert (found.least, found.most) == (int(times.min()), int(times.max()))


def test_a_percentile_is_fios_where_the_extremes_do_not_bind():
    """fio adds up buckets until it has enough; it may print more than the most, we do not."""
    times = np.random.default_rng(1).lognormal(10, 1, 3000).astype(np.int64)
    found = Histogram.of(times)
    for q in (5, 50, 95, 99.5):
        total, bucket = 0, -1
        while total < math.ceil(q * 3000 / 100 - 1e-9):
            bucket += 1
            total += int(found.counts[bucket])
        assert found.at_rank(stats.rank_of(q, 3000)) == fio_value(bucket)
    assert Histogram.of(np.array([130])).at_rank(1) == 130
    assert fio_value(fio_index(130)) == 131


def test_counting_one_by_one_and_joining_give_the_histogram_of_all():
    times = np.random.default_rng(2).lognormal(12, 3, 500).astype(np.int64)
    times[7], times[300] = LIMIT_NS, 3 * LIMIT_NS
    words = np.zeros(3 * histogram.HISTOGRAM_WORDS, dtype=np.int64)
    for place, ns in enumerate(times.tolist()):
        histogram.count(words, histogram.HISTOGRAM_WORDS * (place % 2), ns)
    apart = [Histogram.read(words, histogram.HISTOGRAM_WORDS * part) for part in (0, 1)]
    histogram.add(words, 0, histogram.HISTOGRAM_WORDS)
    histogram.add(words, 0, 2 * histogram.HISTOGRAM_WORDS)  # which is empty
    whole = Histogram.of(times)
    for found in (Histogram.read(words, 0), apart[0] + apart[1]):
        assert (found.counts == whole.counts).all()
        assert replace(found, counts=0) == replace(whole, counts=0)
    assert not words[histogram.HISTOGRAM_WORDS :].any()


def test_what_has_no_bucket_is_counted_apart_and_not_mistaken_for_17_seconds():
    found = Histogram.of(np.array([1000] * 50 + [LIMIT_NS - 1] + [LIMIT_NS, 60 * 10**9]))
    assert (found.count, found.beyond, found.most) == (53, 2, 60 * 10**9)
    assert found.sum == 50_000 + 2 * LIMIT_NS - 1 + 60 * 10**9
    assert found.at_rank(51) == MIDPOINT_NS[-1]
    assert found.at_rank(52) is None


# ---- whole runs

WORKS = {
    'closed loop': {'workload': {'iodepth': 16, 'number_ios': 2500}},
    'mix of two jobs': {
        'workload': {'rw': 'randrw', 'iodepth': 4, 'number_ios': 1200, 'numjobs': 2},
        'device': {'num_queues': 1},
    },
    'open loop': {
        'workload': {'rate_iops': 60_000, 'rate_process': 'poisson', 'iodepth': 32}
        | {'number_ios': 2500}
    },
    'quicker than the kick': {
        'workload': {'iodepth': 8, 'number_ios': 400, 'numjobs': 4},
        'device': {'num_queues': 1, 'cmd_per_lun': 4},
        'target': {'kind': 'null'},
    },
}


def recorded(work, mode, **more):
    sections = {'target': {'kind': 'exponential'}} | WORKS[work]
    return run(**sections, run={'record': mode} | more)


@pytest.mark.parametrize('work', WORKS)
def test_the_mode_of_recording_changes_nothing_but_what_is_recorded(work):
    full, counted, sampled = (recorded(work, mode) for mode in ('full', 'histogram', 'sampled'))
    for other in (counted, sampled):
        mine, its = full.report, other.report
        assert other.violations == full.violations == []
        assert its['event_digest'] == mine['event_digest']
        assert its['stages_ns'] == mine['stages_ns']
        assert its['latency_ns'].keys() == mine['latency_ns'].keys()
        for kind in ('latency_ns', 'fio_lat_ns'):
            assert its[kind]['mean'] == mine[kind]['mean']
            assert its[kind]['max'] == mine[kind]['max']
            for name in PERCENTILES:
                if mine[kind][name] is not None:
                    bucket = histogram.bucket_of(mine[kind][name])
                    assert abs(its[kind][name] - mine[kind][name]) <= WIDTH_NS[bucket]
        same = 'requests requests_completed requests_measured warmup_requests iops kicks busy'
        for key in same.split():
            assert its[key] == mine[key]
        for name, job in mine['jobs'].items():
            for op in {'read', 'write'} & job.keys():
                assert its['jobs'][name][op]['requests'] == job[op]['requests']
                assert its['jobs'][name][op]['latency_ns']['mean'] == job[op]['latency_ns']['mean']


def test_intervals_come_from_the_same_batches_in_every_mode():
    reports = [recorded('closed loop', mode).report for mode in ('full', 'histogram')]
    full, counted = (report['intervals'] for report in reports)
    assert full['values'].keys() == counted['values'].keys()
    assert len(full['values']) > 20
    for metric, bounds in full['values'].items():
        assert counted['values'][metric] == pytest.approx(bounds, rel=1 / 30), metric
    for metric in ('iops', 'latency_ns.mean', 'requests_per_kick', 'busy.vhost', 'stages_ns.done'):
        assert counted['values'][metric] == full['values'][metric], metric


def test_sampled_keeps_every_nth_request_as_full_does():
    full = recorded('closed loop', 'full')
    sampled = recorded('closed loop', 'sampled', sample_every=7)
    every = full.requests[full.requests['serial'] % 7 == 0].reset_index(drop=True)
    assert len(every) == 2500 // 7
    pd.testing.assert_frame_equal(sampled.requests, every)


@pytest.mark.parametrize('mode', ['full', 'histogram', 'sampled'])
def test_both_engines_record_the_same(mode):
    one, other = (recorded('mix of two jobs', mode, engine=name).report for name in ENGINES)
    assert one['digest'] == other['digest']
    assert one['intervals'] == other['intervals']


def world_after(**sections):
    config = load(**sections)
    world = machine.build(config, costs.of_config(config))
    engine = ENGINES[config.run.engine](world)
    Phases(engine, config)
    engine.run()
    return world


def sizes(world):
    return {name: getattr(world, name).nbytes for name in ('mem', 'lines', 'st', 'tr', 'media')}


@pytest.mark.parametrize('warmup', ['off', '100', 'auto'])
def test_ten_times_the_requests_take_the_same_memory(warmup):
    few, many = (
        world_after(
            workload={'iodepth': 32, 'number_ios': number},
            target={'kind': 'null'},
            run={'record': 'histogram', 'warmup': warmup},
        )
        for number in (3000, 30_000)
    )
    assert sizes(few) == sizes(many)
    reused = int(many.tr[int(recorder.T_FREE_COUNT)])
    assert reused == 32
    assert int(many.tr[int(recorder.T_REAPED)]) == 30_000


def test_memory_of_a_full_trace_does_grow():
    few, many = (
        world_after(workload={'number_ios': number}, target={'kind': 'null'})
        for number in (300, 3000)
    )
    assert many.tr.nbytes - few.tr.nbytes == 2700 * ROW_WORDS * 8


@pytest.mark.parametrize(
    ('work', 'more', 'cut'),
    [
        ({'number_ios': 2000}, {'warmup': '300'}, 300),
        ({'number_ios': 2000}, {'warmup': 'off'}, 0),
        ({'runtime': '30ms', 'ramp_time': '10ms', 'time_based': True}, {}, None),
        ({'number_ios': 2000}, {'warmup': '9999'}, 2000),
    ],
)
def test_the_warm_up_is_the_same_without_a_trace(work, more, cut):
    full, counted = (
        run(workload={'iodepth': 8} | work, run={'record': mode} | more).report
        for mode in ('full', 'histogram')
    )
    assert counted['warmup_requests'] == full['warmup_requests']
    assert counted['latency_ns'].get('mean') == full['latency_ns'].get('mean')
    if cut is None:
        assert 0 < full['warmup_requests'] < full['requests']
    else:
        assert full['warmup_requests'] == cut


def test_an_automatic_warm_up_is_judged_by_a_pilot(monkeypatch):
    """Requests behind the pilot are counted at once, those of the pilot when its cut is known."""
    monkeypatch.setattr(recorder, 'PILOT_ROWS', 500)
    work = {'workload': {'iodepth': 64, 'number_ios': 3000}, 'target': {'kind': 'exponential'}}
    counted = run(**work, run={'record': 'histogram'}).report
    pilot = run(**(work | {'workload': {'iodepth': 64, 'number_ios': 500}})).report
    assert 0 < counted['warmup_requests'] == pilot['warmup_requests']
    again = run(**work, run={'warmup': str(counted['warmup_requests'])}).report
    assert counted['requests_measured'] == 3000 - counted['warmup_requests']
    assert counted['latency_ns']['mean'] == again['latency_ns']['mean']


def test_the_checkers_that_need_every_row_say_that_they_were_left_out():
    reports = [recorded('closed loop', mode).report for mode in ('full', 'histogram')]
    full, counted = (report['checks'] for report in reports)
    assert set(counted['skipped']) == {'data', "Little's law"}
    assert set(full['ran']) == set(counted['ran']) | set(counted['skipped'])
    assert full['skipped'] == []


@pytest.mark.parametrize(('column', 'change', 'said'), [(25, 1, 'once'), (4, 10**9, 'go back')])
def test_a_request_that_goes_wrong_is_noticed_without_a_trace(column, change, said):
    world = world_after(workload={'number_ios': 300}, run={'record': 'histogram'})
    assert invariants.check(world) == []
    row = int(world.tr[int(recorder.T_ROWS)]) + 250 * ROW_WORDS
    world.tr[row + column] += change
    recorder.count_request(world.tr, np.uint64(row))
    assert any(said in text and 'serial' in text for text in invariants.check(world))


def test_a_row_that_is_lost_is_noticed():
    world = world_after(workload={'number_ios': 300}, run={'record': 'histogram', 'warmup': 'off'})
    world.tr[int(recorder.T_REAPED)] -= 1
    assert any('300 requests were issued and 299' in text for text in invariants.check(world))


# ---- what is left behind


def test_a_histogram_run_leaves_histograms_and_no_request_table(tmp_path):
    result = run(
        workload={'rw': 'randrw', 'iodepth': 4, 'number_ios': 1500},
        run={'record': 'histogram', 'warmup': '500'},
    )
    place = result.save(tmp_path)
    assert {p.name for p in place.iterdir()} == {
        'histograms.parquet',
        'summary.csv',
        'config.toml',
        'report.json',
    }
    table = pd.read_parquet(place / 'histograms.parquet')
    report = json.loads((place / 'report.json').read_text())
    assert table['time'].nunique() == 2 + len(STAGES)
    latency = table[table['time'] == 'latency_ns']
    assert latency['requests'].sum() == report['requests_measured'] == 1000
    for op in ('read', 'write'):
        requests = report['jobs']['job1'][op]['requests']
        assert latency[latency['op'] == op]['requests'].sum() == requests
    assert load(toml=str(place / 'config.toml')) == result.config


def test_summary_has_the_intervals_beside_the_values():
    result = recorded('closed loop', 'full')
    row = result.summary.set_index('metric').loc['latency_ns.mean']
    assert [row['low'], row['high']] == result.report['intervals']['values']['latency_ns.mean']
    assert row['low'] < row['value'] < row['high']


def test_a_percentile_that_rests_on_fewer_than_ten_requests_is_not_said():
    report = run(workload={'number_ios': 1100}, run={'warmup': '101'}).report
    assert report['requests_measured'] == 999
    assert report['latency_ns']['p90'] is not None
    assert report['latency_ns']['p99'] is None
    assert 'measure 1000 or more' in report['not_reported']['latency_ns.p99']
    enough = run(workload={'number_ios': 1100}, run={'warmup': '100'}).report
    assert enough['latency_ns']['p99'] is not None
    assert 'latency_ns.p99' not in enough['not_reported']
    assert '10000' in enough['not_reported']['latency_ns.p999']


def test_a_run_that_is_too_short_or_has_phases_has_no_intervals(tmp_path):
    found = run(workload={'number_ios': 20}).report['intervals']
    assert found['values'] == {}
    assert 'too short' in found['note']
    job = tmp_path / 'two.fio'
    job.write_text('[global]\nnumber_ios=300\n[a]\nrw=read\n[b]\nstonewall\nrw=write\n')
    assert 'phases' in run(load(fio=str(job))).report['intervals']['note']


@pytest.mark.parametrize(
    ('keys', 'says'),
    [
        ({'sample_every': 5}, 'record=sampled'),
        ({'record': 'sampled', 'sample_every': 0}, 'sample_every'),
        ({'max_replications': 5}, 'precision'),
        ({'precision': 'p98:0.02'}, 'p98'),
        ({'precision': 'p99'}, 'share'),
        ({'precision': 'p99:2'}, 'share'),
        ({'precision': 'p99:0.02', 'replications': 1}, 'at least 2'),
        ({'precision': 'p99:0.02', 'replications': 9, 'max_replications': 8}, 'below'),
    ],
)
def test_keys_that_change_nothing_or_make_no_sense_are_refused(keys, says):
    with pytest.raises(ConfigError, match=says):
        load(run=keys)


def test_precision_is_written_as_text_or_as_a_table(tmp_path):
    config = tmp_path / 'config.toml'
    config.write_text('[run]\nprecision = { p99 = 0.02, iops = 0.01 }\n')
    ours = load(toml=str(config))
    assert ours.run.precision == 'latency_ns.p99:0.02,iops:0.01'
    assert ours == load(run={'precision': 'p99:0.02, iops:0.01'})
    assert ours.run.replications == 5
    config.write_text(ours.to_toml())
    assert load(toml=str(config)) == ours
