"""run(), the engine and the command line, as a user meets them."""

import gc
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sim import costs, invariants, machine, record, recorder
from sim.__main__ import main
from sim.analysis import frame
from sim.config import load
from sim.engine import CompiledEngine, SimpyEngine
from sim.run import Phases, run

TOP = Path(__file__).parent.parent
FIO = str(TOP / 'examples/randread-4k.fio')
DEVICE = (TOP / 'examples/device.txt').read_text()


# Sixteen places, written and read over and over with sixteen requests in flight.
REWRITE = {'rw': 'randrw', 'size': '64k', 'runtime': '4ms', 'time_based': True, 'iodepth': 16}


def finished(**sections):
    """A machine after its run, for the checkers."""
    config = load(**sections)
    world = machine.build(config, costs.of_config(config))
    engine = CompiledEngine(world)
    Phases(engine, config)
    engine.run()
    return world


# ---- stories


@pytest.mark.parametrize(
    'work',
    [
        {'rw': 'randrw', 'size': '1m', 'iodepth': 16},
        REWRITE,
        {'rw': 'write', 'bs': '64k', 'iodepth': 4},
        {'rw': 'randwrite', 'bs': '512', 'iodepth': 32},
        {'iodepth': 64, 'iodepth_batch_submit': 48, 'iodepth_batch_complete_max': 64},
        {'ioengine': 'io_uring', 'iodepth': 32, 'iodepth_batch_submit': 8},
        {'rate_iops': 20000, 'rate_process': 'poisson', 'iodepth': 8},
        {'thinktime': '50us', 'iodepth': 2},
        {'numjobs': 4, 'iodepth': 8},
    ],
    ids=lambda work: ' '.join(f'{k}={v}' for k, v in work.items()),
)
def test_every_way_of_working_completes_everything_once(work):
    work = work if 'runtime' in work else {'number_ios': 1500} | work
    result = run(workload=work, target={'kind': 'exponential'})
    assert result.violations == []
    assert (result.requests['outcome'] == 'ok').all()


@pytest.mark.parametrize('queues', [1, 4])
def test_jobs_share_queues_or_have_their_own(queues):
    result = run(
        workload={'numjobs': 4, 'iodepth': 4, 'number_ios': 500},
        device={'num_queues': queues},
        target={'kind': 'exponential'},
    )
    assert result.violations == []
    assert result.requests['queue'].nunique() == queues


def test_stages_add_up_to_the_latency():
    requests = run(workload={'iodepth': 8, 'number_ios': 500}).requests
    stages = sum(requests[f'{stage}_ns'] for stage in record.STAGES)
    assert (stages == requests['latency_ns']).all()


def test_rate_iops_is_an_open_loop_until_the_disk_cannot_follow():
    slow = run(workload={'rate_iops': 1000, 'number_ios': 300, 'iodepth': 4}).report
    assert slow['iops'] == pytest.approx(1000, rel=0.01)


def test_runtime_ends_the_job_and_ramp_time_is_left_out():
    work = {'runtime': '20ms', 'ramp_time': '5ms', 'time_based': True, 'iodepth': 4}
    report = run(workload=work).report
    assert 0.024 < report['simulated_seconds'] < 0.027
    assert report['warmup_requests'] == pytest.approx(report['requests'] / 5, rel=0.1)


def test_stonewall_starts_the_second_job_when_the_first_is_done(tmp_path):
    job = tmp_path / 'two.fio'
    job.write_text('[global]\nnumber_ios=100\n[a]\nrw=read\n[b]\nstonewall\nrw=write\n')
    requests = run(load(fio=str(job))).requests
    a, b = (requests[requests['job'] == name] for name in 'ab')
    assert a['t_reap_ns'].max() <= b['t_arrive_ns'].min()


def test_control_comes_before_the_agents_of_the_same_time():
    config = load(workload={'number_ios': 200, 'iodepth': 4})
    seen = []

    def spy(engine, at):
        yield engine.env.timeout(at)
        seen.append(frame.trace_rows(engine.machine)[:, 0].size)

    world = machine.build(config, costs.of_config(config))
    engine = SimpyEngine(world)
    Phases(engine, config)
    first_add = costs.of_config(config)
    engine.env.process(spy(engine, 0))
    engine.env.process(spy(engine, first_add.guest_io_submit + first_add.guest_submit))
    engine.run()
    assert seen == [0, 1]


def test_a_long_run_outgrows_its_trace_and_loses_nothing(monkeypatch):
    small = recorder.new_trace
    monkeypatch.setattr(recorder, 'new_trace', lambda plan: small(replace(plan, rows=200)))
    result = run(workload={'number_ios': 3000, 'iodepth': 8})
    assert len(result.requests) == 3000
    assert result.violations == []


# ---- the checkers can see


@pytest.mark.parametrize(
    ('column', 'change', 'said'),
    [
        ('completed', 1, 'conservation'),
        ('fetched', -1, 'conservation'),
        ('t_fetch', 10**9, 'order'),
        ('stamp', 1, 'data'),
    ],
)
def test_a_falsified_trace_is_noticed(column, change, said):
    world = finished(workload=REWRITE)
    assert invariants.check(world) == []
    frame.trace_rows(world)[100, invariants.COLUMN[column]] += change
    assert any(text.startswith(said) for text in invariants.check(world))


def test_a_misdirected_read_is_noticed():
    world = finished(workload={'number_ios': 200, 'iodepth': 4})
    rows = frame.trace_rows(world)
    stamps = rows[:, invariants.COLUMN['stamp']]
    stamps[[3, 4]] = stamps[[4, 3]]
    assert any('wrong data' in text for text in invariants.check(world))


# ---- results


def test_results_are_saved_and_read_back(tmp_path):
    result = run(workload={'number_ios': 300})
    place = result.save(tmp_path)
    assert {p.name for p in place.iterdir()} == {
        'requests.parquet',
        'summary.csv',
        'config.toml',
        'report.json',
    }
    again = pd.read_parquet(place / 'requests.parquet')
    assert (again['latency_ns'] == result.requests['latency_ns']).all()
    assert json.loads(again.attrs['provenance'])['digest'] == result.report['digest']
    assert load(toml=str(place / 'config.toml')) == result.config


# ---- the command


def test_run_prints_one_json_object_with_the_documented_keys(capsys):
    sets = ['--set', 'workload.number_ios=500']
    assert main(['run', '--fio', FIO, '--device', DEVICE, '--json', *sets]) == 0
    report = json.loads(capsys.readouterr().out)
    wanted = (
        'id digest requests simulated_seconds wall_seconds iops latency_ns stages_ns kicks '
        'interrupts requests_per_kick violations config'
    ).split()
    assert set(wanted) <= report.keys()
    assert {'mean', 'p50', 'p90', 'p99', 'p999', 'max'} <= report['latency_ns'].keys()
    text = (TOP / 'docs/reference/results.md').read_text()
    assert [key for key in report if key not in text] == []


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        (['--set', 'workload.iodepht=4'], 'iodepth'),
        (['--set', 'workload.iodepth=-1'], 'iodepth'),
        (['--set', 'workload.runtime=3parsec'], 'parsec'),
        (['--set', 'device.virtqueue_size=100'], 'power of two'),
        (['--set', 'run.preset=nosuch'], 'icx-2.6ghz'),
        (['--set', 'costs.kick.exit_to_kernel_roundtip=1us'], 'exit_to_kernel_roundtrip'),
        (['--set', 'costs.guest.submit_per_cmd_batched=1ns'], 'cache lines'),
        (['--fio', '/nonexistent.fio'], 'nonexistent'),
        (['--device', 'vhost-scsi-pci,packed=on'], 'RING_PACKED'),
        (['--engine', 'warp'], 'engine'),
        (['--seed', 'x'], 'seed'),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, says, capsys):
    assert main(['run', *arguments]) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if not line.startswith('note:')]
    assert len(lines) == 1
    assert says in lines[0]


def test_a_job_file_with_a_syntax_error_names_file_and_line(tmp_path, capsys):
    job = tmp_path / 'bad.fio'
    job.write_text('[global]\nbs=4k\n[job\nrw=read\n')
    assert main(['run', '--fio', str(job)]) == 2
    assert 'bad.fio:3' in capsys.readouterr().err


def test_an_output_folder_that_cannot_be_written_is_said_in_one_line(tmp_path, capsys):
    (tmp_path / 'file').touch()
    arguments = ['run', '--set', 'workload.number_ios=100', '--out', str(tmp_path / 'file')]
    assert main(arguments) == 2
    assert 'cannot write' in capsys.readouterr().err


def test_params_prints_every_parameter_with_its_source(capsys):
    assert main(['params', '--json']) == 0
    rows = json.loads(capsys.readouterr().out)['parameters']
    assert len(rows) >= 45
    assert all(row['source'] and row['grade'] in 'ABC' for row in rows)


def test_help_imports_nothing_heavy():
    code = (
        'import sys; sys.argv=["x","--help"]\n'
        'try:\n from sim.__main__ import main; main()\n'
        'except SystemExit: pass\n'
        'heavy = {"numpy","numba","pandas","matplotlib","simpy"} & set(sys.modules)\n'
        'sys.exit(f"imported {heavy}" if heavy else 0)'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=TOP, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_order_of_queries_is_the_tables_order():
    world = finished(workload={'number_ios': 100})
    assert (np.diff(frame.trace_rows(world)[:, invariants.COLUMN['serial']]) == 1).all()


def test_many_runs_in_one_process_do_not_keep_their_machines(monkeypatch):
    monkeypatch.setattr('sim.run.GARBAGE_BYTES', -(1 << 60))  # every run finds it too much
    for seed in range(6):
        run(run={'seed': seed}, workload={'number_ios': 20})
    alive = [found for found in gc.get_objects() if isinstance(found, machine.Machine)]
    assert len(alive) <= 2
