"""sim explain, diff, whatif, budget: known causes are found, differences add up, bounds are hit."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sim import costs
from sim.__main__ import main
from sim.analysis.explain import explain
from sim.config import ConfigError, load
from sim.pools import Here
from sim.record import STAGES
from sim.run import run
from sim.studies import budget
from sim.studies.compare import Side
from sim.studies.diff import diff
from sim.studies.whatif import FIELDS, GROUPS, STAGE_COSTS, edits_of, groups_of, varied, whatif

ONE = {'iodepth': 1, 'number_ios': 40}


def json_of(capsys, *arguments, code=0):
    assert main([*arguments, '--json']) == code
    return json.loads(capsys.readouterr().out)


# ------------------------------------------------------------------------------------------ explain


def made_up(count=2000, slow=()):
    """A frame of requests: 1 us per stage, with more of a stage for some serials."""
    serial = np.arange(1, count + 1)
    stages = {stage: np.full(count, 1000) for stage in STAGES}
    for stage, serials, extra in slow:
        stages[stage][np.asarray(serials) - 1] += extra
    frame = pd.DataFrame({f'{stage}_ns': values for stage, values in stages.items()})
    frame['latency_ns'] = frame.sum(axis=1)
    frame['serial'] = serial
    frame['t_arrive_ns'] = serial * 20_000
    frame['t_submit_ns'] = frame['t_arrive_ns'] + frame['submit_ns']
    frame['t_complete_ns'] = frame['t_arrive_ns'] + frame['latency_ns']
    frame['op'] = np.where(serial % 10 == 0, 'write', 'read')
    frame['job'], frame['clone'], frame['queue'] = 'j', 0, serial % 2
    frame['bytes'], frame['lba'], frame['outcome'] = 4096, 0, 'ok'
    frame['measured'] = True
    return frame


def test_the_stage_that_slows_the_tail_comes_first():
    slow = range(10, 2000, 200)  # ten requests, all of them writes
    more = range(20, 2000, 200)
    found = explain(made_up(slow=[('used', slow, 90_000), ('fetch', more, 30_000)]))
    assert found['tail_requests'] == 20
    stages = found['stages']
    assert list(stages)[:2] == ['used', 'fetch']
    assert stages['used']['added'] == pytest.approx(45_000)
    assert stages['fetch']['added'] == pytest.approx(15_000)
    assert (stages['used']['largest_in'], stages['fetch']['largest_in']) == (0.5, 0.5)
    assert stages['used']['share'] == pytest.approx(0.75)
    assert sum(entry['added'] for entry in stages.values()) == pytest.approx(
        found['latency']['added']
    )
    assert found['latency']['middle'] == 10_000
    (row,) = [row for row in found['crowd'] if row['column'] == 'op']
    assert (row['value'], row['tail']) == ('write', 1.0)
    examples = found['examples']
    assert examples['typical']['latency_ns'] == 10_000
    assert examples['worst']['stages_ns']['used'] == 91_000
    assert examples['tail']['latency_ns'] in (100_000, 40_000)


def test_a_tail_of_too_few_requests_is_no_tail():
    with pytest.raises(ValueError, match='measure 1000 or more'):
        explain(made_up(count=900))


@pytest.fixture(scope='module')
def slowed():
    """A run whose disk is slow for a while, and the same without."""
    work = {'iodepth': 2, 'number_ios': 1000}
    disk = {'kind': 'constant', 'service': '50us', 'lanes': 4}
    slow = {'slow_from': '5ms', 'slow_for': '500us', 'slow_by': 7}
    off = {'warmup': 'off'}
    configs = [load(workload=work, target=disk | more, run=off) for more in (slow, {})]
    return [(config, run(config)) for config in configs]


def test_a_disk_that_is_slow_for_a_while_is_named(slowed):
    found = explain(slowed[0][1].requests)
    assert next(iter(found['stages'])) == 'done'
    # and with the cause gone, so is the effect
    without = explain(slowed[1][1].requests)
    assert without['stages']['done']['added'] < found['stages']['done']['added'] / 10


def test_explain_reads_a_saved_run_or_makes_one(slowed, tmp_path, capsys):
    config, result = slowed[0]
    place = result.save(tmp_path)
    saved = json_of(capsys, 'explain', str(place))
    toml = tmp_path / 'a.toml'
    toml.write_text(config.to_toml())
    figure = tmp_path / 'a.png'
    fresh = json_of(capsys, 'explain', str(toml), '--figure', str(figure))
    assert saved == fresh
    assert figure.read_bytes().startswith(b'\x89PNG')
    assert main(['explain', str(place), '--slowest', '5%']) == 0
    text = capsys.readouterr().out
    assert 'the slowest 5.00% of' in text
    assert text.count('#') > 20


@pytest.mark.parametrize(
    ('arguments', 'problem'),
    [
        (['--slowest', '60%'], 'up to 50%'),
        (['--slowest', '0.1%'], 'measure'),
        (['--set', 'run.record=histogram'], 'keeps no requests'),
        (['--figure', '/nosuch/a.png'], 'folder does not exist'),
        (['--figure', 'a.jpeg'], 'end the name in .png or .svg or .pdf'),
        (['--figure', '/.png'], 'end the name'),
    ],
)
def test_what_cannot_be_explained_is_refused(tmp_path, capsys, arguments, problem):
    toml = tmp_path / 'a.toml'
    toml.write_text('[workload]\nnumber_ios = 50\n')
    assert main(['explain', str(toml), *arguments]) == 2
    assert problem in capsys.readouterr().err


def test_a_folder_is_no_figure(tmp_path, capsys):
    (tmp_path / 'a.png').mkdir()
    assert main(['explain', str(tmp_path / 'no.toml'), '--figure', str(tmp_path / 'a.png')]) == 2
    assert 'is a folder; give the name of a file' in capsys.readouterr().err


# --------------------------------------------------------------------------------------------- diff


@pytest.mark.parametrize(
    ('arguments', 'problem'),
    [
        (['--show', '-1'], '--show -1: give how many'),
        (['--out', 'a.txt'], 'end the name in .csv or .parquet'),
        (['--out', '/nosuch/a.csv'], 'folder does not exist'),
    ],
)
def test_diff_says_what_is_wrong_before_it_simulates(tmp_path, capsys, arguments, problem):
    assert main(['diff', str(tmp_path / 'no.toml'), 'no.toml', *arguments]) == 2
    assert problem in capsys.readouterr().err


def test_diff_finds_the_requests_and_the_stage(slowed):
    (first, _), (second, _) = slowed
    found, pairs = diff(Side(config=second), Side(config=first))
    assert found['same'] == 1.0
    assert len(pairs) == found['pairs'] > 900
    groups = found['groups']
    assert sum(groups[name]['pairs'] for name in ('slower', 'faster', 'equal')) == found['pairs']
    for group in groups.values():
        assert sum(group['stages_ns'].values()) == pytest.approx(group['latency_ns'], abs=1e-6)
    assert max(groups['slower']['stages_ns'], key=groups['slower']['stages_ns'].get) == 'done'
    most = found['slowed_most'][0]
    assert most['latency_b_ns'] - most['latency_a_ns'] == sum(most['stages_ns'].values()) > 250_000
    # Nothing differs before the disk is slow.
    begins = first.target.slow_from
    arrived = pairs.merge(
        slowed[1][1].requests[['serial', 't_complete_ns']], left_on='serial_a', right_on='serial'
    )
    early = arrived[arrived['t_complete_ns'] < begins]
    assert (early['latency_ns_a'] == early['latency_ns_b']).all()
    assert found['first_difference']['serial'] > early['serial_a'].max()


def test_a_run_does_not_differ_from_itself(slowed, tmp_path, capsys):
    config, result = slowed[1]
    place = result.save(tmp_path)
    out = tmp_path / 'pairs.csv'
    toml = tmp_path / 'a.toml'
    toml.write_text(config.to_toml())
    assert main(['diff', str(place), str(toml), '--out', str(out)]) == 0
    assert 'no request differs in anything' in capsys.readouterr().out
    table = pd.read_csv(out)
    assert (table['latency_ns_a'] == table['latency_ns_b']).all()


def test_diff_refuses_what_is_not_comparable(slowed):
    config = slowed[1][0]
    other = load(workload={'iodepth': 2, 'number_ios': 1000, 'bs': '8k'}, target={'kind': 'null'})
    with pytest.raises(ConfigError, match='do not issue the same requests'):
        diff(Side(config=config), Side(config=other))


# ------------------------------------------------------------------------------------------- whatif


def test_of_one_request_at_a_time_a_freed_cost_is_gained_exactly():
    config = load(workload=ONE, target={'kind': 'constant', 'service': '50us'})
    base, table = run(config).requests, costs.of_config(config)
    for name in ('irq_inject', 'lio_submit'):
        changed, free = varied(config, [(name, 0.0)])
        other = run(changed, costs_override=free).requests
        gained = (base['latency_ns'] - other['latency_ns']).to_numpy(dtype=np.int64)
        expected = getattr(table, name) * 1e9 / config.host.cpu_hz
        assert np.abs(gained - expected).max() <= 2, name  # timestamps are whole ns
        assert expected > 100


def test_a_stage_without_its_costs_is_the_stage_that_gains():
    config = load(workload=ONE, target={'kind': 'constant', 'service': '50us'})
    for stage in ('avail', 'issue', 'report', 'used', 'irq', 'done'):
        found = whatif(config, [[(stage, 0.0)]], Here())
        (row,) = found['variants']
        gained = {name: row['gain'][f'stages_ns.{name}']['difference'] for name in STAGES}
        if stage in ('issue', 'report'):  # one hop is in both
            assert gained[stage] < -500
        else:
            assert min(gained, key=gained.get) == stage, gained
        total = row['gain']['latency_ns.mean']['difference']
        assert sum(gained.values()) == pytest.approx(total, abs=1)


def test_a_factor_of_one_changes_nothing_and_scaling_is_in_proportion():
    config = load(workload=ONE, target={'kind': 'constant', 'service': '50us'})
    found = whatif(config, edits_of([], ['vhost=1', 'disk=2'], config), Here())
    one, two, both = found['variants']
    assert one['gain']['latency_ns.mean']['difference'] == 0
    assert one['changed'] == {}
    assert two['gain']['stages_ns.done']['difference'] == pytest.approx(50_000, abs=2)
    assert both['gain']['latency_ns.mean'] == two['gain']['latency_ns.mean']


def test_a_parameter_of_the_preset_can_be_named():
    config = load(workload=ONE)
    name = 'irq.inject_to_running_vcpu_posted'
    changed, table = varied(config, [(name, 0.0)])
    assert changed.costs[name] == 0
    assert table.irq_inject == 0
    assert replace(table, irq_inject=costs.of_config(config).irq_inject) == costs.of_config(config)
    with pytest.raises(ConfigError, match='only times can be scaled'):
        varied(config, [('kick.wakeup_share_of_signal', 0.5)])


def test_all_is_every_group_and_replications_give_intervals(capsys, tmp_path):
    toml = tmp_path / 'a.toml'
    toml.write_text('[workload]\nnumber_ios = 30\n[target]\nkind = "exponential"\n')
    found = json_of(capsys, 'whatif', str(toml), '--free', 'all', '--replications', '2')
    names = [row['edits'][0][0] for row in found['variants']]
    assert set(GROUPS) - set(names) == {'reactor', 'iothread'}
    assert found['variants'][0]['gain']['latency_ns.mean']['half_width'] is not None
    assert main(['whatif', str(toml), '--free', 'irq,lines']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith('irq lines')  # together, last


@pytest.mark.parametrize(
    ('driver', 'mine', 'other'),
    [('vhost-user-scsi-pci', 'reactor', 'lio'), ('virtio-scsi-pci', 'iothread', 'vhost')],
)
def test_each_device_has_costs_of_its_own(driver, mine, other):
    config = load(workload=ONE, device={'driver': driver})
    assert mine in groups_of(config)
    assert other not in groups_of(config)
    found = whatif(config, [[(mine, 0.0)], [(other, 0.0)]], Here())
    gains = [row['gain']['latency_ns.mean']['difference'] for row in found['variants']]
    assert gains[0] < -500
    assert gains[1] == 0


def test_what_names_stand_for_is_there():
    listed = {name for fields in (*GROUPS.values(), *STAGE_COSTS.values()) for name in fields}
    assert listed <= set(FIELDS)
    assert {*STAGE_COSTS, 'kick', 'irq'} == set(STAGES)


@pytest.mark.parametrize(
    ('free', 'scale', 'problem'),
    [
        (['irqs'], [], "nearest is 'irq'"),
        ([], ['irq'], 'write NAME=FACTOR'),
        ([], ['irq=-1'], 'write NAME=FACTOR'),
        (['irq,irq'], [], 'there twice'),
        ([], [], 'say what'),
    ],
)
def test_a_wrong_name_is_refused(free, scale, problem):
    config = load(workload=ONE)

    def asked():
        return whatif(config, edits_of(free, scale, config), Here())

    with pytest.raises(ConfigError, match=problem):
        asked()


# ------------------------------------------------------------------------------------------- budget


def test_the_boundary_is_where_arithmetic_has_it(capsys, tmp_path):
    """One request at a time and a constant disk: latency is service plus what the rest takes."""
    toml = tmp_path / 'a.toml'
    toml.write_text('[workload]\nnumber_ios = 50\n[target]\nkind = "constant"\n')
    base = run(load(toml=toml, sets=['target.service=50us'])).report['latency_ns']['mean']
    found = json_of(
        capsys, 'budget', str(toml), '--target', 'mean<100us', '--find',
        'target.service=20us..200us', '--resolution', '0.5%', '--replications', '2',
    )  # fmt: skip
    (row,) = found['rows']
    service = 100_000 - (base - 50_000)
    assert row['what'] == 'met up to a point'
    assert row['met'][1] <= service <= row['failed']
    assert row['failed'] - row['met'][1] <= 0.006 * service
    assert all(point['verdict'] in ('met', 'failed') for point in row['points'])


def test_each_value_of_another_key_is_searched(capsys, tmp_path):
    toml = tmp_path / 'a.toml'
    toml.write_text('[workload]\nnumber_ios = 200\n')
    arguments = [
        'budget', str(toml), '--target', 'iops>30k', '--find', 'workload.iodepth=1..8',
        '--over', 'target.service=80us,160us', '--replications', '2', '--resolution', '10%',
    ]  # fmt: skip
    found = json_of(capsys, *arguments)
    edges = [row['met'][0] for row in found['rows']]
    assert [row['what'] for row in found['rows']] == ['met from a point on'] * 2
    assert [row['failed'] for row in found['rows']] == [edge - 1 for edge in edges]
    assert edges[0] < edges[1]
    assert main(arguments) == 0
    assert 'target.service=160us' in capsys.readouterr().out


def searched(metric, targets, low=0, high=1000, resolution=0.01, powers=False):
    """bisect() on a made-up metric: a function of value and replication."""
    search = budget.Search(name='x', low=low, high=high, say=str, powers=powers)

    class Fake:
        def map(self, function, calls):
            for value, number in calls:
                numbers = {'latency_ns.p99': metric(value, number)}
                yield number, {'numbers': numbers, 'reasons': {}}, []

    bounds = [budget.parse_target(text) for text in targets]
    return budget.bisect(search, bounds, lambda value: value, Fake(), 4, resolution)


def test_bisection_finds_one_boundary_in_either_direction():
    up = searched(lambda value, n: value * 1000 + n, ['p99<400us'], low=10)
    assert up['met'][0] == 10
    assert up['met'][1] < 400 <= up['failed']
    assert up['failed'] - up['met'][1] <= 4
    down = searched(lambda value, n: (1000 - value) * 1000, ['p99<400us'])
    assert down['met'][1] == 1000
    assert down['failed'] <= 600 < down['met'][0]


def test_what_has_no_boundary_is_told_apart():
    assert searched(lambda v, n: 10, ['p99<400us'])['what'] == 'met from end to end'
    assert searched(lambda v, n: 10**9, ['p99<400us'])['what'] == 'met at neither end'
    assert searched(lambda v, n: v * 1000, ['p99<400us', 'p99>900us'])['met'] is None


def test_where_chance_decides_there_is_a_bracket():
    noise = np.random.default_rng(3).normal(0, 20_000, (1001, 64))
    found = searched(lambda v, n: v * 1000 + noise[v, n], ['p99<400us'], low=10, resolution=0.001)
    assert found['met'][1] < 400 < found['failed']
    verdicts = [point['verdict'] for point in found['points']]
    assert 'undecided' in verdicts
    assert {point['runs'] for point in found['points']} > {4}  # more where it is close
    for point in found['points']:
        _, low, high = point['metrics']['latency_ns.p99']
        assert point['verdict'] == (
            'met' if high < 400_000 else 'failed' if low >= 400_000 else 'undecided'
        )


def test_rings_have_powers_of_two():
    found = searched(lambda v, n: v * 1000, ['p99<300us'], low=4, high=1024, powers=True)
    assert (found['met'], found['failed']) == ([4, 256], 512)


def test_a_load_is_an_open_loop_of_all_clones():
    options = budget_options()
    config = budget.configured(options, ['workload.numjobs=4', 'workload.rw=randrw'], 100_000)
    (job,) = config.jobs
    assert job.io_submit_mode == 'offload'
    assert job.rate_process == 'poisson'
    assert (job.rate_iops.read, job.rate_iops.write) == (12_500, 12_500)
    assert job.iodepth == 128


def budget_options():
    from types import SimpleNamespace

    return SimpleNamespace(config=None, fio=None, device=None, libvirt=None, trace=None)


@pytest.mark.parametrize(
    ('arguments', 'problem'),
    [
        (['--target', 'p98<1us', '--find', 'load=1k..2k'], 'metrics: mean'),
        (['--target', 'p99<1', '--find', 'load=1k..2k'], 'has no unit'),
        (['--target', 'p99<1us', '--find', 'load=2k..1k'], 'not below'),
        (['--target', 'p99<1us', '--find', 'load=1k'], 'KEY=LOW..HIGH'),
        (['--target', 'p99<1us', '--find', 'device.qs=1..2'], 'no such key'),
        (['--target', 'p99<1us', '--find', 'device.packed=0..1'], 'no number'),
        (['--target', 'p99<1us', '--find', 'load=1k..2k', '--at', '3k'], 'one of them'),
        (['--target', 'p99<1us', '--find', 'load=1k..2k', '--replications', '1'], 'at least 2'),
        (['--target', 'p99<1ms', '--find', 'workload.iodepth=1..4', '--set',
          'workload.number_ios=50'], 'raise workload.number_ios'),
    ],
)  # fmt: skip
def test_a_search_that_makes_no_sense_is_refused(arguments, problem, capsys):
    assert main(['budget', *arguments]) == 2
    assert problem in capsys.readouterr().err


def test_what_the_device_has_none_of_is_said(capsys):
    words = ['whatif', '--device', 'virtio-scsi-pci', '--set', 'workload.number_ios=50']
    assert main([*words, '--free', 'hops,irq']) == 0
    said = capsys.readouterr().err
    assert 'note: hops: a virtio-scsi-pci has no such costs, only vhost-scsi has' in said
    assert 'its own are iothread' in said
    assert 'irq:' not in said
    assert main([*words, '--free', 'all']) == 0
    assert 'no such costs' not in capsys.readouterr().err


def test_a_folder_of_runs_is_told_from_a_run(tmp_path, capsys):
    assert main(['run', '--set', 'workload.number_ios=20', '--out', str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(['explain', str(tmp_path)]) == 2
    (place,) = tmp_path.iterdir()
    assert f'runs lie in it, such as {place}' in capsys.readouterr().err


@pytest.mark.parametrize(
    'words',
    [
        ['--at', '300k', '--find', 'workload.iodepth=1..64'],
        ['--find', 'load=10k..20k', '--over', 'workload.rate_process=linear,poisson'],
    ],
)
def test_a_key_that_an_open_loop_decides_is_not_searched(words, capsys):
    """It would have no effect, and any value of it would meet the target."""
    assert main(['budget', '--target', 'p99<200us', *words]) == 2
    assert 'an open loop (--at, load) decides it' in capsys.readouterr().err
