"""Parameters fitted to fio's JSON: known ones are found, what cannot be told apart is said."""

import json
from pathlib import Path

import numpy as np
import pytest

from sim.__main__ import main
from sim.config import load
from sim.errors import ConfigError
from sim.formats.fio_measured import read_measured
from sim.run import run
from sim.studies import fitting
from sim.studies.calibrate import parse_parameter, task_of

KICK = 'costs.kick.exit_to_kernel_roundtrip'
IRQ = 'costs.irq.inject_to_running_vcpu_posted'


def written(place: Path, depth: int, *sets: str, count: int = 1200) -> str:
    """fio's JSON of a simulated run; its seed is not that of the fit."""
    sets = (f'workload.iodepth={depth}', f'workload.number_ios={count}', 'run.seed=77', *sets)
    flags = [part for text in sets for part in ('--set', text)]
    assert main(['run', *flags, '--fio-json', str(place)]) == 0
    return str(place)


def fitted(capsys, *arguments: str) -> dict:
    capsys.readouterr()
    assert main(['calibrate', *arguments, '--json']) == 0
    return json.loads(capsys.readouterr().out)


def test_known_parameters_are_found_again_within_their_intervals(tmp_path, capsys):
    truth = {'target.service': 61_000, 'target.serial': 4_000}
    sets = ['target.kind=lanes', 'target.service=61us', 'target.serial=4us']
    files = [written(tmp_path / f'{depth}.json', depth, *sets) for depth in (1, 32)]
    out = tmp_path / 'disk.toml'
    found = fitted(
        capsys, *files, '--set', 'target.kind=lanes', '--fit', 'target.service',
        '--fit', 'target.serial=500ns..20us', '--requests', '1200', '--out', str(out),
    )  # fmt: skip
    for one in found['fitted']:
        low, high = one['interval']
        assert low <= truth[one['parameter']] <= high
        assert one['value'] == pytest.approx(truth[one['parameter']], rel=0.15)
        assert high / low < 2
        assert one['bounded']
    assert found['undetermined'] == []
    assert found['rms_error'] < 0.05
    assert found['degrees_of_freedom'] == len([r for r in found['rows'] if r['fitted']]) - 2
    preset = load(target={'disk': str(out)}).target
    assert preset.kind == 'lanes'
    assert preset.service == pytest.approx(61_000, rel=0.15)


def test_two_costs_in_one_chain_cannot_be_told_apart_and_it_says_so(tmp_path, capsys):
    file = written(tmp_path / '1.json', 1, 'target.kind=constant', count=400)
    found = fitted(
        capsys, file, '--fit', f'{KICK}=200ns..3us,{IRQ}=200ns..3us', '--requests', '400'
    )
    (said,) = found['undetermined']
    assert set(said['parameters']) == {KICK, IRQ}
    assert 'together' in said['why']
    true = 2000 / 2.6 + 3640 / 2.6
    total = sum(one['value'] for one in found['fitted'])
    assert total == pytest.approx(true, rel=0.25)  # their sum is what shows
    widths = [(one['interval'][1] or 3000) - (one['interval'][0] or 200) for one in found['fitted']]
    assert min(widths) > 700  # and neither of them


def test_a_parameter_without_an_effect_is_named(tmp_path, capsys):
    file = written(tmp_path / '1.json', 1, 'target.kind=constant', count=400)
    wake = 'costs.vcpu.halt_wake_penalty_no_poll'  # the host polls: nobody halts
    found = fitted(
        capsys, file, '--fit', f'target.service,{wake}', '--requests', '400', '--device',
        'vhost-scsi-pci,num_queues=1',
    )  # fmt: skip
    assert [said['parameters'] for said in found['undetermined']] == [[wake]]
    bounded = {one['parameter']: one['bounded'] for one in found['fitted']}
    assert bounded == {'target.service': True, wake: False}


def test_a_fitted_cost_becomes_a_preset_that_loads(tmp_path, capsys):
    name = 'vhost.worker_wakeup_latency_shallow_idle'
    file = written(tmp_path / '1.json', 1, f'costs.{name}=6us', 'target.kind=constant', count=400)
    out = tmp_path / 'costs.toml'
    found = fitted(capsys, file, '--fit', name, '--requests', '400', '--out', str(out))
    assert found['presets'] == {'run.preset': str(out)}
    assert found['fitted'][0]['value'] == pytest.approx(6000, rel=0.05)
    report = run(run={'preset': str(out)}, workload={'number_ios': 400, 'iodepth': 1}).report
    measured = next(r['measured'] for r in found['rows'] if r['metric'] == 'mean')
    assert report['fio_lat_ns']['mean'] == pytest.approx(measured, rel=0.01)
    assert 'sim calibrate on 1.json' in out.read_text()


# ------------------------------------------------------------------------------------- fio's JSON


def side(**more) -> dict:
    return {
        'total_ios': 1000, 'iops': 5000.0, 'iops_stddev': 50.0, 'iops_samples': 25,
        'slat_ns': {'mean': 1000.0}, 'lat_ns': {'mean': 200e3, 'stddev': 20e3, 'N': 1000},
        'clat_ns': {'percentile': {'50.000000': 190e3, '99.000000': 300e3}}, **more,
    }  # fmt: skip


def fio(tmp_path, jobs, text='') -> Path:
    place = tmp_path / 'fio.json'
    place.write_text(text + json.dumps({'global options': {'bs': '8k'}, 'jobs': jobs}))
    return place


NONE = {'total_ios': 0}
OPTIONS = {'rw': 'randread', 'iodepth': '4', 'runtime': '60', 'filename': '/dev/sdb', 'direct': '1'}


def test_fio_json_is_read_behind_its_warnings_and_clones_are_one_job(tmp_path):
    entry = {'jobname': 'a', 'job options': OPTIONS, 'read': side(), 'write': NONE}
    measured = read_measured(fio(tmp_path, [entry, entry], 'fio: a warning\n'))
    (job,) = measured.jobs
    assert {k: v.value for k, v in job.items()} == {
        'name': 'a', 'bs': '8k', 'rw': 'randread', 'iodepth': '4', 'ioengine': 'libaio'
    }  # fmt: skip
    found = {seen.metric: seen for seen in measured.observations}
    assert found['iops'].value == 10_000
    assert found['iops'].sigma == pytest.approx(np.hypot(10, 10) / 10_000)
    assert found['mean'].value == 200e3
    assert found['p50'].value == 191e3  # clat, and the mean slat
    assert found['p99'].value == 301e3


def test_json_plus_gives_percentiles_from_its_bins(tmp_path):
    bins = {str(1000 * n): 10 for n in range(1, 101)}
    entry = {
        'jobname': 'a', 'job options': OPTIONS, 'write': NONE,
        'read': side(clat_ns={'bins': bins}),
    }  # fmt: skip
    found = {s.metric: s.value for s in read_measured(fio(tmp_path, [entry])).observations}
    assert found['p50'] == 50_000 + 1000
    assert found['p90'] == 90_000 + 1000


def test_reads_and_writes_are_apart(tmp_path):
    options = OPTIONS | {'rw': 'randrw'}
    entry = {'jobname': 'a', 'job options': options, 'read': side(), 'write': side(iops=1000.0)}
    found = read_measured(fio(tmp_path, [entry])).observations
    assert [(s.op, s.metric) for s in found if s.metric in ('iops', 'mean')] == [
        ('', 'iops'), ('read', 'mean'), ('write', 'mean')
    ]  # fmt: skip
    assert found[0].value == 6000


def test_text_behind_the_json_is_no_matter(tmp_path):
    """--output-format=normal,json writes both into one file."""
    entry = {'jobname': 'a', 'job options': OPTIONS, 'read': side(), 'write': NONE}
    place = fio(tmp_path, [entry], 'Starting 1 process\n')
    place.write_text(place.read_text() + '\na: (groupid=0, jobs=1): err= 0\n  read: {weird}\n')
    assert read_measured(place).observations[0].value == 5000


def test_threads_in_one_entry_are_clones_that_the_simulator_reports_as_one(tmp_path):
    options = OPTIONS | {'numjobs': '2'}
    entry = {
        'jobname': 'a', 'job options': options, 'write': NONE, 'job_runtime': 6000,
        'read': side(runtime=3001),
    }  # fmt: skip
    (job,) = read_measured(fio(tmp_path, [entry])).jobs
    config = load(job=[job])
    assert (config.jobs[0].numjobs, config.jobs[0].group_reporting) == (2, True)


def test_several_jobs_in_one_entry_are_refused(tmp_path):
    """As fio 3.33 has it: the name of the first, the options of the last, the sum of all."""
    entry = {
        'jobname': 'reader', 'job options': OPTIONS | {'rw': 'randwrite'}, 'job_runtime': 6000,
        'read': side(runtime=2001), 'write': side(runtime=2001),
    }  # fmt: skip
    with pytest.raises(
        ConfigError,
        match=r'fio\.json: job .reader.: 3 threads are added up .* numjobs=1.* new_group',
    ):
        read_measured(fio(tmp_path, [entry]))


@pytest.mark.parametrize(
    ('second', 'waits'),
    [
        ({'groupid': 0}, False),
        ({'groupid': 1}, True),
        ({'groupid': 1, 'job options': OPTIONS | {'new_group': '1'}}, False),
        ({'groupid': 1, 'job_start': 5100}, False),
        ({'groupid': 1, 'job_start': 9000}, True),
    ],
)
def test_a_job_of_a_later_group_waited(second, waits, tmp_path):
    """fio's JSON does not have options without a value, such as stonewall."""
    entry = {'job options': OPTIONS, 'read': side(runtime=4000), 'write': NONE}
    first = entry | {'jobname': 'a', 'groupid': 0, 'job_start': 5000}
    entries = [first, entry | {'jobname': 'b'} | second]
    measured = read_measured(fio(tmp_path, entries))
    assert load(job=list(measured.jobs)).phases == (((0,), (1,)) if waits else ((0, 1),))


def test_jobs_side_by_side_end_together(tmp_path):
    """Else the slower one had the disk for itself in the end, which it had not in fio's run."""
    jobs = [
        {'jobname': 'fast', 'job options': OPTIONS, 'read': side(total_ios=9000), 'write': NONE},
        {'jobname': 'slow', 'job options': OPTIONS, 'read': side(total_ios=3000), 'write': NONE},
    ]
    task = task_of([fio(tmp_path, jobs)], ['target.service'], requests=1000)
    assert [job.number_ios for job in task.config(task.measured[0]).jobs] == [1500, 500]
    mine = task_of([task.measured[0].path], ['target.service'], sets=['workload.number_ios=70'])
    assert [job.number_ios for job in mine.config(mine.measured[0]).jobs] == [70, 70]


def test_processes_change_nothing(tmp_path, capsys):
    file = written(tmp_path / '1.json', 1, 'target.kind=constant', count=300)
    words = [file, '--fit', 'target.service', '--requests', '300', '--metrics', 'iops,p50']
    assert fitted(capsys, *words) == fitted(capsys, *words, '--jobs', '2')


@pytest.mark.parametrize(
    'content', ['', 'no json', '{"jobs": 3}', '[]', '{"jobs": []}', '{"jobs": [{"jobname": "a"}]}']
)
def test_what_is_no_fio_json_is_one_line(content, tmp_path, capsys):
    place = tmp_path / 'bad.json'
    place.write_text(content)
    assert main(['calibrate', str(place), '--fit', 'target.service']) == 2
    message = capsys.readouterr().err
    assert message.startswith(f'error: {place}')
    assert message.count('\n') == 1


@pytest.mark.parametrize(
    ('fit', 'says'),
    [
        ('target.sevice', 'target.service'),
        ('costs.kick.exit', 'kick.exit_to_kernel_roundtrip'),
        ('target.service=5us', 'LOW..HIGH'),
        ('target.service=5us..1us', 'LOW..HIGH'),
        ('target.kind', 'no quantity'),
        ('target.serial', 'is 0 now'),
    ],
)
def test_what_cannot_be_fitted_is_refused(fit, says):
    with pytest.raises(ConfigError, match=says):
        parse_parameter(fit, load())


# ------------------------------------------------------------------------------ the fit by itself


def test_a_profile_is_that_of_a_known_law():
    """y = a x + b z without noise: the profile of a is its least-squares interval."""
    x, sigma = np.array([1.0, 2.0, 3.0, 4.0]), 0.01
    data = 50 * x**1.0

    def residuals(values):
        a, power = values
        return np.log(a * x**power / data) / sigma

    found, space = fitting.fit(residuals, [1, 0.2], [1000, 5])
    assert found.values == pytest.approx((50, 1), rel=1e-3)
    low, high = fitting.profile(space, found, 0, 3.84)
    design = np.array([np.ones(4), np.log(x)]).T
    half = 1.96 * sigma * np.sqrt(np.linalg.inv(design.T @ design)[0, 0])
    assert np.log(high / 50) == pytest.approx(half, rel=0.15)
    assert np.log(50 / low) == pytest.approx(half, rel=0.15)


def test_a_fit_does_not_stay_in_the_first_valley():
    """The best place of the grid lies in the wrong one; the second best leads to the right one."""

    def residuals(values):
        place = np.log(values[0]) / np.log(100)
        shallow = 0.3 + (place - 0.5) ** 2
        deep = 5 * (place - 0.28)
        return np.array([deep if abs(deep) < shallow else shallow])

    found, _ = fitting.fit(residuals, [1], [100])
    assert found.values[0] == pytest.approx(100**0.28, rel=0.01)


def test_what_will_be_wanted_is_said_before():
    told: list[tuple[float, ...]] = []
    asked = []

    def residuals(values):
        asked.append(values)
        return np.log(np.array(values) / [3, 5])

    fitting.fit(residuals, [1, 1], [10, 10], ahead=told.extend)
    assert set(told) <= set(asked)
    assert len(told) > len(asked) / 2  # the grid and the derivatives
    assert len(told) == len(set(told))


def test_only_a_product_shows():
    def residuals(values):
        product = values[0] * values[1]
        return np.array([np.log(product / 6), np.log(product / 6.1)])

    found, space = fitting.fit(residuals, [0.1, 0.1], [60, 60])
    assert found.values[0] * found.values[1] == pytest.approx(6.05, rel=0.02)
    (said,) = fitting.undetermined(found, ['a', 'b'])
    assert said['parameters'] == ['a', 'b']
    assert fitting.profile(space, found, 0, 3.84) == (None, None)


def test_the_bins_of_a_file_are_its_distribution(tmp_path):
    from sim.exports.fio import write_json
    from sim.formats.fio_measured import distribution

    result = run(workload={'number_ios': 300})
    write_json(result, tmp_path / 'with.json', bins=True)
    write_json(result, tmp_path / 'without.json')
    times_us, counts = distribution(tmp_path / 'with.json')
    assert counts.sum() == 300
    clat_us = (result.requests['t_reap_ns'] - result.requests['t_kick_ns']).mean() / 1e3
    assert float(times_us @ counts) / 300 == pytest.approx(clat_us, rel=0.02)
    with pytest.raises(ConfigError, match='json\\+'):
        distribution(tmp_path / 'without.json')
