"""The config: who outranks whom, what is refused and in which words, what reads back."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.config import ConfigError, from_effective, load
from sim.formats.keys import SECTIONS, fields_of

DOC = (Path(__file__).resolve().parent.parent / 'docs/reference/config.md').read_text()


@pytest.fixture
def toml_file(tmp_path):
    """Writes a TOML file and gives its path."""

    def write(text: str) -> Path:
        path = tmp_path / 'run.toml'
        path.write_text(text)
        return path

    return write


def message(**sources) -> str:
    """The one line with which load() refuses."""
    with pytest.raises(ConfigError) as caught:
        load(**sources)
    assert '\n' not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------- precedence


def test_without_any_source_the_defaults_make_a_run():
    config = load()
    (job,) = config.jobs
    assert (job.name, job.rw, job.bs, job.iodepth, job.io_limit) == (
        'job1', 'randread', 4096, 1, 20_000,
    )  # fmt: skip
    assert (config.guest.vcpus, config.device.num_queues) == (1, 1)
    assert (config.target.kind, config.target.service, config.target.lanes) == (
        'constant', 80_000, 32,
    )  # fmt: skip
    assert config.notes == ()


def test_a_later_source_outranks_an_earlier_one(toml_file, tmp_path):
    toml = toml_file('[workload]\niodepth = 3\nbs = "8k"\nthinktime = 9\n')
    fio = tmp_path / 'job.fio'
    fio.write_text('[j]\nrw=randread\nioengine=libaio\niodepth=4\nbs=16k\n')
    (job,) = load(
        workload={'iodepth': 2, 'thinktime': 8, 'rwmixread': 7},
        toml=toml,
        fio=fio,
        sets=['workload.iodepth=5', 'workload.iodepth=6'],
    ).jobs
    assert (job.iodepth, job.bs, job.thinktime, job.rwmixread) == (6, 16384, 9_000, 7)


def test_the_device_string_outranks_toml_and_set_outranks_both(toml_file):
    toml = toml_file('[device]\nvirtqueue-size = 32\ncmd_per_lun = 1\nboot_tpgt = 1\n')
    device = load(
        toml=toml,
        device='vhost-scsi-pci,virtqueue_size=64,cmd_per_lun=2',
        sets=['device.cmd-per-lun=3'],
    ).device
    assert (device.virtqueue_size, device.cmd_per_lun, device.boot_tpgt) == (64, 3, 1)


def test_a_job_outranks_the_workload_of_all(toml_file):
    toml = toml_file('[workload]\niodepth = 2\n[[job]]\n[[job]]\nname = "deep"\niodepth = 9\n')
    assert [(job.name, job.iodepth) for job in load(toml=toml).jobs] == [('job1', 2), ('deep', 9)]


def test_a_fio_file_replaces_the_job_tables(toml_file, tmp_path):
    (tmp_path / 'job.fio').write_text('[only]\nrw=write\nioengine=libaio\n')
    config = load(toml=toml_file('[[job]]\n[[job]]\n'), fio=tmp_path / 'job.fio')
    assert [job.name for job in config.jobs] == ['only']
    assert config.notes[-1].endswith('its jobs replace the [[job]] tables')


def test_costs_come_in_nested_tables_and_dotted_keys(toml_file):
    toml = toml_file('[costs]\n"lio.submit-hop" = 900\n[costs.kick]\nexit = "770ns"\n')
    config = load(toml=toml, sets=['costs.irq.entry=1.1us'])
    assert config.costs == {'lio.submit_hop': 900, 'kick.exit': 770, 'irq.entry': 1100}


def test_numbers_may_come_from_numpy():
    job = load(workload={'iodepth': np.int64(4), 'runtime': np.float64(0.5)}).jobs[0]
    assert (job.iodepth, job.runtime) == (4, 500_000_000)


# ------------------------------------------------------------------------------- what is worked out


def test_vcpus_and_queues_follow_the_jobs_that_run_at_the_same_time():
    jobs = [{'numjobs': 2}, {'numjobs': 3}, {'numjobs': 4, 'stonewall': True}]
    config = load(job=jobs)
    assert config.phases == ((0, 1), (2,))
    assert (config.guest.vcpus, config.device.num_queues) == (5, 5)


def test_qemu_before_5_2_makes_one_queue():
    assert load(workload={'numjobs': 4}, qemu={'version': 4.2}).device.num_queues == 1


def test_more_queues_than_vcpus_are_not_used_and_that_is_noted():
    config = load(device='vhost-scsi-pci,num_queues=8', guest={'vcpus': 2})
    assert config.device.num_queues == 2
    assert 'Linux uses one per vCPU, that is 2' in config.notes[0]


def test_in_order_is_masked_and_that_is_noted():
    config = load(device={'in_order': True, 'hotplug': True})
    assert config.device.in_order is False
    assert 'QEMU masks it' in config.notes[0]
    assert config.device.hotplug is True


@pytest.mark.parametrize(
    ('workload', 'limit'),
    [
        ({}, 20_000),
        ({'number_ios': 7}, 7),
        ({'size': '1m'}, 256),
        ({'size': '1m', 'number_ios': 7}, 7),
        ({'size': '1m', 'number_ios': 700}, 256),
        ({'size': '50%'}, 1 << 20),
        ({'runtime': 1}, 2 << 20),
        ({'runtime': 1, 'number_ios': 7}, 7),
        ({'runtime': 1, 'time_based': 1, 'size': '1m'}, None),
    ],
)
def test_a_clone_ends_by_the_first_of_its_limits(workload, limit):
    assert load(workload=workload).jobs[0].io_limit == limit


# ------------------------------------------------------------------------------ what reads back


def named(job: dict[str, object]) -> str:
    """What a name becomes; unnamed jobs get names of their own."""
    return str(job.get('name', id(job))).strip()


@st.composite
def sources(draw):
    """Sections of a config that makes sense."""
    job = st.fixed_dictionaries(
        {},
        optional={
            'name': st.text('aβ "\\[]=#', min_size=1).filter(str.strip),
            'rw': st.sampled_from(['read', 'readwrite', 'randwrite']),
            'bs': st.integers(1, 64).map(lambda pages: pages * 4096),
            'iodepth': st.integers(1, 64),
            'numjobs': st.integers(1, 4),
            'number_ios': st.integers(1, 10**6),
            'runtime': st.integers(1, 100),
            'size': st.sampled_from(['1m', '33%', '100%', 1 << 20]),
            'thinktime': st.integers(0, 10**6).map(lambda ns: f'{ns}ns'),
            'rwmixwrite': st.integers(0, 100),
            'stonewall': st.booleans(),
        },
    )
    kind = draw(st.sampled_from(['null', 'constant', 'exponential', 'lanes']))
    target = {'kind': kind, 'size': draw(st.sampled_from(['1m', '1g']))}
    if kind == 'lanes':
        target['serial'] = f'{draw(st.integers(0, 10**6))}ns'
    return {
        'job': draw(st.lists(job, min_size=1, max_size=3, unique_by=named)),
        'device': {'num_queues': draw(st.integers(1, 8)), 'in_order': draw(st.booleans())},
        'target': target,
        'costs': draw(st.dictionaries(st.sampled_from(['a', 'b.c']), st.integers(0, 10**9))),
    }


@given(sources())
def test_the_effective_config_reads_back_from_json_and_from_toml(sections):
    config = load(**sections)
    again = from_effective(json.loads(json.dumps(config.effective())))
    assert again == config
    assert again.id == config.id


@given(sources())
def test_the_printed_toml_reads_back(tmp_path_factory, sections):
    config = load(**sections)
    path = tmp_path_factory.getbasetemp() / 'again.toml'
    path.write_text(config.to_toml(), encoding='utf-8')
    assert load(toml=path) == config


def test_the_id_is_16_hex_digits_of_all_but_the_notes():
    one, two = load(device={'hotplug': True}), load(device={'hotplug': True}, run={'seed': 2})
    assert len(one.id) == 16
    assert one.id != two.id
    assert one.id == from_effective(one.effective()).id
    assert load(device={'in_order': True}).id == load().id


# ------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ('text', 'problem'),
    [
        ('workload.iodepht=4', "--set: no key 'iodepht' in workload; the nearest is 'iodepth'"),
        ('worklod.iodepth=4', "--set: no section 'worklod'; the nearest is 'workload'"),
        ('iodepth=4', 'write section.key=value, as in workload.iodepth=...'),
        ('workload.iodepth', 'write section.key=value'),
        ('job.iodepth=4', 'write workload.iodepth, for all jobs'),
        ('workload.iodepth=', 'the value is empty'),
        ('workload.iodepth=-4', 'is out of range: 1 to 65536'),
        ('workload.iodepth=4.5', 'is not a whole number'),
        ('workload.iodepth=' + '9' * 5000, 'is not a whole number'),
        ('workload.bs=4us', 'is not a size'),
        ('workload.runtime=-1s', 'is not a time'),
        ('target.service=80', 'has no unit'),
        ('target.service=4k', 'has no unit of time'),
        ('target.service=1h', 'is out of range: 1ns to 100s'),
        ('costs.kick.exit=1d', 'costs.kick.exit: '),
        ('costs.kick exit=1us', 'is no name of a cost'),
        ('target.size=300g', 'is out of range: 1m to 256g'),
        ('device.migratable=maybe', 'is neither on nor off'),
        ('run.warmup=some', 'auto, off or a number'),
        ('device.wwpn=sda', 'name of the vhost target'),
        ('device.t10_pi=on', 'on is not modelled yet; use off'),
        ('host.kernel=5.15', 'is none of 6.1, 6.12, 7.2'),
    ],
)
def test_a_wrong_setting_is_told_with_its_cure(text, problem):
    assert problem in message(sets=[text])


@pytest.mark.parametrize(
    ('section', 'problem'),
    [
        ({'workload': {'iodepth': True}}, 'True is not a whole number'),
        ({'workload': {'iodepth': 4.0}}, '4.0 is not a whole number'),
        ({'workload': {'iodepth': [4]}}, '[4] is not a whole number'),
        ({'workload': {'runtime': float('nan')}}, 'nan is not a time'),
        ({'workload': {'runtime': float('inf')}}, 'inf is not a time'),
        ({'workload': {'bs': '4k', 'blocksize': '4k'}}, 'is given twice'),
        ({'workload': 3}, 'workload is a table'),
        ({'job': {}}, 'write [[job]]'),
        ({'job': [3]}, 'job is a table'),
        ({'costs': 3}, 'costs is a table'),
        ({'costs': {'a': {'b': 1}, 'a.b': 2}}, 'is given twice'),
        ({'device': {'packed': 2}}, 'is neither on nor off'),
        ({'target': {'kind': True}}, 'is none of null'),
        ({'run': {'preset': 'a\nb'}}, 'cannot stand here'),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(section, problem):
    assert problem in message(**section)


@pytest.mark.parametrize(
    ('section', 'problem'),
    [
        ({'workload': {'bs': 1000}}, 'is no multiple of 512'),
        ({'workload': {'bs': '1m'}}, 'blk-mq would split it, which is not modelled yet'),
        ({'workload': {'iodepth_batch_submit': 2}}, 'is above iodepth=1'),
        ({'workload': {'iodepth_batch_complete_min': 2}}, 'is above iodepth=1'),
        (
            {'workload': {'iodepth': 4, 'iodepth_batch_complete_min': 3,
                          'iodepth_batch_complete_max': 2}},
            'is below iodepth_batch_complete_min=3',
        ),
        ({'workload': {'time_based': True}}, 'needs a runtime'),
        ({'workload': {'rate_process': 'poisson'}}, 'needs a rate'),
        ({'workload': {'size': '9g'}}, 'is above target.size'),
        ({'workload': {'size': 512}}, 'is below bs=4096'),
        ({'job': [{}, {'name': 'job1'}]}, 'two jobs have this name'),
        ({'device': {'num_queues': 200}}, 'at most 128 request queues'),
        ({'device': {'virtqueue_size': 2}}, 'must be > 2'),
        ({'device': {'virtqueue_size': 48}}, 'is no power of two'),
        ({'device': {'virtqueue_size': 2048}}, 'is out of range'),
        (
            {'device': {'virtqueue_size': 4}, 'workload': {'bs': '12k'}},
            'a request of 5 descriptors does not fit a ring of 4',
        ),
        ({'device': {'max_sectors': 7}}, 'is less than workload.bs=4096'),
        ({'device': {'packed': True}}, 'VHOST_SET_FEATURES fails with EOPNOTSUPP'),
        ({'target': {'kind': 'null', 'service': '1us'}}, 'target.service has no meaning'),
        ({'target': {'serial': '1us'}}, 'target.serial has no meaning for kind constant'),
        ({'target': {'size': (1 << 20) + 1}}, 'is no multiple of 512'),
    ],
)  # fmt: skip
def test_keys_that_contradict_each_other_are_refused(section, problem):
    assert problem in message(**section)


def test_a_message_names_the_line_of_the_toml_file(toml_file):
    toml = toml_file('[guest]\nvcpus = 4\n\n[[job]]\niodepth = 1\n[[job]]\niodepth = -1\n')
    assert message(toml=toml).startswith(f'{toml}:7: workload.iodepth: ')
    toml = toml_file('[costs.kick]\nexit = "1d"\n')
    assert message(toml=toml).startswith(f'{toml}:2: costs.kick.exit: ')
    toml = toml_file('[target]\nkind = "null"\nlanes = 4\n')
    assert message(toml=toml).startswith(f'{toml}:3: target.lanes has no meaning')


def test_a_file_that_cannot_be_read_is_told_on_one_line(toml_file, tmp_path):
    assert ':2: not valid TOML' in message(toml=toml_file('[guest]\nvcpus = = 4\n'))
    assert 'No such file' in message(toml=tmp_path / 'none.toml')
    assert 'Is a directory' in message(toml=tmp_path)
    assert 'No such file' in message(fio=tmp_path / 'none.fio')
    latin = tmp_path / 'latin.toml'
    latin.write_bytes(b'# \xe9\n')
    assert 'is not UTF-8' in message(toml=latin)
    assert 'cannot be read' in message(toml='a\0b')


def test_what_is_no_effective_config_is_refused():
    with pytest.raises(ConfigError, match='is no effective config'):
        from_effective([1])
    with pytest.raises(ConfigError, match='no section'):
        from_effective({'toml': 'x'})


# ------------------------------------------------------------------------------------ beside it


def test_the_manual_names_every_key():
    for section in SECTIONS:
        table = DOC.split(f'## [{section}]')[1].split('\n## ')[0]
        rows = {line.split('`')[1] for line in table.splitlines() if line.startswith('| `')}
        assert rows == set(fields_of(section)), section


def test_a_config_is_read_without_the_heavy_packages():
    code = 'import sys, sim.config; print({"numpy", "numba", "pandas"} & set(sys.modules))'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.strip() == 'set()', done.stderr


def test_the_folder_of_a_saved_run_is_its_config(tmp_path):
    config = load(sets=['workload.iodepth=3', 'target.kind=null'])
    (tmp_path / 'config.toml').write_text(config.to_toml())
    assert load(toml=tmp_path).id == config.id
    assert load(toml=tmp_path, sets=['workload.iodepth=4']).jobs[0].iodepth == 4
    (tmp_path / 'config.toml').unlink()
    with pytest.raises(ConfigError, match='Is a directory'):
        load(toml=tmp_path)
