"""Validation targets: read, fitted, judged; errors in one line; what is shipped is well formed."""

import json
from pathlib import Path

import pytest

from sim.__main__ import main
from sim.errors import ConfigError
from sim.run import run
from sim.studies.target_file import load_target, shipped_folder, targets_in
from sim.studies.validate import rank_correlation, validate

SHIPPED = sorted(shipped_folder().glob('*.toml'))

HEAD = """
name = "mine"
source = "a simulated machine"
data = "mine.csv"

[config.workload]
rw = "randread"
number_ios = 600

[config.target]
kind = "constant"
lanes = 4

[columns]
iodepth = "workload.iodepth"

[metrics.iops]
acceptable = 0.1
"""
FIT = """
[calibrate]
points = [{ iodepth = 1 }]

[calibrate.parameters]
"target.service" = ["20us", "500us"]
"""


def measured(service: str, depths=(1, 2, 8)) -> str:
    lines = ['# a comment', 'iodepth,iops']
    for depth in depths:
        report = run(
            workload={'iodepth': depth, 'number_ios': 600, 'rw': 'randread'},
            target={'kind': 'constant', 'lanes': 4, 'service': service},
            run={'seed': 7},
        ).report
        lines.append(f'{depth},{report["iops"]:.0f}')
    return '\n'.join(lines) + '\n'


@pytest.fixture
def mine(tmp_path):
    def write(text: str, table: str) -> Path:
        (tmp_path / 'mine.csv').write_text(table)
        (tmp_path / 'mine.toml').write_text(text)
        return tmp_path / 'mine.toml'

    return write


def test_a_file_never_seen_is_fitted_on_one_point_and_predicts_the_others(mine):
    path = mine(HEAD + FIT, measured('137us'))
    result = validate(load_target(path))
    assert (result['points'], result['calibrated'], result['predicted']) == (3, 1, 2)
    assert result['fitted_scalars'] == 1
    assert result['fitted']['target.service']['value'] == pytest.approx(137_000, rel=0.02)
    assert result['mape_predicted'] < 2
    assert [row['role'] for row in result['rows']] == ['calibrated', 'predicted', 'predicted']
    assert result['outcome'] == 'reproduced'


def test_the_fit_is_what_makes_it_right(mine):
    path = mine(HEAD, measured('137us'))
    result = validate(load_target(path))
    assert result['fitted_scalars'] == 0
    assert result['mape_predicted'] > 20  # target.service is 80us by default
    assert result['outcome'] == 'not reproduced'


def test_predicted_points_alone_make_the_headline_error(mine):
    table = measured('137us').splitlines()
    table[-1] = '8,1'  # a point that nothing can reproduce
    result = validate(load_target(mine(HEAD + FIT, '\n'.join(table))))
    assert result['metrics']['iops']['mape_calibrated'] < 2
    assert result['mape_predicted'] > 1e5
    assert result['metrics']['iops']['beyond'] == 1
    assert result['rows'][-1]['grade'] == 'beyond'  # and it stays in the table


def test_order_and_sign_checks_can_fail(mine):
    checks = """
[[order]]
by = "iodepth"

[[sign]]
name = "depth helps"
more = { iodepth = 8 }
less = { iodepth = 1 }

[[sign]]
name = "depth harms"
more = { iodepth = 1 }
less = { iodepth = 8 }
"""
    upside_down = 'iodepth,iops\n1,30000\n2,20000\n8,10000\n'
    result = validate(load_target(mine(HEAD + checks, upside_down)))
    assert not result['orders'][0]['holds']
    assert [sign['holds'] for sign in result['signs']] == [True, False]
    assert result['metrics']['iops']['rank_correlation'] == -1
    good = validate(load_target(mine(HEAD + checks, 'iodepth,iops\n1,100\n2,200\n8,300\n')))
    assert good['orders'][0]['holds']


def test_a_metric_may_be_a_ratio_to_the_same_point_under_other_keys(mine):
    text = HEAD.replace('[metrics.iops]', '[metrics.ratio]\nreport = "iops"') + (
        'relative_to = ["target.service=160us"]\n'
    )
    result = validate(load_target(mine(text, 'iodepth,ratio\n1,1.7\n')))
    assert 1.5 < result['rows'][0]['simulated'] < 2


def test_words_of_a_column_set_keys_and_a_unit_is_added(mine):
    text = HEAD.replace(
        'iodepth = "workload.iodepth"',
        'service = { key = "target.service", unit = "us" }\n'
        '[columns.events]\non = ["device.event_idx=on"]\noff = ["device.event_idx=off"]',
    )
    target = load_target(mine(text, 'service,events,iops\n90,off,1\n'))
    assert target.sets_of(target.rows[0]) == ['target.service=90us', 'device.event_idx=off']


IOCTLS = """
name = "mine"
source = "a trace"
kind = "ioctls"
data = "mine.csv"

[config.qemu]
version = "7.2"

[columns]
scenario = "ioctls.scenario"
step = "ioctls.step"

[metrics.call]
exact = true
"""


def test_a_text_is_the_same_or_wrong(mine):
    """QEMU clears the endpoint first; one that read an index before would be told apart."""
    order = ['SCSI_CLEAR_ENDPOINT', 'GET_VRING_BASE index=0', 'GET_VRING_BASE index=1']
    table = 'scenario,step,call\n' + ''.join(f'stop,{n},{c}\n' for n, c in enumerate(order, 1))
    result = validate(load_target(mine(IOCTLS, table)))
    assert result['outcome'] == 'reproduced'
    swapped = table.replace('stop,1,', 'stop,9,').replace('stop,2,', 'stop,1,')
    result = validate(load_target(mine(IOCTLS, swapped)))
    assert result['outcome'] == 'not reproduced'
    assert [row['error'] for row in result['rows']] == [1, 1, 0]
    assert result['rows'][0]['simulated'] == 'nothing'  # the ninth of so few


def test_a_migration_may_be_a_point(mine):
    text = (
        HEAD.replace('name = "mine"', 'name = "mine"\nkind = "migrate"')
        .replace('iodepth = "workload.iodepth"', 'ram = "migration.ram"')
        .replace('[metrics.iops]', '[metrics.total_time_ms]')
        .replace('number_ios = 600', 'number_ios = 30_000')
    ) + '\n[config.device]\nmigratable = true\n[config.host]\nkernel = "7.2"\n'
    result = validate(load_target(mine(text, 'ram,total_time_ms\n64M,500\n128M,1000\n')))
    small, large = (row['simulated'] for row in result['rows'])
    assert large == pytest.approx(2 * small, rel=0.3)


STOP = """
name = "mine"
source = "a simulated machine"
kind = "stop"
data = "mine.csv"

[config.workload]
rw = "randread"
iodepth = 4
number_ios = 400

[config.target]
kind = "constant"
lanes = 8
service = "1ms"

[columns]
depth = "workload.iodepth"

[metrics.clear_ms]
report = "clear_endpoint_ns"
scale = 1e-6
excellent = 0.05
"""
INSTANTS = """
[unrecorded]
key = "stop.at"
low = "5ms"
high = "15ms"
count = 12
"""
BOUND = """
[[bound]]
name = "no drain is longer than a service time"
where = { depth = 4 }
at_most = 1.2
"""


def test_what_was_not_recorded_gives_a_band_that_a_measured_value_is_in_or_not(mine):
    text = STOP + INSTANTS + BOUND.replace('where = { depth = 4 }', 'where = { depth = 3 }')
    result = validate(load_target(mine(text, 'depth,clear_ms\n3,0.9\n4,0.2\n4,3.0\n')))
    assert [row['grade'] for row in result['rows']] == ['inside', 'inside', 'beyond']
    low, high = result['rows'][1]['interval']
    assert low < 0.2 < result['rows'][1]['simulated'] < high < 1.2  # a service time and the calls
    assert result['metrics']['clear_ms']['beyond'] == 1
    assert result['outcome'] == 'not reproduced'  # one in three is more than one in five
    assert len(result['unrecorded']['values']) == 12
    assert result['bounds'][0]['holds']
    good = validate(load_target(mine(STOP + INSTANTS, 'depth,clear_ms\n4,0.9\n4,0.2\n')))
    assert good['outcome'] == 'reproduced'


def test_a_bound_fails_where_the_simulated_value_is_beyond(mine):
    """The limit lies between what was measured and what is simulated."""
    bound = BOUND.replace('at_most = 1.2', 'at_most = 0.3')
    result = validate(load_target(mine(STOP + INSTANTS + bound, 'depth,clear_ms\n4,0.2\n')))
    assert not result['bounds'][0]['holds']
    assert result['outcome'] == 'partly'  # inside of its band, and a check is broken
    assert result['bounds'][0]['measured'] == [0.2, 0.2]


def test_a_job_before_leaves_its_throttle_to_the_point(mine):
    """Writes that a rested throttle lets through in batches of eight; behind others in one."""
    text = STOP.replace('"randread"', '"randwrite"').replace('"1ms"', '"20ms"')
    text = text.replace('lanes = 8', 'lanes = 64\nwbt_queue_depth = 128')
    text += """
[columns.after]
rest = []
writes = ["before.number_ios=320"]
long_ago = ["before.number_ios=320", "before.ahead=4s"]

[config.before]
rw = "randwrite"
iodepth = 32
ahead = "500ms"

[config.stop]
at = "2ms"

[config.host]
kernel = "6.1"
"""
    table = 'depth,after,clear_ms\n32,rest,78\n32,writes,18\n32,long_ago,78\n'
    found = validate(load_target(mine(text, table)))['rows']
    rest, behind, long_ago = (row['simulated'] for row in found)
    assert rest == pytest.approx(78, abs=2)
    assert behind == pytest.approx(18, abs=2)
    assert long_ago == pytest.approx(rest, abs=2)


WRONG = {
    'an unknown column': (HEAD, 'iodepth,iops,colour\n1,2,red\n', "column 'colour'"),
    'a missing column': (HEAD, 'iops\n1\n', "no column 'iodepth'"),
    'an empty table': (HEAD, 'iodepth,iops\n', 'empty'),
    'nothing at all': (HEAD, '# only this\n', 'empty'),
    'no such parameter': (
        HEAD + FIT.replace('target.service', 'target.sevice'), 'iodepth,iops\n1,2\n',
        'target.service',
    ),
    'no such cost': (
        HEAD + FIT.replace('target.service', 'costs.kick.exit'), 'iodepth,iops\n1,2\n',
        'kick.exit_to_kernel_roundtrip',
    ),
    'a range upside down': (
        HEAD + FIT.replace('"20us"', '"1ms"'), 'iodepth,iops\n1,2\n', 'low < high'
    ),
    'no such point': (HEAD + FIT, 'iodepth,iops\n2,2\n', 'no point has iodepth=1'),
    'no number': (HEAD, 'iodepth,iops\n1,many\n', "iops='many'"),
    'a key of ours that is none': (
        HEAD.replace('workload.iodepth', 'workload.iodpeth'), 'iodepth,iops\n1,2\n',
        'workload.iodepth',
    ),
    'a value that makes no sense': (HEAD, 'iodepth,iops\n-4,2\n', 'iodepth'),
    'no such number in a report': (
        HEAD.replace('[metrics.iops]', '[metrics.iops]\nreport = "iop"'), 'iodepth,iops\n1,2\n',
        "'iop'",
    ),
    'nothing measured': (HEAD, 'iodepth,iops\n1,nan\n', "iops='nan'"),
    'a fit to nothing': (HEAD + FIT, 'iodepth,iops\n1,0\n', 'above 0'),
    'metrics of no kind': (
        HEAD.replace('[metrics.iops]', '[metrics]\niops = 3').replace(
            'acceptable = 0.1', ''), 'iodepth,iops\n1,2\n', 'metrics.iops',
    ),
    'points of no kind': (HEAD.replace('data = "mine.csv"', 'points = [1]'), '', '[[points]]'),
    'an order of no kind': (HEAD + '[order]\nby = "iodepth"\n', 'iodepth,iops\n1,2\n', '[[order]]'),
    'a ragged table': (HEAD, 'iodepth,iops\n1\n', 'row 1 has 1 cells'),
    'a text that ranks': (
        IOCTLS + '[[order]]\nby = "step"\n', 'scenario,step,call\nstop,1,X\n',
        'neither more nor less',
    ),
    'a scenario of no kind': (IOCTLS, 'scenario,step,call\nstopp,1,X\n', 'known are init, start'),
    'a bound that was broken in life': (
        STOP + BOUND, 'depth,clear_ms\n4,7\n', 'was measured at depth=4 breaks it',
    ),
    'a bound of nothing': (
        STOP + BOUND.replace('at_most', 'name2'), 'depth,clear_ms\n4,1\n', 'is no key here',
    ),
    'an unrecorded key that is none': (
        STOP + INSTANTS.replace('stop.at', 'stop.art'), 'depth,clear_ms\n4,1\n', 'stop.art',
    ),
    'unrecorded upside down': (
        STOP + INSTANTS.replace('"5ms"', '"50ms"'), 'depth,clear_ms\n4,1\n', 'low < high',
    ),
    'a job before a run': (
        HEAD + '[columns.x]\ny = ["before.iodepth=4"]\n', 'iodepth,x,iops\n1,y,2\n',
        "no section 'before'",
    ),
    'a job before with a key that is none': (
        STOP + '[config.before]\niodept = 4\n', 'depth,clear_ms\n4,1\n', 'iodepth',
    ),
    'a key of the file': (HEAD.replace('source', 'sauce'), 'iodepth,iops\n1,2\n', "'source'"),
}  # fmt: skip


@pytest.mark.parametrize('problem', WRONG)
def test_what_makes_no_sense_is_one_line_that_says_so(problem, mine, capsys):
    text, table, says = WRONG[problem]
    assert main(['validate', str(mine(text, table)), '--jobs', '1']) == 2
    message = capsys.readouterr().err
    assert message.startswith('error: ')
    assert message.count('\n') == 1
    assert says in message
    assert 'mine' in message  # where


def test_the_command_prints_tables_json_and_figures(mine, tmp_path, capsys):
    path = mine(HEAD + FIT, measured('137us'))
    out = tmp_path / 'out'
    arguments = ['--only', 'mine', '--jobs', '1', '--report', str(out)]
    assert main(['validate', str(path.parent), *arguments]) == 0
    text = capsys.readouterr().out
    assert 'predicted, excellent' in text
    assert 'MAPE of the predicted points' in text
    assert {p.name for p in out.iterdir()} == {
        'mine.csv', 'mine.png', 'validation.json', 'validation.png'
    }  # fmt: skip
    assert main(['validate', str(path), '--json', '--jobs', '1', '--quick']) == 0
    (target,) = json.loads(capsys.readouterr().out)['targets']
    assert {'name', 'points', 'calibrated', 'predicted', 'fitted_scalars', 'rows'} <= target.keys()
    for row in target['rows']:
        assert {'measured', 'simulated', 'interval', 'error', 'role'} <= row.keys()


def test_no_target_there(tmp_path, capsys):
    assert main(['validate', str(tmp_path)]) == 2
    assert main(['validate', str(tmp_path / 'no.toml')]) == 2
    assert main(['validate', '--only', 'no-such-target']) == 2
    assert capsys.readouterr().err.count('error: ') == 3


@pytest.mark.parametrize('path', SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_target_is_well_formed_and_says_where_its_figures_come_from(path):
    target = load_target(path)
    assert target.name == path.stem
    assert len(target.source) > 10
    assert target.verdict
    assert len(target.parameters) <= 3
    assert sum(target.calibrates) < len(target.rows) or not target.parameters
    data = path.with_suffix('.csv')
    if data.exists():
        assert data.read_text().startswith('# ')  # the source, with the figures themselves


def test_targets_of_a_folder_come_in_order():
    assert list(targets_in([str(shipped_folder())])) == SHIPPED
    with pytest.raises(ConfigError):
        list(targets_in([str(Path(__file__).parent)]))


def test_rank_correlation():
    assert rank_correlation([1, 2, 3], [10, 40, 90]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3, 4], [10, 40, 30, 90]) == pytest.approx(0.8)
    assert rank_correlation([1, 2], [1, 2]) is None
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None


def test_the_sata_ssd_is_predicted_between_its_first_and_last_depth():
    """A result, not a mechanism: what docs/validity.md says of it."""
    target = load_target(shipped_folder() / 'sata-ssd-s4610.toml')
    result = validate(target, quick=True)
    assert result['mape_predicted'] <= 6
    assert result['metrics']['p99_us']['mape_predicted'] <= 20


@pytest.mark.parametrize('path', SHIPPED, ids=lambda path: path.stem)
def test_the_ends_of_a_factor_are_values_that_its_keys_may_have(path):
    """A cost that was added to all of them may be too large for a hundred times as much."""
    from sim.config import load
    from sim.studies.measuring import parameter_sets

    target = load_target(path)
    for parameter in target.parameters:
        if parameter.form == 'scale':
            for end in (parameter.low, parameter.high):
                load(**target.config, sets=parameter_sets(parameter, end, target.config, []))
