"""Replications: seeds, intervals across runs, precision, and that the pool does not matter."""

import json
import statistics

import numpy as np
import pandas as pd
import pytest

from sim import replicate as module
from sim.__main__ import main
from sim.analysis import stats
from sim.config import load
from sim.pools import Here, Processes
from sim.replicate import combine, replicate, replication, seed_of, simulate, wanted_of
from sim.run import run

WORK = {'workload': {'iodepth': 8, 'number_ios': 1200}, 'target': {'kind': 'exponential'}}


def config_of(**run_keys):
    return load(**WORK, run=run_keys)


def test_replication_0_is_the_config_itself_and_the_others_differ_in_their_seeds():
    config = load(workload={'number_ios': 300, 'randseed': 5}, run={'replications': 3, 'seed': 9})
    seeds = [replication(config, number).run.seed for number in range(3)]
    randseeds = [replication(config, number).jobs[0].randseed for number in range(3)]
    assert seeds[0] == 9
    assert randseeds[0] == 5
    assert len(set(seeds)) == len(set(randseeds)) == 3
    plain = load(workload={'number_ios': 300, 'randseed': 5}, run={'seed': 9})
    assert replication(config, 0) == plain
    assert run(plain).report['digest'] == simulate(config).report['replications']['digests'][0]


def test_seeds_of_replications_are_valid_and_do_not_meet():
    seeds = {seed_of(seed, number) for seed in range(20) for number in range(200)}
    assert len(seeds) == 20 * 200
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_numbers_are_means_and_intervals_are_students():
    result = simulate(config_of(replications=4))
    singles = [run(replication(result.config, number)).report for number in range(4)]
    report, values = result.report, result.report['intervals']['values']
    for metric in ('latency_ns.mean', 'latency_ns.p90', 'fio_lat_ns.p50', 'stages_ns.done', 'iops'):
        section, _, name = metric.partition('.')
        each = [s[section][name] if name else s[section] for s in singles]
        found = report[section][name] if name else report[section]
        half = 3.182446 * statistics.stdev(each) / 2
        assert found == pytest.approx(statistics.mean(each))
        assert values[metric] == pytest.approx([found - half, found + half]), metric
    for metric in ('busy.vhost', 'kicks', 'lines.vhost.hits', 'jobs.job1.latency_ns.mean'):
        assert values[metric][0] <= values[metric][1], metric
    assert report['latency_ns']['max'] == max(s['latency_ns']['max'] for s in singles)
    assert report['requests'] == 1200
    assert report['replications']['count'] == 4
    assert report['intervals']['method'] == 'replications'


def test_a_percentile_that_one_replication_lacks_is_lacking():
    report = simulate(load(workload={'number_ios': 1100}, run={'replications': 2})).report
    assert report['latency_ns']['p999'] is None
    assert report['not_reported']['latency_ns.p999'].startswith('replication 0:')
    assert 'latency_ns.p999' not in report['intervals']['values']


def test_replications_go_on_until_the_interval_is_narrow_enough():
    loose = simulate(config_of(precision='mean:0.2')).report['replications']
    assert loose['count'] == 5
    assert loose['reached'] is True
    tight = simulate(config_of(precision='mean:0.01')).report
    about = tight['replications']
    assert 5 < about['count'] <= 50
    low, high = tight['intervals']['values']['latency_ns.mean']
    half = (high - low) / 2 / tight['latency_ns']['mean']
    assert half == pytest.approx(about['precision']['latency_ns.mean']['reached'])
    assert half <= 0.01
    fewer = combine(tight_config := config_of(precision='mean:0.01'), [
        run(replication(tight_config, number)) for number in range(about['count'] - 1)
    ]).report['replications']  # fmt: skip
    assert fewer['precision']['latency_ns.mean']['reached'] > 0.01


def test_when_the_budget_ends_first_it_is_said_clearly(capsys):
    few = ['--set', 'workload.number_ios=1200', '--set', 'target.kind=exponential']
    budget = ['--precision', 'p99:0.001', '--set', 'run.max_replications=6']
    assert main(['run', *few, *budget, '--json']) == 0
    about = json.loads(capsys.readouterr().out)['replications']
    assert about['count'] == 6
    assert about['reached'] is False
    assert 'after 6 replications, ± 0.10% was wanted' in about['note']
    assert main(['run', *few, *budget]) == 0
    assert 'not reached: latency_ns.p99' in capsys.readouterr().out


def test_a_percentile_that_is_never_said_does_not_eat_the_budget():
    about = simulate(config_of(precision='p999:0.01')).report['replications']
    assert about['count'] == 5
    assert 'not reported' in about['note']


def test_the_pool_changes_nothing():
    config = config_of(precision='mean:0.012', max_replications=12)
    here, there = replicate(config, Here()).report, replicate(config, Processes(2)).report
    for own in ('wall_seconds', 'wall_io_per_second'):
        del here[own], there[own]
    assert there == here


def test_the_rule_holds_the_truth_about_as_often_as_it_says():
    """Stopping as soon as it looks narrow costs a little: 95 % becomes 92 or more."""
    rng = np.random.default_rng(11)
    hits = 0
    for _ in range(1500):
        values = rng.normal(1, 0.03, 200)
        count = 5
        while module._relative(values[:count]) > 0.02:
            count += 1
        found = stats.mean_interval(values[:count])
        hits += abs(found.mean - 1) <= found.half_width
    assert 0.91 <= hits / 1500 <= 0.97


def test_the_folder_has_the_numbers_of_every_replication(tmp_path):
    result = simulate(config_of(replications=3))
    place = result.save(tmp_path)
    table = pd.read_csv(place / 'replications.csv')
    assert sorted(table['replication'].unique()) == [0, 1, 2]
    assert table['seed'].unique().tolist() == result.report['replications']['seeds']
    means = table[table['metric'] == 'latency_ns.mean']['value']
    assert means.mean() == pytest.approx(result.report['latency_ns']['mean'])
    first = run(replication(result.config, 0)).requests
    pd.testing.assert_frame_equal(
        pd.read_parquet(place / 'requests.parquet'), first, check_categorical=False
    )
    assert load(toml=str(place / 'config.toml')) == result.config


def test_violations_name_their_replication(monkeypatch):
    real = module.run

    def broken(config):
        result = real(config)
        if config.run.seed != 1:
            result.report['violations'] = ['data: lost']
        return result

    monkeypatch.setattr(module, 'run', broken)
    found = simulate(config_of(replications=2)).violations
    assert found == [f'replication 1 (seed {seed_of(1, 1)}): data: lost']


def test_precision_may_name_several_numbers():
    config = config_of(precision='p99:0.02,iops:0.01')
    assert wanted_of(config) == {'latency_ns.p99': 0.02, 'iops': 0.01}


@pytest.mark.parametrize(
    'arguments', [['--jobs', '2'], ['--backend', 'dask'], ['--scheduler', 'tcp://x:1']]
)
def test_where_to_run_has_no_meaning_for_one_run(arguments, capsys):
    assert main(['run', '--set', 'workload.number_ios=20', *arguments]) == 2
    assert '--replications' in capsys.readouterr().err
