"""fio job files: what is taken over, what is noted, what is refused, each with file and line."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.config import ConfigError, from_effective, load
from sim.formats import fio
from sim.formats.work_values import Pair
from sim.run import run

DOC = (Path(__file__).resolve().parent.parent / 'docs/reference/config.md').read_text()
EXAMPLES = 40 if os.environ.get('HYPOTHESIS_PROFILE') == 'smoke' else 200
GOOD = '[job]\nrw=randread\nioengine=libaio\n'


@pytest.fixture
def job_file(tmp_path):
    """Writes a job file and gives its path."""

    def write(text: str) -> Path:
        path = tmp_path / 'job.fio'
        path.write_text(text)
        return path

    return write


def test_each_job_takes_the_globals_before_it(job_file):
    config = load(
        fio=job_file(
            '; a comment\n'
            '[global]\nioengine=libaio\nrw=randread\niodepth=4 # of each\nbs=4k\n'
            '[a]\n'
            '[global]\niodepth=8\n'
            '[b]\nbs=8K\nstonewall\n'
        )
    )
    assert [(job.name, job.iodepth, job.bs, job.stonewall) for job in config.jobs] == [
        ('a', 4, 4096, False),
        ('b', 8, 8192, True),
    ]


def test_fios_units_and_other_names_are_understood(job_file):
    (job,) = load(
        fio=job_file(
            '[j]\nreadwrite=readwrite\nblocksize=16k\niodepth=32\niodepth_batch=8\n'
            'iodepth_batch_complete=4\nrwmixwrite=30\nsize=50%\nruntime=2m\ntime_based=1\n'
            'ramp_time=5\nthinktime=10\nrate_iops=1k\nioengine=io_uring\n'
        )
    ).jobs
    assert (job.rw, job.bs, job.iodepth_batch_submit) == ('rw', 16384, 8)
    assert (job.iodepth_batch_complete_min, job.iodepth_batch_complete_max) == (4, 4)
    assert (job.rwmixread, job.size, job.rate_iops) == (70, 4 << 30, Pair(1024, 1024))
    assert (job.runtime, job.ramp_time, job.thinktime) == (120 * 10**9, 5 * 10**9, 10_000)


def test_of_a_key_given_twice_the_last_counts(job_file):
    (job,) = load(fio=job_file(GOOD + 'bs=8k\nblocksize=16k\nrwmixread=10\nrwmixwrite=20\n')).jobs
    assert (job.bs, job.rwmixread) == (16384, 80)


def test_the_environment_is_expanded(job_file, monkeypatch):
    monkeypatch.setenv('DEPTH', '16')
    assert load(fio=job_file(GOOD + 'iodepth=${DEPTH}\n')).jobs[0].iodepth == 16


def test_a_page_is_that_of_the_guest(job_file):
    assert load(fio=job_file(GOOD + 'bs=$pagesize\n')).jobs[0].bs == 4096


def test_what_changes_nothing_is_noted_with_its_line(job_file):
    path = job_file(GOOD + 'direct=1\nfilename=/dev/sda\nbuffered=0\n')
    jobs, notes = fio.parse_job_file(path)
    assert set(jobs[0]) == {'name', 'rw', 'ioengine'}
    assert notes == [
        f'fio: {path}:4: direct has no effect here: all I/O is direct',
        f'fio: {path}:5: filename has no effect here: the disk is [target]',
        f'fio: {path}:6: buffered has no effect here: all I/O is direct',
    ]


def test_fios_own_defaults_are_said_aloud(job_file):
    config = load(fio=job_file('[job]\n'))
    assert config.jobs[0].rw == 'read'
    assert 'it is read, as in fio' in config.notes[0]
    assert 'fio takes psync' in config.notes[1]


@pytest.mark.parametrize(
    ('line', 'problem'),
    [
        ('iodepht=4', "unknown option 'iodepht'; the nearest is 'iodepth'"),
        ('direct=0', 'page cache'),
        ('buffered', 'page cache'),
        ('ioengine=psync', 'not modelled; use one of libaio, io_uring'),
        ('rw=randtrim', 'trims are not modelled'),
        ('rw=randread:8', 'is none of read, write'),
        ('iodepth=4,8', 'not a list'),
        ('bs=4k-8k', 'is not a size'),
        ('startdelay=1-5', 'not a range'),
        ('read_iolog=a:b', 'one trace for all clones'),
        ('bs=4q', 'is not a size'),
        ('bs=', 'empty'),
        ('bs', 'needs a value'),
        ('runtime=5q', 'no unit of time'),
        ('iodepth=0', 'out of range'),
        ('iodepth=-1', 'out of range'),
        ('iodepth=4us', 'not a whole number'),
        ('blockalign=1k', 'blockalign is not modelled: requests of other lengths'),
        ('latency_target=5ms', 'a search over loads; run a sweep'),
        ('include', 'include needs a file'),
        ('iodepth=${NO_SUCH_NAME}', 'NO_SUCH_NAME} is not set'),
        ('[half', 'is not a section'),
        ('numjobs=$ncpus', '$ncpus is not known before the guest is; write the vCPUs'),
        ('size=$mb_memory', '$mb_memory is not known before the guest is'),
        ('bs=(2*2)k', 'arithmetic is not read'),
    ],
)
def test_an_error_names_file_line_and_cause(job_file, line, problem):
    path = job_file(GOOD + line + '\n')
    with pytest.raises(ConfigError) as caught:
        load(fio=path)
    assert str(caught.value).startswith(f'{path}:4: ')
    assert problem in str(caught.value)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('text', 'problem'),
    [
        ('', 'no job in the file'),
        ('[global]\nbs=4k\n', 'no job in the file'),
        ('bs=4k\n', 'before the first'),
    ],
)
def test_a_file_without_jobs_is_refused(job_file, text, problem):
    with pytest.raises(ConfigError, match=problem):
        load(fio=job_file(text))


OPTIONS = {
    'rw': ['read', 'write', 'randread', 'randwrite', 'rw', 'randrw'],
    'bs': ['512', '4k', '8k,4k', ',16k', '4k,8k,16k'],
    'bsrange': ['4k-8k', '1k-3k,4k-4k'],
    'bssplit': ['4k/50:8k/50', '4k/:12k/', '512/10:4k/,8k/100'],
    'size': ['64k', '1m', '50%'],
    'offset': ['0', '4k', '25%'],
    'offset_increment': ['1m', '1%'],
    'io_size': ['32k', '10%'],
    'number_ios': ['1', '30'],
    'loops': ['1', '2'],
    'iodepth': ['1', '4', '33'],
    'iodepth_low': ['1', '3'],
    'iodepth_batch': ['1', '2'],
    'iodepth_batch_complete_max': ['1', '9'],
    'numjobs': ['1', '3'],
    'random_distribution': ['random', 'zipf', 'pareto:0.1', 'gauss:5', 'zoned:50/50:50/50'],
    'percentage_random': ['0', '50,100'],
    'rate': ['10m', '1m,'],
    'rate_iops': ['20k', ',9k'],
    'rate_process': ['linear', 'poisson'],
    'io_submit_mode': ['inline', 'offload'],
    'thinktime': ['5', '1ms'],
    'thinktime_blocks': ['4'],
    'thinktime_spin': ['3', '2ms'],
    'thinktime_iotime': ['1ms'],
    'fsync': ['0', '3'],
    'fdatasync': ['2'],
    'startdelay': ['1ms'],
    'runtime': ['1ms'],
    'ioengine': ['libaio', 'io_uring'],
    'end_fsync': [''],
    'norandommap': [''],
    'time_based': [''],
    'group_reporting': [''],
    'direct': ['1'],
    'rate_min': ['5m'],
    'verify': ['md5'],
}


@settings(max_examples=EXAMPLES)
@given(st.data())
def test_any_mix_of_valid_options_runs_or_is_refused_in_one_line(tmp_path_factory, data):
    path = tmp_path_factory.mktemp('jobs') / 'job.fio'
    chosen = data.draw(st.lists(st.sampled_from(sorted(OPTIONS)), unique=True, max_size=9))
    lines = [f'{name}={data.draw(st.sampled_from(OPTIONS[name]))}'.rstrip('=') for name in chosen]
    path.write_text('[j]\n' + '\n'.join(lines) + '\n')
    try:
        config = load(fio=path, target={'size': '16m'})
    except ConfigError as error:
        refusal = str(error)
    else:
        refusal = ''
        assert from_effective(json.loads(json.dumps(config.effective()))) == config
        if sum((plan.io_limit or 9999) * plan.numjobs for plan in config.jobs) < 3000:
            assert run(config).violations == []
    assert '\n' not in refusal


def test_the_manual_names_every_option():
    names = {*fio.HONOURED, *fio.ALIASES, *fio.NOTED, *fio.NOT_MODELLED}
    assert {name for name in names if f'`{name}`' not in DOC} == set()
