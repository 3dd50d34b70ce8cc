"""python -m sim regress: the scenarios, exact comparison, the stage, counts, blessing."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from sim.__main__ import main
from sim.costs import load_preset
from sim.errors import ConfigError
from sim.features import STACKS
from sim.formats.disks import preset_folder
from sim.pools import Here
from sim.record import STAGES
from sim.studies import baseline, regress, regress_text
from sim.studies.scenarios import KINDS, SHIPPED, read_scenarios

ROOT = Path(__file__).resolve().parent.parent
COMMITTED = ROOT / 'results' / 'baseline'
SMALL_REPLICATIONS = 3
SMALL = """
[defaults]
run = { warmup = "50" }

[one-at-a-time]
about = "no request waits for another"
workload = { iodepth = 1, number_ios = 300 }
target = { kind = "exponential" }

[eight]
about = "some do"
workload = { iodepth = 8, number_ios = 400 }
target = { kind = "exponential" }

[stopped]
about = "the VM is stopped"
workload = { iodepth = 8, number_ios = 400 }
target = { kind = "exponential" }
stop = { at = "1ms" }
"""


def observed(scenarios, replications=2):
    found, broken = regress.observe(scenarios, Here(), replications=replications)
    assert broken == []
    return found


def as_baseline(records):
    sizes = {name: (r.points, len(r.replications)) for name, r in records.items()}
    return baseline.Baseline(dict(records), sizes)


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    """(file, scenarios, records) of three small scenarios, three replications each."""
    path = tmp_path_factory.mktemp('small') / 'small.toml'
    path.write_text(SMALL)
    scenarios = read_scenarios(path)
    return path, scenarios, observed(scenarios, SMALL_REPLICATIONS)


@pytest.fixture
def blessed(small, tmp_path):
    """(options, folder): a baseline of the small scenarios as files."""
    folder = tmp_path / 'baseline'
    baseline.write(folder, small[2])
    options = ['regress', '--scenarios', str(small[0]), '--baseline', str(folder), '--jobs', '1']
    return options, folder


# ---- what is shipped


def test_the_committed_baseline_is_what_the_model_does():
    """Red after a change of the model: see `make regress`, then `make bless` if it was meant."""
    scenarios = read_scenarios()
    now = observed(scenarios, replications=1)
    found = regress.compare(scenarios, now, baseline.read(COMMITTED))
    assert found['green'], '\n' + regress_text.printed(found)
    assert found['points'] == found['equal'] > 1500


def test_the_baseline_holds_what_its_manifest_promises():
    found = baseline.read(COMMITTED)
    assert found.records.keys() == found.manifest.keys() == {s.name for s in read_scenarios()}
    for name, record in found.records.items():
        assert found.manifest[name] == (record.points, regress.REPLICATIONS)
        assert {'digest', 'iops', 'latency_ns.mean', 'stages_ns.done'} <= record.values.keys()


def test_the_scenarios_cover_what_they_should():
    scenarios = read_scenarios()
    configs = [s.config for s in scenarios]
    assert 20 <= len(scenarios) <= 30
    assert {STACKS[c.device.driver] for c in configs} == set(STACKS.values())
    kernel = [c for c in configs if STACKS[c.device.driver] == 'vhost-scsi']
    assert {c.host.kernel for c in kernel} == {'6.1', '6.12', '7.2'}
    assert {len(c.worker_vqs) > 1 for c in kernel} == {True, False}
    for name in ('packed', 'in_order', 'indirect_desc', 'event_idx'):
        assert {getattr(c.device, name) for c in configs} == {True, False}, name
    kinds = {c.target.kind for c in configs}
    assert {'exponential', 'ssd', 'hdd'} <= kinds
    policies = {s.plan.policy.name for s in scenarios if s.kind == 'stop'}
    assert {'drain', 'quiesce', 'gate', 'no-flush', 'inflight'} <= policies
    assert {s.kind for s in scenarios} == set(KINDS)
    assert all(sum(j.io_limit * j.numjobs for j in c.jobs) <= 4000 for c in configs)
    assert any(s.is_alone for s in scenarios)


def test_replications_of_a_scenario_are_not_all_one():
    """Or a test on them would take chance for certainty."""
    for name, record in baseline.read(COMMITTED).records.items():
        assert len({row['latency_ns.mean'] for row in record.replications}) > 5, name


# ---- a changed cost


def preset_with(tmp_path, name, factor):
    """A copy of the shipped preset in which one cost is `factor` times as high."""
    value = load_preset('icx-2.6ghz').parameters[name].value
    text = (preset_folder() / 'icx-2.6ghz.toml').read_text()
    head, table, rest = text.partition(f'["{name}"]\n')
    assert table
    rest = re.sub(r'^value = \S+$', f'value = {round(value * factor)}', rest, count=1, flags=re.M)
    path = tmp_path / 'changed.toml'
    path.write_text(head + table + rest)
    return path


@pytest.fixture(scope='module')
def alone():
    """The shipped scenarios of one request at a time, as they are now: (scenarios, baseline)."""
    scenarios = [s for s in read_scenarios() if s.is_alone]
    return scenarios, as_baseline(observed(scenarios, 4))


@pytest.mark.parametrize(
    ('name', 'stage'),
    [
        ('guest.syscall_pair_per_cmd_unbatched', 'submit'),
        ('guest.submit_per_cmd_batched', 'avail'),
        ('kick.eventfd_signal_plus_wakeup_cpu', 'fetch'),
        ('vhost.worker_pop_share', 'issue'),
        ('lio.workqueue_hop_latency_qd1', 'issue and report'),
        ('vhost.worker_complete_share', 'used'),
        ('irq.inject_to_running_vcpu_posted', 'irq'),
        ('guest.complete_per_cmd_batched', 'complete'),
    ],
)
def test_a_cost_that_is_a_tenth_higher_is_red_and_found_in_its_stage(name, stage, alone, tmp_path):
    preset = preset_with(tmp_path, name, 1.1)
    changed = [s for s in read_scenarios(sets=[f'run.preset={preset}']) if s.is_alone]
    found = regress.compare(changed, observed(changed, 4), alone[1])
    assert not found['green']
    assert found['stage']['name'] == stage
    entry = next(e for e in found['scenarios'] if e['name'] == 'split-depth-1')
    assert entry['state'] == 'moved'
    assert entry['stage'] == stage
    assert entry['pairs']['latency_ns.mean']['moved']


def test_the_same_costs_from_another_file_are_green(alone, tmp_path):
    preset = preset_with(tmp_path, 'vhost.worker_pop_share', 1)
    changed = [s for s in read_scenarios(sets=[f'run.preset={preset}']) if s.is_alone]
    assert regress.compare(changed, observed(changed), alone[1])['green']


def test_the_command_line_says_so(blessed, capsys, tmp_path):
    options, _ = blessed
    assert main(options) == 0
    assert re.search(r'^green: (\d+) points compared, \1 equal; 3 scenarios, 0 moved$',
                     capsys.readouterr().out, re.M)  # fmt: skip
    preset = preset_with(tmp_path, 'vhost.worker_complete_share', 1.1)
    assert main([*options, '--set', f'run.preset={preset}']) == 1
    out = capsys.readouterr().out
    assert out.startswith('scenario ')
    assert 'stage that moved: used (where one request at a time is in flight' in out
    assert re.search(r'^one-at-a-time +latency_ns\.mean +ns .* used$', out, re.M)
    assert '\nred: ' in out


def test_json_has_every_value_that_differs(blessed, capsys):
    options, _ = blessed
    assert main([*options, '--only', 'eight', '--set', 'device.event_idx=off', '--json']) == 1
    found = json.loads(capsys.readouterr().out)
    (entry,) = found['scenarios']
    assert found['points'] - found['equal'] == len(entry['rows'])
    changed = {row['metric']: row for row in entry['rows']}
    kicks = changed['kicks']
    assert float(kicks['now']) - float(kicks['baseline']) == kicks['delta'] != 0
    assert sum(entry['stages_ns'].values()) == pytest.approx(
        entry['pairs']['latency_ns.mean']['difference'], abs=1e-6
    )


# ---- exactness and counts


def test_one_digit_of_one_value_is_red(small):
    _, scenarios, records = small
    values = dict(records['eight'].values)
    values['kicks'] = str(int(values['kicks']) + 1)
    edited = as_baseline(records | {'eight': replace(records['eight'], values=values)})
    found = regress.compare(scenarios, records, edited)
    assert not found['green']
    assert found['points'] - found['equal'] == 1
    rows = [row for entry in found['scenarios'] for row in entry['rows']]
    assert [(row['metric'], row['delta']) for row in rows] == [('kicks', -1)]
    assert found['stage'] is None


def without_lines(path, beginning):
    lines = path.read_text().splitlines()
    left = [line for line in lines if not line.startswith(beginning)]
    assert len(left) == len(lines) - 1
    path.write_text('\n'.join(left) + '\n')


def edit_remove_file(folder):
    (folder / 'eight.csv').unlink()


def edit_add_file(folder):
    (folder / 'more.csv').write_text((folder / 'eight.csv').read_text())


def edit_remove_metric(folder):
    path = folder / 'eight.csv'
    without_lines(path, 'kicks,')


def edit_remove_replication(folder):
    path = folder / 'replications' / 'eight.csv'
    without_lines(path, f'{SMALL_REPLICATIONS - 1},')


def edit_manifest(folder):
    path = folder / 'manifest.csv'
    without_lines(path, 'eight,')


@pytest.mark.parametrize(
    ('edit', 'says'),
    [
        (edit_remove_file, 'eight: has no baseline; bless it'),
        (edit_add_file, 'more: the baseline has it, but there is no such scenario'),
        (edit_remove_metric, 'eight: kicks is not in the baseline'),
        (edit_remove_replication, 'eight: the baseline holds'),
        (edit_manifest, 'eight: the manifest of the baseline does not name it'),
    ],
)
def test_a_wrong_count_is_red(edit, says, blessed, small):
    edit(blessed[1])
    found = regress.compare(small[1], small[2], baseline.read(blessed[1]))
    assert not found['green']
    assert any(text.startswith(says) for text in found['problems']), found['problems']


def test_a_scenario_that_is_gone_is_red(small):
    _, scenarios, records = small
    found = regress.compare(scenarios[:2], records, as_baseline(records))
    assert found['problems'] == ['stopped: the baseline has it, but there is no such scenario']
    assert regress.compare(scenarios[:2], records, as_baseline(records), whole=False)['green']


def test_a_changed_scenario_is_told_from_a_changed_model(small, tmp_path):
    path = tmp_path / 'other.toml'
    path.write_text(SMALL.replace('iodepth = 8', 'iodepth = 9', 1))
    scenarios = [s for s in read_scenarios(path) if s.name == 'eight']
    found = regress.compare(scenarios, observed(scenarios), as_baseline(small[2]), whole=False)
    assert 'eight: the scenario itself has been changed' in found['problems']


def test_what_a_scenario_is_there_for_may_be_reworded(small, tmp_path):
    path = tmp_path / 'other.toml'
    path.write_text(SMALL.replace('some do', 'a few of them do'))
    assert [s.definition for s in read_scenarios(path)] == [s.definition for s in small[1]]


def test_what_a_wrong_policy_violates_is_counted_and_no_violation(tmp_path):
    path = tmp_path / 'wrong.toml'
    path.write_text(
        '[wrong]\nabout = "leaves some"\nworkload = { iodepth = 32, number_ios = 1000 }\n'
        'target = { kind = "exponential" }\nstop = { at = "2ms", policy = "no-flush" }\n'
    )
    (scenario,) = read_scenarios(path)
    seen = scenario.observe(0)
    assert seen.violations == []
    assert seen.values['stop.violations'] > 0
    path.write_text(path.read_text().replace('no-flush', 'drain'))
    assert read_scenarios(path)[0].observe(0).values['stop.violations'] == 0


# ---- paired tests


@pytest.fixture(scope='module')
def eight_times(small):
    """The small scenarios with eight replications: enough to test something."""
    return small[0], small[1], observed(small[1], 8)


def test_another_seed_moves_every_digest_and_no_metric(eight_times):
    """Chance alone: what moved is not said to have moved."""
    path, scenarios, records = eight_times
    other = read_scenarios(path, sets=['run.seed=12345'])
    found = regress.compare(other, observed(other, 8), as_baseline(records))
    assert found['moved'] == len(scenarios)
    tests = [test for entry in found['scenarios'] for test in entry['pairs'].values()]
    assert len(tests) > 40
    assert not any(test['moved'] for test in tests)
    assert all('nothing beyond chance' in text for _, text in regress_text.meaning(found))


def test_common_random_numbers_find_what_chance_would_hide(eight_times):
    path, _, records = eight_times
    sets = ['costs.guest.submit_per_cmd_batched=1400ns']
    same = read_scenarios(path, sets=sets)
    other = read_scenarios(path, sets=[*sets, 'run.seed=12345'])
    verdicts = []
    for changed in (same, other):
        changed = [s for s in changed if s.name == 'one-at-a-time']
        found = regress.compare(changed, observed(changed, 8), as_baseline(records), whole=False)
        (entry,) = found['scenarios']
        verdicts.append(entry['pairs']['latency_ns.mean'])
    paired, unpaired = verdicts
    assert paired['moved']
    assert paired['difference'] == pytest.approx(300, abs=10)
    assert not unpaired['moved']
    assert unpaired['half_width'] > 10 * paired['half_width']


def test_stages_that_move_alike_are_both_named():
    zero = dict.fromkeys(STAGES, 0.0)
    assert regress._largest(zero) is None
    assert regress._largest(zero | {'kick': -3.0, 'fetch': 1.0}) == 'kick'
    assert regress._largest(zero | {'issue': 200.0, 'report': 195.0}) == 'issue and report'


# ---- blessing


def test_blessing_writes_what_is_then_green_and_says_what_moved(blessed, capsys):
    options, folder = blessed
    before = {path: path.read_bytes() for path in folder.rglob('*.csv')}
    assert len(before) == 7
    assert main([*options, '--bless']) == 0
    assert 'nothing to bless' in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.rglob('*.csv')} == before
    (folder / 'eight.csv').write_text('metric,value,unit\ndigest,0,hash\n')
    assert main(options) == 1
    assert main([*options, '--bless']) == 0
    captured = capsys.readouterr()
    assert re.search(r'^eight +digest +hash +0 ', captured.out, re.M)
    assert 'blessed: 3 scenarios' in captured.err
    assert main(options) == 0


def test_the_first_blessing_makes_the_folder(small, tmp_path, capsys):
    options = ['regress', '--scenarios', str(small[0]), '--jobs', '1']
    folder = tmp_path / 'new' / 'baseline'
    assert main([*options, '--baseline', str(folder)]) == 2
    assert 'holds no baseline' in capsys.readouterr().err
    assert main([*options, '--baseline', str(folder), '--bless']) == 0
    assert (folder / 'manifest.csv').read_text().splitlines()[0] == 'scenario,points,replications'
    lines = (folder / 'eight.csv').read_text().splitlines()
    assert lines[0] == 'metric,value,unit'
    assert any(re.fullmatch(r'latency_ns\.mean,[0-9.]+,ns', line) for line in lines)


def test_blessing_spares_a_folder_of_somebody_else(small, tmp_path, capsys):
    (tmp_path / 'mine.csv').write_text('a,b\n')
    options = ['regress', '--scenarios', str(small[0]), '--jobs', '1', '--baseline', str(tmp_path)]
    assert main([*options, '--bless']) == 2
    assert 'holds CSV files that are no baseline' in capsys.readouterr().err
    assert (tmp_path / 'mine.csv').read_text() == 'a,b\n'


def test_what_breaks_an_invariant_is_not_blessed(blessed, capsys, monkeypatch):
    options, folder = blessed
    before = (folder / 'eight.csv').read_bytes()
    real = regress.observe

    def broken(*arguments, **named):
        records, _ = real(*arguments, **named)
        return records, ['eight, replication 0: conservation']

    monkeypatch.setattr(regress, 'observe', broken)
    (folder / 'one-at-a-time.csv').unlink()
    assert main(options) == 1
    assert main([*options, '--bless']) == 1
    assert 'not blessed' in capsys.readouterr().err
    assert (folder / 'eight.csv').read_bytes() == before
    assert not (folder / 'one-at-a-time.csv').exists()


# ---- mistakes


@pytest.mark.parametrize(
    ('more', 'says'),
    [
        (['--bless', '--set', 'run.seed=2'], '--bless --set: a baseline is of all scenarios'),
        (['--bless', '--only', 'eight'], '--bless --only: a baseline is of all scenarios'),
        (['--only', 'nine'], '--only nine: no such scenario; known: one-at-a-time, eight, stopped'),
        (['--set', 'workload.nosuch=1'], "scenario one-at-a-time: --set: no key 'nosuch'"),
        (['--jobs', '0'], '--jobs 0'),
        (['--report', '/proc/nosuch'], '/proc/nosuch: the report cannot be written'),
        (['--scenarios', '/nosuch.toml'], '/nosuch.toml'),
    ],
)
def test_usage_errors_are_one_line(more, says, blessed, capsys):
    assert main([*blessed[0], *more]) == 2
    captured = capsys.readouterr()
    assert captured.err.count('\n') == 1
    assert says in captured.err


@pytest.mark.parametrize(
    ('text', 'says'),
    [
        ('', 'has no scenario'),
        ('x = 1', "'x' is no scenario"),
        ('[a]\nworkload = { iodepth = 2 }', 'a has no about'),
        ('[a]\nabout = "b"\nwork = { iodepth = 2 }', 'scenario a: '),
        ('[a]\nabout = "b"\nstop = { att = "1ms" }', "a.stop has no 'att'; known: at, policy"),
        ('[a]\nabout = "b"\nstop = { policy = "drain" }', 'at is missing'),
        ('[a]\nabout = "b"\nstop = { at = "soon" }', 'soon'),
        ('[a]\nabout = "b"\nstop = { at = "1ms", policy = "inflight" }', 'inflight'),
        ('[a]\nabout = "b"\nstop = 3', 'a.stop is a table'),
        (
            '[a]\nabout = "b"\nstop = { at = "1ms" }\nmigration = { at = "1ms" }',
            'a has stop and migration; keep one',
        ),
        ('defaults = 3\n[a]\nabout = "b"', "'defaults' is no scenario"),
    ],
)
def test_a_scenario_that_makes_no_sense_is_refused(text, says, tmp_path):
    path = tmp_path / 'bad.toml'
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_scenarios(path)
    assert says in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('name', 'text', 'says'),
    [
        ('eight.csv', 'metric,value\na,1\n', 'has no column unit'),
        ('eight.csv', 'metric,value,unit\na,1\n', 'eight.csv:2: not as many values as columns'),
        ('manifest.csv', 'scenario,points,replications\neight,many,5\n', 'not a number'),
    ],
)
def test_a_baseline_that_cannot_be_read_is_no_regression(name, text, says, blessed, capsys):
    (blessed[1] / name).write_text(text)
    assert main(blessed[0]) == 2
    assert says in capsys.readouterr().err


def test_list_names_them(capsys):
    assert main(['regress', '--list']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [s.name for s in read_scenarios(SHIPPED)]
