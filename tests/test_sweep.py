"""Sweeps: resumed, killed, sharded, on a cluster, with points that fail or take a process along."""

import concurrent.futures
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from sim import points, pools
from sim import sweep as module
from sim.__main__ import main
from sim.config import load
from sim.errors import ConfigError, UnfinishedError
from sim.folders import held_folder, remove_leftovers, whole_folder
from sim.points import load_report, save_files
from sim.progress import Progress, status_of
from sim.sweep import State, labels_of, run_points, shard_of, sweep

TOP = Path(__file__).parent.parent


def configs_of(*depths, **work):
    return [load(workload={'number_ios': 200, 'iodepth': d} | work) for d in depths]


def digests(places):
    return [load_report(place)['digest'] for place in places]


def stamps(folder):
    reports = folder.glob('[0-9a-f]*/report.json')
    return {path.parent.name: path.stat().st_mtime_ns for path in reports}


def wait_for(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, 'waited in vain'
        time.sleep(0.02)


# ---- on disk


def test_an_interrupted_sweep_goes_on_where_it_was(tmp_path):
    configs = configs_of(1, 2, 4)
    sweep(configs[:2], tmp_path)
    before, told = stamps(tmp_path), []
    places = sweep(configs, tmp_path, watch=told.append)
    assert told[0].done == 2
    assert told[0].news == 'already there'
    after = stamps(tmp_path)
    assert before.items() <= after.items()
    assert [load_report(p)['config']['job'][0]['iodepth'] for p in places] == [1, 2, 4]


def test_the_results_of_another_model_are_simulated_again(tmp_path):
    configs = configs_of(1)
    (place,) = sweep(configs, tmp_path)
    report = json.loads((place / 'report.json').read_text())
    report['provenance']['model'] = 'another'
    (place / 'report.json').write_text(json.dumps(report))
    sweep(configs, tmp_path)
    assert points.is_finished(place)


def test_a_config_that_stands_there_twice_is_simulated_once(tmp_path):
    told = []
    places = sweep(configs_of(2, 2), tmp_path, watch=told.append)
    assert places[0] == places[1]
    assert [state.total for state in told if state.news] == [1]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    def half():
        with whole_folder(tmp_path / 'place') as part:
            (part / 'half').write_text('x')
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert list(tmp_path.iterdir()) == []
    for text, there in (('old', []), ('new', ['old'])):
        with whole_folder(tmp_path / 'place') as part:
            (part / text).write_text(text)
            assert [p.name for p in (tmp_path / 'place').glob('*')] == there
    assert [p.name for p in (tmp_path / 'place').iterdir()] == ['new']
    assert [p.name for p in tmp_path.iterdir()] == ['place']


def test_leftovers_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path):
    code = (
        'import os, signal, sys; from pathlib import Path; from sim.folders import whole_folder\n'
        'with whole_folder(Path(sys.argv[1]) / "point") as part:\n'
        '    (part / "half").write_text("x"); os.kill(os.getpid(), signal.SIGKILL)\n'
    )
    subprocess.run([sys.executable, '-c', code, str(tmp_path)], cwd=TOP, check=False)
    (dead,) = tmp_path.iterdir()
    with held_folder(tmp_path, 'other') as living:
        assert remove_leftovers(tmp_path) == 1
        assert list(tmp_path.iterdir()) == [living]
    assert not dead.exists()
    assert list(tmp_path.iterdir()) == []


def test_two_sweeps_at_once_in_one_folder_do_not_disturb_each_other(tmp_path):
    configs = configs_of(1, 2, 4, 8)
    with concurrent.futures.ThreadPoolExecutor() as threads:
        both = [threads.submit(sweep, ours, tmp_path) for ours in (configs, configs[::-1])]
        found = [sorted(digests(one.result())) for one in both]
    assert found[0] == found[1]
    assert {p.name for p in tmp_path.iterdir()} == {c.id for c in configs}


def test_a_finished_point_is_not_replaced_while_somebody_reads_it(tmp_path):
    """The slower of two sweeps finds the point there, as good as its own."""
    (config,) = configs_of(1)
    (place,) = sweep([config], tmp_path)
    before = (place / 'report.json').stat().st_ino
    files = {path.name: path.read_bytes() for path in place.iterdir()}
    save_files(tmp_path, config, files)
    assert (place / 'report.json').stat().st_ino == before
    (place / 'report.json').write_text('{}')  # what is no finished point is replaced
    save_files(tmp_path, config, files)
    assert (place / 'report.json').read_bytes() == files['report.json']
    assert [path.name for path in tmp_path.iterdir()] == [config.id]


def test_the_slower_of_two_sweeps_leaves_what_the_quicker_one_put_there(tmp_path, monkeypatch):
    (config,) = configs_of(1)
    simulate, first = module.simulate, []

    def simulate_slowly(ours):
        if not first:
            first.append(None)
            first[0] = (sweep([config], tmp_path)[0] / 'report.json').stat().st_ino
        return simulate(ours)

    monkeypatch.setattr(module, 'simulate', simulate_slowly)
    (place,) = sweep([config], tmp_path)
    assert [(place / 'report.json').stat().st_ino] == first


# ---- many processes


def test_two_processes_find_what_one_finds(tmp_path):
    configs = configs_of(1, 2, 4)
    alone = sweep(configs, tmp_path / 'one')
    both = sweep(configs, tmp_path / 'two', jobs=2)
    assert digests(alone) == digests(both)


OVER = 'workload.iodepth=1,2,3,4,5,6,7,8'
COMMAND = ['sweep', '--over', OVER, '--set', 'workload.number_ios=100k']


def start_sweep(folder, *more, **how):
    command = [sys.executable, '-m', 'sim', *COMMAND, '--out', str(folder), '--jobs', '2', *more]
    how = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL} | how
    return subprocess.Popen(command, cwd=TOP, start_new_session=True, text=True, **how)


def children_of(pid):
    found = set()
    for stat in Path('/proc').glob('[0-9]*/stat'):
        with contextlib.suppress(OSError, IndexError):
            if int(stat.read_text().rpartition(')')[2].split()[1]) == pid:
                found.add(int(stat.parent.name))
    return found


def is_running(pid):
    with contextlib.suppress(OSError):
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    return False


def test_a_sweep_that_is_killed_half_way_goes_on_as_if_nothing_had_happened(tmp_path, capsys):
    undisturbed = main([*COMMAND, '--out', str(tmp_path / 'whole'), '--json'])
    whole = json.loads(capsys.readouterr().out)
    killed = tmp_path / 'killed'
    process = start_sweep(killed)
    wait_for(lambda: len(stamps(killed)) >= 2)
    workers = children_of(process.pid)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not any(map(is_running, workers)))
    before = stamps(killed)
    assert 2 <= len(before) < 8
    again = main([*COMMAND, '--out', str(killed), '--json', '--jobs', '2'])
    resumed = json.loads(capsys.readouterr().out)
    assert resumed == whole
    assert undisturbed == again == 0
    assert before.items() <= stamps(killed).items()
    assert {p.name for p in killed.iterdir()} == {p.name for p in (tmp_path / 'whole').iterdir()}


def test_the_workers_of_a_killed_sweep_do_not_go_on(tmp_path):
    process = start_sweep(tmp_path, '--set', 'workload.number_ios=500k')
    wait_for(lambda: list(tmp_path.glob('.part-running-*/[0-9a-f]*')))
    workers = children_of(process.pid)
    assert len(workers) >= 2
    process.kill()
    process.wait()
    wait_for(lambda: not any(map(is_running, workers)))


def test_ctrl_c_in_an_experiment_keeps_the_finished_points(tmp_path):
    command = [sys.executable, '-m', 'experiments.queue_depth', '--quick', '--out', str(tmp_path)]
    command += ['--set', 'workload.number_ios=1M']  # the signal comes long before the last point
    # What a shell runs behind `&` ignores the signal, and what that starts would inherit it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            command, cwd=TOP, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
    finally:
        signal.signal(signal.SIGINT, before)
    wait_for(lambda: stamps(tmp_path))
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 2
    assert 'Traceback' not in error
    assert 'finished points are kept' in error
    assert stamps(tmp_path)


# ---- points that go wrong


def test_a_point_that_fails_is_reported_and_the_others_are_run(tmp_path, capsys):
    over = ['--over', 'run.preset=nosuch,icx-2.6ghz', '--set', 'workload.number_ios=200']
    assert main(['sweep', *over, '--seed', '7', '--out', str(tmp_path), '--json']) == 1
    told = capsys.readouterr()
    answer = json.loads(told.out)
    assert [row['run.preset'] for row in answer['rows']] == ['icx-2.6ghz']
    (failed,) = answer['failed']
    assert 'nosuch' in failed['message']
    assert failed['seed'] == 7
    replay = f'python -m sim run {failed["place"]}/config.toml'
    assert f'failed: preset=nosuch: {failed["message"]} (seed 7; again: {replay})' in told.err
    assert main(['run', f'{failed["place"]}/config.toml']) == 2
    assert 'nosuch' in (Path(failed['place']) / 'error.txt').read_text()


def test_a_point_that_breaks_an_invariant_is_kept_and_reported_each_time(tmp_path, monkeypatch):
    real = module.simulate

    def broken(config):
        result = real(config)
        if config.jobs[0].iodepth == 2:
            result.report['violations'] = ['data: a block is lost']
        return result

    monkeypatch.setattr(module, 'simulate', broken)
    for _ in range(2):
        outcome = run_points(configs_of(1, 2), tmp_path)
        (failure,) = outcome.failures
        assert failure.label == 'iodepth=2'
        assert failure.message == 'violation: data: a block is lost'
        assert failure.replay == f'python -m sim run {outcome.places[1]}/config.toml'
        assert None not in outcome.places


def test_a_failure_that_has_passed_is_forgotten(tmp_path, monkeypatch):
    def out_of_memory(config):
        raise MemoryError

    configs = configs_of(1)
    with monkeypatch.context() as patch:
        patch.setattr(module, 'simulate', out_of_memory)
        with pytest.raises(UnfinishedError) as caught:
            sweep(configs, tmp_path)
    (failure,) = caught.value.outcome.failures
    assert 'MemoryError' in failure.message
    assert failure.place == tmp_path / 'failed' / configs[0].id
    sweep(configs, tmp_path)
    assert not failure.place.exists()


class Killer:
    """Kills every worker of this process that has been at a point with such a label."""

    def __init__(self, label, times=99):
        self.label, self.times = label, times

    def __call__(self, state):
        if self.times and any(label == self.label for label, _ in state.running):
            self.times -= 1
            for pid in children_of(os.getpid()):
                if b'LokyProcess' in Path(f'/proc/{pid}/cmdline').read_bytes():
                    os.kill(pid, signal.SIGKILL)


def with_a_long_point(requests):
    """Three points; the second has so many requests."""
    return [
        load(
            workload={'number_ios': number, 'iodepth': 4},
            target={'kind': 'null'},
            run={'record': 'histogram', 'warmup': 'off'},
        )
        for number in (200, requests, 300)
    ]


FOR_EVER = 10**9


def test_a_point_that_takes_its_process_along_does_not_take_the_sweep(tmp_path):
    configs = with_a_long_point(FOR_EVER)
    label = labels_of(configs)[1]
    outcome = run_points(configs, tmp_path / 'out', jobs=2, watch=Killer(label))
    assert [place is None for place in outcome.places] == [False, True, False]
    (failure,) = outcome.failures
    assert 'died' in failure.message
    assert 'SIGKILL' in failure.message
    assert (failure.place / 'config.toml').exists()


def test_a_process_that_dies_by_accident_costs_nothing_but_time(tmp_path):
    configs = with_a_long_point(1_500_000)
    killer = Killer(labels_of(configs)[1], times=1)
    outcome = run_points(configs, tmp_path / 'out', jobs=2, watch=killer)
    assert killer.times == 0
    assert outcome.failures == []
    assert None not in outcome.places


# ---- shards


def test_shards_are_the_points_once_each(tmp_path, capsys):
    few = [*COMMAND, '--set', 'workload.number_ios=100', '--out', str(tmp_path)]
    for shard in ('3/3', '1/3', '2/3'):
        assert main([*few, '--shard', shard]) == 0
    told = capsys.readouterr()
    assert told.err.count(' in ') >= 8
    before = stamps(tmp_path)
    assert len(before) == 8
    assert main([*few, '--json']) == 0
    assert stamps(tmp_path) == before
    assert len(json.loads(capsys.readouterr().out)['rows']) == 8
    configs = configs_of(*range(1, 12))
    parts = [shard_of(configs, f'{i}/4') for i in (1, 2, 3, 4)]
    assert sorted(len(part) for part in parts) == [2, 3, 3, 3]
    assert {c.id for part in parts for c in part} == {c.id for c in configs}


@pytest.mark.parametrize('shard', ['0/3', '4/3', '3', 'a/b', '1/0', '-1/3', '1/3/2'])
def test_nonsense_for_a_shard_is_refused(shard):
    with pytest.raises(ConfigError, match='3/8'):
        shard_of([], shard)


def test_an_experiment_waits_for_the_other_shards(tmp_path, capsys):
    from experiments.queue_depth import EXPERIMENT

    arguments = ['--quick', '--set', 'workload.number_ios=100', '--out', str(tmp_path), '--json']
    for shard in ('1/2', '2/2'):
        assert EXPERIMENT.main([*arguments, '--shard', shard]) == 0
    told = capsys.readouterr()
    assert 'of 10 points are in' in told.err
    assert EXPERIMENT.main(arguments) == 0
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])['rows']) == 10


# ---- what people see


class Terminal(io.StringIO):
    def isatty(self):
        return True


STATES = [
    State(total=3, warming=True),
    State(total=3, running=(('iodepth=256', 83.4), ('iodepth=1', 2.0))),
    State(total=3, done=1, news='iodepth=1 in 2.5 s'),
    State(total=3, done=2, failed=1, news='iodepth=256: its worker died'),
]


def test_a_log_gets_a_plain_line_per_point():
    log = io.StringIO()
    show = Progress(log)
    for state in STATES:
        show(state)
    show.close()
    assert log.getvalue() == '  1/3  iodepth=1 in 2.5 s\n  2/3  iodepth=256: its worker died\n'


def test_a_log_hears_now_and_then_what_takes_so_long(monkeypatch):
    monkeypatch.setattr('sim.progress.LOG_SECONDS', 0)
    log = io.StringIO()
    Progress(log)(STATES[1])
    assert 'the slowest for 83 s: iodepth=256' in log.getvalue()


def test_a_terminal_gets_a_bar_that_changes(monkeypatch):
    monkeypatch.setenv('COLUMNS', '80')
    screen = Terminal()
    show = Progress(screen)
    for state in STATES:
        show(state)
    show.close()
    assert screen.getvalue().count('\n') == 1  # only what has failed stays
    assert '2/3  iodepth=256: its worker died\n' in screen.getvalue()
    assert '[------' in screen.getvalue()
    assert '[######--------------] 1 of 3 points done, 2 left' in screen.getvalue()
    assert '0 of 3 points done, 3 left, 2 running' in screen.getvalue()
    assert 'compiling' in status_of(STATES[0])
    assert '1 failed, 1 left' in status_of(STATES[3])


def test_points_are_named_after_what_differs():
    configs = [
        load(workload={'iodepth': depth}, device={'event_idx': on})
        for depth in (1, 2)
        for on in (True, False)
    ]
    assert labels_of(configs)[:2] == ['iodepth=1 event_idx=on', 'iodepth=1 event_idx=off']
    assert labels_of(configs[:1]) == [configs[0].id]


def test_the_table_has_a_row_per_point_and_a_dash_for_what_is_not_said(tmp_path, capsys):
    over = ['--over', 'workload.iodepth=1,8', '--over', 'device.event_idx=on,off']
    arguments = [*over, '--set', 'workload.number_ios=300', '--show', 'busy.vhost']
    assert main(['sweep', *arguments, '--out', str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:5] == ['iodepth', 'event_idx', 'iops', 'mean_us', 'p50_us']
    assert 'busy.vhost' in lines[0]
    assert [line.split()[:2] for line in lines[1:5]] == [
        ['1', 'on'], ['1', 'off'], ['8', 'on'], ['8', 'off'],
    ]  # fmt: skip
    assert '-' in lines[1].split()
    assert len((tmp_path / 'sweep.csv').read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        ([], '--over'),
        (['--over', 'workload.iodepth'], 'iodepth=1,2,4'),
        (['--over', 'workload.iodepth=1,,2'], 'iodepth=1,2,4'),
        (['--over', 'workload.iodepth=1', '--over', 'workload.iodepth=2'], 'twice'),
        (['--over', 'workload.iodepht=1,2'], 'iodepth'),
        (['--over', 'workload.iodepth=1', '--jobs', '0'], 'at least one'),
        (['--over', 'workload.iodepth=1', '--backend', 'ray'], 'local, dask'),
        (['--over', 'workload.iodepth=1', '--backend', 'dask'], '--scheduler'),
        (['--over', 'workload.iodepth=1', '--scheduler', 'tcp://x:1'], '--backend dask'),
        (['--over', 'workload.iodepth=1', '--show', 'nosuch.thing'], 'nosuch'),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused_in_one_line(arguments, says, tmp_path, capsys):
    few = ['--set', 'workload.number_ios=20', '--out', str(tmp_path)]
    assert main(['sweep', *arguments, *few]) == 2
    lines = capsys.readouterr().err.splitlines()
    (error,) = [line for line in lines if line.startswith('error')]
    assert says in error


# ---- a cluster


@pytest.fixture
def cluster():
    distributed = pytest.importorskip(
        'distributed', reason='dask.distributed is not installed: the extra "cluster"'
    )
    import dask

    once = {'distributed.scheduler.allowed-failures': 0}  # a call is not tried on another worker
    with (
        dask.config.set(once),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as made,
    ):
        yield made


dask_test = pytest.mark.filterwarnings('ignore')  # what dask warns of is not ours


@dask_test
def test_a_cluster_finds_what_this_machine_finds(tmp_path, cluster, capsys, monkeypatch):
    few = [*COMMAND, '--set', 'workload.number_ios=500', '--json']
    where = ['--backend', 'dask', '--scheduler', cluster.scheduler_address]
    assert main([*few, '--out', str(tmp_path / 'here')]) == 0
    here = json.loads(capsys.readouterr().out)
    monkeypatch.setattr(module, 'simulate', None)  # in this process; the workers have their own
    assert main([*few, '--out', str(tmp_path / 'there'), *where]) == 0
    there = json.loads(capsys.readouterr().out)
    assert there == here
    before = stamps(tmp_path / 'there')
    assert main([*few, '--out', str(tmp_path / 'there'), *where]) == 0
    assert stamps(tmp_path / 'there') == before


@dask_test
def test_a_cluster_survives_a_point_that_kills_its_worker(tmp_path, cluster):
    configs = with_a_long_point(FOR_EVER)
    hung = labels_of(configs)[1]

    def kill_the_worker_that_hangs(state):
        if state.done == 2 and [label for label, _ in state.running] == [hung]:
            for nanny in cluster.workers.values():
                if nanny.process is not None and nanny.process.pid:
                    os.kill(nanny.process.pid, signal.SIGKILL)

    outcome = run_points(
        configs,
        tmp_path / 'out',
        backend='dask',
        scheduler=cluster.scheduler_address,
        watch=kill_the_worker_that_hangs,
    )
    assert [place is None for place in outcome.places] == [False, True, False]
    assert 'died' in outcome.failures[0].message


def test_a_worker_without_this_disk_sends_its_results(tmp_path):
    (config,) = configs_of(2)
    (alone,) = sweep([config], tmp_path / 'here')
    done = module._point(config, tmp_path / 'far', tmp_path / 'no such marks', module.MODEL_DIGEST)
    assert not (tmp_path / 'far').exists()
    points.save_files(tmp_path / 'far', config, dict(done.files))
    far = tmp_path / 'far' / config.id
    assert {p.name for p in far.iterdir()} == {p.name for p in alone.iterdir()}
    assert digests([far]) == digests([alone])


def test_a_worker_with_another_model_is_not_listened_to(tmp_path):
    (config,) = configs_of(2)
    done = module._point(config, tmp_path, tmp_path, 'another model')
    assert 'another version' in done.failure


@dask_test
def test_a_scheduler_that_does_not_answer_is_said_in_one_line(tmp_path, monkeypatch, capsys):
    pytest.importorskip('distributed')
    monkeypatch.setattr(pools, 'CONNECT_SECONDS', 0.3)
    where = ['--backend', 'dask', '--scheduler', 'tcp://127.0.0.1:1']
    assert main([*COMMAND, '--out', str(tmp_path), *where]) == 2
    assert 'no scheduler' in capsys.readouterr().err


def test_the_figure_has_what_theory_says_and_words_along_x_where_there_are_no_numbers(tmp_path):
    over = ['--over', 'target.kind=null,constant', '--set', 'workload.number_ios=200']
    assert main(['sweep', *over, '--jobs', '1', '--out', str(tmp_path)]) == 0
    assert (tmp_path / 'sweep.png').stat().st_size > 10_000


def test_theory_is_drawn_once_where_all_lines_share_it():
    from sim.analysis import plot_sweep
    from sim.analysis.bounds import said_by_theory

    points = [(depth, idx) for depth in (1, 8, 64) for idx in ('on', 'off')]
    table = pd.DataFrame(
        [{'depth': str(d), 'idx': i, 'iops': 9e4, 'fio_lat_us': 90.0} for d, i in points]
    )
    theory = pd.DataFrame([said_by_theory(load(workload={'iodepth': d})) for d, _ in points])
    figure = plot_sweep.sweep(table, theory, ['depth', 'idx'], 'a sweep')
    left, right = (axes.get_legend_handles_labels()[1] for axes in figure.axes)
    bounds = ['asymptotic bound', 'mean-value analysis, nothing shared']
    assert sorted(left) == sorted(['idx=on', 'idx=off', 'balanced bounds', *bounds])
    assert sorted(right) == sorted(['idx=on', 'idx=off', *bounds])


def test_a_run_outside_the_bounds_fails_the_sweep(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('sim.analysis.bounds.minimal_demands', lambda *_: [(2.6e9, 1)])
    over = ['--over', 'workload.iodepth=1,2', '--set', 'workload.number_ios=200']
    assert main(['sweep', *over, '--jobs', '1', '--out', str(tmp_path)]) == 1
    assert capsys.readouterr().err.count('violation: ') >= 2


def test_a_preset_of_the_users_that_was_edited_makes_other_points(tmp_path):
    """Its name is in the config, its text is not; a calibration rewrites it under its name."""
    mine = tmp_path / 'mine.toml'
    shipped = Path(__file__).parent.parent / 'presets' / 'icx-2.6ghz.toml'
    mine.write_text(shipped.read_text())
    config = load(run={'preset': str(mine)}, workload={'number_ios': 20})
    first = config.id
    assert config.id == first
    mine.write_text(shipped.read_text() + '\n# edited\n')
    assert config.id != first
    mine.unlink()
    assert config.id != first  # and no error: whoever simulates it says that it is gone
    assert load(run={'preset': 'icx-2.6ghz'}).id == load().id


def test_so_does_a_disk_in_python(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    place = tmp_path / 'my_disk_of_a_test.py'
    place.write_text('def disk(port):\n    yield port.get()\n')
    keys = {'kind': 'python', 'component': 'my_disk_of_a_test:disk'}
    first = load(target=keys).id
    place.write_text('def disk(port):\n    yield from ()\n')
    assert load(target=keys).id != first
