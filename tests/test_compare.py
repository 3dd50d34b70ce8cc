"""python -m sim compare: pairs under common random numbers, verdicts, and what is refused."""

import json

import numpy as np
import pandas as pd
import pytest

from sim.__main__ import main
from sim.config import load
from sim.errors import ConfigError
from sim.pools import Here, Processes
from sim.record import STAGES
from sim.run import run
from sim.studies import compare as module
from sim.studies.compare import Side, compare, differing_work, pair_requests, verdict_of

WORK = {'iodepth': 8, 'number_ios': 1500}


def side(work=None, **sections):
    sections = {'workload': WORK | (work or {}), 'target': {'kind': 'exponential'}} | sections
    return Side(config=load(**sections))


def against(b, a=None, replications=4, **how):
    return compare(a or side(), b, Here(), replications=replications, **how)


# ---- what it finds


def test_a_config_does_not_differ_from_itself():
    found = against(side())
    assert found['differs'] == {}
    for metric, entry in found['metrics'].items():
        assert entry['verdict'] == 'no difference', metric
        assert entry['difference'] == entry['low'] == entry['high'] == 0
    requests = found['requests']
    assert requests['same'] == 1.0
    assert requests['shares'] == {'faster': 0, 'equal': 1, 'slower': 0}


def test_a_dearer_kick_is_found_where_it_is_and_nowhere_else():
    one = {'iodepth': 1}
    found = against(side(one, costs={'kick.exit_to_kernel_roundtrip': '3us'}), a=side(one))
    assert list(found['differs']) == ['costs.kick.exit_to_kernel_roundtrip']
    latency = found['metrics']['latency_ns.mean']
    assert latency['low'] > 0
    assert latency['verdict'].startswith('slower by')
    assert found['metrics']['iops']['verdict'].startswith('lower by')
    stages = {s: found['requests']['differences'][f'{s}_ns']['mean'] for s in STAGES}
    assert stages['kick'] + stages['fetch'] > 0.9 * sum(max(0, took) for took in stages.values())
    assert abs(stages['done']) < 0.02 * stages['fetch']
    assert sum(stages.values()) == pytest.approx(
        found['requests']['differences']['latency_ns']['mean']
    )


def test_common_random_numbers_are_what_makes_the_interval_narrow():
    b = side(costs={'kick.exit_to_kernel_roundtrip': '3us'})
    entry = against(b, replications=6)['metrics']['latency_ns.mean']
    half = (entry['high'] - entry['low']) / 2
    assert entry['unpaired_half_width'] > 4 * half


def test_the_difference_of_two_disks_is_the_true_one():
    """Constant service and one request at a time: each differs by what the disks differ by."""
    a = side(target={'kind': 'constant', 'service': '80us'}, work={'iodepth': 1})
    b = side(target={'kind': 'constant', 'service': '90us'}, work={'iodepth': 1})
    found = compare(a, b, Here(), replications=2)
    assert found['requests']['differences']['done_ns']['mean'] == pytest.approx(10_000, abs=1)
    assert found['requests']['shares']['slower'] == 1.0


def test_the_pool_changes_nothing():
    b = side(device={'event_idx': False})
    here = compare(side(), b, Here(), replications=3)
    there = compare(side(), b, Processes(2), replications=3)
    assert here['metrics'].keys() == there['metrics'].keys()
    assert here['metrics'] == there['metrics']
    assert here['requests'] == there['requests']


def test_b_runs_under_the_seed_of_a():
    found = against(side(run={'seed': 7}), replications=2)
    assert found['seeds'][0] == 1
    assert any('under the seed of A' in note for note in found['notes'])
    assert found['metrics']['latency_ns.mean']['difference'] == 0


# ---- pairs of requests


def frame_of(lat, lba=None, measured=None, clone=0):
    count = len(lat)
    columns = {'clone': clone, 'serial': range(1, count + 1), 'op': 'read', 'bytes': 4096}
    columns |= {'lba': lba or list(range(count)), 'measured': measured or [True] * count}
    columns |= dict.fromkeys(module.PAIRED, pd.array(lat, dtype='Int64'))
    return pd.DataFrame(columns)


def test_pairs_are_the_nth_of_each_clone_and_only_where_both_are_the_same():
    a = pd.concat([frame_of([10, 20, 30]), frame_of([5, 5], clone=1)])
    b = pd.concat([frame_of([11, 20, 25], lba=[0, 1, 99]), frame_of([5, 9], clone=1)])
    found = pair_requests(a, b)
    assert found['pairs'] == 4
    assert found['same'] == 4 / 5
    assert found['means']['latency_ns'] == (1 + 0 + 0 + 4) / 4
    assert found['shares'] == {'faster': 0, 'equal': 0.5, 'slower': 0.5}


def test_the_warm_up_of_either_is_left_out():
    a = frame_of([1, 1, 1, 1], measured=[False, True, True, True])
    b = frame_of([9, 9, 2, 1], measured=[False, False, True, True])
    assert pair_requests(a, b)['pairs'] == 2
    assert pair_requests(a, b)['means']['latency_ns'] == 0.5


def test_one_replication_has_intervals_for_its_requests_only():
    found = against(side(device={'event_idx': False}), replications=1)
    assert found['metrics']['iops']['verdict'] == 'one replication: no interval'
    entry = found['requests']['differences']['latency_ns']
    assert entry['low'] <= entry['mean'] <= entry['high']


def test_paired_batches_hold_the_true_difference_as_often_as_they_say():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(300):
        noise = rng.normal(0, 500, 2001)
        delta = (100 + noise[1:] + 0.8 * noise[:-1]).astype(np.int64)  # neighbours hang together
        sums, sizes = module._batches(delta)
        ratio = module.stats.ratio_of_batches(sums, sizes)
        hits += abs(ratio.value - 99.5) <= (ratio.half_width or 0)
    assert 0.91 <= hits / 300 <= 0.99


# ---- words


@pytest.mark.parametrize(
    ('metric', 'relative', 'half', 'words'),
    [
        ('latency_ns.mean', -0.031, 0.004, 'faster by 3.1 % ± 0.40'),
        ('fio_lat_ns.p99', 0.25, 0.01, 'slower by 25.0 % ± 1.0'),
        ('iops', 0.0123, 0.0011, 'higher by 1.2 % ± 0.11'),
        ('busy.vhost', -0.5, 0.0, 'lower by 50.0 % ± 0.0'),
        ('latency_ns.p99', 0.001, 0.004, 'no difference within 0.50 %'),
        ('latency_ns.p99', 0.0, 0.0, 'no difference'),
        ('latency_ns.p99', 0.2, None, 'one replication: no interval'),
    ],
)
def test_a_verdict_is_in_words(metric, relative, half, words):
    assert verdict_of(metric, relative, half) == words


# ---- what is refused


@pytest.mark.parametrize(
    ('work', 'says'),
    [
        ({'bs': '8k'}, 'bs'),
        ({'rw': 'randwrite'}, 'rw'),
        ({'number_ios': 1000}, 'number_ios'),
        ({'rate_iops': 5000}, 'rate_iops'),
        ({'randseed': 3}, 'randseed'),
    ],
)
def test_other_requests_are_refused_unless_they_are_wanted(work, says):
    with pytest.raises(ConfigError, match=says):
        against(side(work))
    found = against(side(work), replications=2, any_work=True)
    assert any(says in note for note in found['notes'])


@pytest.mark.parametrize('work', [{'iodepth': 16}, {'ioengine': 'io_uring'}])
def test_how_requests_are_handed_over_is_fair_to_compare(work):
    assert differing_work(side().config, side(work).config) == []


def test_the_size_of_a_lun_that_is_used_whole_changes_the_places():
    small = side(target={'kind': 'exponential', 'size': '4g'})
    assert 'target.size' in differing_work(side().config, small.config)[0]


# ---- the command


@pytest.fixture
def toml(tmp_path):
    path = tmp_path / 'base.toml'
    path.write_text('[workload]\niodepth = 8\nnumber_ios = 1500\n[target]\nkind = "exponential"\n')
    return str(path)


def test_the_command_says_what_differs_and_by_how_much(toml, capsys):
    arguments = ['compare', toml, toml, '--set-b', 'device.event_idx=off', '--replications', '3']
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert 'device.event_idx: on -> off' in told
    assert '3 paired replications' in told
    assert 'requests_per_kick' in told
    assert '100.0% are the same' in told
    assert main([*arguments, '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert found['replications'] == 3
    assert {'a', 'b', 'low', 'high', 'verdict'} <= found['metrics']['iops'].keys()


def test_saved_runs_are_compared_as_they_are(toml, tmp_path, capsys, monkeypatch):
    for switch in ('on', 'off'):
        sets = ['--set', f'device.event_idx={switch}', '--out', str(tmp_path / switch)]
        assert main(['run', toml, *sets]) == 0
    folders = [str(next((tmp_path / switch).iterdir())) for switch in ('on', 'off')]
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(module, 'run', None)  # nothing is simulated
        assert main(['compare', *folders, '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert found['replications'] == 1
    fresh = [run(load(toml=toml, sets=[f'device.event_idx={s}'])).report for s in ('on', 'off')]
    assert found['metrics']['kicks']['a'] == fresh[0]['kicks']
    assert found['metrics']['kicks']['b'] == fresh[1]['kicks']
    assert main(['compare', *folders, '--json', '--replications', '2']) == 0
    assert json.loads(capsys.readouterr().out)['replications'] == 2


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        (['nosuch.toml', 'nosuch.toml'], 'nosuch.toml'),
        (['.', '.'], 'report.json'),
        (['BASE', 'BASE', '--set-b', 'workload.bs=8k'], 'bs'),
        (['BASE', 'BASE', '--set', 'workload.iodepht=8'], 'iodepth'),
        (['BASE', 'BASE', '--replications', '0'], 'replications'),
    ],
)
def test_nonsense_is_one_line_and_exit_code_2(arguments, says, toml, capsys):
    assert main(['compare', *[toml if a == 'BASE' else a for a in arguments]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
