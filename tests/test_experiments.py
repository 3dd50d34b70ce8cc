"""All experiments have one form, take the same options and leave what they say they leave."""

import importlib
import importlib.util
import inspect
import json
import math
import re
from pathlib import Path

import pytest

from experiments import command, feature_bits
from experiments.__main__ import main as list_them
from experiments.kept import Kept

TOP = Path(__file__).resolve().parent.parent
EXPERIMENTS = command.experiments()
every = pytest.mark.parametrize('experiment', EXPERIMENTS, ids=lambda found: found.name)

# What makes --quick smaller still, to a few seconds, by experiment: names of the module, and their
# values here.
SMALL = {
    'backends': {
        'REQUESTS_QUICK': 400,
        'DEPTHS': (1,),
        'SWEPT': ('10 µs',),
    },
    'disks': {
        'DEPTHS_QUICK': (1, 64),
        'REQUESTS_QUICK': 150,
        'REQUESTS_HDD_QUICK': 100,
        'CACHED': {'sata-ssd-s4610': 32},
    },
    'drain': {'SEEDS_QUICK': 1, 'DEPTHS': (1, 4, 16, 32)},
    'feature_bits': {
        'COMBINATIONS': [feature_bits.REFERENCE, feature_bits.REFERENCE._replace(packed=True)],
        'LOADS_QUICK': (feature_bits.Load(4, 1),),
        'REQUESTS_QUICK': 300,
    },
    'migration_downtime': {
        'SEEDS_QUICK': 2,
        'DEPTHS': (1, 4),
        'SERVICES_US': (300, 1000),
        'LEADS_US': (0, 1000),
        'DIRTY_SHARES': (0.0, 0.2),
        'LINKS_GBIT': (10, 40),
        'IDLE_GIB': (8, 32),
        'FUNCTIONS': (0, 2),
    },
    'queue_depth': {'DEPTHS_QUICK': (1, 32), 'REQUESTS_QUICK': 500},
    'stop_flush': {
        'KERNELS': ('7.2',),
        'LOADS_QUICK': ('three',),
        'GAPS_NS_QUICK': (0,),
        'BOUNDARIES_QUICK': 12,
    },
    'workers': {'JOBS': (1, 2), 'REQUESTS_QUICK': 500},
}


def module_of(experiment):
    return importlib.import_module(f'experiments.{experiment.name}')


def test_every_module_is_an_experiment():
    """But for this package's own."""
    modules = {path.stem for path in (TOP / 'experiments').glob('[a-z]*.py')}
    assert {found.name for found in EXPERIMENTS} == modules - {'command', 'kept'}


@every
def test_its_docstring_says_what_is_asked_how_and_for_how_long(experiment):
    module = module_of(experiment)
    assert experiment.doc == module.__doc__
    assert experiment.question.endswith('?')
    heads = re.findall(r'^(Method|Theory|Expect|Takes):', experiment.doc, re.MULTILINE)
    assert [head for head in heads if head != 'Theory'] == ['Method', 'Expect', 'Takes']
    assert re.search(r'(second|minute|hour).*--quick', experiment.takes)


@every
def test_its_functions_and_options_are_those_of_all(experiment):
    assert list(inspect.signature(experiment.experiment).parameters) == ['options']
    assert list(inspect.signature(experiment.draw).parameters) == ['outcome', 'folder']
    assert list(inspect.signature(experiment.show).parameters) == ['outcome']
    options = vars(experiment.parser().parse_args([]))
    wanted = {'quick', 'jobs', 'backend', 'scheduler', 'seed', 'out', 'json', 'sets', 'config'}
    assert wanted <= options.keys()
    assert options['out'] == f'results/runs/{experiment.name}'


@every
def test_it_answers_in_one_object_and_leaves_what_it_says(
    experiment, tmp_path, capsys, monkeypatch
):
    """--seed reaches the runs, and nothing is drawn that is not announced."""
    for name, value in SMALL.get(experiment.name, {}).items():
        monkeypatch.setattr(module_of(experiment), name, value)
    if experiment.name == 'disks':
        few = ['hdd-7200', 'sata-ssd-s4610']
        monkeypatch.setattr('sim.formats.disks.disk_presets', lambda: few)
    assert experiment.main(['--quick', '--json', '--seed', '7', '--out', str(tmp_path)]) == 0
    answer = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    beside = ['ablations'] if experiment.name == 'stop_flush' else []
    assert list(answer) == ['config', 'seed', 'rows', 'guesses', *beside]
    assert answer['seed'] == answer['config']['run']['seed'] == 7
    assert answer['rows']
    left = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert left == {*experiment.tables, *experiment.figures}
    assert all((tmp_path / name).stat().st_size > 10_000 for name in experiment.figures)
    folders = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert bool(folders - {'calls'}) == experiment.points


def test_the_list_of_figures_is_up_to_date():
    spec = importlib.util.spec_from_file_location('reference', TOP / 'scripts/reference.py')
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    text = (TOP / 'results/README.md').read_text()
    assert reference.renewed(text) == text, 'run scripts/reference.py'
    assert all(f'experiments.{found.name}`' in text for found in EXPERIMENTS)


def test_experiments_can_be_listed(capsys):
    assert list_them([]) == 0
    listed = capsys.readouterr().out
    assert all(f'python -m experiments.{found.name}\n' in listed for found in EXPERIMENTS)
    assert list_them(['queue_depth']) == 2
    assert 'to run one: python -m experiments.NAME\n' in capsys.readouterr().err


def test_a_mistake_is_told_in_one_line(capsys):
    assert EXPERIMENTS[0].main(['--qiuck']) == 2
    said = capsys.readouterr()
    assert said.out == ''
    assert said.err.count('\n') == 1
    assert "; the nearest is '--quick'" in said.err


# ---- the parts of the form


def options(*arguments):
    return command.Experiment('x', 'A?', None, None, None, (), {}).parser().parse_args(arguments)


def test_what_outranks_what(tmp_path):
    file = tmp_path / 'config.toml'
    file.write_text('[workload]\nbs = "8k"\nnumber_ios = 70\niodepth = 3\n')
    given = options(str(file), '--set', 'workload.rw=randwrite', '--seed', '9')
    under = {'workload': {'bs': '16k', 'size': '1g'}}
    over = {'workload.number_ios': 80, 'workload.rw': 'randrw'}
    config = command.config(given, under=under, over=over, vary={'workload.iodepth': 5})
    (job,) = config.jobs
    assert (job.bs, job.size) == (8192, 1 << 30)  # a file outranks `under`, nothing given does not
    assert (job.number_ios, job.rw) == (80, 'randwrite')  # `over` a file, but not --set
    assert (job.iodepth, config.run.seed) == (5, 9)


def test_a_device_string_does_not_undo_the_rest_of_the_machine():
    given = options('--device', 'vhost-scsi-pci,cmd_per_lun=64')
    config = command.config(given, under={'device': {'num_queues': 4}, 'guest': {'vcpus': 4}})
    assert (config.device.cmd_per_lun, config.device.num_queues) == (64, 4)


def test_to_set_what_is_varied_makes_no_sense(tmp_path, capsys):
    queue_depth = next(found for found in EXPERIMENTS if found.name == 'queue_depth')
    arguments = ['--quick', '--out', str(tmp_path), '--set', 'workload.iodepth=4']
    assert queue_depth.main(arguments) == 2
    assert 'workload.iodepth: the experiment varies it' in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_said_at_once(tmp_path, capsys):
    (tmp_path / 'file').touch()
    drain = next(found for found in EXPERIMENTS if found.name == 'drain')
    assert drain.main(['--quick', '--out', str(tmp_path / 'file' / 'x')]) == 2
    assert 'choose another --out' in capsys.readouterr().err


@pytest.mark.parametrize('jobs', ['1', '2'])
def test_each_returns_in_the_order_of_the_calls(jobs, capsys):
    found = command.each(options('--jobs', jobs), pow, {'b': (2, 3), 'a': (3, 2)})
    assert found == [8, 9]
    assert '2/2' in capsys.readouterr().err


def noted(folder, number):
    """Called by each(): leaves a line, and is interrupted as long as there is a file `stop`."""
    if number == 2 and (folder / 'stop').exists():
        raise KeyboardInterrupt
    with (folder / 'calls.txt').open('a') as calls:
        calls.write(f'{number}\n')
    return {'n': number}


def test_what_was_returned_is_kept_when_a_start_is_interrupted(tmp_path, capsys):
    given = options('--out', str(tmp_path))
    given.keep = True
    calls = {str(n): (tmp_path, n) for n in (1, 2, 3)}
    (tmp_path / 'stop').touch()
    with pytest.raises(KeyboardInterrupt):
        command.each(given, noted, calls)
    (tmp_path / 'stop').unlink()
    for _ in range(2):
        assert command.each(given, noted, calls) == [{'n': 1}, {'n': 2}, {'n': 3}]
    assert (tmp_path / 'calls.txt').read_text() == '1\n2\n3\n'
    for answer in (tmp_path / 'calls').iterdir():
        answer.write_bytes(b'half')  # is made again
    assert command.each(given, noted, calls)[1] == {'n': 2}
    assert (tmp_path / 'calls.txt').read_text() == '1\n2\n3\n' * 2


def test_other_arguments_text_or_files_are_other_calls(tmp_path, monkeypatch):
    from sim.config import load

    kept = Kept(tmp_path, noted)
    assert kept.place([1]) != kept.place([2])
    assert kept.place([1]) != Kept(tmp_path, options).place([1])
    assert kept.place([load().effective()]) is not None
    mine = Path(__file__).parent.parent / 'presets' / 'icx-2.6ghz.toml'
    assert kept.place([load(run={'preset': str(mine)}).effective()]) is None  # its text may change
    monkeypatch.setattr('sim.jit.MODEL_DIGEST', 'another')
    assert Kept(tmp_path, noted).place([1]) != kept.place([1])


def test_what_is_no_number_is_null():
    import numpy as np

    rows = [{'a': float('nan'), 'b': np.int64(3), 'c': (np.float64(math.pi),), 4: 'x'}]
    assert command.plain(rows) == [{'a': None, 'b': 3, 'c': [math.pi], '4': 'x'}]
