"""The shipped disks: they load, they fit as they say, and their tables are current."""

import importlib.util
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from sim.__main__ import main
from sim.config import ConfigError, from_effective, load
from sim.formats.disks import disk_presets, load_disk
from sim.run import run

TOP = Path(__file__).parent.parent
PRESETS = disk_presets()


@pytest.fixture(scope='module')
def fit_disks():
    spec = importlib.util.spec_from_file_location('fit_disks', TOP / 'scripts/fit_disks.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_is_a_disk_of_every_sort():
    assert {'optane-p4800x', 'nvme-tlc-p4510', 'sata-ssd-s4610', 'hdd-7200', 'iscsi-ssd'} <= {
        *PRESETS
    }


@pytest.mark.parametrize('name', PRESETS)
def test_a_preset_loads_names_its_source_and_says_its_grade(name):
    config = load(target={'disk': name})
    assert config.target.kind == load_disk(name)['target']['kind']
    assert load_disk(name)['grade'] in 'ABC'
    assert from_effective(config.effective()) == config
    text = (TOP / f'presets/disks/{name}.toml').read_text()
    assert 'easured' in text.split('\nname')[0]


@pytest.mark.parametrize('name', PRESETS)
def test_its_table_of_errors_is_what_the_model_gives_now(name, fit_disks):
    assert fit_disks.renew(name, fit=False, check=True), f'run scripts/fit_disks.py {name}'


def test_reads_of_the_sata_ssd_are_within_six_percent_at_every_depth():
    points = [p for p in load_disk('sata-ssd-s4610')['fit']['points'] if p['rw'] == 'randread']
    assert [p['iodepth'] for p in points] == [1, 2, 4, 8, 16, 32, 64]
    assert all(abs(p['error_iops_percent']) < 6 for p in points)
    assert sum(p['role'] == 'predicted' for p in points) >= 4


def test_the_depth_gain_of_the_disk_is_the_published_one_and_goes_with_its_scheduler(fit_disks):
    preset = load_disk('hdd-7200')
    shallow, deep = (p for p in preset['measured'] if p['rw'] == 'randread')
    keys = preset['target']

    def iops(point, **change):
        return fit_disks.simulate({**keys, **change}, preset['fit'], point)['iops']

    assert iops(deep) / iops(shallow) == pytest.approx(131 / 72.2, rel=0.02)
    assert iops(deep, scheduler='fifo') == pytest.approx(iops(shallow), rel=0.02)


def test_a_key_that_is_given_outranks_the_preset():
    config = load(target={'disk': 'sata-ssd-s4610', 'dies': 3}, sets=['target.serial=1us'])
    assert (config.target.dies, config.target.serial) == (3, 1000)
    assert config.target.power_loss_protection
    local = load(target={'disk': 'iscsi-ssd', 'network_round_trip': 0})
    assert 'network_rto' not in local.effective()['target']


def test_a_preset_of_ones_own_is_named_by_its_path(tmp_path):
    mine = tmp_path / 'mine.toml'
    mine.write_text('[target]\nkind = "constant"\nservice = "5us"\n')
    assert load(target={'disk': str(mine)}).target.service == 5000
    mine.write_text('[target]\nkind = "constant"\ndies = 4\n')
    with pytest.raises(ConfigError, match=r'target\.kind=ssd: the disk'):
        load(target={'disk': str(mine), 'kind': 'ssd'})
    mine.write_text('[target]\nkind = "constant"\nservices = "5us"\n')
    with pytest.raises(ConfigError, match=r'mine.toml:3: no key .services. in target'):
        load(target={'disk': str(mine)})
    mine.write_text('kind = "constant"\n')
    with pytest.raises(ConfigError, match='is no disk preset'):
        load(target={'disk': str(mine)})


@pytest.mark.parametrize('name', PRESETS)
def test_every_invariant_holds_behind_a_shipped_disk(name):
    work = {'iodepth': 16, 'number_ios': 300, 'rw': 'randrw'}
    assert run(workload=work, target={'disk': name}).violations == []


def test_the_command_line_lists_them_with_their_errors(capsys):
    assert main(['disks']) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in PRESETS)
    assert re.search(r'sata-ssd-s4610 .*reads [0-5].[0-9] %, [0-5].[0-9] %', listed)
    assert main(['disks', 'sata-ssd-s4610']) == 0
    assert 'predicted' in capsys.readouterr().out
    assert main(['disks', '--json']) == 0
    assert json.loads(capsys.readouterr().out).keys() == {*PRESETS}
    assert main(['disks', 'floppy']) == 2
    assert 'known: hdd-7200' in capsys.readouterr().err


def test_the_experiment_draws_model_and_measurement(tmp_path, monkeypatch, capsys):
    from experiments import disks

    monkeypatch.setattr('sim.formats.disks.disk_presets', lambda: ['hdd-7200', 'sata-ssd-s4610'])
    monkeypatch.setattr(disks, 'DEPTHS_QUICK', (1, 64))
    monkeypatch.setattr(disks, 'REQUESTS_QUICK', 150)
    monkeypatch.setattr(disks, 'REQUESTS_HDD_QUICK', 100)
    monkeypatch.setattr(disks, 'CACHED', {'sata-ssd-s4610': 32})
    arguments = ['--quick', '--out', str(tmp_path)]
    assert disks.EXPERIMENT.main(arguments) == 0
    printed = capsys.readouterr().out
    assert 'sata-ssd-s4610' in printed
    assert 'violation' not in printed
    table = pd.read_csv(tmp_path / 'disks.csv')
    assert set(table['where']) == {'measured', 'alone', 'path'}
    sata = table[(table['disk'] == 'sata-ssd-s4610') & (table['where'] == 'alone')]
    assert (sata['error_iops_percent'].abs() < 6).all()
    for name in ('iops', 'latency', 'share', 'cache', 'tail'):
        assert (tmp_path / f'{name}.png').stat().st_size > 10_000
