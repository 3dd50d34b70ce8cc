"""fio job files: what is taken over, what is noted, what is refused, each with file and line."""

from pathlib import Path

import pytest

from sim.config import ConfigError, load
from sim.formats import fio

DOC = (Path(__file__).resolve().parent.parent / 'docs/reference/config.md').read_text()
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
    assert (job.rwmixread, job.size, job.rate_iops) == (70, 4 << 30, 1024)
    assert (job.runtime, job.ramp_time, job.thinktime) == (120 * 10**9, 5 * 10**9, 10_000)


def test_of_a_key_given_twice_the_last_counts(job_file):
    (job,) = load(
        fio=job_file(GOOD + 'bs=8k\nblocksize=16k\nrwmixread=10\nrwmixwrite=20\n')
    ).jobs
    assert (job.bs, job.rwmixread) == (16384, 80)


def test_the_environment_is_expanded(job_file, monkeypatch):
    monkeypatch.setenv('DEPTH', '16')
    assert load(fio=job_file(GOOD + 'iodepth=${DEPTH}\n')).jobs[0].iodepth == 16


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
        ('bs=4k,8k', 'not a list'),
        ('bs=4k-8k', 'ranges'),
        ('bs=4q', 'is not a size'),
        ('bs=', 'empty'),
        ('bs', 'needs a value'),
        ('runtime=5q', 'no unit of time'),
        ('iodepth=0', 'out of range'),
        ('iodepth=-1', 'out of range'),
        ('iodepth=4us', 'not a whole number'),
        ('offset=1g', 'offset is not modelled'),
        ('include other.fio', 'include is not modelled'),
        ('iodepth=${NO_SUCH_NAME}', 'NO_SUCH_NAME} is not set'),
        ('[half', 'is not a section'),
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


def test_the_manual_names_every_option():
    names = {*fio.HONOURED, *fio.ALIASES, *fio.NOTED, *fio.NOT_MODELLED}
    assert {name for name in names if f'`{name}`' not in DOC} == set()
